"""Convolution and its gradients: exact sums, rounded once."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from mpsref.arrays import Elements, Floats, Stored, Wide
from mpsref.errors import ImageError, ParameterError
from mpsref.storage import StorageFormat
from mpsref.sums.base import TERMS, Block, Index, Operands, Sum, elements_or_error, gathered, gradient_or_error
from mpsref.sums.products import Correlation, Grouped, Place
from mpsref.sums.transposed import Products, channel_totals
from mpsref.sums.window import Window, regions

__all__ = ["BiasGradient", "Convolution", "DataGradient", "WeightGradient"]

FEW = 16
"""Groups with fewer products of a source and a result channel are faster tap by tap."""


def _weights_or_error(weights: Floats, bias: Floats | None, window: Window, groups: int) -> None:
    if weights.ndim != 4 or weights.dtype != np.float32 or weights.shape[1:3] != window.kernel or not weights.size:
        raise ImageError(
            f"weights are {weights.dtype}{list(weights.shape)}: give float32[result channels, "
            f"{window.kernel[0]}, {window.kernel[1]}, source channels of a group]"
        )
    if groups < 1 or weights.shape[0] % groups:
        raise ParameterError(f"groups is {groups!r}: give a divisor of the {weights.shape[0]} result channels")
    if bias is not None and (bias.dtype != np.float32 or bias.shape != weights.shape[:1]):
        raise ImageError(f"bias is {bias.dtype}{list(bias.shape)}: give float32[{weights.shape[0]}]")


@dataclass(eq=False)
class Convolution(Sum):
    """
    ``bias[o] + sum of weights[o, ky, kx, i] source[...]`` for each result element; also a fully connected layer.

    Attributes
    ----------
    source : Elements
        Images, height, width, channels.
    weights : ndarray of float32
        Result channels, kernel height, kernel width, source channels of a group. With a group for each source channel
        the convolution is depthwise, and result channel ``o`` reads source channel ``o // multiplier``.
    bias : ndarray of float32 or None
        One for each result channel.
    window : Window
        What each result element reads; a fully connected layer's covers the source.
    groups : int
        Parts of the source channels, each read by as many result channels.

    Raises
    ------
    ImageError, ParameterError
        Shapes or dtypes do not fit together.

    Examples
    --------
    >>> import numpy as np
    >>> from mpsref.arrays import Elements
    >>> from mpsref.storage import storage_format
    >>> half = storage_format("float16")
    >>> source = Elements(np.float16([1, 2, 3, 4]).reshape(1, 1, 4, 1), half)
    >>> weights = np.float32([1, 10, 100]).reshape(1, 1, 3, 1)
    >>> window = Window((1, 3), (1, 2), first=(0, -1), result=(1, 2))
    >>> Convolution(source, weights, None, window).rounded(half).reshape(-1)
    array([210., 432.], dtype=float16)
    """

    source: Elements
    weights: Floats
    bias: Floats | None
    window: Window
    groups: int = 1
    shape: tuple[int, ...] = field(init=False)
    storages: tuple[StorageFormat, ...] = field(init=False)

    def __post_init__(self) -> None:
        elements_or_error(self.source, "source")
        _weights_or_error(self.weights, self.bias, self.window, self.groups)
        channels = self.weights.shape[3] * self.groups
        if self.source.stored.shape[3] != channels:
            raise ImageError(f"source has {self.source.stored.shape[3]} channels, but the weights read {channels}")
        self.shape = (self.source.stored.shape[0], *self.window.result, self.weights.shape[0])
        self.storages = (self.source.storage,)

    def terms(self) -> int:
        return math.prod(self.weights.shape[1:]) + 1

    def operands(self, index: Index) -> Operands:
        n, y, x, o = np.unravel_index(index, self.shape)
        height, width = self.source.stored.shape[1:3]
        depth = self.weights.shape[3]
        rows, columns = self.window.table(0, height)[y], self.window.table(1, width)[x]
        channels = (o // (self.weights.shape[0] // self.groups) * depth)[:, None] + np.arange(depth)
        values = gathered(self.source, n, rows, columns, channels)
        inside = (rows >= 0)[:, :, None, None] & (columns >= 0)[:, None, :, None]
        factors: Wide = np.where(inside, self.weights[o], np.float32(0)).astype(np.float64)
        yield values.reshape(index.size, -1), factors.reshape(index.size, -1)
        if self.bias is not None:
            yield self.bias[o].astype(np.float64)[:, None], np.ones((index.size, 1))

    def blocks(self) -> Iterator[Block]:
        place = Place.whole(self.window, self.shape[3])
        outputs, depth = self.weights.shape[0] // self.groups, self.weights.shape[3]
        if self.groups > 1 and outputs * depth < FEW:
            weights = self.weights.reshape(self.groups, outputs, *self.window.kernel, depth).transpose(0, 1, 4, 2, 3)
            yield from Grouped(self.source, weights, self.bias, self.window, place).blocks()
            return
        for g in range(self.groups):
            mine = slice(g * outputs, (g + 1) * outputs)
            source = Elements(self.source.stored[..., g * depth : (g + 1) * depth], self.source.storage)
            bias = None if self.bias is None else self.bias[mine]
            yield from Correlation(
                source, self.weights[mine], bias, self.window, replace(place, channels=mine)
            ).blocks()


@dataclass(eq=False)
class DataGradient(Sum):
    """
    The gradient of a convolution's source: what each of its elements contributed, times the incoming gradient.

    Attributes
    ----------
    gradient : Elements
        The incoming gradient, of the shape of the result.
    weights, window, groups
        As for `Convolution`.
    size : tuple of int
        Height and width of the source.

    Raises
    ------
    ImageError, ParameterError
        Shapes or dtypes do not fit together.
    """

    gradient: Elements
    weights: Floats
    window: Window
    size: tuple[int, int]
    groups: int = 1
    shape: tuple[int, ...] = field(init=False)
    storages: tuple[StorageFormat, ...] = field(init=False)

    def __post_init__(self) -> None:
        _weights_or_error(self.weights, None, self.window, self.groups)
        gradient_or_error(self.gradient, self.window.result, self.weights.shape[0])
        self.shape = (self.gradient.stored.shape[0], *self.size, self.weights.shape[3] * self.groups)
        self.storages = (self.gradient.storage,)

    def terms(self) -> int:
        return math.prod(self.weights.shape[:3]) // self.groups

    def operands(self, index: Index) -> Operands:
        n, y, x, i = np.unravel_index(index, self.shape)
        outputs = self.weights.shape[0] // self.groups
        group, channel = np.divmod(i, self.weights.shape[3])
        rows, columns = self.window.transposed(0, self.size[0])[y], self.window.transposed(1, self.size[1])[x]
        channels = (group * outputs)[:, None] + np.arange(outputs)
        values = gathered(self.gradient, n, rows, columns, channels)
        inside = (rows >= 0)[:, :, None, None] & (columns >= 0)[:, None, :, None]
        weights = self.weights[channels, :, :, channel[:, None]].transpose(0, 2, 3, 1)
        factors: Wide = np.where(inside, weights, np.float32(0)).astype(np.float64)
        yield values.reshape(index.size, -1), factors.reshape(index.size, -1)

    def rounded(self, result: StorageFormat, *, workers: int = 1) -> Stored:
        whole = (self.size, (0, 0), (1, 1), (1, 1), 1)
        mine = (self.window.kernel, self.window.first, self.window.dilations, self.window.result, self.groups)
        if mine == whole and self.size != (1, 1):
            # A fully connected layer: most taps of its windows over the incoming gradient would lie outside.
            weights = self.weights.reshape(self.weights.shape[0], 1, 1, -1)
            flat = DataGradient(self.gradient, weights, Window((1, 1)), (1, 1))
            return flat.rounded(result, workers=workers).reshape(self.shape)
        return super().rounded(result, workers=workers)

    def blocks(self) -> Iterator[Block]:
        for rows, columns, window in self.window.phases(self.size):
            place = Place(rows.elements, columns.elements, slice(0, self.shape[3]))
            yield from self._phase(self.weights[:, rows.taps, columns.taps], window, place)

    def _phase(self, weights: Floats, window: Window, place: Place) -> Iterator[Block]:
        """A correlation of the incoming gradient with some taps, in reverse order."""
        outputs, depth = weights.shape[0] // self.groups, weights.shape[3]
        if self.groups > 1 and outputs * depth < FEW:
            by_group = weights.reshape(self.groups, outputs, *window.kernel, depth).transpose(0, 4, 1, 2, 3)
            yield from Grouped(self.gradient, by_group, None, window, place).blocks()
            return
        for g in range(self.groups):
            mine = slice(g * outputs, (g + 1) * outputs)
            gradient = Elements(self.gradient.stored[..., mine], self.gradient.storage)
            channels = slice(g * depth, (g + 1) * depth)
            mirrored = weights[mine].transpose(3, 1, 2, 0)
            yield from Correlation(gradient, mirrored, None, window, replace(place, channels=channels)).blocks()


@dataclass(eq=False)
class WeightGradient(Sum):
    """
    The gradient of a convolution's weights: the sum over all images and result elements.

    Attributes
    ----------
    gradient : Elements
        The incoming gradient: images, height and width of the window's result, result channels.
    source : Elements
        The convolution's source.
    window, groups
        As for `Convolution`.

    Raises
    ------
    ImageError, ParameterError
        Shapes or dtypes do not fit together.
    """

    gradient: Elements
    source: Elements
    window: Window
    groups: int = 1
    shape: tuple[int, ...] = field(init=False)
    storages: tuple[StorageFormat, ...] = field(init=False)

    def __post_init__(self) -> None:
        elements_or_error(self.source, "source")
        elements_or_error(self.gradient, "gradient")
        images, channels, outputs = *self.source.stored.shape[::3], self.gradient.stored.shape[3]
        if self.groups < 1 or outputs % self.groups or channels % self.groups:
            raise ParameterError(f"groups is {self.groups!r}: give a divisor of the channels, {channels} and {outputs}")
        if self.gradient.stored.shape[0] != images:
            raise ImageError(f"gradient has {self.gradient.stored.shape[0]} images, but source {images}")
        gradient_or_error(self.gradient, self.window.result, outputs)
        self.shape = (outputs, *self.window.kernel, channels // self.groups)
        self.storages = (self.gradient.storage, self.source.storage)

    def terms(self) -> int:
        return math.prod(self.gradient.stored.shape[:3])

    def operands(self, index: Index) -> Operands:
        o, ky, kx, i = np.unravel_index(index, self.shape)
        channel = o // (self.shape[0] // self.groups) * self.shape[3] + i
        height, width = self.source.stored.shape[1:3]
        rows, columns = self.window.table(0, height).T[ky], self.window.table(1, width).T[kx]
        target = max(1, TERMS // index.size)
        for images, y, x in regions(self.gradient.stored.shape, target):
            for n in range(images.start, images.stop):
                here = np.full(index.size, n)
                values = gathered(self.source, here, rows[:, y], columns[:, x], channel[:, None])
                stored = self.gradient.stored[n, y, x][:, :, o].transpose(2, 0, 1)
                inside = (rows[:, y] >= 0)[:, :, None] & (columns[:, x] >= 0)[:, None, :]
                factors = self.gradient.storage.decode(stored, np.empty(stored.shape))
                factors = np.where(inside, factors, 0.0)
                yield values.reshape(index.size, -1), factors.reshape(index.size, -1)

    def blocks(self) -> Iterator[Block]:
        outputs, depth = self.shape[0] // self.groups, self.shape[3]
        if self.groups > 1 and outputs * depth < FEW:
            yield from Products(self.gradient, self.source, self.window, 0, self.groups).blocks()
            return
        for g in range(self.groups):
            gradient, source = (
                Elements(array.stored[..., g * count : (g + 1) * count], array.storage)
                for array, count in ((self.gradient, outputs), (self.source, depth))
            )
            yield from Products(gradient, source, self.window, g * outputs).blocks()


@dataclass(eq=False)
class BiasGradient(Sum):
    """
    The gradient of a convolution's bias: the incoming gradient's sum over all images, rows and columns.

    Attributes
    ----------
    gradient : Elements
        The incoming gradient: images, height, width, result channels.

    Raises
    ------
    ImageError
        It does not have four axes, or not the dtype of its format.
    """

    gradient: Elements
    shape: tuple[int, ...] = field(init=False)
    storages: tuple[StorageFormat, ...] = field(init=False)

    def __post_init__(self) -> None:
        elements_or_error(self.gradient, "gradient")
        self.shape = self.gradient.stored.shape[3:]
        self.storages = (self.gradient.storage,)

    def terms(self) -> int:
        return math.prod(self.gradient.stored.shape[:3])

    def operands(self, index: Index) -> Operands:
        target = max(1, TERMS // index.size)
        for region in regions(self.gradient.stored.shape, target):
            stored = self.gradient.stored[region][..., index]
            values = self.gradient.storage.decode(stored, np.empty(stored.shape)).reshape(-1, index.size).T
            yield values, np.ones_like(values)

    def blocks(self) -> Iterator[Block]:
        step = 4096
        for start in range(0, self.shape[0], step):
            channels = slice(start, min(start + step, self.shape[0]))
            yield Block((channels,), partial(channel_totals, self.gradient, channels))
