"""
Sums of products by float64 matrix products, tap by tap, or by columns: with bounds that hold for any order of adding.

A matrix product has at most about `CHUNK` terms; those of longer sums are added without error, so that the bound does
not grow with their number. It comes from the norms of the rows and columns (Cauchy and Schwarz).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from mpsref.arrays import Elements, Floats, Wide
from mpsref.neuron.workspace import two_sum
from mpsref.sums.base import ROUNDING, Block, Near
from mpsref.sums.expansion import lowest_bits, quotient_odd
from mpsref.sums.window import Part, Region, Window, regions, shifted, slab, windows

__all__ = ["CHUNK", "Correlation", "Grouped", "Place", "Total", "common_unit", "parts_of", "taps_in", "zeros"]

CHUNK = 1024
"""About so many terms of a matrix product."""

GATHERED = 2**19
"""Elements of a gathered matrix (4 MiB)."""

CELLS = 2**17
"""Elements of the result in a block."""

EXACT = 2.0**53 * (1 - 2.0**-20)
"""Sums of so many units are exact, with room for the errors of a norm."""


@dataclass(frozen=True)
class Place:
    """
    Where the result of a window is stored in a larger one.

    Attributes
    ----------
    rows, columns : slice
        With all three numbers.
    channels : slice
        Without a step.
    """

    rows: slice
    columns: slice
    channels: slice

    @staticmethod
    def whole(window: Window, channels: int) -> Place:
        """The result of the window itself."""
        return Place(slice(0, window.result[0], 1), slice(0, window.result[1], 1), slice(0, channels))

    def of(self, region: Region, channels: slice) -> tuple[slice, ...]:
        """The place of a region and some channels."""
        images, *places = region
        rows, columns = (
            slice(to.start + to.step * part.start, to.start + to.step * (part.stop - 1) + 1, to.step)
            for to, part in zip((self.rows, self.columns), places, strict=True)
        )
        first = self.channels.start
        return images, rows, columns, slice(first + channels.start, first + channels.stop)


def zeros(place: Place, shape: Sequence[int], result: tuple[int, int]) -> Iterator[Block]:
    """Sums without products, in a result of a shape."""
    for region in regions((shape[0], *result), CELLS // max(shape[3], 1)):
        size = (*(s.stop - s.start for s in region), shape[3])
        yield Block(place.of(region, slice(0, shape[3])), partial(_nothing, size))


def _nothing(size: Sequence[int]) -> Near:
    return np.zeros(size), 0.0


class Total:
    """A running sum without error, but for a tiny one of the errors' sum."""

    def __init__(self) -> None:
        self._sum: Wide | None = None
        self._rest: Wide | None = None
        self._spare: tuple[Wide, Wide, Wide] | None = None

    def add(self, values: Wide, *, exact: bool = False) -> None:
        """Add an array, which is kept; plainly where all sums are exact."""
        if self._sum is None:
            self._sum = values
            return
        if exact:
            self._sum += values
            return
        if self._spare is None:
            self._spare = (np.empty_like(values), np.empty_like(values), np.empty_like(values))
        total, part, error = self._spare
        two_sum(self._sum, values, (total, part, error))
        if self._rest is None:
            self._rest = error.copy()
        else:
            self._rest += error
        self._sum, self._spare = total, (self._sum, part, error)

    def value(self, shape: Sequence[int]) -> Wide:
        """The sum, rounded; 0 of nothing."""
        if self._sum is None:
            return np.zeros(shape)
        return (self._sum if self._rest is None else self._sum + self._rest).reshape(shape)


