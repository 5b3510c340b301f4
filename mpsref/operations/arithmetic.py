"""
Arithmetic on images: sums, differences and products with their gradients, and ones.

All but the ones are a clamped sum of products of their sources: ``c x y + ... + bias``. Exact value, text and script
follow from that. Parameters are float32 values.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, ClassVar, TypeAlias

import numpy as np

from mpsref.arrays import Elements, Stored, Wide, meaning
from mpsref.image import MPSImage
from mpsref.neuron.exact import WIDE, number
from mpsref.neuron.stepwise import Evaluation
from mpsref.neuron.workspace import two_sum
from mpsref.operations.base import UNBOUNDED, Operation, Role, Spread, number_text, scaled_text, sum_text
from mpsref.storage import StorageFormat, round_to_odd

__all__ = ["Arithmetic", "Difference", "Ones", "Product", "ProductGradient", "Scaling", "Sum", "SumOfProducts"]

Term: TypeAlias = tuple[float, tuple[int, ...]]
"""A factor, exact in float64, and the indices of the input values that it multiplies."""


class SumOfProducts(Operation):
    """
    ``c x y + ... + bias``, clamped, of the sources whose values are read.

    Attributes
    ----------
    bias : float
        The constant term; -0.0 for none, which keeps the sign of a zero.
    """

    bias: float

    @property
    @abstractmethod
    def terms(self) -> tuple[Term, ...]:
        """Two products of one value each, or one product of one or two values."""

    def exact(self, *values: Decimal) -> Decimal:
        """The result for one element, exactly: the specification."""
        total = number(self.bias)
        for factor, read in self.terms:
            product = number(factor)
            for i in read:
                product = WIDE.multiply(product, values[i])
            total = WIDE.add(product, total)
        low, high = map(number, self.bounds)
        return low if total < low else min(total, high)

    def odd(self, *values: Wide) -> Wide:
        """The same for arrays, which are overwritten: exact, or rounded to odd, so that one rounding can follow."""
        parts: list[Wide] = []
        for factor, read in self.terms:
            if len(read) == 1:
                parts.append(np.multiply(values[read[0]], factor, out=values[read[0]]))
            else:
                # Two values of 24 bits have an exact product of 48, and so have the two scales in the factor.
                parts += _two_product(values[read[0]] * values[read[1]], factor)
        total = _exact_sum(parts, self.bias)
        if self.bias == 0:
            # -0 + 0 is +0.
            np.add(total, self.bias, out=total)
        # Not np.clip: if a bound is a zero, it does not say which zero it returns.
        np.copyto(total, self.bounds[0], where=total < self.bounds[0])
        np.copyto(total, self.bounds[1], where=total > self.bounds[1])
        return total

    def evaluate(
        self, sources: Sequence[Elements], result: StorageFormat, how: Evaluation, spread: Spread, workers: int = 1
    ) -> Stored:
        return how.elementwise(self, self.values_of(sources), result, workers=workers)

    def text(self, names: Sequence[str], symbol: str) -> str:
        read = self.values_of(names)
        products = [scaled_text(factor, " * ".join(read[i] for i in which)) for factor, which in self.terms]
        text = sum_text(products + ([number_text(self.bias)] if self.bias else []))
        return f"clamp({text}, {', '.join(map(number_text, self.bounds))})" if self.is_clamped else text

    def facts(self) -> dict[str, Any]:
        place = self.values_of(range(len(self.roles)))
        return {
            "terms": [[factor, [place[i] for i in read]] for factor, read in self.terms],
            "bias": self.bias,
            "bounds": [end if math.isfinite(end) else str(end).replace("inf", "Infinity") for end in self.bounds],
        }


@dataclass(frozen=True)
class Arithmetic(SumOfProducts):
    """
    Base of the forward arithmetic of two sources.

    Attributes
    ----------
    scales : tuple of two floats
        Factors of the primary and the secondary source.
    """

    roles = (Role.INPUT, Role.INPUT)
    scales: tuple[float, float] = (1.0, 1.0)
    bias: float = 0.0
    bounds: tuple[float, float] = UNBOUNDED

    def kinks(self) -> tuple[float, ...]:
        return tuple(end for end in self.bounds if math.isfinite(end))

    def argument(self, sources: Sequence[Wide]) -> Wide:
        return replace(self, bounds=UNBOUNDED).value(*sources)

    def at_argument(self, argument: Wide) -> Wide:
        return np.clip(argument, *self.bounds)

    def with_parameters_exchanged(self) -> Iterator[tuple[str, Operation]]:
        yield "secondary_scale for primary_scale", replace(self, scales=self.scales[::-1])

    def with_parameters_left_out(self) -> Iterator[tuple[str, Operation]]:
        first, second = self.scales
        for name, changed in {
            "primary_scale = 1": replace(self, scales=(1.0, second)),
            "secondary_scale = 1": replace(self, scales=(first, 1.0)),
            "both scales = 1": replace(self, scales=(1.0, 1.0)),
            "primary_scale = 0": replace(self, scales=(0.0, second)),
            "secondary_scale = 0": replace(self, scales=(first, 0.0)),
            "bias = 0": replace(self, bias=0.0),
            "no clamp": replace(self, bounds=UNBOUNDED),
        }.items():
            if changed != self:
                yield name, changed

    def _clamped(self, f: Any, total: Any) -> Any:
        low, high = self.bounds
        total = f.max(total, low) if low > -math.inf else total
        return f.min(total, high) if high < math.inf else total


@dataclass(frozen=True)
class Sum(Arithmetic):
    """``scales[0] x + scales[1] y + bias``, clamped."""

    kind = "sum"
    sign: ClassVar[float] = 1.0
    """Of the secondary source."""

    @property
    def terms(self) -> tuple[Term, ...]:
        return (self.scales[0], (0,)), (self.sign * self.scales[1], (1,))

    def stepwise(self, f: Any, *sources: Any, function: Callable[[Any], Any] | None = None) -> Any:
        """The first product fused with the second, if the mode fuses; then the bias, then the bounds."""
        x, y = sources
        (first, _), (second, _) = self.terms
        return self._clamped(f, f.fma(first, x, second * y) + self.bias)

    def gradients(self) -> tuple[Operation, ...]:
        return tuple(Scaling(factor) for factor, _ in self.terms)

    @property
    def accumulates(self) -> bool:
        """A sum of gradients is a gradient, a difference is not."""
        return self.sign == 1


@dataclass(frozen=True)
class Difference(Sum):
    """``scales[0] x - scales[1] y + bias``, clamped."""

    sign = -1.0


@dataclass(frozen=True)
class Product(Arithmetic):
    """``(scales[0] x) (scales[1] y) + bias``, clamped."""

    kind = "product"

    @property
    def terms(self) -> tuple[Term, ...]:
        return ((self.scales[0] * self.scales[1], (0, 1)),)

    def stepwise(self, f: Any, *sources: Any, function: Callable[[Any], Any] | None = None) -> Any:
        """Each source scaled; their product fused with the bias, if the mode fuses; then the bounds."""
        x, y = sources
        return self._clamped(f, f.fma(self.scales[0] * x, self.scales[1] * y, self.bias))

    def gradients(self) -> tuple[Operation, ...]:
        return (ProductGradient(self.scales), ProductGradient(self.scales))


class _ArithmeticGradient(SumOfProducts):
    """The incoming gradient times a factor, or times another source."""

    kind = "scale"
    makes_gradient = True
    bias = -0.0

    def slope_text(self, names: Sequence[str], symbol: str) -> str:
        ((factor, read),) = self.terms
        values = self.values_of(names)
        others = " * ".join(values[i] for i in read[1:])
        return scaled_text(factor, others) if others else "" if factor == 1 else number_text(factor)


@dataclass(frozen=True)
class Scaling(_ArithmeticGradient):
    """The gradient of a sum or a difference: the incoming gradient times a factor."""

    roles = (Role.GRADIENT, Role.SIZE)
    factor: float = 1.0

    @property
    def terms(self) -> tuple[Term, ...]:
        return ((self.factor, (0,)),)

    def stepwise(self, f: Any, *sources: Any, function: Callable[[Any], Any] | None = None) -> Any:
        return self.factor * sources[0]

    def slope(self, *sources: MPSImage) -> Wide:
        return np.full(sources[0].slices.shape, self.factor)

    def with_parameters_left_out(self) -> Iterator[tuple[str, Operation]]:
        if self.factor != 1:
            yield "scale = 1", Scaling()


@dataclass(frozen=True)
class ProductGradient(_ArithmeticGradient):
    """
    The gradient of a product: the incoming gradient times the other source, scaled.

    The node's source image is the differentiated one; the other one comes with the gradient state.
    """

    roles = (Role.GRADIENT, Role.SIZE, Role.INPUT)
    scales: tuple[float, float] = (1.0, 1.0)

    @property
    def terms(self) -> tuple[Term, ...]:
        return ((self.scales[0] * self.scales[1], (0, 1)),)

    def stepwise(self, f: Any, *sources: Any, function: Callable[[Any], Any] | None = None) -> Any:
        """The scales, the other source, the incoming gradient, from the left."""
        g, other = sources
        return self.scales[0] * (self.scales[1] * other) * g

    def slope(self, *sources: MPSImage) -> Wide:
        other = sources[2]
        return self.terms[0][0] * meaning(other.slices, other.storage)

    def with_parameters_left_out(self) -> Iterator[tuple[str, Operation]]:
        if self.scales != (1.0, 1.0):
            yield "both scales = 1", ProductGradient()


@dataclass(frozen=True)
class Ones(Operation):
    """Ones of the size of the source: the initial gradient."""

    kind = "ones"
    roles = (Role.SIZE,)
    makes_gradient = True

    def evaluate(
        self, sources: Sequence[Elements], result: StorageFormat, how: Evaluation, spread: Spread, workers: int = 1
    ) -> Stored:
        one = result.encode(np.ones(1), np.empty(1, result.dtype))
        return np.full(sources[0].stored.shape, one)

    def stepwise(self, f: Any, *sources: Any, function: Callable[[Any], Any] | None = None) -> Any:
        return 1.0

    def text(self, names: Sequence[str], symbol: str) -> str:
        return "1"


def _two_product(x: Wide, y: float) -> list[Wide]:
    """A product of two numbers of at most 48 bits each, rounded, and its error."""
    product = x * y
    # Split by masking, 26 bits and 22: all four products are exact (Dekker 1971).
    split = ~np.int64(0x7FFFFFF)
    high = (x.view(np.int64) & split).view(np.float64)
    top = float((np.array([y]).view(np.int64) & split).view(np.float64)[0])
    low, rest = x - high, y - top
    error = ((high * top - product) + high * rest + low * top) + low * rest
    return [product, np.where(np.isfinite(error), error, 0.0)]


def _exact_sum(parts: Sequence[Wide], bias: float) -> Wide:
    """The sum of one or two arrays and a number, rounded to odd (algorithm 5 of Boldo and Melquiond)."""
    if len(parts) == 1:
        return round_to_odd(*two_sum(parts[0], bias)) if bias else parts[0]
    p, q = parts
    if bias == 0:
        return round_to_odd(*two_sum(p, q))
    high, low = two_sum(q, bias)
    top, middle = two_sum(p, high)
    rest = round_to_odd(*two_sum(middle, low))
    # Where the sum is infinite or NaN its error terms are NaN, and it is the result.
    return np.where(np.isfinite(top), round_to_odd(*two_sum(top, rest)), top)
