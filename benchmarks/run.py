"""
What mpsref costs beside its peers, and which goals it reaches: ``python benchmarks/run.py``.

Peers are torch, onnx.reference, onnxruntime (``python -m pip install --group bench``; any that is missing is named and
left out), numpy one-liners and a copy of the array. The markdown goes to stdout. For the page of results::

    python benchmarks/run.py --json docs/speed.json && python docs/generate.py
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import page

SECTIONS = {
    "float32": "forward and gradient of a large float32 array",
    "float16": "the same in float16",
    "small": "forward of 1,024 elements",
    "windows": "convolution, pooling and their gradients",
    "chain": "a graph of 1,000 nodes on a small image",
    "workers": "forward with two workers",
    "memory": "the peak memory of a graph run",
}
# Every process measures some sections, for time, pinned to a core or not, or for memory. Only the first needs peers.
PROCESSES = [
    (["float32", "float16", "small", "windows", "chain"], True),
    (["workers"], False),
    (["memory"], True),
    (["resident"], True),
]
MEMORY = ["memory", "resident"]
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1") | {
    "OMP_WAIT_POLICY": "PASSIVE"
}
# glibc gives large arrays back to the system or not, by what was freed before, and the next call pays for fresh pages
# or does not: several times the work of a fast operation. While times are taken everyone's memory stays.
MEMORY_STAYS = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**40)}


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="sections:\n" + "\n".join(f"  {name:8} {text}" for name, text in SECTIONS.items()),
    )
    parser.add_argument("--only", nargs="+", choices=SECTIONS, metavar="SECTION", help="measure these sections")
    parser.add_argument("--shape", nargs=4, type=_positive, default=[8, 112, 112, 64], metavar=("N", "H", "W", "C"))
    parser.add_argument("--rounds", type=_positive, default=7, help="results are the median of these (default 7)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was measured")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write what is printed")
    options = parser.parse_args()
    try:
        results = measure(options.only or list(SECTIONS), options.shape, options.rounds)
    except KeyboardInterrupt:
        print("\ninterrupted: nothing written", file=sys.stderr)
        return 130
    except subprocess.CalledProcessError as error:
        print(f"measuring stopped with status {error.returncode}: nothing written", file=sys.stderr)
        return 1
    text = page.page(results)
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if options.markdown is not None:
        options.markdown.write_text(text, encoding="utf-8")
    print(text, end="")
    return 0


def measure(sections: list[str], shape: list[int], rounds: int) -> dict[str, Any]:
    """All results, from processes of their own."""
    wanted = {*sections, *(["resident"] if "memory" in sections else [])}
    results: dict[str, Any] = {}
    for i, (group, pinned) in enumerate(PROCESSES):
        here = [section for section in group if section in wanted]
        # The first process runs in any case: it says what the machine is.
        if here or not i:
            options = {"sections": here, "shape": shape, "rounds": rounds, "pinned": pinned, "peers": not i}
            results |= _child(options)
    results["about"] |= {"shape": shape, "rounds": rounds}
    return results


def _child(options: dict[str, Any]) -> dict[str, Any]:
    command = [sys.executable, str(Path(__file__).with_name("measure.py")), json.dumps(options)]
    # What is measured is the mpsref beside this file, whichever is installed.
    path = [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | ONE_THREAD | {"PYTHONPATH": os.pathsep.join(path)}
    if not set(options["sections"]) & set(MEMORY):
        environment |= MEMORY_STAYS
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as child:  # noqa: S603
        try:
            written, _ = child.communicate()
        except KeyboardInterrupt:
            child.kill()
            raise
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, command)
    found: dict[str, Any] = json.loads(written.splitlines()[-1])
    return found


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text}: give a number above 0")
    return value


if __name__ == "__main__":
    sys.exit(main())
