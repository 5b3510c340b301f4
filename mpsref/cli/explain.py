"""``mpsref explain``."""

from __future__ import annotations

import argparse
from pathlib import Path

from mpsref.cli.arguments import element
from mpsref.cli.outputs import output_file, tell
from mpsref.cli.sources import add_raw, add_sources, read_image, source_files
from mpsref.cli.status import PASSED
from mpsref.display import printable
from mpsref.errors import naming
from mpsref.files import check_outputs, write_atomically
from mpsref.graph import GraphFile
from mpsref.graph.schedule import inputs
from mpsref.teach.explain import explanation

__all__ = ["define", "run"]


def define(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Make a page for a browser that steps through a graph file forward and backward, for one element "
        "of its images: values, slopes, products, rounding, and inputs to change."
    )
    parser.add_argument("graph", metavar="GRAPH", type=Path, help="graph file")
    parser.add_argument("--html", metavar="FILE", type=output_file, required=True, help="the page to write")
    add_sources(parser, " (default: 0.5 everywhere, or 1 for an incoming gradient)")
    parser.add_argument("--at", metavar="[N,]Y,X,C", type=element, default=(0, 0, 0, 0),
                        help="the element: image, y, x and channel (default 0,0,0)")  # fmt: skip
    add_raw(parser)


def run(options: argparse.Namespace) -> int:
    file = GraphFile.read(options.graph)
    names = {image: name for name, image in file.images.items()}
    files = source_files(options, [names[node] for node in inputs(file.result_images)])
    check_outputs({"--html": options.html}, [options.graph, *files.values()])
    sources = {name: read_image(path, options) for name, path in files.items()}
    with naming(options.graph):
        page = explanation(file, sources, options.at, options.graph.name)
    data = page.encode()
    write_atomically(options.html, lambda out: out.write(data))
    tell(f"wrote {printable(str(options.html))}, {len(data):,} bytes: open it in a browser", options.html)
    return PASSED
