"""
Drawings of a graph's structure, as text: SVG, DOT for Graphviz, and Mermaid.

Forward images are in columns from left to right; the gradient of an image is below it, so that gradients flow back
from right to left. Names from files and callers are made printable, truncated, and escaped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

from mpsref.arguments import sequence_or_error
from mpsref.display import html_text, printable
from mpsref.errors import ParameterError
from mpsref.graph.names import differentiated, image_names, short_kind
from mpsref.graph.schedule import inputs, schedule
from mpsref.operations import Role

if TYPE_CHECKING:
    from mpsref.graph.nodes import MPSNNFilterNode, MPSNNImageNode

__all__ = [
    "NODE_HEIGHT",
    "NODE_WIDTH",
    "SHORT_KIND",
    "SHORT_NAME",
    "Place",
    "Structure",
    "dot",
    "edge_path",
    "extent",
    "kind_text",
    "layout",
    "mermaid",
    "structure",
    "svg",
]

NODE_WIDTH, NODE_HEIGHT, COLUMN, ROW, MARGIN, LEGEND = 168, 42, 212, 56, 12, 24
GAP = COLUMN - NODE_WIDTH
"""Pixels."""

TALLEST = 8
"""Nodes in a column, before another one starts."""

MOST_IMAGES = 400
"""The most images in a drawing."""

SHORT_NAME, SHORT_KIND, SHORT_BESIDE, LONGEST = 18, 24, 11, 160
"""Most characters of a name and of a kind in a box, of both on one line, and of any text."""

MOST_NAMED = 20
"""Most results that a description names."""

Place: TypeAlias = tuple[int, int]
"""The upper left corner of a box, in pixels."""

# Pale boxes with dark text, and lines of medium lightness, are readable on white and on black.
_INK, _LINE, _FORWARD, _BACKWARD = "#1a1a1a", "#767676", "#3374b5", "#b35f14"
_FILLS = {"source": "#eeeeee", "forward": "#e3eefa", "gradient": "#fcebd9"}
_STROKES = {"source": _LINE, "forward": _FORWARD, "gradient": _BACKWARD}


@dataclass(frozen=True)
class Structure:
    """
    The images of a graph by name, and their connections.

    Attributes
    ----------
    producers : mapping of str to MPSNNFilterNode or None
        The node that makes each image, in order of evaluation; None for sources, which come first.
    reads : mapping of str to tuple of str
        The images that the producer of an image reads.
    states : mapping of str to str
        For a gradient, the result of the forward node whose state it reads.
    gradients : mapping of str to str
        For a gradient, the image that it is the gradient of.
    results : frozenset of str
        The requested images.
    numbers : mapping of str to str
        What is written into the box of an image, if it was evaluated.
    """

    producers: Mapping[str, MPSNNFilterNode | None]
    reads: Mapping[str, tuple[str, ...]]
    states: Mapping[str, str]
    gradients: Mapping[str, str]
    results: frozenset[str]
    numbers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, names: Mapping[MPSNNImageNode, str], results: Iterable[MPSNNImageNode]) -> Structure:
        """The structure of named images, each after those that its producer reads."""
        nodes = [image.producer for image in names if image.producer is not None]
        return cls(
            {name: image.producer for image, name in names.items()},
            {names[node.result_image]: tuple(names[source] for source in node.sources) for node in nodes},
            {
                names[node.result_image]: names[node.forward_node.result_image]
                for node in nodes
                if node.forward_node is not None and node.forward_node.result_image in names
            },
            {names[gradient]: names[image] for gradient, image in differentiated(nodes).items()},
            frozenset(names[image] for image in results),
        )

    @classmethod
    def of_images(cls, results: Sequence[MPSNNImageNode]) -> Structure:
        """The structure of everything that some images depend on."""
        images = [*inputs(results), *(node.result_image for node in schedule(results))]
        return cls.of(image_names(images), results)

    @cached_property
    def backward(self) -> frozenset[str]:
        """Names of gradients, including incoming ones."""
        readers: dict[str, set[bool]] = {}
        ones: set[str] = set()
        for name, read in self.reads.items():
            node = self.producers[name]
            assert node is not None
            operation = node.operation
            for source, role in zip(read, operation.roles, strict=True):
                is_incoming = name in self.gradients and (role is Role.GRADIENT or operation.accumulates)
                readers.setdefault(source, set()).add(is_incoming)
            if operation.is_initial_gradient:
                ones.add(name)
        incoming = {name for name, node in self.producers.items() if node is None and readers.get(name) == {True}}
        return frozenset({*self.gradients, *incoming, *ones})

    def kind(self, name: str) -> str:
        """``source``, ``forward`` or ``gradient``."""
        return "gradient" if name in self.backward else "source" if self.producers[name] is None else "forward"

    def edges(self, drawn: Collection[str]) -> list[tuple[str, str, str]]:
        """Source, target and kind (``forward``, ``gradient``, ``state``) of the edges, states last."""
        edges = [
            (source, name, "gradient" if source in self.backward else "forward")
            for name, read in self.reads.items()
            if name in drawn
            for source in read
            if source in drawn
        ]
        return edges + [(s, name, "state") for name, s in self.states.items() if s in drawn and name in drawn]


@runtime_checkable
class _ImageNode(Protocol):
    """An image node, whose module lies above this one."""

    producer: Any
    stop_gradient: Any


@runtime_checkable
class Drawable(Protocol):
    """A graph, or a part of one."""

    def structure(self) -> Structure:
        """The images and their connections."""


def not_a_graph(graph: object) -> ParameterError:
    """The error for what is neither a graph nor a part of one."""
    return ParameterError(
        f"graph is a {type(graph).__name__}: give an MPSNNGraph, a GraphFile, a node, an image node or a list of nodes"
    )


def structure(graph: object) -> Structure:
    """
    The structure of a graph, or of everything that a node, an image or several of them depend on.

    Raises
    ------
    ParameterError
        `graph` is none of those.
    """
    if isinstance(graph, Drawable) and not isinstance(graph, type):
        return graph.structure()
    if not isinstance(graph, list | tuple):
        raise not_a_graph(graph)
    results: list[Any] = []
    for item in sequence_or_error("graph", graph):
        results.append(getattr(item, "result_image", item))
        if not isinstance(results[-1], _ImageNode):
            raise ParameterError(f"the list holds a {type(item).__name__}: give nodes or image nodes")
    return Structure.of_images(results)


# ---- layout ----


def layout(graph: Structure, drawn: Collection[str] | None = None) -> dict[str, Place]:
    """The places of the images: columns by depth, gradients below, tall columns split."""
    columns: dict[tuple[int, int], tuple[list[str], list[str]]] = {}
    for name, column in _columns(graph).items():
        if drawn is None or name in drawn:
            columns.setdefault(column, ([], []))[name in graph.backward].append(name)
    band = min(TALLEST, max((len(forward) for forward, _ in columns.values()), default=0))
    places: dict[str, Place] = {}
    x = MARGIN
    for _, lists in sorted(columns.items()):
        for top, members in zip((0, band * ROW + MARGIN), lists, strict=True):
            for i, name in enumerate(members):
                places[name] = (x + i // TALLEST * COLUMN, MARGIN + top + i % TALLEST * ROW)
        x += COLUMN * max(-(-len(members) // TALLEST) for members in lists)
    return places


def _columns(graph: Structure) -> dict[str, tuple[int, int]]:
    """The column of each image, for a gradient that of its image; and a level in it: terms stand before their sum."""
    columns: dict[str, int] = {}
    for name, node in graph.producers.items():
        read = graph.reads.get(name, ())
        if name in graph.gradients:
            columns[name] = columns[graph.gradients[name]]
        elif node is not None and node.operation.is_initial_gradient:
            columns[name] = columns[read[0]]
        else:
            columns[name] = max((columns[source] + 1 for source in read), default=0)
    for name in graph.producers:
        # Incoming gradients are below their result.
        if graph.producers[name] is None and name in graph.backward:
            columns[name] = 0
    levels: dict[str, int] = {}
    for name, read in reversed(list(graph.reads.items())):
        for source in read:
            if graph.producers[source] is None and source in graph.backward:
                below = columns[graph.states[name]] if name in graph.states else columns[name] + 1
                columns[source] = max(columns[source], below)
            elif source in graph.gradients and graph.gradients[source] == graph.gradients.get(name):
                levels[source] = max(levels.get(source, 0), levels.get(name, 0) + 1)
    return {name: (column, levels.get(name, 0)) for name, column in columns.items()}


def extent(places: Mapping[str, Place]) -> tuple[int, int]:
    """Width and height of a drawing."""
    width = max((x for x, _ in places.values()), default=0) + NODE_WIDTH + GAP
    return width, max((y for _, y in places.values()), default=0) + NODE_HEIGHT + MARGIN


def edge_path(source: Place, target: Place, boxes: Collection[Place]) -> str:
    """
    The ``d`` of a path from one box to another, between their nearer sides.

    It goes round the `boxes` in its way, between rows or between columns: behind a box it would seem to end there.
    """
    (sx, sy), (tx, ty) = source, target
    y1, y2 = sy + NODE_HEIGHT // 2, ty + NODE_HEIGHT // 2
    if sx == tx:
        if not any(x == sx and min(sy, ty) < y < max(sy, ty) for x, y in boxes):
            middle, half = sx + NODE_WIDTH // 2, NODE_HEIGHT if ty > sy else 0
            return f"M{middle} {sy + half}L{middle} {ty + NODE_HEIGHT - half}"
        side = sx + NODE_WIDTH
        far = side + min(GAP, abs(ty - sy) // 6)
        return f"M{side} {y1}C{far} {y1} {far} {y2} {side} {y2}"
    ahead = 1 if tx > sx else -1
    x1, x2 = (sx + NODE_WIDTH, tx) if ahead > 0 else (sx, tx + NODE_WIDTH)
    is_free = not any(min(sx, tx) < x < max(sx, tx) and min(y1, y2) - NODE_HEIGHT <= y <= max(y1, y2) for x, y in boxes)
    if is_free:
        bend = ahead * max(24, abs(x2 - x1) // 2)
        return f"M{x1} {y1}C{x1 + bend} {y1} {x2 - bend} {y2} {x2} {y2}"
    # Offset by column, so that paths from adjacent columns do not overlap.
    off = 3 + 4 * (sx // COLUMN % 3)
    lane = sy - off if ty < sy or (ty == sy and ahead > 0) else sy + NODE_HEIGHT + off
    gap, half = ahead * GAP, ahead * GAP // 2
    return (
        f"M{x1} {y1}C{x1 + half} {y1} {x1 + half} {lane} {x1 + gap} {lane}"
        f"L{x2 - gap} {lane}C{x2 - half} {lane} {x2 - half} {y2} {x2} {y2}"
    )


def kind_text(node: MPSNNFilterNode | None) -> str:
    """The text below the name of an image: the label of its node, or what the node does."""
    if node is None:
        return "source"
    if node.label:
        return node.label
    kind = short_kind(node)
    return f"gradient of {kind.removesuffix('Gradient')}" if Role.GRADIENT in node.operation.roles else kind


# ---- the drawings ----


class Drawing(str):
    """SVG as text, which a notebook shows as a picture."""

    __slots__ = ()

    def _repr_svg_(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return str(self)


def svg(graph: object) -> Drawing:
    """
    Draw a graph as self-contained SVG, readable on light and dark backgrounds.

    Parameters
    ----------
    graph : MPSNNGraph, GraphFile, MPSNNFilterNode, MPSNNImageNode, MPSNNStateNode, or list of filter and image nodes
        What to draw: for a node or image, all that it depends on; for a state, its forward node.

    Returns
    -------
    str
        An ``svg`` element, which a notebook shows as a picture. States are dashed lines. Beyond 400 images, the rest
        is only counted.

    Raises
    ------
    ParameterError
        `graph` is none of those.

    Examples
    --------
    >>> import mpsref as mps
    >>> from mpsref import teach
    >>> n = mps.MPSCNNNeuronTanHNode(source=mps.MPSNNImageNode(handle="x"))
    >>> teach.svg(n).count("<rect")
    2
    """
    shape, drawn, rest = _drawn(graph)
    places = layout(shape, drawn)
    width, height = extent(places)
    width = max(width, 3 * COLUMN)
    taken = set(places.values())
    mark = f"mpsref-{hashlib.sha256(repr((shape.reads, places)).encode('utf-8', 'replace')).hexdigest()[:12]}"
    edges = [
        f'<path d="{edge_path(places[source], places[target], taken)}" fill="none" {_EDGES[kind]} '
        f'marker-end="url(#{mark}-{kind})"><title>{html_text(source, LONGEST)} to {html_text(target, LONGEST)}: '
        f"{_LABELS[kind]}</title></path>\n"
        for source, target, kind in shape.edges(drawn)
    ]
    boxes = [_box(shape, name, place) for name, place in places.items()]
    results = [name for name in shape.producers if name in shape.results]
    more = f" and {len(results) - MOST_NAMED} more" if len(results) > MOST_NAMED else ""
    gradients = "in each box its number and its gradient" if shape.numbers else "gradients below, from right to left"
    description = (
        f"Forward images from left to right, sources first; {gradients}. "
        f"Results: {', '.join(results[:MOST_NAMED])}{more}."
    )
    left_out = f"{rest:,} more images are not drawn" if rest else ""
    if rest:
        description = f"{left_out}. {description}"
    return Drawing(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height + LEGEND}" '
        f'viewBox="0 0 {width} {height + LEGEND}" role="img" aria-labelledby="{mark}-title {mark}-desc" '
        'font-family="system-ui, sans-serif" font-size="12">\n'
        f'<title id="{mark}-title">{len(drawn):,} images of a graph</title>\n'
        f'<desc id="{mark}-desc">{html_text(description, 20 * LONGEST)}</desc>\n'
        f"<defs>{''.join(_arrow(mark, kind) for kind in _EDGES)}</defs>\n"
        f"{''.join(edges)}{''.join(boxes)}{_legend(height, left_out, has_numbers=bool(shape.numbers))}</svg>\n"
    )


def dot(graph: object) -> str:
    r"""
    A graph in the language of Graphviz; arguments and errors as for `svg`.

    Examples
    --------
    >>> import mpsref as mps
    >>> from mpsref import teach
    >>> print(teach.dot(mps.MPSCNNNeuronTanHNode(source=mps.MPSNNImageNode(handle="x"))))
    digraph mpsref {
      rankdir=LR;
      node [shape=box, style="rounded,filled", fontname="sans-serif"];
      n0 [label="x\nsource", fillcolor="#eeeeee", color="#767676"];
      n1 [label="tanH\nTanH", fillcolor="#e3eefa", color="#3374b5", penwidth=2];
      n0 -> n1 [color="#3374b5"];
    }
    <BLANKLINE>
    """
    shape, drawn, rest = _drawn(graph)
    numbers = {name: i for i, name in enumerate(name for name in shape.producers if name in drawn)}
    lines = ["digraph mpsref {", "  rankdir=LR;", '  node [shape=box, style="rounded,filled", fontname="sans-serif"];']
    for name, i in numbers.items():
        kind = shape.kind(name)
        label = f"{_quoted(name)}\\n{_quoted(kind_text(shape.producers[name]))}"
        wide = ", penwidth=2" if name in shape.results else ""
        lines.append(f'  n{i} [label="{label}", fillcolor="{_FILLS[kind]}", color="{_STROKES[kind]}"{wide}];')
    if rest:
        lines.append(f'  more [label="and {rest:,} more", shape=plaintext, style=""];')
    lines += [
        f"  n{numbers[source]} -> n{numbers[target]} [{_DOT_EDGES[kind]}];"
        for source, target, kind in shape.edges(drawn)
    ]
    return "\n".join([*lines, "}", ""])


def mermaid(graph: object) -> str:
    """
    A graph as a Mermaid flowchart; arguments and errors as for `svg`.

    Examples
    --------
    >>> import mpsref as mps
    >>> from mpsref import teach
    >>> print(teach.mermaid(mps.MPSCNNNeuronTanHNode(source=mps.MPSNNImageNode(handle="x"))))
    flowchart LR
      n0(["x<br/>source"])
      n1["tanH<br/>TanH"]
      n0 --> n1
    <BLANKLINE>
    """
    shape, drawn, rest = _drawn(graph)
    numbers = {name: i for i, name in enumerate(name for name in shape.producers if name in drawn)}
    lines = ["flowchart LR"]
    for name, i in numbers.items():
        left, right = _MERMAID_BOXES[shape.kind(name)]
        label = f"{_coded(name)}<br/>{_coded(kind_text(shape.producers[name]))}"
        lines.append(f'  n{i}{left}"{label}"{right}')
    if rest:
        lines.append(f'  more["and {rest:,} more"]')
    lines += [
        f"  n{numbers[source]} {_MERMAID_EDGES[kind]} n{numbers[target]}" for source, target, kind in shape.edges(drawn)
    ]
    return "\n".join([*lines, ""])


def _drawn(graph: object) -> tuple[Structure, set[str], int]:
    """The structure, the names to draw, and how many others there are."""
    shape = structure(graph)
    drawn = set(list(shape.producers)[:MOST_IMAGES])
    return shape, drawn, len(shape.producers) - len(drawn)


_LABELS = {"forward": "read", "gradient": "incoming gradient", "state": "state"}
_EDGES = {
    "forward": f'stroke="{_FORWARD}" stroke-width="1.5"',
    "gradient": f'stroke="{_BACKWARD}" stroke-width="2"',
    "state": f'stroke="{_LINE}" stroke-dasharray="5 4"',
}
_COLOURS = {"forward": _FORWARD, "gradient": _BACKWARD, "state": _LINE}
_DOT_EDGES = {
    "forward": f'color="{_FORWARD}"',
    "gradient": f'color="{_BACKWARD}", penwidth=2',
    "state": f'color="{_LINE}", style=dashed, constraint=false',
}
_MERMAID_EDGES = {"forward": "-->", "gradient": "==>", "state": "-.->"}
_MERMAID_BOXES = {"source": ("([", "])"), "forward": ("[", "]"), "gradient": ("[/", "/]")}


def _arrow(mark: str, kind: str) -> str:
    return (
        f'<marker id="{mark}-{kind}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" '
        f'markerUnits="userSpaceOnUse" orient="auto"><path d="M0 0L8 4L0 8z" fill="{_COLOURS[kind]}"/></marker>'
    )


def _box(shape: Structure, name: str, place: Place) -> str:
    x, y = place
    node, kind = shape.producers[name], shape.kind(name)
    made_by = "a source" if node is None else f"made by {type(node).__name__}"
    wide = 2.5 if name in shape.results else 1
    numbers = shape.numbers.get(name)
    # Two numbers need the line of the kind, which then follows the name.
    short, room, of_kind = SHORT_NAME, SHORT_KIND, f'x="{x + 12}" y="{y + 33}"'
    if numbers is not None:
        short, room, of_kind = SHORT_BESIDE, SHORT_BESIDE, f'x="{x + NODE_WIDTH - 8}" y="{y + 18}" text-anchor="end"'
    return (
        f'<g class="node {kind}"><title>{html_text(name, LONGEST)}, {made_by}</title>'
        f'<rect x="{x}" y="{y}" width="{NODE_WIDTH}" height="{NODE_HEIGHT}" rx="6" fill="{_FILLS[kind]}" '
        f'stroke="{_STROKES[kind]}" stroke-width="{wide}"/>'
        f'<text x="{x + 12}" y="{y + 18}" fill="{_INK}" font-weight="600">{html_text(name, short)}</text>'
        f'<text {of_kind} fill="{_INK}" font-size="11">{html_text(kind_text(node), room)}</text>'
        + (f'<text x="{x + 12}" y="{y + 34}" fill="{_INK}">{html_text(numbers, SHORT_KIND)}</text>' if numbers else "")
        + "</g>\n"
    )


def _legend(top: int, left_out: str, *, has_numbers: bool) -> str:
    y, x, parts = top + 8, MARGIN, []
    if has_numbers:
        return f'<text x="{x}" y="{y}" fill="{_LINE}">In each box: value | gradient. {left_out}</text>\n'
    for kind, label in _LABELS.items():
        parts.append(
            f'<path d="M{x} {y - 4}L{x + 28} {y - 4}" {_EDGES[kind]}/>'
            f'<text x="{x + 34}" y="{y}" fill="{_LINE}">{label}</text>'
        )
        x += 60 + 7 * len(label)
    return f'<g>{"".join(parts)}<text x="{x}" y="{y}" fill="{_LINE}">{left_out}</text></g>\n'


def _short(text: str) -> str:
    safe = printable(text)
    return safe if len(safe) <= LONGEST else f"{safe[: LONGEST - 1]}…"


def _quoted(text: str) -> str:
    """Text escaped for quotes in DOT."""
    return _short(text).replace("\\", "\\\\").replace('"', '\\"')


def _coded(text: str) -> str:
    """Text escaped for a Mermaid label: everything that could be syntax, as a number."""
    return "".join(c if c.isalnum() or c in " ._-" else f"#{ord(c)};" for c in _short(text))
