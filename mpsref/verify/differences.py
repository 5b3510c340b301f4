"""
Where an image differs from the reference.

Most elements of most images hold the very bits of the reference. So images are read, evaluated and compared block by
block, in the caches of the processor, and only what differs is kept; whole images are read when something asks for
them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import compress, repeat

import numpy as np

from mpsref.arrays import Elements, Index, Mask, Stored
from mpsref.neuron.rounding import nan_in_halves
from mpsref.neuron.workspace import largest
from mpsref.operations import Operation, Size
from mpsref.record.recording import RecordedImage
from mpsref.storage import StorageFormat

__all__ = ["Deferred", "Differences", "evaluated"]

BLOCK = 2**20
"""Bytes of an image compared at once: enough to hide the cost of calls from Python, few enough for the caches."""

FEW = 16
"""Elements that are read one by one."""

ARITHMETIC = 24
"""Bits of float32, in which most devices compute: how a store rounds is asked only where it keeps fewer."""


class Deferred:
    """
    The elements of an image, read or computed when they are first needed.

    Parameters
    ----------
    size : tuple of int
        Images, height, width and feature channels.
    storage : StorageFormat
        How they are stored.
    make : callable
        Gives them all.
    file : RecordedImage, optional
        Where they can be read from, instead of all at once.
    """

    def __init__(
        self,
        size: Size,
        storage: StorageFormat,
        make: Callable[[], Elements],
        file: RecordedImage | None = None,
    ) -> None:
        self.size, self.storage = size, storage
        self._make: Callable[[], Elements] | None = make
        self._file = file
        self._elements: Elements | None = None
        self._kept: tuple[Index, Stored | None] = np.empty(0, np.intp), np.empty(0, storage.dtype)

    @classmethod
    def of(cls, elements: Elements) -> Deferred:
        """Elements that are there."""
        n, h, w, c = elements.stored.shape
        return cls((n, h, w, c), elements.storage, lambda: elements)

    @classmethod
    def read(cls, image: RecordedImage) -> Deferred:
        """Those of a file."""
        return cls(image.size, image.storage, image.elements, image)

    def elements(self) -> Elements:
        """All of them, of shape (N, H, W, C)."""
        if self._elements is None:
            assert self._make is not None
            self._elements = self._make()
            # What they were made from may go.
            self._make = self._file = None
        return self._elements

    def blocks(self, each: int) -> Iterator[Stored]:
        """All of them, flat, so many at a time."""
        if self._file is not None and math.prod(self.size) > each:
            return self._file._blocks(each)
        flat = self.elements().stored.reshape(-1)
        return (flat[start : start + each] for start in range(0, flat.size, each))

    def keep(self, index: Index, stored: Stored | None = None) -> None:
        """Remember some of them, by ascending flat index, until all are needed; those not given are read when asked."""
        self._kept = index, stored

    def at(self, index: Index) -> Elements:
        """Some of them, by flat index."""
        places, stored = self._kept
        if self._elements is None and index.size <= places.size:
            where = np.minimum(np.searchsorted(places, index), places.size - 1)
            if (places[where] == index).all():
                if stored is None:
                    each = BLOCK // self.storage.dtype.itemsize
                    blocks = enumerate(self.blocks(each))
                    stored = np.concatenate([block[_within(places, k * each, each)] for k, block in blocks])
                    self.keep(places, stored)
                return Elements(stored[where], self.storage)
        return self.elements().at(index)

    def few(self, index: Index) -> Stored:
        """A few of them, by flat index."""
        if self._file is not None and index.size <= FEW:
            return self._file._at(index) if index.size else np.empty(0, self.storage.dtype)
        return self.at(index).stored

    def first(self, count: int | None) -> Deferred:
        """The first images of the batch; all for None."""
        if count in (None, self.size[0]):
            return self
        return Deferred((count, *self.size[1:]), self.storage, lambda: _first(self.elements(), count))


def _first(images: Elements, count: int) -> Elements:
    return Elements(images.stored[:count], images.storage)


@dataclass(frozen=True, eq=False)
class Differences:
    """
    Where two images of stored elements differ, bit for bit, and what they hold there.

    Attributes
    ----------
    size : int
        How many elements the images have.
    index : ndarray of int
        The flat indices of those that differ, in ascending order.
    got, want : ndarray
        What the images hold there.
    sample : tuple of ndarray
        What both hold at some places that were asked for, whether they differ or not, and what was read there.
    keeps_nan : callable
        By flat indices, whether the image holds NaN, where it is ideal, for a reason that would hold for these elements
        too: inputs that are numbers, or NaN in the same sources. A clamp of one source may lose its NaN, and the
        product with another keep that.
    """

    size: int
    index: Index
    got: Stored
    want: Stored
    sample: tuple[Stored, ...]
    keeps_nan: Callable[[Index], Mask]

    @classmethod
    def of(
        cls,
        blocks: Iterable[Sequence[Stored]],
        got: Callable[[], Stored],
        storage: StorageFormat,
        sample: Index | None = None,
        sources: Callable[[], Sequence[Elements]] = tuple,
        *,
        are_recorded: bool = True,
    ) -> Differences:
        """
        Those between the first parts of each block, in order; `got` gives the whole image.

        Parameters
        ----------
        blocks : iterable of sequence of ndarray
            What was got and what is wanted, flat, and what was read in the same places.
        got : callable
            Gives all that was got.
        storage : StorageFormat
            How the elements are stored.
        sample : ndarray of int, optional
            Flat indices, in ascending order.
        sources : callable, optional
            Gives what was read in the same places.
        are_recorded : bool
            Whether that is what the device read; NaN that the reference reads may have been lost before, otherwise.
        """
        bits = storage.bits_dtype
        none = np.empty(0, storage.dtype)
        sample = np.empty(0, np.intp) if sample is None else sample
        places, actuals, ideals, parts = [np.empty(0, np.intp)], [none], [none], []
        start = 0
        for ours, theirs, *read in blocks:
            chosen = _within(sample, start, ours.size)
            differs = ours.view(bits) != theirs.view(bits)
            # Where nothing differs, both hold the same.
            held = ours[chosen]
            parts.append([held, held, *(part[chosen] for part in read)])
            if differs.any():
                parts[-1][1] = theirs[chosen]
                differ = np.flatnonzero(differs)
                places.append(start + differ)
                actuals.append(ours[differ])
                ideals.append(theirs[differ])
            start += ours.size
        index, actual, ideal = map(_joined, (places, actuals, ideals))
        sampled = tuple(map(np.concatenate, zip(*parts, strict=True))) or (none, none)

        def keeps_nan(chosen: Index) -> Mask:
            if storage.unorm_max:
                return np.zeros(chosen.size, np.bool_)
            held = _is_nan(Elements(got(), storage))
            # Some hold it where the reference does not.
            held[index[_is_nan(Elements(actual, storage)) & ~_is_nan(Elements(ideal, storage))]] = False
            kinds = np.zeros(held.size, np.uint8)
            for k, source in enumerate(sources()):
                kinds |= _is_nan(source).astype(np.uint8) << k
            kept = np.bincount(kinds[held], minlength=256) > 0
            # What numbers give tells of all, and all tells of what numbers give.
            of_numbers = kept[0] & are_recorded
            return np.asarray(kept[kinds[chosen]] | of_numbers | (kept.any() & (kinds[chosen] == 0)))

        return cls(start, index, actual, ideal, sampled, keeps_nan)

    @classmethod
    def between(
        cls,
        got: Stored,
        want: Stored,
        storage: StorageFormat,
        sample: Index | None = None,
        sources: Sequence[Elements] = (),
    ) -> Differences:
        """Those between two arrays of one shape; the other arguments are those of `of`."""
        got, want = got.reshape(-1), want.reshape(-1)
        each = BLOCK // got.itemsize
        parts = [slice(start, start + each) for start in range(0, got.size, each)]
        return cls.of(((got[part], want[part]) for part in parts), lambda: got, storage, sample, lambda: sources)

    def only(self, chosen: Index) -> Differences:
        """Some of them, by flat index, as if the images had no other elements."""
        at = np.searchsorted(self.index, chosen)
        none = self.got[:0]
        return Differences(chosen.size, chosen, self.got[at], self.want[at], (none, none), self.keeps_nan)

    def at(self, index: Index) -> tuple[Stored, Stored]:
        """What both hold at some elements that differ, by flat index."""
        where = np.searchsorted(self.index, index)
        return self.got[where], self.want[where]

    def wanted(self, got: Deferred) -> Deferred:
        """The reference, from the image that was got: that image itself, if they are identical."""
        return Deferred(got.size, got.storage, lambda: self._mended(got.elements())) if self.index.size else got

    def _mended(self, got: Elements) -> Elements:
        want = got.stored.copy()
        want.reshape(-1)[self.index] = self.want
        return Elements(want, got.storage)


def evaluated(
    operation: Operation,
    read: Sequence[Deferred],
    storage: StorageFormat,
    got: Deferred,
    sample: Index | None = None,
    *,
    are_recorded: bool = True,
) -> Differences:
    """The differences between an image and what a node makes of what it reads; see `Differences.of`."""

    def whole() -> Stored:
        return got.elements().stored.reshape(-1)

    if not operation.is_pointwise:
        made = operation.of_arrays([each.elements() for each in read], storage)
        return Differences.between(whole(), made.stored, storage, sample)
    channels = got.size[3]
    each = max(1, BLOCK // storage.dtype.itemsize // channels) * channels
    is_copy = operation.is_copy and read[0].storage is storage
    is_asked = sample is not None and storage.precision < ARITHMETIC

    def blocks() -> Iterator[Sequence[Stored]]:
        # The first block of a source that no result depends on stands for all.
        streams = [
            image.blocks(each) if is_read else repeat(next(image.blocks(each)))
            for image, is_read in zip(read, operation.reads, strict=True)
        ]
        for wrote, *parts in zip(got.blocks(each), *streams, strict=False):
            made = parts[0]
            if not is_copy or _may_hold_nan(made):
                pixels = [
                    Elements(part[: wrote.size].reshape(-1, channels), image.storage)
                    for part, image in zip(parts, read, strict=True)
                ]
                made = operation.of_arrays(pixels, storage).stored.reshape(-1)
            yield wrote, made, *(compress(parts, operation.reads) if is_asked else ())

    def sources() -> list[Elements]:
        return [source.elements() for source in read]

    found = Differences.of(blocks(), whole, storage, sample, sources, are_recorded=are_recorded)
    if sample is not None:
        for image in read:
            image.keep(sample)
        for image, stored in zip(compress(read, operation.reads), found.sample[2:], strict=False):
            image.keep(sample, stored)
    return found


def _joined(parts: list[Stored]) -> Stored:
    """The parts in a row; they are given up, since all together they are as large as images."""
    whole = np.concatenate(parts)
    parts.clear()
    return whole


def _may_hold_nan(stored: Stored) -> bool:
    """Whether elements may hold NaN, found faster than by `numpy.isnan`."""
    if stored.dtype.kind != "f":
        return stored.dtype.kind == "V"
    return nan_in_halves(stored) is not None if stored.itemsize == 2 else math.isnan(largest(stored))


def _within(index: Index, start: int, size: int) -> Index:
    """The places in a block of those elements in it that some flat indices, ascending, name."""
    return index[slice(*index.searchsorted((start, start + size)))] - start


def _is_nan(elements: Elements) -> Mask:
    """Which elements are NaN, flat; no code is."""
    stored = elements.stored.reshape(-1)
    if elements.storage.unorm_max:
        return np.zeros(stored.size, np.bool_)
    with np.errstate(invalid="ignore"):  # bfloat16's functions warn of a signalling NaN
        return np.isnan(stored)
