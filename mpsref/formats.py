"""Formats as callers name them, and an error that lists those that a call takes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mpsref.enums import is_double
from mpsref.errors import CONVERSION_ERRORS, ImageError, shown
from mpsref.storage import FLOAT64, FORMATS, ArrayFormat, FormatLike, StorageFormat, channel_format_of, storage_named

__all__ = ["ARRAYS", "COMPUTED", "IMAGES", "format_among"]

IMAGES = tuple(storage.name for storage in FORMATS.values())
"""The formats of images."""

ARRAYS = (*IMAGES, *ArrayFormat.__members__)
"""Those of plain arrays too, except float64."""

COMPUTED = tuple(name for name in ARRAYS if "float" in name)
"""Those in which kernels compute."""


def format_among(value: FormatLike, name: str = "format", among: Sequence[str] = ARRAYS) -> StorageFormat:
    """
    The storage format that a caller means.

    Parameters
    ----------
    value : MPSImageFeatureChannelFormat, str or dtype
        A member of Apple's enumeration, its name or raw value; ``half``, ``float`` as in Metal; a dtype of numpy,
        ``ml_dtypes``, torch, JAX, MLX or TensorFlow, or numpy's name of one.
    name : str
        The argument, for the error.
    among : sequence of str
        The formats that are taken.

    Raises
    ------
    ImageError
        It is none of these.
    DependencyError
        It is bfloat16, and ``ml_dtypes`` is not installed.

    Examples
    --------
    >>> from mpsref.formats import format_among
    >>> format_among("half").name, format_among("MPSImageFeatureChannelFormatFloat32").name
    ('float16', 'float32')
    """
    if _is_float64(value):
        if FLOAT64.name in among:
            return FLOAT64
    elif (channel_format := channel_format_of(value)) and channel_format.name in among:
        return storage_named(channel_format)
    raise ImageError(f"{name} is {shown(value)}: choose one of {', '.join(among)}, or the dtype of one")


def _is_float64(value: FormatLike) -> bool:
    try:
        is_dtype = isinstance(value, np.dtype | type) and FLOAT64.dtype == value
    except CONVERSION_ERRORS:
        return False
    return value is FLOAT64 or is_dtype or is_double(value)
