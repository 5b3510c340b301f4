"""
The neurons' formulas as trees, recorded from the rows' stepwise formulas, differentiated, and made safe in float64.

A row's formula is recorded by `mpsref.symbolic`. A few rules rewrite it so that float64 loses next to nothing:
``log(1 + e^u)`` overflows, ``softplus``, which replaces it, does not. Where the formula branches on a parameter, such
as whether a base is -1, the tree has a condition.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mpsref.neuron.table import Neuron
from mpsref.symbolic import Symbol, Tree, recorded, tree_of

__all__ = ["Tree", "derivative_tree", "forward_tree", "kinks_tree", "parameter_tree"]

X: Tree = ("x",)


# ---- recording ----


def _formula(formula: Callable[[Any, Any, Any], Any]) -> Tree:
    return recorded(lambda p, f: tree_of(formula(Symbol(X, f.assumed), p, f)))


def forward_tree(row: Neuron) -> Tree:
    """The value of a neuron."""
    return _careful(_formula(row.stepwise_forward))


def derivative_tree(row: Neuron) -> Tree:
    """Its derivative."""
    return _careful(_formula(row.stepwise_derivative))


def parameter_tree(row: Neuron, name: str) -> Tree:
    """The derivative of its value with respect to a parameter, ``a``, ``b``, ``c`` or ``data``, the slope of pReLU."""
    return _careful(_derivative(_formula(row.stepwise_forward), ("p", name)))


def kinks_tree(row: Neuron) -> Tree:
    """Its kinks, as a list."""
    kinks: Callable[[Any], tuple[object, ...]] = row.kinks
    return recorded(lambda p, _: ("list", *map(tree_of, kinks(p))))


# ---- differentiating ----


def _derivative(tree: Tree, by: Tree) -> Tree:  # noqa: PLR0911  a rule each
    """The derivative by a parameter; at a kink that of the side which the formula takes."""
    if not isinstance(tree, tuple) or tree[0] in ("x", "p"):
        return 1.0 if tree == by else 0.0
    operation, *operands = tree
    if operation == "where":
        return _where(operands[0], *(_derivative(each, by) for each in operands[1:]))
    u, *others = operands
    du, *changes = (_derivative(each, by) for each in operands)
    v, dv = (others or [0.0])[0], (changes or [0.0])[0]
    match operation:
        case "+" | "-":
            return _sum(du, dv if operation == "+" else _product(-1.0, dv))
        case "*":
            return _sum(_product(du, v), _product(u, dv))
        case "fma":
            return _sum(_sum(_product(du, v), _product(u, dv)), changes[1])
        case "/":
            # f / v changes by (df - (f / v) dv) / v.
            change = _sum(du, _product(-1.0, _product(tree, dv)))
            return change if change == 0 else ("/", change, v)
        case "smaller" | "larger":
            # The bound counts from where it is reached, if it is a parameter; else the interval is closed.
            inside = ("<" if isinstance(v, tuple) else "<=", u, v) if operation == "smaller" else (">=", u, v)
            return _where(inside, du, dv)
        case "exp":
            return _product(du, tree)
        case "log":
            return du if du == 0 else ("/", du, u)
        case "tanh":
            return _product(("fma", ("neg", tree), tree, 1.0), du)
        case "pow":
            by_base = _product(_product(v, ("pow", u, ("-", v, 1.0))), du)
            return _sum(by_base, _product(("powLog", u, v), dv))
    raise NotImplementedError(operation)


def _sum(x: Tree, y: Tree) -> Tree:
    return y if x == 0 else x if y == 0 else ("+", x, y)


def _product(x: Tree, y: Tree) -> Tree:
    if x == 0 or y == 0:
        return 0.0
    return y if x == 1 else x if y == 1 else ("*", x, y)


def _where(condition: Tree, x: Tree, y: Tree) -> Tree:
    return x if x == y else ("where", condition, x, y)


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
