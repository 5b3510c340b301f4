"""Arguments held to their annotations: one error that names the argument, before anything is done with it."""

from __future__ import annotations

import functools
import inspect
import operator
import os
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import IntEnum
from pathlib import Path
from typing import Any, ParamSpec, TypeAlias, TypeVar, Union, get_args, get_origin

import numpy as np

from mpsref.attributes import flag_or_error
from mpsref.enums import member_of
from mpsref.errors import CONVERSION_ERRORS, FileFormatError, MPSRefError, ParameterError, described, shown
from mpsref.storage import array_or_error

__all__ = ["callable_or_error", "checked", "checked_but", "checked_fields", "mapping_or_error", "sequence_or_error"]

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C")
_VARIABLE = inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL
Check: TypeAlias = Callable[[str, Any], Any]
"""Takes an argument's name and value, and returns the value to go on with, or raises an error of mpsref."""


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """
    Let a function raise `ParameterError` for an argument that is not what its annotation says.

    Plain classes, unions, and the elements of sequences, iterables and mappings are looked at; whatever else an
    annotation names is left to the function. Iterables arrive as lists, subclasses of str as plain ones; what is
    annotated as a list, which may be there to be extended, as itself.
    """
    return _checked(function, ())


def checked_but(*names: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """`checked`, but for some arguments, which the function checks with better words."""
    return functools.partial(_checked, but=names)


def _checked(function: Callable[P, R], but: tuple[str, ...]) -> Callable[P, R]:
    @functools.cache
    def checks() -> dict[str, Check]:
        # At the first call, because annotations may name what is defined further down.
        return {
            name: _anything if name in but or p.kind in _VARIABLE else _check_of(p.annotation, function)
            for name, p in inspect.signature(function).parameters.items()
        }

    def call(*args: Any, **kwargs: Any) -> R:
        __tracebackhide__ = True
        by_name = checks()
        # What fits no parameter is left to the function: Python has its own error for it.
        checked_args = [check(name, value) for (name, check), value in zip(by_name.items(), args, strict=False)]
        for name in kwargs.keys() & by_name.keys():
            kwargs[name] = by_name[name](name, kwargs[name])
        return function(*checked_args, *args[len(checked_args) :], **kwargs)

    # In the module of the function, or doctest takes its examples for those of another module.
    here = types.FunctionType(call.__code__, function.__globals__, "checked", None, call.__closure__)
    return functools.wraps(function)(here)


def checked_fields(kind: type[C]) -> type[C]:
    """Let the initialiser of a dataclass raise `ParameterError` for a field that is not what its annotation says."""
    setattr(kind, "__init__", checked(kind.__init__))  # noqa: B010  mypy refuses an assignment
    return kind


def _anything(name: str, value: Any) -> Any:
    return value


def _refused(name: str, value: Any, wanted: str) -> ParameterError:
    return ParameterError(f"{name} is {shown(value)}: give {wanted}")


def _check_of(annotation: Any, function: Callable[..., Any]) -> Check:  # noqa: PLR0911  a list of kinds
    if isinstance(annotation, str):
        try:
            annotation = eval(annotation, function.__globals__)  # noqa: S307  our own
        except (NameError, TypeError):  # of a name that only type checkers know, or with one in quotes
            return _anything
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return _union([_check_of(part, function) for part in _without_text_for_paths(parts)])
    if origin is tuple and parts[-1] is not Ellipsis:
        return _row([_check_of(part, function) for part in parts])
    if isinstance(origin, type):
        if issubclass(origin, np.ndarray):
            return _array
        if issubclass(origin, Mapping):
            return _mapping(*(_check_of(part, function) for part in parts))
        if origin is list:  # that the function extends
            return _instance(list)
        if issubclass(origin, Iterable):
            return _sequence(_check_of(parts[0], function), origin)
        return callable_or_error if issubclass(origin, Callable) else _anything  # type: ignore[arg-type]
    return _PLAIN.get(annotation) or _instance(annotation)


def _without_text_for_paths(parts: tuple[Any, ...]) -> list[Any]:
    return [part for part in parts if part is not str or Path not in parts]


def _union(checks: list[Check]) -> Check:
    if _anything in checks or len(checks) == 1:
        return _anything if _anything in checks else checks[0]

    def check(name: str, value: Any) -> Any:
        errors = []
        for each in checks:
            try:
                return each(name, value)
            except MPSRefError as error:
                errors.append(error)
        wanted = dict.fromkeys(str(error).rpartition(": give ")[2] for error in errors)
        raise _refused(name, value, " or ".join(wanted))

    return check


def sequence_or_error(name: str, value: Any, *, is_one_pass: bool = False) -> list[Any]:
    """`value` as a list, if it is a sequence, or an iterable if that will do, and no text."""
    is_right = isinstance(value, Iterable if is_one_pass else Sequence)
    if not is_right or isinstance(value, str | bytes | bytearray | np.ndarray):
        raise ParameterError(f"{name} is a {type(value).__name__}: give a list")
    try:
        return list(value)
    except Exception as error:  # noqa: BLE001  somebody's object may raise anything
        raise ParameterError(f"{name} cannot be read, {described(error)}: give a list") from None


def mapping_or_error(name: str, value: Any) -> dict[Any, Any]:
    """`value` as a dict, if it is a mapping."""
    if not isinstance(value, Mapping):
        raise ParameterError(f"{name} is a {type(value).__name__}: give a mapping")
    try:
        return {key: value[key] for key in value}
    except Exception as error:  # noqa: BLE001  somebody's object may raise anything
        raise ParameterError(f"{name} cannot be read, {described(error)}: give a mapping") from None


def _sequence(element: Check, kind: type[Any]) -> Check:
    made: Callable[[Iterable[Any]], Any] = kind if issubclass(kind, tuple | frozenset) else list

    def check(name: str, value: Any) -> Any:
        values = sequence_or_error(name, value, is_one_pass=not issubclass(kind, Sequence))
        return made(element(f"{name}[{i}]", each) for i, each in enumerate(values))

    return check


def _row(elements: list[Check]) -> Check:
    wanted = f"{len(elements)} values"

    def check(name: str, value: Any) -> Any:
        values = sequence_or_error(name, value)
        if len(values) != len(elements):
            raise _refused(name, value, wanted)
        found = [each(f"{name}[{i}]", part) for i, (each, part) in enumerate(zip(elements, values, strict=True))]
        return type(value)(*found) if hasattr(value, "_fields") else tuple(found)

    return check


def _mapping(key: Check, element: Check) -> Check:
    def check(name: str, value: Any) -> Any:
        items = mapping_or_error(name, value).items()
        return {key(f"a name in {name}", k): element(f"{name}[{shown(k)}]", each) for k, each in items}

    return check


def _instance(kind: Any) -> Check:
    if not isinstance(kind, type) or kind is object or getattr(kind, "_is_protocol", False):
        return _anything

    def check(name: str, value: Any) -> Any:
        found = member_of(kind, value) if issubclass(kind, IntEnum) else value
        if not isinstance(found, kind):
            article = "an" if kind.__name__[0] in "AEIOUM" else "a"
            raise ParameterError(f"{name} is a {type(value).__name__}: give {article} {kind.__name__}")
        return found

    return check


def callable_or_error(name: str, value: Any) -> Any:
    """`value`, if it can be called."""
    if not callable(value):
        raise _refused(name, value, "a function")
    return value


def _array(name: str, value: Any) -> Any:
    return array_or_error(value, name)


def _none(name: str, value: Any) -> None:
    if value is not None:
        raise _refused(name, value, "None")


def _integer(name: str, value: Any) -> int:
    try:
        if not isinstance(value, bool):
            return operator.index(value)
    except CONVERSION_ERRORS:
        pass
    raise _refused(name, value, "an integer")


def _number(name: str, value: Any) -> Any:
    try:
        if isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool):
            float(value)
            return value
    except OverflowError:
        pass
    raise _refused(name, value, "a number")


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise _refused(name, value, "a string")
    return value if type(value) is str else str.__str__(value)


def _path(name: str, value: Any) -> Any:
    try:
        path = Path(os.fspath(value))
        is_path = b"\0" not in os.fsencode(path)
    except CONVERSION_ERRORS:
        raise _refused(name, value, "a path") from None
    if not is_path:
        raise FileFormatError(f"{shown(path)}: no file has such a name")
    return path


_PLAIN: dict[Any, Check] = {
    None: _none, types.NoneType: _none, bool: flag_or_error, int: _integer, float: _number, str: _text, Path: _path,
    range: _instance(range),
    Any: _anything, inspect.Parameter.empty: _anything, bytes: _instance(bytes),
}  # fmt: skip
