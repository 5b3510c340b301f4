"""Every neuron's values, slopes and gradients against the independent judge."""

import math
from fractions import Fraction

import numpy as np
import pytest
from flint import arb

import mpsref as mps
from builders import (
    ALL,
    BOTH,
    FINITE_HALF,
    HALF,
    TWO,
    around,
    assert_correctly_rounded,
    cases,
    compute,
    descriptor_of,
    float32_inputs,
    judge_of,
    report,
    seeded,
)
from mpsref.neuron import evaluate
from mpsref.proof import judge

T = mps.MPSCNNNeuronType
f32 = np.float32


# --- the judge itself --------------------


def test_the_judge_rounds_like_exact_rational_arithmetic():
    """Every midpoint of float16, and what lies a hair to either side of it, by way of a linear neuron."""
    half = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float64)
    ends = np.append(half, 65536.0)
    middle = (ends[:-1] + ends[1:]) / 2
    for a, expected in ((1, None), (1 - 2.0**-24, half), (1 + 2.0**-23, np.append(half[1:], np.inf))):
        j = judge.Judge("linear", a, 0)
        got = j.rounded(middle, j.float64s(middle), np.float16)
        even = np.where(np.arange(half.size) % 2 == 0, half, np.append(half[1:], np.inf))
        np.testing.assert_array_equal(got.astype(np.float64), even if expected is None else expected)


def test_the_judge_knows_exact_points_from_near_ones():
    assert judge.Judge("exponential", 1, 0, 4).rational(0.5) == 2
    assert judge.Judge("exponential", 1, 0, 10).rational(-2.0) == Fraction(1, 100)
    assert judge.Judge("power", 1, 0, 0.75).rational(16.0) == 8
    assert judge.Judge("power", 1, 0, 0.75).rational(16.5) is None
    assert judge.Judge("logarithm", 1, 0, 4).side(2.0, Fraction(1, 2)) == 0
    assert judge.Judge("tanH", 1.5, 1).side(1e30, Fraction(3, 2)) == -1
    assert judge.Judge("softPlus", 1.5, 1).side(1e30, Fraction(1.5e30)) == 1


def test_the_judge_gives_the_values_of_published_tables():
    """Digits of Abramowitz and Stegun, and of OEIS A002162 and A019693's relatives."""
    for j, x, digits in (
        (judge.Judge("softPlus", 1, 1), 0.0, 0.693147180559945309417),
        (judge.Judge("tanH", 1, 1), 1.0, 0.761594155955764888119),
        (judge.Judge("sigmoid"), 1.0, 0.731058578630004879251),
        (judge.Judge("geLU"), 1.0, 0.841344746068542948585),
        (judge.Judge("exponential", 1, 0, -1), 1.0, 2.718281828459045235360),
        (judge.Judge("ELU", 1), -1.0, -0.632120558828557678404),
    ):
        assert float(j.accurate_ball(x)) == pytest.approx(digits, rel=1e-15)


@BOTH
def test_n2_every_float16_input_is_right_with_a_slope_for_each_channel(derivative):
    slopes = np.array([0.1, -0.5, 1e30, 0, 1e-30], f32)
    d = mps.MPSNNNeuronDescriptor(T.pReLU, data=slopes)
    x = np.repeat(FINITE_HALF[:, None], slopes.size, axis=1)
    got = mps.neuron.gradient(d, x, np.ones_like(x)) if derivative else mps.neuron.forward(d, x)
    wide = FINITE_HALF.astype(np.float64)
    for channel, slope in enumerate(slopes.tolist()):
        j = judge.Judge("pReLU", slope)
        near = j.float64s(wide, derivative)
        want = j.rounded(wide, near, np.float16, derivative)
        column = np.ascontiguousarray(got[:, channel])
        wrong = judge.differs(column, want, near)
        assert not wrong.any(), report(j, FINITE_HALF, column, want, wrong)


@pytest.mark.exhaustive
@BOTH
@cases(ALL)
def test_n2_a_million_float32_results_are_correctly_rounded(name, p, derivative):
    assert_correctly_rounded(name, p, float32_inputs(name, p, 1_000_000), derivative)


