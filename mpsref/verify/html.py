"""
A report as a page for a browser: what is wrong, with the likely faults and a map of the pixels; then counts and graph.

The page is self-contained: style and script are inline, and its Content-Security-Policy forbids everything else.
Without scripts it lacks only plots and heat maps. It stays below `LARGEST_PAGE`, however much was verified: images out
of bounds come first, and the page says what it leaves out.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

import mpsref
from mpsref.display import counted, html_text, printable
from mpsref.files import write_atomically
from mpsref.graph.drawing import (
    NODE_HEIGHT,
    NODE_WIDTH,
    SHORT_KIND,
    SHORT_NAME,
    Place,
    edge_path,
    extent,
    kind_text,
    layout,
    structure,
)
from mpsref.graph.file import GraphFile
from mpsref.graph.nodes import MPSNNFilterNode
from mpsref.pages import embedded, file_text, html_page
from mpsref.verify.aggregate import KINDS, ROWS, ZERO, Aggregate, HeatMap, Picture, Plot
from mpsref.verify.reasons import Reason
from mpsref.verify.report import Element, EndToEnd, ImageReport, Report

__all__ = ["LARGEST_PAGE", "page", "write_page"]

LARGEST_PAGE = 2_000_000
"""Bytes."""

GRAPH_BYTES, TABLE_BYTES, DETAIL_BYTES, DATA_BYTES = 350_000, 250_000, 550_000, 750_000
"""The parts of the page, in bytes."""

LONGEST = 160
"""Characters of a text from a file."""

MOST_ELEMENTS, MOST_FINDINGS = 20, 5
"""Elements and findings that an image shows at most."""

_MARKS = {"within": "✓", "excused": "◆", "beyond": "✕", "unrecorded": "○", "source": "▸"}
_LEGEND = {
    "within": "within the bounds",
    "excused": "within the bounds or excused",
    "beyond": "beyond the bounds",
    "unrecorded": "not recorded, so not judged by itself",
    "source": "a source",
}
_COUNTS = {
    "exact": "exact",
    "within_1": "at most 1 ULP away",
    "within_4": "at most 4 ULP away",
    "within_64": "at most 64 ULP away",
    "nan_disagreements": "NaN on one side only",
    "infinity_disagreements": "infinite on one side only",
    "within": "within the bounds",
}


def page(report: Report, graph: GraphFile, collected: Aggregate | None = None) -> str:
    """
    Make the page.

    Parameters
    ----------
    report : Report
        The result of a verification.
    graph : GraphFile
        The recording's graph.
    collected : Aggregate, optional
        The data for plots and heat maps.

    Examples
    --------
    >>> import mpsref as mps
    >>> from mpsref.verify.tolerance import Tolerances
    >>> x = mps.MPSNNImageNode(handle="x")
    >>> graph = mps.GraphFile.from_results([mps.MPSCNNNeuronAbsoluteNode(source=x).result_image])
    >>> page(Report("recording.json", "none", Tolerances(), ()), graph)[:15]
    '<!DOCTYPE html>'
    """
    pictures = {} if collected is None else collected.pictures
    order = sorted(range(len(report.images)), key=lambda i: _RANK[_verdict(report.images[i])])
    details = _fitting((_article(i, report.images[i]) for i in order), DETAIL_BYTES)
    shown = dict.fromkeys(order[: len(details)])
    links = {report.images[i].name: f"#image-{i}" for i in shown}
    data = _data({i: pictures[name] for i in shown if (name := report.images[i].name) in pictures})
    state = "beyond" if not report.passed else "excused" if any(i.excused for i in report.images) else "within"
    title = f"{'PASS' if report.passed else 'FAIL'}: {_text(Path(report.recording).name)}"
    rest = len(order) - len(details)
    left_out = (
        f'<p class="note">{counted(rest, "more image has", "more images have")} no room on this page: '
        "see the JSON report.</p>"
        if rest
        else ""
    )
    sections = [
        _graph(report, graph, links),
        _table(report, links),
        f"""<section id="details" aria-labelledby="details-title">
