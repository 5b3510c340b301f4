"""
How a neuron is evaluated: bits where nothing rounds, tables for 16-bit sources, blocks for all others; one rounding.

Blocks run in the storage format itself where the kernel rounds at most once, and in float64 else. What float64 leaves
open is decided in multi-precision.
"""

from __future__ import annotations

import contextlib
import contextvars
import math
import operator
import os
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from mpsref.arrays import Elements, Stored, Wide
from mpsref.enums import MPSCNNNeuronType
from mpsref.environment import environment_or_error
from mpsref.errors import ParameterError
from mpsref.neuron.descriptor import MPSNNNeuronDescriptor
from mpsref.neuron.exact import settle
from mpsref.neuron.slopes import ChannelSlopes
from mpsref.neuron.table import Parameters
from mpsref.neuron.workspace import Array, Workspace, product_beside
from mpsref.storage import FLOAT64, StorageFormat

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

__all__ = ["Decisions", "Elementwise", "elementwise", "forward", "gradient", "over_blocks", "worker_count"]

BLOCK = 65_536
"""Elements in a block: enough to hide what a call from Python costs, few enough for the caches."""

WORTH_A_TABLE = 131_072
"""Elements of a 16-bit source that must have asked for a table before it is made."""

FORWARD_TABLES, SLOPE_TABLES, CHANNEL_TABLES = 24, 6, 1
"""How many tables are kept: of at most 128 KiB each, of 512 KiB, and for `DISTINCT_SLOPES` at once; 14 MiB in all."""

DISTINCT_SLOPES = 64
"""How many different slopes of channels one table may serve, at 128 KiB each."""

Kernel: TypeAlias = Callable[[Array, Parameters, Workspace], Array]
Block: TypeAlias = Callable[[int, int], None]
"""Evaluates the elements from one index to another."""


@dataclass
class Decisions:
    """
    Where float64 left the rounding open.

    Attributes
    ----------
    by_rule, by_digits : list of ndarray of intp
        Indices into the flattened sources: of what a row's vector rule decided, and multi-precision.
    """

    by_rule: list[npt.NDArray[np.intp]] = field(default_factory=list)
    by_digits: list[npt.NDArray[np.intp]] = field(default_factory=list)


class _Scratch:
    """The memory of one evaluation, and a context without numpy's warnings."""

    def __init__(self) -> None:
        self.workspace = Workspace(BLOCK)
        self.upstream = np.empty(BLOCK)
        self.scratch = np.empty(BLOCK)
        self.mask = np.empty(BLOCK, np.bool_)
        self.other = np.empty(BLOCK)
        self.index = np.empty(BLOCK, np.intp)
        # Cheaper to enter than np.errstate, and it leaves the caller's as it is. Empty: the caller's variables are not
        # to be kept.
        self.quiet = contextvars.Context()
        self.quiet.run(np.seterr, all="ignore")


class _Thread(threading.local):
    """
    What every thread keeps from one evaluation to the next.

    An evaluation within another one, as of a signal handler, must not write where that computes: each takes scratch
    memory that is free, and gives it back.
    """

    def __init__(self) -> None:
        self.free: list[_Scratch] = []
        self.now = _Scratch()
        self.free.append(self.now)


_thread = _Thread()


class _Tables:
    """The last tables that were used, each made when enough elements have asked for it."""

    def __init__(self, kept: int) -> None:
        self._kept = kept
        self._tables: OrderedDict[Hashable, Stored] = OrderedDict()
        self._asked: dict[Hashable, int] = {}
        self.unlock()

    def unlock(self) -> None:
        """Take a new lock, as the child of a process must that forked while another thread held this one."""
        self._lock = threading.RLock()

    def get(self, key: Hashable, elements: int, worth: int, make: Callable[[], Stored]) -> Stored | None:
        """The table for `key`, if it is there or worth to be made; `elements` ask for it."""
        with self._lock:
            if key in self._tables:
                self._tables.move_to_end(key)
                return self._tables[key]
            if len(self._asked) > 64 * self._kept:
                self._asked.clear()
            self._asked[key] = self._asked.get(key, 0) + elements
            if self._asked[key] < worth:
                return None
        table = make()
        with self._lock:
            self._asked.pop(key, None)
            self._tables[key] = table
            while len(self._tables) > self._kept:
                self._tables.popitem(last=False)
        return table


