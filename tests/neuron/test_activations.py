"""The activations that are not Apple's: limits, kinks, hard cases, parameters; and that nodes do not take them."""

import copy
import pickle

import numpy as np
import pytest

import mpsref as mps
from builders import BOTH, OTHERS, assert_correctly_rounded, cases, compute, descriptor_of, float32_inputs, seeded
from mpsref.activations import ACTIVATIONS, Activation, ActivationType

inf, nan = float("inf"), float("nan")
TWO = [(name, p) for name, sets in OTHERS.items() for p in sets[:2]]
ALL = [(name, p) for name, sets in OTHERS.items() for p in sets]
LAMBDA = float(np.float32(1.0507009873554805)) * float(np.float32(1.6732632423543772))
LN2, HALF, SIXTH, THREE_FIFTHS = 0.6931471805599453, 0.5, 1 / 6, 0.6

# By hand: the forward at -inf, inf, -0 and 0, then the slope there.
SPECIAL = {
    "silu": ((-0.0, inf, -0.0, 0.0), (-0.0, 1, HALF, HALF)),
    "quick_gelu": ((-0.0, inf, -0.0, 0.0), (-0.0, 1, HALF, HALF)),
    "gelu_tanh": ((-0.0, inf, -0.0, 0.0), (-0.0, 1, HALF, HALF)),
    "mish": ((-0.0, inf, -0.0, 0.0), (-0.0, 1, THREE_FIFTHS, THREE_FIFTHS)),
    "hardswish": ((-0.0, inf, -0.0, 0.0), (0.0, 1, HALF, HALF)),
    "hardsigmoid": ((0.0, 1, HALF, HALF), (0.0, 0.0, SIXTH, SIXTH)),
    "selu": ((-LAMBDA, inf, -0.0, 0.0), (0.0, np.float32(1.0507009873554805), LAMBDA, LAMBDA)),
    "celu": ((-1, inf, -0.0, 0.0), (0.0, 1, 1, 1)),
    "logsigmoid": ((-inf, -0.0, -LN2, -LN2), (1, 0.0, HALF, HALF)),
    "softplus": ((0.0, inf, LN2, LN2), (0.0, 1, HALF, HALF)),
    "relu_squared": ((0.0, inf, 0.0, 0.0), (0.0, inf, 0.0, 0.0)),
    "tanhshrink": ((-inf, inf, -0.0, 0.0), (1, 1, 0.0, 0.0)),
    "softshrink": ((-inf, inf, 0.0, 0.0), (1, 1, 0.0, 0.0)),
    "hardshrink": ((-inf, inf, 0.0, 0.0), (1, 1, 0.0, 0.0)),
}


def test_the_tables_are_apart():
    assert list(ACTIVATIONS) == list(ActivationType)
    assert set(OTHERS) == set(SPECIAL) == set(ActivationType.__members__)
    assert not set(ACTIVATIONS) & set(mps.NEURONS)
    assert len(mps.NEURONS) == 16


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("name", SPECIAL)
def test_at_an_infinity_the_result_is_the_limit_with_its_sign(name, dtype):
    x, (values, slopes) = np.array([-inf, inf, -0.0, 0.0], dtype), SPECIAL[name]
    for got, want in (
        (mps.neuron.forward(name, x), values),
        (mps.neuron.gradient(name, x, np.ones_like(x)), slopes),
        (mps.neuron.specified(name, x), values),
        (mps.neuron.specified_gradient(name, x, np.ones_like(x)), slopes),
    ):
        with np.errstate(over="ignore"):
            wanted = np.array(want, np.float64).astype(dtype)
        assert got.tobytes() == wanted.tobytes(), (got, wanted)
    assert np.isnan(mps.neuron.forward(name, np.array([nan], dtype))).all()
    assert np.isnan(mps.neuron.gradient(name, np.array([nan], dtype), np.ones(1, dtype))).all()


@pytest.mark.parametrize(
    ("name", "at", "slope"),
    [
        ("hardswish", -3, 0), ("hardswish", 3, 1), ("hardsigmoid", -3, 0), ("hardsigmoid", 3, 0),
        ("selu", 0, np.float32(LAMBDA)), ("celu", 0, 1), ("softshrink", 0.5, 0), ("softshrink", -0.5, 0),
        ("hardshrink", 0.5, 0), ("relu_squared", 0, 0),
    ],
)  # fmt: skip
def test_at_a_kink_the_slope_is_that_of_torch(name, at, slope):
    assert mps.neuron.gradient(name, np.float32([at]), np.float32([1])) == slope


@cases(ALL)
def test_the_slopes_beside_a_kink_are_those_that_the_row_states(name, p):
    d = descriptor_of(name, p)
    kinks, sides = d.row.kinks(d), d.row.sides(d)
    assert len(kinks) == len(sides)
    for kink, side in zip(kinks, sides, strict=True):
        beside = np.nextafter(np.float32(kink), np.float32([-inf, inf]))
        np.testing.assert_allclose(mps.neuron.gradient(d, beside, np.ones_like(beside)), side, rtol=1e-6, atol=1e-6)


