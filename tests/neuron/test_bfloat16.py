"""bfloat16 arrays: every result rounded once, from float64 or from more digits; what is judged shares no code."""

import sys

import numpy as np
import pytest

import mpsref as mps
from builders import ALL, BOTH, OTHERS, TWO, cases, compute, judge, judge_of, report, seeded
from mpsref.storage import bfloat16, storage_format, storage_of
from mpsref.ulp import ulp_distance

ml_dtypes = pytest.importorskip("ml_dtypes")
B = np.dtype(ml_dtypes.bfloat16)
F = mps.MPSImageFeatureChannelFormat
ALL_OTHERS = [(name, p) for name, sets in OTHERS.items() for p in sets]
TWO_OTHERS = [(name, p) for name, sets in OTHERS.items() for p in sets[:2]]


def of_bits(*bits):
    return np.array(bits, np.uint16).view(B)


def encoded(values):
    with np.errstate(over="ignore"):
        return bfloat16().encode(np.asarray(values, np.float64), np.empty(np.shape(values), B)).view(np.uint16)


def finite(start, stride):
    bits = np.arange(start, 65_536, stride, dtype=np.uint16)
    return bits[bits & 0x7FFF < 0x7F80].view(B)


def assert_judged_right(name, p, x, derivative, upstream=None):
    j, wide = judge_of(name, p), x.astype(np.float64)
    factor = None if upstream is None else upstream.astype(np.float64)
    near = j.float64s(wide, derivative, factor)
    want = j.rounded(wide, near, B, derivative, factor)
    got = compute(name, p, x, derivative, upstream)
    wrong = judge.differs(got, want, near)
    assert not wrong.any(), report(j, x, got, want, wrong, upstream)


# ---- the format ----


@pytest.mark.parametrize("sign", [1, -1])
def test_a_midpoint_of_two_numbers_goes_to_the_even_one_and_what_is_beside_it_to_the_nearer(sign):
    """All 32,640 midpoints; by way of float32 alone two thirds of them and their neighbours are wrong."""
    lower = np.arange(0x7F80, dtype=np.uint32)
    middle = (lower << 16 | 0x8000).view(np.float32).astype(np.float64)
    top = 0 if sign > 0 else 0x8000
    for values, want in (
        (middle, lower + lower % 2),
        (np.nextafter(middle, 0.0), lower),
        (np.nextafter(middle, np.inf), lower + 1),
        (middle * (1 + 2.0**-40), lower + 1),
        (middle * (1 - 2.0**-40), lower),
    ):
        np.testing.assert_array_equal(encoded(sign * values), want | top)


@pytest.mark.parametrize(
    ("value", "bits"),
    [
        (1 + 2.0**-8 + 2.0**-40, 0x3F81),
        (1 + 3 * 2.0**-8 - 2.0**-40, 0x3F81),
        (2.0**-134 * (1 + 2.0**-30), 0x0001),
        (2.0**-134, 0x0000),
        (np.nextafter((2 - 2.0**-8) * 2.0**127, 0), 0x7F7F),
        ((2 - 2.0**-8) * 2.0**127, 0x7F80),
        (-1e300, 0xFF80),
        (-5e-324, 0x8000),
        (np.nan, 0x7FC0),
        (-np.nan, 0x7FC0),
    ],
)
def test_a_float64_is_rounded_once(value, bits):
    assert encoded(value) == bits


def test_distances_are_those_of_patterns():
    got, want = of_bits(0x3F80, 0x8000, 0x0001, 0x7FC1, 0x7F80), of_bits(0x3F82, 0x0000, 0x8001, 0xFFC0, 0x7F7F)
    distance = ulp_distance(got, want, storage_of(got, "got"))

    assert distance[:4].tolist() == [2, 0, 2, 0]
    assert distance[4] == np.iinfo(np.int64).max


def test_no_image_has_it():
    assert storage_format(B) is storage_format("bfloat16") is bfloat16()
    for make in (
        lambda: mps.MPSImage.from_array(np.ones((1, 1, 1), np.float32), "bfloat16"),
        lambda: mps.MPSImage.from_array(np.ones((1, 1, 1), B)),
        lambda: mps.MPSImageDescriptor(channel_format="bfloat16", width=1, height=1, feature_channels=1),
    ):
        with pytest.raises(mps.ImageError, match="bfloat16"):
            make()


def test_without_its_package_the_error_names_the_extra(monkeypatch):
    bfloat16.cache_clear()
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with pytest.raises(mps.DependencyError, match=r"pip install 'mpsref\[bfloat16\]'"):
        storage_format("bfloat16")


# ---- neurons ----


@BOTH
@cases([*TWO, *TWO_OTHERS])
def test_a_part_of_all_patterns_is_correctly_rounded(name, p, derivative):
    assert_judged_right(name, p, finite(int(seeded(name, p).integers(128)), 128), derivative)


@pytest.mark.exhaustive
@BOTH
@cases([*ALL, *ALL_OTHERS])
def test_every_pattern_is_correctly_rounded(name, p, derivative):
    assert_judged_right(name, p, finite(0, 1), derivative)


@cases([*TWO, *TWO_OTHERS])
def test_products_with_gradients_are_rounded_once(name, p):
    rng = seeded(name, p, "bfloat16 pairs")
    x = rng.normal(0, 3, 300).astype(B)
    upstream = np.concatenate([rng.normal(0, 3, 200).astype(B), rng.integers(1, 256, 100).astype(np.uint16).view(B)])
    assert_judged_right(name, p, x, True, upstream)


@pytest.mark.parametrize(("b", "bits"), [(1 + 2.0**-8, 0x3F81), (-1 - 3 * 2.0**-8, 0xBF81)])
def test_a_sum_beside_a_midpoint_is_rounded_once(b, bits):
    d, one = mps.MPSNNNeuronDescriptor("linear", a=2.0**-40, b=b), of_bits(0x3F80)

    assert mps.neuron.forward(d, one).view(np.uint16) == mps.neuron.specified(d, one).view(np.uint16) == bits


def test_every_nan_gives_the_canonical_one_and_nothing_warns():
    nan = of_bits(*range(0x7F81, 0x8000, 9), *range(0xFF81, 0x10000, 9))
    for name in ("reLU", "none", "geLU", "silu"):
        assert set(mps.neuron.forward(name, nan).view(np.uint16).tolist()) == {0x7FC0}
        assert set(mps.neuron.gradient(name, np.ones_like(nan), nan).view(np.uint16).tolist()) == {0x7FC0}


@pytest.mark.parametrize("mode", ["specified", "stepwise", "stepwise-fma"])
def test_the_modes_take_it(mode):
    x = of_bits(0x3F81, 0xC020, 0x4000)
    want = {"specified": mps.neuron.specified("silu", x)}.get(mode)
    got = mps.neuron.forward("silu", x, mode=mode)

    assert got.dtype == B
    if want is None:  # a float32, stored once
        want = mps.neuron.forward("silu", x.astype(np.float32), mode=mode).astype(B)
    assert got.tolist() == want.tolist()