TIES = [
    ("tanH", (1.5, 1)), ("tanH", (1.5, -0.75)), ("ELU", (1.5,)), ("ELU", (-1.25,)), ("tanH", (1 + 2.0**-23, 1.5)),
    ("softPlus", (1, 1.5)), ("softPlus", (1.5, 1)), ("power", (1, 1e-30, 1.5)), ("linear", (1.5, 1e-38)),
    ("exponential", (1e-30, 1, 3)), ("hardSigmoid", (1.5, 1e-38)), ("reLUN", (1.5, 6)),
]  # fmt: skip


@cases(TIES)
def test_n2_float32_values_a_hair_beside_a_tie_round_to_the_right_side(name, p):
    """Where f(x) is a midpoint of float32 but for a term that float64 cannot hold beside it."""
    rng = seeded(name, p, "ties")
    mantissa = rng.integers(1 << 23, 1 << 24, 6000).astype(np.float64)
    x = np.copysign(np.ldexp(mantissa, rng.integers(-149, 100, 6000)), rng.normal(size=6000)).astype(f32)
    squares = (np.arange(1, 2000, dtype=np.float64) ** 2).astype(f32)
    assert_correctly_rounded(name, p, np.concatenate([x, squares]), False)


# --- 3: float64 --------------------


@BOTH
@cases(TWO)
def test_n2_float64_results_are_within_4_ulp(name, p, derivative):
    rng, j, d = seeded(name, p, 64), judge_of(name, p), descriptor_of(name, p)
    kinks = [k + s * 2.0**-e for k in (0.0, *d.row.kinks(d)) for e in (3, 10, 20, 40) for s in (-1, 1)]
    x = np.concatenate([rng.normal(0, 3, 1500), rng.uniform(-30, 30, 1000), rng.normal(0, 1e-6, 300), kinks])
    got = compute(name, p, x, derivative)
    limit, worst = (5 if name == "geLU" else 4), (0.0, 0.0)
    for value, result in zip(x.tolist(), got.tolist(), strict=True):
        exact = j.accurate_ball(value, derivative)
        if exact.is_nan() or exact == 0 or not exact.is_finite():
            assert math.isnan(result) if exact.is_nan() else abs(result) == abs(float(exact)), value
            continue
        size = math.ulp(float(exact))
        error = float(abs(judge.precisely(200, lambda r=result, e=exact: arb(r) - e)) / size)
        worst = max(worst, (error, value))
    assert worst[0] <= limit, f"{j}: {worst[0]:.2f} ULP at x={worst[1]!r}"


# --- 4: the derivative is that of the forward --------------------

H = arb(2) ** -200
# Parameters whose kinks are float16 numbers, so that no undeclared one could hide between the inputs.
DYADIC = [
    ("none", ()), ("reLU", ()), ("reLU", (-0.5,)), ("linear", (1.5, 0.25)), ("sigmoid", ()),
    ("hardSigmoid", (0.25, 0.5)),
    ("hardSigmoid", (-0.5, 2)), ("hardSigmoid", (0, 0.5)), ("tanH", ()), ("tanH", (-1.5, 0.75)), ("absolute", ()),
    ("softPlus", ()), ("softPlus", (3, -0.75)), ("softSign", ()), ("ELU", ()), ("ELU", (-1.5,)), ("pReLU", (0.25,)),
    ("reLUN", ()), ("reLUN", (0, 6)), ("reLUN", (-0.5, 20)), ("reLUN", (0.5, -2)), ("reLUN", (-0.5, -2)),
    ("power", ()), ("power", (1, 0, 2)), ("power", (1.5, 0.5, 1.75)), ("power", (1, 0.5, -2)), ("power", (-2, 1, -0.5)),
    ("power", (1, 0, 0)), ("exponential", ()), ("exponential", (0.5, 0.25, 2)), ("exponential", (-2, 1, 0.25)),
    ("exponential", (1, 0, 1)), ("logarithm", ()), ("logarithm", (0.5, 1, 2)), ("logarithm", (-1, 2, 0.25)),
    ("geLU", ()),
]  # fmt: skip


