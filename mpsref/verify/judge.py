"""What a node may give for what it has read: the forms of its formula, as ranges of its elements."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from mpsref.arrays import Elements, Index, Mask, Stored
from mpsref.graph.nodes import MPSNNFilterNode, MPSNNImageNode
from mpsref.image import MPSImage
from mpsref.neuron.descriptor import MPSNNNeuronDescriptor
from mpsref.operations import NeuronForward, NeuronGradient, Operation, Role, size_of
from mpsref.storage import StorageFormat
from mpsref.verify.bounds import classify, data_of, neuron_forms, read, stored
from mpsref.verify.running import Model, Range, Running

__all__ = ["Segment", "neuron_judge"]

NodeForm: TypeAlias = Callable[[Sequence[Range], Index, int, Running], Range]
"""The ranges of a node's results: of its sources' ranges, the elements' indices, the channels and the arithmetic."""

WORTH_A_TABLE = 65_536
"""Elements from which on all patterns of a 16-bit source are analysed instead."""


def _forms(operation: Operation) -> list[NodeForm]:
    """The forms of an operation's formula: for a neuron all that devices are known to use."""
    descriptor = operation.descriptor
    functions: list[Any] = [None] if descriptor is None else neuron_forms(descriptor, operation.direction)

    def form(sources: Sequence[Range], index: Index, channels: int, f: Running, *, function: Any) -> Range:
        values = operation.values_of(sources)
        if descriptor is None:
            return f.range(operation.stepwise(f, *values)).like(index)
        data = data_of(descriptor, index, channels)
        found: Range = operation.stepwise(f, *values, function=lambda x: function(x, data, f))
        return found

    return [partial(form, function=function) for function in functions]


def neuron_judge(
    descriptor: MPSNNNeuronDescriptor,
    model: Model,
    got: Elements,
    x: Elements,
    upstream: Elements | None = None,
) -> Callable[[Index], npt.NDArray[np.uint16]]:
    """
    What may be said of a neuron's results, or of its gradient, at some flat indices, see `classify`.

    Parameters
    ----------
    descriptor : MPSNNNeuronDescriptor
        The neuron; channels are along the last axis.
    model : Model
        What the device promises.
    got, x, upstream : Elements
        The results, the inputs and the incoming gradients, of one shape.
    """
    channels = got.stored.shape[-1] if got.stored.ndim else 1
    operation = NeuronForward(descriptor) if upstream is None else NeuronGradient(descriptor)
    given = [x] if upstream is None else [upstream, x]
    forms = _forms(operation)

    def judge(index: Index) -> npt.NDArray[np.uint16]:
        def value(f: Running, chosen: Index, *, form: NodeForm) -> Range:
            where = index[chosen]
            return form([read(f, each.at(where)) for each in given], where, channels, f)

        def nan_read(chosen: Index) -> Mask:
            found: Mask = np.logical_or.reduce([np.isnan(each.at(index[chosen]).stored) for each in given])
            return found

        of = [partial(value, form=form) for form in forms]
        return classify(got.at(index).stored, model, got.storage, of, nan_read)

    return judge


_Part: TypeAlias = tuple[int, tuple[int, ...]]
"""Where elements begin among those that are wanted of an image, and their shape."""


class _Wanted:
    """The elements of an image that the nodes after it read."""

    def __init__(self) -> None:
        self._lists: list[Index] = []

    def add(self, index: Index) -> _Part:
        """Want these too; the same array is taken once."""
        start = 0
        for known in self._lists:
            if known is index:
                break
            start += known.size
        else:
            self._lists.append(index)
        return start, index.shape

    def index(self) -> Index:
        """All of them, flat."""
        first, *others = self._lists
        return first if first.ndim == 1 and not others else np.concatenate([known.reshape(-1) for known in self._lists])


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
        self._nodes, self._formats = nodes, formats
        self._given = {image: Elements(value.to_array().reshape(-1), value.storage) for image, value in given.items()}
        self._operations = [node.operation for node in nodes]
        self._sizes = {image: size_of(value) for image, value in given.items()}
        for node, operation in zip(nodes, self._operations, strict=True):
            self._sizes[node.result_image] = operation.result_size(*(self._sizes[source] for source in node.sources))
        self._forms = list(map(_forms, self._operations))
        self._tables: dict[tuple[int, int], Range] = {}

    def classify(self, got: Stored, index: Index, model: Model) -> npt.NDArray[np.uint16]:
        """What may be said of the elements `got`, which stand at some flat indices of the image, see `classify`."""
        self._tables.clear()
        big = index.size >= WORTH_A_TABLE

        def form(f: Running, chosen: Index, *, number: int) -> Range:
            return self._ranges(index[chosen], number, f, big=big)

        def nan_read(chosen: Index) -> Mask:
            found = np.zeros(chosen.size, np.bool_)
            for elements in self._given.values():
                if not elements.storage.unorm_max:
                    found |= np.isnan(elements.at(index[chosen]).stored)
            return found

        forms = [partial(form, number=number) for number in range(max(map(len, self._forms)))]
        return classify(got, model, self._formats[self._nodes[-1].result_image], forms, nan_read)

    def _ranges(self, index: Index, number: int, f: Running, *, big: bool) -> Range:
        if big and (value := self._looked_up(index, number, f)) is not None:
            return value
        wanted, feeds = self._wanted(index)
        values = {image: read(f, elements.at(wanted[image].index())) for image, elements in self._given.items()}
        for node, forms in zip(self._nodes, self._forms, strict=True):
            form, result = forms[min(number, len(forms) - 1)], node.result_image
            sources = [values[source].part(*part) for source, part in zip(node.sources, feeds[node], strict=True)]
            value = form(sources, wanted[result].index(), self._sizes[result][3], f)
            values[result] = value if node is self._nodes[-1] else stored(value, self._formats[result])[2]
        return values[self._nodes[-1].result_image]

    def _wanted(self, index: Index) -> tuple[dict[MPSNNImageNode, _Wanted], dict[MPSNNFilterNode, list[_Part]]]:
        """The elements of each image that some elements of the last depend on, and which of those each node reads."""
        wanted = {image: _Wanted() for image in self._sizes}
        wanted[self._nodes[-1].result_image].add(index)
        feeds = {}
        for node, operation in zip(reversed(self._nodes), reversed(self._operations), strict=True):
            sizes = [self._sizes[source] for source in node.sources]
            feeding = operation.feeding(wanted[node.result_image].index(), *sizes)
            feeds[node] = [wanted[source].add(feed) for source, feed in zip(node.sources, feeding, strict=True)]
        return wanted, feeds

    def _looked_up(self, index: Index, number: int, f: Running) -> Range | None:
        """From a table of all patterns of the input, where one neuron reads at most 16 bits; else None."""
        operation = self._operations[0]
        descriptor = operation.descriptor
        if len(self._nodes) > 1 or descriptor is None or descriptor.data is not None:
            return None
        given = [self._given[source] for source in self._nodes[0].sources]
        elements = given[operation.roles.index(Role.INPUT)]
        storage = elements.storage
        if storage.dtype.itemsize > 2:
            return None
        table = self._tables.get((number, id(f)))
        if table is None:
            of = neuron_forms(descriptor, operation.direction)[number]
            patterns = Elements(storage.patterns(), storage)
            table = self._tables[number, id(f)] = of(read(f, patterns), np.empty(0), f)
        code = elements.at(index).stored.view(storage.bits_dtype)
        found = Range(table.low[code], table.high[code], table.nan[code], table.reason[code], f)
        result: Range = operation.stepwise(f, *(read(f, each.at(index)) for each in given), function=lambda _: found)
        return result
