"""
Running-error analysis: ranges of all values that a correct device may have at each step of a formula.

A `Range` overloads the operators of the rows' stepwise formulas, and `Running` is the `Arithmetic` of these formulas:
each operation maps its operands' ranges to the range of its result, widened by the error that the model allows. So
cancellation, saturation and overflow follow from the formula in the neuron's row.

Exponents are not limited: a result beyond the largest number of the format stays as it is, and so the ranges are those
of devices without overflow. What an overflow would make of the formula is another `Running`, see `Level`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from itertools import combinations, zip_longest
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from mpsref.arrays import Mask, Wide
from mpsref.verify.models import FLOAT64_ERROR, ROUNDED, Law, Model
from mpsref.verify.ranges import NOWHERE, Branches, Level, Mark, Range, Truth

__all__ = ["Running"]

Bits: TypeAlias = npt.NDArray[np.uint16]
Scalar: TypeAlias = float | np.float32

MOST_UNITS = 1e6
"""ULP beyond which an error no longer grows with the argument."""


PARTIAL_ERROR = 16.0
"""ULP that a partial product may be off, at most."""


def _ends(x: tuple[Wide, Wide]) -> tuple[Wide, ...]:
    """Both ends of ranges, or the one that numbers have."""
    low, high = x
    return (low,) if low is high or (np.ndim(low) == 0 and low == high != 0) else x


def _corners(operation: np.ufunc, x: tuple[Wide, Wide], y: tuple[Wide, Wide]) -> tuple[Wide, Wide, Mask]:
    """Least and greatest result at the four corners, and where one of them is NaN."""
    corners = [operation(a, b) for a in _ends(x) for b in _ends(y)]
    low, high, missing = corners[0], corners[0], np.isnan(corners[0])
    for corner in corners[1:]:
        low, high, missing = np.fmin(low, corner), np.fmax(high, corner), missing | np.isnan(corner)
    if missing.any():
        # From -inf to inf, by 0 or infinity: what is finite between the corners gives 0.
        # What is nothing but NaN gives NaN.
        hidden = np.isnan(low) & ((x[0] < x[1]) | (y[0] < y[1])) & ~(np.isnan(x[0]) | np.isnan(y[0]))
        low, high = np.where(hidden, 0.0, low), np.where(hidden, 0.0, high)
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
    level : Level
        What overflows.
    below : bool
        Whether a divisor that may be on both sides of a zero is below it, or a zero has the sign that is not expected.
    far : bool
        Whether a fast division gives what it may outside its range: 0 for a large divisor, infinity for a small one.
    vanish : bool
        Whether a product of three and more factors is 0 where an order has a subnormal on the way, which is flushed.
    mirror : bool
        Whether inputs have the other sign.
    down : bool
        Whether a partial sum of a layer overflows to minus infinity.
    branches : Branches, optional
        Those taken where comparisons are open, for one evaluation; default: both.
    """

    model: Model
    flush: bool = False
    level: Level = Level.NOTHING
    below: bool = False
    far: bool = False
    vanish: bool = False
    mirror: bool = False
    down: bool = False
    branches: Branches | None = None

    @property
    def key(self) -> tuple[Any, ...]:
        """What its ranges depend on."""
        how = tuple(getattr(self, each.name) for each in fields(self) if each.name != "model")
        return *how, repr(sorted(self.model.laws.items())), self.model.channel_format.name

    # ---- making ranges ----

    def range(self, value: Range | Scalar | Wide | npt.NDArray[np.float32]) -> Range:
        """Numbers as ranges, rounded if the format of the computation does not have them; a range as it is."""
        if isinstance(value, Range):
            return value
        wide = np.asarray(value, np.float64)
        if wide.ndim == 0 and self.branches is None:
            return _number(self, float(wide).hex())
        return self.between(wide, wide)

    def between(self, low: Wide, high: Wide, law: Law = ROUNDED) -> Range:
        """The range of an element read from an image, between two stored values."""
        exact = Range(low, high, np.isnan(low) | np.isnan(high), np.zeros(low.shape, np.uint16), self)
        return self.result(low, high, (exact,), law)

    def result(
        self,
        low: Wide,
        high: Wide,
        operands: Sequence[Range],
        law: Law,
        missing: Mask | None = None,
        units: Any = None,
    ) -> Range:
        """The range of a result: exact ends widened by a law, with overflow, NaN and flushed subnormals."""
        nan = np.isnan(low) | np.isnan(high) if missing is None else missing
        # Only one end missing: the other side is unbounded.
        low, high = _either(low, high, nan)
        return self._finished(*self.model.widened(low, high, law, units), nan, operands)

    def _finished(self, low: Wide, high: Wide, nan: Mask, operands: Sequence[Range]) -> Range:
        m = self.model
        reason: Any = operands[0].reason
        was_nan = operands[0].nan
        for x in operands[1:]:
            reason, was_nan = reason | x.reason, was_nan | x.nan
        invalid = nan & ~was_nan
        if invalid.any():
            reason = reason | np.where(invalid, np.uint16(Mark.INVALID), np.uint16(0))
        below, above = np.abs(low), np.abs(high)
        size = np.fmax(below, above)
        over = size > m.limit
        if over.any():
            # An infinity from an infinite operand is no overflow.
            over = over & ~_any([np.isinf(x.size) for x in operands])
            lost = over if self.level is Level.EVERYTHING else over & np.isinf(size)
            reason = reason | np.where(over, np.uint16(Mark.HUGE), np.uint16(0))
            reason = reason | np.where(lost, np.uint16(Mark.OVERFLOW), np.uint16(0))
            certain = lost & (np.signbit(low) == np.signbit(high)) & (np.fmin(below, above) > m.limit)
            reason = reason | np.where(certain, np.uint16(Mark.CERTAIN), np.uint16(0))
            if self.level is Level.EVERYTHING:
                low, high = (np.where(np.abs(end) > m.limit, np.copysign(np.inf, end), end) for end in (low, high))
        smallest = m.smallest[0]
        gap = NOWHERE
        # Few elements are that small: the signs of the ends matter only where one is.
        if (np.fmin(below, above) < smallest).any():
            gap = ((low > 0) & (low < smallest)) | ((high < 0) & (high > -smallest))
            # One that ends at zero holds subnormals too, though flushing leaves it as it is.
            tiny = gap | ((size > 0) & (size < smallest))
            reason = reason | np.where(tiny, np.uint16(Mark.TINY), np.uint16(0))
        zero = gap if self.flush else NOWHERE
        return Range(low, high, nan | was_nan, np.asarray(reason, np.uint16), self, zero=zero)

    # ---- products and quotients ----

    def product(self, x: Range, y: Range) -> Range:
        """``x y``."""
        factors = (x.factors or ((x, ""),)) + (y.factors or ((y, ""),))
        if len(factors) > 2 and x.is_finite and y.is_finite:
            return self._in_any_order(factors, x.nan | y.nan)
        low, high, missing = _corners(np.multiply, (x.low, x.high), (y.low, y.high))
        # 0 times infinity may hide between the corners.
        missing = missing | (x.holds_zero & np.isinf(y.size)) | (y.holds_zero & np.isinf(x.size))
        if len(factors) > 2:
            return self._in_any_order(factors, missing | x.nan | y.nan)
        result = self.result(low, high, (x, y), self.model.laws["arithmetic"], missing)
        return replace(result, factors=factors, zero=result.zero | _zero_of((x, y)))

    def quotient(self, x: Range, y: Range, kind: str) -> Range:
        """``x / y``."""
        law, m = self.model.laws[kind], self.model
        y = y.whole
        pole = y.holds_zero
        # Below zero stays what is below but for a zero, such as a flushed number; `below` is then the zero above.
        negative = (y.low < 0) & ((y.high > 0) == self.below)
        zero = np.where((y.low < 0) & (y.high <= 0), 0.0, -0.0) if self.below else np.where(negative, -0.0, 0.0)
        lower = np.where(pole, np.where(negative, y.low, zero), y.low)
        upper = np.where(pole, np.where((y.high > 0) & (not self.below), y.high, zero), y.high)
        far: Any = np.False_
        if not law.is_rounding and m.flushes:
            # As a product with a reciprocal that is 0 for a large, or infinite for a small divisor.
            large = (y.size > 1 / m.smallest[0]) & (y.least <= m.limit)
            small = (y.size < m.smallest[0]) & ~pole
            far = large | small
            if self.far:
                lower, upper = (
                    np.where(large, np.copysign(np.inf, end), np.where(small, np.copysign(0.0, end), end))
                    for end in (lower, upper)
                )
        divisor = Range(lower, upper, y.nan, y.reason, self).marked(pole, Mark.POLE).marked(far, Mark.FAR)
        low, high, missing = _corners(np.divide, (x.low, x.high), (lower, upper))
        missing = missing | (x.holds_zero & pole) | (np.isinf(x.size) & np.isinf(divisor.size))
        factors = (*(x.factors or ((x, ""),)), (divisor, kind))
        if len(factors) > 2:
            return self._in_any_order(factors, missing | x.nan)
        # Dividing by zero gives infinity, as in IEEE arithmetic, which is no overflow.
        result = self.result(low, high, (x, _infinite_where(divisor, divisor.holds_zero)), law, missing)
        return replace(result, factors=factors, zero=result.zero | (x.zero & ~np.isnan(divisor.low)))

    def _in_any_order(self, factors: tuple[tuple[Range, str], ...], missing: Mask) -> Range:
        """The product of three and more factors, of which some are divisors, in every order."""
        m = self.model
        law, division = m.laws["arithmetic"], m.laws["division"]
        low: Any = np.float64(1.0)
        high: Any = np.float64(1.0)
        rounding = m.unit * (1.0 if law.either else law.ulp)
        divides, divided = any(kind for _, kind in factors), False
        error: Any = 0.0 if divides else -rounding
        for factor, kind in factors:
            low, high, lost = _corners(np.divide if kind else np.multiply, (low, high), (factor.low, factor.high))
            low, high = _either(low, high, lost)
            missing = missing | lost
            if kind:
                own = max(division.ulp, m.laws[kind].ulp) * m.unit
                # A reciprocal and a product with it are two operations; one factor needs only one.
                error = error + (own if division.is_rounding and not divided else own + rounding)
                divided = True
            else:
                error = error + np.where(factor.is_power_of_two, 0.0, rounding)
        # Of two that are no powers of two there is one rounding, of the exact product.
        once = error <= rounding
        error = error * (1 + 2.0**-18) + FLOAT64_ERROR
        nearest = m.widened(low, high, law) if np.any(once) else (low, high)
        small, wide, loss = self._partial_products(factors)
        # Rounded, a subnormal keeps its sign or is 0; an error of several ULP is larger than the number.
        keeps_sign = all(division.is_rounding and m.laws[kind].is_rounding for _, kind in factors if kind)
        for sign, end, near in ((-1.0, low, nearest[0]), (1.0, high, nearest[1])):
            moved = near if np.all(once) else np.where(once, near, end + sign * np.abs(end) * error)
            moved = np.where(np.isinf(loss), sign * np.inf, moved + sign * loss)
            moved = np.where(np.isinf(end) | ((end == 0) & ~small), end, moved)
            kept = (keeps_sign | np.isinf(loss)) & (sign * end <= 0)
            moved = np.where(kept, sign * np.fmin(sign * moved, 0.0), moved)
            low, high = (moved, high) if sign < 0 else (low, moved)
        if self.vanish:
            low, high = np.where(small, 0.0, low), np.where(small, 0.0, high)
        operands = [_infinite_where(factor, factor.holds_zero) if kind else factor for factor, kind in factors]
        if self.flush or self.level is not Level.NOTHING:
            # 0 times infinity.
            missing = missing | (small & _any([np.isinf(factor.size) for factor, kind in factors if not kind]))
        if self.level is not Level.NOTHING:
            vanishes = _any([small, *(np.isinf(factor.size) for factor, kind in factors if kind)])
            missing = missing | (wide & (vanishes | ((low <= 0) & (high >= 0))))
            low, high = np.where(wide & (low < 0), -np.inf, low), np.where(wide & (high > 0), np.inf, high)
            operands[0] = _infinite_where(operands[0], wide)
        result = self._finished(low, high, np.broadcast_to(missing, low.shape), operands)
        result = result.marked(small, Mark.VANISHES).marked(wide, Mark.WIDE)
        result = result if self.level is Level.NOTHING else result.marked(wide, Mark.ORDER)
        return replace(result, factors=factors, zero=result.zero | _zero_of([factor for factor, _ in factors]))

    def _partial_products(self, factors: tuple[tuple[Range, str], ...]) -> tuple[Mask, Mask, Wide]:
        """Where some order has a subnormal on the way, where one has an infinity, and what the former loses."""
        m, count = self.model, len(factors)
        least = [1 / x.size if kind else x.least for x, kind in factors]
        most = [1 / x.least if kind else x.size for x, kind in factors]
        normal, tiny = m.smallest
        # A partial product has errors of its own.
        normal *= 1 + PARTIAL_ERROR * m.unit
        # Mostly even the extreme factors together are far from either end.
        lowest = np.prod([np.min(part, initial=1.0) for part in least])
        highest = np.prod([np.max(part, initial=1.0) for part in most])
        if lowest >= 2 * normal and highest <= m.limit / 2:
            shape = np.broadcast_shapes(*(part.shape for part in least))
            return np.zeros(shape, np.bool_), np.zeros(shape, np.bool_), np.zeros(shape)
        shrinking = _product([np.minimum(part, 1.0) for part in least]) < normal
        near = shrinking | (_product([np.maximum(part, 1.0) for part in most]) > m.limit)
        few = np.flatnonzero(near) if near.ndim == 1 else near
        if near.ndim == 1 and few.size < near.size and all(x.low.shape in ((), near.shape) for x, _ in factors):
            # Mostly few elements are near either end. No part of a product is nearer than all of its extremes together.
            small, wide, loss = np.zeros(near.shape, np.bool_), np.zeros(near.shape, np.bool_), np.zeros(near.shape)
            if few.size:
                these = tuple((replace(x, factors=()).at(few), kind) for x, kind in factors)
                small[few], wide[few], loss[few] = self._partial_products(these)
            return small, wide, loss
        # A factor that overflows by itself is another matter; so is a divisor, but for NaN that both can make together.
        own = [x for x, kind in factors if not kind or not (self.far or self.level is Level.EVERYTHING)]
        infinite = _any([x.size > m.limit for x in own])
        # Such numbers exist on no device, other than an infinity at a pole.
        unreal = _any([(x.least > m.limit) & ((x.reason & Mark.OVERFLOW != 0) | np.isfinite(x.high)) for x in own])
        unreal = unreal & (self.level is not Level.EVERYTHING)
        # NaN is neither small nor large.
        unreal = unreal | _any([np.isnan(x.low) for x, _ in factors])
        small = (_product([np.minimum(part, 1.0) for part in least]) < normal) & ~unreal
        wide = (_product([np.maximum(part, 1.0) for part in most]) > m.limit) & ~infinite
        loss = np.zeros(small.shape)
        if not (small.any() or wide.any()):
            return small, wide, loss
        small, wide = np.zeros(small.shape, np.bool_), np.zeros(small.shape, np.bool_)
        # A factor of 1, 2 or 4 loses nothing in a product.
        rounding = [
            i
            for i, (x, kind) in enumerate(factors)
            if kind or not (x.is_number and x.is_power_of_two and abs(x.low) >= 1)
        ]
        rounded = m.laws["arithmetic"]
        for n in range(2, count + 1):
            most_lost = np.zeros(small.shape)
            for chosen in combinations(range(count), n):
                here = _product([least[i] for i in chosen]) < normal
                small = small | here
                rest = _product([most[i] for i in range(count) if i not in chosen])
                kinds = [factors[i][1] for i in chosen if factors[i][1]]
                units = sum(max(m.laws["division"].ulp, m.laws[kind].ulp) for kind in kinds)
                part = _product([most[i] for i in chosen])
                if n < count:
                    wide = wide | (part > m.limit)
                if not kinds and sum(i in rounding for i in chosen) < 2:
                    continue
                # Rounded to nearest, no more than it is.
                error = tiny * (units + (1.0 if rounded.either else rounded.ulp))
                off = error if kinds or rounded.either else np.minimum(error, part)
                most_lost = np.fmax(most_lost, np.where(here, off * rest, 0.0))
            # So many products of so many factors have none in common.
            loss = loss + count // n * most_lost
        # Next to a pole anything may be lost, but for the sign.
        loss = np.where(np.isnan(loss) | infinite, 0.0, loss)
        return small & ~unreal, wide & ~infinite, loss

    def fma(self, a: Range | Scalar, b: Range | Scalar, c: Range | Scalar) -> Range:
        """``a b + c``."""
        # A rounded product is also in its range without the rounding.
        return self.range(a) * b + c

    def square(self, x: Range) -> Range:
        """``x x``."""
        return self._from_zero(
            x, self.result(np.square(x.least), np.square(x.size), (x,), self.model.laws["arithmetic"])
        )

    @staticmethod
    def _from_zero(x: Range, result: Range) -> Range:
        """The result of a function that is 0 at 0."""
        return replace(result, zero=result.zero | x.zero)

    # ---- functions ----

    def exp(self, x: Range) -> Range:
        """e^x."""
        return self._exponential(x, np.exp, "exp")

    def _exponential(self, x: Range, function: np.ufunc, name: str) -> Range:
        law, x = self.model.laws[name], x.whole
        growth = law.growth * np.fmin(x.size, MOST_UNITS)
        units = law.ulp + (np.floor(growth) if law.whole else growth) if law.growth else None
        # What float64 does not hold is more than nothing.
        least = np.finfo(np.float64).smallest_subnormal
        low, high = (np.where(end == -np.inf, 0.0, np.maximum(function(end), least)) for end in (x.low, x.high))
        result = self.result(low, high, (x,), law, x.nan, units)
        return replace(result, low=np.maximum(result.low, 0.0))

    def log(self, x: Range | Scalar) -> Range:
        """The natural logarithm."""
        return self._logarithm(self.range(x), np.log, "log")

    def _logarithm(self, x: Range, function: np.ufunc, name: str) -> Range:
        law, x = self.model.laws[name], x.whole
        edge = (x.low < 0) & (x.high >= 0)
        low, high = function(np.where(edge, 0.0, x.low)), function(x.high)
        result = self.result(low, high, (_infinite_where(x, x.low <= 0),), law, x.high < 0)
        # Beside 1 no argument is so near to it that an error changes the sign.
        result = replace(result, low=np.where(low == 0, low, result.low), high=np.where(high == 0, high, result.high))
        if law.near_one:
            near = (x.high >= 0.5) & (x.low <= 2)
            lower, upper = self.model.outwards(low - law.near_one, high + law.near_one)
            lower, upper = np.fmin(result.low, lower), np.fmax(result.high, upper)
            result = replace(result, low=np.where(near, lower, result.low), high=np.where(near, upper, result.high))
        pole = (x.low <= 0) & ((x.high > 0) | self.model.is_finite)
        return result.marked(edge, Mark.POLE, nan=True).marked(pole | (x.high < 0), Mark.POLE)

    def tanh(self, x: Range) -> Range:
        """The hyperbolic tangent."""
        law = self.model.laws.get("tanh")
        if law is None and self.model.tanh_is_sinh_by_cosh:
            rising, falling = self.exp(x), self.exp(-x)
            return (rising - falling) / (rising + falling)
        if law is None:
            return self._fraction(self.exp(2 * x))
        return self._from_zero(x, self.result(np.tanh(x.low), np.tanh(x.high), (x,), law))

    def _fraction(self, t: Range) -> Range:
        """``(t - 1) / (t + 1)``."""
        m, above, below = self.model, t - 1, t + 1
        if self.level is Level.EVERYTHING:
            return self.quotient(above, below, "division")
        # Both depend on the same t, so the quotient of their ends is tighter than that of their ranges. Between them
        # the rounding of the denominator is worth less than two ULP.
        ends = [
            _corners(np.divide, (up, up), (down - 2 * m.ulp(down), down + 2 * m.ulp(down)))[:2]
            for up, down in ((above.low, below.low), (above.high, below.high))
        ]
        low, high = np.fmin(ends[0][0], ends[1][0]), np.fmax(ends[0][1], ends[1][1])
        # Of finite t below an infinity it has no largest value, but the limit 1; at the infinity none.
        endless = np.isinf(below.high) & np.isfinite(below.low)
        scale = np.where(endless, 1.0, below.high)
        high = np.where(endless, 1.0, high)
        divisor = Range(scale, scale, t.nan | endless, below.reason, self)
        return self.quotient(replace(divisor, low=low * divisor.low, high=high * divisor.low), divisor, "division")

    def log1p(self, x: Range) -> Range:
        """``ln(1 + x)``, for x that are not negative."""
        return self._from_zero(x, self.result(np.log1p(x.low), np.log1p(x.high), (x,), self.model.laws["log1p"]))

    def expm1(self, x: Range) -> Range:
        """``e^x - 1``."""
        return self._from_zero(x, self.result(np.expm1(x.low), np.expm1(x.high), (x,), self.model.laws["expm1"]))

    def erf(self, x: Range) -> Range:
        """The error function."""
        # Here, because importing mpsref must not import scipy.special.
        from scipy.special import erf  # noqa: PLC0415

        return self._from_zero(x, self.result(erf(x.low), erf(x.high), (x,), self.model.laws["erf"]))

    def pow(self, base: Range | Scalar, exponent: Range | Scalar) -> Range:
        """``base ^ exponent``: the power of the magnitude, with the sign put back."""
        base, exponent = self.range(base).whole, self.range(exponent).whole
        negative, crosses = base.high < 0, (base.low < 0) & (base.high >= 0)
        size = Range(base.least, base.size, base.nan, base.reason, self).marked(base.may_be_flushed, Mark.TINY)
        above = below = self._power_of_size(size, exponent)
        # In a branch the choices of one place must be the same whichever elements are looked at.
        if crosses.any() or self.branches is not None:
            # Each side of zero has its own magnitudes; what a comparison takes for zero may be on either.
            on_both = np.fmin(size.high, self.model.smallest[0] if self.flush else 0.0)
            above, below = (
                self._power_of_size(replace(size, high=np.where(crosses, np.fmax(end, on_both), size.high)), exponent)
                for end in (base.high, -base.low)
            )
        # The whole numbers that the exponent may be.
        first, last = np.ceil(exponent.low), np.floor(exponent.high)
        whole = first <= last
        odd = whole & ((first < last) | (np.mod(first, 2) == 1))
        even = whole & ((first < last) | (np.mod(first, 2) != 1))
        no_mark = np.zeros((), np.uint16)
        signed = self.where(Truth(odd, odd & ~even, no_mark), -below, below)
        signed = self.where(Truth(base.low < 0, negative, no_mark), signed, above)
        low, high = signed.low, signed.high
        # IEEE arithmetic defines the power of -infinity, where there is no real number; a device may give NaN.
        infinite = base.low == -np.inf
        none = negative & ~whole & ~infinite
        low, high = (np.where(none, np.nan, np.where(infinite & ~whole, own, end))
                     for own, end in ((below.low, low), (below.high, high)))  # fmt: skip
        varies = exponent.low < exponent.high
        edge = (negative & whole & varies) | (crosses & (~whole | varies))
        zero = (base.low == 0) & (base.high == 0) & (exponent.high < 0) & odd
        if self.below:
            low, high = np.where(zero, -high, low), np.where(zero, -low, high)
        nan = above.nan | below.nan | none | (infinite & ~whole)
        result = Range(low, high, nan, signed.reason, self, zero=signed.zero)
        result = result.marked(zero, Mark.POLE)
        return result.marked(infinite & ~whole, Mark.INVALID).marked(edge, Mark.POLE, nan=True)

    def _power_of_size(self, size: Range, exponent: Range) -> Range:
        law = self.model.laws.get("pow")
        if law is None:
            return self._exponential(exponent * self._logarithm(size, np.log2, "log2"), np.exp2, "exp2")
        low, high, missing = _corners(np.power, (size.low, size.high), (exponent.low, exponent.high))
        pole = (size.low == 0) & (size.high > 0) & (exponent.low < 0)
        operands = (_infinite_where(size, size.low == 0), exponent)
        least = np.finfo(np.float64).smallest_subnormal
        vanished = (size.low > 0) & np.isfinite(size.size) & np.isfinite(exponent.size)
        low, high = (np.where(vanished, np.maximum(end, least), end) for end in (low, high))
        result = self.result(low, high, operands, law, missing)
        result = replace(result, low=np.maximum(result.low, 0.0))
        return result.marked(np.broadcast_to(pole, result.low.shape), Mark.POLE)

    # ---- choices ----

    def min(self, x: Range, y: Range | Scalar) -> Range:
        """The smaller."""
        return self._chosen(np.fmin, x, self.range(y))

    def max(self, x: Range, y: Range | Scalar) -> Range:
        """The larger."""
        return self._chosen(np.fmax, x, self.range(y))

    def _chosen(self, operation: np.ufunc, x: Range, y: Range) -> Range:
        low, high, reason = operation(x.low, y.low), operation(x.high, y.high), x.reason | y.reason
        smallest = self.model.smallest[0]
        near_zero = [(each.low < smallest) & (each.high > -smallest) for each in (x, y)]
        tiny = near_zero[0] & near_zero[1] & (x.may_be_flushed | y.may_be_flushed)
        nan = np.broadcast_to(x.nan | y.nan, low.shape)
        result = Range(low, high, nan, reason, self).marked(tiny, Mark.TINY)
        for flushed, other in ((x.zero, y), (y.zero, x)):
            left = replace(other, low=operation(0.0, other.low), high=operation(0.0, other.high))
            result = self.or_left(result, flushed, left)
        if self.flush and (tiny.any() or self.branches is not None):
            # x < y may take both for zero, and choose either.
            opposite = np.fmax if operation is np.fmin else np.fmin
            low, high = np.fmax(opposite(x.low, y.low), -smallest), np.fmin(opposite(x.high, y.high), smallest)
            result = self.where(Truth.undecided(tiny), replace(result, low=low, high=high), result)
        if self.branches is None and not x.nan.any():
            return result
        # Where x may be NaN, a comparison may keep it, or choose y, which a number in its place may give as well.
        lost = x.nan & (np.isnan(x.low) | (y.low < result.low) | (y.high > result.high))
        return self.where(Truth.undecided(x.nan), y, result).marked(lost, Mark.CLAMPED)

    def or_left(self, result: Range, flushed: Mask, left: Range) -> Range:
        """The result, or what is left where an operand is flushed, and nothing between."""
        if not flushed.any() and self.branches is None:
            return result
        is_zero = (left.low == 0) & (left.high == 0)
        choice = self.where(Truth.undecided(flushed & ~is_zero), replace(left, factors=(), terms=()), result)
        return replace(choice, factors=result.factors, zero=choice.zero | (flushed & is_zero))

    def where(self, condition: Truth, x: Range | Scalar, y: Range | Scalar) -> Range:
        """
        `x` where the condition holds, `y` where not, and the range of both where it may or may not hold.

        There it is `Mark.UNDECIDED`, unless the two ranges meet.
        """
        x, y = self.range(x), self.range(y)
        undecided: Mask = condition.may & ~condition.must
        apart = undecided
        if undecided.any() or self.branches is not None:
            x, y = self._narrowed(x, condition, holds=True), self._narrowed(y, condition, holds=False)
            # The ranges of factors are wider than that of the product.
            is_product = max(len(x.factors), len(y.factors)) > 1
            apart = undecided & ((np.fmax(x.low, y.low) > np.fmin(x.high, y.high)) | is_product)
        if self.branches is not None:
            condition, apart = self.branches.decided(condition, apart)
        value = self._either(condition, x, y).marked(apart, Mark.UNDECIDED)
        # A product with more factors is made of these.
        return replace(
            value, factors=tuple((factor.marked(apart, Mark.UNDECIDED), kind) for factor, kind in value.factors)
        )

    def _narrowed(self, value: Range, condition: Truth, *, holds: bool) -> Range:
        """A choice that was compared itself, or is a product with that, where the condition holds or not."""
        if condition.order is None:
            return value
        if len(value.factors) == 2 and not any(kind for _, kind in value.factors):
            (first, _), (second, _) = value.factors
            ours, theirs = (self._narrowed(each, condition, holds=holds) for each in (first, second))
            return value if ours is first and theirs is second else self.product(ours, theirs)
        less, more = condition.order if holds else condition.order[::-1]
        # It may take a subnormal for zero.
        least = self.model.smallest[0] if self.flush else 0.0
        if value is more:
            bound = less.low - least
            return replace(value, low=np.where(value.low < bound, bound, value.low))
        if value is less:
            bound = more.high + least
            return replace(value, high=np.where(value.high > bound, bound, value.high))
        return value

    def _either(self, condition: Truth, x: Range, y: Range) -> Range:
        yes, no = condition.must, ~condition.may
        low = np.where(yes, x.low, np.where(no, y.low, np.fmin(x.low, y.low)))
        high = np.where(yes, x.high, np.where(no, y.high, np.fmax(x.high, y.high)))
        nan = np.where(yes, x.nan, np.where(no, y.nan, x.nan | y.nan))
        reason = np.where(yes, x.reason, np.where(no, y.reason, x.reason | y.reason)) | condition.reason
        zero = np.where(yes, x.zero, np.where(no, y.zero, x.zero | y.zero))
        factors = self._factors_where(condition, x, y)
        return Range(low, high, nan, reason.astype(np.uint16), self, factors, zero=zero)

    def _factors_where(self, condition: Truth, x: Range, y: Range) -> tuple[tuple[Range, str], ...]:
        """The factors of a choice between two products; none if neither is one."""
        if max(len(x.factors), len(y.factors)) < 2:
            return ()
        factors, one = [], self.range(1.0)
        kinds = dict.fromkeys(kind for of in (x, y) for _, kind in of.factors or ((of, ""),))
        for kind in kinds:
            ours, theirs = ([factor for factor, own in of.factors or ((of, ""),) if own == kind] for of in (x, y))
            for first, second in zip_longest(ours, theirs, fillvalue=one):
                chosen = self._either(condition, replace(first, factors=()), replace(second, factors=()))
                factors.append((chosen, kind))
        return tuple(factors)


