"""The scratch memory of a neuron kernel, and the sums and products that it must not round carelessly."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from mpsref.storage import round_to_odd

__all__ = ["Array", "Pair", "Workspace"]

Array: TypeAlias = npt.NDArray[np.float64]
Pair: TypeAlias = tuple[Array, Array | None]
"""An unevaluated sum: a float64, and what its rounding lost (None: nothing)."""

LARGEST = float(np.finfo(np.float64).max)
SMALLEST = float(np.finfo(np.float64).smallest_subnormal)


class Workspace:
    """
    Preallocated float64 buffers for one block of elements.

    A kernel is called as ``kernel(x, p, w)``: `x` is a block of decoded sources, which it may overwrite; `p` the
    descriptor; `w` this. It returns the buffer that holds the result, rounded to float64 and no further.

    Attributes
    ----------
    t, u, v, y : ndarray
        Buffers as long as the block, for the kernel to use as it likes.
    slopes : ndarray or None
        The slope of each element of the block, for a neuron with a slope for each channel.
    wide : bool
        The source may have more than 29 significant bits, so that its product with a float32 is not exact.
    narrow : bool
        The result will be rounded again, to a format of at most 32 bits.
    """

    def __init__(self, size: int) -> None:
        self._buffers = [np.empty(size) for _ in range(8)]
        self.slopes: Array | None = None
        self.wide = False
        self.narrow = True

    def block(self, size: int, slopes: Array | None = None) -> Array:
        """Make all buffers `size` long; return one for the sources."""
        self.slopes = slopes
        x, self.t, self.u, self.v, self.y, self._e, self._s, self._r = (buffer[:size] for buffer in self._buffers)
        return x

    def product(self, x: Array, factor: float, out: Array) -> Pair:
        """`factor` times `x`, exactly; a constant 0 for factor 0, also at infinity (N6)."""
        if factor == 0:
            np.clip(x, -LARGEST, LARGEST, out=out)
            return np.multiply(out, factor, out=out), None
        np.multiply(x, factor, out=out)
        if not self.wide:
            return out, None
        # Veltkamp's split at 29 bits, by masking: both halves times a float32 are exact (Dekker 1971).
        high = (x.view(np.int64) & ~np.int64(0xFFFFFF)).view(np.float64)
        error = (high * factor - out) + (x - high) * factor
        error[~np.isfinite(error)] = 0.0
        return out, error

    def affine(self, x: Array, a: float, b: float, out: Array) -> Pair:
        """``a x + b`` as a rounded sum and its error (Knuth's TwoSum), which a sum near 0 or 1 needs."""
        p, lost = self.product(x, a, out)
        if b == 0:
            return np.add(p, b, out=out), lost
        e, s, error = self._e, self._s, self._r
        np.add(p, b, out=s)
        np.subtract(s, p, out=e)
        np.subtract(s, e, out=error)
        np.subtract(p, error, out=error)
        np.subtract(b, e, out=e)
        np.add(error, e, out=error)
        if lost is not None:
            # Where the sum cancels, what the product lost is as large as the sum: sum up again.
            error += lost
            np.add(s, error, out=e)
            part = e - s
            error = (s - (e - part)) + (error - part)
            s = np.where(np.isfinite(s), e, s)
        lost_in_overflow = ~np.isfinite(error)
        if lost_in_overflow.any():
            error[lost_in_overflow] = 0.0
        np.copyto(out, s)
        return out, error

    def odd(self, pair: Pair) -> Array:
        """The pair as one float64 that the rounding to come will round like the exact sum."""
        total, error = pair
        if error is None:
            return total
        return round_to_odd(total, error) if self.narrow else np.add(total, error, out=total, where=error != 0)

    def power_of_rest(self, pair: Pair, c: float, out: Array) -> Array:
        """Multiply `out`, which holds ``u ** c`` for a pair ``(u, e)``, by ``(1 + e / u) ** c``."""
        u, e = pair
        if e is not None:
            rest = np.log1p(np.divide(e, u, out=np.zeros_like(u), where=u != 0))
            np.exp(np.multiply(rest, c, out=rest), out=rest)
            # The rest is at most half of the whole, in the logarithm: what has vanished or overflowed stays so.
            np.multiply(out, rest, out=out, where=(out != 0) & np.isfinite(out))
        return out

    def exponential(self, pair: Pair, log_base: float, out: Array) -> Array:
        """Multiply `out`, which holds ``base ** u``, by ``base ** e``."""
        if pair[1] is not None:
            # Where e is not small the power has overflowed or vanished: there the factor must only be harmless.
            out *= 1.0 + np.clip(pair[1] * log_base, -0.5, 0.5)
        return out

    def decay(self, pair: Pair, factor: float, out: Array) -> Array:
        """``exp(-factor |z|)`` for a pair z and a factor of 1 or 2."""
        z, e = pair
        np.abs(z, out=out)
        np.multiply(out, -factor, out=out)
        np.exp(out, out=out)
        if e is not None:
            out *= 1.0 - factor * np.copysign(1.0, z) * e
        return out

    def bounded_slope(self, y: Array, regular: Callable[[], npt.NDArray[np.bool_]], sign: Array | float) -> Array:
        """
        Keep a slope finite and not zero where it is so, though float64 cannot hold it.

        The product with the upstream gradient is then right in every storage format, whose range is far smaller: a
        huge slope times 0 is 0, and a tiny one times infinity is infinity. `regular` tells where that is; it is called
        only if there is something to mend.
        """
        if not y.all():
            vanished = (y == 0) & regular()
            y[vanished] = np.broadcast_to(np.copysign(SMALLEST, sign), y.shape)[vanished]
        infinite = np.isinf(y)
        if infinite.any():
            overflown = infinite & regular()
            y[overflown] = np.copysign(LARGEST, y[overflown])
        return y
