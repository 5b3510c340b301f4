"""
The neurons' formulas as JavaScript: recorded from the rows' stepwise formulas, made careful, written out.

A row's formula is called with symbols instead of numbers. What it does to them is an expression, which a few rules
rewrite so that float64 loses next to nothing: ``log(1 + e^u)`` overflows, and the function ``softplus`` of the page's
script, which they put in its place, does not. What the formula asks of a parameter, as whether a base is -1, becomes a
condition in the script.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

from mpsref.neuron.table import Neuron

__all__ = ["javascript"]

Tree: TypeAlias = Any
"""A number, or the name of an operation with its operands, in a tuple."""

X: Tree = ("x",)


class _OpenError(Exception):
    """A formula asks for the truth of a condition that is not decided."""

    def __init__(self, condition: Tree) -> None:
        super().__init__(condition)
        self.condition = condition


@dataclass(frozen=True, eq=False)
class _Symbol:
    """An expression instead of a number, with the operators that formulas use."""

    tree: Tree
    decided: dict[Tree, bool]

    __hash__ = None  # type: ignore[assignment]

    def _made(self, operation: str, *operands: object) -> _Symbol:
        return _Symbol((operation, *map(_tree, operands)), self.decided)

    def __neg__(self) -> _Symbol:
        return self._made("neg", self)

    def __abs__(self) -> _Symbol:
        return self._made("abs", self)

    def __add__(self, other: object) -> _Symbol:
        return self._made("+", self, other)

    def __radd__(self, other: object) -> _Symbol:
        return self._made("+", other, self)

    def __sub__(self, other: object) -> _Symbol:
        return self._made("-", self, other)

    def __rsub__(self, other: object) -> _Symbol:
        return self._made("-", other, self)

    def __mul__(self, other: object) -> _Symbol:
        return self._made("*", self, other)

    def __rmul__(self, other: object) -> _Symbol:
        return self._made("*", other, self)

    def __truediv__(self, other: object) -> _Symbol:
        return self._made("/", self, other)

    def __rtruediv__(self, other: object) -> _Symbol:
        return self._made("/", other, self)

    def __lt__(self, other: object) -> _Symbol:
        return self._made("<", self, other)

    def __le__(self, other: object) -> _Symbol:
        return self._made("<=", self, other)

    def __gt__(self, other: object) -> _Symbol:
        return self._made(">", self, other)

    def __ge__(self, other: object) -> _Symbol:
        return self._made(">=", self, other)

    def __eq__(self, other: object) -> _Symbol:  # type: ignore[override]
        return self._made("===", self, other)

    def __and__(self, other: object) -> _Symbol:
        return self._made("&&", self, other)

    def __bool__(self) -> bool:
        # A number is true if it is not 0.
        condition = self.tree if self.tree[0] in _CONDITIONS else ("!==", self.tree, 0.0)
        if condition not in self.decided:
            raise _OpenError(condition)
        return self.decided[condition]


_CONDITIONS = frozenset({"<", "<=", ">", ">=", "===", "!==", "&&"})


@dataclass(frozen=True)
class _Parameters:
    a: _Symbol
    b: _Symbol
    c: _Symbol
    data: _Symbol


@dataclass(frozen=True)
class _Recorder:
    """The `Arithmetic` of the rows on symbols."""

    decided: dict[Tree, bool]

    def _made(self, operation: str, *operands: object) -> _Symbol:
        return _Symbol((operation, *map(_tree, operands)), self.decided)

    def fma(self, a: object, b: object, c: object) -> _Symbol:
        return self._made("fma", a, b, c)

    def square(self, x: object) -> _Symbol:
        return self._made("square", x)

    def exp(self, x: object) -> _Symbol:
        return self._made("exp", x)

    def log(self, x: object) -> _Symbol:
        return self._made("log", x)

    def tanh(self, x: object) -> _Symbol:
        return self._made("tanh", x)

    def erf(self, x: object) -> _Symbol:
        return self._made("erf", x)

    def pow(self, base: object, exponent: object) -> _Symbol:
        return self._made("pow", base, exponent)

    def min(self, x: object, y: object) -> _Symbol:
        return self._made("smaller", x, y)

    def max(self, x: object, y: object) -> _Symbol:
        return self._made("larger", x, y)

    def where(self, condition: object, x: object, y: object) -> _Symbol:
        return self._made("where", condition, x, y)


def javascript(rows: Iterable[Neuron]) -> str:
    """
    The members of an object that has forward, derivative and kinks of each row, by the name of its type.

    Parameters
    ----------
    rows : iterable of Neuron
        Of `mpsref.NEURONS`.

    Returns
    -------
    str
        They call what ``explain.js`` defines. ``x`` is the source and ``p`` has the parameters.

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
        f"  forward: (x, p) => {_written(_formula(row.stepwise_forward))},\n"
        f"  derivative: (x, p) => {_written(_formula(row.stepwise_derivative))},\n"
        f"  kinks: (p) => {_written(_kinks(row))},\n"
        "},"
        for row in rows
    )


# ---- recording ----


def _tree(value: object) -> Tree:
    return value.tree if isinstance(value, _Symbol) else float(value)  # type: ignore[arg-type]


