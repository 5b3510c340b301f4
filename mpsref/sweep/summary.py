"""Results of a sweep over some inputs, in summaries that add up to the same in any order."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mpsref.arguments import checked
from mpsref.arrays import Stored
from mpsref.blocks import pattern_of
from mpsref.errors import ParameterError, described
from mpsref.storage import StorageFormat
from mpsref.ulp import UNREACHABLE, distances_by_power, farthest, ulp_distance

__all__ = ["SHOWN", "Mismatch", "Summary", "canonical", "gaps", "summary_of"]

SHOWN = 8
"""Inputs of a kind that are listed."""

Ranges = tuple[tuple[int, int], ...]


class Mismatch(NamedTuple):
    """
    One input where the two differ, as bit patterns.

    Attributes
    ----------
    x, got, want : int
        The input, the implementation's result, and the reference's.
    ulp : int or None
        The distance; None if one is NaN, or one infinite.
    """

    x: int
    got: int
    want: int
    ulp: int | None = None


@dataclass(frozen=True)
class Summary:
    """
    The results for the inputs in some ranges.

    ``a + b`` is the summary of both; inputs that both have are refused, since they would count twice. Neither order nor
    grouping matters, and ``Summary()`` adds nothing.

    Attributes
    ----------
    ranges : tuple of (int, int)
        Numbers of the inputs, which are their bit patterns unless the sweep has a stride: each range without its end;
        in order, with gaps in between.
    histogram : dict of int to int
        Distances in ULP by powers of two, of all that are comparable.
    largest : int
        The largest of them.
    nan_disagreements, infinity_disagreements : int
        Where only one of the results is NaN, and where one is infinite and the other is another number.
    zero_signs : int
        Zeros of the wrong sign; they count as exact.
    beyond : int
        Results outside the bounds.
    worst : tuple of Mismatch
        Of the comparable ones the farthest; of equally far ones the lowest patterns.
    not_comparable : tuple of Mismatch
        NaN and infinities that disagree, the lowest patterns.
    first : tuple of Mismatch
        Results beyond the bounds, the lowest patterns.
    made_by : frozenset of str
        Software and machines, as JSON.
    """

    ranges: Ranges = ()
    histogram: dict[int, int] = field(default_factory=dict)
    largest: int = 0
    nan_disagreements: int = 0
    infinity_disagreements: int = 0
    zero_signs: int = 0
    beyond: int = 0
    worst: tuple[Mismatch, ...] = ()
    not_comparable: tuple[Mismatch, ...] = ()
    first: tuple[Mismatch, ...] = ()
    made_by: frozenset[str] = frozenset()

    @property
    def elements(self) -> int:
        """Number of inputs."""
        return sum(stop - start for start, stop in self.ranges)

    @property
    def exact(self) -> int:
        """Number of results that equal the reference's."""
        return self.histogram.get(0, 0)

    def __add__(self, other: Summary) -> Summary:
        if not isinstance(other, Summary):
            return NotImplemented
        return Summary(
            ranges=_joined([*self.ranges, *other.ranges]),
            histogram=dict(sorted((Counter(self.histogram) + Counter(other.histogram)).items())),
            largest=max(self.largest, other.largest),
            **{name: getattr(self, name) + getattr(other, name) for name in _COUNTS},
            worst=tuple(sorted([*self.worst, *other.worst], key=lambda m: (-(m.ulp or 0), m.x))[:SHOWN]),
            not_comparable=tuple(sorted([*self.not_comparable, *other.not_comparable])[:SHOWN]),
            first=tuple(sorted([*self.first, *other.first])[:SHOWN]),
            made_by=self.made_by | other.made_by,
        )

    def to_json(self) -> dict[str, Any]:
        """All of it, as `json` can write it."""
        return {
            "ranges": [list(ends) for ends in self.ranges],
            "elements": self.elements,
            "exact": self.exact,
            "histogram": {str(limit): count for limit, count in sorted(self.histogram.items())},
            "largest": self.largest,
            **{name: getattr(self, name) for name in _COUNTS},
            **{name: [_listed(m) for m in getattr(self, name)] for name in _LISTS},
            "made_by": [json.loads(facts) for facts in sorted(self.made_by)],
        }

    @staticmethod
    @checked
    def from_json(document: dict[str, Any]) -> Summary:
        """
        Read the result of `to_json`.

        Raises
        ------
        ParameterError
            Ranges overlap, or the document is none of this kind.
        """
        try:
            values: dict[str, Any] = {name: int(document[name]) for name in ("largest", *_COUNTS)}
            values |= {name: tuple(map(_mismatch, document[name])) for name in _LISTS}
            values["ranges"] = _joined([(start, stop) for start, stop in document["ranges"]])
            values["histogram"] = {int(limit): count for limit, count in document["histogram"].items()}
            values["made_by"] = frozenset(map(canonical, document["made_by"]))
        except (ArithmeticError, AttributeError, LookupError, TypeError) as error:
            raise ParameterError(f"document is no summary of a sweep: {described(error)}") from None
        except ValueError as error:
            raise ParameterError(f"{error}") from None
        return Summary(**values)


