"""Faults that are planted, by code of the tests' own, and what is said of them."""

from __future__ import annotations

import importlib
import math
import pkgutil
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from scipy.special import erf

import mpsref as mps
from mpsref.arrays import Elements
from mpsref.graph.schedule import inputs, schedule
from mpsref.operations import NeuronForward, NeuronGradient, Scaling, Sum
from mpsref.storage import FORMATS, storage_format
from mpsref.verify import Recording, Tolerance, hypotheses, ulp_distance
from mpsref.verify.case import Case, within
from mpsref.verify.faults import HYPOTHESES, NO_FAULT, explain
from mpsref.verify.hypotheses import Candidate, Hypothesis
from mpsref.verify.regions import EVERYWHERE, Region
from mpsref.verify.search import Trial, ranked

T, F = mps.MPSCNNNeuronType, mps.MPSImageFeatureChannelFormat
EXAMPLES = Path(__file__).parents[2] / "examples" / "gpu-run"
HALF, SINGLE = FORMATS[F.float16], FORMATS[F.float32]
SHAPE = (3, 9, 10, 14)


class Planted(NamedTuple):
    operation: Any
    sources: tuple
    want: np.ndarray
    got: np.ndarray
    ulp: int = 4
    noisy: bool = True


def neuron(name, *parameters, **data):
    return mps.MPSNNNeuronDescriptor(T[name], *parameters, **data)


def normal(seed, dtype=np.float32, shape=SHAPE, spread=2.0):
    return (np.random.default_rng(seed).normal(0, 1, shape) * spread).astype(dtype)


def case_of(planted, noise=0):
    """The case of a planted fault, if every second element besides is off by so many ULP."""
    got = planted.got
    storage = next(f for f in FORMATS.values() if f.dtype == planted.want.dtype)
    if noise:
        steps = np.random.default_rng(5).integers(-noise, noise + 1, got.shape).astype(f"i{got.itemsize}")
        with np.errstate(invalid="ignore"):
            special = ~np.isfinite(got) | (got == 0) | (np.abs(got) < np.finfo(got.dtype).tiny)
        got = (got.view(steps.dtype) + np.where(special, 0, steps)).view(got.dtype)
    is_close = within(storage, Tolerance(ulp=planted.ulp))
    formats = {f.dtype: f for f in FORMATS.values()}
    sources = tuple(Elements(source, formats[source.dtype]) for source in planted.sources)
    return Case(planted.operation, sources, storage, got, planted.want, ~is_close(None)(planted.want, got), is_close)


def forward_case(descriptor, x, got, ulp=4):
    return Planted(NeuronForward(descriptor), (x,), mps.neuron.forward(descriptor, x), np.ascontiguousarray(got), ulp)


def gradient_case(descriptor, x, dy, got, ulp=4):
    want = mps.neuron.gradient(descriptor, x, dy)
    return Planted(NeuronGradient(descriptor), (dy, x), want, np.ascontiguousarray(got).astype(want.dtype), ulp)


def moved(move, descriptor=None, dtype=np.float16, shape=SHAPE):
    """What a neuron gives, and what a program makes of its bytes."""
    descriptor = neuron("tanH", 1.5, 0.75) if descriptor is None else descriptor
    x = normal(1, dtype, shape)
    return forward_case(descriptor, x, move(mps.neuron.forward(descriptor, x)))


PLANTED: dict[str, tuple[str, Any]] = {}


def plant(name, detail=""):
    def keep(make):
        PLANTED[make.__name__] = (name, detail), make
        return make

    return keep


# ---- layout ----


@plant("lanes permuted", "in the order (2, 1, 0, 3)")
def bgra_for_rgba():
    return moved(lambda y: y.reshape(3, 9, 10, 4, 4)[..., [2, 1, 0, 3]].reshape(y.shape), shape=(3, 9, 10, 16))


@plant("lanes permuted", "in the order (1, 2, 3, 0), in the first source")
def lanes_of_the_incoming_gradient_rotated():
    d, x, dy = neuron("softSign"), normal(1, shape=(2, 5, 6, 8)), normal(2, shape=(2, 5, 6, 8))
    rotated = dy.reshape(2, 5, 6, 2, 4)[..., [1, 2, 3, 0]].reshape(dy.shape)
    return gradient_case(d, x, dy, mps.neuron.gradient(d, x, rotated))


@plant("pixel-major and channel-major confused", "written channel after channel")
def channel_major_read_as_pixel_major():
    return moved(lambda y: np.stack([image.transpose(2, 0, 1).reshape(image.shape) for image in y]))


@plant("pixel-major and channel-major confused", "written pixel after pixel")
def pixel_major_read_as_channel_major():
    return moved(lambda y: np.stack([np.reshape(image, (14, 9, 10)).transpose(1, 2, 0) for image in y]))


