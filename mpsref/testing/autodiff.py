"""Gradients that a library derives from a forward function: torch, JAX, MLX or TensorFlow."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import numpy as np

from mpsref.arrays import Stored
from mpsref.errors import DependencyError, ParameterError
from mpsref.neuron.descriptor import MPSNNNeuronDescriptor

__all__ = ["gradient_of"]


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
    if not callable(function):
        raise ParameterError(f"function is a {type(function).__name__}: give a function of arrays")
    names = list(dict.fromkeys(_libraries_of(function))) if library is None else [library]
    if library is None and not names:
        names = [name for name in _GRADIENTS if _MODULES[name] in sys.modules]
    if len(names) != 1 or names[0] not in _GRADIENTS:
        said = f"is {library!r}" if library is not None else f"may be any of {', '.join(names or _GRADIENTS)}"
        raise ParameterError(f"library {said}: give one of {', '.join(_GRADIENTS)}")
    try:
        module = import_module(_MODULES[names[0]])
    except ModuleNotFoundError as error:
        raise DependencyError(f"library is {names[0]!r}, which cannot be imported: {error}") from error
    derived = _GRADIENTS[names[0]]

    def gradient(*given: Any) -> Any:
        descriptor = [each for each in given if isinstance(each, MPSNNNeuronDescriptor)]
        arrays = (np.asarray(each) for each in given if not isinstance(each, MPSNNNeuronDescriptor))
        # Neither torch nor MLX takes negative strides.
        *inputs, upstream = (a.copy() if min(a.strides, default=0) < 0 else a for a in arrays)
        forward = (lambda *inputs: function(*inputs, *descriptor)) if descriptor else function
        gradients = tuple(map(np.asarray, derived(module, forward, inputs, upstream, device)))
        return gradients if len(gradients) > 1 else gradients[0]

    gradient.__name__ = gradient.__qualname__ = f"gradient of {getattr(function, '__name__', type(function).__name__)}"
    return gradient


def _libraries_of(function: Any) -> Iterator[str]:
    """The libraries in which a function is defined, or whose names its code uses."""
    function = getattr(function, "__wrapped__", function)
    modules = [getattr(function, "__module__", None), type(function).__module__]
    code, names = getattr(function, "__code__", None), getattr(function, "__globals__", {})
    used = [names[name] for name in getattr(code, "co_names", ()) if name in names]
    used += [cell.cell_contents for cell in getattr(function, "__closure__", None) or ()]
    for each in used:
        modules += [getattr(each, "__module__", None), getattr(each, "__name__", None), type(each).__module__]
    for module in modules:
        root = str(module).partition(".")[0]
        if root in _GRADIENTS:
            yield root


def _torch(torch: Any, function: Any, inputs: list[Stored], upstream: Stored, device: str | None) -> list[Any]:
    def tensor(array: Stored) -> Any:
        # torch warns of what cannot be written to.
        made = torch.from_numpy(array if array.flags.writeable else array.copy())
        return made if device is None else made.to(device)

    variables = [tensor(array).requires_grad_() for array in inputs]
    gradients = torch.autograd.grad(function(*variables), variables, tensor(upstream), allow_unused=True)
    zeros = zip(gradients, variables, strict=True)
    return [(torch.zeros_like(x) if gradient is None else gradient).detach().cpu().numpy() for gradient, x in zeros]


def _jax(jax: Any, function: Any, inputs: list[Stored], upstream: Stored, device: str | None) -> list[Any]:
    _no_device(device, "jax")
    _, pullback = jax.vjp(function, *map(jax.numpy.asarray, inputs))
    return list(pullback(jax.numpy.asarray(upstream)))


def _mlx(mx: Any, function: Any, inputs: list[Stored], upstream: Stored, device: str | None) -> list[Any]:
    _no_device(device, "mlx")
    _, gradients = mx.vjp(function, list(map(mx.array, inputs)), [mx.array(upstream)])
    return list(gradients)


def _tensorflow(tf: Any, function: Any, inputs: list[Stored], upstream: Stored, device: str | None) -> list[Any]:
    with tf.device(device):
        variables = [tf.convert_to_tensor(array) for array in inputs]
        with tf.GradientTape() as tape:
            for variable in variables:
                tape.watch(variable)
            result = function(*variables)
        gradients = tape.gradient(
            result, variables, tf.convert_to_tensor(upstream), unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
    return [gradient.numpy() for gradient in gradients]


def _no_device(device: str | None, library: str) -> None:
    if device is not None:
        raise ParameterError(f"device is {device!r}: {library} has its own ways to choose one, leave it out")


_MODULES = {"torch": "torch", "jax": "jax", "mlx": "mlx.core", "tensorflow": "tensorflow"}
_GRADIENTS = {"torch": _torch, "jax": _jax, "mlx": _mlx, "tensorflow": _tensorflow}
