"""
Rules for what is suspicious in a graph, though Apple's API accepts it.

Graph files refuse what some of them report: there a gradient that contradicts its forward node is always a mistake.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Protocol, TypeAlias, runtime_checkable

from mpsref.arguments import sequence_or_error
from mpsref.enums import MPSImageFeatureChannelFormat
from mpsref.graph.arithmetic import NUMBERS, MPSNNArithmeticGradientNode, MPSNNBinaryArithmeticNode
from mpsref.graph.drawing import not_a_graph
from mpsref.graph.handles import handle_label
from mpsref.graph.layers import SIZES, MPSCNNPoolingGradientNode
from mpsref.graph.names import differentiated, image_names, image_tags
from mpsref.graph.nodes import MPSNNFilterNode, MPSNNGradientFilterNode, MPSNNImageNode, node_or_error
from mpsref.graph.schedule import images_of, inputs, with_forward_nodes
from mpsref.operations import Role
from mpsref.storage import FORMATS

__all__ = ["Finding", "check", "contradictions"]


@dataclass(frozen=True)
class Finding:
    """
    Something suspicious in a graph.

    Attributes
    ----------
    name : str
        The name of the image that it is about.
    node : MPSNNFilterNode or MPSNNImageNode
        The node that makes this image; the image node if there is none.
    field : str
        The wrong argument or property.
    text : str
        Its value, and the fix.
    """

    name: str
    node: MPSNNFilterNode | MPSNNImageNode = field(repr=False)
    field: str
    text: str

    def __str__(self) -> str:
        return f"{self.name}: {self.field} {self.text}"


Names: TypeAlias = Callable[[MPSNNImageNode], str]
Problems: TypeAlias = Iterator[tuple[str, str]]
"""Fields and texts."""


# ---- gradient nodes that contradict their forward node ----


def _descriptor(node: MPSNNGradientFilterNode, name: Names) -> Problems:
    """A neuron's type and parameters."""
    own, forward = node.operation.descriptor, node.forward_node
    if own != node.expected_operation.descriptor:
        made_by = f"is {own}, but {name(forward.result_image)!r} is made by {forward}"
        yield "descriptor", f"{made_by}: give the forward node's own type and parameters"


def _class(node: MPSNNGradientFilterNode, name: Names) -> Problems:
    """The kind of arithmetic."""
    forward = node.forward_node
    if isinstance(forward, MPSNNBinaryArithmeticNode) and type(node) is not forward.gradient_class():
        made_by = f"is {type(node).__name__}, but {name(forward.result_image)!r} is made by {forward}"
        yield "class", f"{made_by}: give {forward.gradient_class().__name__}"


def _values_source(node: MPSNNGradientFilterNode, name: Names) -> Problems:
    """The differentiated source, where its values are read: for a neuron's slope, a maximum, gradients of weights."""
    if _reads_values(node):
        yield from _source(node, name)


def _sizes_source(node: MPSNNGradientFilterNode, name: Names) -> Problems:
    """The differentiated source, where only its size is read."""
    if not _reads_values(node):
        yield from _source(node, name)


def _reads_values(node: MPSNNGradientFilterNode) -> bool:
    return node.operation.roles[1] is Role.INPUT or node.data_source is not None


def _windows(node: MPSNNGradientFilterNode, name: Names) -> Problems:
    """The window of a pooling filter."""
    if isinstance(node, MPSCNNPoolingGradientNode):
        for field_ in (*SIZES, "padding_policy"):
            own, expected = getattr(node, field_), getattr(node.forward_node, field_)
            if own != expected:
                made_by = f"is {own}, but {expected} in {name(node.forward_node.result_image)!r}"
                yield field_, f"{made_by}: give the forward node's"


def _source(node: MPSNNGradientFilterNode, name: Names) -> Problems:
    source, expected, forward = node.sources[1], node.differentiated_source, node.forward_node
    if source is expected:
        return
    result = name(forward.result_image)
    if source is forward.result_image:
        what = f"is {name(source)!r}, the result of the forward node, which is not what it reads"
    elif source in forward.sources:
        what = f"is {name(source)!r}, the other source of the forward node of {result!r}"
    else:
        what = f"is {name(source)!r}, which is not what the forward node of {result!r} reads"
    yield "source_image", f"{what}: give {name(expected)!r}"


def _scales(node: MPSNNGradientFilterNode, name: Names) -> Problems:
    """The scales of arithmetic that have an effect."""
    forward = node.forward_node
    if not isinstance(node, MPSNNArithmeticGradientNode) or not isinstance(forward, MPSNNBinaryArithmeticNode):
        return
    if type(node) is forward.gradient_class() and node.operation != node.expected_operation:
        for scale in ("primary_scale", "secondary_scale"):
            own, expected = getattr(node, scale), getattr(forward, scale)
            if own != expected:
                yield scale, f"is {own:g}, but {expected:g} in {name(forward.result_image)!r}: give the forward node's"


