"""
Multi-precision decision of the few results that lie too near a rounding boundary for float64.

A row gives its value at an exact source as a `Fraction`, if it is rational, or as a `Decimal` to the digits asked for.
The digits are raised until everything within the error rounds alike (Ziv's strategy). What is still open at the end
lies exactly on the boundary: an algebraic or logarithmic value that is not there is farther away than that.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal, DivisionByZero, InvalidOperation, localcontext
from fractions import Fraction
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from mpsref.arrays import Stored
from mpsref.storage import StorageFormat, round_to_odd

__all__ = ["Digits", "Exact", "settle"]

Exact: TypeAlias = Fraction | Decimal

DIGITS = (100, 200, 400, 800)
GUARD = 30
"""Digits that the formulas may lose."""

TINY = 10**307
"""The reciprocal of what is nothing to any storage format, and still a float64."""

FAR = 10**6
"""An exponent beyond which nothing is left of any storage format, even after three factors of float32."""


class Digits:
    """
    Arithmetic to a number of digits, for the rows. Arguments are exact; results are good to almost all digits.

    Where a sum approaches a product of a few float32, and the rest does not show, it is replaced by one that just does:
    it must still decide on which side the sum is if that product is a rounding boundary. No other boundary lies
    between, since products of a few float32 are not that close to each other.
    """

    NORMAL_LIMITS = (-21, 14)
    """Below, the normal tail is nothing to any storage format, even times the largest float32; above it, it shows in
    no sum."""

    nothing = Decimal("1e-350")
    """A stand-in for what vanishes in every storage format, but has a sign."""

    def __init__(self, digits: int) -> None:
        self.digits = digits
        self.visible = Decimal(10) ** (-2 * digits // 5)

    def decimal(self, value: Fraction) -> Decimal:
        """A dyadic fraction, exactly."""
        k = value.denominator.bit_length() - 1
        return Decimal(f"{value.numerator * 5**k}E-{k}")

    def exp(self, z: Fraction | Decimal) -> Decimal:
        """e^z, for a z that may be clipped where nothing of the result can matter."""
        clipped = min(max(z, -FAR), FAR)
        return (self.decimal(clipped) if isinstance(clipped, Fraction) else Decimal(clipped)).exp()

    def one_plus(self, e: Decimal) -> Decimal:
        """1 + e for e > 0."""
        return 1 + max(e, self.visible)

    def quotient(self, value: Fraction) -> Decimal:
        """Any fraction, rounded."""
        return Decimal(value.numerator) / Decimal(value.denominator)

    def expm1(self, z: Fraction) -> Decimal:
        """e^z - 1 for z < 0."""
        if z < -3 * self.digits:
            return self.visible - 1
        if z < Fraction(-1, 100_000):
            return max(self.exp(z), self.visible) - 1
        x = total = term = self.decimal(z)
        for k in range(2, self.digits // 4):
            term = term * x / k
            total += term
        return total

    def log1p(self, e: Decimal) -> Decimal:
        """ln(1 + e) for e > 0."""
        if e > Decimal("1e-5"):
            return (1 + e).ln()
        total, term = Decimal(0), -Decimal(1)
        for k in range(1, self.digits // 4):
            term *= -e
            total += term / k
        return total

    def log_base(self, c: float) -> Decimal:
        """The natural logarithm of c, and 1 for c = -1."""
        return Decimal(1) if c == -1 else _logarithm(c, self.digits)

    def power(self, base: Fraction, c: float) -> Decimal:
        """base^c for a base that is not 0, and positive unless c is an integer."""
        size = self.exp(self.decimal(abs(base)).ln() * Decimal(c))
        return -size if base < 0 and c % 2 else size

    def normal(self, x: Fraction) -> tuple[Decimal, Decimal]:
        """The normal distribution function and density at an x within the limit."""
        with localcontext() as context:
            context.prec += 10 + int(x * x / 4)  # what the sum cancels on the left
            z = self.decimal(x)
            density = (-z * z / 2).exp() / (2 * _pi(context.prec)).sqrt()
            total = term = z
            k = 1
            while term and abs(term) > abs(total) * Decimal(10) ** -context.prec:
                k += 2
                term = term * z * z / k
                total += term
            return Decimal("0.5") + total * density, density

    def erf(self, z: Fraction) -> Decimal:
        """The error function at a z between -6 and 6: e^-z^2 2 / sqrt(pi) (z + 2 z^3 / 3 + 4 z^5 / 15 + ...)."""
        x = self.decimal(z)
        total = term = x
        k = 1
        while abs(term) > abs(total) * Decimal(10) ** -self.digits:
            k += 2
            term = term * 2 * x * x / k
            total += term
        return 2 * total * (-x * x).exp() / _pi(self.digits).sqrt()


@lru_cache(maxsize=64)
def _logarithm(c: float, digits: int) -> Decimal:
    with localcontext() as context:
        context.prec = digits
        return Decimal(c).ln()


@lru_cache(maxsize=64)
def _pi(digits: int) -> Decimal:
    """Machin's formula."""
    with localcontext() as context:
        context.prec = digits + 10
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


