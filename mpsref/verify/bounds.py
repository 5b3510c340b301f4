"""
How far a correct device may be from the ideal value: from the error tables of the Metal Shading Language.

For each element the neuron's stepwise formula is evaluated on ranges, see `mpsref.verify.running`; the ends are rounded
to the storage format. No neuron has bounds of its own, only other forms of its formula, see `mpsref.verify.forms`.

Examples
--------
>>> import numpy as np
>>> import mpsref as mps
>>> from mpsref.verify.bounds import allowed
>>> d = mps.MPSNNNeuronDescriptor(mps.MPSCNNNeuronType.softPlus)
>>> bounds = allowed(d, np.float32([-20, 1, 100]), "metal-precise")
>>> bounds.lower
array([ 0.       ,  1.3132609, 99.99997  ], dtype=float32)
>>> bounds.upper
array([2.0611555e-09, 1.3132625e+00, 1.0000003e+02], dtype=float32)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from mpsref.arrays import Elements, Index, Mask, Stored, Wide, meaning, spread
from mpsref.errors import ParameterError, shown
from mpsref.formats import format_among
from mpsref.neuron.descriptor import NeuronLike, descriptor_or_error
from mpsref.storage import FormatLike, StorageFormat, image_storage_of
from mpsref.verify.forms import data_of, neuron_forms
from mpsref.verify.models import MODELS, Model
from mpsref.verify.ranges import Branches, Level, Mark, Range
from mpsref.verify.reasons import ASSUMED, BEYOND, WITHIN, Reason
from mpsref.verify.running import Running
from mpsref.verify.stored import Nearness, passing, read, stored

__all__ = ["BEYOND", "MODELS", "WITHIN", "Allowed", "Ends", "Form", "allowed", "classify"]

Bits: TypeAlias = npt.NDArray[np.uint16]
Form: TypeAlias = Callable[[Running, Index], Range]
"""The ranges of some elements, by their flat indices, in a model's arithmetic."""

MOST_BRANCHES = 6
"""Open comparisons of an element that are taken either way."""

BLOCK, CHUNK = 262_144, 16_384
"""Elements classified together, and those analysed at once: about forty arrays of this size are alive, in the cache."""

SAMPLE = 2048
"""Elements that tell which form of a formula is the most likely one."""


class Ends:
    """The least and the greatest stored value within bounds, where they are known: no exception widens them."""

    def __init__(self, size: int, storage: StorageFormat) -> None:
        self.known = np.zeros(size, np.bool_)
        self.low, self.high = np.zeros(size, storage.dtype), np.zeros(size, storage.dtype)

    def widen(self, index: Index, low: Stored, high: Stored) -> None:
        """Add what a form allows for some elements."""
        known = self.known[index]
        self.low[index] = np.where(known, np.minimum(self.low[index], low), low)
        self.high[index] = np.where(known, np.maximum(self.high[index], high), high)
        self.known[index] = True


@dataclass(frozen=True)
class _World:
    """One way in which devices may differ, and the mark of the elements where it matters."""

    mark: Mark
    reason: int
    how: dict[str, Any]


_WORLDS = (
    _World(Mark.FAR, Reason.division, {"far": True, "flush": True}),
    _World(Mark.TINY, Reason.flush, {"flush": True}),
    _World(Mark.TINY, Reason.flush, {"flush": True, "below": True}),
    _World(Mark.VANISHES, Reason.flush, {"vanish": True, "flush": True}),
    _World(Mark.POLE, Reason.zero, {"below": True, "flush": True}),
    _World(Mark.WIDE, Reason.order, {"level": Level.PRODUCTS, "flush": True}),
    _World(Mark.WIDE, Reason.order, {"level": Level.PRODUCTS, "far": True, "flush": True}),
    _World(Mark.HUGE, Reason.overflow, {"level": Level.EVERYTHING, "flush": True}),
    _World(Mark.HUGE, Reason.overflow, {"level": Level.EVERYTHING, "flush": True, "down": True}),
)
"""After the plain one, in the order of the reasons."""


