"""What sums have in common: blocks within an error bound, exact values, one rounding."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt

from mpsref.arrays import Elements, Stored, Wide
from mpsref.environment import environment_or_error
from mpsref.errors import ImageError
from mpsref.neuron.rounding import canonical_nan
from mpsref.neuron.threads import BLOCK, over_blocks, quietly, worker_count
from mpsref.storage import FLOAT64, StorageFormat
from mpsref.sums.expansion import cut, distilled, exact_products, fractions, nearest, odd, quotient_odd

__all__ = [
    "ROUNDING",
    "Block",
    "Index",
    "Near",
    "Operands",
    "Sum",
    "elements_or_error",
    "gathered",
    "gradient_or_error",
]

Index: TypeAlias = npt.NDArray[np.int64]

Operands: TypeAlias = Iterator[tuple[Wide, Wide]]
"""The factors of the products of some sums, a row for each: in parts, since there may be many. 0 for no product."""

Near: TypeAlias = tuple[Wide, Wide | float]
"""Sums, and a bound of their absolute errors; a bound of 0 means exact, or rounded to odd."""

ROUNDING = 2.0**-53 * (1 + 2.0**-20)
"""The relative error of an operation in float64, and room for those of a bound."""

FEW = 16
"""More numbers than these are faster cut again than made free of overlap."""

TERMS = 2**17
"""So many products at once fit the caches."""


@dataclass(frozen=True)
class Block:
    """
    Some elements of a result.

    Attributes
    ----------
    place : tuple of slice
        Where they are; no start, stop or step is missing.
    near : callable
        Returns their `Near`, of the shape of the place.
    """

    place: tuple[slice, ...]
    near: Callable[[], Near]

    def flat(self, index: Index, shape: Sequence[int]) -> Index:
        """Flat indices in the result for flat indices in the block."""
        lengths = [len(range(s.start, s.stop, s.step or 1)) for s in self.place]
        axes = np.unravel_index(index, lengths)
        places = tuple(s.start + a * (s.step or 1) for s, a in zip(self.place, axes, strict=True))
        return np.asarray(np.ravel_multi_index(places, tuple(shape)))


class Sum(ABC):
    """
    An array of sums of products, which `rounded` evaluates and rounds once.

    NaN if a product is NaN or infinities of both signs meet. An exactly zero sum is +0, never -0; one that underflows
    keeps its sign. Overflow is that of the exact sum. The bits depend on no library, thread count or platform.

    Attributes
    ----------
    shape : tuple of int
        Of the result.
    storages : tuple of StorageFormat
        Of the operands.
    selects : bool
        Whether the sums in blocks are of a selection: most are 0, and none is -0.
    """

    shape: tuple[int, ...]
    storages: tuple[StorageFormat, ...]
    selects: ClassVar[bool] = False

    @abstractmethod
    def operands(self, index: Index) -> Operands:
        """The factors of the products of the sums with these flat indices, from the definition."""

    @abstractmethod
    def terms(self) -> int:
        """About how many products a sum has."""

    @abstractmethod
    def blocks(self) -> Iterator[Block]:
        """All elements that have products, where no operand is float64."""

    def divisors(self, index: Index) -> Wide | None:
        """What these sums are divided by, integers of at most 24 bits; None for nothing."""
        return None

    def rounded(self, result: StorageFormat, *, workers: int = 1) -> Stored:
        """
        All sums, each rounded once to nearest even.

        Parameters
        ----------
        result : StorageFormat
            The format to round to.
        workers : int
            Threads; -1 for one per core.

        Returns
        -------
        ndarray
            Of the dtype of `result`.

        Raises
        ------
        ParameterError
            `workers` is not a number of threads.
        """
        count, out = worker_count(workers), np.zeros(self.shape, result.dtype)
        if not out.size:
            return out
        if FLOAT64 in (result, *self.storages):
            # No float64 is near enough.
            self._settle(np.arange(out.size), out, result, count)
            return out
        open_: list[Index] = []

        def within(block: Block) -> None:
            values, bound = block.near()
            if isinstance(bound, float) and bound == 0:
                _round_exact(values, out[block.place], result, selects=self.selects)
                return
            left = _round_within(values, bound, out[block.place], result)
            if left is not None:
                open_.append(block.flat(left, self.shape))

        self._over_blocks(within, count)
        if open_:
            self._settle(np.concatenate(open_), out, result, count)
        return out

    def near(self, *, workers: int = 1) -> tuple[Wide, Wide]:
        """
        All sums in float64, and bounds of their absolute errors: 0 for infinities and NaN, and where a sum is exact.

        Examples
        --------
        >>> import numpy as np
        >>> from mpsref.arrays import Elements
        >>> from mpsref.storage import storage_format
        >>> from mpsref.sums import BiasGradient
        >>> gradient = Elements(np.float16([1, 2, 3]).reshape(1, 1, 3, 1), storage_format("float16"))
        >>> BiasGradient(gradient).near()
        (array([6.]), array([0.]))
        """
        count, values, bounds = worker_count(workers), np.zeros(self.shape), np.zeros(self.shape)
        unknown = np.zeros(self.shape, np.bool_)

        def fill(block: Block) -> None:
            values[block.place], bounds[block.place] = block.near()
            unknown[block.place] = ~np.isfinite(bounds[block.place])

        if FLOAT64 in self.storages:
            unknown.fill(True)
        elif values.size:
            self._over_blocks(fill, count)
        index = np.flatnonzero(unknown)
        self._settle(index, values, FLOAT64, count)
        settled = values.reshape(-1)[index]
        with np.errstate(over="ignore"):
            errors = np.spacing(np.abs(settled))
        bounds.reshape(-1)[index] = np.where(np.isfinite(settled), errors, 0.0)
        return values, bounds

    def _over_blocks(self, work: Callable[[Block], None], workers: int) -> None:
        # What blocks have in common may meet NaN.
        blocks = quietly(lambda: list(self.blocks()))
        # A block of these has as many elements as it likes.
        over_blocks(lambda start, _: work(blocks[start // BLOCK]), len(blocks) * BLOCK, workers)

    def _settle(self, index: Index, out: Stored, result: StorageFormat, workers: int) -> None:
        """Write the sums with these flat indices, exact and rounded once."""
        portions, flat = list(self.portions(index)), out.reshape(-1)

        def settle(start: int, _: int) -> None:
            some = portions[start // BLOCK]
            flat[some] = self._decided(some, result)

        over_blocks(settle, len(portions) * BLOCK, workers)

    def exact(self, index: npt.ArrayLike) -> list[Fraction | float]:
        """
        Some sums as rational numbers; a float where one is NaN or infinite.

        Parameters
        ----------
        index : array_like of int
            Flat indices in the result.
        """
        environment_or_error()
        found: list[Fraction | float] = []
        with np.errstate(all="ignore"):
            for some in self.portions(np.asarray(index, np.int64).reshape(-1)):
                expansion, special = self._expanded(some)
                values = self._rationals(some) if expansion is None else fractions(expansion)
                divisors = self._divisors(some)
                found += [
                    value / int(divisor) if outcome == 0 else outcome
                    for value, divisor, outcome in zip(values, divisors, special.tolist(), strict=True)
                ]
        return found

    def _divisors(self, index: Index) -> list[float]:
        divisors = self.divisors(index)
        return [1.0] * index.size if divisors is None else divisors.tolist()

    def portions(self, index: Index) -> Iterator[Index]:
        """Flat indices in parts whose products fit the caches."""
        size = max(1, TERMS // max(self.terms(), 1))
        for start in range(0, index.size, size):
            yield index[start : start + size]

    def _expanded(self, index: Index) -> tuple[Wide | None, Wide]:
        """The sums without overlap, or None; and infinity or NaN where that is the outcome, else 0."""
        parts: list[Wide] = []
        special, splits = np.zeros(index.size), True
        for factors in self.operands(index):
            x, y = factors
            irregular = ~np.isfinite(x) | ~np.isfinite(y)
            if irregular.any():
                special += np.where(irregular, x * y, 0.0).sum(axis=1)
                x, y = (np.where(irregular, 0.0, factor) for factor in factors)
            products = exact_products(x, y, wide=FLOAT64 in self.storages)
            if products is None:
                splits = False
            elif splits:
                parts += cut(products)
        if not splits:
            return None, special
        if len(parts) > FEW:
            parts = cut(np.stack(parts, axis=1))
        return distilled(parts, index.size), special

    def _rationals(self, index: Index) -> list[Fraction]:
        """The finite sums, term by term."""
        totals = [Fraction(0)] * index.size
        for x, y in self.operands(index):
            for i, (row, other) in enumerate(zip(x.tolist(), y.tolist(), strict=True)):
                regular = ((a, b) for a, b in zip(row, other, strict=True) if math.isfinite(a) and math.isfinite(b))
                totals[i] += sum((Fraction(a) * Fraction(b) for a, b in regular if a and b), Fraction(0))
        return totals

    def _decided(self, index: Index, result: StorageFormat) -> Stored:
        """The sums with these flat indices, exact and rounded once."""
        expansion, special = self._expanded(index)
        out, divisors = np.empty(index.size, result.dtype), self.divisors(index)
        if expansion is None:
            pairs = zip(self._rationals(index), self._divisors(index), strict=True)
            result.encode(np.array([_wide(value / int(divisor), result) for value, divisor in pairs]), out)
        elif divisors is None:
            result.encode(nearest(expansion) if result is FLOAT64 else odd(expansion), out)
        else:
            values = quotient_odd(expansion[0], divisors)
            hard = np.flatnonzero((expansion[1] != 0) | (result is FLOAT64))
            for i, value in zip(hard.tolist(), fractions(expansion[:, hard]), strict=True):
                values[i] = _wide(value / int(divisors[i]), result)
            result.encode(values, out)
        irregular = special != 0
        if irregular.any():
            out[irregular] = result.encode(special[irregular], np.empty(np.count_nonzero(irregular), result.dtype))
        canonical_nan(out)
        return out


def _wide(value: Fraction, result: StorageFormat) -> float:
    """A rational number as a float64 that rounds like it: to the nearest, or to odd."""
    try:
        near = float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
    rest = value - Fraction(near)
    if result is FLOAT64 or not rest:
        return near
    is_odd = int(np.float64(near).view(np.int64)) & 1
    return near if is_odd else math.nextafter(near, math.inf if rest > 0 else -math.inf)


def _round_exact(values: Wide, out: Stored, result: StorageFormat, *, selects: bool) -> None:
    made = out if out.flags.c_contiguous else np.zeros(out.shape, out.dtype)
    if selects and result.dtype == np.float16:
        # The conversion takes longest, and zeros need none.
        index = np.flatnonzero(values != 0)
        some = result.encode(values.reshape(-1)[index], np.empty(index.size, out.dtype))
        canonical_nan(some)
        made.reshape(-1)[index] = some
    else:
        if not selects:
            # Adding 0 turns -0 into +0.
            values += 0.0
        result.encode(values, made)
        canonical_nan(made.reshape(-1))
    if made is not out:
        np.copyto(out, made)


def _round_within(values: Wide, bound: Wide | float, out: Stored, result: StorageFormat) -> Index | None:
    """Round what is within absolute bounds, and return the flat indices of what they leave open (Ziv's test)."""
    high = np.empty(out.shape, out.dtype)
    low = out if out.flags.c_contiguous else np.empty_like(high)
    if result.unorm_max:
        result.encode(values - bound, low)
        result.encode(values + bound, high)
    else:
        np.subtract(values, bound, out=low, casting="same_kind")
        np.add(values, bound, out=high, casting="same_kind")
    # By bits: the sign of a zero is open where the bound reaches beyond it.
    is_open = low.view(result.bits_dtype) != high.view(result.bits_dtype)
    if result.unorm_max:
        is_open |= ~(np.isfinite(values) & np.isfinite(bound))
    elif result.dtype == np.float16:
        is_open |= (low.view(np.uint16) & 0x7FFF) > 0x7C00
    elif math.isnan(np.maximum.reduce(low, axis=None)):
        is_open |= np.isnan(low)
    if low is not out:
        np.copyto(out, low)
    open_ = np.flatnonzero(is_open)
    if not open_.size:
        return None
    # Without an error there is only the sign of a zero.
    known = np.broadcast_to(bound, values.shape).reshape(-1)[open_] == 0
    if known.any():
        places = np.unravel_index(open_[known], out.shape)
        out[places] = result.encode(values[places] + 0.0, np.empty(places[0].size, out.dtype))
    rest: Index = open_[~known]
    return rest


def elements_or_error(array: Elements, name: str, axes: int = 4) -> Elements:
    """
    The elements, checked.

    Raises
    ------
    ImageError
        They do not have so many axes, or not the dtype of their format.
    """
    if array.stored.ndim != axes or array.stored.dtype != array.storage.dtype:
        raise ImageError(
            f"{name} is {array.stored.dtype}{list(array.stored.shape)}: give {array.storage.dtype} with {axes} axes"
        )
    return array


def gradient_or_error(gradient: Elements, result: tuple[int, int], channels: int) -> None:
    """
    Check an incoming gradient.

    Raises
    ------
    ImageError
        It does not have the size of the window's result, or so many channels.
    """
    elements_or_error(gradient, "gradient")
    if gradient.stored.shape[1:] != (*result, channels):
        raise ImageError(
            f"gradient is {list(gradient.stored.shape)}: give [images, {result[0]}, {result[1]}, {channels}], "
            "as the window's result is"
        )


def gathered(source: Elements, image: Index, rows: Index, columns: Index, channels: Index) -> Wide:
    """For each element the values at its rows, columns and channels; 0 where a row or column is negative."""
    y, x, c = rows[:, :, None, None], columns[:, None, :, None], channels[:, None, None, :]
    stored = source.stored[image[:, None, None, None], y, x, c]
    values = source.storage.decode(stored, np.empty(stored.shape))
    return np.where((y >= 0) & (x >= 0), values, 0.0)
