"""``mpsref inputs``."""

from __future__ import annotations

import argparse
from pathlib import Path

from mpsref.cli.arguments import format_name, integer, shape
from mpsref.cli.status import PASSED
from mpsref.display import counted, printable
from mpsref.formats import ARRAYS
from mpsref.graph import GraphFile
from mpsref.record import Recording, request

__all__ = ["define", "run"]


def define(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Write source images that test a graph well, a recording file that lists the images that a device is to "
        "write, and a README.txt for the person who runs the graph there."
    )
    parser.add_argument("graph", metavar="GRAPH", type=Path, help="graph file")
    parser.add_argument("--shape", metavar="[Nx]HxWxC", type=shape, required=True, help="shape of every image")
    parser.add_argument("--channel-format", type=format_name, choices=ARRAYS,
                        help="format of sources that have none in the graph "
                        "(default: the graph's storage)")  # fmt: skip
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="folder to write into")
    parser.add_argument("--device", metavar="TEXT", help="what will write the other images (default: not run yet)")
    parser.add_argument("--force", action="store_true", help="into a folder that was written so before: what a device "
                        "wrote there stays")  # fmt: skip
    parser.add_argument("--seed", metavar="N", type=integer, default=1, help="selects other images (default 1)")


def run(options: argparse.Namespace) -> int:
    file = GraphFile.read(options.graph)
    name = options.channel_format or file.storage.name
    path = request(
        options.out,
        file,
        options.shape,
        name,
        seed=options.seed,
        device=options.device,
        force=options.force,
    )
    recording = Recording.read(path, complete=False)
    sources = sum(recording.graph.images[image].producer is None for image in recording.images)
    there = len(recording.images) - sources
    print(
        f"wrote {counted(sources, 'source')}, README.txt and {printable(str(path))}; "
        f"a device is to write {counted(len(recording.missing), 'image')}"
        + (f", and has written {there:,}" if there else "")
    )
    return PASSED
