"""An image that is out of bounds, with what may tell why: its node, the node's sources, and both results."""

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
"""Whether each stored element is what a candidate gives: ``is_close(candidate, got)``, of one shape."""


def within(storage: StorageFormat, tolerance: Tolerance | None = None) -> IsClose:
    """
    Closeness by a tolerance; default: 4 ULP.

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
        The device's result and the reference's, stored, of that shape.
    bad : ndarray of bool
        Which elements are out of bounds.
    is_close : callable
        ``is_close(candidate, got)``: which stored elements a candidate explains, exactly or within bounds. Both are
        flat arrays of any elements.

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
        The case of a node's result image; `is_close` is 4 ULP of its format by default.

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

    @cached_property
    def bad_index(self) -> Index:
        """Flat indices of the elements out of bounds."""
        return np.flatnonzero(self.bad)

    @cached_property
    def bad_sample(self) -> Index:
        """Flat indices of some of them, in ascending order, always the same."""
        return some(self.bad_index, 512)

    def x(self, index: Index) -> Wide:
        """The neuron's input at some elements."""
        return self.sources[-1].at(index).values()

    def upstream(self, index: Index) -> Wide:
        """The incoming gradient at some elements."""
        return self.sources[0].at(index).values()

    # ---- other results that the node might have had ----

    def evaluate(
        self,
        index: Index,
        operation: Operation | None = None,
        sources: Sequence[Elements] | None = None,
        mode: str = "ideal",
        result: StorageFormat | None = None,
    ) -> Stored:
        """The result of an operation at some elements; default: the node's own operation on its own sources."""
        operation = self.operation if operation is None else operation
        read = [source.at(index) for source in self.sources] if sources is None else list(sources)
        # The incoming gradient comes first; a forward operation reads none.
        read = read[len(read) - len(operation.roles) :]
        spread = spread_by_channel(index, self.shape[3])
        return operation.evaluate(read, self.result if result is None else result, evaluation(mode), spread)

    def stored(self, values: Wide) -> Stored:
        """Values rounded once to the result's format, with canonical NaN."""
        out = self.result.encode(values, np.empty(values.shape, self.result.dtype))
        return out if self.result.unorm_max else np.where(np.isnan(out), out.dtype.type(np.nan), out)

    def with_descriptor(self, descriptor: MPSNNNeuronDescriptor) -> Operation:
        """The same operation with another neuron."""
        if not isinstance(self.operation, NeuronOperation):
            raise ParameterError(f"{self.operation} has no neuron")
        return replace(self.operation, neuron=descriptor)


def some(index: Index, count: int) -> Index:
    """At most `count` of some indices, in order, chosen at random but always the same."""
    if index.size <= count:
        return index
    # Not at equal distances: those could hit the same channel every time.
    return index[np.sort(np.random.default_rng(index.size).choice(index.size, count, replace=False, shuffle=False))]
