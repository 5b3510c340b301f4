"""Neurons made of straight lines."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np

from mpsref.arrays import Mask
from mpsref.neuron.kernels.base import Kernel
from mpsref.neuron.table import Parameters
from mpsref.neuron.workspace import Array, Workspace, is_short, largest, two_sum
from mpsref.storage import round_to_odd

__all__ = ["Absolute", "HardSigmoid", "Linear", "None_", "PReLU", "ReLU", "ReLUN"]

BITS = {2: (np.uint16, 0xFC00), 4: (np.uint32, 0xFF80_0000), 8: (np.uint64, 0xFFF0_0000_0000_0000)}
"""For each size of a float the type of its bits, and those of -infinity: the bits of negative NaN are larger."""
LARGEST16 = float(np.finfo(np.float16).max)
LARGEST32 = float(np.finfo(np.float32).max)


def _rectified(x: Array, slope: float, w: Workspace, out: Array) -> Array:
    """``x`` where x >= 0, else ``slope x``; a slope of 0 gives 0 at -infinity too (N6)."""
    if _is_plus_zero(slope):
        # Of the bit patterns of negative numbers that of -0 is the smallest, and those of NaN are the largest.
        dtype, infinity = BITS[x.itemsize]
        bits = x.view(dtype)
        np.minimum(bits, w.filled(-0.0).view(dtype), out=out.view(dtype))
        if largest(bits) > infinity:
            np.copyto(out, np.nan, where=np.isnan(x))
        return out
    if slope == 0 and not w.regular:
        np.multiply(np.clip(x, -LARGEST32, LARGEST32, out=w.u), slope, out=out)
    else:
        np.multiply(x, slope, out=out)
    if math.copysign(1.0, slope) > 0:
        # Faster than `select`; where both are zero they have the same sign.
        return np.maximum(x, out, out=out) if slope <= 1 else np.minimum(x, out, out=out)
    return w.select(x, out, x, out)


def _is_plus_zero(a: float) -> bool:
    return a == 0 and math.copysign(1.0, a) > 0


def _masked(product: Array, mask: Mask, a: float) -> Array:
    """A product of slopes and a mask, made +0 outside the mask, whatever the sign of `a`, even of -0.0."""
    if math.copysign(1.0, a) < 0:
        np.copyto(product, 0.0, where=~mask)
    return product


def _slopes(x: Array, a: float, w: Workspace) -> Array:
    """`a` where x < 0, and 1 where x >= 0."""
    if a > 1 or math.copysign(1.0, a) < 0:
        return w.select(x, a, 1.0, w.y)
    np.copyto(w.y, x >= 0)
    return np.maximum(w.y, w.filled(a), out=w.y) if a else w.y


@lru_cache(maxsize=64)
def _unclamped(a: float, b: float, dtype: np.dtype[Any]) -> tuple[Any, Any]:
    """The least and the largest number of a floating dtype for which ``a x + b`` is from 0 to 1, exactly."""
    if a == 0:
        return (-np.inf, np.inf) if 0 <= b <= 1 else (np.inf, -np.inf)
    ends = sorted((limit - Fraction(b)) / Fraction(a) for limit in (0, 1))
    largest = float(np.finfo(dtype).max)
    first, last = (dtype.type(min(max(float(end), -largest), largest)) for end in ends)
    if Fraction(float(first)) < ends[0]:
        first = np.nextafter(first, dtype.type(np.inf))
    if Fraction(float(last)) > ends[1]:
        last = np.nextafter(last, dtype.type(-np.inf))
    return first, last


class None_(Kernel):
    is_exact = True
    forward_roundings = 0
    slope_rounds = False

    @staticmethod
    def forward(x: Array, p: Parameters, w: Workspace) -> Array:
        return x

    @staticmethod
    def derivative(x: Array, p: Parameters, w: Workspace) -> Array:
        return w.filled(1.0)

    @classmethod
    def slope_is_one(cls, p: Parameters) -> bool:
        return True


class ReLU(Kernel):
    is_exact = True
    slope_rounds = False

    @staticmethod
    def forward(x: Array, p: Parameters, w: Workspace) -> Array:
        return _rectified(x, p.a, w, w.y)

    @classmethod
    def roundings(cls, p: Parameters) -> int | None:
        return 0 if _is_plus_zero(p.a) else 1

    @staticmethod
    def derivative(x: Array, p: Parameters, w: Workspace) -> Array:
        return _slopes(x, p.a, w)


class Linear(Kernel):
    slope_rounds = False

    @staticmethod
    def forward(x: Array, p: Parameters, w: Workspace) -> Array:
        if p.b and x.dtype == np.float32:
            return w.fused(x, p.a, p.b, w.y)
        if p.b or not p.a:
            return w.line(x, p.a, p.b, w.y)
        y = np.multiply(x, p.a, out=w.y)
        # A zero plus 0; but a product that underflows keeps its sign.
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
        return 1 if p.a and (p.b == 0 or abs(p.b) >= 2.0**-100) else None

    @classmethod
    def slope_is_one(cls, p: Parameters) -> bool:
        return p.a == 1


class HardSigmoid(Kernel):
    slope_rounds = False

    @staticmethod
    def forward(x: Array, p: Parameters, w: Workspace) -> Array:
        # Rounding first changes nothing, since 0 and 1 stay. The sum makes -0 positive.
        line = w.fused if x.dtype == np.float32 else w.line
        y = np.clip(line(x, p.a, p.b, w.y), 0.0, 1.0, out=w.y)
        return np.add(y, 0.0, out=y)

    @staticmethod
    def derivative(x: Array, p: Parameters, w: Workspace) -> Array:
        first, last = _unclamped(p.a, p.b, x.dtype)
        inside = (x >= first) & (x <= last)
        np.copyto(w.y, inside)
        return _masked(np.multiply(w.y, p.a, out=w.y), inside, p.a)

    @staticmethod
    def beside(x: Array, p: Parameters) -> Array:
        return np.clip(Linear.beside(x, p), 0.0, 1.0)

    @classmethod
    def error_bound(cls, p: Parameters) -> float:
        return Linear.error_bound(p)

    @classmethod
    def slope_error_bound(cls, p: Parameters) -> float:
        return 0.0

    @classmethod
    def roundings(cls, p: Parameters) -> int | None:
        return Linear.roundings(p) if p.b else None


class Absolute(Kernel):
    is_exact = True
    forward_roundings = 0
    slope_rounds = False

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


class PReLU(Kernel):
    is_exact = True
    forward_roundings = 1
    slope_rounds = False

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


class ReLUN(Kernel):
    is_exact = True

    @staticmethod
    def forward(x: Array, p: Parameters, w: Workspace) -> Array:
        y = _rectified(x, p.a, w, w.y)
        if x.dtype == np.float16:
            # Of numbers that are not negative, and -0, the order is that of integers; NaN comes last.
            bits = y.view(np.int16)
            nan = np.isnan(y) if largest(bits) > 0x7C00 else None
            np.minimum(bits, w.filled(p.b).view(np.int16), out=bits)
            if nan is not None:
                np.copyto(y, np.nan, where=nan)
            return y
        if p.b:
            return np.minimum(y, w.filled(p.b), out=y)
        np.copyto(y, p.b, where=y >= p.b)
        return y

    @staticmethod
    def derivative(x: Array, p: Parameters, w: Workspace) -> Array:
        # A product that is not positive is below a positive b.
        is_rising = p.a >= 0 and p.b > 0
        below = x < p.b if is_rising else _rectified(x, p.a, w, w.t) < p.b
        np.copyto(w.t, below)
        return _masked(np.multiply(_slopes(x, p.a, w), w.t, out=w.y), below, p.a)

    @classmethod
    def roundings(cls, p: Parameters) -> int | None:
        if _is_plus_zero(p.a) and 0 < p.b <= LARGEST16 and float(np.float16(p.b)) == p.b:
            return 0
        # Where a x underflows, the comparison with a bound of 0 must still see its sign.
        return 1 if p.b else None

    @classmethod
    def slope_is_rounded(cls, p: Parameters) -> bool:
        # a x might be rounded to b.
        return p.a < 0 or p.b <= 0
