"""Functions with other parameters: swapped, left out, rounded, of another node, or the slopes of other channels."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from mpsref.arrays import Wide
from mpsref.neuron.descriptor import MPSNNNeuronDescriptor, neuron_of
from mpsref.operations import NeuronOperation, Operation
from mpsref.verify.case import Case, Function, Reads, Step, with_descriptor
from mpsref.verify.hypotheses.base import (
    LANES,
    MANY,
    Candidate,
    T,
    descriptor_of,
    function_hypothesis,
    hypothesis,
    joined,
    with_operation,
)
from mpsref.verify.hypotheses.fitting import LEAST_FIT, NEGLIGIBLE, Family, Fit
from mpsref.verify.hypotheses.stores import bfloat16, to_half


def _other_parameters(step: Step, names: Iterable[str], values: Sequence[float]) -> Iterator[Operation]:
    """The neuron with other values of some parameters, if that makes a difference."""
    p = descriptor_of(step)
    own = p.parameters
    parameters = own | dict(zip(names, values, strict=True))
    is_allowed = all(parameters[name] >= least for name, least in p.row.least.items())
    if parameters != own and is_allowed and all(map(math.isfinite, parameters.values())):
        yield with_descriptor(step.operation, neuron_of(p.neuron_type.name, parameters))


def _subsets(names: Iterable[str]) -> Iterator[tuple[str, ...]]:
    """Some of the parameters, fewest first."""
    names = list(names)
    for count in range(1, len(names) + 1):
        yield from itertools.combinations(names, count)


def _with_data(step: Step, data: npt.NDArray[np.float32]) -> Function:
    return with_operation(with_descriptor(step.operation, MPSNNNeuronDescriptor(T.pReLU, data=data)))


@function_hypothesis("parameters swapped", "Parameters stand in each other's place.", fewest=MANY, neurons=False)
def parameters_swapped(step: Step) -> Iterator[tuple[str, Function]]:
    if step.operation.descriptor is not None:
        p = step.operation.descriptor
        names = tuple(p.parameters)
        for order in itertools.permutations(names):
            for operation in _other_parameters(step, names, [p.parameters[name] for name in order]):
                yield f"{', '.join(order)} for {', '.join(names)}", with_operation(operation)
    for detail, operation in step.operation.with_parameters_exchanged():
        yield detail, with_operation(operation)


@function_hypothesis(
    "a parameter left out",
    "A parameter has no effect: it is 0, or a scale is 1, or a clamp is not there.",
    fewest=MANY,
    neurons=False,
)
def parameter_missing(step: Step) -> Iterator[tuple[str, Function]]:
    p = step.operation.descriptor
    if p is not None:
        for name in p.parameters:
            for other in _other_parameters(step, [name], [0.0]):
                yield f"{name} = 0", with_operation(other)
        if p.data is not None:
            yield "every slope is 0", _with_data(step, np.zeros_like(p.data))
    for detail, changed in step.operation.with_parameters_left_out():
        yield detail, with_operation(changed)


@function_hypothesis(
    "a parameter at its default", "A parameter that was set has its default all the same.", fewest=MANY
)
def parameter_default(step: Step) -> Iterator[tuple[str, Function]]:
    defaults = descriptor_of(step).row.parameters
    for names in _subsets(defaults):
        for operation in _other_parameters(step, names, [defaults[name] for name in names]):
            detail = ", ".join(f"{name} = {np.float32(defaults[name])!s}" for name in names)
            yield detail, with_operation(operation)


@function_hypothesis(
    "base e instead of 2", "Powers and logarithms are those of e, as exp and log are.",
    T.exponential, T.logarithm, fewest=MANY,
)  # fmt: skip
def base_e(step: Step) -> Iterator[tuple[str, Function]]:
    if descriptor_of(step).c == 2:
        for other in _other_parameters(step, ["c"], [-1.0]):
            yield "", with_operation(other)


@function_hypothesis("the sign of a parameter lost", "A parameter is used without its sign.", fewest=MANY)
def parameter_magnitude(step: Step) -> Iterator[tuple[str, Function]]:
    p = descriptor_of(step)
    for name, value in p.parameters.items():
        if value < 0 and not (name == "c" and value == -1):
            for other in _other_parameters(step, [name], [-value]):
                yield name, with_operation(other)
    if p.data is not None and (p.data < 0).any():
        yield "data", _with_data(step, np.abs(p.data))


def _rounded(step: Step, narrow: Callable[[Wide], Wide]) -> Iterator[tuple[str, Function]]:
    """A neuron with some of its parameters rounded, or with slopes that are."""
    p = descriptor_of(step)
    with np.errstate(over="ignore"):
        for names in reversed(list(_subsets(p.parameters))):
            values = narrow(np.array([p.parameters[name] for name in names], np.float64)).tolist()
            for operation in _other_parameters(step, names, values):
                yield ", ".join(names), with_operation(operation)
        if p.data is not None:
            short = narrow(p.data.astype(np.float64)).astype(np.float32)
            if (p.data != short).any() and np.isfinite(short).all():
                yield "data", _with_data(step, short)


@function_hypothesis(
    "parameters rounded to half", "Parameters, or the slopes of channels, were rounded to half precision.", fewest=MANY
)
def parameter_in_half(step: Step) -> Iterator[tuple[str, Function]]:
    return _rounded(step, to_half)


@function_hypothesis(
    "parameters rounded to bfloat16", "Parameters, or the slopes of channels, were rounded to bfloat16.", fewest=MANY
)
def parameter_in_bfloat16(step: Step) -> Iterator[tuple[str, Function]]:
    return _rounded(step, bfloat16)


@hypothesis(
    "another value of a parameter",
    "One parameter has another value: the one that fits some elements, and no other element contradicts it.",
    MANY,
    fitted=True,
)
def parameter_fitted(case: Case) -> Iterator[Candidate]:
    fit = Fit(case)
    for k, step in fit.steps():
        for name in descriptor_of(step).parameters:
            family = _family(case, k, [name])
            value = fit.value(family)
            if (best := fit.shares(family, [value])[0]) >= LEAST_FIT:
                yield _instead(fit, k, {(name,): fit.shortest(family, [value], best)})


def _family(case: Case, k: int, names: Sequence[str]) -> Family:
    """A neuron with other values of some of its parameters."""
    step = case.steps[k]

    def candidate(values: Sequence[float]) -> Candidate | None:
        single = [float(np.float32(value)) for value in values]
        operation = next(_other_parameters(step, names, single), None)
        return None if operation is None else Candidate(function=with_operation(operation), step=k)

    return candidate


def _instead(fit: Fit, k: int, ways: Mapping[tuple[str, ...], Sequence[float]]) -> Candidate:
    """The neuron with the first of several sets of parameters that give the same."""
    case, step = fit.case, fit.case.steps[k]
    own = descriptor_of(step).parameters
    texts = [
        " and ".join(f"{n} = {np.float32(v)!s} instead of {np.float32(own[n])!s}" for n, v in zip(*way, strict=True))
        for way in ways.items()
    ]
    where = f"in {step.name}" if len(case.steps) > 1 else ""
    names, values = next(iter(ways.items()))
    candidate = _family(case, k, names)(values)
    return (candidate or Candidate()).named(joined(", or ".join(texts), where, fit.extent))


@hypothesis(
    "other values of two parameters",
    "Two parameters have other values: those that fit some elements, and no other element contradicts them.",
    MANY,
    fitted=True,
)
def two_parameters_fitted(case: Case) -> Iterator[Candidate]:
    fit = Fit(case)
    for k, step in fit.steps():
        p = descriptor_of(step)
        found: dict[tuple[str, ...], tuple[float, Sequence[float]]] = {}
        for names in itertools.combinations(p.parameters, 2):
            family = _family(case, k, names)
            values = fit.together(family, _starts(p, names))
            best, _ = fit.shares(family, values)
            if best >= LEAST_FIT:
                values = fit.shortest(family, values, best)
                other = [-value for value in values]
                # An odd function is the same with both signs exchanged.
                if _apart(other, p, names) < _apart(values, p, names) and fit.shares(family, other)[0] >= best:
                    values = other
                # What changes one only is the simpler cause.
                own = [p.parameters[name] for name in names]
                if not np.isclose(values, own, rtol=NEGLIGIBLE, atol=0).any():
                    found[names] = best, values
        if found:
            most = max(best for best, _ in found.values())
            # Of c^(a x + b), any two of the three give the same.
            yield _instead(fit, k, {names: values for names, (best, values) in found.items() if best == most})


def _apart(values: Sequence[float], p: MPSNNNeuronDescriptor, names: Sequence[str]) -> float:
    """How far values are from a neuron's own."""
    return sum(abs(value - p.parameters[name]) for name, value in zip(names, values, strict=True))


