"""
A smooth function of float32 by the nodes of a table: cheaper than float64, and nearly always enough.

Between two nodes the function hardly changes, so float32 holds the change; the value at the node is float64. What the
error leaves open, 1 element in 64, is left to the kernel.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mpsref.arrays import Index, Stored
from mpsref.neuron.threads import Scratch
from mpsref.neuron.workspace import Array

__all__ = ["BOUND", "Nodes"]

FIRST, LAST = -6.0, 8.0
"""Inputs below are left open. Beyond the last, h, and of a slope the root's distance, are those at the last."""

STEPS = 4096
"""Nodes per unit."""

NEAREST = np.float32(1.5 * 2.0**23 / STEPS)
"""Added to a float32 and subtracted again, leaves the nearest node; the last bits of the sum are its index."""

BOUND = 2.0**-31
"""More than the relative error, which docs/accuracy.md derives."""

MARGIN = int(BOUND * 2.0**53) + 1
"""The same in units of the last place of float64."""

SMALL, LARGE = (int(np.float32(size).view(np.uint32)) << 1 for size in (2.0**-90, 2.0**126))
"""The bits but the sign, of factors with which no result is subnormal or overflows."""


class Nodes:
    """
    A function ``f(x) = (x - root) h(x)`` with a smooth h that is not 0.

    Parameters
    ----------
    function : callable
        f in float64.
    root : (float, float)
        The root, as a float64 and the rest.
    """

    def __init__(self, function: Callable[[Array], Array], root: tuple[float, float]) -> None:
        self._root = tuple(map(np.float64, root))
        steps = np.arange(int(FIRST * STEPS) - 2, int(LAST * STEPS) + 3)
        # At 0 itself f may be 0; next to it h is the same.
        x = np.where(steps == 0, 2.0**-60, steps / STEPS)
        h = function(x) / (x - root[0] - root[1])
        self._value = h[2:-2].copy()
        # The first two coefficients of Taylor's series by differences, to the fourth and the second order.
        self._slope = ((h[3:-1] - h[1:-3]) * (8 * STEPS / 12) - (h[4:] - h[:-4]) * (STEPS / 12)).astype(np.float32)
        self._bend = ((h[3:-1] - 2.0 * h[2:-2] + h[1:-3]) * (STEPS**2 / 2)).astype(np.float32)
        self._first = int(NEAREST.view(np.int32)) + int(FIRST * STEPS)

    def product(self, x: Stored, incoming: Stored | None, memory: Scratch) -> Array | None:
        """f(x), or that times the incoming gradient, to within `BOUND`; None if an x is NaN, or many are too small."""
        n, w = x.size, memory.workspace
        w.block(n, np.float32)
        lowest, highest = np.minimum.reduce(x), np.maximum.reduce(x)
        if not lowest <= highest or (lowest < FIRST and np.count_nonzero(x < FIRST) > n // 8):
            return None
        near = x if lowest >= FIRST and highest <= LAST else np.clip(x, FIRST, LAST, out=w.p)
        node, index, total = np.add(near, NEAREST, out=w.t), memory.index[:n], memory.scratch[:n]
        np.subtract(node.view(np.int32), self._first, out=index)
        offset = np.subtract(near, np.subtract(node, NEAREST, out=node), out=w.u)
        slope, change = (table.take(index, None, out, "wrap") for table, out in ((self._slope, w.v), (self._bend, w.y)))
        np.multiply(np.add(np.multiply(change, offset, out=change), slope, out=change), offset, out=change)
        np.add(self._value.take(index, None, total, "wrap"), change, out=total)
        if incoming is None:
            return np.multiply(total, x, out=total)
        factor = np.subtract(near, self._root[0], out=memory.other[:n])
        np.multiply(total, np.subtract(factor, self._root[1], out=factor), out=total)
        return np.multiply(total, incoming, out=total)

    def round_once(self, x: Stored, incoming: Stored | None, out: Stored, memory: Scratch) -> Index | None:
        """Write f(x), or that times the incoming gradient, rounded once; return where it is open; None: everywhere."""
        total = self.product(x, incoming, memory)
        if total is None:
            return None
        np.copyto(out, total, casting="same_kind")
        is_open = memory.mask[: x.size]
        # Ziv's test: the last 29 bits are beyond float32. Shifted to the top, those of a midpoint are 2^31.
        rest = memory.workspace.v.view(np.int32)
        np.copyto(rest, total.view(np.int64), casting="unsafe")
        np.add(np.left_shift(rest, 3, out=rest), 8 * MARGIN - 2**31, out=rest)
        np.less_equal(rest.view(np.uint32), 16 * MARGIN, out=is_open)
        # It is made for normal numbers, and for zeros, which are exact.
        size = memory.workspace.t.view(np.uint32)
        np.left_shift((x if incoming is None else incoming).view(np.uint32), 1, out=size)
        largest = np.maximum.reduce(size)
        np.subtract(size, 1, out=size)
        if largest > LARGE or np.minimum.reduce(size) < SMALL:
            is_open |= (size < SMALL) | ((size >= LARGE) & (size < 2**32 - 1))
        if np.minimum.reduce(x) < FIRST:
            is_open |= x < FIRST
        return np.flatnonzero(is_open)