<h2 id="details-title">{"Details" if report.passed else "What is wrong, and details of all images"}</h2>
<noscript><p class="note">Plots and heat maps need JavaScript; all else is here.</p></noscript>
{"".join(details)}{left_out}</section>
""",
    ]
    facts = {
        "Recording": report.recording,
        "Device": report.device,
        "Bounds": str(report.tolerance),
        "Made by": f"mpsref {mpsref.__version__}",
    }
    body = f"""<header>
<a class="skip" href="#details">Skip to the details of images</a>
<h1>Verification of {_text(Path(report.recording).name)}</h1>
<p class="verdict {state}">{_MARKS[state]} {_text(report.verdict, 2 * LONGEST)}</p>
<dl>{"".join(f"<dt>{name}</dt><dd>{_text(value)}</dd>" for name, value in facts.items())}</dl>
{_blame(report)}{_causes(report)}</header>
<main>
{"".join(sections if report.passed else [sections[-1], *sections[:-1]])}
</main>"""
    return html_page(
        title, body, data=data, style=file_text("verify", "page.css"), script=file_text("verify", "page.js")
    )


def write_page(report: Report, graph: GraphFile, collected: Aggregate | None, path: Path) -> None:
    """Write the page, whole or not at all; raises `FileFormatError` if it cannot be written."""
    data = page(report, graph, collected).encode()
    write_atomically(path, lambda file: file.write(data))


# ---- texts ----


def _text(text: object, longest: int = LONGEST) -> str:
    return html_text(text, longest)


def _fitting(parts: Iterable[str], most: int) -> list[str]:
    """The first parts that together have at most so many bytes."""
    fitting: list[str] = []
    for part in parts:
        most -= len(part.encode())
        if most < 0:
            break
        fitting.append(part)
    return fitting


def _verdict(image: ImageReport) -> str:
    return "beyond" if not image.passed else "excused" if image.excused else "within"


_RANK = {"beyond": 0, "excused": 1, "within": 2}


def _status(verdict: str) -> str:
    return f'<span class="status {verdict}">{_MARKS[verdict]} {verdict}</span>'


def _blame(report: Report) -> str:
    first = report.first_wrong
    if first is None:
        return ""
    return (
        (
            f"<p>First wrong by itself: <strong>{_text(first.name)}</strong> ({_text(first.node)}). "
            "Every node is judged by what it read.</p>\n"
        )
        + "".join(f"<p>{_text(line)}.</p>\n" for line in report.not_accused[:MOST_FINDINGS])
        + (f"<p>{_text(report.hint)}</p>\n" if report.hint else "")
    )


def _causes(report: Report) -> str:
    """The summary by cause over all images."""
    rows = [
        [
            cause.cause if cause.verdict == "beyond" else f"{cause.cause}, {cause.verdict}",
            f"{cause.images:,}",
            f"{cause.elements:,}",
            cause.example,
        ]
        for cause in report.causes
    ]
    if not rows:
        return ""
    return _texts("By cause, over all images", ("cause", "images", "elements", "for example"), rows)


def _texts(caption: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of texts, the first of which names the row."""
    head = "".join(f'<th scope="col">{_text(name)}</th>' for name in columns)
    body = "".join(
        f'<tr><th scope="row">{_text(first, 3 * LONGEST)}</th>'
        f"{''.join(f'<td>{_text(cell, 2 * LONGEST)}</td>' for cell in cells)}</tr>"
        for first, *cells in rows
    )
    return (
        f'<div class="scroll"><table><caption>{_text(caption)}</caption><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>\n"
    )


def _head(columns: Iterable[str], texts: int) -> str:
    """The head of a table: the first columns hold texts, as does that of the verdict, the others numbers."""
    cells = "".join(
        f'<th scope="col"{" class=number" if i >= texts and name != "verdict" else ""}>{_text(name)}</th>'
        for i, name in enumerate(columns)
    )
    return f"<thead><tr>{cells}</tr></thead>"


# ---- all images ----


