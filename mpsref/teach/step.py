"""One step of an evaluated graph: its inputs, slope, incoming gradient and stored result, and their numbers as text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mpsref.arguments import checked
from mpsref.arrays import Index, Wide, meaning
from mpsref.display import printable
from mpsref.errors import ParameterError
from mpsref.graph.names import short_kind
from mpsref.image import MPSImage
from mpsref.neuron.descriptor import MPSNNNeuronDescriptor
from mpsref.neuron.stepwise import evaluation
from mpsref.operations import Operation, Role, WindowSum
from mpsref.operations.base import number_text
from mpsref.plan import Step as PlanStep
from mpsref.storage import FLOAT64, ChannelFormat, StorageFormat

__all__ = [
    "Product",
    "Step",
    "Window",
    "largest_ulps_text",
    "off_text",
    "place_text",
    "range_text",
    "single",
    "stored_text",
    "sum_text",
    "tell_apart",
    "title",
    "ulps_text",
]

MOST_SLOPES = 4
"""Slopes of pReLU that a formula shows."""

VISIBLE = 1e-6
"""Relative difference of numbers that differ in the digits that are printed, about."""

WIDEST = 110
"""Characters of a line with several terms."""


class Window:
    """Which elements of each image are traced: all, or one."""

    def __init__(self, place: tuple[int, int, int, int] | None) -> None:
        self.place = place

    def image(self, image: MPSImage) -> MPSImage:
        """The image, or all channels of its pixel, which pReLU's slopes need."""
        if self.place is None:
            return image
        n, y, x, _ = self.place
        slices = image._slices[n : n + 1, :, y : y + 1, x : x + 1]
        return MPSImage._from_slices(np.ascontiguousarray(slices), image.storage, image.feature_channels)

    def array(self, image: MPSImage) -> Wide:
        """The decoded elements of a cropped image."""
        values = meaning(image.to_array(), image.storage)
        return values if self.place is None else values[..., self.place[3] : self.place[3] + 1]


class Product(NamedTuple):
    """
    What a source element contributes to a sum.

    Attributes
    ----------
    place : tuple of int
        Image, y, x and channel in the source.
    x, factor : float
        Its value, and by what it is multiplied.
    """

    place: tuple[int, ...]
    x: float
    factor: float

    def __str__(self) -> str:
        return f"{place_text(self.place)}: {number_text(self.x)} * {number_text(self.factor)}"


