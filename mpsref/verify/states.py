"""The gradients of weights and biases that a device left in a state: their report."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mpsref.arrays import Elements, Index, Mask, Stored, Wide
from mpsref.operations.convolution import ConvolutionGradient
from mpsref.record.states import RecordedArray
from mpsref.storage import StorageFormat, storage_of
from mpsref.ulp import UNREACHABLE
from mpsref.verify.bounds import stored
from mpsref.verify.compare import Tolerance, compare
from mpsref.verify.faults import Finding
from mpsref.verify.layer_faults import LayerCase, explain_layer, precision_note
from mpsref.verify.layer_hypotheses import STATE_HYPOTHESES, STATE_PRECISIONS
from mpsref.verify.models import Model
from mpsref.verify.ranges import Range
from mpsref.verify.reasons import BEYOND, WITHIN
from mpsref.verify.report import Element, ImageReport
from mpsref.verify.running import Running
from mpsref.verify.windows import summed

__all__ = ["state_report"]


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
    limit: Tolerance | Model,
    *,
    worst: int = 5,
    faults: bool = True,
    node: str = "",
    limit_text: str = "",
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
    limit : Tolerance or Model
        What passes.
    worst, faults, node, limit_text, unrecorded
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

    count = math.prod(g.shape[:3])

    def ranges(f: Running) -> Range:
        return summed(f, sums(g, x), 0.0, sums(np.abs(g), np.abs(x)), count)

    judge: Tolerance | Callable[[Index], Stored]
    judge = limit if isinstance(limit, Tolerance) else lambda index: _classes(got, index, storage, limit, ranges)
    comparison = compare(got, want, storage, judge, worst)
    findings: list[Finding] = []
    if faults and comparison.beyond.size:
        bad: Mask = np.zeros(shape, np.bool_)
        bad.reshape(-1)[comparison.beyond] = True
        case = LayerCase(operation, (g, x), storage, got, want, bad)
        findings = explain_layer(case, STATE_HYPOTHESES)
    note = ""
    if faults and not comparison.beyond.size:
        case = LayerCase(operation, (g, x), storage, got, want, np.zeros(shape, np.bool_))
        note = precision_note(case, STATE_PRECISIONS)
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
        limit=limit_text,
        unrecorded=unrecorded,
        findings=tuple(findings),
        histogram={str(most): n for most, n in comparison.histogram.items()},
        note=note,
    )


def _classes(
    got: Stored, index: Index, storage: StorageFormat, model: Model, ranges: Callable[[Running], Range]
) -> Stored:
    """`WITHIN` or `BEYOND` for some elements."""
    place = storage.ordinals(got.reshape(-1)[index])
    classes = np.full(index.size, BEYOND, np.uint16)
    with np.errstate(all="ignore"):
        for flush in (False, True) if model.flushes else (False,):
            lower, upper, after = stored(ranges(Running(model, flush)), storage)
            low, high, nan = (each.reshape(-1)[index] for each in (lower, upper, after.nan))
            inside = (storage.ordinals(low) <= place) & (place <= storage.ordinals(high))
            classes[inside | (np.isnan(got.reshape(-1)[index]) & nan)] = WITHIN
    return classes
