"""
Proofs by ball arithmetic: every half and unorm code, a million half gradients, a million float32 inputs that are hard.

Of the last two only one of `FEW` is tried by default, and all by slow tests.

The judge decides what is right. The package's own float64 results serve only to choose inputs that are hard to round.
"""

from fractions import Fraction

import numpy as np
import pytest

import mpsref as mps
from builders import (
    ALL,
    BOTH,
    CASES,
    COUNT,
    DEFAULT,
    FINITE_HALF,
    HALF,
    SPECIAL,
    SPECIAL_CASES,
    TWO,
    Either,
    J,
    assert_correctly_rounded,
    cases,
    compute,
    descriptor_of,
    float32_inputs,
    judge,
    judge_of,
    report,
    seeded,
    seldom,
)
from mpsref.arrays import Elements
from mpsref.neuron import evaluate
from mpsref.neuron.slopes import ChannelSlopes
from mpsref.storage import FORMATS

F = mps.MPSImageFeatureChannelFormat
UNORMS = pytest.mark.parametrize("unorm", [F.unorm8, F.unorm16], ids=lambda f: f.name)
inf = float("inf")


# --- from one storage format to another --------------------


def run(name, p, stored, source, result, derivative, upstream=None):
    """Stored elements of one feature channel through a neuron; an upstream gradient of 1 unless one is given."""
    d, source, result = descriptor_of(name, p), FORMATS[source], FORMATS[result]
    slopes = None if d.data is None else ChannelSlopes(d.data.astype(np.float64)[np.newaxis], 1)
    if not derivative:
        return evaluate.evaluate(d, Elements(stored, source), result, slopes)
    if upstream is None:
        upstream = np.full(stored.shape, source.unorm_max or 1, source.dtype)
    gradient = Elements(upstream, source)
    return evaluate.evaluate(d, Elements(stored, source), result, slopes, gradient=gradient)


def exact_codes(j, x, near, maximum, derivative):
    """
    The unorm codes of exact values: clamped, rounded once, to nearest even; NaN gives 0.

    `near` is what `float64s` gave. Codes that 2^-50 relative leaves open are decided by the side of the boundary
    (k + 1/2) / maximum that the exact value is on.
    """
    inside = np.nan_to_num(np.clip(near, -2, 2))
    low, high = (np.rint(np.clip(inside * (1 + s * 2.0**-50), 0, 1) * maximum).astype(int) for s in (-1, 1))
    for i in np.flatnonzero(low != high).tolist():
        k = int(low[i])
        assert high[i] == k + 1
        side = j.side(float(x[i]), Fraction(2 * k + 1, 2 * maximum), derivative=derivative)
        low[i] += side > 0 or (side == 0 and k % 2)
    return low


def assert_stored_right(name, p, stored, source, x, near, derivative):
    """Results in each of the four formats; `x` are the sources' meanings, `near` the judge's float64 values there."""
    j = judge_of(name, p)
    for result, storage in FORMATS.items():
        got = run(name, p, stored, source, result, derivative)
        assert got.dtype == storage.dtype
        if storage.unorm_max:
            want = exact_codes(j, x, near, storage.unorm_max, derivative)
            pole = np.isinf(near) & ((got == 0) | (got == storage.unorm_max))  # its limits have two signs
            wrong = (got != want) & ~pole
        else:
            want = j.rounded(x, near, storage.dtype, derivative)
            wrong = judge.differs(got, want, near)
        assert not wrong.any(), f"{source.name} to {result.name}: {report(j, x, got, want, wrong)}"


def test_every_neuron_with_parameters_is_proved_at_six_sets_at_least():
    assert set(CASES) == {t.name for t in mps.NEURONS}
    for neuron_type, row in mps.NEURONS.items():
        assert len(set(CASES[neuron_type.name])) >= (6 if row.parameters or row.per_channel else 1), neuron_type.name


def test_exact_codes_round_like_rational_arithmetic():
    """On and beside every boundary of two codes, by way of a linear neuron."""
    for maximum in (255, 65535):
        k = np.arange(maximum)
        middle = ((2 * k + 1) / (2 * maximum)).astype(np.float32).astype(np.float64)
        for x in (middle, np.nextafter(middle.astype(np.float32), np.float32(2)).astype(np.float64)):
            j = judge.Judge("linear", 1, 0)
            want = [round(Fraction(v) * maximum) for v in x.tolist()]
            assert exact_codes(j, x, j.float64s(x), maximum, False).tolist() == want


@BOTH
@cases(ALL, often=TWO)
def test_n2_every_finite_float16_input_gives_the_correctly_rounded_result_in_every_format(name, p, derivative):
    x = FINITE_HALF.astype(np.float64)
    near = judge_of(name, p).float64s(x, derivative)
    assert_stored_right(name, p, FINITE_HALF, F.float16, x, near, derivative)


