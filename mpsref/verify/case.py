"""An image that is out of bounds, with what may tell why: the nodes that made it, what they read, and both results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any, TypeAlias, TypeVar

import numpy as np

from mpsref.arrays import Elements, Index, Mask, Stored, Wide, meaning, spread
from mpsref.enums import MPSCNNNeuronType
from mpsref.errors import ImageError, ParameterError
from mpsref.graph.nodes import MPSNNFilterNode, MPSNNImageNode
from mpsref.image import MPSImage
from mpsref.neuron.descriptor import MPSNNNeuronDescriptor
from mpsref.neuron.stepwise import evaluation
from mpsref.operations import NeuronForward, NeuronOperation, Operation, Role
from mpsref.operations.base import spread_by_channel
from mpsref.record.layout import Layout
from mpsref.storage import FLOAT64, StorageFormat
from mpsref.ulp import UNREACHABLE, ulp_distance
from mpsref.verify.compare import NEAR, Tolerance, near_of, passes
from mpsref.verify.layer import Given, Layer
from mpsref.verify.restored import Restored

__all__ = [
    "Bound",
    "Case",
    "Ends",
    "Function",
    "IsClose",
    "Reads",
    "Step",
    "around",
    "most_noise",
    "remembered",
    "within",
]

IsClose: TypeAlias = Callable[[Stored, Stored], Mask]
"""Whether each stored element is what a candidate gives: ``is_close(candidate, got)``, of one shape."""

Ends: TypeAlias = Callable[[Index], tuple[Wide, Wide]]
"""From flat indices to the least and the greatest value within bounds; NaN where there are none."""

Bound: TypeAlias = Callable[[Index], IsClose]
"""From flat indices to the closeness of these elements."""

NOTHING = MPSNNNeuronDescriptor(MPSCNNNeuronType.none)
AXES = ("images", "rows", "columns", "channels")

WINDOW, LEAST_WINDOW = 131_072, 64
"""Elements in which a shift is looked for, at most and at least."""

MOST_VALUES = 2**20
"""Elements out of bounds of which the values read are put in order."""

WIDE_BOUND = 1 / 16
"""Relative widths above this are those of cancellation: they hold in absolute terms only."""


SHORT, KEPT = 65_536, 12
"""Elements for which what was computed is remembered, and how many results."""

V = TypeVar("V")


def remembered(function: Callable[..., V]) -> Callable[..., V]:
    """
    A function whose last argument are flat indices; its last few results are kept.

    Candidates ask in turn for the same elements, which are then the same array.
    """
    kept: list[tuple[tuple[Any, ...], V]] = []

    def asked(*arguments: Any) -> V:
        *others, index = arguments
        for known, value in kept:
            if known[-1] is index and list(known[:-1]) == others:
                return value
        value = function(*arguments)
        if index.size <= SHORT:
            kept[:] = [(arguments, value), *kept[: KEPT - 1]]
        return value

    return asked


def within(storage: StorageFormat, tolerance: Tolerance | None = None) -> Bound:
    """
    Closeness by a tolerance, the same for all elements; default: 4 ULP.

    Examples
    --------
    >>> import numpy as np
    >>> from mpsref.storage import storage_of
    >>> x = np.float16([1, 1.002, np.nan])
    >>> within(storage_of(x, "x"), Tolerance(ulp=1))(np.arange(3))(x, np.float16([1, 1, np.nan]))
    array([ True, False,  True])
    """
    tolerance = Tolerance() if tolerance is None else tolerance

    def is_close(candidate: Stored, got: Stored) -> Mask:
        return passes(got, candidate, ulp_distance(got, candidate, storage), storage, tolerance)

    return lambda _: is_close


def most_noise(storage: StorageFormat) -> int:
    """How many ULP a result may be off and be inaccurate only."""
    return int(2 ** (storage.precision // 2 - 1))


def around(storage: StorageFormat, want: Stored, ends: Ends) -> Bound:
    """
    Closeness by the bounds of each element, moved from the ideal value to what a candidate gives.

    Parameters
    ----------
    storage : StorageFormat
        The format of the elements.
    want : ndarray
        The ideal values, stored.
    ends : callable
        From flat indices to the least and the greatest value within bounds; NaN where there are none.
    """
    # No neighbours are farther apart than this, relative to one of them, or at all.
    apart = 2.0 ** (2 - storage.precision)
    least = 2 / storage.unorm_max if storage.unorm_max else 2 * float(storage.limits.smallest_subnormal)

    def bound(index: Index) -> IsClose:
        ideal = meaning(want.reshape(-1)[index], storage)
        low, high = ends(index)
        width = np.fmax(np.abs(ideal - low), np.abs(high - ideal))
        width[~np.isfinite(width)] = 0
        with np.errstate(all="ignore"):
            relative = width / np.abs(ideal)
        is_wide = ~(relative <= WIDE_BOUND)
        relative[is_wide] = 0
        absolute = np.where(is_wide, width, 0)

        def is_close(candidate: Stored, got: Stored) -> Mask:
            a, b = meaning(candidate, storage), meaning(got, storage)
            with np.errstate(all="ignore"):
                off, size = np.abs(a - b), np.abs(a)
                close: Mask = (off <= relative * size + absolute) & (size < np.inf)
                # Few are neighbours; NaN and infinities may be equal.
                unsure = ~(close | (off > apart * size + least))
            if unsure.any():
                close[unsure] = ulp_distance(got[unsure], candidate[unsure], storage) <= NEAR
            return close

        return is_close

    return bound


@dataclass(frozen=True)
class Reads:
    """
    What a node reads for some elements of its result.

    Attributes
    ----------
    operation : Operation
        What it does.
    elements : sequence of Elements
        Its sources there.
    index : ndarray of int
        The flat indices of the elements.
    channels : int
        The number of feature channels.
    """

    operation: Operation
    elements: Sequence[Elements]
    index: Index
    channels: int

    @cached_property
    def x(self) -> Wide:
        """A neuron's input."""
        return self.elements[-1].values()

    @cached_property
    def upstream(self) -> Wide:
        """The incoming gradient."""
        return self.elements[0].values()

    def ideal(
        self,
        operation: Operation | None = None,
        elements: Sequence[Elements] | None = None,
        mode: str = "ideal",
        result: StorageFormat = FLOAT64,
    ) -> Stored:
        """What an operation gives; default: the node's own for its own sources, as float64."""
        operation = self.operation if operation is None else operation
        read = list(self.elements if elements is None else elements)
        # The incoming gradient comes first; a forward operation reads none.
        read = read[len(read) - len(operation.roles) :]
        return operation.evaluate(read, result, evaluation(mode), spread_by_channel(self.index, self.channels))


