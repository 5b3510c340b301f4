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
from mpsref.enums import MPSImageFeatureChannelFormat
from mpsref.neuron.workspace import two_sum
from mpsref.storage import FORMATS
from mpsref.sums.base import ROUNDING, Block, Near
from mpsref.sums.expansion import quotient_odd
from mpsref.sums.window import Part, Region, Window, matrix, reduced, regions, shifted, slab

__all__ = [
    "CHUNK",
    "Correlation",
    "Grouped",
    "Means",
    "Place",
    "Total",
    "common_unit",
    "largest_over_unit",
    "parts_of",
    "taps_in",
]

FLOAT32 = FORMATS[MPSImageFeatureChannelFormat.float32]

CHUNK = 1024
"""About so many terms of a matrix product."""

GATHERED = 2**19
"""Elements of a gathered matrix (4 MiB)."""

CELLS = 2**17
"""Elements of the result in a block."""

OUTPUTS = 1024
"""Result channels of a block."""

KEPT = 2**20
"""Up to so many weights are kept as float64."""

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


def common_unit(source: Elements, factor: float, *, thorough: bool = False) -> float:
    """
    A power of two of which all elements are multiples, or 0 where sums cannot be exact.

    They cannot where the largest element times `factor` has 2^53 units. The largest unit if `thorough`.
    """
    if source.storage.dtype == np.float16 and not thorough:
        return 2.0**-24
    flat, unit, largest, start, size = source.stored.reshape(-1), math.inf, 0.0, 0, 1024
    while start < flat.size:
        x = source.storage.decode(flat[start : start + size], np.empty(min(size, flat.size - start)))
        start, size = start + size, 2**16
        top = max(float(x.max()), -float(x.min()))
        if not math.isfinite(top):
            return 0.0
        if top:
            exponent = 61 - math.frexp(top)[1]
            x *= 2.0**exponent
            integers = x.astype(np.int64)
            if not np.array_equal(integers, x):
                return 0.0
            bits = int(np.bitwise_or.reduce(integers))
            unit, largest = min(unit, math.ldexp(bits & -bits, -exponent)), max(largest, top)
            if largest * factor >= EXACT * unit:
                return 0.0
    return unit


