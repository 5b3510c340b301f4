"""
What large graphs cost: ``python benchmarks/graphs.py``.

A chain of ReLU nodes on one element, each size in a process of its own. The markdown goes to stdout: seconds of
processor time for building the nodes, the plan of an `MPSNNGraph`, a recording of every image written and verified; the
largest resident set of the process; and in the last row how many times those of the first size the last size's are.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import mpsref as mps
from mpsref.record import write_recording
from mpsref.verify import verify

STEPS = "nodes", "plan", "write", "verify"


def main() -> int:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--nodes", nargs="+", type=int, default=[10_000, 100_000], metavar="N", help="sizes (default 10000 100000)"
    )
    parser.add_argument("--here", action="store_true", help="measure the first size in this process, as JSON")
    options = parser.parse_args()
    if options.here:
        print(json.dumps(measure(options.nodes[0])))
        return 0
    print(f"| nodes | {' | '.join(f'{step} (s)' for step in STEPS)} | peak memory (MiB) |")
    print("|---" * (len(STEPS) + 2) + "|")
    results = []
    for size in options.nodes:
        command = [sys.executable, __file__, "--here", "--nodes", str(size)]
        results.append(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))  # noqa: S603
        print(f"| {size:,} | {' | '.join(f'{value:.3g}' for value in results[-1].values())} |", flush=True)
    ratios = [last / first for first, last in zip(results[0].values(), results[-1].values(), strict=True)]
    print(f"| {options.nodes[-1] / options.nodes[0]:.1f} x | {' | '.join(f'{ratio:.1f} x' for ratio in ratios)} |")
    return 0


def measure(size: int) -> dict[str, float]:
    """Seconds of each step, and MiB."""
    seconds: dict[str, float] = {}

    def timed(step: str, work: Callable[[], Any]) -> Any:
        start = time.process_time()
        result = work()
        seconds[step] = time.process_time() - start
        return result

    last = timed("nodes", lambda: chain(size))
    # Now and then a full collection of garbage falls into one of them.
    plans = []
    for _ in range(5):
        timed("plan", lambda: mps.MPSNNGraph(result_image=last))
        plans.append(seconds["plan"])
    seconds["plan"] = statistics.median(plans)
    with tempfile.TemporaryDirectory() as folder:
        recording = timed("write", lambda: recorded(Path(folder), last, size))
        report = timed("verify", lambda: verify(recording))
    report.check()
    unit = 1 if sys.platform == "darwin" else 1024
    return {**seconds, "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20}


def chain(size: int) -> mps.MPSNNImageNode:
    """The last image of a chain."""
    image = mps.MPSNNImageNode(handle="x")
    for i in range(size):
        image = mps.MPSCNNNeuronReLUNode(source=image).result_image
        image.handle = f"y{i}"
    return image


def recorded(folder: Path, last: mps.MPSNNImageNode, size: int) -> Path:
    """A recording of all its images."""
    one = mps.MPSImage.from_array(np.ones((1, 1, 1), np.float32))
    graph = mps.GraphFile.from_results([last], mps.MPSImageFeatureChannelFormat.float32)
    return write_recording(folder, graph, {"x": one, **{f"y{i}": one for i in range(size)}}, "none")


if __name__ == "__main__":
    sys.exit(main())
