"""Pooling and its gradients: exact, rounded once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property, partial
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
from mpsref.sums.products import EXACT, Means, Place, common_unit
from mpsref.sums.window import Part, Region, Window, reduced, regions, shifted, spread

__all__ = ["AveragePooling", "AveragePoolingGradient", "Counts", "MaxPooling", "MaxPoolingGradient"]

Counts: TypeAlias = tuple[Index, Index]
"""What each result row and column contributes to the divisor, which is the product; 0 for a window outside."""

LARGEST_DIVISOR = 2**24

SELECTED = 2**16
"""Elements of a result that are selected at once."""

SCATTERED = 2**19
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
    keys = stored.view(_key_dtype(storage))
    signs = keys >> (width - 1)
    signs &= np.iinfo(keys.dtype).max
    signs ^= keys
    infinity = int(np.array(np.inf, stored.dtype).view(keys.dtype))
    nan = np.isnan(stored) if stored.dtype != np.float16 else (keys & 0x7FFF) > infinity
    if np.logical_or.reduce(nan, axis=None):
        signs[nan] = np.iinfo(keys.dtype).max
    if zeros_alike:
        signs[signs == -1] = 0
    return signs


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

        self._over_regions(pool, workers)
        return out

    def chosen(self, *, workers: int = 1) -> Stored:
        """
        The tap of each result element's largest number, ``ky width + kx``; -1 where a zero outside is larger.

        At ties it is the first one in the order of rows, then columns; +0 and -0 tie, and a NaN ties with another.
        A zero outside must be larger than all numbers inside.
        """
        out, (height, width) = (
            np.empty(self.shape, np.min_scalar_type(-math.prod(self.window.kernel))),
            self.window.kernel,
        )

        def choose(region: Region) -> None:
            keys, lowest = self._slab(region, zeros_alike=True)
            found = reduced(np.maximum, keys, self.window, region, self._part())
            first = np.zeros(found.shape, out.dtype)
            for tap in reversed(range(height * width)):
                is_largest = shifted(keys, self.window, region, *divmod(tap, width)) == found
                np.bitwise_xor(first, (first ^ out.dtype.type(tap)) & _mask(is_largest), out=first)
            first[found == lowest] = -1
            if self.zero_border:
                first[self._meets_border(region) & (found < 0)] = -1
            out[region] = first

        self._over_regions(choose, workers)
        return out

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

    def _over_regions(self, work: Callable[[Region], None], workers: int) -> None:
        todo = list(regions(self.shape, SELECTED // max(self.shape[3], 1)))
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

    def rounded(self, result: StorageFormat, *, workers: int = 1) -> Stored:
        self._workers = workers
        return self._selected(result) if self._most == 1 else super().rounded(result, workers=workers)

    @property
    def _most(self) -> int:
        """How many windows may have the same largest number."""
        window = self.pooling.window
        axes = zip(window.kernel, window.strides, window.dilations, strict=True)
        return math.prod(-(-kernel * math.gcd(step, dilation) // step) for kernel, step, dilation in axes)

    def _selected(self, result: StorageFormat) -> Stored:
        """All elements, where each has at most one gradient."""
        out, storage, gradient = np.zeros(self.shape, result.dtype), self.gradient.storage, self.gradient.stored
        if result is not storage:
            with np.errstate(all="ignore"):
                gradient = result.encode(meaning(gradient, storage), np.empty(gradient.shape, result.dtype))
        bits = gradient.view(f"i{result.dtype.itemsize}")
        if not result.unorm_max:
            # The sum of a single -0 is +0.
            bits = bits & _mask(bits != np.iinfo(bits.dtype).min)
            canonical_nan(bits.view(result.dtype).reshape(-1))
        made = out.view(bits.dtype)
        window, (height, width) = self.pooling.window, self.shape[1:3]
        for tap, (ky, kx) in enumerate(np.ndindex(window.kernel)):
            (rows, to_rows), (columns, to_columns) = window.joined(0, ky, height), window.joined(1, kx, width)
            chosen = _mask(self._chosen[:, rows, columns] == tap)
            made[:, to_rows, to_columns] = bits[:, rows, columns] & chosen
        return out

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
        unit = common_unit(self.gradient, 1.0) if self._chosen.size else 0.0
        depth = max(1, SCATTERED // (height * width))
        for n in range(images):
            for c in range(0, channels, depth):
                part = (slice(n, n + 1), slice(0, height), slice(0, width), slice(c, min(c + depth, channels)))
                yield Block(part, partial(self._near, part[0], part[3], unit))

    def _near(self, image: slice, channels: slice, unit: float) -> Near:
        """The gradients of some channels of an image, each added where its window's largest number is."""
        window, (height, width) = self.pooling.window, self.shape[1:3]
        stored = self.gradient.stored[image, :, :, channels]
        if not stored.size:
            return np.zeros((1, height, width, stored.shape[3])), 0.0
        incoming = self.gradient.storage.decode(stored, np.empty(stored.shape))
        depth, size = stored.shape[3], height * width * stored.shape[3]
        rows, columns = (
            np.arange(count)[:, None] * step + np.arange(kernel) * dilation + first
            for count, step, kernel, dilation, first in zip(
                window.result, window.strides, window.kernel, window.dilations, window.first, strict=True
            )
        )
        chosen = self._chosen[image, :, :, channels]
        base = (rows[:, :1, None] * width + columns[:, 0, None]) * depth + np.arange(depth)
        taps = ((rows[0] - rows[0, 0])[:, None] * width + (columns[0] - columns[0, 0])).reshape(-1) * depth
        places = taps.take(chosen) + base
        # One more for what no source element has.
        places[chosen < 0] = size
        places = places.reshape(-1)

        def added(weights: Wide) -> Wide:
            sums = np.bincount(places, weights.reshape(-1), size + 1)[:size]
            return np.asarray(sums, np.float64).reshape(1, height, width, depth)

        sums = added(incoming)
        # For NaN it is not true.
        most = self._most
        if most * max(float(incoming.max()), -float(incoming.min())) < EXACT * unit:
            return sums, 0.0
        return sums, added(np.abs(incoming)) * (most * ROUNDING)
