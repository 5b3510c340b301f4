"""Faults of parameters: swapped, left out, rounded, or those of another channel."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from mpsref.neuron.descriptor import MPSNNNeuronDescriptor
from mpsref.operations import Operation
from mpsref.verify.case import Case
from mpsref.verify.hypotheses.base import LANES, Candidate, T, hypothesis, neuron_hypothesis, with_operation


def _other_parameters(case: Case, names: str, values: Sequence[float]) -> Iterator[Operation]:
    """The neuron with other values of some parameters, if that makes a difference."""
    p = case.descriptor
    if p is None:
        return
    parameters = p.parameters | dict(zip(names, values, strict=True))
    if parameters != p.parameters and all(map(math.isfinite, parameters.values())):
        yield case.with_descriptor(MPSNNNeuronDescriptor(p.neuron_type, **parameters))


def _subsets(names: Iterable[str]) -> Iterator[str]:
    """Some of the parameters, fewest first."""
    names = list(names)
    for count in range(1, len(names) + 1):
        yield from map("".join, itertools.combinations(names, count))


def _with_data(case: Case, data: npt.NDArray[np.float32], detail: str) -> Candidate:
    return with_operation(case, case.with_descriptor(MPSNNNeuronDescriptor(T.pReLU, data=data)), detail)


@hypothesis("parameters swapped", "Parameters stand in each other's place.")
def parameters_swapped(case: Case) -> Iterator[Candidate]:
    p = case.descriptor
    if p is not None:
        names = "".join(p.parameters)
        for order in itertools.permutations(names):
            for operation in _other_parameters(case, names, [p.parameters[name] for name in order]):
                yield with_operation(case, operation, f"{', '.join(order)} for {', '.join(names)}")
    for detail, operation in case.operation.with_parameters_exchanged():
        yield with_operation(case, operation, detail)


@hypothesis("a parameter left out", "A parameter has no effect: it is 0, or a scale is 1, or a clamp is not there.")
def parameter_missing(case: Case) -> Iterator[Candidate]:
    p = case.descriptor
    if p is not None:
        for name in p.parameters:
            for other in _other_parameters(case, name, [0.0]):
                yield with_operation(case, other, f"{name} = 0")
        if p.data is not None:
            yield _with_data(case, np.zeros_like(p.data), "every slope is 0")
    for detail, changed in case.operation.with_parameters_left_out():
        yield with_operation(case, changed, detail)


@neuron_hypothesis("a parameter at its default", "A parameter that was set has its default all the same.")
def parameter_default(case: Case, p: MPSNNNeuronDescriptor) -> Iterator[Candidate]:
    defaults = p.row.parameters
    for names in _subsets(defaults):
        for operation in _other_parameters(case, names, [defaults[name] for name in names]):
            detail = ", ".join(f"{name} = {np.float32(defaults[name])!s}" for name in names)
            yield with_operation(case, operation, detail)


@neuron_hypothesis(
    "parameters rounded to half", "Parameters, or the slopes of channels, were rounded to half precision."
)
def parameter_in_half(case: Case, p: MPSNNNeuronDescriptor) -> Iterator[Candidate]:
    with np.errstate(over="ignore"):
        for names in _subsets(p.parameters):
            values = [float(np.float16(p.parameters[name])) for name in names]
            for operation in _other_parameters(case, names, values):
                yield with_operation(case, operation, ", ".join(names))
        if p.data is not None and (p.data != p.data.astype(np.float16)).any():
            half = p.data.astype(np.float16)
            if np.isfinite(half).all():
                yield _with_data(case, half.astype(np.float32), "data")


@hypothesis("the slope of another channel", "pReLU's slopes are read in another order, or one serves several channels.")
def slope_of_another_channel(case: Case) -> Iterator[Candidate]:
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
            orders[f"channels {i} and {j} exchanged"] = np.where(channel == i, j, np.where(channel == j, i, channel))
    for detail, order in orders.items():
        yield _with_data(case, data[order], detail)
