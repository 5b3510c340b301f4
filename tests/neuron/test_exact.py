"""What float64 leaves open: results beside a rounding boundary, on a side that only the tail of a sum tells."""

from __future__ import annotations

import copy
import pickle
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import mpsref as mps
from mpsref.neuron.slopes import ChannelSlopes

T = mps.MPSCNNNeuronType
Format = mps.MPSImageFeatureChannelFormat
TIE = np.float32(1 + 2.0**-11)  # halfway between two halves, 1 and 1 + 2^-10
UP, DOWN = 1 + 2.0**-10, 1.0


def in_half(neuron_type, x, upstream=None, **parameters):
    """A float32 source, and gradient, through one node that stores in half precision."""
    source, dy = mps.MPSNNImageNode(handle="x"), mps.MPSNNImageNode(handle="dy")
    node = mps.MPSCNNNeuronNode(source=source, descriptor=mps.MPSNNNeuronDescriptor(neuron_type, **parameters))
    if upstream is not None:
        node = node.gradient_filter(with_source=dy)
    graph = mps.MPSNNGraph(result_image=node.result_image)
    arrays = {"x": np.full((1, 1, 1), x, np.float32), "dy": np.full((1, 1, 1), upstream or 0, np.float32)}
    return graph.run(**{name: arrays[name] for name in graph.source_image_handles})["result0"].to_array().item()


@pytest.mark.parametrize("x", [15.0, 20.0, 39.0, 41.0, 50.0, 1e30])
def test_a_saturating_value_stays_on_its_side_of_the_limit(x):
    assert in_half(T.tanH, x, a=TIE) == DOWN
    assert in_half(T.tanH, x, a=-TIE, b=-1) == DOWN
    assert in_half(T.tanH, x, a=TIE, b=-1) == -DOWN
    assert in_half(T.ELU, -x, a=TIE) == -DOWN  # -a (1 - e^-x)


@pytest.mark.parametrize("x", [15.0, 20.0, 39.0, 41.0, 50.0, 1e30])
def test_a_saturating_slope_stays_on_its_side_of_the_limit(x):
    assert in_half(T.softPlus, x, upstream=TIE) == DOWN  # sigmoid(x) < 1
    assert in_half(T.softPlus, x, upstream=-TIE, a=-1) == DOWN
    assert in_half(T.geLU, x, upstream=TIE) == UP  # Phi(x) + x phi(x) > 1
    assert in_half(T.geLU, x, upstream=-TIE) == -UP


def test_at_infinity_the_limit_itself_is_rounded_ties_to_even():
    for neuron_type in (T.softPlus, T.geLU):
        assert in_half(neuron_type, np.inf, upstream=TIE) == DOWN
        assert in_half(neuron_type, np.inf, upstream=np.float32(1 + 3 * 2.0**-11)) == 1 + 2 * 2.0**-10
    assert in_half(T.tanH, np.inf, a=TIE) == DOWN


@pytest.mark.parametrize("x", [1e-10, 1e-20, 1e-38, 1e-45])
def test_a_vanishing_source_still_decides_a_tie(x):
    # a b x is no tie here, but a, the value at 0, is one, and x tells the side.
    assert in_half(T.exponential, x, a=1, b=0, upstream=TIE) == UP
    assert in_half(T.exponential, -x, a=1, b=0, upstream=TIE) == DOWN
    assert in_half(T.geLU, x, upstream=2 * TIE) == UP
    assert in_half(T.geLU, -x, upstream=2 * TIE) == DOWN
    assert in_half(T.sigmoid, x, upstream=4 * TIE) == in_half(T.sigmoid, -x, upstream=4 * TIE) == DOWN
    assert in_half(T.softSign, x, upstream=TIE) == in_half(T.softSign, -x, upstream=TIE) == DOWN
    assert in_half(T.power, x, a=1, b=TIE, c=1) == UP
    assert in_half(T.power, -x, a=1, b=TIE, c=1) == DOWN
    assert in_half(T.power, x, a=1, b=1, c=1.5, upstream=TIE / 1.5 * 1.5) >= 1.5


def test_an_exact_tie_goes_to_even():
    assert in_half(T.exponential, -25.0, c=2) == 0.0  # 2^-25 lies halfway between 0 and the smallest half
    assert in_half(T.exponential, -24.0, c=2) == 2.0**-24
    assert in_half(T.exponential, 16.0, c=2) == np.inf
    assert in_half(T.geLU, 0.0, upstream=2 * TIE) == DOWN
    assert in_half(T.sigmoid, 0.0, upstream=4 * TIE) == DOWN
    assert in_half(T.power, float(TIE), c=1) == DOWN


def test_an_image_full_of_one_hard_value_is_decided_once():
    d = mps.MPSNNNeuronDescriptor(T.tanH, a=1.5)
    hard = np.float32(3 * 2.0**-149)
    mps.neuron.forward(d, np.full(10, hard))

    start = time.process_time()
    result = mps.neuron.forward(d, np.full(200_000, hard))

    assert time.process_time() - start < 2
    assert (result == result[0]).all()
    assert result[0] == np.float32(4 * 2.0**-149)  # a hair below 4.5 units


