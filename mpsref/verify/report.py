"""The result of a verification: as text for people, and as JSON for programs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from mpsref.arguments import checked
from mpsref.display import counted, enumerated, html_table, html_text, printable, table
from mpsref.errors import VerificationError
from mpsref.ulp import histogram_rows
from mpsref.verify.bias import Directed
from mpsref.verify.compare import Counts
from mpsref.verify.faults import Finding
from mpsref.verify.summary import Cause, causes_of, excuses_text
from mpsref.verify.tolerance import Tolerances, limit_json

__all__ = ["Cause", "Element", "EndToEnd", "ImageReport", "Report"]

PASSED, FAILED = "1;32", "1;31"
"""Colours of terminals."""

MOST_ROWS = 12
"""Rows of a histogram by powers of two; a longer one is by powers of 16."""


@dataclass(frozen=True)
class Element:
    """
    An element that differs from the reference.

    Attributes
    ----------
    image, y, x, channel : int
        Its place in the image.
    slice, lane : int
        Its place in the texture.
    sources : dict of str to str
        What the node read there, by image name.
    got, want : str
        Shortest decimal of the stored value; the code, for unorm.
    ulp : int or None
        The distance; None if only one is NaN, or one is infinite.
    beyond : bool
        Whether it is beyond the bounds.
    reason : str or None
        The name of the `Reason` why it differs, whether that excuses it or not; None if there is none.
    index : tuple of int or None
        Its place in the recorded array, if that is no image; it is then called by that.
    """

    image: int
    y: int
    x: int
    channel: int
    slice: int
    lane: int
    sources: dict[str, str]
    got: str
    want: str
    ulp: int | None
    beyond: bool
    reason: str | None = None
    index: tuple[int, ...] | None = None

    @property
    def place(self) -> str:
        """Where it is, for people."""
        if self.index is not None:
            return str(list(self.index))
        place = f"image {self.image}, y {self.y}, x {self.x}, channel {self.channel}"
        return f"({place}; slice {self.slice} lane {self.lane})"

    def __str__(self) -> str:
        sources = ", ".join(f"{name} = {value}" for name, value in self.sources.items())
        distance = "not comparable" if self.ulp is None else f"{self.ulp:,} ULP"
        return f"{self.place} {sources}: got {self.got}, want {self.want}, {distance}"


@dataclass(frozen=True)
class EndToEnd:
    """Distances of an image from the reference evaluated from the graph's sources on; the fields are as in `Counts`."""

    exact: int
    within_1: int
    within_4: int
    within_64: int
    largest: int
    nan_disagreements: int
    infinity_disagreements: int

    @classmethod
    @checked
    def of(cls, counts: Counts) -> EndToEnd:
        """These fields of some counts."""
        return cls(**{each.name: getattr(counts, each.name) for each in fields(cls)})


