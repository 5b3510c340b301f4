"""The one rounding of a block of results, exact or within an error bound (Ziv's test)."""

from __future__ import annotations

import math

import numpy as np

from mpsref.arrays import Index, Mask, Stored
from mpsref.neuron.threads import Scratch
from mpsref.neuron.workspace import Array, largest
from mpsref.storage import FLOAT64, StorageFormat

__all__ = ["canonical_nan", "nan_in_halves", "round_once"]


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
    if result.encode_within(values, bound, out, is_open, scratch.other.view(result.dtype)[: values.size]):
        nan = np.isnan(values)
        is_open &= ~nan
        if not result.unorm_max:
            np.copyto(out, np.nan, where=nan)
        open_ = np.flatnonzero(is_open)
        return open_ if open_.size else None
    return None


def canonical_nan(out: Stored) -> None:
    """Give every NaN the bits of the canonical quiet one (N6)."""
    kind = out.dtype.kind
    if kind == "f" and out.itemsize == 2:
        nan = nan_in_halves(out)
    elif kind == "V" or (kind == "f" and out.size and math.isnan(largest(out))):
        nan = np.isnan(out)
    else:
        return
    if nan is not None and np.count_nonzero(nan):
        np.copyto(out, np.nan, where=nan)


def nan_in_halves(halves: Stored) -> Mask | None:
    """Where a float16 is NaN, several times faster than np.isnan; None if nowhere."""
    bits = halves.view(np.uint16)
    # With the sign or without, a NaN is among the largest integers.
    if not bits.size or (largest(bits.view(np.int16)) <= 0x7C00 and largest(bits) <= 0xFC00):
        return None
    nan: Mask = (bits & 0x7FFF) > 0x7C00
    return nan
