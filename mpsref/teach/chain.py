"""The chain rule written out: products of slopes, by name and in numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from mpsref.display import aligned, html_text, printable
from mpsref.operations import Role, SumOfProducts
from mpsref.operations.base import number_text
from mpsref.teach.lost import Lost
from mpsref.teach.step import Step, off_text, single, stored_text, sum_text

__all__ = ["ChainRule", "Term", "bias_of", "equation", "gradients_read", "product_sum", "stored_lines"]

LONGEST_LINE = 4000
"""Characters of a line in a notebook."""

Term: TypeAlias = list[tuple[str, float]]
"""The factors of a product: the name and the number of each."""


def gradients_read(step: Step) -> list[tuple[str, Term]]:
    """The gradients that a step of the backward pass reads, each with the factors by which it multiplies them."""
    operation = step.operation
    if Role.GRADIENT not in operation.roles:
        # A sum of gradients.
        assert isinstance(operation, SumOfProducts)
        return [(step.reads[read[0]], _factor(factor)) for factor, read in operation.terms]
    incoming = step.reads[operation.roles.index(Role.GRADIENT)]
    text = operation.slope_text(step.reads, step.symbol)
    return [(incoming, [(text, single(step.slope))] if text and step.slope is not None else [])]


def bias_of(step: Step) -> float:
    """The constant that a step adds to the gradients that it reads."""
    return step.operation.bias if isinstance(step.operation, SumOfProducts) else 0.0


def _factor(factor: float) -> Term:
    return [] if factor == 1 else [(number_text(factor), factor)]


def product_sum(terms: Sequence[Term]) -> float:
    """The value of a sum of products."""
    products = _products(terms)
    try:
        return math.fsum(products)
    except (OverflowError, ValueError):
        # A sum of infinities, or one that overflows.
        return sum(products)


def _products(terms: Sequence[Term]) -> list[float]:
    # Python's floats, which multiply infinity by 0 without a warning.
    return [math.prod(number for _, number in term) for term in terms]


def equation(step: Step, terms: Sequence[Term], lost: str | None) -> list[str]:
    """The sum of products by name, then in numbers, then its value; with `lost`, or "", how it is stored."""
    products, total = _products(terms), product_sum(terms)
    head = printable(f"{step.name} = ")
    indent = " " * (len(head) - 2)
    texts = [
        sum_text((" * ".join(name for name, _ in term) for term in terms), indent),
        sum_text((" * ".join(number_text(number) for _, number in term) for term in terms), indent),
        *([sum_text(map(number_text, products))] if len(terms) > 1 and any(len(term) > 1 for term in terms) else []),
    ]
    if texts[-1] == number_text(total):
        del texts[-1]
    result = number_text(total)
    if lost is not None:
        result += f"    stored as {step.format.name}: {stored_text(step)} ({off_text(step, total, lost)})"
    first, *others = [*dict.fromkeys(texts), result]
    return [f"{head}{first}", *(f"{indent}= {text}" for text in others)]


def stored_lines(steps: Iterable[Step], lost: Mapping[str, Lost]) -> list[str]:
    """A line for each step: its rule, its numbers, and the stored result, or what was lost."""
    rows = []
    for step in steps:
        pointwise = step.operation.is_pointwise
        numbers = [number_text(single(values)) for values in step.sources] if pointwise else step.reads
        if step.descriptor is not None and step.upstream is not None and step.slope is not None:
            text = f"{number_text(single(step.upstream))} * {number_text(single(step.slope))}"
        else:
            text = step.expression(numbers)
        value = single(step.value)
        off = off_text(step, value, lost[step.name].text if step.name in lost else "")
        stored = f"stored as {step.format.name}: {stored_text(step)} ({off})"
        rows.append([f"  {step.rule}", f"= {text}", f"= {number_text(value)}", stored])
    return aligned(rows, 4)


class ChainRule(str):
    """A chain rule as text, which a notebook shows as an equation."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        equation, *rest = self.split("\n\n")
        lines = "".join(f"<tr>{''.join(_cells(line))}</tr>" for line in equation.split("\n"))
        below = "".join(f"<p>{'<br>'.join(_typeset(line) for line in part.split(chr(10)))}</p>" for part in rest)
        return f'<table class="chain-rule"><tbody>{lines}</tbody></table>{below}'


def _cells(line: str) -> list[str]:
    """The name, the sign and the rest of a line."""
    name, sign, right = line.partition("= ") if "= " in line else ("", "", line)
    return [f'<td style="text-align: left">{_typeset(part.strip())}</td>' for part in (name, sign, right)]


def _typeset(text: str) -> str:
    return html_text(text.strip().replace(" * ", " \N{MULTIPLICATION SIGN} ").replace("'(", "\N{PRIME}("), LONGEST_LINE)
