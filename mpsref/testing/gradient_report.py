"""What a check of gradients found, for people and for programs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from mpsref.display import printable
from mpsref.errors import VerificationError

__all__ = ["GradientCheck", "Slope"]


@dataclass(frozen=True)
class Slope:
    """
    One element of a gradient.

    Attributes
    ----------
    input : str
        What the gradient is taken with respect to.
    place : tuple of int
        The index of the element.
    value : float
        The input there.
    gradient : float
        What was given for its gradient.
    numerical : float
        What the forward says.
    error : float
        How far that may be off.
    note : str
        What there is to say of the place.
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
        got = f"gradient {self.gradient:.10g}, differences give {self.numerical:.10g} +- {self.error:.1g}"
        upstream = "" if self.upstream is None else f", upstream {self.upstream!r}"
        return f"{self.input}{list(self.place)} = {self.value!r}{upstream}: {got}{note}"


@dataclass(frozen=True)
class GradientCheck:
    """
    What was found when a gradient was checked.

    Attributes
    ----------
    name : str
        What was checked.
    rtol : float
        What may be between gradient and difference, relative, beside the error of the difference.
    elements : int
        Elements of all inputs.
    agree, wrong, undecided, skipped : int
        Where gradient and differences agree; where they do not; where differences are too inexact to tell; and where
        the forward is not finite, or an input is not.
    worst : tuple of Slope
        The elements that are wrong, the worst first; else those that are undecided.
    """

    name: str
    rtol: float
    elements: int
    agree: int
    wrong: int
    undecided: int
    skipped: int
    worst: tuple[Slope, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong."""
        return not self.wrong

    @property
    def verdict(self) -> str:
        """One line."""
        counts = {"cannot be decided": self.undecided, "have no finite value": self.skipped}
        rest = "".join(f"; {n:,} {text}" for text, n in counts.items() if n)
        if self.wrong:
            return f"FAIL: {self.wrong:,} of {self.elements:,} gradients are wrong{rest}"
        return f"PASS: {self.agree:,} of {self.elements:,} gradients agree with differences{rest}"

    def check(self) -> None:
        """Raise `VerificationError`, which carries this report and says all of it, unless it passed."""
        __tracebackhide__ = True
        if not self.passed:
            raise VerificationError(self.text(), self)

    def text(self) -> str:
        """For people: the verdict first, then the worst elements."""
        lines = [f"{self.name}: {self.verdict}", *(f"  {one}" for one in self.worst)]
        return "\n".join(printable(line) for line in lines)

    def to_json(self) -> dict[str, Any]:
        """For programs: everything, as `json` can write it."""
        return asdict(self) | {
            "passed": self.passed,
            "verdict": self.verdict,
            "worst": [asdict(one) | {"place": list(one.place)} for one in self.worst],
        }
