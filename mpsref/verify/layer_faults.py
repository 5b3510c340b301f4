"""
The likely fault of a layer that is out of bounds.

As in `mpsref.verify.faults`, a hypothesis explains an element if it gives the device's bits, or if the device lies
within that element's own bound around what it gives; it is contradicted where an element within bounds lies outside of
that. The score is the number of explained elements less that of contradictions. Whole images are computed at once, in
float64, with the bound of any order of float32 sums.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mpsref.arrays import Index, Mask, Stored, Wide, meaning
from mpsref.operations import Operation
from mpsref.storage import StorageFormat
from mpsref.verify.faults import NO_FAULT, Example, Finding

__all__ = ["Guess", "LayerCase", "explain_layer", "layer_hypothesis", "precision_note"]

NAMED = 0.5
"""The score that a cause must exceed."""

SAME, SAME_BITS = 0.02, 0.1
"""Differences up to which two scores, and two proportions of equal bits, count as equal."""

FEWEST, NEARER = 16, 0.25
"""See `precision_note`."""


@dataclass(frozen=True, eq=False)
class LayerCase:
    """
    A layer's image that is out of bounds.

    Attributes
    ----------
    operation : Operation
        What the node does.
    sources : tuple of ndarray
        What it read, as float64.
    result : StorageFormat
        How its result is stored.
    got, want : ndarray
        The device's result and the reference's.
    bad : ndarray of bool
        Which elements are out of bounds.
    after : callable
        What later nodes make of the node's stored result, where `got`, `want` and `bad` are those of a later image.
    final : StorageFormat or None
        How that image is stored; None for `result`.
    """

    operation: Operation
    sources: tuple[Wide, ...]
    result: StorageFormat
    got: Stored
    want: Stored
    bad: Mask
    after: Callable[[Stored], Stored] = lambda stored: stored
    final: StorageFormat | None = None

    def places(self, stored: Stored) -> Index:
        """The ordinals of stored numbers; one for all NaN."""
        storage = self.final or self.result
        places = storage.ordinals(stored)
        return places if storage.unorm_max else np.where(np.isnan(stored), np.iinfo(np.int64).max, places)

    def given(self, guess: Guess, radius: Wide | float = 0.0) -> Stored:
        """What a guess gives, stored; at the end of its bounds, if a radius is given."""
        with np.errstate(all="ignore"):
            value = np.ascontiguousarray(guess.finish(guess.value + radius))
            return self.after(self.result.encode(value, np.empty(value.shape, self.result.dtype)))


@dataclass(frozen=True, eq=False)
class Guess:
    """
    What a fault would give.

    Attributes
    ----------
    detail : str
        Which variant of the fault it is.
    value : ndarray
        The results before they are stored.
    radius : ndarray or float
        How far those of another order of summation may be from that.
    finish : callable
        What becomes of them before they are stored; monotone.
    """

    detail: str
    value: Wide
    radius: Wide | float = 0.0
    finish: Callable[[Wide], Wide] = lambda value: value


Guesses = Callable[[LayerCase], Iterator[Guess]]


@dataclass(frozen=True, eq=False)
class LayerHypothesis:
    """A fault: its name, a sentence, what it would give, and whether it is tried only where no other one fits."""

    name: str
    sentence: str
    guesses: Guesses
    is_last: bool = False


def layer_hypothesis(name: str, sentence: str, *, is_last: bool = False) -> Callable[[Guesses], LayerHypothesis]:
    """
    Make a hypothesis of the function that yields its guesses.

    One that `is_last` has bounds so wide that it explains much; it is tried only where no other one fits.
    """
    return lambda guesses: LayerHypothesis(name, sentence, guesses, is_last)


@dataclass(frozen=True)
class _Trial:
    order: int
    hypothesis: LayerHypothesis
    guess: Guess
    explained: Mask
    same: int
    contradicted: int
    bad: int

    @property
    def score(self) -> float:
        return (int(self.explained.sum()) - self.contradicted) / self.bad

    @property
    def bits(self) -> float:
        return self.same / self.bad


def explain_layer(case: LayerCase, hypotheses: Sequence[LayerHypothesis], most: int = 3) -> list[Finding]:
    """Find the likely faults of a layer's image, the likeliest first; see `mpsref.verify.faults.explain`."""
    trials: list[_Trial] = []
    with np.errstate(all="ignore"):
        for order, hypothesis in enumerate(hypotheses):
            if hypothesis.is_last and trials:
                continue
            best = max(
                (_tried(case, order, hypothesis, guess) for guess in hypothesis.guesses(case)),
                key=lambda trial: (trial.score, trial.same),
                default=None,
            )
            if best is not None and best.score > NAMED:
                trials.append(best)
    if not trials:
        return [_pattern(case)]
    first, *others = [_finding(case, trial) for trial in _ranked(trials)[:most]]
    return [first, *(replace(finding, rank="alternative") for finding in others)]


