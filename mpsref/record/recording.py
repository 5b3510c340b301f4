"""Recordings: the images of a run on a device, and the graph that was run."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np

from mpsref.arguments import checked, checked_fields
from mpsref.arrays import Elements, Index, Stored
from mpsref.documents import encoded, exactly, opened, read_document, schema, validate
from mpsref.errors import FileFormatError, ImageError, naming
from mpsref.files import NewFolder, file_names, write_atomically
from mpsref.graph.file import GraphFile
from mpsref.image import MPSImage, MPSImageDescriptor, descriptor_in
from mpsref.npy import NpyHeader, little_endian, read_header
from mpsref.record.layout import HWC, NC4HW4, TEXTURE, Layout, shape_of
from mpsref.record.states import RecordedArray
from mpsref.storage import FORMATS, ArrayFormat, StorageFormat, channel_format_of, image_storage_of, storage_format

__all__ = ["RecordedImage", "Recording", "read_npy", "write_recording"]

SIZES = "width", "height", "feature_channels", "number_of_images"
FIELDS = (*SIZES, "file", "shape", "channel_axis", "data_layout")


@checked_fields
@dataclass(frozen=True)
class RecordedImage:
    """
    An image of a recording: a file of the right size, not read yet.

    Attributes
    ----------
    path : Path
        A file whose name ends with ``.npy``, or else raw little-endian elements.
    descriptor : MPSImageDescriptor
        Size and format.
    layout : Layout
        The array in the file.
    folder : Path or None
        The folder that must contain the file whenever it is read, links resolved; None for no such condition.
    batch : int
        How many images there should be; more than the descriptor has, where the file was cut short. 0: as many.
    """

    path: Path
    descriptor: MPSImageDescriptor
    layout: Layout
    folder: Path | None = None
    batch: int = 0

    @classmethod
    @checked
    def of_raw_file(
        cls,
        path: Path,
        descriptor: MPSImageDescriptor,
        data_layout: str | Layout = HWC,
        folder: Path | None = None,
        *,
        complete: bool = True,
    ) -> RecordedImage:
        """
        A file of raw elements, in a layout or one with a name of recording files.

        Raises `FileFormatError` if its size is not that of the descriptor, or, unless it must be complete, of some of
        its images.
        """
        itemsize = storage_format(descriptor.channel_format).dtype.itemsize
        with opened(path, folder) as (_, size):
            pass
        if isinstance(data_layout, Layout):
            layout = data_layout
        else:
            layout = Layout.named(data_layout, descriptor, size // itemsize)
            batch = descriptor.number_of_images
            fewer, rest = divmod(size * batch, layout.elements * itemsize)
            if not complete and 0 < fewer < batch and not rest:
                part = replace(descriptor, number_of_images=fewer)
                return cls(path, part, Layout.named(data_layout, part, size // itemsize), folder, batch)
        if size != layout.elements * itemsize:
            raise FileFormatError(f"{path}: {_wrong_size(size, layout, descriptor)}")
        return cls(path, descriptor, layout, folder)

    @property
    def size(self) -> tuple[int, int, int, int]:
        """Images, height, width and feature channels."""
        return shape_of(self.descriptor)

    @property
    def storage(self) -> StorageFormat:
        """How the elements are stored."""
        return storage_format(self.descriptor.channel_format)

    def read(self) -> MPSImage:
        """Read the file as an image; raises `FileFormatError` if its size has changed, or it cannot be read."""
        return MPSImage._of_recorded(self.elements().stored)

    def elements(self) -> Elements:
        """Read the file as a contiguous array of shape (N, H, W, C); raises as `read` does."""
        (whole,) = self._blocks(self.layout.elements)
        return Elements(whole.reshape(self.size), self.storage)

    def _blocks(self, each: int) -> Iterator[Stored]:
        """
        Read the elements in order N, H, W, C, flat, so many at a time; raises as `read` does.

        No more are held at once where the file has them in this order; then a block lasts until the next is read.
        """
        with self._opened() as (file, bits, order):
            count = self.layout.elements
            if order == "C" and self.layout.is_dense:
                block = np.empty(min(each, count), bits)
                for start in range(0, count, each):
                    yield self._filled(block[: count - start], file)
            else:
                array = self._filled(np.empty(count, bits), file).reshape(self.layout.shape, order=order)
                whole = np.ascontiguousarray(self.layout.unpacked(array, self.descriptor)).reshape(-1)
                yield from (whole[start : start + each] for start in range(0, whole.size, each))

    def _at(self, index: Index) -> Stored:
        """Read some elements, by flat index in N, H, W, C, one by one; raises as `read` does."""
        with self._opened() as (file, bits, order):
            if order == "F" or not self.layout.is_dense:
                return self.elements().at(index).stored
            read, first = np.empty(index.size, self.storage.dtype), file.tell()
            for k, place in enumerate(index.tolist()):
                file.seek(first + place * bits.itemsize)
                read[k] = self._filled(np.empty(1, bits), file)[0]
            return read

    @contextmanager
    def _opened(self) -> Iterator[tuple[IO[bytes], np.dtype[Any], Literal["C", "F"]]]:
        """The file at its first element, the dtype of the elements' bits, and their order."""
        itemsize, is_fortran = self.storage.dtype.itemsize, False
        try:
            with opened(self.path, self.folder) as (file, size):
                if is_npy(self.path):
                    header = read_header(file)
                    is_fortran = header.is_fortran
                    if header.shape != self.layout.shape or _native(header.dtype) != self.storage.dtype:
                        raise ValueError(f"shape is {header.shape}")  # noqa: TRY301  the same message for all
                elif size != self.layout.elements * itemsize:
                    raise ValueError(f"has {size} bytes")  # noqa: TRY301
                yield file, np.dtype(f"<u{itemsize}"), "F" if is_fortran else "C"
        except FileFormatError:
            raise
        except (ValueError, OSError) as error:
            raise FileFormatError(f"{self.path}: has changed meanwhile ({error}): wait until it is written") from None

    def _filled(self, bits: Stored, file: IO[bytes]) -> Stored:
        """The next elements, read into an array of their bits."""
        size = file.readinto(bits.view(np.uint8).data)  # type: ignore[attr-defined]
        if size != bits.nbytes:
            raise ValueError(f"cut short: {bits.nbytes} bytes are needed, {size} are there")
        return bits.astype(bits.dtype.newbyteorder("="), copy=False).view(self.storage.dtype)


