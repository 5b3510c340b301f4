"""Sums over all images, rows and columns: products of an incoming gradient with what a window read, and totals."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from mpsref.arrays import Elements, Wide
from mpsref.sums.base import ROUNDING, Block, Near
from mpsref.sums.products import CELLS, CHUNK, EXACT, GATHERED, Total, common_unit, largest_over_unit, parts_of, taps_in
from mpsref.sums.window import Part, Window, matrix, regions, shifted, slab

__all__ = ["Products", "channel_totals"]

LEAST = 256
"""Fewer terms at once cost more to add than to multiply."""


def _channel_norms(array: Elements) -> Wide:
    squares = np.zeros(array.stored.shape[3])
    for region in regions(array.stored.shape, CELLS // max(squares.size, 1)):
        stored = array.stored[region]
        values = array.storage.decode(stored, np.empty(stored.shape))
        squares += np.einsum("nyxc,nyxc->c", values, values)
    return np.sqrt(squares) * (1 + 2.0**-30)


@dataclass
class Products:
    """
    The gradient of the weights of some groups.

    Attributes
    ----------
    gradient : Elements
        Images, height, width, groups times result channels of a group.
    source : Elements
        Images, height, width, groups times source channels of a group.
    window : Window
        That of the convolution.
    first : int
        The first result channel's place in the result.
    groups : int
        1: by matrix products; else tap by tap.
    """

    gradient: Elements
    source: Elements
    window: Window
    first: int
    groups: int = 1

    def __post_init__(self) -> None:
        self._gradient_norms, self._source_norms = _channel_norms(self.gradient), _channel_norms(self.source)
        largest = float(np.max(self._gradient_norms, initial=0.0)) * float(np.max(self._source_norms, initial=0.0))
        ratios = largest_over_unit(self.gradient), largest_over_unit(self.source)
        unit = common_unit(self.source, ratios[0], thorough=True)
        self._unit = unit and unit * common_unit(self.gradient, ratios[1], thorough=True)
        self._is_exact = largest < EXACT * self._unit

    def blocks(self) -> Iterator[Block]:
        """All elements of the result."""
        outputs, depth = (array.stored.shape[3] // self.groups for array in (self.gradient, self.source))
        if self.groups > 1:
            height, width = self.window.kernel
            whole = (slice(self.first, self.first + self.groups * outputs), slice(0, height), slice(0, width))
            yield Block((*whole, slice(0, depth)), self._by_taps)
            return
        for part in parts_of(self.window.kernel, depth):
            step = max(1, CELLS // taps_in(part))
            for start in range(0, outputs, step):
                channels = slice(start, min(start + step, outputs))
                place = (slice(self.first + channels.start, self.first + channels.stop), *part)
                yield Block(place, partial(self._near, part, channels))

    def _near(self, part: Part, channels: slice) -> Near:
        shape = [s.stop - s.start for s in part]
        columns, total, longest = math.prod(shape), Total(), 0
        for region in regions(self.gradient.stored.shape, self._at_once(columns)):
            read = matrix(slab(self.source, self.window, region, part), self.window, region, part)
            stored = self.gradient.stored[(*region, channels)]
            incoming = self.gradient.storage.decode(stored, np.empty(stored.shape)).reshape(-1, stored.shape[3])
            total.add(incoming.T @ read, exact=self._is_exact)
            longest = max(longest, incoming.shape[0])
        size = (channels.stop - channels.start, *shape)
        sums = total.value(size)
        if self._is_exact:
            return sums, 0.0
        error = (longest + 3) * ROUNDING
        bound = self._gradient_norms[channels, None, None, None] * (self._source_norms[part[2]] * error)
        return sums, np.broadcast_to(bound, size)

    def _at_once(self, columns: int) -> int:
        return max(LEAST, min(CHUNK, GATHERED // columns))

    def _by_taps(self) -> Near:
        (height, width), groups = self.window.kernel, self.groups
        outputs, depth = (array.stored.shape[3] // groups for array in (self.gradient, self.source))
        part, total, longest = (slice(0, height), slice(0, width), slice(0, groups * depth)), Total(), 0
        for region in regions(self.gradient.stored.shape, self._at_once(groups * depth)):
            lengths = [s.stop - s.start for s in region]
            values = slab(self.source, self.window, region, part)
            stored = self.gradient.stored[region]
            incoming = self.gradient.storage.decode(stored, np.empty(stored.shape))
            incoming = incoming.reshape(*lengths, groups, outputs)
            sums = np.empty((groups, outputs, height, width, depth))
            for ky in range(height):
                for kx in range(width):
                    read = shifted(values, self.window, region, ky, kx).reshape(*lengths, groups, depth)
                    for o in range(outputs):
                        for i in range(depth):
                            np.einsum("nyxg,nyxg->g", incoming[..., o], read[..., i], out=sums[:, o, ky, kx, i])
            total.add(sums, exact=self._is_exact)
            longest = max(longest, math.prod(lengths))
        size = (groups, outputs, height, width, depth)
        flat = (groups * outputs, height, width, depth)
        sums = total.value(size).reshape(flat)
        if self._is_exact:
            return sums, 0.0
        norms = self._gradient_norms.reshape(groups, outputs, 1, 1, 1) * ((longest + 3) * ROUNDING)
        bound = norms * self._source_norms.reshape(groups, 1, 1, 1, depth)
        return sums, np.broadcast_to(bound, size).reshape(flat)


def channel_totals(array: Elements, channels: slice) -> Near:
    """The sum of each of some channels over all images, rows and columns."""
    total, sizes, longest = Total(), np.zeros(channels.stop - channels.start), 0
    for region in regions(array.stored.shape, CHUNK):
        stored = array.stored[(*region, channels)]
        values = array.storage.decode(stored, np.empty(stored.shape)).reshape(-1, stored.shape[3])
        total.add(np.add.reduce(values, axis=0))
        sizes += np.add.reduce(np.abs(values, out=values), axis=0)
        longest = max(longest, values.shape[0])
    sums = total.value(sizes.shape)
    # For NaN this is not true.
    if array.storage.dtype == np.float16 and np.max(sizes, initial=0.0) < EXACT * common_unit(array, 1.0):
        return sums, 0.0
    return sums, sizes * ((longest + 3) * ROUNDING)
