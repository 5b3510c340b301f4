"""
The specification of the activations that are not Apple's: value and slope of each, everywhere.

As in `mpsref.neuron.specification`. A function that ends in nothing at an infinity has the sign there that it had on
the way: SiLU is -0 at -infinity.
"""

from __future__ import annotations

from decimal import Decimal

from mpsref.neuron.exact import Digits, pi
from mpsref.neuron.specification import ONE, ZERO, ExactParameters, sigmoid

__all__: list[str] = []

THREE, SIX = Decimal(3), Decimal(6)
CUBIC = Decimal("0.044715")


def _gated(x: Decimal, w: Decimal, m: Digits) -> Decimal:
    """``x / (1 + e^-w)``."""
    if x.is_infinite() and w < 0:
        return ZERO.copy_sign(x)
    e = m.exp(-abs(w))
    return x / m.one_plus(e) if w >= 0 else x * e / (1 + e)


def _gated_slope(w: Decimal, v: Decimal, m: Digits) -> Decimal:
    """``s (1 + v (1 - s))`` with ``s = 1 / (1 + e^-w)``."""
    if w.is_infinite():
        return ONE if w > 0 else ZERO.copy_negate()
    e = m.exp(-abs(w))
    if w < 0:
        return e * (1 + e + v) / (1 + e) ** 2
    return _one_and(e * (v - 1 - e) / (1 + e) ** 2, m)


def _one_and(more: Decimal, m: Digits) -> Decimal:
    return m.one_plus(more) if more > 0 else 1 + more


def silu(x: Decimal, p: ExactParameters, m: Digits) -> Decimal:
    return _gated(x, m.times(p.a, x), m)


def silu_slope(x: Decimal, p: ExactParameters, m: Digits) -> Decimal:
    z = m.times(p.a, x)
    return _gated_slope(z, z, m)


def _rate(m: Digits) -> Decimal:
    return (8 / pi(m.digits)).sqrt()


def gelu_tanh(x: Decimal, p: ExactParameters, m: Digits) -> Decimal:
    return _gated(x, _rate(m) * x * (1 + CUBIC * x * x), m)


def gelu_tanh_slope(x: Decimal, p: ExactParameters, m: Digits) -> Decimal:
    c, square = _rate(m), CUBIC * x * x
    return _gated_slope(c * x * (1 + square), c * x * (1 + 3 * square), m)


def mish(x: Decimal, p: ExactParameters, m: Digits) -> Decimal:
    e = m.exp(-abs(x))
    if x > 0:
        less = 2 * e * e / (1 + 2 * e + 2 * e * e)
        return x * (1 - max(less, m.visible))
    return x * e * (e + 2) / (e * (e + 2) + 2) if x.is_finite() else ZERO.copy_sign(x)


def mish_slope(x: Decimal, p: ExactParameters, m: Digits) -> Decimal:
    if x.is_infinite():
        return ONE if x > 0 else ZERO.copy_negate()
    e = m.exp(-abs(x))
    if x > 0:
        return _one_and(e * e * (4 * x * (1 + e) - 2 - 4 * e - 4 * e * e) / (1 + 2 * e + 2 * e * e) ** 2, m)
    return e * (((e + 4) * e + 6) * e + 4 + 4 * x * (1 + e)) / (e * (e + 2) + 2) ** 2


def hard_swish(x: Decimal, p: ExactParameters, m: Digits) -> Decimal:
    if -3 < x < 3:
        return m.times(x, m.line(ONE, x, THREE)) / SIX
    return x if x > 0 else ZERO.copy_negate()


def hard_swish_slope(x: Decimal, p: ExactParameters, m: Digits) -> Decimal:
    return m.line(Decimal(2), x, THREE) / SIX if -3 < x < 3 else ONE if x > 0 else ZERO


def hard_sigmoid(x: Decimal, p: ExactParameters, m: Digits) -> Decimal:
    return m.line(ONE, x, THREE) / SIX if -3 < x < 3 else ONE if x > 0 else ZERO


def hard_sigmoid_slope(x: Decimal, p: ExactParameters, m: Digits) -> Decimal:
    return ONE / SIX if -3 < x < 3 else ZERO


def selu(x: Decimal, p: ExactParameters, m: Digits) -> Decimal:
    return m.times(p.b, x) if x >= 0 else m.times(p.b, p.a) * m.expm1(x)


def selu_slope(x: Decimal, p: ExactParameters, m: Digits) -> Decimal:
    return p.b if x > 0 else m.times(p.b, p.a) * m.exp(x)


def celu(x: Decimal, p: ExactParameters, m: Digits) -> Decimal:
    return x if x >= 0 else p.a * m.expm1(x / p.a)


def celu_slope(x: Decimal, p: ExactParameters, m: Digits) -> Decimal:
    return ONE if x > 0 else m.exp(x / p.a)


def log_sigmoid(x: Decimal, p: ExactParameters, m: Digits) -> Decimal:
    more = m.log1p(m.exp(-abs(x)))
    return (max(more, -x * m.visible) - x if x < 0 else more).copy_negate()


def log_sigmoid_slope(x: Decimal, p: ExactParameters, m: Digits) -> Decimal:
    return sigmoid(x.copy_negate(), p, m)


def softplus(x: Decimal, p: ExactParameters, m: Digits) -> Decimal:
    z = m.times(p.a, x)
    if z > p.b:
        return x
    more = m.log1p(m.exp(-abs(z)))
    return (z + max(more, z * m.visible) if z > 0 else more) / p.a


def softplus_slope(x: Decimal, p: ExactParameters, m: Digits) -> Decimal:
    z = m.times(p.a, x)
    return ONE if z > p.b else sigmoid(z, p, m)


def relu_squared(x: Decimal, p: ExactParameters, m: Digits) -> Decimal:
    return m.times(x, x) if x > 0 else ZERO


def relu_squared_slope(x: Decimal, p: ExactParameters, m: Digits) -> Decimal:
    return m.times(Decimal(2), x) if x > 0 else ZERO


def tanhshrink(x: Decimal, p: ExactParameters, m: Digits) -> Decimal:
    size = x.copy_abs()
    if size > 1:
        e = m.exp(-2 * size)
        return (m.line(ONE, size, -ONE) + max(2 * e / (1 + e), size * m.visible)).copy_sign(x)
    # x cosh x - sinh x is a sum of positive terms, 2 k x^(2 k + 1) / (2 k + 1)!.
    power, total, last, k = size, ZERO, -ONE, 0
    while total != last:
        k += 1
        power = power * size * size / (2 * k * (2 * k + 1))
        last, total = total, total + 2 * k * power
    return (2 * total / (m.exp(size) + m.exp(-size))).copy_sign(x)


def tanhshrink_slope(x: Decimal, p: ExactParameters, m: Digits) -> Decimal:
    e = m.expm1(-2 * abs(x))
    return (e / (2 + e)) ** 2


def softshrink(x: Decimal, p: ExactParameters, m: Digits) -> Decimal:
    return m.line(ONE, x, p.a.copy_sign(x).copy_negate()) if abs(x) > p.a else ZERO


def hardshrink(x: Decimal, p: ExactParameters, m: Digits) -> Decimal:
    return x if abs(x) > p.a else ZERO


def shrink_slope(x: Decimal, p: ExactParameters, m: Digits) -> Decimal:
    return ONE if abs(x) > p.a else ZERO
