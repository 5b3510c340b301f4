"""The chain rule, written out: products of slopes by name and in numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TypeAlias

from mpsref.display import aligned, printable
from mpsref.teach.numbers import number_text, single, sum_text
from mpsref.teach.step import Step, off_text, stored_text

__all__ = ["Term", "equation", "gradients_read", "own_factors", "stored_lines"]

Term: TypeAlias = list[tuple[str, float]]
"""The factors of a product: what each is called, and its number."""


def gradients_read(step: Step) -> tuple[str, ...]:
    """Names of the gradients among what a step reads."""
    return step.reads if step.kind == "sum" else step.reads[:1]


def own_factors(step: Step, i: int) -> Term:
    """What a step multiplies a gradient with."""
    if step.kind == "gradient":
        assert step.slope is not None
        return [(f"{step.symbol}'({step.reads[1]})", single(step.slope))]
    factor = step.factors[i]
    return [] if factor == 1 else [(number_text(factor), factor)]


def equation(step: Step, terms: Sequence[Term]) -> list[str]:
    """The sum of products by name, then in numbers, then what it is."""
    # Python's floats, which multiply infinity by 0 without a warning.
    products = [math.prod(number for _, number in term) for term in terms]
    try:
        total = math.fsum(products)
    except (OverflowError, ValueError):
        # The sum of infinities, or of what is nearly infinite.
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
    """A line a step: its rule, the numbers in it, and what is stored."""
    rows = []
    for step in steps:
        numbers = [number_text(single(of)) for of in step.sources]
        if step.kind == "gradient":
            assert step.slope is not None
            text = f"{numbers[0]} * {number_text(single(step.slope))}"
        else:
            text = step._expression(numbers)
        rows.append(
            [f"  {step.rule}", f"= {text}", f"= {number_text(single(step.value))}",
             f"stored as {step.format.name}: {stored_text(step)} ({off_text(step, single(step.value))})"]
        )  # fmt: skip
    return aligned(rows, 4)
