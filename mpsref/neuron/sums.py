"""Sums and multiples of stored elements, exact and rounded once."""

from __future__ import annotations

import numpy as np

from mpsref.arrays import Elements, Stored, flat
from mpsref.neuron.rounding import canonical_nan
from mpsref.neuron.threads import over_blocks, thread
from mpsref.neuron.workspace import Array, two_sum
from mpsref.storage import StorageFormat, round_to_odd

__all__ = ["add", "scale"]


def add(
    left: Elements,
    right: Elements,
    result: StorageFormat,
    scales: tuple[float, float] = (1.0, 1.0),
    bias: float = 0.0,
    bounds: tuple[float, float] = (-np.inf, np.inf),
    *,
    workers: int = 1,
) -> Stored:
    """
    ``scales[0] left + scales[1] right + bias``, clamped to the bounds, the exact value rounded once to `result`.

    `left` and `right` have one shape and any storage format of at most 24 bits precision; all other arguments are
    values of float32, so that each product is exact in float64.
    """
    x, y, out = flat(left.stored), flat(right.stored), np.empty(left.stored.shape, result.dtype)
    flat_out = out.reshape(-1)

    def block(start: int, stop: int) -> None:
        memory = thread.now
        p = left.storage.decode(x[start:stop], memory.scratch[: stop - start])
        q = right.storage.decode(y[start:stop], memory.upstream[: stop - start])
        np.multiply(p, scales[0], out=p)
        np.multiply(q, scales[1], out=q)
        total = _exact_sum(p, q, bias)
        # Not np.clip: it would leave open which zero it returns where the bound is one.
        np.copyto(total, bounds[0], where=total < bounds[0])
        np.copyto(total, bounds[1], where=total > bounds[1])
        canonical_nan(result.encode(total, flat_out[start:stop]))

    over_blocks(block, x.size, workers)
    return out


def scale(gradient: Elements, factor: float, result: StorageFormat, *, workers: int = 1) -> Stored:
    """`factor`, a value of float32, times every element, rounded once to `result`."""
    incoming, out = flat(gradient.stored), np.empty(gradient.stored.shape, result.dtype)
    flat_out = out.reshape(-1)

    def block(start: int, stop: int) -> None:
        values = gradient.storage.decode(incoming[start:stop], thread.now.scratch[: stop - start])
        np.multiply(values, factor, out=values)
        canonical_nan(result.encode(values, flat_out[start:stop]))

    over_blocks(block, incoming.size, workers)
    return out


def _exact_sum(p: Array, q: Array, bias: float) -> Array:
    """``p + q + bias`` rounded to odd (algorithm 5 of Boldo and Melquiond, see `round_to_odd`)."""
    if bias == 0:
        total = round_to_odd(*two_sum(p, q))
        # A sum of two negative zeros, and +0, is +0.
        return np.add(total, bias, out=total)
    high, low = two_sum(q, bias)
    top, middle = two_sum(p, high)
    rest = round_to_odd(*two_sum(middle, low))
    # Where the sum is infinite or NaN its error terms are NaN, and the sum is the answer.
    return np.where(np.isfinite(top), round_to_odd(*two_sum(top, rest)), top)
