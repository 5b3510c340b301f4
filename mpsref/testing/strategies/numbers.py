"""Numbers of a storage format, and arrays of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any, TypeAlias

import hypothesis.errors
import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mpsref.arrays import meaning
from mpsref.enums import MPSImageFeatureChannelFormat
from mpsref.errors import ImageError, shown
from mpsref.formats import ARRAYS, IMAGES, format_among
from mpsref.neuron.descriptor import MPSNNNeuronDescriptor, NeuronLike
from mpsref.record.samples import edges
from mpsref.storage import FLOAT64, FORMATS, ArrayFormat, StorageFormat
from mpsref.testing.strategies.arguments import InvalidArgument, flag, neuron_or_invalid, number, strategy

__all__ = ["Format", "floats", "formats", "sources"]

Format: TypeAlias = MPSImageFeatureChannelFormat | str | type[np.generic] | np.dtype[Any]
"""A storage format: Apple's member, its name, or a dtype: ``"float16"``, ``np.uint8`` for unorm8; float64, bfloat16."""

STORAGES = {storage.name: storage for storage in (*FORMATS.values(), FLOAT64)}
MODERATE = 16.0
MOST_ELEMENTS = 2**24
SIMPLEST_FIRST = "float32", "float16", "unorm8", "unorm16"

NARROWER = {
    "float64": ("float32", "float16"),
    "float32": ("float16", "unorm8", "unorm16"),
    "float16": ("unorm8",),
    "bfloat16": ("unorm8",),
    "unorm16": ("unorm8",),
    "unorm8": (),
}
"""The formats between whose values numbers of a format can lie."""


@st.composite
def formats(draw: st.DrawFn, *, floating: bool = False) -> MPSImageFeatureChannelFormat:
    """
    A strategy for the formats that an image can have: float32, float16, and, unless `floating`, unorm8 and unorm16.

    Examples
    --------
    >>> from hypothesis import find
    >>> from mpsref.testing import strategies as mpst
    >>> find(mpst.formats(), lambda f: True)
    <MPSImageFeatureChannelFormat.float32: 4>
    """
    flag(floating, "floating")
    names = [name for name in SIMPLEST_FIRST if not (floating and STORAGES[name].unorm_max)]
    return draw(st.sampled_from([STORAGES[name].of_image("format") for name in names]))


@st.composite
def floats(
    draw: st.DrawFn,
    format: Format = "float32",
    *,
    neuron: NeuronLike | None = None,
    min_value: float | None = None,
    max_value: float | None = None,
    allow_nan: bool | None = None,
    allow_infinity: bool | None = None,
    allow_subnormal: bool = True,
) -> Any:
    """
    A strategy for numbers of a storage format, as numpy scalars of its dtype; for unorm, codes.

    Parameters
    ----------
    format : MPSImageFeatureChannelFormat, str or dtype
        One of the four formats of an image, or float64; ``uint8`` means unorm8, and ``uint16`` unorm16.
    neuron : MPSNNNeuronDescriptor, MPSCNNNeuronType or str, optional
        Draws its kinks too, the edges of its domain and range, such as where it saturates, overflows or vanishes, and
        the neighbours of both.
    min_value, max_value : float, optional
        Inclusive bounds that the format can hold; a bound of 0 includes both zeros. For unorm they are codes.
    allow_nan, allow_infinity : bool, optional
        As for `hypothesis.strategies.floats`: by default allowed where the bounds leave room. unorm has neither.
    allow_subnormal : bool
        Whether subnormal numbers of the format are drawn.

    Notes
    -----
    Favours numbers below 16, integers, signed zeros, ones and their neighbours, the ends of the finite, normal and
    subnormal numbers, infinities, NaN of either sign and with a payload; and numbers on a rounding boundary of a
    narrower format or 1 ULP beside it, such as a float32 midway between two float16.

    Shrinks as `hypothesis.strategies.floats` does, towards 0.

    Examples
    --------
    >>> from hypothesis import find
    >>> import mpsref as mps
    >>> from mpsref.testing import strategies as mpst
    >>> find(mpst.floats("float16"), lambda x: x > 1)
    np.float16(2.0)
    >>> relun = mps.MPSNNNeuronDescriptor(mps.MPSCNNNeuronType.reLUN)
    >>> find(mpst.floats("float16", neuron=relun), lambda x: 6 - x == 2**-8)  # 1 ULP below its kink
    np.float16(5.996)
    """
    storage = storage_or_invalid(format)
    neuron = neuron_or_invalid(neuron)
    number(min_value, "min_value")
    number(max_value, "max_value")
    flag(allow_nan, "allow_nan", is_optional=True)
    flag(allow_infinity, "allow_infinity", is_optional=True)
    flag(allow_subnormal, "allow_subnormal")
    # A bound of either zero includes both.
    low, high = -0.0 if min_value == 0 else min_value, 0.0 if max_value == 0 else max_value
    return draw(_numbers(storage, neuron, low, high, allow_nan, allow_infinity, allow_subnormal))


