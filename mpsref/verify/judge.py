"""The results that a node may have for its inputs: the forms of its formula, evaluated on ranges."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial, reduce
from itertools import compress, product
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from mpsref.arrays import Elements, Index, Mask, Stored, Wide, meaning
from mpsref.graph.nodes import MPSNNFilterNode, MPSNNImageNode
from mpsref.neuron.descriptor import MPSNNNeuronDescriptor
from mpsref.operations import (
    Maximum,
    MaximumGradient,
    NeuronForward,
    NeuronGradient,
    Operation,
    Product,
    Role,
    Sum,
    Windowed,
)
from mpsref.storage import StorageFormat
from mpsref.verify.bias import NEIGHBOUR, Directed, directed, directed_at_ends
from mpsref.verify.bounds import Ends, Form, before_the_store, classify
from mpsref.verify.cells import MARGIN, Cells
from mpsref.verify.core import core_ends, in_core
from mpsref.verify.differences import Deferred, Differences
from mpsref.verify.forms import data_of, neuron_forms
from mpsref.verify.models import Law, Model
from mpsref.verify.ranges import NOTES, Mark, Range
from mpsref.verify.reasons import BEYOND, WITHIN, Reason
from mpsref.verify.running import Running
from mpsref.verify.stored import Nearness, inner, read, stored
from mpsref.verify.windows import window_forms

__all__ = ["Segment", "neuron_judge"]

NodeForm: TypeAlias = Callable[[Sequence[Range], Index, int, Running], Range]
"""The ranges of results from those of the sources, flat indices, the number of channels and the arithmetic."""

WORTH_A_TABLE = 65_536
"""From so many elements on, all patterns of a 16-bit source are analysed instead."""

MOST_FORMS = 16
"""Combinations of the forms of nodes whose images are not recorded."""

LOSSES = Mark.COMPARED | Mark.CLAMPED
"""How NaN may be lost."""

MOST_INPUTS = 2
"""Images whose intervals are combined."""


def _forms(operation: Operation) -> list[Any]:
    """The forms of an operation's formula; for a neuron all that devices are known to use."""
    if isinstance(operation, Windowed):
        return list(window_forms(operation))
    descriptor = operation.descriptor
    functions: list[Any] = [None] if descriptor is None else neuron_forms(descriptor, operation.direction)

    def form(sources: Sequence[Range], index: Index, channels: int, f: Running, *, function: Any) -> Range:
        values = operation.values_of(sources)
        if descriptor is None:
            return f.range(operation.stepwise(f, *values)).like(index)
        data = data_of(descriptor, index, channels)
        result: Range = operation.stepwise(f, *values, function=lambda x: function(x, data, f))
        return result

    return [partial(form, function=function) for function in functions]


def _forms_of_one(operation: Operation) -> list[Any]:
    """The forms of an operation whose two sources are one image: ``a - a`` is 0, and ``a + a`` is ``2 a``, exactly."""
    match operation:
        case Sum(scales=(first, second)) if abs(first) == abs(second) and abs(math.frexp(first)[0]) == 0.5:
            total = replace(operation, scales=(first + operation.sign * second, 0.0))
        case Product(scales=(1.0, 1.0)):
            total = Sum(bias=operation.bias, bounds=operation.bounds)
        case _:
            return _forms(operation)
    squares = isinstance(operation, Product)

    def form(sources: Sequence[Range], index: Index, channels: int, f: Running) -> Range:
        x = f.square(sources[0]) if squares else sources[0]
        return f.range(total.stepwise(f, x, f.range(0.0))).like(index)

    return [form]


def _combined(forms: Sequence[Sequence[Any]]) -> list[tuple[Any, ...]]:
    """The forms of all nodes together: those of the same number first, since most nodes have one."""
    numbers = [tuple(min(k, len(own) - 1) for own in forms) for k in range(max(map(len, forms)))]
    numbers += product(*(range(len(own)) for own in forms))
    chosen = list(dict.fromkeys(numbers))[:MOST_FORMS]
    return [tuple(own[k] for own, k in zip(forms, number, strict=True)) for number in chosen]


