"""Test vectors as JSON, C, Swift and Rust: data, and a function that compares."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

import mpsref
from mpsref.lab.vectors import Vectors

__all__ = ["LANGUAGES", "vector_text"]

C = """\
// {title}
// {source}
#pragma once
#include <stdint.h>

// Bit patterns. A result passes if it is NaN and nan is 1, or lies in one of two intervals; the second one is mostly
// empty, with low above high. infinity says whether one of their ends is infinite.
struct mpsref_vector {{ {bits} input, ideal, low, high, also_low, also_high; uint8_t nan, infinity, reason; }};

// Why more than rounding is allowed.
static const char *const mpsref_reasons[] = {{
{reasons}
}};

// Numbers the results in order: neighbours differ by 1, both zeros are 0.
static inline int64_t mpsref_ordinal({bits} value) {{
  return {ordinal};
}}

static inline int mpsref_is_nan({bits} value) {{ return {is_nan}; }}

// 1 if the model allows the result for the vector's input, else 0.
static inline int mpsref_passes(const struct mpsref_vector *v, {bits} got) {{
  if (mpsref_is_nan(got)) return v->nan;
  const int64_t place = mpsref_ordinal(got);
  return (mpsref_ordinal(v->low) <= place && place <= mpsref_ordinal(v->high)) ||
         (mpsref_ordinal(v->also_low) <= place && place <= mpsref_ordinal(v->also_high));
}}

enum {{ mpsref_count = {count} }};

static const struct mpsref_vector mpsref_vectors[mpsref_count] = {{
{rows}
}};
"""

SWIFT = """\
// {title}
// {source}

/// Bit patterns. A result passes if it is NaN and `nan` is true, or lies in one of two intervals; the second one is
/// mostly empty, with low above high. `infinity` says whether one of their ends is infinite.
struct MPSRefVector {{
    let input, ideal, low, high, alsoLow, alsoHigh: {bits}
    let nan, infinity: Bool
    let reason: Int

    init(_ input: {bits}, _ ideal: {bits}, _ low: {bits}, _ high: {bits}, _ alsoLow: {bits}, _ alsoHigh: {bits},
         _ flags: UInt8, _ reason: Int) {{
        (self.input, self.ideal, self.low, self.high) = (input, ideal, low, high)
        (self.alsoLow, self.alsoHigh) = (alsoLow, alsoHigh)
        (self.nan, self.infinity, self.reason) = (flags & 1 != 0, flags & 2 != 0, reason)
    }}

    /// Whether the model allows the result for the vector's input.
    func passes(_ got: {bits}) -> Bool {{
        if mpsrefIsNaN(got) {{ return nan }}
        let place = mpsrefOrdinal(got)
        return (mpsrefOrdinal(low) <= place && place <= mpsrefOrdinal(high))
            || (mpsrefOrdinal(alsoLow) <= place && place <= mpsrefOrdinal(alsoHigh))
    }}
}}

/// Numbers the results in order: neighbours differ by 1, both zeros are 0.
func mpsrefOrdinal(_ value: {bits}) -> Int64 {{
    return {ordinal}
}}

func mpsrefIsNaN(_ value: {bits}) -> Bool {{
    return {is_nan}
}}

/// Why more than rounding is allowed.
let mpsrefReasons: [String] = [
{reasons}
]

let mpsrefVectors: [MPSRefVector] = [
{rows}
]
"""

RUST = """\
// {title}
// {source}

/// Bit patterns. A result passes if it is NaN and `nan` is true, or lies in one of two intervals; the second one is
/// mostly empty, with low above high. `infinity` says whether one of their ends is infinite.
#[derive(Clone, Copy, Debug)]
#[allow(dead_code)]
pub struct Vector {{
    pub input: {bits},
    pub ideal: {bits},
    pub low: {bits},
    pub high: {bits},
    pub also_low: {bits},
    pub also_high: {bits},
    pub nan: bool,
    pub infinity: bool,
    pub reason: usize,
}}

impl Vector {{
    /// Whether the model allows the result for the vector's input.
    pub fn passes(&self, got: {bits}) -> bool {{
        if is_nan(got) {{
            return self.nan;
        }}
        let place = ordinal(got);
        (ordinal(self.low)..=ordinal(self.high)).contains(&place)
            || (ordinal(self.also_low)..=ordinal(self.also_high)).contains(&place)
    }}
}}

/// Numbers the results in order: neighbours differ by 1, both zeros are 0.
pub fn ordinal(value: {bits}) -> i64 {{
    {ordinal}
}}

pub fn is_nan({unused}value: {bits}) -> bool {{
    {is_nan}
}}

/// Why more than rounding is allowed.
#[allow(dead_code)]
pub const REASONS: [&str; {reason_count}] = [
{reasons}
];

#[allow(clippy::too_many_arguments)]
#[rustfmt::skip]
const fn v(input: {bits}, ideal: {bits}, low: {bits}, high: {bits}, also_low: {bits}, also_high: {bits},
           nan: bool, infinity: bool, reason: usize) -> Vector {{
    Vector {{ input, ideal, low, high, also_low, also_high, nan, infinity, reason }}
}}

