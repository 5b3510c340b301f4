"""A recorded image: compared with what its node makes of what it read, its causes, and its report."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property

import numpy as np
import numpy.typing as npt

from mpsref.arrays import Elements, Index, Mask, Stored, spread
from mpsref.graph.nodes import MPSNNFilterNode, MPSNNImageNode
from mpsref.image_lanes import texel_of
from mpsref.operations import ConvolutionOperation, MaximumGradient, Operation, Size
from mpsref.record.layout import Layout
from mpsref.ulp import UNREACHABLE
from mpsref.verify.aggregate import Aggregate
from mpsref.verify.bias import NEIGHBOUR, Directed, sampled, signed_errors
from mpsref.verify.case import Case, Ends, around, remembered, within
from mpsref.verify.chain import Chain
from mpsref.verify.compare import Comparison, Tolerance, compared
from mpsref.verify.differences import Deferred, Differences
from mpsref.verify.faults import Finding, explain
from mpsref.verify.hypotheses import PRECISIONS
from mpsref.verify.judge import Segment
from mpsref.verify.models import MODELS, Model, models_of
from mpsref.verify.precision import precision_note
from mpsref.verify.reasons import BEYOND, WITHIN, Reason
from mpsref.verify.report import Element, EndToEnd, ImageReport
from mpsref.verify.segments import Walk, fused, layers_of
from mpsref.verify.stored import Nearness
from mpsref.verify.ties import wrong_ties
from mpsref.verify.tolerance import Bounds, Limit

__all__ = ["JudgedImage"]

FIRST = 4096
"""Elements on which other models are tried first."""


@dataclass(frozen=True, eq=False)
class JudgedImage:
    """
    A recorded image.

    Parameters
    ----------
    chain : Chain
        Where its node is.
    node : MPSNNFilterNode
        What makes it.
    got : Deferred
        The image.
    read : sequence of Deferred
        What the node read.
    differences : Differences
        Those to what the node makes of that.
    limit : Limit
        What passes.
    worst : int
        How many of the farthest elements are reported.
    """

    chain: Chain
    node: MPSNNFilterNode
    got: Deferred
    read: Sequence[Deferred]
    differences: Differences
    limit: Limit
    worst: int

    @property
    def _operation(self) -> Operation:
        return self.node.operation

    @property
    def _layout(self) -> Layout:
        return self.chain.recorded[self.node.result_image].layout

    @cached_property
    def _nodes(self) -> list[MPSNNFilterNode]:
        """The node, and those before it that nothing is recorded of."""
        return self.chain.segment(self.node)

    @cached_property
    def _deferred(self) -> Mapping[MPSNNImageNode, Deferred]:
        return self.chain.inputs(self._nodes, self.read)

    @cached_property
    def _inputs(self) -> dict[MPSNNImageNode, Elements]:
        """What the nodes read, as a whole; most images need it not."""
        return {image: value.elements() for image, value in self._deferred.items()}

    @cached_property
    def _segment(self) -> Segment:
        return Segment(self._nodes, self._deferred, self.chain.formats)

    @cached_property
    def _ties(self) -> Callable[[Model], Mask | None]:
        """Where a gradient of maxima goes to a place that no maximum of a window has; None for other nodes."""

        @cache
        def of_model(model: Model) -> Mask | None:
            if len(self._nodes) > 1 or not isinstance(self._operation, MaximumGradient):
                return None
            gradient, x = (image.elements().values() for image in self.read)
            made = self.got.elements().stored.reshape(x.shape)
            return wrong_ties(self._operation, gradient, x, made, self.got.storage, model).reshape(-1)

        return of_model

    # ---- comparing ----

    def _judged(
        self,
        limit: Limit,
        worst: int,
        differences: Differences,
        nearness: Nearness = Nearness.ITSELF,
        segment: Segment | None = None,
    ) -> Comparison:
        """The comparison by a limit; `segment`, if it is not the image's own, says how else it may have been made."""
        storage = self.got.storage
        if isinstance(limit, Tolerance):
            return compared(differences, storage, limit, worst)
        chosen = segment or self._segment

        def judge(index: Index, got: Stored) -> npt.NDArray[np.uint16]:
            classes = chosen.classify(got, index, MODELS[limit.model], nearness)
            ties = self._ties(MODELS[limit.model])
            return classes if ties is None else np.where(ties[index], np.uint16(BEYOND), classes)

        return compared(differences, storage, judge, worst, limit.excused, is_texture=self._layout.is_texture)

    def _directed(self, comparison: Comparison) -> Directed | None:
        """Evidence of a store that does not round to nearest."""
        storage, limit = self.got.storage, self.limit
        if isinstance(limit, Tolerance) or comparison.identical:
            return None
        # A model that computes in the format of the image, or a coarser one, leaves nothing to the store.
        if not storage.unorm_max and storage.precision >= MODELS[limit.model].precision:
            return None
        evidence = self._segment.directed(self.differences, comparison.beyond, MODELS[limit.model])
        # Of what is wrong anyhow, some elements come near what is right.
        return None if evidence and evidence.way == NEIGHBOUR and comparison.counts.beyond else evidence

    def _others(self, comparison: Comparison) -> tuple[str, ...]:
        """Other models that pass all, and excuse no more; some elements that failed are tried first."""
        limit, beyond = self.limit, comparison.beyond
        if isinstance(limit, Tolerance) or not beyond.size:
            return ()
        first = self.differences.only(beyond[spread(beyond.size, FIRST)])

        def passes(other: Bounds) -> bool:
            if self._judged(other, 0, first).counts.beyond:
                return False
            counts = self._judged(other, 0, self.differences).counts
            excused = [sum(each.excused.values()) for each in (counts, comparison.counts)]
            return not counts.beyond and excused[0] <= excused[1]

        names = (name for name in models_of(self.got.storage) if name != limit.model)
        return tuple(name for name in names if passes(replace(limit, model=name)))

    def _unrounded(self) -> tuple[Comparison, Differences] | None:
        """The comparison if a neuron is fused into the convolution before it; None where that cannot be."""
        node, storage = fused(self._nodes), self.got.storage
        if node is None:
            return None
        inputs = {node.sources[0]: self._inputs[self._nodes[0].sources[0]]}
        formats = {node.result_image: storage}
        actual = self.got.elements().stored
        expected = Walk([node], inputs, formats).images({})[node.result_image].stored
        differences = Differences.between(actual, expected, storage, sampled(actual.size))
        segment = Segment([node], inputs, formats)
        return self._judged(self.limit, self.worst, differences, segment=segment), differences

    def _accumulated(self, comparison: Comparison) -> str:
        """In which precision sums within bounds may have been added, where half is allowed."""
        operation, limit, differences = self._operation, self.limit, self.differences
        if not isinstance(operation, ConvolutionOperation) or not operation.half_accumulator or len(self._nodes) > 1:
            return ""
        if isinstance(limit, Tolerance) or comparison.counts.beyond:
            return ""
        single = replace(operation, half_accumulator=False)
        segment = Segment(self._nodes, self._inputs, self.chain.formats, [single])
        classes = segment.classify(differences.got, differences.index, MODELS[limit.model])
        return f"accumulated in {'half' if (classes == BEYOND).any() else 'float32'}"

    # ---- causes ----

    @cached_property
    def _ends(self) -> Ends | None:
        """The ends of the bounds; a tolerance has none."""
        if isinstance(self.limit, Tolerance):
            return None
        model = MODELS[self.limit.model]
        return remembered(lambda index: self._segment.ends(index, model))

    def _case(self, comparison: Comparison, wanted: Deferred) -> Case:
        chain, storage, result = self.chain, self.got.storage, self.node.result_image
        got, want = self.got.elements().stored, wanted.elements().stored
        bad = np.zeros(got.shape, np.bool_)
        bad.reshape(-1)[comparison.beyond] = True
        others = chain.others(result, self.got.size)
        if not all(node.operation.is_pointwise for node in self._nodes):
            layers = layers_of(Walk(self._nodes, self._inputs, chain.formats), chain.names)
            return replace(Case.of_layers(layers, storage, got, want, bad, others), ends=self._ends)
        bound = within(storage, self.limit if isinstance(self.limit, Tolerance) else None)
        if self._ends is not None:
            bound = around(storage, want, self._ends)
        case = Case.of_segment(
            self._nodes, self._inputs, chain.formats, chain.names, got, want, bad, bound, others, chain.operations,
            self._ends,
        )  # fmt: skip
        if isinstance(self.limit, Tolerance):
            return case
        segment, model = self._segment, MODELS[self.limit.model]
        near = around(storage, want, lambda index: segment.core_ends(index, model))
        return replace(case, near=near, far=lambda index: segment.far(index, model))

    def _findings(self, comparison: Comparison, wanted: Deferred) -> list[Finding]:
        self.chain.blame(self.node.result_image, comparison.beyond, math.prod(self.got.size))
        restored = self.chain.restored(self._nodes, self.got.size[0], self.limit)
        case = self._case(comparison, wanted)
        axes = self._layout.axes if not case.layers else case.axes
        return explain(replace(case, layout=self._layout, restored=restored, axes=axes))

    def _note(self, comparison: Comparison, wanted: Deferred) -> str:
        """What may be said of an image that passes."""
        if len(self._nodes) > 1 or not isinstance(self._operation, ConvolutionOperation):
            return ""
        got, want = self.got.elements().stored, wanted.elements().stored
        return precision_note(got, want, self.got.storage, lambda: self._case(comparison, wanted), PRECISIONS)

    # ---- the report ----

    def report(self, from_sources: Differences | None, *, faults: bool, collect: Aggregate | None) -> ImageReport:
        """
        The verdict.

        Parameters
        ----------
        from_sources : Differences, optional
            Those to the reference from the graph's sources on, if that is another.
        faults : bool
            Whether causes are looked for.
        collect : Aggregate, optional
            Gets what plots are made of.
        """
        name, storage, operation, limit = self.name, self.got.storage, self._operation, self.limit
        differences = self.differences
        comparison = self._judged(limit, self.worst, differences)
        directed = self._directed(comparison)
        if directed is not None and comparison.beyond.size:
            # The ends of the bounds are rounded to nearest.
            comparison = self._judged(limit, self.worst, differences, Nearness.DIRECTED)
        others = self._others(comparison)
        reading = self._accumulated(comparison)
        if (unrounded := self._unrounded()) is not None:
            before = self.chain.names[self._nodes[0].result_image]
            reading = f"{before} is rounded before the neuron"
            counts, own = unrounded[0].counts, comparison.counts
            if (counts.beyond, -counts.exact) < (own.beyond, -own.exact):
                comparison, differences = unrounded
                reading = f"{before} is not rounded: the neuron is fused into its convolution"
        wanted = differences.wanted(self.got)
        # Elements of a window have no one place.
        shown = zip(self.node.sources, self.read, strict=True) if operation.is_pointwise else ()
        sources = {self.chain.names[image]: value for image, value in shown}
        if collect is not None:
            values = {name: source.elements() for name, source in sources.items()}
            collect.add(name, storage, self.got.elements().stored, wanted.elements().stored, comparison, values)
        is_wrong = bool(comparison.beyond.size)
        findings = self._findings(comparison, wanted) if faults and is_wrong else []
        note = self._note(comparison, wanted) if faults and not is_wrong else ""
        end_to_end = None
        if from_sources is not None:
            end_to_end = EndToEnd.of(compared(from_sources, storage, Tolerance()).counts)
        descriptor, (got, want, *_) = operation.descriptor, differences.sample
        return ImageReport(
            name,
            type(self.node).__name__,
            storage.name,
            comparison.counts,
            _elements(comparison, differences, self.got.size, sources, self._layout),
            neuron=None if descriptor is None else descriptor.neuron_type.name,
            direction=operation.direction,
            limit=str(limit),
            model=None if isinstance(limit, Tolerance) else limit.model,
            allowed=limit.allow if isinstance(limit, Bounds) else (),
            is_strict=isinstance(limit, Bounds) and limit.strict and not MODELS[limit.model].rounds_either_way,
            directed=directed,
            signed_errors={} if comparison.identical else signed_errors(got, want, storage),
            others=others if is_wrong else (),
            end_to_end=end_to_end,
            unrecorded=self.chain.unrecorded(self._nodes),
            findings=tuple(findings),
            histogram={str(most): count for most, count in comparison.histogram.items()},
            reading=reading,
            note=note,
        )

    @property
    def name(self) -> str:
        """What the image is called."""
        return self.chain.names[self.node.result_image]


def _elements(
    comparison: Comparison, differences: Differences, size: Size, sources: Mapping[str, Deferred], layout: Layout
) -> tuple[Element, ...]:
    """The worst elements."""
    read = {name: source.few(comparison.worst) for name, source in sources.items()}
    actual, expected = differences.at(comparison.worst)
    elements = []
    for k, flat in enumerate(comparison.worst.tolist()):
        image, y, x, channel = (int(i) for i in np.unravel_index(flat, size))
        texel, lane = texel_of(channel, image, size[3])
        distance, reason = int(comparison.distances[k]), int(comparison.reasons[k])
        elements.append(
            Element(
                image,
                y,
                x,
                channel,
                texel,
                lane,
                {name: str(values[k]) for name, values in read.items()},
                str(actual[k]),
                str(expected[k]),
                None if distance == UNREACHABLE else distance,
                bool(comparison.classes[k] == BEYOND),
                None if reason in (WITHIN, BEYOND) else Reason(reason).name,
                layout.place(flat) if layout.has_own_places else None,
            )
        )
    return tuple(elements)
