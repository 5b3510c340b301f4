"""The reference: decode, evaluate the specification exactly, round once. Slow, and short enough to be read whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from functools import partial
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
from mpsref.neuron.elementwise import Elementwise
from mpsref.neuron.exact import WIDE, Digits, decide, number
from mpsref.neuron.slopes import ChannelSlopes
from mpsref.neuron.specification import ExactParameters
from mpsref.storage import FLOAT64, FORMATS, StorageFormat, array_or_error

__all__ = ["Specified", "exact_parameters", "specified", "specified_elements", "specified_gradient"]

_FORMATS = {storage.dtype: storage for storage in FORMATS.values() if not storage.unorm_max}


def specified(descriptor: NeuronLike, x: npt.ArrayLike, *, channel_axis: int = -1) -> npt.NDArray[Any]:
    """
    The neuron's value at every element, as it is specified: *the* reference, of which `forward` is a fast copy.

    Parameters
    ----------
    descriptor : MPSNNNeuronDescriptor, MPSCNNNeuronType or str
        The neuron and its parameters; a type or its name has the documented ones.
    x : array_like of float16 or float32
        Any shape. Takes about 0.1 ms an element.
    channel_axis : int
        Which axis counts feature channels; matters for pReLU only.

    Returns
    -------
    ndarray
        Same shape and dtype as `x`: the exact value, rounded once to nearest, ties to even.

    Raises
    ------
    ImageError
        `x` has another dtype, or no axis `channel_axis`.
    ParameterError
        pReLU's data has not one slope for each channel.

    Examples
    --------
    >>> import numpy as np
    >>> import mpsref as mps
    >>> d = mps.MPSNNNeuronDescriptor(mps.MPSCNNNeuronType.geLU)
    >>> mps.neuron.specified(d, np.float32([-5, 0, 3]))
    array([-1.4332578e-06,  0.0000000e+00,  2.9959502e+00], dtype=float32)
    """
    return _elementwise(descriptor_or_error(descriptor), array_or_error(x, "x"), None, channel_axis)


def specified_gradient(
    descriptor: NeuronLike, x: npt.ArrayLike, upstream: npt.ArrayLike, *, channel_axis: int = -1
) -> npt.NDArray[Any]:
    """
    `upstream` times the neuron's slope at `x`, as it is specified: what `gradient` is a fast copy of.

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
        As by `specified`; or `upstream` differs from `x` in shape or dtype.

    Examples
    --------
    >>> import numpy as np
    >>> import mpsref as mps
    >>> d = mps.MPSNNNeuronDescriptor(mps.MPSCNNNeuronType.tanH)
    >>> mps.neuron.specified_gradient(d, np.float16([0, 1]), np.float16([3, 3]))
    array([3.  , 1.26], dtype=float16)
    """
    values, incoming = array_or_error(x, "x"), array_or_error(upstream, "upstream")
    return _elementwise(descriptor_or_error(descriptor), values, incoming, channel_axis)


def _elementwise(
    descriptor: MPSNNNeuronDescriptor, x: npt.NDArray[Any], upstream: npt.NDArray[Any] | None, channel_axis: int
) -> npt.NDArray[Any]:
    # What of `environment_or_error` matters to scalars, in place: one file less for who reads all that a call enters.
    if SUBNORMAL + SUBNORMAL == 0 or ONE + TINY != ONE - TINY:
        environment_or_error()
    storage = _FORMATS.get(x.dtype)
    if storage is None:
        raise ImageError(f"x has dtype {x.dtype}: give float16 or float32")
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
    """The parameters; in the place of `a` the slope of the channel, where there is one for each."""
    a = descriptor.a if slope is None else slope
    return ExactParameters(*map(number, (a, descriptor.b, descriptor.c)))


def _result(
    descriptor: MPSNNNeuronDescriptor, x: float, upstream: float | None, result: StorageFormat, slope: float | None
) -> float | int:
    """The value at x, or with an incoming gradient the slope times that, rounded once."""
    row, p, source = descriptor.row, exact_parameters(descriptor, slope), number(x)
    if upstream is None:
        return decide(lambda m: source if source.is_nan() else row.exact[0](source, p, m), result)
    factor = number(upstream)
    if source.is_nan() and not row.slope_is_constant:
        return decide(lambda _: source, result)
    return decide(lambda m: WIDE.multiply(row.exact[1](source, p, m), factor), result)


def specified_elements(
    descriptor: MPSNNNeuronDescriptor,
    gradient: Elements | None,
    source: Elements,
    result: StorageFormat,
    slopes: ChannelSlopes | None,
) -> Stored:
    """The same for stored elements: the value, or with an incoming gradient the slope times that."""
    x = flat(source.values()).tolist()
    factors = [None] * len(x) if gradient is None else flat(gradient.values()).tolist()
    channels = [None] * len(x) if slopes is None else slopes.window(0, len(x)).tolist()
    results = [_result(descriptor, *each[:2], result, each[2]) for each in zip(x, factors, channels, strict=True)]
    return np.array(results, result.dtype).reshape(source.stored.shape)


class Specified:
    """The mode of evaluation: the specification itself, also of sums and multiples. Slow, and by one thread."""

    def forward(
        self,
        descriptor: MPSNNNeuronDescriptor,
        source: Elements,
        result: StorageFormat,
        slopes: ChannelSlopes | None = None,
        *,
        workers: int = 1,
    ) -> Stored:
        """The neuron's value at every element."""
        _not_wide(source)
        return specified_elements(descriptor, None, source, result, slopes)

    def gradient(
        self,
        descriptor: MPSNNNeuronDescriptor,
        gradient: Elements,
        source: Elements,
        result: StorageFormat,
        slopes: ChannelSlopes | None = None,
        *,
        workers: int = 1,
    ) -> Stored:
        """`gradient`, the incoming one, times the neuron's slope at every element of `source`."""
        _not_wide(gradient, source)
        return specified_elements(descriptor, gradient, source, result, slopes)

    def elementwise(
        self, operation: Elementwise, sources: Sequence[Elements], result: StorageFormat, *, workers: int = 1
    ) -> Stored:
        """The operation's result for every element."""
        _not_wide(*sources)
        return _of_each(operation.exact, sources, result)


def _of_each(function: Callable[..., Decimal], sources: Sequence[Elements], result: StorageFormat) -> Stored:
    """An exact function of each element of some sources, rounded once."""
    read = zip(*(map(number, flat(source.values()).tolist()) for source in sources), strict=True)
    results = [decide(partial(_apply, function, each), result) for each in read]
    return np.array(results, result.dtype).reshape(sources[0].stored.shape)


def _apply(function: Callable[..., Decimal], arguments: Sequence[Decimal], _: Digits) -> Decimal:
    return function(*arguments)


def _not_wide(*sources: Elements) -> None:
    environment_or_error()
    if any(source.storage is FLOAT64 for source in sources):
        raise ImageError("the sources are float64, of which nothing is specified: convert them, or use mode 'ideal'")
