"""Drawings: what is drawn is the graph, whatever it is called."""

from __future__ import annotations

import re
import shutil
import subprocess
import xml.etree.ElementTree as ET

import numpy as np
import pytest

import mpsref as mps
from builders import image, named
from mpsref import teach
from mpsref.graph.drawing import MOST_IMAGES, layout, structure
from mpsref.testing import compare
from mpsref.verify import Tolerances
from mpsref.verify.compare import Counts
from mpsref.verify.report import ImageReport, Report

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = [
    "</svg><script>alert(1)</script>", '"]; evil [label="', "\\", '\\"', "a\nb\x00\x1b[31m\ud800\ufffe", "%%{init}%%",
    "]]>", "#quot;&amp;", "url(#%s-", "`**x**`", "\u202egnol " + "long" * 500, "end", "<b>&'", "é☃",
]  # fmt: skip


def chain():
    """x, h, y, with gradients dh and dx of dy."""
    h = named(mps.MPSCNNNeuronTanHNode(source=image("x")), "h")
    y = named(mps.MPSCNNNeuronReLUNode(source=h.result_image), "y")
    (last,) = y.training_graph(with_source_gradient=image("dy"))
    return [y.result_image, last.result_image]


def fan_out():
    """Two neurons that read x, their sum, and the gradients from ones on."""
    x = image("x")
    p, q = named(mps.MPSCNNNeuronTanHNode(source=x), "p"), named(mps.MPSCNNNeuronGeLUNode(source=x), "q")
    total = named(mps.MPSNNAdditionNode(left_source=p.result_image, right_source=q.result_image), "s")
    (last,) = mps.MPSNNInitialGradientNode(source=total.result_image).training_graph()
    return [last.result_image]


def expected(shape):
    """Edges, from what the nodes themselves say."""
    names = {node.result_image: name for name, node in shape.producers.items() if node is not None}
    made = [node for node in shape.producers.values() if node is not None]
    assert all(
        set(node.sources) & set(names) <= {other.result_image for other in made[:i]} for i, node in enumerate(made)
    )
    edges = []
    for name, node in shape.producers.items():
        if node is None:
            continue
        for source, read in zip(node.sources, shape.reads[name], strict=True):
            assert names.get(source, source.handle) == read
            edges.append((read, name))
        state = getattr(node, "gradient_state", None)
        if state is not None and state.producer.result_image in names:
            edges.append((names[state.producer.result_image], name))
    return sorted(edges)


# ---- SVG ----


def drawn(text):
    """Titles of boxes and edges of a drawing, which must be whole and refer to what is there."""
    root = ET.fromstring(text)  # noqa: S314
    assert root.tag == f"{SVG}svg"
    ids = [each.get("id") for each in root.iter() if each.get("id")]
    assert len(set(ids)) == len(ids)
    assert set(root.get("aria-labelledby").split()) <= set(ids)
    assert root.get("role") == "img"
    assert set(
        re.findall(r"url\(#([^)]*)\)", " ".join(filter(None, (e.get("marker-end") for e in root.iter()))))
    ) <= set(ids)
    assert root.find(f"{SVG}title").text
    assert root.find(f"{SVG}desc").text
    assert {each.tag.removeprefix(SVG) for each in root.iter()} <= {
        "svg", "title", "desc", "defs", "marker", "path", "g", "rect", "text",
    }  # fmt: skip
    boxes = [group for group in root.findall(f"{SVG}g") if group.find(f"{SVG}title") is not None]
    edges = [path.find(f"{SVG}title").text for path in root.findall(f"{SVG}path")]
    return boxes, edges, root


def half_named():
    """As `chain`, but what comes later has a handle, and what comes first has none."""
    results = chain()
    results[0].producer.sources[0].handle = None
    return results


@pytest.mark.parametrize("make", [chain, fan_out, half_named])
def test_the_svg_has_every_image_and_every_edge(make):
    results = make()
    shape = structure(results)
    boxes, edges, root = drawn(teach.svg(results))

    assert [box.find(f"{SVG}text").text for box in boxes] == list(layout(shape))
    for box, name in zip(boxes, layout(shape), strict=True):
        node = shape.producers[name]
        assert box.find(f"{SVG}title").text == f"{name}, " + (
            "a source" if node is None else f"made by {type(node).__name__}"
        )
    assert sorted(tuple(re.split(" to |: ", edge)[:2]) for edge in edges) == expected(shape)
    dashed = [path for path in root.findall(f"{SVG}path") if path.get("stroke-dasharray")]
    assert len(dashed) == sum(edge.endswith(": state") for edge in edges) == len(shape.states) > 0


