"""Ranges of the values that devices may have at a step of a formula, and what happened on the way to them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum, IntFlag
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from mpsref.arrays import Mask, Wide

if TYPE_CHECKING:
    from mpsref.verify.running import Running

__all__ = ["NOTES", "NOWHERE", "Branches", "Level", "Mark", "Range", "Truth"]

Bits: TypeAlias = npt.NDArray[np.uint16]
Scalar: TypeAlias = float | np.float32


class Mark(IntFlag):
    """What happened on the way to a range."""

    OVERFLOW = 1
    """A result is beyond what the analysis, or at `Level.EVERYTHING` the format, can hold."""
    ORDER = 2
    """An order of a product overflows."""
    POLE = 4
    """An operand that need not be zero may be, or may leave the domain."""
    FAR = 8
    """A fast division outside the range in which its error is promised."""
    VANISHES = 1024
    """An order of a product has a subnormal on the way."""
    UNDECIDED = 2048
    """A comparison is open, and nothing between its branches is possible."""
    CERTAIN = 4096
    """Only noted: a result overflows, whatever it is of its range."""
    INVALID = 16
    """An operation without a value, such as inf - inf."""
    CLAMPED = 32
    """NaN may be lost in a minimum or maximum."""
    COMPARED = 64
    """NaN may be lost in a comparison."""
    TINY = 128
    """Only noted: a result may be subnormal."""
    HUGE = 256
    """Only noted: a result may overflow."""
    WIDE = 512
    """Only noted: a partial product may overflow."""


NOTES = Mark.TINY | Mark.HUGE | Mark.WIDE | Mark.VANISHES | Mark.FAR | Mark.CERTAIN
"""Marks that widen nothing."""

NOWHERE: Mask = np.zeros((), np.bool_)

UNREAL = Mark.OVERFLOW | Mark.POLE | Mark.FAR | Mark.INVALID | Mark.HUGE | Mark.WIDE
"""Marks of what leaves a result open in a model of finite numbers."""


class Level(IntEnum):
    """What overflows."""

    NOTHING = 0
    PRODUCTS = 1
    """Products of three and more factors, in some order."""
    EVERYTHING = 2


@dataclass(frozen=True)
class Truth:
    """
    The result of a comparison of ranges: whether it may hold, and whether it must.

    `order` is what was compared, if it was one comparison: it holds where the first is less than the second, or equal.
    """

    may: Mask
    must: Mask
    reason: Bits
    order: tuple[Range, Range] | None = None

    @classmethod
    def undecided(cls, where: Mask) -> Truth:
        """What may hold somewhere, and need not; and does not elsewhere."""
        return cls(where, np.zeros_like(where), np.zeros((), np.uint16))

    def __and__(self, other: Truth) -> Truth:
        return Truth(self.may & other.may, self.must & other.must, self.reason | other.reason)


class Branches:
    """
    The branches that one evaluation of a formula takes where comparisons are open, by the places of its choices.

    A choice without one takes both.
    """

    def __init__(self, taken: Mapping[int, bool]) -> None:
        self._taken = taken
        self._count = 0
        self.open: int | None = None
        """The first choice that takes both branches."""

    def decided(self, condition: Truth, apart: Mask) -> tuple[Truth, Mask]:
        """The condition of the next choice, decided where its branches are apart; and where they still are."""
        place = self._count
        self._count += 1
        if not apart.any():
            return condition, apart
        way = self._taken.get(place)
        if way is None:
            self.open = place if self.open is None else self.open
            return condition, apart
        may, must = (condition.may, condition.must | apart) if way else (condition.may & ~apart, condition.must)
        return replace(condition, may=may, must=must), np.zeros_like(apart)


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
        Bits of `Mark`.
    f : Running
        The arithmetic of its operators.
    factors : tuple of (Range, str)
        What it is the product of, since a device may multiply in any order; with the name of a law for a divisor.
    terms : tuple of Range
        What it is the sum of, likewise.
    zero : ndarray of bool
        Where 0 is possible too, as a subnormal that is flushed, and nothing between it and the range.
    """

    low: Wide
    high: Wide
    nan: Mask
    reason: Bits
    f: Running
    factors: tuple[tuple[Range, str], ...] = ()
    terms: tuple[Range, ...] = ()
    zero: Mask = field(default_factory=lambda: NOWHERE)

    # numpy's scalars leave the operators to this class.
    __array_ufunc__ = None

    def __neg__(self) -> Range:
        return Range(-self.high, -self.low, self.nan, self.reason, self.f, zero=self.zero)

    def __abs__(self) -> Range:
        a, b = np.abs(self.low), np.abs(self.high)
        high = np.maximum(a, b)
        low = np.where((self.low <= 0) & (self.high >= 0), 0.0, np.minimum(a, b))
        size = Range(low, high, self.nan, self.reason, self.f, zero=self.zero)
        size = size.marked(self.may_be_flushed, Mark.TINY)
        if not self.f.flush:
            return size
        # x < 0 may take a subnormal for zero, and leave its sign.
        negative = replace(-size, low=np.fmax(-high, -self.f.model.smallest[0]))
        return self.f.where(Truth.undecided(self.may_be_flushed), negative, size)

    def __add__(self, other: Range | Scalar) -> Range:
        other = self.f.range(other)
        low, high, law = self.low + other.low, self.high + other.high, self.f.model.laws["arithmetic"]
        if law.either:
            low = _sum_rounded(self.low, other.low, low, -np.inf)
            high = _sum_rounded(self.high, other.high, high, np.inf)
        terms = tuple(
            term for of in (self, other) for term in of.terms or (of,) if not (term.is_number and term.low == 0)
        )
        if len(terms) > 2:
            # In any order: each sum on the way may be as large as the terms together, and is rounded.
            rounding = self.f.model.unit * (1.0 if law.either else law.ulp)
            error = (len(terms) - 2) * rounding * sum(term.size for term in terms)
            error = np.where(np.isfinite(error), error, 0.0)
            low, high = low - error, high + error
        # Infinity minus infinity may hide between the ends.
        missing = np.isnan(low) | np.isnan(high)
        for up, down in ((self.high, other.low), (other.high, self.low)):
            missing = missing | (np.isposinf(up) & np.isneginf(down))
        total = self.f.result(low, high, (self, other), law, missing)
        total = replace(total, zero=total.zero | (self.zero & other.zero))
        for flushed, left in ((other.zero, self), (self.zero, other)):
            total = self.f.or_left(total, flushed, left)
        return replace(total, terms=terms)

    __radd__ = __add__

    def __sub__(self, other: Range | Scalar) -> Range:
        return self + -self.f.range(other)

    def __rsub__(self, other: Scalar) -> Range:
        return self.f.range(other) + -self

    def __mul__(self, other: Range | Scalar) -> Range:
        return self.f.product(self, self.f.range(other))

    __rmul__ = __mul__

    def __truediv__(self, other: Range | Scalar) -> Range:
        return self.f.quotient(self, self.f.range(other), "division")

    def __rtruediv__(self, other: Scalar) -> Range:
        return self.f.quotient(self.f.range(other), self, "reciprocal" if other == 1 else "division")

    def __lt__(self, other: Range | Scalar) -> Truth:
        other = self.f.range(other)
        x, y = self.as_compared, other.as_compared
        return replace(x._compared(y, x.low < y.high, x.high < y.low), order=(self, other))

    def __le__(self, other: Range | Scalar) -> Truth:
        other = self.f.range(other)
        x, y = self.as_compared, other.as_compared
        return replace(x._compared(y, x.low <= y.high, x.high <= y.low), order=(self, other))

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
    def exceptions(self) -> Bits:
        """The marks of what may give other values than those from the least to the greatest."""
        marks = self.reason & ~np.uint16(NOTES)
        return marks | (self.reason & np.uint16(UNREAL)) if self.f.model.is_finite else marks

    @property
    def is_open(self) -> Mask:
        """Where a model of finite numbers leaves the value open; nowhere in others."""
        where: Mask = self.nan | (self.reason & np.uint16(UNREAL) != 0)
        return where & self.f.model.is_finite

    # A range is asked for these several times.

    @cached_property
    def holds_zero(self) -> Mask:
        """Where 0 is possible."""
        zero: Mask = ((self.low <= 0) & (self.high >= 0)) | self.zero
        return zero

    @cached_property
    def may_be_flushed(self) -> Mask:
        """Where a subnormal number is possible."""
        smallest = self.f.model.smallest[0]
        subnormal: Mask = (self.low < smallest) & (self.high > -smallest) & (self.size > 0)
        return subnormal

    @cached_property
    def size(self) -> Wide:
        """The greatest magnitude."""
        size: Wide = np.fmax(np.abs(self.low), np.abs(self.high))
        return size

    @cached_property
    def least(self) -> Wide:
        """The least magnitude, but for what is flushed."""
        crosses = (self.low <= 0) & (self.high >= 0)
        least: Wide = np.where(crosses, 0.0, np.fmin(np.abs(self.low), np.abs(self.high)))
        return least

    @cached_property
    def whole(self) -> Range:
        """The range with what is flushed, and all between that and the others."""
        if not self.zero.any():
            return self
        low, high = (np.where(self.zero, least(end, 0.0), end)
                     for least, end in ((np.fmin, self.low), (np.fmax, self.high)))  # fmt: skip
        return replace(self, low=low, high=high, zero=NOWHERE)

    @cached_property
    def is_power_of_two(self) -> Mask:
        """Where it is one number, a power of two but for the sign."""
        power: Mask = (self.low == self.high) & (np.abs(np.frexp(self.low)[0]) == 0.5)
        return power

    @cached_property
    def is_finite(self) -> bool:
        """Whether no end is infinite or missing anywhere."""
        return bool(np.isfinite(self.low).all() and np.isfinite(self.high).all())

    def like(self, elements: npt.NDArray[Any]) -> Range:
        """The range, broadcast to the shape of an array."""
        low, high, nan, reason, zero, _ = np.broadcast_arrays(
            self.low, self.high, self.nan, self.reason, self.zero, elements
        )
        return Range(low, high, nan, reason, self.f, self.factors, zero=zero)

    def at(self, index: npt.NDArray[Any]) -> Range:
        """The elements at some indices; a number is the same at each."""
        if self.low.ndim == 0:
            return self
        factors = tuple((factor.at(index), kind) for factor, kind in self.factors)
        zero = self.zero[index] if self.zero.ndim else self.zero
        return Range(self.low[index], self.high[index], self.nan[index], self.reason[index], self.f, factors, zero=zero)

    def part(self, start: int, shape: tuple[int, ...]) -> Range:
        """The elements from `start` on, in a shape."""
        if start == 0 and shape == self.low.shape:
            return self
        return replace(self, factors=()).at(np.arange(start, start + math.prod(shape))).reshape(shape)

    def reshape(self, shape: tuple[int, ...]) -> Range:
        """The range in another shape; no longer a product or a sum."""
        zero = self.zero.reshape(shape) if self.zero.ndim else self.zero
        low, high = self.low.reshape(shape), self.high.reshape(shape)
        return Range(low, high, self.nan.reshape(shape), self.reason.reshape(shape), self.f, zero=zero)

    def joined(self, other: Range) -> Range:
        """The range of all values in either."""
        low, high = np.fmin(self.low, other.low), np.fmax(self.high, other.high)
        zero = self.zero | other.zero
        return Range(low, high, self.nan | other.nan, self.reason | other.reason, self.f, zero=zero)

    def marked(self, where: Mask, mark: Mark, *, nan: bool = False) -> Range:
        """The range with a mark, and perhaps NaN, at some elements."""
        bits = self.reason | np.where(where, np.uint16(mark), np.uint16(0))
        if not np.any(where):
            return self
        possible = self.nan | where if nan else self.nan
        return Range(self.low, self.high, possible, bits, self.f, self.factors, zero=self.zero)

    @property
    def as_compared(self) -> Range:
        """With the zeros that a comparison may take subnormals for, whatever else becomes of them."""
        tiny = self.may_be_flushed
        return replace(self, zero=self.zero | tiny).whole if self.f.flush and tiny.any() else self.whole

    def _compared(self, other: Range, may: Mask, must: Mask) -> Truth:
        nan = self.nan | other.nan
        lost = np.where(nan, np.uint16(Mark.COMPARED), np.uint16(0))
        return Truth(may | nan, must & ~nan, self.reason | other.reason | lost)


def _sum_rounded(x: Wide, y: Wide, total: Wide, towards: float) -> Wide:
    """A float64 sum moved a step in a direction if that is where the exact one lies."""
    part = total - x
    error = (x - (total - part)) + (y - part)
    return np.where(error * np.sign(towards) > 0, np.nextafter(total, towards), total)
