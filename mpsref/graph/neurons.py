"""The neuron nodes: each names its row of the table and its parameters."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy.typing as npt

from mpsref.enums import MPSCNNNeuronType
from mpsref.errors import UnavailableError
from mpsref.graph.fields import DescriptorField, Field, ImageField, ParameterField, SlopesField, StateField
from mpsref.graph.nodes import (
    ImageLike,
    MPSNNFilterNode,
    MPSNNGradientFilterNode,
    MPSNNGradientStateNode,
    MPSNNImageNode,
    node_or_error,
)
from mpsref.neuron.descriptor import MPSNNNeuronDescriptor, NeuronLike, descriptor_or_error
from mpsref.neuron.table import NEURONS
from mpsref.operations import NeuronForward, NeuronGradient, Operation

__all__ = [
    "MPSCNNNeuronAbsoluteNode",
    "MPSCNNNeuronELUNode",
    "MPSCNNNeuronExponentialNode",
    "MPSCNNNeuronGeLUNode",
    "MPSCNNNeuronGradientNode",
    "MPSCNNNeuronHardSigmoidNode",
    "MPSCNNNeuronLinearNode",
    "MPSCNNNeuronLogarithmNode",
    "MPSCNNNeuronNode",
    "MPSCNNNeuronPReLUNode",
    "MPSCNNNeuronPowerNode",
    "MPSCNNNeuronReLUNNode",
    "MPSCNNNeuronReLUNode",
    "MPSCNNNeuronSigmoidNode",
    "MPSCNNNeuronSoftPlusNode",
    "MPSCNNNeuronSoftSignNode",
    "MPSCNNNeuronTanHNode",
]

T = MPSCNNNeuronType


class _ByDescriptor(type):
    """Lets ``MPSCNNNeuronNode(source=x, descriptor=d)`` be a node of the descriptor's own class."""

    def __call__(cls, *args: Any, **arguments: Any) -> Any:
        descriptor = arguments.get("descriptor")
        if cls is not MPSCNNNeuronNode or descriptor is None:
            return super().__call__(*args, **arguments)
        descriptor = arguments["descriptor"] = descriptor_or_error(descriptor, of_apple=True)
        node = object.__new__(_OWN_CLASSES.get(descriptor.neuron_type, MPSCNNNeuronNode))
        MPSCNNNeuronNode.__init__(node, *args, **arguments)
        return node


class MPSCNNNeuronNode(MPSNNFilterNode, metaclass=_ByDescriptor):
    """
    A neuron, applied to every feature channel of every pixel.

    Parameters
    ----------
    source : MPSNNImageNode
        The image to read.
    descriptor : MPSNNNeuronDescriptor, MPSCNNNeuronType or str
        Type and parameters. The new node is of the type's own class; of this one for type ``none``.

    Notes
    -----
    Source: ``MPSNNGraphNodes.h``. Subclasses take their parameters one by one; the defaults are the documented ones.

    Examples
    --------
    >>> import mpsref as mps
    >>> d = mps.MPSNNNeuronDescriptor(mps.MPSCNNNeuronType.reLUN, a=0)
    >>> mps.MPSCNNNeuronNode(source=mps.MPSNNImageNode(handle="x"), descriptor=d)
    <MPSCNNNeuronReLUNNode a=0.0 b=6.0>
    """

    fields: ClassVar[tuple[Field, ...]] = (ImageField("source"), DescriptorField("descriptor"))
    neuron_type: ClassVar[MPSCNNNeuronType | None] = None
    _descriptor: MPSNNNeuronDescriptor

    def __init__(self, *, source: ImageLike, descriptor: NeuronLike) -> None:
        self._connect(source=source)
        self._descriptor = descriptor_or_error(descriptor, of_apple=True)

    def _describe(self, source: ImageLike, **parameters: Any) -> None:
        assert self.neuron_type is not None
        MPSCNNNeuronNode.__init__(self, source=source, descriptor=MPSNNNeuronDescriptor(self.neuron_type, **parameters))

    @property
    def operation(self) -> Operation:
        """The node's operation. Not Apple's."""
        return NeuronForward(self._descriptor)

    @property
    def descriptor(self) -> MPSNNNeuronDescriptor:
        """Type and parameters."""
        return self._descriptor

    @property
    def a(self) -> float:
        """First parameter, as float32."""
        return self._descriptor.a

    @property
    def b(self) -> float:
        """Second parameter, as float32."""
        return self._descriptor.b

    @property
    def c(self) -> float:
        """Third parameter, as float32."""
        return self._descriptor.c

    def _gradient_filters(self, gradient: MPSNNImageNode) -> list[MPSNNGradientFilterNode]:
        state = self.result_state
        assert isinstance(state, MPSNNGradientStateNode)
        return [
            MPSCNNNeuronGradientNode(
                source_gradient=gradient,
                source_image=self.sources[0],
                gradient_state=state,
                descriptor=self._descriptor,
            )
        ]

    def _facts(self) -> dict[str, object]:
        return dict(self._descriptor.parameters)


