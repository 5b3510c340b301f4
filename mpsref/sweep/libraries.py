"""Activations of libraries by name, such as ``torch:gelu``: what they should compute, and how they are called."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pkgutil import resolve_name
from typing import Any, TypeAlias

import numpy as np

from mpsref.arrays import Stored
from mpsref.errors import DependencyError, ImplementationError, ParameterError
from mpsref.neuron.descriptor import MPSNNNeuronDescriptor, neuron_of
from mpsref.sweep.autodiff import forward_of, gradient_of

__all__ = ["ACTIVATIONS", "DERIVING", "LIBRARIES", "Activation", "Adapter", "adapter", "names_of"]

Call: TypeAlias = Callable[[], Any]
"""Imports a library's function; of LiteRT, an operator and its options."""


def _call(where: str, **arguments: Any) -> Call:
    """The function at ``module:attribute``, called with these arguments besides its input."""
    return lambda: partial(resolve_name(where), **arguments) if arguments else resolve_name(where)


def _operator(name: str, **options: Any) -> Call:
    return lambda: (name, options)


def _power(x: Any) -> Any:
    return x**2.5


@dataclass(frozen=True)
class Activation:
    """
    An activation that libraries have.

    Attributes
    ----------
    neuron : str
        The neuron that it is.
    parameters : Mapping of str to float
        The neuron's, where they are not the documented ones.
    calls : Mapping of str to callable
        By library, what imports its function.
    """

    neuron: str
    parameters: Mapping[str, float]
    calls: Mapping[str, Call]


def _activation(
    neuron: str, parameters: Mapping[str, float] | None = None, *, litert: Call | None = None, **calls: Call
) -> Activation:
    return Activation(neuron, parameters or {}, calls if litert is None else {**calls, "ai-edge-litert": litert})


