"""MPSNNGraph: a frozen plan of a node graph, and the only loop over its nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import singledispatch
from itertools import chain, count
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from mpsref.arrays import Elements
from mpsref.enums import MPSImageFeatureChannelFormat
from mpsref.errors import ImageError, ParameterError, SourceError, UnavailableError
from mpsref.graph.arithmetic import (
    MPSNNAdditionGradientNode,
    MPSNNAdditionNode,
    MPSNNInitialGradientNode,
    clamp_of,
)
from mpsref.graph.drawing import Structure, structure, svg
from mpsref.graph.names import image_names, image_tag
from mpsref.graph.neurons import MPSCNNNeuronGradientNode, MPSCNNNeuronNode
from mpsref.graph.nodes import Handle, MPSNNFilterNode, MPSNNImageNode, handle_label, node_or_error, sequence_or_error
from mpsref.graph.schedule import inputs, schedule
from mpsref.image import MPSImage, by_lane, clear_unused_lanes
from mpsref.neuron.descriptor import MPSNNNeuronDescriptor, channels_or_error
from mpsref.neuron.slopes import ChannelSlopes
from mpsref.neuron.stepwise import Evaluation, evaluation
from mpsref.neuron.threads import worker_count
from mpsref.storage import FLOAT64, FORMATS, StorageFormat, array_or_error, storage_format

__all__ = ["MPSNNGraph", "slope_at"]

Size: TypeAlias = tuple[int, int, int, int]
"""Images, height, width, feature channels."""

Progress: TypeAlias = Callable[[int, int], None]
"""Called with the number of steps that are done, and of all."""


class Operation(Protocol):
    """What a filter does to images that are known to fit together."""

    def check(self, *sources: Size) -> None:
        """Raise unless the sources fit together."""

    def run(self, *sources: MPSImage, result: StorageFormat, how: Evaluation, workers: int) -> npt.NDArray[Any]:
        """The slices of the result, in a mode of evaluation, by so many threads."""


def _equal_sizes(*sources: Size) -> None:
    if len(set(sources)) > 1:
        raise ImageError(f"the sources differ in size: {', '.join(_size_text(size) for size in sources)}")


def _size_text(size: Size) -> str:
    n, h, w, c = size
    return f"{w}x{h}x{c}" + (f" x{n} images" if n > 1 else "")


def _size(image: MPSImage) -> Size:
    return image.number_of_images, image.height, image.width, image.feature_channels


def _elements(image: MPSImage) -> Elements:
    return Elements(image.slices, image.storage)


def _slopes(descriptor: MPSNNNeuronDescriptor, image: MPSImage) -> ChannelSlopes | None:
    if descriptor.data is None:
        return None
    return ChannelSlopes(by_lane(descriptor.data.astype(np.float64)), image.height * image.width)


def slope_at(descriptor: MPSNNNeuronDescriptor, image: MPSImage) -> npt.NDArray[np.float64]:
    """The neuron's slope at every element, as float64 slices, good to a few ULP of float64."""
    ones = Elements(np.ones(image.slices.shape), FLOAT64)
    return evaluation("ideal").gradient(descriptor, ones, _elements(image), FLOAT64, _slopes(descriptor, image))


@dataclass(frozen=True)
class _Neuron:
    descriptor: MPSNNNeuronDescriptor

    def check(self, *sources: Size) -> None:
        channels_or_error(self.descriptor, sources[0][3], "the source")

    def run(self, *sources: MPSImage, result: StorageFormat, how: Evaluation, workers: int) -> npt.NDArray[Any]:
        (x,) = sources
        return how.forward(self.descriptor, _elements(x), result, _slopes(self.descriptor, x), workers=workers)


