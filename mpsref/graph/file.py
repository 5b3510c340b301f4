"""Graph files: a node graph as JSON, connected by the names of its images."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import IO, Any

from mpsref.arguments import checked, checked_but, sequence_or_error
from mpsref.documents import encoded, read_document, schema, validate
from mpsref.enums import MPSImageFeatureChannelFormat
from mpsref.errors import FileFormatError, MPSRefError, ParameterError, naming
from mpsref.files import file_names, write_atomically
from mpsref.formats import format_among
from mpsref.graph.check import contradictions
from mpsref.graph.drawing import Structure, svg
from mpsref.graph.fields import ABSENT, DATA_SOURCE, Field, StateField, WeightsField
from mpsref.graph.names import image_names
from mpsref.graph.nodes import ImageLike, MPSNNFilterNode, MPSNNImageNode, node_or_error
from mpsref.graph.schedule import images_of, schedule, with_forward_nodes
from mpsref.graph.schema import NODE_CLASSES
from mpsref.graph.sources import as_if_read, data_source, data_source_json
from mpsref.storage import ChannelFormat, FormatLike, storage_format

__all__ = ["GraphFile"]

_SETTINGS = ("export_from_graph", "stop_gradient")


@dataclass(frozen=True)
class GraphFile:
    """
    The contents of a graph file.

    Attributes
    ----------
    storage : MPSImageFeatureChannelFormat
        The graph's format.
    nodes : tuple of MPSNNFilterNode
        In the order of the file.
    images : Mapping of str to MPSNNImageNode
        Every image node by its name in the file, which is also its handle.
    results : tuple of str
        Names of the result images.
    data_sources : Mapping of str to MPSCNNConvolutionDataSource
        The weights of layers by name.

    Examples
    --------
    >>> import mpsref as mps
    >>> x = mps.MPSNNImageNode(handle="x")
    >>> n = mps.MPSCNNNeuronTanHNode(source=x, a=1.5)
    >>> file = mps.GraphFile.from_results([n.result_image])
    >>> file.to_json()["nodes"]
    [{'class': 'MPSCNNNeuronTanHNode', 'source': 'x', 'a': 1.5, 'b': 1.0, 'result': 'tanH'}]
    """

    storage: ChannelFormat
    nodes: tuple[MPSNNFilterNode, ...]
    images: Mapping[str, MPSNNImageNode]
    results: tuple[str, ...]
    data_sources: Mapping[str, Any] = field(default_factory=dict)

    @property
    def result_states(self) -> list[str]:
        """Names of the images whose nodes have an exported state."""
        names = {image: name for name, image in self.images.items()}
        return [names[node.result_image] for node in self.nodes if node.exports_state]

    @property
    def result_images(self) -> list[MPSNNImageNode]:
        """The image nodes of the results."""
        return [self.images[name] for name in self.results]

    def structure(self) -> Structure:
        """All images by name, for drawings."""
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
            The file is not a graph of this version, or its names do not connect to a graph. The message names the
            file, the field and the fix.
        """
        document = read_document(Path(path), "graph")
        with naming(path, FileFormatError):
            return cls._from_valid(document, Path(os.path.realpath(Path(path).parent)))

    @classmethod
    def from_json(cls, document: Any) -> GraphFile:
        """The nodes of a parsed graph file, whose weights are in it as values; raises like `read`."""
        validate(document, schema("graph"))
        return cls._from_valid(document, None)

    @classmethod
    @checked_but("result_images")
    def from_results(
        cls,
        result_images: Sequence[ImageLike],
        storage: FormatLike = MPSImageFeatureChannelFormat.float16,
    ) -> GraphFile:
        """
        Everything that some images depend on.

        An image is named by its handle, else by the label of its node; without an unused name, a gradient of ``x`` is
        ``dx``, and the result of a tanH is ``tanH``.

        Parameters
        ----------
        result_images : sequence of MPSNNImageNode or MPSNNFilterNode
            The results.
        storage : MPSImageFeatureChannelFormat, str or dtype
            The graph's format.

        Raises
        ------
        ParameterError
            `result_images` is not a list of image nodes; or `read` would refuse the file: a gradient node contradicts
            its forward node, a name is too long, a class is your own.
        ImageError
            `storage` is not a format.
        """
        images_or_nodes = sequence_or_error("result_images", result_images)
        results = [node_or_error("result_images", image, MPSNNImageNode) for image in images_or_nodes]
        nodes = with_forward_nodes(results)
        images = images_of(nodes, results)
        names = image_names(images)
        for finding in (each for node in nodes for each in contradictions(node, names.__getitem__)):
            raise ParameterError(f"{finding}")
        file = cls(
            format_among(storage, "storage").channel_format,
            tuple(nodes),
            {name: image for image, name in names.items()},
            tuple(names[image] for image in results),
            _named_sources(nodes, names),
        )
        try:
            # Long arrays are written as files.
            validate(file.to_json({}), schema("graph"))
        except FileFormatError as error:
            raise ParameterError(f"no graph file can hold it: {error}") from None
        return file

    @checked_but("files")
    def to_json(self, files: dict[str, bytes] | None = None, stem: str = "graph") -> dict[str, Any]:
        """
        The document, as `json` would load it. Floats are the shortest decimals that round to the float32.

        Parameters
        ----------
        files : dict, optional
            To it are added ``.npy`` files of long arrays of weights, by their names, which begin with `stem`.
            Default: the document holds all weights.
        """
        if files is not None and not isinstance(files, dict):
            raise ParameterError(f"files is a {type(files).__name__}: give a dict to extend")
        names: dict[Any, str] = {image: name for name, image in self.images.items()}
        names |= {id(source): name for name, source in self.data_sources.items()}
        read = {id(node.data_source): node.weights_read for node in self.nodes if node.data_source is not None}  # type: ignore[attr-defined]
        document: dict[str, Any] = {
            "format": "mpsref-graph",
            "version": 1,
            "storage": self.storage.name,
            "nodes": [_node_to_json(node, names) for node in self.nodes],
            "results": list(self.results),
        }
        if self.result_states:
            document["result_states"] = self.result_states
        if self.data_sources:
            stems = zip(self.data_sources.items(), file_names(self.data_sources), strict=True)
            document["data_sources"] = {
                name: data_source_json(read[id(source)], files, f"{stem}.{own}")
                for (name, source), own in stems
                if id(source) in read
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
            `read` would refuse it: it is too large, or a name is too long; or the file cannot be written.
        """
        for name, write in self.writers(path).items():
            write_atomically(Path(path).parent / name, write)

    @checked
    def writers(self, path: str | Path) -> dict[str, Callable[[IO[bytes]], Any]]:
        """What `write` writes, by file name: the weights, and last the graph; raises like it, naming the file."""
        files: dict[str, bytes] = {}
        files[Path(path).name] = self._encoded(path, files)
        return {name: partial(_write, data) for name, data in files.items()}

    def _encoded(self, path: str | Path, arrays: dict[str, bytes]) -> bytes:
        """The graph's file; files of long arrays are added to `arrays`."""
        with naming(path, FileFormatError):
            document = self.to_json(arrays, Path(path).stem)
            validate(document, schema("graph"))
            folder = Path(os.path.realpath(Path(path).parent))
            self._from_valid(document, folder, as_if_read(arrays, folder))
            nodes = ",\n  ".join(json.dumps(node) for node in document["nodes"])
            fields = {name: json.dumps(value) for name, value in document.items()} | {"nodes": f"[\n  {nodes}]"}
            return encoded("{" + ",\n ".join(f"{json.dumps(name)}: {value}" for name, value in fields.items()) + "}\n")

    @classmethod
    def _from_valid(cls, document: Any, folder: Path | None, files: dict[Path, Any] | None = None) -> GraphFile:
        nodes = document["nodes"]
        images: dict[Any, Any] = {}
        files = {} if files is None else files
        sources = {
            name: data_source(name, entry, folder, files) for name, entry in document.get("data_sources", {}).items()
        }
        named = {(DATA_SOURCE, name): source for name, source in sources.items()}
        filter_nodes: dict[int, MPSNNFilterNode] = {}
        results = _results_by_name(nodes)
        settings = document.get("images", {})
        for name in _source_names(nodes, document["results"], results):
            images[name] = MPSNNImageNode(handle=name)
            _apply_settings(images[name], settings.get(name, {}))
        for i in _dependency_order(nodes, results):
            filter_nodes[i] = node = _node_from_json(nodes[i], f"nodes[{i}]", images, named)
            name = nodes[i]["result"]
            images[name] = node.result_image
            node.result_image.handle = name
            _apply_settings(node.result_image, settings.get(name, {}))
        for name in settings:
            if name not in images:
                raise FileFormatError(f"images.{name}: no node reads or makes an image of this name")
        for i, name in enumerate(document.get("result_states", ())):
            state = images[name].producer and images[name].producer.result_state if name in images else None
            if state is None:
                raise FileFormatError(f"result_states[{i}]: no layer with a state makes an image {name!r}")
            state.export_from_graph = True
        return cls(
            storage_format(document.get("storage", "float16"), "storage").channel_format,
            tuple(filter_nodes[i] for i in range(len(nodes))),
            images,
            tuple(document["results"]),
            sources,
        )


def _write(data: bytes, file: IO[bytes]) -> None:
    file.write(data)


def _named_sources(nodes: Iterable[MPSNNFilterNode], names: Mapping[MPSNNImageNode, str]) -> dict[str, Any]:
    """The data sources of nodes, by their labels, else by the image that the first node makes."""
    sources: dict[int, tuple[Any, str]] = {}
    for node in nodes:
        if (source := node.data_source) is not None:
            label = source.label() if callable(getattr(source, "label", None)) else None
            sources.setdefault(id(source), (source, str(label or names[node.result_image])))
    named: dict[str, Any] = {}
    for source, name in sources.values():
        free = (stem for k in count() if (stem := f"{name}.{k}" if k else name) not in named)
        named[next(free)] = source
    return named


def _fields(node: Mapping[str, Any]) -> Iterator[Field]:
    """The fields of an entry, in the order of its class."""
    return (field for field in NODE_CLASSES[node["class"]].fields if field.name in node)


def _reads(node: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Field and name of each image that an entry depends on."""
    return ((where, name) for field in _fields(node) for where, name in field.needs(node[field.name]))


def _results_by_name(nodes: list[dict[str, Any]]) -> dict[str, int]:
    results: dict[str, int] = {}
    for i, node in enumerate(nodes):
        first = results.setdefault(node["result"], i)
        if first != i:
            raise FileFormatError(f"nodes[{i}].result: nodes[{first}] already makes an image {node['result']!r}")
    return results


def _source_names(nodes: list[dict[str, Any]], requested: list[str], results: dict[str, int]) -> Iterator[str]:
    """Names of the images that no node makes, each once."""
    seen: set[str] = set()
    for i, node in enumerate(nodes):
        for each in _fields(node):
            for where, name in each.needs(node[each.name]):
                if name in results:
                    continue
                if isinstance(each, StateField):
                    raise FileFormatError(f"nodes[{i}].{where}: no node makes an image {name!r}")
                if name not in seen:
                    seen.add(name)
                    yield name
    for i, name in enumerate(requested):
        if name not in results and name not in seen:
            raise FileFormatError(f"results[{i}]: no node reads or makes an image {name!r}")


def _dependency_order(nodes: list[dict[str, Any]], results: dict[str, int]) -> Iterator[int]:
    """Indices of the nodes, each after those that make what it reads."""
    waits = [0] * len(nodes)
    readers: dict[int, list[int]] = {}
    for i, node in enumerate(nodes):
        for _, name in _reads(node):
            if name in results:
                waits[i] += 1
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


def _node_from_json(
    node: dict[str, Any], where: str, images: Mapping[str, MPSNNImageNode], sources: Mapping[Any, Any]
) -> MPSNNFilterNode:
    """The node that an entry describes."""
    arguments: dict[str, Any] = {}
    properties: dict[str, Any] = {}
    place = "class"
    try:
        for field in _fields(node):
            place = field.name
            if isinstance(field, WeightsField) and (DATA_SOURCE, node[place]) not in sources:
                raise FileFormatError(f"data_sources has no {node[place]!r}: add it")
            read = sources if isinstance(field, WeightsField) else images
            (properties if field.is_property else arguments)[place] = field.read(node[place], read)
        place = next((field.name for field in _fields(node) if isinstance(field, StateField)), "class")
        filter_node: MPSNNFilterNode = NODE_CLASSES[node["class"]](**arguments)
        for place, value in properties.items():
            setattr(filter_node, place, value)
    except (MPSRefError, OverflowError) as error:
        raise FileFormatError(f"{where}.{place}: {error}") from None
    own = {filter_node.result_image: node["result"]}
    for finding in contradictions(
        filter_node, lambda image: own.get(image) or next(n for n, one in images.items() if one is image)
    ):
        raise FileFormatError(f"{where}.{finding.field}: {finding.text}")
    filter_node.label = node.get("label")
    return filter_node


def _node_to_json(node: MPSNNFilterNode, names: Mapping[MPSNNImageNode, str]) -> dict[str, Any]:
    if NODE_CLASSES.get(type(node).__name__) is not type(node):
        raise ParameterError(f"{type(node).__name__} has no place in a graph file")
    values = {field.name: field.write(node, names) for field in node.fields}
    values = {name: value for name, value in values.items() if value is not ABSENT}
    if node.label is not None:
        values["label"] = node.label
    return {"class": type(node).__name__, **values, "result": names[node.result_image]}


def _settings_to_json(image: MPSNNImageNode) -> dict[str, Any]:
    # A result starts with the format of its first source: `none` must be written where that is not.
    initial = image.producer.sources[0].format if image.producer else MPSImageFeatureChannelFormat.none
    settings: dict[str, Any] = {"format": image.format.name} if image.format or initial else {}
    return settings | {name: True for name in _SETTINGS if getattr(image, name)}


def _apply_settings(image: MPSNNImageNode, settings: Mapping[str, Any]) -> None:
    if "format" in settings:
        image.format = MPSImageFeatureChannelFormat[settings["format"]]
    for name in _SETTINGS:
        setattr(image, name, settings.get(name, False))
