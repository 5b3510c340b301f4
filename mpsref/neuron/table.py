"""
The sixteen neurons: one class each, and the only list of them.

A row states the facts, names its value and slope in the specification, and has each formula as a plain shader evaluates
it, called as ``stepwise_forward(x, p, f)`` with float32 inputs, float32 parameters and an `Arithmetic`. Python numbers
in it are exact, or become the nearest float32. In the formulas ``u`` is ``a x + b``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType
from typing import ClassVar, Protocol, TypeAlias

import numpy as np

import mpsref.neuron.specification as spec
from mpsref.arrays import Floats, Mask
from mpsref.enums import ActivationType, MPSCNNNeuronType
from mpsref.neuron.exact import Digits
from mpsref.neuron.specification import ExactParameters
from mpsref.neuron.tail import RECIPROCAL_SQRT_2PI

__all__ = ["NEURONS", "Erratum", "Neuron", "NeuronType"]

T = MPSCNNNeuronType
RECIPROCAL_SQRT_2 = 0.7071067811865476
Scalar: TypeAlias = np.float32 | float
NeuronType: TypeAlias = MPSCNNNeuronType | ActivationType
Exact: TypeAlias = Callable[[Decimal, ExactParameters, Digits], Decimal]
"""A function of the specification."""


class Parameters(Protocol):
    """What a row reads from a descriptor."""

    @property
    def a(self) -> float:
        """First parameter."""

    @property
    def b(self) -> float:
        """Second parameter."""

    @property
    def c(self) -> float:
        """Third parameter."""


@dataclass(frozen=True)
class Float32Parameters:
    """
    The parameters of stepwise formulas: float32, so that their products round too.

    `data` holds the slope of each element for pReLU.
    """

    a: np.float32
    b: np.float32
    c: np.float32
    data: Floats


class Arithmetic(Protocol):
    """
    What a stepwise formula needs besides ``+``, ``-``, ``*``, ``/`` and ``abs`` of float32 arrays.

    Each result is rounded once to float32, except in `fma`, where the product is rounded too unless it is fused.
    """

    def fma(self, a: Floats | Scalar, b: Floats | Scalar, c: Floats | Scalar) -> Floats:
        """``a b + c``, with one rounding where the mode fuses it, else two; of two products, `a b` is the left one."""

    def square(self, x: Floats) -> Floats:
        """``x x``."""

    def exp(self, x: Floats) -> Floats:
        """e^x."""

    def log(self, x: Floats | Scalar) -> Floats:
        """The natural logarithm."""

    def tanh(self, x: Floats) -> Floats:
        """The hyperbolic tangent."""

    def erf(self, x: Floats) -> Floats:
        """The error function."""

    def pow(self, base: Floats | Scalar, exponent: Floats | Scalar) -> Floats:
        """``base ^ exponent``, one of them a scalar, with the special values of IEEE 754."""

    def min(self, x: Floats, y: Scalar) -> Floats:
        """The smaller one, with -0 below +0; `y` where `x` is NaN."""

    def max(self, x: Floats, y: Scalar) -> Floats:
        """The larger one likewise."""

    def where(self, condition: Mask, x: Floats | Scalar, y: Floats | Scalar) -> Floats:
        """`x` where the condition holds, else `y`."""


@dataclass(frozen=True)
class Erratum:
    """
    A place where Apple's header prints a wrong derivative, or a forward that is not the one that runs.

    Attributes
    ----------
    printed : str
        The header's text.
    where : str
        The header, and the SDKs that have it.
    why : str
        What mpsref computes instead, and the evidence.
    """

    printed: str
    where: str
    why: str


class Neuron(ABC):
    """
    One row of the table. A subclass states the facts; instances are stateless.

    Attributes
    ----------
    neuron_type : MPSCNNNeuronType
        Apple's name and raw value; an ``ActivationType`` where it is none of Apple's.
    parameters : Mapping[str, float]
        Its parameters with their documented defaults.
    least : Mapping[str, float]
        The least value of those that have one.
    per_channel : bool
        Whether it takes a slope per feature channel instead.
    formula, slope : str
        Forward and derivative, as text.
    domain : str
        Where the forward is a real number, as text.
    source : str
        Where Apple documents it.
    errata : tuple of Erratum
        What is printed wrong there.
    slope_is_constant : bool
        Whether the derivative does not depend on the input, and so ignores a NaN there (N6).
    exact : pair of callable
        Value and slope in `mpsref.neuron.specification`.
    """

    neuron_type: ClassVar[NeuronType]
    parameters: ClassVar[Mapping[str, float]] = MappingProxyType({})
    least: ClassVar[Mapping[str, float]] = MappingProxyType({})
    per_channel: ClassVar[bool] = False
    formula: ClassVar[str]
    slope: ClassVar[str]
    domain: ClassVar[str] = "all x"
    source: ClassVar[str] = "MPSCNNNeuron.h"
    errata: ClassVar[tuple[Erratum, ...]] = ()
    slope_is_constant: ClassVar[bool] = False
    exact: ClassVar[tuple[Exact, Exact]]

    @staticmethod
    @abstractmethod
    def stepwise_forward(x: Floats, p: Float32Parameters, f: Arithmetic) -> Floats:
        """f(x) as a plain shader computes it: the documented formula in float32, faults and all."""

    @staticmethod
    @abstractmethod
    def stepwise_derivative(x: Floats, p: Float32Parameters, f: Arithmetic) -> Floats | Scalar:
        """f'(x) likewise, as `slope` prints it."""

    @staticmethod
    def kinks(p: Parameters) -> tuple[float, ...]:
        """Where f' may jump, as float64."""
        return ()

    @staticmethod
    def sides(p: Parameters) -> tuple[tuple[float, float], ...]:
        """The slopes on the left and on the right of each kink, for an activation that is not Apple's."""
        return ()


