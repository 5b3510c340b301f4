"""
The likely fault of an image that is out of bounds: hypotheses are tried on it, and ranked by what they explain.

A hypothesis explains an element out of bounds if it would give the device's result, exactly or within bounds. An
element within bounds contradicts it if the hypothesis would put it out of bounds, and not at the device's result. The
score is the number of explained elements less that of contradictions. The ranking:

1. The higher score, if it is higher by 2 % of the elements out of bounds.
2. Among equals, hypotheses that need no restriction to the images, channels, rows or columns of the bad elements.
3. Among equals, the one that gives the device's very bits more often, by at least 10 % of the elements out of bounds.
4. Among equals, the first in `mpsref.verify.hypotheses`, where the most specific is first and the plain float32
   formula last. So swapped bytes are blamed only if they explain more than a mistake in arithmetic.

A fault is named only if its score is at least half of the elements out of bounds; else the first finding describes
where they are, and hypotheses that score at least a tenth follow.

Examples
--------
>>> import numpy as np
>>> import mpsref as mps
>>> from mpsref.verify.faults import Case, explain
>>> x = np.linspace(-2, 2, 64, dtype=np.float16).reshape(1, 4, 4, 4)
>>> node = mps.MPSCNNNeuronTanHNode(source=mps.MPSNNImageNode(handle="x"), a=1.5, b=0.75)
>>> want = mps.neuron.forward(node.descriptor, x)
>>> got = np.ascontiguousarray(want[..., [2, 1, 0, 3]])  # BGRA taken for RGBA
>>> bad = np.abs(got - want) > 0.01
>>> images = (mps.MPSImage.from_array(array) for array in (got, want))
>>> print(explain(Case.of_node(node, [mps.MPSImage.from_array(x)], *images, bad))[0].headline)
lanes permuted, in the order (2, 1, 0, 3): explains 32 of 32
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from mpsref.arrays import Index, Mask, Stored
from mpsref.verify.case import Case, some
from mpsref.verify.hypotheses import HYPOTHESES, Candidate

__all__ = ["HYPOTHESES", "Case", "Example", "Finding", "explain"]

CLOSER_LOOK = 4096
"""Elements of each kind that are tried, if a smaller sample is promising."""

FEWEST_RESTRICTED = 8
"""With fewer elements out of bounds, their places mean nothing."""

CONTENDERS = 3
"""How many hypotheses are tried on every element."""

BLOCK = 65_536
"""Elements tried at once."""

NAMED, MENTIONED = 0.5, 0.1
"""The scores that a hypothesis needs to be named first, and to be mentioned."""

SAME, SAME_BITS = 0.02, 0.1
"""Differences up to which two scores, and two proportions of equal bits, count as equal."""

NO_FAULT = "no hypothesis fits"
AXES = ("images", "rows", "columns", "channels")


@dataclass(frozen=True)
class Example:
    """
    An element that a finding explains.

    Attributes
    ----------
    image, y, x, channel : int
        Its place.
    sources : tuple of str
        What the node read there.
    got, want, explained : str
        The device's result, the reference's and the hypothesis's.
    """

    image: int
    y: int
    x: int
    channel: int
    sources: tuple[str, ...]
    got: str
    want: str
    explained: str

    def __str__(self) -> str:
        place = f"(image {self.image}, y {self.y}, x {self.x}, channel {self.channel})"
        reads = f" reads {', '.join(self.sources)}" if self.sources else ""
        gives = f", the hypothesis {self.explained}" if self.explained else ""
        return f"{place}{reads}: got {self.got}, want {self.want}{gives}"


@dataclass(frozen=True)
class Finding:
    """
    A hypothesis that explains an image out of bounds, or the statement that none does.

    Attributes
    ----------
    name, sentence : str
        Of the hypothesis; or that none fits.
    detail : str
        The variant of the fault, or where the unexplained elements are.
    where : str
        The part of the image to which the hypothesis had to be restricted; empty if it holds for all of it.
    explained, of : int
        How many of the elements out of bounds it explains, and how many there are.
    same_bits : int
        How many of them it gives bit for bit.
    contradicted : int
        Elements within bounds that it would put out of bounds.
    score : float
        Explained less contradicted elements, relative to `of`: 1 if all are explained and none is contradicted.
    example : Example or None
        An element that it explains.
    """

    name: str
    sentence: str
    detail: str
    where: str
    explained: int
    of: int
    same_bits: int
    contradicted: int
    score: float
    example: Example | None

    @property
    def fits(self) -> bool:
        """Whether it is a hypothesis that explains most of what is wrong."""
        return self.name != NO_FAULT and self.score >= NAMED

    @property
    def headline(self) -> str:
        """Name, detail and numbers, in one line."""
        subject = ", ".join(filter(None, (self.name, self.detail, self.where)))
        if self.name == NO_FAULT:
            return subject
        against = f", contradicted by {self.contradicted:,}" if self.contradicted else ""
        return f"{subject}: explains {self.explained:,} of {self.of:,}{against}"

    def __str__(self) -> str:
        example = f" For example {self.example}." if self.example else ""
        return f"{self.headline}. {self.sentence}{example}"


def explain(case: Case, most: int = 3) -> list[Finding]:
    """
    Find the likely faults of an image, the likeliest first.

    Parameters
    ----------
    case : Case
        The image.
    most : int
        How many findings to return at most.

    Returns
    -------
    list of Finding
        Empty if nothing is out of bounds. The first one `fits`, or else describes where the bad elements are.
    """
    if not case.bad_index.size:
        return []
    with np.errstate(all="ignore"):
        search = _Search(case)
        trials = [trial for order in range(len(HYPOTHESES)) for trial in search.best_of(order)]
        contenders = [search.on_all(trial) for trial in _ranked(trials)[:CONTENDERS]]
        findings = [search.finding(trial) for trial in _ranked(contenders) if trial.gain >= MENTIONED]
        if not findings or findings[0].score < NAMED:
            findings.insert(0, _pattern(case))
    return findings[:most]


@dataclass(frozen=True)
class _Region:
    """A part of the image with bad elements: some places along axes, or everything from the first bad one on."""

    name: str
    axes: dict[int, Mask] = field(default_factory=dict)
    start: int = 0

    def holds(self, index: Index, shape: tuple[int, ...]) -> Mask:
        inside = index >= self.start
        if self.axes:
            for axis, place in enumerate(np.unravel_index(index, shape)):
                if axis in self.axes:
                    inside &= self.axes[axis][place]
        return inside

    def mask(self, shape: tuple[int, ...]) -> Mask:
        inside = np.ones(shape, np.bool_)
        for axis, mask in self.axes.items():
            inside &= mask.reshape([-1 if k == axis else 1 for k in range(4)])
        return inside


@dataclass(frozen=True)
class _Trial:
    """A candidate and how much it explains of the elements on which it was tried."""

    order: int
    candidate: Candidate
    region: _Region
    explained: int
    same_bits: int
    contradicted: float
    of: int

    @property
    def gain(self) -> float:
        return self.explained / self.of - self.contradicted

    @property
    def bits(self) -> float:
        return self.same_bits / self.of


class _Search:
    """The sample of a case's elements, and trials on it."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.got, self.want = case.got.reshape(-1), case.want.reshape(-1)
        self.bad = some(case.bad_index, CLOSER_LOOK)
        self.best = 0.0
        axes = {k: mask for k in range(4) if not (mask := _bad_along(case, k)).all()}
        box = _Region("in " + ", ".join(_listed(AXES[k], mask) for k, mask in axes.items()), axes)
        first = int(case.bad_index[0])
        self.regions = [
            _Region(""),
            *(_Region(f"in {_listed(AXES[k], mask)}", {k: mask}) for k, mask in axes.items()),
            *([_Region(f"from element {first:,} on", start=first)] if first else []),
            *([box] if len(axes) > 1 else []),
        ]
        # Half of the elements within bounds come from near the bad ones, where a fault of a small part shows.
        good, near = ~case.bad, box.mask(case.shape)
        strata = [np.flatnonzero(good & near), np.flatnonzero(good & ~near) if axes else np.empty(0, np.intp)]
        chosen = [some(stratum, CLOSER_LOOK) for stratum in strata]
        self.good = np.concatenate(chosen)
        self.weight = np.concatenate(
            [
                np.full(c.size, s.size / max(1, c.size) / case.bad_index.size)
                for s, c in zip(strata, chosen, strict=True)
            ]
        )
        self.inside = [region.holds(self.good, case.shape) for region in self.regions]

    def best_of(self, order: int) -> list[_Trial]:
        """The best candidate of a hypothesis, if any explains enough of a small sample to be tried on a larger one."""
        trials = []
        for candidate in HYPOTHESES[order].candidates(self.case):
            promise = self.explained(candidate.at(self.case.bad_sample), self.case.bad_sample)[0]
            if promise.mean() < max(MENTIONED, self.best - 2 * SAME_BITS):
                continue
            explained, same = (int(np.count_nonzero(mask)) for mask in self.explained(candidate.at(self.bad), self.bad))
            if explained < HYPOTHESES[order].fewest:
                continue
            against = self.contradicted(candidate.at(self.good), self.good) * self.weight
            counts = [float(against.sum(where=inside)) for inside in self.inside]
            # The least restricted of the regions with the best score.
            enough = self.case.bad_index.size >= FEWEST_RESTRICTED
            k = next(k for k, count in enumerate(counts) if count <= min(counts) + SAME) if enough else 0
            trials.append(_Trial(order, candidate, self.regions[k], explained, same, counts[k], self.bad.size))
            self.best = max(self.best, trials[-1].gain)
        return _ranked(trials)[:1]

    def explained(self, candidate: Stored, index: Index) -> tuple[Mask, Mask]:
        """Which elements are within bounds of the device's result, and which are equal to it, bit for bit."""
        got = self.got[index]
        bits = self.case.result.bits_dtype
        same = np.ascontiguousarray(candidate).view(bits) == got.view(bits)
        same |= (candidate != candidate) & (got != got)  # noqa: PLR0124 - every NaN, in formats that have any
        return self._close(candidate, got, same), same

    def contradicted(self, candidate: Stored, index: Index) -> Mask:
        """Which elements are near neither the device's result nor the reference's."""
        got, want = self.got[index], self.want[index]
        apart = ~self._close(candidate, got, candidate == got)
        apart[apart] = ~self.case.is_close(candidate[apart], want[apart])
        return apart

    def _close(self, candidate: Stored, got: Stored, same: Mask) -> Mask:
        close = same.copy()
        close[~same] = self.case.is_close(candidate[~same], got[~same])
        return close

    def on_all(self, trial: _Trial) -> _Trial:
        """The same trial on every element of the image."""
        explained = same = contradicted = 0
        bad = self.case.bad.reshape(-1)
        for start in range(0, bad.size, BLOCK):
            index = np.arange(start, min(start + BLOCK, bad.size))
            candidate, is_bad = trial.candidate.at(index), bad[index]
            close, bits = self.explained(candidate[is_bad], index[is_bad])
            explained += int(np.count_nonzero(close))
            same += int(np.count_nonzero(bits))
            against = self.contradicted(candidate[~is_bad], index[~is_bad])
            contradicted += int(np.count_nonzero(against & trial.region.holds(index[~is_bad], self.case.shape)))
        of = self.case.bad_index.size
        return replace(trial, explained=explained, same_bits=same, contradicted=contradicted / of, of=of)

    def finding(self, trial: _Trial) -> Finding:
        hypothesis, candidate = HYPOTHESES[trial.order], trial.candidate.at(self.bad)
        explained = np.flatnonzero(self.explained(candidate, self.bad)[0])
        example = _example(self.case, int(self.bad[explained[0]]), candidate[explained[0]]) if explained.size else None
        return Finding(
            hypothesis.name,
            hypothesis.sentence,
            trial.candidate.detail,
            trial.region.name and f"only {trial.region.name}",
            trial.explained,
            trial.of,
            trial.same_bits,
            round(trial.contradicted * trial.of),
            trial.gain,
            example,
        )