def _starts(p: MPSNNNeuronDescriptor, names: Sequence[str]) -> list[tuple[float, ...]]:
    """Pairs of values between which better ones are looked for: those that a mistake may leave, and a coarse grid."""
    own, others = p.parameters, list(p.parameters.values())
    usual = [
        [*(sign * value for value in others for sign in (1, -1)), p.row.parameters[n], 2 * own[n], own[n] / 2, 0.0]
        for n in names
    ]
    scales = [1 / 4, 1 / 2, 1 / math.sqrt(2), math.sqrt(2), 2.0, 4.0]
    grid = [(own[names[0]] * s, own[names[1]] * t) for s in (1.0, *scales) for t in (1.0, *scales)]
    return list(dict.fromkeys([*itertools.product(*usual), *grid]))


@hypothesis("parameters of another node", "The node ran with the neuron or the parameters of another one.", MANY)
def parameters_of_another(case: Case) -> Iterator[Candidate]:
    for k, step in enumerate(case.steps):
        own = step.operation
        for name, other in case.operations.items():
            if not isinstance(own, NeuronOperation) or not isinstance(other, NeuronOperation):
                continue
            if own.neuron != other.neuron and name != step.name:
                channels = other.neuron.data
                if channels is None or channels.size == case.shape[3]:
                    function = with_operation(with_descriptor(own, other.neuron))
                    yield Candidate(f"those of {name}", function=function, step=k)


