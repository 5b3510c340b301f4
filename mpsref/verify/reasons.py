"""Why an element that differs from the ideal value may pass: the names that reports, options and files use."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum

from mpsref.errors import ParameterError

__all__ = ["ASSUMED", "BEYOND", "EXCUSES", "LATITUDES", "WITHIN", "Reason", "reasons_of"]

WITHIN, BEYOND = 0, 0xFFFF
"""Classes of elements besides the reasons."""

ASSUMED = 0x8000
"""With a reason: it assumes that the device knows no NaN, so a NaN elsewhere in the image refutes it."""


class Reason(IntEnum):
    """Why an element may pass. Of several that fit the first one counts."""

    flush = 1
    division = 2
    zero = 3
    store = 4
    order = 5
    nan = 6
    plus_inf = 7
    minus_inf = 8
    domain = 9
    pole = 10
    texture = 11
    overflow = 12
    indeterminate = 13

    @property
    def text(self) -> str:
        """One line for people."""
        return _TEXTS[self]


_TEXTS = {
    Reason.flush: "a subnormal float32 is flushed to zero",
    Reason.division: "fast division by more than 2^126 or less than 2^-126",
    Reason.zero: "rounding reaches a zero before a pole, or the edge of the domain",
    Reason.store: "the result may round to infinity when it is stored",
    Reason.order: "one order of a product overflows, another does not",
    Reason.nan: "NaN is lost in a comparison, or undefined",
    Reason.plus_inf: "an infinite input makes an operation invalid",
    Reason.minus_inf: "an input of minus infinity makes an operation invalid",
    Reason.domain: "the input is outside the domain, and NaN undefined",
    Reason.pole: "the input is at a pole",
    Reason.texture: "NaN is 0 in a texture",
    Reason.overflow: "an intermediate of the formula overflows",
    Reason.indeterminate: "the language leaves the value open: an overflow, a pole, outside the domain, or not finite",
}

LATITUDES = frozenset({Reason.flush, Reason.division, Reason.zero, Reason.store})
"""What the language allows: within the bounds, also where nothing is excused."""

EXCUSES = frozenset(Reason) - LATITUDES - {Reason.overflow}
"""What is excused unless it is forbidden; an overflow is only where it is allowed."""


def reasons_of(names: Iterable[str]) -> frozenset[Reason]:
    """
    The excuses with these names.

    Raises
    ------
    ParameterError
        One does not exist.

    Examples
    --------
    >>> sorted(reasons_of(["overflow", "order"]))
    [<Reason.order: 5>, <Reason.overflow: 12>]
    """
    choices = {reason.name: reason for reason in Reason if reason not in LATITUDES}
    names = [names] if isinstance(names, str) else list(names)
    for name in names:
        if name not in choices:
            raise ParameterError(f"allow has {name!r}: choose from {', '.join(choices)}")
    return frozenset(choices[name] for name in names)
