"""Stores: what memory holds of a value, because of a format, a rounding, a clamp, or because nothing was written."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np

from mpsref.arrays import Elements, Index, Stored, Wide
from mpsref.verify.case import Case, encoded
from mpsref.verify.hypotheses.base import (
    HALF,
    LANES,
    MANY,
    SINGLE,
    Candidate,
    Hypothesis,
    Values,
    decimals,
    hypothesis,
    joined,
    nth_source,
)

MOST_UNITS = 64
"""ULP up to which an error is called one of so many."""

# ---- roundings ----


def shortened(bits: int, *, is_cut: bool = False) -> Callable[[Wide], Wide]:
    """Rounding to float32 with so few bits behind the point: to nearest even, or cut."""

    def rounded(values: Wide) -> Wide:
        drop = np.uint64(23 - bits)
        code = values.astype(np.float32).view(np.uint32).astype(np.uint64)
        if not is_cut:
            code += (np.uint64(1) << (drop - np.uint64(1))) - np.uint64(1) + ((code >> drop) & np.uint64(1))
        short = (code >> drop << drop).astype(np.uint32).view(np.float32).astype(np.float64)
        return np.where(np.isnan(values), np.nan, short)

    return rounded


def to_half(values: Wide) -> Wide:
    """Rounding to half precision."""
    return values.astype(np.float16).astype(np.float64)


def _to_unorm8(values: Wide) -> Wide:
    return np.rint(np.nan_to_num(np.clip(values, 0, 1)) * 255) / 255


UNORM8 = 255
bfloat16, tf32 = shortened(7), shortened(10)
NARROW: dict[str, Callable[[Wide], Wide]] = {
    "half": to_half, "bfloat16": bfloat16, "tf32": tf32, "unorm8": _to_unorm8,
}  # fmt: skip


def _rounded(case: Case, index: Index, values: Values, narrow: Callable[[Wide], Wide]) -> Stored:
    return case.stored(narrow(values(index)))


def narrowed(case: Case, index: Index, values: Values, narrow: Callable[[Wide], Wide]) -> Stored:
    """Rounded twice: to the format of the result, or to float32, and to a narrow format."""
    first = SINGLE if case.result.unorm_max else case.result
    return case.stored(narrow(Elements(encoded(values(index), first), first).values()))


def _through(name: str) -> Callable[[Case], Iterator[Candidate]]:
    def candidates(case: Case) -> Iterator[Candidate]:
        # Codes hold no more than these do.
        if (case.result is HALF and name in ("half", "tf32")) or case.result.unorm_max == UNORM8:
            return
        # bfloat16 has fewer bits than these; half takes but its range.
        is_short = case.result.precision < HALF.precision
        if is_short and name in ("bfloat16", "tf32"):
            return
        yield Candidate("", store=partial(narrowed, narrow=NARROW[name]), coarse=not (is_short and name == "half"))
        if case.result is HALF:
            yield Candidate("from float32", store=partial(_rounded, narrow=NARROW[name]), coarse=True)

    return candidates


def _reading(
    case: Case, narrow: Callable[[Wide], Wide], places: Sequence[int], detail: str = ""
) -> Iterator[Candidate]:
    """Sources changed before they are used: each alone, and all."""
    if case.layers:
        # What these read has hypotheses of its own.
        return

    def reads(read: Sequence[Elements], index: Index, chosen: Sequence[int]) -> Sequence[Elements]:
        return [
            Elements(encoded(narrow(each.values()), each.storage), each.storage) if k in chosen else each
            for k, each in enumerate(read)
        ]

    for k in places:
        place = nth_source(k) if len(case.sources) > 1 else ""
        yield Candidate(joined(detail, place), reads=partial(reads, chosen=[k]))
    if len(places) > 1:
        yield Candidate(joined(detail, "all sources"), reads=partial(reads, chosen=places))


def _read_through(name: str) -> Callable[[Case], Iterator[Candidate]]:
    def candidates(case: Case) -> Iterator[Candidate]:
        wide = [k for k, source in enumerate(case.sources) if name != "half" or source.storage is not HALF]
        yield from _reading(case, NARROW[name], wide)

    return candidates


_WORDS = {"half": "half precision", "bfloat16": "bfloat16", "tf32": "TF32, with 10 bits after the point",
          "unorm8": "the 256 codes of unorm8"}  # fmt: skip


def _stored(name: str) -> Hypothesis:
    return hypothesis(f"stored through {name}", f"The result was rounded to {_WORDS[name]} on its way.", MANY)(
        _through(name)
    )


def _read(name: str) -> Hypothesis:
    return hypothesis(f"read through {name}", f"A source was rounded to {_WORDS[name]} before it was used.", MANY)(
        _read_through(name)
    )


stored_through_half, stored_through_tf32 = _stored("half"), _stored("tf32")
stored_through_bfloat16, stored_through_unorm8 = _stored("bfloat16"), _stored("unorm8")
read_through_half, read_through_tf32 = _read("half"), _read("tf32")
read_through_bfloat16, read_through_unorm8 = _read("bfloat16"), _read("unorm8")


def _float8(bits: int, least: float, most: float) -> Callable[[Wide], Wide]:
    """Round to a format of 8 bits, with so many after the point, its smallest number and its largest."""

    def rounded(values: Wide) -> Wide:
        exponent = np.frexp(values)[1] - 1
        unit = np.fmax(np.ldexp(1.0, exponent - bits), least)
        return np.asarray(np.clip(np.rint(values / unit) * unit, -most, most))

    return rounded


FLOAT8 = {"E4M3": _float8(3, 2.0**-9, 448.0), "E5M2": _float8(2, 2.0**-16, 57344.0)}


@hypothesis("rounded to 8 bits", "A source or the result was rounded to a floating format of 8 bits on its way.", MANY)
def through_float8(case: Case) -> Iterator[Candidate]:
    for name, narrow in FLOAT8.items():
        yield Candidate(f"the result to {name}", store=partial(narrowed, narrow=narrow))
        yield from _reading(case, narrow, range(len(case.sources)), f"to {name}")


EVENLY = 4096
"""As many elements of an image, right or wrong, tell a store that truncates from errors before it."""


@hypothesis("truncated instead of rounded", "The result is rounded towards 0, not to the nearest.", MANY, general=True)
def truncated(case: Case) -> Iterator[Candidate]:
    def store(case: Case, index: Index, values: Values) -> Stored:
        exact = values(index)
        near = case.stored(exact)
        # What float64 cannot tell from the stored value is that value.
        above = np.abs(Elements(near, case.result).values()) > np.abs(exact) * (1 + 2.0**-44)
        if case.result.unorm_max:
            return np.where(above, near - above.astype(near.dtype), near)
        return np.where(above, np.nextafter(near, near.dtype.type(0)), near)

    # A slightly smaller factor leaves the lower neighbour, too, but only where the fraction is little above a half.
    index = np.linspace(0, case.got.size - 1, min(case.got.size, EVENLY)).astype(np.intp)
    got, near, cut = case.got.reshape(-1)[index], case.stored(case.values(index)), store(case, index, case.values)
    if ((got == near) & (near != cut)).sum() <= ((got == cut) & (near != cut)).sum():
        yield Candidate("", store=store)


@hypothesis(
    "off by the same number of ULP",
    "Every result is as many units in the last place too large or too small, as if its bits were counted on.",
    MANY,
)
def units_added(case: Case) -> Iterator[Candidate]:
    index = case.bad_sample
    got, want = (case.result.ordinals(image.reshape(-1)[index]) for image in (case.got, case.want))
    finite = np.ones(index.shape, np.bool_)
    if not case.result.unorm_max:
        finite = np.isfinite(case.got.reshape(-1)[index]) & np.isfinite(case.want.reshape(-1)[index])
    ways = {"too large": got - want, "too far from 0": (got - want) * np.where(want < 0, -1, 1)}
    for text, apart in ways.items():
        units, counts = np.unique(apart[finite], return_counts=True)
        if not units.size or not 1 < abs(most := int(units[np.argmax(counts)])) <= MOST_UNITS:
            continue
        if text == "too far from 0" and (want[finite] >= 0).all():
            continue

        def store(case: Case, index: Index, values: Values, most: int = most, way: str = text) -> Stored:
            near = case.stored(values(index))
            if case.result.unorm_max:
                return np.clip(near.astype(np.int64) + most, 0, case.result.unorm_max).astype(near.dtype)
            bits = near.view(f"i{near.itemsize}")
            away = np.where(np.signbit(near) & (way == "too large"), -most, most)
            moved: Stored = (bits + away.astype(bits.dtype)).view(near.dtype)
            return np.where(np.isfinite(near) & (near != 0), moved, near)

        detail = text if most > 0 else {"too large": "too small", "too far from 0": "too near to 0"}[text]
        yield Candidate(f"{abs(most)} ULP {detail}", store=store, exact=True)


@hypothesis("clamped to 0 and 1", "The result is saturated, as for a unorm format.", MANY)
def saturated(case: Case) -> Iterator[Candidate]:
    if not case.result.unorm_max:
        yield Candidate("", store=partial(_rounded, narrow=lambda v: np.clip(v, 0, 1)))


@hypothesis("clamped to 65504", "The result is clamped to the largest number of half precision.")
def clamped(case: Case) -> Iterator[Candidate]:
    if not case.result.unorm_max:
        yield Candidate("", store=partial(_rounded, narrow=lambda v: np.clip(v, -65504, 65504)))


FEWEST_CLAMPED, CLEARLY_CLAMPED = 4, 2.0**-6
"""Different values that are clamped, at least; and how far beyond the end some must be, relative to it."""


@hypothesis("clamped", "Elements have the very value that none goes beyond: the result is clamped.", MANY, fitted=True)
def clamped_elsewhere(case: Case) -> Iterator[Candidate]:
    got, want = (Elements(a.reshape(-1)[case.bad_sample], case.result).values() for a in (case.got, case.want))
    ends = {}
    for name, beyond in (("at least", want < got), ("at most", want > got)):
        values = got[beyond & np.isfinite(got)]
        end = float((values.max if name == "at most" else values.min)()) if values.size else 0.0
        # One input, however often, does not tell a clamp from another value; nor what a coarse format makes of a limit.
        cut = want[got == end]
        is_clear = cut.size and np.max(np.abs(cut - end)) > CLEARLY_CLAMPED * abs(end)
        if np.count_nonzero(values == end) >= MANY and is_clear and np.unique(cut).size >= FEWEST_CLAMPED:
            ends[name] = end
    if ends:
        low, high = ends.get("at least", -np.inf), ends.get("at most", np.inf)
        text = ", ".join(f"to {name} {np.float32(end)!s}" for name, end in ends.items())
        yield Candidate(text, store=partial(_rounded, narrow=lambda v: np.clip(v, low, high)), exact=True)


@hypothesis("the result in steps", "The result is a multiple of a number, as of a type of integers.", MANY, fitted=True)
def steps(case: Case) -> Iterator[Candidate]:
    step = None if case.result.unorm_max else _step(case)
    if step is None:
        return
    roundings = {"the nearest": np.rint, "downward": np.floor, "toward 0": np.trunc, "upward": np.ceil}
    for detail, rounding in roundings.items():
        narrow = partial(_in_steps, step, rounding)
        yield Candidate(f"multiples of {step:.9g}, {detail}", store=partial(narrowed, narrow=narrow), coarse=True)
        text = f"multiples of {step:.9g}, {detail}, before it was rounded"
        yield Candidate(text, store=partial(_rounded, narrow=narrow), coarse=True)


def _step(case: Case) -> float | None:
    """The largest number of which nearly all results are multiples, as far as these are not that by chance."""
    got = case.got.reshape(-1)[case.bad_sample]
    got = np.unique(np.abs(got[np.isfinite(got)]))
    values, unit = got.astype(np.float64), np.spacing(got).astype(np.float64)
    # Neighbours are few steps apart, if not one; where numbers are closer together than these, as they are near 0.
    apart = np.diff(values, prepend=0.0)
    apart = apart[apart > CLEARLY * unit]
    if not apart.size:
        return None
    found: list[tuple[float, float, int]] = []
    for divisor in (1, 2, 3, 4, 5):
        step = _refined(float(apart.min()) / divisor, values, unit)
        tells = unit * CLEARLY < step
        fits = tells & (_off(values, step) <= unit)
        evidence = float(np.log(step / unit).sum(where=fits)) / divisor
        count = int(np.count_nonzero(fits))
        if count >= NEARLY * np.count_nonzero(tells) and evidence > LEAST_EVIDENCE:
            found.append((evidence, step, count))
    if not found:
        return None
    _, step, count = max(found, key=lambda each: each[0])
    # Of the numbers that do as well, the simplest; such as 1/255.
    short = list(decimals(step))
    simple: list[float] = [2.0 ** round(math.log2(step)), *short[:3], 1 / max(1, round(1 / step)), *short[3:]]
    tells = unit * CLEARLY < step
    return next((each for each in simple if np.count_nonzero(tells & (_off(values, each) <= unit)) >= count), step)


def _off(values: Wide, step: float) -> Wide:
    """How far values are from multiples of a step."""
    return np.abs(values - np.rint(values / step) * step)


def _refined(step: float, values: Wide, unit: Wide) -> float:
    """The same number better: small multiples tell it roughly, larger ones then how many they are of it."""
    for most in (LANES, 8 * LANES, 64 * LANES, math.inf):
        counts = np.rint(values / step)
        chosen = (counts <= most) & (_off(values, step) <= step / 4)
        counts = np.where(chosen, counts, 0) / unit
        if (counts > 0).any():
            step = float(counts @ (values / unit) / (counts @ counts))
    return step


CLEARLY, NEARLY, LEAST_EVIDENCE = 4.0, 0.97, 32.0
"""
By how many ULP two results differ that are no neighbours; the share that must be multiples of a step; and how
improbable it must be that they are by chance, as -ln of the probability.
"""


def _in_steps(step: float, rounding: Callable[[Wide], Wide], values: Wide) -> Wide:
    return np.asarray(rounding(values / step) * step)


@hypothesis("a source clamped", "A source is clamped, or loses its sign, before it is used.", MANY)
def source_clamped(case: Case) -> Iterator[Candidate]:
    changes: dict[str, Callable[[Wide], Wide]] = {
        "to its magnitude": np.abs,
        "to at least 0": lambda v: np.where(v < 0, 0.0, v),
        "to 0 and 1": lambda v: np.clip(v, 0, 1),
        "to -1 and 1": lambda v: np.clip(v, -1, 1),
    }
    signed = [k for k, source in enumerate(case.sources) if not source.storage.unorm_max]
    for detail, change in changes.items():
        yield from _reading(case, change, signed, detail)
    for k in signed:
        # Within the ends nothing is wrong; of the numbers that people choose, the largest below what is.
        x = case.sources[k].at(case.bad_sample).values()
        for side in (1, -1):
            if not (x * side > 0).any():
                continue
            least = float(np.min((x * side)[x * side > 0]))
            for end in [end for end in ENDS if end <= least][-CLOSEST:]:
                low = -end if side < 0 or (x < 0).any() else -np.inf
                high = end if side > 0 or (x > 0).any() else np.inf
                text = f"to {low:g} and {high:g}" if np.isfinite(low + high) else f"to at most {high:g}"
                text = text if np.isfinite(high) else f"to at least {low:g}"
                yield from _reading(case, partial(np.clip, a_min=low, a_max=high), [k], text)


ENDS, CLOSEST = (*range(1, 13), 15, 16, 20, 24, 30, 32, 40, 50, 60, 64, 80, 85, 86, 87, 88, 100, 127, 128), 3
"""Where sources are clamped, and how many of these numbers are tried."""


@hypothesis("sRGB instead of linear", "The texture's format is sRGB, so its codes are converted.", MANY)
def srgb(case: Case) -> Iterator[Candidate]:
    def written(v: Wide) -> Wide:
        v = np.clip(v, 0, 1)
        return np.where(v <= 0.0031308, 12.92 * v, 1.055 * v ** (1 / 2.4) - 0.055)

    def read(v: Wide) -> Wide:
        v = np.clip(v, 0, 1)
        return np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)

    # What a texture with 256 codes gives is recorded as floats, too.
    if case.result.unorm_max in (0, UNORM8):
        yield Candidate("where it is written", store=partial(_rounded, narrow=written))
    codes = [k for k, source in enumerate(case.sources) if source.storage.unorm_max in (0, UNORM8)]
    yield from _reading(case, read, codes, "where it is read")


@hypothesis(
    "colours multiplied by alpha",
    "Three feature channels are multiplied or divided by the fourth, as colours are by their alpha.",
    MANY,
)
def premultiplied(case: Case) -> Iterator[Candidate]:
    channels = case.shape[3]

    def changed(index: Index, values: Values, operation: np.ufunc) -> Wide:
        lane = index % channels % LANES
        alpha = index - lane + LANES - 1
        is_colour = (lane < LANES - 1) & (index % channels - lane + LANES <= channels)
        own = values(index)
        return np.where(is_colour, operation(own, values(np.where(is_colour, alpha, index))), own)

    def store(case: Case, index: Index, values: Values, operation: np.ufunc) -> Stored:
        return case.stored(changed(index, values, operation))

    def reads(read: Sequence[Elements], index: Index, place: int, operation: np.ufunc) -> Sequence[Elements]:
        source = case.sources[place]
        values = changed(index, lambda where: source.at(where).values(), operation)
        return [*read[:place], Elements(encoded(values, source.storage), source.storage), *read[place + 1 :]]

    for text, operation in (("multiplied", np.multiply), ("divided", np.divide)) if channels >= LANES else ():
        yield Candidate(joined("the result", text), store=partial(store, operation=operation), coarse=True)
        for k in () if case.layers else range(len(case.sources)):
            place = nth_source(k) if len(case.sources) > 1 else "the source"
            yield Candidate(joined(place, text), reads=partial(reads, place=k, operation=operation))


CODES: dict[str, Callable[[Wide], Wide]] = {
    "255 less the code": lambda v: 255 - np.rint(255 * np.clip(v, 0, 1)),
    "16 to 235, as of video": lambda v: 16 + np.rint(219 * np.clip(v, 0, 1)),
    "127 for 1, as with a sign": lambda v: np.rint(127 * np.clip(v, -1, 1)) % 256,
    "not clamped, so that it wraps": lambda v: np.rint(255 * v) % 256,
    "255 times the value to the power of 1 / 2.2": lambda v: np.rint(255 * np.clip(v, 0, 1) ** (1 / 2.2)),
    "255 times the value to the power of 2.2": lambda v: np.rint(255 * np.clip(v, 0, 1) ** 2.2),
}


@hypothesis("another code of the value", "The 256 codes stand for other numbers than those from 0 to 1.", MANY)
def other_codes(case: Case) -> Iterator[Candidate]:
    def store(case: Case, index: Index, values: Values, code: Callable[[Wide], Wide]) -> Stored:
        return np.nan_to_num(code(values(index))).astype(np.uint8)

    if case.result.unorm_max == UNORM8:
        for detail, code in CODES.items():
            yield Candidate(detail, store=partial(store, code=code))


# ---- bytes ----


@hypothesis(
    "the bytes in the other order", "Each element has its bytes in the other order: big-endian, or swapped twice.", MANY
)
def byte_order(case: Case) -> Iterator[Candidate]:
    if case.result.dtype.itemsize > 1:
        yield Candidate(
            "", store=lambda case, index, values: case.stored(values(index)).byteswap(), undo=lambda x: x.byteswap()
        )


@hypothesis("float32 taken for half", "The bytes are float32, of which each two are read as two halves.", MANY)
def singles_as_halves(case: Case) -> Iterator[Candidate]:
    def store(case: Case, index: Index, values: Values) -> Stored:
        pairs = values(index // 2).astype(np.float32).view(np.uint32)
        halves = (pairs >> (16 * (index % 2)).astype(np.uint32)).astype(np.uint16)
        return halves.view(np.float16)

    if case.result is HALF:
        # The low half of a float32 depends on its last bits.
        yield Candidate("", store=store, known=lambda index: index % 2 == 1)


@hypothesis("bfloat16 taken for half", "The bytes are bfloat16, but are read as half precision.", MANY)
def bfloat16_as_half(case: Case) -> Iterator[Candidate]:
    def store(case: Case, index: Index, values: Values) -> Stored:
        codes = bfloat16(values(index)).astype(np.float32).view(np.uint32) >> np.uint32(16)
        return codes.astype(np.uint16).view(np.float16)

    def undo(stored: Stored) -> Stored:
        codes = np.ascontiguousarray(stored).view(np.uint16).astype(np.uint32) << np.uint32(16)
        return codes.view(np.float32).astype(np.float16)

    if case.result is HALF:
        yield Candidate("", store=store, undo=undo, coarse=True)


@hypothesis("half taken for float32", "The bytes are half precision, two of which are read as one float32.", MANY)
def halves_as_singles(case: Case) -> Iterator[Candidate]:
    def store(case: Case, index: Index, values: Values) -> Stored:
        size = case.want.size
        low, high = (
            np.where(at < size, values(np.minimum(at, size - 1)), 0).astype(np.float16).view(np.uint16)
            for at in (2 * index, 2 * index + 1)
        )
        return (low.astype(np.uint32) | high.astype(np.uint32) << np.uint32(16)).view(np.float32)

    if case.result is SINGLE:
        # What lies behind the halves is unknown.
        yield Candidate("", store=store, known=lambda index: 2 * index < case.want.size)


# ---- special values ----


@hypothesis("the sign flipped", "Every element has the wrong sign.")
def sign_flipped(case: Case) -> Iterator[Candidate]:
    if not case.result.unorm_max:
        yield Candidate("", store=partial(_rounded, narrow=np.negative))


@hypothesis("the sign lost", "Every element is its magnitude.", MANY)
def sign_lost(case: Case) -> Iterator[Candidate]:
    if not case.result.unorm_max:
        yield Candidate("", store=partial(_rounded, narrow=np.abs))


@hypothesis("NaN turned to 0", "Where NaN belongs there is 0, as a texture or a fast min and max may leave it.")
def nan_to_zero(case: Case) -> Iterator[Candidate]:
    if not case.result.unorm_max:
        yield Candidate("", store=partial(_rounded, narrow=lambda v: np.where(np.isnan(v), 0, v)))


@hypothesis("infinity turned to NaN or a number", "Where an infinity belongs there is NaN, or the largest number.")
def infinity_lost(case: Case) -> Iterator[Candidate]:
    if not case.result.unorm_max:
        most = float(case.result.limits.max)

        def store(case: Case, index: Index, values: Values, to_nan: bool) -> Stored:
            out = case.stored(values(index)).astype(np.float64)
            return case.stored(np.where(np.isinf(out), np.nan if to_nan else np.copysign(most, out), out))

        yield Candidate("NaN", store=partial(store, to_nan=True))
        yield Candidate("the largest number", store=partial(store, to_nan=False))


@hypothesis("subnormals flushed", "Subnormal numbers are taken for 0, where they are read or where they are stored.")
def subnormals_flushed(case: Case) -> Iterator[Candidate]:
    if case.result.unorm_max:
        return

    def flushed(source: Elements) -> Elements:
        if source.storage.unorm_max:
            return source
        is_subnormal = np.abs(source.stored) < source.storage.limits.tiny
        zero = np.copysign(source.storage.dtype.type(0), source.stored)
        return Elements(np.where(is_subnormal, zero, source.stored), source.storage)

    def reads(read: Sequence[Elements], index: Index) -> Sequence[Elements]:
        return [flushed(each) for each in read]

    def store(case: Case, index: Index, values: Values) -> Stored:
        return flushed(Elements(case.stored(values(index)), case.result)).stored

    yield Candidate("in the result", store=store)
    if case.layers:
        return
    yield Candidate("in the sources", reads=reads)
    yield Candidate("in the sources and the result", reads=reads, store=store)


# ---- memory that was not written ----


@hypothesis(
    "never written", "The memory holds what it held before: zeros, another constant, or a pattern that repeats."
)
def never_written(case: Case) -> Iterator[Candidate]:
    def store(case: Case, index: Index, values: Values, pattern: Stored) -> Stored:
        return np.asarray(pattern[index % pattern.size])

    index, dtype = case.bad_sample, case.result.dtype
    bits = case.got.reshape(-1)[index].view(case.result.bits_dtype)
    for period in (1, 2, 4):
        pattern = np.zeros(period, bits.dtype)
        for k in range(period):
            values, counts = np.unique(bits[index % period == k], return_counts=True)
            if values.size:
                pattern[k] = values[np.argmax(counts)]
        numbers = pattern.view(dtype)
        same = (numbers == numbers[0]).all() or np.unique(pattern).size == 1
        if (period > 1 and same) or (numbers.any() and index.size < period * MANY):
            continue
        text = " ".join(f"{int(value):0{2 * dtype.itemsize}x}" for value in pattern)
        detail = f"0x{text}, that is {' '.join(map(str, numbers))}" if numbers.any() else "zeros"
        # What a formula leaves, too.
        detail = "NaN" if detail.endswith(" is nan") else detail
        yield Candidate(detail, store=partial(store, pattern=numbers), exact=True)
