"""
Exact sums of many float64 numbers at once, as a few float64 each.

Numbers are cut at a multiple of a power of two so large that the sum of the cut parts is exact in any order (Rump,
Ogita and Oishi, "Accurate floating-point summation part I", SIAM J. Sci. Comput. 31(1), 2008); then what is left, until
nothing is. The few sums are added without error until they do not overlap (Kahan's distillation).
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from mpsref.arrays import Wide
from mpsref.neuron.workspace import two_sum
from mpsref.storage import round_to_odd

__all__ = ["cut", "distilled", "exact_products", "fractions", "halves", "nearest", "odd", "quotient_odd"]

SAFE = 2.0**450
"""Of operands of which no product, and no error of one, underflows or overflows; nor does its reciprocal."""


def cut(terms: Wide) -> list[Wide]:
    """A few numbers that add up exactly to the sum of each row of finite `terms`, which it overwrites."""
    parts: list[Wide] = []
    room = (terms.shape[1] + 1).bit_length()
    while terms.size:
        largest = np.maximum(terms.max(axis=1), -terms.min(axis=1))
        if not largest.any():
            break
        unit = np.ldexp(1.0, np.frexp(largest)[1] + room)[:, None]
        high = terms + unit
        high -= unit
        terms -= high
        parts.append(high.sum(axis=1))
    return parts


def distilled(parts: list[Wide], size: int) -> Wide:
    """The same sums without overlap: an array of the largest numbers, the second ones, the third ones, and so on."""
    rows = [np.zeros(size)] * max(0, 3 - len(parts)) + parts[::-1]
    changed = True
    while changed:
        changed = False
        for i in range(1, len(rows)):
            total, error = two_sum(rows[i], rows[i - 1])
            changed = changed or not (np.array_equal(total, rows[i]) and np.array_equal(error, rows[i - 1]))
            rows[i], rows[i - 1] = total, error
    # Adding 0 turns -0 into +0.
    return np.stack(rows[::-1]) + 0.0


def odd(expansion: Wide) -> Wide:
    """Each sum rounded to odd: it rounds further like the exact one, in formats of at most 51 bits."""
    return round_to_odd(expansion[0].copy(), expansion[1])


def nearest(expansion: Wide) -> Wide:
    """Each sum rounded to the nearest float64."""
    rest: Wide = expansion[0] + round_to_odd(expansion[1].copy(), expansion[2])
    return rest


def fractions(expansion: Wide) -> list[Fraction]:
    """Each sum as a rational number."""
    return [sum(map(Fraction, column), Fraction(0)) for column in expansion.T.tolist()]


def quotient_odd(values: Wide, divisors: Wide) -> Wide:
    """Each number, exact, divided by an integer of at most 24 bits and rounded to odd."""
    quotient: Wide = values / divisors
    if (np.frexp(divisors)[0] == 0.5).all():
        return quotient
    high = (quotient.view(np.int64) & ~np.int64(0xFFFFFF)).view(np.float64)
    # What a division leaves is a float64.
    rest = (values - high * divisors) - (quotient - high) * divisors
    rest *= quotient
    # Towards 0, and then to the odd one of two; NaN and infinities have no rest.
    bits, below = quotient.view(np.int64), rest < 0
    bits -= below
    bits |= below | (rest > 0)
    return quotient


def halves(x: Wide) -> tuple[Wide, Wide]:
    """Two numbers of at most 26 bits each that add up to `x` (Veltkamp)."""
    scaled = x * 134217729.0
    high = scaled - (scaled - x)
    return high, x - high


def exact_products(x: Wide, y: Wide, *, wide: bool) -> Wide | None:
    """
    Finite terms that add up to the products of each row.

    `wide` operands may have more than 24 bits; None where these are too large or too small to be split.
    """
    if not wide:
        return x * y
    for operand in (x, y):
        size = np.abs(operand)
        if not ((size == 0) | ((size < SAFE) & (size > 1 / SAFE))).all():
            return None
    return np.concatenate([a * b for a in halves(x) for b in halves(y)], axis=1)
