"""The base class of operations."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum
from typing import Any, ClassVar, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from mpsref.arrays import Elements, Index, Stored, Wide
from mpsref.errors import ImageError
from mpsref.image import MPSImage
from mpsref.image_lanes import by_lane
from mpsref.neuron.descriptor import MPSNNNeuronDescriptor
from mpsref.neuron.slopes import ChannelSlopes
from mpsref.neuron.stepwise import Evaluation, evaluation
from mpsref.storage import FLOAT64, StorageFormat

__all__ = [
    "UNBOUNDED",
    "Operation",
    "Role",
    "Size",
    "Spread",
    "number_text",
    "scaled_text",
    "size_text",
    "spread_by_channel",
    "spread_by_lane",
    "sum_text",
]

Size: TypeAlias = tuple[int, int, int, int]
"""Images, height, width, feature channels."""

Spread: TypeAlias = Callable[[npt.NDArray[np.float32]], ChannelSlopes]
"""Repeats one number per feature channel along the elements that an operation reads."""

UNBOUNDED = (-math.inf, math.inf)

_T = TypeVar("_T")


class Role(Enum):
    """What an operation reads from a source."""

    INPUT = "input"
    """Its values, which the forward reads."""
    GRADIENT = "incoming gradient"
    """Its values, as the gradient of the forward result."""
    SIZE = "size"
    """Its size alone."""


class Operation(ABC):
    """
    What a node does to images. A value: equal operations compare equal.

    The executor, the verdict, traces, drawings, files, gradient checks and strategies all ask it; none of them knows a
    particular operation.

    Attributes
    ----------
    kind : str
        ``forward``, ``gradient``, ``sum``, ``product``, ``scale`` or ``ones``; see `mpsref.teach.Step`.
    roles : tuple of Role
        What is read from each source.
    makes_gradient : bool
        Whether the result is a gradient.
    is_pointwise : bool
        Whether each element of the result depends only on the elements in its own place; else `feeding` says on which.
    descriptor : MPSNNNeuronDescriptor or None
        The neuron, of the operations that have one.
    bounds : tuple of two floats
        What the result is clamped to; infinite for no bound.
    """

    kind: ClassVar[str]
    roles: ClassVar[tuple[Role, ...]]
    makes_gradient: ClassVar[bool] = False
    is_pointwise: ClassVar[bool] = True
    bounds: tuple[float, float] = UNBOUNDED

    @property
    def descriptor(self) -> MPSNNNeuronDescriptor | None:
        """The neuron, of the operations that have one."""
        return None

    # ---- sizes ----

    def result_size(self, *sources: Size) -> Size:
        """
        The size of the result for these sizes of the sources.

        Raises
        ------
        ImageError
            The sources do not fit together.
        """
        if len(set(sources)) > 1:
            raise ImageError(f"the sources differ in size: {', '.join(map(size_text, sources))}")
        return sources[0]

    def feeding(self, index: Index, *sources: Size) -> tuple[Index, ...]:
        """
        The elements of the sources that some elements of the result depend on.

        Parameters
        ----------
        index : ndarray of int, shape (n,)
            Flat indices of elements of the result, of shape (N, H, W, C).
        *sources : Size
            The sizes of the sources.

        Returns
        -------
        tuple of ndarray
            Flat indices into each source: of shape (n,) where the operation is pointwise; else of shape (n, count),
            negative for none.
        """
        return (index,) * len(sources)

    # ---- values ----

    @property
    def reads(self) -> tuple[bool, ...]:
        """For each source whether any result depends on its values."""
        return tuple(role is not Role.SIZE for role in self.roles)

    @property
    def is_copy(self) -> bool:
        """Whether the result is the first source, in the format of the result, and NaN the canonical one."""
        return False

    @abstractmethod
    def evaluate(
        self, sources: Sequence[Elements], result: StorageFormat, how: Evaluation, spread: Spread, workers: int = 1
    ) -> Stored:
        """
        The stored result for corresponding elements of the sources.

        Parameters
        ----------
        sources : sequence of Elements
            All of one shape.
        result : StorageFormat
            How the result is stored.
        how : Evaluation
            The mode: exact and rounded once, or step by step.
        spread : callable
            Repeats numbers per channel along the elements.
        workers : int
            Number of threads.
        """

    def run(self, *sources: MPSImage, result: StorageFormat, how: Evaluation, workers: int = 1) -> Stored:
        """The slices of the result, for images whose sizes fit."""
        elements = [Elements(image.slices, image.storage) for image in sources]
        return self.evaluate(elements, result, how, spread_by_lane(sources[0]), workers)

    def with_weights(self, weights: Any) -> Operation:
        """The same with other weights, of those that have any."""
        raise AssertionError("no weights")

    def states(self, sources: Sequence[MPSImage], how: Evaluation, workers: int = 1) -> Mapping[str, Stored]:
        """What it puts into the state of its forward node besides its result, by name."""
        return {}

    def gradients(self) -> tuple[Operation, ...]:
        """The gradient operation for each source; empty if there are none."""
        return ()

    # ---- as a formula ----

    @abstractmethod
    def stepwise(self, f: Any, *sources: Any, function: Callable[[Any], Any] | None = None) -> Any:
        """
        The documented formula, operation by operation, for numbers of any kind: float32, ranges, symbols.

        Parameters
        ----------
        f : Arithmetic
            Functions that numbers have no operators for.
        *sources
            Those whose values are read.
        function : callable, optional
            A neuron's value or slope at its input; required for operations with a descriptor.
        """

    def slope(self, *sources: MPSImage) -> npt.NDArray[np.float64] | None:
        """The factor of the incoming gradient, or a neuron's slope, as float64 slices; else None."""
        return None

    def slope_text(self, names: Sequence[str], symbol: str) -> str:
        """The slope as text: ``TanH'(x)``; empty where it is 1."""
        return ""

    @abstractmethod
    def text(self, names: Sequence[str], symbol: str) -> str:
        """
        The formula as text: ``dy * TanH'(x)``.

        Parameters
        ----------
        names : sequence of str
            Of the sources.
        symbol : str
            The neuron's name in formulas.
        """

    def facts(self) -> dict[str, Any]:
        """What the script of an explained graph needs besides a neuron's parameters."""
        return {}

    # ---- kinks ----

    def kinks(self) -> tuple[float, ...]:
        """The values of `argument` at which the slope jumps."""
        return ()

    def argument(self, sources: Sequence[Wide]) -> Wide:
        """The quantity that has the kinks, in float64: a neuron's input, or a sum before it is clamped."""
        return sources[0]

    def at_argument(self, argument: Wide) -> Wide:
        """The result for values of `argument`, in float64."""
        return argument

    # ---- mistakes ----

    def with_parameters_exchanged(self) -> Iterator[tuple[str, Operation]]:
        """Variants with exchanged parameters, each with a description."""
        return iter(())

    def with_parameters_left_out(self) -> Iterator[tuple[str, Operation]]:
        """Variants that ignore a parameter, each with a description."""
        return iter(())

    # ---- derived ----

    def values_of(self, sources: Sequence[_T]) -> list[_T]:
        """The items that belong to sources whose values are read."""
        return [source for source, role in zip(sources, self.roles, strict=True) if role is not Role.SIZE]

    def of_arrays(self, sources: Sequence[Elements], result: StorageFormat, how: Evaluation | None = None) -> Elements:
        """The result for arrays whose last axis is the channels: whole images, of shape (N, H, W, C), or pixels."""
        spread: Spread = lambda data: ChannelSlopes(data.astype(np.float64)[np.newaxis], 1)  # noqa: E731
        return Elements(self.evaluate(sources, result, how or evaluation("ideal"), spread), result)

    def value(self, *sources: Wide) -> Wide:
        """The float64 result for float64 arrays of one shape, whose last axis is the channels."""
        return self.of_arrays([Elements(source, FLOAT64) for source in sources], FLOAT64).stored

    @property
    def direction(self) -> str:
        """``forward`` or ``gradient``."""
        return "gradient" if self.makes_gradient else "forward"

    @property
    def is_initial_gradient(self) -> bool:
        """Whether it is a gradient that reads no gradient."""
        return self.makes_gradient and Role.GRADIENT not in self.roles

    @property
    def accumulates(self) -> bool:
        """Whether the result is a gradient of an image if all sources are; true of sums."""
        return False

    @property
    def is_clamped(self) -> bool:
        """Whether the result is clamped, which its gradient ignores, as MPS documents."""
        return self.bounds != UNBOUNDED


def size_text(size: Size) -> str:
    """A size as text: ``8x8x4``, with the number of images if it is not 1."""
    n, h, w, c = size
    return f"{w}x{h}x{c}" + (f" x{n} images" if n > 1 else "")


def spread_by_lane(image: MPSImage) -> Spread:
    """The spread for the slices of an image."""
    pixels = math.prod(image.shape[1:3])
    return lambda data: ChannelSlopes(by_lane(data.astype(np.float64)), pixels)


def spread_by_channel(index: Index, channels: int) -> Spread:
    """The spread for the elements at flat indices of an array of shape (..., channels)."""
    return lambda data: ChannelSlopes(data.astype(np.float64)[index % channels][np.newaxis], 1)


# ---- texts ----


def number_text(value: float) -> str:
    """A number in six digits."""
    return f"{value:.6g}"


def scaled_text(factor: float, name: str) -> str:
    """A name with a factor, unless that is 1."""
    return name if factor == 1 else f"{number_text(factor)} * {name}"


def sum_text(terms: Sequence[str]) -> str:
    """The terms added up, a negative one subtracted."""
    return " + ".join(terms).replace(" + -", " - ")
