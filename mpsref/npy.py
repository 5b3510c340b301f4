"""The header of a ``.npy`` file, read as if hostile: nothing in it is evaluated."""

from __future__ import annotations

import math
import re
from typing import IO, Any, NamedTuple

import numpy as np

from mpsref.arrays import Stored
from mpsref.documents import exactly

__all__ = ["NpyHeader", "little_endian", "read_header"]

MAGIC = b"\x93NUMPY"
LENGTH_BYTES = {b"\1\0": 2, b"\2\0": 4, b"\3\0": 4}
"""By version; the third differs from the second only in UTF-8, which headers of plain numbers do not need."""

LONGEST_HEADER = 10_000
MOST_AXES = 64

_SIZES = r"\((?:\s*[0-9]{1,19}L?\s*,)*(?:\s*[0-9]{1,19}L?)?\s*\)"
_ENTRY = re.compile(
    rf"""\s*(['"])(?:(descr)\1\s*:\s*(['"])([<>|=]?[a-zA-Z?][0-9]{{0,5}})\3"""
    rf"""|(fortran_order)\1\s*:\s*(True|False)|(shape)\1\s*:\s*({_SIZES}))\s*""",
    re.ASCII,
)


class NpyHeader(NamedTuple):
    """The shape, dtype and order of a ``.npy`` file's elements."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    is_fortran: bool
    length: int
    """Bytes before the first element."""

    @property
    def data_bytes(self) -> int:
        """The size of the elements in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    def array(self, data: bytes) -> np.ndarray[Any, Any]:
        """The elements as a read-only array."""
        return np.frombuffer(data, self.dtype).reshape(self.shape, order="F" if self.is_fortran else "C")


def read_header(file: IO[bytes]) -> NpyHeader:
    """Read the header of a file; raises `ValueError` if it is not that of an array of numbers."""
    start = file.read(8)
    if start[:2] == b"PK":
        raise ValueError("an archive: give a single .npy array")
    width = LENGTH_BYTES.get(start[6:], 0) if start[:6] == MAGIC else 0
    if not width:
        raise ValueError("not a .npy file")
    length = int.from_bytes(exactly(file, width), "little")
    if length > LONGEST_HEADER:
        raise ValueError(f"a header of {length} bytes")
    fields = _fields(exactly(file, length).decode("latin-1"))
    shape = tuple(int(size) for size in re.findall("[0-9]+", fields["shape"]))
    if len(shape) > MOST_AXES:
        raise ValueError(f"{len(shape)} axes")
    return NpyHeader(shape, _dtype(fields["descr"]), fields["fortran_order"] == "True", 8 + width + length)


def _fields(text: str) -> dict[str, str]:
    """The three entries of a header, which is a dictionary literal, in any order."""
    body = text.strip()
    fields: dict[str, str] = {}
    place, end = 1, len(body) - 1
    while place < end and (entry := _ENTRY.match(body, place, end)):
        _, descr, _, code, order, flag, shape, sizes = entry.groups()
        fields |= {name: value for name, value in ((descr, code), (order, flag), (shape, sizes)) if name}
        place = entry.end()
        if body[place] == ",":
            place += 1
        elif place != end:
            break
    if body[:1] != "{" or body[-1:] != "}" or body[place:end].strip() or len(fields) != 3:
        raise ValueError("descr, fortran_order and shape are needed in the header, and no more")
    return fields


def _dtype(code: str) -> np.dtype[Any]:
    # Text, objects and records are not numbers, and making their dtypes may warn.
    if re.fullmatch("[<>|=]?[?biufc][0-9]{0,2}", code):
        try:
            return np.dtype(code)
        except TypeError:
            pass
    raise ValueError(f"dtype {code!r}")


def little_endian(array: Stored) -> Stored:
    """The array as files hold it, contiguous and little-endian on every machine."""
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
