"""A window that slides over the two axes of an image: which source elements feed which element of the result."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from mpsref.arrays import Elements, Stored, Wide
from mpsref.errors import ParameterError

__all__ = ["Pair", "Part", "Phase", "Region", "Window", "matrix", "reduced", "regions", "shifted", "slab", "spread"]

Pair: TypeAlias = tuple[int, int]
"""One number for each axis: rows, then columns."""

Region: TypeAlias = tuple[slice, slice, slice]
"""Images, rows and columns of a result."""

Part: TypeAlias = tuple[slice, slice, slice]
"""Some taps and source channels: kernel rows, kernel columns, channels."""

Index = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Phase:
    """
    The elements of one axis of a source whose gradient reads the same taps: a window over the incoming gradient.

    Attributes
    ----------
    elements : slice
        These source elements.
    taps : slice
        The taps that read them, in the order of the incoming gradient.
    reads : int
        How many they are.
    first, dilation, count : int
        Of the window over the incoming gradient, whose stride is 1: where it begins, between taps, and elements.
    """

    elements: slice
    taps: slice
    reads: int
    first: int
    dilation: int
    count: int


@dataclass(frozen=True)
class Window:
    """
    Tap (ky, kx) of result element (oy, ox) reads source row ``oy strides[0] + ky dilations[0] + first[0]``, and the
    column likewise. What lies outside the source forms no product.

    Attributes
    ----------
    kernel, strides, dilations : tuple of two int
        Taps, and the distances of neighbouring result elements and of neighbouring taps in the source; at least 1.
    first : tuple of two int
        The source row and column that the first tap of the first result element reads; may be negative.
    result : tuple of two int
        Height and width of the result; at least 0.

    Raises
    ------
    ParameterError
        A field is not two integers in these ranges.

    Examples
    --------
    >>> Window(kernel=(1, 3), strides=(1, 2), first=(0, -1), result=(1, 2)).table(1, 4)
    array([[-1,  0,  1],
           [ 1,  2,  3]])
    """

    kernel: Pair
    strides: Pair = (1, 1)
    dilations: Pair = (1, 1)
    first: Pair = (0, 0)
    result: Pair = (1, 1)

    def __post_init__(self) -> None:
        for name, least in (("kernel", 1), ("strides", 1), ("dilations", 1), ("first", None), ("result", 0)):
            value = getattr(self, name)
            try:
                y, x = map(operator.index, value)
            except (TypeError, ValueError):
                raise ParameterError(f"{name} is {value!r}: give two integers, for rows and columns") from None
            if max(abs(y), abs(x)) >= 2**31 or (least is not None and min(y, x) < least):
                smallest = -(2**31) + 1 if least is None else least
                raise ParameterError(f"{name} is {value!r}: give integers from {smallest:,} to {2**31 - 1:,}")
            object.__setattr__(self, name, (y, x))

    def table(self, axis: int, size: int) -> Index:
        """The source index for each result index and tap of an axis of `size` elements; -1 outside."""
        start, step = self.first[axis], self.dilations[axis]
        places = np.arange(self.result[axis])[:, None] * self.strides[axis]
        index: Index = places + np.arange(self.kernel[axis]) * step + start
        return np.where((index >= 0) & (index < size), index, -1)

    def transposed(self, axis: int, size: int) -> Index:
        """The result index for each source index and tap of an axis of `size` elements; -1 where there is none."""
        places = np.arange(size)[:, None] - np.arange(self.kernel[axis]) * self.dilations[axis] - self.first[axis]
        index, rest = np.divmod(places, self.strides[axis])
        return np.where((rest == 0) & (index >= 0) & (index < self.result[axis]), index, -1)

    def joined(self, axis: int, tap: int, size: int) -> tuple[slice, slice]:
        """
        The result elements of which a tap is inside an axis of `size` elements, and the source elements that it reads.

        Examples
        --------
        >>> Window((1, 3), (1, 2), first=(0, -1), result=(1, 3)).joined(1, 0, 6)
        (slice(1, 3, None), slice(1, 4, 2))
        """
        start, step = self.first[axis] + tap * self.dilations[axis], self.strides[axis]
        low = max(0, -(start // step))
        high = max(low, min(self.result[axis], -((start - size) // step)))
        return slice(low, high), slice(start + low * step, max(start + (high - 1) * step + 1, 0), step)

    def inside(self, axis: int, size: int) -> Index:
        """How many taps of each result index of an axis lie inside."""
        counts: Index = np.count_nonzero(self.table(axis, size) >= 0, axis=1)
        return counts

    def counts(self, height: int, width: int, frame: Pair = (0, 0)) -> tuple[Index, Index]:
        """Taps inside a source, or in a frame of some rows and columns around it, for each result row and column."""
        first = (self.first[0] + frame[0], self.first[1] + frame[1])
        moved = replace(self, first=first)
        return moved.inside(0, height + 2 * frame[0]), moved.inside(1, width + 2 * frame[1])

    def taps(self, y: int, x: int, height: int, width: int) -> list[tuple[int, int, int, int]]:
        """
        What feeds a result element: kernel row and column, source row and column of each tap inside, in their order.

        Examples
        --------
        >>> Window(kernel=(2, 2), first=(-1, -1), result=(3, 3)).taps(0, 1, height=3, width=3)
        [(1, 0, 0, 0), (1, 1, 0, 1)]
        """
        rows = [y * self.strides[0] + k * self.dilations[0] + self.first[0] for k in range(self.kernel[0])]
        columns = [x * self.strides[1] + k * self.dilations[1] + self.first[1] for k in range(self.kernel[1])]
        return [
            (ky, kx, row, column)
            for ky, row in enumerate(rows)
            for kx, column in enumerate(columns)
            if 0 <= row < height and 0 <= column < width
        ]

    def phases(self, size: Pair) -> Iterator[tuple[Phase, Phase, Window]]:
        """
        The gradient of a source of some height and width as windows of stride 1 over the incoming gradient.

        No result element reads the source elements that are in none of them.
        """
        for rows in self._axis_phases(0, size[0]):
            for columns in self._axis_phases(1, size[1]):
                window = Window(
                    kernel=(rows.reads, columns.reads),
                    dilations=(rows.dilation, columns.dilation),
                    first=(rows.first, columns.first),
                    result=(rows.count, columns.count),
                )
                yield rows, columns, window

    def _axis_phases(self, axis: int, size: int) -> Iterator[Phase]:
        stride, dilation, origin = self.strides[axis], self.dilations[axis], self.first[axis]
        common = math.gcd(stride, dilation)
        period = stride // common
        # Taps so far apart read the same elements.
        for tap in range(min(period, self.kernel[axis])):
            start, reads = (origin + dilation * tap) % stride, len(range(tap, self.kernel[axis], period))
            if start >= size:
                continue
            # The last tap reads the first element of the incoming gradient.
            last = tap + (reads - 1) * period
            first = (start - origin - dilation * last) // stride
            count = len(range(start, size, stride))
            taps = slice(last, None, -period)
            yield Phase(slice(start, size, stride), taps, reads, first, dilation // common, count)


def regions(shape: Sequence[int], target: int) -> Iterator[Region]:
    """Regions with about `target` pixels of images, height and width: whole images, or rows, or parts of a row."""
    images, height, width = shape[:3]
    if not height or not width:
        return
    at_once = max(1, target // max(height * width, 1))
    rows = min(height, max(1, target // max(width, 1)))
    columns = width if target >= width else max(1, target)
    for n in range(0, images, at_once):
        for y in range(0, height, rows):
            for x in range(0, width, columns):
                yield (
                    slice(n, min(n + at_once, images)),
                    slice(y, min(y + rows, height)),
                    slice(x, min(x + columns, width)),
                )


def spread(
    stored: Stored, window: Window, region: Region, part: Part, convert: Callable[[Stored], Stored], outside: float
) -> Stored:
    """What a region of the result reads through some taps, converted, with a number of one's own outside the source."""
    inside: list[slice] = []
    target: list[slice] = []
    lengths: list[int] = []
    for axis in (0, 1):
        places, taps, size = region[axis + 1], part[axis], stored.shape[axis + 1]
        stride, dilation = window.strides[axis], window.dilations[axis]
        first = places.start * stride + taps.start * dilation + window.first[axis]
        length = (places.stop - places.start - 1) * stride + (taps.stop - taps.start - 1) * dilation + 1
        start = min(max(first, 0), size)
        stop = max(min(first + length, size), start)
        inside.append(slice(start, stop))
        target.append(slice(start - first, stop - first) if stop > start else slice(0, 0))
        lengths.append(length)
    values = convert(stored[region[0], inside[0], inside[1], part[2]])
    shape = (values.shape[0], *lengths, values.shape[3])
    if values.shape == shape:
        return values
    out = np.full(shape, outside, values.dtype)
    out[:, target[0], target[1]] = values
    return out


