"""
Running-error analysis: ranges of all values that a correct device may have at each step of a formula.

A `Range` overloads the operators of the rows' stepwise formulas, and `Running` is the `Arithmetic` of these formulas:
each operation maps its operands' ranges to the range of its result, widened by the error that the model allows. So
cancellation, saturation and overflow follow from the formula in the neuron's row.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import IntFlag
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from mpsref.arrays import Mask, Wide
from mpsref.enums import MPSImageFeatureChannelFormat
from mpsref.storage import FORMATS, StorageFormat

__all__ = ["Law", "Model", "Range", "Reason", "Running"]

Bits: TypeAlias = npt.NDArray[np.uint16]
Scalar: TypeAlias = float | np.float32

FLOAT32 = FORMATS[MPSImageFeatureChannelFormat.float32]
FLOAT64_ERROR = 2.0**-49
"""More than the relative error of one operation of this analysis in float64."""


class Reason(IntFlag):
    """Why an element of a correct device may be far from the ideal value."""

    NONE = 0
    OVERFLOW = 1
    INVALID = 2
    POLE = 4
    DIVISION = 8
    NAN_LOST = 16
    NAN_UNDEFINED = 32
    NAN_STORED = 64
    FLUSH = 128

    @property
    def text(self) -> str:
        """One line for people."""
        return _TEXTS[self]


_TEXTS = {
    Reason.NONE: "nothing",
    Reason.OVERFLOW: "an intermediate of the formula overflows",
    Reason.INVALID: "the formula has no value at an infinity, only a limit",
    Reason.POLE: "rounding may reach a pole or the edge of the domain",
    Reason.DIVISION: "fast division by more than 2^126 or less than 2^-126",
    Reason.NAN_LOST: "a comparison or clamp loses NaN",
    Reason.NAN_UNDEFINED: "NaN is undefined under fast math",
    Reason.NAN_STORED: "a texture may store NaN as 0",
    Reason.FLUSH: "a subnormal float32 is flushed to zero",
}


@dataclass(frozen=True)
class Law:
    """
    The error that one operation may have.

    Attributes
    ----------
    ulp : float
        Units in the last place of the format of the computation.
    growth : float
        Further ULP for each unit of the argument's magnitude.
    near_one : float
        For a logarithm: the absolute error for arguments in [0.5, 2] instead; 0 if there is no such rule.
    """

    ulp: float
    growth: float = 0.0
    near_one: float = 0.0

    def __str__(self) -> str:
        if self.ulp == 0.5:
            return "correctly rounded"
        text = f"{self.ulp:g}" + (f" + {self.growth:g} abs(x)" if self.growth else "") + " ULP"
        return text + (f"; 2^{np.log2(self.near_one):g} absolute on [0.5, 2]" if self.near_one else "")


ROUNDED = Law(0.5)


@dataclass(frozen=True, eq=False)
class Model:
    """
    What a device promises of its arithmetic.

    Attributes
    ----------
    name, source : str
        Its name, and the document that states the promise.
    laws : Mapping of str to Law
        For each operation: ``arithmetic`` (sum, difference, product), ``reciprocal``, ``division``, ``exp``, ``exp2``,
        ``log``, ``log2``, ``erf``, ``tanh`` and ``pow``. Without the last two they are ``(t - 1) / (t + 1)`` with
        ``t = e^2x``, and ``2^(y log2 x)``.
    storage : StorageFormat
        The format of the computation.
    flushes : bool
        Whether its subnormals may become zero.
    nan_is_defined : bool
        Whether the handling of NaN is promised.
    others : Mapping of str to Law or None
        For functions that a kernel may compute in another way as well, the law of that; None for the expression above.
    """

    name: str
    source: str
    laws: Mapping[str, Law] = field(repr=False)
    storage: StorageFormat = FLOAT32
    flushes: bool = True
    nan_is_defined: bool = False
    others: Mapping[str, Law | None] = field(default_factory=dict, repr=False)

    @property
    def variants(self) -> tuple[Model, ...]:
        """The model, and the one with the laws of `others`."""
        if not self.others:
            return (self,)
        laws = {name: law for name, law in {**self.laws, **self.others}.items() if law is not None}
        return self, replace(self, laws=laws, others={})

    @property
    def unit(self) -> float:
        """One ULP of a number in [1, 2)."""
        return 2.0 ** (1 - self.storage.precision)

    @property
    def smallest(self) -> tuple[float, float]:
        """The smallest normal and the smallest subnormal number."""
        info = np.finfo(self.storage.dtype)
        return float(info.smallest_normal), float(info.smallest_subnormal)

    @property
    def limit(self) -> float:
        """The bound beyond which numbers round to infinity."""
        return float(np.finfo(self.storage.dtype).max) * (1.0 + self.unit / 4)


@dataclass(frozen=True)
class Truth:
    """The result of a comparison of ranges: whether it may hold, and whether it must."""

    may: Mask
    must: Mask
    reason: Bits

    def __and__(self, other: Truth) -> Truth:
        return Truth(self.may & other.may, self.must & other.must, self.reason | other.reason)


@dataclass(frozen=True, eq=False)
class Range:
    """
    The possible values of each element.

    Attributes
    ----------
    low, high : ndarray of float64
        The least and the greatest; NaN where the value must be NaN.
    nan : ndarray of bool
        Whether NaN is possible.
    reason : ndarray of uint16
        Bits of `Reason`: why this range is wider than rounding alone would make it.
    f : Running
        The arithmetic of its operators.
    """

    low: Wide
    high: Wide
    nan: Mask
    reason: Bits
    f: Running

    # numpy's scalars leave the operators to this class.
    __array_ufunc__ = None

    def __neg__(self) -> Range:
        return Range(-self.high, -self.low, self.nan, self.reason, self.f)

    def __abs__(self) -> Range:
        a, b = np.abs(self.low), np.abs(self.high)
        low = np.where((self.low < 0) & (self.high > 0), 0.0, np.minimum(a, b))
        return Range(low, np.maximum(a, b), self.nan, self.reason, self.f)

    def __add__(self, other: Range | Scalar) -> Range:
        other = self.f.range(other)
        low, high = self.low + other.low, self.high + other.high
        return self.f.result(low, high, (self, other), rounded=ROUNDED, monotone=True)

    __radd__ = __add__

    def __sub__(self, other: Range | Scalar) -> Range:
        return self + -self.f.range(other)

    def __rsub__(self, other: Scalar) -> Range:
        return self.f.range(other) + -self

    def __mul__(self, other: Range | Scalar) -> Range:
        other = self.f.range(other)
        low, high, missing = _corners(np.multiply, self, other)
        # 0 times infinity may hide between the corners.
        missing |= (self.holds_zero & np.isinf(_size(other))) | (other.holds_zero & np.isinf(_size(self)))
        return self.f.result(low, high, (self, other), missing, rounded=ROUNDED)

    __rmul__ = __mul__

    def __truediv__(self, other: Range | Scalar) -> Range:
        return self.f.quotient(self, self.f.range(other), "division")

    def __rtruediv__(self, other: Scalar) -> Range:
        return self.f.quotient(self.f.range(other), self, "reciprocal" if other == 1 else "division")

    def __lt__(self, other: Range | Scalar) -> Truth:
        other = self.f.range(other)
        return self._compared(other, self.low < other.high, self.high < other.low)

    def __le__(self, other: Range | Scalar) -> Truth:
        other = self.f.range(other)
        return self._compared(other, self.low <= other.high, self.high <= other.low)

    def __gt__(self, other: Range | Scalar) -> Truth:
        return self.f.range(other) < self

    def __ge__(self, other: Range | Scalar) -> Truth:
        return self.f.range(other) <= self

    def __eq__(self, other: object) -> bool:
        # Formulas compare parameters only.
        return bool(self.is_number and self.low == other)

    __hash__ = None  # type: ignore[assignment]

    @property
    def is_number(self) -> bool:
        """Whether it is one number, and no other is possible."""
        return self.low.ndim == 0 and bool(self.low == self.high)

    @property
    def holds_zero(self) -> Mask:
        """Where 0 is possible."""
        zero: Mask = (self.low <= 0) & (self.high >= 0)
        return zero

    def like(self, elements: npt.NDArray[Any]) -> Range:
        """The range, broadcast to the shape of an array."""
        low, high, nan, reason, _ = np.broadcast_arrays(self.low, self.high, self.nan, self.reason, elements)
        return Range(low, high, nan, reason, self.f)

    def part(self, start: int, shape: tuple[int, ...]) -> Range:
        """The elements from `start` on, in a shape."""
        if start == 0 and shape == self.low.shape:
            return self
        chosen = slice(start, start + math.prod(shape))
        low, high = self.low[chosen].reshape(shape), self.high[chosen].reshape(shape)
        return Range(low, high, self.nan[chosen].reshape(shape), self.reason[chosen].reshape(shape), self.f)

    def joined(self, other: Range) -> Range:
        """The range of all values in either."""
        low, high = np.fmin(self.low, other.low), np.fmax(self.high, other.high)
        return Range(low, high, self.nan | other.nan, self.reason | other.reason, self.f)

    def _compared(self, other: Range, may: Mask, must: Mask) -> Truth:
        nan = self.nan | other.nan
        return Truth(may, must & ~nan, np.where(nan, np.uint16(Reason.NAN_LOST), np.uint16(0)))


def _size(x: Range) -> Wide:
    size: Wide = np.fmax(np.abs(x.low), np.abs(x.high))
    return size


def _corners(operation: np.ufunc, x: Range, y: Range) -> tuple[Wide, Wide, Mask]:
    """Least and greatest result at the four corners, and where one of them is NaN."""
    four = [operation(a, b) for a in (x.low, x.high) for b in (y.low, y.high)]
    low, high = np.fmin.reduce(np.broadcast_arrays(*four)), np.fmax.reduce(np.broadcast_arrays(*four))
    missing = np.isnan(four[0]) | np.isnan(four[1]) | np.isnan(four[2]) | np.isnan(four[3])
    return low, high, missing


@dataclass(frozen=True, eq=False)
class Running:
    """
    The `Arithmetic` of the rows on ranges.

    Attributes
    ----------
    model : Model
        The error of each operation.
    flush : bool
        Whether subnormals are flushed.
    """

    model: Model
    flush: bool = False

    # ---- making ranges ----

    def range(self, value: Range | Scalar | Wide | npt.NDArray[np.float32]) -> Range:
        """Numbers as ranges, rounded if the format of the computation does not have them; a range as it is."""
        if isinstance(value, Range):
            return value
        wide = np.asarray(value, np.float64)
        return self.between(wide, wide)

    def between(self, low: Wide, high: Wide) -> Range:
        """The range of an element read from an image, between two stored values."""
        exact = Range(low, high, np.isnan(low) | np.isnan(high), np.zeros(low.shape, np.uint16), self)
        return self.result(low, high, (exact,), rounded=ROUNDED)

    def result(
        self,
        low: Wide,
        high: Wide,
        operands: tuple[Range, ...],
        missing: Mask | None = None,
        *,
        rounded: Law,
        argument: Wide | None = None,
        monotone: bool = False,
    ) -> Range:
        """The range of a result: exact ends widened by a law, with overflow, NaN and flushed subnormals."""
        m = self.model
        nan = np.isnan(low) | np.isnan(high) if missing is None else missing
        reason = operands[0].reason
        was_nan, was_infinite = operands[0].nan, np.isinf(_size(operands[0]))
        for x in operands[1:]:
            reason, was_nan = reason | x.reason, was_nan | x.nan
            was_infinite = was_infinite | np.isinf(_size(x))
        # Only one end missing: the other side is unbounded.
        low, high = _either(low, high, nan)
        size = np.fmax(np.abs(low), np.abs(high))
        if rounded is ROUNDED:
            relative: Any = np.where(
                (low == high) & (low.astype(m.storage.dtype) == low), 0.0, m.unit / 2 + FLOAT64_ERROR
            )
            tiny: Any = np.where(relative > 0, m.smallest[1] / 2, 0.0)
        else:
            relative = rounded.ulp * m.unit + FLOAT64_ERROR
            if argument is not None and rounded.growth:
                relative = relative + rounded.growth * m.unit * np.fmin(argument, 1e6)
            tiny = rounded.ulp * m.smallest[1]
        ends = low, high
        # Zeros and infinities have no units in the last place.
        low = np.where(np.isinf(low) | (low == 0), low, low - (relative * np.abs(low) + tiny))
        high = np.where(np.isinf(high) | (high == 0), high, high + (relative * np.abs(high) + tiny))
        if monotone:
            # A sum is never rounded across a number of the format: 1 + e^x is never below 1.
            low, high = np.fmax(low, self._floor(ends[0])), np.fmin(high, -self._floor(-ends[1]))
        over = (size > m.limit) | (np.fmax(np.abs(low), np.abs(high)) > m.limit)
        if over.any():
            low, high = (np.where(np.abs(end) > m.limit, np.copysign(np.inf, end), end) for end in (low, high))
            # An infinity from an infinite operand is no overflow, and needs no reason.
            reason = reason | np.where(over & ~was_infinite, np.uint16(Reason.OVERFLOW), np.uint16(0))
        reason = reason | np.where(nan & ~was_nan, np.uint16(Reason.INVALID), np.uint16(0))
        if self.flush:
            smallest = m.smallest[0]
            flushed = (low < smallest) & (high > -smallest) & ((low > 0) | (high < 0))
            low, high = np.where(flushed, np.fmin(low, 0.0), low), np.where(flushed, np.fmax(high, 0.0), high)
            reason = reason | np.where(flushed, np.uint16(Reason.FLUSH), np.uint16(0))
        return Range(low, high, nan | was_nan, np.asarray(reason, np.uint16), self)

    def _floor(self, x: Wide) -> Wide:
        """The greatest number of the format that is at most `x`."""
        near = x.astype(self.model.storage.dtype)
        below = np.where(near > x, np.nextafter(near, near.dtype.type(-np.inf)), near)
        return below.astype(np.float64)

    def _marked(self, x: Range, where: Mask, reason: Reason, *, nan: bool = False) -> Range:
        bits = x.reason | np.where(where, np.uint16(reason), np.uint16(0))
        return Range(x.low, x.high, x.nan | where if nan else x.nan, bits, self)

    # ---- operations ----

    def quotient(self, x: Range, y: Range, kind: str) -> Range:
        """``x / y``."""
        law = self.model.laws[kind]
        low, high, missing = _corners(np.divide, x, y)
        missing |= (x.holds_zero & y.holds_zero) | (np.isinf(_size(x)) & np.isinf(_size(y)))
        pole = y.holds_zero & (y.low < y.high)
        low, high = np.where(pole, -np.inf, low), np.where(pole, np.inf, high)
        # Dividing by an exact zero gives infinity, as in IEEE arithmetic, which is no overflow.
        result = self.result(low, high, (x, _infinite_where(y, y.holds_zero)), missing, rounded=law)
        result = self._marked(result, np.broadcast_to(pole, result.low.shape), Reason.POLE)
        if law is ROUNDED or not self.model.flushes:
            return result
        far = (_size(y) > 2.0**126) | (np.fmin(np.abs(y.low), np.abs(y.high)) < 2.0**-126)
        far = np.broadcast_to(far & ~(y.holds_zero & ~pole), result.low.shape)
        if not far.any():
            return result
        low = np.where(far, np.fmin(result.low, 0.0), result.low)
        high = np.where(far, np.fmax(result.high, 0.0), result.high)
        # As a product with the reciprocal, which may be zero or infinite.
        huge = far & (np.isinf(_size(x)) | np.isinf(_size(y)))
        return self._marked(Range(low, high, result.nan | huge, result.reason, self), far, Reason.DIVISION)

    def fma(self, a: Range | Scalar, b: Range | Scalar, c: Range | Scalar) -> Range:
        """``a b + c``."""
        # The range has the results with and without rounding of the product.
        return self.range(a) * b + c

    def square(self, x: Range) -> Range:
        """``x x``."""
        size = abs(x)
        return self.result(np.square(size.low), np.square(size.high), (x,), rounded=ROUNDED)

    def exp(self, x: Range) -> Range:
        """e^x."""
        return self._exponential(x, np.exp, "exp")

    def _exponential(self, x: Range, function: np.ufunc, name: str) -> Range:
        law = self.model.laws[name]
        result = self.result(function(x.low), function(x.high), (x,), x.nan, rounded=law, argument=_size(x))
        return Range(np.maximum(result.low, 0.0), result.high, result.nan, result.reason, self)

    def log(self, x: Range) -> Range:
        """The natural logarithm."""
        return self._logarithm(self.range(x), np.log, "log")

    def _logarithm(self, x: Range, function: np.ufunc, name: str) -> Range:
        law = self.model.laws[name]
        edge = (x.low < 0) & (x.high >= 0)
        low = function(np.where(edge, 0.0, x.low))
        result = self.result(low, function(x.high), (_infinite_where(x, x.low <= 0),), x.high < 0, rounded=law)
        if law.near_one:
            near = (x.high >= 0.5) & (x.low <= 2)
            low = np.where(near, np.fmin(result.low, low - law.near_one), result.low)
            high = np.where(near, np.fmax(result.high, function(x.high) + law.near_one), result.high)
            result = Range(low, high, result.nan, result.reason, self)
        pole = (x.low <= 0) & (x.high > 0)
        return self._marked(self._marked(result, edge, Reason.POLE, nan=True), pole, Reason.POLE)

    def tanh(self, x: Range) -> Range:
        """The hyperbolic tangent."""
        law = self.model.laws.get("tanh")
        if law is None:
            t = self.exp(2 * x)
            # Numerator and denominator depend on the same t: a quotient for each end of t gives a tighter range.
            low, high = (Range(end, end, t.nan, t.reason, self) for end in (t.low, t.high))
            return self.quotient(low - 1, low + 1, "division").joined(self.quotient(high - 1, high + 1, "division"))
        return self.result(np.tanh(x.low), np.tanh(x.high), (x,), rounded=law)

    def erf(self, x: Range) -> Range:
        """The error function."""
        # Here, because importing mpsref must not import scipy.special.
        from scipy.special import erf  # noqa: PLC0415

        return self.result(erf(x.low), erf(x.high), (x,), rounded=self.model.laws["erf"])

    def pow(self, base: Range | Scalar, exponent: Range | Scalar) -> Range:
        """``base ^ exponent``."""
        base, exponent = self.range(base), self.range(exponent)
        size = self._power_of_size(abs(base), exponent)
        whole = exponent.is_number and float(exponent.low).is_integer()
        negative, crosses = base.high < 0, (base.low < 0) & (base.high >= 0)
        if not exponent.is_number:
            # Whether a power of a negative base is real depends on the exponent, of which only a range is known.
            return self._marked(size, negative | crosses, Reason.POLE, nan=True)
        if not whole:
            nan = np.full(size.low.shape, np.nan)
            real = self.where(_certain(negative), Range(nan, nan, negative, size.reason, self), size)
            # IEEE arithmetic defines the power of -infinity, where there is no real number.
            infinite = base.low == -np.inf
            real = self._marked(self.where(_certain(infinite), size, real), infinite, Reason.INVALID)
            return self._marked(real, crosses, Reason.POLE, nan=True)
        if float(exponent.low) % 2 == 0:
            return size
        either = self.where(_certain(crosses), size.joined(-size), size)
        return self.where(_certain(negative), -size, either)

    def _power_of_size(self, size: Range, exponent: Range) -> Range:
        law = self.model.laws.get("pow")
        if law is None:
            power = self._exponential(exponent * self._logarithm(size, np.log2, "log2"), np.exp2, "exp2")
            one = exponent.is_number and exponent.low == 0
            return self.range(np.ones(power.low.shape)) if one else power
        low, high, missing = _corners(np.power, size, exponent)
        pole = (size.low == 0) & (size.high > 0) & (exponent.low < 0)
        operands = (_infinite_where(size, size.low == 0), exponent)
        result = self.result(low, high, operands, missing, rounded=law)
        result = Range(np.maximum(result.low, 0.0), result.high, result.nan, result.reason, self)
        return self._marked(result, np.broadcast_to(pole, result.low.shape), Reason.POLE)

    def min(self, x: Range, y: Range | Scalar) -> Range:
        """The smaller."""
        return self._chosen(np.fmin, x, self.range(y))

    def max(self, x: Range, y: Range | Scalar) -> Range:
        """The larger."""
        return self._chosen(np.fmax, x, self.range(y))

    def _chosen(self, operation: np.ufunc, x: Range, y: Range) -> Range:
        low, high = operation(x.low, y.low), operation(x.high, y.high)
        # Where x may be NaN, the result may be y.
        low, high = np.where(x.nan, np.fmin(low, y.low), low), np.where(x.nan, np.fmax(high, y.high), high)
        nan = np.zeros(low.shape, np.bool_) | y.nan
        return self._marked(Range(low, high, nan, x.reason | y.reason, self), x.nan, Reason.NAN_LOST)

    def where(self, condition: Truth, x: Range | Scalar, y: Range | Scalar) -> Range:
        """`x` where the condition holds, `y` where not, and the range of both where it may or may not hold."""
        x, y = self.range(x), self.range(y)
        yes, no = condition.must, ~condition.may
        low = np.where(yes, x.low, np.where(no, y.low, np.fmin(x.low, y.low)))
        high = np.where(yes, x.high, np.where(no, y.high, np.fmax(x.high, y.high)))
        nan = np.where(yes, x.nan, np.where(no, y.nan, x.nan | y.nan))
        reason = np.where(yes, x.reason, np.where(no, y.reason, x.reason | y.reason)) | condition.reason
        return Range(low, high, nan, reason.astype(np.uint16), self)


def _either(low: Wide, high: Wide, nan: Mask) -> tuple[Wide, Wide]:
    """Where one end of a range is missing, the other stands for both."""
    if not nan.any():
        return low, high
    return np.fmin(low, high), np.fmax(low, high)


def _certain(condition: Mask) -> Truth:
    return Truth(condition, condition, np.zeros(condition.shape, np.uint16))


def _infinite_where(x: Range, pole: Mask) -> Range:
    """The operand as infinite at poles, where an infinite result is no overflow."""
    return Range(np.where(pole, np.inf, x.low), np.where(pole, np.inf, x.high), x.nan, x.reason, x.f)
