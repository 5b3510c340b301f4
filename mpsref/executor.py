"""MPSNNGraph: a plan behind Apple's API."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from numbers import Number
from typing import Any, ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt

from mpsref.arguments import callable_or_error, checked, sequence_or_error
from mpsref.attributes import NO_DEVICE, NO_MEMORY, OPAQUE_STATES, Connected, Flag, Strict, flag_or_error
from mpsref.enums import MPSImageFeatureChannelFormat
from mpsref.errors import ImageError, ParameterError, SourceError, described, shown
from mpsref.formats import format_among
from mpsref.graph.drawing import Structure, not_a_graph, svg
from mpsref.graph.file import GraphFile
from mpsref.graph.handles import Handle
from mpsref.graph.nodes import ImageLike, MPSNNFilterNode, MPSNNImageNode, node_or_error
from mpsref.image import MPSImage
from mpsref.neuron.stepwise import evaluation
from mpsref.neuron.threads import worker_count
from mpsref.operations import Operation
from mpsref.plan import Input, Manner, Plan, Progress
from mpsref.states import MPSCNNConvolutionGradientState
from mpsref.storage import ChannelFormat, FormatLike, array_or_error

__all__ = ["CompletionHandler", "MPSNNGraph", "Results", "graph_or_error", "source_image"]

CompletionHandler: TypeAlias = Callable[[MPSImage | None, None], object]
"""Called with the result of `MPSNNGraph.execute_async`, and None in place of an error."""


class Results(dict[str, MPSImage]):
    """
    Images by name, from `MPSNNGraph.run`; ``[]`` also takes a result's handle, label or number.

    Parameters
    ----------
    images : mapping of str to MPSImage
        By the names that drawings show.
    names : mapping of str to str
        Those names by handle, label and number.
    states : sequence of MPSCNNConvolutionGradientState
        The exported states.

    Attributes
    ----------
    states : dict of str to MPSCNNConvolutionGradientState
        By the names of the forward results.
    """

    def __init__(
        self,
        images: Mapping[str, MPSImage],
        names: Mapping[str, str],
        states: Sequence[MPSCNNConvolutionGradientState] = (),
    ) -> None:
        super().__init__(images)
        self._names = names
        self.states = {state.name: state for state in states}

    def __missing__(self, name: str) -> MPSImage:
        return self[self._names[name]]


class MPSNNGraph(Connected, Strict):
    """
    A graph of nodes, ready to be evaluated.

    A snapshot: later changes to nodes do not change the graph.

    Parameters
    ----------
    device : None or object
        Apple's argument; not used.
    result_image : MPSNNImageNode or MPSNNFilterNode
        The result, or the node that makes it. The graph contains everything that it depends on.
    result_image_is_needed : bool
        If False, `encode` returns None and evaluates only what exported images need.
    result_images : sequence of MPSNNImageNode or MPSNNFilterNode
        Several results instead of `result_image`.
    results_are_needed : sequence of bool, optional
        For each of `result_images`. Default: all are.
    format : MPSImageFeatureChannelFormat, str or dtype
        The format of results and intermediate images whose nodes leave it open.
    mode : str
        ``ideal``, ``specified``, ``stepwise`` or ``stepwise-fma``: how every node is evaluated, as for
        `mpsref.neuron.forward`. Not Apple's.

    Raises
    ------
    ParameterError
        An argument is missing, or has the wrong type or length; or the mode is unknown.

    Notes
    -----
    Source: ``MPSNNGraph.h``. An image is stored in the format of its own node, which starts as that of the first
    source's node; if that is ``none``, in the graph's `format`. The actual format of the source images does not
    matter. Each node rounds its result once; images are freed after their last reader. A copy, also a deep one, shares
    the nodes and the frozen plan, but has its own format.

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

    _left_out: ClassVar = {
        "initWithCoder:device:": "GraphFile takes its place",
        "initWithDevice:": "unavailable in the SDK, and nothing is left of it without a device",
        "readCountForSourceStateAtIndex:": OPAQUE_STATES,
    }

    def __init__(
        self,
        *,
        device: object = None,
        result_image: ImageLike | None = None,
        result_image_is_needed: bool = True,
        result_images: Sequence[ImageLike] | None = None,
        results_are_needed: Sequence[bool] | None = None,
        format: FormatLike = MPSImageFeatureChannelFormat.float16,
        mode: str = "ideal",
    ) -> None:
        _opaque_or_error("device", device, NO_DEVICE)
        if (result_image is None) == (result_images is None):
            raise ParameterError("give either result_image or result_images")
        if result_image is not None:
            if results_are_needed is not None:
                raise ParameterError("results_are_needed goes with result_images: give result_image_is_needed")
            result_images, results_are_needed = [result_image], [result_image_is_needed]
        elif not flag_or_error("result_image_is_needed", result_image_is_needed):
            raise ParameterError("result_image_is_needed goes with result_image: give results_are_needed")
        name = "result_images" if result_image is None else "result_image"
        nodes = sequence_or_error("result_images", result_images)
        results = [node_or_error(name, node, MPSNNImageNode) for node in nodes]
        needed = [True] * len(results)
        if results_are_needed is not None:
            needed = [
                flag_or_error(f"results_are_needed[{i}]", value)
                for i, value in enumerate(sequence_or_error("results_are_needed", results_are_needed))
            ]
        if not results:
            raise ParameterError("result_images is empty: give at least one")
        if len(needed) != len(results):
            raise ParameterError(f"results_are_needed has {len(needed)} values for {len(results)} result_images")
        self.format = format
        self._mode, self._evaluation = mode, evaluation(mode)
        self._plan = Plan(results, needed)
        self._destination_image_allocator: object = None

    def __copy__(self) -> MPSNNGraph:
        graph = object.__new__(type(self))
        graph.__dict__.update(self.__dict__)
        return graph

    def __deepcopy__(self, memo: dict[int, Any]) -> MPSNNGraph:
        return copy.copy(self)

    # ---- properties, as Apple has them ----

    @property
    def format(self) -> ChannelFormat:
        """The format of images whose nodes leave it open. Settable, default float16."""
        return self._format

    @format.setter
    def format(self, value: FormatLike) -> None:
        self._format = format_among(value).channel_format

    @property
    def mode(self) -> str:
        """How every node is evaluated: ``ideal``, ``specified``, ``stepwise`` or ``stepwise-fma``."""
        return self._mode

    @property
    def plan(self) -> Plan:
        """The frozen plan. Not Apple's."""
        return self._plan

    @checked
    def with_operations(self, operations: Mapping[MPSNNFilterNode, Operation]) -> MPSNNGraph:
        """The same graph with other operations for some forward nodes, and so for their gradients. Not Apple's."""
        graph = copy.copy(self)
        graph._plan = self._plan.with_operations(operations)
        return graph

    def manner(self, workers: int = 1) -> Manner:
        """How the plan is evaluated. Not Apple's."""
        return Manner(self._format, self._evaluation, worker_count(workers))

    @property
    def source_image_handles(self) -> list[Handle | None]:
        """Handles of the source images, in the order in which `encode` takes them: depth-first, left to right."""
        return [source.handle for source in self._plan.inputs]

    @property
    def intermediate_image_handles(self) -> list[Handle | None]:
        """Handles of the exported images, in the order in which `encode` returns them."""
        return list(self._plan.export_handles)

    @property
    def source_state_handles(self) -> list[Handle | None]:
        """Empty: a graph reads only states of its own nodes."""
        return []

    @property
    def result_state_handles(self) -> list[Handle | None]:
        """Handles of the exported states that gradient nodes fill, in the order in which `encode` returns them."""
        return list(self._plan.state_handles)

    output_state_is_temporary = Flag(
        "Settable, without effect: there are no states whose memory could be reused. Default False."
    )

    @property
    def destination_image_allocator(self) -> object:
        """Settable to any opaque object, without effect: images are in the host's memory."""
        return self._destination_image_allocator

    @destination_image_allocator.setter
    def destination_image_allocator(self, value: object) -> None:
        _opaque_or_error("destination_image_allocator", value, NO_MEMORY)
        self._destination_image_allocator = value

    @property
    def result_handle(self) -> Handle | None:
        """Handle of the (first) result image."""
        return self._plan.result_handles[0]

    @property
    def result_image_is_needed(self) -> bool:
        """Whether `encode` returns the (first) result image."""
        return self._plan.results[0] is not None

    def read_count_for_source_image(self, *, at: int) -> int:
        """How many nodes read the source image with this index."""
        index: object = at
        if not isinstance(index, int | np.integer) or index not in range(len(self._plan.inputs)):
            raise SourceError(f"at is {shown(at)}: the graph has {len(self._plan.inputs)} source images")
        return self._plan.inputs[at].read_count

    def reload_from_data_sources(self) -> None:
        """Read the weights of all layers again; nothing else of the nodes is read again."""
        self._plan = self._plan.reloaded()

    # ---- evaluation ----

    def encode(
        self,
        *,
        to: object = None,
        source_images: Sequence[MPSImage],
        source_states: object = None,
        intermediate_images: list[MPSImage] | None = None,
        destination_states: list[MPSCNNConvolutionGradientState] | None = None,
        progress: Progress | None = None,
        workers: int = 1,
    ) -> MPSImage | None:
        """
        Evaluate the graph.

        Parameters
        ----------
        to : None or object
            Apple's command buffer; not used.
        source_images : sequence of MPSImage
            In the order of `source_image_handles`, with sizes that the nodes accept.
        intermediate_images : list, optional
            To it are appended the needed results after the first, then the exported images in the order of
            `intermediate_image_handles`.
        source_states : None, an empty list, or object
            Apple's argument; no state is read.
        destination_states : list, optional
            To it are appended the exported states, in the order of `result_state_handles`.
        progress : callable, optional
            Called after each step with the number of steps done and of all steps.
        workers : int
            The number of threads that share the work of each node; -1 for one per core. The result does not depend on
            it.

        Returns
        -------
        MPSImage or None
            The first result; None if it is not needed.

        Raises
        ------
        SourceError
            There are too few or too many source images.
        ImageError
            A source has the wrong size or format; the message names its handle.
        ParameterError
            `to` or the states cannot be what Apple expects, but for instance a list of images.

        Notes
        -----
        All work is done on return.
        """
        _check_arguments(to, source_states, intermediate_images, destination_states)
        if progress is not None:
            callable_or_error("progress", progress)
        states: list[MPSCNNConvolutionGradientState] = []
        wanted = states if destination_states is not None else None
        images = self._plan.walk(_images(source_images), self.manner(workers), progress, states=wanted)
        if destination_states is not None:
            destination_states += states
        results = [None if index is None else images[index] for index in self._plan.results]
        if intermediate_images is not None:
            intermediate_images += [image for image in results[1:] if image is not None]
            intermediate_images += [images[index] for index in self._plan.exports]
        return results[0]

    def encode_batch(
        self,
        *,
        to: object = None,
        source_images: Sequence[Sequence[MPSImage]],
        source_states: object = None,
        intermediate_images: list[list[MPSImage]] | None = None,
        destination_states: list[MPSCNNConvolutionGradientState] | None = None,
        workers: int = 1,
    ) -> list[MPSImage] | None:
        """
        Evaluate the graph for each image of a batch.

        Parameters
        ----------
        source_images : sequence of sequences of MPSImage
            A batch for each source image handle; all of one length, each image with `number_of_images` 1.
        intermediate_images : list, optional
            To it is appended a batch for each image that `encode` would append.
        to, source_states, destination_states, workers
            As for `encode`; a state is that of the whole batch.

        Returns
        -------
        list of MPSImage or None
            The batch of the first result; None if it is not needed.

        Raises
        ------
        SourceError, ImageError, ParameterError
            As for `encode`; or the batches differ in length, or an image contains several images.
        """
        _check_arguments(to, source_states, intermediate_images, destination_states)
        source_images = [_images(batch, "a batch of source_images") for batch in _images(source_images)]
        lengths = {len(batch) for batch in source_images}
        if len(source_images) != len(self._plan.inputs):
            raise self._plan.wrong_number(len(source_images))
        if len(lengths) != 1:
            raise ImageError(f"the batches of source_images have lengths {sorted(lengths)}: give one length")
        for source, batch in zip(self._plan.inputs, source_images, strict=True):
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
        if destination_states is not None and self._plan.states:
            whole = [
                MPSImage.from_array(np.concatenate([image.to_array() for image in batch])) for batch in source_images
            ]
            self.encode(source_images=whole, destination_states=destination_states, workers=workers)
        return [image for image in results if image is not None] if self.result_image_is_needed else None

    def execute_async(
        self, *, source_images: Sequence[MPSImage], completion_handler: CompletionHandler | None = None
    ) -> MPSImage | None:
        """
        Evaluate the graph, then call a function.

        Parameters
        ----------
        source_images : sequence of MPSImage
            As for `encode`.
        completion_handler : callable, optional
            Called with the result, or None if it is not needed, and with None in place of Apple's error.

        Returns
        -------
        MPSImage or None
            The first result, as passed to the handler.

        Raises
        ------
        SourceError, ImageError
            As for `encode`. They are raised, not passed to the handler, since each is a mistake in the call.
        ParameterError
            The handler is not callable.

        Notes
        -----
        Apple returns at once an image whose values are there only when the handler is called, on another thread. Here
        the handler is called on the caller's thread before this returns.
        """
        if completion_handler is not None and not callable(completion_handler):
            raise ParameterError(
                f"completion_handler is a {type(completion_handler).__name__}: give a function of (image, error)"
            )
        result = self.encode(source_images=source_images)
        if completion_handler is not None:
            completion_handler(result, None)
        return result

    def run(self, *, workers: int = 1, **sources: npt.ArrayLike | MPSImage) -> Results:
        """
        Evaluate the graph on arrays or images, by handle.

        Parameters
        ----------
        workers : int
            As for `encode`. A source whose handle is ``workers`` needs `encode`.
        **sources : float, or array_like of shape (C,), (H, W, C) or (N, H, W, C), or MPSImage
            Each source image, by its handle (or its handle's label). A number, or one per feature channel, is an image
            of one pixel. Arrays are stored in the format of the source's node; if that is ``none``, float16 and float32
            as they are, and everything else rounded to float32.

        Returns
        -------
        dict of str to MPSImage
            The needed results, in the order of `result_images`, by the names of `mpsref.teach.trace` and of drawings:
            the handle, else the label of the node, else ``result0``, ...; a gradient with the handle of its source
            ``x`` is ``dx``. ``[]`` also takes a handle, label or number, unless another image has that name.
            ``np.asarray`` of an image is its array.

        Raises
        ------
        SourceError
            A source is missing or unknown, or has no handle of its own.
        ImageError
            An array or image has the wrong size or format; the message names its handle.
        """
        states: list[MPSCNNConvolutionGradientState] = []
        images = self._plan.walk(self.images_by_handle(sources), self.manner(workers), states=states)
        names = {name: self._plan.names[index] for name, index in self._plan.results_by_name.items()}
        return Results(
            {name: images[self._plan.results_by_name[name]] for name in dict.fromkeys(names.values())}, names, states
        )

    @checked
    def images_by_handle(self, sources: Mapping[str, npt.ArrayLike | MPSImage]) -> list[MPSImage]:
        """The arguments of `run` as source images in the order of `encode`. Not Apple's."""
        labels = [source.label for source in self._plan.inputs]
        if None in labels or len(set(labels)) < len(labels):
            raise SourceError(f"source handles are {labels}: give each its own to use run, or use encode")
        missing, unknown = set(labels) - set(sources), set(sources) - set(labels)
        if missing or unknown:
            what = [f"{word} {', '.join(sorted(map(repr, names)))}" for word, names in
                    (("missing", missing), ("unknown", unknown)) if names]  # fmt: skip
            raise SourceError(f"{'; '.join(what)}: the sources are {', '.join(map(repr, labels))}")
        return [
            source_image(source, sources[str(label)]) for source, label in zip(self._plan.inputs, labels, strict=True)
        ]

    def _repr_svg_(self) -> str:
        return svg(self)

    def structure(self) -> Structure:
        """The images by name, for drawings."""
        return self._plan.structure()


