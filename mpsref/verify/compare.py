"""How far elements are from the reference, and which of them pass."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from mpsref.arguments import checked, checked_fields
from mpsref.arrays import Elements, Index, Mask, Stored, meaning
from mpsref.errors import ParameterError, shown
from mpsref.storage import ArrayFormat, StorageFormat
from mpsref.ulp import UNREACHABLE, comparable_or_error, distances_by_power, farthest, ulp_distance
from mpsref.verify.differences import Differences
from mpsref.verify.reasons import ASSUMED, BEYOND, EXCUSES, LATITUDES, WITHIN, Reason

__all__ = ["NEAR", "Comparison", "Counts", "Tolerance", "compare", "compared", "passes"]

NEAR = 1
"""ULP within every model's bounds: a single rounding near a boundary may go either way."""

BLOCK = 65_536
"""Elements compared at once."""

OUTSIDE = (Reason.plus_inf | ASSUMED, Reason.minus_inf | ASSUMED)
"""Infinities that are outside the domain, if the ideal value is NaN."""

MOST_ULP = 2**32
"""More than any distance between two numbers of a storage format."""

Judge: TypeAlias = Callable[[Index, Stored], npt.NDArray[np.uint16]]


@checked_fields
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
                raise ParameterError(f"{name} is {shown(value)}: give a finite number of at least 0")
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
    Elements of an image by their distance from the reference.

    Attributes
    ----------
    elements, exact, within_1, within_4, within_64 : int
        All elements, and those at most so many ULP away.
    largest : int
        Largest distance in ULP between finite numbers.
    nan_disagreements : int
        Elements where one side is NaN and the other is not.
    infinity_disagreements : int
        Elements where one side is infinite and the other is another number.
    within : int
        Elements within the tolerance, or the model's bounds.
    excused : Mapping of str to int
        Elements that are excused for a `Reason`, by its name; none under a plain tolerance.
    beyond : int
        All other elements.
    latitude : Mapping of str to int
        Elements within that are so only by a latitude of the language, by the name of the `Reason`.
    refused : Mapping of str to int
        Elements beyond that have a `Reason` which does not excuse here, by its name.
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
    excused: dict[str, int]
    beyond: int
    latitude: dict[str, int] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)


def passes(
    got: Stored, want: Stored, distance: npt.NDArray[np.int64], storage: StorageFormat, tolerance: Tolerance
) -> npt.NDArray[np.bool_]:
    """Which elements, at these distances in ULP, are within a tolerance of the reference."""
    close: npt.NDArray[np.bool_] = distance <= int(tolerance.ulp or 0)
    if tolerance.rtol or tolerance.atol:
        with np.errstate(invalid="ignore", over="ignore"):
            a, b = (meaning(stored, storage) for stored in (got, want))
            close |= (distance != UNREACHABLE) & (np.abs(a - b) <= tolerance.atol + tolerance.rtol * np.abs(b))
    return close


@dataclass(frozen=True)
class Comparison:
    """
    The result of `compare`.

    Attributes
    ----------
    counts : Counts
        Elements by distance.
    worst : ndarray of int
        Flat indices of the farthest elements that are not exact: first those beyond the bounds, then the excused,
        then those within, each farthest first.
    distances : ndarray of int
        Their distances.
    classes : ndarray of uint16
        Their classes: `WITHIN`, the `Reason` that excuses them, or `BEYOND`.
    reasons : ndarray of uint16
        Their reasons, whether these excuse or not; `WITHIN` or `BEYOND` for none.
    beyond, excused : ndarray of int
        Flat indices of all elements of these classes, in ascending order.
    histogram : dict of int to int
        Distances by powers of two, see `mpsref.ulp.distances_by_power`.
    identical : bool
        Whether both are the same, bit for bit.
    """

    counts: Counts
    worst: Index
    distances: npt.NDArray[np.int64]
    classes: npt.NDArray[np.uint16]
    reasons: npt.NDArray[np.uint16]
    beyond: Index
    excused: Index
    histogram: dict[int, int]
    identical: bool