class MPSCNNNeuronGradientNode(MPSNNGradientFilterNode):
    """
    The gradient of any neuron: the incoming gradient times the slope at the forward source.

    Parameters
    ----------
    source_gradient : MPSNNImageNode
        Gradient of the forward result.
    source_image : MPSNNImageNode
        Source of the forward node (not its result).
    gradient_state : MPSNNGradientStateNode
        ``result_state`` of the forward node.
    descriptor : MPSNNNeuronDescriptor, MPSCNNNeuronType or str
        Type and parameters of the forward node.

    Notes
    -----
    Source: ``MPSNNGraphNodes.h``.
    """

    fields = (
        ImageField("source_gradient", place=0),
        ImageField("source_image", place=1),
        StateField("gradient_state"),
        DescriptorField("descriptor"),
    )

    def __init__(
        self,
        *,
        source_gradient: ImageLike,
        source_image: ImageLike,
        gradient_state: MPSNNGradientStateNode,
        descriptor: NeuronLike,
    ) -> None:
        self._connect(source_gradient=source_gradient, source_image=source_image)
        self._gradient_state: MPSNNGradientStateNode = node_or_error(
            "gradient_state", gradient_state, MPSNNGradientStateNode
        )
        self._descriptor = descriptor_or_error(descriptor, of_apple=True)

    @property
    def operation(self) -> Operation:
        """The node's operation. Not Apple's."""
        return NeuronGradient(self._descriptor)

    @property
    def descriptor(self) -> MPSNNNeuronDescriptor:
        """Type and parameters of the neuron."""
        return self._descriptor

    @property
    def gradient_state(self) -> MPSNNGradientStateNode:
        """The state that ties this node to its forward node."""
        return self._gradient_state

    def _facts(self) -> dict[str, object]:
        return {"neuron": self._descriptor.neuron_type.name, **self._descriptor.parameters}


class MPSCNNNeuronAbsoluteNode(MPSCNNNeuronNode):
    """The absolute value; takes no parameters."""

    neuron_type = T.absolute

    def __init__(self, *, source: ImageLike) -> None:
        self._describe(source)


class MPSCNNNeuronELUNode(MPSCNNNeuronNode):
    """Exponential linear unit; takes `a`."""

    neuron_type = T.ELU

    def __init__(self, *, source: ImageLike, a: float | None = None) -> None:
        self._describe(source, a=a)


class MPSCNNNeuronReLUNNode(MPSCNNNeuronNode):
    """Rectified linear unit with an upper bound; takes `a` and the bound `b`."""

    neuron_type = T.reLUN

    def __init__(self, *, source: ImageLike, a: float | None = None, b: float | None = None) -> None:
        self._describe(source, a=a, b=b)


class MPSCNNNeuronLinearNode(MPSCNNNeuronNode):
    """A straight line; takes `a` and `b`."""

    neuron_type = T.linear

    def __init__(self, *, source: ImageLike, a: float | None = None, b: float | None = None) -> None:
        self._describe(source, a=a, b=b)


class MPSCNNNeuronReLUNode(MPSCNNNeuronNode):
    """Rectified linear unit; takes the slope `a` below zero."""

    neuron_type = T.reLU

    def __init__(self, *, source: ImageLike, a: float | None = None) -> None:
        self._describe(source, a=a)


class MPSCNNNeuronSigmoidNode(MPSCNNNeuronNode):
    """The logistic function; takes no parameters."""

    neuron_type = T.sigmoid

    def __init__(self, *, source: ImageLike) -> None:
        self._describe(source)


class MPSCNNNeuronHardSigmoidNode(MPSCNNNeuronNode):
    """A straight line clamped to [0, 1]; takes `a` and `b`."""

    neuron_type = T.hardSigmoid

    def __init__(self, *, source: ImageLike, a: float | None = None, b: float | None = None) -> None:
        self._describe(source, a=a, b=b)


