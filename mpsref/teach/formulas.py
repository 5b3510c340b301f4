"""
The neurons' formulas as JavaScript, translated from the rows' stepwise formulas.

A row's formula is recorded as a tree, see `mpsref.symbolic`. A few rules rewrite it so that float64 loses next to
nothing: ``log(1 + e^u)`` overflows, the script's ``softplus``, which replaces it, does not. Where the formula branches
on a parameter, such as whether a base is -1, the script gets a condition.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from mpsref.neuron.table import Neuron
from mpsref.symbolic import Symbol, Tree, recorded, tree_of

__all__ = ["javascript"]

X: Tree = ("x",)


def javascript(rows: Iterable[Neuron]) -> str:
    """
    The members of an object with the forward, derivative and kinks of each row, by the name of its type.

    They call functions of ``explain.js``; ``x`` is the source and ``p`` has the parameters.

    Examples
    --------
    >>> import mpsref as mps
    >>> print(javascript([mps.NEURONS[mps.MPSCNNNeuronType.softPlus]]))
    softPlus: {
      forward: (x, p) => p.a * softplus(p.b * x),
      derivative: (x, p) => p.a * p.b * logistic(p.b * x),
      kinks: (p) => [],
    },
    """
    return "\n".join(
        f"{row.neuron_type.name}: {{\n"
        f"  forward: (x, p) => {_source(_formula(row.stepwise_forward))},\n"
        f"  derivative: (x, p) => {_source(_formula(row.stepwise_derivative))},\n"
        f"  kinks: (p) => {_source(_kinks(row))},\n"
        "},"
        for row in rows
    )


# ---- recording ----


def _formula(formula: Callable[[Any, Any, Any], Any]) -> Tree:
    return _careful(recorded(lambda p, f: tree_of(formula(Symbol(X, f.assumed), p, f))))


def _kinks(row: Neuron) -> Tree:
    kinks: Callable[[Any], tuple[object, ...]] = row.kinks
    return recorded(lambda p, _: ("list", *map(tree_of, kinks(p))))


# ---- rewriting ----


def _careful(tree: Tree) -> Tree:
    """An equal expression in which float64 neither cancels nor overflows; operands are rewritten first."""
    if not isinstance(tree, tuple) or tree[0] in ("x", "p"):
        return tree
    operation, *operands = tree
    operands = [_careful(operand) for operand in operands]
    if operation in "+*" and isinstance(operands[1], float) and not isinstance(operands[0], float):
        operands.reverse()
    return _power(_function((operation, *operands)))


def _function(tree: Tree) -> Tree:
    result = tree
    match tree:
        case ("log", ("+", 1.0, ("exp", u))):
            result = ("softplus", u)
        case ("-", ("exp", u), 1.0):
            result = ("expm1", u)
        case ("/", 1.0, ("+", 1.0, ("exp", u))):
            result = ("logistic", _negative(u))
        case ("/", ("*", k, ("exp", u)), ("+", 1.0, ("exp", v))) if u == v:
            result = ("*", k, ("logistic", u))
        case ("/", ("exp", u), ("square", ("+", 1.0, ("exp", v)))) if u == v:
            result = ("logisticSlope", u)
        case ("fma", ("neg", ("tanh", u)), ("tanh", v), 1.0) if u == v:
            result = ("sech2", u)
        case ("+", 1.0, ("erf", u)):
            result = ("erfc", _negative(u))
        case ("fma", 0.5, ("erfc", u), rest):
            result = ("geluSlope", u, rest)
        case ("fma", ("p", _), ("x",), _):
            # A product of two float32 is exact: only the sum can lose digits.
            result = ("affine", *tree[1:])
        case ("fma", a, b, c):
            result = ("+", ("*", a, b), c)
    return result


def _power(tree: Tree) -> Tree:
    """Powers and logarithms that are NaN where no real number is, and have a slope where IEEE's functions have none."""
    result = tree
    match tree:
        case ("pow", ("p", name), ("affine", a, x, b) as u):
            result = ("exponential", ("p", name), u, ("parity", a, x, b))
        case ("log", ("affine", a, x, b)):
            result = ("logAffine", a, x, b)
        case ("pow", u, c):
            result = ("power", u, c)
        case ("*", ("*", a, ("p", _) as c), ("power", u, ("-", d, 1.0))) if c == d:
            result = ("powerSlope", a, c, u)
        case ("*", ("*", a, ("log", ("p", _) as c)), ("exponential", d, u, _)) if c == d:
            result = ("exponentialSlope", a, c, u)
        case ("/", t, ("log", ("p", _) as c)):
            result = ("/", t, ("logBase", c))
        case ("/", t, ("*", ("log", ("p", _) as c), u)):
            result = ("/", t, ("*", ("logBase", c), u))
    return result


def _negative(tree: Tree) -> Tree:
    return tree[1] if isinstance(tree, tuple) and tree[0] == "neg" else ("neg", tree)


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
