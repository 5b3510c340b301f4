"""Handles: the caller's tags for images and states."""

from __future__ import annotations

from typing import Protocol, TypeAlias, runtime_checkable

from mpsref.errors import ParameterError, described
from mpsref.image import MPSImage

__all__ = ["Handle", "MPSHandle", "handle_label"]


@runtime_checkable
class MPSHandle(Protocol):
    """Any object with a label. Source: ``MPSNNGraphNodes.h``."""

    def label(self) -> str | None:
        """The name to show."""


Handle: TypeAlias = str | MPSHandle | MPSImage
"""The caller's tag for an image or state; only its label is ever read."""


def handle_label(handle: Handle | None) -> str | None:
    """The label of a handle."""
    if isinstance(handle, MPSImage):
        label = handle.label
    elif handle is None or isinstance(handle, str):
        label = handle
    else:
        try:
            label = handle.label()
        except Exception as error:
            raise ParameterError(f"label of a {type(handle).__name__} raised {described(error)}") from error
    if label is not None and not isinstance(label, str):
        raise ParameterError(f"label of a handle gave a {type(label).__name__}: it must give a string or None")
    return None if label is None else str.__str__(label)
