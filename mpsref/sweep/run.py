"""Sweeps: blocks of inputs for processes or an executor, and a checkpoint that survives a kill."""

from __future__ import annotations

import json
import pickle
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

from mpsref.arguments import checked_but
from mpsref.blocks import BLOCK, WorkerEndedError, chunks, evaluated, in_blocks, ones, part_of
from mpsref.enums import MPSImageFeatureChannelFormat
from mpsref.errors import FileFormatError, ImplementationError, ParameterError
from mpsref.formats import format_among
from mpsref.neuron.descriptor import NeuronLike, descriptor_or_error
from mpsref.origin import machine, software
from mpsref.storage import FormatLike, storage_format
from mpsref.sweep.implementation import Implementation, call, load, name_of
from mpsref.sweep.report import Subject, SweepReport
from mpsref.sweep.summary import Summary, canonical, gaps, summary_of

__all__ = ["sweep"]

SECONDS = 1.0
"""Least time between two checkpoints."""

MOST_PACKAGES, LONGEST_PACKAGE = 90, 200
"""Packages in a report at most, and characters of a name."""


@dataclass(frozen=True)
class Block:
    """A range of bit patterns, and everything that a process needs to evaluate it."""

    implementation: Implementation
    subject: Subject
    packages: tuple[str, ...]
    start: int
    size: int


@checked_but("function")
def sweep(
    function: Implementation,
    descriptor: NeuronLike,
    *,
    direction: str = "forward",
    format: FormatLike = MPSImageFeatureChannelFormat.float32,
    ulp: int = 0,
    stride: int = 1,
    shard: tuple[int, int] = (1, 1),
    workers: int = 1,
    executor: Executor | None = None,
    checkpoint: str | Path | None = None,
    packages: Sequence[str] = (),
    block: int = BLOCK,
    progress: Callable[[int, int], None] | None = None,
    isolated: bool = False,
) -> SweepReport:
    """
    Compare an implementation of a neuron with the reference at every input of a format.

    Parameters
    ----------
    function : callable or str
        The implementation, or ``module:function``. It is called with a one-dimensional array of the format's dtype, for
        a gradient with the incoming gradients as well, and returns an array_like of the same shape and dtype.
    descriptor : MPSNNNeuronDescriptor, MPSCNNNeuronType or str
        What it should compute; a type or its name has the documented parameters. pReLU needs exactly one slope.
    direction : str
        ``forward``, or ``gradient`` for an incoming gradient of 1.
    format : MPSImageFeatureChannelFormat, str or dtype
        How inputs and results are stored.
    ulp : int
        Units in the last place that are within bounds; by default only exact results.
    stride : int
        Of so many successive bit patterns only one, each time at another place among them: a fair part of the inputs.
    shard : (int, int)
        (i, n): only the i-th of n equal ranges of the inputs, counted from 1.
    workers : int
        Number of processes; 1 is this one alone.
    executor : concurrent.futures.Executor, optional
        Does the work instead: threads, MPI, or a cluster. It is not shut down.
    checkpoint : path, optional
        A report of the inputs so far. If it exists, the sweep continues from it. It is not deleted.
    packages : sequence of str
        Names of packages whose versions belong in the report.
    block : int
        Inputs in a unit of work.
    progress : callable, optional
        Called with the number of inputs done, and of all inputs.
    isolated : bool
        Whether a single worker is another process too, so that an implementation that ends its process ends only that.

    Returns
    -------
    SweepReport
        Its `check` raises an error unless it passed.

    Raises
    ------
    ImplementationError
        The implementation cannot be imported, raises an error, ends its process, or returns something else.
    ParameterError
        An argument is invalid.
    FileFormatError
        The checkpoint cannot be read or written, or is one of another sweep.

    Examples
    --------
    >>> import numpy as np
    >>> import mpsref as mps
    >>> from mpsref.sweep import sweep
    >>> d = mps.MPSNNNeuronDescriptor(mps.MPSCNNNeuronType.softSign)
    >>> half = mps.MPSImageFeatureChannelFormat.float16
    >>> sweep(lambda x: x / (1 + np.abs(x)), d, format=half).verdict
    'FAIL: 11,560 of 65,536 results are not exact'
    """
    storage, neuron = format_among(format), descriptor_or_error(descriptor)
    subject = Subject(name_of(function), neuron, direction, storage.channel_format, ulp, stride)
    inputs = part_of(subject.inputs, shard, "shard")
    _check_arguments(workers, block, packages)
    if executor is None:
        if not isolated:
            load(function)
        if workers > 1 or isolated:
            _send(function)
    path = None if checkpoint is None else Path(checkpoint)
    summary = _checkpointed(path, subject, inputs)
    blocks = [
        Block(function, subject, tuple(packages), at, min(block, stop - at))
        for start, stop in gaps(inputs, summary.ranges)
        for at in range(start, stop, block)
    ]
    written = _written(path, subject, summary)
    if progress is not None:
        progress(summary.elements, len(inputs))
    try:
        for _, part in _summaries(blocks, workers, executor, isolated=isolated):
            summary += part
            if time.monotonic() - written > SECONDS:
                written = _written(path, subject, summary)
            if progress is not None:
                progress(summary.elements, len(inputs))
    finally:
        if summary.elements:
            _written(path, subject, summary)
        elif path is not None:
            path.unlink(missing_ok=True)
    return SweepReport(subject, summary)


