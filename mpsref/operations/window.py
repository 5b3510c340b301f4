"""
Windows that slide over an image: convolutions and pooling have them in common.

The specification of a sum is a list of products for one element of the result: `Sliding` says which elements of the
source a window reads, an operation by what each is multiplied.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from mpsref.arrays import Elements, Index, Stored, Wide
from mpsref.enums import MPSImageEdgeMode
from mpsref.environment import environment_or_error
from mpsref.errors import ImageError
from mpsref.image import MPSImage
from mpsref.image_lanes import components, write_lanes
from mpsref.neuron.exact import WIDE, Digits, decide, number
from mpsref.neuron.stepwise import MODES, Evaluation
from mpsref.operations.base import Operation, Size, Spread, size_text
from mpsref.operations.padding import Placement, PolicyLike, place
from mpsref.storage import FLOAT64, StorageFormat
from mpsref.sums.window import Window

__all__ = ["Places", "Sliding", "WindowSum", "Windowed", "packed", "total"]

Places: TypeAlias = tuple[Index, Index]
"""For each of some elements, shape (n, taps): rows and columns, -1 outside."""


@dataclass(frozen=True)
class Sliding:
    """
    A window, how it moves, and where it begins.

    Attributes
    ----------
    kernel, strides, dilations : tuple of int
        In y and x.
    padding : PolicyLike
        The policy.
    edge_mode : MPSImageEdgeMode
        The edge.
    """

    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    padding: PolicyLike
    edge_mode: MPSImageEdgeMode = MPSImageEdgeMode.zero

    def placed(self, source: Size) -> Placement:
        """Where the windows lie on a source."""
        return place(self.padding, source[1:3], self.kernel, self.strides, self.dilations, self.edge_mode)

    def window(self, source: Size) -> Window:
        """The window as sums take it."""
        placed = self.placed(source)
        return Window(self.kernel, self.strides, self.dilations, placed.first, placed.size)

    def counts(self, source: Size, *, transposed: bool = False) -> Index:
        """How many taps of each window lie inside; or how many windows read each source pixel. Shape (H, W, 1)."""
        window = self.window(source)
        tables = window.transposed if transposed else window.table
        rows, columns = (np.count_nonzero(tables(axis, n) >= 0, axis=1) for axis, n in enumerate(source[1:3]))
        return np.asarray(rows[:, np.newaxis, np.newaxis] * columns[:, np.newaxis])

    def each_tap(self, source: Size) -> Iterator[tuple[int, int, Any, Any]]:
        """For each tap its row and column, and the result and source pixels that it joins: indices of (N, H, W, C)."""
        window = self.window(source)
        for ky, kx in np.ndindex(self.kernel):
            joined = [window.joined(axis, tap, n) for axis, tap, n in zip((0, 1), (ky, kx), source[1:3], strict=True)]
            made, read = zip(*joined, strict=True)
            yield ky, kx, (slice(None), *made), (slice(None), *read)

    def taps(self, y: Index, x: Index, source: Size) -> Places:
        """The source pixels that the windows of some result pixels read, in the order ky, kx."""
        window = self.window(source)
        return _grid(*(window.table(axis, n)[at] for axis, (at, n) in enumerate(zip((y, x), source[1:3], strict=True))))

    def windows(self, y: Index, x: Index, source: Size) -> Places:
        """The result pixels whose windows read some source pixels, by the tap, in the order ky, kx, that reads it."""
        window = self.window(source)
        at_axes = enumerate(zip((y, x), source[1:3], strict=True))
        return _grid(*(window.transposed(axis, n)[at] for axis, (at, n) in at_axes))


def _grid(rows: Index, columns: Index) -> Places:
    shape = len(rows), rows.shape[1], columns.shape[1]
    outside = (rows < 0)[:, :, np.newaxis] | (columns < 0)[:, np.newaxis]
    both = (np.where(outside, -1, np.broadcast_to(axis, shape)).reshape(len(rows), shape[1] * shape[2])
            for axis in (rows[:, :, np.newaxis], columns[:, np.newaxis]))  # fmt: skip
    rows, columns = both
    return rows, columns


class Windowed(Operation):
    """
    Base of the operations whose elements depend on a window of their sources.

    `evaluate` takes whole images, of shape (N, H, W, C).
    """

    is_pointwise = False
    sliding: Sliding

    def run(self, *sources: MPSImage, result: StorageFormat, how: Evaluation, workers: int = 1) -> Stored:
        """The slices of the result, for images whose sizes fit."""
        elements = [Elements(image.to_array(), image.storage) for image in sources]
        return packed(self.evaluate(elements, result, how, _no_spread, workers))

    @np.errstate(all="ignore")
    def evaluate(
        self, sources: Sequence[Elements], result: StorageFormat, how: Evaluation, spread: Spread, workers: int = 1
    ) -> Stored:
        environment_or_error()
        mode = next(name for name, each in MODES.items() if each is how)
        if mode != "ideal" and any(source.storage is FLOAT64 for source in sources):
            raise ImageError(f"the sources are float64, which mode {mode!r} does not have: use mode 'ideal'")
        if mode == "specified":
            return self.specified([source.values() for source in sources], result)
        if mode == "ideal" and FLOAT64 not in (result, *(source.storage for source in sources)):
            return self.ideal(sources, result, workers)
        dtype = np.float64 if mode == "ideal" else np.float32
        values = self.plain([source.values().astype(dtype) for source in sources], fused=mode == "stepwise-fma")
        values = np.where(np.isnan(values), np.nan, values.astype(np.float64))
        return result.encode(values, np.empty(values.shape, result.dtype))

    def terms(self, *sources: Size) -> Index:
        """How many numbers are added up for each element of the result: shape (H, W, 1)."""
        return self.sliding.counts(sources[-1], transposed=self.makes_gradient)

    @abstractmethod
    def ideal(self, sources: Sequence[Elements], result: StorageFormat, workers: int) -> Stored:
        """The exact result, of shape (N, H, W, C), rounded once."""

    @abstractmethod
    def specified(self, sources: Sequence[Wide], result: StorageFormat) -> Stored:
        """The same, element by element: the specification."""

    @abstractmethod
    def plain(self, sources: Sequence[Any], *, fused: bool = False) -> Any:
        """The result in the arithmetic of the sources, float32 or float64, in the order of the header's loops."""


