"""The benchmarks measure what they say they do. No time is judged here."""

from __future__ import annotations

import json
import os
import runpy
import signal
import subprocess
import sys
import time
import tomllib
import warnings
from pathlib import Path

import numpy as np
import pytest

import mpsref as mps

ROOT = Path(__file__).parents[2]
RUN = ROOT / "benchmarks" / "run.py"
PEERS = runpy.run_path(str(ROOT / "benchmarks" / "peers.py"), run_name="benchmarks.peers")
PAGE = runpy.run_path(str(ROOT / "benchmarks" / "page.py"))
NAMES = [neuron_type.name for neuron_type in mps.NEURONS]
SHAPE = (2, 3, 5, 8)


@pytest.fixture(scope="module")
def modules():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what others warn of while they are imported
        found, _ = PEERS["load"]()
    return found


def without_peers(folder):
    """An environment in which no peer can be imported; `tried` is made by trying."""
    for name in ("torch", "onnx", "onnxruntime"):
        tried = f"open({str(folder / 'tried')!r}, 'w').close()"
        (folder / f"{name}.py").write_text(f"{tried}\nraise ImportError('{name} is not here')")
    return os.environ | {"PYTHONPATH": str(folder)}


def run(*arguments, env=None):
    return subprocess.run([sys.executable, RUN, *arguments], capture_output=True, text=True, check=True, env=env)


def assert_same_function(calls, peers, dtype):
    want = calls["mpsref"]().astype(np.float64)
    tolerance = 1e-4 if dtype is np.float32 else 2e-2
    for name in peers:
        got = np.asarray(calls[name]())
        assert (got.dtype, got.shape) == (dtype, SHAPE), name
        np.testing.assert_allclose(got.astype(np.float64), want, rtol=tolerance, atol=tolerance, err_msg=name)


