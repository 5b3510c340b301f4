"""An attack on an implementation: Hypothesis draws arrays, and each failure is reduced to its simplest input."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, given, seed, settings, target
from hypothesis import strategies as st

from mpsref.arrays import Stored
from mpsref.neuron.descriptor import MPSNNNeuronDescriptor, descriptor_or_error
from mpsref.storage import StorageFormat
from mpsref.testing.comparison import compare
from mpsref.testing.reports import KINDS, Failure
from mpsref.testing.strategies import floats
from mpsref.testing.subject import Subject, Trial, why
from mpsref.ulp import UNREACHABLE, ulp_distance

__all__ = ["Attack"]

LONGEST, DRAWN = 600, 12
"""Rows of an array at most, and values in it that Hypothesis draws one by one."""

KEPT, TRIED = 64, 12
"""Failing values that are kept of a kind, and that are tried alone."""

SHOWN = 16
"""Elements of an array that are written out."""

CHANGES = "called again with the same array, the implementation gives something else"


@dataclass
class _Failures:
    """Elements that failed in one way."""

    first: Trial
    count: int = 0
    values: dict[bytes, tuple[Any, Any]] = field(default_factory=dict)
    neurons: dict[MPSNNNeuronDescriptor, Trial] = field(default_factory=dict)


class Attack:
    """Arrays for one format, and their failures."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.arrays = self.elements = 0
        self.by_kind: dict[str, _Failures] = {}

    def run(self, max_examples: int | None, number: int | None) -> None:
        """Let Hypothesis draw arrays, and collect failures."""
        subject, storage, neurons = self.subject, self.subject.storage, self.subject.neurons()

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
            shape = data.draw(st.integers(1, LONGEST)), _channels(descriptor)
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
        if isinstance(subject.neuron, MPSNNNeuronDescriptor) and storage.dtype.itemsize == 2:
            # There are few enough halves to try them all.
            halves = storage.patterns()
            upstream = None if subject.direction == "forward" else storage.dtype.type(1)
            for start in range(0, len(halves), LONGEST):
                self._keep(self._trial(subject.neuron, halves[start : start + LONGEST], upstream))

    def _keep(self, trial: Trial) -> None:
        self.arrays += 1
        self.elements += trial.x.size
        for kind in dict.fromkeys(trial.kinds):
            failures = self.by_kind.setdefault(kind, _Failures(trial))
            index = trial.failing(kind)
            failures.count += index.size
            failures.neurons.setdefault(trial.descriptor, trial)
            x = trial.x.ravel()[index]
            upstream = np.ones_like(x) if trial.upstream is None else trial.upstream.ravel()[index]
            for pair in zip(x, upstream, strict=True):
                if len(failures.values) >= KEPT:
                    break
                failures.values.setdefault(pair[0].tobytes() + pair[1].tobytes(), pair)

    def failures(self) -> Iterator[Failure]:
        """The simplest input of each kind, in the order of `KINDS`."""
        for kind in KINDS:
            if kind in self.by_kind:
                yield self._failure(kind, self.by_kind[kind])

    def _failure(self, kind: str, failures: _Failures) -> Failure:
        trial, index, evidence = self._simplest(kind, failures)
        storage, first = self.subject.storage, failures.first
        again = self.subject.trial(trial.descriptor, trial.x, trial.upstream)
        is_same = np.array_equal(again.got, trial.got, equal_nan=True)
        array = ""
        if len(trial.x) > 1:
            array = np.array2string(trial.x.reshape(trial.shape), threshold=SHOWN, separator=", ")
        distance = int(ulp_distance(trial.got, trial.want, storage).ravel()[index])
        comparison = compare(
            first.got,
            first.want,
            bounds=self.subject.limit,
            neuron=first.descriptor,
            x=first.x,
            upstream=first.upstream,
            name=f"array {list(first.shape)}",
        )
        return Failure(
            kind=kind,
            format=storage.name,
            count=failures.count,
            neuron=repr(trial.descriptor),
            shape=trial.shape,
            place=tuple(int(i) for i in np.unravel_index(index, trial.shape)),
            x=_notations(trial.x.ravel()[index]),
            upstream=None if trial.upstream is None else _notations(trial.upstream.ravel()[index]),
            got=_notations(trial.got.ravel()[index]),
            want=_notations(trial.want.ravel()[index]),
            array=" ".join(array.split()),
            ulp=None if distance == UNREACHABLE else distance,
            why=why(trial, index, evidence, kind, storage) if is_same else CHANGES,
            comparison=comparison.text(),
        )

    # ---- simpler and simpler ----

    def _simplest(self, kind: str, failures: _Failures) -> tuple[Trial, int, Trial]:
        """A trial that fails in this way, of a single element if possible; the element; and evidence for the cause."""
        descriptor = self._simplest_neuron(kind, failures)
        pairs = list(failures.values.values())
        upstreams = [None]
        if self.subject.direction == "gradient":
            upstreams = _distinct([failures.first.x.dtype.type(1), *sorted((u for _, u in pairs), key=_simplicity)])
        xs = _ladder([x for x, _ in pairs], descriptor, self.subject.storage)
        simple: list[Any] = []
        for upstream in upstreams:
            trial = self._trial(descriptor, xs, upstream)
            failing = _distinct(sorted(trial.x.ravel()[trial.failing(kind)], key=_simplicity))
            simple = simple or failing
            for x in failing[:TRIED]:
                alone = self._trial(descriptor, x, upstream)
                if kind in alone.kinds:
                    alone = self._simpler_upstream(kind, alone)
                    return alone, int(alone.failing(kind)[0]), trial
        return self._shortest(kind, failures.neurons.get(descriptor, failures.first), simple[:TRIED])

    def _trial(self, descriptor: MPSNNNeuronDescriptor, x: Any, upstream: Any, rows: int = 1) -> Trial:
        """Call with these values, or a single one repeated, in every feature channel."""
        shape = max(np.size(x), rows), _channels(descriptor)
        x, upstream = (
            None if values is None else np.broadcast_to(np.reshape(values, (-1, 1)), shape).copy()
            for values in (x, upstream)
        )
        return self.subject.trial(descriptor, x, upstream)

    def _simpler_upstream(self, kind: str, alone: Trial) -> Trial:
        """The trial of the same single element with the simplest incoming gradient at which it fails in this way."""
        if alone.upstream is None or alone.upstream.ravel()[0] == 1:
            return alone
        x = alone.x.ravel()[0]
        values = _ladder([alone.upstream.ravel()[0]], alone.descriptor, self.subject.storage)
        trial = self._trial(alone.descriptor, x, values, len(values))
        assert trial.upstream is not None
        for upstream in _distinct(sorted(trial.upstream.ravel()[trial.failing(kind)], key=_simplicity))[:TRIED]:
            simpler = self._trial(alone.descriptor, x, upstream)
            if kind in simpler.kinds:
                return simpler
        return alone

    def _simplest_neuron(self, kind: str, failures: _Failures) -> MPSNNNeuronDescriptor:
        """Of the neurons that fail in this way, one with as many documented parameters as possible."""
        simplest = min(failures.neurons, key=lambda d: (len(repr(d)), repr(d)))
        trial = failures.neurons[simplest]
        for name in simplest.parameters if self.subject.varies else ():
            others = {k: v for k, v in simplest.parameters.items() if k != name}
            simpler = MPSNNNeuronDescriptor(simplest.neuron_type, **others)
            if kind in self.subject.trial(simpler, trial.x, trial.upstream).kinds:
                simplest = simpler
        return simplest

    def _shortest(self, kind: str, first: Trial, simple: Sequence[Any]) -> tuple[Trial, int, Trial]:
        """Where no single element fails: the shortest array of one value, as simple as possible, or of several."""
        at = int(first.failing(kind)[0]) if kind in first.kinds else 0
        one = first.x.dtype.type(1)
        upstream = None if first.upstream is None else one
        for x in _distinct([one, *simple[:1], first.x.ravel()[at]]):
            for rows in range(1, len(first.x) + 1):
                if kind in self._trial(first.descriptor, x, upstream, rows).kinds:
                    for other in (one, *simple, x):
                        trial = self._trial(first.descriptor, other, upstream, rows)
                        if kind in trial.kinds:
                            return trial, int(trial.failing(kind)[0]), first
        best = first
        size = len(best.x) // 2
        while size:
            start = 0
            while start < len(best.x) and len(best.x) > size:
                keep = np.delete(np.arange(len(best.x)), slice(start, start + size))
                upstream = None if best.upstream is None else best.upstream[keep]
                shorter = self._if_failing(kind, best, best.x[keep], upstream)
                start = start if shorter is not best else start + size
                best = shorter
            size //= 2
        best = self._plainer(kind, best) if len(best.x) <= SHOWN else best
        return best, int(best.failing(kind)[0]) if kind in best.kinds else 0, first

    def _plainer(self, kind: str, best: Trial) -> Trial:
        """The same with 1, -1 or 0 wherever it still fails, and with incoming gradients of 1."""
        if best.upstream is not None:
            best = self._if_failing(kind, best, best.x, np.ones_like(best.x))
        for row in range(len(best.x)):
            for value in (0, -1, 1):
                x = best.x.copy()
                x[row] = value
                best = self._if_failing(kind, best, x, best.upstream)
        return best

    def _if_failing(self, kind: str, best: Trial, x: Stored, upstream: Stored | None) -> Trial:
        """The trial of other arrays if it fails in the same way, else the best so far."""
        trial = self.subject.trial(best.descriptor, x, upstream)
        return trial if kind in trial.kinds else best


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
    limits = np.finfo(storage.dtype)
    special = [0, 1, np.inf, np.nan, limits.max, limits.smallest_normal, limits.smallest_subnormal]
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
    dtype, limits = storage.dtype, np.finfo(storage.dtype)
    kinks = np.array(descriptor.row.kinks(descriptor)).astype(dtype)
    values = np.array(failing, dtype)
    with np.errstate(all="ignore"):
        wide = values.astype(np.float64)
        digits = [np.array([float(f"{v:.{n}e}") for v in wide]) for n in range(4)]
        mantissa, _ = np.frexp(wide)
        powers = np.exp2(np.arange(limits.minexp - limits.nmant, limits.maxexp))
        numbers = np.concatenate([
            np.arange(0, 512), np.arange(0, 64) / 4, np.arange(0, 100) / 10, powers, powers * (1 + limits.eps),
            (1 + 2.0**-11) * powers, [limits.max, limits.smallest_normal, np.inf],
            *digits, np.trunc(wide), mantissa, 2 * mantissa,
        ]).astype(dtype)  # fmt: skip
    beside = [np.nextafter(kinks, dtype.type(way)) for way in (np.inf, -np.inf)]
    numbers = np.concatenate([numbers, kinks, *beside, dtype.type([np.nan])])
    both = np.concatenate([numbers, -numbers, values])
    return np.unique(both.view(storage.bits_dtype)).view(dtype)


def _notations(value: Any) -> tuple[str, str, str]:
    """An element as the shortest decimal, as C's hexadecimal, and as bits."""
    number, bits = float(value), int(value.view(f"u{value.itemsize}"))
    text = number.hex() if math.isfinite(number) else str(value)
    if "p" in text:
        mantissa, _, exponent = text.partition("p")
        text = f"{mantissa.rstrip('0')}p{exponent}".replace(".p", ".0p")
    return str(value), text, f"0x{bits:0{2 * value.itemsize}x}"
