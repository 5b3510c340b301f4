"""What an operation says of itself: the base of the classes in this package."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
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
    "size_of",
    "size_text",
    "spread_by_channel",
    "spread_by_lane",
    "sum_text",
]

Size: TypeAlias = tuple[int, int, int, int]
"""Images, height, width, feature channels."""

Spread: TypeAlias = Callable[[npt.NDArray[np.float32]], ChannelSlopes]
"""Lays one number for each feature channel along the elements that an operation reads."""


UNBOUNDED = (-math.inf, math.inf)

_T = TypeVar("_T")


class Role(Enum):
    """What an operation reads a source for."""

    INPUT = "input"
    """Its values, as the forward reads them."""
    GRADIENT = "incoming gradient"
    """Its values, as the gradient of the forward result."""
    SIZE = "size"
    """Its size alone."""


class Operation(ABC):
    """
    What a node does to images. A value: equal operations compare equal.

    The executor, the verdict, traces, drawings, files, gradient checks and strategies ask it; none of them knows which
    operations there are.

    Attributes
    ----------
    kind : str
        ``forward``, ``gradient``, ``sum``, ``product``, ``scale`` or ``ones``: how people see it, see
        `mpsref.teach.Step`.
    roles : tuple of Role
        What each source is read for.
    makes_gradient : bool
        Whether the result is a gradient.
    is_pointwise : bool
        Whether each element of the result depends on the elements at its own place alone. Where not, `feeding` tells on
        which.
    descriptor : MPSNNNeuronDescriptor or None
        The neuron, of the operations that have one.
    bounds : tuple of two floats
        Between which the result is kept; infinite where it is not.
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
        The size of the result of sources of these sizes.

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
        Which elements of the sources feed some elements of the result.

        Parameters
        ----------
        index : ndarray of int, shape (n,)
            Flat indices of elements of the result, of shape (N, H, W, C).
        *sources : Size
            The sizes of the sources.

        Returns
        -------
        tuple of ndarray
            For each source flat indices: of shape (n,) where each element feeds the one at its own place; else of shape
            (n, count), negative where there is none.
        """
        return (index,) * len(sources)

    # ---- values ----

    @abstractmethod
    def evaluate(
        self, sources: Sequence[Elements], result: StorageFormat, how: Evaluation, spread: Spread, workers: int = 1
    ) -> Stored:
        """
        The result, stored, for elements that stand in the same order in each source.

        Parameters
        ----------
        sources : sequence of Elements
            What is read, all of one shape.
        result : StorageFormat
            How the result is stored.
        how : Evaluation
            The mode: exact and rounded once, or step by step.
        spread : callable
            Lays numbers by channel along the elements.
        workers : int
            How many threads.
        """

    def run(self, *sources: MPSImage, result: StorageFormat, how: Evaluation, workers: int = 1) -> Stored:
        """The slices of the result, for images that fit together."""
        elements = [Elements(image.slices, image.storage) for image in sources]
        return self.evaluate(elements, result, how, spread_by_lane(sources[0]), workers)

    def gradients(self) -> tuple[Operation, ...]:
        """For each source the operation that is its gradient; none for an operation that has no gradient."""
        return ()

    # ---- as a formula ----

    @abstractmethod
    def stepwise(self, f: Any, *sources: Any, function: Callable[[Any], Any] | None = None) -> Any:
        """
        The documented formula, operation by operation, on numbers of any kind: float32, ranges, symbols.

        Parameters
        ----------
        f : Arithmetic
            What the numbers' operators do not do.
        *sources
            Of the sources whose values are read.
        function : callable, optional
            A neuron's value or slope at its input, by one of its formulas; there for every operation with a descriptor.
        """

    def slope(self, *sources: MPSImage) -> npt.NDArray[np.float64] | None:
        """What the incoming gradient is multiplied by, or a neuron's slope, as float64 slices; None for all else."""
        return None

    def slope_text(self, names: Sequence[str], symbol: str) -> str:
        """The slope as text: ``TanH'(x)``; empty where it is 1."""
        return ""

    @abstractmethod
    def text(self, names: Sequence[str], symbol: str) -> str:
        """
        The formula as people read it: ``dy * TanH'(x)``.

        Parameters
        ----------
        names : sequence of str
            Of the sources.
        symbol : str
            The neuron's name in formulas.
        """

    def facts(self) -> dict[str, Any]:
        """What the script of the page that explains a graph needs, besides a neuron's parameters."""
        return {}

    # ---- pieces ----

    def kinks(self) -> tuple[float, ...]:
        """Where the slope jumps, of `argument`."""
        return ()

    def argument(self, sources: Sequence[Wide]) -> Wide:
        """What the kinks are of, in float64: the one source of a neuron, or a sum before it is clamped."""
        return sources[0]

    def at_argument(self, argument: Wide) -> Wide:
        """The result for values of `argument`, in float64."""
        return argument

    # ---- what else it might be ----

    def with_parameters_exchanged(self) -> Iterator[tuple[str, Operation]]:
        """The same with parameters in each other's place, each with a text that says which."""
        return iter(())

    def with_parameters_left_out(self) -> Iterator[tuple[str, Operation]]:
        """The same with a parameter that has no effect, each with a text that says which."""
        return iter(())

    # ---- what follows ----

    def values_of(self, sources: Sequence[_T]) -> list[_T]:
        """Of what belongs to each source, that of the sources whose values are read."""
        return [source for source, role in zip(sources, self.roles, strict=True) if role is not Role.SIZE]

    def value(self, *sources: Wide) -> Wide:
        """The result in float64, of float64 arrays of one shape, whose last axis counts the channels."""
        elements = [Elements(source, FLOAT64) for source in sources]
        spread: Spread = lambda data: ChannelSlopes(data.astype(np.float64)[np.newaxis], 1)  # noqa: E731
        return self.evaluate(elements, FLOAT64, evaluation("ideal"), spread)

    @property
    def direction(self) -> str:
        """``forward`` or ``gradient``."""
        return "gradient" if self.makes_gradient else "forward"

    @property
    def is_initial_gradient(self) -> bool:
        """Whether gradients begin here: it makes one out of none."""
        return self.makes_gradient and Role.GRADIENT not in self.roles

    @property
    def accumulates(self) -> bool:
        """Whether the result is a gradient of an image if all sources are: sums, which fan-out needs."""
        return False

    @property
    def is_clamped(self) -> bool:
        """Whether the result is kept between bounds, which its gradient ignores, as MPS documents."""
        return self.bounds != UNBOUNDED


def size_of(image: MPSImage) -> Size:
    """The size of an image."""
    return image.shape


def size_text(size: Size) -> str:
    """A size as people read it: ``8x8x4``, and the number of images if it is not 1."""
    n, h, w, c = size
    return f"{w}x{h}x{c}" + (f" x{n} images" if n > 1 else "")


def spread_by_lane(image: MPSImage) -> Spread:
    """For the slices of an image."""
    pixels = math.prod(image.shape[1:3])
    return lambda data: ChannelSlopes(by_lane(data.astype(np.float64)), pixels)


def spread_by_channel(index: Index, channels: int) -> Spread:
    """For the elements with these flat indices of an array of shape (..., channels)."""
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
