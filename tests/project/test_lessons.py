"""
The lessons: each runs as a script without a warning, its assertions hold, and its answers can be hidden.

One is run with all tests, as a notebook (``tests/teach/test_exercises.py``); every build of the site runs all of them.
"""

from __future__ import annotations

import ast
import json
import re
import runpy
from pathlib import Path

import numpy as np
import pytest

import mpsref as mps

LESSONS = Path(__file__).parents[2] / "docs" / "lessons"
SCRIPTS = sorted(LESSONS.rglob("plot_*.py"))
NUMBERED = [path for path in SCRIPTS if re.match(r"plot_\d\d_", path.name)]
DETAILS = '<details class="answer"><summary>Answer</summary>'


def name(path):
    return path.stem.removeprefix("plot_")


@pytest.fixture
def figures(monkeypatch):
    """How many figures have been shown so far; nothing is shown on a screen, and no style is left behind."""
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415, it is optional

    shown = []

    def show():
        for number in plt.get_fignums():
            figure = plt.figure(number)
            figure.canvas.draw()
            shown.append(figure)
            plt.close(figure)

    monkeypatch.setattr(plt, "show", show)
    with matplotlib.rc_context():
        yield shown
    plt.close("all")


@pytest.mark.slow
@pytest.mark.parametrize("path", SCRIPTS, ids=name)
def test_each_lesson_runs_shows_what_it_draws_and_keeps_its_word(path, figures, capsys):
    names = runpy.run_path(str(path))

    assert figures
    assert names["plt"].get_fignums() == []
    assert capsys.readouterr().out or path.name == "plot_errors_of_formulas.py" or "sixteen" in path.name


@pytest.mark.parametrize("path", NUMBERED, ids=name)
def test_each_lesson_has_its_parts(path):
    text = path.read_text()
    number = int(path.name[5:7])
    exercises = text.partition("# Exercises\n")[2]
    opened, closed = (re.findall(re.escape(tag), exercises) for tag in (DETAILS, "</details>"))

    assert text.startswith(f'"""\nLesson {number}: ')
    assert "**What you will see.**" in ast.get_docstring(ast.parse(text))
    assert 3 <= len(opened) == len(closed) == len(re.findall(r"^# \*\*\d\.\*\* ", exercises, re.MULTILINE)) <= 4
    assert DETAILS not in text.partition("# Exercises\n")[0]
    for answer in exercises.split(DETAILS)[1:]:
        assert "assert " in answer.partition("</details>")[0]
    following = re.findall(r"\*\*Next:\*\* :doc:`(\w+)`", exercises)
    assert following == [path.stem for path in NUMBERED[number : number + 1]]


@pytest.mark.parametrize("path", SCRIPTS, ids=name)
def test_what_is_out_of_sight_is_beside_something_in_sight(path):
    """A block of code that only checks would be an empty box on the page."""
    for block in re.split(r"^# %%.*\n", path.read_text(), flags=re.MULTILINE)[1:]:
        code = re.sub(r"^(#.*\n)*", "", block, count=1)
        seen = re.sub(r"# sphinx_gallery_start_ignore\n.*?# sphinx_gallery_end_ignore\n", "", code, flags=re.DOTALL)
        assert seen.strip() or not code.strip()


def test_there_are_ten_lessons():
    assert [int(path.name[5:7]) for path in NUMBERED] == [*range(1, 11)]


def test_what_was_measured_at_kinks_is_where_the_neurons_have_kinks():
    answers = json.loads((LESSONS / "measured" / "kinks.json").read_text())

    assert set(answers["versions"]) == {"torch", "jax", "jaxlib", "onnx", "onnxruntime"}
    for kink in answers["kinks"]:
        d = mps.MPSNNNeuronDescriptor(mps.MPSCNNNeuronType[kink["neuron"]], **kink["parameters"])
        nearest = min(abs(at - float(kink["x"])) for at in mps.NEURONS[d.neuron_type].kinks(d))
        assert nearest <= np.spacing(np.float32(abs(float(kink["x"]))))
        assert set(kink) == {"neuron", "parameters", "x", "torch", "jax", "onnxruntime_forward"}