@plant("texture slices taken for pixels", "written slice after slice")
def a_dumped_texture():
    def dump(y):
        images = [mps.MPSImage.from_array(image) for image in y]
        return np.stack([image.texture.reshape(y[0].shape) for image in images])

    return moved(dump, shape=(2, 6, 7, 12))


@plant("rows and columns swapped", "column after column")
def transposed():
    return moved(lambda y: y.transpose(0, 2, 1, 3).reshape(y.shape))


@plant("rows and columns swapped", "upside down")
def upside_down():
    return moved(lambda y: y[:, ::-1])


@plant("wrong row stride", "written with one of 12 pixels")
def padded_rows_read_densely():
    def pad(y):
        padded = np.zeros((3, 9, 12, 14), y.dtype)
        padded[:, :, :10] = y
        return padded.reshape(3, -1)[:, : 9 * 10 * 14].reshape(y.shape)

    return moved(pad)


@plant("wrong row stride", "written with one of 256 elements, a multiple of 32 elements")
def rows_that_begin_at_256_elements():
    def pad(y):
        padded = np.zeros((3, 9, 256), y.dtype)
        padded[:, :, :230] = y.reshape(3, 9, 230)
        return padded.reshape(3, -1)[:, : 9 * 230].reshape(y.shape)

    return moved(pad, shape=(3, 9, 10, 23))


@plant("wrong row stride", "read with one of 11 pixels")
def dense_rows_read_with_a_pixel_too_many():
    def skip(y):
        wide = np.zeros((3, 10 * 11 * 14), y.dtype)
        wide[:, : 9 * 10 * 14] = y.reshape(3, -1)
        return np.stack([image[: 9 * 11 * 14].reshape(9, 11, 14)[:, :10] for image in wide])

    return moved(skip)


@plant("wrong offset", "37 elements later")
def written_too_late():
    return moved(lambda y: np.concatenate([np.zeros(37, y.dtype), y.reshape(-1)[:-37]]).reshape(y.shape))


@plant("wrong offset", "140 elements earlier than they should, 1 rows")
def read_a_row_too_far():
    return moved(lambda y: np.concatenate([y.reshape(-1)[140:], np.zeros(140, y.dtype)]).reshape(y.shape))


@plant("padding lanes counted as channels", "written, but not expected")
def padding_lanes_in_the_dump():
    def pad(y):
        padded = np.zeros((3, 9, 10, 16), y.dtype)
        padded[..., :14] = y
        return padded.reshape(3, -1)[:, : 9 * 10 * 14].reshape(y.shape)

    return moved(pad)


@plant("another image of the batch", "1 later")
def the_next_image():
    return moved(lambda y: np.roll(y, -1, axis=0))


@plant("another image of the batch", "image 0 for all")
def the_first_image_for_all():
    return moved(lambda y: np.broadcast_to(y[:1], y.shape))


# ---- parameters ----


SLOPES = np.array([0.25, -0.5, 0.125, 0.75, 0.3, -0.2, 0.05, 0.9, 0.6, -0.7, 0.45, 0.15, 0.33, -0.11])


def other_slopes(slopes):
    x = normal(1, np.float16)
    d, other = neuron("pReLU", data=SLOPES), neuron("pReLU", data=slopes)
    return forward_case(d, x, mps.neuron.forward(other, x))


@plant("the slope of another channel", "1 channels before")
def slopes_shifted():
    return other_slopes(np.roll(SLOPES, 1))


@plant("the slope of another channel", "in reverse order")
def slopes_reversed():
    return other_slopes(SLOPES[::-1])


@plant("the slope of another channel", "channel 0's for all")
def one_slope_for_all():
    return other_slopes(np.full(14, SLOPES[0]))


@plant("the slope of another channel", "those of the first slice for all")
def slopes_of_the_first_slice():
    return other_slopes(np.resize(SLOPES[:4], 14))


@plant("the slope of another channel", "lanes in the order (2, 1, 0, 3)")
def slopes_as_bgra():
    return other_slopes(SLOPES[[2, 1, 0, 3, 6, 5, 4, 7, 10, 9, 8, 11, 12, 13]])


@plant("the slope of another channel", "channels 4 and 7 exchanged")
def two_slopes_exchanged():
    return other_slopes(SLOPES[[0, 1, 2, 3, 7, 5, 6, 4, 8, 9, 10, 11, 12, 13]])


@plant("the slope of another channel", "1 channels after")
def slopes_shifted_in_a_gradient():
    x, dy = normal(1), normal(2)
    d, other = neuron("pReLU", data=SLOPES), neuron("pReLU", data=np.roll(SLOPES, -1))
    return gradient_case(d, x, dy, mps.neuron.gradient(other, x, dy))


def other_parameters(name, given, other, ulp=4, dtype=np.float16):
    x = np.abs(normal(1, dtype)) if name == "power" else normal(1, dtype)
    d = neuron(name, *given)
    return forward_case(d, x, mps.neuron.forward(neuron(name, *other), x), ulp)


