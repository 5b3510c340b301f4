"""
Formulas as trees: a formula is called with symbols instead of numbers, which record an expression.

So JavaScript and shader text come from the same formulas as numbers and bounds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, TypeAlias

__all__ = ["CONDITIONS", "Recorder", "Symbol", "Tree", "recorded", "tree_of"]

Tree: TypeAlias = Any
"""A number, or the name of an operation with its operands, in a tuple; ``("p", name)`` is a parameter."""

CONDITIONS = frozenset({"<", "<=", ">", ">=", "===", "!==", "&&"})


class _OpenError(Exception):
    """A formula branches on a condition whose truth is not assumed yet."""

    def __init__(self, condition: Tree) -> None:
        super().__init__(condition)
        self.condition = condition


def _operator(operation: str, *, is_reflected: bool = False) -> Callable[..., Symbol]:
    """A method that records an operation."""

    def record(self: Symbol, *others: object) -> Symbol:
        operands = (*others, self) if is_reflected else (self, *others)
        return Symbol((operation, *map(tree_of, operands)), self.assumed)

    return record


@dataclass(frozen=True, eq=False)
class Symbol:
    """An expression instead of a number, with the operators that formulas use."""

    tree: Tree
    assumed: dict[Tree, bool]

    __hash__ = None  # type: ignore[assignment]
    __neg__, __abs__, __and__ = _operator("neg"), _operator("abs"), _operator("&&")
    __add__, __radd__ = _operator("+"), _operator("+", is_reflected=True)
    __sub__, __rsub__ = _operator("-"), _operator("-", is_reflected=True)
    __mul__, __rmul__ = _operator("*"), _operator("*", is_reflected=True)
    __truediv__, __rtruediv__ = _operator("/"), _operator("/", is_reflected=True)
    __lt__, __le__, __gt__, __ge__ = map(_operator, ("<", "<=", ">", ">="))
    __eq__ = _operator("===")  # type: ignore[assignment]

    def __bool__(self) -> bool:
        # A number is true if it is not 0.
        condition = self.tree if self.tree[0] in CONDITIONS else ("!==", self.tree, 0.0)
        if condition not in self.assumed:
            raise _OpenError(condition)
        return self.assumed[condition]


@dataclass(frozen=True)
class Recorder:
    """The rows' `Arithmetic` on symbols: it records each function by its name."""

    assumed: dict[Tree, bool]

    def __getattr__(self, name: str) -> Callable[..., Symbol]:
        function = {"min": "smaller", "max": "larger"}.get(name, name)
        return lambda *operands: Symbol((function, *map(tree_of, operands)), self.assumed)


def tree_of(value: object) -> Tree:
    """The tree of a symbol; a number as float."""
    return value.tree if isinstance(value, Symbol) else float(value)  # type: ignore[arg-type]


def recorded(record: Callable[[SimpleNamespace, Recorder], Tree], assumed: dict[Tree, bool] | None = None) -> Tree:
    """
    The tree that `record` makes of symbols; where it branches on a condition, a ``where`` with both branches.

    Parameters
    ----------
    record : callable
        Called with symbols ``a``, ``b``, ``c`` and ``data`` for the parameters, and the arithmetic.
    assumed : dict, optional
        The conditions whose truth is assumed.

    Examples
    --------
    >>> recorded(lambda p, f: tree_of(f.exp(p.a) if p.c == -1 else 2 * p.a))
    ('where', ('===', ('p', 'c'), -1.0), ('exp', ('p', 'a')), ('*', 2.0, ('p', 'a')))
    """
    known = assumed or {}
    p = SimpleNamespace(**{name: Symbol(("p", name), known) for name in ("a", "b", "c", "data")})
    try:
        return record(p, Recorder(known))
    except _OpenError as error:
        yes, no = (recorded(record, known | {error.condition: truth}) for truth in (True, False))
        return ("where", error.condition, yes, no)
