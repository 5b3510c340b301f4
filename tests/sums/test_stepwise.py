"""Sums operation by operation, against NumPy scalars."""

from __future__ import annotations

import re

import numpy as np
import pytest

from mpsref.arrays import Elements
from mpsref.errors import ImageError, ParameterError
from mpsref.storage import FLOAT64, FORMATS
from mpsref.sums import AveragePooling, BiasGradient, Convolution, WeightGradient, Window, stepwise
from sums_judge import reads

STORAGES = {storage.name: storage for storage in FORMATS.values()}
HALF, SINGLE = STORAGES["float16"], STORAGES["float32"]
WINDOW = Window((3, 2), (2, 1), (1, 2), (-1, 0), (2, 2))


def problem(storage):
    rng = np.random.default_rng(4)
    x = rng.standard_normal((1, 4, 4, 6)).astype(storage.dtype)
    w = rng.standard_normal((4, 3, 2, 3)).astype(np.float16).astype(np.float32)
    bias = rng.standard_normal(4).astype(np.float16).astype(np.float32)
    return x, w, bias


def products(x, w, oy, ox, o, kind):
    taps = [tap[2:] for tap in reads(WINDOW, 4, 4) if tap[:2] == (oy, ox)]
    return [
        (kind(x[0, y, column, o // 2 * 3 + i]), kind(w[o, ky, kx, i])) for ky, kx, y, column in taps for i in range(3)
    ]


@pytest.mark.parametrize("kind", [np.float32, np.float16])
@pytest.mark.parametrize("storage", [HALF, SINGLE], ids=["float16", "float32"])
def test_loops_add_one_product_after_the_other(kind, storage):
    x, w, bias = problem(storage)
    sums = Convolution(Elements(x, storage), w, bias, WINDOW, 2)
    got = stepwise(sums, SINGLE, accumulator=kind)

    for _, oy, ox, o in np.ndindex(got.shape):
        total = kind(0)
        for a, b in products(x, w, oy, ox, o, kind):
            total = kind(total + kind(a * b))
        assert got[0, oy, ox, o] == kind(total + kind(bias[o]))
    assert not np.array_equal(got, sums.rounded(SINGLE))


def test_a_fused_sum_rounds_once_for_each_product():
    x, w, _ = problem(HALF)
    got = stepwise(Convolution(Elements(x, HALF), w, None, WINDOW, 2), SINGLE, fused=True)

    for _, oy, ox, o in np.ndindex(got.shape):
        total = np.float32(0)
        for a, b in products(x, w, oy, ox, o, np.float64):
            # Exact: products of halves have 22 bits, and all exponents are near 0.
            total = np.float32(a * b + np.float64(total))
        assert got[0, oy, ox, o] == total


def test_a_fused_product_is_not_rounded_before_its_sum():
    x = Elements(np.float32([1 + 2.0**-23, -1]).reshape(1, 1, 1, 2), SINGLE)
    w = np.float32([1 - 2.0**-23, 1]).reshape(1, 1, 1, 2)
    sums = Convolution(x, w, None, Window((1, 1)))

    assert stepwise(sums, SINGLE).item() == 0
    assert stepwise(sums, SINGLE, fused=True).item() == 0  # its sum is with 0
    x.stored[...] = x.stored[..., ::-1].copy()
    w[...] = w[..., ::-1].copy()
    assert stepwise(sums, SINGLE).item() == 0
    assert stepwise(sums, SINGLE, fused=True).item() == -(2.0**-46)


@pytest.mark.parametrize(("terms", "want"), [([2048, 1], 2048), ([2048, 1, 1], 2048), ([1, 2048, 1, 1, 0.5], 2050)])
def test_pairs_of_neighbours(terms, want):
    sums = BiasGradient(Elements(np.float16(terms).reshape(1, 1, -1, 1), HALF))

    assert stepwise(sums, SINGLE, accumulator=np.float16).item() == 2048
    assert stepwise(sums, SINGLE, accumulator=np.float16, order="pairwise").item() == want


def test_averages_are_divided_in_the_accumulator():
    x = Elements(np.float16([1, 2, 2]).reshape(1, 1, 3, 1), HALF)
    window = Window((1, 3))
    sums = AveragePooling(x, window, window.counts(1, 3))

    assert stepwise(sums, SINGLE).item() == np.float32(5) / np.float32(3)
    assert stepwise(sums, SINGLE, accumulator=np.float16).item() == np.float16(5) / np.float16(3)


def test_weights_over_more_pixels_than_fit_at_once(monkeypatch):
    monkeypatch.setattr("mpsref.sums.convolution.TERMS", 8)
    rng = np.random.default_rng(1)
    x, e = (rng.standard_normal((2, 4, 4, 1)).astype(np.float32) for _ in range(2))
    got = stepwise(WeightGradient(Elements(e, SINGLE), Elements(x, SINGLE), Window((1, 1), result=(4, 4))), SINGLE)

    total = np.float32(0)
    for a, b in zip(e.reshape(-1), x.reshape(-1), strict=True):
        total = total + a * b
    assert got.item() == total


def test_wrong_arguments():
    x, w, bias = problem(SINGLE)
    sums = Convolution(Elements(x, SINGLE), w, bias, WINDOW, 2)

    with pytest.raises(ParameterError, match="accumulator is float64: give float32 or float16"):
        stepwise(sums, SINGLE, accumulator=np.float64)
    with pytest.raises(ParameterError, match=re.escape("order is 'tree': choose one of loops, pairwise")):
        stepwise(sums, SINGLE, order="tree")
    with pytest.raises(ParameterError, match="only loops can be fused"):
        stepwise(sums, SINGLE, order="pairwise", fused=True)
    with pytest.raises(ImageError, match="an operand is float64, but an accumulator is float32 or float16"):
        stepwise(BiasGradient(Elements(np.ones((1, 1, 1, 1)), FLOAT64)), SINGLE)
