"""Kernels of the activations that are not Apple's, in plain NumPy."""

from __future__ import annotations

import math

import numpy as np

from mpsref.neuron.kernels.base import Kernel
from mpsref.neuron.table import Parameters
from mpsref.neuron.workspace import LARGEST, Array, Workspace

__all__: list[str] = []

NEAR, NEARER = 2.0**-38, 2.0**-55
"""Small against 1: as a term of a series, by 2^-40 of which the next is smaller; or below half a ULP of it."""

RATE, CUBIC = 1.5957691216057308, 0.044715
"""Twice the square root of 2 / pi, and the constant of GELU-tanh."""

ODD = tuple(2 * k / math.factorial(2 * k + 1) for k in range(11, 0, -1))
"""The coefficients of ``x cosh x - sinh x``, from that of x^23 down to that of x^3."""

# Zeros of slopes, as a float64 and the rest, and the exponential there (computed with ball arithmetic; a test checks
# the kernels).
SILU_ROOT = -1.2784645427610737, -1.0946994183093437e-16, 0.2784645427610738
GELU_ROOT = -0.7524614220710163, 3.635560509207687e-17, 0.29195521191476714
MISH_ROOT = -1.1924312145154952, -4.8484829848031044e-17, 0.3034825352815289


def _times(x: Array, factor: float) -> Array:
    """``factor x``; 0 for factor 0, also at infinity."""
    return np.asarray((x if factor else np.clip(x, -LARGEST, LARGEST)) * factor)


def _ended(y: Array, x: Array, left: float, right: float) -> Array:
    """`y`, with the limits at the infinities."""
    return np.where(x == -np.inf, left, np.where(x == np.inf, right, y))


def _logistic(z: Array) -> Array:
    return np.where(z < 0, np.exp(np.minimum(z, 0.0)), 1.0) / (1.0 + np.exp(-np.abs(z)))


class Activation(Kernel):
    """The error of an exponent counts as often as the exponent is large."""

    @classmethod
    def error_bound(cls, p: Parameters) -> float:
        return 0.0 if cls.is_exact else 2.0**-42


class SiLU(Activation):
    @classmethod
    def exponents(cls, x: Array, p: Parameters) -> tuple[Array, Array]:
        """``w`` of ``x / (1 + e^-w)``, and ``x dw/dx``."""
        z = _times(x, p.a)
        return z, z

    @classmethod
    def near_root(cls, x: Array, p: Parameters) -> tuple[Array, Array]:
        """Where ``1 + e^w + x dw/dx`` cancels, and what it is there."""
        d = (_times(x, p.a) - SILU_ROOT[0]) - SILU_ROOT[1]
        near = np.abs(d) < 1
        return near, d[near] + SILU_ROOT[2] * np.expm1(d[near])

    @classmethod
    def forward(cls, x: Array, p: Parameters, w: Workspace) -> Array:
        exponent = cls.exponents(x, p)[0]
        y = x / (1.0 + np.exp(-exponent))
        return np.where(np.isinf(x) & (exponent < 0), np.copysign(0.0, x), y)

    @classmethod
    def derivative(cls, x: Array, p: Parameters, w: Workspace) -> Array:
        exponent, v = cls.exponents(x, p)
        e = np.exp(-np.abs(exponent))
        v = np.clip(v, -1e150, 1e150)
        rest = 1.0 + e + v
        near, value = cls.near_root(x, p)
        rest[near] = value
        y = np.where(exponent < 0, e * rest, 1.0 + e + e * v) / np.square(1.0 + e)
        return w.bounded_slope(_ended(y, exponent, -0.0, 1.0), lambda: np.isfinite(x), -1.0)

    @classmethod
    def beside(cls, x: Array, p: Parameters) -> Array:
        exponent = cls.exponents(x, p)[0]
        side = np.nextafter(0.5 * x, np.copysign(np.inf, exponent * x))
        return np.where(np.abs(exponent) < NEARER, np.where(exponent == 0, 0.5 * x, side), np.nan)

    @classmethod
    def slope_beside(cls, x: Array, p: Parameters) -> tuple[Array, Array]:
        exponent = cls.exponents(x, p)[0]
        return np.where(np.abs(exponent) < NEAR, 0.5, np.nan), exponent / 2.0