@BOTH
@cases(TWO)
def test_float32_is_correctly_rounded(name, p, derivative):
    rng, x = seeded(name, p, "float32"), float32_inputs(name, p, 1 << 14)
    assert_correctly_rounded(name, p, x[rng.permutation(x.size)[:1500]], derivative)


@pytest.mark.exhaustive
@BOTH
@cases(ALL)
def test_every_half_and_many_float32_are_correctly_rounded(name, p, derivative):
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    for x in (halves[np.isfinite(halves)], float32_inputs(name, p, 1 << 18)):
        assert_correctly_rounded(name, p, x, derivative)


@cases(TWO)
def test_products_with_gradients_are_rounded_once(name, p):
    rng = seeded(name, p, "pairs")
    x = rng.normal(0, 3, 400).astype(np.float32)
    x[:200] = np.ldexp(rng.normal(size=200), rng.integers(-140, -10, 200))
    upstream = rng.integers(1, 256, 400).astype(np.uint32).view(np.float32)
    upstream[::2] = rng.normal(size=200)
    assert_correctly_rounded(name, p, x, True, upstream)


@pytest.mark.parametrize("name", ["silu", "quick_gelu", "gelu_tanh", "hardswish"])
def test_x_over_2_and_a_little_more_is_no_tie(name):
    """Of every odd subnormal x the half is a tie of the subnormal numbers, and the value lies above it."""
    bits = np.arange(1, 2001, 2, dtype=np.uint32)
    for sign in (1, -1):
        got = np.abs(compute(name, (), sign * bits.view(np.float32))).view(np.uint32)
        np.testing.assert_array_equal(got, (bits.astype(int) + sign) // 2)


@pytest.mark.parametrize("sign", [1, -1])
def test_x_less_1_and_a_little_more_is_no_tie(sign):
    x = np.float32(2.0**23) + np.arange(1, 1001, 2, dtype=np.float32)  # odd: x - 1 is even, of x + 1 the format has it
    big = np.float32(2.0**24) + 2 * np.arange(1, 1000, dtype=np.float32)  # even: x - 1 is a tie

    assert (compute("tanhshrink", (), sign * x) == sign * (x - 1)).all()
    assert (compute("tanhshrink", (), sign * big) == sign * big).all()


def test_the_threshold_of_softplus_cuts():
    d = Activation("softplus", beta=2, threshold=4)
    x = np.float32([2, np.nextafter(np.float32(2), np.float32(3))])

    assert mps.neuron.forward(d, x).tolist() == [np.float32(np.log1p(np.exp(4)) / 2), x[1]]
    assert mps.neuron.gradient(d, x, np.ones_like(x))[1] == 1


# ---- names and parameters ----


def test_a_name_means_the_defaults_and_parameters_are_float32():
    d = Activation("quick_gelu")

    assert d.parameters == {"alpha": float(np.float32(1.702))}
    assert Activation("silu", beta=2) == Activation(ActivationType.silu, beta=2.0) != Activation("silu")
    assert Activation("silu") != mps.MPSNNNeuronDescriptor("sigmoid")
    assert repr(Activation("softplus", beta=3)) == "Activation('softplus', beta=3.0, threshold=20.0)"
    for other in (pickle.loads(pickle.dumps(d)), copy.deepcopy(d)):  # noqa: S301
        assert other == d
        assert hash(other) == hash(d)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Activation("swish"), "name is 'swish': choose one of silu"),
        (lambda: Activation("silu", alpha=1), "alpha is no parameter of silu: it has beta"),
        (lambda: Activation("mish", beta=1), "beta is no parameter of mish: it has none"),
        (lambda: Activation("silu", beta="1"), "beta is '1': give a number"),
        (lambda: Activation("celu", alpha=0), "alpha is 0.0: give more than 0"),
        (lambda: Activation("softplus", beta=-1), "beta is -1.0: give more than 0"),
        (lambda: Activation("softshrink", lambd=-0.5), "lambd is -0.5: give at least 0"),
        (lambda: mps.neuron.forward("swish", np.ones(2)), "descriptor is 'swish': choose one of none"),
    ],
)
def test_a_wrong_name_or_parameter_gets_an_error(make, message):
    with pytest.raises(mps.ParameterError, match=message):
        make()


def test_nodes_and_layers_do_not_take_them():
    x = mps.MPSNNImageNode(handle="x")
    layer = mps.MPSCNNConvolutionDescriptor(
        kernel_width=1, kernel_height=1, input_feature_channels=1, output_feature_channels=1
    )
    for make in (
        lambda: mps.MPSCNNNeuronNode(source=x, descriptor="silu"),
        lambda: mps.MPSCNNNeuronNode(source=x, descriptor=Activation("silu")),
        lambda: setattr(layer, "fused_neuron_descriptor", Activation("silu")),
    ):
        with pytest.raises(mps.ParameterError, match=r"silu|Activation"):
            make()