def one_sided_slopes(j, x):
    """The slopes to the left and to the right, from the forward alone."""
    x = arb(x)
    left, here, right = (j.forward(v) for v in (x - H, x, x + H))
    return float((here - left) / H), float((right - here) / H)


def is_domain_end(name, j, x):
    u = Fraction(j.p[0]) * Fraction(x) + Fraction(j.p[1])
    return (name == "logarithm" and u <= 0) or (name == "power" and (u == 0 or (u < 0 and not j.integer_c)))


@cases(DYADIC)
def test_n5_the_slope_is_the_difference_quotient_of_the_forward_and_no_kink_is_undeclared(name, p):
    j, d = judge_of(name, p), descriptor_of(name, p)
    kinks = set(d.row.kinks(d))
    x = np.concatenate([FINITE_HALF[np.abs(FINITE_HALF) < 60][::101].astype(np.float64), np.arange(-240, 241) / 8])
    slopes = compute(name, p, x, derivative=True)
    for value, slope in zip(x.tolist(), slopes.tolist(), strict=True):
        if value in kinks or is_domain_end(name, j, value):
            continue
        left, right = judge.precisely(600, one_sided_slopes, j, value)
        assert left == pytest.approx(right, rel=1e-12, abs=1e-50), f"{j}: an undeclared kink at {value}"
        assert slope == pytest.approx(right, rel=1e-12, abs=1e-50), f"{j}: slope at {value}"


# Where, the slope to the left and to the right, and which one N4 chooses.
KINKS = [
    ("reLU", (), 0.0, 0, 1, 1), ("reLU", (-0.5,), 0.0, -0.5, 1, 1), ("pReLU", (0.25,), 0.0, 0.25, 1, 1),
    ("absolute", (), 0.0, -1, 1, 0), ("ELU", (-1.5,), 0.0, -1.5, 1, 1), ("ELU", (0.5,), 0.0, 0.5, 1, 1),
    ("hardSigmoid", (0.25, 0.5), -2.0, 0, 0.25, 0.25), ("hardSigmoid", (0.25, 0.5), 2.0, 0.25, 0, 0.25),
    ("hardSigmoid", (-0.5, 2), 4.0, -0.5, 0, -0.5), ("hardSigmoid", (-0.5, 2), 2.0, 0, -0.5, -0.5),
    ("reLUN", (), 6.0, 1, 0, 0), ("reLUN", (0, 6), 0.0, 0, 1, 1), ("reLUN", (0, 6), 6.0, 1, 0, 0),
    ("reLUN", (-0.5, 20), -40.0, 0, -0.5, 0), ("reLUN", (-0.5, 20), 0.0, -0.5, 1, 1),
    ("reLUN", (-0.5, 20), 20.0, 1, 0, 0), ("reLUN", (0.5, -2), -4.0, 0.5, 0, 0), ("reLUN", (2, 0), 0.0, 2, 0, 0),
    ("reLUN", (-0.5, 0), 0.0, 0, 0, 0),
]  # fmt: skip


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize(("name", "p", "x", "left", "right", "chosen"), KINKS)
def test_n4_at_a_kink_the_documented_comparison_chooses_the_slope(name, p, x, left, right, chosen, dtype):
    j, d = judge_of(name, p), descriptor_of(name, p)
    assert x in d.row.kinks(d)
    assert judge.precisely(600, one_sided_slopes, j, x) == (left, right)
    for value in {x, -x if x == 0 else x}:
        assert compute(name, p, np.array([value], dtype), derivative=True)[0] == chosen


