"""Faults of memory: elements that stand in another place, or were never written."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TypeAlias

import numpy as np

from mpsref.arrays import Elements, Index, Stored
from mpsref.verify.case import Case
from mpsref.verify.hypotheses.base import LANES, PLACES, Candidate, evaluate_fast, hypothesis

Map: TypeAlias = Callable[[tuple[int, int, int, int], Index], Index]
"""From the shape of an image and flat indices to where these elements were taken from; negative for a 0."""


@hypothesis(
    "never written",
    "The memory holds what it held before: zeros, another constant, or a pattern that repeats.",
    fewest=8,
)
def never_written(case: Case) -> Iterator[Candidate]:
    def at(index: Index, pattern: Stored) -> Stored:
        repeated: Stored = pattern[index % pattern.size]
        return repeated

    index, dtype = case.bad_sample, case.result.dtype
    bits = case.got.reshape(-1)[index].view(case.result.bits_dtype)
    for period in (1, 2, 4):
        pattern = np.zeros(period, bits.dtype)
        for k in range(period):
            values, counts = np.unique(bits[index % period == k], return_counts=True)
            if values.size:
                pattern[k] = values[np.argmax(counts)]
        if period > 1 and np.unique(pattern).size == 1:
            continue
        text = " ".join(f"{int(value):0{2 * dtype.itemsize}x}" for value in pattern)
        detail = "zeros" if not pattern.any() else f"0x{text}, that is {pattern.view(dtype)}"
        yield Candidate(detail, partial(at, pattern=pattern.view(dtype)))


def _moved(case: Case, moves: Mapping[str, Map]) -> Iterator[Candidate]:
    """The result laid out otherwise; and one source only, where that makes another difference."""
    several = len(case.sources) > 1 or (case.descriptor is not None and case.descriptor.data is not None)
    want = Elements(case.want, case.result)

    def result(index: Index, move: Map) -> Stored:
        return want.at(move(case.shape, index)).stored

    def source(index: Index, move: Map, k: int) -> Stored:
        read = [s.at(index) for s in case.sources]
        read[k] = case.sources[k].at(move(case.shape, index))
        return evaluate_fast(case, index, sources=read)

    for detail, move in moves.items():
        if np.count_nonzero(move(case.shape, case.bad_sample) < 0) > case.bad_sample.size / 2:
            # Zeros, then, and no move.
            continue
        yield Candidate(detail, partial(result, move=move))
        if several:
            for k in range(len(case.sources)):
                where = f"in {PLACES[k]}" if len(case.sources) > 1 else "in the source"
                yield Candidate(", ".join(filter(None, (detail, where))), partial(source, move=move, k=k))


def _split(index: Index, *extents: int) -> list[Index]:
    """Coordinates of flat indices; the first has no limit."""
    coordinates: list[Index] = []
    for extent in reversed(extents):
        index, rest = np.divmod(index, extent)
        coordinates.append(rest)
    return [index, *reversed(coordinates)]


def _local(move: Callable[[tuple[int, int, int], Index], Index]) -> Map:
    """A move of elements within each image, by their flat indices there; what leads out of it is 0."""

    def moved(shape: tuple[int, int, int, int], index: Index) -> Index:
        size = math.prod(shape[1:])
        image, inner = np.divmod(index, size)
        inner = move(shape[1:], inner)
        return np.where((inner < 0) | (inner >= size), -1, image * size + inner)

    return moved


@hypothesis("lanes permuted", "The four feature channels of each slice are in another order, as RGBA and BGRA are.")
def lanes_permuted(case: Case) -> Iterator[Candidate]:
    def move(shape: tuple[int, int, int], index: Index, order: Index) -> Index:
        pixel, channel = np.divmod(index, shape[2])
        channel = channel // LANES * LANES + order[channel % LANES]
        return np.where(channel < shape[2], pixel * shape[2] + channel, -1)

    orders = list(itertools.permutations(range(LANES)))[1:]
    yield from _moved(case, {f"in the order {o}": _local(partial(move, order=np.array(o))) for o in orders})


@hypothesis(
    "pixel-major and channel-major confused",
    "The bytes are in the other order: channel after channel, or pixel after pixel.",
)
def channel_major(case: Case) -> Iterator[Candidate]:
    def written_by_channel(shape: tuple[int, int, int], index: Index) -> Index:
        h, w, c = shape
        channel, pixel = np.divmod(index, h * w)
        return pixel * c + channel

    def read_by_channel(shape: tuple[int, int, int], index: Index) -> Index:
        h, w, c = shape
        pixel, channel = np.divmod(index, c)
        return channel * (h * w) + pixel

    yield from _moved(
        case,
        {
            "written channel after channel, read pixel after pixel": _local(written_by_channel),
            "written pixel after pixel, read channel after channel": _local(read_by_channel),
        },
    )


@hypothesis(
    "texture slices taken for pixels",
    "The bytes are slice after slice, as in the texture, but read pixel after pixel, or the reverse.",
)
def slices_in_arow(case: Case) -> Iterator[Candidate]:
    def written_by_slice(shape: tuple[int, int, int], index: Index) -> Index:
        h, w, c = shape
        part, pixel, lane = _split(index, h * w, LANES)
        channel = part * LANES + lane
        return np.where(channel < c, pixel * c + channel, -1)

    def read_by_slice(shape: tuple[int, int, int], index: Index) -> Index:
        h, w, c = shape
        pixel, channel = np.divmod(index, c)
        return np.asarray((channel // LANES * h * w + pixel) * LANES + channel % LANES, np.intp)

    moves = {"written slice after slice": _local(written_by_slice), "read slice after slice": _local(read_by_slice)}
    yield from _moved(case, moves)


@hypothesis(
    "padding lanes counted as channels",
    "Each pixel has lanes that no channel uses, and they are counted on one side only.",
)
def padding_counted(case: Case) -> Iterator[Candidate]:
    def padded(channels: int) -> int:
        return -(-channels // LANES) * LANES

    def written(shape: tuple[int, int, int], index: Index) -> Index:
        pixel, channel = np.divmod(index, padded(shape[2]))
        return np.where(channel < shape[2], pixel * shape[2] + channel, -1)

    def read(shape: tuple[int, int, int], index: Index) -> Index:
        pixel, channel = np.divmod(index, shape[2])
        return pixel * padded(shape[2]) + channel

    if case.shape[3] % LANES:
        moves = {"written, but not expected": _local(written), "expected, but not written": _local(read)}
        yield from _moved(case, moves)


@hypothesis(
    "rows and columns swapped", "The image is transposed, or a row or column stands where its mirror image belongs."
)
def rows_and_columns(case: Case) -> Iterator[Candidate]:
    def transposed(shape: tuple[int, int, int], index: Index) -> Index:
        h, w, c = shape
        x, y, channel = _split(index, h, c)
        return (y * w + x) * c + channel

    def mirrored(shape: tuple[int, int, int], index: Index, rows: bool, columns: bool) -> Index:
        h, w, c = shape
        y, x, channel = _split(index, w, c)
        y, x = h - 1 - y if rows else y, w - 1 - x if columns else x
        return (y * w + x) * c + channel

    flips = {"upside down": (True, False), "right to left": (False, True), "turned by 180 degrees": (True, True)}
    moves = {detail: _local(partial(mirrored, rows=r, columns=c)) for detail, (r, c) in flips.items()}
    yield from _moved(case, {"written column after column": _local(transposed)} | moves)


@hypothesis(
    "wrong row stride", "Rows begin at other distances than expected, so that each is shifted more than the one before."
)
def row_stride(case: Case) -> Iterator[Candidate]:
    _, h, w, c = case.shape
    dense, item = w * c, case.result.dtype.itemsize
    strides = {dense + d * c: f"of {w + d} pixels" for d in range(-8, 9) if d and w + d > 0}
    for unit, size in (("elements", 1), ("bytes", item)):
        for block in (4, 8, 16, 32, 64, 128, 256):
            stride = -(-dense * size // block) * block // size
            strides.setdefault(stride, f"of {stride} elements, a multiple of {block} {unit}")
    strides.pop(dense, None)

    def written(shape: tuple[int, int, int], index: Index, stride: int) -> Index:
        y, rest = np.divmod(index, stride)
        return np.where((rest < dense) & (y < h), y * dense + rest, -1)

    def read(shape: tuple[int, int, int], index: Index, stride: int) -> Index:
        y, rest = np.divmod(index, dense)
        return y * stride + rest

    moves = {}
    for stride, detail in strides.items():
        moves[f"written with one {detail}"] = _local(partial(written, stride=stride))
        moves[f"read with one {detail}"] = _local(partial(read, stride=stride))
    if h > 1:
        yield from _moved(case, moves)


@hypothesis("wrong offset", "The image begins too early or too late in its buffer, or where it is read or written.")
def offset(case: Case) -> Iterator[Candidate]:
    _, _, w, c = case.shape
    row, size = w * c, case.want.size
    shifts = dict.fromkeys([*_shifts(case), *(sign * k for k in (1, 2, 3, 4, c, row) for sign in (1, -1))])

    def shifted(shape: tuple[int, int, int, int], index: Index, by: int) -> Index:
        moved = index + by
        return np.where((moved < 0) | (moved >= size), -1, moved)

    moves = {}
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
    starts = np.minimum(case.bad_sample[:: max(1, case.bad_sample.size // 24)], got.size - length)
    distinct = [np.unique(got[s : s + length]).size for s in starts.tolist()]
    for k in np.argsort(distinct, kind="stable")[::-1][:4]:
        start = int(starts[k])
        low, high = max(0, start - window), min(got.size - length, start + window)
        found = np.arange(low, high + 1)
        for step in range(length):
            found = found[case.is_close(want[found + step], np.full(found.shape, got[start + step]))]
        yield from (int(position) - start for position in found[:4] if position != start)


@hypothesis("another image of the batch", "The image of another place in the batch stands here.")
def another_image(case: Case) -> Iterator[Candidate]:
    images = case.shape[0]
    if images == 1:
        return
    order = np.arange(images)
    orders = {"in reverse order": order[::-1], **{f"image {k} for all": order * 0 + k for k in range(images)[:16]}}
    for k in range(1, min(images, 17)):
        orders[f"{k} later"] = (order + k) % images

    def moved(shape: tuple[int, int, int, int], index: Index, order: Index) -> Index:
        image, inner = np.divmod(index, math.prod(shape[1:]))
        return np.asarray(order[image] * math.prod(shape[1:]) + inner, np.intp)

    yield from _moved(case, {detail: partial(moved, order=o) for detail, o in orders.items()})
