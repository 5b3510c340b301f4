"""The forms of neurons' formulas that devices use, as ranges: the row's own, and others that are known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import TypeAlias, cast

import numpy as np

from mpsref.arrays import Index, Stored
from mpsref.enums import MPSCNNNeuronType
from mpsref.neuron.descriptor import MPSNNNeuronDescriptor
from mpsref.verify.ranges import Range
from mpsref.verify.running import Running

__all__ = ["ALTERNATIVES", "Alternative", "data_of", "neuron_forms"]

T = MPSCNNNeuronType


@dataclass(frozen=True)
class _Parameters:
    """A descriptor's parameters as ranges, so that their products may be rounded too."""

    a: Range
    b: Range
    c: Range
    data: Range


Formula: TypeAlias = Callable[[Range, _Parameters, Running], Range]


@dataclass(frozen=True)
class Alternative:
    """Another form of a formula that devices use: as text, who reports its use, and as `stepwise_forward` of a row."""

    text: str
    source: str
    formula: Formula


def _logistic(x: Range, p: _Parameters, f: Running) -> Range:
    s = 1.0 / (1 + f.exp(-x))
    return s * (1 - s)


def _soft_plus(x: Range, p: _Parameters, f: Running) -> Range:
    z = p.b * x
    return p.a * (f.max(z, 0.0) + f.log(1 + f.exp(-abs(z))))


def _soft_plus_accurate(x: Range, p: _Parameters, f: Running) -> Range:
    z = p.b * x
    return p.a * (f.max(z, 0.0) + f.log1p(f.exp(-abs(z))))


def _soft_plus_slope(x: Range, p: _Parameters, f: Running) -> Range:
    return p.a * p.b * (1.0 / (1 + f.exp(-(p.b * x))))


def _soft_sign_slope(x: Range, p: _Parameters, f: Running) -> Range:
    r = 1.0 / (1 + abs(x))
    return r * r


def _elu(x: Range, p: _Parameters, f: Running) -> Range:
    return f.where(x >= 0, x, p.a * f.expm1(x))


ALTERNATIVES: Mapping[tuple[MPSCNNNeuronType, str], tuple[Alternative, ...]] = MappingProxyType(
    {
        (T.sigmoid, "gradient"): (
            Alternative("s (1 - s), s = 1 / (1 + e^-x)", "measured on an Apple M4 Pro (kern0x1b/charon)", _logistic),
        ),
        (T.softPlus, "forward"): (
            Alternative(
                "a (max(b x, 0) + ln(1 + e^-abs(b x)))",
                "the rearrangement that does not overflow, for devices with a logarithm of 1 + e^x of their own",
                _soft_plus,
            ),
            Alternative("a (max(b x, 0) + log1p(e^-abs(b x)))", "JAX", _soft_plus_accurate),
        ),
        (T.softPlus, "gradient"): (
            Alternative("a b / (1 + e^-(b x))", "measured on an Apple M4 Pro (kern0x1b/charon)", _soft_plus_slope),
        ),
        (T.softSign, "gradient"): (
            Alternative("r r, r = 1 / (1 + abs(x))", "kernels that take one reciprocal", _soft_sign_slope),
        ),
        (T.ELU, "forward"): (Alternative("x if x >= 0 else a expm1(x)", "JAX", _elu),),
    }
)
"""By neuron type and direction; the form of Apple's header is the row's own."""


def neuron_forms(descriptor: MPSNNNeuronDescriptor, direction: str) -> list[Callable[[Range, Stored, Running], Range]]:
    """The formulas of a neuron's value or slope, each called with inputs, slopes (for pReLU), and the arithmetic."""
    row = descriptor.row
    own = row.stepwise_forward if direction == "forward" else row.stepwise_derivative
    formulas = [cast("Formula", own)]
    formulas += [other.formula for other in ALTERNATIVES.get((descriptor.neuron_type, direction), ())]

    def evaluate(x: Range, data: Stored, f: Running, *, formula: Formula) -> Range:
        a, b, c = (f.range(value) for value in (descriptor.a, descriptor.b, descriptor.c))
        return f.range(formula(x, _Parameters(a, b, c, f.range(data)), f)).like(x.low)

    return [partial(evaluate, formula=formula) for formula in formulas]


def data_of(descriptor: MPSNNNeuronDescriptor, index: Index, channels: int) -> Stored:
    """The slope of each element, for pReLU; an empty array for all others."""
    if descriptor.data is None:
        return np.empty(0)
    slopes: Stored = descriptor.data[index % channels]
    return slopes