class Step:
    """
    One step of a graph: a node with its inputs and its result.

    Attributes
    ----------
    name : str
        Name of the result.
    node : str
        The node's class.
    kind : str
        ``forward``, ``gradient``, ``window`` (a convolution, pooling, or the gradient of one), ``sum`` (an addition or
        subtraction), ``product`` (a multiplication), ``scale`` (the
        gradient of one of these: the incoming gradient times a number, or times the other source) or ``ones``.
    reads : tuple of str
        Names of its inputs, in the order of Apple's arguments: a gradient reads the incoming gradient, then the forward
        source.
    format : MPSImageFeatureChannelFormat
        How the result is stored.
    descriptor : MPSNNNeuronDescriptor or None
        The neuron and its parameters.
    operation : Operation
        The node's operation.
    is_backward : bool
        Whether the result is a gradient.
    """

    @checked
    def __init__(
        self,
        name: str,
        reads: tuple[str, ...],
        plan_step: PlanStep,
        images: tuple[Sequence[MPSImage], MPSImage],
        window: Window,
        *,
        is_backward: bool,
    ) -> None:
        self.name = name
        self.reads = reads
        self.is_backward = is_backward
        self.plan_step, self._window = plan_step, window
        self._inputs, self._result = images
        self.differing = ""
        """The parameters that tell the neuron from others of its type."""
        self.node = type(plan_step.node).__name__
        self.operation: Operation = plan_step.operation
        self.kind = self.operation.kind
        self.storage = self._result.storage
        self.format: ChannelFormat = self.storage.channel_format
        self.descriptor: MPSNNNeuronDescriptor | None = self.operation.descriptor

    @checked
    def within(self, window: Window) -> Step:
        """The same step for some elements."""
        inputs = [window.image(image) for image in self._inputs] if self.operation.is_pointwise else self._inputs
        images = inputs, window.image(self._result)
        step = Step(self.name, self.reads, self.plan_step, images, window, is_backward=self.is_backward)
        step.differing = self.differing
        return step

    @property
    def function(self) -> str:
        """The neuron or the operation in a word: ``TanH``."""
        return short_kind(self.plan_step.node)

    @property
    def symbol(self) -> str:
        """The neuron in formulas: ``TanH``, or where several of its type differ in parameters, ``TanH[a=2]``."""
        return self.function + self.differing

    @cached_property
    def sources(self) -> tuple[Wide, ...]:
        """
        Its inputs, decoded: float64 arrays of shape (N, H, W, C).

        For one element of a window those that feed it, of shape (count,).
        """
        if self.operation.is_pointwise or self._window.place is None:
            return tuple(map(self._window.array, self._inputs))
        sizes = [image.shape for image in self._inputs]
        feeding = self.operation.feeding(self._index, *sizes)
        return tuple(
            meaning(image.to_array(), image.storage).reshape(-1)[read[read >= 0]]
            for image, read in zip(self._inputs, feeding, strict=True)
        )

    @property
    def _index(self) -> Index:
        """The flat index of the one element."""
        assert self._window.place is not None
        size = self.operation.result_size(*(image.shape for image in self._inputs))
        return np.array([np.ravel_multi_index(self._window.place, size)])

    @property
    def places(self) -> tuple[tuple[int, ...], ...]:
        """For one element of a window: image, y, x and channel of what feeds it in the first source, by tap."""
        if self.operation.is_pointwise or self._window.place is None:
            return ()
        (read,) = self.operation.feeding(self._index, *(image.shape for image in self._inputs))[0]
        shape = self._inputs[0].shape
        return tuple(tuple(int(i) for i in np.unravel_index(place, shape)) for place in read[read >= 0].tolist())

    @cached_property
    def products(self) -> tuple[Product, ...]:
        """For one element of a sum over a window: what feeds it, in the order of the taps; else empty."""
        operation = self.operation
        if not isinstance(operation, WindowSum) or self._window.place is None:
            return ()
        sizes = [image.shape for image in self._inputs]
        (read,) = operation.feeding(self._index, *sizes)[0]
        (factors,) = operation.factors(self._index, *sizes)
        divisors = np.broadcast_to(operation.divisors(self._index, *sizes).reshape(-1), read.shape)
        weights = (factors / divisors)[read >= 0].tolist()
        return tuple(map(Product, self.places, self.sources[0].tolist(), weights))

    @property
    def source_shape(self) -> tuple[int, int, int, int]:
        """That of the whole first source."""
        return self._inputs[0].shape

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """That of the whole result."""
        return self._result.shape

    @cached_property
    def slope(self) -> Wide | None:
        """
        The factor of the incoming gradient, or a neuron's slope, in float64; None for sums, products and ones.

        At a kink it is the slope that the documented comparison chooses.
        """
        slope = self.operation.slope(*self._inputs)
        return None if slope is None else self.array(self.wide(slope))

    @property
    def upstream(self) -> Wide | None:
        """The incoming gradient, if there is one."""
        roles = self.operation.roles
        return self.sources[roles.index(Role.GRADIENT)] if Role.GRADIENT in roles else None

    @cached_property
    def value(self) -> Wide:
        """
        The result before storage, in float64: for a gradient the product `upstream` times `slope`.

        This is the documented function, whatever the mode of the graph.
        """
        image = self.wide(self.operation.run(*self._inputs, result=FLOAT64, how=evaluation("ideal")))
        return self.array(image if self.operation.is_pointwise else self._window.image(image))

    @cached_property
    def stored(self) -> Wide:
        """The stored result, in float64."""
        return self._window.array(self._result)

    @cached_property
    def rounding(self) -> Wide:
        """`stored` minus `value`; 0 where both are the same infinity or both NaN."""
        same = (self.stored == self.value) | (np.isnan(self.stored) & np.isnan(self.value))
        with np.errstate(all="ignore"):
            return np.where(same, 0.0, self.stored - self.value)

    @cached_property
    def rounding_ulp(self) -> Wide:
        """`rounding` in units in the last place of the format at `value`."""
        with np.errstate(all="ignore"):
            ulps: Wide = self.rounding / ulp_at(self.value, self.storage)
        return ulps

    @property
    def images(self) -> Sequence[MPSImage]:
        """Its inputs as images."""
        return self._inputs

    @checked
    def array(self, image: MPSImage) -> Wide:
        """The decoded numbers of an image like its result."""
        return self._window.array(image)

    @checked
    def wide(self, slices: npt.NDArray[Any]) -> MPSImage:
        """An image like its result, of float64 slices."""
        return MPSImage._from_slices(slices, FLOAT64, self._result.feature_channels)

    @property
    def rule(self) -> str:
        """The operation with names: ``dx = dh * TanH'(x)``."""
        return f"{self.name} = {self.expression(self.reads)}"

    @checked
    def expression(self, read: Sequence[str]) -> str:
        """The operation with these texts for its inputs."""
        if len(read) != len(self.reads):
            raise ParameterError(f"read has {len(read)} texts: give {len(self.reads)}")
        return self.operation.text(read, self.symbol)

    @property
    def rounding_is_visible(self) -> bool:
        """Whether a stored number differs from the one before storage in the digits that are printed."""
        if self.stored.size > 1:
            return bool((np.abs(self.rounding) > VISIBLE * np.abs(self.value)).any())
        return number_text(single(self.stored)) != number_text(single(self.value))

    @property
    def is_clamped(self) -> bool:
        """Whether the result is clamped."""
        return self.operation.is_clamped

    @property
    def is_whole(self) -> bool:
        """Whether the result is no product of one element's slope: it is clamped, or of a window."""
        return self.is_clamped or not self.operation.is_pointwise

    def __repr__(self) -> str:
        return f"<Step {self.rule!r}>"


