"""Faults at special values: NaN, infinity, subnormals, kinks."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from mpsref.arrays import Elements, Index, Stored
from mpsref.verify.case import Case
from mpsref.verify.hypotheses.base import Candidate, Hypothesis, is_nan, replaced

__all__ = ["NaNCompared", "NaNToZero", "Overflow", "SlopeAtKink", "SubnormalsFlushed"]


class NaNToZero(Hypothesis):
    name = "NaN turned to 0"
    sentence = "Where NaN belongs there is 0, as a texture or a fast min and max may leave it."

    @staticmethod
    def candidates(case: Case) -> Iterator[Candidate]:
        if not case.result.unorm_max:
            yield Candidate("", lambda i: replaced(case, i, np.isnan(case.want.reshape(-1)[i]), 0))


class NaNCompared(Hypothesis):
    name = "NaN lost in a comparison"
    sentence = "A comparison with NaN is false, so the formula takes its other branch, or a clamp its bound."

    @staticmethod
    def candidates(case: Case) -> Iterator[Candidate]:
        if case.descriptor is not None:
            yield Candidate("", lambda i: replaced(case, i, is_nan(case, i), case.evaluate(i, mode="stepwise")))


class SlopeAtKink(Hypothesis):
    name = "another slope at the kink"
    sentence = "At the kink itself the slope is that of the other side, or 0."

    @staticmethod
    def candidates(case: Case) -> Iterator[Candidate]:
        p = case.descriptor
        if p is None or not case.reads_gradient or not p.row.kinks(p):
            return
        slopes = {"slope 0": 0.0, "slope 1": 1.0, "slope -1": -1.0, "slope a": p.a}

        def at(index: Index, slope: float | None) -> Stored:
            x = case.x(index)
            there = np.isin(x.astype(np.float32), np.asarray(p.row.kinks(p), np.float32))
            factor = p.data[index % case.shape[3]] if slope is None and p.data is not None else slope
            return replaced(case, index, there, case.stored(case.upstream(index) * np.asarray(factor, np.float64)))

        for detail, slope in slopes.items():
            yield Candidate(detail, partial(at, slope=slope))
        if p.data is not None:
            yield Candidate("slope data[channel]", partial(at, slope=None))


class Overflow(Hypothesis):
    name = "the literal formula overflows"
    sentence = "In float32 a power or exponential within the formula overflows, and leaves infinity or NaN."

    @staticmethod
    def candidates(case: Case) -> Iterator[Candidate]:
        if case.descriptor is None or case.result.unorm_max:
            return

        def at(index: Index) -> Stored:
            literal = case.evaluate(index, mode="stepwise")
            return replaced(case, index, ~np.isfinite(literal) & ~is_nan(case, index), literal)

        yield Candidate("", at)


class SubnormalsFlushed(Hypothesis):
    name = "subnormals flushed"
    sentence = "Subnormal numbers are taken for 0, where they are read or where they are stored."

    @staticmethod
    def candidates(case: Case) -> Iterator[Candidate]:
        if case.result.unorm_max:
            return

        def flushed(source: Elements, least: float) -> Elements:
            tiny = np.abs(source.stored) < source.storage.dtype.type(least)
            zero = np.copysign(source.storage.dtype.type(0), source.stored)
            return Elements(np.where(tiny, zero, source.stored), source.storage)

        def at(index: Index, reads: bool, stores: bool) -> Stored:
            sources = [source.at(index) for source in case.sources]
            if reads:
                sources = [s if s.storage.unorm_max else flushed(s, np.finfo(s.storage.dtype).tiny) for s in sources]
            stored = case.evaluate(index, sources=sources)
            if stores:
                stored = flushed(Elements(stored, case.result), np.finfo(case.result.dtype).tiny).stored
            return stored

        yield Candidate("in the result", partial(at, reads=False, stores=True))
        yield Candidate("in the sources", partial(at, reads=True, stores=False))
        yield Candidate("in the sources and the result", partial(at, reads=True, stores=True))
