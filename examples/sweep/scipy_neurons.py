"""Neurons of scipy.special, for ``mpsref sweep``; geLU with ndtr, and with erf as the formula has it."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import special


def sigmoid(x: Any) -> Any:
    """The value of sigmoid."""
    return special.expit(x).astype(x.dtype)


def sigmoid_gradient(x: Any, upstream: Any) -> Any:
    """The gradient of sigmoid."""
    return (upstream * special.expit(x) * special.expit(-x)).astype(x.dtype)


def softPlus(x: Any) -> Any:
    """The value of softPlus."""
    return (-special.log_expit(-x)).astype(x.dtype)


def softPlus_gradient(x: Any, upstream: Any) -> Any:
    """The gradient of softPlus."""
    return (upstream * special.expit(x)).astype(x.dtype)


def geLU(x: Any) -> Any:
    """The value of geLU."""
    return (x * special.ndtr(x)).astype(x.dtype)


def geLU_with_erf(x: Any) -> Any:
    """The value, with erf, of geLU."""
    return (x / 2 * (1 + special.erf(x / np.sqrt(x.dtype.type(2))))).astype(x.dtype)


def ELU(x: Any) -> Any:
    """The value of ELU."""
    return np.where(x >= 0, x, special.expm1(x)).astype(x.dtype)
