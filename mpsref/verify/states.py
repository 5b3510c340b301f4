"""The gradients of weights and biases that a device left in a state: their report."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mpsref.arrays import Elements, Index, Mask, Stored, Wide
from mpsref.operations.convolution import ConvolutionGradient
from mpsref.record.states import RecordedArray
from mpsref.storage import storage_of
from mpsref.ulp import UNREACHABLE
from mpsref.verify.bounds import classify
from mpsref.verify.case import Case
from mpsref.verify.compare import Tolerance, compare
from mpsref.verify.faults import Finding, explain
from mpsref.verify.hypotheses import STATE_PRECISIONS, STATES
from mpsref.verify.layer import StateLayer
from mpsref.verify.models import MODELS
from mpsref.verify.precision import precision_note
from mpsref.verify.ranges import Range
from mpsref.verify.reasons import BEYOND, Reason
from mpsref.verify.report import Element, ImageReport
from mpsref.verify.running import Running
from mpsref.verify.tolerance import Bounds, Limit, excused_by
from mpsref.verify.windows import middle_of, size_of_range, summed

__all__ = ["state_report"]

AXES = ("result channels", "rows of the window", "columns of the window", "channels")


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
    """
    gradient, source = read
    is_bias = kind == "gradient_for_biases"
    exact = operation.parameter_gradients(gradient, source)[kind]
    shape = (1, 1, 1, exact.shape[0]) if is_bias else operation.weights.values.shape
    got = (recorded.elements() if is_bias else recorded.weights(shape)).reshape(shape)
    storage = storage_of(got, name)
    want = exact.rounded(storage).reshape(shape)
    g, x = gradient.values(), source.values()

    def sums(a: Wide, b: Wide) -> Wide:
        total: Wide = (a.sum(axis=(0, 1, 2)) if is_bias else operation.correlated(a, b)).reshape(shape)
        return total

    known: dict[tuple[Any, ...], Range] = {}

    def whole(f: Running) -> Range:
        if f.key not in known:
            (middle, radius), (other, spread) = (middle_of(each(f).whole) for each in ranges_read)
            size, other_size = size_of_range(middle, radius), size_of_range(other, spread)
            error = 0.0 if radius is None else sums(radius, other_size)
            error += 0.0 if spread is None else sums(np.abs(middle), spread)
            total = summed(f, sums(middle, other), error, sums(size, other_size), math.prod(g.shape[:3]))
            known[f.key] = total.reshape((-1,))
        return known[f.key]

    def classes(index: Index) -> Stored:
        assert isinstance(limit, Bounds)

        def special(part: Index) -> Stored:
            nan = whole(Running(model)).nan[index[part]]
            return np.where(nan, np.uint16(Reason.nan), np.uint16(0))

        model = MODELS[limit.model]
        forms = [lambda f, chosen: whole(f).at(index[chosen])]
        return classify(got.reshape(-1)[index], model, storage, forms, special)

    judge = limit if isinstance(limit, Tolerance) else classes
    comparison = compare(got, want, storage, judge, worst, excused_by(limit))

    def case() -> Case:
        bad: Mask = np.zeros(shape, np.bool_)
        bad.reshape(-1)[comparison.beyond] = True
        layer = StateLayer.of(operation, (g, x), is_bias=is_bias)
        return Case.of_layers([layer], storage, got, want, bad, axes=AXES)

    findings: list[Finding] = []
    note = ""
    if faults and comparison.beyond.size:
        findings = explain(case(), hypotheses=STATES)
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
