"""An attack on an implementation: arrays drawn by Hypothesis, and each failure made as simple as can be."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, given, seed, settings, target
from hypothesis import strategies as st

from mpsref.neuron.descriptor import MPSNNNeuronDescriptor, descriptor_or_error
from mpsref.storage import StorageFormat
from mpsref.testing.comparison import compare
from mpsref.testing.excuses import why
from mpsref.testing.implementation_report import KINDS, Failure
from mpsref.testing.strategies import floats
from mpsref.testing.subject import Stored, Subject, Tried
from mpsref.ulp import UNREACHABLE, ulp_distance

__all__ = ["Attack"]

LONGEST, DRAWN = 600, 12
"""How many rows an array has at most, and how many of its values Hypothesis draws one by one."""

KEPT, TRIED = 64, 12
"""How many failing values are kept of a kind, and how many are tried alone."""

SHOWN = 16
"""Elements of an array that are written out."""

CHANGES = "called again with the same array, the implementation gives something else"


@dataclass
class _Found:
    """Failures of one kind."""

    first: Tried
    count: int = 0
    values: dict[bytes, tuple[Any, Any]] = field(default_factory=dict)
    neurons: dict[MPSNNNeuronDescriptor, Tried] = field(default_factory=dict)


class Attack:
    """Arrays for one format, and what fails of them."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.arrays = self.elements = 0
        self.found: dict[str, _Found] = {}

    def run(self, max_examples: int | None, number: int | None) -> None:
        """Let Hypothesis draw arrays, and collect what fails."""
        subject, neurons = self.subject, self.subject.drawn_from()

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
            channels = 1 if descriptor.data is None else len(descriptor.data)
            shape = data.draw(st.integers(1, LONGEST)), channels
            noise = data.draw(st.integers(0, 2**32 - 1))
            storage = subject.storage
            numbers = st.lists(floats(storage.name, neuron=descriptor), min_size=1, max_size=DRAWN)
            pools = _pools(descriptor, storage)
            x = _laid_out(data.draw(numbers), shape, noise, pools)
            upstream = None
            if subject.direction == "gradient":
                upstream = np.ones_like(x)
                if data.draw(st.booleans()):
                    some = st.lists(floats(storage.name), min_size=1, max_size=DRAWN)
                    upstream = _laid_out(data.draw(some), shape, noise + 1, pools)
            tried = subject.tried(descriptor, x, upstream)
            self._keep(tried)
            distance = ulp_distance(tried.got, tried.want, storage)
            farthest = np.max(distance, where=distance != UNREACHABLE, initial=0)
            target(math.log2(1 + int(farthest)))

        if number is not None:
            attack = seed(number)(attack)
        attack()
        if not subject.varies and subject.storage.dtype.itemsize == 2:
            self._try_all()

    def _try_all(self) -> None:
        """Every number there is: of halves there are few enough."""
        subject, every = self.subject, np.arange(1 << 16, dtype=np.uint16).view(self.subject.storage.dtype)
        assert isinstance(subject.neuron, MPSNNNeuronDescriptor)
        one = None if subject.direction == "forward" else every.dtype.type(1)
        for start in range(0, len(every), LONGEST):
            self._keep(self._together(subject.neuron, every[start : start + LONGEST], one))

    def _keep(self, tried: Tried) -> None:
        self.arrays += 1
        self.elements += tried.x.size
        for kind in dict.fromkeys(tried.kinds):
            found = self.found.setdefault(kind, _Found(tried))
            index = tried.of(kind)
            found.count += index.size
            found.neurons.setdefault(tried.descriptor, tried)
            x = tried.x.ravel()[index]
            upstream = np.ones_like(x) if tried.upstream is None else tried.upstream.ravel()[index]
            for pair in zip(x, upstream, strict=True):
                if len(found.values) >= KEPT:
                    break
                found.values.setdefault(pair[0].tobytes() + pair[1].tobytes(), pair)

    def failures(self) -> Iterator[Failure]:
        """The simplest input of each kind, in the order of `KINDS`."""
        for kind in KINDS:
            if kind in self.found:
                yield self._failure(kind, self.found[kind])

    def _failure(self, kind: str, found: _Found) -> Failure:
        tried, index, evidence = self._simplest(kind, found)
        storage, first = self.subject.storage, found.first
        again = self.subject.tried(tried.descriptor, tried.x, tried.upstream)
        is_same = np.array_equal(again.got, tried.got, equal_nan=True)
        array = ""
        if len(tried.x) > 1:
            some = tried.x[:, 0] if tried.x.shape[1] == 1 else tried.x
            array = " ".join(np.array2string(some, threshold=SHOWN, separator=", ").split())
        distance = int(ulp_distance(tried.got, tried.want, storage).ravel()[index])
        shape = tried.x.shape if tried.x.shape[1] > 1 else (len(tried.x),)
        comparison = compare(
            first.got,
            first.want,
            bounds=self.subject.limit,
            neuron=first.descriptor,
            x=first.x,
            upstream=first.upstream,
            name=f"array {list(first.x.shape if first.x.shape[1] > 1 else first.x.shape[:1])}",
        )
        return Failure(
            kind=kind,
            format=storage.name,
            count=found.count,
            neuron=repr(tried.descriptor),
            shape=shape,
            place=tuple(int(i) for i in np.unravel_index(index, shape)),
            x=_said_of(tried.x.ravel()[index]),
            upstream=None if tried.upstream is None else _said_of(tried.upstream.ravel()[index]),
            got=_said_of(tried.got.ravel()[index]),
            want=_said_of(tried.want.ravel()[index]),
            array=array,
            ulp=None if distance == UNREACHABLE else distance,
            why=why(tried, index, evidence, kind, storage) if is_same else CHANGES,
            comparison=comparison.text(),
        )

    # ---- simpler and simpler ----

    def _simplest(self, kind: str, found: _Found) -> tuple[Tried, int, Tried]:
        """A call that fails in this way, of a single element if there is one; and what speaks of why."""
        descriptor = self._simplest_neuron(kind, found)
        pairs = list(found.values.values())
        upstreams = [None]
        if self.subject.direction == "gradient":
            upstreams = _distinct([found.first.x.dtype.type(1), *sorted((u for _, u in pairs), key=_simplicity)])
        xs = _ladder([x for x, _ in pairs], descriptor, self.subject.storage)
        simple: list[Any] = []
        for upstream in upstreams:
            tried = self._together(descriptor, xs, upstream)
            failing = _distinct(sorted(tried.x.ravel()[tried.of(kind)], key=_simplicity))
            simple = simple or failing
            for x in failing[:TRIED]:
                alone = self._together(descriptor, x, upstream)
                if kind in alone.kinds:
                    alone = self._simpler_upstream(kind, alone)
                    return alone, int(alone.of(kind)[0]), tried
        return self._shortest(kind, found.neurons.get(descriptor, found.first), simple[:TRIED])

    def _together(self, descriptor: MPSNNNeuronDescriptor, x: Any, upstream: Any, rows: int = 1) -> Tried:
        """Call with these values, or one of them repeated, in every feature channel."""
        values = x if isinstance(x, np.ndarray) else np.full(rows, x)
        column = _column(values, descriptor)
        if upstream is None:
            return self.subject.tried(descriptor, column, None)
        incoming = upstream if isinstance(upstream, np.ndarray) else np.full(len(values), upstream)
        return self.subject.tried(descriptor, column, _column(incoming, descriptor))

    def _simpler_upstream(self, kind: str, alone: Tried) -> Tried:
        """Another call of the same single source, with the simplest upstream gradient at which it fails like this."""
        if alone.upstream is None or alone.upstream.ravel()[0] == 1:
            return alone
        values = _ladder([alone.upstream.ravel()[0]], alone.descriptor, self.subject.storage)
        tried = self._together(alone.descriptor, np.full_like(values, alone.x.ravel()[0]), values)
        assert tried.upstream is not None
        for upstream in _distinct(sorted(tried.upstream.ravel()[tried.of(kind)], key=_simplicity))[:TRIED]:
            simpler = self._together(alone.descriptor, alone.x.ravel()[0], upstream)
            if kind in simpler.kinds:
                return simpler
        return alone

    def _simplest_neuron(self, kind: str, found: _Found) -> MPSNNNeuronDescriptor:
        """Of the neurons at which it fails one whose parameters are the documented ones as far as may be."""
        first = min(found.neurons, key=lambda d: (len(repr(d)), repr(d)))
        tried = found.neurons[first]
        simple = first
        for name in first.parameters if self.subject.varies else ():
            given = {k: v for k, v in simple.parameters.items() if k != name}
            other = MPSNNNeuronDescriptor(first.neuron_type, **given)
            if kind in self.subject.tried(other, tried.x, tried.upstream).kinds:
                simple = other
        return simple

    def _shortest(self, kind: str, first: Tried, simple: Sequence[Any]) -> tuple[Tried, int, Tried]:
        """What fails only in company: the shortest array of one value, the simplest there is, or what is left of it."""
        at = int(first.of(kind)[0]) if kind in first.kinds else 0
        one = first.x.dtype.type(1)
        upstream = None if first.upstream is None else one
        for x in _distinct([one, *simple[:1], first.x.ravel()[at]]):
            for rows in range(1, len(first.x) + 1):
                if kind in self._together(first.descriptor, x, upstream, rows).kinds:
                    for other in (one, *simple, x):
                        tried = self._together(first.descriptor, other, upstream, rows)
                        if kind in tried.kinds:
                            return tried, int(tried.of(kind)[0]), first
        best = first
        size = len(best.x) // 2
        while size:
            start = 0
            while start < len(best.x) and len(best.x) > size:
                keep = np.delete(np.arange(len(best.x)), slice(start, start + size))
                rest = None if best.upstream is None else best.upstream[keep]
                tried = self.subject.tried(best.descriptor, best.x[keep], rest)
                if kind in tried.kinds:
                    best = tried
                else:
                    start += size
            size //= 2
        best = self._plainer(kind, best) if len(best.x) <= SHOWN else best
        return best, int(best.of(kind)[0]) if kind in best.kinds else 0, first

    def _plainer(self, kind: str, best: Tried) -> Tried:
        """The same with 1, -1 or 0 wherever it still fails, and with upstream gradients of 1."""
        plain = [(row, value) for row in range(len(best.x)) for value in (0, -1, 1)]
        if best.upstream is not None:
            tried = self.subject.tried(best.descriptor, best.x, np.ones_like(best.x))
            best = tried if kind in tried.kinds else best
        for row, value in plain:
            x = best.x.copy()
            x[row] = value
            tried = self.subject.tried(best.descriptor, x, best.upstream)
            best = tried if kind in tried.kinds else best
        return best


