"""An implementation under attack, trials of it, and why an element of one may be wrong."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from mpsref.arrays import Elements, Index, Mask, Stored
from mpsref.enums import ActivationType, MPSCNNNeuronType
from mpsref.neuron import forward, gradient
from mpsref.neuron.descriptor import MPSNNNeuronDescriptor, descriptor_or_error
from mpsref.operations import NeuronForward, NeuronGradient
from mpsref.storage import StorageFormat, storage_of
from mpsref.sweep.implementation import Implementation, call, load
from mpsref.testing.comparison import judge_of
from mpsref.testing.reports import KINDS
from mpsref.testing.strategies import activations, descriptors
from mpsref.testing.views import viewed
from mpsref.verify.case import Case, within
from mpsref.verify.compare import Tolerance
from mpsref.verify.compare import compare as counts_of
from mpsref.verify.faults import Finding, explain
from mpsref.verify.hypotheses import Hypothesis, places
from mpsref.verify.judge import neuron_judge
from mpsref.verify.models import MODELS
from mpsref.verify.reasons import ASSUMED, BEYOND, WITHIN, Reason
from mpsref.verify.tolerance import Limit, excused_by

__all__ = ["Neurons", "Subject", "Trial", "explains", "hypothesis_of", "way_of"]

Neurons: TypeAlias = (
    MPSNNNeuronDescriptor | MPSCNNNeuronType | ActivationType | st.SearchStrategy[MPSNNNeuronDescriptor]
)

MENTIONED = 12
"""Faults that are considered, those that explain most."""

EXPLAINING = {
    "float32": ("metal-precise", "metal-fast"),
    "float16": ("metal-precise", "metal-fast", "metal-half"),
    "bfloat16": ("metal-precise", "metal-fast", "metal-bfloat"),
}
"""Models that may allow a result, the strictest first."""


@dataclass(frozen=True, eq=False)
class Trial:
    """
    One call: the arguments, the result, the right result, and the elements that fail.

    Each fails in a way: the number of its kind in `KINDS`, plus their number where a model of arithmetic allows it.
    `view` is one of `VIEWS`, if the arrays were views.
    """

    descriptor: MPSNNNeuronDescriptor
    x: Stored
    upstream: Stored | None
    got: Stored
    want: Stored
    beyond: Index
    ways: npt.NDArray[np.intp]
    view: str = ""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the arrays that the implementation gets: rows, and channels if there are several."""
        return _shape(self.x, self.view)

    def choice(self, flat: int) -> str:
        """What is said of a gradient that is that of one side of a kink, but not of the side that the row chooses."""
        row, x = self.descriptor.row, float(self.x.ravel()[flat])
        for kink, sides in zip(row.kinks(self.descriptor), row.sides(self.descriptor), strict=False):
            for side, slope in zip(("left", "right"), sides, strict=True):
                one = None if self.upstream is None else np.array(slope * float(self.upstream.ravel()[flat]))
                if one is not None and x == kink and one.astype(self.got.dtype) == self.got.ravel()[flat]:
                    return f"the slope on the {side} of the kink, which a library may choose; here it is torch's"
        return ""

    def failing(self, way: int) -> Index:
        """The flat indices of the elements that fail in this way."""
        index: Index = self.beyond[self.ways == way]
        return index