def test_n4_every_declared_kink_is_tested_by_hand():
    tested = {(name, p, x) for name, p, x, *_ in KINKS}
    for name, p in {(name, p) for name, p, *_ in KINKS} | {("reLUN", ())}:
        d, j = descriptor_of(name, p), judge_of(name, p)
        for x in d.row.kinks(d):
            left, right = judge.precisely(600, one_sided_slopes, j, x)
            assert left == right or (name, p, x) in tested, f"{j} has a kink at {x}"


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("p", [(0.2, 0.5), (-0.7, 0.1), (1 / 3, 2 / 3), (0.1, 0.3), (1e30, 0.5)])
def test_n4_hard_sigmoid_decides_its_closed_interval_on_the_exact_affine_value(p, dtype):
    """Around the two kinks, where a x + b is rounded to the bound though it is not there."""
    d, j = descriptor_of("hardSigmoid", p), judge_of("hardSigmoid", p)
    near = around(d.row.kinks(d), 300)
    near = np.concatenate([near[np.abs(near) < 60_000].astype(dtype), np.array([0, -0.0], dtype)])
    x = np.concatenate([near, np.nextafter(near, dtype(np.inf)), np.nextafter(near, dtype(-np.inf))])
    got = compute("hardSigmoid", p, x, derivative=True)
    a, b = Fraction(d.a), Fraction(d.b)
    inside = np.array([0 <= a * Fraction(float(v)) + b <= 1 for v in x])
    with np.errstate(over="ignore"):
        want = np.where(inside, dtype(d.a), dtype(0))
    np.testing.assert_array_equal(got, want, err_msg=str(j))


# --- 5: the product with the upstream gradient --------------------


def expected_product(j, x, upstream):
    """The correctly rounded product, and its float64 neighbour; IEEE's rules for an infinite or NaN upstream."""
    with np.errstate(invalid="ignore"):  # signalling NaN
        wide, factor = x.astype(np.float64), upstream.astype(np.float64)
    finite = np.isfinite(factor)
    near = np.empty(x.size)
    near[finite] = j.float64s(wide[finite], True, factor[finite])
    want = np.empty(x.size, x.dtype)
    want[finite] = j.rounded(wide[finite], near[finite], x.dtype, True, factor[finite])
    with np.errstate(all="ignore"):
        near[~finite] = np.sign(j.float64s(wide[~finite], True)) * factor[~finite]
        near[np.isnan(near)] = np.nan
        want[~finite] = near[~finite].astype(x.dtype)
        near[~finite & np.isinf(near)] = 1e300  # the sign counts there
    return near, want


@cases(TWO)
def test_n3_random_float32_pairs_give_the_exact_product_rounded_once(name, p):
    rng, j = seeded(name, p, "float32 pairs"), judge_of(name, p)
    x = float32_inputs(name, p, 1 << 14)
    x = x[rng.permutation(x.size)[: 1 << 12]]
    upstream = rng.integers(0, 1 << 32, x.size, dtype=np.uint32).view(f32)
    upstream[: 1 << 11] = rng.normal(size=1 << 11)
    near, want = expected_product(j, x, upstream)
    got = compute(name, p, x, True, upstream)
    wrong = judge.differs(got, want, near)
    assert not wrong.any(), report(j, x, got, want, wrong, upstream)