@plant("parameters swapped", "b, a for a, b")
def a_and_b_swapped():
    return other_parameters("tanH", (1.5, 0.75), (0.75, 1.5))


@plant("parameters swapped", "c, b, a for a, b, c")
def a_and_c_swapped():
    return other_parameters("power", (0.5, 1.0, 2.5), (2.5, 1.0, 0.5))


@plant("a parameter left out", "b = 0")
def b_missing():
    return other_parameters("linear", (1.5, 0.25), (1.5, 0.0))


@plant("a parameter at its default", "b = 6.0")
def b_at_its_default():
    return other_parameters("reLUN", (0.1, 1.5), (0.1, 6.0))


@plant("a parameter at its default", "a = 1.0, b = 1.0")
def both_at_their_defaults():
    return other_parameters("softPlus", (1.5, 0.75), (1.0, 1.0))


@plant("parameters rounded to half", "a")
def a_in_half():
    return other_parameters("linear", (0.1, 0.25), (float(np.float16(0.1)), 0.25), dtype=np.float32)


@plant("parameters rounded to half", "data")
def slopes_in_half():
    x, rounded = normal(1), SLOPES.astype(np.float16).astype(np.float32)
    d = neuron("pReLU", data=SLOPES)
    return forward_case(d, x, mps.neuron.forward(neuron("pReLU", data=rounded), x))


@plant("c = -1 taken literally")
def the_base_minus_one():
    x = np.round(normal(1, np.float32))
    return forward_case(neuron("exponential"), x, np.where(x % 2 == 0, 1, -1).astype(np.float32))


@plant("parameters swapped", "secondary_scale for primary_scale")
def scales_exchanged():
    x, y = normal(1), normal(2)
    return Planted(Sum((2.0, 0.5)), (x, y), 2 * x + y / 2, x / 2 + 2 * y, ulp=8)


@plant("a parameter left out", "primary_scale = 1")
def a_scale_ignored():
    x, y = normal(1), normal(2)
    return Planted(Sum((2.0, 0.5)), (x, y), 2 * x + y / 2, x + y / 2, ulp=8)


@plant("a parameter left out", "scale = 1")
def the_scale_of_a_gradient_ignored():
    dy, x = normal(1), normal(2)
    return Planted(Scaling(0.25), (dy, x), dy / 4, dy)


@plant("the node was left out", "from the second source")
def only_the_right_summand():
    x, y = normal(1), normal(2)
    return Planted(Sum(), (x, y), x + y, y.copy())


# ---- the function ----


@plant("an approximation of geLU", "tanh")
def gelu_by_tanh():
    x = normal(1, np.float32)
    wide = x.astype(np.float64)
    y = wide / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (wide + 0.044715 * wide**3)))
    return forward_case(neuron("geLU"), x, y.astype(np.float32))


@plant("an approximation of geLU", "sigmoid")
def gelu_by_sigmoid():
    x = normal(1, np.float16)
    wide = x.astype(np.float64)
    return forward_case(neuron("geLU"), x, (wide / (1 + np.exp(-1.702 * wide))).astype(np.float16))


@plant("geLU's second gradient term doubled")
def gelu_of_the_header():
    x, dy = normal(1), normal(2)
    wide = x.astype(np.float64)
    distribution, density = (1 + erf(wide / math.sqrt(2))) / 2, np.exp(-(wide**2) / 2) / math.sqrt(2 * math.pi)
    return gradient_case(neuron("geLU"), x, dy, dy * (distribution + 2 * wide * density))


@plant("reLUN's slope is b")
def relun_of_the_header():
    x, dy = normal(1), normal(2)
    slope = np.where(x < 0, np.float32(0.1), np.where(x < 1.5, 1, 1.5))
    return gradient_case(neuron("reLUN", 0.1, 1.5), x, dy, dy * slope)


@plant("hardSigmoid's gradient tests x")
def hard_sigmoid_of_the_header():
    x, dy = normal(1), normal(2)
    return gradient_case(neuron("hardSigmoid"), x, dy, np.where((x >= 0) & (x <= 1), dy * np.float32(0.2), 0))


@plant("ELU without parentheses")
def elu_of_the_header():
    x = normal(1)
    y = np.where(x < 0, 1.25 * np.exp(x.astype(np.float64)) - 1, x)
    return forward_case(neuron("ELU", 1.25), x, y.astype(np.float32))


def gradients(name, *parameters, dtype=np.float16):
    return neuron(name, *parameters), normal(1, dtype), normal(2, dtype)


@plant("the derivative taken at the output")
def slope_at_the_output():
    d, x, dy = gradients("sigmoid")
    return gradient_case(d, x, dy, mps.neuron.gradient(d, mps.neuron.forward(d, x), dy))


