"""``mpsref run``."""

from __future__ import annotations

import argparse
from pathlib import Path

import mpsref
from mpsref.cli.progress import Progress
from mpsref.cli.sources import add_raw, add_sources, is_recording, read_image, source_files
from mpsref.cli.status import PASSED
from mpsref.display import printable
from mpsref.errors import naming
from mpsref.executor import MPSNNGraph
from mpsref.graph import GraphFile
from mpsref.graph.schedule import inputs
from mpsref.image import MPSImage
from mpsref.record import Recording, write_recording
from mpsref.record.states import STATE_ARRAYS
from mpsref.states import MPSCNNConvolutionGradientState

__all__ = ["define", "run"]


def define(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Evaluate a graph file and write sources and results into a folder, as a recording. Given a recording file, "
        "evaluate its graph on its sources."
    )
    parser.add_argument("graph", metavar="GRAPH", type=Path,
                        help="graph file, or a recording file, such as one that inputs wrote")  # fmt: skip
    add_sources(parser)
    add_raw(parser)
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="folder to write into")
    parser.add_argument("--all", action="store_true", help="write the intermediate images too")
    parser.add_argument("--raw", action="store_true", help="write raw elements instead of .npy")


def run(options: argparse.Namespace) -> int:
    recording = Recording.read(options.graph, complete=False) if is_recording(options.graph) else None
    file = GraphFile.read(options.graph) if recording is None else recording.graph
    wanted = list(file.images.values()) if options.all else file.result_images
    names = {image: name for name, image in file.images.items()}
    needed = [names[node] for node in inputs(wanted)]
    recorded = {} if recording is None else {name: image for name, image in recording.images.items() if name in needed}
    files = source_files(options, needed, recorded)
    sources = [read_image(files[name], options) if name in files else recorded[name].read() for name in needed]
    graph = MPSNNGraph(result_images=wanted, format=file.storage)
    rest: list[MPSImage] = []
    states: list[MPSCNNConvolutionGradientState] = []
    with naming(options.graph), Progress() as progress:
        first = graph.encode(
            source_images=sources, intermediate_images=rest, destination_states=states, progress=progress
        )
    assert first is not None
    results = dict(zip((names[image] for image in wanted), [first, *rest], strict=False))
    images = dict(zip(needed, sources, strict=True)) | results
    gradients = {state.name: {kind: getattr(state, kind) for kind in STATE_ARRAYS} for state in states}
    device = f"mpsref {mpsref.__version__}"
    path = write_recording(options.out, file, images, device, raw=options.raw, states=gradients)
    print(printable(f"wrote {len(images)} images and {path}"))
    return PASSED
