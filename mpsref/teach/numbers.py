"""Wide of a trace as text."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from mpsref.arrays import Wide
from mpsref.display import printable
from mpsref.operations.base import number_text
from mpsref.storage import StorageFormat

__all__ = ["place_text", "range_text", "single", "sum_text", "ulp_at", "ulp_text"]

WIDEST = 110
"""Characters of a line with several terms."""


def ulp_at(values: Wide, storage: StorageFormat) -> Wide:
    """The distance between neighbours of the format at these values."""
    if storage.unorm_max:
        return np.full_like(values, 1.0 / storage.unorm_max)
    facts = np.finfo(storage.dtype)
    size = np.clip(np.nan_to_num(np.abs(values), nan=1.0), float(facts.smallest_normal), float(facts.max))
    ulps: Wide = np.ldexp(1.0, np.frexp(size)[1] - 1 - int(facts.nmant))
    return ulps


def sum_text(terms: Iterable[str], indent: str = "") -> str:
    """A sum of terms, one on each line if they do not fit on one."""
    terms = [printable(term) for term in terms]
    text = " + ".join(terms)
    if len(indent) + len(text) > WIDEST:
        return f"\n{indent}+ ".join(terms).replace(f"\n{indent}+ -", f"\n{indent}- ")
    return text.replace(" + -", " - ")


def single(numbers: Wide) -> float:
    """The one element of an array."""
    return float(numbers.reshape(-1)[0])


def ulp_text(ulps: float) -> str:
    """A distance in ULP."""
    if ulps == 0:
        return "exact"
    return f"{ulps:.2g} ULP" if ulps >= 0.001 or np.isnan(ulps) else "below 0.001 ULP"


def range_text(numbers: Wide) -> str:
    """The smallest and the largest number, and whether there is NaN."""
    known = numbers[~np.isnan(numbers)]
    if not known.size:
        return "nan"
    low, high = float(known.min()), float(known.max())
    text = number_text(low) if low == high else f"{number_text(low)} to {number_text(high)}"
    return text if known.size == numbers.size else f"{text}, nan"


def place_text(place: tuple[int, int, int, int]) -> str:
    """The place of an element."""
    image, y, x, channel = place
    return f"image {image}, y {y}, x {x}, channel {channel}"
