"""Convolutions, fully connected layers and pooling, with their gradients."""

from __future__ import annotations

from typing import Any, ClassVar

from mpsref.attributes import Setting
from mpsref.enums import (
    MPSImageEdgeMode,
    MPSNNConvolutionAccumulatorPrecisionOption,
    MPSNNPaddingMethod,
    MPSNNTrainingStyle,
    member_of,
)
from mpsref.errors import ParameterError, UnavailableError, shown
from mpsref.graph.fields import EnumField, Field, ImageField, PaddingField, StateField, WeightsField, WholeField
from mpsref.graph.nodes import (
    ImageLike,
    MPSNNFilterNode,
    MPSNNGradientFilterNode,
    MPSNNGradientStateNode,
    MPSNNImageNode,
    node_or_error,
)
from mpsref.operations import (
    Average,
    Convolution,
    Maximum,
    MPSNNDefaultPadding,
    Operation,
    Sliding,
    Weights,
    policy_or_error,
    weights_of,
)
from mpsref.operations.padding import PolicyLike
from mpsref.operations.weights import whole_or_error

__all__ = [
    "MPSCNNConvolutionGradientNode",
    "MPSCNNConvolutionGradientStateNode",
    "MPSCNNConvolutionNode",
    "MPSCNNFullyConnectedGradientNode",
    "MPSCNNFullyConnectedNode",
    "MPSCNNPoolingAverageGradientNode",
    "MPSCNNPoolingAverageNode",
    "MPSCNNPoolingGradientNode",
    "MPSCNNPoolingMaxGradientNode",
    "MPSCNNPoolingMaxNode",
    "MPSCNNPoolingNode",
]

SAME = MPSNNDefaultPadding(MPSNNPaddingMethod.sizeSame)
VALID = MPSNNDefaultPadding(MPSNNPaddingMethod.sizeValidOnly)


class _Choice(Setting[Any]):
    """A settable member of an enumeration."""

    def __init__(self, default: Any, doc: str) -> None:
        super().__init__(default, doc, self._member)

    def _member(self, name: str, value: Any) -> Any:
        kind = type(self.default)
        member = member_of(kind, value)
        if member is None:
            raise ParameterError(f"{name} is {shown(value)}: choose one of {', '.join(kind.__members__)}")
        return member


class _Padded(MPSNNFilterNode):
    """A node with a padding policy."""

    _padding: PolicyLike = SAME

    @property
    def padding_policy(self) -> PolicyLike:
        """Size of the result and place of the first window."""
        return self._padding

    @padding_policy.setter
    def padding_policy(self, value: PolicyLike) -> None:
        self._padding = policy_or_error(value)


class _Trainable(MPSNNFilterNode):
    """A node with weights."""

    training_style = _Choice(
        MPSNNTrainingStyle.updateDeviceGPU, "Settable, without effect: weights are updated by the caller."
    )

    _data_source: Any
    _weights: Weights

    def _load(self, source: Any) -> None:
        self._data_source, self._weights = source, weights_of(source)

    @property
    def data_source(self) -> Any:
        """Where the weights come from. Not Apple's."""
        return self._data_source

    @property
    def weights_read(self) -> Weights:
        """What was read of it. Not Apple's."""
        return self._weights

    def reload(self) -> Weights:
        """Read the data source again. Not Apple's."""
        self._weights = weights_of(self._data_source)
        return self._weights


class MPSCNNConvolutionGradientStateNode(MPSNNGradientStateNode):
    """
    Ties a convolution to its gradient filter, which puts the gradients of weights and biases into it.

    With `export_from_graph` the graph returns them. Source: ``MPSNNGraphNodes.h``.
    """


