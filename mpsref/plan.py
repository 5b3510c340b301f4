"""A plan: the nodes that some images depend on, frozen and in order of evaluation."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from mpsref.errors import ImageError, ParameterError, SourceError
from mpsref.graph.drawing import Structure
from mpsref.graph.handles import Handle, handle_label
from mpsref.graph.names import image_names, image_tags
from mpsref.graph.nodes import MPSNNFilterNode, MPSNNGradientFilterNode, MPSNNImageNode
from mpsref.graph.schedule import inputs, schedule
from mpsref.image import MPSImage
from mpsref.image_lanes import clear_unused_lanes
from mpsref.neuron.stepwise import Evaluation
from mpsref.operations import Operation, Size, size_text
from mpsref.states import MPSCNNConvolutionGradientState
from mpsref.storage import ChannelFormat, StorageFormat, storage_named

__all__ = ["Input", "Manner", "Plan", "Progress", "Step", "Watch"]

Progress: TypeAlias = Callable[[int, int], None]
"""Called with the number of steps done, and of all steps."""


@dataclass(frozen=True, slots=True)
class Input:
    """
    An image that no node makes.

    Attributes
    ----------
    handle : str, MPSHandle or None
        Its handle.
    format : MPSImageFeatureChannelFormat
        The required format; ``none`` for any.
    read_count : int
        How many nodes read it.
    """

    handle: Handle | None
    format: ChannelFormat
    read_count: int

    @property
    def label(self) -> str | None:
        """The label of its handle."""
        return handle_label(self.handle)

    def __str__(self) -> str:
        return "the source without a handle" if self.label is None else f"source {self.label!r}"


@dataclass(frozen=True, slots=True)
class Step:
    """
    One node, frozen.

    Attributes
    ----------
    node : MPSNNFilterNode
        The node.
    operation : Operation
        Its operation when the plan was made.
    name : str
        Its name in errors.
    sources : tuple of int
        The slots that it reads.
    result : int
        The slot that it writes.
    format : MPSImageFeatureChannelFormat
        How the result is stored; ``none`` leaves it to the graph.
    last_reads : tuple of int
        The slots that no later step reads.
    """

    node: MPSNNFilterNode
    operation: Operation
    name: str
    sources: tuple[int, ...]
    result: int
    format: ChannelFormat
    last_reads: tuple[int, ...]


Watch: TypeAlias = Callable[[Step, Sequence[MPSImage], MPSImage], None]
"""Called after each step with its sources and its result, before any of them is freed."""


@dataclass(frozen=True)
class Manner:
    """
    How a plan is evaluated.

    Attributes
    ----------
    format : MPSImageFeatureChannelFormat
        The format of images whose nodes leave it open.
    evaluation : Evaluation
        The mode.
    workers : int
        The number of threads that share the work of a step.
    """

    format: ChannelFormat
    evaluation: Evaluation
    workers: int = 1


class Plan:
    """
    The steps of an evaluation in order, and when images may be freed.

    Each image has a slot: first the inputs in order, then the result of each step.

    Parameters
    ----------
    results : sequence of MPSNNImageNode
        The requested images.
    needed : sequence of bool
        Whether each of them is returned. Nodes that no needed result or exported image depends on are skipped.

    Attributes
    ----------
    images : tuple of MPSNNImageNode
        The image node of each slot.
    inputs : tuple of Input
        The inputs, in the first slots.
    steps : tuple of Step
        In the order of evaluation.
    results : tuple of int or None
        The slot of each result; None for one that is not needed.
    result_images : tuple of MPSNNImageNode
        The node of each result.
    result_handles : tuple
        The handle of each result.
    names : tuple of str
        A unique name for the image of each slot, see `mpsref.graph.names.image_names`.
    results_by_name : Mapping of str to int
        The slots of the needed results by name; also by handle, label and number (``result0``) where that is unused.
    exports, export_handles : tuple
        Slots and handles of the exported images.
    states : Mapping of int to str
        The steps that fill an exported state, by their places among the steps, and the states' names.
    state_handles : tuple
        The handles of these states.
    """

    def __init__(self, results: Sequence[MPSNNImageNode], needed: Sequence[bool]) -> None:
        everything = list(schedule(results))
        exported = [node.result_image for node in everything if node.result_image.export_from_graph]
        wanted = [image for image, is_needed in zip(results, needed, strict=True) if is_needed]
        kept = everything if len(wanted) == len(results) else list(schedule([*wanted, *exported]))
        sources = inputs(results)
        slot = {image: i for i, image in enumerate([*sources, *(node.result_image for node in kept)])}

        last_reader: dict[int, int] = {}
        reads = dict.fromkeys(range(len(slot)), 0)
        for i, node in enumerate(kept):
            for source in node.sources:
                last_reader[slot[source]] = i
                reads[slot[source]] += 1
        for image in [*wanted, *exported]:
            last_reader.pop(slot[image], None)  # is kept

        self.images = tuple(slot)
        self.inputs = tuple(Input(image.handle, image.format, reads[slot[image]]) for image in sources)
        self.steps = tuple(
            Step(
                node,
                node.operation,
                node.label or handle_label(node.result_image.handle) or type(node).__name__,
                tuple(slot[source] for source in node.sources),
                slot[node.result_image],
                node.result_image.format,
                tuple(dict.fromkeys(slot[image] for image in node.sources if last_reader.get(slot[image]) == i)),
            )
            for i, node in enumerate(kept)
        )
        self.results = tuple(
            slot[image] if is_needed else None for image, is_needed in zip(results, needed, strict=True)
        )
        self.result_images = tuple(results)
        self.result_handles = tuple(image.handle for image in results)
        requested = [(i, image) for i, image in enumerate(results) if needed[i]]
        self.names = tuple(image_names(slot, {image: i for i, image in reversed(requested)}).values())
        by_name = {self.names[slot[image]]: slot[image] for _, image in requested}
        for i, image in requested:
            for tag in (*image_tags(image), f"result{i}"):
                by_name.setdefault(tag, slot[image])
        self.results_by_name: Mapping[str, int] = by_name
        self.exports = tuple(slot[image] for image in exported)
        self.export_handles = tuple(image.handle for image in exported)

        filled = {i: node.forward_node for i, node in enumerate(kept) if node.forward_node is not None}
        filled = {i: forward for i, forward in filled.items() if forward.exports_state}
        self.states: Mapping[int, str] = {i: self._state_name(forward, slot, i) for i, forward in filled.items()}
        self.state_handles = tuple(
            None if forward.result_state is None else forward.result_state.handle for forward in filled.values()
        )

    def with_operations(self, operations: Mapping[MPSNNFilterNode, Operation]) -> Plan:
        """The same plan with other operations for some forward nodes, and so for their gradients."""

        def changed(step: Step) -> Step:
            node = step.node
            if isinstance(node, MPSNNGradientFilterNode) and node.forward_node in operations:
                return replace(step, operation=operations[node.forward_node].gradients()[node.place])
            return replace(step, operation=operations[node]) if node in operations else step

        plan = copy.copy(self)
        plan.steps = tuple(map(changed, self.steps))
        return plan

    def reloaded(self) -> Plan:
        """The same plan with the weights that data sources have now, each read once."""
        read: dict[int, Any] = {}

        def operation(step: Step) -> Operation:
            source = step.node.data_source
            if source is None:
                return step.operation
            if id(source) not in read:
                read[id(source)] = step.node.reload()
            return step.operation.with_weights(read[id(source)])

        plan = copy.copy(self)
        plan.steps = tuple(replace(step, operation=operation(step)) for step in self.steps)
        return plan

    def _state_name(self, forward: MPSNNFilterNode, slot: Mapping[MPSNNImageNode, int], i: int) -> str:
        image = forward.result_image
        if image in slot:
            return self.names[slot[image]]
        return handle_label(image.handle) or forward.label or f"state{i}"

    def structure(self) -> Structure:
        """The images by name, for drawings."""
        wanted = [self.images[index] for index in (*self.results, *self.exports) if index is not None]
        return Structure.of(dict(zip(self.images, self.names, strict=True)), wanted)

    def inputs_behind(self, step: Step) -> list[int]:
        """The slots of the inputs that a step depends on."""
        producers = {producer.result: producer for producer in self.steps}
        stack, visited = list(step.sources), set(step.sources)
        while stack:
            index = stack.pop()
            new = set(producers[index].sources if index in producers else ()) - visited
            visited |= new
            stack += new
        return sorted(index for index in visited if index < len(self.inputs))

    # ---- evaluation ----

    def sizes(self, sources: Sequence[Any]) -> dict[int, Size]:
        """
        The size of the image of each slot. Checks the sources completely before any work is done.

        Raises
        ------
        SourceError
            There are too few or too many sources.
        ImageError
            A source is not an image, or has the wrong format or size; the message names its handle.
        """
        if len(sources) != len(self.inputs):
            raise self.wrong_number(len(sources))
        for source, image in zip(self.inputs, sources, strict=True):
            if not isinstance(image, MPSImage):
                raise ImageError(f"{source} is a {type(image).__name__}: give an MPSImage (MPSImage.from_array)")
        return self.sizes_for([(image.shape, image.storage) for image in sources])

    def sizes_for(self, sources: Sequence[tuple[Size, StorageFormat]]) -> dict[int, Size]:
        """The same for sources of these sizes and formats."""
        sizes: dict[int, Size] = {}
        for i, (source, (size, storage)) in enumerate(zip(self.inputs, sources, strict=True)):
            if source.format and storage.channel_format != source.format:
                asked = source.format.name
                raise ImageError(f"{source} is stored as {storage.name}: its node asks for {asked}, convert it")
            sizes[i] = size
        for step in self.steps:
            try:
                sizes[step.result] = step.operation.result_size(*(sizes[source] for source in step.sources))
            except (ImageError, ParameterError) as error:
                names = ", ".join(f"{self.inputs[i]} ({size_text(sizes[i])})" for i in self.inputs_behind(step))
                raise ImageError(f"{step.name}: {error}; it depends on {names}") from None
        return sizes

    def wrong_number(self, count: int) -> SourceError:
        """The error for a wrong number of sources."""
        names = ", ".join(str(source) for source in self.inputs)
        return SourceError(f"source_images has {count} images: {len(self.inputs)} are needed, {names}")

    def run_step(self, step: Step, read: Sequence[MPSImage], manner: Manner) -> MPSImage:
        """The result of a step."""
        storage = storage_named(step.format or manner.format)
        channels = step.operation.result_size(*(image.shape for image in read))[3]
        slices = step.operation.run(*read, result=storage, how=manner.evaluation, workers=manner.workers)
        clear_unused_lanes(slices, channels)
        return MPSImage._from_slices(slices, storage, channels)

    def run_state(self, place: int, read: Sequence[MPSImage], manner: Manner) -> MPSCNNConvolutionGradientState:
        """What the step in a place puts into its state."""
        filled = self.steps[place].operation.states(read, manner.evaluation, manner.workers)
        return MPSCNNConvolutionGradientState(self.states[place], **filled)

    def walk(
        self,
        sources: Sequence[MPSImage],
        manner: Manner,
        progress: Progress | None = None,
        watch: Watch | None = None,
        states: list[MPSCNNConvolutionGradientState] | None = None,
    ) -> Mapping[int, MPSImage]:
        """Evaluate every step; return the images of the slots that are kept, and add the exported states to a list."""
        self.sizes(sources)
        images = dict(enumerate(sources))
        for i, step in enumerate(self.steps):
            read = [images[source] for source in step.sources]
            images[step.result] = self.run_step(step, read, manner)
            if watch is not None:
                watch(step, read, images[step.result])
            if states is not None and i in self.states:
                states.append(self.run_state(i, read, manner))
            del read
            for index in step.last_reads:
                del images[index]
            if progress is not None:
                progress(i + 1, len(self.steps))
        return images
