"""
Cells: intervals of what elements read, so that the bounds of a few cells decide about many elements.

The ranges of a formula on intervals hold the bounds of all elements within them. So an element far outside of them is
beyond its own bounds, and these need not be computed. Where a cell is a single number, its ranges are the bounds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mpsref.arrays import Elements, Index, Mask, Stored, Wide, meaning
from mpsref.storage import StorageFormat
from mpsref.verify.bounds import CHUNK
from mpsref.verify.models import Model
from mpsref.verify.ranges import Mark, Range
from mpsref.verify.reasons import BEYOND, WITHIN
from mpsref.verify.running import Running
from mpsref.verify.stored import Nearness, passing

__all__ = ["MARGIN", "CellForm", "Cells"]

CellForm = Callable[[Sequence[Range], Running], Range]
"""The ranges of results from those of all inputs."""

MOST = 131_072
"""Cells: the combinations of intervals of all inputs."""

DIGITS = 8
"""Bits of the significand that elements of an interval share, at most; those of short inputs share all."""

BLOCK = 131_072
"""Elements looked up at once."""

MARGIN = 1 / 32
"""How far outside an element must be, relative to the ends: much more than any end jumps by a rounding."""


@dataclass(frozen=True, eq=False)
class _Axis:
    """The intervals of an input that elements lie in: the bits that they share, of `shift` bits less."""

    storage: StorageFormat
    shift: int
    codes: npt.NDArray[np.int64]

    @classmethod
    def of(cls, elements: Elements, index: Index, digits: int) -> _Axis:
        """With elements that share so many bits of the significand; a short input keeps all that it has, if any."""
        storage = elements.storage
        size = 8 * storage.dtype.itemsize
        shift = 0 if size <= 16 and digits else max(0, storage.precision - 1 - digits)
        occupied = np.zeros(1 << (size - shift), np.bool_)
        for part in _parts(index.size):
            occupied[_bits(elements, index[part]) >> shift] = True
        return cls(storage, shift, np.flatnonzero(occupied))

    @property
    def digits(self) -> int:
        """Bits of the significand that elements of an interval share."""
        return self.storage.precision - 1 - self.shift

    def coarser(self) -> _Axis:
        """With intervals twice as long."""
        return _Axis(self.storage, self.shift + 1, np.unique(self.codes >> 1))

    def places(self) -> npt.NDArray[np.int32]:
        """By the shared bits, which interval it is."""
        places = np.zeros(1 << (8 * self.storage.dtype.itemsize - self.shift), np.int32)
        places[self.codes] = np.arange(self.codes.size)
        return places

    def ranges(self, places: Index, f: Running) -> Range:
        """Some intervals, as an operation reads them."""
        first, storage = self.codes[places] << self.shift, self.storage
        ends = [
            meaning(code.astype(storage.bits_dtype).view(storage.dtype), storage)
            for code in (first, first | ((1 << self.shift) - 1))
        ]
        low, high = np.minimum(*ends), np.maximum(*ends)
        if storage.unorm_max and f.model.rounds_either_way:
            return f.between(low, high, f.model.laws["division"])
        return f.between(low, high)


class Cells:
    """
    The cells of some elements.

    Parameters
    ----------
    inputs : sequence of Elements
        What is read, each as large as the image.
    index : ndarray of int
        The flat indices of the elements.
    is_scaled : bool
        Whether the first input is a factor of the result, which is no unorm: then it is taken as it is, and its
        intervals serve only to tell where an exception is possible.
    nearness : Nearness
        What is within bounds beside what they hold.
    """

    def __init__(
        self, inputs: Sequence[Elements], index: Index, *, is_scaled: bool, nearness: Nearness = Nearness.ITSELF
    ) -> None:
        axes = [_Axis.of(elements, index, 0 if is_scaled and not k else DIGITS) for k, elements in enumerate(inputs)]
        while math.prod(axis.codes.size for axis in axes) > MOST:
            longest = max(range(len(axes)), key=lambda k: axes[k].digits)
            axes[longest] = axes[longest].coarser()
        self._axes, self._index, self._nearness = axes, index, nearness
        self._factor = inputs[0] if is_scaled else None
        self._is_exact = not any(axis.shift for axis in axes)
        self._sizes = [axis.codes.size for axis in axes]
        tables = [axis.places() for axis in axes]
        self._place = np.empty(index.size, np.int32)
        for part in _parts(index.size):
            cell: npt.NDArray[np.int32] = np.zeros((), np.int32)
            for elements, axis, table in zip(inputs, axes, tables, strict=True):
                cell = cell * np.int32(axis.codes.size) + table[_bits(elements, index[part]) >> axis.shift]
            self._place[part] = cell

    @property
    def have_margin(self) -> bool:
        """Whether what is beyond is so by `MARGIN`."""
        return not self._is_exact

    def classified(
        self, got: Stored, storage: StorageFormat, variants: Sequence[Model], forms: Sequence[CellForm]
    ) -> tuple[npt.NDArray[np.uint16], Mask]:
        """The classes of elements, as far as cells decide them; and which elements they leave open."""
        bounds = self._bounds(storage, variants, forms)
        classes, is_open = np.full(got.size, BEYOND, np.uint16), np.empty(got.size, np.bool_)
        for part in _parts(got.size):
            values, cell = meaning(got[part], storage), self._place[part]
            factor = None if self._factor is None else self._factor.at(self._index[part]).values()
            beyond, within = np.ones(values.shape, np.bool_), np.zeros(values.shape, np.bool_)
            for low, high in bounds:
                lower, upper = low[cell], high[cell]
                if factor is not None:
                    lower, upper = lower * factor, upper * factor
                    lower, upper = np.minimum(lower, upper), np.maximum(lower, upper)
                if self._is_exact:
                    within |= (values >= lower) & (values <= upper)
                else:
                    away = (upper - lower) / 2 + MARGIN * np.maximum(np.abs(lower), np.abs(upper))
                    lower, upper = lower - away, upper + away
                beyond &= (values < lower) | (values > upper)
            classes[part][within] = WITHIN
            is_open[part] = ~(beyond | within)
        return classes, is_open

    def _bounds(
        self, storage: StorageFormat, variants: Sequence[Model], forms: Sequence[CellForm]
    ) -> list[tuple[Wide, Wide]]:
        """The least and the greatest value in each cell, by each form, or by all; NaN where there is an exception."""
        occupied = np.zeros(math.prod(self._sizes), np.bool_)
        occupied[self._place] = True
        cells = np.flatnonzero(occupied)
        ways = [(Running(variant), form) for variant in variants for form in forms]
        bounds = np.full((len(ways), 2, occupied.size), np.nan)
        for start in range(0, cells.size, CHUNK):
            chosen = cells[start : start + CHUNK]
            places = np.unravel_index(chosen, self._sizes)
            plain = np.ones(chosen.size, np.bool_)
            for (f, form), both in zip(ways, bounds, strict=True):
                read = [axis.ranges(place, f) for axis, place in zip(self._axes, places, strict=True)]
                value = form(read, f).like(chosen)
                # An exception, or an input that is not finite, is for the bounds of each element. What is outside of
                # two branches is so whichever is taken.
                branches = np.uint16(0 if self._is_exact else Mark.UNDECIDED)
                for source in (value, *read):
                    plain &= ~source.nan & (source.reason & ~branches == 0)
                for source in read:
                    plain &= np.isfinite(source.low) & np.isfinite(source.high)
                if self._factor is None:
                    between = passing(value, storage, self._nearness)
                    plain &= ~between.zero
                    both[:, chosen] = between.low, between.high
                else:
                    # Only relative errors are proportional: those of numbers that are normal wherever they are stored.
                    least = 2 * max(f.model.smallest[0], float(storage.limits.smallest_normal))
                    most = float(storage.limits.max) / 2
                    normal = ((value.low > least) & (value.high < most)) | ((value.high < -least) & (value.low > -most))
                    plain &= normal | ((value.low == 0) & (value.high == 0))
                    value = form([f.range(np.ones(chosen.size)), *read[1:]], f).like(chosen)
                    both[:, chosen] = value.low, value.high
            bounds[:, :, chosen[~plain]] = np.nan
        if self._is_exact:
            return [(low, high) for low, high in bounds]
        return [(np.min(bounds[:, 0], axis=0), np.max(bounds[:, 1], axis=0))]


def _bits(elements: Elements, index: Index) -> npt.NDArray[np.unsignedinteger]:
    return elements.at(index).stored.view(elements.storage.bits_dtype)


def _parts(size: int) -> Iterator[slice]:
    return (slice(start, start + BLOCK) for start in range(0, size, BLOCK))
