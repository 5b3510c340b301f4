"""Figures of the lessons, once for a light page and once for a dark one."""

from __future__ import annotations

from typing import Any

from matplotlib import colors
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.collections import Collection
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.text import Text
from sphinx_gallery.scrapers import figure_rst

GROUND, INK = "#14181e", "#e6e9ed"


def scraped(_: Any, block_vars: dict[str, Any], gallery_conf: dict[str, Any]) -> str:
    """Save the open figures; the scraper of sphinx-gallery."""
    paths: dict[str, list[Any]] = {"only-light": [], "only-dark": []}
    titles = []
    for number in plt.get_fignums():
        figure = plt.figure(number)
        titles.append(_title(figure))
        for theme, saved in paths.items():
            if theme == "only-dark":
                darken(figure)
            saved.append((next(block_vars["image_path_iterator"]), figure.get_facecolor()))
            figure.savefig(saved[-1][0], facecolor=saved[-1][1])
    plt.close("all")
    rst = ""
    for theme, saved in paths.items():
        text = figure_rst([path for path, _ in saved], gallery_conf["src_dir"], ", ".join(filter(None, titles)))
        for kind in ("single", "multi"):
            text = text.replace(f"sphx-glr-{kind}-img", f"sphx-glr-{kind}-img {theme}")
        rst += text
    return rst


def _title(figure: Any) -> str:
    suptitle = figure._suptitle.get_text() if figure._suptitle else ""
    return suptitle or ", ".join(title for ax in figure.axes if (title := ax.get_title()))


def darken(figure: Any) -> None:
    """Exchange black and white where they are ink and paper; colours and pictures stay as they are."""
    figure.patch.set_facecolor(GROUND)
    for artist in figure.findobj():
        if isinstance(artist, Axes):
            artist.set_facecolor(GROUND)
            artist.tick_params(colors=INK, which="both")
        elif isinstance(artist, Text) and _is(artist.get_color(), "black"):
            artist.set_color(INK)
        elif isinstance(artist, Line2D):
            for name in ("color", "markerfacecolor", "markeredgecolor"):
                old = getattr(artist, f"get_{name}")()
                if _is(old, "black") or _is(old, "white"):
                    getattr(artist, f"set_{name}")(INK if _is(old, "black") else GROUND)
        elif isinstance(artist, Patch):
            if _is(artist.get_edgecolor(), "black"):
                artist.set_edgecolor(INK)
            if _is(artist.get_facecolor(), "white"):
                artist.set_facecolor(GROUND)
            # What shades a region, such as where a function is not real.
            elif artist.get_gid() == "outside":
                artist.set_facecolor("#2b323a")
        elif isinstance(artist, Collection) and len(artist.get_edgecolor()) and _is(artist.get_edgecolor()[0], "black"):
            artist.set_edgecolor(INK)


def _is(colour: Any, name: str) -> bool:
    try:
        return colors.to_rgba(colour) == colors.to_rgba(name)
    except (TypeError, ValueError):
        return False
