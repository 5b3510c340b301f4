"""Graphs of nodes, and images for their sources."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import note
from hypothesis import strategies as st

from mpsref.enums import MPSImageFeatureChannelFormat, MPSNNPaddingMethod
from mpsref.errors import ImageError
from mpsref.graph.arithmetic import (
    ARITHMETIC_NODES,
    NUMBERS,
    MPSNNAdditionNode,
    MPSNNBinaryArithmeticNode,
    MPSNNInitialGradientNode,
)
from mpsref.graph.file import GraphFile
from mpsref.graph.neurons import MPSCNNNeuronNode
from mpsref.graph.nodes import MPSNNFilterNode, MPSNNImageNode
from mpsref.graph.schedule import inputs, schedule
from mpsref.image import MPSImage, MPSImageDescriptor
from mpsref.neuron.descriptor import MPSNNNeuronDescriptor
from mpsref.operations import ConvolutionOperation, Role, Windowed
from mpsref.operations.base import Size
from mpsref.testing.strategies.arguments import count, drawn, flag, instance, strategy
from mpsref.testing.strategies.code import graph_code
from mpsref.testing.strategies.images import image_descriptors, images
from mpsref.testing.strategies.neurons import descriptors, parameters
from mpsref.testing.strategies.numbers import formats

__all__ = ["graph_sources", "graphs"]

ANY_SIZE = MPSNNPaddingMethod.sizeSame | MPSNNPaddingMethod.sizeFull
Formats = MPSImageFeatureChannelFormat


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
    A strategy for graphs, as `GraphFile`: chains, images with several readers, shared sources, arithmetic, gradients.

    Parameters
    ----------
    neurons : strategy of MPSNNNeuronDescriptor, optional
        Default: `descriptors` with as many `channels`.
    channels : int
        Number of pReLU's slopes, and so of the images' feature channels.
    max_nodes : int
        Largest number of nodes, besides those that make gradients.
    training : bool, optional
        Whether there are gradients, made by `training_graph` of the last node from an image ``dy``, or from ones.
        Default: either.
    additions : bool
        Whether nodes add, subtract or multiply images, besides the additions that gradients need.
    settings : bool
        Whether labels, formats, ``export_from_graph`` and ``stop_gradient`` are set here and there. Where the gradient
        stops before it reaches anything, there is none, even if `training` is True.

    Notes
    -----
    The results are all images that no node reads. Sources are named ``x``, ``x1``, ...; the results of nodes ``h0``,
    ``h1``, ...; the gradients of ``h0`` are ``dh0``, ``dh0_1``, .... When a test fails, Hypothesis prints the Python
    code of its graph.

    Shrinks towards a single neuron of type none.

    Examples
    --------
    >>> from hypothesis import find
    >>> from mpsref.testing import strategies as mpst
    >>> print(mpst.graph_code(find(mpst.graphs(training=True, max_nodes=1), lambda graph: len(graph.nodes) > 1)))
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
    strategy(neurons, MPSNNNeuronDescriptor, "neurons")
    count(max_nodes, "max_nodes")
    count(channels, "channels")
    flag(training, "training", is_optional=True)
    flag(additions, "additions")
    flag(settings, "settings")
    is_training = draw(st.booleans()) if training is None else training
    initial = _initial_gradients(settings) if is_training else st.none()
    storage, dy = draw(st.just(Formats.float16) | formats()), draw(initial)
    recipes = _recipes(descriptors(channels=channels) if neurons is None else neurons, max_nodes, additions, settings)
    builder = _Builder()
    for recipe in draw(st.lists(recipes, min_size=1, max_size=max_nodes)):
        builder.add(recipe)
    if dy is not None:
        builder.differentiate(dy)
    file = GraphFile.from_results(builder.unread(), storage)
    note(_Noted(file))
    return file


@dataclass(frozen=True)
class _Noted:
    """A graph whose code is written only if it is shown."""

    graph: GraphFile

    def _repr_pretty_(self, printer: Any, _: bool) -> None:
        printer.text(graph_code(self.graph))


@dataclass(frozen=True)
class _Image:
    """Settings of an image node."""

    format: MPSImageFeatureChannelFormat | None = None
    export_from_graph: bool = False
    stop_gradient: bool = False


@dataclass(frozen=True)
class _Recipe:
    """
    A node that is independent of those before it, so that shrinking can leave out any of them.

    `places` are those of its sources: results from 0 on, the latest first, and sources of the graph from -1 on. Beyond
    the first result it is that result again, and beyond the last source a new one.
    """

    operation: MPSNNNeuronDescriptor | type[MPSNNBinaryArithmeticNode]
    places: tuple[int, ...]
    numbers: Mapping[str, float] = field(default_factory=dict)
    image: _Image = _Image()
    source: _Image = _Image()
    label: str | None = None


PLAIN = [""] * 6
KINDS = st.sampled_from(["neuron"] * 6 + ["addition"] * 2 + ["arithmetic"] * 2)
SETTINGS = st.sampled_from([*PLAIN, "label", "format", "source format", "no format", "export", "stop", "source stop"])


@st.composite
def _recipes(
    draw: st.DrawFn, neurons: st.SearchStrategy[MPSNNNeuronDescriptor], max_nodes: int, additions: bool, settings: bool
) -> _Recipe:
    # Mostly the latest results and the first source, so that graphs hang together.
    place = st.sampled_from([0, 0, 0, 1, 1, -1, -1, -2, *range(2, max_nodes)])
    other = st.sampled_from([1, 1, -1, -2, -2, 0, *range(2, max_nodes)])
    kind = draw(KINDS) if additions else "neuron"
    if kind == "neuron":
        recipe = _Recipe(drawn(draw(neurons), MPSNNNeuronDescriptor, "neurons"), (draw(place),))
    else:
        operation = MPSNNAdditionNode if kind == "addition" else draw(st.sampled_from(ARITHMETIC_NODES))
        recipe = _Recipe(operation, (draw(place), draw(other)), draw(_numbers()) if kind == "arithmetic" else {})
    change: dict[str, Any] = {}
    match draw(SETTINGS) if settings else "":
        case "label":
            change["label"] = draw(st.text(max_size=5))
        case "format":
            change["image"] = _Image(draw(formats()))
        case "source format":
            change["source"] = _Image(draw(formats()))
        case "no format":  # else the result would inherit its source's
            change |= {"source": _Image(draw(formats())), "image": _Image(Formats.none)}
        case "export":
            change["image"] = _Image(export_from_graph=True)
        case "stop":
            change["image"] = _Image(stop_gradient=True)
        case "source stop":
            change["source"] = _Image(stop_gradient=True)
    return replace(recipe, **change)


@st.composite
def _numbers(draw: st.DrawFn) -> dict[str, float]:
    numbers = {name: draw(parameters(number.default)) for name, number in NUMBERS.items()}
    low, high = sorted((numbers["minimum_value"], numbers["maximum_value"]))
    return numbers | {"minimum_value": low, "maximum_value": high}


@st.composite
def _initial_gradients(draw: st.DrawFn, settings: bool) -> _Image | str:
    """The settings of ``dy``, or the name of an initial gradient."""
    match draw(st.sampled_from([*PLAIN, "ones", "ones", "format"])):
        case "ones":
            return "ones"
        case "format" if settings:
            return _Image(draw(formats()))
        case _:
            return _Image()


class _Builder:
    """A graph under construction."""

    def __init__(self) -> None:
        self.nodes: list[MPSNNFilterNode] = []
        self.names: Counter[str] = Counter()
        self.sources: list[MPSNNImageNode] = []
        self.results: list[MPSNNImageNode] = []
        """Results of forward nodes, which further nodes may read."""

    def add(self, recipe: _Recipe) -> None:
        """Add a node."""
        sources = [self._source(place, recipe.source) for place in recipe.places]
        node: MPSNNFilterNode
        if isinstance(recipe.operation, MPSNNNeuronDescriptor):
            node = MPSCNNNeuronNode(source=sources[0], descriptor=recipe.operation)
        else:
            node = recipe.operation(left_source=sources[0], right_source=sources[1])
            for name, value in recipe.numbers.items():
                setattr(node, name, value)
        node.result_image.handle = f"h{len(self.nodes)}"
        _set(node.result_image, recipe.image)
        node.label = recipe.label
        self.nodes.append(node)
        self.results.append(node.result_image)

    def differentiate(self, gradient: _Image | str) -> None:
        """Add the gradients of everything that the last node depends on."""
        last = self.nodes[-1]
        if isinstance(gradient, _Image):
            dy = MPSNNImageNode(handle="dy")
            _set(dy, gradient)
            last.training_graph(with_source_gradient=dy, node_handler=self._gradient)
        else:
            ones = MPSNNInitialGradientNode(source=last.result_image)
            ones.result_image.handle = gradient
            self.nodes.append(ones)
            ones.training_graph(node_handler=self._gradient)

    def unread(self) -> list[MPSNNImageNode]:
        """The images that no node reads."""
        read = {source for node in self.nodes for source in node.sources}
        return [node.result_image for node in self.nodes if node.result_image not in read]

    def _source(self, place: int, settings: _Image) -> MPSNNImageNode:
        if place >= 0 and self.results:
            return self.results[max(-1 - place, -len(self.results))]
        index = max(-1 - place, 0)
        if index < len(self.sources):
            return self.sources[index]
        source = MPSNNImageNode(handle=self._name("x"))
        _set(source, settings)
        self.sources.append(source)
        return source

    def _name(self, stem: str, separator: str = "") -> str:
        self.names[stem] += 1
        return stem if self.names[stem] == 1 else f"{stem}{separator}{self.names[stem] - 1}"

    def _gradient(self, node: MPSNNFilterNode, _: object, source: MPSNNImageNode, __: object) -> None:
        self.nodes.append(node)
        node.result_image.handle = self._name(f"d{source.handle}", "_")


def _set(image: MPSNNImageNode, settings: _Image) -> None:
    if settings.format is not None:
        image.format = settings.format
    image.export_from_graph, image.stop_gradient = settings.export_from_graph, settings.stop_gradient


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
    A strategy for the source images of a graph, by name, each in the format of its node.

    All have one size, but for the incoming gradients of layers, which have that of the layer's result.

    Parameters
    ----------
    graph : GraphFile
        The graph. An image that a neuron reads also has values at the neuron's kinks and edges.
    descriptor : MPSImageDescriptor, optional
        The size, and the format of images whose node leaves it open. Default: small, with as many channels as pReLU has
        slopes; any format.
    **options
        Other arguments of `floats`.

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
    instance(graph, GraphFile, "graph")
    d = draw(image_descriptors(channels=_channels(graph))) if descriptor is None else descriptor
    instance(d, MPSImageDescriptor, "descriptor")
    neurons = {
        node.sources[0]: node.operation.descriptor for node in reversed(graph.nodes) if node.forward_node is None
    }
    names = {image: name for name, image in graph.images.items()}
    sources, sizes = {}, _sizes(graph, d, is_fixed=descriptor is not None)
    for node in inputs(graph.result_images):
        own_format = node.format or (d.channel_format if descriptor else draw(formats()))
        n, height, width, channels = sizes[node]
        size = MPSImageDescriptor(
            channel_format=own_format,
            width=width,
            height=height,
            feature_channels=channels,
            number_of_images=n,
        )
        own_options = {} if own_format < Formats.float16 else options
        sources[names[node]] = draw(images(size, neuron=neurons.get(node), **own_options))
    return sources


def _sizes(graph: GraphFile, d: MPSImageDescriptor, *, is_fixed: bool) -> dict[MPSNNImageNode, Size]:
    """The sizes of all images; sources are large enough for their windows, unless theirs is fixed."""
    forward = (node.forward_node for node in graph.nodes)
    nodes = list(schedule([*(node.result_image for node in forward if node is not None), *graph.result_images]))
    operations = [node.operation for node in nodes]
    height, width = d.height, d.width
    for operation in () if is_fixed else operations:
        if isinstance(operation, Windowed):
            sliding = operation.sliding
            reach = [(k - 1) * e + 1 for k, e in zip(sliding.kernel, sliding.dilations, strict=True)]
            if getattr(operation, "is_fully_connected", False):
                height, width = reach
            elif not int(sliding.padding.padding_method()) & ANY_SIZE:
                height, width = max(height, reach[0]), max(width, reach[1])
    base = d.number_of_images, height, width, d.feature_channels
    sizes: dict[MPSNNImageNode, Size] = {}
    for node, operation in zip(nodes, operations, strict=True):
        for source, role in zip(node.sources, operation.roles, strict=True):
            is_gradient = role is Role.GRADIENT and node.forward_node is not None
            sizes.setdefault(source, sizes[node.forward_node.result_image] if is_gradient else base)  # type: ignore[union-attr]
        sizes[node.result_image] = operation.result_size(*(sizes[source] for source in node.sources))
    return sizes


def _channels(graph: GraphFile) -> int | None:
    """The number of feature channels that pReLU or weights need, if there are any."""
    operations = [node.operation for node in graph.nodes]
    neurons = (operation.descriptor for operation in operations)
    counts = {len(d.data) for d in neurons if d is not None and d.data is not None}
    counts |= {operation.weights.inputs for operation in operations if isinstance(operation, ConvolutionOperation)}
    if len(counts) > 1:
        raise ImageError(f"the graph has pReLU or weights for {sorted(counts)} channels: no image fits all")
    return counts.pop() if counts else None
