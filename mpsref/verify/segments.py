"""Layers among the nodes between recorded images: their likely faults, and a neuron that is fused into one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from mpsref.arrays import Elements, Mask, Stored
from mpsref.graph.layers import MPSCNNConvolutionNode
from mpsref.graph.nodes import MPSNNFilterNode, MPSNNImageNode
from mpsref.operations import ArrayDataSource, Convolution, NeuronForward, Windowed
from mpsref.storage import StorageFormat
from mpsref.verify.faults import Finding
from mpsref.verify.layer_faults import LayerCase, explain_layer
from mpsref.verify.layer_hypotheses import LAYER_HYPOTHESES

__all__ = ["Walk", "explain_segment", "fused"]


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


def explain_segment(
    walk: Walk, names: Mapping[MPSNNImageNode, str], got: Stored, want: Stored, bad: Mask
) -> list[Finding]:
    """The likely faults of the layers of a walk whose last image is out of bounds, the likeliest first."""
    images = walk.images({})
    last = walk.nodes[-1].result_image
    findings = []
    for node in walk.nodes:
        if isinstance(node.operation, Windowed):
            image = node.result_image
            upstream = _before(walk, image)

            def after(stored: Stored, image: MPSNNImageNode = image, known: set[MPSNNImageNode] = upstream) -> Stored:
                given = {each: images[each] for each in known} | {image: Elements(stored, walk.formats[image])}
                return walk.images(given)[last].stored

            sources = tuple(images[source].values() for source in node.sources)
            case = LayerCase(node.operation, sources, walk.formats[image], got, want, bad, after, walk.formats[last])
            findings += [
                replace(finding, detail=", ".join(filter(None, (f"in {names[image]}", finding.detail))))
                for finding in explain_layer(case, LAYER_HYPOTHESES)
                if finding.fits
            ]
    # What has wide bounds explains much: it counts only where nothing else does.
    wide = {hypothesis.name for hypothesis in LAYER_HYPOTHESES if hypothesis.is_last}
    findings = [finding for finding in findings if finding.name not in wide] or findings
    ranked = sorted(findings, key=lambda finding: (-finding.score, -finding.same_bits))[:3]
    return [replace(finding, rank="alternative" if i else "cause") for i, finding in enumerate(ranked)]


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