@dataclass(frozen=True)
class ImageReport:
    """
    The comparison of an image with what its node should have computed from its inputs.

    Attributes
    ----------
    name, node, channel_format : str
        The image, the class of its node, and its format.
    counts : Counts
        Elements by distance.
    worst : tuple of Element
        First those beyond the bounds, then the excused, then those within; each farthest first.
    neuron : str or None
        The neuron's type, also of its gradient; None for arithmetic.
    direction : str
        ``forward`` or ``gradient``.
    limit : str
        What passes, as text.
    model : str or None
        The model whose bounds it has; None under a plain tolerance.
    allowed : tuple of str
        The excuses that are allowed by name: those that a strict verdict keeps.
    is_strict : bool
        Whether a directed store is a failure.
    directed : Directed or None
        The evidence of a store that does not round to nearest.
    signed_errors : dict of str to float
        The mean error in ULP with its sign, see `mpsref.verify.bias.signed_errors`.
    others : tuple of str
        Other models that would pass the image, if it failed.
    end_to_end : EndToEnd or None
        Distances from the reference evaluated from the graph's sources on; None if these are the distances above.
    unrecorded : tuple of str
        The images between the recorded ones and this: their nodes are judged together with its own.
    findings : tuple of Finding
        The likely faults, the likeliest first; empty if it passed, or none were looked for.
    histogram : dict of str to int
        Elements at most so many ULP away, and more than half of that, by powers of two; ``0`` and ``1`` are those at
        just that distance. Elements that are not comparable are left out.
    reading : str
        Which of several legal readings fits the device, where there are some.
    note : str
        What a layer within its bounds seems to have computed with, if not what was asked for.
    """

    name: str
    node: str
    channel_format: str
    counts: Counts
    worst: tuple[Element, ...]
    neuron: str | None = None
    direction: str = "forward"
    limit: str = ""
    model: str | None = None
    allowed: tuple[str, ...] = ()
    is_strict: bool = False
    directed: Directed | None = None
    signed_errors: dict[str, float] = field(default_factory=dict)
    others: tuple[str, ...] = ()
    end_to_end: EndToEnd | None = None
    unrecorded: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    histogram: dict[str, int] = field(default_factory=dict)
    reading: str = ""
    note: str = ""

    @property
    def passed(self) -> bool:
        """Whether every element is within the bounds, or excused, and nothing is held against the image as a whole."""
        return self.counts.beyond == 0 and not (self.is_strict and self.directed)

    @property
    def failure(self) -> str:
        """What is wrong with it, in a few words; for an image that has not passed."""
        counts = self.counts
        are = "is" if counts.beyond == 1 else "are"
        wrong = f"{counts.beyond:,} of {counted(counts.elements, 'element')} {are} beyond the bounds"
        return wrong if counts.beyond else str(self.directed)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What is to be known of it besides the verdict: which reading fits, and notes."""
        notes = [self.note, "" if self.directed is None else str(self.directed)]
        return tuple(filter(None, (self.reading, *(note and f"note: {note}" for note in notes))))

    @property
    def wrong_sources(self) -> tuple[str, ...]:
        """The images that are to blame for all that is out of bounds, instead of the node; empty if it is itself."""
        causes = [finding for finding in self.findings if finding.rank != "alternative"]
        if not causes or not all(finding.wrong_sources and not finding.contradicted for finding in causes):
            return ()
        left = self.counts.beyond - sum(finding.explained for finding in causes)
        return tuple(dict.fromkeys(name for f in causes for name in f.wrong_sources)) if left <= 0 else ()

    @property
    def excused(self) -> int:
        """How many elements are excused."""
        return sum(self.counts.excused.values())


PART = ", from image"
"""What follows the name of an image of which only some of the batch were judged."""

_COLUMNS = {
    "elements": "elements",
    "exact": "exact",
    "largest": "largest",
    "excused": "excused",
    "beyond": "beyond",
}

_SHOWN_END_TO_END = {
    "exact": "exact",
    "within_1": "<= 1 ULP",
    "within_4": "<= 4 ULP",
    "within_64": "<= 64 ULP",
    "largest": "largest",
    "nan_disagreements": "NaN",
    "infinity_disagreements": "inf",
}


@dataclass(frozen=True)
class Report:
    """
    The result of a verification.

    Attributes
    ----------
    recording, device : str
        What was verified.
    tolerance : Tolerances
        What passes.
    images : tuple of ImageReport
        Every recorded image that the graph computes, in the order of evaluation.
    faults : bool
        Whether faults were looked for.
    missing : dict of str to str
        Images that were not judged, each with the reason, if that was allowed.
    """

    recording: str
    device: str
    tolerance: Tolerances
    images: tuple[ImageReport, ...]
    faults: bool = True
    missing: dict[str, str] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether every element of every image is within the bounds, or excused."""
        return all(image.passed for image in self.images)

    @property
    def first_wrong(self) -> ImageReport | None:
        """The first image, in the order of evaluation, whose own node is wrong."""
        return next((image for image in self.images if not image.passed), None)

    @property
    def not_accused(self) -> tuple[str, ...]:
        """For each image that is wrong only as its sources are recorded: a line that says so."""
        return tuple(
            f"{image.name} is right but for what is recorded of {' and '.join(image.wrong_sources)}"
            for image in self.images
            if image.wrong_sources
        )

    @property
    def causes(self) -> tuple[Cause, ...]:
        """Why elements differ, over all images."""
        return causes_of(self.images, faults=self.faults)

    @property
    def other_models(self) -> tuple[str, ...]:
        """Models that would pass the images that fail; empty if none fails."""
        failed = [set(image.others) for image in self.images if not image.passed]
        return tuple(sorted(set.intersection(*failed))) if failed else ()

    @property
    def hint(self) -> str:
        """That another model would pass it; empty if none would."""
        others = " or ".join(self.other_models)
        return others and f"the images that fail would pass under {others} (--bounds)"

    @property
    def unjudged(self) -> str:
        """How many other images were not judged, and of how many only a part was, as text."""
        parts = sum(PART in name for name in self.missing)
        whole = len(self.missing) - parts
        both = (whole, "other image", ""), (parts, "part of an image", "parts of images")
        return enumerated([counted(*each) for each in both if each[0]])

    @property
    def verdict(self) -> str:
        """One line."""
        total = sum(image.counts.elements for image in self.images)
        excused = sum(image.excused for image in self.images)
        first, elements = self.first_wrong, counted(total, "element")
        images, excuses = counted(len(self.images), "image"), excuses_text(self.images)
        tail = f"; {self.unjudged} not judged" if self.missing else ""
        if first is None:
            if not excused:
                all_of_them = f"all {elements}" if total > 1 else elements
                return f"PASS: {all_of_them} of {images} {'are' if total > 1 else 'is'} within bounds{tail}"
            rest = total - excused
            are = f"{rest:,} {'is' if rest == 1 else 'are'}" if rest else "none are"
            within = f"of {elements} of {images} {are} within bounds"
            return f"PASS: {within}; {excuses_text(self.images, '--strict fails')}{tail}"
        beyond = [image for image in self.images if not image.passed]
        wrong = sum(image.counts.beyond for image in beyond)
        directed = sum(image.directed is not None and image.is_strict for image in beyond)
        if not wrong:
            within = f"all {elements} of {images} are within bounds"
            return f"FAIL: {within}, but {counted(directed, 'image')} not rounded to nearest, first {first.name}{tail}"
        line = (
            f"FAIL: {wrong:,} of {elements} {'is' if wrong == 1 else 'are'} beyond the bounds, in {len(beyond)} of "
            f"{images}, first in {first.name} ({first.node})"
        )
        refused = sum(image.counts.refused.get("overflow", 0) for image in beyond)
        if refused:
            them = "it" if refused == 1 else "them"
            line += f"; {refused:,} because an intermediate overflows (--allow overflow excuses {them})"
        if directed:
            line += f"; {counted(directed, 'image')} not rounded to nearest"
        return f"{line}; {excuses}{tail}" if excuses else f"{line}{tail}"

    def check(self) -> None:
        """Raise `VerificationError`, which carries this report, unless it passed."""
        if not self.passed:
            raise VerificationError(f"{self.recording}: {self.verdict}", self)

    @checked
    def text(self, *, every_image: bool = False, colour: bool = False) -> str:
        """
        The report for people: a table; for images out of bounds details and the likely fault; the verdict last.

        Parameters
        ----------
        every_image : bool
            Whether to list the worst elements of images within bounds too.
        colour : bool
            Whether to colour the verdict for a terminal.
        """
        lines = [printable(line) for line in self._lines(every_image=every_image)]
        if colour:
            word, colon, rest = lines[-1].partition(":")
            lines[-1] = f"\x1b[{PASSED if self.passed else FAILED}m{word}\x1b[0m{colon}{rest}"
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        head = ["image", "node", "format", "verdict", *_COLUMNS.values()]
        rows = [
            [
                *row[:3],
                "within" if image.passed and not image.excused else "excused" if image.passed else "beyond",
                *row[3:],
            ]
            for image, row in zip(self.images, self._rows(), strict=True)
        ]
        facts = f"{self.recording}; {self.device}; bounds: {self.tolerance}"
        return f"<p><strong>{html_text(self.verdict, 1000)}</strong></p>{html_table(facts, [head, *rows])}"

    def to_json(self) -> dict[str, Any]:
        """The whole report for programs, as JSON."""
        return {
            "format": "mpsref-report",
            "version": 1,
            "recording": self.recording,
            "device": self.device,
            "tolerance": limit_json(self.tolerance.default)
            | {
                "overrides": [
                    {"image": o.image, "neuron": o.neuron, "format": o.format, "direction": o.direction}
                    | limit_json(o.limit)
                    for o in self.tolerance.overrides
                ]
            },
            "passed": self.passed,
            "verdict": self.verdict,
            "causes": [asdict(cause) for cause in self.causes],
            "other_models": list(self.other_models),
            "first_wrong": None if self.first_wrong is None else self.first_wrong.name,
            "missing": self.missing,
            "images": {
                image.name: {
                    "node": image.node,
                    "neuron": image.neuron,
                    "direction": image.direction,
                    "channel_format": image.channel_format,
                    "limit": image.limit,
                    "passed": image.passed,
                    **asdict(image.counts),
                    "end_to_end": None if image.end_to_end is None else asdict(image.end_to_end),
                    "unrecorded": list(image.unrecorded),
                    "reading": image.reading,
                    "note": image.note,
                    "histogram": image.histogram,
                    "signed_errors": image.signed_errors,
                    "directed": None if image.directed is None else asdict(image.directed),
                    "faults": [asdict(finding) | {"fits": finding.fits} for finding in image.findings],
                    "worst": [asdict(element) for element in image.worst],
                }
                for image in self.images
            },
        }

    def _lines(self, *, every_image: bool) -> Iterator[str]:
        yield f"recording  {self.recording}"
        yield f"device     {self.device}"
        yield f"bounds     {self.tolerance}"
        yield ""
        head = ["image", "node", "format", *_COLUMNS.values()]
        yield from table([head, *self._rows()], 3)
        if self.missing:
            yield ""
            yield f"{self.unjudged.replace('other ', '')} not judged:"
            yield from table([[*each] for each in self.missing.items()], 2, indent="  ")
        yield from self._end_to_end_lines()
        for image in self.images:
            if not image.passed:
                yield from _wrong_lines(image, faults=self.faults)
            yield from _image_lines(image, every_image=every_image)
        yield from self._blame_lines()
        yield from self._cause_lines()
        yield ""
        yield self.verdict

    def _rows(self) -> list[list[str]]:
        return [
            [image.name, image.node, image.channel_format]
            + [f"{image.excused if name == 'excused' else getattr(image.counts, name):,}" for name in _COLUMNS]
            for image in self.images
        ]

    def _end_to_end_lines(self) -> Iterator[str]:
        """Distances from the sources on, of images whose nodes read other inputs than the reference's."""
        rows = [
            [image.name, *(f"{getattr(image.end_to_end, name):,}" for name in _SHOWN_END_TO_END)]
            for image in self.images
            if image.end_to_end is not None
        ]
        if rows and not self.passed:
            yield ""
            yield "from the graph's sources on, errors of all nodes together:"
            yield from table([["image", *_SHOWN_END_TO_END.values()], *rows], 1)

    def _cause_lines(self) -> Iterator[str]:
        """The causes over all images, remarks, and another model; one cause of one image is not said again."""
        if max(len(self.images), len(self.causes)) > 1 and self.causes:
            yield ""
            yield "by cause:"
            for cause in self.causes:
                yield f"  {cause}"
                if cause.example:
                    yield f"    {cause.example}"
        remarks = [f"{image.name}: {remark}" for image in self.images for remark in image.remarks]
        for lines in (remarks, [self.hint] if self.hint else []):
            if lines:
                yield ""
                yield from lines

    def _blame_lines(self) -> Iterator[str]:
        first = self.first_wrong
        if first is None:
            return
        yield ""
        yield f"first wrong: {first.name} ({first.node}); every node is judged by what it read"
        yield from self.not_accused
        if first.unrecorded:
            names = ", ".join(first.unrecorded)
            yield (
                f"it may also be a node that makes {names}, not recorded: set export_from_graph of the image nodes, "
                "and add what the device writes to the recording"
            )


