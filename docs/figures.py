"""Figures of the lessons, once for a light page and once for a dark one."""

from __future__ import annotations

from pathlib import Path
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
COLOURS = {
    "black": INK, "white": GROUND, "#0072B2": "#56B4E9", "#D55E00": "#f0894a", "#1f77b4": "#5aa9e6",
    "#d9d9d9": "#2b323a",
    "grey": "#9aa4af", "tab:red": "#ff7b72", "tab:purple": "#c3a3f0", "tab:brown": "#c99a8b", "tab:green": "#5ec962",
}  # fmt: skip
"""Colours of a light page, and what takes their places on a dark one."""


def scraped(_: Any, block_vars: dict[str, Any], gallery_conf: dict[str, Any]) -> str:
    """Save the open figures; the scraper of sphinx-gallery."""
    paths: dict[str, list[str]] = {"figure-light": [], "figure-dark": []}
    titles = []
    for number in plt.get_fignums():
        figure = plt.figure(number)
        titles.append(_title(figure))
        light = Path(next(block_vars["image_path_iterator"]))
        figure.savefig(light)
        # Not of the numbers from which a lesson chooses its thumbnail.
        dark = light.with_name(f"{light.stem}_dark{light.suffix}")
        darken(figure)
        figure.savefig(dark, facecolor=GROUND)
        paths["figure-light"].append(str(light))
        paths["figure-dark"].append(str(dark))
    plt.close("all")
    rst = ""
    for theme, saved in paths.items():
        text = figure_rst(saved, gallery_conf["src_dir"], ", ".join(filter(None, titles)))
        # Only the first class of a picture is kept.
        rst += text.replace("sphx-glr-single-img", theme).replace("sphx-glr-multi-img", theme)
    return rst


def _title(figure: Any) -> str:
    suptitle = figure._suptitle.get_text() if figure._suptitle else ""
    return suptitle or ", ".join(title for ax in figure.axes if (title := ax.get_title()))


def darken(figure: Any) -> None:
    """Exchange ink and paper, and dark colours for light ones of the same hue; pictures stay as they are."""
    figure.patch.set_facecolor(GROUND)
    for artist in figure.findobj():
        if isinstance(artist, Axes):
            artist.set_facecolor(GROUND)
            artist.tick_params(colors=INK, which="both")
        elif isinstance(artist, Text):
            artist.set_color(_dark(artist.get_color()))
        elif isinstance(artist, Line2D):
            for name in ("color", "markerfacecolor", "markeredgecolor"):
                getattr(artist, f"set_{name}")(_dark(getattr(artist, f"get_{name}")()))
        elif isinstance(artist, Patch):
            artist.set_edgecolor(_dark(artist.get_edgecolor()))
            artist.set_facecolor(_dark(artist.get_facecolor()))
        elif isinstance(artist, Collection) and len(artist.get_edgecolor()) == 1:
            artist.set_edgecolor(_dark(artist.get_edgecolor()[0]))


def _dark(colour: Any) -> Any:
    """A colour for a dark page, as opaque as before."""
    try:
        *rgb, alpha = colors.to_rgba(colour)
    except (TypeError, ValueError):
        return colour
    for light, dark in COLOURS.items():
        if max(abs(a - b) for a, b in zip(rgb, colors.to_rgb(light), strict=True)) < 0.01:
            return (*colors.to_rgb(dark), alpha)
    return colour
