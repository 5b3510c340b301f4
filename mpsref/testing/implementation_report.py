"""What an attack on an implementation found, for people and for programs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from mpsref.display import aligned, printable
from mpsref.errors import VerificationError

__all__ = ["KINDS", "Failure", "ImplementationCheck"]

KINDS = {
    "NaN": "NaN where a number is right",
    "NaN lost": "a number where NaN is right",
    "infinity": "infinity where a number is right",
    "infinity lost": "something else where infinity is right",
    "flushed": "0 where a subnormal number is right",
    "vanished": "0 where a normal number is right",
    "far": "a number that is beyond the bounds",
}
"""Kinds of failures, and what is given."""


@dataclass(frozen=True)
class Failure:
    """
    The simplest input at which an implementation fails in one way.

    Attributes
    ----------
    kind, format : str
        One of `KINDS`, and how elements are stored.
    count : int
        Elements that failed like this, of all that were tried.
    neuron : str
        The neuron.
    shape, place : tuple of int
        Of the array that the implementation was called with, and where the element is; a single element, unless it
        fails only in company.
    x, upstream, got, want : str
        The element: shortest decimal, hexadecimal and bit pattern; `upstream` is empty for a forward.
    array : str
        The whole array, if it has more than one element; else empty.
    ulp : int or None
        The distance; None if one is NaN, or one infinite.
    why : str
        What explains it; empty if nothing does.
    comparison : str
        The report on the first array in which it was found.
    """

    kind: str
    format: str
    count: int
    neuron: str
    shape: tuple[int, ...]
    place: tuple[int, ...]
    x: tuple[str, str, str]
    upstream: tuple[str, str, str] | None
    got: tuple[str, str, str]
    want: tuple[str, str, str]
    array: str
    ulp: int | None
    why: str
    comparison: str

    def lines(self) -> Iterator[str]:
        """For people."""
        yield f"{self.format}: {KINDS[self.kind]}, {self.count:,} times; the simplest:"
        rows = [("x", *self.x)]
        rows += [("upstream", *self.upstream)] if self.upstream else []
        rows += [("got", *self.got), ("want", *self.want)]
        yield from (f"  {line}" for line in aligned(rows, left=len(rows[0])))
        distance = "not comparable" if self.ulp is None else f"{self.ulp:,} ULP"
        yield f"  {distance}; {self.neuron}"
        if self.array:
            yield f"  at {list(self.place)} of {list(self.shape)}, and in no single element: {self.array}"
        if self.why:
            yield f"  why: {self.why}"


@dataclass(frozen=True)
class ImplementationCheck:
    """
    What an attack on an implementation has found.

    Attributes
    ----------
    name, direction : str
        What was attacked.
    bounds : str
        What passes.
    formats : tuple of str
        How elements were stored.
    arrays, elements : int
        How many calls there were, with how many elements, besides those that looked for the simplest inputs.
    failures : tuple of Failure
        One for each format and kind of failure.
    """

    name: str
    direction: str
    bounds: str
    formats: tuple[str, ...]
    arrays: int
    elements: int
    failures: tuple[Failure, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing failed."""
        return not self.failures

    @property
    def verdict(self) -> str:
        """One line."""
        tried = f"{self.elements:,} elements in {self.arrays:,} arrays of {' and '.join(self.formats)}"
        if self.passed:
            return f"PASS: {tried} are within bounds"
        n = len(self.failures)
        return f"FAIL: in {n} way{'s' if n > 1 else ''}, of {tried}"

    def check(self) -> None:
        """Raise `VerificationError`, which carries this report and says all of it, unless it passed."""
        __tracebackhide__ = True
        if not self.passed:
            raise VerificationError(self.text(), self)

    def text(self) -> str:
        """For people: the verdict first, then each failure, then the arrays in which they were found first."""
        lines = [f"{self.name}: {self.verdict}", f"{self.direction}; bounds: {self.bounds}"]
        for failure in self.failures:
            lines += ["", *failure.lines()]
        # Often one array has shown them all.
        for comparison in dict.fromkeys(f"{failure.format}, {failure.comparison}" for failure in self.failures):
            lines += ["", "first found in:", *(f"  {line}" for line in comparison.splitlines())]
        return "\n".join(printable(line) for line in lines)

    def to_json(self) -> dict[str, Any]:
        """For programs: everything, as `json` can write it."""
        return asdict(self) | {"passed": self.passed, "verdict": self.verdict}