def _ignored(node: MPSNNGradientFilterNode, name: Names) -> Problems:
    """Numbers that a gradient ignores."""
    if isinstance(node, MPSNNArithmeticGradientNode):
        for number in ("bias", "minimum_value", "maximum_value"):
            if getattr(node, number) != NUMBERS[number].default:
                yield number, f"is {getattr(node, number):g}, which a gradient ignores: leave it at its default"


Rule: TypeAlias = Callable[[MPSNNGradientFilterNode, Names], Problems]

REFUSED: tuple[Rule, ...] = (_descriptor, _class, _values_source, _windows)
"""What a graph file refuses, besides exchanged clamps."""

RULES: tuple[Rule, ...] = (*REFUSED, _sizes_source, _scales, _ignored)


def contradictions(node: MPSNNFilterNode, name: Names, rules: Iterable[Rule] = REFUSED) -> Iterator[Finding]:
    """Contradictions in a node, or with its forward node; by default those that a graph file refuses."""
    problems: Problems = iter(())
    if isinstance(node, MPSNNBinaryArithmeticNode) and _exchanged(node):
        # No graph can be made of it, and its gradient is undefined.
        text = f"is {node.minimum_value:g}, above maximum_value, {node.maximum_value:g}: exchange them"
        problems = iter([("minimum_value", text)])
    elif isinstance(node, MPSNNGradientFilterNode) and not _exchanged(node.forward_node):
        problems = chain.from_iterable(rule(node, name) for rule in rules)
    for where, text in problems:
        yield Finding(name(node.result_image), node, where, text)


def _exchanged(node: MPSNNFilterNode) -> bool:
    return isinstance(node, MPSNNBinaryArithmeticNode) and node.minimum_value > node.maximum_value


# ---- whole graphs ----


@dataclass(frozen=True)
class _Graph:
    """What the rules check."""

    results: Sequence[MPSNNImageNode]
    nodes: Sequence[MPSNNFilterNode]
    storage: MPSImageFeatureChannelFormat | None
    names: Mapping[MPSNNImageNode, str]

    def finding(self, image: MPSNNImageNode, where: str, text: str) -> Finding:
        return Finding(self.names[image], image.producer or image, where, text)


def _nodes(graph: _Graph) -> Iterator[Finding]:
    """Contradictions in single nodes."""
    for node in graph.nodes:
        yield from contradictions(node, graph.names.__getitem__, RULES)


def _unorm(graph: _Graph) -> Iterator[Finding]:
    """Gradients in a format that clamps to [0, 1]."""
    nodes = [node for node in graph.nodes if not _exchanged(node)]
    incoming = [
        source
        for node in nodes
        for source, role in zip(node.sources, node.operation.roles, strict=True)
        if role is Role.GRADIENT
    ]
    for image in dict.fromkeys([*incoming, *differentiated(nodes)]):
        default = graph.storage if image.producer is not None else None
        storage = FORMATS.get(image.format or default)  # type: ignore[arg-type]
        if storage is not None and storage.unorm_max:
            text = f"is {storage.name}, which cuts a gradient at 0 and 1: give float16 or float32"
            yield graph.finding(image, "format", text)


def _handles(graph: _Graph) -> Iterator[Finding]:
    """Sources without a handle of their own."""
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
    """Exported sources, which the caller has already."""
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
    List what is suspicious in a graph, though Apple's API and this one accept it.

    Parameters
    ----------
    graph : MPSNNGraph, GraphFile, node, image node, or list of nodes and image nodes
        What to check, with everything that it depends on, as the nodes are now.

    Returns
    -------
    list of Finding
        Gradient nodes whose type, parameters, class or scales differ from the forward node's, or whose `source_image`
        is not the image that it read but, for instance, its result; numbers that a gradient ignores; exchanged clamps;
        gradients stored as unorm; several sources of which one has no handle, or two the same; exported sources.

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
    images = images_of(nodes, results)
    numbers = {image: i for i, image in reversed(list(enumerate(results)))} if isinstance(graph, _Planned) else None
    names = (
        {image: next(iter(image_tags(image)), repr(image)) for image in images}
        if any(map(_exchanged, nodes))  # such a node has no operation
        else image_names(images, numbers)
    )
    checked = _Graph(results, nodes, storage, names)
    return [finding for rule in GRAPH_RULES for finding in rule(checked)]


def _parts(
    graph: object,
) -> tuple[list[MPSNNImageNode], MPSImageFeatureChannelFormat | None, list[MPSNNImageNode]]:
    """Results, the default format of images, and other images to check."""
    if isinstance(graph, _File):
        return list(graph.result_images), graph.storage, [node.result_image for node in graph.nodes]
    if isinstance(graph, _Planned):
        return list(graph.plan.result_images), graph.format, []
    if isinstance(graph, MPSNNFilterNode | MPSNNImageNode):
        return [node_or_error("graph", graph, MPSNNImageNode)], None, []
    if not isinstance(graph, list | tuple):
        raise not_a_graph(graph)
    return [node_or_error("graph", item, MPSNNImageNode) for item in sequence_or_error("graph", graph)], None, []
