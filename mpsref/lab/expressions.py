"""
Trees of formulas as text of a shader language, literally: nothing is rewritten but a product with 1.

The text computes what `stepwise` computes and what the bounds are made of. Functions that a language lacks are helpers
in the text: the error function, and powers of negative numbers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mpsref.symbolic import CONDITIONS, Tree

__all__ = ["FLOAT16", "FLOAT32", "Dialect", "Function", "uses"]

FLOAT16, FLOAT32 = "float16", "float32"
"""The kinds of arithmetic."""

_STRENGTH = {
    "where": 0, "&&": 1, "===": 2, "!==": 2, "<": 3, "<=": 3, ">": 3, ">=": 3, "+": 4, "-": 4, "*": 5, "/": 5, "neg": 6
}  # fmt: skip
MOST = 7
"""How strongly operators bind; anything else is a call or a name."""

_LOCALS = {"exp": "e", "tanh": "t", "fma": "u", "where": "v"}
"""Names of shared subexpressions."""

# The error function, to 2.6 ULP of float32: least squares at Chebyshev nodes, weighted by the relative error.
_ERF_NEAR = (
    1.1283792, -0.37612638, 0.11283784, -0.026865475, 0.005221139, -0.00084854384, 0.00011274738, -9.689741e-06
)  # fmt: skip
_ERF_FAR = (-0.00015454405, 0.28491703, 0.25966668, 0.34784374, -0.10361797, 0.5631671, -0.47104993, 0.11928063)


@dataclass(frozen=True)
class Function:
    """
    A function of numbers.

    Attributes
    ----------
    name, comment : str
        Its name, and the line above it.
    arguments : tuple of str
        Names of numbers.
    tree : Tree
        Its value; ``(name,)`` is an argument.
    kind : str
        `FLOAT32` or `FLOAT16`.
    """

    name: str
    comment: str
    arguments: tuple[str, ...]
    tree: Tree
    kind: str

    @property
    def has_parameters(self) -> bool:
        """Whether it reads parameters of the neuron, besides the slope of a channel."""
        return any(tree[0] == "p" and tree[1] != "data" for tree in _tuples(self.tree))


@dataclass(frozen=True)
class Dialect(ABC):
    """
    How a language writes expressions and functions.

    Attributes
    ----------
    math : str or None
        ``fast`` or ``precise`` variants of functions; None leaves it to the compiler.
    """

    name: ClassVar[str]
    suffix: ClassVar[str]
    """Of files."""
    scalars: ClassVar[Mapping[str, str]]
    """The type of each kind."""
    literals: ClassVar[Mapping[str, str]]
    """A number of each kind."""
    functions: ClassVar[Mapping[str, Mapping[str, str]]]
    """Names of functions that are not those of the tree, for each kind; those that end with ``_`` are helpers."""
    local: ClassVar[str] = "const {type} {name} = {value};"
    math: str | None = None

    # ---- what differs ----

    @abstractmethod
    def head(self, function: Function) -> str:
        """The head of a function."""

    @abstractmethod
    def nan(self, x: str) -> str:
        """NaN, which no compiler can fold, and may depend on a number."""

    def choice(self, condition: str, yes: str, no: str) -> str:
        """A conditional expression, in parentheses or a call."""
        return f"({condition} ? {yes} : {no})"

    def call(self, operation: str, kind: str) -> str:
        """The name of a function."""
        return self.functions[kind].get(operation, operation)

    def converted(self, text: str, kind: str) -> str:
        """A number, converted to a kind."""
        return f"{self.scalars[kind]}({text})"

    # ---- expressions ----

    def number(self, value: float, kind: str) -> str:
        """A literal."""
        text = str(np.float16(value) if kind == FLOAT16 else np.float32(value))
        return self.literals[kind].format(text)

    def expression(self, tree: Tree, kind: str, names: Mapping[Tree, str], least: int = 0) -> str:
        """A tree, in parentheses where its operator binds less than `least`."""
        if tree in names:
            return names[tree]
        match tree:
            case float():
                text, strength = self.number(tree, kind), _STRENGTH["neg"] - 1 if tree < 0 else MOST
            case ("p", "data"):
                text, strength = "slope", MOST
            case ("p", name):
                text, strength = f"p.{name}" if kind == FLOAT32 else self.converted(f"p.{name}", kind), MOST
            case (name,):
                text, strength = str(name), MOST
            case ("where", condition, yes, no):
                written = [self.expression(operand, kind, names, 1) for operand in (condition, yes)]
                text, strength = self.choice(written[0], written[1], self.expression(no, kind, names)), MOST
                text = _bare(text) if least == 0 else text
            case ("fma", a, b, c):
                # Whether it is contracted is the compiler's business.
                return self.expression(("+", ("*", a, b), c), kind, names, least)
            case ("square", u):
                return self.expression(("*", u, u), kind, names, least)
            case ("*", 1.0, u) | ("*", u, 1.0):
                return self.expression(u, kind, names, least)
            case ("neg", u):
                text, strength = f"-{self.expression(u, kind, names, _STRENGTH['neg'])}", _STRENGTH["neg"]
            case (operation, left, right) if operation in _STRENGTH:
                strength = _STRENGTH[operation]
                sides = self.expression(left, kind, names, strength), self.expression(right, kind, names, strength + 1)
                text = f" {operation.replace('===', '==').replace('!==', '!=')} ".join(sides)
            case _:
                text, strength = self._called(tree[0], tree[1:], kind, names), MOST
        return f"({text})" if strength < least else text

    def _called(self, operation: str, operands: Sequence[Tree], kind: str, names: Mapping[Tree, str]) -> str:
        function = self.call(operation, kind)
        written = [self.expression(operand, kind, names) for operand in operands]
        if kind == FLOAT16 and function.endswith(("_", "f")):
            # Helpers, and functions that half has not, compute in float.
            inner = ", ".join(self.converted(text, FLOAT32) for text in written)
            return self.converted(f"{function}({inner})", kind)
        return f"{function}({', '.join(written)})"

    # ---- functions ----

    def function(self, function: Function) -> str:
        """The text of a function; subexpressions that occur more than once are evaluated once."""
        tree, kind = function.tree, function.kind
        names: dict[Tree, str] = {}
        lines = []
        for shared in _shared(tree):
            base = _LOCALS.get(shared[0], "v")
            count = sum(name.startswith(base) for name in names.values())
            name = f"{base}{count + 1}" if count else base
            value = self.expression(shared, kind, names)
            lines.append(self.local.format(type=self.scalars[kind], name=name, value=value))
            names[shared] = name
        lines.append(f"return {self.expression(tree, kind, names)};")
        body = "".join(f"  {line}\n" for line in lines)
        return f"// {function.comment}\n{self.head(function)} {{\n{body}}}\n"

    def helpers(self, functions: Sequence[Function]) -> list[str]:
        """The helpers that some functions need."""
        makers: dict[str, Callable[[], str]] = {"erf": self._erf, "pow": self._power}
        return [
            maker()
            for operation, maker in makers.items()
            if any(operation in uses(f.tree) and self.call(operation, f.kind).endswith("_") for f in functions)
        ]

    def _helper(self, name: str, arguments: tuple[str, ...], comment: str, steps: Mapping[str, str], value: str) -> str:
        lines = [self.local.format(type=self.scalars[FLOAT32], name=k, value=_bare(v)) for k, v in steps.items()]
        body = "".join(f"  {line}\n" for line in [*lines, f"return {_bare(value)};"])
        return f"// {comment}\n{self.head(Function(name, '', arguments, 0.0, FLOAT32))} {{\n{body}}}\n"

    def _erf(self) -> str:
        n = self._literal
        steps = {
            "z": f"{self.call('smaller', FLOAT32)}({self.call('abs', FLOAT32)}(x), {n(4)})",
            "s": "z * z",
            "q": f"{n(1)} / ({n(1)} + {n(0.5)} * z)",
            "near": f"z * ({self._horner(_ERF_NEAR, 's')})",
            "far": f"{n(1)} - {self.call('exp', FLOAT32)}(-s) * ({self._horner(_ERF_FAR, 'q')})",
            "size": self.choice(f"z < {n(1)}", "near", "far"),
        }
        value = self.choice(f"x < {n(0)}", "-size", "size")
        return self._helper("erf_", ("x",), "The error function, to 2.6 ULP.", steps, value)

    def _power(self) -> str:
        n = self._literal
        steps = {
            "size": f"{self.call('pow_of_size', FLOAT32)}({self.call('abs', FLOAT32)}(x), y)",
            "odd": f"y - {n(2)} * {self.call('floor', FLOAT32)}({n(0.5)} * y)",
            "whole": self.choice(f"odd == {n(1)}", "-size", "size"),
            "real": self.choice(f"odd == {n(0)} || odd == {n(1)}", "whole", self.nan("x")),
            "power": self.choice(f"x < {n(0)}", "real", "size"),
        }
        value = self.choice(f"y == {n(0)}", n(1), "power")
        return self._helper("power_", ("x", "y"), "x^y, for negative x too: NaN where it is not real.", steps, value)

    def _literal(self, value: float) -> str:
        return self.number(value, FLOAT32)

    def _horner(self, coefficients: Sequence[float], variable: str) -> str:
        first, *rest = map(self._literal, coefficients)
        text = "".join(f" + {variable} * ({c}" + ("\n     " if i == 2 else "") for i, c in enumerate(rest))
        return first + text + ")" * len(rest)


def _bare(text: str) -> str:
    """A conditional expression without its parentheses, or anything else as it is."""
    return text[1:-1] if text[0] == "(" and "?" in text else text


def uses(tree: Tree) -> set[str]:
    """The operations in a tree."""
    return {part[0] for part in _tuples(tree)}


def _tuples(tree: Tree) -> Iterator[Tree]:
    if isinstance(tree, tuple):
        yield tree
        if tree[0] != "p":
            for operand in tree[1:]:
                yield from _tuples(operand)


def _shared(tree: Tree) -> list[Tree]:
    """The largest subexpressions that occur more than once, inner ones first."""
    counts = Counter(_tuples(tree))
    often = [part for part, count in counts.items() if count > 1 and len(part) > 1 and part[0] not in ("p", "neg")]
    often = [part for part in often if part[0] not in CONDITIONS]
    inner = {
        part
        for part in often
        for other in often
        if other != part and counts[other] == counts[part] and part in _tuples(other)
    }
    return sorted((part for part in often if part not in inner), key=lambda part: sum(1 for _ in _tuples(part)))
