"""
Weights of convolutions: Apple's descriptors, data sources, and what is read of them.

A data source is any object with the methods of Apple's ``MPSCNNConvolutionDataSource``; it is read once, between
``load`` and ``purge``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from mpsref.arguments import checked_but
from mpsref.attributes import Setting, Strict
from mpsref.enums import MPSCNNNeuronType, MPSDataType
from mpsref.errors import ImageError, ParameterError, shown
from mpsref.neuron.descriptor import MPSNNNeuronDescriptor
from mpsref.storage import array_or_error

__all__ = [
    "LAYOUTS",
    "ArrayDataSource",
    "MPSCNNConvolutionDataSource",
    "MPSCNNConvolutionDescriptor",
    "MPSCNNDepthWiseConvolutionDescriptor",
    "Weights",
    "weights_of",
    "whole_or_error",
]

LAYOUTS = ("OHWI", "OIHW", "HWIO", "OHW")
"""Orders of the axes of weights: Apple's, that of PyTorch, that of TensorFlow, and that of depthwise weights."""

LARGEST = 2**16
"""Taps, channels, strides and dilations at most."""

MOST_WEIGHTS = 2**30


def whole_or_error(name: str, value: Any) -> int:
    """`value`, if it is a whole number from 1 to `LARGEST`; else raises `ParameterError`."""
    if not (type(value) is int or isinstance(value, np.integer)) or not 1 <= value <= LARGEST:
        raise ParameterError(f"{name} is {shown(value)}: give a whole number from 1 to {LARGEST}")
    return int(value)


class _Whole(Setting[Any]):
    """A settable whole number of a descriptor."""

    def __init__(self, default: int, doc: str) -> None:
        super().__init__(default, doc, whole_or_error)


class MPSCNNConvolutionDescriptor(Strict):
    """
    The size of a convolution's window and channels, and what is fused into it.

    Parameters
    ----------
    kernel_width, kernel_height : int
        Taps of the window.
    input_feature_channels, output_feature_channels : int
        Channels of the source and of the result.

    Attributes
    ----------
    stride_in_pixels_x, stride_in_pixels_y, dilation_rate_x, dilation_rate_y, groups : int
        1 by default. Settable, as are the four numbers above.
    fused_neuron_descriptor : MPSNNNeuronDescriptor
        Applied after the bias, without a rounding between; ``none`` by default. Not pReLU. Settable.

    Notes
    -----
    Source: ``MPSCNNConvolution.h``.

    Examples
    --------
    >>> import mpsref as mps
    >>> d = mps.MPSCNNConvolutionDescriptor(
    ...     kernel_width=5, kernel_height=3, input_feature_channels=8, output_feature_channels=4
    ... )
    >>> d.groups = 2
    >>> d.weights_shape
    (4, 3, 5, 4)
    """

    _left_out: ClassVar = {
        "neuron": "deprecated; fused_neuron_descriptor takes its place",
        "supportsSecureCoding": "graph files take the place of archives",
        "encodeWithCoder:": "graph files take the place of archives",
        "initWithCoder:": "graph files take the place of archives",
        "cnnConvolutionDescriptorWithKernelWidth:kernelHeight:inputFeatureChannels:outputFeatureChannels:neuronFilter:":
            "deprecated; fused_neuron_descriptor takes its place",
        "setBatchNormalizationParametersForInferenceWithMean:variance:gamma:beta:epsilon:":
            "normalisation is no layer of this package",
        "setNeuronType:parameterA:parameterB:": "deprecated; fused_neuron_descriptor takes its place",
        "neuronType": "deprecated; fused_neuron_descriptor takes its place",
        "neuronParameterA": "deprecated; fused_neuron_descriptor takes its place",
        "neuronParameterB": "deprecated; fused_neuron_descriptor takes its place",
        "setNeuronToPReLUWithParametersA:": "deprecated, and pReLU cannot be fused",
    }  # fmt: skip

    kernel_width = _Whole(3, "Taps in x.")
    kernel_height = _Whole(3, "Taps in y.")
    input_feature_channels = _Whole(1, "Channels of the source.")
    output_feature_channels = _Whole(1, "Channels of the result.")
    stride_in_pixels_x = _Whole(1, "Distance of windows in x. Default 1.")
    stride_in_pixels_y = _Whole(1, "Distance of windows in y. Default 1.")
    dilation_rate_x = _Whole(1, "Distance of taps in x. Default 1.")
    dilation_rate_y = _Whole(1, "Distance of taps in y. Default 1.")
    groups = _Whole(1, "Groups of channels, each convolved by itself. Default 1.")

    is_depthwise: ClassVar[bool] = False
    """Whether each source channel has its own window. Not Apple's."""

    _neuron: MPSNNNeuronDescriptor | None = None

    def __init__(
        self, *, kernel_width: int, kernel_height: int, input_feature_channels: int, output_feature_channels: int
    ) -> None:
        self.kernel_width, self.kernel_height = kernel_width, kernel_height
        self.input_feature_channels, self.output_feature_channels = input_feature_channels, output_feature_channels

    @property
    def fused_neuron_descriptor(self) -> MPSNNNeuronDescriptor:
        """The neuron that is applied after the bias."""
        return self._neuron or MPSNNNeuronDescriptor(MPSCNNNeuronType.none)

    @fused_neuron_descriptor.setter
    def fused_neuron_descriptor(self, value: MPSNNNeuronDescriptor | None) -> None:
        if value is not None and type(value) is not MPSNNNeuronDescriptor:
            raise ParameterError(f"fused_neuron_descriptor is a {type(value).__name__}: give an MPSNNNeuronDescriptor")
        if value is not None and value.neuron_type is MPSCNNNeuronType.pReLU:
            raise ParameterError(
                "fused_neuron_descriptor is pReLU, which cannot be fused: use an MPSCNNNeuronPReLUNode"
            )
        is_none = value is None or value.neuron_type is MPSCNNNeuronType.none
        self._neuron = None if is_none else value

    @property
    def weights_shape(self) -> tuple[int, int, int, int]:
        """Output channels, height, width, and the source channels that one output channel reads. Not Apple's."""
        read = 1 if self.is_depthwise else self.input_feature_channels // self.groups
        return self.output_feature_channels, self.kernel_height, self.kernel_width, read

    def check(self) -> None:
        """Raise `ParameterError` unless the numbers fit together. Not Apple's."""
        for name in ("input_feature_channels", "output_feature_channels"):
            if getattr(self, name) % self.groups:
                raise ParameterError(f"groups is {self.groups}, which does not divide {name}, {getattr(self, name)}")