class GELUTanh(SiLU):
    @classmethod
    def exponents(cls, x: Array, p: Parameters) -> tuple[Array, Array]:
        square = CUBIC * x * x
        return RATE * x * (1.0 + square), RATE * x * (1.0 + 3.0 * square)

    @classmethod
    def near_root(cls, x: Array, p: Parameters) -> tuple[Array, Array]:
        d = (x - GELU_ROOT[0]) - GELU_ROOT[1]
        near = np.abs(d) < 0.3
        d = RATE * d[near]
        x = x[near]
        q = CUBIC * (x * x + x * GELU_ROOT[0] + GELU_ROOT[0] ** 2)
        return near, GELU_ROOT[2] * np.expm1(d * (1.0 + q)) + d * (1.0 + 3.0 * q)

    @classmethod
    def error_bound(cls, p: Parameters) -> float:
        return 2.0**-40


class Mish(Activation):
    @staticmethod
    def forward(x: Array, p: Parameters, w: Workspace) -> Array:
        e = np.exp(x)
        return np.where(x == -np.inf, -0.0, x / (1.0 + 2.0 / (e * (e + 2.0))))

    @staticmethod
    def derivative(x: Array, p: Parameters, w: Workspace) -> Array:
        e, size = np.exp(-np.abs(x)), np.minimum(np.abs(x), 1e4)
        above = (1.0 + e * (4.0 + e * (6.0 + 4.0 * e)) + 4.0 * size * (e * e) * (1.0 + e)) / np.square(
            1.0 + 2.0 * e * (1.0 + e)
        )
        rest = ((e + 4.0) * e + 6.0) * e + 4.0 - 4.0 * size * (1.0 + e)
        d = (x - MISH_ROOT[0]) - MISH_ROOT[1]
        near = np.abs(d) < 0.7
        d, at, root = d[near], e[near], MISH_ROOT[2]
        more = at * at + at * root + root * root + 4.0 * (at + root) + 6.0 + 4.0 * MISH_ROOT[0]
        rest[near] = root * np.expm1(d) * more + 4.0 * d * (1.0 + at)
        y = np.where(x < 0, e * rest / np.square(e * (e + 2.0) + 2.0), above)
        return w.bounded_slope(_ended(y, x, -0.0, 1.0), lambda: np.isfinite(x), -1.0)


class HardSwish(Activation):
    @staticmethod
    def forward(x: Array, p: Parameters, w: Workspace) -> Array:
        inside = np.clip(x, -3.0, 3.0)
        return np.where(x >= 3, x, np.where(x <= -3, -0.0, inside * (inside + 3.0) / 6.0))

    @staticmethod
    def derivative(x: Array, p: Parameters, w: Workspace) -> Array:
        return np.where(x >= 3, 1.0, np.where(x <= -3, 0.0, (2.0 * np.clip(x, -3.0, 3.0) + 3.0) / 6.0))

    @staticmethod
    def beside(x: Array, p: Parameters) -> Array:
        return np.where((np.abs(x) < NEARER) & (x != 0), np.nextafter(0.5 * x, np.inf), np.nan)

    @staticmethod
    def slope_beside(x: Array, p: Parameters) -> tuple[Array, Array]:
        return np.where(np.abs(x) < NEAR, 0.5, np.nan), x / 3.0


class HardSigmoid(Activation):
    @staticmethod
    def forward(x: Array, p: Parameters, w: Workspace) -> Array:
        return (np.clip(x, -3.0, 3.0) + 3.0) / 6.0

    @staticmethod
    def derivative(x: Array, p: Parameters, w: Workspace) -> Array:
        return np.where(np.abs(x) < 3, 1.0 / 6.0, 0.0)


class SELU(Activation):
    @staticmethod
    def forward(x: Array, p: Parameters, w: Workspace) -> Array:
        return np.where(x >= 0, _times(x, p.b), p.a * p.b * np.expm1(np.minimum(x, 0.0)))

    @staticmethod
    def derivative(x: Array, p: Parameters, w: Workspace) -> Array:
        k = p.a * p.b
        y = np.where(x > 0, p.b, k * np.exp(np.minimum(x, 0.0)))
        return w.bounded_slope(y, lambda: np.isfinite(x) & (x <= 0), k) if k else y

    @staticmethod
    def beside(x: Array, p: Parameters) -> Array:
        return np.where(x < -60, np.nextafter(-p.a * p.b, 0.0), np.nan)


