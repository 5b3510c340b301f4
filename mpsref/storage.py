"""Storage formats: how a number is stored in one feature channel, and read back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import cache, cached_property
from importlib import import_module
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from mpsref.enums import MPSImageFeatureChannelFormat, member_of
from mpsref.errors import CONVERSION_ERRORS, DependencyError, ImageError, described, shown

__all__ = [
    "FLOAT64",
    "FORMATS",
    "ArrayFormat",
    "ChannelFormat",
    "FormatLike",
    "StorageFormat",
    "array_or_error",
    "as_numpy",
    "bfloat16",
    "channel_format_of",
    "image_storage_of",
    "product_error",
    "round_to_odd",
    "storage_format",
    "storage_named",
    "storage_of",
]

Array = npt.NDArray[np.float64]

SMALLEST_NORMAL_HALF, INFINITY = (int(np.float64(value).view(np.int64)) for value in (2.0**-14, np.inf))
"""The bits of two float64."""


class ArrayFormat(IntEnum):
    """Formats of plain arrays that no `MPSImage` has; beyond all numbers of Apple's."""

    bfloat16 = 1 << 16


ChannelFormat: TypeAlias = MPSImageFeatureChannelFormat | ArrayFormat
"""One of Apple's formats, or one that only plain arrays have."""


