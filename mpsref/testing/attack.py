"""An attack on an implementation: Hypothesis draws arrays, and each failure is reduced to its simplest input."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, given, seed, settings, target
from hypothesis import strategies as st

from mpsref.arrays import Stored
from mpsref.display import enumerated
from mpsref.errors import ImplementationError, described
from mpsref.neuron.descriptor import MPSNNNeuronDescriptor, descriptor_or_error, neuron_of
from mpsref.storage import StorageFormat
from mpsref.testing.comparison import compare
from mpsref.testing.reports import KINDS, Failure
from mpsref.testing.strategies import floats
from mpsref.testing.subject import Cause, Subject, Trial, causes_of, way_of
from mpsref.testing.views import VIEWS
from mpsref.ulp import UNREACHABLE, ulp_distance

__all__ = ["Attack"]

LENGTHS, DRAWN = (604, 602, 65, 63, 1), 12
"""
Rows of arrays, and values in them that Hypothesis draws one by one.

A compiler may compile for each length, so there are few: one for each remainder that vectors of four leave, and 1.
"""

LARGE = (2**15 - 1, 2**15 + 1, 2**16 + 1, 2**17 + 3)
"""Elements of arrays whose length or index may not fit into 15 or 16 bits."""

VIEW = 64
"""Rows of a view."""

SHORTEST = (*range(1, 41), *(2**k + d for k in range(6, 10) for d in (-1, 0, 1)))
"""Rows that are tried where no single element fails."""

KEPT, TRIED = 64, 12
"""Failing values that are kept of a kind, and that are tried alone."""

SHOWN = 16
"""Elements of an array that are written out."""

CHANGES = "called again with the same array, the implementation gives something else"
LONG_ARRAYS = f"right in arrays of at most {max(LENGTHS)} elements: an index, or the number of threads, is too small"
STRIDES = "right for a copy of the view, so the implementation ignores strides, or where a view begins"
OTHER_CODE = "a copy of the view gives nearly the same numbers, within the bounds: other code runs for such arrays"

ALIKE = 1e-3, 16
"""How far apart, relative and in ULP, are at most the numbers that a view and its copy give if both read the same."""


@dataclass
class _Failures:
    """Elements that failed in one way, as many as are kept by what they read, and a trial of each neuron."""

    first: Trial
    count: int = 0
    values: dict[bytes, tuple[Any, Any]] = field(default_factory=dict)
    neurons: dict[MPSNNNeuronDescriptor, Trial] = field(default_factory=dict)


class Attack:
    """Arrays for one format, and their failures."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.arrays = self.elements = 0
        self.failed: list[Trial] = []
        self.by_way: dict[int, _Failures] = {}
        self.views: list[Trial] = []
        self.refused: dict[str, str] = {}

    def run(self, max_examples: int | None, number: int | None) -> None:
        """Let Hypothesis draw arrays, and collect failures."""
        subject, storage, neurons = self.subject, self.subject.storage, self.subject.neurons()
        seen: list[MPSNNNeuronDescriptor] = []

        @settings(
            max_examples=settings().max_examples if max_examples is None else max_examples,
            database=None,
            deadline=None,
            derandomize=number is None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(st.data())
        def attack(data: st.DataObject) -> None:
            descriptor = descriptor_or_error(data.draw(neurons), "what the strategy gives as neuron")
            seen.append(descriptor)
            shape = data.draw(st.sampled_from(LENGTHS)), _channels(descriptor)
            noise = data.draw(st.integers(0, 2**32 - 1))
            pools = _pools(descriptor, storage)
            numbers = st.lists(floats(storage.name, neuron=descriptor), min_size=1, max_size=DRAWN)
            x = _laid_out(data.draw(numbers), shape, noise, pools)
            upstream = None
            if subject.direction == "gradient":
                upstream = np.ones_like(x)
                if data.draw(st.booleans()):
                    numbers = st.lists(floats(storage.name), min_size=1, max_size=DRAWN)
                    upstream = _laid_out(data.draw(numbers), shape, noise + 1, pools)
            trial = subject.trial(descriptor, x, upstream)
            self._keep(trial)
            distance = ulp_distance(trial.got, trial.want, storage)
            farthest = np.max(distance, where=distance != UNREACHABLE, initial=0)
            target(math.log2(1 + int(farthest)))

        if number is not None:
            attack = seed(number)(attack)
        attack()
        # The first, which is the only one, unless parameters vary.
        self._large(seen[0])
        self._views(seen[0])
        self._sort()

    def _large(self, descriptor: MPSNNNeuronDescriptor) -> None:
        """All halves, in either format; and arrays that are large, with numbers of every magnitude."""
        storage, is_gradient = self.subject.storage, self.subject.direction == "gradient"
        one = storage.dtype.type(1) if is_gradient else None
        with np.errstate(invalid="ignore"):
            halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(storage.dtype)
        self._keep(self._trial(descriptor, halves, one))
        patterns = 1 << 8 * storage.dtype.itemsize
        for count in LARGE:
            rows = max(1, count // _channels(descriptor))
            # Every so many bit patterns, not always with the same last digits.
            places, gap = np.arange(rows, dtype=np.uint64), max(1, patterns // rows)
            bits = (places * patterns // rows + places * 0x9E3779B1 % gap).astype(storage.bits_dtype)
            # In no order, so that elements that are far apart differ, whatever the distance.
            scattered = bits[places * 0x9E3779B1 % np.uint64(rows)].view(storage.dtype)
            self._keep(self._trial(descriptor, scattered, one))

    def _views(self, descriptor: MPSNNNeuronDescriptor) -> None:
        """Views of several kinds; an implementation may refuse one."""
        for view in VIEWS:
            try:
                trial = self._view(descriptor, view, VIEW)
                self.arrays, self.elements = self.arrays + 1, self.elements + trial.x.size
                if trial.beyond.size:
                    shorter = (self._view(descriptor, view, rows) for rows in range(2, VIEW, 2))
                    self.views.append(next((each for each in shorter if each.beyond.size), trial))
            except ImplementationError as error:
                if error.__cause__ is None and view != "transposed":
                    raise
                self.refused[view] = described(error.__cause__ or error)

    def _view(self, descriptor: MPSNNNeuronDescriptor, view: str, rows: int) -> Trial:
        """A trial of a view, whose elements fail only where those of its copy do not."""
        trial = self.subject.trial(descriptor, *self._ordinary(descriptor, rows), view)
        if not trial.beyond.size:
            return trial
        wrong = ~np.isin(trial.beyond, self.subject.trial(descriptor, trial.x, trial.upstream).beyond)
        return replace(trial, beyond=trial.beyond[wrong], kinds=trial.kinds[wrong])

    def _reads_others(self, trial: Trial) -> bool:
        """Whether a view gives other numbers than its copy, and not only other roundings."""
        copy = self.subject.trial(trial.descriptor, trial.x, trial.upstream)
        theirs, ours = (each.ravel()[trial.beyond] for each in (trial.got, copy.got))
        with np.errstate(all="ignore"):
            near = np.abs(theirs.astype(np.float64) - ours) <= ALIKE[0] * np.abs(ours.astype(np.float64))
        return bool(np.any(~near & (ulp_distance(theirs, ours, self.subject.storage) > ALIKE[1])))

    def _ordinary(self, descriptor: MPSNNNeuronDescriptor, rows: int) -> tuple[Stored, Stored | None]:
        """Moderate numbers, all different."""
        shape, dtype = (rows, _channels(descriptor)), self.subject.storage.dtype
        x = np.linspace(-2, 2.5, rows * shape[1]).reshape(shape).astype(dtype)
        return x, x[::-1] + dtype.type(3) if self.subject.direction == "gradient" else None

    def _keep(self, trial: Trial) -> None:
        self.arrays += 1
        self.elements += trial.x.size
        if trial.beyond.size:
            self.failed.append(trial)

    def _sort(self) -> None:
        """Tell the ways apart in which elements have failed, those of each neuron at once."""
        by_neuron: dict[MPSNNNeuronDescriptor, list[Trial]] = {}
        for trial in self.failed:
            by_neuron.setdefault(trial.descriptor, []).append(trial)
        for descriptor, trials in by_neuron.items():
            joined = Trial.joined(trials)
            ends = np.cumsum([trial.x.size for trial in trials])
            ways, is_sure = self.subject.ways(joined)
            for way in np.unique(ways).tolist():
                index = joined.beyond[(ways == way) & is_sure]
                first = trials[int(np.searchsorted(ends, index[0], "right"))]
                failures = self.by_way.setdefault(way, _Failures(first))
                failures.count += int(np.count_nonzero(ways == way))
                failures.neurons[descriptor] = first
                x = joined.x.ravel()[index]
                upstream = np.ones_like(x) if joined.upstream is None else joined.upstream.ravel()[index]
                for pair in zip(x, upstream, strict=True):
                    if len(failures.values) >= KEPT:
                        break
                    failures.values.setdefault(pair[0].tobytes() + pair[1].tobytes(), pair)

    def failures(self) -> Iterator[Failure]:
        """The simplest input of each kind, first what no model of arithmetic allows, in the order of `KINDS`."""
        ways = sorted(self.by_way)
        simplest = {way: self._simplest(way, self.by_way[way]) for way in ways}
        causes = self._causes({way: simplest[way] for way in ways if not way_of(way)[1]})
        if self.views:
            yield self._view_failure()
        for way in ways:
            yield self._failure(way, self.by_way[way], *simplest[way], causes)

    def _causes(self, simplest: Mapping[int, tuple[Trial, int]]) -> list[Cause]:
        """What explains failures of several ways, from one trial of their values, in no order."""
        if not simplest:
            return []
        way = min(simplest)
        descriptor = self._simplest_neuron(way, self.by_way[way])
        pairs = [pair for way in simplest for pair in self.by_way[way].values.values()]
        xs = _ladder([x for x, _ in pairs], descriptor, self.subject.storage)
        upstream = np.ones_like(xs)
        if self.subject.direction == "gradient":
            alone = [(trial.x, trial.upstream) for trial, _ in simplest.values() if len(trial.x) == 1]
            pairs += [(x.ravel()[0], u.ravel()[0]) for x, u in alone if u is not None]
            xs = np.concatenate([xs, [x for x, _ in pairs]]).astype(xs.dtype)
            upstream = np.concatenate([upstream, [u for _, u in pairs]]).astype(xs.dtype)
        order = np.random.default_rng(0).permutation(len(xs))
        trial = self._trial(descriptor, xs[order], upstream[order] if self.subject.direction == "gradient" else None)
        ways, _ = self.subject.ways(trial)
        bad = np.zeros(trial.x.size, np.bool_)
        bad[trial.beyond[ways < len(KINDS)]] = True
        return causes_of(self.subject, trial, bad)

    def _failure(self, way: int, failures: _Failures, trial: Trial, index: int, causes: Sequence[Cause]) -> Failure:
        why = CHANGES
        if self._is_same_again(trial):
            why = trial.choice(index) or self.subject.why(trial, index)
            read = trial.read_at(index)
            if not why and trial.x.size > max(LENGTHS):
                why = LONG_ARRAYS
            elif not why and len(trial.x) == 1:
                why = next((cause.text for cause in causes if read in cause.pairs), "")
        return self._described(way, failures.count, failures.first, trial, index, why)

    def _is_same_again(self, trial: Trial) -> bool:
        """Whether three more calls give the same."""
        again = (self.subject.trial(trial.descriptor, trial.x, trial.upstream, trial.view).got for _ in range(3))
        return all(np.array_equal(got, trial.got, equal_nan=True) for got in again)

    def _view_failure(self) -> Failure:
        """The shortest view of the first kind that fails."""
        gross = [trial for trial in self.views if self._reads_others(trial)]
        trials = gross or self.views
        trial = trials[0]
        why = f"{enumerated([each.view for each in trials])} arrays: {STRIDES if gross else OTHER_CODE}"
        if not self._is_same_again(trial):
            why = CHANGES
        count = sum(len(trial.beyond) for trial in trials)
        failure = self._described(int(trial.kinds[0]), count, trial, trial, int(trial.beyond[0]), why)
        return replace(failure, kind="view", is_allowed=not gross, array=f"{trial.view} {failure.array}")

    def _described(self, way: int, count: int, first: Trial, trial: Trial, index: int, why: str) -> Failure:
        storage = self.subject.storage
        kind, is_allowed = way_of(way)
        array = ""
        if len(trial.x) > 1:
            array = np.array2string(trial.x.reshape(trial.shape), threshold=SHOWN, separator=", ")
        distance = int(ulp_distance(trial.got, trial.want, storage).ravel()[index])
        shape = first.shape if first.descriptor.data is None else first.x.shape
        comparison = compare(
            first.got.reshape(shape),
            first.want.reshape(shape),
            bounds=self.subject.limit,
            neuron=first.descriptor,
            x=first.x.reshape(shape),
            upstream=None if first.upstream is None else first.upstream.reshape(shape),
            name=f"array {list(first.shape)}",
        )
        return Failure(
            kind=kind,
            format=storage.name,
            count=count,
            is_allowed=is_allowed,
            neuron=repr(trial.descriptor),
            shape=trial.shape,
            place=tuple(int(i) for i in np.unravel_index(index, trial.shape)),
            x=_notations(trial.x.ravel()[index]),
            upstream=None if trial.upstream is None else _notations(trial.upstream.ravel()[index]),
            got=_notations(trial.got.ravel()[index]),
            want=_notations(trial.want.ravel()[index]),
            array=" ".join(array.split()),
            ulp=None if distance == UNREACHABLE else distance,
            why=why,
            comparison=comparison.text(),
        )

    # ---- simpler and simpler ----

    def _simplest(self, way: int, failures: _Failures) -> tuple[Trial, int]:
        """A trial that fails in this way, of a single element if possible, and the element."""
        descriptor = self._simplest_neuron(way, failures)
        pairs = list(failures.values.values())
        upstreams = [None]
        if self.subject.direction == "gradient":
            upstreams = _distinct([failures.first.x.dtype.type(1), *sorted((u for _, u in pairs), key=_simplicity)])
        xs = _padded(_by_simplicity(_ladder([x for x, _ in pairs], descriptor, self.subject.storage)))
        simple: list[Any] = []
        for upstream in upstreams:
            trial = self._trial(descriptor, xs, upstream)
            failing = _distinct(trial.x.ravel()[self.subject.failing(trial, way, TRIED)])
            simple = simple or failing
            for x in failing:
                alone = self._trial(descriptor, x, upstream)
                at = self.subject.failing(alone, way)
                if at.size:
                    simpler = self._simpler_upstream(way, alone)
                    return (alone, int(at[0])) if simpler is alone else self._first(way, simpler)
        return self._shortest(way, failures.neurons.get(descriptor, failures.first), simple)

    def _fails(self, way: int, trial: Trial) -> bool:
        return self.subject.failing(trial, way).size > 0

    def _first(self, way: int, trial: Trial) -> tuple[Trial, int]:
        """The first element that fails in this way, or that fails, or any."""
        index = [*self.subject.failing(trial, way), *trial.beyond[:1], 0]
        return trial, int(index[0])

    def _trial(self, descriptor: MPSNNNeuronDescriptor, x: Any, upstream: Any, rows: int = 1) -> Trial:
        """Call with these values, or a single one repeated, in every feature channel."""
        shape = max(np.size(x), rows), _channels(descriptor)
        x, upstream = (
            None if values is None else np.broadcast_to(np.reshape(values, (-1, 1)), shape).copy()
            for values in (x, upstream)
        )
        return self.subject.trial(descriptor, x, upstream)

    def _simpler_upstream(self, way: int, alone: Trial) -> Trial:
        """The trial of the same single element with the simplest incoming gradient at which it fails in this way."""
        if alone.upstream is None or alone.upstream.ravel()[0] == 1:
            return alone
        x = alone.x.ravel()[0]
        values = _ladder([alone.upstream.ravel()[0]], alone.descriptor, self.subject.storage)
        values = _padded(_by_simplicity(values))
        trial = self._trial(alone.descriptor, x, values, len(values))
        assert trial.upstream is not None
        for upstream in _distinct(trial.upstream.ravel()[self.subject.failing(trial, way, TRIED)]):
            simpler = self._trial(alone.descriptor, x, upstream)
            if self._fails(way, simpler):
                return simpler
        return alone

    def _simplest_neuron(self, way: int, failures: _Failures) -> MPSNNNeuronDescriptor:
        """Of the neurons that fail in this way, one with as many documented parameters as possible."""
        simplest = min(failures.neurons, key=lambda d: (len(repr(d)), repr(d)))
        trial = failures.neurons[simplest]
        for name in simplest.parameters if self.subject.varies else ():
            others = {k: v for k, v in simplest.parameters.items() if k != name}
            simpler = neuron_of(simplest.neuron_type.name, others)
            if self._fails(way, self.subject.trial(simpler, trial.x, trial.upstream)):
                simplest = simpler
        return simplest

    def _shortest(self, way: int, first: Trial, simple: Sequence[Any]) -> tuple[Trial, int]:
        """Where no single element fails: the shortest array of one value, as simple as possible, or of several."""
        if len(first.x) > max(LENGTHS):
            # Smaller arrays have not failed so.
            return self._first(way, self._beginning(way, first))
        _, at = self._first(way, first)
        one = first.x.dtype.type(1)
        upstream = None if first.upstream is None else one
        for x in _distinct([one, *simple[:1], first.x.ravel()[at]]):
            for rows in (rows for rows in SHORTEST if rows <= len(first.x)):
                if self._fails(way, self._trial(first.descriptor, x, upstream, rows)):
                    for other in (one, *simple, x):
                        trial = self._trial(first.descriptor, other, upstream, rows)
                        if self._fails(way, trial):
                            return self._first(way, trial)
        best = first
        size = len(best.x) // 2
        while size:
            start = 0
            while start < len(best.x) and len(best.x) > size:
                keep = np.delete(np.arange(len(best.x)), slice(start, start + size))
                upstream = None if best.upstream is None else best.upstream[keep]
                shorter = self._if_failing(way, best, best.x[keep], upstream)
                start = start if shorter is not best else start + size
                best = shorter
            size //= 2
        best = self._plainer(way, best) if len(best.x) <= SHOWN else best
        return self._first(way, best)

    def _beginning(self, way: int, best: Trial) -> Trial:
        """The first rows of a large array, as few as fail."""
        few, many = 0, len(best.x)
        while many - few > 1:
            rows = (few + many) // 2
            upstream = None if best.upstream is None else best.upstream[:rows]
            shorter = self._if_failing(way, best, best.x[:rows], upstream)
            few, many = (few, rows) if shorter is not best else (rows, many)
            best = shorter
        return best

    def _plainer(self, way: int, best: Trial) -> Trial:
        """The same with 1, -1 or 0 wherever it still fails, and with incoming gradients of 1."""
        if best.upstream is not None:
            best = self._if_failing(way, best, best.x, np.ones_like(best.x))
        for row in range(len(best.x)):
            for value in (0, -1, 1):
                x = best.x.copy()
                x[row] = value
                best = self._if_failing(way, best, x, best.upstream)
        return best

    def _if_failing(self, way: int, best: Trial, x: Stored, upstream: Stored | None) -> Trial:
        """The trial of other arrays if it fails in the same way, else the best so far."""
        trial = self.subject.trial(best.descriptor, x, upstream)
        return trial if self._fails(way, trial) else best


def _channels(descriptor: MPSNNNeuronDescriptor) -> int:
    return 1 if descriptor.data is None else len(descriptor.data)


def _laid_out(drawn: Iterable[Any], shape: tuple[int, int], noise: int, pools: Sequence[Stored]) -> Stored:
    """An array with these values at both ends; between them, values of each pool, any bits, and moderate numbers."""
    values = np.array(list(drawn), pools[0].dtype)
    count = math.prod(shape)
    rng = np.random.default_rng(noise)
    bits = rng.integers(0, 1 << (8 * values.itemsize), count, f"u{values.itemsize}")
    choices = [bits.view(values.dtype), rng.normal(0, 4, count).astype(values.dtype)]
    choices += [rng.choice(pool, count) for pool in pools]
    x = np.choose(rng.integers(0, len(choices), count), choices)
    most = min(len(values), count)
    x[-most:] = values[:most]
    x[:most] = values[:most]
    return x.reshape(shape)


@functools.lru_cache(maxsize=64)
def _pools(descriptor: MPSNNNeuronDescriptor, storage: StorageFormat) -> tuple[Stored, Stored]:
    """Simple numbers; and special ones, the neuron's kinks, and the neighbours of both."""
    limits = storage.limits
    ends_of_range = map(float, (limits.max, limits.smallest_normal, limits.smallest_subnormal))
    special = [0, 1, np.inf, np.nan, *ends_of_range]
    with np.errstate(over="ignore"):
        ends = np.array([*special, *descriptor.row.kinks(descriptor)]).astype(storage.dtype)
        up, down = (np.nextafter(ends, storage.dtype.type(way)) for way in (np.inf, -np.inf))
    pool = np.concatenate([ends, up, down])
    return _ladder([], descriptor, storage), np.concatenate([pool, -pool])


def _distinct(values: Iterable[Any]) -> list[Any]:
    return list({value.tobytes(): value for value in values}.values())


def _simplicity(value: Any) -> tuple[bool, int, float, bool]:
    """Special values and small integers are simpler; then what is shorter in decimal, smaller, and positive."""
    size = abs(float(value))
    simple = not math.isfinite(size) or (size.is_integer() and size <= 2048)
    return not simple, len(str(abs(value))), math.inf if math.isnan(size) else size, bool(np.signbit(value))


def _ladder(failing: Sequence[Any], descriptor: MPSNNNeuronDescriptor, storage: StorageFormat) -> Stored:
    """Simple numbers, the neuron's kinks, and simpler ones beside those that fail."""
    dtype, limits = storage.dtype, storage.limits
    kinks = np.array(descriptor.row.kinks(descriptor)).astype(dtype)
    values = np.array(failing, dtype)
    with np.errstate(all="ignore"):
        wide = values.astype(np.float64)
        digits = [np.array([float(f"{v:.{n}e}") for v in wide]) for n in range(4)]
        mantissa, _ = np.frexp(wide)
        powers = np.exp2(np.arange(limits.minexp - limits.nmant, limits.maxexp))
        numbers = np.concatenate([
            np.arange(0, 512), np.arange(0, 64) / 4, np.arange(0, 100) / 10, powers, powers * (1 + float(limits.eps)),
            (1 + 2.0**-11) * powers, [float(limits.max), float(limits.smallest_normal), np.inf],
            *digits, np.trunc(wide), mantissa, 2 * mantissa,
        ]).astype(dtype)  # fmt: skip
    beside = [np.nextafter(kinks, dtype.type(way)) for way in (np.inf, -np.inf)]
    numbers = np.concatenate([numbers, kinks, *beside, np.array([np.nan], dtype)])
    both = np.concatenate([numbers, -numbers, values])
    return np.unique(both.view(storage.bits_dtype)).view(dtype)


def _by_simplicity(values: Stored) -> Stored:
    return np.array(sorted(values, key=_simplicity), values.dtype)


def _padded(values: Stored) -> Stored:
    """The same values, some of them twice, so that there are as many as in other arrays of this kind."""
    return np.resize(values, 1 << (len(values) - 1).bit_length())


def _notations(value: Any) -> tuple[str, str, str]:
    """An element as the shortest decimal, as C's hexadecimal, and as bits."""
    number, bits = float(value), int(value.view(f"u{value.itemsize}"))
    text = number.hex() if math.isfinite(number) else str(value)
    if "p" in text:
        mantissa, _, exponent = text.partition("p")
        text = f"{mantissa.rstrip('0')}p{exponent}".replace(".p", ".0p")
    return str(value), text, f"0x{bits:0{2 * value.itemsize}x}"