class WindowSum(Windowed):
    """Base of the operations that are sums of products with constants, over a window."""

    @abstractmethod
    def factors(self, index: Index, *sources: Size) -> Wide:
        """By what each element that `feeding` names is multiplied: shape (n, count)."""

    def constant(self, index: Index, *sources: Size) -> Wide:
        """What is added for each element of the result."""
        return np.zeros(len(index))

    def divisors(self, index: Index, *sources: Size) -> npt.NDArray[np.int64]:
        """By what the sum of each element is divided: shape (n,), or (n, count) for each product by itself."""
        return np.ones(len(index), np.int64)

    def specified(self, sources: Sequence[Wide], result: StorageFormat) -> Stored:
        sizes = [size_of(source) for source in sources]
        shape = self.result_size(*sizes)
        index = np.arange(int(np.prod(shape)))
        places = self.values_of(self.feeding(index, *sizes))[0]
        read = self.values_of(sources)[0].reshape(-1)
        out = np.empty(len(index), result.dtype)
        rows = zip(places, self.factors(index, *sizes), self.constant(index, *sizes), self.divisors(index, *sizes),
                   strict=True)  # fmt: skip
        for i, (places_read, factors, constant, divisors) in enumerate(rows):
            inside = places_read >= 0
            products = zip(factors[inside].tolist(), read[places_read[inside]].tolist(), strict=True)
            each = np.broadcast_to(divisors, places_read.shape)[inside].tolist()
            value = total(products, float(constant), each)
            out[i] = decide(lambda m, value=value: self.finished(value(m), m), result)  # type: ignore[misc]
        return out.reshape(shape)

    def finished(self, value: Decimal, m: Digits) -> Decimal:
        """What becomes of the sum before it is stored."""
        return value


def total(products: Any, constant: float, divisors: Sequence[int]) -> Any:
    """A sum of quotients of products, exactly where all are dyadic, to the digits that are asked for."""
    terms: dict[int, Decimal] = {}
    for (factor, x), divisor in zip(products, divisors, strict=True):
        product = WIDE.multiply(number(factor), number(x))
        terms[divisor] = WIDE.add(terms[divisor], product) if divisor in terms else product
    if constant:
        terms[1] = WIDE.add(terms.get(1, Decimal(0)), number(constant))

    def value(m: Digits) -> Decimal:
        # One quotient, so that what is exact stays exact.
        common = math.lcm(*terms)
        numerator = Decimal(0)
        for divisor, term in terms.items():
            numerator = WIDE.add(numerator, WIDE.multiply(term, Decimal(common // divisor)))
        # A sum of 0 is +0, whatever the signs of its terms.
        return numerator if common == 1 or numerator == 0 else numerator / common

    return value


def size_of(array: Wide) -> Size:
    """The size of an array of shape (N, H, W, C)."""
    n, h, w, c = array.shape
    return n, h, w, c


def flat_index(places: Places, n: Index, channels: Index, size: Size) -> Index:
    """Flat indices of the channels of pixels; -1 where there is none."""
    rows, columns = (each[..., np.newaxis] for each in places)
    _, h, w, c = size
    flat = ((n[:, np.newaxis, np.newaxis] * h + rows) * w + columns) * c + channels
    return np.where(rows < 0, -1, flat).reshape(len(n), -1)


def packed(array: Stored) -> Stored:
    """An array of shape (N, H, W, C) as slices."""
    n, h, w, c = array.shape
    slices = np.zeros((n, -(-c // 4), h, w, components(c)), array.dtype)
    write_lanes(slices, array)
    return slices


def same_size(name: str, actual: Size, expected: Size) -> None:
    """Raise `ImageError` unless a size is the expected one."""
    if actual != expected:
        raise ImageError(f"{name} is {size_text(actual)}: it must be {size_text(expected)}")


def _no_spread(data: npt.NDArray[np.float32]) -> Any:
    raise AssertionError("windows have no slopes")
