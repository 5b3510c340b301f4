"""A graph as the Python code that builds it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import count
from keyword import iskeyword
from typing import Any

from mpsref.arguments import checked
from mpsref.enums import MPSImageFeatureChannelFormat
from mpsref.errors import ParameterError
from mpsref.graph.fields import DATA_SOURCE, DescriptorField, neuron_code
from mpsref.graph.file import GraphFile
from mpsref.graph.nodes import MPSNNFilterNode, MPSNNImageNode
from mpsref.graph.sources import descriptor_of
from mpsref.operations.weights import SIZES
from mpsref.storage import ChannelFormat

__all__ = ["graph_code"]

Formats = MPSImageFeatureChannelFormat


@checked
def graph_code(graph: GraphFile) -> str:
    """
    Python code that builds a graph, as ``graph``.

    Parameters
    ----------
    graph : GraphFile
        Any graph, not only one from a strategy.

    Returns
    -------
    str
        Its `GraphFile.to_json` is that of `graph`.

    Examples
    --------
    >>> import mpsref as mps
    >>> from mpsref.testing import strategies as mpst
    >>> x = mps.MPSNNImageNode(handle="x")
    >>> y = mps.MPSCNNNeuronTanHNode(source=x, a=1.5).result_image
    >>> y.handle = "y"
    >>> print(mpst.graph_code(mps.GraphFile.from_results([y])))
    import mpsref as mps
    x = mps.MPSNNImageNode(handle='x')
    y = mps.MPSCNNNeuronTanHNode(source=x, a=1.5, b=1.0)
    y.result_image.handle = 'y'
    graph = mps.GraphFile.from_results([y.result_image])
    """
    if not isinstance(graph, GraphFile):
        raise ParameterError(f"graph is a {type(graph).__name__}: give a GraphFile")
    return "\n".join(_Code(graph).lines())


class _Code:
    def __init__(self, graph: GraphFile) -> None:
        self.graph, self.document = graph, graph.to_json()
        self.images: dict[Any, str] = {}
        """The code for the image of each name, and for each data source."""
        self.taken = {"mps", "np", "graph"}

    def lines(self) -> Iterator[str]:
        if self.graph.data_sources:
            yield "import numpy as np"
        yield "import mpsref as mps"
        for name, image in self.graph.images.items():
            if image.producer is None:
                self.images[name] = variable = self._variable(name)
                yield f"{variable} = mps.MPSNNImageNode(handle={name!r})"
                yield from self._settings(name, image)
        for name, entry in self.document.get("data_sources", {}).items():
            yield from self._data_source(name, entry)
        written = dict(zip(self.graph.nodes, self.document["nodes"], strict=True))
        for node in in_order(self.graph.nodes):
            yield from self._node(node, written[node])
        yield f"graph = {self._whole([self._variable_of(node['result']) for node in self.document['nodes']])}"

    def _data_source(self, name: str, entry: Mapping[str, Any]) -> Iterator[str]:
        d, variable = dict(entry["descriptor"]), self._variable(f"{name}_descriptor")
        kind = d.pop("class")
        sizes = [f"{size}={d.pop(size)}" for size in SIZES]
        yield from _wrapped(f"{variable} = mps.{kind}(", sizes)
        neuron = d.pop("fused_neuron_descriptor", None)
        for option, value in d.items():
            yield f"{variable}.{option} = {value}"
        if neuron:
            yield f"{variable}.fused_neuron_descriptor = {neuron_code(neuron)}"
        shape = descriptor_of(entry["descriptor"]).weights_shape
        dtype = entry["weights"].get("data_type", "float32")
        arrays = [f"np.{dtype}({entry['weights']['values']}).reshape({shape})"]
        if "bias_terms" in entry:
            arrays.append(f"np.float32({entry['bias_terms']['values']})")
        self.images[DATA_SOURCE, name] = source = self._variable(f"{name}_weights")
        yield from _wrapped(f"{source} = mps.ArrayDataSource(", [variable, *arrays, f"label={name!r}"])

    def _variable(self, name: str) -> str:
        usable = name.isidentifier() and name.isascii() and not iskeyword(name) and name not in self.taken
        variable = name if usable else next(free for free in map("_{}".format, count()) if free not in self.taken)
        self.taken.add(variable)
        return variable

    def _variable_of(self, name: str) -> str:
        return self.images[name].removesuffix(RESULT)

    def _settings(self, name: str, image: MPSNNImageNode) -> Iterator[str]:
        inherited = Formats.none if image.producer is None else image.producer.sources[0].format
        if image.format != inherited:
            yield f"{self.images[name]}.format = {_format(image.format)}"
        for setting in ("export_from_graph", "stop_gradient"):
            if getattr(image, setting):
                yield f"{self.images[name]}.{setting} = True"

    def _node(self, node: MPSNNFilterNode, written: Mapping[str, Any]) -> Iterator[str]:
        variable, name = self._variable(written["result"]), written["result"]
        fields = [field for field in node.fields if field.name in written]
        makers = {image: variable.removesuffix(RESULT) for image, variable in self.images.items()}
        texts = []
        for field in fields:
            text = field.code(written[field.name], self.images, makers)
            forward = node.forward_node
            if isinstance(field, DescriptorField) and forward is not None:
                own = node.operation.descriptor == forward.operation.descriptor
                text = f"{makers[written['gradient_state']]}.descriptor" if own else text
            if not field.is_property:
                texts.append(f"{field.name}={text}")
        yield from _wrapped(f"{variable} = mps.{written['class']}(", texts)
        self.images[name] = f"{variable}{RESULT}"
        yield f"{self.images[name]}.handle = {name!r}"
        yield from self._settings(name, node.result_image)
        if name in self.document.get("result_states", ()):
            yield f"{variable}.result_state.export_from_graph = True"
        for key in ("label", *(field.name for field in fields if field.is_property)):
            if key in written:
                setting = next((field for field in fields if field.name == key and field.is_property), None)
                text = repr(written[key]) if setting is None else setting.code(written[key], self.images, makers)
                yield f"{variable}.{key} = {text}"

    def _whole(self, nodes: list[str]) -> str:
        graph = self.graph
        results = [self.images[name] for name in graph.results]
        if GraphFile.from_results(graph.result_images, graph.storage).to_json() == self.document:
            storage = "" if graph.storage is Formats.float16 else f", {_format(graph.storage)}"
            return f"mps.GraphFile.from_results([{', '.join(results)}]{storage})"
        # There are nodes that the results do not need, or the order differs.
        images = ", ".join(f"{name!r}: {self.images[name]}" for name in self.graph.images)
        return f"mps.GraphFile({_format(graph.storage)}, ({', '.join(nodes)},), {{{images}}}, {graph.results!r})"


RESULT, LINE = ".result_image", 120


def _wrapped(call: str, arguments: list[str]) -> Iterator[str]:
    """A call, in two lines if it is long."""
    line = f"{call}{', '.join(arguments)})"
    if len(line) <= LINE:
        yield line
    else:
        yield f"{call}{', '.join(arguments[:-1])}{',' if arguments[1:] else ''}"
        yield f"    {arguments[-1]})"


def _format(value: ChannelFormat) -> str:
    return f"mps.MPSImageFeatureChannelFormat.{value.name}"


def in_order(nodes: Iterable[MPSNNFilterNode]) -> list[MPSNNFilterNode]:
    """Nodes, each after those that it needs."""
    done: dict[MPSNNFilterNode, None] = {}
    waiting = list(nodes)
    while waiting:
        done |= dict.fromkeys(node for node in waiting if needed(node).isdisjoint(waiting))
        waiting = [node for node in waiting if node not in done]
    return list(done)


def needed(node: MPSNNFilterNode) -> set[MPSNNFilterNode | None]:
    """The producers of a node's sources, and the node whose state it takes."""
    return {node.forward_node, *(source.producer for source in node.sources)}
