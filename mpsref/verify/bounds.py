"""
How far a correct device may be from the ideal value: from the error tables of the Metal Shading Language.

For each element the neuron's stepwise formula is evaluated on ranges, see `mpsref.verify.running`; the ends are rounded
to the storage format. No neuron has bounds of its own, only other forms of its formula in `ALTERNATIVES`.

Examples
--------
>>> import numpy as np
>>> import mpsref as mps
>>> from mpsref.verify.bounds import allowed
>>> d = mps.MPSNNNeuronDescriptor(mps.MPSCNNNeuronType.softPlus)
>>> bounds = allowed(d, np.float32([-20, 1, 100]), "metal-precise")
>>> bounds.lower
array([  0.       ,   1.3132606, 100.       ], dtype=float32)
>>> bounds.upper
array([6.1665837e-08, 1.3132627e+00, 1.0000000e+02], dtype=float32)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from types import MappingProxyType
from typing import TypeAlias, cast

import numpy as np
import numpy.typing as npt

from mpsref.arrays import Elements, Index, Stored, meaning
from mpsref.enums import MPSCNNNeuronType, MPSImageFeatureChannelFormat
from mpsref.errors import ParameterError, shown
from mpsref.neuron.descriptor import MPSNNNeuronDescriptor, NeuronLike, descriptor_or_error
from mpsref.storage import FORMATS, FormatLike, StorageFormat, image_storage_of, storage_format
from mpsref.verify.running import ROUNDED, Law, Model, Range, Reason, Running

__all__ = [
    "ALTERNATIVES",
    "BEYOND",
    "MODELS",
    "WITHIN",
    "Allowed",
    "Alternative",
    "Form",
    "allowed",
    "classify",
    "neuron_forms",
    "stored",
]

T = MPSCNNNeuronType
Bits: TypeAlias = npt.NDArray[np.uint16]
Form: TypeAlias = Callable[[Running, Index], Range]
"""The ranges of some elements, by their flat indices, in a model's arithmetic."""

BLOCK = 32_768
"""Elements analysed at once; about forty arrays of this size are alive."""

WITHIN, BEYOND = 0, 0xFFFF
"""Classes of elements besides the reasons, see `classify`."""

_SPECIFICATION = "Metal Shading Language Specification, section 8"
_EXACT = {"arithmetic": ROUNDED, "reciprocal": ROUNDED, "division": ROUNDED}

MODELS: Mapping[str, Model] = MappingProxyType(
    {
        model.name: model
        for model in (
            Model(
                "metal-precise",
                f"{_SPECIFICATION}, table 8.1; erf is not in the library: as the others are",
                _EXACT
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
                },
                others={"tanh": Law(5), "pow": Law(16)},
            ),
            Model(
                "metal-half",
                f"{_SPECIFICATION}, table 8.3; erf is not in the library: as the others are; pow has no row",
                _EXACT | dict.fromkeys(("exp", "exp2", "log", "log2", "erf", "tanh"), Law(1)),
                storage=FORMATS[MPSImageFeatureChannelFormat.float16],
                flushes=False,
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
                },
                nan_is_defined=True,
            ),
        )
    }
)
"""What a device promises, by name; ``metal-fast`` is the default of Metal's compiler."""


@dataclass(frozen=True)
class _Parameters:
    """A descriptor's parameters as ranges, so that their products may be rounded too."""

    a: Range
    b: Range
    c: Range
    data: Range


Formula: TypeAlias = Callable[[Range, _Parameters, Running], Range]


@dataclass(frozen=True)
class Alternative:
    """Another form of a formula that devices use: as text, who reports its use, and as `stepwise_forward` of a row."""

    text: str
    source: str
    formula: Formula


def _logistic(x: Range, p: _Parameters, f: Running) -> Range:
    s = 1.0 / (1 + f.exp(-x))
    return s * (1 - s)


def _soft_plus(x: Range, p: _Parameters, f: Running) -> Range:
    z = p.b * x
    return p.a * (f.max(z, 0.0) + f.log(1 + f.exp(-abs(z))))


def _soft_plus_slope(x: Range, p: _Parameters, f: Running) -> Range:
    return p.a * p.b * (1.0 / (1 + f.exp(-(p.b * x))))


ALTERNATIVES: Mapping[tuple[MPSCNNNeuronType, str], tuple[Alternative, ...]] = MappingProxyType(
    {
        (T.sigmoid, "gradient"): (
            Alternative("s (1 - s), s = 1 / (1 + e^-x)", "measured on an Apple M4 Pro (kern0x1b/charon)", _logistic),
        ),
        (T.softPlus, "forward"): (
            Alternative(
                "a (max(b x, 0) + ln(1 + e^-abs(b x)))",
                "the rearrangement that does not overflow, for devices with a logarithm of 1 + e^x of their own",
                _soft_plus,
            ),
        ),
        (T.softPlus, "gradient"): (
            Alternative("a b / (1 + e^-(b x))", "measured on an Apple M4 Pro (kern0x1b/charon)", _soft_plus_slope),
        ),
    }
)
"""By neuron type and direction; the form of Apple's header is the row's own."""


