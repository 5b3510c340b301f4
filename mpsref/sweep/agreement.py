"""Whether what a report of a sweep says agrees with itself: counts with the histogram, and lists with counts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice, pairwise

import numpy as np

from mpsref.errors import ParameterError
from mpsref.storage import StorageFormat
from mpsref.sweep.summary import SHOWN, Mismatch, Summary
from mpsref.ulp import UNREACHABLE, ulp_distance

__all__ = ["check_summary"]


def check_summary(found: Summary, storage: StorageFormat, ulp: int) -> None:
    """
    Check that a sweep in this format, with these bounds, can have had this summary.

    Raises
    ------
    ParameterError
        Names the first field that contradicts others.
    """
    for holds, contradiction in _rules(found, storage, ulp):
        if not holds:
            raise ParameterError(f"{contradiction}: make the report again")


def _rules(found: Summary, storage: StorageFormat, ulp: int) -> Iterator[tuple[bool, str]]:
    bits, counts = 8 * storage.dtype.itemsize, found.histogram
    apart = found.nan_disagreements + found.infinity_disagreements
    yield all(limit == 0 or limit.bit_count() == 1 for limit in counts), "histogram: a limit is no power of two"
    yield all(counts.values()), "histogram: a limit has no results"
    yield found.elements == sum(counts.values()) + apart, "histogram: does not add up to the inputs in ranges"
    yield bool(found.made_by) == bool(found.elements), "made_by: does not fit the inputs in ranges"
    yield found.zero_signs <= found.exact, "zero_signs: more than there are exact results"
    if storage.unorm_max:
        yield (
            apart + found.zero_signs == 0,
            "nan_disagreements, infinity_disagreements, zero_signs: there are none",
        )

    far = sorted((limit for limit in counts if limit), reverse=True)
    farthest = far[0] if far else 0
    yield farthest // 2 < found.largest <= farthest or found.largest == farthest == 0, "largest: not in the histogram"
    listed_beyond = [(m.ulp or 0) > ulp for m in found.worst]
    least = max(sum(counts[limit] for limit in far if limit // 2 >= ulp), sum(listed_beyond))
    # The farthest are listed: if one of them is within the bounds, so are all others.
    more = len(listed_beyond) == SHOWN and all(listed_beyond)
    most = sum(counts[limit] for limit in far if limit > ulp) if more else sum(listed_beyond)
    yield least <= found.beyond - apart <= most, "beyond: does not fit the histogram and the bounds"

    listed = list(islice((limit for limit in far for _ in range(min(counts[limit], SHOWN))), SHOWN))
    yield [_limit(m) for m in found.worst] == listed, "worst: does not fit the histogram"
    yield not found.worst or found.worst[0].ulp == found.largest, "worst: does not begin with the largest distance"
    yield _ordered([(-(m.ulp or 0), m.x) for m in found.worst]), "worst: is not in order"
    for name, mismatches, count, fits in (
        ("not_comparable", found.not_comparable, apart, lambda m: m.ulp is None),
        ("first", found.first, found.beyond, lambda m: m.ulp is None or m.ulp > ulp),
    ):
        yield len(mismatches) == min(count, SHOWN), f"{name}: has not as many as there are"
        yield all(map(fits, mismatches)), f"{name}: lists what does not belong there"
        yield _ordered([m.x for m in mismatches]), f"{name}: is not in order"
    for name, mismatches in ("worst", found.worst), ("not_comparable", found.not_comparable), ("first", found.first):
        yield all(max(m[:3]) >> bits == 0 for m in mismatches), f"{name}: has bits that no result has"
        yield all(any(a <= m.x < b for a, b in found.ranges) for m in mismatches), f"{name}: has inputs outside ranges"
        yield [m.ulp for m in mismatches] == _distances(mismatches, storage), f"{name}: has wrong distances"


def _limit(mismatch: Mismatch) -> int:
    """The limit of the histogram under which a distance is counted."""
    return 1 << ((mismatch.ulp or 1) - 1).bit_length()


def _ordered(keys: Sequence[object]) -> bool:
    return all(a < b for a, b in pairwise(keys))  # type: ignore[operator]


def _distances(mismatches: Sequence[Mismatch], storage: StorageFormat) -> list[int | None]:
    got, want = (
        np.array([m[i] for m in mismatches], storage.bits_dtype).view(storage.dtype) for i in (1, 2)
    )  # fmt: skip
    return [None if d == UNREACHABLE else d for d in ulp_distance(got, want, storage).tolist()]
