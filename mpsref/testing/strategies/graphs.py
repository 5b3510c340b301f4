"""Graphs of nodes, the Python code that builds one, and images for its sources."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import count
from keyword import iskeyword
from typing import Any

from hypothesis import note
from hypothesis import strategies as st
from hypothesis.errors import InvalidArgument

from mpsref.enums import MPSImageFeatureChannelFormat
from mpsref.errors import ImageError
from mpsref.graph.arithmetic import NUMBERS, MPSNNAdditionGradientNode, MPSNNAdditionNode, MPSNNInitialGradientNode
from mpsref.graph.file import GraphFile
from mpsref.graph.neurons import MPSCNNNeuronGradientNode, MPSCNNNeuronNode
from mpsref.graph.nodes import MPSNNFilterNode, MPSNNImageNode
from mpsref.graph.schedule import inputs
from mpsref.image import MPSImage, MPSImageDescriptor
from mpsref.neuron.descriptor import MPSNNNeuronDescriptor
from mpsref.testing.strategies.images import image_descriptors, images
from mpsref.testing.strategies.neurons import descriptors, parameters
from mpsref.testing.strategies.numbers import formats

__all__ = ["graph_code", "graph_sources", "graphs"]

Formats = MPSImageFeatureChannelFormat

seldom = st.sampled_from([False, False, False, True])


@st.composite
def graphs(
    draw: st.DrawFn,
    *,
    neurons: st.SearchStrategy[MPSNNNeuronDescriptor] | None = None,
    channels: int = 1,
    max_nodes: int = 4,
    training: bool | None = None,
    additions: bool = True,
    settings: bool = True,
) -> GraphFile:
    """
    A strategy for graphs, as `GraphFile`: chains, images with several readers, shared sources, additions, gradients.

    Parameters
    ----------
    neurons : strategy of MPSNNNeuronDescriptor, optional
        Default: `descriptors` with as many `channels`.
    channels : int
        How many slopes pReLU has, and so how many feature channels the images must have.
    max_nodes : int
        How many nodes there are at most, besides those that make gradients.
    training : bool, optional
        Whether there are gradients, made by `training_graph` of the last node: of an image ``dy``, or of ones.
        Default: either.
    additions : bool
        Whether nodes add images, besides the additions that gradients need.
    settings : bool
        Whether labels, formats, ``export_from_graph`` and ``stop_gradient`` are set here and there. Where the gradient
        stops before it reaches anything, there is none, even if `training` is True.

    Notes
    -----
    The results are all images that no node reads. Sources are called ``x``, ``x1``, ...; the results of nodes ``h0``,
    ``h1``, ...; the gradient of ``h0`` is ``dh0``,
    or, where several are added, ``dh0``, ``dh0_1``, .... The Python code of a graph that fails a test is printed.

    Shrinks towards a single node that does nothing.

    Examples
    --------
    >>> from hypothesis import find
    >>> from mpsref.testing import strategies as mpst
    >>> print(mpst.graph_code(find(mpst.graphs(training=True), lambda graph: len(graph.nodes) > 1)))
    import mpsref as mps
    x = mps.MPSNNImageNode(handle='x')
    dy = mps.MPSNNImageNode(handle='dy')
    h0 = mps.MPSCNNNeuronNode(source=x, descriptor=mps.MPSNNNeuronDescriptor(mps.MPSCNNNeuronType.none))
    h0.result_image.handle = 'h0'
    dx = mps.MPSCNNNeuronGradientNode(source_gradient=dy, source_image=x, gradient_state=h0.result_state,
        descriptor=h0.descriptor)
    dx.result_image.handle = 'dx'
    graph = mps.GraphFile.from_results([h0.result_image, dx.result_image])
    """
    if max_nodes < 1:
        raise InvalidArgument(f"{max_nodes=} must be at least 1")
    drawn = _Drawing(draw, descriptors(channels=channels) if neurons is None else neurons, settings)
    for _ in range(draw(st.integers(1, max_nodes))):
        drawn.add(additions and draw(seldom))
    if draw(st.booleans()) if training is None else training:
        drawn.differentiate()
    file = GraphFile.from_results(drawn.unread(), draw(st.just(Formats.float16) | formats()))
    note(graph_code(file))
    return file


class _Drawing:
    """A graph in the making."""

    def __init__(self, draw: st.DrawFn, neurons: st.SearchStrategy[MPSNNNeuronDescriptor], settings: bool) -> None:
        self.draw, self.neurons, self.settings = draw, neurons, settings
        self.nodes: list[MPSNNFilterNode] = []
        self.names: Counter[str] = Counter()
        self.images: list[MPSNNImageNode] = []
        self._source()

    def add(self, is_addition: bool) -> None:
        """One node more."""
        node: MPSNNFilterNode
        if is_addition:
            node = MPSNNAdditionNode(left_source=self._read(), right_source=self._read())
            if self.draw(seldom):
                self._numbers(node)
        else:
            node = MPSCNNNeuronNode(source=self._read(), descriptor=self.draw(self.neurons))
        node.result_image.handle = f"h{len(self.nodes)}"
        self._set(node.result_image)
        if self.settings and self.draw(seldom):
            node.label = self.draw(st.text(max_size=5))
        self.nodes.append(node)
        self.images.append(node.result_image)

    def differentiate(self) -> None:
        """Make the gradients of everything that the last node depends on."""
        last = self.nodes[-1]
        if self.draw(seldom):
            ones = MPSNNInitialGradientNode(source=last.result_image)
            ones.result_image.handle = "ones"
            self.nodes.append(ones)
            ones.training_graph(node_handler=self._gradient)
        else:
            dy = MPSNNImageNode(handle="dy")
            if self.settings and self.draw(seldom):
                dy.format = self.draw(formats())
            last.training_graph(with_source_gradient=dy, node_handler=self._gradient)

    def unread(self) -> list[MPSNNImageNode]:
        """The images that no node reads."""
        read = {source for node in self.nodes for source in node.sources}
        return [node.result_image for node in self.nodes if node.result_image not in read]

    def _read(self) -> MPSNNImageNode:
        """An image for a node to read, the last one first: so graphs shrink towards chains."""
        place = self.draw(st.integers(0, len(self.images)))
        return self.images[-1 - place] if place < len(self.images) else self._source()

    def _source(self) -> MPSNNImageNode:
        source = MPSNNImageNode(handle=self._name("x"))
        if self.settings and self.draw(seldom):
            source.format = self.draw(formats())
        # Before all others: the last of the list is what is read first.
        self.images.insert(0, source)
        return source

    def _name(self, stem: str, separator: str = "") -> str:
        self.names[stem] += 1
        return stem if self.names[stem] == 1 else f"{stem}{separator}{self.names[stem] - 1}"

    def _set(self, image: MPSNNImageNode) -> None:
        if self.settings:
            if self.draw(seldom):
                image.format = self.draw(st.just(Formats.none) | formats())
            image.export_from_graph, image.stop_gradient = self.draw(seldom), self.draw(seldom)

    def _numbers(self, node: MPSNNFilterNode) -> None:
        numbers = {name: self.draw(parameters(number.default)) for name, number in NUMBERS.items()}
        low, high = sorted((numbers["minimum_value"], numbers["maximum_value"]))
        for name, value in {**numbers, "minimum_value": low, "maximum_value": high}.items():
            setattr(node, name, value)

    def _gradient(
        self,
        node: MPSNNFilterNode,
        mirrored: MPSNNFilterNode | None,
        source: MPSNNImageNode,
        gradient: MPSNNImageNode,
    ) -> None:
        self.nodes.append(node)
        node.result_image.handle = self._name(f"d{source.handle}", "_")


@st.composite
def graph_sources(
    draw: st.DrawFn,
    graph: GraphFile,
    /,
    *,
    descriptor: MPSImageDescriptor | None = None,
    **options: Any,
) -> dict[str, MPSImage]:
    """
    A strategy for the source images of a graph, by name: all of one size, each in the format of its node.

    Parameters
    ----------
    graph : GraphFile
        Whose neurons also say which values are drawn: the kinks and edges of one that reads the image itself.
    descriptor : MPSImageDescriptor, optional
        The size; the format is that of images whose node leaves it open. Default: small, with as many channels as
        pReLU has slopes; any format.
    **options
        What else `floats` takes.

    Examples
    --------
    >>> from hypothesis import find
    >>> import mpsref as mps
    >>> from mpsref.testing import strategies as mpst
    >>> x = mps.MPSNNImageNode(handle="x")
    >>> graph = mps.GraphFile.from_results([mps.MPSCNNNeuronTanHNode(source=x).result_image])
    >>> find(mpst.graph_sources(graph), lambda images: True)
    {'x': <MPSImage 1x1x1 float32>}
    """
    d = draw(image_descriptors(channels=_channels(graph))) if descriptor is None else descriptor
    found = {}
    for name, node in _named_inputs(graph).items():
        readers = [own for own in graph.nodes if isinstance(own, MPSCNNNeuronNode) and own.sources[0] is node]
        own_format = node.format or (d.channel_format if descriptor else draw(formats()))
        size = MPSImageDescriptor(
            channel_format=own_format,
            width=d.width,
            height=d.height,
            feature_channels=d.feature_channels,
            number_of_images=d.number_of_images,
        )
        neuron = readers[0].descriptor if readers else None
        bounded = {} if own_format < Formats.float16 else options
        found[name] = draw(images(size, neuron=neuron, **bounded))
    return found


def _channels(graph: GraphFile) -> int | None:
    """How many feature channels pReLU asks for, if there is one."""
    slopes = [node.descriptor.data for node in graph.nodes if isinstance(node, MPSCNNNeuronNode)]
    counts = {len(data) for data in slopes if data is not None}
    if len(counts) > 1:
        raise ImageError(f"the graph has pReLU with {sorted(counts)} slopes: no image fits all")
    return counts.pop() if counts else None


def _named_inputs(graph: GraphFile) -> Mapping[str, MPSNNImageNode]:
    names = {image: name for name, image in graph.images.items()}
    return {names[image]: image for image in inputs(graph.result_images)}


# ---- as Python code ----


def graph_code(graph: GraphFile) -> str:
    """
    Python code that builds a graph anew, as ``graph``.

    Parameters
    ----------
    graph : GraphFile
        Any, not only one that a strategy has made.

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
    return "\n".join(_Code(graph).lines())