@dataclass(frozen=True)
class _NeuronGradient:
    descriptor: MPSNNNeuronDescriptor

    def check(self, *sources: Size) -> None:
        _equal_sizes(*sources)
        channels_or_error(self.descriptor, sources[1][3], "the source")

    def run(self, *sources: MPSImage, result: StorageFormat, how: Evaluation, workers: int) -> npt.NDArray[Any]:
        g, x = sources
        slopes = _slopes(self.descriptor, x)
        return how.gradient(self.descriptor, _elements(g), _elements(x), result, slopes, workers=workers)


@dataclass(frozen=True)
class _Addition:
    scales: tuple[float, float]
    bias: float
    bounds: tuple[float, float]

    def check(self, *sources: Size) -> None:
        _equal_sizes(*sources)

    def run(self, *sources: MPSImage, result: StorageFormat, how: Evaluation, workers: int) -> npt.NDArray[Any]:
        x, y = map(_elements, sources)
        return how.add(x, y, result, self.scales, self.bias, self.bounds, workers=workers)


@dataclass(frozen=True)
class _AdditionGradient:
    factor: float

    def check(self, *sources: Size) -> None:
        _equal_sizes(*sources)

    def run(self, *sources: MPSImage, result: StorageFormat, how: Evaluation, workers: int) -> npt.NDArray[Any]:
        return how.scale(_elements(sources[0]), self.factor, result, workers=workers)


@dataclass(frozen=True)
class _Ones:
    def check(self, *sources: Size) -> None:
        pass

    def run(self, *sources: MPSImage, result: StorageFormat, how: Evaluation, workers: int) -> npt.NDArray[Any]:
        one = result.encode(np.ones(1), np.empty(1, result.dtype))
        return np.full(sources[0].slices.shape, one)


@singledispatch
def _operation(node: MPSNNFilterNode) -> Operation:
    raise UnavailableError(f"{type(node).__name__} cannot be evaluated")


@_operation.register
def _(node: MPSCNNNeuronNode) -> Operation:
    return _Neuron(node.descriptor)


@_operation.register
def _(node: MPSCNNNeuronGradientNode) -> Operation:
    return _NeuronGradient(node.descriptor)


@_operation.register
def _(node: MPSNNAdditionNode) -> Operation:
    low, high = node.minimum_value, node.maximum_value
    if low > high:
        raise ParameterError(f"minimum_value of {node} is {low}, above maximum_value, {high}: exchange them")
    return _Addition((node.primary_scale, node.secondary_scale), node.bias, clamp_of(node))


@_operation.register
def _(node: MPSNNAdditionGradientNode) -> Operation:
    return _AdditionGradient(node.secondary_scale if node.is_secondary_source_filter else node.primary_scale)


@_operation.register
def _(node: MPSNNInitialGradientNode) -> Operation:
    return _Ones()


@dataclass(frozen=True)
class _Step:
    """One filter, frozen: where it reads and writes, in which format, and what may be forgotten afterwards."""

    node: MPSNNFilterNode
    operation: Operation
    name: str
    sources: tuple[int, ...]
    result: int
    format: MPSImageFeatureChannelFormat
    last_reads: tuple[int, ...]


Watch: TypeAlias = Callable[[_Step, Sequence[MPSImage], MPSImage], None]
"""Called after each step with what it has read and made, before anything of that is forgotten."""


@dataclass(frozen=True)
class _Input:
    handle: Handle | None
    format: MPSImageFeatureChannelFormat
    read_count: int

    def __str__(self) -> str:
        label = handle_label(self.handle)
        return "the source without a handle" if label is None else f"source {label!r}"


