"""Activations of libraries by name: the libraries where they are installed, else a stand-in."""

from __future__ import annotations

import importlib.util
import json
import sys
import types

import numpy as np
import pytest

import mpsref as mps
from mpsref.cli import main
from mpsref.sweep import sweep
from mpsref.sweep.libraries import ACTIVATIONS, DERIVING, LIBRARIES, Adapter, adapter

TORCH = """
import types
import numpy as np

class Tensor(np.ndarray):
    detach = cpu = lambda self: self
    requires_grad_ = lambda self: (self.astype(complex) + 1e-30j).view(Tensor)
    numpy = lambda self: np.asarray(self)
    def to(self, device):
        raise RuntimeError(f"no {device} here")

from_numpy = lambda array: array.view(Tensor)
autograd = types.SimpleNamespace(grad=lambda y, _, dy, allow_unused: [(y.imag / 1e-30 * dy).astype(dy.dtype)])
exp = lambda x: np.exp(x if x.dtype.kind == "c" else x.astype(float)).astype(x.dtype)
log = lambda x: x
"""
CALLS = [(library, name) for name, row in ACTIVATIONS.items() for library in row.calls]


@pytest.fixture
def torch(tmp_path, monkeypatch):
    """A library with an exponential, and a logarithm that is none; for other processes a file."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "torch.py").write_text(TORCH)
    module = types.ModuleType("torch")
    exec(TORCH, module.__dict__)  # noqa: S102 - our own text
    monkeypatch.setitem(sys.modules, "torch", module)


def test_an_activation_of_a_library_is_swept_by_its_name_alone(torch, capsys):
    command = ["sweep", "--format", "float16", "--direction", "gradient", "--ulp", "1"]

    assert main([*command, "--implementation", "torch:exp", "--json", "-"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["neuron"], report["implementation"], report["elements"]) == ("exponential", "torch:exp", 65_536)
    assert "torch" in report["made_by"][0]["software"]


@pytest.mark.parametrize("direction", ["forward", "gradient"])
def test_a_library_passes_where_it_is_right(torch, direction):
    passed = [
        sweep(Adapter("torch", name).function(), row.neuron, direction=direction, format="float16", ulp=1).passed
        for name, row in ACTIVATIONS.items()
        if name in ("exp", "log")
    ]

    assert passed == [True, False]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["torch:exp", "--a", "2"], "--a: torch:exp has its parameters: give --neuron too"),
        (["torch:exq"], "--neuron: missing: say what torch:exq computes; its activations: relu, leaky_relu"),
    ],
)
def test_what_does_not_say_its_neuron_is_one_line(torch, capsys, arguments, words):
    assert main(["sweep", "--format", "float16", "--implementation", *arguments]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("implementation", "words"),
    [
        ("torch:exq", "torch:exq: exq is not in torch; its activations: relu, leaky_relu"),
        ("torch@tpu:exp", "torch@tpu:exp: raised RuntimeError: no tpu here"),
    ],
)
def test_what_a_library_has_not_is_named(torch, implementation, words):
    with pytest.raises(mps.ImplementationError, match=words):
        sweep(implementation, "exponential", format="float16")


def test_the_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)

    with pytest.raises(mps.DependencyError, match=r"openvino:gelu: openvino cannot be imported .*pip install openvino"):
        sweep("openvino:gelu", "geLU")


def test_every_row_is_a_neuron_and_every_call_is_of_a_known_library():
    for library, name in CALLS:
        assert isinstance(adapter(f"{library}:{name}").descriptor, mps.MPSNNNeuronDescriptor)
    assert {library for library, _ in CALLS} == set(LIBRARIES)
    assert adapter("torch:nn.functional.gelu") is None
    assert adapter("torch@cuda:0:gelu") == Adapter("torch", "gelu", "cuda:0")


@pytest.mark.parametrize("library", LIBRARIES)
def test_every_call_is_its_neuron(library):
    """Runs only beside a library, so never in CI; a wrong entry of the table is far from its neuron."""
    if importlib.util.find_spec(library.replace("-", "_")) is None:
        pytest.skip(f"{library} is not installed")
    for name in (name for other, name in CALLS if other == library):
        check(Adapter(library, name), name)


def check(used, name):
    x = np.float32([0.25, 0.5, 1, 3, 7, 9] if name in ("log", "pow") else [-9, -3, -1, -0.5, 0.5, 1, 3, 7, 9])
    functions = [used.function()]
    expected = [mps.neuron.forward(used.descriptor, x[:, np.newaxis])[:, 0]]
    if used.library in DERIVING:
        functions.append(lambda x: used.function()(x, np.full_like(x, 2)))
        expected.append(mps.neuron.gradient(used.descriptor, x[:, np.newaxis], np.full_like(x, 2)[:, np.newaxis])[:, 0])
    for function, right in zip(functions, expected, strict=True):
        # Eight-element vectors and the rest may take different paths.
        for dtype in (np.float32, np.float16):
            got = function(np.repeat(x, 9).astype(dtype))
            assert got.dtype == dtype
            assert np.allclose(got, np.repeat(right, 9), rtol=0.03, atol=0.002)
