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
from mpsref.storage import FLOAT64
from mpsref.verify.case import Case
from mpsref.verify.hypotheses.base import (
    PLACES,
    Candidate,
    T,
    erf,
    hypothesis,
    neuron_hypothesis,
    replaced,
    with_operation,
)


def _gradient_with(case: Case, slope: Callable[[Wide], Wide]) -> Iterator[Candidate]:
    """The gradient with another slope, in float64."""
    if case.reads_gradient:
        yield Candidate("", lambda index: case.stored(case.upstream(index) * slope(case.x(index))))


@neuron_hypothesis(
    "fast tanh", "tanh is computed as (t - 1) / (t + 1) with t = e^2x, which fails where t overflows.", T.tanH, T.geLU
)
def fast_tanh(case: Case, p: MPSNNNeuronDescriptor) -> Iterator[Candidate]:
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


@neuron_hypothesis(
    "c = -1 taken literally", "c = -1 means base e, but is taken for the base -1.", T.exponential, T.logarithm
)
def literal_c(case: Case, p: MPSNNNeuronDescriptor) -> Iterator[Candidate]:
    def at(index: Index) -> Stored:
        u = case.x(index) * p.a + p.b
        if p.neuron_type is T.logarithm or case.reads_gradient:
            return case.stored(np.full_like(u, np.nan))
        return case.stored(np.power(-1.0, u))

    if p.c == -1:
        yield Candidate("", at)


@neuron_hypothesis(
    "hardSigmoid's gradient tests x",
    "The slope is a where 0 <= x <= 1, as older headers print it, instead of where 0 <= a x + b <= 1.",
    T.hardSigmoid,
)
def hard_sigmoid_tests_x(case: Case, p: MPSNNNeuronDescriptor) -> Iterator[Candidate]:
    return _gradient_with(case, lambda x: np.where((x >= 0) & (x <= 1), p.a, 0.0))


@neuron_hypothesis("reLUN's slope is b", "The slope is b where x >= b, as the header prints it, instead of 0.", T.reLUN)
def relun_slope_b(case: Case, p: MPSNNNeuronDescriptor) -> Iterator[Candidate]:
    return _gradient_with(case, lambda x: np.where(x >= p.b, p.b, np.where(x >= 0, 1.0, p.a)))


@neuron_hypothesis(
    "geLU's second gradient term doubled",
    "The term x e^(-x^2 / 2) / sqrt(2 pi) of the slope counts twice, as the header prints it.",
    T.geLU,
)
def gelu_doubled(case: Case, p: MPSNNNeuronDescriptor) -> Iterator[Candidate]:
    return _gradient_with(
        case, lambda x: 0.5 * (1 + erf(x * math.sqrt(0.5))) + math.sqrt(2 / math.pi) * x * np.exp(-x * x / 2)
    )


@neuron_hypothesis(
    "ELU without parentheses", "Below 0 the value is a e^x - 1, as a header prints it, instead of a (e^x - 1).", T.ELU
)
def elu_without_parentheses(case: Case, p: MPSNNNeuronDescriptor) -> Iterator[Candidate]:
    if not case.reads_gradient:
        yield Candidate("", lambda i: replaced(case, i, case.x(i) < 0, case.stored(p.a * np.exp(case.x(i)) - 1)))


@neuron_hypothesis(
    "an approximation of geLU",
    "geLU is computed by an approximation with tanh or sigmoid instead of the error function.",
    T.geLU,
)
def gelu_approximated(case: Case, p: MPSNNNeuronDescriptor) -> Iterator[Candidate]:
    def result(index: Index, y: Wide, slope: Wide) -> Stored:
        return case.stored(case.upstream(index) * slope if case.reads_gradient else y)

    def with_tanh(index: Index) -> Stored:
        x = case.x(index)
        t = np.tanh(_gelu_argument(x))
        return result(index, 0.5 * x * (1 + t), _gelu_tanh_slope(x, t))

    def with_sigmoid(index: Index) -> Stored:
        x = case.x(index)
        s = 1 / (1 + np.exp(-1.702 * x))
        return result(index, x * s, s + 1.702 * x * s * (1 - s))

    yield Candidate("x/2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))", with_tanh)
    yield Candidate("x sigmoid(1.702 x)", with_sigmoid)


def _gelu_argument(x: Stored) -> Stored:
    argument: Stored = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
    return argument


def _gelu_tanh_slope(x: Stored, t: Stored) -> Stored:
    """The derivative of ``x/2 (1 + t)``, with t the tanh of that argument."""
    slope: Stored = 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x * x)
    return slope


@hypothesis(
    "the incoming gradient is missing", "The result is the slope alone, not multiplied by the incoming gradient."
)
def gradient_missing(case: Case) -> Iterator[Candidate]:
    yield from _with_gradient(case, lambda upstream: np.ones(upstream.shape))


@hypothesis("the incoming gradient applied twice", "The slope is multiplied by the square of the incoming gradient.")
def gradient_twice(case: Case) -> Iterator[Candidate]:
    yield from _with_gradient(case, np.square)


