"""Graph files: a node graph as JSON, tied together by the names of its images."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mpsref.documents import read_document, schema, validate
from mpsref.enums import MPSCNNNeuronType, MPSImageFeatureChannelFormat
from mpsref.errors import FileFormatError, MPSRefError, ParameterError
from mpsref.files import write_atomically
from mpsref.graph.arithmetic import NUMBERS, MPSNNAdditionGradientNode, MPSNNAdditionNode, MPSNNArithmeticGradientNode
from mpsref.graph.drawing import Structure, structure, svg
from mpsref.graph.names import image_names
from mpsref.graph.neurons import MPSCNNNeuronGradientNode, MPSCNNNeuronNode
from mpsref.graph.nodes import (
    MPSNNFilterNode,
    MPSNNGradientFilterNode,
    MPSNNImageNode,
    MPSNNStateNode,
    node_or_error,
    sequence_or_error,
)
from mpsref.graph.schedule import schedule
from mpsref.graph.schema import NODE_CLASSES
from mpsref.neuron.descriptor import MPSNNNeuronDescriptor
from mpsref.storage import storage_format

__all__ = ["GraphFile"]

_IMAGE_FIELDS = ("source", "source_gradient", "source_image")
_SETTINGS = ("export_from_graph", "stop_gradient")


@dataclass(frozen=True)
class GraphFile:
    """
    What a graph file holds.

    Attributes
    ----------
    storage : MPSImageFeatureChannelFormat
        The graph's format.
    nodes : tuple of MPSNNFilterNode
        In the order of the file.
    images : Mapping of str to MPSNNImageNode
        Every image node by the name that it has in the file, which is its handle too.
    results : tuple of str
        Names of the result images.

    Examples
    --------
    >>> import mpsref as mps
    >>> x = mps.MPSNNImageNode(handle="x")
    >>> n = mps.MPSCNNNeuronTanHNode(source=x, a=1.5)
    >>> file = mps.GraphFile.from_results([n.result_image])
    >>> file.to_json()["nodes"]
    [{'class': 'MPSCNNNeuronTanHNode', 'source': 'x', 'a': 1.5, 'b': 1.0, 'result': 'tanH'}]
    """

    storage: MPSImageFeatureChannelFormat
    nodes: tuple[MPSNNFilterNode, ...]
    images: Mapping[str, MPSNNImageNode]
    results: tuple[str, ...]

    @property
    def result_images(self) -> list[MPSNNImageNode]:
        """The image nodes of the results."""
        return [self.images[name] for name in self.results]

    def _repr_svg_(self) -> str:
        return svg(self)

    @classmethod
    def read(cls, path: str | Path) -> GraphFile:
        """
        Read a graph file.

        Raises
        ------
        FileFormatError
            The file is not a graph of this version, or its names do not make a graph. The message names the file,
            the field and the mend.
        """
        document = read_document(Path(path), "graph")
        try:
            return cls._from_valid(document)
        except FileFormatError as error:
            raise FileFormatError(f"{path}: {error}") from None

    @classmethod
    def from_json(cls, document: Any) -> GraphFile:
        """Make the nodes that a parsed graph file describes; raises like `read`."""
        validate(document, schema("graph"))
        return cls._from_valid(document)

    @classmethod
    def from_results(
        cls,
        result_images: Sequence[MPSNNImageNode],
        storage: MPSImageFeatureChannelFormat = MPSImageFeatureChannelFormat.float16,
    ) -> GraphFile:
        """
        Everything that some images depend on, ready to be written.

        An image is named by its handle, or else by the label of its node. Without a name that is free, it is named as
        `mpsref.teach.trace` names it: a gradient of ``x`` is ``dx``, the result of a tanH ``tanH``.

        Raises
        ------
        ParameterError
            `result_images` is no list of image nodes.
        ImageError
            `storage` is no format.
        """
        given = sequence_or_error("result_images", result_images)
        results = [node_or_error("result_images", image, MPSNNImageNode) for image in given]
        # A gradient node names the forward node of its state, which the results need not depend on.
        done: set[MPSNNFilterNode] = set()
        nodes = list(schedule(results, done=done))
        for node in nodes:  # which grows meanwhile
            state = _state(node)
            if state is not None:
                nodes += schedule([state.producer.result_image], done=done)
        images = dict.fromkeys([image for node in nodes for image in (*node.sources, node.result_image)] + results)
        names = image_names(images)
        return cls(
            storage_format(storage, "storage").channel_format,
            tuple(nodes),
            {name: image for image, name in names.items()},
            tuple(names[image] for image in results),
        )

    def to_json(self) -> dict[str, Any]:
        """The document, as `json` would load it. Floats are the shortest decimals that give the float32 back."""
        names = {image: name for name, image in self.images.items()}
        document: dict[str, Any] = {
            "format": "mpsref-graph",
            "version": 1,
            "storage": self.storage.name,
            "nodes": [_node_to_json(node, names) for node in self.nodes],
            "results": list(self.results),
        }
        settings = {name: _settings_to_json(image) for name, image in self.images.items()}
        settings = {name: setting for name, setting in settings.items() if setting}
        return document | ({"images": settings} if settings else {})

    def write(self, path: str | Path) -> None:
        """Write the file, whole or not at all, one node a line."""
        document = self.to_json()
        nodes = ",\n  ".join(json.dumps(node) for node in document["nodes"])
        fields = {name: json.dumps(value) for name, value in document.items()} | {"nodes": f"[\n  {nodes}]"}
        text = "{" + ",\n ".join(f"{json.dumps(name)}: {value}" for name, value in fields.items()) + "}\n"
        write_atomically(Path(path), lambda file: file.write(text.encode()))

    @classmethod
    def _from_valid(cls, document: Any) -> GraphFile:
        nodes = document["nodes"]
        images: dict[str, MPSNNImageNode] = {}
        made: dict[int, MPSNNFilterNode] = {}
        results = _results_by_name(nodes)
        settings = document.get("images", {})
        for name in _source_names(nodes, document["results"], results):
            images[name] = MPSNNImageNode(handle=name)
            _apply_settings(images[name], settings.get(name, {}))
        for i in _dependency_order(nodes, results):
            made[i] = node = _node_from_json(nodes[i], f"nodes[{i}]", images)
            name = nodes[i]["result"]
            images[name] = node.result_image
            node.result_image.handle = name
            _apply_settings(node.result_image, settings.get(name, {}))
        for name in settings:
            if name not in images:
                raise FileFormatError(f"images.{name}: no node reads or makes an image of this name")
        return cls(
            MPSImageFeatureChannelFormat[document.get("storage", "float16")],
            tuple(made[i] for i in range(len(nodes))),
            images,
            tuple(document["results"]),
        )


@structure.register
def _(graph: GraphFile) -> Structure:
    names = {image: name for name, image in graph.images.items()}
    made = {node.result_image: names[node.result_image] for node in schedule(node.result_image for node in graph.nodes)}
    sources = {image: name for image, name in names.items() if image not in made}
    return Structure.of(sources | made, graph.result_images)


def shortest(value: float) -> float:
    """The float64 with the shortest decimal text that rounds to this float32."""
    short = float(str(np.float32(value)))
    return short if np.float32(short) == np.float32(value) else value


def _reads(node: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Field and image name of everything that a node of a file needs to exist before it."""
    for field in (*_IMAGE_FIELDS, "gradient_state"):
        if field in node:
            yield field, node[field]
    for i, name in enumerate(node.get("sources", ())):
        yield f"sources[{i}]", name


