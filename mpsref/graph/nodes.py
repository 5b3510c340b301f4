"""The base nodes: images, states, filters. Structure only, without arrays or arithmetic."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TypeAlias, TypeVar

from mpsref.arguments import sequence_or_error
from mpsref.attributes import GEOMETRY, NO_MEMORY, Connected, Flag, Strict
from mpsref.enums import MPSImageFeatureChannelFormat
from mpsref.errors import ParameterError, UnavailableError, shown
from mpsref.graph.drawing import Structure, svg
from mpsref.graph.fields import Field
from mpsref.graph.handles import Handle, MPSHandle, handle_label
from mpsref.graph.training import copy_handle, training_graph
from mpsref.image import MPSImage
from mpsref.operations import Operation
from mpsref.storage import FormatLike, channel_format_of

__all__ = [
    "Handle",
    "MPSHandle",
    "MPSNNBinaryGradientStateNode",
    "MPSNNFilterNode",
    "MPSNNGradientFilterNode",
    "MPSNNGradientStateNode",
    "MPSNNImageNode",
    "MPSNNStateNode",
    "NodeHandler",
]

_N = TypeVar("_N")

ImageLike: TypeAlias = "MPSNNImageNode | MPSNNFilterNode"
"""An image node, or the filter node that makes it."""


def node_or_error(name: str, value: object, kind: type[_N]) -> _N:
    """`value`, if it is a `kind`; a filter node is accepted as an image node and stands for its result."""
    if kind is MPSNNImageNode and isinstance(value, MPSNNFilterNode):
        value = value.result_image
    if not isinstance(value, kind):
        raise ParameterError(f"{name} is a {type(value).__name__}: give an {kind.__name__}")
    return value


class _Tagged(Connected, Strict):
    """Base of image and state nodes."""

    _handle: Handle | None = None

    export_from_graph = Flag("Whether encoding also returns this image. Default False.")
    synchronize_resource = Flag("Without effect here. Default False.")

    @property
    def handle(self) -> Handle | None:
        """A string, any object with ``label()``, an `MPSImage`, or None."""
        return self._handle

    @handle.setter
    def handle(self, value: Handle | None) -> None:
        is_handle = isinstance(value, str | MPSImage) or callable(getattr(value, "label", None))
        if value is not None and not is_handle:
            raise ParameterError(f"handle is a {type(value).__name__}: give a string, or an object with label()")
        self._handle = value

    def _repr_svg_(self) -> str:
        return svg(self)

    @abstractmethod
    def structure(self) -> Structure:
        """Everything that it depends on, for drawings."""


class MPSNNImageNode(_Tagged):
    """
    A placeholder for an image in a graph.

    Parameters
    ----------
    handle : str, MPSHandle, MPSImage or None
        The caller's tag: a text, any object with ``label()``, or an image, whose `label` counts.

    Attributes
    ----------
    format : MPSImageFeatureChannelFormat
        How the image is stored; ``none``, the default, leaves it to the graph. Settable, also by name or dtype.
    export_from_graph : bool
        Whether encoding also returns this image. Settable, default False.
    stop_gradient : bool
        Whether `MPSNNFilterNode.training_graph` stops here. Settable, default False.
    synchronize_resource : bool
        Settable, without effect here.

    Notes
    -----
    Source: ``MPSNNGraphNodes.h``. Nodes are compared by identity. Width, height and channels are known only when the
    graph is encoded.

    Examples
    --------
    >>> import mpsref as mps
    >>> x = mps.MPSNNImageNode(handle="x")
    >>> n = mps.MPSCNNNeuronTanHNode(source=x, a=1.5)
    >>> n.result_image.producer is n, x.producer
    (True, None)
    """

    _left_out: ClassVar = {"imageAllocator": NO_MEMORY}

    stop_gradient = Flag("Whether `MPSNNFilterNode.training_graph` stops here. Default False.")

    _format = MPSImageFeatureChannelFormat.none
    _producer: MPSNNFilterNode | None = None

    def __init__(self, *, handle: Handle | None) -> None:
        if handle is not None:
            self.handle = handle

    @classmethod
    def exported_node(cls, *, with_: Handle | None) -> MPSNNImageNode:
        """A node whose `export_from_graph` is True."""
        node = cls(handle=with_)
        node.export_from_graph = True
        return node

    @property
    def format(self) -> MPSImageFeatureChannelFormat:
        """How the image is stored; ``none`` leaves it to the graph."""
        return self._format

    @format.setter
    def format(self, value: FormatLike) -> None:
        channel_format = channel_format_of(value)
        if not isinstance(channel_format, MPSImageFeatureChannelFormat):
            choices = ", ".join(f.name for f in MPSImageFeatureChannelFormat)
            raise ParameterError(f"format is {shown(value)}: choose one of MPSImageFeatureChannelFormat: {choices}")
        self._format = channel_format

    @property
    def producer(self) -> MPSNNFilterNode | None:
        """The filter whose result this is; None for an input of the graph."""
        return self._producer

    def structure(self) -> Structure:
        """Everything that it depends on, for drawings."""
        return Structure.of_images([self])

    def __repr__(self) -> str:
        label = handle_label(self.handle)
        name = "" if label is None else f" {label!r}"
        of = "" if self._producer is None else f" of {type(self._producer).__name__}"
        return f"<{type(self).__name__}{name}{of}>"


class MPSNNStateNode(_Tagged):
    """
    A placeholder for a state in a graph: the `result_state` of a filter.

    Attributes
    ----------
    handle : str or MPSHandle or None
        The caller's tag. Settable.
    export_from_graph, synchronize_resource : bool
        Settable, without effect here: states are opaque.

    Notes
    -----
    Source: ``MPSNNGraphNodes.h``.
    """

    _producer: MPSNNFilterNode

    def __init__(self) -> None:
        raise UnavailableError(f"a {type(self).__name__} cannot be made: read result_state of a filter node")

    @classmethod
    def _of(cls, producer: MPSNNFilterNode) -> MPSNNStateNode:
        state = cls.__new__(cls)
        state._producer = producer
        return state

    @property
    def producer(self) -> MPSNNFilterNode:
        """The forward filter whose state this is."""
        return self._producer

    def structure(self) -> Structure:
        """Everything that its filter depends on, for drawings."""
        return self._producer.structure()


class MPSNNGradientStateNode(MPSNNStateNode):
    """Ties a forward filter to its gradient filter. Source: ``MPSNNGraphNodes.h``."""


class MPSNNBinaryGradientStateNode(MPSNNStateNode):
    """Ties a forward filter with two sources to its two gradient filters. Source: ``MPSNNGraphNodes.h``."""


NodeHandler: TypeAlias = Callable[
    ["MPSNNFilterNode", "MPSNNFilterNode | None", MPSNNImageNode, MPSNNImageNode],
    None,
]
"""Called with (gradient node, inference node or None, inference source, gradient source): see `training_graph`."""


class MPSNNFilterNode(Connected, Strict):
    """
    Base of all nodes that compute an image from images.

    Attributes
    ----------
    label : str or None
        Free text. Settable.

    Notes
    -----
    Source: ``MPSNNGraphNodes.h``.
    """

    _left_out: ClassVar = {"paddingPolicy": GEOMETRY}

    fields: ClassVar[tuple[Field, ...]] = ()
    """The fields of this class in a graph file; empty if it has no place there. Not Apple's."""

    _accumulation: ClassVar[Callable[..., MPSNNFilterNode]]
    """The node class that adds two gradients of an image; set by its own module, which depends on this one."""

    _label: str | None = None
    _state_class: ClassVar[type[MPSNNStateNode] | None] = MPSNNGradientStateNode
    _sources: tuple[MPSNNImageNode, ...]
    _result_image: MPSNNImageNode
    _result_state: MPSNNStateNode | None = None

    def __init__(self) -> None:
        raise UnavailableError(f"{type(self).__name__} has no initialiser: use one of its subclasses")

    def _connect(self, **sources: ImageLike) -> None:
        """Set the sources, by argument name, and make the result image, in the format of the first."""
        self._sources = tuple(node_or_error(name, node, MPSNNImageNode) for name, node in sources.items())
        self._result_image = MPSNNImageNode(handle=None)
        self._result_image._producer = self
        self._result_image.format = self._sources[0].format

    @property
    def label(self) -> str | None:
        """Free text."""
        return self._label

    @label.setter
    def label(self, value: str | None) -> None:
        if value is not None and not isinstance(value, str):
            raise ParameterError(f"label is a {type(value).__name__}: give a string or None")
        self._label = None if value is None else str.__str__(value)

    @property
    def sources(self) -> tuple[MPSNNImageNode, ...]:
        """The images that are read, in the order of Apple's arguments; then those from the gradient state."""
        return self._sources

    @property
    def operation(self) -> Operation:
        """The node's operation, with its current parameters. Not Apple's."""
        raise UnavailableError(f"{type(self).__name__} cannot be evaluated")

    @property
    def forward_node(self) -> MPSNNFilterNode | None:
        """The node whose gradient state this one has; None for a forward node. Not Apple's."""
        return None

    @property
    def result_image(self) -> MPSNNImageNode:
        """The result. Its format starts as that of the first source."""
        return self._result_image

    @property
    def result_state(self) -> MPSNNStateNode | None:
        """The state for the gradient filter, made at first use; None for a filter without a gradient."""
        if self._result_state is None and self._state_class is not None:
            self._result_state = self._state_class._of(self)
        return self._result_state

    @property
    def result_states(self) -> list[MPSNNStateNode] | None:
        """All states, or None."""
        state = self.result_state
        return None if state is None else [state]

    @property
    def data_source(self) -> Any:
        """Where the weights of a layer come from; None for other filters. Not Apple's."""
        return None

    def reload(self) -> Any:
        """Read the data source again. Not Apple's."""

    @property
    def exports_state(self) -> bool:
        """Whether the graph returns the state, which only layers with weights have. Not Apple's."""
        return False

    def gradient_filter(
        self, *, with_source: ImageLike | None = None, with_sources: Sequence[ImageLike] | None = None
    ) -> MPSNNGradientFilterNode:
        """
        The gradient filter of this filter.

        Parameters
        ----------
        with_source : MPSNNImageNode
            The gradient of the result image.
        with_sources : sequence of MPSNNImageNode
            Alternatively, a list of just that.

        Raises
        ------
        UnavailableError
            The filter has several gradient filters, or none.
        """
        filters = self._gradient_filters(self._one_gradient(with_source, with_sources))
        if len(filters) != 1:
            raise UnavailableError(f"{type(self).__name__} has {len(filters)} gradient filters: use gradient_filters")
        return filters[0]

    def gradient_filters(
        self, *, with_source: ImageLike | None = None, with_sources: Sequence[ImageLike] | None = None
    ) -> list[MPSNNGradientFilterNode]:
        """
        All gradient filters of this filter, one for each source, in the order of the sources.

        Parameters and errors as for `gradient_filter`.
        """
        return self._gradient_filters(self._one_gradient(with_source, with_sources))

    def training_graph(
        self, *, with_source_gradient: ImageLike | None = None, node_handler: NodeHandler | None = None
    ) -> list[MPSNNFilterNode] | None:
        """
        Build the gradient nodes of everything that this node depends on.

        Parameters
        ----------
        with_source_gradient : MPSNNImageNode, optional
            The gradient of this node's result image. Default: the result image itself is used as the gradient.
        node_handler : callable, optional
            Called once for each new node with (gradient node, inference node, the inference source whose gradient it
            makes, the gradient that it reads). The inference node is None for an addition, which is inserted where an
            image has several readers. Default: copies the handle of the source to the new result image. Setting
            `stop_gradient` on the source or on the new result image ends the branch.

        Returns
        -------
        list of MPSNNFilterNode or None
            The new nodes whose result no other new node reads, in order of creation; None if there are no new nodes.

        Raises
        ------
        UnavailableError
            A gradient filter would have to be differentiated.
        """
        if with_source_gradient is not None:
            with_source_gradient = node_or_error("with_source_gradient", with_source_gradient, MPSNNImageNode)
        if node_handler is not None and not callable(node_handler):
            raise ParameterError(f"node_handler is a {type(node_handler).__name__}: give a function")
        return training_graph(self, with_source_gradient, node_handler or copy_handle, self._accumulation)

    def _one_gradient(self, with_source: ImageLike | None, with_sources: Sequence[ImageLike] | None) -> MPSNNImageNode:
        if (with_source is None) == (with_sources is None):
            raise ParameterError("give either with_source or with_sources")
        if with_sources is not None:
            gradients = sequence_or_error("with_sources", with_sources)
            if len(gradients) != 1:
                raise ParameterError(f"with_sources has {len(gradients)} images: give one for the one result image")
            with_source = gradients[0]
        return node_or_error("with_source", with_source, MPSNNImageNode)

    def _gradient_filters(self, gradient: MPSNNImageNode) -> list[MPSNNGradientFilterNode]:
        """The gradient filters for a checked gradient."""
        raise UnavailableError(f"{type(self).__name__} cannot be differentiated")

    def _facts(self) -> dict[str, object]:
        """What the repr shows, by name."""
        return {}

    def structure(self) -> Structure:
        """Everything that it depends on, for drawings."""
        return Structure.of_images([self.result_image])

    def _repr_svg_(self) -> str:
        return svg(self)

    def __repr__(self) -> str:
        facts = "".join(f" {name}={value}" for name, value in self._facts().items())
        return f"<{type(self).__name__}{facts}{f' {self.label!r}' if self.label else ''}>"


