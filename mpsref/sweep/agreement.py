"""Whether a report of a sweep agrees with itself: counts with the histogram, and lists with counts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice, pairwise

import numpy as np

from mpsref.blocks import pattern_of
from mpsref.errors import ParameterError
from mpsref.storage import StorageFormat
from mpsref.sweep.summary import SHOWN, Mismatch, Summary
from mpsref.ulp import UNREACHABLE, ulp_distance

__all__ = ["check_summary"]


def check_summary(summary: Summary, storage: StorageFormat, ulp: int, stride: int = 1) -> None:
    """
    Check that a sweep in this format with these bounds may have this summary.

    Raises
    ------
    ParameterError
        Names the first field that contradicts others.
    """
    for holds, contradiction in _rules(summary, storage, ulp, stride):
        if not holds:
            raise ParameterError(f"{contradiction}: make the report again")


def _rules(summary: Summary, storage: StorageFormat, ulp: int, stride: int) -> Iterator[tuple[bool, str]]:
    bits, counts = 8 * storage.dtype.itemsize, summary.histogram
    apart = summary.nan_disagreements + summary.infinity_disagreements
    yield all(limit == 0 or limit.bit_count() == 1 for limit in counts), "histogram: a limit is no power of two"
    yield all(counts.values()), "histogram: a limit has no results"
    yield summary.elements == sum(counts.values()) + apart, "histogram: does not add up to the inputs in ranges"
    yield bool(summary.made_by) == bool(summary.elements), "made_by: does not fit the inputs in ranges"
    yield summary.zero_signs <= summary.exact, "zero_signs: more than there are exact results"
    if storage.unorm_max:
        names = "nan_disagreements, infinity_disagreements, zero_signs"
        yield apart + summary.zero_signs == 0, f"{names}: unorm has none"

    far = sorted((limit for limit in counts if limit), reverse=True)
    farthest = far[0] if far else 0
    largest = summary.largest
    yield farthest // 2 < largest <= farthest or largest == farthest == 0, "largest: not in the histogram"
    listed_beyond = [(m.ulp or 0) > ulp for m in summary.worst]
    least = max(sum(counts[limit] for limit in far if limit // 2 >= ulp), sum(listed_beyond))
    # The farthest are listed: if one of them is within the bounds, so are all others.
    more = len(listed_beyond) == SHOWN and all(listed_beyond)
    most = sum(counts[limit] for limit in far if limit > ulp) if more else sum(listed_beyond)
    yield least <= summary.beyond - apart <= most, "beyond: does not fit the histogram and the bounds"

    listed = list(islice((limit for limit in far for _ in range(min(counts[limit], SHOWN))), SHOWN))
    yield [_limit(m) for m in summary.worst] == listed, "worst: does not fit the histogram"
    yield not summary.worst or summary.worst[0].ulp == largest, "worst: does not begin with the largest distance"
    yield _ordered([(-(m.ulp or 0), m.x) for m in summary.worst]), "worst: is not in order"
    for name, mismatches, count, fits in (
        ("not_comparable", summary.not_comparable, apart, lambda m: m.ulp is None),
        ("first", summary.first, summary.beyond, lambda m: m.ulp is None or m.ulp > ulp),
    ):
        yield len(mismatches) == min(count, SHOWN), f"{name}: has not as many as there are"
        yield all(map(fits, mismatches)), f"{name}: lists what does not belong there"
        yield _ordered([m.x for m in mismatches]), f"{name}: is not in order"
    for name in ("worst", "not_comparable", "first"):
        mismatches = getattr(summary, name)
        yield all(max(m[:3]) >> bits == 0 for m in mismatches), f"{name}: has bits that no result has"
        inside = [
            pattern_of(m.x // stride, stride) == m.x
            and any(start <= m.x // stride < stop for start, stop in summary.ranges)
            for m in mismatches
        ]
        yield all(inside), f"{name}: has inputs outside ranges"
        yield [m.ulp for m in mismatches] == _distances(mismatches, storage), f"{name}: has wrong distances"


def _limit(mismatch: Mismatch) -> int:
    """The limit of the histogram under which a distance is counted."""
    return 1 << ((mismatch.ulp or 1) - 1).bit_length()


def _ordered(keys: Sequence[object]) -> bool:
    return all(a < b for a, b in pairwise(keys))  # type: ignore[operator]


def _distances(mismatches: Sequence[Mismatch], storage: StorageFormat) -> list[int | None]:
    got, want = (np.array([m[i] for m in mismatches], storage.bits_dtype).view(storage.dtype) for i in (1, 2))
    return [None if d == UNREACHABLE else d for d in ulp_distance(got, want, storage).tolist()]
