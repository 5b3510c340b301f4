"""
The measuring process: started by run.py, with the number of threads in its environment; writes JSON to stdout.

Candidates of a row take turns in this process on the same arrays; what counts is the median of the rounds.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import platform
import re
import signal
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import peers
import scipy
import windows

import mpsref as mps

SMALL = (1, 8, 8, 16)
CHAIN = (
    (mps.MPSCNNNeuronTanHNode, {"a": 1, "b": 1}),
    (mps.MPSCNNNeuronLinearNode, {"a": 1.5, "b": -0.25}),
    (mps.MPSCNNNeuronSigmoidNode, {}),
    (mps.MPSCNNNeuronReLUNode, {"a": 0.1}),
)
CALLS_LAST = 0.002
"""Seconds: what is faster is called several times in a row, and the time divided."""


class Session:
    """What all sections share."""

    def __init__(self, shape: tuple[int, ...], rounds: int) -> None:
        self.shape, self.rounds = shape, rounds
        self.modules: dict[str, Any] = {}

    def times(self, candidates: dict[str, Callable[[], object]]) -> dict[str, float]:
        """Median seconds of each, taking turns; the turns that warm up do not count."""
        repeats = {}
        for name, call in candidates.items():
            call()
            start = time.perf_counter()
            call()
            repeats[name] = max(1, int(CALLS_LAST / max(time.perf_counter() - start, 1e-7)))
        measured: dict[str, list[float]] = {name: [] for name in candidates}
        for _ in range(self.rounds):
            for name, call in candidates.items():
                start = time.perf_counter()
                for _ in range(repeats[name]):
                    call()
                measured[name].append((time.perf_counter() - start) / repeats[name])
        return {name: float(f"{statistics.median(seconds):.4g}") for name, seconds in measured.items()}

    def float32(self) -> dict[str, Any]:
        return self._neurons(np.float32, self.shape)

    def float16(self) -> dict[str, Any]:
        return self._neurons(np.float16, self.shape)

    def small(self) -> dict[str, Any]:
        return {
            np.dtype(dtype).name: self._neurons(dtype, SMALL, gradient=False)["forward"]
            for dtype in (np.float32, np.float16)
        }

    def _neurons(self, dtype: type, shape: tuple[int, ...], *, gradient: bool = True) -> dict[str, Any]:
        """Everyone's forward, and gradient, of all neurons; and what the first call costs before that."""
        found: dict[str, dict[str, Any]] = {"forward": {}, "gradient": {}, "first call": {}}
        _fill_the_heap(8 * int(np.prod(shape)))
        for i, neuron_type in enumerate(mps.NEURONS):
            name = neuron_type.name
            progress(f"{np.dtype(dtype).name}, {np.prod(shape)} elements: {name}, {i + 1} of {len(mps.NEURONS)}")
            x, g = peers.data(name, shape, dtype)
            first = x[:1, :1, :1].copy()
            start = time.perf_counter()
            mps.neuron.forward(peers.descriptor(name, shape[-1]), first)
            found["first call"][name] = float(f"{time.perf_counter() - start:.4g}")
            found["forward"][name] = self.times(peers.forwards(name, x, self.modules))
            if gradient:
                found["gradient"][name] = self.times(peers.gradients(name, x, g, self.modules))
        return found

    def windows(self) -> dict[str, Any]:
        """Convolution and pooling, by kind of number, work and shape."""
        found: dict[str, Any] = {}
        for dtype in (np.float32, np.float16):
            works = found.setdefault(np.dtype(dtype).name, {})
            for shape, calls in windows.works(dtype, self.modules):
                progress(f"{np.dtype(dtype).name}, {shape}")
                for work, candidates in calls.items():
                    works.setdefault(work, {})[shape] = self.times(candidates)
        return found

    def workers(self) -> dict[str, Any]:
        """One against two workers, not pinned."""
        if "workers" not in inspect.signature(mps.neuron.forward).parameters:
            return {"missing": "mpsref.neuron.forward takes no workers"}
        if len(_cores()) < 2:
            return {"missing": "there is one core only"}
        found = {}
        _fill_the_heap(8 * int(np.prod(self.shape)))
        for neuron_type in mps.NEURONS:
            name = neuron_type.name
            progress(f"workers: {name}")
            x, _ = peers.data(name, self.shape, np.float32)
            d = peers.descriptor(name, self.shape[-1])
            found[name] = self.times(
                {str(n): lambda n=n, d=d, x=x: mps.neuron.forward(d, x, workers=n) for n in (1, 2)}
            )
        return {"forward": found}

    def chain(self) -> dict[str, Any]:
        """A chain of 1,000 nodes against as many plain calls, one reading what the other made."""
        found = {}
        for stored in (mps.MPSImageFeatureChannelFormat.float32, mps.MPSImageFeatureChannelFormat.float16):
            progress(f"chain of 1,000 nodes, {stored.name}")
            graph, descriptors = _chain(1000, stored)
            x, _ = peers.data("none", SMALL, np.dtype(stored.name).type)
            image = mps.MPSImage.from_array(x, stored)

            def plain(x: np.ndarray = x, descriptors: Sequence[Any] = descriptors) -> np.ndarray:
                for d in descriptors:
                    x = mps.neuron.forward(d, x)
                return x

            def run(graph: mps.MPSNNGraph = graph, image: mps.MPSImage = image) -> Any:
                return graph.encode(source_images=[image])

            assert np.array_equal(run().to_array(), plain())
            found[stored.name] = self.times({"graph": run, "calls": plain})
        return found

    def memory(self) -> dict[str, Any]:
        """
        What a graph run takes beyond its source and the two images that are live while a node of a chain runs.

        As tracemalloc has it, which sees every array and object. No earlier run in this process has filled a buffer.
        """
        run, live = self._big_chain()
        tracemalloc.start()
        run()
        return {"live": live, "peak": tracemalloc.get_traced_memory()[1]}

    def resident(self) -> dict[str, Any]:
        """The same as the system has it: by how much the resident set's peak is above what was there before."""
        status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")

        def kilobytes(key: str) -> int:
            return int(re.search(rf"^{key}:\s*(\d+) kB$", status.read_text(), re.MULTILINE)[1])

        run, live = self._big_chain()
        try:
            reset.write_text("5")
            before = kilobytes("VmRSS")
        except (OSError, TypeError):
            return {"missing": "this system does not tell the peak of the resident set from some moment on"}
        run()
        return {"live": live, "peak": (kilobytes("VmHWM") - before) * 1024}

    def _big_chain(self) -> tuple[Callable[[], object], int]:
        stored = mps.MPSImageFeatureChannelFormat.float32
        graph, _ = _chain(8, stored)
        image = mps.MPSImage.from_array(peers.data("none", self.shape, np.float32)[0], stored)
        return lambda: graph.encode(source_images=[image]), 2 * image.texture.nbytes