def neuron_judge(
    descriptor: MPSNNNeuronDescriptor,
    model: Model,
    got: Elements,
    x: Elements,
    upstream: Elements | None = None,
) -> Callable[..., npt.NDArray[np.uint16]]:
    """
    What classifies results of a neuron or its gradient at some flat indices, see `classify`; they may be given too.

    Results, inputs and incoming gradients have one shape, with channels along the last axis.
    """
    channels = got.stored.shape[-1] if got.stored.ndim else 1
    operation = NeuronForward(descriptor) if upstream is None else NeuronGradient(descriptor)
    sources = [x] if upstream is None else [upstream, x]
    read_by = list(compress(sources, operation.reads))
    forms = _forms(operation)

    def judge(index: Index, made: Stored | None = None) -> npt.NDArray[np.uint16]:
        def value(f: Running, chosen: Index, *, form: NodeForm) -> Range:
            where = index[chosen]
            return form([read(f, source.at(where)) for source in sources], where, channels, f)

        values = [partial(value, form=form) for form in forms]
        made = got.at(index).stored if made is None else made
        return classify(made, model, got.storage, values, lambda part: _special(read_by, index[part]))

    return judge


_Part: TypeAlias = tuple[int, tuple[int, ...]]
"""Where some elements begin among those that are needed of an image, and their shape."""


class _Needed:
    """The elements of an image that the nodes after it read."""

    def __init__(self) -> None:
        self._lists: list[Index] = []

    def add(self, index: Index) -> _Part:
        """Add elements; the same array is taken once."""
        start = 0
        for known in self._lists:
            if known is index:
                break
            start += known.size
        else:
            self._lists.append(index)
        return start, index.shape

    def index(self) -> Index:
        """All flat indices in a row."""
        first, *others = self._lists
        return first if first.ndim == 1 and not others else np.concatenate([known.reshape(-1) for known in self._lists])


def _special(sources: Sequence[Elements | Deferred], index: Index) -> npt.NDArray[np.uint16]:
    """What is not finite among what is read at some elements, see `mpsref.verify.bounds.classify`."""
    special = np.zeros(index.size, np.uint16)
    for source in sources:
        if not source.storage.unorm_max:
            stored = source.at(index).stored
            special[(stored == np.inf) & (special == 0)] = Reason.plus_inf
            special[(stored == -np.inf) & (special == 0)] = Reason.minus_inf
            special[np.isnan(stored)] = Reason.nan
    return special


