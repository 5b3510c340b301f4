"""
Files of several named arrays: ``.npz`` and ``.safetensors``, read as if hostile.

Sizes are checked before memory is allocated, and nothing is unpickled.
"""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from mpsref.arrays import Stored
from mpsref.documents import LARGEST_DOCUMENT, encoded, exactly, opened, parse
from mpsref.errors import FileFormatError, naming
from mpsref.files import write_atomically
from mpsref.npy import little_endian, read_header
from mpsref.storage import FORMATS

__all__ = ["read_npz", "read_safetensors", "write_npz", "write_safetensors"]

DTYPES = {
    f"{'F' if storage.dtype.kind == 'f' else 'U'}{8 * storage.dtype.itemsize}": storage.dtype
    for storage in FORMATS.values()
}
"""The dtypes of images by their names in safetensors."""

MOST_ARRAYS = 300_000

MOST_INFLATED, LARGEST_RATIO = 64 * 2**20, 100
"""An archive may unpack to so many bytes, or to so many times its own size."""

LONGEST_NAME = 1000
"""Characters of an array's name in a written file, as in a graph."""


def _check(path: Path, names: Mapping[str, Stored]) -> None:
    """Raise `FileFormatError` for arrays that could not be read back from a file of either kind."""
    for name, array in names.items():
        if array.dtype not in DTYPES.values():
            raise FileFormatError(f"{path}: {name!r:.120} is {array.dtype}, which only raw files hold: convert it")
    if len(names) > MOST_ARRAYS:
        raise FileFormatError(f"{path}: {len(names)} arrays: no more than {MOST_ARRAYS} are read")
    for name in names:
        if len(name) > LONGEST_NAME or (not name.isascii() and any("\ud800" <= c <= "\udfff" for c in name)):
            raise FileFormatError(f"{path}: {name!r:.120}: give a name of at most {LONGEST_NAME} Unicode characters")


# ---- safetensors ----


def read_safetensors(path: Path, folder: Path | None = None) -> dict[str, Stored]:
    """
    Read a ``.safetensors`` file: arrays of dtype F16, F32, U8 and U16 by name.

    Raises
    ------
    FileFormatError
        The file is cut short, its header is invalid, or its arrays overlap, leave gaps or have another dtype.
    """
    try:
        with opened(path, folder) as (file, size):
            length = int.from_bytes(exactly(file, 8), "little")
            if length > min(LARGEST_DOCUMENT, size):
                raise ValueError(f"cut short, or too large: the header has {length} bytes")  # noqa: TRY301
            header = parse(exactly(file, length))
            return {
                name: np.frombuffer(exactly(file, end - begin), dtype.newbyteorder("<")).astype(dtype).reshape(shape)
                for name, dtype, shape, begin, end in _tensors(header, size - 8 - length)
            }
    except FileFormatError:
        raise
    except (ValueError, OSError) as error:
        raise FileFormatError(f"{path}: not a .safetensors file of images: {error}") from None


def _tensors(header: Any, size: int) -> Iterator[tuple[str, np.dtype[Any], tuple[int, ...], int, int]]:
    """Name, dtype, shape and place of each array, in the order of the file, when all have been checked."""
    if not isinstance(header, dict) or len(header) > MOST_ARRAYS:
        raise ValueError(f"the header is no object of at most {MOST_ARRAYS} arrays")
    tensors = [_tensor(name, entry) for name, entry in header.items() if name != "__metadata__"]
    tensors.sort(key=lambda tensor: tensor[3:])
    place = 0
    for name, _, _, begin, end in tensors:
        if begin != place:
            raise ValueError(f"{name!r}: data_offsets: begins at {begin}, not at {place} where the one before ends")
        place = end
    if place != size:
        raise ValueError(f"the arrays have {place} bytes, the file has {size}")
    yield from tensors


def _tensor(name: str, entry: Any) -> tuple[str, np.dtype[Any], tuple[int, ...], int, int]:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{name!r}: dtype, shape and data_offsets are needed, and no more")
    if not isinstance(entry["dtype"], str) or entry["dtype"] not in DTYPES:
        raise ValueError(f"{name!r}: dtype: is {entry['dtype']!r:.40}: images have {', '.join(DTYPES)}")
    dtype, shape, offsets = DTYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
    for field, numbers in (("shape", shape), ("data_offsets", offsets)):
        if not isinstance(numbers, list) or len(numbers) > 8 or not all(type(n) is int and n >= 0 for n in numbers):
            raise ValueError(f"{name!r}: {field}: is no list of sizes")
    if len(offsets) != 2 or offsets[1] - offsets[0] != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{name!r}: data_offsets: are {offsets}, which shape {shape} of {entry['dtype']} does not fit")
    return name, dtype, tuple(shape), offsets[0], offsets[1]


