"""Derivatives of functions of one number, element by element, from their values alone, each with an error estimate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["NOISE", "Function", "coarse", "complex_slope", "continued", "one_sided", "pieces", "slope"]

Array: TypeAlias = npt.NDArray[np.float64]
Function: TypeAlias = Callable[[Array], Array]
"""Elementwise: what stands at a place depends on the argument at that place alone."""

STEPS, RATIO = 15, 4.0
"""How many steps are tried, and how much smaller the next one is: from an eighth of the argument to 2^-31 of it."""

ORDERS = 5
NOISE = 4 * float(np.finfo(np.float64).eps)
"""What a value may be off, relative: 4 ULP, as the kernels promise in float64."""

UNDERFLOW = 1e-100
"""Derivatives are not told apart that differ by less: what has vanished on the way may be a factor of them."""

LEAST = float(np.finfo(np.float64).smallest_subnormal)
"""What any value may be off."""

DISTINCT = 10.0
"""Two estimates that are farther apart than so many times their errors are of different things."""

PRECISE = 1e-4
"""A relative error with which nothing else need be tried."""

TINY = 1e-100
"""A step along the imaginary axis."""


def slope(function: Function, x: Array, rounding: Array | None = None) -> tuple[Array, Array]:
    """
    The derivative at `x`, and an estimate of its error; infinity where nothing can be said.

    `rounding` is what values may be off besides 4 ULP of their own; None if that is not known.

    Notes
    -----
    Central differences, extrapolated to step 0; of all steps and orders the one that agrees best with its neighbours,
    but never better than the rounding errors of the values allow (C. J. F. Ridders, "Accurate computation of F'(x)
    and F'(x) F''(x)", Advances in Engineering Software 4(2), 1982).

    Examples
    --------
    >>> import numpy as np
    >>> from mpsref.testing.differences import slope
    >>> found, error = slope(np.exp, np.array([1.0]))
    >>> bool(abs(found[0] - np.e) < 10 * error[0] < 1e-10)
    True
    """
    with np.errstate(all="ignore"):
        found, error = coarse(function, x, rounding)
        # What large steps say may be the slope of something else, where much happens close to x.
        other, smaller = _extrapolated(function, x, np.abs(x), rounding)
        differs = np.abs(other - found) > DISTINCT * (error + smaller)
        is_precise, was_precise = smaller <= PRECISE * np.abs(other), error <= PRECISE * np.abs(found)
        doubt = np.where(is_precise, smaller, np.maximum(np.abs(other - found), smaller))
        better = differs | is_precise & ~was_precise | ~np.isfinite(error)
        found, error = np.where(better, other, found), np.where(differs, doubt, np.where(better, smaller, error))
        # Beside the edge of a domain, or where much happens close to 0, only smaller steps help.
        for size in (np.full(x.shape, RATIO ** (-STEPS * times)) for times in range(1, 5)):
            if np.all(error <= PRECISE * np.abs(found)):
                break
            other, smaller = _extrapolated(function, x, size, rounding)
            is_precise, was_precise = smaller <= PRECISE * np.abs(other), error <= PRECISE * np.abs(found)
            better = (is_precise & ~was_precise | ~np.isfinite(error)) & ~differs
            gap = np.abs(other - found)
            unsure = ~better & ~was_precise & (gap > DISTINCT * (error + smaller))
            found = np.where(better, other, found)
            error = np.where(better, smaller, np.where(unsure, np.fmax(error, gap), error))
    return found, error


def coarse(function: Function, x: Array, rounding: Array | None = None) -> tuple[Array, Array]:
    """The same, by steps from an eighth of the argument, or of 1, to 2^-31 of it: what is closer is not looked at."""
    with np.errstate(all="ignore"):
        return _extrapolated(function, x, np.maximum(np.abs(x), 1.0), rounding)


def _extrapolated(function: Function, x: Array, size: Array, rounding: Array | None) -> tuple[Array, Array]:
    found, error, against = np.full(x.shape, np.nan), np.full(x.shape, np.inf), np.zeros(x.shape)
    before: list[Array] = []
    step = np.exp2(np.floor(np.log2(size)) - 3)
    for _ in range(STEPS):
        right, left = x + step, x - step
        high, low = function(right), function(left)
        width = right - left
        noise = NOISE * (np.abs(high) + np.abs(low)) + LEAST + (0.0 if rounding is None else rounding)
        noise = noise / width + UNDERFLOW
        row = [(high - low) / width]
        nearest, least = row[0], np.full(x.shape, np.inf)
        for order in range(1, min(len(before), ORDERS) + 1):
            row.append(row[-1] + (row[-1] - before[order - 1]) / (RATIO ** (2 * order) - 1))
            doubt = np.maximum(np.abs(row[-1] - row[-2]), np.abs(row[-1] - before[order - 1])) + noise
            closer = doubt < least
            nearest, least = np.where(closer, row[-1], nearest), np.where(closer, doubt, least)
        # Smaller steps that say something else, beyond what rounding explains: then larger ones have misled.
        gap = np.abs(nearest - found)
        against = np.where(gap > DISTINCT * (error + (least if rounding is None else noise)), gap, against)
        better = least < error
        found, error = np.where(better, nearest, found), np.where(better, least, error)
        against = np.where(better, 0.0, against)
        before = row
        step = step / RATIO
    return found, np.maximum(error, against)


def continued(function: Function, x: Array, low: Array, high: Array) -> Array:
    """
    A function that is smooth on a piece from `low` to `high`, continued beyond its ends by what it is within.

    Notes
    -----
    By a parabola through values at the end and as far, and twice as far, within. NaN where the piece is too short.
    """
    inside = np.clip(x, low, high)
    y = function(inside)
    beyond = x - inside
    outside = beyond != 0
    if outside.any():
        far = inside - 2 * beyond
        y = np.where(outside, 3 * y - 3 * function(inside - beyond) + function(far), y)
        y = np.where(outside & ((far < low) | (far > high)), np.nan, y)
    return y


def pieces(x: Array, kinks: tuple[float, ...], side: npt.NDArray[np.int8]) -> tuple[Array, Array]:
    """
    The ends of the smooth piece on which each element is.

    Parameters
    ----------
    x : ndarray
        The elements.
    kinks : tuple of float
        Where pieces meet.
    side : ndarray of int8
        What is chosen at a kink itself: the piece at its left, -1; at its right, 1; or both as one, 0.
    """
    ends = np.array([-np.inf, *sorted(set(kinks)), np.inf])
    first = np.searchsorted(ends[1:-1], x)
    at = ends[1:][first] == x
    return ends[first + (at & (side > 0))], ends[np.minimum(first + 1 + (at & (side >= 0)), len(ends) - 1)]


def one_sided(function: Function, x: Array) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """The derivatives from the left and from the right, by coarse steps, each with its error estimate."""
    none = np.full(x.shape, np.inf)
    return (
        coarse(lambda z: continued(function, z, -none, x), x),
        coarse(lambda z: continued(function, z, x, none), x),
    )


def complex_slope(function: Callable[[npt.NDArray[Any]], npt.NDArray[Any]], x: Array) -> tuple[Array, Array]:
    """
    The derivative of an analytic function that takes complex numbers, by a step that nothing cancels in, and its error.

    Notes
    -----
    W. Squire and G. Trapp, "Using complex variables to estimate derivatives of real functions", SIAM Review 40(1),
    1998.
    """
    with np.errstate(all="ignore"):
        found: Array = function(x + TINY * 1j).imag / TINY
        error = NOISE * np.abs(found) + float(np.finfo(np.float64).smallest_normal) / TINY
    return found, np.where(np.isnan(found), np.inf, error)
