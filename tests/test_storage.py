"""The conversions of a storage format, judged by exact rational arithmetic that shares nothing with the package."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mpsref import ImageError, MPSImageFeatureChannelFormat
from mpsref.arrays import meaning
from mpsref.storage import FLOAT64, FORMATS, round_to_odd, storage_format, storage_of

UNORM8, UNORM16, FLOAT16, FLOAT32 = (FORMATS[MPSImageFeatureChannelFormat(value)] for value in (1, 2, 3, 4))
MAXIMUM = {UNORM8: 255, UNORM16: 65535}
IEEE = {FLOAT16: (11, -14, 15), FLOAT32: (24, -126, 127)}
"""Bits of precision, smallest and largest exponent."""

UNORMS = pytest.mark.parametrize("storage", MAXIMUM, ids=lambda s: s.name)
FLOATS = pytest.mark.parametrize("storage", IEEE, ids=lambda s: s.name)
SMALL = pytest.mark.parametrize("storage", [UNORM8, UNORM16, FLOAT16], ids=lambda s: s.name)
ALL = pytest.mark.parametrize("storage", [*FORMATS.values(), FLOAT64], ids=lambda s: s.name)

finite = st.floats(allow_nan=False, allow_infinity=False)


def rounded(exact, storage):
    """`exact` as the nearest number of a binary format, ties to even, infinity above its range."""
    precision, smallest, largest = IEEE[storage]
    size = abs(exact)
    if not size:
        return 0.0
    exponent = size.numerator.bit_length() - size.denominator.bit_length()
    exponent -= size < Fraction(2) ** exponent
    quantum = Fraction(2) ** (max(exponent, smallest) - precision + 1)
    nearest = round(size / quantum) * quantum
    result = math.inf if nearest >= Fraction(2) ** (largest + 1) else float(nearest)
    return -result if exact < 0 else result


def code(value, maximum):
    """The unorm code of a number that is not NaN."""
    inside = min(max(value, 0.0), 1.0)
    return round(Fraction(inside) * maximum)


def encoded(storage, values):
    array = np.array(values, np.float64)
    with np.errstate(all="ignore"):
        return storage.encode(array, np.empty(array.shape, storage.dtype))


def decoded(storage, stored):
    return storage.decode(stored, np.empty(stored.shape))


def bits(storage, stored):
    return stored.view(storage.bits_dtype)


def half_meanings():
    """What the half patterns 0 (plus zero) to 0x7C00 (which continues the row at 65536) mean, exactly."""
    subnormal = [Fraction(m, 2**24) for m in range(1024)]
    normal = [Fraction(1024 + m) * Fraction(2) ** (e - 25) for e in range(1, 31) for m in range(1024)]
    return [*subnormal, *normal, Fraction(65536)]


# ---- the judge ----


@pytest.mark.parametrize(
    ("exact", "storage", "expected"),
    [
        (Fraction(2049), FLOAT16, 2048.0),
        (Fraction(2051), FLOAT16, 2052.0),
        (Fraction(-2049) - Fraction(1, 10**30), FLOAT16, -2050.0),
        (Fraction(1, 2**25), FLOAT16, 0.0),
        (Fraction(3, 2**25), FLOAT16, 2**-23),
        (Fraction(65519), FLOAT16, 65504.0),
        (Fraction(65520), FLOAT16, math.inf),
        (Fraction(1, 3), FLOAT32, 11184811 / 2**25),
    ],
)
def test_the_judge_rounds_as_a_hand_does(exact, storage, expected):
    assert rounded(exact, storage) == expected


# ---- unorm ----


@UNORMS
def test_every_unorm_code_means_the_float32_nearest_to_its_quotient(storage):
    maximum = MAXIMUM[storage]
    codes = np.arange(maximum + 1, dtype=storage.dtype)
    expected = [rounded(Fraction(v, maximum), FLOAT32) for v in range(maximum + 1)]
    assert decoded(storage, codes).tolist() == expected


@UNORMS
def test_the_first_and_the_last_code_mean_0_and_1_exactly(storage):
    assert decoded(storage, np.array([0, MAXIMUM[storage]], storage.dtype)).tolist() == [0.0, 1.0]


@UNORMS
def test_a_number_beside_a_boundary_of_two_codes_rounds_by_its_exact_value(storage):
    maximum = MAXIMUM[storage]
    middle = (2 * np.arange(maximum) + 1) / (2 * maximum)
    values = np.concatenate([middle, np.nextafter(middle, -1), np.nextafter(middle, 2)])
    expected = [code(v, maximum) for v in values.tolist()]
    assert encoded(storage, values).tolist() == expected
    assert np.rint(values * maximum).tolist() != expected, "one rounding too many would not be noticed"


@UNORMS
def test_the_one_exact_tie_goes_to_the_even_code(storage):
    below, above = np.nextafter(0.5, [0, 1])
    half = (MAXIMUM[storage] + 1) // 2
    assert encoded(storage, [below, 0.5, above]).tolist() == [half - 1, half, half]


@UNORMS
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (math.nan, 0.0),
        (-math.nan, 0.0),
        (math.inf, 1.0),
        (-math.inf, 0.0),
        (-0.0, 0.0),
        (-5e-324, 0.0),
        (5e-324, 0.0),
        (-1e300, 0.0),
        (1e300, 1.0),
        (math.nextafter(1, 2), 1.0),
        (math.nextafter(1, 0), 1.0),
    ],
)
def test_what_lies_outside_0_to_1_is_clamped_and_nan_is_0(storage, value, expected):
    assert encoded(storage, [value]).tolist() == [expected * MAXIMUM[storage]]


@UNORMS
@settings(deadline=None, max_examples=100)
@given(values=st.lists(st.floats(-0.01, 1.01) | st.floats(allow_nan=False), min_size=1, max_size=20))
def test_any_number_gets_the_code_nearest_to_its_exact_multiple(storage, values):
    assert encoded(storage, values).tolist() == [code(v, MAXIMUM[storage]) for v in values]


@UNORMS
def test_encoding_a_unorm_never_warns(storage):
    values = np.array([math.nan, math.inf, -math.inf, 5e-324, 1e308, -1.0])
    storage.encode(values, np.empty(values.shape, storage.dtype))


# ---- halves and floats ----


def test_every_half_pattern_means_what_ieee_754_says():
    expected = [float(m) for m in half_meanings()[:-1]]
    values = decoded(FLOAT16, FLOAT16.patterns())
    assert values[:0x7C00].tolist() == expected
    assert values[0x8000:0xFC00].tolist() == [-v for v in expected]
    assert np.signbit(values[0x8000:0xFC00]).all()
    assert values[[0x7C00, 0xFC00]].tolist() == [math.inf, -math.inf]
    assert np.isnan(values[0x7C01:0x8000]).all()
    assert np.isnan(values[0xFC01:]).all()


@pytest.mark.parametrize("sign", [0, 0x8000])
def test_a_number_between_two_halves_goes_to_the_nearer_one_and_a_tie_to_the_even_pattern(sign):
    meanings = half_meanings()
    middle = np.array([float((low + high) / 2) for low, high in itertools.pairwise(meanings)])
    lower = np.arange(0x7C00)
    for values, expected in [
        (middle, lower + (lower & 1)),
        (np.nextafter(middle, 0), lower),
        (np.nextafter(middle, math.inf), lower + 1),
    ]:
        halves = encoded(FLOAT16, -values if sign else values)
        assert np.array_equal(bits(FLOAT16, halves), expected | sign)


@pytest.mark.parametrize(
    ("storage", "threshold", "largest"),
    [(FLOAT16, 65520.0, 65504.0), (FLOAT32, 2.0**128 - 2.0**103, 2.0**128 - 2.0**104)],
    ids=["float16", "float32"],
)
def test_overflow_begins_half_a_step_above_the_largest_number(storage, threshold, largest):
    values = np.array([largest, math.nextafter(threshold, 0), threshold, math.inf])
    expected = [largest, largest, math.inf, math.inf]
    assert encoded(storage, values).tolist() == expected
    assert encoded(storage, -values).tolist() == [-v for v in expected]


@pytest.mark.parametrize(("storage", "smallest"), [(FLOAT16, 2.0**-24), (FLOAT32, 2.0**-149)], ids=["half", "float"])
def test_subnormals_are_kept_and_half_of_the_smallest_is_a_tie(storage, smallest):
    values = np.array([smallest, smallest / 2, math.nextafter(smallest / 2, 1), 1.5 * smallest, 2.5 * smallest, 5e-324])
    expected = np.array([1, 0, 1, 2, 2, 0]) * smallest
    assert encoded(storage, values).tolist() == expected.tolist()
    negative = encoded(storage, -values)
    assert negative.tolist() == (-expected).tolist()
    assert np.signbit(negative).all()


def test_a_float64_is_rounded_to_half_in_one_step():
    beside_a_tie = 1 + 2**-11 + 2**-40
    assert encoded(FLOAT16, [beside_a_tie]).tolist() == [1 + 2**-10]
    assert np.float16(np.float32(beside_a_tie)) == 1, "two steps would not be noticed"


@st.composite
def near_a_boundary(draw, storage):
    """A float64 at or beside the middle between two neighbours of a format."""
    precision, smallest, largest = IEEE[storage]
    exponent = draw(st.integers(smallest - precision, largest))
    quantum = 2.0 ** (max(exponent, smallest) - precision + 1)
    middle = (2 * draw(st.integers(0, 2**precision - 1)) + 1) * quantum / 2
    value = math.nextafter(middle, draw(st.sampled_from([0.0, middle, math.inf])))
    return value * draw(st.sampled_from([1, -1]))


@FLOATS
@settings(deadline=None, max_examples=80)
@given(data=st.data())
def test_any_float64_is_rounded_correctly(storage, data):
    values = data.draw(st.lists(near_a_boundary(storage) | finite, min_size=1, max_size=20))
    result = encoded(storage, values)
    assert result.tolist() == [rounded(Fraction(v), storage) for v in values]
    assert np.signbit(result).tolist() == np.signbit(values).tolist()


@FLOATS
def test_nan_stays_nan_and_minus_zero_keeps_its_sign(storage):
    result = encoded(storage, [math.nan, -0.0])
    assert np.isnan(result[0])
    assert np.signbit(result[1])


# ---- round trips ----


@SMALL
def test_patterns_lists_every_element_in_the_order_of_the_bits(storage):
    patterns = storage.patterns()
    assert patterns.dtype == storage.dtype
    assert bits(storage, patterns).tolist() == list(range(2 ** (8 * storage.dtype.itemsize)))


@SMALL
def test_every_pattern_survives_decoding_and_encoding(storage):
    patterns = storage.patterns()
    back = encoded(storage, decoded(storage, patterns))
    number = ~np.isnan(patterns)
    assert np.array_equal(bits(storage, back)[number], bits(storage, patterns)[number])
    assert np.isnan(back[~number]).all()


def test_float32_patterns_of_every_exponent_survive_decoding_and_encoding():
    rng = np.random.default_rng(1)
    fractions = np.array([0, 1, 2**23 - 1, *rng.integers(0, 2**23, 61)], np.uint32)
    values = (np.arange(512, dtype=np.uint32)[:, np.newaxis] << 23 | fractions).view(np.float32)
    values = values[~np.isnan(values)]
    assert np.array_equal(encoded(FLOAT32, decoded(FLOAT32, values)).view(np.uint32), values.view(np.uint32))


@ALL
def test_conversions_fill_and_return_the_given_array_and_leave_their_input_alone(storage):
    values = np.array([math.nan, -1.0, 0.3, 1.0])
    stored, means = np.empty(4, storage.dtype), np.empty(4)
    before = values.tobytes()
    assert storage.encode(values, stored) is stored
    assert values.tobytes() == before
    before = stored.tobytes()
    assert storage.decode(stored, means) is means
    assert stored.tobytes() == before


@ALL
def test_conversions_accept_arrays_with_any_strides(storage):
    values = np.linspace(0, 1, 24).reshape(2, 3, 4)
    out = np.zeros((2, 3, 8), storage.dtype)
    result = storage.encode(values[::-1, :, ::-2], out[..., ::4])
    assert np.array_equal(result, encoded(storage, np.ascontiguousarray(values[::-1, :, ::-2])))
    assert np.array_equal(decoded(storage, result), decoded(storage, result.copy()))
    assert not out[..., 1:4].any()


# ---- distances ----


def test_ordinals_count_the_halves_in_order():
    patterns = FLOAT16.patterns()
    numbers = patterns[~np.isnan(patterns)]
    order = np.argsort(numbers.astype(np.float64), kind="stable")
    step = np.diff(FLOAT16.ordinals(numbers[order]))
    both_zeros = (numbers[order][1:] == 0) & (numbers[order][:-1] == 0)
    assert both_zeros.sum() == 1
    assert np.array_equal(step, np.where(both_zeros, 0, 1))


@pytest.mark.parametrize("storage", [FLOAT16, FLOAT32, FLOAT64], ids=lambda s: s.name)
def test_both_zeros_have_ordinal_0_and_the_smallest_numbers_1(storage):
    tiny = np.finfo(storage.dtype).smallest_subnormal
    assert storage.ordinals(np.array([0.0, -0.0, tiny, -tiny], storage.dtype)).tolist() == [0, 0, 1, -1]


@pytest.mark.parametrize("storage", [FLOAT16, FLOAT32, FLOAT64], ids=lambda s: s.name)
def test_nan_lies_beyond_infinity(storage):
    nan, inf, largest = storage.ordinals(np.array([np.nan, np.inf, np.finfo(storage.dtype).max], storage.dtype))
    assert abs(nan) > inf == largest + 1


@pytest.mark.parametrize("width", [32, 64])
@settings(deadline=None, max_examples=100)
@given(data=st.data())
def test_neighbours_of_any_number_are_one_apart(width, data):
    storage = {32: FLOAT32, 64: FLOAT64}[width]
    x = np.array(data.draw(st.floats(width=width, allow_nan=False, allow_infinity=False)), storage.dtype)
    with np.errstate(over="ignore"):
        row = np.array([np.nextafter(x, -np.inf), x, np.nextafter(x, np.inf)], storage.dtype)
    assert np.diff(storage.ordinals(row)).tolist() == [1, 1]


@UNORMS
def test_the_ordinal_of_a_code_is_the_code_and_differences_do_not_wrap(storage):
    first, last = storage.ordinals(np.array([0, MAXIMUM[storage]], storage.dtype))
    assert first - last == -MAXIMUM[storage]


# ---- rounding to odd ----


def two_sum(p, q):
    p, q = np.array([p]), np.array([q])
    total = p + q
    part = total - p
    return total, (p - (total - part)) + (q - part)


@settings(deadline=None, max_examples=150)
@given(p=near_a_boundary(FLOAT32) | st.floats(-1e300, 1e300), q=near_a_boundary(FLOAT32) | st.floats(-1e300, 1e300))
@example(p=1 + 2.0**-24, q=2.0**-80)
@example(p=1 + 2.0**-24, q=-(2.0**-80))
@example(p=-1 - 2.0**-24, q=2.0**-80)
@example(p=-1 - 2.0**-24, q=-(2.0**-80))
@example(p=2.0**-150, q=5e-324)
@example(p=2.0**-150, q=-5e-324)
@example(p=2.0, q=-(2.0**-80))
def test_a_sum_rounded_to_odd_and_then_to_float32_is_the_exact_sum_rounded_once(p, q):
    total = round_to_odd(*two_sum(p, q))
    assert encoded(FLOAT32, total).tolist() == [rounded(Fraction(p) + Fraction(q), FLOAT32)]


@settings(deadline=None, max_examples=200)
@given(q=st.floats(-1e200, 1e200), scale=st.integers(-60, 60), factor=st.floats(-2, 2))
def test_a_sum_rounded_to_odd_is_exact_or_an_odd_neighbour(q, scale, factor):
    p = math.ldexp(q, scale) * factor
    (total,) = round_to_odd(*two_sum(p, q))
    exact = Fraction(p) + Fraction(q)
    if Fraction(float(total)) != exact:
        assert total.view(np.int64) & 1
        low, high = sorted([Fraction(math.nextafter(total, -math.inf)), Fraction(math.nextafter(total, math.inf))])
        assert low < exact < high


def test_rounding_to_odd_works_in_place_and_leaves_overflow_alone():
    total = np.array([2.0, 2.0, 2.0, math.inf, -math.inf, math.nan])
    error = np.array([-(2.0**-80), math.nan, math.inf, 1.0, math.nan, -math.inf])
    assert round_to_odd(total, error) is total
    assert total[:5].tolist() == [math.nextafter(2, 0), 2, 2, math.inf, -math.inf]
    assert np.isnan(total[5])


# ---- names ----


@pytest.mark.parametrize(
    ("storage", "name", "dtype", "bits_dtype", "precision"),
    [
        (UNORM8, "unorm8", "u1", "u1", 8),
        (UNORM16, "unorm16", "u2", "u2", 16),
        (FLOAT16, "float16", "f2", "u2", 11),
        (FLOAT32, "float32", "f4", "u4", 24),
        (FLOAT64, "float64", "f8", "u8", 53),
    ],
)
def test_a_format_knows_its_name_types_and_precision(storage, name, dtype, bits_dtype, precision):
    assert (storage.name, storage.dtype, storage.bits_dtype, storage.precision) == (name, dtype, bits_dtype, precision)


def test_a_format_is_found_by_apples_value():
    assert [storage_format(value) for value in (1, 2, 3, 4)] == [UNORM8, UNORM16, FLOAT16, FLOAT32]


@pytest.mark.parametrize(
    "value", [MPSImageFeatureChannelFormat.none, 0, 5, -1, None, "double", "none", np.float64, True]
)
def test_a_format_that_cannot_store_is_refused_by_name(value):
    with pytest.raises(ImageError, match=r"^result_format is .*unorm8, unorm16, float16, float32"):
        storage_format(value, "result_format")


@pytest.mark.parametrize("storage", [FLOAT16, FLOAT32, FLOAT64], ids=lambda s: s.name)
def test_a_floating_array_has_the_format_of_its_dtype(storage):
    assert storage_of(np.zeros(1, storage.dtype), "x") is storage


@pytest.mark.parametrize("dtype", ["u1", "u2", "i4", "?", "c8", ">f2", ">f4", ">f8", "O", "S4", "V2"])
def test_an_array_of_another_dtype_is_refused_by_name(dtype):
    with pytest.raises(ImageError, match=r"^upstream has dtype"):
        storage_of(np.zeros(1, dtype), "upstream")


@pytest.mark.parametrize("bits", [0x7F800001, 0xFF800001, 0x7FBFFFFF, 0x7FC00000])
def test_a_signalling_nan_means_nan_and_raises_no_warning(bits):
    stored = np.array([bits, 0x3F800000], np.uint32).view(np.float32)

    assert np.isnan(meaning(stored, FLOAT32)).tolist() == [True, False]
