"""One walk through the graph of a recording: each recorded image is judged by what its node really read."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from mpsref.arrays import Elements
from mpsref.errors import FileFormatError, naming
from mpsref.executor import MPSNNGraph
from mpsref.graph.nodes import MPSNNFilterNode, MPSNNImageNode
from mpsref.graph.schedule import inputs, schedule
from mpsref.operations import ConvolutionGradient, Operation, Size
from mpsref.plan import Progress
from mpsref.record.recording import Recording
from mpsref.record.states import RecordedArray
from mpsref.storage import StorageFormat, storage_named
from mpsref.verify.aggregate import Aggregate
from mpsref.verify.bias import sampled
from mpsref.verify.chain import Chain
from mpsref.verify.differences import Deferred, Differences, evaluated
from mpsref.verify.judged import JudgedImage
from mpsref.verify.report import PART, ImageReport, Report
from mpsref.verify.states import RestoredSources, state_report
from mpsref.verify.tolerance import Limit, Tolerances

__all__ = ["Verification"]


class Verification:
    """The reference from the sources on, and each node on the inputs that it really had; see `mpsref.verify.verify`."""

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
                    f"override.image: is {override.image!r}, which {recording.graph_path} does not have: "
                    "fix the name, or leave the override out"
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
        self.chain = Chain(self.names, self.recorded, self.wanted)

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
        """The reports of all images; `progress` is called after each node."""
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
        for i, (node, step) in enumerate(zip(self.chain.producers.values(), plan.steps, strict=True)):
            storage = self.chain.formats[node.result_image] = storage_named(step.format or manner.format)
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
                are_recorded = all(source in self.recorded for source in node.sources)
                sample = sampled(math.prod(got.size))
                differences = evaluated(step.operation, read, storage, got, sample, are_recorded=are_recorded)
                from_sources = differences if same else evaluated(step.operation, exact, storage, got)
                ideal[step.result] = from_sources.wanted(got)
                judged = self._judged(node, got, read, differences)
                report = judged.report(None if same else from_sources, faults=self.faults, collect=self.collect)
                reports.append(report)
                del judged
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
            self.missing[f"{self.names[image]}{PART} {count} on"] = f"{why} images of the batch"

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

    def _judged(
        self, node: MPSNNFilterNode, got: Deferred, read: list[Deferred], differences: Differences
    ) -> JudgedImage:
        descriptor = node.operation.descriptor
        limit = self.tolerances.of(
            image=self.names[node.result_image],
            neuron=None if descriptor is None else descriptor.neuron_type.name,
            format=got.storage.name,
            direction=node.operation.direction,
        )
        return JudgedImage(self.chain, node, got, read, differences, limit, self.worst)

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
                    [self.chain.ranges(source, image) for source, image in zip(node.sources, read, strict=True)],
                    limit,
                    worst=self.worst,
                    faults=self.faults,
                    node=type(node).__name__,
                    unrecorded=self.chain.unrecorded([node]),
                    restored=self._restored_sources(node, read, limit),
                )
            yield report

    def _restored_sources(self, node: MPSNNFilterNode, read: list[Deferred], limit: Limit) -> Iterator[RestoredSources]:
        """What a gradient node reads if sources that are out of bounds are what they should be."""
        for names, right in self.chain.restored_sources(node, limit):
            pairs = [
                right[source] if source in right else (image.elements(), self.chain.ranges(source, image))
                for source, image in zip(node.sources, read, strict=True)
            ]
            elements, ranges = zip(*pairs, strict=True)
            yield names, elements, ranges


def _made(operation: Operation, read: list[Deferred], storage: StorageFormat) -> Elements:
    return operation.of_arrays([image.elements() for image in read], storage)