def _check_arguments(workers: int, block: int, packages: Sequence[str]) -> None:
    if workers < 1:
        raise ParameterError(f"workers is {workers}: give at least 1")
    if block < 1:
        raise ParameterError(f"block is {block}: give at least 1")
    if len(packages) > MOST_PACKAGES or not all(0 < len(name) <= LONGEST_PACKAGE for name in packages):
        raise ParameterError(f"packages: give at most {MOST_PACKAGES} names of 1 to {LONGEST_PACKAGE} characters")


def _summaries(
    blocks: Sequence[Block], workers: int, executor: Executor | None, *, isolated: bool
) -> Iterator[tuple[Block, Summary]]:
    try:
        yield from in_blocks(_summary, blocks, workers, executor, isolated=isolated)
    except WorkerEndedError as error:
        raise ImplementationError(
            f"{blocks[0].subject.implementation}: the process that ran it {error.reason}"
        ) from None


def _send(function: Implementation) -> None:
    try:
        pickle.dumps(function)
    except Exception as error:  # noqa: BLE001  a user's object may raise anything
        raise ImplementationError(
            f"{name_of(function)}: cannot be sent to another process ({error}): give 'module:function', or workers=1"
        ) from None


def _checkpointed(path: Path | None, subject: Subject, inputs: range) -> Summary:
    """The summary in a checkpoint."""
    if path is None or not path.exists():
        return Summary()
    report = SweepReport.read(path)
    names = subject.differences(report.subject)
    ranges = report.summary.ranges
    if ranges and not (inputs.start <= ranges[0][0] and ranges[-1][1] <= inputs.stop):
        names.append("shard")
    names += [name for facts in report.summary.made_by for name in _other_software(json.loads(facts)["software"])]
    if names:
        raise FileFormatError(
            f"{path}: the checkpoint of another sweep ({names[0]} differs): delete it, or name another --checkpoint"
        )
    return report.summary


def _other_software(theirs: dict[str, str]) -> list[str]:
    """In which packages and sources other software differs from this."""
    ours = software()
    return [name for name in ours if theirs.get(name) != ours[name]]


def _written(path: Path | None, subject: Subject, summary: Summary) -> float:
    """Write the checkpoint, if there is one, and return the time."""
    if path is not None:
        SweepReport(subject, summary).write(path)
    return time.monotonic()


def _summary(block: Block) -> Summary:
    """Evaluate and compare a block."""
    subject = block.subject
    storage = storage_format(subject.channel_format)
    facts = canonical({"software": software(*block.packages), "machine": machine()})
    summary = Summary(made_by=frozenset([facts]))
    for offset, x in chunks(block.start, block.size, storage, subject.stride):
        # Two of each: an implementation may write to its arguments.
        ours, theirs = (ones(x.size, storage) if subject.direction == "gradient" else None for _ in range(2))
        want = evaluated(subject.descriptor, x, ours, storage)
        got = call(block.implementation, x.copy(), theirs)
        summary += summary_of(x, got, want, block.start + offset, storage, subject.ulp, subject.stride)
    return summary
