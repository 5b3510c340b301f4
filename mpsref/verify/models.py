"""What devices promise of their arithmetic: the error of each operation, and how it is rounded."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np

from mpsref.arrays import Wide
from mpsref.enums import MPSImageFeatureChannelFormat
from mpsref.storage import FORMATS, ArrayFormat, ChannelFormat, StorageFormat, storage_named

__all__ = ["FLOAT64_ERROR", "MODELS", "ROUNDED", "Law", "Model", "models_of"]

F = MPSImageFeatureChannelFormat
FLOAT64_ERROR = 2.0**-49
"""More than the relative error of a few operations of this analysis in float64."""


@dataclass(frozen=True)
class Law:
    """
    The error that one operation may have.

    Attributes
    ----------
    ulp : float
        Units in the last place of the format of the computation, at the exact result; 0.5: correctly rounded.
    growth : float
        Further ULP for each unit of the argument's magnitude.
    whole : bool
        Whether these are rounded down.
    near_one : float
        For a logarithm: the absolute error for arguments in [0.5, 2] instead; 0 if there is no such rule.
    absolute : float
        A further error, in absolute terms.
    either : bool
        Whether the result is either neighbour of the exact one, which stays exact where the format has it.
    """

    ulp: float
    growth: float = 0.0
    near_one: float = 0.0
    whole: bool = True
    absolute: float = 0.0
    either: bool = False

    def __str__(self) -> str:
        if self.either:
            return "either neighbour"
        if self.ulp == 0.5:
            return "correctly rounded"
        if self.absolute:
            return f"{self.absolute:g} absolute"
        growth = f"{self.growth:g} abs(x)"
        growth = "" if not self.growth else f" + floor({growth})" if self.whole else f" + {growth}"
        near = f"; 2^{np.log2(self.near_one):g} absolute on [0.5, 2]" if self.near_one else ""
        return f"{self.ulp:g}{growth} ULP{near}"

    @property
    def is_rounding(self) -> bool:
        """Whether exact results stay exact."""
        return self.either or self.ulp == 0.5


ROUNDED = Law(0.5)


@dataclass(frozen=True, eq=False)
class Model:
    """
    What a device promises of its arithmetic.

    Attributes
    ----------
    name, source : str
        Its name, and the document that states the promise.
    laws : Mapping of str to Law
        For each operation: ``arithmetic`` (sum, difference, product), ``reciprocal``, ``division``, ``exp``, ``exp2``,
        ``log``, ``log2``, ``erf``, ``expm1``, ``log1p``, ``tanh`` and ``pow``. Without the last two they are
        ``(t - 1) / (t + 1)`` with ``t = e^2x``, or as `tanh_is_sinh_by_cosh` says, and ``2^(y log2 x)``.
    channel_format : MPSImageFeatureChannelFormat or ArrayFormat
        The format of the computation.
    flushes : bool
        Whether its subnormals may become zero.
    nan_is_defined : bool
        Whether the handling of NaN is promised.
    others : Mapping of str to Law or None
        For functions that a kernel may compute in another way as well, the law of that; None for the expression above.
    tanh_is_sinh_by_cosh : bool
        Whether tanh without a law is ``(e^x - e^-x) / (e^x + e^-x)``.
    is_finite : bool
        Whether numbers are assumed to be finite: an overflow, an operand outside its domain, an infinity or NaN leaves
        the result open.
    """

    name: str
    source: str
    laws: Mapping[str, Law] = field(repr=False)
    channel_format: ChannelFormat = F.float32
    flushes: bool = True
    nan_is_defined: bool = False
    others: Mapping[str, Law | None] = field(default_factory=dict, repr=False)
    tanh_is_sinh_by_cosh: bool = False
    is_finite: bool = False

    @property
    def rounds_either_way(self) -> bool:
        """Whether sums, products and stores may give either neighbour; errors then end at the next number outwards."""
        return self.laws["arithmetic"].either

    @property
    def variants(self) -> tuple[Model, ...]:
        """The model, and the one with the laws of `others`."""
        if not self.others:
            return (self,)
        laws = {name: law for name, law in {**self.laws, **self.others}.items() if law is not None}
        return self, replace(self, laws=laws, others={})

    @property
    def storage(self) -> StorageFormat:
        """The format of the computation."""
        return storage_named(self.channel_format)

    @cached_property
    def unit(self) -> float:
        """One ULP of a number in [1, 2)."""
        return 2.0 ** (1 - self.precision)

    # By numbers, so that no model needs the package that has the dtype bfloat16.

    @cached_property
    def precision(self) -> int:
        """Bits of the significand."""
        return 8 if self.channel_format is ArrayFormat.bfloat16 else storage_named(self.channel_format).precision

    @cached_property
    def smallest(self) -> tuple[float, float]:
        """The smallest normal and the smallest subnormal number."""
        normal = 2.0**-14 if self.channel_format is F.float16 else 2.0**-126
        return normal, normal * self.unit

    @cached_property
    def limit(self) -> float:
        """The bound beyond which numbers may become infinite."""
        largest = (2.0 - self.unit) * 2.0 / self.smallest[0]
        return largest if self.rounds_either_way else largest * (1.0 + self.unit / 4)

    # ---- rounding, with exponents as large as float64 has ----

    def nearest(self, x: Wide) -> Wide:
        """The nearest number of the format; of two, either."""
        normal, tiny = self.smallest
        split = x * (2.0 ** (53 - self.precision) + 1)
        near: Wide = split - (split - x)
        small = np.abs(x) < normal
        if small.any():
            whole = 1.5 * 2.0**52 * tiny
            near = np.where(small, (x + whole) - whole, near)
        finite = np.isfinite(near)
        return near if finite.all() else np.where(finite, near, x)

    def ulp(self, x: Wide) -> Wide:
        """The distance of the neighbours between which a number lies; at a power of two the larger."""
        x = np.asarray(x)
        # By the bits of float64, since frexp and ldexp are slow.
        exponent = ((x.view(np.int64) >> 52) & 0x7FF) + (1 - self.precision)
        least = 1023 + round(math.log2(self.smallest[1]))
        ulp: Wide = (np.maximum(exponent, least) << 52).view(np.float64)
        return ulp

    def widened(self, low: Wide, high: Wide, law: Law, units: Any = None) -> tuple[Wide, Wide]:
        """The range of computed results from that of exact ones."""
        if law.either:
            return -self._above(-low), self._above(high)
        if law.ulp == 0.5:
            # Numbers of the format stay what they are; a zero has a sign of its own.
            if low is high and ((self.nearest(low) == low) & (low != 0)).all():
                return low, high
            # Rounding is monotone; the margin also takes both neighbours of a midpoint. A device may also not round, as
            # where it fuses a product with a sum, or keeps more digits.
            down, up = low * (1 - np.copysign(2.0**-51, low)), high * (1 + np.copysign(2.0**-51, high))
            return np.fmin(low, self.nearest(down)), np.fmax(high, self.nearest(up))
        units = law.ulp if units is None else units
        low, high = -self._raised(-high, -low, units) - law.absolute, self._raised(low, high, units) + law.absolute
        return self.outwards(low, high)

    def outwards(self, low: Wide, high: Wide) -> tuple[Wide, Wide]:
        """The range, as far as the next numbers of the format if results may be either neighbour."""
        return (-self._above(-low), self._above(high)) if self.rounds_either_way else (low, high)

    def _above(self, x: Wide) -> Wide:
        """The least number of the format that is at least `x`."""
        near = np.asarray(self.nearest(x))
        # The next number inwards, if it is negative: the ULP above a negative power of two is the smaller one.
        inwards = (near.view(np.int64) - (near < 0)).view(np.float64)
        return np.where(near < x, near + self.ulp(inwards), near)

    def _raised(self, low: Wide, high: Wide, units: Any) -> Wide:
        """The least upper bound of ``v + units ulp(v)``, v from `low` to `high`; zeros and infinities have no ULP."""
        low, high = np.asarray(low), np.asarray(high)
        # Above the power of two next to a negative number the ULP is half as large as below it.
        power = -((high.view(np.int64) & (0x7FF << 52)) + (1 << 52)).view(np.float64)
        top = np.asarray(high + units * self.ulp(high))
        steps = (high < 0) & (power >= low)
        if steps.any():
            power = power[steps]
            top[steps] = np.fmax(top[steps], power + np.broadcast_to(units, top.shape)[steps] * self.ulp(power))
        top = top + FLOAT64_ERROR * np.abs(high)
        same = np.isinf(high) | (high == 0)
        if same.any():
            # Numbers next to a zero have the least ULP.
            top = np.where(same, np.where((high == 0) & (low < 0), units * self.smallest[1], high), top)
        return top


_SPECIFICATION = "Metal Shading Language Specification, section 8"
_EXACT = {"arithmetic": ROUNDED, "reciprocal": ROUNDED, "division": ROUNDED}
_OWN = {"expm1": Law(2), "log1p": Law(4)}
"""
Functions that kernels bring along: known ones err by 1 ULP (expm1 of CUDA and MLX, whose own operations may be
contracted), and as much as the logarithm that log1p is made of.
"""
_OWN_SHORT = dict.fromkeys(_OWN, Law(1))


def _wgsl(name: str, kind: str, exp: float, near_one: float, channel_format: ChannelFormat) -> Model:
    """A model of WGSL, from a column of its table."""
    return Model(
        name,
        f"WGSL, accuracy of concrete floating point expressions, {kind} (gpuweb da251f90); erf is not in the language: "
        "as in Metal's; of tanh the worse of two",
        {"arithmetic": Law(1, either=True), "reciprocal": Law(2.5), "division": Law(2.5), "erf": Law(4)}
        | _OWN
        | dict.fromkeys(("exp", "exp2"), Law(exp, growth=2, whole=False))
        | dict.fromkeys(("log", "log2"), Law(3, near_one=near_one))
        | {"tanh": Law(0, absolute=1e-5)},
        channel_format=channel_format,
        others={"tanh": None},
        tanh_is_sinh_by_cosh=True,
        is_finite=True,
    )


MODELS: Mapping[str, Model] = MappingProxyType(
    {
        model.name: model
        for model in (
            Model(
                "metal-precise",
                f"{_SPECIFICATION}, table 8.1; erf is not in the library: as the others are",
                _EXACT
                | _OWN
                | dict.fromkeys(("exp", "exp2", "log", "log2", "erf"), Law(4))
                | {"tanh": Law(5), "pow": Law(16)},
                nan_is_defined=True,
                others={"pow": None},
            ),
            Model(
                "metal-fast",
                f"{_SPECIFICATION}, table 8.2; erf is not in the library: as in the precise model",
                {
                    "arithmetic": ROUNDED,
                    "reciprocal": Law(1),
                    "division": Law(2.5),
                    "exp": Law(3, growth=2),
                    "exp2": Law(3, growth=2),
                    "log": Law(3, near_one=2.0**-21),
                    "log2": Law(2, near_one=2.0**-22),
                    "erf": Law(4),
                }
                | _OWN,
                others={"tanh": Law(5), "pow": Law(16)},
            ),
            Model(
                "metal-half",
                f"{_SPECIFICATION}, table 8.3; erf is not in the library: as the others are; pow has no row",
                _EXACT | _OWN_SHORT | dict.fromkeys(("exp", "exp2", "log", "log2", "erf", "tanh"), Law(1)),
                channel_format=F.float16,
                flushes=False,
            ),
            Model(
                "metal-bfloat",
                f"{_SPECIFICATION}, table 8.4: each operation rounded to bfloat; functions are those of float, rounded",
                _EXACT | _OWN_SHORT | dict.fromkeys(("exp", "exp2", "log", "log2", "erf", "tanh"), Law(1)),
                channel_format=ArrayFormat.bfloat16,
            ),
            Model(
                "cuda-fast",
                "CUDA C++ Programming Guide, intrinsic functions; PTX ISA, tanh.approx: 2^-11 relative; of Nvidia's "
                "GPUs, for the example recordings",
                {
                    "arithmetic": ROUNDED,
                    "reciprocal": Law(1),
                    "division": Law(2),
                    "exp": Law(2, growth=1.173),
                    "exp2": Law(2),
                    "log": Law(3, near_one=2.0**-21.41),
                    "log2": Law(2, near_one=2.0**-22),
                    "erf": Law(2),
                    "tanh": Law(4096),
                }
                | _OWN,
                nan_is_defined=True,
            ),
            _wgsl("wgsl", "f32", 3, 2.0**-21, F.float32),
            _wgsl("wgsl-half", "f16", 1, 2.0**-7, F.float16),
        )
    }
)
"""What a device promises, by name; ``metal-fast`` is the default of Metal's compiler."""


def models_of(storage: StorageFormat) -> list[str]:
    """The models that may be those of a device that stores results so: only bfloat16 is computed with in bfloat16."""
    return [name for name, model in MODELS.items() if model.channel_format in (*FORMATS, storage.channel_format)]
