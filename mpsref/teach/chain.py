"""The chain rule written out: products of slopes, by name and in numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TypeAlias

from mpsref.display import aligned, printable
from mpsref.operations import Role, SumOfProducts
from mpsref.operations.base import number_text
from mpsref.teach.step import Step, off_text, single, stored_text, sum_text

__all__ = ["Term", "bias_of", "equation", "gradients_read", "stored_lines"]

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


def equation(step: Step, terms: Sequence[Term]) -> list[str]:
    """The sum of products by name, then in numbers, then its value."""
    # Python's floats, which multiply infinity by 0 without a warning.
    products = [math.prod(number for _, number in term) for term in terms]
    try:
        total = math.fsum(products)
    except (OverflowError, ValueError):
        # A sum of infinities, or one that overflows.
        total = sum(products)
    head = printable(f"{step.name} = ")
    indent = " " * (len(head) - 2)
    texts = [
        sum_text((" * ".join(name for name, _ in term) for term in terms), indent),
        sum_text((" * ".join(number_text(number) for _, number in term) for term in terms), indent),
        *([sum_text(map(number_text, products))] if len(terms) > 1 and any(len(term) > 1 for term in terms) else []),
    ]
    if texts[-1] == number_text(total):
        del texts[-1]
    result = f"{number_text(total)}    stored as {step.format.name}: {stored_text(step)} ({off_text(step, total)})"
    first, *others = [*dict.fromkeys(texts), result]
    return [f"{head}{first}", *(f"{indent}= {text}" for text in others)]


def stored_lines(steps: Iterable[Step]) -> list[str]:
    """A line for each step: its rule, its numbers, and the stored result."""
    rows = []
    for step in steps:
        pointwise = step.operation.is_pointwise
        numbers = [number_text(single(values)) for values in step.sources] if pointwise else step.reads
        if step.descriptor is not None and step.upstream is not None and step.slope is not None:
            text = f"{number_text(single(step.upstream))} * {number_text(single(step.slope))}"
        else:
            text = step.expression(numbers)
        rows.append(
            [f"  {step.rule}", f"= {text}", f"= {number_text(single(step.value))}",
             f"stored as {step.format.name}: {stored_text(step)} ({off_text(step, single(step.value))})"]
        )  # fmt: skip
    return aligned(rows, 4)
