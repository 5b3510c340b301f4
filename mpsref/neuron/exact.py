"""
Exact values, and their one rounding.

A value is a `Decimal`, which has the infinities, NaN and signed zeros of IEEE 754 and holds every float exactly; NumPy
takes no part. A value with no finite expansion is computed to more and more digits until everything within its error
rounds alike (Ziv's strategy). One that is still open at the end lies exactly on a rounding boundary: other algebraic or
logarithmic values are farther away than that.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import MAX_EMAX, MIN_EMIN, ROUND_HALF_EVEN, Context, Decimal, Inexact, localcontext
from functools import lru_cache
from typing import TypeAlias

import numpy as np

from mpsref.arrays import Stored, Wide
from mpsref.storage import StorageFormat

__all__ = ["Digits", "Value", "decide", "number", "pi", "rounded", "settle"]

Value: TypeAlias = Callable[["Digits"], Decimal]
"""A value, to the given digits."""

DIGITS = (100, 200, 400, 800)
GUARD = 30
"""Digits that a formula may lose."""

FAR = Decimal(10**6)
"""An exponent beyond the range of every storage format, even after three factors of float32."""


def _context(digits: int) -> Context:
    return Context(digits, Emax=MAX_EMAX, Emin=MIN_EMIN, traps=[])


WIDE = _context(4000)
"""Enough digits for every sum and product of three floats to be exact."""

number = Decimal.from_float
"""A float, exactly, whatever traps the caller's context sets."""


