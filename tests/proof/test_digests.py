"""
The same bits on every machine: digests of results, committed, and computed again with numpy's SIMD code switched off.

After a change that is meant to change results: ``python tests/proof/test_digests.py``.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import mpsref as mps
from mpsref.activations import ACTIVATIONS, Activation
from mpsref.arrays import Elements
from mpsref.neuron import evaluate
from mpsref.neuron.slopes import ChannelSlopes
from mpsref.storage import FORMATS, StorageFormat, bfloat16

DIGESTS = Path(__file__).parents[1] / "data" / "digests.json"
CORES = "numpy._core._multiarray_umath", "numpy.core._multiarray_umath"
"""What numpy calls the module that knows of SIMD: 2, and 1, which Debian may have for another processor."""

AWKWARD = {"a": 1.3, "b": -0.7, "c": 2.5}


def elements(storage: StorageFormat, seed: int) -> np.ndarray:
    """All patterns of a short format in a scrambled order; of float32 as many, half of them of ordinary size."""
    index = np.arange(65_536, dtype=np.uint64)
    scrambled = index * np.uint64(2_654_435_761 + 2 * seed)
    if storage.dtype.itemsize < 4:
        return scrambled.astype(storage.bits_dtype).view(storage.dtype)
    bits = (scrambled ^ (scrambled >> np.uint64(7))).astype(np.uint32)
    ordinary = ((bits.astype(np.float64) / 2.0**32 - 0.5) * 30).astype(np.float32)
    return np.where(index % 2 == 0, bits.view(np.float32), ordinary)


def little(results: np.ndarray) -> bytes:
    """The bytes of results as a little-endian machine has them."""
    return results.astype(results.dtype.newbyteorder("<")).tobytes()


def digests() -> dict[str, dict[str, str]]:
    """A digest for each neuron, direction and format, and for each stepwise mode, over two sets of parameters."""
    found: dict[str, dict[str, str]] = {}
    for neuron_type, row in mps.NEURONS.items():
        own = found.setdefault(neuron_type.name, {})
        if row.per_channel:
            sets = [mps.MPSNNNeuronDescriptor(neuron_type, data=[0.1, -0.7, 0, 1.3])]
        else:
            given = {name: value for name, value in AWKWARD.items() if name in row.parameters}
            sets = [mps.MPSNNNeuronDescriptor(neuron_type), mps.MPSNNNeuronDescriptor(neuron_type, **given)]
        for storage in FORMATS.values():
            x, g = (Elements(elements(storage, seed), storage) for seed in (0, 1))
            forward, gradient = hashlib.sha256(), hashlib.sha256()
            for d in sets:
                slopes = None if d.data is None else ChannelSlopes(d.data.astype(np.float64)[np.newaxis], 1)
                forward.update(little(evaluate.evaluate(d, x, storage, slopes)))
                gradient.update(little(evaluate.evaluate(d, x, storage, slopes, gradient=g)))
            own[f"forward {storage.name}"] = forward.hexdigest()[:16]
            own[f"gradient {storage.name}"] = gradient.hexdigest()[:16]
        for mode in ("stepwise", "stepwise-fma"):
            own[mode] = stepwise_digest(mode, sets)
    return found


def short_digests() -> dict[str, dict[str, str]]:
    """The same, of an eighth of the elements: bfloat16 of all rows, and float32 of the activations not Apple's."""
    found: dict[str, dict[str, str]] = {}
    neurons = {t.name: mps.MPSNNNeuronDescriptor(t, data=[0.1] if row.per_channel else None)
               for t, row in mps.NEURONS.items()}  # fmt: skip
    for name, d in {**neurons, **{t.name: Activation(t) for t in ACTIVATIONS}}.items():
        for storage in (bfloat16(), FORMATS[mps.MPSImageFeatureChannelFormat.float32])[: 1 + isinstance(d, Activation)]:
            x, g = (elements(storage, seed)[:8192, np.newaxis] for seed in (0, 1))
            results = mps.neuron.forward(d, x), mps.neuron.gradient(d, x, g)
            digest = hashlib.sha256(b"".join(little(y.view(storage.bits_dtype)) for y in results))
            found.setdefault(name, {})[storage.name] = digest.hexdigest()[:16]
    return found


def stepwise_digest(mode: str, sets: list[mps.MPSNNNeuronDescriptor]) -> str:
    """Forward and gradient on a part of the float32 elements."""
    storage = FORMATS[mps.MPSImageFeatureChannelFormat.float32]
    x, g = elements(storage, 0)[:16_384].reshape(-1, 4), elements(storage, 1)[:16_384].reshape(-1, 4)
    digest = hashlib.sha256()
    for d in sets:
        digest.update(little(mps.neuron.forward(d, x, mode=mode)))
        digest.update(little(mps.neuron.gradient(d, x, g, mode=mode)))
    return digest.hexdigest()[:16]


def all_digests() -> dict[str, dict[str, str]]:
    return {**digests(), "short": short_digests()}


PROGRAM = (
    f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import json, test_digests as t; "
    "print(json.dumps([t.dispatched(), t.all_digests()]))"
)


def dispatched() -> list[str]:
    """The SIMD features that numpy would use here beyond its baseline."""
    core = next(sys.modules[name] for name in CORES if name in sys.modules)
    return [name for name in core.__cpu_dispatch__ if core.__cpu_features__.get(name)]


def test_results_have_the_committed_digests():
    assert all_digests() == json.loads(DIGESTS.read_text())


@pytest.mark.parametrize("step", [pytest.param("the widest", marks=pytest.mark.slow), "all"])
def test_results_do_not_depend_on_simd_code(step):
    features = dispatched()
    chosen = [name for name in features if "512" in name or name == "X86_V4"] if step == "the widest" else features
    if not chosen:
        pytest.skip("numpy uses no such features on this machine")
    environment = os.environ | {"NPY_DISABLE_CPU_FEATURES": " ".join(chosen)}

    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True)
    left, found = json.loads(done.stdout)

    assert not set(left) & set(chosen)
    assert found == json.loads(DIGESTS.read_text())


@pytest.mark.exhaustive
@pytest.mark.parametrize("architecture", ["arm64", "s390x"])
def test_results_do_not_depend_on_the_processor(tmp_path, architecture):
    """On an emulated one; s390x is big-endian."""
    script = Path(__file__).parent / "emulated.py"
    code = f"{PROGRAM}; import platform; print(platform.machine(), sys.byteorder)"
    command = [sys.executable, script, architecture, tmp_path, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 69:
        pytest.skip(f"{architecture} cannot be emulated here: {done.stderr}")
    assert done.returncode == 0, done.stderr
    found, where = done.stdout.splitlines()

    assert where == {"arm64": "aarch64 little", "s390x": "s390x big"}[architecture]
    assert json.loads(found)[1] == json.loads(DIGESTS.read_text())


if __name__ == "__main__":
    DIGESTS.write_text(json.dumps(all_digests(), indent=1) + "\n")
