"""Neurons in one line of numpy, for ``mpsref sweep``, as people write them."""

from __future__ import annotations

from typing import Any

import numpy as np


def reLU(x: Any) -> Any:
    """The value of reLU."""
    return np.maximum(x, 0)


def reLU_gradient(x: Any, upstream: Any) -> Any:
    """The gradient of reLU."""
    return upstream * (x >= 0)


def sigmoid(x: Any) -> Any:
    """The value of sigmoid."""
    return 1 / (1 + np.exp(-x))


def sigmoid_gradient(x: Any, upstream: Any) -> Any:
    """The gradient of sigmoid."""
    return upstream * sigmoid(x) * (1 - sigmoid(x))


def hardSigmoid(x: Any) -> Any:
    """The value of hardSigmoid."""
    return np.clip(x.dtype.type(0.2) * x + x.dtype.type(0.5), 0, 1)


def tanH(x: Any) -> Any:
    """The value of tanH."""
    return np.tanh(x)


def tanH_gradient(x: Any, upstream: Any) -> Any:
    """The gradient of tanH."""
    return upstream * (1 - np.tanh(x) ** 2)


def absolute(x: Any) -> Any:
    """The value of absolute."""
    return np.abs(x)


def absolute_gradient(x: Any, upstream: Any) -> Any:
    """The gradient of absolute."""
    return upstream * np.sign(x)


def softPlus(x: Any) -> Any:
    """The value of softPlus."""
    return np.logaddexp(x, x.dtype.type(0))


def softPlus_gradient(x: Any, upstream: Any) -> Any:
    """The gradient of softPlus."""
    return upstream * sigmoid(x)


def softSign(x: Any) -> Any:
    """The value of softSign."""
    return x / (1 + np.abs(x))


def softSign_gradient(x: Any, upstream: Any) -> Any:
    """The gradient of softSign."""
    return upstream / (1 + np.abs(x)) ** 2


def ELU(x: Any) -> Any:
    """The value of ELU."""
    return np.where(x >= 0, x, np.exp(x) - 1)


def ELU_gradient(x: Any, upstream: Any) -> Any:
    """The gradient of ELU."""
    return upstream * np.where(x >= 0, 1, np.exp(x)).astype(x.dtype)


def pReLU(x: Any) -> Any:
    """The value of pReLU."""
    return np.where(x >= 0, x, x.dtype.type(0.25) * x)


def reLUN(x: Any) -> Any:
    """The value of reLUN."""
    return np.clip(x, 0, 6)


def power(x: Any) -> Any:
    """The value of power."""
    return x ** x.dtype.type(2.5)


def exponential(x: Any) -> Any:
    """The value of exponential."""
    return np.exp(x)


def logarithm(x: Any) -> Any:
    """The value of logarithm."""
    return np.log(x)


def logarithm_gradient(x: Any, upstream: Any) -> Any:
    """The gradient of logarithm."""
    return upstream / x


PARAMETERS = {"reLUN": {"a": 0.0}, "power": {"c": 2.5}}
"""Where they are not those that Apple documents."""