ACTIVATIONS = {
    "relu": _activation(
        "reLU",
        torch=_call("torch:relu"),
        jax=_call("jax.nn:relu"),
        mlx=_call("mlx.nn:relu"),
        tensorflow=_call("tensorflow:nn.relu"),
        openvino=_call("openvino.opset15:relu"),
        litert=_operator("RELU"),
    ),
    "leaky_relu": _activation(
        "reLU",
        {"a": 0.25},
        torch=_call("torch.nn.functional:leaky_relu", negative_slope=0.25),
        jax=_call("jax.nn:leaky_relu", negative_slope=0.25),
        mlx=_call("mlx.nn:leaky_relu", negative_slope=0.25),
        tensorflow=_call("tensorflow:nn.leaky_relu", alpha=0.25),
        litert=_operator("LEAKY_RELU", alpha=0.25),
    ),
    "relu6": _activation(
        "reLUN",
        {"a": 0.0},
        torch=_call("torch.nn.functional:relu6"),
        jax=_call("jax.nn:relu6"),
        mlx=_call("mlx.nn:relu6"),
        tensorflow=_call("tensorflow:nn.relu6"),
        openvino=_call("openvino.opset15:clamp", min_value=0.0, max_value=6.0),
        litert=_operator("RELU6"),
    ),
    "elu": _activation(
        "ELU",
        torch=_call("torch.nn.functional:elu"),
        jax=_call("jax.nn:elu"),
        mlx=_call("mlx.nn:elu"),
        tensorflow=_call("tensorflow:nn.elu"),
        openvino=_call("openvino.opset15:elu", alpha=1.0),
        litert=_operator("ELU"),
    ),
    "sigmoid": _activation(
        "sigmoid",
        torch=_call("torch:sigmoid"),
        jax=_call("jax.nn:sigmoid"),
        mlx=_call("mlx.core:sigmoid"),
        tensorflow=_call("tensorflow:nn.sigmoid"),
        openvino=_call("openvino.opset15:sigmoid"),
        litert=_operator("LOGISTIC"),
    ),
    "hard_sigmoid": _activation(
        "hardSigmoid",
        {"a": 1 / 6},
        torch=_call("torch.nn.functional:hardsigmoid"),
        jax=_call("jax.nn:hard_sigmoid"),
    ),
    "tanh": _activation(
        "tanH",
        torch=_call("torch:tanh"),
        jax=_call("jax.numpy:tanh"),
        mlx=_call("mlx.core:tanh"),
        tensorflow=_call("tensorflow:math.tanh"),
        openvino=_call("openvino.opset15:tanh"),
        litert=_operator("TANH"),
    ),
    "softplus": _activation(
        "softPlus",
        torch=_call("torch.nn.functional:softplus"),
        jax=_call("jax.nn:softplus"),
        mlx=_call("mlx.nn:softplus"),
        tensorflow=_call("tensorflow:math.softplus"),
        openvino=_call("openvino.opset15:softplus"),
    ),
    "softsign": _activation(
        "softSign",
        torch=_call("torch.nn.functional:softsign"),
        jax=_call("jax.nn:soft_sign"),
        mlx=_call("mlx.nn:softsign"),
        tensorflow=_call("tensorflow:nn.softsign"),
        openvino=_call("openvino.opset15:softsign"),
    ),
    "gelu": _activation(
        "geLU",
        torch=_call("torch.nn.functional:gelu"),
        jax=_call("jax.nn:gelu", approximate=False),
        mlx=_call("mlx.nn:gelu"),
        tensorflow=_call("tensorflow:nn.gelu"),
        openvino=_call("openvino.opset15:gelu", approximation_mode="erf"),
        litert=_operator("GELU", approximate=False),
    ),
    "abs": _activation(
        "absolute",
        torch=_call("torch:abs"),
        jax=_call("jax.numpy:abs"),
        mlx=_call("mlx.core:abs"),
        tensorflow=_call("tensorflow:math.abs"),
        openvino=_call("openvino.opset15:abs"),
        litert=_operator("ABS"),
    ),
    "exp": _activation(
        "exponential",
        torch=_call("torch:exp"),
        jax=_call("jax.numpy:exp"),
        mlx=_call("mlx.core:exp"),
        tensorflow=_call("tensorflow:math.exp"),
        openvino=_call("openvino.opset15:exp"),
        litert=_operator("EXP"),
    ),
    "log": _activation(
        "logarithm",
        torch=_call("torch:log"),
        jax=_call("jax.numpy:log"),
        mlx=_call("mlx.core:log"),
        tensorflow=_call("tensorflow:math.log"),
        openvino=_call("openvino.opset15:log"),
        litert=_operator("LOG"),
    ),
    "silu": _activation(
        "silu",
        torch=_call("torch.nn.functional:silu"),
        jax=_call("jax.nn:silu"),
        mlx=_call("mlx.nn:silu"),
        tensorflow=_call("tensorflow:nn.silu"),
    ),
    "quick_gelu": _activation("quick_gelu", mlx=_call("mlx.nn:gelu_fast_approx")),
    "gelu_tanh": _activation(
        "gelu_tanh",
        torch=_call("torch.nn.functional:gelu", approximate="tanh"),
        jax=_call("jax.nn:gelu", approximate=True),
        mlx=_call("mlx.nn:gelu_approx"),
        tensorflow=_call("tensorflow:nn.gelu", approximate=True),
    ),
    "mish": _activation(
        "mish",
        torch=_call("torch.nn.functional:mish"),
        jax=_call("jax.nn:mish"),
        mlx=_call("mlx.nn:mish"),
        tensorflow=_call("tensorflow:keras.activations.mish"),
    ),
    "hardswish": _activation(
        "hardswish",
        torch=_call("torch.nn.functional:hardswish"),
        jax=_call("jax.nn:hard_swish"),
        mlx=_call("mlx.nn:hardswish"),
        tensorflow=_call("tensorflow:keras.activations.hard_swish"),
    ),
    "hardsigmoid": _activation(
        "hardsigmoid",
        torch=_call("torch.nn.functional:hardsigmoid"),
        jax=_call("jax.nn:hard_sigmoid"),
        tensorflow=_call("tensorflow:keras.activations.hard_sigmoid"),
    ),
    "selu": _activation(
        "selu",
        torch=_call("torch:selu"),
        jax=_call("jax.nn:selu"),
        mlx=_call("mlx.nn:selu"),
        tensorflow=_call("tensorflow:nn.selu"),
    ),
    "celu": _activation(
        "celu",
        torch=_call("torch:celu"),
        jax=_call("jax.nn:celu"),
        mlx=_call("mlx.nn:celu"),
        tensorflow=_call("tensorflow:keras.activations.celu"),
    ),
    "logsigmoid": _activation(
        "logsigmoid",
        torch=_call("torch.nn.functional:logsigmoid"),
        jax=_call("jax.nn:log_sigmoid"),
        mlx=_call("mlx.nn:log_sigmoid"),
        tensorflow=_call("tensorflow:math.log_sigmoid"),
    ),
    "relu_squared": _activation("relu_squared", mlx=_call("mlx.nn:relu2")),
    "tanhshrink": _activation(
        "tanhshrink",
        torch=_call("torch.nn.functional:tanhshrink"),
        tensorflow=_call("tensorflow:keras.activations.tanh_shrink"),
    ),
    "softshrink": _activation(
        "softshrink",
        torch=_call("torch.nn.functional:softshrink"),
        mlx=_call("mlx.nn:softshrink"),
        tensorflow=_call("tensorflow:keras.activations.soft_shrink"),
    ),
    "hardshrink": _activation(
        "hardshrink",
        torch=_call("torch.nn.functional:hardshrink"),
        mlx=_call("mlx.nn:hard_shrink"),
        tensorflow=_call("tensorflow:keras.activations.hard_shrink"),
    ),
    "pow": _activation("power", {"c": 2.5}, **dict.fromkeys(("torch", "jax", "mlx", "tensorflow"), lambda: _power)),
}
"""The table: a row for each activation, with the call of each library that has it."""


