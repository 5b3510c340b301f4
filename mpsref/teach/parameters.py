"""
The parameters of a graph's nodes: their values, other values, and the gradients with respect to them.

They are named after the node's result: ``h.a``, ``h.b``, ``h.c`` and ``h.data``, the slopes of pReLU; of an arithmetic
node ``h.primary_scale``, ``h.secondary_scale`` and ``h.bias``; and of a layer ``h.weights`` and ``h.biases``.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import special

from mpsref.arguments import checked
from mpsref.arrays import Wide
from mpsref.errors import ParameterError, SourceError
from mpsref.executor import MPSNNGraph
from mpsref.graph.nodes import MPSNNFilterNode
from mpsref.neuron.descriptor import MPSNNNeuronDescriptor, float32_parameter
from mpsref.operations import Arithmetic, Convolution, NeuronForward, Operation, Product, Sum
from mpsref.operations.weights import ArrayDataSource, weights_of
from mpsref.teach.step import Step
from mpsref.teach.trees import Tree, parameter_tree

__all__ = ["parameters", "parameters_of", "slopes_by_parameter", "total", "with_parameters"]

Value: TypeAlias = "float | npt.NDArray[Any]"
SCALES = ("primary_scale", "secondary_scale")
ARRAYS = ("data", "weights", "biases")


def parameters_of(operation: Operation) -> dict[str, Value]:
    """The parameters of an operation that have gradients, by name."""
    if isinstance(operation, NeuronForward):
        d = operation.neuron
        return dict(d.parameters) if d.data is None else {"data": d.data}
    if isinstance(operation, Arithmetic):
        return {**dict(zip(SCALES, operation.scales, strict=True)), "bias": operation.bias}
    if isinstance(operation, Convolution):
        w = operation.weights
        return {"weights": w.values} if w.bias is None else {"weights": w.values, "biases": w.bias}
    return {}


def _with(operation: Operation, values: Mapping[str, Any]) -> Operation:
    """The operation with other values of some parameters."""
    numbers = {name: _number(name, value) for name, value in values.items() if name not in ARRAYS}
    if isinstance(operation, NeuronForward):
        d = operation.neuron
        return NeuronForward(MPSNNNeuronDescriptor(d.neuron_type, **{**parameters_of(operation), **values, **numbers}))
    if isinstance(operation, Convolution):
        arrays = parameters_of(operation)
        weights = np.asarray(values.get("weights", arrays["weights"])).astype(operation.weights.values.dtype)
        biases = values.get("biases", arrays.get("biases"))
        return operation.with_weights(weights_of(ArrayDataSource(operation.weights.descriptor(), weights, biases)))
    assert isinstance(operation, Arithmetic)
    first, second = (numbers.get(name, scale) for name, scale in zip(SCALES, operation.scales, strict=True))
    return replace(operation, scales=(first, second), bias=numbers.get("bias", operation.bias))


def _number(name: str, value: Any) -> float:
    # A number may be an array without axes.
    return float32_parameter(name, value.item() if isinstance(value, np.ndarray) and value.ndim == 0 else value)


def _named(graph: MPSNNGraph) -> Iterator[tuple[str, MPSNNFilterNode, Operation]]:
    for step in graph.plan.steps:
        yield graph.plan.names[step.result], step.node, step.operation


@checked
def parameters(graph: MPSNNGraph) -> dict[str, Value]:
    """
    The parameters of a graph's nodes by name.

    Parameters
    ----------
    graph : MPSNNGraph
        The graph.

    Returns
    -------
    dict of str to float or ndarray
        The slopes of pReLU are an array, and so are the weights of layers, of shape (O, kH, kW, I / groups).

    Examples
    --------
    >>> from mpsref import teach
    >>> y = teach.tanh(teach.input("x"), b=0.75)
    >>> teach.parameters(y.graph())
    {'y.a': 1.0, 'y.b': 0.75}
    """
    return {
        f"{name}.{own}": value
        for name, _, operation in _named(graph)
        for own, value in parameters_of(operation).items()
    }  # fmt: skip


@checked
def with_parameters(graph: MPSNNGraph, values: Mapping[str, npt.ArrayLike]) -> MPSNNGraph:
    """
    A graph with other parameters, which shares everything else: nothing is built again.

    Parameters
    ----------
    graph : MPSNNGraph
        The graph, which stays as it is; so do its nodes.
    values : mapping of str to float or array_like
        New values by the names of `parameters`; gradient nodes use those of their forward node.

    Returns
    -------
    MPSNNGraph

    Raises
    ------
    SourceError
        There is no parameter of that name.
    ParameterError
        A value is not finite as a float32.

    Examples
    --------
    >>> from mpsref import teach
    >>> graph = teach.relu(teach.input("x")).graph()
    >>> teach.with_parameters(graph, {"y.a": 0.5}).run(x=-3)["y"].to_array().item()
    -1.5
    """
    rest = dict(values)
    operations: dict[MPSNNFilterNode, Operation] = {}
    for name, node, operation in _named(graph):
        if own := {key: rest.pop(f"{name}.{key}") for key in parameters_of(operation) if f"{name}.{key}" in rest}:
            try:
                operations[node] = _with(operation, own)
            except ParameterError as error:
                raise ParameterError(f"{name}: {error}") from None
    if rest:
        known = ", ".join(map(repr, parameters(graph))) or "none"
        raise SourceError(f"no node has the parameter {next(iter(rest))!r}: there are {known}")
    return graph.with_operations(operations)


# ---- gradients ----


def slopes_by_parameter(step: Step) -> dict[str, Wide]:
    """How much each element of a step's result changes with each parameter, before storage; a clamp is ignored."""
    operation = step.operation
    x, *others = step.sources
    if isinstance(operation, NeuronForward):
        d = operation.neuron
        with np.errstate(all="ignore"):
            return {
                name: np.broadcast_to(_value(parameter_tree(d.row, name), x, d), x.shape)
                for name in parameters_of(operation)
            }
    if isinstance(operation, Product):
        (first, second), product = operation.scales, x * others[0]
        return {SCALES[0]: second * product, SCALES[1]: first * product, "bias": np.ones(x.shape)}
    if isinstance(operation, Sum):
        return {SCALES[0]: x, SCALES[1]: operation.sign * others[0], "bias": np.ones(x.shape)}
    return {}


