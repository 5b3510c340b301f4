"""Short names for images in tables and drawings of a graph."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain, count
from typing import TYPE_CHECKING

from mpsref.graph.handles import handle_label
from mpsref.operations import Role

if TYPE_CHECKING:
    from mpsref.graph.nodes import MPSNNFilterNode, MPSNNImageNode

__all__ = ["differentiated", "image_names", "image_tags", "short_kind"]

LONGEST_STEM = 100
"""Longest name that a gradient's name is derived from; each further gradient adds a character."""


def image_tags(image: MPSNNImageNode) -> tuple[str, ...]:
    """The caller's names for an image: its handle, and the label of the node that makes it."""
    tags = (handle_label(image.handle), image.producer.label if image.producer else None)
    return tuple(tag for tag in tags if tag)


def differentiated(nodes: Iterable[MPSNNFilterNode]) -> dict[MPSNNImageNode, MPSNNImageNode]:
    """The image that each gradient is the gradient of, for nodes in order of evaluation."""
    images: dict[MPSNNImageNode, MPSNNImageNode] = {}
    for node in nodes:
        operation = node.operation
        if Role.GRADIENT in operation.roles:
            # The incoming gradient comes first, then the forward source.
            images[node.result_image] = node.sources[1]
        elif operation.accumulates:
            terms = {images.get(source) for source in node.sources}
            (image,) = terms if len(terms) == 1 else (None,)
            if image is not None:
                images[node.result_image] = image
    return images


def short_kind(node: MPSNNFilterNode) -> str:
    """What a node does, in a word: the neuron for a neuron or its gradient, else the class without its affixes."""
    descriptor = node.operation.descriptor
    if descriptor is not None:
        name = descriptor.neuron_type.name
        return name[0].upper() + name[1:]
    return type(node).__name__.removeprefix("MPSCNN").removeprefix("MPSNN").removesuffix("Node")


def image_names(
    images: Iterable[MPSNNImageNode], results: Mapping[MPSNNImageNode, int] | None = None
) -> dict[MPSNNImageNode, str]:
    """
    A unique name for each image.

    Parameters
    ----------
    images : iterable of MPSNNImageNode
        Each after those that its producer reads.
    results : mapping, optional
        The numbers of results, which are named after them if need be.

    Returns
    -------
    dict
        The handle, else the label of the node. If several images have the same one, sources come first, then results,
        then the others in order; a gradient never takes the handle of its image. Of those without a name, the gradient
        of ``x`` is ``dx``; if several gradients of ``x`` are summed, they are ``dx.1``, ``dx.2`` and the sum is ``dx``.
        Another result is ``result0``, ... by its number; the rest are named by their kind.

    Examples
    --------
    >>> import mpsref as mps
    >>> x = mps.MPSNNImageNode(handle="x")
    >>> n = mps.MPSCNNNeuronTanHNode(source=x)
    >>> (last,) = n.training_graph(with_source_gradient=mps.MPSNNImageNode(handle="g"))
    >>> list(image_names([x, n.result_image, last.result_image]).values())
    ['x', 'tanH', 'dx']
    """
    everything, numbered = list(images), results or {}
    names: dict[MPSNNImageNode, str] = {}
    taken: set[str] = set()

    def take(image: MPSNNImageNode, name: str) -> None:
        names[image] = name
        taken.add(name)

    nodes = [image.producer for image in everything if image.producer is not None]
    of = differentiated(nodes)
    tags = {image: image_tags(image) for image in everything}
    inherits = {image for image, source in of.items() if tags[image][:1] and tags[image][:1] == tags[source][:1]}
    for image in sorted(everything, key=lambda image: (image.producer is not None) * (2 - (image in numbered))):
        tag = next((tag for tag in tags[image] if tag not in taken), None)
        if tag is not None and image not in inherits:
            take(image, tag)
        elif image in numbered and image not in of:
            stem = f"result{numbered[image]}"
            candidates = chain([stem], (f"{stem}.{k}" for k in count(1)))
            take(image, next(name for name in candidates if name not in taken))
    summed = {source for node in nodes if node.result_image in of and node.operation.accumulates
              for source in node.sources}  # fmt: skip
    numbers: dict[str, int] = {}
    for image in everything:
        if image in names:
            continue
        is_short = image in of and len(names[of[image]]) < LONGEST_STEM
        stem = f"d{names[of[image]]}" if is_short else _stem(image)
        if stem not in taken and image not in summed:
            take(image, stem)
            continue
        for number in count(numbers.get(stem, 1 if image in summed else 2)):
            if f"{stem}.{number}" not in taken:
                take(image, f"{stem}.{number}")
                numbers[stem] = number + 1
                break
    return {image: names[image] for image in everything}


def _stem(image: MPSNNImageNode) -> str:
    if image.producer is None:
        return "source"
    operation = image.producer.operation
    if operation.descriptor is not None and not operation.makes_gradient:
        return operation.descriptor.neuron_type.name
    if operation.is_initial_gradient:
        return "ones"
    kind = short_kind(image.producer)
    return kind[0].lower() + kind[1:]