class MPSCNNDepthWiseConvolutionDescriptor(MPSCNNConvolutionDescriptor):
    """
    A convolution in which each source channel has a window of its own.

    Source: ``MPSCNNConvolution.h``, which supports as many output channels as input channels.
    """

    is_depthwise = True

    @property
    def channel_multiplier(self) -> int:
        """Output channels for each input channel."""
        return int(self.output_feature_channels // self.input_feature_channels)

    def check(self) -> None:
        """Raise `ParameterError` unless the numbers fit together. Not Apple's."""
        if self.groups != 1:
            raise ParameterError(f"groups is {self.groups}: a depthwise convolution has 1")
        if self.output_feature_channels % self.input_feature_channels:
            raise ParameterError(
                f"output_feature_channels is {self.output_feature_channels}: give a multiple of "
                f"input_feature_channels, {self.input_feature_channels}"
            )


DESCRIPTORS: dict[str, type[MPSCNNConvolutionDescriptor]] = {
    kind.__name__: kind for kind in (MPSCNNConvolutionDescriptor, MPSCNNDepthWiseConvolutionDescriptor)
}


SIZES = ("kernel_width", "kernel_height", "input_feature_channels", "output_feature_channels")
OPTIONS = ("stride_in_pixels_x", "stride_in_pixels_y", "groups", "dilation_rate_x", "dilation_rate_y")
"""The numbers of a descriptor."""


@runtime_checkable
class MPSCNNConvolutionDataSource(Protocol):
    """
    What a data source of your own has. Source: ``MPSCNNConvolution.h``; further methods of Apple's are ignored.

    `load` is called before all others, and `purge` after them.
    """

    def data_type(self) -> Any:
        """``float16`` or ``float32``: an `MPSDataType`, its name or a dtype."""

    def descriptor(self) -> MPSCNNConvolutionDescriptor:
        """Sizes and what is fused."""

    def weights(self) -> npt.ArrayLike:
        """Numbers of shape (O, kH, kW, I / groups); of depthwise ones also (O, kH, kW)."""

    def bias_terms(self) -> npt.ArrayLike | None:
        """A float32 for each output channel, or None."""

    def load(self) -> bool:
        """Make the weights available; False if that fails."""

    def purge(self) -> None:
        """They are no longer needed."""

    def label(self) -> str | None:
        """A name."""


class ArrayDataSource:
    """
    A data source of arrays.

    Parameters
    ----------
    descriptor : MPSCNNConvolutionDescriptor
        Sizes and what is fused.
    weights : array_like
        float16 stays float16; everything else is rounded to float32.
    bias_terms : array_like, shape (O,), optional
        Rounded to float32.
    layout : str
        The order of the axes of `weights`: ``OHWI`` (Apple's), ``OIHW``, ``HWIO`` or, for depthwise ones, ``OHW``.
    label : str, optional
        A name.

    Raises
    ------
    ParameterError
        Shapes, layout or dtypes do not fit the descriptor.

    Examples
    --------
    >>> import numpy as np
    >>> import mpsref as mps
    >>> d = mps.MPSCNNConvolutionDescriptor(
    ...     kernel_width=1, kernel_height=1, input_feature_channels=2, output_feature_channels=1
    ... )
    >>> source = mps.ArrayDataSource(d, np.ones((1, 2, 1, 1), np.float16), [0.5], layout="OIHW")
    >>> source.weights().shape, source.data_type()
    ((1, 1, 1, 2), <MPSDataType.float16: 268435472>)
    """

    @checked_but("descriptor", "weights", "bias_terms", "layout")
    def __init__(
        self,
        descriptor: MPSCNNConvolutionDescriptor,
        weights: npt.ArrayLike,
        bias_terms: npt.ArrayLike | None = None,
        layout: str = "OHWI",
        label: str | None = None,
    ) -> None:
        if not isinstance(descriptor, MPSCNNConvolutionDescriptor):
            raise ParameterError(f"descriptor is a {type(descriptor).__name__}: give an MPSCNNConvolutionDescriptor")
        self._descriptor, self._label = descriptor, label
        self._weights = _laid_out(descriptor, _numbers("weights", weights), layout)
        self._bias = None if bias_terms is None else _bias(descriptor, bias_terms)

    def data_type(self) -> MPSDataType:
        """``float16`` or ``float32``."""
        return MPSDataType.float16 if self._weights.dtype == np.float16 else MPSDataType.float32

    def descriptor(self) -> MPSCNNConvolutionDescriptor:
        """Sizes and what is fused."""
        return self._descriptor

    def weights(self) -> npt.NDArray[Any]:
        """The weights, OHWI."""
        return self._weights

    def bias_terms(self) -> npt.NDArray[np.float32] | None:
        """The biases."""
        return self._bias

    def load(self) -> bool:
        """Do nothing: the arrays are there."""
        return True

    def purge(self) -> None:
        """Do nothing."""

    def label(self) -> str | None:
        """The name."""
        return self._label


class Weights:
    """
    What was read of a data source: a value.

    Attributes
    ----------
    values : ndarray of float16 or float32, shape (O, kH, kW, I / groups)
        The weights; read-only.
    bias : ndarray of float32, shape (O,), or None
        The biases; read-only.
    strides, dilations : tuple of int
        In y and x.
    inputs : int
        Channels of the source.
    groups : int
        Of channels; as many as inputs if the convolution is depthwise.
    neuron : MPSNNNeuronDescriptor or None
        The fused neuron.
    is_depthwise : bool
        Whether the descriptor is that of a depthwise convolution.
    """

    def __init__(
        self, d: MPSCNNConvolutionDescriptor, values: npt.NDArray[Any], bias: npt.NDArray[np.float32] | None
    ) -> None:
        d.check()
        self.values, self.bias = values.copy(), None if bias is None else bias.copy()
        for array in (self.values, self.bias):
            if array is not None:
                array.flags.writeable = False
        self.strides = d.stride_in_pixels_y, d.stride_in_pixels_x
        self.dilations = d.dilation_rate_y, d.dilation_rate_x
        self.inputs, self.is_depthwise = d.input_feature_channels, d.is_depthwise
        self.groups = d.input_feature_channels if d.is_depthwise else d.groups
        self.neuron = d._neuron

    @property
    def outputs(self) -> int:
        """Channels of the result."""
        return int(self.values.shape[0])

    @property
    def kernel(self) -> tuple[int, int]:
        """Taps in y and x."""
        return int(self.values.shape[1]), int(self.values.shape[2])

    def descriptor(self) -> MPSCNNConvolutionDescriptor:
        """A new descriptor of it."""
        kind = MPSCNNDepthWiseConvolutionDescriptor if self.is_depthwise else MPSCNNConvolutionDescriptor
        d = kind(
            kernel_width=self.kernel[1],
            kernel_height=self.kernel[0],
            input_feature_channels=self.inputs,
            output_feature_channels=self.outputs,
        )
        (d.stride_in_pixels_y, d.stride_in_pixels_x), (d.dilation_rate_y, d.dilation_rate_x) = (
            self.strides,
            self.dilations,
        )
        d.groups = 1 if self.is_depthwise else self.groups
        d.fused_neuron_descriptor = self.neuron
        return d

    @cached_property
    def _key(self) -> tuple[Any, ...]:
        bias = b"" if self.bias is None else self.bias.tobytes()
        digest = hashlib.sha256(self.values.tobytes() + bias).hexdigest()
        facts = self.strides, self.dilations, self.inputs, self.groups, self.is_depthwise, self.neuron
        return digest, self.values.dtype, self.values.shape, self.bias is None, facts

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Weights) and self._key == other._key)

    def __hash__(self) -> int:
        return hash(self._key[0])

    def __repr__(self) -> str:
        return f"Weights{self.values.shape}"


