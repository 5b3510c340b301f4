"""Where a cause holds: images, rows, columns, channels, boxes and what is outside them, indices, values read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from mpsref.arrays import Index, Mask, Wide
from mpsref.display import enumerated
from mpsref.image_lanes import LANES
from mpsref.verify.case import Case

__all__ = ["EVERYWHERE", "Region", "listed", "place_of", "regions", "stride"]

FEW = 0.05
"""A place along an axis with less than this share of the fullest one's elements is there by accident."""

ORDINALS = {2: "second", 3: "third", 4: "fourth", 8: "eighth"}

FEWEST_EVEN = 4
"""The fewest elements that are equally far apart by more than accident."""

MOST_RUNS = 4
"""Places in more runs than this are scattered, and no region."""


@dataclass(frozen=True)
class Region:
    """
    A part of an image.

    Attributes
    ----------
    name : str
        In words, as in ``in rows 3 to 5``; empty for the whole image.
    holds : callable
        Which flat indices are in it.
    by_value : bool
        Whether it is chosen by what was read there instead of by place.
    by_stride : bool
        Whether its elements are only equally far apart, as those are too that another stride leaves.
    by_index : bool
        Whether it is all from one element on, or up to one.
    """

    name: str
    holds: Callable[[Index], Mask]
    by_value: bool = False
    by_stride: bool = False
    by_index: bool = False


EVERYWHERE = Region("", lambda index: np.ones(index.shape, np.bool_))


def listed(name: str, mask: Mask) -> str:
    """``rows 3 to 5 and 9``, ``lane 1 of every slice``, ``every third row from 1 on``; else only their number."""
    runs = _runs(mask)
    slices, lanes = _by_lanes(name, mask)
    if len(runs) > 2 and slices.size:
        of = "of every slice" if slices.all() else f"of {listed('slices', slices)}"
        return f"{listed('lanes', lanes)} {of}"
    plural, of, whole = name.partition(" of ")
    single = "index" if plural == "indices" else plural.removesuffix("s")
    if step := _step(mask):
        return f"every {ORDINALS[step]} {single}{of}{whole} from {np.flatnonzero(mask)[0]} on"
    if len(runs) > MOST_RUNS:
        return f"{np.count_nonzero(mask)} {name}"
    texts = [str(run[0]) if run.size == 1 else f"{run[0]} to {run[-1]}" for run in runs]
    return f"{single if np.count_nonzero(mask) == 1 else plural} {enumerated(texts)}{of}{whole}"


def _runs(mask: Mask) -> list[Index]:
    places = np.flatnonzero(mask)
    return [run for run in np.split(places, np.flatnonzero(np.diff(places) > 1) + 1) if run.size]


def _step(mask: Mask) -> int:
    """The distance of places that are equally far apart from the first end to the other; 0, if they are not."""
    places = np.flatnonzero(mask)
    step = int(places[1] - places[0]) if places.size > 2 else 0
    even = step in ORDINALS and np.array_equal(places, np.arange(places[0] % step, mask.size, step))
    return step if even else 0


