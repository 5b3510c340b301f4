"""
A judge of layers: fractions and plain loops, written from the definitions, sharing nothing with the package.

An axis is ``(n, k, s, d, low)``: source size, taps, stride, dilation, and the source index of the first tap.
"""

import math
from fractions import Fraction
from itertools import product

import numpy as np

PRECISIONS = {np.dtype(np.float16): (11, -24, 65520), np.dtype(np.float32): (24, -149, 2**128 - 2**103)}


def rounded(value, dtype):
    """A fraction rounded to nearest, ties to even."""
    bits, least, overflow = PRECISIONS[np.dtype(dtype)]
    size = abs(value)
    if size >= overflow:
        return math.copysign(math.inf, value)
    exponent = least
    while size >= Fraction(2) ** (exponent + bits):
        exponent += 1
    units = size / Fraction(2) ** exponent
    whole = units.numerator // units.denominator
    rest = units - whole
    if rest > Fraction(1, 2) or (rest == Fraction(1, 2) and whole % 2):
        whole += 1
    return math.copysign(float(whole * Fraction(2) ** exponent), value) if value else 0.0


def policy(n, k, s, style, remainder_is_low, align="centred"):
    """Size and first tap, from Apple's text: extra pixels, and the low side's share by an integer division of C."""
    size = math.ceil(Fraction(n + style * (k - 1), s))
    extra = (size - 1) * s + k - n
    share = {"centred": math.trunc(Fraction(extra + remainder_is_low, 2)), "top-left": extra, "bottom-right": 0}[align]
    offset = k // 2 - share
    return size, offset - k // 2


def reads(axis, x):
    """Tap and source index of each tap of a result that lies inside."""
    n, k, s, d, low = axis
    return [(t, low + s * x + d * t) for t in range(k) if 0 <= low + s * x + d * t < n]


def convolved(x, w, bias, axes, sizes, groups):
    """Fractions of shape (N, H, W, O)."""
    made, read = w.shape[0] // groups, w.shape[3]
    out = np.empty((len(x), *sizes, w.shape[0]), object)
    for n, r, c, o in np.ndindex(out.shape):
        total = Fraction(0) if bias is None else Fraction(float(bias[o]))
        for (ky, y), (kx, z) in product(reads(axes[0], r), reads(axes[1], c)):
            for i in range(read):
                total += Fraction(float(w[o, ky, kx, i])) * Fraction(float(x[n, y, z, o // made * read + i]))
        out[n, r, c, o] = total
    return out


def convolution_gradients(g, x, w, axes, groups):
    """Of the source, the weights and the biases."""
    made, read = w.shape[0] // groups, w.shape[3]
    dx, dw, db = (np.full(shape, Fraction(0), object) for shape in (x.shape, w.shape, w.shape[:1]))
    for n, r, c, o in np.ndindex(g.shape):
        e = Fraction(float(g[n, r, c, o]))
        db[o] += e
        for (ky, y), (kx, z) in product(reads(axes[0], r), reads(axes[1], c)):
            for i in range(read):
                channel = o // made * read + i
                dx[n, y, z, channel] += e * Fraction(float(w[o, ky, kx, i]))
                dw[o, ky, kx, i] += e * Fraction(float(x[n, y, z, channel]))
    return dx, dw, db


def averaged(x, axes, sizes, full):
    out = np.empty((len(x), *sizes, x.shape[3]), object)
    for n, r, c, i in np.ndindex(out.shape):
        inside = list(product(reads(axes[0], r), reads(axes[1], c)))
        count = axes[0][1] * axes[1][1] if full else max(len(inside), 1)
        out[n, r, c, i] = sum((Fraction(float(x[n, y, z, i])) for (_, y), (_, z) in inside), Fraction(0)) / count
    return out


def average_gradient(g, x, axes, full):
    out = np.full(x.shape, Fraction(0), object)
    for n, r, c, i in np.ndindex(g.shape):
        inside = list(product(reads(axes[0], r), reads(axes[1], c)))
        count = axes[0][1] * axes[1][1] if full else max(len(inside), 1)
        for (_, y), (_, z) in inside:
            out[n, y, z, i] += Fraction(float(g[n, r, c, i])) / count
    return out


def largest(x, axes, sizes, zero):
    out = np.empty((len(x), *sizes, x.shape[3]), object)
    for n, r, c, i in np.ndindex(out.shape):
        values = [Fraction(float(x[n, y, z, i])) for (_, y), (_, z) in product(reads(axes[0], r), reads(axes[1], c))]
        taps = axes[0][1] * axes[1][1]
        out[n, r, c, i] = max(values + ([Fraction(0)] if len(values) < taps and (zero or not values) else []))
    return out


def largest_gradient(g, x, axes, zero):
    """The first of several by rows."""
    out = np.full(x.shape, Fraction(0), object)
    for n, r, c, i in np.ndindex(g.shape):
        inside = [(y, z) for (_, y), (_, z) in product(reads(axes[0], r), reads(axes[1], c))]
        best = max((float(x[n, y, z, i]) for y, z in inside), default=None)
        if best is None or (zero and len(inside) < axes[0][1] * axes[1][1] and best < 0):
            continue
        y, z = next((y, z) for y, z in inside if float(x[n, y, z, i]) == best)
        out[n, y, z, i] += Fraction(float(g[n, r, c, i]))
    return out


def as_stored(fractions, dtype):
    flat = [rounded(value, dtype) for value in fractions.reshape(-1)]
    return np.array(flat, np.float64).astype(dtype).reshape(fractions.shape)
