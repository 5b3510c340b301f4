"""Reports of checks of gradients and implementations, for people and for programs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from mpsref.display import counted, printable, table
from mpsref.errors import VerificationError

__all__ = ["KINDS", "CheckReport", "Failure", "GradientCheck", "ImplementationCheck", "Slope"]


@dataclass(frozen=True)
class CheckReport(ABC):
    """What the reports of this package have in common."""

    @property
    @abstractmethod
    def passed(self) -> bool:
        """Whether nothing is wrong."""

    @property
    @abstractmethod
    def verdict(self) -> str:
        """One line."""

    @abstractmethod
    def _lines(self) -> Iterator[str]:
        """The lines of `text`."""

    def check(self) -> None:
        """Raise `VerificationError`, with this report and its text, unless it passed."""
        __tracebackhide__ = True
        if not self.passed:
            raise VerificationError(self.text(), self)

    def text(self) -> str:
        """For people: the verdict first, then the details."""
        return "\n".join(map(printable, self._lines()))

    def to_json(self) -> dict[str, Any]:
        """For programs: everything, as `json` can write it."""
        return asdict(self) | {"passed": self.passed, "verdict": self.verdict}


@dataclass(frozen=True)
class Slope:
    """
    One element of a gradient.

    Attributes
    ----------
    input : str
        The input that the gradient is taken with respect to.
    place : tuple of int
        The index of the element.
    value : float
        The input there.
    gradient : float
        The gradient under test.
    numerical : float
        The derivative, from differences of forward values.
    error : float
        Its estimated error.
    note : str
        A remark on the place.
    upstream : float or None
        The incoming gradient there, if there is just one.
    """

    input: str
    place: tuple[int, ...]
    value: float
    gradient: float
    numerical: float
    error: float
    note: str = ""
    upstream: float | None = None

    def __str__(self) -> str:
        note = f"; {self.note}" if self.note else ""
        slopes = f"gradient {self.gradient:.10g}, differences give {self.numerical:.10g} +- {self.error:.1g}"
        upstream = "" if self.upstream is None else f", upstream {self.upstream!r}"
        return f"{self.input}{list(self.place)} = {self.value!r}{upstream}: {slopes}{note}"


@dataclass(frozen=True)
class GradientCheck(CheckReport):
    """
    The result of checking a gradient.

    Attributes
    ----------
    name : str
        What was checked.
    rtol : float
        Relative difference that is allowed between gradient and derivative, besides the error of the derivative.
    elements : int
        Elements of all inputs.
    agree, wrong, undecided, skipped : int
        Elements where gradient and derivative agree; where they differ; where the derivative is too inexact to tell;
        and where the input or the forward is not finite.
    worst : tuple of Slope
        The elements that are wrong, the worst first; else those that are undecided.
    dtype : str
        The arithmetic in which forward values are taken to be computed.
    noise : float
        Their relative error, as it is taken to be: 4 ULP.
    """

    name: str
    rtol: float
    elements: int
    agree: int
    wrong: int
    undecided: int
    skipped: int
    worst: tuple[Slope, ...]
    dtype: str = "float64"
    noise: float = 2.0**-50

    @property
    def passed(self) -> bool:
        """Whether something agrees, and nothing is wrong."""
        return self.agree > 0 and not self.wrong

    @property
    def verdict(self) -> str:
        """One line."""
        counts = {
            "cannot be decided": self.undecided,
            f"{'has' if self.skipped == 1 else 'have'} no finite value": self.skipped,
        }
        rest = "".join(f"; {n:,} {text}" for text, n in counts.items() if n)
        gradients = counted(self.elements, "gradient")
        if self.wrong:
            return f"FAIL: {self.wrong:,} of {gradients} {'is' if self.wrong == 1 else 'are'} wrong{rest}"
        if not self.agree:
            return f"UNDECIDED: none of {gradients} agrees with differences or is wrong{rest}"
        return f"PASS: {self.agree:,} of {gradients} {'agrees' if self.agree == 1 else 'agree'} with differences{rest}"

    def _lines(self) -> Iterator[str]:
        yield f"{self.name}: {self.verdict}"
        if self.dtype != "float64":
            yield f"forward values are taken for {self.dtype}, accurate to 4 ULP, {self.noise:.1g} of each"
        yield from (f"  {slope}" for slope in self.worst)


KINDS = {
    "view": "a wrong number in a view",
    "NaN": "NaN where a number is right",
    "NaN lost": "a number where NaN is right",
    "infinity": "infinity where a number is right",
    "infinity lost": "something else where infinity is right",
    "flushed": "0 where a subnormal number is right",
    "vanished": "0 where a normal number is right",
    "far": "a number that is beyond the bounds",
}
"""Kinds of failures."""


@dataclass(frozen=True)
class Failure:
    """
    The simplest input at which an implementation fails in one way.

    Attributes
    ----------
    kind, format : str
        One of `KINDS`, and how elements are stored.
    count : int
        Elements that failed in this way, of all that were tried; where many did, what models allow of them is
        estimated.
    is_allowed : bool
        Whether a model of arithmetic allows the formula such results.
    neuron : str
        The neuron.
    shape, place : tuple of int
        Of the array that the implementation was called with, and of the element in it; the array has one element,
        unless only a longer one fails.
    x, upstream, got, want : tuple of str
        The element: shortest decimal, hexadecimal and bit pattern; `upstream` is None for a forward.
    array : str
        The whole array, if it has more than one element; else empty.
    ulp : int or None
        The distance; None if one is NaN, or one infinite.
    why : str
        What explains the failure; empty if nothing does.
    comparison : str
        The report on the first array that failed in this way.
    """

    kind: str
    format: str
    count: int
    is_allowed: bool
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
        allowed = ", as arithmetic allows" if self.is_allowed else ""
        yield f"{self.format}: {KINDS[self.kind]}{allowed}, {counted(self.count, 'time')}; the simplest:"
        rows = [("x", *self.x)]
        rows += [("upstream", *self.upstream)] if self.upstream else []
        rows += [("got", *self.got), ("want", *self.want)]
        yield from table(rows, left=len(rows[0]), indent="  ")
        distance = "not comparable" if self.ulp is None else f"{self.ulp:,} ULP"
        yield f"  {distance}; {self.neuron}"
        if self.array:
            alone = "" if self.kind == "view" else ", and in no single element"
            yield f"  at {list(self.place)} of {list(self.shape)}{alone}: {self.array}"
        if self.why:
            yield f"  why: {self.why}"


@dataclass(frozen=True)
class ImplementationCheck(CheckReport):
    """
    The result of an attack on an implementation.

    Attributes
    ----------
    name, direction : str
        What was attacked.
    bounds : str
        What passes.
    formats : tuple of str
        How elements were stored.
    arrays, elements : int
        Calls, and elements in them, without those that looked for the simplest inputs.
    failures : tuple of Failure
        One for each format and kind of failure: those that no model of arithmetic allows come first.
    refused : dict of str to str
        Views that the implementation does not take, each with its error.
    """

    name: str
    direction: str
    bounds: str
    formats: tuple[str, ...]
    arrays: int
    elements: int
    failures: tuple[Failure, ...]
    refused: dict[str, str] = field(default_factory=dict)

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
        allowed = sum(failure.is_allowed for failure in self.failures)
        rest = f", of which arithmetic allows {allowed}" if allowed else ""
        return f"FAIL: in {counted(len(self.failures), 'way')}{rest}, of {tried}"

    def _lines(self) -> Iterator[str]:
        yield f"{self.name}: {self.verdict}"
        yield f"{self.direction}; bounds: {self.bounds}"
        for view, error in self.refused.items():
            yield f"{view} arrays are refused: {error}"
        for failure in self.failures:
            yield from ("", *failure.lines())
        # Often one array has shown them all.
        for comparison in dict.fromkeys(f"{failure.format}, {failure.comparison}" for failure in self.failures):
            yield from ("", "first found in:", *(f"  {line}" for line in comparison.splitlines()))
