"""The page that steps through a graph: its arithmetic against the graph's, its parts, what a browser makes of it."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from flint import arb, ctx

import mpsref as mps
from builders import enter, field_of, parameter_sets, texts
from mpsref import teach
from mpsref.cli import main
from mpsref.storage import FORMATS
from mpsref.teach.formulas import javascript

F = mps.MPSImageFeatureChannelFormat
T, D = mps.MPSCNNNeuronType, mps.MPSNNNeuronDescriptor
EXAMPLE = Path(__file__).parents[2] / "examples" / "teach" / "graph.json"
HOSTILE = "</script><script>window.bad = 1</script><!--\"'&\u202e\u2066\x00"
SPECIAL = [0.0, -0.0, math.inf, -math.inf, math.nan, 1e-45, -1e-45, 3e38, -3e38, 6e-8, -6e-8, 65504.0, -0.75179152]


@pytest.fixture(scope="module")
def example():
    return mps.GraphFile.read(EXAMPLE)


@pytest.fixture(scope="module")
def shown(example):
    return teach.explain(example, title="graph.json")


# ---- the arithmetic of the page ----


def ran(browser, graph, images):
    """What the page stores at each pixel of some sources: an array for each step, in the order of the page."""
    values = [
        [repr(v).replace("inf", "Infinity").replace("nan", "NaN") for v in _decoded(image).ravel().tolist()]
        for image in images
    ]
    answer = browser.js(f"""(() => {{
        const state = explained.initial(), found = [], sources = {json.dumps(values)};
        const text = (x) => Object.is(x, -0) ? "-0" : String(x);
        for (let i = 0; i < sources[0].length; i++) {{
            sources.forEach((each, k) => {{ state.sources[k] = Number(each[i]); }});
            found.push(explained.run(state).map((step) => text(step.stored)).join(" "));
        }}
        return found.join(" ").replaceAll("Infinity", "inf");
    }})()""")
    return np.array(answer.split(), np.float64).reshape(len(values[0]), -1).T


def _decoded(image):
    stored = image.to_array()
    return image.storage.decode(stored, np.empty(stored.shape))


def differing(got, want):
    return ~((np.isnan(got) & np.isnan(want)) | ((got == want) & (np.signbit(got) == np.signbit(want))))


@pytest.mark.parametrize("name", [f.name for f in F if f])
def test_the_page_stores_what_the_graph_stores(browser, opened, name):
    # All neurons, forward and gradient, each with several sets of parameters.
    x, g = mps.MPSNNImageNode(handle="x"), mps.MPSNNImageNode(handle="g")
    forward, backward = [], []
    for neuron_type, row in mps.NEURONS.items():
        for parameters in parameter_sets(row):
            descriptor = mps.MPSNNNeuronDescriptor(neuron_type, **parameters)
            node = mps.MPSCNNNeuronNode(source=x, descriptor=descriptor)
            forward.append(node.result_image)
            backward.append(node.gradient_filter(with_source=g).result_image)
    results = [*forward, *backward]
    graph = mps.MPSNNGraph(result_images=results, format=F[name])
    random = np.random.default_rng(3)
    kinks = {k for image in forward for k in image.producer.descriptor.row.kinks(image.producer.descriptor)}
    size = np.exp(random.uniform(-100, 85, 350)) * random.choice([-1, 1], 350)
    tiny = np.exp(random.uniform(-45, 0, 350)) * random.choice([-1, 1], 350)
    points = np.concatenate(
        [SPECIAL, list(kinks), random.uniform(-8, 8, 500), random.uniform(-100, 100, 150), size, tiny]
    )
    upstream = np.resize([1, -0.3, 1e-5, 3.0, 100.0, 0.7, 0.0], points.size)
    sources = [mps.MPSImage.from_array(each.reshape(1, 1, -1, 1), F[name]) for each in (points, upstream)]
    rest = []
    want = [graph.encode(source_images=sources, intermediate_images=rest), *rest]
    want = np.stack([_decoded(image).ravel() for image in want])

    path = opened(teach.explain(graph))
    got = ran(browser, graph, sources)
    assert graph.source_image_handles == ["x", "g"]
    assert got.shape == want.shape
    wrong = differing(got, want)
    where = [(results[i].producer, points[k], upstream[k], want[i, k], got[i, k]) for i, k in np.argwhere(wrong)[:5]]
    # A float64 that is good to some 1e-15 decides in all but one of ten million cases; the rest are neighbours.
    assert np.count_nonzero(wrong) <= (wrong.size * 1e-5 if name == "float32" else 0), where
    if wrong.any():
        ordinals = FORMATS[F[name]].ordinals
        assert np.abs(ordinals(got[wrong].astype(np.float32)) - ordinals(want[wrong].astype(np.float32))).max() == 1
    assert browser.complaints(path) == []


EXTREME = {
    "a limit at infinity is reached": (D(T.geLU), [math.inf, -math.inf, -50.0]),
    "a slope that vanishes beside its parameters": (D(T.tanH, a=2e-32, b=0.75), [500.0, -1e14, 1e18, math.inf]),
    "and one that is not 0": (D(T.softPlus, a=-1.5e-27, b=0.9), [-1.4e21, -1e5, -math.inf, 700.0]),
    "a power of which a factor overflows": (D(T.power, a=-1, b=-1, c=-1685309952), [-0.8, -0.6, -1.4, -1.3, -0.99]),
    "a constant that is not real": (D(T.power, a=0, b=-0.02, c=0.1), [math.inf, -math.inf, 1.0, math.nan]),
    "a constant that is real": (D(T.power, a=0, b=2, c=0.5), [math.inf, -math.inf, 1.0]),
    "a sum that is no integer": (D(T.exponential, a=2.5, b=3e32, c=-2), [-1.2, 0.5, 0.4, 1e-5, 2.0, -8.0]),
    "a source that is an integer": (D(T.exponential, a=-1.1, b=-3.5, c=-2.5), [2.5e17, 4.3e18, -2.3e16, 1e22]),
    "integers, even and odd": (D(T.exponential, a=1, b=2**25, c=-1.0000001), [*range(-40, 40), 0.5, 2**27, -(2**26)]),
    "a constant at an integer": (D(T.exponential, a=0, b=3, c=-2), [math.inf, -math.inf, 0.3]),
    "a slope that is nearly 1/4": (D(T.sigmoid), [1e-9, 3e-16, -2.5e-15, 0.0, 1e-45]),
    "a value that is nearly a tie": (D(T.sigmoid), [k * 2**-23 for k in (1, 2, 3, 5, 6, -1, -3, -5, 9)]),
    "a logarithm of nearly 1": (D(T.logarithm, a=-1.09, b=1, c=0.1), [1e-16, 2.3e-17, -1.8e-13, 1e-40, -0.3]),
    "a sum that is nearly 1": (D(T.logarithm, a=1, b=-1), [2.0, 2.0000002, 1.9999999, 1.6, 2.9]),
}


def assert_page_agrees(browser, graph, sources):
    """The open page of a graph of two steps stores what the graph does, at each pixel of its sources."""
    rest = []
    want = [graph.encode(source_images=sources, intermediate_images=rest), *rest]
    want, read = (np.stack([_decoded(image).ravel() for image in images]) for images in (want, sources))
    got = ran(browser, graph, sources)
    wrong = np.argwhere(differing(got, want))
    assert not wrong.size, [(read[:, k], want[i, k], got[i, k]) for i, k in wrong[:5]]


@pytest.mark.parametrize("why", EXTREME)
def test_extreme_parameters_agree(browser, opened, why):
    descriptor, points = EXTREME[why]
    node = mps.MPSCNNNeuronNode(source=mps.MPSNNImageNode(handle="x"), descriptor=descriptor)
    last = node.gradient_filter(with_source=mps.MPSNNImageNode(handle="g"))
    upstream = [1.0, -0.3, 0.0, -0.0, math.inf, -math.inf, math.nan, 1e30, 1e-40]
    pairs = np.array([(x, g) for x in points for g in upstream]).T
    for channel_format in (F.float16, F.float32):
        graph = mps.MPSNNGraph(result_images=[node.result_image, last.result_image], format=channel_format)
        with np.errstate(over="ignore"):
            sources = [mps.MPSImage.from_array(each.reshape(1, 1, -1, 1), channel_format) for each in pairs]
        opened(teach.explain(graph))
        assert_page_agrees(browser, graph, sources)


@pytest.mark.parametrize("neuron_type", [t for t, row in mps.NEURONS.items() if not row.per_channel])
def test_sources_of_another_format_agree(browser, opened, neuron_type):
    # Among them ties of the format in which the results are stored.
    node = mps.MPSCNNNeuronNode(source=mps.MPSNNImageNode(handle="x"), descriptor=D(neuron_type))
    last = node.gradient_filter(with_source=mps.MPSNNImageNode(handle="g"))
    points = [math.inf, -math.inf, 0.0, 1e-3, 40.0, -40.0, *np.linspace(-3, 3, 25).tolist()]
    upstream = [0.5, 1 + 2**-11, 1 + 3 * 2**-11, 3 * 2**-25, 2.5 / 255, math.inf, -math.inf]
    pairs = np.array([(x, g) for x in points for g in upstream]).T
    sources = [mps.MPSImage.from_array(each.reshape(1, 1, -1, 1), F.float32) for each in pairs]
    for channel_format in (F.float16, F.unorm16, F.unorm8):
        graph = mps.MPSNNGraph(result_images=[node.result_image, last.result_image], format=channel_format)
        opened(teach.explain(graph, x=sources[0], g=sources[1]))
        assert_page_agrees(browser, graph, sources)


@pytest.mark.parametrize("name", ["float16", "float32", "unorm16"])
def test_additions_and_their_gradients_agree(browser, opened, name):
    x, y, g = (mps.MPSNNImageNode(handle=name) for name in "xyg")
    results = []
    for scales, bias, bounds in [
        ((1, 1), 0, None), ((0.7, -1.3), 0, None), ((1, 1e-4), 0.3, None), ((3, 2), -0.1, (-0.5, 0.75)),
        ((1e20, 1e-20), 1, None),
    ]:  # fmt: skip
        node = mps.MPSNNAdditionNode(left_source=x, right_source=y)
        node.primary_scale, node.secondary_scale = scales
        node.bias = bias
        if bounds:
            node.minimum_value, node.maximum_value = bounds
        results += [node.result_image, *(f.result_image for f in node.gradient_filters(with_source=g))]
    results = [*results[::3], *(r for i, r in enumerate(results) if i % 3)]
    graph = mps.MPSNNGraph(result_images=results, format=F[name])
    random = np.random.default_rng(4)
    exponent = random.uniform(-30, 12, (3, 400))
    values = np.exp(exponent) * random.choice([-1, 1], (3, 400))
    values[:, : len(SPECIAL)] = SPECIAL
    values[1] = random.permutation(values[1])
    sources = [mps.MPSImage.from_array(each.reshape(1, 1, -1, 1), F[name]) for each in values]
    rest = []
    want = [graph.encode(source_images=sources, intermediate_images=rest), *rest]

    opened(teach.explain(graph))
    got = ran(browser, graph, sources)
    assert not differing(got, np.stack([_decoded(image).ravel() for image in want])).any()


def test_numbers_are_rounded_to_nearest_even(browser, opened, shown):
    opened(shown)
    random = np.random.default_rng(5)
    bits = random.integers(0, 1 << 63, 600, dtype=np.uint64) * np.uint64(2) + random.integers(
        0, 2, 600, dtype=np.uint64
    )
    halves = random.integers(0, 1 << 16, 400).astype(np.uint16).view(np.float16).astype(np.float64)
    halves = halves[np.isfinite(halves)]
    ties = (halves + np.nextafter(halves.astype(np.float16), np.float16(np.inf)).astype(np.float64)) / 2
    codes = (random.integers(0, 65535, 400) + 0.5) / 65535
    values = np.concatenate(
        [bits.view(np.float64), ties, np.nextafter(ties, 9), codes, random.uniform(0, 1, 400), SPECIAL]
    )
    values = values[~np.isnan(values)]
    for channel_format, storage in FORMATS.items():
        text = json.dumps([repr(v).replace("inf", "Infinity") for v in values.tolist()])
        found = browser.js(f"""{text}.map(Number).map((x) => explained.round("{channel_format.name}", x))
            .map((x) => Object.is(x, -0) ? "-0" : String(x)).join(" ").replaceAll("Infinity", "inf")""")
        with np.errstate(all="ignore"):
            stored = storage.encode(values, np.empty(values.size, storage.dtype))
        want = storage.decode(stored, np.empty(values.size))
        assert not differing(np.array(found.split(), np.float64), want).any()


def test_the_error_function_is_good(browser, opened, shown):
    opened(shown)
    points = [*np.linspace(-6, 26, 331).tolist(), 1e-300, -1e-9, 0.9999999, 1.0, 1.0000001, -1.0, -0.5]
    found = browser.js(f"{json.dumps(points)}.map(explained.erfc)")
    ctx.prec = 200

    errors = [abs(arb(got) / arb(u).erfc() - 1) for u, got in zip(points, found, strict=True)]
    assert max(float(error.mid()) for error in errors) < 3e-15


def test_formulas_are_those_of_the_rows():
    every = javascript(mps.NEURONS.values())

    assert re.findall(r"^(\w+): \{$", every, re.MULTILINE) == [t.name for t in mps.NEURONS]
    assert "softPlus" not in javascript([mps.NEURONS[T.tanH]])
    # What would cancel or overflow as it stands is nowhere.
    assert not re.search(r"Math\.log\(1|exp\(\S+\) - 1|1 \+ erf|tanh\(\S+\) \* tanh|\+ exp\(|/ \(1 \+ exp", every)
    assert "p.c === (-1) ? exp(" in every
    assert "kinks: (p) => [0]" in every


def test_only_neurons_of_the_graph_are_on_the_page(shown):
    script = re.findall(r"<script>(.*?)</script>", shown, re.DOTALL)[-1]

    names = set(re.findall(r"^ *(\w+): \{\n  forward:", script, re.MULTILINE))
    assert names == {"tanH", "softPlus", "pReLU"}


# ---- the page, as text ----


def test_the_page_needs_nothing_but_itself(shown):
    (style,) = re.findall(r"<style>(.*?)</style>", shown, re.DOTALL)
    script = re.findall(r"<script>(.*?)</script>", shown, re.DOTALL)[-1]
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', shown)

    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    for kind, text in (("style", style), ("script", script)):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert re.findall(r"https?://\S+", shown) == ['http://www.w3.org/2000/svg";']
    assert not re.search(r"<\w[^>]* (src|style|onclick|action)=", shown.replace(script, ""))
    # Nothing moves but the steps, when somebody asks for it.
    assert not re.search(r"transition|animation|scroll-behavior", style)


def test_the_table_without_scripts_is_the_trace(example, shown):
    sources = {name: np.full((1, 1, 8), value, np.float16) for name, value in (("x", 0.5), ("dy", 1))}
    trace = teach.trace(example, **sources).at(0, 0, 0)
    rows = re.findall(r'<tr id="step-\d+">(.*?)</tr>', shown)
    cells = {
        re.search(r"<th[^>]*>(.*?)</th>", row)[1]: dict(re.findall(r'<td class="(?:number )?(\w+)">(.*?)</td>', row))
        for row in rows
    }

    assert list(cells) == ["h", "s", "sum", "y", "dsum", "dh", "dx.1", "ds", "dx.2", "dx"]
    assert set(cells) == {step.name for step in trace.steps}
    for step in trace.steps:
        row = cells[step.name]
        assert float(row["before"]) == pytest.approx(step.value.item(), rel=1e-9)
        assert np.float16(row["stored"]) == step.stored.item()
        if step.kind in ("forward", "gradient"):
            assert float(row["slope"]) == pytest.approx(step.slope.item(), rel=1e-9)
        for name in step.reads:
            assert f"{name} = " in row["reads"]


def test_the_element_and_its_slopes_are_chosen(example):
    x = np.float16([[[1, 2, 0, 0, 0, 0, 0, 0], [-3, -4, 0, 0, 0, 0, 0, 0]]])
    page = teach.explain(example, at=(0, 1, 1), x=x)
    data = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page)[1])

    assert [(i["name"], i["value"]) for i in data["images"] if i["step"] is None] == [("x", -4.0), ("dy", 1.0)]
    assert next(s["parameters"] for s in data["steps"] if s.get("neuron") == "pReLU") == {
        "data": float(np.float32(0.1))
    }
    assert data["channel"] == 1


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"at": (0, 0, 8)}, mps.ImageError, "channel is 8"),
        ({"at": (0, 0)}, mps.ParameterError, "at has 2 numbers"),
        ({"at": 3}, mps.ParameterError, "at is a int"),
        ({"z": np.zeros((1, 1, 8))}, mps.SourceError, "unknown 'z'"),
        ({"x": np.zeros((1, 1, 3))}, mps.ImageError, "pReLU's data has 8 slopes"),
        ({"x": np.zeros((1, 1, 0))}, mps.ImageError, "source 'x': array has shape"),
    ],
)
def test_what_cannot_be_explained_is_refused(example, arguments, error, message):
    with pytest.raises(error, match=message):
        teach.explain(example, **arguments)


def test_graphs_that_have_no_page_are_refused():
    node = mps.MPSCNNNeuronAbsoluteNode(source=mps.MPSNNImageNode(handle="x"))
    with pytest.raises(mps.ParameterError, match="mode of the graph is 'stepwise'"):
        teach.explain(mps.MPSNNGraph(result_image=node.result_image, mode="stepwise"))
    with pytest.raises(mps.ParameterError, match="graph is a dict"):
        teach.explain({"y": node})
    for _ in range(200):
        node = mps.MPSCNNNeuronAbsoluteNode(source=node.result_image)
    with pytest.raises(mps.ParameterError, match="201 steps: a page has at most 200"):
        teach.explain(mps.MPSNNGraph(result_image=node.result_image))


# ---- the command line ----


def test_a_window_is_drawn_with_its_products():
    d = mps.MPSCNNConvolutionDescriptor(
        kernel_width=3, kernel_height=3, input_feature_channels=2, output_feature_channels=1
    )
    weights = mps.ArrayDataSource(d, np.arange(18, dtype=np.float32).reshape(1, 3, 3, 2) + 100)
    node = mps.MPSCNNConvolutionNode(source=mps.MPSNNImageNode(handle="x"), weights=weights)
    pool = mps.MPSCNNPoolingMaxNode(source=node.result_image, filter_size=2)
    x = np.arange(72, dtype=np.float32).reshape(6, 6, 2) / 4
    graph = mps.MPSNNGraph(result_image=pool.result_image, format=F.float32)
    first, _ = teach.explain(graph, x=x, at=(0, 1, 0)).split("<details open>")[1:]
    _, second = teach.explain(graph, x=x, at=(0, 1, 0), of="result0").split("<details open>")[1:]
    # Of the pixel (0, 1) the row above is outside; the pool reads rows 0 and 1, columns 2 and 3.
    assert first.count("cell read") == 6
    assert first.count("<tr><td>") == 12
    assert '<td>0, 0, 0</td><td class="number">0</td><td class="number">106</td><td class="number">0</td>' in first
    assert (
        '<td>1, 2, 1</td><td class="number">4.25</td><td class="number">117</td><td class="number">497.25</td>' in first
    )
    assert second.count("cell read") == 4
    assert "<td>1, 3, 0</td>" in second
    assert "weight" not in second.partition("</table>")[0]


def test_the_command_writes_a_page(example, tmp_path, capsys):
    path = tmp_path / "page.html"

    assert main(["explain", str(EXAMPLE), "--html", str(path)]) == 0
    assert path.read_text("utf-8") == teach.explain(example, title="graph.json")
    assert capsys.readouterr().out == f"wrote {path}, {path.stat().st_size:,} bytes: open it in a browser\n"
    np.save(tmp_path / "x.npy", np.float16([[[1] * 8, [-3] * 8]]))
    given = ["--source", f"x={tmp_path / 'x.npy'}", "--at", "0,1,0"]
    assert main(["explain", str(EXAMPLE), "--html", str(path), *given]) == 0
    assert ">x = \N{MINUS SIGN}3</td>" in path.read_text("utf-8")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["page.html", "x.npy"]


def test_the_command_overwrites_nothing_that_it_reads(example, tmp_path, capsys):
    graph, source = tmp_path / "g.json", tmp_path / "x.npy"
    example.write(graph)
    np.save(source, np.zeros((1, 1, 8), np.float16))
    before = graph.read_bytes(), source.read_bytes()

    for html, message in [(graph, "is read"), (source, "is read"), (tmp_path, "is a folder: name a file")]:
        assert main(["explain", str(graph), "--html", str(html), "--source", f"x={source}"]) == 2
        assert message in capsys.readouterr().err
    for given, message in [
        (["--source", f"z={source}"], "reads only x, dy"),
        (["--source", f"x={source}", "--source", f"x={source}"], "a name is given twice"),
        (["--at", "0,0,9"], "channel is 9"),
    ]:
        assert main(["explain", str(graph), "--html", str(tmp_path / "p.html"), *given]) == 2
        assert message in capsys.readouterr().err
    assert main(["explain", str(graph), "--html", "p.html", "--at", "1,x"]) == 2
    assert (graph.read_bytes(), source.read_bytes()) == before
    assert not (tmp_path / "p.html").exists()


# ---- the page, in a browser ----

POSITION = "document.getElementById('position').textContent"
STATUS = "document.getElementById('announcement').textContent"


def test_steps_go_forward_and_back_by_keys_and_clicks(browser, opened, shown):
    path = opened(shown)

    assert browser.js(POSITION) == "Step 1 of 10, forward"
    browser.key("ArrowRight")
    assert browser.js(POSITION) == "Step 2 of 10, forward"
    browser.click("#next")
    browser.key("ArrowLeft")
    browser.key("ArrowLeft")
    browser.key("ArrowLeft")
    assert browser.js(POSITION) == "Step 1 of 10, forward"
    browser.click("#last")
    assert browser.js(POSITION) == "Step 10 of 10, backward"
    assert texts(browser, "[aria-current=step] .name") == ["dx"]
    browser.key("Home")
    assert browser.js(POSITION) == "Step 1 of 10, forward"
    browser.click("svg a[href='#step-7']")
    assert browser.js(POSITION) == "Step 7 of 10, backward"
    assert texts(browser, "tr[aria-current=step] th") == ["dx.1"]
    assert texts(browser, ".node.waiting .name") == ["ds", "dx.2", "dx"]
    browser.wait(f"{STATUS}.startsWith('Step 7 of 10: gradient of tanH reads the upstream gradient dh = 1')")
    # In a field and in the scrolled graph these keys have their own meaning.
    browser.js("document.querySelector('#controls input').focus()")
    browser.key("ArrowRight")
    assert browser.js(POSITION) == "Step 7 of 10, backward"
    assert browser.complaints(path) == []


def test_it_plays_until_it_is_stopped_or_at_the_end(browser, opened, shown):
    opened(shown)
    browser.js("document.getElementById('last').click(), document.getElementById('previous').click()")
    browser.click("#play")
    assert texts(browser, "#play") == ["Pause"]
    browser.wait(f"{POSITION} === 'Step 10 of 10, backward'")
    browser.wait("document.getElementById('play').textContent === 'Play'")
    browser.click("#play")
    assert browser.js(POSITION) == "Step 1 of 10, forward"
    browser.click("#next")
    assert texts(browser, "#play") == ["Play"]


def test_what_the_script_shows_first_is_what_stands_in_the_table(browser, opened, shown):
    rows = "#trace tbody tr"
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        opened(shown)
        browser.call("Emulation.setScriptExecutionDisabled", value=False)
        before = texts(browser, f"{rows} td, {rows} th")
        hidden = browser.js("Array.from(document.querySelectorAll('button'), (b) => b.checkVisibility())")
        note = browser.js("document.querySelector('noscript') !== null")
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)
    opened(shown)

    assert note
    assert not any(hidden)
    assert texts(browser, f"{rows} td, {rows} th") == before
    assert all(browser.js("Array.from(document.querySelectorAll('button'), (b) => b.checkVisibility())"))


def test_a_changed_number_changes_everything_after_it(browser, opened, shown, example):
    path = opened(shown)
    enter(browser, field_of(browser, "x"), "-0.7")
    enter(browser, field_of(browser, "a"), "2.5")
    document = json.loads(EXAMPLE.read_text())
    for node in document["nodes"]:
        if node.get("a") == 1.5:
            node["a"] = 2.5
        elif node.get("descriptor", {}).get("a") == 1.5:
            node["descriptor"]["a"] = 2.5
    file = mps.GraphFile.from_json(document)
    trace = teach.trace(file, x=np.full((1, 1, 8), -0.7, np.float16), dy=np.ones((1, 1, 8), np.float16)).at(0, 0, 0)

    names, stored, slopes = (texts(browser, f"#trace tbody {cell}") for cell in ("th", ".stored", ".slope"))
    for name, value, slope in zip(names, stored, slopes, strict=True):
        assert np.float16(value.replace("\N{MINUS SIGN}", "-")) == trace[name].stored.item()
        if trace[name].kind in ("forward", "gradient"):
            assert float(slope) == pytest.approx(trace[name].slope.item(), rel=1e-9)
    # The gradient node of the tanH follows its forward node.
    browser.click("svg a[href='#step-7']")
    assert "a = 2.5, b = 0.75" in texts(browser, "#work dd")
    # A slider moves the field, and a reset both.
    slider = "document.getElementById('source-0-slider')"
    browser.js(f"{slider}.value = 2; {slider}.dispatchEvent(new Event('input'))")
    assert browser.js("document.getElementById('source-0').value") == "2"
    assert texts(browser, "tr#step-1 .reads") == ["x = 2"]
    browser.click("#reset")
    assert browser.js("document.getElementById('source-0').value") == "0.5"
    assert texts(browser, "tr#step-7 .stored") == ["0.9805"]
    assert browser.complaints(path) == []


def test_what_is_no_number_is_refused_with_a_note(browser, opened, shown):
    path = opened(shown)
    for field, text in (("source-0", "zz"), ("source-0", ""), (field_of(browser, "b"), "inf")):
        enter(browser, field, text)
        assert browser.js(f"document.getElementById('{field}').getAttribute('aria-invalid')") == "true"
        assert "Give a" in browser.js(f"document.getElementById('{field}-note').textContent")
        assert texts(browser, "tr#step-1 .reads") == ["x = 0.5"]
    enter(browser, "source-0", "-inf")
    assert browser.js("document.getElementById('source-0').getAttribute('aria-invalid')") is None
    assert texts(browser, "tr#step-1 .stored") == ["\N{MINUS SIGN}1.5"]
    enter(browser, "source-0", "nan")
    assert texts(browser, "tr#step-10 .stored") == ["NaN"]
    assert browser.complaints(path) == []


def test_the_channel_chooses_the_slopes(browser, opened, shown):
    opened(shown)
    enter(browser, "source-0", "-1")
    assert texts(browser, "tr#step-5 .slope") == ["0.25"]
    browser.js("document.getElementById('channel').value = 1")
    browser.js("document.getElementById('channel').dispatchEvent(new Event('change'))")
    assert texts(browser, "tr#step-5 .slope") == ["0.1000000015"]


def test_a_sum_of_gradients_is_seen_to_grow(browser, opened):
    x = mps.MPSNNImageNode(handle="x")
    total = x
    for _ in range(3):
        total = mps.MPSNNAdditionNode(
            left_source=total, right_source=mps.MPSCNNNeuronTanHNode(source=x).result_image
        ).result_image
    ends = mps.MPSNNInitialGradientNode(source=total).training_graph(with_source_gradient=None)
    path = opened(teach.explain(mps.MPSNNGraph(result_images=[each.result_image for each in ends])))
    browser.click("#last")

    addends = texts(browser, ".addends li")
    assert len(addends) == 4
    assert texts(browser, "tr[aria-current] .stored")[0].startswith("3.3")
    assert all(": the sum so far, as stored, " in text for text in addends[1:])
    assert browser.complaints(path) == []


def test_points_kinks_and_tangents_are_drawn_and_told(browser, opened):
    n = mps.MPSCNNNeuronReLUNNode(source=mps.MPSNNImageNode(handle="x"), a=0.5, b=2)
    path = opened(teach.explain(mps.MPSNNGraph(result_image=n.result_image)))

    label = "document.querySelector('#figure svg.curve').getAttribute('aria-label')"
    assert browser.js(label) == (
        "Curve of reLUN from \N{MINUS SIGN}4 to 4: at 0.5 the value is 0.5 and the slope of the tangent 1; "
        "kinks at 0, 2"
    )
    assert browser.js("document.querySelectorAll('#figure .kink').length") == 2
    enter(browser, "source-0", "0")
    assert "x is at a kink: the comparison that is documented chooses the slope." in texts(browser, "#work .note")
    enter(browser, "source-0", "inf")
    assert browser.js("document.querySelector('#figure svg.curve')") is None
    assert browser.complaints(path) == []


def neuron_page(descriptor, x, channel_format=F.float32):
    node = mps.MPSCNNNeuronNode(source=mps.MPSNNImageNode(handle="x"), descriptor=descriptor)
    return teach.explain(mps.MPSNNGraph(result_image=node.result_image, format=channel_format), x=x)


def test_kinks_in_sight_are_marked_however_far_out(browser, opened):
    opened(neuron_page(D(T.reLUN, a=0.5, b=10), 9.0))
    assert browser.js("document.querySelectorAll('#figure .kink').length") == 2
    assert "kinks at 0, 10" in browser.js("document.querySelector('#figure svg.curve').getAttribute('aria-label')")
    enter(browser, "source-0", "0.5")
    assert browser.js("document.querySelectorAll('#figure .kink').length") == 1


@pytest.mark.parametrize(
    ("descriptor", "x"),
    [
        (D(T.linear, a=0, b=1.5e16), 1.0), (D(T.linear, a=3e-9, b=1e8), 1.0), (D(T.linear, a=1e-9, b=-3e38), 0.5),
        (D(T.linear, a=3e38, b=3e38), 3e38), (D(T.exponential), 1000.0), (D(T.exponential), 3e38),
        (D(T.power, c=-1), 1e-45), (D(T.logarithm, a=1e-45), 1e-45), (D(T.exponential, c=-2), 2.0),
    ],
    ids=repr,
)  # fmt: skip
@pytest.mark.parametrize("figure", ["#figure", "#whole"])
def test_a_curve_of_any_size_is_drawn(browser, opened, descriptor, x, figure):
    path = opened(neuron_page(descriptor, x))
    labels = texts(browser, f"{figure} svg.curve .axis text")

    assert 4 <= len(labels) <= 20
    assert all(count <= 2 for count in Counter(labels).values())
    assert not re.search(r' (d|[xy][12]?|c[xy])="[^"]*NaN', browser.js(f"document.querySelector('{figure}').innerHTML"))
    # The point is on the curve.
    assert browser.js(
        """(() => {
        const d = document.querySelector("FIGURE svg.curve .function").getAttribute("d");
        const point = document.querySelector("FIGURE svg.curve .point");
        return !point || d.includes(Number(point.getAttribute("cx")).toFixed(2) + " ");
    })()""".replace("FIGURE", figure)
    )
    assert browser.complaints(path) == []


@pytest.mark.parametrize(("descriptor", "x"), [(D(T.linear, a=1e-9, b=-3e38), 0.5), (D(T.exponential), 1000.0)])
@pytest.mark.parametrize("figure", ["#figure", "#whole"])
def test_labels_of_the_axes_are_whole(browser, opened, descriptor, x, figure):
    opened(neuron_page(descriptor, x))
    outside = browser.js(
        """(() => {
        const outer = document.querySelector("FIGURE svg.curve").getBoundingClientRect();
        return Array.from(document.querySelectorAll("FIGURE svg.curve text"))
            .filter((text) => text.getBoundingClientRect().left < outer.left
                || text.getBoundingClientRect().right > outer.right)
            .map((text) => text.textContent);
    })()""".replace("FIGURE", figure)
    )
    assert outside == []


def test_what_is_too_large_to_be_known_is_not_drawn(browser, opened):
    opened(neuron_page(D(T.exponential), 1000.0))
    assert "at 1000 the value is more than 1e100" in browser.js("document.querySelector('#figure .curve').ariaLabel")
    assert browser.js("document.querySelector('#figure .point')") is None
    assert texts(browser, "#figure .legend") == ["solid: the function."]
    right = browser.js("document.querySelector('#figure .function').getAttribute('d')").split("L")[-1].split()[0]
    # Up to e^230, of a plot to 1500.
    assert float(right) < 0.7 * browser.js("document.querySelector('#figure svg.curve').viewBox.baseVal.width")
    # Nor how far a number lies from another that it is nearly.
    opened(neuron_page(D(T.tanH), 200.0))
    assert "less than 0.001 ULP" in texts(browser, "#work td")


def test_a_point_without_a_tangent_is_drawn(browser, opened):
    opened(neuron_page(D(T.exponential, c=-2), 2.0))
    assert browser.js(
        "[document.querySelector('#figure .point') !== null, document.querySelector('#figure .tangent')]"
    ) == [True, None]
    assert texts(browser, "#figure .legend") == ["solid: the function; ring: where the node reads."]


def test_no_line_leads_over_a_pole(browser, opened):
    opened(neuron_page(D(T.power, b=0.307, c=-1), 1.0))
    assert browser.js("document.querySelector('#figure .function').getAttribute('d').split('M').length - 1") == 2
    opened(neuron_page(D(T.tanH, a=3, b=1000), 1.0))
    assert browser.js("document.querySelector('#figure .function').getAttribute('d').split('M').length - 1") == 1


def test_what_is_beyond_float64_is_not_shown_as_known(browser, opened):
    numbers = "tr#step-1 .before, tr#step-1 .slope, tr#step-1 .stored"
    opened(neuron_page(D(T.exponential), 1000.0))
    assert sorted(texts(browser, numbers)) == ["infinity", "more than 1e100", "more than 1e100"]
    enter(browser, "source-0", "-1000")
    assert texts(browser, numbers) == ["0", "0", "0"]


@pytest.mark.parametrize("x", [300.0, -300.0, 1000.0, -1.0, -math.inf, math.nan, 0.0])
def test_the_table_has_the_texts_of_the_script(browser, opened, x):
    cells = "#trace tbody td:not(.slope)"
    for descriptor in (D(T.exponential), D(T.logarithm), D(T.exponential, a=-0.75, b=1)):
        page = neuron_page(descriptor, x)
        before = re.search(r'<td class="number before">(.*?)</td><td class="number stored">(.*?)</td>', page).groups()
        opened(page)
        after = texts(browser, cells)[-4:-2]
        # Python's float64 has an infinity where the script knows no more than that the number is large.
        assert after == [{"infinity": after[0]}.get(before[0], before[0]), before[1]]


def test_the_current_node_is_scrolled_into_sight(browser, opened):
    x = mps.MPSNNImageNode(handle="x")
    images = [mps.MPSCNNNeuronTanHNode(source=x, a=i).result_image for i in range(1, 7)]
    total = images[0]
    for image in images[1:]:
        total = mps.MPSNNAdditionNode(left_source=total, right_source=image).result_image
    (last,) = total.producer.training_graph(with_source_gradient=mps.MPSNNImageNode(handle="dy"))
    opened(teach.explain(mps.MPSNNGraph(result_images=[total, last.result_image])))
    for _ in range(browser.js("document.querySelectorAll('.graph a').length")):
        # What a scrollbar covers is not in sight.
        assert browser.js("""(() => {
            const box = document.querySelector(".graph"), outer = box.getBoundingClientRect();
            const inner = document.querySelector(".graph .current").getBoundingClientRect();
            const right = outer.left + box.clientLeft + box.clientWidth;
            const bottom = outer.top + box.clientTop + box.clientHeight;
            return inner.left >= outer.left && inner.top >= outer.top && inner.right <= right && inner.bottom <= bottom;
        })()""")
        browser.key("ArrowRight")


def test_a_field_shows_what_the_format_holds(browser, opened):
    opened(neuron_page(D(T.tanH), 0.5, F.unorm8))
    for text, held in (("5", "1"), ("0.1", "0.1019608"), ("-3", "0"), ("zz", "zz")):
        enter(browser, "source-0", text)
        assert browser.js("document.getElementById('source-0').value") == text
        browser.js("document.getElementById('source-0').dispatchEvent(new Event('change'))")
        assert browser.js("document.getElementById('source-0').value") == held


def test_a_screen_reader_hears_what_is_wrong(browser, opened, shown):
    opened(shown)
    enter(browser, "source-0", "zz")
    browser.wait(f"{STATUS} === 'x: Give a number, inf or nan.'")
    enter(browser, "source-0", "1")
    browser.wait(f"{STATUS}.startsWith('Step 1 of 10')")


def test_the_keyboard_reaches_the_nodes_in_order_and_the_numbers_without_them(browser, opened, shown):
    opened(shown)
    links = browser.js("Array.from(document.querySelectorAll('a.skip'), (a) => a.getAttribute('href'))")
    assert links == ["#numbers-title", "#trace-title"]
    nodes = browser.js("Array.from(document.querySelectorAll('.graph a'), (a) => a.getAttribute('href'))")
    assert nodes == [f"#step-{i}" for i in range(1, 11)]
    for link in links:
        browser.js(f"document.querySelector('a.skip[href=\"{link}\"]').focus()")
        browser.key("Enter")
        browser.wait(f"document.activeElement === document.querySelector('{link}')")
        # Not behind the buttons, which stay in sight.
        assert browser.js(f"""document.querySelector('{link}').getBoundingClientRect().top >=
            document.querySelector('.bar-of-buttons').getBoundingClientRect().bottom""")


def test_everything_has_a_name_and_an_id_of_its_own(browser, opened, shown):
    opened(shown)
    ids = browser.js("Array.from(document.querySelectorAll('[id]'), (e) => e.id)")
    assert len(set(ids)) == len(ids)
    tree = browser.call("Accessibility.getFullAXTree")["nodes"]
    named = {"button", "slider", "textbox", "combobox", "link", "region", "table", "heading", "group"}
    wrong = [
        node for node in tree
        if not node["ignored"] and node["role"]["value"] in named and not node.get("name", {}).get("value")
    ]  # fmt: skip
    assert not wrong
    roles = {node["role"]["value"] for node in tree if not node["ignored"]}
    assert {"status", "slider", "textbox", "combobox", "table"} <= roles


def test_hostile_names_are_texts(browser, opened):
    x = mps.MPSNNImageNode(handle=HOSTILE + "x" * 900)
    n = mps.MPSCNNNeuronTanHNode(source=x)
    n.label, n.result_image.handle = HOSTILE, "y" * 1000 + HOSTILE
    other = mps.MPSNNImageNode(handle="</script <img src=x onerror='window.bad = 1'>")
    (last,) = n.training_graph(with_source_gradient=other)
    page = teach.explain(mps.MPSNNGraph(result_images=[n.result_image, last.result_image]), title=HOSTILE)
    path = opened(page)

    assert not re.search("[\u202e\u2066\x00]", page)
    browser.click("#last")
    assert browser.js("window.bad === undefined")
    assert browser.js("document.querySelectorAll('img').length") == 0
    assert len(browser.js("document.getElementById('summary').textContent")) < 400
    assert browser.complaints(path) == []


def test_a_narrow_window_is_wide_enough(browser, opened, shown):
    browser.call("Emulation.setDeviceMetricsOverride", width=360, height=740, deviceScaleFactor=1, mobile=True)
    try:
        opened(shown)
        for _ in range(10):
            assert browser.js("document.documentElement.scrollWidth") <= 360
            browser.key("ArrowRight")
    finally:
        browser.call("Emulation.clearDeviceMetricsOverride")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_can_be_read_in_light_and_in_the_dark(browser, opened, shown, scheme):
    with browser.in_scheme(scheme):
        opened(shown)
        enter(browser, "source-0", "zz")
        browser.assert_readable(
            scheme,
            color="body, .note, .wrong, dt, button, legend",
            fill="svg text",
            stroke=".node rect, .tangent, .function",
        )
