"""Work on every bit pattern of a format: ranges of patterns, the reference's results, and worker processes."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.process import BaseProcess
from typing import Any, Protocol, TypeVar

import numpy as np

from mpsref.arrays import Elements, Stored
from mpsref.errors import MPSRefError, ParameterError
from mpsref.neuron import evaluate
from mpsref.neuron.descriptor import MPSNNNeuronDescriptor
from mpsref.neuron.slopes import ChannelSlopes
from mpsref.storage import StorageFormat

__all__ = ["BLOCK", "WorkerEndedError", "chunks", "evaluated", "in_blocks", "ones", "parameters_json", "patterns"]

BLOCK = 1 << 24
"""Patterns in a block: about a second's work, which is the most that a kill can lose."""

CHUNK = 1 << 18
"""Patterns evaluated in one call: few enough for the caches."""

WORTH_A_PROCESS = 1 << 20
"""With fewer patterns, this process is done before another has started."""


class Sized(Protocol):
    """A block of patterns."""

    @property
    def size(self) -> int:
        """How many patterns it has."""


class WorkerEndedError(MPSRefError):
    """
    A worker process ended before its work was done.

    Attributes
    ----------
    reason : str
        How it ended, as far as is known.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"a worker process {reason}: run it again to go on, with fewer --workers")
        self.reason = reason


B = TypeVar("B", bound=Sized)
R = TypeVar("R")


def patterns(part: tuple[int, int], storage: StorageFormat, name: str = "part") -> range:
    """
    The i-th of n equal ranges of a format's bit patterns, counted from 1.

    Raises
    ------
    ParameterError
        There is no such range; the message calls the argument `name`.
    """
    i, n = part
    count = 1 << (8 * storage.dtype.itemsize)
    if not 1 <= i <= n <= count:
        raise ParameterError(f"{name} is {i}/{n}: give i/n with 1 <= i <= n <= {count}")
    return range(count * (i - 1) // n, count * i // n)


def parameters_json(descriptor: MPSNNNeuronDescriptor) -> dict[str, Any]:
    """A neuron with at most one slope as JSON; float32 parameters in C's hexadecimal notation."""
    values = descriptor.parameters if descriptor.data is None else {"data": float(descriptor.data[0])}
    parameters = {name: value.hex() for name, value in values.items()}
    return {"neuron": descriptor.neuron_type.name, "parameters": parameters}


def chunks(start: int, size: int, storage: StorageFormat) -> Iterator[tuple[int, Stored]]:
    """The chunks of a range of patterns: their offsets and elements, which the next chunk overwrites."""
    ramp = np.arange(min(CHUNK, size), dtype=storage.bits_dtype)
    bits = np.empty_like(ramp)
    for offset in range(0, size, CHUNK):
        count = min(CHUNK, size - offset)
        np.add(ramp[:count], storage.bits_dtype.type(start + offset), out=bits[:count])
        yield offset, bits[:count].view(storage.dtype)


def ones(size: int, storage: StorageFormat) -> Stored:
    """Stored elements whose value is 1."""
    return np.full(size, storage.unorm_max or 1, storage.dtype)


def evaluated(
    descriptor: MPSNNNeuronDescriptor,
    x: Stored,
    upstream: Stored | None,
    storage: StorageFormat,
    decisions: evaluate.Decisions | None = None,
    result: StorageFormat | None = None,
) -> Stored:
    """
    The reference's results for stored elements: the forward, or with `upstream` the gradient.

    They are in the storage format, or in `result`: in float64 they are the kernel's values before rounding.
    """
    result = storage if result is None else result
    slopes = None if descriptor.data is None else ChannelSlopes(descriptor.data.astype(np.float64)[np.newaxis], 1)
    source = Elements(x, storage)
    if upstream is not None:
        incoming = Elements(upstream, storage)
        return evaluate.gradient(descriptor, incoming, source, result, slopes, decisions=decisions)
    return evaluate.forward(descriptor, source, result, slopes, decisions=decisions)


def in_blocks(
    work: Callable[[B], R],
    blocks: Sequence[B],
    workers: int = 1,
    executor: Executor | None = None,
    *,
    isolated: bool = False,
) -> Iterator[tuple[B, R]]:
    """
    Every block with the result of `work`, in the order in which they are finished.

    Parameters
    ----------
    work : callable
        Called with each block; pickled, unless this process does the work.
    blocks : sequence
        The blocks.
    workers : int
        Number of processes; with 1, or if there is little to do, this process does the work.
    executor : concurrent.futures.Executor, optional
        Does the work instead. It is not shut down.
    isolated : bool
        Whether other processes do the work, however little there is.

    Raises
    ------
    WorkerEndedError
        A worker process ended.
    """
    if executor is not None:
        futures = {executor.submit(work, block): block for block in blocks}
        try:
            yield from _completed(futures)
        except BaseException:
            for future in futures:
                future.cancel()
            raise
        return
    workers = min(workers, len(blocks))
    if not blocks:
        return
    if not isolated and (workers <= 1 or sum(block.size for block in blocks) < WORTH_A_PROCESS):
        for block in blocks:
            yield block, work(block)
        return
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _begin_work)
    children: set[BaseProcess] = set()
    try:
        with _without_interrupts():
            futures = {pool.submit(work, block): block for block in blocks}
            children = set(multiprocessing.active_children()) - others
        yield from _completed(futures)
    except BrokenProcessPool:
        pool.shutdown()
        raise WorkerEndedError(_end_of(children)) from None
    except BaseException:
        # An interruption must not wait for running blocks. The pool itself cancels the others: it might try to finish
        # futures that were cancelled from outside once more.
        pool.shutdown(wait=False, cancel_futures=True)
        for child in children:
            child.kill()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _completed(futures: dict[Future[R], B]) -> Iterator[tuple[B, R]]:
    for future in as_completed(futures):
        yield futures[future], future.result()


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
    """In this context Ctrl-C waits; a process started here has it blocked until it can handle it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_of(children: Iterable[BaseProcess]) -> str:
    """How the first process ended; the pool terminates the others."""
    codes = [code for child in children if (code := child.exitcode) is not None]
    code = next((code for code in codes if code != -signal.SIGTERM), next(iter(codes), None))
    if code is None:
        return "came to an end"
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit status {code}"


def _begin_work() -> None:
    """In a worker: leave Ctrl-C to the parent, and end when the parent ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    # The output of an implementation does not belong in a report.
    with contextlib.suppress(OSError):
        os.dup2(2, 1)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