def _results_by_name(nodes: list[dict[str, Any]]) -> dict[str, int]:
    results: dict[str, int] = {}
    for i, node in enumerate(nodes):
        first = results.setdefault(node["result"], i)
        if first != i:
            raise FileFormatError(f"nodes[{i}].result: nodes[{first}] already makes an image {node['result']!r}")
    return results


def _source_names(nodes: list[dict[str, Any]], wanted: list[str], results: dict[str, int]) -> Iterator[str]:
    """Names of the images that no node makes, each once."""
    seen: set[str] = set()
    for i, node in enumerate(nodes):
        for field, name in _reads(node):
            if name in results:
                continue
            if field == "gradient_state":
                raise FileFormatError(f"nodes[{i}].{field}: no node makes an image {name!r}")
            if name not in seen:
                seen.add(name)
                yield name
    for i, name in enumerate(wanted):
        if name not in results and name not in seen:
            raise FileFormatError(f"results[{i}]: no node reads or makes an image {name!r}")


def _dependency_order(nodes: list[dict[str, Any]], results: dict[str, int]) -> Iterator[int]:
    """Indices of the nodes, each after those that make what it reads."""
    waits = [sum(name in results for _, name in _reads(node)) for node in nodes]
    readers: dict[int, list[int]] = {}
    for i, node in enumerate(nodes):
        for _, name in _reads(node):
            if name in results:
                readers.setdefault(results[name], []).append(i)
    ready = [i for i in range(len(nodes) - 1, -1, -1) if not waits[i]]
    while ready:
        i = ready.pop()
        yield i
        for reader in readers.get(i, ()):
            waits[reader] -= 1
            if not waits[reader]:
                ready.append(reader)
    stuck = next((i for i, wait in enumerate(waits) if wait), None)
    if stuck is not None:
        raise FileFormatError(f"nodes[{stuck}].result: {nodes[stuck]['result']!r} depends on itself, or on a cycle")


