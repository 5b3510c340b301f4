"""
The fields of a node in a graph file: schema, reading, writing, and Python code.

A node class lists its fields in the order in which they are written. A field is named after an argument of the class's
initialiser, or a property that is set afterwards.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mpsref.enums import MPSCNNNeuronType
from mpsref.neuron.descriptor import MPSNNNeuronDescriptor

if TYPE_CHECKING:
    from mpsref.graph.nodes import MPSNNFilterNode, MPSNNImageNode

__all__ = [
    "ABSENT",
    "DescriptorField",
    "Field",
    "FlagField",
    "ImageField",
    "ImagesField",
    "NumberField",
    "ParameterField",
    "SlopesField",
    "StateField",
    "shortest",
]

ABSENT = object()
"""The value of a field that is not written."""

NAME = {"$ref": "#/$defs/name"}
FLOAT32 = {"$ref": "#/$defs/float32"}
SLOPES = {"type": "array", "items": FLOAT32, "minItems": 1, "maxItems": 1_000_000}


def shortest(value: float) -> float:
    """The float64 with the shortest decimal text that rounds to this float32."""
    short = float(str(np.float32(value)))
    return short if np.float32(short) == np.float32(value) else value


@dataclass(frozen=True)
class Field(ABC):
    """
    One field.

    Attributes
    ----------
    name : str
        The name in the file and in Python.
    is_required : bool
        Whether a file must have it.
    is_property : bool
        Whether it is set on the node, instead of being an argument.
    """

    name: str
    is_required: bool = True
    is_property: bool = False

    @abstractmethod
    def schema(self) -> Any:
        """The JSON Schema of its value."""

    @abstractmethod
    def write(self, node: MPSNNFilterNode, names: Mapping[MPSNNImageNode, str]) -> Any:
        """The value for a node; `ABSENT` to omit it."""

    def read(self, value: Any, images: Mapping[str, MPSNNImageNode]) -> Any:
        """The argument for a value."""
        return value

    def needs(self, value: Any) -> Iterator[tuple[str, str]]:
        """Path and name of each image that must exist before the node."""
        return iter(())

    def code(self, value: Any, images: Mapping[str, str], nodes: Mapping[str, str]) -> str:
        """The value as Python code, given the variables of images and of the nodes that make them."""
        return repr(value)


@dataclass(frozen=True)
class ImageField(Field):
    """A source by name; `place` is its index among the node's sources."""

    place: int = 0

    def schema(self) -> Any:
        return NAME

    def write(self, node: MPSNNFilterNode, names: Mapping[MPSNNImageNode, str]) -> Any:
        return names[node.sources[self.place]]

    def read(self, value: Any, images: Mapping[str, MPSNNImageNode]) -> Any:
        return images[value]

    def needs(self, value: Any) -> Iterator[tuple[str, str]]:
        yield self.name, value

    def code(self, value: Any, images: Mapping[str, str], nodes: Mapping[str, str]) -> str:
        return images[value]


@dataclass(frozen=True)
class ImagesField(Field):
    """All sources by name, in a list of two."""

    def schema(self) -> Any:
        return {"type": "array", "items": NAME, "minItems": 2, "maxItems": 2}

    def write(self, node: MPSNNFilterNode, names: Mapping[MPSNNImageNode, str]) -> Any:
        return [names[source] for source in node.sources]

    def read(self, value: Any, images: Mapping[str, MPSNNImageNode]) -> Any:
        return [images[name] for name in value]

    def needs(self, value: Any) -> Iterator[tuple[str, str]]:
        for i, name in enumerate(value):
            yield f"{self.name}[{i}]", name

    def code(self, value: Any, images: Mapping[str, str], nodes: Mapping[str, str]) -> str:
        return f"[{', '.join(images[name] for name in value)}]"


@dataclass(frozen=True)
class StateField(Field):
    """The state of a forward node, by the name of its result image."""

    def schema(self) -> Any:
        return NAME

    def write(self, node: MPSNNFilterNode, names: Mapping[MPSNNImageNode, str]) -> Any:
        assert node.forward_node is not None
        return names[node.forward_node.result_image]

    def read(self, value: Any, images: Mapping[str, MPSNNImageNode]) -> Any:
        producer = images[value].producer
        assert producer is not None
        return producer.result_state

    def needs(self, value: Any) -> Iterator[tuple[str, str]]:
        yield self.name, value

    def code(self, value: Any, images: Mapping[str, str], nodes: Mapping[str, str]) -> str:
        return f"{nodes[value]}.result_state"


@dataclass(frozen=True)
class DescriptorField(Field):
    """A neuron's type and parameters."""

    def schema(self) -> Any:
        return {"$ref": "#/$defs/descriptor"}

    def write(self, node: MPSNNFilterNode, names: Mapping[MPSNNImageNode, str]) -> Any:
        descriptor = node.operation.descriptor
        assert descriptor is not None
        if descriptor.data is not None:
            return {"neuron_type": descriptor.neuron_type.name, "data": _slopes(descriptor)}
        parameters = {name: shortest(value) for name, value in descriptor.parameters.items()}
        return {"neuron_type": descriptor.neuron_type.name} | parameters

    def read(self, value: Any, images: Mapping[str, MPSNNImageNode]) -> Any:
        parameters = dict(value)
        return MPSNNNeuronDescriptor(MPSCNNNeuronType[parameters.pop("neuron_type")], **parameters)

    def code(self, value: Any, images: Mapping[str, str], nodes: Mapping[str, str]) -> str:
        numbers = "".join(f", {name}={number!r}" for name, number in value.items() if name != "neuron_type")
        return f"mps.MPSNNNeuronDescriptor(mps.MPSCNNNeuronType.{value['neuron_type']}{numbers})"


@dataclass(frozen=True)
class ParameterField(Field):
    """One parameter of a neuron."""

    is_required: bool = False

    def schema(self) -> Any:
        return FLOAT32

    def write(self, node: MPSNNFilterNode, names: Mapping[MPSNNImageNode, str]) -> Any:
        return shortest(getattr(node, self.name))


@dataclass(frozen=True)
class SlopesField(Field):
    """The slopes of pReLU."""

    def schema(self) -> Any:
        return SLOPES

    def write(self, node: MPSNNFilterNode, names: Mapping[MPSNNImageNode, str]) -> Any:
        descriptor = node.operation.descriptor
        assert descriptor is not None
        return _slopes(descriptor)


@dataclass(frozen=True)
class NumberField(Field):
    """A number that is set on the node; omitted at its default unless `is_always_written`."""

    is_required: bool = False
    is_property: bool = True
    is_always_written: bool = False
    default: float = 0.0

    def schema(self) -> Any:
        return FLOAT32

    def write(self, node: MPSNNFilterNode, names: Mapping[MPSNNImageNode, str]) -> Any:
        value = getattr(node, self.name)
        # As text, to distinguish -0.0 from 0.0.
        return shortest(value) if self.is_always_written or str(value) != str(self.default) else ABSENT


@dataclass(frozen=True)
class FlagField(Field):
    """True or false."""

    def schema(self) -> Any:
        return {"type": "boolean"}

    def write(self, node: MPSNNFilterNode, names: Mapping[MPSNNImageNode, str]) -> Any:
        return getattr(node, self.name)


def _slopes(descriptor: MPSNNNeuronDescriptor) -> list[float]:
    assert descriptor.data is not None
    return [shortest(value) for value in descriptor.data.tolist()]
