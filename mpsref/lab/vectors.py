"""
Test vectors: the reference for programs without Python.

Each vector has an input, the correctly rounded result, and the interval that a model of a device's arithmetic allows.
The interval is found by asking the judge of `mpsref.verify`, so both agree bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from mpsref.arrays import Elements, Index, Mask, Stored
from mpsref.enums import MPSImageFeatureChannelFormat
from mpsref.errors import ParameterError
from mpsref.formats import IMAGES, format_among
from mpsref.image import MPSImageDescriptor
from mpsref.neuron import MPSNNNeuronDescriptor
from mpsref.neuron.stepwise import evaluation
from mpsref.operations import NeuronForward, NeuronGradient
from mpsref.operations.base import spread_by_channel
from mpsref.record.samples import sample_image
from mpsref.storage import FormatLike, StorageFormat
from mpsref.verify.bounds import allowed
from mpsref.verify.judge import neuron_judge
from mpsref.verify.models import MODELS, Model
from mpsref.verify.reasons import ASSUMED, BEYOND, WITHIN, Reason

__all__ = ["MOST", "Vectors", "vectors"]

MOST = 1 << 20
"""Vectors in a file."""

Bits: TypeAlias = npt.NDArray[Any]
Ordinals: TypeAlias = npt.NDArray[np.int64]
Classes: TypeAlias = npt.NDArray[np.uint16]
Interval: TypeAlias = tuple[Ordinals, Ordinals]
"""The least and the greatest result; the least above the greatest where there is none."""


@dataclass(frozen=True, eq=False)
class Vectors:
    """
    Inputs, results and what is allowed, all as bit patterns.

    Attributes
    ----------
    descriptor : MPSNNNeuronDescriptor
        The neuron.
    direction : str
        ``forward``, or ``gradient`` for an incoming gradient of 1.
    model : str
        The model of the device's arithmetic.
    storage : StorageFormat
        The format of inputs and results.
    input, ideal : ndarray of unsigned int
        Inputs, and the correctly rounded results.
    low, high : ndarray of unsigned int
        The ends of the interval, in the order of numbers; `low` above `high` where no number passes.
    also_low, also_high : ndarray of unsigned int
        The ends of another interval, mostly empty: at infinite inputs and at poles more than one number may pass.
    nan, infinity : ndarray of bool
        Whether NaN passes, and an infinity that is an end of an interval.
    reason : ndarray of int
        Which of `reasons` says why more than rounding is allowed.
    reasons : tuple of str
        Texts, the first one empty.
    """

    descriptor: MPSNNNeuronDescriptor
    direction: str
    model: str
    storage: StorageFormat
    input: Bits
    ideal: Bits
    low: Bits
    high: Bits
    also_low: Bits
    also_high: Bits
    nan: Mask
    infinity: Mask
    reason: Index
    reasons: tuple[str, ...]

    def __len__(self) -> int:
        return self.input.size

    @property
    def name(self) -> str:
        """Neuron, direction and format."""
        return f"{self.descriptor.neuron_type.name}_{self.direction}_{self.storage.name}"

    def entries(self) -> Iterator[dict[str, Any]]:
        """Each vector for JSON: bit patterns in hexadecimal, None for the ends of no interval, reasons as text."""
        digits = 2 * self.storage.dtype.itemsize
        columns = (self.input, self.ideal, self.low, self.high, self.also_low, self.also_high)
        shown = [[f"0x{value:0{digits}x}" for value in bits.tolist()] for bits in columns]
        some, more = ((low <= high).tolist() for low, high in self._intervals())
        flags = self.nan.tolist(), self.infinity.tolist(), self.reason.tolist(), some, more
        for x, ideal, low, high, also_low, also_high, nan, infinity, reason, has, has_more in zip(
            *shown, *flags, strict=True
        ):
            yield {
                "input": x,
                "ideal": ideal,
                "low": low if has else None,
                "high": high if has else None,
                **({"also": [also_low, also_high]} if has_more else {}),
                "nan": nan,
                "infinity": infinity,
                "reason": self.reasons[reason],
            }

    def _intervals(self) -> list[tuple[Ordinals, Ordinals]]:
        ends = [
            self.storage.ordinals(bits.view(self.storage.dtype))
            for bits in (self.low, self.high, self.also_low, self.also_high)
        ]
        return [(ends[0], ends[1]), (ends[2], ends[3])]

    def passes(self, got: Stored) -> Mask:
        """Whether each of a device's results, one for each input, is allowed."""
        place = self.storage.ordinals(got)
        inside: Mask = np.logical_or.reduce([(low <= place) & (place <= high) for low, high in self._intervals()])
        return np.where(_is_nan(got, self.storage), self.nan, inside)


