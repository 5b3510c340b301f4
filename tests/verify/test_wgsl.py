"""What WGSL allows: a real GPU's results are within it, planted faults are not, and what it leaves open has a name."""

from __future__ import annotations

from pathlib import Path

import flint
import numpy as np
import pytest
from scipy.special import erf

import mpsref as mps
from mpsref.arrays import Elements
from mpsref.storage import FORMATS
from mpsref.verify import Bounds, verify, write_recording
from mpsref.verify.bounds import allowed
from mpsref.verify.compare import compare
from mpsref.verify.judge import neuron_judge
from mpsref.verify.models import MODELS

T, F = mps.MPSCNNNeuronType, mps.MPSImageFeatureChannelFormat
SINGLE, HALF = FORMATS[F.float32], FORMATS[F.float16]
DATA = Path(__file__).parents[1] / "data" / "wgsl-h200.npz"
CASES = [
    *((t, {"data": [0.25]} if t is T.pReLU else {}) for t in mps.NEURONS),
    (T.reLU, {"a": 0.01}), (T.linear, {"a": -1.5, "b": 0.3}), (T.tanH, {"a": 1.7, "b": 0.66}),
    (T.softPlus, {"a": 1.5, "b": 2.0}), (T.power, {"a": 0.7, "b": 0.1, "c": 3.0}), (T.power, {"c": 2.5}),
    (T.exponential, {"a": 0.5, "b": 0.1, "c": 2.0}), (T.logarithm, {"a": 1.0, "b": 1.0, "c": 10.0}),
]  # fmt: skip
"""The order of the arrays in `DATA`: kernels of ours in WGSL on an Nvidia H200, through Vulkan."""


def counts(d, got, x, incoming=None, model="wgsl", storage=None):
    got, x, *incoming = (each.reshape(-1, 1) for each in (got, x, *([] if incoming is None else [incoming])))
    storage = storage or (HALF if x.dtype == np.float16 else SINGLE)
    read = HALF if x.dtype == np.float16 else SINGLE
    ideal = mps.neuron.gradient(d, x, *incoming) if incoming else mps.neuron.forward(d, x)
    if storage is not read:
        ideal = storage.encode(ideal.astype(float), np.empty(ideal.shape, storage.dtype))
    judge = neuron_judge(d, MODELS[model], Elements(got, storage), *(Elements(each, read) for each in (x, *incoming)))
    return compare(got, ideal, storage, judge, 0).counts


@pytest.mark.parametrize("bits", [32, 16])
def test_a_real_gpu_is_within_and_not_within_what_metal_promises_of_precise_functions(bits):
    data, beyond, open_ = np.load(DATA), 0, 0
    x, dy = data[f"x_{bits}"], data[f"dy_{bits}"]
    for direction, incoming in (("forward", None), ("gradient", dy)):
        for (neuron_type, parameters), got in zip(CASES, data[f"{direction}_{bits}"], strict=True):
            d = mps.MPSNNNeuronDescriptor(neuron_type, **parameters)
            found = counts(d, got, x, incoming)
            assert found.beyond == 0, (d, direction)
            assert found.excused.keys() <= {"indeterminate", "order"}, (d, direction)
            open_ += found.excused.get("indeterminate", 0)
            beyond += counts(d, got, x, incoming, "metal-precise").beyond
    assert open_ > 50
    assert beyond > 200


def test_planted_faults_are_beyond():
    x = np.random.default_rng(1).uniform(-20, 20, 2000).astype(np.float32)
    w = x.astype(float)
    steps = 1 / (1 + np.exp(-np.linspace(-8, 8, 256)))
    gelu = 0.5 * w * (1 + np.tanh(np.sqrt(2 / np.pi) * (w + 0.044715 * w**3)))
    for neuron_type, wrong, right in (
        (T.tanH, np.tanh(w) + 2e-5, np.tanh(w) + 0.9e-5),
        (T.exponential, np.exp(w) * (1 + 1e-6), np.exp(w)),
        (T.sigmoid, steps[np.clip(np.rint((w + 8) / 16 * 255), 0, 255).astype(int)], 1 / (1 + np.exp(-w))),
        (T.softPlus, np.where(w > 8, w, np.log1p(np.exp(w))), np.log1p(np.exp(w))),
        (T.geLU, gelu, 0.5 * w * (1 + erf(w / np.sqrt(2)))),
    ):
        d = mps.MPSNNNeuronDescriptor(neuron_type)
        assert counts(d, wrong.astype(np.float32), x).beyond > 150, neuron_type
        assert counts(d, right.astype(np.float32), x).beyond == 0, neuron_type


@pytest.mark.parametrize("value", [-0.052166887, -0.917, 0.7, 3.0, 41.5])
def test_an_exponential_may_err_as_its_row_says_rounded_outwards(value):
    x = np.float32(value)
    bounds = allowed(mps.MPSNNNeuronDescriptor(T.exponential), x.reshape(1, 1), "wgsl")
    # The row: 3 + 2 |x| units, a unit being the distance of the two float32 around the exact value.
    with flint.ctx.workprec(200):
        exact = flint.arb(float(x)).exp()
        near = np.float32(float(exact))
        below = near if flint.arb(float(near)) < exact else np.nextafter(near, np.float32(0))
        error = (3 + 2 * abs(float(x))) * float(np.spacing(below))
        for end, sign in ((bounds.lower[0, 0], -1), (bounds.upper[0, 0], 1)):
            inner = np.nextafter(end, near)
            assert (flint.arb(float(end)) - exact) * sign >= error
            assert (flint.arb(float(inner)) - exact) * sign < error