class CELU(Activation):
    @staticmethod
    def forward(x: Array, p: Parameters, w: Workspace) -> Array:
        return np.where(x >= 0, x, p.a * np.expm1(np.minimum(x, 0.0) / p.a))

    @staticmethod
    def derivative(x: Array, p: Parameters, w: Workspace) -> Array:
        y = np.exp(np.minimum(x, 0.0) / p.a)
        return w.bounded_slope(y, lambda: np.isfinite(x), 1.0)

    @staticmethod
    def beside(x: Array, p: Parameters) -> Array:
        return np.where(x / p.a < -60, np.nextafter(-p.a, 0.0), np.nan)


class LogSigmoid(Activation):
    @staticmethod
    def forward(x: Array, p: Parameters, w: Workspace) -> Array:
        more = np.log1p(np.exp(-np.abs(x)))
        return np.where(x < 0, np.minimum(x, 0.0) - more, -more)

    @staticmethod
    def derivative(x: Array, p: Parameters, w: Workspace) -> Array:
        return w.bounded_slope(_logistic(-x), lambda: np.isfinite(x), 1.0)

    @staticmethod
    def slope_beside(x: Array, p: Parameters) -> tuple[Array, Array]:
        return np.where(np.abs(x) < NEAR, 0.5, np.nan), -x / 4.0


class SoftPlus(Activation):
    @staticmethod
    def forward(x: Array, p: Parameters, w: Workspace) -> Array:
        z = x * p.a
        y = np.maximum(x, 0.0) + np.log1p(np.exp(-np.abs(z))) / p.a
        return np.where(z > p.b, x, y)

    @staticmethod
    def derivative(x: Array, p: Parameters, w: Workspace) -> Array:
        z = x * p.a
        y = np.where(z > p.b, 1.0, _logistic(z))
        return w.bounded_slope(y, lambda: np.isfinite(x), 1.0)

    @staticmethod
    def slope_beside(x: Array, p: Parameters) -> tuple[Array, Array]:
        z = x * p.a
        return np.where((np.abs(z) < NEAR) & (z <= p.b), 0.5, np.nan), z / 4.0


class ReLUSquared(Activation):
    is_exact = True

    @staticmethod
    def forward(x: Array, p: Parameters, w: Workspace) -> Array:
        return np.square(np.where(x > 0, x, 0.0))

    @staticmethod
    def derivative(x: Array, p: Parameters, w: Workspace) -> Array:
        return np.where(x > 0, 2.0 * x, 0.0)


class TanhShrink(Activation):
    @staticmethod
    def forward(x: Array, p: Parameters, w: Workspace) -> Array:
        inside = np.clip(x, -1.0, 1.0)
        series = np.polyval((*ODD, 0.0), inside * inside) * inside / np.cosh(inside)
        return np.where(np.abs(x) < 1, np.where(x == 0, x, series), x - np.tanh(x))

    @staticmethod
    def derivative(x: Array, p: Parameters, w: Workspace) -> Array:
        return np.square(np.tanh(x))

    @staticmethod
    def beside(x: Array, p: Parameters) -> Array:
        # x - 1 + 2 e^-2x: where x - 1 is no float64, x is beside it, and no boundary.
        limit = x - np.copysign(1.0, x)
        is_exact = limit + np.copysign(1.0, x) == x
        return np.where((np.abs(x) > 60) & is_exact, np.nextafter(limit, x), np.nan)

    @staticmethod
    def slope_beside(x: Array, p: Parameters) -> tuple[Array, Array]:
        return np.where(np.abs(x) > 60, 1.0, np.nan), -np.exp(-2.0 * np.minimum(np.abs(x), 150.0)) * 4.0


class HardShrink(Activation):
    is_exact = True

    @staticmethod
    def forward(x: Array, p: Parameters, w: Workspace) -> Array:
        return np.where(np.abs(x) > p.a, x, 0.0)

    @staticmethod
    def derivative(x: Array, p: Parameters, w: Workspace) -> Array:
        return np.where(np.abs(x) > p.a, 1.0, 0.0)


class SoftShrink(HardShrink):
    @staticmethod
    def forward(x: Array, p: Parameters, w: Workspace) -> Array:
        size = w.odd(w.affine(np.abs(x), 1.0, -p.a, w.y))
        return np.where(np.abs(x) > p.a, np.copysign(size, x), 0.0)
