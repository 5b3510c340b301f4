"""What a check of gradients asks of one input, and the arrays that it is asked with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from mpsref.errors import ImageError
from mpsref.testing.comparison import as_array
from mpsref.testing.differences import Function, slope

__all__ = ["Array", "Mask", "Question", "float64", "incoming_gradient", "one_shape"]

Array: TypeAlias = npt.NDArray[np.float64]
Mask: TypeAlias = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Question:
    """
    One input, and the gradient that is claimed for it.

    Attributes
    ----------
    name, x, claimed
        The input and its gradient.
    value : callable
        The sum of results times upstream gradients at each element, for other values of the input: on the smooth piece
        that the documented comparisons choose.
    open : ndarray of bool
        Where either side of a kink may be meant; all else is on one of them.
    sides : callables
        The same on the left and on the right pieces there.
    notes : dict of str to ndarray of bool
        What there is to say of places.
    differentiate : callable
        How derivatives and their errors are computed.
    upstream : ndarray or None
        The incoming gradient, if there is just one.
    """

    name: str
    x: Array
    claimed: Array
    value: Function
    open: Mask
    sides: Callable[[], tuple[tuple[Array, Array], tuple[Array, Array]]]
    notes: dict[str, Mask] = field(default_factory=dict)
    differentiate: Callable[[Function, Array], tuple[Array, Array]] = slope
    upstream: Array | None = None


def float64(value: Any, name: str) -> Array:
    """Floating point values of whatever dtype, as a new array."""
    array = as_array(value, name, np.dtype(np.float64))
    if array.dtype.kind != "f":
        raise ImageError(f"{name} has dtype {array.dtype}: give floating point values")
    return np.array(array, np.float64)


def one_shape(arrays: Mapping[str, Array]) -> tuple[int, ...]:
    """The shape of all, which must be one."""
    shapes = {array.shape for array in arrays.values()}
    if not sum(array.size for array in arrays.values()):
        raise ImageError("inputs are empty: give at least one element")
    if len(shapes) != 1:
        raise ImageError(f"{', '.join(f'{n} is {list(a.shape)}' for n, a in arrays.items())}: give one shape")
    return shapes.pop()


def incoming_gradient(shape: tuple[int, ...]) -> Array:
    """Numbers of both signs between 1/2 and 2, which are short in binary."""
    k = np.arange(int(np.prod(shape)))
    size = (k * 59 % 96 + 32) / 64
    return np.asarray(np.where(k % 3 == 1, -size, size).reshape(shape))
