"""
What other libraries answer at the kinks.

``python docs/lessons/measured/kinks.py`` writes ``kinks.json`` beside itself.

It needs torch, jax, onnx and onnxruntime; the lesson that shows the answers needs none of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np
import onnxruntime
import torch
from jax import nn, numpy
from onnx import TensorProto, helper
from torch.nn import functional

from mpsref.files import write_atomically

PACKAGES = ("torch", "jax", "jaxlib", "onnx", "onnxruntime")

SIXTH = float(np.float32(1) / np.float32(6))
"""The slope of hardsigmoid in torch and JAX, as a float."""

CASES: list[dict[str, Any]] = [
    {
        "neuron": "reLU", "parameters": {}, "at": [0.0, -0.0],
        "torch": {"torch.relu": torch.relu,
                  "torch.maximum(x, 0)": lambda x: torch.maximum(x, torch.zeros_like(x)),
                  "x.clamp(min=0)": lambda x: x.clamp(min=0)},
        "jax": {"jax.nn.relu": nn.relu, "jnp.maximum(x, 0)": lambda x: numpy.maximum(x, 0.0),
                "jnp.where(x >= 0, x, 0)": lambda x: numpy.where(x >= 0, x, 0.0)},
        "onnx": ("Relu", {}),
    },
    {
        "neuron": "reLU", "parameters": {"a": 0.25}, "at": [0.0, -0.0],
        "torch": {"leaky_relu": lambda x: functional.leaky_relu(x, 0.25)},
        "jax": {"jax.nn.leaky_relu": lambda x: nn.leaky_relu(x, 0.25)},
        "onnx": ("LeakyRelu", {"alpha": 0.25}),
    },
    {
        "neuron": "reLUN", "parameters": {"a": 0.0, "b": 6.0}, "at": [0.0, 6.0],
        "torch": {"relu6": functional.relu6},
        "jax": {"jax.nn.relu6": nn.relu6},
        "onnx": ("Clip", {"min": 0.0, "max": 6.0}),
    },
    {
        "neuron": "absolute", "parameters": {}, "at": [0.0, -0.0],
        "torch": {"torch.abs": torch.abs},
        "jax": {"jnp.abs": numpy.abs},
        "onnx": ("Abs", {}),
    },
    {
        "neuron": "hardSigmoid", "parameters": {"a": SIXTH, "b": 0.5}, "at": [-3.0, 3.0],
        "torch": {"hardsigmoid": functional.hardsigmoid},
        "jax": {"jax.nn.hard_sigmoid": nn.hard_sigmoid},
        "onnx": ("HardSigmoid", {"alpha": SIXTH, "beta": 0.5}),
    },
    {
        "neuron": "ELU", "parameters": {"a": 2.0}, "at": [0.0, -0.0],
        "torch": {"elu": lambda x: functional.elu(x, 2.0)},
        "jax": {"jax.nn.elu": lambda x: nn.elu(x, 2.0)},
        "onnx": ("Elu", {"alpha": 2.0}),
    },
]  # fmt: skip


def torch_slope(function: Callable[[Any], Any], x: float) -> float:
    """By autograd."""
    source = torch.tensor([x], dtype=torch.float32, requires_grad=True)
    function(source).sum().backward()
    assert source.grad is not None
    return float(source.grad[0])


def jax_slope(function: Callable[[Any], Any], x: float) -> float:
    """By reverse mode."""
    return float(jax.grad(function)(numpy.float32(x)))


def onnx_value(operator: tuple[str, dict[str, float]], x: float) -> float:
    """The forward, by ONNX Runtime."""
    name, numbers = operator
    source, result = (
        helper.make_tensor_value_info(label, TensorProto.FLOAT, [1]) for label in "xy"
    )
    constants = numbers if name == "Clip" else {}
    node = helper.make_node(name, ["x", *constants], ["y"], **({} if constants else numbers))
    initializers = [
        helper.make_tensor(label, TensorProto.FLOAT, [], [value])
        for label, value in constants.items()
    ]
    graph = helper.make_graph([node], name, [source], [result], initializers)
    return float(_session(graph).run(None, {"x": np.float32([x])})[0][0])


def onnx_refusal() -> str:
    """What ONNX Runtime says of a model with ONNX's Gradient operator, which is a preview."""
    source, result, slope = (
        helper.make_tensor_value_info(label, TensorProto.FLOAT, [1]) for label in ("x", "y", "dx")
    )
    nodes = [
        helper.make_node("Relu", ["x"], ["y"]),
        helper.make_node(
            "Gradient", ["x"], ["dx"], xs=["x"], y="y", domain="ai.onnx.preview.training"
        ),
    ]
    try:
        _session(
            helper.make_graph(nodes, "gradient", [source], [result, slope]),
            ("ai.onnx.preview.training", 1),
        )
    except Exception as error:  # noqa: BLE001, its classes are the library's own
        return type(error).__name__
    return ""


def _session(graph: Any, *more: tuple[str, int]) -> Any:
    opsets = [helper.make_opsetid(*opset) for opset in (("", 20), *more)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def measured() -> dict[str, Any]:
    """All answers, with the versions that gave them."""
    return {
        "versions": {package: version(package) for package in PACKAGES},
        "onnxruntime_on_gradient": onnx_refusal(),
        "kinks": [
            {
                "neuron": case["neuron"],
                "parameters": case["parameters"],
                "x": str(x),
                "torch": {
                    name: torch_slope(function, x) for name, function in case["torch"].items()
                },
                "jax": {name: jax_slope(function, x) for name, function in case["jax"].items()},
                "onnxruntime_forward": {case["onnx"][0]: onnx_value(case["onnx"], x)},
            }
            for case in CASES
            for x in case["at"]
        ],
    }


if __name__ == "__main__":
    text = json.dumps(measured(), indent=1) + "\n"
    write_atomically(Path(__file__).with_suffix(".json"), lambda file: file.write(text.encode()))
