"""Cells decide many elements at once, and decide each as its own bounds would."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import mpsref as mps
from mpsref.arrays import Elements
from mpsref.record import write_recording
from mpsref.storage import StorageFormat, storage_named
from mpsref.verify import judge, verify
from mpsref.verify.models import MODELS
from mpsref.verify.reasons import BEYOND, Reason
from mpsref.verify.stored import Nearness

T = mps.MPSCNNNeuronType
FORMATS = [mps.MPSImageFeatureChannelFormat[name] for name in ("float32", "float16", "unorm8")]
COMBINATIONS = list(product(FORMATS, ("metal-fast", "metal-half", "wgsl")))
SIZE = 600


def inputs(rng: np.random.Generator, storage: StorageFormat) -> npt.NDArray[Any]:
    """Numbers of all magnitudes, and what is not finite."""
    if storage.unorm_max:
        return rng.integers(0, storage.unorm_max + 1, SIZE).astype(storage.dtype)
    values = rng.standard_normal(SIZE) * 3 * 10.0 ** rng.integers(-42, 38, SIZE) ** (rng.random(SIZE) < 0.2)
    special = rng.random(SIZE) < 0.1
    values[special] = rng.choice([0.0, -0.0, 1, -1, 88.8, 1e-40, 6e-8, 65504, np.inf, -np.inf, np.nan], special.sum())
    with np.errstate(over="ignore"):
        return values.astype(storage.dtype)


def wrote(rng: np.random.Generator, want: npt.NDArray[Any], storage: StorageFormat) -> npt.NDArray[Any]:
    """Results that are off by factors between 2^-9 and 2, or else."""
    with np.errstate(all="ignore"):
        off = want.astype(np.float64) * (1 + rng.choice([-1, 1], SIZE) * 2.0 ** -rng.uniform(0, 9, SIZE))
        got = np.clip(off, 0, storage.unorm_max or None).astype(storage.dtype) if storage.unorm_max else off
        got = got.astype(storage.dtype)
    other = rng.random(SIZE) < 0.2
    got[other] = inputs(rng, storage)[other]
    return np.where(rng.random(SIZE) < 0.2, want, got)


PARTS = [0, *(pytest.param(part, marks=pytest.mark.slow) for part in range(1, len(COMBINATIONS)))]


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("is_gradient", [False, True], ids=["forward", "gradient"])
@pytest.mark.parametrize("neuron_type", [t for t in T if not mps.NEURONS[t].per_channel], ids=lambda t: t.name)
def test_cells_decide_as_the_bounds_of_each_element_do(
    neuron_type: mps.MPSCNNNeuronType, is_gradient: bool, part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel_format, model = COMBINATIONS[(neuron_type + 4 * is_gradient + part) % len(COMBINATIONS)]
    rng = np.random.default_rng([neuron_type, is_gradient, part])
    storage, x, dy = storage_named(channel_format), *(mps.MPSNNImageNode(handle=name) for name in ("x", "dy"))
    node: Any = mps.MPSCNNNeuronNode(source=x, descriptor=mps.MPSNNNeuronDescriptor(neuron_type))
    node = node.gradient_filter(with_source=dy) if is_gradient else node
    sources = [Elements(inputs(rng, storage).reshape(1, 1, -1, 4), storage) for _ in node.sources]
    got = wrote(rng, node.operation.of_arrays(sources, storage).stored.reshape(-1), storage)
    classes, is_open = [], np.empty(0)
    for least in (10 * SIZE, 0):
        monkeypatch.setattr(judge, "WORTH_A_TABLE", least)
        segment = judge.Segment([node], dict(zip(node.sources, sources, strict=True)), {node.result_image: storage})
        variants = segment._variants(MODELS[model])
        is_open = segment._by_cells(got, np.arange(SIZE), variants, storage, Nearness.ITSELF)[1]
        classes.append(segment.classify(got, np.arange(SIZE), MODELS[model]))
    np.testing.assert_array_equal(*classes)
    assert not is_open.all()
    far = np.flatnonzero(segment.far(np.arange(SIZE), MODELS[model]))
    assert far.size or channel_format is not FORMATS[0]
    for factor in (1 - 2.0**-6, 1 + 2.0**-6):
        with np.errstate(all="ignore"):
            near = (got[far] * storage.dtype.type(factor)).astype(storage.dtype)
        assert (segment.classify(near, far, MODELS[model]) == BEYOND).all()


@pytest.mark.parametrize("neuron_type", [T.softPlus, pytest.param(T.power, marks=pytest.mark.slow)])
def test_causes_of_what_is_far_out_of_bounds_are_those_that_bounds_confirm(
    neuron_type: mps.MPSCNNNeuronType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(neuron_type)
    x, dy = (mps.MPSNNImageNode(handle=name) for name in ("x", "dy"))
    sources = {
        name: mps.MPSImage.from_array(rng.standard_normal((1, 20, 20, 8), np.float32) * 2) for name in ("dy", "x")
    }
    results, made = [], []
    for made_by, mode in ((neuron_type, "ideal"), (T.tanH, "stepwise-fma")):
        node = mps.MPSCNNNeuronNode(source=x, descriptor=mps.MPSNNNeuronDescriptor(made_by))
        result = node.gradient_filter(with_source=dy).result_image
        result.handle = "result"
        results.append(result)
        made.append(mps.MPSNNGraph(result_image=result, format=FORMATS[0], mode=mode).run(**sources)["result"])
    got = made[1].to_array()
    # Here and there what no cause gives, or what is nearly right.
    got *= rng.choice([1, 1.01, 1 + 2.0**-16], got.shape, p=[0.96, 0.02, 0.02]).astype(np.float32)
    file = mps.GraphFile.from_results(results[:1], FORMATS[0])
    path = write_recording(tmp_path / "recording", file, {**sources, "result": got}, "none")
    monkeypatch.setattr(judge, "WORTH_A_TABLE", 0)
    asked = []

    def none(self: judge.Segment, index: npt.NDArray[np.intp], model: Any) -> npt.NDArray[np.bool_]:
        asked.append(index.size)
        return np.zeros(index.size, np.bool_)

    first = verify(path).images[-1].findings
    monkeypatch.setattr(judge.Segment, "far", none)
    assert first == verify(path).images[-1].findings
    assert asked
    assert "another neuron, tanH" in str(first[0])


def test_a_subnormal_may_keep_its_sign_among_many_elements_too(monkeypatch: pytest.MonkeyPatch) -> None:
    x = -np.arange(50, 50 * SIZE + 1, 50, dtype=np.uint32).view(np.float32).reshape(1, 1, -1, 4)
    node = mps.MPSCNNNeuronNode(source=mps.MPSNNImageNode(handle="x"), descriptor=mps.MPSNNNeuronDescriptor(T.absolute))
    storage = storage_named(FORMATS[0])
    segment = judge.Segment([node], {node.sources[0]: Elements(x, storage)}, {node.result_image: storage})
    monkeypatch.setattr(judge, "WORTH_A_TABLE", 0)

    classes = segment.classify(x.reshape(-1), np.arange(SIZE), MODELS["metal-precise"])

    assert set(classes) == {Reason.flush}
