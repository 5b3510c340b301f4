"""What a node may give for what it has read: the forms of its formula, as ranges of its elements."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import singledispatch
from typing import Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from mpsref.arrays import Index, Stored
from mpsref.graph.arithmetic import (
    MPSNNAdditionGradientNode,
    MPSNNAdditionNode,
    MPSNNInitialGradientNode,
    clamp_of,
)
from mpsref.graph.neurons import MPSCNNNeuronGradientNode, MPSCNNNeuronNode
from mpsref.graph.nodes import MPSNNFilterNode, MPSNNImageNode
from mpsref.image import MPSImage
from mpsref.neuron.descriptor import MPSNNNeuronDescriptor
from mpsref.neuron.stepwise import stepwise_sum
from mpsref.storage import StorageFormat
from mpsref.verify.bounds import classify, data_of, neuron_forms, read, stored
from mpsref.verify.running import Model, Range, Running

__all__ = ["Segment", "descriptor_of", "direction_of", "neuron_judge"]

NodeForm: TypeAlias = Callable[[Sequence[Range], Index, int, Running], Range]
"""The ranges of a node's results: of its sources' ranges, the elements' indices, the channels and the arithmetic."""

NeuronForm: TypeAlias = Callable[[Range, Stored, Running], Range]

WORTH_A_TABLE = 65_536
"""Elements from which on all patterns of a 16-bit source are analysed instead."""


@singledispatch
def _forms(node: MPSNNFilterNode) -> list[NodeForm]:
    raise NotImplementedError(type(node).__name__)


@_forms.register
def _(node: MPSCNNNeuronNode) -> list[NodeForm]:
    def of(formula: NeuronForm) -> NodeForm:
        def value(sources: Sequence[Range], index: Index, channels: int, f: Running) -> Range:
            return formula(sources[0], data_of(node.descriptor, index, channels), f)

        return value

    return [of(formula) for formula in neuron_forms(node.descriptor, "forward")]


@_forms.register
def _(node: MPSCNNNeuronGradientNode) -> list[NodeForm]:
    def of(formula: NeuronForm) -> NodeForm:
        def product(sources: Sequence[Range], index: Index, channels: int, f: Running) -> Range:
            return formula(sources[1], data_of(node.descriptor, index, channels), f) * sources[0]

        return product

    return [of(formula) for formula in neuron_forms(node.descriptor, "gradient")]


@_forms.register
def _(node: MPSNNAdditionNode) -> list[NodeForm]:
    scales, clamp = (node.primary_scale, node.secondary_scale), clamp_of(node)

    def total(sources: Sequence[Range], index: Index, channels: int, f: Running) -> Range:
        x, y, arithmetic = (cast("Any", each) for each in (sources[0], sources[1], f))
        return cast("Range", stepwise_sum(x, y, arithmetic, scales, node.bias, clamp))

    return [total]


@_forms.register
def _(node: MPSNNAdditionGradientNode) -> list[NodeForm]:
    factor = node.secondary_scale if node.is_secondary_source_filter else node.primary_scale

    def scaled(sources: Sequence[Range], index: Index, channels: int, f: Running) -> Range:
        return factor * sources[0]

    return [scaled]


@_forms.register
def _(node: MPSNNInitialGradientNode) -> list[NodeForm]:
    def ones(sources: Sequence[Range], index: Index, channels: int, f: Running) -> Range:
        return f.range(np.ones(index.size))

    return [ones]


def descriptor_of(node: MPSNNFilterNode) -> MPSNNNeuronDescriptor | None:
    """The neuron of a node, or of the node that it is the gradient of."""
    return node.descriptor if isinstance(node, MPSCNNNeuronNode | MPSCNNNeuronGradientNode) else None


def direction_of(node: MPSNNFilterNode) -> str:
    """``forward`` or ``gradient``."""
    gradients = (MPSCNNNeuronGradientNode, MPSNNAdditionGradientNode, MPSNNInitialGradientNode)
    return "gradient" if isinstance(node, gradients) else "forward"


