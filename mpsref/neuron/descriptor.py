"""MPSNNNeuronDescriptor: which neuron, with which parameters."""

from __future__ import annotations

import math
import operator
import struct
from typing import Any

import numpy as np
import numpy.typing as npt

from mpsref.enums import MPSCNNNeuronType
from mpsref.environment import environment_or_error
from mpsref.errors import ImageError, ParameterError
from mpsref.neuron.table import NEURONS, Neuron
from mpsref.storage import round_to_odd

__all__ = ["MPSNNNeuronDescriptor", "float32_parameter"]


def float32_parameter(name: str, value: Any) -> float:
    """
    Round a parameter once to float32, as passing it to Apple's ``float`` does.

    Raises
    ------
    ParameterError
        `value` is no real number, or not finite as a float32; the message calls it `name`.
    FloatingPointModeError
        This thread would flush it to zero, or round it otherwise than to nearest.
    """
    if isinstance(value, float | int | np.floating | np.integer) and not isinstance(value, bool):
        # A large integer is no float64 either: numpy's own conversion would round twice.
        with np.errstate(over="ignore"):
            exact = isinstance(value, float | np.floating)
            rounded = float(np.float32(value)) if exact else _from_integer(int(value))
        if rounded != value:
            # Not always: importing mpsref makes descriptors, and is to work in any environment.
            environment_or_error()
        if math.isfinite(rounded):
            return rounded
    raise ParameterError(f"{name} is {value!r}: give a number that is finite as a float32")


def _from_integer(value: int) -> float:
    try:
        near = float(value)
    except OverflowError:
        return math.inf
    error = (value > int(near)) - (value < int(near))
    return float(round_to_odd(np.array([near]), np.array([float(error)])).astype(np.float32)[0])


class MPSNNNeuronDescriptor:
    """
    A neuron type with its parameters. A value: equal descriptors compare equal, and none can be changed.

    Parameters
    ----------
    neuron_type : MPSCNNNeuronType
        The neuron.
    a, b, c : float, optional
        Rounded once to float32. Omitted: the documented default. Only those that the neuron has may be given.
    data : array_like of float32 or bytes, optional
        The slopes of pReLU, one for each feature channel: required there, refused elsewhere. Bytes are
        little-endian float32, as in Apple's ``NSData``.

    Raises
    ------
    ParameterError
        A parameter that the neuron does not have, one that is not finite as a float32, or missing `data`.

    Notes
    -----
    Source: ``MPSCNNNeuron.h``. Apple's descriptor is mutable and its factories ``cnnNeuronDescriptor(with:...)`` leave
    omitted parameters open; here the constructor fills in what the header calls default behaviour.

    Examples
    --------
    >>> from mpsref import MPSCNNNeuronType, MPSNNNeuronDescriptor
    >>> MPSNNNeuronDescriptor(MPSCNNNeuronType.reLUN, a=0)
    MPSNNNeuronDescriptor(MPSCNNNeuronType.reLUN, a=0.0, b=6.0)
    >>> MPSNNNeuronDescriptor(MPSCNNNeuronType.pReLU, data=[0.25, 0.5]).data
    array([0.25, 0.5 ], dtype=float32)
    """

    __slots__ = ("_a", "_b", "_c", "_data", "_hash", "_key", "_row", "_type")

    def __init__(
        self,
        neuron_type: MPSCNNNeuronType,
        a: float | None = None,
        b: float | None = None,
        c: float | None = None,
        *,
        data: npt.ArrayLike | bytes | None = None,
    ) -> None:
        try:
            self._type = MPSCNNNeuronType(neuron_type)
        except ValueError:
            choices = ", ".join(t.name for t in MPSCNNNeuronType)
            raise ParameterError(f"neuron_type is {neuron_type!r}: choose one of {choices}") from None
        self._row = row = NEURONS[self._type]
        values = dict.fromkeys("abc", 0.0) | dict(row.parameters)
        for name, given in (("a", a), ("b", b), ("c", c)):
            if given is not None:
                if name not in row.parameters:
                    has = ", ".join(row.parameters) or ("data" if row.per_channel else "none")
                    raise ParameterError(f"{name} is no parameter of {self._type.name}: it has {has}")
                values[name] = given
        self._a, self._b, self._c = (float32_parameter(name, values[name]) for name in "abc")
        if row.per_channel != (data is not None):
            raise ParameterError(
                f"{self._type.name} needs data: one float32 slope for each feature channel"
                if row.per_channel
                else f"data is only for pReLU: {self._type.name} does not take it"
            )
        self._data = None if data is None else _slopes(data)
        # Bit patterns, not numbers: a = -0.0 and a = 0.0 give results that differ in the sign of zero.
        numbers = struct.pack("3d", self._a, self._b, self._c)
        self._key = (int(self._type), numbers, b"" if self._data is None else bytes(self._data))
        self._hash = hash(self._key)

    @property
    def neuron_type(self) -> MPSCNNNeuronType:
        """The neuron."""
        return self._type

    @property
    def a(self) -> float:
        """First parameter; 0 if the neuron has none."""
        return self._a

    @property
    def b(self) -> float:
        """Second parameter; 0 if the neuron has none."""
        return self._b

    @property
    def c(self) -> float:
        """Third parameter; 0 if the neuron has none."""
        return self._c

    @property
    def data(self) -> npt.NDArray[np.float32] | None:
        """The slopes of pReLU by feature channel, read-only; None for all others."""
        return self._data

    @property
    def row(self) -> Neuron:
        """All that is known of this neuron."""
        return self._row

    @property
    def parameters(self) -> dict[str, float]:
        """The parameters that the neuron has, by name."""
        return {name: getattr(self, name) for name in self.row.parameters}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MPSNNNeuronDescriptor) and self._key == other._key

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> tuple[Any, ...]:
        return _remade, (self._type, self.parameters, self._data)

    def __repr__(self) -> str:
        given = [f"{name}={np.float32(value)!s}" for name, value in self.parameters.items()]
        if self._data is not None:
            given.append(f"data=<{len(self._data)} slopes>")
        return f"MPSNNNeuronDescriptor({', '.join([f'MPSCNNNeuronType.{self._type.name}', *given])})"


