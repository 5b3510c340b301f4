"""Units in the last place: distances of stored numbers, and histograms of them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from mpsref.arguments import checked
from mpsref.arrays import Stored
from mpsref.errors import ImageError
from mpsref.storage import StorageFormat

__all__ = [
    "UNREACHABLE",
    "comparable_or_error",
    "distances_by_power",
    "farthest",
    "histogram_rows",
    "percent",
    "ulp_distance",
]

UNREACHABLE = np.iinfo(np.int64).max
"""The distance of NaN from a number, and of an infinity from anything else."""


@checked
def ulp_distance(got: Stored, want: Stored, storage: StorageFormat) -> npt.NDArray[np.int64]:
    """
    Distance in units in the last place of the storage format.

    The integer distance of the sign-magnitude bit patterns (of the codes, for unorm). Zeros are equal, NaN equals NaN,
    and an infinity equals only itself; otherwise NaN and infinities are `UNREACHABLE`.

    Examples
    --------
    >>> import numpy as np
    >>> from mpsref.storage import storage_of
    >>> got, want = np.float16([1, -0.0, np.nan]), np.float16([1.002, 0.0, np.nan])
    >>> ulp_distance(got, want, storage_of(got, "got"))
    array([2, 0, 0])
    """
    comparable_or_error(got, want, storage)
    distance: npt.NDArray[np.int64] = np.abs(storage.ordinals(got) - storage.ordinals(want))
    if storage.unorm_max:
        return distance
    with np.errstate(invalid="ignore"):  # bfloat16's functions warn of a signalling NaN
        got_nan, want_nan = np.isnan(got), np.isnan(want)
        distance[(got_nan != want_nan) | ((np.isinf(got) | np.isinf(want)) & (distance != 0))] = UNREACHABLE
    distance[got_nan & want_nan] = 0
    return distance


def comparable_or_error(got: Stored, want: Stored, storage: StorageFormat) -> None:
    """Raise `ImageError` unless both have one shape, and the dtype of the format."""
    for name, array in (("got", got), ("want", want)):
        if array.dtype != storage.dtype or array.shape != want.shape:
            raise ImageError(
                f"{name} is {array.dtype}{list(array.shape)}: "
                f"give {storage.dtype} ({storage.name}), and both of one shape"
            )


def distances_by_power(distance: npt.NDArray[np.int64]) -> dict[int, int]:
    """
    Count distances by the least power of two that they do not exceed; 0 is counted apart.

    Only comparable elements are counted, and only counts above 0 are listed.

    Examples
    --------
    >>> import numpy as np
    >>> distances_by_power(np.array([0, 0, 1, 2, 3, 4, 5]))
    {0: 2, 1: 1, 2: 1, 4: 2, 8: 1}
    """
    far = distance[(distance > 0) & (distance != UNREACHABLE)]
    # The exponents of float64, right even where it rounds up to a power of two: that belongs to the next bit anyhow.
    bits = np.maximum(((far - 1).astype(np.float64).view(np.int64) >> 52) - 1022, 0)
    counts = {0: distance.size - int(np.count_nonzero(distance))}
    counts |= {1 << bit: count for bit, count in enumerate(np.bincount(bits).tolist())}
    return {limit: count for limit, count in counts.items() if count}


def histogram_rows(counts: Mapping[int, int], elements: int, others: Mapping[str, int]) -> list[list[str]]:
    """
    A histogram from `distances_by_power` as the cells of a table; the last column is the share of all so far.

    `others` counts elements that are not comparable, by name.
    """
    rows, total = [["ULP", "elements", "share"]], 0
    for limit in sorted(counts):
        total += counts[limit]
        rows.append([str(limit) if limit < 2 else f"<= {limit:,}", f"{counts[limit]:,}", percent(total, elements)])
    return rows + [[name, f"{count:,}", ""] for name, count in others.items() if count]


def percent(part: int, whole: int) -> str:
    """
    A share in percent; 100 % only for all.

    Examples
    --------
    >>> percent(9_999_999, 10_000_000), percent(4, 4)
    ('99.9999 %', '100.0000 %')
    """
    return f"{min(100 * part / whole, 100.0 if part == whole else 99.9999):.4f} %"


def farthest(rank: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.intp]:
    """Indices of the largest values, the largest first, equal ones in order."""
    if count <= 0:
        return np.empty(0, np.intp)
    threshold = np.partition(rank, rank.size - count)[rank.size - count]
    above = np.flatnonzero(rank > threshold)
    chosen = np.concatenate([above, np.flatnonzero(rank == threshold)[: count - above.size]])
    return chosen[np.argsort(-rank[chosen], kind="stable")]
