"""
What a cause is made of.

A candidate composes parts: a *move*, which says where elements were taken from; a *function* that a step computes
instead of its operation; and a *store*, which says what memory holds of the values. Each part is optional, so that the
search can find the best move, and then the best function under it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from mpsref.arrays import Elements, Index, Mask, Stored, Wide
from mpsref.enums import MPSCNNNeuronType, MPSImageFeatureChannelFormat
from mpsref.image_lanes import LANES
from mpsref.neuron.descriptor import MPSNNNeuronDescriptor
from mpsref.operations import Operation, Role
from mpsref.storage import FORMATS
from mpsref.verify.case import Case, Function, Reads, Step
from mpsref.verify.layer import Given, Layer, Variants
from mpsref.verify.restored import Restored

__all__ = [
    "CANCELLED",
    "HALF",
    "LANES",
    "PLACES",
    "ROUNDINGS",
    "SINGLE",
    "UNKNOWN",
    "ZERO",
    "Candidate",
    "Hypothesis",
    "Move",
    "Store",
    "T",
    "Values",
    "decimals",
    "erf",
    "function_hypothesis",
    "hypothesis",
    "joined",
    "layer_hypothesis",
    "median",
    "nth_source",
    "of_steps",
    "reads_gradient",
    "with_operation",
]

T = MPSCNNNeuronType
HALF, SINGLE = FORMATS[MPSImageFeatureChannelFormat.float16], FORMATS[MPSImageFeatureChannelFormat.float32]
PLACES = ("the first source", "the second source", "the third source")


def nth_source(k: int) -> str:
    """Which source it is, for texts; nodes that are judged together may read many."""
    return PLACES[k] if k < len(PLACES) else f"source {k + 1}"


ZERO, UNKNOWN = -1, -2
"""Instead of the index of an element: memory that holds 0, and memory that was not recorded."""

Move: TypeAlias = Callable[[tuple[int, int, int, int], Index], Index]
"""From the shape of an image and flat indices to where these elements were taken from, or `ZERO` or `UNKNOWN`."""

Values: TypeAlias = Callable[[Index], Wide]
Store: TypeAlias = Callable[[Case, Index, Values], Stored]
"""What memory holds at some elements, from the exact values at any."""


@dataclass(frozen=True)
class Candidate:
    """
    What the image would hold.

    Attributes
    ----------
    detail : str
        Which variant of the fault this is; empty if it has only one.
    move : callable, optional
        Where elements are taken from.
    source : int, optional
        The source that is moved; without it the result is.
    function : callable, optional
        What a step computes.
    step : int
        Which step.
    reads : callable, optional
        From the sources' elements to what is read instead.
    store : callable, optional
        What is stored of the values.
    known : callable, optional
        Which flat indices it says something of; default: all whose place of origin was recorded.
    undo : callable, optional
        From bytes as they are stored to the values that were meant: their bounds are those of the elements.
    coarse : bool
        Whether the store is coarser than the format: a value within bounds may then be stored as a neighbour.
    exact : bool
        Whether it says which bits memory holds, whatever was computed: nothing else is close to them.
    given : Given, optional
        What a layer gives instead of the case's own.
    cancels : float
        What terms that are as large as what is read, or 1, may leave where they cancel, if it is another function or
        arithmetic, and may do so where the node's do not: results as small as that refute nothing.
    ends : callable, optional
        Between what it is at some elements, where their own bounds around what it gives are not its bounds.
    restored : Restored, optional
        The image that follows from what its sources should be; it has bounds of its own.
    """

    detail: str = ""
    move: Move | None = None
    source: int | None = None
    function: Function | None = None
    step: int = -1
    reads: Callable[[Sequence[Elements], Index], Sequence[Elements]] | None = None
    store: Store | None = None
    known: Callable[[Index], Mask] | None = None
    undo: Callable[[Stored], Stored] | None = None
    coarse: bool = False
    exact: bool = False
    given: Given | None = None
    cancels: float = 0.0
    ends: Callable[[Case, Index], tuple[Stored, Stored]] | None = None
    restored: Restored | None = None

    @property
    def is_arithmetic(self) -> bool:
        """Whether it is about an arithmetic, which leaves more where terms cancel than another function does."""
        return self.cancels > CANCELLED

    def at(self, case: Case, index: Index, nudge: int = 0) -> tuple[Stored, Mask | None]:
        """
        The stored elements at flat indices, and which are known; None if all are.

        With a `nudge` of -1 or 1 they are of values one ULP away; of a layer's image, of an end of their bounds.
        """
        moved, known = index, None
        if self.restored is not None:
            return self.restored.want[index], None
        if self.move is not None and self.source is None:
            moved = self.move(case.shape, index)
            known = moved != UNKNOWN
        elif self.move is not None:
            known = self.move(case.shape, index) != UNKNOWN
        if self.known is not None:
            known = self.known(index) if known is None else known & self.known(index)
        if self.store is not None:
            factor = 1.0 if case.layers else 1 + nudge * 2.0 ** (1 - case.result.precision)
            out = self.store(case, moved, lambda where: factor * self.values(case, where, nudge))
        elif self._is_only_stored and not (nudge and case.layers):
            out = case.want.reshape(-1)[np.maximum(moved, 0)]
        else:
            out = case.stored(self.values(case, moved, nudge))
        if moved is not index:
            out = np.where(moved < 0, out.dtype.type(0), out)
        return out, known

    def values(self, case: Case, index: Index, end: int = 0) -> Wide:
        """The values at flat indices before they are stored; of a layer's image also an end of their bounds."""
        if self.move is not None:
            index = np.maximum(index, 0)
        end = end if case.layers else 0
        if self._is_only_stored:
            return case.exact(end, index)
        read, functions = case.reading(index, end, self.given)
        if self.move is not None and self.source is not None:
            read[self.source] = case.sources[self.source].at(self.move(case.shape, index))
        if self.reads is not None:
            read = list(self.reads(read, index))
        if self.function is not None:
            functions[self.step % len(case.steps)] = self.function
        return case.values(index, functions, read)

    @property
    def _is_only_stored(self) -> bool:
        """Whether the values are as they should be."""
        return self.function is None and self.source is None and self.reads is None and self.given is None

    @property
    def is_only_moved(self) -> bool:
        """Whether it is a move and nothing else."""
        others = self.function, self.reads, self.store, self.known, self.given
        return self.move is not None and all(part is None for part in others)

    def named(self, detail: str) -> Candidate:
        """The same with another detail."""
        return replace(self, detail=detail)

    def release(self) -> None:
        """Forget whole images that can be made again."""
        if self.given is not None:
            self.given.release()

    def with_part(self, other: Candidate) -> Candidate:
        """The candidate with the parts of another one besides."""
        detail = joined(self.detail, other.detail)
        names = ("move", "source", "function", "step", "reads", "store", "known", "undo", "coarse", "exact", "given",
                 "cancels", "ends")  # fmt: skip
        parts = {name: value for name in names if (value := getattr(other, name)) not in (None, -1, False)}
        if not (self.is_only_moved or other.is_only_moved):
            # Ends are those of one part alone.
            parts["ends"] = None
        return replace(self, detail=detail, **parts)


