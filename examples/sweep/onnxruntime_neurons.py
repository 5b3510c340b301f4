"""Neurons of ONNX Runtime, for ``mpsref sweep``: one operator each, in float32 and float16."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime
from onnx import TensorProto, helper

TYPES = {np.dtype(np.float32): TensorProto.FLOAT, np.dtype(np.float16): TensorProto.FLOAT16}


def _session(name: str, dtype: Any, **attributes: float) -> onnxruntime.InferenceSession:
    x, y = (helper.make_tensor_value_info(label, TYPES[dtype], [None]) for label in "xy")
    graph = helper.make_graph([helper.make_node(name, ["x"], ["y"], **attributes)], name, [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _operator(name: str, **attributes: float) -> Callable[..., Any]:
    sessions: dict[Any, onnxruntime.InferenceSession] = {}

    def forward(array: Any) -> Any:
        if array.dtype not in sessions:
            sessions[array.dtype] = _session(name, array.dtype, **attributes)
        return np.asarray(sessions[array.dtype].run(None, {"x": array})[0])

    return forward


sigmoid, tanH, softPlus, softSign, ELU, geLU, reLU, hardSigmoid, absolute, exponential, logarithm = map(
    _operator,
    [
        "Sigmoid",
        "Tanh",
        "Softplus",
        "Softsign",
        "Elu",
        "Gelu",
        "Relu",
        "HardSigmoid",
        "Abs",
        "Exp",
        "Log",
    ],
)
pReLU = _operator("LeakyRelu", alpha=0.25)
