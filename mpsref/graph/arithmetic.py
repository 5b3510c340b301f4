"""Arithmetic on two images, its gradients, and initial gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Never

import numpy as np

from mpsref.arguments import sequence_or_error
from mpsref.attributes import NO_STRIDES, Setting, flag_or_error
from mpsref.errors import ParameterError, UnavailableError
from mpsref.graph.fields import FlagField, ImageField, ImagesField, NumberField, StateField
from mpsref.graph.nodes import (
    ImageLike,
    MPSNNBinaryGradientStateNode,
    MPSNNFilterNode,
    MPSNNGradientFilterNode,
    MPSNNImageNode,
    node_or_error,
)
from mpsref.neuron.descriptor import float32_parameter
from mpsref.operations import Arithmetic, Difference, Ones, Operation, Product, Sum

__all__ = [
    "MPSNNAdditionGradientNode",
    "MPSNNAdditionNode",
    "MPSNNArithmeticGradientNode",
    "MPSNNArithmeticGradientStateNode",
    "MPSNNBinaryArithmeticNode",
    "MPSNNInitialGradientNode",
    "MPSNNMultiplicationGradientNode",
    "MPSNNMultiplicationNode",
    "MPSNNSubtractionGradientNode",
    "MPSNNSubtractionNode",
]

FLT_MAX = float(np.finfo(np.float32).max)

STRIDES = ("StrideInPixelsX", "StrideInPixelsY", "StrideInFeatureChannels")


class MPSNNArithmeticGradientStateNode(MPSNNBinaryGradientStateNode):
    """Ties an arithmetic filter to its two gradient filters. Source: ``MPSNNGraphNodes.h``."""


class Float32Property(Setting[float]):
    """A settable number of a node, rounded once to float32."""

    def __init__(self, default: float, doc: str) -> None:
        super().__init__(default, doc, float32_parameter)


class _Arithmetic(MPSNNFilterNode):
    """The numbers of the forward and the gradient filters of an arithmetic operation."""

    primary_scale = Float32Property(1.0, "Factor of the primary (left) source. Default 1.")
    secondary_scale = Float32Property(1.0, "Factor of the secondary (right) source. Default 1.")
    bias = Float32Property(0.0, "Added to the result; the gradient filter ignores it. Default 0.")
    minimum_value = Float32Property(-FLT_MAX, "Lower clamp; the gradient filter ignores it. Default -FLT_MAX.")
    maximum_value = Float32Property(FLT_MAX, "Upper clamp; the gradient filter ignores it. Default FLT_MAX.")

    def _facts(self) -> dict[str, object]:
        # As text, to distinguish -0.0 from 0.0.
        return {
            name: getattr(self, name)
            for name, number in NUMBERS.items()
            if str(getattr(self, name)) != str(number.default)
        }


NUMBERS = {name: value for name, value in vars(_Arithmetic).items() if isinstance(value, Float32Property)}
"""The numbers of an arithmetic node, by name."""


class MPSNNBinaryArithmeticNode(_Arithmetic):
    """
    Base of the arithmetic operations on two images.

    Parameters
    ----------
    left_source, right_source : MPSNNImageNode
        The primary and the secondary source.
    sources : sequence of two MPSNNImageNode
        Alternatively, both in a list.

    Notes
    -----
    Source: ``MPSNNGraphNodes.h``, ``MPSCNNMath.h``. Strides, which broadcast a source, are not mirrored.
    """

    _left_out: ClassVar = {f"{side}{stride}": NO_STRIDES for side in ("primary", "secondary") for stride in STRIDES}

    fields = (ImagesField("sources"), *(NumberField(name, default=number.default) for name, number in NUMBERS.items()))
    _state_class = MPSNNArithmeticGradientStateNode
    _operation: ClassVar[type[Arithmetic]]
    _gradient_class: ClassVar[type[MPSNNArithmeticGradientNode]]

    def __init__(
        self,
        *,
        left_source: ImageLike | None = None,
        right_source: ImageLike | None = None,
        sources: Sequence[ImageLike] | None = None,
        **refused: Never,
    ) -> None:
        self._refuse_arguments(refused)
        if type(self) is MPSNNBinaryArithmeticNode:
            raise UnavailableError("MPSNNBinaryArithmeticNode has no initialiser: use one of its subclasses")
        if sources is not None:
            if left_source is not None or right_source is not None:
                raise ParameterError("give either sources, or left_source and right_source")
            pair = sequence_or_error("sources", sources)
            if len(pair) != 2:
                raise ParameterError(f"sources has {len(pair)} images: give two")
            left_source, right_source = pair
        self._connect(
            left_source=node_or_error("left_source", left_source, MPSNNImageNode),
            right_source=node_or_error("right_source", right_source, MPSNNImageNode),
        )

    @property
    def operation(self) -> Operation:
        """The node's operation, with its current parameters. Not Apple's."""
        low, high = self.minimum_value, self.maximum_value
        if low > high:
            raise ParameterError(f"minimum_value of {self} is {low}, above maximum_value, {high}: exchange them")
        # The default bounds mean none: an infinite sum is infinite.
        bounds = low if low > -FLT_MAX else -np.inf, high if high < FLT_MAX else np.inf
        return self._operation((self.primary_scale, self.secondary_scale), self.bias, bounds)

    def gradient_class(self) -> type[MPSNNArithmeticGradientNode]:
        """The class of the two gradient filters."""
        return self._gradient_class

    def gradient_filter(
        self, *, with_source: ImageLike | None = None, with_sources: Sequence[ImageLike] | None = None
    ) -> MPSNNGradientFilterNode:
        """Unavailable: raises `UnavailableError`. Use `gradient_filters`, which makes two nodes."""
        raise UnavailableError(f"gradient_filter of {type(self).__name__} is unavailable: use gradient_filters")

    def _gradient_filters(self, gradient: MPSNNImageNode) -> list[MPSNNGradientFilterNode]:
        return [
            self._gradient_class(
                gradient_images=[gradient, source], forward_filter=self, is_secondary_source_filter=secondary
            )
            for secondary, source in zip((False, True), self.sources, strict=True)
        ]


class MPSNNArithmeticGradientNode(_Arithmetic, MPSNNGradientFilterNode):
    """
    Base of the gradient filters of arithmetic operations; each computes the gradient of one source.

    Parameters
    ----------
    source_gradient : MPSNNImageNode
        Gradient of the forward result.
    source_image : MPSNNImageNode
        The differentiated source of the forward node.
    gradient_state : MPSNNBinaryGradientStateNode
        ``result_state`` of the forward node.
    is_secondary_source_filter : bool
        Which of the two forward sources `source_image` is.
    gradient_images : sequence of two MPSNNImageNode
        ``[source_gradient, source_image]``, instead of these two.
    forward_filter : MPSNNBinaryArithmeticNode
        Instead of `gradient_state`.

    Notes
    -----
    Source: ``MPSNNGraphNodes.h``. The scales start as those of the forward node.
    """

    _left_out: ClassVar = {f"secondary{stride}": NO_STRIDES for stride in STRIDES}

    fields = (
        ImageField("source_gradient", place=0),
        ImageField("source_image", place=1),
        StateField("gradient_state"),
        FlagField("is_secondary_source_filter"),
        *(NumberField(name, is_always_written=True) for name in ("primary_scale", "secondary_scale")),
    )
    _operation: ClassVar[type[Arithmetic]]
    """Of the forward node."""

    def __init__(
        self,
        *,
        is_secondary_source_filter: bool,
        source_gradient: ImageLike | None = None,
        source_image: ImageLike | None = None,
        gradient_state: MPSNNBinaryGradientStateNode | None = None,
        gradient_images: Sequence[ImageLike] | None = None,
        forward_filter: MPSNNFilterNode | None = None,
        **refused: Never,
    ) -> None:
        self._refuse_arguments(refused)
        if type(self) is MPSNNArithmeticGradientNode:
            raise UnavailableError("MPSNNArithmeticGradientNode has no initialiser: use one of its subclasses")
        if gradient_images is not None:
            pair = sequence_or_error("gradient_images", gradient_images)
            if len(pair) != 2:
                raise ParameterError(f"gradient_images has {len(pair)} images: give gradient and source")
            source_gradient, source_image = pair
        if forward_filter is not None:
            forward_state = node_or_error("forward_filter", forward_filter, MPSNNBinaryArithmeticNode).result_state
            gradient_state = node_or_error("gradient_state", forward_state, MPSNNBinaryGradientStateNode)
        state = node_or_error("gradient_state", gradient_state, MPSNNBinaryGradientStateNode)
        self._gradient_state: MPSNNBinaryGradientStateNode = state
        self._place = int(flag_or_error("is_secondary_source_filter", is_secondary_source_filter))
        self._connect(
            source_gradient=node_or_error("source_gradient", source_gradient, MPSNNImageNode),
            source_image=node_or_error("source_image", source_image, MPSNNImageNode),
            **self._sources_of_state(),
        )
        forward = state.producer
        if isinstance(forward, MPSNNBinaryArithmeticNode):
            self.primary_scale, self.secondary_scale = forward.primary_scale, forward.secondary_scale

    def _sources_of_state(self) -> dict[str, MPSNNImageNode]:
        """Further sources, from the gradient state."""
        return {}

    @property
    def operation(self) -> Operation:
        """The node's operation, with its current parameters. Not Apple's."""
        forward = self._operation((self.primary_scale, self.secondary_scale))
        return forward.gradients()[self._place]

    @property
    def is_secondary_source_filter(self) -> bool:
        """Whether this computes the gradient of the right source."""
        return bool(self._place)

    @property
    def gradient_state(self) -> MPSNNBinaryGradientStateNode:
        """The state that ties this node to its forward node."""
        return self._gradient_state


class MPSNNAdditionGradientNode(MPSNNArithmeticGradientNode):
    """The gradient of an addition: the incoming gradient, times the scale of the source."""

    _operation = Sum


class MPSNNSubtractionGradientNode(MPSNNArithmeticGradientNode):
    """
    The gradient of a subtraction: the incoming gradient, times the scale of the source, negated for the right source.

    Apple's header leaves the sign to the caller in one place and builds it in elsewhere; here it is built in.
    """

    _operation = Difference


class MPSNNMultiplicationGradientNode(MPSNNArithmeticGradientNode):
    """
    The gradient of a multiplication: the incoming gradient times the *other* source, times both scales.

    `source_image` is the differentiated source; the other one comes from the forward node of the state.
    """

    _operation = Product

    def _sources_of_state(self) -> dict[str, MPSNNImageNode]:
        return {"gradient_state": self.forward_node.sources[1 - self._place]}


class MPSNNAdditionNode(MPSNNBinaryArithmeticNode):
    """
    ``primary_scale left + secondary_scale right + bias``, clamped, rounded once.

    Examples
    --------
    >>> import numpy as np
    >>> import mpsref as mps
    >>> x, y = mps.MPSNNImageNode(handle="x"), mps.MPSNNImageNode(handle="y")
    >>> total = mps.MPSNNAdditionNode(left_source=x, right_source=y)
    >>> graph = mps.MPSNNGraph(result_image=total.result_image)
    >>> graph.run(x=np.float16([[[1, 2]]]), y=np.float16([[[0.5, 0.25]]]))["result0"].to_array()
    array([[[[1.5 , 2.25]]]], dtype=float16)
    """

    _operation = Sum
    _gradient_class = MPSNNAdditionGradientNode


class MPSNNSubtractionNode(MPSNNBinaryArithmeticNode):
    """
    ``primary_scale left - secondary_scale right + bias``, clamped, rounded once.

    Examples
    --------
    >>> import numpy as np
    >>> import mpsref as mps
    >>> x, y = mps.MPSNNImageNode(handle="x"), mps.MPSNNImageNode(handle="y")
    >>> difference = mps.MPSNNSubtractionNode(left_source=x, right_source=y)
    >>> graph = mps.MPSNNGraph(result_image=difference.result_image)
    >>> graph.run(x=np.float16([[[1, 2]]]), y=np.float16([[[0.5, 0.25]]]))["result0"].to_array()
    array([[[[0.5 , 1.75]]]], dtype=float16)
    """

    _operation = Difference
    _gradient_class = MPSNNSubtractionGradientNode


class MPSNNMultiplicationNode(MPSNNBinaryArithmeticNode):
    """
    ``(primary_scale left) (secondary_scale right) + bias``, clamped, rounded once.

    Examples
    --------
    >>> import numpy as np
    >>> import mpsref as mps
    >>> x, y = mps.MPSNNImageNode(handle="x"), mps.MPSNNImageNode(handle="y")
    >>> product = mps.MPSNNMultiplicationNode(left_source=x, right_source=y)
    >>> graph = mps.MPSNNGraph(result_image=product.result_image)
    >>> graph.run(x=np.float16([[[1, 2]]]), y=np.float16([[[0.5, 0.25]]]))["result0"].to_array()
    array([[[[0.5, 0.5]]]], dtype=float16)
    """

    _operation = Product
    _gradient_class = MPSNNMultiplicationGradientNode


class MPSNNInitialGradientNode(MPSNNFilterNode):
    """
    Ones, of the size of the source: the gradient of a result with respect to itself.

    Add it after the node to differentiate and call its `training_graph`.

    Parameters
    ----------
    source : MPSNNImageNode
        The result image to differentiate.

    Notes
    -----
    Source: ``MPSNNGraphNodes.h``, from the macOS 10.15 SDK on.
    """

    fields = (ImageField("source"),)
    _state_class = None

    def __init__(self, *, source: ImageLike) -> None:
        self._connect(source=source)

    @property
    def operation(self) -> Operation:
        """The node's operation. Not Apple's."""
        return Ones()


ARITHMETIC_NODES = (MPSNNAdditionNode, MPSNNSubtractionNode, MPSNNMultiplicationNode)
"""The classes of forward arithmetic, in the order in which lists show them."""

MPSNNFilterNode._accumulation = MPSNNAdditionNode
