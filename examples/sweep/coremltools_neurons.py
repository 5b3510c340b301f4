"""
Neurons of coremltools, for ``mpsref sweep``: what its compiler folds constants with, in numpy.

It is not Core ML, which runs on Apple's systems only; but what is constant in a model is computed like this.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from coremltools.converters.mil import Builder


def _folded(name: str, **parameters: float) -> Callable[..., Any]:
    def forward(x: Any) -> Any:
        given = {key: x.dtype.type(value) for key, value in parameters.items()}
        found = []

        @Builder.program(input_specs=[])  # type: ignore[untyped-decorator]
        def program() -> Any:
            y = getattr(Builder, name)(x=Builder.const(val=x), **given)
            found.append(y.val)
            return y

        return np.asarray(found[0], x.dtype)

    return forward


reLU, sigmoid, tanH, softPlus, softSign, geLU, absolute, exponential, logarithm = map(
    _folded, ["relu", "sigmoid", "tanh", "softplus", "softsign", "gelu", "abs", "exp", "log"]
)
ELU = _folded("elu", alpha=1.0)
pReLU = _folded("leaky_relu", alpha=0.25)
hardSigmoid = _folded("sigmoid_hard", alpha=0.2, beta=0.5)
reLUN = _folded("relu6")

PARAMETERS = {"reLUN": {"a": 0.0}}
"""Where they are not those that Apple documents."""
