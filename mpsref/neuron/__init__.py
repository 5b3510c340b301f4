"""
Neuron kernels on plain arrays: values and gradients, correctly rounded.

Examples
--------
>>> import numpy as np
>>> import mpsref as mps
>>> d = mps.MPSNNNeuronDescriptor(mps.MPSCNNNeuronType.geLU)
>>> mps.neuron.forward(d, np.float32([-5, 0, 3]))
array([-1.4332578e-06,  0.0000000e+00,  2.9959502e+00], dtype=float32)
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from mpsref.arrays import Elements
from mpsref.errors import ImageError
from mpsref.neuron.descriptor import (
    MPSNNNeuronDescriptor,
    NeuronLike,
    channel_axis_or_error,
    descriptor_or_error,
)
from mpsref.neuron.reference import specified, specified_gradient
from mpsref.neuron.slopes import ChannelSlopes
from mpsref.neuron.stepwise import evaluation
from mpsref.neuron.table import NEURONS, Erratum, Neuron
from mpsref.neuron.threads import worker_count
from mpsref.storage import array_or_error, storage_of

__all__ = [
    "NEURONS",
    "Erratum",
    "MPSNNNeuronDescriptor",
    "Neuron",
    "forward",
    "gradient",
    "specified",
    "specified_gradient",
]

FEW = 16_384
"""Elements of an array for which the slopes of the elements are kept for the next call."""


def forward(
    descriptor: NeuronLike,
    x: npt.ArrayLike,
    *,
    channel_axis: int = -1,
    mode: str = "ideal",
    workers: int = 1,
) -> npt.NDArray[Any]:
    """
    The neuron's value at every element.

    Parameters
    ----------
    descriptor : MPSNNNeuronDescriptor, MPSCNNNeuronType or str
        The neuron, or an `mpsref.activations.Activation`; a type or its name means the documented parameters.
    x : array_like of float16, float32, float64, or ``bfloat16`` of ``ml_dtypes``
        Any shape. Never modified.
    channel_axis : int
        The axis of feature channels; only pReLU uses it.
    mode : str
        ``ideal``: the exact value, rounded once; ``specified``: the same, slowly, as `specified` computes it. To
        explain a device, not to judge it: ``stepwise``, the documented formula in float32 with each operation rounded,
        as in a plain shader; ``stepwise-fma``, the same with every multiply-add fused.
    workers : int
        The number of threads that share the work; -1 for one per core. The result does not depend on it.

    Returns
    -------
    ndarray
        Same shape and dtype as `x`. In the ideal mode: for float16, bfloat16 and float32 the exact value rounded once,
        to nearest even; for float64 within 4 ULP (geLU: 5 ULP) where no intermediate result overflows or underflows,
        and within 2^-42 for activations that are not Apple's.

    Raises
    ------
    ImageError
        `x` has another dtype, or no axis `channel_axis`; or it is float64 and the mode is not ``ideal``.
    ParameterError
        pReLU's data does not have one slope per channel; or `mode` or `workers` is invalid.

    Notes
    -----
    NaN gives NaN. At an infinity the result is the limit. Outside the neuron's real domain it is NaN.

    Examples
    --------
    >>> import numpy as np
    >>> import mpsref as mps
    >>> slopes = mps.MPSNNNeuronDescriptor(mps.MPSCNNNeuronType.pReLU, data=[0.5, 0.25])
    >>> mps.neuron.forward(slopes, np.float16([[-1, -1], [2, -4]]))
    array([[-0.5 , -0.25],
           [ 2.  , -1.  ]], dtype=float16)

    Where the formula cancels or overflows:

    >>> d = mps.MPSNNNeuronDescriptor(mps.MPSCNNNeuronType.softPlus)
    >>> mps.neuron.forward(d, np.float32([-20, 100]))
    array([2.0611537e-09, 1.0000000e+02], dtype=float32)
    >>> mps.neuron.forward(d, np.float32([-20, 100]), mode="stepwise")
    array([ 0., inf], dtype=float32)
    """
    descriptor = descriptor_or_error(descriptor)
    values = array_or_error(x, "x")
    storage = storage_of(values, "x")
    slopes = _slopes(descriptor, values.shape, channel_axis)
    count = worker_count(workers)
    return evaluation(mode).neuron(descriptor, Elements(values, storage), storage, slopes, workers=count)


def gradient(
    descriptor: NeuronLike,
    x: npt.ArrayLike,
    upstream: npt.ArrayLike,
    *,
    channel_axis: int = -1,
    mode: str = "ideal",
    workers: int = 1,
) -> npt.NDArray[Any]:
    """
    `upstream` times the neuron's slope at the *input* `x`: one step of backpropagation.

    Parameters
    ----------
    descriptor, x, channel_axis, mode, workers
        As for `forward`.
    upstream : array_like
        The incoming gradient, of the shape and dtype of `x`.

    Returns
    -------
    ndarray
        Same shape and dtype as `x`. In the ideal mode: the product rounded once; for float64 within 6 ULP,
        and within 2^-42 for activations that are not Apple's.

    Raises
    ------
    ImageError
        The dtype is none of the four, or `upstream` differs from `x` in shape or dtype; or it is float64 and the mode
        is not ``ideal``.
    ParameterError
        As for `forward`.

    Notes
    -----
    At a kink the documented comparison decides: `x >= 0` takes the positive branch, and Absolute has slope 0 at 0.

    Examples
    --------
    >>> import numpy as np
    >>> import mpsref as mps
    >>> d = mps.MPSNNNeuronDescriptor(mps.MPSCNNNeuronType.reLU, a=0.5)
    >>> mps.neuron.gradient(d, np.float32([-1, 0, 1]), np.float32([3, 3, 3]))
    array([1.5, 3. , 3. ], dtype=float32)
    """
    descriptor = descriptor_or_error(descriptor)
    values, incoming = array_or_error(x, "x"), array_or_error(upstream, "upstream")
    storage = storage_of(values, "x")
    if incoming.shape != values.shape or incoming.dtype != values.dtype:
        raise ImageError(
            f"upstream is {incoming.dtype}{list(incoming.shape)}: it must be like x, {values.dtype}{list(values.shape)}"
        )
    slopes = _slopes(descriptor, values.shape, channel_axis)
    count = worker_count(workers)
    source, factors = Elements(values, storage), Elements(incoming, storage)
    return evaluation(mode).neuron(descriptor, source, storage, slopes, gradient=factors, workers=count)


def _slopes(descriptor: MPSNNNeuronDescriptor, shape: tuple[int, ...], channel_axis: int) -> ChannelSlopes | None:
    data = descriptor.data
    if data is None and type(channel_axis) is int:
        return None
    axis = channel_axis_or_error(descriptor, shape, channel_axis)
    if data is None:
        return None
    inner = math.prod(shape[axis + 1 :])
    # Few elements cost less than the slopes of each.
    return (_kept_slopes if math.prod(shape) <= FEW else _new_slopes)(descriptor, inner)


def _new_slopes(descriptor: MPSNNNeuronDescriptor, inner: int) -> ChannelSlopes:
    assert descriptor.data is not None
    slopes = descriptor.data.astype(np.float64)
    return ChannelSlopes(slopes[np.newaxis], 1) if inner == 1 else ChannelSlopes(slopes[:, np.newaxis], inner)


_kept_slopes = lru_cache(maxsize=8)(_new_slopes)
