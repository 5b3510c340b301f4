"""What a kernel is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np

from mpsref.neuron.table import Parameters
from mpsref.neuron.workspace import Array, Workspace

__all__ = ["Kernel"]


class Kernel(ABC):
    """
    A row's forward and derivative, fast, and how near they come. Instances hold nothing.

    Attributes
    ----------
    is_exact : bool
        Whether both give the exact value, rounded to odd, so that nothing about its rounding is open. Where not,
        `beside`, `slope_beside` and the specification decide what they leave open.
    """

    is_exact: ClassVar[bool] = False

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
        f(x) where it lies beside a float64, by so little that only the side matters: that float64, rounded to odd.

        NaN elsewhere. It spares multi-precision the many sources of a saturated image.
        """
        return np.full_like(x, np.nan)

    @staticmethod
    def slope_beside(x: Array, p: Parameters) -> tuple[Array, Array]:
        """
        f'(x) where it lies beside a float64: that float64 exactly, and the rest, good to 2^-40 of itself.

        NaN elsewhere. The product with an upstream gradient may be a tie then, and is so for many gradients.
        """
        return np.full_like(x, np.nan), np.zeros_like(x)

    @staticmethod
    def is_constant(p: Parameters) -> bool:
        """Whether the forward is the same at every source, so that one decision serves all."""
        return False

    @classmethod
    def error_bound(cls, p: Parameters) -> float:
        """
        Largest relative error of `forward`, for sources and results of at most 32 bits; 0 if nothing is open.

        The longest chain of operations loses less than 2^-48 with functions good to 4 ULP; the rest is a margin.
        """
        return 0.0 if cls.is_exact else 2.0**-44

    @classmethod
    def slope_error_bound(cls, p: Parameters) -> float:
        """Largest relative error of `derivative` likewise."""
        return cls.error_bound(p)

    @classmethod
    def roundings(cls, p: Parameters) -> int | None:
        """
        The largest number of roundings in `forward`, if it is 0 or 1; else None.

        After at most one rounding a result is correctly rounded in whatever floating format the kernel runs.
        """
        return None

    @classmethod
    def slope_is_one(cls, p: Parameters) -> bool:
        """Whether the derivative is 1 everywhere."""
        return False

    @classmethod
    def slope_is_rounded(cls, p: Parameters) -> bool:
        """Whether anything is rounded in `derivative`, in whatever floating format it runs."""
        return True
