"""Whether the errors of a convolution may be those of sums in a narrow format, or come from what it reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np

from mpsref.arrays import Elements, Index, Wide, spread
from mpsref.operations.window import size_of
from mpsref.verify.case import Case
from mpsref.verify.layer import Given, Layer

PRODUCTS, FLIPS, FAULTS = 2_000_000, 32, 8
"""How many products are looked at; how often the signs of the errors are drawn anew; and how many faults, for scale."""

CHANCE, SHARE = 6.0, 0.5
"""
Standard deviations that chance does not leave. And what share of the errors must be like those of a fault: narrow sums
lose the products of a small weight always, so that a part of their errors is, too.
"""

LOST = 0.15
"""Units of the sum's last place per typical product, above which many products are lost."""


def is_noise(layer: Layer, case: Case, unit: float, rounding: Callable[[Wide], Wide]) -> bool:
    """
    Whether the errors of a convolution are independent of each other and of what it reads.

    Rounding partial sums leaves a positive error about as often as a negative one, whatever the other errors are. So
    sums of errors, each with a factor, are no larger than with signs drawn at random. They are larger

    - over the elements of a channel, if its bias is wrong,
    - over those, each times what a tap of the window reads there, if weights are,
    - over the elements that read one element of the source, each times its weight, if that is.

    A device that adds up in a narrow format may have rounded its inputs or biases to that as well.
    Where products are so small that they are lost, its errors do follow what is read, and nothing can be told.
    """
    with np.errstate(all="ignore"):
        lost = layer.terms * unit * np.abs(layer.value) / layer.sizes()
    if np.median(np.nan_to_num(lost)) > LOST:
        return True
    samples = _Samples(layer)
    return any(samples.are_noise(each, case) for each in _rounded(layer, rounding))


def _rounded(layer: Layer, rounding: Callable[[Wide], Wide]) -> Iterator[Layer]:
    """The layer with its inputs as they are or rounded, and its biases."""
    (first, *rest), weights, bias = layer.sources, layer.weights, layer.bias
    assert weights is not None
    inputs = [(first, weights)]
    if any(not np.array_equal(rounding(each), each, equal_nan=True) for each in inputs[0]):
        inputs.append((rounding(first), rounding(weights)))
    biases = [bias] if bias is None or np.array_equal(rounding(bias), bias) else [bias, rounding(bias)]
    for (source, weights), bias in product(inputs, biases):
        yield replace(layer, sources=(source, *rest), weights=weights, bias=bias)


class _Samples:
    """Elements of a convolution, with what they read."""

    def __init__(self, layer: Layer) -> None:
        operation: Any = layer.operation
        self.operation = operation
        self.source = np.nan_to_num(layer.sources[0].reshape(-1), posinf=0.0, neginf=0.0)
        self.sizes = [size_of(source) for source in layer.sources]
        *pixels, self.channels = self.operation.result_size(*self.sizes)
        self.pixels = int(np.prod(pixels))
        self.taps = max(1, self.operation.factors(np.zeros(1, np.intp), *self.sizes).shape[1])
        # Channels with the same weights, but for a factor, have the same errors, and are not independent.
        some = spread(self.channels, max(1, PRODUCTS // self.taps))
        weights = np.abs(self.operation.factors(some, *self.sizes))
        weights /= np.maximum(weights.max(axis=1, keepdims=True, initial=0.0), np.finfo(np.float64).tiny)
        self.different = some[np.sort(np.unique(weights, axis=0, return_index=True)[1])]
        self.random = np.random.default_rng(0)

    def are_noise(self, layer: Layer, case: Case) -> bool:
        """Whether the errors from what a layer gives are noise."""
        given = Given(lambda: layer)

        def errors(index: Index) -> Wide:
            read, functions = case.reading(index, 0, given)
            off = Elements(case.got, case.result).at(index).values() - case.values(index, functions, read)
            return np.where(np.isfinite(off), off, 0.0)

        return self._have_no_mean(errors) and not self._follow_weights(errors) and not self._follow_source(errors)

    def _have_no_mean(self, errors: Callable[[Index], Wide]) -> bool:
        off = errors(np.arange(self.pixels * self.channels)).reshape(self.pixels, self.channels)
        squares = np.maximum(np.square(off).sum(axis=0), np.finfo(np.float64).tiny)
        sums = np.square(off.sum(axis=0)) / squares
        return not ((sums > CHANCE**2) & (sums > SHARE * self.pixels)).any()

    def _follow_weights(self, errors: Callable[[Index], Wide]) -> bool:
        """Whether they are a function of what the taps read: in some channels, of all pixels."""
        channels = self.different[spread(self.different.size, max(1, PRODUCTS // (self.taps * self.pixels)))]
        pixels = spread(self.pixels, max(1, PRODUCTS // (self.taps * channels.size)))
        sums, likely = np.zeros(1 + FLIPS), np.zeros(2)
        for channel in channels.tolist():
            index = pixels * self.channels + channel
            read = self._read(index)
            values = np.where(read >= 0, self.source[read], 0.0)
            sums += np.square(self._flipped(errors(index)) @ values).sum(axis=1)
            faults = self.random.normal(size=(FAULTS, self.taps)) @ values.T
            likely += np.square(faults @ values).sum(), (np.square(faults) @ np.square(values).sum(axis=1)).sum()
        return _are_larger(sums, likely)

    def _follow_source(self, errors: Callable[[Index], Wide]) -> bool:
        """Whether they are a function of errors of what is read: of neighbouring pixels, in all channels."""
        count = min(self.pixels, max(1, PRODUCTS // (self.taps * self.different.size)))
        first = (self.pixels - count) // 2
        index = (np.arange(first, first + count)[:, np.newaxis] * self.channels + self.different).reshape(-1)
        read, factors = self._read(index), self.operation.factors(index, *self.sizes)
        row, tap = np.nonzero(read >= 0)
        places, place = np.unique(read[row, tap], return_inverse=True)
        factors = factors[row, tap]
        changes = self.random.normal(size=(FAULTS, places.size))
        faults = [np.bincount(row, factors * change[place], index.size) for change in changes]
        sums, made = (
            np.array([np.square(np.bincount(place, factors * off[row])).sum() for off in rows])
            for rows in (self._flipped(errors(index)), faults)
        )
        by_chance = np.square(faults) @ np.bincount(row, np.square(factors), index.size)
        return _are_larger(sums, np.array([made.sum(), by_chance.sum()]))

    def _read(self, index: Index) -> Index:
        read: Index = self.operation.feeding(index, *self.sizes)[0]
        return read.reshape(index.size, -1)

    def _flipped(self, errors: Wide) -> Wide:
        """The errors; and, in further rows, with other signs."""
        signs = self.random.choice([-1.0, 1.0], (1 + FLIPS, errors.size))
        signs[0] = 1
        return np.asarray(errors * signs)


def _are_larger(sums: Wide, likely: Wide) -> bool:
    """
    Whether a sum of squares is larger than the others, which chance made.

    `likely` is what faults leave, and what chance would make of errors of their size.
    """
    # Cube roots are nearly normal, however few squares they are sums of.
    first, *others = np.cbrt(sums)
    chance, deviation = float(np.mean(others)), float(np.std(others))
    share = (sums[0] / np.mean(sums[1:]) - 1) / (likely[0] / likely[1] - 1)
    return bool(first > chance + CHANCE * max(deviation, 1e-6 * chance) and share > SHARE)
