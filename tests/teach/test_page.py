"""The page of a graph, alive: what storing lost, the whole curve, numbers that are moved, its address; in a browser."""

from __future__ import annotations

import html
import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pytest

import mpsref as mps
from builders import enter, field_of, parameter_sets, seldom, texts
from mpsref import teach

D = mps.MPSNNNeuronDescriptor


# ---- what storing lost ----


def lost_graphs():
    """Graphs and their sources: vanishing gradients, an overflow that is 0, infinite and NaN later, honest zeros."""
    x = teach.input("x")
    deep = x
    for _ in range(13):
        deep = teach.sigmoid(deep)
    e = teach.exponential(x)
    yield deep, 0.5
    yield teach.sigmoid(e) * e - teach.softsign(e), 20
    yield teach.relu(x, a=0) * 3, -1
    yield teach.tanh(x * 1e-4) * (x * 1e-4), 1e-3
    yield e - e, 15


@pytest.mark.parametrize("case", range(5))
@pytest.mark.parametrize("name", ["float16", "float32", "unorm8"])
def test_the_page_says_what_the_trace_says_was_lost(browser, opened, case, name):
    y, x = list(lost_graphs())[case]
    trace = teach.backprop(y, format=name, x=x)
    page = trace.explain()
    path = opened(page)
    want = [trace.lost[step.name].text if step.name in trace.lost else "" for step in trace.steps]

    assert re.findall(r'<td class="lost">(.*?)</td>', page) == want
    assert browser.js("explained.run(explained.initial()).map((step) => step.lost ? step.lost.text : '')") == want
    assert texts(browser, "#trace td.lost") == want
    for i, text in enumerate(want):
        if text:
            browser.js(f"document.querySelector('a[href=\"#step-{i + 1}\"]').dispatchEvent(new Event('click'))")
            assert texts(browser, "#summary")[0].endswith(f": {text}.")
            assert text.split()[0] in texts(browser, "#work tbody td")[2]
            assert texts(browser, ".node.current .value")[0].endswith(" lost")
    assert browser.complaints(path) == []
    if name == "float16" and case == 0:
        place = [step.name for step in trace.steps].index("dh2")
        browser.js(f"document.querySelector('a[href=\"#step-{place + 1}\"]').dispatchEvent(new Event('click'))")
        assert "subnormal" in texts(browser, "#work tbody td")[2]
        assert want[-2:] == ["underflow", "0 because dh1 was lost"]


# ---- the whole graph, and numbers that move ----


@pytest.fixture(scope="module")
def sum_of_two():
    x = teach.input("x")
    return teach.backprop(teach.sigmoid(teach.tanh(x, b=0.75) + x), x=0.5)


def value_of(browser, field):
    return browser.js(f"document.getElementById({json.dumps(field)}).value")


def slide(browser, field, value):
    browser.js(
        f"(() => {{ const s = document.getElementById('{field}-slider'); s.value = '{value}'; "
        "s.dispatchEvent(new Event('input')); })()"
    )


def test_the_curve_of_the_whole_graph_has_its_tangent_and_its_chain_rule(browser, opened, sum_of_two):
    path = opened(sum_of_two.explain())
    label = browser.js("document.querySelector('#whole svg').getAttribute('aria-label')").replace("\N{MINUS SIGN}", "-")
    y, slope = map(float, re.search(r"at 0.5 the value is (\S+) and the slope of the tangent (\S+)$", label).groups())
    chain = texts(browser, "#chain div")

    assert (y, slope) == pytest.approx((sum_of_two.y, sum_of_two.dx), rel=1e-6)
    assert chain[0] == "dx = dy \u00d7 sigmoid\u2032(h2) + dy \u00d7 sigmoid\u2032(h2) \u00d7 tanH\u2032(x)"
    total = eval(chain[1].removeprefix("= ").replace("\u00d7", "*"))  # noqa: S307
    assert total == pytest.approx(sum_of_two.dx, rel=1e-5)
    # With another incoming gradient the tangent of y stays as it is.
    enter(browser, field_of(browser, "dy"), "3")
    after = browser.js("document.querySelector('#whole svg').getAttribute('aria-label')")
    assert after.replace("\N{MINUS SIGN}", "-") == label
    assert browser.complaints(path) == []


