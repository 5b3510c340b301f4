"""Functions of torch, JAX, MLX and TensorFlow on arrays of numpy, and the gradients that the libraries derive."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from typing import Any

import numpy as np

from mpsref.arguments import checked
from mpsref.arrays import Stored
from mpsref.errors import DependencyError, ParameterError
from mpsref.neuron.descriptor import MPSNNNeuronDescriptor
from mpsref.storage import as_numpy

__all__ = ["forward_of", "gradient_of"]


@checked
def gradient_of(function: Callable[..., Any], library: str | None = None, *, device: str | None = None) -> Any:
    """
    The gradient that a library's automatic differentiation derives from a forward function.

    Parameters
    ----------
    function : callable
        Takes arrays of the library, one for each input, and returns one.
    library : str, optional
        ``torch``, ``jax``, ``mlx`` or ``tensorflow``. Default: the one that the function is of or uses, or else the
        only one that is imported.
    device : str, optional
        Where torch or TensorFlow computes, such as ``mps`` or ``GPU:0``. Default: the library's own default.

    Returns
    -------
    callable
        ``gradient(x, upstream)``, with several inputs ``gradient(x, y, upstream)``, of and to arrays of numpy: as
        `check_implementation`, `check_gradient` and `mpsref.sweep.sweep` take it. A descriptor after these is the
        function's last argument, too.

    Raises
    ------
    ParameterError
        The library is unknown, or cannot be told.
    DependencyError
        The library is not installed.

    Notes
    -----
    JAX makes float32 of float64 unless ``jax_enable_x64`` is set, and MLX and the MPS devices of torch have no float64:
    give `check_gradient` ``dtype="float32"``.

    Examples
    --------
    >>> from mpsref.testing import check_implementation, gradient_of
    >>> import torch  # doctest: +SKIP
    >>> gradient, d = gradient_of(torch.nn.functional.softplus), mps.MPSNNNeuronDescriptor("softPlus")  # doctest: +SKIP
    >>> check_implementation(gradient, d, direction="gradient")  # doctest: +SKIP
    """
    names = list(dict.fromkeys(_libraries_of(function))) if library is None else [library]
    if library is None and not names:
        names = [name for name in _GRADIENTS if _MODULES[name] in sys.modules]
    if len(names) != 1 or names[0] not in _GRADIENTS:
        said = f"is {library!r}" if library is not None else f"may be any of {', '.join(names or _GRADIENTS)}"
        raise ParameterError(f"library {said}: give one of {', '.join(_GRADIENTS)}")
    module, derived = _module_of(names[0]), _GRADIENTS[names[0]]

    def gradient(*given: Any) -> Any:
        descriptor = [each for each in given if isinstance(each, MPSNNNeuronDescriptor)]
        arrays = [each for each in given if not isinstance(each, MPSNNNeuronDescriptor)]
        forward = (lambda *inputs: function(*inputs, *descriptor)) if descriptor else function
        with _placed(module, names[0], device):
            *inputs, upstream = _taken(module, names[0], arrays, device)
            gradients = tuple(map(_given, derived(module, forward, inputs, upstream)))
        return gradients if len(gradients) > 1 else gradients[0]

    gradient.__name__ = gradient.__qualname__ = f"gradient of {getattr(function, '__name__', type(function).__name__)}"
    return gradient


def _libraries_of(function: Any, depth: int = 2) -> Iterator[str]:
    """The libraries in which a function is defined, or whose names its code uses, or that of functions it calls."""
    function = function.func if isinstance(function, functools.partial) else getattr(function, "__wrapped__", function)
    kinds = [*type(function).__mro__, getattr(function, "__objclass__", None)]
    modules = [getattr(each, "__module__", None) for each in (function, *kinds)]
    called = function if hasattr(function, "__code__") else type(function).__call__
    code, names = getattr(called, "__code__", None), getattr(called, "__globals__", {})
    used = [names[name] for name in getattr(code, "co_names", ()) if name in names]
    used += [cell.cell_contents for cell in getattr(called, "__closure__", None) or ()]
    for each in used:
        modules += [getattr(each, "__module__", None), getattr(each, "__name__", None), type(each).__module__]
    for module in modules:
        root = str(module).partition(".")[0]
        if root in _GRADIENTS:
            yield root
    for each in used:
        if depth and callable(each) and not isinstance(each, type):
            yield from _libraries_of(each, depth - 1)


def forward_of(function: Callable[..., Any], library: str, *, device: str | None = None) -> Callable[..., Any]:
    """A function of a library's arrays as one of arrays of numpy; arguments and errors as of `gradient_of`."""
    module = _module_of(library)

    def forward(*arrays: Stored) -> Any:
        with _placed(module, library, device):
            return _given(function(*_taken(module, library, arrays, device)))

    return forward