def largest_over_unit(array: Elements) -> float:
    """At least this ratio of the largest element to the common unit, from a few elements."""
    few = Elements(array.stored.reshape(-1)[:1024], array.storage)
    unit = common_unit(few, 1.0, thorough=True)
    largest = float(np.abs(few.values()).max(initial=0.0))
    return largest / unit if unit else math.inf


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
        small = self.weights.size <= KEPT
        self._kept = [self._matrix(part, slice(None)) for part in self.parts] if small else None
        squares = np.zeros(self.weights.shape[0])
        for i, part in enumerate(self.parts):
            for start in range(0, squares.size, OUTPUTS):
                channels = slice(start, min(start + OUTPUTS, squares.size))
                weights = self._part(i, part, channels).T
                squares[channels] += np.einsum("ij,ij->i", weights, weights)
        self._norms = np.sqrt(squares) * (1 + 2.0**-30)
        self._biases = np.zeros(squares.size)
        stored = Elements(self.weights, FLOAT32)
        unit = common_unit(self.source, largest_over_unit(stored))
        self._unit = unit and unit * common_unit(stored, 1.0)
        if self.bias is not None:
            self._biases = np.abs(self.bias.astype(np.float64))
            self._unit = self._unit and min(self._unit, common_unit(Elements(self.bias, FLOAT32), 1.0))

    def _part(self, i: int, part: Part, channels: slice) -> Wide:
        return self._matrix(part, channels) if self._kept is None else self._kept[i][:, channels]

    def _matrix(self, part: Part, channels: slice) -> Wide:
        weights = self.weights[channels, *part].astype(np.float64)
        return weights.reshape(weights.shape[0], -1).T

    def _longest(self) -> int:
        return max(taps_in(part) for part in self.parts)

    def blocks(self) -> Iterator[Block]:
        """All elements of the result."""
        images, outputs = self.source.stored.shape[0], self.weights.shape[0]
        longest, pixels = self._longest(), images * math.prod(self.window.result)
        # A part of the weights must not be large either.
        width = min(outputs, max(OUTPUTS, min(CELLS // max(pixels, 1), GATHERED // longest)))
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
            pixels = np.einsum("nyxc,nyxc->nyx", values, values)[..., None]
            squares += reduced(np.add, pixels, self.window, region, part)[..., 0]
            product = matrix(values, self.window, region, part) @ self._part(i, part, channels)
            if not i and self.bias is not None:
                product += self.bias[channels]
            total.add(product)
        sums = total.value((*lengths, channels.stop - channels.start))
        rows = np.sqrt(squares)
        norms, biases = self._norms[channels], self._biases[channels]
        if np.max(rows.max(initial=0.0) * norms + biases, initial=0.0) < EXACT * self._unit:
            return sums, 0.0
        # Each of the products' sum, one for the bias, and those of the total.
        error = (self._longest() + 4) * ROUNDING
        scale = float(np.max(rows, where=np.isfinite(rows), initial=0.0)) or 1.0
        columns = np.hypot(norms, biases / scale) * error
        if self.bias is not None:
            rows = np.hypot(rows, scale)
        return sums, np.einsum("nyx,c->nyxc", rows, columns)


@dataclass
class Grouped:
    """
    A window over a source whose channels are in many small groups, tap by tap.

    Attributes
    ----------
    source : Elements
        Images, height, width, groups times channels of a group.
    weights : ndarray of float32
        Groups, result channels and source channels of a group, kernel height, kernel width.
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

    def __post_init__(self) -> None:
        self._groups, self._results, self._inputs = self.weights.shape[:3]
        weights = Elements(self.weights, FLOAT32)
        unit = common_unit(weights, 1.0)
        self._unit = unit and unit * common_unit(self.source, largest_over_unit(weights))
        if self.bias is not None:
            self._unit = self._unit and min(self._unit, common_unit(Elements(self.bias, FLOAT32), 1.0))

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
                    np.multiply(read[..., i, :], self.weights[:, :, i, ky, kx], out=product)
                    sums += product
                    sizes += np.abs(product, out=product)
        flat = (*lengths, -1)
        if float(np.max(sizes, initial=0.0)) < EXACT * self._unit:
            return sums.reshape(flat), 0.0
        sizes *= (height * width * self._inputs + 1) * ROUNDING
        return sums.reshape(flat), sizes.reshape(flat)


@dataclass
class Means:
    """
    The sum over each window of a source, perhaps weighted by its place, and divided.

    Attributes
    ----------
    source : Elements
        Images, height, width, channels.
    window : Window
        What each result element reads.
    place : Place
        Where the result is stored.
    divisors : callable or None
        What the sums of a region are divided by, integers of at most 24 bits that broadcast; None for nothing.
    factors : Elements or None
        float64 by which the source is multiplied, rounded or integers of at most 24 bits: 1, height, width, 1.
    """

    source: Elements
    window: Window
    place: Place
    divisors: Callable[[Region], Wide] | None
    factors: Elements | None = None

    def __post_init__(self) -> None:
        factors = np.ones(1) if self.factors is None else self.factors.stored
        integers = not (factors % 1).any()
        self._unit = common_unit(self.source, 1.0) if integers else 0.0
        largest = 65504 * float(factors.max(initial=0.0)) * math.prod(self.window.kernel)
        self._is_exact = integers and self.source.storage.dtype == np.float16 and largest < EXACT * self._unit

    def blocks(self) -> Iterator[Block]:
        """All elements of the result."""
        channels = self.source.stored.shape[3]
        for region in regions((self.source.stored.shape[0], *self.window.result), CELLS // max(channels, 1)):
            yield Block(self.place.of(region, slice(0, channels)), partial(self._near, region))

    def _near(self, region: Region) -> Near:
        height, width = self.window.kernel
        part = (slice(0, height), slice(0, width), slice(0, self.source.stored.shape[3]))
        values = slab(self.source, self.window, region, part)
        if self.factors is not None:
            values *= slab(self.factors, self.window, (slice(0, 1), *region[1:]), (*part[:2], slice(0, 1)))
        sums, taps = reduced(np.add, values, self.window, region, part), height * width
        divisors = None if self.divisors is None else self.divisors(region)
        # For NaN neither of these is true.
        if self._is_exact or taps * max(float(values.max()), -float(values.min())) < EXACT * self._unit:
            return sums if divisors is None else quotient_odd(sums, divisors), 0.0
        sizes = reduced(np.add, np.abs(values), self.window, region, part) * ((taps + 3) * ROUNDING)
        return (sums, sizes) if divisors is None else (sums / divisors, sizes / divisors)