class MPSNNGradientFilterNode(MPSNNFilterNode):
    """
    Base of the nodes that compute the gradient of a source from the gradient of a result.

    They cannot be differentiated again: their gradient methods raise `UnavailableError`. Source:
    ``MPSNNGraphNodes.h``.
    """

    _state_class = None
    _gradient_state: MPSNNStateNode
    _place = 0
    """The index of the differentiated source among the forward node's sources."""

    @property
    def forward_node(self) -> MPSNNFilterNode:
        """The node whose gradient state this one has."""
        return self._gradient_state.producer

    @property
    def place(self) -> int:
        """The index of the differentiated source among the forward node's sources. Not Apple's."""
        return self._place

    @property
    def differentiated_source(self) -> MPSNNImageNode:
        """The source of the forward node whose gradient this computes. Not Apple's."""
        return self.forward_node.sources[self._place]

    @property
    def expected_operation(self) -> Operation:
        """The forward node's own gradient operation, from which this node's may differ. Not Apple's."""
        gradients = self.forward_node.operation.gradients()
        return gradients[self._place]

    def training_graph(
        self, *, with_source_gradient: ImageLike | None = None, node_handler: NodeHandler | None = None
    ) -> list[MPSNNFilterNode] | None:
        """Unavailable: raises `UnavailableError`."""
        raise UnavailableError(f"{type(self).__name__} cannot be differentiated")
