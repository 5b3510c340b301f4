"""Recordings: the images that a run on a device left behind, and the graph that they belong to."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from mpsref.documents import read_document, regular_file
from mpsref.enums import MPSDataLayout, MPSImageFeatureChannelFormat
from mpsref.errors import FileFormatError, ImageError
from mpsref.files import NewFolder, write_atomically
from mpsref.graph.file import GraphFile
from mpsref.image import MPSImage, MPSImageDescriptor
from mpsref.storage import FORMATS, image_storage_of, storage_format

__all__ = ["RecordedImage", "Recording", "read_npy", "write_recording"]

HWC = MPSDataLayout.HeightxWidthxFeatureChannels


@dataclass(frozen=True)
class RecordedImage:
    """
    One image of a recording: a file that is known to have the right size, not read yet.

    Attributes
    ----------
    path : Path
        A ``.npy`` file, or raw little-endian elements.
    descriptor : MPSImageDescriptor
        Size and format.
    data_layout : MPSDataLayout
        Order of the elements of each image.
    """

    path: Path
    descriptor: MPSImageDescriptor
    data_layout: MPSDataLayout = HWC

    @classmethod
    def of_raw_file(cls, path: Path, descriptor: MPSImageDescriptor, data_layout: MPSDataLayout = HWC) -> RecordedImage:
        """A file of raw elements; raises `FileFormatError` if its size is not that of the descriptor."""
        size = storage_format(descriptor.channel_format).dtype.itemsize
        shape = (descriptor.number_of_images, descriptor.height, descriptor.width, descriptor.feature_channels, size)
        found, needed = regular_file(path).st_size, math.prod(shape)
        if found != needed:
            factors = " x ".join(map(str, shape))
            fits = [f.name for f, storage in FORMATS.items() if needed // size * storage.dtype.itemsize == found]
            raise FileFormatError(
                f"{path}: {found} bytes, not images x height x width x feature_channels x size = {factors} = {needed}: "
                + (f"that many fit {' or '.join(fits)}: mend the format" if fits else "mend the size")
                + ", or write the file again"
            )
        return cls(path, descriptor, data_layout)

    def read(self) -> MPSImage:
        """
        Read the file into an image.

        Raises
        ------
        FileFormatError
            The file has changed its size meanwhile, or cannot be read.
        """
        return MPSImage.from_array(self.elements())

    def elements(self) -> np.ndarray[Any, Any]:
        """
        Read the file as an array of shape (N, H, W, C), in the storage dtype.

        Raises
        ------
        FileFormatError
            The file has changed its size meanwhile, or cannot be read.
        """
        d, dtype = self.descriptor, storage_format(self.descriptor.channel_format).dtype
        shape: tuple[int, ...] = (d.number_of_images, d.height, d.width, d.feature_channels)
        try:
            if self.path.suffix == ".npy":
                array = _open_npy(self.path).view(dtype)
            else:
                array = np.fromfile(self.path, dtype.newbyteorder("<")).astype(dtype, copy=False)
            if self.data_layout is HWC:
                return array.reshape(shape)
            return np.moveaxis(array.reshape(shape[0], shape[3], *shape[1:3]), 1, -1)
        except (ValueError, OSError) as error:
            raise FileFormatError(f"{self.path}: has changed meanwhile ({error}): wait until it is written") from None


@dataclass(frozen=True)
class Recording:
    """
    What a recording file holds.

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
        By the name that the graph file gives them: sources, results and intermediates alike.
    missing : Mapping of str to Path
        Files that are named and not there, by image; none unless they were allowed to be missing.
    """

    path: Path
    device: str
    graph_path: Path
    graph: GraphFile
    images: Mapping[str, RecordedImage]
    missing: Mapping[str, Path] = field(default_factory=dict)

    @property
    def files(self) -> list[Path]:
        """The recording file, its graph file and its images."""
        return [self.path, self.graph_path, *(image.path for image in self.images.values())]

    @classmethod
    def read(cls, path: str | Path, *, complete: bool = True) -> Recording:
        """
        Read a recording file and check that all files it names are there and have the right size.

        Parameters
        ----------
        path : path
            The recording file.
        complete : bool
            Whether a file that is not there is an error; if not, it is listed in `missing`.

        Raises
        ------
        FileFormatError
            Something does not fit; the message names the file, the field and the mend. Nothing outside the folder of
            the recording is read.
        """
        path = Path(path)
        document = read_document(path, "recording")
        graph_path = _below(path, "graph", document["graph"])
        graph = GraphFile.read(graph_path)
        images: dict[str, RecordedImage] = {}
        missing: dict[str, Path] = {}
        for name, fields in document["images"].items():
            where = f"images.{name}"
            if name not in graph.images:
                raise FileFormatError(f"{path}: {where}: {document['graph']} has no image of this name")
            file = _below(path, f"{where}.file", fields["file"])
            try:
                file.stat()
            except FileNotFoundError:
                missing[name] = file
                continue
            except OSError:
                pass  # which what reads it reports
            try:
                images[name] = _recorded(file, fields)
            except ImageError as error:
                raise FileFormatError(f"{path}: {where}: {error}") from None
        if complete and missing:
            name, file = next(iter(missing.items()))
            others = f", and {len(missing) - 1} more are missing" if len(missing) > 1 else ""
            raise FileFormatError(
                f"{path}: images.{name}.file: {file}: No such file{others}: let the device write it, or mend its name"
            )
        return cls(path, document.get("device", "unknown device"), graph_path, graph, images, missing)


def read_npy(path: Path, data_layout: MPSDataLayout = HWC) -> MPSImage:
    """
    Read a ``.npy`` file as an image: float16, float32, uint8 (unorm8) or uint16 (unorm16); never a pickle.

    Raises
    ------
    FileFormatError
        The file is no such array, or truncated.
    """
    return _image_of(path, _open_npy(path), data_layout)


def write_recording(
    folder: str | Path,
    graph: GraphFile,
    images: Mapping[str, MPSImage],
    device: str,
    *,
    raw: bool = False,
    awaited: Mapping[str, MPSImageDescriptor] | None = None,
) -> Path:
    """
    Write a recording with its graph and images into a folder, each file whole or not at all, the recording last.

    Parameters
    ----------
    folder : path
        Made if it does not exist.
    graph : GraphFile
        Written as ``graph.json``.
    images : Mapping of str to MPSImage
        By the names that the graph gives them.
    device : str
        What computed the images.
    raw : bool
        Whether to write raw little-endian elements in order height, width, channel instead of ``.npy``.
    awaited : Mapping of str to MPSImageDescriptor, optional
        Images that only get an entry: a device will write their raw files.

    Returns
    -------
    Path
        Of ``recording.json``.

    Raises
    ------
    FileFormatError
        The folder is not empty, or cannot be made.
    """
    with NewFolder(folder) as new:
        return fill_recording(new, graph, images, device, raw=raw, awaited=awaited or {})


def fill_recording(
    new: NewFolder,
    graph: GraphFile,
    images: Mapping[str, MPSImage],
    device: str,
    *,
    raw: bool,
    awaited: Mapping[str, MPSImageDescriptor],
) -> Path:
    """What `write_recording` does, in a folder that gets other files as well."""
    graph.write(new.file("graph.json"))
    entries: dict[str, dict[str, Any]] = {}
    for name, stem in zip([*images, *awaited], _file_names([*images, *awaited]), strict=True):
        if name in awaited or raw:
            entries[name] = _raw_entry(stem, awaited[name] if name in awaited else images[name].descriptor)
        else:
            entries[name] = {"file": f"{stem}.npy"}
        if name in images:
            array = images[name].to_array()
            little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
            write = partial(_write_raw, array=little) if raw else partial(np.save, arr=little, allow_pickle=False)
            write_atomically(new.file(entries[name]["file"]), write)
    head = {"format": "mpsref-recording", "version": 1, "device": device, "graph": "graph.json"}
    lines = ",\n  ".join(f"{json.dumps(name)}: {json.dumps(entry)}" for name, entry in entries.items())
    text = json.dumps(head)[:-1] + f',\n "images": {{\n  {lines}}}}}\n'
    path = new.file("recording.json")
    write_atomically(path, lambda out: out.write(text.encode()))
    return path


def _write_raw(file: IO[bytes], array: npt.NDArray[Any]) -> None:
    # Not tofile, whose errors do not say what happened.
    file.write(array.data.cast("B"))


def _raw_entry(stem: str, d: MPSImageDescriptor) -> dict[str, Any]:
    dtype = storage_format(d.channel_format).dtype
    return {
        "file": f"{stem}.{dtype.kind}{8 * dtype.itemsize}",
        "channel_format": d.channel_format.name,
        "width": d.width,
        "height": d.height,
        "feature_channels": d.feature_channels,
        "number_of_images": d.number_of_images,
        "data_layout": HWC.name,
    }


def _below(recording: Path, field: str, name: str) -> Path:
    """The file of this name, if it lies in the folder of the recording, links resolved."""
    folder = recording.parent.resolve()
    try:
        path = (folder / name).resolve()
    except (OSError, ValueError, RuntimeError) as error:
        raise FileFormatError(f"{recording}: {field}: {name!r}: {error}") from None
    if not path.is_relative_to(folder):
        raise FileFormatError(f"{recording}: {field}: {name!r} lies outside the folder of the recording: copy it there")
    return recording.parent / path.relative_to(folder)


def _recorded(path: Path, fields: Mapping[str, Any]) -> RecordedImage:
    layout = MPSDataLayout[fields.get("data_layout", HWC.name)]
    given: dict[str, Any] = {
        name: int(fields[name])
        for name in ("width", "height", "feature_channels", "number_of_images")
        if name in fields
    }
    if "channel_format" in fields:
        given["channel_format"] = MPSImageFeatureChannelFormat[fields["channel_format"]]
    if path.suffix == ".npy":
        descriptor = _descriptor_of(path, _open_npy(path), layout)
        for name, value in given.items():
            if getattr(descriptor, name) != value:
                raise ImageError(f"{name}: is {fields[name]}, but {path.name} has {getattr(descriptor, name)!s}")
        return RecordedImage(path, descriptor, layout)
    return RecordedImage.of_raw_file(path, MPSImageDescriptor(**given), layout)


def _open_npy(path: Path) -> np.ndarray[Any, Any]:
    regular_file(path)
    try:
        # Mapped, so that a header that promises too much is refused before anything is allocated.
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # noqa: BLE001 - there is no end to what numpy's header parser may raise
        raise FileFormatError(
            f"{path}: no .npy array of numbers, or cut short ({type(error).__name__}): write it again with numpy.save"
        ) from None
    if not isinstance(array, np.ndarray):
        array.close()
        raise FileFormatError(f"{path}: an archive: give a single .npy array")
    return array


def _image_of(path: Path, array: np.ndarray[Any, Any], layout: MPSDataLayout) -> MPSImage:
    if layout is not HWC and array.ndim >= 3:
        array = np.moveaxis(array, -3, -1)
    try:
        return MPSImage.from_array(np.asarray(array))
    except ImageError as error:
        raise FileFormatError(f"{path}: {error}") from None


def _descriptor_of(path: Path, array: np.ndarray[Any, Any], layout: MPSDataLayout) -> MPSImageDescriptor:
    if array.ndim not in (3, 4) or 0 in array.shape:
        raise ImageError(f"file: {path.name} has shape {array.shape}: store 3 or 4 axes, none empty")
    n, h, w, c = (1,) * (4 - array.ndim) + array.shape
    if layout is not HWC:
        h, w, c = w, c, h
    channel_format = image_storage_of(array.dtype, f"file: {path.name}").channel_format
    return MPSImageDescriptor(channel_format=channel_format, width=w, height=h, feature_channels=c, number_of_images=n)


def _file_names(names: Iterable[str]) -> Iterator[str]:
    """A file name for each image, without an ending, safe and distinct on every file system."""
    used: set[str] = set()
    for name in names:
        stem = base = re.sub(r"[^A-Za-z0-9_.-]", "_", name).strip(".")[:100] or "image"
        number = 1
        while stem.lower() in used:
            number += 1
            stem = f"{base}-{number}"
        used.add(stem.lower())
        yield stem
