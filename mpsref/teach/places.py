"""
Where one element is in each image of a graph.

Images of a pointwise step, and an image and its gradient, have it at the same place. A window leads to the element of
its source that counts most, the largest or the middle one, and from there to the result that it counts most for.
"""

from __future__ import annotations

import operator
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np

from mpsref.arrays import Index, Wide, meaning
from mpsref.display import printable
from mpsref.errors import ImageError, shown
from mpsref.operations import AverageGradient, ConvolutionGradient, Maximum, MaximumGradient, Role
from mpsref.operations.window import flat_index
from mpsref.teach.step import Step

__all__ = ["Place", "followed", "place_or_error"]

Place: TypeAlias = tuple[int, int, int, int]
"""Image, y, x and channel."""

Lead: TypeAlias = Callable[[Place], Place | None]
"""From an element of an image to one of another."""


def place_or_error(numbers: Sequence[int], shape: Place, of: str) -> Place:
    """
    Image, y, x and channel, as integers inside an image's shape.

    Raises
    ------
    ImageError
        One is no integer, or outside.
    """
    place = []
    for name, value, most in zip(("image", "y", "x", "channel"), numbers, shape, strict=True):
        try:
            index = operator.index(value)
        except Exception:  # noqa: BLE001  somebody's object may raise anything
            raise ImageError(f"{name} is {shown(value)}: give an integer") from None
        if not 0 <= index < most:
            raise ImageError(f"{name} is {index}: it must lie in range({most}), for image {printable(of)!r}")
        place.append(index)
    n, y, x, channel = place
    return n, y, x, channel


def followed(
    steps: Sequence[Step], shapes: Mapping[str, Place], gradients: Mapping[str, str], name: str, place: Place
) -> dict[str, Place]:
    """
    The place of each image that has one.

    Parameters
    ----------
    steps : sequence of Step
        Of whole images, in an order of evaluation.
    shapes : dict of str to tuple of int
        Those of all images, by name.
    gradients : dict of str to str
        The gradients of images.
    name, place : str, tuple of int
        The image that one starts from, and the element of it.
    """
    alike, leads = _ways(steps, shapes, gradients)
    found: dict[str, Place] = {}
    todo: deque[str] = deque()

    def settle(image: str, at: Place) -> None:
        for one in _joined(image, alike):
            if one not in found:
                found[one] = at
                todo.append(one)

    apart = {each: [*alike[each], *(other for other, _ in leads[each])] for each in shapes}
    joined = _joined(name, apart)
    others = [each for each in shapes if each not in joined]
    # What has nothing to do with it has the same place, if it has one.
    for start in (name, *others):
        if start not in found and all(i < size for i, size in zip(place, shapes[start], strict=True)):
            settle(start, place)
        while todo:
            image = todo.popleft()
            for other, lead in leads[image]:
                if other not in found and (at := lead(found[image])) is not None:
                    settle(other, at)
    return found


def _joined(start: str, edges: Mapping[str, Sequence[str]]) -> dict[str, None]:
    """What edges join to something, which is the first."""
    joined, todo = {start: None}, [start]
    while todo:
        new = [each for each in edges[todo.pop()] if each not in joined]
        joined |= dict.fromkeys(new)
        todo += new
    return joined


def _ways(
    steps: Sequence[Step], shapes: Mapping[str, Place], gradients: Mapping[str, str]
) -> tuple[dict[str, list[str]], dict[str, list[tuple[str, Lead]]]]:
    """For each image those that have an element at the same place, and where windows lead to."""
    alike: dict[str, list[str]] = {each: [] for each in shapes}
    leads: dict[str, list[tuple[str, Lead]]] = {each: [] for each in shapes}
    pairs = list(gradients.items())
    for step in steps:
        is_forward = not (step.operation.is_pointwise or step.operation.makes_gradient)
        for read, role in zip(step.reads, step.operation.roles, strict=True):
            if is_forward or (role is Role.GRADIENT and not step.operation.is_pointwise):
                leads[step.name].append((read, _read(step)))
                leads[read].append((step.name, _read_by(step) if is_forward else _given(step)))
            else:
                pairs.append((step.name, read))
    for one, other in pairs:
        if shapes[one] == shapes[other]:
            alike[one].append(other)
            alike[other].append(one)
    return alike, leads


def _read(step: Step) -> Lead:
    """From the result of a window to what it reads."""
    sizes = [image.shape for image in step.images]

    def lead(place: Place) -> Place | None:
        read = step.operation.feeding(_flat(place, step.shape), *sizes)[0][0]
        if isinstance(step.operation, Maximum):
            read = read[read >= 0]
            read = read[[int(np.argmax(_numbers(step).reshape(-1)[read]))]] if read.size else read
        return _middle(read, sizes[0], place)

    return lead


def _read_by(step: Step) -> Lead:
    """From the source of a window to a result."""
    source = step.source_shape

    def lead(place: Place) -> Place | None:
        (gradient,) = step.operation.gradients()
        made = gradient.feeding(_flat(place, source), step.shape, source)[0][0]
        if isinstance(gradient, MaximumGradient):
            made = made[made >= 0]
            of_it = made[gradient.places(_numbers(step))[made] == _flat(place, source)]
            made = of_it if of_it.size else made
        return _middle(made, step.shape, place)

    return lead


def _given(step: Step) -> Lead:
    """From an incoming gradient to an element of the gradient that it goes to."""
    operation, shape, incoming = step.operation, step.shape, step.source_shape

    def lead(place: Place) -> Place | None:
        n, y, x, c = (np.array([i]) for i in place)
        if isinstance(operation, MaximumGradient):
            made = operation.places(_numbers(step))[_flat(place, incoming)]
        else:
            assert isinstance(operation, AverageGradient | ConvolutionGradient)
            if isinstance(operation, ConvolutionGradient):
                groups = operation.weights.groups
                c = c // (incoming[3] // groups) * (shape[3] // groups)
            made = flat_index(operation.sliding.taps(y, x, shape), n, c[:, np.newaxis, np.newaxis], shape)[0]
        return _middle(made, shape, place)

    return lead


def _numbers(step: Step) -> Wide:
    """Those among which a window looks for the largest."""
    x = step.images[-1]
    return meaning(x.to_array(), x.storage)


def _flat(place: Place, shape: Place) -> Index:
    return np.array([np.ravel_multi_index(place, shape)])


def _middle(index: Index, shape: Place, place: Place) -> Place | None:
    """The tap nearest to the middle, of those that are not -1: in the channel of a place, or in the first."""
    (taps,) = np.nonzero(index >= 0)
    if not taps.size:
        return None
    channels = index[taps] % shape[3]
    taps = taps[channels == (place[3] if place[3] in channels else channels[0])]
    nearest = taps[np.argmin(np.abs(taps - (index.size - 1) / 2))]
    n, y, x, c = (int(i) for i in np.unravel_index(index[nearest], shape))
    return n, y, x, c
