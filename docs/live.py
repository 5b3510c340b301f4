"""Pages of `mpsref.teach.explain` for the site, where they are shown within others."""

from __future__ import annotations

from pathlib import Path

from mpsref import teach


def chain() -> teach.Backprop:
    """A sigmoid of a tanH."""
    x = teach.input("x")
    return teach.backprop(teach.sigmoid(teach.tanh(x, a=1.5, b=0.75)), x=0.5)


def fan_out() -> teach.Backprop:
    """Two neurons that read one source, and their sum."""
    x = teach.input("x")
    return teach.backprop(teach.softsign(x).named("s") + teach.softplus(x).named("p"), x=1)


def vanishing() -> teach.Backprop:
    """Thirteen sigmoids, in half precision."""
    y = teach.input("x")
    for _ in range(13):
        y = teach.sigmoid(y)
    return teach.backprop(y, format="float16", x=0.5)


PAGES = {
    "chain": (chain, "Two neurons"),
    "fan-out": (fan_out, "A source with two readers"),
    "vanishing": (vanishing, "Thirteen sigmoids in half precision"),
}


def write(folder: Path) -> None:
    """
    Write the pages.

    Parameters
    ----------
    folder : Path
        Is made if need be.
    """
    folder.mkdir(exist_ok=True)
    for name, (make, title) in PAGES.items():
        (folder / f"{name}.html").write_text(make().explain(title=title), "utf-8")


def frame(name: str, root: str) -> str:
    """
    A page within another, as HTML.

    Parameters
    ----------
    name : str
        One of `PAGES`.
    root : str
        The way to the root of the site.
    """
    at, title = f"{root}_static/live/{name}.html", PAGES[name][1]
    return (
        f'<iframe class="live" src="{at}" title="{title}, step by step" loading="lazy"></iframe>\n'
        f'<p class="live"><a href="{at}">Open it as a page of its own</a></p>'
    )
