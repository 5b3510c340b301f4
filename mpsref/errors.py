"""The errors that mpsref raises: one base class, and the builtin kind that a caller would expect."""

from __future__ import annotations

import reprlib
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
"""Characters of what is said of a file."""


LONGEST = 500
"""Characters of somebody else's error that a message quotes."""


def described(error: BaseException) -> str:
    """Type and message of somebody else's error in one line, which the error itself may be unable to say."""
    try:
        text = " ".join(str(error).split())
    except BaseException:  # noqa: BLE001  its __str__ may raise anything
        text = "its message cannot be shown"
    return f"{type(error).__name__}: {text}"[:LONGEST].rstrip(": ")


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 200


def shown(value: object) -> str:
    """A value in a message: as Python writes it, the middle of much left out; its type, if it cannot be shown."""
    try:
        return " ".join(_SHORT.repr(value).splitlines())
    except BaseException:  # noqa: BLE001  its __repr__ may raise anything
        return f"a {type(value).__name__}"


class MPSRefError(Exception):
    """Base class of every error that mpsref raises on purpose."""


class ParameterError(MPSRefError, ValueError):
    """A neuron's parameter is missing, not one of its own, or not a finite float32."""


class PropertyError(MPSRefError, AttributeError):
    """An attribute that an object does not have, or one that cannot be set."""


class UnavailableError(MPSRefError, TypeError):
    """An initialiser or method that Apple marks unavailable, or that a class does not have."""


class ImageError(MPSRefError, ValueError):
    """An image, array or byte buffer has the wrong shape, layout or format."""


class SourceError(MPSRefError, LookupError):
    """A source image of a graph is missing, or one too many was given."""


class FileFormatError(MPSRefError, ValueError):
    """A file cannot be read as what it claims to be; of a message that quotes much of it, the middle is left out."""

    def __init__(self, message: str) -> None:
        message = message if isinstance(message, str) else shown(message)  # type: ignore[redundant-expr]
        half = LONGEST_MESSAGE // 2
        super().__init__(message if len(message) <= LONGEST_MESSAGE else f"{message[: half - 5]} ... {message[-half:]}")


class FloatingPointModeError(MPSRefError, FloatingPointError):
    """The thread flushes subnormal numbers to zero, or does not round to nearest: results would be wrong."""


class DependencyError(MPSRefError, ImportError):
    """Something that only an extra installs is missing."""


class ImplementationError(MPSRefError, RuntimeError):
    """Somebody's implementation cannot be imported, raises an error, or returns what it must not."""


class VerificationError(MPSRefError, AssertionError):
    """
    Something is not what the reference computes, or what was expected.

    Attributes
    ----------
    report : mpsref.verify.Report, mpsref.sweep.SweepReport, a report of mpsref.testing, or None
        Everything that was compared; None where shapes or formats already differ.
    """

    def __init__(self, message: str, report: Any) -> None:
        super().__init__(message)
        self.report = report

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.args[0], self.report)