class MPSCNNNeuronSoftPlusNode(MPSCNNNeuronNode):
    """A smooth rectifier; takes `a` and `b`."""

    neuron_type = T.softPlus

    def __init__(self, *, source: ImageLike, a: float | None = None, b: float | None = None) -> None:
        self._describe(source, a=a, b=b)


class MPSCNNNeuronSoftSignNode(MPSCNNNeuronNode):
    """A smooth sign; takes no parameters."""

    neuron_type = T.softSign

    def __init__(self, *, source: ImageLike) -> None:
        self._describe(source)


class MPSCNNNeuronTanHNode(MPSCNNNeuronNode):
    """The hyperbolic tangent; takes `a` and `b`."""

    neuron_type = T.tanH

    def __init__(self, *, source: ImageLike, a: float | None = None, b: float | None = None) -> None:
        self._describe(source, a=a, b=b)


class MPSCNNNeuronPReLUNode(MPSCNNNeuronNode):
    """
    Rectified linear unit with a slope below zero per feature channel.

    Parameters
    ----------
    source : MPSNNImageNode
        The image to read.
    a_data : array_like of float32 or bytes
        One slope per feature channel of the source.

    Raises
    ------
    UnavailableError
        Without `a_data`: Apple marks that initialiser unavailable.
    """

    neuron_type = T.pReLU

    def __init__(self, *, source: ImageLike, a_data: npt.ArrayLike | bytes | None = None) -> None:
        if a_data is None:
            raise UnavailableError("MPSCNNNeuronPReLUNode without a_data is unavailable: give one slope a channel")
        self._describe(source, data=a_data)


class MPSCNNNeuronPowerNode(MPSCNNNeuronNode):
    """A power; takes `a`, `b` and the exponent `c`."""

    neuron_type = T.power

    def __init__(
        self, *, source: ImageLike, a: float | None = None, b: float | None = None, c: float | None = None
    ) -> None:
        self._describe(source, a=a, b=b, c=c)


class MPSCNNNeuronExponentialNode(MPSCNNNeuronNode):
    """An exponential; takes `a`, `b` and the base `c` (-1: base e)."""

    neuron_type = T.exponential

    def __init__(
        self, *, source: ImageLike, a: float | None = None, b: float | None = None, c: float | None = None
    ) -> None:
        self._describe(source, a=a, b=b, c=c)


class MPSCNNNeuronLogarithmNode(MPSCNNNeuronNode):
    """A logarithm; takes `a`, `b` and the base `c` (-1: base e)."""

    neuron_type = T.logarithm

    def __init__(
        self, *, source: ImageLike, a: float | None = None, b: float | None = None, c: float | None = None
    ) -> None:
        self._describe(source, a=a, b=b, c=c)


class MPSCNNNeuronGeLUNode(MPSCNNNeuronNode):
    """Gaussian error linear unit, with erf; takes no parameters."""

    neuron_type = T.geLU

    def __init__(self, *, source: ImageLike) -> None:
        self._describe(source)


NEURON_NODES: tuple[type[MPSCNNNeuronNode], ...] = (
    MPSCNNNeuronAbsoluteNode,
    MPSCNNNeuronELUNode,
    MPSCNNNeuronReLUNNode,
    MPSCNNNeuronLinearNode,
    MPSCNNNeuronReLUNode,
    MPSCNNNeuronSigmoidNode,
    MPSCNNNeuronHardSigmoidNode,
    MPSCNNNeuronSoftPlusNode,
    MPSCNNNeuronSoftSignNode,
    MPSCNNNeuronTanHNode,
    MPSCNNNeuronPReLUNode,
    MPSCNNNeuronPowerNode,
    MPSCNNNeuronExponentialNode,
    MPSCNNNeuronLogarithmNode,
    MPSCNNNeuronGeLUNode,
)
"""The node classes of neuron types, in the order of Apple's header; type ``none`` has none."""

_OWN_CLASSES = {node.neuron_type: node for node in NEURON_NODES}

for _node in NEURON_NODES:
    assert _node.neuron_type is not None
    _row = NEURONS[_node.neuron_type]
    _parameters = [SlopesField("a_data")] if _row.per_channel else [ParameterField(name) for name in _row.parameters]
    _node.fields = (ImageField("source"), *_parameters)