def _image_lines(image: ImageReport, *, every_image: bool) -> Iterator[str]:
    """The worst elements within bounds, if they are asked for."""
    rest = [element for element in image.worst if not element.beyond]
    if every_image and rest:
        yield ""
        yield f"{image.name}: {'within the bounds or excused' if image.excused else 'within the bounds'}, the worst:"
        yield from (f"  {element}" for element in rest)


def _by_sixteens(distances: dict[int, int]) -> dict[int, int]:
    """The histogram by powers of 16."""
    coarse: dict[int, int] = {}
    for most, count in distances.items():
        limit = most if most < 2 else 1 << (-(-(most.bit_length() - 1) // 4) * 4)
        coarse[limit] = coarse.get(limit, 0) + count
    return coarse


def _wrong_lines(image: ImageReport, *, faults: bool) -> Iterator[str]:
    """What is wrong with an image: the likely faults, the worst elements, and how far all are."""
    counts = image.counts
    yield ""
    yield f"{image.name}: {counted(counts.beyond, 'element')} of {counts.elements:,} beyond the bounds"
    if image.findings:
        first, *more = image.findings
        yield f"  fault: {first.headline}"
        yield f"    {first.sentence}"
        if first.example is not None:
            yield f"    for example {first.example}"
        yield from (f"  {finding.headline}" for finding in more)
    elif faults and image.unrecorded:
        yield f"  fault: not looked for; record {', '.join(image.unrecorded)} to have it looked for"
    shown = [element for element in image.worst if element.beyond]
    if shown:
        yield "  the worst:"
        yield from (f"    {element}" for element in shown)
    others = {"NaN": counts.nan_disagreements, "infinity": counts.infinity_disagreements}
    distances = {int(most): count for most, count in image.histogram.items()}
    if len(distances) > MOST_ROWS:
        distances = _by_sixteens(distances)
    if distances or any(others.values()):
        yield from table(histogram_rows(distances, counts.elements, others), 1, indent="  ")