def classify(
    got: Stored,
    model: Model,
    storage: StorageFormat,
    forms: Sequence[Form],
    special: Callable[[Index], Bits],
    ends: Ends | None = None,
    variants: Sequence[Model] = (),
    *,
    nearness: Nearness = Nearness.ITSELF,
    loses_nan: bool = False,
    hides_nan: bool = False,
) -> Bits:
    """
    Classify elements that differ from the reference: `WITHIN`, a `Reason`, perhaps with `ASSUMED`, or `BEYOND`.

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
    special : callable
        For the elements with some indices: 0 if the node reads only finite numbers, else `Reason.nan`,
        `Reason.plus_inf` or `Reason.minus_inf`.
    ends : Ends, optional
        Gets the bounds of the elements that are `BEYOND`.
    variants : sequence of Model, optional
        Those of the model's variants that differ for these forms; default: all.
    nearness : Nearness
        What is within bounds beside what they hold.
    loses_nan : bool
        Whether NaN is lost in a comparison, whatever clamps before it do.
    hides_nan : bool
        Whether a clamp may lose NaN whose result is not recorded: NaN elsewhere in the image says nothing of that.
    """
    ends = Ends(got.size, storage) if ends is None else ends
    classes = np.full(got.size, BEYOND, np.uint16)
    plain = [Running(variant) for variant in variants or model.variants]
    worlds = [
        (world, [replace(f, **world.how | {"flush": model.flushes and "flush" in world.how}) for f in plain])
        for world in _WORLDS
        if (model.flushes or world.reason != Reason.flush) and not (model.is_finite and world.reason == Reason.overflow)
    ]
    ways = list(product(plain, forms))
    with np.errstate(all="ignore"):
        if len(ways) > 1 and got.size > CHUNK:
            some = spread(got.size, SAMPLE)
            left = []
            for f, form in ways:
                none = Ends(got.size, storage)
                tried = _Block(some, got[some], special(some), model, storage, none, nearness, loses_nan, hides_nan)
                tried.look(f, form, WITHIN)
                left.append(np.count_nonzero(tried.classes))
            # What is within by one is looked at no more: that by most goes first.
            ways = [ways[k] for k in np.argsort(left, kind="stable")]
        for start in range(0, got.size, BLOCK):
            index = np.arange(start, min(start + BLOCK, got.size))
            block = _Block(index, got[index], special(index), model, storage, ends, nearness, loses_nan, hides_nan)
            for f, form in ways:
                block.look(f, form, WITHIN)
            for world, arithmetics in worlds:
                for f, form in product(arithmetics, forms):
                    block.look(f, form, world.reason, np.uint16(world.mark))
            for f, form in product(plain, forms):
                if model.is_finite:
                    block.leave_open(replace(f, flush=model.flushes), form)
                else:
                    block.reflect(replace(f, level=Level.EVERYTHING, flush=model.flushes, mirror=True), form)
            block.assume()
            classes[start : start + BLOCK] = block.classes
    ends.known &= classes == BEYOND
    return classes


def before_the_store(variants: Sequence[Model], forms: Sequence[Form], size: int) -> tuple[Wide, Wide, Mask]:
    """The least and the greatest value that the forms allow for some elements, and where no exception widens them."""
    low, high, known = np.full(size, np.inf), np.full(size, -np.inf), np.ones(size, np.bool_)
    with np.errstate(all="ignore"):
        for start in range(0, size, CHUNK):
            index = np.arange(start, min(start + CHUNK, size))
            for variant, form in product(variants, forms):
                value = form(Running(variant, variant.flushes), index).whole
                low[index], high[index] = np.minimum(low[index], value.low), np.maximum(high[index], value.high)
                # A product that vanishes is no exception where 0 is in its range anyhow.
                crosses = (value.low <= 0) & (value.high >= 0)
                notes = np.where(crosses, np.uint16(Mark.TINY | Mark.VANISHES), np.uint16(Mark.TINY))
                known[index] &= ~value.nan & (value.reason & ~notes == 0)
    return low, high, known & np.isfinite(low) & np.isfinite(high)