def at_once(
    candidates: Sequence[Candidate], case: Case, index: Index, nudge: int = 0
) -> list[tuple[Stored, Mask | None]]:
    """What each of several candidates gives, see `Candidate.at`; moves of the same source are evaluated together."""
    found: dict[int, tuple[Stored, Mask | None]] = {}
    for source in (None, *range(len(case.sources))):
        several = [c for c in candidates if c.source == source and c.is_only_moved]
        if len(several) > 1:
            where = np.stack([c.move(case.shape, index) for c in several if c.move is not None])
            all_of_them = Candidate(move=lambda *_, where=where: where.reshape(-1), source=source)
            out, _ = all_of_them.at(case, np.tile(index, len(where)), nudge)
            found |= zip(map(id, several), zip(out.reshape(where.shape), where != UNKNOWN, strict=True), strict=True)
    return [found[id(c)] if id(c) in found else c.at(case, index, nudge) for c in candidates]


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
        How many elements it must explain: more than one, if it has much to choose from.
    general : bool
        Whether it is about all of the arithmetic, and so is no alternative to what says more, nor easily added to it.
    fitted : bool
        Whether it has a number that was fitted to some elements, or comes near much: hardly any other may contradict.
    is_last : bool
        Whether its bounds are so wide, or it says so little, that it is tried only where no other one fits.
    is_first : bool
        Whether it says that the node is right, so that no other one is tried where it fits everywhere.
    """

    name: str
    sentence: str
    candidates: Callable[[Case], Iterator[Candidate]]
    fewest: int = 1
    general: bool = False
    fitted: bool = False
    is_last: bool = False
    is_first: bool = False


ROUNDINGS = 8
"""Rounding errors that terms may leave where they cancel."""

CANCELLED = ROUNDINGS * 2.0**-24
"""Those of float32."""

MANY = 8
"""The fewest elements that are evidence for a hypothesis with a free choice of parameters or places."""


def hypothesis(
    name: str,
    sentence: str,
    fewest: int = 1,
    *,
    general: bool = False,
    fitted: bool = False,
    is_last: bool = False,
    is_first: bool = False,
) -> Callable[[Callable[[Case], Iterator[Candidate]]], Hypothesis]:
    """Make a hypothesis of the function that yields its candidates."""
    return lambda candidates: Hypothesis(name, sentence, candidates, fewest, general, fitted, is_last, is_first)


def of_steps(
    case: Case,
    variants: Callable[[Step], Iterator[tuple[str, Function]]],
    *types: MPSCNNNeuronType,
    neurons: bool = True,
    cancels: float = 0.0,
) -> Iterator[Candidate]:
    """What each step may compute instead; with `neurons`, each that is a neuron, of some types or any."""
    for k, step in enumerate(case.steps):
        p = step.operation.descriptor
        if neurons and (p is None or (types and p.neuron_type not in types)):
            continue
        for detail, function in variants(step):
            text = joined(detail, f"in {step.name}" if len(case.steps) > 1 else "")
            yield Candidate(text, function=function, step=k, cancels=cancels)


def function_hypothesis(
    name: str,
    sentence: str,
    *types: MPSCNNNeuronType,
    fewest: int = 1,
    neurons: bool = True,
    general: bool = False,
    fitted: bool = False,
    cancels: float = 0.0,
) -> Callable[[Callable[[Step], Iterator[tuple[str, Function]]]], Hypothesis]:
    """
    Make a hypothesis of what a step may compute instead: variants, each with a detail.

    It is tried on every step; with `neurons`, only on neurons, those of some types or all.
    """

    def decorate(variants: Callable[[Step], Iterator[tuple[str, Function]]]) -> Hypothesis:
        def of_case(case: Case) -> Iterator[Candidate]:
            yield from of_steps(case, variants, *types, neurons=neurons, cancels=cancels)

        return Hypothesis(name, sentence, of_case, fewest, general, fitted)

    return decorate


def layer_hypothesis(
    name: str, sentence: str, *kinds: Any, fitted: bool = False, is_last: bool = False
) -> Callable[[Callable[[Layer, Case], Variants]], Hypothesis]:
    """
    Make a hypothesis of how a layer may be wrong: variants, each with a detail.

    It is tried on every layer of some kinds of operations; default: of any.
    """

    def decorate(variants: Callable[[Layer, Case], Variants]) -> Hypothesis:
        def of_case(case: Case) -> Iterator[Candidate]:
            for layer in case.layers:
                if isinstance(layer.operation, kinds or Operation):
                    for detail, make in variants(layer, case):
                        text = joined(detail, layer.name and f"in {layer.name}")
                        yield Candidate(text, given=Given(make))

        return Hypothesis(name, sentence, of_case, fitted=fitted, is_last=is_last)

    return decorate


def descriptor_of(step: Step) -> MPSNNNeuronDescriptor:
    """The neuron of a step that has one."""
    assert step.operation.descriptor is not None
    return step.operation.descriptor


def reads_gradient(step: Step) -> bool:
    """Whether a step has an incoming gradient."""
    return Role.GRADIENT in step.operation.roles


def with_operation(operation: Operation) -> Function:
    """What another operation gives for the same sources."""
    return lambda reads: reads.ideal(operation)


def slope_instead(slope: Callable[[Reads], Wide]) -> Function:
    """A gradient with another slope."""
    return lambda reads: reads.upstream * slope(reads)


def joined(*texts: str) -> str:
    """The texts that are not empty, as one."""
    return ", ".join(filter(None, texts))


def decimals(value: float, most: int = 9) -> Iterator[float]:
    """A number with one digit, with two, and so on."""
    return (float(f"{value:.{digits}g}") for digits in range(1, most + 1))


def median(values: Wide) -> float:
    """The median of numbers, of which there is at least one; NumPy's own takes several times as long for few."""
    middle = [(values.size - 1) // 2, values.size // 2]
    return float(np.partition(values, middle)[middle].mean())


def erf(x: Wide) -> Wide:
    """The error function."""
    # Here, because scipy.special takes long to import.
    from scipy import special  # noqa: PLC0415

    y: Wide = special.erf(x)
    return y
