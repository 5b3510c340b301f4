"""
The independent judge: a neuron's results in real numbers, as balls of arbitrary precision, correctly rounded.

It imports nothing from the rest of the package. The formulas are those that Apple documents, with the choices of the
numerical contract (N4 to N6); flint's ball arithmetic bounds the error of each result, and precision is raised until
the rounding is certain (Ziv's strategy). Values exactly on a rounding boundary are recognised in exact arithmetic.

``ctx.prec`` is global: judge from one thread only.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from flint import arb, ctx

__all__ = ["Judge", "differs", "fraction", "precisely", "rational_power", "unorm_values"]

Ball: TypeAlias = Any
"""A flint ``arb``: a real number with an error bound. flint's own types are not checked."""

Array: TypeAlias = npt.NDArray[np.float64]
Stored: TypeAlias = npt.NDArray[Any]

EXACT = 6000
"""Bits that hold every ``a x + b`` of two float32 and one float64."""

FIRST, ENOUGH, LAST = 100, 60, 1 << 16
FAR = arb(2) ** 60
"""Beyond it an exponential is far outside every format; its argument is clamped, to be quick to compute."""

TRANSCENDENTAL = (
    "sigmoid", "tanH", "softPlus", "ELU", "exponential", "logarithm", "geLU", "silu", "quick_gelu", "gelu_tanh", "mish",
    "selu", "celu", "logsigmoid", "softplus", "tanhshrink",
)  # fmt: skip
"""Rational only at a few points, where few bits suffice to see it."""

ZERO, ONE, NAN, INF = arb(0), arb(1), arb("nan"), arb("inf")


def exp(z: Ball) -> Ball:
    """e^z, with z clamped to values that are quick to compute."""
    return min(max(z, -FAR), FAR).exp()


def precisely(bits: int, function: Callable[..., Any], *args: Any) -> Any:
    """``function(*args)`` at a precision of `bits`."""
    before, ctx.prec = ctx.prec, bits
    try:
        return function(*args)
    finally:
        ctx.prec = before


# Constants, each computed once for a working precision.


@lru_cache
def _log(number: float, bits: int) -> Ball:
    return precisely(bits, arb(number).log)


@lru_cache
def _sqrt(number: int, bits: int) -> Ball:
    return precisely(bits, arb(number).sqrt)


@lru_cache
def _sqrt_pi(bits: int) -> Ball:
    return precisely(bits, lambda: arb.pi().sqrt())


def fraction(ball: Ball) -> Fraction:
    """The value of an exact ball."""
    mantissa, exponent = ball.man_exp()
    return Fraction(int(mantissa)) * Fraction(2) ** int(exponent)


def rational_power(base: Fraction, exponent: Fraction) -> Fraction | None:
    """``base ** exponent`` for a positive base and a dyadic exponent, if it is rational and not huge."""
    if base == 1:
        return base
    while exponent.denominator > 1:
        roots = math.isqrt(base.numerator), math.isqrt(base.denominator)
        if (roots[0] ** 2, roots[1] ** 2) != (base.numerator, base.denominator):
            return None
        base, exponent = Fraction(*roots), exponent * 2
    size = base.numerator.bit_length() + base.denominator.bit_length()
    return base ** int(exponent) if abs(exponent) * size < 20_000 else None


