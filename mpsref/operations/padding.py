"""
Padding policies: the size of the result of a windowed filter, and where its window begins.

On one axis, with ``n`` source pixels, a window of ``k`` taps, a stride ``s`` and a dilation ``d``, the window has the
length ``k' = (k - 1) d + 1``; the policies and their arithmetic are those of ``MPSNeuralNetworkTypes.h``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

from mpsref.enums import MPSImageEdgeMode, MPSImageFeatureChannelFormat, MPSNNPaddingMethod
from mpsref.errors import ImageError, ParameterError
from mpsref.image import MPSImageDescriptor

__all__ = [
    "FixedPadding",
    "MPSNNDefaultPadding",
    "MPSNNPadding",
    "MPSOffset",
    "PaddedKernel",
    "Placement",
    "PolicyLike",
    "place",
    "policy_or_error",
]

Method = MPSNNPaddingMethod

_ALIGN, _REMAINDER, _SIZE = 3, 12, 0x7F0
_STYLES = {Method.sizeValidOnly: -1, Method.sizeSame: 0, Method.sizeFull: 1}

LARGEST = 2**24
"""Pixels of a result along an axis."""


class MPSOffset(NamedTuple):
    """The position in the source of the window of the first result pixel. Source: ``MPSCoreTypes.h``."""

    x: int
    y: int
    z: int = 0


@dataclass
class PaddedKernel:
    """
    What a padding object of your own sees of a filter, and may change.

    Attributes
    ----------
    kernel_width, kernel_height, stride_in_pixels_x, stride_in_pixels_y, dilation_rate_x, dilation_rate_y : int
        Of the window.
    offset : MPSOffset
        The place in the source of the centre of the first window, `kernel_width` // 2 after its first tap (with the
        dilated width). Settable.
    edge_mode : MPSImageEdgeMode
        Of a pooling filter. Settable.
    """

    kernel_width: int
    kernel_height: int
    stride_in_pixels_x: int
    stride_in_pixels_y: int
    dilation_rate_x: int
    dilation_rate_y: int
    offset: MPSOffset
    edge_mode: MPSImageEdgeMode


@runtime_checkable
class MPSNNPadding(Protocol):
    """
    A padding policy of your own; with the bit ``custom`` also ``destination_image_descriptor``. Source: Apple's
    ``MPSNNPadding``.
    """

    def padding_method(self) -> int:
        """Bits of `MPSNNPaddingMethod`."""


class MPSNNDefaultPadding:
    """
    A padding policy of bits.

    Parameters
    ----------
    method : MPSNNPaddingMethod
        An alignment, the side of an odd pixel, a size, and ``excludeEdges`` for average pooling.

    Raises
    ------
    ParameterError
        There is no such combination.

    Examples
    --------
    >>> import mpsref as mps
    >>> M = mps.MPSNNPaddingMethod
    >>> mps.MPSNNDefaultPadding(method=M.sizeSame | M.addRemainderToBottomRight).padding_method()
    <MPSNNPaddingMethod.addRemainderToBottomLeft|addRemainderToTopRight|sizeSame: 28>
    """

    def __init__(self, method: int) -> None:
        self._set(method, "")

    def _set(self, method: Any, name: str) -> None:
        known = isinstance(method, int) and not isinstance(method, bool) and 0 <= method < 2**16
        if not known or method & _ALIGN == _ALIGN or method & _SIZE not in (0, 16, 32) or method & 0x1000:
            raise ParameterError(
                f"method is {method!r}: give bits of MPSNNPaddingMethod: an alignment, the side of an odd pixel, a size"
            )
        if method & Method.custom and not name:
            raise ParameterError("method has the bit custom: give an object of your own, or leave the bit out")
        self._method, self._name = int(method), name

    @classmethod
    def _named(cls, method: int, name: str) -> MPSNNDefaultPadding:
        made = cls.__new__(cls)
        made._set(method, name)
        return made

    @property
    def method(self) -> int:
        """The bits."""
        return self._method

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, MPSNNDefaultPadding):
            return NotImplemented
        return (self._method, self._name) == (other._method, other._name)

    def __hash__(self) -> int:
        return hash((self._method, self._name))

    def __repr__(self) -> str:
        return f"MPSNNDefaultPadding({self._name or self._method})"

    @classmethod
    def for_tensorflow_average_pooling(cls) -> MPSNNDefaultPadding:
        """TensorFlow's ``SAME``: an odd pixel is on the bottom and right. The edge is clamped."""
        return cls._named(
            Method.custom | Method.sizeSame | Method.addRemainderToBottomRight, "forTensorflowAveragePooling"
        )

    @classmethod
    def for_tensorflow_average_pooling_valid_only(cls) -> MPSNNDefaultPadding:
        """TensorFlow's ``VALID``: only windows within the source. The edge is clamped."""
        return cls._named(Method.custom | Method.sizeValidOnly, "forTensorflowAveragePoolingValidOnly")

    def padding_method(self) -> MPSNNPaddingMethod:
        """The bits."""
        return Method(self.method)

    def label(self) -> str:
        """A name for people."""
        return self._name or str(self.padding_method())

    @property
    def name(self) -> str | None:
        """The name of one of TensorFlow's two policies; None for any other."""
        return self._name or None


