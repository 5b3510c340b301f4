"""
The specification of the sixteen neurons: value and slope of each, everywhere.

`x` is any number, infinite or a signed zero too, but not NaN; `p` holds the parameters. Both are exact, as are their
sums and products; everything else is good to the digits of `m`. Infinities and zeros follow IEEE 754, so that at an
infinity the result is the limit, with the sign of its zero. NaN means: not a real number.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from mpsref.neuron.exact import Digits

__all__ = ["ExactParameters"]

ZERO, ONE, NAN = Decimal(0), Decimal(1), Decimal("NaN")


@dataclass(frozen=True, slots=True)
class ExactParameters:
    """The parameters of a neuron; `a` is the slope of the channel for a neuron with a slope for each."""

    a: Decimal
    b: Decimal
    c: Decimal


def none(x: Decimal, p: ExactParameters, m: Digits) -> Decimal:
    return x


def none_slope(x: Decimal, p: ExactParameters, m: Digits) -> Decimal:
    return ONE


def rectified(x: Decimal, p: ExactParameters, m: Digits) -> Decimal:
    return x if x >= 0 else m.times(p.a, x)


def rectified_slope(x: Decimal, p: ExactParameters, m: Digits) -> Decimal:
    return ONE if x >= 0 else p.a


def linear(x: Decimal, p: ExactParameters, m: Digits) -> Decimal:
    return m.line(p.a, x, p.b)


def linear_slope(x: Decimal, p: ExactParameters, m: Digits) -> Decimal:
    return p.a


def sigmoid(x: Decimal, p: ExactParameters, m: Digits) -> Decimal:
    e = m.exp(-abs(x))
    return 1 / m.one_plus(e) if x >= 0 else e / (1 + e)


def sigmoid_slope(x: Decimal, p: ExactParameters, m: Digits) -> Decimal:
    e = m.exp(-abs(x))
    return e / (1 + e) ** 2


def hard_sigmoid(x: Decimal, p: ExactParameters, m: Digits) -> Decimal:
    u = m.line(p.a, x, p.b)
    return u if 0 < u < 1 else ONE if u >= 1 else ZERO


def hard_sigmoid_slope(x: Decimal, p: ExactParameters, m: Digits) -> Decimal:
    return p.a if 0 <= m.line(p.a, x, p.b) <= 1 else ZERO


def tanh(x: Decimal, p: ExactParameters, m: Digits) -> Decimal:
    z = m.times(p.b, x)
    e = m.expm1(-2 * abs(z))
    return p.a * (-e / (2 + e)).copy_sign(z)


def tanh_slope(x: Decimal, p: ExactParameters, m: Digits) -> Decimal:
    e = m.exp(-2 * abs(m.times(p.b, x)))
    return 4 * m.times(p.a, p.b) * e / (1 + e) ** 2


def absolute(x: Decimal, p: ExactParameters, m: Digits) -> Decimal:
    return x.copy_abs()


def absolute_slope(x: Decimal, p: ExactParameters, m: Digits) -> Decimal:
    return ONE.copy_sign(x) if x else ZERO


def soft_plus(x: Decimal, p: ExactParameters, m: Digits) -> Decimal:
    z = m.times(p.b, x)
    more = m.log1p(m.exp(-abs(z)))
    return m.times(p.a, z + max(more, z * m.visible) if z > 0 else more)


def soft_plus_slope(x: Decimal, p: ExactParameters, m: Digits) -> Decimal:
    z = m.times(p.b, x)
    e = m.exp(-abs(z))
    return m.times(p.a, p.b) * (1 / m.one_plus(e) if z >= 0 else e / (1 + e))


def soft_sign(x: Decimal, p: ExactParameters, m: Digits) -> Decimal:
    return x / (1 + abs(x)) if x.is_finite() else ONE.copy_sign(x)


def soft_sign_slope(x: Decimal, p: ExactParameters, m: Digits) -> Decimal:
    return 1 / (1 + abs(x)) ** 2


def elu(x: Decimal, p: ExactParameters, m: Digits) -> Decimal:
    return x if x >= 0 else p.a * m.expm1(x)


def elu_slope(x: Decimal, p: ExactParameters, m: Digits) -> Decimal:
    return ONE if x >= 0 else p.a * m.exp(x)


def relun(x: Decimal, p: ExactParameters, m: Digits) -> Decimal:
    y = rectified(x, p, m)
    return min(p.b, y)


def relun_slope(x: Decimal, p: ExactParameters, m: Digits) -> Decimal:
    return ZERO if rectified(x, p, m) >= p.b else rectified_slope(x, p, m)


def power(x: Decimal, p: ExactParameters, m: Digits) -> Decimal:
    u = m.line(p.a, x, p.b)
    return NAN if u < 0 and not m.is_integer(p.c) else m.power(u, p.c)


def power_slope(x: Decimal, p: ExactParameters, m: Digits) -> Decimal:
    u, k = m.line(p.a, x, p.b), m.times(p.a, p.c)
    if (u < 0 and not m.is_integer(p.c)) or (u == 0 and p.c < 0 and k == 0):
        return NAN
    return k * m.power(u, m.line(ONE, p.c, -ONE)) if k else ZERO


def exponential(x: Decimal, p: ExactParameters, m: Digits) -> Decimal:
    u = m.line(p.a, x, p.b)
    if p.c == -1:
        return m.exp(u)
    return NAN if (p.c == 0 and u < 0) or (p.c < 0 and not m.is_integer(u)) else m.power(p.c, u)


def exponential_slope(x: Decimal, p: ExactParameters, m: Digits) -> Decimal:
    if p.c == 0:
        return ZERO if m.line(p.a, x, p.b) > 0 else NAN
    k = p.a * m.log_base(p.c)
    return k * exponential(x, p, m) if k else ZERO


def logarithm(x: Decimal, p: ExactParameters, m: Digits) -> Decimal:
    u, base = m.line(p.a, x, p.b), m.log_base(p.c)
    return u.ln() / base if base and u >= 0 else NAN


def logarithm_slope(x: Decimal, p: ExactParameters, m: Digits) -> Decimal:
    u, base = m.line(p.a, x, p.b), m.log_base(p.c)
    return p.a / (base * u) if base else NAN


def gelu(x: Decimal, p: ExactParameters, m: Digits) -> Decimal:
    if m.NORMAL_LIMITS[0] < x <= m.NORMAL_LIMITS[1]:
        return x * m.normal(x)[0]
    return x * (1 - m.visible) if x > 0 else m.negligible(x)


def gelu_slope(x: Decimal, p: ExactParameters, m: Digits) -> Decimal:
    if m.NORMAL_LIMITS[0] < x < m.NORMAL_LIMITS[1]:
        distribution, density = m.normal(x)
        return distribution + x * density
    return m.one_plus(abs(m.negligible(x))) if x > 0 else m.negligible(x)