@plant("the slope from the stored result")
def slope_from_a_sigmoid_in_half():
    d, x, dy = neuron("sigmoid"), normal(1, np.float16, spread=4.0), normal(2, np.float16)
    y = (1 / (1 + np.exp(-x.astype(np.float64)))).astype(np.float16).astype(np.float64)
    return gradient_case(d, x, dy, dy * (y * (1 - y)))


@plant("the slope from the stored result")
def slope_from_a_tanh_in_half():
    d, x, dy = neuron("tanH", 1.5, 0.75), normal(1, np.float16, spread=4.0), normal(2, np.float16)
    t = (1.5 * np.tanh(0.75 * x.astype(np.float64))).astype(np.float16).astype(np.float64) / 1.5
    return gradient_case(d, x, dy, dy * (1.5 * 0.75 * (1 - t * t)))


@plant("the slope from the stored result")
def slope_from_an_elu_in_half():
    d, x, dy = neuron("ELU", 2.0), normal(1, np.float16, spread=4.0), normal(2, np.float16)
    y = (2 * np.expm1(np.minimum(x, 0).astype(np.float64))).astype(np.float16).astype(np.float64)
    return gradient_case(d, x, dy, dy * np.where(x >= 0, 1, y + 2))


@plant("the incoming gradient is missing")
def no_incoming_gradient():
    d, x, dy = gradients("softSign")
    return gradient_case(d, x, dy, mps.neuron.gradient(d, x, np.ones_like(dy)))


@plant("the incoming gradient applied twice")
def the_incoming_gradient_twice():
    d, x, dy = gradients("tanH", 1.5, 0.75, dtype=np.float32)
    return gradient_case(d, x, dy, mps.neuron.gradient(d, x, dy) * dy)


@plant("the node was left out", "from the first source")
def the_slope_left_out():
    d, x, dy = gradients("geLU")
    return gradient_case(d, x, dy, dy)


@plant("forward instead of gradient")
def values_for_gradients():
    d, x, dy = gradients("softPlus", 1.5, 0.75)
    return gradient_case(d, x, dy, mps.neuron.forward(d, x))


@plant("the sign flipped")
def minus():
    d, x, dy = gradients("ELU")
    return gradient_case(d, x, dy, -mps.neuron.gradient(d, x, dy))


@plant("applied twice")
def neuron_twice():
    d, x = neuron("sigmoid"), normal(1, np.float16)
    return forward_case(d, x, mps.neuron.forward(d, mps.neuron.forward(d, x)))


@plant("accumulated twice")
def gradient_added_to_itself():
    d, x, dy = gradients("sigmoid")
    return gradient_case(d, x, dy, 2 * mps.neuron.gradient(d, x, dy))


@plant("another neuron", "softSign")
def soft_sign_for_tanh():
    x = normal(1, np.float16)
    return forward_case(neuron("tanH", 1.5, 0.75), x, x / (1 + np.abs(x)))


@plant("another slope at the kink", "slope 0")
def no_slope_at_zero():
    x, dy = np.round(normal(1)), normal(2)
    return gradient_case(neuron("reLU", 0.1), x, dy, dy * np.where(x > 0, 1, np.where(x < 0, np.float32(0.1), 0)))


@plant("another slope at the kink", "slope data[channel]")
def the_left_slope_at_zero():
    x, dy = np.round(normal(1)), normal(2)
    return gradient_case(neuron("pReLU", data=SLOPES), x, dy, dy * np.where(x > 0, 1, SLOPES.astype(np.float32)))


# ---- special values and precision ----


@plant("NaN turned to 0")
def no_nan():
    x = normal(1, np.float16)
    x[:, 2:5, 3] = np.nan
    d = neuron("geLU")
    return forward_case(d, x, np.nan_to_num(mps.neuron.forward(d, x)))


@plant("NaN lost in a comparison")
def nan_to_the_upper_bound():
    x = normal(1, np.float16)
    x[:, 2:5, 3] = np.nan
    return forward_case(
        neuron("reLUN", 0.1, 1.5), x, np.fmin(np.where(x >= 0, x, np.float16(0.1) * x), np.float16(1.5))
    )


@plant("fast tanh")
def tanh_that_overflows():
    x = normal(1, spread=40)
    with np.errstate(over="ignore", invalid="ignore"):
        t = np.exp(2 * x)
        y = (t - 1) / (t + 1)
    return forward_case(
        neuron("tanH"), x, np.where(np.isnan(y), np.nan, np.tanh(x.astype(np.float64))).astype(np.float32)
    )


@plant("fast tanh", "2^126")
def tanh_that_divides_by_too_much():
    x = normal(1, spread=40)
    y = np.tanh(x.astype(np.float64))
    y[x > 43.68] = 0
    y[x > 44.36142] = np.nan
    return forward_case(neuron("tanH"), x, y.astype(np.float32))


