"""What a verification found: as text for people, and as JSON for programs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from mpsref.errors import VerificationError
from mpsref.verify.compare import Counts, Tolerance

__all__ = ["Element", "ImageReport", "Report", "printable"]


@dataclass(frozen=True)
class Element:
    """
    One element that is not what the reference computes.

    Attributes
    ----------
    image, y, x, channel : int
        Where it is.
    slice, lane : int
        Where that is in the texture.
    sources : dict of str to str
        What the node read there, in the reference, by image name.
    got, want : str
        Shortest decimal of the stored value; the code, for unorm.
    ulp : int or None
        The distance; None if one is NaN, or one infinite.
    beyond : bool
        Whether it is outside the tolerance.
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

    def __str__(self) -> str:
        place = f"image {self.image}, y {self.y}, x {self.x}, channel {self.channel}"
        sources = ", ".join(f"{name} = {value}" for name, value in self.sources.items())
        distance = "not comparable" if self.ulp is None else f"{self.ulp:,} ULP"
        return f"({place}; slice {self.slice} lane {self.lane}) {sources}: got {self.got}, want {self.want}, {distance}"


@dataclass(frozen=True)
class ImageReport:
    """
    The comparison of one image.

    Attributes
    ----------
    name, node, channel_format : str
        The image, the class of the node that makes it, and how it is stored.
    counts : Counts
        How many elements are how near.
    worst : tuple of Element
        The elements that are farthest away, farthest first.
    """

    name: str
    node: str
    channel_format: str
    counts: Counts
    worst: tuple[Element, ...]

    @property
    def passed(self) -> bool:
        """Whether every element is within the tolerance."""
        return self.counts.beyond == 0


def printable(text: str) -> str:
    """Text from a file, with everything escaped that could move the cursor or pass for another line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


_COLUMNS = {
    "elements": "elements",
    "exact": "exact",
    "within_1": "<= 1 ULP",
    "within_4": "<= 4 ULP",
    "within_64": "<= 64 ULP",
    "largest": "largest",
    "nan_disagreements": "NaN",
    "infinity_disagreements": "inf",
    "beyond": "beyond",
}


@dataclass(frozen=True)
class Report:
    """
    What a verification found.

    Attributes
    ----------
    recording, device : str
        What was verified.
    tolerance : Tolerance
        What passes.
    images : tuple of ImageReport
        Every image that the recording holds and the graph computes, in the order of evaluation.
    """

    recording: str
    device: str
    tolerance: Tolerance
    images: tuple[ImageReport, ...]

    @property
    def passed(self) -> bool:
        """Whether every element of every image is within the tolerance."""
        return all(image.passed for image in self.images)

    @property
    def verdict(self) -> str:
        """One line."""
        beyond = [image for image in self.images if not image.passed]
        elements = sum(image.counts.elements for image in self.images)
        if not beyond:
            return f"PASS: all {elements:,} elements of {len(self.images)} images are within bounds"
        wrong = sum(image.counts.beyond for image in beyond)
        return (
            f"FAIL: {wrong:,} of {elements:,} elements are beyond the bounds, in {len(beyond)} of "
            f"{len(self.images)} images, first in {beyond[0].name}"
        )

    def check(self) -> None:
        """Raise `VerificationError`, which carries this report, unless it passed."""
        if not self.passed:
            raise VerificationError(f"{self.recording}: {self.verdict}", self)

    def text(self, *, every_image: bool = False) -> str:
        """
        For people: a table, the worst elements of the images out of bounds, the verdict last.

        Parameters
        ----------
        every_image : bool
            Whether to list the worst elements of images within bounds too.
        """
        return "\n".join(printable(line) for line in self._lines(every_image=every_image))

    def to_json(self) -> dict[str, Any]:
        """For programs: everything, as `json` can write it."""
        return {
            "format": "mpsref-report",
            "version": 1,
            "recording": self.recording,
            "device": self.device,
            "tolerance": asdict(self.tolerance),
            "passed": self.passed,
            "verdict": self.verdict,
            "images": {
                image.name: {
                    "node": image.node,
                    "channel_format": image.channel_format,
                    "passed": image.passed,
                    **asdict(image.counts),
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
        rows = [
            [image.name, image.node, image.channel_format]
            + [f"{getattr(image.counts, name):,}" for name in _COLUMNS]
            for image in self.images
        ]  # fmt: skip
        widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
        for row in [head, *rows]:
            cells = [
                cell.ljust(w) if i < 3 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
            ]
            yield "  ".join(cells).rstrip()
        for image in self.images:
            shown = [element for element in image.worst if element.beyond or every_image]
            if shown:
                yield ""
                yield f"{image.name}: {image.counts.beyond:,} beyond the bounds; the worst:"
                yield from (f"  {element}" for element in shown)
        yield ""
        yield self.verdict