def neuron_forms(descriptor: MPSNNNeuronDescriptor, direction: str) -> list[Callable[[Range, Stored, Running], Range]]:
    """The formulas of a neuron's value or slope, each called with inputs, slopes (for pReLU), and the arithmetic."""
    row = descriptor.row
    own = row.stepwise_forward if direction == "forward" else row.stepwise_derivative
    formulas = [cast("Formula", own)]
    formulas += [other.formula for other in ALTERNATIVES.get((descriptor.neuron_type, direction), ())]

    def evaluate(x: Range, data: Stored, f: Running, *, formula: Formula) -> Range:
        a, b, c = (f.range(value) for value in (descriptor.a, descriptor.b, descriptor.c))
        return f.range(formula(x, _Parameters(a, b, c, f.range(data)), f)).like(x.low)

    return [partial(evaluate, formula=formula) for formula in formulas]


def stored(value: Range, storage: StorageFormat) -> tuple[Stored, Stored, Range]:
    """The ends of ranges as an image stores them, and the ranges that the next node then reads."""
    ends = [
        storage.encode(np.ascontiguousarray(end), np.empty(end.shape, storage.dtype)) for end in (value.low, value.high)
    ]
    if storage.unorm_max:
        ends[0] = np.where(value.nan, storage.dtype.type(0), ends[0])
    if value.f.flush and storage.dtype == np.float32:
        tiny = np.finfo(np.float32).smallest_normal
        ends[0] = np.where((ends[0] > 0) & (ends[0] < tiny), np.float32(0), ends[0])
        ends[1] = np.where((ends[1] < 0) & (ends[1] > -tiny), np.float32(0), ends[1])
    low, high = (meaning(end, storage) for end in ends)
    nan = np.zeros(low.shape, np.bool_) if storage.unorm_max else value.nan
    return ends[0], ends[1], Range(low, high, nan, value.reason, value.f)


def classify(
    got: Stored,
    model: Model,
    storage: StorageFormat,
    forms: Sequence[Form],
    nan_read: Callable[[Index], npt.NDArray[np.bool_]],
) -> Bits:
    """
    Classify elements that differ from the reference: `WITHIN`, a single `Reason`, or `BEYOND`.

    Parameters
    ----------
    got : ndarray
        The stored elements, flat.
    model : Model
        What the device promises.
    storage : StorageFormat
        How they are stored.
    forms : sequence of callable
        Their ranges, by each form of the formula.
    nan_read : callable
        Whether the node reads NaN at the elements with some indices.
    """
    classes = np.full(got.size, BEYOND, np.uint16)
    flushes = (False, True) if model.flushes else (False,)
    attempts = [Running(variant, flush) for flush in flushes for variant in model.variants]
    with np.errstate(all="ignore"):
        for start in range(0, got.size, BLOCK):
            index = np.arange(start, min(start + BLOCK, got.size))
            _classify_block(classes[start : start + BLOCK], index, got, storage, forms, attempts)
            if not model.nan_is_defined:
                block = classes[start : start + BLOCK]
                block[(block == BEYOND) & nan_read(index)] = Reason.NAN_UNDEFINED
    return classes


def _classify_block(
    classes: Bits, index: Index, got: Stored, storage: StorageFormat, forms: Sequence[Form], attempts: list[Running]
) -> None:
    for f in attempts:
        for form in forms:
            # A form that has an element within its bounds wins over one that only explains it; flushing never does.
            rest = np.flatnonzero(classes == BEYOND if f.flush else classes != WITHIN)
            if not rest.size:
                break
            inside, reason = _inside(got[index[rest]], form(f, index[rest]), storage)
            if f.flush:
                others = reason & ~np.uint16(Reason.FLUSH)
                reason = np.where(others, others, np.uint16(Reason.FLUSH))
            reason &= ~reason + np.uint16(1)  # the first of several
            chosen, new = rest[inside], reason[inside]
            better = (new == WITHIN) | (classes[chosen] == BEYOND)
            classes[chosen[better]] = new[better]