class None_(Neuron):
    neuron_type = T.none
    formula = "x"
    slope = "1"
    source = "MPSCNNNeuronType.h"
    slope_is_constant = True
    exact = spec.none, spec.none_slope

    @staticmethod
    def stepwise_forward(x: Floats, p: Float32Parameters, f: Arithmetic) -> Floats:
        return x

    @staticmethod
    def stepwise_derivative(x: Floats, p: Float32Parameters, f: Arithmetic) -> Floats | Scalar:
        return 1.0


class ReLU(Neuron):
    neuron_type = T.reLU
    parameters = MappingProxyType({"a": 0.0})
    formula = "x if x >= 0 else a x"
    slope = "1 if x >= 0 else a"
    exact = spec.rectified, spec.rectified_slope

    @staticmethod
    def kinks(p: Parameters) -> tuple[float, ...]:
        return (0.0,)

    @staticmethod
    def stepwise_forward(x: Floats, p: Float32Parameters, f: Arithmetic) -> Floats:
        return f.where(x >= 0, x, p.a * x)

    @staticmethod
    def stepwise_derivative(x: Floats, p: Float32Parameters, f: Arithmetic) -> Floats:
        return f.where(x >= 0, 1.0, p.a)


class Linear(Neuron):
    neuron_type = T.linear
    parameters = MappingProxyType({"a": 1.0, "b": 0.0})
    formula = "a x + b"
    slope = "a"
    slope_is_constant = True
    exact = spec.linear, spec.linear_slope

    @staticmethod
    def stepwise_forward(x: Floats, p: Float32Parameters, f: Arithmetic) -> Floats:
        return f.fma(p.a, x, p.b)

    @staticmethod
    def stepwise_derivative(x: Floats, p: Float32Parameters, f: Arithmetic) -> Floats | Scalar:
        return p.a


class Sigmoid(Neuron):
    neuron_type = T.sigmoid
    formula = "1 / (1 + e^-x)"
    slope = "e^x / (e^x + 1)^2"
    exact = spec.sigmoid, spec.sigmoid_slope

    @staticmethod
    def stepwise_forward(x: Floats, p: Float32Parameters, f: Arithmetic) -> Floats:
        return 1.0 / (1 + f.exp(-x))

    @staticmethod
    def stepwise_derivative(x: Floats, p: Float32Parameters, f: Arithmetic) -> Floats:
        e = f.exp(x)
        return e / f.square(e + 1)