#[rustfmt::skip]
pub static VECTORS: [Vector; {count}] = [
{rows}
];
"""


@dataclass(frozen=True)
class _Language:
    """
    How a language spells what is in the file.

    Attributes
    ----------
    template, row : str
        Of the file, and of a vector.
    bits : str
        The type of bit patterns of a width.
    ordinal, whole : str
        The place of a value in order: of floating point by its sign and magnitude, of unorm codes.
    never : str
        That a value is not NaN.
    booleans : tuple of str
        False and true.
    """

    template: str
    row: str
    bits: str
    ordinal: str
    whole: str
    never: str
    booleans: tuple[str, str] = ("false", "true")


_LANGUAGES = {
    "c": _Language(
        C, "{{{0}, {1}, {2}, {3}, {4}, {5}, {nan}, {infinity}, {reason}}},", "uint{width}_t",
        "value >> {sign} ? -(int64_t)(value & {mask}) : (int64_t)value", "value", "(void)value, 0", ("0", "1"),
    ),
    "swift": _Language(
        SWIFT, "    .init({0}, {1}, {2}, {3}, {4}, {5}, {flags}, {reason}),", "UInt{width}",
        "value >> {sign} != 0 ? -Int64(value & {mask}) : Int64(value)", "Int64(value)", "false",
    ),
    "rust": _Language(
        RUST, "    v({0}, {1}, {2}, {3}, {4}, {5}, {nan}, {infinity}, {reason}),", "u{width}",
        "if value >> {sign} != 0 {{ -i64::from(value & {mask}) }} else {{ i64::from(value) }}", "i64::from(value)",
        "false",
    ),
}  # fmt: skip


def vector_text(vectors: Vectors, language: str) -> Iterator[str]:
    """
    The file of some vectors, in parts.

    Parameters
    ----------
    vectors : Vectors
        The vectors.
    language : str
        One of `LANGUAGES`.
    """
    return LANGUAGES[language](vectors)


def _json(vectors: Vectors) -> Iterator[str]:
    d = vectors.descriptor
    parameters = {name: float(getattr(d, name)) for name in d.row.parameters}
    if d.data is not None:
        parameters["data"] = float(d.data[0])
    head = {
        "format": "mpsref-vectors",
        "version": 1,
        "mpsref": mpsref.__version__,
        "neuron_type": d.neuron_type.name,
        "parameters": parameters,
        "direction": vectors.direction,
        "storage": vectors.storage.name,
        "bounds": vectors.model,
    }
    yield json.dumps(head)[:-1] + ', "vectors": ['
    separator = "\n "
    for entry in vectors.entries():
        yield separator + json.dumps(entry)
        separator = ",\n "
    yield "]}\n"


def _written(vectors: Vectors, language: _Language) -> Iterator[str]:
    width, is_float = 8 * vectors.storage.dtype.itemsize, not vectors.storage.unorm_max
    infinity = {16: 0x7C00, 32: 0x7F800000}.get(width, 0)
    sizes = {"width": width, "sign": width - 1, "mask": f"{(1 << (width - 1)) - 1:#x}", "infinity": f"{infinity:#x}"}
    yield language.template.format(
        **_common(vectors, language),
        bits=language.bits.format(**sizes),
        ordinal=(language.ordinal if is_float else language.whole).format(**sizes),
        is_nan="(value & {mask}) > {infinity}".format(**sizes) if is_float else language.never,
        unused="" if is_float else "_",
        reason_count=len(vectors.reasons),
    )


def _common(vectors: Vectors, language: _Language) -> dict[str, Any]:
    d = vectors.descriptor
    numbers = [f"{name} = {getattr(d, name):.9g}" for name in d.row.parameters]
    numbers += [] if d.data is None else [f"slope = {d.data[0]:.9g}"]
    subject = ", ".join([d.neuron_type.name, *numbers])
    digits = 2 * vectors.storage.dtype.itemsize
    columns = [
        [f"0x{value:0{digits}x}" for value in bits.tolist()]
        for bits in (vectors.input, vectors.ideal, vectors.low, vectors.high, vectors.also_low, vectors.also_high)
    ]
    flags = vectors.nan, vectors.infinity
    rows = [
        language.row.format(
            *bits,
            nan=language.booleans[nan],
            infinity=language.booleans[infinity],
            flags=nan + 2 * infinity,
            reason=reason,
        )
        for *bits, nan, infinity, reason in zip(*columns, *(f.tolist() for f in flags), vectors.reason, strict=True)
    ]
    of_gradient = ", for an incoming gradient of 1" if vectors.direction == "gradient" else ""
    return {
        "title": f"{subject}: {vectors.direction}{of_gradient}, {vectors.storage.name}; allowed by {vectors.model}",
        "source": f"Made by mpsref {mpsref.__version__}: mpsref vectors. Results are correctly rounded.",
        "reasons": "\n".join(f"    {json.dumps(text)}," for text in vectors.reasons),
        "count": len(vectors),
        "rows": "\n".join(rows),
    }


LANGUAGES: Mapping[str, Callable[[Vectors], Iterator[str]]] = MappingProxyType(
    {"json": _json} | {name: partial(_written, language=language) for name, language in _LANGUAGES.items()}
)