def _table(report: Report, links: Mapping[str, str]) -> str:
    def row(image: ImageReport) -> str:
        counts, link = image.counts, links.get(image.name)
        name = f'<a href="{link}">{_text(image.name)}</a>' if link else _text(image.name)
        numbers = (counts.elements, counts.exact, counts.within, image.excused, counts.beyond, counts.largest)
        cells = "".join(f'<td class="number">{number:,}</td>' for number in numbers)
        return (
            f'<tr><th scope="row">{name}</th><td>{_text(image.node)}</td><td>{image.channel_format}</td>'
            f"<td>{_status(_verdict(image))}</td>{cells}</tr>\n"
        )

    shown = _fitting(map(row, report.images), TABLE_BYTES)
    head = _head(
        ("image", "node", "format", "verdict", "elements", "exact", "within", "excused", "beyond", "largest ULP"), 4
    )
    left_out = len(report.images) - len(shown)
    rest = f'<p class="note">{left_out:,} more: see the JSON report.</p>' if left_out else ""
    if report.missing:
        rows = list(report.missing.items())[:MOST_ELEMENTS]
        rest += _texts(f"{report.unjudged} not judged", ("image", "why"), rows)
    return (
        '<section aria-labelledby="images-title"><h2 id="images-title">Images</h2><div class="scroll"><table>'
        "<caption>Every recorded image that the graph makes, in the order of evaluation</caption>"
        f"{head}<tbody>\n{''.join(shown)}</tbody></table></div>{rest}</section>"
    )


# ---- one image ----


def _article(number: int, image: ImageReport) -> str:
    notes = [
        f"{_status(_verdict(image))} {_text(image.node)}, {image.channel_format}, judged by: {_text(image.limit)}."
    ]
    if image.unrecorded:
        names = ", ".join(_text(name) for name in image.unrecorded[:MOST_ELEMENTS])
        notes.append(f"Judged together with the nodes that make {names}, which are not recorded.")
    notes += map(_text, image.remarks)
    maps, errors = '<div data-draw="maps"></div>', '<div data-draw="errors"></div>'
    excused = {"Excused": _excused(image)} if image.excused else {}
    if image.passed:
        panels = excused | {"Counts": _counts(image), "Worst elements": _worst(image), "Error over input": errors}
        panels["Heat maps"] = maps
    else:
        panels = {"What is wrong": _findings(image) + maps, "Worst elements": _worst(image)} | excused
        panels |= {"Error over input": errors, "Counts": _counts(image)}
    return (
        f'<article id="image-{number}" tabindex="-1" aria-labelledby="image-{number}-title">'
        f'<h3 id="image-{number}-title">{_text(image.name)}</h3>'
        + "".join(f"<p>{note}</p>" for note in notes)
        + "".join(f'<section class="panel"><h4>{name}</h4>{panel}</section>' for name, panel in panels.items())
        + "</article>\n"
    )


def _findings(image: ImageReport) -> str:
    """What may be the fault, in a line each."""
    rows = [
        [
            finding.subject,
            f"{finding.explained:,} of {finding.of:,}",
            finding.where or "everywhere",
            finding.sentence,
            str(finding.example or ""),
        ]
        for finding in image.findings[:MOST_FINDINGS]
    ]
    count = f"{counted(image.counts.beyond, 'element')} of {image.counts.elements:,} beyond the bounds"
    if not rows:
        return f"<p>{count}.</p>"
    caption = f"{count}: what may be the fault, the likeliest first"
    return _texts(caption, ("fault", "explains", "where", "that is", "for example"), rows)


def _excused(image: ImageReport) -> str:
    """What is far from the reference, but excused."""

    def example(name: str) -> str:
        return next((str(element) for element in image.worst if element.reason == name), "")

    total = image.counts.elements
    rows = [
        [Reason[name].text, f"{n:,}", _percent(n, total), example(name)] for name, n in image.counts.excused.items()
    ]
    return _texts("Excused elements, by reason", ("reason", "elements", "share", "for example"), rows)


def _percent(part: int, whole: int) -> str:
    # Only all are 100 %, and only none are 0 %.
    percent = 100 * part / whole if whole else 0.0
    return f"{min(max(percent, 0.01), 99.99) if 0 < part < whole else percent:.4g} %"


