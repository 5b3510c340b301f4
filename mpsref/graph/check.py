"""
What is suspicious in a graph, though Apple's API takes it: one list of rules.

A graph file, in which nothing but a slip makes a gradient contradict its forward node, refuses what some of them find.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Protocol, TypeAlias, runtime_checkable

from mpsref.enums import MPSImageFeatureChannelFormat
from mpsref.errors import ParameterError
from mpsref.graph.arithmetic import NUMBERS, MPSNNArithmeticGradientNode, MPSNNBinaryArithmeticNode
from mpsref.graph.handles import handle_label
from mpsref.graph.names import differentiated, image_names, image_tags
from mpsref.graph.nodes import ImageLike, MPSNNFilterNode, MPSNNGradientFilterNode, MPSNNImageNode, node_or_error
from mpsref.graph.schedule import inputs, with_forward_nodes
from mpsref.operations import Role
from mpsref.storage import FORMATS

__all__ = ["Finding", "check", "contradictions"]


@dataclass(frozen=True)
class Finding:
    """
    Something in a graph that is hardly meant.

    Attributes
    ----------
    name : str
        The image that it is about, as people see it.
    node : MPSNNFilterNode or MPSNNImageNode
        The node that makes this image; the image's own node if none does.
    field : str
        The argument or property that is wrong.
    text : str
        What it is, and what it should be.
    """

    name: str
    node: MPSNNFilterNode | MPSNNImageNode = field(repr=False)
    field: str
    text: str

    def __str__(self) -> str:
        return f"{self.name}: {self.field} {self.text}"


Names: TypeAlias = Callable[[MPSNNImageNode], str]
Found: TypeAlias = Iterator[tuple[str, str]]
"""Fields and texts."""


# ---- of a gradient node: what contradicts its forward node ----


def _descriptor(node: MPSNNGradientFilterNode, name: Names) -> Found:
    """A neuron's type and parameters."""
    own, forward = node.operation.descriptor, node.forward_node
    if own != node.expected_operation.descriptor:
        made_by = f"is {own}, but {name(forward.result_image)!r} is made by {forward}"
        yield "descriptor", f"{made_by}: give the forward node's own type and parameters"


def _class(node: MPSNNGradientFilterNode, name: Names) -> Found:
    """Which arithmetic is differentiated."""
    forward = node.forward_node
    if isinstance(forward, MPSNNBinaryArithmeticNode) and type(node) is not forward.gradient_class():
        made_by = f"is {type(node).__name__}, but {name(forward.result_image)!r} is made by {forward}"
        yield "class", f"{made_by}: give {forward.gradient_class().__name__}"


def _neurons_source(node: MPSNNGradientFilterNode, name: Names) -> Found:
    """Where a neuron's slope is taken."""
    if node.operation.descriptor is not None:
        yield from _source(node, name)


def _arithmetics_source(node: MPSNNGradientFilterNode, name: Names) -> Found:
    """The source that is differentiated; most arithmetic reads its size alone."""
    if node.operation.descriptor is None:
        yield from _source(node, name)


def _source(node: MPSNNGradientFilterNode, name: Names) -> Found:
    given, wanted, forward = node.sources[1], node.differentiated_source, node.forward_node
    if given is wanted:
        return
    result = name(forward.result_image)
    if given is forward.result_image:
        what = f"is {name(given)!r}, the result of the forward node, which is not what it reads"
    elif given in forward.sources:
        what = f"is {name(given)!r}, the other source of the forward node of {result!r}"
    else:
        what = f"is {name(given)!r}, which is not what the forward node of {result!r} reads"
    yield "source_image", f"{what}: give {name(wanted)!r}"


