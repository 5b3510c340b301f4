"""Faults of the gradients of weights and biases, which are sums over the images of a batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from mpsref.arrays import Elements, Wide
from mpsref.verify.case import Case
from mpsref.verify.hypotheses.base import MANY, layer_hypothesis
from mpsref.verify.hypotheses.layers import moves_of, ratios
from mpsref.verify.hypotheses.precision import BFLOAT16, TF32, Rounding
from mpsref.verify.layer import Layer, StateLayer, Variants


def _scaled(layer: Layer, factor: float) -> Layer:
    return replace(layer, values=(factor * layer.value, abs(factor) * layer.radius))


@layer_hypothesis("mean over the batch", "The sum over the images was divided by their number.")
def batch_mean(layer: Layer, case: Case) -> Variants:
    if len(layer.sources[0]) > 1:
        yield "", partial(_scaled, layer, 1 / len(layer.sources[0]))


@layer_hypothesis("mean over the pixels", "The sum was divided by the number of its terms.")
def pixel_mean(layer: Layer, case: Case) -> Variants:
    n, h, w, _ = layer.sources[0].shape
    if h * w > 1:
        yield "of one image", partial(_scaled, layer, 1 / (h * w))
        yield "of all images", partial(_scaled, layer, 1 / (n * h * w))


def _some(layer: Layer, images: slice) -> Callable[[], Layer]:
    return partial(replace, layer, sources=tuple(source[images] for source in layer.sources))


@layer_hypothesis("one image only", "The gradient of a single image was stored, not the sum over the batch.")
def one_image(layer: Layer, case: Case) -> Variants:
    count = len(layer.sources[0])
    if count > 1:
        for i in sorted({0, count - 1}):
            yield f"image {i}", _some(layer, slice(i, i + 1))


@layer_hypothesis("an image counted twice", "The gradient of one image was added to the sum over the batch once more.")
def image_twice(layer: Layer, case: Case) -> Variants:
    count = len(layer.sources[0])

    def twice(i: int) -> Layer:
        sources = (np.concatenate([source, source[i : i + 1]]) for source in layer.sources)
        return replace(layer, sources=tuple(sources))

    for i in sorted({0, count - 1}) if count > 1 else ():
        yield f"image {i}", partial(twice, i)


@layer_hypothesis("terms left out", "A loop over images, rows or columns ends too early or begins too late.")
def terms_left_out(layer: Layer, case: Case) -> Variants:
    g, x = layer.sources
    if len(g) > 2:
        yield "the last image", _some(layer, slice(len(g) - 1))
        yield "the first image", _some(layer, slice(1, None))

    def cut(axis: int, at: int) -> Layer:
        kept = g.copy()
        kept[(slice(None),) * axis + (at,)] = 0
        return replace(layer, sources=(kept, x))

    for axis, name in ((1, "row"), (2, "column")):
        if g.shape[axis] > 1:
            yield f"the last {name} of the incoming gradient", partial(cut, axis, -1)
            yield f"the first {name} of the incoming gradient", partial(cut, axis, 0)


@layer_hypothesis("another image's source", "The incoming gradient of an image meets the source of another one.")
def another_source(layer: Layer, case: Case) -> Variants:
    g, x = layer.sources
    if len(g) > 1:
        orders = {"the next": np.roll(x, -1, axis=0), "the one before": np.roll(x, 1, axis=0),
                  "the first": np.broadcast_to(x[:1], x.shape), "in the opposite order": x[::-1]}  # fmt: skip
        for detail, other in orders.items():
            yield detail, partial(replace, layer, sources=(g, other))


@layer_hypothesis(
    "accumulated over steps",
    "The gradient of former steps was not cleared; found where it equals this one, since a recording has one step.",
)
def accumulated(layer: Layer, case: Case) -> Variants:
    for steps in (2, 3, 4):
        yield f"{steps} of them", partial(_scaled, layer, steps)


@layer_hypothesis(
    "weights in the gradient",
    "A part of the weights was added, as decay does, or the new weights were stored.",
    fitted=True,
)
def weights_added(layer: Layer, case: Case) -> Variants:
    if not isinstance(layer, StateLayer) or case.bad_sample.size < MANY:
        return
    weights = layer.bias if layer.is_bias else layer.weights
    if weights is None or weights.size != case.got.size:
        return
    weights = weights.reshape(case.got.shape)
    got, want = (Elements(array, case.result).values() for array in (case.got, case.want))

    def fitted(left: Wide, base: Wide) -> float:
        ratio = ratios(left, base, case)
        return float(np.median(ratio)) if ratio.size else 0.0

    decay, rate = fitted(got - want, weights), fitted(got - weights, want)
    for detail, own, factor in (
        (f"{decay:.4g} of them was added", 1.0, decay),
        (f"updated at the rate {-rate:.4g}", rate, 1.0),
    ):
        if own and factor:
            values = own * layer.value + factor * weights
            # As far as the number is known that was fitted.
            radius = abs(own) * layer.radius + 1e-4 * np.abs(want if own != 1 else weights) * max(abs(decay), abs(rate))
            yield detail, partial(replace, layer, values=(values, radius))


@layer_hypothesis("gradient of weights flipped", "The window of the gradients was rotated by 180 degrees.")
def state_flipped(layer: Layer, case: Case) -> Variants:
    if max(case.got.shape[1:3]) > 1:
        yield "", _rearranged(layer, lambda array: array[:, ::-1, ::-1])


@layer_hypothesis("gradient of weights in another layout", "The gradients were stored in another order of their axes.")
def state_layout(layer: Layer, case: Case) -> Variants:
    shape = case.got.shape
    if shape[:3] != (1, 1, 1):
        yield "OIHW", _rearranged(layer, lambda array: array.transpose(0, 3, 1, 2).reshape(shape))
        yield "HWIO", _rearranged(layer, lambda array: array.transpose(1, 2, 3, 0).reshape(shape))
    if shape[1] == shape[2] > 1:
        yield "x and y exchanged", _rearranged(layer, lambda array: array.swapaxes(1, 2))
    if min(shape[1:3]) > 1:
        yield "rows of the window from bottom to top", _rearranged(layer, lambda array: array[:, ::-1])
        yield "columns of the window from right to left", _rearranged(layer, lambda array: array[:, :, ::-1])
    for axis, name in ((0, "result"), (3, "channels" if shape[:3] == (1, 1, 1) else "source")):
        if shape[axis] > 1:
            of = "channels" if name == "channels" else f"channels of the {name}"
            yield f"the {of} in the opposite order", _rearranged(layer, partial(np.flip, axis=axis))
            for step, place in ((-1, "next"), (1, "one before")):
                yield (
                    f"those of the {place} among the {of}",
                    _rearranged(layer, partial(np.roll, shift=step, axis=axis)),
                )


def _rearranged(layer: Layer, move: Callable[[Wide], Wide]) -> Callable[[], Layer]:
    return lambda: replace(layer, values=(move(layer.value), move(np.asarray(layer.radius))))


@layer_hypothesis("window in another place", "The first window begins a pixel off.")
def state_moved(layer: Layer, case: Case) -> Variants:
    if case.got.shape[:3] != (1, 1, 1):
        yield from moves_of(layer)


def _rounded(layer: Layer, roundings: dict[str, Rounding]) -> Variants:
    for detail, rounding in roundings.items():
        short = tuple(rounding(source) for source in layer.sources)
        if not all(map(np.array_equal, short, layer.sources)):
            yield detail, partial(replace, layer, sources=short)


@layer_hypothesis("inputs rounded to TF32", "Both sources were rounded to 10 bits behind the point.")
def state_in_tf32(layer: Layer, case: Case) -> Variants:
    yield from _rounded(layer, TF32)


@layer_hypothesis("inputs rounded to bfloat16", "Both sources were rounded to 7 bits behind the point.")
def state_in_bfloat16(layer: Layer, case: Case) -> Variants:
    yield from _rounded(layer, BFLOAT16)
