"""The base of Apple's classes: reading or setting an unknown attribute is an error."""

from __future__ import annotations

import difflib
import inspect
import keyword
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Never, Self, TypeVar, overload

import numpy as np

from mpsref.errors import ParameterError, PropertyError, UnavailableError, shown

__all__ = [
    "GEOMETRY",
    "NO_DEVICE",
    "NO_MEMORY",
    "NO_STRIDES",
    "OPAQUE_STATES",
    "Connected",
    "Flag",
    "Setting",
    "Strict",
    "flag_or_error",
    "left_out",
    "snake",
]

_T = TypeVar("_T")

NO_MEMORY = "where the memory lies is no part of the numbers"
NO_DEVICE = "mpsref talks to no device"
NO_STRIDES = "strides broadcast a source, and both sources must have one size here"
OPAQUE_STATES = "states carry nothing that could be passed in or out"
GEOMETRY = "all paddings give the same answer for pointwise filters"


def snake(name: str) -> str:
    """
    The Python spelling of a Swift name.

    Examples
    --------
    >>> snake("resultImageIsNeeded"), snake("cnnNeuronPReLUDescriptor"), snake("with")
    ('result_image_is_needed', 'cnn_neuron_p_re_lu_descriptor', 'with_')
    """
    text = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
    return f"{text}_" if keyword.iskeyword(text) else text


class Strict:
    """
    Base of Apple's classes, with an error for unknown attributes.

    Only properties can be set, and names that a subclass outside mpsref declares in its body with a value. Names that
    start with an underscore are exempt.
    """

    __slots__ = ()

    _left_out: ClassVar[Mapping[str, str]] = {}
    """Properties and selectors of Apple's class that this one leaves out, and why."""
    _is_value: ClassVar[bool] = False
    """Whether nothing can be set."""

    if not TYPE_CHECKING:  # hidden from type checkers, for which an unknown name must stay an error

        def __getattr__(self, name: str) -> Any:
            try:
                return object.__getattribute__(self, name)
            except AttributeError:
                if name.startswith("_") or hasattr(type(self), name):  # a protocol's lookup; or a property that failed
                    raise
            raise PropertyError(_unknown(self, name))

        def __setattr__(self, name: str, value: object) -> None:
            if not name.startswith("_"):
                declared = getattr(type(self), name, None)
                is_property = hasattr(declared, "__set__") and getattr(declared, "fset", declared) is not None
                if (self._is_value or not is_property) and not _is_users(type(self), name):
                    is_known = hasattr(type(self), name) or name in getattr(self, "__dict__", ())
                    raise PropertyError(
                        f"{name} of {type(self).__name__} cannot be set{self._instead(name, value)}"
                        if is_known
                        else _unknown(self, name)
                    )
            object.__setattr__(self, name, value)

    def _instead(self, name: str, value: object) -> str:
        """The end of a message: what to do instead of setting a read-only attribute."""
        return ": give it to the initialiser" if name in inspect.signature(type(self).__init__).parameters else ""

    @classmethod
    def _refuse_arguments(cls, names: Iterable[str]) -> None:
        """Raise an error for keyword arguments that the initialiser does not take."""
        for name in names:
            why = _reason(cls, [snake(name)])
            raise UnavailableError(f"{cls.__name__} takes no {name}" + (f": {why}" if why else ""))


class Connected:
    """Base of what is held together by references, chains of any length: pickle and deepcopy would recurse."""

    __slots__ = ()

    def __reduce_ex__(self, protocol: object) -> Never:
        raise UnavailableError(f"{type(self).__name__} cannot be pickled or copied: GraphFile.write keeps a graph")


def left_out(kind: type) -> Mapping[str, str]:
    """The properties and selectors that a class itself, not its bases, leaves out, by Apple's names, and why."""
    own: Mapping[str, str] = vars(kind).get("_left_out", {})
    return own


class Setting(Generic[_T]):
    """
    A settable property with a default.

    Parameters
    ----------
    default : object
        What it is until it is set.
    doc : str
        Its documentation.
    checked : callable
        ``checked(name, value)``: the value to keep, or an error.
    """

    def __init__(self, default: _T, doc: str, checked: Callable[[str, Any], _T]) -> None:
        self.default, self._checked = default, checked
        self.__doc__ = doc

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, thing: None, owner: type) -> Self: ...

    @overload
    def __get__(self, thing: object, owner: type) -> _T: ...

    def __get__(self, thing: object | None, owner: type) -> Self | _T:
        return self if thing is None else thing.__dict__.get(self._name, self.default)

    def __set__(self, thing: object, value: _T) -> None:
        thing.__dict__[self._name] = self._checked(self._name, value)


class Flag(Setting[bool]):
    """A settable boolean property, False by default."""

    def __init__(self, doc: str) -> None:
        super().__init__(False, doc, flag_or_error)


def flag_or_error(name: str, value: object) -> bool:
    """`value` as a bool; raises `ParameterError` unless it is one, numpy's or an integer."""
    if not isinstance(value, bool | int | np.bool_):
        raise ParameterError(f"{name} is {shown(value)}: give True or False")
    return bool(value)


def _is_users(kind: type, name: str) -> bool:
    """Whether a class outside mpsref introduced the name."""
    owner = next((base for base in reversed(kind.__mro__) if name in vars(base)), None)
    return owner is not None and not f"{owner.__module__}.".startswith(f"{__package__}.")


def _reason(kind: type, names: list[str]) -> str | None:
    """Why Apple's attribute with one of these names is left out; None if none is."""
    for base in kind.__mro__:
        for apple, why in left_out(base).items():
            stem = snake(apple.partition(":")[0])
            if any(f"{stem}_".startswith(f"{name}_") or name.startswith(f"{stem}_") for name in names):
                return why
    return None


def _unknown(thing: Strict, name: str) -> str:
    """The message for an unknown attribute: the one that was probably meant, or why there is none."""
    kind = type(thing)
    known = [each for each in dir(thing) if not each.startswith("_")]
    spelled = snake(name.rstrip("_"))
    names = [spelled.removeprefix("set_"), spelled] if spelled.startswith("set_") else [spelled]
    if why := _reason(kind, names):
        return f"{kind.__name__} has no {name}: {why}"
    # PyObjC spells selectors: gradientFilterWithSource_ is gradient_filter(with_source=...).
    begins = max((each for each in known if f"{names[0]}_".startswith(f"{each}_")), key=len, default=None)
    close = [begins] if begins else difflib.get_close_matches(names[0], known, 1)
    if close:
        meant = f"set {close[0]} = ..." if len(names) > 1 else f"use {close[0]}"
    else:
        meant = f"help(mpsref.{kind.__name__}) shows what it has"
    if not kind.__module__.startswith(f"{__package__}."):
        meant += f"; or declare it in the body of {kind.__name__}, with a value"
    return f"{kind.__name__} has no attribute {name}: {meant}"
