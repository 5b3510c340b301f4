"""Element by element: how far is what was got from what was wanted."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from mpsref.errors import ParameterError
from mpsref.storage import StorageFormat
from mpsref.verify.bounds import BEYOND, WITHIN
from mpsref.verify.running import Reason

__all__ = ["NEAR", "UNREACHABLE", "Comparison", "Counts", "Tolerance", "compare", "ulp_distance"]

NEAR = 1
"""ULP that are within every model's bounds: one rounding, in whatever order it falls on a boundary."""

BLOCK = 262_144
"""Elements that are compared at once."""

UNREACHABLE = np.iinfo(np.int64).max
"""The distance of NaN from a number, and of an infinity from all else."""

MOST_ULP = 2**32
"""More than any distance between two numbers of a storage format."""

Stored = npt.NDArray[Any]
Judge: TypeAlias = Callable[[npt.NDArray[np.intp]], npt.NDArray[np.uint16]]


@dataclass(frozen=True)
class Tolerance:
    """
    What passes: an element within `ulp` units in the last place, or within ``atol + rtol |want|``.

    Parameters
    ----------
    ulp : int, optional
        Default: 4 units of the storage format; 0 if `rtol` or `atol` is given.
    rtol, atol : float
        Relative and absolute tolerance, as `numpy.isclose` has them.

    Raises
    ------
    ParameterError
        A number is negative or not finite.
    """

    ulp: int | None = None
    rtol: float = 0.0
    atol: float = 0.0

    def __post_init__(self) -> None:
        for name in ("ulp", "rtol", "atol"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, int | float) and 0 <= value < math.inf):
                raise ParameterError(f"{name} is {value!r}: give a finite number of at least 0")
        if self.ulp is not None and self.ulp > MOST_ULP:
            raise ParameterError(f"ulp is {self.ulp}: give at most {MOST_ULP}, which no two numbers exceed")
        if self.ulp is None:
            object.__setattr__(self, "ulp", 0 if self.rtol or self.atol else 4)

    def __str__(self) -> str:
        parts = [f"{self.ulp} ULP of each image's format"] if self.ulp or not (self.rtol or self.atol) else []
        if self.rtol or self.atol:
            parts.append(f"{self.atol:g} + {self.rtol:g} |want|")
        return " or ".join(parts)


@dataclass(frozen=True)
class Counts:
    """
    How many elements of an image are how near.

    Attributes
    ----------
    elements, exact, within_1, within_4, within_64 : int
        Elements in all, and those at most so many ULP away.
    largest : int
        Largest distance in ULP among numbers that both are finite.
    nan_disagreements : int
        Elements where one side is NaN and the other is not.
    infinity_disagreements : int
        Elements where one side is infinite and the other is another number.
    within : int
        Elements that pass: within the tolerance, or the model's bounds.
    explained : Mapping of str to int
        Elements that pass for a named reason, by the name of the `Reason`; none under a plain tolerance.
    beyond : int
        All others.
    """

    elements: int
    exact: int
    within_1: int
    within_4: int
    within_64: int
    largest: int
    nan_disagreements: int
    infinity_disagreements: int
    within: int
    explained: dict[str, int]
    beyond: int


def ulp_distance(got: Stored, want: Stored, storage: StorageFormat) -> npt.NDArray[np.int64]:
    """
    Distance in units in the last place of the storage format.

    The integer distance of the sign-magnitude bit patterns (of the codes, for unorm). Zeros are equal, NaN equals
    NaN, and an infinity equals only itself; whatever else meets NaN or an infinity is `UNREACHABLE`.

    Examples
    --------
    >>> import numpy as np
    >>> from mpsref.storage import storage_of
    >>> got, want = np.float16([1, -0.0, np.nan]), np.float16([1.002, 0.0, np.nan])
    >>> ulp_distance(got, want, storage_of(got, "got"))
    array([2, 0, 0])
    """
    distance: npt.NDArray[np.int64] = np.abs(storage.ordinals(got) - storage.ordinals(want))
    if storage.unorm_max:
        return distance
    got_nan, want_nan = np.isnan(got), np.isnan(want)
    distance[(got_nan != want_nan) | ((np.isinf(got) | np.isinf(want)) & (distance != 0))] = UNREACHABLE
    distance[got_nan & want_nan] = 0
    return distance