@seldom("neuron_type", mps.NEURONS, lambda t: t.name in ("tanH", "pReLU", "power", "exponential"), lambda t: t.name)
def test_gradients_of_parameters_are_those_of_the_trace(browser, opened, neuron_type):
    row = mps.NEURONS[neuron_type]
    x = teach.input("x")
    for parameters in parameter_sets(row)[:4]:
        node = mps.MPSCNNNeuronNode(source=x.image, descriptor=D(neuron_type, **parameters))
        opened(teach.backprop(node, x=0.5, dy=0.5).explain())
        for at in (0.75, -1.5, 3.0):
            trace = teach.backprop(node, x=at, dy=0.5)
            enter(browser, "source-0", str(at))
            for name, want in trace.parameter_gradients.items():
                own = name.removeprefix("y.")
                label = "data[channel]" if own == "data" else own
                text = texts(browser, f"[id^='parameter-'][id$='-{own}-gradient']")[0].replace("\N{MINUS SIGN}", "-")
                got = float(text.removeprefix(f"dL/d{label} = ").replace("infinity", "inf"))
                assert got == pytest.approx(float(np.ravel(want)[0]), rel=1e-5, nan_ok=True)


def test_the_point_can_be_dragged_and_moved_by_keys(browser, opened, sum_of_two):
    path = opened(sum_of_two.explain())
    browser.js("document.getElementById('whole').scrollIntoView({block: 'center'})")
    box = browser.js("""(() => {
        const p = document.querySelector("#whole .point").getBoundingClientRect();
        const a = document.querySelector("#whole .frame").getBoundingClientRect();
        return [p.x + p.width / 2, p.y + p.height / 2, a.left, a.right];
    })()""")
    x, y, left, right = box
    target = left + (right - left) * 0.25  # x = -2, of an axis from -4 to 4
    for kind, at in (
        ("mousePressed", x),
        ("mouseMoved", (x + target) / 2),
        ("mouseMoved", target),
        ("mouseReleased", target),
    ):
        browser.call("Input.dispatchMouseEvent", type=kind, x=at, y=y, button="left", buttons=1, clickCount=1)

    assert float(value_of(browser, "source-0")) == pytest.approx(-2, abs=0.06)
    assert "x = \u22122" in texts(browser, "#work dd")[0] or "\u22121.9" in texts(browser, "#work dd")[0]
    browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    before = float(value_of(browser, "source-0"))
    browser.js("document.getElementById('whole').focus()")
    for _ in range(3):
        browser.key("ArrowRight")
    assert float(value_of(browser, "source-0")) == pytest.approx(before + 0.12, abs=1e-3)
    assert texts(browser, "#position") == ["Step 1 of 8, forward"]  # the arrows moved the point alone
    assert browser.js("document.getElementById('whole').getAttribute('role')") == "slider"
    assert browser.complaints(path) == []


def test_a_step_downhill_moves_every_number_against_its_gradient(browser, opened, sum_of_two):
    opened(sum_of_two.explain())
    gradients = {"source-0": sum_of_two.dx, "parameter-0-a": sum_of_two.parameter_gradients["h1.a"],
                 "parameter-0-b": sum_of_two.parameter_gradients["h1.b"]}  # fmt: skip
    before = {field: float(value_of(browser, field)) for field in gradients}
    loss = texts(browser, "#loss")[0]
    browser.click("#downhill")

    for field, gradient in gradients.items():
        assert float(value_of(browser, field)) == pytest.approx(before[field] - 0.1 * gradient, rel=1e-6)
    assert float(texts(browser, "#loss")[0].split()[-1]) < float(loss.split()[-1])
    assert value_of(browser, field_of(browser, "dy")) == "1"
    browser.click("#reset")
    enter(browser, "rate", "1")
    browser.js("document.getElementById('moved').value = 'parameters'")
    browser.click("#downhill")
    assert value_of(browser, "source-0") == "0.5"
    assert float(value_of(browser, "parameter-0-a")) == pytest.approx(1 - gradients["parameter-0-a"], rel=1e-6)


def load(browser, url):
    """Open an address that may differ from the current one in what follows the # only."""
    browser.call("Page.navigate", url="about:blank")
    browser.call("Page.navigate", url=url)
    browser.wait("document.readyState === 'complete' && document.getElementById('position')?.textContent")


