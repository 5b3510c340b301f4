"""
A graph as a page to step through in a browser: each value, slope, product and rounding, and numbers to change.

The page is self-contained: style and script are inside, and its Content-Security-Policy forbids anything else. Without
scripts it shows the trace of the initial numbers. The script evaluates the graph again when a number is changed; its
formulas of the neurons are translated from their rows by `mpsref.teach.formulas`.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

import mpsref
from mpsref.arguments import checked, sequence_or_error
from mpsref.display import html_text, printable
from mpsref.errors import ParameterError
from mpsref.executor import MPSNNGraph, graph_or_error, source_image
from mpsref.graph.drawing import NODE_HEIGHT, NODE_WIDTH, SHORT_NAME, Place, edge_path, extent, layout, structure
from mpsref.graph.file import GraphFile
from mpsref.graph.nodes import ImageLike, MPSNNFilterNode
from mpsref.image import MPSImage
from mpsref.operations import Role, Sum
from mpsref.pages import embedded, file_text, html_page
from mpsref.storage import StorageFormat
from mpsref.teach.formulas import javascript
from mpsref.teach.trace import Step, Trace, trace

__all__ = ["Page", "explain", "explanation"]

MOST_STEPS, MOST_CHANNELS = 200, 256
"""Steps of a page, and channels of pReLU that can be chosen on it, at most."""

LONGEST, LONGEST_TITLE, LONGEST_NAME = 160, 80, 40
"""Characters of any text from a graph, of a title, and of an image's name, at most."""

MOST_PRODUCTS, MOST_PIXELS, MARGIN, CELL = 64, 24, 2, 14
"""Rows of a table of products, pixels of a window's picture along an axis and around it, and the size of one."""

SHORT_VALUE = 11
"""Characters of a number in a box of the drawing."""

SCRIPTS = ("numbers", "evaluation", "curves", "explain")
"""The files of the page's script, in order."""

PRIME, MINUS = "\N{PRIME}", "\N{MINUS SIGN}"

LARGEST = 1e100
"""Numbers before storage are written up to here, and down to its reciprocal, beyond any format."""

VALUE, UPSTREAM = 0.5, 1.0
"""Default of a source, and of an incoming gradient."""


@checked
def explain(
    graph: MPSNNGraph | GraphFile | ImageLike | Sequence[ImageLike],
    /,
    *,
    at: Sequence[int] = (0, 0, 0),
    of: str | None = None,
    title: str = "graph",
    **sources: npt.ArrayLike | MPSImage,
) -> Page:
    """
    Make a page that steps through a graph for one element of its images.

    Parameters
    ----------
    graph : MPSNNGraph, GraphFile, node, image node or list of nodes
        What to explain: everything that its results depend on.
    at : sequence of three or four int
        The element: y, x and channel; or image, y, x and channel. The channel chooses among the slopes of pReLU.
    of : str, optional
        The image whose element it is; in the others it is followed, as by `Trace.at`. Default: the first source.
    title : str
        What the page calls the graph.
    **sources : float, or array_like of shape (C,), (H, W, C) or (N, H, W, C), or MPSImage
        As for `trace`. A missing source is 0.5 everywhere, a missing incoming gradient 1, in the size of the other
        sources, else one pixel.

    Returns
    -------
    str
        An HTML document, which a notebook shows. Its script computes in float64 and rounds to the images' formats.

    Raises
    ------
    ParameterError
        The graph has more than 200 steps, none, or another mode than ``ideal``; or `at` is no place.
    SourceError, ImageError
        As for `MPSNNGraph.run`, and for `Trace.at`.

    Examples
    --------
    >>> import mpsref as mps
    >>> from mpsref import teach
    >>> x = mps.MPSNNImageNode(handle="x")
    >>> n = mps.MPSCNNNeuronTanHNode(source=x)
    >>> page = teach.explain(mps.MPSNNGraph(result_image=n.result_image))
    >>> page[:15], "tanh(b x)" in page
    ('<!DOCTYPE html>', True)
    """
    return explanation(graph, sources, at, title, of)