@checked
def compare(
    got: Stored,
    want: Stored,
    storage: StorageFormat,
    limit: Tolerance | Judge,
    worst: int = 0,
    excused: frozenset[Reason] = EXCUSES,
    *,
    is_texture: bool = False,
    sources: Sequence[Elements] = (),
) -> Comparison:
    """
    Compare two arrays of stored elements.

    Parameters
    ----------
    got, want : ndarray
        Elements of one shape.
    storage : StorageFormat
        How they are stored.
    limit : Tolerance or callable
        What passes; or a function from elements more than `NEAR` ULP away, by ascending flat indices and what was got
        there, to their classes: `WITHIN`, a `Reason`, perhaps with `ASSUMED`, or `BEYOND`.
    worst : int
        How many of the farthest elements to return.
    excused : frozenset of Reason
        Which reasons excuse; the latitudes of the language always count as within.
    is_texture : bool
        Whether the elements were in a texture, which may store NaN as 0.
    sources : sequence of Elements
        What was read in the same places, which tells where NaN comes from.
    """
    comparable_or_error(got, want, storage)
    differences = Differences.between(got, want, storage, sources=sources)
    return compared(differences, storage, limit, worst, excused, is_texture=is_texture)


def near_of(storage: StorageFormat) -> int:
    """How many ULP need no bounds."""
    # A store in bfloat16 loses so much that an error of 1 ULP must come from the arithmetic before it.
    return 0 if storage.channel_format is ArrayFormat.bfloat16 else NEAR


def compared(
    differences: Differences,
    storage: StorageFormat,
    limit: Tolerance | Judge,
    worst: int = 0,
    excused: frozenset[Reason] = EXCUSES,
    *,
    is_texture: bool = False,
) -> Comparison:
    """Compare two images of which the differences are known; the other arguments are those of `compare`."""
    near = near_of(storage)
    neighbours_pass = int(limit.ulp or 0) >= NEAR if isinstance(limit, Tolerance) else near >= NEAR
    # Most of what differs are neighbours, which pass. Only the others are looked at closer.
    is_neighbour = _neighbours(differences, storage) if neighbours_pass else np.zeros(differences.index.size, np.bool_)
    neighbours, rest = int(np.count_nonzero(is_neighbour)), ~is_neighbour
    index, got, want = differences.index, differences.got, differences.want
    if neighbours:
        index, got, want = index[rest], got[rest], want[rest]
    distance = np.empty(index.size, np.int64)
    classes = np.full(index.size, BEYOND, np.uint16)
    nan, unreachable, largest = 0, 0, 1 if neighbours else 0
    histogram: Counter[int] = Counter()
    for start in range(0, index.size, BLOCK):
        part = slice(start, start + BLOCK)
        actual, ideal = got[part], want[part]
        ulp = distance[part] = ulp_distance(actual, ideal, storage)
        close = passes(actual, ideal, ulp, storage, limit) if isinstance(limit, Tolerance) else ulp <= near
        classes[part][close] = WITHIN
        histogram.update(distances_by_power(ulp))
        if not storage.unorm_max:
            with np.errstate(invalid="ignore"):
                nan += int(np.count_nonzero(np.isnan(actual) != np.isnan(ideal)))
        reached = ulp != UNREACHABLE
        unreachable += ulp.size - int(np.count_nonzero(reached))
        largest = int(np.max(ulp, where=reached, initial=largest))
    if not isinstance(limit, Tolerance):
        far = np.flatnonzero(classes != WITHIN)
        if far.size:
            classes[far] = limit(index[far], got[far])
            _settle(classes, index, got, want, storage, differences.keeps_nan, is_texture=is_texture)
    size = differences.size
    exact = size - neighbours - index.size + histogram[0]
    counted = {0: exact, 1: histogram[1] + neighbours} | {n: histogram[n] for n in sorted(histogram) if n > 1}
    reasons = classes
    named = {}
    if ((reasons != WITHIN) & (reasons != BEYOND)).any():
        named = {reason: n for reason in Reason if (n := int(np.count_nonzero(reasons == reason)))}
    classes = np.where(np.isin(reasons, list(LATITUDES)), np.uint16(WITHIN), reasons) if named else reasons
    for reason in named.keys() - LATITUDES - excused:
        classes[classes == reason] = BEYOND
    beyond = index[classes == BEYOND]
    passed = {reason.name: n for reason, n in named.items() if reason in excused}
    reasoned = index[(classes != BEYOND) & (classes != WITHIN)] if passed else np.empty(0, np.intp)
    counts = Counts(
        elements=size,
        exact=exact,
        **{f"within_{most}": sum(n for distance, n in counted.items() if distance <= most) for most in (1, 4, 64)},
        largest=largest,
        nan_disagreements=nan,
        infinity_disagreements=unreachable - nan,
        within=size - beyond.size - sum(passed.values()),
        latitude={reason.name: n for reason, n in named.items() if reason in LATITUDES},
        excused=passed,
        beyond=beyond.size,
        refused={reason.name: n for reason, n in named.items() if reason not in LATITUDES | excused},
    )
    shown = _farthest(distance, classes, min(worst, size - exact))
    rows = _Rows(index[shown], distance[shown], classes[shown], reasons[shown])
    if neighbours and worst > 0:
        rows = rows.with_neighbours(differences.index[np.flatnonzero(is_neighbour)[:worst]], worst)
    return Comparison(
        counts,
        *rows,
        beyond,
        reasoned,
        {most: n for most, n in counted.items() if n},
        not differences.index.size,
    )


