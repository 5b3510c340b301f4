"""Elements that hold a sum or a mean of several: over an axis, or of neighbouring pixels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from mpsref.arrays import Elements, Index, Stored, Wide
from mpsref.storage import FLOAT64
from mpsref.verify.case import Case, encoded, remembered
from mpsref.verify.hypotheses.base import MANY, Candidate, Values, hypothesis, nth_source

AXES = {"the images of the batch": (0,), "the channels": (3,), "the pixels": (1, 2), "the rows": (1,),
        "the columns": (2,), "the images and pixels": (0, 1, 2)}  # fmt: skip

MOST = 1 << 18
"""Elements of which exact values are summed, and of sources along any axis; of more the stored ones, and images."""

CLOSE = 2.0**-6
"""Relative differences up to which elements count as the same sum."""


@hypothesis(
    "summed over an axis",
    "Elements hold the sum or the mean over the images of a batch, over pixels or channels, as parameters need it.",
    MANY,
)
def summed(case: Case) -> Iterator[Candidate]:
    def gathered(index: Index, reduced: Wide) -> Wide:
        places = zip(np.unravel_index(np.maximum(index, 0), case.shape), reduced.shape, strict=True)
        return np.asarray(reduced[tuple(place if extent > 1 else place * 0 for place, extent in places)])

    def store(case: Case, index: Index, values: Values, reduced: Wide) -> Stored:
        return case.stored(gathered(index, reduced))

    def reads(read: Sequence[Elements], index: Index, place: int, reduced: Wide) -> Sequence[Elements]:
        return [*read[:place], Elements(gathered(index, reduced), FLOAT64), *read[place + 1 :]]

    is_small = case.want.size <= MOST
    exact: Wide | None = None
    for name, axes in AXES.items():
        # Over axes of which one has no extent it is the sum over the others.
        if min(case.shape[axis] for axis in axes) == 1:
            continue
        count = np.prod([case.shape[axis] for axis in axes])
        if _is_constant(case, axes):
            exact = _exact(case, is_small) if exact is None else exact
            total = exact.sum(axis=axes, keepdims=True)
            yield Candidate(f"the sum over {name}", store=partial(store, reduced=total), coarse=True)
            yield Candidate(f"the mean over {name}", store=partial(store, reduced=total / count), coarse=True)
        for k, source in enumerate(case.sources if len(case.sources) > 1 and (is_small or axes == (0,)) else ()):
            total, place = source.values().sum(axis=axes, keepdims=True), nth_source(k)
            yield Candidate(f"the sum over {name}, in {place}", reads=partial(reads, place=k, reduced=total))
            yield Candidate(f"the mean over {name}, in {place}", reads=partial(reads, place=k, reduced=total / count))
    if case.shape[0] > 1 and is_small:
        total = np.cumsum(_exact(case, is_small), axis=0)
        yield Candidate("the sum over the images so far", store=partial(store, reduced=total), coarse=True)


def _exact(case: Case, is_small: bool) -> Wide:
    """The image's values, exact if they are not many."""
    if is_small:
        return case.values(np.arange(case.want.size)).reshape(case.shape)
    return Elements(case.want, case.result).values()


def _is_constant(case: Case, axes: tuple[int, ...]) -> bool:
    """Whether what was got differs little along axes, where some elements out of bounds are."""
    places = list(np.unravel_index(case.bad_sample[::16], case.shape))
    here = case.got[tuple(places)]
    for axis in axes:
        places[axis] = (places[axis] + case.shape[axis] // 2) % case.shape[axis]
    values = [Elements(stored, case.result).values() for stored in (here, case.got[tuple(places)])]
    apart = np.abs(values[0] - values[1]) <= CLOSE * np.abs(values[0])
    return bool(apart.mean() > 1 - CLOSE)


@hypothesis(
    "neighbouring pixels averaged",
    "A texture is sampled between pixels with a linear filter, so that elements are means of their neighbours.",
    MANY,
)
def averaged(case: Case) -> Iterator[Candidate]:
    _, h, w, c = case.shape

    def store(case: Case, index: Index, values: Values, by: tuple[int, int]) -> Stored:
        near = [_neighbour((h, w, c), (y, x), index) for y in {0, by[0]} for x in {0, by[1]}]
        # What a sampler reads is stored.
        read = [Elements(case.stored(values(each)), case.result).values() for each in near]
        return case.stored(np.mean(read, axis=0))

    def reads(read: Sequence[Elements], index: Index, place: int, by: tuple[int, int]) -> Sequence[Elements]:
        source = case.sources[place]
        near = [_neighbour((h, w, c), (y, x), index) for y in {0, by[0]} for x in {0, by[1]}]
        values = np.mean([source.at(each).values() for each in near], axis=0)
        return [*read[:place], Elements(encoded(values, source.storage), source.storage), *read[place + 1 :]]

    for by in ((y, x) for y in (1, 0, -1) for x in (1, 0, -1) if y or x):
        if abs(by[0]) < h and abs(by[1]) < w:
            rows = ("", "the row below", "the row above")[by[0]]
            columns = ("", "the column to the right", "the column to the left")[by[1]]
            text = " and ".join(filter(None, (rows, columns)))
            yield Candidate(f"with {text}", store=partial(store, by=by), coarse=True)
            for k in () if case.layers else range(len(case.sources)):
                place = nth_source(k) if len(case.sources) > 1 else "the source"
                yield Candidate(f"{place} with {text}", reads=partial(reads, place=k, by=by))


@remembered
def _neighbour(size: tuple[int, int, int], by: tuple[int, int], index: Index) -> Index:
    """The elements so many rows and columns away, at most at the edge."""
    h, w, c = size
    row, rest = np.divmod(np.maximum(index, 0), w * c)
    column, channel = np.divmod(rest, c)
    image, y = np.divmod(row, h)
    y, x = np.clip(y + by[0], 0, h - 1), np.clip(column + by[1], 0, w - 1)
    there: Index = ((image * h + y) * w + x) * c + channel
    return there
