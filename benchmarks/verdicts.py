"""
What a verdict costs: ``python benchmarks/verdicts.py``.

Each neuron on 6.4 million elements, in one process on one core: the evaluation of its graph on images in memory, then
`verify` of a recording of that node from its files, in turns. What counts is the least of the rounds, which other
programs disturb least. The markdown goes to stdout: milliseconds of the evaluation, and how many times as long a
verdict takes where every element is exact, and where one in a hundred is 1 ULP away.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import mpsref as mps
from mpsref.record import write_recording
from mpsref.verify import verify


def main() -> int:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", nargs=4, type=int, default=[1, 200, 200, 160], metavar=("N", "H", "W", "C"))
    parser.add_argument("--rounds", type=int, default=9, metavar="N")
    parser.add_argument("--formats", nargs="+", default=["float32", "float16"], metavar="NAME")
    options = parser.parse_args()
    # Only Linux can pin a process.
    with contextlib.suppress(AttributeError):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-1:])
    for name in options.formats:
        print(f"\n| {name} | forward (ms) | exact | 1 ULP | gradient (ms) | exact | 1 ULP |\n|---" + "|---" * 6 + "|")
        worst = 0.0
        for neuron_type in mps.NEURONS:
            found = [measure(neuron_type, name, tuple(options.shape), options.rounds, is_gradient=g) for g in (0, 1)]
            worst = max(worst, *(ratio for _, *ratios in found for ratio in ratios))
            texts = [f"{1e3 * base:.1f} | {exact:.2f} | {near:.2f}" for base, exact, near in found]
            print(f"| {neuron_type.name} | {' | '.join(texts)} |", flush=True)
        print(f"\nAt most {worst:.2f} times the evaluation.")
    return 0


def measure(
    neuron_type: mps.MPSCNNNeuronType, name: str, shape: tuple[int, ...], rounds: int, *, is_gradient: bool
) -> tuple[float, float, float]:
    """Seconds of an evaluation, and the two ratios."""
    rng = np.random.default_rng(0)
    channels = shape[-1]
    slopes = rng.uniform(-1, 1, channels) if mps.NEURONS[neuron_type].per_channel else None
    x, dy = (mps.MPSNNImageNode(handle=handle) for handle in ("x", "dy"))
    node = mps.MPSCNNNeuronNode(source=x, descriptor=mps.MPSNNNeuronDescriptor(neuron_type, data=slopes))
    result = (node.gradient_filter(with_source=dy) if is_gradient else node).result_image
    result.handle = "result"
    storage = mps.MPSImageFeatureChannelFormat[name]
    graph = mps.MPSNNGraph(result_image=result, format=storage)
    sources = {
        label: mps.MPSImage.from_array(rng.standard_normal(shape, np.float32) * 3, storage)
        for label in (["dy", "x"] if is_gradient else ["x"])
    }
    exact = graph.run(**sources)["result"].to_array()
    near, bits = exact.copy(), exact.view(f"u{exact.itemsize}")
    near.view(bits.dtype)[..., ::100] += (bits & 0x7F)[..., ::100] != 0
    with tempfile.TemporaryDirectory() as folder:
        file = mps.GraphFile.from_results([result], storage)
        paths = [
            write_recording(Path(folder) / label, file, {**sources, "result": made}, "none", raw=True)
            for label, made in (("exact", exact), ("near", near))
        ]
        candidates: list[Callable[[], object]] = [lambda: graph.run(**sources)]
        candidates += [lambda path=path: verify(path).check() for path in paths]
        times = [[timed(call) for call in candidates] for _ in range(rounds + 1)][1:]
    base, *others = np.min(times, axis=0).tolist()
    return (base, *(other / base for other in others))


def timed(call: Callable[[], object]) -> float:
    """Seconds."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(main())