class HardSigmoid(Neuron):
    neuron_type = T.hardSigmoid
    parameters = MappingProxyType({"a": 0.2, "b": 0.5})
    formula = "min(max(a x + b, 0), 1)"
    slope = "a if 0 <= a x + b <= 1 else 0"
    errata = (
        Erratum(
            "slope a where 0 <= x <= 1",
            "MPSCNNNeuron.h of the macOS 10.13 to 10.15 SDKs",
            "Tests x instead of a x + b. Later headers print 0 <= a x + b <= 1, and so does hardware behave.",
        ),
    )
    exact = spec.hard_sigmoid, spec.hard_sigmoid_slope

    @staticmethod
    def kinks(p: Parameters) -> tuple[float, ...]:
        return (-p.b / p.a, (1.0 - p.b) / p.a) if p.a else ()

    @staticmethod
    def stepwise_forward(x: Floats, p: Float32Parameters, f: Arithmetic) -> Floats:
        return f.min(f.max(f.fma(p.a, x, p.b), 0.0), 1.0)

    @staticmethod
    def stepwise_derivative(x: Floats, p: Float32Parameters, f: Arithmetic) -> Floats:
        u = f.fma(p.a, x, p.b)
        return f.where((u >= 0) & (u <= 1), p.a, 0.0)


class TanH(Neuron):
    neuron_type = T.tanH
    parameters = MappingProxyType({"a": 1.0, "b": 1.0})
    formula = "a tanh(b x)"
    slope = "a b (1 - tanh(b x)^2)"
    exact = spec.tanh, spec.tanh_slope

    @staticmethod
    def stepwise_forward(x: Floats, p: Float32Parameters, f: Arithmetic) -> Floats:
        return p.a * f.tanh(p.b * x)

    @staticmethod
    def stepwise_derivative(x: Floats, p: Float32Parameters, f: Arithmetic) -> Floats:
        t = f.tanh(p.b * x)
        return p.a * p.b * f.fma(-t, t, 1.0)


class Absolute(Neuron):
    neuron_type = T.absolute
    formula = "|x|"
    slope = "sign(x), and 0 at 0"
    exact = spec.absolute, spec.absolute_slope

    @staticmethod
    def kinks(p: Parameters) -> tuple[float, ...]:
        return (0.0,)

    @staticmethod
    def stepwise_forward(x: Floats, p: Float32Parameters, f: Arithmetic) -> Floats:
        return abs(x)

    @staticmethod
    def stepwise_derivative(x: Floats, p: Float32Parameters, f: Arithmetic) -> Floats:
        return f.where(x > 0, 1.0, f.where(x < 0, -1.0, 0.0))


class SoftPlus(Neuron):
    neuron_type = T.softPlus
    parameters = MappingProxyType({"a": 1.0, "b": 1.0})
    formula = "a ln(1 + e^(b x))"
    slope = "a b e^(b x) / (e^(b x) + 1)"
    exact = spec.soft_plus, spec.soft_plus_slope

    @staticmethod
    def stepwise_forward(x: Floats, p: Float32Parameters, f: Arithmetic) -> Floats:
        return p.a * f.log(1 + f.exp(p.b * x))

    @staticmethod
    def stepwise_derivative(x: Floats, p: Float32Parameters, f: Arithmetic) -> Floats:
        e = f.exp(p.b * x)
        return p.a * p.b * e / (e + 1)


class SoftSign(Neuron):
    neuron_type = T.softSign
    formula = "x / (1 + |x|)"
    slope = "1 / (|x| + 1)^2"
    exact = spec.soft_sign, spec.soft_sign_slope

    @staticmethod
    def stepwise_forward(x: Floats, p: Float32Parameters, f: Arithmetic) -> Floats:
        return x / (1 + abs(x))

    @staticmethod
    def stepwise_derivative(x: Floats, p: Float32Parameters, f: Arithmetic) -> Floats:
        return 1.0 / f.square(abs(x) + 1)


