"""Arguments of strategies: an error names the one that is invalid."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any, TypeVar

import hypothesis.errors
from hypothesis import strategies as st

from mpsref.errors import CONVERSION_ERRORS, ParameterError, shown
from mpsref.neuron.descriptor import MPSNNNeuronDescriptor, NeuronLike, descriptor_or_error

__all__ = ["InvalidArgument", "count", "drawn", "flag", "instance", "neuron_or_invalid", "number", "strategy"]

Kind = TypeVar("Kind")


class InvalidArgument(ParameterError, hypothesis.errors.InvalidArgument):  # noqa: N818  Hypothesis calls it so
    """An argument of a strategy makes no sense: an error of Hypothesis, which has its own ways with them, and ours."""


def count(value: Any, name: str) -> int:
    """An integer of at least 1."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidArgument(f"{name}={shown(value)} must be an integer")
    if value < 1:
        raise InvalidArgument(f"{name}={shown(value)} must be at least 1")
    return value


def number(value: Any, name: str) -> None:
    """A real number, or None."""
    try:
        is_number = value is None or (isinstance(value, Real) and not math.isnan(float(value)))
    except CONVERSION_ERRORS:
        is_number = False
    if not is_number:
        raise InvalidArgument(f"{name}={shown(value)} must be a number")


def flag(value: Any, name: str, *, is_optional: bool = False) -> None:
    """A bool, or None if optional."""
    if not isinstance(value, bool) and not (is_optional and value is None):
        raise InvalidArgument(f"{name}={shown(value)} must be True or False{', or None' if is_optional else ''}")


def instance(value: Any, kind: type[Kind], name: str) -> None:
    """An instance of a class."""
    if not isinstance(value, kind):
        article = "an" if kind.__name__[0] in "AEFHILMNORSX" else "a"
        raise InvalidArgument(f"{name}={shown(value)} must be {article} {kind.__name__}")


def neuron_or_invalid(value: NeuronLike | None) -> MPSNNNeuronDescriptor | None:
    """The neuron that is meant, or None."""
    try:
        return None if value is None else descriptor_or_error(value, "neuron")
    except ParameterError:
        raise InvalidArgument(f"neuron={shown(value)} must be an MPSNNNeuronDescriptor") from None


def strategy(value: Any, kind: type[Any], name: str) -> None:
    """A strategy, or None."""
    if value is not None and not isinstance(value, st.SearchStrategy):
        raise InvalidArgument(f"{name}={shown(value)} must be a strategy, of {kind.__name__}")


def drawn(value: Any, kind: type[Kind], name: str) -> Kind:
    """The value that a user's strategy has drawn."""
    if not isinstance(value, kind):
        raise InvalidArgument(f"{name} has drawn {shown(value)}: it must be a strategy of {kind.__name__}")
    return value
