"""Array types, and stored elements together with their format."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from mpsref.storage import StorageFormat

__all__ = ["Elements", "Floats", "Index", "Mask", "Stored", "Wide", "flat", "meaning", "spread"]

Stored: TypeAlias = npt.NDArray[Any]
"""Elements as stored, a code or a float."""
Wide: TypeAlias = npt.NDArray[np.float64]
Floats: TypeAlias = npt.NDArray[np.float32]
Index: TypeAlias = npt.NDArray[np.intp]
Mask: TypeAlias = npt.NDArray[np.bool_]


# Not frozen: that doubles the cost of making one, which shows in a call for a single element.
@dataclass(eq=False, slots=True)
class Elements:
    """
    Stored elements and their format.

    Attributes
    ----------
    stored : ndarray
        The elements, of any shape and the dtype of the format.
    storage : StorageFormat
        Their format.
    """

    stored: Stored
    storage: StorageFormat

    def values(self) -> Wide:
        """The elements' values, as a new array."""
        return meaning(self.stored, self.storage)

    def at(self, index: Index) -> Elements:
        """The elements with these flat indices; 0 where an index is negative."""
        flat = self.stored.reshape(-1)
        if index.size and int(index.min()) < 0:
            return Elements(np.where(index < 0, flat.dtype.type(0), flat[np.maximum(index, 0)]), self.storage)
        return Elements(flat[index], self.storage)


def meaning(stored: Stored, storage: StorageFormat) -> Wide:
    """The values of stored elements, as a new array; signalling NaNs raise no warning."""
    with np.errstate(invalid="ignore"):
        return storage.decode(stored, np.empty(stored.shape))


@lru_cache(maxsize=4)
def spread(size: int, count: int) -> Index:
    """At most `count` indices below `size`, in order, at random distances, but always the same."""
    if size <= count:
        index = np.arange(size)
    else:
        # Not at equal distances: those could hit the same channel every time.
        ends = np.arange(count + 1) * size // count
        index = ends[:-1] + (np.random.default_rng(size).random(count) * np.diff(ends)).astype(np.intp)
    index.flags.writeable = False  # for it is shared
    return index


def flat(array: Stored) -> Stored:
    """The array flattened: a view where possible."""
    return array.ravel()