def vectors(
    descriptor: MPSNNNeuronDescriptor,
    format: FormatLike = MPSImageFeatureChannelFormat.float16,
    *,
    direction: str = "forward",
    model: str = "metal-fast",
    count: int | None = 4096,
    seed: int = 1,
) -> Vectors:
    """
    Test vectors of a neuron.

    Parameters
    ----------
    descriptor : MPSNNNeuronDescriptor
        The neuron; pReLU with one slope.
    format : MPSImageFeatureChannelFormat, str or dtype
        The format of inputs and results.
    direction : str
        ``forward``, or ``gradient`` for an incoming gradient of 1.
    model : str
        One of `mpsref.verify.MODELS`.
    count : int or None
        How many inputs, chosen as `mpsref.record.sample_image` does; None for every bit pattern of a format of at most
        16 bits.
    seed : int
        Selects other inputs.

    Raises
    ------
    ParameterError
        The model does not exist, or there would be more than 2^20 vectors.

    Examples
    --------
    >>> import mpsref as mps
    >>> some = vectors(mps.MPSNNNeuronDescriptor(mps.MPSCNNNeuronType.softSign), "float16", count=None)
    >>> list(some.entries())[0x3C00]["ideal"]
    '0x3800'
    """
    storage = format_among(format, among=IMAGES)
    if model not in MODELS:
        raise ParameterError(f"bounds {model}: choose one of {', '.join(MODELS)}")
    x = Elements(_inputs(descriptor, storage, count, seed), storage)
    incoming = None if direction == "forward" else Elements(_stored([1.0] * x.stored.size, storage), storage)
    operation = NeuronForward(descriptor) if incoming is None else NeuronGradient(descriptor)
    sources = [x] if incoming is None else [incoming, x]
    spread = spread_by_channel(np.zeros(x.stored.size, np.intp), 1)
    ideal = operation.evaluate(sources, storage, evaluation("ideal"), spread)
    oracle = _Oracle(descriptor, MODELS[model], x, incoming, ideal)
    index = np.arange(oracle.size)
    first, classes = _interval(oracle, ideal)
    probes = _probes(descriptor, model, x, incoming)
    # Where the exact result is NaN, numbers pass only for a reason.
    has_none = _is_nan(ideal, storage)
    other, other_classes = _another(oracle, first, probes, has_none)
    first = np.where(has_none, other[0], first[0]), np.where(has_none, other[1], first[1])
    second, more_classes = _another(oracle, first, probes, np.ones(oracle.size, np.bool_))
    nan, of_nan = oracle.passes(index, _filled(np.nan, oracle)) if not storage.unorm_max else _nothing(oracle)
    ends = [_of_ordinals(end, storage) for end in (*first, *second)]
    infinity = np.logical_or.reduce([np.isinf(end.astype(np.float64)) for end in ends])
    reason, reasons = _reasons([*classes, *other_classes, *more_classes, of_nan])
    bits = [array.view(storage.bits_dtype) for array in (x.stored, ideal, *ends)]
    return Vectors(
        descriptor, direction, model, storage, bits[0], bits[1], bits[2], bits[3], bits[4], bits[5],
        nan, infinity, reason, reasons,
    )  # fmt: skip


def _inputs(descriptor: MPSNNNeuronDescriptor, storage: StorageFormat, count: int | None, seed: int) -> Stored:
    if count is None:
        if storage.dtype.itemsize > 2:
            raise ParameterError(f"all inputs of {storage.name} are 2^32: give a count")
        return storage.patterns()
    if not 1 <= count <= MOST:
        raise ParameterError(f"count is {count}: give 1 to {MOST}")
    d = MPSImageDescriptor(channel_format=storage.channel_format, width=count, height=1, feature_channels=1)
    return sample_image(d, [descriptor], (seed,)).to_array().reshape(-1)


def _stored(values: Sequence[float], storage: StorageFormat) -> Stored:
    return storage.encode(np.array(values), np.empty(len(values), storage.dtype))


class _Oracle:
    """What `mpsref.verify` says of results: the only place where test vectors and bounds meet."""

    def __init__(
        self, descriptor: MPSNNNeuronDescriptor, model: Model, x: Elements, incoming: Elements | None, ideal: Stored
    ) -> None:
        self._descriptor, self._model, self._x, self._incoming = descriptor, model, x, incoming
        self.ideal, self.storage, self.size = ideal, x.storage, ideal.size

    def classes(self, index: Index, got: Stored) -> Classes:
        """The classes of results for the inputs at some indices, see `mpsref.verify.bounds.classify`."""
        x, incoming = self._x.at(index), None if self._incoming is None else self._incoming.at(index)
        judge = neuron_judge(
            self._descriptor,
            self._model,
            Elements(got[:, np.newaxis], self.storage),
            Elements(x.stored[:, np.newaxis], x.storage),
            None if incoming is None else Elements(incoming.stored[:, np.newaxis], incoming.storage),
        )
        classes = judge(np.arange(index.size)) if index.size else np.zeros(0, np.uint16)
        same = (self.storage.ordinals(got) == self.storage.ordinals(self.ideal[index])) & ~_is_nan(got, self.storage)
        same |= _is_nan(got, self.storage) & _is_nan(self.ideal[index], self.storage)
        return np.where(same, np.uint16(WITHIN), classes)

    def passes(self, index: Index, got: Stored) -> tuple[Mask, Classes]:
        """Whether results pass for the inputs at some indices, and the classes of those that do."""
        classes = self.classes(index, got)
        passes = _passes(classes)
        return passes, np.where(passes, classes, np.uint16(WITHIN))