def _counts(image: ImageReport) -> str:
    counts = image.counts
    numbers = {text: getattr(counts, name) for name, text in _COUNTS.items()}
    numbers |= {f"excused: {Reason[name].text}": n for name, n in counts.excused.items()}
    numbers["beyond the bounds"] = counts.beyond
    rows = [(text, n, _percent(n, counts.elements)) for text, n in numbers.items()]
    rows = [("elements", counts.elements, ""), *rows, ("largest distance, in ULP", counts.largest, "")]
    texts = _numbers("Distances from what the node should have computed from its inputs", rows)
    if image.histogram:
        rows = [
            (name if int(name) < 2 else f"<= {int(name):,}", n, _percent(n, counts.elements))
            for name, n in image.histogram.items()
        ]
        texts += _numbers("Elements by distance, in ULP", rows)
    if image.end_to_end is not None:
        rows = [
            (_COUNTS.get(each.name, "largest distance, in ULP"), getattr(image.end_to_end, each.name), "")
            for each in fields(EndToEnd)
        ]
        texts += _numbers("The same from the graph's sources on, errors of all nodes together", rows)
    return texts


def _numbers(caption: str, rows: Iterable[tuple[str, int, str]]) -> str:
    body = "".join(
        f'<tr><th scope="row">{_text(name)}</th><td class="number">{n:,}</td><td class="number">{percent}</td></tr>'
        for name, n, percent in rows
    )
    head = _head(("what", "number", "share"), 1)
    return f'<div class="scroll"><table><caption>{caption}</caption>{head}<tbody>{body}</tbody></table></div>'


def _worst(image: ImageReport) -> str:
    worst = [element for element in image.worst if element.beyond or element.reason is None]
    if not worst:
        same = image.counts.exact == image.counts.elements
        return f"<p>{'Every element is exact.' if same else 'None to list.'}</p>"
    sources = list(worst[0].sources)
    head = _head(
        ("image", "y", "x", "channel", "slice", "lane", *(f"{s} =" for s in sources), "got", "want", "ULP", "verdict"),
        0,
    )

    def row(element: Element) -> str:
        image_place = [element.image, element.y, element.x, element.channel, element.slice, element.lane]
        cells = [*map(str, image_place)] if element.index is None else [element.place, *[""] * 5]
        values = [*(element.sources.get(s, "") for s in sources), element.got, element.want]
        distance = "not comparable" if element.ulp is None else f"{element.ulp:,}"
        verdict = "beyond" if element.beyond else "within"
        numbers = "".join(f'<td class="number">{_text(cell)}</td>' for cell in [*cells, *values, distance])
        return f"<tr>{numbers}<td>{_status(verdict)}</td></tr>"

    body = "".join(row(element) for element in worst[:MOST_ELEMENTS])
    caption = "The elements farthest away, those beyond the bounds first: place in the image and in the texture"
    return f'<div class="scroll"><table><caption>{caption}</caption>{head}<tbody>{body}</tbody></table></div>'


# ---- the graph ----