class _Block:
    """Some elements on the way to their classes."""

    def __init__(
        self,
        index: Index,
        got: Stored,
        special: Bits,
        model: Model,
        storage: StorageFormat,
        ends: Ends,
        nearness: Nearness,
        loses_nan: bool,
        hides_nan: bool,
    ) -> None:
        self.loses_nan, self.hides_nan = loses_nan, hides_nan
        self.index, self.got, self.special, self.ends, self.nearness = index, got, special, ends, nearness
        self.model, self.storage = model, storage
        self.classes = np.full(index.size, BEYOND, np.uint16)
        self.marks = np.zeros(index.size, np.uint16)
        self.is_nan = np.zeros(index.size, np.bool_)

    def look(self, f: Running, form: Form, reason: int, mark: np.uint16 | None = None) -> None:
        """Class those that a form allows: the plain one all that are not within, others what has their mark."""
        for rest in _chunks(self.classes != WITHIN if mark is None else self._beyond & (self.marks & mark != 0)):
            self._look(f, form, rest, reason, is_plain=mark is None)

    @property
    def _beyond(self) -> Mask:
        return np.asarray(self.classes == BEYOND)

    def _look(self, f: Running, form: Form, rest: Index, reason: int, *, is_plain: bool) -> None:
        value, got, special = form(f, self.index[rest]), self.got[rest], self.special[rest]
        marks, (lower, upper, between) = value.reason, stored(value, self.storage)
        if self.nearness is not Nearness.ITSELF:
            between = passing(value, self.storage, self.nearness)
        # What another world may do to this one is marked here.
        self.marks[rest] |= marks
        if is_plain:
            free = value.exceptions | (marks & Mark.TINY) == 0
            if free.all():
                self.ends.widen(self.index[rest], lower, upper)
            else:
                self.ends.widen(self.index[rest[free]], lower[free], upper[free])
            self.is_nan[rest] |= np.isnan(value.low) & value.nan & (marks & Mark.OVERFLOW == 0)
        inside, undecided = self._fits(between, got, reason)
        if undecided.size:
            inside[undecided] = self._in_a_branch(f, form, rest[undecided], reason, {})
        rest, marks, special = rest[inside], marks[inside], special[inside]
        if not rest.size:
            return
        if is_plain and not marks.any():
            self.classes[rest] = reason
            return
        found = np.full(rest.size, reason, np.uint16)
        fits = np.ones(rest.size, np.bool_)
        if reason == Reason.order:
            # Only what an overflow leaves, not what lies between that and the right value.
            fits = (marks & Mark.ORDER != 0) & ~_finite(got[inside], self.storage)
        elif reason != Reason.overflow:
            pole = marks & Mark.POLE != 0
            found[pole & is_plain] = Reason.zero
            finite = np.where(pole, np.uint16(Reason.zero), np.uint16(Reason.pole))
            found = np.where(marks & Mark.INVALID != 0, np.where(special, special, finite), found)
            unordered = (special != 0) & (marks & (Mark.COMPARED | Mark.CLAMPED) != 0)
            found[unordered] = special[unordered]
            # A minimum or maximum keeps NaN, unless the device knows none.
            clamped = (special == Reason.nan) & (marks & Mark.CLAMPED != 0) & (not self.loses_nan)
            fits = ~(clamped & self.model.nan_is_defined)
            found[clamped & (not self.hides_nan)] |= ASSUMED
        chosen = rest[fits]
        self.classes[chosen] = np.minimum(self.classes[chosen], found[fits])

    def _fits(self, between: Range, got: Stored, reason: int) -> tuple[Mask, Index]:
        """
        Which elements are in ranges of stored values, and have or have not overflowed as the reason says.

        And those in the range of open comparisons: what overflows in one branch need not in another.
        """
        overflows, inside = between.reason & Mark.OVERFLOW != 0, _inside(got, between, self.storage)
        # What need not overflow may be any finite number of its range.
        need_not = ~overflows | ((between.reason & Mark.CERTAIN == 0) & _finite(got, self.storage))
        fits: Mask = inside & (overflows if reason == Reason.overflow else need_not)
        return fits, np.flatnonzero(inside & (between.reason & Mark.UNDECIDED != 0))

    def _in_a_branch(self, f: Running, form: Form, rest: Index, reason: int, taken: dict[int, bool]) -> Mask:
        """
        Which elements are in the range of one branch of each open comparison, and not only between the branches.

        From `MOST_BRANCHES` comparisons on, the range of both branches will do. Neighbours pass, as those of the ideal
        value do.
        """
        branches = Branches(taken)
        value = form(replace(f, branches=branches), self.index[rest])
        # What another world may do to a branch is marked there alone.
        self.marks[rest] |= value.reason
        between = passing(value, self.storage, max(self.nearness, Nearness.NEIGHBOUR))
        inside, undecided = self._fits(between, self.got[rest], reason)
        if branches.open is not None and len(taken) < MOST_BRANCHES:
            inside[undecided] = False
            for way in (True, False):
                left = undecided[~inside[undecided]]
                if left.size:
                    inside[left] = self._in_a_branch(f, form, rest[left], reason, taken | {branches.open: way})
        return inside

    def reflect(self, f: Running, form: Form) -> None:
        """
        Class NaN by what the mirrored formula does at the mirrored input.

        Of an odd function some overflow on one side, such as (e^2x - 1) / (e^2x + 1), and others on both.
        """
        if self.storage.unorm_max:
            return
        for rest in _chunks(self._beyond & np.isnan(self.got) & (self.special != Reason.nan) & ~self.is_nan):
            value, special = form(f, self.index[rest]), self.special[rest]
            found = np.where(special, special, np.uint16(Reason.overflow))
            nan = value.nan & (value.reason & np.where(special, np.uint16(Mark.INVALID), np.uint16(Mark.OVERFLOW)) != 0)
            self.classes[rest[nan]] = found[nan]

    def leave_open(self, f: Running, form: Form) -> None:
        """Class what the language leaves open."""
        for rest in _chunks(self._beyond):
            value = form(f, self.index[rest])
            self.classes[rest[value.is_open | (self.special[rest] != 0)]] = Reason.indeterminate

    def assume(self) -> None:
        """Excuse what only a device without NaN may do, if the model allows it to have none."""
        if self.model.is_finite:
            # Nothing in the image refutes a language.
            excused = self.classes != BEYOND
            self.classes[excused] &= ~np.uint16(ASSUMED)
            return
        if self.model.nan_is_defined:
            return
        rest = self.classes == BEYOND
        self.classes[rest & (self.special == Reason.nan)] = Reason.nan | ASSUMED
        self.classes[rest & (self.special == 0) & self.is_nan] = Reason.domain | ASSUMED
        # An infinity may be outside the domain as well; it is if the ideal value is NaN.
        infinite = rest & np.isin(self.special, (Reason.plus_inf, Reason.minus_inf)) & self.is_nan
        self.classes[infinite] = self.special[infinite] | ASSUMED


