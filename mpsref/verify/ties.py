"""
Max pooling's gradient where a window has several largest elements: a device may choose any one of them.

Where windows do not overlap, exactly one of the largest has the gradient, the others none. Where they do, a device has
a rule, such as the first by rows; else each element has the sum of some of its windows, and nothing is lost or gained
in a plane.
"""

from __future__ import annotations

from itertools import product

import numpy as np

from mpsref.arrays import Mask, Stored, Wide, meaning
from mpsref.enums import MPSImageEdgeMode
from mpsref.operations import Maximum, MaximumGradient
from mpsref.operations.window import size_of
from mpsref.storage import StorageFormat
from mpsref.verify.models import Model

__all__ = ["wrong_ties"]

ERROR = 16
"""More than half an ULP, relative to the sum of magnitudes, that a sum of a window's gradients is off by."""

MOST_SUBSETS = 12
"""Windows of an element whose subsets are tried."""


@np.errstate(all="ignore")
def wrong_ties(
    operation: MaximumGradient, gradient: Wide, x: Wide, got: Stored, storage: StorageFormat, model: Model
) -> Mask:
    """
    Which elements cannot be what a device makes that chooses one of the largest elements of each window.

    Parameters
    ----------
    operation : MaximumGradient
        The windows.
    gradient, x : ndarray
        The incoming gradient and the forward source.
    got : ndarray
        What the device stored.
    storage : StorageFormat
        How.
    model : Model
        What the device promises: numbers that it rounds to the same are as large, and so are subnormals that it may
        take for zero.
    """
    source = size_of(x)
    flushed = model.smallest[0] if model.flushes else 0.0
    x = model.nearest(x)
    x = np.where(np.abs(x) < flushed, 0.0, x)
    largest = Maximum(operation.sliding).plain([x])
    read = _taps(operation, largest.size, x)
    # For each window and tap whether it is among the largest; the index of the element, -1 outside.
    is_largest = (read >= 0) & (x.reshape(-1)[np.maximum(read, 0)] == largest.reshape(-1)[:, np.newaxis])
    tied = np.count_nonzero(is_largest, axis=1) > 1
    wrong = np.zeros(x.size, np.bool_)
    if not tied.any():
        return wrong.reshape(x.shape)
    zero = operation.sliding.placed(source).edge_mode == MPSImageEdgeMode.zero
    lost = (read < 0).any(axis=1) & (largest.reshape(-1) == 0) & zero
    values = meaning(got.reshape(-1), storage)
    # A sum that is too large is stored as the end of the range, or as infinity.
    most = 1.0 if storage.unorm_max else float(storage.limits.max)
    # What is lost of a number at most, beside a relative error.
    tiny = max(flushed, model.smallest[1], 0.0 if storage.unorm_max else float(storage.limits.smallest_subnormal))
    # Of what the format has too the neighbour may be stored, but not the next one, where a code stands for a quotient.
    code = 1.5 / storage.unorm_max if storage.unorm_max and model.rounds_either_way else 0.0
    sliding = operation.sliding
    if all(k <= s for k, s in zip(sliding.kernel, sliding.strides, strict=True)):
        g, made = gradient.reshape(-1), values[np.maximum(read, 0)]
        # Only a format of fewer digits than the image's rounds it.
        near = tiny + code + (model.unit if model.precision < storage.precision else 0.0) * np.abs(g)
        same = (np.abs(made - g[:, np.newaxis]) <= near[:, np.newaxis]) | (made == g[:, np.newaxis])
        same |= np.isnan(made) & np.isnan(g)[:, np.newaxis]
        has = is_largest & same & (made != 0)
        fits = (np.count_nonzero(has, axis=1) == 1) | (np.abs(g) <= tiny + code) | (lost & ~has.any(axis=1))
        other = is_largest & ~has & (made != 0)
        bad = tied & (~fits | other.any(axis=1))
        wrong[read[bad][is_largest[bad]]] = True
        return wrong.reshape(x.shape)
    involved = np.zeros(x.size, np.bool_)
    involved[read[tied][is_largest[tied]]] = True
    # Sums with what is not finite tell nothing.
    endless = ~np.isfinite(gradient.reshape(-1))
    involved[read[endless][is_largest[endless]]] = False
    gradient = np.where(np.isfinite(gradient), gradient, 0.0)
    values = np.clip(values, -most, most)
    size = _added(read, is_largest, np.abs(gradient).reshape(-1), x.size)
    store = 2.0**-storage.precision * (1 + model.rounds_either_way)
    error = size * (ERROR * model.unit / 2 + store) + 2 * read.shape[1] * tiny + np.where(size > 0, code, 0.0)
    if any(
        _follows(rule, operation, gradient, x, values, error, involved, most)
        for rule in product((1, -1), (False, True))
    ):
        return wrong.reshape(x.shape)
    for element in np.flatnonzero(involved):
        windows = np.flatnonzero((read == element).any(axis=1) & (is_largest & (read == element)).any(axis=1))
        must = windows[~tied[windows]]
        may = windows[tied[windows]]
        base, sums = gradient.reshape(-1)[must].sum(), np.zeros(1)
        for window in may[:MOST_SUBSETS]:
            sums = np.concatenate([sums, sums + gradient.reshape(-1)[window]])
        sums = np.clip(base + sums, -most, most)
        wrong[element] = not (np.abs(sums - values[element]) <= error[element]).any()
    planes = (values - _added(read, _first(is_largest), gradient.reshape(-1), x.size)).reshape(x.shape).sum(axis=(1, 2))
    allowed = error.reshape(x.shape).sum(axis=(1, 2))
    kept = (np.abs(planes) > allowed)[:, np.newaxis, np.newaxis] & ~lost.any() & (np.abs(values) < most).all()
    return np.asarray(wrong.reshape(x.shape) | (involved.reshape(x.shape) & kept))


def _taps(operation: MaximumGradient, count: int, x: Wide) -> Stored:
    (read,) = Maximum(operation.sliding).feeding(np.arange(count), size_of(x))
    return read


def _first(is_largest: Mask) -> Mask:
    first = np.zeros_like(is_largest)
    rows = np.flatnonzero(is_largest.any(axis=1))
    first[rows, np.argmax(is_largest[rows], axis=1)] = True
    return first


def _added(read: Stored, chosen: Mask, gradient: Wide, size: int) -> Wide:
    """The gradients of the windows added up at the chosen taps."""
    out = np.zeros(size)
    window, tap = np.nonzero(chosen)
    np.add.at(out, read[window, tap], gradient[window])
    return out


def _follows(
    rule: tuple[int, bool],
    operation: MaximumGradient,
    gradient: Wide,
    x: Wide,
    values: Wide,
    error: Wide,
    involved: Mask,
    most: float,
) -> bool:
    """Whether the device takes the first or the last of several largest elements, by rows or by columns."""
    step, by_columns = rule
    largest = Maximum(operation.sliding).plain([x])
    read = _taps(operation, largest.size, x)
    rows, columns = operation.sliding.kernel
    order = np.arange(rows * columns).reshape(rows, columns)
    read = read[:, (order.T if by_columns else order).reshape(-1)[::step]]
    is_largest = (read >= 0) & (x.reshape(-1)[np.maximum(read, 0)] == largest.reshape(-1)[:, np.newaxis])
    given = np.clip(_added(read, _first(is_largest), gradient.reshape(-1), x.size), -most, most)
    return bool((np.abs(given - values)[involved] <= error[involved]).all())
