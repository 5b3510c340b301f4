"""Neurons made of exponentials, and softSign."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from mpsref.neuron.kernels.base import Kernel
from mpsref.neuron.table import Parameters
from mpsref.neuron.tail import END, RECIPROCAL_SQRT_2PI, scaled_tail
from mpsref.neuron.workspace import LARGEST, MODERATE, Array, Workspace, product_beside

__all__ = ["ELU", "GeLU", "Sigmoid", "SoftPlus", "SoftSign", "TanH"]

TINY, TINY_SQUARE = 2.0**-40, 2.0**-20
"""Small against 1, or with a small square: the next terms of a series are below 2^-40 of the last."""


class Sigmoid(Kernel):
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


class TanH(Kernel):
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


class SoftPlus(Kernel):
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


class SoftSign(Kernel):
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

    @classmethod
    def error_bound(cls, p: Parameters) -> float:
        # It has no elementary function.
        return 2.0**-48


class ELU(Kernel):
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


class GeLU(Kernel):
    # The derivative's zero, as a float64 and the rest, and its Taylor coefficients there, from the first on
    # (computed with ball arithmetic; a test checks the kernel).
    ROOT: ClassVar[tuple[float, float]] = (-0.7517915246935645, 1.4956759177009883e-17)
    roots = ((0.0, 0.0), ROOT)
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

    @classmethod
    def error_bound(cls, p: Parameters) -> float:
        # The difference in the slope cancels.
        return 2.0**-44

    @staticmethod
    def beside(x: Array, p: Parameters) -> Array:
        return np.where(np.abs(x) < 2.0**-60, np.nextafter(0.5 * x, np.inf), np.nan)

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
