"""Graph files: a node graph as JSON, tied together by the names of its images."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpsref.arguments import checked, sequence_or_error
from mpsref.documents import encoded, read_document, schema, validate
from mpsref.enums import MPSImageFeatureChannelFormat
from mpsref.errors import FileFormatError, MPSRefError, ParameterError
from mpsref.files import write_atomically
from mpsref.graph.drawing import Structure, svg
from mpsref.graph.fields import ABSENT, Field, StateField
from mpsref.graph.names import image_names
from mpsref.graph.nodes import (
    MPSNNFilterNode,
    MPSNNGradientFilterNode,
    MPSNNImageNode,
    node_or_error,
)
from mpsref.graph.schedule import schedule
from mpsref.graph.schema import NODE_CLASSES
from mpsref.storage import storage_format

__all__ = ["GraphFile"]

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

    def structure(self) -> Structure:
        """All images by name, to be drawn."""
        names = {image: name for name, image in self.images.items()}
        made = {
            node.result_image: names[node.result_image] for node in schedule(node.result_image for node in self.nodes)
        }
        sources = {image: name for image, name in names.items() if image not in made}
        return Structure.of(sources | made, self.result_images)

    def _repr_svg_(self) -> str:
        return svg(self)

    @classmethod
    @checked
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
    @checked
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
            if node.forward_node is not None:
                nodes += schedule([node.forward_node.result_image], done=done)
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

    @checked
    def write(self, path: str | Path) -> None:
        """
        Write the file, whole or not at all, one node a line.

        Raises
        ------
        FileFormatError
            The graph could not be read again: it is too large, or a name too long; or the file cannot be written.
        """
        data = self.encoded(path)
        write_atomically(Path(path), lambda file: file.write(data))

    @checked
    def encoded(self, path: str | Path) -> bytes:
        """Make what `write` writes; raises like it, naming the file, before there is one."""
        document = self.to_json()
        try:
            self.from_json(document)
            nodes = ",\n  ".join(json.dumps(node) for node in document["nodes"])
            fields = {name: json.dumps(value) for name, value in document.items()} | {"nodes": f"[\n  {nodes}]"}
            return encoded("{" + ",\n ".join(f"{json.dumps(name)}: {value}" for name, value in fields.items()) + "}\n")
        except FileFormatError as error:
            raise FileFormatError(f"{path}: {error}") from None

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


def _fields(node: Mapping[str, Any]) -> Iterator[Field]:
    """The fields that an entry of a file has, in the order of its class."""
    return (field for field in NODE_CLASSES[node["class"]].fields or () if field.name in node)


def _reads(node: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Field and image name of everything that a node of a file needs to exist before it."""
    return ((where, name) for field in _fields(node) for where, name in field.needs(node[field.name]))


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
        for field in _fields(node):
            for where, name in field.needs(node[field.name]):
                if name in results:
                    continue
                if isinstance(field, StateField):
                    raise FileFormatError(f"nodes[{i}].{where}: no node makes an image {name!r}")
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
    """The node that an entry describes."""
    arguments: dict[str, Any] = {}
    properties: dict[str, Any] = {}
    place = "class"
    try:
        for field in _fields(node):
            place = field.name
            (properties if field.is_property else arguments)[place] = field.read(node[place], images)
        place = "gradient_state" if "gradient_state" in arguments else "class"
        made: MPSNNFilterNode = NODE_CLASSES[node["class"]](**arguments)
        for place, value in properties.items():
            setattr(made, place, value)
    except (MPSRefError, OverflowError) as error:
        raise FileFormatError(f"{where}.{place}: {error}") from None
    _check_gradient(made, where, lambda image: next(name for name, own in images.items() if own is image))
    made.label = node.get("label")
    return made


def _check_gradient(node: MPSNNFilterNode, where: str, names: Callable[[MPSNNImageNode], str]) -> None:
    """Nothing in a file but a slip makes a gradient differ from the node whose state it takes."""
    if not isinstance(node, MPSNNGradientFilterNode):
        return
    expected = node.expected_operation
    if type(node.operation) is not type(expected) or node.operation.descriptor != expected.descriptor:
        what, of = ("descriptor", node.operation.descriptor) if node.operation.descriptor else ("class", type(node))
        raise FileFormatError(
            f"{where}.{what}: is {of}, but {names(node.forward_node.result_image)!r} is made by {node.forward_node}: "
            "give the forward node's own type and parameters"
        )
    if node.operation.descriptor and node.differentiated_source is not node.sources[1]:
        raise FileFormatError(
            f"{where}.source_image: is {names(node.sources[1])!r}, which is not what the forward node of "
            f"{names(node.forward_node.result_image)!r} reads"
        )


def _node_to_json(node: MPSNNFilterNode, names: Mapping[MPSNNImageNode, str]) -> dict[str, Any]:
    if NODE_CLASSES.get(type(node).__name__) is not type(node):
        raise ParameterError(f"{type(node).__name__} has no place in a graph file")
    written = {field.name: field.write(node, names) for field in node.fields or ()}
    written = {name: value for name, value in written.items() if value is not ABSENT}
    if node.label is not None:
        written["label"] = node.label
    return {"class": type(node).__name__, **written, "result": names[node.result_image]}


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