class MPSNNGraph:
    """
    A graph of nodes, ready to be evaluated.

    The constructor takes a snapshot: changing a node later does not change the graph.

    Parameters
    ----------
    result_image : MPSNNImageNode
        The result. The graph holds everything that it depends on.
    result_image_is_needed : bool
        If False, `encode` returns None and evaluates only what exported images need.
    result_images : sequence of MPSNNImageNode
        Instead of `result_image`: several results.
    results_are_needed : sequence of bool, optional
        For each of `result_images`. Default: all are.
    format : MPSImageFeatureChannelFormat
        How results and intermediate images are stored whose nodes leave the format open.
    mode : str
        ``ideal``, ``specified``, ``stepwise`` or ``stepwise-fma``: how every node is evaluated, as for
        `mpsref.neuron.forward`. Not Apple's.

    Raises
    ------
    ParameterError
        An argument is missing, of the wrong kind or length; or there is no such mode.

    Notes
    -----
    Source: ``MPSNNGraph.h``. An image is stored in the format of its own node, which starts as that of the first
    source's node; where that is ``none``, in the graph's `format`. The actual format of the source images does not
    matter. Images are rounded once, at each node, and freed after their last reader.

    Examples
    --------
    >>> import numpy as np
    >>> import mpsref as mps
    >>> x = mps.MPSNNImageNode(handle="x")
    >>> n = mps.MPSCNNNeuronReLUNode(source=x, a=0.5)
    >>> n.result_image.handle = "y"
    >>> graph = mps.MPSNNGraph(result_image=n.result_image)
    >>> graph.run(x=np.float16([[[-1, 2]]]))["y"].to_array()
    array([[[[-0.5,  2. ]]]], dtype=float16)
    """

    def __init__(
        self,
        *,
        result_image: MPSNNImageNode | None = None,
        result_image_is_needed: bool = True,
        result_images: Sequence[MPSNNImageNode] | None = None,
        results_are_needed: Sequence[bool] | None = None,
        format: MPSImageFeatureChannelFormat = MPSImageFeatureChannelFormat.float16,
        mode: str = "ideal",
    ) -> None:
        if (result_image is None) == (result_images is None):
            raise ParameterError("give either result_image or result_images")
        if result_image is not None:
            if results_are_needed is not None:
                raise ParameterError("results_are_needed goes with result_images: give result_image_is_needed")
            node_or_error("result_image", result_image, MPSNNImageNode)
            result_images, results_are_needed = [result_image], [result_image_is_needed]
        elif not result_image_is_needed:
            raise ParameterError("result_image_is_needed goes with result_image: give results_are_needed")
        given = sequence_or_error("result_images", result_images)
        results = [node_or_error("result_images", node, MPSNNImageNode) for node in given]
        needed = [True] * len(results)
        if results_are_needed is not None:
            needed = [bool(value) for value in sequence_or_error("results_are_needed", results_are_needed)]
        if not results:
            raise ParameterError("result_images is empty: give at least one")
        if len(needed) != len(results):
            raise ParameterError(f"results_are_needed has {len(needed)} values for {len(results)} result_images")
        self.format = format
        self._mode, self._evaluation = mode, evaluation(mode)
        self._plan(results, needed)

    def _plan(self, results: list[MPSNNImageNode], needed: list[bool]) -> None:
        everything = list(schedule(results))
        exported = [node.result_image for node in everything if node.result_image.export_from_graph]
        wanted = [image for image, is_needed in zip(results, needed, strict=True) if is_needed]
        # Pruned: what neither a needed result nor an exported image depends on.
        kept = list(schedule([*wanted, *exported]))
        sources = inputs(results)
        slot = {image: i for i, image in enumerate([*sources, *(node.result_image for node in kept)])}

        last_reader: dict[int, int] = {}
        reads = dict.fromkeys(range(len(slot)), 0)
        for i, node in enumerate(kept):
            for source in node.sources:
                last_reader[slot[source]] = i
                reads[slot[source]] += 1
        held = {slot[image] for image in [*wanted, *exported]}
        forget: list[list[int]] = [[] for _ in kept]
        for index, reader in last_reader.items():
            if index not in held:
                forget[reader].append(index)

        self._slots = tuple(slot)
        self._tags = tuple(image_tag(image) for image in slot)
        self._inputs = tuple(_Input(image.handle, image.format, reads[slot[image]]) for image in sources)
        self._steps = tuple(
            _Step(
                node,
                _operation(node),
                node.label or handle_label(node.result_image.handle) or type(node).__name__,
                tuple(slot[source] for source in node.sources),
                slot[node.result_image],
                node.result_image.format,
                tuple(forgotten),
            )
            for node, forgotten in zip(kept, forget, strict=True)
        )
        self._results = tuple(
            slot[image] if is_needed else None for image, is_needed in zip(results, needed, strict=True)
        )
        self._exports = tuple(slot[image] for image in exported)
        self._export_handles = tuple(image.handle for image in exported)
        self._result_handles = tuple(image.handle for image in results)
        self._result_names = tuple(
            _result_names([(image.handle, image.producer.label if image.producer else None) for image in results])
        )

    # ---- properties, as Apple has them ----

    @property
    def format(self) -> MPSImageFeatureChannelFormat:
        """How images are stored whose nodes leave it open. Settable, default float16."""
        return self._format

    @format.setter
    def format(self, value: MPSImageFeatureChannelFormat) -> None:
        self._format = storage_format(value, "format").channel_format

    @property
    def mode(self) -> str:
        """How every node is evaluated: ``ideal``, ``specified``, ``stepwise`` or ``stepwise-fma``."""
        return self._mode

    @property
    def source_image_handles(self) -> list[Handle | None]:
        """Handles of the source images, in the order in which `encode` takes them: depth-first, left to right."""
        return [source.handle for source in self._inputs]

    @property
    def intermediate_image_handles(self) -> list[Handle | None]:
        """Handles of the exported images, in the order in which `encode` hands them out."""
        return list(self._export_handles)

    @property
    def result_handle(self) -> Handle | None:
        """Handle of the (first) result image."""
        return self._result_handles[0]

    @property
    def result_image_is_needed(self) -> bool:
        """Whether `encode` returns the (first) result image."""
        return self._results[0] is not None

    def read_count_for_source_image(self, *, at: int) -> int:
        """How many nodes read the source image with this index."""
        if at not in range(len(self._inputs)):
            raise SourceError(f"at is {at}: the graph has {len(self._inputs)} source images")
        return self._inputs[at].read_count

    # ---- evaluation ----

    def encode(
        self,
        *,
        source_images: Sequence[MPSImage],
        intermediate_images: list[MPSImage] | None = None,
        progress: Progress | None = None,
        workers: int = 1,
    ) -> MPSImage | None:
        """
        Evaluate the graph.

        Parameters
        ----------
        source_images : sequence of MPSImage
            In the order of `source_image_handles`, all with the size that the nodes need.
        intermediate_images : list, optional
            Is appended the results after the first that are needed, then the exported images in the order of
            `intermediate_image_handles`.
        progress : callable, optional
            Called after each step with the number of steps done and of all steps.
        workers : int
            How many threads share the work of each node; -1 for one for each core. The result is the same for any
            number.

        Returns
        -------
        MPSImage or None
            The first result; None if it is not needed.

        Raises
        ------
        SourceError
            Too few or too many source images.
        ImageError
            A source has the wrong size or format; the message names its handle.

        Notes
        -----
        Apple's method takes a command buffer first; here everything is done on return.
        """
        _list_or_none(intermediate_images)
        images = self._evaluate(source_images, workers, progress)
        results = [None if index is None else images[index] for index in self._results]
        if intermediate_images is not None:
            intermediate_images += [image for image in results[1:] if image is not None]
            intermediate_images += [images[index] for index in self._exports]
        return results[0]

    def encode_batch(
        self,
        *,
        source_images: Sequence[Sequence[MPSImage]],
        intermediate_images: list[list[MPSImage]] | None = None,
        workers: int = 1,
    ) -> list[MPSImage] | None:
        """
        Evaluate the graph for each image of a batch.

        Parameters
        ----------
        source_images : sequence of sequences of MPSImage
            For each source image handle its batch; all of one length, each image with `number_of_images` 1.
        intermediate_images : list, optional
            Is appended a batch for each image that `encode` would append.
        workers : int
            As for `encode`.

        Returns
        -------
        list of MPSImage or None
            The batch of the first result; None if it is not needed.

        Raises
        ------
        SourceError, ImageError
            As for `encode`; or the batches differ in length, or hold an image with several images in it.
        """
        _list_or_none(intermediate_images)
        source_images = [_images(batch, "a batch of source_images") for batch in _images(source_images)]
        lengths = {len(batch) for batch in source_images}
        if len(source_images) != len(self._inputs):
            raise self._wrong_number(len(source_images))
        if len(lengths) != 1:
            raise ImageError(f"the batches of source_images have lengths {sorted(lengths)}: give one length")
        for source, batch in zip(self._inputs, source_images, strict=True):
            for image in batch:
                if getattr(image, "number_of_images", 1) != 1:
                    raise ImageError(f"{source}: an image of a batch must have number_of_images 1")
        results: list[MPSImage | None] = []
        columns: list[list[MPSImage]] = []
        for images in zip(*source_images, strict=True):
            extra: list[MPSImage] = []
            results.append(self.encode(source_images=images, intermediate_images=extra, workers=workers))
            columns.append(extra)
        if intermediate_images is not None:
            intermediate_images += [list(column) for column in zip(*columns, strict=True)]
        return [image for image in results if image is not None] if self.result_image_is_needed else None

    def run(self, *, workers: int = 1, **sources: npt.ArrayLike | MPSImage) -> dict[str, MPSImage]:
        """
        Evaluate the graph on arrays or images given by handle.

        Parameters
        ----------
        workers : int
            As for `encode`. A source with this handle can only be given to `encode`.
        **sources : array_like of shape (H, W, C) or (N, H, W, C), or MPSImage
            One for each source image, named by its handle (or its handle's label). Arrays are stored in the format of
            the source's node if it has one; else float16 and float32 as they are, and float64 rounded to float32.

        Returns
        -------
        dict of str to MPSImage
            The needed results: by handle, else by the label of the node that makes them, else as ``result0``, ... in
            the order of `result_images`. ``np.asarray`` of an image is its array.

        Raises
        ------
        SourceError
            A source is missing, unknown, or has no handle or one that another source has as well.
        ImageError
            An array or image has the wrong size or format; the message names its handle.
        """
        images = self._evaluate(self._given(sources), workers)
        return {
            name: images[index]
            for name, index in zip(self._result_names, self._results, strict=True)
            if index is not None
        }

    def _given(self, sources: Mapping[str, npt.ArrayLike | MPSImage]) -> list[MPSImage]:
        """The source images, in their order, of what `run` is given by handle."""
        labels = [handle_label(source.handle) for source in self._inputs]
        if None in labels or len(set(labels)) < len(labels):
            raise SourceError(f"source handles are {labels}: give each its own to use run, or use encode")
        missing, unknown = set(labels) - set(sources), set(sources) - set(labels)
        if missing or unknown:
            what = [f"{word} {', '.join(sorted(map(repr, names)))}" for word, names in
                    (("missing", missing), ("unknown", unknown)) if names]  # fmt: skip
            raise SourceError(f"{'; '.join(what)}: the sources are {', '.join(map(repr, labels))}")
        return [_as_image(source, sources[str(label)]) for source, label in zip(self._inputs, labels, strict=True)]

    def _repr_svg_(self) -> str:
        return svg(self)

    def _evaluate(
        self,
        sources: Sequence[MPSImage],
        workers: int,
        progress: Progress | None = None,
        watch: Watch | None = None,
    ) -> Mapping[int, MPSImage]:
        threads = worker_count(workers)
        self._check(sources)
        images = dict(enumerate(sources))
        for i, step in enumerate(self._steps):
            images[step.result] = self._run_step(step, [images[source] for source in step.sources], threads)
            if watch is not None:
                watch(step, [images[source] for source in step.sources], images[step.result])
            for index in step.last_reads:
                del images[index]
            if progress is not None:
                progress(i + 1, len(self._steps))
        return images

    def _run_step(self, step: _Step, read: Sequence[MPSImage], workers: int = 1) -> MPSImage:
        storage = FORMATS[step.format or self._format]
        channels = read[0].feature_channels
        slices = step.operation.run(*read, result=storage, how=self._evaluation, workers=workers)
        clear_unused_lanes(slices, channels)
        return MPSImage._from_slices(slices, storage, channels)

    def _check(self, sources: Sequence[MPSImage]) -> None:
        """Everything that can be wrong with the source images, before any work is done."""
        sources = _images(sources)
        if len(sources) != len(self._inputs):
            raise self._wrong_number(len(sources))
        sizes: dict[int, Size] = {}
        for i, (source, image) in enumerate(zip(self._inputs, sources, strict=True)):
            if not isinstance(image, MPSImage):
                raise ImageError(f"{source} is a {type(image).__name__}: give an MPSImage (MPSImage.from_array)")
            if source.format and image.feature_channel_format != source.format:
                stored = image.storage.name
                raise ImageError(f"{source} is stored as {stored}: its node asks for {source.format.name}, convert it")
            sizes[i] = _size(image)
        for step in self._steps:
            read = [sizes[source] for source in step.sources]
            try:
                step.operation.check(*read)
            except (ImageError, ParameterError) as error:
                names = ", ".join(f"{self._inputs[i]} ({_size_text(sizes[i])})" for i in self._inputs_behind(step))
                raise ImageError(f"{step.name}: {error}; it depends on {names}") from None
            sizes[step.result] = read[0]

    def _inputs_behind(self, step: _Step) -> list[int]:
        """Indices of the source images that a step depends on."""
        makers = {maker.result: maker for maker in self._steps}
        waiting, met = list(step.sources), set(step.sources)
        while waiting:
            index = waiting.pop()
            new = set(makers[index].sources if index in makers else ()) - met
            met |= new
            waiting += new
        return sorted(index for index in met if index < len(self._inputs))

    def _wrong_number(self, given: int) -> SourceError:
        names = ", ".join(str(source) for source in self._inputs)
        return SourceError(f"source_images has {given} images: {len(self._inputs)} are needed, {names}")