class _Asked(dict[str, Law]):
    """Laws that note which of them are used."""

    def __init__(self, laws: Mapping[str, Law]) -> None:
        super().__init__(laws)
        self.names: set[str] = set()

    def __getitem__(self, name: str) -> Law:
        self.names.add(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        self.names.add(name)
        return super().get(name, default)


class Segment:
    """
    The nodes between recorded images and one recorded image: a single node, where all its sources are recorded.

    Parameters
    ----------
    nodes : sequence of MPSNNFilterNode
        In the order of evaluation; the last has the image as its result.
    inputs : Mapping of MPSNNImageNode to Elements or Deferred
        The images, of shape (N, H, W, C), that they read and that none of them computes.
    formats : Mapping of MPSNNImageNode to StorageFormat
        The formats of their results.
    operations : sequence of Operation, optional
        What they do; default: their own.
    """

    def __init__(
        self,
        nodes: Sequence[MPSNNFilterNode],
        inputs: Mapping[MPSNNImageNode, Elements | Deferred],
        formats: Mapping[MPSNNImageNode, StorageFormat],
        operations: Sequence[Operation] | None = None,
    ) -> None:
        self._nodes, self._formats = nodes, formats
        self._inputs = {
            image: value if isinstance(value, Deferred) else Deferred.of(value) for image, value in inputs.items()
        }
        self._operations = [node.operation for node in nodes] if operations is None else operations
        self._sizes = {image: value.size for image, value in self._inputs.items()}
        for node, operation in zip(nodes, self._operations, strict=True):
            self._sizes[node.result_image] = operation.result_size(*(self._sizes[source] for source in node.sources))
        self._forms = _combined(
            [
                _forms_of_one(operation) if node.sources[1:2] == node.sources[:1] else _forms(operation)
                for node, operation in zip(nodes, self._operations, strict=True)
            ]
        )
        self._read = {
            source
            for node, operation in zip(nodes, self._operations, strict=True)
            for source in compress(node.sources, operation.reads)
        }
        self._tables: dict[tuple[int, int], Range] = {}
        self._ends: dict[str, tuple[Index, Stored, Stored]] = {}
        self._far: dict[str, Index] = {}
        self._wholes: dict[tuple[Any, ...], Range] = {}
        self._differing: dict[str, Sequence[Model]] = {}
        self._is_windowed = any(isinstance(operation, Windowed) for operation in self._operations)

    def classify(
        self, got: Stored, index: Index, model: Model, nearness: Nearness = Nearness.ITSELF
    ) -> npt.NDArray[np.uint16]:
        """
        Classify the elements `got` at some flat indices of the image, see `mpsref.verify.bounds.classify`.

        Where images between are not recorded, neighbours of what is within bounds are so too.
        """
        nearness = max(nearness, Nearness.NEIGHBOUR if len(self._nodes) > 1 else Nearness.ITSELF)
        storage = self._formats[self._nodes[-1].result_image]

        def special(part: Index) -> npt.NDArray[np.uint16]:
            if not self._is_windowed:
                return _special(self._sources, index[part])
            value = self._whole(0, Running(model)).at(index[part])
            # In a model of finite numbers an infinity leaves the result open as NaN does.
            is_open = value.nan | (np.isinf(value.size) & model.is_finite)
            return np.where(is_open, np.uint16(Reason.nan), np.uint16(0))

        variants = self._variants(model)
        # What is in the core needs no bounds of its own; nor does what is outside of those of its cell.
        is_open = np.ones(got.size, np.bool_)
        if self._is_neuron:
            is_open = ~in_core(got, storage, variants, self._forms_at(index))
        all_classes = np.full(got.size, WITHIN, np.uint16)
        if not is_open.all():
            got, index = got[is_open], index[is_open]
        classes, left, have_margin = self._by_cells(got, index, variants, storage, nearness)
        if have_margin and not storage.unorm_max:
            # A margin is more than a neighbour's distance for numbers that are normal.
            is_normal = np.abs(meaning(got, storage)) >= float(storage.limits.smallest_normal)
            far = index[(classes == BEYOND) & ~left & is_normal]
        else:
            far = index[:0]
        if not left.all():
            got, index = got[left], index[left]
        ends = Ends(index.size, storage)
        forms = self._forms_at(index, nearness)
        classes[left] = classify(
            got, model, storage, forms, special, ends, variants, nearness=nearness,
            loses_nan=self._loses_nan(model), hides_nan=self._hides_nan(model),
        )  # fmt: skip
        all_classes[is_open] = classes
        if model.name not in self._ends:
            self._ends[model.name] = _narrow(index[ends.known]), ends.low[ends.known], ends.high[ends.known]
            self._far[model.name] = _narrow(far)
        return all_classes

    def read(self, f: Running) -> Range:
        """The ranges of what the next node reads of the image, by any form of the formulas; of its shape."""
        result = self._nodes[-1].result_image
        shape = self._sizes[result]
        index = np.arange(math.prod(shape))
        forms = [self._ranges(index, number, f, big=False) for number in range(len(self._forms))]
        value = reduce(Range.joined, forms)
        return inner(value, self._formats[result]).reshape(shape)

    def directed(self, differences: Differences, beyond: Index, model: Model) -> Directed | None:
        """Whether all of the image was stored other than to nearest, see `mpsref.verify.bias`."""
        if not self._is_pointwise:
            return None
        storage = self._formats[self._nodes[-1].result_image]

        def ends(index: Index) -> tuple[Wide, Wide, Mask]:
            return before_the_store(self._variants(model), self._forms_at(index), index.size)

        evidence = directed(differences, storage, ends, self._sources, either=model.rounds_either_way)
        if beyond.size and (evidence is None or evidence.way == NEIGHBOUR):
            return directed_at_ends(differences, beyond, storage, ends, self._sources)
        return evidence

    @property
    def _sources(self) -> list[Deferred]:
        """The inputs that the results depend on."""
        return [value for image, value in self._inputs.items() if image in self._read]

    @property
    def _is_pointwise(self) -> bool:
        return all(operation.is_pointwise for operation in self._operations)

    @property
    def _is_neuron(self) -> bool:
        return len(self._nodes) == 1 and self._operations[0].descriptor is not None

    def _by_cells(
        self, got: Stored, index: Index, variants: Sequence[Model], storage: StorageFormat, nearness: Nearness
    ) -> tuple[npt.NDArray[np.uint16], Mask, bool]:
        """
        The classes of many elements, as far as cells of the inputs decide them; and which they leave open.

        The last tells whether what is beyond is so by a margin.
        """
        # Slopes differ from channel to channel.
        is_uniform = all(o.descriptor is None or o.descriptor.data is None for o in self._operations)
        if index.size < WORTH_A_TABLE or not is_uniform or not self._is_pointwise or len(self._inputs) > MOST_INPUTS:
            return np.full(index.size, BEYOND, np.uint16), np.ones(index.size, np.bool_), False
        first = self._nodes[0]
        is_scaled = isinstance(self._operations[0], NeuronGradient) and list(self._inputs) == list(first.sources)
        is_scaled = is_scaled and len(self._nodes) == 1 and not storage.unorm_max
        inputs = [value.elements() for value in self._inputs.values()]
        cells = Cells(inputs, index, is_scaled=is_scaled, nearness=nearness)

        def form(read: Sequence[Range], f: Running, *, number: int) -> Range:
            return self._evaluated(dict(zip(self._inputs, read, strict=True)), number, f, nearness)

        forms = [partial(form, number=number) for number in range(len(self._forms))]
        with np.errstate(all="ignore"):
            return *cells.classified(got, storage, variants, forms), cells.have_margin

    def _evaluated(
        self, values: dict[MPSNNImageNode, Range], number: int, f: Running, nearness: Nearness = Nearness.ITSELF
    ) -> Range:
        """The ranges of the last image from those of the inputs, of one element each."""
        index = np.zeros(next(iter(values.values())).low.shape, np.intp)
        for node, form in zip(self._nodes, self._forms[number], strict=True):
            value = form([values[source] for source in node.sources], index, 1, f)
            result = node.result_image
            values[result] = value if node is self._nodes[-1] else inner(value, self._formats[result], nearness)
        return values[self._nodes[-1].result_image]

    def _variants(self, model: Model) -> Sequence[Model]:
        """Those of a model that differ here: by the laws of functions that the formulas use."""
        if not self._is_pointwise or not model.others:
            return model.variants
        if model.name not in self._differing:
            laws = _Asked(model.laws)
            f = Running(replace(model, laws=laws))
            with np.errstate(all="ignore"):
                for number in range(len(self._forms)):
                    self._evaluated(dict.fromkeys(self._inputs, f.range(np.ones(1))), number, f)
            self._differing[model.name] = model.variants if laws.names & model.others.keys() else model.variants[:1]
        return self._differing[model.name]

    def _loses_nan(self, model: Model) -> bool:
        """Whether a node loses NaN in a comparison alone, which no image before it shows."""
        some = range(len(self._nodes) if len(self._nodes) > 1 else 0)
        return any(self._loss_of_nan(k, model) == Mark.COMPARED for k in some)

    def _hides_nan(self, model: Model) -> bool:
        """Whether a node whose image is not recorded may lose NaN in a minimum or maximum."""
        return any(Mark.CLAMPED in self._loss_of_nan(k, model) for k in range(len(self._nodes) - 1))

    def _loss_of_nan(self, k: int, model: Model) -> Mark:
        """How a node may lose NaN: `Mark.COMPARED`, `Mark.CLAMPED`, both or neither."""
        if not self._operations[k].is_pointwise:
            # What becomes of NaN among the elements of a window is documented nowhere.
            return Mark.COMPARED if isinstance(self._operations[k], Maximum | MaximumGradient) else Mark(0)
        f, index = Running(model), np.zeros(1, np.intp)
        with np.errstate(all="ignore"):
            sources = [f.range(np.full(1, np.nan)) for _ in self._nodes[k].sources]
            marks = self._forms[0][k](sources, index, 1, f).reason
        return Mark(int(marks.max())) & LOSSES

    def _forms_at(self, index: Index, nearness: Nearness = Nearness.ITSELF) -> list[Form]:
        """The ranges of elements, by each form; of parts of these flat indices."""
        self._tables.clear()
        big = index.size >= WORTH_A_TABLE

        def form(f: Running, chosen: Index, *, number: int) -> Range:
            return self._ranges(index[chosen], number, f, nearness, big=big)

        return [partial(form, number=number) for number in range(len(self._forms))]

    def ends(self, index: Index, model: Model) -> tuple[Wide, Wide]:
        """The least and the greatest value within bounds at some flat indices; NaN where no form has bounds."""
        storage = self._formats[self._nodes[-1].result_image]
        lowest = np.full(index.size, np.nan)
        highest = lowest.copy()
        known, *ends = self._ends.get(model.name, (np.empty(0, np.intp),) * 3)
        at, is_known = _found(known, index)
        lowest[is_known], highest[is_known] = (meaning(end[at[is_known]], storage) for end in ends)
        rest = np.flatnonzero(~is_known)
        if not rest.size:
            return lowest, highest
        with np.errstate(all="ignore"):
            for variant, form in product(self._variants(model), self._forms_at(index[rest])):
                value = form(Running(variant, model.flushes), np.arange(rest.size))
                between = stored(value, storage)[2].whole
                free = value.exceptions == 0
                chosen = rest[free]
                lowest[chosen] = np.fmin(lowest[chosen], between.low[free])
                highest[chosen] = np.fmax(highest[chosen], between.high[free])
        return lowest, highest

    def far(self, index: Index, model: Model) -> Mask:
        """Which elements at some flat indices are known to be out of bounds by `mpsref.verify.cells.MARGIN`."""
        return _found(self._far.get(model.name, np.empty(0, np.intp)), index)[1]

    def core_ends(self, index: Index, model: Model) -> tuple[Wide, Wide]:
        """Two values within bounds, sooner found than `ends`; NaN where none are, or where a margin is no wider."""
        if not self._is_neuron:
            return np.full(index.size, np.nan), np.full(index.size, np.nan)
        low, high = core_ends(self._variants(model)[0], self._forms_at(index)[0], index.size)
        known = high - low <= MARGIN / 4 * np.minimum(np.abs(low), np.abs(high))
        return np.where(known, low, np.nan), np.where(known, high, np.nan)

    def _ranges(
        self, index: Index, number: int, f: Running, nearness: Nearness = Nearness.ITSELF, *, big: bool
    ) -> Range:
        if self._is_windowed:
            whole = self._whole(number, f, nearness)
            # What comes of many elements, each with its own open comparisons, may be anything between.
            reason = whole.reason[index] & ~np.uint16(Mark.UNDECIDED)
            return replace(whole.at(index), reason=reason)
        # What is looked at branch by branch are few elements.
        if big and f.branches is None and (value := self._looked_up(index, number, f)) is not None:
            return value
        needed, feeds = self._needed(index)
        values = {}
        for image, elements in self._inputs.items():
            places = needed[image].index()
            values[image] = read(f, elements.at(places)) if image in self._read else f.range(np.zeros(places.shape))
        for node, form in zip(self._nodes, self._forms[number], strict=True):
            result = node.result_image
            sources = [values[source].part(*part) for source, part in zip(node.sources, feeds[node], strict=True)]
            value = form(sources, needed[result].index(), self._sizes[result][3], f)
            values[result] = value if node is self._nodes[-1] else inner(value, self._formats[result], nearness)
        return values[self._nodes[-1].result_image]

    def _whole(self, number: int, f: Running, nearness: Nearness = Nearness.ITSELF) -> Range:
        """The ranges of all elements of the last image, flat: a window reads many, and each is read by many."""
        key = number, nearness, *f.key
        if key not in self._wholes:
            values = {image: read(f, value.elements()) for image, value in self._inputs.items()}
            for node, operation, form in zip(self._nodes, self._operations, self._forms[number], strict=True):
                result = node.result_image
                size, sources = self._sizes[result], [values[source] for source in node.sources]
                if isinstance(operation, Windowed):
                    value = form([source.whole for source in sources], f)
                    # What another world may do to an element of a window, it does to what is made of that.
                    noted = np.bitwise_or.reduce([np.bitwise_or.reduce(each.reason, axis=None) for each in sources])
                    # So it does where NaN may have been lost before.
                    lost = np.where(value.nan & ~np.isnan(value.low), noted & np.uint16(LOSSES), np.uint16(0))
                    value = replace(value, reason=value.reason | (noted & np.uint16(NOTES)) | lost)
                else:
                    flats = [source.reshape((-1,)) for source in sources]
                    value = form(flats, np.arange(math.prod(size)), size[3], f).reshape(size)
                values[result] = value if node is self._nodes[-1] else inner(value, self._formats[result], nearness)
            self._wholes[key] = values[self._nodes[-1].result_image].reshape((-1,))
        return self._wholes[key]

    def _needed(self, index: Index) -> tuple[dict[MPSNNImageNode, _Needed], dict[MPSNNFilterNode, list[_Part]]]:
        """The elements of each image that some elements of the last depend on, and which of those each node reads."""
        needed = {image: _Needed() for image in self._sizes}
        needed[self._nodes[-1].result_image].add(index)
        feeds = {}
        for node, operation in zip(reversed(self._nodes), reversed(self._operations), strict=True):
            sizes = [self._sizes[source] for source in node.sources]
            feeding = operation.feeding(needed[node.result_image].index(), *sizes)
            feeds[node] = [needed[source].add(feed) for source, feed in zip(node.sources, feeding, strict=True)]
        return needed, feeds

    def _looked_up(self, index: Index, number: int, f: Running) -> Range | None:
        """The ranges from a table of all input patterns, for a single neuron whose input has at most 16 bits."""
        operation = self._operations[0]
        descriptor = operation.descriptor
        if len(self._nodes) > 1 or descriptor is None or descriptor.data is not None:
            return None
        sources = [self._inputs[source] for source in self._nodes[0].sources]
        elements = sources[operation.roles.index(Role.INPUT)]
        storage = elements.storage
        if storage.dtype.itemsize > 2:
            return None
        table = self._tables.get((number, id(f)))
        if table is None:
            form = neuron_forms(descriptor, operation.direction)[number]
            patterns = Elements(storage.patterns(), storage)
            table = self._tables[number, id(f)] = form(read(f, patterns), np.empty(0), f)
        code = elements.at(index).stored.view(storage.bits_dtype)
        value = table.at(code)
        reads = (
            value if role is Role.INPUT else read(f, x.at(index))
            for x, role in zip(sources, operation.roles, strict=True)
        )
        result: Range = operation.stepwise(f, *reads, function=lambda _: value)
        return result


def _narrow(index: Index) -> Index:
    """Ascending indices in as few bytes as hold them: all of an image take as much as the image does."""
    narrow: Index = index.astype(np.min_scalar_type(int(index.max(initial=0))))
    return narrow


def _found(known: Index, index: Index) -> tuple[Index, Mask]:
    """Where some indices are among others, in ascending order, and which of them are there."""
    if not known.size:
        return np.zeros(index.size, np.intp), np.zeros(index.size, np.bool_)
    at = np.minimum(np.searchsorted(known, index.astype(known.dtype)), known.size - 1)
    return at, known[at] == index
