"""
What a verdict costs: ``python benchmarks/verdicts.py``.

Each neuron on 6.4 million elements, in one process on one core: the evaluation of its graph on images in memory, then
`verify` of a recording of that node from its files, in turns. What counts is the least of the rounds, which other
programs disturb least. The markdown goes to stdout: milliseconds of the evaluation, and how many times as long a
verdict takes where every element is exact, where one in a hundred is 1 ULP away, and where the formula was computed
step by step in float32 with fused sums, as a plain kernel does.

With ``--failing`` another table has the seconds of the processor for whole verdicts, causes included, of images that
fail: all elements off by noise, some rows never written, another input, NaN lost.
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
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

import mpsref as mps
from mpsref.record import write_recording
from mpsref.verify import verify


def main() -> int:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", nargs=4, type=int, default=[1, 200, 200, 160], metavar=("N", "H", "W", "C"))
    parser.add_argument("--rounds", type=int, default=9, metavar="N")
    parser.add_argument("--formats", nargs="+", default=["float32", "float16"], metavar="NAME")
    parser.add_argument("--failing", action="store_true", help="measure verdicts that fail instead")
    options = parser.parse_args()
    # Only Linux can pin a process.
    with contextlib.suppress(AttributeError):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-1:])
    for name in options.formats if options.failing else ():
        print(f"\n| {name} | {' | '.join(f'{kind}, {way}' for kind in FAULTS for way in ('forward', 'gradient'))} |")
        print("|---" + "|---" * 2 * len(FAULTS) + "|")
        for neuron_type in mps.NEURONS:
            seconds = [
                failing(neuron_type, name, tuple(options.shape), fault, is_gradient=g)
                for fault in FAULTS.values()
                for g in (False, True)
            ]
            print(f"| {neuron_type.name} | {' | '.join(f'{each:.1f}' for each in seconds)} |", flush=True)
    for name in () if options.failing else options.formats:
        print(f"\n| {name} | forward (ms) | exact | 1 ULP | stepwise | gradient (ms) | exact | 1 ULP | stepwise |")
        print("|---" * 9 + "|")
        worst = 0.0
        for neuron_type in mps.NEURONS:
            found = [measure(neuron_type, name, tuple(options.shape), options.rounds, is_gradient=g) for g in (0, 1)]
            worst = max(worst, *(ratio for _, *ratios in found for ratio in ratios))
            texts = [
                " | ".join([f"{1e3 * base:.1f}", *(f"{ratio:.2f}" for ratio in ratios)]) for base, *ratios in found
            ]
            print(f"| {neuron_type.name} | {' | '.join(texts)} |", flush=True)
        print(f"\nAt most {worst:.2f} times the evaluation.")
    return 0


def recorded(
    neuron_type: mps.MPSCNNNeuronType, name: str, shape: tuple[int, ...], mode: str = "ideal", *, is_gradient: bool
) -> tuple[mps.MPSNNGraph, mps.GraphFile, dict[str, mps.MPSImage]]:
    """The graph of a node, its file and sources."""
    rng = np.random.default_rng(0)
    x, dy = (mps.MPSNNImageNode(handle=handle) for handle in ("x", "dy"))
    slopes = rng.uniform(-1, 1, shape[-1]) if mps.NEURONS[neuron_type].per_channel else None
    node = mps.MPSCNNNeuronNode(source=x, descriptor=mps.MPSNNNeuronDescriptor(neuron_type, data=slopes))
    result = (node.gradient_filter(with_source=dy) if is_gradient else node).result_image
    result.handle = "result"
    storage = mps.MPSImageFeatureChannelFormat[name]
    sources = {
        label: mps.MPSImage.from_array(rng.standard_normal(shape, np.float32) * 3, storage)
        for label in (["dy", "x"] if is_gradient else ["x"])
    }
    graph = mps.MPSNNGraph(result_image=result, format=storage, mode=mode)
    return graph, mps.GraphFile.from_results([result], storage), sources


def measure(
    neuron_type: mps.MPSCNNNeuronType, name: str, shape: tuple[int, ...], rounds: int, *, is_gradient: bool
) -> tuple[float, ...]:
    """Seconds of an evaluation, and the three ratios."""
    graph, file, sources = recorded(neuron_type, name, shape, is_gradient=is_gradient)
    exact = graph.run(**sources)["result"].to_array()
    near, bits = exact.copy(), exact.view(f"u{exact.itemsize}")
    near.view(bits.dtype)[..., ::100] += (bits & 0x7F)[..., ::100] != 0
    plain, *_ = recorded(neuron_type, name, shape, "stepwise-fma", is_gradient=is_gradient)
    stepwise = plain.run(**sources)["result"].to_array()
    with tempfile.TemporaryDirectory() as folder:
        paths = [
            write_recording(Path(folder) / label, file, {**sources, "result": made}, "none", raw=True)
            for label, made in (("exact", exact), ("near", near), ("stepwise", stepwise))
        ]
        candidates: list[Callable[[], object]] = [lambda: graph.run(**sources)]
        candidates += [lambda path=path: verify(path).check() for path in paths]
        times = [[timed(call) for call in candidates] for _ in range(rounds + 1)][1:]
    base, *others = np.min(times, axis=0).tolist()
    return (base, *(other / base for other in others))


def _noise(run: Run, sources: Images) -> npt.NDArray[Any]:
    made = run(sources)
    bits = made.view(f"i{made.itemsize}")
    most = 40 if made.itemsize > 2 else 12
    # What is not near zero, so that no sign changes.
    bits += np.where((bits & 0x7FFF) > most, np.random.default_rng(1).integers(-most, most + 1, made.shape), 0).astype(
        bits.dtype
    )
    return made


def _unwritten(run: Run, sources: Images) -> npt.NDArray[Any]:
    made = run(sources)
    made[:, made.shape[1] // 4 : made.shape[1] // 2] = 0
    return made


def _another(run: Run, sources: Images) -> npt.NDArray[Any]:
    return run({**sources, "x": mps.MPSImage.from_array(np.abs(sources["x"].to_array()) * -0.7)})


def _nan_lost(run: Run, sources: Images) -> npt.NDArray[Any]:
    x = sources["x"].to_array()
    x.reshape(-1)[::10] = np.nan
    sources["x"] = mps.MPSImage.from_array(x)
    return np.nan_to_num(run(sources))


Images: TypeAlias = dict[str, mps.MPSImage]
Run: TypeAlias = Callable[[Images], npt.NDArray[Any]]
FAULTS: dict[str, Callable[[Run, Images], npt.NDArray[Any]]] = {
    "noise": _noise,
    "never written": _unwritten,
    "another input": _another,
    "NaN lost": _nan_lost,
}


def failing(
    neuron_type: mps.MPSCNNNeuronType,
    name: str,
    shape: tuple[int, ...],
    fault: Callable[[Run, Images], npt.NDArray[Any]],
    *,
    is_gradient: bool,
) -> float:
    """Seconds of the processor for a verdict with its causes, the lesser of two."""
    graph, file, sources = recorded(neuron_type, name, shape, is_gradient=is_gradient)
    made = fault(lambda images: graph.run(**images)["result"].to_array(), sources)
    with tempfile.TemporaryDirectory() as folder:
        path = write_recording(Path(folder) / "failing", file, {**sources, "result": made}, "none", raw=True)
        seconds = []
        for _ in range(2):
            start = time.process_time()
            verify(path)
            seconds.append(time.process_time() - start)
    return min(seconds)


def timed(call: Callable[[], object]) -> float:
    """Seconds."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(main())
