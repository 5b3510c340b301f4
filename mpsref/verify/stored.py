"""Ranges of values that images hold: what is read of them, what is stored, and what passes for that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from enum import IntEnum

import numpy as np

from mpsref.arrays import Elements, Mask, Stored, meaning
from mpsref.storage import ArrayFormat, StorageFormat
from mpsref.verify.ranges import Range
from mpsref.verify.running import Running

__all__ = ["Nearness", "inner", "passing", "read", "stored", "with_neighbours"]


def read(f: Running, elements: Elements) -> Range:
    """Stored elements as ranges."""
    values = -elements.values() if f.mirror else elements.values()
    if elements.storage.unorm_max and f.model.rounds_either_way:
        return f.between(values, values, f.model.laws["division"])
    return f.range(values)


class Nearness(IntEnum):
    """What passes for a stored value."""

    ITSELF = 0
    NEIGHBOUR = 1
    """Where an image before was not recorded, as it passes where all are."""
    DIRECTED = 2
    """Where a store does not round to nearest; then the largest number passes for an overflow too."""


def passing(value: Range, storage: StorageFormat, nearness: Nearness) -> Range:
    """The ranges of what passes for stored values; NaN is none of a unorm image, but its code 0."""
    lower, upper, between = stored(value, storage)
    if nearness is Nearness.ITSELF:
        return between
    below, above = _next(lower, storage, -1), _next(upper, storage, 1)
    if nearness is Nearness.DIRECTED and not storage.unorm_max:
        largest = storage.limits.max
        below = np.where(np.isposinf(lower) & np.isfinite(value.low), largest, below)
        above = np.where(np.isneginf(upper) & np.isfinite(value.high), -largest, above)
    return replace(between, low=meaning(below, storage), high=meaning(above, storage))


def inner(value: Range, storage: StorageFormat, nearness: Nearness = Nearness.NEIGHBOUR) -> Range:
    """The ranges of what the next node reads of an image that is not recorded."""
    read = passing(value, storage, max(nearness, Nearness.NEIGHBOUR))
    if not storage.unorm_max:
        return read
    return replace(read, low=np.where(read.nan, 0.0, read.low), nan=np.zeros_like(read.nan))


def _next(got: Stored, storage: StorageFormat, way: int) -> Stored:
    """The stored numbers next to some, below or above, that pass for them; infinities have none, nor has bfloat16."""
    if storage.channel_format is ArrayFormat.bfloat16:
        return got
    moved = _step(got, storage, way)
    return moved if storage.unorm_max else np.where(np.isfinite(got) & np.isfinite(moved), moved, got)


def _step(got: Stored, storage: StorageFormat, way: int) -> Stored:
    """The stored numbers next to some, below or above; there is no code beyond the ends."""
    if storage.unorm_max:
        moved: Stored = np.maximum(got, 1) - 1 if way < 0 else np.minimum(got, storage.unorm_max - 1) + 1
    else:
        with np.errstate(over="ignore"):
            moved = np.nextafter(got, got.dtype.type(way * np.inf))
    return moved


def with_neighbours(got: Stored, storage: StorageFormat) -> list[Stored]:
    """Stored elements, and those next to them, which pass for them."""
    return [got, _next(got, storage, -1), _next(got, storage, 1)]


def stored(value: Range, storage: StorageFormat) -> tuple[Stored, Stored, Range]:
    """The ends of ranges as an image stores them, and these ranges."""
    ends = [
        storage.encode(np.ascontiguousarray(end), np.empty(end.shape, storage.dtype)) for end in (value.low, value.high)
    ]
    if value.f.model.rounds_either_way:
        ends = _either_way(value, ends, storage)
    low, high = (meaning(end, storage) for end in ends)
    read = Range(low, high, value.nan, value.reason, value.f)
    return ends[0], ends[1], replace(read, zero=value.zero | _may_be_flushed(read, storage))


def _either_way(value: Range, ends: Sequence[Stored], storage: StorageFormat) -> list[Stored]:
    """Stored ends moved outwards where they are rounded inwards."""
    low, high = ends
    down, up = meaning(low, storage) > value.low, meaning(high, storage) < value.high
    return [np.where(down, _step(low, storage, -1), low), np.where(up, _step(high, storage, 1), high)]


def _may_be_flushed(between: Range, storage: StorageFormat) -> Mask:
    """Where ranges of stored values have subnormals that a store may flush, if either neighbour may be stored."""
    if storage.unorm_max or not between.f.model.rounds_either_way:
        return np.zeros(between.low.shape, np.bool_)
    least = float(storage.limits.smallest_normal)
    tiny: Mask = ((between.low > 0) & (between.low < least)) | ((between.high < 0) & (between.high > -least))
    return tiny