def settle(
    value: Callable[..., Exact],
    x: npt.NDArray[np.float64],
    upstream: npt.NDArray[np.float64] | None,
    result: StorageFormat,
) -> Stored:
    """
    Correctly rounded results at some finite sources, each different pair of them decided once.

    Parameters
    ----------
    value : callable
        A row's exact forward or derivative, with its parameters; called as ``value(x, m=digits)``.
    x, upstream : ndarray of float64
        The sources, as float64 that hold them exactly; the value is multiplied by `upstream` if there is one.
    result : StorageFormat
        What to round to.

    Returns
    -------
    ndarray
        Of the dtype of `result`.
    """
    pairs = np.stack([x, np.ones_like(x) if upstream is None else upstream]).view(np.int64)
    distinct, inverse = np.unique(pairs, axis=1, return_inverse=True)
    decided = np.empty(distinct.shape[1], result.dtype)
    for i, (source, factor) in enumerate(distinct.view(np.float64).T.tolist()):
        decided[i] = _decide(value, Fraction(source), Fraction(factor), result)
    return decided[inverse.reshape(-1)]


def _decide(
    value: Callable[..., Exact],
    x: Fraction,
    factor: Fraction,
    result: StorageFormat,
) -> Any:
    ends: list[Any] = []
    for digits in DIGITS:
        with localcontext(Context(digits, Emax=MAX_EMAX, Emin=MIN_EMIN, traps=[InvalidOperation, DivisionByZero])):
            m = Digits(digits)
            exact = value(x, m=m)
            if isinstance(exact, Fraction):
                return _round(exact * factor, result)
            product = exact * m.decimal(factor)
            margin = Decimal(10) ** (GUARD - digits)
            ends = [_round(product * (1 - margin), result), _round(product * (1 + margin), result)]
        if ends[0].tobytes() == ends[1].tobytes():
            return ends[0]
    # A tie: of two neighbours the one with the even bit pattern.
    return next(end for end in ends if end.view(result.bits_dtype) % 2 == 0)


def _round(value: Exact, result: StorageFormat) -> Any:
    """Round once; to a floating format by way of an odd float64, which loses nothing that matters to it."""
    if result.unorm_max:
        # A tie between two codes need not be a float64.
        return result.dtype.type(round(min(max(value, 0), 1) * result.unorm_max))
    sign = -1.0 if value < 0 else 1.0
    error = 0
    if value >= 10**308 or value <= -(10**308):
        near = sign * np.inf
    elif value and not -TINY < 1 / value < TINY:
        near = sign * 1e-307
    else:
        near = float(value)
        back: Exact = Fraction(near) if isinstance(value, Fraction) else Decimal(near)
        error = (value > back) - (value < back)
    odd = round_to_odd(np.array([near], np.float64), np.array([error], np.float64))
    return result.encode(odd, np.empty(1, result.dtype))[0]
