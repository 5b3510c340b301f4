"""Neurons of PyTorch, for ``mpsref sweep``: the forward by its name, the gradient, by autograd, as NAME_gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

torch.set_num_threads(1)


def _pair(function: Callable[[Any], Any]) -> tuple[Callable[..., Any], Callable[..., Any]]:
    def forward(x: Any) -> Any:
        return function(torch.from_numpy(x)).numpy()

    def gradient(x: Any, upstream: Any) -> Any:
        source = torch.from_numpy(x).requires_grad_()
        function(source).backward(torch.from_numpy(upstream))
        return source.grad.numpy()

    return forward, gradient


sigmoid, sigmoid_gradient = _pair(torch.sigmoid)
tanH, tanH_gradient = _pair(torch.tanh)
softPlus, softPlus_gradient = _pair(functional.softplus)
softSign, softSign_gradient = _pair(functional.softsign)
ELU, ELU_gradient = _pair(functional.elu)
geLU, geLU_gradient = _pair(functional.gelu)
reLU, reLU_gradient = _pair(torch.relu)
pReLU, pReLU_gradient = _pair(lambda x: functional.prelu(x, torch.tensor([0.25], dtype=x.dtype)))
reLUN, reLUN_gradient = _pair(functional.relu6)
hardSigmoid, hardSigmoid_gradient = _pair(functional.hardsigmoid)
absolute, absolute_gradient = _pair(torch.abs)
power, power_gradient = _pair(lambda x: torch.pow(x, 2.5))
exponential, exponential_gradient = _pair(torch.exp)
logarithm, logarithm_gradient = _pair(torch.log)

PARAMETERS = {"hardSigmoid": {"a": 1 / 6}, "reLUN": {"a": 0.0}, "power": {"c": 2.5}}
"""Where they are not those that Apple documents."""
