"""Sums as a plain shader computes them, every operation rounded: they explain results, and never judge them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mpsref.arrays import Stored, Wide
from mpsref.environment import environment_or_error
from mpsref.errors import ImageError, ParameterError
from mpsref.neuron.rounding import canonical_nan
from mpsref.neuron.workspace import two_sum
from mpsref.storage import FLOAT64, StorageFormat, round_to_odd
from mpsref.sums.base import Index, Sum

__all__ = ["ORDERS", "stepwise"]

ORDERS = ("loops", "pairwise")
"""In which products are added: one after the other, or neighbours, then neighbouring sums, and so on."""


def stepwise(
    sums: Sum,
    result: StorageFormat,
    *,
    accumulator: npt.DTypeLike = np.float32,
    order: str = "loops",
    fused: bool = False,
) -> Stored:
    """
    Sums whose factors, products and partial sums are rounded to an accumulator, then once to a format.

    Products come in the order of the loops in Apple's headers: kernel rows, kernel columns, source channels, then the
    bias; images, rows, columns for a gradient of weights. An average is divided in the accumulator.

    Parameters
    ----------
    sums : Sum
        Such as a `Convolution`.
    result : StorageFormat
        The format to round to.
    accumulator : dtype
        float32 or float16.
    order : str
        ``loops`` or ``pairwise``.
    fused : bool
        Whether a product is added without being rounded; only in loops.

    Returns
    -------
    ndarray
        Of the dtype of `result`.

    Raises
    ------
    ParameterError
        An argument is unknown.
    ImageError
        An operand is float64.

    Examples
    --------
    >>> import numpy as np
    >>> from mpsref.arrays import Elements
    >>> from mpsref.storage import storage_format
    >>> from mpsref.sums import BiasGradient
    >>> half = storage_format("float16")
    >>> sums = BiasGradient(Elements(np.float16([2048, 1, 1]).reshape(1, 1, 3, 1), half))
    >>> sums.rounded(half), stepwise(sums, half, accumulator=np.float16)
    (array([2.05e+03], dtype=float16), array([2.048e+03], dtype=float16))
    """
    environment_or_error()
    dtype = np.dtype(accumulator)
    if dtype not in (np.float32, np.float16):
        raise ParameterError(f"accumulator is {dtype}: give float32 or float16")
    if order not in ORDERS or (fused and order != "loops"):
        raise ParameterError(f"order is {order!r}: choose one of {', '.join(ORDERS)}; only loops can be fused")
    if FLOAT64 in sums.storages:
        raise ImageError("an operand is float64, but an accumulator is float32 or float16: convert it first")
    out = np.empty(sums.shape, result.dtype)
    with np.errstate(all="ignore"):
        for some in sums.portions(np.arange(out.size)):
            total = _pairwise(sums, some, dtype) if order == "pairwise" else _in_loops(sums, some, dtype, fused=fused)
            divisors = sums.divisors(some)
            if divisors is not None:
                total = total / divisors.astype(dtype)
            out.reshape(-1)[some] = result.encode(total.astype(np.float64), np.empty(some.size, result.dtype))
        canonical_nan(out.reshape(-1))
    return out


def _in_loops(sums: Sum, index: Index, dtype: np.dtype[Any], *, fused: bool) -> Stored:
    total: Stored = np.zeros(index.size, dtype)
    for x, y in sums.operands(index):
        if fused:
            for a, b in zip(_as(x, dtype).T, _as(y, dtype).T, strict=True):
                total = round_to_odd(*two_sum(a * b, total.astype(np.float64))).astype(dtype)
        else:
            # An accumulation adds strictly one after the other.
            products = np.multiply(x.astype(dtype), y.astype(dtype))
            total = np.add.accumulate(np.column_stack([total, products]), axis=1)[:, -1]
    return total


def _pairwise(sums: Sum, index: Index, dtype: np.dtype[Any]) -> Stored:
    parts = [np.multiply(x.astype(dtype), y.astype(dtype)) for x, y in sums.operands(index)]
    products = np.column_stack(parts) if parts else np.zeros((index.size, 1), dtype)
    while products.shape[1] > 1:
        pairs = products[:, : products.shape[1] // 2 * 2].reshape(index.size, -1, 2)
        products = np.column_stack([pairs[..., 0] + pairs[..., 1], products[:, pairs.shape[1] * 2 :]])
    return products[:, 0]


def _as(values: Wide, dtype: np.dtype[Any]) -> Wide:
    return values.astype(dtype).astype(np.float64)