@plant("subnormals flushed", "in the sources")
def small_sources_are_zero():
    x = normal(1) * np.float32(2.0**-126)
    return forward_case(neuron("linear", 2.0, 0.0), x, 2 * np.where(np.abs(x) < 2.0**-126, np.copysign(0, x), x))


@plant("subnormals flushed", "in the result")
def small_results_are_zero():
    x = normal(1) * np.float32(2.0**-126)
    y = x / 4
    return forward_case(neuron("linear", 0.25, 0.0), x, np.where(np.abs(y) < 2.0**-126, np.copysign(0, y), y))


@plant("the literal formula overflows")
def softplus_overflows():
    x = normal(1, spread=60)
    with np.errstate(over="ignore"):
        literal = np.log1p(np.exp(x))
    d = neuron("softPlus")
    return forward_case(d, x, np.where(np.isinf(literal), literal, mps.neuron.forward(d, x)))


@plant("computed in half")
def softsign_in_half():
    x = normal(1, np.float16, spread=8)
    one, scale = np.float16(1), np.float16(0.3)
    y = ((scale * x).astype(np.float16) + one).astype(np.float16)
    y = np.power(y.astype(np.float64), 3).astype(np.float16)
    return forward_case(neuron("power", float(scale), 1.0, 3.0), x, y)


@plant("stored through half")
def a_half_in_between():
    x = normal(1)
    d = neuron("sigmoid")
    return forward_case(d, x, mps.neuron.forward(d, x).astype(np.float16).astype(np.float32))


@plant("read through half", "the second source")
def a_source_in_half():
    d, x, dy = gradients("ELU", dtype=np.float32)
    return gradient_case(d, x, dy, mps.neuron.gradient(d, x.astype(np.float16).astype(np.float32), dy))


@plant("truncated instead of rounded")
def towards_zero():
    x = normal(1, np.float16)
    exact = np.tanh(x.astype(np.float64) * 0.75) * 1.5
    y = exact.astype(np.float16)
    y = np.where(np.abs(y) > np.abs(exact), np.nextafter(y, np.float16(0)), y)
    return forward_case(neuron("tanH", 1.5, 0.75), x, y, ulp=0)


@plant("the formula in float32", "stepwise")
def a_plain_shader():
    x = -np.abs(normal(1))
    phi = (1 + erf(x * np.float32(math.sqrt(0.5)))).astype(np.float32)
    return forward_case(neuron("geLU"), x, np.float32(0.5) * x * phi)


# ---- memory ----


@plant("never written", "zeros")
def nothing_written():
    return moved(np.zeros_like)


@plant("never written", "0xcdcd")
def a_fill_pattern():
    return moved(lambda y: np.full(y.shape, 0xCDCD, np.uint16).view(np.float16))._replace(noisy=False)


@plant("never written", "0xbeef dead")
def a_fill_pattern_of_two():
    return moved(lambda y: np.resize(np.array([0xBEEF, 0xDEAD], np.uint16), y.shape).view(np.float16))._replace(
        noisy=False
    )


@plant("never written", "zeros, only in rows 6 to 8, columns 8 to 9")
def a_corner_left_out():
    def leave(y):
        y = y.copy()
        y[:, 6:, 8:] = 0
        return y

    return moved(leave)


@plant("never written", "zeros, only from element 2,000 on")
def stopped_in_the_middle():
    def leave(y):
        y = y.copy()
        y.reshape(-1)[2000:] = 0
        return y

    return moved(leave)


@pytest.mark.parametrize("noise", [0, 1])
@pytest.mark.parametrize("kind", PLANTED)
def test_the_planted_fault_is_named_first(kind, noise):
    (name, detail), make = PLANTED[kind]
    planted = make()
    case = case_of(planted, noise if planted.ulp and planted.noisy else 0)
    assert case.bad_index.size

    first, *others = explain(case)

    assert first.name == name, "\n".join(f.headline for f in (first, *others))
    assert first.fits
    assert detail in first.headline
    assert first.explained <= first.of == case.bad_index.size
    assert first.example is not None
    assert all(other.name != name for other in others)


def test_more_than_25_kinds_are_planted_and_every_hypothesis_is():
    assert len(PLANTED) > 25
    assert {name for (name, _), _ in PLANTED.values()} == {hypothesis.name for hypothesis in HYPOTHESES}


# ---- which comes first ----


