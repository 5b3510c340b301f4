"""One image that is out of bounds, with all that bears on why: the node, what it read, what was got and wanted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeAlias

import numpy as np

from mpsref.arrays import Elements, Index, Mask, Stored, Wide
from mpsref.errors import ImageError, ParameterError
from mpsref.graph.nodes import MPSNNFilterNode
from mpsref.image import MPSImage
from mpsref.neuron.descriptor import MPSNNNeuronDescriptor
from mpsref.neuron.stepwise import evaluation
from mpsref.operations import NeuronOperation, Operation, Role
from mpsref.operations.base import spread_by_channel
from mpsref.storage import StorageFormat
from mpsref.ulp import ulp_distance
from mpsref.verify.compare import Tolerance, passes

__all__ = ["Case", "within"]

IsClose: TypeAlias = Callable[[Stored, Stored], Mask]
"""Whether each stored element is what a candidate gives: ``is_close(candidate, got)``, both of any one shape."""


def within(storage: StorageFormat, tolerance: Tolerance | None = None) -> IsClose:
    """
    Closeness by a tolerance, with which `Case` can do until better bounds are at hand.

    Examples
    --------
    >>> import numpy as np
    >>> from mpsref.storage import storage_of
    >>> x = np.float16([1, 1.002, np.nan])
    >>> within(storage_of(x, "x"), Tolerance(ulp=1))(x, np.float16([1, 1, np.nan]))
    array([ True, False,  True])
    """
    tolerance = Tolerance() if tolerance is None else tolerance

    def is_close(candidate: Stored, got: Stored) -> Mask:
        return passes(got, candidate, ulp_distance(got, candidate, storage), storage, tolerance)

    return is_close


@dataclass(frozen=True, eq=False)
class Case:
    """
    An image that is out of bounds.

    Parameters
    ----------
    operation : Operation
        What the node does.
    sources : tuple of Elements
        What it read, as stored, each of shape (N, H, W, C).
    result : StorageFormat
        How its result is stored.
    got, want : ndarray
        What the device wrote and what the reference gives, stored, of that shape.
    bad : ndarray of bool
        Which elements are out of bounds.
    is_close : callable
        ``is_close(candidate, got)``: which stored elements a candidate explains, exactly or within bounds. It is called
        with any elements, in a row.

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
    is_close: IsClose

    def __post_init__(self) -> None:
        arrays = {"got": self.got, "bad": self.bad} | {f"source {i}": s.stored for i, s in enumerate(self.sources)}
        for name, array in arrays.items():
            if array.shape != self.want.shape or array.ndim != 4:
                raise ImageError(f"{name} has shape {array.shape}: give (N, H, W, C), as want has: {self.want.shape}")

    @classmethod
    def of_node(
        cls,
        node: MPSNNFilterNode,
        sources: Sequence[MPSImage],
        got: MPSImage,
        want: MPSImage,
        bad: Mask,
        is_close: IsClose | None = None,
    ) -> Case:
        """
        The case of a node's result image.

        Parameters
        ----------
        node : MPSNNFilterNode
            The node.
        sources : sequence of MPSImage
            What it read, in the order of ``node.sources``.
        got, want : MPSImage
            What the device wrote and what the reference gives.
        bad : ndarray of bool, shape (N, H, W, C)
            Which elements are out of bounds.
        is_close : callable, optional
            Default: within 4 ULP of the result's format.

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
        close = within(want.storage) if is_close is None else is_close
        return cls(node.operation, read, want.storage, got.to_array(), want.to_array(), bad, close)

    # ---- facts ----

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Images, rows, columns, feature channels."""
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

    @cached_property
    def bad_index(self) -> Index:
        """Flat indices of the elements out of bounds."""
        return np.flatnonzero(self.bad)

    @cached_property
    def few_bad(self) -> Index:
        """Flat indices of some of them, in ascending order, always the same."""
        return some(self.bad_index, 512)

    def x(self, index: Index) -> Wide:
        """What the neuron's input means at some elements."""
        return self.sources[-1].at(index).values()

    def upstream(self, index: Index) -> Wide:
        """The incoming gradient likewise."""
        return self.sources[0].at(index).values()

    # ---- what else the node might have given ----

    def evaluate(
        self,
        index: Index,
        operation: Operation | None = None,
        sources: Sequence[Elements] | None = None,
        mode: str = "ideal",
        result: StorageFormat | None = None,
    ) -> Stored:
        """What an operation, the node's own by default, gives at some elements, from other sources if there are any."""
        operation = self.operation if operation is None else operation
        read = [source.at(index) for source in self.sources] if sources is None else list(sources)
        # A forward operation reads no gradient, which comes first.
        read = read[len(read) - len(operation.roles) :]
        spread = spread_by_channel(index, self.shape[3])
        return operation.evaluate(read, self.result if result is None else result, evaluation(mode), spread)

    def stored(self, values: Wide) -> Stored:
        """Values rounded once to the result's format, NaN to the canonical one."""
        out = self.result.encode(values, np.empty(values.shape, self.result.dtype))
        return out if self.result.unorm_max else np.where(np.isnan(out), out.dtype.type(np.nan), out)

    def with_descriptor(self, descriptor: MPSNNNeuronDescriptor) -> Operation:
        """The same operation with another neuron."""
        if not isinstance(self.operation, NeuronOperation):
            raise ParameterError(f"{self.operation} has no neuron")
        return replace(self.operation, neuron=descriptor)


def some(index: Index, count: int) -> Index:
    """At most so many of some indices, in their order, chosen without a pattern but always alike."""
    if index.size <= count:
        return index
    # Not at equal distances: those could meet always the same channel.
    return index[np.sort(np.random.default_rng(index.size).choice(index.size, count, replace=False, shuffle=False))]
