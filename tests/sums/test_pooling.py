"""Pooling and its gradients against rational arithmetic."""

from __future__ import annotations

import itertools
import re
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sums_judge as judge
from mpsref.arrays import Elements
from mpsref.errors import ImageError
from mpsref.storage import FLOAT64, FORMATS
from mpsref.sums import (
    AveragePooling,
    AveragePoolingGradient,
    MaxPooling,
    MaxPoolingGradient,
    Window,
    pooling,
    products,
)

STORAGES = {storage.name: storage for storage in (*FORMATS.values(), FLOAT64)}
HALF, SINGLE, UNORM8 = (STORAGES[name] for name in ("float16", "float32", "unorm8"))


def all_of(x, e, window, counts, *, zero_border):
    largest = MaxPooling(x, window, zero_border)
    return (
        AveragePooling(x, window, counts),
        AveragePoolingGradient(e, window, counts, x.stored.shape[1:3]),
        largest,
        MaxPoolingGradient(e, largest),
    )


def assert_right(x, e, window, counts, *, zero_border, results):
    values = x.values(), e.values()
    exact = (
        *judge.average(*values, window, counts),
        *judge.maximum(*values, window, zero_border=zero_border),
    )
    found = all_of(x, e, window, counts, zero_border=zero_border)
    for sums, want in zip(found, exact, strict=True):
        for result in results:
            arrays = [sums.rounded(result), judge.rounded(want, result)]
            if isinstance(sums, MaxPooling):
                arrays = [a + result.dtype.type(0) for a in arrays]  # which zero it is has tests of its own
            assert judge.same(*arrays), (type(sums), window, result.name)


def every_count(window, height, width):
    taps = window.kernel
    return [
        window.counts(height, width),
        (np.full(window.result[0], taps[0]), np.full(window.result[1], taps[1])),
    ]


def numbers(rng, storage, shape, *, special):
    dtype, kind = storage.dtype, rng.integers(3)
    if dtype.kind == "u" or (kind == 0 and special):
        values = rng.integers(0, 256, (*shape, dtype.itemsize), np.uint8).view(dtype)[..., 0]
    elif kind == 1:
        simple = [-2, -1, -0.0, 0, 1, 3, float(np.finfo(dtype).smallest_subnormal), np.inf, np.nan]
        values = rng.choice(np.array(simple[: None if special else 6], dtype), shape)
    else:
        values = rng.standard_normal(shape).astype(dtype)
    return Elements(values, storage)


@pytest.mark.parametrize("name", STORAGES)
@settings(max_examples=40)
@given(data=st.data(), special=st.booleans(), zero_border=st.booleans(), whole=st.booleans())
def test_any_pooling_of_any_numbers(name, data, special, zero_border, whole):
    pair = st.tuples(st.integers(1, 4), st.integers(1, 4))
    first = st.tuples(st.integers(-3, 2), st.integers(-3, 2))
    window = Window(*(data.draw(s) for s in (pair, pair, pair, first, pair)))
    (height, width), images, channels = data.draw(pair), data.draw(st.integers(1, 2)), data.draw(st.integers(1, 3))
    rng, storage = np.random.default_rng(data.draw(st.integers(0, 2**32))), STORAGES[name]
    x = numbers(rng, storage, (images, height, width, channels), special=special)
    e = numbers(rng, storage, (images, *window.result, channels), special=special)

    counts = every_count(window, height, width)[whole]
    assert_right(x, e, window, counts, zero_border=zero_border, results={SINGLE, storage})


