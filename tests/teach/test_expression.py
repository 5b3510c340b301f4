"""Expressions: they are the nodes that they say, and their gradients are those of exact difference quotients."""

from __future__ import annotations

import math
import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

import mpsref as mps
from mpsref import teach
from mpsref.proof.judge import Judge

T = mps.MPSCNNNeuronType
CLASSES = {"+": mps.MPSNNAdditionNode, "-": mps.MPSNNSubtractionNode, "*": mps.MPSNNMultiplicationNode}


def test_the_first_gradient_is_short():
    x = teach.input("x")
    y = teach.sigmoid(teach.tanh(x, b=0.75) + x)
    t = teach.backprop(y, x=0.5)

    def f(at):
        # Beyond float64, so that a small difference quotient is exact to more digits than float32 has.
        import flint  # noqa: PLC0415

        flint.ctx.prec = 200
        x = flint.arb(at.numerator) / at.denominator
        return 1 / (1 + (-((x * 3 / 4).tanh() + x)).exp())

    step = Fraction(1, 2**60)
    slope = float((f(Fraction(1, 2) + step) - f(Fraction(1, 2) - step)) * 2**59)

    assert t.dx == t.gradients["x"] == pytest.approx(slope, rel=3e-7)
    assert t.y == pytest.approx(float(f(Fraction(1, 2))), rel=1e-7)
    assert t.dy == t.gradients["y"] == 1
    assert [step.name for step in t.steps if not step.is_backward] == ["h1", "h2", "y"]
    assert repr(t) == str(t)
    assert t.explain().startswith("<!DOCTYPE html>")
    assert 'srcdoc="&lt;!DOCTYPE html' in t.explain()._repr_html_()


@pytest.mark.parametrize("neuron_type", mps.NEURONS, ids=lambda t: t.name)
def test_each_neuron_is_a_function_and_apples_node(neuron_type):
    spelling = {known: spelling for spelling, known in teach.SPELLINGS.items()}[neuron_type]
    row = mps.NEURONS[neuron_type]
    y = getattr(teach, spelling)(teach.input("x"), **({"data": 0.5} if row.per_channel else {}))
    judge = Judge(neuron_type.name, *([0.5] if row.per_channel else [y.node.a, y.node.b, y.node.c]))
    at = np.array([-1.0 if neuron_type in (T.reLU, T.pReLU, T.ELU) else 0.3])
    t = teach.backprop(y, x=at.item())

    assert y.node.descriptor.neuron_type is neuron_type
    assert isinstance(y.node, mps.MPSCNNNeuronNode)
    at = at.astype(np.float32).astype(np.float64)
    assert t.y == pytest.approx(judge.float64s(at, False).item(), rel=1e-6)
    assert t.dx == pytest.approx(judge.float64s(at, True).item(), rel=1e-6)


@pytest.mark.parametrize("symbol", "+-*")
def test_two_expressions_are_an_arithmetic_node_and_a_number_is_a_linear_neuron(symbol):
    import operator  # noqa: PLC0415

    apply = {"+": operator.add, "-": operator.sub, "*": operator.mul}[symbol]
    x, w = teach.input("x"), teach.input("w")
    both = apply(x, w)
    right, left = apply(x, 2.5), apply(2.5, x)

    assert type(both.node) is CLASSES[symbol]
    assert both.node.sources == (x.node, w.node)
    for y in (right, left):
        assert y.node.descriptor.neuron_type is T.linear
    assert teach.backprop(both, x=3, w=-0.5).y == apply(3, -0.5)
    assert teach.backprop(right, x=3).y == apply(3, 2.5)
    assert teach.backprop(left, x=3).y == apply(2.5, 3)
    assert repr(both) == f"x {symbol} w"
    assert repr(left) == f"2.5 {symbol} x"


def test_a_power_of_a_number_is_a_power_or_an_exponential_neuron():
    x = teach.input("x")
    for y, neuron_type, value, slope in [
        (x**2, T.power, Fraction(9, 16), Fraction(3, 2)),
        ((x + 1) ** -2, T.power, Fraction(16, 49), -2 * Fraction(64, 343)),
        (4 ** (x - 1), T.exponential, 2**-0.5, 2**-0.5 * math.log(4)),
    ]:
        t = teach.backprop(y, x=0.75)

        assert y.node.descriptor.neuron_type is neuron_type
        assert (t.y, t.dx) == pytest.approx((float(value), float(slope)), rel=2e-7)


def test_formulas_have_the_parentheses_that_they_need():
    x, w = teach.input("x"), teach.input("w")
    numbers = {"x": 0.75, "w": -1.5}
    for y in (
        1 - (w * x) * 3, -(w + x) * 2, -(-1 * w), w - (x - w), w - (x + 1), (w - x) - 2 * x * w, x * -2, -w * x,
        (x - 1) * (x + 1), sum([x, w, x * w]), -2 * x - -w, (-x) ** 2, -(x**2) * w, (x**2) ** 3, (x * w) ** 2, -w**2,
    ):  # fmt: skip
        assert eval(repr(y), numbers.copy()) == teach.backprop(y, **{k: numbers[k] for k in "xw" if k in repr(y)}).y  # noqa: S307
    long = x
    for _ in range(200):
        long = long * w + x
    assert len(repr(long)) <= 200


