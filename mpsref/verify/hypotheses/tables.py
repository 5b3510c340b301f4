"""Functions that are read from a table with equally spaced nodes, or replaced by their limits far from 0."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from mpsref.arrays import Elements, Index, Mask, Wide, spread
from mpsref.storage import FLOAT64
from mpsref.verify.case import Case, Reads
from mpsref.verify.hypotheses.base import MANY, Candidate, hypothesis

FAR, FARTHER = 2.0**10, 2.0**40
"""Where a function has its limit, or grows like a straight line, if it does either; and where that is seen."""

FEW, MORE = 24, 256
"""Elements by which a table is chosen, and by which one of those that are the same for the first."""

ALIKE, MOST_ALIKE = 1e-3, 16
"""The difference of errors up to which tables are the same so far, and how many of them are tried."""

PROMISING, LEAST_FIT = 0.25, 0.5
"""The part of the errors that a table leaves unexplained, at most, to be tried; and of elements that limits explain."""

LEAST_NEAR, NEAR_ZERO = 0.7, (0.0, 0.25, 0.5, 1.0, 2.0)
"""How near its limit a function must be where that stands for it, relative to the largest distance at some inputs."""

ENDS = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 12.0, 16.0, 20.0, 32.0)
COUNTS = (10, 20, 40, 50, 80, 100, 200, 400, 500, 1000, *(2**k for k in range(3, 13)))
STEPS = (*(2.0**-k for k in range(1, 13)), *(k * 10.0**-e for e in (1, 2, 3) for k in (1, 2, 5)))


@dataclass(frozen=True)
class _Table:
    """Nodes from `low` to `high`, without an end where it has none; or many tables, which are the rows of arrays."""

    low: Any
    high: Any
    step: Any
    text: str = ""

    @property
    def first(self) -> Any:
        """The node from which the others are counted."""
        return np.where(np.isfinite(self.low), self.low, 0.0)

    def place(self, x: Wide) -> Wide:
        """How many steps from the first node an input is, between the ends."""
        return np.asarray((np.clip(x, self.low, self.high) - self.first) / self.step)

    def node(self, place: Wide) -> Wide:
        """The input at a node."""
        return np.asarray(place * self.step + self.first)

    def is_beyond(self, x: Wide) -> Mask:
        """Whether an input is beyond an end."""
        return np.asarray((x < self.low) | (x > self.high))


def _tables() -> Iterator[_Table]:
    """Those that people choose: the simplest first."""
    for step in STEPS:
        yield _Table(-math.inf, math.inf, step, f"nodes {step:g} apart")
    for low in (-1, 0):
        for end in ENDS:
            # As many nodes as that, or as many intervals.
            for count in sorted({n for most in COUNTS for n in (most, most - 1)}):
                step = (1 - low) * end / count
                if (low, end, count) == (0, 1.0, 255):
                    # Those are the codes of unorm8, which say more.
                    continue
                yield _Table(low * end, end, step, f"{count} intervals from {low * end:g} to {end:g}")


TABLES = tuple(_tables())
ALL = _Table(*np.array([[table.low, table.high, table.step] for table in TABLES]).T[:, :, np.newaxis])
WAYS = {"between nodes": (0.0, 1.0), "the nearest node": (0.5,), "the node below": (0.0,)}


def _nodes(x: Wide, table: _Table, way: str) -> list[tuple[Wide, Wide]]:
    """The nodes that serve for inputs, and their weights."""
    place = table.place(x)
    if way == "between nodes":
        # The last interval includes its end.
        last = (table.high - table.low) / table.step - 1
        low = np.minimum(np.floor(place), last)
        return [(table.node(low), 1 - (place - low)), (table.node(low + 1), place - low)]
    return [(table.node(np.rint(place) if way == "the nearest node" else np.floor(place)), np.ones(place.shape))]


def _with_x(reads: Reads, x: Wide) -> list[Elements]:
    return [*reads.elements[:-1], Elements(x, FLOAT64)]


def _with_input(reads: Reads, x: Wide) -> Wide:
    return reads.ideal(elements=_with_x(reads, x))


def _read_by(case: Case, step: int, index: Index) -> Reads:
    """What a step reads for some elements."""
    seen: list[Reads] = []

    def function(reads: Reads) -> Wide:
        seen.append(reads)
        return reads.ideal()

    case.values(index, {step: function})
    return seen[0]


def _limit(reads: Reads) -> Wide:
    """The straight line that the function approaches on either side; NaN if there is none."""
    x = reads.x
    sign = np.where(x < 0, -1.0, 1.0)
    there, beyond = (_with_input(reads, sign * far) for far in (FARTHER, 2 * FARTHER))
    slope = (beyond - there) / FARTHER
    line = _with_input(reads, sign * FAR) + slope * (np.abs(x) - FAR)
    return np.where(np.abs(beyond - there) <= 1e-9 * np.abs(there), there, line)


def _read_from(reads: Reads, table: _Table, way: str, outside: str) -> Wide:
    values = sum(weight * _with_input(reads, node) for node, weight in _nodes(reads.x, table, way))
    beyond = table.is_beyond(reads.x)
    if outside == "the last node" or not beyond.any():
        return np.asarray(values)
    return np.where(beyond, _limit(reads) if outside == "its limit" else reads.ideal(), values)


@hypothesis(
    "a look-up table",
    "The function is read from a table with equally spaced nodes: between two, or at one, so that it has steps.",
    MANY,
    fitted=True,
)
def look_up_table(case: Case) -> Iterator[Candidate]:
    last = len(case.steps) - 1
    index = case.bad_sample[spread(case.bad_sample.size, FEW)]
    if case.steps[last].operation.descriptor is None or index.size < MANY:
        return
    reads = _read_by(case, last, index)
    ideal = case.values(index)
    got = Elements(case.got.reshape(-1)[index], case.result).values()
    error = np.abs(got - ideal)
    known = np.isfinite(error) & np.isfinite(reads.x) & (error > 0)
    if np.count_nonzero(known) < MANY:
        return
    limit = _limit(reads)
    more = case.bad_sample[spread(case.bad_sample.size, MORE)]
    is_close, theirs = case.bound(more), case.got.reshape(-1)[more]
    outsides = {"the last node": None, "its limit": limit, "the function itself": ideal}
    beyond = ALL.is_beyond(reads.x)
    for way in WAYS:
        # All tables at once: the nodes of each, for each element.
        values = sum(weight * _at_all(reads, node) for node, weight in _nodes(reads.x, ALL, way))
        for outside, other in outsides.items():
            made = values if other is None else np.where(beyond, other, values)
            left = np.nan_to_num(np.minimum(np.abs(made - got) / error, 1.0), nan=1.0)[:, known].mean(axis=1)
            if left.min(initial=1.0) >= PROMISING:
                continue
            # Those that are the same so far, on more elements.
            same = np.flatnonzero(left <= left.min() + ALIKE)[:MOST_ALIKE]
            ways = [partial(_read_from, table=TABLES[k], way=way, outside=outside) for k in same.tolist()]
            missed = [float(np.mean(~is_close(case.stored(case.values(more, {last: f})), theirs))) for f in ways]
            best = int(same[int(np.argmin(missed))])
            if outside == "the function itself":
                # Elsewhere nothing is wrong: the first table that reaches as far as something is.
                rest = [k for k, share in zip(same.tolist(), missed, strict=True) if share <= min(missed)]
                best = min(rest, key=lambda k: TABLES[k].high)
            table = TABLES[best]
            detail = f"{way}, {table.text}" + f", outside {outside}" * math.isfinite(table.high)
            yield Candidate(detail, function=partial(_read_from, table=table, way=way, outside=outside), step=last)


def _at_all(reads: Reads, x: Wide) -> Wide:
    """What the step gives for several inputs of each element, which are the rows."""
    rows = len(x)
    elements = [Elements(np.tile(each.stored, rows), each.storage) for each in reads.elements[:-1]]
    many = Reads(reads.operation, [*elements, Elements(x.reshape(-1), FLOAT64)], np.tile(reads.index, rows),
                 reads.channels)  # fmt: skip
    return many.ideal().reshape(x.shape)


@hypothesis(
    "the limit instead of the function",
    "Far from 0 the function is replaced by the constant or the straight line that it approaches.",
    MANY,
    fitted=True,
)
def limit_instead(case: Case) -> Iterator[Candidate]:
    index = case.bad_sample
    for k, step in enumerate(case.steps):
        if step.operation.descriptor is None:
            continue
        reads, made = _read_by(case, k, index), case.values(index, {k: _limit})
        out = case.stored(made)
        fits = case.bound(index)(out, case.got.reshape(-1)[index])
        if fits.mean() < LEAST_FIT:
            continue
        # Far from 0 it is near the limit: nearer than elsewhere.
        side_of = np.where(reads.x < 0, -1.0, 1.0)
        inner = [replace(reads, elements=_with_x(reads, side_of * x)) for x in NEAR_ZERO]
        most = np.max([np.abs(each.ideal() - _limit(each)) for each in inner], axis=0)
        near = np.abs(case.values(index) - made) <= LEAST_NEAR * most
        ends = []
        for side in (1, -1):
            there = side * reads.x > 0
            first = np.argmin(np.where(there & fits, np.abs(reads.x), np.inf))
            is_limit = np.count_nonzero(there & fits) >= MANY and near[first]
            ends.append(float(np.abs(reads.x[first])) if is_limit else math.inf)
        for high, low in dict.fromkeys([(ends[0], ends[1]), (ends[0], math.inf), (math.inf, ends[1])]):
            if min(high, low) < math.inf:
                sides = [f"x >= {high:g}"] * (high < math.inf) + [f"x <= {-low:g}"] * (low < math.inf)
                where = f" in {step.name}" if len(case.steps) > 1 else ""
                yield Candidate("where " + " or ".join(sides) + where, function=partial(_beyond, high, -low), step=k)


def _beyond(high: float, low: float, reads: Reads) -> Wide:
    return np.where((reads.x >= high) | (reads.x <= low), _limit(reads), reads.ideal())