@cases(TWO)
def test_n3_random_float16_pairs_give_the_exact_product_rounded_once(name, p, monkeypatch):
    monkeypatch.setattr(evaluate, "WORTH_A_TABLE", 1)
    monkeypatch.setattr(evaluate, "WORTH_A_LOOK", 1)
    rng, j = seeded(name, p, "float16 pairs"), judge_of(name, p)
    count = 30_000 if name == "sigmoid" else 2000
    x, upstream = rng.permutation(FINITE_HALF)[:count], rng.permutation(HALF)[:count]
    x[count // 2 :] = rng.normal(0, 2, count // 2)
    upstream[count // 4 : -count // 4] = rng.normal(0, 1, count // 2) * 2.0 ** rng.integers(-20, 1, count // 2)
    near, want = expected_product(j, x, upstream)
    got = compute(name, p, x, True, upstream)
    wrong = judge.differs(got, want, near)
    assert not wrong.any(), report(j, x, got, want, wrong, upstream)


SLOPES = [1.5, -0.75, 0.1, -3e-5, 1e30, -1e-30, 0.0, 5668 * 2.0**-23, 7201 * 2.0**-25, 57593 * 2.0**-13]


@pytest.mark.parametrize("slope", SLOPES)
def test_n3_a_slope_times_every_float16_is_rounded_once(slope, monkeypatch):
    """Many products are ties, and some only almost; float64 tells them apart."""
    monkeypatch.setattr(evaluate, "WORTH_A_TABLE", 1)
    got = compute("linear", (slope, 1), np.ones_like(HALF), True, HALF)
    with np.errstate(all="ignore"):
        want = (HALF.astype(np.float64) * f32(slope).astype(np.float64)).astype(np.float16)
    np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(np.signbit(got), np.signbit(want) & ~np.isnan(want))


@pytest.mark.parametrize("slopes", [SLOPES, [0.1, 0.75, 1.0, 2.0**-24, 5668 * 2.0**-23, 7201 * 2.0**-25]])
def test_n2_every_float16_times_the_slope_of_its_channel_is_rounded_once(slopes):
    x = np.repeat(HALF[:, np.newaxis], len(slopes), axis=1)
    got = mps.neuron.forward(mps.MPSNNNeuronDescriptor("pReLU", data=slopes), x)
    with np.errstate(all="ignore"):
        wide = x.astype(np.float64)
        finite = np.where(f32(slopes) == 0, np.maximum(wide, -65504), wide)
        want = np.where(wide < 0, finite * f32(slopes).astype(np.float64), wide).astype(np.float16)
    np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(np.signbit(got), np.signbit(want) & ~np.isnan(want))


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize(
    ("name", "p", "x"),
    [
        ("exponential", (), 40_000), ("exponential", (-1, 0, -1), -40_000), ("exponential", (1, 0, 0.5), -60_000),
        ("power", (1, 0, 2000), 60_000), ("power", (1e30, 0, 40), 60_000), ("power", (-1, 0, 2000), -60_000),
        ("power", (1, 0, -2000), 0.001),
    ],
)  # fmt: skip
def test_n3_a_huge_slope_times_a_zero_upstream_is_zero(name, p, x, dtype):
    """However huge: it is a finite real number."""
    sign = -1 if judge_of(name, p).accurate_ball(float(x), True) < 0 else 1
    upstream = np.array([0.0, -0.0, np.inf, np.nan], dtype)
    got = compute(name, p, np.full(4, x, dtype), True, upstream)
    np.testing.assert_array_equal(got[:2], 0)
    np.testing.assert_array_equal(np.signbit(got[:2]), [sign < 0, sign > 0])
    assert got[2] == sign * np.inf
    assert np.isnan(got[3])


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize(
    ("name", "p", "x"),
    [
        ("exponential", (), -40_000), ("exponential", (1, 0, 0.5), 60_000), ("sigmoid", (), -60_000),
        ("sigmoid", (), 60_000), ("tanH", (), 60_000), ("tanH", (-1.5, 1), -60_000), ("softPlus", (), -60_000),
        ("softPlus", (3, -0.7), 60_000), ("ELU", (), -60_000), ("ELU", (-1.67,), -60_000), ("geLU", (), -60_000),
        ("power", (1, 0, 2000), 0.001), ("power", (1, 0, -2000), 60_000), ("softSign", (), 60_000),
    ],
)  # fmt: skip
def test_n3_a_tiny_slope_times_an_infinite_upstream_is_infinite(name, p, x, dtype):
    sign = -1 if judge_of(name, p).accurate_ball(float(x), True) < 0 else 1
    upstream = np.array([np.inf, -np.inf, 0.0, np.nan, 1.0], dtype)
    got = compute(name, p, np.full(5, x, dtype), True, upstream)
    np.testing.assert_array_equal(got[:2], [sign * np.inf, -sign * np.inf])
    assert got[2] == 0
    assert np.signbit(got[2]) == (sign < 0)
    assert np.isnan(got[3])
    assert np.signbit(got[4]) == (sign < 0)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize(("name", "p", "x"), [("reLU", (), -1), ("absolute", (), 0), ("hardSigmoid", (), 9)])
def test_n3_a_slope_that_is_zero_times_an_infinite_upstream_is_nan(name, p, x, dtype):
    assert np.isnan(compute(name, p, np.array([x], dtype), True, np.array([np.inf], dtype))[0])