@BOTH
@cases(ALL, often=TWO)
def test_n2_every_unorm_code_gives_the_correctly_rounded_result_in_every_format(name, p, derivative):
    """A code means the float32 nearest to code / max: that of unorm8 is that of 257 times the code in unorm16."""
    codes = np.arange(65_536)
    x = (codes / 65_535).astype(np.float32).astype(np.float64)
    near = judge_of(name, p).float64s(x, derivative)
    assert_stored_right(name, p, codes.astype(np.uint16), F.unorm16, x, near, derivative)
    assert_stored_right(name, p, codes[:256].astype(np.uint8), F.unorm8, x[::257], near[::257], derivative)


@BOTH
@cases(TWO)
def test_n2_float32_inputs_give_the_correctly_rounded_result_in_every_format(name, p, derivative):
    stored = float32_inputs(name, p, 1 << 14)[::3]
    x = stored.astype(np.float64)
    assert_stored_right(name, p, stored, F.float32, x, judge_of(name, p).float64s(x, derivative), derivative)


# By name of the dtype, which the table of special values knows.
FLOATS = pytest.mark.parametrize("source", [F.float16, F.float32], ids=lambda f: f.name)


@UNORMS
@FLOATS
@pytest.mark.parametrize(("name", "p", "values", "slopes"), SPECIAL, ids=[f"{n}{list(p)}" for n, p, *_ in SPECIAL])
def test_n6_infinities_and_zeros_give_the_unorm_code_of_the_limit(name, p, values, slopes, source, unorm):
    maximum, j = FORMATS[unorm].unorm_max, judge_of(name, p)
    stored = np.array([-inf, inf, -0.0, 0.0], FORMATS[source].dtype)
    for derivative, wanted in ((False, values), (True, slopes)):
        got = run(name, p, stored, source, unorm, derivative).tolist()
        for i, at in enumerate((-1e4, 1e4, 0.0, 0.0)):
            limit = wanted[i]
            if limit is J:
                if name == "exponential" and p[2] == 0:
                    continue  # 0 to a negative power
                limit = float(j.accurate_ball(at, derivative))
            ends = (limit.size, -limit.size) if isinstance(limit, Either) else (limit,)
            codes = [0 if np.isnan(v) else round(Fraction(min(max(v, 0), 1)) * maximum) for v in ends]
            assert got[i] in codes, (derivative, stored[i])


@UNORMS
@SPECIAL_CASES
def test_n6_every_nan_gives_the_unorm_code_0(name, p, unorm):
    nan = HALF[np.isnan(HALF)]
    one = np.ones_like(nan)
    assert not run(name, p, nan, F.float16, unorm, False).any()
    assert not run(name, p, one, F.float16, unorm, True, nan).any()
    # A slope that does not depend on the source ignores a NaN there.
    constant = {"none": 1, "linear": descriptor_of(name, p).a}.get(name, 0)
    code = round(Fraction(min(max(constant, 0), 1)) * FORMATS[unorm].unorm_max)
    assert (run(name, p, nan, F.float16, unorm, True, one) == code).all()


# --- a million half gradients --------------------

FEW = 15
PAIRS = 1 << 20
BELOW_HALF = 42
"""Bits of a float64's significand that a half cannot hold."""


def pairs_beside_midpoints(slope, rng, count):
    """
    Indices of slopes and upstream halves whose product lies next to a midpoint of two halves.

    They are found among the products of every slope with every significand; their exponents are drawn so that the
    product is a normal half wherever that can be.
    """
    significand = 1 + np.arange(1024) / 1024
    found = []
    for i in range(0, slope.size, 1024):
        product = np.multiply.outer(slope[i : i + 1024], significand)
        bits = product.view(np.int64)
        np.bitwise_and(bits, (1 << BELOW_HALF) - 1, out=bits)
        np.subtract(bits, 1 << (BELOW_HALF - 1), out=bits)
        found.append(np.flatnonzero(np.abs(bits, out=bits) < 1 << (BELOW_HALF - 7)) + i * 1024)
    flat = np.concatenate(found)
    flat = rng.permutation(flat)[:count] if flat.size else rng.integers(0, slope.size * 1024, count)
    index, g = flat // 1024, significand[flat % 1024]
    least, most = (e - np.frexp(slope[index] * g)[1] for e in (-13, 17))
    least, most = np.clip(least, -14, 15), np.clip(most, -14, 16)
    exponent = least + np.floor(rng.random(index.size) * np.maximum(most - least, 1)).astype(int)
    return index, np.ldexp(np.copysign(g, rng.normal(size=g.size)), np.minimum(exponent, 15)).astype(np.float16)


