"""
A layer of a case: what its windows give, and what they would give with other weights, sources or windows.

Whole images are computed at once, in float64, with the bound of any order of float32 sums. The hypotheses are in
`mpsref.verify.hypotheses.layers` and `mpsref.verify.hypotheses.states`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np

from mpsref.arrays import Index, Wide, flat
from mpsref.neuron import forward
from mpsref.neuron.descriptor import MPSNNNeuronDescriptor
from mpsref.operations import Convolution, ConvolutionGradient, FixedPadding, Maximum
from mpsref.operations.convolution import ConvolutionOperation
from mpsref.operations.weights import Weights
from mpsref.operations.window import Sliding, Windowed, size_of

__all__ = ["HALF_UNIT", "UNIT", "Given", "Layer", "StateLayer", "Variant", "Variants"]

UNIT, HALF_UNIT = 2.0**-24, 2.0**-11
FEW_UNITS = 4 * UNIT

SOME = 16
"""One element by itself takes as long as so many of all."""

PRODUCTS = 2_000_000
"""Computed at once."""


@dataclass(frozen=True, eq=False)
class Layer:
    """
    A convolution, a fully connected layer, a pooling node, or the gradient of one; also such a layer with a fault.

    Attributes
    ----------
    operation : Windowed
        What the node does.
    sources : tuple of ndarray
        What it reads, as float64, each of shape (N, H, W, C).
    name : str
        Its result image, if other nodes are between that and the last image.
    follow : callable, optional
        What those make of its result.
    weights, bias : ndarray of float64, optional
        Those that it has instead of the operation's; a bias of None is that of the operation.
    neuron : MPSNNNeuronDescriptor or None
        Its fused neuron.
    finish : callable, optional
        What becomes of the sums instead of the fused neuron; monotone.
    added : ndarray or float
        What is added to them after that.
    values : tuple of two arrays, optional
        The sums, and how far those of another order may be from them, where they cannot be had in another way.
    widened : float
        By how much more than in float32 those may be.
    """

    operation: Windowed
    sources: tuple[Wide, ...]
    name: str = ""
    follow: Callable[[Wide], Wide] | None = None
    weights: Wide | None = None
    bias: Wide | None = None
    neuron: MPSNNNeuronDescriptor | None = None
    finish: Callable[[Wide], Wide] | None = None
    added: Wide | float = 0.0
    values: tuple[Wide, Wide | float] | None = None
    widened: float = 1.0

    @classmethod
    def of(cls, operation: Windowed, sources: tuple[Wide, ...], **options: Any) -> Layer:
        """The layer without a fault."""
        if not isinstance(operation, ConvolutionOperation):
            return cls(operation, sources, **options)
        weights, bias, neuron = operation.weights.values.astype(np.float64), None, None
        if isinstance(operation, Convolution):
            neuron = operation.weights.neuron
            bias = None if operation.weights.bias is None else operation.weights.bias.astype(np.float64)
        return cls(operation, sources, weights=weights, bias=bias, neuron=neuron, **options)

    # ---- what it gives ----

    @property
    def terms(self) -> Index:
        """How many numbers are added up for each element."""
        return np.asarray(self.operation.terms(*map(size_of, self.sources)))

    def sums(self, sources: tuple[Wide, ...] | None = None, weights: Wide | None = None) -> Wide:
        """The sums, or maxima, without a bias; default: of what it has."""
        operation: Any = self.operation
        first, *rest = self.sources if sources is None else sources
        weights = self.weights if weights is None else weights
        if isinstance(operation, Convolution):
            return np.asarray(operation.linear(first, weights))
        if isinstance(operation, ConvolutionGradient):
            return np.asarray(operation.linear(first, size_of(rest[0]), weights))
        return np.asarray(operation.plain([first, *rest]))

    def sizes(self) -> Wide:
        """The sums of magnitudes."""
        first, *rest = self.sources
        size = self.sums((np.abs(first), *rest), None if self.weights is None else np.abs(self.weights))
        return size if self.bias is None else size + np.abs(self.bias)

    @cached_property
    def value(self) -> Wide:
        """What is before a fused neuron."""
        if self.values is not None:
            return self.values[0]
        total = self.sums()
        return total if self.bias is None else total + self.bias

    @cached_property
    def radius(self) -> Wide | float:
        """How far sums of another order may be from that."""
        if self.values is not None:
            return self.values[1] * self.widened
        if isinstance(self.operation, Maximum):
            return 0.0
        # A division comes after the sum.
        more = 1 if self.weights is not None else 12
        return np.asarray((self.terms + more) * (UNIT * self.widened) * self.sizes())

    def at(self, index: Index) -> tuple[Wide, Wide]:
        """`value` and `radius` for some elements of a convolution or its gradient, without computing all."""
        operation: Any = self.operation
        weights = operation.weights
        if self.weights is not None:
            weights = Weights(weights.descriptor(), self.weights, weights.bias)
        operation = operation.with_weights(weights)
        sizes = [size_of(source) for source in self.sources]
        value, size = np.empty(index.size), np.empty(index.size)
        count = max(1, PRODUCTS // int(self.terms.max()))
        for start in range(0, index.size, count):
            part = slice(start, start + count)
            read, *_ = operation.feeding(index[part], *sizes)
            products = self.sources[0].reshape(-1)[read] * operation.factors(index[part], *sizes)
            products[read < 0] = 0
            value[part], size[part] = products.sum(axis=1), np.abs(products).sum(axis=1)
        shape = operation.result_size(*sizes)
        if self.bias is not None:
            bias = self.bias[index % shape[3]]
            value, size = value + bias, size + np.abs(bias)
        _, y, x, _ = np.unravel_index(index, shape)
        return value, (self.terms[y, x, 0] + 1) * (UNIT * self.widened) * size

    def activated(self, total: Wide) -> Wide:
        """What the fused neuron makes of sums."""
        return total if self.neuron is None else forward(self.neuron, total)

    # ---- what it would give ----

    def windowed(self, first: tuple[int, int] = (0, 0), **options: Any) -> Layer:
        """
        The layer with a result as large as it is, but windows that begin elsewhere, by so much in y and x.

        `options` are the other attributes of `Sliding`.
        """
        operation: Any = self.operation
        sliding: Sliding = operation.sliding
        placed = sliding.placed(size_of(self.sources[-1]))
        sliding = replace(sliding, **{"edge_mode": placed.edge_mode} | options)
        half = [((k - 1) * d + 1) // 2 for k, d in zip(sliding.kernel, sliding.dilations, strict=True)]
        y, x = (p + h + more for p, h, more in zip(placed.first, half, first, strict=True))
        padding = FixedPadding(placed.size[1], placed.size[0], x, y)
        if not isinstance(operation, ConvolutionOperation):
            return replace(self, operation=replace(operation, sliding=replace(sliding, padding=padding)))
        d = operation.weights.descriptor()
        (d.dilation_rate_y, d.dilation_rate_x), (d.stride_in_pixels_y, d.stride_in_pixels_x) = (
            sliding.dilations, sliding.strides,
        )  # fmt: skip
        weights = Weights(d, operation.weights.values, operation.weights.bias)
        return replace(self, operation=replace(operation, padding=padding, weights=weights))

    @property
    def overhang(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """How far windows reach beyond the source: above and below, to the left and to the right."""
        sliding, source = self.operation.sliding, size_of(self.sources[0])
        placed = sliding.placed(source)
        rows, columns = (
            (max(-f, 0), max(f + (d - 1) * s + (k - 1) * e + 1 - n, 0))
            for n, f, d, k, s, e in zip(
                source[1:3], placed.first, placed.size, sliding.kernel, sliding.strides, sliding.dilations, strict=True
            )
        )
        return rows, columns

    def padded(self, mode: Any) -> Layer:
        """A convolution that reads more than its source, as `numpy.pad` fills it."""
        rows, columns = self.overhang
        padded = np.pad(self.sources[0], ((0, 0), rows, columns, (0, 0)), mode=mode)
        return replace(self.windowed((rows[0], columns[0])), sources=(padded,))


@dataclass(frozen=True, eq=False)
class StateLayer(Layer):
    """The gradient of weights, or of biases: sums over the images of incoming gradient and forward source."""

    is_bias: bool = False

    def sums(self, sources: tuple[Wide, ...] | None = None, weights: Wide | None = None) -> Wide:  # noqa: D102
        operation: Any = self.operation
        gradient, x = self.sources if sources is None else sources
        if self.is_bias:
            return np.asarray(gradient.sum(axis=(0, 1, 2))).reshape(1, 1, 1, -1)
        return np.asarray(operation.correlated(gradient, x))

    def sizes(self) -> Wide:  # noqa: D102
        return self.sums((np.abs(self.sources[0]), np.abs(self.sources[1])))

    @property
    def terms(self) -> Index:  # noqa: D102
        return np.asarray(np.prod(self.sources[0].shape[:3]))


Variant: TypeAlias = Callable[[], Layer]
Variants: TypeAlias = Iterator[tuple[str, Variant]]
"""Ways in which a fault can happen: a detail, and the layer, which is made only when it is needed."""


class Given:
    """
    The elements that a layer gives at the last image, before they are stored.

    Parameters
    ----------
    make : callable
        The layer.
    """

    def __init__(self, make: Variant) -> None:
        self._make = make
        self._layer: Layer | None = None
        self._elements: dict[int, Wide] = {}

    @property
    def layer(self) -> Layer:
        """The layer."""
        if self._layer is None:
            self._layer = self._make()
        return self._layer

    @property
    def is_finished(self) -> bool:
        """Whether the fused neuron, or what is there instead, is included; else they are the sums before it."""
        return self.layer.follow is not None or self.layer.finish is not None

    @property
    def is_wide(self) -> bool:
        """Whether it explains more than what is near."""
        return self.layer.values is not None or self.layer.widened != 1

    def at(self, index: Index, end: int = 0) -> Wide:
        """The elements at flat indices; the least, for an end of -1, or the greatest, for 1, of any order of sums."""
        if self._is_cheaper_alone(index):
            with np.errstate(all="ignore"):
                value, radius = self.layer.at(index)
                return value + end * radius if end else value
        if end not in self._elements:
            with np.errstate(all="ignore"):
                self._elements[end] = self._whole(end)
        return self._elements[end][index]

    def _is_cheaper_alone(self, index: Index) -> bool:
        layer = self.layer
        if self._elements or self.is_finished or layer.values is not None or layer.weights is None:
            return False
        size = int(np.prod(layer.operation.result_size(*map(size_of, layer.sources))))
        return not isinstance(layer, StateLayer) and SOME * index.size <= size

    def _whole(self, end: int) -> Wide:
        layer = self.layer
        total = layer.value
        if end:
            total = total + end * layer.radius
        if self.is_finished and (layer.finish or layer.neuron):
            total = (layer.activated if layer.finish is None else layer.finish)(total)
            # What comes after the sum has roundings of its own.
            total = total + end * FEW_UNITS * (np.abs(total) + np.abs(layer.added))
        return flat(total if layer.follow is None else layer.follow(total))

    def release(self) -> None:
        """Forget what can be made again."""
        self._layer = None
        self._elements.clear()
