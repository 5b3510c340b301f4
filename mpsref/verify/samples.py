"""Some elements of an image, and what they say of candidates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mpsref.arrays import Index, Mask, Stored, Wide, meaning
from mpsref.operations import Role
from mpsref.ulp import ulp_distance
from mpsref.verify.case import Case, IsClose
from mpsref.verify.compare import NEAR
from mpsref.verify.hypotheses import Candidate
from mpsref.verify.hypotheses.base import at_once

__all__ = [
    "Judged",
    "Sample",
    "between_ends",
    "close_to",
    "equal",
    "evident",
    "followed",
    "has_ends",
    "is_scattered",
    "is_wide",
    "lost",
    "neighbours",
]


NEARER = 0.25
"""Of the distance to the ideal value, what is left of it."""

RUN, ONE_WAY = 8, 0.6
"""
Inputs next to each other, and how large the sum of their errors is beside that of the magnitudes, at most, if those are
errors of rounding: of random signs it is a third.
"""


@dataclass(frozen=True, eq=False)
class Judged:
    """Elements that a candidate explains, that contradict it, that it gives bit for bit; what it gives, and where."""

    explained: Mask
    against: Mask
    same: Mask
    out: Stored
    known: Mask


class Sample:
    """Elements on which candidates are tried, with what is known of them."""

    def __init__(self, case: Case, index: Index, bad: Mask, weight: Wide) -> None:
        self.case, self.index, self.bad, self.weight = case, index, bad, weight
        self.got, self.want = case.got.reshape(-1)[index], case.want.reshape(-1)[index]
        self._is_close = case.bound(index)

    @cached_property
    def values(self) -> tuple[Wide, Wide]:
        """What the device's and the ideal elements mean."""
        return meaning(self.got, self.case.result), meaning(self.want, self.case.result)

    @cached_property
    def read(self) -> list[Wide]:
        """What the sources' elements mean."""
        return [source.at(self.index).values() for source in self.case.sources]

    @cached_property
    def _is_allowed(self) -> Callable[[Stored], Mask]:
        """Which values would be within the bounds of the elements."""
        return self.case.allowed(self.index)

    def is_close(self, candidate: Candidate) -> IsClose:
        """Which elements are close to what a candidate gives."""
        return between_ends(candidate, self.case, self.index) if has_ends(candidate, self.case) else self._is_close

    def judged(self, candidate: Candidate) -> Judged:
        """What a candidate gives, and what that means."""
        if candidate.restored is not None:
            return self._restored(candidate)
        out, known = candidate.at(self.case, self.index)
        same = equal(out, self.got, self.case)
        differs = ~equal(out, self.want, self.case) | is_wide(candidate)
        nothing = np.zeros(same.shape, np.bool_)
        everything = ~nothing if known is None else known
        if not differs.any():
            # It gives what is ideal.
            return Judged(nothing, nothing, same, out, everything)
        is_close = self.is_close(candidate)
        sure = same
        if candidate.coarse and not self.case.layers:
            sure = same | neighbours(candidate, self.case, self.index, self.got)
        too_near, nearer = lost(candidate, self.case, self.index, out)
        fits = sure | nearer | close_to(candidate, is_close, out, self.got)
        explained = self.bad & fits & differs
        if not self.case.layers and (explained & ~sure).any():
            # What would be within bounds is no reason to be beyond them.
            explained &= sure | ~self._is_allowed(out)
        against = ~fits & differs & ~too_near
        harmless = ~self.bad & against
        if harmless.any():
            against &= self.bad | ~is_close(out, self.want)
        if known is not None:
            explained &= known
            against &= known
        return Judged(explained, against, same, out, everything)

    def votes(self, judged: Judged) -> Wide:
        """
        The weights of elements that are nearer to what a candidate gives than to the ideal value; negative if farther.

        What is within bounds, and would be so, has no vote.
        """
        got, want, out = (meaning(image, self.case.result) for image in (self.got, self.want, judged.out))
        alike = ((got == each) | (np.isnan(got) & np.isnan(each)) for each in (out, want))
        apart, off = (
            np.where(same, 0.0, np.nan_to_num(np.abs(got - each), nan=np.inf))
            for each, same in zip((out, want), alike, strict=True)
        )
        matters = self.bad if self.case.layers else self.bad | ~self._is_allowed(judged.out)
        return self.weight * (judged.known & matters) * (1.0 * (apart < off) - (apart > off))

    def _restored(self, candidate: Candidate) -> Judged:
        out, same, _, explained, against = followed(candidate, self.case, self.index, self.bad)
        return Judged(explained, against, same, out, np.ones(same.shape, np.bool_))

    def explained(self, candidates: Sequence[Candidate]) -> tuple[Stored, Mask, Mask]:
        """
        What several candidates give, and which elements each explains, and which contradict it: the rows.

        All elements are out of bounds.
        """
        case, index = self.case, self.index
        rows = at_once(candidates, case, index)
        outs = np.stack([out for out, _ in rows])
        differs = ~equal(outs, self.want, case) | np.array([[is_wide(candidate)] for candidate in candidates])
        got, sure = np.broadcast_to(self.got, outs.shape), equal(outs, self.got, case)
        close, idle = np.zeros((2, *outs.shape), np.bool_)
        if not case.layers:
            close = self._is_close(outs, got)
        elif differs.any():
            ends = [np.stack([out for out, _ in at_once(candidates, case, index, nudge)]) for nudge in (-1, 1)]
            close = _between(ends, case)(outs, got)
        too_near = np.zeros(outs.shape, np.bool_)
        for k, ((out, known), candidate) in enumerate(zip(rows, candidates, strict=True)):
            if candidate.undo is not None or candidate.exact or candidate.ends is not None:
                close[k] = close_to(candidate, self.is_close(candidate), out, self.got)
            if candidate.cancels:
                too_near[k], nearer = lost(candidate, case, index, out)
                close[k] |= nearer
            if not case.layers and (close[k] & differs[k]).any():
                idle[k] = self._is_allowed(out)
            if candidate.coarse and not case.layers and differs[k].any():
                sure[k] |= neighbours(candidate, case, index, self.got)
            if known is not None:
                differs[k] &= known
        return outs, (sure | (close & ~idle)) & differs, ~(sure | close | too_near) & differs


