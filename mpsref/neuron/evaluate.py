"""How a neuron is evaluated: tables for 16-bit sources, blocks of float64 for all others, and one rounding."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from mpsref.neuron.descriptor import MPSNNNeuronDescriptor
from mpsref.neuron.exact import settle
from mpsref.neuron.slopes import ChannelSlopes
from mpsref.neuron.table import Parameters
from mpsref.neuron.workspace import Array, Workspace
from mpsref.storage import FLOAT64, StorageFormat, round_to_odd

__all__ = ["Decisions", "add", "forward", "gradient", "scale"]

BLOCK = 65_536
"""Elements in a block: enough to hide what a call from Python costs, few enough for the caches."""

TABLES = 64
"""How many tables are kept, of at most 512 KiB each."""

Stored = npt.NDArray[Any]
_Open: TypeAlias = tuple[npt.NDArray[np.intp], npt.NDArray[np.bool_]]
Kernel: TypeAlias = Callable[[Array, Parameters, Workspace], Array]


@dataclass(frozen=True)
class Decisions:
    """
    Which results float64 alone did not decide: indices into the flattened sources, an array for each block.

    Attributes
    ----------
    by_rule : list of ndarray
        Those that the row's `beside` decided, or that are limits at an infinity.
    by_digits : list of ndarray
        Those that needed multi-precision.
    """

    by_rule: list[npt.NDArray[np.intp]] = field(default_factory=list)
    by_digits: list[npt.NDArray[np.intp]] = field(default_factory=list)


class _Buffers(threading.local):
    """What every thread allocates once."""

    def __init__(self) -> None:
        self.workspace = Workspace(BLOCK)
        self.first = np.empty(BLOCK)
        self.second = np.empty(BLOCK)
        self.edge = np.empty(BLOCK)
        self.index = np.empty(BLOCK, np.intp)


_buffers = _Buffers()


def forward(
    descriptor: MPSNNNeuronDescriptor,
    x: Stored,
    source: StorageFormat,
    result: StorageFormat,
    slopes: ChannelSlopes | None = None,
    decisions: Decisions | None = None,
) -> Stored:
    """
    The neuron's value at every element of `x`, rounded once to `result`.

    Parameters
    ----------
    descriptor : MPSNNNeuronDescriptor
        The neuron.
    x : ndarray
        Elements stored in `source` format, of any shape.
    source, result : StorageFormat
        How the elements are stored, and how the result is.
    slopes : ChannelSlopes, optional
        For a neuron with a slope for each channel.
    decisions : Decisions, optional
        Gets the elements that float64 left open; not where a table of all 16-bit patterns is used.

    Returns
    -------
    ndarray
        Of the shape of `x` and the dtype of `result`.
    """
    flat, out = _flat(x), np.empty(x.shape, result.dtype)
    with np.errstate(all="ignore"):
        if _is_tabled(descriptor, source):
            _look_up(_forward_table(descriptor, source, result), flat, out.reshape(-1))
        else:
            _forward_blocks(descriptor, flat, source, result, slopes, out.reshape(-1), decisions)
    return out


def gradient(
    descriptor: MPSNNNeuronDescriptor,
    x: Stored,
    upstream: Stored,
    source: StorageFormat,
    upstream_source: StorageFormat,
    result: StorageFormat,
    slopes: ChannelSlopes | None = None,
    decisions: Decisions | None = None,
) -> Stored:
    """
    ``upstream`` times the neuron's slope at every element of `x`, the product rounded once to `result`.

    Parameters
    ----------
    x, source, result, slopes, decisions
        As for `forward`.
    upstream : ndarray
        Of the shape of `x`, stored in `upstream_source` format.
    """
    flat, flat_upstream, out = _flat(x), _flat(upstream), np.empty(x.shape, result.dtype)
    flat_out = out.reshape(-1)
    with np.errstate(all="ignore"):
        table = _slope_table(descriptor, source) if _is_tabled(descriptor, source) else None
        for i in range(0, flat.size, BLOCK):
            x_block, g = flat[i : i + BLOCK], flat_upstream[i : i + BLOCK]
            upstream_values = upstream_source.decode(g, _buffers.first[: g.size])
            if table is None:
                window = None if slopes is None else slopes.window(i, g.size)
                slope = _kernel_values(descriptor.row.derivative, descriptor, x_block, source, result, window)
            else:
                slope = _buffers.second[: g.size]
                _look_up(table, x_block, slope)
            np.multiply(slope, upstream_values, out=slope)
            proof = None if descriptor.row.is_exact else (descriptor, x_block, source)
            open_ = _round_once(slope, result, flat_out[i : i + BLOCK], proof, upstream_values)
            _note(decisions, open_, i)
    return out


def add(
    x: Stored,
    y: Stored,
    x_source: StorageFormat,
    y_source: StorageFormat,
    result: StorageFormat,
    scales: tuple[float, float] = (1.0, 1.0),
    bias: float = 0.0,
    bounds: tuple[float, float] = (-np.inf, np.inf),
) -> Stored:
    """
    ``scales[0] x + scales[1] y + bias``, clamped to the bounds, the exact value rounded once to `result`.

    `x` and `y` have one shape and any storage format of at most 24 bits precision; all other arguments are values of
    float32, so that each product is exact in float64.
    """
    flat_x, flat_y, out = _flat(x), _flat(y), np.empty(x.shape, result.dtype)
    flat_out = out.reshape(-1)
    with np.errstate(all="ignore"):
        for i in range(0, flat_x.size, BLOCK):
            left, right = flat_x[i : i + BLOCK], flat_y[i : i + BLOCK]
            p = x_source.decode(left, _buffers.first[: left.size])
            q = y_source.decode(right, _buffers.second[: right.size])
            np.multiply(p, scales[0], out=p)
            np.multiply(q, scales[1], out=q)
            total = _exact_sum(p, q, bias)
            # Not np.clip: it would leave open which zero it returns where the bound is one.
            np.copyto(total, bounds[0], where=total < bounds[0])
            np.copyto(total, bounds[1], where=total > bounds[1])
            _round_once(total, result, flat_out[i : i + BLOCK])
    return out


def scale(x: Stored, factor: float, source: StorageFormat, result: StorageFormat) -> Stored:
    """`factor`, a value of float32, times every element, rounded once to `result`."""
    flat, out = _flat(x), np.empty(x.shape, result.dtype)
    flat_out = out.reshape(-1)
    with np.errstate(all="ignore"):
        for i in range(0, flat.size, BLOCK):
            block = flat[i : i + BLOCK]
            values = source.decode(block, _buffers.first[: block.size])
            np.multiply(values, factor, out=values)
            _round_once(values, result, flat_out[i : i + BLOCK])
    return out


def _flat(array: Stored) -> Stored:
    return np.ascontiguousarray(array).reshape(-1)


def _is_tabled(descriptor: MPSNNNeuronDescriptor, source: StorageFormat) -> bool:
    return source.dtype.itemsize <= 2 and not descriptor.row.per_channel


def _forward_blocks(
    descriptor: MPSNNNeuronDescriptor,
    flat: Stored,
    source: StorageFormat,
    result: StorageFormat,
    slopes: ChannelSlopes | None,
    out: Stored,
    decisions: Decisions | None = None,
) -> None:
    for i in range(0, flat.size, BLOCK):
        stored = flat[i : i + BLOCK]
        window = None if slopes is None else slopes.window(i, stored.size)
        y = _kernel_values(descriptor.row.forward, descriptor, stored, source, result, window)
        proof = None if descriptor.row.is_exact else (descriptor, stored, source)
        _note(decisions, _round_once(y, result, out[i : i + BLOCK], proof), i)


def _note(decisions: Decisions | None, open_: _Open | None, start: int) -> None:
    if decisions is not None and open_ is not None:
        index, by_digits = open_
        decisions.by_rule.append(start + index[~by_digits])
        decisions.by_digits.append(start + index[by_digits])


def _kernel_values(
    kernel: Kernel,
    descriptor: MPSNNNeuronDescriptor,
    stored: Stored,
    source: StorageFormat,
    result: StorageFormat,
    slopes: Array | None = None,
) -> Array:
    """What a row's forward or derivative makes of one block of elements, in a buffer of the workspace."""
    w = _buffers.workspace
    w.wide, w.narrow = source is FLOAT64, result is not FLOAT64
    x = source.decode(stored, w.block(stored.size, slopes))
    nan = np.isnan(x)
    y = kernel(x, descriptor, w)
    ignores_nan = kernel == descriptor.row.derivative and descriptor.row.slope_is_constant
    if nan.any() and not ignores_nan:
        np.copyto(y, np.nan, where=nan)
    return y