@st.composite
def sources(
    draw: st.DrawFn,
    /,
    format: Format = "float32",
    *,
    shape: tuple[int, ...] | st.SearchStrategy[tuple[int, ...]] | None = None,
    neuron: NeuronLike | None = None,
    **options: Any,
) -> npt.NDArray[Any]:
    """
    A strategy for arrays of `floats`.

    Parameters
    ----------
    format, neuron
        As for `floats`.
    shape : tuple of int, or strategy, optional
        Default: up to two axes, the last as long as pReLU has slopes.
    **options
        Other arguments of `floats`.

    Examples
    --------
    >>> from hypothesis import find
    >>> from mpsref.testing import strategies as mpst
    >>> find(mpst.sources("float16", shape=(3,)), lambda x: (x > 1).any())
    array([0., 0., 2.], dtype=float16)
    """
    dtype = storage_or_invalid(format).dtype
    neuron = neuron_or_invalid(neuron)
    if isinstance(shape, tuple):
        if not all(type(n) is int and n >= 0 for n in shape) or math.prod(shape) > MOST_ELEMENTS:
            raise InvalidArgument(f"shape={shown(shape)} must have no negative number, only integers, and not too many")
    elif shape is not None:
        strategy(shape, tuple, "shape")
    if shape is None:
        slopes = None if neuron is None else neuron.data
        shape = hnp.array_shapes(max_dims=2, max_side=6)
        if slopes is not None:
            shape = st.integers(1, 6).map(lambda pixels: (pixels, len(slopes)))
    return draw(hnp.arrays(dtype, shape, elements=floats(format, neuron=neuron, **options), fill=st.nothing()))


def storage_or_invalid(format: Format, *, of_images: bool = False) -> StorageFormat:
    """The storage format that is meant, of an image or float64; raises `InvalidArgument` if there is none."""
    names = IMAGES if of_images else (*ARRAYS, FLOAT64.name)
    try:
        return format_among(format, among=names)
    except ImageError:
        choices = f"{', '.join(names)}, or the dtype of one"
        raise InvalidArgument(f"format={shown(format)} must be one of {choices}") from None


@lru_cache(maxsize=512)
def _numbers(
    storage: StorageFormat,
    neuron: MPSNNNeuronDescriptor | None,
    min_value: float | None,
    max_value: float | None,
    allow_nan: bool | None,
    allow_infinity: bool | None,
    allow_subnormal: bool,
) -> st.SearchStrategy[Any]:
    """The strategy of `floats`, which is built once."""
    kind = storage.dtype.type
    everything: st.SearchStrategy[Any]
    if storage.unorm_max:
        if allow_nan or allow_infinity:
            raise InvalidArgument(f"{storage.name} has no NaN and no infinity: leave out allow_nan and allow_infinity")
        low = 0 if min_value is None else min_value
        high = storage.unorm_max if max_value is None else max_value
        if low % 1 or high % 1 or not 0 <= low <= high <= storage.unorm_max:
            raise InvalidArgument(f"{min_value=} and {max_value=} must be codes of {storage.name}")
        everything = st.integers(int(low), int(high)).map(kind)
        bounds = int(low), int(high)
    else:
        everything = st.floats(
            min_value,
            max_value,
            allow_nan=allow_nan,
            allow_infinity=allow_infinity,
            allow_subnormal=None if allow_subnormal else False,  # None: where the bounds leave room
            width=8 * storage.dtype.itemsize,  # type: ignore[arg-type]
        ).map(kind)
        try:
            everything.validate()
        except OverflowError:
            raise InvalidArgument(f"{min_value=} and {max_value=} must be finite in {storage.name}") from None
        except hypothesis.errors.InvalidArgument as error:
            raise InvalidArgument(str(error)) from None
        infinity = _ordinal(storage, np.inf)
        reach = infinity - (allow_infinity is False)
        bounds = (
            -reach if min_value is None else _ordinal(storage, min_value),
            reach if max_value is None else _ordinal(storage, max_value),
        )
        if allow_nan is None:
            allow_nan = min_value is None and max_value is None
    within = _Within(storage, bounds, allow_subnormal)
    if within.is_empty:
        raise InvalidArgument(f"between {min_value=} and {max_value=} all are subnormal: leave out allow_subnormal")

    parts = [everything, within.moderate(), within.integers(), within.subnormal()]
    parts += [within.sampled(some) for some in _specials(storage)]
    if not storage.unorm_max:
        infinities = [infinity for infinity in np.array([np.inf, -np.inf], storage.dtype) if infinity in within]
        nonfinite = [*infinities, *(_nans(storage) if allow_nan else ())]
        parts.append(st.sampled_from(nonfinite) if nonfinite else None)
    parts += [within.midway(STORAGES[name]) for name in NARROWER[storage.name]]
    if neuron is not None:
        kinks = neuron.row.kinks(neuron)
        parts.append(within.sampled(_beside(storage, kinks)))
        # Only when one is drawn: searching for edges takes a while.
        parts.append(st.just(neuron).flatmap(lambda one: _at_edges(within, one, everything)))
    return st.one_of([part for part in parts if part is not None])