def test_the_address_has_the_step_and_the_numbers(browser, opened, sum_of_two):
    path = opened(sum_of_two.explain())
    enter(browser, "source-0", "-1.25")
    enter(browser, "parameter-0-b", "2")
    browser.click("#next")
    address = browser.js("location.hash")

    assert address == "#step=2&x=-1.25&h1.b=2"
    load(browser, path.as_uri() + address)
    assert [value_of(browser, field) for field in ("source-0", "parameter-0-b")] == ["-1.25", "2"]
    assert texts(browser, "#position") == ["Step 2 of 8, forward"]
    browser.click("#reset")
    browser.click("#first")
    assert browser.js("location.hash") == ""
    for hostile in ("#x=NaNsense&h1.b=inf&step=1e9&=&%E0%A4%A=1&step=0.5", "#step-3"):
        load(browser, path.as_uri() + hostile)
        assert value_of(browser, "parameter-0-b") == "0.75"
    assert texts(browser, "#position") == ["Step 3 of 8, forward"]


@pytest.mark.parametrize("width", [390, 1280])
def test_the_graph_stays_in_sight_while_one_slides(browser, opened, sum_of_two, width):
    browser.call("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=width < 800)
    try:
        opened(sum_of_two.explain())
        browser.js("document.getElementById('parameter-0-b').scrollIntoView({block: 'end'})")
        browser.js("new Promise((done) => setTimeout(done, 100))")
        slide(browser, "parameter-0-b", 2)
        graph, bar, field = browser.js("""[".graph", ".bar-of-buttons", "#parameter-0-b"].map((selector) => {
            const box = document.querySelector(selector).getBoundingClientRect();
            return [box.top, box.bottom];
        })""")

        assert browser.js("window.scrollY") > 100
        assert 0 <= bar[0] < bar[1] <= graph[0] + 1 < graph[1] <= field[0] < field[1] <= 801
        assert browser.js("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    finally:
        browser.call("Emulation.clearDeviceMetricsOverride")


def test_of_many_parameters_those_of_the_current_step_are_shown(browser, opened):
    y = teach.input("x")
    for i in range(19):
        y = teach.tanh(y, a=1 + i / 100, b=0.5)
    path = opened(teach.backprop(y, x=0.5).explain())
    visible = (
        "Array.from(document.querySelectorAll('#controls label')).filter((l) => l.offsetParent).map((l) => l.htmlFor)"
    )

    assert browser.js("document.querySelectorAll('#controls input[type=text]').length") == 40
    assert browser.js(visible) == ["source-0", "parameter-0-a", "parameter-0-b"]
    browser.click("#next")
    assert browser.js(visible) == ["parameter-1-a", "parameter-1-b"]
    browser.click("#last")  # the gradient of the first neuron, which has its parameters
    assert browser.js(visible) == ["source-0", "parameter-0-a", "parameter-0-b"]
    browser.js(
        "(() => { const w = document.getElementById('which'); "
        "w.value = 'all'; w.dispatchEvent(new Event('change')); })()"
    )
    assert len(browser.js(visible)) == 40
    assert browser.complaints(path) == []


def odd_graphs():
    """Graphs without a forward step, without gradients, with several results, and with names for an address."""
    x, g = mps.MPSNNImageNode(handle="a&b=c d#1"), mps.MPSNNImageNode(handle="g")
    n = mps.MPSCNNNeuronTanHNode(source=x)
    yield mps.MPSNNGraph(result_image=n.gradient_filter(with_source=g).result_image)
    yield mps.MPSNNGraph(result_image=n.result_image)
    m = mps.MPSNNMultiplicationNode(left_source=n.result_image, right_source=x)
    yield mps.MPSNNGraph(result_images=[n.result_image, m.result_image])
    ones = mps.MPSNNInitialGradientNode(source=m.result_image)
    yield mps.MPSNNGraph(result_images=[node.result_image for node in ones.training_graph()])
    total = mps.MPSNNAdditionNode(left_source=x, right_source=m.result_image)
    total.primary_scale, total.bias, total.maximum_value = -2, 0.5, 3
    last = total.training_graph(with_source_gradient=g)
    yield mps.MPSNNGraph(result_images=[total.result_image, *(node.result_image for node in last)])


@pytest.mark.parametrize("case", range(5))
def test_graphs_of_other_kinds_have_pages_without_a_complaint(browser, opened, case):
    path = opened(teach.explain(list(odd_graphs())[case]))
    enter(browser, "source-0", "0.25")
    for _ in range(12):
        browser.click("#next")
    browser.js("document.getElementById('downhill').click()")

    assert browser.complaints(path) == []
    assert browser.js("document.getElementById('whole-part').hidden") == (case == 0)
    assert browser.js("document.getElementById('descent').hidden") == (case in (1, 2))
    address = browser.js("location.href")
    assert "a%26b%3Dc%20d%231=" in address or case == 0


# ---- the pages of the site ----


def live_pages():
    spec = importlib.util.spec_from_file_location("live", Path(__file__).parents[2] / "docs" / "live.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


LIVE = live_pages()


@pytest.mark.parametrize("name", LIVE.PAGES)
@pytest.mark.parametrize("width", [390, 1280])
def test_each_page_of_the_site_is_dragged_slid_stepped_and_goes_downhill(browser, opened, tmp_path, name, width):
    LIVE.write(tmp_path / "live")
    browser.call("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=width < 800)
    try:
        path = opened((tmp_path / "live" / f"{name}.html").read_text("utf-8"))
        steps = browser.js("document.querySelectorAll('#trace tbody tr').length")
        browser.js("document.getElementById('whole').scrollIntoView({block: 'center'})")
        x, y, left, right = browser.js("""(() => {
            const p = document.querySelector("#whole .point").getBoundingClientRect();
            const a = document.querySelector("#whole .frame").getBoundingClientRect();
            return [p.x + p.width / 2, p.y + p.height / 2, a.left, a.right];
        })()""")
        target = left + (right - left) * 0.75
        for kind, at in (("mousePressed", x), ("mouseMoved", target), ("mouseReleased", target)):
            browser.call("Input.dispatchMouseEvent", type=kind, x=at, y=y, button="left", buttons=1, clickCount=1)
        assert float(value_of(browser, "source-0")) == pytest.approx(2, abs=0.1)

        browser.js("document.getElementById('source-0').scrollIntoView({block: 'end'})")
        browser.js("new Promise((done) => setTimeout(done, 100))")
        slide(browser, "source-0", -3)
        assert value_of(browser, "source-0") == "-3"
        assert browser.js("location.hash") == "#x=-3"
        graph, field = browser.js("""[".graph", "#source-0"].map((selector) => {
            const box = document.querySelector(selector).getBoundingClientRect();
            return [box.top, box.bottom];
        })""")
        assert 0 <= graph[0] < graph[1] <= field[0] < field[1] <= 801
        slope = texts(browser, "#source-0-gradient")[0].replace("\N{MINUS SIGN}", "-").removeprefix("dL/dx = ")
        browser.click("#downhill")
        assert float(value_of(browser, "source-0")) == pytest.approx(-3 - 0.1 * float(slope), rel=1e-5)
        browser.click("#reset")
        browser.js("document.activeElement.blur()")
        browser.key("ArrowRight")
        assert texts(browser, "#position")[0].startswith(f"Step 2 of {steps}")
        browser.click("#last")
        assert texts(browser, "#position") == [f"Step {steps} of {steps}, backward"]
        assert browser.js("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        assert browser.complaints(path) == []
    finally:
        browser.call("Emulation.clearDeviceMetricsOverride")


def test_within_another_page_the_point_to_drag_is_in_sight_at_once(browser, opened):
    inner = "document.querySelector('iframe').contentDocument"
    for make, title in LIVE.PAGES.values():
        page = make().explain(title=title)
        opened(f'<iframe width="735" height="800" srcdoc="{html.escape(page)}"></iframe>')
        browser.wait(f"{inner}.querySelector('#whole .point') !== null")

        assert browser.js(f"{inner}.querySelector('#whole .point').getBoundingClientRect().bottom") < 800
        assert browser.js(f"{inner}.querySelector('.legend').offsetParent === null")
        opened(page)
        assert browser.js("document.querySelector('.legend').offsetParent !== null")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_what_is_new_on_the_page_can_be_read(browser, opened, tmp_path, scheme):
    LIVE.write(tmp_path / "live")
    with browser.in_scheme(scheme):
        opened((tmp_path / "live" / "vanishing.html").read_text("utf-8"))
        browser.click("#last")
        browser.assert_readable(scheme, color="#chain div, .slope-of, td.lost, #loss", fill=".node.lost .value")
