"""Neurons of ONNX Runtime, for ``mpsref sweep``: one operator each, in float32."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime
from onnx import TensorProto, helper


def _operator(name: str) -> Callable[..., Any]:
    x, y = (helper.make_tensor_value_info(label, TensorProto.FLOAT, [None]) for label in "xy")
    graph = helper.make_graph([helper.make_node(name, ["x"], ["y"])], name, [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def forward(array: Any) -> Any:
        return np.asarray(session.run(None, {"x": array})[0])

    return forward


sigmoid, tanH, softPlus, softSign, ELU, geLU, reLU = map(
    _operator, ["Sigmoid", "Tanh", "Softplus", "Softsign", "Elu", "Gelu", "Relu"]
)
