"""
The sixteen neurons: one class each, and the only list of them.

Every kernel is called as ``kernel(x, p, w)`` with a block of float64 sources, the descriptor and a `Workspace`, and
returns a buffer with the result to within the row's `error_bound`, relative. It knows nothing of formats. What
`evaluate` does for all neurons alike is not repeated here: NaN stays NaN, and its payload is dropped (N6).

In the formulas ``u`` is ``a x + b``.

Beside them stands each formula as a plain shader evaluates it, called as ``stepwise_forward(x, p, f)`` with float32
sources, float32 parameters and an `Arithmetic`. Python's numbers in it are exact, or become the nearest float32.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from types import MappingProxyType
from typing import ClassVar, Protocol, TypeAlias

import numpy as np

from mpsref.arrays import Floats, Mask
from mpsref.enums import MPSCNNNeuronType
from mpsref.neuron.exact import Digits, Exact
from mpsref.neuron.tail import END, RECIPROCAL_SQRT_2PI, scaled_tail
from mpsref.neuron.workspace import (
    LARGEST,
    MODERATE,
    Array,
    Workspace,
    is_short,
    product_beside,
    product_error,
    two_sum,
)
from mpsref.storage import round_to_odd

__all__ = ["NEURONS", "Erratum", "Neuron"]

T = MPSCNNNeuronType
LARGEST32 = float(np.finfo(np.float32).max)

TINY, TINY_SQUARE = 2.0**-40, 2.0**-20
"""What is small, or has a small square, beside 1: the next terms of a series are below 2^-40 of the last."""

RECIPROCAL_SQRT_2 = 0.7071067811865476
Scalar: TypeAlias = np.float32 | float


class Parameters(Protocol):
    """What a row reads of a descriptor."""

    @property
    def a(self) -> float:
        """First parameter."""

    @property
    def b(self) -> float:
        """Second parameter."""

    @property
    def c(self) -> float:
        """Third parameter."""


class Float32Parameters(Protocol):
    """What a row's stepwise formulas read: float32, so that products of parameters round too."""

    @property
    def a(self) -> np.float32:
        """First parameter."""

    @property
    def b(self) -> np.float32:
        """Second parameter."""

    @property
    def c(self) -> np.float32:
        """Third parameter."""

    @property
    def data(self) -> Floats:
        """The slope of each element, for a neuron with a slope for each channel."""


class Arithmetic(Protocol):
    """
    What a stepwise formula needs besides ``+``, ``-``, ``*``, ``/`` and ``abs`` of float32 arrays.

    Each result is rounded once to float32, but for a product in `fma`, which is rounded too unless it is fused.
    """

    def fma(self, a: Floats | Scalar, b: Floats | Scalar, c: Floats | Scalar) -> Floats:
        """``a b + c``: one rounding where the mode contracts it, else two; of two products `a b` is the left one."""

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
        """The smaller, with -0 below +0; `y` where `x` is NaN."""

    def max(self, x: Floats, y: Scalar) -> Floats:
        """The larger likewise."""

    def where(self, condition: Mask, x: Floats | Scalar, y: Floats | Scalar) -> Floats:
        """`x` where the condition holds, else `y`."""


class Erratum:
    """
    A place where Apple's header prints something that is not the derivative, or not the forward that runs.

    Attributes
    ----------
    printed : str
        What stands in the header.
    where : str
        The header and the SDKs in which it was read.
    why : str
        What mpsref computes instead, and the evidence.
    """

    def __init__(self, printed: str, where: str, why: str) -> None:
        self.printed = printed
        self.where = where
        self.why = why