def weights_of(source: Any) -> Weights:
    """
    Read a data source.

    Raises
    ------
    ParameterError
        It lacks a method, `load` fails, or what it gives does not fit together.
    """
    missing = [
        name
        for name in ("data_type", "descriptor", "weights", "bias_terms", "load", "purge")
        if not callable(getattr(source, name, None))
    ]
    if missing:
        raise ParameterError(
            f"weights is a {type(source).__name__} without {', '.join(missing)}: give an ArrayDataSource, or an object "
            "with the methods of MPSCNNConvolutionDataSource"
        )
    with _loaded(source):
        data_type = source.data_type()
        if data_type in (MPSDataType.uInt8, "uInt8", "uint8") or _is_uint8(data_type):
            raise ParameterError(
                "data_type of weights is uInt8: quantised weights are not read, give float16 or float32"
            )
        dtype = _dtype(data_type)
        d = source.descriptor()
        if not isinstance(d, MPSCNNConvolutionDescriptor):
            raise ParameterError(f"descriptor of weights is a {type(d).__name__}: give an MPSCNNConvolutionDescriptor")
        values = _array("weights", source.weights())
        if values.dtype != dtype:
            raise ParameterError(f"weights are {values.dtype}, but their data_type is {dtype.name}: give that")
        values = _laid_out(d, values, "OHW" if values.ndim == 3 else "OHWI")
        bias = source.bias_terms()
        return Weights(d, values, None if bias is None else _bias(d, bias))


