"""
Verification: did a device write what the graph should compute?

Examples
--------
>>> import numpy as np, tempfile
>>> import mpsref as mps
>>> from mpsref.verify import verify, write_recording
>>> x = mps.MPSNNImageNode(handle="x")
>>> n = mps.MPSCNNNeuronAbsoluteNode(source=x)
>>> file = mps.GraphFile.from_results([n.result_image])
>>> wrote = {"x": np.float16([[[-1, 2]]]), "absolute": np.float16([[[1, 3]]])}
>>> images = {name: mps.MPSImage.from_array(array) for name, array in wrote.items()}
>>> with tempfile.TemporaryDirectory() as folder:
...     report = verify(write_recording(folder, file, images, device="none, made by hand"))
>>> print(report.verdict)
FAIL: 1 of 2 elements is beyond the bounds, in 1 of 1 image, first in absolute (MPSCNNNeuronAbsoluteNode)
>>> print(report.images[0].worst[0])
(image 0, y 0, x 0, channel 1; slice 0 lane 1) x = 2.0: got 3.0, want 2.0, 512 ULP
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mpsref.arguments import checked
from mpsref.arrays import Elements, Index, Mask, Stored, spread
from mpsref.errors import FileFormatError, naming
from mpsref.executor import MPSNNGraph
from mpsref.graph.nodes import MPSNNFilterNode, MPSNNImageNode
from mpsref.graph.schedule import inputs, schedule
from mpsref.image_lanes import texel_of
from mpsref.operations import ConvolutionGradient, ConvolutionOperation, MaximumGradient, Operation, Size
from mpsref.plan import Progress
from mpsref.record.layout import Layout
from mpsref.record.recording import RecordedImage, Recording, read_npy, write_recording
from mpsref.record.states import RecordedArray
from mpsref.storage import StorageFormat, storage_named
from mpsref.ulp import UNREACHABLE, ulp_distance
from mpsref.verify.aggregate import Aggregate
from mpsref.verify.bias import NEIGHBOUR, Directed, sampled, signed_errors
from mpsref.verify.bounds import read as ranges_of
from mpsref.verify.case import Case, Ends, around, remembered, within
from mpsref.verify.compare import Comparison, Counts, Tolerance, compare, compared
from mpsref.verify.differences import Deferred, Differences, evaluated
from mpsref.verify.faults import Finding, explain
from mpsref.verify.hypotheses import PRECISIONS
from mpsref.verify.judge import Segment
from mpsref.verify.models import MODELS, models_of
from mpsref.verify.precision import precision_note
from mpsref.verify.ranges import Range
from mpsref.verify.reasons import BEYOND, EXCUSES, WITHIN, Reason
from mpsref.verify.report import Element, EndToEnd, ImageReport, Report
from mpsref.verify.restored import Restored
from mpsref.verify.running import Running
from mpsref.verify.segments import Walk, fused, layers_of
from mpsref.verify.states import state_report
from mpsref.verify.ties import wrong_ties
from mpsref.verify.tolerance import Bounds, Limit, Override, Tolerances, tolerances_of

__all__ = [
    "UNREACHABLE",
    "Aggregate",
    "Bounds",
    "Comparison",
    "Counts",
    "Element",
    "EndToEnd",
    "Finding",
    "ImageReport",
    "Limit",
    "Override",
    "Reason",
    "RecordedImage",
    "Recording",
    "Report",
    "Tolerance",
    "Tolerances",
    "compare",
    "read_npy",
    "ulp_distance",
    "verify",
    "write_recording",
]

MOST_RESTORED = 8
"""How many choices of wrong sources are tried."""


@checked
def verify(
    recording: Recording | str | Path,
    tolerance: Tolerances | Tolerance | Bounds | str | None = None,
    *,
    allow: str | Iterable[str] = (),
    strict: bool = False,
    worst: int = 5,
    faults: bool = True,
    partial: bool = False,
    device: str | None = None,
    progress: Progress | None = None,
    collect: Aggregate | None = None,
) -> Report:
    """
    Evaluate a recording's graph on its sources and compare every recorded image.

    Each node is judged by its own inputs: the recorded source images, or, where these are not recorded, what the nodes
    before compute from recorded images. So one wrong node does not incriminate those after it.

    Parameters
    ----------
    recording : Recording or path
        The images that the device wrote, with their graph.
    tolerance : Tolerances, Tolerance, Bounds or str, optional
        What passes; a string is a preset: one of `mpsref.verify.bounds.MODELS`, ``exact``, or ``ulp=N``. Default:
        ``metal-fast``, what the default mode of Metal's compiler allows.
    allow : iterable of str
        What is excused besides what a model excuses anyway, such as ``overflow``, see
        `mpsref.verify.reasons.Reason`.
    strict : bool
        Whether nothing else is excused, and a store that does not round to nearest fails.
    worst : int
        How many of the farthest elements to report for each image.
    faults : bool
        Whether to look for the likely fault of an image beyond the bounds, see `mpsref.verify.faults`.
    partial : bool
        Whether images may lack files: what is there is judged, and what is not is listed. An image that is computed
        from a source that is not there cannot be judged either.
    device : str, optional
        What wrote the images, instead of what the recording says.
    progress : callable, optional
        Called after each node with the numbers of finished nodes and of all nodes.
    collect : Aggregate, optional
        Collects the data for plots and heat maps.

    Returns
    -------
    Report
        Its `check` raises an error unless it passed.

    Raises
    ------
    FileFormatError
        The recording cannot be read, lacks a source, holds nothing to compare, or has an image of another size or
        format than the graph computes; or the tolerance names an image that the graph does not have.
    ParameterError
        The preset or the excuse does not exist.
    """
    recording = recording if isinstance(recording, Recording) else Recording.read(recording, complete=not partial)
    if device is not None:
        recording = replace(recording, device=device)
    tolerances = tolerances_of(tolerance).with_excuses(allow, strict=strict)
    return _Verification(recording, tolerances, worst, faults, partial, collect).run(progress)


class _Verification:
    """One walk through the graph: the reference from the sources on, and each node on the inputs that it really had."""

    def __init__(
        self,
        recording: Recording,
        tolerances: Tolerances,
        worst: int,
        faults: bool,
        partial: bool,
        collect: Aggregate | None,
    ) -> None:
        self.recording, self.tolerances, self.worst, self.faults = recording, tolerances, worst, faults
        self.collect = collect
        self.names = {image: name for name, image in recording.graph.images.items()}
        self.recorded = {recording.graph.images[name]: entry for name, entry in recording.images.items()}
        for override in tolerances.overrides:
            if override.image is not None and override.image not in recording.graph.images:
                raise FileFormatError(
                    f"override.image: is {override.image!r}, which {recording.graph_path} does not have"
                )
        filling = [node.result_image for node in recording.graph.nodes if self._state(node)]
        needed = [*self.recorded, *filling]
        self.wanted = [
            node.result_image for node in schedule(needed) if node.result_image in {*self.recorded, *filling}
        ]
        self.missing = {name: f"{file.name} is not there" for name, file in recording.missing.items()}
        self.partial = partial
        if partial:
            self._leave_out_what_lacks_a_source()
        if not self.wanted:
            if partial and self.missing:
                reasons = "; ".join(f"{name}: {why}" for name, why in self.missing.items())
                raise self._error(f"images: nothing can be judged: {reasons}")
            raise FileFormatError(f"{recording.path}: images: only sources: name what the device wrote as well")
        self.producers = {node.result_image: node for node in schedule(self.wanted)}
        self.order = {node: i for i, node in enumerate(self.producers.values())}
        self.formats: dict[MPSNNImageNode, StorageFormat] = {}
        # Where images are out of bounds, eight elements a byte.
        self.beyond: dict[MPSNNImageNode, npt.NDArray[np.uint8]] = {}

    def _leave_out_what_lacks_a_source(self) -> None:
        lacks: dict[MPSNNImageNode, MPSNNImageNode] = {}
        for node in schedule(self.wanted):
            for source in node.sources:
                if source.producer is None and source not in self.recorded:
                    lacks.setdefault(node.result_image, source)
                elif source in lacks:
                    lacks.setdefault(node.result_image, lacks[source])
        for image in self.wanted:
            if image in lacks:
                needed = self.names[lacks[image]]
                self.missing.setdefault(needed, "a source that is not there")
                self.missing[self.names[image]] = f"not judged, because {needed} is not there"
        self.wanted = [image for image in self.wanted if image not in lacks]

    def run(self, progress: Progress | None) -> Report:
        sources = inputs(self.wanted)
        for image in sources:
            if image not in self.recorded:
                raise self._error(f"images.{self.names[image]}: missing: the graph reads it as a source")
        graph = MPSNNGraph(result_images=self.wanted, format=self.recording.graph.storage)
        plan, manner = graph.plan, graph.manner()
        entries = [self.recorded[image] for image in sources]
        batch = min(entry.size[0] for entry in entries) if self.partial else None
        with naming(self.recording.path):
            sizes = plan.sizes_for([((batch or entry.size[0], *entry.size[1:]), entry.storage) for entry in entries])
        # By slot of the plan: the reference's images, and what the device's nodes read.
        ideal = {slot: Deferred.read(entry).first(batch) for slot, entry in enumerate(entries)}
        own = dict(ideal)
        whole = max(max(entry.batch, entry.size[0]) for entry in self.recorded.values()) if self.partial else 0
        for entry, image in zip(entries, sources, strict=True):
            self._note_batch(image, entry.size[0], whole)
        reports = []
        for i, (node, step) in enumerate(zip(self.producers.values(), plan.steps, strict=True)):
            storage = self.formats[node.result_image] = storage_named(step.format or manner.format)
            is_recorded = node.result_image in self.recorded
            got = self._read(node.result_image, sizes[step.result], storage) if is_recorded else None
            read, exact = ([images[source] for source in step.sources] for images in (own, ideal))
            same = all(ours is theirs for ours, theirs in zip(read, exact, strict=True))
            count = min(image.size[0] for image in (*read, got) if image is not None)
            read, exact = ([image.first(count) for image in images] for images in (read, exact))
            if got is None:
                own[step.result] = Deferred.of(_made(step.operation, read, storage))
                ideal[step.result] = own[step.result] if same else Deferred.of(_made(step.operation, exact, storage))
            else:
                own[step.result] = got = got.first(count)
                differences = evaluated(step.operation, read, storage, got, sampled(math.prod(got.size)))
                from_sources = differences if same else evaluated(step.operation, exact, storage, got)
                ideal[step.result] = from_sources.wanted(got)
                reports.append(self._report(node, got, differences, None if same else from_sources, read))
                self._note_batch(node.result_image, count, whole)
            del got
            if count >= whole:
                reports += self._state_reports(node, read)
            elif self._state(node):
                self.missing[f"the gradients of {step.name}"] = "sums over images that are not there"
            del read, exact
            for index in step.last_reads:
                del ideal[index], own[index]
            if progress is not None:
                progress(i + 1, len(plan.steps))
        return Report(
            str(self.recording.path),
            self.recording.device,
            self.tolerances,
            tuple(reports),
            faults=self.faults,
            missing=self.missing,
        )

    def _note_batch(self, image: MPSNNImageNode, count: int, whole: int) -> None:
        """List the images of a batch that are not judged."""
        if count < whole:
            held = self.recorded[image].size[0]
            why = f"its file holds {held} of the {whole}" if held < whole else f"a source has {count} of the {whole}"
            self.missing[f"{self.names[image]}, from image {count} on"] = f"{why} images of the batch"

    def _error(self, text: str) -> FileFormatError:
        return FileFormatError(f"{self.recording.path}: {text}")

    def _read(self, image: MPSNNImageNode, size: Size, storage: StorageFormat) -> Deferred:
        entry, name = self.recorded[image], self.names[image]
        axes = "number_of_images", "height", "width", "feature_channels"
        facts = [("channel_format", entry.storage.name, storage.name)]
        for fact, actual, expected in [*facts, *zip(axes, entry.size, size, strict=True)]:
            if expected != actual and not (self.partial and fact == "number_of_images"):
                fix = ("fix the recording, or the graph's storage" if fact == "channel_format"
                       else f"it holds {actual} of the {expected} images of the batch: write all of them"
                       if fact == "number_of_images" and entry.size[0] < size[0]
                       else "an image is as large as the sources that it is made of, in order N, H, W, C")  # fmt: skip
                raise self._error(f"images.{name}.{fact}: is {actual}, but the graph makes {expected}: {fix}")
        return Deferred.read(entry)

    def _report(
        self,
        node: MPSNNFilterNode,
        got: Deferred,
        differences: Differences,
        from_sources: Differences | None,
        read: list[Deferred],
    ) -> ImageReport:
        """The report of an image, from its differences to what the node makes of what it reads; and of the sources."""
        name, storage = self.names[node.result_image], got.storage
        operation = node.operation
        descriptor = operation.descriptor
        neuron = None if descriptor is None else descriptor.neuron_type.name
        limit = self.tolerances.of(image=name, neuron=neuron, format=storage.name, direction=operation.direction)
        nodes = self._segment(node)
        # Made when they are needed, since most images need neither.
        inputs = self._inputs(nodes, read)
        segment_inputs = cache(lambda: {image: value.elements() for image, value in inputs.items()})
        segment = cache(lambda: Segment(nodes, inputs, self.formats))
        ties = self._ties(nodes, read, got)
        recorded = self.recorded[node.result_image].layout
        comparison, evidence, others = self._compared(limit, segment, ties, differences, storage, recorded.is_texture)
        comparison, differences, reading = self._fused(nodes, segment_inputs, limit, got, comparison, differences)
        if not comparison.counts.beyond:
            others = ()
        wanted = differences.wanted(got)
        # Elements of a window have no one place.
        shown = zip(node.sources, read, strict=True) if operation.is_pointwise else ()
        sources = {self.names[image]: value for image, value in shown}
        if self.collect is not None:
            values = {name: source.elements() for name, source in sources.items()}
            self.collect.add(name, storage, got.elements().stored, wanted.elements().stored, comparison, values)
        wrong = bool(self.faults and comparison.beyond.size)
        if wrong:
            self.beyond[node.result_image] = _packed(comparison.beyond, math.prod(got.size))
        end_to_end = None
        if from_sources is not None:
            end_to_end = EndToEnd.of(compared(from_sources, storage, Tolerance()).counts)
        findings: list[Finding] = []
        note = ""
        if wrong or (self.faults and len(nodes) == 1 and isinstance(operation, ConvolutionOperation)):
            actual, expected = got.elements().stored, wanted.elements().stored

            def case() -> Case:
                bad = np.zeros(actual.shape, np.bool_)
                bad.reshape(-1)[comparison.beyond] = True
                if all(other.operation.is_pointwise for other in nodes):
                    return self._case(nodes, segment_inputs(), segment, actual, expected, bad, limit)
                layers = layers_of(Walk(nodes, segment_inputs(), self.formats), self.names)
                others = self._others(node.result_image, actual)
                made = Case.of_layers(layers, storage, actual, expected, bad, others)
                return replace(made, ends=self._ends(segment, limit))

            if wrong:
                restored = self._restored(node, nodes, got.size[0], limit)
                findings = explain(replace(case(), layout=recorded, restored=restored))
            else:
                note = precision_note(actual, expected, storage, case, PRECISIONS)
        unrecorded = tuple(self.names[source] for source in node.sources if source not in self.recorded)
        between = tuple(self.names[other.result_image] for other in nodes[:-1])
        return ImageReport(
            name,
            type(node).__name__,
            storage.name,
            comparison.counts,
            _elements(comparison, differences, got.size, sources, recorded),
            neuron=neuron,
            direction=operation.direction,
            limit=str(limit),
            model=None if isinstance(limit, Tolerance) else limit.model,
            is_strict=isinstance(limit, Bounds) and limit.strict and not MODELS[limit.model].rounds_either_way,
            directed=evidence,
            signed_errors={}
            if comparison.identical
            else signed_errors(differences.sample[0], differences.sample[1], storage),
            others=others,
            end_to_end=end_to_end,
            unrecorded=tuple(dict.fromkeys((*between, *unrecorded))),
            findings=tuple(findings),
            histogram={str(most): count for most, count in comparison.histogram.items()},
            reading=reading,
            note=note,
        )

    def _compared(
        self,
        limit: Limit,
        segment: Callable[[], Segment],
        ties: Callable[[], Mask | None],
        differences: Differences,
        storage: StorageFormat,
        is_texture: bool,
    ) -> tuple[Comparison, Directed | None, tuple[str, ...]]:
        """Two images compared: evidence of a directed store, and other models that pass where this one fails."""

        def judged(limit: Limit, worst: int, differences: Differences = differences) -> Comparison:
            if isinstance(limit, Tolerance):
                return compared(differences, storage, limit, worst)

            def judge(index: Index) -> npt.NDArray[np.uint16]:
                classes = segment().classify(differences.at(index)[0], index, MODELS[limit.model])
                wrong = ties()
                return classes if wrong is None else np.where(wrong[index], np.uint16(BEYOND), classes)

            return compared(differences, storage, judge, worst, limit.excused, is_texture=is_texture)

        def passes(limit: Bounds) -> bool:
            """Whether a limit passes all, and excuses no more; some that failed are tried first."""
            beyond = comparison.beyond
            if judged(limit, 0, differences.only(beyond[spread(beyond.size, 4096)])).counts.beyond:
                return False
            counts = judged(limit, 0).counts
            excused = [sum(each.excused.values()) for each in (counts, comparison.counts)]
            return not counts.beyond and excused[0] <= excused[1]

        comparison = judged(limit, self.worst)
        evidence: Directed | None = None
        others: tuple[str, ...] = ()
        if isinstance(limit, Bounds):
            # A model that computes in the format of the image, or a coarser one, leaves nothing to the store.
            is_finer = storage.unorm_max or storage.precision < MODELS[limit.model].precision
            if is_finer and not comparison.identical:
                evidence = segment().directed(differences, MODELS[limit.model])
            if comparison.counts.beyond:
                # Of what is wrong anyhow, some elements come near what is right.
                evidence = None if evidence and evidence.way == NEIGHBOUR else evidence
                rest = (replace(limit, model=name) for name in models_of(storage) if name != limit.model)
                others = tuple(other.model for other in rest if passes(other))
        return comparison, evidence, others

    def _fused(
        self,
        nodes: list[MPSNNFilterNode],
        segment_inputs: Callable[[], Mapping[MPSNNImageNode, Elements]],
        limit: Limit,
        got: Deferred,
        comparison: Comparison,
        differences: Differences,
    ) -> tuple[Comparison, Differences, str]:
        """The comparison that fits better where a neuron may be fused into the convolution before it; and which."""
        node = fused(nodes)
        if node is None:
            reading = self._accumulated(nodes, segment_inputs, limit, comparison, differences)
            return comparison, differences, reading
        name, source = self.names[nodes[0].result_image], segment_inputs()[nodes[0].sources[0]]
        formats = {node.result_image: got.storage}
        actual = got.elements().stored
        expected = Walk([node], {node.sources[0]: source}, formats).images({})[node.result_image].stored
        unrounded = Differences.between(actual, expected, got.storage, sampled(actual.size))
        segment = Segment([node], {node.sources[0]: source}, formats)
        judge: Tolerance | Callable[[npt.NDArray[np.intp]], npt.NDArray[np.uint16]]
        judge = limit if isinstance(limit, Tolerance) else (
            lambda index: segment.classify(unrounded.at(index)[0], index, MODELS[limit.model])
        )  # fmt: skip
        excused = EXCUSES if isinstance(limit, Tolerance) else limit.excused
        other = compared(unrounded, got.storage, judge, self.worst, excused)
        own = comparison.counts
        if (other.counts.beyond, -other.counts.exact) < (own.beyond, -own.exact):
            return other, unrounded, f"{name} is not rounded: the neuron is fused into its convolution"
        return comparison, differences, f"{name} is rounded before the neuron"

    def _accumulated(
        self,
        nodes: list[MPSNNFilterNode],
        segment_inputs: Callable[[], Mapping[MPSNNImageNode, Elements]],
        limit: Limit,
        comparison: Comparison,
        differences: Differences,
    ) -> str:
        """In which precision sums within bounds may have been added, where half is allowed."""
        operation = nodes[-1].operation
        if not isinstance(operation, ConvolutionOperation) or not operation.half_accumulator or len(nodes) > 1:
            return ""
        if isinstance(limit, Tolerance) or comparison.counts.beyond:
            return ""
        segment = Segment(nodes, segment_inputs(), self.formats, [replace(operation, half_accumulator=False)])
        classes = segment.classify(differences.got, differences.index, MODELS[limit.model])
        return f"accumulated in {'half' if (classes == BEYOND).any() else 'float32'}"

    def _state(self, node: MPSNNFilterNode) -> Mapping[str, RecordedArray]:
        """The recorded arrays that a gradient node fills."""
        forward = node.forward_node
        return {} if forward is None else self.recording.states.get(self.names.get(forward.result_image, ""), {})

    def _state_reports(self, node: MPSNNFilterNode, read: list[Deferred]) -> Iterator[ImageReport]:
        """The reports of the arrays that a gradient node fills."""
        for kind, recorded in self._state(node).items():
            assert node.forward_node is not None
            assert isinstance(node.operation, ConvolutionGradient)
            name = self.names[node.forward_node.result_image]
            limit = self.tolerances.of(image=f"{name}.{kind}", neuron=None, format="float32", direction="gradient")
            with naming(f"{self.recording.path}: states.{name}.{kind}", FileFormatError):
                report = state_report(
                    name,
                    kind,
                    recorded,
                    node.operation,
                    [image.elements() for image in read],
                    [self._ranges(source, image) for source, image in zip(node.sources, read, strict=True)],
                    limit,
                    worst=self.worst,
                    faults=self.faults,
                    node=type(node).__name__,
                    unrecorded=tuple(self.names[source] for source in node.sources if source not in self.recorded),
                )
            yield report

    def _ranges(self, image: MPSNNImageNode, value: Deferred) -> Callable[[Running], Range]:
        """The ranges of an image that a node reads: as it was recorded, or what the nodes before may have made."""
        if image in self.recorded:
            return lambda f: ranges_of(f, value.elements())
        nodes = self._segment(self.producers[image])
        recorded = (source for node in nodes for source in node.sources if source in self.recorded)
        return Segment(nodes, {source: self.recorded[source].elements() for source in recorded}, self.formats).read

    def _restored(
        self, node: MPSNNFilterNode, nodes: list[MPSNNFilterNode], count: int, limit: Limit
    ) -> tuple[Restored, ...]:
        """The result of a node if sources that are out of bounds are what they should be: each of them, or all."""
        wrong = _read_by(nodes, self.beyond)
        waiting = [[image] for image in wrong] + ([wrong] if len(wrong) > 1 else [])
        found: list[Restored] = []
        while waiting and len(found) < MOST_RESTORED:
            chosen = waiting.pop(0)
            made = self._segment(node, chosen)
            entries = {image: Deferred.read(self.recorded[image]).first(count).elements() for image in
                       _read_by(made, self.recorded) + chosen}  # fmt: skip
            inputs = {image: value for image, value in entries.items() if image not in chosen}
            sources = {image: (entries[image], _unpacked(self.beyond[image], entries[image])) for image in chosen}
            names = tuple(self.names[image] for image in chosen)
            found.append(Restored(names, made, inputs, self.formats, sources, limit))
            # What those were made of may have been overwritten as well.
            if more := [image for image in _read_by(made, self.beyond) if image in inputs and image not in wrong]:
                waiting.append([*more, *chosen])
        return tuple(found)

    def _segment(self, last: MPSNNFilterNode, but: Sequence[MPSNNImageNode] = ()) -> list[MPSNNFilterNode]:
        """The nodes between recorded images, but for some, and the last node's result, in the order of evaluation."""
        segment, waiting = {last}, [last]
        while waiting:
            for source in waiting.pop().sources:
                is_given = source in self.recorded and source not in but
                if not is_given and self.producers[source] not in segment:
                    segment.add(self.producers[source])
                    waiting.append(self.producers[source])
        return sorted(segment, key=self.order.__getitem__)

    def _inputs(self, nodes: list[MPSNNFilterNode], read: list[Deferred]) -> dict[MPSNNImageNode, Deferred]:
        """What a segment reads; `read` is what its last node does."""
        if len(nodes) == 1:
            return dict(zip(nodes[0].sources, read, strict=True))
        recorded = dict.fromkeys(s for node in nodes for s in node.sources if s in self.recorded)
        count = read[0].size[0]
        return {image: Deferred.read(self.recorded[image]).first(count) for image in recorded}

    def _case(
        self,
        nodes: list[MPSNNFilterNode],
        inputs: Mapping[MPSNNImageNode, Elements],
        segment: Callable[[], Segment],
        got: Stored,
        want: Stored,
        bad: npt.NDArray[np.bool_],
        limit: Limit,
    ) -> Case:
        result = nodes[-1].result_image
        storage = self.formats[result]
        ends = self._ends(segment, limit)
        bound = within(storage, limit if isinstance(limit, Tolerance) else None)
        if ends is not None:
            bound = around(storage, want, ends)
        others = self._others(result, want)
        operations = {self.names[image]: node.operation for image, node in self.producers.items()}
        return Case.of_segment(nodes, inputs, self.formats, self.names, got, want, bad, bound, others, operations, ends)

    def _ends(self, segment: Callable[[], Segment], limit: Limit) -> Ends | None:
        """The ends of the bounds of an image; a tolerance has none."""
        if isinstance(limit, Tolerance):
            return None
        model = MODELS[limit.model]
        return remembered(lambda index: segment().ends(index, model))

    def _others(self, result: MPSNNImageNode, like: Stored) -> dict[str, Elements]:
        """Other recorded images of the same size."""
        return {
            self.names[image]: entry.elements()
            for image, entry in self.recorded.items()
            if image is not result and entry.size == like.shape
        }

    def _ties(self, nodes: list[MPSNNFilterNode], read: list[Deferred], got: Deferred) -> Callable[[], Mask | None]:
        """Where a gradient of maxima goes to a place that no maximum of a window has; None for other nodes."""

        @cache
        def ties() -> Mask | None:
            operation = nodes[-1].operation
            if len(nodes) > 1 or not isinstance(operation, MaximumGradient):
                return None
            gradient, x = (image.elements().values() for image in read)
            made = got.elements().stored.reshape(x.shape)
            return wrong_ties(operation, gradient, x, made, got.storage).reshape(-1)

        return ties


def _packed(index: Index, size: int) -> npt.NDArray[np.uint8]:
    mask = np.zeros(size, np.bool_)
    mask[index] = True
    return np.packbits(mask)


def _unpacked(packed: npt.NDArray[np.uint8], like: Elements) -> Mask:
    """The mask of the first images of a batch."""
    return np.unpackbits(packed, count=like.stored.size).view(np.bool_).reshape(like.stored.shape)


def _read_by(nodes: Iterable[MPSNNFilterNode], images: Iterable[MPSNNImageNode]) -> list[MPSNNImageNode]:
    """Which of some images the nodes read, each once."""
    some = set(images)
    return list(dict.fromkeys(source for node in nodes for source in node.sources if source in some))


def _made(operation: Operation, read: list[Deferred], storage: StorageFormat) -> Elements:
    return operation.of_arrays([image.elements() for image in read], storage)


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