def precision_note(case: LayerCase, hypotheses: Sequence[LayerHypothesis]) -> str:
    """
    Which precision the device seems to have used, though it is within the bounds; empty for what was asked for.

    The bounds of long sums in any order are far wider than the errors that a device makes. So the distances of the
    whole image from the reference, each relative to its own bound, are compared with those from what another precision
    gives: it is named if its mean is less than a quarter, of at least `FEWEST` elements that are not exact.
    """
    storage = case.final or case.result
    got, want = (meaning(array, storage) for array in (case.got, case.want))
    if np.count_nonzero(got != want) < max(FEWEST, got.size / 100):
        return ""
    with np.errstate(all="ignore"):
        for hypothesis in hypotheses:
            for guess in hypothesis.guesses(case):
                size = np.broadcast_to(np.asarray(guess.radius), got.shape)
                other = np.abs(got - meaning(case.given(guess), storage)) / size
                own = np.abs(got - want) / size
                usable = np.isfinite(other) & np.isfinite(own)
                if usable.any() and other[usable].mean() < NEARER * own[usable].mean():
                    return f"{hypothesis.name}{guess.detail and f', {guess.detail}'}: nearer than the reference is"
    return ""


def _tried(case: LayerCase, order: int, hypothesis: LayerHypothesis, guess: Guess) -> _Trial:
    radius = np.asarray(guess.radius)
    low, middle, high = (case.places(case.given(guess, end)) for end in (-radius, 0.0, radius))
    got = case.places(case.got)
    same = got == middle
    near = same | ((np.minimum(low, high) <= got) & (got <= np.maximum(low, high)))
    # What the reference gives as well explains nothing.
    explained = near & case.bad
    contradicted = int(np.count_nonzero(~near & ~case.bad & (np.abs(got - middle) > 1)))
    bad = int(np.count_nonzero(case.bad))
    return _Trial(order, hypothesis, guess, explained, int(np.count_nonzero(same & case.bad)), contradicted, bad)


def _ranked(trials: list[_Trial]) -> list[_Trial]:
    """By score; among nearly equal ones by equal bits, and then in the order of the list."""
    rest, ranked = sorted(trials, key=lambda trial: -trial.score), []
    while rest:
        equal = [trial for trial in rest if trial.score >= rest[0].score - SAME]
        most = max(trial.bits for trial in equal)
        first = min((t for t in equal if t.bits >= most - SAME_BITS), key=lambda t: (t.order, -t.score))
        ranked.append(first)
        rest.remove(first)
    return ranked


def _finding(case: LayerCase, trial: _Trial) -> Finding:
    place = np.argwhere(trial.explained)[0]
    given = case.given(trial.guess)
    return Finding(
        trial.hypothesis.name,
        trial.hypothesis.sentence,
        trial.guess.detail,
        "",
        int(trial.explained.sum()),
        trial.bad,
        trial.same,
        trial.contradicted,
        trial.score,
        _example(case, place, str(given[tuple(place)])),
    )


def _example(case: LayerCase, place: Sequence[int], explained: str = "") -> Example:
    image, y, x, channel = (int(i) for i in place)
    at = image, y, x, channel
    return Example(*at, (), str(case.got[at]), str(case.want[at]), explained)


def _pattern(case: LayerCase) -> Finding:
    """Where the bad elements are, for want of a hypothesis."""
    count = int(np.count_nonzero(case.bad))
    parts = [f"{count:,} of {case.bad.size:,} elements"]
    for axis, name in enumerate(("images", "rows", "columns", "channels")):
        bad = case.bad.any(axis=tuple(k for k in range(4) if k != axis))
        if bad.size > 1:
            parts.append(f"in {np.count_nonzero(bad)} of {bad.size} {name}")
    sentence = "None of the faults that are looked for explains half of the elements out of bounds."
    example = _example(case, np.argwhere(case.bad)[0].tolist())
    return Finding(NO_FAULT, sentence, "; ".join(parts), "", 0, count, 0, 0, 0.0, example)