@structure.register
def _(graph: MPSNNGraph) -> Structure:
    slots = graph._slots
    names = image_names(slots, dict(zip(slots, graph._tags, strict=True)))
    return Structure.of(names, [slots[index] for index in (*graph._results, *graph._exports) if index is not None])


def _images(value: Sequence[Any], name: str = "source_images") -> Sequence[Any]:
    if not isinstance(value, Sequence):
        raise ImageError(f"{name} is a {type(value).__name__}: give a list")
    return value


def _list_or_none(intermediate_images: object) -> None:
    if intermediate_images is not None and not isinstance(intermediate_images, list):
        raise ParameterError(f"intermediate_images is a {type(intermediate_images).__name__}: give a list to extend")


def _as_image(source: _Input, value: npt.ArrayLike | MPSImage) -> MPSImage:
    if isinstance(value, MPSImage):
        return value
    array = array_or_error(value, str(source))
    if array.dtype.kind != "f":
        raise ImageError(
            f"{source} has dtype {array.dtype}: give floating point values, or an MPSImage (MPSImage.from_array)"
        )
    half = array.dtype == np.float16
    wanted = source.format or (MPSImageFeatureChannelFormat.float16 if half else MPSImageFeatureChannelFormat.float32)
    try:
        return MPSImage.from_array(array, wanted)
    except ImageError as error:
        raise ImageError(f"{source}: {error}") from None


def _result_names(results: Iterable[tuple[Handle | None, str | None]]) -> list[str]:
    """Handle, else label, else number; a name that is taken already gives way to the next."""
    names: dict[str, None] = {}
    for i, (handle, label) in enumerate(results):
        candidates = chain((handle_label(handle), label, f"result{i}"), (f"result{i}.{k}" for k in count(1)))
        names[next(name for name in candidates if name is not None and name not in names)] = None
    return list(names)
