"""The neurons' formulas as JavaScript, from their trees."""

from __future__ import annotations

from collections.abc import Iterable

from mpsref.neuron.table import Neuron
from mpsref.teach.trees import Tree, derivative_tree, forward_tree, kinks_tree, parameter_tree

__all__ = ["javascript"]


def javascript(rows: Iterable[Neuron]) -> str:
    """
    The members of an object with the forward, its derivatives and the kinks of each row, by the name of its type.

    They call functions of ``explain.js``; ``x`` is the source and ``p`` has the parameters.

    Examples
    --------
    >>> import mpsref as mps
    >>> print(javascript([mps.NEURONS[mps.MPSCNNNeuronType.softPlus]]))
    softPlus: {
      forward: (x, p) => p.a * softplus(p.b * x),
      derivative: (x, p) => p.a * p.b * logistic(p.b * x),
      parameters: { a: (x, p) => softplus(p.b * x), b: (x, p) => p.a * (x * logistic(p.b * x)) },
      kinks: (p) => [],
    },
    """
    return "\n".join(
        f"{row.neuron_type.name}: {{\n"
        f"  forward: (x, p) => {_source(forward_tree(row))},\n"
        f"  derivative: (x, p) => {_source(derivative_tree(row))},\n"
        f"  parameters: {{ {', '.join(_parameters(row))} }},\n"
        f"  kinks: (p) => {_source(kinks_tree(row))},\n"
        "},"
        for row in rows
    )


def _parameters(row: Neuron) -> list[str]:
    names = ["data"] if row.per_channel else row.parameters
    return [f"{name}: (x, p) => {_source(parameter_tree(row, name))}" for name in names]


# ---- writing ----

_PRECEDENCE = {"where": 0, "&&": 1, "===": 2, "!==": 2, "<": 3, "<=": 3, ">": 3, ">=": 3, "+": 4, "-": 4, "*": 5,
               "/": 5, "neg": 6}  # fmt: skip
"""Precedence of operators in JavaScript; anything else is a call or a name."""


def _source(tree: Tree, least: int = 0) -> str:
    """As JavaScript, in parentheses where the precedence is below `least`."""
    if isinstance(tree, float):
        text = repr(tree).removesuffix(".0")
        return f"({text})" if tree < 0 and least > 0 else text
    operation, *operands = tree
    if operation == "x":
        return "x"
    if operation == "p":
        return f"p.{operands[0]}"
    if operation == "list":
        return f"[{', '.join(map(_source, operands))}]"
    precedence = _PRECEDENCE.get(operation)
    if precedence is None:
        name = {"square": "square", "abs": "Math.abs", "log": "Math.log", "exp": "exp"}.get(operation, operation)
        return f"{name}({', '.join(map(_source, operands))})"
    if operation == "where":
        text = f"{_source(operands[0], 1)} ? {_source(operands[1], 1)} : {_source(operands[2])}"
    elif operation == "neg":
        text = f"-{_source(operands[0], precedence)}"
    else:
        left, right = operands
        text = f"{_source(left, precedence)} {operation} {_source(right, precedence + 1)}"
    return f"({text})" if precedence < least else text
