"""
The kill test: `sweep`, `prove` and `run` ended at random moments lose nothing, leave nothing, and go on.

``python tests/fuzz/test_kills.py --count 200`` does more of it, and prints a summary.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import mpsref as mps

ROOT = Path(__file__).parents[2]
PATIENCE = 120
SIGNALS = signal.SIGINT, signal.SIGTERM, signal.SIGKILL
BEGIN = (
    # Behind a shell it may be ignored.
    "import signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL)\n"
    "from mpsref.__main__ import main; sys.exit(main())"
)
IMPLEMENTATION = "import numpy as np\n\n\ndef absolute(x):\n    return np.abs(x)\n"

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")


@dataclass
class Job:
    """A command with a normal end, and what it leaves."""

    arguments: list[str]
    output: str
    seconds: float = 0.0
    result: object = None


def jobs():
    """One of each: four blocks of a proof, two of a sweep, twelve files of a run."""
    return {
        "sweep": Job(
            ["--implementation", "theirs:absolute", "--neuron", "absolute", "--shard", "1/128", "--json", "out/r.json"],
            "out",
        ),
        "prove": Job(
            ["--neuron", "reLU", "--part", "1/128", "--workers", "1", "--sample", "99", "--out", "out/r.json"], "out"
        ),
        "run": Job(["graph.json", "--source", "x=x.npy", "--out", "out/r", "--all"], "out/r"),
    }


def prepare(folder):
    folder.mkdir(exist_ok=True)
    (folder / "out").mkdir()
    (folder / "theirs.py").write_text(IMPLEMENTATION)
    image = mps.MPSNNImageNode(handle="x")
    for i in range(10):
        image = mps.MPSCNNNeuronTanHNode(source=image).result_image
        image.handle = f"y{i}"
    mps.GraphFile.from_results([image]).write(folder / "graph.json")
    np.save(folder / "x.npy", np.linspace(-4, 4, 1 << 18, dtype=np.float32).reshape(1, 512, 512))


def begin(name, job, folder):
    return subprocess.Popen(
        [sys.executable, "-c", BEGIN, name, *job.arguments],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def wait_until_signals_are_handled(process):
    """Before that they are the interpreter's, which is none of ours."""
    end = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < end:
        status = Path(f"/proc/{process.pid}/status").read_text()
        caught = next((int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigCgt")), 0)
        if caught >> (signal.SIGTERM - 1) & 1:
            return
        time.sleep(0.001)


def finish(process):
    """Wait for the process, and for all of its children, which hold the other ends of its pipes."""
    try:
        return process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise


def outcome(job, folder):
    """What a command leaves, without times."""
    found = {}
    for path in sorted((folder / job.output).iterdir()):
        if path.name == "r.json":
            document = json.loads(path.read_text())
            found[path.name] = {k: v for k, v in document.items() if k not in {"wall_seconds", "cpu_seconds"}}
        else:
            found[path.name] = path.read_bytes()
    return found


def measured(folder, names=("sweep", "prove", "run")):
    """Jobs, each done once: how long it takes and what comes of it."""
    prepare(folder)
    done = {name: jobs()[name] for name in names}
    for name, job in done.items():
        process = begin(name, job, folder)
        wait_until_signals_are_handled(process)
        began = time.monotonic()
        _, err = finish(process)
        assert (process.returncode, err) == (0, "")
        job.seconds, job.result = time.monotonic() - began, outcome(job, folder)
        for path in (folder / "out").rglob("*"):
            if path.is_file():
                path.unlink()
        if job.output != "out":
            (folder / job.output).rmdir()
    return done


def kill(name, job, folder, number, moment):
    """End a job at a moment, check what it leaves, and let it go on. Returns how it ended."""
    prepare(folder)
    inputs = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    process = begin(name, job, folder)
    wait_until_signals_are_handled(process)
    time.sleep(moment * job.seconds)
    process.send_signal(number)
    out, err = finish(process)
    what = f"{name}, {number.name} at {moment:.3f} of {job.seconds:.2f} s: {process.returncode}, {err!r}"

    # By the signal itself, which shells call the same, is how it ends while the interpreter stops.
    assert process.returncode in {0, -number, 128 + number}, what
    # After a kill it may be multiprocessing that says what it misses or cleans up.
    assert err.count("\n") <= 1 or number == signal.SIGKILL, what
    assert process.returncode != 0 or "PASS" in out or name == "run", what
    assert {path: path.read_bytes() for path in inputs} == inputs, what
    left = [path for path in folder.rglob("*") if path.name.startswith(".mpsref")]
    if number != signal.SIGKILL:
        assert not left, f"{what}: left {left}"
    for path in folder.rglob("*.json*"):
        json.loads(path.read_text())
    complete = name == "run" and (folder / "out" / "r").exists() and not left
    if not complete:
        again = begin(name, job, folder)
        _, err = finish(again)
        assert (again.returncode, err) == (0, ""), f"{what}: again: {again.returncode}, {err!r}"
    for path in left:
        if path.parent == folder / "out":
            path.unlink(missing_ok=True)
    assert outcome(job, folder) == job.result, what
    return "done before" if process.returncode == 0 else number.name


def kills(folder, count, seed):
    """So many, of all jobs and signals in turn, at random moments."""
    chance = random.Random(seed)
    done, ends = measured(folder / "measured"), Counter()
    for i in range(count):
        name = [*done][i % 3]
        moment = chance.random()
        ends[name, kill(name, done[name], folder / str(i), SIGNALS[i // 3 % 3], moment)] += 1
    return ends


def test_a_kill(tmp_path):
    done = measured(tmp_path / "measured", ["run"])
    kill("run", done["run"], tmp_path / "killed", signal.SIGTERM, 0.8)


@pytest.mark.slow
def test_fifty_kills_at_random_moments(tmp_path):
    assert kills(tmp_path, 50, seed=1).total() == 50


def main():
    from tempfile import TemporaryDirectory  # noqa: PLC0415

    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        ends = kills(Path(folder), options.count, options.seed)
    for (name, end), count in sorted(ends.items()):
        print(f"{name:6} {end:12} {count:4}")
    print(f"{ends.total()} kills: nothing lost, nothing left, all went on")


if __name__ == "__main__":
    main()