class ELU(Neuron):
    neuron_type = T.ELU
    parameters = MappingProxyType({"a": 1.0})
    formula = "x if x >= 0 else a (e^x - 1)"
    slope = "1 if x >= 0 else a e^x"
    errata = (
        Erratum(
            "a e^x - 1, without parentheses",
            "MPSNNGraphNodes.h of the macOS 10.13 to 10.15 SDKs, comment of the node",
            "The kernel's header prints a (e^x - 1), which is continuous at 0 and has the printed derivative.",
        ),
    )
    exact = spec.elu, spec.elu_slope

    @staticmethod
    def kinks(p: Parameters) -> tuple[float, ...]:
        return (0.0,)

    @staticmethod
    def stepwise_forward(x: Floats, p: Float32Parameters, f: Arithmetic) -> Floats:
        return f.where(x >= 0, x, p.a * (f.exp(x) - 1))

    @staticmethod
    def stepwise_derivative(x: Floats, p: Float32Parameters, f: Arithmetic) -> Floats:
        return f.where(x >= 0, 1.0, p.a * f.exp(x))


class PReLU(Neuron):
    neuron_type = T.pReLU
    per_channel = True
    formula = "x if x >= 0 else data[channel] x"
    slope = "1 if x >= 0 else data[channel]"
    exact = spec.rectified, spec.rectified_slope

    @staticmethod
    def kinks(p: Parameters) -> tuple[float, ...]:
        return (0.0,)

    @staticmethod
    def stepwise_forward(x: Floats, p: Float32Parameters, f: Arithmetic) -> Floats:
        return f.where(x >= 0, x, p.data * x)

    @staticmethod
    def stepwise_derivative(x: Floats, p: Float32Parameters, f: Arithmetic) -> Floats:
        return f.where(x >= 0, 1.0, p.data)


class ReLUN(Neuron):
    neuron_type = T.reLUN
    parameters = MappingProxyType({"a": 1.0, "b": 6.0})
    formula = "min(x if x >= 0 else a x, b)"
    slope = "0 if that has reached b, else 1 if x >= 0 else a"
    errata = (
        Erratum(
            "slope b where x >= b",
            "MPSCNNNeuron.h, all SDKs seen",
            "The derivative of the constant b is 0, and so does hardware behave. The cut is on the value, not on x, "
            "which matters for a < 0 and for b < 0.",
        ),
    )
    exact = spec.relun, spec.relun_slope

    @staticmethod
    def kinks(p: Parameters) -> tuple[float, ...]:
        below = (p.b / p.a,) if p.a and p.b / p.a < 0 else ()
        return (*below, 0.0, p.b) if p.b > 0 else (*below, 0.0)

    @staticmethod
    def stepwise_forward(x: Floats, p: Float32Parameters, f: Arithmetic) -> Floats:
        return f.min(f.where(x >= 0, x, p.a * x), p.b)

    @staticmethod
    def stepwise_derivative(x: Floats, p: Float32Parameters, f: Arithmetic) -> Floats:
        y = f.where(x >= 0, x, p.a * x)
        return f.where(y >= p.b, 0.0, f.where(x >= 0, 1.0, p.a))


class Power(Neuron):
    neuron_type = T.power
    parameters = MappingProxyType({"a": 1.0, "b": 0.0, "c": 1.0})
    formula = "(a x + b)^c"
    slope = "a c (a x + b)^(c - 1)"
    domain = "a x + b >= 0, or all x for an integer c; infinite where a x + b = 0 and c < 0"
    source = "MPSCNNNeuron.h; the defaults in the 2018 manual page of MPSCNNNeuronPower"
    exact = spec.power, spec.power_slope

    @staticmethod
    def stepwise_forward(x: Floats, p: Float32Parameters, f: Arithmetic) -> Floats:
        return f.pow(f.fma(p.a, x, p.b), p.c)

    @staticmethod
    def stepwise_derivative(x: Floats, p: Float32Parameters, f: Arithmetic) -> Floats:
        return p.a * p.c * f.pow(f.fma(p.a, x, p.b), p.c - 1)


