"""Somebody's implementation, called with arrays, and what it gives beside what is right."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from mpsref.arrays import Elements
from mpsref.enums import MPSCNNNeuronType
from mpsref.neuron import forward, gradient
from mpsref.neuron.descriptor import MPSNNNeuronDescriptor, descriptor_or_error
from mpsref.storage import StorageFormat
from mpsref.sweep.implementation import Implementation, call, load
from mpsref.testing.comparison import judge_of
from mpsref.testing.strategies import descriptors
from mpsref.verify.compare import Tolerance
from mpsref.verify.compare import compare as counts_of
from mpsref.verify.tolerance import Limit

__all__ = ["Index", "Neurons", "Stored", "Subject", "Tried"]

Stored: TypeAlias = npt.NDArray[Any]
Index: TypeAlias = npt.NDArray[np.intp]
Neurons: TypeAlias = MPSNNNeuronDescriptor | MPSCNNNeuronType | st.SearchStrategy[MPSNNNeuronDescriptor]


@dataclass(frozen=True, eq=False)
class Tried:
    """One call: what was given, what came back, and which elements are beyond the bounds."""

    descriptor: MPSNNNeuronDescriptor
    x: Stored
    upstream: Stored | None
    got: Stored
    want: Stored
    beyond: Index
    kinds: list[str]

    def of(self, kind: str) -> Index:
        """The flat indices of the elements that fail in this way."""
        return self.beyond[[one == kind for one in self.kinds]]


@dataclass(frozen=True, eq=False)
class Subject:
    """What is attacked, in one format."""

    function: Implementation
    neuron: Neurons
    direction: str
    limit: Limit
    storage: StorageFormat

    @property
    def varies(self) -> bool:
        """Whether the function is told the neuron."""
        return not isinstance(self.neuron, MPSNNNeuronDescriptor)

    def drawn_from(self) -> st.SearchStrategy[MPSNNNeuronDescriptor]:
        """A strategy for the neuron."""
        if isinstance(self.neuron, st.SearchStrategy):
            return self.neuron
        if isinstance(self.neuron, MPSCNNNeuronType):
            return descriptors([self.neuron])
        return st.just(descriptor_or_error(self.neuron, "neuron"))

    def tried(self, descriptor: MPSNNNeuronDescriptor, x: Stored, upstream: Stored | None) -> Tried:
        """Call the function with rows of channels."""
        shape = x.shape if x.shape[1] > 1 else (len(x),)
        # Copies, since it may write to what it gets.
        arrays = [None if one is None else one.reshape(shape).copy() for one in (x, upstream)]
        function = self.function
        if self.varies:
            function = _with_descriptor(load(self.function), descriptor)
        assert arrays[0] is not None
        got = call(function, arrays[0], arrays[1]).reshape(x.shape)
        want = forward(descriptor, x) if upstream is None else gradient(descriptor, x, upstream)
        judge = self.limit
        if not isinstance(judge, Tolerance):
            judge = judge_of(judge, Elements(got, self.storage), descriptor, x, upstream)  # type: ignore[assignment]
        beyond = counts_of(got, want, self.storage, judge).beyond  # type: ignore[arg-type]
        return Tried(descriptor, x, upstream, got, want, beyond, _kinds(got.ravel()[beyond], want.ravel()[beyond]))


def _with_descriptor(function: Callable[..., Any], descriptor: MPSNNNeuronDescriptor) -> Callable[..., Any]:
    @functools.wraps(function)
    def told(*arrays: Stored) -> Any:
        return function(*arrays, descriptor)

    return told


def _kinds(got: Stored, want: Stored) -> list[str]:
    tiny = np.abs(want) < np.finfo(want.dtype).smallest_normal
    cases = {
        "NaN": np.isnan(got),
        "NaN lost": np.isnan(want),
        "infinity lost": np.isinf(want),
        "infinity": np.isinf(got),
        "flushed": (got == 0) & tiny,
        "vanished": got == 0,
    }
    return [str(kind) for kind in np.select(list(cases.values()), list(cases), "far")]
