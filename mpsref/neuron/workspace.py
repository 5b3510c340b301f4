"""The scratch memory of a neuron kernel, and sums and products with their rounding errors."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from mpsref.storage import product_error, round_to_odd

__all__ = ["MODERATE", "Array", "Pair", "Workspace", "is_short", "largest", "product_beside", "two_sum"]

Array: TypeAlias = npt.NDArray[Any]
"""Of float64; of float32 for the kernels that may run in the storage format itself."""
Pair: TypeAlias = tuple[Array, Array | None]
"""An unevaluated sum: a float64, and what its rounding lost (None: nothing)."""

LARGEST = float(np.finfo(np.float64).max)
SMALLEST = float(np.finfo(np.float64).smallest_subnormal)

MODERATE = 300.0
"""The square of e to this power is far from overflow, its reciprocal from underflow, even times two float32."""

FEW = 4096
"""Up to this many elements, one sum of squares is faster than a minimum and a maximum."""


class Workspace:
    """
    Preallocated buffers for one block of elements.

    A kernel is called as ``kernel(x, p, w)``: `x` is a block of inputs, which it must not overwrite; `p` the
    descriptor; `w` this. It returns the array that holds the result. All arrays have one dtype: that of the storage
    format if the kernel rounds at most once, else float64.

    Attributes
    ----------
    t, u, v, y : ndarray
        Buffers as long as the block, free for the kernel.
    p, q, r : ndarray
        Buffers that the methods of the workspace overwrite.
    slopes : ndarray or None
        The slope of each element of the block, for a neuron with a slope for each channel.
    slopes_shrink : bool
        All of them are above 0 and at most 1.
    wide : bool
        Input and result are float64: a product with a float32 is not exact, and nothing is rounded again.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        memory = np.empty((8, size))
        dtypes = np.float64, np.float32, np.float16
        self._rows = {dtype: [row.view(dtype)[:size] for row in memory] for dtype in dtypes}
        self._buffers: list[Array] = self._rows[np.float64]
        self._shape: tuple[int, Any] = (size, np.float64)
        self.slopes: Array | None = None
        self.slopes_shrink = False
        self._reach: float | None = None
        self.release()
        self.wide = False

    def block(self, size: int, dtype: type[np.floating[Any]] = np.float64) -> Array:
        """Make all buffers `size` long and of a dtype; return one for the inputs."""
        if self._shape != (size, dtype):
            self._shape = (size, dtype)
            self._buffers = [row[:size] for row in self._rows[dtype]]
        x, self.t, self.u, self.v, self.y, self.p, self.q, self.r = self._buffers
        return x

    def release(self) -> None:
        """Drop references to the caller's arrays."""
        x, self.t, self.u, self.v, self.y, self.p, self.q, self.r = self._buffers
        self._sources: npt.NDArray[Any] = x
        self.slopes = None

    def begin(self, x: npt.NDArray[Any]) -> None:
        """Set the block of inputs that `reach` is of."""
        self._sources, self._reach = x, None

    @property
    def reach(self) -> float:
        """An upper bound of the inputs' magnitude; not finite if one of them is infinite or NaN."""
        if self._reach is None:
            x = self._sources
            if x.size <= FEW:
                # Whatever underflows in the sum is smaller than 1.
                self._reach = math.sqrt(float(np.dot(x, x))) * 1.01 + 1.0
            else:
                # Both are NaN if an element is.
                self._reach = max(float(np.maximum.reduce(x)), -float(np.minimum.reduce(x)))
        return self._reach

    @property
    def regular(self) -> bool:
        """Whether all inputs are finite."""
        return self.reach < math.inf

    def is_moderate(self, factor: float = 1.0) -> bool:
        """Whether exponentials of `factor` times an input are far from overflow; False for float64 inputs."""
        return self.reach * abs(factor) < MODERATE and not self.wide

    def filled(self, value: float) -> Array:
        """A block full of `value`, to read: the fast operand for a minimum or maximum."""
        size, dtype = self._shape
        return _constant(value.hex(), self._size, dtype)[:size]

    def select(self, x: Array, negative: Array | float, positive: Array | float, out: Array) -> Array:
        """`negative` where x < 0 and `positive` where x >= 0, bit by bit: several times faster than a mask."""
        # Adding 0 turns -0 into +0, so the sign bit decides.
        mask = np.add(x, 0.0, out=self.r).view(f"i{x.itemsize}")
        np.right_shift(mask, 8 * x.itemsize - 1, out=mask)
        first, second = (np.asarray(value, x.dtype).view(mask.dtype) for value in (negative, positive))
        chosen = out.view(mask.dtype)
        np.bitwise_and(mask, first ^ second, out=mask)
        np.bitwise_xor(mask, second, out=chosen)
        return out

    def product(self, x: Array, factor: float, out: Array) -> Pair:
        """`factor` times `x`, exactly; 0 for factor 0, also at infinity (N6). May return `x` itself."""
        if factor == 1:
            return x, None
        if factor == 0:
            np.clip(x, -LARGEST, LARGEST, out=out)
            return np.multiply(out, factor, out=out), None
        np.multiply(x, factor, out=out)
        if not self.wide:
            return out, None
        error = product_error(x, factor, out)
        error[~np.isfinite(error)] = 0.0
        return out, error

    def affine(self, x: Array, a: float, b: float, out: Array) -> Pair:
        """``a x + b`` as a rounded sum and its error, which matters near 0 and 1."""
        p, lost = self.product(x, a, out)
        if b == 0:
            return np.add(p, b, out=out), lost
        e, s, error = self.p, self.q, self.r
        two_sum(p, b, (s, e, error))
        if lost is not None:
            # Where the sum cancels, the product's error is as large as the sum: add again.
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

    def rounded_affine(self, x: Array, a: float, b: float, out: Array) -> Array:
        """``a x + b`` rounded to float64: good to 2^-53 for every storage format."""
        return self.affine(x, a, b, out)[0] if self.wide else np.add(self.product(x, a, out)[0], b, out=out)

    def line(self, x: Array, a: float, b: float, out: Array) -> Array:
        """``a x + b``, rounded to odd for a short `a`, where many sums are ties of a storage format; else rounded."""
        if self.wide or a == 0:
            return self.odd(self.affine(x, a, b, out))
        s = np.add(np.multiply(x, a, out=self.p), b, out=out)
        # The sum is exact where both differences give the other term; that of the larger one is exact (Dekker 1971).
        if is_short(a) and not (
            np.array_equal(np.subtract(s, b, out=self.q), self.p) and (np.subtract(s, self.p, out=self.q) == b).all()
        ):
            return self.odd(self.affine(x, a, b, out))
        return s

    def fused(self, x: Array, a: float, b: float, out: Array) -> Array:
        """
        ``a x + b`` of float32 inputs, rounded once to float32, as by a fused multiply-add.

        Only where `b` is at least 2^-100, so that a sum that is subnormal as a float32 is exact.
        """
        wide, bits = self._rows[np.float64][1][: x.size], self._rows[np.float32][2][: x.size].view(np.int32)
        np.copyto(wide, x)
        np.add(np.multiply(wide, a, out=wide), b, out=wide)
        np.copyto(out, wide, casting="same_kind")
        if is_short(a) and _sums_are_exact(x, a, b, bits.view(np.uint32)):
            return out
        # The products are exact. A sum that is not is rounded wrongly only if it has become a tie of float32: the last
        # 29 bits are 2^28, or the smallest int32 after a shift.
        np.copyto(bits, wide.view(np.int64), casting="unsafe")
        np.left_shift(bits, 3, out=bits)
        if bits.item(bits.argmin()) == -(2**31):
            ties = np.flatnonzero(bits == -(2**31))
            out[ties] = round_to_odd(*two_sum(x[ties].astype(np.float64) * a, b))
        return out

    def odd(self, pair: Pair) -> Array:
        """The pair as one float64 that rounds further like the exact sum."""
        total, error = pair
        if error is None:
            return total
        return np.add(total, error, out=total, where=error != 0) if self.wide else round_to_odd(total, error)

    def power_of_rest(self, pair: Pair, c: float, out: Array) -> Array:
        """Multiply `out`, which holds ``u ** c`` for a pair ``(u, e)``, by ``(1 + e / u) ** c``."""
        u, e = pair
        if e is not None:
            rest = np.log1p(np.divide(e, u, out=np.zeros_like(u), where=u != 0))
            np.exp(np.multiply(rest, c, out=rest), out=rest)
            # The rest changes the logarithm by half at most: what underflowed or overflowed stays so.
            np.multiply(out, rest, out=out, where=(out != 0) & np.isfinite(out))
        return out

    def exponential(self, pair: Pair, log_base: float, out: Array) -> Array:
        """Multiply `out`, which holds ``base ** u``, by ``base ** e``."""
        if pair[1] is not None:
            # Where e is not small the power has overflowed or underflowed, and the factor must only be harmless.
            out *= 1.0 + np.clip(pair[1] * log_base, -0.5, 0.5)
        return out

    def decay(self, pair: Pair, factor: float, out: Array) -> Array:
        """``exp(-factor |z|)`` for a pair z and a factor of 1 or 2."""
        z, e = pair
        np.multiply(np.abs(z, out=out), -factor, out=out)
        np.exp(out, out=out)
        if e is not None:
            out *= 1.0 - factor * np.copysign(1.0, z) * e
        return out

    def logistic_slope(self, x: Array, factor: float) -> Array:
        """``e^z / (1 + e^z)^2`` for ``z = factor x``, in ``y``."""
        z = self.product(x, factor, self.u)
        e = np.exp(z[0], out=self.y) if self.is_moderate(factor) else self.decay(z, 1.0, self.y)
        np.square(np.add(e, 1.0, out=self.v), out=self.v)
        return np.divide(e, self.v, out=self.y)

    def bounded_slope(self, y: Array, regular: Callable[[], npt.NDArray[np.bool_]], sign: Array | float) -> Array:
        """
        Clamp slopes that overflowed or underflowed in float64 to its largest or smallest number.

        The product with the incoming gradient is then right in every storage format, whose range is far smaller: a
        huge slope times 0 is 0, and a tiny one times infinity is infinity. `regular` returns where the exact slope is
        finite and not 0; it is called only if needed.
        """
        zero = y == 0
        if np.count_nonzero(zero):
            zero &= regular()
            y[zero] = np.broadcast_to(np.copysign(SMALLEST, sign), y.shape)[zero]
        infinite = np.isinf(y)
        if np.count_nonzero(infinite):
            infinite &= regular()
            y[infinite] = np.copysign(LARGEST, y[infinite])
        return y