def slab(source: Elements, window: Window, region: Region, part: Part) -> Wide:
    """What a region of the result reads through some taps, in float64, with zeros outside the source."""
    return spread(source.stored, window, region, part, lambda s: source.storage.decode(s, np.empty(s.shape)), 0.0)


def matrix(values: Wide, window: Window, region: Region, part: Part) -> Wide:
    """What some taps read from a slab of these taps: a row for each pixel, a column for each tap and channel."""
    n, row, column, channel = values.strides
    (sy, sx), (dy, dx) = window.strides, window.dilations
    lengths = [r.stop - r.start for r in (*region, *part)]
    strides = (n, sy * row, sx * column, dy * row, dx * column, channel)
    view = np.lib.stride_tricks.as_strided(values, lengths, strides, writeable=False)
    pixels, taps = math.prod(lengths[:3]), math.prod(lengths[3:])
    # The longer runs are copied faster.
    if lengths[4] * lengths[5] < min(lengths[2], 32):
        return view.transpose(3, 4, 5, 0, 1, 2).reshape(taps, pixels).T
    return view.reshape(pixels, taps)


def shifted(values: Stored, window: Window, region: Region, ky: int, kx: int) -> Stored:
    """A view of a slab of all taps: what one tap reads."""
    (sy, sx), y, x = window.strides, ky * window.dilations[0], kx * window.dilations[1]
    height, width = (r.stop - r.start for r in region[1:])
    return values[:, y : y + (height - 1) * sy + 1 : sy, x : x + (width - 1) * sx + 1 : sx]


def reduced(
    operation: Callable[[Stored, Stored], Stored], values: Stored, window: Window, region: Region, part: Part
) -> Stored:
    """What some taps read from a slab of these taps, combined along rows and then along columns."""
    (sy, sx), (dy, dx) = window.strides, window.dilations
    height, width = (places.stop - places.start for places in region[1:])
    rows, columns = (taps.stop - taps.start for taps in part[:2])
    across = values[:, :, : (width - 1) * sx + 1 : sx]
    for k in range(1, columns):
        across = operation(across, values[:, :, k * dx : k * dx + (width - 1) * sx + 1 : sx])
    down = across[:, : (height - 1) * sy + 1 : sy]
    for k in range(1, rows):
        down = operation(down, across[:, k * dy : k * dy + (height - 1) * sy + 1 : sy])
    return down
