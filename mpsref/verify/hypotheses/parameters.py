"""Functions with other parameters: swapped, left out, rounded, of another node, or the slopes of other channels."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from mpsref.arrays import Elements, Wide, spread
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
    median,
    with_operation,
)

MOST_STEPS, LEAST_FIT = 4, 0.3
"""Nodes among which a parameter is fitted; and what share of the elements out of bounds a fitted one must explain."""

BEST_STARTS, MOST_ITERATIONS = 4, 16
"""Pairs of parameters from which a better pair is looked for, and how often."""

SAME_BITS = 0.02
"""The difference up to which shares of equal results count as equal."""


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


@function_hypothesis(
    "parameters rounded to half", "Parameters, or the slopes of channels, were rounded to half precision.", fewest=MANY
)
def parameter_in_half(step: Step) -> Iterator[tuple[str, Function]]:
    p = descriptor_of(step)
    with np.errstate(over="ignore"):
        for names in reversed(list(_subsets(p.parameters))):
            values = [float(np.float16(p.parameters[name])) for name in names]
            for operation in _other_parameters(step, names, values):
                yield ", ".join(names), with_operation(operation)
        if p.data is not None and (p.data != p.data.astype(np.float16)).any():
            half = p.data.astype(np.float16)
            if np.isfinite(half).all():
                yield "data", _with_data(step, half.astype(np.float32))


GRID = np.concatenate([sign * 2.0 ** np.arange(-10, 10.5, 0.5) for sign in (1, -1)])
"""Values of a parameter between which a better one is looked for."""


@hypothesis(
    "another value of a parameter",
    "One parameter has another value: the one that fits some elements, and no other element contradicts it.",
    MANY,
    fitted=True,
)
def parameter_fitted(case: Case) -> Iterator[Candidate]:
    fit = _Fit(case)
    for k, step, p in fit.steps():
        for name in p.parameters:
            fitted = _fitted(partial(fit.distance, k, name))
            if (best := fit.share(k, [name], [fitted])) >= LEAST_FIT:
                (value,) = fit.shortest(k, [name], [fitted], best)
                yield fit.candidate(step, k, [([name], [value])])


class _Fit:
    """Some elements out of bounds, which a neuron with other parameters should give."""

    def __init__(self, case: Case) -> None:
        index = case.bad_sample[spread(case.bad_sample.size, 128)]
        got = Elements(case.got.reshape(-1)[index], case.result)
        fitting = np.isfinite(got.values())
        self.case, self.index, self.got = case, index[fitting], got.at(np.flatnonzero(fitting))
        self.wide, self.is_close = self.got.values(), case.bound(self.index)
        # Far smaller results than most have relative errors that tell nothing.
        self.least = float(np.median(np.abs(self.wide))) / 64 if self.index.size else 0.0

    def steps(self) -> Iterator[tuple[int, Step, MPSNNNeuronDescriptor]]:
        """The neurons that may be fitted."""
        if self.index.size >= MANY and len(self.case.steps) <= MOST_STEPS:
            for k, step in enumerate(self.case.steps):
                if step.operation.descriptor is not None:
                    yield k, step, step.operation.descriptor

    def function(self, k: int, names: Sequence[str], values: Iterable[float]) -> Function | None:
        """The neuron with other values of some parameters; None if it cannot have them, or has them already."""
        single = [float(np.float32(value)) for value in values]
        operation = next(_other_parameters(self.case.steps[k], names, single), None)
        return None if operation is None else with_operation(operation)

    def off(self, k: int, names: Sequence[str], values: Iterable[float]) -> Wide:
        """The relative error of each element, with its sign, at most 1."""
        function = self.function(k, names, values)
        if function is None:
            return np.ones(self.wide.shape)
        made = self.case.values(self.index, {k: function})
        off = (made - self.wide) / (np.abs(made) + np.abs(self.wide) + self.least)
        return np.where(made == self.wide, 0.0, np.where(np.isnan(off), 1.0, off))

    def distance(self, k: int, name: str, value: float) -> float:
        """The typical error with another value of one parameter."""
        return median(np.abs(self.off(k, [name], [value])))

    def share(self, k: int, names: Sequence[str], values: Iterable[float]) -> float:
        """Of how many the result is within bounds."""
        return self.shares(k, names, values)[0]

    def shares(self, k: int, names: Sequence[str], values: Iterable[float]) -> tuple[float, float]:
        """Of how many the result is within bounds, and of how many the same."""
        function = self.function(k, names, values)
        if function is None:
            return 0.0, 0.0
        made = self.case.stored(self.case.values(self.index, {k: function}))
        return float(self.is_close(made, self.got.stored).mean()), float((made == self.got.stored).mean())

    def shortest(self, k: int, names: Sequence[str], values: list[float], best: float) -> list[float]:
        """The shortest numbers that do as well."""
        rounded = [[float(f"{value:.{digits}g}") for value in values] for digits in range(1, 9)]
        found = [(each, bits) for each in rounded for share, bits in [self.shares(k, names, each)] if share >= best]
        most = max((bits for _, bits in found), default=0.0)
        return next((each for each, bits in found if bits >= most - SAME_BITS), values)

    def candidate(self, step: Step, k: int, ways: Sequence[tuple[Sequence[str], Sequence[float]]]) -> Candidate:
        """The neuron with the first of several sets of parameters that give the same."""
        own = descriptor_of(step).parameters
        texts = [
            " and ".join(
                f"{n} = {np.float32(v)!s} instead of {np.float32(own[n])!s}" for n, v in zip(*way, strict=True)
            )
            for way in ways
        ]
        where = f"in {step.name}" if len(self.case.steps) > 1 else ""
        detail = ", ".join(filter(None, (", or ".join(texts), where)))
        return Candidate(detail, function=self.function(k, *ways[0]), step=k)


@hypothesis(
    "other values of two parameters",
    "Two parameters have other values: those that fit some elements, and no other element contradicts them.",
    MANY,
    fitted=True,
)
def two_parameters_fitted(case: Case) -> Iterator[Candidate]:
    fit = _Fit(case)
    for k, step, p in fit.steps():
        found: list[tuple[float, Sequence[str], Sequence[float]]] = []
        for names in itertools.combinations(p.parameters, 2):
            tried = _fitted_together(partial(fit.off, k, names), _starts(p, names))
            # Of those that do as well, that which gives more of the bits: the very numbers, if they are among them.
            (best, _), values = max(((fit.shares(k, names, way), way) for way in tried), key=lambda each: sum(each[0]))
            if best >= LEAST_FIT:
                values = fit.shortest(k, names, values, best)
                other = [-value for value in values]
                # An odd function is the same with both signs exchanged.
                if _apart(other, p, names) < _apart(values, p, names) and fit.share(k, names, other) >= best:
                    values = other
                own = [p.parameters[name] for name in names]
                # What changes one only is the simpler cause.
                if (np.asarray(values, np.float32) != np.asarray(own, np.float32)).all():
                    found.append((best, names, values))
        if found:
            most = max(best for best, *_ in found)
            # Of c^(a x + b), any two of the three give the same.
            ways = [(names, values) for best, names, values in found if best == most]
            yield fit.candidate(step, k, ways)


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


def _fitted_together(off: Callable[[Any], Wide], starts: Sequence[tuple[float, ...]]) -> list[list[float]]:
    """Where the errors of a function of several parameters are small, by steps of Gauss and Newton from some starts."""

    def slopes_at(at: Wide, errors: Wide) -> Wide:
        steps = 1e-5 * np.maximum(np.abs(at), 1e-3)
        return np.stack([(off(at + step) - errors) / step.max() for step in np.diag(steps)], axis=1)

    found: list[list[float]] = []
    ranked = sorted((float(np.mean(np.abs(off(start)))), start) for start in starts)
    for _, start in ranked[:BEST_STARTS]:
        at, errors, damping = np.array(start), off(start), 1e-3
        error, slopes = float(errors @ errors), slopes_at(at, errors)
        for _ in range(MOST_ITERATIONS):
            normal = slopes.T @ slopes
            damped = normal + damping * np.diag(np.diag(normal)) + 1e-12 * np.eye(at.size)
            move = np.linalg.solve(damped, -slopes.T @ errors)
            there = off(at + move)
            if (after := float(there @ there)) < error:
                at, errors, error, damping = at + move, there, after, damping / 8
                slopes = slopes_at(at, errors)
            else:
                damping *= 8
            if np.abs(move).max() < 1e-8 * np.abs(at).max():
                break
        found += [list(start), at.tolist()]
    return found


def _fitted(distance: Callable[[float], float]) -> float:
    """Where a function of a parameter is least, as far as a grid and a search between its points find that."""
    best: float = min((distance(value), value) for value in GRID.tolist())[1]
    low, high = best / math.sqrt(2), best * math.sqrt(2)
    golden = (math.sqrt(5) - 1) / 2
    inner = [high - golden * (high - low), low + golden * (high - low)]
    values = [distance(value) for value in inner]
    for _ in range(40):
        if values[0] <= values[1]:
            high, inner[1], values[1] = inner[1], inner[0], values[0]
            inner[0] = high - golden * (high - low)
            values[0] = distance(inner[0])
        else:
            low, inner[0], values[0] = inner[0], inner[1], values[1]
            inner[1] = low + golden * (high - low)
            values[1] = distance(inner[1])
    return inner[1] if values[1] < values[0] else inner[0]


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
