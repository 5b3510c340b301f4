"""What a report says in a few lines: the verdict's excuses, and the causes over all images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mpsref.verify.models import MODELS
from mpsref.verify.reasons import Reason

if TYPE_CHECKING:
    from mpsref.verify.report import ImageReport

__all__ = ["Cause", "causes_of", "excuses_text"]

UNKNOWN = "no cause known"


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


def causes_of(images: Sequence[ImageReport]) -> tuple[Cause, ...]:
    """The causes: of elements beyond the bounds, then excuses, then latitudes; of each the most frequent first."""
    found: dict[tuple[str, str], list[tuple[ImageReport, int, str | None]]] = {}
    for image in images:
        for verdict, cause, name, count in _of_image(image):
            found.setdefault((verdict, cause), []).append((image, count, name))
    causes = [
        Cause(cause, where[0][2], verdict, len(where), sum(n for _, n, _ in where), _example(verdict, where))
        for (verdict, cause), where in found.items()
    ]
    return tuple(sorted(causes, key=lambda c: (_ORDER.index(c.verdict), -c.elements)))


_ORDER = ("beyond", "excused", "within")


def _of_image(image: ImageReport) -> Iterator[tuple[str, str, str | None, int]]:
    counts = image.counts
    for verdict, named in (("beyond", counts.refused), ("excused", counts.excused), ("within", counts.latitude)):
        for name, count in named.items():
            yield verdict, Reason[name].text, name, count
    rest = counts.beyond - sum(counts.refused.values())
    if rest:
        first = image.findings[0] if image.findings else None
        yield "beyond", first.name if first is not None and first.fits else UNKNOWN, None, rest


def _example(verdict: str, where: list[tuple[ImageReport, int, str | None]]) -> str:
    for image, _, name in where:
        for element in image.worst:
            if element.reason == name and element.beyond == (verdict == "beyond"):
                return f"{image.name} {element}"
    return ""


_CLAUSES: Mapping[Reason, str] = {
    Reason.order: "{} in which one order of a product overflows and another does not",
    Reason.nan: "{} of NaN inputs {differ}, which {why}",
    Reason.plus_inf: "{} of infinite inputs {differ}, where an operation is invalid",
    Reason.domain: "{} outside the domain {differ}, which {why}",
    Reason.pole: "{} at a pole {differ}",
    Reason.texture: "{} where NaN is 0, as a texture may have it",
    Reason.overflow: "{} of overflowing intermediates {differ}, which is allowed here",
}


def excuses_text(images: Sequence[ImageReport]) -> str:
    """What is excused, for the verdict line: empty if nothing is."""
    totals: dict[str, int] = {}
    defined = True
    for image in images:
        for name, count in image.counts.excused.items():
            kind = Reason.plus_inf.name if name == Reason.minus_inf.name else name
            totals[kind] = totals.get(kind, 0) + count
            defined &= MODELS[image.model].nan_is_defined if image.model else True
    why = "a comparison may lose" if defined else "fast math allows"
    clauses = []
    for name, count in sorted(totals.items(), key=lambda item: Reason[item[0]]):
        results = f"{count:,} result{'s' if count != 1 else ''}"
        differ = "differ" if count != 1 else "differs"
        clauses.append(_CLAUSES[Reason[name]].format(results, differ=differ, why=why))
    return "; ".join(clauses)
