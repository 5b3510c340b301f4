"""
What a fault is, and what faults of several families need.

A hypothesis yields candidates: what the image would hold if the fault were there, as functions from flat indices to
stored elements, so that a few elements can be looked at before all are.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mpsref.arrays import Elements, Index, Mask, Stored, Wide
from mpsref.enums import MPSCNNNeuronType, MPSImageFeatureChannelFormat
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
    "is_nan",
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
        What of the hypothesis this is; empty if there is nothing to add.
    at : callable
        From flat indices, in ascending order, to stored elements.
    """

    detail: str
    at: Callable[[Index], Stored]


class Hypothesis(ABC):
    """
    One fault. A subclass states it; there are no instances.

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


def replaced(case: Case, index: Index, chosen: Mask, other: Stored | float) -> Stored:
    """What was wanted, with something else at some of the elements."""
    return np.where(chosen, np.asarray(other, case.result.dtype), case.want.reshape(-1)[index])


def is_nan(case: Case, index: Index) -> Mask:
    """Where something that the node read is NaN."""
    found: Mask = np.logical_or.reduce([np.isnan(source.at(index).values()) for source in case.sources])
    return found


def with_operation(case: Case, operation: Operation, detail: str) -> Candidate:
    """What another operation gives for the same sources."""
    return Candidate(detail, lambda index: evaluate_fast(case, index, operation))


def evaluate_fast(
    case: Case, index: Index, operation: Operation | None = None, sources: Sequence[Elements] | None = None
) -> Stored:
    """`Case.evaluate`, but rounded twice: to decide the last element of a million would take most of the time."""
    if case.descriptor is None:
        return case.evaluate(index, operation, sources)
    return case.stored(case.evaluate(index, operation, sources, result=FLOAT64))


def erf(x: Wide) -> Wide:
    """The error function."""
    # Here, because scipy.special takes long to import.
    from scipy import special  # noqa: PLC0415

    y: Wide = special.erf(x)
    return y
