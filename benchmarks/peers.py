"""
What mpsref is measured against: for every neuron the same function, as its peers have it, in one table.

Expressions are text, so that the page of results shows what ran. `x` is the source, `g` the incoming gradient, `s` the
slopes of pReLU, one a channel, `y` the forward's result, which torch's autograd saves for some backward operations.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.special

import mpsref as mps


@dataclass(frozen=True)
class Peers:
    """One neuron: the parameters that are measured, and who computes the same."""

    numpy: str
    numpy_gradient: str
    torch: str
    torch_gradient: str
    onnx: tuple[tuple[str, tuple[Any, ...], dict[str, float]], ...]  # operators in a row: name, constants, attributes
    parameters: Mapping[str, float] = field(default_factory=dict)
    torch_from_source: str = ""  # where `torch_gradient` reads y: the same without it
    positive: bool = False  # x must be above 0


PEERS = {
    "none": Peers("x.copy()", "g.copy()", "x.clone()", "g.clone()", (("Identity", (), {}),)),
    "reLU": Peers(
        "np.where(x >= 0, x, 0.1 * x)",
        "np.where(x >= 0, g, 0.1 * g)",
        "F.leaky_relu(x, 0.1)",
        "aten.leaky_relu_backward(g, x, 0.1, False)",
        (("LeakyRelu", (), {"alpha": 0.1}),),
        {"a": 0.1},
    ),
    "linear": Peers(
        "1.5 * x - 0.25",
        "1.5 * g",
        "x.mul(1.5).add_(-0.25)",
        "g.mul(1.5)",
        (("Mul", (1.5,), {}), ("Add", (-0.25,), {})),
        {"a": 1.5, "b": -0.25},
    ),
    "sigmoid": Peers(
        "1 / (1 + np.exp(-x))",
        "g * (e := np.exp(-np.abs(x))) / (1 + e) ** 2",
        "torch.sigmoid(x)",
        "aten.sigmoid_backward(g, y)",
        (("Sigmoid", (), {}),),
        torch_from_source="aten.sigmoid_backward(g, torch.sigmoid(x))",
    ),
    "hardSigmoid": Peers(
        "np.clip(0.2 * x + 0.5, 0, 1)",
        "np.where(np.abs(0.2 * x) <= 0.5, 0.2 * g, 0)",
        "x.mul(0.2).add_(0.5).clamp_(0, 1)",
        "aten.hardtanh_backward(g, x, -2.5, 2.5).mul_(0.2)",
        (("HardSigmoid", (), {"alpha": 0.2, "beta": 0.5}),),
        {"a": 0.2, "b": 0.5},
    ),
    "tanH": Peers(
        "np.tanh(x)",
        "g * (1 - np.tanh(x) ** 2)",
        "torch.tanh(x)",
        "aten.tanh_backward(g, y)",
        (("Tanh", (), {}),),
        {"a": 1, "b": 1},
        torch_from_source="aten.tanh_backward(g, torch.tanh(x))",
    ),
    "absolute": Peers(
        "np.abs(x)",
        "g * np.sign(x)",
        "torch.abs(x)",
        "x.sgn().mul_(g)",
        (("Abs", (), {}),),
    ),
    "softPlus": Peers(
        "np.log1p(np.exp(-np.abs(x))) + np.maximum(x, 0)",
        "g / (1 + np.exp(-x))",
        "F.softplus(x)",
        "aten.softplus_backward(g, x, 1, 20)",
        (("Softplus", (), {}),),
        {"a": 1, "b": 1},
    ),
    "softSign": Peers(
        "x / (1 + np.abs(x))",
        "g / (1 + np.abs(x)) ** 2",
        "F.softsign(x)",
        "g / x.abs().add_(1).square_()",
        (("Softsign", (), {}),),
    ),
    "ELU": Peers(
        "np.where(x >= 0, x, np.exp(np.minimum(x, 0)) - 1)",
        "g * np.exp(np.minimum(x, 0))",
        "F.elu(x)",
        "aten.elu_backward(g, 1, 1, 1, False, x)",
        (("Elu", (), {"alpha": 1.0}),),
        {"a": 1},
    ),
    "pReLU": Peers(
        "np.where(x >= 0, x, s * x)",
        "np.where(x >= 0, g, s * g)",
        "aten._prelu_kernel(x, s)",
        "aten._prelu_kernel_backward(g, x, s)[0]",
        (("PRelu", ("s",), {}),),
    ),
    "reLUN": Peers(
        "np.minimum(np.maximum(x, 0), 6)",
        "np.where((x >= 0) & (x < 6), g, 0)",
        "F.hardtanh(x, 0, 6)",
        "aten.hardtanh_backward(g, x, 0, 6)",
        (("Clip", (0, 6), {}),),
        {"a": 0, "b": 6},
    ),
    "power": Peers(
        "x ** 1.7",
        "g * 1.7 * x ** 0.7",
        "torch.pow(x, 1.7)",
        "x.pow(0.7).mul_(1.7).mul_(g)",
        (("Pow", (1.7,), {}),),
        {"a": 1, "b": 0, "c": 1.7},
        positive=True,
    ),
    "exponential": Peers(
        "np.exp(x)",
        "g * np.exp(x)",
        "torch.exp(x)",
        "g * y",
        (("Exp", (), {}),),
        {"a": 1, "b": 0, "c": -1},
        torch_from_source="x.exp().mul_(g)",
    ),
    "logarithm": Peers(
        "np.log(x)",
        "g / x",
        "torch.log(x)",
        "g / x",
        (("Log", (), {}),),
        {"a": 1, "b": 0, "c": -1},
        positive=True,
    ),
    "geLU": Peers(
        "0.5 * x * (1 + erf(x / 2**0.5).astype(x.dtype, copy=False))",
        "g * (0.5 * (1 + erf(x / 2**0.5).astype(x.dtype, copy=False)) + x * np.exp(-0.5 * x * x) / (2 * np.pi) ** 0.5)",
        "F.gelu(x)",
        "aten.gelu_backward(g, x, approximate='none')",
        (("Gelu", (), {}),),
    ),
}

Call = Callable[[], Any]
Modules = Mapping[str, Any]


def load() -> tuple[dict[str, Any], dict[str, str]]:
    """The peers that can be imported, at one thread each, and why the others cannot."""
    found, missing = {}, {}
    for name in ("torch", "onnx", "onnxruntime"):
        try:
            found[name] = importlib.import_module(name)
            if name == "onnx":
                importlib.import_module("onnx.reference")
        except (ImportError, OSError) as error:
            found.pop(name, None)
            missing[name] = str(error).splitlines()[0] if str(error) else type(error).__name__
    if "torch" in found:
        found["torch"].set_num_threads(1)
    if "onnx" not in found and "onnxruntime" in found:
        del found["onnxruntime"]
        missing["onnxruntime"] = "its models are made with onnx, which is missing"
    return found, missing


def descriptor(name: str, channels: int) -> mps.MPSNNNeuronDescriptor:
    """The neuron with the parameters that are measured."""
    neuron_type = mps.MPSCNNNeuronType[name]
    per_channel = mps.NEURONS[neuron_type].per_channel
    return mps.MPSNNNeuronDescriptor(
        neuron_type, **PEERS[name].parameters, data=slopes(channels) if per_channel else None
    )


def slopes(channels: int) -> np.ndarray:
    """For pReLU."""
    return np.linspace(0.05, 0.3, channels).astype(np.float32)


def data(name: str, shape: tuple[int, ...], dtype: type) -> tuple[np.ndarray, np.ndarray]:
    """x, from N(0, 2), or its absolute value + 0.5 where x must be positive; and g, from N(0, 1)."""
    random = np.random.default_rng(0)
    x, g = random.normal(0, 2, shape), random.normal(0, 1, shape)
    return (np.abs(x) + 0.5 if PEERS[name].positive else x).astype(dtype), g.astype(dtype)


def forwards(name: str, x: np.ndarray, modules: Modules) -> dict[str, Call]:
    """Everyone's forward; mpsref's first."""
    d, s, peers = descriptor(name, x.shape[-1]), slopes(x.shape[-1]).astype(x.dtype), PEERS[name]
    calls: dict[str, Call] = {"mpsref": lambda: mps.neuron.forward(d, x)}
    if "torch" in modules:
        torch_call = _torch(modules["torch"], peers.torch)
        tensors = [modules["torch"].from_numpy(array) for array in (x, x, x, s)]
        calls["torch"] = lambda: torch_call(*tensors)
    if "onnx" in modules:
        model = _model(modules["onnx"], name, s)
        reference = modules["onnx"].reference.ReferenceEvaluator(model)
        if "onnxruntime" in modules and x.dtype == np.float32:
            session = _session(modules["onnxruntime"], model)
            calls["onnxruntime"] = lambda: session.run(None, {"x": x})[0]
        calls["onnx.reference"] = lambda: reference.run(None, {"x": x})[0]
    numpy_call = _numpy(peers.numpy)
    calls[f"numpy {x.dtype}"] = lambda: numpy_call(x, x, x, s)
    if x.dtype == np.float32:
        s64 = s.astype(np.float64)
        calls["numpy float64"] = lambda: numpy_call(x.astype(np.float64), x, x, s64).astype(x.dtype)
    out = np.empty_like(x)
    calls["memcpy"] = lambda: np.copyto(out, x)
    return calls


def gradients(name: str, x: np.ndarray, g: np.ndarray, modules: Modules) -> dict[str, Call]:
    """Everyone's gradient; mpsref's first."""
    d, s, peers = descriptor(name, x.shape[-1]), slopes(x.shape[-1]).astype(x.dtype), PEERS[name]
    calls: dict[str, Call] = {"mpsref": lambda: mps.neuron.gradient(d, x, g)}
    if "torch" in modules:
        tx, tg, ts = (modules["torch"].from_numpy(array) for array in (x, g, s))
        ty = _torch(modules["torch"], peers.torch)(tx, tg, tx, ts)
        backward = _torch(modules["torch"], peers.torch_gradient)
        calls["torch"] = lambda: backward(tx, tg, ty, ts)
        if peers.torch_from_source:
            from_source = _torch(modules["torch"], peers.torch_from_source)
            calls["torch from x"] = lambda: from_source(tx, tg, tx, ts)
    numpy_call = _numpy(peers.numpy_gradient)
    calls[f"numpy {x.dtype}"] = lambda: numpy_call(x, g, x, s)
    if x.dtype == np.float32:
        s64 = s.astype(np.float64)
        calls["numpy float64"] = lambda: numpy_call(x.astype(np.float64), g.astype(np.float64), x, s64).astype(x.dtype)
    return calls


def shown(name: str) -> dict[str, str]:
    """The table's row as text."""
    peers = PEERS[name]
    operators = (
        op + "".join(f" {key}={value}" for key, value in attributes.items()) for op, _, attributes in peers.onnx
    )
    return {
        "parameters": ", ".join(f"{key} = {value}" for key, value in peers.parameters.items()),
        "numpy": peers.numpy,
        "numpy gradient": peers.numpy_gradient,
        "torch": peers.torch,
        "torch gradient": peers.torch_gradient,
        "torch from x": peers.torch_from_source,
        "onnx": ", ".join(operators),
    }


