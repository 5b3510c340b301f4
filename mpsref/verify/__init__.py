"""
Verification: is what a device wrote what the graph should give?

Examples
--------
>>> import numpy as np, tempfile
>>> import mpsref as mps
>>> from mpsref.verify import verify, write_recording
>>> x = mps.MPSNNImageNode(handle="x")
>>> n = mps.MPSCNNNeuronAbsoluteNode(source=x)
>>> file = mps.GraphFile.from_results([n.result_image])
>>> wrote = {"x": np.float16([[[-1, 2]]]), "image0": np.float16([[[1, 3]]])}
>>> images = {name: mps.MPSImage.from_array(array) for name, array in wrote.items()}
>>> with tempfile.TemporaryDirectory() as folder:
...     report = verify(write_recording(folder, file, images, device="none, made by hand"))
>>> print(report.verdict)
FAIL: 1 of 2 elements are beyond the bounds, in 1 of 1 images, first in image0
>>> print(report.images[0].worst[0])
(image 0, y 0, x 0, channel 1; slice 0 lane 1) x = 2.0: got 3.0, want 2.0, 512 ULP
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mpsref.errors import FileFormatError, MPSRefError
from mpsref.executor import MPSNNGraph, Progress
from mpsref.graph.nodes import MPSNNFilterNode, MPSNNImageNode
from mpsref.graph.schedule import inputs, schedule
from mpsref.image import MPSImage, texel_of
from mpsref.storage import storage_format
from mpsref.verify.compare import UNREACHABLE, Counts, Tolerance, compare, ulp_distance
from mpsref.verify.recording import RecordedImage, Recording, read_npy, write_recording
from mpsref.verify.report import Element, ImageReport, Report

__all__ = [
    "UNREACHABLE",
    "Counts",
    "Element",
    "ImageReport",
    "RecordedImage",
    "Recording",
    "Report",
    "Tolerance",
    "compare",
    "read_npy",
    "ulp_distance",
    "verify",
    "write_recording",
]


def verify(
    recording: Recording | str | Path,
    tolerance: Tolerance | None = None,
    *,
    worst: int = 5,
    progress: Progress | None = None,
) -> Report:
    """
    Evaluate a recording's graph on its sources and compare every image that it holds.

    Parameters
    ----------
    recording : Recording or path
        What the device left behind.
    tolerance : Tolerance, optional
        What passes. Default: 4 ULP of the storage format.
    worst : int
        How many of the farthest elements to report for each image.
    progress : callable, optional
        Called after each node with the number of nodes done and of all.

    Returns
    -------
    Report
        Call its `check` to raise an error if it has not passed.

    Raises
    ------
    FileFormatError
        The recording cannot be read, lacks a source, holds nothing to compare, or an image of another size or format
        than the graph makes.
    """
    recording = recording if isinstance(recording, Recording) else Recording.read(recording)
    tolerance = Tolerance() if tolerance is None else tolerance
    names = {image: name for name, image in recording.graph.images.items()}
    recorded = {recording.graph.images[name]: entry for name, entry in recording.images.items()}
    nodes = [node for node in schedule(recorded) if node.result_image in recorded]
    if not nodes:
        raise FileFormatError(f"{recording.path}: images: only sources: name what the device wrote as well")
    # What a reported node read is reported as well.
    wanted = dict.fromkeys(image for node in nodes for image in (*node.sources, node.result_image))
    values = _evaluate(recording, names, recorded, list(wanted), progress)
    reports = []
    for node in nodes:
        name, entry = names[node.result_image], recorded[node.result_image]
        want = values[node.result_image]
        for fact in ("channel_format", "width", "height", "feature_channels", "number_of_images"):
            expected, actual = getattr(want.descriptor, fact), getattr(entry.descriptor, fact)
            if expected != actual:
                raise FileFormatError(
                    f"{recording.path}: images.{name}.{fact}: is {getattr(actual, 'name', actual)}, but the graph "
                    f"makes {getattr(expected, 'name', expected)}: mend the recording, or the graph's storage"
                )
        sources = {names[image]: values[image] for image in node.sources}
        reports.append(_report(name, node, entry.read(), want, sources, tolerance, worst))
    return Report(str(recording.path), recording.device, tolerance, tuple(reports))


def _evaluate(
    recording: Recording,
    names: dict[MPSNNImageNode, str],
    recorded: dict[MPSNNImageNode, RecordedImage],
    wanted: list[MPSNNImageNode],
    progress: Progress | None,
) -> dict[MPSNNImageNode, MPSImage]:
    sources = inputs(wanted)
    for image in sources:
        if image not in recorded:
            raise FileFormatError(f"{recording.path}: images.{names[image]}: missing: the graph reads it as a source")
    given = [recorded[image].read() for image in sources]
    graph = MPSNNGraph(result_images=wanted, format=recording.graph.storage)
    rest: list[MPSImage] = []
    try:
        first = graph.encode(source_images=given, intermediate_images=rest, progress=progress)
    except MPSRefError as error:
        raise FileFormatError(f"{recording.path}: {error}") from None
    assert first is not None
    return dict(zip(wanted, [first, *rest], strict=False))


def _report(
    name: str,
    node: MPSNNFilterNode,
    got: MPSImage,
    want: MPSImage,
    sources: dict[str, MPSImage],
    tolerance: Tolerance,
    worst: int,
) -> ImageReport:
    storage = storage_format(want.feature_channel_format)
    actual, expected = got.to_array(), want.to_array()
    counts, farthest, distances, passes = compare(actual, expected, storage, tolerance, worst)
    arrays = {source: image.to_array() for source, image in sources.items()} if farthest.size else {}
    elements = []
    for flat, distance, passed in zip(farthest.tolist(), distances.tolist(), passes.tolist(), strict=True):
        place = tuple(int(i) for i in np.unravel_index(flat, actual.shape))
        image, y, x, channel = place
        texel, lane = texel_of(channel, image, want.feature_channels)
        values = {source: str(array[place]) for source, array in arrays.items()}
        ulp = None if distance == UNREACHABLE else distance
        elements.append(
            Element(
                image, y, x, channel, texel, lane, values, str(actual[place]), str(expected[place]), ulp, not passed
            )
        )
    return ImageReport(name, type(node).__name__, storage.name, counts, tuple(elements))