def ulp_at(values: Wide, storage: StorageFormat) -> Wide:
    """The distance between neighbours of the format at these values."""
    if storage.unorm_max:
        return np.full_like(values, 1.0 / storage.unorm_max)
    facts = storage.limits
    size = np.clip(np.nan_to_num(np.abs(values), nan=1.0), float(facts.smallest_normal), float(facts.max))
    ulps: Wide = np.ldexp(1.0, np.frexp(size)[1] - 1 - int(facts.nmant))
    return ulps


def sum_text(terms: Iterable[str], indent: str = "") -> str:
    """A sum of terms, one on each line if they do not fit on one."""
    terms = [printable(term) for term in terms]
    text = " + ".join(terms)
    if len(indent) + len(text) > WIDEST:
        return f"\n{indent}+ ".join(terms).replace(f"\n{indent}+ -", f"\n{indent}- ")
    return text.replace(" + -", " - ")


def single(numbers: Wide) -> float:
    """The one element of an array."""
    return float(numbers.reshape(-1)[0])


def ulp_text(ulps: float) -> str:
    """A distance in ULP."""
    if ulps == 0:
        return "exact"
    return f"{ulps:.2g} ULP" if ulps >= 0.001 or np.isnan(ulps) else "below 0.001 ULP"


def range_text(numbers: Wide) -> str:
    """The smallest and the largest number, and whether there is NaN."""
    known = numbers[~np.isnan(numbers)]
    if not known.size:
        return "nan"
    low, high = float(known.min()), float(known.max())
    text = number_text(low) if low == high else f"{number_text(low)} to {number_text(high)}"
    return text if known.size == numbers.size else f"{text}, nan"


