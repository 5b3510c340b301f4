"""MPSNNNeuronDescriptor: a neuron type and its parameters."""

from __future__ import annotations

import math
import operator
import reprlib
import struct
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from mpsref.attributes import Strict
from mpsref.enums import ActivationType, MPSCNNNeuronType, member_of
from mpsref.environment import environment_or_error
from mpsref.errors import CONVERSION_ERRORS, ImageError, ParameterError, shown
from mpsref.neuron.activations import ACTIVATIONS
from mpsref.neuron.table import NEURONS, Neuron, NeuronType
from mpsref.storage import array_or_error, round_to_odd

__all__ = ["Activation", "MPSNNNeuronDescriptor", "float32_parameter"]


def float32_parameter(name: str, value: Any) -> float:
    """
    Round a parameter once to float32, as passing it to Apple's ``float`` does.

    Raises
    ------
    ParameterError
        `value` is not a real number, or not finite as a float32; the message calls it `name`.
    FloatingPointModeError
        This thread would flush it to zero, or not round it to nearest.
    """
    if isinstance(value, float | int | np.floating | np.integer) and not isinstance(value, bool):
        # A large integer may not be a float64: numpy's own conversion would round twice.
        with np.errstate(over="ignore"):
            exact = isinstance(value, float | np.floating)
            rounded = float(np.float32(value)) if exact else _from_integer(int(value))
        if rounded != value:
            # Only here: importing mpsref makes descriptors, and must work in any environment.
            environment_or_error()
        if math.isfinite(rounded):
            return rounded
    raise ParameterError(f"{name} is {shown(value)}: give a number that is finite as a float32")


def _from_integer(value: int) -> float:
    try:
        near = float(value)
    except OverflowError:
        return math.inf
    error = (value > int(near)) - (value < int(near))
    return float(round_to_odd(np.array([near]), np.array([float(error)])).astype(np.float32)[0])