class Exponential(Neuron):
    neuron_type = T.exponential
    parameters = MappingProxyType({"a": 1.0, "b": 0.0, "c": -1.0})
    formula = "c^(a x + b); c = -1 means base e"
    slope = "a ln(c) c^(a x + b); c = -1: a e^(a x + b)"
    domain = "all x for c > 0 or c = -1; a x + b >= 0 for c = 0; integers a x + b for other c < 0"
    source = "MPSCNNNeuron.h; the defaults in the 2018 manual page of MPSCNNNeuronExponential"
    exact = spec.exponential, spec.exponential_slope

    @staticmethod
    def stepwise_forward(x: Floats, p: Float32Parameters, f: Arithmetic) -> Floats:
        u = f.fma(p.a, x, p.b)
        return f.exp(u) if p.c == -1 else f.pow(p.c, u)

    @staticmethod
    def stepwise_derivative(x: Floats, p: Float32Parameters, f: Arithmetic) -> Floats:
        u = f.fma(p.a, x, p.b)
        return p.a * f.exp(u) if p.c == -1 else p.a * f.log(p.c) * f.pow(p.c, u)


class Logarithm(Neuron):
    neuron_type = T.logarithm
    parameters = MappingProxyType({"a": 1.0, "b": 0.0, "c": -1.0})
    formula = "log_c(a x + b); c = -1 means base e"
    slope = "a / (ln(c) (a x + b)); c = -1: a / (a x + b)"
    domain = "a x + b > 0, for c = -1, or c > 0 and c != 1; the slope on the whole line"
    source = "MPSCNNNeuron.h; the defaults in the 2018 manual page of MPSCNNNeuronLogarithm"
    exact = spec.logarithm, spec.logarithm_slope

    @staticmethod
    def stepwise_forward(x: Floats, p: Float32Parameters, f: Arithmetic) -> Floats:
        u = f.fma(p.a, x, p.b)
        return f.log(u) if p.c == -1 else f.log(u) / f.log(p.c)

    @staticmethod
    def stepwise_derivative(x: Floats, p: Float32Parameters, f: Arithmetic) -> Floats:
        u = f.fma(p.a, x, p.b)
        return p.a / u if p.c == -1 else p.a / (f.log(p.c) * u)


class GeLU(Neuron):
    neuron_type = T.geLU
    formula = "x/2 (1 + erf(x / sqrt 2))"
    slope = "1/2 (1 + erf(x / sqrt 2)) + x e^(-x^2 / 2) / sqrt(2 pi)"
    source = "MPSCNNNeuron.h, from the macOS 10.15 SDK on"
    errata = (
        Erratum(
            "1/2 (1 + erf(x sqrt(1/2))) + sqrt(1/2) (2 / sqrt pi) e^(-x^2 / 2) x",
            "MPSCNNNeuron.h, macOS 10.15 SDK and later",
            "The second term is twice that of the derivative; a parenthesis is missing as well. Hardware computes the "
            "derivative.",
        ),
    )
    exact = spec.gelu, spec.gelu_slope

    @staticmethod
    def stepwise_forward(x: Floats, p: Float32Parameters, f: Arithmetic) -> Floats:
        return 0.5 * x * (1 + f.erf(x * RECIPROCAL_SQRT_2))

    @staticmethod
    def stepwise_derivative(x: Floats, p: Float32Parameters, f: Arithmetic) -> Floats:
        bell = RECIPROCAL_SQRT_2PI * f.exp(-0.5 * x * x)
        return f.fma(0.5, 1 + f.erf(x * RECIPROCAL_SQRT_2), bell * x)


NEURONS: Mapping[MPSCNNNeuronType, Neuron] = MappingProxyType(
    {
        row.neuron_type: row()
        for row in (
            None_,
            ReLU,
            Linear,
            Sigmoid,
            HardSigmoid,
            TanH,
            Absolute,
            SoftPlus,
            SoftSign,
            ELU,
            PReLU,
            ReLUN,
            Power,
            Exponential,
            Logarithm,
            GeLU,
        )
    }
)
"""The row of each neuron type."""