class Digits:
    """
    Arithmetic to a number of digits. Arguments and results are exact, or good to almost all digits.

    Where a term is too small to change a sum that is near a product of a few float32, a larger one takes its place that
    just does: it keeps the sum on the right side, should that product be a rounding boundary. No other boundary lies
    between, since products of a few float32 are not that close to each other.
    """

    NORMAL_LIMITS = (-21, 14)
    """Below, the normal tail is 0 in every storage format, even times the largest float32; above, it changes no sum."""

    def __init__(self, digits: int) -> None:
        self.digits = digits
        self.visible = Decimal(10) ** (-2 * digits // 5)

    def times(self, a: Decimal, x: Decimal) -> Decimal:
        """``a x``, exactly; 0 for a = 0, at infinity too: the limit of a constant."""
        return WIDE.multiply(a, x if a or x.is_finite() else Decimal(1).copy_sign(x))

    def line(self, a: Decimal, x: Decimal, b: Decimal) -> Decimal:
        """``a x + b`` likewise."""
        return WIDE.add(self.times(a, x), b)

    def exp(self, z: Decimal) -> Decimal:
        """e^z, with z clipped where the result is out of range in every storage format."""
        return (min(max(z, -FAR), FAR) if z.is_finite() else z).exp()

    def one_plus(self, e: Decimal) -> Decimal:
        """1 + e for e >= 0."""
        return 1 + max(e, self.visible) if e else Decimal(1)

    def expm1(self, z: Decimal) -> Decimal:
        """e^z - 1 for z <= 0."""
        if z < Decimal("-1e-5"):
            return (max(self.exp(z), self.visible) if z.is_finite() else 0) - Decimal(1)
        total = term = z
        for k in range(2, self.digits // 4):
            term = term * z / k
            total += term
        return total

    def log1p(self, e: Decimal) -> Decimal:
        """ln(1 + e) for e >= 0."""
        if e > Decimal("1e-5"):
            return (1 + e).ln()
        total, term = Decimal(0), -Decimal(1)
        for k in range(1, self.digits // 4):
            term *= -e
            total += term / k
        return total

    def log_base(self, c: Decimal) -> Decimal:
        """The natural logarithm of a base c, where c = -1 means base e; NaN where c is no base."""
        return Decimal(1) if c == -1 else +_logarithm(c, self.digits + 10) if c > 0 else Decimal("NaN")

    def is_integer(self, u: Decimal) -> bool:
        """Whether u is an integer; an infinity is not."""
        return u.is_finite() and u == u.to_integral_value()

    def power(self, base: Decimal, exponent: Decimal) -> Decimal:
        """``base^exponent`` for a base >= 0 or an integer exponent, with the special values of IEEE's pow."""
        if base == 1 or exponent == 0:
            return Decimal(1)
        if abs(exponent) <= 512 and self.is_integer(exponent):
            return base ** int(exponent)
        size = self.exp(base.copy_abs().ln() * exponent)
        is_odd = self.is_integer(exponent) and not self.is_integer(WIDE.divide(exponent, Decimal(2)))
        return size.copy_negate() if is_odd and base.is_signed() else size

    def negligible(self, x: Decimal) -> Decimal:
        """A number that is 0 in every storage format, but not as a factor of infinity; -0 at -infinity."""
        return Decimal("-1e-350" if x.is_finite() else "-0")

    def normal(self, x: Decimal) -> tuple[Decimal, Decimal]:
        """The normal distribution function and density at an x within the limits."""
        with localcontext() as context:
            context.prec += 10 + int(x * x / 4)  # digits that cancel in the sum for x < 0
            density = (-x * x / 2).exp() / (2 * pi(context.prec)).sqrt()
            return Decimal("0.5") + _odd_series(x, x * x) * density, density

    def erf(self, z: Decimal) -> Decimal:
        """The error function at a z between -6 and 6: e^-z^2 2 / sqrt(pi) (z + 2 z^3 / 3 + 4 z^5 / 15 + ...)."""
        return 2 * _odd_series(z, 2 * z * z) * (-z * z).exp() / pi(self.digits).sqrt()


def _odd_series(x: Decimal, step: Decimal) -> Decimal:
    """``x (1 + step / 3 + step^2 / (3 5) + step^3 / (3 5 7) + ...)``."""
    total = term = last = x
    k = 1
    while k == 1 or total != last:
        k += 2
        term, last = term * step / k, total
        total += term
    return total


@lru_cache(maxsize=64)
def _logarithm(c: Decimal, digits: int) -> Decimal:
    return c.ln(_context(digits))


@lru_cache(maxsize=64)
def pi(digits: int) -> Decimal:
    """The circle's constant, by Machin's formula."""
    with localcontext(_context(digits + 10)):
        return 4 * (4 * _arctan_of_reciprocal(5) - _arctan_of_reciprocal(239))


def _arctan_of_reciprocal(n: int) -> Decimal:
    term = total = 1 / Decimal(n)
    k, last = 1, Decimal(0)
    while total != last:
        last = total
        term = -term / (n * n)
        k += 2
        total += term / k
    return total


def decide(value: Value, result: StorageFormat) -> float | int:
    """A value, rounded once: the float that the storage format holds, or the code."""
    ends: list[float | int] = []
    for digits in DIGITS:
        with localcontext(_context(digits)) as context:
            near = value(Digits(digits))
            if near.is_nan() or not context.flags[Inexact]:
                return rounded(near, result)
            margin = Decimal(10) ** (GUARD - digits)
            ends = [rounded(WIDE.multiply(near, 1 + error), result) for error in (-margin, margin)]
            if ends[0] == ends[1]:
                return ends[0]
    # A tie: of two neighbours the one with the even bit pattern.
    return next(end for end in ends if np.array(end, result.dtype).view(result.bits_dtype) % 2 == 0)


def rounded(value: Decimal, result: StorageFormat) -> float | int:
    """An exact value, rounded to nearest, ties to even."""
    if result.unorm_max:
        code = WIDE.multiply(min(max(value, Decimal(0)), Decimal(1)), Decimal(result.unorm_max))
        return 0 if value.is_nan() else int(code.to_integral_value(ROUND_HALF_EVEN))
    near, (smallest, beyond) = float(value), _range(result)
    if near == 0 or math.isnan(near):
        return near
    if abs(near) >= beyond:
        return math.copysign(math.inf, near)
    exponent = max(math.frexp(near)[1] - result.precision, smallest)
    units = WIDE.multiply(value, _two_to_the(-exponent)).to_integral_value(ROUND_HALF_EVEN)
    size = math.ldexp(abs(int(units)), exponent)
    return math.copysign(size if size < beyond else math.inf, near)


@lru_cache
def _range(result: StorageFormat) -> tuple[int, float]:
    """The exponent of the smallest subnormal number, and the first power of two that overflows."""
    # In IEEE's formats the exponents are as many below 1 as above.
    beyond = 1 << (8 * result.dtype.itemsize - result.precision - 1)
    return 3 - beyond - result.precision, 2.0**beyond


@lru_cache(maxsize=512)
def _two_to_the(exponent: int) -> Decimal:
    return WIDE.power(Decimal(2), exponent)


def settle(
    value: Callable[[Decimal, Digits], Decimal], x: Wide, upstream: Wide | None, result: StorageFormat
) -> Stored:
    """
    Correctly rounded results for some inputs, each distinct pair of input and incoming gradient decided once.

    Parameters
    ----------
    value : callable
        The forward or the derivative, called as ``value(x, m)``.
    x, upstream : ndarray of float64
        The inputs, and the incoming gradient, if any, by which the value is multiplied; both exact.
    result : StorageFormat
        The format to round to.

    Returns
    -------
    ndarray
        Of the dtype of `result`.
    """
    pairs = np.stack([x, np.ones_like(x) if upstream is None else upstream]).view(np.int64)
    distinct, inverse = np.unique(pairs, axis=1, return_inverse=True)
    decided = np.empty(distinct.shape[1], result.dtype)
    for i, (source, factor) in enumerate(distinct.view(np.float64).T.tolist()):
        decided[i] = decide(_times(value, source, factor), result)
    return decided[inverse.reshape(-1)]


def _times(value: Callable[[Decimal, Digits], Decimal], x: float, factor: float) -> Value:
    source, upstream = number(x), number(factor)
    return lambda m: WIDE.multiply(value(source, m), upstream)
