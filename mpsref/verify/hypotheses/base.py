"""
What a fault is, and what faults of several families need.

A hypothesis yields candidates: what the image would hold if the fault were there, as functions from flat indices to
stored elements, so that a few elements can be tried before all are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mpsref.arrays import Elements, Index, Mask, Stored, Wide
from mpsref.enums import MPSCNNNeuronType, MPSImageFeatureChannelFormat
from mpsref.neuron.descriptor import MPSNNNeuronDescriptor
from mpsref.operations import Operation
from mpsref.storage import FLOAT64, FORMATS
from mpsref.verify.case import Case

__all__ = [
    "HALF",
    "LANES",
    "PLACES",
    "SINGLE",
    "Candidate",
    "Hypothesis",
    "T",
    "erf",
    "evaluate_fast",
    "hypothesis",
    "is_nan",
    "neuron_hypothesis",
    "replaced",
    "with_operation",
]

T = MPSCNNNeuronType
HALF, SINGLE = FORMATS[MPSImageFeatureChannelFormat.float16], FORMATS[MPSImageFeatureChannelFormat.float32]
LANES = 4
PLACES = ("the first source", "the second source", "the third source")


@dataclass(frozen=True)
class Candidate:
    """
    What the image would hold.

    Attributes
    ----------
    detail : str
        Which variant of the fault this is; empty if it has only one.
    at : callable
        From flat indices, in ascending order, to stored elements.
    """

    detail: str
    at: Callable[[Index], Stored]


@dataclass(frozen=True, eq=False)
class Hypothesis:
    """
    One fault.

    Attributes
    ----------
    name, sentence : str
        What it is called, and what it says in one sentence.
    candidates : callable
        What the image of a case would hold, for each way in which the fault can happen; nothing where it cannot.
    fewest : int
        How many elements it must explain: more than one, if it is made to fit those that it explains.
    """

    name: str
    sentence: str
    candidates: Callable[[Case], Iterator[Candidate]]
    fewest: int = 1


def hypothesis(
    name: str, sentence: str, fewest: int = 1
) -> Callable[[Callable[[Case], Iterator[Candidate]]], Hypothesis]:
    """Make a hypothesis of the function that yields its candidates."""
    return lambda candidates: Hypothesis(name, sentence, candidates, fewest)


def neuron_hypothesis(
    name: str, sentence: str, *types: MPSCNNNeuronType
) -> Callable[[Callable[[Case, MPSNNNeuronDescriptor], Iterator[Candidate]]], Hypothesis]:
    """Do the same for a fault of neurons only, those of some types or all; the function takes the descriptor too."""

    def decorate(candidates: Callable[[Case, MPSNNNeuronDescriptor], Iterator[Candidate]]) -> Hypothesis:
        def of_case(case: Case) -> Iterator[Candidate]:
            p = case.descriptor
            if p is not None and (not types or p.neuron_type in types):
                yield from candidates(case, p)

        return Hypothesis(name, sentence, of_case)

    return decorate


def replaced(case: Case, index: Index, chosen: Mask, other: Stored | float) -> Stored:
    """The reference, with something else at some of the elements."""
    return np.where(chosen, np.asarray(other, case.result.dtype), case.want.reshape(-1)[index])


def is_nan(case: Case, index: Index) -> Mask:
    """Where something that the node read is NaN."""
    nan: Mask = np.logical_or.reduce([np.isnan(source.at(index).values()) for source in case.sources])
    return nan


def with_operation(case: Case, operation: Operation, detail: str) -> Candidate:
    """What another operation gives for the same sources."""
    return Candidate(detail, lambda index: evaluate_fast(case, index, operation))


def evaluate_fast(
    case: Case, index: Index, operation: Operation | None = None, sources: Sequence[Elements] | None = None
) -> Stored:
    """`Case.evaluate`, but rounded twice: deciding the last element of a million would take most of the time."""
    if case.descriptor is None:
        return case.evaluate(index, operation, sources)
    return case.stored(case.evaluate(index, operation, sources, result=FLOAT64))


def erf(x: Wide) -> Wide:
    """The error function."""
    # Here, because scipy.special takes long to import.
    from scipy import special  # noqa: PLC0415

    y: Wide = special.erf(x)
    return y
