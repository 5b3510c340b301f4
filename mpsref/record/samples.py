"""
Source images that test well: every bit pattern, kinks and edges first, and no two neighbours alike.

They are computed from integers and the reference's own results, so the same seed gives the same bytes on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from functools import cache, lru_cache
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from mpsref.arguments import checked
from mpsref.enums import MPSCNNNeuronType, MPSImageFeatureChannelFormat
from mpsref.errors import ParameterError, shown
from mpsref.image import MPSImage, MPSImageDescriptor
from mpsref.neuron import MPSNNNeuronDescriptor, forward, gradient
from mpsref.storage import FORMATS, StorageFormat, storage_format, storage_of

__all__ = ["edges", "sample_image"]

Bits = npt.NDArray[np.int64]
"""Stored elements as integers: bit patterns, or codes."""

HALF, SINGLE = FORMATS[MPSImageFeatureChannelFormat.float16], FORMATS[MPSImageFeatureChannelFormat.float32]
MOST_NEURONS, MOST_EDGES = 256, 256
GOLDEN = 0.6180339887498949


@checked
def sample_image(
    d: MPSImageDescriptor, neurons: Iterable[MPSNNNeuronDescriptor], seed: tuple[int, ...], *, is_gradient: bool = False
) -> MPSImage:
    """
    A source image for a graph with these neurons.

    Parameters
    ----------
    d : MPSImageDescriptor
        Size and format. An image of 65,536 elements holds every half-precision value; where a channel has as many
        pixels as a format has bit patterns, every channel holds every pattern.
    neurons : iterable of MPSNNNeuronDescriptor
        Their kinks, and the edges of their domains and ranges, are in the image as far as there is room.
    seed : tuple of int
        Selects another image.
    is_gradient : bool
        Whether it is an incoming gradient: of moderate magnitude, with a few special values.
    """
    if not seed or min(seed) < 0:
        raise ParameterError(f"seed is {shown(seed)}: give integers of at least 0")
    storage = storage_format(d.channel_format)
    pixels = d.number_of_images * d.height * d.width
    values = _palette(storage, pixels * d.feature_channels, neurons, seed, is_gradient=is_gradient)
    values = values[_permutation(len(values), seed)]
    bits = values[_places(pixels, d.feature_channels, len(values), seed)]
    stored = bits.astype(storage.bits_dtype).view(storage.dtype)
    return MPSImage._of_recorded(stored.reshape(d.number_of_images, d.height, d.width, d.feature_channels))


def _raw(count: int, seed: tuple[int, ...]) -> npt.NDArray[np.uint64]:
    # The raw stream of a bit generator never changes, unlike numpy's distributions.
    return np.random.PCG64(np.random.SeedSequence(seed)).random_raw(count)


def _permutation(count: int, seed: tuple[int, ...]) -> Bits:
    return np.argsort(_raw(count, seed), kind="stable")


def _places(pixels: int, channels: int, count: int, seed: tuple[int, ...]) -> Bits:
    """
    Which of `count` values each element gets, shape (pixels, channels).

    Every value is used before one is used again; where a channel has room for all, in every channel. Each repetition is
    rotated, so that swapped channels, pixels or images show.
    """
    in_channels = pixels >= count
    element = np.arange(pixels)[:, np.newaxis] if in_channels else np.arange(pixels * channels).reshape(pixels, -1)
    rotations = (_raw(pixels * channels // count + 1, (*seed, 1)) % np.uint64(count)).astype(np.int64)
    places = element + rotations[element // count]
    if in_channels:
        places = places + np.arange(channels) * _coprime(count)
    return np.asarray(places % count)


def _coprime(count: int) -> int:
    step = max(int(GOLDEN * count), 1)
    while math.gcd(step, count) != 1:
        step += 1
    return step


def _palette(
    storage: StorageFormat,
    count: int,
    neurons: Iterable[MPSNNNeuronDescriptor],
    seed: tuple[int, ...],
    *,
    is_gradient: bool,
) -> Bits:
    """At most `count` distinct elements, the most important first."""
    start = seed[0] & 0xFFFFFFFF
    if storage.unorm_max:
        codes = _spread(storage.unorm_max + 1, storage.unorm_max + 1, start)
        if count >= len(codes):
            return codes
        return _first_distinct([_specials(storage)[: count // 2], _near(storage, neurons, count // 2), codes], count)
    specials = _specials(storage)
    if is_gradient:
        return _first_distinct([specials[: count // 64], _moderate(storage, count + 128, start)], count)
    halves = HALF.patterns()[_spread(65_536, 65_536, start)]
    if storage is HALF and count >= 65_536:
        return halves.view(np.uint16).astype(np.int64)
    # In float32 too, 65,536 elements have room for all halves, with a single NaN.
    room = count // 2 if count < 65_536 else min(count // 2, count - 63_491)
    first = _first_distinct([specials, _near(storage, neurons, room)], room)
    if storage is HALF:
        return _first_distinct([first, halves.view(np.uint16).astype(np.int64)], count)
    singles = halves[~np.isnan(halves)].astype(np.float32).view(np.uint32).astype(np.int64)
    if count < 65_536:
        singles = singles[: (count - len(first)) // 2]
    return _first_distinct([first, singles, _anything(storage, count + count // 4 + 128, start)], count)


def _first_distinct(parts: list[Bits], count: int) -> Bits:
    bits = np.concatenate(parts)
    _, first = np.unique(bits, return_index=True)
    return bits[np.sort(first)][:count]


def _spread(count: int, modulus: int, start: int) -> Bits:
    """The beginning of a sequence that visits all integers below `modulus` once, any part of it evenly spread."""
    return (np.arange(count) * _coprime(modulus) + start) % modulus


def _moderate(storage: StorageFormat, count: int, start: int) -> Bits:
    """Finite values of both signs with magnitudes from 2^-8 to 2^8."""
    width, mantissa = 8 * storage.dtype.itemsize, storage.precision - 1
    k = _spread(min(count, 1 << (mantissa + 5)), 1 << (mantissa + 5), start)
    exponent_bias = (1 << (width - mantissa - 2)) - 1
    return ((k & 1) << (width - 1)) | ((k >> 1) + ((exponent_bias - 8) << mantissa))


def _anything(storage: StorageFormat, count: int, start: int) -> Bits:
    """Seven moderate values for each one of any magnitude."""
    values = _moderate(storage, count, start)
    anything = _spread(len(values), 1 << 32, start)
    values[7::8] = anything[7::8]
    return values[(values & 0x7FFFFFFF) <= 0x7F800000]


def _specials(storage: StorageFormat) -> Bits:
    """Zeros, ones, infinities, NaN, and the limits of the subnormal and finite values."""
    if storage.unorm_max:
        largest = storage.unorm_max
        return np.array([0, largest, 1, largest - 1, largest // 2, largest // 2 + 1])
    width, mantissa = 8 * storage.dtype.itemsize, storage.precision - 1
    one = ((1 << (width - mantissa - 2)) - 1) << mantissa
    infinity = ((1 << (width - mantissa - 1)) - 1) << mantissa
    magnitudes = [0, one, infinity, infinity - 1, 1, (1 << mantissa) - 1, 1 << mantissa, one - 1, one + 1]
    signed = [value | sign for value in magnitudes for sign in (0, 1 << (width - 1))]
    # NaN after the zeros and ones, so that even a small image has one.
    return np.array([*signed[:4], infinity | 1 << (mantissa - 1), *signed[4:]])


# ---- kinks and edges ----


def _near(storage: StorageFormat, neurons: Iterable[MPSNNNeuronDescriptor], count: int) -> Bits:
    """The kinks of all neurons, then their edges, with their neighbours, as elements of a format."""
    chosen = list(islice(_distinct(neurons), MOST_NEURONS))
    parts = [_with_neighbours(storage, _kinks(neuron)) for neuron in chosen]
    total = sum(map(len, parts))
    for neuron in chosen:
        if total >= count:
            break
        parts.append(_with_neighbours(storage, _edges(neuron)))
        total += len(parts[-1])
    return np.concatenate([np.zeros(0, np.int64), *parts])


def _with_neighbours(storage: StorageFormat, values: npt.NDArray[np.float32]) -> Bits:
    stored = np.empty(values.shape, storage.dtype)
    with np.errstate(all="ignore"):
        storage.encode(values.astype(np.float64), stored)
    ordinals = storage.ordinals(stored) + np.array([0, -1, 1])[:, np.newaxis]
    return _from_ordinals(storage, ordinals.ravel())


def _distinct(neurons: Iterable[MPSNNNeuronDescriptor]) -> Iterator[MPSNNNeuronDescriptor]:
    """Each neuron once, with one slope for all channels."""
    seen = set()
    for neuron in neurons:
        one = neuron
        if neuron.data is not None:
            one = MPSNNNeuronDescriptor(MPSCNNNeuronType.pReLU, data=neuron.data[:1])
        key = repr((one.neuron_type, one.parameters, None if one.data is None else float(one.data[0])))
        if key not in seen:
            seen.add(key)
            yield one


@checked
def edges(neuron: MPSNNNeuronDescriptor) -> npt.NDArray[np.float32]:
    """
    Kinks, and pairs of neighbouring float32 between which the result or the slope changes its kind.

    Kinds are NaN, infinity, zero, subnormal or normal, with a sign, as float16 and as float32, and the neuron's limits
    at either infinity: so domains, overflow, underflow and saturation all end at an edge.

    Examples
    --------
    >>> import mpsref as mps
    >>> from mpsref.record.samples import edges
    >>> edges(mps.MPSNNNeuronDescriptor(mps.MPSCNNNeuronType.exponential)).max()  # e^x overflows above
    np.float32(88.72284)
    """
    return _edges(neuron).copy()


@lru_cache(maxsize=MOST_NEURONS)
def _edges(neuron: MPSNNNeuronDescriptor) -> npt.NDArray[np.float32]:
    grid = _grid()
    kinds = _kinds(neuron, grid)
    changes = np.flatnonzero(kinds[1:] != kinds[:-1])
    if len(changes) > MOST_EDGES:
        changes = changes[np.arange(MOST_EDGES) * len(changes) // MOST_EDGES]
    low, high = grid[changes], grid[changes + 1]
    while np.any(high - low > 1):
        middle = (low + high) // 2
        same = _kinds(neuron, middle) == kinds[changes]
        low, high = np.where(same, middle, low), np.where(same, high, middle)
    return np.concatenate([_kinks(neuron), _single(low), _single(high)])


@cache
def _grid() -> Bits:
    """Ordinals of float32: all half-precision values, and powers of two beyond."""
    halves = HALF.patterns()
    large = np.arange(0x47800000, 0x7F800001, 0x00800000)
    small = np.concatenate([1 << np.arange(23), np.arange(0x00800000, 0x33800000, 0x00800000)])
    beyond = np.concatenate([large, small])
    return np.unique(np.concatenate([SINGLE.ordinals(halves[~np.isnan(halves)].astype(np.float32)), beyond, -beyond]))


def _kinks(neuron: MPSNNNeuronDescriptor) -> npt.NDArray[np.float32]:
    with np.errstate(over="ignore"):  # a kink may lie beyond the range of float32
        return np.array(neuron.row.kinks(neuron), np.float32)


def _kinds(neuron: MPSNNNeuronDescriptor, ordinals: Bits) -> Bits:
    infinities = np.array([-np.inf, np.inf], np.float32)
    x = np.concatenate([infinities, _single(ordinals)])[:, np.newaxis]
    kinds = np.zeros(len(ordinals), np.int64)
    for y in (forward(neuron, x), gradient(neuron, x, np.ones_like(x))):
        with np.errstate(over="ignore"):
            stored = [y[:, 0], y[:, 0].astype(np.float16)]
        for values in stored:
            kinds = 16 * kinds + _kind(values)
    return kinds


def _kind(values: npt.NDArray[Any]) -> Bits:
    """The kind of each value as a digit; the first two values are the limits, and have none."""
    size, limits = np.abs(values[2:]), values[:2]
    normal = size >= storage_of(values, "values").limits.smallest_normal
    kind = np.where(size == 0, 1, np.where(normal, 3, 2)) + np.where(np.signbit(values[2:]), 3, 0)
    kind = np.where(values[2:] == limits[0], 8, np.where(values[2:] == limits[1], 9, kind))
    kind = np.where(np.isinf(size), np.where(values[2:] > 0, 10, 11), kind)
    return np.where(np.isnan(size), 0, kind)


def _single(ordinals: Bits) -> npt.NDArray[np.float32]:
    return _from_ordinals(SINGLE, ordinals).astype(np.uint32).view(np.float32)


def _from_ordinals(storage: StorageFormat, ordinals: Bits) -> Bits:
    """The inverse of `StorageFormat.ordinals`, clipped to the range of the format; NaN becomes infinity."""
    if storage.unorm_max:
        return np.clip(ordinals, 0, storage.unorm_max)
    infinity = int(storage.ordinals(np.array([np.inf], storage.dtype))[0])
    ordinals = np.clip(ordinals, -infinity, infinity)
    return np.where(ordinals < 0, (1 << (8 * storage.dtype.itemsize - 1)) | -ordinals, ordinals)
