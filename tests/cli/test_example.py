"""What a user without the checkout has to try, and the commands that try it."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from mpsref.cli import main
from mpsref.cli.example import EXAMPLES

RECORDED = Path(__file__).parents[2] / "examples" / "gpu-run" / "precise"
TEACH = Path(__file__).parents[2] / "examples" / "teach"


def commands(text):
    return [shlex.split(line) for line in text.splitlines() if line.startswith("  ")]


def test_every_command_that_it_says_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["example", "a folder"]) == 0
    said = commands(capsys.readouterr().out)
    statuses = []
    for words in said:
        folder, command = (words[1], words[3:]) if words[0] == "cd" else (".", words)
        assert command[0] == "mpsref"
        statuses.append(
            subprocess.run(
                [sys.executable, "-m", *command], cwd=folder, stdout=subprocess.DEVNULL, check=False
            ).returncode
        )

    assert statuses == [0, 1, 0, 1]  # a verdict for the recording and one against it, a page, a kernel that overflows
    assert sum(path.stat().st_size for path in (tmp_path / "a folder").iterdir()) < 300_000
    assert (tmp_path / "a folder" / "graph.html").read_text().startswith("<!DOCTYPE html>")


def test_the_recording_is_the_one_of_the_checkout(tmp_path):
    main(["example", "recording", str(tmp_path / "r")])
    got, want = (
        json.loads(path.read_text()) for path in (tmp_path / "r/recording.json", RECORDED / "chain-float32.json")
    )

    for name, image in want["images"].items():
        assert (tmp_path / "r" / got["images"][name]["file"]).read_bytes() == (RECORDED / image["file"]).read_bytes()
        assert {**got["images"][name], "file": image["file"]} == image
    assert {**got, "images": want["images"]} == want
    assert (tmp_path / "r" / got["graph"]).read_bytes() == (RECORDED / want["graph"]).read_bytes()


@pytest.mark.parametrize("name", EXAMPLES)
def test_one_of_them(name, tmp_path, capsys):
    assert main(["example", name, str(tmp_path / "new" / "folder")]) == 0
    assert len(commands(capsys.readouterr().out)) == len(EXAMPLES[name])
    assert list((tmp_path / "new" / "folder").iterdir())


def test_the_graph_is_the_one_of_the_checkout(tmp_path):
    main(["example", "graph", str(tmp_path / "g")])
    assert [path.read_bytes() for path in (tmp_path / "g").iterdir()] == [(TEACH / "graph.json").read_bytes()]


def test_nothing_is_overwritten_and_wrong_names_are_refused(tmp_path, capsys):
    (tmp_path / "mine").write_text("mine")

    assert main(["example", str(tmp_path)]) == 2
    assert "nothing is overwritten" in capsys.readouterr().err
    assert main(["example", "grph", str(tmp_path / "g")]) == 2
    assert "choose from" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


# ---- run, given a recording ----


def test_run_takes_graph_and_sources_from_a_recording(tmp_path, capsys):
    graph, asked, done = TEACH / "graph.json", tmp_path / "asked", tmp_path / "done"
    main(["inputs", str(graph), "--shape", "3x4x8", "--out", str(asked)])
    assert main(["run", str(asked / "recording.json"), "--out", str(done), "--all"]) == 0
    assert main(["verify", str(done / "recording.json"), "--ulp", "0"]) == 0
    assert "PASS: all 960 elements of 10 images" in capsys.readouterr().out

    sources = [f"--source={name}={asked / file['file']}" for name, file in
               json.loads((asked / "recording.json").read_text())["images"].items() if name in ("x", "dy")]  # fmt: skip
    again = tmp_path / "again"
    assert (
        main(["run", str(graph), *sources, "--shape", "3x4x8", "--channel-format", "float16", "--out", str(again)]) == 0
    )
    for name in ("x", "dy", "y", "dx"):
        assert (again / f"{name}.npy").read_bytes() == (done / f"{name}.npy").read_bytes()


def test_a_source_can_be_replaced_and_must_be_there(tmp_path, capsys):
    import numpy as np  # noqa: PLC0415

    asked = tmp_path / "asked"
    main(["inputs", str(TEACH / "graph.json"), "--shape", "3x4x8", "--out", str(asked)])
    np.save(tmp_path / "x.npy", np.ones((3, 4, 8), np.float16))
    run = ["run", str(asked / "recording.json"), "--out", str(tmp_path / "out")]
    assert main([*run, "--source", f"x={tmp_path / 'x.npy'}"]) == 0
    assert (np.load(tmp_path / "out" / "x.npy") == 1).all()

    (asked / json.loads((asked / "recording.json").read_text())["images"]["dy"]["file"]).unlink()
    capsys.readouterr()
    assert main([*run[:-1], str(tmp_path / "none")]) == 2
    assert "--source dy=FILE: missing" in capsys.readouterr().err
