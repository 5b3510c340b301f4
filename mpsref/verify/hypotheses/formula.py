"""Functions: another formula, slope or neuron, one that is applied twice or not at all, or a factor."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from mpsref.arrays import Elements, Index, Wide
from mpsref.neuron.activations import ACTIVATIONS
from mpsref.neuron.descriptor import MPSNNNeuronDescriptor, neuron_of
from mpsref.neuron.table import NEURONS
from mpsref.operations import NeuronForward
from mpsref.storage import FLOAT64
from mpsref.verify.case import Case, Function, Reads, Step, encoded, with_descriptor
from mpsref.verify.hypotheses.base import (
    CANCELLED,
    MANY,
    PLACES,
    Candidate,
    T,
    descriptor_of,
    erf,
    function_hypothesis,
    hypothesis,
    reads_gradient,
    slope_instead,
    with_operation,
)

Variants: TypeAlias = Iterator[tuple[str, Function]]
Real: TypeAlias = Callable[[Wide], Any]


# ---- formulas of single neurons ----


@function_hypothesis(
    "c = -1 taken literally", "c = -1 means base e, but is taken for the base -1.", T.exponential, T.logarithm
)
def literal_c(step: Step) -> Variants:
    p = descriptor_of(step)

    def function(reads: Reads) -> Wide:
        u = reads.x * p.a + p.b
        if p.neuron_type is T.logarithm or reads_gradient(step):
            return np.full_like(u, np.nan)
        return np.asarray(np.power(-1.0, u))

    if p.c == -1:
        yield "", function


@function_hypothesis(
    "hardSigmoid's gradient tests x",
    "The slope is a where 0 <= x <= 1, as older headers print it, instead of where 0 <= a x + b <= 1.",
    T.hardSigmoid,
)
def hard_sigmoid_tests_x(step: Step) -> Variants:
    p = descriptor_of(step)
    if reads_gradient(step):
        yield "", slope_instead(lambda reads: np.where((reads.x >= 0) & (reads.x <= 1), p.a, 0.0))


@function_hypothesis(
    "reLUN's slope is b", "The slope is b where x >= b, as the header prints it, instead of 0.", T.reLUN
)
def relun_slope_b(step: Step) -> Variants:
    p = descriptor_of(step)
    if reads_gradient(step):
        yield (
            "",
            slope_instead(lambda reads: np.where(reads.x >= p.b, p.b, np.where(reads.x >= 0, 1.0, p.a))),
        )


@function_hypothesis(
    "geLU's second gradient term doubled",
    "The term x e^(-x^2 / 2) / sqrt(2 pi) of the slope counts twice, as the header prints it.",
    T.geLU,
)
def gelu_doubled(step: Step) -> Variants:
    if reads_gradient(step):
        yield "", slope_instead(lambda reads: _normal(reads.x) + 2 * reads.x * _bell(reads.x))


@function_hypothesis(
    "ELU without parentheses", "Below 0 the value is a e^x - 1, as a header prints it, instead of a (e^x - 1).", T.ELU
)
def elu_without_parentheses(step: Step) -> Variants:
    p = descriptor_of(step)
    if not reads_gradient(step):
        yield "", lambda reads: np.where(reads.x < 0, p.a * np.exp(reads.x) - 1, reads.x)


@function_hypothesis(
    "an approximation of geLU",
    "geLU is computed by an approximation with tanh or sigmoid instead of the error function.",
    T.geLU,
    cancels=CANCELLED,
)
def gelu_approximated(step: Step) -> Variants:
    k = math.sqrt(2 / math.pi)

    def with_tanh(reads: Reads) -> Wide:
        x = reads.x
        t = np.tanh(k * (x + 0.044715 * x**3))
        if reads_gradient(step):
            slope = 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * k * (1 + 3 * 0.044715 * x * x)
            return np.asarray(reads.upstream * slope)
        return np.asarray(0.5 * x * (1 + t))

    def with_sigmoid(reads: Reads, k: float) -> Wide:
        x = reads.x
        s: Wide = 1 / (1 + np.exp(-k * x))
        return np.asarray(reads.upstream * (s + k * x * s * (1 - s)) if reads_gradient(step) else x * s)

    def with_exp(reads: Reads) -> Wide:
        # Otherwise the same, tanh as (t - 1) / (t + 1) overflows in float32.
        x = reads.x
        overflows = np.isinf(np.exp(2 * k * (x + 0.044715 * x**3)).astype(np.float32))
        return np.where(overflows, np.nan, with_tanh(reads))

    yield "x/2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))", with_tanh
    yield "x sigmoid(1.702 x)", partial(with_sigmoid, k=1.702)
    yield "x sigmoid(x), which is SiLU", partial(with_sigmoid, k=1.0)
    if not reads_gradient(step):
        yield "with tanh, that as (t - 1) / (t + 1), t = e^2x", with_exp


def _normal(x: Wide) -> Wide:
    return np.asarray(0.5 * (1 + erf(x * math.sqrt(0.5))))


def _bell(x: Wide) -> Wide:
    return np.asarray(np.exp(-x * x / 2) / math.sqrt(2 * math.pi))


@function_hypothesis(
    "a term of the slope is missing",
    "The slope of geLU is one of its two terms alone, or that of softSign is not squared.",
    T.geLU, T.softSign,
)  # fmt: skip
def term_missing(step: Step) -> Variants:
    if reads_gradient(step) and descriptor_of(step).neuron_type is T.softSign:
        yield "1 / (1 + abs(x))", slope_instead(lambda reads: 1 / (1 + np.abs(reads.x)))
    elif reads_gradient(step):
        yield "without x e^(-x^2 / 2) / sqrt(2 pi)", slope_instead(lambda reads: _normal(reads.x))
        yield "without (1 + erf(x / sqrt 2)) / 2", slope_instead(lambda reads: reads.x * _bell(reads.x))


@function_hypothesis(
    "the exponent is not lowered", "The slope of the power has the exponent c instead of c - 1.", T.power
)
def exponent_not_lowered(step: Step) -> Variants:
    p = descriptor_of(step)
    if reads_gradient(step):
        yield "", slope_instead(lambda reads: p.a * p.c * np.power(p.a * reads.x + p.b, p.c))


@function_hypothesis("another slope at the kink", "At the kink itself the slope is that of the other side, or 0.")
def slope_at_kink(step: Step) -> Variants:
    p = descriptor_of(step)
    kinks = p.row.kinks(p)
    if not reads_gradient(step) or not kinks:
        return

    def function(reads: Reads, slope: float | None) -> Wide:
        is_kink = np.isin(reads.x.astype(np.float32), np.asarray(kinks, np.float32))
        factor = p.data[reads.index % reads.channels] if slope is None and p.data is not None else slope
        return np.where(is_kink, reads.upstream * np.asarray(factor, np.float64), reads.ideal())

    for detail, slope in {"slope 0": 0.0, "slope 1": 1.0, "slope -1": -1.0, "slope a": p.a}.items():
        yield detail, partial(function, slope=slope)
    if p.data is not None:
        yield "slope data[channel]", partial(function, slope=None)


# ---- gradients ----


@function_hypothesis(
    "the incoming gradient is missing",
    "The result is the slope alone, not multiplied by the incoming gradient.",
    neurons=False,
)
def gradient_missing(step: Step) -> Variants:
    if reads_gradient(step):
        yield "", lambda reads: _with_gradient(reads, np.ones(reads.index.shape))


@function_hypothesis(
    "the incoming gradient applied twice",
    "The slope is multiplied by the square of the incoming gradient.",
    neurons=False,
)
def gradient_twice(step: Step) -> Variants:
    if reads_gradient(step):
        yield "", lambda reads: _with_gradient(reads, np.square(reads.upstream))


def _with_gradient(reads: Reads, upstream: Wide) -> Wide:
    return reads.ideal(elements=[Elements(upstream, FLOAT64), *reads.elements[1:]])


@function_hypothesis(
    "the gradient's sources exchanged", "The source and the incoming gradient stand in each other's place: f'(dy) x."
)
def sources_exchanged(step: Step) -> Variants:
    if reads_gradient(step):
        yield "", lambda reads: reads.ideal(elements=list(reads.elements)[::-1])


@function_hypothesis("forward instead of gradient", "The image holds the neuron's values, not the gradient.")
def wrong_direction(step: Step) -> Variants:
    if reads_gradient(step):
        forward = NeuronForward(descriptor_of(step))
        yield "", lambda reads: reads.ideal(forward)
        yield "multiplied by the incoming gradient", lambda reads: reads.ideal(forward) * reads.upstream


def _output(reads: Reads, p: MPSNNNeuronDescriptor) -> Elements:
    """The neuron's forward result, stored as its input is."""
    storage = reads.elements[-1].storage
    return Elements(encoded(reads.ideal(NeuronForward(p)), storage), storage)


