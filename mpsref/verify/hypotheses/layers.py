"""Faults of convolutions, fully connected layers and pooling, and of their gradients: weights, biases and windows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from mpsref.arrays import Elements, Wide
from mpsref.enums import MPSImageEdgeMode
from mpsref.operations import Average, AverageGradient, Convolution, ConvolutionGradient, Maximum, MaximumGradient
from mpsref.operations.convolution import ConvolutionOperation
from mpsref.operations.window import size_of
from mpsref.verify.case import Case
from mpsref.verify.hypotheses.base import MANY, layer_hypothesis
from mpsref.verify.hypotheses.stores import to_half
from mpsref.verify.layer import UNIT, Layer, Variants

GRADIENTS = AverageGradient, MaximumGradient
POOLS = Average, Maximum, *GRADIENTS


def weights_of(layer: Layer) -> Wide:
    """The weights of a convolution."""
    assert layer.weights is not None
    return layer.weights


def _with(layer: Layer, weights: Wide) -> Callable[[], Layer]:
    return partial(replace, layer, weights=weights)


# ---- weights ----


@layer_hypothesis("kernel flipped", "The window of the weights was rotated by 180 degrees.", ConvolutionOperation)
def kernel_flipped(layer: Layer, case: Case) -> Variants:
    w = weights_of(layer)
    if max(w.shape[1:3]) > 1:
        yield "", _with(layer, w[:, ::-1, ::-1])


@layer_hypothesis("kernel mirrored", "The window of the weights was mirrored, or turned by 90 degrees.",
                  ConvolutionOperation)  # fmt: skip
def kernel_mirrored(layer: Layer, case: Case) -> Variants:
    w = weights_of(layer)
    if min(w.shape[1:3]) > 1:
        yield "rows", _with(layer, w[:, ::-1])
        yield "columns", _with(layer, w[:, :, ::-1])
        if w.shape[1] == w.shape[2]:
            yield "turned to the left", _with(layer, np.rot90(w, 1, (1, 2)))
            yield "turned to the right", _with(layer, np.rot90(w, -1, (1, 2)))


@layer_hypothesis("x and y taps exchanged", "The window of the weights was transposed.", ConvolutionOperation)
def taps_exchanged(layer: Layer, case: Case) -> Variants:
    w = weights_of(layer)
    if w.shape[1] == w.shape[2] > 1:
        yield "", _with(layer, w.swapaxes(1, 2))


@layer_hypothesis("weights in another layout", "The weights were read in another order of their axes than they have.",
                  ConvolutionOperation)  # fmt: skip
def another_layout(layer: Layer, case: Case) -> Variants:
    w = weights_of(layer)
    o, height, width, i = w.shape
    flatten = ", the order C, H, W" if getattr(layer.operation, "is_fully_connected", False) else ""
    yield f"OHWI as OIHW{flatten}", _with(layer, w.reshape(o, i, height, width).transpose(0, 2, 3, 1))
    yield f"OIHW as OHWI{flatten}", _with(layer, w.transpose(0, 3, 1, 2).reshape(w.shape))
    yield "OHWI as HWIO", _with(layer, w.reshape(height, width, i, o).transpose(3, 0, 1, 2))
    yield "HWIO as OHWI", _with(layer, w.transpose(1, 2, 3, 0).reshape(w.shape))
    if height != width:
        yield "OHWI as OWHI", _with(layer, w.reshape(o, width, height, i).swapaxes(1, 2))
        yield "OWHI as OHWI", _with(layer, w.swapaxes(1, 2).reshape(w.shape))


@layer_hypothesis(
    "channels not exchanged", "The gradient multiplied by the weights of the forward, not the transposed.",
    ConvolutionGradient,
)  # fmt: skip
def channels_not_exchanged(layer: Layer, case: Case) -> Variants:
    w, operation = weights_of(layer), layer.operation
    assert isinstance(operation, ConvolutionGradient)
    g = operation.weights.groups
    o, height, width, i = w.shape
    if o // g == i > 1:
        yield "", _with(layer, w.reshape(g, i, height, width, i).swapaxes(1, 4).reshape(w.shape))


@layer_hypothesis("channels reversed", "The source channels were read in the opposite order.")
def channels_reversed(layer: Layer, case: Case) -> Variants:
    if layer.weights is not None:
        if layer.weights.shape[3] > 1:
            yield "", _with(layer, layer.weights[..., ::-1])
    elif isinstance(layer.operation, Maximum | Average):
        yield "", partial(replace, layer, sources=(layer.sources[0][..., ::-1],))


@layer_hypothesis("another channel's weights", "The weights belong to the next channel, of the source or the result.",
                  ConvolutionOperation)  # fmt: skip
def weights_of_next(layer: Layer, case: Case) -> Variants:
    w = weights_of(layer)
    for axis, name in ((3, "source"), (0, "result")):
        if w.shape[axis] > 1:
            for step in (-1, 1):
                place = "next" if step < 0 else "one before"
                yield f"of the {place}, of the {name}", _with(layer, np.roll(w, step, axis=axis))
    if w.shape[0] > 1:
        yield "those of the first result for all", _with(layer, np.broadcast_to(w[:1], w.shape))


@layer_hypothesis("last slice of channels dropped", "The last channels, which fill no slice of four, were not read.",
                  Convolution)  # fmt: skip
def last_slice_dropped(layer: Layer, case: Case) -> Variants:
    w = weights_of(layer)
    if w.shape[3] > 4:
        yield "", _with(layer, _without(w, 3, slice((w.shape[3] - 1) // 4 * 4, None)))


def _without(w: Wide, axis: int, part: slice) -> Wide:
    kept = w.copy()
    kept[(slice(None),) * axis + (part,)] = 0
    return kept


@layer_hypothesis("taps left out", "A loop ends too early or begins too late: a row, column or channel is not read.",
                  ConvolutionOperation)  # fmt: skip
def taps_left_out(layer: Layer, case: Case) -> Variants:
    w = weights_of(layer)
    axes = [(1, "row of the window"), (2, "column of the window"), (3, "channel")]
    if isinstance(layer.operation, ConvolutionGradient):
        axes = [*axes[:2], (0, "channel of the incoming gradient")]
    for axis, name in axes:
        if w.shape[axis] > 1:
            yield f"the last {name}", _with(layer, _without(w, axis, slice(-1, None)))
            yield f"the first {name}", _with(layer, _without(w, axis, slice(1)))
        if w.shape[axis] > 2:
            yield f"all but the first {name}", _with(layer, _without(w, axis, slice(1, None)))


@layer_hypothesis("groups ignored or rotated", "A group of results read the channels of another group.",
                  ConvolutionOperation)  # fmt: skip
def groups_rotated(layer: Layer, case: Case) -> Variants:
    operation: Any = layer.operation
    groups = operation.weights.groups
    if groups == 1:
        return
    first, *rest = layer.sources

    def other(order: Callable[[Wide], Wide]) -> Layer:
        x = order(first.reshape(*first.shape[:3], groups, -1))
        return replace(layer, sources=(x.reshape(first.shape), *rest))

    yield "all read the first", partial(other, lambda x: np.broadcast_to(x[..., :1, :], x.shape))
    yield "rotated up", partial(other, lambda x: np.roll(x, 1, axis=3))
    yield "rotated down", partial(other, lambda x: np.roll(x, -1, axis=3))
    w = weights_of(layer)
    for detail, step in (("the weights of the next one", -1), ("the weights of the one before", 1)):
        yield detail, _with(layer, np.roll(w, step * len(w) // groups, axis=0))


@layer_hypothesis("weights multiplied", "The weights, without the biases, are multiplied by a constant.", Convolution,
                  fitted=True)  # fmt: skip
def weights_scaled(layer: Layer, case: Case) -> Variants:
    if layer.bias is None or layer.neuron is not None or layer.follow is not None:
        return
    got = Elements(case.got, case.result).values() - layer.bias
    if (factor := _factor(got, layer.sums(), case)) is not None:
        yield f"by {factor:.6g}", partial(replace, layer, weights=factor * weights_of(layer))


def ratios(got: Wide, base: Wide, case: Case) -> Wide:
    """Those of elements out of bounds that are finite."""
    with np.errstate(all="ignore"):
        ratio = (got / base).reshape(-1)[case.bad_sample]
    return np.asarray(ratio[np.isfinite(ratio)])


def _factor(got: Wide, base: Wide, case: Case) -> float | None:
    """By what most elements out of bounds were multiplied."""
    ratio = ratios(got, base, case)
    middle = float(np.median(ratio)) if ratio.size >= MANY else 1.0
    return middle if middle not in (0.0, 1.0) else None


# ---- biases ----


def _biased(layer: Layer, change: Callable[[Wide], Wide]) -> Callable[[], Layer]:
    assert layer.bias is not None
    return partial(replace, layer, bias=change(layer.bias))


@layer_hypothesis("bias forgotten", "The bias was not added.", Convolution)
def bias_forgotten(layer: Layer, case: Case) -> Variants:
    if layer.bias is not None:
        yield "", _biased(layer, lambda b: 0 * b)


@layer_hypothesis("bias added twice", "The bias was added twice.", Convolution)
def bias_doubled(layer: Layer, case: Case) -> Variants:
    if layer.bias is not None:
        yield "", _biased(layer, lambda b: 2 * b)


@layer_hypothesis("another bias", "Another number was added for the bias.", Convolution)
def another_bias(layer: Layer, case: Case) -> Variants:
    if layer.bias is None:
        return
    yield "subtracted", _biased(layer, np.negative)
    yield "rounded to half", _biased(layer, to_half)
    if layer.bias.size > 1:
        yield "of the next channel", _biased(layer, lambda b: np.roll(b, -1))
        yield "of the channel before", _biased(layer, lambda b: np.roll(b, 1))
        yield "of the channels in the opposite order", _biased(layer, lambda b: b[::-1])
        yield "of the first channel", _biased(layer, lambda b: np.full(b.shape, b[0]))
    if layer.terms.max() > 1:
        yield "once for each tap", _biased(layer, lambda b: float(np.prod(weights_of(layer).shape[1:3])) * b)


@layer_hypothesis("bias added after the neuron", "The neuron was applied to the sum, and then the bias was added.",
                  Convolution)  # fmt: skip
def bias_after_neuron(layer: Layer, case: Case) -> Variants:
    if layer.bias is not None and layer.neuron is not None:
        bias = layer.bias
        yield "", partial(replace, layer, bias=None, finish=lambda total: layer.activated(total) + bias, added=bias)


@layer_hypothesis("neuron forgotten", "The fused neuron was not applied.", Convolution)
def neuron_forgotten(layer: Layer, case: Case) -> Variants:
    if layer.neuron is not None:
        yield "", partial(replace, layer, finish=lambda total: total)


# ---- windows ----


@layer_hypothesis("window in another place", "The first window begins a pixel off: an odd pixel on the other side.")
def window_moved(layer: Layer, case: Case) -> Variants:
    yield from moves_of(layer)


def moves_of(layer: Layer) -> Variants:
    """The layer with windows one or two pixels off."""
    strides = layer.operation.sliding.strides
    if getattr(layer.operation, "is_fully_connected", False):
        return
    for dy in range(-strides[0], strides[0] + 1):
        for dx in range(-strides[1], strides[1] + 1):
            if (dy, dx) != (0, 0) and max(abs(dy), abs(dx)) <= 2:
                yield f"by {dy} in y and {dx} in x", partial(layer.windowed, (dy, dx))


@layer_hypothesis("dilation ignored", "The taps are next to each other, or the window is centred as if they were.",
                  ConvolutionOperation)  # fmt: skip
def dilation_ignored(layer: Layer, case: Case) -> Variants:
    sliding = layer.operation.sliding
    if max(sliding.dilations) > 1:
        y, x = ((k - 1) * (d - 1) // 2 for k, d in zip(sliding.kernel, sliding.dilations, strict=True))
        yield "ignored", partial(layer.windowed, (y, x), dilations=(1, 1))
        yield "from the same first tap on", partial(layer.windowed, dilations=(1, 1))
        yield "centred by the taps", partial(layer.windowed, (y, x))


@layer_hypothesis("another stride or dilation", "Strides or dilations of x and y are exchanged, or others are used.")
def another_stride(layer: Layer, case: Case) -> Variants:
    sliding = layer.operation.sliding
    if getattr(layer.operation, "is_fully_connected", False):
        return
    pairs = {"strides": sliding.strides, "dilations": sliding.dilations}
    for name, own in pairs.items():
        if name == "dilations" and layer.weights is None:
            continue
        others = {f"{name} of x and y exchanged": own[::-1]}
        others |= {f"{name} of {k}": (k, k) for k in (1, 2, 3)}
        others[f"{name} one more"] = own[0] + 1, own[1] + 1
        for detail, pair in others.items():
            if pair != own and not (name == "dilations" and pair == (1, 1)):
                yield detail, partial(layer.windowed, **{name: pair})
                if name == "dilations":
                    more = [(k - 1) * (o - d) // 2 for k, o, d in zip(sliding.kernel, own, pair, strict=True)]
                    yield (
                        f"{detail}, about the same centre",
                        partial(layer.windowed, (more[0], more[1]), dilations=pair),
                    )


@layer_hypothesis("clamped edge", "Taps outside of the source read the nearest pixel, not nothing.", Convolution)
def edge_clamped(layer: Layer, case: Case) -> Variants:
    yield from _edges(layer, {"": "edge"})


@layer_hypothesis("mirrored or wrapped edge", "Taps outside of the source read what is inside, mirrored or wrapped.",
                  Convolution)  # fmt: skip
def edge_mirrored(layer: Layer, case: Case) -> Variants:
    yield from _edges(layer, {"mirrored": "reflect", "mirrored, the edge twice": "symmetric", "wrapped": "wrap"})


def _edges(layer: Layer, modes: dict[str, str]) -> Variants:
    if getattr(layer.operation, "is_fully_connected", False):
        return
    if any(map(any, layer.overhang)):
        for detail, mode in modes.items():
            yield detail, partial(layer.padded, mode)


@layer_hypothesis(
    "a source in another order", "What is read is mirrored, transposed, or of another image of the batch."
)
def source_moved(layer: Layer, case: Case) -> Variants:
    x, *rest = layer.sources

    def moved(change: Callable[[Wide], Wide]) -> Layer:
        return replace(layer, sources=(change(x).reshape(x.shape), *rest))

    n, h, w, c = x.shape
    yield "rows from bottom to top", partial(moved, lambda x: x[:, ::-1])
    yield "columns from right to left", partial(moved, lambda x: x[:, :, ::-1])
    if h > 1 and w > 1:
        yield "turned by 180 degrees", partial(moved, lambda x: x[:, ::-1, ::-1])
        yield "column by column", partial(moved, lambda x: x.swapaxes(1, 2))
    if c > 1 and h * w > 1:
        yield "channel by channel", partial(moved, lambda x: x.transpose(0, 3, 1, 2))
        yield "pixel by pixel", partial(moved, lambda x: x.reshape(n, c, h, w).transpose(0, 2, 3, 1))
    if c > 2:
        yield "red and blue exchanged", partial(moved, lambda x: x[..., [2, 1, 0, *range(3, c)]])
    if n > 1:
        yield "the first image for all", partial(moved, lambda x: np.broadcast_to(x[:1], x.shape))
        yield "the next image", partial(moved, lambda x: np.roll(x, -1, axis=0))
        yield "the image before", partial(moved, lambda x: np.roll(x, 1, axis=0))


# ---- pooling ----


@layer_hypothesis("average over the full window", "The sum was divided by all taps of the window, inside or not.",
                  Average, AverageGradient)  # fmt: skip
def average_full_window(layer: Layer, case: Case) -> Variants:
    yield "", partial(layer.windowed, edge_mode=MPSImageEdgeMode.zero)


@layer_hypothesis("average over the count", "The sum was divided by the number of taps inside of the source.", Average,
                  AverageGradient)  # fmt: skip
def average_count(layer: Layer, case: Case) -> Variants:
    yield "", partial(layer.windowed, edge_mode=MPSImageEdgeMode.clamp)


@layer_hypothesis("sum instead of average", "The sum of each window, or its gradient, was not divided.", Average,
                  AverageGradient)  # fmt: skip
def not_divided(layer: Layer, case: Case) -> Variants:
    yield "", _undivided(layer)


def _undivided(layer: Layer) -> Callable[[], Layer]:
    operation: Any = layer.operation

    def undivided() -> Layer:
        first, *rest = layer.sources
        sums, size = (
            operation.summed(each) if isinstance(operation, Average) else operation.spread(each, size_of(rest[0]))
            for each in (first, np.abs(first))
        )
        return replace(layer, values=(sums, layer.terms * UNIT * size))

    return undivided


@layer_hypothesis("another kind of pooling",
                  "The mean, the sum or the minimum was taken for the maximum, or the reverse.", *POOLS)  # fmt: skip
def another_pooling(layer: Layer, case: Case) -> Variants:
    sliding = layer.operation.sliding
    kinds: dict[type, tuple[str, Any]] = {
        Average: ("the maximum", Maximum), Maximum: ("the mean", Average),
        AverageGradient: ("the maximum", MaximumGradient), MaximumGradient: ("the mean", AverageGradient),
    }  # fmt: skip
    detail, other = kinds[type(layer.operation)]
    yield detail, partial(replace, layer, operation=other(sliding))
    if isinstance(layer.operation, MaximumGradient):
        yield "the sum", _undivided(replace(layer, operation=AverageGradient(sliding)))
    if isinstance(layer.operation, Maximum):
        x = layer.sources[0]

        def least() -> Layer:
            return replace(layer, values=(-np.asarray(layer.operation.plain([-x])), 0.0))

        yield "the minimum", least
        yield "the largest magnitude", partial(replace, layer, sources=(np.abs(x),))
    elif isinstance(layer.operation, MaximumGradient):
        gradient, x = layer.sources
        yield "the minimum", partial(replace, layer, sources=(gradient, -x))
        yield "the largest magnitude", partial(replace, layer, sources=(gradient, np.abs(x)))


@layer_hypothesis("another window size", "The window is larger or smaller, or its width and height are exchanged.",
                  *POOLS)  # fmt: skip
def another_size(layer: Layer, case: Case) -> Variants:
    height, width = layer.operation.sliding.kernel
    sizes = {"width and height exchanged": (width, height), "a row less": (height - 1, width), "1 x 1": (1, 1),
             "a column less": (height, width - 1), "a row and a column less": (height - 1, width - 1),
             "a row and a column more": (height + 1, width + 1)}  # fmt: skip
    for detail, kernel in sizes.items():
        if kernel != (height, width) and min(kernel) > 0:
            # From the same first tap on, or about the same centre.
            yield detail, partial(layer.windowed, kernel=kernel)
            more = (height - kernel[0]) // 2, (width - kernel[1]) // 2
            if any(more):
                yield f"{detail}, about the same centre", partial(layer.windowed, more, kernel=kernel)
            if (other := _by_policy(layer, kernel)) is not None:
                yield f"{detail}, where the padding places it", other


def _by_policy(layer: Layer, kernel: tuple[int, int]) -> Callable[[], Layer] | None:
    """The layer with a window of another size where its padding policy places it, if the result is as large."""
    operation: Any = layer.operation
    source = size_of(layer.sources[-1])
    sliding = replace(operation.sliding, kernel=kernel)
    placed, own = sliding.placed(source), operation.sliding.placed(source)
    same = placed.size == own.size and placed.edge_mode == own.edge_mode
    return partial(replace, layer, operation=replace(operation, sliding=sliding)) if same else None


@layer_hypothesis("border of 0", "Taps outside of the source were zeros, which win over negative numbers.", Maximum,
                  MaximumGradient)  # fmt: skip
def border_zero(layer: Layer, case: Case) -> Variants:
    yield "", partial(layer.windowed, edge_mode=MPSImageEdgeMode.zero)


@layer_hypothesis("gradient to every maximum", "Where a window has several largest elements, each got the gradient.",
                  MaximumGradient)  # fmt: skip
def gradient_to_all(layer: Layer, case: Case) -> Variants:
    operation = layer.operation
    gradient, x = layer.sources
    source = size_of(x)

    def shared(*, by_all: bool) -> Layer:
        largest = Maximum(operation.sliding).plain([x])
        count = np.zeros(largest.shape)
        for _, _, made, read in operation.sliding.each_tap(source):
            count[made] += x[read] == largest[made]
        share = gradient / np.maximum(count, 1) if by_all else gradient
        out = np.zeros(source)
        for _, _, made, read in operation.sliding.each_tap(source):
            out[read] += np.where(x[read] == largest[made], share[made], 0)
        return replace(layer, values=(out, 4 * UNIT * np.abs(out)))

    yield "the whole", partial(shared, by_all=False)
    yield "a share", partial(shared, by_all=True)


@layer_hypothesis("overlaps overwritten", "Where windows overlap, the last one was stored instead of the sum.",
                  *GRADIENTS)  # fmt: skip
def overlaps_overwritten(layer: Layer, case: Case) -> Variants:
    operation: Any = layer.operation
    gradient, x = layer.sources
    size = size_of(x)

    def overwritten(order: int) -> Layer:
        is_mean = isinstance(operation, AverageGradient)
        share = operation.shares(gradient, size) if is_mean else gradient
        chosen = None if is_mean else operation.places(x).reshape(gradient.shape)
        flat = np.arange(x.size).reshape(x.shape)
        out = np.zeros(size)
        for _, _, made, read in list(operation.sliding.each_tap(size))[::order]:
            taken = np.ones(out[read].shape, np.bool_) if chosen is None else chosen[made] == flat[read]
            out[read] = np.where(taken, share[made], out[read])
        return replace(layer, values=(out, 4 * UNIT * np.abs(out)))

    yield "the last", partial(overwritten, -1)
    yield "the first", partial(overwritten, 1)