_forward_tables, _slope_tables, _channel_tables = map(_Tables, (FORWARD_TABLES, SLOPE_TABLES, CHANNEL_TABLES))


def forward(
    descriptor: MPSNNNeuronDescriptor,
    source: Elements,
    result: StorageFormat,
    slopes: ChannelSlopes | None = None,
    *,
    workers: int = 1,
    decisions: Decisions | None = None,
) -> Stored:
    """
    The neuron's value at every element of `source`, rounded once to `result`.

    Parameters
    ----------
    descriptor : MPSNNNeuronDescriptor
        The neuron.
    source : Elements
        The input, of any shape.
    result : StorageFormat
        How the result is stored.
    slopes : ChannelSlopes, optional
        For a neuron with a slope for each channel.
    workers : int
        How many threads share the blocks.
    decisions : Decisions, optional
        Is appended where float64 left the rounding open. Nothing is, where a table serves.

    Returns
    -------
    ndarray
        Of the shape of `source` and the dtype of `result`.
    """
    x, storage = source.stored, source.storage
    out = np.empty(x.shape, result.dtype)
    task = _Task(descriptor, _flat(x), storage, out.reshape(-1), result, slopes, decisions)
    roundings = descriptor.row.roundings(descriptor)
    if storage is result and storage.native_roundings >= (2 if roundings is None else roundings):
        block = task.native_values
    else:
        table = task.table()
        block = task.values if table is None else partial(task.looked_up, table)
    over_blocks(block, x.size, workers)
    return out


def gradient(
    descriptor: MPSNNNeuronDescriptor,
    gradient: Elements,
    source: Elements,
    result: StorageFormat,
    slopes: ChannelSlopes | None = None,
    *,
    workers: int = 1,
    decisions: Decisions | None = None,
) -> Stored:
    """
    `gradient` times the neuron's slope at every element of `source`, the product rounded once to `result`.

    Parameters
    ----------
    descriptor, source, result, slopes, workers, decisions
        As for `forward`.
    gradient : Elements
        The incoming gradient, of the shape of `source`.
    """
    x, storage = source.stored, source.storage
    out = np.empty(x.shape, result.dtype)
    task = _Task(descriptor, _flat(x), storage, out.reshape(-1), result, slopes, decisions)
    incoming = _flat(gradient.stored)
    # The product with the upstream gradient is one rounding more.
    is_native = not descriptor.row.slope_is_rounded(descriptor) and storage.native_roundings >= 1
    if descriptor.row.slope_is_one(descriptor) and gradient.storage is result:
        block = partial(task.copied, incoming)
    elif is_native and storage is result is gradient.storage:
        block = partial(task.native_gradient, incoming)
    else:
        table = task.slope_table()
        block = partial(task.gradient, incoming, gradient.storage, table)
    over_blocks(block, x.size, workers)
    return out