@dataclass(frozen=True)
class FixedPadding:
    """
    A result size and an offset: what a padding object of one's own came to, as graph files hold it. Not Apple's.

    Parameters
    ----------
    width, height : int
        Of the result.
    offset_x, offset_y : int
        See `PaddedKernel`.
    """

    width: int
    height: int
    offset_x: int
    offset_y: int

    def padding_method(self) -> MPSNNPaddingMethod:
        """The bits."""
        return Method.custom

    def destination_image_descriptor(
        self, *, for_kernel: PaddedKernel, suggested_descriptor: MPSImageDescriptor, **_: object
    ) -> MPSImageDescriptor:
        """Set size and offset."""
        for_kernel.offset = MPSOffset(self.offset_x, self.offset_y)
        return _resized(suggested_descriptor, self.height, self.width)


PolicyLike: TypeAlias = MPSNNDefaultPadding | FixedPadding | MPSNNPadding


def policy_or_error(value: Any) -> PolicyLike:
    """`value`, if it is a padding policy."""
    if not isinstance(value, MPSNNPadding):
        raise ParameterError(
            f"padding_policy is a {type(value).__name__}: give an MPSNNDefaultPadding, or an object that has "
            "padding_method()"
        )
    if not isinstance(value, MPSNNDefaultPadding | FixedPadding):
        MPSNNDefaultPadding._named(int(value.padding_method()), "own")
    return value


class Placement(NamedTuple):
    """
    Where the windows of a filter lie.

    Attributes
    ----------
    size : tuple of int
        Height and width of the result.
    first : tuple of int
        Row and column of the first tap of the first result.
    edge_mode : MPSImageEdgeMode
        Of the edge.
    """

    size: tuple[int, int]
    first: tuple[int, int]
    edge_mode: MPSImageEdgeMode


def place(
    policy: PolicyLike,
    source: tuple[int, int],
    kernel: tuple[int, int],
    strides: tuple[int, int],
    dilations: tuple[int, int],
    edge_mode: MPSImageEdgeMode,
) -> Placement:
    """
    Where the windows of a filter lie: all pairs are of rows and columns.

    Raises
    ------
    ImageError
        The result would have no pixels, or too many.
    """
    method = int(policy.padding_method())
    lengths = tuple((k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True))
    # The remainder goes to the top with the bit of bottom clear, to the left with that of right clear.
    is_low = not method & Method.addRemainderToBottomLeft, not method & Method.addRemainderToTopRight
    axes = [_axis(method, n, k, s, is_low=low) for n, k, s, low in zip(source, lengths, strides, is_low, strict=True)]
    size, first = (axes[0][0], axes[1][0]), (axes[0][1], axes[1][1])
    if method & Method.custom and not isinstance(policy, MPSNNDefaultPadding):
        size, first, edge_mode = _customized(policy, source, size, first, kernel, strides, dilations, edge_mode)
    for name, pixels, n, k in zip(("height", "width"), size, source, lengths, strict=True):
        if not 1 <= pixels <= LARGEST:
            raise ImageError(f"{name}: a window of {k} on a source of {n} gives {pixels}: give a larger source")
    return Placement(size, first, edge_mode)


def _axis(method: int, n: int, k: int, s: int, *, is_low: bool) -> tuple[int, int]:
    """The size of the result along an axis, and its first tap."""
    style = _STYLES[Method(method & _SIZE)]
    size = -(-(n + style * (k - 1)) // s)
    extra = (size - 1) * s + k - n
    if method & _ALIGN == Method.alignTopLeft:
        share = extra
    elif method & _ALIGN == Method.alignBottomRight:
        share = 0
    else:
        share = int((extra + is_low) / 2)  # an integer division of C, towards 0
    return size, -share


def _customized(
    policy: Any,
    source: tuple[int, int],
    size: tuple[int, int],
    first: tuple[int, int],
    kernel: tuple[int, int],
    strides: tuple[int, int],
    dilations: tuple[int, int],
    edge_mode: MPSImageEdgeMode,
) -> tuple[tuple[int, int], tuple[int, int], MPSImageEdgeMode]:
    """What an object of one's own makes of the suggestion."""
    half = tuple(((k - 1) * d + 1) // 2 for k, d in zip(kernel, dilations, strict=True))
    offset = MPSOffset(first[1] + half[1], first[0] + half[0])
    own = PaddedKernel(*kernel[::-1], *strides[::-1], *dilations[::-1], offset, edge_mode)
    read = MPSImageDescriptor(
        channel_format=MPSImageFeatureChannelFormat.float16, width=source[1], height=source[0], feature_channels=1
    )
    suggested = _resized(read, max(size[0], 1), max(size[1], 1))
    images: Sequence[MPSImageDescriptor] = [read]
    ask = getattr(policy, "destination_image_descriptor", None)
    if not callable(ask):
        raise ParameterError("padding_policy has the bit custom, but no destination_image_descriptor: add it")
    made = ask(for_source_images=images, source_states=None, for_kernel=own, suggested_descriptor=suggested)
    if not isinstance(made, MPSImageDescriptor):
        raise ParameterError(
            f"destination_image_descriptor of padding_policy returned a {type(made).__name__}: return a descriptor"
        )
    return (made.height, made.width), (own.offset.y - half[0], own.offset.x - half[1]), MPSImageEdgeMode(own.edge_mode)


def _resized(d: MPSImageDescriptor, height: int, width: int) -> MPSImageDescriptor:
    return MPSImageDescriptor(
        channel_format=d.channel_format,
        width=width,
        height=height,
        feature_channels=d.feature_channels,
        number_of_images=d.number_of_images,
    )