def test_errors_on_the_way_end_at_the_next_number_outwards():
    exact = np.array([1.1, -0.7, 3e-39])
    model = MODELS["wgsl"]
    low, high = model.widened(exact, exact, model.laws["division"])
    error = 2.5 * np.array([2.0**-23, 2.0**-24, 2.0**-149])

    for end, bound, towards in ((low, exact - error, np.inf), (high, exact + error, -np.inf)):
        single = end.astype(np.float32)
        inner = np.nextafter(single, np.float32(towards)).astype(float)
        assert (single == end).all()
        assert ((end - bound) * np.sign(towards) <= 0).all()
        assert ((inner - bound) * np.sign(towards) > 0).all()


def test_a_sum_may_round_either_way_and_an_exact_one_may_not():
    d = mps.MPSNNNeuronDescriptor(T.linear, b=1.0)
    tiny, whole = np.float32(2.0**-30), np.float32(3)
    bounds = allowed(d, np.array([[tiny, -tiny, whole]]), "wgsl")

    assert bounds.lower.tolist() == [[1.0, 1 - 2.0**-24, 4.0]]
    assert bounds.upper.tolist() == [[1 + 2.0**-23, 1.0, 4.0]]


def test_half_stores_may_truncate_and_saturate():
    x = HALF.patterns()
    x = x[np.isfinite(x)]
    d = mps.MPSNNNeuronDescriptor(T.tanH)
    w = np.tanh(x.astype(float))
    cut = w.astype(np.float16)
    cut = np.where(np.abs(cut.astype(float)) > np.abs(w), np.nextafter(cut, np.float16(0)), cut)
    twice = np.nextafter(cut, np.float16(0))

    assert counts(d, cut, x).beyond == 0
    assert counts(d, twice, x).beyond > 10_000
    huge = mps.MPSNNNeuronDescriptor(T.linear, a=4.0)
    some = np.float16([20000, 16384, 30000])
    assert allowed(huge, some, "wgsl").lower.tolist() == [65504] * 3
    assert np.isinf(allowed(huge, some, "wgsl").upper).all()


def test_unorm_stores_take_either_code_and_any_for_nan():
    x = np.float32([0.5, 0.25, np.nan, -3, 7])
    d, unorm = mps.MPSNNNeuronDescriptor(T.none), FORMATS[F.unorm8]

    for got in ([127, 63, 255, 0, 255], [128, 64, 7, 0, 255]):
        assert counts(d, np.uint8(got), x, storage=unorm).beyond == 0
    assert counts(d, np.uint8([126, 62, 7, 2, 250]), x, storage=unorm).beyond == 4


def test_a_unorm_code_is_read_as_a_quotient():
    codes = np.arange(256, dtype=np.uint8).reshape(1, -1)
    d, exact = mps.MPSNNNeuronDescriptor(T.none), codes / 255
    for model, units in (("wgsl", 2.5), ("metal-fast", 0.5)):
        bounds = allowed(d, codes, model, source=F.unorm8, result=F.float32)
        error = np.maximum(bounds.upper - exact, exact - bounds.lower)[0, 1:-1]
        ulp = 2.0 ** (np.frexp(exact[0, 1:-1])[1] - 24)
        assert (error <= (units + (units > 1)) * ulp).all()
        assert (error >= units * ulp).all() or units < 1


def recording(folder, d, x, got):
    node = mps.MPSCNNNeuronNode(source=mps.MPSNNImageNode(handle="x"), descriptor=d)
    node.result_image.handle = "y"
    shape = (1, -1, 1)
    images = {"x": x.reshape(shape), "y": got.reshape(shape)}
    storage = F.float16 if x.dtype == np.float16 else F.float32
    return write_recording(folder, mps.GraphFile.from_results([node.result_image], storage), images, device="by hand")


@pytest.mark.parametrize(
    ("neuron_type", "x", "got"),
    [
        (T.softPlus, 100.0, np.inf),  # e^100 overflows
        (T.sigmoid, -100.0, 0.3),
        (T.logarithm, -3.0, 7.0),  # outside the domain
        (T.logarithm, 0.0, -88.0),
        (T.power, -0.0, 1.0),  # log2 0
        (T.reLU, np.nan, 0.0),
        (T.softSign, np.inf, 0.5),
    ],
)
def test_what_the_language_leaves_open_is_excused_by_name(tmp_path, neuron_type, x, got):
    parameters = {"b": 0.0, "c": 2.0} if neuron_type is T.power else {"a": 0.0} if neuron_type is T.reLU else {}
    values = np.float32([x, 1, np.nan])
    d = mps.MPSNNNeuronDescriptor(neuron_type, **parameters)
    wrote = mps.neuron.forward(d, values.reshape(-1, 1)).reshape(-1)
    wrote[0] = got
    path = recording(tmp_path, d, values, wrote)

    report = verify(path, Bounds("wgsl"))
    assert report.passed
    assert report.images[0].counts.excused == {"indeterminate": 1}
    assert "1 result that the language leaves open differs" in report.verdict
    assert not verify(path, Bounds("wgsl", strict=True)).passed


def test_a_truncated_image_is_noted_and_passes_under_strict(tmp_path):
    x = np.linspace(0.1, 4, 4096, dtype=np.float16)
    d = mps.MPSNNNeuronDescriptor(T.softSign)
    exact = x.astype(float) / (1 + x.astype(float))
    cut = exact.astype(np.float16)
    cut = np.where(cut.astype(float) > exact, np.nextafter(cut, np.float16(0)), cut)
    path = recording(tmp_path, d, x, cut)

    report = verify(path, Bounds("wgsl", strict=True))
    assert report.passed
    assert "note: stored by truncation" in report.text()
    assert not verify(path, Bounds("metal-precise", strict=True)).passed