class Neuron(ABC):
    """
    One row of the table. A subclass states the facts; instances hold nothing.

    Attributes
    ----------
    neuron_type : MPSCNNNeuronType
        Apple's name and raw value.
    parameters : Mapping[str, float]
        The parameters that it has, with their documented defaults.
    per_channel : bool
        Whether the slope below zero is given for each feature channel instead.
    formula, slope : str
        Forward and derivative, as text.
    domain : str
        Where the forward is a real number, as text.
    source : str
        Where Apple documents it.
    errata : tuple of Erratum
        What is printed wrongly there.
    slope_is_constant : bool
        Whether the derivative does not depend on the source, and so ignores a NaN there (N6).
    is_exact : bool
        Whether the kernels give the exact value, rounded to odd, so that nothing about its rounding is open. Where
        not, `beside`, `exact_forward` and `exact_derivative` decide what the kernels leave open.
    """

    neuron_type: ClassVar[MPSCNNNeuronType]
    parameters: ClassVar[Mapping[str, float]] = MappingProxyType({})
    per_channel: ClassVar[bool] = False
    formula: ClassVar[str]
    slope: ClassVar[str]
    domain: ClassVar[str] = "all x"
    source: ClassVar[str] = "MPSCNNNeuron.h"
    errata: ClassVar[tuple[Erratum, ...]] = ()
    slope_is_constant: ClassVar[bool] = False
    is_exact: ClassVar[bool] = False

    @staticmethod
    @abstractmethod
    def forward(x: Array, p: Parameters, w: Workspace) -> Array:
        """f(x)."""

    @staticmethod
    @abstractmethod
    def derivative(x: Array, p: Parameters, w: Workspace) -> Array:
        """f'(x), and at a kink the slope that the documented comparison chooses (N4)."""

    @staticmethod
    @abstractmethod
    def stepwise_forward(x: Floats, p: Float32Parameters, f: Arithmetic) -> Floats:
        """f(x) as a plain shader computes it: the documented formula in float32, with all its faults."""

    @staticmethod
    @abstractmethod
    def stepwise_derivative(x: Floats, p: Float32Parameters, f: Arithmetic) -> Floats | Scalar:
        """f'(x) likewise, as `slope` prints it."""

    @staticmethod
    def exact_forward(x: Fraction, p: Parameters, m: Digits) -> Exact:
        """f(x) at a finite x where it is a real number, exactly or to the digits of `m`."""
        raise NotImplementedError

    @staticmethod
    def exact_derivative(x: Fraction, p: Parameters, m: Digits) -> Exact:
        """f'(x) likewise."""
        raise NotImplementedError

    @staticmethod
    def beside(x: Array, p: Parameters) -> Array:
        """
        f(x) where it lies beside a float64, by so little that only the side matters: that float64, rounded to odd.

        NaN elsewhere. It spares `exact_forward` the many sources of a saturated image.
        """
        return np.full_like(x, np.nan)

    @staticmethod
    def slope_beside(x: Array, p: Parameters) -> tuple[Array, Array]:
        """
        f'(x) where it lies beside a float64: that float64 exactly, and the rest, good to 2^-40 of itself.

        NaN elsewhere. The product with an upstream gradient may be a tie then, and is so for many gradients.
        """
        return np.full_like(x, np.nan), np.zeros_like(x)

    @staticmethod
    def is_constant(p: Parameters) -> bool:
        """Whether the forward is the same at every source, so that one decision serves all."""
        return False

    @classmethod
    def error_bound(cls, p: Parameters) -> float:
        """
        Largest relative error of `forward`, for sources and results of at most 32 bits; 0 if nothing is open.

        The longest chain of operations loses less than 2^-48 with functions good to 4 ULP; the rest is a margin.
        """
        return 0.0 if cls.is_exact else 2.0**-44

    @classmethod
    def slope_error_bound(cls, p: Parameters) -> float:
        """Largest relative error of `derivative` likewise."""
        return cls.error_bound(p)

    @classmethod
    def roundings(cls, p: Parameters) -> int | None:
        """
        The largest number of roundings in `forward`, if it is 0 or 1; else None.

        After at most one rounding a result is correctly rounded in whatever floating format the kernel runs.
        """
        return None

    @classmethod
    def slope_is_one(cls, p: Parameters) -> bool:
        """Whether the derivative is 1 everywhere."""
        return False

    @classmethod
    def slope_is_rounded(cls, p: Parameters) -> bool:
        """Whether anything is rounded in `derivative`, in whatever floating format it runs."""
        return True

    @staticmethod
    def kinks(p: Parameters) -> tuple[float, ...]:
        """Where f' may jump, as float64."""
        return ()


class None_(Neuron):
    neuron_type = T.none
    is_exact = True
    formula = "x"
    slope = "1"
    source = "MPSCNNNeuronType.h"
    slope_is_constant = True

    @staticmethod
    def forward(x: Array, p: Parameters, w: Workspace) -> Array:
        return x

    @staticmethod
    def derivative(x: Array, p: Parameters, w: Workspace) -> Array:
        return w.filled(1.0)

    @classmethod
    def roundings(cls, p: Parameters) -> int | None:
        return 0

    @classmethod
    def slope_is_one(cls, p: Parameters) -> bool:
        return True

    @classmethod
    def slope_is_rounded(cls, p: Parameters) -> bool:
        return False

    @staticmethod
    def stepwise_forward(x: Floats, p: Float32Parameters, f: Arithmetic) -> Floats:
        return x

    @staticmethod
    def stepwise_derivative(x: Floats, p: Float32Parameters, f: Arithmetic) -> Floats | Scalar:
        return 1.0


def _rectified(x: Array, slope: float, w: Workspace, out: Array) -> Array:
    """``x`` where x >= 0, else ``slope x``; slope 0 gives 0 at -infinity too (N6)."""
    if slope == 0 and not w.regular:
        np.multiply(np.clip(x, -LARGEST32, LARGEST32, out=w.u), slope, out=out)
    else:
        np.multiply(x, slope, out=out)
    if math.copysign(1.0, slope) > 0:
        # The larger of the two, or the smaller; where both are zero they have the same sign. Faster than to select.
        return np.maximum(x, out, out=out) if slope <= 1 else np.minimum(x, out, out=out)
    return w.select(x, out, x, out)


