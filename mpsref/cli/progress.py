"""How far a command has come, on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

__all__ = ["Bar", "Progress"]


class Progress:
    """A line on stderr that counts nodes, on a terminal only, and leaves nothing behind."""

    def __enter__(self) -> Callable[[int, int], None] | None:
        return self._show if sys.stderr.isatty() else None

    def __exit__(self, *_: object) -> None:
        if sys.stderr.isatty():
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def _show(self, done: int, of_all: int) -> None:
        if done == of_all or done % max(of_all // 100, 1) == 0:
            print(f"\r\x1b[Knode {done} of {of_all}", end="", file=sys.stderr, flush=True)


class Bar(Progress):
    """The same for many inputs: what, how much is done, and how long it will take."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._began: tuple[float, int] | None = None

    def _show(self, done: int, of_all: int) -> None:
        now = time.monotonic()
        self._began = began, before = self._began or (now, done)
        left = ""
        if done > before:
            seconds = round((of_all - done) * (now - began) / (done - before))
            left = f"  {(done - before) / (now - began) / 1e6:,.0f} M/s  {seconds // 60}:{seconds % 60:02} left"
        bar = "#" * (24 * done // of_all)
        print(f"\r\x1b[K{self._title} [{bar:24}] {100 * done // of_all} %{left}", end="", file=sys.stderr, flush=True)