def _at_edges(
    within: _Within, neuron: MPSNNNeuronDescriptor, otherwise: st.SearchStrategy[Any]
) -> st.SearchStrategy[Any]:
    sampled = within.sampled(_beside(within.storage, _edges(neuron)))
    return otherwise if sampled is None else sampled


@lru_cache(maxsize=512)
def _edges(neuron: MPSNNNeuronDescriptor) -> list[float]:
    single = neuron if neuron.data is None else MPSNNNeuronDescriptor(neuron.neuron_type, data=neuron.data[:1])
    return [float(edge) for edge in edges(single)]


class _Within:
    """Parts of a strategy, restricted to numbers within bounds, which are ordinals."""

    def __init__(self, storage: StorageFormat, bounds: tuple[int, int], allow_subnormal: bool) -> None:
        self.storage = storage
        self.low, self.high = bounds
        no_subnormal = not (storage.unorm_max or allow_subnormal)
        self.least = _ordinal(storage, float(storage.limits.smallest_normal)) if no_subnormal else 0

    @property
    def is_empty(self) -> bool:
        """Whether all numbers within the bounds are subnormal and excluded."""
        return (0 < self.low <= self.high < self.least) or (-self.least < self.low <= self.high < 0)

    def __contains__(self, number: Any) -> bool:
        ordinal = _ordinal(self.storage, number)
        return self.low <= ordinal <= self.high and (ordinal == 0 or abs(ordinal) >= self.least)

    def sampled(self, numbers: Iterable[Any]) -> st.SearchStrategy[Any] | None:
        """Some numbers, simplest first, or None if all are out of bounds."""
        inside = [number for number in numbers if number in self]
        return st.sampled_from(inside) if inside else None

    def _ends(self) -> tuple[float, float]:
        return float(_number(self.storage, self.low)), float(_number(self.storage, self.high))

    def moderate(self) -> st.SearchStrategy[Any] | None:
        """Numbers in the range where most neurons are not saturated."""
        low, high = self._ends()
        low, high = max(low, -MODERATE), min(high, MODERATE)
        if self.storage.unorm_max or low > high:
            return None
        if self.storage.channel_format is ArrayFormat.bfloat16:
            ordinals = st.integers(_ordinal(self.storage, low), _ordinal(self.storage, high))
            return ordinals.map(lambda ordinal: _number(self.storage, ordinal)).filter(self.__contains__)
        width: Any = 8 * self.storage.dtype.itemsize
        allow_subnormal = False if self.least else None
        return st.floats(low, high, width=width, allow_subnormal=allow_subnormal).map(self.storage.dtype.type)

    def subnormal(self) -> st.SearchStrategy[Any] | None:
        """Subnormal numbers, if allowed."""
        if self.storage.unorm_max or self.least:
            return None
        last = _ordinal(self.storage, float(self.storage.limits.smallest_normal)) - 1
        low, high = max(self.low, -last), min(self.high, last)
        return st.integers(low, high).map(lambda ordinal: _number(self.storage, ordinal)) if low <= high else None

    def integers(self) -> st.SearchStrategy[Any] | None:
        """Integers up to where the format skips some."""
        if self.storage.unorm_max:
            return None
        largest = 1 << self.storage.precision
        low, high = self._ends()
        if low > largest or high < -largest:
            return None
        low, high = math.ceil(max(low, -largest)), math.floor(min(high, largest))
        return st.integers(low, high).map(self.storage.dtype.type) if low <= high else None

    def midway(self, narrower: StorageFormat) -> st.SearchStrategy[Any] | None:
        """Numbers closest to a rounding boundary of a narrower format, and their neighbours."""
        ends = [_number(self.storage, ordinal) for ordinal in (self.low, self.high)]
        values = meaning(np.array(ends, self.storage.dtype), self.storage)
        low, high = (_ordinal(narrower, _stored(narrower, value)) for value in values.tolist())
        low, high = max(low - 1, -_largest(narrower)), min(high, _largest(narrower) - 1)
        if narrower.unorm_max:
            low = max(low, 0)
        if low > high:
            return None

        def number(ordinal: int, step: int) -> Any:
            beside = _ordinal(self.storage, _midway(narrower, ordinal, self.storage)) + step
            beside = min(max(beside, self.low), self.high)
            return _number(self.storage, 0 if abs(beside) < self.least else beside)

        numbers = st.builds(number, st.integers(low, high), st.sampled_from([0, -1, 1]))
        return numbers.filter(self.__contains__) if self.least else numbers


