"""The gradients of weights and biases that a device left in a state: their report."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np

from mpsref.arrays import Elements, Index, Mask, Stored, Wide
from mpsref.operations.convolution import ConvolutionGradient
from mpsref.record.states import RecordedArray
from mpsref.storage import StorageFormat, storage_of
from mpsref.ulp import UNREACHABLE
from mpsref.verify.bounds import classify
from mpsref.verify.case import Case
from mpsref.verify.compare import Tolerance, compare
from mpsref.verify.faults import Finding, explain
from mpsref.verify.hypotheses import STATE_PRECISIONS, STATES
from mpsref.verify.layer import StateLayer
from mpsref.verify.models import MODELS, Model
from mpsref.verify.precision import precision_note
from mpsref.verify.ranges import Range
from mpsref.verify.reasons import BEYOND, Reason
from mpsref.verify.report import Element, ImageReport
from mpsref.verify.restored import Restored
from mpsref.verify.running import Running
from mpsref.verify.tolerance import Bounds, Limit, excused_by
from mpsref.verify.windows import middle_of, size_of_range, summed

__all__ = ["RestoredSources", "state_report"]

AXES = ("result channels", "rows of the window", "columns of the window", "channels")


RestoredSources: TypeAlias = tuple[tuple[str, ...], Sequence[Elements], Sequence[Callable[[Running], Range]]]


class _Sums:
    """The gradient of weights or biases as sums of what is read, exact and in ranges."""

    def __init__(
        self,
        operation: ConvolutionGradient,
        kind: str,
        read: Sequence[Elements],
        ranges_read: Sequence[Callable[[Running], Range]],
    ) -> None:
        self._operation, self._kind, self._read, self._ranges = operation, kind, read, ranges_read
        self._known: dict[tuple[Any, ...], Range] = {}

    def want(self, storage: StorageFormat) -> Stored:
        """The right elements, flat."""
        exact = self._operation.parameter_gradients(*self._read)[self._kind]
        return exact.rounded(storage).reshape(-1)

    def _of(self, a: Wide, b: Wide) -> Wide:
        is_bias = self._kind == "gradient_for_biases"
        total: Wide = a.sum(axis=(0, 1, 2)) if is_bias else self._operation.correlated(a, b)
        return total.reshape(-1)

    def whole(self, f: Running) -> Range:
        """The ranges of all elements, flat."""
        if f.key not in self._known:
            (middle, radius), (other, spread) = (middle_of(each(f).whole) for each in self._ranges)
            size, other_size = size_of_range(middle, radius), size_of_range(other, spread)
            error: Any = 0.0 if radius is None else self._of(radius, other_size)
            error = error + (0.0 if spread is None else self._of(np.abs(middle), spread))
            terms = math.prod(middle.shape[:3])
            self._known[f.key] = summed(f, self._of(middle, other), error, self._of(size, other_size), terms)
        return self._known[f.key]

    def classes(self, got: Stored, index: Index, model: Model, storage: StorageFormat) -> Stored:
        """The classes of elements with these indices."""

        def special(part: Index) -> Stored:
            nan = self.whole(Running(model)).nan[index[part]]
            return np.where(nan, np.uint16(Reason.nan), np.uint16(0))

        return classify(got, model, storage, [lambda f, part: self.whole(f).at(index[part])], special)


class _Restored(Restored):
    """A gradient of weights or biases, if sources are what they should be."""

    def __init__(self, names: tuple[str, ...], sums: _Sums, storage: StorageFormat, limit: Limit) -> None:
        self.names = names
        self._sums, self._storage, self._limit = sums, storage, limit

    @cached_property
    def want(self) -> Stored:
        return self._sums.want(self._storage)

    def _classes(self, got: Stored, index: Index, model: Model) -> Stored:
        return self._sums.classes(got, index, model, self._storage)


@dataclass(frozen=True)
class _StateElement(Element):
    """An element of a state, with the indices that its array has."""

    def __str__(self) -> str:
        name, is_bias = next(iter(self.sources.items()))
        place = f"{self.channel}" if is_bias else f"{self.image}, {self.y}, {self.x}, {self.channel}"
        distance = "not comparable" if self.ulp is None else f"{self.ulp:,} ULP"
        return f"{name}[{place}]: got {self.got}, want {self.want}, {distance}"


def state_report(
    name: str,
    kind: str,
    recorded: RecordedArray,
    operation: ConvolutionGradient,
    read: Sequence[Elements],
    ranges_read: Sequence[Callable[[Running], Range]],
    limit: Limit,
    *,
    worst: int = 5,
    faults: bool = True,
    node: str = "",
    unrecorded: tuple[str, ...] = (),
    restored: Iterable[RestoredSources] = (),
) -> ImageReport:
    """
    The report of one array.

    Parameters
    ----------
    name, kind : str
        The image of the layer, and ``gradient_for_weights`` or ``gradient_for_biases``.
    recorded : RecordedArray
        What the device wrote: float32, or float16.
    operation : ConvolutionGradient
        What fills the state.
    read : sequence of Elements
        The incoming gradient and the forward source that the device read.
    ranges_read : sequence of callable
        The ranges of these, of their shapes.
    limit : Tolerance or Bounds
        What passes.
    worst, faults, node, unrecorded
        As for an image.
    restored : iterable of tuple
        What the device may have read instead, where sources are out of bounds: their names, and as `read` and
        `ranges_read`.
    """
    is_bias = kind == "gradient_for_biases"
    shape = (1, 1, 1, -1) if is_bias else operation.weights.values.shape
    got = recorded.elements().reshape(shape) if is_bias else recorded.weights(shape)
    storage = storage_of(got, name)
    sums = _Sums(operation, kind, read, ranges_read)
    want = sums.want(storage).reshape(got.shape)
    shape = got.shape

    def classes(index: Index, stored: Stored) -> Stored:
        assert isinstance(limit, Bounds)
        return sums.classes(stored, index, MODELS[limit.model], storage)

    judge = limit if isinstance(limit, Tolerance) else classes
    comparison = compare(got, want, storage, judge, worst, excused_by(limit))

    def case() -> Case:
        bad: Mask = np.zeros(shape, np.bool_)
        bad.reshape(-1)[comparison.beyond] = True
        gradient, source = (each.values() for each in read)
        layer = StateLayer.of(operation, (gradient, source), is_bias=is_bias)
        return Case.of_layers([layer], storage, got, want, bad, axes=AXES)

    findings: list[Finding] = []
    note = ""
    if faults and comparison.beyond.size:
        others = tuple(
            _Restored(names, _Sums(operation, kind, other, ranges), storage, limit) for names, other, ranges in restored
        )
        findings = explain(replace(case(), restored=others), hypotheses=STATES)
    elif faults and not unrecorded:
        note = precision_note(got, want, storage, case, STATE_PRECISIONS)
    title = f"{name}.{kind}"
    elements = []
    for flat, distance, class_ in zip(comparison.worst, comparison.distances, comparison.classes, strict=True):
        o, ky, kx, i = (int(axis) for axis in np.unravel_index(flat, shape))
        place = o, ky, kx, i
        elements.append(
            _StateElement(
                *(o, ky, kx, i, 0, 0),
                sources={title: "1" if is_bias else ""},
                got=str(got[place]),
                want=str(want[place]),
                ulp=None if distance == UNREACHABLE else int(distance),
                beyond=bool(class_ == BEYOND),
            )
        )
    return ImageReport(
        title,
        node,
        storage.name,
        comparison.counts,
        tuple(elements),
        direction="gradient",
        limit=str(limit),
        unrecorded=unrecorded,
        findings=tuple(findings),
        histogram={str(most): n for most, n in comparison.histogram.items()},
        note=note,
    )