def test_there_are_peers_for_every_neuron():
    assert list(PEERS["PEERS"]) == NAMES


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("name", NAMES)
def test_numpy_one_liners_compute_the_same(name, dtype):
    x, g = PEERS["data"](name, SHAPE, dtype)
    peers = ["numpy float32", "numpy float64"] if dtype is np.float32 else ["numpy float16"]

    assert_same_function(PEERS["forwards"](name, x, {}), peers, dtype)
    assert_same_function(PEERS["gradients"](name, x, g, {}), peers, dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("peer", ["torch", "onnx", "onnxruntime"])
def test_libraries_compute_the_same(peer, dtype, modules):
    if peer not in modules:
        pytest.skip(f"{peer} is not installed")
    met = set()
    for name in NAMES:
        x, g = PEERS["data"](name, SHAPE, dtype)
        for calls in (PEERS["forwards"](name, x, modules), PEERS["gradients"](name, x, g, modules)):
            own = [label for label in calls if label.split(".")[0].split()[0] == peer]
            met |= set(own)
            assert_same_function(calls, own, dtype)

    assert (
        met
        == {
            "torch": {"torch", "torch from x"},
            "onnx": {"onnx.reference"},
            "onnxruntime": {"onnxruntime"} if dtype is np.float32 else set(),
        }[peer]
    )


EVERYTHING = ["float32", "float16", "small", "windows", "chain", "workers", "memory"]


@pytest.mark.slow
@pytest.mark.parametrize("sections", [["small", "memory"], EVERYTHING])
def test_the_command_measures_what_it_is_told_to_and_names_missing_peers(tmp_path, sections):
    arguments = ("--shape", "1", "4", "4", "4", "--rounds", "1")
    if sections != EVERYTHING:
        arguments += ("--only", *sections)
    files = ("--json", tmp_path / "speed.json", "--markdown", tmp_path / "speed.md")
    done = run(*arguments, *files, env=without_peers(tmp_path))
    results = json.loads((tmp_path / "speed.json").read_text())

    assert set(results) == {"about", "resident", *sections}
    assert results["about"]["missing"] == {name: f"{name} is not here" for name in ("torch", "onnx", "onnxruntime")}
    for section in (results[name] for name in ("float32", "float16") if name in sections):
        assert all(list(section[kind]) == NAMES for kind in ("forward", "gradient"))
    assert done.stdout == (tmp_path / "speed.md").read_text() == PAGE["page"](results)
    assert "- Missing: torch (torch is not here)" in done.stdout
    assert done.stderr == ""


@pytest.mark.slow
def test_one_section_alone_and_with_the_peers_that_there_are(modules):
    text = run("--only", "small", "--rounds", "1").stdout

    for name in ("torch", "onnx", "onnxruntime"):
        assert (f"- Missing: {name} (" in text) == (name not in modules)
    assert "## 1,024 elements, float32 forward" in text
    assert "## float32 forward" not in text


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_an_interrupt_leaves_no_traceback_and_writes_nothing(tmp_path):
    written = tmp_path / "speed.json"
    begin = (  # what is begun in the background of a shell ignores it
        "import os, runpy, signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); del sys.argv[0]; "
        "sys.path[0] = os.path.dirname(sys.argv[0]); runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    command = [sys.executable, "-c", begin, RUN, "--only", "float32", "--json", written]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=without_peers(tmp_path)) as process:
        while not (tmp_path / "tried").exists() and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=10)

    assert (process.returncode, err) == (130, "\ninterrupted: nothing written\n")
    assert not written.exists()


# ---- goals ----


def results(own, peers):
    """As if mpsref took `own` seconds for each, and every peer what is given."""
    seconds = {name: {"mpsref": own, **peers} for name in NAMES}
    large = {"forward": seconds, "gradient": seconds}
    return {"about": {"shape": [1, 1, 1, 1]}, "float32": large, "float16": large, "small": {"float32": seconds}}


def reached(found):
    return {(work, goal): reached for work, goal, _, reached in PAGE["goals"](found)}


def test_goals_are_reached_by_ratios_and_not_otherwise():
    peers = {"torch": 1, "numpy float64": 4, "numpy float16": 4, "memcpy": 0.25, "onnx.reference": 20}
    good, bad = reached(results(1.4, peers)), reached(results(12, peers))

    assert [value for value in good.values() if value is not None] == [True] * 10
    assert [value for value in bad.values() if value is not None] == [False] * 10


def test_one_neuron_that_is_beyond_is_named_and_counts():
    found = results(1.0, {"torch": 1.0})
    found["float32"]["forward"]["tanH"] = {"mpsref": 6.5, "torch": 1.0}
    found["float32"]["forward"]["geLU"] = {"mpsref": 9.5, "torch": 1.0}
    rows = {goal: (measured, reached) for work, goal, measured, reached in PAGE["goals"](found) if "32 f" in work}

    assert rows["every neuron at most 6x torch eager, geLU 10x"] == ("tanH 6.50x; 1 of 16 beyond", False)
    assert rows["geometric mean at most 2x torch eager"][1] is True


def test_a_goal_is_open_while_a_peer_lacks_a_neuron():
    found = results(1.0, {"torch": 1.0})
    del found["small"]["float32"]["geLU"]["torch"]

    assert reached(found)["float32 gradient", "geometric mean at most 3x torch's backward operations"] is None


@pytest.mark.parametrize(("extra", "expected"), [(15, True), (17, False)])
def test_the_goals_of_workers_chains_and_memory(extra, expected):
    factor = 1.0 if expected else 1.1
    found = {
        "about": {"shape": [1, 1, 1, 1]},
        "workers": {"forward": {name: {"1": 1.65, "2": factor} for name in NAMES}},
        "chain": {"float32": {"graph": 1.25 * factor, "calls": 1.0}, "float16": {"graph": 1.25 * factor, "calls": 1.0}},
        "memory": {"live": 2**25, "peak": 2**25},
        "resident": {"live": 2**25, "peak": 2**25 + extra * 2**20},
    }

    assert [value for value in reached(found).values() if value is not None] == [expected] * 4


def test_the_group_names_the_peers():
    group = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]["bench"]

    assert [requirement.split("==")[0] for requirement in group] == ["torch", "onnx", "onnxruntime"]


@pytest.mark.slow
def test_verdicts_are_measured_in_times_of_the_evaluation():
    script = ROOT / "benchmarks" / "verdicts.py"
    options = ["--shape", "1", "2", "4", "8", "--rounds", "1", "--formats", "float16"]
    text = subprocess.run([sys.executable, script, *options], capture_output=True, text=True, check=True).stdout
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")][1:]

    assert [row[0] for row in rows] == [neuron_type.name for neuron_type in mps.NEURONS]
    assert all(float(cell) > 0 for row in rows for cell in row[2:4] + row[5:])
    assert float(text.split()[-4]) >= max(float(row[2]) for row in rows)


@pytest.mark.slow
def test_large_graphs_are_measured_in_rows_and_a_row_of_ratios():
    script = ROOT / "benchmarks" / "graphs.py"
    text = subprocess.run(
        [sys.executable, script, "--nodes", "3", "30"], capture_output=True, text=True, check=True
    ).stdout
    header, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]

    assert [row[0] for row in rows] == ["3", "30", "10.0 x"]
    assert all(len(row) == len(header) == 6 for row in rows)
    small, large, ratios = ([float(cell.removesuffix(" x")) for cell in row[1:]] for row in rows)
    assert all(value > 0 for value in small)
    assert ratios == pytest.approx([b / a for a, b in zip(small, large, strict=True)], rel=0.05, abs=0.06)
