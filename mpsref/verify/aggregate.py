"""The data of plots and heat maps, in memory that does not grow with the number of wrong elements."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from mpsref.arguments import checked
from mpsref.arrays import Elements, Stored
from mpsref.errors import ImageError
from mpsref.storage import StorageFormat
from mpsref.ulp import UNREACHABLE, comparable_or_error, ulp_distance
from mpsref.verify.compare import Comparison

__all__ = ["KINDS", "Aggregate", "HeatMap", "Picture", "Plot"]

Numbers: TypeAlias = npt.NDArray[np.int64]

KINDS = ("exact", "within the bounds, but not exact", "excused", "beyond the bounds")
"""The classes of elements, the best first."""

BLOCK = 262_144
"""Elements counted at once."""

COLUMNS, FEWEST_COLUMNS = 96, 12
"""Columns of a plot for finite inputs; behind them minus infinity, infinity and NaN have one each."""

ZERO, ROWS = 34, 70
"""Rows of a plot: the one without an error, and their number; the last is for elements that are not comparable."""

MOST_CELLS = 2500
"""Cells of a plot that are not empty; beyond that its columns are made wider."""

LARGEST_LINEAR = 16.0
"""Inputs up to which the scale is linear."""

UNIT = 1 / 16
"""About where a logarithmic scale becomes linear, to pass through 0."""

MOST_BYTES = 64 * 2**20
"""All pictures together: more than a page can show. A picture takes at least 170 KB."""

MOST_PLOTS, MOST_BARS, LARGEST_MAP = 3, 128, 64
SINGLE_IMAGES, SINGLE_CHANNELS = 4, 4
"""How many images and channels have a heat map of their own: those with the most counts."""


@dataclass(frozen=True, eq=False)
class Plot:
    """
    Errors over inputs.

    Attributes
    ----------
    source : str
        The name of the input image.
    is_linear : bool
        Whether the axis from `low` to `high` is x; else it is arcsinh(16 x).
    low, high : float
        Where the first column begins and the last one ends.
    counts : ndarray of int, shape (rows, columns + 3, 3)
        Elements within the bounds, excused and beyond. Row `ZERO` has no error; n rows above it are at most
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
        """How many columns are for finite inputs."""
        return int(self.counts.shape[1]) - 3


@dataclass(frozen=True, eq=False)
class HeatMap:
    """Counts of elements, of shape (rows, columns), each for a block of pixels; the last blocks may be smaller."""

    title: str
    counts: Numbers