def write_safetensors(path: Path, arrays: Mapping[str, Stored]) -> None:
    """
    Write a ``.safetensors`` file, whole or not at all.

    Raises
    ------
    FileFormatError
        A name is reserved or too long, or there are too many arrays.
    """
    _check(path, arrays)
    if "__metadata__" in arrays:
        raise FileFormatError(f"{path}: '__metadata__' is no name for an array there: choose another format")
    codes = {dtype: code for code, dtype in DTYPES.items()}
    # Wide elements first, so that each array begins at a multiple of its element's size.
    ordered = sorted(arrays.items(), key=lambda item: -item[1].itemsize)
    header, place = {}, 0
    for name, array in ordered:
        header[name] = {
            "dtype": codes[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [place, place + array.nbytes],
        }
        place += array.nbytes
    text = json.dumps(header)
    with naming(f"{path}: the header"):
        data = encoded(text + " " * (-len(text) % 8))

    def write(file: IO[bytes]) -> None:
        file.write(len(data).to_bytes(8, "little") + data)
        for _, array in ordered:
            file.write(little_endian(array).tobytes())

    write_atomically(path, write)


# ---- npz ----


def read_npz(path: Path) -> dict[str, Stored]:
    """
    Read a ``.npz`` file: arrays of float16, float32, uint8 and uint16 by name; never a pickle.

    Raises
    ------
    FileFormatError
        The file is not an archive of such arrays, is damaged, or would unpack to more than a hundred times its size.
    """
    try:
        with opened(path) as (file, size), zipfile.ZipFile(file) as archive:
            return {name: _member(archive, member) for name, member in _members(archive, size).items()}
    except FileFormatError:
        raise
    except Exception as error:  # noqa: BLE001 - zipfile and zlib raise errors of many kinds for damaged archives
        raise FileFormatError(f"{path}: not a .npz file of images: {error}") from None


def _members(archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    """The arrays by name, unless the archive unpacks to far more than its size."""
    members = archive.infolist()
    unpacked = sum(member.file_size for member in members)
    if unpacked > max(MOST_INFLATED, LARGEST_RATIO * size):
        raise ValueError(f"{size} bytes that unpack to {unpacked}: save it without compression")
    arrays = {member.filename.removesuffix(".npy"): member for member in members}
    if len(members) > MOST_ARRAYS or len(arrays) < len(members):
        raise ValueError(f"two arrays of one name, or more than {MOST_ARRAYS}")
    return arrays


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Stored:
    if not member.filename.endswith(".npy"):
        raise ValueError(f"{member.filename!r} is not a .npy array")
    with archive.open(member) as file:
        header = read_header(file)
        stored = header.dtype.newbyteorder("=")
        if stored not in DTYPES.values():
            raise ValueError(
                f"{member.filename!r}: dtype {header.dtype}: images have float16, float32, uint8 or uint16"
            )
        if header.length + header.data_bytes != member.file_size:
            raise ValueError(f"{member.filename!r}: {member.file_size} bytes are not what shape {header.shape} needs")
        # Reading the whole member makes zipfile check its CRC.
        return header.array(exactly(file, header.data_bytes)).astype(stored)


def write_npz(path: Path, arrays: Mapping[str, Stored]) -> None:
    """
    Write a ``.npz`` file, whole or not at all; the same arrays give the same bytes.

    Raises
    ------
    FileFormatError
        A name would lead out of the folder in which the archive is unpacked, or is too long, or there are too many.
    """
    _check(path, arrays)
    for name in arrays:
        if name.startswith("/") or "\\" in name or "\0" in name or ".." in name.split("/"):
            raise FileFormatError(f"{path}: {name!r} is no name for an array there: choose another format")

    def write(file: IO[bytes]) -> None:
        with zipfile.ZipFile(file, "w") as archive:
            for name, array in arrays.items():
                # Without a date, and with the usual permissions of a file.
                member = zipfile.ZipInfo(f"{name}.npy")
                member.external_attr = 0o644 << 16
                with archive.open(member, "w", force_zip64=True) as out:
                    np.lib.format.write_array(out, little_endian(array), allow_pickle=False)

    write_atomically(path, write)
