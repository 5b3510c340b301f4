"""Tables of the results for all bit patterns of a 16-bit source, each made when enough elements have asked for it."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable

import numpy as np

from mpsref.arrays import Index, Stored
from mpsref.neuron.threads import thread

__all__ = ["DISTINCT_SLOPES", "WORTH_A_TABLE", "Tables", "channel_tables", "forward_tables", "look_up", "slope_tables"]

WORTH_A_TABLE = 131_072
"""Elements of a 16-bit source that must have asked for a table before it is made."""

FORWARD_TABLES, SLOPE_TABLES, CHANNEL_TABLES = 24, 6, 1
"""How many tables are kept: of at most 128 KiB each, of 512 KiB, and for `DISTINCT_SLOPES` at once; 14 MiB in all."""

DISTINCT_SLOPES = 64
"""How many different slopes of channels one table may serve, at 128 KiB each."""


class Tables:
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


forward_tables, slope_tables, channel_tables = map(Tables, (FORWARD_TABLES, SLOPE_TABLES, CHANNEL_TABLES))


def look_up(table: Stored, stored: Stored, out: Stored, rank: Index | None = None) -> Stored:
    """``table[bits of the element]``, by far the fastest way that numpy has: take with an intp index and out."""
    index = thread.now.index[: stored.size]
    bits = stored.view(f"u{stored.itemsize}")
    if rank is None:
        np.copyto(index, bits)
    else:
        np.add(rank, bits, out=index)
    return np.take(table, index, out=out, mode="clip")


def _after_fork() -> None:
    for tables in (forward_tables, slope_tables, channel_tables):
        tables.unlock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
