"""The slope of each element for a neuron with one per feature channel, without an array of that size."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from mpsref.arrays import Index

__all__ = ["ChannelSlopes"]

LARGEST_PERIOD = 262_144
"""Up to this many slopes are written out once and then sliced; 2 MiB."""

LONG_RUN = 4096
"""From so many elements on, groups are written one by one."""


class ChannelSlopes:
    """
    The slopes of consecutive elements of a flattened array.

    The elements run through axes (group, pixel, lane): each group repeats its row of `values` `pixels` times; after
    the last group the first follows.

    Parameters
    ----------
    values : ndarray of float64, shape (groups, lanes)
        One slope per channel.
    pixels : int
        How often a row is repeated.
    """

    def __init__(self, values: npt.NDArray[np.float64], pixels: int) -> None:
        self._values = values
        self._pixels = pixels
        self._length = values.size * pixels
        self._periods: dict[npt.DTypeLike, npt.NDArray[Any]] = {}

    @cached_property
    def _patterns(self) -> npt.NDArray[np.int64]:
        # By bits, since -0.0 and 0.0 give zeros of different signs.
        return np.unique(self._values.view(np.int64))

    @property
    def key(self) -> bytes:
        """Identifies the distinct slopes."""
        return self._patterns.tobytes()

    @cached_property
    def distinct(self) -> tuple[float, ...]:
        """The distinct slopes, in the order of their bits."""
        return tuple(self._patterns.view(np.float64).tolist())

    @cached_property
    def shrink(self) -> bool:
        """Whether all slopes are above 0 and at most 1."""
        return bool(((self._values > 0) & (self._values <= 1)).all())

    @cached_property
    def ranks(self) -> ChannelSlopes:
        """For each channel the offset of its slope's table, if the tables of the distinct slopes are concatenated."""
        ranks = np.searchsorted(self._patterns, self._values.view(np.int64)).astype(np.float64)
        return ChannelSlopes(ranks * 65_536, self._pixels)

    def window(self, start: int, size: int, dtype: npt.DTypeLike = np.float64) -> npt.NDArray[Any]:
        """The slopes of the elements from `start` on."""
        if self._length > LARGEST_PERIOD:
            return self._written(start, size, dtype)
        first = start % self._length
        slopes = self._periods.get(dtype)
        if slopes is None or slopes.size < first + size:
            period = np.repeat(self._values, self._pixels, axis=0).reshape(-1).astype(dtype)
            slopes = self._periods[dtype] = np.tile(period, -(-(first + size) // self._length) + 1)
        return slopes[first : first + size]

    def _written(self, start: int, size: int, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """The same, without a period to slice."""
        groups, lanes = self._values.shape
        run, stop = self._pixels * lanes, start + size
        if run < LONG_RUN:
            return self._of(np.arange(start, stop)).astype(dtype)
        slopes = np.empty(size, dtype)
        for group in range(start // run, -(-stop // run)):
            low, high = max(start, group * run), min(stop, (group + 1) * run)
            # Rotated to the lane of the first element.
            row = np.roll(self._values[group % groups], -(low % lanes))
            part, written = slopes[low - start : high - start], min(lanes, high - low)
            part[:written] = row[:written]
            while written < part.size:
                more = min(written, part.size - written)
                part[written : written + more] = part[:more]
                written += more
        return slopes

    def at(self, elements: Index) -> ChannelSlopes:
        """The slopes of some elements alone."""
        return ChannelSlopes(self._of(elements)[np.newaxis], 1)

    def _of(self, elements: Index) -> npt.NDArray[np.float64]:
        groups, lanes = self._values.shape
        slopes: npt.NDArray[np.float64] = self._values[elements // (self._pixels * lanes) % groups, elements % lanes]
        return slopes
