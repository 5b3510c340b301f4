"""Faults of the gradients of weights and biases; the most specific first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from mpsref.arrays import Wide, meaning
from mpsref.verify.layer_faults import Guess, LayerCase, layer_hypothesis
from mpsref.verify.layer_hypotheses import UNIT, displaced, displacements, shortened

__all__ = ["STATE_HYPOTHESES", "STATE_PRECISIONS"]

NOT_ONE = 2.0**-7
"""A factor differs from 1 by more than this; less may be an inaccuracy."""


def _state(
    case: LayerCase, detail: str, gradient: Wide | None = None, x: Wide | None = None, operation: Any = None
) -> Guess:
    """What other sources or another window give."""
    operation = case.operation if operation is None else operation
    gradient, x = (own if given is None else given for own, given in zip(case.sources, (gradient, x), strict=True))

    def sums(a: Wide, b: Wide) -> Wide:
        total = a.sum(axis=(0, 1, 2)) if case.got.shape[:3] == (1, 1, 1) else operation.correlated(a, b)
        return np.asarray(total).reshape(case.got.shape)

    count = int(np.prod(gradient.shape[:3]))
    return Guess(detail, sums(gradient, x), (count + 1) * UNIT * sums(np.abs(gradient), np.abs(x)))


def _scaled(guess: Guess, factor: float) -> Guess:
    return replace(guess, value=guess.value * factor, radius=guess.radius * factor)


@layer_hypothesis("mean over the batch", "The sum over the images was divided by their number.")
def batch_mean(case: LayerCase) -> Iterator[Guess]:
    if len(case.sources[0]) > 1:
        yield _scaled(_state(case, ""), 1 / len(case.sources[0]))


@layer_hypothesis("mean over the pixels", "The sum was divided by the number of its terms.")
def pixel_mean(case: LayerCase) -> Iterator[Guess]:
    n, h, w, _ = case.sources[0].shape
    if h * w > 1:
        yield _scaled(_state(case, "of one image"), 1 / (h * w))
        yield _scaled(_state(case, "of all images"), 1 / (n * h * w))


@layer_hypothesis("one image only", "The gradient of a single image was stored, not the sum over the batch.")
def one_image(case: LayerCase) -> Iterator[Guess]:
    gradient, x = case.sources
    if len(gradient) > 1:
        for i in sorted({0, len(gradient) - 1}):
            yield _state(case, f"image {i}", gradient[i : i + 1], x[i : i + 1])


@layer_hypothesis("an image counted twice", "The gradient of one image was added to the sum over the batch once more.")
def image_twice(case: LayerCase) -> Iterator[Guess]:
    gradient, x = case.sources
    if len(gradient) > 1:
        whole = _state(case, "")
        for i in sorted({0, len(gradient) - 1}):
            one = _state(case, f"image {i}", gradient[i : i + 1], x[i : i + 1])
            yield replace(one, value=whole.value + one.value, radius=whole.radius + one.radius)


@layer_hypothesis(
    "accumulated over steps",
    "The gradient of former steps was not cleared; found where it equals this one, since a recording has one step.",
)
def accumulated(case: LayerCase) -> Iterator[Guess]:
    for steps in (2, 3, 4):
        yield _scaled(_state(case, f"{steps} of them"), steps)


@layer_hypothesis(
    "multiplied by a number", "Every element has the same factor, such as a scale of the loss that was not taken out."
)
def state_scaled(case: LayerCase) -> Iterator[Guess]:
    guess = _state(case, "")
    ratios = (meaning(case.got, case.result) / guess.value)[case.bad]
    ratios = ratios[np.isfinite(ratios) & (ratios != 0)]
    factor = float(np.median(ratios)) if ratios.size else 1.0
    if abs(factor - 1) > NOT_ONE:
        yield _scaled(replace(guess, detail=f"by {factor:.6g}"), factor)


@layer_hypothesis("sign flipped", "The update was stored, which is subtracted.")
def state_negated(case: LayerCase) -> Iterator[Guess]:
    guess = _state(case, "")
    yield replace(guess, value=-guess.value)


@layer_hypothesis("gradient of weights flipped", "The window of the gradients was rotated by 180 degrees.")
def state_flipped(case: LayerCase) -> Iterator[Guess]:
    yield _rearranged(case, "", lambda array: array[:, ::-1, ::-1])


@layer_hypothesis("gradient of weights in another layout", "The gradients were stored in another order of their axes.")
def state_layout(case: LayerCase) -> Iterator[Guess]:
    shape = case.got.shape
    yield _rearranged(case, "OIHW", lambda array: array.transpose(0, 3, 1, 2).reshape(shape))
    yield _rearranged(case, "HWIO", lambda array: array.transpose(1, 2, 3, 0).reshape(shape))
    if shape[1] == shape[2]:
        yield _rearranged(case, "x and y exchanged", lambda array: array.swapaxes(1, 2))


def _rearranged(case: LayerCase, detail: str, move: Any) -> Guess:
    guess = _state(case, detail)
    return replace(guess, value=move(guess.value), radius=move(np.asarray(guess.radius)))


@layer_hypothesis("window in another place", "The first window begins a pixel off.")
def state_moved(case: LayerCase) -> Iterator[Guess]:
    if case.got.shape[:3] != (1, 1, 1):
        for dy, dx, detail in displacements(case):
            yield _state(case, detail, operation=displaced(case, dy, dx))


@layer_hypothesis("inputs rounded to TF32", "Both sources were rounded to 10 bits behind the point.")
def state_in_tf32(case: LayerCase) -> Iterator[Guess]:
    yield from _state_rounded(case, 10)


@layer_hypothesis("inputs rounded to bfloat16", "Both sources were rounded to 7 bits behind the point.")
def state_in_bfloat16(case: LayerCase) -> Iterator[Guess]:
    yield from _state_rounded(case, 7)


def _state_rounded(case: LayerCase, bits: int) -> Iterator[Guess]:
    for truncated in (False, True):
        short = [shortened(source, bits, truncated=truncated) for source in case.sources]
        if not all(map(np.array_equal, short, case.sources)):
            yield _state(case, "truncated" if truncated else "to nearest", *short)


STATE_HYPOTHESES = (
    batch_mean,
    pixel_mean,
    one_image,
    image_twice,
    accumulated,
    state_negated,
    state_flipped,
    state_layout,
    state_moved,
    state_in_tf32,
    state_in_bfloat16,
    state_scaled,
)
"""Every fault of the gradients of weights and biases that is tried."""

STATE_PRECISIONS = (state_in_tf32, state_in_bfloat16)
"""Those that a note may name."""
