"""
Pooling: the largest element of each window, or the mean, and their gradients.

With edge mode ``clamp`` a window is cut at the edge of the source; with ``zero`` the taps outside are zeros, which
count in a mean and can be the largest. With ``excludeEdges`` they count in a mean in both modes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mpsref.arrays import Elements, Index, Stored, Wide
from mpsref.enums import MPSImageEdgeMode, MPSNNPaddingMethod
from mpsref.neuron.exact import decide
from mpsref.operations.base import Operation, Role, Size
from mpsref.operations.window import Sliding, Windowed, WindowSum, flat_index, same_size, size_of, total
from mpsref.storage import StorageFormat, storage_of
from mpsref.sums import AveragePooling, AveragePoolingGradient, MaxPooling, MaxPoolingGradient

__all__ = ["Average", "AverageGradient", "Maximum", "MaximumGradient"]


class _Pooling(Windowed):
    """The geometry of the forward operations."""

    roles = (Role.INPUT,)
    kind = "window"

    def result_size(self, *sources: Size) -> Size:
        n, _, _, c = sources[0]
        return n, *self.sliding.placed(sources[0]).size, c

    def feeding(self, index: Index, *sources: Size) -> tuple[Index, ...]:
        n, y, x, c = np.unravel_index(index, self.result_size(*sources))
        return (flat_index(self.sliding.taps(y, x, sources[0]), n, c[:, np.newaxis, np.newaxis], sources[0]),)

    def stepwise(self, f: Any, *sources: Any, function: Callable[[Any], Any] | None = None) -> Any:
        raise NotImplementedError("a window has no formula of single elements")


class _PoolingGradient(Windowed):
    """The geometry of the gradients."""

    kind = "window"
    makes_gradient = True

    def result_size(self, *sources: Size) -> Size:
        gradient, source = sources
        n, _, _, c = source
        same_size("the incoming gradient", gradient, (n, *self.sliding.placed(source).size, c))
        return source

    def windows(self, index: Index, gradient: Size, source: Size) -> Index:
        """The results whose windows read some source elements, by tap."""
        n, y, x, c = np.unravel_index(index, source)
        return flat_index(self.sliding.windows(y, x, source), n, c[:, np.newaxis, np.newaxis], gradient)

    def stepwise(self, f: Any, *sources: Any, function: Callable[[Any], Any] | None = None) -> Any:
        raise NotImplementedError("a window has no formula of single elements")


def _divisors(sliding: Sliding, source: Size) -> tuple[Index, Index]:
    """By what sums are divided, as the product of one number for each result row and column."""
    window, method = sliding.window(source), int(sliding.padding.padding_method())
    if method & MPSNNPaddingMethod.excludeEdges or sliding.placed(source).edge_mode == MPSImageEdgeMode.zero:
        rows, columns = (np.full(size, k) for size, k in zip(window.result, window.kernel, strict=True))
        return rows, columns
    return window.counts(*source[1:3])


def _grid(sliding: Sliding, source: Size) -> npt.NDArray[np.int64]:
    """The same for each result pixel, of shape (H, W); 1 for a window outside of the source, which gives 0."""
    rows, columns = _divisors(sliding, source)
    return np.asarray(np.maximum(rows[:, np.newaxis] * columns, 1))


@dataclass(frozen=True)
class Average(_Pooling, WindowSum):
    """The mean of each window."""

    sliding: Sliding

    def factors(self, index: Index, *sources: Size) -> Wide:
        return np.ones((len(index), self.sliding.kernel[0] * self.sliding.kernel[1]))

    def divisors(self, index: Index, *sources: Size) -> npt.NDArray[np.int64]:
        _, y, x, _ = np.unravel_index(index, self.result_size(*sources))
        return _grid(self.sliding, sources[0])[y, x]

    def ideal(self, sources: Sequence[Elements], result: StorageFormat, workers: int) -> Stored:
        source = size_of(sources[0].stored)
        counts = _divisors(self.sliding, source)
        return AveragePooling(sources[0], self.sliding.window(source), counts).rounded(result, workers=workers)

    def plain(self, sources: Sequence[Any], *, fused: bool = False) -> Any:
        (x,) = sources
        return self.summed(x) / _grid(self.sliding, size_of(x))[..., np.newaxis].astype(x.dtype)

    def summed(self, x: Any) -> Any:
        """The sums before they are divided."""
        out = np.zeros(self.result_size(size_of(x)), x.dtype)
        for _, _, made, read in self.sliding.each_tap(size_of(x)):
            out[made] += x[read]
        return out

    def gradients(self) -> tuple[Operation, ...]:
        return (AverageGradient(self.sliding),)

    def text(self, names: Sequence[str], symbol: str) -> str:
        return f"mean({names[0]})"


@dataclass(frozen=True)
class AverageGradient(_PoolingGradient, WindowSum):
    """Each window's incoming gradient, divided as its mean was."""

    sliding: Sliding
    roles = (Role.GRADIENT, Role.SIZE)

    def feeding(self, index: Index, *sources: Size) -> tuple[Index, ...]:
        return self.windows(index, *sources), np.empty((len(index), 0), np.intp)

    def factors(self, index: Index, *sources: Size) -> Wide:
        return np.ones((len(index), self.sliding.kernel[0] * self.sliding.kernel[1]))

    def divisors(self, index: Index, *sources: Size) -> npt.NDArray[np.int64]:
        gradient, source = sources
        read = self.windows(index, gradient, source)
        _, y, x, _ = np.unravel_index(np.maximum(read, 0).reshape(-1), gradient)
        return _grid(self.sliding, source)[y, x].reshape(read.shape)

    def ideal(self, sources: Sequence[Elements], result: StorageFormat, workers: int) -> Stored:
        gradient, source = sources[0], size_of(sources[1].stored)
        window, counts = self.sliding.window(source), _divisors(self.sliding, source)
        return AveragePoolingGradient(gradient, window, counts, source[1:3]).rounded(result, workers=workers)

    def plain(self, sources: Sequence[Any], *, fused: bool = False) -> Any:
        gradient, source = sources
        return self.spread(self.shares(gradient, size_of(source)), size_of(source))

    def shares(self, gradient: Any, source: Size) -> Any:
        """What each window gives to each of its elements."""
        return gradient / _grid(self.sliding, source)[..., np.newaxis].astype(gradient.dtype)

    def spread(self, gradient: Any, source: Size) -> Any:
        """Each gradient added to the elements of its window."""
        out = np.zeros(source, gradient.dtype)
        for _, _, made, read in self.sliding.each_tap(source):
            out[read] += gradient[made]
        return out

    def text(self, names: Sequence[str], symbol: str) -> str:
        return f"spread({names[0]})"