@function_hypothesis(
    "the derivative taken at the output", "The slope is that at the neuron's result instead of that at its source."
)
def derivative_at_output(step: Step) -> Variants:
    p = descriptor_of(step)
    if reads_gradient(step):
        yield "", lambda reads: reads.ideal(elements=[reads.elements[0], _output(reads, p)])


@hypothesis(
    "the slope from the stored result",
    "The slope is computed from the neuron's result, which was rounded when it was stored.",
)
def slope_from_result(case: Case) -> Iterator[Candidate]:
    def function(reads: Reads, p: MPSNNNeuronDescriptor, image: Elements | None, scaled: bool = False) -> Wide:
        y = (_output(reads, p) if image is None else image.at(reads.index)).values()
        if p.neuron_type is T.sigmoid:
            return reads.upstream * (y * (1 - y))
        if p.neuron_type is T.tanH:
            if scaled:
                return np.asarray(reads.upstream * p.a * p.b * (1 - y * y))
            return reads.upstream * (p.b * (p.a - y * y / p.a) if p.a else y * 0)
        if p.neuron_type is T.softSign:
            return np.asarray(reads.upstream * np.square(1 - np.abs(y)))
        return reads.upstream * np.where(reads.x >= 0, 1, y + p.a)

    for k, step in enumerate(case.steps):
        p = step.operation.descriptor
        if p is None or p.neuron_type not in (T.sigmoid, T.tanH, T.softSign, T.ELU) or not reads_gradient(step):
            continue
        yield Candidate("", function=partial(function, p=p, image=None), step=k)
        for name, image in case.images.items():
            yield Candidate(f"from {name}", function=partial(function, p=p, image=image), step=k)
        if p.neuron_type is T.tanH and p.a != 1:
            yield Candidate(
                "as 1 - y^2, as if a were 1", function=partial(function, p=p, image=None, scaled=True), step=k
            )


