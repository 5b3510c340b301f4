"""The lessons as notebooks: whole, and as exercises without the answers, which `mpsref.teach.check` looks at."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from mpsref import teach

LESSONS = Path(__file__).parent / "lessons"
CLASS = Path(__file__).parent / "class_45_minutes.py"
FOLDER = Path(__file__).parent / "_static" / "notebooks"
FIRST = "%matplotlib inline\nfrom mpsref import teach"
IGNORED = re.compile(
    r"^# sphinx_gallery_start_ignore\n.*?# sphinx_gallery_end_ignore\n|^# sphinx_gallery_\w+ = .*?\n",
    re.MULTILINE | re.DOTALL,
)


def lessons() -> list[Path]:
    """The scripts of the lessons, in order."""
    return sorted(LESSONS.glob("plot_??_*.py"))


def blocks(script: str) -> list[tuple[str, str]]:
    """Text and code of a lesson, in order: ("markdown" or "code", source)."""
    _, title, rest = script.split('"""', 2)
    found = [("rst", title.strip("\n"))]
    for block in re.split(r"^# %%.*\n", rest, flags=re.MULTILINE):
        text = re.match(r"(#.*\n)*", block)
        assert text is not None
        found.append(("rst", re.sub(r"^# ?", "", text[0], flags=re.MULTILINE)))
        found.append(("code", IGNORED.sub("", block[text.end() :]).strip("\n")))
    return [(kind, source) for kind, source in found if source.strip()]


def markdown(rst: str) -> str:
    """The text of a lesson as Markdown."""
    text = re.sub(r"^\.\. live:: .*\n", "", rst, flags=re.MULTILINE)
    text = re.sub(r"^(.+)\n(=+|-+)$", lambda m: f"{'#' if m[2][0] == '=' else '##'} {m[1]}", text, flags=re.MULTILINE)
    text = re.sub(r":doc:`(?:([^`<]+) <[^`]*>|/?([^`]*))`", lambda m: m[1] or m[2], text)
    return text.replace("``", "`").strip("\n")


def cells(path: Path, *, exercises: bool = False) -> list[dict[str, Any]]:
    """
    The cells of a lesson's notebook.

    Parameters
    ----------
    path : Path
        The lesson's script.
    exercises : bool
        Whether answers are left out, each for a cell to write one in.
    """
    made: list[tuple[str, str]] = []
    hidden, asked = False, 0
    for kind, source in blocks(path.read_text("utf-8")):
        if kind == "code":
            if not (hidden and exercises):
                made.append(("code", source))
            continue
        # What stands before, between and after the frames of answers.
        for i, part in enumerate(re.split(r"^\.\. raw:: html\n\n   (.*)\n?", f"{source}\n", flags=re.MULTILINE)):
            if i % 2:
                hidden = part.lstrip().startswith("<details")
                if hidden and exercises:
                    asked += 1
                    made.append(("code", _cell(f"{int(path.name[5:7])}.{asked}")))
                elif hidden:
                    made.append(("markdown", "*Answer:*"))
            elif part.strip() and not (hidden and exercises):
                made.append(("markdown", markdown(part)))
    return [_as_json(i, kind, source) for i, (kind, source) in enumerate(made)]


def _cell(exercise: str) -> str:
    if exercise not in teach.EXERCISES:
        return "# Try it here.\n"
    return f"answer = ...  # {teach.EXERCISES[exercise].asks}\nteach.check({exercise!r}, answer)"


def _as_json(number: int, kind: str, source: str) -> dict[str, Any]:
    cell: dict[str, Any] = {"cell_type": kind, "id": f"cell-{number + 1}", "metadata": {}}
    if kind == "code":
        cell |= {"execution_count": None, "outputs": []}
    return cell | {"source": source.splitlines(keepends=True)}


def notebook(path: Path, *, exercises: bool = False) -> str:
    """The notebook of a lesson, as JSON; arguments as for `cells`."""
    body = [_as_json(-1, "code", FIRST), *cells(path, exercises=exercises)]
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    return json.dumps({"cells": body, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}, indent=1) + "\n"


def write(folder: Path = FOLDER) -> None:
    """Write all notebooks into a folder, which is made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{CLASS.stem}.ipynb").write_text(notebook(CLASS), "utf-8")
    for path in lessons():
        (folder / f"{path.stem}.ipynb").write_text(notebook(path), "utf-8")
        (folder / f"{path.stem}-exercises.ipynb").write_text(notebook(path, exercises=True), "utf-8")


def downloads(name: str) -> str:
    """What the page of a lesson says of its notebooks, as reStructuredText."""
    files = (("notebook", f"{name}.ipynb"), ("notebook of its exercises, without answers", f"{name}-exercises.ipynb"))
    whole, asked = (f'<a download href="../_static/notebooks/{file}">{what}</a>' for what, file in files)
    return f'\n\n.. raw:: html\n\n   <p class="notebooks">This lesson as a {whole}, or as a {asked}.</p>\n'


def link(name: str, root: str) -> str:
    """A link to a notebook, as HTML; `root` is the way to the root of the site."""
    return f'<p class="notebooks"><a download href="{root}_static/notebooks/{name}.ipynb">Download the notebook</a></p>'
