"""Neurons of JAX, for ``mpsref sweep``: the forward by its name, the gradient, by its vjp, as NAME_gradient."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np


def _pair(function: Callable[[Any], Any]) -> tuple[Callable[..., Any], Callable[..., Any]]:
    compiled = jax.jit(function)
    backward = jax.jit(lambda x, upstream: jax.vjp(function, x)[1](upstream)[0])

    def forward(x: Any) -> Any:
        return np.asarray(compiled(x))

    def gradient(x: Any, upstream: Any) -> Any:
        return np.asarray(backward(x, upstream))

    return forward, gradient


sigmoid, sigmoid_gradient = _pair(jax.nn.sigmoid)
tanH, tanH_gradient = _pair(jax.numpy.tanh)
softPlus, softPlus_gradient = _pair(jax.nn.softplus)
softSign, softSign_gradient = _pair(jax.nn.soft_sign)
ELU, ELU_gradient = _pair(jax.nn.elu)
geLU, geLU_gradient = _pair(partial(jax.nn.gelu, approximate=False))
reLU, reLU_gradient = _pair(jax.nn.relu)
pReLU, pReLU_gradient = _pair(partial(jax.nn.leaky_relu, negative_slope=0.25))
reLUN, reLUN_gradient = _pair(jax.nn.relu6)
hardSigmoid, hardSigmoid_gradient = _pair(jax.nn.hard_sigmoid)
absolute, absolute_gradient = _pair(jax.numpy.abs)
power, power_gradient = _pair(lambda x: jax.numpy.power(x, 2.5))
exponential, exponential_gradient = _pair(jax.numpy.exp)
logarithm, logarithm_gradient = _pair(jax.numpy.log)

PARAMETERS = {"hardSigmoid": {"a": 1 / 6}, "reLUN": {"a": 0.0}, "power": {"c": 2.5}}
"""Where they are not those that Apple documents."""
