"""What a kernel is called with: images as buffers or textures, and parameters."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mpsref.arrays import Stored
from mpsref.errors import ParameterError
from mpsref.image import MPSImage, MPSImageDescriptor
from mpsref.image_lanes import clear_unused_lanes, components
from mpsref.lab.kernels import images_read
from mpsref.lab.languages import Style
from mpsref.operations import Operation
from mpsref.storage import storage_format

__all__ = [
    "elements_of", "empty_image", "image_of", "numbers_of", "parameters_of", "read_by_name", "slopes_of",
    "uniform_style",
]  # fmt: skip


def read_by_name(operation: Operation, sources: Sequence[MPSImage]) -> dict[str, MPSImage]:
    """The images whose values are read, as ``source``, ``gradient`` and ``secondary``."""
    return dict(zip(images_read(operation), operation.values_of(sources), strict=True))


def uniform_style(images: Mapping[str, MPSImage], result: MPSImageDescriptor, memory: str | None) -> Style:
    """
    How a kernel for these images is written.

    Raises
    ------
    ParameterError
        They are to be buffers, but are not all float16 or all float32.
    """
    storage = storage_format(result.channel_format).name
    formats = {storage, *(image.storage.name for image in images.values())}
    fits = len(formats) == 1 and storage.startswith("float")
    if memory == "buffers" and not fits:
        raise ParameterError(f"memory buffers: the images of a node are {', '.join(sorted(formats))}: give textures")
    chosen = memory or ("buffers" if fits else "textures")
    count = components(result.feature_channels) if chosen == "textures" else 4
    return Style(chosen, storage, components=count)


def elements_of(image: MPSImage) -> Stored:
    """The elements in the order of a recording's files: images, rows, pixels, channels."""
    elements: Stored = np.ascontiguousarray(image.to_array()).reshape(-1)
    return elements


def empty_image(descriptor: MPSImageDescriptor) -> MPSImage:
    """An image with all bits set, which is NaN in floating point: what no thread writes shows."""
    image = MPSImage(image_descriptor=descriptor)
    stored = np.full(image.texture.nbytes, 0xFF, np.uint8).view(image.storage.dtype).reshape(image.texture.shape)
    return _of_texture(stored, descriptor)


def image_of(stored: Stored, descriptor: MPSImageDescriptor, style: Style) -> MPSImage:
    """The image of a texture, or of elements."""
    if style.memory == "textures":
        return _of_texture(stored, descriptor)
    d = descriptor
    return MPSImage.from_array(stored.reshape(d.number_of_images, d.height, d.width, d.feature_channels))


def _of_texture(stored: Stored, descriptor: MPSImageDescriptor) -> MPSImage:
    """The image, with zeros in the unused components, which a kernel may fill."""
    channels = descriptor.feature_channels
    slices = stored.reshape(descriptor.number_of_images, -1, *stored.shape[1:])
    clear_unused_lanes(slices, channels)
    return MPSImage(texture=stored, feature_channels=channels)


def numbers_of(operation: Operation, result: MPSImageDescriptor) -> dict[str, float | int]:
    """The numbers that a kernel may need, by name: sizes, and the parameters of the operation."""
    d = result
    numbers: dict[str, float | int] = {
        "width": d.width,
        "height": d.height,
        "channels": d.feature_channels,
        "images": d.number_of_images,
        "slices": -(-d.feature_channels // 4),
        "size": d.number_of_images * d.height * d.width * d.feature_channels,
    }
    neuron = operation.descriptor
    if neuron is not None:
        return numbers | {name: float(getattr(neuron, name)) for name in "abc"}
    facts: Mapping[str, Any] = operation.facts()
    scales = getattr(operation, "scales", None)
    if scales is not None:
        numbers |= {"primary_scale": float(scales[0]), "secondary_scale": float(scales[1])}
    return numbers | ({"bias": float(facts["bias"])} if "bias" in facts else {})


def parameters_of(operation: Operation, result: MPSImageDescriptor) -> bytes:
    """The struct ``Parameters`` of our own kernels."""
    numbers = {"a": 0.0, "b": 0.0, "c": 0.0} | numbers_of(operation, result)
    floats = [np.float32(numbers[name]) for name in "abc"]
    return struct.pack("<3f2I", *floats, int(numbers["channels"]), int(numbers["size"]))


def slopes_of(operation: Operation) -> npt.NDArray[np.float32]:
    """The slopes of pReLU."""
    assert operation.descriptor is not None
    return np.asarray(operation.descriptor.data, np.float32)