def _images(value: Sequence[Any], name: str = "source_images") -> Sequence[Any]:
    if not isinstance(value, Sequence):
        raise ImageError(f"{name} is a {type(value).__name__}: give a list")
    try:
        return list(value)
    except Exception as error:  # noqa: BLE001  somebody's object may raise anything
        raise ImageError(f"{name} cannot be read, {described(error)}: give a list") from None


def _opaque_or_error(name: str, value: object, why: str) -> None:
    """Raise unless `value` is None or an opaque object of the caller's."""
    known = (str, bytes, bytearray, Number, np.generic, np.ndarray, Sequence, Mapping, AbstractSet)
    ours = any(base.__module__.startswith("mpsref.") for base in type(value).__mro__)
    if ours or isinstance(value, known):
        raise ParameterError(f"{name} is a {type(value).__name__}: {why}, leave {name} out")


def _check_arguments(
    to: object, source_states: object, intermediate_images: object, destination_states: object
) -> None:
    _opaque_or_error("to", to, "it takes the place of a command buffer, and images are source_images")
    if not (type(source_states) in (list, tuple) and not source_states):
        _opaque_or_error("source_states", source_states, OPAQUE_STATES)
    if destination_states is not None and not isinstance(destination_states, list):
        raise ParameterError(f"destination_states is a {type(destination_states).__name__}: give a list to extend")
    if intermediate_images is not None and not isinstance(intermediate_images, list):
        raise ParameterError(f"intermediate_images is a {type(intermediate_images).__name__}: give a list to extend")


