"""Apple's and Metal's enumerations under their Swift names, with their raw values."""

from __future__ import annotations

import operator
from enum import Enum, IntEnum, IntFlag
from typing import TypeVar

__all__ = [
    "MPSCNNNeuronType",
    "MPSDataLayout",
    "MPSDataType",
    "MPSImageEdgeMode",
    "MPSImageFeatureChannelFormat",
    "MPSNNConvolutionAccumulatorPrecisionOption",
    "MPSNNPaddingMethod",
    "MPSNNTrainingStyle",
    "MTLPixelFormat",
    "MTLTextureType",
]

_E = TypeVar("_E", bound=IntEnum)


_SPELLINGS = {
    "half": "float16", "f2": "float16", "float": "float32", "single": "float32", "f4": "float32",
    "uint8": "unorm8", "u1": "unorm8", "uint16": "unorm16", "u2": "unorm16", "double": "float64", "f8": "float64",
}  # fmt: skip
"""Formats as Metal and numpy call them."""


def member_of(enum: type[_E], value: object) -> _E | None:
    """
    The member for itself, its name, Apple's whole name or its raw value; None if there is none.

    Formats also for another name, or the dtype of torch, MLX or TensorFlow.
    """
    if isinstance(value, enum):
        return value
    if (text := name_in(value)) is not None:
        if text.startswith(enum.__name__):
            text = text.removeprefix(enum.__name__)
            text = text[:1].lower() + text[1:]
        return enum.__members__.get(text if text in enum.__members__ else _SPELLINGS.get(text, ""))
    if isinstance(value, bool | Enum):
        return None
    try:
        return enum(operator.index(value))  # type: ignore[arg-type]
    except Exception:  # noqa: BLE001  somebody's object may raise anything
        return None


def name_in(value: object) -> str | None:
    """The name that text or a library's dtype, such as ``torch.float16``, has for a format; None of other values."""
    if isinstance(value, str):
        return str.__str__(value).lstrip("<=|")
    if type(value).__name__.lower() != "dtype":
        return None
    try:
        return str(value).rpartition(".")[2].strip("<>' ").removeprefix("dtype: '")
    except Exception:  # noqa: BLE001  somebody's object may raise anything
        return None


def is_double(value: object) -> bool:
    """Whether text or a library's dtype means float64."""
    name = name_in(value)
    return name is not None and _SPELLINGS.get(name, name) == "float64"


class MPSCNNNeuronType(IntEnum):
    """
    The sixteen neuron types, without Apple's sentinel ``count``.

    Source: ``MPSCNNNeuronType.h``.

    Examples
    --------
    >>> MPSCNNNeuronType.geLU
    <MPSCNNNeuronType.geLU: 15>
    """

    none = 0
    reLU = 1
    linear = 2
    sigmoid = 3
    hardSigmoid = 4
    tanH = 5
    absolute = 6
    softPlus = 7
    softSign = 8
    ELU = 9
    pReLU = 10
    reLUN = 11
    power = 12
    exponential = 13
    logarithm = 14
    geLU = 15


class ActivationType(Enum):
    """The activations that are not Apple's, under torch's names where it has one."""

    silu = "silu"
    quick_gelu = "quick_gelu"
    gelu_tanh = "gelu_tanh"
    mish = "mish"
    hardswish = "hardswish"
    hardsigmoid = "hardsigmoid"
    selu = "selu"
    celu = "celu"
    logsigmoid = "logsigmoid"
    softplus = "softplus"
    relu_squared = "relu_squared"
    tanhshrink = "tanhshrink"
    softshrink = "softshrink"
    hardshrink = "hardshrink"


class MPSImageFeatureChannelFormat(IntEnum):
    """
    How a feature channel is stored; ``none`` leaves it to the graph. Without Apple's ``_reserved0`` and ``count``.

    Source: ``MPSCoreTypes.h``.
    """

    none = 0
    unorm8 = 1
    unorm16 = 2
    float16 = 3
    float32 = 4


class MPSDataLayout(IntEnum):
    """The order of the elements of an image in a byte buffer. Source: ``MPSImage.h``."""

    HeightxWidthxFeatureChannels = 0
    featureChannelsxHeightxWidth = 1


class MPSDataType(IntEnum):
    """The types of weights that a data source can have here. Source: ``MPSCoreTypes.h``, which has more."""

    uInt8 = 8
    float16 = 0x10000010
    float32 = 0x10000020


class MPSImageEdgeMode(IntEnum):
    """What a window reads outside of its source; pooling takes the first two. Source: ``MPSImageTypes.h``."""

    zero = 0
    clamp = 1


class MPSNNConvolutionAccumulatorPrecisionOption(IntEnum):
    """How the sum of a convolution is accumulated. Source: ``MPSCNNConvolution.h``."""

    half = 0
    float = 1


class MPSNNPaddingMethod(IntFlag):
    """Bits of a padding policy: alignment, the side of an odd pixel, size. Source: ``MPSNeuralNetworkTypes.h``."""

    alignCentered = 0
    alignTopLeft = 1
    alignBottomRight = 2
    addRemainderToTopLeft = 0
    addRemainderToTopRight = 4
    addRemainderToBottomLeft = 8
    addRemainderToBottomRight = 12
    sizeValidOnly = 0
    sizeSame = 16
    sizeFull = 32
    customAllowForNodeFusion = 8192
    custom = 16384
    excludeEdges = 32768


class MPSNNTrainingStyle(IntEnum):
    """Where weights are updated, which is left to the caller here. Source: ``MPSNeuralNetworkTypes.h``."""

    updateDeviceNone = 0
    updateDeviceCPU = 1
    updateDeviceGPU = 2


class MTLTextureType(IntEnum):
    """The texture types of an `MPSImage`. Source: Metal."""

    type2D = 2
    type2DArray = 3


class MTLPixelFormat(IntEnum):
    """The pixel formats of an `MPSImage`. Source: Metal."""

    r8Unorm = 10
    r16Unorm = 20
    r16Float = 25
    rg8Unorm = 30
    r32Float = 55
    rg16Unorm = 60
    rg16Float = 65
    rgba8Unorm = 70
    rg32Float = 105
    rgba16Unorm = 110
    rgba16Float = 115
    rgba32Float = 125
