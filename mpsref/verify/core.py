"""
The core of the bounds: ranges that lie inside those of `mpsref.verify.running`, for a fraction of their cost.

An operation on narrower ranges gives a range inside the one for wider ones, and a smaller error widens it less. So a
formula evaluated on these ranges, without most roundings, orders of products and flushed subnormals, stays inside its
bounds: what lies in the core needs no closer look. Nothing follows for what lies outside; there is NaN for whatever is
not plain: what overflows, a pole, an open comparison.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from mpsref.arrays import Index, Mask, Stored, Wide, meaning, spread
from mpsref.storage import StorageFormat
from mpsref.verify.models import ROUNDED, Law, Model
from mpsref.verify.ranges import Truth
from mpsref.verify.running import Running

__all__ = ["Core", "CoreArithmetic", "core_ends", "in_core"]

CHUNK, SAMPLE = 16_384, 1024
"""Elements looked at together, in the caches; and those that tell whether the rest is worth it."""

WORTH = 1 / 4
"""Share of the sample from which on it is."""

SLACK = 1 - 2.0**-10
"""Share of an error that is taken, which leaves room for the rounding of float64."""

FLOAT32 = 24
"""Bits from which on a format of computation has all stored numbers."""


def in_core(
    got: Stored, storage: StorageFormat, models: Sequence[Model], forms: Sequence[Callable[[Any, Index], Any]]
) -> Mask:
    """
    Which elements lie in the core of a form; none if they are few, or few of a sample do.

    Parameters
    ----------
    got : ndarray
        The stored elements, flat.
    storage : StorageFormat
        How they are stored.
    models : sequence of Model
        What the device may promise.
    forms : sequence of callable
        Those of a neuron's formula.
    """
    found = np.zeros(got.size, np.bool_)
    if got.size <= SAMPLE:
        return found
    ways = [partial(form, CoreArithmetic(model)) for model, form in product(models, forms)]
    some = spread(got.size, SAMPLE)
    with np.errstate(all="ignore"):
        shares = [np.mean(way(some).holds(meaning(got[some], storage))) for way in ways]
        for k in np.argsort(shares)[::-1]:
            for start in range(0, got.size, CHUNK) if shares[k] >= WORTH else ():
                rest = start + np.flatnonzero(~found[start : start + CHUNK])
                if rest.size:
                    found[rest] = ways[k](rest).holds(meaning(got[rest], storage))
    return found


def core_ends(model: Model, form: Callable[[Any, Index], Any], size: int) -> tuple[Wide, Wide]:
    """The least and the greatest value in the core of a form for so many elements; NaN where it says nothing."""
    low, high = np.full(size, np.nan), np.full(size, np.nan)
    with np.errstate(all="ignore"):
        for start in range(0, size, CHUNK):
            index = np.arange(start, min(start + CHUNK, size))
            core = form(CoreArithmetic(model), index)
            low[index], high[index] = core.low, core.high
    return low, high


@dataclass(frozen=True, eq=False)
class Core:
    """
    Some possible values of each element: all between two of them.

    Attributes
    ----------
    low, high : ndarray of float64
        One array for both where they are the same everywhere; NaN where nothing is known.
    f : CoreArithmetic
        The arithmetic of its operators.
    """

    low: Wide
    high: Wide
    f: CoreArithmetic

    __array_ufunc__ = None

    def __neg__(self) -> Core:
        return self.f.monotone(np.negative, self, falling=True)

    def __abs__(self) -> Core:
        if self.is_positive:
            return self
        if self.low is self.high:
            return self.f.monotone(np.abs, self)
        a, b = np.abs(self.low), np.abs(self.high)
        crosses = (self.low <= 0) & (self.high >= 0)
        return Core(np.where(crosses, 0.0, np.minimum(a, b)), np.maximum(a, b), self.f)

    def __add__(self, other: Any) -> Core:
        other = self.f.range(other)
        return self.f.rounded(self.low + other.low, self.high + other.high)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Core:
        return self + -self.f.range(other)

    def __rsub__(self, other: Any) -> Core:
        return self.f.range(other) + -self

    def __mul__(self, other: Any) -> Core:
        return self.f.corners(np.multiply, self, self.f.range(other))

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Core:
        return self.f.quotient(self, self.f.range(other), "division")

    def __rtruediv__(self, other: Any) -> Core:
        return self.f.quotient(self.f.range(other), self, "reciprocal" if other == 1 else "division")

    def __lt__(self, other: Any) -> Truth:
        other = self.f.range(other)
        return Truth(~(self.low >= other.high), self.high < other.low, np.zeros((), np.uint16))

    def __le__(self, other: Any) -> Truth:
        other = self.f.range(other)
        return Truth(~(self.low > other.high), self.high <= other.low, np.zeros((), np.uint16))

    def __gt__(self, other: Any) -> Truth:
        return self.f.range(other) < self

    def __ge__(self, other: Any) -> Truth:
        return self.f.range(other) <= self

    def __eq__(self, other: object) -> bool:
        # Formulas compare parameters only.
        return bool(self.low.ndim == 0 and self.low == self.high == other)

    __hash__ = None  # type: ignore[assignment]

    @cached_property
    def is_positive(self) -> bool:
        """Whether all are, and known."""
        return bool(np.min(self.low, initial=np.inf) > 0)

    def like(self, elements: npt.NDArray[Any]) -> Core:
        """The core, broadcast to the shape of an array."""
        return self.f.monotone(lambda end: np.broadcast_to(end, elements.shape), self)

    def at(self, index: npt.NDArray[Any]) -> Core:
        """The elements at some indices."""
        return self.f.monotone(lambda end: end[index], self) if self.low.ndim else self

    def part(self, start: int, shape: tuple[int, ...]) -> Core:
        """The elements from `start` on, in a shape."""
        if self.low.shape == shape:
            return self
        return self.at(np.arange(start, start + math.prod(shape)).reshape(shape))

    def holds(self, values: Wide) -> Mask:
        """Which of some values lie inside."""
        inside: Mask = (self.low <= values) & (values <= self.high)
        return inside


@dataclass(frozen=True, eq=False)
class CoreArithmetic:
    """
    The `Arithmetic` of the rows on cores.

    Attributes
    ----------
    model : Model
        The error of each operation.
    """

    model: Model
    mirror = False
    branches = None

    @cached_property
    def _running(self) -> Running:
        return Running(self.model)

    # ---- making cores ----

    def range(self, value: Any) -> Core:
        """Numbers as cores; a core as it is."""
        if isinstance(value, Core):
            return value
        wide = np.asarray(value, np.float64)
        if wide.ndim and self.model.precision >= FLOAT32:
            return self.known(Core(wide, wide, self))
        return self.between(wide, wide) if wide.ndim else self._inside(self._running.range(value))

    def between(self, low: Wide, high: Wide, law: Law = ROUNDED) -> Core:
        """The core of an element read from an image, between two stored values."""
        return self._inside(self._running.between(low, high, law))

    def _inside(self, value: Any) -> Core:
        is_number = bool((value.low == value.high).all())
        return self.known(Core(value.low, value.low if is_number else value.high, self))

    def known(self, x: Core) -> Core:
        """With NaN for what a device may not hold."""
        most = self.model.limit
        # Not so if one of them is NaN.
        if np.max(x.high, initial=0.0) <= most and np.min(x.low, initial=0.0) >= -most:
            return x
        known = (x.high <= most) & (x.low >= -most)
        low = np.where(known, x.low, np.nan)
        return Core(low, low if x.low is x.high else np.where(known, x.high, np.nan), self)

    def monotone(self, function: Callable[[Wide], Wide], x: Core, *, falling: bool = False) -> Core:
        """What a function that only rises, or only falls, makes of both ends."""
        low = function(x.low)
        high = low if x.low is x.high else function(x.high)
        return Core(high, low, self) if falling else Core(low, high, self)

    def rounded(self, low: Wide, high: Wide) -> Core:
        """A sum: its ends rounded outwards, if that is where the nearest number is."""
        if self.model.rounds_either_way:
            return Core(low, high, self)
        return Core(np.fmin(low, self.model.nearest(low)), np.fmax(high, self.model.nearest(high)), self)

    def widened(self, x: Core, law: Law, units: Any = None) -> Core:
        """The core of computed results from that of exact ones; a ULP is at least half of that above a power of two."""
        if law.is_rounding:
            return x if law.either else self.rounded(x.low, x.high)
        error = (law.ulp if units is None else units) * (self.model.unit / 2 * SLACK)
        if x.is_positive:
            low, high = x.low * (1 - error), x.high * (1 + error)
        else:
            low, high = x.low - np.abs(x.low) * error, x.high + np.abs(x.high) * error
        return Core(low - law.absolute, high + law.absolute, self) if law.absolute else Core(low, high, self)

    # ---- products and quotients ----

    def corners(self, operation: np.ufunc, x: Core, y: Core) -> Core:
        """The least and the greatest product, quotient or power."""
        if x.low is x.high and y.low is y.high:
            both = operation(x.low, y.low)
            return self.known(Core(both, both, self))
        if x.is_positive and y.is_positive and operation is not np.power:
            down, up = (y.low, y.high) if operation is np.multiply else (y.high, y.low)
            return self.known(Core(operation(x.low, down), operation(x.high, up), self))
        found = [operation(a, b) for a in _ends(x) for b in _ends(y)]
        low = high = found[0]
        for corner in found[1:]:
            low, high = np.minimum(low, corner), np.maximum(high, corner)
        return self.known(Core(low, high, self))

    def quotient(self, x: Core, y: Core, kind: str) -> Core:
        """``x / y``."""
        if not y.is_positive:
            pole = ~((y.low > 0) | (y.high < 0))
            if pole.any():
                y = Core(np.where(pole, np.nan, y.low), np.where(pole, np.nan, y.high), self)
        return self.widened(self.corners(np.divide, x, y), self.model.laws[kind])

    def fma(self, a: Any, b: Any, c: Any) -> Core:
        """``a b + c``."""
        result: Core = self.range(a) * b + c
        return result

    def square(self, x: Core) -> Core:
        """``x x``."""
        size = abs(x)
        return self.corners(np.multiply, size, size)

    # ---- functions ----

    def exp(self, x: Core) -> Core:
        """e^x."""
        return self._exponential(x, np.exp, "exp")

    def _exponential(self, x: Core, function: np.ufunc, name: str) -> Core:
        law, units = self.model.laws[name], None
        if law.growth:
            growth = law.growth * np.minimum(np.abs(x.low), np.abs(x.high))
            units = law.ulp + (np.floor(growth) if law.whole else growth)
        return self._not_negative(self.widened(self.known(self.monotone(function, x)), law, units))

    @staticmethod
    def _not_negative(x: Core) -> Core:
        return x if x.is_positive else Core(np.maximum(x.low, 0.0), x.high, x.f)

    def log(self, x: Any) -> Core:
        """The natural logarithm."""
        return self._logarithm(self.range(x), np.log, "log")

    def _logarithm(self, x: Core, function: np.ufunc, name: str) -> Core:
        law, value = self.model.laws[name], self.known(self.monotone(function, x))
        result = self.widened(value, law)
        if not law.near_one:
            return result
        near = (x.high >= 0.5) & (x.low <= 2)
        low, high = value.low - np.where(near, law.near_one, 0.0), value.high + np.where(near, law.near_one, 0.0)
        # Beside 1 no error changes the sign.
        low, high = np.where(value.low == 0, value.low, low), np.where(value.high == 0, value.high, high)
        return Core(np.minimum(result.low, low), np.maximum(result.high, high), self)

    def tanh(self, x: Core) -> Core:
        """The hyperbolic tangent."""
        law = self.model.laws.get("tanh")
        if law is not None:
            return self.widened(self.monotone(np.tanh, x), law)
        if self.model.tanh_is_sinh_by_cosh:
            rising, falling = self.exp(x), self.exp(-x)
            return (rising - falling) / (rising + falling)
        t = self.exp(2 * x)
        above, below = t - 1, t + 1
        return self.widened(Core(above.low / below.low, above.high / below.high, self), self.model.laws["division"])

    def log1p(self, x: Core) -> Core:
        """``ln(1 + x)``, for x that are not negative."""
        return self.widened(self.known(self.monotone(np.log1p, x)), self.model.laws["log1p"])

    def expm1(self, x: Core) -> Core:
        """``e^x - 1``."""
        return self.widened(self.known(self.monotone(np.expm1, x)), self.model.laws["expm1"])

    def erf(self, x: Core) -> Core:
        """The error function."""
        # Here, because importing mpsref must not import scipy.special.
        from scipy.special import erf  # noqa: PLC0415

        return self.widened(self.monotone(erf, x), self.model.laws["erf"])

    def pow(self, base: Any, exponent: Any) -> Core:
        """``base ^ exponent``, for a positive base."""
        base, exponent = self.range(base), self.range(exponent)
        law = self.model.laws.get("pow")
        if law is None:
            return self._exponential(exponent * self._logarithm(base, np.log2, "log2"), np.exp2, "exp2")
        if not base.is_positive:
            base = Core(np.where(base.low > 0, base.low, np.nan), base.high, self)
        result = self._not_negative(self.widened(self.corners(np.power, base, exponent), law))
        # 1 is the power of anything to 0, and any of 1.
        unknown = np.isnan(base.low) | np.isnan(exponent.low)
        return Core(np.where(unknown, np.nan, result.low), result.high, self)

    # ---- choices ----

    def min(self, x: Core, y: Any) -> Core:
        """The smaller."""
        return self._chosen(np.minimum, x, self.range(y))

    def max(self, x: Core, y: Any) -> Core:
        """The larger."""
        return self._chosen(np.maximum, x, self.range(y))

    def _chosen(self, operation: np.ufunc, x: Core, y: Core) -> Core:
        low = operation(x.low, y.low)
        return Core(low, low if x.low is x.high and y.low is y.high else operation(x.high, y.high), self)

    def where(self, condition: Truth, x: Any, y: Any) -> Core:
        """`x` where the condition holds, `y` where not; nothing is known where it may or may not hold."""
        x, y = self.range(x), self.range(y)
        is_open = condition.may & ~condition.must

        def chosen(ours: Wide, theirs: Wide) -> Wide:
            value: Wide = np.where(condition.must, ours, theirs)
            return np.where(is_open, np.nan, value) if is_open.any() else value

        low = chosen(x.low, y.low)
        return Core(low, low if x.low is x.high and y.low is y.high else chosen(x.high, y.high), self)


def _ends(x: Core) -> tuple[Wide, ...]:
    return (x.low,) if x.low is x.high else (x.low, x.high)
