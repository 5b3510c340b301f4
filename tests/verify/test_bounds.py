"""The bounds of correct devices: rules of the analysis, real ones within them, and planted faults beyond."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mpsref as mps
from builders import seldom
from mpsref.arrays import Elements
from mpsref.storage import FORMATS
from mpsref.ulp import ulp_distance
from mpsref.verify import verify, write_recording
from mpsref.verify.bounds import allowed, classify
from mpsref.verify.forms import ALTERNATIVES, neuron_forms
from mpsref.verify.judge import Segment, neuron_judge
from mpsref.verify.models import MODELS, Law, Model
from mpsref.verify.ranges import NOTES, Branches, Level, Mark
from mpsref.verify.reasons import BEYOND, WITHIN, Reason
from mpsref.verify.running import Running
from mpsref.verify.stored import read, with_neighbours

T = mps.MPSCNNNeuronType
Format = mps.MPSImageFeatureChannelFormat
HALF, SINGLE = FORMATS[Format.float16], FORMATS[Format.float32]
PRECISE, FAST = MODELS["metal-precise"], MODELS["metal-fast"]
PARAMETERS = {
    T.reLU: (0.1,), T.linear: (1.5, -0.25), T.tanH: (1.5, 0.75), T.softPlus: (1.5, 0.75), T.ELU: (1.25,),
    T.reLUN: (0.1, 6), T.power: (0.5, 9, 2.5), T.exponential: (0.5, 0.25, 2), T.logarithm: (1.5, 14, -1),
}  # fmt: skip
X = np.linspace(-8, 8, 2048, dtype=np.float32).reshape(1, 8, 16, 16)
every_neuron = pytest.mark.parametrize("neuron_type", list(mps.NEURONS), ids=lambda t: t.name)
both_directions = pytest.mark.parametrize("direction", ["forward", "gradient"])


def descriptor(neuron_type):
    data = np.linspace(-0.5, 0.5, 16) if mps.NEURONS[neuron_type].per_channel else None
    return mps.MPSNNNeuronDescriptor(neuron_type, *PARAMETERS.get(neuron_type, ()), data=data)


def evaluated(d, x, direction, mode="ideal"):
    if direction == "forward":
        return mps.neuron.forward(d, x, mode=mode)
    return mps.neuron.gradient(d, x, np.ones_like(x), mode=mode)


def bounds_of(d, x, direction, model, **more):
    return allowed(d, x, model, upstream=None if direction == "forward" else np.ones_like(x), **more)


def finite(index):
    """No NaN and no infinity is read."""
    return np.zeros(index.size, np.uint16)


# ---- the rules ----


def numbers(model, low, high=None, *, flush=False):
    f = Running(model, flush)
    return f, f.between(np.float64(low), np.float64(low if high is None else high))


# No product of three underflows: what becomes of subnormals depends on the order.
floats = st.just(0.0) | st.floats(2.0**-30, 1e6, width=32) | st.floats(-1e6, -(2.0**-30), width=32)


@given(floats, floats, floats)
def test_ranges_hold_every_order_and_contraction_of_float32_operations(a, b, c):
    f = Running(FAST)
    x, y, z = (f.range(np.array([value])) for value in (a, b, c))
    a, b, c = np.float32([a]), np.float32([b]), np.float32([c])

    with np.errstate(all="ignore"):
        exact = a.astype(float) * b + c
        for value, found in (
            (a * b + c, x * y + z),
            (exact, f.fma(x, y, z)),
            (a * b * c, x * y * z),
            (a * (b * c), x * y * z),
            ((a - b) * (a - b), f.square(x - y)),
            (a / b, x / y),
            (a * (np.float32(1) / b), x / y),
        ):
            if np.isfinite(value).all():
                assert (found.low <= value).all()
                assert (value <= found.high).all()


@pytest.mark.parametrize("name", ["exp", "log", "tanh", "erf"])
@pytest.mark.parametrize("model", MODELS.values(), ids=lambda m: m.name)
def test_a_function_is_as_far_from_the_truth_as_its_law_says(model, name):
    f, x = numbers(model, 3.0)
    found = getattr(f, name)(x)
    law = model.laws.get(name)

    if law is None:
        return
    # tanh(3) and erf(3) are just below 1, where an ULP is half as large as above.
    middle, wide = (found.low + found.high) / 2, (found.high - found.low) / 2
    ulp = 2.0 ** (math.frexp(middle)[1] - model.storage.precision)
    error = (law.ulp + np.floor(law.growth * 3)) * ulp + law.absolute
    assert 0.999 * error <= wide <= 1.001 * error + (ulp if model.rounds_either_way else 0)


def test_a_range_around_a_power_of_two_takes_the_larger_ulp_above_it():
    u = 2.0**-24
    below, above = 1 - 1.5 * u, 1 + 3 * u

    low, high = PRECISE.widened(np.array([below, below, -below]), np.array([above, below, above]), Law(5))

    np.testing.assert_allclose(low, [1 - 10 * u, below - 5 * u, -below - 5 * u], rtol=u / 100)
    np.testing.assert_allclose(high, [above + 10 * u, below + 5 * u, above + 10 * u], rtol=u / 100)


def test_the_growth_of_the_exponential_holds_for_subnormal_results():
    f, x = numbers(FAST, -96.0)

    found = f.exp(x)

    assert round((found.high - np.exp(-96)) * 2.0**149) == 195
    assert round((np.exp(-96) - found.low) * 2.0**149) == 195


@given(st.floats(-1e6, 1e6, width=32), st.floats(-1e6, 1e6, width=32))
def test_a_law_of_either_neighbour_gives_both(a, b):
    model = Model("either", "", {**PRECISE.laws, "arithmetic": Law(1, either=True)})
    f = Running(model)
    x, y = f.range(np.float64(a)), f.range(np.float64(b))

    for found, exact in ((x + y, Fraction(a) + Fraction(b)), (x * y, Fraction(a) * Fraction(b))):
        near = np.float32(float(exact))
        if abs(near) > 1e-30 or exact == 0:
            toward = np.inf if Fraction(float(near)) < exact else -np.inf
            other = near if Fraction(float(near)) == exact else np.nextafter(near, np.float32(toward))
            assert {float(found.low), float(found.high)} == {float(near), float(other)}


def test_exact_results_of_rounded_operations_stay_exact():
    f, x = numbers(FAST, 0.75)

    for found in (x * 2, x + 1, f.square(x), abs(-x), f.fma(2.0, x, 1.0)):
        assert found.low == found.high


@pytest.mark.parametrize(
    ("model", "divides", "keeps"),
    [
        *((name, False, True) for name in MODELS),
        *((name, True, True) for name in ("metal-precise", "metal-half", "metal-bfloat")),
        *((name, True, False) for name in ("metal-fast", "cuda-fast", "wgsl")),
    ],
)
def test_rounding_a_partial_product_leaves_its_sign(model, divides, keeps):
    f = Running(MODELS[model])
    least = f.model.smallest[1]

    for sign in (1.0, -1.0):
        product = f.range(0.2) * f.range(np.array([sign * 2 * least]))
        found = product / 2.0**-12 if divides else product * 2.0**12
        lower, upper = sorted([sign * found.low.item(), sign * found.high.item()])
        assert lower == 0 if keeps else lower < 0
        assert 0.4 * least * 2.0**12 < upper


@pytest.mark.parametrize("model", ["metal-precise", "metal-half"])
def test_no_more_of_a_partial_product_is_lost_than_there_is(model):
    f = Running(MODELS[model])
    least = f.model.smallest[1]
    tiny = f.range(np.array([least]))

    # 3/4 of the least number is rounded down or up; and far less than that.
    found, less, exact = ((f.range(a) * tiny) * 2.0**12 for a in (0.75, 2.0**-9, 1.0))
    assert [end.item() / least / 2.0**12 for end in (found.low, found.high)] == pytest.approx([0.25, 1.25], rel=0.01)
    assert less.high.item() <= 17 * least
    assert exact.low.item() == exact.high.item() == 2.0**12 * least


def test_a_sum_is_not_rounded_across_a_number_of_the_format():
    _, x = numbers(PRECISE, 1e-12)

    assert (x + 1).low == 1
    assert 1 < (x + 1).high < 1 + 2.0**-23


def test_the_logarithm_of_the_fast_model_has_an_absolute_error_near_one():
    f, x = numbers(FAST, 1.0)

    assert (f.log(x).low, f.log(x).high) == (-(2.0**-21), 2.0**-21)
    f, x = numbers(PRECISE, 1.0)
    assert f.log(x).low == f.log(x).high == 0


@pytest.mark.parametrize("model", ["wgsl", "wgsl-half"])
@pytest.mark.parametrize("name", ["exp", "log", "tanh", "erf"])
def test_errors_end_at_numbers_of_the_format_where_results_are_either_neighbour(name, model):
    f = Running(MODELS[model])

    found = getattr(f, name)(f.range(np.linspace(0.25, 3, 45)))

    for end in (found.low, found.high):
        np.testing.assert_array_equal(end, end.astype(f.model.storage.dtype))


def test_the_exponential_of_the_fast_model_errs_more_for_large_arguments():
    widths = []
    for argument in (1.0, 40.0):
        f, x = numbers(FAST, argument)
        widths.append((f.exp(x).high - f.exp(x).low) / np.exp(argument) * 2**22)

    # 5 ULP at e = 2.7, and 83 ULP at e^40 = 1.63 2^57.
    np.testing.assert_allclose(widths, [2 * 5 / np.e, 83 / (np.exp(40) / 2**57)], rtol=1e-3)


@pytest.mark.parametrize(
    ("evaluate", "reason", "nan"),
    [
        (lambda f, x: f.exp(x * 1000), Mark.OVERFLOW, False),
        (lambda f, x: f.log(f.exp(x * 100)), Mark(0), False),
        (lambda f, x: 1.0 / (x - x), Mark.POLE, False),
        (lambda f, x: 1.0 / (f.exp(x) - np.e), Mark.POLE, False),
        (lambda f, x: f.log(f.exp(x) - np.e), Mark.POLE, True),
        (lambda f, x: f.pow(f.exp(x) - np.e, 0.5), Mark.POLE, True),
        (lambda f, x: f.pow(-x, 0.5), Mark(0), True),
        (lambda f, x: f.pow(x * 0.0, 0.0), Mark(0), False),
        (lambda f, x: f.max(x * np.nan, 0.0), Mark.CLAMPED, True),
        (lambda f, x: f.where(x * np.nan >= 0, 1.0, 2.0), Mark.COMPARED | Mark.UNDECIDED, False),
        (lambda f, x: x / (x * np.inf), Mark(0), False),
        (lambda f, x: (x * np.inf) * 0.0, Mark.INVALID, True),
    ],
)
def test_what_an_operation_cannot_do_is_marked(evaluate, reason, nan):
    f, x = numbers(PRECISE, 1.0)

    with np.errstate(all="ignore"):
        found = evaluate(f, x)

    assert (Mark(int(found.reason)) & ~NOTES, bool(found.nan)) == (reason, nan)


@pytest.mark.parametrize(
    ("base", "exponent", "ends"),
    [
        (-2.0, (3.0, 3.0), (-8, -8)),
        (-2.0, (4.0, 4.0), (16, 16)),
        (-2.0, (2.5, 2.5), None),
        (-2.0, (2.9, 3.1), (-(2**3.1), -(2**2.9))),
        (-2.0, (2.9, 4.1), (-(2**4.1), 2**4.1)),
        ((-0.5, 2.0), (3.0, 3.0), (-0.125, 8)),
        ((-2.0, 0.0), (3.0, 3.0), (-8, 0)),
        ((-3.0, 2.0), (2.0, 2.0), (0, 9)),
        (3.0, (0.5, 0.5), (3**0.5, 3**0.5)),
    ],
)
def test_a_power_is_that_of_the_magnitude_with_the_sign_put_back(base, exponent, ends):
    f = Running(PRECISE)
    low, high = base if isinstance(base, tuple) else (base, base)

    found = f.pow(f.between(np.float64(low), np.float64(high)), f.between(*map(np.float64, exponent)))

    if ends is None:
        assert np.isnan([found.low, found.high]).all()
        assert found.nan
    else:
        np.testing.assert_allclose([found.low, found.high], ends, rtol=1e-5)
        assert found.nan == (exponent[0] != exponent[1] and np.all(low < 0))


def test_what_overflows_is_another_arithmetic():
    found = {}
    for level in Level:
        f = Running(PRECISE, level=level)
        x = f.range(np.float64(1.0))
        with np.errstate(all="ignore"):
            e = f.exp(x * 100)
            found[level] = f.log(e), 1e30 * x * 1e30 * 1e-30, e / (e + 1)

    for level, (logarithm, product, quotient) in found.items():
        assert (logarithm.high < 101) == (level is not Level.EVERYTHING)
        assert (product.high < 1e31) == (level is Level.NOTHING)
        assert bool(quotient.nan) == (level is Level.EVERYTHING)
        assert bool(product.reason & Mark.ORDER) == (level is not Level.NOTHING)


def test_fast_division_by_large_numbers_may_give_zero():
    for model, far in ((FAST, True), (PRECISE, False)):
        f = Running(model)
        found = 3.0 / f.range(np.float64(2.0**127))
        assert 1.7e-38 < found.low <= found.high < 1.8e-38
        assert bool(found.reason & Mark.FAR) == far
        f = Running(model, far=True)
        with np.errstate(all="ignore"):
            large, small = 3.0 / f.range(np.float64(2.0**127)), 3.0 / f.range(np.float64(-(2.0**-127)))
        assert (large.low == 0) == (large.high == 0) == far
        assert (small.high == -np.inf) == far


def test_subnormal_float32_may_be_flushed_and_halves_may_not():
    _, x = numbers(PRECISE, 1e-40, flush=True)
    assert (x.low > 0, x.zero, x.whole.low) == (True, True, 0)
    f, x = numbers(PRECISE, 1e-40)
    assert (x.low > 0, Mark(int(x.reason))) == (True, Mark.TINY)
    assert not MODELS["metal-half"].flushes
    # Nobody knows which branch a comparison with a subnormal takes, nor which sign it leaves.
    f, x = numbers(PRECISE, -1e-40, flush=True)
    slope = f.where(x >= 0, 1.0, 0.5)
    assert (slope.low, slope.high) == (0.5, 1)
    assert abs(x).low < 0 < abs(x).high


@pytest.mark.parametrize("model", ["metal-precise", "metal-fast", "cuda-fast", "wgsl"])
@pytest.mark.parametrize(
    ("neuron_type", "parameters", "x", "possible", "impossible"),
    [
        (T.hardSigmoid, (1, 0), -1e-39, -1e-39, 1e-38),
        (T.reLUN, (0, 0), 1e-39, 1e-39, 2e-38),
        (T.reLUN, (0, 1e-39), 5e-39, 5e-39, 2e-38),
        (T.reLUN, (0, -1e-39), 5e-39, 5e-39, -2e-38),
    ],
)
def test_a_minimum_or_maximum_of_two_that_may_be_flushed_is_either(
    neuron_type, parameters, x, possible, impossible, model
):
    d = mps.MPSNNNeuronDescriptor(neuron_type, *parameters)

    classes = classes_of(d, np.float32([x, x]), np.float32([possible, impossible]), model)

    assert classes == [Reason.flush, BEYOND]


def test_the_square_of_a_range_around_zero_starts_there():
    for flush in (False, True):
        f, x = numbers(PRECISE, -1.0, 2.0, flush=flush)
        assert (abs(x).low, abs(x).high) == (-PRECISE.smallest[0] if flush else 0, 2)
        assert (f.square(x).low, f.square(x).high) == (0, 4)


def test_a_branch_that_rounding_may_decide_gives_both():
    f, x = numbers(PRECISE, 1 - 1e-9, 1 + 1e-9)

    found = f.where(x >= 1, 5.0, 3.0)

    assert (found.low, found.high, found.reason) == (3, 5, Mark.UNDECIDED)
    assert f.where(x >= 1, x, 1.0).reason == 0


def test_a_branch_knows_what_its_comparison_says():
    f = Running(PRECISE)
    x = f.between(np.array([-1.0, np.nan]), np.array([2.0, np.nan]))

    rectified, leaky, capped = f.where(x >= 0, x, 0.0), f.where(x >= 0, x, 0.5 * x), f.where(x < 1, x, 1.0)

    assert [(y.low[0], y.high[0]) for y in (rectified, leaky, capped)] == [(0, 2), (-0.5, 2), (-1, 1)]
    assert all(y.nan.tolist() == [False, True] for y in (leaky, capped))


def classes_of(d, x, got, model, upstream=None):
    """The classes of results in float32 that differ from the reference."""
    elements = [
        Elements(np.float32(np.broadcast_to(each, len(got)))[:, np.newaxis], SINGLE)
        for each in (got, x, upstream)
        if each is not None
    ]
    return neuron_judge(d, MODELS[model], *elements)(np.arange(len(got))).tolist()


SUBNORMAL = np.float32(1e-40)


@pytest.mark.parametrize("model", ["metal-precise", "metal-fast", "wgsl"])
@pytest.mark.parametrize(
    ("neuron_type", "parameters", "x", "branches", "between"),
    [
        # a x + b is 1 or more, by rounding.
        (T.hardSigmoid, (0.2, 0.5), 2.5, [0.0, 0.2], [0.1, 0.05, 0.19]),
        # Two comparisons with a number that is flushed or not.
        (T.absolute, (), SUBNORMAL, [0.0, 1.0], [-1.0, -0.5, 1 / 3, 0.9]),
        (T.absolute, (), -SUBNORMAL, [0.0, -1.0], [1.0, -0.5, 1 / 3]),
        (T.reLU, (0.1,), -SUBNORMAL, [1.0, 0.1], [0.0, 0.5]),
        # Products whose factors are chosen each.
        (T.ELU, (0.1,), -SUBNORMAL, [1.0, 0.1], [0.0, 0.5]),
        (T.reLUN, (0.1, 6.0), -SUBNORMAL, [1.0, 0.1], [0.0, 0.5]),
        (T.reLUN, (-3.0, 1.0), np.float32(-1 / 3), [0.0, -3.0], [-1.0, -2.9]),
    ],
)
def test_nothing_between_the_branches_of_an_open_comparison_is_possible(
    neuron_type, parameters, x, branches, between, model
):
    d = mps.MPSNNNeuronDescriptor(neuron_type, *parameters)
    slopes = np.float32(branches + between)

    classes = classes_of(d, x, np.float32(3) * slopes, model, np.float32(3))

    passed = [each in (WITHIN, Reason.flush) for each in classes]
    possible = slopes[: len(branches)][passed[: len(branches)]]
    assert possible.size
    assert not any(passed[len(branches) :])
    assert passed[: len(branches)] == [True, True] or neuron_type is T.reLUN


@pytest.mark.parametrize("model", ["metal-precise", "metal-fast", "cuda-fast", "wgsl"])
@pytest.mark.parametrize("direction", ["forward", "gradient"])
@pytest.mark.parametrize("neuron_type", [T.none, T.reLU, T.linear, T.absolute, T.softSign, T.pReLU, T.geLU])
def test_nothing_between_zero_and_a_subnormal_that_may_be_flushed_is_possible(neuron_type, direction, model):
    data = np.full(15, 0.8) if neuron_type is T.pReLU else None
    d = mps.MPSNNNeuronDescriptor(neuron_type, data=data)
    x = np.repeat(np.float32([1e-39, 3e-42, 1e-38]), 5)
    x, upstream = (x, None) if direction == "forward" else (np.full_like(x, 2), x)
    ideal = mps.neuron.forward(d, x) if upstream is None else mps.neuron.gradient(d, x, upstream)
    share = np.tile(np.float32([1, 0, 1 / 3, 0.9, -0.5]), 3)

    classes = classes_of(d, x, ideal * share, model, upstream)

    passed = np.array([each in (WITHIN, Reason.flush) for each in classes]).reshape(3, 5)
    assert passed.tolist() == [[True, True, False, False, False]] * 3


def test_next_to_a_pole_a_partial_product_may_be_lost():
    # dy a is flushed to 0 by rounding, and a x + b may be anything from 0 to 2 ** -11.
    d = mps.MPSNNNeuronDescriptor(T.logarithm, a=0.0015864412, b=0.59938097, c=0.3)
    x, upstream, got = np.float16([[-377.75]]), np.float16([[-1.52e-05]]), np.float16([[0.0]])
    elements = [Elements(each, HALF) for each in (got, x, upstream)]

    assert neuron_judge(d, MODELS["metal-half"], *elements)(np.arange(1)) != BEYOND


@pytest.mark.parametrize(
    ("model", "storage", "powers"),
    [("metal-half", HALF, (14.3, 15.9)), ("metal-precise", SINGLE, (126.2, 127.9))],
)
def test_a_reciprocal_may_be_a_subnormal_that_is_rounded(model, storage, powers):
    rng = np.random.default_rng(0)
    x = (2.0 ** rng.uniform(*powers, (125, 16))).astype(storage.dtype)
    upstream = (rng.uniform(1, 100, x.shape) * 2 ** (powers[0] / 2)).astype(storage.dtype)
    got = upstream * (storage.dtype.type(1) / x)
    elements = [Elements(each, storage) for each in (got, x, upstream)]

    classes = neuron_judge(mps.MPSNNNeuronDescriptor(T.logarithm), MODELS[model], *elements)(np.arange(got.size))

    assert (classes == WITHIN).all()


def test_the_reciprocal_of_what_may_or_may_not_overflow_may_be_flushed():
    # e^(b x) is 2.3e38, and may err by so much that the range ends beyond the largest number.
    d = mps.MPSNNNeuronDescriptor(T.softPlus, a=-0.9065472, b=-0.32595396)
    x, upstream, got = np.float16([[-271]]), np.float16([[1.913]]), np.float16([[0.0]])
    elements = [Elements(each, HALF) for each in (got, x, upstream)]

    assert neuron_judge(d, MODELS["metal-bfloat"], *elements)(np.arange(1)) == [Reason.flush]


def test_an_infinity_is_no_neighbour():
    largest = np.float16([65504, -65504, np.inf, 1])

    below, above = with_neighbours(largest, HALF)[1:]

    assert below.tolist() == [65472, -65504, np.inf, 1 - 2.0**-11]
    assert above.tolist() == [65504, -65472, np.inf, 1 + 2.0**-10]


def test_a_power_at_a_pole_has_either_sign_and_is_not_between():
    f = Running(PRECISE)
    base, exponent = f.between(np.array([-1e-8]), np.array([1e-8])), f.range(-1.0)
    with np.errstate(all="ignore"):
        found = f.pow(base, exponent)
        ways = [dataclasses.replace(f, branches=Branches({1: way})).pow(base, exponent) for way in (True, False)]

    assert found.reason & Mark.UNDECIDED
    assert ways[0].high <= -1e7
    assert ways[1].low >= 1e7


@pytest.mark.parametrize("model", ["metal-precise", "metal-fast", "cuda-fast"])
def test_a_minimum_or_maximum_keeps_nan_or_takes_the_other_operand(model):
    hard, linear_unit = (mps.MPSNNNeuronDescriptor(kind, a=0, b=b) for kind, b in ((T.hardSigmoid, 0.5), (T.reLUN, 6)))
    infinite, got = np.float32([np.inf] * 5 + [-np.inf] * 5), np.float32([np.nan, 0, 1, 0.25, 3] * 2)
    plus, minus = Reason.plus_inf, Reason.minus_inf

    assert classes_of(hard, infinite, got, model) == [*[plus] * 3, *[BEYOND] * 2, *[minus] * 3, *[BEYOND] * 2]
    assert classes_of(linear_unit, np.float32([-np.inf] * 3), np.float32([np.nan, 6, 3]), model) == [
        minus,
        minus,
        BEYOND,
    ]
    read = classes_of(hard, np.float32([np.nan] * 2), np.float32([0, 1]), model)
    assert all((each == BEYOND) == MODELS[model].nan_is_defined for each in read)


@pytest.mark.parametrize("model", list(MODELS))
def test_a_clamp_of_nan_is_one_code_or_another_and_none_between(model):
    # 0 times -inf is NaN, which is stored as 0; a minimum with 1/2 may choose that.
    d, unorm = mps.MPSNNNeuronDescriptor(T.reLUN, a=0, b=0.5), FORMATS[Format.unorm8]
    codes = np.arange(256, dtype=np.uint8).reshape(-1, 1)
    x = np.full(codes.shape, -np.inf, np.float16)
    judge = neuron_judge(d, MODELS[model], Elements(codes, unorm), Elements(x, HALF))

    passed = np.flatnonzero(judge(np.arange(256)) != BEYOND)

    assert passed.tolist() == (list(range(256)) if MODELS[model].is_finite else [0, 128])


@pytest.mark.parametrize("model", ["metal-precise", "metal-fast"])
def test_a_power_near_zero_has_the_sign_of_its_base(model):
    # 3 x - 0.3 is not above zero, by whatever rounding.
    x = np.float32([0.1] * 4)
    straight, inverse = (mps.MPSNNNeuronDescriptor(T.power, a=3, b=-0.3, c=c) for c in (1, -1))
    want = mps.neuron.forward(straight, x[:1]).item()
    assert want < 0

    around = classes_of(straight, x, np.float32([-want, -2 * want, want / 2, 0]), model)
    poles = classes_of(inverse, x, np.float32([1e12, 1 / -want, -1e12, np.inf]), model)

    assert around == [BEYOND, BEYOND, WITHIN, WITHIN]
    assert poles == [BEYOND, BEYOND, Reason.zero, Reason.zero]


def test_the_fast_tanh_of_what_may_be_infinite_has_the_limit():
    f = Running(FAST)
    with np.errstate(all="ignore"):
        found = f.tanh(f.between(np.array([0.5, np.inf]), np.array([np.inf, np.inf])))

    assert found.nan.all()
    assert 0 < found.low[0] < np.tanh(0.5) < 1 <= found.high[0] < 1 + 1e-6
    assert np.isnan(found.low[1])


def test_of_a_sum_one_part_is_flushed_or_none_and_nothing_between():
    values = {name: np.float32([[value]]) for name, value in (("x", 2e-39), ("y", 5e-39), ("one", 1))}

    def sum_of(names, f, index):
        x, y = (f.range(values[name].astype(float)[0]) for name in names)
        return x + y

    def smaller_of(names, f, index):
        x, y = (f.range(values[name].astype(float)[0]) for name in names)
        return f.min(x, y)

    def passes(form, names, *wrote):
        forms = [functools.partial(form, names)]
        return [int(classify(np.float32([got]), PRECISE, SINGLE, forms, finite).item()) != BEYOND for got in wrote]

    assert passes(sum_of, "xy", 7e-39, 2e-39, 5e-39, 0) == [True] * 4
    assert passes(sum_of, "xy", 7e-39 / 3, 6e-39, 1e-39, 8e-39) == [False] * 4
    assert passes(sum_of, ["x", "one"], 1, 1.001) == [True, False]
    # The smaller of two that compare as equal may be the larger.
    assert passes(smaller_of, "xy", 2e-39, 5e-39, 0, 3e-39) == [True, True, True, False]


def test_two_open_comparisons_are_taken_in_every_way():
    def form(f, chosen):
        y = f.range(np.broadcast_to(0.0, chosen.shape))
        wide = f.between(np.full(chosen.shape, -1.0), np.full(chosen.shape, 1.0))
        return f.where(wide >= 0, y + 1.0, y + 2.0) + f.where(wide >= 0.5, y + 10.0, y + 20.0)

    classes = {
        got: classify(np.float32([got]), PRECISE, SINGLE, [form], finite).item()
        for got in (11, 12, 21, 22, 13, 15, 11.5, 21.5)
    }

    assert [got for got, kind in classes.items() if kind == WITHIN] == [11, 12, 21, 22]


# ---- the neurons ----


@both_directions
@every_neuron
@pytest.mark.parametrize("model", ["metal-fast", "metal-precise"])
def test_the_ideal_and_the_stepwise_modes_are_within_bounds(neuron_type, direction, model):
    d = descriptor(neuron_type)
    bounds = bounds_of(d, X, direction, model)

    for mode in ("ideal", "stepwise", "stepwise-fma"):
        y = evaluated(d, X, direction, mode)
        assert ((bounds.lower <= y) & (y <= bounds.upper)).all(), mode
    assert not (bounds.reason | bounds.nan).any()


@both_directions
@pytest.mark.parametrize(
    # numpy has no erf and no pow of half precision.
    "neuron_type",
    [t for t in mps.NEURONS if t not in {T.geLU, T.power, T.exponential}],
    ids=lambda t: t.name,
)
def test_kernels_in_half_are_within_the_bounds_of_half(neuron_type, direction):
    """The row's own formula on numpy's halves, every operation rounded to half."""
    d = descriptor(neuron_type)
    x = X.astype(np.float16)

    class Arithmetic:
        fma = staticmethod(lambda a, b, c: np.float16(a) * b + np.float16(c))
        square, exp, log, tanh = (staticmethod(f) for f in (np.square, np.exp, np.log, np.tanh))
        min, max = staticmethod(np.fmin), staticmethod(np.fmax)
        where = staticmethod(lambda t, x, y: np.where(t, np.float16(x), np.float16(y)))

    @dataclasses.dataclass
    class Half:
        a, b, c = (np.float16(value) for value in (d.a, d.b, d.c))
        data = np.zeros(0) if d.data is None else d.data.astype(np.float16)

    name = "stepwise_forward" if direction == "forward" else "stepwise_derivative"
    with np.errstate(all="ignore"):
        y = np.broadcast_to(np.float16(getattr(d.row, name)(x, Half, Arithmetic)), x.shape)

    flat = x.reshape(-1)

    def form(f, index):
        slopes = np.empty(0) if d.data is None else d.data[index % 16]
        return neuron_forms(d, direction)[0](read(f, Elements(flat[index], HALF)), slopes, f)

    classes = classify(y.reshape(-1), MODELS["metal-half"], HALF, [form], finite)

    # The square of e^x + 1 overflows in half, from x = 5.54 on.
    overflows = np.where((neuron_type == T.sigmoid) & (direction == "gradient") & (flat > 5.54), classes, WITHIN)
    assert set(overflows.tolist()) <= {WITHIN, Reason.overflow}
    assert (classes == overflows).all()


def test_a_slope_is_wider_for_a_wider_gradient():
    d = descriptor(T.softSign)
    one, many = (allowed(d, X, upstream=np.full_like(X, value)) for value in (1, 1024))

    width = (many.upper.astype(float) - many.lower) / (one.upper.astype(float) - one.lower)

    assert (width > 900).all()


def test_the_overflow_of_one_form_is_no_reason_where_another_does_not():
    sigmoid = descriptor(T.sigmoid)
    x = np.float32([-100, 0, 50, 100])

    def of(formula):
        return lambda f, index: formula(f.range(x[index]), np.empty(0), f)

    literal, other = (of(formula) for formula in neuron_forms(sigmoid, "gradient"))
    got = np.float32([0, 0.25, 0, np.nan])
    classes = [classify(got, PRECISE, SINGLE, forms, finite) for forms in ([literal], [literal, other])]

    # e^x / (e^x + 1)^2 is 0 where only the square overflows, and NaN where both do; s (1 - s) is 0 as well.
    assert classes[0].tolist() == [Reason.flush, WITHIN, Reason.overflow, Reason.overflow]
    assert classes[1].tolist() == [Reason.flush, WITHIN, WITHIN, Reason.overflow]
    bounds = bounds_of(sigmoid, x[np.newaxis], "gradient", "metal-precise")
    assert bounds.reason.tolist() == [[0, 0, 0, 0]]
    assert bounds.lower[0, 2] <= 0


def test_the_formula_of_tanh_in_fast_math_overflows_and_is_told_so():
    tanh = mps.MPSNNNeuronDescriptor(T.tanH)
    got = np.float32([np.nan, 1, 0, 0.5, 0.5])
    x = np.float32([50, 50, 44.0, 44.0, 3.0])
    row = tanh.row

    def form(f, index):
        one = f.range(np.ones(()))
        p = type("P", (), {"a": one, "b": one})
        return row.stepwise_forward(f.range(x[index]), p, f)

    classes = classify(got, FAST, SINGLE, [form], finite)

    assert classes.tolist() == [Reason.overflow, WITHIN, Reason.division, BEYOND, BEYOND]


@both_directions
@every_neuron
def test_variants_that_are_left_out_have_the_ranges_of_the_first(neuron_type, direction):
    storage, shape = SINGLE, (1, 1, 8, 16)
    x, dy = (mps.MPSNNImageNode(handle=name) for name in ("x", "dy"))
    node = mps.MPSCNNNeuronNode(source=x, descriptor=descriptor(neuron_type))
    node = node if direction == "forward" else node.gradient_filter(with_source=dy)
    read_there = [Elements(np.linspace(-4 + k, 9, 128, dtype=np.float32).reshape(shape), storage) for k in (0, 1)]
    segment = Segment([node], dict(zip(node.sources, read_there, strict=False)), {node.result_image: storage})
    index, differ = np.arange(128), {}
    for name in ("metal-fast", "metal-precise", "wgsl"):
        first, *others = MODELS[name].variants
        ranges = [[form(Running(variant), index) for form in segment._forms_at(index)] for variant in (first, *others)]
        ends = [np.array([[value.low, value.high] for value in values]) for values in ranges]
        differ[name] = not np.array_equal(ends[0], ends[1], equal_nan=True)
        assert len(segment._variants(MODELS[name])) == 1 + differ[name]
    assert any(differ.values()) == (neuron_type in {T.tanH, T.power, T.exponential})


def test_every_alternative_names_its_source_and_is_another_form():
    for (neuron_type, direction), others in ALTERNATIVES.items():
        d = descriptor(neuron_type)
        assert direction in ("forward", "gradient")
        for other in others:
            assert other.source
            f = Running(PRECISE)
            p = type("P", (), {name: f.range(np.float64(getattr(d, name))) for name in "abc"})
            found = other.formula(f.range(X.reshape(-1)), p, f)
            want = evaluated(d, X.reshape(-1), direction).astype(float)
            # The same function: its ranges hold the ideal values, and are narrow.
            slack = 1e-6 * np.abs(want) + 1e-40
            assert ((found.low - slack <= want) & (want <= found.high + slack)).all()
            assert (found.high - found.low < 1e-5 * np.maximum(1, np.abs(want))).all()


FORMS = {
    (T.softPlus, "forward"): lambda x, p: p.a * np.log1p(np.exp(p.b * x)),
    (T.softSign, "gradient"): lambda x, p: np.square(1 / (1 + np.abs(x))),
    (T.ELU, "forward"): lambda x, p: np.where(x >= 0, x, p.a * np.nextafter(np.expm1(x), np.float32(0))),
}
"""Kernels in float32, some by functions that err by an ULP."""


@pytest.mark.parametrize("model", ["metal-precise", "metal-fast"])
@pytest.mark.parametrize(
    ("kind", "kernel"), FORMS.items(), ids=lambda each: "-".join(map(str, each)) if isinstance(each, tuple) else ""
)
def test_kernels_of_other_forms_are_not_accused(kind, kernel, model):
    neuron_type, direction = kind
    d = mps.MPSNNNeuronDescriptor(neuron_type, *PARAMETERS.get(neuron_type, ()))
    x = np.linspace(-80, 8, 40_001, dtype=np.float32)
    upstream = np.linspace(0.7, 1.9, x.size, dtype=np.float32) if direction == "gradient" else None
    p = type("P", (), {name: np.float32(getattr(d, name)) for name in "ab"})
    got = kernel(x, p) * (np.float32(1) if upstream is None else upstream)
    want = mps.neuron.forward(d, x) if upstream is None else mps.neuron.gradient(d, x, upstream)

    far = ulp_distance(got, want, SINGLE) > 1
    assert far.any()
    upstream = None if upstream is None else upstream[far]
    assert BEYOND not in classes_of(d, x[far], got[far], model, upstream)


# ---- faults ----


def wrong_by_four_bounds(d, x, direction, model):
    """Beside the ideal values, four times as far as the bounds and at least three units in the last place."""
    want = evaluated(d, x, direction)
    bounds = bounds_of(d, x, direction, model)
    error = np.maximum(bounds.upper.astype(float) - want, want - bounds.lower.astype(float))
    error = np.maximum(4 * error, 3 * np.spacing(np.abs(want)).astype(float))
    sign = np.where(np.arange(x.size).reshape(x.shape) % 2, 1, -1)
    return (want + sign * error).astype(x.dtype)


@both_directions
@every_neuron
@seldom(
    ("model", "dtype"),
    list(itertools.product(["metal-fast", "metal-precise"], [np.float16, np.float32])),
    lambda pair: pair == ("metal-precise", np.float32),
    lambda pair: f"{pair[0]}-{pair[1].__name__}",
)
def test_faults_of_four_times_the_bounds_are_caught(tmp_path, neuron_type, direction, dtype, model):
    d = descriptor(neuron_type)
    x = X.astype(dtype)
    source, upstream = mps.MPSNNImageNode(handle="x"), mps.MPSNNImageNode(handle="dy")
    forward = mps.MPSCNNNeuronNode(source=source, descriptor=d)
    gradient = mps.MPSCNNNeuronGradientNode(
        source_gradient=upstream, source_image=source, gradient_state=forward.result_state, descriptor=d
    )
    node = forward if direction == "forward" else gradient
    node.result_image.handle = "y"
    storage = Format.float16 if dtype == np.float16 else Format.float32
    file = mps.GraphFile.from_results([forward.result_image, gradient.result_image], storage)
    arrays = {"x": x, "dy": np.ones_like(x), "y": evaluated(d, x, direction)}
    planted = np.zeros(x.shape, bool)
    planted.reshape(-1)[::7] = True
    arrays["y"] = np.where(planted, wrong_by_four_bounds(d, x, direction, model), arrays["y"])
    images = {name: mps.MPSImage.from_array(array) for name, array in arrays.items()}

    (report,) = verify(write_recording(tmp_path / "r", file, images, "faulty"), model).images

    assert report.counts.beyond == np.count_nonzero(planted)
    assert report.counts.excused == {}


@pytest.mark.slow
def test_tables_of_half_patterns_say_the_same_as_elements(tmp_path, monkeypatch):
    d = descriptor(T.softPlus)
    patterns = np.random.default_rng(0).permutation(65_536).astype(np.uint16)[:8192]
    patterns[:2] = 0x7C00, 0xFC00
    x = patterns.view(np.float16).reshape(1, 32, 16, 16)
    node = mps.MPSCNNNeuronNode(source=mps.MPSNNImageNode(handle="x"), descriptor=d)
    node.result_image.handle = "y"
    arrays = {"x": x, "y": mps.neuron.forward(d, x)}
    arrays["y"].view(np.uint16)[...] ^= 3
    images = {name: mps.MPSImage.from_array(array) for name, array in arrays.items()}
    path = write_recording(tmp_path / "r", mps.GraphFile.from_results([node.result_image]), images, "x")
    reports = []
    for limit in (1, 10**9):
        monkeypatch.setattr("mpsref.verify.judge.WORTH_A_TABLE", limit)
        reports.append(verify(path, "metal-fast", faults=False))

    assert reports[0] == reports[1]
    assert reports[0].images[0].counts.beyond > 1000


def test_a_node_of_another_kind_has_bounds_too(tmp_path):
    x, y = mps.MPSNNImageNode(handle="x"), mps.MPSNNImageNode(handle="y")
    node = mps.MPSNNAdditionNode(left_source=x, right_source=y)
    node.result_image.handle = "s"
    rng = np.random.default_rng(1)
    arrays = {name: rng.uniform(-4, 4, (1, 4, 4, 4)).astype(np.float32) for name in "xy"}
    file = mps.GraphFile.from_results([node.result_image], Format.float32)
    arrays["s"] = arrays["x"] + arrays["y"]
    arrays["s"][0, 0, 0, 0] += 1e-4
    images = {name: mps.MPSImage.from_array(array) for name, array in arrays.items()}

    report = verify(write_recording(tmp_path / "r", file, images, "x"))

    assert report.images[0].counts.beyond == 1
    assert report.images[0].neuron is None
