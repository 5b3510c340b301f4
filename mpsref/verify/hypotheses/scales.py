"""Results and sources that were multiplied by a number, or to which a number was added."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from mpsref.arrays import Elements, Index, Stored, Wide, meaning
from mpsref.operations import Role
from mpsref.storage import FLOAT64
from mpsref.verify.case import Case, Reads
from mpsref.verify.hypotheses.base import MANY, Candidate, Values, decimals, hypothesis, joined, median, nth_source
from mpsref.verify.hypotheses.fitting import GRID, LEAST_FIT, NEGLIGIBLE, Family, Fit
from mpsref.verify.stored import with_neighbours

OUTLYING = 4.0
"""Times the median error, beyond which an element is not used."""

HUGE = 1e100
"""Relative sizes that no factor needs, and of which squares may overflow."""

NOISE = 2.0**-11
"""A relative error that is always small."""

SEVERAL, SUMS, HALF_WAY = 2.0, 32.0, 0.5 + 2.0**-12
"""
How many ULP the arithmetic may be off, and that of a layer in float32; and how many a value is rounded by, at most:
simple numbers make ties.
"""

SAME = 0.02
"""The difference up to which two counts of elements count as equal."""

SINGLE = 24
"""Bits of a float32's significand."""

ROUNDED = ", after it was rounded"


def _of_result(case: Case, factor: float, added: float, *, is_rounded: bool) -> Candidate:
    """Results multiplied and moved: before they are rounded to the format, or once more after."""

    def changed(values: Wide) -> Wide:
        return factor * values + added

    def store(case: Case, index: Index, values: Values) -> Stored:
        stored = meaning(case.stored(values(index)), case.result)
        if not (largest := case.result.unorm_max):
            return case.stored(changed(stored))
        # Simple numbers leave codes half way between two: it depends on the errors of float32.
        single = np.float32(factor) * stored.astype(np.float32) + np.float32(added)
        codes = np.rint(np.nan_to_num(np.clip(single, 0, 1)) * np.float32(largest))
        return np.asarray(codes.astype(case.result.dtype))

    def ends(case: Case, index: Index) -> tuple[Stored, Stored]:
        ideal = case.stored(case.exact(0, index))
        values = [meaning(each, case.result) for each in with_neighbours(ideal, case.result)]
        values += list(case.ends(index)) if case.ends else []
        low, high = np.fmin.reduce(values), np.fmax.reduce(values)
        return case.stored(changed(low)), case.stored(changed(high))

    # The result has its own error, whatever is done to it afterwards.
    own = ends if case.ends else None
    if is_rounded:
        return Candidate(store=store, ends=own)
    return Candidate(function=lambda reads: changed(reads.ideal()), step=len(case.steps) - 1, ends=own)


@dataclass(frozen=True)
class _Way:
    """Results that are changed before they are rounded to the format, or after."""

    fit: Fit
    is_rounded: bool

    @property
    def base(self) -> Wide:
        """What is multiplied."""
        case = self.fit.case
        return meaning(case.stored(self.fit.ideal), case.result) if self.is_rounded else self.fit.ideal

    @property
    def ends(self) -> tuple[Wide, Wide]:
        """Between what the device's values were before they were rounded, as far as its arithmetic is exact."""
        case, got = self.fit.case, self.fit.got
        largest = case.result.unorm_max
        apart = np.full(got.shape, 1 / largest) if largest else np.spacing(np.abs(got).astype(case.result.dtype))
        units = HALF_WAY if self.is_rounded else SEVERAL
        width = apart.astype(np.float64) * (SUMS if _sums_in_single(case) else units)
        # The first and the last code stand for all beyond them.
        is_first, is_last = (np.full(got.shape, bool(largest)) & (got == end) for end in (0, 1))
        return np.where(is_first, -np.inf, got - width), np.where(is_last, np.inf, got + width)

    def factor(self) -> tuple[float, int]:
        """What most elements were multiplied by, if nothing is added; and how many."""
        low, high = (end / self.base for end in self.ends)
        return _shared(np.fmin(low, high), np.fmax(low, high))

    def added(self, factor: float = 1.0) -> tuple[float, int]:
        """What was added to most elements, if they are multiplied by this; and to how many."""
        low, high = (end - factor * self.base for end in self.ends)
        return _shared(low, high)

    def slope(self) -> float:
        """How much larger most results become where what is multiplied does, whatever is added."""
        got, base = self.fit.got, self.base
        weights = self.fit.weights
        known = (np.abs(base * weights) < HUGE) & np.isfinite(self.ends).all(axis=0)
        slope = math.nan
        for _ in range(2):
            if np.count_nonzero(known) < MANY:
                return math.nan
            terms = np.stack([base, np.ones(base.shape)], axis=1) * weights[:, np.newaxis]
            (slope, added), *_ = np.linalg.lstsq(terms[known], (got * weights)[known], rcond=None)
            off = np.abs(terms @ (slope, added) - got * weights)
            known &= off <= OUTLYING * median(off[known]) + NOISE
        return float(slope)

    def found(self, factor: float, added: float, text: str) -> Iterator[Candidate]:
        """The candidate, if it is any good."""
        if np.isfinite([factor, added]).all() and (factor, added) != (1, 0):
            candidate = _of_result(self.fit.case, factor, added, is_rounded=self.is_rounded)
            if self.fit.share_of(candidate)[0] >= LEAST_FIT:
                numbers = (str(np.float32(value)) for value in (factor, added))
                yield candidate.named(joined(text.format(*numbers) + ROUNDED * self.is_rounded, self.fit.extent))