def _laid_out(drawn: Iterable[Any], shape: tuple[int, int], noise: int, pools: Sequence[Stored]) -> Stored:
    """Values at both ends of an array; between them some of each pool, of any bits, and of moderate size."""
    values = np.array(list(drawn), pools[0].dtype)
    count = shape[0] * shape[1]
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
    """Simple numbers; and special ones, with the neuron's kinks, and what lies beside them."""
    limits = np.finfo(storage.dtype)
    special = [0, 1, np.inf, np.nan, limits.max, limits.smallest_normal, limits.smallest_subnormal]
    with np.errstate(over="ignore"):
        ends = np.array([*special, *descriptor.row.kinks(descriptor)]).astype(storage.dtype)
        up, down = (np.nextafter(ends, storage.dtype.type(way)) for way in (np.inf, -np.inf))
    pool = np.concatenate([ends, up, down])
    return _ladder([], descriptor, storage), np.concatenate([pool, -pool])


def _column(values: Stored, descriptor: MPSNNNeuronDescriptor) -> Stored:
    """Rows of one value each, in every feature channel."""
    channels = 1 if descriptor.data is None else len(descriptor.data)
    return np.repeat(values[:, np.newaxis], channels, axis=1)


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
    numbers = np.concatenate([numbers, kinks, np.nextafter(kinks, dtype.type(np.inf))])
    numbers = np.concatenate([numbers, np.nextafter(kinks, dtype.type(-np.inf)), dtype.type([np.nan])])
    both = np.concatenate([numbers, -numbers, values])
    return np.unique(both.view(storage.bits_dtype)).view(dtype)


def _said_of(value: Any) -> tuple[str, str, str]:
    """An element as the shortest decimal, as C's hexadecimal, and as bits."""
    number, bits = float(value), int(value.view(f"u{value.itemsize}"))
    text = number.hex() if math.isfinite(number) else str(value)
    if "p" in text:
        mantissa, _, exponent = text.partition("p")
        text = f"{mantissa.rstrip('0')}{'0' if mantissa.rstrip('0').endswith('.') else ''}p{exponent}"
    return str(value), text, f"0x{bits:0{2 * value.itemsize}x}"