def _round_once(
    values: Array,
    result: StorageFormat,
    out: Stored,
    proof: tuple[MPSNNNeuronDescriptor, Stored, StorageFormat] | None = None,
    upstream: Array | None = None,
) -> _Open | None:
    """
    The only rounding to a storage format. NaN becomes the canonical quiet one (N6).

    `values` are exact, or rounded to odd; or, with a `proof` of (descriptor, stored sources, their format), within the
    row's error bound, after a multiplication with `upstream` if there is one. Then those whose error interval holds a
    rounding boundary (Ziv's test) are decided in multi-precision. Returned are the indices of those, and which of them
    needed digits.
    """
    nan = np.isnan(values)
    if nan.any():
        np.copyto(values, np.nan, where=nan)
    if proof is None or result is FLOAT64:
        result.encode(values, out)
        return None
    descriptor, stored, source = proof
    bound = descriptor.row.error_bound(descriptor)
    edge = _buffers.edge[: values.size]
    result.encode(np.multiply(values, 1.0 + bound, out=edge), out)
    other = result.encode(np.multiply(values, 1.0 - bound, out=edge), np.empty_like(out))
    if np.array_equal(out.view(result.bits_dtype), other.view(result.bits_dtype)):
        return None
    open_ = np.flatnonzero(out.view(result.bits_dtype) != other.view(result.bits_dtype))
    x = source.decode(stored[open_], np.empty(open_.size))
    factors = None if upstream is None else upstream[open_]
    out[open_], by_digits = _decided(descriptor, x, factors, values[open_], result)
    return open_, by_digits