# ---- what was run ----


@function_hypothesis("the node was left out", "What the node reads is passed on as it is.", neurons=False)
def not_applied(step: Step) -> Variants:
    operation = step.operation
    places = operation.values_of(range(len(operation.roles)))
    # A factor alone that is left out is a parameter that is.
    if operation.descriptor is None and len(places) == 1:
        return

    def function(reads: Reads, place: int) -> Wide:
        return reads.elements[place].values()

    for k in places:
        several = len(operation.roles) > 1 and k < len(PLACES)
        yield f"from {PLACES[k]}" if several else "", partial(function, place=k)


@function_hypothesis("applied twice", "The node was run again on its own result.", neurons=False)
def applied_twice(step: Step) -> Variants:
    def function(reads: Reads) -> Wide:
        once = Elements(encoded(reads.ideal(), step.storage), step.storage)
        return reads.ideal(elements=[once, *reads.elements[1:]])

    yield "", function


@function_hypothesis(
    "another neuron",
    "Another neuron or activation was run, with the same parameters or with its defaults.",
    fewest=MANY,
    cancels=CANCELLED,
)
def another_neuron(step: Step) -> Variants:
    p = descriptor_of(step)
    for neuron_type, row in (*NEURONS.items(), *ACTIVATIONS.items()):
        if neuron_type is p.neuron_type or row.per_channel:
            continue
        same = {name: p.parameters.get(name, default) for name, default in row.parameters.items()}
        for parameters in (same,) if same == dict(row.parameters) else (same, dict(row.parameters)):
            text = ", ".join(f"{name} = {np.float32(value)!s}" for name, value in parameters.items())
            other = with_descriptor(step.operation, neuron_of(neuron_type.name, parameters))
            yield f"{neuron_type.name}{' with ' * bool(text)}{text}", with_operation(other)