def trial(order, explained, *, where="", same_bits=0, contradicted=0.0):
    region = Region(where, EVERYWHERE.holds)
    return Trial(order, ("",), Candidate(), region, explained, same_bits, 100 * contradicted, 100)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (trial(5, 100), trial(0, 97)),
        (trial(0, 99), trial(5, 100)),
        (trial(5, 98, contradicted=0.02), trial(0, 99, contradicted=0.1)),
        (trial(5, 99), trial(0, 100, where="in row 3")),
        (trial(5, 100, where="in row 3"), trial(0, 90)),
        (trial(5, 99, same_bits=80), trial(0, 100, same_bits=60)),
        (trial(0, 99, same_bits=70), trial(5, 100, same_bits=75)),
        (trial(5, 99), trial(0, 100, where="in row 3", same_bits=90)),
    ],
)
def test_the_rules_of_rank(first, second):
    assert ranked([first, second]) == ranked([second, first]) == [first, second]


def test_a_few_equal_elements_are_not_taken_for_memory_that_was_never_written():
    x = normal(1, shape=(1, 1, 1, 4))
    d = neuron("sigmoid")

    assert explain(case_of(forward_case(d, x, np.full_like(x, 7.25))))[0].name == NO_FAULT


def test_a_few_elements_have_no_region_of_their_own():
    x = normal(1)
    y = mps.neuron.forward(neuron("tanH"), x)
    y[0, 3, 4, :3] *= -1

    assert explain(case_of(forward_case(neuron("tanH"), x, y)))[0].name == NO_FAULT


def test_an_element_that_a_hypothesis_leaves_within_bounds_does_not_contradict_it():
    rng = np.random.default_rng(1)
    x = np.where(rng.random(SHAPE) < 0.1, rng.uniform(0, 9, SHAPE), rng.uniform(4096, 8192, SHAPE)).astype(np.float16)
    d = neuron("linear", 1.5, 2.0)
    want = mps.neuron.forward(d, x)
    # Far from 0, where b hardly shows, as far from what is wanted as the bounds allow.
    noise = np.where(x > 10, rng.choice([-4, 4], SHAPE), 0).astype(np.int16)
    got = np.where(x > 10, (want.view(np.int16) + noise).view(np.float16), np.float16(1.5) * x)

    first = explain(case_of(forward_case(d, x, got)))[0]

    assert (first.name, first.detail, first.contradicted) == ("a parameter left out", "b = 0", 0)


def test_zeros_are_not_taken_for_elements_that_were_moved_there():
    names = [finding.name for finding in explain(case_of(a_corner_left_out()), most=20)]

    assert names[0] == "never written"
    assert "wrong row stride" not in names


# ---- on the bytes of a device ----


def recorded(path, ulp=4):
    """The case of each image of a recording, by name."""
    recording = Recording.read(EXAMPLES / path)
    entries = {recording.graph.images[name]: entry for name, entry in recording.images.items()}
    names = {image: name for name, image in recording.graph.images.items()}
    nodes = [node for node in schedule(entries) if node.result_image in entries]
    wanted = list(dict.fromkeys(image for node in nodes for image in (*node.sources, node.result_image)))
    graph, rest = mps.MPSNNGraph(result_images=wanted, format=recording.graph.storage), []
    first = graph.encode(source_images=[entries[image].read() for image in inputs(wanted)], intermediate_images=rest)
    values = dict(zip(wanted, [first, *rest], strict=True))
    for node in nodes:
        yield (
            names[node.result_image],
            node,
            [values[s] for s in node.sources],
            values[node.result_image],
            entries[node.result_image].read(),
        )


def case_with(node, sources, want, got):
    got = mps.MPSImage.from_array(got, want.feature_channel_format)
    distance = ulp_distance(got.to_array(), want.to_array(), storage_format(want.feature_channel_format))
    return Case.of_node(node, sources, got, want, distance > 4)


CHAIN = {name: rest for name, *rest in recorded("precise/recording.json")}

EXCHANGES = {
    "lanes permuted": lambda y: y.reshape(1, 64, 64, 4, 4)[..., [2, 1, 0, 3]].reshape(y.shape),
    "pixel-major and channel-major confused": lambda y: y[0].transpose(2, 0, 1).reshape(y.shape),
    "rows and columns swapped": lambda y: y.transpose(0, 2, 1, 3),
    "wrong offset": lambda y: np.concatenate([y.reshape(-1)[500:], np.zeros(500, y.dtype)]).reshape(y.shape),
    "never written": lambda y: np.where(np.arange(64)[:, None, None] < 40, y, np.float16(0)),
}


@pytest.mark.parametrize("image", CHAIN)
def test_nothing_is_said_of_an_image_within_bounds(image):
    node, sources, want, got = CHAIN[image]

    assert explain(case_with(node, sources, want, got.to_array())) == []


@pytest.mark.parametrize("fault", EXCHANGES)
@pytest.mark.parametrize("image", CHAIN)
def test_an_exchange_of_a_devices_bytes_is_named_first(image, fault):
    node, sources, want, got = CHAIN[image]

    first = explain(case_with(node, sources, want, np.ascontiguousarray(EXCHANGES[fault](got.to_array()))))[0]

    assert first.name == fault, first.headline