@dataclass(frozen=True)
class Maximum(_Pooling):
    """
    The largest element of each window: NaN if it reads one, +0 before -0.

    The window of a result that lies outside of the source altogether gives 0.
    """

    sliding: Sliding

    def pooling(self, x: Elements) -> MaxPooling:
        """The selection, for a whole source."""
        source = size_of(x.stored)
        zero = self.sliding.placed(source).edge_mode == MPSImageEdgeMode.zero
        return MaxPooling(x, self.sliding.window(source), zero)

    def ideal(self, sources: Sequence[Elements], result: StorageFormat, workers: int) -> Stored:
        return self.pooling(sources[0]).rounded(result, workers=workers)

    def specified(self, sources: Sequence[Wide], result: StorageFormat) -> Stored:
        (x,) = sources
        source = size_of(x)
        shape = self.result_size(source)
        zero = self.sliding.placed(source).edge_mode == MPSImageEdgeMode.zero
        out = np.empty(int(np.prod(shape)))
        for i, read in enumerate(self.feeding(np.arange(out.size), source)[0]):
            values = x.reshape(-1)[read[read >= 0]].tolist()
            if len(values) < read.size and (zero or not values):
                values.append(0.0)
            nan = any(map(math.isnan, values))
            out[i] = math.nan if nan else max(values, key=lambda value: (value, math.copysign(1, value)))
        return result.encode(out, np.empty(out.shape, result.dtype)).reshape(shape)

    def plain(self, sources: Sequence[Any], *, fused: bool = False) -> Any:
        x = Elements(sources[0], storage_of(sources[0], "x"))
        return self.pooling(x).rounded(x.storage)

    def gradients(self) -> tuple[Operation, ...]:
        return (MaximumGradient(self.sliding),)

    def text(self, names: Sequence[str], symbol: str) -> str:
        return f"max({names[0]})"


@dataclass(frozen=True)
class MaximumGradient(_PoolingGradient):
    """Each window's incoming gradient goes to its largest element, the first of several in row order."""

    sliding: Sliding
    roles = (Role.GRADIENT, Role.INPUT)

    def feeding(self, index: Index, *sources: Size) -> tuple[Index, ...]:
        gradient, source = sources
        read = self.windows(index, gradient, source)
        # The values that compete: all taps of all these windows.
        (taps,) = Maximum(self.sliding).feeding(np.maximum(read, 0).reshape(-1), source)
        taps = np.where(read.reshape(-1, 1) < 0, -1, taps)
        return read, taps.reshape(len(index), -1)

    def ideal(self, sources: Sequence[Elements], result: StorageFormat, workers: int) -> Stored:
        gradient, x = sources
        return MaxPoolingGradient(gradient, Maximum(self.sliding).pooling(x)).rounded(result, workers=workers)

    def specified(self, sources: Sequence[Wide], result: StorageFormat) -> Stored:
        gradient, x = sources
        source = size_of(x)
        zero = self.sliding.placed(source).edge_mode == MPSImageEdgeMode.zero
        terms: dict[int, list[tuple[float, float]]] = {}
        (taps,) = Maximum(self.sliding).feeding(np.arange(gradient.size), source)
        for read, incoming in zip(taps, gradient.reshape(-1).tolist(), strict=True):
            inside = read[read >= 0].tolist()
            values = x.reshape(-1)[inside].tolist()
            # NaN above all numbers; the first of equals.
            order = [math.inf if math.isnan(value) else value for value in values]
            order = [float(math.isnan(value)) for value in values] if any(map(math.isnan, values)) else order
            if values and not (zero and len(values) < read.size and max(order) < 0):
                terms.setdefault(inside[order.index(max(order))], []).append((1.0, incoming))
        out = np.zeros(x.size, result.dtype)
        for place, products in terms.items():
            out[place] = decide(total(products, 0.0, [1] * len(products)), result)
        return out.reshape(x.shape)

    def plain(self, sources: Sequence[Any], *, fused: bool = False) -> Any:
        gradient, x = sources
        place = self.places(x)
        out = np.zeros(x.size, gradient.dtype)
        np.add.at(out, place[place >= 0], gradient.reshape(-1)[place >= 0])
        return out.reshape(x.shape)

    def places(self, x: Any) -> Index:
        """The flat index of the largest element of each window, -1 where a zero outside is larger."""
        pooling = Maximum(self.sliding).pooling(Elements(x, storage_of(x, "x")))
        chosen = pooling.chosen().reshape(-1)
        (taps,) = Maximum(self.sliding).feeding(np.arange(chosen.size), size_of(x))
        return np.where(chosen >= 0, taps[np.arange(chosen.size), np.maximum(chosen, 0)], -1)

    def text(self, names: Sequence[str], symbol: str) -> str:
        return f"{names[0]} at the largest of {names[1]}"
