"""Moves: elements that stand in another place, because of a layout, a stride, an order or an index."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from typing import TypeAlias

import numpy as np

from mpsref.arrays import Index, Stored
from mpsref.verify.case import Case, remembered
from mpsref.verify.hypotheses.base import LANES, MANY, UNKNOWN, ZERO, Candidate, Move, hypothesis, nth_source

Size3: TypeAlias = tuple[int, int, int]
Size4: TypeAlias = tuple[int, int, int, int]
Within: TypeAlias = Callable[[Size3, Index], Index]
"""A move within an image: from height, width and channels, and flat indices there."""


def _moved(case: Case, moves: Mapping[str, Move]) -> Iterator[Candidate]:
    """The result laid out otherwise; and one source only, where that makes another difference."""
    slopes = any(step.operation.descriptor is not None and step.operation.descriptor.data is not None
                 for step in case.steps)  # fmt: skip
    for detail, unremembered in moves.items():
        move = remembered(unremembered)
        where = move(case.shape, case.bad_sample)
        # Zeros, then, or what nobody knows, and no move; or none at all.
        if np.count_nonzero(where < 0) > 0.8 * where.size or (where == case.bad_sample).all():
            continue
        yield Candidate(detail, move=move)
        if len(case.sources) > 1 or slopes:
            for k in range(len(case.sources)):
                place = f"in {nth_source(k)}" if len(case.sources) > 1 else "in the source"
                yield Candidate(", ".join(filter(None, (detail, place))), move=move, source=k)


def _local(move: Within) -> Move:
    """A move within each image; what leads out of it is 0."""

    def moved(shape: Size4, index: Index) -> Index:
        first, inner = _within_images(shape, index)
        inner = move(shape[1:], inner)
        return np.where(inner >= math.prod(shape[1:]), ZERO, np.where(inner < 0, inner, first + inner))

    return moved


@remembered
def _within_images(shape: Size4, index: Index) -> tuple[Index, Index]:
    """The first element of the image of each element, and how far after that it is."""
    inner = index % math.prod(shape[1:])
    return index - inner, inner


@remembered
def _places(shape: Size4, index: Index) -> tuple[Index, Index, Index]:
    """Rows, columns and channels."""
    _, h, w, c = shape
    pixel, channel = np.divmod(index, c)
    row, x = np.divmod(pixel, w)
    return row % h, x, channel


def _pixels(move: Callable[[Size3, Index, Index, Index], tuple[Index, Index, Index]]) -> Move:
    """A move of rows, columns and channels within each image; what leads out of it is 0."""

    def moved(shape: Size4, index: Index) -> Index:
        _, h, w, c = shape
        places = _places(shape, index)
        y, x, channel = there = move((h, w, c), *places)
        where = _within_images(shape, index)[0] + (y * w + x) * c + channel
        for place, known, extent in zip(there, places, (h, w, c), strict=True):
            # What stays along an axis stays inside.
            if place is not known:
                where = np.where((place >= 0) & (place < extent), where, ZERO)
        return where

    return moved


# ---- layouts ----


class _Layout:
    """An order of the elements of an image, or of a batch, in memory."""

    def __init__(self, axes: str, name: str) -> None:
        self.axes, self.name = axes, name

    def extents(self, size: tuple[int, ...]) -> dict[str, int]:
        *n, h, w, c = size
        return {"n": math.prod(n), "y": h, "x": w, "c": c, "s": -(-c // LANES), "l": LANES}

    def position(self, size: tuple[int, ...], index: Index) -> Index:
        """Where each element stands."""
        extents = self.extents(size)
        pixel, channel = np.divmod(index, extents["c"])
        n, y, x = np.unravel_index(pixel % math.prod(size[:-1]), [extents[axis] for axis in "nyx"])
        places = {"n": n, "y": y, "x": x, "c": channel, "s": channel // LANES, "l": channel % LANES}
        at = np.zeros_like(index)
        for axis in self.axes:
            at = at * extents[axis] + places[axis]
        return at

    def element(self, size: tuple[int, ...], position: Index) -> Index:
        """Which element stands at each position; `ZERO` for padding."""
        extents, places = self.extents(size), {"n": np.zeros_like(position)}
        for axis in reversed(self.axes):
            position, places[axis] = np.divmod(position, extents[axis])
        channel = places["c"] if "c" in places else places["s"] * LANES + places["l"]
        pixel = (places["n"] * extents["y"] + places["y"]) * extents["x"] + places["x"]
        return np.where((position == 0) & (channel < extents["c"]), pixel * extents["c"] + channel, ZERO)


_BY_PIXEL, _BY_CHANNEL = _Layout("yxc", "pixel after pixel"), _Layout("cyx", "channel after channel")
_BY_SLICE, _PADDED = _Layout("syxl", "slice after slice"), _Layout("yxsl", "with padding lanes")
_BY_COLUMN = _Layout("xyc", "column after column")
_BATCH_BY_PIXEL = _Layout("nyxc", "image after image and pixel after pixel")
_BATCHES_BY_SLICE = (
    _Layout("snyxl", "slice after slice of all images"),
    _Layout("yxsnl", "slice after slice of all images for each pixel"),
)


def _exchanged(case: Case, *pairs: tuple[_Layout, _Layout]) -> Iterator[Candidate]:
    """Two orders confused, either within each image or within the batch."""

    def move(size: tuple[int, ...], index: Index, written: _Layout, read: _Layout) -> Index:
        return written.element(size, read.position(size, index))

    moves: dict[str, Move] = {}
    for written, read in pairs:
        whole = partial(move, written=written, read=read)
        moves[f"written {written.name}, read {read.name}"] = whole if "n" in written.axes else _local(whole)
    yield from _moved(case, moves)


def _either_way(first: _Layout, second: _Layout) -> tuple[tuple[_Layout, _Layout], tuple[_Layout, _Layout]]:
    return (first, second), (second, first)


@hypothesis(
    "pixel-major and channel-major confused",
    "The bytes are in the other order: channel after channel, or pixel after pixel.",
    MANY,
)
def channel_major(case: Case) -> Iterator[Candidate]:
    yield from _exchanged(case, *_either_way(_BY_CHANNEL, _BY_PIXEL))


@hypothesis(
    "texture slices taken for pixels",
    "The bytes are slice after slice, as in the texture, but read pixel after pixel, or the reverse.",
    MANY,
)
def slices_in_a_row(case: Case) -> Iterator[Candidate]:
    yield from _exchanged(case, *_either_way(_BY_SLICE, _BY_PIXEL))
    for layout in _BATCHES_BY_SLICE if case.shape[0] > 1 and case.shape[3] > LANES else ():
        yield from _exchanged(case, *_either_way(layout, _BATCH_BY_PIXEL))


@hypothesis(
    "channel-major and texture slices confused",
    "The bytes are channel after channel, but taken for slices of four channels, or the reverse.",
    MANY,
)
def channels_and_slices(case: Case) -> Iterator[Candidate]:
    yield from _exchanged(case, *_either_way(_BY_SLICE, _BY_CHANNEL))


@hypothesis(
    "padding lanes counted as channels",
    "Each pixel has lanes that no channel uses, and they are counted on one side only.",
    MANY,
)
def padding_counted(case: Case) -> Iterator[Candidate]:
    if case.shape[3] % LANES:
        yield from _exchanged(case, *_either_way(_PADDED, _BY_PIXEL))


@hypothesis(
    "rows and columns swapped",
    "The image is transposed, or a row or column stands where its mirror image belongs.",
    MANY,
)
def rows_and_columns(case: Case) -> Iterator[Candidate]:
    yield from _exchanged(case, *_either_way(_BY_COLUMN, _BY_PIXEL))

    def mirrored(size: Size3, y: Index, x: Index, c: Index, rows: bool, columns: bool) -> tuple[Index, Index, Index]:
        return size[0] - 1 - y if rows else y, size[1] - 1 - x if columns else x, c

    flips = {"upside down": (True, False), "right to left": (False, True), "turned by 180 degrees": (True, True)}
    yield from _moved(case, {d: _pixels(partial(mirrored, rows=r, columns=c)) for d, (r, c) in flips.items()})


@hypothesis(
    "tiles transposed", "Each tile of pixels is transposed, as by a thread that exchanges its coordinates.", MANY
)
def tiles_transposed(case: Case) -> Iterator[Candidate]:
    def move(size: Size3, y: Index, x: Index, c: Index, tile: int) -> tuple[Index, Index, Index]:
        return y // tile * tile + x % tile, x // tile * tile + y % tile, c

    def swap(size: Size3, y: Index, x: Index, c: Index, tile: int) -> tuple[Index, Index, Index]:
        return x // tile * tile + y % tile, y // tile * tile + x % tile, c

    sizes = (8, 16, 32, 4)
    yield from _moved(case, {f"of {k} x {k}": _pixels(partial(move, tile=k)) for k in sizes})
    whole = {f"of {k} x {k}, as wholes": _pixels(partial(swap, tile=k)) for k in sizes}
    yield from _moved(case, whole)


@hypothesis(
    "one pixel for several",
    "Blocks of pixels hold the value of their first one, as from an image of fewer pixels.",
    MANY,
)
def one_for_several(case: Case) -> Iterator[Candidate]:
    def move(size: Size3, y: Index, x: Index, c: Index, block: tuple[int, int]) -> tuple[Index, Index, Index]:
        return y // block[0] * block[0], x // block[1] * block[1], c

    blocks = [(2, 2), (1, 2), (2, 1), (4, 4), (1, 4), (4, 1), (8, 8)]
    yield from _moved(case, {f"in blocks of {h} x {w}": _pixels(partial(move, block=(h, w))) for h, w in blocks})


@hypothesis(
    "neighbouring pixels exchanged", "Two pixels or rows that are next to each other have changed places.", MANY
)
def pixels_exchanged(case: Case) -> Iterator[Candidate]:
    def move(size: Size3, y: Index, x: Index, c: Index, by: tuple[int, int]) -> tuple[Index, Index, Index]:
        there = y ^ by[0], x ^ by[1]
        # At the end of an odd side there is none.
        inside = (there[0] < size[0]) & (there[1] < size[1])
        return np.where(inside, there[0], y), np.where(inside, there[1], x), c

    pairs = {"in each row": (0, 1), "in each column": (1, 0), "across": (1, 1)}
    yield from _moved(case, {detail: _pixels(partial(move, by=by)) for detail, by in pairs.items()})


@hypothesis(
    "axes in another order",
    "Images, rows, columns and channels, or images and slices, follow each other in memory in another order.",
    MANY,
)
def axes_reordered(case: Case) -> Iterator[Candidate]:
    names = {"n": "images", "y": "rows", "x": "columns", "c": "channels"}

    def reordered(shape: Size4, index: Index, axes: tuple[int, ...]) -> Index:
        places = np.unravel_index(index, [shape[axis] for axis in axes])
        return np.ravel_multi_index([places[axes.index(axis)] for axis in range(4)], shape)

    def read(shape: Size4, index: Index, axes: tuple[int, ...]) -> Index:
        places = np.unravel_index(index, shape)
        return np.ravel_multi_index([places[axis] for axis in axes], [shape[axis] for axis in axes])

    def of_slices(shape: Size4, index: Index, *, inverse: bool) -> Index:
        n, y, x, c = np.unravel_index(index, shape)
        extents = shape[0], shape[3] // LANES
        if inverse:
            n, s = np.divmod(c // LANES * extents[0] + n, extents[1])
        else:
            s, n = np.divmod(n * extents[1] + c // LANES, extents[0])
        return np.ravel_multi_index([n, y, x, s * LANES + c % LANES], shape)

    moves: dict[str, Move] = {}
    if case.shape[3] % LANES == 0 and case.shape[0] > 1:
        moves["slices of all images before the next slice"] = partial(of_slices, inverse=False)
        moves["all slices of an image before the next image"] = partial(of_slices, inverse=True)
    for axes in list(itertools.permutations(range(4)))[1:]:
        # Where the first axis stays, other hypotheses say it.
        if axes[0] or case.shape[0] > 1:
            order = ", ".join(list(names.values())[axis] for axis in axes)
            moves[f"{order}, from the outermost"] = partial(reordered, axes=axes)
            moves[f"read as {order}, from the outermost"] = partial(read, axes=axes)
    yield from _moved(case, moves)


# ---- channels ----


@hypothesis(
    "lanes permuted", "The four feature channels of each slice are in another order, as RGBA and BGRA are.", MANY
)
def lanes_permuted(case: Case) -> Iterator[Candidate]:
    def move(size: Size3, y: Index, x: Index, c: Index, order: Index) -> tuple[Index, Index, Index]:
        return y, x, c // LANES * LANES + order[c % LANES]

    orders = list(itertools.permutations(range(LANES)))[1:]
    yield from _moved(case, {f"in the order {o}": _pixels(partial(move, order=np.array(o))) for o in orders})


@hypothesis(
    "channels mapped otherwise", "Feature channels or slices are read in another order, or one serves for all.", MANY
)
def channels_mapped(case: Case) -> Iterator[Candidate]:
    channels = case.shape[3]
    c = np.arange(channels)
    parts = -(-channels // LANES)
    orders = {
        "slice 0 for all": c % LANES,
        "slices in reverse order": (parts - 1 - c // LANES) * LANES + c % LANES,
        "channels in reverse order": channels - 1 - c,
        "channel 0 for all": c * 0,
        "the first lane for all of a slice": c // LANES * LANES,
    }
    for k in range(1, min(parts, 9)):
        orders[f"{k} slice{'s' * (k > 1)} later"] = (c // LANES + k) % parts * LANES + c % LANES
    for k in range(1, min(channels, 17)):
        orders[f"{k} channel{'s' * (k > 1)} later"] = (c + k) % channels
        orders[f"{k} channel{'s' * (k > 1)} earlier"] = (c - k) % channels

    if (order := _order_of(case, 3, 64)) is not None:
        orders["in the order " + ", ".join(map(str, order))] = order

    def move(size: Size3, y: Index, x: Index, c: Index, order: Index) -> tuple[Index, Index, Index]:
        return y, x, order[c]

    if channels > 1:
        yield from _moved(case, {detail: _pixels(partial(move, order=order)) for detail, order in orders.items()})


def _order_of(case: Case, axis: int, most: int, others: int = 48) -> Index | None:
    """For each place along an axis the one whose elements it holds, if there is one for each of at most so many."""
    count = case.shape[axis]
    if not 2 < count <= most:
        return None
    each = math.prod(case.shape[axis + 1 :])
    chosen = np.unique(case.bad_index // (count * each) * each + case.bad_index % each)
    chosen = chosen[np.linspace(0, chosen.size - 1, min(chosen.size, others)).astype(int)]
    if chosen.size < MANY:
        return None
    where = np.arange(count)[:, None] * each + chosen // each * (count * each) + chosen % each
    got, want = (array.reshape(-1)[where] for array in (case.got, case.want))
    is_close = case.bound(np.repeat(where[:, None], count, axis=1).reshape(-1))
    ours, theirs = np.broadcast_arrays(got[:, None], want[None, :])
    same = is_close(theirs.reshape(-1), ours.reshape(-1)).reshape(ours.shape).mean(axis=2)
    # What is right stays, whatever others look like.
    same[np.arange(count), np.arange(count)] += 0.01
    order = np.argmax(same, axis=1)
    return order if (same[np.arange(count), order] > 0.9).all() else None


# ---- strides, offsets, indices ----


@hypothesis(
    "wrong row stride",
    "Rows begin at other distances than expected, so that each is shifted more than the one before.",
    MANY,
)
def row_stride(case: Case) -> Iterator[Candidate]:
    n, h, w, c = case.shape
    dense, item = w * c, case.result.dtype.itemsize
    widths = [*range(max(1, w - 8), w + 9), *(-(-w // block) * block for block in (16, 32, 64)), 1 << w.bit_length()]
    strides = {width * c: f"of {width} pixels" for width in widths}
    for unit, size in (("elements", 1), ("bytes", item)):
        for block in (4, 8, 16, 32, 64, 128, 256):
            stride = -(-dense * size // block) * block // size
            strides.setdefault(stride, f"of {stride} elements, a multiple of {block} {unit}")
    strides.pop(dense, None)

    def written(size: tuple[int, ...], index: Index, stride: int) -> Index:
        y, rest = np.divmod(index, stride)
        return np.where((rest < dense) & (y < math.prod(size) // dense), y * dense + rest, ZERO)

    def read(size: tuple[int, ...], index: Index, stride: int) -> Index:
        y, rest = np.divmod(index, dense)
        place = y * stride + rest
        return np.where(place < math.prod(size), place, ZERO)

    moves: dict[str, Move] = {}
    for stride, detail in strides.items():
        # In a batch the images are padded too, or begin where they belong.
        for text, way in ((f"written with one {detail}", written), (f"read with one {detail}", read)):
            moves[text] = partial(way, stride=stride)
            if n > 1:
                moves[f"{text} in each image"] = _local(partial(way, stride=stride))
    if h > 1:
        yield from _moved(case, moves)
    yield from _moved(case, dict(_chunks(case)))


def _chunks(case: Case) -> Iterator[tuple[str, Move]]:
    """Rows of which only a part was recorded, read as if they were nothing but that part."""
    n, h, w, c = case.shape

    def read_densely(shape: Size4, index: Index, row: int, factor: int, chunk: int) -> Index:
        y, rest = np.divmod(index, row * factor)
        rest = rest - chunk * row
        inside = (rest >= 0) & (rest < row)
        return np.where(inside, y * row + rest, UNKNOWN)

    for row in dict.fromkeys((c, w * c, h * w * c)):
        if row == n * h * w * c or row == 1:
            continue
        for factor in (2, 3, 4):
            for chunk in range(factor):
                place = f", of which part {chunk + 1} was recorded" if chunk else ""
                yield (
                    f"rows of {row} elements stand {factor * row} apart{place}, and are read as if dense",
                    partial(read_densely, row=row, factor=factor, chunk=chunk),
                )


@hypothesis(
    "wrong offset", "The image begins too early or too late in its buffer, or where it is read or written.", MANY
)
def offset(case: Case) -> Iterator[Candidate]:
    _, _, w, c = case.shape
    row, size = w * c, case.want.size
    shifts = dict.fromkeys(
        [*_shifts(case), *case.likely_shifts, *(sign * k for k in (1, 2, 3, 4, c, row) for sign in (1, -1))]
    )

    def shifted(shape: Size4, index: Index, by: int) -> Index:
        moved = index + by
        return np.where((moved < 0) | (moved >= size), ZERO, moved)

    moves: dict[str, Move] = {}
    for by in shifts:
        ahead = f"{abs(by)} elements {'later' if by < 0 else 'earlier'} than they should"
        rows, pixels = f", {abs(by) // row} rows", f", {abs(by) // c} pixels"
        whole = rows if by % row == 0 else pixels if by % c == 0 else ""
        moves[f"elements stand {ahead}{whole}"] = partial(shifted, by=by)
    yield from _moved(case, moves)


def _shifts(case: Case, window: int = 65_536, length: int = 24) -> Iterator[int]:
    """By how many elements the want near a few bad elements must be shifted to give a run of what was got."""
    got, want = case.got.reshape(-1), case.want.reshape(-1)
    if got.size <= length:
        return
    is_close = case.bound(case.bad_sample[:1])
    starts = np.minimum(case.bad_sample[:: max(1, case.bad_sample.size // 24)], got.size - length)
    distinct = [np.unique(got[s : s + length]).size for s in starts.tolist()]
    for k in np.argsort(distinct, kind="stable")[::-1][:4]:
        start = int(starts[k])
        low, high = max(0, start - window), min(got.size - length, start + window)
        found = np.arange(low, high + 1)
        for step in range(length):
            if not found.size:
                break
            found = found[is_close(want[found + step], np.full(found.shape, got[start + step]))]
        yield from (int(position) - start for position in found[:4] if position != start)


@hypothesis(
    "shifted",
    "The image is shifted by whole pixels, and its edge is repeated, zero or taken from the other side.",
    MANY,
)
def shifted(case: Case) -> Iterator[Candidate]:
    @cache
    def along(extent: int, by: int, edge: str) -> Index:
        """Where the places of an axis are taken from; -1 where nothing is."""
        there = np.arange(extent) + by
        if edge == "zero":
            return np.where((there >= 0) & (there < extent), there, -1)
        return np.clip(there, 0, extent - 1) if edge == "repeated" else there % extent

    def move(size: Size3, y: Index, x: Index, c: Index, by: tuple[int, int], edge: str) -> tuple[Index, Index, Index]:
        rows, columns = (along(extent, step, edge) for extent, step in zip(size[:2], by, strict=True))
        return rows[y] if by[0] else y, columns[x] if by[1] else x, c

    _, h, w, c = case.shape
    near = (0, 1, -1, 2, -2)
    steps = [(y, x) for y in near for x in near if y or x]
    for pixels in (by // c for by in case.likely_shifts if by % c == 0):
        y = (pixels + w // 2) // w
        steps += [(y, pixels - y * w)]
    moves = {
        f"by {by[0]} rows and {by[1]} columns, the edge {edge}": _pixels(partial(move, by=by, edge=edge))
        for by in sorted(dict.fromkeys(steps), key=lambda by: abs(by[0]) + abs(by[1]))
        for edge in ("repeated", "zero", "from the other side")
        if abs(by[0]) < h and abs(by[1]) < w
    }
    yield from _moved(case, moves)


@hypothesis("an index of 16 bits", "An index wraps at 2^16, so that what follows repeats the beginning.", MANY)
def index_wraps(case: Case) -> Iterator[Candidate]:
    _, _, w, c = case.shape

    def move(shape: Size4, index: Index, unit: int) -> Index:
        return index // unit % 65_536 * unit + index % unit

    units = {"elements": 1, "slices": LANES, "pixels": c, "rows": w * c}
    moves = {f"of {name}": partial(move, unit=unit) for name, unit in units.items() if case.want.size > 65_536 * unit}
    yield from _moved(case, moves)


@hypothesis("another image of the batch", "The image of another place in the batch stands here.", MANY)
def another_of_the_batch(case: Case) -> Iterator[Candidate]:
    images = case.shape[0]
    if images == 1:
        return
    order = np.arange(images)
    orders = {"in reverse order": order[::-1], **{f"image {k} for all": order * 0 + k for k in range(images)[:16]}}
    for k in range(1, min(images, 17)):
        orders[f"{k} later"] = (order + k) % images
    if (found := _order_of(case, 0, 16)) is not None:
        orders["in the order " + ", ".join(map(str, found))] = found

    def moved(shape: Size4, index: Index, order: Stored) -> Index:
        image, inner = np.divmod(index, math.prod(shape[1:]))
        return np.asarray(order[image] * math.prod(shape[1:]) + inner, np.intp)

    yield from _moved(case, {detail: partial(moved, order=o) for detail, o in orders.items()})
