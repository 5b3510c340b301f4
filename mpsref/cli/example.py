"""``mpsref example``."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable
from functools import partial
from importlib import resources
from pathlib import Path
from typing import IO, Any

from mpsref.cli.status import PASSED
from mpsref.display import printable
from mpsref.record.recording import write_files

__all__ = ["EXAMPLES", "define", "run"]

EXAMPLES = {
    "recording": [
        "mpsref verify {dir}/recording.json",
        "mpsref verify {dir}/recording.json --ulp 4 --worst 1",
    ],
    "graph": ["mpsref explain {dir}/graph.json --html {dir}/graph.html"],
    "kernel": ["cd {dir} && mpsref sweep --neuron softPlus --implementation kernel:softplus --format float16"],
}
"""The folders of ``mpsref/examples``, each with the commands that try it."""

DATA = ".txt"
"""Ends the names of programs in the package, which are no modules of it."""


def define(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Write something to try into a new folder, and say the next command: a recording of a real GPU to verify, a "
        "graph to explain, a kernel to sweep. Without a NAME, all of them."
    )
    parser.add_argument("example", metavar="NAME", nargs="?", choices=list(EXAMPLES), help=", ".join(EXAMPLES))
    parser.add_argument("folder", metavar="DIR", type=Path, help="folder to write into: new or empty")


def run(options: argparse.Namespace) -> int:
    chosen = [options.example] if options.example else list(EXAMPLES)
    files: dict[str, Callable[[IO[bytes]], Any]] = {}
    for name in chosen:
        for file in sorted(resources.files("mpsref").joinpath("examples", name).iterdir(), key=lambda file: file.name):
            files[file.name.removesuffix(DATA)] = partial(_write, file.read_bytes())
    write_files(options.folder, files)
    counted = "1 file" if len(files) == 1 else f"{len(files)} files"
    print(printable(f"wrote {counted} into {options.folder}; next:"))
    folder = shlex.quote(str(options.folder))
    for name in chosen:
        for command in EXAMPLES[name]:
            print(printable(f"  {command.format(dir=folder)}"))
    return PASSED


def _write(data: bytes, out: IO[bytes]) -> None:
    out.write(data)