@dataclass(frozen=True)
class Comparison:
    """
    What `compare` finds.

    Attributes
    ----------
    counts : Counts
        How many elements are how near.
    worst : ndarray of int
        Flat indices of the elements that are farthest away and not exact: first what is beyond, then what is
        explained, then what is within, each farthest first.
    distances : ndarray of int
        Their distances.
    classes : ndarray of uint16
        What each of them is: `WITHIN`, a `Reason`, or `BEYOND`.
    all_classes : ndarray of uint16
        What every element is, in a row.
    """

    counts: Counts
    worst: npt.NDArray[np.intp]
    distances: npt.NDArray[np.int64]
    classes: npt.NDArray[np.uint16]
    all_classes: npt.NDArray[np.uint16]


def compare(got: Stored, want: Stored, storage: StorageFormat, limit: Tolerance | Judge, worst: int = 0) -> Comparison:
    """
    Compare two arrays of stored elements.

    Parameters
    ----------
    got, want : ndarray
        Elements of one shape.
    storage : StorageFormat
        How they are stored.
    limit : Tolerance or callable
        What passes; or what classifies the elements at some flat indices, called with those that are more than
        `NEAR` ULP away, in ascending order: its result has `WITHIN`, a `Reason` or `BEYOND` for each.
    worst : int
        How many of the farthest elements to find.
    """
    got, want = got.reshape(-1), want.reshape(-1)
    # Most elements are equal, bit for bit, and need nothing else.
    distance = np.zeros(got.size, np.int64)
    classes = np.full(got.size, WITHIN, np.uint16)
    nan = infinite = 0
    for start in range(0, got.size, BLOCK):
        part = slice(start, start + BLOCK)
        other = start + np.flatnonzero(got[part].view(storage.bits_dtype) != want[part].view(storage.bits_dtype))
        if not other.size:
            continue
        some, ideal = got[other], want[other]
        far = distance[other] = ulp_distance(some, ideal, storage)
        apart = far == UNREACHABLE
        if isinstance(limit, Tolerance):
            passes = far <= int(limit.ulp or 0)
            if limit.rtol or limit.atol:
                passes |= ~apart & _close(some, ideal, storage, limit)
        else:
            passes = far <= NEAR
        classes[other[~passes]] = BEYOND
        if apart.any() and not storage.unorm_max:
            disagree = int(np.count_nonzero(np.isnan(some) != np.isnan(ideal)))
            nan, infinite = nan + disagree, infinite + int(np.count_nonzero(apart)) - disagree
    if not isinstance(limit, Tolerance):
        rest = np.flatnonzero(classes != WITHIN)
        if rest.size:
            classes[rest] = limit(rest)
    counts = Counts(
        elements=got.size,
        **{
            name: int(np.count_nonzero(distance <= most))
            for name, most in (("exact", 0), ("within_1", 1), ("within_4", 4), ("within_64", 64))
        },
        largest=int(np.max(distance, where=distance != UNREACHABLE, initial=0)),
        nan_disagreements=nan,
        infinity_disagreements=infinite,
        within=int(np.count_nonzero(classes == WITHIN)),
        explained={str(reason.name): n for reason in Reason if (n := int(np.count_nonzero(classes == reason)))},
        beyond=int(np.count_nonzero(classes == BEYOND)),
    )
    farthest = _farthest(distance, classes, min(worst, counts.elements - counts.exact))
    return Comparison(counts, farthest, distance[farthest], classes[farthest], classes)


def _close(got: Stored, want: Stored, storage: StorageFormat, limit: Tolerance) -> npt.NDArray[np.bool_]:
    a, b = storage.decode(got, np.empty(got.size)), storage.decode(want, np.empty(want.size))
    with np.errstate(invalid="ignore", over="ignore"):
        close: npt.NDArray[np.bool_] = np.abs(a - b) <= limit.atol + limit.rtol * np.abs(b)
    return close


def _farthest(distance: npt.NDArray[np.int64], classes: npt.NDArray[np.uint16], count: int) -> npt.NDArray[np.intp]:
    """The elements beyond first, then the explained ones, then those within; each kind farthest first."""
    found = [np.empty(0, np.intp)]
    for kind in (classes == BEYOND, (classes != BEYOND) & (classes != WITHIN), (classes == WITHIN) & (distance > 0)):
        if count > 0:
            index = np.flatnonzero(kind)
            found.append(index[_largest(distance[index], min(count, index.size))])
            count -= found[-1].size
    return np.concatenate(found)


def _largest(rank: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.intp]:
    """Indices of the largest values, the largest first and equal ones in their order."""
    if count <= 0:
        return np.empty(0, np.intp)
    threshold = np.partition(rank, rank.size - count)[rank.size - count]
    above = np.flatnonzero(rank > threshold)
    chosen = np.concatenate([above, np.flatnonzero(rank == threshold)[: count - above.size]])
    return chosen[np.argsort(-rank[chosen], kind="stable")]
