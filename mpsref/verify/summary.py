"""What a report says in a few lines: the verdict's excuses, and the causes over all images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mpsref.display import counted
from mpsref.verify.models import MODELS
from mpsref.verify.reasons import Reason

if TYPE_CHECKING:
    from mpsref.verify.faults import Finding
    from mpsref.verify.report import ImageReport

__all__ = ["Cause", "causes_of", "excuses_text"]

NO_CAUSE, NOT_SOUGHT = "no cause found", "not looked for"


@dataclass(frozen=True)
class Cause:
    """
    Why elements differ, over all images.

    Attributes
    ----------
    cause : str
        A reason, or a fault.
    name : str or None
        The name of the `Reason`; None for a fault.
    verdict : str
        ``beyond``, ``excused`` or ``within``.
    images, elements : int
        In how many.
    example : str
        One of the elements, with its image; empty if none is at hand.
    """

    cause: str
    name: str | None
    verdict: str
    images: int
    elements: int
    example: str

    def __str__(self) -> str:
        verdict = "" if self.verdict == "beyond" else f" {self.verdict}"
        return f"{self.cause}: {counted(self.images, 'image')}, {counted(self.elements, 'element')}{verdict}"


def causes_of(images: Sequence[ImageReport], *, faults: bool = True) -> tuple[Cause, ...]:
    """
    The causes: of elements beyond the bounds, then excuses, then latitudes.

    Of each the most frequent first; last those by which the node is right.
    """
    found: dict[tuple[str, str], list[_Part]] = {}
    for image in images:
        for verdict, cause, part in _parts(image, faults=faults):
            found.setdefault((verdict, cause), []).append(part)
    causes = [
        Cause(
            cause,
            parts[0].name,
            verdict,
            len({part.image.name for part in parts}),
            sum(part.elements for part in parts),
            next((part.example for part in parts if part.example), ""),
        )
        for (verdict, cause), parts in found.items()
    ]
    follow = {f.name for image in images for f in image.findings if f.wrong_sources}
    return tuple(sorted(causes, key=lambda c: (_ORDER.index(c.verdict), c.cause in follow, -c.elements)))


_ORDER = ("beyond", "excused", "within")


@dataclass(frozen=True)
class _Part:
    """A cause in one image."""

    image: ImageReport
    elements: int
    name: str | None = None
    finding: Finding | None = None
    verdict: str = "beyond"

    @property
    def example(self) -> str:
        if self.finding is not None:
            return f"{self.image.name} {self.finding.example}" if self.finding.example else ""
        element = next(
            (e for e in self.image.worst if e.reason == self.name and e.beyond == (self.verdict == "beyond")), None
        )
        return f"{self.image.name} {element}" if element else ""


def _parts(image: ImageReport, *, faults: bool) -> Iterator[tuple[str, str, _Part]]:
    counts = image.counts
    for verdict, named in (("beyond", counts.refused), ("excused", counts.excused), ("within", counts.latitude)):
        for name, count in named.items():
            yield verdict, Reason[name].text, _Part(image, count, name, verdict=verdict)
    rest = counts.beyond - sum(counts.refused.values())
    for finding in image.findings:
        count = min(rest, finding.explained)
        if finding.fits and finding.rank != "alternative" and count:
            yield "beyond", finding.name, _Part(image, count, finding=finding)
            rest -= count
    if rest:
        yield "beyond", NO_CAUSE if faults else NOT_SOUGHT, _Part(image, rest)


_CLAUSES: Mapping[Reason, str] = {
    Reason.order: "{} {differ}, in which one order of a product overflows and another does not",
    Reason.nan: "{} of NaN inputs {differ}, which {why}",
    Reason.plus_inf: "{} of infinite inputs {differ}, where an operation is invalid",
    Reason.domain: "{} outside the domain {differ}, which {why}",
    Reason.pole: "{} at a pole {differ}",
    Reason.texture: "{} where NaN is 0, as a texture may have it",
    Reason.indeterminate: "{} that the language leaves open {differ}",
    Reason.overflow: "{} of overflowing intermediates {differ}, which is allowed here",
}


def excuses_text(images: Sequence[ImageReport], hint: str = "") -> str:
    """What is excused, for the verdict line, with a hint at what a strict verdict fails; empty if nothing is."""
    totals: dict[tuple[bool, Reason], int] = {}
    defined = True
    for image in images:
        for name, count in image.counts.excused.items():
            kind = Reason.plus_inf if name == Reason.minus_inf.name else Reason[name]
            key = name in image.allowed, kind
            totals[key] = totals.get(key, 0) + count
            defined &= MODELS[image.model].nan_is_defined if image.model else True
    why = "a comparison may lose" if defined else "fast math allows"
    unnamed = sum(count for (is_allowed, _), count in totals.items() if not is_allowed)
    clauses: dict[bool, list[str]] = {False: [], True: []}
    for (is_allowed, kind), count in sorted(totals.items()):
        results = counted(count, "result")
        clauses[is_allowed].append(
            _CLAUSES[kind].format(results, differ="differs" if count == 1 else "differ", why=why)
        )
    if hint and unnamed:
        clauses[False][-1] += f" ({hint} {'it' if unnamed == 1 else 'them'})"
    return "; ".join([*clauses[False], *clauses[True]])
