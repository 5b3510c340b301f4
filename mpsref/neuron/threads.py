"""Threads that evaluate blocks of elements, and the scratch memory of each."""

from __future__ import annotations

import contextlib
import contextvars
import operator
import os
import threading
from collections import deque
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from mpsref.environment import environment_or_error
from mpsref.errors import CONVERSION_ERRORS, ParameterError, shown
from mpsref.neuron.workspace import Workspace

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

__all__ = ["BLOCK", "Block", "Scratch", "over_blocks", "quietly", "thread", "worker_count"]

BLOCK = 65_536
"""Elements in a block: enough to hide the cost of a call from Python, few enough for the caches."""

Block: TypeAlias = Callable[[int, int], None]
"""Evaluates the elements from one index to another."""


class Scratch:
    """The memory of one evaluation, and a context without NumPy's warnings."""

    def __init__(self) -> None:
        self.workspace = Workspace(BLOCK)
        self.upstream = np.empty(BLOCK)
        self.scratch = np.empty(BLOCK)
        self.mask = np.empty(BLOCK, np.bool_)
        self.other = np.empty(BLOCK)
        self.index = np.empty(BLOCK, np.intp)
        # Cheaper to enter than np.errstate. Empty, so that it keeps none of the caller's variables.
        self.quiet = contextvars.Context()
        self.quiet.run(np.seterr, all="ignore")


class _Thread(threading.local):
    """
    What each thread keeps between evaluations.

    An evaluation inside another, as in a signal handler, must not write into the other's memory: each takes scratch
    memory that is free, and gives it back.
    """

    def __init__(self) -> None:
        self.free: list[Scratch] = []
        self.now = Scratch()
        self.free.append(self.now)


thread = _Thread()
"""The current thread's: `now` is the memory of the evaluation in progress."""


def worker_count(workers: int) -> int:
    """
    The number of threads for an argument `workers`; -1 means one per core that the process may use.

    Raises
    ------
    ParameterError
        It is 0, below -1 or not an integer.
    """
    try:
        count = operator.index(workers)
    except CONVERSION_ERRORS:
        count = 0
    if count == -1:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if count < 1 or isinstance(workers, bool):
        raise ParameterError(f"workers is {shown(workers)}: give a number of threads, or -1 for one per core")
    return count


def over_blocks(block: Block, size: int, workers: int = 1) -> None:
    """Call `block` quietly with the start and stop of each block of `size` elements, in `workers` threads."""
    if size <= BLOCK:
        if size:
            quietly(block, 0, size)
        return
    starts = deque(range(0, size, BLOCK))
    helpers = min(workers, len(starts)) - 1
    waiting: list[Future[None]] = []
    try:
        # No thread can be started while the interpreter exits: go on with those that exist.
        with contextlib.suppress(RuntimeError):
            waiting.extend(_pool(helpers).submit(_drain, block, starts, size) for _ in range(helpers))
        _drain(block, starts, size)
    finally:
        # After an error or an interrupt the others must not go on.
        starts.clear()
        for future in waiting:
            future.result()


def _drain(block: Block, starts: deque[int], size: int) -> None:
    quietly(_take_all, block, starts, size)


def quietly(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call with scratch memory and without NumPy's warnings, in a checked floating-point environment."""
    environment_or_error()
    free, outer = thread.free, thread.now
    scratch = free.pop() if free else Scratch()
    try:
        thread.now = scratch
        return scratch.quiet.run(function, *arguments)
    finally:
        thread.now = outer
        scratch.workspace.release()
        free.append(scratch)


def _take_all(block: Block, starts: deque[int], size: int) -> None:
    while starts:
        try:
            start = starts.popleft()
        except IndexError:
            # Another thread took the last one.
            return
        block(start, min(start + BLOCK, size))


@lru_cache(maxsize=1)
def _pool(size: int) -> ThreadPoolExecutor:
    # Imported here, since few need it.
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415

    return ThreadPoolExecutor(size, thread_name_prefix="mpsref")


if hasattr(os, "register_at_fork"):
    # A child process has none of its parent's threads.
    os.register_at_fork(after_in_child=_pool.cache_clear)
