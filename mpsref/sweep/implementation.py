"""A user's implementation: imported by name, called, and its result checked."""

from __future__ import annotations

import importlib
import multiprocessing
from collections.abc import Callable
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from mpsref.arrays import Stored
from mpsref.errors import ImplementationError, raised
from mpsref.storage import as_numpy, unmasked_or_error
from mpsref.sweep.libraries import adapter, names_of

__all__ = ["Implementation", "call", "load", "name_of", "sources_of"]

Implementation: TypeAlias = Callable[..., Any] | str
"""A function, or where it is: ``module:function``, or ``library:activation`` of `mpsref.sweep.libraries`."""


def name_of(implementation: Implementation) -> str:
    """The name of an implementation in a report."""
    if isinstance(implementation, str):
        return implementation
    named = implementation if hasattr(implementation, "__name__") else type(implementation)
    name = getattr(named, "__qualname__", named.__name__)
    module = getattr(named, "__module__", None)
    return f"{module}:{name}" if module else str(name)


def sources_of(implementation: str) -> list[Path]:
    """The files of the module in ``module:function`` and of the packages that it is in, without importing any."""
    paths: list[Path] = []
    path = None
    for part in implementation.partition(":")[0].split("."):
        # By its last name only: with dots, a folder without an __init__ asks for the import of what it is in.
        spec = PathFinder.find_spec(part, path)
        if spec is None:
            break
        if spec.origin is not None:
            paths.append(Path(spec.origin))
        path = spec.submodule_search_locations
    return paths


@cache
def _imported(name: str) -> Callable[..., Any]:
    named = adapter(name)
    if named is not None:
        return named.function()
    module, colon, attributes = name.partition(":")
    if not (module and colon and attributes):
        raise ImplementationError(f"{name}: give MODULE:FUNCTION, such as mine:softplus or torch:gelu")
    try:
        target: Any = importlib.import_module(module)
    except BaseException as error:
        _pass_on_interrupts(error)
        raise ImplementationError(f"{name}: {module} cannot be imported: {raised(error)}{names_of(module)}") from error
    for attribute in attributes.split("."):
        try:
            target = getattr(target, attribute)
        except AttributeError:
            raise ImplementationError(
                f"{name}: {attribute} is not in {getattr(target, '__name__', target)!s}{names_of(module)}"
            ) from None
        except BaseException as error:
            _pass_on_interrupts(error)
            raise ImplementationError(f"{name}: {attribute} cannot be read: {raised(error)}") from error
    if not callable(target):
        raise ImplementationError(f"{name}: not a function, but of type {type(target).__name__}")
    function: Callable[..., Any] = target
    return function


def load(implementation: Implementation) -> Callable[..., Any]:
    """The function itself; raises `ImplementationError` if there is none."""
    if isinstance(implementation, str):
        return _imported(str.__str__(implementation))
    if not callable(implementation):
        raise ImplementationError(f"the implementation is a {type(implementation).__name__}: give a function")
    return implementation


def call(implementation: Implementation, x: Stored, upstream: Stored | None) -> Stored:
    """
    The result of an implementation, which may write to its arguments.

    Raises `ImplementationError` where it raises an error, which is then the cause, or returns no array like `x`.
    """
    function, name = load(implementation), name_of(implementation)
    arguments = (x,) if upstream is None else (x, upstream)
    dtype, shape = x.dtype, x.shape
    try:
        with np.errstate(all="ignore"):
            made = function(*arguments)
            unmasked_or_error(made, "its result")
            result = as_numpy(made)
    except ImplementationError:
        raise  # a library's adapter has said it
    except BaseException as error:
        _pass_on_interrupts(error)
        raise ImplementationError(f"{name}: raised {raised(error)}") from error
    if result.dtype != dtype or result.shape != shape:
        raise ImplementationError(
            f"{name}: returned {'None' if made is None else f'{result.dtype}{list(result.shape)}'} "
            f"for {dtype}{list(shape)}: it must be like x"
        )
    return np.ascontiguousarray(result)


def _pass_on_interrupts(error: BaseException) -> None:
    """Raise an interrupt by Ctrl-C, which workers ignore: there it is the implementation's own."""
    if isinstance(error, KeyboardInterrupt) and multiprocessing.parent_process() is None:
        raise error
