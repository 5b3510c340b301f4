"""The errors that mpsref raises: one base class, and the builtin kind that a caller would expect."""

from __future__ import annotations

import reprlib
import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = [
    "DependencyError",
    "FileFormatError",
    "FloatingPointModeError",
    "ImageError",
    "ImplementationError",
    "MPSRefError",
    "ParameterError",
    "PropertyError",
    "SourceError",
    "UnavailableError",
    "VerificationError",
]

LONGEST_MESSAGE = 2000
"""Characters of a message about a file."""

LONGEST = 500
"""Characters of a foreign error that a message quotes."""


def described(error: BaseException) -> str:
    """Type and message of a foreign error in one line."""
    try:
        text = " ".join(str(error).split())
    except BaseException:  # noqa: BLE001  its __str__ may raise anything
        text = "its message cannot be shown"
    return f"{type(error).__name__}: {text}"[:LONGEST].rstrip(": ")


def raised(error: BaseException) -> str:
    """A foreign error, and the line of the caller's own code that it came from, else that of a library."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _is_standard(Path(frame.filename))]
    own = [frame for frame in frames if PACKAGES.isdisjoint(Path(frame.filename).parts)] or frames
    if not own:
        return described(error)
    *_, frame = own
    line = f": {frame.line}" if frame.line else ""
    where = f" (in {frame.filename}, line {frame.lineno}, {frame.name}{line}"
    return f"{described(error)}{where[:LONGEST]})"


PACKAGES = frozenset({"site-packages", "dist-packages"})


def _is_standard(path: Path) -> bool:
    """Whether a file is of this package, or of Python itself."""
    is_frozen = path.name.startswith("<frozen")
    is_python = path.is_relative_to(sysconfig.get_path("stdlib")) and PACKAGES.isdisjoint(path.parts)
    return is_frozen or is_python or path.is_relative_to(Path(__file__).parent)


CONVERSION_ERRORS = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What converting an argument may raise; not every Exception, since one of a signal handler is to pass."""

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 200


def shown(value: object) -> str:
    """A value in a message: as Python writes it, the middle of much left out; its type, if it cannot be shown."""
    try:
        return " ".join(_SHORT.repr(value).splitlines())
    except Exception:  # noqa: BLE001  its __repr__ may raise anything
        return f"a {type(value).__name__}"


class MPSRefError(Exception):
    """Base class of every error that mpsref raises on purpose."""


class ParameterError(MPSRefError, ValueError):
    """A neuron's parameter is missing, not one of its own, or not a finite float32."""


class PropertyError(MPSRefError, AttributeError):
    """An object does not have the attribute, or it cannot be set."""


class UnavailableError(MPSRefError, TypeError):
    """Apple marks the initialiser or method unavailable, or the class does not have it."""


class ImageError(MPSRefError, ValueError):
    """An image, array or byte buffer has the wrong shape, layout or format."""


class SourceError(MPSRefError, LookupError):
    """A source image of a graph is missing, or there is one too many."""


class FileFormatError(MPSRefError, ValueError):
    """A file is not what it claims to be, or an option is wrong; the middle of a long message is left out."""

    def __init__(self, message: str) -> None:
        message = message if isinstance(message, str) else shown(message)  # type: ignore[redundant-expr]
        half = LONGEST_MESSAGE // 2
        super().__init__(message if len(message) <= LONGEST_MESSAGE else f"{message[: half - 5]} ... {message[-half:]}")


class FloatingPointModeError(MPSRefError, FloatingPointError):
    """The thread flushes subnormal numbers to zero, or does not round to nearest: results would be wrong."""


class DependencyError(MPSRefError, ImportError):
    """A package that only an extra installs is missing."""


class ImplementationError(MPSRefError, RuntimeError):
    """An implementation under test cannot be imported, raises an error, or returns something invalid."""


class VerificationError(MPSRefError, AssertionError):
    """
    Results differ from the reference, or from what was expected.

    Attributes
    ----------
    report : mpsref.verify.Report, mpsref.sweep.SweepReport, a report of mpsref.testing, or None
        The whole comparison; None where shapes or formats already differ.
    """

    def __init__(self, message: str, report: Any) -> None:
        super().__init__(message)
        self.report = report

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.args[0], self.report)


@contextmanager
def naming(where: object, kind: type[MPSRefError] = MPSRefError) -> Iterator[None]:
    """In this context errors of a kind become `FileFormatError`, with a message that begins with a file or field."""
    try:
        yield
    except kind as error:
        raise FileFormatError(f"{where}: {error}") from None