class MPSCNNConvolutionNode(_Trainable, _Padded):
    """
    A convolution with bias and, if the descriptor has one, a neuron.

    Parameters
    ----------
    source : MPSNNImageNode
        What it reads.
    weights : MPSCNNConvolutionDataSource
        An `ArrayDataSource`, or any object with these methods. It is read at once, between ``load`` and ``purge``.

    Attributes
    ----------
    padding_policy : MPSNNPadding
        Default: same size, centred, an odd pixel on the top and left. Settable.
    accumulator_precision : MPSNNConvolutionAccumulatorPrecisionOption
        What a device may use; the result here is exact, rounded once. Default ``float``. Settable.
    training_style : MPSNNTrainingStyle
        Settable, without effect.

    Notes
    -----
    Source: ``MPSNNGraphNodes.h``, ``MPSCNNConvolution.h``. The window is not rotated. Taps outside the source give no
    product.

    Examples
    --------
    >>> import numpy as np
    >>> import mpsref as mps
    >>> d = mps.MPSCNNConvolutionDescriptor(
    ...     kernel_width=3, kernel_height=1, input_feature_channels=1, output_feature_channels=1
    ... )
    >>> weights = mps.ArrayDataSource(d, [[[[1], [10], [100]]]], [0.5])
    >>> n = mps.MPSCNNConvolutionNode(source=mps.MPSNNImageNode(handle="x"), weights=weights)
    >>> row = np.float16([[[1], [2], [3], [4]]])
    >>> mps.MPSNNGraph(result_image=n).run(x=row)["result0"].to_array().ravel()
    array([210.5, 321.5, 432.5,  43.5], dtype=float16)
    """

    fields: ClassVar[tuple[Field, ...]] = (
        ImageField("source"),
        WeightsField("weights"),
        PaddingField("padding_policy"),
        EnumField("accumulator_precision", default=MPSNNConvolutionAccumulatorPrecisionOption.float),
    )
    _state_class = MPSCNNConvolutionGradientStateNode
    _is_fully_connected: ClassVar[bool] = False
    _gradient_class: ClassVar[type[MPSCNNConvolutionGradientNode]]

    accumulator_precision = _Choice(
        MPSNNConvolutionAccumulatorPrecisionOption.float, "What a device may accumulate in. Default ``float``."
    )

    def __init__(self, *, source: ImageLike, weights: Any) -> None:
        self._connect(source=source)
        self._load(weights)
        self._padding = VALID if self._is_fully_connected else SAME

    @property
    def operation(self) -> Operation:
        """The node's operation, with its current parameters. Not Apple's."""
        half = self.accumulator_precision == MPSNNConvolutionAccumulatorPrecisionOption.half
        return Convolution(self._weights, self._padding, self._is_fully_connected, half)

    @property
    def convolution_gradient_state(self) -> MPSCNNConvolutionGradientStateNode:
        """The state for the gradient filter, as `result_state` is."""
        return node_or_error("result_state", self.result_state, MPSCNNConvolutionGradientStateNode)

    @property
    def exports_state(self) -> bool:
        """Whether the graph returns the gradients of weights and biases. Not Apple's."""
        return self._result_state is not None and self._result_state.export_from_graph

    def _gradient_filters(self, gradient: MPSNNImageNode) -> list[MPSNNGradientFilterNode]:
        made = self._gradient_class(
            source_gradient=gradient,
            source_image=self.sources[0],
            convolution_gradient_state=self.convolution_gradient_state,
            weights=None,
        )
        made.training_style = self.training_style
        return [made]

    def _facts(self) -> dict[str, object]:
        w = self._weights
        return {"kernel": f"{w.kernel[1]}x{w.kernel[0]}", "channels": f"{w.inputs}->{w.outputs}"}


class MPSCNNFullyConnectedNode(MPSCNNConvolutionNode):
    """
    A convolution whose window is as large as its source: the result is one pixel.

    Source: ``MPSNNGraphNodes.h``, ``MPSCNNConvolution.h``. Weights are in the order of the source: y, x, channel.
    """

    fields: ClassVar[tuple[Field, ...]] = (
        MPSCNNConvolutionNode.fields[0],
        MPSCNNConvolutionNode.fields[1],
        MPSCNNConvolutionNode.fields[3],
    )
    _is_fully_connected = True


