"""Standard streams that cannot change the exit status: closed ones, broken pipes, narrow encodings."""

from __future__ import annotations

import contextlib
import io
import os
import select
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = ["standard_streams"]


@contextlib.contextmanager
def standard_streams() -> Iterator[None]:
    """
    In this context stdout and stderr can be written to, whatever they are.

    Characters that they cannot encode are escaped. Output that nobody reads is lost silently, and so is output that
    stderr cannot take. An error of stdout, such as a full disk, is raised once.

    Streams that were replaced before are left as they are.
    """
    before = sys.stdout, sys.stderr
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # So that no file that is opened later takes the number of a stream. This takes the lowest free one.
            os.open(os.devnull, os.O_RDWR)
    try:
        if sys.stdout is sys.__stdout__:
            sys.stdout = _stream(sys.stdout, 1, "standard output")
        if sys.stderr is sys.__stderr__:
            sys.stderr = _stream(sys.stderr, 2, None)
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()
        sys.stdout, sys.stderr = before


def _stream(original: TextIO | None, descriptor: int, name: str | None) -> TextIO:
    """A stream to the same file as the original; its errors have a name, and are ignored without one."""
    if original is not None:
        original.flush()
        descriptor = original.fileno()
    raw = _Raw(descriptor, name)
    encoding = "utf-8" if original is None else original.encoding
    lines = name is None or raw.isatty()
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding, errors="backslashreplace", line_buffering=lines)


class _Raw(io.RawIOBase):
    def __init__(self, descriptor: int, name: str | None) -> None:
        super().__init__()
        self._descriptor, self._name, self._lost = descriptor, name, False

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def write(self, data: ReadableBuffer) -> int:
        size = memoryview(data).nbytes
        while not self._lost:
            try:
                return os.write(self._descriptor, data)
            except BlockingIOError:
                select.select([], [self._descriptor], [])
            except BrokenPipeError:
                self._lost = True
            except OSError as error:
                self._lost = True
                if self._name is not None:
                    raise OSError(error.errno, error.strerror, self._name) from None
        return size
