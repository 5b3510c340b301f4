"""What plots and heat maps show of the elements of an image, in memory that does not grow with what is wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from mpsref.arguments import checked
from mpsref.arrays import Stored, meaning
from mpsref.errors import ImageError
from mpsref.image import MPSImage
from mpsref.storage import StorageFormat
from mpsref.ulp import UNREACHABLE, comparable_or_error, ulp_distance
from mpsref.verify.compare import Comparison

__all__ = ["KINDS", "Aggregate", "HeatMap", "Picture", "Plot"]

Numbers: TypeAlias = npt.NDArray[np.int64]

KINDS = ("exact", "within the bounds, but not exact", "explained", "beyond the bounds")
"""What an element can be, the best first."""

BLOCK = 262_144
"""Elements at once."""

COLUMNS, FEWEST_COLUMNS = 96, 12
"""Of a plot, for the numbers among the inputs; minus infinity, infinity and NaN have one each behind them."""

ZERO, ROWS = 34, 70
"""Rows of a plot: the one without an error, and how many; the last is for what is not comparable."""

MOST_CELLS = 2500
"""Cells of a plot that are not empty; above that its columns are made wider."""

LARGEST_LINEAR = 16.0
"""Inputs up to which the scale is linear."""

UNIT = 1 / 16
"""About where a logarithmic scale becomes linear, to pass through 0."""

MOST_BYTES = 64 * 2**20
"""Of all pictures together: a page has no room for what these show, and a picture takes 170 KB at least."""

MOST_PLOTS, MOST_BARS, LARGEST_MAP = 3, 128, 64
SINGLE_IMAGES, SINGLE_CHANNELS = 4, 4
"""How many images and channels have a heat map of their own: those with most to show."""


@dataclass(frozen=True, eq=False)
class Plot:
    """
    Errors over what was read.

    Attributes
    ----------
    source : str
        The name of the image that was read.
    is_linear : bool
        Whether places between `low` and `high` are numbers; else they are arcsinh(16 x).
    low, high : float
        The places where the first column begins and the last one ends.
    counts : ndarray of int, shape (rows, columns + 3, 3)
        Elements within the bounds, explained and beyond. Rows: `ZERO` has no error; n rows above it are at most
        2^(n - 1) ULP too large, below it too small; the last row is for NaN and infinities that disagree. The last
        three columns are for minus infinity, infinity and NaN.
    """

    source: str
    is_linear: bool
    low: float
    high: float
    counts: Numbers

    @property
    def columns(self) -> int:
        """How many columns numbers have."""
        return int(self.counts.shape[1]) - 3


@dataclass(frozen=True, eq=False)
class HeatMap:
    """
    How many elements there are where.

    Attributes
    ----------
    title : str
        Of which images and channels.
    counts : ndarray of int, shape (rows, columns)
        Elements in blocks of pixels of one size; those in the last row and column may be smaller.
    """

    title: str
    counts: Numbers


@dataclass(frozen=True, eq=False)
class Picture:
    """
    Everything that is shown of an image.

    Attributes
    ----------
    shape : tuple of int
        Images, height, width, channels.
    kind : str
        Which elements `channels` and `maps` count: the worst of `KINDS` that occurs.
    plots : tuple of Plot
        One for each source.
    channels : ndarray of int
        Elements by channel, or by a range of them.
    channels_each : int
        How many channels a range has; the last one may have fewer.
    maps : tuple of HeatMap
        All images and channels together, and some by themselves; none if all is exact.
    """

    shape: tuple[int, ...]
    kind: str
    plots: tuple[Plot, ...]
    channels: Numbers
    channels_each: int
    maps: tuple[HeatMap, ...]

    @property
    def nbytes(self) -> int:
        """How much memory its numbers take."""
        counts = [*(plot.counts for plot in self.plots), *(heat_map.counts for heat_map in self.maps)]
        return sum(array.nbytes for array in (*counts, self.channels))


class Aggregate:
    """
    Collects the pictures of a verification; give one to `mpsref.verify.verify`.

    Attributes
    ----------
    pictures : dict of str to Picture
        By image name. They take about `MOST_BYTES` together at most: images beyond the bounds have theirs first, then
        those with elements that are explained, and of either the first ones.

    Examples
    --------
    >>> import numpy as np
    >>> from mpsref import MPSImage
    >>> from mpsref.storage import storage_of
    >>> from mpsref.verify.compare import Tolerance, compare
    >>> x, got, want = (np.float16([[[[a, b]]]]) for a, b in ((-1, 2), (1, 3), (1, 2)))
    >>> storage, collected = storage_of(got, "got"), Aggregate()
    >>> found = compare(got, want, storage, Tolerance())
    >>> collected.add("y", storage, got, want, found, {"x": MPSImage.from_array(x)})
    >>> picture = collected.pictures["y"]
    >>> picture.kind, picture.channels.tolist(), picture.maps[0].counts.tolist()
    ('beyond the bounds', [0, 1], [[1]])
    """

    def __init__(self) -> None:
        self.pictures: dict[str, Picture] = {}
        # By how bad the images are, the best first.
        self._names: tuple[list[str], list[str], list[str]] = [], [], []
        self._bytes = 0

    @checked
    def add(
        self,
        name: str,
        storage: StorageFormat,
        got: Stored,
        want: Stored,
        found: Comparison,
        sources: Mapping[str, MPSImage],
    ) -> None:
        """
        Add an image.

        Parameters
        ----------
        name : str
            Its name.
        storage : StorageFormat
            How it is stored.
        got, want : ndarray, shape (images, height, width, channels)
            What the device wrote, and what the reference gives, as stored.
        found : Comparison
            Of these two.
        sources : mapping of str to MPSImage
            What the node read.
        """
        comparable_or_error(got, want, storage)
        if got.ndim != 4:
            raise ImageError(f"got has shape {list(got.shape)}: give (images, height, width, channels)")
        names = self._names[2 if found.counts.beyond else 1 if found.counts.explained else 0]
        if self._bytes >= MOST_BYTES and names is self._least():
            return
        with np.errstate(all="ignore"):  # of whatever NaN a device wrote
            self.pictures[name] = _picture(storage, got, want, found, sources)
        names.append(name)
        self._bytes += self.pictures[name].nbytes
        while self._bytes > MOST_BYTES and (least := self._least()) is not names:
            self._bytes -= self.pictures.pop(least.pop()).nbytes

    def _least(self) -> list[str]:
        """Names of the images that are to be left out first, the last of them before the others."""
        return next(names for names in self._names if names)


def _picture(
    storage: StorageFormat, got: Stored, want: Stored, found: Comparison, sources: Mapping[str, MPSImage]
) -> Picture:
    shape = want.shape
    few = list(sources.items())[:MOST_PLOTS]
    read = [(source, image.to_array().reshape(-1), image.storage) for source, image in few]
    scales = [_scale(array, its_storage) for _, array, its_storage in read]
    tables = [np.zeros(ROWS * (COLUMNS + 3) * 3, np.int64) for _ in read]
    kinds = np.zeros(want.size, np.uint8)
    kinds[found.explained], kinds[found.beyond] = 2, 3
    got, want = got.reshape(-1), want.reshape(-1)
    for part in _parts(kinds.size):
        row = _rows(got[part], want[part], storage)
        kinds[part] = np.maximum(kinds[part], row != ZERO)
        verdict = np.maximum(kinds[part], 1) - np.int64(1)
        for (_, array, its_storage), scale, table in zip(read, scales, tables, strict=True):
            column = _columns(array[part], its_storage, *scale)
            np.add(
                table,
                np.bincount((row * (COLUMNS + 3) + column) * 3 + verdict, minlength=table.size),
                out=table,
            )
    plots = tuple(
        Plot(source, *scale, _thinned(table.reshape(ROWS, COLUMNS + 3, 3)))
        for (source, _, _), scale, table in zip(read, scales, tables, strict=True)
    )
    worst = int(kinds.max(initial=0))
    return Picture(shape, KINDS[worst], plots, *_places(kinds, worst, shape))


def _parts(size: int) -> Iterator[slice]:
    return (slice(start, start + BLOCK) for start in range(0, size, BLOCK))


def _values(stored: Stored, storage: StorageFormat) -> npt.NDArray[np.float64]:
    return meaning(stored, storage)


def _scale(array: Stored, storage: StorageFormat) -> tuple[bool, float, float]:
    low, high = np.inf, -np.inf
    for part in _parts(array.size):
        values = _values(array[part], storage)
        finite = np.isfinite(values)
        low = min(low, float(np.min(values, where=finite, initial=np.inf)))
        high = max(high, float(np.max(values, where=finite, initial=-np.inf)))
    if low > high:
        low = high = 0.0
    if low == high:
        low, high = low - 0.5 * max(1.0, abs(low)), high + 0.5 * max(1.0, abs(high))
    is_linear = max(-low, high) <= LARGEST_LINEAR
    return (True, low, high) if is_linear else (False, float(np.arcsinh(low / UNIT)), float(np.arcsinh(high / UNIT)))


def _columns(stored: Stored, storage: StorageFormat, is_linear: bool, low: float, high: float) -> Numbers:
    values = _values(stored, storage)
    place = values if is_linear else np.arcsinh(values / UNIT)
    column = np.nan_to_num(np.floor((place - low) * (COLUMNS / (high - low))), nan=0, posinf=0, neginf=0)
    column = np.clip(column, 0, COLUMNS - 1)
    column[values == -np.inf] = COLUMNS
    column[values == np.inf] = COLUMNS + 1
    column[np.isnan(values)] = COLUMNS + 2
    columns: Numbers = column.astype(np.int64)
    return columns


def _rows(got: Stored, want: Stored, storage: StorageFormat) -> Numbers:
    distance = ulp_distance(got, want, storage)
    # The exponent of a float64 is exact: what is rounded up to a power of two is one bit further all the same.
    away = np.where(distance > 0, 1 + np.frexp((distance - 1).astype(np.float64))[1], 0)
    row: Numbers = ZERO + np.where(storage.ordinals(got) < storage.ordinals(want), -away, away).astype(np.int64)
    row[distance == UNREACHABLE] = ROWS - 1
    return row


def _thinned(counts: Numbers) -> Numbers:
    columns = COLUMNS
    while columns > FEWEST_COLUMNS and np.count_nonzero(counts.any(axis=2)) > MOST_CELLS:
        pairs = counts[:, :columns].reshape(ROWS, columns // 2, 2, 3).sum(axis=2)
        counts = np.concatenate([pairs, counts[:, columns:]], axis=1)
        columns //= 2
    return counts


def _places(
    kinds: npt.NDArray[np.uint8], kind: int, shape: tuple[int, ...]
) -> tuple[Numbers, int, tuple[HeatMap, ...]]:
    """Where elements of a kind are: by channel, how many channels are one bar, and by pixel."""
    images, height, width, channels = shape
    by_image, by_channel = np.zeros(images, np.int64), np.zeros(channels, np.int64)
    each = -(-channels // MOST_BARS)
    if not kind:
        return np.zeros(-(-channels // each), np.int64), each, ()
    for part in _parts(kinds.size):
        index = part.start + np.flatnonzero(kinds[part] == kind)
        by_image += np.bincount(index // (height * width * channels), minlength=images)
        by_channel += np.bincount(index % channels, minlength=channels)
    high, wide = -(-height // LARGEST_MAP), -(-width // LARGEST_MAP)
    rows, columns = -(-height // high), -(-width // wide)
    some_images, some_channels = _most(by_image, SINGLE_IMAGES), _most(by_channel, SINGLE_CHANNELS)
    tables = np.zeros((1 + len(some_images) + len(some_channels), rows * columns), np.int64)
    for part in _parts(kinds.size):
        n, y, x, c = np.unravel_index(part.start + np.flatnonzero(kinds[part] == kind), shape)
        cell = (y // high) * columns + x // wide
        chosen = [
            np.full(cell.shape, fill_value=True),
            *(n == i for i in some_images),
            *(c == i for i in some_channels),
        ]
        for table, mask in zip(tables, chosen, strict=True):
            np.add(table, np.bincount(cell[mask], minlength=table.size), out=table)
    titles = ["all images, all channels"]
    titles += [f"image {i}, all channels" for i in some_images] + [f"channel {i}, all images" for i in some_channels]
    maps = tuple(HeatMap(title, table.reshape(rows, columns)) for title, table in zip(titles, tables, strict=True))
    return np.add.reduceat(by_channel, np.arange(0, channels, each)), each, maps


def _most(counts: Numbers, most: int) -> list[int]:
    """Where most is, in ascending order; nowhere, if there is only one place."""
    if counts.size < 2:
        return []
    order = np.argsort(-counts, kind="stable")[:most]
    return sorted(int(i) for i in order if counts[i])
