"""Faults of convolutions, fully connected layers and pooling, and of their gradients; the most specific first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from mpsref.arrays import Index, Wide, meaning
from mpsref.enums import MPSImageEdgeMode
from mpsref.neuron import forward
from mpsref.operations import (
    Average,
    AverageGradient,
    Convolution,
    ConvolutionGradient,
    FixedPadding,
    Maximum,
    MaximumGradient,
)
from mpsref.operations.convolution import ConvolutionOperation
from mpsref.operations.weights import Weights
from mpsref.operations.window import Sliding, size_of
from mpsref.verify.layer_faults import Guess, LayerCase, layer_hypothesis

__all__ = ["LAYER_HYPOTHESES", "PRECISIONS", "UNIT", "displaced", "displacements", "shortened"]

UNIT, HALF_UNIT = 2.0**-24, 2.0**-11
RELATED = 0.5
"""See `accumulated_in_half`."""
LARGEST_SINGLE, LARGEST_HALF = (float(np.finfo(dtype).max) for dtype in (np.float32, np.float16))


# ---- what an operation gives with other numbers ----


def _terms(case: LayerCase, operation: Any = None, sources: Any = None) -> Index:
    operation = case.operation if operation is None else operation
    return np.asarray(operation.terms(*map(size_of, case.sources if sources is None else sources)))


def _sums(operation: Any, sources: tuple[Wide, ...], weights: Wide) -> Wide:
    """The sums of a convolution or its gradient with some weights, without a bias."""
    if isinstance(operation, Convolution):
        return np.asarray(operation.linear(sources[0], weights))
    return np.asarray(operation.linear(sources[0], size_of(sources[1]), weights))


def _bias(operation: Any) -> Wide:
    bias = operation.weights.bias if isinstance(operation, Convolution) else None
    return np.zeros(1) if bias is None else bias.astype(np.float64)


def _activated(operation: Any, value: Wide) -> Wide:
    neuron = operation.weights.neuron if isinstance(operation, Convolution) else None
    return value if neuron is None else forward(neuron, value)


def _guess(
    case: LayerCase, detail: str, operation: Any = None, weights: Wide | None = None, sources: Any = None
) -> Guess:
    """What a convolution or its gradient gives with another window, other weights or other sources."""
    operation = case.operation if operation is None else operation
    sources = case.sources if sources is None else sources
    weights = operation.weights.values.astype(np.float64) if weights is None else weights
    bias = _bias(operation)
    value = _sums(operation, sources, weights) + bias
    sizes = _sums(operation, tuple(map(np.abs, sources)), np.abs(weights)) + np.abs(bias)
    return Guess(detail, value, (_terms(case, operation, sources) + 1) * UNIT * sizes, partial(_activated, operation))


def _weights(case: LayerCase) -> Wide | None:
    """The weights of a convolution or its gradient; None for another layer."""
    operation = case.operation
    return operation.weights.values.astype(np.float64) if isinstance(operation, ConvolutionOperation) else None


def displaced(case: LayerCase, dy: int, dx: int, dilations: tuple[int, int] | None = None) -> Any:
    """The operation with its first window somewhere else."""
    operation: Any = case.operation
    source = size_of(case.sources[-1])
    sliding: Sliding = operation.sliding
    placed = sliding.placed(source)
    dilations = sliding.dilations if dilations is None else dilations
    half = [((k - 1) * d + 1) // 2 for k, d in zip(sliding.kernel, dilations, strict=True)]
    padding = FixedPadding(
        placed.size[1], placed.size[0], placed.first[1] + half[1] + dx, placed.first[0] + half[0] + dy
    )
    if isinstance(operation, ConvolutionOperation):
        return replace(operation, padding=padding, weights=_dilated(operation.weights, dilations))
    return replace(operation, sliding=replace(sliding, padding=padding, edge_mode=placed.edge_mode))


def _dilated(weights: Weights, dilations: tuple[int, int]) -> Weights:
    d = weights.descriptor()
    d.dilation_rate_y, d.dilation_rate_x = dilations
    return Weights(d, weights.values, weights.bias)


# ---- precision ----


@layer_hypothesis(
    "bias added after the sum was stored in half", "The sum was rounded to half, then the bias added and rounded again."
)
def bias_after_half_store(case: LayerCase) -> Iterator[Guess]:
    operation = case.operation
    if isinstance(operation, Convolution) and operation.weights.bias is not None and not case.result.unorm_max:
        plain, bias = _sums(operation, case.sources, operation.weights.values.astype(np.float64)), _bias(operation)
        sizes = _sums(operation, (np.abs(case.sources[0]),), np.abs(operation.weights.values.astype(np.float64)))

        def finish(total: Wide) -> Wide:
            return _activated(operation, total.astype(np.float16).astype(np.float64) + bias)

        yield Guess("", plain, (_terms(case) + 1) * UNIT * sizes, finish)


def _overflowed(case: LayerCase, guess: Guess, largest: float) -> Guess | None:
    """A guess with what overflows leave, where the device has that and partial sums may be so large."""
    operation: Any = case.operation
    size, *rest = np.abs(case.sources[0]), *case.sources[1:]
    if isinstance(operation, ConvolutionOperation):
        weights = np.abs(operation.weights.values.astype(np.float64))
        peak = _sums(operation, (size, *rest), weights) + np.abs(_bias(operation))
    else:
        peak = operation.summed(size) if isinstance(operation, Average) else operation.spread(size, size_of(rest[0]))
    if case.final is not None or not (peak > largest).any():
        return None
    value, radius = guess.value.copy(), np.broadcast_to(guess.radius, guess.value.shape).copy()
    for left in (np.inf, -np.inf, np.nan):
        given = case.given(replace(guess, value=np.full(value.shape, left)))
        like = (case.places(case.got) == case.places(given)) & (peak > largest)
        value[like], radius[like] = left, 0.0
    return replace(guess, value=value, radius=radius)


@layer_hypothesis(
    "a partial sum overflows", "A partial sum was beyond the largest number of the accumulator; the whole sum is not."
)
def partial_sum_overflows(case: LayerCase) -> Iterator[Guess]:
    if isinstance(case.operation, Maximum | MaximumGradient):
        return
    guess = _of(case, "", case.operation)
    if getattr(case.operation, "half_accumulator", False):
        guess = replace(guess, radius=guess.radius * (HALF_UNIT / UNIT))
        other = _overflowed(case, guess, LARGEST_HALF)
    else:
        other = _overflowed(case, guess, LARGEST_SINGLE)
    if other is not None:
        yield other


@layer_hypothesis(
    "each quotient stored in half", "The incoming gradients were divided, stored in half, and then added."
)
def quotients_in_half(case: LayerCase) -> Iterator[Guess]:
    operation = case.operation
    if isinstance(operation, AverageGradient):
        gradient, source = case.sources
        shares = operation.shares(gradient, size_of(source)).astype(np.float16).astype(np.float64)
        sizes = operation.spread(np.abs(shares), size_of(source))
        yield Guess("", operation.spread(shares, size_of(source)), _terms(case) * UNIT * sizes)


def shortened(x: Wide, bits: int, *, truncated: bool) -> Wide:
    """Float32 with so few bits behind the point, to nearest even or cut."""
    code = x.astype(np.float32).view(np.uint32).astype(np.uint64)
    drop = np.uint64(23 - bits)
    if not truncated:
        code += ((code >> drop) & np.uint64(1)) + (np.uint64(1) << (drop - np.uint64(1))) - np.uint64(1)
    code = (code >> drop) << drop
    values = (code & np.uint64(0xFFFFFFFF)).astype(np.uint32).view(np.float32).astype(np.float64)
    return np.where(np.isfinite(x), values, x)


def _inputs_rounded(case: LayerCase, bits: int) -> Iterator[Guess]:
    weights = _weights(case)
    if weights is None:
        return
    for truncated in (False, True):
        sources = (shortened(case.sources[0], bits, truncated=truncated), *case.sources[1:])
        short = shortened(weights, bits, truncated=truncated)
        if not (np.array_equal(sources[0], case.sources[0], equal_nan=True) and np.array_equal(short, weights)):
            yield _guess(case, "truncated" if truncated else "to nearest", None, short, sources)


@layer_hypothesis("inputs rounded to TF32", "Source and weights were rounded to 10 bits behind the point.")
def inputs_in_tf32(case: LayerCase) -> Iterator[Guess]:
    yield from _inputs_rounded(case, 10)


@layer_hypothesis("inputs rounded to bfloat16", "Source and weights were rounded to 7 bits behind the point.")
def inputs_in_bfloat16(case: LayerCase) -> Iterator[Guess]:
    yield from _inputs_rounded(case, 7)


@layer_hypothesis("inputs rounded to half", "Source and weights were rounded to half precision.")
def inputs_in_half(case: LayerCase) -> Iterator[Guess]:
    weights = _weights(case)
    if weights is not None:
        source, short = (array.astype(np.float16).astype(np.float64) for array in (case.sources[0], weights))
        if not (np.array_equal(source, case.sources[0], equal_nan=True) and np.array_equal(short, weights)):
            yield _guess(case, "", None, short, (source, *case.sources[1:]))


@layer_hypothesis("accumulated in half", "Every partial sum was rounded to half precision.", is_last=True)
def accumulated_in_half(case: LayerCase) -> Iterator[Guess]:
    if _weights(case) is None:
        return
    guess, terms = _guess(case, ""), _terms(case)
    sizes = np.asarray(guess.radius) / ((terms + 1) * UNIT)
    storage = case.final or case.result
    # Its bound is so wide that the errors must also have the size that such sums have.
    got, want = (meaning(array, storage).reshape(-1) for array in (case.got, case.want))
    usable = np.isfinite(got) & np.isfinite(want)
    if sizes.size == got.size:
        usable &= sizes.reshape(-1) > 0
        relative = ((got - want) / sizes.reshape(-1))[usable]
        typical = np.sqrt(np.mean(relative**2)) if relative.size else 0.0
        if not HALF_UNIT / 16 <= typical <= HALF_UNIT * np.sqrt(terms.max() + 1):
            return
    got, want = got[usable], want[usable]
    # Such errors do not depend on the values; and sums of halfs are halfs, to which a bias may be added.
    if abs(np.sum((got - want) * want)) > RELATED * np.sqrt(np.sum((got - want) ** 2) * np.sum(want**2)):
        return
    if storage.precision > 11 and case.final is None and _activated(case.operation, want) is want:
        bias = np.broadcast_to(_bias(case.operation), case.got.shape).reshape(-1)[usable]
        sums = got, (got - bias).astype(np.float32)
        if max(np.mean(each == each.astype(np.float16)) for each in sums) < RELATED:
            return
    guess = replace(guess, radius=np.asarray(guess.radius) * (HALF_UNIT / UNIT))
    yield _overflowed(case, guess, LARGEST_HALF) or guess


# ---- weights ----


@layer_hypothesis("kernel flipped", "The window of the weights was rotated by 180 degrees.")
def kernel_flipped(case: LayerCase) -> Iterator[Guess]:
    weights = _weights(case)
    if weights is not None and max(weights.shape[1:3]) > 1:
        yield _guess(case, "", None, weights[:, ::-1, ::-1])


@layer_hypothesis("x and y taps exchanged", "The window of the weights was transposed.")
def taps_exchanged(case: LayerCase) -> Iterator[Guess]:
    weights = _weights(case)
    if weights is not None and weights.shape[1] == weights.shape[2] > 1:
        yield _guess(case, "", None, weights.swapaxes(1, 2))


@layer_hypothesis("weights in another layout", "The weights were read in another order of their axes than they have.")
def another_layout(case: LayerCase) -> Iterator[Guess]:
    weights = _weights(case)
    if weights is None:
        return
    o, h, w, i = weights.shape
    flatten = ", the order C, H, W" if getattr(case.operation, "is_fully_connected", False) else ""
    yield _guess(case, f"OHWI as OIHW{flatten}", None, weights.reshape(o, i, h, w).transpose(0, 2, 3, 1))
    yield _guess(case, f"OIHW as OHWI{flatten}", None, weights.transpose(0, 3, 1, 2).reshape(weights.shape))
    yield _guess(case, "OHWI as HWIO", None, weights.reshape(h, w, i, o).transpose(3, 0, 1, 2))
    yield _guess(case, "HWIO as OHWI", None, weights.transpose(1, 2, 3, 0).reshape(weights.shape))


@layer_hypothesis(
    "channels not exchanged", "The gradient multiplied by the weights of the forward, not the transposed."
)
def channels_not_exchanged(case: LayerCase) -> Iterator[Guess]:
    operation, weights = case.operation, _weights(case)
    if weights is not None and isinstance(operation, ConvolutionGradient):
        g = operation.weights.groups
        o, h, w, i = weights.shape
        if o // g == i > 1:
            by_group = weights.reshape(g, i, h, w, i).swapaxes(1, 4)
            yield _guess(case, "", None, by_group.reshape(weights.shape))


@layer_hypothesis("channels reversed", "The source channels were read in the opposite order.")
def channels_reversed(case: LayerCase) -> Iterator[Guess]:
    weights = _weights(case)
    if weights is not None and weights.shape[3] > 1:
        yield _guess(case, "", None, weights[..., ::-1])
    elif isinstance(case.operation, Maximum | Average):
        yield Guess("", case.operation.plain([case.sources[0][..., ::-1]]))


@layer_hypothesis("last slice of channels dropped", "The last channels, which fill no slice of four, were not read.")
def last_slice_dropped(case: LayerCase) -> Iterator[Guess]:
    weights = _weights(case)
    if weights is not None and isinstance(case.operation, Convolution) and weights.shape[3] > 4:
        kept = weights.copy()
        kept[..., (weights.shape[3] - 1) // 4 * 4 :] = 0
        yield _guess(case, "", None, kept)


@layer_hypothesis("groups ignored or rotated", "A group of results read the channels of another group.")
def groups_rotated(case: LayerCase) -> Iterator[Guess]:
    operation = case.operation
    if not isinstance(operation, ConvolutionOperation) or operation.weights.groups == 1:
        return
    groups = operation.weights.groups
    x = case.sources[0].reshape(*case.sources[0].shape[:3], groups, -1)
    first = np.broadcast_to(x[..., :1, :], x.shape)
    for detail, other in (("all read the first", first), ("rotated up", np.roll(x, 1, axis=3)),
                          ("rotated down", np.roll(x, -1, axis=3))):  # fmt: skip
        yield _guess(case, detail, sources=(other.reshape(case.sources[0].shape), *case.sources[1:]))


# ---- biases ----


def _with_bias(case: LayerCase, times: float) -> Iterator[Guess]:
    operation = case.operation
    if isinstance(operation, Convolution) and operation.weights.bias is not None:
        guess = _guess(case, "")
        yield replace(guess, value=guess.value + (times - 1) * _bias(operation))


@layer_hypothesis("bias forgotten", "The bias was not added.")
def bias_forgotten(case: LayerCase) -> Iterator[Guess]:
    yield from _with_bias(case, 0)


@layer_hypothesis("bias added twice", "The bias was added twice.")
def bias_doubled(case: LayerCase) -> Iterator[Guess]:
    yield from _with_bias(case, 2)


@layer_hypothesis("bias added after the neuron", "The neuron was applied to the sum, and then the bias was added.")
def bias_after_neuron(case: LayerCase) -> Iterator[Guess]:
    operation = case.operation
    if isinstance(operation, Convolution) and operation.weights.bias is not None and operation.weights.neuron:
        guess = _guess(case, "")
        bias = _bias(operation)
        yield replace(guess, value=guess.value - bias, finish=lambda total: _activated(operation, total) + bias)


@layer_hypothesis("neuron forgotten", "The fused neuron was not applied.")
def neuron_forgotten(case: LayerCase) -> Iterator[Guess]:
    if isinstance(case.operation, Convolution) and case.operation.weights.neuron:
        yield replace(_guess(case, ""), finish=lambda total: total)


# ---- windows ----


@layer_hypothesis("window in another place", "The first window begins a pixel off: an odd pixel on the other side.")
def window_moved(case: LayerCase) -> Iterator[Guess]:
    for dy, dx, detail in displacements(case):
        yield _of(case, detail, displaced(case, dy, dx))


def displacements(case: LayerCase) -> Iterator[tuple[int, int, str]]:
    strides = case.operation.sliding.strides  # type: ignore[attr-defined]
    if getattr(case.operation, "is_fully_connected", False):
        return
    for dy in range(-strides[0], strides[0] + 1):
        for dx in range(-strides[1], strides[1] + 1):
            if (dy, dx) != (0, 0) and max(abs(dy), abs(dx)) <= 2:
                yield dy, dx, f"by {dy} in y and {dx} in x"


def _of(case: LayerCase, detail: str, operation: Any, sources: Any = None) -> Guess:
    """What an operation of the same kind gives."""
    if isinstance(operation, ConvolutionOperation):
        return _guess(case, detail, operation, sources=sources)
    sources = list(case.sources if sources is None else sources)
    value = operation.plain(sources)
    if isinstance(operation, Maximum):
        return Guess(detail, value)
    size = operation.plain([np.abs(sources[0]), *sources[1:]])
    return Guess(detail, value, (_terms(case) + 12) * UNIT * size)


@layer_hypothesis("dilation ignored", "The taps are next to each other, or the window is centred as if they were.")
def dilation_ignored(case: LayerCase) -> Iterator[Guess]:
    operation = case.operation
    if isinstance(operation, ConvolutionOperation) and max(operation.sliding.dilations) > 1:
        sliding = operation.sliding
        y, x = ((k - 1) * (d - 1) // 2 for k, d in zip(sliding.kernel, sliding.dilations, strict=True))
        yield _guess(case, "ignored", displaced(case, y, x, dilations=(1, 1)))
        yield _guess(case, "centred by the taps", displaced(case, y, x))


@layer_hypothesis("clamped edge", "Taps outside of the source read the nearest pixel, not nothing.")
def edge_clamped(case: LayerCase) -> Iterator[Guess]:
    operation = case.operation
    if isinstance(operation, Convolution) and not operation.is_fully_connected:
        x, sliding = case.sources[0], operation.sliding
        placed = sliding.placed(size_of(x))
        pads, moved = [], []
        for n, f, d, k, s, e in zip(
            x.shape[1:3], placed.first, placed.size, sliding.kernel, sliding.strides, sliding.dilations, strict=True
        ):
            pads.append((max(-f, 0), max(f + (d - 1) * s + (k - 1) * e + 1 - n, 0)))
            moved.append(max(-f, 0))
        if any(map(any, pads)):
            padded = np.pad(x, ((0, 0), *pads, (0, 0)), mode="edge")
            yield _guess(case, "", displaced(case, *moved), sources=(padded,))


@layer_hypothesis("average over the full window", "The sum was divided by all taps of the window, inside or not.")
def average_full_window(case: LayerCase) -> Iterator[Guess]:
    operation = case.operation
    if isinstance(operation, Average | AverageGradient):
        yield _of(case, "", _with_edge(operation, case, MPSImageEdgeMode.zero))


@layer_hypothesis("average over the count", "The sum was divided by the number of taps inside of the source.")
def average_count(case: LayerCase) -> Iterator[Guess]:
    operation = case.operation
    if isinstance(operation, Average | AverageGradient):
        yield _of(case, "", _with_edge(operation, case, MPSImageEdgeMode.clamp))


@layer_hypothesis("sum instead of average", "The sum of each window was not divided.")
def not_divided(case: LayerCase) -> Iterator[Guess]:
    if isinstance(case.operation, Average):
        size = case.operation.summed(np.abs(case.sources[0]))
        yield Guess("", case.operation.summed(case.sources[0]), _terms(case) * UNIT * size)


@layer_hypothesis("border of 0", "Taps outside of the source were zeros, which win over negative numbers.")
def border_zero(case: LayerCase) -> Iterator[Guess]:
    if isinstance(case.operation, Maximum | MaximumGradient):
        yield _of(case, "", _with_edge(case.operation, case, MPSImageEdgeMode.zero))


def _with_edge(operation: Any, case: LayerCase, edge_mode: MPSImageEdgeMode) -> Any:
    moved = displaced(case, 0, 0)
    return replace(operation, sliding=replace(moved.sliding, edge_mode=edge_mode))


@layer_hypothesis("gradient to every maximum", "Where a window has several largest elements, each got the gradient.")
def gradient_to_all(case: LayerCase) -> Iterator[Guess]:
    operation = case.operation
    if isinstance(operation, MaximumGradient):
        gradient, x = case.sources
        source = size_of(x)
        largest = Maximum(operation.sliding).plain([x])
        count = np.zeros(largest.shape)
        for _, _, made, read in operation.sliding.each_tap(source):
            count[made] += x[read] == largest[made]
        for detail, share in (("the whole", gradient), ("a share", gradient / np.maximum(count, 1))):
            out = np.zeros(source)
            for _, _, made, read in operation.sliding.each_tap(source):
                out[read] += np.where(x[read] == largest[made], share[made], 0)
            yield Guess(detail, out, 4 * UNIT * np.abs(out))


@layer_hypothesis("overlaps overwritten", "Where windows overlap, the last one was stored instead of the sum.")
def overlaps_overwritten(case: LayerCase) -> Iterator[Guess]:
    operation: Any = case.operation
    if not isinstance(operation, AverageGradient | MaximumGradient):
        return
    gradient, x = case.sources
    size = size_of(x)
    share = operation.shares(gradient, size) if isinstance(operation, AverageGradient) else gradient
    chosen = operation.places(x).reshape(gradient.shape) if isinstance(operation, MaximumGradient) else None
    flat = np.arange(x.size).reshape(x.shape)
    for detail, taps in (("the last", -1), ("the first", 1)):
        out = np.zeros(size)
        for _, _, made, read in list(operation.sliding.each_tap(size))[::taps]:
            taken = np.ones(out[read].shape, np.bool_) if chosen is None else chosen[made] == flat[read]
            out[read] = np.where(taken, share[made], out[read])
        yield Guess(detail, out, 4 * UNIT * np.abs(out))


LAYER_HYPOTHESES = (
    bias_after_half_store,
    quotients_in_half,
    partial_sum_overflows,
    bias_forgotten,
    bias_doubled,
    bias_after_neuron,
    neuron_forgotten,
    kernel_flipped,
    taps_exchanged,
    channels_not_exchanged,
    another_layout,
    channels_reversed,
    last_slice_dropped,
    groups_rotated,
    dilation_ignored,
    edge_clamped,
    window_moved,
    average_full_window,
    average_count,
    not_divided,
    border_zero,
    gradient_to_all,
    overlaps_overwritten,
    inputs_in_tf32,
    inputs_in_bfloat16,
    inputs_in_half,
    accumulated_in_half,
)
"""Every fault of layers that is tried."""

PRECISIONS = (bias_after_half_store, inputs_in_tf32, inputs_in_bfloat16, inputs_in_half)
"""Those that a note may name though a layer is within its bounds."""