def largest(array: npt.NDArray[Any]) -> Any:
    """The largest element, or NaN if there is one: faster than a reduction of a small array, and as fast otherwise."""
    return array.item(array.argmax())


@lru_cache(maxsize=16)
def _constant(value: str, size: int, dtype: Any) -> Array:
    # By its digits, since -0.0 equals 0.0.
    constant: Array = np.full(size, float.fromhex(value), dtype)
    constant.setflags(write=False)
    return constant


def _sums_are_exact(x: Array, a: float, b: float, size: npt.NDArray[Any]) -> bool:
    """Whether all finite sums ``a x + b`` fit into float64, by the least and the largest float32; `size` is scratch."""
    np.left_shift(x.view(np.uint32), 1, out=size)
    last, first = (size.item(index) >> 24 for index in (size.argmax(), size.argmin()))
    if not first:
        # Less 1, a zero is the largest.
        np.subtract(size, 1, out=size)
        first = max((size.item(size.argmin()) + 1) >> 24, 1)
    unit = min(math.ldexp(_last_bit(a), first - 150), _last_bit(b))
    return math.ldexp(abs(a), last - 126) + abs(b) < 2.0**53 * unit


def _last_bit(a: float) -> float:
    """The largest power of 2 that divides a float32 but 0."""
    numerator, denominator = a.as_integer_ratio()
    return (numerator & -numerator) / denominator


