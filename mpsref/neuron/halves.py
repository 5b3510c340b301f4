"""
Gradients in float16 by float32 and integers.

Times 2^-112, a float16 has the bits of a float32 that are shifted by 13, subnormal numbers included. So an incoming
gradient is decoded by widening and a shift, and its product with a slope is encoded by an addition and a shift.
Infinite and NaN gradients, products that overflow, and results that float32 leaves open are left to float64.
"""

from __future__ import annotations

import numpy as np

from mpsref.arrays import Index, Stored
from mpsref.neuron.threads import Scratch
from mpsref.neuron.workspace import Array

__all__ = ["SlopeTable", "scaled", "times_slope"]

MARGIN = 3
"""Units in the last place that a float32 product may be off: 1 by the slope, 1/2 by its rounding, and a reserve."""

LARGEST, INFINITY = 0x0F7F_E000, 0x7C00
"""The bits of the largest float16 as a scaled float32, and those of infinity as a float16."""


class SlopeTable:
    """
    The slopes at all bit patterns of an input.

    Attributes
    ----------
    exact : ndarray of float64
        The slopes, within the error bound of the kernel.
    narrow : ndarray of float32
        The same, rounded; one whose product with every float16 but infinity rounds to 0, or overflows, still does.
    is_short : bool
        Products with a float16 are exact in float32, so that ties are frequent but nothing is open.
    is_positive : bool
        No slope is negative, -0 or infinite, so that a product has the sign of the incoming gradient.
    """

    def __init__(self, exact: Array) -> None:
        self.exact = exact
        size = np.abs(exact)
        size = np.where((size == 0) | (size == np.inf), size, np.clip(size, 2.0**-90, 1e30))
        self.narrow = np.copysign(size, exact).astype(np.float32)
        nan = np.isnan(exact)
        self.narrow[nan] = np.nan
        some, wide = self.narrow[~nan], exact[~nan]
        # At most 13 bits, none of them below 2^-13.
        few_bits = (some.view(np.uint32) & 0x7FF) == 0
        self.is_short = bool(np.all((some == wide) & few_bits & (np.isinf(wide) | (wide * 2.0**13 % 1 == 0))))
        self.is_positive = not np.any(np.signbit(some) | np.isinf(some))


def scaled(halves: Stored, out: Array) -> Array:
    """2^-112 times each float16, in a float32 array. Infinities and NaN become numbers."""
    bits = out.view(np.int32)
    np.copyto(bits, halves.view(np.int16))
    # Widening has copied the sign.
    np.bitwise_and(np.left_shift(bits, 13, out=bits), -0x7000_0001, out=bits)
    return out


def times_slope(
    slope: Array,
    incoming: Stored,
    out: Stored,
    memory: Scratch,
    *,
    is_short: bool = False,
    is_positive: bool = False,
    is_rectified: bool = False,
) -> Index:
    """
    Write slopes times incoming gradients, rounded once; return where that is still open.

    Or, rectified, the larger of this and `incoming`.

    `slope` is a float32 array, and is overwritten; so are ``upstream``, ``other`` and ``mask`` of the memory.
    """
    n, bits, p = slope.size, incoming.view(np.uint16), slope.view(np.int32)
    g, rest = (each.view(np.int32)[:n] for each in (memory.upstream, memory.other))
    size, sign = memory.other.view(np.uint16).reshape(4, -1)[2:, :n]
    np.bitwise_and(bits, 0x7FFF, out=size)
    is_special = np.maximum.reduce(size) >= INFINITY
    if is_positive:
        np.bitwise_xor(bits, size, out=sign)
        np.copyto(g, size)
        np.left_shift(g, 13, out=g)
        np.multiply(slope, g.view(np.float32), out=slope)
    else:
        factor = scaled(incoming, g.view(np.float32))
        np.multiply(slope, factor, out=slope)
        if is_rectified:
            np.maximum(slope, factor, out=slope)
        np.copyto(sign, np.right_shift(p, 16, out=g), casting="unsafe")
        np.bitwise_and(sign, 0x8000, out=sign)
        np.bitwise_and(p, 0x7FFF_FFFF, out=p)
    nan = special = None
    if is_special or np.maximum.reduce(p) > LARGEST:
        nan, special = p > 0x7F80_0000, (p > LARGEST) | (size >= INFINITY)
    is_open = memory.mask[:n]
    if is_short:
        # To nearest, ties to even.
        np.bitwise_and(np.right_shift(p, 13, out=rest), 1, out=rest)
        np.add(p, np.add(rest, 0xFFF, out=rest), out=p)
        is_open.fill(False)
    else:
        np.add(p, 0x1000 + MARGIN, out=p)
        np.less_equal(np.bitwise_and(p, 0x1FFF, out=rest), 2 * MARGIN, out=is_open)
    stored = out.view(np.uint16)
    np.copyto(stored, np.right_shift(p, 13, out=p), casting="unsafe")
    np.bitwise_or(stored, sign, out=stored)
    if nan is not None and special is not None:
        is_open |= special
        is_open &= ~nan
        np.copyto(out, np.nan, where=nan)
    return np.flatnonzero(is_open)