def half_pairs(slope, rng, count):
    """Indices of slopes and so many upstream halves: half of them adversarial."""
    usual = np.clip(np.where(np.isfinite(slope), slope, 1), -1e30, 1e30)
    index, upstream = pairs_beside_midpoints(usual, rng, count // 2)
    rest = rng.integers(0, slope.size, count - index.size)
    others = HALF[rng.integers(0, HALF.size, rest.size)].copy()
    part = rest.size // 8
    with np.errstate(all="ignore"):
        # Next to a midpoint of two subnormals, or to half of the smallest; subnormal; of ordinary size;
        others[:part] = (rng.integers(0, 1024, part) + 0.5) * 2.0**-24 / usual[rest[:part]]
    others[part : 2 * part] = rng.integers(1, 1024, part) * np.copysign(2.0**-24, rng.normal(size=part))
    others[2 * part : 4 * part] = rng.normal(size=2 * part)
    ends = np.array([0.0, -0.0, inf, -inf, np.nan, 65504, -65504, 2.0**-24, -(2.0**-24), 1, 1 + 2.0**-10], np.float16)
    others[4 * part : 5 * part] = rng.choice(ends, part)
    return np.concatenate([index, rest]), np.concatenate([upstream, others])


def shares(pairs):
    """Neurons and their parameters, of whose numbers all are tried, slowly; and one of `FEW` at the defaults."""
    tried = [(name, p, 1) for name, p in pairs] + [(name, p, FEW) for name, p in DEFAULT]
    return seldom(
        ("name", "p", "share"), tried, lambda case: case[2] == FEW, lambda case: f"{case[0]}{list(case[1])}-{case[2]}"
    )


@shares(TWO)
def test_n3_a_million_float16_pairs_give_the_exact_product_rounded_once(name, p, share):
    """
    The judge gives each slope once, to 2^-52, and decides whatever a product with that leaves open.

    Slopes beyond 1e290, or nearer to zero than 1e-290, may be those: no half makes an ordinary product of them.
    """
    rng, j, half = seeded(name, p, "half pairs"), judge_of(name, p), FINITE_HALF[::share]
    x = half.astype(np.float64)
    slope = j.float64s(x, derivative=True)
    bounded = np.copysign(np.clip(np.abs(slope), 1e-290, 1e290), slope)
    slope = np.where((slope == 0) | ~np.isfinite(slope), slope, bounded)
    index, upstream = half_pairs(slope, rng, PAIRS // share)
    assert upstream.size == PAIRS // share
    factor = upstream.astype(np.float64)

    with np.errstate(all="ignore"):
        near = np.where(np.isinf(factor), np.sign(slope[index]) * factor, slope[index] * factor)
    near[np.isnan(near)] = np.nan  # the canonical one
    want = np.full(upstream.size, np.nan, np.float16)
    ordinary = np.isfinite(slope[index]) & np.isfinite(factor)
    want[ordinary] = j.rounded(x[index][ordinary], near[ordinary], np.float16, True, factor[ordinary])
    want[~ordinary] = near[~ordinary]
    got = compute(name, p, half[index], True, upstream)

    # The sign of infinity is free at a pole of the slope only.
    signed = np.where(np.isfinite(slope[index]) & np.isinf(near), 1e300, near)
    wrong = judge.differs(got, want, signed)
    assert not wrong.any(), report(j, x[index], got, want, wrong, upstream)


# --- float32 inputs that are hard to round --------------------

REACH = 32
"""How many floats to either side of a seed are searched."""

SMALLEST, LARGEST = (int(np.float32(v).view(np.int32)) for v in (2.0**-16, 2.0**8))


def from_midpoint(y):
    """How far each float64 is from a midpoint of two float32, in their ULPs: 0 there, 1/2 at a float32."""
    unit = (y.view(np.int64) & 0x7FF0_0000_0000_0000).view(np.float64) * 2.0**-23
    t = y / np.maximum(unit, 2.0**-149) - 0.5
    t[~(np.abs(y) < 3.4e38)] = 0.5
    return t - np.rint(t)


def steps_to_midpoint(distance, slope):
    """
    Whole numbers k, of at most `REACH`, with ``distance + k slope`` next to a whole number.

    One multiple of each convergent of the slope's continued fraction after the other, as far as they reach.
    """
    k, q_before, q = np.zeros_like(slope), np.zeros_like(slope), np.ones_like(slope)
    rest_before, rest, distance = np.ones_like(slope), slope, distance.copy()
    for _ in range(5):
        rest = np.where(np.abs(rest) < 1e-30, 1e-30, rest)
        most = np.floor((REACH - np.abs(k)) / np.abs(q))
        c = np.clip(np.rint(-distance / rest), -most, most)
        distance += c * rest
        k += c * q
        n = np.rint(rest_before / rest)
        rest_before, rest = rest, rest_before - n * rest
        q_before, q = q, q_before - n * q
    return k.astype(np.int32)


def hard_inputs(name, p, derivative, seeds, count):
    """
    float32 inputs whose results lie next to a midpoint of two float32, all different.

    Seeds are spread over the floats from 2^-16 to 2^8 and their negatives; from each the search goes to that neighbour
    whose result, by the tangent, is nearest to a midpoint. The nearest `count` are kept.
    """
    rng = seeded(name, p, derivative, "hard")
    stride = (LARGEST - SMALLEST) * 2 // seeds
    assert stride > 2 * REACH
    x, distance = np.empty(seeds, np.float32), np.empty(seeds)
    for i in range(0, seeds, 1 << 16):
        place = np.arange(i, min(i + (1 << 16), seeds))
        jitter = rng.integers(0, stride - 2 * REACH, place.size)
        bits = (SMALLEST + place // 2 * stride + jitter).astype(np.int32)
        sign = np.where(place % 2, np.float32(-1), np.float32(1))

        def values(bits, sign=sign):
            return compute(name, p, (bits.view(np.float32) * sign).astype(np.float64), derivative)

        here = from_midpoint(values(bits))
        slope = from_midpoint(values(bits + 1)) - here
        bits += steps_to_midpoint(here, slope - np.rint(slope))
        x[place], distance[place] = bits.view(np.float32) * sign, np.abs(from_midpoint(values(bits)))
    return x[np.argpartition(distance, count)[:count]]


def test_the_search_finds_what_is_hard():
    """In the softPlus's image every millionth float is nearer to a midpoint than 2^-20; of what it finds, many."""
    x = hard_inputs("softPlus", (), False, 1 << 18, 50_000)
    distance = np.abs(from_midpoint(compute("softPlus", (), x.astype(np.float64))))

    assert np.unique(x).size == x.size
    assert distance.max() < 2.0**-7
    assert np.count_nonzero(distance < 2.0**-20) > 10


@BOTH
@shares(TWO)
def test_n2_float32_results_beside_rounding_boundaries_are_correctly_rounded(name, p, share, derivative):
    """A million inputs forward at the defaults, 300,000 at awkward parameters, 200,000 for the slopes at each."""
    default = not derivative and p == CASES[name][0]
    seeds, count = (1 << 22, 9 * COUNT) if default else (1 << 19, COUNT) if derivative else (1 << 20, 2 * COUNT)
    hard = hard_inputs(name, p, derivative, seeds // share, count // share)
    stored = np.concatenate([float32_inputs(name, p, COUNT)[::share], hard])
    j, x = judge_of(name, p), stored.astype(np.float64)
    near = j.float64s(x, derivative)
    want = j.rounded(x, near, np.float32, derivative)
    got = compute(name, p, stored, derivative)
    wrong = judge.differs(got, want, near)
    assert not wrong.any(), report(j, x, got, want, wrong)


# Where slopes are a float64, or a hair beside one, so that a product with an upstream gradient may be a tie.
BESIDE = [
    ("tanH", (1.5, 1)), ("tanH", (1.5, -0.75)), ("tanH", (1 + 2.0**-23, 1.5)), ("softPlus", (1.5, 1)),
    ("softPlus", (-1.5, 0.75)), ("softPlus", (3, -1)), ("ELU", (1.5,)), ("ELU", (-1.25,)),
    ("exponential", (1.5, 0, -1)), ("exponential", (-3, 0, -1)), ("logarithm", (1.5, 0, -1)),
    ("logarithm", (3, 0.5, -1)), ("power", (1.5, 0, 2)), ("power", (1.5, 0.5, 2)), ("power", (-3, 1, 2)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "p"), BESIDE, ids=[f"{n}{list(p)}" for n, p in BESIDE])
@pytest.mark.parametrize("direction", ["forward", "gradient"])
def test_n3_values_and_products_a_hair_beside_a_tie_go_to_the_right_side(name, p, direction):
    """At zero, near it at every distance, and where the function saturates; most go to no multi-precision."""
    rng, n = seeded(name, p, direction), 12_000
    x = np.ldexp(rng.integers(1 << 23, 1 << 24, n).astype(np.float64), rng.integers(-120, -23, n))
    x[: n // 4] = np.ldexp(rng.integers(1, 16, n // 4), rng.integers(-60, -10, n // 4))
    x[n // 4 : n // 3] = 0
    x[n // 3 : n // 2] = np.rint(rng.uniform(25, 400, n // 2 - n // 3) * 8) / 8
    x = np.copysign(x, rng.normal(size=n)).astype(np.float32)
    upstream = None
    if direction == "gradient":
        upstream = np.ldexp(rng.integers(1 << 23, 1 << 24, n).astype(np.float64), rng.integers(-150, 60, n)).astype(
            np.float32
        )
        upstream[::3] = np.ldexp(rng.integers(1, 8, upstream[::3].size), -20)
    assert_correctly_rounded(name, p, x, direction == "gradient", upstream)
