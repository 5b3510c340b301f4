"""Faults of the precision in which layers compute: what is read, added up, and stored on the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from mpsref.arrays import Elements, Wide
from mpsref.operations import Average, AverageGradient, Convolution, Maximum, MaximumGradient
from mpsref.operations.convolution import ConvolutionOperation
from mpsref.operations.window import size_of
from mpsref.verify.case import Case
from mpsref.verify.hypotheses.base import layer_hypothesis
from mpsref.verify.hypotheses.layers import weights_of
from mpsref.verify.hypotheses.noise import is_noise
from mpsref.verify.hypotheses.stores import shortened, to_half
from mpsref.verify.layer import HALF_UNIT, UNIT, Layer, Variants

RELATED = 0.5
"""See `accumulated_in_half`."""
SIZE_ALONE = "as far as the size of the errors tells"
"""Noise of that size, from wherever it comes, looks the same once it is stored in half."""
LARGEST_SINGLE, LARGEST_HALF = (float(np.finfo(dtype).max) for dtype in (np.float32, np.float16))

Rounding = Callable[[Wide], Wide]


@layer_hypothesis(
    "bias added after the sum was stored in half",
    "The sum was rounded to half, then the bias added and rounded again.",
    Convolution,
)  # fmt: skip
def bias_after_half_store(layer: Layer, case: Case) -> Variants:
    if layer.bias is not None and layer.bias.any() and not case.result.unorm_max:
        bias = layer.bias
        yield "", partial(replace, layer, bias=None, finish=lambda total: layer.activated(to_half(total) + bias))


@layer_hypothesis("sum stored in half before the neuron", "The sum was rounded to half before the fused neuron was "
                  "applied.", Convolution)  # fmt: skip
def sum_in_half(layer: Layer, case: Case) -> Variants:
    if layer.neuron is not None:
        yield "", partial(replace, layer, finish=lambda total: layer.activated(to_half(total)))


@layer_hypothesis("each quotient stored in half",
                  "The incoming gradients were divided, stored in half, and then added.", AverageGradient)  # fmt: skip
def quotients_in_half(layer: Layer, case: Case) -> Variants:
    def stored() -> Layer:
        operation: Any = layer.operation
        gradient, source = layer.sources
        shares = to_half(operation.shares(gradient, size_of(source)))
        total, sizes = (operation.spread(each, size_of(source)) for each in (shares, np.abs(shares)))
        return replace(layer, values=(total, layer.terms * UNIT * sizes))

    yield "", stored


def _overflowed(layer: Layer, case: Case, largest: float) -> Layer | None:
    """The layer with what overflows leave, where the device has that and partial sums may be so large."""
    got = Elements(case.got, case.result).values()
    if layer.follow is not None or np.isfinite(got).all():
        return None
    operation: Any = layer.operation
    first, *rest = np.abs(layer.sources[0]), *layer.sources[1:]
    if isinstance(operation, ConvolutionOperation):
        peak = layer.sizes()
    else:
        peak = operation.summed(first) if isinstance(operation, Average) else operation.spread(first, size_of(rest[0]))
    if not (peak > largest).any():
        return None
    value, radius = (np.array(np.broadcast_to(each, peak.shape)) for each in (layer.value, layer.radius))
    for left in (np.inf, -np.inf, np.nan):
        # The neuron of a constant is the same for all elements.
        given = case.stored(layer.activated(np.full(1, left)))
        meant = Elements(given, case.result).values()[0]
        like = ((got == meant) | (np.isnan(got) & np.isnan(meant))) & (peak > largest)
        value[like], radius[like] = left, 0.0
    return replace(layer, values=(value, radius), widened=1.0)


@layer_hypothesis(
    "a partial sum overflows", "A partial sum was beyond the largest number of the accumulator; the whole sum is not."
)
def partial_sum_overflows(layer: Layer, case: Case) -> Variants:
    if isinstance(layer.operation, Maximum | MaximumGradient):
        return
    if getattr(layer.operation, "half_accumulator", False):
        other = _overflowed(replace(layer, widened=HALF_UNIT / UNIT), case, LARGEST_HALF)
    else:
        other = _overflowed(layer, case, LARGEST_SINGLE)
    if other is not None:
        yield "", lambda: other


# ---- inputs ----


def _rounded(layer: Layer, roundings: Mapping[str, Rounding], *, alone: bool = True) -> Variants:
    """The layer with what it reads rounded: source and weights, or one of them."""
    weights, (first, *rest) = weights_of(layer), layer.sources

    def changed(rounding: Rounding, *, source: bool = True, weight: bool = True) -> Layer:
        sources = (rounding(first), *rest) if source else layer.sources
        return replace(layer, sources=sources, weights=rounding(weights) if weight else weights)

    for detail, rounding in roundings.items():
        differs = [not np.array_equal(rounding(each), each, equal_nan=True) for each in (first, weights)]
        if any(differs):
            yield detail, partial(changed, rounding)
        if all(differs) and alone:
            for text, weight in (("the source alone", False), ("the weights alone", True)):
                more = ", ".join(filter(None, (detail, text)))
                yield more, partial(changed, rounding, source=not weight, weight=weight)


def _both_ways(bits: int) -> dict[str, Rounding]:
    return {"to nearest": shortened(bits), "truncated": shortened(bits, is_cut=True)}


TF32, BFLOAT16, HALF = _both_ways(10), _both_ways(7), {"": to_half}


@layer_hypothesis("inputs rounded to TF32", "Source and weights were rounded to 10 bits behind the point.",
                  ConvolutionOperation)  # fmt: skip
def inputs_in_tf32(layer: Layer, case: Case) -> Variants:
    yield from _rounded(layer, TF32, alone=False)


@layer_hypothesis("inputs rounded to bfloat16", "Source and weights were rounded to 7 bits behind the point.",
                  ConvolutionOperation)  # fmt: skip
def inputs_in_bfloat16(layer: Layer, case: Case) -> Variants:
    yield from _rounded(layer, BFLOAT16)


@layer_hypothesis("inputs rounded to half", "Source and weights were rounded to half precision.", ConvolutionOperation)
def inputs_in_half(layer: Layer, case: Case) -> Variants:
    yield from _rounded(layer, HALF)


@layer_hypothesis("weights in 8 bits", "The weights are integers of 8 bits, times a scale.", ConvolutionOperation)
def weights_in_8_bits(layer: Layer, case: Case) -> Variants:
    w = weights_of(layer)
    for detail, axes in (("one scale", None), ("a scale for each result channel", (1, 2, 3))):
        scale = np.abs(w).max(axis=axes, keepdims=True) / 127
        scale[scale == 0] = 1
        yield detail, partial(replace, layer, weights=np.rint(w / scale) * scale)


def _accumulated(layer: Layer, case: Case, unit: float, largest: float, rounding: Rounding) -> Variants:
    """Sums in a narrow format, if the errors are like those of such sums."""
    sizes, terms = layer.sizes(), layer.terms
    # The bound is so wide that the errors must also have the size that such sums have.
    got, want = (Elements(array, case.result).values().reshape(-1) for array in (case.got, case.want))
    usable = np.isfinite(got) & np.isfinite(want)
    if sizes.size == got.size:
        usable &= sizes.reshape(-1) > 0
        with np.errstate(all="ignore"):
            relative = ((got - want) / sizes.reshape(-1))[usable]
        typical = np.sqrt(np.mean(relative**2)) if relative.size else 0.0
        if not unit / 16 <= typical <= unit * np.sqrt(terms.max() + 1):
            return
    got, want = got[usable], want[usable]
    # Such errors do not depend on the values; and sums of halfs are halfs, to which a bias may be added.
    if abs(np.sum((got - want) * want)) > RELATED * np.sqrt(np.sum((got - want) ** 2) * np.sum(want**2)):
        return
    detail = SIZE_ALONE
    if 2.0**-case.result.precision < unit and layer.follow is None and layer.neuron is None:
        bias = np.broadcast_to(0.0 if layer.bias is None else layer.bias, case.got.shape).reshape(-1)[usable]
        sums = got, (got - bias).astype(np.float32).astype(np.float64)
        if max(np.mean(each == rounding(each)) for each in sums) < RELATED:
            return
        detail = ""
    elif sizes.size == case.got.size and not is_noise(layer, case, unit, rounding):
        return
    narrow = replace(layer, widened=unit / UNIT)
    yield detail, lambda: _overflowed(narrow, case, largest) or narrow


@layer_hypothesis(
    "accumulated in half", "Every partial sum was rounded to half precision.", ConvolutionOperation, is_last=True
)
def accumulated_in_half(layer: Layer, case: Case) -> Variants:
    yield from _accumulated(layer, case, HALF_UNIT, LARGEST_HALF, to_half)


@layer_hypothesis(
    "accumulated in bfloat16", "Every partial sum was rounded to bfloat16.", ConvolutionOperation, is_last=True
)
def accumulated_in_bfloat16(layer: Layer, case: Case) -> Variants:
    yield from _accumulated(layer, case, 2.0**-8, LARGEST_SINGLE, shortened(7))
