"""
Verification: did a device write what the graph should compute?

Examples
--------
>>> import numpy as np, tempfile
>>> import mpsref as mps
>>> from mpsref.verify import verify, write_recording
>>> x = mps.MPSNNImageNode(handle="x")
>>> n = mps.MPSCNNNeuronAbsoluteNode(source=x)
>>> file = mps.GraphFile.from_results([n.result_image])
>>> wrote = {"x": np.float16([[[-1, 2]]]), "absolute": np.float16([[[1, 3]]])}
>>> images = {name: mps.MPSImage.from_array(array) for name, array in wrote.items()}
>>> with tempfile.TemporaryDirectory() as folder:
...     report = verify(write_recording(folder, file, images, device="none, made by hand"))
>>> print(report.verdict)
FAIL: 1 of 2 elements is beyond the bounds, in 1 of 1 image, first in absolute (MPSCNNNeuronAbsoluteNode)
>>> print(report.images[0].worst[0])
(image 0, y 0, x 0, channel 1; slice 0 lane 1) x = 2.0: got 3.0, want 2.0, 512 ULP
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from mpsref.arguments import checked
from mpsref.plan import Progress
from mpsref.record.recording import RecordedImage, Recording, read_npy, write_recording
from mpsref.ulp import UNREACHABLE, ulp_distance
from mpsref.verify.aggregate import Aggregate
from mpsref.verify.compare import Comparison, Counts, Tolerance, compare
from mpsref.verify.faults import Finding
from mpsref.verify.reasons import Reason
from mpsref.verify.report import Element, EndToEnd, ImageReport, Report
from mpsref.verify.tolerance import Bounds, Limit, Override, Tolerances, tolerances_of
from mpsref.verify.verification import Verification

__all__ = [
    "UNREACHABLE",
    "Aggregate",
    "Bounds",
    "Comparison",
    "Counts",
    "Element",
    "EndToEnd",
    "Finding",
    "ImageReport",
    "Limit",
    "Override",
    "Reason",
    "RecordedImage",
    "Recording",
    "Report",
    "Tolerance",
    "Tolerances",
    "compare",
    "read_npy",
    "ulp_distance",
    "verify",
    "write_recording",
]


@checked
def verify(
    recording: Recording | str | Path,
    tolerance: Tolerances | Tolerance | Bounds | str | None = None,
    *,
    allow: str | Iterable[str] = (),
    strict: bool = False,
    worst: int = 5,
    faults: bool = True,
    partial: bool = False,
    device: str | None = None,
    progress: Progress | None = None,
    collect: Aggregate | None = None,
) -> Report:
    """
    Evaluate a recording's graph on its sources and compare every recorded image.

    Each node is judged by its own inputs: the recorded source images, or, where these are not recorded, what the nodes
    before compute from recorded images. So one wrong node does not incriminate those after it.

    Parameters
    ----------
    recording : Recording or path
        The images that the device wrote, with their graph.
    tolerance : Tolerances, Tolerance, Bounds or str, optional
        What passes; a string is a preset: one of `mpsref.verify.bounds.MODELS`, ``exact``, or ``ulp=N``. Default:
        ``metal-fast``, what the default mode of Metal's compiler allows.
    allow : iterable of str
        What is excused besides what a model excuses anyway, such as ``overflow``, see
        `mpsref.verify.reasons.Reason`.
    strict : bool
        Whether nothing else is excused, and a store that does not round to nearest fails.
    worst : int
        How many of the farthest elements to report for each image.
    faults : bool
        Whether to look for the likely fault of an image beyond the bounds, see `mpsref.verify.faults`.
    partial : bool
        Whether images may lack files: what is there is judged, and what is not is listed. An image that is computed
        from a source that is not there cannot be judged either.
    device : str, optional
        What wrote the images, instead of what the recording says.
    progress : callable, optional
        Called after each node with the numbers of finished nodes and of all nodes.
    collect : Aggregate, optional
        Collects the data for plots and heat maps.

    Returns
    -------
    Report
        Its `check` raises an error unless it passed.

    Raises
    ------
    FileFormatError
        The recording cannot be read, lacks a source, holds nothing to compare, or has an image of another size or
        format than the graph computes; or the tolerance names an image that the graph does not have.
    ParameterError
        The preset or the excuse does not exist.
    """
    recording = recording if isinstance(recording, Recording) else Recording.read(recording, complete=not partial)
    if device is not None:
        recording = replace(recording, device=device)
    tolerances = tolerances_of(tolerance).with_excuses(allow, strict=strict)
    return Verification(recording, tolerances, worst, faults, partial, collect).run(progress)