class MPSCNNConvolutionGradientNode(_Trainable, MPSNNGradientFilterNode):
    """
    The gradient of a convolution's source; the gradients of weights and biases go into the state.

    Parameters
    ----------
    source_gradient : MPSNNImageNode
        Gradient of the forward result.
    source_image : MPSNNImageNode
        The forward source.
    convolution_gradient_state : MPSCNNConvolutionGradientStateNode
        ``result_state`` of the forward node.
    weights : MPSCNNConvolutionDataSource, optional
        Default: those of the forward node.

    Notes
    -----
    Source: ``MPSNNGraphNodes.h``, ``MPSCNNConvolution.h``. The gradients of weights are float32, in the order of the
    weights, and summed over the images.
    """

    fields: ClassVar[tuple[Field, ...]] = (
        ImageField("source_gradient", place=0),
        ImageField("source_image", place=1),
        StateField("convolution_gradient_state"),
        WeightsField("weights", is_required=False),
    )
    _forward_class: ClassVar[type[MPSCNNConvolutionNode]] = MPSCNNConvolutionNode

    def __init__(
        self,
        *,
        source_gradient: ImageLike,
        source_image: ImageLike,
        convolution_gradient_state: MPSCNNConvolutionGradientStateNode,
        weights: Any = None,
    ) -> None:
        state = node_or_error(
            "convolution_gradient_state", convolution_gradient_state, MPSCNNConvolutionGradientStateNode
        )
        forward = state.producer
        if type(forward) is not self._forward_class:
            raise ParameterError(
                f"convolution_gradient_state is that of a {type(forward).__name__}: "
                f"a {type(self).__name__} takes that of a {self._forward_class.__name__}"
            )
        self._gradient_state = state
        self._connect(source_gradient=source_gradient, source_image=source_image)
        self._has_own_weights = weights is not None
        if weights is None:
            forward.operation.gradients()  # raises where there are none
            self._data_source, self._weights = forward._data_source, forward._weights
        else:
            self._load(weights)
            if self._weights.neuron is not None:
                raise UnavailableError("weights have a fused neuron, of which there is no gradient: use a neuron node")

    @property
    def operation(self) -> Operation:
        """The node's operation. Not Apple's."""
        (gradient,) = self.forward_node.operation.gradients()
        return gradient.with_weights(self._weights) if self._has_own_weights else gradient

    @property
    def convolution_gradient_state(self) -> MPSNNGradientStateNode:
        """The state that ties this node to its forward node. Not Apple's."""
        return node_or_error("convolution_gradient_state", self._gradient_state, MPSCNNConvolutionGradientStateNode)


class MPSCNNFullyConnectedGradientNode(MPSCNNConvolutionGradientNode):
    """The gradient of a fully connected layer's source; see `MPSCNNConvolutionGradientNode`."""

    _forward_class = MPSCNNFullyConnectedNode


MPSCNNConvolutionNode._gradient_class = MPSCNNConvolutionGradientNode
MPSCNNFullyConnectedNode._gradient_class = MPSCNNFullyConnectedGradientNode


# ---- pooling ----


class _Window:
    """The numbers of a pooling filter and its gradient."""

    _numbers: tuple[int, int, int, int]

    @property
    def kernel_width(self) -> int:
        """Taps in x."""
        return self._numbers[0]

    @property
    def kernel_height(self) -> int:
        """Taps in y."""
        return self._numbers[1]

    @property
    def stride_in_pixels_x(self) -> int:
        """Distance of windows in x."""
        return self._numbers[2]

    @property
    def stride_in_pixels_y(self) -> int:
        """Distance of windows in y."""
        return self._numbers[3]


SIZES = ("kernel_width", "kernel_height", "stride_in_pixels_x", "stride_in_pixels_y")


