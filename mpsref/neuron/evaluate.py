"""
Fast evaluation of a neuron: in blocks, or by tables for 16-bit inputs.

Blocks run in the storage format itself where the kernel rounds at most once, else in float64. What float64 leaves open
is decided by the specification; so is every result of a neuron without a kernel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from mpsref.arrays import Elements, Index, Stored, flat
from mpsref.enums import MPSCNNNeuronType, MPSImageFeatureChannelFormat
from mpsref.neuron.descriptor import MPSNNNeuronDescriptor
from mpsref.neuron.exact import settle
from mpsref.neuron.halves import SlopeTable, scaled, times_slope
from mpsref.neuron.kernels import KERNELS, Kernel
from mpsref.neuron.nodes import Nodes
from mpsref.neuron.patterns import (
    DISTINCT_SLOPES,
    WORTH_A_TABLE,
    WORTH_NODES,
    channel_tables,
    forward_tables,
    look_up,
    node_tables,
    slope_tables,
)
from mpsref.neuron.reference import exact_parameters, specified_elements
from mpsref.neuron.rounding import canonical_nan, nan_in_halves, round_once
from mpsref.neuron.slopes import ChannelSlopes
from mpsref.neuron.table import Parameters
from mpsref.neuron.threads import Block, over_blocks, quietly, thread
from mpsref.neuron.workspace import Array, Workspace, product_beside
from mpsref.storage import FLOAT64, FORMATS, StorageFormat

__all__ = ["Decisions", "evaluate"]

Function: TypeAlias = Callable[[Array, Parameters, Workspace], Array]
"""A kernel's forward or derivative."""


FLOAT16, FLOAT32 = (FORMATS[MPSImageFeatureChannelFormat[name]] for name in ("float16", "float32"))

FEW = 1024
"""Up to this many open results of a block are decided after the last block."""

WORTH_A_LOOK = 16_384
"""Elements that pay for a second look at what float32 leaves open."""


@dataclass
class Decisions:
    """How many results float64 left open, and a vector rule of the row or multi-precision decided."""

    by_rule: int = 0
    by_digits: int = 0


def evaluate(
    descriptor: MPSNNNeuronDescriptor,
    source: Elements,
    result: StorageFormat,
    slopes: ChannelSlopes | None = None,
    *,
    gradient: Elements | None = None,
    workers: int = 1,
    decisions: Decisions | None = None,
) -> Stored:
    """
    The neuron's value at every element, or the slope there times the incoming gradient, rounded once.

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
    gradient : Elements, optional
        The incoming gradient, of the shape of `source`.
    workers : int
        How many threads share the blocks.
    decisions : Decisions, optional
        Counts what float64 left open; nothing where a table serves. For one worker.

    Returns
    -------
    ndarray
        Of the shape of `source` and the dtype of `result`.
    """
    kernel = KERNELS.get(type(descriptor.row))
    if kernel is None:
        return specified_elements(descriptor, source, result, slopes, gradient)
    x = source.stored
    out = np.empty(x.shape, result.dtype)
    upstream = gradient and Elements(flat(gradient.stored), gradient.storage)
    task = _Task(descriptor, kernel, flat(x), source.storage, out.reshape(-1), result, slopes, decisions, upstream)
    over_blocks(task.forward_block() if upstream is None else task.gradient_block(upstream), x.size, workers)
    task.finish()
    return out