def test_a_number_beside_arrays_has_the_sum_as_its_gradient():
    x, w, b = (teach.input(name) for name in "xwb")
    y = w * x + b
    xs = np.float32([[1, 2, 3], [4, 5, 6.5]])
    t = teach.backprop(y, x=xs, w=0.5, b=[1, 2, 3])

    assert t.y.tolist() == (0.5 * xs + [1, 2, 3]).tolist()
    assert t.dw == xs.sum()
    assert t.dx.tolist() == [[0.5] * 3] * 2
    assert t.db.tolist() == [2, 2, 2]
    assert (t.w, t.b.tolist(), t.x.tolist()) == (0.5, [1, 2, 3], xs.tolist())
    assert teach.backprop(y, x=xs, w=0.5, b=0, dy=xs).dw == pytest.approx((xs.astype(float) ** 2).sum())


def test_graphs_are_apples_and_their_images_keep_their_names():
    x = teach.input("x")
    h = teach.tanh(x)
    y = teach.relu(h).named("result")

    assert isinstance(y.graph(), mps.MPSNNGraph)
    assert y.graph("float16").run(x=0.5)["result"].to_array().dtype == np.float16
    first = teach.backprop(y, x=1)
    assert [step.name for step in first.steps] == ["h1", "result", "dh1", "dx"]
    # Names that were given for one graph are gone in the next.
    assert [step.name for step in teach.backprop(teach.relu(y) * h, x=1).steps][:4] == ["h1", "result", "h2", "y"]
    assert mps.GraphFile.from_results([y.node])
    assert teach.svg(y.node).startswith("<svg")
    assert y._repr_svg_().startswith("<svg")


def test_a_graph_of_nodes_can_be_differentiated_too():
    n = mps.MPSCNNNeuronTanHNode(source=mps.MPSNNImageNode(handle="x"), a=2)

    assert teach.backprop(n, x=0).dx == 2
    assert teach.backprop(n.result_image, x=0, dy=3).dx == 6


def test_errors_name_what_to_do():
    x = teach.input("x")
    y = teach.tanh(x)
    for wrong, error, message in [
        (lambda: teach.input("not a name"), mps.ParameterError, "give one that can name an argument"),
        (lambda: teach.input("lambda"), mps.ParameterError, "give one that can name an argument"),
        (lambda: teach.input("format"), mps.ParameterError, "give one that can name an argument"),
        (lambda: teach.input(3), mps.ParameterError, "name is 3: give a string"),
        (lambda: teach.tanh(0.5), mps.ParameterError, r"x is 0.5: give an expression, such as teach.input\('x'\)"),
        (lambda: teach.tanh(x, c=1), mps.ParameterError, "tanh takes no 'c': it takes a, b"),
        (lambda: teach.prelu(x), mps.ParameterError, "needs data"),
        (lambda: teach.backprop(x, x=1), mps.ParameterError, "y is an input"),
        (lambda: teach.backprop(2.0), mps.ParameterError, "y is a float"),
        (lambda: teach.backprop(y), mps.SourceError, "missing 'x': the inputs are"),
        (lambda: teach.backprop(y, x=1, z=2), mps.SourceError, "unknown 'z': the inputs are"),
        (lambda: teach.backprop(y * teach.input("w"), x=[1, 2], w=[1, 2, 3]), mps.ImageError, "do not fit together"),
        (lambda: teach.backprop(y, x=np.ones((1,) * 5)), mps.ImageError, "at most 4"),
        (lambda: teach.backprop(teach.input("dy") * x, x=1), mps.ParameterError, "an input is called 'dy'"),
        (
            lambda: teach.backprop(x + teach.input("x"), x=1),
            mps.ParameterError,
            "2 inputs are called 'x': make an input once",
        ),
        (lambda: x + np.ones(3), mps.ParameterError, "use teach.input"),
        (lambda: x / 3, mps.ParameterError, r"no node of a quotient .* write x \* \(1 / 3\)"),
        (lambda: 1 / x, mps.ParameterError, "no node of a quotient"),
        (lambda: x**x, mps.ParameterError, "the base and the exponent are expressions"),
        (lambda: (-2) ** x, mps.ParameterError, "the base is -2: give a number above 0"),
        (lambda: x**None, TypeError, "unsupported operand"),
        (lambda: x + None, TypeError, "unsupported operand"),
        (lambda: "a" * x, TypeError, "unsupported operand|can't multiply"),
        (lambda: x * True, TypeError, "unsupported operand"),
        (lambda: x * math.inf, mps.ParameterError, "finite"),
    ]:
        with pytest.raises(error, match=message):
            wrong()


def test_the_page_lists_the_spellings_and_the_parameters():
    text = (Path(__file__).parents[2] / "docs" / "teach.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)` \| `(.*)` \| (.*) \|$", text, re.MULTILINE)

    assert {spelling: T[name] for spelling, name, _, _ in rows} == teach.SPELLINGS
    for _, name, formula, parameters in rows:
        row = mps.NEURONS[T[name]]
        assert formula.replace("\\|", "|") == row.formula
        assert {k: float(v) for k, v in re.findall(r"`(\w)=([-\d.]+)`", parameters)} == dict(row.parameters)
        assert ("`data`" in parameters) == row.per_channel