class MPSCNNPoolingNode(_Window, _Padded):
    """
    Base of the pooling filters.

    Parameters
    ----------
    source : MPSNNImageNode
        What it reads.
    filter_size, stride : int
        Of a square window; the default of the stride is the size.
    kernel_width, kernel_height, stride_in_pixels_x, stride_in_pixels_y : int
        Alternatively, each by itself.

    Attributes
    ----------
    padding_policy : MPSNNPadding
        Default: same size, centred, an odd pixel on the top and left. Settable.
    edge_mode : MPSImageEdgeMode
        ``clamp``, the default: a window is cut at the edge; ``zero``: taps outside are zeros. Settable. Apple's nodes
        take it from a padding object.

    Notes
    -----
    Source: ``MPSNNGraphNodes.h``, ``MPSCNNPooling.h``.
    """

    fields = (
        ImageField("source"),
        *(WholeField(name) for name in SIZES),
        PaddingField("padding_policy"),
        EnumField("edge_mode", default=MPSImageEdgeMode.clamp),
    )
    _operation: ClassVar[Any]
    _gradient_class: ClassVar[type[MPSCNNPoolingGradientNode]]

    edge_mode = _Choice(MPSImageEdgeMode.clamp, "What lies outside of the source. Default ``clamp``. Not Apple's.")

    def __init__(
        self,
        *,
        source: ImageLike,
        filter_size: int | None = None,
        stride: int | None = None,
        kernel_width: int | None = None,
        kernel_height: int | None = None,
        stride_in_pixels_x: int | None = None,
        stride_in_pixels_y: int | None = None,
    ) -> None:
        if type(self) is MPSCNNPoolingNode:
            raise UnavailableError("MPSCNNPoolingNode has no initialiser: use one of its subclasses")
        numbers: tuple[Any, ...] = (kernel_width, kernel_height, stride_in_pixels_x, stride_in_pixels_y)
        if filter_size is not None:
            if any(number is not None for number in numbers):
                raise ParameterError(f"give either filter_size and stride, or {', '.join(SIZES)}")
            stride = filter_size if stride is None else stride
            named = zip(("filter_size", "filter_size", "stride", "stride"), (filter_size,) * 2 + (stride,) * 2,
                        strict=True)  # fmt: skip
        elif stride is not None or any(number is None for number in numbers):
            raise ParameterError(f"give either filter_size and stride, or {', '.join(SIZES)}")
        else:
            named = zip(SIZES, numbers, strict=True)
        width, height, x, y = (whole_or_error(name, value) for name, value in named)
        self._numbers = width, height, x, y
        self._connect(source=source)

    @property
    def operation(self) -> Operation:
        """The node's operation, with its current parameters. Not Apple's."""
        made: Operation = self._operation(_sliding(self, self._padding, self.edge_mode))
        return made

    def _gradient_filters(self, gradient: MPSNNImageNode) -> list[MPSNNGradientFilterNode]:
        made = self._gradient_class(
            source_gradient=gradient,
            source_image=self.sources[0],
            gradient_state=node_or_error("gradient_state", self.result_state, MPSNNGradientStateNode),
            padding_policy=self._padding,
            **dict(zip(SIZES, self._numbers, strict=True)),
        )
        return [made]

    def _facts(self) -> dict[str, object]:
        return dict(zip(SIZES, self._numbers, strict=True))


def _sliding(node: Any, padding: PolicyLike, edge_mode: MPSImageEdgeMode) -> Sliding:
    kernel, strides = (node.kernel_height, node.kernel_width), (node.stride_in_pixels_y, node.stride_in_pixels_x)
    return Sliding(kernel, strides, (1, 1), padding, edge_mode)


