"""Recordings of arrays in bfloat16, which no image has: what passes, and what is named."""

import json

import numpy as np
import pytest
from scipy.special import erf

import mpsref as mps
from mpsref.record import Recording
from mpsref.verify import verify, write_recording
from mpsref.verify.bounds import allowed
from mpsref.verify.faults import NO_FAULT
from mpsref.verify.models import MODELS

ml_dtypes = pytest.importorskip("ml_dtypes")
B = np.dtype(ml_dtypes.bfloat16)
X = np.random.default_rng(5).normal(0, 2, (8, 8, 4)).astype(B)


def graph():
    h = mps.MPSCNNNeuronGeLUNode(source=mps.MPSNNImageNode(handle="x"))
    h.result_image.handle = "h"
    y = mps.MPSCNNNeuronTanHNode(source=h.result_image)
    y.result_image.handle = "y"
    return mps.GraphFile.from_results([y.result_image], "bfloat16")


def recorded(folder, h, y=None):
    """A recording in which tanH is right for the h that was written."""
    y = mps.neuron.forward("tanH", h) if y is None else y
    return write_recording(folder / "recording", graph(), {"x": X, "h": h, "y": y}, device="test")


def truncated(values):
    return (values.view(np.uint32) >> 16).astype(np.uint16).view(B)


def rounded(values):
    return values.astype(np.float32).astype(B).astype(np.float32)


def test_right_results_are_raw_little_endian_files_and_pass(tmp_path):
    path = recorded(tmp_path, mps.neuron.forward("geLU", X))
    entry = json.loads(path.read_text())["images"]["x"]
    report = verify(path, "exact")

    assert json.loads(path.with_name("graph.json").read_text())["storage"] == "bfloat16"
    assert (entry["channel_format"], entry["file"]) == ("bfloat16", "x.bf16")
    assert (path.parent / "x.bf16").read_bytes() == X.view(np.uint16).astype("<u2").tobytes()
    assert Recording.read(path).images["x"].elements().stored.tobytes() == X[np.newaxis].tobytes()
    assert report.passed
    assert {image.channel_format for image in report.images} == {"bfloat16"}


def test_float_arithmetic_with_one_store_passes(tmp_path):
    x = X.astype(np.float32)
    h = (np.float32(0.5) * x * (1 + erf(x * np.float32(0.70710678)))).astype(np.float32).astype(B)
    assert (h.view(np.uint16) != mps.neuron.forward("geLU", X).view(np.uint16)).any()

    assert verify(recorded(tmp_path, h), "metal-precise").passed


def test_a_store_that_truncates_is_named_though_it_is_never_2_ulp_off(tmp_path):
    h = truncated(mps.neuron.forward("geLU", X.astype(np.float32)))
    report = verify(recorded(tmp_path, h))
    image = next(image for image in report.images if image.name == "h")

    assert not report.passed
    assert image.counts.largest == 1
    assert image.counts.beyond > 100
    assert image.findings[0].name == "truncated instead of rounded"
    assert not verify(tmp_path / "recording" / "recording.json", "metal-bfloat").passed or image.directed


def test_a_smaller_factor_is_no_store_that_truncates(tmp_path):
    h = (mps.neuron.forward("geLU", X.astype(np.float32)) * np.float32(0.9995)).astype(B)
    report = verify(recorded(tmp_path, h))
    image = next(image for image in report.images if image.name == "h")

    assert image.counts.beyond
    assert "truncated instead of rounded" not in [finding.name for finding in image.findings]


def test_operations_in_bfloat16_pass_under_their_model_only(tmp_path):
    x = X.astype(np.float32)
    h = rounded(rounded(0.5 * x) * rounded(1 + rounded(erf(rounded(x * np.float32(0.70710678)))))).astype(B)
    path = recorded(tmp_path, h)
    report = verify(path)

    assert not report.passed
    assert "metal-bfloat" in next(image for image in report.images if image.name == "h").others
    assert verify(path, "metal-bfloat").passed


def test_a_float_range_that_crosses_no_midpoint_leaves_one_result():
    x = np.arange(0x3F00, 0x4080, dtype=np.uint16).view(B)
    found = allowed("silu", x, "metal-precise", source="bfloat16")
    want = mps.neuron.forward("silu", x)

    assert (found.lower <= want).all()
    assert (want <= found.upper).all()
    one = found.lower == found.upper
    assert one.mean() > 0.9
    wide = allowed("silu", x, "metal-bfloat", source="bfloat16")
    assert (wide.lower < wide.upper).mean() > 0.5


