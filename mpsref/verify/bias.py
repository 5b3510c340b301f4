"""Errors in one direction: how large they are on average, and whether results were truncated when they were stored."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mpsref.arrays import Index, Mask, Stored, Wide, meaning, spread
from mpsref.storage import StorageFormat
from mpsref.ulp import UNREACHABLE, ulp_distance
from mpsref.verify.differences import Deferred, Differences

__all__ = ["NEIGHBOUR", "Directed", "directed", "directed_at_ends", "sampled", "signed_errors"]

Ends = Callable[[Index], tuple[Wide, Wide, Mask]]
"""The least and the greatest value before the store, of elements by their flat indices, and where these are known."""

PLACES = 256
"""Exponents of float32, of which no format has more."""

LEAST, SHARE = 32, 0.99
"""Decisive elements that a note needs, and how many of them must hold the directed value."""

FEW, ENOUGH = 2048, 65_536
"""Elements that are looked at: a few first, and where those may have been truncated more."""

WAYS = {"toward zero": "by truncation", "down": "rounded down", "up": "rounded up"}
CODES = {
    "one more": "one code too high",
    "one less": "one code too low",
    "by 256, down": "as 256 times the value, truncated",
    "by 256": "as 256 times the value, rounded",
}
NEIGHBOUR, SOME = "neighbour", 0.05
"""Any other than the nearest; and the share of decisive elements that must hold one, where it is no certain one."""

TEXTS = WAYS | CODES | {NEIGHBOUR: "as neighbours of the nearest"}


@dataclass(frozen=True)
class Directed:
    """
    Evidence of a store that does not round to nearest.

    Attributes
    ----------
    way : str
        ``toward zero``, ``down`` or ``up``; of codes also ``one more``, ``one less``, ``by 256`` and ``by 256, down``;
        or ``neighbour``, where some elements hold one that is not the nearest.
    decisive, held : int
        Elements where the bounds tell such a store from one to nearest, and those of them that it explains.
    """

    way: str
    decisive: int
    held: int

    def __str__(self) -> str:
        return f"stored {TEXTS[self.way]}: {self.held:,} of {self.decisive:,} decisive elements"


def sampled(size: int) -> Index:
    """The elements of an image of some size that both functions look at."""
    return spread(size, ENOUGH)


def signed_errors(got: Stored, want: Stored, storage: StorageFormat) -> dict[str, float]:
    """
    The mean error in ULP, with its sign, of elements whose ideal values have about the same size.

    Parameters
    ----------
    got, want : ndarray
        Stored elements, flat; of a large image those at `sampled`.
    storage : StorageFormat
        How they are stored.

    Returns
    -------
    dict of str to float
        By the power of 16 below the magnitude, such as ``0.0625``; ``0`` for zero and all below the smallest normal
        number. Ranges without errors are left out.
    """
    exponents = _exponents(want, storage)
    counts = np.bincount(exponents, minlength=PLACES)
    differ = np.flatnonzero(got.view(storage.bits_dtype) != want.view(storage.bits_dtype))
    ours, theirs = got[differ], want[differ]
    reached = ulp_distance(ours, theirs, storage) != UNREACHABLE
    error = np.where(reached, storage.ordinals(ours) - storage.ordinals(theirs), 0)
    sums = np.bincount(exponents[differ], error.astype(float), minlength=PLACES)
    # By the stored exponent, of which each four make a power of 16.
    lowest = _value_of_exponent(storage)
    found: dict[str, list[float]] = {}
    for exponent in np.flatnonzero(counts).tolist():
        power = math.floor((exponent + lowest) / 4) if exponent else None
        name = "0" if power is None else f"{16.0**power:g}"
        both = found.setdefault(name, [0.0, 0.0])
        both[0] += float(sums[exponent])
        both[1] += float(counts[exponent])
    return {name: total / count for name, (total, count) in found.items() if total}


def _exponents(stored: Stored, storage: StorageFormat) -> npt.NDArray[np.int64]:
    """The exponents as the bits have them; 0 for a zero and numbers below the smallest normal one."""
    if storage.unorm_max:
        return np.frexp(stored.astype(np.float32))[1].astype(np.int64)
    bits = stored.view(storage.bits_dtype)
    magnitude = bits & bits.dtype.type(np.iinfo(bits.dtype).max >> 1)
    exponents: npt.NDArray[np.int64] = (magnitude >> bits.dtype.type(storage.precision - 1)).astype(np.int64)
    return exponents


def _value_of_exponent(storage: StorageFormat) -> int:
    """What is added to these exponents to have those of powers of two."""
    if storage.unorm_max:
        return -(storage.unorm_max + 1).bit_length()
    return round(math.log2(float(storage.limits.smallest_normal))) - 1


def directed(
    differences: Differences, storage: StorageFormat, ends: Ends, sources: Sequence[Deferred], *, either: bool = False
) -> Directed | None:
    """
    Whether a store other than to nearest explains an image.

    An element is decisive where all values that the bounds allow before the store round to the same neighbour, and a
    directed rounding of all of them gives another one.

    Parameters
    ----------
    differences : Differences
        Those of the image, with a sample of its elements at `sampled`.
    storage : StorageFormat
        How the elements are stored.
    ends : callable
        What the bounds allow before the store.
    sources : sequence of Deferred
        What the elements depend on, in the same places.
    either : bool
        Whether a store may take either neighbour.
    """
    index, (got, want) = sampled(differences.size), differences.sample[:2]
    differ = np.flatnonzero(got.view(storage.bits_dtype) != want.view(storage.bits_dtype))
    if differ.size < LEAST:
        return None
    # Where even the elements that differ do not fit there is no need to look at those that do not differ, nor at many.
    some, others = differ[spread(differ.size, FEW)], spread(index.size, FEW)
    chosen = np.append(some, others)
    seen = _decisive(got[chosen], storage, ends, index[chosen])
    ways = set(TEXTS) - ({NEIGHBOUR} if either else set()) - (set() if storage.unorm_max else set(CODES))
    for least, part in ((1.0, slice(some.size)), (0.0, slice(some.size, None))):
        sums = {way: (decisive[part].sum(), held[part].sum()) for way, (decisive, held) in seen.items()}
        ways &= {way for way, (decisive, held) in sums.items() if held >= max(least, _share(way) * decisive)}
    if not ways:
        return None
    found = []
    for way, (decisive, held) in _decisive(got, storage, ends, index).items():
        count = int(decisive.sum())
        if way in ways and count >= LEAST and held.sum() >= max(LEAST, _share(way) * count):
            inputs = np.stack([source.at(index[decisive]).values() for source in sources], axis=1)
            if len(np.unique(inputs, axis=0)) >= LEAST:
                found.append(Directed(way, count, int(held.sum())))
    return max(found, key=lambda each: (each.way != NEIGHBOUR, each.held), default=None)


def directed_at_ends(
    differences: Differences, beyond: Index, storage: StorageFormat, ends: Ends, sources: Sequence[Deferred]
) -> Directed | None:
    """
    Whether a directed store explains all that is out of bounds, where these are too wide for decisive elements.

    It is not what one to nearest gives of any value within the bounds, but what the directed one gives of some; and no
    more than `SHARE` leaves is so the other way round, in all of the image.
    """
    beyond = beyond[spread(beyond.size, ENOUGH)]
    some = sampled(differences.size)
    index = np.union1d(some, beyond)
    got = np.empty(index.size, storage.dtype)
    is_beyond = np.isin(index, beyond)
    got[is_beyond] = differences.at(index[is_beyond])[0]
    got[~is_beyond] = differences.sample[0][np.searchsorted(some, index[~is_beyond])]
    low, high, known = ends(index)
    place, found = storage.ordinals(got), []
    with np.errstate(over="ignore"):
        near, *others = ([_rounded(end, storage, way) for end in (low, high)] for way in ("", *WAYS))
    is_near = (near[0] <= place) & (place <= near[1])
    for way, ours in zip(WAYS, others, strict=True):
        fits = (ours[0] <= place) & (place <= ours[1])
        held, decisive = known & fits & ~is_near, (known & (fits != is_near)) | is_beyond
        inputs = np.stack([source.at(index[held]).values() for source in sources], axis=1)
        if held.sum() >= SHARE * decisive.sum() and len(np.unique(inputs, axis=0)) >= LEAST:
            found.append(Directed(way, int(decisive.sum()), int(held.sum())))
    return max(found, key=lambda each: each.held, default=None)


def _decisive(
    got: Stored, storage: StorageFormat, ends: Ends, index: Index
) -> dict[str, tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]]:
    """By way: which of some elements are decisive, and which of them hold the directed value."""
    low, high, known = ends(index)
    ways = (*WAYS, *CODES) if storage.unorm_max else tuple(WAYS)
    place, found = storage.ordinals(got), {}
    with np.errstate(over="ignore"):
        nearest, *others = ([_rounded(end, storage, way) for end in (low, high)] for way in ("", *ways))
    for way, ours in zip(ways, others, strict=True):
        decisive = known & (nearest[0] == nearest[1]) & (ours[0] == ours[1]) & (ours[0] != nearest[0])
        found[way] = decisive, decisive & (place == ours[0])
    certain = known & (nearest[0] == nearest[1])
    found[NEIGHBOUR] = certain, certain & (np.abs(place - nearest[0]) == 1)
    return found


def _share(way: str) -> float:
    """How many of the decisive elements must hold what they would by a way."""
    return SOME if way == NEIGHBOUR else SHARE


def _rounded(values: Wide, storage: StorageFormat, way: str) -> npt.NDArray[np.int64]:
    """The ordinals of values rounded in a direction, or to a wrong code; to nearest if there is none."""
    if way.startswith("by 256"):
        values = values * (1 + 1 / storage.unorm_max)
    stored = storage.encode(values, np.empty(values.shape, storage.dtype))
    place, near = storage.ordinals(stored), meaning(stored, storage)
    above = (near > values).astype(np.int64)
    below = (near < values).astype(np.int64)
    if storage.unorm_max:
        # There is no code beyond the ends.
        above, below = above & (values > 0), below & (values < 1)
        place = place + (way == "one more") - (way == "one less") - (above if way == "by 256, down" else 0)
        place = np.clip(place, 0, storage.unorm_max)
    if way == "toward zero":
        return place - np.where(values > 0, above, 0) + np.where(values < 0, below, 0)
    return place - above if way == "down" else place + below if way == "up" else place