def lost(candidate: Candidate, case: Case, index: Index, out: Stored) -> tuple[Mask, Mask]:
    """
    Where less is between what was got and what a candidate gives than cancelling terms may leave.

    Terms are as large as what is read, or 1. And where that is much nearer than the ideal value.
    """
    too_near, nearer = np.zeros((2, index.size), np.bool_)
    if not candidate.cancels or case.layers or case.result.unorm_max:
        return too_near, nearer
    sizes: Wide = np.full(index.shape, candidate.cancels)
    with np.errstate(all="ignore"):
        for source, role in zip(case.sources, case.operation.roles, strict=False):
            sizes = sizes * np.fmax(np.abs(source.at(index).values()), 0.0 if role is Role.GRADIENT else 1.0)
        got, want = (meaning(image.reshape(-1)[index], case.result) for image in (case.got, case.want))
        apart = np.abs(meaning(out, case.result) - got)
        too_near = np.isfinite(sizes) & (apart <= sizes)
        # NaN is nowhere near.
        return too_near, too_near & (np.isnan(want) | (apart <= NEARER * np.abs(want - got)))


def evident(candidate: Candidate, case: Case, index: Index, out: Stored) -> Mask:
    """Which elements, far out of bounds, are close to what a candidate gives, as far as that is soon told."""
    found = np.zeros(index.size, np.bool_)
    has_closeness = candidate.undo is not None or candidate.exact or candidate.coarse or has_ends(candidate, case)
    if case.far is None or case.near is None or has_closeness:
        return found
    where = np.flatnonzero(case.far(index))
    index, out = index[where], out[where]
    close = lost(candidate, case, index, out)[1]
    left = np.flatnonzero(~close)
    close[left] = case.near(index[left])(out[left], case.got.reshape(-1)[index[left]])
    found[where] = close
    return found