def explanation(
    graph: MPSNNGraph | GraphFile | ImageLike | Sequence[ImageLike],
    sources: Mapping[str, npt.ArrayLike | MPSImage],
    at: Sequence[int],
    title: str,
    of: str | None = None,
) -> Page:
    """The page of `explain`, for sources of any name."""
    graph = graph_or_error(graph)
    _check(graph)
    place = _place(at)
    traced = trace(graph, **_with_defaults(graph, sources)).at(*place[1:], image=place[0], of=of)
    return _page(_Explained(graph, traced, place[3]), title)


# ---- the trace ----


def _check(graph: MPSNNGraph) -> None:
    if graph.mode != "ideal":
        raise ParameterError(f"mode of the graph is {graph.mode!r}: explain one in mode 'ideal'")
    if not graph.plan.steps:
        raise ParameterError("the graph has no steps: ask for a result that a node makes")
    if len(graph.plan.steps) > MOST_STEPS:
        raise ParameterError(
            f"the graph has {len(graph.plan.steps):,} steps: a page has at most {MOST_STEPS}, ask for a result nearer "
            "to the sources"
        )


def _place(at: Sequence[int]) -> tuple[int, int, int, int]:
    place = tuple(sequence_or_error("at", at))
    if len(place) not in (3, 4):
        raise ParameterError(f"at has {len(place)} numbers: give y, x and channel, or image, y, x and channel")
    image, y, x, channel = (0,) * (4 - len(place)) + place
    return image, y, x, channel


def _with_defaults(
    graph: MPSNNGraph, sources: Mapping[str, npt.ArrayLike | MPSImage]
) -> dict[str, npt.ArrayLike | MPSImage]:
    """The sources, with images of the default numbers for those that are missing."""
    images, gradients = dict(sources), _incoming_gradients(graph)
    for source in graph.plan.inputs:
        if source.label in images:
            # In the format of the graph, so that a number that the user types on the page is stored in the same way.
            images[source.label] = source_image(source, images[source.label], graph.format)
    shape = _shape(graph, images.values())
    for i, source in enumerate(graph.plan.inputs):
        if source.label is not None and source.label not in images:
            value = UPSTREAM if i in gradients else VALUE
            images[source.label] = MPSImage.from_array(np.full(shape, value), source.format or graph.format)
    return images


def _incoming_gradients(graph: MPSNNGraph) -> set[int]:
    """Indices of the sources that are only read as incoming gradients."""
    reads = [read for step in graph.plan.steps for read in zip(step.sources, step.operation.roles, strict=True)]
    as_gradient = {source for source, role in reads if role is Role.GRADIENT}
    return as_gradient - {source for source, role in reads if role is not Role.GRADIENT}


def _shape(graph: MPSNNGraph, sources: Iterable[npt.ArrayLike | MPSImage]) -> tuple[int, ...]:
    """The shape of default images: that of a source, else one pixel."""
    for image in sources:
        if isinstance(image, MPSImage):
            return image.shape
    descriptors = (step.operation.descriptor for step in graph.plan.steps)
    slopes = (d.data for d in descriptors if d is not None)
    return 1, 1, 1, max((len(data) for data in slopes if data is not None), default=1)


