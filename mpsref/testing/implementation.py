"""Somebody's kernel, attacked by Hypothesis, and the simplest inputs at which it fails."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from hypothesis import HealthCheck, Phase, given, seed, settings, target
from hypothesis import strategies as st

from mpsref.arrays import Elements
from mpsref.columns import aligned, printable
from mpsref.enums import MPSCNNNeuronType, MPSImageFeatureChannelFormat
from mpsref.errors import ParameterError, VerificationError
from mpsref.histogram import UNREACHABLE
from mpsref.neuron import forward, gradient
from mpsref.neuron.descriptor import MPSNNNeuronDescriptor, descriptor_or_error
from mpsref.operations import NeuronForward, NeuronGradient
from mpsref.storage import StorageFormat, storage_format
from mpsref.sweep.implementation import Implementation, call, load, name_of
from mpsref.testing.comparison import Bounds, _judge, _said, compare, resolved
from mpsref.testing.strategies import descriptors, floats
from mpsref.verify.bounds import BEYOND, MODELS, WITHIN
from mpsref.verify.case import Case, within
from mpsref.verify.compare import Tolerance, ulp_distance
from mpsref.verify.compare import compare as counts_of
from mpsref.verify.faults import explain
from mpsref.verify.judge import neuron_judge
from mpsref.verify.running import Reason
from mpsref.verify.tolerance import Limit

__all__ = ["Failure", "ImplementationCheck", "check_implementation"]

Stored: TypeAlias = npt.NDArray[Any]
Index: TypeAlias = npt.NDArray[np.intp]
Neurons: TypeAlias = MPSNNNeuronDescriptor | MPSCNNNeuronType | st.SearchStrategy[MPSNNNeuronDescriptor]

F = MPSImageFeatureChannelFormat
LONGEST, DRAWN = 600, 12
"""How many rows an array has at most, and how many of its values Hypothesis draws one by one."""

KEPT, TRIED = 64, 12
"""How many failing values are kept of a kind, and how many are tried alone."""

SHOWN = 16
"""Elements of an array that are written out."""

CHANGES = "called again with the same array, the implementation gives something else"

MENTIONED = 12
"""So many of the faults that explain most are looked at."""

EXPLAINING = {"float32": ("metal-precise", "metal-fast"), "float16": ("metal-precise", "metal-fast", "metal-half")}
"""The models that are asked why, the strictest first."""

KINDS = {
    "NaN": "NaN where a number is right",
    "NaN lost": "a number where NaN is right",
    "infinity": "infinity where a number is right",
    "infinity lost": "something else where infinity is right",
    "flushed": "0 where a subnormal number is right",
    "vanished": "0 where a normal number is right",
    "far": "a number that is beyond the bounds",
}
"""Kinds of failures, and what is given."""


@dataclass(frozen=True)
class Failure:
    """
    The simplest input at which an implementation fails in one way.

    Attributes
    ----------
    kind, format : str
        One of `KINDS`, and how elements are stored.
    count : int
        Elements that failed like this, of all that were tried.
    neuron : str
        The neuron.
    shape, place : tuple of int
        Of the array that the implementation was called with, and where the element is; a single element, unless it
        fails only in company.
    x, upstream, got, want : str
        The element: shortest decimal, hexadecimal and bit pattern; `upstream` is empty for a forward.
    array : str
        The whole array, if it has more than one element; else empty.
    ulp : int or None
        The distance; None if one is NaN, or one infinite.
    why : str
        What explains it; empty if nothing does.
    comparison : str
        The report on the first array in which it was found.
    """

    kind: str
    format: str
    count: int
    neuron: str
    shape: tuple[int, ...]
    place: tuple[int, ...]
    x: tuple[str, str, str]
    upstream: tuple[str, str, str] | None
    got: tuple[str, str, str]
    want: tuple[str, str, str]
    array: str
    ulp: int | None
    why: str
    comparison: str

    def lines(self) -> Iterator[str]:
        """For people."""
        yield f"{self.format}: {KINDS[self.kind]}, {self.count:,} times; the simplest:"
        rows = [("x", *self.x)]
        rows += [("upstream", *self.upstream)] if self.upstream else []
        rows += [("got", *self.got), ("want", *self.want)]
        yield from (f"  {line}" for line in aligned(rows, left=len(rows[0])))
        distance = "not comparable" if self.ulp is None else f"{self.ulp:,} ULP"
        yield f"  {distance}; {self.neuron}"
        if self.array:
            yield f"  at {list(self.place)} of {list(self.shape)}, and in no single element: {self.array}"
        if self.why:
            yield f"  why: {self.why}"


@dataclass(frozen=True)
class ImplementationCheck:
    """
    What an attack on an implementation has found.

    Attributes
    ----------
    name, direction : str
        What was attacked.
    bounds : str
        What passes.
    formats : tuple of str
        How elements were stored.
    arrays, elements : int
        How many calls there were, with how many elements, besides those that looked for the simplest inputs.
    failures : tuple of Failure
        One for each format and kind of failure.
    """

    name: str
    direction: str
    bounds: str
    formats: tuple[str, ...]
    arrays: int
    elements: int
    failures: tuple[Failure, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing failed."""
        return not self.failures

    @property
    def verdict(self) -> str:
        """One line."""
        tried = f"{self.elements:,} elements in {self.arrays:,} arrays of {' and '.join(self.formats)}"
        if self.passed:
            return f"PASS: {tried} are within bounds"
        n = len(self.failures)
        return f"FAIL: in {n} way{'s' if n > 1 else ''}, of {tried}"

    def check(self) -> None:
        """Raise `VerificationError`, which carries this report and says all of it, unless it passed."""
        __tracebackhide__ = True
        if not self.passed:
            raise VerificationError(self.text(), self)

    def text(self) -> str:
        """For people: the verdict first, then each failure, then the arrays in which they were found first."""
        lines = [f"{self.name}: {self.verdict}", f"{self.direction}; bounds: {self.bounds}"]
        for failure in self.failures:
            lines += ["", *failure.lines()]
        # Often one array has shown them all.
        for comparison in dict.fromkeys(f"{failure.format}, {failure.comparison}" for failure in self.failures):
            lines += ["", "first found in:", *(f"  {line}" for line in comparison.splitlines())]
        return "\n".join(printable(line) for line in lines)

    def to_json(self) -> dict[str, Any]:
        """For programs: everything, as `json` can write it."""
        return asdict(self) | {"passed": self.passed, "verdict": self.verdict}