FUNCTIONS: dict[str, tuple[Real, Real]] = {
    "sin": (np.sin, np.cos),
    "cos": (np.cos, lambda x: -np.sin(x)),
    "atan": (np.arctan, lambda x: 1 / (1 + x * x)),
    "erf": (erf, lambda x: 2 / math.sqrt(math.pi) * np.exp(-x * x)),
    "sqrt": (np.sqrt, lambda x: 0.5 / np.sqrt(x)),
    "rsqrt": (lambda x: 1 / np.sqrt(x), lambda x: -0.5 * x**-1.5),
    "the square": (np.square, lambda x: 2 * x),
    "the reciprocal": (np.reciprocal, lambda x: -1 / (x * x)),
}
"""Other functions of a library, and their derivatives."""


@function_hypothesis("another function", "Another function of the library was called, which is no neuron.", fewest=MANY,
                     cancels=CANCELLED)  # fmt: skip
def another_function(step: Step) -> Variants:
    def other(reads: Reads, functions: tuple[Real, Real]) -> Wide:
        value, slope = functions
        return np.asarray(reads.upstream * slope(reads.x) if reads_gradient(step) else value(reads.x))

    for name, functions in FUNCTIONS.items():
        yield name, partial(other, functions=functions)


@hypothesis("another image of the graph", "The memory holds another image: a stale one, or one that shares it.", MANY)
def another_image(case: Case) -> Iterator[Candidate]:
    def function(reads: Reads, image: Elements) -> Wide:
        return image.at(reads.index).values()

    for name, image in case.images.items():
        yield Candidate(name, function=partial(function, image=image), step=len(case.steps) - 1)


@hypothesis("another image of the graph is read", "The node reads another image than the one it is given.", MANY)
def another_image_read(case: Case) -> Iterator[Candidate]:
    def reads(read: Sequence[Elements], index: Index, place: int, image: Elements) -> Sequence[Elements]:
        return [*read[:place], image.at(index), *read[place + 1 :]]

    for name, image in () if case.layers else case.images.items():
        for k, place in enumerate(PLACES[: len(case.sources)]):
            if not np.array_equal(image.stored, case.sources[k].stored):
                text = f"{name} for {place}" if len(case.sources) > 1 else name
                yield Candidate(text, reads=partial(reads, place=k, image=image))


@function_hypothesis(
    "signs or scales of the addition", "A branch of the sum is doubled, subtracted, averaged or missing.", neurons=False
)
def branches(step: Step) -> Variants:
    if step.operation.kind != "sum":
        return

    def function(reads: Reads, scales: tuple[float, float]) -> Wide:
        return reads.ideal(
            elements=[Elements(k * e.values(), FLOAT64) for k, e in zip(scales, reads.elements, strict=True)]
        )

    for detail, scales in {
        "the second branch subtracted": (1.0, -1.0),
        "the first branch subtracted": (-1.0, 1.0),
        "the first branch doubled, the second missing": (2.0, 0.0),
        "the second branch doubled, the first missing": (0.0, 2.0),
        "the first branch doubled": (2.0, 1.0),
        "the second branch doubled": (1.0, 2.0),
        "averaged": (0.5, 0.5),
    }.items():
        yield detail, partial(function, scales=scales)
