"""The base class of the kernels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np

from mpsref.neuron.table import Parameters
from mpsref.neuron.workspace import Array, Workspace

__all__ = ["Kernel"]


class Kernel(ABC):
    """
    A row's forward and derivative, fast, and their error bounds. Stateless.

    Attributes
    ----------
    is_exact : bool
        Whether both give the exact value, rounded to odd, so that its rounding is never open. Otherwise `beside`,
        `slope_beside` and the specification decide what they leave open.
    forward_roundings : int or None
        What `roundings` is for all parameters.
    slope_rounds : bool
        What `slope_is_rounded` is for all parameters.
    roots : tuple or None
        Where `Nodes` serve for both: the one zero of the forward and that of the derivative, as a float64 and the rest.
    """

    is_exact: ClassVar[bool] = False
    forward_roundings: ClassVar[int | None] = None
    slope_rounds: ClassVar[bool] = True
    roots: ClassVar[tuple[tuple[float, float], tuple[float, float]] | None] = None

    @staticmethod
    @abstractmethod
    def forward(x: Array, p: Parameters, w: Workspace) -> Array:
        """f(x)."""

    @staticmethod
    @abstractmethod
    def derivative(x: Array, p: Parameters, w: Workspace) -> Array:
        """f'(x), and at a kink the slope that the documented comparison chooses (N4)."""

    @staticmethod
    def beside(x: Array, p: Parameters) -> Array:
        """
        f(x), rounded to odd, where it is so close to a float64 that only the side matters; NaN elsewhere.

        It keeps the many inputs of a saturated image away from multi-precision.
        """
        return np.full_like(x, np.nan)

    @staticmethod
    def slope_beside(x: Array, p: Parameters) -> tuple[Array, Array]:
        """
        f'(x) where it is close to a float64: that float64 exactly, and the rest, good to 2^-40 of itself; else NaN.

        There the product with an incoming gradient may be a tie, and often is.
        """
        return np.full_like(x, np.nan), np.zeros_like(x)

    @staticmethod
    def is_constant(p: Parameters) -> bool:
        """Whether the forward is the same for every input, so that one decision serves all."""
        return False

    @classmethod
    def error_bound(cls, p: Parameters) -> float:
        """
        Largest relative error of `forward`, for inputs and results of at most 32 bits; 0 if nothing is open.

        With functions good to 4 ULP most chains of operations lose less than 2^-48; the rest is a margin.
        """
        return 0.0 if cls.is_exact else 2.0**-46

    @classmethod
    def slope_error_bound(cls, p: Parameters) -> float:
        """Largest relative error of `derivative` likewise."""
        return cls.error_bound(p)

    @classmethod
    def roundings(cls, p: Parameters) -> int | None:
        """
        The largest number of roundings in `forward`, if it is 0 or 1; else None.

        With at most one rounding a result is correctly rounded in any floating format that the kernel runs in.
        """
        return cls.forward_roundings

    @classmethod
    def slope_is_one(cls, p: Parameters) -> bool:
        """Whether the derivative is 1 everywhere."""
        return False

    @classmethod
    def slope_is_rounded(cls, p: Parameters) -> bool:
        """Whether `derivative` rounds anything, in any floating format that it runs in."""
        return cls.slope_rounds