@dataclass(frozen=True, eq=False)
class Picture:
    """
    All plots and heat maps of an image.

    Attributes
    ----------
    shape : tuple of int
        Images, height, width, channels.
    kind : str
        Which elements `channels` and `maps` count: the worst of `KINDS` that occurs.
    plots : tuple of Plot
        One for each source.
    channels : ndarray of int
        Elements by channel, or by a range of channels.
    channels_each : int
        How many channels a range has; the last one may have fewer.
    maps : tuple of HeatMap
        One of all images and channels, and some of single ones; none if every element is exact.
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
    Collects the pictures of a verification; pass one to `mpsref.verify.verify`.

    Attributes
    ----------
    pictures : dict of str to Picture
        By image name; together about `MOST_BYTES` at most. Images beyond the bounds come first, then those with
        excused elements.

    Examples
    --------
    >>> import numpy as np
    >>> from mpsref.arrays import Elements
    >>> from mpsref.storage import storage_of
    >>> from mpsref.verify.compare import Tolerance, compare
    >>> x, got, want = (np.float16([[[[a, b]]]]) for a, b in ((-1, 2), (1, 3), (1, 2)))
    >>> storage, collected = storage_of(got, "got"), Aggregate()
    >>> comparison = compare(got, want, storage, Tolerance())
    >>> collected.add("y", storage, got, want, comparison, {"x": Elements(x, storage)})
    >>> picture = collected.pictures["y"]
    >>> picture.kind, picture.channels.tolist(), picture.maps[0].counts.tolist()
    ('beyond the bounds', [0, 1], [[1]])
    """

    def __init__(self) -> None:
        self.pictures: dict[str, Picture] = {}
        # Of images within the bounds, excused, and beyond.
        self._names: tuple[list[str], list[str], list[str]] = [], [], []
        self._bytes = 0

    @checked
    def add(
        self,
        name: str,
        storage: StorageFormat,
        got: Stored,
        want: Stored,
        comparison: Comparison,
        sources: Mapping[str, Elements],
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
            The device's image and the reference's, as stored.
        comparison : Comparison
            The comparison of the two.
        sources : mapping of str to Elements
            What the node read.
        """
        comparable_or_error(got, want, storage)
        if got.ndim != 4:
            raise ImageError(f"got has shape {list(got.shape)}: give (images, height, width, channels)")
        names = self._names[2 if comparison.counts.beyond else 1 if comparison.counts.excused else 0]
        if self._bytes >= MOST_BYTES and names is self._least():
            return
        with np.errstate(all="ignore"):  # a device may write any NaN
            self.pictures[name] = _picture(storage, got, want, comparison, sources)
        names.append(name)
        self._bytes += self.pictures[name].nbytes
        while self._bytes > MOST_BYTES and (least := self._least()) is not names:
            self._bytes -= self.pictures.pop(least.pop()).nbytes

    def _least(self) -> list[str]:
        """Names of the images to drop first, from the end of the list."""
        return next(names for names in self._names if names)


def _picture(
    storage: StorageFormat, got: Stored, want: Stored, comparison: Comparison, sources: Mapping[str, Elements]
) -> Picture:
    shape = want.shape
    names = list(sources)[:MOST_PLOTS]
    inputs = [Elements(sources[name].stored.reshape(-1), sources[name].storage) for name in names]
    scales = [_scale(x) for x in inputs]
    tables = [np.zeros(ROWS * (COLUMNS + 3) * 3, np.int64) for _ in inputs]
    kinds = np.zeros(want.size, np.uint8)
    kinds[comparison.excused], kinds[comparison.beyond] = 2, 3
    got, want = got.reshape(-1), want.reshape(-1)
    for part in _parts(kinds.size):
        row = _rows(got[part], want[part], storage)
        kinds[part] = np.maximum(kinds[part], row != ZERO)
        verdict = np.maximum(kinds[part], 1) - np.int64(1)
        for x, scale, table in zip(inputs, scales, tables, strict=True):
            column = _columns(Elements(x.stored[part], x.storage), *scale)
            table[:] += np.bincount((row * (COLUMNS + 3) + column) * 3 + verdict, minlength=table.size)
    plots = tuple(
        Plot(name, *scale, _thinned(table.reshape(ROWS, COLUMNS + 3, 3)))
        for name, scale, table in zip(names, scales, tables, strict=True)
    )
    worst = int(kinds.max(initial=0))
    return Picture(shape, KINDS[worst], plots, *_places(kinds, worst, shape))


def _parts(size: int) -> Iterator[slice]:
    return (slice(start, start + BLOCK) for start in range(0, size, BLOCK))


def _scale(x: Elements) -> tuple[bool, float, float]:
    low, high = np.inf, -np.inf
    for part in _parts(x.stored.size):
        values = Elements(x.stored[part], x.storage).values()
        finite = np.isfinite(values)
        low = min(low, float(np.min(values, where=finite, initial=np.inf)))
        high = max(high, float(np.max(values, where=finite, initial=-np.inf)))
    if low > high:
        low = high = 0.0
    if low == high:
        low, high = low - 0.5 * max(1.0, abs(low)), high + 0.5 * max(1.0, abs(high))
    is_linear = max(-low, high) <= LARGEST_LINEAR
    return (True, low, high) if is_linear else (False, float(np.arcsinh(low / UNIT)), float(np.arcsinh(high / UNIT)))


def _columns(x: Elements, is_linear: bool, low: float, high: float) -> Numbers:
    values = x.values()
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
    # The exponent of a float64 is right even where the distance is rounded up to a power of two.
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
    """Counts of a kind of elements by channel, how many channels a count has, and heat maps."""
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
    single_images, single_channels = _most(by_image, SINGLE_IMAGES), _most(by_channel, SINGLE_CHANNELS)
    tables = np.zeros((1 + len(single_images) + len(single_channels), rows * columns), np.int64)
    for part in _parts(kinds.size):
        n, y, x, c = np.unravel_index(part.start + np.flatnonzero(kinds[part] == kind), shape)
        cell = (y // high) * columns + x // wide
        masks = [n >= 0, *(n == i for i in single_images), *(c == i for i in single_channels)]
        for table, mask in zip(tables, masks, strict=True):
            table[:] += np.bincount(cell[mask], minlength=table.size)
    titles = ["all images, all channels", *(f"image {i}, all channels" for i in single_images)]
    titles += [f"channel {i}, all images" for i in single_channels]
    maps = tuple(HeatMap(title, table.reshape(rows, columns)) for title, table in zip(titles, tables, strict=True))
    return np.add.reduceat(by_channel, np.arange(0, channels, each)), each, maps


def _most(counts: Numbers, most: int) -> list[int]:
    """Indices of the largest counts, in ascending order; none if there is only one count."""
    order = np.argsort(-counts, kind="stable")[:most] if counts.size > 1 else ()
    return sorted(int(i) for i in order if counts[i])
