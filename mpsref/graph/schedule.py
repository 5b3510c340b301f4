"""The order in which filters are evaluated."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mpsref.graph.nodes import MPSNNFilterNode, MPSNNImageNode

__all__ = ["images_of", "inputs", "schedule", "with_forward_nodes"]


def schedule(
    images: Iterable[MPSNNImageNode], *, right_to_left: bool = False, done: set[MPSNNFilterNode] | None = None
) -> Iterator[MPSNNFilterNode]:
    """
    Yield every filter that the images depend on, once, after those that make its sources.

    Sources are visited depth-first, from left to right unless `right_to_left`. Filters in `done` are skipped, and
    yielded ones are added to it. Iterative, since a chain may be longer than Python's stack.
    """
    done = set() if done is None else done
    backwards = 1 if right_to_left else -1
    stack = [image.producer for image in list(images)[::backwards]]
    begun: set[MPSNNFilterNode] = set()
    while stack:
        node = stack[-1]
        if node is None or node in done:
            stack.pop()
        elif node in begun:
            stack.pop()
            done.add(node)
            yield node
        else:
            begun.add(node)
            stack += [source.producer for source in node.sources[::backwards]]


def with_forward_nodes(images: Iterable[MPSNNImageNode]) -> list[MPSNNFilterNode]:
    """Every filter that the images depend on, and the forward nodes of gradients, even without such a dependency."""
    done: set[MPSNNFilterNode] = set()
    nodes = list(schedule(images, done=done))
    for node in nodes:  # grows during the loop
        if node.forward_node is not None:
            nodes += schedule([node.forward_node.result_image], done=done)
    return nodes


def images_of(nodes: Iterable[MPSNNFilterNode], results: Iterable[MPSNNImageNode]) -> dict[MPSNNImageNode, None]:
    """The images that nodes read and make, node by node, and then the results, each once."""
    return dict.fromkeys([*(image for node in nodes for image in (*node.sources, node.result_image)), *results])


def inputs(images: Iterable[MPSNNImageNode]) -> list[MPSNNImageNode]:
    """The images that no filter makes, in depth-first order from the left."""
    stack = list(images)[::-1]
    visited: dict[MPSNNImageNode, None] = {}
    while stack:
        image = stack.pop()
        if image not in visited:
            visited[image] = None
            if image.producer is not None:
                stack.extend(image.producer.sources[::-1])
    return [image for image in visited if image.producer is None]
