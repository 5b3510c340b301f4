"""Exercises: right answers are those that the lessons print, hints come before answers; notebooks hold both."""

from __future__ import annotations

import importlib.util
import json
import math
import re
import sys
from collections import Counter
from pathlib import Path

import pytest

import mpsref as mps
from mpsref import teach

DOCS = Path(__file__).parents[2] / "docs"

# From the texts of the lessons.
SAID = {
    "1.1": (-0.2, 0.3), "2.1": 0.25, "2.2": 0.1966, "2.3": 3.4, "2.4": 3, "3.1": (0.5, 1), "3.2": 1.0099, "3.3": 4,
    "3.4": 0, "4.1": (2, 1), "4.2": (2, 0, 1), "4.3": ["absolute", "hardSigmoid", "reLU", "pReLU", "reLUN"], "4.4": 0.5,
    "5.1": (0, 0.000001), "5.2": 1048576, "5.3": 1.5, "5.4": 11, "6.1": (32, 65536), "6.2": 2**35, "6.3": False,
    "6.4": True, "7.1": (1 / 2, 1), "7.2": 0.04, "7.3": 0.0, "7.4": 1 / 2, "8.1": 0.005, "8.2": 0.242,
    "8.3": 1 / (1 + math.exp(-1)), "9.1": 3, "9.2": 0, "9.3": 8, "10.1": False,
    "1.2": (2.25, 2.25 * (1 - math.tanh(4.5) ** 2)),
    "1.3": ["none", "reLU", "linear", "tanH", "softSign", "ELU", "pReLU", "reLUN", "power",
            mps.MPSCNNNeuronType.exponential],
    "8.4": ((1 - math.tanh(1) ** 2) - 1, 1, (1 - math.tanh(1) ** 2) + 1),
}  # fmt: skip


@pytest.fixture(autouse=True)
def no_hints_yet(monkeypatch):
    monkeypatch.setattr("mpsref.teach.exercises._wrong", Counter())


@pytest.fixture
def notebooks(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS))
    spec = importlib.util.spec_from_file_location("notebooks", DOCS / "notebooks.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "notebooks", module)
    spec.loader.exec_module(module)
    return module


def test_every_exercise_has_an_answer_that_a_lesson_says():
    assert set(SAID) == set(teach.EXERCISES)


@pytest.mark.parametrize("exercise", SAID)
def test_what_the_lessons_say_is_right_and_other_answers_are_not(exercise, capsys):
    said = SAID[exercise]
    assert teach.check(exercise, said) is True
    assert capsys.readouterr().out == f"{exercise}: right.\n"
    wrong = {bool: lambda: not said, list: lambda: said[1:], tuple: lambda: said[:-1]}.get(
        type(said), lambda: 2 * said + 1
    )()
    for answer in (wrong, ..., None, "a word", [1, 2, 3, 4, 5]):
        assert teach.check(exercise, answer) is False


def test_hints_come_one_by_one_and_the_answer_last(capsys):
    hints = teach.EXERCISES["2.2"].hints
    for _ in range(len(hints) + 2):
        teach.check("2.2", 7)
    lines = capsys.readouterr().out.splitlines()
    assert [line.rpartition("Hint: ")[2] for line in lines[: len(hints)]] == list(hints)
    assert all(line.endswith("It is 0.19661.") for line in lines[len(hints) :])
    with pytest.raises(mps.ParameterError, match=r"exercise is '1\.9': there are 1\.1, "):
        teach.check("1.9", 1)


def test_notebooks_have_the_lesson_and_the_exercises_no_answers(notebooks):
    for path in notebooks.lessons():
        whole, asked = (json.loads(notebooks.notebook(path, exercises=only)) for only in (False, True))
        texts = ["".join(cell["source"]) for cell in asked["cells"]]
        number = int(path.name[5:7])

        assert whole["nbformat"] == asked["nbformat"] == 4
        assert len({cell["id"] for cell in whole["cells"]}) == len(whole["cells"])
        assert f"# Lesson {number}" in texts[1]
        own = [match[1] for text in texts if (match := re.search(r"teach\.check\('([\d.]+)', answer\)", text))]
        assert own == [name for name in teach.EXERCISES if name.split(".")[0] == str(number)]
        for notebook in (whole, asked):
            text = "\n".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown")
            code = "\n".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code")
            assert not any(mark in text for mark in ("raw::", "<details", ":doc:", "``", "live::", "sphinx_gallery"))
            assert "sphinx_gallery" not in code
        assert len(asked["cells"]) < len(whole["cells"])


def run(notebook, answers=()):
    """Run the code cells of a notebook one after the other."""
    names = {"__name__": "__main__"}
    for cell in json.loads(notebook)["cells"]:
        if cell["cell_type"] == "code":
            code = "".join(cell["source"]).replace("%matplotlib inline\n", "")
            if asked := re.search(r"teach\.check\('([\d.]+)', answer\)", code):
                code = code.replace("answer = ...", f"answer = {answers[asked[1]]!r}")
            exec(compile(code, "cell", "exec"), names)  # noqa: S102
    return names


@pytest.mark.parametrize("number", [2, pytest.param(9, marks=pytest.mark.slow)])
def test_a_notebook_runs_and_its_exercises_take_answers(notebooks, number, capsys, monkeypatch):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    monkeypatch.setattr(plt, "show", lambda: plt.close("all"))
    path = notebooks.lessons()[number - 1]
    with matplotlib.rc_context():
        run(notebooks.notebook(path))
        capsys.readouterr()
        run(notebooks.notebook(path, exercises=True), SAID)
    plt.close("all")
    said = capsys.readouterr().out
    assert [line for line in said.splitlines() if line.endswith(": right.")] == [
        f"{name}: right." for name in teach.EXERCISES if name.startswith(f"{number}.")
    ]


@pytest.mark.slow
def test_the_notebook_of_the_class_runs(notebooks, capsys, monkeypatch):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    monkeypatch.setattr(plt, "show", lambda: plt.close("all"))
    with matplotlib.rc_context():
        names = run(notebooks.notebook(notebooks.CLASS))
    plt.close("all")
    said = capsys.readouterr().out
    assert "0 because" in said
    assert (names["log"].trace.o.round() == names["data"]["right"]).all()
    # No plumbing of its own: what it imports is numpy, matplotlib and the package.
    assert set(re.findall(r"^(?:from|import) (\w+)", notebooks.CLASS.read_text(), re.MULTILINE)) == {
        "numpy",
        "matplotlib",
        "mpsref",
    }
