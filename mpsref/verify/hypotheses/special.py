"""Faults at special values: NaN, infinity, subnormals, kinks."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from mpsref.arrays import Elements, Index, Stored
from mpsref.neuron.descriptor import MPSNNNeuronDescriptor
from mpsref.verify.case import Case
from mpsref.verify.hypotheses.base import Candidate, hypothesis, is_nan, neuron_hypothesis, replaced


@hypothesis("NaN turned to 0", "Where NaN belongs there is 0, as a texture or a fast min and max may leave it.")
def nan_to_zero(case: Case) -> Iterator[Candidate]:
    if not case.result.unorm_max:
        yield Candidate("", lambda i: replaced(case, i, np.isnan(case.want.reshape(-1)[i]), 0))


@neuron_hypothesis(
    "NaN lost in a comparison",
    "A comparison with NaN is false, so the formula takes its other branch, or a clamp its bound.",
)
def nan_compared(case: Case, p: MPSNNNeuronDescriptor) -> Iterator[Candidate]:
    yield Candidate("", lambda i: replaced(case, i, is_nan(case, i), case.evaluate(i, mode="stepwise")))


@neuron_hypothesis("another slope at the kink", "At the kink itself the slope is that of the other side, or 0.")
def slope_at_kink(case: Case, p: MPSNNNeuronDescriptor) -> Iterator[Candidate]:
    kinks = p.row.kinks(p)
    if not case.reads_gradient or not kinks:
        return

    def at(index: Index, slope: float | None) -> Stored:
        is_kink = np.isin(case.x(index).astype(np.float32), np.asarray(kinks, np.float32))
        factor = p.data[index % case.shape[3]] if slope is None and p.data is not None else slope
        return replaced(case, index, is_kink, case.stored(case.upstream(index) * np.asarray(factor, np.float64)))

    for detail, slope in {"slope 0": 0.0, "slope 1": 1.0, "slope -1": -1.0, "slope a": p.a}.items():
        yield Candidate(detail, partial(at, slope=slope))
    if p.data is not None:
        yield Candidate("slope data[channel]", partial(at, slope=None))


@neuron_hypothesis(
    "the literal formula overflows",
    "In float32 a power or exponential within the formula overflows, and leaves infinity or NaN.",
)
def overflow(case: Case, p: MPSNNNeuronDescriptor) -> Iterator[Candidate]:
    def at(index: Index) -> Stored:
        literal = case.evaluate(index, mode="stepwise")
        return replaced(case, index, ~np.isfinite(literal) & ~is_nan(case, index), literal)

    if not case.result.unorm_max:
        yield Candidate("", at)


@hypothesis("subnormals flushed", "Subnormal numbers are taken for 0, where they are read or where they are stored.")
def subnormals_flushed(case: Case) -> Iterator[Candidate]:
    if case.result.unorm_max:
        return

    def flushed(source: Elements) -> Elements:
        if source.storage.unorm_max:
            return source
        is_subnormal = np.abs(source.stored) < np.finfo(source.storage.dtype).tiny
        zero = np.copysign(source.storage.dtype.type(0), source.stored)
        return Elements(np.where(is_subnormal, zero, source.stored), source.storage)

    def at(index: Index, reads: bool, stores: bool) -> Stored:
        sources = [source.at(index) for source in case.sources]
        stored = case.evaluate(index, sources=[flushed(source) for source in sources] if reads else sources)
        return flushed(Elements(stored, case.result)).stored if stores else stored

    yield Candidate("in the result", partial(at, reads=False, stores=True))
    yield Candidate("in the sources", partial(at, reads=True, stores=False))
    yield Candidate("in the sources and the result", partial(at, reads=True, stores=True))