def check_implementation(
    function: Implementation,
    neuron: Neurons,
    *,
    direction: str = "forward",
    bounds: Bounds | None = None,
    ulp: int | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    formats: Sequence[MPSImageFeatureChannelFormat] = (F.float32, F.float16),
    max_examples: int | None = None,
    seed: int | None = None,
    name: str | None = None,
) -> ImplementationCheck:
    """
    Fail unless an implementation of a neuron withstands an attack; say at which simplest inputs it does not.

    Parameters
    ----------
    function : callable or str
        The implementation, or ``module:function``: ``function(x)``, or for a gradient ``function(x, upstream)``, with
        arrays of a format's dtype, and one dimension; it returns an array of the same shape and dtype. For a pReLU with
        several slopes there are two dimensions, the last being the feature channels. It should be quick: it is called a
        few hundred times.
    neuron : MPSNNNeuronDescriptor, MPSCNNNeuronType or strategy of MPSNNNeuronDescriptor
        What it should compute. With a type or a strategy parameters vary, and the function is given the descriptor as
        its last argument.
    direction : str
        ``forward`` or ``gradient``.
    bounds, ulp, rtol, atol
        What passes, as for `mpsref.testing.compare`; by default 4 ULP.
    formats : sequence of MPSImageFeatureChannelFormat
        Among float32 and float16.
    max_examples : int, optional
        Arrays for each format, besides those that have all halves. Default: what the Hypothesis profile says, 100
        unless somebody has changed it.
    seed : int, optional
        Makes another attack; without it the attack is the same each time, as long as the program is.
    name : str, optional
        How the report calls the implementation.

    Returns
    -------
    ImplementationCheck
        If nothing fails.

    Raises
    ------
    VerificationError
        Something is beyond the bounds. An `AssertionError`, with the `ImplementationCheck` as its ``report``.
    ImplementationError
        The implementation cannot be imported, raises an error, or returns something else.
    ParameterError
        An argument makes no sense.

    Notes
    -----
    Each array has some values that Hypothesis draws, with `mpsref.testing.strategies.floats`, at both its ends, and
    some hundred others: simple and special ones, and any. Of a given neuron all halves are tried too, for a gradient
    with an incoming gradient of 1. What fails is sorted into kinds; of each, inputs are made
    simpler until only the simplest is left, alone if it fails alone, else in the shortest array; where another call
    with it gives something else, that is said. No database of examples is written.

    Examples
    --------
    >>> import numpy as np
    >>> import mpsref as mps
    >>> from mpsref.testing import check_implementation
    >>> d = mps.MPSNNNeuronDescriptor(mps.MPSCNNNeuronType.softSign)
    >>> try:
    ...     check_implementation(lambda x: x / (1 + np.abs(x)), d, max_examples=20)
    ... except mps.VerificationError as error:
    ...     for failure in error.report.failures:
    ...         print(failure.format, failure.kind, failure.x, failure.want)
    float32 NaN ('inf', 'inf', '0x7f800000') ('1.0', '0x1.0p+0', '0x3f800000')
    float16 NaN ('inf', 'inf', '0x7c00') ('1.0', '0x1.0p+0', '0x3c00')
    """
    __tracebackhide__ = True
    limit = resolved(bounds, ulp, rtol, atol)
    if direction not in ("forward", "gradient"):
        raise ParameterError(f"direction is {direction!r}: choose one of forward, gradient")
    _integer_or_error(max_examples, "max_examples", 1)
    _integer_or_error(seed, "seed", 0)
    storages = _storages(formats)
    load(function)
    attacks = [_Attack(_Subject(function, neuron, direction, limit, storage)) for storage in storages]
    for attack in attacks:
        attack.run(max_examples, seed)
    report = ImplementationCheck(
        name or name_of(function),
        direction,
        _said(limit),
        tuple(storage.name for storage in storages),
        sum(attack.arrays for attack in attacks),
        sum(attack.elements for attack in attacks),
        tuple(failure for attack in attacks for failure in attack.failures()),
    )
    report.check()
    return report


