"""Element by element: how far is what was got from what was wanted."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mpsref.errors import ParameterError
from mpsref.storage import StorageFormat

__all__ = ["UNREACHABLE", "Counts", "Tolerance", "compare", "ulp_distance"]

UNREACHABLE = np.iinfo(np.int64).max
"""The distance of NaN from a number, and of an infinity from all else."""

MOST_ULP = 2**32
"""More than any distance between two numbers of a storage format."""

Stored = npt.NDArray[Any]


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
    beyond : int
        Elements outside the tolerance.
    """

    elements: int
    exact: int
    within_1: int
    within_4: int
    within_64: int
    largest: int
    nan_disagreements: int
    infinity_disagreements: int
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


def compare(
    got: Stored, want: Stored, storage: StorageFormat, tolerance: Tolerance, worst: int
) -> tuple[Counts, npt.NDArray[np.intp], npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """
    Compare two arrays of stored elements.

    Returns
    -------
    counts : Counts
    worst : ndarray of int
        Flat indices of the elements that are farthest away and not exact, farthest first, at most `worst`.
    distances : ndarray of int
        Their distances.
    passes : ndarray of bool
        Whether they are within the tolerance all the same.
    """
    got, want = got.reshape(-1), want.reshape(-1)
    distance = ulp_distance(got, want, storage)
    apart = distance == UNREACHABLE
    passes = distance <= int(tolerance.ulp or 0)
    if tolerance.rtol or tolerance.atol:
        a, b = storage.decode(got, np.empty(got.size)), storage.decode(want, np.empty(want.size))
        with np.errstate(invalid="ignore", over="ignore"):
            passes |= ~apart & (np.abs(a - b) <= tolerance.atol + tolerance.rtol * np.abs(b))
    nan = np.zeros(got.shape, bool) if storage.unorm_max else np.isnan(got) != np.isnan(want)
    counts = Counts(
        elements=got.size,
        **{
            name: int(np.count_nonzero(distance <= limit))
            for name, limit in (("exact", 0), ("within_1", 1), ("within_4", 4), ("within_64", 64))
        },
        largest=int(np.max(distance, where=~apart, initial=0)),
        nan_disagreements=int(np.count_nonzero(nan)),
        infinity_disagreements=int(np.count_nonzero(apart & ~nan)),
        beyond=int(np.count_nonzero(~passes)),
    )
    # What is beyond the tolerance comes before what is not, however far away that is.
    rank = np.where(passes, np.minimum(distance, UNREACHABLE // 2) // 2, distance)
    farthest = _largest(rank, min(worst, counts.elements - counts.exact))
    return counts, farthest, distance[farthest], passes[farthest]


def _largest(rank: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.intp]:
    """Indices of the largest values, the largest first and equal ones in their order."""
    if count <= 0:
        return np.empty(0, np.intp)
    threshold = np.partition(rank, rank.size - count)[rank.size - count]
    above = np.flatnonzero(rank > threshold)
    chosen = np.concatenate([above, np.flatnonzero(rank == threshold)[: count - above.size]])
    return chosen[np.argsort(-rank[chosen], kind="stable")]