class MPSNNNeuronDescriptor(Strict):
    """
    A neuron type with its parameters: an immutable value.

    Parameters
    ----------
    neuron_type : MPSCNNNeuronType or str
        The neuron: a member, or its name.
    a, b, c : float, optional
        Rounded once to float32; the default is the documented one. Those that the neuron does not use are kept and
        shown, as Apple does, but have no effect on results, equality or files.
    data : array_like of float32 or bytes, optional
        The slopes of pReLU, one per feature channel: required there, refused elsewhere. Bytes are little-endian
        float32, as in Apple's ``NSData``.

    Attributes
    ----------
    neuron_type : MPSCNNNeuronType
        The neuron.
    a, b, c : float
        The parameters; unused ones default to 0.
    data : ndarray of float32 or None
        The slopes of pReLU by feature channel, read-only; None for all others.
    row : Neuron
        The neuron's row of the table.

    Raises
    ------
    ParameterError
        A parameter is not finite as a float32; pReLU lacks `data`, or another neuron has it.
    PropertyError
        An attribute is set.

    Notes
    -----
    Source: ``MPSCNNNeuron.h``. Apple's descriptor is mutable, and its factory has no defaults; this constructor fills
    in what the header calls default behaviour.

    Examples
    --------
    >>> from mpsref import MPSCNNNeuronType, MPSNNNeuronDescriptor
    >>> MPSNNNeuronDescriptor(MPSCNNNeuronType.reLUN, a=0)
    MPSNNNeuronDescriptor(MPSCNNNeuronType.reLUN, a=0.0, b=6.0)
    >>> MPSNNNeuronDescriptor(MPSCNNNeuronType.pReLU, data=[0.25, 0.5]).data
    array([0.25, 0.5 ], dtype=float32)
    """

    # Slots, not properties: every evaluation reads some, and a property costs twice as much.
    __slots__ = ("_hash", "_key", "a", "b", "c", "data", "neuron_type", "row")

    _is_value = True

    neuron_type: MPSCNNNeuronType
    row: Neuron
    a: float
    b: float
    c: float
    data: npt.NDArray[np.float32] | None
    _key: tuple[int | str, bytes, bytes]
    _hash: int

    def __init__(
        self,
        neuron_type: MPSCNNNeuronType | str,
        a: float | None = None,
        b: float | None = None,
        c: float | None = None,
        *,
        data: npt.ArrayLike | bytes | None = None,
    ) -> None:
        own_type = neuron_type_or_error(neuron_type)
        row = NEURONS[own_type]
        values = dict.fromkeys("abc", 0.0) | dict(row.parameters)
        values |= {name: value for name, value in (("a", a), ("b", b), ("c", c)) if value is not None}
        numbers = {name: float32_parameter(name, value) for name, value in values.items()}
        if row.per_channel != (data is not None):
            raise ParameterError(
                f"{own_type.name} needs data: one float32 slope per feature channel"
                if row.per_channel
                else f"data is only for pReLU: {own_type.name} does not take it"
            )
        self._fill(own_type, row, numbers, None if data is None else _slopes(data))

    def _fill(
        self,
        own_type: NeuronType,
        row: Neuron,
        numbers: Mapping[str, float],
        slopes: npt.NDArray[np.float32] | None = None,
    ) -> None:
        # Bit patterns, not numbers: a = -0.0 and a = 0.0 give results that differ in the sign of zero.
        patterns = struct.pack(f"{len(row.parameters)}d", *list(numbers.values())[: len(row.parameters)])
        key = (own_type.value, patterns, b"" if slopes is None else bytes(slopes))
        put = object.__setattr__  # past the guard, as images are made
        put(self, "neuron_type", own_type)
        put(self, "row", row)
        for name, number in numbers.items():
            put(self, name, number)
        put(self, "data", slopes)
        put(self, "_key", key)
        put(self, "_hash", hash(key))

    @classmethod
    def cnn_neuron_descriptor(
        cls, *, with_: MPSCNNNeuronType, a: float = 0.0, b: float = 0.0, c: float = 0.0
    ) -> MPSNNNeuronDescriptor:
        """
        Apple's factory: omitted parameters are 0, not the documented default.

        Parameters
        ----------
        with_ : MPSCNNNeuronType
            The neuron; for pReLU use `cnn_neuron_p_re_lu_descriptor`.
        a, b, c : float
            As for the class.

        Notes
        -----
        The header does not say what an omitted parameter is: 0 is what a new Objective-C object holds.

        Examples
        --------
        >>> from mpsref import MPSCNNNeuronType, MPSNNNeuronDescriptor
        >>> MPSNNNeuronDescriptor.cnn_neuron_descriptor(with_=MPSCNNNeuronType.reLUN, a=0.5)
        MPSNNNeuronDescriptor(MPSCNNNeuronType.reLUN, a=0.5, b=0.0)
        """
        return cls(with_, a, b, c)

    @classmethod
    def cnn_neuron_p_re_lu_descriptor(
        cls,
        *,
        with_: npt.ArrayLike | bytes,
        no_copy: bool = False,  # noqa: ARG003 (a hint for Apple's allocator)
    ) -> MPSNNNeuronDescriptor:
        """
        Apple's factory for pReLU.

        Parameters
        ----------
        with_ : array_like of float32 or bytes
            The `data` of the class.
        no_copy : bool
            A hint for Apple's allocator, without effect here: the slopes are copied.
        """
        return cls(MPSCNNNeuronType.pReLU, data=with_)

    @property
    def parameters(self) -> dict[str, float]:
        """The parameters that the neuron uses, by name."""
        return dict(zip(self.row.parameters, (self.a, self.b, self.c), strict=False))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MPSNNNeuronDescriptor) and self._key == other._key

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickled, (self.neuron_type, self._shown(), self.data)

    def _shown(self) -> dict[str, float]:
        """The parameters that the neuron uses, and the unused ones that are not 0."""
        return {name: value for name in "abc" if (value := getattr(self, name)) or name in self.row.parameters}

    def _instead(self, name: str, value: object) -> str:
        if name not in (*"abc", "neuron_type" if self.data is None else "data"):
            return ""
        others = [*self._shown(), *(() if self.data is None else ["data"])]
        arguments = {each: f"{each}=d.{each}" for each in others} | {name: f"{name}={reprlib.repr(value)}"}
        first = "d.neuron_type"
        if isinstance(value, MPSCNNNeuronType):
            first = f"{MPSCNNNeuronType.__name__}.{value.name}"
            del arguments[name]
        return f": MPSNNNeuronDescriptor({', '.join([first, *arguments.values()])}) makes another"

    def __repr__(self) -> str:
        arguments = [f"{name}={np.float32(value)!s}" for name, value in self._shown().items()]
        if self.data is not None:
            arguments.append(f"data=<{len(self.data)} slopes>")
        return f"MPSNNNeuronDescriptor({', '.join([f'MPSCNNNeuronType.{self.neuron_type.name}', *arguments])})"


