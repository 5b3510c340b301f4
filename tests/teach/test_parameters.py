"""Gradients of parameters: those of difference quotients that are exact to many digits; and values that can be set."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from flint import arb, ctx

import mpsref as mps
from builders import image, named
from mpsref import teach
from mpsref.proof.judge import Judge

T = mps.MPSCNNNeuronType
SETS = [(1.5, 0.75, 2.0), (-0.75, 0.25, 0.5), (0.5, -1.25, 3.0), (0.125, 10.0, 1.5), (1.0, 1.0, -1.0)]
POINTS = [-7.5, -2.25, -1.0, -0.375, 0.0, 0.125, 0.5, 1.0, 2.75, 6.25, 40.0]
STEP = 2.0**-30


def cases():
    for neuron_type, row in mps.NEURONS.items():
        for values in [(0.25,), (-0.5,)] if row.per_channel else SETS:
            names = ["a"] if row.per_channel else list(row.parameters)
            for name in names:
                if values[-1] == -1.0 and name == "c" and neuron_type is not T.power:
                    continue  # means base e, and its neighbours are no bases
                parameters = dict(zip("abc", values, strict=False))
                yield pytest.param(
                    neuron_type, {n: parameters[n] for n in names}, name, id=f"{neuron_type.name}-{values}-{name}"
                )


def difference_quotient(neuron_type, parameters, name, x):
    """The slope in a parameter at a point, to some 18 digits; NaN where it is not smooth or not real."""

    def value(step):
        judge = Judge(neuron_type.name, **{**parameters, name: parameters[name] + step})
        return getattr(judge, f"_{neuron_type.name}")(arb(x))

    before, ctx.prec = ctx.prec, 400
    try:
        here, above, below = value(0.0), value(STEP), value(-STEP)
        right, left = (above - here) / STEP, (here - below) / STEP
        middle = (right + left) / 2
        # The mean of both sides is right but for the square of the step; where they differ by more, there is a kink.
        is_smooth = abs(right - left) < 1e-4 * (1 + abs(middle))
        return float(middle.mid()) if middle.is_finite() and is_smooth else np.nan
    finally:
        ctx.prec = before


@pytest.mark.parametrize(("neuron_type", "parameters", "name"), list(cases()))
def test_gradients_of_parameters_are_difference_quotients(neuron_type, parameters, name):
    per_channel = mps.NEURONS[neuron_type].per_channel
    given = {"data": [parameters["a"]]} if per_channel else parameters
    own = "data" if per_channel else name
    node = named(
        mps.MPSCNNNeuronNode(source=image("x"), descriptor=mps.MPSNNNeuronDescriptor(neuron_type, **given)), "y"
    )
    want = np.array([difference_quotient(neuron_type, parameters, name, x) for x in POINTS])
    got = np.array([np.ravel(teach.backprop(node, x=x, dy=0.5).parameter_gradients[f"y.{own}"])[0] for x in POINTS])
    known = np.isfinite(want)

    assert known.sum() >= 3
    np.testing.assert_allclose(got[known], want[known] / 2, rtol=1e-12, atol=1e-15)


def test_they_are_sums_over_all_elements_and_by_channel_for_slopes():
    x = np.array([[-1, 2, -3], [4, -5, -6.5]])
    dy = np.array([[1, 2, 3], [4, 5, 6]])
    h = teach.prelu(teach.input("x"), data=[0.5, 0.25, 2]).named("h")
    got = teach.backprop(h, x=x, dh=dy).parameter_gradients

    assert got["h.data"].tolist() == [-1, -25, -9 - 39]
    line = teach.linear(teach.input("x"), a=3, b=1)
    assert teach.backprop(line, x=x, dy=dy).parameter_gradients == {"y.a": (x * dy).sum(), "y.b": dy.sum()}


@pytest.mark.parametrize("kind", [mps.MPSNNAdditionNode, mps.MPSNNSubtractionNode, mps.MPSNNMultiplicationNode])
def test_scales_and_bias_have_gradients(kind):
    node = kind(left_source=image("x"), right_source=image("w"))
    node.primary_scale, node.secondary_scale, node.bias = 1.5, -0.5, 0.25
    x, w = Fraction(3, 4), Fraction(-5, 2)
    got = teach.backprop(node, x=float(x), w=float(w), dy=2).parameter_gradients

    def value(first=Fraction(3, 2), second=Fraction(-1, 2), bias=Fraction(1, 4)):
        if kind is mps.MPSNNMultiplicationNode:
            return first * x * second * w + bias
        return first * x + (-1 if kind is mps.MPSNNSubtractionNode else 1) * second * w + bias

    # The value is linear in each, so that a difference quotient of any size is exact.
    assert got == {
        "y.primary_scale": 2 * (value(first=Fraction(5, 2)) - value()),
        "y.secondary_scale": 2 * (value(second=Fraction(1, 2)) - value()),
        "y.bias": 2,
    }


def test_a_chain_reaches_every_parameter():
    x = teach.input("x")
    y = teach.sigmoid(teach.softplus(x, a=0.5, b=2) * teach.tanh(x, a=1.5, b=0.5))

    def f(a):
        return 1 / (1 + (-(a * (1 + (2 * arb(0.75)).exp()).log() * (arb(1.5) * arb(0.375).tanh()))).exp())

    before, ctx.prec = ctx.prec, 300
    slope = float(((f(arb(0.5) + STEP) - f(arb(0.5) - STEP)) / (2 * STEP)).mid())
    ctx.prec = before

    assert teach.backprop(y, x=0.75).parameter_gradients["h1.a"] == pytest.approx(slope, rel=1e-6)
    assert list(teach.backprop(y, x=0.75).parameter_gradients) == list(teach.parameters(y.graph()))


# ---- values that can be set ----


def test_parameters_can_be_set_without_building_a_graph():
    x = teach.input("x")
    y = teach.prelu(teach.tanh(x, b=0.5) - x, data=[0.5])
    graph = teach.backprop(y, x=-1).graph
    changed = teach.with_parameters(graph, {"h1.b": 2, "y.data": [3.0], "h2.primary_scale": -2})
    other = mps.MPSNNSubtractionNode(left_source=teach.tanh(x, b=2).image, right_source=x.image)
    other.primary_scale = -2
    again = mps.MPSCNNNeuronPReLUNode(source=other, a_data=[3.0])
    sources = {"x": 0.25, "dy": 1.0}

    want = teach.backprop(again, x=0.25)
    assert float(np.asarray(changed.run(**sources)["y"]).item()) == want.y
    assert teach.trace(changed, **sources).dx == want.dx
    assert teach.parameters(graph)["h1.b"] == 0.5
    assert teach.parameters(changed) == {**teach.parameters(graph), "h1.b": 2, "y.data": [3.0], "h2.primary_scale": -2}
    assert all(a.node is b.node for a, b in zip(graph.plan.steps, changed.plan.steps, strict=True))
    assert y.node.descriptor.data.tolist() == [0.5]


def test_what_cannot_be_set():
    graph = teach.tanh(teach.input("x")).graph()
    with pytest.raises(mps.SourceError, match=r"no node has the parameter 'h\.a': there are 'y\.a', 'y\.b'"):
        teach.with_parameters(graph, {"h.a": 1})
    with pytest.raises(mps.ParameterError, match="y: a is inf"):
        teach.with_parameters(graph, {"y.a": np.inf})


def test_weights_of_layers_have_gradients_that_are_exact_sums_and_learn():
    """A convolution of small integers, of which float32 loses nothing; its gradients by differences of exact losses."""
    random = np.random.default_rng(3)
    d = mps.MPSCNNConvolutionDescriptor(
        kernel_width=2, kernel_height=2, input_feature_channels=2, output_feature_channels=3
    )
    weights, biases = random.integers(-2, 3, (3, 2, 2, 2)).astype(np.float32), np.float32([1, -1, 2])
    xs = random.integers(-3, 4, (2, 3, 3, 2)).astype(float)
    x = teach.input("x")
    layer = mps.MPSCNNConvolutionNode(source=x.image, weights=mps.ArrayDataSource(d, weights, biases))
    h = teach.Expression(layer, "layer").named("h")
    loss = h * h
    t = teach.backprop(loss, x=xs)
    graph = t.graph

    assert teach.parameters(graph)["h.weights"].tolist() == weights.tolist()
    for name, start in (("h.weights", weights), ("h.biases", biases)):
        gradient = t.parameter_gradients[name]
        assert gradient.shape == start.shape
        for place in map(tuple, random.integers(0, start.shape, (6, start.ndim))):
            sums = []
            for step in (1, -1):
                moved = start.copy()
                moved[place] += step
                changed = teach.with_parameters(graph, {name: moved})
                images = changed.run(x=xs, dy=np.ones_like(t.y))
                sums.append(float(images["y"].to_array().astype(float).sum()))
            assert gradient[place] == (sums[0] - sums[1]) / 2  # exact for a quadratic
    log = teach.descend(loss, {"h.weights": weights, "h.biases": biases}, rate=0.002, steps=3, x=xs)
    assert (np.diff(log.losses) < 0).all()
    assert t.at(0, 0, 0).parameter_gradients.keys().isdisjoint({"h.weights", "h.biases"})
    with pytest.raises(mps.ParameterError, match=r"^h: weights have shape \(1, 2\)"):
        teach.with_parameters(graph, {"h.weights": [[1, 2]]})