@pytest.mark.parametrize("axis", [0, 1])
def test_every_window_of_one_axis(axis):
    rng = np.random.default_rng(5)
    for size, kernel, stride in itertools.product(range(1, 7), range(1, 5), range(1, 4)):
        for length, first in {(-(-size // stride), -(kernel // 2)), (max(0, (size - kernel) // stride + 1), 0)}:
            shape = (1, size, 1, 1), (1, length, 1, 1)
            x, e = (Elements(rng.integers(-3, 4, s).astype(np.float16), HALF) for s in shape)
            pairs = [(kernel, 1), (stride, 1), (1, 1), (first, 0), (length, 1)]
            if axis:
                pairs = [pair[::-1] for pair in pairs]
                x, e = (Elements(a.stored.swapaxes(1, 2), HALF) for a in (x, e))
            window = Window(*pairs)
            for counts, zero_border in itertools.product(every_count(window, *x.stored.shape[1:3]), (False, True)):
                assert_right(x, e, window, counts, zero_border=zero_border, results={SINGLE})


SQUARE = Window((3, 3), first=(-1, -1), result=(3, 3))


def nine(*values, storage=HALF):
    return Elements(np.array(values, storage.dtype).reshape(1, 3, 3, 1), storage)


def test_averages_of_nine_numbers_by_hand():
    x = nine(*range(1, 10))
    inside, whole = every_count(SQUARE, 3, 3)

    assert AveragePooling(x, SQUARE, inside).rounded(HALF).reshape(-1).tolist() == [3, 3.5, 4, 4.5, 5, 5.5, 6, 6.5, 7]
    want = np.float16(np.array([12, 21, 16, 27, 45, 33, 24, 39, 28]) / 9)
    assert np.array_equal(AveragePooling(x, SQUARE, whole).rounded(HALF).reshape(-1), want)
    assert MaxPooling(x, SQUARE).rounded(HALF).reshape(-1).tolist() == [5, 6, 6, 8, 9, 9, 8, 9, 9]


def test_a_gradient_at_ties_goes_to_the_first_by_rows():
    window = Window((1, 3), (1, 2), first=(0, -1), result=(1, 2))
    x, e = (Elements(np.float16(v).reshape(1, 1, -1, 1), HALF) for v in ([1, 2, 2, 0], [6, 12]))

    assert MaxPooling(x, window).chosen().reshape(-1).tolist() == [2, 0]
    assert MaxPoolingGradient(e, MaxPooling(x, window)).rounded(HALF).reshape(-1).tolist() == [0, 18, 0, 0]


@pytest.mark.parametrize("storage", [HALF, SINGLE], ids=["float16", "float32"])
def test_zeros_of_both_signs(storage):
    x = Elements(np.array([[[[-0.0, 0.0], [0.0, -0.0], [-0.0, -0.0]]]], storage.dtype).swapaxes(1, 2), storage)
    x = Elements(x.stored.reshape(1, 3, 2, 1), storage)
    largest = MaxPooling(x, Window((1, 2), result=(3, 1)))
    got = largest.rounded(storage).reshape(-1)

    assert np.signbit(got).tolist() == [False, False, True]
    assert largest.chosen().reshape(-1).tolist() == [0, 0, 0]
    assert not np.signbit(MaxPooling(x, Window((1, 3), result=(3, 1)), zero_border=True).rounded(storage)).any()


def test_a_zero_outside_competes_only_where_the_border_is_zero():
    x, e = nine(*range(-9, 0)), nine(*[1.0] * 9)
    border = MaxPooling(x, SQUARE, zero_border=True)

    assert MaxPooling(x, SQUARE).rounded(HALF).reshape(-1).tolist() == [-5, -4, -4, -2, -1, -1, -2, -1, -1]
    assert border.rounded(HALF).reshape(-1).tolist() == [0, 0, 0, 0, -1, 0, 0, 0, 0]
    assert border.chosen().reshape(-1).tolist() == [-1, -1, -1, -1, 8, -1, -1, -1, -1]
    assert MaxPoolingGradient(e, border).rounded(HALF).reshape(-1).tolist() == [0, 0, 0, 0, 0, 0, 0, 0, 1]


def test_a_window_outside_gives_zero_and_no_gradient():
    outside = Window((2, 2), first=(5, 5), result=(1, 1))
    x, e = nine(*range(-9, 0)), Elements(np.ones((1, 1, 1, 1), np.float16), HALF)
    counts = outside.counts(3, 3)

    assert MaxPooling(x, outside).rounded(HALF).item() == 0
    assert MaxPooling(x, outside).chosen().item() == -1
    assert AveragePooling(x, outside, counts).rounded(HALF).item() == 0
    assert not AveragePoolingGradient(e, outside, counts, (3, 3)).rounded(HALF).any()


def test_counts_without_a_small_common_multiple():
    # 1 to 30 taps: their common multiple has 42 bits, beside which float64 is short.
    window = Window((1, 30), first=(0, -29), result=(1, 30))
    rng = np.random.default_rng(0)
    x, e = (Elements(rng.standard_normal((1, 1, 30, 2)).astype(np.float32), SINGLE) for _ in range(2))
    e.stored[0, 0, 3] = [np.inf, 1]
    e.stored[0, 0, 4:, 1] = 0
    want = judge.average(x.values(), e.values(), window, window.counts(1, 30))
    sums = AveragePoolingGradient(e, window, window.counts(1, 30), (1, 30))

    assert judge.same(sums.rounded(SINGLE), judge.rounded(want[1], SINGLE))
    assert judge.same(sums.rounded(HALF), judge.rounded(want[1], HALF))
    assert sums.exact([7])[0] == want[1].reshape(-1)[7]


@pytest.mark.parametrize("change", [-1, 0, 1])
def test_quotients_that_are_ties_or_just_beside_them(change):
    # The mean of three is the middle of two halves, or misses it by a third of a unit of float32.
    x = np.float32([1 + change * 2.0**-23, 1, 1 + 3 * 2.0**-11])
    window = Window((1, 3))
    got = AveragePooling(Elements(x.reshape(1, 1, 3, 1), SINGLE), window, window.counts(1, 3)).rounded(HALF).item()

    assert got == (1 + 2.0**-10 if change > 0 else 1)


def test_threads_change_no_bit_and_memory_is_small():
    rng = np.random.default_rng(0)
    x, e = (
        Elements(rng.standard_normal(shape).astype(np.float32), SINGLE) for shape in [(2, 64, 64, 64), (2, 32, 32, 64)]
    )
    window = Window((3, 3), (2, 2), first=(-1, -1), result=(32, 32))
    for sums in all_of(x, e, window, window.counts(64, 64), zero_border=False):
        want = sums.rounded(SINGLE)
        tracemalloc.start()
        got = sums.rounded(SINGLE, workers=2)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert judge.same(got, want)
        assert peak < 4 * want.nbytes + 2**26


def test_other_formats_of_sources_and_results():
    x = nine(*range(0, 255, 30), storage=UNORM8)

    assert MaxPooling(x, SQUARE).rounded(UNORM8).reshape(-1).tolist() == [120, 150, 150, 210, 240, 240, 210, 240, 240]
    assert MaxPooling(x, SQUARE).rounded(SINGLE)[0, 0, 0, 0] == np.float32(120) / np.float32(255)


@pytest.mark.parametrize("name", ["float16", "float32"])
@pytest.mark.parametrize("window", [SQUARE, Window((1, 1), result=(3, 3))], ids=["3x3", "1x1"])
def test_any_nan_gives_the_canonical_one_without_a_warning(window, name):
    storage = STORAGES[name]
    bits = 0xFC01 if storage is HALF else 0xFF800001  # signalling, with a sign
    x = Elements(np.full((1, 3, 3, 1), bits, storage.bits_dtype).view(storage.dtype), storage)
    nan = np.array(np.nan, storage.dtype).view(storage.bits_dtype)
    for sums in all_of(x, x, window, window.counts(3, 3), zero_border=True):
        assert sums.rounded(storage).view(storage.bits_dtype)[0, 0, 0, 0] == nan
    assert np.isnan(AveragePooling(x, SQUARE, SQUARE.counts(3, 3)).exact([0])[0])


@pytest.mark.parametrize("rest", [2.0**-100, 0.0, -(2.0**-100)])
def test_sums_that_float64_loses(rest):
    # 1 and half a unit of float32 in its last place, between numbers that hide it.
    numbers = np.float32([2.0**100, 1, 2.0**-24, rest, -(2.0**100)]).reshape(1, 1, 5, 1)
    terms, wide, window = Elements(numbers, SINGLE), Window((1, 5)), Window((1, 5), first=(0, -4), result=(1, 5))
    # The middle of five is in every window, and is its largest number.
    largest = MaxPooling(
        Elements(np.float32([0, 0, 0, 0, 9, 0, 0, 0, 0]).reshape(1, 1, 9, 1), SINGLE), Window((1, 5), result=(1, 5))
    )
    fifths = AveragePooling(terms, wide, wide.counts(1, 5))
    quarters = AveragePooling(terms, wide, (np.array([1]), np.array([4])))
    whole = (np.array([1]), np.full(5, 4))
    want = 1 + (2.0**-23 if rest > 0 else 0)

    assert quarters.rounded(SINGLE).item() == want / 4
    assert fifths.exact([0]) == [(1 + Fraction(2.0**-24) + Fraction(rest)) / 5]
    assert fifths.rounded(SINGLE).item() == judge.stored(fifths.exact([0])[0], SINGLE)
    assert MaxPoolingGradient(terms, largest).rounded(SINGLE).reshape(-1).tolist() == [0, 0, 0, 0, want, 0, 0, 0, 0]
    assert AveragePoolingGradient(terms, window, whole, (1, 1)).rounded(SINGLE).item() == want / 4


def test_results_without_pixels():
    nothing = Window((2, 2), result=(0, 3))
    x, e = nine(*range(9)), Elements(np.ones((1, 0, 3, 1), np.float16), HALF)
    sums = all_of(x, e, nothing, nothing.counts(3, 3), zero_border=False)

    assert [a.rounded(HALF).shape for a in sums] == [(1, 0, 3, 1), (1, 3, 3, 1)] * 2
    assert not any(a.rounded(HALF).any() for a in sums)


@pytest.mark.parametrize(
    "window",
    [
        Window((3, 3), first=(-1, -1), result=(7, 7)),
        Window((3, 2), (2, 2), first=(-1, 0), result=(4, 3)),
        Window((2, 3), (1, 2), (4, 1), first=(-3, 1), result=(7, 4)),
        Window((2, 2), (3, 1), (2, 3), first=(-4, -2), result=(5, 6)),
        Window((2, 2), (2, 2), first=(1, -1), result=(3, 4)),
    ],
    ids=["overlap", "strides", "dilated", "outside", "apart"],
)
def test_parts_of_images_change_no_bit(window, monkeypatch):
    rng = np.random.default_rng(2)
    shapes = [(3, 7, 7, 5), (3, *window.result, 5)]
    for storage in (SINGLE, HALF):
        x, e = (Elements(rng.integers(-4, 5, shape).astype(storage.dtype), storage) for shape in shapes)
        e.stored[0, 0] *= storage.dtype.type(2.0**-14)
        for zero_border in (False, True):
            monkeypatch.undo()
            sums = all_of(x, e, window, window.counts(7, 7), zero_border=zero_border)
            want = [one.rounded(storage) for one in sums]
            # A few elements, a few rows, and most of an image.
            for count in (1, 30, 100, 400):
                monkeypatch.setattr(pooling, "SCATTERED", count)
                monkeypatch.setattr(pooling, "SELECTED", count)
                monkeypatch.setattr(products, "CELLS", count)
                again = all_of(x, e, window, window.counts(7, 7), zero_border=zero_border)
                assert all(judge.same(one.rounded(storage), all_) for one, all_ in zip(again, want, strict=True))


@pytest.mark.parametrize("window", [SQUARE, Window((1, 1), result=(3, 3))], ids=["overlap", "apart"])
def test_a_gradient_of_minus_zero_gives_zero_but_one_that_underflows_keeps_its_sign(window):
    x = nine(*range(9), storage=SINGLE)
    gradient = nine(*[-0.0] * 8, -(2.0**-40), storage=SINGLE)
    stored = MaxPoolingGradient(gradient, MaxPooling(x, window)).rounded(HALF).reshape(-1)

    assert not stored.any()
    assert np.signbit(stored).tolist() == [False] * 8 + [True]


@pytest.mark.parametrize(("large", "small"), [(1.0, 2.0**-20), (2.0**30, 2.0**-24), (1.0, 0.0), (2.0**-149, 2.0**-149)])
def test_gradients_of_any_range_are_added_exactly(large, small):
    # With and without a common unit that float64 has room for.
    rng = np.random.default_rng(4)
    x = Elements(rng.integers(0, 3, (1, 9, 9, 4)).astype(np.float32), SINGLE)
    window = Window((3, 3), first=(-1, -1), result=(9, 9))
    values = rng.choice(np.float32([large, -large, 3 * small, -small, 5 * small]), (1, 9, 9, 4))
    largest = MaxPooling(x, window)
    want = judge.maximum(x.values(), values.astype(np.float64), window, zero_border=False)[1]

    assert judge.same(
        MaxPoolingGradient(Elements(values, SINGLE), largest).rounded(SINGLE), judge.rounded(want, SINGLE)
    )


def test_wrong_arguments():
    x, e, counts = nine(*range(9)), nine(*range(9)), SQUARE.counts(3, 3)

    with pytest.raises(ImageError, match=re.escape("counts of rows are int64[2]: give 3 integers from 0")):
        AveragePooling(x, SQUARE, (counts[0][:2], counts[1]))
    with pytest.raises(ImageError, match=re.escape("counts are too large: a window may have up to 16,777,216 taps")):
        AveragePooling(x, SQUARE, (counts[0] * 2**24, counts[1]))
    with pytest.raises(ImageError, match=re.escape("gradient is [1, 3, 3, 1]: give [images, 1, 1, 1]")):
        AveragePoolingGradient(e, Window((3, 3)), Window((3, 3)).counts(3, 3), (3, 3))
    with pytest.raises(ImageError, match="gradient has 2 images, but source 1"):
        MaxPoolingGradient(Elements(np.repeat(e.stored, 2, axis=0), HALF), MaxPooling(x, SQUARE))
    with pytest.raises(ImageError, match=re.escape("source is float16[3, 3, 1]: give float16 with 4 axes")):
        MaxPooling(Elements(x.stored[0], HALF), SQUARE)