def _single(number: Any) -> float:
    """A number as devices have it, in float32."""
    return float(np.float32(number))


def _shared(low: Wide, high: Wide) -> tuple[float, int]:
    """The shortest number in about the most intervals, as far as one is in them all; and in how many."""
    known = ~(np.isnan(low) | np.isnan(high))
    ends, steps = np.concatenate([low[known], high[known]]), np.repeat([1, -1], np.count_nonzero(known))
    if ends.size < 2 * MANY:
        return math.nan, 0
    order = np.lexsort((-steps, ends))
    depth = np.cumsum(steps[order])
    at = int(np.argmax(depth))
    most = int(depth[at])
    # Around there the depth changes by errors of the arithmetic.
    few = np.flatnonzero(depth < (1 - SAME) * most)
    before, after = few[few < at].max(initial=-1), few[few > at].min(initial=depth.size - 1)
    first, last = ends[order][[before + 1, after]].tolist()
    middle = float(ends[order][at : at + 2].mean())
    return next((each for each in map(_single, decimals(middle)) if first <= each <= last), middle), most


def _ways(case: Case) -> Iterator[_Way]:
    """Both, if the elements out of bounds have many values."""
    fit = Fit(case)
    if fit.is_possible and np.unique(case.got.reshape(-1)[case.bad_sample]).size >= MANY:
        # Sums in float32 are off by more than a rounding, which then nobody can tell.
        yield from (_Way(fit, is_rounded) for is_rounded in ((False,) if _sums_in_single(case) else (False, True)))


def _sums_in_single(case: Case) -> bool:
    return bool(case.layers) and not case.result.unorm_max and case.result.precision >= SINGLE


@hypothesis(
    "accumulated twice", "The result was added to what was there already: to itself, or to what the node reads.", MANY
)
def accumulated(case: Case) -> Iterator[Candidate]:
    def function(reads: Reads, source: Elements) -> Wide:
        return reads.ideal() + source.at(reads.index).values()

    yield _of_result(case, 2.0, 0.0, is_rounded=False)
    yield _of_result(case, 2.0, 0.0, is_rounded=True)
    for k, source in enumerate(case.sources):
        on_top = partial(function, source=source)
        yield Candidate(f"on top of {nth_source(k)}", function=on_top, step=len(case.steps) - 1)


@hypothesis("a constant factor", "Every result is multiplied by a constant that belongs elsewhere or is missing.", MANY)
def factor(case: Case) -> Iterator[Candidate]:
    names: dict[str, float] = {"1/2": 0.5, "2": 2.0, "1/4": 0.25, "4": 4.0, "ln 2": math.log(2),
                               "1 / ln 2": 1 / math.log(2), "255": 255.0, "1/255": 1 / 255}  # fmt: skip
    p = case.descriptor
    for name, value in {} if p is None else p.parameters.items():
        names |= {name: value, f"{name}^2": value * value}
        if value:
            names |= {f"1/{name}": 1 / value}
        if name == "c" and value > 0 and value != 1:
            names |= {"ln c": math.log(value), "1 / ln c": 1 / math.log(value)}
    slopes = {} if p is None else p.parameters | ({"ln c": math.log(p.c)} if p.c > 0 else {})
    for name, value in slopes.items():
        if p is not None and p.a and value and name != "a":
            names |= {f"a {name}": p.a * value, f"1 / (a {name})": 1 / (p.a * value), f"{name} / a": value / p.a}
    n, h, w, c = case.shape
    for name, count in {"N": n, "H": h, "W": w, "C": c, "(H W)": h * w, "(N H W)": n * h * w, "(H W C)": h * w * c,
                        "the number of elements": n * h * w * c}.items():  # fmt: skip
        names |= {f"1/{name}": 1 / count, name: float(count)}
    # Not tried one by one: the ratio of what was got to what is wanted says which; or, if elements have moved as well,
    # roughly that of the medians.
    index = case.bad_sample
    got, want = (Elements(array, case.result).at(index).values() for array in (case.got, case.want))
    ratio = got / want
    ratio = ratio[np.isfinite(ratio) & (ratio != 0)]
    medians = float(np.divide(_median_size(case.got, case), _median_size(case.want, case)))
    middle = float(np.median(ratio)) if ratio.size else medians
    tolerance = 2.0 ** (4 - case.result.precision) if not case.result.unorm_max else 0.02

    for name, value in names.items():
        near = abs(middle / value - 1) < tolerance or abs(medians / abs(value) - 1) < 0.02 if value else False
        if near and value != 1:
            # The constant may be one of float32, or of the format of the results; or its reciprocal is, and divides.
            constants = value, _single(value), float(meaning(case.stored(np.array([value])), case.result)[0])
            for constant in dict.fromkeys(constants):
                for is_rounded in (False, True):
                    candidate = _of_result(case, constant, 0.0, is_rounded=is_rounded)
                    yield candidate.named(name + ROUNDED * is_rounded)


