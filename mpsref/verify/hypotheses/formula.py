"""Faults of what is computed: another formula, slope or neuron, or one that is applied twice or not at all."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from mpsref.arrays import Elements, Index, Stored, Wide
from mpsref.enums import MPSCNNNeuronType
from mpsref.neuron.descriptor import MPSNNNeuronDescriptor
from mpsref.neuron.table import NEURONS
from mpsref.operations import NeuronForward
from mpsref.storage import FLOAT64, StorageFormat
from mpsref.verify.case import Case
from mpsref.verify.hypotheses.base import PLACES, SINGLE, Candidate, Hypothesis, T, erf, replaced, with_operation

__all__ = [
    "Accumulated",
    "AnotherNeuron",
    "AppliedTwice",
    "DerivativeAtOutput",
    "ELUWithoutParentheses",
    "FastTanh",
    "GeLUDoubled",
    "GeLUTanhForm",
    "HardSigmoidTestsX",
    "LiteralC",
    "NotApplied",
    "ReLUNSlopeB",
    "SignFlipped",
    "SlopeFromResult",
    "UpstreamMissing",
    "UpstreamTwice",
    "WrongDirection",
]


def _gradient_with(case: Case, slope: Callable[[Wide, MPSNNNeuronDescriptor], Wide]) -> Iterator[Candidate]:
    """The gradient with another slope, in float64."""
    p = case.descriptor
    if p is not None and case.reads_gradient:
        yield Candidate("", lambda index: case.stored(case.upstream(index) * slope(case.x(index), p)))


class FastTanh(Hypothesis):
    name = "fast tanh"
    sentence = "tanh is computed as (t - 1) / (t + 1) with t = e^2x, which fails where t overflows."

    @staticmethod
    def candidates(case: Case) -> Iterator[Candidate]:
        p = case.descriptor
        if p is None or p.neuron_type not in (T.tanH, T.geLU):
            return

        def at(index: Index, flushed: bool) -> Stored:
            x = case.x(index).astype(np.float32)
            z = np.float32(p.b) * x if p.neuron_type is T.tanH else _gelu_argument(x).astype(np.float32)
            t = np.exp((z + z).astype(np.float64)).astype(np.float32)
            tanh = (t - np.float32(1)) / (t + np.float32(1))
            if flushed:
                tanh[(t > 2.0**126) & np.isfinite(t)] = 0
            if p.neuron_type is T.tanH:
                slope = np.float32(p.a) * np.float32(p.b) * (1 - tanh * tanh)
                y = np.float32(p.a) * tanh
            else:
                slope = _gelu_tanh_slope(x, tanh)
                y = np.float32(0.5) * x * (1 + tanh)
            if case.reads_gradient:
                y = slope * case.upstream(index).astype(np.float32)
            return case.stored(y.astype(np.float64))

        yield Candidate("", partial(at, flushed=False))
        yield Candidate("and its quotient is 0 where the denominator is above 2^126", partial(at, flushed=True))


class LiteralC(Hypothesis):
    name = "c = -1 taken literally"
    sentence = "c = -1 means base e, but is taken for the base -1."

    @staticmethod
    def candidates(case: Case) -> Iterator[Candidate]:
        p = case.descriptor
        if p is None or p.c != -1 or p.neuron_type not in (T.exponential, T.logarithm):
            return

        def at(index: Index) -> Stored:
            u = case.x(index) * p.a + p.b
            if p.neuron_type is T.logarithm or case.reads_gradient:
                return case.stored(np.full_like(u, np.nan))
            return case.stored(np.power(-1.0, u))

        yield Candidate("", at)


class HardSigmoidTestsX(Hypothesis):
    name = "hardSigmoid's gradient tests x"
    sentence = "The slope is a where 0 <= x <= 1, as older headers print it, instead of where 0 <= a x + b <= 1."

    @staticmethod
    def candidates(case: Case) -> Iterator[Candidate]:
        if case.descriptor is not None and case.descriptor.neuron_type is T.hardSigmoid:
            yield from _gradient_with(case, lambda x, p: np.where((x >= 0) & (x <= 1), p.a, 0.0))


class ReLUNSlopeB(Hypothesis):
    name = "reLUN's slope is b"
    sentence = "The slope is b where x >= b, as the header prints it, instead of 0."

    @staticmethod
    def candidates(case: Case) -> Iterator[Candidate]:
        if case.descriptor is not None and case.descriptor.neuron_type is T.reLUN:
            yield from _gradient_with(case, lambda x, p: np.where(x >= p.b, p.b, np.where(x >= 0, 1.0, p.a)))


class GeLUDoubled(Hypothesis):
    name = "geLU's second gradient term doubled"
    sentence = "The term x e^(-x^2 / 2) / sqrt(2 pi) of the slope counts twice, as the header prints it."

    @staticmethod
    def candidates(case: Case) -> Iterator[Candidate]:
        if case.descriptor is not None and case.descriptor.neuron_type is T.geLU:
            yield from _gradient_with(
                case,
                lambda x, _: 0.5 * (1 + erf(x * math.sqrt(0.5))) + math.sqrt(2 / math.pi) * x * np.exp(-x * x / 2),
            )


class ELUWithoutParentheses(Hypothesis):
    name = "ELU without parentheses"
    sentence = "Below 0 the value is a e^x - 1, as a header prints it, instead of a (e^x - 1)."

    @staticmethod
    def candidates(case: Case) -> Iterator[Candidate]:
        p = case.descriptor
        if p is not None and p.neuron_type is T.ELU and not case.reads_gradient:
            yield Candidate("", lambda i: replaced(case, i, case.x(i) < 0, case.stored(p.a * np.exp(case.x(i)) - 1)))


class GeLUTanhForm(Hypothesis):
    name = "an approximation of geLU"
    sentence = "geLU is computed by an approximation with tanh or sigmoid instead of the error function."

    @staticmethod
    def candidates(case: Case) -> Iterator[Candidate]:
        if case.descriptor is None or case.descriptor.neuron_type is not T.geLU:
            return

        def with_tanh(index: Index) -> Stored:
            x = case.x(index)
            t = np.tanh(_gelu_argument(x))
            if not case.reads_gradient:
                return case.stored(0.5 * x * (1 + t))
            return case.stored(case.upstream(index) * _gelu_tanh_slope(x, t))

        def with_sigmoid(index: Index) -> Stored:
            x = case.x(index)
            s = 1 / (1 + np.exp(-1.702 * x))
            if not case.reads_gradient:
                return case.stored(x * s)
            return case.stored(case.upstream(index) * (s + 1.702 * x * s * (1 - s)))

        yield Candidate("x/2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))", with_tanh)
        yield Candidate("x sigmoid(1.702 x)", with_sigmoid)


def _gelu_argument(x: Stored) -> Stored:
    argument: Stored = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
    return argument


def _gelu_tanh_slope(x: Stored, t: Stored) -> Stored:
    """The derivative of ``x/2 (1 + t)``, with t the tanh of that argument."""
    slope: Stored = 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x * x)
    return slope


class UpstreamMissing(Hypothesis):
    name = "the incoming gradient is missing"
    sentence = "The result is the slope alone, not multiplied by the incoming gradient."

    @staticmethod
    def candidates(case: Case) -> Iterator[Candidate]:
        if case.reads_gradient:
            yield Candidate(
                "", lambda i: case.evaluate(i, sources=[_constant_like(i, 1.0), *(s.at(i) for s in case.sources[1:])])
            )


class UpstreamTwice(Hypothesis):
    name = "the incoming gradient applied twice"
    sentence = "The slope is multiplied by the square of the incoming gradient."

    @staticmethod
    def candidates(case: Case) -> Iterator[Candidate]:
        def at(index: Index) -> Stored:
            squared = Elements(case.upstream(index) ** 2, FLOAT64)
            return case.evaluate(index, sources=[squared, *(s.at(index) for s in case.sources[1:])])

        if case.reads_gradient:
            yield Candidate("", at)


def _constant_like(index: Index, value: float, storage: StorageFormat = SINGLE) -> Elements:
    return Elements(np.full(index.shape, value, storage.dtype), storage)


class NotApplied(Hypothesis):
    name = "the node was left out"
    sentence = "What the node reads is passed on as it is."

    @staticmethod
    def candidates(case: Case) -> Iterator[Candidate]:
        read = case.operation.values_of(list(zip(case.sources, PLACES, strict=False)))
        # A factor alone that is left out is a parameter that is.
        if case.descriptor is None and len(read) == 1:
            return
        for source, place in read:
            yield Candidate(f"from {place}" if len(case.sources) > 1 else "", partial(_stored_anew, case, source))


def _stored_anew(case: Case, source: Elements, index: Index) -> Stored:
    return case.stored(source.at(index).values())


class WrongDirection(Hypothesis):
    name = "forward instead of gradient"
    sentence = "The image holds the neuron's values, not the gradient."

    @staticmethod
    def candidates(case: Case) -> Iterator[Candidate]:
        if case.descriptor is not None and case.reads_gradient:
            forward = NeuronForward(case.descriptor)
            yield Candidate("", lambda i: case.evaluate(i, forward))
            yield Candidate(
                "multiplied by the incoming gradient",
                lambda i: case.stored(case.evaluate(i, forward, result=FLOAT64) * case.upstream(i)),
            )


class DerivativeAtOutput(Hypothesis):
    name = "the derivative taken at the output"
    sentence = "The slope is that at the neuron's result instead of that at its source."

    @staticmethod
    def candidates(case: Case) -> Iterator[Candidate]:
        p, stored_as = case.descriptor, case.sources[-1].storage
        if p is None or not case.reads_gradient:
            return

        def at(index: Index) -> Stored:
            y = case.evaluate(index, NeuronForward(p), result=stored_as)
            return case.evaluate(index, sources=[case.sources[0].at(index), Elements(y, stored_as)])

        yield Candidate("", at)


class SlopeFromResult(Hypothesis):
    name = "the slope from the stored result"
    sentence = (
        "The slope is computed from the neuron's result, which was rounded to a narrow format when it was stored."
    )

    @staticmethod
    def candidates(case: Case) -> Iterator[Candidate]:
        p, stored_as = case.descriptor, case.sources[-1].storage
        # In float32 the formula itself is no better.
        if p is None or not case.reads_gradient or stored_as is SINGLE:
            return
        slopes: dict[MPSCNNNeuronType, Callable[[Wide, Wide], Wide]] = {
            T.sigmoid: lambda _, y: y * (1 - y),
            T.tanH: lambda _, y: p.b * (p.a - y * y / p.a) if p.a else y * 0,
            T.ELU: lambda x, y: np.where(x >= 0, 1, y + p.a),
        }
        slope = slopes.get(p.neuron_type)
        if slope is None:
            return

        def at(index: Index) -> Stored:
            y = Elements(case.evaluate(index, NeuronForward(p), result=stored_as), stored_as).values()
            return case.stored(case.upstream(index) * slope(case.x(index), y))

        yield Candidate("", at)


class AppliedTwice(Hypothesis):
    name = "applied twice"
    sentence = "The node was run again on its own result."

    @staticmethod
    def candidates(case: Case) -> Iterator[Candidate]:
        def at(index: Index) -> Stored:
            read = [source.at(index) for source in case.sources]
            once = Elements(case.want.reshape(-1)[index], case.result)
            return case.evaluate(index, sources=[once, *read[1:]])

        yield Candidate("", at)


class Accumulated(Hypothesis):
    name = "accumulated twice"
    sentence = "The result was added to what was there already: to itself, or to what the node reads."

    @staticmethod
    def candidates(case: Case) -> Iterator[Candidate]:
        want = Elements(case.want, case.result)

        def at(index: Index, other: Elements) -> Stored:
            return case.stored(want.at(index).values() + other.at(index).values())

        yield Candidate("", partial(at, other=want))
        for source, place in zip(case.sources, PLACES, strict=False):
            yield Candidate(f"on top of {place}", partial(at, other=source))


class SignFlipped(Hypothesis):
    name = "the sign flipped"
    sentence = "Every element has the wrong sign."

    @staticmethod
    def candidates(case: Case) -> Iterator[Candidate]:
        if not case.result.unorm_max:
            yield Candidate("", lambda i: -case.want.reshape(-1)[i])


class AnotherNeuron(Hypothesis):
    name = "another neuron"
    sentence = "Another neuron type was run, with the same parameters or with its defaults."

    @staticmethod
    def candidates(case: Case) -> Iterator[Candidate]:
        p = case.descriptor
        if p is None:
            return
        for neuron_type, row in NEURONS.items():
            if neuron_type is p.neuron_type or row.per_channel:
                continue
            same = {name: p.parameters.get(name, default) for name, default in row.parameters.items()}
            for given in (same,) if same == dict(row.parameters) else (same, dict(row.parameters)):
                text = ", ".join(f"{name} = {np.float32(value)!s}" for name, value in given.items())
                other = MPSNNNeuronDescriptor(neuron_type, **given)
                yield with_operation(
                    case, case.with_descriptor(other), f"{neuron_type.name}{' with ' * bool(text)}{text}"
                )