def _remade(
    neuron_type: MPSCNNNeuronType, parameters: dict[str, float], data: npt.NDArray[np.float32] | None
) -> MPSNNNeuronDescriptor:
    return MPSNNNeuronDescriptor(neuron_type, **parameters, data=data)


def _slopes(data: npt.ArrayLike | bytes) -> npt.NDArray[np.float32]:
    if isinstance(data, bytes | bytearray | memoryview):
        raw = bytes(data)
        if len(raw) % 4:
            raise ParameterError(f"data has {len(raw)} bytes: give 4 for each feature channel")
        slopes = np.frombuffer(raw, "<f4").astype(np.float32)
    else:
        try:
            values = np.asarray(data)
        except ValueError as error:
            raise ParameterError(f"data: {error}: give one slope for each feature channel") from None
        if values.dtype.kind not in "fiu":
            raise ParameterError(f"data has dtype {values.dtype}: give float32 slopes")
        environment_or_error()
        with np.errstate(over="ignore"):
            slopes = values.astype(np.float32)
    if slopes.ndim != 1 or not slopes.size:
        raise ParameterError(f"data has shape {slopes.shape}: give one slope for each feature channel")
    if not np.isfinite(slopes).all():
        channel = int(np.flatnonzero(~np.isfinite(slopes))[0])
        raise ParameterError(f"data[{channel}] is {slopes[channel]}: give slopes that are finite as float32")
    slopes.flags.writeable = False
    return slopes


def descriptor_or_error(value: object, name: str = "descriptor") -> MPSNNNeuronDescriptor:
    """`value` itself, if it is a descriptor."""
    if not isinstance(value, MPSNNNeuronDescriptor):
        raise ParameterError(f"{name} is a {type(value).__name__}: give an MPSNNNeuronDescriptor")
    return value


def channels_or_error(descriptor: MPSNNNeuronDescriptor, channels: int, what: str) -> None:
    """Raise unless pReLU's slopes are as many as the feature channels that `what` has."""
    if descriptor.data is not None and len(descriptor.data) != channels:
        raise ParameterError(
            f"pReLU's data has {len(descriptor.data)} slopes, but {what} has {channels} channels: give one each"
        )


def channel_axis_or_error(descriptor: object, shape: tuple[int, ...], channel_axis: int) -> int:
    """
    The axis of an array x that counts feature channels, from 0 on; 0 where no channel has its own slope.

    Raises
    ------
    ImageError
        There is no such axis.
    ParameterError
        `descriptor` is none, or has not one slope for each channel.
    """
    d = descriptor_or_error(descriptor)
    try:
        axis = operator.index(channel_axis)
    except TypeError:
        raise ImageError(f"channel_axis is {channel_axis!r}: give the number of an axis of x") from None
    if d.data is None:
        return 0
    if not -len(shape) <= axis < len(shape):
        raise ImageError(f"channel_axis is {channel_axis}: x has {len(shape)} axes")
    axis %= len(shape)
    channels_or_error(d, shape[axis], f"axis {axis} of x")
    return axis
