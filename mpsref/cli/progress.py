"""Progress of a command, on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

__all__ = ["Bar", "Progress"]


class Progress:
    """A line that counts nodes, on a terminal only, and is erased at the end."""

    def __enter__(self) -> Callable[[int, int], None] | None:
        return self._show if sys.stderr.isatty() else None

    def __exit__(self, *_: object) -> None:
        if sys.stderr.isatty():
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def _show(self, done: int, total: int) -> None:
        if done == total or done % max(total // 100, 1) == 0:
            print(f"\r\x1b[Knode {done} of {total}", end="", file=sys.stderr, flush=True)


class Bar(Progress):
    """A bar for many inputs, with a title, the speed and the time left."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._began: tuple[float, int] | None = None

    def _show(self, done: int, total: int) -> None:
        now = time.monotonic()
        self._began = began, before = self._began or (now, done)
        speed = ""
        if done > before:
            seconds = round((total - done) * (now - began) / (done - before))
            speed = f"  {(done - before) / (now - began) / 1e6:,.0f} M/s  {seconds // 60}:{seconds % 60:02} left"
        bar = "#" * (24 * done // total)
        print(f"\r\x1b[K{self._title} [{bar:24}] {100 * done // total} %{speed}", end="", file=sys.stderr, flush=True)