@dataclass(slots=True)
class _Task:
    """
    One call: a neuron, flat inputs and a flat result.

    A block method evaluates the elements from start to stop, but for a few that it leaves to `finish`: deciding them
    together costs less than one by one, and does not hold up other threads.
    """

    descriptor: MPSNNNeuronDescriptor
    kernel: Kernel
    x: Stored
    source: StorageFormat
    out: Stored
    result: StorageFormat
    slopes: ChannelSlopes | None
    decisions: Decisions | None
    upstream: Elements | None = None
    open: list[Index] = field(default_factory=list)
    redo: list[Index] = field(default_factory=list)

    def forward_block(self) -> Block:
        roundings = self.kernel.roundings(self.descriptor)
        if self.source is self.result and self.source.native_roundings >= (2 if roundings is None else roundings):
            return self.native_values
        if (nodes := self.nodes()) is not None:
            return partial(self.by_nodes, nodes, None)
        if self.slopes and self.source is self.result is FLOAT16 and self.x.size >= WORTH_A_LOOK:
            return partial(self.half_values_of_channels, self.slopes)
        table = self.table()
        return self.values if table is None else partial(self.looked_up, table)

    def gradient_block(self, upstream: Elements) -> Block:
        incoming, storage = upstream.stored, upstream.storage
        if self.kernel.slope_is_one(self.descriptor) and storage is self.result:
            return partial(self.copied, incoming)
        is_one_format = self.source is self.result is storage
        if is_one_format and storage.native_roundings >= 1 and not self.kernel.slope_is_rounded(self.descriptor):
            # The product with the incoming gradient is the one rounding.
            return partial(self.native_gradient, incoming)
        if storage is self.source and (nodes := self.nodes()) is not None:
            return partial(self.by_nodes, nodes, incoming)
        table = self.slope_table()
        if storage.dtype == self.result.dtype == np.float16 and self.x.size >= WORTH_A_LOOK:
            if table is not None:
                return partial(self.half_gradient, incoming, table)
            if self.slopes is not None and is_one_format:
                return partial(self.half_gradient_of_channels, incoming, self.slopes)
        return partial(self.gradient, upstream, table)

    def finish(self) -> None:
        """Evaluate what the blocks have left."""
        if self.redo:
            some = np.concatenate(self.redo)
            upstream = self.upstream and Elements(self.upstream.stored[some], self.upstream.storage)
            slopes = self.slopes and self.slopes.at(some)
            task = replace(self, x=self.x[some], out=self.out[some], slopes=slopes, upstream=upstream, open=[], redo=[])
            over_blocks(task.in_float64(), some.size)
            task.finish()
            self.out[some] = task.out
        if self.open:
            some = np.concatenate(self.open)
            self.out[some] = quietly(self._decided, some)

    # ---- in the storage format itself ----

    def native_values(self, start: int, stop: int) -> None:
        x, out, w = self.x[start:stop], self.out[start:stop], thread.now.workspace
        self._begin_native(x, start, w)
        w.y = out
        y = self.kernel.forward(x, self.descriptor, w)
        if y is not out:
            np.copyto(out, y)
        canonical_nan(out)

    def copied(self, incoming: Stored, start: int, stop: int) -> None:
        out = self.out[start:stop]
        np.copyto(out, incoming[start:stop])
        canonical_nan(out)

    def native_gradient(self, incoming: Stored, start: int, stop: int) -> None:
        x, out, w = self.x[start:stop], self.out[start:stop], thread.now.workspace
        self._begin_native(x, start, w)
        slope = self.kernel.derivative(x, self.descriptor, w)
        np.multiply(slope, incoming[start:stop], out=out)
        if not self.descriptor.row.slope_is_constant and not w.regular:
            np.copyto(out, np.nan, where=np.isnan(x))
        canonical_nan(out)

    def _begin_native(self, x: Stored, start: int, w: Workspace) -> None:
        w.block(x.size, x.dtype.type)
        w.begin(x)
        w.wide = False
        self._set_slopes(start, x.size, x.dtype, w)

    def _set_slopes(self, start: int, size: int, dtype: np.dtype[Any], w: Workspace) -> None:
        if self.slopes is not None:
            w.slopes = self.slopes.window(start, size, dtype)
            w.slopes_shrink = self.slopes.shrink

    # ---- in float64 ----

    def in_float64(self) -> Block:
        return self.values if self.upstream is None else partial(self.gradient, self.upstream, self.slope_table())

    def values(self, start: int, stop: int) -> None:
        y = self.computed(self.kernel.forward, start, stop)
        self._round(y, self.kernel.error_bound(self.descriptor), start)

    def gradient(self, upstream: Elements, table: SlopeTable | None, start: int, stop: int) -> None:
        size, memory = stop - start, thread.now
        if table is None:
            slope = self.computed(self.kernel.derivative, start, stop)
        else:
            slope = look_up(table.exact, self.x[start:stop], memory.scratch[:size])
        factors = upstream.storage.decode(upstream.stored[start:stop], memory.upstream[:size])
        product = np.multiply(slope, factors, out=memory.scratch[:size])
        self._round(product, self.kernel.slope_error_bound(self.descriptor), start)

    def computed(self, function: Function, start: int, stop: int) -> Array:
        """The kernel's forward or derivative for some elements, in a buffer of the workspace."""
        stored, w = self.x[start:stop], thread.now.workspace
        w.wide = self.source is FLOAT64
        x = self.source.decode(stored, w.block(stored.size))
        w.begin(stored if self.source is FLOAT32 else x)
        self._set_slopes(start, stored.size, FLOAT64.dtype, w)
        y = function(x, self.descriptor, w)
        if not w.regular and not (self.descriptor.row.slope_is_constant and function == self.kernel.derivative):
            np.copyto(y, np.nan, where=np.isnan(x))
        return y

    def _round(self, values: Array, bound: float, start: int) -> None:
        open_ = round_once(values, bound, self.out[start : start + values.size], self.result, thread.now)
        if open_ is not None:
            open_ += start
            if open_.size <= FEW:
                self.open.append(open_)
            else:
                self.out[open_] = self._decided(open_)

    def _decided(self, open_: Index) -> Stored:
        """Results that float64 leaves open."""
        row, d, result = self.descriptor.row, self.descriptor, self.result
        x, factors = self.source.decode(self.x[open_], np.empty(open_.size)), None
        if self.upstream is None:
            exact, known = row.exact[0], self.kernel.beside(x, d)
        else:
            factors = self.upstream.storage.decode(self.upstream.stored[open_], np.empty(open_.size))
            exact, known = row.exact[1], product_beside(*self.kernel.slope_beside(x, d), factors)
        # The rules give the side of a limit on which a value is; at an infinity it is the limit.
        np.copyto(known, np.nan, where=np.isinf(x))
        decided = result.encode(known, np.empty(x.size, result.dtype))
        unknown = np.isnan(known)
        if self.decisions is not None:
            self.decisions.by_digits += (digits := int(np.count_nonzero(unknown)))
            self.decisions.by_rule += x.size - digits
        if factors is None and self.kernel.is_constant(d):
            x = np.zeros_like(x)
        p = exact_parameters(d)
        factors = None if factors is None else factors[unknown]
        decided[unknown] = settle(lambda x, m: exact(x, p, m), x[unknown], factors, result)
        return decided

    # ---- by table ----

    def table(self) -> Stored | None:
        """The results for all bit patterns of an input of at most 16 bits, if a table pays."""
        if self.source.dtype.itemsize > 2:
            return None
        source, result = self.source, self.result
        if self.slopes is None:
            d = self.descriptor
            make = partial(_forward_table, d, self.kernel, source, result)
            return forward_tables.get((d, source, result), self.x.size, WORTH_A_TABLE, make)
        distinct = self.slopes.distinct
        if self.source.dtype.itemsize == 1 or len(distinct) > DISTINCT_SLOPES:
            return None
        make = partial(_channel_table, distinct, source, result)
        return channel_tables.get((self.slopes.key, source, result), self.x.size, WORTH_A_TABLE * len(distinct), make)

    def slope_table(self) -> SlopeTable | None:
        """The slopes for all bit patterns likewise."""
        if self.source.dtype.itemsize > 2 or self.slopes is not None:
            return None
        make = partial(_slope_table, self.descriptor, self.kernel, self.source)
        return slope_tables.get((self.descriptor, self.source), self.x.size, WORTH_A_TABLE, make)

    def half_gradient(self, incoming: Stored, table: SlopeTable, start: int, stop: int) -> None:
        slope = look_up(table.narrow, self.x[start:stop], thread.now.scratch.view(np.float32)[: stop - start])
        self._times(slope, incoming, start, is_short=table.is_short, is_positive=table.is_positive)

    def half_values_of_channels(self, slopes: ChannelSlopes, start: int, stop: int) -> None:
        # A rectified x is x times its slope.
        if not slopes.shrink:
            self.half_gradient_of_channels(self.x, slopes, start, stop)
            return
        w = thread.now.workspace
        w.block(stop - start, np.float32)
        np.copyto(w.y, slopes.window(start, stop - start, np.float32))
        self._times(w.y, self.x, start, is_rectified=True)

    def half_gradient_of_channels(self, incoming: Stored, slopes: ChannelSlopes, start: int, stop: int) -> None:
        stored, w = self.x[start:stop], thread.now.workspace
        # Only the signs matter.
        x = scaled(stored, w.block(stored.size, np.float32))
        self._begin_native(x, start, w)
        slope = self.kernel.derivative(x, self.descriptor, w)
        if (nan := nan_in_halves(stored)) is not None:
            np.copyto(slope, np.nan, where=nan)
        self._times(slope, incoming, start, is_positive=slopes.shrink)

    def _times(self, slope: Array, incoming: Stored, start: int, **kind: bool) -> None:
        part = slice(start, start + slope.size)
        self._in_float64_where(times_slope(slope, incoming[part], self.out[part], thread.now, **kind), part)

    # ---- by nodes ----

    def nodes(self) -> Nodes | None:
        """The forward, or the derivative if there is an incoming gradient, by nodes, if that pays."""
        d, roots = self.descriptor, self.kernel.roots
        if roots is None or not self.source is self.result is FLOAT32 or self.x.size < WORTH_A_LOOK:
            return None
        is_slope = self.upstream is not None
        make = partial(_nodes, d, self.kernel.derivative if is_slope else self.kernel.forward, roots[is_slope])
        return node_tables.get((d, is_slope), self.x.size, WORTH_NODES, make)

    def by_nodes(self, nodes: Nodes, incoming: Stored | None, start: int, stop: int) -> None:
        part = slice(start, stop)
        factors = None if incoming is None else incoming[part]
        self._in_float64_where(nodes.round_once(self.x[part], factors, self.out[part], thread.now), part)

    def _in_float64_where(self, open_: Index | None, part: slice) -> None:
        """Evaluate in float64 what float32 leaves open, later; if it is much, all of the block."""
        if open_ is None or open_.size > (part.stop - part.start) // 4:
            self.in_float64()(part.start, part.stop)
        elif open_.size:
            self.redo.append(open_ + part.start)

    def looked_up(self, table: Stored, start: int, stop: int) -> None:
        stored, out = self.x[start:stop], self.out[start:stop]
        if self.slopes is None or len(self.slopes.distinct) == 1:
            look_up(table, stored, out)
        else:
            look_up(table, stored, out, self.slopes.ranks.window(start, stored.size, np.intp))


