"""Feature channels in slices of four lanes: their places, and copies to and from plain arrays."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from mpsref.arrays import Stored

__all__ = ["LANES", "by_lane", "clear_unused_lanes", "components", "read_lanes", "texel_of", "write_lanes"]

LANES = 4
"""Feature channels in one slice of a texture."""


def components(feature_channels: int) -> int:
    """The number of components of a texture."""
    return feature_channels if feature_channels <= 2 else LANES


def write_lanes(slices: Stored, array: Stored) -> None:
    """Copy (N, H, W, C) to (N, S, H, W, K), lane by lane: four strided copies are faster than one transposition."""
    if texels := _texels(slices, array):
        texels[0][...] = np.moveaxis(texels[1], -1, 1)
        return
    for lane in range(slices.shape[-1]):
        channels = array[..., lane::LANES]
        slices[:, : channels.shape[-1], ..., lane] = np.moveaxis(channels, -1, 1)


def read_lanes(slices: Stored, array: Stored) -> None:
    """Copy (N, S, H, W, K) to (N, H, W, C)."""
    if texels := _texels(slices, array):
        texels[1][...] = np.moveaxis(texels[0], 1, -1)
        return
    for lane in range(min(slices.shape[-1], array.shape[-1])):
        channels = array[..., lane::LANES]
        channels[...] = np.moveaxis(slices[:, : channels.shape[-1], ..., lane], 1, -1)


def _texels(slices: Stored, array: Stored) -> tuple[Stored, Stored] | None:
    """Views with four lanes as one element, (N, S, H, W) and (N, H, W, S), if the lanes are contiguous in both."""
    is_contiguous = all(stored.strides[-1] == stored.dtype.itemsize for stored in (slices, array))
    if not is_contiguous or slices.dtype != array.dtype or slices.shape[-1] != LANES or array.shape[-1] % LANES:
        return None
    # A type that NumPy copies as opaque bits.
    texel = {4: np.uint32, 8: np.uint64, 16: np.complex128}.get(LANES * slices.dtype.itemsize)
    if texel is None:
        return None
    return slices.view(texel)[:, : array.shape[-1] // LANES, ..., 0], array.view(texel)


def clear_unused_lanes(slices: Stored, channels: int) -> None:
    """Zero the unused components of (N, S, H, W, K), so that none is ever NaN or infinite."""
    used = (channels - 1) % LANES + 1
    if used < slices.shape[-1]:
        slices[:, -1, :, :, used:] = 0


def by_lane(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """One value per channel as (slices of one image, components)."""
    channels = len(values)
    lanes = np.zeros((math.ceil(channels / LANES), components(channels)), values.dtype)
    lanes.reshape(-1)[:channels] = values
    return lanes


def texel_of(channel: int, image_index: int, channels: int) -> tuple[int, int]:
    """The texture slice and the lane of a channel."""
    return image_index * math.ceil(channels / LANES) + channel // LANES, channel % LANES