class _Code:
    def __init__(self, graph: GraphFile) -> None:
        self.graph, self.document = graph, graph.to_json()
        self.images: dict[str, str] = {}
        """How the code calls the image of a name."""
        self.taken = {"mps", "graph"}

    def lines(self) -> Iterator[str]:
        yield "import mpsref as mps"
        for name, image in self.graph.images.items():
            if image.producer is None:
                self.images[name] = variable = self._variable(name)
                yield f"{variable} = mps.MPSNNImageNode(handle={name!r})"
                yield from self._settings(name, image)
        written = dict(zip(self.graph.nodes, self.document["nodes"], strict=True))
        for node in in_order(self.graph.nodes):
            yield from self._node(node, written[node])
        yield f"graph = {self._whole([self._variable_of(node['result']) for node in self.document['nodes']])}"

    def _variable(self, name: str) -> str:
        usable = name.isidentifier() and name.isascii() and not iskeyword(name) and name not in self.taken
        found = name if usable else next(free for free in map("_{}".format, count()) if free not in self.taken)
        self.taken.add(found)
        return found

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
        arguments = {key: value for key, value in written.items() if key not in ("class", "result", "label", *NUMBERS)}
        texts = [f"{key}={self._argument(key, value)}" for key, value in arguments.items()]
        if isinstance(node, MPSCNNNeuronGradientNode) and node.descriptor == _forward_descriptor(node):
            texts[-1] = f"descriptor={self._variable_of(written['gradient_state'])}.descriptor"
        yield from _wrapped(f"{variable} = mps.{written['class']}(", texts)
        self.images[name] = f"{variable}{RESULT}"
        yield f"{self.images[name]}.handle = {name!r}"
        yield from self._settings(name, node.result_image)
        for key in ("label", *NUMBERS):
            if key in written:
                yield f"{variable}.{key} = {written[key]!r}"

    def _argument(self, key: str, value: Any) -> str:
        if key in ("source", "source_gradient", "source_image"):
            return self.images[value]
        if key == "sources":
            return f"[{', '.join(self.images[name] for name in value)}]"
        if key == "gradient_state":
            return f"{self._variable_of(value)}.result_state"
        if key == "descriptor":
            numbers = "".join(f", {name}={number!r}" for name, number in value.items() if name != "neuron_type")
            return f"mps.MPSNNNeuronDescriptor(mps.MPSCNNNeuronType.{value['neuron_type']}{numbers})"
        return repr(value)

    def _whole(self, nodes: list[str]) -> str:
        graph = self.graph
        results = [self.images[name] for name in graph.results]
        if GraphFile.from_results(graph.result_images, graph.storage).to_json() == self.document:
            storage = "" if graph.storage is Formats.float16 else f", {_format(graph.storage)}"
            return f"mps.GraphFile.from_results([{', '.join(results)}]{storage})"
        # Nodes that the results do not need, or another order.
        every = ", ".join(f"{name!r}: {image}" for name, image in self.images.items())
        return f"mps.GraphFile({_format(graph.storage)}, ({', '.join(nodes)},), {{{every}}}, {graph.results!r})"


