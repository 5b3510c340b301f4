"""Byte buffers to and from images: pixels, channels and strides."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from mpsref.arrays import Stored
from mpsref.enums import MPSDataLayout, member_of
from mpsref.errors import CONVERSION_ERRORS, ImageError, shown
from mpsref.image_lanes import LANES
from mpsref.storage import StorageFormat

__all__ = ["LARGEST_IMAGE", "MPSImageReadWriteParams", "MTLOrigin", "MTLRegion", "MTLSize", "Transfer", "whole"]

LARGEST_IMAGE = 2**40
"""Bytes; anything larger is a mistake."""


class MTLOrigin(NamedTuple):
    """Position of a region: pixel (x, y), and z the first image counted from ``image_index``."""

    x: int = 0
    y: int = 0
    z: int = 0


class MTLSize(NamedTuple):
    """Extent of a region in pixels; ``depth`` counts images."""

    width: int
    height: int
    depth: int = 1


class MTLRegion(NamedTuple):
    """A block of pixels of one or several images."""

    origin: MTLOrigin
    size: MTLSize


class MPSImageReadWriteParams(NamedTuple):
    """
    Which feature channels to read or write. Source: ``MPSImage.h``.

    ``feature_channel_offset`` is a multiple of 4. ``number_of_feature_channels_to_read_write`` is above 0, and a
    multiple of 4 unless the offset is 0.
    """

    feature_channel_offset: int
    number_of_feature_channels_to_read_write: int


class Transfer:
    """The checked arguments of readBytes and writeBytes: a view of the image, and the strides of the buffer."""

    def __init__(
        self,
        slices: Stored,
        storage: StorageFormat,
        channels: int,
        data_layout: MPSDataLayout | str,
        image_index: int,
        bytes_per_column: int | None,
        bytes_per_row: int | None,
        bytes_per_image: int | None,
        region: MTLRegion | None,
        feature_channel_info: MPSImageReadWriteParams | None,
    ) -> None:
        layout = member_of(MPSDataLayout, data_layout)
        if layout is None:
            choices = " or ".join(m.name for m in MPSDataLayout)
            raise ImageError(f"data_layout is {shown(data_layout)}: give {choices}")
        index = whole("image_index", image_index)
        images, _, height, width, _ = slices.shape
        x, y, z, w, h, depth = _region(region, width, height)
        x, w = _interval("region", "x", x, w, width)
        y, h = _interval("region", "y", y, h, height)
        first = index + whole("region origin z", z)
        first, depth = _interval("image_index + region", "z", first, depth, images)
        offset, count = _channels(feature_channel_info, channels)

        size = storage.dtype.itemsize
        planar = layout is MPSDataLayout.featureChannelsxHeightxWidth
        texel = size if planar else count * size
        column = _stride("bytes_per_column", bytes_per_column, texel, texel)
        used = (w - 1) * column + texel
        row = _stride("bytes_per_row", bytes_per_row, w * column, used)
        rows = h * (count if planar else 1)
        per_image = _stride("bytes_per_image", bytes_per_image, row * rows, row * (rows - 1) + used)

        self.pixels = slices[
            first : first + depth, offset // LANES : math.ceil((offset + count) / LANES), y : y + h, x : x + w
        ]
        self._dtype = storage.dtype.newbyteorder("<")
        self._shape = (depth, h, w, count)
        self._strides = (per_image, row, column, row * h if planar else size)
        self.nbytes = sum((n - 1) * s for n, s in zip(self._shape, self._strides, strict=True)) + size
        if self.nbytes > LARGEST_IMAGE:
            raise ImageError(f"bytes_per_row or bytes_per_image ask for a buffer of {self.nbytes} bytes: give less")

    def elements(self, buffer: bytearray | memoryview) -> Stored:
        """The buffer's elements as (images, height, width, channels)."""
        return np.ndarray(self._shape, self._dtype, buffer, strides=self._strides)


def whole(name: str, value: Any, minimum: int = 0) -> int:
    """`value`, if it is an integer of at least the minimum."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < minimum:
        raise ImageError(f"{name} is {shown(value)}: give an integer of at least {minimum}")
    return int(value)


def _region(region: MTLRegion | None, width: int, height: int) -> tuple[Any, ...]:
    """x, y, z, width, height, depth."""
    if region is None:
        return 0, 0, 0, width, height, 1
    try:
        (x, y, z), (w, h, depth) = region
    except CONVERSION_ERRORS:
        raise ImageError(
            f"region is {shown(region)}: give MTLRegion(MTLOrigin(x, y, z), MTLSize(w, h, depth))"
        ) from None
    return x, y, z, w, h, depth


def _interval(owner: str, axis: str, start: Any, length: Any, limit: int) -> tuple[int, int]:
    """Start and length, if they lie within the limit."""
    start = whole(f"{owner} origin {axis}", start)
    length = whole(f"{owner} size along {axis}", length, minimum=1)
    if start + length > limit:
        raise ImageError(f"{owner} covers {start} to {start + length} along {axis}: the image ends at {limit}")
    return start, length


def _channels(info: MPSImageReadWriteParams | None, channels: int) -> tuple[int, int]:
    """Offset and number of the feature channels to transfer, as far as the header allows."""
    if info is None:
        return 0, channels
    name = "feature_channel_info"
    try:
        offset, count = info
    except CONVERSION_ERRORS:
        raise ImageError(f"{name} is {shown(info)}: give MPSImageReadWriteParams(offset, number)") from None
    offset = whole(f"{name}.feature_channel_offset", offset)
    count = whole(f"{name}.number_of_feature_channels_to_read_write", count, minimum=1)
    if offset % LANES:
        raise ImageError(f"{name}.feature_channel_offset is {offset}: it must be a multiple of 4")
    if offset and count % LANES:
        raise ImageError(
            f"{name}.number_of_feature_channels_to_read_write is {count}: "
            "it must be a multiple of 4 unless the offset is 0"
        )
    if offset + count > channels:
        raise ImageError(f"{name} reaches channel {offset + count}: the image has {channels}")
    return offset, count


def _stride(name: str, value: Any, dense: int, minimum: int) -> int:
    if value is None:
        return dense
    stride = whole(name, value)
    if stride < minimum:
        raise ImageError(f"{name} is {stride}: elements would overlap, at least {minimum} are needed")
    if stride > LARGEST_IMAGE:
        raise ImageError(f"{name} is {stride}: give at most {LARGEST_IMAGE}")
    return stride
