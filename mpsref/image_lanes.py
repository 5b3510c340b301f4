"""Feature channels in slices of four lanes: where each lies, and copies between slices and plain arrays."""

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
    """How many components a texture has for so many channels."""
    return feature_channels if feature_channels <= 2 else LANES


def write_lanes(slices: Stored, array: Stored) -> None:
    """(N, H, W, C) into (N, S, H, W, K), lane by lane: four strided copies are faster than one transposition."""
    if texels := _texels(slices, array):
        texels[0][...] = np.moveaxis(texels[1], -1, 1)
        return
    for lane in range(slices.shape[-1]):
        channels = array[..., lane::LANES]
        slices[:, : channels.shape[-1], ..., lane] = np.moveaxis(channels, -1, 1)


def read_lanes(slices: Stored, array: Stored) -> None:
    """(N, S, H, W, K) into (N, H, W, C)."""
    if texels := _texels(slices, array):
        texels[1][...] = np.moveaxis(texels[0], 1, -1)
        return
    for lane in range(min(slices.shape[-1], array.shape[-1])):
        channels = array[..., lane::LANES]
        channels[...] = np.moveaxis(slices[:, : channels.shape[-1], ..., lane], 1, -1)


def _texels(slices: Stored, array: Stored) -> tuple[Stored, Stored] | None:
    """Both with four lanes as one element, (N, S, H, W) and (N, H, W, S), where four lanes lie together in each."""
    together = all(stored.strides[-1] == stored.dtype.itemsize for stored in (slices, array))
    if not together or slices.dtype != array.dtype or slices.shape[-1] != LANES or array.shape[-1] % LANES:
        return None
    # A type that numpy copies and does not look into.
    texel = {4: np.uint32, 8: np.uint64, 16: np.complex128}.get(LANES * slices.dtype.itemsize)
    if texel is None:
        return None
    return slices.view(texel)[:, : array.shape[-1] // LANES, ..., 0], array.view(texel)


def clear_unused_lanes(slices: Stored, channels: int) -> None:
    """Set to zero the components of (N, S, H, W, K) that no channel uses, so that none is ever NaN or infinite."""
    used = (channels - 1) % LANES + 1
    if used < slices.shape[-1]:
        slices[:, -1, :, :, used:] = 0


def by_lane(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """One value a channel as (slices of one image, components)."""
    channels = len(values)
    lanes = np.zeros((math.ceil(channels / LANES), components(channels)), values.dtype)
    lanes.reshape(-1)[:channels] = values
    return lanes


def texel_of(channel: int, image_index: int, channels: int) -> tuple[int, int]:
    """Texture slice and component (lane) of a channel."""
    return image_index * math.ceil(channels / LANES) + channel // LANES, channel % LANES
