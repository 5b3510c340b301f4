"""A request for a recording: sources, and a list of the images that a device is to write."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mpsref
from mpsref.arguments import checked
from mpsref.display import aligned, counted
from mpsref.documents import schema, validate
from mpsref.errors import FileFormatError, naming
from mpsref.files import write_atomically
from mpsref.formats import format_among
from mpsref.graph import GraphFile
from mpsref.graph.nodes import MPSNNImageNode
from mpsref.graph.schedule import inputs
from mpsref.image import MPSImage, MPSImageDescriptor, descriptor_in
from mpsref.npy import little_endian
from mpsref.operations import Role
from mpsref.record.recording import Recording, recording_entries, recording_files, write_files
from mpsref.record.samples import sample_image
from mpsref.storage import ChannelFormat, FormatLike

__all__ = ["planned", "request"]

README = """\
A request for a recording, made by mpsref {version}.

Run the graph in graph.json on the device, with the source images that are here,
and write every other image of the table below into this folder. Beside mpsref,
in examples/metal, is a Swift program that does so on a Mac:

    swiftc -O record.swift -o record && ./record {folder}

It also writes the name of the device into recording.json; with a program of
your own, pass it to mpsref verify as --device. Then, on any machine:

    mpsref inspect {folder}/recording.json      what is there, what is missing
    mpsref verify {folder}/recording.json       all of it; with --partial, what is there

The files hold elements and nothing else:

- little-endian, without header or padding;
- {images}, one after the other; in each the rows from the top, in a row
  the pixels from the left, in a pixel the feature channels
  (MPSDataLayoutHeightxWidthxFeatureChannels, as readBytes gives them);
- float16 and float32 as IEEE 754 has them, unorm8 and unorm16 as codes.

Sources contain NaN, infinities and subnormals on purpose. Do not convert, scale
or transpose anything; store each image in the format of the table, which is
that of its node, or else that of the graph ({storage}).

{table}
"""


@checked
def request(
    folder: str | Path,
    graph: GraphFile,
    shape: tuple[int, int, int, int],
    channel_format: FormatLike,
    *,
    seed: int = 1,
    device: str | None = None,
    force: bool = False,
) -> Path:
    """
    Write sources that test a graph well, and a recording file that lists the images that a device is to write.

    Parameters
    ----------
    folder : path
        New or empty; with `force` also one that this function has written.
    graph : GraphFile
        The graph. All images that its results depend on are requested, intermediate ones too.
    shape : tuple of int
        Images, height, width and feature channels of every source; an incoming gradient has the size of its result.
    channel_format : MPSImageFeatureChannelFormat, str or dtype
        Format of the sources whose nodes have none.
    seed : int
        Selects other images; not negative.
    device : str, optional
        What will write the images. Default: that it has not run yet.
    force : bool
        Whether to write into the same folder again, to name the device or to ask for more images. What the device wrote
        stays, and the sources that it was computed from must not change.

    Returns
    -------
    Path
        Of ``recording.json``.

    Raises
    ------
    FileFormatError
        The folder is not empty, or, with `force`, holds something else or results of other sources; the shape does not
        fit the graph; the seed is negative.
    """
    sources, awaited = planned(graph, shape, channel_format, seed=seed)
    is_again = force and (Path(folder) / "recording.json").is_file()
    before = Recording.read(Path(folder) / "recording.json", complete=False) if is_again else None
    if device is None:
        device = before.device if before else f"not run yet; sources by mpsref {mpsref.__version__}, seed {seed}"
    entries = recording_entries(sources, awaited, raw=True)
    files = recording_files(Path(folder), graph, sources, device, entries)
    # The name of a folder need not be UTF-8, and is written as it is.
    readme = _readme(Path(folder), graph, shape[0], entries).encode("utf-8", "surrogateescape")
    files["README.txt"] = lambda out: out.write(readme)
    if before:
        _require_same_sources(Path(folder), sources, entries)
        _require_same_results(before, entries)
        # The recording last, as in a new folder.
        for name in sorted(files, key="recording.json".__eq__):
            write_atomically(Path(folder) / name, files[name])
    else:
        write_files(folder, files)
    return Path(folder) / "recording.json"


def planned(
    graph: GraphFile,
    shape: tuple[int, int, int, int],
    channel_format: FormatLike,
    *,
    seed: int = 1,
) -> tuple[dict[str, MPSImage], dict[str, MPSImageDescriptor]]:
    """The source images, and size and format of all others, by name; arguments and errors are those of `request`."""
    if seed < 0:
        raise FileFormatError(f"seed is {seed}: give 0 or more")
    needed = GraphFile.from_results(graph.result_images, graph.storage)
    if not needed.nodes:
        raise FileFormatError("the graph has only sources: give a graph with nodes")
    for size in shape:
        validate(size, schema("recording")["$defs"]["extent"], "shape")
    sizes = _descriptors(needed, shape, channel_format)
    names = {image: name for name, image in graph.images.items()}
    gradients = _gradients(needed)
    forward = [node.operation for node in needed.nodes if not node.operation.makes_gradient]
    neurons = [operation.descriptor for operation in forward if operation.descriptor is not None]
    sources = {
        names[image]: sample_image(size, neurons, (seed, _number(names[image])), is_gradient=image in gradients)
        for image, size in sizes.items()
        if image.producer is None
    }
    awaited = {names[image]: size for image, size in sizes.items() if image.producer is not None}
    return sources, awaited


def _require_same_results(before: Recording, entries: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse to write over a recording with results that the new one would not list."""
    for name, image in before.images.items():
        is_source = before.graph.images[name].producer is None
        if not is_source and (name not in entries or entries[name]["file"] != image.path.name):
            raise FileFormatError(
                f"{before.path}: lists {image.path.name}, which the new recording would not: choose another folder, "
                f"or delete {image.path.name}"
            )