def is_short(a: float) -> bool:
    """Whether `a` has at most 8 significant bits."""
    return (math.frexp(a)[0] * 256).is_integer()


def product_beside(x: Array, rest: Array, y: Array | float) -> Array:
    """
    ``(x + rest) y``, rounded to odd, for a y of at most 24 bits and a rest that is good to 2^-40 of itself.

    NaN where that does not decide on which side of a float64 the result is.
    """
    product, more = x * y, rest * y
    lost = product_error(x, y, product)
    total, error = two_sum(product, lost + more)
    doubt = 2.0**-39 * np.abs(more) + 2.0**-52 * (np.abs(lost) + np.abs(more)) * (more != 0)
    known = np.isfinite(total) & ((np.abs(error) > doubt) | (more == 0))
    return np.where(known, round_to_odd(total, error), np.nan)


def two_sum(x: Array, y: Array | float, out: tuple[Array, Array, Array] | None = None) -> tuple[Array, Array]:
    """Knuth's TwoSum: the rounded sum and its exact error. `out` is for the sum, a part of it, and the error."""
    total, part, error = out or (np.empty_like(x), np.empty_like(x), np.empty_like(x))
    np.add(x, y, out=total)
    np.subtract(total, x, out=part)
    np.subtract(total, part, out=error)
    np.subtract(x, error, out=error)
    np.subtract(y, part, out=part)
    np.add(error, part, out=error)
    return total, error
