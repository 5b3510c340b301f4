"""
The fields of a node in a graph file: schema, reading, writing, and Python code.

A node class lists its fields in the order in which they are written. A field is named after an argument of the class's
initialiser, or a property that is set afterwards.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mpsref.enums import MPSCNNNeuronType
from mpsref.errors import ParameterError
from mpsref.neuron.descriptor import MPSNNNeuronDescriptor
from mpsref.operations.padding import FixedPadding, MPSNNDefaultPadding

if TYPE_CHECKING:
    from mpsref.graph.nodes import MPSNNFilterNode, MPSNNImageNode

__all__ = [
    "ABSENT",
    "DescriptorField",
    "EnumField",
    "Field",
    "FlagField",
    "ImageField",
    "ImagesField",
    "NumberField",
    "PaddingField",
    "ParameterField",
    "SlopesField",
    "StateField",
    "WeightsField",
    "WholeField",
    "neuron_code",
    "neuron_from_json",
    "neuron_json",
    "shortest",
]

ABSENT = object()
"""The value of a field that is not written."""

DATA_SOURCE = "data source"
"""With the name of a data source it is the key under which the names of images have it too."""

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
        return neuron_json(descriptor)

    def read(self, value: Any, images: Mapping[str, MPSNNImageNode]) -> Any:
        return neuron_from_json(value)

    def code(self, value: Any, images: Mapping[str, str], nodes: Mapping[str, str]) -> str:
        return neuron_code(value)


def neuron_json(descriptor: MPSNNNeuronDescriptor) -> dict[str, Any]:
    """A neuron's entry."""
    if descriptor.data is not None:
        return {"neuron_type": descriptor.neuron_type.name, "data": _slopes(descriptor)}
    parameters = {name: shortest(value) for name, value in descriptor.parameters.items()}
    return {"neuron_type": descriptor.neuron_type.name} | parameters


def neuron_from_json(entry: Mapping[str, Any]) -> MPSNNNeuronDescriptor:
    """The neuron of an entry."""
    parameters = dict(entry)
    return MPSNNNeuronDescriptor(MPSCNNNeuronType[parameters.pop("neuron_type")], **parameters)


def neuron_code(entry: Mapping[str, Any]) -> str:
    """An entry as Python code."""
    numbers = "".join(f", {name}={number!r}" for name, number in entry.items() if name != "neuron_type")
    return f"mps.MPSNNNeuronDescriptor(mps.MPSCNNNeuronType.{entry['neuron_type']}{numbers})"


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


@dataclass(frozen=True)
class WholeField(Field):
    """A whole number of at least 1."""

    def schema(self) -> Any:
        return {"type": "integer", "minimum": 1, "maximum": 65536}

    def write(self, node: MPSNNFilterNode, names: Mapping[MPSNNImageNode, str]) -> Any:
        return getattr(node, self.name)


@dataclass(frozen=True)
class EnumField(Field):
    """A member of an enumeration that is set on the node; omitted at its default."""

    is_required: bool = False
    is_property: bool = True
    default: Any = None

    def schema(self) -> Any:
        return {"enum": list(type(self.default).__members__)}

    def write(self, node: MPSNNFilterNode, names: Mapping[MPSNNImageNode, str]) -> Any:
        value = getattr(node, self.name)
        return ABSENT if value == self.default else value.name


@dataclass(frozen=True)
class WeightsField(Field):
    """A data source by name; omitted where a gradient node has that of its forward node."""

    def schema(self) -> Any:
        return NAME

    def write(self, node: MPSNNFilterNode, names: Mapping[Any, str]) -> Any:
        own = node.data_source
        if not self.is_required and node.forward_node is not None and own is node.forward_node.data_source:
            return ABSENT
        return names[id(own)]

    def read(self, value: Any, images: Mapping[Any, Any]) -> Any:
        return images[DATA_SOURCE, value]

    def code(self, value: Any, images: Mapping[Any, str], nodes: Mapping[str, str]) -> str:
        return images[DATA_SOURCE, value]


@dataclass(frozen=True)
class PaddingField(Field):
    """A padding policy: its bits, a name, or the size and offset of a policy of one's own."""

    is_required: bool = False
    is_property: bool = True

    def schema(self) -> Any:
        return {"$ref": "#/$defs/padding"}

    def write(self, node: MPSNNFilterNode, names: Mapping[MPSNNImageNode, str]) -> Any:
        policy = node.padding_policy  # type: ignore[attr-defined]
        if isinstance(policy, FixedPadding):
            return {name: getattr(policy, name) for name in FIXED}
        if not isinstance(policy, MPSNNDefaultPadding):
            raise ParameterError(
                f"padding_policy is a {type(policy).__name__}, which depends on the size of the source: give "
                "mpsref.FixedPadding with the size and offset that it comes to"
            )
        return {"policy": policy.name} if policy.name else {"method": int(policy.padding_method())}

    def read(self, value: Any, images: Mapping[str, MPSNNImageNode]) -> Any:
        if "policy" in value:
            return POLICIES[value["policy"]]()
        return MPSNNDefaultPadding(value["method"]) if "method" in value else FixedPadding(**value)

    def code(self, value: Any, images: Mapping[str, str], nodes: Mapping[str, str]) -> str:
        if "policy" in value:
            return f"mps.MPSNNDefaultPadding.{POLICIES[value['policy']].__name__}()"
        kind = "MPSNNDefaultPadding" if "method" in value else "FixedPadding"
        return f"mps.{kind}({', '.join(f'{name}={number}' for name, number in value.items())})"


FIXED = ("width", "height", "offset_x", "offset_y")

POLICIES: Mapping[str, Callable[[], MPSNNDefaultPadding]] = {
    "forTensorflowAveragePooling": MPSNNDefaultPadding.for_tensorflow_average_pooling,
    "forTensorflowAveragePoolingValidOnly": MPSNNDefaultPadding.for_tensorflow_average_pooling_valid_only,
}
"""TensorFlow's two policies by their names."""


def _slopes(descriptor: MPSNNNeuronDescriptor) -> list[float]:
    assert descriptor.data is not None
    return [shortest(value) for value in descriptor.data.tolist()]
