"""
What may have gone wrong: one small class for each fault, and the only list of them.

A hypothesis yields candidates: what the image would hold if the fault were there, as functions from flat indices to
stored elements, so that a few elements can be looked at before all are. Their order matters: see
`mpsref.verify.faults`.
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt

from mpsref.arrays import Elements, Index, Mask, Stored, Wide
from mpsref.enums import MPSCNNNeuronType, MPSImageFeatureChannelFormat
from mpsref.neuron.descriptor import MPSNNNeuronDescriptor
from mpsref.neuron.table import NEURONS
from mpsref.storage import FLOAT64, FORMATS, StorageFormat
from mpsref.verify.case import (
    Addition,
    Case,
    Constant,
    Forward,
    Gradient,
    Operation,
    Scaling,
)

__all__ = ["HYPOTHESES", "Candidate", "Hypothesis"]

T = MPSCNNNeuronType
HALF, SINGLE = FORMATS[MPSImageFeatureChannelFormat.float16], FORMATS[MPSImageFeatureChannelFormat.float32]
LANES = 4
PLACES = ("the first source", "the second source")

Map: TypeAlias = Callable[[tuple[int, int, int, int], Index], Index]
"""From the shape of an image and flat indices to where these elements were taken from; negative for a 0."""
Halves: TypeAlias = npt.NDArray[np.float16]


@dataclass(frozen=True)
class Candidate:
    """
    What the image would hold.

    Attributes
    ----------
    detail : str
        What of the hypothesis this is; empty if there is nothing to add.
    at : callable
        From flat indices, in ascending order, to stored elements.
    """

    detail: str
    at: Callable[[Index], Stored]


class Hypothesis(ABC):
    """
    One fault. A subclass states it; instances hold nothing.

    Attributes
    ----------
    name : str
        What it is called.
    sentence : str
        What it says, in one sentence.
    fewest : int
        How many elements it must explain: more than one, if it is made to fit those that it explains.
    """

    name: ClassVar[str]
    sentence: ClassVar[str]
    fewest: ClassVar[int] = 1

    @staticmethod
    @abstractmethod
    def candidates(case: Case) -> Iterator[Candidate]:
        """What the image would hold, each way in which the fault may have happened; nothing if it cannot have."""


def _where(case: Case, index: Index, chosen: Mask, other: Stored | float) -> Stored:
    """What was wanted, and something else at some of the elements."""
    return np.where(chosen, np.asarray(other, case.result.dtype), case.want.reshape(-1)[index])


def _is_nan(case: Case, index: Index) -> Mask:
    """Where something that the node read is NaN."""
    found: Mask = np.logical_or.reduce([np.isnan(source.at(index).values()) for source in case.sources])
    return found


def _gradient_with(case: Case, slope: Callable[[Wide, MPSNNNeuronDescriptor], Wide]) -> Iterator[Candidate]:
    """The gradient with another slope, in float64."""
    p = case.descriptor
    if isinstance(case.operation, Gradient) and p is not None:
        yield Candidate("", lambda index: case.stored(case.upstream(index) * slope(case.x(index), p)))


def _constant_like(index: Index, value: float, storage: StorageFormat = SINGLE) -> Elements:
    return Elements(np.full(index.shape, value, storage.dtype), storage)


# ---- special values ----


class NaNToZero(Hypothesis):
    name = "NaN turned to 0"
    sentence = "Where NaN belongs there is 0, as a texture or a fast min and max may leave it."

    @staticmethod
    def candidates(case: Case) -> Iterator[Candidate]:
        if not case.result.unorm_max:
            yield Candidate("", lambda i: _where(case, i, np.isnan(case.want.reshape(-1)[i]), 0))


class NaNCompared(Hypothesis):
    name = "NaN lost in a comparison"
    sentence = "A comparison with NaN is false, so the formula takes its other branch, or a clamp its bound."

    @staticmethod
    def candidates(case: Case) -> Iterator[Candidate]:
        if case.descriptor is not None:
            yield Candidate("", lambda i: _where(case, i, _is_nan(case, i), case.evaluate(i, mode="stepwise")))


class SlopeAtKink(Hypothesis):
    name = "another slope at the kink"
    sentence = "At the kink itself the slope is that of the other side, or 0."

    @staticmethod
    def candidates(case: Case) -> Iterator[Candidate]:
        p = case.descriptor
        if p is None or not isinstance(case.operation, Gradient) or not p.row.kinks(p):
            return
        slopes = {"slope 0": 0.0, "slope 1": 1.0, "slope -1": -1.0, "slope a": p.a}

        def at(index: Index, slope: float | None) -> Stored:
            x = case.x(index)
            there = np.isin(x.astype(np.float32), np.asarray(p.row.kinks(p), np.float32))
            factor = p.data[index % case.shape[3]] if slope is None and p.data is not None else slope
            return _where(case, index, there, case.stored(case.upstream(index) * np.asarray(factor, np.float64)))

        for detail, slope in slopes.items():
            yield Candidate(detail, partial(at, slope=slope))
        if p.data is not None:
            yield Candidate("slope data[channel]", partial(at, slope=None))


class Overflow(Hypothesis):
    name = "the literal formula overflows"
    sentence = "In float32 a power or exponential within the formula overflows, and leaves infinity or NaN."

    @staticmethod
    def candidates(case: Case) -> Iterator[Candidate]:
        if case.descriptor is None or case.result.unorm_max:
            return

        def at(index: Index) -> Stored:
            literal = case.evaluate(index, mode="stepwise")
            return _where(case, index, ~np.isfinite(literal) & ~_is_nan(case, index), literal)

        yield Candidate("", at)


class FastTanh(Hypothesis):
    name = "fast tanh"
    sentence = "tanh is computed as (t - 1) / (t + 1) with t = e^2x, which fails where t overflows."

    @staticmethod
    def candidates(case: Case) -> Iterator[Candidate]:
        p = case.descriptor
        if p is None or p.neuron_type not in (T.tanH, T.geLU):
            return

        def at(index: Index, flushed: bool) -> Stored:
            x = case.x(index).astype(np.float32)
            z = np.float32(p.b) * x if p.neuron_type is T.tanH else _gelu_argument(x).astype(np.float32)
            t = np.exp((z + z).astype(np.float64)).astype(np.float32)
            tanh = (t - np.float32(1)) / (t + np.float32(1))
            if flushed:
                tanh[(t > 2.0**126) & np.isfinite(t)] = 0
            if p.neuron_type is T.tanH:
                slope = np.float32(p.a) * np.float32(p.b) * (1 - tanh * tanh)
                y = np.float32(p.a) * tanh
            else:
                slope = _gelu_tanh_slope(x, tanh)
                y = np.float32(0.5) * x * (1 + tanh)
            if isinstance(case.operation, Gradient):
                y = slope * case.upstream(index).astype(np.float32)
            return case.stored(y.astype(np.float64))

        yield Candidate("", partial(at, flushed=False))
        yield Candidate("and its quotient is 0 where the denominator is above 2^126", partial(at, flushed=True))


class SubnormalsFlushed(Hypothesis):
    name = "subnormals flushed"
    sentence = "Subnormal numbers are taken for 0, where they are read or where they are stored."

    @staticmethod
    def candidates(case: Case) -> Iterator[Candidate]:
        if case.result.unorm_max:
            return

        def flushed(source: Elements, least: float) -> Elements:
            tiny = np.abs(source.stored) < source.storage.dtype.type(least)
            zero = np.copysign(source.storage.dtype.type(0), source.stored)
            return Elements(np.where(tiny, zero, source.stored), source.storage)

        def at(index: Index, reads: bool, stores: bool) -> Stored:
            sources = [source.at(index) for source in case.sources]
            if reads:
                sources = [s if s.storage.unorm_max else flushed(s, np.finfo(s.storage.dtype).tiny) for s in sources]
            stored = case.evaluate(index, sources=sources)
            if stores:
                stored = flushed(Elements(stored, case.result), np.finfo(case.result.dtype).tiny).stored
            return stored

        yield Candidate("in the result", partial(at, reads=False, stores=True))
        yield Candidate("in the sources", partial(at, reads=True, stores=False))
        yield Candidate("in the sources and the result", partial(at, reads=True, stores=True))


# ---- the function itself ----


class LiteralC(Hypothesis):
    name = "c = -1 taken literally"
    sentence = "c = -1 means base e, but is taken for the base -1."

    @staticmethod
    def candidates(case: Case) -> Iterator[Candidate]:
        p = case.descriptor
        if p is None or p.c != -1 or p.neuron_type not in (T.exponential, T.logarithm):
            return

        def at(index: Index) -> Stored:
            u = case.x(index) * p.a + p.b
            if p.neuron_type is T.logarithm or isinstance(case.operation, Gradient):
                return case.stored(np.full_like(u, np.nan))
            return case.stored(np.power(-1.0, u))

        yield Candidate("", at)


class HardSigmoidTestsX(Hypothesis):
    name = "hardSigmoid's gradient tests x"
    sentence = "The slope is a where 0 <= x <= 1, as older headers print it, instead of where 0 <= a x + b <= 1."

    @staticmethod
    def candidates(case: Case) -> Iterator[Candidate]:
        if case.descriptor is not None and case.descriptor.neuron_type is T.hardSigmoid:
            yield from _gradient_with(case, lambda x, p: np.where((x >= 0) & (x <= 1), p.a, 0.0))


class ReLUNSlopeB(Hypothesis):
    name = "reLUN's slope is b"
    sentence = "The slope is b where x >= b, as the header prints it, instead of 0."

    @staticmethod
    def candidates(case: Case) -> Iterator[Candidate]:
        if case.descriptor is not None and case.descriptor.neuron_type is T.reLUN:
            yield from _gradient_with(case, lambda x, p: np.where(x >= p.b, p.b, np.where(x >= 0, 1.0, p.a)))


class GeLUDoubled(Hypothesis):
    name = "geLU's second gradient term doubled"
    sentence = "The term x e^(-x^2 / 2) / sqrt(2 pi) of the slope counts twice, as the header prints it."

    @staticmethod
    def candidates(case: Case) -> Iterator[Candidate]:
        if case.descriptor is not None and case.descriptor.neuron_type is T.geLU:
            yield from _gradient_with(
                case,
                lambda x, _: 0.5 * (1 + _erf(x * math.sqrt(0.5))) + math.sqrt(2 / math.pi) * x * np.exp(-x * x / 2),
            )


class ELUWithoutParentheses(Hypothesis):
    name = "ELU without parentheses"
    sentence = "Below 0 the value is a e^x - 1, as a header prints it, instead of a (e^x - 1)."

    @staticmethod
    def candidates(case: Case) -> Iterator[Candidate]:
        p = case.descriptor
        if p is not None and p.neuron_type is T.ELU and isinstance(case.operation, Forward):
            yield Candidate("", lambda i: _where(case, i, case.x(i) < 0, case.stored(p.a * np.exp(case.x(i)) - 1)))


class GeLUTanhForm(Hypothesis):
    name = "an approximation of geLU"
    sentence = "geLU is computed by an approximation with tanh or sigmoid instead of the error function."

    @staticmethod
    def candidates(case: Case) -> Iterator[Candidate]:
        if case.descriptor is None or case.descriptor.neuron_type is not T.geLU:
            return

        def with_tanh(index: Index) -> Stored:
            x = case.x(index)
            t = np.tanh(_gelu_argument(x))
            if isinstance(case.operation, Forward):
                return case.stored(0.5 * x * (1 + t))
            return case.stored(case.upstream(index) * _gelu_tanh_slope(x, t))

        def with_sigmoid(index: Index) -> Stored:
            x = case.x(index)
            s = 1 / (1 + np.exp(-1.702 * x))
            if isinstance(case.operation, Forward):
                return case.stored(x * s)
            return case.stored(case.upstream(index) * (s + 1.702 * x * s * (1 - s)))

        yield Candidate("x/2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))", with_tanh)
        yield Candidate("x sigmoid(1.702 x)", with_sigmoid)


class UpstreamMissing(Hypothesis):
    name = "the incoming gradient is missing"
    sentence = "The result is the slope alone, not multiplied by the incoming gradient."

    @staticmethod
    def candidates(case: Case) -> Iterator[Candidate]:
        if isinstance(case.operation, Gradient | Scaling):
            yield Candidate(
                "", lambda i: case.evaluate(i, sources=[_constant_like(i, 1.0), *(s.at(i) for s in case.sources[1:])])
            )


class UpstreamTwice(Hypothesis):
    name = "the incoming gradient applied twice"
    sentence = "The slope is multiplied by the square of the incoming gradient."

    @staticmethod
    def candidates(case: Case) -> Iterator[Candidate]:
        def at(index: Index) -> Stored:
            squared = Elements(case.upstream(index) ** 2, FLOAT64)
            return case.evaluate(index, sources=[squared, *(s.at(index) for s in case.sources[1:])])

        if isinstance(case.operation, Gradient | Scaling):
            yield Candidate("", at)


class NotApplied(Hypothesis):
    name = "the node was left out"
    sentence = "What the node reads is passed on as it is."

    @staticmethod
    def candidates(case: Case) -> Iterator[Candidate]:
        if isinstance(case.operation, Scaling | Constant):
            return
        for source, place in zip(case.sources, PLACES, strict=False):
            yield Candidate(f"from {place}" if len(case.sources) > 1 else "", partial(_stored_anew, case, source))


def _stored_anew(case: Case, source: Elements, index: Index) -> Stored:
    return case.stored(source.at(index).values())


class WrongDirection(Hypothesis):
    name = "forward instead of gradient"
    sentence = "The image holds the neuron's values, not the gradient."

    @staticmethod
    def candidates(case: Case) -> Iterator[Candidate]:
        if isinstance(case.operation, Gradient):
            forward = Forward(case.operation.descriptor)
            yield Candidate("", lambda i: case.evaluate(i, forward))
            yield Candidate(
                "multiplied by the incoming gradient",
                lambda i: case.stored(case.evaluate(i, forward, result=FLOAT64) * case.upstream(i)),
            )


class DerivativeAtOutput(Hypothesis):
    name = "the derivative taken at the output"
    sentence = "The slope is that at the neuron's result instead of that at its source."

    @staticmethod
    def candidates(case: Case) -> Iterator[Candidate]:
        if not isinstance(case.operation, Gradient):
            return
        descriptor, stored_as = case.operation.descriptor, case.sources[-1].storage

        def at(index: Index) -> Stored:
            y = case.evaluate(index, Forward(descriptor), result=stored_as)
            return case.evaluate(index, sources=[case.sources[0].at(index), Elements(y, stored_as)])

        yield Candidate("", at)


class SlopeFromResult(Hypothesis):
    name = "the slope from the stored result"
    sentence = (
        "The slope is computed from the neuron's result, which was rounded to a narrow format when it was stored."
    )

    @staticmethod
    def candidates(case: Case) -> Iterator[Candidate]:
        p, stored_as = case.descriptor, case.sources[-1].storage
        # In float32 the formula itself is no better.
        if p is None or not isinstance(case.operation, Gradient) or stored_as is SINGLE:
            return
        slopes: dict[MPSCNNNeuronType, Callable[[Wide, Wide], Wide]] = {
            T.sigmoid: lambda _, y: y * (1 - y),
            T.tanH: lambda _, y: p.b * (p.a - y * y / p.a) if p.a else y * 0,
            T.ELU: lambda x, y: np.where(x >= 0, 1, y + p.a),
        }
        slope = slopes.get(p.neuron_type)
        if slope is None:
            return

        def at(index: Index) -> Stored:
            y = Elements(case.evaluate(index, Forward(p), result=stored_as), stored_as).values()
            return case.stored(case.upstream(index) * slope(case.x(index), y))

        yield Candidate("", at)


class AppliedTwice(Hypothesis):
    name = "applied twice"
    sentence = "The node was run again on its own result."

    @staticmethod
    def candidates(case: Case) -> Iterator[Candidate]:
        def at(index: Index) -> Stored:
            read = [source.at(index) for source in case.sources]
            once = Elements(case.want.reshape(-1)[index], case.result)
            return case.evaluate(index, sources=[once, *read[1:]])

        yield Candidate("", at)


class Accumulated(Hypothesis):
    name = "accumulated twice"
    sentence = "The result was added to what was there already: to itself, or to what the node reads."

    @staticmethod
    def candidates(case: Case) -> Iterator[Candidate]:
        want = Elements(case.want, case.result)

        def at(index: Index, other: Elements) -> Stored:
            return case.stored(want.at(index).values() + other.at(index).values())

        yield Candidate("", partial(at, other=want))
        for source, place in zip(case.sources, PLACES, strict=False):
            yield Candidate(f"on top of {place}", partial(at, other=source))


class SignFlipped(Hypothesis):
    name = "the sign flipped"
    sentence = "Every element has the wrong sign."

    @staticmethod
    def candidates(case: Case) -> Iterator[Candidate]:
        if not case.result.unorm_max:
            yield Candidate("", lambda i: -case.want.reshape(-1)[i])


# ---- memory ----


class NeverWritten(Hypothesis):
    name = "never written"
    sentence = "The memory holds what it held before: zeros, another constant, or a pattern that repeats."
    fewest = 8

    @staticmethod
    def candidates(case: Case) -> Iterator[Candidate]:
        def at(index: Index, pattern: Stored) -> Stored:
            repeated: Stored = pattern[index % pattern.size]
            return repeated

        index, dtype = case.few_bad, case.result.dtype
        bits = case.got.reshape(-1)[index].view(case.result.bits_dtype)
        for period in (1, 2, 4):
            pattern = np.zeros(period, bits.dtype)
            for k in range(period):
                values, counts = np.unique(bits[index % period == k], return_counts=True)
                if values.size:
                    pattern[k] = values[np.argmax(counts)]
            if period > 1 and np.unique(pattern).size == 1:
                continue
            text = " ".join(f"{int(value):0{2 * dtype.itemsize}x}" for value in pattern)
            detail = "zeros" if not pattern.any() else f"0x{text}, that is {pattern.view(dtype)}"
            yield Candidate(detail, partial(at, pattern=pattern.view(dtype)))


# ---- parameters ----


def _other_parameters(case: Case, names: str, values: Sequence[float]) -> Iterator[Operation]:
    """The neuron with other values of some parameters, if that makes a difference."""
    p = case.descriptor
    if p is None:
        return
    given = p.parameters | dict(zip(names, values, strict=True))
    if given != p.parameters and all(math.isfinite(value) for value in given.values()):
        yield case.with_descriptor(MPSNNNeuronDescriptor(p.neuron_type, **given))


def _with_operation(case: Case, operation: Operation, detail: str) -> Candidate:
    return Candidate(detail, lambda index: _evaluate(case, index, operation))


def _evaluate(
    case: Case, index: Index, operation: Operation | None = None, sources: Sequence[Elements] | None = None
) -> Stored:
    """`Case.evaluate`, but rounded twice: to decide the last element of a million would take most of the time."""
    if case.descriptor is None:
        return case.evaluate(index, operation, sources)
    return case.stored(case.evaluate(index, operation, sources, result=FLOAT64))


def _with_data(case: Case, data: npt.NDArray[np.float32], detail: str) -> Candidate:
    return _with_operation(case, case.with_descriptor(MPSNNNeuronDescriptor(T.pReLU, data=data)), detail)


class ParametersSwapped(Hypothesis):
    name = "parameters swapped"
    sentence = "Parameters stand in each other's place."

    @staticmethod
    def candidates(case: Case) -> Iterator[Candidate]:
        p = case.descriptor
        if p is not None:
            names = "".join(p.parameters)
            for order in itertools.permutations(names):
                for operation in _other_parameters(case, names, [p.parameters[name] for name in order]):
                    yield _with_operation(case, operation, f"{', '.join(order)} for {', '.join(names)}")
        elif isinstance(case.operation, Addition):
            other = replace(case.operation, scales=case.operation.scales[::-1])
            yield _with_operation(case, other, "secondary_scale for primary_scale")


class ParameterMissing(Hypothesis):
    name = "a parameter left out"
    sentence = "A parameter has no effect: it is 0, or a scale is 1, or a clamp is not there."

    @staticmethod
    def candidates(case: Case) -> Iterator[Candidate]:
        p, operation = case.descriptor, case.operation
        if p is not None:
            for name in p.parameters:
                for other in _other_parameters(case, name, [0.0]):
                    yield _with_operation(case, other, f"{name} = 0")
            if p.data is not None:
                yield _with_data(case, np.zeros_like(p.data), "every slope is 0")
        elif isinstance(operation, Addition):
            first, second = operation.scales
            for detail, changed in {
                "primary_scale = 1": replace(operation, scales=(1.0, second)),
                "secondary_scale = 1": replace(operation, scales=(first, 1.0)),
                "both scales = 1": replace(operation, scales=(1.0, 1.0)),
                "primary_scale = 0": replace(operation, scales=(0.0, second)),
                "secondary_scale = 0": replace(operation, scales=(first, 0.0)),
                "bias = 0": replace(operation, bias=0.0),
                "no clamp": replace(operation, bounds=(-np.inf, np.inf)),
            }.items():
                if changed != operation:
                    yield _with_operation(case, changed, detail)
        elif isinstance(operation, Scaling) and operation.factor != 1:
            yield _with_operation(case, Scaling(), "scale = 1")


class ParameterDefault(Hypothesis):
    name = "a parameter at its default"
    sentence = "A parameter that was set has its default all the same."

    @staticmethod
    def candidates(case: Case) -> Iterator[Candidate]:
        if case.descriptor is None:
            return
        defaults = case.descriptor.row.parameters
        for count in range(1, len(defaults) + 1):
            for names in itertools.combinations(defaults, count):
                for operation in _other_parameters(case, "".join(names), [defaults[name] for name in names]):
                    yield _with_operation(
                        case, operation, ", ".join(f"{name} = {np.float32(defaults[name])!s}" for name in names)
                    )


class ParameterInHalf(Hypothesis):
    name = "parameters rounded to half"
    sentence = "Parameters, or the slopes of channels, were rounded to half precision."

    @staticmethod
    def candidates(case: Case) -> Iterator[Candidate]:
        p = case.descriptor
        if p is None:
            return
        with np.errstate(over="ignore"):
            for count in range(1, len(p.parameters) + 1):
                for names in itertools.combinations(p.parameters, count):
                    values = [float(np.float16(p.parameters[name])) for name in names]
                    for operation in _other_parameters(case, "".join(names), values):
                        yield _with_operation(case, operation, ", ".join(names))
            if p.data is not None and (p.data != p.data.astype(np.float16)).any():
                half = p.data.astype(np.float16)
                if np.isfinite(half).all():
                    yield _with_data(case, half.astype(np.float32), "data")


class SlopeOfAnotherChannel(Hypothesis):
    name = "the slope of another channel"
    sentence = "pReLU's slopes are read in another order, or one serves several channels."

    @staticmethod
    def candidates(case: Case) -> Iterator[Candidate]:
        data = None if case.descriptor is None else case.descriptor.data
        if data is None:
            return
        channel = np.arange(data.size)
        orders = {
            "channel 0's for all": channel * 0,
            "in reverse order": channel[::-1],
            "those of the first slice for all": channel % LANES,
            "that of the first lane for all of a slice": channel // LANES * LANES,
            "those of the slices, one after the other": channel // LANES,
        }
        for k in range(1, min(data.size, 65)):
            orders[f"{k} channels after"] = (channel + k) % data.size
            orders[f"{k} channels before"] = (channel - k) % data.size
        for lanes in itertools.permutations(range(LANES)):
            order = channel // LANES * LANES + np.array(lanes)[channel % LANES]
            orders[f"lanes in the order {lanes}"] = np.where(order < data.size, order, channel)
        for i, j in itertools.combinations(range(min(data.size, 64)), 2):
            if i // LANES == j // LANES:
                orders[f"channels {i} and {j} exchanged"] = np.where(
                    channel == i, j, np.where(channel == j, i, channel)
                )
        for detail, order in orders.items():
            yield _with_data(case, data[order], detail)


# ---- precision ----


class StoredThroughHalf(Hypothesis):
    name = "stored through half"
    sentence = "The result was rounded to half precision on its way to a wider format."

    @staticmethod
    def candidates(case: Case) -> Iterator[Candidate]:
        if case.result is SINGLE or case.result.unorm_max:
            yield Candidate("", lambda i: case.stored(case.evaluate(i, result=HALF).astype(np.float64)))


class ReadThroughHalf(Hypothesis):
    name = "read through half"
    sentence = "A source was rounded to half precision before it was used."

    @staticmethod
    def candidates(case: Case) -> Iterator[Candidate]:
        def at(index: Index, chosen: Sequence[int]) -> Stored:
            read = [source.at(index) for source in case.sources]
            for k in chosen:
                half = HALF.encode(read[k].values(), np.empty(index.shape, np.float16))
                read[k] = Elements(half, HALF)
            return case.evaluate(index, sources=read)

        wide = [k for k, source in enumerate(case.sources) if source.storage is not HALF]
        for k in wide:
            yield Candidate(PLACES[k] if len(case.sources) > 1 else "", partial(at, chosen=[k]))
        if len(wide) > 1:
            yield Candidate("both sources", partial(at, chosen=wide))


class Truncated(Hypothesis):
    name = "truncated instead of rounded"
    sentence = "The result is rounded towards 0, not to the nearest."

    @staticmethod
    def candidates(case: Case) -> Iterator[Candidate]:
        def at(index: Index) -> Stored:
            want = case.want.reshape(-1)[index]
            exact, near = case.evaluate(index, result=FLOAT64), Elements(want, case.result).values()
            # What float64 cannot tell from the stored value is that value.
            above = np.abs(near) > np.abs(exact) * (1 + 2.0**-44)
            if case.result.unorm_max:
                return np.where(above, want - above.astype(want.dtype), want)
            return np.where(above, np.nextafter(want, want.dtype.type(0)), want)

        if not isinstance(case.operation, Addition | Scaling):
            yield Candidate("", at)


# ---- layout ----


def _moved(case: Case, moves: Mapping[str, Map]) -> Iterator[Candidate]:
    """The result laid out otherwise; and one source only, where that makes another difference."""
    several = len(case.sources) > 1 or (case.descriptor is not None and case.descriptor.data is not None)
    want = Elements(case.want, case.result)

    def result(index: Index, move: Map) -> Stored:
        return want.at(move(case.shape, index)).stored

    def source(index: Index, move: Map, k: int) -> Stored:
        read = [s.at(index) for s in case.sources]
        read[k] = case.sources[k].at(move(case.shape, index))
        return _evaluate(case, index, sources=read)

    for detail, move in moves.items():
        if np.count_nonzero(move(case.shape, case.few_bad) < 0) > case.few_bad.size / 2:
            # Zeros, then, and no move.
            continue
        yield Candidate(detail, partial(result, move=move))
        if several:
            for k in range(len(case.sources)):
                where = f"in {PLACES[k]}" if len(case.sources) > 1 else "in the source"
                yield Candidate(", ".join(filter(None, (detail, where))), partial(source, move=move, k=k))


def _split(index: Index, *extents: int) -> list[Index]:
    """Coordinates of flat indices; the first has no limit."""
    coordinates: list[Index] = []
    for extent in reversed(extents):
        index, rest = np.divmod(index, extent)
        coordinates.append(rest)
    return [index, *reversed(coordinates)]


def _local(move: Callable[[tuple[int, int, int], Index], Index]) -> Map:
    """A move of elements within each image, by their flat indices there; what leads out of it is 0."""

    def moved(shape: tuple[int, int, int, int], index: Index) -> Index:
        size = math.prod(shape[1:])
        image, inner = np.divmod(index, size)
        inner = move(shape[1:], inner)
        return np.where((inner < 0) | (inner >= size), -1, image * size + inner)

    return moved


class LanesPermuted(Hypothesis):
    name = "lanes permuted"
    sentence = "The four feature channels of each slice are in another order, as RGBA and BGRA are."

    @staticmethod
    def candidates(case: Case) -> Iterator[Candidate]:
        def move(shape: tuple[int, int, int], index: Index, order: Index) -> Index:
            pixel, channel = np.divmod(index, shape[2])
            channel = channel // LANES * LANES + order[channel % LANES]
            return np.where(channel < shape[2], pixel * shape[2] + channel, -1)

        orders = list(itertools.permutations(range(LANES)))[1:]
        yield from _moved(case, {f"in the order {o}": _local(partial(move, order=np.array(o))) for o in orders})


class ChannelMajor(Hypothesis):
    name = "pixel-major and channel-major confused"
    sentence = "The bytes are in the other order: channel after channel, or pixel after pixel."

    @staticmethod
    def candidates(case: Case) -> Iterator[Candidate]:
        def written_by_channel(shape: tuple[int, int, int], index: Index) -> Index:
            h, w, c = shape
            channel, pixel = np.divmod(index, h * w)
            return pixel * c + channel

        def read_by_channel(shape: tuple[int, int, int], index: Index) -> Index:
            h, w, c = shape
            pixel, channel = np.divmod(index, c)
            return channel * (h * w) + pixel

        yield from _moved(
            case,
            {
                "written channel after channel, read pixel after pixel": _local(written_by_channel),
                "written pixel after pixel, read channel after channel": _local(read_by_channel),
            },
        )


class SlicesInARow(Hypothesis):
    name = "texture slices taken for pixels"
    sentence = "The bytes are slice after slice, as in the texture, but read pixel after pixel, or the reverse."

    @staticmethod
    def candidates(case: Case) -> Iterator[Candidate]:
        def written_by_slice(shape: tuple[int, int, int], index: Index) -> Index:
            h, w, c = shape
            part, pixel, lane = _split(index, h * w, LANES)
            channel = part * LANES + lane
            return np.where(channel < c, pixel * c + channel, -1)

        def read_by_slice(shape: tuple[int, int, int], index: Index) -> Index:
            h, w, c = shape
            pixel, channel = np.divmod(index, c)
            return np.asarray((channel // LANES * h * w + pixel) * LANES + channel % LANES, np.intp)

        moves = {"written slice after slice": _local(written_by_slice), "read slice after slice": _local(read_by_slice)}
        yield from _moved(case, moves)


class PaddingCounted(Hypothesis):
    name = "padding lanes counted as channels"
    sentence = "Each pixel has lanes that no channel uses, and they are counted on one side only."

    @staticmethod
    def candidates(case: Case) -> Iterator[Candidate]:
        def padded(channels: int) -> int:
            return -(-channels // LANES) * LANES

        def written(shape: tuple[int, int, int], index: Index) -> Index:
            pixel, channel = np.divmod(index, padded(shape[2]))
            return np.where(channel < shape[2], pixel * shape[2] + channel, -1)

        def read(shape: tuple[int, int, int], index: Index) -> Index:
            pixel, channel = np.divmod(index, shape[2])
            return pixel * padded(shape[2]) + channel

        if case.shape[3] % LANES:
            moves = {"written, but not expected": _local(written), "expected, but not written": _local(read)}
            yield from _moved(case, moves)


class RowsAndColumns(Hypothesis):
    name = "rows and columns swapped"
    sentence = "The image is transposed, or a row or column stands where its mirror image belongs."

    @staticmethod
    def candidates(case: Case) -> Iterator[Candidate]:
        def transposed(shape: tuple[int, int, int], index: Index) -> Index:
            h, w, c = shape
            x, y, channel = _split(index, h, c)
            return (y * w + x) * c + channel

        def mirrored(shape: tuple[int, int, int], index: Index, rows: bool, columns: bool) -> Index:
            h, w, c = shape
            y, x, channel = _split(index, w, c)
            y, x = h - 1 - y if rows else y, w - 1 - x if columns else x
            return (y * w + x) * c + channel

        flips = {"upside down": (True, False), "right to left": (False, True), "turned by 180 degrees": (True, True)}
        moves = {detail: _local(partial(mirrored, rows=r, columns=c)) for detail, (r, c) in flips.items()}
        yield from _moved(case, {"written column after column": _local(transposed)} | moves)


class RowStride(Hypothesis):
    name = "wrong row stride"
    sentence = "Rows begin at other distances than expected, so that each is shifted more than the one before."

    @staticmethod
    def candidates(case: Case) -> Iterator[Candidate]:
        _, h, w, c = case.shape
        dense, item = w * c, case.result.dtype.itemsize
        strides = {dense + d * c: f"of {w + d} pixels" for d in range(-8, 9) if d and w + d > 0}
        for unit, size in (("elements", 1), ("bytes", item)):
            for block in (4, 8, 16, 32, 64, 128, 256):
                stride = -(-dense * size // block) * block // size
                strides.setdefault(stride, f"of {stride} elements, a multiple of {block} {unit}")
        strides.pop(dense, None)

        def written(shape: tuple[int, int, int], index: Index, stride: int) -> Index:
            y, rest = np.divmod(index, stride)
            return np.where((rest < dense) & (y < h), y * dense + rest, -1)

        def read(shape: tuple[int, int, int], index: Index, stride: int) -> Index:
            y, rest = np.divmod(index, dense)
            return y * stride + rest

        moves = {}
        for stride, detail in strides.items():
            moves[f"written with one {detail}"] = _local(partial(written, stride=stride))
            moves[f"read with one {detail}"] = _local(partial(read, stride=stride))
        if h > 1:
            yield from _moved(case, moves)


class Offset(Hypothesis):
    name = "wrong offset"
    sentence = "The image begins too early or too late in its buffer, or where it is read or written."

    @staticmethod
    def candidates(case: Case) -> Iterator[Candidate]:
        _, _, w, c = case.shape
        row, size = w * c, case.want.size
        shifts = dict.fromkeys([*_shifts(case), *(sign * k for k in (1, 2, 3, 4, c, row) for sign in (1, -1))])

        def shifted(shape: tuple[int, int, int, int], index: Index, by: int) -> Index:
            moved = index + by
            return np.where((moved < 0) | (moved >= size), -1, moved)

        moves = {}
        for by in shifts:
            ahead = f"{abs(by)} elements {'later' if by < 0 else 'earlier'} than they should"
            rows, pixels = f", {abs(by) // row} rows", f", {abs(by) // c} pixels"
            whole = rows if by % row == 0 else pixels if by % c == 0 else ""
            moves[f"elements stand {ahead}{whole}"] = partial(shifted, by=by)
        yield from _moved(case, moves)


def _shifts(case: Case, window: int = 65_536, length: int = 24) -> Iterator[int]:
    """By how many elements the want near a few bad elements must be shifted to give a run of what was got."""
    got, want = case.got.reshape(-1), case.want.reshape(-1)
    if got.size <= length:
        return
    starts = np.minimum(case.few_bad[:: max(1, case.few_bad.size // 24)], got.size - length)
    distinct = [np.unique(got[s : s + length]).size for s in starts.tolist()]
    for k in np.argsort(distinct, kind="stable")[::-1][:4]:
        start = int(starts[k])
        low, high = max(0, start - window), min(got.size - length, start + window)
        found = np.arange(low, high + 1)
        for step in range(length):
            found = found[case.is_close(want[found + step], np.full(found.shape, got[start + step]))]
        yield from (int(position) - start for position in found[:4] if position != start)


class AnotherImage(Hypothesis):
    name = "another image of the batch"
    sentence = "The image of another place in the batch stands here."

    @staticmethod
    def candidates(case: Case) -> Iterator[Candidate]:
        images = case.shape[0]
        if images == 1:
            return
        order = np.arange(images)
        orders = {"in reverse order": order[::-1], **{f"image {k} for all": order * 0 + k for k in range(images)[:16]}}
        for k in range(1, min(images, 17)):
            orders[f"{k} later"] = (order + k) % images

        def moved(shape: tuple[int, int, int, int], index: Index, order: Index) -> Index:
            image, inner = np.divmod(index, math.prod(shape[1:]))
            return np.asarray(order[image] * math.prod(shape[1:]) + inner, np.intp)

        yield from _moved(case, {detail: partial(moved, order=o) for detail, o in orders.items()})


# ---- what explains too much to come first ----


class AnotherNeuron(Hypothesis):
    name = "another neuron"
    sentence = "Another neuron type was run, with the same parameters or with its defaults."

    @staticmethod
    def candidates(case: Case) -> Iterator[Candidate]:
        p = case.descriptor
        if p is None:
            return
        for neuron_type, row in NEURONS.items():
            if neuron_type is p.neuron_type or row.per_channel:
                continue
            same = {name: p.parameters.get(name, default) for name, default in row.parameters.items()}
            for given in (same,) if same == dict(row.parameters) else (same, dict(row.parameters)):
                text = ", ".join(f"{name} = {np.float32(value)!s}" for name, value in given.items())
                other = MPSNNNeuronDescriptor(neuron_type, **given)
                yield _with_operation(
                    case, case.with_descriptor(other), f"{neuron_type.name}{' with ' * bool(text)}{text}"
                )


class ComputedInHalf(Hypothesis):
    name = "computed in half"
    sentence = "Every operation of the formula is rounded to half precision."

    @staticmethod
    def candidates(case: Case) -> Iterator[Candidate]:
        p = case.descriptor
        if p is None:
            return

        def at(index: Index) -> Stored:
            x = case.x(index).astype(np.float16)
            data = np.zeros(1, np.float16) if p.data is None else p.data[index % case.shape[3]].astype(np.float16)
            parameters = _HalfParameters(np.float16(p.a), np.float16(p.b), np.float16(p.c), data)
            # The rows' formulas are float32 by their annotations only.
            row: Any = p.row
            if isinstance(case.operation, Forward):
                y = row.stepwise_forward(x, parameters, _InHalf())
            else:
                slope = row.stepwise_derivative(x, parameters, _InHalf())
                y = np.asarray(slope, np.float16) * case.upstream(index).astype(np.float16)
            return case.stored(np.asarray(y, np.float64))

        yield Candidate("", at)


@dataclass(frozen=True)
class _HalfParameters:
    a: np.float16
    b: np.float16
    c: np.float16
    data: Halves


class _InHalf:
    """The `Arithmetic` of the rows, in half precision."""

    def fma(self, a: Any, b: Any, c: Any) -> Halves:
        return np.asarray(np.multiply(a, b) + c, np.float16)

    def square(self, x: Halves) -> Halves:
        return np.square(x)

    def exp(self, x: Halves) -> Halves:
        return np.exp(x.astype(np.float64)).astype(np.float16)

    def log(self, x: Any) -> Halves:
        return np.log(np.asarray(x, np.float64)).astype(np.float16)

    def tanh(self, x: Halves) -> Halves:
        return np.tanh(x.astype(np.float64)).astype(np.float16)

    def erf(self, x: Halves) -> Halves:
        return np.asarray(_erf(x.astype(np.float64)), np.float16)

    def pow(self, base: Any, exponent: Any) -> Halves:
        return np.asarray(np.power(base, exponent, dtype=np.float64), np.float16)

    def min(self, x: Halves, y: float) -> Halves:
        return np.where(x < y, x, np.float16(y))

    def max(self, x: Halves, y: float) -> Halves:
        return np.where(x > y, x, np.float16(y))

    def where(self, condition: Mask, x: Any, y: Any) -> Halves:
        return np.where(condition, np.asarray(x, np.float16), np.asarray(y, np.float16))


class Stepwise(Hypothesis):
    name = "the formula in float32"
    sentence = "The documented formula, each operation rounded to float32, is that far from its exact value."

    @staticmethod
    def candidates(case: Case) -> Iterator[Candidate]:
        for mode in ("stepwise", "stepwise-fma"):
            yield Candidate(f"mode {mode}", partial(case.evaluate, mode=mode))


def _erf(x: Wide) -> Wide:
    # Here, because scipy.special takes long to import.
    from scipy.special import erf  # noqa: PLC0415

    y: Wide = erf(x)
    return y


def _gelu_argument(x: Stored) -> Stored:
    argument: Stored = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
    return argument


def _gelu_tanh_slope(x: Stored, t: Stored) -> Stored:
    """The derivative of ``x/2 (1 + t)``, with t the tanh of that argument."""
    slope: Stored = 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x * x)
    return slope


HYPOTHESES: tuple[Hypothesis, ...] = tuple(one() for one in Hypothesis.__subclasses__())
"""Each fault that is looked for, the most specific first."""
