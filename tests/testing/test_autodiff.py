"""Gradients that libraries derive: the libraries where they are installed, else stubs with their calls."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
import types
from functools import partial

import numpy as np
import pytest

import mpsref as mps
from mpsref.sweep import sweep
from mpsref.testing import check_gradient, check_implementation, gradient_of

STEP = 1e-30
MODULES = {"torch": "torch", "jax": "jax", "mlx": "mlx.core", "tensorflow": "tensorflow"}


def cubic(x):
    """Of any library's arrays."""
    return x * x * x - x


class Tensor(np.ndarray):
    """A number and its derivative, as the real and the imaginary part."""

    def requires_grad_(self):
        return (self.astype(np.complex128) + 1j * STEP).view(Tensor)

    def to(self, device):
        return self

    def detach(self):
        return self

    def cpu(self):
        return self

    def numpy(self):
        return np.asarray(self)


def slopes(function, inputs):
    """By the complex step of every input."""
    for i in range(len(inputs)):
        moved = [x + 1j * STEP * (i == k) for k, x in enumerate(inputs)]
        yield np.imag(function(*moved)) / STEP


def taken(array):
    """As the libraries take arrays."""
    assert min(array.strides, default=0) >= 0
    return np.array(array).view(Tensor)


def torch_stub():
    def grad(y, variables, upstream, allow_unused):
        return [(np.imag(y) / STEP * upstream).astype(upstream.dtype).view(Tensor) for _ in variables]

    torch = types.ModuleType("torch")
    torch.from_numpy, torch.autograd = taken, types.SimpleNamespace(grad=grad)
    return {"torch": torch}


def jax_stub():
    def vjp(function, *inputs):
        return function(*inputs), lambda dy: tuple((s * dy).astype(dy.dtype) for s in slopes(function, inputs))

    jax = types.ModuleType("jax")
    jax.numpy, jax.vjp = types.SimpleNamespace(asarray=np.array), vjp
    return {"jax": jax}


def mlx_stub():
    core = types.ModuleType("mlx.core")

    def vjp(function, inputs, upstreams):
        (dy,) = upstreams
        return [function(*inputs)], [(s * dy).astype(dy.dtype) for s in slopes(function, inputs)]

    core.array, core.vjp = taken, vjp
    mlx = types.ModuleType("mlx")
    mlx.core = core
    return {"mlx": mlx, "mlx.core": core}


def tensorflow_stub():
    class GradientTape:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

        def watch(self, variable):
            variable += 1j * STEP

        def gradient(self, result, variables, upstream, unconnected_gradients):
            return [np.imag(result) / STEP * np.real(upstream) for _ in variables]

    tf = types.ModuleType("tensorflow")
    tf.device, tf.GradientTape = contextlib.nullcontext, GradientTape
    tf.convert_to_tensor = lambda array: np.array(array, np.complex128).view(Tensor)
    tf.UnconnectedGradients = types.SimpleNamespace(ZERO="zero")
    return {"tensorflow": tf}


STUBS = {"torch": torch_stub, "jax": jax_stub, "mlx": mlx_stub, "tensorflow": tensorflow_stub}


@pytest.fixture(params=STUBS)
def library(request, monkeypatch):
    if importlib.util.find_spec(MODULES[request.param].partition(".")[0]) is None:
        for name, module in STUBS[request.param]().items():
            monkeypatch.setitem(sys.modules, name, module)
    return request.param


def test_the_gradient_is_the_librarys(library):
    gradient = gradient_of(cubic, library)
    x = np.linspace(-2, 2, 9, dtype=np.float32)
    dy = np.linspace(1, 3, 9, dtype=np.float32)

    assert np.allclose(gradient(x, dy), dy * (3 * x**2 - 1), rtol=1e-5)
    scaled = gradient_of(lambda x, d: x * d.a, library)
    assert np.allclose(scaled(x, dy, mps.MPSNNNeuronDescriptor("linear", 3)), 3 * dy, rtol=1e-5)
    assert check_gradient((cubic, gradient), x, dtype="float32").passed
    with pytest.raises(mps.VerificationError):
        check_gradient((lambda x: x * x, gradient), x, dtype="float32")


def test_views_are_taken_whatever_the_library_takes(library):
    gradient, x = gradient_of(cubic, library), np.linspace(-2, 2, 9, dtype=np.float32)

    for view in (x[::-1], x[::2], np.broadcast_to(x[:1], (5,))):
        assert np.allclose(gradient(view, np.ones_like(view)), 3 * view**2 - 1, rtol=1e-5)


def test_it_can_be_attacked_and_swept(library):
    linear, gradient = mps.MPSNNNeuronDescriptor("linear", 3), gradient_of(lambda x: x * 3, library)

    def finite(x, upstream):
        # At an infinity a difference of the stubs has no value.
        return np.where(np.isfinite(x), gradient(x, upstream), upstream * np.float32(3)).astype(x.dtype)

    report = check_implementation(finite, linear, direction="gradient", formats="float32", max_examples=3, ulp=1)
    assert report.passed
    assert sweep(finite, linear, direction="gradient", stride=1 << 20).passed


@pytest.mark.parametrize("name", ["jax", "mlx"])
def test_several_inputs_have_several_gradients(name, monkeypatch):
    if importlib.util.find_spec(name) is None:
        for module, stub in STUBS[name]().items():
            monkeypatch.setitem(sys.modules, module, stub)
    x, y = np.float32([1, 2, 3]), np.float32([4, 5, 6])

    by_x, by_y = gradient_of(lambda x, y: x * y, name)(x, y, np.ones_like(x))

    assert (by_x.tolist(), by_y.tolist()) == (y.tolist(), x.tolist())
    with pytest.raises(mps.ParameterError, match="device is 'gpu'"):
        gradient_of(cubic, name, device="gpu")(x, x)


def test_the_library_is_that_of_the_function(monkeypatch):
    for stub in (torch_stub, jax_stub):
        for name, module in stub().items():
            monkeypatch.setitem(sys.modules, name, module)
    seen = []
    sys.modules["torch"].autograd.grad = lambda *_, **__: seen.append("torch") or [np.zeros(1).view(Tensor)]
    sys.modules["jax"].vjp = lambda *_: seen.append("jax") or (0, lambda dy: (dy,))
    torch = sys.modules["torch"]
    torch.square = types.FunctionType(cubic.__code__, {})
    torch.square.__module__ = "torch.nn.functional"
    x = np.zeros(1)

    class Layer:
        def __call__(self, x):
            return torch.square(x)

    def own(x, k=1):
        return torch.square(x) + k

    layer = type("Layer2", (Layer,), {"__module__": "users"})()
    for function in (torch.square, own, partial(own, k=2), Layer(), layer, lambda x: own(x) + 1, lambda x: layer(x)):  # noqa: PLW0108
        gradient_of(function)(x, x)

    assert seen == ["torch"] * 7
    with pytest.raises(
        mps.ParameterError, match=r"may be any of torch, jax.*: give one of torch, jax, mlx, tensorflow"
    ):
        gradient_of(cubic)
    with pytest.raises(mps.ParameterError, match="library is 'theano'"):
        gradient_of(cubic, "theano")
    with pytest.raises(mps.ParameterError, match="function is 3: give a function"):
        gradient_of(3)


def test_a_library_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlx", None)
    monkeypatch.setitem(sys.modules, "mlx.core", None)

    with pytest.raises(mps.DependencyError, match="library is 'mlx', which cannot be imported"):
        gradient_of(cubic, "mlx")
