"""Faults of precision: a rounding too many, or another one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from mpsref.arrays import Elements, Index, Mask, Stored
from mpsref.neuron.descriptor import MPSNNNeuronDescriptor
from mpsref.storage import FLOAT64
from mpsref.verify.case import Case
from mpsref.verify.hypotheses.base import HALF, PLACES, SINGLE, Candidate, erf, hypothesis, neuron_hypothesis

Halves: TypeAlias = npt.NDArray[np.float16]


@hypothesis("stored through half", "The result was rounded to half precision on its way to a wider format.")
def stored_through_half(case: Case) -> Iterator[Candidate]:
    if case.result is SINGLE or case.result.unorm_max:
        yield Candidate("", lambda i: case.stored(case.evaluate(i, result=HALF).astype(np.float64)))


@hypothesis("read through half", "A source was rounded to half precision before it was used.")
def read_through_half(case: Case) -> Iterator[Candidate]:
    def at(index: Index, chosen: Sequence[int]) -> Stored:
        read = [source.at(index) for source in case.sources]
        for k in chosen:
            half = HALF.encode(read[k].values(), np.empty(index.shape, np.float16))
            read[k] = Elements(half, HALF)
        return case.evaluate(index, sources=read)

    wide = [k for k, source in enumerate(case.sources) if source.storage is not HALF]
    for k in wide:
        yield Candidate(PLACES[k] if len(case.sources) > 1 else "", partial(at, chosen=[k]))
    if len(wide) > 1:
        yield Candidate("both sources", partial(at, chosen=wide))


@neuron_hypothesis("truncated instead of rounded", "The result is rounded towards 0, not to the nearest.")
def truncated(case: Case, p: MPSNNNeuronDescriptor) -> Iterator[Candidate]:
    def at(index: Index) -> Stored:
        want = case.want.reshape(-1)[index]
        exact, near = case.evaluate(index, result=FLOAT64), Elements(want, case.result).values()
        # What float64 cannot tell from the stored value is that value.
        above = np.abs(near) > np.abs(exact) * (1 + 2.0**-44)
        if case.result.unorm_max:
            return np.where(above, want - above.astype(want.dtype), want)
        return np.where(above, np.nextafter(want, want.dtype.type(0)), want)

    yield Candidate("", at)


@neuron_hypothesis("computed in half", "Every operation of the formula is rounded to half precision.")
def computed_in_half(case: Case, p: MPSNNNeuronDescriptor) -> Iterator[Candidate]:
    def at(index: Index) -> Stored:
        x = case.x(index).astype(np.float16)
        data = np.zeros(1, np.float16) if p.data is None else p.data[index % case.shape[3]].astype(np.float16)
        parameters = _HalfParameters(np.float16(p.a), np.float16(p.b), np.float16(p.c), data)
        # The rows' formulas are float32 by their annotations only.
        row: Any = p.row
        if not case.reads_gradient:
            y = row.stepwise_forward(x, parameters, _InHalf())
        else:
            slope = row.stepwise_derivative(x, parameters, _InHalf())
            y = np.asarray(slope, np.float16) * case.upstream(index).astype(np.float16)
        return case.stored(np.asarray(y, np.float64))

    yield Candidate("", at)


@dataclass(frozen=True)
class _HalfParameters:
    a: np.float16
    b: np.float16
    c: np.float16
    data: Halves


class _InHalf:
    """The `Arithmetic` of the rows, in half precision."""

    def fma(self, a: Any, b: Any, c: Any) -> Halves:
        return np.asarray(np.multiply(a, b) + c, np.float16)

    def square(self, x: Halves) -> Halves:
        return np.square(x)

    def exp(self, x: Halves) -> Halves:
        return np.exp(x.astype(np.float64)).astype(np.float16)

    def log(self, x: Any) -> Halves:
        return np.log(np.asarray(x, np.float64)).astype(np.float16)

    def tanh(self, x: Halves) -> Halves:
        return np.tanh(x.astype(np.float64)).astype(np.float16)

    def erf(self, x: Halves) -> Halves:
        return np.asarray(erf(x.astype(np.float64)), np.float16)

    def pow(self, base: Any, exponent: Any) -> Halves:
        return np.asarray(np.power(base, exponent, dtype=np.float64), np.float16)

    def min(self, x: Halves, y: float) -> Halves:
        return np.where(x < y, x, np.float16(y))

    def max(self, x: Halves, y: float) -> Halves:
        return np.where(x > y, x, np.float16(y))

    def where(self, condition: Mask, x: Any, y: Any) -> Halves:
        return np.where(condition, np.asarray(x, np.float16), np.asarray(y, np.float16))


@hypothesis(
    "the formula in float32",
    "The documented formula, each operation rounded to float32, is that far from its exact value.",
)
def stepwise(case: Case) -> Iterator[Candidate]:
    for mode in ("stepwise", "stepwise-fma"):
        yield Candidate(f"mode {mode}", partial(case.evaluate, mode=mode))
