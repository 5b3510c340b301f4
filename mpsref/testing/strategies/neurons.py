"""Neuron types and descriptors."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import cache
from typing import TypeAlias

import numpy as np
from hypothesis import strategies as st

from mpsref.enums import ActivationType, MPSCNNNeuronType
from mpsref.errors import CONVERSION_ERRORS, ParameterError, shown
from mpsref.neuron.descriptor import Activation, MPSNNNeuronDescriptor, float32_parameter, neuron_type_or_error
from mpsref.neuron.table import NEURONS
from mpsref.testing.strategies.arguments import InvalidArgument, count, drawn, strategy

__all__ = ["activations", "descriptors", "neuron_types", "parameters"]

Types: TypeAlias = Iterable[MPSCNNNeuronType | str] | st.SearchStrategy[MPSCNNNeuronType]

FLOAT32 = np.finfo(np.float32)
SPECIAL_PARAMETERS = [0.0, 1.0, -1.0, -0.0, *(sign * float(value) for value in (
    FLOAT32.max, FLOAT32.smallest_normal, FLOAT32.smallest_subnormal, FLOAT32.eps) for sign in (1, -1))]  # fmt: skip


@st.composite
def neuron_types(draw: st.DrawFn, types: Iterable[MPSCNNNeuronType | str] | None = None) -> MPSCNNNeuronType:
    """
    A strategy for the neuron types that have a row in `mpsref.NEURONS`.

    Parameters
    ----------
    types : iterable of MPSCNNNeuronType or str, optional
        Only these. Default: all.

    Notes
    -----
    Shrinks towards the first of Apple's enumeration.

    Examples
    --------
    >>> from hypothesis import find
    >>> from mpsref.testing import strategies as mpst
    >>> find(mpst.neuron_types(), lambda t: t > 4)
    <MPSCNNNeuronType.tanH: 5>
    """
    return draw(st.sampled_from(list(NEURONS) if types is None else sorted(_checked(types))))


def _checked(types: Iterable[MPSCNNNeuronType | str], name: str = "types") -> set[MPSCNNNeuronType]:
    if isinstance(types, str):
        raise InvalidArgument(f"{name}={shown(types)} must be a list")
    try:
        members = {neuron_type_or_error(one) for one in types}
    except CONVERSION_ERRORS:
        raise InvalidArgument(f"{name}={types!r} must be a list of MPSCNNNeuronType members") from None
    if not members:
        raise InvalidArgument(f"{name} is empty: give at least one")
    if members - NEURONS.keys():
        raise InvalidArgument(f"{name}={types!r} must be neurons that have a row in mpsref.NEURONS")
    return members


@cache
def parameters(default: float = 1.0) -> st.SearchStrategy[float]:
    """
    A strategy for parameters of neurons: finite Python floats that are float32 exactly.

    Parameters
    ----------
    default : float
        The value towards which it shrinks.

    Notes
    -----
    Favours the default, numbers of few digits, both zeros, the smallest subnormal and normal numbers, and the largest.

    Examples
    --------
    >>> from hypothesis import find
    >>> from mpsref.testing import strategies as mpst
    >>> find(mpst.parameters(0.5), lambda a: True)
    0.5
    """
    try:
        number = float32_parameter("default", default)
    except ParameterError:
        raise InvalidArgument(f"default={shown(default)} must be a number that is finite as a float32") from None
    return st.one_of(
        st.just(number),
        st.integers(-32, 32).map(lambda quarters: quarters / 4),
        st.integers(-99, 99).map(lambda tenths: float(np.float32(tenths / 10))),
        st.sampled_from(SPECIAL_PARAMETERS),
        st.floats(width=32, allow_nan=False, allow_infinity=False),
    )


@st.composite
def descriptors(
    draw: st.DrawFn,
    neuron_types: Types | None = None,
    *,
    channels: int | st.SearchStrategy[int] = 1,
    parameters: st.SearchStrategy[float] | None = None,
) -> MPSNNNeuronDescriptor:
    """
    A strategy for `MPSNNNeuronDescriptor`.

    Parameters
    ----------
    neuron_types : strategy or iterable of MPSCNNNeuronType or str, optional
        Which neurons. Default: all.
    channels : int or strategy of int
        Number of pReLU's slopes; other neurons ignore it.
    parameters : strategy of float, optional
        A strategy for each parameter. Default: `mpsref.testing.strategies.parameters` of its documented default.

    Notes
    -----
    Shrinks towards the first neuron of the enumeration with its documented defaults; pReLU's slopes, which have none,
    towards 0.25.

    Examples
    --------
    >>> from hypothesis import find
    >>> import mpsref as mps
    >>> from mpsref.testing import strategies as mpst
    >>> find(mpst.descriptors([mps.MPSCNNNeuronType.reLUN]), lambda d: True)
    MPSNNNeuronDescriptor(MPSCNNNeuronType.reLUN, a=1.0, b=6.0)
    >>> find(mpst.descriptors([mps.MPSCNNNeuronType.pReLU], channels=3), lambda d: True).data
    array([0.25, 0.25, 0.25], dtype=float32)
    """
    strategy(parameters, float, "parameters")
    if not isinstance(channels, st.SearchStrategy):
        count(channels, "channels")
    row = NEURONS[draw(_types(neuron_types))]
    if row.per_channel:
        n = count(draw(channels), "channels") if isinstance(channels, st.SearchStrategy) else channels
        slopes = PRELU_SLOPES if parameters is None else parameters
        return MPSNNNeuronDescriptor(row.neuron_type.name, data=draw(st.lists(slopes, min_size=n, max_size=n)))
    values = {
        name: draw(_parameters(default) if parameters is None else parameters)
        for name, default in row.parameters.items()
    }
    return MPSNNNeuronDescriptor(row.neuron_type.name, **values)


@st.composite
def activations(draw: st.DrawFn, name: ActivationType | str | None = None) -> Activation:
    """
    A strategy for activations that are not Apple's, with parameters like those of `descriptors`.

    Parameters
    ----------
    name : ActivationType or str, optional
        Default: any.

    Raises
    ------
    InvalidArgument
        There is no such activation.

    Examples
    --------
    >>> from hypothesis import find
    >>> from mpsref.testing import strategies as mpst
    >>> find(mpst.activations("softshrink"), lambda d: True).neuron_type.name
    'softshrink'
    """
    try:
        default = Activation(draw(st.sampled_from(ActivationType)) if name is None else name)
    except ParameterError as error:
        raise InvalidArgument(f"{error}") from None
    least = {each: default.row.least.get(each, -math.inf) for each in default.parameters}
    allowed = {each: _parameters(value).filter(least[each].__le__) for each, value in default.parameters.items()}
    values = {each: draw(some) for each, some in allowed.items()}
    return Activation(default.neuron_type, **values)


# The arguments of `descriptors` hide the names.
_all_types, _parameters = neuron_types, parameters
PRELU_SLOPES = parameters(0.25)


def _types(types: Types | None) -> st.SearchStrategy[MPSCNNNeuronType]:
    if isinstance(types, st.SearchStrategy):
        return types.map(lambda member: drawn(member, MPSCNNNeuronType, "neuron_types"))
    return _all_types(None if types is None else _checked(types, "neuron_types"))