def _formula(formula: Callable[[Any, Any, Any], Any]) -> Tree:
    return _careful(_recorded(lambda p, f: _tree(formula(_Symbol(X, f.decided), p, f)), {}))


def _kinks(row: Neuron) -> Tree:
    kinks: Callable[[Any], tuple[object, ...]] = row.kinks
    return _recorded(lambda p, _: ("list", *map(_tree, kinks(p))), {})


def _recorded(record: Callable[[_Parameters, _Recorder], Tree], decided: dict[Tree, bool]) -> Tree:
    """What `record` makes of symbols; where it asks for a truth, both answers are followed."""
    p = _Parameters(*(_Symbol(("p", name), decided) for name in ("a", "b", "c", "data")))
    try:
        return record(p, _Recorder(decided))
    except _OpenError as question:
        yes, no = (_recorded(record, decided | {question.condition: answer}) for answer in (True, False))
        return ("where", question.condition, yes, no)


# ---- rewriting ----


def _careful(tree: Tree) -> Tree:
    """The same for real numbers, but so that float64 neither cancels nor overflows; operands first."""
    if not isinstance(tree, tuple) or tree[0] in ("x", "p"):
        return tree
    operation, *operands = tree
    operands = [_careful(operand) for operand in operands]
    if operation in "+*" and isinstance(operands[1], float) and not isinstance(operands[0], float):
        operands.reverse()
    made = _function((operation, *operands))
    return _power(made)


def _function(tree: Tree) -> Tree:
    made = tree
    match tree:
        case ("log", ("+", 1.0, ("exp", u))):
            made = ("softplus", u)
        case ("-", ("exp", u), 1.0):
            made = ("expm1", u)
        case ("/", 1.0, ("+", 1.0, ("exp", u))):
            made = ("logistic", _negative(u))
        case ("/", ("*", k, ("exp", u)), ("+", 1.0, ("exp", v))) if u == v:
            made = ("*", k, ("logistic", u))
        case ("/", ("exp", u), ("square", ("+", 1.0, ("exp", v)))) if u == v:
            made = ("logisticSlope", u)
        case ("fma", ("neg", ("tanh", u)), ("tanh", v), 1.0) if u == v:
            made = ("sech2", u)
        case ("+", 1.0, ("erf", u)):
            made = ("erfc", _negative(u))
        case ("fma", 0.5, ("erfc", u), rest):
            made = ("geluSlope", u, rest)
        case ("fma", ("p", _), ("x",), _):
            # A product of two float32 is exact: there is nothing to lose but in the sum.
            made = ("affine", *tree[1:])
        case ("fma", a, b, c):
            made = ("+", ("*", a, b), c)
    return made


def _power(tree: Tree) -> Tree:
    """Powers and logarithms have no value where no real number is, and a slope where IEEE's functions have none."""
    made = tree
    match tree:
        case ("pow", ("p", name), ("affine", a, x, b) as u):
            made = ("exponential", ("p", name), u, ("parity", a, x, b))
        case ("log", ("affine", a, x, b)):
            made = ("logAffine", a, x, b)
        case ("pow", u, c):
            made = ("power", u, c)
        case ("*", ("*", a, ("p", _) as c), ("power", u, ("-", d, 1.0))) if c == d:
            made = ("powerSlope", a, c, u)
        case ("*", ("*", a, ("log", ("p", _) as c)), ("exponential", d, u, _)) if c == d:
            made = ("exponentialSlope", a, c, u)
        case ("/", t, ("log", ("p", _) as c)):
            made = ("/", t, ("logBase", c))
        case ("/", t, ("*", ("log", ("p", _) as c), u)):
            made = ("/", t, ("*", ("logBase", c), u))
    return made


def _negative(tree: Tree) -> Tree:
    return tree[1] if isinstance(tree, tuple) and tree[0] == "neg" else ("neg", tree)


# ---- writing ----

_STRENGTH = {"where": 0, "&&": 1, "===": 2, "!==": 2, "<": 3, "<=": 3, ">": 3, ">=": 3, "+": 4, "-": 4, "*": 5, "/": 5,
             "neg": 6}  # fmt: skip
"""How strongly an operator binds in JavaScript; what is not here is a call or a name."""


def _written(tree: Tree, least: int = 0) -> str:
    """As JavaScript, in parentheses where an operator binds less than `least`."""
    if isinstance(tree, float):
        text = repr(tree).removesuffix(".0")
        return f"({text})" if tree < 0 and least > 0 else text
    operation, *operands = tree
    if operation == "x":
        return "x"
    if operation == "p":
        return f"p.{operands[0]}"
    if operation == "list":
        return f"[{', '.join(map(_written, operands))}]"
    strength = _STRENGTH.get(operation)
    if strength is None:
        name = {"square": "square", "abs": "Math.abs", "log": "Math.log", "exp": "exp"}.get(operation, operation)
        return f"{name}({', '.join(map(_written, operands))})"
    if operation == "where":
        text = f"{_written(operands[0], 1)} ? {_written(operands[1], 1)} : {_written(operands[2])}"
    elif operation == "neg":
        text = f"-{_written(operands[0], strength)}"
    else:
        left, right = operands
        text = f"{_written(left, strength)} {operation} {_written(right, strength + 1)}"
    return f"({text})" if strength < least else text
