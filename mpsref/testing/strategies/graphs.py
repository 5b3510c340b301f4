"""Graphs of nodes, and images for their sources."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import note
from hypothesis import strategies as st

from mpsref.enums import MPSImageFeatureChannelFormat
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
from mpsref.graph.schedule import inputs
from mpsref.image import MPSImage, MPSImageDescriptor
from mpsref.neuron.descriptor import MPSNNNeuronDescriptor
from mpsref.testing.strategies.arguments import count, drawn, flag, instance, strategy
from mpsref.testing.strategies.code import graph_code
from mpsref.testing.strategies.images import image_descriptors, images
from mpsref.testing.strategies.neurons import descriptors, parameters
from mpsref.testing.strategies.numbers import formats

__all__ = ["graph_sources", "graphs"]

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
        How many slopes pReLU has, and so how many feature channels the images must have.
    max_nodes : int
        How many nodes there are at most, besides those that make gradients.
    training : bool, optional
        Whether there are gradients, made by `training_graph` of the last node: of an image ``dy``, or of ones.
        Default: either.
    additions : bool
        Whether nodes add, subtract or multiply images, besides the additions that gradients need.
    settings : bool
        Whether labels, formats, ``export_from_graph`` and ``stop_gradient`` are set here and there. Where the gradient
        stops before it reaches anything, there is none, even if `training` is True.

    Notes
    -----
    The results are all images that no node reads. Sources are called ``x``, ``x1``, ...; the results of nodes ``h0``,
    ``h1``, ...; the gradients of ``h0`` are ``dh0``, ``dh0_1``, .... The Python code of a graph that fails a test is
    printed.

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
    strategy(neurons, MPSNNNeuronDescriptor, "neurons", is_optional=True)
    count(max_nodes, "max_nodes")
    count(channels, "channels")
    flag(training, "training", is_optional=True)
    flag(additions, "additions")
    flag(settings, "settings")
    is_training = draw(st.booleans()) if training is None else training
    initial = _initial_gradients(settings) if is_training else st.none()
    storage, dy = draw(st.just(Formats.float16) | formats()), draw(initial)
    recipes = _recipes(descriptors(channels=channels) if neurons is None else neurons, max_nodes, additions, settings)
    built = _Building()
    for recipe in draw(st.lists(recipes, min_size=1, max_size=max_nodes)):
        built.add(recipe)
    if dy is not None:
        built.differentiate(dy)
    file = GraphFile.from_results(built.unread(), storage)
    note(graph_code(file))
    return file


@dataclass(frozen=True)
class _Image:
    """What is set of an image."""

    format: MPSImageFeatureChannelFormat | None = None
    export_from_graph: bool = False
    stop_gradient: bool = False


@dataclass(frozen=True)
class _Recipe:
    """
    A node that knows nothing of those before it, so that any of them can be left out when a graph is shrunk.

    `places` are those of the images that it reads: results from 0 on, the latest first, and sources from -1 on. Beyond
    the first result is that result again, and beyond the last source a new one.
    """

    does: MPSNNNeuronDescriptor | type[MPSNNBinaryArithmeticNode]
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
        does = MPSNNAdditionNode if kind == "addition" else draw(st.sampled_from(ARITHMETIC_NODES))
        recipe = _Recipe(does, (draw(place), draw(other)), draw(_numbers()) if kind == "arithmetic" else {})
    change: dict[str, Any] = {}
    match draw(SETTINGS) if settings else "":
        case "label":
            change["label"] = draw(st.text(max_size=5))
        case "format":
            change["image"] = _Image(draw(formats()))
        case "source format":
            change["source"] = _Image(draw(formats()))
        case "no format":  # which the result would have of its source
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
    """An image, or that there are ones."""
    match draw(st.sampled_from([*PLAIN, "ones", "ones", "format"])):
        case "ones":
            return "ones"
        case "format" if settings:
            return _Image(draw(formats()))
        case _:
            return _Image()


class _Building:
    """A graph in the making."""

    def __init__(self) -> None:
        self.nodes: list[MPSNNFilterNode] = []
        self.names: Counter[str] = Counter()
        self.sources: list[MPSNNImageNode] = []
        self.results: list[MPSNNImageNode] = []
        """What can be read."""

    def add(self, recipe: _Recipe) -> None:
        """One node more."""
        read = [self._read(place, recipe.source) for place in recipe.places]
        node: MPSNNFilterNode
        if isinstance(recipe.does, MPSNNNeuronDescriptor):
            node = MPSCNNNeuronNode(source=read[0], descriptor=recipe.does)
        else:
            node = recipe.does(left_source=read[0], right_source=read[1])
            for name, value in recipe.numbers.items():
                setattr(node, name, value)
        node.result_image.handle = f"h{len(self.nodes)}"
        _set(node.result_image, recipe.image)
        node.label = recipe.label
        self.nodes.append(node)
        self.results.append(node.result_image)

    def differentiate(self, gradient: _Image | str) -> None:
        """Make the gradients of everything that the last node depends on."""
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

    def _read(self, place: int, settings: _Image) -> MPSNNImageNode:
        if place >= 0 and self.results:
            return self.results[max(-1 - place, -len(self.results))]
        which = max(-1 - place, 0)
        if which >= len(self.sources):
            source = MPSNNImageNode(handle=self._name("x"))
            _set(source, settings)
            self.sources.append(source)
        return self.sources[min(which, len(self.sources) - 1)]

    def _name(self, stem: str, separator: str = "") -> str:
        self.names[stem] += 1
        return stem if self.names[stem] == 1 else f"{stem}{separator}{self.names[stem] - 1}"

    def _gradient(
        self,
        node: MPSNNFilterNode,
        mirrored: MPSNNFilterNode | None,
        source: MPSNNImageNode,
        gradient: MPSNNImageNode,
    ) -> None:
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
    instance(graph, GraphFile, "graph")
    instance(descriptor, MPSImageDescriptor, "descriptor", is_optional=True)
    d = draw(image_descriptors(channels=_channels(graph))) if descriptor is None else descriptor
    found = {}
    neurons = [own for own in graph.nodes if own.operation.descriptor is not None and own.forward_node is None]
    for name, node in _named_inputs(graph).items():
        readers = [own for own in neurons if own.sources[0] is node]
        own_format = node.format or (d.channel_format if descriptor else draw(formats()))
        size = MPSImageDescriptor(
            channel_format=own_format,
            width=d.width,
            height=d.height,
            feature_channels=d.feature_channels,
            number_of_images=d.number_of_images,
        )
        neuron = readers[0].operation.descriptor if readers else None
        bounded = {} if own_format < Formats.float16 else options
        found[name] = draw(images(size, neuron=neuron, **bounded))
    return found


def _channels(graph: GraphFile) -> int | None:
    """How many feature channels pReLU asks for, if there is one."""
    neurons = [d for node in graph.nodes if (d := node.operation.descriptor) is not None]
    counts = {len(d.data) for d in neurons if d.data is not None}
    if len(counts) > 1:
        raise ImageError(f"the graph has pReLU with {sorted(counts)} slopes: no image fits all")
    return counts.pop() if counts else None


def _named_inputs(graph: GraphFile) -> Mapping[str, MPSNNImageNode]:
    names = {image: name for name, image in graph.images.items()}
    return {names[image]: image for image in inputs(graph.result_images)}
