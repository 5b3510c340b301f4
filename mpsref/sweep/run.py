"""The sweep itself: blocks of inputs, whoever works on them, and a checkpoint that survives a kill."""

from __future__ import annotations

import json
import pickle
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

from mpsref.arguments import checked
from mpsref.blocks import BLOCK, WorkerEndedError, chunks, evaluated, in_blocks, ones, share
from mpsref.enums import MPSImageFeatureChannelFormat
from mpsref.errors import FileFormatError, ImplementationError, ParameterError
from mpsref.neuron.descriptor import NeuronLike, descriptor_or_error
from mpsref.origin import machine, software
from mpsref.storage import FormatLike, storage_format
from mpsref.sweep.implementation import Implementation, call, load, name_of
from mpsref.sweep.report import Subject, SweepReport
from mpsref.sweep.summary import Summary, canonical, gaps, summary_of

__all__ = ["sweep"]

SECONDS = 1.0
"""At least so long a checkpoint is as it is."""

MOST_PACKAGES, LONGEST_PACKAGE = 90, 200
"""How many packages a report has room for, and characters of a name."""


@dataclass(frozen=True)
class Block:
    """A range of bit patterns, and what to do with it, wherever that is."""

    implementation: Implementation
    subject: Subject
    packages: tuple[str, ...]
    start: int
    size: int


@checked
def sweep(
    function: Implementation,
    descriptor: NeuronLike,
    *,
    direction: str = "forward",
    format: FormatLike = MPSImageFeatureChannelFormat.float32,
    ulp: int = 0,
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
    Compare somebody's implementation of a neuron with the reference at every input of a format.

    Parameters
    ----------
    function : callable or str
        The implementation, or ``module:function``. Called with a one-dimensional array of the format's dtype, for a
        gradient with the upstream gradients as well, and returns an array (or what numpy makes one of) of the same
        shape and dtype.
    descriptor : MPSNNNeuronDescriptor, MPSCNNNeuronType or str
        What it should compute; a type or its name has the documented parameters. pReLU needs exactly one slope.
    direction : str
        ``forward``, or ``gradient`` for an upstream gradient of 1.
    format : MPSImageFeatureChannelFormat, str or dtype
        How sources and results are stored.
    ulp : int
        What is within bounds; by default only what is exact.
    shard : (int, int)
        (i, n): only the i-th of n equal ranges of the inputs, counted from 1.
    workers : int
        How many processes; with 1 it is this one.
    executor : concurrent.futures.Executor, optional
        Works instead: threads, MPI, or a cluster. It is not shut down.
    checkpoint : path, optional
        A report of what is done so far. If it is there, the sweep goes on from it. It is not deleted.
    packages : sequence of str
        Names of packages whose versions belong into the report.
    block : int
        How many inputs are one piece of work.
    progress : callable, optional
        Called with the number of inputs that are done, and of all.
    isolated : bool
        Whether a single worker is another process too, so that an implementation that ends its process ends only that.

    Returns
    -------
    SweepReport
        Call its `check` to raise an error if it has not passed.

    Raises
    ------
    ImplementationError
        The implementation cannot be imported, raises an error, ends its process, or returns something else.
    ParameterError
        An argument makes no sense.
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
    storage, neuron = storage_format(format), descriptor_or_error(descriptor)
    subject = Subject(name_of(function), neuron, direction, storage.channel_format, ulp)
    inputs = share(shard, storage, "shard")
    _check_arguments(workers, block, packages)
    if executor is None:
        if not isolated:
            load(function)
        if workers > 1 or isolated:
            _send(function)
    path = None if checkpoint is None else Path(checkpoint)
    found = _before(path, subject, inputs)
    blocks = [
        Block(function, subject, tuple(packages), at, min(block, stop - at))
        for start, stop in gaps(inputs, found.ranges)
        for at in range(start, stop, block)
    ]
    written = _written(path, subject, found)
    if progress is not None:
        progress(found.elements, len(inputs))
    try:
        for _, summary in _summaries(blocks, workers, executor, isolated=isolated):
            found += summary
            if time.monotonic() - written > SECONDS:
                written = _written(path, subject, found)
            if progress is not None:
                progress(found.elements, len(inputs))
    finally:
        if found.elements:
            _written(path, subject, found)
        elif path is not None:
            path.unlink(missing_ok=True)
    return SweepReport(subject, found)


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
    except Exception as error:  # noqa: BLE001  whatever somebody's object raises
        raise ImplementationError(
            f"{name_of(function)}: cannot be sent to another process ({error}): give 'module:function', or workers=1"
        ) from None


def _before(path: Path | None, subject: Subject, inputs: range) -> Summary:
    """What a checkpoint has."""
    if path is None or not path.exists():
        return Summary()
    report = SweepReport.read(path)
    ours, theirs = subject.to_json(), report.subject.to_json()
    names = [name for name in ours if ours[name] != theirs[name]]
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


def _written(path: Path | None, subject: Subject, found: Summary) -> float:
    """Write the checkpoint, if there is one; and when that was."""
    if path is not None:
        SweepReport(subject, found).write(path)
    return time.monotonic()


def _summary(block: Block) -> Summary:
    """Evaluate and compare a block."""
    subject = block.subject
    storage = storage_format(subject.channel_format)
    facts = canonical({"software": software(*block.packages), "machine": machine()})
    found = Summary(made_by=frozenset([facts]))
    for offset, x in chunks(block.start, block.size, storage):
        # Two of each: an implementation may write to what it gets.
        ours, theirs = (ones(x.size, storage) if subject.direction == "gradient" else None for _ in range(2))
        want = evaluated(subject.descriptor, x, ours, storage)
        got = call(block.implementation, x.copy(), theirs)
        found += summary_of(x, got, want, block.start + offset, storage, subject.ulp)
    return found