class MPSCNNPoolingGradientNode(_Window, MPSNNGradientFilterNode):
    """
    Base of the gradients of pooling filters.

    Parameters
    ----------
    source_gradient : MPSNNImageNode
        Gradient of the forward result.
    source_image : MPSNNImageNode
        The forward source.
    gradient_state : MPSNNGradientStateNode
        ``result_state`` of the forward node.
    kernel_width, kernel_height, stride_in_pixels_x, stride_in_pixels_y : int
        The forward node's own.
    padding_policy : MPSNNPadding
        The forward node's own.

    Notes
    -----
    Source: ``MPSNNGraphNodes.h``, ``MPSCNNPooling.h``. The edge mode is that of the forward node.
    """

    fields: ClassVar[tuple[Field, ...]] = (
        ImageField("source_gradient", place=0),
        ImageField("source_image", place=1),
        StateField("gradient_state"),
        *(WholeField(name) for name in SIZES),
        PaddingField("padding_policy", is_property=False),
    )
    _forward_class: ClassVar[type[MPSCNNPoolingNode]]

    def __init__(
        self,
        *,
        source_gradient: ImageLike,
        source_image: ImageLike,
        gradient_state: MPSNNGradientStateNode,
        kernel_width: int,
        kernel_height: int,
        stride_in_pixels_x: int,
        stride_in_pixels_y: int,
        padding_policy: PolicyLike = SAME,
    ) -> None:
        if type(self) is MPSCNNPoolingGradientNode:
            raise UnavailableError("MPSCNNPoolingGradientNode has no initialiser: use one of its subclasses")
        state = node_or_error("gradient_state", gradient_state, MPSNNGradientStateNode)
        if type(state.producer) is not self._forward_class:
            raise ParameterError(
                f"gradient_state is that of a {type(state.producer).__name__}: "
                f"a {type(self).__name__} takes that of a {self._forward_class.__name__}"
            )
        self._gradient_state = state
        numbers = kernel_width, kernel_height, stride_in_pixels_x, stride_in_pixels_y
        width, height, x, y = (whole_or_error(name, value) for name, value in zip(SIZES, numbers, strict=True))
        self._numbers = width, height, x, y
        self._padding = policy_or_error(padding_policy)
        self._connect(source_gradient=source_gradient, source_image=source_image)

    @property
    def padding_policy(self) -> PolicyLike:
        """Size of the forward result and place of its first window."""
        return self._padding

    @padding_policy.setter
    def padding_policy(self, value: PolicyLike) -> None:
        self._padding = policy_or_error(value)

    @property
    def gradient_state(self) -> MPSNNGradientStateNode:
        """The state that ties this node to its forward node. Not Apple's."""
        return node_or_error("gradient_state", self._gradient_state, MPSNNGradientStateNode)

    @property
    def operation(self) -> Operation:
        """The node's operation. Not Apple's."""
        forward = node_or_error("gradient_state", self.forward_node, MPSCNNPoolingNode)
        (gradient,) = forward._operation(_sliding(self, self._padding, forward.edge_mode)).gradients()
        made: Operation = gradient
        return made


class MPSCNNPoolingMaxGradientNode(MPSCNNPoolingGradientNode):
    """The gradient of max pooling: each window's goes to its largest element, the first of several."""


class MPSCNNPoolingAverageGradientNode(MPSCNNPoolingGradientNode):
    """The gradient of average pooling: each window's is shared by its elements."""


class MPSCNNPoolingMaxNode(MPSCNNPoolingNode):
    """
    The largest element of each window.

    Examples
    --------
    >>> import numpy as np
    >>> import mpsref as mps
    >>> n = mps.MPSCNNPoolingMaxNode(source=mps.MPSNNImageNode(handle="x"), filter_size=2)
    >>> mps.MPSNNGraph(result_image=n).run(x=np.float16([[[1], [3], [2], [0]]]))["result0"].to_array().ravel()
    array([3., 2.], dtype=float16)
    """

    _operation = Maximum
    _gradient_class = MPSCNNPoolingMaxGradientNode


class MPSCNNPoolingAverageNode(MPSCNNPoolingNode):
    """The mean of each window."""

    _operation = Average
    _gradient_class = MPSCNNPoolingAverageGradientNode


MPSCNNPoolingMaxGradientNode._forward_class = MPSCNNPoolingMaxNode
MPSCNNPoolingAverageGradientNode._forward_class = MPSCNNPoolingAverageNode