def _scales(node: MPSNNGradientFilterNode, name: Names) -> Found:
    """Scales of arithmetic, those that count."""
    forward = node.forward_node
    if not isinstance(node, MPSNNArithmeticGradientNode) or not isinstance(forward, MPSNNBinaryArithmeticNode):
        return
    if type(node) is forward.gradient_class() and node.operation != node.expected_operation:
        for scale in ("primary_scale", "secondary_scale"):
            own, wanted = getattr(node, scale), getattr(forward, scale)
            if own != wanted:
                yield scale, f"is {own:g}, but {wanted:g} in {name(forward.result_image)!r}: give the forward node's"


def _ignored(node: MPSNNGradientFilterNode, name: Names) -> Found:
    """What a gradient does not do."""
    if isinstance(node, MPSNNArithmeticGradientNode):
        for number in ("bias", "minimum_value", "maximum_value"):
            if getattr(node, number) != NUMBERS[number].default:
                yield number, f"is {getattr(node, number):g}, which a gradient ignores: leave it at its default"


Rule: TypeAlias = Callable[[MPSNNGradientFilterNode, Names], Found]

REFUSED: tuple[Rule, ...] = (_descriptor, _class, _neurons_source)
"""What a graph file refuses, besides clamps that are exchanged."""

RULES: tuple[Rule, ...] = (*REFUSED, _arithmetics_source, _scales, _ignored)


def contradictions(node: MPSNNFilterNode, name: Names, rules: Iterable[Rule] = REFUSED) -> Iterator[Finding]:
    """What contradicts itself in a node, or its forward node; by default what a graph file refuses."""
    found: Found = iter(())
    if isinstance(node, MPSNNBinaryArithmeticNode) and _exchanged(node):
        # No graph can be made of it, and what its gradient is cannot be said.
        text = f"is {node.minimum_value:g}, above maximum_value, {node.maximum_value:g}: exchange them"
        found = iter([("minimum_value", text)])
    elif isinstance(node, MPSNNGradientFilterNode) and not _exchanged(node.forward_node):
        found = chain.from_iterable(rule(node, name) for rule in rules)
    for where, text in found:
        yield Finding(name(node.result_image), node, where, text)


def _exchanged(node: MPSNNFilterNode) -> bool:
    return isinstance(node, MPSNNBinaryArithmeticNode) and node.minimum_value > node.maximum_value


# ---- of a whole graph ----


@dataclass(frozen=True)
class _Graph:
    """What rules look at."""

    results: Sequence[MPSNNImageNode]
    nodes: Sequence[MPSNNFilterNode]
    storage: MPSImageFeatureChannelFormat | None
    names: Mapping[MPSNNImageNode, str]

    def finding(self, image: MPSNNImageNode, where: str, text: str) -> Finding:
        return Finding(self.names[image], image.producer or image, where, text)


def _nodes(graph: _Graph) -> Iterator[Finding]:
    """What contradicts itself."""
    for node in graph.nodes:
        yield from contradictions(node, graph.names.__getitem__, RULES)


def _unorm(graph: _Graph) -> Iterator[Finding]:
    """Gradients that a format cuts at 0 and 1."""
    nodes = [node for node in graph.nodes if not _exchanged(node)]
    incoming = [
        source
        for node in nodes
        for source, role in zip(node.sources, node.operation.roles, strict=True)
        if role is Role.GRADIENT
    ]
    for image in dict.fromkeys([*incoming, *differentiated(nodes)]):
        made_open = graph.storage if image.producer is not None else None
        storage = FORMATS.get(image.format or made_open)  # type: ignore[arg-type]
        if storage is not None and storage.unorm_max:
            text = f"is {storage.name}, which cuts a gradient at 0 and 1: give float16 or float32"
            yield graph.finding(image, "format", text)


def _handles(graph: _Graph) -> Iterator[Finding]:
    """Sources that cannot be told apart."""
    sources = inputs(graph.results)
    labels = [handle_label(source.handle) for source in sources]
    for i, (source, label) in enumerate(zip(sources, labels, strict=True)):
        if label is None and len(sources) > 1:
            text = f"is None: it is source {i} of {len(sources)}, by the order of the nodes alone; give it a handle"
            yield graph.finding(source, "handle", text)
        elif label is not None and label in labels[:i]:
            text = f"is {label!r}, which another source has too: they are two images; give each its own, or one node"
            yield graph.finding(source, "handle", text)


