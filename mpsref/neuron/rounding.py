"""The one rounding of a block of results, exact or within an error bound (Ziv's test)."""

from __future__ import annotations

import math

import numpy as np

from mpsref.arrays import Index, Stored
from mpsref.neuron.threads import Scratch
from mpsref.neuron.workspace import Array
from mpsref.storage import FLOAT64, StorageFormat

__all__ = ["canonical_nan", "round_once"]


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
    if out.dtype == np.float16:
        # Several times faster than np.isnan.
        nan = (out.view(np.uint16) & 0x7FFF) > 0x7C00
    elif out.dtype.kind == "V":
        nan = np.isnan(out)
    elif out.dtype.kind != "f" or not out.size or not math.isnan(np.maximum.reduce(out)):
        return
    else:
        nan = np.isnan(out)
    if np.count_nonzero(nan):
        np.copyto(out, np.nan, where=nan)