def _chunks(chosen: Mask) -> Iterator[Index]:
    """The indices of some elements, few at once."""
    index = np.flatnonzero(chosen)
    return (index[start : start + CHUNK] for start in range(0, index.size, CHUNK))


def _finite(got: Stored, storage: StorageFormat) -> npt.NDArray[np.bool_]:
    return (got > 0) & (got < storage.unorm_max) if storage.unorm_max else np.isfinite(got)


def _inside(got: Stored, between: Range, storage: StorageFormat) -> npt.NDArray[np.bool_]:
    """Whether stored elements are in ranges of stored values."""
    values = meaning(got, storage)
    inside: Mask = (between.low <= values) & ~(values > between.high)
    inside |= between.zero & (values == 0)
    if storage.unorm_max:
        inside |= between.nan & (got == 0)
        return inside
    return np.where(np.isnan(values), between.nan, inside)


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
        Bits of `Mark`: 0 where values between the two are within bounds; else each form of the formula has an
        exception there.
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
    source = image_storage_of(x.dtype, "x") if source is None else format_among(source, "source")
    result = source if result is None else format_among(result, "result")
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
        for start in range(0, x.size, CHUNK):
            part = slice(start, min(start + CHUNK, x.size))
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
    """Add another form: one without exceptions replaces one that has some, and widens one that has none."""
    lower, upper, after = stored(value, result)
    nothing = lower.dtype.type(0)
    lower = np.where(after.zero & (lower > nothing), nothing, lower)
    upper = np.where(after.zero & (upper < nothing), nothing, upper)
    if result.unorm_max:
        lower, after = np.where(after.nan, nothing, lower), replace(after, nan=np.zeros_like(after.nan))
    before, reason = out.reason[part], value.exceptions
    new = (before == BEYOND) | ((before != 0) & (reason == 0))
    both = (before == 0) & (reason == 0)
    for end, other, extreme in ((out.lower, lower, np.fmin), (out.upper, upper, np.fmax)):
        end[part] = np.where(new, other, np.where(both, extreme(end[part], other), end[part]))
    out.nan[part] = np.where(new, after.nan, out.nan[part] | (both & after.nan))
    out.reason[part] = np.where(new, reason, before)
