"""Tables of a function at all bit patterns of a 16-bit input, or at nodes, each built once enough elements need it."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

import numpy as np

from mpsref.arrays import Index, Stored
from mpsref.neuron.halves import SlopeTable
from mpsref.neuron.nodes import Nodes
from mpsref.neuron.threads import thread

__all__ = [
    "DISTINCT_SLOPES",
    "WORTH_A_TABLE",
    "WORTH_NODES",
    "Tables",
    "channel_tables",
    "forward_tables",
    "look_up",
    "node_tables",
    "slope_tables",
]

WORTH_A_TABLE = 131_072
"""Elements of a 16-bit input that pay for building a table."""

WORTH_NODES = 262_144
"""Elements in float32 that pay for the nodes of a function."""

FORWARD_TABLES, SLOPE_TABLES, CHANNEL_TABLES, NODE_TABLES = 24, 6, 1, 2
"""
How many tables are kept: of at most 128 KiB each, of 768 KiB, of `DISTINCT_SLOPES` times 128 KiB, and of 896 KiB;
17.25 MiB.
"""

DISTINCT_SLOPES = 64
"""How many distinct slopes one table may serve, at 128 KiB each."""


Table = TypeVar("Table")


class Tables(Generic[Table]):
    """The most recently used tables, each built once enough elements need it."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._tables: OrderedDict[Hashable, Table] = OrderedDict()
        self._demand: dict[Hashable, int] = {}
        self.unlock()

    def unlock(self) -> None:
        """Take a new lock: after a fork another thread may have held the old one."""
        self._lock = threading.RLock()

    def get(self, key: Hashable, elements: int, worth: int, make: Callable[[], Table]) -> Table | None:
        """The table for `key`, if it exists or `elements` more make it worth building."""
        with self._lock:
            table = self._tables.get(key)
            if table is not None:
                self._tables.move_to_end(key)
                return table
            if len(self._demand) > 64 * self._capacity:
                self._demand.clear()
            self._demand[key] = self._demand.get(key, 0) + elements
            if self._demand[key] < worth:
                return None
        table = make()
        with self._lock:
            self._demand.pop(key, None)
            self._tables[key] = table
            while len(self._tables) > self._capacity:
                self._tables.popitem(last=False)
        return table


forward_tables: Tables[Stored] = Tables(FORWARD_TABLES)
slope_tables: Tables[SlopeTable] = Tables(SLOPE_TABLES)
channel_tables: Tables[Stored] = Tables(CHANNEL_TABLES)
node_tables: Tables[Nodes] = Tables(NODE_TABLES)


def look_up(table: Stored, stored: Stored, out: Stored, rank: Index | None = None) -> Stored:
    """``table[bits of the element]``: numpy's fastest way is take with an intp index, out and "wrap"."""
    index = thread.now.index[: stored.size]
    bits = stored.view(f"u{stored.itemsize}")
    if rank is None:
        np.copyto(index, bits)
    else:
        np.add(rank, bits, out=index)
    return table.take(index, None, out, "wrap")


def _after_fork() -> None:
    for tables in (forward_tables, slope_tables, channel_tables, node_tables):
        tables.unlock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