def test_gradients_stand_below_what_they_are_the_gradient_of():
    shape = structure(fan_out())
    places = layout(shape)

    assert list(shape.producers) == ["x", "p", "q", "s", "ones", "dp", "dx.1", "dq", "dx.2", "dx"]
    assert places["x"][0] < places["p"][0] == places["q"][0] < places["s"][0] == places["ones"][0]
    assert places["dx"][0] == places["x"][0] < places["dx.1"][0] == places["dx.2"][0] < places["dp"][0]
    assert places["dp"][0] == places["dq"][0] == places["p"][0]
    assert min(places[name][1] for name in shape.backward) > max(
        place[1] for name, place in places.items() if name not in shape.backward
    )
    assert structure(chain()).backward == {"dy", "dh", "dx"}
    assert layout(structure(chain()))["dy"][0] == layout(structure(chain()))["y"][0]


@pytest.mark.parametrize("wide", [1, 30])
def test_no_two_boxes_overlap(wide):
    x = image("x")
    nodes = [mps.MPSCNNNeuronTanHNode(source=x, a=i) for i in range(wide)]
    results = [node.training_graph(with_source_gradient=image(f"g{i}"))[0].result_image for i, node in enumerate(nodes)]
    places = list(layout(structure([*results, *nodes])).values())

    assert len(places) == 1 + 3 * wide
    for i, (x1, y1) in enumerate(places):
        assert all(abs(x1 - x2) >= 168 or abs(y1 - y2) >= 42 for x2, y2 in places[:i])


def skip_connection(depth=3):
    """A chain of which each image is added to the end as well, and the gradient of x."""
    images = [image("x")]
    for i in range(depth):
        images.append(named(mps.MPSCNNNeuronTanHNode(source=images[-1]), f"h{i}").result_image)
    for i in range(depth):
        total = mps.MPSNNAdditionNode(left_source=images[i], right_source=images[-1])
        images.append(named(total, f"s{i}").result_image)
    (last,) = total.training_graph(with_source_gradient=image("dy"))
    return [images[-1], last.result_image]


def wide(count):
    """As many readers of one image, whose sum is differentiated."""
    x = image("x")
    total = mps.MPSCNNNeuronTanHNode(source=x).result_image
    for _ in range(count - 1):
        other = mps.MPSCNNNeuronTanHNode(source=x).result_image
        total = mps.MPSNNAdditionNode(left_source=total, right_source=other).result_image
    (last,) = total.producer.training_graph(with_source_gradient=image("dy"))
    return [last.result_image]


def points_of(path):
    """Points along the lines and cubics of a path."""
    numbers = [np.array(part.split(), float).reshape(-1, 2) for part in re.findall(r"[\d. -]+", path)]
    assert re.fullmatch(r"M[\d .-]+([LC][\d .-]+)+", path)
    at, found, t = numbers[0][0], [], np.linspace(0, 1, 100)[:, np.newaxis]
    for part in numbers[1:]:
        p, q, r = part if len(part) == 3 else (at, part[0], part[0])
        found.append((1 - t) ** 3 * at + 3 * (1 - t) ** 2 * t * p + 3 * (1 - t) * t**2 * q + t**3 * r)
        at = part[-1]
    return np.concatenate(found)


@pytest.mark.parametrize(
    "results",
    [chain(), fan_out(), half_named(), skip_connection(), skip_connection(6), wide(3), wide(20)],
    ids=["chain", "fan_out", "half_named", "skip", "long skip", "3 readers", "20 readers"],
)
def test_no_edge_hides_behind_a_box(results):
    text = teach.svg(results)
    shape, (width, height) = structure(results), map(int, re.search(r'width="(\d+)" height="(\d+)"', text).groups())
    places = layout(shape)
    edges = re.findall(r'<path d="([^"]*)"[^>]*><title>(.*?) to (.*?): ', text)

    assert len(edges) == len(expected(shape))
    for path, source, target in edges:
        points = points_of(path)
        assert (points > 0).all()
        assert (points < (width, height)).all()
        for name, (x, y) in places.items():
            inside = (points > (x, y)) & (points < (x + 168, y + 42))
            assert not inside.all(axis=1).any(), f"{source} to {target} goes through {name}"