def _inside(got: Stored, value: Range, storage: StorageFormat) -> tuple[npt.NDArray[np.bool_], Bits]:
    lower, upper, as_stored = stored(value, storage)
    place = storage.ordinals(got)
    inside = (storage.ordinals(lower) <= place) & (place <= storage.ordinals(upper))
    reason = value.reason
    if not storage.unorm_max:
        inside = np.where(np.isnan(got), as_stored.nan, inside & ~np.isnan(lower))
        zero = ~inside & value.nan & (got == 0)
        reason = np.where(zero, np.uint16(Reason.NAN_STORED), reason)
        inside |= zero
    return inside, reason.astype(np.uint16)


@dataclass(frozen=True)
class Allowed:
    """
    What a device may store for each element.

    Attributes
    ----------
    lower, upper : ndarray
        The least and the greatest stored value, in the dtype of the result; NaN where the result must be NaN.
    nan : ndarray of bool
        Whether NaN is possible.
    reason : ndarray of uint16
        Bits of `Reason`: 0 where values between the two are within bounds; else no form of the formula is free of
        reasons, and such values are explained.
    """

    lower: Stored
    upper: Stored
    nan: npt.NDArray[np.bool_]
    reason: Bits


def allowed(
    descriptor: NeuronLike,
    x: Stored,
    model: str = "metal-fast",
    *,
    source: FormatLike | None = None,
    result: FormatLike | None = None,
    upstream: Stored | None = None,
    flush: bool = False,
) -> Allowed:
    """
    The bounds of a neuron's value, or of its gradient, by all forms of its formula.

    Parameters
    ----------
    descriptor : MPSNNNeuronDescriptor, MPSCNNNeuronType or str
        The neuron; a type or its name stands for the documented parameters. pReLU has one slope for each element of
        the last axis.
    x : ndarray
        Stored inputs.
    model : str
        One of `MODELS`.
    source, result : MPSImageFeatureChannelFormat, str, dtype or StorageFormat, optional
        How inputs and results are stored. Default: the format of `x`'s dtype.
    upstream : ndarray, optional
        Stored incoming gradients, in the format of the inputs: the bounds are those of the gradient.
    flush : bool
        Whether subnormals may be flushed.

    Returns
    -------
    Allowed
        Of the shape of `x`.

    Raises
    ------
    ParameterError
        The model does not exist.
    ImageError
        The format does not exist.
    """
    if model not in MODELS:
        raise ParameterError(f"model is {shown(model)}: choose one of {', '.join(MODELS)}")
    descriptor = descriptor_or_error(descriptor)
    source = image_storage_of(x.dtype, "x") if source is None else storage_format(source, "source")
    result = source if result is None else storage_format(result, "result")
    attempts = [Running(variant, flush) for variant in MODELS[model].variants]
    out = Allowed(
        np.empty(x.size, result.dtype),
        np.empty(x.size, result.dtype),
        np.empty(x.size, np.bool_),
        np.full(x.size, BEYOND, np.uint16),
    )
    flat, data = x.reshape(-1), descriptor.data
    formulas = neuron_forms(descriptor, "forward" if upstream is None else "gradient")
    with np.errstate(all="ignore"):
        for start in range(0, x.size, BLOCK):
            part = slice(start, min(start + BLOCK, x.size))
            slopes = np.empty(0) if data is None else data_of(descriptor, np.arange(part.start, part.stop), x.shape[-1])
            for f, formula in product(attempts, formulas):
                value = formula(read(f, Elements(flat[part], source)), slopes, f)
                if upstream is not None:
                    value = value * read(f, Elements(upstream.reshape(-1)[part], source))
                _join(out, part, value, result)
    return Allowed(
        out.lower.reshape(x.shape), out.upper.reshape(x.shape), out.nan.reshape(x.shape), out.reason.reshape(x.shape)
    )


def _join(out: Allowed, part: slice, value: Range, result: StorageFormat) -> None:
    """Add another form: one without reasons replaces one that has some, and widens one that has none."""
    lower, upper, after = stored(value, result)
    before = out.reason[part]
    new = (before == BEYOND) | ((before != 0) & (value.reason == 0))
    both = (before == 0) & (value.reason == 0)
    for end, other, extreme in ((out.lower, lower, np.fmin), (out.upper, upper, np.fmax)):
        end[part] = np.where(new, other, np.where(both, extreme(end[part], other), end[part]))
    out.nan[part] = np.where(new, after.nan, out.nan[part] | (both & after.nan))
    out.reason[part] = np.where(new, value.reason, before)


def read(f: Running, elements: Elements) -> Range:
    """Stored elements as ranges."""
    return f.range(elements.values())


def data_of(descriptor: MPSNNNeuronDescriptor, index: Index, channels: int) -> Stored:
    """The slope of each element, for pReLU; an empty array for all others."""
    if descriptor.data is None:
        return np.empty(0)
    slopes: Stored = descriptor.data[index % channels]
    return slopes