@dataclass(slots=True)
class _Task:
    """One call: a neuron, flat sources and a flat result. Each method evaluates the elements from start to stop."""

    descriptor: MPSNNNeuronDescriptor
    x: Stored
    source: StorageFormat
    out: Stored
    result: StorageFormat
    slopes: ChannelSlopes | None
    decisions: Decisions | None

    # ---- in the storage format itself ----

    def native_values(self, start: int, stop: int) -> None:
        x, out, w = self.x[start:stop], self.out[start:stop], _thread.now.workspace
        # A float16 only changes its sign: no buffer is needed.
        if self.source.dtype == np.float32:
            self._prepare_native(x, start)
        w.y = out
        y = self.descriptor.row.forward(x, self.descriptor, w)
        if y is not out:
            np.copyto(out, y)
        _canonical_nan(out)

    def copied(self, incoming: Stored, start: int, stop: int) -> None:
        out = self.out[start:stop]
        np.copyto(out, incoming[start:stop])
        _canonical_nan(out)

    def native_gradient(self, incoming: Stored, start: int, stop: int) -> None:
        x, out, w = self.x[start:stop], self.out[start:stop], _thread.now.workspace
        self._prepare_native(x, start)
        slope = self.descriptor.row.derivative(x, self.descriptor, w)
        np.multiply(slope, incoming[start:stop], out=out)
        if not self.descriptor.row.slope_is_constant and not w.regular:
            np.copyto(out, np.nan, where=np.isnan(x))
        _canonical_nan(out)

    def _prepare_native(self, x: Stored, start: int) -> None:
        w = _thread.now.workspace
        w.block(x.size, np.float32)
        w.begin(x)
        w.wide = False
        self._lay_slopes(start, x.size, np.float32)

    def _lay_slopes(self, start: int, size: int, dtype: npt.DTypeLike) -> None:
        if self.slopes is not None:
            w = _thread.now.workspace
            w.slopes = self.slopes.window(start, size, dtype)
            w.slopes_shrink = self.slopes.shrink

    # ---- in float64 ----

    def values(self, start: int, stop: int) -> None:
        y = self.kernel(self.descriptor.row.forward, start, stop)
        self._round(y, self.descriptor.row.error_bound(self.descriptor), None, start)

    def gradient(
        self, incoming: Stored, upstream_source: StorageFormat, table: Array | None, start: int, stop: int
    ) -> None:
        size, row = stop - start, self.descriptor.row
        if table is None:
            slope = self.kernel(row.derivative, start, stop)
        else:
            slope = _look_up(table, self.x[start:stop], _thread.now.scratch[:size])
        upstream = upstream_source.decode(incoming[start:stop], _thread.now.upstream[:size])
        product = np.multiply(slope, upstream, out=_thread.now.scratch[:size])
        self._round(product, row.slope_error_bound(self.descriptor), upstream, start)

    def kernel(self, kernel: Kernel, start: int, stop: int) -> Array:
        """What a row's forward or derivative makes of some elements, in a buffer of the workspace."""
        stored, w, row = self.x[start:stop], _thread.now.workspace, self.descriptor.row
        w.wide = self.source is FLOAT64
        x = self.source.decode(stored, w.block(stored.size))
        w.begin(stored if stored.dtype == np.float32 else x)
        self._lay_slopes(start, stored.size, np.float64)
        y = kernel(x, self.descriptor, w)
        if not w.regular and not (row.slope_is_constant and kernel == row.derivative):
            np.copyto(y, np.nan, where=np.isnan(x))
        return y

    def _round(self, values: Array, bound: float, upstream: Array | None, start: int) -> None:
        """
        Round to the result, once.

        `values` are exact, or rounded to odd; or they are within a relative error bound. Then those whose error
        interval holds a rounding boundary (Ziv's test) are decided in multi-precision.
        """
        out, result = self.out[start : start + values.size], self.result
        if bound == 0 or result is FLOAT64:
            result.encode(values, out)
            _canonical_nan(out)
            return
        is_open = _thread.now.mask[: values.size]
        if result.encode_within(values, bound, out, is_open, _thread.now.other.view(result.dtype)[: values.size]):
            nan = np.isnan(values)
            is_open &= ~nan
            if not result.unorm_max:
                np.copyto(out, np.nan, where=nan)
            open_ = np.flatnonzero(is_open)
            if open_.size:
                out[open_] = self._decided(open_, values[open_], None if upstream is None else upstream[open_], start)

    def _decided(self, open_: npt.NDArray[np.intp], values: Array, upstream: Array | None, start: int) -> Stored:
        """Results that float64 leaves open; `values` are what it makes of them."""
        row, p, result = self.descriptor.row, self.descriptor, self.result
        x = self.source.decode(self.x[start:][open_], np.empty(open_.size))
        if upstream is None:
            exact, known = row.exact_forward, row.beside(x, p)
        else:
            exact, known = row.exact_derivative, product_beside(*row.slope_beside(x, p), upstream)
        # At an infinity the kernel has given the limit, and that is exact.
        at_infinity = np.isinf(x) if upstream is None else np.isinf(x) | np.isinf(upstream)
        np.copyto(known, values, where=at_infinity)
        decided = result.encode(known, np.empty(x.size, result.dtype))
        left = np.isnan(known)
        if self.decisions is not None:
            self.decisions.by_rule.append(open_[~left] + start)
            self.decisions.by_digits.append(open_[left] + start)
        if upstream is None and row.is_constant(p):
            x = np.zeros_like(x)
        decided[left] = settle(partial(exact, p=p), x[left], None if upstream is None else upstream[left], result)
        return decided

    # ---- by table ----

    def table(self) -> Stored | None:
        """The results for all bit patterns of a source of at most 16 bits, if it is worth while."""
        if self.source.dtype.itemsize > 2:
            return None
        source, result = self.source, self.result
        if self.slopes is None:
            d = self.descriptor
            make = partial(_quietly, _forward_table, d, source, result)
            return _forward_tables.get((d, source, result), self.x.size, WORTH_A_TABLE, make)
        distinct = self.slopes.distinct
        if self.source.dtype.itemsize == 1 or len(distinct) > DISTINCT_SLOPES:
            return None
        make = partial(_quietly, _channel_table, distinct, source, result)
        return _channel_tables.get((self.slopes.key, source, result), self.x.size, WORTH_A_TABLE * len(distinct), make)

    def slope_table(self) -> Array | None:
        """The slopes for all bit patterns likewise."""
        if self.source.dtype.itemsize > 2 or self.slopes is not None:
            return None
        make = partial(_quietly, _slope_table, self.descriptor, self.source)
        return _slope_tables.get((self.descriptor, self.source), self.x.size, WORTH_A_TABLE, make)

    def looked_up(self, table: Stored, start: int, stop: int) -> None:
        stored, out = self.x[start:stop], self.out[start:stop]
        if self.slopes is None or len(self.slopes.distinct) == 1:
            _look_up(table, stored, out)
        else:
            _look_up(table, stored, out, self.slopes.ranks.window(start, stored.size, np.intp))


