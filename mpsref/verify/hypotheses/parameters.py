"""Faults of parameters: swapped, left out, rounded, or those of another channel."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from mpsref.neuron.descriptor import MPSNNNeuronDescriptor
from mpsref.operations import Operation
from mpsref.verify.case import Case
from mpsref.verify.hypotheses.base import LANES, Candidate, Hypothesis, T, with_operation

__all__ = ["ParameterDefault", "ParameterInHalf", "ParameterMissing", "ParametersSwapped", "SlopeOfAnotherChannel"]


def _other_parameters(case: Case, names: str, values: Sequence[float]) -> Iterator[Operation]:
    """The neuron with other values of some parameters, if that makes a difference."""
    p = case.descriptor
    if p is None:
        return
    given = p.parameters | dict(zip(names, values, strict=True))
    if given != p.parameters and all(math.isfinite(value) for value in given.values()):
        yield case.with_descriptor(MPSNNNeuronDescriptor(p.neuron_type, **given))


def _with_data(case: Case, data: npt.NDArray[np.float32], detail: str) -> Candidate:
    return with_operation(case, case.with_descriptor(MPSNNNeuronDescriptor(T.pReLU, data=data)), detail)


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
                    yield with_operation(case, operation, f"{', '.join(order)} for {', '.join(names)}")
        for detail, operation in case.operation.with_parameters_exchanged():
            yield with_operation(case, operation, detail)


class ParameterMissing(Hypothesis):
    name = "a parameter left out"
    sentence = "A parameter has no effect: it is 0, or a scale is 1, or a clamp is not there."

    @staticmethod
    def candidates(case: Case) -> Iterator[Candidate]:
        p = case.descriptor
        if p is not None:
            for name in p.parameters:
                for other in _other_parameters(case, name, [0.0]):
                    yield with_operation(case, other, f"{name} = 0")
            if p.data is not None:
                yield _with_data(case, np.zeros_like(p.data), "every slope is 0")
        for detail, changed in case.operation.with_parameters_left_out():
            yield with_operation(case, changed, detail)


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
                    yield with_operation(
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
                        yield with_operation(case, operation, ", ".join(names))
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
