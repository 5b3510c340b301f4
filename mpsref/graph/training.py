"""Automatic differentiation: the gradient nodes of a graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from mpsref.graph.schedule import schedule

if TYPE_CHECKING:
    from mpsref.graph.nodes import MPSNNFilterNode, MPSNNImageNode, NodeHandler

__all__ = ["copy_handle", "training_graph"]


def copy_handle(
    gradient_node: MPSNNFilterNode,
    inference_node: MPSNNFilterNode | None,
    inference_source: MPSNNImageNode,
    gradient_source: MPSNNImageNode,
) -> None:
    """Give a gradient the handle of its image: the default node handler."""
    gradient_node.result_image.handle = inference_source.handle


def training_graph(
    last: MPSNNFilterNode,
    source_gradient: MPSNNImageNode | None,
    handler: NodeHandler,
    accumulation: Callable[..., MPSNNFilterNode],
) -> list[MPSNNFilterNode] | None:
    """See `MPSNNFilterNode.training_graph`; `accumulation` is the node class that adds two gradients."""
    nodes: list[MPSNNFilterNode] = []

    def add(node: MPSNNFilterNode, mirrored: MPSNNFilterNode | None, source: MPSNNImageNode, g: MPSNNImageNode) -> None:
        nodes.append(node)
        handler(node, mirrored, source, g)

    def total(image: MPSNNImageNode) -> MPSNNImageNode | None:
        """The sum of the gradients from all readers of an image."""
        result, *others = pending.pop(image)
        for gradient in others:
            addition = accumulation(left_source=result, right_source=gradient)
            add(addition, None, image, gradient)
            result = addition.result_image
            if result.stop_gradient or image.stop_gradient:
                return None
        return result

    gradient = source_gradient or last.result_image
    # An initial gradient node is its own gradient: its source is differentiated.
    first = last.sources[0] if last.operation.is_initial_gradient else last.result_image
    pending: dict[MPSNNImageNode, list[MPSNNImageNode]] = {first: [gradient]}
    # Right to left and then reversed: every filter after all its readers, the left of two branches first.
    for node in reversed(list(schedule([first], right_to_left=True))):
        image = node.result_image
        if image.stop_gradient or node.operation.is_initial_gradient or image not in pending:
            continue
        incoming = total(image)
        if incoming is None:
            continue
        for new, source in zip(node._gradient_filters(incoming), node.sources, strict=True):
            add(new, node, source, incoming)
            if not new.result_image.stop_gradient:
                pending.setdefault(source, []).append(new.result_image)
    for image in list(pending):
        if image.producer is None and not image.stop_gradient:
            total(image)
    read = {source for node in nodes for source in node.sources}
    return [node for node in nodes if node.result_image not in read] or None