@function_hypothesis(
    "the slope of another channel",
    "pReLU's slopes are read in another order, along another axis, or one serves several channels.",
    T.pReLU,
    fewest=MANY,
)
def slope_of_another_channel(step: Step) -> Iterator[tuple[str, Function]]:
    data = descriptor_of(step).data
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
            orders[f"channels {i} and {j} exchanged"] = np.where(channel == i, j, np.where(channel == j, i, channel))
    for detail, order in orders.items():
        if (order != channel).any():
            yield detail, _with_data(step, data[order])


@hypothesis("half slopes read as float", "pReLU's slopes were given in half precision, but read as float32.", MANY)
def half_slopes(case: Case) -> Iterator[Candidate]:
    for k, step in enumerate(case.steps):
        p = step.operation.descriptor
        if p is None or p.data is None or p.data.size < 2:
            continue
        read = np.zeros(p.data.size, np.float32)
        half = p.data.astype(np.float16)[: p.data.size // 2 * 2]
        read[: half.size // 2] = half.view(np.float32)
        for detail, slopes in {"": read, "again and again": np.resize(read[: half.size // 2], read.size)}.items():
            if np.isfinite(slopes).all():
                yield Candidate(detail, function=_with_data(step, slopes), step=k)


@hypothesis(
    "slopes along another axis", "pReLU's slopes belong to rows, columns, pixels or images here, not to channels.", MANY
)
def slope_of_another_axis(case: Case) -> Iterator[Candidate]:
    n, h, w, c = case.shape
    for k, step in enumerate(case.steps):
        p = step.operation.descriptor
        if p is None or p.data is None:
            continue
        axes = {
            "columns": (c, w),
            "rows": (w * c, h),
            "pixels": (c, h * w),
            "images": (h * w * c, n),
            "channels in the layout NCHW": (h * w, c),
        }
        for name, (unit, extent) in axes.items():
            function = partial(_sloped, data=p.data.astype(np.float64), unit=unit, extent=extent)
            yield Candidate(f"to {name}", function=function, step=k)


def _sloped(reads: Reads, data: Wide, unit: int, extent: int) -> Wide:
    x = reads.x
    factor = np.where(x >= 0, 1.0, data[reads.index // unit % extent % data.size])
    return factor * (reads.upstream if reads.operation.makes_gradient else x)