def _wrong_size(size: int, layout: Layout, d: MPSImageDescriptor) -> str:
    """What is wrong with a file of raw elements of another size, and what such a file would be right for."""
    itemsize, n = storage_format(d.channel_format).dtype.itemsize, d.number_of_images
    needed, one = layout.elements * itemsize, layout.elements * itemsize // n
    factors: tuple[int, ...] = layout.shape
    axes = "the axes of shape"
    if not layout.has_own_places:
        factors = layout.shape if layout.lanes else shape_of(d)
        axes = "slices x height x width x lanes" if layout.lanes else "images x height x width x feature_channels"
    other = HWC if layout.lanes else TEXTURE
    fits = {
        "number_of_images": [f"{size // one} of the {n} images of the batch"]
        * (n > 1 and size > 0 and size % one == 0),
        "the format": [f.name for f, s in FORMATS.items() if layout.elements * s.dtype.itemsize == size],
        "data_layout": [f'data_layout "{other}"']
        * (not layout.has_own_places and Layout.named(other, d, size // itemsize).elements * itemsize == size),
    }
    possible = " or ".join(text for texts in fits.values() for text in texts)
    fix = " or ".join(field for field, texts in fits.items() if texts)
    return (
        f"{size} bytes, not {axes} x size = {' x '.join(map(str, (*factors, itemsize)))} = {needed}: "
        + (f"that many fit {possible}: fix {fix}" if fits and possible else "fix the size")
        + ", or write the file again"
    )


@dataclass(frozen=True)
class Recording:
    """
    The contents of a recording file.

    Attributes
    ----------
    path : Path
        The recording file.
    device : str
        What wrote the images, as free text.
    graph_path : Path
        The graph file.
    graph : GraphFile
        The graph that was run.
    images : Mapping of str to RecordedImage
        Sources, results and intermediate images, by their names in the graph file.
    missing : Mapping of str to Path
        Files of images that do not exist yet, if that was allowed.
    states : Mapping of str to Mapping of str to RecordedArray
        For the images of layers ``gradient_for_weights`` and ``gradient_for_biases``.
    """

    path: Path
    device: str
    graph_path: Path
    graph: GraphFile
    images: Mapping[str, RecordedImage]
    missing: Mapping[str, Path] = field(default_factory=dict)
    states: Mapping[str, Mapping[str, RecordedArray]] = field(default_factory=dict)

    @property
    def files(self) -> list[Path]:
        """The recording file, its graph file and its images."""
        arrays = [array.path for state in self.states.values() for array in state.values()]
        return [self.path, self.graph_path, *(image.path for image in self.images.values()), *arrays]

    @classmethod
    @checked
    def read(cls, path: str | Path, *, complete: bool = True) -> Recording:
        """
        Read a recording file and check that its image files exist and have the right size.

        Parameters
        ----------
        path : path
            The recording file.
        complete : bool
            Whether a missing file is an error, or a raw one with some images of its batch; if not, it is listed in
            `missing`, or has the batch that it should have.

        Raises
        ------
        FileFormatError
            Something is wrong; the message names the file, the field and the fix. Nothing outside the folder of the
            recording is read.
        """
        path = Path(path)
        document = read_document(path, "recording")
        folder = Path(os.path.realpath(path.parent))
        graph_path = _below(path, folder, "graph", document["graph"])
        graph = GraphFile.read(graph_path)
        images: dict[str, RecordedImage] = {}
        missing: dict[str, Path] = {}
        for name, fields in document["images"].items():
            where = f"images.{name}"
            if name not in graph.images:
                raise FileFormatError(f"{path}: {where}: {document['graph']} has no image of this name")
            file = _below(path, folder, f"{where}.file", fields["file"])
            try:
                file.stat()
            except FileNotFoundError:
                missing[name] = file
                continue
            except OSError:
                pass  # reading it reports the error
            try:
                images[name] = _recorded(file, fields, folder, complete=complete)
            except ImageError as error:
                # Most messages begin with a field of the entry.
                joint = "." if str(error).partition(": ")[0] in FIELDS else ": "
                raise FileFormatError(f"{path}: {where}{joint}{error}") from None
        if complete and missing:
            name, file = next(iter(missing.items()))
            others = f", and {len(missing) - 1} more are missing" if len(missing) > 1 else ""
            raise FileFormatError(
                f"{path}: images.{name}.file: {file}: No such file{others}: let the device write it, "
                "fix its name, or judge the images that are there (--partial)"
            )
        states = {name: _state(path, folder, graph, name, entry) for name, entry in document.get("states", {}).items()}
        return cls(path, document.get("device", "unknown device"), graph_path, graph, images, missing, states)


def _state(path: Path, folder: Path, graph: GraphFile, name: str, entry: Mapping[str, Any]) -> dict[str, RecordedArray]:
    """The arrays of the state of the layer that makes an image."""
    where = f"states.{name}"
    if not any(node.forward_node and node.forward_node.result_image is graph.images.get(name) for node in graph.nodes):
        raise FileFormatError(f"{path}: {where}: the graph has no layer of this name with a gradient node")
    arrays = {}
    for kind, fields in entry.items():
        file = _below(path, folder, f"{where}.{kind}.file", fields["file"])
        with naming(f"{path}: {where}.{kind}", FileFormatError):
            arrays[kind] = RecordedArray.of_entry(file, fields, folder)
    return arrays


@checked
def read_npy(path: Path) -> MPSImage:
    """
    Read a ``.npy`` file as an image: float16, float32, uint8 (unorm8) or uint16 (unorm16); never a pickle.

    Raises
    ------
    FileFormatError
        The file is not such an array, or truncated.
    """
    try:
        with opened(path) as (file, size):
            header = _header_of(path, file, size)
            array = header.array(exactly(file, header.data_bytes))
    except FileFormatError:
        raise
    except (ValueError, OSError) as error:
        raise FileFormatError(f"{path}: cannot be read: {error}: write it again with numpy.save") from None
    with naming(path, ImageError):
        return MPSImage.from_array(array)


def is_npy(path: Path) -> bool:
    """Whether a file is a ``.npy`` file by its name, wherever a link leads."""
    return path.name.endswith(".npy")


@checked
def write_recording(
    folder: str | Path,
    graph: GraphFile,
    images: Mapping[str, MPSImage | Stored],
    device: str,
    *,
    raw: bool = False,
    awaited: Mapping[str, MPSImageDescriptor] | None = None,
    states: Mapping[str, Mapping[str, Stored]] | None = None,
) -> Path:
    """
    Write a recording with its graph and images into a folder, each file whole or not at all, the recording last.

    Parameters
    ----------
    folder : path
        Created if it does not exist.
    graph : GraphFile
        Written as ``graph.json``.
    images : Mapping of str to MPSImage or ndarray
        By their names in the graph. An array has one to five axes, the last of which has the feature channels; reports
        call its elements by its own indices, unless it has shape (H, W, C) or (N, H, W, C).
    device : str
        What computed the images.
    raw : bool
        Whether to write raw little-endian elements in order height, width, channel instead of ``.npy``, as is always
        done with bfloat16, which ``.npy`` does not know.
    awaited : Mapping of str to MPSImageDescriptor, optional
        Images that only get an entry; a device will write their raw files.
    states : Mapping of str to Mapping of str to ndarray, optional
        ``gradient_for_weights`` (OHWI) and ``gradient_for_biases`` of layers, by the names of their images.

    Returns
    -------
    Path
        Of ``recording.json``.

    Raises
    ------
    FileFormatError
        The recording could not be read again, and nothing is written; or the folder is not empty, or cannot be made.
    """
    for name, image in images.items():
        with naming(f"images.{name}", ImageError):
            _image(image)
    entries = recording_entries(images, awaited or {}, raw=raw)
    write_files(folder, recording_files(Path(folder), graph, images, device, entries, states or {}))
    return Path(folder) / "recording.json"


def recording_entries(
    images: Mapping[str, MPSImage | Stored], awaited: Mapping[str, MPSImageDescriptor], *, raw: bool
) -> dict[str, dict[str, Any]]:
    """The entry of each image in the recording file; the arguments are those of `write_recording`."""
    names = [*images, *awaited]
    entries: dict[str, dict[str, Any]] = {}
    for name, stem in zip(names, file_names(names), strict=True):
        if name in awaited or raw or channel_format_of(_dtype_of(images[name])) is ArrayFormat.bfloat16:
            entries[name] = _raw_entry(stem, awaited[name] if name in awaited else images[name])
        else:
            entries[name] = {"file": f"{stem}.npy"}
    return entries


def recording_files(
    folder: Path,
    graph: GraphFile,
    images: Mapping[str, MPSImage | Stored],
    device: str,
    entries: Mapping[str, dict[str, Any]],
    states: Mapping[str, Mapping[str, Stored]] | None = None,
) -> dict[str, Callable[[IO[bytes]], Any]]:
    """The writers of a recording's files, by name; raises `FileFormatError` if it could not be read again."""
    files = graph.writers(folder / "graph.json")
    arrays = {
        (name, kind): (f"{stem}.{kind}.npy", array)
        for (name, state), stem in zip((states or {}).items(), file_names(states or {}), strict=True)
        for kind, array in state.items()
    }
    data = _encoded(folder / "recording.json", graph, device, entries, {key: file for key, (file, _) in arrays.items()})
    for name, image in images.items():
        file = entries[name]["file"]
        files[file] = partial(_write_npy if file.endswith(".npy") else _write_raw, image)
    for file, array in arrays.values():
        files[file] = partial(np.save, arr=little_endian(array), allow_pickle=False)
    return files | {"recording.json": lambda out: out.write(data)}


def write_files(folder: str | Path, files: Mapping[str, Callable[[IO[bytes]], Any]]) -> None:
    """Write all or none of some files, by name; raises `FileFormatError` unless the folder is new or empty."""
    with NewFolder(folder) as new:
        for name, write in files.items():
            write_atomically(new.file(name), write)


def _dtype_of(image: MPSImage | Stored) -> np.dtype[Any]:
    # Without unpacking the image.
    return image.storage.dtype if isinstance(image, MPSImage) else np.asarray(image).dtype


def _write_npy(image: MPSImage | Stored, file: IO[bytes]) -> None:
    np.save(file, little_endian(np.asarray(image)), allow_pickle=False)


def _write_raw(image: MPSImage | Stored, file: IO[bytes]) -> None:
    # Not tofile, whose errors do not say what happened.
    stored = np.ascontiguousarray(image)
    file.write(little_endian(stored.view(f"u{stored.itemsize}")).data.cast("B"))


def _encoded(
    path: Path,
    graph: GraphFile,
    device: str,
    entries: Mapping[str, dict[str, Any]],
    states: Mapping[tuple[str, str], str],
) -> bytes:
    """The recording file; raises `FileFormatError` if it could not be read again."""
    head = {"format": "mpsref-recording", "version": 1, "device": device, "graph": "graph.json"}
    with naming(path):
        validate(head | {"images": entries}, schema("recording"))
        for name in entries:
            if name not in graph.images:
                raise FileFormatError(f"images.{name}: the graph has no image of this name")
        lines = ",\n  ".join(f"{json.dumps(name)}: {json.dumps(entry)}" for name, entry in entries.items())
        named: dict[str, dict[str, Any]] = {}
        for (name, kind), file in states.items():
            named.setdefault(name, {})[kind] = {"file": file}
        tail = f',\n "states": {json.dumps(named)}' if named else ""
        return encoded(json.dumps(head)[:-1] + f',\n "images": {{\n  {lines}}}{tail}}}\n')


def _raw_entry(stem: str, image: MPSImageDescriptor | MPSImage | Stored) -> dict[str, Any]:
    if isinstance(image, np.ndarray) and image.ndim not in (3, 4):
        d, size = MPSImage._of_recorded(image).descriptor, {"shape": list(image.shape)}
    else:
        d = image if isinstance(image, MPSImageDescriptor) else _image(image).descriptor
        size = {name: getattr(d, name) for name in SIZES} | {"data_layout": HWC}
    dtype = storage_format(d.channel_format).dtype
    suffix = dtype.kind if dtype.kind != "V" else "bf"
    return {"file": f"{stem}.{suffix}{8 * dtype.itemsize}", "channel_format": d.channel_format.name, **size}


def _image(image: MPSImage | Stored) -> MPSImage:
    return image if isinstance(image, MPSImage) else MPSImage._of_recorded(image)


def _below(recording: Path, folder: Path, field: str, name: str) -> Path:
    """The path of a file in the folder of the recording, which is given with links resolved, or below."""
    path = recording.parent / name
    try:
        is_below = Path(os.path.realpath(path)).is_relative_to(folder)
    except (OSError, ValueError) as error:
        raise FileFormatError(f"{recording}: {field}: {name!r}: {error}") from None
    if not is_below:
        raise FileFormatError(f"{recording}: {field}: {name!r} lies outside the folder of the recording: copy it there")
    return path


def _recorded(path: Path, fields: Mapping[str, Any], folder: Path, *, complete: bool) -> RecordedImage:
    if "shape" in fields:
        for name in (*SIZES, "data_layout"):
            if name in fields:
                raise ImageError(f"{name}: shape is there too: give one or the other")
    if "channel_axis" in fields and "data_layout" in fields:
        raise ImageError("channel_axis: data_layout is there too: give one or the other")
    given: dict[str, Any] = {name: fields[name] for name in SIZES if name in fields}
    if "channel_format" in fields:
        given["channel_format"] = channel_format_of(fields["channel_format"])
    if is_npy(path):
        with opened(path, folder) as (file, size):
            header = _header_of(path, file, size)
        image = _recorded_npy(path, header, fields, given, folder)
        for name, value in given.items():
            if getattr(image.descriptor, name) != value:
                raise ImageError(f"{name}: is {fields[name]}, but {path.name} has {getattr(image.descriptor, name)!s}")
        return image
    if "shape" in fields:
        layout = Layout.of_array(tuple(fields["shape"]), fields.get("channel_axis", -1))
        return RecordedImage.of_raw_file(path, layout.descriptor(given["channel_format"]), layout, folder)
    _require_sizes(given, "raw elements")
    if "channel_axis" in fields:
        raise ImageError("channel_axis: raw elements need shape too, such as [2, 16, 5, 4]")
    d, layout = descriptor_in(**given), fields.get("data_layout", HWC)
    return RecordedImage.of_raw_file(path, d, layout, folder, complete=complete)


def _require_sizes(given: Mapping[str, Any], what: str) -> None:
    for name in SIZES[:3]:
        if name not in given:
            raise ImageError(f"{name}: missing: {what} need width, height and feature_channels, or shape")


def _recorded_npy(
    path: Path, header: NpyHeader, fields: Mapping[str, Any], given: Mapping[str, Any], folder: Path
) -> RecordedImage:
    """The image in a ``.npy`` file, of the size that its header has."""
    shape, name = header.shape, fields.get("data_layout", HWC)
    channel_format = image_storage_of(_native(header.dtype), f"file: {path.name}").channel_format
    if "shape" in fields and tuple(fields["shape"]) != shape:
        raise ImageError(f"shape: is {fields['shape']}, but {path.name} has {list(shape)}")
    if name in (TEXTURE, NC4HW4):
        _require_sizes(given, "textures")
        d = descriptor_in(**{"channel_format": channel_format} | dict(given))
        layout = Layout.named(name, d, math.prod(shape))
        if shape != layout.shape:
            raise ImageError(
                f"file: {path.name} has shape {list(shape)}: a texture of this size has {list(layout.shape)}"
            )
        return RecordedImage(path, d, layout, folder)
    try:
        layout = Layout.of_array(shape, fields.get("channel_axis", -1))
    except ImageError as error:
        raise ImageError(f"file: {path.name}: {error}") from None
    if len(shape) in (3, 4) and not {"shape", "channel_axis"} & fields.keys():
        layout = Layout(shape, -1 if name == HWC else -3)
    elif "data_layout" in fields:
        raise ImageError(f"data_layout: {path.name} has {len(shape)} axes: give channel_axis instead")
    return RecordedImage(path, layout.descriptor(channel_format), layout, folder)


def _header_of(path: Path, file: IO[bytes], size: int) -> NpyHeader:
    """The header of a complete ``.npy`` file."""
    try:
        header = read_header(file)
        if header.length + header.data_bytes > size:
            raise ValueError(f"{size} bytes are too few for shape {header.shape}")  # noqa: TRY301  see below
    except (ValueError, OSError) as error:
        raise FileFormatError(
            f"{path}: not a .npy array of numbers, or cut short ({error}): write it again with numpy.save"
        ) from None
    return header


def _native(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The native dtype of little-endian elements, which files hold on every machine; others stay as they are."""
    return dtype if dtype != dtype.newbyteorder("<") else dtype.newbyteorder("=")
