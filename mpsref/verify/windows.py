"""
Ranges of the operations that slide a window: whole images at once.

A sum of K products may be accumulated in any order, split, fused or not, in float32 (in half, where the node says so):
its error is at most ``(K + 1) u sum|w x|``, and 2^-126 more for each product and each sum where they may be flushed, so
that a sum of some of the products is left (running-error analysis; Higham, "Accuracy and Stability of Numerical
Algorithms", section 3.1).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np

from mpsref.arrays import Stored, Wide
from mpsref.enums import MPSImageEdgeMode
from mpsref.operations import (
    Average,
    AverageGradient,
    Convolution,
    ConvolutionGradient,
    Maximum,
    MaximumGradient,
    Windowed,
)
from mpsref.operations.window import size_of
from mpsref.verify.forms import neuron_forms
from mpsref.verify.ranges import Level, Mark, Range
from mpsref.verify.running import Running

__all__ = ["WindowForm", "middle_of", "size_of_range", "summed", "window_forms"]

WindowForm: TypeAlias = Callable[[Sequence[Range], Running], Range]
"""The ranges of a whole result from those of whole sources, of shape (N, H, W, C)."""

SINGLE, HALF = (2.0**-24, 2.0**-126, 3.4028235677973366e38), (2.0**-11, 2.0**-14, 65520.0)
BFLOAT = 2.0**-8, 2.0**-126, 3.39617752923046e38
"""Of an accumulator: the relative error of a rounding, the smallest normal number, and where it overflows."""

OWN = 2.0**-52
"""Twice the relative error of the float64 in which ranges are computed."""


def window_forms(operation: Windowed) -> list[WindowForm]:
    """The forms of an operation: one, or one for each formula of a fused neuron."""
    match operation:
        case Convolution():
            form = _convolution(operation)
            neuron = operation.weights.neuron
            if neuron is not None:
                # A fused neuron reads the sums unrounded.
                return [_fused(form, each) for each in neuron_forms(neuron, "forward")]
        case ConvolutionGradient():
            form = _convolution_gradient(operation)
        case Average():
            form = _average(operation)
        case AverageGradient():
            form = _average_gradient(operation)
        case Maximum():
            form = _maximum(operation)
        case MaximumGradient():
            form = _maximum_gradient(operation)
        case _:
            raise AssertionError(f"no ranges of {operation}")
    return [form]


def summed(
    f: Running,
    center: Wide,
    radius: Wide | float,
    size: Wide,
    count: Any,
    *,
    half: bool = False,
    undivided: Wide | None = None,
    nan: Wide | None = None,
    small: Wide | None = None,
) -> Range:
    """
    The range of sums.

    Parameters
    ----------
    f : Running
        The arithmetic.
    center, radius : ndarray
        The sums of the products of the middles of all ranges, and how far those of others are from them.
    size : ndarray
        The sums of the absolute values of all products.
    count : ndarray of int
        How many products there are.
    half : bool
        Whether it is accumulated in half.
    undivided : ndarray
        What `size` would be without a division, if there is one.
    nan : ndarray
        How many of the numbers may be NaN too, if any.
    small : ndarray
        What `size` is of weights that are subnormal, if any are.
    """
    law, is_short = f.model.laws["arithmetic"], f.model.precision < 24
    unit, tiny, largest = BFLOAT if f.model.precision == 8 else HALF if half or is_short else SINGLE
    division = f.model.laws["division"].ulp if undivided is not None else 0.0
    # What a product, and a quotient, lose below the smallest normal number: ULP are no smaller there.
    lost = 2 * unit * tiny * ((1.0 if law.either else law.ulp) + division)
    unit *= 2 if law.either else 2 * law.ulp
    # Only WGSL lets half be flushed.
    flushed = 2 * tiny if f.flush and (largest != HALF[2] or law.either) else 0.0
    # A model of half precision or less rounds the weights as well.
    roundings = count + 1 + is_short + (2 * division + 1 if undivided is not None else 0)
    relative = roundings * unit / np.maximum(1 - roundings * unit, 0.5) + (count + 4) * OWN
    error = relative * size + radius + (count + 1) * lost
    if small is not None and is_short:
        error = error + small
    # Each product and each partial sum may be flushed, and weights before that: what is left is a sum of some products.
    flushes = (count + 1) * flushed + (0.0 if small is None or not f.flush else small)
    below, above = np.minimum(flushes, (size + center) / 2), np.minimum(flushes, (size - center) / 2)
    special = ~np.isfinite(center) | ~np.isfinite(size)
    open_ = special & np.broadcast_to(np.asarray(radius) > 0, center.shape)
    low = np.where(special, np.where(open_, -np.inf, center), center - error - below)
    high = np.where(special, np.where(open_, np.inf, center), center + error + above)
    may_be_nan = np.isnan(center) | open_ if nan is None else np.isnan(center) | open_ | (nan > 0)
    # Where sums are larger, flushing is lost in their rounding, and need not be looked at.
    matters = np.asarray(size < count * tiny * 2.0**40) | (False if small is None else small > 0)
    reason = np.where(matters, np.uint16(Mark.TINY), np.uint16(0))
    over = ~special & ((size if undivided is None else undivided) * (1 + relative) > largest)
    if over.any():
        reason = reason | np.where(over, np.uint16(Mark.HUGE), np.uint16(0))
        if f.level is Level.EVERYTHING:
            # Infinity stays, or becomes NaN.
            infinity = -np.inf if f.down else np.inf
            low, high = np.where(over, infinity, low), np.where(over, infinity, high)
            may_be_nan, reason = may_be_nan | over, reason | np.where(over, np.uint16(Mark.OVERFLOW), np.uint16(0))
    return Range(low, high, may_be_nan, reason, f)


def middle_of(x: Range) -> tuple[Wide, Wide | None]:
    """The middles of ranges, and their half widths; None where all are exact. NaN is what may be anything."""
    if np.array_equal(x.low, x.high, equal_nan=True):
        return np.array(x.low), None
    with np.errstate(all="ignore"):
        radius = (x.high - x.low) / 2 * (1 + OWN)
        is_open = np.isinf(radius)
        middle = np.where(is_open, np.nan, np.where(x.low == x.high, x.low, x.low + (x.high - x.low) / 2))
        return middle, np.where(is_open, 1.0, np.nan_to_num(radius, nan=0.0))


def _may_be_nan(x: Range, total: Callable[[Wide], Wide]) -> Wide | None:
    """The total of 1 where NaN is possible beside numbers; None if it is so nowhere."""
    possible = x.nan & ~np.isnan(x.low)
    return total(possible.astype(np.float64)) if possible.any() else None


def _subnormal(weights: Wide, f: Running, total: Callable[[Wide], Wide]) -> Wide | None:
    """The total of magnitudes of weights that are subnormal in the format of the computation; None if none is."""
    size = np.abs(weights)
    small = size < f.model.smallest[0]
    return total(np.where(small, size, 0.0)) if (small & (size > 0)).any() else None


def size_of_range(middle: Wide, radius: Wide | None) -> Wide:
    """The largest absolute values of ranges."""
    size = np.abs(np.nan_to_num(middle, nan=0.0, posinf=np.inf, neginf=-np.inf))
    return size if radius is None else size + radius


def _convolution(operation: Convolution) -> WindowForm:
    w = operation.weights
    weights = w.values.astype(np.float64)

    def form(sources: Sequence[Range], f: Running) -> Range:
        middle, radius = middle_of(sources[0])
        center = operation.linear(middle, weights)
        size = operation.linear(size_of_range(middle, radius), np.abs(weights))
        if w.bias is not None:
            center, size = center + w.bias.astype(np.float64), size + np.abs(w.bias.astype(np.float64))
        spread = 0.0 if radius is None else operation.linear(radius, np.abs(weights))
        count = operation.terms(size_of(middle))
        nan = _may_be_nan(sources[0], lambda lost: operation.linear(lost, np.abs(weights)))
        small = _subnormal(weights, f, lambda those: operation.linear(size_of_range(middle, radius), those))
        return summed(f, center, spread, size, count, half=operation.half_accumulator, nan=nan, small=small)

    return form


def _fused(form: WindowForm, neuron: Callable[[Range, Stored, Running], Range]) -> WindowForm:
    def fused(sources: Sequence[Range], f: Running) -> Range:
        value = form(sources, f)
        return neuron(value.reshape((-1,)), np.empty(0), f).reshape(value.low.shape)

    return fused


def _convolution_gradient(operation: ConvolutionGradient) -> WindowForm:
    weights = operation.weights.values.astype(np.float64)

    def form(sources: Sequence[Range], f: Running) -> Range:
        (middle, radius), source = middle_of(sources[0]), size_of(sources[1].low)
        center = operation.linear(middle, source, weights)
        size = operation.linear(size_of_range(middle, radius), source, np.abs(weights))
        spread = 0.0 if radius is None else operation.linear(radius, source, np.abs(weights))
        count = operation.terms(size_of(middle), source)
        nan = _may_be_nan(sources[0], lambda lost: operation.linear(lost, source, np.abs(weights)))
        small = _subnormal(weights, f, lambda those: operation.linear(size_of_range(middle, radius), source, those))
        return summed(f, center, spread, size, count, half=operation.half_accumulator, nan=nan, small=small)

    return form


def _average(operation: Average) -> WindowForm:
    def form(sources: Sequence[Range], f: Running) -> Range:
        middle, radius = middle_of(sources[0])
        spread = 0.0 if radius is None else operation.plain([radius])
        absolute, count = size_of_range(middle, radius), operation.terms(size_of(middle))
        size, undivided = operation.plain([absolute]), operation.summed(absolute)
        nan = _may_be_nan(sources[0], lambda lost: operation.plain([lost]))
        return summed(f, operation.plain([middle]), spread, size, count, undivided=undivided, nan=nan)

    return form


def _average_gradient(operation: AverageGradient) -> WindowForm:
    def form(sources: Sequence[Range], f: Running) -> Range:
        middle, radius = middle_of(sources[0])
        source = sources[1].low
        spread = 0.0 if radius is None else operation.plain([radius, source])
        absolute, count = size_of_range(middle, radius), operation.terms(size_of(middle), size_of(source))
        size, undivided = operation.plain([absolute, source]), operation.spread(absolute, size_of(source))
        nan = _may_be_nan(sources[0], lambda lost: operation.plain([lost, source]))
        return summed(f, operation.plain([middle, source]), spread, size, count, undivided=undivided, nan=nan)

    return form


def _maximum(operation: Maximum) -> WindowForm:
    def form(sources: Sequence[Range], f: Running) -> Range:
        (x,) = sources
        low, high, nan = _largest(operation, x)
        if f.flush:
            # A comparison may take subnormals for zero, and choose any of them.
            smallest = f.model.smallest[0]
            may_be_zero = (x.low < smallest) & (x.high > -smallest)
            mirrored = np.where(may_be_zero, -np.maximum(x.low, -smallest), -np.inf)
            least = -_largest(operation, replace(x, low=mirrored))[0]
            low = np.where((np.abs(low) < smallest) & (least < low), least, low)
        # What becomes of NaN is documented nowhere.
        low, high = np.where(nan, -np.inf, low), np.where(nan, np.inf, high)
        return Range(low, high, nan, np.zeros(low.shape, np.uint16), f)

    return form


def _largest(operation: Maximum, x: Range) -> tuple[Wide, Wide, Any]:
    source = size_of(x.low)
    shape = operation.result_size(source)
    zero = operation.sliding.placed(source).edge_mode == MPSImageEdgeMode.zero
    low, high, nan = np.full(shape, -np.inf), np.full(shape, -np.inf), np.zeros(shape, np.bool_)
    taps = np.zeros((1, *shape[1:3], 1), np.int64)
    for _, _, made, read in operation.sliding.each_tap(source):
        low[made] = np.fmax(low[made], x.low[read])
        high[made] = np.fmax(high[made], x.high[read])
        nan[made] |= x.nan[read]
        taps[made] += 1
    kernel = int(np.prod(operation.sliding.kernel))
    edge = np.broadcast_to((taps < kernel) if zero else (taps == 0), shape)
    return np.where(edge, np.fmax(low, 0.0), low), np.where(edge, np.fmax(high, 0.0), high), nan


def _maximum_gradient(operation: MaximumGradient) -> WindowForm:
    forward = Maximum(operation.sliding)

    def form(sources: Sequence[Range], f: Running) -> Range:
        g, x = sources
        source = size_of(x.low)
        # Of subnormals that are taken for zero any is the largest.
        x = x.as_compared if f.flush else x
        least, most, nan = _largest(forward, x)
        rivals = np.zeros(most.shape, np.int64)
        for _, _, made, read in operation.sliding.each_tap(source):
            rivals[made] += (x.high[read] >= least[made]) & ~x.nan[read]
        shape = x.low.shape
        low, high, size, open_ = np.zeros(shape), np.zeros(shape), np.zeros(shape), np.zeros(shape, np.bool_)
        missing, gone, reason = np.zeros(shape, np.bool_), np.zeros(shape, np.bool_), np.zeros(shape, np.uint16)
        edge = operation.sliding.placed(source).edge_mode == MPSImageEdgeMode.zero
        for _, _, made, read in operation.sliding.each_tap(source):
            may = x.high[read] >= least[made]
            must = may & (rivals[made] == 1) & (not edge or x.low[read] > 0)
            # Nothing but NaN; elsewhere it may be added or not.
            lost = np.isnan(g.low[made])
            a, b = np.where(lost, 0.0, g.low[made]), np.where(lost, 0.0, g.high[made])
            low[read] += np.where(may, np.where(must, a, np.fmin(a, 0.0)), 0.0)
            high[read] += np.where(may, np.where(must, b, np.fmax(b, 0.0)), 0.0)
            size[read] += np.where(may, np.fmax(np.abs(a), np.abs(b)), 0.0)
            open_[read] |= nan[made]
            missing[read] |= may & g.nan[made]
            gone[read] |= must & lost
        if not _windows_apart(operation):
            each = summed(f, size, 0.0, size, operation.terms(size_of(g.low), source))
            error, reason = np.where((size > 0) & np.isfinite(size), np.abs(size - each.low), 0.0), each.reason
            low, high, missing = low - error, high + error, missing | each.nan
        low, high = np.where(gone, np.nan, low), np.where(gone, np.nan, high)
        low, high = np.where(open_, -np.inf, low), np.where(open_, np.inf, high)
        return Range(low, high, open_ | missing, reason, f)

    return form


def _windows_apart(operation: MaximumGradient) -> bool:
    """Whether no two windows overlap."""
    sliding = operation.sliding
    return all(k <= s for k, s in zip(sliding.kernel, sliding.strides, strict=True))