@lru_cache(maxsize=256)
def _number(f: Running, digits: str) -> Range:
    """A number as a range: formulas have the same few for all elements. Its digits tell zeros apart."""
    wide = np.asarray(float.fromhex(digits))
    return f.between(wide, wide)


def _any(masks: Sequence[Mask]) -> Mask:
    """Where one of some masks holds, of any shapes."""
    found: Mask = np.logical_or.reduce(np.broadcast_arrays(*masks)) if masks else np.zeros((), np.bool_)
    return found


def _zero_of(factors: Sequence[Range]) -> Mask:
    """Where a factor is flushed and no other is infinite, or NaN."""
    flushed = _any([factor.zero for factor in factors])
    return flushed & ~_any([~np.isfinite(factor.least) for factor in factors]) if flushed.any() else NOWHERE


def _product(parts: Sequence[Wide]) -> Any:
    """The product of magnitudes; of 0 and infinity 0."""
    total: Any = np.float64(1.0)
    for part in parts:
        total = total * part
    return np.where(np.isnan(total), 0.0, total)


def _either(low: Wide, high: Wide, nan: Mask) -> tuple[Wide, Wide]:
    """Where one end of a range is missing, the other stands for both."""
    if not nan.any():
        return low, high
    return np.fmin(low, high), np.fmax(low, high)


def _infinite_where(x: Range, pole: Mask) -> Range:
    """The operand as infinite at poles, where an infinite result is no overflow."""
    return Range(np.where(pole, np.inf, x.low), np.where(pole, np.inf, x.high), x.nan, x.reason, x.f)
