"""Gradients of weights and biases in a recording: files of arrays, not read yet."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mpsref.arrays import Stored
from mpsref.documents import exactly, opened
from mpsref.errors import FileFormatError
from mpsref.npy import read_header

__all__ = ["STATE_ARRAYS", "RecordedArray"]

STATE_ARRAYS = ("gradient_for_weights", "gradient_for_biases")
"""What a state can hold."""

MOST_BYTES = 2**30


@dataclass(frozen=True)
class RecordedArray:
    """
    An array of a state.

    Attributes
    ----------
    path : Path
        A ``.npy`` file, or raw little-endian elements.
    data_type : str or None
        ``float32`` or ``float16``; None where a ``.npy`` file says it.
    shape : tuple of int or None
        Likewise.
    layout : str
        The order of the axes of weights: ``OHWI``, ``OIHW``, ``HWIO`` or ``OHW``.
    folder : Path
        The folder that must contain the file, links resolved.
    """

    path: Path
    data_type: str | None
    shape: tuple[int, ...] | None
    layout: str
    folder: Path

    @classmethod
    def of_entry(cls, path: Path, entry: Mapping[str, Any], folder: Path) -> RecordedArray:
        """The array of an entry of a recording file."""
        shape = tuple(entry["shape"]) if "shape" in entry else None
        made = cls(path, entry.get("data_type"), shape, entry.get("layout", "OHWI"), folder)
        if not path.name.endswith(".npy") and (shape is None or made.data_type is None):
            raise FileFormatError("shape: missing: a file that is not .npy needs shape and data_type")
        return made

    def elements(self) -> Stored:
        """Read the file; raises `FileFormatError` if it cannot be read, or is not what the entry says."""
        try:
            with opened(self.path, self.folder) as (file, size):
                if size > MOST_BYTES:
                    raise ValueError(f"larger than {MOST_BYTES >> 20} MiB")  # noqa: TRY301
                if self.path.name.endswith(".npy"):
                    header = read_header(file)
                    array = header.array(exactly(file, header.data_bytes))
                    array = array.astype(array.dtype.newbyteorder("="))
                else:
                    dtype = np.dtype(self.data_type).newbyteorder("<")
                    needed = math.prod(self.shape or ()) * dtype.itemsize
                    if size != needed:
                        raise ValueError(f"{size} bytes, not {needed}")  # noqa: TRY301
                    array = np.frombuffer(exactly(file, size), dtype).reshape(self.shape or ())
                    array = array.astype(dtype.newbyteorder("="))
        except FileFormatError:
            raise
        except (ValueError, OSError) as error:
            raise FileFormatError(
                f"{self.path}: cannot be read as the recording says: {error}: write it again"
            ) from None
        if array.dtype not in (np.float16, np.float32) or self.data_type not in (None, array.dtype.name):
            raise FileFormatError(f"{self.path}: holds {array.dtype}: give float32 or float16, as data_type says")
        if self.shape not in (None, array.shape):
            raise FileFormatError(f"{self.path}: has shape {array.shape}, not {self.shape}: fix shape")
        return array

    def weights(self, shape: tuple[int, int, int, int]) -> Stored:
        """The array as OHWI, of such a shape."""
        array = self.elements()
        sizes = dict(zip("OHWI", shape, strict=True))
        expected = tuple(sizes[axis] for axis in self.layout)
        if array.shape != expected:
            raise FileFormatError(f"{self.path}: has shape {array.shape}: the layer has {expected}, {self.layout}")
        if self.layout == "OHW":
            return array[..., np.newaxis]
        return np.ascontiguousarray(array.transpose([self.layout.index(axis) for axis in "OHWI"]))
