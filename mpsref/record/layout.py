"""How the elements of an image lie in a file: as an array of one to five axes, or as the slices of a texture."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mpsref.arrays import Stored
from mpsref.enums import MPSDataLayout
from mpsref.errors import ImageError
from mpsref.image import MPSImageDescriptor, descriptor_in
from mpsref.image_lanes import LANES, components, read_lanes
from mpsref.storage import ChannelFormat

__all__ = ["HWC", "MOST_AXES", "NC4HW4", "TEXTURE", "Layout", "shape_of"]

HWC = MPSDataLayout.HeightxWidthxFeatureChannels.name
TEXTURE, NC4HW4 = "texture", "NC4HW4"

MOST_AXES = 5
"""Axes of an array that stands for images."""

FLAT = 2
"""As many axes, or fewer, are no image's."""


@dataclass(frozen=True)
class Layout:
    """
    The array in a file, and which of its axes are which of an image's.

    Attributes
    ----------
    shape : tuple of int
        The shape of the array.
    channel_axis : int
        Which axis has the feature channels. The others are, from the last on, columns, rows and images; of five axes
        the first two are images.
    lanes : int
        Elements of a texel, if the array is a texture of shape (slices of all images, height, width, lanes); else 0.
    has_own_places : bool
        Whether elements are called by their indices in this array, instead of image, row, column and channel.
    is_texture : bool
        Whether a texture held the array, not a buffer in the same order.
    """

    shape: tuple[int, ...]
    channel_axis: int = -1
    lanes: int = 0
    has_own_places: bool = False
    is_texture: bool = False

    @classmethod
    def named(cls, name: str, d: MPSImageDescriptor, elements: int) -> Layout:
        """The layout of a name in a recording file, for an image and a file with so many elements."""
        n, h, w, c = shape_of(d)
        if name == MPSDataLayout.featureChannelsxHeightxWidth.name:
            return cls((n, c, h, w), 1)
        if name == HWC:
            return cls((n, h, w, c))
        slices = n * math.ceil(c / LANES)
        # A texture of one or two channels has as many lanes, but may have been made with four.
        is_narrow = name == TEXTURE and slices * h * w * LANES != elements
        lanes = components(c) if is_narrow else LANES
        return cls((slices, h, w, lanes), lanes=lanes, is_texture=name == TEXTURE)

    @classmethod
    def of_array(cls, shape: tuple[int, ...], channel_axis: int = -1) -> Layout:
        """
        The layout of an array of any rank.

        Raises
        ------
        ImageError
            The rank is none of 1 to 5, an axis is empty, or there is no such channel axis.
        """
        if not 1 <= len(shape) <= MOST_AXES or 0 in shape:
            raise ImageError(f"shape is {list(shape)}: give 1 to {MOST_AXES} axes, none empty")
        if not -len(shape) <= channel_axis < len(shape):
            raise ImageError(
                f"channel_axis is {channel_axis}: the axes of shape {list(shape)} are 0 to {len(shape) - 1}"
            )
        return cls(shape, channel_axis, has_own_places=True)

    @property
    def elements(self) -> int:
        """How many elements the file holds, those of unused lanes included."""
        return math.prod(self.shape)

    @property
    def is_dense(self) -> bool:
        """Whether the file holds images, rows, columns and channels in this order, and nothing else."""
        return not self.lanes and self.channel_axis in (-1, len(self.shape) - 1)

    @property
    def axes(self) -> tuple[str, str, str, str]:
        """What images, rows, columns and channels are called: by the array's axes, if it has too few for an image."""
        channels, columns = "channels", "columns"
        if self.has_own_places and len(self.shape) <= FLAT:
            axis = self.channel_axis % len(self.shape)
            channels, columns = f"indices of axis {axis}", f"indices of axis {1 - axis}"
        return "images", "rows", columns, channels

    def descriptor(self, channel_format: ChannelFormat) -> MPSImageDescriptor:
        """The image that an array is."""
        rest = list(self.shape)
        c = rest.pop(self.channel_axis)
        *images, h, w = [1] * (4 - len(rest)) + rest
        return descriptor_in(channel_format, width=w, height=h, feature_channels=c, number_of_images=math.prod(images))

    def unpacked(self, array: Stored, d: MPSImageDescriptor) -> Stored:
        """The elements of the file as an array of shape (N, H, W, C)."""
        n, h, w, c = shape_of(d)
        if not self.lanes:
            return np.moveaxis(array.reshape(self.shape), self.channel_axis, -1).reshape(n, h, w, c)
        unpacked = np.empty((n, h, w, c), array.dtype)
        read_lanes(array.reshape(n, -1, h, w, self.lanes), unpacked)
        return unpacked

    def place(self, flat: int) -> tuple[int, ...]:
        """The indices in the file's array of an element with this flat index in (N, H, W, C)."""
        rest = list(self.shape)
        pixel, channel = divmod(flat, rest.pop(self.channel_axis))
        place = [int(i) for i in np.unravel_index(pixel, rest)] if rest else []
        place.insert(self.channel_axis % len(self.shape), channel)
        return tuple(place)


def shape_of(d: MPSImageDescriptor) -> tuple[int, int, int, int]:
    """Images, height, width and feature channels."""
    return d.number_of_images, d.height, d.width, d.feature_channels