def _decided(
    descriptor: MPSNNNeuronDescriptor, x: Array, upstream: Array | None, values: Array, result: StorageFormat
) -> tuple[Stored, npt.NDArray[np.bool_]]:
    """Results where float64 leaves them open, and where digits decided; `values` are what float64 makes of them."""
    row = descriptor.row
    if upstream is None:
        exact, known = row.exact_forward, row.beside(x, descriptor)
    else:
        exact, known = row.exact_derivative, np.full_like(x, np.nan)
    # At an infinity the kernel has given the limit, and that is exact.
    at_infinity = np.isinf(x) if upstream is None else np.isinf(x) | np.isinf(upstream)
    np.copyto(known, values, where=at_infinity)
    decided = result.encode(known, np.empty(x.size, result.dtype))
    open_ = np.isnan(known)
    if upstream is None and row.is_constant(descriptor):
        x = np.zeros_like(x)
    decided[open_] = settle(
        partial(exact, p=descriptor), x[open_], None if upstream is None else upstream[open_], result
    )
    return decided, open_


@lru_cache(maxsize=TABLES)
def _forward_table(descriptor: MPSNNNeuronDescriptor, source: StorageFormat, result: StorageFormat) -> Stored:
    patterns = source.patterns()
    table = np.empty(patterns.size, result.dtype)
    _forward_blocks(descriptor, patterns, source, result, None, table)
    return table


@lru_cache(maxsize=TABLES)
def _slope_table(descriptor: MPSNNNeuronDescriptor, source: StorageFormat) -> Array:
    return _kernel_values(descriptor.row.derivative, descriptor, source.patterns(), source, source).copy()


def _look_up(table: Stored, flat: Stored, out: Stored) -> None:
    """``table[bits of the element]``, by far the fastest way that numpy has: take with an intp index and out."""
    bits = flat.view(f"u{flat.itemsize}")
    for i in range(0, bits.size, BLOCK):
        block = bits[i : i + BLOCK]
        index = _buffers.index[: block.size]
        np.copyto(index, block)
        np.take(table, index, out=out[i : i + BLOCK], mode="clip")


def _exact_sum(p: Array, q: Array, bias: float) -> Array:
    """``p + q + bias`` rounded to odd (algorithm 5 of Boldo and Melquiond, see `round_to_odd`)."""
    if bias == 0:
        return round_to_odd(*_two_sum(p, q))
    high, low = _two_sum(q, np.float64(bias))
    top, middle = _two_sum(p, high)
    rest = round_to_odd(*_two_sum(middle, low))
    # Where the sum is infinite or NaN its error terms are NaN, and the sum is the answer.
    return np.where(np.isfinite(top), round_to_odd(*_two_sum(top, rest)), top)


def _two_sum(x: Array, y: Array | np.float64) -> tuple[Array, Array]:
    """Knuth's TwoSum: the rounded sum and its exact error."""
    total = x + y
    part = total - x
    return total, (x - (total - part)) + (y - part)
