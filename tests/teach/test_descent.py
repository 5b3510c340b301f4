"""Gradient descent: each step is the one that exact arithmetic takes, and networks learn."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

import mpsref as mps
from mpsref import teach

x, w, b, t = (teach.input(name) for name in "xwbt")


def test_each_step_is_that_of_exact_arithmetic():
    # A quadratic of dyadic numbers, of which float32 loses nothing in three steps.
    xs, ts = [1, -2, 3], [2, 0.5, -1]
    log = teach.descend((w * x + b - t) * (w * x + b - t), {"w": 0.5, "b": 0}, rate=0.03125, steps=2, x=xs, t=ts)
    exact = {"w": Fraction(1, 2), "b": Fraction(0)}
    for step in range(3):
        errors = [exact["w"] * Fraction(p) + exact["b"] - Fraction(q) for p, q in zip(xs, ts, strict=True)]
        slopes = {"w": sum(2 * e * p for e, p in zip(errors, xs, strict=True)), "b": sum(2 * e for e in errors)}

        assert log.losses[step] == sum(e * e for e in errors)
        for name, value in exact.items():
            assert log.parameters[name][step] == value
            assert log.gradients[name][step] == slopes[name]
        exact = {name: value - Fraction(1, 32) * slopes[name] for name, value in exact.items()}

    assert log.values == {name: path[-1] for name, path in log.parameters.items()}
    assert log.trace.w == log.values["w"]


def test_parameters_of_nodes_move_and_nothing_is_built_again(monkeypatch):
    y = teach.prelu(teach.linear(x, a=0.5), data=[0.25, 0.25])
    loss = (y - t) * (y - t)
    built = []
    make = mps.MPSNNGraph.__init__
    monkeypatch.setattr(mps.MPSNNGraph, "__init__", lambda *args, **named: (built.append(1), make(*args, **named))[1])
    log = teach.descend(loss, {"h1.a": 0.5, "h2.data": [0.25, 0.25]}, rate=0.02, steps=150, x=[[1, -1], [2, -2]],
                        t=[[3, -1], [6, -2]])  # fmt: skip

    assert len(built) == 1
    assert log.values["h1.a"] == pytest.approx(3, abs=0.01)
    assert log.values["h2.data"].tolist() == pytest.approx([0.25, 1 / 3], abs=0.01)
    assert log.parameters["h2.data"].shape == (151, 2)


def test_five_neurons_learn_xor():
    def neuron(name, first, second):
        return teach.tanh(teach.input(f"{name}1") * first + teach.input(f"{name}2") * second + teach.input(f"{name}b"))

    inputs = teach.input("p"), teach.input("q")
    h, k = (neuron(name, *inputs) for name in "hk")
    m, n = (neuron(name, h, k) for name in "mn")
    y = neuron("o", m, n).named("o")
    random = np.random.default_rng(5)
    start = {f"{name}{part}": random.normal() for name in "hkmno" for part in "12b"}
    log = teach.descend(
        (y - t) * (y - t), start, rate=0.1, steps=60, p=[-1, -1, 1, 1], q=[-1, 1, -1, 1], t=[-1, 1, 1, -1]
    )

    assert log.losses[0] > 4
    assert log.losses[-1] < 0.05
    assert (np.sign(log.trace.o) == [-1, 1, 1, -1]).all()


def test_it_ends_where_numbers_are_no_longer_finite_and_draws_what_it_has():
    log = teach.descend((x - 1) * (x - 1) * x * x, {"x": 5}, rate=1, steps=50)

    assert len(log.losses) < 20
    assert np.isfinite(log.parameters["x"]).all()
    ax = log.plot()
    assert ax.get_yscale() == "log"
    assert ax.lines[0].get_ydata().tolist() == log.losses.tolist()
    assert repr(log).startswith(f"<Descent of {len(log.losses) - 1} steps: loss 400 to ")
    assert teach.descend(x - 1, {"x": 0}, rate=1, steps=2).plot().get_yscale() == "linear"


def test_errors_name_what_to_do():
    loss = teach.tanh(w * x)
    for arguments, named, error, message in [
        (({"w": 1},), {"rate": 1, "steps": 1.5, "x": 1}, mps.ParameterError, "steps is 1.5"),
        (({"w": 1},), {"rate": 1, "steps": -1, "x": 1}, mps.ParameterError, "steps is -1"),
        (({"w": 1},), {"rate": np.nan, "steps": 1, "x": 1}, mps.ParameterError, "rate is nan"),
        (({"w": 1},), {"rate": "fast", "steps": 1, "x": 1}, mps.ParameterError, "rate is 'fast'"),
        (({},), {"rate": 1, "steps": 1, "x": 1, "w": 1}, mps.ParameterError, "start is empty"),
        (
            ({"v": 1},),
            {"rate": 1, "steps": 1, "x": 1, "w": 1},
            mps.SourceError,
            "start has 'v': the inputs .* 'w', 'x'",
        ),
        (({"w": 1},), {"rate": 1, "steps": 1, "x": 1, "w": 1}, mps.SourceError, "'w' is given twice"),
        (({"w": 1},), {"rate": 1, "steps": 1}, mps.SourceError, "missing 'x'"),
    ]:
        with pytest.raises(error, match=message):
            teach.descend(loss, *arguments, **named)