def _look_up(table: Stored, stored: Stored, out: Stored, rank: npt.NDArray[np.intp] | None = None) -> Stored:
    """``table[bits of the element]``, by far the fastest way that numpy has: take with an intp index and out."""
    index = _thread.now.index[: stored.size]
    bits = stored.view(f"u{stored.itemsize}")
    if rank is None:
        np.copyto(index, bits)
    else:
        np.add(rank, bits, out=index)
    return np.take(table, index, out=out, mode="clip")


def _forward_table(descriptor: MPSNNNeuronDescriptor, source: StorageFormat, result: StorageFormat) -> Stored:
    patterns = source.patterns()
    table = np.empty(patterns.size, result.dtype)
    task = _Task(descriptor, patterns, source, table, result, None, None)
    for start in range(0, patterns.size, BLOCK):
        task.values(start, min(start + BLOCK, patterns.size))
    return table


def _channel_table(distinct: tuple[float, ...], source: StorageFormat, result: StorageFormat) -> Stored:
    """Of a neuron with a slope for each channel: a rectifier's for each different slope."""
    tables = np.empty((len(distinct), 65_536), result.dtype)
    for table, slope in zip(tables, distinct, strict=True):
        rectifier = MPSNNNeuronDescriptor(MPSCNNNeuronType.reLU, a=slope)
        np.copyto(table, _forward_table(rectifier, source, result))
    return tables.reshape(-1)


def _slope_table(descriptor: MPSNNNeuronDescriptor, source: StorageFormat) -> Array:
    patterns = source.patterns()
    table = np.empty(patterns.size)
    task = _Task(descriptor, patterns, source, table, FLOAT64, None, None)
    for start in range(0, patterns.size, BLOCK):
        stop = min(start + BLOCK, patterns.size)
        np.copyto(table[start:stop], task.kernel(descriptor.row.derivative, start, stop))
    return table


class Elementwise(Protocol):
    """An operation of one element each of one source or two, whose result is a rational number."""

    def exact(self, *values: float) -> Fraction | float:
        """The result for one element; a float where it is not finite, or a zero."""

    def odd(self, *values: Wide) -> Wide:
        """The results for float64 arrays, which it may write over: exact, or rounded to odd."""

    def stepwise(self, f: Any, *sources: Any) -> Any:
        """The documented formula, operation by operation, on numbers of any kind."""