def test_light_and_dark_ground_can_be_seen_past():
    """Texts have their own ground, and lines a contrast of 3 with white and with black."""
    text = teach.svg(chain())

    def luminance(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for colour in set(re.findall(r'stroke="(#\w+)"', text)):
        assert 1.05 / (luminance(colour) + 0.05) >= 3
        assert (luminance(colour) + 0.05) / 0.05 >= 3
    inks = set(re.findall(r'<text[^>]*y="[^>]*fill="(#\w+)" font', text))
    for ground in set(re.findall(r'<rect[^>]*fill="(#\w+)"', text)):
        assert all((luminance(ground) + 0.05) / (luminance(ink) + 0.05) >= 4.5 for ink in inks)


# ---- DOT and Mermaid ----


def parsed_dot(text):
    """Labels by node, and edges; fails at what is not of this small part of the language."""
    lines = text.splitlines()
    assert lines[0] == "digraph mpsref {"
    assert lines[-1] == "}"
    string = r'"((?:[^"\\]|\\.)*)"'
    labels, edges = {}, []
    for line in lines[3:-1]:
        node = re.fullmatch(rf"  (\w+) \[label={string}(?:, \w+=(?:{string}|\w+))*\];", line)
        edge = re.fullmatch(rf"  (\w+) -> (\w+) \[\w+={string}(?:, \w+=\w+)*\];", line)
        assert node or edge, line
        if node:
            labels[node[1]] = re.sub(r"\\(.)", lambda m: "\n" if m[1] == "n" else m[1], node[2])
        else:
            edges.append((edge[1], edge[2]))
    return labels, edges


def parsed_mermaid(text):
    lines = text.splitlines()
    assert lines[0] == "flowchart LR"
    labels, edges = {}, []
    for line in lines[1:]:
        node = re.fullmatch(r'  (\w+)(?:\[|\(\[|\[/)"((?:[\w .-]|<br/>|#\d+;)*)"(?:\]|\]\)|/\])', line)
        edge = re.fullmatch(r"  (\w+) (?:-->|==>|-\.->) (\w+)", line)
        assert node or edge, line
        if node:
            labels[node[1]] = re.sub(r"#(\d+);", lambda m: chr(int(m[1])), node[2].replace("<br/>", "\n"))
        else:
            edges.append((edge[1], edge[2]))
    return labels, edges


@pytest.mark.parametrize("make", [chain, fan_out, half_named])
@pytest.mark.parametrize(("write", "parse"), [(teach.dot, parsed_dot), (teach.mermaid, parsed_mermaid)])
def test_dot_and_mermaid_have_every_image_and_every_edge(make, write, parse):
    results = make()
    shape = structure(results)
    labels, edges = parse(write(results))
    names = {key: label.partition("\n")[0] for key, label in labels.items()}

    assert list(names.values()) == list(shape.producers)
    assert sorted((names[a], names[b]) for a, b in edges) == expected(shape)


@pytest.mark.skipif(shutil.which("dot") is None, reason="graphviz is not installed")
@pytest.mark.parametrize("hostile", HOSTILE)
def test_graphviz_reads_it(hostile):
    results = [named(mps.MPSCNNNeuronTanHNode(source=image(hostile)), "y").result_image]
    subprocess.run(["dot", "-Tsvg"], input=teach.dot(results).encode(), check=True, capture_output=True)  # noqa: S607


# ---- hostile and large ----


@pytest.mark.parametrize("hostile", HOSTILE)
def test_names_are_only_names(hostile):
    x = image(hostile)
    node = mps.MPSCNNNeuronTanHNode(source=x)
    node.label = hostile
    (last,) = node.training_graph(with_source_gradient=image("dy"))
    results = [node.result_image, last.result_image]
    boxes, edges, _ = drawn(teach.svg(results))

    assert (len(boxes), len(edges)) == (4, 4)
    for write, parse in ((teach.dot, parsed_dot), (teach.mermaid, parsed_mermaid)):
        labels, found = parse(write(results))
        assert (len(labels), len(found)) == (4, 4)
    for text in (teach.svg(results), teach.dot(results), teach.mermaid(results)):
        assert all(c.isprintable() or c == "\n" for c in text)
        assert len(text) < 10_000
    labels, _ = parsed_dot(teach.dot(results))
    if hostile.isprintable() and len(hostile) < 100:
        assert labels["n0"] == f"{hostile}\nsource"
        assert next(iter(parsed_mermaid(teach.mermaid(results))[0].values())) == f"{hostile}\nsource"


def test_large_graphs_are_cut():
    at = image("x")
    for _ in range(3000):
        at = mps.MPSCNNNeuronTanHNode(source=at).result_image
    graph = mps.MPSNNGraph(result_image=at)
    boxes, _, root = drawn(teach.svg(graph))

    assert len(boxes) == MOST_IMAGES
    assert f"{3001 - MOST_IMAGES:,} more images are not drawn" in root.find(f"{SVG}desc").text
    for text in (teach.dot(graph), teach.mermaid(graph)):
        assert f"and {3001 - MOST_IMAGES:,} more" in text
    assert len(teach.svg(graph)) < 600_000


# ---- what can be drawn, and where ----


def test_all_that_has_a_structure_draws_itself():
    results = chain()
    file = mps.GraphFile.from_results(results)
    graph = mps.MPSNNGraph(result_images=results)
    last = results[1].producer

    for thing in (results[1], last):
        assert thing._repr_svg_() == teach.svg(thing) == teach.svg([thing])
        assert set(structure(thing).producers) == {"x", "h", "dy", "dh", "dx"}
    assert last.gradient_state._repr_svg_() == teach.svg(results[0].producer.sources[0])
    for thing in (file, graph):
        assert thing._repr_svg_() == teach.svg(thing)
        assert len(structure(thing).producers) == 6
    assert structure(file).results == set(file.results)
    assert list(structure(file).producers)[:2] == ["x", "dy"]
    assert structure(image("alone")).producers == {"alone": None}
    assert drawn(teach.svg(image("alone")))[1] == []


@pytest.mark.parametrize("thing", [None, 3, "x", {}, np.ones(3)])
def test_what_has_none_is_refused(thing):
    for write in (teach.svg, teach.dot, teach.mermaid):
        with pytest.raises(mps.ParameterError, match="give an MPSNNGraph, a GraphFile"):
            write(thing)
        with pytest.raises(mps.ParameterError, match="the list holds a"):
            write([thing])


def test_a_graph_that_was_made_keeps_its_drawing():
    results = chain()
    graph = mps.MPSNNGraph(result_images=results)
    before = teach.svg(graph)
    results[0].handle = "other"

    assert teach.svg(graph) == before


# ---- reports in notebooks ----


@pytest.mark.parametrize("hostile", ["y", "</td><script>alert(1)</script>", "\x1b[31m\ud800"])
def test_reports_are_tables_with_the_verdict(hostile):
    counts = Counts(2, 1, 1, 1, 1, 9, 0, 0, 1, {}, 1)
    images = [ImageReport(f"{hostile}{i}", hostile, "float16", counts, ()) for i in range(300)]
    report = Report(hostile, hostile, Tolerances(), tuple(images))
    comparison = compare(np.float16([1, 2.004, 4]), [1, 2, 3], ulp=2, name=hostile)

    for thing, rows, verdict in ((report, 200, "FAIL: "), (comparison, 5, f"{hostile if hostile == 'y' else ''}")):
        root = ET.fromstring(f"<div>{thing._repr_html_()}</div>")  # noqa: S314
        assert len(root.findall(".//tbody/tr")) == rows
        assert verdict in root.find(".//strong").text
        assert "FAIL" in root.find(".//strong").text
        assert {each.tag for each in root.iter()} <= {
            "div", "p", "strong", "table", "caption", "thead", "tbody", "tr", "th", "td",
        }  # fmt: skip
    head, first = list(ET.fromstring(f"<div>{report._repr_html_()}</div>").iter("tr"))[:2]  # noqa: S314
    cells = dict(zip((cell.text for cell in head), (cell.text for cell in first), strict=True))
    assert (cells["verdict"], cells["elements"], cells["largest"], cells["beyond"]) == ("beyond", "2", "9", "1")
    assert "and 100 more" in report._repr_html_()
    assert "beyond" in report._repr_html_()
    assert "512" in comparison._repr_html_()


def test_a_notebook_shows_a_drawing_as_a_picture():
    drawing = teach.svg(mps.MPSNNImageNode(handle="x"))

    assert drawing.startswith("<svg")
    assert drawing._repr_svg_() == drawing._repr_html_() == str(drawing)
