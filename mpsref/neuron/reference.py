"""The reference: decode, evaluate the specification exactly, round once. Slow, and short enough to read whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mpsref.arrays import Elements, Stored, flat
from mpsref.environment import ONE, SUBNORMAL, TINY, environment_or_error
from mpsref.errors import ImageError
from mpsref.neuron.descriptor import (
    MPSNNNeuronDescriptor,
    NeuronLike,
    channel_axis_or_error,
    descriptor_or_error,
)
from mpsref.neuron.exact import WIDE, decide, number
from mpsref.neuron.slopes import ChannelSlopes
from mpsref.neuron.specification import ExactParameters
from mpsref.storage import FORMATS, StorageFormat, array_or_error, bfloat16

__all__ = ["exact_parameters", "specified", "specified_elements", "specified_gradient"]

_FORMATS = {storage.dtype: storage for storage in FORMATS.values() if not storage.unorm_max}


def specified(descriptor: NeuronLike, x: npt.ArrayLike, *, channel_axis: int = -1) -> npt.NDArray[Any]:
    """
    The neuron's value at every element, by its specification: *the* reference, of which `forward` is a fast copy.

    Parameters
    ----------
    descriptor : MPSNNNeuronDescriptor, MPSCNNNeuronType or str
        The neuron; a type or its name means the documented parameters.
    x : array_like of float16, bfloat16 or float32
        Any shape. An element takes about 0.1 ms.
    channel_axis : int
        The axis of feature channels; only pReLU uses it.

    Returns
    -------
    ndarray
        Same shape and dtype as `x`: the exact value, rounded once to nearest, ties to even.

    Raises
    ------
    ImageError
        `x` has another dtype, or no axis `channel_axis`.
    ParameterError
        pReLU's data does not have one slope per channel.

    Examples
    --------
    >>> import numpy as np
    >>> import mpsref as mps
    >>> d = mps.MPSNNNeuronDescriptor(mps.MPSCNNNeuronType.geLU)
    >>> mps.neuron.specified(d, np.float32([-5, 0, 3]))
    array([-1.4332578e-06,  0.0000000e+00,  2.9959502e+00], dtype=float32)
    """
    values = x if type(x) is np.ndarray else array_or_error(x, "x")
    return _elementwise(descriptor_or_error(descriptor), values, None, channel_axis)


def specified_gradient(
    descriptor: NeuronLike, x: npt.ArrayLike, upstream: npt.ArrayLike, *, channel_axis: int = -1
) -> npt.NDArray[Any]:
    """
    `upstream` times the neuron's slope at `x`, by its specification; `gradient` is a fast copy.

    Parameters
    ----------
    descriptor, x, channel_axis
        As for `specified`.
    upstream : array_like
        The incoming gradient, of the shape and dtype of `x`.

    Returns
    -------
    ndarray
        Same shape and dtype as `x`: the exact product, rounded once.

    Raises
    ------
    ImageError, ParameterError
        As for `specified`; or `upstream` differs from `x` in shape or dtype.

    Examples
    --------
    >>> import numpy as np
    >>> import mpsref as mps
    >>> d = mps.MPSNNNeuronDescriptor(mps.MPSCNNNeuronType.tanH)
    >>> mps.neuron.specified_gradient(d, np.float16([0, 1]), np.float16([3, 3]))
    array([3.  , 1.26], dtype=float16)
    """
    values = x if type(x) is np.ndarray else array_or_error(x, "x")
    incoming = upstream if type(upstream) is np.ndarray else array_or_error(upstream, "upstream")
    return _elementwise(descriptor_or_error(descriptor), values, incoming, channel_axis)


def _elementwise(
    descriptor: MPSNNNeuronDescriptor, x: npt.NDArray[Any], upstream: npt.NDArray[Any] | None, channel_axis: int
) -> npt.NDArray[Any]:
    # The part of `environment_or_error` that matters to scalars, inline: one file fewer to read for the whole path.
    if SUBNORMAL + SUBNORMAL == 0 or ONE + TINY != ONE - TINY:
        environment_or_error()
    storage = bfloat16() if x.dtype.name == "bfloat16" else _FORMATS.get(x.dtype)
    if storage is None:
        raise ImageError(f"x has dtype {x.dtype}: give float16 or float32, or bfloat16")
    if upstream is not None and (upstream.shape, upstream.dtype) != (x.shape, x.dtype):
        raise ImageError(f"upstream is {upstream.dtype}{list(upstream.shape)}: give {x.dtype}{list(x.shape)}, as x is")
    axis = channel_axis_or_error(descriptor, x.shape, channel_axis)
    out = np.empty(x.shape, x.dtype)
    for index in np.ndindex(x.shape):
        slope = None if descriptor.data is None else float(descriptor.data[index[axis]])
        factor = None if upstream is None else float(upstream[index])
        out[index] = _result(descriptor, float(x[index]), factor, storage, slope)
    return out


def exact_parameters(descriptor: MPSNNNeuronDescriptor, slope: float | None = None) -> ExactParameters:
    """The parameters; a slope of the channel, if any, takes the place of `a`."""
    a = descriptor.a if slope is None else slope
    return ExactParameters(*map(number, (a, descriptor.b, descriptor.c)))


def _result(
    descriptor: MPSNNNeuronDescriptor, x: float, upstream: float | None, result: StorageFormat, slope: float | None
) -> float | int:
    """The value at x, or the slope times the incoming gradient, rounded once."""
    row, p, source = descriptor.row, exact_parameters(descriptor, slope), number(x)
    if upstream is None:
        return decide(lambda m: source if source.is_nan() else row.exact[0](source, p, m), result)
    factor = number(upstream)
    if source.is_nan() and not row.slope_is_constant:
        return decide(lambda _: source, result)
    return decide(lambda m: WIDE.multiply(row.exact[1](source, p, m), factor), result)


def specified_elements(
    descriptor: MPSNNNeuronDescriptor,
    source: Elements,
    result: StorageFormat,
    slopes: ChannelSlopes | None,
    gradient: Elements | None,
) -> Stored:
    """The same for all elements."""
    x = flat(source.values()).tolist()
    factors = [None] * len(x) if gradient is None else flat(gradient.values()).tolist()
    channels = [None] * len(x) if slopes is None else slopes.window(0, len(x)).tolist()
    results = [_result(descriptor, *each[:2], result, each[2]) for each in zip(x, factors, channels, strict=True)]
    return np.array(results, result.dtype).reshape(source.stored.shape)