def _largest(storage: StorageFormat) -> int:
    """The ordinal of infinity, or of the code that means 1."""
    return storage.unorm_max or _ordinal(storage, np.inf)


def _ordinal(storage: StorageFormat, number: Any) -> int:
    return int(storage.ordinals(np.array([number], storage.dtype))[0])


def _number(storage: StorageFormat, ordinal: int) -> Any:
    """The scalar of an ordinal, clipped to what the format has."""
    if storage.unorm_max:
        return storage.dtype.type(min(max(ordinal, 0), storage.unorm_max))
    sign = 1 << (8 * storage.dtype.itemsize - 1) if ordinal < 0 else 0
    return storage.bits_dtype.type(min(abs(ordinal), _largest(storage)) | sign).view(storage.dtype)


def _stored(storage: StorageFormat, value: float) -> Any:
    with np.errstate(all="ignore"):
        return storage.encode(np.array([value]), np.empty(1, storage.dtype))[0]


def _midway(narrower: StorageFormat, ordinal: int, storage: StorageFormat) -> Any:
    """The number midway between two neighbours of a narrower format."""
    if narrower.unorm_max:
        return _stored(storage, (2 * ordinal + 1) / (2 * narrower.unorm_max))
    ends = []
    for end in (ordinal, ordinal + 1):
        value = float(_number(narrower, end))
        # Numbers at least midway to the next power of two round to infinity.
        ends.append(math.copysign(2.0 ** (narrower.limits.maxexp), value) if math.isinf(value) else value)
    return _stored(storage, (ends[0] + ends[1]) / 2)


def _specials(storage: StorageFormat) -> list[list[Any]]:
    """The simplest numbers; and the ends of ranges."""
    if storage.unorm_max:
        most = storage.unorm_max
        return [[storage.dtype.type(code) for code in (0, most, 1, most - 1, most // 2, most // 2 + 1)]]
    limits, one = storage.limits, _ordinal(storage, 1.0)
    first_normal, infinity = _ordinal(storage, limits.smallest_normal), _largest(storage)
    ordinals = (1, first_normal - 1, first_normal, first_normal + 1, one - 1, one + 1, infinity - 1, infinity)
    numbers = [_number(storage, sign * ordinal) for ordinal in ordinals for sign in (1, -1)]
    return [list(np.array([0.0, 1.0, -1.0, -0.0, 0.5, -0.5], storage.dtype)), numbers]


def _nans(storage: StorageFormat) -> Iterator[Any]:
    """NaN, its negative, and two with a payload."""
    quiet = _largest(storage) | 1 << (storage.precision - 2)
    for bits in (quiet, quiet | 1 << (8 * storage.dtype.itemsize - 1), quiet + 1, quiet | (quiet - 1)):
        yield storage.bits_dtype.type(bits).view(storage.dtype)


def _beside(storage: StorageFormat, values: Iterable[float]) -> list[Any]:
    """Values in the format, and the neighbours of each."""
    ordinals = [_ordinal(storage, _stored(storage, value)) for value in values]
    near = [ordinal + step for step in (0, -1, 1) for ordinal in ordinals]
    return [_number(storage, ordinal) for ordinal in sorted(set(near), key=lambda ordinal: (abs(ordinal), ordinal < 0))]
