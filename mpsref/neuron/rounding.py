"""The one rounding of a block of results, exact or within an error bound (Ziv's test)."""

from __future__ import annotations

import math

import numpy as np

from mpsref.arrays import Index, Mask, Stored
from mpsref.neuron.threads import Scratch
from mpsref.neuron.workspace import Array
from mpsref.storage import FLOAT64, StorageFormat

__all__ = ["canonical_nan", "round_once"]

SMALLEST = np.finfo(np.float32).smallest_normal
"""At a power of two the spacing of float64 changes: this one counts as subnormal."""


def round_once(values: Array, bound: float, out: Stored, result: StorageFormat, scratch: Scratch) -> Index | None:
    """
    Round to the result, once.

    With a bound of 0 `values` are exact, or rounded to odd; else they are within that relative error, and the indices
    are returned whose error interval holds a rounding boundary: those results are still open.
    """
    if bound == 0 or result is FLOAT64:
        result.encode(values, out)
        canonical_nan(out)
        return None
    is_open = scratch.mask[: values.size]
    other = scratch.other.view(result.dtype)[: values.size]
    if (
        _float32_within(values, bound, out, result, is_open, scratch)
        if result.dtype == np.float32
        else result.encode_within(values, bound, out, is_open, other)
    ):
        nan = np.isnan(values)
        is_open &= ~nan
        if not result.unorm_max:
            np.copyto(out, np.nan, where=nan)
        open_ = np.flatnonzero(is_open)
        return open_ if open_.size else None
    return None


def _float32_within(
    values: Array, bound: float, out: Stored, result: StorageFormat, is_open: Mask, scratch: Scratch
) -> bool:
    """`StorageFormat.encode_within` for float32 with one cast, by integers."""
    np.copyto(out, values, casting="same_kind")
    rest, other = scratch.other.view(np.int32).reshape(2, -1)[:, : values.size]
    # Of the 53 bits of a float64 the last 29 are rounded away. At the end of 32 bits a tie is the smallest integer.
    np.copyto(rest, values.view(np.int64), casting="unsafe")
    np.left_shift(rest, 3, out=rest)
    near = 2**31 - 8 * (math.ceil(bound * 2.0**53) + 1)
    is_far = np.minimum.reduce(rest) > -near and np.maximum.reduce(rest) < near
    # In subnormal numbers more is rounded away, and from infinite ones nothing is.
    size, smallest = out, np.minimum.reduce(out)
    if not smallest > SMALLEST:
        size = np.abs(out, out=other.view(np.float32))
        smallest = np.minimum.reduce(size)
    is_normal = smallest > SMALLEST and np.maximum.reduce(size) < np.inf
    if is_far and is_normal:
        return False
    np.logical_or(rest <= -near, rest >= near, out=is_open)
    if not is_normal:
        special = np.flatnonzero(((size <= SMALLEST) & (values != 0)) | ~(size < np.inf))
        some = np.empty((2, special.size), np.float32)
        is_some = np.empty(special.size, np.bool_)
        result.encode_within(values[special], bound, some[0], is_some, some[1])
        is_open[special] = is_some
    return bool(is_open.any())


def canonical_nan(out: Stored) -> None:
    """Give every NaN the bits of the canonical quiet one (N6)."""
    if out.dtype == np.float16:
        # Several times faster than np.isnan.
        nan = (out.view(np.uint16) & 0x7FFF) > 0x7C00
    elif out.dtype.kind != "f" or not out.size or not math.isnan(np.maximum.reduce(out)):
        return
    else:
        nan = np.isnan(out)
    if np.count_nonzero(nan):
        np.copyto(out, np.nan, where=nan)