@dataclass(frozen=True)
class Adapter:
    """
    An activation of a library, as an implementation.

    Attributes
    ----------
    library : str
        Its name, which is the package's.
    name : str
        The name of the activation.
    device : str, optional
        Of the library, such as ``mps``.
    """

    library: str
    name: str
    device: str | None = None

    @property
    def descriptor(self) -> MPSNNNeuronDescriptor:
        """What it should compute."""
        row = ACTIVATIONS[self.name]
        return neuron_of(row.neuron, row.parameters)

    @property
    def packages(self) -> tuple[str, ...]:
        """Packages whose versions say which implementation it is."""
        return (self.library, "jaxlib") if self.library == "jax" else (self.library,)

    def function(self) -> Callable[..., Any]:
        """
        The function of arrays of numpy: the value of one, or the gradient of an input and its incoming gradient.

        Raises
        ------
        DependencyError
            The library is not installed.
        """
        try:
            called = ACTIVATIONS[self.name].calls[self.library]()
            forward, gradient = LIBRARIES[self.library](called, self.library, self.device)
        except ImportError as error:
            raise DependencyError(
                f"{self.library}:{self.name}: {self.library} cannot be imported ({error}): pip install {self.library}"
            ) from error

        def function(*arrays: Stored) -> Any:
            return forward(*arrays) if len(arrays) == 1 else gradient(*arrays)

        return function


def adapter(name: str) -> Adapter | None:
    """
    The adapter of ``LIBRARY:ACTIVATION`` or ``LIBRARY@DEVICE:ACTIVATION``, or None if there is none of that name.

    Examples
    --------
    >>> from mpsref.sweep.libraries import adapter
    >>> adapter("torch@mps:gelu").descriptor
    MPSNNNeuronDescriptor(MPSCNNNeuronType.geLU)
    """
    where, _, activation = name.rpartition(":")
    library, _, device = where.partition("@")
    if activation in ACTIVATIONS and library in ACTIVATIONS[activation].calls:
        return Adapter(library, activation, device or None)
    return None