def total(values: Wide) -> float:
    """The sum, rounded once."""
    try:
        return math.fsum(values.ravel().tolist())
    except (OverflowError, ValueError):
        with np.errstate(all="ignore"):
            return float(np.sum(values))


def _power(u: Any, c: Any) -> Any:
    return np.power(u, c)


def _power_log(u: Any, c: Any) -> Any:
    """``u^c ln u``, with its limit at 0."""
    return np.where((u == 0) & (c > 0), 0.0, np.power(u, c) * np.log(u))


def _sech2(u: Any) -> Any:
    return 4 * special.expit(2 * u) * special.expit(-2 * u)


def _log_base(c: float) -> float:
    return math.log(c) if c > 0 and c != 1 else math.nan


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "/": np.divide, "neg": operator.neg, "abs": abs,
    "<": operator.lt, "<=": operator.le, ">=": operator.ge, "===": operator.eq, "where": np.where,
    "smaller": np.minimum, "larger": np.maximum, "affine": lambda a, x, b: a * x + b,
    "exp": np.exp, "expm1": np.expm1, "tanh": np.tanh, "sech2": _sech2, "softplus": lambda u: np.logaddexp(0.0, u),
    "logistic": special.expit, "power": _power, "powLog": _power_log, "logBase": _log_base,
    "logAffine": lambda a, x, b: np.log(a * x + b),
}  # fmt: skip
"""The functions of `parameter_tree`, in float64."""


def _value(tree: Tree, x: Wide, d: MPSNNNeuronDescriptor) -> Any:
    if not isinstance(tree, tuple):
        return tree
    operation, *operands = tree
    if operation == "x":
        return x
    if operation == "p":
        return np.float64(getattr(d, operands[0]))
    return _FUNCTIONS[operation](*(_value(operand, x, d) for operand in operands))