class Page(str):
    """A page as text, which a notebook shows in a frame of its own."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        return (
            f'<iframe srcdoc="{html.escape(self)}" title="The graph, step by step" sandbox="allow-scripts" '
            'style="width: 100%; height: 44rem; border: 1px solid #767676"></iframe>'
        )


class _Explained:
    """Steps in the order of the page, and images by number."""

    def __init__(self, graph: MPSNNGraph, traced: Trace, channel: int) -> None:
        self.traced, self.channel = traced, channel
        self.structure = structure(graph)
        self.backward: set[str] = set()
        for step in traced.steps:
            # A step that depends on a backward one counts as backward, as in the order of the trace.
            if step.is_backward or not self.backward.isdisjoint(step.reads):
                self.backward.add(step.name)
        self.steps = traced.steps
        self.names = [*traced.sources, *(step.name for step in self.steps)]
        self.number = {name: i for i, name in enumerate(self.names)}
        self.owners = self._owners()

    def _owners(self) -> list[int]:
        """For each step the one whose parameters it uses: a gradient those of its forward node."""
        index: dict[MPSNNFilterNode | None, int] = {step.plan_step.node: i for i, step in enumerate(self.steps)}
        owners = []
        for i, step in enumerate(self.steps):
            forward = index.get(step.plan_step.node.forward_node, i)
            owners.append(forward if self.steps[forward].descriptor == step.descriptor else i)
        return owners

    def lost(self, step: Step) -> str:
        """What storing its result lost, as text."""
        return self.traced.lost[step.name].text if step.name in self.traced.lost else ""

    @property
    def rows(self) -> list[Any]:
        """The rows of the neurons in the graph, each once."""
        return list({d.neuron_type: d.row for step in self.steps if (d := step.descriptor)}.values())

    @property
    def channels(self) -> int:
        """Number of channels among which the user can choose."""
        slopes = {len(d.data) for step in self.steps if (d := step.descriptor) is not None and d.data is not None}
        return min((n for n in slopes if n <= MOST_CHANNELS), default=1)

    def data(self) -> dict[str, Any]:
        """The data for the script."""
        first = len(self.traced.sources)
        images: list[dict[str, Any]] = [
            {"name": _short(name, LONGEST_NAME), "format": self.traced.images[name].storage.name, "step": None,
             "value": _number(value.item())}
            for name, value in self.traced.sources.items()
        ]  # fmt: skip
        images += [
            {"name": _short(step.name, LONGEST_NAME), "format": step.storage.name, "step": i}
            for i, step in enumerate(self.steps)
        ]
        steps = [self._step(i, step, first + i) for i, step in enumerate(self.steps)]
        gradients = self.traced.gradient_names
        named = {self.number[name]: self.number[gradient] for name, gradient in gradients.items()}
        forward = [step.name for step in self.steps if step.name not in self.backward]
        # The result that is differentiated: the last whose gradient comes from outside, else the last of all.
        outputs = [name for name in forward if gradients.get(name) in self.traced.sources] or forward
        output = self.number[outputs[-1]] if outputs else None
        return {"images": images, "steps": steps, "channel": self.channel, "channels": self.channels,
                "gradients": named, "output": output}  # fmt: skip

    def _step(self, i: int, step: Step, result: int) -> dict[str, Any]:
        data: dict[str, Any] = {
            "kind": step.kind, "node": step.node, "format": step.storage.name, "result": result,
            "reads": [self.number[name] for name in step.reads], "backward": step.name in self.backward,
            "owner": self.owners[i], "parameters": {},
        }  # fmt: skip
        data |= step.operation.facts() if step.operation.is_pointwise else self._at_one_place(step)
        if step.descriptor is None:
            data["word"] = step.function.removesuffix("Gradient").lower()
        elif step.descriptor.data is None:
            data["parameters"] = step.descriptor.parameters
        else:
            data["parameters"] = {"data": float(step.descriptor.data[self.channel])}
            if self.channels > 1:
                data["slopes"] = step.descriptor.data.tolist()
        source = self.structure.gradients.get(step.name)
        if source is not None and step.operation == Sum():
            data["of"] = _short(source, LONGEST_NAME)
        return data

    def _at_one_place(self, step: Step) -> dict[str, Any]:
        """A window as a sum in which the elements at other places are constant."""
        place = self.traced.places[step.reads[0]]
        factor = sum(product.factor for product in step.products if product.place == place)
        here = [self.traced.sources[read].item() if read in self.traced.sources else self.traced[read].stored.item()
                for read in step.reads]  # fmt: skip
        if not step.products and step.value.item() == here[0]:
            factor = 1.0
        bias = step.value.item() - factor * here[0]
        whole = {"terms": [[factor, [0]], [0.0, [len(here) - 1]]], "bias": bias, "bounds": ["-Infinity", "Infinity"]}
        return {"kind": "sum"} | whole


def _number(value: float) -> float | str:
    """JSON has neither infinities nor NaN."""
    return value if math.isfinite(value) else str(value).replace("nan", "NaN")


def _short(text: str, longest: int = LONGEST) -> str:
    safe = printable(text)
    return safe if len(safe) <= longest else f"{safe[: longest - 1]}…"


# ---- the page ----


def _page(explained: _Explained, title: str) -> Page:
    parts = "\n".join(file_text("teach", f"{name}.js") for name in SCRIPTS)
    script = "(() => {\n" + parts.replace("/* neurons */", javascript(explained.rows)) + "})();\n"
    name = html_text(title, LONGEST_TITLE)
    forward = len(explained.steps) - len(explained.backward)
    body = f"""<header>