@pytest.mark.parametrize("code", [0, 1, 77, 128, 254, 255])
def test_a_unorm_result_is_rounded_once_from_the_exact_value(code):
    x = mps.MPSNNImageNode(handle="x")
    node = mps.MPSCNNNeuronSigmoidNode(source=x)
    node.result_image.format = Format.unorm8
    graph = mps.MPSNNGraph(result_image=node.result_image)
    image = mps.MPSImage.from_array(np.uint8([[[code]]]))

    (got,) = graph.run(x=image)["result0"].to_array().ravel()

    value = 1 / (1 + np.exp(-np.float64(np.float32(code) / np.float32(255))))
    assert got == round(value * 255)  # none of these is near a half


@pytest.mark.parametrize(
    ("a", "b", "c", "x", "want"),
    [
        (2.0**-80, 1, 2.0**80, -1, 0.36787944),  # e^-1, though 1 - 2^-80 is no float64
        (2.0**-60, 1, 2.0**80, -1, 0.0),
        (65, 1, -(2.0**59), 2.482521426299499e-18, 3.998974e-41),
        (100, -0.5, 2.2060555727580209e33, 1.7232894119848588e-31, 0.0),
        (1, 1.8474985277318107e-20, -2.85106217866514e28, -2.4762821197509766, 0.0),
    ],
)
def test_a_huge_exponent_sees_what_the_sum_lost(a, b, c, x, want):
    d = mps.MPSNNNeuronDescriptor(T.power, a, b, c)

    (got,) = mps.neuron.forward(d, np.float32([x]))

    assert got == np.float32(want)
    assert not np.signbit(got)


def test_a_huge_even_exponent_has_an_odd_slope():
    d = mps.MPSNNNeuronDescriptor(T.power, 1, 0, 2.0**60)

    assert mps.neuron.gradient(d, np.float32([-1, 1]), np.float32([1, 1])).tolist() == [-(2.0**60), 2.0**60]


def test_a_constant_power_has_slope_zero_however_large_it_is():
    for c in (2000, -2000, 3e38):
        d = mps.MPSNNNeuronDescriptor(T.power, 0, 2, c)
        assert mps.neuron.gradient(d, np.float32([1, np.inf]), np.float32([1, 1])).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("neuron_type", "parameters"),
    [
        (T.exponential, {"a": 0, "b": 3, "c": 13}),  # 13^3 = 2197 lies halfway between two halves
        (T.tanH, {"a": 1 + 2.0**-11}),
        (T.ELU, {"a": 1 + 2.0**-11}),
        (T.power, {"a": 0, "b": 13, "c": 3}),
    ],
)
def test_many_hard_values_do_not_take_for_ever(neuron_type, parameters):
    x = mps.MPSNNImageNode(handle="x")
    node = mps.MPSCNNNeuronNode(source=x, descriptor=mps.MPSNNNeuronDescriptor(neuron_type, **parameters))
    graph = mps.MPSNNGraph(result_image=node.result_image)
    values = -np.linspace(30, 60, 3000, dtype=np.float32).reshape(1, 3000, 1)

    start = time.process_time()
    result = graph.run(x=values)["result0"].to_array()

    assert time.process_time() - start < 5
    assert len(np.unique(result)) == 1


@given(
    hnp.arrays(np.float64, st.tuples(st.integers(1, 5), st.integers(1, 4)), elements=st.floats(-9, 9)),
    st.integers(1, 7),
    st.integers(0, 500),
    st.integers(1, 90),
    st.sampled_from(["sliced", "chosen", "written", "written one by one"]),
)
def test_slopes_run_through_groups_pixels_and_lanes(values, pixels, start, size, way):
    slopes = ChannelSlopes(values, pixels)
    everything = np.tile(np.repeat(values, pixels, axis=0).ravel(), 600)

    with pytest.MonkeyPatch.context() as patch:
        if way.startswith("written"):
            # As of images too large for a period.
            patch.setattr("mpsref.neuron.slopes.LARGEST_PERIOD", 0)
            patch.setattr("mpsref.neuron.slopes.LONG_RUN", 1 if way == "written" else 1000)
        elements = np.arange(start, start + size)
        found = slopes.at(elements).window(0, size) if way == "chosen" else slopes.window(start, size)

    assert np.array_equal(found, everything[start : start + size])


def test_slopes_of_a_large_image_take_little_memory():
    x = mps.MPSNNImageNode(handle="x")
    node = mps.MPSCNNNeuronPReLUNode(source=x, a_data=np.linspace(-1, 1, 64))
    graph = mps.MPSNNGraph(result_image=node.result_image)
    image = mps.MPSImage.from_array(np.full((160, 160, 64), -1, np.float16))

    tracemalloc.start()
    result = graph.encode(source_images=[image])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 16 * 2**20 + image.texture.nbytes
    assert np.array_equal(result.to_array()[0, 5, 7], -np.linspace(-1, 1, 64).astype(np.float32).astype(np.float16))


@pytest.mark.parametrize("value", [2**60 + 2**36 + 1, -(2**60 + 2**36 + 1), np.int64(2**60 + 2**36 + 1), 2**24 + 1])
def test_n1_an_integer_parameter_is_rounded_once(value):
    got = mps.MPSNNNeuronDescriptor(T.tanH, a=value).a

    down, up = np.nextafter(np.float32(got), np.float32([-np.inf, np.inf]))
    assert abs(int(got) - int(value)) <= min(abs(int(down) - int(value)), abs(int(up) - int(value)))


def test_a_copied_descriptor_is_equal_and_still_read_only():
    p = mps.MPSNNNeuronDescriptor(T.pReLU, data=[0.5, 0.25])

    for again in (copy.copy(p), copy.deepcopy(p), pickle.loads(pickle.dumps(p))):  # noqa: S301
        assert again == p
        assert not again.data.flags.writeable