def names_of(library: str) -> str:
    """What an error adds of a library of the table: its activations."""
    names = [name for name, row in ACTIVATIONS.items() if library.partition("@")[0] in row.calls]
    return f"; its activations: {', '.join(names)}" if names else ""


# ---- how a library is called ----


def _derived(function: Any, library: str, device: str | None) -> tuple[Callable[..., Any], Callable[..., Any]]:
    compiled = import_module("jax").jit(function) if library == "jax" else function
    return forward_of(compiled, library, device=device), gradient_of(function, library, device=device)


def _openvino(function: Any, library: str, device: str | None) -> tuple[Callable[..., Any], Callable[..., Any]]:
    openvino, operations = import_module("openvino"), import_module("openvino.opset15")
    compiled: dict[Any, Any] = {}

    def forward(x: Stored) -> Any:
        if x.dtype not in compiled:
            source = operations.parameter([-1], x.dtype.type)
            model = openvino.Model([function(source)], [source], "activation")
            # By default it may compute in another precision than that of its arrays.
            precision = {"INFERENCE_PRECISION_HINT": f"f{8 * x.itemsize}"}
            compiled[x.dtype] = openvino.Core().compile_model(model, device or "CPU", precision)
        return np.asarray(compiled[x.dtype](x.reshape(-1))[0]).reshape(x.shape)

    return forward, partial(_no_gradient, library)


def _litert(operator: Any, library: str, device: str | None) -> tuple[Callable[..., Any], Callable[..., Any]]:
    if device is not None:
        raise ParameterError(f"device is {device!r}: {library} runs on the processor, leave it out")
    interpreter = import_module("ai_edge_litert.interpreter").Interpreter

    def forward(x: Stored) -> Any:
        model = interpreter(model_content=_litert_model(operator[0], operator[1], x), num_threads=1)
        model.allocate_tensors()
        model.set_tensor(0, x.reshape(-1))
        model.invoke()
        return model.get_tensor(1).reshape(x.shape)

    return forward, partial(_no_gradient, library)


def _litert_model(operator: str, options: Mapping[str, Any], x: Stored) -> bytes:
    """A model of one operator for arrays of this size, as the file would be."""
    schema, flatbuffers = import_module("ai_edge_litert.schema_py_generated"), import_module("flatbuffers")
    code, node, graph, model = schema.OperatorCodeT(), schema.OperatorT(), schema.SubGraphT(), schema.ModelT()
    code.builtinCode = getattr(schema.BuiltinOperator, operator)
    code.deprecatedBuiltinCode = min(code.builtinCode, 127)
    node.inputs, node.outputs = [0], [1]
    if options:
        kind = operator.title().replace("_", "") + "Options"
        node.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
        node.builtinOptions = getattr(schema, f"{kind}T")()
        for name, value in options.items():
            setattr(node.builtinOptions, name, value)
    graph.tensors = [schema.TensorT(), schema.TensorT()]
    for tensor in graph.tensors:
        tensor.shape, tensor.type = [x.size], getattr(schema.TensorType, x.dtype.name.upper())
    graph.operators, graph.inputs, graph.outputs = [node], [0], [1]
    model.version, model.operatorCodes, model.buffers, model.subgraphs = 3, [code], [schema.BufferT()], [graph]
    builder = flatbuffers.Builder(0)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _no_gradient(library: str, *_: Stored) -> Any:
    raise ImplementationError(f"{library} derives no gradients: take the forward direction")


DERIVING = ("torch", "jax", "mlx", "tensorflow")
"""Those that derive gradients."""

LIBRARIES: Mapping[str, Callable[..., tuple[Callable[..., Any], Callable[..., Any]]]] = {
    **dict.fromkeys(DERIVING, _derived),
    "openvino": _openvino,
    "ai-edge-litert": _litert,
}
"""The libraries, and what makes forward and gradient of a function of theirs."""
