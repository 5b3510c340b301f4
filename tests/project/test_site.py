"""The built site: links lead somewhere, nothing needs a network, and every page fits a phone and can be read."""

from __future__ import annotations

import importlib
import inspect
import os
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).parents[2]
SITE = Path(os.environ.get("MPSREF_SITE", "site")).resolve()

pytestmark = pytest.mark.skipif(
    "MPSREF_SITE" not in os.environ, reason="build the site with sphinx-build, and name its folder in MPSREF_SITE"
)

HOSTS = {"hypothesis.readthedocs.io", "keepachangelog.com"}
"""Where links may lead outside; nothing is loaded from anywhere."""

LOADS = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src", "object": "data"}
NAVIGATION = {"canonical", "index", "search", "next", "prev", "author", "copyright", "help", "top", "up"}
VERBATIM = {"pre", "code", "script", "style"}


class Page(HTMLParser):
    """What a page loads, where it leads, and the anchors that it has."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.loads, self.links, self.anchors, self.prose, self.pictures = [], [], {"", "top"}, [], {}
        self._verbatim = 0
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self._verbatim += tag in VERBATIM
        self.anchors |= {values[name] for name in ("id", "name") if values.get(name)}
        if tag == "link" and NAVIGATION & set((values.get("rel") or "").split()):
            tag = "a"
        if tag == "img":
            self.pictures[values["src"]] = values.get("alt")
        if tag in LOADS and values.get(LOADS[tag]):
            self.loads.append(values[LOADS[tag]])
        elif tag == "a" and values.get("href"):
            self.links.append(values["href"])

    def handle_endtag(self, tag):
        self._verbatim -= tag in VERBATIM

    def handle_data(self, data):
        if not self._verbatim:
            self.prose.append(data)


@pytest.fixture(scope="module")
def pages():
    return {path: Page(path) for path in sorted(SITE.rglob("*.html")) if "_static" not in path.parts}


def test_the_site_has_the_pages_that_a_reader_looks_for(pages):
    names = {path.relative_to(SITE).as_posix() for path in pages}

    documents = {path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md")}
    assert {path.with_suffix(".html").as_posix() for path in documents if path.name != "README.md"} <= names
    assert {"api/mpsref.html", "api/mpsref.verify.html", "search.html"} <= names


def test_links_and_what_pages_load_are_in_the_site(pages):
    astray = []
    for path, page in pages.items():
        for target in page.loads + page.links:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            there = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            found = there.is_file() and there.is_relative_to(SITE)
            if not found or (there in pages and unquote(parts.fragment) not in pages[there].anchors):
                astray.append((path.relative_to(SITE).as_posix(), target))

    assert not astray


def test_nothing_is_loaded_from_elsewhere(pages):
    for path, page in pages.items():
        assert not [target for target in page.loads if urlsplit(target).netloc], path
        text = path.read_text("utf-8")
        assert not re.search(r"@import|url\(['\"]?(https?:)?//", text), path
        assert "mathjax" not in text.lower(), path
    for sheet in SITE.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(https?:)?//", sheet.read_text("utf-8")), sheet


def test_pictures_say_in_words_what_they_show(pages):
    """Thumbnails stand above a title, and have no words of their own; a figure without a title has its file's name."""
    for path, page in pages.items():
        for source, words in page.pictures.items():
            assert words or source.endswith("_thumb.png"), (path, source)
            assert not re.match(r"plot \w", words or ""), (path, words)


def test_links_that_leave_the_site_lead_to_known_hosts(pages):
    hosts = {urlsplit(target).netloc for page in pages.values() for target in page.links if urlsplit(target).scheme}

    assert hosts <= HOSTS


def test_no_page_names_a_place_on_the_machine_that_built_it(pages):
    texts = [path.read_text("utf-8") for path in pages]
    texts += [(SITE / "searchindex.js").read_text("utf-8")]
    home = re.compile(rf"{re.escape(str(ROOT))}|/(?:home|root|tmp|work|Users)/|site-packages|file://|pypi|pythonhosted")

    assert not [match[0] for text in texts for match in home.finditer(text)]


def test_signatures_say_what_there_is_to_give(pages):
    classes = {path.stem: "".join(page.prose) for path, page in pages.items() if path.parent.name == "classes"}
    tanh = classes["mpsref.MPSCNNNeuronTanHNode"]

    assert re.search(r"MPSCNNNeuronTanHNode\(\s*\*, source, a=None, b=None\s*\)", tanh)
    assert not [name for name, text in classes.items() if name.endswith("Node") and "*args" in text]


def test_no_markup_is_left_in_prose(pages):
    for path, page in pages.items():
        assert not re.findall(r".{0,40}(?:`|\]\().{0,40}", "".join(page.prose)), path


def test_every_public_name_is_explained(pages):
    explained = {anchor for path, page in pages.items() if SITE / "api" in path.parents for anchor in page.anchors}
    modules = [path.stem for path in (SITE / "api").glob("mpsref*.html")]
    for module in map(importlib.import_module, modules):
        for name in module.__all__:
            thing = getattr(module, name)
            places = [f"module-{thing.__name__}"] if inspect.ismodule(thing) else [f"{each}.{name}" for each in modules]
            assert explained & set(places), (module.__name__, name)


