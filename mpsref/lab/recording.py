"""Recordings made here: sources, every node of the graph on a device, and the files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mpsref.enums import MPSImageFeatureChannelFormat
from mpsref.errors import FileFormatError, MPSRefError, naming
from mpsref.graph import GraphFile
from mpsref.graph.schedule import schedule
from mpsref.image import MPSImage, MPSImageDescriptor
from mpsref.lab.apple import Metal
from mpsref.lab.foreign import ForeignKernel
from mpsref.operations import Operation
from mpsref.record.recording import write_recording
from mpsref.record.request import planned

__all__ = ["Backend", "Recorded", "record"]


class Backend(Protocol):
    """What runs our own kernels, a node at a time."""

    @property
    def device(self) -> str:
        """What a recording calls it."""

    def run(self, operation: Operation, sources: Sequence[MPSImage], result: MPSImageDescriptor) -> MPSImage:
        """The result of an operation."""


@dataclass(frozen=True)
class Recorded:
    """
    A recording that was made.

    Attributes
    ----------
    path : Path
        Of ``recording.json``.
    images : int
        How many images the device has computed.
    notes : tuple of str
        What was seen meanwhile.
    own : tuple of str
        The images that kernels of ours have computed.
    """

    path: Path
    images: int
    notes: tuple[str, ...]
    own: tuple[str, ...]


def record(
    file: GraphFile,
    shape: tuple[int, int, int, int],
    channel_format: MPSImageFeatureChannelFormat,
    backend: Backend | Metal,
    out: Path,
    *,
    seed: int = 1,
    kernel: ForeignKernel | None = None,
    node: str | None = None,
) -> Recorded:
    """
    Run every node of a graph and write all images as a recording.

    Parameters
    ----------
    file : GraphFile
        The graph.
    shape : tuple of int
        Images, height, width and feature channels of the sources.
    channel_format : MPSImageFeatureChannelFormat
        Format of the sources whose nodes have none.
    backend : Backend or Metal
        What runs our own kernels, or MPS, which runs the whole graph; a node that `kernel` computes once more.
    out : Path
        A folder, new or empty.
    seed : int
        Selects other sources.
    kernel : ForeignKernel, optional
        Computes one of the nodes.
    node : str, optional
        The name of that node's result, or its label.

    Raises
    ------
    FileFormatError
        There is no such node; the shape does not fit; the folder is not empty.
    ImplementationError
        A kernel cannot be run.
    """
    sources, awaited = planned(file, shape, channel_format, seed=seed)
    names = {image: name for name, image in file.images.items()}
    nodes = list(schedule(file.result_images))
    chosen = None if kernel is None else _chosen(node, [(names[one.result_image], one.label) for one in nodes])
    images: dict[str, MPSImage] = dict(sources)
    if isinstance(backend, Metal):
        images |= backend.graph(file, images, awaited)
    for one in nodes:
        name, read = names[one.result_image], [images[names[source]] for source in one.sources]
        if kernel is not None and name == chosen:
            images[name] = kernel.run(one.operation, read, awaited[name], images)
            if isinstance(backend, Metal):
                images |= backend.graph(file, {**sources, name: images[name]}, awaited, replaced={name})
        elif not isinstance(backend, Metal):
            with naming(f"node {name}", MPSRefError):
                images[name] = backend.run(one.operation, read, awaited[name])
    device = backend.device if kernel is None else f"{backend.device}; {chosen} by {kernel.name}"
    path = write_recording(out, file, images, device, raw=True)
    made = [] if isinstance(backend, Metal) else [names[one.result_image] for one in nodes]
    own = tuple(name for name in made if name != chosen)
    return Recorded(path, len(nodes), () if kernel is None else tuple(kernel.notes), own)


def _chosen(node: str | None, known: Sequence[tuple[str, str | None]]) -> str:
    if node is None and len(known) == 1:
        return known[0][0]
    matching = [name for name, label in known if node in (name, label)]
    if len(matching) != 1:
        raise FileFormatError(f"--for {node}: name one node by its result: {', '.join(name for name, _ in known)}")
    return matching[0]