def _numpy(expression: str) -> Callable[..., Any]:
    return _function(expression, {"np": np, "erf": scipy.special.erf})


def _torch(torch: Any, expression: str) -> Callable[..., Any]:
    return _function(expression, {"torch": torch, "F": torch.nn.functional, "aten": torch.ops.aten})


def _function(expression: str, names: dict[str, Any]) -> Callable[..., Any]:
    return eval(f"lambda x, g, y, s: {expression}", names)  # noqa: S307  the table above is all that comes here


def _model(onnx: Any, name: str, s: np.ndarray) -> Any:
    """The operators in a row, in the dtype of the slopes."""
    nodes, initializers, read = [], [], "x"
    for i, (operator, constants, attributes) in enumerate(PEERS[name].onnx):
        inputs = [read]
        for k, constant in enumerate(constants):
            value = s if isinstance(constant, str) else np.array(constant, s.dtype)
            inputs.append(f"c{i}.{k}")
            initializers.append(onnx.numpy_helper.from_array(value, inputs[-1]))
        read = f"y{i}"
        nodes.append(onnx.helper.make_node(operator, inputs, [read], **attributes))
    element = onnx.helper.np_dtype_to_tensor_dtype(s.dtype)
    x, y = (onnx.helper.make_tensor_value_info(label, element, [None] * 4) for label in ("x", read))
    graph = onnx.helper.make_graph(nodes, name, [x], [y], initializers)
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)


def _session(onnxruntime: Any, model: Any) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
