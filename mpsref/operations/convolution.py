"""
Convolutions and fully connected layers, with the gradients of their source, weights and biases.

``y[n, r, c, o] = bias[o] + sum of weights[o, ky, kx, i] x[n, r s + first + ky d, ..., i of o's group]``, where a tap
outside the source gives no product.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

import numpy as np

from mpsref import sums
from mpsref.arrays import Elements, Index, Stored, Wide
from mpsref.enums import MPSImageFeatureChannelFormat
from mpsref.errors import ImageError, UnavailableError
from mpsref.image import MPSImage
from mpsref.neuron import forward
from mpsref.neuron.descriptor import MPSNNNeuronDescriptor
from mpsref.neuron.exact import WIDE, Digits, decide, number
from mpsref.neuron.reference import exact_parameters
from mpsref.neuron.stepwise import MODES, Evaluation
from mpsref.operations.base import Operation, Role, Size
from mpsref.operations.padding import PolicyLike
from mpsref.operations.weights import Weights
from mpsref.operations.window import Sliding, WindowSum, flat_index, same_size, size_of
from mpsref.storage import FORMATS, StorageFormat

__all__ = ["Convolution", "ConvolutionGradient", "ConvolutionOperation"]

SINGLE = FORMATS[MPSImageFeatureChannelFormat.float32]


@dataclass(frozen=True)
class ConvolutionOperation(WindowSum):
    """
    Base of a convolution and its gradient.

    Attributes
    ----------
    weights : Weights
        The weights and the window.
    padding : PolicyLike
        The policy.
    is_fully_connected : bool
        Whether the window is as large as the source.
    half_accumulator : bool
        Whether a device may accumulate in half precision.
    """

    kind = "window"
    weights: Weights
    padding: PolicyLike
    is_fully_connected: bool = False
    half_accumulator: bool = False

    @property
    def sliding(self) -> Sliding:  # type: ignore[override]
        """The window."""
        w = self.weights
        return Sliding(w.kernel, w.strides, w.dilations, self.padding)

    def with_weights(self, weights: Weights) -> ConvolutionOperation:
        """The same with other weights."""
        return replace(self, weights=weights)

    def forward_size(self, source: Size) -> Size:
        """The size of the forward result."""
        n, h, w, c = source
        if c != self.weights.inputs:
            raise ImageError(f"the source has {c} channels: the weights read {self.weights.inputs}")
        if self.is_fully_connected and (h, w) != self.weights.kernel:
            rows, columns = self.weights.kernel
            raise ImageError(f"the source is {w}x{h}: a fully connected layer of {columns}x{rows} reads no other size")
        return n, *self.sliding.placed(source).size, self.weights.outputs

    def terms(self, *sources: Size) -> Index:
        w = self.weights
        channels = w.outputs // w.groups if self.makes_gradient else w.values.shape[3]
        return np.asarray(super().terms(*sources) * channels)

    def stepwise(self, f: Any, *sources: Any, function: Callable[[Any], Any] | None = None) -> Any:
        raise NotImplementedError("a sum over a window has no formula of single elements")


@dataclass(frozen=True)
class Convolution(ConvolutionOperation):
    """The forward convolution."""

    roles = (Role.INPUT,)

    def result_size(self, *sources: Size) -> Size:
        return self.forward_size(sources[0])

    def feeding(self, index: Index, *sources: Size) -> tuple[Index, ...]:
        n, y, x, o = np.unravel_index(index, self.result_size(*sources))
        w = self.weights
        read = w.values.shape[3]
        channels = (o // (w.outputs // w.groups) * read)[:, np.newaxis, np.newaxis] + np.arange(read)
        return (flat_index(self.sliding.taps(y, x, sources[0]), n, channels, sources[0]),)

    def factors(self, index: Index, *sources: Size) -> Wide:
        o = index % self.weights.outputs
        return self.weights.values.astype(np.float64).reshape(self.weights.outputs, -1)[o]

    def constant(self, index: Index, *sources: Size) -> Wide:
        bias = self.weights.bias
        return super().constant(index) if bias is None else bias.astype(np.float64)[index % self.weights.outputs]

    def finished(self, value: Decimal, m: Digits) -> Decimal:
        neuron = self.weights.neuron
        if neuron is None or value.is_nan():
            return value
        return neuron.row.exact[0](value, exact_parameters(neuron), m)

    def ideal(self, sources: Sequence[Elements], result: StorageFormat, workers: int) -> Stored:
        (x,) = sources
        w = self.weights
        window = self.sliding.window(size_of(x.stored))
        exact = sums.Convolution(x, w.values.astype(np.float32), w.bias, window, w.groups)
        if w.neuron is None:
            return exact.rounded(result, workers=workers)
        total = self.totals(x.values())
        # How far float64 may be from the exact sums.
        sizes = self.linear(np.abs(x.values()), np.abs(w.values.astype(np.float64)))
        sizes += 0.0 if w.bias is None else np.abs(w.bias.astype(np.float64))
        radius = sizes * ((math.prod(w.values.shape[1:]) + 4) * 2.0**-53)
        return _neuron_of_sums(w.neuron, exact, total, radius, result)

    def totals(self, x: Wide) -> Wide:
        """The sums with biases, before a neuron, in the arithmetic of the source."""
        total = self.linear(x, self.weights.values.astype(x.dtype))
        return np.asarray(total if self.weights.bias is None else total + self.weights.bias.astype(x.dtype))

    def plain(self, sources: Sequence[Any], *, fused: bool = False) -> Any:
        (x,) = sources
        w = self.weights
        total = self.linear(x, w.values.astype(x.dtype), fused=fused)
        if w.bias is not None:
            total = total + w.bias.astype(x.dtype)
        if w.neuron is None:
            return total
        return forward(w.neuron, total, mode="ideal" if x.dtype == np.float64 else _MODES[fused])

    def linear(self, x: Any, weights: Any, *, fused: bool = False) -> Any:
        """The sums without biases, for any numbers as weights; in float64 by matrix products, else term by term."""
        n, h, w, o = self.result_size(size_of(x))
        groups = self.weights.groups
        grouped = x.reshape(*x.shape[:3], groups, -1)
        by_group = weights.reshape(groups, o // groups, *weights.shape[1:])
        out = np.zeros((n, h, w, groups, o // groups), x.dtype)
        for ky, kx, made, read in self.sliding.each_tap(size_of(x)):
            out[made] = _accumulated(out[made], grouped[read], by_group[:, :, ky, kx], fused=fused)
        return out.reshape(n, h, w, o)

    def gradients(self) -> tuple[Operation, ...]:
        if self.weights.neuron is not None:
            raise UnavailableError(
                "a convolution with a fused neuron has no gradient: leave the neuron out of its descriptor, and use a "
                "neuron node"
            )
        return (ConvolutionGradient(self.weights, self.padding, self.is_fully_connected, self.half_accumulator),)

    def text(self, names: Sequence[str], symbol: str) -> str:
        inner = f"weights * {names[0]}" + ("" if self.weights.bias is None else " + bias")
        return inner if self.weights.neuron is None else f"{self.weights.neuron.neuron_type.name}({inner})"


@dataclass(frozen=True)
class ConvolutionGradient(ConvolutionOperation):
    """
    The gradient of the source: each element collects the gradients of the windows that read it.

    Its second source is the forward source, of which the image needs the size, and the state the values.
    """

    roles = (Role.GRADIENT, Role.SIZE)
    makes_gradient = True

    def result_size(self, *sources: Size) -> Size:
        gradient, source = sources
        same_size("the incoming gradient", gradient, self.forward_size(source))
        return source

    def feeding(self, index: Index, *sources: Size) -> tuple[Index, ...]:
        gradient, source = sources
        n, y, x, i = np.unravel_index(index, source)
        w = self.weights
        made, read = w.outputs // w.groups, w.values.shape[3]
        channels = (i // read * made)[:, np.newaxis, np.newaxis] + np.arange(made)
        places = self.sliding.windows(y, x, source)
        return flat_index(places, n, channels, gradient), np.empty((len(index), 0), np.intp)

    def factors(self, index: Index, *sources: Size) -> Wide:
        w, i = self.weights, index % self.weights.inputs
        outputs, rows, columns, read = w.values.shape
        made = outputs // w.groups
        # As [group, channel of the group, ky, kx, output of the group].
        by_input = w.values.astype(np.float64).reshape(w.groups, made, rows, columns, read).transpose(0, 4, 2, 3, 1)
        return np.asarray(by_input.reshape(w.groups * read, -1)[i])

    def ideal(self, sources: Sequence[Elements], result: StorageFormat, workers: int) -> Stored:
        gradient, source = sources[0], size_of(sources[1].stored)
        w, window = self.weights, self.sliding.window(source)
        exact = sums.DataGradient(gradient, w.values.astype(np.float32), window, source[1:3], w.groups)
        return exact.rounded(result, workers=workers)

    def plain(self, sources: Sequence[Any], *, fused: bool = False) -> Any:
        gradient, source = sources
        return self.linear(gradient, size_of(source), self.weights.values.astype(gradient.dtype), fused=fused)

    def linear(self, gradient: Any, source: Size, weights: Any, *, fused: bool = False) -> Any:
        """The sums, for any numbers as weights; in float64 by matrix products, else term by term."""
        groups = self.weights.groups
        grouped = gradient.reshape(*gradient.shape[:3], groups, -1)
        by_group = weights.reshape(groups, -1, *weights.shape[1:]).swapaxes(1, -1)
        out = np.zeros((*source[:3], groups, source[3] // groups), gradient.dtype)
        for ky, kx, made, read in self.sliding.each_tap(source):
            out[read] = _accumulated(out[read], grouped[made], by_group[:, :, ky, kx], fused=fused)
        return out.reshape(source)

    @np.errstate(all="ignore")
    def states(self, sources: Sequence[MPSImage], how: Evaluation, workers: int = 1) -> Mapping[str, Stored]:
        gradient, source = (Elements(image.to_array(), image.storage) for image in sources)
        mode = next(name for name, each in MODES.items() if each is how)
        if mode in ("ideal", "specified"):
            of = self.parameter_gradients(gradient, source)
            return {name: exact.rounded(SINGLE, workers=workers) for name, exact in of.items()}
        g, x = gradient.values().astype(np.float32), source.values().astype(np.float32)
        return {"gradient_for_weights": self.correlated(g, x), "gradient_for_biases": g.sum(axis=(0, 1, 2))}

    def parameter_gradients(
        self, gradient: Elements, source: Elements
    ) -> dict[str, sums.WeightGradient | sums.BiasGradient]:
        """The gradients of weights and biases, summed over the images, as exact sums."""
        window = self.sliding.window(size_of(source.stored))
        weights = sums.WeightGradient(gradient, source, window, self.weights.groups)
        return {"gradient_for_weights": weights, "gradient_for_biases": sums.BiasGradient(gradient)}

    def correlated(self, gradient: Any, x: Any) -> Any:
        """The gradients of the weights, OHWI, in the arithmetic of the sources."""
        groups, (o, rows, columns, read) = self.weights.groups, self.weights.values.shape
        g = gradient.reshape(*gradient.shape[:3], groups, -1)
        grouped = x.reshape(*x.shape[:3], groups, -1)
        out = np.zeros((groups, o // groups, rows, columns, read), gradient.dtype)
        for ky, kx, made, taken in self.sliding.each_tap(size_of(x)):
            out[:, :, ky, kx] = np.einsum("nhwgo,nhwgi->goi", g[made], grouped[taken], optimize=True)
        return out.reshape(self.weights.values.shape)

    def text(self, names: Sequence[str], symbol: str) -> str:
        return f"rotated weights * {names[0]}"


def _neuron_of_sums(
    neuron: MPSNNNeuronDescriptor, exact: sums.Convolution, total: Wide, radius: Wide, result: StorageFormat
) -> Stored:
    """A neuron of exact sums, rounded once: from float64 where that decides, else exactly."""
    with np.errstate(all="ignore"):
        ends = [forward(neuron, total + step) for step in (-radius, 0.0, radius)]
    rounded = [
        result.encode(end * error, np.empty(end.shape, result.dtype)).view(result.bits_dtype)
        for end in ends
        for error in (1 - 2.0**-50, 1 + 2.0**-50)
    ]
    open_ = ~np.logical_and.reduce([bits == rounded[0] for bits in rounded[1:]]) | ~np.isfinite(total)
    for kink in neuron.row.kinks(neuron):
        open_ |= np.abs(total - kink) <= radius
    out = rounded[0].view(result.dtype)
    p = exact_parameters(neuron)
    index = np.flatnonzero(open_)
    for i, value in zip(index, exact.exact(index), strict=True):
        x = number(value) if isinstance(value, float) else WIDE.divide(Decimal(value.numerator), value.denominator)
        out.reshape(-1)[i] = decide(lambda m, x=x: x if x.is_nan() else neuron.row.exact[0](x, p, m), result)  # type: ignore[misc]
    return out


_MODES = {False: "stepwise", True: "stepwise-fma"}


def _accumulated(total: Any, values: Any, weights: Any, *, fused: bool) -> Any:
    """Totals (..., groups, results) and the products of values (..., groups, terms) and (groups, results, terms)."""
    if total.dtype == np.float64:
        groups, terms = values.shape[-2:]
        products = np.moveaxis(values, -2, 0).reshape(groups, -1, terms) @ weights.swapaxes(1, 2)
        return total + np.moveaxis(products.reshape(groups, *values.shape[:-2], weights.shape[1]), 0, -2)
    f = MODES[_MODES[fused]].f  # type: ignore[attr-defined]
    for i in range(values.shape[-1]):
        total = f.fma(values[..., i, np.newaxis], weights[..., i], total)
    return total
