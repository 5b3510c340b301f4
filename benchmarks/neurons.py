"""
What correct rounding in blocks costs, as ratios measured side by side: ``python benchmarks/neurons.py``.

For each neuron three candidates take turns in one process on the same array: mpsref; the same kernel on the whole array
at once in float64, rounded to the dtype without any proof; and a copy of the array. Medians of the rounds; a table of
ratios goes to stdout, all times in nanoseconds an element to a JSON file if one is named.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import mpsref as mps
from mpsref.neuron.workspace import Workspace


def plain(row: mps.neuron.Neuron, d: mps.MPSNNNeuronDescriptor, x: np.ndarray, *, gradient: bool) -> np.ndarray:
    """The row's kernel on all elements at once, and a cast."""
    w = Workspace(x.size)
    slopes = None if d.data is None else np.broadcast_to(d.data.astype(np.float64), x.shape).reshape(-1)
    block = w.block(x.size, slopes)
    np.copyto(block, x.reshape(-1))
    y = (row.derivative if gradient else row.forward)(block, d, w)
    if gradient:
        y = y * x.reshape(-1)
    return y.astype(x.dtype).reshape(x.shape)


def times(candidates: list[Callable[[], object]], rounds: int) -> list[float]:
    """Median seconds of each candidate, taking turns, after one turn that does not count."""
    measured: list[list[float]] = [[] for _ in candidates]
    for turn in range(rounds + 1):
        for candidate, seconds in zip(candidates, measured, strict=True):
            start = time.perf_counter()
            candidate()
            if turn:
                seconds.append(time.perf_counter() - start)
    return [statistics.median(seconds) for seconds in measured]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--elements", type=int, default=1_605_632, help="a multiple of 64 (default 1605632)")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    random = np.random.default_rng(0)
    values = random.normal(0, 2, (options.elements // 64, 64))
    results: dict[str, dict[str, list[float]]] = {}
    print("| neuron | dtype | forward / plain | forward / copy | gradient / plain | gradient / copy |")
    print("|---|---|---:|---:|---:|---:|")
    with np.errstate(all="ignore"):
        for neuron_type, row in mps.NEURONS.items():
            d = mps.MPSNNNeuronDescriptor(neuron_type, data=np.linspace(0, 1, 64) if row.per_channel else None)
            for dtype in (np.float32, np.float16):
                x = values.astype(dtype)
                out = np.empty_like(x)
                measured = times(
                    [
                        lambda x=x, d=d: mps.neuron.forward(d, x),
                        lambda x=x, d=d, row=row: plain(row, d, x, gradient=False),
                        lambda x=x, d=d: mps.neuron.gradient(d, x, x),
                        lambda x=x, d=d, row=row: plain(row, d, x, gradient=True),
                        lambda x=x, out=out: np.copyto(out, x),
                    ],
                    options.rounds,
                )
                forward, plain_forward, gradient, plain_gradient, copy = measured
                ratios = (forward / plain_forward, forward / copy, gradient / plain_gradient, gradient / copy)
                name = np.dtype(dtype).name
                print(f"| {neuron_type.name} | {name} | {' | '.join(f'{ratio:.2f}' for ratio in ratios)} |", flush=True)
                results.setdefault(neuron_type.name, {})[name] = [seconds / x.size * 1e9 for seconds in measured]
    if options.json is not None:
        about = {"numpy": np.__version__, "machine": platform.processor() or platform.machine()}
        columns = ["forward", "plain forward", "gradient", "plain gradient", "copy"]
        options.json.write_text(json.dumps({"about": about, "columns": columns, "nanoseconds": results}, indent=1))


if __name__ == "__main__":
    main()
