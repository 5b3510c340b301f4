"""Work on every bit pattern of a format, in blocks and in processes."""

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
from types import FrameType
from typing import Any, Protocol, TypeVar

import numpy as np

from mpsref.arrays import Elements, Stored
from mpsref.errors import MPSRefError, ParameterError
from mpsref.neuron import evaluate
from mpsref.neuron.descriptor import MPSNNNeuronDescriptor
from mpsref.neuron.slopes import ChannelSlopes
from mpsref.process import SIGNALS
from mpsref.storage import StorageFormat

__all__ = [
    "BLOCK",
    "WorkerEndedError",
    "chunks",
    "evaluated",
    "in_blocks",
    "neuron_json",
    "ones",
    "part_of",
    "part_of_patterns",
    "pattern_of",
]

BLOCK = 1 << 24
"""Patterns in a block: a second's work, which a kill loses at most."""

CHUNK = 1 << 18
"""Patterns that are evaluated in one call: few enough for the caches."""

SCATTER = 0x9E3779B9
"""A multiplier after which the remainders of successive numbers are scattered."""

FEW = 1 << 20
"""Fewer results take less time than starting a process."""


class Sized(Protocol):
    """A block of patterns."""

    @property
    def size(self) -> int:
        """Number of patterns."""


class WorkerEndedError(MPSRefError):
    """
    A process that worked on blocks came to an end.

    Attributes
    ----------
    reason : str
        What is known of it.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"a worker process {reason}: run it again to go on, with fewer --workers")
        self.reason = reason


B = TypeVar("B", bound=Sized)
R = TypeVar("R")


def part_of_patterns(part: tuple[int, int], storage: StorageFormat, name: str = "part") -> range:
    """The i-th of n equal ranges of the bit patterns, counted from 1; a `ParameterError` calls the argument `name`."""
    return part_of(1 << (8 * storage.dtype.itemsize), part, name)


def part_of(inputs: int, part: tuple[int, int], name: str = "part") -> range:
    """The i-th of n equal ranges of the numbers below `inputs`."""
    i, n = part
    if not 1 <= i <= n <= inputs:
        raise ParameterError(f"{name} is {i}/{n}: give i/n with 1 <= i <= n <= {inputs}")
    return range(inputs * (i - 1) // n, inputs * i // n)


def neuron_json(descriptor: MPSNNNeuronDescriptor) -> dict[str, Any]:
    """A neuron with at most one slope, as JSON; the parameters in C's hexadecimal notation."""
    values = descriptor.parameters if descriptor.data is None else {"data": float(descriptor.data[0])}
    parameters = {name: value.hex() for name, value in values.items()}
    return {"neuron": descriptor.neuron_type.name, "parameters": parameters}


def chunks(start: int, size: int, storage: StorageFormat, stride: int = 1) -> Iterator[tuple[int, Stored]]:
    """A range of inputs in chunks: the offset of each and its elements, in memory that is reused."""
    ramp = np.arange(min(CHUNK, size), dtype=storage.bits_dtype)
    bits = np.empty_like(ramp)
    for offset in range(0, size, CHUNK):
        count = min(CHUNK, size - offset)
        np.add(ramp[:count], storage.bits_dtype.type(start + offset), out=bits[:count])
        if stride > 1:
            bits[:count] = pattern_of(bits[:count].astype(np.uint64), stride)
        yield offset, bits[:count].view(storage.dtype)


def pattern_of(number: Any, stride: int) -> Any:
    """
    The bit pattern of an input, if there is one of each `stride` patterns: not always with the same last digits.

    Examples
    --------
    >>> [pattern_of(number, 64) for number in range(4)]
    [0, 121, 178, 235]
    """
    return number * stride + number * SCATTER % stride


def ones(size: int, storage: StorageFormat) -> Stored:
    """An array of elements that mean 1."""
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
    The reference's forward of stored elements; with `upstream`, its gradient.

    In the storage format, or in `result`: float64 results are those of the kernel, before any rounding.
    """
    result = storage if result is None else result
    slopes = None if descriptor.data is None else ChannelSlopes(descriptor.data.astype(np.float64)[np.newaxis], 1)
    gradient = None if upstream is None else Elements(upstream, storage)
    return evaluate.evaluate(descriptor, Elements(x, storage), result, slopes, gradient=gradient, decisions=decisions)


def in_blocks(
    work: Callable[[B], R],
    blocks: Sequence[B],
    workers: int = 1,
    executor: Executor | None = None,
    *,
    isolated: bool = False,
) -> Iterator[tuple[B, R]]:
    """
    Every block and the result of `work` on it, each when it is done.

    This process does the work if `workers` is 1 or there is little to do, unless the work is `isolated`; else
    processes, or the executor, which is not shut down. Raises `WorkerEndedError` where a worker process ended.
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
    if not isolated and (workers <= 1 or sum(block.size for block in blocks) < FEW):
        for block in blocks:
            yield block, work(block)
        return
    others = set(multiprocessing.active_children())
    with _without_interrupts():
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
        # An interrupt does not wait for the blocks in progress. The pool itself cancels the others: it may try to
        # finish once more what is cancelled behind its back.
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
    """
    In this context signals wait, so that no process is left half begun, which would say so on stderr.

    A process that is begun has Ctrl-C blocked, until it knows what to do with it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    handlers: dict[int, Callable[[int, FrameType | None], Any]] = {}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT]) if hasattr(signal, "pthread_sigmask") else None
    try:
        # The mask is of this thread alone, and numpy may have begun others, which take a signal as well.
        for number in SIGNALS:
            handler = signal.getsignal(number)
            if callable(handler):
                handlers[number] = handler
                signal.signal(number, lambda number, _frame: came.append(number))
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number in came[:1]:
            handlers[number](number, None)


def _end_of(children: Iterable[BaseProcess]) -> str:
    """How the first of some processes ended; the pool terminates the others."""
    codes = [code for child in children if (code := child.exitcode) is not None]
    code = next((code for code in codes if code != -signal.SIGTERM), next(iter(codes), None))
    if code is None:
        return "came to an end"
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit status {code}"


def _begin_work() -> None:
    """In a worker process: leave Ctrl-C to the parent, and exit when the parent does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    # What an implementation prints is no part of a report.
    with contextlib.suppress(OSError):
        os.dup2(2, 1)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