<a class="skip scripted" href="#numbers-title">Skip to the numbers to change</a>
<a class="skip" href="#trace-title">Skip to the table of all steps</a>
<h1>{name}, step by step</h1>
<p>{forward} forward and {len(explained.backward)} backward steps, for one element of each image: \
{html_text(explained.traced.caption, LONGEST)}. Each step reads stored numbers, computes, and stores the result, \
rounded once.</p>
<noscript><p class="note">Stepping and changing numbers need JavaScript; below is the trace of the numbers with which \
this page was made.</p></noscript>
</header>
<main>
<div class="bar-of-buttons scripted" role="group" aria-label="Steps">
<button type="button" id="first">First</button>
<button type="button" id="previous">Previous</button>
<button type="button" id="next">Next</button>
<button type="button" id="last">Last</button>
<button type="button" id="play">Play</button>
<span id="position"></span>
<span class="hint">Keys: left and right arrow</span>
</div>
<p id="summary" class="scripted" aria-hidden="true"></p>
<p id="announcement" class="hidden" role="status" aria-live="polite"></p>
<div>
{_graph(explained)}
<div class="two scripted">
<section aria-labelledby="step-title"><h2 id="step-title">Step</h2><div id="work"></div></section>
<div>
<section id="whole-part" aria-labelledby="whole-title"><h2 id="whole-title">The whole graph</h2>
<p><label for="along">Its result by the source</label> <select id="along"></select></p>
<div id="chain"></div>
<div id="whole" class="figure" role="slider" tabindex="0"></div></section>
<section aria-labelledby="numbers-title"><h2 id="numbers-title" tabindex="-1">Numbers to change</h2>
<p><button type="button" id="reset">Reset all numbers</button></p>
<div id="descent"><p><button type="button" id="downhill">Step downhill</button>
<label for="rate">Rate</label> <input type="text" id="rate" value="0.1" size="5" autocomplete="off">
<label for="moved">of</label> <select id="moved"><option value="all">all numbers</option>
<option value="parameters">parameters</option><option value="sources">sources</option></select></p>
<p class="note">Each number moves by minus the rate times its gradient. <b id="loss"></b></p></div>
<p id="which-row"><label for="which">Show those</label> <select id="which">
<option value="step">of the current step</option><option value="all">of all steps</option></select></p>
<div id="controls"></div></section>
</div>
</div>
</div>
{_table(explained)}
{_windows(explained)}
</main>
<footer><p class="note">Made by mpsref {mpsref.__version__}. The script of this page computes in float64 and rounds \
once to the format of the image; mpsref itself rounds correctly.</p></footer>"""
    return Page(
        html_page(
            f"{name}, step by step",
            body,
            data=embedded(explained.data()),
            style=file_text("teach", "explain.css"),
            script=script,
        )
    )


def _graph(explained: _Explained) -> str:
    shape = explained.structure
    places = layout(shape, set(explained.names))
    width, height = extent(places)
    taken = set(places.values())
    edges = (
        f'<path class="edge {kind}" marker-end="url(#arrow)" d="{edge_path(places[source], places[target], taken)}"/>\n'
        for source, target, kind in shape.edges(places)
        if kind != "state"
    )
    # In the order of the steps, which is that of the tab key and of screen readers.
    boxes = (_box(explained, name, places[name]) for name in explained.names if name in places)
    return (
        '<h2 id="graph-title">Graph</h2>'
        '<p class="legend"><span class="scripted">▶ the current step, • what it reads; </span>a dashed frame: a '
        "gradient. Choose a node to go to its step.</p>"
        '<div class="graph" tabindex="0" role="region" aria-label="Graph">'
        f'<svg width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="group" '
        f'aria-label="{len(places)} images of the graph">\n'
        '<marker id="arrow" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path d="M0 0L8 4L0 8z"/></marker>{"".join(edges)}{"".join(boxes)}</svg></div>'
    )


def _box(explained: _Explained, name: str, place: Place) -> str:
    number, (x, y) = explained.number[name], place
    i = number - len(explained.traced.sources)
    if i < 0:
        kind, label = "source", f"{html_text(name + explained.traced.where(name), LONGEST)}, a source"
        value = _stored(explained.traced.sources[name].item(), explained.traced.images[name].storage, SHORT_VALUE)
    else:
        step = explained.steps[i]
        kind = f"{step.function.removesuffix('Gradient')}{PRIME}" if step.upstream is not None else step.function
        label = f"step {i + 1}: {html_text(name + explained.traced.where(name), LONGEST)}, {step.node}"
        value = _stored(step.stored.item(), step.storage, SHORT_VALUE) + (" lost" if explained.lost(step) else "")
    inside = (
        f"<title>{label}</title>"
        f'<rect x="{x}" y="{y}" width="{NODE_WIDTH}" height="{NODE_HEIGHT}" rx="6"/>'
        f'<text class="mark" x="{x + 7}" y="{y + 26}"></text>'
        f'<text class="name" x="{x + 24}" y="{y + 18}">{html_text(name, SHORT_NAME)}</text>'
        f'<text class="small" x="{x + 24}" y="{y + 34}">{html_text(kind, 12)}</text>'
        f'<text class="value" x="{x + NODE_WIDTH - 8}" y="{y + 34}" text-anchor="end">{value}</text>'
    )
    gradient = " gradient" if name in explained.backward else ""
    gradient += " lost" if name in explained.traced.lost else ""
    if i < 0:
        return f'<g class="node" data-image="{number}">{inside}</g>\n'
    return f'<a class="node{gradient}" data-image="{number}" href="#step-{i + 1}" aria-label="{label}">{inside}</a>\n'


def _table(explained: _Explained) -> str:
    columns = {"step": "number", "image": "", "node": "", "reads": "", "upstream": "number", "slope": "number",
               "before storage": "number", "stored": "number", "format": "", "lost": ""}  # fmt: skip
    head = "".join(f'<th scope="col"{f" class={kind}" if kind else ""}>{name}</th>' for name, kind in columns.items())
    return (
        '<section aria-labelledby="trace-title"><h2 id="trace-title" tabindex="-1">All steps</h2><div class="scroll" '
        'tabindex="0" role="region" aria-label="All steps"><table id="trace"><caption>What each step reads, computes '
        f"and stores; forward steps first</caption><thead><tr>{head}</tr></thead><tbody>\n"
        f"{''.join(_rows(explained))}</tbody></table></div></section>"
    )


def _rows(explained: _Explained) -> Iterable[str]:
    images = explained.traced.images
    stored = {name: _stored(v.item(), images[name].storage) for name, v in explained.traced.sources.items()}
    for i, step in enumerate(explained.steps):
        stored[step.name] = _stored(step.stored.item(), step.storage)
        where = explained.traced.where
        read = ", ".join(f"{html_text(name, LONGEST_NAME)}{where(name)} = {stored[name]}" for name in step.reads)
        upstream = stored[step.reads[0]] if step.kind == "gradient" else ""
        slope = "" if step.slope is None or step.kind == "scale" else _text(step.slope.item())
        yield (
            f'<tr id="step-{i + 1}"><td class="number">{i + 1}</td><th scope="row">{html_text(step.name, LONGEST_NAME)}'
            f'{where(step.name)}</th><td>{step.node}</td><td class="reads">{read}</td>'
            f'<td class="number upstream">{upstream}</td>'
            f'<td class="number slope">{slope}</td><td class="number before">{_text(step.value.item())}</td>'
            f'<td class="number stored">{stored[step.name]}</td><td>{step.storage.name}</td>'
            f'<td class="lost">{html_text(explained.lost(step), LONGEST)}</td></tr>\n'
        )


def _windows(explained: _Explained) -> str:
    """For each window where it lies, and what it reads."""
    steps = [(i, step) for i, step in enumerate(explained.steps) if step.places]
    if not steps:
        return ""
    parts = (
        f"<details open><summary>Step {i + 1}: {html_text(step.name, LONGEST_NAME)}, {step.node}</summary>"
        f'<div class="two">{_window(step)}{_products(step)}</div></details>'
        for i, step in steps
    )
    return (
        '<section aria-labelledby="windows-title"><h2 id="windows-title">Windows</h2><p>What feeds the element in the '
        f"steps that read one, with the numbers with which this page was made.</p>{''.join(parts)}</section>"
    )


def _window(step: Step) -> str:
    """The pixels of the first source, with those that feed the element; far ones are left out."""
    pixels = {place[1:3] for place in step.places}
    ends = [
        (max(min(axis) - MARGIN, 0), min(max(axis) + MARGIN + 1, size))
        for axis, size in zip(zip(*pixels, strict=True), step.source_shape[1:3], strict=True)
    ]
    (top, bottom), (left, right) = ((low, min(high, low + MOST_PIXELS)) for low, high in ends)
    cells = "".join(
        f'<rect class="cell{" read" if (y, x) in pixels else ""}" x="{(x - left) * CELL}" y="{(y - top) * CELL}" '
        f'width="{CELL}" height="{CELL}"/>'
        for y in range(top, bottom)
        for x in range(left, right)
    )
    label = f"rows {top} to {bottom - 1} and columns {left} to {right - 1} of {html_text(step.reads[0], LONGEST_NAME)}"
    return (
        f'<figure><svg class="window" width="{(right - left) * CELL}" height="{(bottom - top) * CELL}" role="img" '
        f'aria-label="{label}">{cells}</svg><figcaption>{label}; filled: read</figcaption></figure>'
    )


def _products(step: Step) -> str:
    values = step.sources[0].tolist()
    rows: list[tuple[float, ...]] = [(x,) for x in values]
    if step.products:
        rows = [(x, product.factor, x * product.factor) for x, product in zip(values, step.products, strict=True)]
    lines = [
        f"<tr><td>{y}, {x}, {channel}</td>"
        + "".join(f'<td class="number">{_text(number)}</td>' for number in row)
        + "</tr>"
        for (_, y, x, channel), row in zip(step.places, rows, strict=True)
    ]
    more = f"<p>and {len(lines) - MOST_PRODUCTS:,} more</p>" if len(lines) > MOST_PRODUCTS else ""
    head = "".join(
        f'<th scope="col">{name}</th>'
        for name in ("y, x, channel", "value", *(("weight", "product") if step.products else ()))
    )
    return (
        f'<div class="scroll"><table class="products"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(lines[:MOST_PRODUCTS])}</tbody></table>{more}</div>"
    )


def _text(value: float, digits: int = 10) -> str:
    """A number before storage as the script writes it; beyond its range the script does not know it."""
    if math.isfinite(value) and abs(value) > LARGEST:
        return "more than 1e100" if value > 0 else f"less than {MINUS}1e100"
    return _typeset(f"{0 * value:g}" if abs(value) < 1 / LARGEST else f"{value:.{digits}g}")


def _stored(value: float, storage: StorageFormat, longest: int | None = None) -> str:
    """The shortest text that identifies a number of the format."""
    text = _text(value, 7) if storage.unorm_max else _typeset(str(storage.dtype.type(value)).removesuffix(".0"))
    return text if longest is None or len(text) <= longest else _text(value, 5)


def _typeset(text: str) -> str:
    return text.replace("-", MINUS).replace("inf", "infinity").replace("nan", "NaN")