@pytest.mark.parametrize("image", CHAIN)
def test_no_fault_is_claimed_where_one_percent_of_a_devices_bytes_is_random(image):
    node, sources, want, got = CHAIN[image]
    rng = np.random.default_rng(3)
    random = rng.integers(0, 0x7C00, want.to_array().shape).astype(np.uint16).view(np.float16)
    case = case_with(node, sources, want, np.where(rng.random(random.shape) < 0.01, random, got.to_array()))

    first = explain(case)[0]

    assert (first.name, first.fits) == (NO_FAULT, False)
    assert first.detail.startswith(f"{case.bad_index.size:,} of 65,536 elements; in all 64 rows; in all 64 columns")
    assert "; x from " in first.detail


def test_no_fault_is_claimed_that_the_elements_within_bounds_contradict():
    node, sources, want, got = CHAIN["y1"]
    some = np.random.default_rng(3).random(got.to_array().shape) < 0.01
    case = case_with(node, sources, want, np.where(some, -got.to_array(), got.to_array()))

    findings = explain(case, most=20)

    assert findings[0].name == NO_FAULT
    assert not any(finding.fits for finding in findings)


def test_a_fault_of_one_channel_is_named_with_the_channel():
    node, sources, want, got = CHAIN["y1"]
    array = got.to_array()
    array[..., 5] *= -1

    first = explain(case_with(node, sources, want, array))[0]

    assert (first.name, first.where, first.contradicted) == ("the sign flipped", "only in channel 5", 0)


NAMED = {
    "reLU.dx": "NaN lost in a comparison",
    "hardSigmoid.y": "NaN turned to 0",
    "pReLU.dx": "NaN lost in a comparison",
    "reLUN.y": "NaN lost in a comparison",
    "softPlus.y": "the literal formula overflows",
    "softPlus.dx": "the literal formula overflows",
    "softSign.y": "the literal formula overflows",
    "geLU.dx": "the literal formula overflows",
}


@pytest.mark.parametrize("compiler", ["precise", "fast"])
def test_what_a_real_gpu_does_is_named(compiler):
    found = {}
    for name, node, sources, want, got in recorded(f"{compiler}/neurons.json"):
        case = case_with(node, sources, want, got.to_array())
        if name in NAMED:
            first = explain(case)[0]
            found[name] = first.name
            assert first.explained == first.of == case.bad_index.size

    assert found == NAMED


def test_the_gradient_that_cancels_in_float32_is_laid_to_the_formula():
    *_, (name, node, sources, want, got) = recorded("precise/chain-float32.json")

    first = explain(case_with(node, sources, want, got.to_array()))[0]

    assert (name, first.name, first.detail) == ("dx", "the formula in float32", "mode stepwise-fma")
    assert first.explained > 0.9 * first.of


# ---- cases ----


def test_a_case_of_every_node_computes_what_the_graph_does():
    x, y, dy = (mps.MPSNNImageNode(handle=handle) for handle in ("x", "y", "dy"))
    scaled = mps.MPSNNAdditionNode(left_source=x, right_source=y)
    scaled.primary_scale, scaled.secondary_scale, scaled.bias, scaled.maximum_value = 0.3, -2.0, 0.125, 1.0
    slopes = mps.MPSCNNNeuronPReLUNode(source=scaled.result_image, a_data=SLOPES)
    backwards = mps.MPSNNInitialGradientNode(source=slopes.result_image)
    ends = backwards.training_graph(with_source_gradient=None)
    nodes = list(schedule([slopes.result_image, *(end.result_image for end in ends)]))
    images = [image.result_image for image in nodes]
    arrays = {"x": normal(1), "y": normal(2, np.float16), "dy": normal(3)}
    for image in images:
        image.format = F.float32
    graph, rest = mps.MPSNNGraph(result_images=images), []
    handles = [image.handle for image in inputs(images)]
    first = graph.encode(
        source_images=[mps.MPSImage.from_array(arrays[handle]) for handle in handles], intermediate_images=rest
    )
    values = dict(zip(images, [first, *rest], strict=True))
    values |= {image: mps.MPSImage.from_array(arrays[image.handle]) for image in inputs(images)}
    del dy

    assert len({type(node) for node in nodes}) == 5
    for node in nodes:
        want = values[node.result_image]
        sources = [values[source] for source in node.sources]
        case = Case.of_node(node, sources, want, want, np.zeros(want.to_array().shape, bool))
        index = np.arange(7, want.to_array().size, 5)

        np.testing.assert_array_equal(case.stored(case.values(index)), want.to_array().reshape(-1)[index])


def test_arrays_that_do_not_fit_together_are_refused():
    x = normal(1)

    with pytest.raises(mps.ImageError, match="source 0 has shape"):
        Case(Sum(), (Elements(x[:1], SINGLE), Elements(x, SINGLE)), SINGLE, x, x, np.zeros(SHAPE, bool), np.equal)