def source_image(source: Input, value: npt.ArrayLike | MPSImage, wide: FormatLike = "float32") -> MPSImage:
    """
    The image of a source.

    Parameters
    ----------
    source : Input
        The source, whose format the image has, unless it is ``none``.
    value : float, or array_like of shape (C,), (H, W, C) or (N, H, W, C), or MPSImage
        An image is returned unchanged; float16 and float32 arrays keep their format.
    wide : MPSImageFeatureChannelFormat, str or dtype
        The format of other numbers.

    Raises
    ------
    ImageError
        The value cannot be an image; the message names the source's handle.
    """
    if isinstance(value, MPSImage):
        return value
    array = array_or_error(value, str(source))
    if array.dtype.kind == "u" or (array.dtype.kind == "i" and array.ndim > 1 and hasattr(value, "dtype")):
        raise ImageError(
            f"{source} has dtype {array.dtype}: give floating point values, or an MPSImage (MPSImage.from_array)"
        )
    channel_format = source.format or (array.dtype if array.dtype in (np.float16, np.float32) else wide)
    try:
        return MPSImage.from_array(value, channel_format)
    except ImageError as error:
        raise ImageError(f"{source}: {error}") from None


def graph_or_error(graph: object) -> MPSNNGraph:
    """
    The graph itself, or the graph of a graph file, a node or several nodes.

    Raises
    ------
    ParameterError
        `graph` is none of these.
    """
    if isinstance(graph, MPSNNGraph):
        return graph
    if isinstance(graph, GraphFile):
        return MPSNNGraph(result_images=graph.result_images, format=graph.storage)
    if isinstance(graph, MPSNNFilterNode | MPSNNImageNode):
        return MPSNNGraph(result_image=graph)
    if isinstance(graph, list | tuple):
        return MPSNNGraph(result_images=graph)
    raise not_a_graph(graph)