RESULT, LINE = ".result_image", 120


def _wrapped(call: str, arguments: list[str]) -> Iterator[str]:
    """A call, in two lines if it is long."""
    whole = f"{call}{', '.join(arguments)})"
    if len(whole) <= LINE:
        yield whole
    else:
        yield f"{call}{', '.join(arguments[:-1])}{',' if arguments[1:] else ''}"
        yield f"    {arguments[-1]})"


def _forward_descriptor(node: MPSCNNNeuronGradientNode) -> MPSNNNeuronDescriptor | None:
    forward = node.gradient_state.producer
    return forward.descriptor if isinstance(forward, MPSCNNNeuronNode) else None


def _format(value: MPSImageFeatureChannelFormat) -> str:
    return f"mps.MPSImageFeatureChannelFormat.{value.name}"


def in_order(nodes: Iterable[MPSNNFilterNode]) -> list[MPSNNFilterNode]:
    """Nodes, each after those that it needs, and after the one whose state it takes."""
    done: dict[MPSNNFilterNode, None] = {}
    waiting = list(nodes)
    while waiting:
        rest = set(waiting)
        ready = [node for node in waiting if not needed(node) & rest]
        done |= dict.fromkeys(ready)
        waiting = [node for node in waiting if node not in done]
    return list(done)


def needed(node: MPSNNFilterNode) -> set[MPSNNFilterNode]:
    """The nodes that make what a node reads, and the one whose state it takes."""
    makers = {source.producer for source in node.sources if source.producer is not None}
    if isinstance(node, MPSCNNNeuronGradientNode | MPSNNAdditionGradientNode):
        makers.add(node.gradient_state.producer)
    return makers