@dataclass(frozen=True, eq=False)
class StorageFormat:
    """
    One of the four formats of an `MPSImage`; or bfloat16 or float64, which only plain arrays have.

    Attributes
    ----------
    channel_format : MPSImageFeatureChannelFormat or ArrayFormat
        Apple's name; ``none`` for float64.
    dtype : numpy.dtype
        Of one stored element, a code in the unorm formats.
    precision : int
        Bits of numeric precision, as in ``MPSImage.precision``.
    unorm_max : int
        The code that means 1.0; 0 for the floating formats.

    Notes
    -----
    Conversions follow sections 8.6 and 8.7 of the Metal Shading Language Specification.
    """

    channel_format: ChannelFormat
    dtype: np.dtype[Any]
    precision: int
    unorm_max: int = 0

    @property
    def name(self) -> str:
        """``unorm8``, ``unorm16``, ``float16``, ``bfloat16``, ``float32`` or ``float64``."""
        return self.channel_format.name if self.channel_format else "float64"

    def of_image(self, name: str) -> MPSImageFeatureChannelFormat:
        """Apple's format; raises `ImageError`, which calls it `name`, if it is one of plain arrays only."""
        if isinstance(self.channel_format, MPSImageFeatureChannelFormat):
            return self.channel_format
        raise ImageError(f"{name} is {self.name}, in which no MPSImage is: {_CHOICES}")

    @property
    def limits(self) -> Any:
        """What ``numpy.finfo`` says of a floating format."""
        return np.finfo(self.dtype) if self.dtype.kind == "f" else import_module("ml_dtypes").finfo(self.dtype)

    @cached_property
    def native_roundings(self) -> int:
        """How many roundings a kernel that runs in this format may make; -1 where none can run in it."""
        return -1 if self.unorm_max else 0 if self.dtype == np.float16 else 1 if self.dtype == np.float32 else -1

    @property
    def bits_dtype(self) -> np.dtype[Any]:
        """The unsigned integer type as wide as one element."""
        return np.dtype(f"u{self.dtype.itemsize}")

    def decode(self, stored: npt.NDArray[Any], out: Array) -> Array:
        """
        Write the values of `stored` elements into `out`.

        Exact for the floating formats. A unorm code ``v`` means the float32 nearest to ``v / unorm_max``, which is
        what a shader reads (division; a product with the reciprocal would be wrong for many codes).
        """
        if self.unorm_max:
            np.copyto(out, stored.astype(np.float32) / np.float32(self.unorm_max))
        else:
            np.copyto(out, stored)
        return out

    def encode(self, values: Array, out: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """
        Round float64 `values` once, to nearest even, into `out` of this format's dtype.

        A unorm result is clamped to [0, 1], and NaN becomes 0.
        """
        if self.unorm_max:
            code = np.clip(np.nan_to_num(values, nan=0.0), 0.0, 1.0)
            product = code * self.unorm_max
            exact = round_to_odd(product, product_error(code, self.unorm_max, product))
            np.copyto(out, np.rint(exact), casting="unsafe")
        elif self.channel_format is ArrayFormat.bfloat16:
            _to_bfloat16(values, out)
        else:
            np.copyto(out, values, casting="same_kind")
        return out

    def encode_within(
        self,
        values: Array,
        bound: float,
        out: npt.NDArray[Any],
        is_open: npt.NDArray[np.bool_],
        other: npt.NDArray[Any],
    ) -> bool:
        """
        Round values with a relative error `bound`, and set `is_open` where the rounding is not decided (Ziv's test).

        `is_open` is also set for NaN, if the format has NaN. Returns whether it is set anywhere. `other` is scratch
        memory like `out`.
        """
        if self.dtype == np.float16:
            self.encode(values, out)
            _open_in_half(values, bound, is_open)
        else:
            if self.dtype.kind != "f":
                self.encode(values * (1.0 + bound), out)
                self.encode(values * (1.0 - bound), other)
            else:
                np.multiply(values, 1.0 + bound, out=out, casting="same_kind")
                np.multiply(values, 1.0 - bound, out=other, casting="same_kind")
            np.not_equal(out, other, out=is_open)
        return bool(np.count_nonzero(is_open))

    def patterns(self) -> npt.NDArray[Any]:
        """All elements of a format of at most 16 bits, in the order of their bit patterns."""
        return np.arange(1 << (8 * self.dtype.itemsize), dtype=self.bits_dtype).view(self.dtype)

    def ordinals(self, stored: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """
        Integers that number the representable values in order, so that neighbours differ by 1 (one ULP).

        Both zeros are 0. NaN comes after infinity.
        """
        if self.unorm_max:
            return stored.astype(np.int64)
        width = 8 * self.dtype.itemsize
        bits = stored.view(f"i{self.dtype.itemsize}").astype(np.int64)
        return np.where(bits < 0, -(bits & ((1 << (width - 1)) - 1)), bits)


def round_to_odd(total: Array, error: Array) -> Array:
    """
    Turn a rounded sum and its exact error, in place, into the sum rounded to odd.

    Rounding that to a format with at most 51 bits is the same as rounding the exact value once (Boldo and
    Melquiond, "Emulation of a FMA and correctly rounded sums: proved algorithms using rounding to odd", IEEE
    Transactions on Computers 57(4), 2008).
    """
    bits = total.view(np.int64)
    inexact = error != 0
    if inexact.any():
        inexact &= ((bits & 1) == 0) & np.isfinite(error) & np.isfinite(total)
        away = (error > 0) == (total > 0)
        bits[inexact] += np.where(away[inexact], 1, -1)
    return total


def _open_in_half(values: Array, bound: float, is_open: npt.NDArray[np.bool_]) -> None:
    """Where the interval around a float64 holds a midpoint of float16; by bits, since casts to float16 are slow."""
    bits = values.view(np.int64)
    # 42 bits more than float16 has: the midpoint of two normal numbers has only the first of them.
    margin = math.ceil(bound * 2.0**53) + 1
    rest = np.add(bits, (1 << 41) + margin)
    np.bitwise_and(rest, (1 << 42) - 1, out=rest)
    np.less_equal(rest, 2 * margin, out=is_open)
    np.bitwise_and(bits, np.iinfo(np.int64).max, out=rest)
    # Subnormal numbers have fewer bits, and NaN has none.
    special = np.flatnonzero((rest < SMALLEST_NORMAL_HALF) | (rest > INFINITY))
    if special.size:
        some = values[special]
        is_open[special] = (some * (1.0 + bound)).astype(np.float16) != (some * (1.0 - bound)).astype(np.float16)


def _to_bfloat16(values: Array, out: npt.NDArray[Any]) -> None:
    """
    Round float64 once to bfloat16; NaN becomes the canonical one.

    By way of float32, which may land on a midpoint of bfloat16 that the value is only beside: there the next float32
    towards it takes its place.
    """
    near = values.astype(np.float32)
    bits = near.view(np.uint32)
    midpoint = (bits & 0xFFFF) == 0x8000
    if midpoint.any():
        lost = np.abs(values[midpoint]) - np.abs(near[midpoint].astype(np.float64))
        bits[midpoint] += np.sign(lost).astype(np.int32).view(np.uint32)
    nan = np.isnan(near)
    bits += 0x7FFF + ((bits >> 16) & 1)
    bits >>= 16
    bits[nan] = 0x7FC0
    np.copyto(out.view(np.uint16), bits, casting="same_kind")


def product_error(x: Array, y: Array | float, product: Array) -> Array:
    """The exact error of a rounded product, for a y of at most 24 bits."""
    # Veltkamp's split at 29 bits, by masking: both halves times a float32 are exact (Dekker 1971).
    high = (x.view(np.int64) & ~np.int64(0xFFFFFF)).view(np.float64)
    return (high * y - product) + (x - high) * y


_F = MPSImageFeatureChannelFormat
FORMATS: Mapping[MPSImageFeatureChannelFormat, StorageFormat] = MappingProxyType(
    {
        _F.unorm8: StorageFormat(_F.unorm8, np.dtype(np.uint8), 8, 255),
        _F.unorm16: StorageFormat(_F.unorm16, np.dtype(np.uint16), 16, 65535),
        _F.float16: StorageFormat(_F.float16, np.dtype(np.float16), 11),
        _F.float32: StorageFormat(_F.float32, np.dtype(np.float32), 24),
    }
)
"""The four formats that an image can have."""

FLOAT64 = StorageFormat(_F.none, np.dtype(np.float64), 53)
"""For plain arrays only; no image has it."""


@cache
def bfloat16() -> StorageFormat:
    """
    The storage format bfloat16, with the dtype of ``ml_dtypes``.

    Raises
    ------
    DependencyError
        That package is not installed.
    """
    try:
        dtype = np.dtype(import_module("ml_dtypes").bfloat16)
    except ImportError as error:
        raise DependencyError("bfloat16 needs ml_dtypes: python -m pip install 'mpsref[bfloat16]'") from error
    return StorageFormat(ArrayFormat.bfloat16, dtype, 8)


_BY_DTYPE = {storage.dtype: channel_format for channel_format, storage in FORMATS.items()}
_FLOATING = {storage.dtype: storage for storage in (FORMATS[_F.float16], FORMATS[_F.float32], FLOAT64)}


_CHOICES = f"choose one of MPSImageFeatureChannelFormat: {', '.join(f.name for f in FORMATS)}"

FormatLike: TypeAlias = ChannelFormat | str | npt.DTypeLike | StorageFormat
"""A member of Apple's enumeration or `ArrayFormat`, its name, a dtype, or the `StorageFormat` itself."""


def channel_format_of(value: FormatLike) -> ChannelFormat | None:
    """The member for itself, its name or raw value, or a dtype; None if there is none."""
    if isinstance(value, StorageFormat):
        return value.channel_format
    if isinstance(value, np.dtype | type):
        try:
            dtype = np.dtype(value)
        except CONVERSION_ERRORS:
            return None
        return ArrayFormat.bfloat16 if _is_bfloat16(dtype) else _BY_DTYPE.get(dtype)
    if isinstance(value, ArrayFormat):
        return value
    apples = member_of(MPSImageFeatureChannelFormat, value)
    return member_of(ArrayFormat, value) if apples is None else apples


def _is_bfloat16(dtype: np.dtype[Any]) -> bool:
    # Of a registered dtype the kind is V; only where there is one may ml_dtypes be imported.
    return dtype.kind == "V" and dtype.name == "bfloat16"


def storage_named(channel_format: ChannelFormat) -> StorageFormat:
    """The storage format of a member other than ``none``."""
    return bfloat16() if channel_format is ArrayFormat.bfloat16 else FORMATS[channel_format]


def storage_format(value: FormatLike, name: str = "format") -> StorageFormat:
    """
    The storage format for a member of Apple's enumeration or `ArrayFormat`, its name or raw value, or a dtype.

    Raises
    ------
    ImageError
        `value` is ``none``, or no format; the message calls it `name`.
    DependencyError
        It is bfloat16, and ``ml_dtypes`` is not installed.
    """
    channel_format = channel_format_of(value)
    if not channel_format:
        raise ImageError(f"{name} is {shown(value)}: {_CHOICES}")
    return storage_named(channel_format)


def array_or_error(value: npt.ArrayLike, name: str) -> npt.NDArray[Any]:
    """`value` as an array; raises `ImageError` where NumPy cannot convert it, or some of it is masked."""
    if type(value) is np.ndarray:
        return value
    try:
        unmasked_or_error(value, name)
        return as_numpy(value)
    except ImageError:
        raise
    except CONVERSION_ERRORS as error:
        reason = str(error) if type(error) is ValueError else described(error)
        raise ImageError(f"{name}: {reason}: give an array of numbers") from None


def as_numpy(value: Any) -> npt.NDArray[Any]:
    """``numpy.asarray``, also of a tensor of torch or MLX in bfloat16, for which they make no array."""
    if not isinstance(value, np.ndarray) and str(getattr(value, "dtype", "")).endswith(".bfloat16"):
        value = value.detach().cpu() if hasattr(value, "detach") else value
        return np.asarray(value.view(import_module(type(value).__module__).int16)).view(bfloat16().dtype)
    return np.asarray(value)


def unmasked_or_error(value: object, name: str) -> None:
    """Raise `ImageError` for an array, also one in a list, with masked elements, which numpy would forget."""
    if isinstance(value, list | tuple):
        for each in value:
            if isinstance(each, list | tuple | np.ndarray):
                unmasked_or_error(each, name)
    elif isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise ImageError(f"{name} has masked elements, which have no values: fill them first")


def image_storage_of(dtype: np.dtype[Any], name: str) -> StorageFormat:
    """
    The format in which an image stores elements of this dtype.

    Raises
    ------
    ImageError
        There is none; the message calls the array `name`.
    """
    channel_format = _BY_DTYPE.get(dtype)
    if channel_format is not None:
        return FORMATS[channel_format]
    raise ImageError(f"{name} has dtype {dtype}: give float16, float32, uint8 (unorm8) or uint16 (unorm16)")


def storage_of(array: npt.NDArray[Any], name: str) -> StorageFormat:
    """
    The floating storage format with the dtype of `array`.

    Raises
    ------
    ImageError
        The dtype is not float16, bfloat16, float32 or float64 in native byte order.
    """
    storage = _FLOATING.get(array.dtype)
    if storage is None and _is_bfloat16(array.dtype):
        return bfloat16()
    if storage is None:
        raise ImageError(
            f"{name} has dtype {array.dtype}: convert it to float16, float32 or float64 (native byte order) first"
        )
    return storage
