"""Convolution and its gradients against rational arithmetic."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sums_judge as judge
from builders import seldom
from mpsref.arrays import Elements
from mpsref.errors import ImageError, ParameterError
from mpsref.storage import FLOAT64, FORMATS
from mpsref.sums import BiasGradient, Convolution, DataGradient, WeightGradient, Window, products, transposed
from mpsref.sums.window import regions

STORAGES = {storage.name: storage for storage in (*FORMATS.values(), FLOAT64)}
HALF, SINGLE = STORAGES["float16"], STORAGES["float32"]


def all_of(x, w, bias, e, window, groups=1):
    """The four sums of a convolution."""
    return (
        Convolution(x, w, bias, window, groups),
        DataGradient(e, w, window, x.stored.shape[1:3], groups),
        WeightGradient(e, x, window, groups),
        BiasGradient(e),
    )


def wanted(x, w, bias, e, window, groups=1):
    """Their exact values."""
    values = x.values(), Elements(w, SINGLE).values(), e.values()
    bias = None if bias is None else Elements(bias, SINGLE).values()
    return (
        judge.convolution(*values[:2], bias, window, groups),
        *judge.gradients(*values, window, groups),
    )


def assert_right(x, w, bias, e, window, groups=1, results=(SINGLE,)):
    exact = wanted(x, w, bias, e, window, groups)
    for found, want in zip(all_of(x, w, bias, e, window, groups), exact, strict=True):
        for result in results:
            assert judge.same(found.rounded(result), judge.rounded(want, result)), (type(found), window, result.name)


# ---- one axis, exhaustively ----


def policies(size, kernel, stride, dilation):
    """Result sizes and first taps of valid, same and full windows, with the remainder on either side."""
    reach = (kernel - 1) * dilation + 1
    for style in (-1, 0, 1):
        length = max(0, -(-(size + style * (reach - 1)) // stride))
        extra = (length - 1) * stride + reach - size
        yield from {(length, -(extra // 2)), (length, -((extra + 1) // 2))}


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("size", range(1, 7))
def test_every_window_of_one_axis(axis, size):
    rng = np.random.default_rng(size)
    for kernel, stride, dilation, groups in itertools.product(range(1, 5), range(1, 4), (1, 2), (1, 2)):
        w = rng.integers(-9, 10, (2 * groups, kernel, 1, 2)).astype(np.float32)
        bias = rng.integers(-9, 10, 2 * groups).astype(np.float32)
        x = rng.integers(-9, 10, (1, size, 1, 2 * groups)).astype(np.float16)
        for length, first in set(policies(size, kernel, stride, dilation)):
            e = rng.integers(-9, 10, (1, length, 1, 2 * groups)).astype(np.float16)
            numbers = [(kernel, 1), (stride, 1), (dilation, 1), (first, 0), (length, 1)]
            arrays = [w, x, e]
            if axis:
                numbers, arrays = [pair[::-1] for pair in numbers], [a.swapaxes(1, 2) for a in arrays]
            weights, *images = map(np.ascontiguousarray, arrays)
            source, gradient = (Elements(image, HALF) for image in images)
            for found, want in zip(
                all_of(source, weights, bias, gradient, Window(*numbers), groups),
                integers(images[0], weights, bias, images[1], Window(*numbers), groups),
                strict=True,
            ):
                assert np.array_equal(found.rounded(SINGLE), want), (type(found), numbers, groups)


@pytest.mark.exhaustive
@pytest.mark.parametrize("height", range(1, 6))
def test_every_window_of_two_axes(height):
    rng = np.random.default_rng(height)
    numbers = [*itertools.product(range(1, 4), range(1, 3), (1, 2))]
    for width, (ky, sy, dy), (kx, sx, dx) in itertools.product(range(1, 6), numbers, numbers):
        w = rng.integers(-9, 10, (2, ky, kx, 1)).astype(np.float32)
        x = rng.integers(-9, 10, (1, height, width, 2)).astype(np.float16)
        bias = np.float32([1, -2])
        for (oy, fy), (ox, fx) in itertools.product(policies(height, ky, sy, dy), policies(width, kx, sx, dx)):
            window = Window((ky, kx), (sy, sx), (dy, dx), (fy, fx), (oy, ox))
            e = rng.integers(-9, 10, (1, oy, ox, 2)).astype(np.float16)
            found = all_of(Elements(x, HALF), w, bias, Elements(e, HALF), window, 2)
            for sums, want in zip(found, integers(x, w, bias, e, window, 2), strict=True):
                assert np.array_equal(sums.rounded(SINGLE), want), (type(sums), window)


def integers(x, w, bias, e, window, groups):
    """All four in integers, product by product."""
    x, w, bias, e = (a.astype(np.int64) for a in (x, w, bias, e))
    outputs, depth = len(w) // groups, w.shape[3]
    forward = np.zeros(e.shape, np.int64) + bias
    data, weights = np.zeros_like(x), np.zeros_like(w)
    for oy, ox, ky, kx, y, column in judge.reads(window, *x.shape[1:3]):
        for o in range(len(w)):
            read = slice(o // outputs * depth, (o // outputs + 1) * depth)
            forward[:, oy, ox, o] += x[:, y, column, read] @ w[o, ky, kx]
            data[:, y, column, read] += np.outer(e[:, oy, ox, o], w[o, ky, kx])
            weights[o, ky, kx] += e[:, oy, ox, o] @ x[:, y, column, read]
    return forward, data, weights, e.sum(axis=(0, 1, 2))


# ---- two axes, all numbers ----


def numbers(rng, dtype, shape, *, special=True):
    """Any bit patterns, a few simple numbers, or ordinary ones."""
    dtype, kind = np.dtype(dtype), rng.integers(3)
    if dtype.kind == "u" or kind == 0:
        values = rng.integers(0, 256, (*shape, dtype.itemsize), np.uint8).view(dtype)[..., 0]
    elif kind == 1:
        tiny = float(np.finfo(dtype).smallest_subnormal)
        simple = [-2, -1, -0.0, 0, 0.5, 1, 1.5, 3, tiny, -tiny] + [np.inf, -np.inf, np.nan] * int(rng.integers(2))
        values = rng.choice(np.array(simple, dtype), shape)
    else:
        values = rng.standard_normal(shape).astype(dtype)
    return values if special else np.where(np.isfinite(values), values, dtype.type(1))


@st.composite
def convolutions(draw, storage, *, special=True):
    pair = st.tuples(st.integers(1, 3), st.integers(1, 3))
    first = st.tuples(st.integers(-3, 2), st.integers(-3, 2))
    window = Window(draw(pair), draw(pair), draw(pair), draw(first), draw(pair))
    groups, outputs, depth, images = (draw(st.integers(1, 2)) for _ in range(4))
    size = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))

    def array(dtype, *shape):
        return numbers(rng, dtype, shape, special=special)

    w = array(np.float32, groups * outputs, *window.kernel, depth)
    bias = array(np.float32, groups * outputs) if draw(st.booleans()) else None
    x = Elements(array(storage.dtype, images, *size, groups * depth), storage)
    e = Elements(array(storage.dtype, images, *window.result, groups * outputs), storage)
    return x, w, bias, e, window, groups


@pytest.mark.parametrize("name", STORAGES)
@settings(max_examples=40)
@given(st.data())
def test_any_convolution_of_any_numbers(name, data):
    storage = STORAGES[name]

    assert_right(*data.draw(convolutions(storage)), results={SINGLE, storage})


@pytest.mark.parametrize("name", ["float32", "float64"])
@settings(max_examples=20)
@given(st.data())
def test_sums_as_rational_numbers(name, data):
    problem = data.draw(convolutions(STORAGES[name], special=False))

    for found, want in zip(all_of(*problem), wanted(*problem), strict=True):
        assert found.exact(np.arange(want.size)) == want.reshape(-1).tolist()


@pytest.mark.parametrize("name", ["float16", "float32", "float64"])
@settings(max_examples=20)
@given(st.data())
def test_sums_in_float64_are_within_their_bounds(name, data):
    problem = data.draw(convolutions(STORAGES[name]))

    for found, want in zip(all_of(*problem), wanted(*problem), strict=True):
        values, bounds = found.near()
        for value, bound, exact in zip(*map(np.ravel, (values, bounds, want)), strict=True):
            if isinstance(exact, float):
                assert bound == 0
                assert np.array_equal(value, exact, equal_nan=True)
            elif np.isfinite(value):
                assert abs(Fraction(float(value)) - exact) <= Fraction(float(bound))


@pytest.mark.parametrize("groups", [1, 8])
@pytest.mark.parametrize("storage", [HALF, SINGLE], ids=["float16", "float32"])
def test_every_nan_is_the_canonical_one(storage, groups):
    x, w, bias, e, window, groups = random_problem(0, storage, groups)
    x.stored[0, 4, 4], e.stored[0, 2, 4] = -np.inf, [np.inf, -np.nan, -np.inf, 1, np.nan][: len(w) // groups] * groups
    for sums in all_of(x, w, bias, e, window, groups):
        for result in (HALF, SINGLE):
            got = sums.rounded(result)
            nan = np.array(np.nan, result.dtype).view(result.bits_dtype)
            assert (got.view(result.bits_dtype)[np.isnan(got)] == nan).all()


def test_special_sums_are_floats():
    x = Elements(np.float32([[[[np.inf, 0, 1]]]]), SINGLE)
    w = np.float32([[1, 1, 1], [0, 1, 1], [-1, 1, 1]]).reshape(3, 1, 1, 3)
    plus, nan, minus = Convolution(x, w, None, Window((1, 1))).exact([0, 1, 2])

    assert (plus, minus) == (np.inf, -np.inf)
    assert np.isnan(nan)


# ---- long sums ----


@seldom(
    ("storage", "cancels"),
    [(HALF, False), (HALF, True), (SINGLE, False), (SINGLE, True)],
    lambda case: (case[0] is SINGLE) == case[1],
    lambda case: f"{case[0].dtype}-{case[1]}",
)
def test_long_sums_in_several_parts(storage, cancels):
    rng = np.random.default_rng(7)
    x = rng.standard_normal((2, 3, 3, 240))
    w = rng.standard_normal((3, 3, 3, 240))
    if cancels:
        # The second half takes back the first, but for one product that float64 sums lose.
        w[..., 120:] = -w[..., :120]
        x[..., 120:] = x[..., :120]
        x[:, 1, 1, 3] *= 1 + 2.0**-9
    x, w = x.astype(storage.dtype), w.astype(storage.dtype).astype(np.float32)
    e = rng.standard_normal((2, 1, 1, 3)).astype(storage.dtype)

    assert_right(Elements(x, storage), w, None, Elements(e, storage), Window((3, 3)), results=(SINGLE, HALF))


def test_a_weight_gradient_over_many_pixels_where_most_sums_vanish():
    rng = np.random.default_rng(3)
    x = rng.standard_normal((2, 40, 40, 2)).astype(np.float32)
    e = rng.standard_normal((2, 40, 40, 3)).astype(np.float32)
    x[1], e[1, ..., :2] = x[0], -e[0, ..., :2]
    window = Window((1, 1), result=(40, 40))
    got = WeightGradient(Elements(e, SINGLE), Elements(x, SINGLE), window).rounded(SINGLE)
    sums = BiasGradient(Elements(e, SINGLE)).rounded(SINGLE)

    assert not np.any(got[:2])
    assert not np.signbit(got[:2]).any()
    want = [
        judge.total(zip(e[..., 2].reshape(-1).tolist(), x[..., i].reshape(-1).tolist(), strict=True)) for i in (0, 1)
    ]
    assert judge.same(got[2].reshape(-1), judge.rounded(np.array(want), SINGLE))
    assert np.array_equal(sums[:2], [0, 0])


@pytest.mark.parametrize("result", [HALF, SINGLE], ids=["float16", "float32"])
@pytest.mark.parametrize("rest", [0.0, 2.0**-140, -(2.0**-140)])
def test_ties_and_what_is_beside_them(result, rest):
    # 1 and half a unit in its last place, from terms that hide it.
    half_ulp = 2.0**-11 if result is HALF else 2.0**-24
    x = np.float32([2.0**100, 1, half_ulp, rest, -(2.0**100), 0.75, -0.75]).reshape(1, 1, 1, 7)
    got = Convolution(Elements(x, SINGLE), np.ones((1, 1, 1, 7), np.float32), None, Window((1, 1))).rounded(result)

    assert got.item() == (1 + 2 * half_ulp if rest > 0 else 1)


@pytest.mark.parametrize(
    ("terms", "want"),
    [
        ([65504.0, 15.0], 65504.0),
        ([65504.0, 16.0], np.inf),
        ([65504.0, 16.0, -(2.0**-24)], 65504.0),
        ([-65504.0, -65504.0], -np.inf),
        ([2.0**-24, -(2.0**-25)], 0.0),
        ([-(2.0**-24), 2.0**-25, 2.0**-30], -0.0),
        ([-0.0, -0.0], 0.0),
        ([1.0, -1.0], 0.0),
    ],
)
def test_the_ends_of_half(terms, want):
    x = Elements(np.float32(terms).reshape(1, 1, 1, -1), SINGLE)
    w = np.ones((1, 1, 1, len(terms)), np.float32)
    got = Convolution(x, w, None, Window((1, 1))).rounded(HALF)

    assert judge.same(got.reshape(-1), np.float16([want]))


def test_a_tap_outside_and_another_group_form_no_product():
    # Infinite weights would make NaN of a zero border, or of another group's zero.
    x = Elements(np.float32([[[[0, 1], [2, 3]]]]), SINGLE)
    w = np.full((2, 1, 3, 1), np.inf, np.float32)
    w[1] = 1
    window = Window((1, 3), first=(0, -1), result=(1, 2))
    got = Convolution(x, w, None, window, groups=2).rounded(SINGLE)

    assert np.isnan(got[0, 0, :, 0]).all()  # 0 times infinity, inside
    assert got[0, 0, :, 1].tolist() == [4, 4]
    x.stored[0, 0, 0, 0] = 5
    assert Convolution(x, w, None, window, groups=2).rounded(SINGLE)[0, 0, :, 0].tolist() == [np.inf] * 2


# ---- how it is computed does not matter ----


def random_problem(seed, storage=SINGLE, groups=1):
    rng, outputs = np.random.default_rng(seed), 5 if groups == 1 else 3
    window = Window((3, 3), (2, 1), (1, 2), (-1, -2), (5, 9))
    x = Elements(rng.standard_normal((3, 9, 9, 4 * groups)).astype(storage.dtype), storage)
    w = rng.standard_normal((outputs * groups, 3, 3, 4)).astype(np.float32)
    e = Elements(rng.standard_normal((3, 5, 9, outputs * groups)).astype(storage.dtype), storage)
    return x, w, w[:, 0, 0, 0].copy(), e, window, groups


@pytest.mark.parametrize("groups", [1, 2, 8])
@pytest.mark.parametrize("storage", [HALF, SINGLE], ids=["float16", "float32"])
def test_blocks_parts_and_threads_change_no_bit(storage, groups, monkeypatch):
    problem = random_problem(1, storage, groups)
    want = [found.rounded(SINGLE) for found in all_of(*problem)]
    for chunk, size in ((7, 50), (20, 300)):
        for module in (products, transposed):
            for name, value in (("CHUNK", chunk), ("CELLS", size), ("GATHERED", size)):
                monkeypatch.setattr(module, name, value)
        monkeypatch.setattr(transposed, "LEAST", 5)
        for workers in (1, 3):
            got = [found.rounded(SINGLE, workers=workers) for found in all_of(*problem)]
            assert all(map(judge.same, got, want))


DIGEST = """
import hashlib, numpy as np
from mpsref.arrays import Elements
from mpsref.storage import storage_format
from mpsref.sums import Convolution, DataGradient, WeightGradient, Window
rng, single, digest = np.random.default_rng(0), storage_format("float32"), hashlib.sha256()
x, e = (Elements(rng.standard_normal((2, 20, 20, c)).astype(np.float32), single) for c in (24, 32))
w, window = rng.standard_normal((32, 3, 3, 24)).astype(np.float32), Window((3, 3), first=(-1, -1), result=(20, 20))
bias = w[:, 0, 0, 0].copy()
sums = Convolution(x, w, bias, window), DataGradient(e, w, window, (20, 20)), WeightGradient(e, x, window)
for each in sums:
    digest.update(each.rounded(single).tobytes())