def test_the_model_of_bfloat_needs_no_package():
    model = MODELS["metal-bfloat"]

    assert (model.precision, model.unit) == (8, 2.0**-7)
    assert model.smallest == (2.0**-126, 2.0**-133)
    assert model.limit > float(ml_dtypes.finfo(B).max)


def test_a_recording_in_another_format_than_the_graphs_is_refused(tmp_path):
    path = recorded(tmp_path, mps.neuron.forward("geLU", X))
    document = json.loads(path.read_text())
    document["images"]["h"]["channel_format"] = "float16"
    path.write_text(json.dumps(document))

    with pytest.raises(mps.FileFormatError, match=r"images\.h\.channel_format: is float16.*bfloat16"):
        verify(path)


@pytest.mark.parametrize("seed", [3, 6])
def test_a_store_in_a_finer_format_is_no_cause(tmp_path, seed):
    rng = np.random.default_rng(seed)
    x, dy = (rng.normal(0, 2, (16, 19, 12)).astype(B) for _ in range(2))
    node = mps.MPSCNNNeuronELUNode(source=mps.MPSNNImageNode(handle="x"), a=1.47)
    (gradient,) = node.training_graph(with_source_gradient=mps.MPSNNImageNode(handle="dy"))
    gradient.result_image.handle = "dx"
    graph = mps.GraphFile.from_results([gradient.result_image], "bfloat16")
    exponential = rounded(np.exp(np.minimum(x.astype(np.float32), 0)))
    slope = np.where(x.astype(np.float32) >= 0, 1, rounded(rounded(np.float32(1.47)) * exponential))
    dx = (dy.astype(np.float32) * slope).astype(B)

    report = verify(write_recording(tmp_path / "r", graph, {"x": x, "dy": dy, "dx": dx}, "a device"))

    names = [found.name for found in report.images[-1].findings]
    assert names
    assert not [name for name in names if "stored through" in name or "in half" in name]


def single(folder, node, y, x=X):
    node.result_image.handle = "y"
    graph = mps.GraphFile.from_results([node.result_image], "bfloat16" if x.dtype == B else "float32")
    return verify(write_recording(folder / "recording", graph, {"x": x, "y": y}, device="test")).images[0]


@pytest.mark.parametrize("name", ["linear", "geLU", "softSign"])
@pytest.mark.parametrize("ways", [(1,), (-1, 1)], ids=["one-sided", "two-sided"])
def test_neighbours_here_and_there_are_no_factor_and_no_parameter(tmp_path, name, ways):
    d = mps.MPSNNNeuronDescriptor(name, **({"a": 1.37, "b": 0.21} if name == "linear" else {}))
    node = mps.MPSCNNNeuronNode(source=mps.MPSNNImageNode(handle="x"), descriptor=d)
    rng = np.random.default_rng(3)
    y = mps.neuron.forward(d, X).copy()
    moved = rng.random(y.shape) < 0.2
    y.view(np.uint16)[moved] += rng.choice(ways, moved.sum()).astype(np.uint16)

    image = single(tmp_path, node, y)

    assert image.counts.beyond > 30
    assert image.findings[0].name == NO_FAULT


def test_a_factor_that_moves_all_results_by_a_neighbour_is_named(tmp_path):
    node = mps.MPSCNNNeuronSoftSignNode(source=mps.MPSNNImageNode(handle="x"))
    x = X.astype(np.float32)

    image = single(tmp_path, node, (1.0045 * (x / (1 + np.abs(x)))).astype(B))

    assert image.counts.within_1 > 0.95 * image.counts.elements
    assert "multiplied by a number" in image.findings[0].name


def test_the_limit_of_a_function_in_a_coarse_format_is_no_clamp(tmp_path):
    x = np.random.default_rng(4).normal(0, 3, (8, 12, 8)).astype(np.float32)
    node = mps.MPSCNNNeuronTanHNode(source=mps.MPSNNImageNode(handle="x"), a=1.26, b=1.0)

    image = single(tmp_path, node, rounded(np.float32(1.2578125) * rounded(np.tanh(rounded(x)))), x)

    assert image.counts.beyond > 100
    assert not any(finding.name.startswith("clamped") for finding in image.findings)