Function: TypeAlias = Callable[[Reads], Wide]
"""What a node computes instead of its operation, before it is stored."""


@dataclass(frozen=True)
class Step:
    """
    A node of a case.

    Attributes
    ----------
    operation : Operation
        What it does.
    reads : tuple of int
        What it reads: the case's sources, then the results of the steps before.
    storage : StorageFormat
        How its result is stored.
    name : str
        Its result image, for texts.
    """

    operation: Operation
    reads: tuple[int, ...]
    storage: StorageFormat
    name: str = ""


@dataclass(frozen=True, eq=False)
class Case:
    """
    An image that is out of bounds.

    Parameters
    ----------
    operation : Operation
        What the node does; of several nodes, the last.
    sources : tuple of Elements
        What was read, as stored, each of shape (N, H, W, C).
    result : StorageFormat
        How the result is stored.
    got, want : ndarray
        The device's result and the reference's, stored, of that shape.
    bad : ndarray of bool
        Which elements are out of bounds.
    bound : callable
        The bounds of each element, around what a candidate gives.
    steps : tuple of Step
        The nodes between the sources and the result, in order; default: the one node.
    images : Mapping of str to Elements
        Other images of the graph, of the same shape, as recorded.
    operations : Mapping of str to Operation
        Those of other nodes, by their result images.
    layers : tuple of Layer
        If the image depends on windows: what they belong to, in order of evaluation. The source is then what the last
        one gives, and the only step its fused neuron, or nothing; see `of_layers`.
    axes : tuple of str
        What the four axes are called.
    layout : Layout, optional
        How the device's result lies in its file; default: as images, rows, columns and channels.
    ends : callable, optional
        From flat indices to the least and the greatest value within bounds, as for `around`; default: as `bound` says.
    far : callable, optional
        From flat indices to which of these are so far out of bounds that whatever is close to them is, too.
    near : callable, optional
        Closeness like that of `bound`, for those elements: sooner computed, and no wider.
    restored : tuple of Restored
        The image as it follows from what its sources should be, if some of those are out of bounds themselves.

    Raises
    ------
    ImageError
        The arrays do not fit together.
    """

    operation: Operation
    sources: tuple[Elements, ...]
    result: StorageFormat
    got: Stored
    want: Stored
    bad: Mask
    bound: Bound
    steps: tuple[Step, ...] = ()
    images: Mapping[str, Elements] = field(default_factory=dict)
    operations: Mapping[str, Operation] = field(default_factory=dict)
    layers: tuple[Layer, ...] = ()
    axes: tuple[str, str, str, str] = AXES
    layout: Layout | None = None
    ends: Ends | None = None
    far: Callable[[Index], Mask] | None = None
    near: Bound | None = None
    restored: tuple[Restored, ...] = ()

    def __post_init__(self) -> None:
        arrays = {"got": self.got, "bad": self.bad} | {f"source {i}": s.stored for i, s in enumerate(self.sources)}
        for name, array in arrays.items():
            if array.shape != self.want.shape or array.ndim != 4:
                raise ImageError(f"{name} has shape {array.shape}: give (N, H, W, C), as want has: {self.want.shape}")
        if not self.steps:
            object.__setattr__(self, "steps", (Step(self.operation, tuple(range(len(self.sources))), self.result),))

    @classmethod
    def of_node(
        cls,
        node: MPSNNFilterNode,
        sources: Sequence[MPSImage],
        got: MPSImage,
        want: MPSImage,
        bad: Mask,
        bound: Bound | None = None,
    ) -> Case:
        """
        The case of a node's result image; the bounds are 4 ULP of its format by default.

        Examples
        --------
        >>> import numpy as np
        >>> import mpsref as mps
        >>> x = mps.MPSNNImageNode(handle="x")
        >>> node = mps.MPSCNNNeuronAbsoluteNode(source=x)
        >>> read, got, want = (mps.MPSImage.from_array(np.float16([[v]])) for v in ([[-1]], [[-1]], [[1]]))
        >>> Case.of_node(node, [read], got, want, np.array([[[[True]]]])).operation
        NeuronForward(neuron=MPSNNNeuronDescriptor(MPSCNNNeuronType.absolute))
        """
        read = tuple(Elements(image.to_array(), image.storage) for image in sources)
        close = within(want.storage) if bound is None else bound
        return cls(node.operation, read, want.storage, got.to_array(), want.to_array(), bad, close)

    @classmethod
    def of_segment(
        cls,
        nodes: Sequence[MPSNNFilterNode],
        sources: Mapping[MPSNNImageNode, Elements],
        formats: Mapping[MPSNNImageNode, StorageFormat],
        names: Mapping[MPSNNImageNode, str],
        got: Stored,
        want: Stored,
        bad: Mask,
        bound: Bound,
        images: Mapping[str, Elements],
        operations: Mapping[str, Operation],
        ends: Ends | None = None,
    ) -> Case:
        """The case of the result of several nodes, whose inner images are not recorded; in order of evaluation."""
        place = {image: i for i, image in enumerate([*sources, *(node.result_image for node in nodes)])}
        steps = tuple(
            Step(
                node.operation,
                tuple(place[source] for source in node.sources),
                formats[node.result_image],
                names[node.result_image],
            )
            for node in nodes
        )
        last = steps[-1]
        read = tuple(sources.values())
        return cls(last.operation, read, last.storage, got, want, bad, bound, steps, images, operations, ends=ends)

    @classmethod
    def of_layers(
        cls,
        layers: Sequence[Layer],
        result: StorageFormat,
        got: Stored,
        want: Stored,
        bad: Mask,
        images: Mapping[str, Elements] = MappingProxyType({}),
        axes: tuple[str, str, str, str] = AXES,
    ) -> Case:
        """The case of what layers make, whose inner images are not recorded; in order of evaluation."""
        last = layers[-1]
        neuron = NOTHING if last.follow or last.neuron is None else last.neuron
        source = Elements(Given(lambda: last).at(np.arange(want.size)).reshape(want.shape), FLOAT64)
        operation, bound = NeuronForward(neuron), within(result)
        return cls(operation, (source,), result, got, want, bad, bound, (), images, {}, tuple(layers), axes)

    # ---- facts ----

    @cached_property
    def given(self) -> Given | None:
        """What the last layer gives."""
        return Given(lambda: self.layers[-1]) if self.layers else None

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Images, height, width, feature channels."""
        n, h, w, c = self.want.shape
        return n, h, w, c

    @property
    def descriptor(self) -> MPSNNNeuronDescriptor | None:
        """The neuron, if there is one."""
        return self.operation.descriptor

    @property
    def reads_gradient(self) -> bool:
        """Whether there is an incoming gradient."""
        return Role.GRADIENT in self.operation.roles

    def allowed(self, index: Index) -> Callable[[Stored], Mask]:
        """Which of some stored values would be within the bounds of the elements at flat indices."""
        want = self.want.reshape(-1)[index]
        if self.ends is None:
            is_close = self.bound(index)
            return lambda out: is_close(want, out)
        low, high = self.ends(index)

        def is_allowed(out: Stored) -> Mask:
            values = meaning(out, self.result)
            is_near = ulp_distance(out, want, self.result) <= near_of(self.result)
            return np.asarray(((low <= values) & (values <= high)) | is_near)

        return is_allowed

    def place(self, flat: int) -> tuple[int, ...] | None:
        """The indices of an element in the array that was recorded, if that is no image."""
        return self.layout.place(flat) if self.layout and self.layout.has_own_places else None

    @property
    def is_dense(self) -> bool:
        """Whether flat indices are the order in memory."""
        return self.layout is None or self.layout.is_dense

    @cached_property
    def bad_index(self) -> Index:
        """Flat indices of the elements out of bounds."""
        return np.flatnonzero(self.bad)

    @cached_property
    def noise(self) -> int | None:
        """How many ULP nearly all elements out of bounds are off, at most; None if that is more than noise leaves."""
        got, want = (array.reshape(-1)[self.bad_index] for array in (self.got, self.want))
        distance = ulp_distance(got, want, self.result)
        typical = np.quantile(distance, 0.99) if distance.size and distance.max() != UNREACHABLE else np.inf
        return int(typical) if typical <= most_noise(self.result) else None

    @cached_property
    def bad_sample(self) -> Index:
        """Flat indices of some of them, in ascending order, always the same."""
        return self.bad_index[spread(self.bad_index.size, 512)]

    def bad_values(self, source: int) -> Wide:
        """What elements out of bounds read of a source, in ascending order."""
        if source not in self._bad_values:
            index = self.bad_index[spread(self.bad_index.size, MOST_VALUES)]
            read = self.sources[source].at(index)
            self._bad_values[source] = np.sort(meaning(np.unique(read.stored), read.storage))
        return self._bad_values[source]

    @cached_property
    def _bad_values(self) -> dict[int, Wide]:
        return {}

    @cached_property
    def likely_shifts(self) -> list[int]:
        """By how many elements what was got looks most like what is wanted, whatever function was computed."""
        first = max(0, int(self.bad_index[0]) - WINDOW // 2)
        window = slice(first, first + WINDOW)
        images = [meaning(array.reshape(-1)[window], self.result) for array in (self.got, self.want)]
        size = images[0].size
        if size < LEAST_WINDOW or not all(np.isfinite(values).any() for values in images):
            return []
        spectra = []
        for values in images:
            finite = values[np.isfinite(values)]
            near = np.nan_to_num((values - np.median(finite)) / (np.median(np.abs(finite)) + 1e-300))
            bounded = np.clip(near, -3, 3)
            spectra.append(np.fft.rfft(bounded - bounded.mean(), 2 * size))
        likeness = np.abs(np.fft.irfft(spectra[0].conj() * spectra[1]))
        best = np.argpartition(likeness, -2)[-2:]
        shifts = best[np.argsort(-likeness[best])].tolist()
        return [by if by < size else by - 2 * size for by in shifts if by]

    # ---- other results that the nodes might have had ----

    @cached_property
    def exact(self) -> Callable[[int, Index], Wide]:
        """The result at some elements before it is stored, as it should be; of layers also the ends of its bounds."""

        def exact(end: int, index: Index) -> Wide:
            read, functions = self.reading(index, end)
            return self.values(index, functions, read)

        return remembered(exact)

    def reading(self, index: Index, end: int, given: Given | None = None) -> tuple[list[Elements], dict[int, Function]]:
        """What is read at some elements, and computed: if a layer gives something else, or an end of its bounds."""
        read = [source.at(index) for source in self.sources]
        given = self.given if given is None and end else given
        if given is None:
            return read, {}
        read[0] = Elements(given.at(index, end), FLOAT64)
        return read, {0: lambda reads: reads.x} if given.is_finished else {}

    def values(
        self,
        index: Index,
        functions: Mapping[int, Function] | None = None,
        read: Sequence[Elements] | None = None,
    ) -> Wide:
        """
        The result at some elements before it is stored, in float64.

        Parameters
        ----------
        index : ndarray of int
            Their flat indices.
        functions : Mapping of int to callable, optional
            What some of the steps compute instead.
        read : sequence of Elements, optional
            What is read there instead of the sources.
        """
        functions = functions or {}
        values = [source.at(index) for source in self.sources] if read is None else list(read)
        wide = np.empty(0)
        for k, step in enumerate(self.steps):
            reads = Reads(step.operation, [values[i] for i in step.reads], index, self.shape[3])
            wide = functions[k](reads) if k in functions else reads.ideal()
            if k + 1 < len(self.steps):
                values.append(Elements(encoded(wide, step.storage), step.storage))
        return wide

    def stored(self, values: Wide) -> Stored:
        """Values rounded once to the result's format, with canonical NaN."""
        return encoded(values, self.result)


def encoded(values: Wide, storage: StorageFormat) -> Stored:
    """Values rounded once to a format, with canonical NaN."""
    out = storage.encode(np.ascontiguousarray(values, np.float64), np.empty(values.shape, storage.dtype))
    return out if storage.unorm_max else np.where(np.isnan(out), out.dtype.type(np.nan), out)


def with_descriptor(operation: Operation, descriptor: MPSNNNeuronDescriptor) -> Operation:
    """The same operation with another neuron."""
    if not isinstance(operation, NeuronOperation):
        raise ParameterError(f"{operation} has no neuron")
    return replace(operation, neuron=descriptor)