# ---- in a browser ----

LOOK = """(() => {
    // Not window.innerWidth: a phone zooms out of a page that is too wide, and that grows with it.
    const wrong = new Set(), width = document.documentElement.clientWidth;
    const whole = document.scrollingElement.scrollWidth;
    if (whole > width) wrong.add(`scrolls sideways to ${whole}`);
    const scrolls = (e) => ["auto", "scroll"].includes(getComputedStyle(e).overflowX);
    const named = (e) => `${e.tagName}.${e.className} ${e.textContent.trim().slice(0, 30)}`;
    for (const e of document.querySelectorAll("table, pre, img, iframe, svg, .sig")) {
        const box = e.getBoundingClientRect();
        let outer = e.parentElement;
        while (outer && !scrolls(outer)) outer = outer.parentElement;
        if (box.width && !outer && (box.right > width + 1 || box.left < -1)) wrong.add(`cut: ${named(e)}`);
        if (box.width && e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).overflowX === "hidden")
            wrong.add(`hidden: ${named(e)}`);
    }
    const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
    const known = new Map();
    const rgba = (colour) => {
        if (!known.has(colour)) {
            canvas.clearRect(0, 0, 1, 1);
            canvas.fillStyle = colour;
            canvas.fillRect(0, 0, 1, 1);
            const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
            known.set(colour, [r, g, b, a / 255]);
        }
        return known.get(colour);
    };
    const over = ([r, g, b, a], below) => [r, g, b].map((c, i) => c * a + below[i] * (1 - a));
    const ground = (e) => {
        const colour = e ? rgba(getComputedStyle(e).backgroundColor) : [255, 255, 255, 1];
        return colour[3] === 1 ? colour.slice(0, 3) : over(colour, ground(e.parentElement));
    };
    const luminance = (rgb) => rgb.map((c) => c / 255)
        .map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
        .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    const seen = new Set();
    while (texts.nextNode()) {
        const e = texts.currentNode.parentElement;
        if (seen.has(e) || !texts.currentNode.data.trim()) continue;
        seen.add(e);
        if (e.closest("svg, script, style, noscript, dialog")) continue;
        if (!e.checkVisibility({opacityProperty: true, visibilityProperty: true})) continue;
        const paper = ground(e), ink = over(rgba(getComputedStyle(e).color), paper);
        const [low, high] = [luminance(paper), luminance(ink)].sort((a, b) => a - b);
        const contrast = (high + 0.05) / (low + 0.05);
        if (contrast < 4.5) wrong.add(`contrast ${contrast.toFixed(2)}: ${named(e)}`);
    }
    return [...wrong].slice(0, 5);
})()"""
"""What is wrong with the page as it stands: wider than the window, cut off, or too pale to read."""


@pytest.mark.slow
def test_a_page_that_is_too_wide_cut_or_pale_is_seen(opened, browser):
    text = (
        "<p style='color: {ink}; background: #fff'>words<div style='overflow: {flow}'><table><td>{cell}</table></div>"
    )
    for values, seen in (
        ({"ink": "#767676", "flow": "auto", "cell": "<div style='width: 3000px'>"}, []),
        ({"ink": "#777777", "flow": "auto", "cell": ""}, ["contrast 4.48: P. words"]),
        ({"ink": "#000", "flow": "hidden", "cell": "<div style='width: 3000px'>"}, ["cut: TABLE. "]),
        ({"ink": "rgb(0 0 0 / 50%)", "flow": "hidden", "cell": ""}, ["contrast 4.00: P. words"]),
    ):
        opened(text.format(**values))
        assert browser.js(LOOK) == seen
    for mobile in (False, True):
        browser.call("Emulation.setDeviceMetricsOverride", width=390, height=800, deviceScaleFactor=1, mobile=mobile)
        opened("<!DOCTYPE html><meta name=viewport content='width=device-width'><pre style='width: 3000px'>words")
        assert sorted(what.split()[0] for what in browser.js(LOOK)) == ["cut:", "scrolls"]
    browser.call("Emulation.clearDeviceMetricsOverride")


@pytest.mark.slow
def test_every_page_fits_a_phone_and_a_desk_and_can_be_read_in_light_and_dark(browser):
    wrong = []
    for path in sorted(SITE.rglob("*.html")):
        browser.open(path)
        for width in (1280, 390):
            browser.call(
                "Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=width < 800
            )
            for scheme in ("light", "dark"):
                with browser.in_scheme(scheme):
                    browser.js(f"document.documentElement.dataset.theme = '{scheme}'")
                    wrong += [(path.relative_to(SITE).as_posix(), width, scheme, what) for what in browser.js(LOOK)]
    browser.call("Emulation.clearDeviceMetricsOverride")

    assert not wrong, "\n".join(map(str, wrong))
