"""An implementation under attack, trials of it, and why an element of one may be wrong."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from hypothesis import strategies as st

from mpsref.arrays import Elements, Index, Stored
from mpsref.enums import MPSCNNNeuronType
from mpsref.neuron import forward, gradient
from mpsref.neuron.descriptor import MPSNNNeuronDescriptor, descriptor_or_error
from mpsref.operations import NeuronForward, NeuronGradient
from mpsref.storage import StorageFormat
from mpsref.sweep.implementation import Implementation, call, load
from mpsref.testing.comparison import judge_of
from mpsref.testing.strategies import descriptors
from mpsref.verify.case import Case, within
from mpsref.verify.compare import Tolerance
from mpsref.verify.compare import compare as counts_of
from mpsref.verify.faults import explain
from mpsref.verify.judge import neuron_judge
from mpsref.verify.models import MODELS
from mpsref.verify.reasons import ASSUMED, BEYOND, WITHIN, Reason
from mpsref.verify.tolerance import Limit, excused_by

__all__ = ["Neurons", "Subject", "Trial", "why"]

Neurons: TypeAlias = MPSNNNeuronDescriptor | MPSCNNNeuronType | st.SearchStrategy[MPSNNNeuronDescriptor]

MENTIONED = 12
"""Faults that are considered, those that explain most."""

EXPLAINING = {"float32": ("metal-precise", "metal-fast"), "float16": ("metal-precise", "metal-fast", "metal-half")}
"""Models that may allow a result, the strictest first."""


@dataclass(frozen=True, eq=False)
class Trial:
    """One call: the arguments, the result, the right result, and which elements are beyond the bounds."""

    descriptor: MPSNNNeuronDescriptor
    x: Stored
    upstream: Stored | None
    got: Stored
    want: Stored
    beyond: Index
    kinds: list[str]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the arrays that the implementation gets: rows, and channels if there are several."""
        return self.x.shape if self.x.shape[1] > 1 else self.x.shape[:1]

    def failing(self, kind: str) -> Index:
        """The flat indices of the elements that fail in this way."""
        return self.beyond[[each == kind for each in self.kinds]]


@dataclass(frozen=True, eq=False)
class Subject:
    """The implementation under attack, in one format."""

    function: Implementation
    neuron: Neurons
    direction: str
    limit: Limit
    storage: StorageFormat

    @property
    def varies(self) -> bool:
        """Whether the function gets the neuron as an argument."""
        return not isinstance(self.neuron, MPSNNNeuronDescriptor)

    def neurons(self) -> st.SearchStrategy[MPSNNNeuronDescriptor]:
        """A strategy for the neuron."""
        if isinstance(self.neuron, st.SearchStrategy):
            return self.neuron
        if isinstance(self.neuron, MPSCNNNeuronType):
            return descriptors([self.neuron])
        return st.just(descriptor_or_error(self.neuron, "neuron"))

    def trial(self, descriptor: MPSNNNeuronDescriptor, x: Stored, upstream: Stored | None) -> Trial:
        """Call the function with rows of channels."""
        shape = x.shape if x.shape[1] > 1 else x.shape[:1]
        function = self.function
        if self.varies:
            vary = load(function)
            function = functools.wraps(vary)(lambda *arrays: vary(*arrays, descriptor))
        # Copies, since it may write to its arguments.
        own = None if upstream is None else upstream.reshape(shape).copy()
        got = call(function, x.reshape(shape).copy(), own).reshape(x.shape)
        want = forward(descriptor, x) if upstream is None else gradient(descriptor, x, upstream)
        limit: Any = self.limit
        if not isinstance(limit, Tolerance):
            limit = judge_of(limit, Elements(got, self.storage), descriptor, x, upstream)
        beyond = counts_of(got, want, self.storage, limit, excused=excused_by(self.limit)).beyond
        return Trial(descriptor, x, upstream, got, want, beyond, _kinds(got.ravel()[beyond], want.ravel()[beyond]))


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


def why(trial: Trial, index: int, evidence: Trial, kind: str, storage: StorageFormat) -> str:
    """The reason that a model gives for the element, or else the fault that explains all elements that fail like it."""
    incoming = None if trial.upstream is None else Elements(trial.upstream, storage)
    got, x = Elements(trial.got, storage), Elements(trial.x, storage)
    for model in EXPLAINING[storage.name]:
        judge = neuron_judge(trial.descriptor, MODELS[model], got, x, incoming)
        (verdict,) = judge(np.array([index], np.intp)).tolist()
        if verdict == WITHIN:
            return f"within what {model} arithmetic allows the formula"
        if verdict != BEYOND and not verdict & ASSUMED:
            return f"{Reason(verdict).text}, as {model} arithmetic may"
    of_all = explain(_case(evidence, kind, storage), MENTIONED)
    # Where a single element shows the fault, the arrangement of elements is not to blame.
    alone = explain(_case(trial, kind, storage), MENTIONED) if trial.x.size == 1 else of_all
    names = {finding.name for finding in alone if finding.fits}
    for finding in of_all:
        if finding.fits and finding.name in names and not finding.where and finding.explained == finding.of:
            return f"{', '.join(filter(None, (finding.name, finding.detail)))}: {finding.sentence}"
    return ""


def _case(trial: Trial, kind: str, storage: StorageFormat) -> Case:
    """A trial as an image of one row, in which the elements that fail in this way are bad."""
    bad = np.zeros(trial.x.size, np.bool_)
    bad[trial.failing(kind)] = True
    shape = (1, 1, *trial.x.shape)
    return Case(
        NeuronForward(trial.descriptor) if trial.upstream is None else NeuronGradient(trial.descriptor),
        tuple(Elements(each.reshape(shape), storage) for each in (trial.upstream, trial.x) if each is not None),
        storage,
        trial.got.reshape(shape),
        trial.want.reshape(shape),
        bad.reshape(shape),
        within(storage, Tolerance()),
    )