def _module_of(library: str) -> Any:
    try:
        return import_module(_MODULES[library])
    except ModuleNotFoundError as error:
        raise DependencyError(f"library is {library!r}, which cannot be imported: {error}") from error


# ---- arrays in and out ----


def _placed(module: Any, library: str, device: str | None) -> contextlib.AbstractContextManager[Any]:
    """Where TensorFlow computes; the others compute where their arrays are."""
    return module.device(device) if library == "tensorflow" else contextlib.nullcontext()


def _taken(module: Any, library: str, arrays: Iterable[Stored], device: str | None) -> list[Any]:
    """Arrays of the library."""
    # Neither torch nor MLX takes negative strides.
    flat = (a.copy() if min(a.strides, default=0) < 0 else a for a in map(np.asarray, arrays))
    if library == "torch":
        # It warns of what cannot be written to.
        tensors = [_tensor(module, a if a.flags.writeable else a.copy()) for a in flat]
        return tensors if device is None else [tensor.to(device) for tensor in tensors]
    if library == "tensorflow":
        return list(map(module.convert_to_tensor, flat))
    if device is not None:
        raise ParameterError(f"device is {device!r}: {library} has its own ways to choose one, leave it out")
    return list(map(module.numpy.asarray if library == "jax" else module.array, flat))


def _tensor(torch: Any, array: Stored) -> Any:
    if array.dtype.kind == "f":
        return torch.from_numpy(array)
    # It takes no array of bfloat16, but has tensors of it.
    return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)


def _given(array: Any) -> Any:
    """An array of a library as one of numpy."""
    return as_numpy(array.detach().cpu() if hasattr(array, "detach") else array)


# ---- gradients ----


def _torch(torch: Any, function: Any, inputs: list[Any], upstream: Any) -> list[Any]:
    variables = [tensor.requires_grad_() for tensor in inputs]
    gradients = torch.autograd.grad(function(*variables), variables, upstream, allow_unused=True)
    zeros = zip(gradients, variables, strict=True)
    return [torch.zeros_like(x) if gradient is None else gradient for gradient, x in zeros]


def _jax(jax: Any, function: Any, inputs: list[Any], upstream: Any) -> list[Any]:
    _, pullback = jax.vjp(function, *inputs)
    return list(pullback(upstream))


def _mlx(mx: Any, function: Any, inputs: list[Any], upstream: Any) -> list[Any]:
    _, gradients = mx.vjp(function, inputs, [upstream])
    return list(gradients)


def _tensorflow(tf: Any, function: Any, inputs: list[Any], upstream: Any) -> list[Any]:
    with tf.GradientTape() as tape:
        for variable in inputs:
            tape.watch(variable)
        result = function(*inputs)
    return list(tape.gradient(result, inputs, upstream, unconnected_gradients=tf.UnconnectedGradients.ZERO))


_MODULES = {"torch": "torch", "jax": "jax", "mlx": "mlx.core", "tensorflow": "tensorflow"}
_GRADIENTS = {"torch": _torch, "jax": _jax, "mlx": _mlx, "tensorflow": _tensorflow}
