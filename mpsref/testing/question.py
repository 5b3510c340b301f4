"""A gradient that is to be checked, with respect to one input, and the arrays for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mpsref.arrays import Mask, Wide
from mpsref.errors import ImageError
from mpsref.testing.comparison import as_array
from mpsref.testing.differences import DOUBLE, Function, Precision, slope

__all__ = ["Question", "float64", "incoming_gradient", "one_shape"]


@dataclass(frozen=True, eq=False)
class Question:
    """
    One input, and the gradient that is claimed for it.

    Attributes
    ----------
    name, x, claimed
        The input and its gradient.
    value : callable
        The sum of results times incoming gradients at each element, for other values of the input: on the smooth piece
        that the documented comparisons choose.
    open : ndarray of bool
        Elements where either side of a kink may be right; all others are on one side.
    sides : callable
        The derivatives on the left and on the right pieces there.
    notes : dict of str to ndarray of bool
        Remarks, and the elements to which they apply.
    differentiate : callable
        How derivatives and their errors are computed.
    upstream : ndarray or None
        The incoming gradient, if there is just one.
    precision : Precision
        That of the function.
    """

    name: str
    x: Wide
    claimed: Wide
    value: Function
    open: Mask
    sides: Callable[[], tuple[tuple[Wide, Wide], tuple[Wide, Wide]]]
    notes: dict[str, Mask] = field(default_factory=dict)
    differentiate: Callable[[Function, Wide], tuple[Wide, Wide]] = slope
    upstream: Wide | None = None
    precision: Precision = DOUBLE


def float64(value: Any, name: str) -> Wide:
    """Floating point values of any dtype, as a new array."""
    array = as_array(value, name, np.dtype(np.float64))
    if array.dtype.kind != "f":
        raise ImageError(f"{name} has dtype {array.dtype}: give floating point values")
    return np.array(array, np.float64)


def one_shape(arrays: Mapping[str, Wide]) -> tuple[int, ...]:
    """The shape that all arrays must have in common."""
    shapes = {array.shape for array in arrays.values()}
    if not sum(array.size for array in arrays.values()):
        raise ImageError("inputs are empty: give at least one element")
    if len(shapes) != 1:
        raise ImageError(f"{', '.join(f'{n} is {list(a.shape)}' for n, a in arrays.items())}: give one shape")
    return shapes.pop()


def incoming_gradient(shape: tuple[int, ...]) -> Wide:
    """Numbers of both signs between 1/2 and 2 with few binary digits."""
    k = np.arange(int(np.prod(shape)))
    size = (k * 59 % 96 + 32) / 64
    return np.asarray(np.where(k % 3 == 1, -size, size).reshape(shape))
