"""Kernels in C++, by a compiler that may contract and reassociate: right ones, and not accused."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import mpsref as mps
from mpsref.arrays import Elements
from mpsref.enums import MPSImageFeatureChannelFormat as Format
from mpsref.storage import FORMATS
from mpsref.verify.compare import compare
from mpsref.verify.forms import ALTERNATIVES
from mpsref.verify.judge import neuron_judge
from mpsref.verify.models import MODELS
from mpsref.verify.reasons import EXCUSES, Reason

SOURCE = Path(__file__).parents[1] / "data" / "neurons.cpp"
COMPILER = shutil.which("g++")
COUNT, CHANNELS = 8192, 16
PARAMETERS = {
    "reLU": (0.3,), "linear": (1.3, -0.7), "hardSigmoid": (0.21, 0.48), "tanH": (1.5, 0.75), "softPlus": (0.2, 5),
    "ELU": (1.3,), "reLUN": (0.3, 5), "power": (0.7, 0.2, 2.5), "exponential": (0.7, 0.3, 2.3),
    "logarithm": (1.3, 0.1, 2.3),
}  # fmt: skip
KINDS = {
    "float": (("-DT=float",), "metal-precise"),
    "float-fast": (("-DT=float", "-ffast-math"), "metal-fast"),
    "half": (("-DT=_Float16",), "metal-half"),
    "half-fast": (("-DT=_Float16", "-ffast-math"), "metal-half"),
}
pytestmark = pytest.mark.skipif(COMPILER is None, reason="needs g++")


@pytest.fixture(scope="module", params=KINDS)
def kernel(request, tmp_path_factory):
    """An executable: a library compiled so would set flush-to-zero for this whole process."""
    flags, model = KINDS[request.param]
    path = tmp_path_factory.mktemp("kernel") / "neurons"
    compiled = subprocess.run(
        [COMPILER, "-std=c++17", "-O2", *flags, "-o", path, SOURCE], capture_output=True, text=True, check=False
    )
    if compiled.returncode and "_Float16" in compiled.stderr:
        pytest.skip("this g++ has no _Float16")
    assert not compiled.returncode, compiled.stderr
    half = request.param.startswith("half")
    return path, MODELS[model], FORMATS[Format.float16 if half else Format.float32]


def inputs(dtype, seed):
    """Finite: ordinary, large and tiny ones, and those whose e^x is subnormal."""
    rng = np.random.default_rng(seed)
    extremes = 10.0 ** (rng.uniform(-44, 38, COUNT) if dtype == np.float32 else rng.uniform(-7, 4.8, COUNT))
    x = np.select(
        [np.arange(COUNT) % 4 == 0, np.arange(COUNT) % 4 == 1],
        [extremes * rng.choice([-1, 1], COUNT), rng.uniform(-104, 104, COUNT)],
        rng.uniform(-8, 8, COUNT),
    )
    return x.astype(dtype)


def test_right_kernels_are_within_the_fitting_model(kernel):
    path, model, storage = kernel
    accused, excused = [], set()
    for i, (neuron_type, row) in enumerate(mps.NEURONS.items()):
        slopes = np.resize(np.linspace(-0.9, 0.8, CHANNELS).astype(storage.dtype), COUNT)
        data = slopes[:CHANNELS].astype(np.float32) if row.per_channel else None
        d = mps.MPSNNNeuronDescriptor(neuron_type, *PARAMETERS.get(neuron_type.name, ()), data=data)
        for direction in ("forward", "gradient"):
            for form in range(1 + len(ALTERNATIVES.get((neuron_type, direction), ()))):
                x, dy = inputs(storage.dtype, i), inputs(storage.dtype, 100 + i)
                parameters = [repr(float(getattr(d, name))) for name in "abc"]
                wrote = subprocess.run(
                    [path, neuron_type.name, direction, str(form), *parameters, str(COUNT)],
                    input=b"".join(each.tobytes() for each in (x, dy, slopes)),
                    capture_output=True,
                    check=True,
                ).stdout
                got, x, dy = (each.reshape(-1, CHANNELS) for each in (np.frombuffer(wrote, storage.dtype), x, dy))
                forward = direction == "forward"
                want = mps.neuron.forward(d, x) if forward else mps.neuron.gradient(d, x, dy)
                read = [Elements(each, storage) for each in ((got, x) if forward else (got, x, dy))]
                judge = neuron_judge(d, model, *read)
                found = compare(got, want, storage, judge, 1, EXCUSES | {Reason.overflow})
                excused |= found.counts.excused.keys()
                if found.counts.beyond:
                    where = found.worst[0]
                    values = (
                        f"x = {x.flat[where]}, dy = {dy.flat[where]}: got {got.flat[where]}, want {want.flat[where]}"
                    )
                    accused.append(f"{neuron_type.name} {direction} {form}: {found.counts.beyond}, {values}")

    assert not accused, "\n".join(accused)
    assert "overflow" in excused