class ReLU(Neuron):
    neuron_type = T.reLU
    is_exact = True
    parameters = MappingProxyType({"a": 0.0})
    formula = "x if x >= 0 else a x"
    slope = "1 if x >= 0 else a"

    @staticmethod
    def forward(x: Array, p: Parameters, w: Workspace) -> Array:
        return _rectified(x, p.a, w, w.y)

    @staticmethod
    def derivative(x: Array, p: Parameters, w: Workspace) -> Array:
        return w.select(x, p.a, 1.0, w.y)

    @classmethod
    def roundings(cls, p: Parameters) -> int | None:
        return 1

    @classmethod
    def slope_is_rounded(cls, p: Parameters) -> bool:
        return False

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

    @staticmethod
    def forward(x: Array, p: Parameters, w: Workspace) -> Array:
        if p.b or not p.a:
            return w.line(x, p.a, p.b, w.y)
        y = np.multiply(x, p.a, out=w.y)
        # A zero plus 0; but a product that only vanishes when it is rounded keeps its sign.
        zero = x == 0
        if np.count_nonzero(zero):
            np.copyto(y, np.add(y, p.b, out=w.t), where=zero)
        return y

    @staticmethod
    def derivative(x: Array, p: Parameters, w: Workspace) -> Array:
        return w.filled(p.a)

    @staticmethod
    def beside(x: Array, p: Parameters) -> Array:
        return round_to_odd(*two_sum(x * p.a, p.b))

    @classmethod
    def error_bound(cls, p: Parameters) -> float:
        return 0.0 if is_short(p.a) else 2.0**-52

    @classmethod
    def slope_error_bound(cls, p: Parameters) -> float:
        return 0.0

    @classmethod
    def roundings(cls, p: Parameters) -> int | None:
        return 1 if p.b == 0 and p.a != 0 else None

    @classmethod
    def slope_is_one(cls, p: Parameters) -> bool:
        return p.a == 1

    @classmethod
    def slope_is_rounded(cls, p: Parameters) -> bool:
        return False

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

    @staticmethod
    def forward(x: Array, p: Parameters, w: Workspace) -> Array:
        if w.is_moderate():
            e = np.exp(x, out=w.t)
            return np.divide(e, np.add(e, 1.0, out=w.u), out=w.y)
        e = w.decay((x, None), 1.0, w.t)
        return np.divide(w.select(x, e, 1.0, w.v), np.add(e, 1.0, out=w.u), out=w.y)

    @staticmethod
    def derivative(x: Array, p: Parameters, w: Workspace) -> Array:
        y = w.logistic_slope(x, 1.0)
        return y if w.is_moderate() else w.bounded_slope(y, lambda: np.isfinite(x), 1.0)

    @staticmethod
    def exact_forward(x: Fraction, p: Parameters, m: Digits) -> Exact:
        e = m.exp(-abs(x))
        return 1 / m.one_plus(e) if x >= 0 else e / (1 + e)

    @staticmethod
    def exact_derivative(x: Fraction, p: Parameters, m: Digits) -> Exact:
        e = m.exp(-abs(x))
        return e / (1 + e) ** 2

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

    @staticmethod
    def forward(x: Array, p: Parameters, w: Workspace) -> Array:
        y = np.clip(w.line(x, p.a, p.b, w.y), 0.0, 1.0, out=w.y)
        return np.add(y, 0.0, out=y)

    @staticmethod
    def derivative(x: Array, p: Parameters, w: Workspace) -> Array:
        u = w.rounded_affine(x, p.a, p.b, w.t)
        inside = (u >= 0) & (u <= 1)
        # A sum that is rounded to 0 is 0, one that is rounded to 1 may be greater.
        if w.wide or np.count_nonzero(u == 1):
            u, e = w.affine(x, p.a, p.b, w.t)
            if e is not None:
                inside &= ((u != 0) | (e >= 0)) & ((u != 1) | (e <= 0))
        y = np.multiply(inside, p.a, out=w.y)
        # Outside it is +0, whatever the sign of a.
        return y if p.a > 0 else np.add(y, 0.0, out=y)

    @staticmethod
    def beside(x: Array, p: Parameters) -> Array:
        return np.clip(Linear.beside(x, p), 0.0, 1.0)

    @classmethod
    def error_bound(cls, p: Parameters) -> float:
        return Linear.error_bound(p)

    @classmethod
    def slope_error_bound(cls, p: Parameters) -> float:
        return 0.0

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

    @staticmethod
    def forward(x: Array, p: Parameters, w: Workspace) -> Array:
        z, _ = w.product(x, p.b, w.t)
        return w.product(np.tanh(z, out=w.t), p.a, w.y)[0]

    @staticmethod
    def derivative(x: Array, p: Parameters, w: Workspace) -> Array:
        # 1 - tanh(z)^2 is four times the slope of the logistic function at 2 z, which does not cancel.
        k = p.a * p.b
        y = w.logistic_slope(x, 2.0 * p.b)
        np.multiply(y, 4.0 * k, out=y)
        return y if w.is_moderate(2.0 * p.b) or not k else w.bounded_slope(y, lambda: np.isfinite(x), k)

    @staticmethod
    def is_constant(p: Parameters) -> bool:
        return p.a * p.b == 0

    @staticmethod
    def beside(x: Array, p: Parameters) -> Array:
        z = x * p.b
        limit = np.copysign(1.0, z) * p.a
        # Near 0 it is a (z - z^3 / 3 + 2 z^5 / 15).
        tiny = np.where(np.abs(z) < TINY_SQUARE, product_beside(z, -(z**3) / 3.0 * (1.0 - 0.4 * z * z), p.a), np.nan)
        return np.where(np.abs(z) > 30, np.nextafter(limit, 0.0), tiny)

    @staticmethod
    def slope_beside(x: Array, p: Parameters) -> tuple[Array, Array]:
        z = x * p.b
        k = np.where(np.abs(z) < TINY_SQUARE, p.a * p.b, np.nan)
        return k, -k * z * z * (1.0 - z * z / 1.5)

    @staticmethod
    def exact_forward(x: Fraction, p: Parameters, m: Digits) -> Exact:
        z = Fraction(p.b) * x
        e = m.expm1(-2 * abs(z))
        return Decimal(p.a) * (-e if z > 0 else e) / (2 + e)

    @staticmethod
    def exact_derivative(x: Fraction, p: Parameters, m: Digits) -> Exact:
        e = m.exp(-2 * abs(Fraction(p.b) * x))
        return 4 * m.decimal(Fraction(p.a) * Fraction(p.b)) * e / (1 + e) ** 2

    @staticmethod
    def stepwise_forward(x: Floats, p: Float32Parameters, f: Arithmetic) -> Floats:
        return p.a * f.tanh(p.b * x)

    @staticmethod
    def stepwise_derivative(x: Floats, p: Float32Parameters, f: Arithmetic) -> Floats:
        t = f.tanh(p.b * x)
        return p.a * p.b * f.fma(-t, t, 1.0)


