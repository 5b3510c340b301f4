"""Output for people: safe text, and tables in columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

__all__ = ["aligned", "html_table", "html_text", "printable"]

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