def parts_of(kernel: tuple[int, int], channels: int) -> list[Part]:
    """All taps and channels in parts of about `CHUNK` products."""
    height, width = kernel
    of_row = width * channels
    rows = max(1, round(CHUNK / of_row)) if of_row else height
    columns = width if of_row < 1.5 * CHUNK else max(1, round(CHUNK / channels))
    count = max(1, round(channels / CHUNK))
    depth = -(-channels // count) if columns == 1 else channels
    return [
        (slice(y, min(y + rows, height)), slice(x, min(x + columns, width)), slice(c, min(c + depth, channels)))
        for y in range(0, height, rows)
        for x in range(0, width, columns)
        for c in range(0, channels, max(depth, 1))
    ]


def taps_in(part: Part) -> int:
    """The products of a part for each result element."""
    return math.prod(int(s.stop - s.start) for s in part)


def common_unit(source: Elements, factor: float) -> float:
    """
    A power of two of which all elements are multiples, or 0 where sums cannot be exact.

    They cannot where the largest element times `factor` has 2^53 units.
    """
    if source.storage.dtype == np.float16:
        return 2.0**-24
    flat, unit, largest, start, size = source.stored.reshape(-1), math.inf, 0.0, 0, 1024
    while start < flat.size:
        x = source.storage.decode(flat[start : start + size], np.empty(min(size, flat.size - start)))
        largest = max(largest, float(np.abs(x).max()))
        if not math.isfinite(largest):
            return 0.0
        unit = min(unit, float(lowest_bits(x).min()))
        if largest * factor >= EXACT * unit:
            return 0.0
        start, size = start + size, 2**16
    return unit


def _norms(weights: Wide) -> Wide:
    squares: Wide = np.einsum("ij,ij->i", weights, weights)
    return np.sqrt(squares)


@dataclass(frozen=True)
class _Column:
    """
    What is known of the weights of a result channel.

    Attributes
    ----------
    norm, bias : ndarray
        The norm, and the magnitude of the bias.
    unit, bias_unit : ndarray
        Lowest bits.
    """

    norm: Wide
    bias: Wide
    unit: Wide
    bias_unit: Wide

    @staticmethod
    def of(weights: Floats, bias: Floats | None) -> _Column:
        count = weights.shape[0]
        norm, unit = np.zeros(count), np.full(count, math.inf)
        step = max(1, 2**20 // max(weights[0].size, 1)) if count else 1
        for start in range(0, count, step):
            for row in range(weights.shape[1]):
                some = weights[start : start + step, row].reshape(min(step, count - start), -1).astype(np.float64)
                if some.size:
                    norm[start : start + step] = np.hypot(norm[start : start + step], _norms(some))
                    lowest = lowest_bits(np.where(np.isfinite(some), some, 1.0)).min(axis=1)
                    np.minimum(unit[start : start + step], lowest, out=unit[start : start + step])
        wide = np.zeros(count) if bias is None else bias.astype(np.float64)
        return _Column(norm, np.abs(wide), unit, lowest_bits(np.where(np.isfinite(wide), wide, 1.0)))


@dataclass
class Correlation:
    """
    A window over a source with all its channels, by matrix products.

    Attributes
    ----------
    source : Elements
        Images, height, width, channels.
    weights : ndarray of float32
        Result channels, kernel height, kernel width, source channels; of any strides.
    bias : ndarray of float32 or None
        One for each result channel.
    window : Window
        Its kernel is that of the weights.
    place : Place
        Where the result is stored.
    """

    source: Elements
    weights: Floats
    bias: Floats | None
    window: Window
    place: Place
    parts: list[Part] = field(init=False)

    def __post_init__(self) -> None:
        self.parts = parts_of(self.window.kernel, self.source.stored.shape[3])
        self._column = _Column.of(self.weights, self.bias)
        # Bounds of the sums over their unit, for a row whose norm is 1, and of the biases.
        per_unit = np.max(self._column.norm / self._column.unit, initial=0.0)
        with np.errstate(all="ignore"):
            unit = common_unit(self.source, float(per_unit)) * self._column.unit
            smaller = np.minimum(unit, self._column.bias_unit)
            self._units = [np.where(v == 0, 0.0, v / smaller) for v in (self._column.norm, self._column.bias)]
        self._kept = [self._matrix(part, slice(None)) for part in self.parts] if self.weights.size <= 2**20 else None

    def _matrix(self, part: Part, channels: slice) -> Wide:
        weights = self.weights[channels, *part].astype(np.float64)
        return weights.reshape(weights.shape[0], -1).T

    def _longest(self) -> int:
        return max(taps_in(part) for part in self.parts)

    def blocks(self) -> Iterator[Block]:
        """All elements of the result."""
        images, outputs = self.source.stored.shape[0], self.weights.shape[0]
        longest = self._longest()
        width = min(outputs, 1024)
        target = max(1, min(GATHERED // longest, CELLS // max(width, 1)))
        for region in regions((images, *self.window.result), target):
            for first in range(0, outputs, width):
                channels = slice(first, min(first + width, outputs))
                yield Block(
                    self.place.of(region, channels),
                    partial(self._near, region, channels),
                )

    def _near(self, region: Region, channels: slice) -> Near:
        lengths = [s.stop - s.start for s in region]
        squares, total = np.zeros(lengths), Total()
        for i, part in enumerate(self.parts):
            values = slab(self.source, self.window, region, part)
            view = windows(values, self.window, region, part)
            pixels = np.einsum("nyxc,nyxc->nyx", values, values)[..., None]
            squares += windows(pixels, self.window, region, (*part[:2], slice(0, 1))).sum(axis=(3, 4, 5))
            gathered = view.reshape(math.prod(lengths), -1)
            matrix = self._matrix(part, channels) if self._kept is None else self._kept[i][:, channels]
            product = gathered @ matrix
            if not i and self.bias is not None:
                product += self.bias[channels]
            total.add(product)
        sums = total.value((*lengths, channels.stop - channels.start))
        rows = np.sqrt(squares)
        norms, biases = (v[channels] for v in self._units)
        if np.max(rows.max(initial=0.0) * norms + biases, initial=0.0) < EXACT:
            return sums, 0.0
        # Each of the products' sum, one for the bias, and those of the total.
        error = (self._longest() + 4) * ROUNDING
        scale = float(np.max(rows, where=np.isfinite(rows), initial=0.0)) or 1.0
        columns = np.hypot(self._column.norm[channels], self._column.bias[channels] / scale) * error
        if self.bias is not None:
            rows = np.hypot(rows, scale)
        return sums, rows[..., None] * columns


@dataclass
class Grouped:
    """
    A window over a source whose channels are in many small groups, tap by tap.

    Attributes
    ----------
    source : Elements
        Images, height, width, groups times channels of a group.
    weights : ndarray of float32 or None
        Groups, result channels and source channels of a group, kernel height, kernel width; None for ones.
    bias : ndarray of float32 or None
        One for each result channel.
    window : Window
        Its kernel is that of the weights.
    place : Place
        Where the result is stored.
    divisors : callable or None
        What the sums of a region are divided by, integers of at most 24 bits that broadcast; None for nothing.
    factors : Elements or None
        float64 integers by which the source is multiplied: 1, height, width, 1.
    """

    source: Elements
    weights: Floats | None
    bias: Floats | None
    window: Window
    place: Place
    divisors: Callable[[Region], Wide] | None = None
    factors: Elements | None = None

    def __post_init__(self) -> None:
        channels = self.source.stored.shape[3]
        if self.weights is None:
            self._groups, self._results, self._inputs, factor, smallest = channels, 1, 1, 1.0, 1.0
        else:
            self._groups, self._results, self._inputs = self.weights.shape[:3]
            finite = np.where(np.isfinite(self.weights), self.weights, 0.0).astype(np.float64)
            factor, smallest = float(np.abs(finite).max(initial=0.0)), float(lowest_bits(finite).min(initial=math.inf))
        self._unit = common_unit(self.source, factor / smallest) * smallest if factor else 1.0
        if self.factors is not None and (self.factors.stored % 1).any():
            self._unit = 0.0
        if self.bias is not None:
            finite = np.where(np.isfinite(self.bias), self.bias, 0.0).astype(np.float64)
            self._unit = min(self._unit, float(lowest_bits(finite).min(initial=math.inf)))

    def blocks(self) -> Iterator[Block]:
        """All elements of the result."""
        width = self._groups * self._results
        # A slab of a part of a row must not be large either.
        target = max(1, CELLS // max(width * self._inputs, 1))
        for region in regions((self.source.stored.shape[0], *self.window.result), target):
            yield Block(self.place.of(region, slice(0, width)), partial(self._near, region))

    def _near(self, region: Region) -> Near:
        lengths, (height, width) = [s.stop - s.start for s in region], self.window.kernel
        part = (slice(0, height), slice(0, width), slice(0, self.source.stored.shape[3]))
        values = slab(self.source, self.window, region, part)
        if self.factors is not None:
            values *= slab(self.factors, self.window, (slice(0, 1), *region[1:]), (*part[:2], slice(0, 1)))
        shape = (*lengths, self._groups, self._results)
        sums, sizes = np.zeros(shape), np.zeros(shape)
        if self.bias is not None:
            sums += self.bias.reshape(self._groups, self._results)
            np.abs(sums, out=sizes)
        product = np.empty(shape)
        for ky in range(height):
            for kx in range(width):
                read = shifted(values, self.window, region, ky, kx).reshape(*lengths, self._groups, self._inputs, 1)
                for i in range(self._inputs):
                    if self.weights is None:
                        np.copyto(product, read[..., i, :])
                    else:
                        np.multiply(read[..., i, :], self.weights[:, :, i, ky, kx], out=product)
                    sums += product
                    sizes += np.abs(product, out=product)
        exact = float(np.max(sizes, initial=0.0)) < EXACT * self._unit
        count = height * width * self._inputs + 4
        divisors = None if self.divisors is None else self.divisors(region)[..., None]
        bound: Wide | float = 0.0 if exact else np.multiply(sizes, count * ROUNDING, out=sizes)
        if divisors is not None:
            sums = quotient_odd(sums, divisors) if exact else sums / divisors
            bound = 0.0 if exact else bound / divisors
        flat = (*lengths, -1)
        return sums.reshape(flat), bound if isinstance(bound, float) else bound.reshape(flat)