def _integer_or_error(value: Any, name: str, least: int) -> None:
    if value is not None and (not isinstance(value, int | np.integer) or isinstance(value, bool) or value < least):
        raise ParameterError(f"{name} is {value!r}: give an integer of at least {least}")


def _storages(formats: Any) -> list[StorageFormat]:
    if not isinstance(formats, Iterable) or isinstance(formats, str):
        raise ParameterError(f"formats is {formats!r}: give a list of MPSImageFeatureChannelFormat members")
    storages = list(dict.fromkeys(_floating(one) for one in formats))
    if not storages:
        raise ParameterError("formats is empty: give at least one")
    return storages


def _floating(format: MPSImageFeatureChannelFormat) -> StorageFormat:
    storage = storage_format(format, "formats")
    if storage.unorm_max:
        raise ParameterError(f"formats has {storage.name}: give float32 or float16, in which kernels compute")
    return storage


@dataclass(frozen=True, eq=False)
class _Tried:
    """One call: what was given, what came back, and which elements are beyond the bounds."""

    descriptor: MPSNNNeuronDescriptor
    x: Stored
    upstream: Stored | None
    got: Stored
    want: Stored
    beyond: Index
    kinds: list[str]

    def of(self, kind: str) -> Index:
        """The flat indices of the elements that fail in this way."""
        return self.beyond[[one == kind for one in self.kinds]]


@dataclass(frozen=True, eq=False)
class _Subject:
    """What is attacked, in one format."""

    function: Implementation
    neuron: Neurons
    direction: str
    limit: Limit
    storage: StorageFormat

    @property
    def varies(self) -> bool:
        """Whether the function is told the neuron."""
        return not isinstance(self.neuron, MPSNNNeuronDescriptor)

    def drawn_from(self) -> st.SearchStrategy[MPSNNNeuronDescriptor]:
        """A strategy for the neuron."""
        if isinstance(self.neuron, st.SearchStrategy):
            return self.neuron
        if isinstance(self.neuron, MPSCNNNeuronType):
            return descriptors([self.neuron])
        return st.just(descriptor_or_error(self.neuron, "neuron"))

    def tried(self, descriptor: MPSNNNeuronDescriptor, x: Stored, upstream: Stored | None) -> _Tried:
        """Call the function with rows of channels."""
        shape = x.shape if x.shape[1] > 1 else (len(x),)
        # Copies, since it may write to what it gets.
        arrays = [None if one is None else one.reshape(shape).copy() for one in (x, upstream)]
        function = self.function
        if self.varies:
            function = _with_descriptor(load(self.function), descriptor)
        assert arrays[0] is not None
        got = call(function, arrays[0], arrays[1]).reshape(x.shape)
        want = forward(descriptor, x) if upstream is None else gradient(descriptor, x, upstream)
        judge = self.limit
        if not isinstance(judge, Tolerance):
            judge = _judge(judge, Elements(got, self.storage), descriptor, x, upstream)  # type: ignore[assignment]
        beyond = counts_of(got, want, self.storage, judge).beyond  # type: ignore[arg-type]
        return _Tried(descriptor, x, upstream, got, want, beyond, _kinds(got.ravel()[beyond], want.ravel()[beyond]))