def _forward_table(
    descriptor: MPSNNNeuronDescriptor, kernel: Kernel, source: StorageFormat, result: StorageFormat
) -> Stored:
    patterns = source.patterns()
    table = np.empty(patterns.size, result.dtype)
    task = _Task(descriptor, kernel, patterns, source, table, result, None, None)
    over_blocks(task.values, patterns.size)
    task.finish()
    return table


def _channel_table(distinct: tuple[float, ...], source: StorageFormat, result: StorageFormat) -> Stored:
    """The tables of a rectifier with each distinct slope, concatenated."""
    tables = np.empty((len(distinct), 65_536), result.dtype)
    for table, slope in zip(tables, distinct, strict=True):
        rectifier = MPSNNNeuronDescriptor(MPSCNNNeuronType.reLU, a=slope)
        np.copyto(table, _forward_table(rectifier, KERNELS[type(rectifier.row)], source, result))
    return tables.reshape(-1)


def _nodes(descriptor: MPSNNNeuronDescriptor, function: Function, root: tuple[float, float]) -> Nodes:
    task = _Task(descriptor, KERNELS[type(descriptor.row)], np.empty(0), FLOAT64, np.empty(0), FLOAT64, None, None)

    def values(x: Array) -> Array:
        found, at_x = np.empty(x.size), replace(task, x=x)
        over_blocks(lambda *part: np.copyto(found[slice(*part)], at_x.computed(function, *part)), x.size)
        return found

    return Nodes(values, root)


def _slope_table(descriptor: MPSNNNeuronDescriptor, kernel: Kernel, source: StorageFormat) -> SlopeTable:
    patterns = source.patterns()
    table = np.empty(patterns.size)
    task = _Task(descriptor, kernel, patterns, source, table, FLOAT64, None, None)
    over_blocks(lambda *part: np.copyto(table[slice(*part)], task.computed(kernel.derivative, *part)), table.size)
    made: SlopeTable = quietly(SlopeTable, table)
    return made