def _fill_the_heap(size: int) -> None:
    """Free some touched arrays of so many bytes, so that the first candidates find memory like all others."""
    arrays = [np.ones(size, np.uint8) for _ in range(8)]
    del arrays


def _chain(length: int, format: mps.MPSImageFeatureChannelFormat) -> tuple[mps.MPSNNGraph, list[Any]]:
    node, descriptors = mps.MPSNNImageNode(handle="x"), []
    for i in range(length):
        kind, parameters = CHAIN[i % len(CHAIN)]
        neuron = kind(source=node, **parameters)
        descriptors.append(neuron.descriptor)
        node = neuron.result_image
    return mps.MPSNNGraph(result_image=node, format=format), descriptors


def progress(text: str) -> None:
    """One line that is written over, on a terminal only."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def about(missing: dict[str, str], modules: dict[str, Any]) -> dict[str, Any]:
    """The machine, and who takes part."""
    found = np.show_config(mode="dicts")["SIMD Extensions"]["found"]
    versions = {name: module.__version__ for name, module in modules.items()}
    return {
        "processor": _processor(),
        "cores": len(_cores()),
        "system": f"{platform.system()} {platform.machine()}",
        "simd": found,
        "avx512": any(feature.startswith(("AVX512", "X86_V4")) for feature in found),
        "versions": {
            "python": platform.python_version(),
            "mpsref": mps.__version__,
            "numpy": np.__version__,
            "scipy": scipy.__version__,
            **versions,
        },
        "missing": missing,
        "candidates": {neuron_type.name: peers.shown(neuron_type.name) for neuron_type in mps.NEURONS},
    }


def _processor() -> str:
    try:
        found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()


def _cores() -> list[int]:
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def main() -> None:
    """Measure the sections that the argument names."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    options = json.loads(sys.argv[1])
    session = Session(tuple(options["shape"]), options["rounds"])
    results: dict[str, Any] = {}
    if options["peers"]:
        session.modules, missing = peers.load()
        results["about"] = about(missing, session.modules)
    if options["pinned"] and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, _cores()[-1:])
    with contextlib.ExitStack() as stack:
        stack.enter_context(np.errstate(all="ignore"))
        if "torch" in session.modules:
            stack.enter_context(session.modules["torch"].inference_mode())
        for section in options["sections"]:
            results[section] = getattr(session, section)()
    progress("")
    print(json.dumps(results))


if __name__ == "__main__":
    main()