def neuron_judge(
    descriptor: MPSNNNeuronDescriptor,
    model: Model,
    got: tuple[Stored, StorageFormat],
    x: tuple[Stored, StorageFormat],
    upstream: tuple[Stored, StorageFormat] | None = None,
) -> Callable[[Index], npt.NDArray[np.uint16]]:
    """
    What may be said of a neuron's results, or of its gradient, at some flat indices, see `classify`.

    Parameters
    ----------
    descriptor : MPSNNNeuronDescriptor
        The neuron; channels are along the last axis.
    model : Model
        What the device promises.
    got, x, upstream : pair of ndarray and StorageFormat
        The results, the sources and the incoming gradients, of one shape.
    """
    channels = got[0].shape[-1] if got[0].ndim else 1
    given = [(stored.reshape(-1), storage) for stored, storage in ((x,) if upstream is None else (x, upstream))]

    def judge(index: Index) -> npt.NDArray[np.uint16]:
        def of(formula: NeuronForm) -> Callable[[Running, Index], Range]:
            def value(f: Running, chosen: Index) -> Range:
                where = index[chosen]
                values = [read(f, elements[where], storage) for elements, storage in given]
                found = formula(values[0], data_of(descriptor, where, channels), f)
                return found if upstream is None else found * values[1]

            return value

        def nan_read(chosen: Index) -> npt.NDArray[np.bool_]:
            where = index[chosen]
            found = np.zeros(chosen.size, np.bool_)
            for elements, _ in given:
                found |= np.isnan(elements[where])
            return found

        forms = neuron_forms(descriptor, "forward" if upstream is None else "gradient")
        return classify(got[0].reshape(-1)[index], model, got[1], [of(form) for form in forms], nan_read)

    return judge


class Segment:
    """
    The nodes between recorded images and one recorded image: a single node, where all its sources are recorded.

    Parameters
    ----------
    nodes : sequence of MPSNNFilterNode
        In the order of evaluation; the last makes the image.
    given : Mapping of MPSNNImageNode to MPSImage
        What they read that none of them makes.
    formats : Mapping of MPSNNImageNode to StorageFormat
        How the images are stored that they make.
    """

    def __init__(
        self,
        nodes: Sequence[MPSNNFilterNode],
        given: Mapping[MPSNNImageNode, MPSImage],
        formats: Mapping[MPSNNImageNode, StorageFormat],
    ) -> None:
        self._nodes = nodes
        self._formats = formats
        self._given = {image: (value.to_array().reshape(-1), value.storage) for image, value in given.items()}
        self._channels = next(iter(given.values())).feature_channels
        self._forms = [_forms(node) for node in nodes]
        self._tables: dict[tuple[int, int], Range] = {}

    def classify(self, got: Stored, index: Index, model: Model) -> npt.NDArray[np.uint16]:
        """What may be said of the elements `got`, which stand at some flat indices of the image, see `classify`."""
        self._tables.clear()
        big = index.size >= WORTH_A_TABLE

        def form(number: int) -> Callable[[Running, Index], Range]:
            return lambda f, chosen: self._ranges(index[chosen], number, f, big=big)

        def nan_read(chosen: Index) -> npt.NDArray[np.bool_]:
            found = np.zeros(chosen.size, np.bool_)
            for elements, storage in self._given.values():
                found |= np.zeros(chosen.size, np.bool_) if storage.unorm_max else np.isnan(elements[index[chosen]])
            return found

        forms = [form(number) for number in range(max(map(len, self._forms)))]
        return classify(got, model, self._formats[self._nodes[-1].result_image], forms, nan_read)

    def _ranges(self, index: Index, number: int, f: Running, *, big: bool) -> Range:
        if big and (value := self._looked_up(index, number, f)) is not None:
            return value
        values = {
            image: read(f, elements[index], storage)
            for image, (elements, storage) in self._given.items()
        }  # fmt: skip
        for node, forms in zip(self._nodes, self._forms, strict=True):
            form = forms[min(number, len(forms) - 1)]
            value = form([values[source] for source in node.sources], index, self._channels, f)
            if node is not self._nodes[-1]:
                value = stored(value, self._formats[node.result_image])[2]
            values[node.result_image] = value
        return values[self._nodes[-1].result_image]

    def _looked_up(self, index: Index, number: int, f: Running) -> Range | None:
        """From a table of all patterns of the source, where one node reads at most 16 bits; else None."""
        (node,) = self._nodes[:1]
        descriptor = descriptor_of(node)
        if len(self._nodes) > 1 or descriptor is None or descriptor.data is not None:
            return None
        direction = direction_of(node)
        elements, storage = self._given[node.sources[0 if direction == "forward" else 1]]
        if storage.dtype.itemsize > 2:
            return None
        table = self._tables.get((number, id(f)))
        if table is None:
            of = neuron_forms(descriptor, direction)[number]
            table = self._tables[number, id(f)] = of(read(f, storage.patterns(), storage), np.empty(0), f)
        code = elements[index].view(storage.bits_dtype)
        found = Range(table.low[code], table.high[code], table.nan[code], table.reason[code], f)
        if direction == "forward":
            return found
        upstream, upstream_storage = self._given[node.sources[0]]
        return found * read(f, upstream[index], upstream_storage)
