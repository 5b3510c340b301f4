"""``mpsref inputs``."""

from __future__ import annotations

import argparse
from pathlib import Path

from mpsref.cli.arguments import FORMATS, integer, shape
from mpsref.cli.status import PASSED
from mpsref.display import printable
from mpsref.enums import MPSImageFeatureChannelFormat
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
    parser.add_argument("--channel-format", choices=FORMATS, help="format of sources that have none in the graph "
                        "(default: the graph's storage)")  # fmt: skip
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="folder to write into")
    parser.add_argument("--seed", metavar="N", type=integer, default=1, help="selects other images (default 1)")


def run(options: argparse.Namespace) -> int:
    file = GraphFile.read(options.graph)
    name = options.channel_format or file.storage.name
    path = request(options.out, file, options.shape, MPSImageFeatureChannelFormat[name], seed=options.seed)
    recording = Recording.read(path, complete=False)
    print(
        f"wrote {len(recording.images)} sources, README.txt and {printable(str(path))}; "
        f"a device is to write {len(recording.missing)} images"
    )
    return PASSED