def place_text(place: tuple[int, ...]) -> str:
    """The place of an element."""
    image, y, x, channel = place
    return f"image {image}, y {y}, x {x}, channel {channel}"


def tell_apart(steps: Iterable[Step]) -> None:
    """Give neurons of one type different symbols if their parameters differ."""
    by_function: dict[str, list[tuple[Step, dict[str, str]]]] = {}
    for step in steps:
        if (d := step.descriptor) is not None:
            facts = {name: number_text(value) for name, value in d.parameters.items()}
            if d.data is not None:
                more = ", ..." if len(d.data) > MOST_SLOPES else ""
                facts["data"] = ", ".join(map(number_text, d.data[:MOST_SLOPES].tolist())) + more
            by_function.setdefault(step.function, []).append((step, facts))
    for group in by_function.values():
        names = [name for name in group[0][1] if len({facts[name] for _, facts in group}) > 1]
        for step, facts in group:
            step.differing = f"[{', '.join(f'{name}={facts[name]}' for name in names)}]" if names else ""


def stored_text(step: Step) -> str:
    """The stored result of the one element."""
    return number_text(single(step.stored))


def off_text(step: Step, value: float, lost: str = "") -> str:
    """The distance of the stored number from a value; or what was lost."""
    stored = single(step.stored)
    if lost:
        return lost
    if stored == value or (np.isnan(stored) and np.isnan(value)):
        return "exact"
    if (clamped := _clamped(step, value)) is not None:
        return clamped
    # Python's floats subtract without a warning.
    difference = stored - value
    ulps = abs(difference) / single(ulp_at(np.array([value]), step.storage))
    return f"{difference:+.2g}, {ulp_text(ulps)}{_subnormal(step, stored)}"


def _clamped(step: Step, value: float) -> str | None:
    """The text where a number is not rounded, but outside the range of the format."""
    if not step.storage.unorm_max or 0 <= value <= 1:
        return None
    return "nan becomes 0" if np.isnan(value) else "clamped"


def ulps_text(step: Step, lost: str = "") -> str:
    """How far storing moved the one element, in ULP; or what was lost."""
    if lost:
        return lost
    ulps = single(step.rounding_ulp)
    if ulps == 0:
        return "exact"
    if (clamped := _clamped(step, single(step.value))) is not None:
        return clamped
    text = ulp_text(abs(ulps)) + _subnormal(step, single(step.stored))
    return text if text.startswith("below") else ("-" if ulps < 0 else "+") + text


def _subnormal(step: Step, stored: float) -> str:
    """The note that a number has fewer digits than others of its format."""
    is_float = not step.storage.unorm_max and step.storage is not FLOAT64
    return ", subnormal" if is_float and 0 < abs(stored) < np.finfo(step.storage.dtype).smallest_normal else ""


def largest_ulps_text(step: Step, lost: str = "") -> str:
    """How far storing moved any element at most, in ULP, but for those that were clamped; and what was lost."""
    ulps = np.abs(step.rounding_ulp)
    inside = (step.value >= 0) & (step.value <= 1) | (not step.storage.unorm_max) | (ulps == 0)
    # What overflowed is counted with what was lost.
    largest = float(np.max(ulps, where=np.isfinite(ulps) & inside, initial=0.0))
    moved = [] if lost and largest == 0 else [ulp_text(largest)]
    return ", ".join([*moved, *([] if inside.all() else ["clamped"]), *([lost] if lost else [])])


def title(step: Step) -> str:
    """The operation in a word or two."""
    is_gradient = Role.GRADIENT in step.operation.roles
    return f"gradient of {step.function.removesuffix('Gradient')}" if is_gradient else step.function