def _unpickled(
    neuron_type: MPSCNNNeuronType, parameters: dict[str, float], data: npt.NDArray[np.float32] | None
) -> MPSNNNeuronDescriptor:
    return MPSNNNeuronDescriptor(neuron_type, **parameters, data=data)


class Activation(MPSNNNeuronDescriptor):
    """
    An activation that is not Apple's, with its parameters: an immutable value.

    It stands wherever a descriptor does, except in nodes and layers, which are Apple's.

    Parameters
    ----------
    name : str
        One of `mpsref.activations.ACTIVATIONS`.
    **parameters : float
        By their names in the row, such as ``beta``. Rounded once to float32; the default is the row's.

    Attributes
    ----------
    neuron_type : ActivationType
        The activation.
    a, b, c : float
        The parameters in the order of the row; `parameters` has them by name.

    Raises
    ------
    ParameterError
        There is no such activation or parameter, or it is not finite as a float32, or too small.

    Examples
    --------
    >>> import numpy as np
    >>> import mpsref as mps
    >>> from mpsref.activations import Activation
    >>> swish = Activation("silu", beta=2)
    >>> swish, swish.parameters
    (Activation('silu', beta=2.0), {'beta': 2.0})
    >>> mps.neuron.forward(swish, np.float32([-1, 0, 1]))
    array([-0.11920292,  0.        ,  0.8807971 ], dtype=float32)
    """

    __slots__ = ()

    neuron_type: ActivationType  # type: ignore[assignment]

    def __init__(self, name: ActivationType | str, **parameters: float) -> None:
        own_type = ActivationType.__members__.get(name.name if isinstance(name, ActivationType) else str(name))
        if own_type is None:
            raise ParameterError(f"name is {shown(name)}: choose one of {', '.join(ActivationType.__members__)}")
        row = ACTIVATIONS[own_type]
        parameters_or_error(own_type, parameters)
        numbers = {each: float32_parameter(each, value) for each, value in ({**row.parameters} | parameters).items()}
        for each, least in row.least.items():
            if numbers[each] < least:
                raise ParameterError(f"{each} is {numbers[each]}: give {'more than 0' if least else 'at least 0'}")
        self._fill(own_type, row, dict(zip("abc", [*numbers.values(), 0.0, 0.0, 0.0], strict=False)))

    def __reduce__(self) -> tuple[Any, ...]:
        return neuron_of, (self.neuron_type.name, self.parameters)

    def _instead(self, name: str, value: object) -> str:
        return ": make another Activation"

    def __repr__(self) -> str:
        arguments = [f"{name}={np.float32(value)!s}" for name, value in self.parameters.items()]
        return f"Activation({', '.join([repr(self.neuron_type.name), *arguments])})"


def neuron_of(name: str, parameters: Mapping[str, float], slope: float | None = None) -> MPSNNNeuronDescriptor:
    """
    A neuron by its name and parameters, as a command or a report of a sweep states it.

    Raises
    ------
    ParameterError
        There is no such neuron, or it has no such parameters.
    """
    if name in ActivationType.__members__ and slope is None:
        return Activation(name, **parameters)
    neuron_type = neuron_type_or_error(name, "neuron")
    parameters_or_error(neuron_type, parameters)
    return MPSNNNeuronDescriptor(neuron_type, **parameters, data=None if slope is None else [slope])


def parameters_or_error(neuron_type: NeuronType, names: Iterable[str]) -> None:
    """Raise unless the neuron has these parameters: an unused one in a file or command is a mistake."""
    row = ACTIVATIONS[neuron_type] if isinstance(neuron_type, ActivationType) else NEURONS[neuron_type]
    for name in names:
        if name not in row.parameters:
            has = ", ".join(row.parameters) or ("data" if row.per_channel else "none")
            raise ParameterError(f"{name} is no parameter of {neuron_type.name}: it has {has}")