def _median_size(array: Stored, case: Case) -> float:
    sizes = np.abs(Elements(array.reshape(-1)[:131_072], case.result).values())
    return float(np.median(sizes[np.isfinite(sizes)])) if np.isfinite(sizes).any() else np.nan


@hypothesis(
    "multiplied by a number",
    "Every result has the same factor, such as a learning rate, or a scale of the loss that was not taken out.",
    MANY,
    fitted=True,
)
def scaled(case: Case) -> Iterator[Candidate]:
    for way in _ways(case):
        yield from way.found(way.factor()[0], 0.0, "by {}")


@hypothesis("a number added", "Every result has the same number added to it, such as an offset or an epsilon.", MANY,
            fitted=True)  # fmt: skip
def offset(case: Case) -> Iterator[Candidate]:
    for way in _ways(case):
        yield from way.found(1.0, way.added()[0], "{1}")


@hypothesis(
    "multiplied by a number, and another added",
    "Every result is scaled and moved, as by a normalization, or from -1 to 1 to the range from 0 to 1.",
    MANY,
    fitted=True,
)
def scaled_and_offset(case: Case) -> Iterator[Candidate]:
    for way in _ways(case):
        rough = way.slope()
        factors = list(dict.fromkeys(map(_single, decimals(rough))))
        tried = [(*way.added(factor), factor) for factor in factors] if np.isfinite(rough) else []
        most = max((count for _, count, _ in tried), default=0)
        # What changes one number only is the simpler cause.
        if most * (1 - SAME) > max(way.added()[1], way.factor()[1]):
            added, _, factor = next(each for each in tried if each[1] >= (1 - SAME) * most)
            if abs(factor - 1) > NEGLIGIBLE and abs(added) > NEGLIGIBLE * median(np.abs(way.fit.got)):
                yield from way.found(factor, added, "by {}, and {} added")


# ---- sources ----


def _of_source(k: int, factor: float, added: float) -> Candidate:
    def reads(read: Sequence[Elements], index: Index) -> Sequence[Elements]:
        return [*read[:k], Elements(factor * read[k].values() + added, FLOAT64), *read[k + 1 :]]

    return Candidate(reads=reads)


def _found(fit: Fit, family: Family, values: Sequence[float], text: str) -> Iterator[Candidate]:
    """The candidate with the shortest numbers that are as good as these, if they are any good."""
    if (best := fit.shares(family, values)[0]) >= LEAST_FIT:
        values = fit.shortest(family, values, best)
        if (candidate := family(values)) is not None:
            yield candidate.named(joined(text + str(np.float32(values[0])), fit.extent))


def _inputs(case: Case) -> Iterator[tuple[int, str]]:
    """The sources whose scale is not that of the result, with words for each if there are several."""
    if not case.layers:
        for k, role in enumerate(case.operation.roles if len(case.steps) == 1 else ()):
            if role is not Role.GRADIENT:
                yield k, f"{nth_source(k)} " if len(case.sources) > 1 else ""


@hypothesis("the source scaled", "The source is multiplied by a constant before it is used, as bytes are by 255.", MANY)
def source_scaled(case: Case) -> Iterator[Candidate]:
    if case.descriptor is not None and not case.layers:
        for name, value in {"-1": -1.0, "2": 2.0, "1/2": 0.5, "255": 255.0, "1/255": 1 / 255}.items():
            yield _of_source(len(case.sources) - 1, value, 0.0).named(f"by {name}")


@hypothesis("a source multiplied by a number", "A source is multiplied by a number before it is used.", MANY,
            fitted=True)  # fmt: skip
def source_multiplied(case: Case) -> Iterator[Candidate]:
    fit = Fit(case)
    for k, text in _inputs(case) if fit.is_possible else ():
        family: Family = lambda values, k=k: _of_source(k, _single(values[0]), 0.0)  # type: ignore[misc]  # noqa: E731
        value = fit.value(family)
        # To an even function both signs are the same.
        value = max(abs(value), value, key=lambda each: fit.shares(family, [each]))
        yield from _found(fit, family, [value], text + "by ")


@hypothesis("a number added to a source", "A number is added to a source before it is used.", MANY, fitted=True)
def source_offset(case: Case) -> Iterator[Candidate]:
    fit = Fit(case)
    for k, text in _inputs(case) if fit.is_possible and case.descriptor is not None else ():
        family: Family = lambda values, k=k: _of_source(k, 1.0, _single(values[0]))  # type: ignore[misc]  # noqa: E731
        starts = [(value,) for value in (0.0, *GRID.tolist())]
        yield from _found(fit, family, fit.together(family, starts), text)