def _node_from_json(node: dict[str, Any], where: str, images: Mapping[str, MPSNNImageNode]) -> MPSNNFilterNode:
    """The node that an entry describes; what its arguments are called in the file, they are called in Python."""
    arguments = {name: value for name, value in node.items() if name not in ("class", "result", "label")}
    field = "descriptor"
    try:
        for name in arguments:
            field = name
            if name in _IMAGE_FIELDS:
                arguments[name] = images[node[name]]
            elif name == "sources":
                arguments[name] = [images[source] for source in node[name]]
            elif name == "gradient_state":
                arguments[name] = images[node[name]].producer.result_state  # type: ignore[union-attr]
            elif name == "descriptor":
                given = dict(node[name])
                arguments[name] = MPSNNNeuronDescriptor(MPSCNNNeuronType[given.pop("neuron_type")], **given)
        numbers = {name: arguments.pop(name) for name in NUMBERS if name in arguments}
        field = "gradient_state" if "gradient_state" in arguments else "class"
        made: MPSNNFilterNode = NODE_CLASSES[node["class"]](**arguments)
        for field, value in numbers.items():
            setattr(made, field, value)
    except (MPSRefError, OverflowError) as error:
        raise FileFormatError(f"{where}.{field}: {error}") from None
    if isinstance(made, MPSCNNNeuronGradientNode):
        _check_gradient(made, where, node)
    made.label = node.get("label")
    return made


def _check_gradient(made: MPSCNNNeuronGradientNode, where: str, node: dict[str, Any]) -> None:
    """Nothing in a file but a slip makes a gradient differ from the node whose state it takes."""
    forward = made.gradient_state.producer
    if not isinstance(forward, MPSCNNNeuronNode) or forward.descriptor != made.descriptor:
        raise FileFormatError(
            f"{where}.descriptor: is {made.descriptor}, but {node['gradient_state']!r} is made by {forward}: "
            "give the forward node's own type and parameters"
        )
    if forward.sources[0] is not made.sources[1]:
        raise FileFormatError(
            f"{where}.source_image: is {node['source_image']!r}, which is not what the forward node of "
            f"{node['gradient_state']!r} reads"
        )


def _state(node: MPSNNFilterNode) -> MPSNNStateNode | None:
    return node.gradient_state if isinstance(node, MPSCNNNeuronGradientNode | MPSNNArithmeticGradientNode) else None


def _node_to_json(node: MPSNNFilterNode, names: Mapping[MPSNNImageNode, str]) -> dict[str, Any]:
    read = [names[source] for source in node.sources]
    fields: dict[str, Any] = {"class": type(node).__name__}
    if type(node).__name__ not in NODE_CLASSES:
        raise ParameterError(f"{type(node).__name__} has no place in a graph file")
    if isinstance(node, MPSNNGradientFilterNode):
        state = _state(node)
        assert state is not None
        fields |= {"source_gradient": read[0], "source_image": read[1],
                   "gradient_state": names[state.producer.result_image]}  # fmt: skip
    elif isinstance(node, MPSNNAdditionNode):
        fields["sources"] = read
    else:
        fields["source"] = read[0]
    if isinstance(node, MPSCNNNeuronGradientNode) or type(node) is MPSCNNNeuronNode:
        fields["descriptor"] = _descriptor_to_json(node.descriptor)
    elif isinstance(node, MPSCNNNeuronNode):
        fields |= _parameters_to_json(node.descriptor, "a_data")
    elif isinstance(node, MPSNNAdditionNode):
        fields |= {name: shortest(getattr(node, name)) for name in node._facts()}
    elif isinstance(node, MPSNNAdditionGradientNode):
        fields["is_secondary_source_filter"] = node.is_secondary_source_filter
        fields |= {name: shortest(getattr(node, name)) for name in NUMBERS if name.endswith("scale")}
    if node.label is not None:
        fields["label"] = node.label
    return fields | {"result": names[node.result_image]}


def _descriptor_to_json(descriptor: MPSNNNeuronDescriptor) -> dict[str, Any]:
    return {"neuron_type": descriptor.neuron_type.name} | _parameters_to_json(descriptor, "data")


def _parameters_to_json(descriptor: MPSNNNeuronDescriptor, slopes: str) -> dict[str, Any]:
    if descriptor.data is not None:
        return {slopes: [shortest(value) for value in descriptor.data.tolist()]}
    return {name: shortest(value) for name, value in descriptor.parameters.items()}


def _settings_to_json(image: MPSNNImageNode) -> dict[str, Any]:
    # A result without a format of its own is not one that has that of the first source, which is where it starts.
    starts_as = image.producer.sources[0].format if image.producer else MPSImageFeatureChannelFormat.none
    settings: dict[str, Any] = {"format": image.format.name} if image.format or starts_as else {}
    return settings | {name: True for name in _SETTINGS if getattr(image, name)}


def _apply_settings(image: MPSNNImageNode, settings: Mapping[str, Any]) -> None:
    if "format" in settings:
        image.format = MPSImageFeatureChannelFormat[settings["format"]]
    for name in _SETTINGS:
        setattr(image, name, settings.get(name, False))
