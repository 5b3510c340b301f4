"""Pages that serve two readers: whoever looks into the repository, and the site."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import live
import notebooks

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"

PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
    "examples/metal/README.md": "metal.md",
    "examples/metal": "metal.md",
    "examples/gpu-run/README.md": "gpu-run.md",
    "examples/gpu-run": "gpu-run.md",
    "examples/lavapipe-run/README.md": "lavapipe-run.md",
    "examples/lavapipe-run": "lavapipe-run.md",
}
"""What lies outside of this folder, and the page of the site that shows it."""

PLOT = """
![The curve of {0} and of its derivative](../plots/{0}-light.svg){{.only-light}}
![The curve of {0} and of its derivative](../plots/{0}-dark.svg){{.only-dark}}
"""
"""What the page of a neuron shows in the site only, since it is drawn at each build."""

DRAWING = re.compile(r"(!\[[^\]]*\]\([^)]*drawings/[\w-]+\.svg\))")
"""A drawing on paper of its own, which the site turns dark with the page."""

LIVE = re.compile(r"^<!-- live: ([\w-]+) -->$", re.MULTILINE)
"""Where a page shows a page of `live`, in the site only."""

NOTEBOOK = re.compile(r"^<!-- notebook: (\w+) -->$", re.MULTILINE)
"""Where a page offers a notebook, in the site only."""

INCLUDE = re.compile(r"^```\{include\} (\S+)\n```$", re.MULTILINE)
TOCTREE = re.compile(r"^```\{toctree\}\n.*?^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[([^\]]*)\]\(([^)\s:#]+)(#[^)\s]*)?\)")


def read(app: Any, docname: str, source: list[str]) -> None:
    """Sphinx has read a page: put in what it includes, and turn its links."""
    page = DOCS / f"{docname}.md"
    if page.is_file():
        source[0] = text(page, source[0])
    source[0] = DRAWING.sub(r"\1{.drawing}", source[0])
    source[0] = LIVE.sub(lambda match: live.frame(match[1], "../" * docname.count("/")), source[0])
    source[0] = NOTEBOOK.sub(lambda match: notebooks.link(match[1], "../" * docname.count("/")), source[0])
    if re.fullmatch(r"lessons_built/plot_\d\d_\w+", docname):
        source[0] += notebooks.downloads(Path(docname).name)
    if docname == "api":
        source[0] = re.sub(r"^\| `([\w.]+)`", r"| [`\1`](api/\1.rst)", source[0], flags=re.MULTILINE)
    if page.parent.name == "neurons":
        source[0] = source[0].replace("\n| | ", f"{PLOT.format(page.stem)}\n| | ", 1)


def text(page: Path, source: str) -> str:
    """
    What a page says, for the site.

    Parameters
    ----------
    page : Path
        The file.
    source : str
        What stands in it.

    Returns
    -------
    str
        The same with the files that it includes, with links to pages of the site, and without the patterns in its
        toctrees that fit no page.
    """

    def include(match: re.Match[str]) -> str:
        file = (page.parent / match[1]).resolve()
        return turned(file.read_text("utf-8"), file.parent, page.parent)

    def entries(match: re.Match[str]) -> str:
        return "\n".join(line for line in match[0].splitlines() if "*" not in line or _pages(page.parent, line))

    return INCLUDE.sub(include, turned(TOCTREE.sub(entries, source), page.parent, page.parent))


def _pages(folder: Path, pattern: str) -> bool:
    return any(path.suffix in {".md", ".rst"} for path in folder.glob(f"{pattern}.*"))


def turned(source: str, here: Path, there: Path) -> str:
    """
    Markdown whose links are those of another folder, to pages of the site.

    Parameters
    ----------
    source : str
        The text.
    here, there : Path
        The folder that its links start from, and the one that they shall start from.

    Returns
    -------
    str
        The text. A link to a folder that no page shows is left as what it says.
    """

    def turn(match: re.Match[str]) -> str:
        says, target, anchor = match[1], (here / match[2]).resolve(), match[3] or ""
        if not target.exists() or not target.is_relative_to(ROOT):
            return match[0]
        name = target.relative_to(ROOT).as_posix()
        if name in PAGES:
            target = DOCS / PAGES[name]
        elif target.is_dir():
            return says
        return f"[{says}]({Path(os.path.relpath(target, there)).as_posix()}{anchor})"

    return LINK.sub(turn, source)
