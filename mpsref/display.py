"""Output for people: safe text, and tables in columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

__all__ = ["aligned", "counted", "enumerated", "html_table", "html_text", "printable", "table"]

LONGEST_CELL, MOST_ROWS = 160, 200
"""Characters of a cell and rows of a table in a notebook, at most."""

WIDEST, LONGEST_TEXT = 100, 41
"""Characters of a line and of a cell of a table as text, at most."""


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


def table(rows: Iterable[Sequence[str]], left: int, indent: str = "") -> list[str]:
    """
    The same with an indentation, at most `WIDEST` characters wide.

    A wider table becomes several, one below the other, each with the first column. A cell of more than `LONGEST_TEXT`
    characters loses its middle, unless its column is the last and there is room.
    """
    rows = [[_shortened(printable(cell), LONGEST_TEXT) for cell in row[:-1]] + [printable(row[-1])] for row in rows]
    room = WIDEST - len(indent)
    rows = [[*row[:-1], _shortened(row[-1], room - max(len(r[0]) for r in rows) - 2)] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    parts = _columns_that_fit(widths, room)
    # As few parts as possible, and those of like widths.
    for narrower in range(room - 1, widths[0] + max(widths), -1):
        if len(fewer := _columns_that_fit(widths, narrower)) > len(parts):
            break
        parts = fewer
    lines: list[str] = []
    for columns in parts:
        lines += [""] if lines else []
        part = aligned([[row[i] for i in columns] for row in rows], sum(i < left for i in columns))
        lines += [f"{indent}{line}" for line in part]
    return lines


def _columns_that_fit(widths: Sequence[int], room: int) -> list[list[int]]:
    """The columns of each part of a table."""
    parts = [[0]] if widths else []
    for i, width in enumerate(widths[1:], 1):
        if sum(widths[k] + 2 for k in parts[-1]) + width > room and len(parts[-1]) > 1:
            parts.append([0])
        parts[-1].append(i)
    return parts


def _shortened(cell: str, most: int) -> str:
    half = (most - 1) // 2
    return cell if len(cell) <= most else f"{cell[:half]}…{cell[-half:]}"


def counted(number: int, noun: str, plural: str = "") -> str:
    """
    A number with its noun, in the singular or the plural.

    Examples
    --------
    >>> counted(1, "image"), counted(65_536, "element"), counted(2, "sees", "see")
    ('1 image', '65,536 elements', '2 see')
    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def enumerated(texts: Sequence[str]) -> str:
    """
    Texts as a sentence has them.

    Examples
    --------
    >>> enumerated(["2", "4", "8 to 9"])
    '2, 4 and 8 to 9'
    """
    *first, last = texts
    return f"{', '.join(first)} and {last}" if first else last


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
