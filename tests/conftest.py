"""
A Chromium that tests drive: standard library only, by ``--remote-debugging-pipe``; and no explanations by Hypothesis.

Many tests let it find something. Why nothing else would do, it explains at several times the cost of finding it.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import select
import shutil
import subprocess
import time

import hypothesis
import pytest

hypothesis.settings.register_profile(
    "default",
    hypothesis.settings(),
    phases=[phase for phase in hypothesis.settings().phases if phase is not hypothesis.Phase.explain],
)
hypothesis.settings.load_profile("default")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--remote-debugging-pipe",
    "--window-size=1200,900",
)  # fmt: skip
PATIENCE = 60


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        # A page does not depend on the machine that made it.
        if "browser" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)


class Browser:
    """A Chromium that is driven through a pair of pipes, one tab of it."""

    def __init__(self, folder):
        # It reads descriptor 3 and writes 4: here the shell gives it its own standard input and output as those.
        command = [
            "sh",
            "-c",
            'exec "$@" 3<&0 4>&1 0</dev/null 1>&2',
            "sh",
            CHROMIUM,
            *FLAGS,
            f"--user-data-dir={folder}",
        ]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
        )
        self.numbers, self.rest, self.events, self.session = itertools.count(1), b"", [], None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def message(self):
        end = time.monotonic() + PATIENCE
        while b"\0" not in self.rest:
            ready, _, _ = select.select([self.process.stdout], [], [], max(0, end - time.monotonic()))
            data = os.read(self.process.stdout.fileno(), 1 << 16) if ready else b""
            assert data, "the browser does not answer"
            self.rest += data
        text, _, self.rest = self.rest.partition(b"\0")
        return json.loads(text)

    def call(self, method, **parameters):
        number = next(self.numbers)
        request = {"id": number, "method": method, "params": parameters}
        if self.session:
            request["sessionId"] = self.session
        self.process.stdin.write(json.dumps(request).encode() + b"\0")
        self.process.stdin.flush()
        while (answer := self.message()).get("id") != number:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def open(self, path):
        self.events.clear()
        self.call("Page.navigate", url=path.as_uri())
        end = time.monotonic() + PATIENCE
        while self.js("document.readyState") != "complete" or self.js("location.href") != path.as_uri():
            assert time.monotonic() < end
            time.sleep(0.02)

    def js(self, code):
        found = self.call("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def click(self, selector):
        """A real click, in the middle of what must be the topmost element there."""
        place = self.js(f"""(() => {{
            const found = document.querySelector({json.dumps(selector)});
            found.scrollIntoView({{block: "center", inline: "center", behavior: "instant"}});
            const box = found.getBoundingClientRect(), at = [box.x + box.width / 2, box.y + box.height / 2];
            const top = document.elementFromPoint(...at);
            return found.contains(top) ? at : null;
        }})()""")
        assert place, f"{selector} cannot be clicked"
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], button="left", clickCount=1)

    def key(self, key):
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode={
                "Enter": 13, "ArrowRight": 39, "ArrowLeft": 37, "Home": 36, "End": 35,
            }[key], **({"text": "\r"} if key == "Enter" and kind == "keyDown" else {}))  # fmt: skip

    def wait(self, code):
        end = time.monotonic() + PATIENCE
        while not self.js(code):
            assert time.monotonic() < end, code
            time.sleep(0.02)

    def complaints(self, path):
        """What the console got, and requests for anything but the page."""
        self.js("new Promise((done) => setTimeout(done, 50))")
        asked = [e["params"]["request"]["url"] for e in self.events if e.get("method") == "Network.requestWillBeSent"]
        others = [url for url in asked if url.partition("#")[0] != path.as_uri()]
        said = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
        return others + [e for e in self.events if e.get("method") in said]

    @contextlib.contextmanager
    def in_scheme(self, scheme):
        """With ``light`` or ``dark`` colours preferred."""
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        try:
            yield
        finally:
            self.call("Emulation.setEmulatedMedia", features=[])

    def assert_readable(self, scheme, **selectors):
        """Elements by the property that colours them: each is in enough contrast with the page."""
        ground = luminance(self.js("getComputedStyle(document.body).backgroundColor"))
        assert (ground < 0.2) == (scheme == "dark")
        for style, selector in selectors.items():
            found = f"Array.from(document.querySelectorAll({json.dumps(selector)}), (e) => getComputedStyle(e).{style})"
            for colour in set(self.js(found)):
                low, high = sorted([ground, luminance(colour)])
                assert (high + 0.05) / (low + 0.05) >= 4.5, (selector, colour)

    def close(self):
        with contextlib.suppress(Exception):
            self.session = None
            self.call("Browser.close")
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


def luminance(colour):
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    # Some systems have a program of this name that only says where to get it.
    if CHROMIUM is None or subprocess.run([CHROMIUM, "--version"], capture_output=True, check=False).returncode:
        pytest.skip("there is no chromium that runs: install it to test the page in a browser")
    made = Browser(tmp_path_factory.mktemp("chromium"))
    yield made
    made.close()


@pytest.fixture
def opened(browser, tmp_path):
    def open_page(text):
        path = tmp_path / "page.html"
        path.write_text(text, "utf-8")
        browser.open(path)
        return path

    return open_page
