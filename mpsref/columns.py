"""Text that people read: tables in columns, and nothing that could move the cursor."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

__all__ = ["aligned", "html_text", "printable"]


def aligned(rows: Iterable[Sequence[str]], left: int) -> list[str]:
    """The lines of a table, made printable, whose first `left` columns begin where the others end."""
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
    """Text from a file, with everything escaped that could move the cursor or pass for another line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def html_text(text: object, longest: int) -> str:
    """Text for HTML and XML: what could deceive is written as in Python, what is markup escaped, what is long cut."""
    safe = printable(str(text))
    return escape(safe if len(safe) <= longest else f"{safe[: longest - 1]}…")
