"""``mpsref explain``."""

from __future__ import annotations

import argparse
from pathlib import Path

from mpsref.cli.arguments import element
from mpsref.cli.outputs import output_file, tell
from mpsref.cli.sources import add_raw, add_sources, is_recording, read_image, source_files
from mpsref.cli.status import PASSED
from mpsref.display import printable
from mpsref.errors import naming
from mpsref.files import check_outputs, write_atomically
from mpsref.graph import GraphFile
from mpsref.graph.schedule import inputs
from mpsref.record import Recording
from mpsref.teach.explain import explanation
from mpsref.verify import verify

__all__ = ["define", "run"]


def define(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Make a page for a browser that steps through a graph file forward and backward, for one element "
        "of its images: values, slopes, products, rounding, and inputs to change. Given a recording file, its graph "
        "on its sources, and unless an image or an element is named, the worst of the first image that is wrong."
    )
    parser.add_argument("graph", metavar="GRAPH", type=Path, help="graph file, or a recording file")
    parser.add_argument("--html", metavar="FILE", type=output_file, required=True, help="the page to write")
    add_sources(parser, " (default: 0.5 everywhere, or 1 for an incoming gradient)")
    parser.add_argument("--at", metavar="[N,]Y,X,C", type=element,
                        help="the element: image, y, x and channel (default 0,0,0)")  # fmt: skip
    parser.add_argument("--of", metavar="NAME",
                        help="the image whose element it is; in the others it is followed through the graph (default: "
                        "the first source; of a recording the first image that is wrong)")  # fmt: skip
    add_raw(parser)


def run(options: argparse.Namespace) -> int:
    recording = Recording.read(options.graph, complete=False) if is_recording(options.graph) else None
    file = GraphFile.read(options.graph) if recording is None else recording.graph
    names = {image: name for name, image in file.images.items()}
    needed = [names[node] for node in inputs(file.result_images)]
    files = source_files(options, needed)
    check_outputs({"--html": options.html}, [options.graph, *files.values()])
    sources = {name: read_image(path, options) for name, path in files.items()}
    of, at = options.of, options.at
    if recording is not None:
        recorded = {name: image.read() for name, image in recording.images.items() if name in needed}
        if of is None:
            of, worst = _wrong(recording)
            at = worst if at is None else at
        sources = recorded | sources
    with naming(options.graph):
        page = explanation(file, sources, at or (0, 0, 0, 0), options.graph.name, of)
    data = page.encode()
    write_atomically(options.html, lambda out: out.write(data))
    tell(f"wrote {printable(str(options.html))}, {len(data):,} bytes: open it in a browser", options.html)
    return PASSED


def _wrong(recording: Recording) -> tuple[str | None, tuple[int, int, int, int] | None]:
    """The first image that is wrong by itself, and its worst element; None where none is."""
    if not {*recording.images} - {name for name, image in recording.graph.images.items() if image.producer is None}:
        return None, None
    for image in verify(recording, faults=False, partial=True).images:
        if not image.passed and image.worst and image.name in recording.images:
            worst = image.worst[0]
            return image.name, (worst.image, worst.y, worst.x, worst.channel)
    return None, None
