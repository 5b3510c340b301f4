"""
Files of several named arrays: ``.npz`` and ``.safetensors``, read as if hostile.

Sizes are checked before anything is allocated, and nothing is ever unpickled.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from mpsref.documents import LARGEST_DOCUMENT, parse, regular_file
from mpsref.errors import FileFormatError
from mpsref.files import write_atomically
from mpsref.storage import FORMATS

__all__ = ["read_npz", "read_safetensors", "write_npz", "write_safetensors"]

Stored = npt.NDArray[Any]

DTYPES = {
    f"{'F' if storage.dtype.kind == 'f' else 'U'}{8 * storage.dtype.itemsize}": storage.dtype
    for storage in FORMATS.values()
}
"""What safetensors calls the dtypes of images."""

MOST_ARRAYS = 300_000

MOST_INFLATED, LARGEST_RATIO = 64 * 2**20, 100
"""An archive may unpack to so many bytes, or to so many times its own size."""

LONGEST_NPY_HEADER = 10_000


# ---- safetensors ----


def read_safetensors(path: Path) -> dict[str, Stored]:
    """
    Read a ``.safetensors`` file: arrays of dtype F16, F32, U8 and U16 by name.

    Raises
    ------
    FileFormatError
        The file is cut short, its header is no header, or its arrays overlap, leave gaps or have another dtype.
    """
    size = regular_file(path).st_size
    try:
        with path.open("rb") as file:
            length = int.from_bytes(_exactly(file, 8), "little")
            header = parse(_exactly(file, min(length, LARGEST_DOCUMENT)).decode("utf-8"))
            return {
                name: np.frombuffer(_exactly(file, end - begin), dtype.newbyteorder("<")).astype(dtype).reshape(shape)
                for name, dtype, shape, begin, end in _tensors(header, size - 8 - length)
            }
    except (ValueError, OSError) as error:
        raise FileFormatError(f"{path}: no .safetensors file of images: {error}") from None


def _tensors(header: Any, size: int) -> Iterator[tuple[str, np.dtype[Any], tuple[int, ...], int, int]]:
    """Name, dtype, shape and place of each array, in the order of the file, when all have been checked."""
    if not isinstance(header, dict) or len(header) > MOST_ARRAYS:
        raise ValueError(f"the header is no object of at most {MOST_ARRAYS} arrays")
    found = [_tensor(name, entry) for name, entry in header.items() if name != "__metadata__"]
    found.sort(key=lambda tensor: tensor[3:])
    place = 0
    for name, _, _, begin, end in found:
        if begin != place:
            raise ValueError(f"{name!r}: data_offsets: begins at {begin}, not at {place} where the one before ends")
        place = end
    if place != size:
        raise ValueError(f"the arrays have {place} bytes, the file has {size}")
    yield from found


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
        raise ValueError(f"{name!r}: data_offsets: are {offsets}, shape {shape} of {entry['dtype']} needs other ones")
    return name, dtype, tuple(shape), offsets[0], offsets[1]


def write_safetensors(path: Path, arrays: Mapping[str, Stored]) -> None:
    """
    Write a ``.safetensors`` file, whole or not at all.

    Raises
    ------
    FileFormatError
        A name is the one that the format reserves.
    """
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
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)

    def write(file: IO[bytes]) -> None:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, array in ordered:
            file.write(_little(array).tobytes())

    write_atomically(path, write)


# ---- npz ----


def read_npz(path: Path) -> dict[str, Stored]:
    """
    Read a ``.npz`` file: arrays of float16, float32, uint8 and uint16 by name; never a pickle.

    Raises
    ------
    FileFormatError
        The file is no archive of such arrays, is damaged, or would unpack to more than a hundred times its size.
    """
    size = regular_file(path).st_size
    try:
        with zipfile.ZipFile(path) as archive:
            return {name: _member(archive, member) for name, member in _members(archive, size).items()}
    except Exception as error:  # noqa: BLE001 - zipfile and zlib raise what they like at damaged archives
        raise FileFormatError(f"{path}: no .npz file of images: {error}") from None


def _members(archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    """The arrays by name, if the archive does not unpack to much more than it is."""
    members = archive.infolist()
    unpacked = sum(member.file_size for member in members)
    if unpacked > max(MOST_INFLATED, LARGEST_RATIO * size):
        raise ValueError(f"{size} bytes that unpack to {unpacked}: save it without compression")
    found = {member.filename.removesuffix(".npy"): member for member in members}
    if len(members) > MOST_ARRAYS or len(found) < len(members):
        raise ValueError(f"two arrays of one name, or more than {MOST_ARRAYS}")
    return found


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Stored:
    if not member.filename.endswith(".npy"):
        raise ValueError(f"{member.filename!r} is no .npy array")
    with archive.open(member) as file:
        start = _exactly(file, 8)
        width = {1: 2, 2: 4, 3: 4}.get(start[6], 0) if start[:6] == b"\x93NUMPY" else 0
        if not width:
            raise ValueError(f"{member.filename!r} is no .npy array")
        start += _exactly(file, width)
        length = int.from_bytes(start[8:], "little")
        if length > LONGEST_NPY_HEADER:
            raise ValueError(f"{member.filename!r}: a header of {length} bytes")
        header = io.BytesIO(start[8:] + _exactly(file, length))
        # The third version differs from the second in UTF-8 only, which no header of plain numbers has.
        read: Callable[..., Any] = (
            np.lib.format.read_array_header_1_0 if width == 2 else np.lib.format.read_array_header_2_0
        )
        shape, is_fortran, dtype = read(header, max_header_size=LONGEST_NPY_HEADER)
        stored = dtype.newbyteorder("=")
        if stored not in DTYPES.values():
            raise ValueError(f"{member.filename!r}: dtype {dtype}: images have float16, float32, uint8 or uint16")
        needed = math.prod(shape) * dtype.itemsize
        if min((*shape, 0)) < 0 or len(start) + length + needed != member.file_size:
            raise ValueError(f"{member.filename!r}: {member.file_size} bytes are not what shape {shape} needs")
        # All of the member is read, so zipfile compares its checksum.
        flat = np.frombuffer(_exactly(file, needed), dtype).astype(stored)
        return flat.reshape(shape, order="F" if is_fortran else "C")


def write_npz(path: Path, arrays: Mapping[str, Stored]) -> None:
    """
    Write a ``.npz`` file, whole or not at all; the same arrays give the same bytes.

    Raises
    ------
    FileFormatError
        A name would be a path that leads out of a folder, if somebody unpacked the archive.
    """
    for name in arrays:
        if name.startswith("/") or "\\" in name or "\0" in name or ".." in name.split("/"):
            raise FileFormatError(f"{path}: {name!r} is no name for an array there: choose another format")

    def write(file: IO[bytes]) -> None:
        with zipfile.ZipFile(file, "w") as archive:
            for name, array in arrays.items():
                # Without a date, and with the rights that a file has.
                member = zipfile.ZipInfo(f"{name}.npy")
                member.external_attr = 0o644 << 16
                with archive.open(member, "w", force_zip64=True) as out:
                    np.lib.format.write_array(out, _little(array), allow_pickle=False)

    write_atomically(path, write)


def _little(array: Stored) -> Stored:
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<"))


def _exactly(file: IO[bytes], count: int) -> bytes:
    data = file.read(count)
    if len(data) != count:
        raise ValueError(f"cut short: {count} bytes are needed, {len(data)} are there")
    return data