def _ranked(trials: list[_Trial]) -> list[_Trial]:
    """In the order that the module's docstring states."""
    rest, ranked = sorted(trials, key=lambda trial: -trial.gain), []
    while rest:
        same = [trial for trial in rest if trial.gain >= rest[0].gain - SAME]
        whole = [trial for trial in same if not trial.region.name] or same
        most = max(trial.bits for trial in whole)
        first = min(
            (trial for trial in whole if trial.bits >= most - SAME_BITS),
            key=lambda trial: (trial.order, -trial.gain, -trial.bits),
        )
        ranked.append(first)
        rest.remove(first)
    return ranked


def _example(case: Case, index: int, explained: Any = None) -> Example:
    image, y, x, channel = (int(place) for place in np.unravel_index(index, case.shape))
    return Example(
        image,
        y,
        x,
        channel,
        tuple(str(source.stored.reshape(-1)[index]) for source in case.sources),
        str(case.got.reshape(-1)[index]),
        str(case.want.reshape(-1)[index]),
        "" if explained is None else str(explained),
    )


def _pattern(case: Case) -> Finding:
    """Where the bad elements are, and what they have in common, for want of a hypothesis."""
    parts = [f"{case.bad_index.size:,} of {case.bad.size:,} elements"]
    for axis, name in enumerate(AXES):
        bad = _bad_along(case, axis)
        if bad.size > 1:
            parts.append(f"in all {bad.size} {name}" if bad.all() else f"in {_listed(name, bad)} of {bad.size}")
    x = case.x(case.bad_index) if case.sources else np.empty(0)
    missing = np.isnan(x)
    numbers = x[~missing] if missing.any() else x
    if numbers.size:
        parts.append(f"x from {numbers.min():.6g} to {numbers.max():.6g}")
    if numbers.size < x.size:
        parts.append(f"x is NaN at {x.size - numbers.size:,}")
    got = case.got.reshape(-1)[case.bad_index]
    for text, mask in (("NaN", np.isnan(got)), ("0", got == 0), ("infinite", np.isinf(got))):
        if mask.any():
            parts.append(f"{np.count_nonzero(mask):,} of them {text}")
    sentence = "None of the faults that are looked for explains half of the elements out of bounds."
    of = case.bad_index.size
    return Finding(NO_FAULT, sentence, "; ".join(parts), "", 0, of, 0, 0, 0.0, _example(case, int(case.bad_index[0])))


def _bad_along(case: Case, axis: int) -> Mask:
    """Which places along an axis have bad elements."""
    return np.asarray(case.bad.any(axis=tuple(k for k in range(4) if k != axis)))


def _listed(name: str, mask: Mask) -> str:
    """``rows 3 to 5 and 9``; only their number, if they are scattered."""
    places = np.flatnonzero(mask)
    runs = [run for run in np.split(places, np.flatnonzero(np.diff(places) > 1) + 1) if run.size]
    if len(runs) > 4:
        return f"{places.size} {name}"
    texts = [str(run[0]) if run.size == 1 else f"{run[0]} to {run[-1]}" for run in runs]
    name = name.removesuffix("s") if places.size == 1 else name
    return f"{name} {' and '.join(texts)}"
