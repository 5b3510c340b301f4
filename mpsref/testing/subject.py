"""An implementation under attack, trials of it, and why an element of one may be wrong."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from mpsref.arrays import Elements, Index, Mask, Stored, Wide
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
from mpsref.ulp import ulp_distance
from mpsref.verify.bounds import allowed
from mpsref.verify.case import Case, around
from mpsref.verify.compare import Tolerance
from mpsref.verify.compare import compare as counts_of
from mpsref.verify.faults import ELSEWHERE, findings_of
from mpsref.verify.hypotheses import Hypothesis, places
from mpsref.verify.judge import neuron_judge
from mpsref.verify.models import MODELS
from mpsref.verify.reasons import ASSUMED, BEYOND, WITHIN, Reason
from mpsref.verify.tolerance import Limit, excused_by

__all__ = ["Cause", "Neurons", "Subject", "Trial", "causes_of", "way_of"]

Neurons: TypeAlias = (
    MPSNNNeuronDescriptor | MPSCNNNeuronType | ActivationType | st.SearchStrategy[MPSNNNeuronDescriptor]
)

LOOK = 512
"""Elements that models are asked of at first."""

BINS, MOST_ASKED = 512, 8192
"""Of how many sizes elements that fail alike are told apart, at most; and of how many more models are asked."""

ALIKE, WIDE = 16, 1 / 16
"""Results that are so many ULP apart are alike, and inputs that are farther apart than this are not."""

INTERVAL = 0.95
"""The share of the elements of an interval of x that must fail if it is to be explained alone."""

EXPLAINING = {
    "float32": ("metal-precise", "metal-fast"),
    "float16": ("metal-precise", "metal-fast", "metal-half"),
    "bfloat16": ("metal-precise", "metal-fast", "metal-bfloat"),
}
"""Models that may allow a result, the strictest first."""


@dataclass(frozen=True, eq=False)
class Trial:
    """
    One call: the arguments, the result, the right result, the elements that fail, and the numbers of their `KINDS`.

    `view` is one of `VIEWS`, if the arrays were views.
    """

    descriptor: MPSNNNeuronDescriptor
    x: Stored
    upstream: Stored | None
    got: Stored
    want: Stored
    beyond: Index
    kinds: npt.NDArray[np.intp]
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

    def read_at(self, flat: int) -> bytes:
        """What an element reads: its input and, for a gradient, the incoming gradient."""
        read = [self.x] if self.upstream is None else [self.x, self.upstream]
        return b"".join(each.ravel()[flat].tobytes() for each in read)

    def rows(self, chosen: Mask) -> Trial:
        """Some rows, of which none is said to fail."""
        upstream = None if self.upstream is None else self.upstream[chosen]
        x, got, want = self.x[chosen], self.got[chosen], self.want[chosen]
        return Trial(self.descriptor, x, upstream, got, want, *np.empty((2, 0), np.intp))

    @classmethod
    def joined(cls, trials: Sequence[Trial]) -> Trial:
        """All rows of trials of one neuron, one after the other."""
        first = trials[0]
        starts = np.cumsum([0, *(trial.x.size for trial in trials)])
        upstream = None
        if first.upstream is not None:
            upstream = np.concatenate([trial.upstream for trial in trials if trial.upstream is not None])
        x, got, want = (np.concatenate([getattr(trial, name) for trial in trials]) for name in ("x", "got", "want"))
        beyond = np.concatenate([trial.beyond + start for trial, start in zip(trials, starts, strict=False)])
        return cls(first.descriptor, x, upstream, got, want, beyond, np.concatenate([t.kinds for t in trials]))


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
        kinds = _kinds(got.ravel()[beyond], want.ravel()[beyond])
        return Trial(descriptor, x, upstream, got, want, beyond, kinds, view)

    def failing(self, trial: Trial, way: int, most: int = 1) -> Index:
        """
        The flat indices of the first elements that fail in this way.

        A way is the number of a kind in `KINDS`, plus their number where a model of arithmetic allows the result.
        """
        kind, is_allowed = way % len(KINDS), way >= len(KINDS)
        rest, found = trial.beyond[trial.kinds == kind], np.empty(0, np.intp)
        size = LOOK
        while rest.size and found.size < most:
            some, rest = rest[:size], rest[size:]
            found = np.concatenate([found, some[self._is_allowed(trial, some) == is_allowed]])
            size *= 4
        return found[:most]

    def ways(self, trial: Trial) -> tuple[npt.NDArray[np.intp], Mask]:
        """
        The way in which each element fails; and for which of them models were asked.

        Of many, models are asked for some of all sizes of x, those farthest from and nearest to the right result; where
        they differ for these, for all around them.
        """
        beyond, kinds = trial.beyond, trial.kinds
        if not beyond.size:
            return kinds, np.ones(0, np.bool_)
        places, distance = (
            self.storage.ordinals(trial.x.ravel()[beyond]),
            ulp_distance(trial.got.ravel()[beyond], trial.want.ravel()[beyond], self.storage),
        )
        # Incoming gradients of 1, of other numbers, and those that are not finite, each apart.
        one = np.ones(1, trial.x.dtype)
        upstream = one if trial.upstream is None else trial.upstream.ravel()[beyond]
        with np.errstate(invalid="ignore"):
            group = np.broadcast_to(3 * kinds + (upstream != 1) + ~np.isfinite(upstream), kinds.shape)
        order = np.lexsort((places, group))
        sizes = np.unique(group, return_counts=True)[1]
        bins = np.empty(beyond.size, np.intp)
        bins[order] = np.concatenate([np.arange(n) * min(n, BINS) // n + BINS * k for k, n in enumerate(sizes)])
        by_distance = np.lexsort((distance, bins))
        edges = np.flatnonzero(np.diff(bins[by_distance], prepend=-1))
        nearest, farthest = by_distance[edges], by_distance[np.append(edges[1:], beyond.size) - 1]
        asked, is_allowed = np.zeros((2, beyond.size), np.bool_)

        def ask(chosen: Index) -> None:
            asked[chosen] = True
            is_allowed[chosen] = self._is_allowed(trial, beyond[chosen])

        ask(np.unique([nearest, farthest]))
        counts = np.diff(np.append(edges, beyond.size))
        differs = np.repeat(is_allowed[nearest] != is_allowed[farthest], counts)
        alike = np.repeat(is_allowed[farthest], counts)
        is_allowed[by_distance] = np.where(asked[by_distance], is_allowed[by_distance], alike)
        ask(by_distance[differs & ~asked[by_distance]][:MOST_ASKED])
        return kinds + len(KINDS) * is_allowed, asked

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
    with np.errstate(invalid="ignore"):  # of which bfloat16's functions warn
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


@dataclass(frozen=True, eq=False)
class Cause:
    """What explains elements of a trial that fail and that no model allows, by what they read."""

    text: str
    pairs: frozenset[bytes]


def causes_of(subject: Subject, trial: Trial, bad: Mask) -> list[Cause]:
    """
    The causes of a trial's elements that fail, first that of most of them.

    None that is in the arrangement of elements, such as a texture's: each of the trial fails alone. Where no cause is
    found, and nearly all elements of an interval of x fail, that of these alone.
    """
    causes = _causes(subject, trial, bad, "")
    if not causes and bad.any():
        ends = trial.x.ravel()[bad].min(), trial.x.ravel()[bad].max()
        with np.errstate(invalid="ignore"):  # of which bfloat16's functions warn
            rows = ((trial.x >= ends[0]) & (trial.x <= ends[1])).all(axis=1)
        chosen = bad.reshape(trial.x.shape)[rows].ravel()
        if chosen.sum() > INTERVAL * chosen.size and rows.sum() < len(rows):
            return _causes(subject, trial.rows(rows), chosen, f"only where {ends[0]:.6g} <= x <= {ends[1]:.6g}")
    return causes


def _causes(subject: Subject, trial: Trial, bad: Mask, interval: str) -> list[Cause]:
    causes = []
    for finding, mask in findings_of(_case(subject, trial, bad)):
        at = np.flatnonzero(mask & bad)
        if finding.name.endswith(ELSEWHERE) and not (finding.where and _varies(subject, trial, at)):
            continue
        if finding.fits and finding.name not in ARRANGEMENTS:
            name = ", ".join(filter(None, (finding.name, finding.detail, finding.where or interval)))
            text = f"{name}, which explains {finding.explained:,} of {finding.of:,}: {finding.sentence}"
            causes.append(Cause(text, frozenset(map(trial.read_at, at.tolist()))))
    return causes


def _varies(subject: Subject, trial: Trial, index: Index) -> bool:
    """Whether the right results differ, or the inputs do: one value for all says nothing where all are alike anyhow."""
    want, x = (each.ravel()[index] for each in (trial.want, trial.x))
    if not index.size:
        return False
    with np.errstate(invalid="ignore"):
        return bool(np.ptp(subject.storage.ordinals(want)) > ALIKE or np.ptp(x.astype(np.float64)) > WIDE)


ARRANGEMENTS = frozenset(each.name for each in vars(places).values() if isinstance(each, Hypothesis))
"""Faults of the places of elements in memory."""


def _case(subject: Subject, trial: Trial, bad: Mask) -> Case:
    """A trial as an image of one row, with the bounds of models, which what is wrong in it has broken."""
    storage, shape = subject.storage, (1, 1, *trial.x.shape)
    ends = [np.full(trial.x.size, np.nan) for _ in range(2)]
    for model in EXPLAINING[storage.name]:
        bounds = allowed(
            trial.descriptor, trial.x, model, source=storage, result=storage, upstream=trial.upstream, flush=True
        )
        for end, limit, extreme in zip(ends, (bounds.lower, bounds.upper), (np.fmin, np.fmax), strict=True):
            values = np.where(bounds.reason == WITHIN, limit.astype(np.float64), np.nan).ravel()
            extreme(end, values, out=end)

    def between(index: Index) -> tuple[Wide, Wide]:
        return ends[0][index], ends[1][index]

    return Case(
        NeuronForward(trial.descriptor) if trial.upstream is None else NeuronGradient(trial.descriptor),
        tuple(Elements(each.reshape(shape), storage) for each in (trial.upstream, trial.x) if each is not None),
        storage,
        trial.got.reshape(shape),
        trial.want.reshape(shape),
        bad.reshape(shape),
        around(storage, trial.want, between),
        ends=between,
    )
