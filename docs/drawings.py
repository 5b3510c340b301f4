"""Drawings of how images lie in textures and buffers, of what the package is for; and plots of the neurons."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

import mpsref as mps
from mpsref import teach
from mpsref.storage import storage_of
from mpsref.ulp import ulp_distance
from mpsref.verify import Report, verify

INK, FAINT, PAPER = "#1b2733", "#5c6b7a", "#f7f9fb"
RIGHT, WRONG = "#d5ecd7", "#f6c9c4"
RECORDING = Path(__file__).parents[1] / "examples" / "gpu-run" / "precise" / "chain-float32.json"
CHANNELS = ("#9ecae1", "#fdbe85", "#a1d99b", "#d4b9da", "#fde08a", "#f4b6c2", "#a6dcd6", "#c9c9c9", "#c5b0d5")
SIDE, GAP = 56, 14


class Drawing:
    """Cells and words, on paper of its own, so that it can be read on a dark page too."""

    def __init__(self, width: int, height: int, title: str) -> None:
        self._head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
            f'height="{height}" role="img" font-family="sans-serif" font-size="14">\n<title>{title}</title>\n'
            f'<rect width="{width}" height="{height}" rx="8" fill="{PAPER}"/>\n'
        )
        self._parts: list[str] = []

    def cell(self, x: float, y: float, channel: int | None, text: str) -> None:
        """One component or element; of no channel where it is padding."""
        fill = "#ffffff" if channel is None else CHANNELS[channel]
        dash = ' stroke-dasharray="4 3"' if channel is None else ""
        self._parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{SIDE}" height="{SIDE}" fill="{fill}" stroke="{FAINT}"{dash}/>'
        )
        self.words(x + SIDE / 2, y + SIDE / 2 + 5, text, FAINT if channel is None else INK, "middle")

    def box(self, x: float, y: float, width: float, height: float, *lines: str, fill: str = "#ffffff") -> None:
        """A named thing."""
        self._parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="5" fill="{fill}" stroke="{FAINT}"/>'
        )
        for i, line in enumerate(lines):
            self.words(x + width / 2, y + height / 2 + 5 + 18 * (i - (len(lines) - 1) / 2), line, anchor="middle")

    def line(self, *points: tuple[float, float], colour: str = FAINT) -> None:
        """Straight from point to point."""
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self._parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')

    def dot(self, x: float, y: float) -> None:
        """A point."""
        self._parts.append(f'<circle cx="{x:g}" cy="{y:g}" r="4.5" fill="{INK}"/>')

    def words(self, x: float, y: float, text: str, colour: str = INK, anchor: str = "start") -> None:
        """Text whose base line begins, ends or has its middle there."""
        self._parts.append(f'<text x="{x:g}" y="{y:g}" fill="{colour}" text-anchor="{anchor}">{text}</text>')

    def svg(self) -> str:
        """The file."""
        return self._head + "\n".join(self._parts) + "\n</svg>\n"


def _numbered(images: int, channels: int, width: int = 1) -> mps.MPSImage:
    """An image whose elements say from which channel they are, counted from 1, so that 0 is padding."""
    array = np.tile(np.arange(1, channels + 1, dtype=np.uint8), (images, 1, width, 1))
    return mps.MPSImage.from_array(array)


def slices() -> str:
    """A pixel of nine channels in three slices."""
    texture = _numbered(1, 9).texture[:, 0, 0]
    drawing = Drawing(96 + 4 * SIDE + 24, 48 + len(texture) * (SIDE + GAP), "Nine feature channels in three slices")
    for lane in range(4):
        drawing.words(96 + (lane + 0.5) * SIDE, 30, f"lane {lane}", FAINT, "middle")
    for s, texel in enumerate(texture):
        y = 42 + s * (SIDE + GAP)
        drawing.words(20, y + SIDE / 2 + 5, f"slice {s}")
        for lane, value in enumerate(texel):
            channel = int(value) - 1 if value else None
            drawing.cell(96 + lane * SIDE, y, channel, f"c{channel}" if value else "0")
    return drawing.svg()


def batch() -> str:
    """Two images of six channels in four slices."""
    texture = _numbered(2, 6).texture[:, 0, 0]
    drawing = Drawing(180 + 4 * SIDE + 24, 48 + len(texture) * (SIDE + GAP), "Two images of six channels, four slices")
    for lane in range(4):
        drawing.words(180 + (lane + 0.5) * SIDE, 30, f"lane {lane}", FAINT, "middle")
    for s, texel in enumerate(texture):
        y = 42 + s * (SIDE + GAP)
        drawing.words(20, y + SIDE / 2 + 5, f"image {s // 2}, slice {s}")
        for lane, value in enumerate(texel):
            channel = int(value) - 1 if value else None
            drawing.cell(180 + lane * SIDE, y, channel, f"c{channel}" if value else "0")
    return drawing.svg()


def layouts() -> str:
    """The same two pixels of three channels in the two orders of a buffer."""
    pixels, channels = 2, 3
    image = mps.MPSImage.from_array((1 + np.arange(pixels * channels, dtype=np.uint8)).reshape(1, 1, pixels, channels))
    drawing = Drawing(40 + pixels * channels * SIDE, 2 * (SIDE + 62) + 8, "The two orders of bytes in a buffer")
    for row, layout in enumerate(mps.MPSDataLayout):
        y = 20 + row * (SIDE + 62)
        drawing.words(20, y + 14, layout.name)
        for place, element in enumerate(image.read_bytes(layout)):
            x, channel = divmod(element - 1, channels)
            drawing.cell(20 + place * SIDE, y + 26, channel, f"x{x} c{channel}")
            drawing.words(20 + (place + 0.5) * SIDE, y + 26 + SIDE + 17, str(place), FAINT, "middle")
    return drawing.svg()


def layers() -> str:
    """The parts of the package, each above all that it imports."""
    below = _imports()
    height: dict[str, int] = {}

    def level(part: str) -> int:
        if part not in height:
            height[part] = 1 + max(map(level, below[part]), default=-1)
        return height[part]

    rows = [[part for part in sorted(below) if level(part) == i] for i in range(max(map(level, below)) + 1)][::-1]
    widest = max(sum(9 * len(part) + 46 for part in row) for row in rows)
    drawing = Drawing(widest + 24, 20 + 48 * len(rows), "The layers of the package")
    for i, row in enumerate(rows):
        x = 24.0
        for part in row:
            drawing.box(x, 20 + 48 * i, 9 * len(part) + 28, 34, part)
            x += 9 * len(part) + 46
    return drawing.svg()


def verdict() -> str:
    """A recording of a chain, image by image: green what is right, red what is not."""
    report: Report = verify(RECORDING, "ulp=4", faults=False)
    drawing = Drawing(420, 152, "The images of a recording; one is wrong")
    half = len(report.images) // 2
    for i, image in enumerate(report.images):
        column, row = (i, 0) if i < half else (2 * half - 1 - i, 1)
        x, y = 16 + column * 98, 16 + row * 66
        if column:
            drawing.line((x - 12, y + 27), (x, y + 27))
        text = "right" if image.passed else f"{image.counts.beyond:,} wrong"
        drawing.box(x, y, 86, 54, image.name, text, fill=RIGHT if image.passed else WRONG)
    drawing.line((396, 43), (408, 43), (408, 109), (396, 109))
    return drawing.svg()


def _axes(drawing: Drawing, values: Iterable[int], low: float, high: float) -> Callable[[Any], Any]:
    """An x axis with its numbers; returns where on it a number is."""

    def place(x: Any) -> Any:
        return 64 + 340 * (x - low) / (high - low)

    drawing.line((64, 34), (64, 122), (404, 122))
    for value in values:
        drawing.words(place(value), 142, f"{value}", FAINT, "middle")
    return place


def tangent() -> str:
    """The curve of an expression, a point on it, and the tangent there, whose slope is the gradient."""
    x = teach.input("x")
    y = teach.sigmoid(teach.tanh(x, b=0.75) + x)
    drawing = Drawing(420, 152, "An expression, a point on its curve, and the gradient there")
    place = _axes(drawing, range(-4, 5, 2), -4.5, 4.5)
    at = np.linspace(-4.5, 4.5, 61)
    drawing.line(*zip(place(at), 120 - 80 * teach.backprop(y, x=at).y, strict=True))
    t = teach.backprop(y, x=0.5)
    ends = np.float64([-0.6, 1.35])
    drawing.line(*zip(place(ends), 120 - 80 * (t.y + t.dx * (ends - 0.5)), strict=True), colour="#b35f14")
    drawing.dot(place(0.5), 120 - 80 * t.y)
    drawing.words(234, 22, repr(y), anchor="middle")
    drawing.words(place(1), 120 - 80 * t.y + 10, f"y = {t.y:.4f}")
    drawing.words(place(1), 120 - 80 * t.y + 28, f"dx = {t.dx:.4f}", "#b35f14")
    return drawing.svg()


def attack() -> str:
    """How far geLU, computed as its formula is written, is off in float32: in ULP, on a logarithmic scale."""
    x = np.linspace(-13, 3, 1601, dtype=np.float32)
    gelu = mps.MPSNNNeuronDescriptor(mps.MPSCNNNeuronType.geLU)
    plain, exact = (mps.neuron.forward(gelu, x, mode=mode) for mode in ("stepwise", "ideal"))
    off = ulp_distance(plain, exact, storage_of(x, "x"))[1:].reshape(160, 10).max(1)
    drawing = Drawing(420, 152, "The error of a plain geLU, by its input")
    place = _axes(drawing, range(-12, 4, 3), -13, 3)
    for power, name in ((0, "1 ULP"), (3, "10^3"), (6, "10^6"), (9, "10^9")):
        drawing.words(58, 120 - 8 * power, name, FAINT, "end")
    drawing.line(
        *zip(place(x[5:1600:10].astype(float)), 115 - 8 * np.log10(np.maximum(off, 1)), strict=True), colour="#b3372c"
    )
    drawing.words(234, 22, "error of x/2 (1 + erf(x / sqrt 2)), float32", anchor="middle")
    return drawing.svg()


def _imports() -> dict[str, set[str]]:
    """For each part of the package, a module or a folder of them, those that it imports; below it, as a test holds."""
    package = Path(mps.__file__).parent
    found: dict[str, set[str]] = {}
    for path in package.rglob("*.py"):
        part = path.relative_to(package).parts[0].removesuffix(".py")
        if part.startswith("__"):
            continue
        others = found.setdefault(part, set())
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "mpsref":
                inner = (node.module or "").split(".")[1:2]
                others.update(inner or (alias.name for alias in node.names))
    return {part: (others & found.keys()) - {part} for part, others in found.items()}


DRAWINGS: dict[str, Callable[[], str]] = {
    "slices.svg": slices,
    "batch.svg": batch,
    "layouts.svg": layouts,
    "layers.svg": layers,
    "verify.svg": verdict,
    "learn.svg": tangent,
    "test.svg": attack,
}

THEMES = {"light": "default", "dark": "dark_background"}


def plots(folder: Path) -> None:
    """
    Draw every neuron with its derivative, once for a light page and once for a dark one.

    Parameters
    ----------
    folder : Path
        Where to write the files.
    """
    # Here, because the drawings do without.
    import matplotlib as mpl  # noqa: PLC0415
    import matplotlib.style  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    from mpsref.teach import plot_neuron  # noqa: PLC0415

    folder.mkdir(exist_ok=True)
    for theme, style in THEMES.items():
        with mpl.style.context(style), mpl.rc_context({"svg.hashsalt": "mpsref"}):
            for neuron_type, row in mps.NEURONS.items():
                figure = Figure(figsize=(5.6, 3.4), layout="constrained")
                plot_neuron(
                    mps.MPSNNNeuronDescriptor(neuron_type, data=[0.25] if row.per_channel else None),
                    ax=figure.subplots(),
                )
                figure.savefig(folder / f"{neuron_type.name}-{theme}.svg", metadata={"Date": None}, transparent=True)