def _require_same_sources(
    folder: Path, sources: Mapping[str, MPSImage], entries: Mapping[str, Mapping[str, Any]]
) -> None:
    """Refuse to change the sources of images that a device has written into the folder."""
    written = [
        entry["file"] for name, entry in entries.items() if name not in sources and (folder / entry["file"]).exists()
    ]
    for name, image in sources.items() if written else ():
        file = folder / entries[name]["file"]
        data = little_endian(image.to_array()).tobytes()
        # What is there may be of any size.
        same = file.is_file() and file.stat().st_size == len(data) and file.read_bytes() == data
        if not same:
            raise FileFormatError(
                f"{file}: would change, but a device has written {written[0]} from it: delete {written[0]}, or give "
                "the same --shape, --channel-format and --seed"
            )


def _number(name: str) -> int:
    return zlib.crc32(name.encode("utf-8", "surrogatepass"))


def _descriptors(
    needed: GraphFile, shape: tuple[int, int, int, int], channel_format: FormatLike
) -> dict[MPSNNImageNode, MPSImageDescriptor]:
    """Size and format of every image, sources first, by the rules of the graph."""
    default = format_among(channel_format, "channel_format").channel_format
    sizes: dict[MPSNNImageNode, tuple[int, int, int, int]] = {}
    descriptors = [node.operation.descriptor for node in needed.nodes]
    slopes = {len(d.data) for d in descriptors if d is not None and d.data is not None} - {shape[3]}
    fix = f", which takes {slopes.pop()} feature channels" if len(slopes) == 1 else ""
    for node in needed.nodes:
        for source, role in zip(node.sources, node.operation.roles, strict=True):
            if source not in sizes:
                # An incoming gradient has the size of what it is the gradient of.
                forward = node.forward_node if role is Role.GRADIENT else None
                sizes[source] = shape if forward is None else sizes.get(forward.result_image, shape)
        with naming(f"the shape does not fit the graph{fix}"):
            sizes[node.result_image] = node.operation.result_size(*(sizes[source] for source in node.sources))
    results = [node.result_image for node in needed.nodes]
    formats = {image: image.format or default for image in inputs(results)}
    formats |= {image: image.format or needed.storage for image in results}
    return {image: _descriptor(sizes[image], f) for image, f in formats.items()}


def _descriptor(shape: tuple[int, int, int, int], f: ChannelFormat) -> MPSImageDescriptor:
    n, h, w, c = shape
    return descriptor_in(f, width=w, height=h, feature_channels=c, number_of_images=n)


def _gradients(needed: GraphFile) -> set[MPSNNImageNode]:
    """The sources that nodes read as incoming gradients only."""
    reads = [
        (source, role) for node in needed.nodes for source, role in zip(node.sources, node.operation.roles, strict=True)
    ]
    incoming = {source for source, role in reads if role is Role.GRADIENT}
    return incoming - {source for source, role in reads if role is not Role.GRADIENT}


def _readme(folder: Path, graph: GraphFile, count: int, entries: Mapping[str, dict[str, Any]]) -> str:
    lines = [("image", "role", "file", "format", "height x width x channels")]
    for name, entry in entries.items():
        image = graph.images[name]
        role = "result" if name in graph.results else "source" if image.producer is None else "intermediate"
        size = " x ".join(str(entry[field]) for field in ("height", "width", "feature_channels"))
        role = role if image.producer is None else f"{role}, to be written"
        lines.append((json.dumps(name), role, entry["file"], entry["channel_format"], size))
    table = "\n".join(aligned(lines, left=5))
    return README.format(
        version=mpsref.__version__,
        folder=folder.absolute().name,
        images=counted(count, "image"),
        storage=graph.storage.name,
        table=table,
    )