def _shape(x: Stored, view: str) -> tuple[int, ...]:
    if view == "transposed" and x.shape[1] == 1:
        return len(x) // 2, 2
    return x.shape if x.shape[1] > 1 else x.shape[:1]


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
        if isinstance(self.neuron, ActivationType):
            return activations(self.neuron)
        return st.just(descriptor_or_error(self.neuron, "neuron"))

    def trial(self, descriptor: MPSNNNeuronDescriptor, x: Stored, upstream: Stored | None, view: str = "") -> Trial:
        """Call the function with rows of channels, or with views that hold them."""
        if view == "broadcast":
            x = np.broadcast_to(x[:1], x.shape)
            upstream = None if upstream is None else np.broadcast_to(upstream[:1], x.shape)
        function, shape = self.function, _shape(x, view)
        if self.varies:
            vary = load(function)
            function = functools.wraps(vary)(lambda *arrays: vary(*arrays, descriptor))
        # Copies, since it may write to its arguments.
        own, incoming = x.reshape(shape).copy(), None if upstream is None else upstream.reshape(shape).copy()
        if view:
            own, incoming = viewed(view, own), None if incoming is None else viewed(view, incoming)
        got = call(function, own, incoming).reshape(x.shape)
        want = forward(descriptor, x) if upstream is None else gradient(descriptor, x, upstream)
        limit: Any = self.limit
        if not isinstance(limit, Tolerance):
            limit = judge_of(limit, Elements(got, self.storage), descriptor, x, upstream)
        read = [Elements(each, self.storage) for each in (upstream, x) if each is not None]
        beyond = counts_of(got, want, self.storage, limit, excused=excused_by(self.limit), sources=read).beyond
        trial = Trial(
            descriptor, x, upstream, got, want, beyond, _kinds(got.ravel()[beyond], want.ravel()[beyond]), view
        )
        return replace(trial, ways=trial.ways + len(KINDS) * self._is_allowed(trial, beyond))

    def _is_allowed(self, trial: Trial, index: Index) -> Mask:
        """Where some model of arithmetic allows the result."""
        allowed = np.zeros(index.size, np.bool_)
        for model in EXPLAINING[self.storage.name]:
            rest = ~allowed
            if rest.any():
                allowed[rest] = _allows(self._verdicts(model, trial, index[rest]))
        return allowed

    def why(self, trial: Trial, flat: int) -> str:
        """What the first model that allows an element says of it; empty if none does."""
        for model in EXPLAINING[self.storage.name]:
            verdicts = self._verdicts(model, trial, np.array([flat], np.intp))
            if verdicts[0] == WITHIN:
                return f"within what {model} arithmetic allows the formula"
            if _allows(verdicts)[0]:
                return f"{Reason(int(verdicts[0])).text}, as {model} arithmetic may"
        return ""

    def _verdicts(self, model: str, trial: Trial, index: Index) -> npt.NDArray[np.uint16]:
        incoming = None if trial.upstream is None else Elements(trial.upstream, self.storage)
        got, x = Elements(trial.got, self.storage), Elements(trial.x, self.storage)
        return neuron_judge(trial.descriptor, MODELS[model], got, x, incoming)(index)


def _allows(verdicts: npt.NDArray[np.uint16]) -> Mask:
    """Whether the elements may differ; what fast math makes of NaN excuses no implementation."""
    return np.asarray((verdicts != BEYOND) & (verdicts & ASSUMED == 0))


def way_of(way: int) -> tuple[str, bool]:
    """The kind of a failure, one of `KINDS`, and whether a model of arithmetic allows it."""
    return list(KINDS)[way % len(KINDS)], way >= len(KINDS)


def _kinds(got: Stored, want: Stored) -> npt.NDArray[np.intp]:
    """Numbers of `KINDS`."""
    tiny = np.abs(want) < storage_of(want, "want").limits.smallest_normal
    cases = {
        "NaN": np.isnan(got),
        "NaN lost": np.isnan(want),
        "infinity lost": np.isinf(want),
        "infinity": np.isinf(got),
        "flushed": (got == 0) & tiny,
        "vanished": got == 0,
    }
    numbers = [list(KINDS).index(kind) for kind in cases]
    return np.asarray(np.select(list(cases.values()), numbers, list(KINDS).index("far")), np.intp)


def hypothesis_of(trial: Trial, storage: StorageFormat) -> Finding | None:
    """
    The fault that explains most elements that fail and that no model allows.

    None that is in the arrangement of elements, such as a texture's: each of the trial fails alone.
    """
    bad = np.zeros(trial.x.size, np.bool_)
    bad[trial.beyond[trial.ways < len(KINDS)]] = True
    for finding in explain(_case(trial, bad, storage), MENTIONED):
        if finding.fits and finding.name not in ARRANGEMENTS and not finding.where:
            return finding
    return None


def explains(finding: Finding, alone: Trial, storage: StorageFormat) -> bool:
    """Whether the same fault explains the trial of a single element."""
    bad = np.zeros(alone.x.size, np.bool_)
    bad[alone.beyond] = True
    found = explain(_case(alone, bad, storage), MENTIONED)
    return any(each.name == finding.name and each.explained for each in found)


ARRANGEMENTS = frozenset(each.name for each in vars(places).values() if isinstance(each, Hypothesis))
"""Faults of the places of elements in memory."""


def _case(trial: Trial, bad: Mask, storage: StorageFormat) -> Case:
    """A trial as an image of one row."""
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