_COUNTS = "nan_disagreements", "infinity_disagreements", "zero_signs", "beyond"
_LISTS = "worst", "not_comparable", "first"


def _listed(mismatch: Mismatch) -> dict[str, Any]:
    bits = {"x": hex(mismatch.x), "got": hex(mismatch.got), "want": hex(mismatch.want)}
    return bits if mismatch.ulp is None else bits | {"ulp": mismatch.ulp}


def _mismatch(entry: dict[str, Any]) -> Mismatch:
    return Mismatch(int(entry["x"], 16), int(entry["got"], 16), int(entry["want"], 16), entry.get("ulp"))


def canonical(facts: Any) -> str:
    """JSON that is equal where the facts are."""
    return json.dumps(facts, sort_keys=True)


def _joined(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """Ranges in order, adjacent ones joined."""
    joined: list[tuple[int, int]] = []
    for start, stop in sorted(ranges):
        if start >= stop:
            raise ParameterError(f"the range {start} to {stop} has no inputs")
        if joined and start < joined[-1][1]:
            raise ParameterError(f"the inputs {start:#x} to {min(stop, joined[-1][1]) - 1:#x} are there twice")
        first = joined.pop()[0] if joined and start == joined[-1][1] else start
        joined.append((first, stop))
    return tuple(joined)


def gaps(whole: range, ranges: Ranges) -> list[tuple[int, int]]:
    """The parts of `whole` outside the ranges."""
    edges = [whole.start, *chain(*ranges), whole.stop]
    pairs = zip(edges[::2], edges[1::2], strict=True)
    return [(start, stop) for start, stop in pairs if start < stop]


@np.errstate(invalid="ignore")  # of which functions of bfloat16 warn for a signalling NaN
def summary_of(
    x: Stored, got: Stored, want: Stored, start: int, storage: StorageFormat, ulp: int, stride: int = 1
) -> Summary:
    """The summary of the results for inputs with consecutive numbers, the first of which is `start`."""
    # Most are equal bit by bit; only the others are looked at.
    bits = storage.bits_dtype
    differ = np.flatnonzero(got.view(bits) != want.view(bits))
    got, want = got[differ], want[differ]
    distance = ulp_distance(got, want, storage)
    apart, beyond = distance == UNREACHABLE, distance > ulp
    histogram = distances_by_power(distance)
    histogram[0] = histogram.get(0, 0) + x.size - differ.size
    if not histogram[0]:
        del histogram[0]
    nan = int(np.count_nonzero(np.isnan(got) != np.isnan(want)))
    comparable = np.where(apart, 0, distance)

    def mismatches(chosen: npt.NDArray[np.intp]) -> tuple[Mismatch, ...]:
        columns = (array.view(bits)[chosen].tolist() for array in (got, want))
        ulps = (None if d == UNREACHABLE else d for d in distance[chosen].tolist())
        patterns = [pattern_of(number, stride) for number in (differ[chosen] + start).tolist()]
        return tuple(map(Mismatch, patterns, *columns, ulps))

    return Summary(
        ranges=((start, start + x.size),),
        histogram=histogram,
        largest=int(comparable.max(initial=0)),
        nan_disagreements=nan,
        infinity_disagreements=int(np.count_nonzero(apart)) - nan,
        zero_signs=int(np.count_nonzero((distance == 0) & (got == 0))),
        beyond=int(np.count_nonzero(beyond)),
        worst=mismatches(farthest(comparable, min(SHOWN, int(np.count_nonzero(comparable))))),
        not_comparable=mismatches(np.flatnonzero(apart)[:SHOWN]),
        first=mismatches(np.flatnonzero(beyond)[:SHOWN]),
    )