@contextmanager
def _loaded(source: Any) -> Iterator[None]:
    """In this context a data source is loaded; it is purged if it was."""
    if not source.load():
        raise ParameterError("load of weights returned False: let it return True once the weights are there")
    try:
        yield
    finally:
        source.purge()


def _is_uint8(data_type: Any) -> bool:
    try:
        return bool(np.dtype(data_type) == np.uint8)
    except TypeError:
        return False


def _dtype(data_type: Any) -> np.dtype[Any]:
    names = {MPSDataType.float16: "float16", MPSDataType.float32: "float32"}
    try:
        dtype: np.dtype[Any] = np.dtype(names.get(data_type, data_type))
    except TypeError:
        dtype = np.dtype(object)
    if dtype not in (np.float16, np.float32):
        raise ParameterError(f"data_type of weights is {shown(data_type)}: give float16 or float32")
    return dtype


def _array(name: str, array: npt.ArrayLike) -> npt.NDArray[Any]:
    try:
        return array_or_error(array, name)
    except ImageError as error:
        raise ParameterError(str(error)) from None


def _numbers(name: str, array: npt.ArrayLike) -> npt.NDArray[Any]:
    numbers = _array(name, array)
    if numbers.dtype.kind not in "fiu" or numbers.dtype == np.uint8:
        raise ParameterError(f"{name} are {numbers.dtype}: give float16 or float32")
    with np.errstate(all="ignore"):
        return numbers if numbers.dtype == np.float16 else numbers.astype(np.float32)


def _laid_out(d: MPSCNNConvolutionDescriptor, values: npt.NDArray[Any], layout: str) -> npt.NDArray[Any]:
    """Weights as OHWI."""
    if type(layout) is not str or layout not in LAYOUTS:
        raise ParameterError(f"layout is {shown(layout)}: choose one of {', '.join(LAYOUTS)}")
    d.check()
    sizes = dict(zip("OHWI", d.weights_shape, strict=True))
    expected = tuple(sizes[axis] for axis in layout)
    if (layout == "OHW" and not d.is_depthwise) or values.shape != expected:
        raise ParameterError(
            f"weights have shape {values.shape}: the descriptor asks for {expected}, {layout}"
            + (" of a depthwise convolution" if layout == "OHW" else "")
        )
    if layout == "OHW":
        return np.ascontiguousarray(values[..., np.newaxis])
    return np.ascontiguousarray(values.transpose([layout.index(axis) for axis in "OHWI"]))


def _bias(d: MPSCNNConvolutionDescriptor, terms: npt.ArrayLike) -> npt.NDArray[np.float32]:
    bias = _numbers("bias_terms", terms).astype(np.float32)
    if bias.shape != (d.output_feature_channels,):
        raise ParameterError(f"bias_terms have shape {bias.shape}: give {d.output_feature_channels}, one per channel")
    return bias