class Judge:
    """
    One neuron with its parameters.

    Parameters
    ----------
    name : str
        Apple's name of the neuron type.
    a, b, c : float
        Its parameters, as float32; for pReLU, `a` is the slope of the channel.

    Examples
    --------
    >>> import numpy as np
    >>> from mpsref.proof.judge import Judge
    >>> x = np.array([0.0, 1.0])
    >>> judge = Judge("softPlus", 1.0, 1.0)
    >>> judge.rounded(x, judge.float64s(x), np.float32)
    array([0.6931472, 1.3132616], dtype=float32)
    """

    def __init__(self, name: str, a: float = 0.0, b: float = 0.0, c: float = 0.0) -> None:
        self.name, self.p = name, (float(a), float(b), float(c))
        self.a, self.b, self.c = arb(a), arb(b), arb(c)
        self.integer_c = float(c).is_integer()
        self.exponents = Fraction(c), Fraction(c) - 1
        self.forward: Callable[[Ball], Ball] = getattr(self, f"_{name}")
        self.derivative: Callable[[Ball], Ball] = getattr(self, f"_{name}_slope")

    def __repr__(self) -> str:
        return f"{self.name}{self.p}"

    # u = a x + b is exact at any working precision, so that comparisons with it are.
    def _u(self, x: Ball) -> Ball:
        if self.p[:2] == (1, 0):
            return x
        return precisely(EXACT, lambda: self.a * x + self.b)

    def _z(self, x: Ball) -> Ball:
        if self.p[1] == 1:
            return x
        return precisely(EXACT, lambda: self.b * x)

    # --- the sixteen functions --------------------

    def _none(self, x: Ball) -> Ball:
        return x

    def _none_slope(self, x: Ball) -> Ball:
        return ONE

    def _reLU(self, x: Ball) -> Ball:
        return x if x >= 0 else self.a * x

    def _reLU_slope(self, x: Ball) -> Ball:
        return ONE if x >= 0 else self.a

    _pReLU, _pReLU_slope = _reLU, _reLU_slope  # noqa: N815

    def _linear(self, x: Ball) -> Ball:
        return self._u(x)

    def _linear_slope(self, x: Ball) -> Ball:
        return self.a

    def _sigmoid(self, x: Ball) -> Ball:
        return 1 / (1 + exp(-x))

    def _sigmoid_slope(self, x: Ball) -> Ball:
        e = exp(x)
        return e / (e + 1) ** 2

    def _hardSigmoid(self, x: Ball) -> Ball:
        u = self._u(x)
        return ZERO if u <= 0 else ONE if u >= 1 else u

    def _hardSigmoid_slope(self, x: Ball) -> Ball:
        return self.a if 0 <= self._u(x) <= 1 else ZERO

    def _tanH(self, x: Ball) -> Ball:
        return self.a * self._z(x).tanh()

    def _tanH_slope(self, x: Ball) -> Ball:
        z = self._z(x)
        return self.a * self.b * (FAR if abs(z) > FAR else z).sech() ** 2

    def _absolute(self, x: Ball) -> Ball:
        return abs(x)

    def _absolute_slope(self, x: Ball) -> Ball:
        return ONE if x > 0 else -ONE if x < 0 else ZERO

    def _softPlus(self, x: Ball) -> Ball:
        z = self._z(x)
        return self.a * (z + exp(-z).log1p() if z > 0 else exp(z).log1p())

    def _softPlus_slope(self, x: Ball) -> Ball:
        e = exp(self._z(x))
        return self.a * self.b * e / (e + 1)

    def _softSign(self, x: Ball) -> Ball:
        return x / precisely(EXACT, lambda: 1 + abs(x))

    def _softSign_slope(self, x: Ball) -> Ball:
        return 1 / precisely(EXACT, lambda: 1 + abs(x)) ** 2

    def _ELU(self, x: Ball) -> Ball:
        return x if x >= 0 else self.a * max(x, -FAR).expm1()

    def _ELU_slope(self, x: Ball) -> Ball:
        return ONE if x >= 0 else self.a * exp(x)

    def _reLUN(self, x: Ball) -> Ball:
        y = precisely(EXACT, self._reLU, x)
        return min(y, self.b)

    def _reLUN_slope(self, x: Ball) -> Ball:
        return self._reLU_slope(x) if precisely(EXACT, self._reLU, x) < self.b else ZERO

    def _to_the(self, u: Ball, exponent: Fraction) -> Ball:
        """``u ** exponent`` in real numbers."""
        if u == 0:
            return ZERO if exponent > 0 else INF if exponent < 0 else ONE
        if exponent.denominator == 1 and abs(exponent) <= 1000:
            return u ** int(exponent)
        size = exp(arb(exponent.numerator) / exponent.denominator * abs(u).log())
        return -size if u < 0 and exponent % 2 == 1 else size

    def _power(self, x: Ball) -> Ball:
        u = self._u(x)
        return NAN if u < 0 and not self.integer_c else self._to_the(u, self.exponents[0])

    def _power_slope(self, x: Ball) -> Ball:
        u, c = self._u(x), self.p[2]
        if u < 0 and not self.integer_c:
            return NAN
        k = self.a * self.c
        if k == 0:
            return NAN if u == 0 and c < 0 else ZERO
        return k * self._to_the(u, self.exponents[1])

    def _log_base(self) -> Ball:
        c = self.p[2]
        return ONE if c == -1 else _log(c, ctx.prec) if c > 0 else NAN

    def _exponential(self, x: Ball) -> Ball:
        u, c = self._u(x), self.p[2]
        if c == 0:
            return ZERO if u > 0 else ONE if u == 0 else NAN
        if c < 0 and c != -1:
            if not u.is_integer():
                return NAN
            # A negative base to an integer: the sign alternates.
            size = exp(u * (-self.c).log())
            return size if precisely(EXACT, lambda: u / 2).is_integer() else -size
        return exp(u * self._log_base())

    def _exponential_slope(self, x: Ball) -> Ball:
        c = self.p[2]
        if c == 0:
            return ZERO if self._u(x) > 0 else NAN
        return self.a * self._log_base() * self._exponential(x) if c > 0 or c == -1 else NAN

    def _logarithm(self, x: Ball) -> Ball:
        u, base = self._u(x), self._log_base()
        if base.is_nan() or base == 0 or u < 0:
            return NAN
        return u.log() / base if u > 0 else INF if base < 0 else -INF

    def _logarithm_slope(self, x: Ball) -> Ball:
        u, base = self._u(x), self._log_base()
        if base.is_nan() or base == 0:
            return NAN
        if u == 0:
            return INF if self.a != 0 else NAN
        return self.a / (base * u)

    def _geLU(self, x: Ball) -> Ball:
        z = arb(2**20) if x > 2**20 else arb(-(2**20)) if x < -(2**20) else x
        return x / 2 * (-z / _sqrt(2, ctx.prec)).erfc()

    def _geLU_slope(self, x: Ball) -> Ball:
        x = arb(2**20) if x > 2**20 else arb(-(2**20)) if x < -(2**20) else x
        density = (-(x * x) / 2).exp() / (_sqrt(2, ctx.prec) * _sqrt_pi(ctx.prec))
        return (-x / _sqrt(2, ctx.prec)).erfc() / 2 + x * density

    # --- the activations that are not Apple's --------------------

    def _gate(self, x: Ball, w: Ball) -> Ball:
        return x / (1 + exp(-w))

    def _gate_slope(self, w: Ball, v: Ball) -> Ball:
        return (1 + v / (1 + exp(w))) / (1 + exp(-w))

    def _ax(self, x: Ball) -> Ball:
        return precisely(EXACT, lambda: self.a * x)

    def _silu(self, x: Ball) -> Ball:
        return self._gate(x, self._ax(x))

    def _silu_slope(self, x: Ball) -> Ball:
        return self._gate_slope(self._ax(x), self._ax(x))

    _quick_gelu, _quick_gelu_slope = _silu, _silu_slope

    def _gelu_tanh(self, x: Ball) -> Ball:
        return self._gate(x, _sqrt(8, ctx.prec) / _sqrt_pi(ctx.prec) * (x + arb(44715) / 10**6 * x**3))

    def _gelu_tanh_slope(self, x: Ball) -> Ball:
        rate, cubic = _sqrt(8, ctx.prec) / _sqrt_pi(ctx.prec), arb(44715) / 10**6 * x**3
        return self._gate_slope(rate * (x + cubic), rate * (x + 3 * cubic))

    def _mish(self, x: Ball) -> Ball:
        e = exp(-abs(x))
        n = e * (e + 2)
        return x * n / (n + 2) if x < 0 else x * (1 + 2 * e) / (1 + 2 * e + 2 * e * e)

    def _mish_slope(self, x: Ball) -> Ball:
        # t + x (1 - t^2) / (1 + e^-x), with t = tanh(ln(1 + e^x)).
        e = exp(-abs(x))
        t = e * (e + 2) / (e * (e + 2) + 2) if x < 0 else (1 + 2 * e) / (1 + 2 * e + 2 * e * e)
        return t + x * (1 - t * t) * (e if x < 0 else 1) / (1 + e)

    def _hardsigmoid(self, x: Ball) -> Ball:
        return ZERO if x <= -3 else ONE if x >= 3 else precisely(EXACT, lambda: x + 3) / 6

    def _hardsigmoid_slope(self, x: Ball) -> Ball:
        return ZERO if abs(x) >= 3 else ONE / 6

    def _hardswish(self, x: Ball) -> Ball:
        return x if x >= 3 else x * self._hardsigmoid(x)

    def _hardswish_slope(self, x: Ball) -> Ball:
        return ZERO if x <= -3 else ONE if x >= 3 else precisely(EXACT, lambda: 2 * x + 3) / 6

    def _selu(self, x: Ball) -> Ball:
        return self.b * (x if x > 0 else self.a * max(x, -FAR).expm1())

    def _selu_slope(self, x: Ball) -> Ball:
        return self.b if x > 0 else self.b * self.a * exp(x)

    def _celu(self, x: Ball) -> Ball:
        return x if x > 0 else self.a * (-FAR if x < -FAR * self.a else x / self.a).expm1()

    def _celu_slope(self, x: Ball) -> Ball:
        return ONE if x > 0 else exp(-FAR if x < -FAR * self.a else x / self.a)

    def _logsigmoid(self, x: Ball) -> Ball:
        return x - exp(x).log1p() if x < 0 else -(exp(-x).log1p())

    def _logsigmoid_slope(self, x: Ball) -> Ball:
        return 1 / (1 + exp(x))

    def _softplus(self, x: Ball) -> Ball:
        z = self._ax(x)
        return x if z > self.b else (z + exp(-z).log1p() if z > 0 else exp(z).log1p()) / self.a

    def _softplus_slope(self, x: Ball) -> Ball:
        return ONE if self._ax(x) > self.b else 1 / (1 + exp(-self._ax(x)))

    def _relu_squared(self, x: Ball) -> Ball:
        return x * x if x > 0 else ZERO

    def _relu_squared_slope(self, x: Ball) -> Ball:
        return 2 * x if x > 0 else ZERO

    def _tanhshrink(self, x: Ball) -> Ball:
        return x - x.tanh()

    def _tanhshrink_slope(self, x: Ball) -> Ball:
        return x.tanh() ** 2

    def _hardshrink(self, x: Ball) -> Ball:
        return x if abs(x) > self.a else ZERO

    def _hardshrink_slope(self, x: Ball) -> Ball:
        return ONE if abs(x) > self.a else ZERO

    _softshrink_slope = _hardshrink_slope

    def _softshrink(self, x: Ball) -> Ball:
        return precisely(EXACT, lambda: x - self.a if x > self.a else x + self.a if x < -self.a else ZERO)

    # --- exact arithmetic --------------------

    def rational(self, x: float, *, derivative: bool = False) -> Fraction | None:  # noqa: PLR0911
        """The exact value if it is a rational number and not huge; else None."""
        algebraic = self.name not in TRANSCENDENTAL and (self.name != "power" or self.integer_c)
        ball = precisely(EXACT if algebraic else 2 * FIRST, self.derivative if derivative else self.forward, arb(x))
        if ball.is_finite() and ball.is_exact():
            return fraction(ball)
        a, b, c = (Fraction(v) for v in self.p)
        u = a * Fraction(x) + b
        if self.name == "softSign":
            size = 1 + abs(Fraction(x))
            return 1 / size**2 if derivative else Fraction(x) / size
        if self.name == "hardswish":
            return (2 * Fraction(x) + 3 if derivative else Fraction(x) * (Fraction(x) + 3)) / 6
        if self.name == "hardsigmoid":
            return Fraction(1, 6) if derivative else (Fraction(x) + 3) / 6
        if self.name == "power" and u != 0 and self.integer_c and abs(c) <= 100:
            return a * c * u ** int(c - 1) if derivative else u ** int(c)
        if self.name == "logarithm" and derivative and c == -1 and u != 0:
            return a / u
        if self.name == "power" and u > 0 and not self.integer_c:
            root = rational_power(u, c - derivative)
            return None if root is None else a * c * root if derivative else root
        if self.name == "exponential" and not derivative and c != -1:
            power = rational_power(abs(c), u) if c else None
            return -power if power is not None and c < 0 and u % 2 == 1 else power
        return None

    def _is(self, x: float, value: Fraction) -> bool:
        """Whether the logarithm is exactly `value`: the one function whose inverse is easier."""
        a, b, c = (Fraction(v) for v in self.p)
        return self.name == "logarithm" and c > 0 and rational_power(c, value) == a * Fraction(x) + b

    def _limit(self, number: float, *, derivative: bool) -> tuple[Fraction, int] | None:  # noqa: PLR0911
        """A number that the value approaches exponentially, and on which side of it the value is."""
        a, b, _ = (Fraction(v) for v in self.p)
        x = Fraction(number)
        sign = (a > 0) - (a < 0)
        if self.name == "sigmoid" and x > 0 and not derivative:
            return Fraction(1), -1
        if self.name == "tanH" and not derivative:
            total = a if b * x > 0 else -a
            return total, -1 if total > 0 else 1
        if self.name == "softPlus" and b * x > 0:
            return (a * b, -1 if a * b > 0 else 1) if derivative else (a * b * x, sign)
        if self.name == "ELU" and x < 0 and not derivative:
            return -a, sign
        if self.name == "selu" and x < 0 and not derivative:
            return -a * b, 1 if a * b > 0 else -1
        if self.name == "celu" and x < 0 and not derivative:
            return -a, 1
        if self.name == "tanhshrink" and abs(x) > 2:
            side = 1 if x > 0 else -1
            return (Fraction(1), -1) if derivative else (x - side, side)
        if self.name == "geLU" and x > 2:
            return (Fraction(1), 1) if derivative else (x, -1)
        return None

    def side(self, x: float, boundary: Fraction, *, derivative: bool = False, upstream: float = 1.0) -> int:
        """-1, 0 or 1: whether the exact value (times `upstream`) is below, on or above a rational number."""
        exact, factor = self.rational(x, derivative=derivative), Fraction(upstream)
        if exact is not None:
            return (exact * factor > boundary) - (exact * factor < boundary)
        if not derivative and factor == 1 and self._is(x, boundary):
            return 0
        target = precisely(EXACT, lambda: arb(boundary.numerator) / arb(boundary.denominator))
        bits = 2 * FIRST
        while bits <= LAST:
            distance = precisely(bits, lambda: self.ball(x, derivative, upstream) - target)
            if distance > 0 or distance < 0:
                return 1 if distance > 0 else -1
            bits *= 2
            if bits > 3000:
                limit = self._limit(x, derivative=derivative)
                if limit is not None and limit[0] * factor == boundary:
                    return limit[1] if factor > 0 else -limit[1]
        raise AssertionError(f"{self}: the side of {boundary} at {x!r} is undecided")

    def _quick_side(self, x: float, boundary: float, derivative: bool, upstream: float) -> int:
        """The same at low precision, or 0 if that is undecided: fast for most of millions of subnormals."""
        distance = precisely(2 * FIRST, lambda: self.ball(x, derivative, upstream) - boundary)
        return 1 if distance > 0 else -1 if distance < 0 else 0

    # --- for the tests and `mpsref prove` --------------------

    def ball(self, x: float, derivative: bool = False, upstream: float = 1.0) -> Ball:
        """The value at the working precision."""
        value = (self.derivative if derivative else self.forward)(arb(x))
        return value if upstream == 1.0 else value * arb(upstream)

    def accurate_ball(self, x: float, derivative: bool = False, upstream: float = 1.0, bits: int = FIRST) -> Ball:
        """The value to at least `bits` - 40 bits, NaN or an exact infinity."""
        while True:
            value = precisely(bits, self.ball, x, derivative, upstream)
            if value.is_nan() or value.rel_accuracy_bits() >= ENOUGH:
                return value
            bits *= 2
            assert bits <= LAST, f"{self} at {x!r}"

    def float64s(self, xs: Array, derivative: bool = False, upstream: Array | None = None) -> Array:
        """
        The value at every element of a float64 array, to 2^-52 relative.

        0, an infinity and NaN stand for exact values: a value too small or too large for float64 gives the smallest or
        largest number of the right sign.
        """
        function, results = self.derivative if derivative else self.forward, list[float]()
        before, ctx.prec = ctx.prec, FIRST
        try:
            factors = None if upstream is None else upstream.tolist()
            for i, x in enumerate(xs.tolist()):
                value = function(arb(x))
                if factors is not None:
                    value = value * arb(factors[i])
                if value.rel_accuracy_bits() < ENOUGH:
                    value = self.accurate_ball(x, derivative, 1.0 if factors is None else factors[i])
                y = float(value)
                if y == 0 and value != 0:
                    y = 5e-324 if value > 0 else -5e-324
                elif math.isinf(y) and value.is_finite():
                    y = math.copysign(1.7e308, y)
                results.append(y)
        finally:
            ctx.prec = before
        return np.array(results, np.float64)

    def rounded(
        self, xs: Array, near: Array, dtype: npt.DTypeLike, derivative: bool = False, upstream: Array | None = None
    ) -> Stored:
        """
        Round exactly, to nearest even, to float16, bfloat16 or float32; `near` is from `float64s` for the same
        arguments.

        An exact zero comes out positive.
        """
        with np.errstate(all="ignore"):
            result = _stored(near, dtype)
            down, up = _stored(near * (1 - 2.0**-51), dtype), _stored(near * (1 + 2.0**-51), dtype)
        for i in np.flatnonzero((down != up) & ~np.isnan(near)).tolist():
            # Neighbours; an infinity stands for the next power of two. Their sum is exact.
            beyond = 2.0 ** (16 if dtype == np.float16 else 128)
            ends = [math.copysign(beyond, v) if math.isinf(v) else v for v in (float(down[i]), float(up[i]))]
            middle = (ends[0] + ends[1]) / 2
            factor = 1.0 if upstream is None else float(upstream[i])
            side = self._quick_side(float(xs[i]), middle, derivative, factor)
            if side == 0:
                side = self.side(float(xs[i]), Fraction(middle), derivative=derivative, upstream=factor)
            if side == 0:
                with np.errstate(all="ignore"):
                    result[i] = np.float64(middle).astype(dtype)
            else:
                result[i] = down[i] if (side > 0) != (ends[1] > ends[0]) else up[i]
        return result

    def codes(self, xs: Array, near: Array, maximum: int, derivative: bool = False) -> Stored:
        """
        Clamp to [0, 1], NaN to 0, and round exactly, ties to even, to the codes of a unorm format.

        `maximum` is the code of 1; `near` is from `float64s` for the same arguments.
        """
        scaled = np.clip(np.nan_to_num(near, nan=0.0), 0.0, 1.0) * maximum
        down, up = np.rint(scaled * (1 - 2.0**-49)), np.rint(scaled * (1 + 2.0**-49))
        result = down.astype(np.uint8 if maximum < 256 else np.uint16)
        for i in np.flatnonzero(down != up).tolist():
            lower = int(down[i])
            side = self.side(float(xs[i]), Fraction(2 * lower + 1, 2 * maximum), derivative=derivative)
            result[i] = lower + (side > 0 or (side == 0 and lower % 2 == 1))
        return result


