"""
The scaled tail of the normal distribution, e^(z^2/2) Phi(-z), from a table and its Taylor series.

NumPy has no error function, and SciPy's is a scalar loop, good to a few ULP only.
"""

from __future__ import annotations

from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal, DivisionByZero, InvalidOperation, localcontext
from functools import lru_cache

import numpy as np

from mpsref.neuron.workspace import Array, Workspace

__all__ = ["END", "RECIPROCAL_SQRT_2PI", "scaled_tail"]

END = 40.0
"""The last node. Beyond it the density underflows in float64."""

RECIPROCAL_SQRT_2PI = 0.3989422804014327

STEPS = 2048
"""Nodes per unit. The remainder after three terms of the series is below 2^-51 of the tail."""

NEAREST = 1.5 * 2.0**52 / STEPS
"""Added to a number and subtracted again, leaves the nearest node; the last bits of the sum are its index."""

SEEDS = 32
"""Nodes per unit that are computed in multi-precision; the others follow from the nearest of them."""


def scaled_tail(z: Array, w: Workspace, terms: int) -> Array:
    """
    The scaled tail at every z from 0 to `END`, in a buffer of the workspace.

    `z` may be ``w.y``; all buffers but ``v`` are overwritten. With 3 terms it is good to 2^-50, with 6 to 3 ULP.
    """
    total = np.add(z, NEAREST, out=w.t)
    node = np.subtract(total, NEAREST, out=w.u)
    offset = np.subtract(z, node, out=w.y)
    index = total.view(np.int64)
    np.bitwise_and(index, 0xFFFFF, out=index)
    tail = _nodes().take(index, None, w.p, "wrap")
    return _taylor(tail, node, offset, terms, [w.q, w.r, w.t])


def _taylor(tail: Array, node: Array, offset: Array, terms: int, buffers: list[Array]) -> Array:
    """The series about some nodes: for f' = z f - 1 / sqrt(2 pi) each coefficient follows from the two before."""
    coefficients = [tail]
    for n in range(terms):
        out = buffers[n] if n < len(buffers) else np.empty_like(tail)
        np.multiply(node, coefficients[n], out=out)
        if n == 0:
            np.subtract(out, RECIPROCAL_SQRT_2PI, out=out)
        else:
            np.add(out, coefficients[n - 1], out=out)
            np.multiply(out, 1.0 / (n + 1), out=out)
        coefficients.append(out)
    total = coefficients.pop()
    for coefficient in reversed(coefficients):
        np.multiply(total, offset, out=total)
        np.add(total, coefficient, out=total)
    return total


@lru_cache(maxsize=1)
def _nodes() -> Array:
    seeds = np.array(_seeds())
    index = np.arange(int(END) * STEPS + 1)
    nearest = (index + STEPS // SEEDS // 2) // (STEPS // SEEDS)
    node = nearest / SEEDS
    return _taylor(seeds[nearest], node, index / STEPS - node, 12, [])


def _seeds() -> list[float]:
    """Laplace's continued fraction at the end, and from there downwards, where errors die away, by Mills' ratio."""
    # The caller's context may have traps.
    with localcontext(Context(prec=40, Emax=MAX_EMAX, Emin=MIN_EMIN, traps=[InvalidOperation, DivisionByZero])):
        z, ratio, step = Decimal(END), Decimal(0), Decimal(-1) / SEEDS
        for k in range(200, 0, -1):
            ratio = k / (z + ratio)
        ratio = 1 / (z + ratio)
        ratios = [ratio]
        while z > 0:
            before, coefficient, power = ratio, z * ratio - 1, step
            ratio += coefficient * power
            for n in range(2, 30):
                before, coefficient, power = coefficient, (z * coefficient + before) / n, power * step
                ratio += coefficient * power
            z += step
            ratios.append(ratio)
        sqrt_2pi = Decimal("2.506628274631000502415765284811045253006987")
        return [float(ratio / sqrt_2pi) for ratio in reversed(ratios)]
