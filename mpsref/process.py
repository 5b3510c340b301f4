"""How the process of the command line ends: by signals, at once or in order; and by a fault, with one line."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from types import FrameType

from mpsref.display import printable
from mpsref.errors import described

__all__ = ["FAULT", "SIGNALS", "complain", "ended_by", "fault", "handle_signals", "working"]

FAULT = 3
"""The exit status of a fault of mpsref itself."""

LONGEST = 2_000
"""Characters of a message: it may quote a file."""

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""What ends the process in order; Windows has no SIGHUP."""


class _State:
    works = False
    signal: int | None = None


def handle_signals() -> None:
    """
    Let signals end this process, with 128 and their number as its status.

    What is ignored, as ``nohup`` does it, stays ignored.
    """
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _end)


@contextlib.contextmanager
def working() -> Iterator[None]:
    """In this context a signal raises `KeyboardInterrupt`, so that what is half done can be undone or kept."""
    _State.works = True
    try:
        yield
    finally:
        _State.works = False


def ended_by() -> int | None:
    """The signal that came while we worked, even if whatever it met has swallowed the exception."""
    return _State.signal


def fault(error: BaseException) -> int:
    """Report an error that nobody foresaw, in one line, and return the exit status."""
    words = f"{described(error)}: a fault of mpsref"
    if os.environ.get("MPSREF_DEBUG", "0") != "0":
        traceback.print_exception(error)
        return complain(words, FAULT)
    return complain(f"{words}: set MPSREF_DEBUG=1 for the traceback", FAULT)


def complain(message: str, status: int, program: str = "mpsref") -> int:
    """Print a message on stderr, in one line that cannot move the cursor, and return the status."""
    line = printable(" ".join(message.split()))
    if len(line) > LONGEST:
        line = f"{line[: LONGEST // 2]} ... {line[-LONGEST // 2 :]}"
    print(f"{program}: {line}", file=sys.stderr)  # noqa: T201
    return status


def _end(number: int, _frame: FrameType | None) -> None:
    if not _State.works:
        # Nothing is half written, and what is being imported would make another error of an exception.
        os._exit(128 + number)
    _State.signal = number
    raise KeyboardInterrupt
