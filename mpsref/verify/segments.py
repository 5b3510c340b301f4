"""Layers among the nodes between recorded images, and a neuron that is fused into one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mpsref.arrays import Elements, Wide
from mpsref.graph.layers import MPSCNNConvolutionNode
from mpsref.graph.nodes import MPSNNFilterNode, MPSNNImageNode
from mpsref.operations import ArrayDataSource, Convolution, NeuronForward, Windowed
from mpsref.storage import StorageFormat
from mpsref.verify.layer import Layer

__all__ = ["Walk", "fused", "layers_of"]


@dataclass(frozen=True)
class Walk:
    """
    Some nodes, and the images that they read and that the reference makes of these.

    Attributes
    ----------
    nodes : sequence of MPSNNFilterNode
        In the order of evaluation.
    inputs : Mapping of MPSNNImageNode to Elements
        What none of them makes.
    formats : Mapping of MPSNNImageNode to StorageFormat
        Of their results.
    """

    nodes: Sequence[MPSNNFilterNode]
    inputs: Mapping[MPSNNImageNode, Elements]
    formats: Mapping[MPSNNImageNode, StorageFormat]

    def images(self, given: Mapping[MPSNNImageNode, Elements]) -> dict[MPSNNImageNode, Elements]:
        """All images, where some results are given."""
        images = {**self.inputs, **given}
        for node in self.nodes:
            if node.result_image not in images:
                read = [images[source] for source in node.sources]
                images[node.result_image] = node.operation.of_arrays(read, self.formats[node.result_image])
        return images


def layers_of(walk: Walk, names: Mapping[MPSNNImageNode, str]) -> list[Layer]:
    """The layers of a walk, each with what the nodes after it make of its result."""
    images = walk.images({}) if len(walk.nodes) > 1 else walk.inputs
    last = walk.nodes[-1].result_image
    layers = []
    for node in walk.nodes:
        if isinstance(node.operation, Windowed):
            image, storage = node.result_image, walk.formats[node.result_image]
            sources = tuple(images[source].values() for source in node.sources)
            if len(walk.nodes) == 1:
                return [Layer.of(node.operation, sources)]
            known = _before(walk, image)

            def follow(
                values: Wide,
                image: MPSNNImageNode = image,
                storage: StorageFormat = storage,
                known: set[MPSNNImageNode] = known,
            ) -> Wide:
                if image is last:
                    return values
                stored = storage.encode(np.ascontiguousarray(values), np.empty(values.shape, storage.dtype))
                given = {each: images[each] for each in known} | {image: Elements(stored, storage)}
                return walk.images(given)[last].values()

            layers.append(Layer.of(node.operation, sources, name=names[image], follow=follow))
    return layers


def _before(walk: Walk, image: MPSNNImageNode) -> set[MPSNNImageNode]:
    """The results of the walk that do not depend on an image."""
    after = {image}
    for node in walk.nodes:
        if not after.isdisjoint(node.sources):
            after.add(node.result_image)
    return {node.result_image for node in walk.nodes} - after


def fused(nodes: Sequence[MPSNNFilterNode]) -> MPSCNNConvolutionNode | None:
    """The convolution with the neuron after it fused into it, if a device may do that with these nodes."""
    if len(nodes) != 2 or not isinstance(nodes[0], MPSCNNConvolutionNode):
        return None
    first, operation = nodes[0], nodes[1].operation
    inner = first.operation
    if not (isinstance(operation, NeuronForward) and isinstance(inner, Convolution) and inner.weights.neuron is None):
        return None
    if operation.neuron.data is not None or nodes[1].sources[0] is not first.result_image:
        return None
    d = inner.weights.descriptor()
    d.fused_neuron_descriptor = operation.neuron
    made = type(first)(source=first.sources[0], weights=ArrayDataSource(d, inner.weights.values, inner.weights.bias))
    made.padding_policy, made.accumulator_precision = first.padding_policy, first.accumulator_precision
    return made
