"""Pooling and its gradients: exact, rounded once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property, partial
from types import EllipsisType
from typing import Any, TypeAlias

import numpy as np

from mpsref.arrays import Elements, Mask, Stored, Wide, meaning
from mpsref.errors import ImageError
from mpsref.neuron.rounding import canonical_nan
from mpsref.neuron.threads import BLOCK, over_blocks, worker_count
from mpsref.storage import FLOAT64, StorageFormat
from mpsref.sums.base import (
    ROUNDING,
    Block,
    Index,
    Near,
    Operands,
    Sum,
    elements_or_error,
    gathered,
    gradient_or_error,
)
from mpsref.sums.products import EXACT, Means, Place
from mpsref.sums.window import Part, Region, Window, reduced, regions, spread

__all__ = ["AveragePooling", "AveragePoolingGradient", "Counts", "MaxPooling", "MaxPoolingGradient"]

Counts: TypeAlias = tuple[Index, Index]
"""What each result row and column contributes to the divisor, which is the product; 0 for a window outside."""

LARGEST_DIVISOR = 2**24

SELECTED = 2**18
"""Elements of a result that are selected at once."""

SCATTERED = 2**17
"""Elements of a source whose gradient is added up at once."""


def _counts_or_error(counts: Counts, window: Window) -> None:
    for name, of_axis, length in zip(("rows", "columns"), counts, window.result, strict=True):
        if of_axis.shape != (length,) or of_axis.dtype.kind not in "iu" or (length and int(of_axis.min()) < 0):
            raise ImageError(
                f"counts of {name} are {of_axis.dtype}{list(of_axis.shape)}: give {length} integers from 0"
            )
    if math.prod(int(of_axis.max(initial=1)) for of_axis in counts) > LARGEST_DIVISOR:
        raise ImageError(f"counts are too large: a window may have up to {LARGEST_DIVISOR:,} taps")


def _divisors(of_rows: Index, of_columns: Index) -> Wide:
    # The sum of nothing is 0, whatever divides it.
    divisors: Wide = np.maximum(of_rows * of_columns, 1).astype(np.float64)
    return divisors


@dataclass(eq=False)
class AveragePooling(Sum):
    """
    The sum over each window, divided by a count; 0 for a window outside the source.

    Attributes
    ----------
    source : Elements
        Images, height, width, channels.
    window : Window
        What each result element reads.
    counts : tuple of two ndarray of int
        Divisors, as the product of one for each result row and column: ``window.counts(height, width)`` for the taps
        inside, ``(numpy.full(rows, kernel height), numpy.full(columns, kernel width))`` for all taps.

    Raises
    ------
    ImageError
        Shapes or dtypes do not fit together.

    Examples
    --------
    >>> import numpy as np
    >>> from mpsref.arrays import Elements
    >>> from mpsref.storage import storage_format
    >>> half = storage_format("float16")
    >>> source = Elements(np.float16([1, 2, 3, 4]).reshape(1, 1, 4, 1), half)
    >>> window = Window((1, 3), (1, 2), first=(0, -1), result=(1, 2))
    >>> AveragePooling(source, window, window.counts(1, 4)).rounded(half).reshape(-1)
    array([1.5, 3. ], dtype=float16)
    """

    source: Elements
    window: Window
    counts: Counts
    shape: tuple[int, ...] = field(init=False)
    storages: tuple[StorageFormat, ...] = field(init=False)

    def __post_init__(self) -> None:
        elements_or_error(self.source, "source")
        _counts_or_error(self.counts, self.window)
        self.shape = (self.source.stored.shape[0], *self.window.result, self.source.stored.shape[3])
        self.storages = (self.source.storage,)

    def terms(self) -> int:
        return math.prod(self.window.kernel)

    def operands(self, index: Index) -> Operands:
        n, y, x, c = np.unravel_index(index, self.shape)
        height, width = self.source.stored.shape[1:3]
        rows, columns = self.window.table(0, height)[y], self.window.table(1, width)[x]
        values = gathered(self.source, n, rows, columns, c[:, None]).reshape(index.size, -1)
        yield values, np.ones_like(values)

    def divisors(self, index: Index) -> Wide:
        _, y, x, _ = np.unravel_index(index, self.shape)
        return _divisors(self.counts[0][y], self.counts[1][x])

    def blocks(self) -> Iterator[Block]:
        def divisors(region: Region) -> Wide:
            of_rows, of_columns = (counts[part] for counts, part in zip(self.counts, region[1:], strict=True))
            return _divisors(of_rows[:, None, None], of_columns[:, None])

        place = Place.whole(self.window, self.shape[3])
        return Means(self.source, self.window, place, divisors).blocks()


@dataclass(eq=False)
class AveragePoolingGradient(Sum):
    """
    For each source element the sum of the incoming gradients of the windows that read it, each divided by its count.

    Attributes
    ----------
    gradient : Elements
        The incoming gradient, of the shape of the result.
    window, counts
        As for `AveragePooling`.
    size : tuple of int
        Height and width of the source.

    Raises
    ------
    ImageError
        Shapes or dtypes do not fit together.
    """

    gradient: Elements
    window: Window
    counts: Counts
    size: tuple[int, int]
    shape: tuple[int, ...] = field(init=False)
    storages: tuple[StorageFormat, ...] = field(init=False)

    def __post_init__(self) -> None:
        elements_or_error(self.gradient, "gradient")
        gradient_or_error(self.gradient, self.window.result, self.gradient.stored.shape[3])
        _counts_or_error(self.counts, self.window)
        self.shape = (self.gradient.stored.shape[0], *self.size, self.gradient.stored.shape[3])
        self.storages = (self.gradient.storage,)
        counts = np.maximum(self.counts[0][:, None] * self.counts[1], 1)
        self._common = math.lcm(*map(int, np.unique(counts)))
        self._fits = self._common <= LARGEST_DIVISOR
        # A common denominator makes factors of the divisors.
        self._factors = self._common // counts if self._fits else 1 / counts

    def terms(self) -> int:
        return math.prod(self.window.kernel)

    def _tables(self, index: Index) -> tuple[Wide, Index, Index]:
        n, y, x, c = np.unravel_index(index, self.shape)
        rows, columns = self.window.transposed(0, self.size[0])[y], self.window.transposed(1, self.size[1])[x]
        values = gathered(self.gradient, n, rows, columns, c[:, None]).reshape(index.size, -1)
        return values, rows[:, :, None], columns[:, None, :]

    def operands(self, index: Index) -> Operands:
        values, rows, columns = self._tables(index)
        factors = np.where((rows >= 0) & (columns >= 0), self._factors[rows, columns], 0.0)
        yield values, factors.reshape(index.size, -1)

    def divisors(self, index: Index) -> Wide | None:
        return np.full(index.size, float(self._common)) if self._fits else None

    def _expanded(self, index: Index) -> tuple[Wide | None, Wide]:
        expansion, special = super()._expanded(index)
        return expansion if self._fits else None, special

    def _rationals(self, index: Index) -> list[Fraction]:
        if self._fits:
            return super()._rationals(index)
        values, rows, columns = self._tables(index)
        counts = np.maximum(self.counts[0][rows] * self.counts[1][columns], 1).reshape(index.size, -1)
        return [
            sum((Fraction(v) / n for v, n in zip(*pair, strict=True) if v and math.isfinite(v)), Fraction(0))
            for pair in zip(values.tolist(), counts.tolist(), strict=True)
        ]

    def blocks(self) -> Iterator[Block]:
        factors = None
        if (self._factors != 1).any():
            factors = Elements(self._factors.astype(np.float64)[None, :, :, None], FLOAT64)
        channels = self.shape[3]

        def divisors(_: Region) -> Wide:
            return np.full((1, 1, 1), float(self._common))

        for rows, columns, window in self.window.phases(self.size):
            place = Place(rows.elements, columns.elements, slice(0, channels))
            by = divisors if self._common > 1 and self._fits else None
            yield from Means(self.gradient, window, place, by, factors).blocks()


def _key_dtype(storage: StorageFormat) -> np.dtype[Any]:
    # The codes of unorm formats are unsigned, and leave no room for a number below.
    return np.dtype(f"i{storage.dtype.itemsize * (2 if storage.unorm_max else 1)}")


def _keys(stored: Stored, storage: StorageFormat, *, zeros_alike: bool) -> Stored:
    """Signed integers in the order of the numbers; NaN is the largest; -0 is below 0, or alike."""
    if storage.unorm_max:
        return stored.astype(_key_dtype(storage))
    width = 8 * stored.dtype.itemsize
    bits = stored.view(_key_dtype(storage))
    signs = bits >> (width - 1)
    largest = np.iinfo(bits.dtype).max
    keys: Stored = bits & largest
    keys ^= signs
    if zeros_alike:
        keys -= signs
    infinity = int(np.array(np.inf, stored.dtype).view(keys.dtype))
    lowest = -infinity if zeros_alike else ~infinity
    if np.maximum.reduce(keys, None, initial=0) > infinity or np.minimum.reduce(keys, None, initial=0) < lowest:
        keys[(keys > infinity) | (keys < lowest)] = largest
    return keys


def _values(keys: Stored, storage: StorageFormat) -> Stored:
    """The stored numbers of keys; NaN is canonical."""
    if storage.unorm_max:
        return keys.astype(storage.dtype)
    nan = keys == np.iinfo(keys.dtype).max
    stored = keys >> (8 * keys.dtype.itemsize - 1)
    stored &= np.iinfo(keys.dtype).max
    stored ^= keys
    stored = stored.view(storage.dtype)
    if np.logical_or.reduce(nan, axis=None):
        stored[nan] = np.nan
    return stored


def _mask(where: Mask) -> Stored:
    """All bits where it holds, for integers of any size: several times faster than a choice."""
    mask: Stored = -where.view(np.int8)
    return mask


def _advance(taps: Stored, later: Any, where: Mask) -> None:
    """Replace taps by later ones, whose numbers are larger: several times faster than a choice."""
    np.maximum(taps, later & _mask(where), out=taps)


@dataclass(eq=False)
class MaxPooling:
    """
    The largest number of each window: a selection, without arithmetic.

    A window that has NaN gives NaN. +0 is larger than -0. A window outside the source gives 0.

    Attributes
    ----------
    source : Elements
        Images, height, width, channels.
    window : Window
        What each result element reads.
    zero_border : bool
        Whether taps outside the source compete as +0; else they do not take part.

    Raises
    ------
    ImageError
        The source does not have four axes, or not the dtype of its format.
    """

    source: Elements
    window: Window
    zero_border: bool = False
    shape: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        elements_or_error(self.source, "source")
        self.shape = (self.source.stored.shape[0], *self.window.result, self.source.stored.shape[3])

    def rounded(self, result: StorageFormat, *, workers: int = 1) -> Stored:
        """The largest numbers, rounded once to nearest even in a format; see `Sum.rounded`."""
        out, storage = np.empty(self.shape, result.dtype), self.source.storage

        def pool(region: Region) -> None:
            keys, lowest = self._slab(region, zeros_alike=False)
            found = reduced(np.maximum, keys, self.window, region, self._part())
            if self.zero_border:
                np.maximum(found, 0, out=found, where=self._meets_border(region))
            found[found == lowest] = 0
            values = _values(found, storage)
            if result is not storage:
                values = result.encode(meaning(values, storage), np.empty(values.shape, result.dtype))
            out[region] = values

        _over_regions(pool, _regions(self.shape), workers)
        return out

    def chosen(self, *, workers: int = 1) -> Stored:
        """
        The tap of each result element's largest number, ``ky width + kx``; -1 where a zero outside is larger.

        At ties it is the first one in the order of rows, then columns; +0 and -0 tie, and a NaN ties with another.
        A zero outside must be larger than all numbers inside.
        """
        out = np.empty(self.shape, np.min_scalar_type(-math.prod(self.window.kernel)))
        stored = self.source.stored
        # Processors compare such numbers as they are; it is false for NaN.
        plain = stored.dtype in (np.float32, np.float64) and np.minimum.reduce(stored, None, initial=0) > -np.inf

        def choose(region: Region) -> None:
            if plain:
                lowest = -np.inf
                values = spread(stored, self.window, region, self._part(), lambda numbers: numbers, lowest)
            else:
                values, lowest = self._slab(region, zeros_alike=True)
            largest, first = self._first(values, region, out.dtype)
            if self.zero_border:
                first[self._meets_border(region) & (largest < 0)] = -1
            out[region] = first

        _over_regions(choose, _regions(self.shape), workers)
        for axis, size in enumerate(stored.shape[1:3], 1):
            np.moveaxis(out, axis, 0)[self.window.inside(axis - 1, size) == 0] = -1
        return out

    def _first(self, values: Stored, region: Region, dtype: np.dtype[Any]) -> tuple[Stored, Stored]:
        """The largest number of each window of a slab, and the first of its taps that has it."""
        (height, width), (sy, sx), (dy, dx) = self.window.kernel, self.window.strides, self.window.dilations
        rows, columns = (places.stop - places.start - 1 for places in region[1:])
        # The first in each row of a window, then the first row.
        across = values[:, :, : columns * sx + 1 : sx]
        taps = np.zeros(across.shape, dtype)
        for k in range(1, width):
            other = values[:, :, k * dx : k * dx + columns * sx + 1 : sx]
            _advance(taps, dtype.type(k), other > across)
            across = np.maximum(across, other)
        largest = across[:, : rows * sy + 1 : sy]
        first = taps[:, : rows * sy + 1 : sy].copy()
        for k in range(1, height):
            row = slice(k * dy, k * dy + rows * sy + 1, sy)
            other = across[:, row]
            _advance(first, taps[:, row] + dtype.type(k * width), other > largest)
            if k + 1 < height or self.zero_border:
                largest = np.maximum(largest, other)
        return largest, first

    def _part(self) -> Part:
        height, width = self.window.kernel
        return slice(0, height), slice(0, width), slice(0, self.shape[3])

    def _slab(self, region: Region, *, zeros_alike: bool) -> tuple[Stored, int]:
        """The keys that a region reads, and the one that stands for what is outside."""
        storage = self.source.storage
        lowest = int(np.iinfo(_key_dtype(storage)).min)

        def keys(stored: Stored) -> Stored:
            return _keys(stored, storage, zeros_alike=zeros_alike)

        return spread(self.source.stored, self.window, region, self._part(), keys, lowest), lowest

    def _meets_border(self, region: Region) -> Mask:
        """Whether a tap is outside, for each row and column."""
        of_rows, of_columns = self.window.counts(*self.source.stored.shape[1:3])
        taps = math.prod(self.window.kernel)
        return (of_rows[region[1], None] * of_columns[region[2]] < taps)[..., None]


def _regions(shape: tuple[int, ...]) -> list[Region]:
    return list(regions(shape, SELECTED // max(shape[3], 1)))


def _over_regions(work: Callable[[Region], None], todo: Sequence[Region], workers: int) -> None:
    over_blocks(lambda start, _: work(todo[start // BLOCK]), len(todo) * BLOCK, worker_count(workers))


@dataclass(eq=False)
class MaxPoolingGradient(Sum):
    """
    For each source element the sum of the incoming gradients of the windows whose largest number it is.

    The first of several largest numbers has the whole gradient; see `MaxPooling.chosen`.

    Attributes
    ----------
    gradient : Elements
        The incoming gradient, of the shape of the result.
    pooling : MaxPooling
        The forward: its source, window and border.

    Raises
    ------
    ImageError
        Shapes or dtypes do not fit together.
    """

    gradient: Elements
    pooling: MaxPooling
    shape: tuple[int, ...] = field(init=False)
    storages: tuple[StorageFormat, ...] = field(init=False)

    def __post_init__(self) -> None:
        source, window = self.pooling.source, self.pooling.window
        gradient_or_error(self.gradient, window.result, source.stored.shape[3])
        if self.gradient.stored.shape[0] != source.stored.shape[0]:
            raise ImageError(
                f"gradient has {self.gradient.stored.shape[0]} images, but source {source.stored.shape[0]}"
            )
        self.shape = source.stored.shape
        self.storages = (self.gradient.storage,)

    @cached_property
    def _chosen(self) -> Stored:
        return self.pooling.chosen(workers=self._workers)

    _workers = 1
    selects = True

    def rounded(self, result: StorageFormat, *, workers: int = 1) -> Stored:
        self._workers = workers
        return self._selected(result, workers) if self._most == 1 else super().rounded(result, workers=workers)

    @property
    def _most(self) -> int:
        """How many windows may have the same largest number."""
        window = self.pooling.window
        axes = zip(window.kernel, window.strides, window.dilations, strict=True)
        return math.prod(-(-kernel * math.gcd(step, dilation) // step) for kernel, step, dilation in axes)

    def _selected(self, result: StorageFormat, workers: int) -> Stored:
        """All elements, where each has at most one gradient."""
        out, storage, (height, width) = np.zeros(self.shape, result.dtype), self.gradient.storage, self.shape[1:3]
        made, chosen, window = out.view(f"i{result.dtype.itemsize}"), self._chosen, self.pooling.window
        taps = [
            (tap, window.joined(0, ky, height), window.joined(1, kx, width))
            for tap, (ky, kx) in enumerate(np.ndindex(window.kernel))
        ]

        def select(region: Region) -> None:
            images = region[0]
            gradient = self.gradient.stored[images]
            if not storage.unorm_max:
                # The sum of a single -0 is +0.
                bits = gradient.view(f"i{storage.dtype.itemsize}")
                gradient = (bits & _mask(bits != np.iinfo(bits.dtype).min)).view(storage.dtype)
            if result is not storage:
                gradient = result.encode(meaning(gradient, storage), np.empty(gradient.shape, result.dtype))
            canonical_nan(gradient.reshape(-1))
            bits = gradient.view(made.dtype)
            for tap, (rows, to_rows), (columns, to_columns) in taps:
                mask = _mask(chosen[images, rows, columns] == tap)
                np.bitwise_and(bits[:, rows, columns], mask, out=made[images, to_rows, to_columns])

        _over_regions(select, list(regions((len(out), 1, 1), SELECTED // max(chosen[:1].size, 1))), workers)
        return out

    def _grid(self, blocks: Sequence[Region], channels: slice) -> Index:
        """What places differ by in the largest of some blocks of windows, whose first ones have the first tap at 0."""
        images, rows, columns = (max((b[axis].stop - b[axis].start for b in blocks), default=0) for axis in range(3))
        (sy, sx), (height, width), depth = self.pooling.window.strides, self.shape[1:3], channels.stop - channels.start
        n, y = np.arange(images)[:, None, None] * height, np.arange(rows)[:, None] * sy
        pixels = (n + y) * width + np.arange(columns) * sx
        grid: Index = pixels[..., None] * depth + np.arange(depth)
        return grid

    def _places(self, region: Region, channels: slice, grid: Index, top: int) -> tuple[Index, Mask | EllipsisType]:
        """
        Where the largest numbers of some windows are, in an array of these channels of the source's rows from one on.

        The second is which windows have one.
        """
        window, width, depth = self.pooling.window, self.shape[2], channels.stop - channels.start
        rows, columns = (
            places.start * step + first + np.arange(kernel) * dilation
            for places, step, first, kernel, dilation in zip(
                region[1:], window.strides, window.first, window.kernel, window.dilations, strict=True
            )
        )
        taps = ((rows[:, None] - top) * width + columns).reshape(-1) * depth
        chosen = self._chosen[*region, channels]
        places = taps.take(chosen.astype(np.intp), mode="clip")
        places += grid[tuple(map(slice, chosen.shape))]
        has = ... if np.minimum.reduce(chosen, None, initial=0) == 0 else chosen >= 0
        return places[has].reshape(-1), has

    def terms(self) -> int:
        return math.prod(self.pooling.window.kernel)

    def operands(self, index: Index) -> Operands:
        window, (n, y, x, c) = self.pooling.window, np.unravel_index(index, self.shape)
        rows, columns = window.transposed(0, self.shape[1])[y], window.transposed(1, self.shape[2])[x]
        values = gathered(self.gradient, n, rows, columns, c[:, None])[..., 0]
        chosen = self._chosen[n[:, None, None], rows[:, :, None], columns[:, None, :], c[:, None, None]]
        is_chosen = chosen == np.arange(math.prod(window.kernel)).reshape(window.kernel)
        values = np.where(is_chosen, values, 0.0).reshape(index.size, -1)
        yield values, np.ones_like(values)

    def blocks(self) -> Iterator[Block]:
        images, height, width, channels = self.shape
        # Computed here, not by each thread.
        if not self._chosen.size:
            return
        # The windows of a block's last rows are those of the next block, too.
        least = min(height, 2 * self._reach())
        depth = min(channels, max(1, SCATTERED // (least * width)))
        todo = list(regions((images, height, 1), max(least, SCATTERED // (width * depth))))
        read = [self._windows(*region[:2]) for region in todo]
        for c in range(0, channels, depth):
            part = slice(c, min(c + depth, channels))
            grid = self._grid(read, part)
            for (n, y, _), windows in zip(todo, read, strict=True):
                yield Block((n, y, slice(0, width), part), partial(self._near, y, windows, part, grid))

    def _reach(self) -> int:
        """The rows from the first tap to the last."""
        window = self.pooling.window
        return (window.kernel[0] - 1) * window.dilations[0] + 1

    def _windows(self, images: slice, rows: slice) -> Region:
        """The windows that have some rows of the source."""
        window = self.pooling.window
        first, step = window.first[0], window.strides[0]
        low = max(0, -((first + self._reach() - 1 - rows.start) // step))
        high = max(low, min(window.result[0], (rows.stop - 1 - first) // step + 1))
        return images, slice(low, high), slice(0, window.result[1])

    def _near(self, rows: slice, windows: Region, channels: slice, grid: Index) -> Near:
        """The gradients of some rows and channels, each added where its window's largest number is."""
        first, step = self.pooling.window.first[0], self.pooling.window.strides[0]
        images, low, high = windows[0], windows[1].start, windows[1].stop
        # The rows that these windows have.
        top = min(rows.start, max(0, low * step + first))
        bottom = max(rows.stop, min(self.shape[1], (high - 1) * step + first + self._reach()))
        shape = (images.stop - images.start, bottom - top, self.shape[2], channels.stop - channels.start)
        stored, storage = self.gradient.stored[*windows, channels], self.gradient.storage
        places, has = self._places(windows, channels, grid, top)
        incoming = storage.decode(stored, np.empty(stored.shape))[has].reshape(-1)

        def added(gradients: Wide) -> Wide:
            sums = np.zeros(shape)
            np.add.at(sums.reshape(-1), places, gradients)
            return sums[:, rows.start - top : rows.stop - top]

        sums, most = added(incoming), self._most
        # For NaN it is not true.
        if storage.dtype == np.float16 or most * _largest_over_unit(stored, storage) < EXACT:
            return sums, 0.0
        return sums, added(np.abs(incoming)) * (most * ROUNDING)


def _largest_over_unit(stored: Stored, storage: StorageFormat) -> float:
    """The largest number over a power of two of which all are multiples: the last bit of the smallest but 0."""
    single = stored if storage.dtype == np.float32 else storage.decode(stored, np.empty(stored.shape, np.float32))
    # Without their signs.
    sizes = single.view(np.uint32) << 1
    largest = np.maximum.reduce(sizes, None, initial=0) >> 1
    # 0 becomes the largest of all.
    sizes -= 1
    least = (np.minimum.reduce(sizes, None, initial=0xFEFF_FFFF) + np.uint32(1)) >> 1
    numbers = np.array([largest, least], np.uint32).view(np.float32)
    return float(numbers[0]) / float(np.spacing(numbers[1]))