def _stored(values: Array, dtype: npt.DTypeLike) -> Stored:
    """float64 rounded once; to bfloat16 by way of float32 rounded to odd, since its own conversion rounds twice."""
    if np.dtype(dtype).kind == "f":
        return values.astype(dtype)
    single = values.astype(np.float32)
    back, bits = single.astype(np.float64), single.view(np.uint32).copy()
    bits -= np.abs(back) > np.abs(values)
    bits |= (back != values) & ~np.isnan(values)
    return bits.view(np.float32).astype(dtype)


def unorm_values(codes: Stored, maximum: int) -> Array:
    """The values that a shader reads for codes: the float32 nearest to code / maximum, in rational arithmetic."""
    return _values_of_codes(maximum)[codes]


@lru_cache
def _values_of_codes(maximum: int) -> Array:
    values = np.empty(maximum + 1)
    for code in range(maximum + 1):
        near = np.float32(code / maximum)
        around = near, np.nextafter(near, np.float32(0)), np.nextafter(near, np.float32(2))
        exact = Fraction(code, maximum)
        values[code] = min((abs(Fraction(float(value)) - exact), float(value)) for value in around)[1]
    return values


def differs(got: Stored, want: Stored, near: Array) -> npt.NDArray[np.bool_]:
    """Where bit patterns differ; an exact zero and a pole, whose limits have two signs, may have either sign."""
    bits = f"u{got.itemsize}"
    either = ((near == 0) | np.isinf(near)) & (np.abs(got) == np.abs(want))
    different: npt.NDArray[np.bool_] = (got.view(bits) != want.view(bits)) & ~either
    return different