def _with_descriptor(function: Callable[..., Any], descriptor: MPSNNNeuronDescriptor) -> Callable[..., Any]:
    @functools.wraps(function)
    def told(*arrays: Stored) -> Any:
        return function(*arrays, descriptor)

    return told


def _kinds(got: Stored, want: Stored) -> list[str]:
    tiny = np.abs(want) < np.finfo(want.dtype).smallest_normal
    cases = {
        "NaN": np.isnan(got),
        "NaN lost": np.isnan(want),
        "infinity lost": np.isinf(want),
        "infinity": np.isinf(got),
        "flushed": (got == 0) & tiny,
        "vanished": got == 0,
    }
    return [str(kind) for kind in np.select(list(cases.values()), list(cases), "far")]


@dataclass
class _Found:
    """Failures of one kind."""

    first: _Tried
    count: int = 0
    values: dict[bytes, tuple[Any, Any]] = field(default_factory=dict)
    neurons: dict[MPSNNNeuronDescriptor, _Tried] = field(default_factory=dict)


class _Attack:
    """Arrays for one format, and what fails of them."""

    def __init__(self, subject: _Subject) -> None:
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

    def _keep(self, tried: _Tried) -> None:
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
            why=_why(tried, index, evidence, kind, storage) if is_same else CHANGES,
            comparison=comparison.text(),
        )

    # ---- simpler and simpler ----

    def _simplest(self, kind: str, found: _Found) -> tuple[_Tried, int, _Tried]:
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

    def _together(self, descriptor: MPSNNNeuronDescriptor, x: Any, upstream: Any, rows: int = 1) -> _Tried:
        """Call with these values, or one of them repeated, in every feature channel."""
        values = x if isinstance(x, np.ndarray) else np.full(rows, x)
        column = _column(values, descriptor)
        if upstream is None:
            return self.subject.tried(descriptor, column, None)
        incoming = upstream if isinstance(upstream, np.ndarray) else np.full(len(values), upstream)
        return self.subject.tried(descriptor, column, _column(incoming, descriptor))

    def _simpler_upstream(self, kind: str, alone: _Tried) -> _Tried:
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

    def _shortest(self, kind: str, first: _Tried, simple: Sequence[Any]) -> tuple[_Tried, int, _Tried]:
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

    def _plainer(self, kind: str, best: _Tried) -> _Tried:
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


def _why(tried: _Tried, index: int, evidence: _Tried, kind: str, storage: StorageFormat) -> str:
    """What a model says of the element, or else a hypothesis of all elements that fail like it."""
    given = None if tried.upstream is None else Elements(tried.upstream, storage)
    got, x = Elements(tried.got, storage), Elements(tried.x, storage)
    for model in EXPLAINING[storage.name]:
        judge = neuron_judge(tried.descriptor, MODELS[model], got, x, given)
        (found,) = judge(np.array([index], np.intp)).tolist()
        if found == WITHIN:
            return f"within what {model} arithmetic allows the formula"
        if found != BEYOND and Reason(found) is not Reason.NAN_UNDEFINED:
            return f"{Reason(found).text}, as {model} arithmetic may"
    of_all = explain(_case(evidence, kind, storage), MENTIONED)
    # Of a fault that a single element shows, no arrangement of elements is to blame.
    alone = explain(_case(tried, kind, storage), MENTIONED) if tried.x.size == 1 else of_all
    names = {finding.name for finding in alone if finding.fits}
    for finding in of_all:
        if finding.fits and finding.name in names and not finding.where and finding.explained == finding.of:
            return f"{', '.join(filter(None, (finding.name, finding.detail)))}: {finding.sentence}"
    return ""


def _case(tried: _Tried, kind: str, storage: StorageFormat) -> Case:
    """A call as an image of one row, in which what fails in this way is bad."""
    bad = np.zeros(tried.x.size, np.bool_)
    bad[tried.of(kind)] = True
    shape = (1, 1, *tried.x.shape)
    return Case(
        NeuronForward(tried.descriptor) if tried.upstream is None else NeuronGradient(tried.descriptor),
        tuple(Elements(one.reshape(shape), storage) for one in (tried.upstream, tried.x) if one is not None),
        storage,
        tried.got.reshape(shape),
        tried.want.reshape(shape),
        bad.reshape(shape),
        within(storage, Tolerance()),
    )