def _graph(report: Report, graph: GraphFile, links: Mapping[str, str]) -> str:
    verdicts = {image.name: _verdict(image) for image in report.images}
    shape = structure(graph)
    # Wrong images and their sources are drawn first.
    wrong = [name for name, node in shape.producers.items() if node is not None and verdicts.get(name) == "beyond"]
    wanted = dict.fromkeys([*wrong, *(s for name in wrong for s in shape.reads[name]), *shape.producers])

    def box(name: str, place: Place) -> str:
        verdict = verdicts.get(name, "source" if shape.producers[name] is None else "unrecorded")
        return _box(name, shape.producers[name], verdict, place, links.get(name))

    empty = _fitting((box(name, (10_000, 10_000)) for name in wanted), GRAPH_BYTES * 2 // 3)
    drawn = set(list(wanted)[: len(empty)])
    places = layout(shape, drawn)
    taken = set(places.values())
    edges = (
        f'<path class="edge" d="{edge_path(places[source], places[name], taken)}"/>\n'
        for source, name, kind in shape.edges(drawn)
        if kind != "state"
    )
    paths = _fitting(edges, GRAPH_BYTES // 3)
    boxes = [box(name, place) for name, place in places.items()]
    width, height = extent(places)
    legend = "; ".join(f"{_MARKS[verdict]} {text}" for verdict, text in _LEGEND.items())
    rest = len(wanted) - len(drawn)
    count = counted(rest, "more node has", "more nodes have")
    note = f'<p class="note">{count} no room on this page.</p>' if rest else ""
    return (
        '<section aria-labelledby="graph-title"><h2 id="graph-title">Graph</h2>'
        f'<p class="legend">{legend}; a dashed frame: a gradient. Choose a node to see its image below.</p>'
        '<div class="graph" tabindex="0" role="region" aria-label="Graph">'
        f'<svg width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="group" '
        f'aria-label="{len(drawn)} images of the graph, sources on the left; gradients below what they are the '
        'gradient of">\n'
        f"{''.join(paths)}{''.join(boxes)}</svg></div>{note}</section>"
    )


def _box(name: str, node: MPSNNFilterNode | None, verdict: str, place: Place, link: str | None) -> str:
    x, y = place
    producer = "source" if node is None else type(node).__name__
    gradient = " gradient" if node is not None and node.forward_node is not None else ""
    title = f"{_text(name)}, {_text(producer)}: {_LEGEND[verdict]}"
    inside = (
        f"<title>{title}</title>"
        f'<rect x="{x}" y="{y}" width="{NODE_WIDTH}" height="{NODE_HEIGHT}" rx="6"/>'
        f'<text class="mark" x="{x + 9}" y="{y + 26}">{_MARKS[verdict]}</text>'
        f'<text class="name" x="{x + 30}" y="{y + 18}">{_text(name, SHORT_NAME)}</text>'
        f'<text class="small" x="{x + 30}" y="{y + 33}">{_text(kind_text(node), SHORT_KIND)}</text>'
    )
    if link is None:
        return f'<g class="node {verdict}{gradient}">{inside}</g>\n'
    return f'<a class="node {verdict}{gradient}" href="{link}" aria-label="{title}">{inside}</a>\n'


# ---- what the script draws ----


def _data(pictures: Mapping[int, Picture]) -> str:
    """JSON for the page, as far as there is room; the first pictures have all their maps, the others one each."""

    def entries() -> Iterator[str]:
        used = 0
        for i, picture in pictures.items():
            maps = picture.maps if used < DATA_BYTES // 2 else picture.maps[:1]
            entry = f"{json.dumps(str(i))}:{embedded(_picture(picture, maps))},"
            used += len(entry)
            yield entry

    inside = "".join(_fitting(entries(), DATA_BYTES)).removesuffix(",")
    return f'{{"apart":{ROWS - 1 - ZERO},"worst":{embedded(KINDS[-1])},"pictures":{{{inside}}}}}'


def _picture(picture: Picture, maps: Iterable[HeatMap]) -> dict[str, Any]:
    return {
        "kind": picture.kind,
        "shape": list(picture.shape),
        "plots": [_plot(plot) for plot in picture.plots],
        "channels": picture.channels.tolist(),
        "each": picture.channels_each,
        "maps": [_map(heat_map) for heat_map in maps],
    }


def _plot(plot: Plot) -> dict[str, Any]:
    rows, columns = np.nonzero(plot.counts.any(axis=2))
    cells = np.column_stack([columns, rows - ZERO, plot.counts[rows, columns]])
    safe = printable(plot.source)
    return {
        "source": safe if len(safe) <= LONGEST // 2 else f"{safe[: LONGEST // 2]}…",
        "linear": plot.is_linear,
        "low": plot.low,
        "high": plot.high,
        "columns": plot.columns,
        "cells": cells.reshape(-1).tolist(),
    }


def _map(heat_map: HeatMap) -> dict[str, Any]:
    """All counts, or, where most are 0, indices and counts of the others."""
    rows, columns = heat_map.counts.shape
    flat = heat_map.counts.reshape(-1)
    index = np.flatnonzero(flat)
    is_dense = 2 * index.size > flat.size
    cells = flat if is_dense else np.column_stack([index, flat[index]]).reshape(-1)
    return {"title": heat_map.title, "rows": rows, "columns": columns, "dense": is_dense, "cells": cells.tolist()}