print(digest.hexdigest())
"""


def test_another_blas_kernel_changes_no_bit():
    # The settings of OpenBLAS, which others ignore.
    settings = [("Prescott", "1"), ("Haswell", "2")]
    found = [
        subprocess.run(
            [sys.executable, "-c", DIGEST],
            env=os.environ | {"OPENBLAS_CORETYPE": core, "OPENBLAS_NUM_THREADS": threads},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for core, threads in settings
    ]

    assert found[0] == found[1]


@pytest.mark.parametrize("storage", [HALF, SINGLE], ids=["float16", "float32"])
def test_what_bounds_decide_is_what_exact_sums_give(storage):
    for found in all_of(*random_problem(2, storage)):
        for result in (HALF, SINGLE):
            exact = np.array(
                [judge.stored(v, result) for v in found.exact(np.arange(np.prod(found.shape)))], result.dtype
            )
            assert judge.same(found.rounded(result).reshape(-1), exact)


def test_a_stride_beyond_the_kernel_costs_nothing():
    window = Window((2, 1), (10**6, 10**6), result=(2, 1))
    e, w = Elements(np.ones((1, 2, 1, 1), np.float32), SINGLE), np.ones((1, 2, 1, 1), np.float32)
    got = DataGradient(e, w, window, (10**6 + 2, 1)).rounded(SINGLE)

    assert np.flatnonzero(got).tolist() == [0, 1, 10**6, 10**6 + 1]


@pytest.mark.parametrize("result", [(0, 2), (2, 0)])
def test_results_without_pixels(result):
    x, w, bias, _, _, _ = random_problem(0)
    e = Elements(np.ones((3, *result, 5), np.float32), SINGLE)
    found = [sums.rounded(SINGLE) for sums in all_of(x, w, bias, e, Window((3, 3), result=result))]

    assert [a.shape for a in found] == [(3, *result, 5), (3, 9, 9, 4), (5, 3, 3, 4), (5,)]
    assert not any(a.any() for a in found)


def test_memory_grows_with_the_images_alone():
    source = np.ones((1, 88, 88, 64), np.float16)
    window = Window((5, 5), first=(-2, -2), result=(88, 88))
    w = np.ones((64, 5, 5, 64), np.float32)
    x = Elements(source, HALF)
    for found in all_of(x, w, None, x, window):
        tracemalloc.start()
        out = found.rounded(SINGLE)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < out.nbytes + 2**26


def test_regions_of_wide_rows_stay_small():
    assert max(x.stop - x.start for _, _, x in regions((1, 1, 10**6), 1000)) == 1000


# ---- errors ----


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"groups": 2}, ParameterError, "groups is 2: give a divisor of the 5 result channels"),
        ({"groups": 0}, ParameterError, "groups is 0: give a divisor"),
        ({"weights": np.ones((5, 3, 3, 4))}, ImageError, "weights are float64[5, 3, 3, 4]: give float32["),
        (
            {"weights": np.ones((5, 3, 2, 4), np.float32)},
            ImageError,
            "weights are float32[5, 3, 2, 4]: give float32[res",
        ),
        ({"weights": np.ones((5, 3, 3, 3), np.float32)}, ImageError, "source has 4 channels, but the weights read 3"),
        ({"bias": np.ones(4, np.float32)}, ImageError, "bias is float32[4]: give float32[5]"),
        ({"source": Elements(np.ones((9, 9, 4), np.float32), SINGLE)}, ImageError, "source is float32[9, 9, 4]: give"),
        (
            {"source": Elements(np.ones((1, 9, 9, 4)), SINGLE)},
            ImageError,
            "source is float64[1, 9, 9, 4]: give float32",
        ),
    ],
)
def test_wrong_arguments_of_a_convolution(change, error, message):
    x, w, bias, _, window, groups = random_problem(0)
    arguments = {"source": x, "weights": w, "bias": bias, "window": window, "groups": groups} | change

    with pytest.raises(error, match="^" + re.escape(message)):
        Convolution(**arguments)


def test_wrong_arguments_of_the_gradients():
    x, w, _, e, window, _ = random_problem(0)

    with pytest.raises(ImageError, match=re.escape("gradient is [3, 9, 9, 4]: give [images, 5, 9, 5]")):
        DataGradient(x, w, window, (9, 9))
    with pytest.raises(ImageError, match=re.escape("gradient has 2 images, but source 3")):
        WeightGradient(Elements(e.stored[:2], SINGLE), x, window)
    with pytest.raises(ParameterError, match=re.escape("groups is 3: give a divisor of the channels, 4 and 5")):
        WeightGradient(e, x, window, 3)
    with pytest.raises(ParameterError, match="workers is 0"):
        BiasGradient(e).rounded(SINGLE, workers=0)
    assert BiasGradient(e).exact([]) == []
    assert isinstance(BiasGradient(e).exact([0])[0], Fraction)
