"""Gradients held to differences: what is right passes, also at kinks, and every planted fault is found where it is."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import special

import mpsref as mps
from mpsref.graph.schedule import inputs
from mpsref.neuron.kernels import KERNELS
from mpsref.testing import GradientCheck, check_gradient
from mpsref.testing import strategies as mpst
from mpsref.testing.differences import complex_slope, slope

NEURONS, T = list(mps.NEURONS), mps.MPSCNNNeuronType
OTHER = (1.75, -0.375, 2.5)
"""Other parameters than the documented ones: a, b, c."""


def descriptor(neuron_type, *, other=False):
    row = mps.NEURONS[neuron_type]
    if row.per_channel:
        return mps.MPSNNNeuronDescriptor(neuron_type, data=[0.3 if other else 0.25])
    given = dict(zip(row.parameters, OTHER, strict=False)) if other else {}
    return mps.MPSNNNeuronDescriptor(neuron_type, **given)


def points(d):
    """About kinks, at them and away from them."""
    kinks = np.array(d.row.kinks(d))
    away = np.array([0, 1e-300, 1e-17, 1e-12, 1e-9, 1e-6, 1e-4, 1e-2])
    near = (kinks[:, np.newaxis] + np.concatenate([away, -away])).ravel()
    beside = [np.nextafter(kinks, np.inf), np.nextafter(kinks, -np.inf), kinks.astype(np.float32)]
    return np.concatenate([near, *beside, np.linspace(-9, 9, 97), [0.0, -0.0, 1e-30, 1e300]])[:, np.newaxis]


# ---- what is right ----


@pytest.mark.parametrize("other", [False, True], ids=["documented", "other"])
@pytest.mark.parametrize("neuron_type", NEURONS, ids=lambda t: t.name)
def test_the_references_own_gradients_pass_at_and_near_kinks(neuron_type, other):
    d = descriptor(neuron_type, other=other)
    x = points(d)

    report = check_gradient(d, x)

    assert report.wrong == 0
    assert report.elements == x.size
    # Of a kink at 1e-17 or so differences may say that they do not know; and what has saturated shows no slope.
    assert report.undecided <= 12
    assert report.agree >= 40


def test_estimates_of_errors_hold():
    x = np.linspace(-5, 5, 1001)
    for function, exact in ((np.exp, np.exp(x)), (np.tanh, np.cosh(x) ** -2.0), (special.expit, None)):
        found, error = slope(function, x)
        ideal = special.expit(x) * special.expit(-x) if exact is None else exact
        assert np.all(np.abs(found - ideal) <= 10 * error)
        assert np.median(error / ideal) < 1e-10
    assert np.allclose(complex_slope(np.exp, x)[0], np.exp(x), rtol=4e-16, atol=0)


def test_what_cannot_be_seen_is_said_to_be_undecided():
    sigmoid = descriptor(mps.MPSCNNNeuronType.sigmoid)
    report = check_gradient(sigmoid, [30.0, 45.0, np.nan, np.inf, 1.0], upstream=[1.0] * 5)

    assert (report.agree, report.undecided, report.skipped) == (1, 2, 2)
    assert report.verdict == (
        "PASS: 1 of 5 gradients agrees with differences; 2 cannot be decided; 2 have no finite value"
    )
    assert {one.place for one in report.worst} == {(0,), (1,)}


# ---- planted faults: neurons ----


def patched(monkeypatch, d, fault):
    """A neuron whose derivative is faulty."""
    kernel = KERNELS[type(d.row)]
    right = kernel.derivative

    def derivative(x, p, w):
        source = x.copy()
        return fault(source, np.array(right(x, p, w)))

    monkeypatch.setattr(type(kernel), "derivative", staticmethod(derivative))


FAULTS = {
    "a hundred thousandth": lambda x, y: y * (1 + 1e-5),
    "sign": lambda x, y: -y,
    "one place": lambda x, y: np.where(x == 2.0, y + 1e-3, y),
    "NaN": lambda x, y: np.where(x == 2.0, np.nan, y),
    "infinity": lambda x, y: np.where(x == 2.0, np.inf, y),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("neuron_type", [t for t in NEURONS if t.name != "none"], ids=lambda t: t.name)
def test_a_wrong_derivative_of_each_neuron_is_found(monkeypatch, neuron_type, fault):
    # All of these are within the domain, and where no slope is 0.
    given = {} if neuron_type.name in {"reLUN", "hardSigmoid"} else {"other": True}
    d = descriptor(neuron_type, **given)
    x = np.array([0.25, 0.5, 0.75, 1.25, 2.0, 2.25])[:, np.newaxis]
    assert check_gradient(d, x).agree == 6
    patched(monkeypatch, d, FAULTS[fault])

    with pytest.raises(mps.VerificationError) as raised:
        check_gradient(d, x)

    report = raised.value.report
    assert report.wrong == (6 if fault in {"a hundred thousandth", "sign"} else 1)
    assert fault in {"a hundred thousandth", "sign"} or report.worst[0].value == 2.0


@pytest.mark.parametrize(
    "neuron_type", [t for t in NEURONS if not mps.NEURONS[t].slope_is_constant], ids=lambda t: t.name
)
def test_a_slope_at_the_result_is_found(monkeypatch, neuron_type):
    d = descriptor(neuron_type)
    x = np.array([-2.5, -0.5, 0.25, 0.75, 1.25, 2.75, 7.0])[:, np.newaxis]
    y = mps.neuron.forward(d, x)
    right, wrong = (mps.neuron.gradient(d, z, np.ones_like(x)) for z in (x, y))
    patched(monkeypatch, d, lambda z, slopes: wrong.ravel())

    if np.array_equal(right, wrong, equal_nan=True):  # reLU and power with exponent 1
        assert check_gradient(d, x).passed
        return
    with pytest.raises(mps.VerificationError):
        check_gradient(d, x)


@pytest.mark.parametrize("x", [1e-9, -1e-9, 1e-5, -1e-5])
@pytest.mark.parametrize(
    "neuron_type", [t for t in NEURONS if mps.NEURONS[t].kinks(descriptor(t))], ids=lambda t: t.name
)
def test_the_wrong_side_of_a_kink_is_found_beside_it(monkeypatch, neuron_type, x):
    d = descriptor(neuron_type, other=neuron_type.name == "ELU")  # by default it is smooth
    kink = d.row.kinks(d)[-1]
    sides = mps.neuron.gradient(d, np.array([[kink - 1e-3], [kink + 1e-3]]), np.ones((2, 1)))
    assert sides[0] != sides[1]
    patched(monkeypatch, d, lambda z, y: np.full_like(y, sides[0 if x > 0 else 1]))

    with pytest.raises(mps.VerificationError, match="1 of 1 gradient is wrong"):
        check_gradient(d, [[kink + x]])


@pytest.mark.parametrize(
    ("name", "documented"),
    [("reLU", 1.0), ("pReLU", 1.0), ("absolute", 0.0), ("reLUN", 0.0), ("ELU", 1.0)],
)
def test_at_a_kink_only_the_documented_side_passes(monkeypatch, name, documented):
    d = descriptor(mps.MPSCNNNeuronType[name])
    kink = [[d.row.kinks(d)[-1]]]
    assert check_gradient(d, kink, upstream=[[1.0]]).agree == 1

    for wrong in {0.0, 0.25, 0.5, 1.0, -1.0} - {documented}:
        # The side of ELU with a = 1 is no kink: both slopes are 1.
        patched(monkeypatch, d, lambda z, y, wrong=wrong: np.full_like(y, wrong))
        with pytest.raises(mps.VerificationError, match="1 of 1 gradient is wrong"):
            check_gradient(d, kink)
        monkeypatch.undo()


# ---- functions of somebody's own ----


def test_functions_of_ones_own_pass_and_fail():
    x = np.linspace(-4, 4, 33).reshape(3, 11)

    assert check_gradient((np.sin, lambda x, g: g * np.cos(x)), x).agree == 33
    with pytest.raises(mps.VerificationError, match=r"sin: FAIL: 33 of 33") as raised:
        check_gradient((np.sin, lambda x, g: g * np.cos(x) + 1e-4), x)
    assert isinstance(raised.value.report, GradientCheck)
    with pytest.raises(mps.VerificationError):
        check_gradient((np.sin, lambda x, g: np.cos(x)), x)  # the upstream gradient is forgotten


def test_a_number_is_an_input_too_and_functions_may_write_to_what_they_get():
    assert check_gradient(descriptor(T.tanH), 1.5).agree == 1
    assert check_gradient((np.sin, lambda x, g: g * np.cos(x)), 1.5).agree == 1
    x = np.array([1.0, 2.0])
    in_place = (lambda x: np.sin(x, out=x), lambda x, g: np.multiply(np.cos(x, out=x), g, out=g))
    assert check_gradient(in_place, x).agree == 2
    assert x.tolist() == [1, 2]


def test_several_inputs():
    x, y = np.linspace(1, 2, 5), np.linspace(-3, 2, 5)

    def product(x, y):
        return x * x * y

    assert check_gradient((product, lambda x, y, g: (2 * g * x * y, g * x * x)), (x, y)).agree == 10
    with pytest.raises(mps.VerificationError) as raised:
        check_gradient((product, lambda x, y, g: (2 * g * x * y, g * x)), (x, y))
    assert {one.input for one in raised.value.report.worst} == {"input 1"}


@pytest.mark.parametrize("at_zero", [0.0, 0.5, 1.0])
def test_any_slope_between_the_sides_will_do_at_a_kink_of_ones_own(at_zero):
    def heaviside(x, g):
        return g * np.where(x == 0, at_zero, x > 0)

    assert check_gradient((lambda x: np.maximum(x, 0), heaviside), [-1.0, 0.0, -1e-7, 1e-7, 1e-4]).agree == 5
    for wrong in (-0.01, 1.01):
        with pytest.raises(mps.VerificationError, match="1 of 2"):
            check_gradient(
                (lambda x: np.maximum(x, 0), lambda x, g, w=wrong: g * np.where(x == 0, w, x > 0)), [0.0, 1.0]
            )


KINKED = {
    "reLU": (lambda x: np.maximum(x, 0), lambda x: x > 0, 0.0),
    "leaky": (lambda x: np.where(x > 0, x, x / 8), lambda x: np.where(x > 0, 1, 0.125), 0.0),
    "hardSigmoid": (lambda x: np.clip(0.2 * x + 0.5, 0, 1), lambda x: 0.2 * (np.abs(x) < 2.5), -2.5),
    "steep": (lambda x: np.where(x > 3, 1e3 * (x - 3), x - 3), lambda x: np.where(x > 3, 1e3, 1), 3.0),
}


@pytest.mark.parametrize("name", KINKED)
def test_right_functions_of_ones_own_pass_at_any_distance_from_a_kink_and_wrong_ones_do_not(name):
    function, slopes, kink = KINKED[name]
    distances = 10.0 ** -np.arange(3, 16)
    x = kink + np.concatenate([-distances, distances])

    assert check_gradient((function, lambda x, g: g * slopes(x)), x).wrong == 0
    for wrong in (slopes(np.array([kink - 1])), slopes(np.array([kink + 1]))):
        with pytest.raises(mps.VerificationError) as raised:
            check_gradient((function, lambda x, g, wrong=wrong: g * wrong), x)
        assert raised.value.report.wrong >= 5  # on one side, down to 1e-7


def test_a_complex_step_is_exact_beside_kinks_and_in_tails():
    x = np.array([-200.0, -40.0, -1e-12, 0.0, 1e-12, 3.0, 40.0])

    def soft_plus(x):
        return np.where(x.real > 0, x, 0) + np.log1p(np.exp(np.where(x.real > 0, -x, x)))

    def slopes(x, g):
        return g * special.expit(x)

    assert check_gradient((soft_plus, slopes), x, complex_step=True, rtol=1e-14).agree == 7
    with pytest.raises(mps.VerificationError, match="7 of 7"):
        check_gradient((soft_plus, lambda x, g: slopes(x, g) * (1 + 1e-12)), x, complex_step=True, rtol=1e-14)


# In float32, as Metal, MLX and JAX compute by default.
SINGLE = {
    "tanh": (np.tanh, lambda x, dy: dy * (1 - np.tanh(x) ** 2)),
    "sigmoid": (lambda x: 1 / (1 + np.exp(-x)), lambda x, dy: dy / (1 + np.exp(-x)) / (1 + np.exp(x))),
    "softPlus": (lambda x: np.logaddexp(np.float32(0), x), lambda x, dy: dy / (1 + np.exp(-x))),
    "reLU": (lambda x: np.maximum(x, 0), lambda x, dy: dy * (x > 0)),
}


def in_single(function, returns):
    """A function that computes in float32, whatever it gets."""
    return lambda *arrays: np.asarray(function(*(array.astype(np.float32) for array in arrays)), returns)


@pytest.mark.parametrize("name", SINGLE)
@pytest.mark.parametrize("how", ["dtype", "returns float32", "returns float64"])
def test_right_gradients_in_float32_pass_and_wrong_ones_do_not(name, how):
    forward, gradient = SINGLE[name]
    wrong = lambda x, dy: gradient(x, dy) * np.float32(1.01)  # noqa: E731
    given, functions = {"dtype": "float32"}, (forward, gradient, wrong)
    if how != "dtype":
        given, functions = {}, [in_single(each, how.removeprefix("returns ")) for each in (forward, gradient, wrong)]
    forward, gradient, wrong = functions

    for x in (np.linspace(-3, 3, 13), np.linspace(-8, 8, 200), np.linspace(-1e-3, 1e-3, 8)):
        report = check_gradient((forward, gradient), x, **given)
        assert report.dtype == "float32"
        assert report.agree > report.elements / 4
        assert "forward values are taken for float32, accurate to 4 ULP, 5e-07 of each" in report.text()
        with pytest.raises(mps.VerificationError):
            check_gradient((forward, wrong), x, **given)


FEW_DIGITS = {
    "clamp": (lambda x: np.clip(x, -1, 1), lambda x, dy: dy * (np.abs(x) <= 1)),
    "constant": (lambda x: 0 * x + 3, lambda x, dy: 0 * dy),
    "line": (lambda x: 2 * x, lambda x, dy: 2 * dy),
    "saturated": (lambda x: np.tanh(x + 50), lambda x, dy: 0 * dy),
}


@pytest.mark.parametrize("name", FEW_DIGITS)
def test_float64_is_not_taken_for_float32_because_its_values_have_few_digits(name):
    assert check_gradient(FEW_DIGITS[name], np.arange(-4.0, 5)).dtype == "float64"
    assert check_gradient(tuple(in_single(each, "f4") for each in FEW_DIGITS[name]), np.arange(-4.0, 5)).passed


def test_a_gradient_in_float32_of_a_forward_in_float64_is_judged_as_float32():
    forward, gradient = SINGLE["tanh"]

    report = check_gradient((forward, in_single(gradient, "f4")), np.linspace(-3, 3, 25))

    assert (report.dtype, report.wrong) == ("float32", 0)
    with pytest.raises(mps.VerificationError):
        check_gradient((forward, in_single(lambda x, dy: 1.01 * gradient(x, dy), "f4")), np.linspace(-3, 3, 25))


@pytest.mark.parametrize(
    ("forward", "gradient", "x"),
    [
        (np.floor, lambda x, dy: 0 * dy, np.arange(-4.0, 5)),
        (lambda x: 1e30 + x, lambda x, dy: dy, [1.0, 2.0]),
        (np.exp, lambda x, dy: dy * np.exp(x), [-800.0, -790.0]),
        (np.abs, lambda x, dy: dy, [np.nan, np.inf]),
    ],
)
def test_nothing_decided_is_no_pass(forward, gradient, x):
    with pytest.raises(mps.VerificationError, match="UNDECIDED: none of") as raised:
        check_gradient((forward, gradient), np.array(x))

    report = raised.value.report
    assert (report.agree, report.wrong, report.passed) == (0, 0, False)


def test_functions_get_arrays_of_the_dtype():
    seen = set()

    def forward(x):
        seen.add(x.dtype)
        return x * x

    for dtype in ("float32", np.float32, np.dtype("f4")):
        assert check_gradient((forward, lambda x, dy: seen.add(dy.dtype) or 2 * x * dy), [0.5, 1.5], dtype=dtype).passed
    assert seen == {np.dtype(np.float32)}
    assert check_gradient((np.sin, lambda x, dy: dy * np.cos(x)), np.linspace(-1, 1, 5)).dtype == "float64"


def test_what_decides_nothing_is_undecided_and_no_pass():
    for forward, x in ((lambda x: x + np.nan, [1.0, 2.0]), (lambda x: 1e30 + 0 * np.sin(x), [1.0])):
        with pytest.raises(mps.VerificationError, match=r"UNDECIDED: none of \d gradients? agrees") as raised:
            check_gradient((forward, lambda x, dy: dy * 1e-9), x)
        assert not raised.value.report.passed


def test_what_is_not_elementwise_is_refused():
    with pytest.raises(mps.ImplementationError, match="only elementwise functions"):
        check_gradient((special.softmax, lambda x, g: g), np.arange(4.0))
    with pytest.raises(mps.ImplementationError, match=r"returned float16\[2\] for float64\[2\]"):
        check_gradient((lambda x: x.astype(np.float16), lambda x, g: g), [1.0, 2.0])
    with pytest.raises(mps.ImplementationError, match="what it returned is None"):
        check_gradient((np.sin, lambda x, g: None), [1.0])
    with pytest.raises(mps.ImplementationError, match="raised ZeroDivisionError"):
        check_gradient((lambda x: 1 / 0, lambda x, g: g), [1.0])
    with pytest.raises(mps.ImplementationError, match="returned 1 gradients of 2 inputs"):
        check_gradient((np.add, lambda x, y, g: g), (np.ones(2), np.ones(2)))


# ---- graphs ----


def chain(**settings):
    x, y = mps.MPSNNImageNode(handle="x"), mps.MPSNNImageNode(handle="y")
    h = mps.MPSCNNNeuronTanHNode(source=x, a=1.5, b=0.75)
    s = mps.MPSNNAdditionNode(left_source=h.result_image, right_source=y)
    s.secondary_scale = -0.5
    for name, value in settings.items():
        setattr(s, name, value)
    r = mps.MPSCNNNeuronReLUNode(source=s.result_image, a=0.25)
    again = mps.MPSNNAdditionNode(left_source=r.result_image, right_source=h.result_image)
    return x, y, again


def two_inputs():
    rng = np.random.default_rng(7)
    return {"x": rng.normal(0, 2, (2, 3, 4)), "y": rng.normal(0, 2, (2, 3, 4))}


def test_a_graph_is_trained_and_passes():
    report = check_gradient(chain()[-1], two_inputs())

    assert (report.agree, report.elements) == (48, 48)


def test_a_graph_of_kinks_passes_where_inner_values_stand_at_them():
    x = mps.MPSNNImageNode(handle="x")
    minus = mps.MPSCNNNeuronLinearNode(source=x, a=-1.0, b=1.0)
    left, right = (mps.MPSCNNNeuronReLUNode(source=one, a=0.5) for one in (x, minus.result_image))
    total = mps.MPSNNAdditionNode(left_source=left.result_image, right_source=right.result_image)
    last = mps.MPSCNNNeuronPReLUNode(source=total.result_image, a_data=[0.1])
    # At 0 and 1 an inner value is at its kink, and so is the outer one where the two meet at 0.
    values = np.array([0.0, 1.0, 1e-12, 1 - 1e-12, -1e-9, 1 + 1e-9, 0.5, -3.0, 4.0]).reshape(1, -1, 1)

    report = check_gradient(last, values)

    # Where two slopes cancel, differences of rounded values do not quite.
    assert (report.wrong, report.agree) == (0, 8)


def test_kinks_that_need_both_directions_at_once():
    x = mps.MPSNNImageNode(handle="x")
    minus = mps.MPSCNNNeuronLinearNode(source=x, a=-1.0, b=0.0)
    left, right = (mps.MPSCNNNeuronReLUNode(source=one) for one in (x, minus.result_image))
    total = mps.MPSNNAdditionNode(left_source=left.result_image, right_source=right.result_image)

    # abs(x), of which the nodes say 1 - 1 at 0: neither side of the sum, but of each node its own.
    report = check_gradient(total, np.zeros((1, 1, 1)))

    assert (report.agree, report.wrong) == (1, 0)


def trained(x, y, last):
    dy = mps.MPSNNImageNode(handle="dz")
    gradients = {}
    last.training_graph(
        with_source_gradient=dy,
        node_handler=lambda node, _, source, __: gradients.__setitem__(source, node.result_image),
    )
    gradients[x].handle, gradients[y].handle = "dx", "dy"
    last.result_image.handle = "z"
    return [last.result_image, gradients[x], gradients[y]]


def test_a_graph_file_and_a_graph_pass():
    results = trained(*chain())
    file = mps.GraphFile.from_results(results)

    assert check_gradient(file, two_inputs()).agree == 48
    dz = np.random.default_rng(8).normal(size=(2, 3, 4))
    assert check_gradient(mps.GraphFile.from_json(file.to_json()), {**two_inputs(), "dz": dz}).agree == 48
    graph = mps.MPSNNGraph(result_images=results)
    named = {"gradients": {"dx": "x", "dy": "y"}, "upstream": {"z": "dz"}}
    assert check_gradient(graph, {**two_inputs(), "dz": dz}, **named).agree == 48
    with pytest.raises(mps.VerificationError):
        check_gradient(graph, two_inputs(), gradients={"dx": "y"}, upstream={"z": "dz"})


SOFT_PLUS = mps.MPSNNNeuronDescriptor(mps.MPSCNNNeuronType.softPlus)
MUTATIONS = {
    "parameter": (0, lambda node: vars(node).update(_descriptor=mps.MPSNNNeuronDescriptor(T.tanH, a=1.25, b=0.75))),
    "type": (1, lambda node: vars(node).update(_descriptor=SOFT_PLUS)),
    "source": (0, lambda node: vars(node).update(_sources=(node.sources[0], node.sources[0]))),
    "way": (0, lambda node: vars(node).update(_sources=(node.sources[0].producer.sources[0], node.sources[1]))),
    "scale": (2, lambda node: setattr(node, "secondary_scale", 0.5)),
}
"""Of the gradient of x, of ReLU, and of y: what is wrong with it."""


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_wrong_gradient_node_is_found(mutation):
    results = trained(*chain())
    dx, dy = (image.producer for image in results[1:])
    file = mps.GraphFile.from_results(results)
    assert check_gradient(file, two_inputs()).agree == 48
    which, change = MUTATIONS[mutation]

    change([dx, dy.sources[0].producer, dy][which])

    with pytest.raises(mps.VerificationError) as raised:
        check_gradient(file, two_inputs())
    assert {one.input for one in raised.value.report.worst} <= {0: {"x"}, 1: {"x", "y"}, 2: {"y"}}[which]


def test_a_clamp_is_named_where_the_gradient_filter_ignores_it():
    with pytest.raises(mps.VerificationError, match="a clamp holds here") as raised:
        check_gradient(chain(maximum_value=0.5)[-1], two_inputs())
    assert 0 < raised.value.report.wrong < 48
    # Not where it holds nothing.
    assert check_gradient(chain(maximum_value=50.0, minimum_value=-50.0)[-1], two_inputs()).agree == 48


def test_gradients_stop_where_they_are_told_to():
    last = chain()[-1]
    last.sources[0].producer.sources[0].stop_gradient = True

    assert check_gradient(last, two_inputs()).agree == 24  # of x, by the shorter way


@pytest.mark.parametrize(
    ("name", "given_"),
    [
        ("hardSigmoid", {"a": 3.4028235e38, "b": 0.0}),  # its kinks are 3e-39 apart
        ("tanH", {"a": -3.25, "b": 5e16}),  # saturated within the first steps
        ("reLUN", {"a": 1e-45, "b": -0.0}),  # a slope that float32 loses beside the kink
    ],
)
def test_extreme_parameters_are_no_mistake(name, given_):
    assert check_gradient(mps.MPSNNNeuronDescriptor(T[name], **given_), [0.0]).agree == 1


@pytest.mark.parametrize(
    ("name", "given_", "x"),
    [
        ("softPlus", {"a": 1.0, "b": 1e20}, 1e-15),  # far from where it bends, but all differences begin beyond that
        ("softPlus", {"a": 1.0, "b": 1e20}, -1e-15),
        ("softPlus", {"a": 1e-20, "b": -3.4028235e38}, 2.0764730954885424e-29),
        ("tanH", {"a": -0.109018736, "b": -1.3626599e16}, 1e-15),
        ("tanH", {"a": 521.0844, "b": 7.166628e21}, 2.9429674289144893e-21),
        ("power", {"a": 1.9511242, "b": 0.0, "c": 1.3084002}, 9.854274109727175e-271),  # its values are 0
        ("hardSigmoid", {"a": -0.7320962, "b": 5.6286294e16}, 7.688374028689256e16),  # both kinks, in float64
        ("hardSigmoid", {"a": -1.5390021, "b": 7.9944404e12}, 5194561216283.11),
        ("hardSigmoid", {"a": 1.0, "b": 1e-45}, 1.0),  # the kink is below
        ("hardSigmoid", {"a": 1.1754944e-38, "b": 3.5682125e31}, -3.035499486431038e69),  # beyond float32
    ],
)
def test_nothing_right_is_called_wrong_where_differences_cannot_see(name, given_, x):
    try:
        report = check_gradient(mps.MPSNNNeuronDescriptor(T[name], **given_), [x])
    except mps.VerificationError as error:
        report = error.report
    assert report.verdict.startswith(("PASS", "UNDECIDED"))


def test_the_slope_that_large_steps_show_is_not_taken_for_the_one_here(monkeypatch):
    d = mps.MPSNNNeuronDescriptor(T.softPlus, a=1.0, b=1e20)
    assert check_gradient(d, [1e-15]).agree == 1
    patched(monkeypatch, d, lambda x, y: y / 2)

    with pytest.raises(mps.VerificationError):
        check_gradient(d, [1e-15])


def test_one_gradient_without_a_finite_value_is_told_in_the_singular():
    d = mps.MPSNNNeuronDescriptor(mps.MPSCNNNeuronType.tanH)

    with pytest.raises(mps.VerificationError, match=r"UNDECIDED: .*; 1 has no finite value"):
        check_gradient(d, [np.nan])


def test_what_inner_rounding_errors_hide_is_undecided():
    x = mps.MPSNNImageNode(handle="x")
    far = mps.MPSCNNNeuronLinearNode(source=x, a=-1.0, b=5e16)
    back = mps.MPSCNNNeuronLinearNode(source=far.result_image, a=-1.0, b=5e16)

    with pytest.raises(mps.VerificationError, match="UNDECIDED: none of 6 gradients") as raised:
        check_gradient(back, np.ones((1, 2, 3)))

    assert (raised.value.report.wrong, raised.value.report.undecided) == (0, 6)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(mpst.graphs(training=True), st.integers(0, 2**32 - 1))
def test_the_gradients_of_any_graph_pass(file, seed):
    rng = np.random.default_rng(seed)
    names = [str(image.handle) for image in inputs(file.result_images)]
    # Kinks of the neurons that are drawn are met often, by sources and by inner images.
    given_ = {name: rng.choice([0.0, -0.0, 1.0, -1.0, 0.5, 2.5, -3.25, 6.0], (1, 6, 1)) for name in names}

    try:
        assert check_gradient(file, given_).wrong == 0
    except mps.VerificationError as error:
        report = error.report
        assert not report.wrong or all(one.note.startswith("a clamp holds here") for one in report.worst)
    except mps.ParameterError as error:
        assert "there is no gradient to be checked" in str(error)  # noqa: PT017  the drawn graph stops it


def test_an_initial_gradient_is_one():
    x = mps.MPSNNImageNode(handle="x")
    square = mps.MPSCNNNeuronPowerNode(source=x, a=1.0, b=0.0, c=2.0)

    assert check_gradient(mps.MPSNNInitialGradientNode(source=square.result_image), np.ones((1, 2, 3))).agree == 6


# ---- what is said ----


def test_the_report_names_input_place_and_numbers():
    def wrong(x, g):
        return g * np.where(x == 2.0, 5.0, 2 * x)

    with pytest.raises(AssertionError) as raised:
        check_gradient((np.square, wrong), np.array([[1.0, 2.0], [3.0, 4.0]]), upstream=np.ones((2, 2)), name="square")

    first, second = str(raised.value).splitlines()
    assert first == "square: FAIL: 1 of 4 gradients is wrong"
    assert second.startswith("  input[0, 1] = 2.0, upstream 1.0: gradient 5, differences give 4 +- ")
    report = raised.value.report
    assert pickle.loads(pickle.dumps(raised.value)).report == report  # noqa: S301  as xdist sends it
    again = json.loads(json.dumps(report.to_json()))
    assert (again["wrong"], again["worst"][0]["place"], again["passed"]) == (1, [0, 1], False)


@pytest.mark.parametrize(
    ("subject", "inputs", "given", "message"),
    [
        ("tanh", [1.0], {}, "subject is .tanh.: choose one of none, reLU"),
        (3, [1.0], {}, "subject is a int"),
        ((np.sin,), [1.0], {}, "give two functions"),
        (chain()[-1], {"x": np.ones((1, 1, 1))}, {}, "the sources are 'x', 'y'"),
        (chain()[-1], np.ones((1, 1, 1)), {}, "inputs is no mapping"),
        (chain()[-1], {"x": np.ones((1, 1, 1)), "y": np.ones((1, 2, 1))}, {}, "give one shape"),
        (chain()[-1], two_inputs(), {"complex_step": True}, "complex_step is for functions"),
        (chain()[-1], two_inputs(), {"gradients": {"dx": "x"}}, "gradients is for an MPSNNGraph"),
        (mps.MPSNNGraph(result_image=chain()[-1].result_image), two_inputs(), {}, "does not know what its results"),
        (mps.GraphFile.from_results([chain()[-1].result_image]), two_inputs(), {}, "there is no gradient"),
        (
            mps.MPSNNGraph(result_image=chain()[-1].result_image),
            two_inputs(),
            {"gradients": ["dx"], "upstream": {"y": "dy"}},
            "give gradients={'dx': 'x'}",
        ),
        ((np.sin, np.cos), [1.0], {"rtol": 2}, "rtol is 2"),
        ((np.sin, np.cos), [1.0], {"rtol": "1e-6"}, "rtol is '1e-6'"),
        ((np.sin, np.cos), [1.0], {"dtype": "float16"}, "dtype is 'float16': choose one of float64, float32"),
        ((np.sin, np.cos), [1.0], {"dtype": "real"}, "dtype is 'real'"),
        ((np.sin, np.cos), [1.0], {"dtype": "float32", "complex_step": True}, "dtype and complex_step"),
        ("tanH", [1.0], {"dtype": "float32"}, "dtype is for functions of your own"),
        ((np.sin, np.cos), [1.0], {"gradients": {"dx": "x"}}, "gradients is for an MPSNNGraph"),
        ((np.sin, np.cos), [], {}, "inputs are empty"),
        ((np.sin, np.cos), (), {}, "inputs are empty"),
        ((np.sin, np.cos), None, {}, "input is None"),
        ((np.sin, np.cos), np.arange(3), {}, "has dtype int64"),
    ],
)
def test_bad_arguments_are_refused(subject, inputs, given, message):
    with pytest.raises(mps.MPSRefError, match=message):
        check_gradient(subject, inputs, **given)
