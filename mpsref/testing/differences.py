"""Derivatives of elementwise functions from their values alone, each with an estimated error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from mpsref.arrays import Wide

__all__ = [
    "DOUBLE", "NOISE", "SINGLE", "Function", "Precision", "coarse", "complex_slope", "continued", "one_sided", "pieces",
    "slope",
]  # fmt: skip

Function: TypeAlias = Callable[[Wide], Wide]
"""Elementwise: an element of the result depends on the same element of the argument alone."""

STEPS, RATIO = 15, 4.0
"""How many steps are tried, and the ratio of each to the next: from an eighth of the argument to 2^-31 of it."""

ORDERS = 5
ULPS = 4
NOISE = ULPS * float(np.finfo(np.float64).eps)
"""Relative error of a value: 4 ULP, as the kernels promise in float64."""

UNDERFLOW = 1e-100
"""Absolute error of a derivative, of which a factor may have underflowed."""

LEAST = float(np.finfo(np.float64).smallest_subnormal)
"""Absolute error of any value."""

DISTINCT = 10.0
"""Estimates that differ by more than this many times their errors are of different slopes."""

PRECISE = 1e-4
"""A relative error at which no other steps are tried."""

TINY = 1e-100
"""A step along the imaginary axis."""


@dataclass(frozen=True)
class Precision:
    """
    How exactly a function computes.

    Attributes
    ----------
    dtype : dtype
        In which arithmetic; its arguments are numbers of this dtype.
    decides : float
        A derivative whose relative error is larger than this decides only what is far off.
    rtol : float
        Relative difference that is allowed between gradient and derivative by default.
    """

    dtype: np.dtype[Any]
    decides: float
    rtol: float

    @property
    def noise(self) -> float:
        """The relative error of a value: 4 ULP."""
        return ULPS * float(np.finfo(self.dtype).eps)

    def rounded(self, x: Wide) -> Wide:
        """The nearest arguments."""
        return x if self.dtype == np.float64 else x.astype(self.dtype).astype(np.float64)


DOUBLE = Precision(np.dtype(np.float64), 1e-3, 1e-6)
SINGLE = Precision(np.dtype(np.float32), 1e-2, 1e-5)


def slope(
    function: Function, x: Wide, rounding: Wide | None = None, precision: Precision = DOUBLE
) -> tuple[Wide, Wide]:
    """
    The derivative at `x`, and an estimate of its error; infinity where nothing is known.

    `rounding` is the error of values besides 4 ULP of their own, in the precision of the function; None if unknown.

    Notes
    -----
    Central differences, extrapolated to step 0; of all steps and orders the one that agrees best with its neighbours,
    but never better than the rounding errors of the values allow (C. J. F. Ridders, "Accurate computation of F'(x)
    and F'(x) F''(x)", Advances in Engineering Software 4(2), 1982).
    """
    with np.errstate(all="ignore"):
        derivative, error = coarse(function, x, rounding, precision)
        # Large steps may miss the slope where the function changes fast close to x.
        other, smaller = _extrapolated(function, x, np.abs(x), rounding, precision)
        differs = np.abs(other - derivative) > DISTINCT * (error + smaller)
        is_precise, was_precise = smaller <= PRECISE * np.abs(other), error <= PRECISE * np.abs(derivative)
        doubt = np.where(is_precise, smaller, np.maximum(np.abs(other - derivative), smaller))
        better = differs | is_precise & ~was_precise | ~np.isfinite(error)
        derivative, error = (
            np.where(better, other, derivative),
            np.where(differs, doubt, np.where(better, smaller, error)),
        )
        # Beside the edge of a domain, or where the function changes fast close to 0, only smaller steps help.
        for size in (np.full(x.shape, RATIO ** (-STEPS * times)) for times in range(1, 5)):
            if np.all(error <= PRECISE * np.abs(derivative)):
                break
            other, smaller = _extrapolated(function, x, size, rounding, precision)
            is_precise, was_precise = smaller <= PRECISE * np.abs(other), error <= PRECISE * np.abs(derivative)
            better = (is_precise & ~was_precise | ~np.isfinite(error)) & ~differs
            gap = np.abs(other - derivative)
            unsure = ~better & ~was_precise & (gap > DISTINCT * (error + smaller))
            derivative = np.where(better, other, derivative)
            error = np.where(better, smaller, np.where(unsure, np.fmax(error, gap), error))
    return derivative, error


def coarse(
    function: Function, x: Wide, rounding: Wide | None = None, precision: Precision = DOUBLE
) -> tuple[Wide, Wide]:
    """The same, by steps from an eighth of the argument, or of 1, to 2^-31 of it, and none that are smaller."""
    with np.errstate(all="ignore"):
        return _extrapolated(function, x, np.maximum(np.abs(x), 1.0), rounding, precision)


def _extrapolated(
    function: Function, x: Wide, size: Wide, rounding: Wide | None, precision: Precision
) -> tuple[Wide, Wide]:
    derivative, error, against = np.full(x.shape, np.nan), np.full(x.shape, np.inf), np.zeros(x.shape)
    before: list[Wide] = []
    step = np.exp2(np.floor(np.log2(size)) - 3)
    for _ in range(STEPS):
        right, left = precision.rounded(x + step), precision.rounded(x - step)
        high, low = function(right), function(left)
        width = right - left
        noise = precision.noise * (np.abs(high) + np.abs(low)) + LEAST + (0.0 if rounding is None else rounding)
        noise = noise / width + UNDERFLOW
        row = [(high - low) / width]
        nearest, least = row[0], np.full(x.shape, np.inf)
        for order in range(1, min(len(before), ORDERS) + 1):
            row.append(row[-1] + (row[-1] - before[order - 1]) / (RATIO ** (2 * order) - 1))
            doubt = np.maximum(np.abs(row[-1] - row[-2]), np.abs(row[-1] - before[order - 1])) + noise
            closer = doubt < least
            nearest, least = np.where(closer, row[-1], nearest), np.where(closer, doubt, least)
        # Where smaller steps disagree by more than rounding explains, larger ones have misled.
        gap = np.abs(nearest - derivative)
        against = np.where(gap > DISTINCT * (error + (least if rounding is None else noise)), gap, against)
        better = least < error
        derivative, error = np.where(better, nearest, derivative), np.where(better, least, error)
        against = np.where(better, 0.0, against)
        before = row
        step = step / RATIO
    return derivative, np.maximum(error, against)


def continued(function: Function, x: Wide, low: Wide, high: Wide) -> Wide:
    """
    A function that is smooth on the piece from `low` to `high`, extrapolated beyond it.

    Notes
    -----
    By a parabola through the end of the piece and the points at the same and at twice the distance inside. NaN where
    the piece is too short.
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


def pieces(x: Wide, kinks: tuple[float, ...], side: npt.NDArray[np.int8]) -> tuple[Wide, Wide]:
    """
    The ends of the smooth piece on which each element lies, between kinks.

    `side` chooses the piece at a kink itself: the left one, -1; the right one, 1; or both as one, 0.
    """
    ends = np.array([-np.inf, *sorted(set(kinks)), np.inf])
    first = np.searchsorted(ends[1:-1], x)
    at = ends[1:][first] == x
    return ends[first + (at & (side > 0))], ends[np.minimum(first + 1 + (at & (side >= 0)), len(ends) - 1)]


def one_sided(
    function: Function, x: Wide, precision: Precision = DOUBLE
) -> tuple[tuple[Wide, Wide], tuple[Wide, Wide]]:
    """The derivatives from the left and from the right, by coarse steps, each with its error estimate."""
    none = np.full(x.shape, np.inf)
    return (
        coarse(lambda z: continued(function, z, -none, x), x, None, precision),
        coarse(lambda z: continued(function, z, x, none), x, None, precision),
    )


def complex_slope(function: Callable[[npt.NDArray[Any]], npt.NDArray[Any]], x: Wide) -> tuple[Wide, Wide]:
    """
    The derivative of an analytic function of complex numbers, by a step without cancellation, and its error.

    Notes
    -----
    W. Squire and G. Trapp, "Using complex variables to estimate derivatives of real functions", SIAM Review 40(1),
    1998.
    """
    with np.errstate(all="ignore"):
        derivative: Wide = function(x + TINY * 1j).imag / TINY
        error = NOISE * np.abs(derivative) + float(np.finfo(np.float64).smallest_normal) / TINY
    return derivative, np.where(np.isnan(derivative), np.inf, error)
