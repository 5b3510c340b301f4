"""Output for people: safe text, tables in columns, and pictures of feature channels for notebooks."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Callable, Iterable, Sequence
from html import escape
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["aligned", "html_table", "html_text", "image_html", "printable"]

LONGEST_CELL, MOST_ROWS = 160, 200
"""Characters of a cell and rows of a table in a notebook, at most."""


def aligned(rows: Iterable[Sequence[str]], left: int) -> list[str]:
    """The lines of a table of printable cells; the first `left` columns are left-aligned, the others right-aligned."""
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def printable(text: str) -> str:
    """Text from a file, with escapes for whatever could move the cursor or pass for another line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def html_text(text: object, longest: int) -> str:
    """Printable text for HTML and XML, with markup escaped, cut to at most `longest` characters."""
    safe = printable(str(text))
    return escape(safe if len(safe) <= longest else f"{safe[: longest - 1]}…")


def html_table(caption: str, rows: Iterable[Sequence[object]]) -> str:
    """A table for a notebook; the first row names the columns, the first column the rows."""
    head, *body = [[html_text(cell, LONGEST_CELL) for cell in row] for row in rows]
    columns = "".join(f'<th scope="col">{name}</th>' for name in head)
    lines = [
        f'<tr><th scope="row">{name}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'
        for name, *cells in body[:MOST_ROWS]
    ]
    rest = len(body) - len(lines)
    note = f"<p>and {rest:,} more</p>" if rest else ""
    return (
        f"<table><caption>{html_text(caption, 2 * LONGEST_CELL)}</caption><thead><tr>{columns}</tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table>{note}"
    )


MOST_NUMBERS, MOST_CHANNELS, LARGEST, SHOWN = 64, 12, 64, 96
"""Elements written as numbers, pictures, pixels of a picture's side, and its size on the page, at most."""

Decode: TypeAlias = Callable[[npt.NDArray[Any]], npt.NDArray[np.float64]]
"""From stored elements to their values."""

NAN, INFINITE = (204, 121, 167), (230, 159, 0)
"""Colours of NaN and infinities."""


def image_html(title: str, stored: npt.NDArray[Any], decode: Decode) -> str:
    """
    An image stored as (N, H, W, C): its numbers if they are few, else pictures of its first channels.

    The smallest number is black and the largest white; a large image is shown by every n-th pixel.
    """
    n, height, width, channels = stored.shape
    if stored.size <= MOST_NUMBERS:
        values = decode(stored)
        rows: list[list[object]] = [["image, y, x", *(f"channel {c}" for c in range(channels))]]
        for i, y, x in np.ndindex(n, height, width):
            rows.append([f"{i}, {y}, {x}", *(f"{value:.6g}" for value in values[i, y, x])])
        return html_table(title, rows)
    step = -(-max(height, width) // LARGEST)
    shown = [(i, c) for i in range(n) for c in range(channels)][:MOST_CHANNELS]
    pictures = decode(np.stack([stored[i, ::step, ::step, c] for i, c in shown]))
    finite = pictures[np.isfinite(pictures)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    scale = max(pictures.shape[1:])
    figures = []
    for (i, c), picture in zip(shown, pictures, strict=True):
        name = f"channel {c}" if n == 1 else f"image {i}, channel {c}"
        data = base64.b64encode(_png(_colours(picture, low, high))).decode()
        h, w = (max(1, round(SHOWN * side / scale)) for side in picture.shape)
        figures.append(
            '<figure style="display:inline-block;margin:4px">'
            f'<img alt="{name}" width="{w}" height="{h}" style="image-rendering:pixelated;border:1px solid #767676" '
            f'src="data:image/png;base64,{data}"><figcaption>{name}</figcaption></figure>'
        )
    rest = n * channels - len(shown)
    facts = [f"black {low:.6g}, white {high:.6g}"]
    if finite.size < pictures.size:
        facts.append("pink NaN, orange infinite")
    if step > 1:
        facts.append(f"every {step} pixels")
    if rest:
        facts.append(f"{rest:,} more channels")
    return f"<div><p>{html_text(title, 160)}: {'; '.join(facts)}</p>{''.join(figures)}</div>"


def _colours(picture: npt.NDArray[np.float64], low: float, high: float) -> npt.NDArray[np.uint8]:
    # Halves, since the distance of two finite numbers may overflow.
    span = high / 2 - low / 2
    finite = np.where(np.isfinite(picture), picture, low)
    grey = np.rint(255 * ((finite / 2 - low / 2) / span if span > 0 else np.full(picture.shape, 0.5)))
    colours = np.repeat(grey.astype(np.uint8)[..., np.newaxis], 3, axis=-1)
    colours[np.isnan(picture)] = NAN
    colours[np.isinf(picture)] = INFINITE
    return colours


def _png(colours: npt.NDArray[np.uint8]) -> bytes:
    height, width, _ = colours.shape
    rows = np.concatenate([np.zeros((height, 1), np.uint8), colours.reshape(height, -1)], axis=1)
    chunks: list[tuple[bytes, Any]] = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows.tobytes(), 9)),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
