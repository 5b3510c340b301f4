"""JUnit XML, and the page of a verification: what is in it, and what a browser makes of it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import xml.etree.ElementTree as ET
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest

import mpsref as mps
from builders import seldom
from mpsref.arrays import Elements
from mpsref.cli import main
from mpsref.storage import image_storage_of, storage_of
from mpsref.verify import Aggregate, Element, ImageReport, Recording, Report, Tolerances, verify, write_recording
from mpsref.verify.aggregate import COLUMNS, MOST_CELLS, ROWS, ZERO
from mpsref.verify.compare import Comparison, Counts
from mpsref.verify.html import LARGEST_PAGE, page
from mpsref.verify.junit import junit
from mpsref.verify.reasons import BEYOND, WITHIN, Reason

PRECISE = Path(__file__).parents[2] / "examples" / "gpu-run" / "precise"
HOSTILE = "</script><script>alert('x')</script>\"'&\u202e\x00\x1b[31m\ufffe\ud800"
VOID = {"meta", "br", "link", "hr", "img", "input"}


def image(array):
    return mps.MPSImage.from_array(np.asarray(array))


def made(tmp_path, *, wrong=True, names=("x", "h", "y"), device="none, made by hand", shape=(1, 8, 6, 4), labels=None):
    """The path of a recording of an absolute value and what follows it, in whose first result one channel is wrong."""
    x = mps.MPSNNImageNode(handle=names[0])
    h = mps.MPSCNNNeuronAbsoluteNode(source=x)
    y = mps.MPSCNNNeuronTanHNode(source=h.result_image)
    h.result_image.handle, y.result_image.handle = names[1:]
    h.label = labels
    (last,) = y.training_graph(with_source_gradient=mps.MPSNNImageNode(handle="dy"))
    last.result_image.handle = "dx"
    file = mps.GraphFile.from_results([y.result_image, last.result_image])
    source = np.linspace(-3, 3, int(np.prod(shape)), dtype=np.float16).reshape(shape)
    middle = np.abs(source)
    if wrong:
        middle[..., 2] += 1
    wrote = {names[0]: source, "dy": np.ones(shape, np.float16), names[1]: middle}
    wrote[names[2]] = mps.neuron.forward(y.descriptor, middle)
    return write_recording(tmp_path, file, {name: image(array) for name, array in wrote.items()}, device=device)


def made_page(path):
    recording, collected = Recording.read(path), Aggregate()
    report = verify(recording, collect=collected)
    return page(report, recording.graph, collected), report


class Page(HTMLParser):
    """Elements that are open, ids, links, texts; fails where tags do not nest."""

    def __init__(self, text):
        super().__init__()
        self.stack, self.ids, self.tags, self.texts = [], [], [], {}
        self.feed(text)
        self.close()
        assert not self.stack

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        if self.stack:
            self.texts.setdefault(self.stack[-1], []).append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def data(self):
        return json.loads(self.texts["script"][0])


# ---- what is collected ----


def collected(got, want, classes, **sources):
    aggregate, classes = Aggregate(), np.ravel(np.asarray(classes, np.uint16))
    got, want = (np.asarray(array).reshape((-1, *np.shape(array)[-3:])) for array in (got, want))
    beyond, explained = classes == BEYOND, (classes != BEYOND) & (classes != WITHIN)
    counts = SimpleNamespace(beyond=np.count_nonzero(beyond), excused=np.count_nonzero(explained))
    found = Mock(Comparison, beyond=np.flatnonzero(beyond), excused=np.flatnonzero(explained), counts=counts)
    read = {name: Elements(np.asarray(array), storage_of(np.asarray(array), name)) for name, array in sources.items()}
    aggregate.add("y", image_storage_of(got.dtype, "got"), got, want, found, read)
    return aggregate.pictures["y"]


def test_errors_are_counted_by_input_and_signed_distance():
    x = np.float16([[[-1, 0, 1, np.inf, np.nan, 1]]])
    want = np.float16([[[1, 1, 1, 1, 1, 1]]])
    got = want.view(np.uint16) + np.array([0, 1, -3, 64, 0, 0]).astype(np.uint16)
    got = got.astype(np.uint16).view(np.float16)
    got[..., 5] = np.nan
    picture = collected(got, want, [0, 0, int(Reason.order), BEYOND, 0, BEYOND], x=x)
    (plot,) = picture.plots
    rows, columns, kinds = np.nonzero(plot.counts)

    last = COLUMNS - 1
    assert sorted(zip((rows - ZERO).tolist(), columns.tolist(), kinds.tolist(), strict=True)) == [
        (-3, last, 1), (0, 0, 0), (0, COLUMNS + 2, 0), (1, COLUMNS // 2, 0), (7, COLUMNS + 1, 2),
        (ROWS - 1 - ZERO, last, 2),
    ]  # fmt: skip
    assert (plot.is_linear, plot.low, plot.high, plot.counts.sum()) == (True, -1.0, 1.0, 6)


def test_large_inputs_have_a_logarithmic_scale():
    x = np.float32([[[-1e30, 0, 1e30]]])
    (plot,) = collected(x, x, np.zeros(3), x=x).plots

    assert not plot.is_linear
    assert np.nonzero(plot.counts[ZERO, :, 0])[0].tolist() == [0, COLUMNS // 2, COLUMNS - 1]


@pytest.mark.parametrize("value", [0.0, 3.0, -1e30, np.nan, np.inf])
def test_inputs_that_are_all_the_same_have_a_scale(value):
    x = np.full((1, 1, 3), value, np.float32)
    (plot,) = collected(x, x, np.zeros(3), x=x).plots

    assert plot.low < plot.high
    assert plot.counts[ZERO].sum() == plot.counts.sum() == 3


def test_elements_are_counted_by_channel_and_by_pixel():
    shape = (3, 200, 65, 300)
    classes = np.zeros(shape, np.uint16)
    classes[1, 199, 64, 299] = classes[2, 0, 0, 7] = classes[2, 0, 1, 7] = BEYOND
    zeros = np.zeros(shape, np.float16)
    picture = collected(zeros, zeros, classes, x=zeros)

    assert picture.kind == "beyond the bounds"
    assert picture.channels_each == 3
    assert {int(i): int(picture.channels[i]) for i in np.nonzero(picture.channels)[0]} == {2: 2, 99: 1}
    assert [m.title for m in picture.maps] == [
        "all images, all channels", "image 1, all channels", "image 2, all channels",
        "channel 7, all images", "channel 299, all images",
    ]  # fmt: skip
    assert [m.counts.shape for m in picture.maps] == [(50, 33)] * 5
    assert [m.counts[0, 0] for m in picture.maps] == [2, 0, 2, 2, 0]
    assert [m.counts[49, 32] for m in picture.maps] == [1, 1, 0, 0, 1]
    assert [m.counts.sum() for m in picture.maps] == [3, 1, 2, 2, 1]


@pytest.mark.parametrize(
    ("classes", "step", "kind"),
    [
        ([0, int(Reason.order)], 1, "excused"),
        ([0, 0], 1, "within the bounds, but not exact"),
        ([0, 0], 0, "exact"),
    ],
)
def test_without_mismatches_the_maps_show_what_is_worst(classes, step, kind):
    want = np.float16([[[1, 2]]])
    got = (want.view(np.uint16) + np.uint16([0, step])).view(np.float16)
    picture = collected(got, want, classes, x=want)

    assert picture.kind == kind
    assert picture.channels.sum() == (kind != "exact")
    assert bool(picture.maps) == (kind != "exact")


def test_noise_makes_no_long_page(tmp_path):
    random = np.random.default_rng(1)
    shape = (1, 256, 256, 8)
    bits = random.integers(0, 1 << 32, shape).astype(np.uint32)
    shift = np.uint32(1) << random.integers(0, 31, shape).astype(np.uint32)
    x, got = bits.view(np.float32), np.where(random.random(shape) < 0.5, bits + shift, bits - shift).view(np.float32)
    picture = collected(got, x, np.full(x.size, BEYOND, np.uint16), x=x)
    (plot,) = picture.plots

    assert plot.columns < COLUMNS
    assert np.count_nonzero(plot.counts.any(axis=2)) <= MOST_CELLS
    assert plot.counts.sum() == x.size
    assert {m.counts.shape for m in picture.maps} == {(64, 64)}

    counts = Counts(x.size, 0, 0, 0, 0, 9, 0, 0, 0, {}, x.size)
    element = Element(0, 0, 0, 0, 0, 0, {"s": "1"}, "1", "2", 9, beyond=True)
    node, nodes = mps.MPSNNImageNode(handle="s"), []
    for _ in range(3000):
        nodes.append(mps.MPSCNNNeuronAbsoluteNode(source=nodes[-1].result_image if nodes else node))
    graph = mps.GraphFile.from_results([nodes[-1].result_image])
    names = [name for name in graph.images if name != "s"]
    images = tuple(
        ImageReport(name, "MPSCNNNeuronAbsoluteNode" + "é<" * 9000, "float32", counts, (element,) * 1000)
        for name in names
    )
    every = Aggregate()
    every.pictures |= dict.fromkeys(names, picture)
    text = page(Report("r.json", "d" * 10**6, Tolerances(), images), graph, every)

    assert len(text.encode()) < LARGEST_PAGE
    parsed = Page(text)
    assert 5 < len(parsed.data["pictures"]) < len(parsed.all("article")) < 3000
    assert "more images have no room on this page" in text
    assert "more nodes have no room on this page" in text


# ---- the page, as text ----


@pytest.mark.parametrize("wrong", [True, False])
def test_the_page_is_whole_and_its_links_lead_somewhere(tmp_path, wrong):
    text, report = made_page(made(tmp_path, wrong=wrong))
    parsed = Page(text)

    assert len(set(parsed.ids)) == len(parsed.ids)
    targets = [a["href"] for a in parsed.all("a")]
    assert len(targets) == 1 + 2 * len(report.images)
    assert {target.removeprefix("#") for target in targets} <= set(parsed.ids)
    assert {a["aria-labelledby"] for _, a in parsed.tags if "aria-labelledby" in a} <= set(parsed.ids)
    assert len(parsed.all("caption")) == len(parsed.all("table"))
    assert len(parsed.all("h1")) == 1
    assert all(a["scope"] in ("col", "row") for a in parsed.all("th"))
    assert report.verdict in text
    assert parsed.texts["title"][0].startswith("FAIL: " if wrong else "PASS: ")
    assert list(parsed.data["pictures"]) == ["0", "1"]


def test_the_page_needs_nothing_but_itself(tmp_path):
    text, _ = made_page(made(tmp_path))
    parsed = Page(text)

    assert not [a for _, a in parsed.tags if {"src", "style", "onclick", "onload", "action"} & set(a)]
    assert not parsed.all("link")
    assert re.findall(r"https?://\S+", text) == ['http://www.w3.org/2000/svg";']
    policy = parsed.all("meta")[1]["content"]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    for tag in ("style", "script"):
        digest = base64.b64encode(hashlib.sha256(parsed.texts[tag][-1].encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


def test_no_verdict_is_told_by_colour_alone(tmp_path):
    text, _ = made_page(made(tmp_path))

    assert re.search(r'class="status beyond">✕ beyond<', text)
    assert re.search(r'class="node beyond" href="#image-0" aria-label="h, MPSCNNNeuronAbsoluteNode: beyond', text)
    assert re.search(r'class="node unrecorded gradient"', text)


def test_a_failing_image_comes_first_and_keeps_its_number(tmp_path):
    text, report = made_page(PRECISE / "neurons.json")
    ids = [a["id"] for a in Page(text).all("article")]
    failed = [f"image-{i}" for i, each in enumerate(report.images) if not each.passed]
    excused = [f"image-{i}" for i, each in enumerate(report.images) if each.passed and each.excused]

    assert sorted(ids) == sorted(f"image-{i}" for i in range(32))
    assert ids[: len(failed)] == failed
    assert ids[len(failed) : len(failed) + len(excused)] == excused
    assert text.count("<h4>Excused</h4>") == sum(bool(each.excused) for each in report.images)
    assert f'<th scope="row">{Reason.nan.text}</th>' in text


@pytest.mark.parametrize("hostile", [HOSTILE, "<!--", "<!--<script </script x", "a" * 500, "]]>", "\u2028\u2066x"])
def test_texts_of_a_file_are_texts_of_the_page(tmp_path, hostile):
    x = mps.MPSNNImageNode(handle=hostile)
    node = mps.MPSCNNNeuronAbsoluteNode(source=x)
    node.label, node.result_image.handle = hostile, f"y{hostile}"
    graph = mps.GraphFile.from_results([node.result_image])
    counts = Counts(2, 1, 1, 1, 1, 9, 0, 0, 1, {}, 1)
    element = Element(0, 0, 0, 0, 0, 0, {hostile: hostile}, hostile, hostile, 9, beyond=True)
    report = Report(hostile, hostile, Tolerances(), (
        ImageReport(f"y{hostile}", hostile, "float16", counts, (element,), limit=hostile, unrecorded=(hostile,)),
    ))  # fmt: skip
    aggregate, got = Aggregate(), np.float16([[[1, 2]]])
    aggregate.pictures[f"y{hostile}"] = collected(got, got, [0, BEYOND], **{hostile: got})
    text = page(report, graph, aggregate)
    parsed = Page(text)

    assert text.isprintable() or not [c for c in text if not c.isprintable() and c != "\n"]
    assert len(parsed.all("script")) == 2
    assert parsed.data["pictures"]["0"]["plots"][0]["source"]
    assert not set("<>&") & set(parsed.texts["script"][0])
    assert len(text) < 100_000

    suite = ET.fromstring(junit(report)).find("testsuite")  # noqa: S314
    assert suite is not None
    assert not [c for c in junit(report).decode() if not c.isprintable() and c != "\n"]
    if hostile == "<!--":
        assert suite.get("name") == suite.find("testcase").get("classname") == "<!--"


def test_findings_and_the_histogram_have_a_place(tmp_path):
    text, report = made_page(made(tmp_path))
    first, second = report.images

    assert first.findings
    assert not second.findings
    assert text.count("<h4>What is wrong</h4>") == 1
    # What is wrong comes first: the causes, then findings and map of the image; counts later.
    places = ["By cause, over all images", "<h4>What is wrong</h4>", 'data-draw="maps"', "<h4>Counts</h4>", "<svg"]
    assert sorted(places, key=text.index) == places
    assert "<td>everywhere</td>" in text or f"<td>{first.findings[0].where}</td>" in text
    assert escape(first.findings[0].sentence) in text
    assert len(re.findall("<caption>Elements by distance, in ULP</caption>", text)) == 2
    failure = ET.fromstring(junit(report)).find(".//failure")  # noqa: S314
    assert f"the likely fault:\n{first.findings[0]}" in failure.text
    assert failure.get("message").endswith(f"elements are beyond the bounds; {first.findings[0].headline}")


# ---- JUnit ----


def test_every_image_is_a_test_case():
    report = verify(PRECISE / "neurons.json", "ulp=4", worst=2)
    suites = ET.fromstring(junit(report))  # noqa: S314
    (suite,) = suites
    cases = suite.findall("testcase")
    failures = {case.get("name"): case.find("failure") for case in cases if case.find("failure") is not None}

    assert [case.get("name") for case in cases] == [each.name for each in report.images]
    assert set(failures) == {each.name for each in report.images if not each.passed}
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("32", str(len(failures)), "0")
    assert failures["softSign.y"].get("message").startswith("2 of 4,096 elements are beyond the bounds")
    assert str(next(i for i in report.images if i.name == "softSign.y").worst[0]) in failures["softSign.y"].text
    facts = {each.get("name"): each.get("value") for each in cases[0].iter("property")}
    assert (facts["elements"], facts["beyond"], facts["neuron"]) == ("4096", "0", "none")
    assert {"device", "bounds", "verdict", "mpsref"} == {each.get("name") for each in suite.find("properties")}


def test_what_is_explained_is_told_and_is_no_failure():
    (suite,) = ET.fromstring(junit(verify(PRECISE / "neurons.json", allow="overflow")))  # noqa: S314

    assert suite.get("failures") == "0"
    case = next(each for each in suite.iter("testcase") if each.get("name") == "softPlus.y")
    assert case.find("system-out").text.startswith("576 excused: ")


# ---- the command line ----


def test_the_command_writes_both(tmp_path, capsys):
    recording = made(tmp_path / "rec")
    arguments = ["verify", str(recording), "--html", str(tmp_path / "r.html"), "--junit", str(tmp_path / "r.xml")]

    assert main(arguments) == 1
    assert (tmp_path / "r.html").read_text() == made_page(recording)[0]
    assert (tmp_path / "r.xml").read_bytes() == junit(verify(recording))
    assert sorted(each.name for each in tmp_path.iterdir()) == ["r.html", "r.xml", "rec"]


@pytest.mark.parametrize("option", ["--json", "--junit", "--html"])
def test_no_report_is_written_over_the_recording_or_another_report(tmp_path, capsys, option):
    recording = made(tmp_path / "rec")
    before = recording.read_bytes()
    other = "--json" if option != "--json" else "--html"

    assert main(["verify", str(recording), option, str(recording)]) == 2
    assert "is read: choose another file" in capsys.readouterr().err
    assert main(["verify", str(recording), option, str(tmp_path / "r"), other, str(tmp_path / "." / "r")]) == 2
    assert "already: choose another file" in capsys.readouterr().err
    assert main(["verify", str(recording), option, str(tmp_path)]) == 2
    assert "is a folder: name a file" in capsys.readouterr().err
    assert recording.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["rec"]


# ---- the page, in a browser ----

VISIBLE = "document.querySelector('article.chosen').id"
PANEL = "document.querySelector('article.chosen .panel.chosen h4').textContent"


@seldom("tolerance", ["ulp=4", "metal-precise"], lambda tolerance: tolerance == "ulp=4")
def test_every_node_and_every_tab_can_be_clicked(browser, opened, tolerance):
    recording, aggregate = Recording.read(PRECISE / "neurons.json"), Aggregate()
    report = verify(recording, tolerance, collect=aggregate)
    path = opened(page(report, recording.graph, aggregate))

    links = browser.js("Array.from(document.querySelectorAll('svg a'), (a) => a.getAttribute('href'))")
    assert sorted(links) == sorted(f"#image-{i}" for i in range(32))
    for link in links[::5]:
        browser.click(f"svg a[href='{link}']")
        browser.wait(f"{VISIBLE} === '{link[1:]}'")
        assert browser.js("getComputedStyle(document.querySelector('article:not(.chosen)')).display") == "none"
        assert browser.js("document.activeElement.id") == link[1:]
        number = int(link.removeprefix("#image-"))
        one = report.images[number]
        excused = ["Excused"] if one.excused else []
        titles = [*excused, "Counts", "Worst elements", "Error over input", "Heat maps"]
        if not one.passed:
            titles = ["What is wrong", "Worst elements", *excused, "Error over input", "Counts"]
        for i, title in enumerate(titles):
            browser.click(f"{link} [role=tab]:nth-of-type({i + 1})")
            assert browser.js(PANEL) == title
            assert browser.js(f"document.querySelectorAll('{link} [aria-selected=true]').length") == 1
        shown = aggregate.pictures[report.images[number].name]
        assert browser.js(f"document.querySelectorAll('{link} .point').length") == sum(
            int(np.count_nonzero(plot.counts.any(axis=2))) for plot in shown.plots
        )
        assert browser.js(f"document.querySelectorAll('{link} select option').length") == len(shown.maps)
    assert browser.complaints(path) == []


def test_heat_maps_can_be_chosen(browser, opened, tmp_path):
    text, _ = made_page(made(tmp_path / "rec", shape=(2, 8, 6, 4)))
    path = opened(text)

    browser.click("#image-0 [role=tab]:first-child")
    count = "document.querySelectorAll('#image-0 select ~ *, #image-0 label + div .cell').length"
    titles = "Array.from(document.querySelectorAll('#image-0 label + div .cell title'), (t) => t.textContent)"
    assert browser.js(count) == 48
    assert browser.js(titles)[0] == "y 0, x 0: 2"
    options = browser.js("Array.from(document.querySelectorAll('#image-0 option'), (o) => o.textContent)")
    assert options == [
        "all images, all channels",
        "image 0, all channels",
        "image 1, all channels",
        "channel 2, all images",
    ]
    choice = "document.querySelector('#image-0 select')"
    browser.js(f"{choice}.value = '1'; {choice}.dispatchEvent(new Event('change'))")
    assert browser.js(titles)[0] == "y 0, x 0: 1"
    assert browser.js("document.querySelectorAll('#image-0 label + div svg').length") == 1
    assert browser.complaints(path) == []


def test_the_keyboard_is_enough(browser, opened, tmp_path):
    text, _ = made_page(made(tmp_path / "rec"))
    path = opened(text)

    browser.js("document.querySelector(\"svg a[href='#image-1']\").focus()")
    browser.key("Enter")
    browser.wait(f"{VISIBLE} === 'image-1'")
    browser.js("document.querySelector('#image-1 [role=tab]').focus()")
    for key, title in [
        ("ArrowRight", "Worst elements"), ("End", "Heat maps"), ("ArrowRight", "Counts"), ("ArrowLeft", "Heat maps"),
        ("Home", "Counts"),
    ]:  # fmt: skip
        browser.key(key)
        assert browser.js(PANEL) == title
        assert browser.js("document.activeElement.textContent") == title
    assert browser.complaints(path) == []


def test_the_browser_test_would_notice_errors_and_requests(browser, opened):
    path = opened("<!DOCTYPE html><title>x</title><script>console.error('no')</script><img src='other.png'>")

    assert len(browser.complaints(path)) >= 2


def test_hostile_texts_run_nothing(browser, opened, tmp_path):
    names = ("<script>window.bad = 1</script>", "h\"'><img src=x onerror='window.bad = 1'>", "</title></svg><b>\u202ey")
    text, _ = made_page(made(tmp_path / "rec", names=names, device="</script><script>window.bad = 1</script>"))
    path = opened(text)

    for i in range(4):
        browser.click(f"#image-0 [role=tab]:nth-of-type({i + 1})")
    assert browser.js("window.bad === undefined")
    assert browser.js("document.querySelectorAll('b, img').length") == 0
    assert browser.complaints(path) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_can_be_read_in_light_and_in_the_dark(browser, opened, tmp_path, scheme):
    with browser.in_scheme(scheme):
        text, _ = made_page(made(tmp_path / "rec"))
        opened(text)
        browser.assert_readable(scheme, color="body, .legend, .status, a, dt")