def _exports(graph: _Graph) -> Iterator[Finding]:
    """Sources that are handed out, by the caller to the caller."""
    for source in inputs(graph.results):
        if source.export_from_graph:
            text = "is True, which has no effect on a source: the caller has that image"
            yield graph.finding(source, "export_from_graph", text)


GRAPH_RULES: tuple[Callable[[_Graph], Iterator[Finding]], ...] = (_nodes, _unorm, _handles, _exports)
"""In the order in which findings are listed."""


@runtime_checkable
class _File(Protocol):
    """A graph file; its module lies above this one."""

    result_images: Any
    nodes: Any
    storage: Any


@runtime_checkable
class _Planned(Protocol):
    """A graph; its module lies above this one."""

    plan: Any
    format: Any


def check(graph: object) -> list[Finding]:
    """
    List what is hardly meant in a graph, though Apple's API and this one take it.

    Parameters
    ----------
    graph : MPSNNGraph, GraphFile, node, image node, or list of nodes and image nodes
        What to look at, with everything that it depends on. Nodes are looked at as they are now.

    Returns
    -------
    list of Finding
        Empty where nothing is suspicious. Gradient nodes with another type, other parameters, another class or other
        scales than their forward node, or with another `source_image` than it has read, such as its result; numbers
        that a gradient ignores; exchanged clamps; gradients stored as unorm; of several sources those without a handle,
        which their order alone tells apart, and those with the handle of another; exported sources.

    Raises
    ------
    ParameterError
        It is none of these.

    Examples
    --------
    >>> import mpsref as mps
    >>> x, g = mps.MPSNNImageNode(handle="x"), mps.MPSNNImageNode(handle="g")
    >>> y = mps.MPSCNNNeuronTanHNode(source=x)
    >>> y.result_image.handle = "y"
    >>> dx = mps.MPSCNNNeuronGradientNode(
    ...     source_gradient=g, source_image=y.result_image, gradient_state=y.result_state, descriptor=y.descriptor
    ... )
    >>> for finding in mps.check(dx):
    ...     print(finding)
    dy: source_image is 'y', the result of the forward node, which is not what it reads: give 'x'
    """
    results, storage, others = _parts(graph)
    nodes = with_forward_nodes([*results, *others])
    images = dict.fromkeys([image for node in nodes for image in (*node.sources, node.result_image)] + results)
    numbers = {image: i for i, image in reversed(list(enumerate(results)))} if isinstance(graph, _Planned) else None
    names = (
        {image: next(iter(image_tags(image)), repr(image)) for image in images}
        if any(map(_exchanged, nodes))  # what such a node does cannot be said
        else image_names(images, numbers)
    )
    looked_at = _Graph(results, nodes, storage, names)
    return [finding for rule in GRAPH_RULES for finding in rule(looked_at)]


def _parts(
    graph: object,
) -> tuple[list[MPSNNImageNode], MPSImageFeatureChannelFormat | None, list[MPSNNImageNode]]:
    """Results, the format of images whose nodes leave it open, and other images to look at."""
    if isinstance(graph, _File):
        return list(graph.result_images), graph.storage, [node.result_image for node in graph.nodes]
    if isinstance(graph, _Planned):
        return list(graph.plan.result_images), graph.format, []
    if isinstance(graph, MPSNNFilterNode | MPSNNImageNode):
        return [node_or_error("graph", graph, MPSNNImageNode)], None, []
    if not isinstance(graph, list | tuple):
        raise ParameterError(
            f"graph is a {type(graph).__name__}: give an MPSNNGraph, a GraphFile, a node, an image node or a list of "
            "nodes"
        )
    items: Sequence[ImageLike] = graph
    return [node_or_error("graph", item, MPSNNImageNode) for item in items], None, []
