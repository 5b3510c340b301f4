"""Powers, exponentials and logarithms of ``u = a x + b``."""

from __future__ import annotations

import math

import numpy as np

from mpsref.neuron.kernels.base import Kernel
from mpsref.neuron.kernels.curves import TINY
from mpsref.neuron.kernels.lines import Linear
from mpsref.neuron.table import Parameters
from mpsref.neuron.workspace import MODERATE, Array, Workspace, two_sum
from mpsref.storage import product_error

__all__ = ["Exponential", "Logarithm", "Power"]

LARGEST_LOGARITHM = 6.0
"""Of a power by log and exp: the error of an argument of exp is that of its result."""


def _sum(x: Array, p: Parameters, w: Workspace) -> Array:
    """``a x + b``, rounded. A zero may have either sign, which no exponential shows, nor a power with a fraction."""
    return w.rounded_affine(x, p.a, p.b, w.t) if p.b else w.product(x, p.a, w.t)[0]


def _is_near_one(u: Array, c: float) -> bool:
    """Whether all are positive, with a power so near 1 that the error of c ln u does not matter."""
    lowest, highest = float(np.minimum.reduce(u)), float(np.maximum.reduce(u))
    return 0 < lowest <= highest and abs(c) * max(-math.log(lowest), math.log(highest)) <= LARGEST_LOGARITHM


class Power(Kernel):
    @staticmethod
    def forward(x: Array, p: Parameters, w: Workspace) -> Array:
        if p.c == 1:
            return Linear.forward(x, p, w)
        return Power._power(x, p, p.c, w)[0]

    @staticmethod
    def derivative(x: Array, p: Parameters, w: Workspace) -> Array:
        k = p.a * p.c
        if k == 0:
            # A constant: slope 0 wherever it is a real number.
            u = w.rounded_affine(x, p.a, p.b, w.t)
            w.y.fill(0.0)
            np.copyto(w.y, np.nan, where=(u == 0) & (p.c < 0))
            return Power._real_only(w.y, u, p.c)
        if abs(p.c) < 2.0**53:
            y, u = Power._power(x, p, p.c - 1.0, w)
        else:
            # c - 1 is no float64: u^c / |u|, and the sign of u, since c is even.
            y, u = Power._power(x, p, p.c, w)
            np.divide(y, np.abs(u), out=y, where=(u != 0) & np.isfinite(u))
            np.copysign(y, u, out=y)
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
        u = w.rounded_affine(x, p.a, p.b, w.t) if c == math.floor(c) else _sum(x, p, w)
        if c == 2:
            y = np.square(u, out=w.y)
        elif c == 3:
            y = np.multiply(np.square(u, out=w.y), u, out=w.y)
        elif c == -1:
            y = np.divide(1.0, u, out=w.y)
        elif c == 1:
            y = w.y
            np.copyto(y, u)
        elif abs(c) != 0.5 and _is_near_one(u, c):
            y = np.exp(np.multiply(np.log(u, out=w.y), c, out=w.y), out=w.y)
        else:
            y = np.power(u, c, out=w.y)
        if p.c != math.floor(p.c):
            # numpy may take a square root, which is -0 for -0; and c - 1 may round to an odd integer.
            np.abs(y, out=y)
        return (y if w.regular else Power._real_only(y, u, c)), u

    @staticmethod
    def _real_only(y: Array, u: Array, c: float) -> Array:
        # IEEE pow has a value at -infinity; the real power of a negative base needs an integer exponent (N6).
        if c != math.floor(c):
            y[u < 0] = np.nan
        return y

    @staticmethod
    def is_constant(p: Parameters) -> bool:
        return p.a * p.c == 0

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
        # Where c is huge, the logarithm of the result has more digits before the point.
        return Linear.error_bound(p) if p.c == 1 else 2.0**-44 if abs(p.c) < 2.0**40 else 2.0**-40

    @classmethod
    def slope_error_bound(cls, p: Parameters) -> float:
        return cls.error_bound(p) if p.c != 1 else 0.0

    @classmethod
    def roundings(cls, p: Parameters) -> int | None:
        return Linear.roundings(p) if p.c == 1 else None


class Exponential(Kernel):
    @staticmethod
    def forward(x: Array, p: Parameters, w: Workspace) -> Array:
        if p.c > 0 or p.c == -1:
            u = w.affine(x, p.a, p.b, w.t) if w.wide else (_sum(x, p, w), None)
            if p.c == -1:
                return w.exponential(u, 1.0, np.exp(u[0], out=w.y))
            power = np.exp2(u[0], out=w.y) if p.c == 2 else np.power(p.c, u[0], out=w.y)
            return w.exponential(u, math.log(p.c), power)
        u = w.affine(x, p.a, p.b, w.t)
        y = np.power(p.c, u[0], out=w.y)
        y[np.isinf(u[0]) if p.c < 0 else u[0] < 0] = np.nan
        if u[1] is not None and math.copysign(1.0, p.c) < 0:
            # A sum that is no float64 is an integer if both parts are, and the small one decides the sign.
            is_integer = u[1] == np.rint(u[1])
            np.copyto(y, np.nan if p.c < 0 else np.abs(y), where=~is_integer)
            np.negative(y, out=y, where=is_integer & (np.fmod(u[1], 2.0) != 0))
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
        # The rounding error of a x + b is multiplied by the exponent, at most 745.
        return super().error_bound(p) if p.b == 0 else 2.0**-42

    @staticmethod
    def is_constant(p: Parameters) -> bool:
        return p.a == 0

    @staticmethod
    def slope_beside(x: Array, p: Parameters) -> tuple[Array, Array]:
        u = x * p.a + p.b
        slope = np.where((np.abs(u) < TINY) & (p.c == -1), p.a, np.nan)
        return slope, slope * u


class Logarithm(Kernel):
    @staticmethod
    def forward(x: Array, p: Parameters, w: Workspace) -> Array:
        u = w.affine(x, p.a, p.b, w.t) if p.b else w.product(x, p.a, w.t)
        # Near u = 1 the error of the sum is all of the logarithm.
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
        # An exact quotient has few bits: the product tells.
        exact = (rest == 0) & (slope * u == p.a) & (product_error(u, slope, slope * u) == 0) & (p.c == -1)
        return np.where(exact & (slope == slope.astype(np.float32)), slope, np.nan), np.zeros_like(x)
