"""Convolution and pooling beside their peers: in the order images, rows, columns, channels, or torch's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from mpsref.arrays import Elements
from mpsref.storage import storage_format
from mpsref.sums import (
    AveragePooling,
    AveragePoolingGradient,
    Convolution,
    DataGradient,
    MaxPooling,
    MaxPoolingGradient,
    WeightGradient,
    Window,
)

Calls = dict[str, dict[str, Callable[[], object]]]
"""Candidates of each work."""

CONVOLUTIONS = (
    (4, 28, 1, 16, 5, 2),
    (4, 28, 32, 64, 3, 1),
    (2, 56, 64, 64, 3, 1),
    (4, 14, 128, 128, 3, 1),
    (8, 7, 512, 10, 7, 0),
)
"""Images, size, source and result channels, taps, taps outside on each side."""

POOLINGS = ((4, 56, 64, 2, 2, 0), (4, 56, 64, 3, 2, 1), (4, 56, 64, 3, 1, 1))
"""Images, size, channels, taps, stride, taps outside on each side."""


def works(dtype: type, modules: dict[str, Any]) -> Iterator[tuple[str, Calls]]:
    """Each shape by name, with who computes it."""
    rng = np.random.default_rng(0)
    for images, size, inputs, outputs, taps, outside in CONVOLUTIONS:
        calls = _convolution(rng, (images, size, inputs, outputs, taps, outside), dtype, modules.get("torch"))
        yield f"{images}x{size}x{size}x{inputs} -> {outputs}, {taps}x{taps}", calls
    for images, size, channels, taps, stride, outside in POOLINGS:
        calls = _pooling(rng, (images, size, channels, taps, stride, outside), dtype, modules.get("torch"))
        yield f"{images}x{size}x{size}x{channels}, {taps}x{taps}, stride {stride}", calls


def _normal(rng: np.random.Generator, shape: tuple[int, ...], dtype: type) -> np.ndarray:
    return rng.standard_normal(shape).astype(dtype)


def _convolution(rng: np.random.Generator, numbers: tuple[int, ...], dtype: type, torch: Any) -> Calls:
    images, size, inputs, outputs, taps, outside = numbers
    length = size + 2 * outside - taps + 1
    window = Window((taps, taps), first=(-outside, -outside), result=(length, length))
    x, g = _normal(rng, (images, size, size, inputs), dtype), _normal(rng, (images, length, length, outputs), dtype)
    w = _normal(rng, (outputs, taps, taps, inputs), dtype) / dtype(np.sqrt(taps * taps * inputs))
    b = _normal(rng, (outputs,), dtype)
    storage, single = storage_format(dtype), storage_format(np.float32)
    source, gradient = Elements(x, storage), Elements(g, storage)
    weights, bias = w.astype(np.float32), b.astype(np.float32)
    calls: Calls = {
        "convolution": {
            "mpsref": lambda: Convolution(source, weights, bias, window).rounded(storage),
            "numpy float64": lambda: _in_float64(x, w, b, outside),
        },
        "gradient of data": {
            "mpsref": lambda: DataGradient(gradient, weights, window, (size, size)).rounded(storage),
        },
        "gradient of weights": {
            "mpsref": lambda: WeightGradient(gradient, source, window).rounded(single),
        },
    }
    if torch is not None:
        tx, tw, tg = (torch.tensor(a).permute(0, 3, 1, 2).contiguous() for a in (x, w, g))
        tb = torch.tensor(b)

        def backward(*mask: bool) -> object:
            back = torch.ops.aten.convolution_backward
            return back(tg, tx, tw, [outputs], [1, 1], [outside] * 2, [1, 1], False, [0, 0], 1, list(mask))

        calls["convolution"]["torch"] = lambda: torch.nn.functional.conv2d(tx, tw, tb, padding=outside)
        calls["gradient of data"]["torch"] = lambda: backward(True, False, False)
        calls["gradient of weights"]["torch"] = lambda: backward(False, True, False)
    return calls


def _in_float64(x: np.ndarray, w: np.ndarray, b: np.ndarray, outside: int) -> np.ndarray:
    padded = np.pad(x.astype(np.float64), ((0, 0), (outside, outside), (outside, outside), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, w.shape[1:3], (1, 2)).transpose(0, 1, 2, 4, 5, 3)
    products = windows.reshape(-1, w[0].size) @ w.reshape(len(w), -1).T.astype(np.float64) + b
    return products.astype(x.dtype).reshape(*windows.shape[:3], -1)


def _pooling(rng: np.random.Generator, numbers: tuple[int, ...], dtype: type, torch: Any) -> Calls:
    images, size, channels, taps, stride, outside = numbers
    length = (size + 2 * outside - taps) // stride + 1
    window = Window((taps, taps), (stride, stride), first=(-outside, -outside), result=(length, length))
    x, g = _normal(rng, (images, size, size, channels), dtype), _normal(rng, (images, length, length, channels), dtype)
    storage, counts = storage_format(dtype), window.counts(size, size)
    source, gradient = Elements(x, storage), Elements(g, storage)
    largest = MaxPooling(source, window)
    calls: Calls = {
        "max pooling": {"mpsref": lambda: largest.rounded(storage)},
        "gradient of max pooling": {"mpsref": lambda: MaxPoolingGradient(gradient, largest).rounded(storage)},
        "average pooling": {"mpsref": lambda: AveragePooling(source, window, counts).rounded(storage)},
        "gradient of average pooling": {
            "mpsref": lambda: AveragePoolingGradient(gradient, window, counts, (size, size)).rounded(storage)
        },
    }
    if torch is not None:
        tx, tg = (torch.tensor(a).permute(0, 3, 1, 2).contiguous() for a in (x, g))
        aten, k, s, p = torch.ops.aten, [taps] * 2, [stride] * 2, [outside] * 2
        indices = torch.nn.functional.max_pool2d(tx, taps, stride, outside, return_indices=True)[1]
        calls["max pooling"]["torch"] = lambda: torch.nn.functional.max_pool2d(tx, taps, stride, outside)
        calls["gradient of max pooling"]["torch"] = lambda: aten.max_pool2d_with_indices_backward(
            tg, tx, k, s, p, [1, 1], False, indices
        )
        calls["gradient of max pooling"]["torch from x"] = lambda: aten.max_pool2d_with_indices_backward(
            tg, tx, k, s, p, [1, 1], False, aten.max_pool2d_with_indices(tx, k, s, p)[1]
        )
        calls["average pooling"]["torch"] = lambda: aten.avg_pool2d(tx, k, s, p, False, False)
        calls["gradient of average pooling"]["torch"] = lambda: aten.avg_pool2d_backward(
            tg, tx, k, s, p, False, False, None
        )
    return calls