def elementwise(
    operation: Elementwise, sources: Sequence[Elements], result: StorageFormat, *, workers: int = 1
) -> Stored:
    """The exact value for each element of one or two sources of one shape, rounded once to `result`."""
    flats, out = [_flat(source.stored) for source in sources], np.empty(sources[0].stored.shape, result.dtype)
    flat_out = out.reshape(-1)

    def block(start: int, stop: int) -> None:
        buffers = _thread.now.scratch[: stop - start], _thread.now.upstream[: stop - start]
        values = [
            source.storage.decode(flat[start:stop], buffer)
            for source, flat, buffer in zip(sources, flats, buffers, strict=False)
        ]
        _canonical_nan(result.encode(operation.odd(*values), flat_out[start:stop]))

    over_blocks(block, out.size, workers)
    return out


def _flat(array: Stored) -> Stored:
    return np.ascontiguousarray(array).reshape(-1)


def _canonical_nan(out: Stored) -> None:
    """Give every NaN the bits of the canonical quiet one (N6)."""
    if out.dtype == np.float16:
        # Several times faster than np.isnan.
        nan = (out.view(np.uint16) & 0x7FFF) > 0x7C00
    elif out.dtype.kind != "f" or not out.size or not math.isnan(np.maximum.reduce(out)):
        return
    else:
        nan = np.isnan(out)
    if np.count_nonzero(nan):
        np.copyto(out, np.nan, where=nan)


# ---- threads ----


def worker_count(workers: int) -> int:
    """
    How many threads an argument `workers` asks for; -1 means one for each core that the process may use.

    Raises
    ------
    ParameterError
        It is 0, below -1 or no integer.
    """
    try:
        count = operator.index(workers)
    except TypeError:
        count = 0
    if count == -1:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if count < 1 or isinstance(workers, bool):
        raise ParameterError(f"workers is {workers!r}: give a number of threads, or -1 for one for each core")
    return count


def over_blocks(block: Block, size: int, workers: int = 1) -> None:
    """Call `block` with the first and last index of every block of so many elements, quietly, by so many threads."""
    if size <= BLOCK:
        if size:
            _quietly(block, 0, size)
        return
    starts = deque(range(0, size, BLOCK))
    helpers = min(workers, len(starts)) - 1
    waiting: list[Future[None]] = []
    try:
        # If no thread can be had any more, as when the interpreter ends: go on with those that there are.
        with contextlib.suppress(RuntimeError):
            waiting.extend(_pool(helpers).submit(_drain, block, starts, size) for _ in range(helpers))
        _drain(block, starts, size)
    finally:
        # After an error or an interrupt the others must not go on.
        starts.clear()
        for future in waiting:
            future.result()


def _drain(block: Block, starts: deque[int], size: int) -> None:
    _quietly(_take_all, block, starts, size)


def _quietly(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call with scratch memory, and without any warning of numpy's, where arithmetic is as it must be."""
    environment_or_error()
    scratch = _thread.free.pop() if _thread.free else _Scratch()
    outer = _thread.now
    try:
        _thread.now = scratch
        return scratch.quiet.run(function, *arguments)
    finally:
        _thread.now = outer
        scratch.workspace.release()
        _thread.free.append(scratch)


def _take_all(block: Block, starts: deque[int], size: int) -> None:
    while starts:
        try:
            start = starts.popleft()
        except IndexError:
            # Another thread was faster.
            return
        block(start, min(start + BLOCK, size))


@lru_cache(maxsize=1)
def _pool(size: int) -> ThreadPoolExecutor:
    # Here, because importing mpsref must not import what few use.
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415

    return ThreadPoolExecutor(size, thread_name_prefix="mpsref")


def _after_fork() -> None:
    # A child process has none of its parent's threads.
    _pool.cache_clear()
    for tables in (_forward_tables, _slope_tables, _channel_tables):
        tables.unlock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