def _with_gradient(case: Case, change: Callable[[Wide], Wide]) -> Iterator[Candidate]:
    """The gradient for another incoming gradient."""

    def at(index: Index) -> Stored:
        changed = Elements(change(case.upstream(index)), FLOAT64)
        return case.evaluate(index, sources=[changed, *(s.at(index) for s in case.sources[1:])])

    if case.reads_gradient:
        yield Candidate("", at)


@hypothesis("the node was left out", "What the node reads is passed on as it is.")
def not_applied(case: Case) -> Iterator[Candidate]:
    read = case.operation.values_of(list(zip(case.sources, PLACES, strict=False)))
    # A factor alone that is left out is a parameter that is.
    if case.descriptor is None and len(read) == 1:
        return

    def copied(index: Index, source: Elements) -> Stored:
        return case.stored(source.at(index).values())

    for source, place in read:
        yield Candidate(f"from {place}" if len(case.sources) > 1 else "", partial(copied, source=source))


@neuron_hypothesis("forward instead of gradient", "The image holds the neuron's values, not the gradient.")
def wrong_direction(case: Case, p: MPSNNNeuronDescriptor) -> Iterator[Candidate]:
    if case.reads_gradient:
        forward = NeuronForward(p)
        yield Candidate("", lambda i: case.evaluate(i, forward))
        yield Candidate(
            "multiplied by the incoming gradient",
            lambda i: case.stored(case.evaluate(i, forward, result=FLOAT64) * case.upstream(i)),
        )


@neuron_hypothesis(
    "the derivative taken at the output", "The slope is that at the neuron's result instead of that at its source."
)
def derivative_at_output(case: Case, p: MPSNNNeuronDescriptor) -> Iterator[Candidate]:
    def at(index: Index) -> Stored:
        return case.evaluate(index, sources=[case.sources[0].at(index), _output(case, p, index)])

    if case.reads_gradient:
        yield Candidate("", at)


def _output(case: Case, p: MPSNNNeuronDescriptor, index: Index) -> Elements:
    """The neuron's forward result, stored as its input is."""
    storage = case.sources[-1].storage
    return Elements(case.evaluate(index, NeuronForward(p), result=storage), storage)


@neuron_hypothesis(
    "the slope from the stored result",
    "The slope is computed from the neuron's result, which was rounded when it was stored.",
    T.sigmoid,
    T.tanH,
    T.softSign,
    T.ELU,
)
def slope_from_result(case: Case, p: MPSNNNeuronDescriptor) -> Iterator[Candidate]:
    slopes: dict[MPSCNNNeuronType, Callable[[Wide, Wide], Wide]] = {
        T.sigmoid: lambda _, y: y * (1 - y),
        T.tanH: lambda _, y: p.b * (p.a - y * y / p.a) if p.a else y * 0,
        T.softSign: lambda _, y: (1 - np.abs(y)) ** 2,
        T.ELU: lambda x, y: np.where(x >= 0, 1, y + p.a),
    }

    def at(index: Index) -> Stored:
        slope = slopes[p.neuron_type](case.x(index), _output(case, p, index).values())
        return case.stored(case.upstream(index) * slope)

    if case.reads_gradient:
        yield Candidate("", at)


@hypothesis("applied twice", "The node was run again on its own result.")
def applied_twice(case: Case) -> Iterator[Candidate]:
    def at(index: Index) -> Stored:
        read = [source.at(index) for source in case.sources]
        once = Elements(case.want.reshape(-1)[index], case.result)
        return case.evaluate(index, sources=[once, *read[1:]])

    yield Candidate("", at)


@hypothesis(
    "accumulated twice", "The result was added to what was there already: to itself, or to what the node reads."
)
def accumulated(case: Case) -> Iterator[Candidate]:
    want = Elements(case.want, case.result)

    def at(index: Index, other: Elements) -> Stored:
        return case.stored(want.at(index).values() + other.at(index).values())

    yield Candidate("", partial(at, other=want))
    for source, place in zip(case.sources, PLACES, strict=False):
        yield Candidate(f"on top of {place}", partial(at, other=source))


@hypothesis("the sign flipped", "Every element has the wrong sign.")
def sign_flipped(case: Case) -> Iterator[Candidate]:
    if not case.result.unorm_max:
        yield Candidate("", lambda i: -case.want.reshape(-1)[i])


@neuron_hypothesis("another neuron", "Another neuron type was run, with the same parameters or with its defaults.")
def another_neuron(case: Case, p: MPSNNNeuronDescriptor) -> Iterator[Candidate]:
    for neuron_type, row in NEURONS.items():
        if neuron_type is p.neuron_type or row.per_channel:
            continue
        same = {name: p.parameters.get(name, default) for name, default in row.parameters.items()}
        for parameters in (same,) if same == dict(row.parameters) else (same, dict(row.parameters)):
            text = ", ".join(f"{name} = {np.float32(value)!s}" for name, value in parameters.items())
            other = case.with_descriptor(MPSNNNeuronDescriptor(neuron_type, **parameters))
            yield with_operation(case, other, f"{neuron_type.name}{' with ' * bool(text)}{text}")