class _Rows(NamedTuple):
    """Flat indices, distances, classes and reasons of some elements."""

    places: Index
    distance: npt.NDArray[np.int64]
    classes: npt.NDArray[np.uint16]
    reasons: npt.NDArray[np.uint16]

    def with_neighbours(self, index: Index, count: int) -> _Rows:
        """The farthest of these and neighbours of the reference, which are within."""
        within = np.full(index.size, WITHIN, np.uint16)
        joined = np.append(self.places, index)
        order = np.argsort(joined)
        distance = np.append(self.distance, np.full(index.size, NEAR, np.int64))[order]
        classes, reasons = np.append(self.classes, within)[order], np.append(self.reasons, within)[order]
        chosen = _farthest(distance, classes, count)
        return _Rows(joined[order][chosen], distance[chosen], classes[chosen], reasons[chosen])


def _settle(
    classes: npt.NDArray[np.uint16],
    index: Index,
    got: Stored,
    want: Stored,
    storage: StorageFormat,
    keeps_nan: Callable[[Index], Mask],
    *,
    is_texture: bool,
) -> None:
    """Classes that depend on the ideal value and the rest of the image."""
    if storage.unorm_max:
        classes[classes != BEYOND] &= ~np.uint16(ASSUMED)
        return
    lost = np.zeros(classes.size, np.bool_)
    for start in range(0, classes.size, BLOCK):
        part = slice(start, start + BLOCK)
        some = classes[part]
        if (some == WITHIN).all() and not np.isinf(got[part]).any():
            continue
        # What is beyond in a buffer stays so; most elements are.
        chosen = np.arange(some.size) if is_texture else np.flatnonzero(some != BEYOND)
        actual, ideal, kind = got[part][chosen], want[part][chosen], some[chosen]
        some[chosen[(kind == Reason.zero) & np.isinf(ideal)]] = Reason.pole
        some[chosen[(kind == WITHIN) & np.isinf(actual) & np.isfinite(ideal)]] = Reason.store
        some[chosen[np.isin(kind, OUTSIDE) & ~np.isnan(ideal)]] = BEYOND
        lost[part][chosen] = (kind == BEYOND) & np.isnan(ideal) & (actual == 0) & is_texture
    assumed = (classes & ASSUMED != 0) & (classes != BEYOND)
    unsure = np.flatnonzero(assumed | lost)
    if unsure.size:
        some = np.where(lost[unsure], np.uint16(Reason.texture), classes[unsure] & ~np.uint16(ASSUMED))
        classes[unsure] = np.where(keeps_nan(index[unsure]), np.uint16(BEYOND), some)


def _neighbours(differences: Differences, storage: StorageFormat) -> Mask:
    """Which of the differences are of 1 ULP."""
    bits = storage.bits_dtype
    # Within one sign the difference of the bits is the distance. Elements next to a zero, an infinity or the largest
    # code do not count as neighbours, so that no difference leaves the numbers or wraps around.
    largest = storage.unorm_max or int(np.array(storage.limits.max).view(bits))
    magnitude = bits.type(storage.unorm_max or np.iinfo(bits).max >> 1)
    near = np.empty(differences.index.size, np.bool_)
    for start in range(0, near.size, BLOCK):
        part = slice(start, start + BLOCK)
        ours, theirs = differences.got[part].view(bits), differences.want[part].view(bits)
        near[part] = (ours - theirs + bits.type(1)) <= 2
        near[part] &= ((theirs & magnitude) - bits.type(1)) < largest - 1
    return near


def _farthest(distance: npt.NDArray[np.int64], classes: npt.NDArray[np.uint16], count: int) -> Index:
    """Indices of elements beyond the bounds, then of excused ones, then of those within, each farthest first."""
    ordered = [np.empty(0, np.intp)]
    for kind in (classes == BEYOND, (classes != BEYOND) & (classes != WITHIN), (classes == WITHIN) & (distance > 0)):
        if count > 0:
            index = np.flatnonzero(kind)
            ordered.append(index[farthest(distance[index], min(count, index.size))])
            count -= ordered[-1].size
    return np.concatenate(ordered)