class Absolute(Neuron):
    neuron_type = T.absolute
    is_exact = True
    formula = "|x|"
    slope = "sign(x), and 0 at 0"

    @staticmethod
    def forward(x: Array, p: Parameters, w: Workspace) -> Array:
        return np.abs(x, out=w.y)

    @staticmethod
    def derivative(x: Array, p: Parameters, w: Workspace) -> Array:
        y = w.select(x, -1.0, 1.0, w.y)
        zero = x == 0
        if np.count_nonzero(zero):
            np.copyto(y, 0.0, where=zero)
        return y

    @classmethod
    def roundings(cls, p: Parameters) -> int | None:
        return 0

    @classmethod
    def slope_is_rounded(cls, p: Parameters) -> bool:
        return False

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

    @staticmethod
    def forward(x: Array, p: Parameters, w: Workspace) -> Array:
        z = w.product(x, p.b, w.t)
        if w.is_moderate(p.b):
            np.log1p(np.exp(z[0], out=w.u), out=w.u)
        else:
            # ln(1 + e^z) = max(z, 0) + log1p(e^-|z|): two terms that never cancel or overflow.
            np.log1p(w.decay(z, 1.0, w.u), out=w.u)
            np.add(np.maximum(z[0], 0.0, out=w.v), w.u, out=w.u)
        return w.product(w.u, p.a, w.y)[0]

    @staticmethod
    def derivative(x: Array, p: Parameters, w: Workspace) -> Array:
        z = w.product(x, p.b, w.t)
        k = p.a * p.b
        if w.is_moderate(p.b):
            e = np.exp(z[0], out=w.u)
            return w.product(np.divide(e, np.add(e, 1.0, out=w.v), out=w.y), k, w.y)[0]
        e = w.decay(z, 1.0, w.u)
        np.add(e, 1.0, out=w.v)
        np.divide(w.select(z[0], e, 1.0, w.u), w.v, out=w.y)
        np.multiply(w.y, k, out=w.y)
        return w.bounded_slope(w.y, lambda: np.isfinite(x), k) if k else w.y

    @staticmethod
    def is_constant(p: Parameters) -> bool:
        return p.a * p.b == 0

    @staticmethod
    def beside(x: Array, p: Parameters) -> Array:
        z = x * p.b
        return np.where(z > 30, product_beside(z, np.exp(-np.clip(z, 0.0, MODERATE)), p.a), np.nan)

    @staticmethod
    def slope_beside(x: Array, p: Parameters) -> tuple[Array, Array]:
        z, k = x * p.b, p.a * p.b
        near, far = np.abs(z) < TINY, z > 30
        slope = np.where(near, k / 2.0, np.where(far, k, np.nan))
        return slope, slope * np.where(near, z / 2.0, -np.exp(-np.clip(z, 0.0, MODERATE)))

    @staticmethod
    def exact_forward(x: Fraction, p: Parameters, m: Digits) -> Exact:
        z = Fraction(p.b) * x
        if z <= 0:
            return Decimal(p.a) * m.log1p(m.exp(z))
        top = m.decimal(z)
        return Decimal(p.a) * (top + max(m.log1p(m.exp(-z)), top * m.visible))

    @staticmethod
    def exact_derivative(x: Fraction, p: Parameters, m: Digits) -> Exact:
        z = Fraction(p.b) * x
        e = m.exp(-abs(z))
        return m.decimal(Fraction(p.a) * Fraction(p.b)) * (1 / m.one_plus(e) if z >= 0 else e / (1 + e))

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

    @staticmethod
    def forward(x: Array, p: Parameters, w: Workspace) -> Array:
        if not w.regular:
            x = np.clip(x, -LARGEST, LARGEST, out=w.u)
        np.add(np.abs(x, out=w.t), 1.0, out=w.t)
        return np.divide(x, w.t, out=w.y)

    @staticmethod
    def derivative(x: Array, p: Parameters, w: Workspace) -> Array:
        np.square(np.add(np.abs(x, out=w.t), 1.0, out=w.t), out=w.t)
        y = np.divide(1.0, w.t, out=w.y)
        return w.bounded_slope(y, lambda: np.isfinite(x), 1.0) if w.wide else y

    @staticmethod
    def exact_forward(x: Fraction, p: Parameters, m: Digits) -> Exact:
        return x / (1 + abs(x))

    @staticmethod
    def exact_derivative(x: Fraction, p: Parameters, m: Digits) -> Exact:
        return 1 / (1 + abs(x)) ** 2

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

    @staticmethod
    def forward(x: Array, p: Parameters, w: Workspace) -> Array:
        t = np.expm1(np.minimum(x, w.filled(0.0), out=w.t), out=w.t)
        y, _ = w.product(t, p.a, w.y)
        if not 0 <= p.a <= 1:
            return w.select(x, y, x, w.y)
        y = np.maximum(x, y, out=w.y)
        zero = x == 0
        if np.count_nonzero(zero):
            np.copyto(y, x, where=zero)
        return y

    @staticmethod
    def derivative(x: Array, p: Parameters, w: Workspace) -> Array:
        y = np.exp(np.minimum(x, w.filled(0.0), out=w.y), out=w.y)
        if p.a != 1:
            y = w.select(x, np.multiply(y, p.a, out=w.t), 1.0, y)
        return w.bounded_slope(y, lambda: np.isfinite(x), p.a) if p.a and not w.is_moderate() else y

    @staticmethod
    def beside(x: Array, p: Parameters) -> Array:
        tiny = np.where((x < 0) & (x > -TINY), product_beside(x, x * x / 2.0, p.a), np.nan)
        return np.where(x < -60, np.nextafter(-p.a, 0.0), tiny)

    @staticmethod
    def slope_beside(x: Array, p: Parameters) -> tuple[Array, Array]:
        slope = np.where(x >= 0, 1.0, np.where(x > -TINY, p.a, np.nan))
        return slope, np.where(x >= 0, 0.0, slope * x)

    @staticmethod
    def exact_forward(x: Fraction, p: Parameters, m: Digits) -> Exact:
        return x if x >= 0 else Decimal(p.a) * m.expm1(x)

    @staticmethod
    def exact_derivative(x: Fraction, p: Parameters, m: Digits) -> Exact:
        return Fraction(1) if x >= 0 else Decimal(p.a) * m.exp(x)

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
    is_exact = True
    per_channel = True
    formula = "x if x >= 0 else data[channel] x"
    slope = "1 if x >= 0 else data[channel]"

    @staticmethod
    def forward(x: Array, p: Parameters, w: Workspace) -> Array:
        assert w.slopes is not None
        if w.slopes_shrink:
            return np.maximum(x, np.multiply(x, w.slopes, out=w.y), out=w.y)
        finite = x if w.regular else np.clip(x, -LARGEST32, LARGEST32, out=w.u)
        product = np.multiply(x, w.slopes, out=w.y)
        if not w.regular:
            np.copyto(product, np.multiply(finite, w.slopes, out=w.t), where=w.slopes == 0)
        return w.select(x, product, x, w.y)

    @staticmethod
    def derivative(x: Array, p: Parameters, w: Workspace) -> Array:
        assert w.slopes is not None
        return w.select(x, w.slopes, 1.0, w.y)

    @classmethod
    def roundings(cls, p: Parameters) -> int | None:
        return 1

    @classmethod
    def slope_is_rounded(cls, p: Parameters) -> bool:
        return False

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
    is_exact = True
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

    @staticmethod
    def forward(x: Array, p: Parameters, w: Workspace) -> Array:
        y = _rectified(x, p.a, w, w.y)
        if p.b:
            return np.minimum(y, w.filled(p.b), out=y)
        np.copyto(y, p.b, where=y >= p.b)
        return y

    @staticmethod
    def derivative(x: Array, p: Parameters, w: Workspace) -> Array:
        below = _rectified(x, p.a, w, w.t) < p.b
        y = np.multiply(w.select(x, p.a, 1.0, w.y), below, out=w.y)
        return y if p.a >= 0 else np.add(y, 0.0, out=y)

    @classmethod
    def roundings(cls, p: Parameters) -> int | None:
        # Where a x vanishes, the comparison with a bound of 0 must still see its sign.
        return 1 if p.b else None

    @classmethod
    def slope_is_rounded(cls, p: Parameters) -> bool:
        # a x might be rounded to b.
        return p.a < 0 or p.b <= 0

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

    @staticmethod
    def forward(x: Array, p: Parameters, w: Workspace) -> Array:
        if p.c == 1:
            return Linear.forward(x, p, w)
        return Power._power(x, p, p.c, w)[0]

    @staticmethod
    def derivative(x: Array, p: Parameters, w: Workspace) -> Array:
        k = p.a * p.c
        if k == 0:
            # A constant: slope 0 wherever it is a number at all.
            u = w.rounded_affine(x, p.a, p.b, w.t)
            w.y.fill(0.0)
            np.copyto(w.y, np.nan, where=(u == 0) & (p.c < 0))
            return Power._real_only(w.y, u, p.c)
        if abs(p.c) < 2.0**53:
            y, u = Power._power(x, p, p.c - 1.0, w)
        else:
            # c - 1 is no float64, and c itself would have the sign of an even power.
            y, u = Power._power(x, p, p.c, w)
            np.divide(y, u, out=y, where=u != 0)
        np.multiply(y, k, out=y)
        w.bounded_slope(y, lambda: np.isfinite(x) & (u != 0), np.copysign(k, y))
        return Power._real_only(y, u, p.c)

    @staticmethod
    def _power(x: Array, p: Parameters, c: float, w: Workspace) -> tuple[Array, Array]:
        """``(a x + b)^c``, and a x + b rounded."""
        if w.wide or abs(c) > 64:
            pair = w.affine(x, p.a, p.b, w.t)
            y = w.power_of_rest(pair, c, np.power(pair[0], c, out=w.y))
            return Power._real_only(y, pair[0], c), pair[0]
        u = w.rounded_affine(x, p.a, p.b, w.t)
        if c == 2:
            y = np.square(u, out=w.y)
        elif c == 3:
            y = np.multiply(np.square(u, out=w.y), u, out=w.y)
        elif c == -1:
            y = np.divide(1.0, u, out=w.y)
        elif c == 1:
            y = w.y
            np.copyto(y, u)
        else:
            y = np.power(u, c, out=w.y)
        return (y if w.regular else Power._real_only(y, u, c)), u

    @staticmethod
    def _real_only(y: Array, u: Array, c: float) -> Array:
        # IEEE pow answers for -infinity; the real power of a negative base needs an integer exponent (N6).
        if c != math.floor(c):
            y[u < 0] = np.nan
        return y

    @staticmethod
    def is_constant(p: Parameters) -> bool:
        return p.a * p.c == 0

    @staticmethod
    def exact_forward(x: Fraction, p: Parameters, m: Digits) -> Exact:
        u = Fraction(p.a) * x + Fraction(p.b)
        return u ** int(p.c) if Power._is_small_integer(p.c) else m.power(u, p.c)

    @staticmethod
    def exact_derivative(x: Fraction, p: Parameters, m: Digits) -> Exact:
        u = Fraction(p.a) * x + Fraction(p.b)
        k = Fraction(p.a) * Fraction(p.c)
        if Power._is_small_integer(p.c):
            return k * u ** (int(p.c) - 1)
        return m.power(u, p.c) * m.decimal(k) / m.decimal(u)

    @staticmethod
    def _is_small_integer(c: float) -> bool:
        return abs(c) <= 64 and c == int(c)

    @staticmethod
    def beside(x: Array, p: Parameters) -> Array:
        return Linear.beside(x, p) if p.c == 1 else np.full_like(x, np.nan)

    @staticmethod
    def slope_beside(x: Array, p: Parameters) -> tuple[Array, Array]:
        (u, rest), k = two_sum(x * p.a, p.b), 2.0 * p.a
        slope = u * k
        exact = (product_error(u, k, slope) == 0) & (p.c == 2)
        return np.where(exact, slope, np.nan), rest * k

    @classmethod
    def error_bound(cls, p: Parameters) -> float:
        # Where c is huge, the logarithm of the result has more digits before the point than elsewhere.
        return Linear.error_bound(p) if p.c == 1 else 2.0**-44 if abs(p.c) < 2.0**40 else 2.0**-40

    @classmethod
    def slope_error_bound(cls, p: Parameters) -> float:
        return cls.error_bound(p) if p.c != 1 else 0.0

    @classmethod
    def roundings(cls, p: Parameters) -> int | None:
        return Linear.roundings(p) if p.c == 1 else None

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

    @staticmethod
    def forward(x: Array, p: Parameters, w: Workspace) -> Array:
        if p.c > 0 or p.c == -1:
            u = w.affine(x, p.a, p.b, w.t) if w.wide else (w.rounded_affine(x, p.a, p.b, w.t), None)
            if p.c == -1:
                return w.exponential(u, 1.0, np.exp(u[0], out=w.y))
            power = np.exp2(u[0], out=w.y) if p.c == 2 else np.power(p.c, u[0], out=w.y)
            return w.exponential(u, math.log(p.c), power)
        u = w.affine(x, p.a, p.b, w.t)
        y = np.power(p.c, u[0], out=w.y)
        y[np.isinf(u[0]) if p.c < 0 else u[0] < 0] = np.nan
        if p.c < 0 and u[1] is not None:
            # A sum that is not a float64 is an integer if both parts are, and the small one decides the sign.
            y[u[1] != np.rint(u[1])] = np.nan
            np.negative(y, out=y, where=np.fmod(u[1], 2.0) != 0)
        return y

    @staticmethod
    def derivative(x: Array, p: Parameters, w: Workspace) -> Array:
        if p.c == 0:
            u, _ = w.affine(x, p.a, p.b, w.t)
            w.y.fill(np.nan)
            np.copyto(w.y, 0.0, where=u > 0)
            return w.y
        if p.c < 0 and p.c != -1:
            w.y.fill(np.nan)
            return w.y
        k = p.a * (1.0 if p.c == -1 else math.log(p.c))
        if k == 0:
            w.y.fill(0.0)
            return w.y
        y, _ = w.product(Exponential.forward(x, p, w), k, w.y)
        moderate = (w.reach * abs(p.a) + abs(p.b)) * abs(k / p.a) < MODERATE
        return y if moderate and not w.wide else w.bounded_slope(y, lambda: np.isfinite(x), k)

    @classmethod
    def error_bound(cls, p: Parameters) -> float:
        # What the rounding of a x + b loses shows as often as the exponent is large, up to 745.
        return 2.0**-44 if p.b == 0 else 2.0**-42

    @staticmethod
    def is_constant(p: Parameters) -> bool:
        return p.a == 0

    @staticmethod
    def slope_beside(x: Array, p: Parameters) -> tuple[Array, Array]:
        u = x * p.a + p.b
        slope = np.where((np.abs(u) < TINY) & (p.c == -1), p.a, np.nan)
        return slope, slope * u

    @staticmethod
    def exact_forward(x: Fraction, p: Parameters, m: Digits) -> Exact:
        u = Fraction(p.a) * x + Fraction(p.b)
        if p.c == 0:
            return Fraction(int(u == 0))
        if p.c != -1 and u.denominator == 1 and abs(u) <= 512:
            return Fraction(p.c) ** int(u)
        if p.c < 0 and p.c != -1:
            size = m.exp(m.decimal(u) * m.log_base(-p.c))
            return -size if u % 2 else size
        return m.exp(m.decimal(u) * m.log_base(p.c))

    @staticmethod
    def exact_derivative(x: Fraction, p: Parameters, m: Digits) -> Exact:
        power = Exponential.exact_forward(x, p, m)
        size = m.quotient(power) if isinstance(power, Fraction) else power
        return Decimal(p.a) * m.log_base(p.c) * size

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

    @staticmethod
    def forward(x: Array, p: Parameters, w: Workspace) -> Array:
        u = w.affine(x, p.a, p.b, w.t)
        # Near u = 1 the error of the sum is all there is of the logarithm.
        y = np.log(u[0], out=w.y)
        if u[1] is not None:
            y += np.divide(u[1], u[0], out=np.zeros_like(y), where=u[0] != 0)
        return y if p.c == -1 else np.divide(y, Logarithm._log_base(p), out=y)

    @staticmethod
    def derivative(x: Array, p: Parameters, w: Workspace) -> Array:
        u = w.rounded_affine(x, p.a, p.b, w.t)
        if p.c != -1:
            np.multiply(u, Logarithm._log_base(p), out=u)
        return np.divide(p.a, u, out=w.y)

    @staticmethod
    def _log_base(p: Parameters) -> float:
        if p.c == -1:
            return 1.0
        return math.log(p.c) if p.c > 0 and p.c != 1 else math.nan

    @staticmethod
    def is_constant(p: Parameters) -> bool:
        return p.a == 0

    @staticmethod
    def slope_beside(x: Array, p: Parameters) -> tuple[Array, Array]:
        u, rest = two_sum(x * p.a, p.b)
        slope = np.divide(p.a, u)
        # A quotient of a float32 that is a float64 and no rounded one has few bits: the product tells.
        exact = (rest == 0) & (slope * u == p.a) & (product_error(u, slope, slope * u) == 0) & (p.c == -1)
        return np.where(exact & (slope == slope.astype(np.float32)), slope, np.nan), np.zeros_like(x)

    @staticmethod
    def exact_forward(x: Fraction, p: Parameters, m: Digits) -> Exact:
        return m.decimal(Fraction(p.a) * x + Fraction(p.b)).ln() / m.log_base(p.c)

    @staticmethod
    def exact_derivative(x: Fraction, p: Parameters, m: Digits) -> Exact:
        u = Fraction(p.a) * x + Fraction(p.b)
        return Fraction(p.a) / u if p.c == -1 else Decimal(p.a) / (m.decimal(u) * m.log_base(p.c))

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

    # The derivative's zero, as a float64 and the rest, and its Taylor coefficients there, from the first on
    # (computed with ball arithmetic; a test checks the kernel that they make).
    ROOT: ClassVar[tuple[float, float]] = (-0.7517915246935645, 1.4956759177009883e-17)
    TAYLOR: ClassVar[tuple[float, ...]] = (
        0.4314939923140469, 0.388284982990552, -0.018199676398671087, -0.1140082332972217,
        -0.014771522148244337, 0.019421679838189067, 0.004539228379125415, -0.002239538068073497,
        -0.0007448268386746817, 0.00018633974623233514, 8.615947861116571e-05, -1.121438018842664e-05,
        -7.74846130700372e-06, 4.3284506257392273e-07, 5.702764979242107e-07, -1.6044265494246427e-09,
        -3.5459866461783865e-08, -1.396942086426202e-09, 1.90319840501314e-09, 1.4506418938779426e-10,
        -8.950037692726255e-11, -9.950340824808053e-12, 3.725967039270119e-12, 5.482292964742324e-13,
    )  # fmt: skip

    @staticmethod
    def forward(x: Array, p: Parameters, w: Workspace) -> Array:
        # x Phi(x) = max(x, 0) - |x| Phi(-|x|), which never cancels.
        tail, z, e = GeLU._tail(x, w)
        np.multiply(np.multiply(tail, e, out=tail), z, out=tail)
        y = np.subtract(np.maximum(x, w.filled(0.0), out=w.y), tail, out=w.y)
        zero = y == 0
        if np.count_nonzero(zero):
            np.copyto(y, np.copysign(0.0, x), where=zero)
        return y

    @staticmethod
    def derivative(x: Array, p: Parameters, w: Workspace) -> Array:
        tail, z, e = GeLU._tail(x, w)
        # Phi(x) + x phi(x) is d for x < 0 and 1 - d otherwise, with d = Phi(-z) - z phi(z).
        d = np.subtract(tail, np.multiply(z, RECIPROCAL_SQRT_2PI, out=z), out=tail)
        np.multiply(d, e, out=d)
        y = w.select(x, d, np.subtract(1.0, d, out=w.u), w.y)
        window, terms = (0.45, len(GeLU.TAYLOR)) if w.wide else (1 / 16, 12)
        near = np.flatnonzero(np.abs(np.subtract(x, GeLU.ROOT[0], out=w.t), out=w.t) < window)
        if near.size:
            offset = (x[near] - GeLU.ROOT[0]) - GeLU.ROOT[1]
            y[near] = offset * np.polynomial.polynomial.polyval(offset, GeLU.TAYLOR[:terms])
        if w.reach < END:
            return y
        np.copyto(y, -0.0, where=(y == 0) & (x < 0))
        return w.bounded_slope(y, lambda: np.isfinite(x), -1.0)

    @staticmethod
    def beside(x: Array, p: Parameters) -> Array:
        return np.where(np.abs(x) < 2.0**-60, np.nextafter(0.5 * x, np.inf), np.nan)

    @staticmethod
    def exact_forward(x: Fraction, p: Parameters, m: Digits) -> Exact:
        if x > m.NORMAL_LIMITS[1]:
            return m.decimal(x) * (1 - m.visible)
        return m.decimal(x) * m.normal(x)[0] if x > m.NORMAL_LIMITS[0] else -m.nothing

    @staticmethod
    def exact_derivative(x: Fraction, p: Parameters, m: Digits) -> Exact:
        if not m.NORMAL_LIMITS[0] < x < m.NORMAL_LIMITS[1]:
            return 1 + m.visible if x > 0 else -m.nothing
        distribution, density = m.normal(x)
        return distribution + m.decimal(x) * density

    @staticmethod
    def _tail(x: Array, w: Workspace) -> tuple[Array, Array, Array]:
        """The scaled tail e^(z^2/2) Phi(-z), z = |x|, and e^(-z^2/2), in ``t``, ``v`` and ``u`` or others but ``y``."""
        z = within = np.abs(x, out=w.v)
        if not w.reach < END:
            np.minimum(z, LARGEST, out=z)
            within = np.fmin(z, END, out=w.y)
        tail = scaled_tail(within, w, 6 if w.wide else 3)
        e = np.square(z, out=w.u)
        lost: Array | None = None
        if w.wide:
            high = (z.view(np.int64) & ~np.int64(0x7FFFFFF)).view(np.float64)
            low = z - high
            lost = ((high * high - e) + 2.0 * high * low) + low * low
        np.exp(np.multiply(e, -0.5, out=e), out=e)
        if lost is not None:
            np.copyto(e, e * (1.0 - 0.5 * lost), where=e > 0)
        return tail, z, e

    @staticmethod
    def stepwise_forward(x: Floats, p: Float32Parameters, f: Arithmetic) -> Floats:
        return 0.5 * x * (1 + f.erf(x * RECIPROCAL_SQRT_2))

    @staticmethod
    def stepwise_derivative(x: Floats, p: Float32Parameters, f: Arithmetic) -> Floats:
        bell = RECIPROCAL_SQRT_2PI * f.exp(-0.5 * x * x)
        return f.fma(0.5, 1 + f.erf(x * RECIPROCAL_SQRT_2), bell * x)


NEURONS: Mapping[MPSCNNNeuronType, Neuron] = MappingProxyType(
    {row.neuron_type: row() for row in Neuron.__subclasses__()}
)
"""The row of each neuron type."""