def _filled(value: float, oracle: _Oracle) -> Stored:
    return np.full(oracle.size, value, oracle.storage.dtype)


def _nothing(oracle: _Oracle) -> tuple[Mask, Classes]:
    return np.zeros(oracle.size, np.bool_), np.zeros(oracle.size, np.uint16)


def _probes(descriptor: MPSNNNeuronDescriptor, model: str, x: Elements, incoming: Elements | None) -> list[Stored]:
    """Results that may pass apart from those near the ideal one: zeros, infinities, and the ends of all ranges."""
    storage = x.storage
    if storage.unorm_max:
        return [_stored([value] * x.stored.size, storage) for value in (0.0, 1.0)]
    upstream = None if incoming is None else incoming.stored[:, np.newaxis]
    bounds = allowed(descriptor, x.stored[:, np.newaxis], model, upstream=upstream)
    with np.errstate(all="ignore"):
        numbers = [np.full(x.stored.size, value, storage.dtype) for value in (np.inf, -np.inf, descriptor.b, 1, 0)]
    return [bounds.lower.reshape(-1), bounds.upper.reshape(-1), *numbers]


def _passes(classes: Classes) -> Mask:
    """Whether elements of these classes pass: within, or excused; not what an intermediate's overflow leaves."""
    passes: Mask = (classes != BEYOND) & (classes & ~np.uint16(ASSUMED) != Reason.overflow)
    return passes


def _reasons(classes: Sequence[Classes]) -> tuple[Index, tuple[str, ...]]:
    """For each input the texts of all its classes, as an index into a list."""
    marks = [np.left_shift(1, (one & ~np.uint16(ASSUMED)).astype(np.int64)) & ~1 for one in classes]
    distinct, index = np.unique(np.append(np.bitwise_or.reduce(marks), 0), return_inverse=True)
    texts = ["; ".join(one.text for one in Reason if mark & 1 << one) for mark in distinct.tolist()]
    return index[:-1], tuple(texts)


def _interval(oracle: _Oracle, around: Stored, where: Mask | None = None) -> tuple[Interval, list[Classes]]:
    """The interval of results that pass around those that do, empty elsewhere and at NaN; the classes of its ends."""
    storage = oracle.storage
    chosen = ~_is_nan(around, storage) if where is None else where
    index, start = np.flatnonzero(chosen), storage.ordinals(around)[chosen]
    last = storage.unorm_max or int(storage.ordinals(np.array([np.inf], storage.dtype))[0])
    low, high = np.ones(oracle.size, np.int64), np.zeros(oracle.size, np.int64)
    classes = []
    for end, step, limit in ((low, -1, 0 if storage.unorm_max else -last), (high, 1, last)):
        end[index] = _farthest(oracle, index, start, step, limit)
        _, found = _nothing(oracle)
        found[index] = oracle.classes(index, _of_ordinals(end[index], storage))
        classes.append(found)
    return (low, high), classes


def _another(oracle: _Oracle, known: Interval, probes: Sequence[Stored], where: Mask) -> tuple[Interval, list[Classes]]:
    """The interval around the first of some results that passes outside the known interval, for some inputs."""
    around, found = probes[0].copy(), np.zeros(oracle.size, np.bool_)
    for probe in probes:
        place = oracle.storage.ordinals(probe)
        index = np.flatnonzero(
            where & ~found & ((place < known[0]) | (place > known[1])) & ~_is_nan(probe, oracle.storage)
        )
        passes, _ = oracle.passes(index, probe[index])
        around[index[passes]] = probe[index[passes]]
        found[index[passes]] = True
    return _interval(oracle, around, found)


def _farthest(oracle: _Oracle, index: Index, start: Ordinals, step: int, limit: int) -> Ordinals:
    """The last ordinal that passes in one direction from one that does: doubling, then halving."""
    good, width = start.copy(), np.ones(start.size, np.int64)
    bad = np.full(start.size, limit + step, np.int64)
    doubling = np.ones(start.size, np.bool_)
    while (active := np.flatnonzero((bad - good) * step > 1)).size:
        gap = (bad[active] - good[active]) * step
        ahead = np.where(doubling[active], np.minimum(width[active], gap - 1), gap // 2)
        probe = good[active] + step * ahead
        passes = _passes(oracle.classes(index[active], _of_ordinals(probe, oracle.storage)))
        good[active[passes]], bad[active[~passes]] = probe[passes], probe[~passes]
        doubling[active[~passes]] = False
        width[active] *= 2
    return good


def _of_ordinals(ordinals: Ordinals, storage: StorageFormat) -> Stored:
    if storage.unorm_max:
        return ordinals.astype(storage.dtype)
    sign = np.int64(1) << (8 * storage.dtype.itemsize - 1)
    bits = np.where(ordinals < 0, sign - ordinals, ordinals)
    return bits.astype(storage.bits_dtype).view(storage.dtype)


def _is_nan(stored: Stored, storage: StorageFormat) -> Mask:
    return np.zeros(stored.shape, np.bool_) if storage.unorm_max else np.isnan(stored)