def is_scattered(sample: Sample, out: Stored) -> bool:
    """Whether what is left beside a candidate has other signs from one input to the next, as rounding errors have."""
    case = sample.case
    left = sample.values[0] - meaning(out, case.result)
    for read, role in zip(sample.read, case.operation.roles, strict=False):
        left = left / (read if role is Role.GRADIENT else np.fmax(np.abs(read), 1.0))
    usable = sample.bad & np.isfinite(left) & (left != 0) & np.isfinite(sample.read[-1])
    inputs, which = np.unique(sample.read[-1][usable], return_inverse=True)
    sums = np.bincount(which, left[usable]) / np.bincount(which)
    runs = sums[: inputs.size // RUN * RUN].reshape(-1, RUN)
    return bool(np.abs(runs.sum(axis=1)).sum() <= ONE_WAY * np.abs(runs).sum())


def followed(candidate: Candidate, case: Case, index: Index, bad: Mask) -> tuple[Stored, Mask, Mask, Mask, Mask]:
    """
    What an image holds at flat indices that follows from what its sources should be, and which elements are the same.

    Then which it may leave out of bounds; of these, which it explains: those that are nearer to it than to what follows
    from the sources as recorded; and which contradict it.
    """
    assert candidate.restored is not None
    out, _ = candidate.at(case, index)
    got, want = case.got.reshape(-1)[index], case.want.reshape(-1)[index]
    same = equal(out, got, case)
    differs = np.flatnonzero(~equal(out, want, case))
    consistent, explained, against = np.zeros((3, index.size), np.bool_)
    if differs.size:
        ours, theirs, wanted = (meaning(array[differs], case.result) for array in (out, got, want))
        within, is_excused = candidate.restored.judged(got[differs], index[differs])
        is_nearer = same[differs] | (np.abs(theirs - ours) < np.abs(theirs - wanted))
        # What is within bounds either way tells nothing.
        tells = ~case.allowed(index[differs])(out[differs])
        consistent[differs] = bad[differs] & (within | is_excused)
        explained[differs] = bad[differs] & within & is_nearer & tells
        against[differs] = tells & ~is_excused & ~(within & (is_nearer | ~bad[differs]))
    return out, same, consistent, explained, against


def equal(a: Stored, b: Stored, case: Case) -> Mask:
    """Which elements are equal; zeros of either sign are, and every NaN."""
    same: Mask = a == b
    return same if case.result.unorm_max else same | (np.isnan(a) & np.isnan(b))


def close_to(candidate: Candidate, is_close: IsClose, ours: Stored, theirs: Stored) -> Mask:
    """Which elements are close, as the values that were meant."""
    if candidate.exact:
        return np.zeros(ours.shape, np.bool_)
    if candidate.undo is None:
        return is_close(ours, theirs)
    ours, theirs = candidate.undo(ours), candidate.undo(theirs)
    # What was not 0 and is read as that was hardly meant.
    return np.asarray(is_close(ours, theirs) & np.isfinite(theirs) & (theirs != 0))


def has_ends(candidate: Candidate, case: Case) -> bool:
    """Whether it has bounds of its own, instead of the elements' own around what it gives."""
    return bool(case.layers) or candidate.ends is not None


def between_ends(candidate: Candidate, case: Case, index: Index) -> IsClose:
    """Closeness to what has bounds of its own, as what a layer gives has."""
    if candidate.ends is not None:
        by = candidate.move if candidate.source is None else None
        moved = index if by is None else by(case.shape, index)
        return _between(candidate.ends(case, np.maximum(moved, 0)), case)
    ends = [candidate.at(case, index, nudge)[0] for nudge in (-1, 1)]
    return _between(ends if candidate.undo is None else [candidate.undo(end) for end in ends], case)


def _between(ends: Sequence[Stored], case: Case) -> IsClose:
    """Closeness to what is between two ends."""

    def is_close(ours: Stored, theirs: Stored) -> Mask:
        low, high, place = (case.result.ordinals(each) for each in (*ends, theirs))
        between = (np.minimum(low, high) <= place) & (place <= np.maximum(low, high))
        if not case.result.unorm_max:
            between &= ~(np.isnan(ends[0]) | np.isnan(ends[1]) | np.isnan(theirs))
        return np.asarray(between | (ulp_distance(theirs, ours, case.result) <= NEAR))

    return is_close


def is_wide(candidate: Candidate) -> bool:
    """Whether it is about the bounds, and may give what is ideal."""
    return candidate.given is not None and candidate.given.is_wide


def neighbours(candidate: Candidate, case: Case, index: Index, got: Stored) -> Mask:
    """Which elements hold what is stored of a value one ULP away."""
    below, above = (equal(candidate.at(case, index, nudge)[0], got, case) for nudge in (-1, 1))
    return below | above