def test_what_is_close_is_for_the_caller_to_say():
    planted = moved(lambda y: y[:, ::-1])
    case = case_of(planted)

    def nothing(index):
        return lambda a, b: np.zeros(a.shape, bool)

    never = Case(case.operation, case.sources, case.result, case.got, case.want, case.bad, nothing)

    assert explain(case)[0].name == "rows and columns swapped"
    # Equal bits are what was got all the same.
    assert explain(never)[0].name == "rows and columns swapped"
    device = Case(
        case.operation,
        case.sources,
        case.result,
        np.nextafter(case.got, np.float16(9)),
        case.want,
        case.bad,
        nothing,
    )
    assert explain(device)[0].name == NO_FAULT


def test_codes_have_faults_too():
    x = np.random.default_rng(1).integers(0, 256, (2, 6, 7, 8), np.uint8)
    unorm = FORMATS[F.unorm8]
    source, d = Elements(x, unorm), neuron("sigmoid")
    want = np.rint(255 / (1 + np.exp(x / -255.0))).astype(np.uint8)
    got = np.floor(255 / (1 + np.exp(x / -255.0))).astype(np.uint8)
    is_close = within(unorm, Tolerance(ulp=0, atol=0))

    def first(got):
        return explain(Case(NeuronForward(d), (source,), unorm, got, want, got != want, is_close))[0].name

    assert first(got) == "truncated instead of rounded"
    assert first(np.ascontiguousarray(want[:, ::-1])) == "rows and columns swapped"
    assert first(np.zeros_like(want)) == "never written"


@pytest.mark.parametrize("storage", [F.float16, F.float32, F.unorm8], ids=lambda f: f.name)
@pytest.mark.parametrize("neuron_type", mps.NEURONS, ids=lambda t: t.name)
def test_whatever_the_bytes_something_is_said_and_no_warning_given(neuron_type, storage):
    row, rng = mps.NEURONS[neuron_type], np.random.default_rng(int(neuron_type))
    for shape in ((1, 1, 1, 1), (2, 3, 1, 5)):
        d = mps.MPSNNNeuronDescriptor(neuron_type, data=np.linspace(0, 1, shape[3]) if row.per_channel else None)
        size = int(np.prod(shape)) * FORMATS[storage].dtype.itemsize
        x, dy, got = (
            rng.integers(0, 256, size, np.uint8).view(FORMATS[storage].dtype).reshape(shape) for _ in range(3)
        )
        for operation, arrays in ((NeuronForward(d), (x,)), (NeuronGradient(d), (dy, x)), (Sum(bias=2.0), (dy, x))):
            sources = tuple(Elements(array, FORMATS[storage]) for array in arrays)
            want = np.zeros_like(x)
            case = Case(operation, sources, FORMATS[storage], got, want, want == 0, within(FORMATS[storage]))
            findings = explain(case)

            assert findings
            assert findings[0].fits or findings[0].name == NO_FAULT
            assert all(str(finding) for finding in findings)


def test_a_large_image_takes_seconds():
    x, dy = normal(1, shape=(2, 100, 100, 64)), normal(2, shape=(2, 100, 100, 64))
    d = neuron("geLU")
    want = mps.neuron.gradient(d, x, dy)
    got = want.reshape(2, 100, 100, 16, 4)[..., [3, 0, 1, 2]].reshape(x.shape)
    case = case_of(gradient_case(d, x, dy, got))

    start = time.process_time()
    first = explain(case)[0]

    assert first.name == "lanes permuted"
    assert time.process_time() - start < 5


def test_a_finding_says_where_it_is_seen():
    planted = no_nan()

    first = explain(case_of(planted))[0]
    e = first.example

    assert (e.image, e.y, e.x, e.channel, e.sources, e.got, e.want) == (0, 2, 3, 0, ("nan",), "0.0", "nan")
    assert str(first) == (
        "NaN turned to 0: explains 126 of 126. Where NaN belongs there is 0, as a texture or a fast min and max may "
        "leave it. For example (image 0, y 2, x 3, channel 0) reads nan: got 0.0, want nan, the hypothesis 0.0."
    )


def test_every_hypothesis_is_listed_once():
    defined = [
        value
        for module in pkgutil.iter_modules(hypotheses.__path__, f"{hypotheses.__name__}.")
        for value in vars(importlib.import_module(module.name)).values()
        if isinstance(value, Hypothesis)
    ]

    assert len(HYPOTHESES) == len(set(HYPOTHESES))
    assert set(HYPOTHESES) == set(defined)


def test_hypotheses_have_names_of_their_own_and_say_one_sentence():
    assert len({hypothesis.name for hypothesis in HYPOTHESES}) == len(HYPOTHESES)
    for hypothesis in HYPOTHESES:
        assert hypothesis.sentence.endswith(".")
        assert ". " not in hypothesis.sentence
