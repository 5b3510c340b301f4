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
        The neuron and its parameters; a type or its name has the documented ones.
    x : array_like of float16, float32 or float64
        Any shape. Never written to.
    channel_axis : int
        Which axis counts feature channels; matters for pReLU only.
    mode : str
        ``ideal``: the exact value, rounded once; ``specified``: the same, slowly, as `specified` computes it. To
        explain a device, not to judge it: ``stepwise``, the documented formula in float32 with each operation rounded,
        as a plain shader does it; ``stepwise-fma``, the same with each product that is added to something fused with
        the addition.
    workers : int
        How many threads share the work, a block of elements at a time; -1 for one for each core. The result is the
        same for any number.

    Returns
    -------
    ndarray
        Same shape and dtype as `x`. In the ideal mode: for float16 and float32 the exact value rounded once, to
        nearest even; for float64 within 4 ULP (geLU: 5 ULP) where nothing overflows or vanishes on the way.

    Raises
    ------
    ImageError
        `x` has another dtype, or no axis `channel_axis`; or it is float64 in another mode than ``ideal``.
    ParameterError
        pReLU's data has not one slope for each channel; there is no such mode; or `workers` is no number of threads.

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

    Where the formula cancels, or overflows on the way:

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
    `upstream` times the neuron's slope at the *source* `x`: one step of backpropagation.

    Parameters
    ----------
    descriptor, x, channel_axis, mode, workers
        As for `forward`.
    upstream : array_like
        The incoming gradient, of the shape and dtype of `x`.

    Returns
    -------
    ndarray
        Same shape and dtype as `x`. In the ideal mode: the product rounded once; for float64 within 6 ULP.

    Raises
    ------
    ImageError
        The dtype is none of the three, or `upstream` differs from `x` in shape or dtype; or it is float64 in another
        mode than ``ideal``.
    ParameterError
        pReLU's data has not one slope for each channel; there is no such mode; or `workers` is no number of threads.

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
    if descriptor.data is None and type(channel_axis) is int:
        return None
    axis = channel_axis_or_error(descriptor, shape, channel_axis)
    if descriptor.data is None:
        return None
    slopes = descriptor.data.astype(np.float64)
    inner = math.prod(shape[axis + 1 :])
    return ChannelSlopes(slopes[np.newaxis], 1) if inner == 1 else ChannelSlopes(slopes[:, np.newaxis], inner)
