"""Convolution and pooling by their definitions, in rational numbers, and one rounding by integers; slow."""

from __future__ import annotations

import math
from collections import defaultdict
from fractions import Fraction

import numpy as np


def reads(window, height, width):
    """Every product of a window: result row and column, kernel row and column, source row and column."""
    for oy in range(window.result[0]):
        for ox in range(window.result[1]):
            for ky in range(window.kernel[0]):
                for kx in range(window.kernel[1]):
                    y = oy * window.strides[0] + ky * window.dilations[0] + window.first[0]
                    x = ox * window.strides[1] + kx * window.dilations[1] + window.first[1]
                    if 0 <= y < height and 0 <= x < width:
                        yield oy, ox, ky, kx, y, x


def total(pairs):
    """The sum of products of floats: a rational number, or NaN or an infinity."""
    special, number = 0.0, Fraction(0)
    for a, b in (map(float, pair) for pair in pairs):
        if math.isfinite(a) and math.isfinite(b):
            number += Fraction(a) * Fraction(b)
        else:
            special += a * b
    return number if special == 0 else special


def convolution(x, w, bias, window, groups):
    """Forward, for float arrays."""
    sums = defaultdict(list)
    outputs, depth = len(w) // groups, w.shape[3]
    for oy, ox, ky, kx, y, column in list(reads(window, *x.shape[1:3])):
        for n in range(len(x)):
            for o in range(len(w)):
                first = o // outputs * depth
                sums[n, oy, ox, o] += [(x[n, y, column, first + i], w[o, ky, kx, i]) for i in range(depth)]
    shape = (len(x), *window.result, len(w))
    return filled(shape, lambda at: total(sums[at] + ([] if bias is None else [(bias[at[3]], 1.0)])))


def gradients(x, w, e, window, groups):
    """Those of source, weights and bias."""
    data, weights, bias = defaultdict(list), defaultdict(list), defaultdict(list)
    outputs, depth = len(w) // groups, w.shape[3]
    for oy, ox, ky, kx, y, column in list(reads(window, *x.shape[1:3])):
        for n in range(len(x)):
            for o in range(len(w)):
                incoming, first = e[n, oy, ox, o], o // outputs * depth
                for i in range(depth):
                    data[n, y, column, first + i].append((incoming, w[o, ky, kx, i]))
                    weights[o, ky, kx, i].append((incoming, x[n, y, column, first + i]))
    for *_, o in np.ndindex(e.shape):
        bias[(o,)] = [(float(v), 1.0) for v in e[..., o].reshape(-1)]
    return (
        filled(x.shape, lambda at: total(data[at])),
        filled(w.shape, lambda at: total(weights[at])),
        filled((len(w),), lambda at: total(bias[at])),
    )


def average(x, e, window, counts):
    """Forward, and the gradient of the source; counts as given for each result row and column."""
    sums, shares = defaultdict(list), defaultdict(list)
    shape = (len(x), *window.result, x.shape[3])
    for oy, ox, _, _, y, column in list(reads(window, *x.shape[1:3])):
        count = int(counts[0][oy]) * int(counts[1][ox])
        for n in range(len(x)):
            for c in range(x.shape[3]):
                sums[n, oy, ox, c].append((x[n, y, column, c], 1.0, count))
                shares[n, y, column, c].append((e[n, oy, ox, c], 1.0, count))

    def mean(terms):
        specials = total([(a, b) for a, b, _ in terms if not math.isfinite(a)])
        finite = sum((Fraction(a) / count for a, _, count in terms if math.isfinite(a)), Fraction(0))
        return finite if specials == 0 else specials

    return filled(shape, lambda at: mean(sums[at])), filled(x.shape, lambda at: mean(shares[at]))


def maximum(x, e, window, *, zero_border):
    """Forward, and the gradient of the source: to the first of the largest by rows; NaN is the largest."""
    best, shares = {}, defaultdict(list)
    shape, taps = (len(x), *window.result, x.shape[3]), defaultdict(int)
    for oy, ox, _, _, y, column in list(reads(window, *x.shape[1:3])):
        taps[oy, ox] += 1
        for n in range(len(x)):
            for c in range(x.shape[3]):
                new, at = x[n, y, column, c], (n, oy, ox, c)
                old = best.get(at, (None,))[0]
                if old is None or new > old or (math.isnan(new) and not math.isnan(old)):
                    best[at] = new, (n, y, column, c)
    for oy, ox in np.ndindex(window.result):
        if zero_border and taps[oy, ox] < math.prod(window.kernel):
            for n in range(len(x)):
                for c in range(x.shape[3]):
                    if best.get((n, oy, ox, c), (-1,))[0] < 0:
                        best[n, oy, ox, c] = 0.0, None
    for at, (_, place) in best.items():
        if place is not None:
            shares[place].append((e[at], 1.0))
    return (
        filled(
            shape,
            lambda at: Fraction(best[at][0]) if at in best and math.isfinite(best[at][0]) else best.get(at, (0.0,))[0],
        ),
        filled(x.shape, lambda at: total(shares[at])),
    )


def filled(shape, value):
    out = np.empty(shape, object)
    for at in np.ndindex(*shape):
        out[at] = value(at)
    return out


def rounded(values, storage):
    """Each rational number or special float, once to nearest even, as the storage format has it."""
    return np.array([stored(value, storage) for value in values.reshape(-1)], storage.dtype).reshape(values.shape)


def stored(value, storage):
    if isinstance(value, float) and math.isnan(value):
        return 0 if storage.unorm_max else math.nan
    if storage.unorm_max:
        return round(Fraction(min(max(value, 0), 1)) * storage.unorm_max)
    if value == 0 or (isinstance(value, float) and math.isinf(value)):
        return abs(value) if value == 0 else value
    info = np.finfo(storage.dtype)
    size = abs(Fraction(value))
    exponent = size.numerator.bit_length() - size.denominator.bit_length()
    while Fraction(2) ** exponent > size:
        exponent -= 1
    unit = Fraction(2) ** (max(exponent, int(info.minexp)) - int(info.nmant))
    near = round(size / unit) * unit
    near = math.inf if near >= Fraction(2) ** int(info.maxexp) else float(near)
    return -near if value < 0 else near


def is_nan(array):
    return np.isnan(array) if array.dtype.kind == "f" else np.zeros(array.shape, bool)


def same(got, want):
    """Whether stored arrays are equal bit by bit, every NaN alike."""
    if got.dtype != want.dtype or got.shape != want.shape:
        return False
    equal = got.view(f"u{got.itemsize}") == want.view(f"u{want.itemsize}")
    return bool((equal | (is_nan(got) & is_nan(want))).all())