def _slopes(data: npt.ArrayLike | bytes) -> npt.NDArray[np.float32]:
    if isinstance(data, bytes | bytearray | memoryview):
        raw = bytes(data)
        if len(raw) % 4:
            raise ParameterError(f"data has {len(raw)} bytes: give 4 per feature channel")
        slopes = np.frombuffer(raw, "<f4").astype(np.float32)
    else:
        try:
            values = array_or_error(data, "data")
        except ImageError as error:
            raise ParameterError(f"{error}") from None
        if values.dtype.kind not in "fiu":
            raise ParameterError(f"data has dtype {values.dtype}: give float32 slopes")
        environment_or_error()
        with np.errstate(over="ignore"):
            slopes = values.astype(np.float32)
    if slopes.ndim != 1 or not slopes.size:
        raise ParameterError(f"data has shape {slopes.shape}: give one slope per feature channel")
    if not np.isfinite(slopes).all():
        channel = int(np.flatnonzero(~np.isfinite(slopes))[0])
        raise ParameterError(f"data[{channel}] is {slopes[channel]}: give slopes that are finite as float32")
    slopes.flags.writeable = False
    return slopes


NeuronLike: TypeAlias = MPSNNNeuronDescriptor | MPSCNNNeuronType | ActivationType | str
"""A descriptor; or a type or its name, which means the documented parameters."""


def neuron_type_or_error(value: object, name: str = "neuron_type") -> MPSCNNNeuronType:
    """The neuron type for a member of Apple's enumeration, its name or its raw value."""
    neuron_type = member_of(MPSCNNNeuronType, value)
    if neuron_type is None:
        raise ParameterError(f"{name} is {shown(value)}: choose one of {', '.join(t.name for t in MPSCNNNeuronType)}")
    return neuron_type


def descriptor_or_error(value: object, name: str = "descriptor", *, of_apple: bool = False) -> MPSNNNeuronDescriptor:
    """The descriptor itself, or that of a neuron type or its name with the documented parameters."""
    if isinstance(value, MPSNNNeuronDescriptor) and not of_apple:
        return value
    is_other = isinstance(value, ActivationType) or (isinstance(value, str) and value in ActivationType.__members__)
    if is_other:
        value = Activation(value)  # type: ignore[arg-type]
    if of_apple and isinstance(value, Activation):
        raise ParameterError(f"{name} is {value!r}, which Apple does not have: nodes and layers take Apple's neurons")
    if isinstance(value, MPSNNNeuronDescriptor):
        return value
    if isinstance(value, MPSCNNNeuronType | str):
        return MPSNNNeuronDescriptor(neuron_type_or_error(value, name))
    raise ParameterError(f"{name} is a {type(value).__name__}: give an MPSNNNeuronDescriptor")


def channels_or_error(descriptor: MPSNNNeuronDescriptor, channels: int, what: str) -> None:
    """Raise unless pReLU has one slope per feature channel of `what`."""
    slopes = descriptor.data
    if slopes is not None and len(slopes) != channels:
        raise ParameterError(
            f"pReLU's data has {len(slopes)} slopes, but {what} has {channels} channels: give one each"
        )


def channel_axis_or_error(descriptor: MPSNNNeuronDescriptor, shape: tuple[int, ...], channel_axis: int) -> int:
    """
    The axis of feature channels of an array x, not negative; 0 for neurons without a slope per channel.

    Raises
    ------
    ImageError
        The axis does not exist.
    ParameterError
        The descriptor does not have one slope per channel.
    """
    try:
        axis = operator.index(channel_axis)
    except CONVERSION_ERRORS:
        raise ImageError(f"channel_axis is {shown(channel_axis)}: give the number of an axis of x") from None
    if descriptor.data is None:
        return 0
    if not -len(shape) <= axis < len(shape):
        raise ImageError(f"channel_axis is {channel_axis}: x has {len(shape)} axes")
    axis %= len(shape)
    channels_or_error(descriptor, shape[axis], f"axis {axis} of x")
    return axis