def _by_lanes(name: str, mask: Mask) -> tuple[Mask, Mask]:
    """The slices and the lanes of which channels are all combinations; none, if they are not."""
    padded = np.resize(mask, (-(-mask.size // LANES), LANES))
    slices, lanes = np.asarray(padded.any(axis=1)), np.asarray(padded.any(axis=0))
    whole = name == "channels" and np.array_equal(np.outer(slices, lanes).reshape(-1)[: mask.size], mask)
    return (slices, lanes) if whole and not lanes.all() else (slices[:0], lanes[:0])


def _is_told(axis: int, mask: Mask) -> bool:
    """Whether places along an axis are some, and can be listed."""
    if not mask.any() or mask.all():
        return False
    runs = int(mask[0]) + np.count_nonzero(mask[1:] > mask[:-1])
    is_listed = runs <= MOST_RUNS or _step(mask) > 0
    return bool(is_listed or _by_lanes("channels" if axis == 3 else "", mask)[0].size)


def place_of(case: Case, index: Index) -> str:
    """The box in which elements are: ``in image 0, rows 3 to 5``; empty for the whole image."""
    places = enumerate(np.unravel_index(index, case.shape))
    counts = [np.bincount(place, minlength=case.shape[k]) for k, place in places]
    box = {k: mask for k, count in enumerate(counts) if _is_told(k, mask := count > FEW * count.max())}
    return _places(case, box).name if box else ""


def regions(case: Case, explained: Index, against: Index) -> Iterator[Region]:
    """
    Regions that hold explained elements and few that contradict, the simplest first.

    Parameters
    ----------
    case : Case
        The image.
    explained, against : ndarray of int
        Flat indices of elements that a hypothesis explains, and that contradict it.
    """
    yield EVERYWHERE
    if not explained.size or not against.size:
        return
    shape = case.shape
    ours, theirs = np.unravel_index(explained, shape), np.unravel_index(against, shape)
    counts = [(np.bincount(ours[k], minlength=shape[k]), np.bincount(theirs[k], minlength=shape[k])) for k in range(4)]
    pure = {k: (e > 3 * n) & (e > FEW * e.max()) for k, (e, n) in enumerate(counts)}
    support = {k: e > FEW * e.max() for k, (e, _) in enumerate(counts)}
    for k in (0, 3, 1, 2):
        for mask in (pure[k], support[k]):
            if _is_told(k, mask):
                yield _places(case, {k: mask})
    first, last = _span(case, explained, against)
    if first > 0:
        yield Region(f"from element {first:,} on", lambda index: index >= first, by_index=True)
    if last < case.want.size - 1:
        yield Region(f"up to element {last:,}", lambda index: index <= last, by_index=True)
    box = {k: mask for k, mask in support.items() if _is_told(k, mask)}
    if len(box) > 1:
        yield _places(case, box)
    outside = {k: _run(n > 0) for k, (_, n) in enumerate(counts) if k in (1, 2)}
    if not all(mask.all() for mask in outside.values()):
        inner = _places(case, {k: mask for k, mask in outside.items() if not mask.all()})
        yield Region(f"outside {inner.name.removeprefix('in ')}", lambda index: ~inner.holds(index))
    if (even := _stride(case, explained)) is not None:
        yield even
    yield from _by_value(case, explained, against)


def _span(case: Case, explained: Index, against: Index) -> tuple[int, int]:
    """The first and the last element, of all that are out of bounds, between those that contradict."""
    bad, first, last = case.bad_index, int(explained.min()), int(explained.max())
    before, after = against[against < first].max(initial=-1), against[against > last].min(initial=case.want.size)
    ends = bad[np.searchsorted(bad, before, "right")], bad[np.searchsorted(bad, after) - 1]
    return min(first, int(ends[0])), max(last, int(ends[1]))


def stride(case: Case, index: Index) -> Region | None:
    """The region of every k-th element, if these elements in ascending order are all of that; None, if not."""
    region = _stride(case, index) if index.size >= FEWEST_EVEN else None
    is_all = region is not None and np.count_nonzero(region.holds(np.arange(case.want.size))) == index.size
    return region if is_all else None


def _stride(case: Case, index: Index) -> Region | None:
    """The same of elements in any order that may be some of those; None, if they have no common distance."""
    first = int(index.min())
    step = int(np.gcd.reduce(index - first))
    if step < 2:
        return None
    order = "in memory order" if case.is_dense else "in the order of images, rows, columns and channels"
    ordinal = ORDINALS.get(step) or f"{step}{_suffix(step)}"
    name = f"every {ordinal} element {order}, from element {first:,} on"
    return Region(name, lambda index: (index >= first) & ((index - first) % step == 0), by_stride=True)


def _suffix(number: int) -> str:
    """What makes an ordinal of a number: ``th`` of 7, ``st`` of 21."""
    if number // 10 % 10 == 1:
        return "th"
    return {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")


def _run(mask: Mask) -> Mask:
    """From the first place to the last."""
    places = np.flatnonzero(mask)
    run = np.zeros(mask.shape, np.bool_)
    run[places[0] : places[-1] + 1] = True
    return run


def _places(case: Case, axes: dict[int, Mask]) -> Region:
    def holds(index: Index) -> Mask:
        inside = np.ones(index.shape, np.bool_)
        for axis, place in enumerate(np.unravel_index(index, case.shape)):
            if axis in axes:
                inside &= axes[axis][place]
        return inside

    return Region(
        "in " + ", ".join(listed(case.axes[k], mask) + _edge(case.axes[k], mask) for k, mask in axes.items()), holds
    )


def _edge(axis: str, mask: Mask) -> str:
    """That rows or columns begin where a threadgroup may."""
    first = int(np.flatnonzero(mask)[0])
    for size in (32, 16, 8):
        if axis in ("rows", "columns") and first and first % size == 0 and mask[first:].all():
            return f" (from a multiple of {size} on, as threadgroups end)"
    return ""


def _by_value(case: Case, explained: Index, against: Index) -> Iterator[Region]:
    names = ("x",) if len(case.sources) == 1 else ("dy", "x") if case.reads_gradient else ("the first", "the second")
    names = ("the exact result",) if case.layers else names
    for k, (name, source) in enumerate(zip(names, case.sources, strict=False)):
        ours, theirs = source.at(explained).values(), source.at(against).values()
        if np.isnan(ours).any():
            continue
        below, above = _bound(case, k, ours, theirs), -_bound(case, k, -ours, -theirs, sign=-1)
        if below == -np.inf and above == np.inf:
            continue
        is_low, is_high = (end in ours or end in case.bad_values(k) for end in (below, above))
        text = (f"{below:.6g} {'<=' if is_low else '<'} " if below > -np.inf else "") + name
        text += f" {'<=' if is_high else '<'} {above:.6g}" if above < np.inf else ""

        def holds(
            index: Index,
            k: int = k,
            ends: tuple[float, float] = (below, above),
            inclusive: tuple[bool, bool] = (is_low, is_high),
        ) -> Mask:
            x: Wide = case.sources[k].at(index).values()
            over = x >= ends[0] if inclusive[0] else x > ends[0]
            return over & (x <= ends[1] if inclusive[1] else x < ends[1])

        yield Region(f"where {text}", holds, by_value=True)


def _bound(case: Case, source: int, ours: Wide, theirs: Wide, sign: int = 1) -> float:
    """
    From which value on some elements are ours; minus infinity if no other is below.

    Where nothing was seen between theirs and ours, it is a value at which formulas change, if there is one: few of the
    elements are looked at, and of the others many lie there.
    """
    low = float(ours.min())
    lower = theirs[theirs < low]
    if not lower.size:
        return -np.inf
    is_input = case.descriptor is not None and source == len(case.sources) - 1
    changes = (0.0, *case.descriptor.row.kinks(case.descriptor)) if case.descriptor and is_input else (0.0,)
    between = [sign * value for value in changes if lower.max() <= sign * value <= low]
    if between:
        return between[0]
    # Of the elements out of bounds all are known.
    read = sign * case.bad_values(source)[::sign]
    nearest: list[float] = read[np.searchsorted(read, lower.max(), "right") :][:1].tolist()
    return min([low, *nearest])
