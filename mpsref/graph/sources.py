"""Data sources in graph files: descriptors and arrays, in the file itself or in files beside it."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mpsref.arrays import Stored
from mpsref.documents import exactly, opened
from mpsref.enums import MPSCNNNeuronType
from mpsref.errors import FileFormatError, MPSRefError
from mpsref.graph.fields import neuron_from_json, neuron_json, shortest
from mpsref.npy import little_endian, read_header
from mpsref.operations.weights import (
    DESCRIPTORS,
    OPTIONS,
    SIZES,
    ArrayDataSource,
    MPSCNNConvolutionDescriptor,
    Weights,
)
from mpsref.tensors import read_safetensors

__all__ = ["as_if_read", "data_source", "data_source_json"]

MOST_INLINE = 64
"""Numbers of an array that a written file holds itself."""

MOST_BYTES = 2**30
"""Of a file of weights."""


def data_source(name: str, entry: Mapping[str, Any], folder: Path | None, read: dict[Path, Any]) -> ArrayDataSource:
    """
    The data source of an entry.

    Parameters
    ----------
    name : str
        Its name.
    entry : Mapping
        As the schema has it.
    folder : Path or None
        Where its files lie, or below; None if it may have none.
    read : dict of Path to arrays
        Files that have been read; added to.

    Raises
    ------
    FileFormatError
        An array cannot be read, or does not fit; the message names the field.
    """
    where = f"data_sources.{name}"
    place = "descriptor"
    try:
        d = descriptor_of(entry["descriptor"])
        shapes = {"weights": d.weights_shape, "bias_terms": (d.output_feature_channels,)}
        arrays = {}
        for place, shape in shapes.items():
            arrays[place] = None if place not in entry else _array(entry[place], shape, folder, read)
        place = "weights"
        layout = entry["weights"].get("layout", "OHWI")
        if arrays["bias_terms"] is not None and arrays["bias_terms"].shape != shapes["bias_terms"]:
            place = "bias_terms"
        return ArrayDataSource(d, arrays["weights"], arrays["bias_terms"], layout, name)  # type: ignore[arg-type]
    except MPSRefError as error:
        raise FileFormatError(f"{where}.{place}: {error}") from None


def descriptor_of(entry: Mapping[str, Any]) -> MPSCNNConvolutionDescriptor:
    """The descriptor of an entry."""
    d = DESCRIPTORS[entry["class"]](**{size: entry[size] for size in SIZES})
    for option in OPTIONS:
        if option in entry:
            setattr(d, option, entry[option])
    if entry.get("fused_neuron_descriptor"):
        d.fused_neuron_descriptor = neuron_from_json(entry["fused_neuron_descriptor"])
    d.check()
    return d


def _array(
    entry: Mapping[str, Any], shape: tuple[int, ...], folder: Path | None, read: dict[Path, Any]
) -> npt.NDArray[Any]:
    if "values" in entry:
        values = np.array(entry["values"], entry.get("data_type", "float32"))
        if values.size != np.prod(shape):
            raise FileFormatError(f"values: has {values.size} numbers: {shape} are needed")
        layout = entry.get("layout", "OHWI")
        if len(shape) == 1 or layout == "OHWI":
            return values.reshape(shape)
        sizes = dict(zip("OHWI", shape, strict=True))
        return values.reshape([sizes[axis] for axis in layout])
    if folder is None:
        raise FileFormatError("file: a document that is not read from a file has none: give values")
    path = folder / entry["file"]
    if not Path(os.path.realpath(path)).is_relative_to(folder):
        raise FileFormatError(f"file: {entry['file']!r} lies outside the folder of the graph: copy it there")
    if path not in read:
        read[path] = _read(path, folder)
    digest, arrays = read[path]
    if "sha256" in entry and entry["sha256"] != digest:
        raise FileFormatError(f"sha256: is not that of {entry['file']}: write the graph again, or restore the file")
    name = entry.get("tensor", "") if path.suffix == ".safetensors" else ""
    if name not in arrays:
        raise FileFormatError(f"tensor: {entry['file']} has no {name!r}: it has {', '.join(sorted(arrays))[:200]}")
    array: npt.NDArray[Any] = arrays[name]
    if array.dtype not in (np.float16, np.float32):
        raise FileFormatError(f"file: {entry['file']} holds {array.dtype}: give float16 or float32")
    return array


def _read(path: Path, folder: Path) -> tuple[str, Mapping[str, Stored]]:
    """The digest of a file, and its arrays by name."""
    try:
        with opened(path, folder) as (file, size):
            if size > MOST_BYTES:
                raise FileFormatError(f"file: {path.name} is larger than {MOST_BYTES >> 20} MiB: split it")
            digest = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
            if path.suffix == ".safetensors":
                return digest, read_safetensors(path, folder)
            file.seek(0)
            header = read_header(file)
            array = header.array(exactly(file, header.data_bytes))
            return digest, {"": array.astype(array.dtype.newbyteorder("="))}
    except (ValueError, OSError) as error:
        if isinstance(error, FileFormatError):
            raise
        raise FileFormatError(f"file: {path.name} is no .npy or .safetensors file: {error}") from None


def as_if_read(files: Mapping[str, bytes], folder: Path) -> dict[Path, Any]:
    """What `data_source` remembers of ``.npy`` files, by their paths, before they are written."""
    return {
        folder / name: (hashlib.sha256(data).hexdigest(), {"": np.load(io.BytesIO(data), allow_pickle=False)})
        for name, data in files.items()
    }


def data_source_json(weights: Weights, files: dict[str, bytes] | None = None, stem: str = "") -> dict[str, Any]:
    """The entry of a data source; with `files`, long arrays go there as files, by name."""
    arrays = {"weights": weights.values} | ({} if weights.bias is None else {"bias_terms": weights.bias})
    return {"descriptor": descriptor_json(weights.descriptor())} | {
        kind: _array_json(array, files, f"{stem}.{kind}.npy") for kind, array in arrays.items()
    }


def descriptor_json(d: MPSCNNConvolutionDescriptor) -> dict[str, Any]:
    """The entry of a descriptor; what has its default is left out."""
    entry: dict[str, Any] = {"class": type(d).__name__} | {size: getattr(d, size) for size in SIZES}
    entry |= {option: getattr(d, option) for option in OPTIONS if getattr(d, option) != 1}
    neuron = d.fused_neuron_descriptor
    if neuron.neuron_type is not MPSCNNNeuronType.none:
        entry["fused_neuron_descriptor"] = neuron_json(neuron)
    return entry


def _array_json(array: npt.NDArray[Any], files: dict[str, bytes] | None, name: str) -> dict[str, Any]:
    if files is None or (array.size <= MOST_INLINE and np.isfinite(array).all()):
        half = {"data_type": "float16"} if array.dtype == np.float16 else {}
        return {"values": [shortest(float(value)) for value in array.reshape(-1)]} | half
    buffer = io.BytesIO()
    np.save(buffer, little_endian(array), allow_pickle=False)
    files[name] = buffer.getvalue()
    return {"file": name, "sha256": hashlib.sha256(files[name]).hexdigest()}
