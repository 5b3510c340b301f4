"""Faults that are planted into the bytes of a real GPU, and what `mpsref verify` says of them."""

from __future__ import annotations

import json
import math
import shutil
import tracemalloc
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema
import numpy as np
import pytest
from scipy.special import erf

import mpsref as mps
from builders import seldom
from mpsref.display import table
from mpsref.documents import schema
from mpsref.record import contents, contents_text
from mpsref.verify import Recording, verify, write_recording
from mpsref.verify.faults import HYPOTHESES, NO_FAULT
from mpsref.verify.report import _by_sixteens

T = mps.MPSCNNNeuronType
EXAMPLES = Path(__file__).parents[2] / "examples" / "gpu-run"
FITTING = {"precise": "metal-precise", "fast": "cuda-fast"}


class Fault(NamedTuple):
    """What is planted into an image of a recording, and what is to be said of it."""

    make: Any
    image: str
    name: str
    detail: str = ""
    recording: str = "neurons"
    bounds: str = "metal-precise"
    batch: int = 1


FAULTS: dict[str, Fault] = {}


def plant(image, name, detail="", **where):
    def keep(make):
        FAULTS[make.__name__] = Fault(make, image, name, detail, **where)
        return make

    return keep


def neuron(name, *parameters, **data):
    return mps.MPSNNNeuronDescriptor(T[name], *parameters, **data)


def slopes_of(recording):
    nodes = json.loads((EXAMPLES / "precise" / recording).read_text())["nodes"]
    return next(np.array(node["a_data"]) for node in nodes if "a_data" in node)


def planted(folder, fault):
    """A copy of the recording with the node's own images alone, one of which is faulty."""
    shutil.copytree(EXAMPLES / "precise", folder)
    path = folder / f"{fault.recording}.json"
    recording, document = Recording.read(path), json.loads(path.read_text())
    if fault.recording == "neurons":
        document["images"] = {name: document["images"][name] for name in ("x", "dy", fault.image)}
    elif fault.recording == "recording":
        document["images"] = {name: document["images"][name] for name in ("x", "dy", "y1")}
    arrays = {}
    for name, entry in document["images"].items():
        array = recording.images[name].read().to_array()
        arrays[name] = array.reshape(fault.batch, -1, *array.shape[2:])
        entry["number_of_images"], entry["height"] = arrays[name].shape[:2]
    with np.errstate(all="ignore"):
        wrong = np.ascontiguousarray(fault.make(arrays))
    assert (wrong.dtype, wrong.size) == (arrays[fault.image].dtype, arrays[fault.image].size)
    wrong.tofile(recording.images[fault.image].path)
    path.write_text(json.dumps(document))
    return path


# ---- layout ----


@plant("linear.y", "lanes permuted", "in the order (2, 1, 0, 3)")
def bgra_for_rgba(images):
    y = images["linear.y"]
    return y.reshape(*y.shape[:3], 4, 4)[..., [2, 1, 0, 3]]


@plant("sigmoid.y", "pixel-major and channel-major confused", "written channel after channel")
def channel_major(images):
    return images["sigmoid.y"][0].transpose(2, 0, 1)


@plant("softSign.y", "texture slices taken for pixels", "written slice after slice")
def a_dumped_texture(images):
    return mps.MPSImage.from_array(images["softSign.y"]).texture


@plant("linear.y", "rows and columns swapped", "column after column")
def transposed(images):
    return images["linear.y"].transpose(0, 2, 1, 3)


@plant("ELU.y", "rows and columns swapped", "upside down")
def upside_down(images):
    return images["ELU.y"][:, ::-1]


@plant("y1", "wrong row stride", "written with one of 70 pixels", recording="recording")
def padded_rows(images):
    wide = np.zeros((64, 70, 16), np.float16)
    wide[:, :64] = images["y1"][0]
    return wide.reshape(-1)[: 64 * 64 * 16]


@plant("linear.y", "wrong offset", "37 elements later")
def written_too_late(images):
    y = images["linear.y"].reshape(-1)
    return np.concatenate([np.zeros(37, y.dtype), y[:-37]])


@plant("geLU.dx", "another image of the batch", batch=4)
def the_next_image(images):
    return np.roll(images["geLU.dx"], -1, axis=0)


# ---- parameters ----


@plant("pReLU.y", "the slope of another channel", "1 channels before")
def slopes_shifted(images):
    return mps.neuron.forward(neuron("pReLU", data=np.roll(slopes_of("graph-neurons.json"), 1)), images["x"])


@plant("pReLU.dx", "the slope of another channel", "in reverse order")
def slopes_reversed(images):
    d = neuron("pReLU", data=slopes_of("graph-neurons.json")[::-1])
    return mps.neuron.gradient(d, images["x"], images["dy"])


@plant("y2", "parameters rounded to half", "data", recording="chain-float32")
def slopes_in_half(images):
    slopes = slopes_of("graph.json").astype(np.float16)
    return mps.neuron.forward(neuron("pReLU", data=slopes.astype(np.float32)), images["y1"])


@plant("tanH.y", "parameters swapped", "b, a for a, b")
def a_and_b_swapped(images):
    return mps.neuron.forward(neuron("tanH", 0.75, 1.5), images["x"])


@plant("linear.y", "a parameter left out", "b = 0")
def b_left_out(images):
    return (1.5 * images["x"].astype(np.float32)).astype(np.float16)


@plant("softPlus.y", "a parameter at its default", "a = 1.0, b = 1.0")
def softplus_without_parameters(images):
    return mps.neuron.forward(neuron("softPlus"), images["x"])


# ---- the function ----


@plant("y4", "an approximation of geLU", "tanh", recording="chain-float32")
def gelu_by_tanh(images):
    x = images["y3"].astype(np.float64)
    y = x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    return y.astype(np.float32)


@plant("geLU.dx", "geLU's second gradient term doubled")
def gelu_of_the_header(images):
    x, dy = images["x"].astype(np.float64), images["dy"].astype(np.float64)
    normal = (1 + erf(x / math.sqrt(2))) / 2
    return (dy * (normal + 2 * x * np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi))).astype(np.float16)


@plant("reLUN.dx", "reLUN's slope is b")
def relun_of_the_header(images):
    x, dy = images["x"], images["dy"].astype(np.float64)
    return (dy * np.where(x < 0, 0.1, np.where(x < 6, 1, 6))).astype(np.float16)


@plant("hardSigmoid.dx", "hardSigmoid's gradient tests x")
def hard_sigmoid_of_the_header(images):
    x, dy = images["x"], images["dy"].astype(np.float64)
    return np.where((x >= 0) & (x <= 1), dy * 0.2, 0).astype(np.float16)


@plant("ELU.y", "ELU without parentheses")
def elu_of_the_header(images):
    x = images["x"].astype(np.float64)
    return np.where(x < 0, 1.25 * np.exp(np.minimum(x, 0)) - 1, x).astype(np.float16)


@plant("sigmoid.dx", "the derivative taken at the output")
def slope_at_the_output(images):
    d = neuron("sigmoid")
    return mps.neuron.gradient(d, mps.neuron.forward(d, images["x"]), images["dy"])


@plant("softSign.dx", "the incoming gradient is missing")
def no_incoming_gradient(images):
    return mps.neuron.gradient(neuron("softSign"), images["x"], np.ones_like(images["dy"]))


@plant("softSign.dx", "the incoming gradient applied twice")
def the_incoming_gradient_twice(images):
    product = images["softSign.dx"].astype(np.float32) * images["dy"]
    return product.astype(np.float16)


@plant("geLU.dx", "the node was left out", "from the first source")
def the_slope_left_out(images):
    return images["dy"]


@plant("softPlus.dx", "forward instead of gradient")
def values_for_gradients(images):
    return mps.neuron.forward(neuron("softPlus", 1.5, 0.75), images["x"])


@plant("ELU.dx", "the sign flipped")
def minus(images):
    return -images["ELU.dx"]


@plant("sigmoid.y", "applied twice")
def sigmoid_twice(images):
    return mps.neuron.forward(neuron("sigmoid"), images["sigmoid.y"])


@plant("sigmoid.dx", "accumulated twice")
def gradient_added_to_itself(images):
    return 2 * images["sigmoid.dx"]


@plant("tanH.y", "another neuron", "softSign")
def soft_sign_for_tanh(images):
    return mps.neuron.forward(neuron("softSign"), images["x"])


# ---- special values and precision ----


@plant("geLU.y", "NaN turned to 0", bounds="ulp=4")
def no_nan(images):
    return np.where(np.isnan(images["x"]), np.float16(0), mps.neuron.forward(neuron("geLU"), images["x"]))


@plant("tanH.y", "tanh by exponentials", bounds="ulp=4")
def tanh_that_overflows(images):
    t = np.exp(np.float32(1.5) * images["x"].astype(np.float32))
    return (np.float32(1.5) * (t - 1) / (t + 1)).astype(np.float16)


@plant("softPlus.y", "the literal formula overflows", bounds="ulp=4")
def as_the_device_wrote_it(images):
    return images["softPlus.y"]


@plant("y1", "stored through half", recording="chain-float32")
def a_half_in_between(images):
    return images["y1"].astype(np.float16).astype(np.float32)


@plant("dx", "read through half", "the second source", recording="chain-float32")
def a_source_in_half(images):
    x = images["x"].astype(np.float16).astype(np.float32)
    return mps.neuron.gradient(neuron("tanH", 1.5, 0.75), x, images["dy1"])


@plant("sigmoid.y", "truncated instead of rounded", bounds="exact")
def towards_zero(images):
    exact = 1 / (1 + np.exp(-images["x"].astype(np.float64)))
    y = exact.astype(np.float16)
    return np.where(y > exact, np.nextafter(y, np.float16(0)), y)


@plant("softSign.y", "computed in half", bounds="exact")
def soft_sign_in_half(images):
    x = images["x"]
    return x / (np.float16(1) + np.abs(x))


# ---- memory ----


@plant("exponential.y", "never written", "zeros")
def nothing_written(images):
    return np.zeros_like(images["exponential.y"])


@plant("ELU.y", "never written", "0xcdcd")
def a_fill_pattern(images):
    return np.full(images["ELU.y"].size, 0xCDCD, np.uint16).view(np.float16)


@plant("y1", "never written", "zeros, only in rows 20 to 23, columns 40 to 63", recording="recording")
def a_corner_left_out(images):
    images["y1"][:, 20:24, 40:] = 0
    return images["y1"]


@plant("linear.y", "never written", "zeros, only from element 3,000 on")
def stopped_in_the_middle(images):
    images["linear.y"].reshape(-1)[3000:] = 0
    return images["linear.y"]


@seldom("kind", list(FAULTS), lambda kind: list(FAULTS).index(kind) % 2 == 0)
def test_the_fault_is_named_and_its_image_is_the_first_wrong(tmp_path, kind):
    fault = FAULTS[kind]

    report = verify(planted(tmp_path / "copy", fault), fault.bounds)

    wrong = report.first_wrong
    first = wrong.findings[0]
    assert (wrong.name, first.name) == (fault.image, fault.name), "\n".join(f.headline for f in wrong.findings)
    assert first.fits
    assert fault.detail in first.headline
    assert first.of == wrong.counts.beyond
    assert f"  fault: {first.headline}\n    {first.sentence}\n    for example (image 0" in report.text()
    document = json.loads(json.dumps(report.to_json()))
    assert document["images"][fault.image]["faults"][0]["name"] == fault.name
    jsonschema.Draft202012Validator(schema("report")).validate(document)


def test_more_than_25_kinds_are_planted():
    assert len({(fault.name, fault.detail) for fault in FAULTS.values()}) > 25
    assert len({fault.name for fault in FAULTS.values()}) > 25
    assert {fault.name for fault in FAULTS.values()} < {hypothesis.name for hypothesis in HYPOTHESES}


# ---- what is said of them ----


def upside_down_report(tmp_path, **options):
    return verify(planted(tmp_path / "copy", FAULTS["upside_down"]), "metal-precise", **options)


def test_faults_are_looked_for_unless_it_is_declined(tmp_path):
    report = upside_down_report(tmp_path, faults=False)

    assert report.images[0].findings == ()
    assert "fault:" not in report.text()
    assert report.images[0].histogram


@pytest.mark.slow
def test_where_a_source_is_not_recorded_the_nodes_between_are_searched(tmp_path):
    shutil.copytree(EXAMPLES / "precise", tmp_path / "copy")
    path = tmp_path / "copy" / "recording.json"
    document = json.loads(path.read_text())
    document["images"] = {name: document["images"][name] for name in ("x", "dy", "y3")}
    path.write_text(json.dumps(document))
    file = path.parent / document["images"]["y3"]["file"]
    y = np.fromfile(file, np.float16).reshape(64, 64, -1)
    y[::-1, ::-1].tofile(file)

    report, quiet = verify(path), verify(path, faults=False)

    assert report.images[0].findings[0].name == "rows and columns swapped"
    assert "  fault: rows and columns swapped, turned by 180 degrees" in report.text()
    assert "fault:" not in quiet.text()


def test_where_no_hypothesis_fits_it_says_so(tmp_path):
    def scattered(images):
        y = images["geLU.dx"]
        chosen = np.random.default_rng(1).random(y.shape) < 0.02
        y[chosen] = np.random.default_rng(2).normal(size=np.count_nonzero(chosen))
        return y

    report = verify(planted(tmp_path / "copy", Fault(scattered, "geLU.dx", "")))

    assert report.images[0].findings[0].name == NO_FAULT
    assert f"  fault: {NO_FAULT}, " in report.text()


def test_a_hypothesis_is_held_to_the_tolerance_of_its_image(tmp_path):
    def two_steps_from_minus(images):
        return (-images["ELU.dx"]).view(np.uint16) + np.uint16(2)

    names = []
    for bounds in ("exact", "ulp=4"):
        fault = Fault(lambda images: two_steps_from_minus(images).view(np.float16), "ELU.dx", "")
        names.append(verify(planted(tmp_path / bounds, fault), bounds).images[0].findings[0].name)

    assert names == [NO_FAULT, "the sign flipped"]


def test_what_many_elements_contradict_is_not_named(tmp_path):
    def partly_minus(images):
        rng = np.random.default_rng(1)
        y = images["softSign.dx"]
        return np.where(rng.random(y.shape) < 0.4, -y, rng.normal(0, 9, y.shape).astype(np.float16))

    report = verify(planted(tmp_path / "copy", Fault(partly_minus, "softSign.dx", "")))

    assert [finding.name for finding in report.images[0].findings] == [NO_FAULT]
    assert "  or: " not in report.text()


def test_alternatives_follow_the_first_cause(tmp_path):
    def nan_lost(images):
        return np.nan_to_num(images["hardSigmoid.y"])

    report = verify(planted(tmp_path / "copy", Fault(nan_lost, "hardSigmoid.y", "")), "ulp=4")
    (image,) = (image for image in report.images if image.name == "hardSigmoid.y")
    first, *others = image.findings

    assert [finding.rank for finding in (first, *others)] == ["cause"] + ["alternative"] * len(others)
    assert [finding.name for finding in others] == ["NaN lost in a comparison"]
    assert f"  {others[0].headline}\n" in report.text()
    assert others[0].headline.startswith("or: ")


def test_the_histogram_counts_every_comparable_element(tmp_path):
    report = verify(planted(tmp_path / "copy", FAULTS["a_half_in_between"]))
    wrong = report.first_wrong
    lines = report.text().splitlines()
    start = lines.index(next(line for line in lines if line.split() == ["ULP", "elements", "share"]))

    assert sum(wrong.histogram.values()) + wrong.counts.nan_disagreements + wrong.counts.infinity_disagreements == 1024
    assert wrong.histogram["0"] == wrong.counts.exact
    assert all(int(most) & (int(most) - 1) == 0 for most in wrong.histogram)
    assert lines[start + 1].split()[:2] == ["0", str(wrong.counts.exact)]
    assert all(line.startswith("  ") for line in lines[start : lines.index("", start)])


def test_a_long_histogram_is_by_powers_of_16():
    assert _by_sixteens({0: 1, 1: 2, 2: 3, 16: 4, 32: 5, 2**32: 6}) == {0: 1, 1: 2, 16: 7, 256: 5, 2**32: 6}
    report = verify(EXAMPLES / "fast" / "chain-float32.json", faults=False)
    assert len(report.images[-1].histogram) > 20
    block = report.text().partition("\ndx: ")[2].partition("\n\n")[0]
    assert "  <= 16 " in block
    assert sum(line.startswith("  <= ") for line in block.splitlines()) < 10


def test_millions_of_mismatches_have_a_short_report(tmp_path):
    x = mps.MPSNNImageNode(handle="x")
    node = mps.MPSCNNNeuronAbsoluteNode(source=x)
    source = np.random.default_rng(1).normal(size=(1, 256, 256, 16)).astype(np.float32)
    single = mps.MPSImageFeatureChannelFormat.float32
    node.result_image.format = single
    images = {"x": mps.MPSImage.from_array(source), "absolute": mps.MPSImage.from_array(-np.abs(source))}
    path = write_recording(tmp_path / "r", mps.GraphFile.from_results([node.result_image]), images, "made by hand")
    tracemalloc.start()

    report = verify(path)

    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert report.images[0].counts.beyond == source.size
    assert len(report.text().splitlines()) < 40
    assert report.images[0].findings[0].name == "the sign flipped"
    assert peak < 500 * 2**20 / 6.4e6 * source.size  # 500 MiB of 6.4 million elements


def test_the_verdict_is_coloured_and_nothing_else_is(tmp_path):
    report = upside_down_report(tmp_path)
    plain, coloured = report.text(), report.text(colour=True)

    assert coloured.replace("\x1b[1;31mFAIL\x1b[0m:", "FAIL:") == plain != coloured
    assert "\x1b" not in plain
    fine = verify(EXAMPLES / "precise" / "chain-float32.json")
    assert fine.text(colour=True).splitlines()[-1].startswith("\x1b[1;32mPASS\x1b[0m: all 8,192 elements")


@pytest.mark.parametrize("name", ["recording", "chain-float32", "neurons"])
@pytest.mark.parametrize("compiler", ["precise", "fast"])
def test_no_fault_is_claimed_where_nothing_is_wrong(compiler, name):
    report = verify(EXAMPLES / compiler / f"{name}.json", FITTING[compiler], allow=["overflow"])

    # The two clamps lose NaN.
    clamps = {"hardSigmoid.y", "reLUN.y"} if name == "neurons" else set()
    assert {image.name for image in report.images if image.findings} == clamps
    assert ("fault:" in report.text()) == bool(clamps)


# ---- the text ----


def tables_of(text):
    """The lines that are cells in columns."""
    lines = [line for line in text.splitlines() if "  " in line.strip() and ": got " not in line]
    return [line for line in lines if not line.startswith(("recording", "device", "bounds"))]


def test_tables_are_at_most_100_characters_wide_and_lose_no_column(tmp_path):
    x = mps.MPSNNImageNode(handle="x" * 90)
    h = mps.MPSCNNNeuronSoftPlusNode(source=x)
    y = mps.MPSCNNNeuronTanHNode(source=h.result_image)
    h.result_image.handle, y.result_image.handle = "h" * 200, "y"
    source = np.linspace(-2, 2, 256, dtype=np.float16).reshape(1, 8, 8, 4)
    middle = mps.neuron.forward(h.descriptor, source) + np.float16(1)
    wrote = {x.handle: source, "h" * 200: middle, "y": mps.neuron.forward(y.descriptor, middle)}
    file = mps.GraphFile.from_results([y.result_image])

    report = verify(write_recording(tmp_path / "r", file, wrote, device="d" * 300))
    lines = tables_of(report.text(every_image=True))
    shown = contents_text(contents(tmp_path / "r" / "recording.json")).splitlines()

    assert max(map(len, lines)) <= 100
    assert max(len(line) for line in shown if "…" in line) <= 100
    heads = " ".join(line for line in lines if line.startswith("image "))
    assert set(heads.split()) >= {"image", "node", "format", "elements", "exact", "largest", "excused", "beyond"}
    assert set(" ".join(shown).split()) >= {"min", "max", "mean", "NaN", "subnormal", "distinct"}


@pytest.mark.parametrize("widths", [[10], [10] * 30, [41] * 4, [3, 98, 3], [5, 24, 7, 10, 10, 10, 10, 10, 10]])
def test_a_table_is_split_into_parts_of_like_width(widths):
    rows = [[f"{i:0{w}}" for i, w in enumerate(widths)]] * 2
    lines = table(rows, 1, indent="  ")

    assert max(map(len, lines)) <= 100
    cells = " ".join(lines).split()
    assert all(cell in cells for cell, width in zip(rows[0], widths, strict=True) if width <= 41)
    parts = [len(line) for line in lines if line]
    if len(widths) > 10:
        assert max(parts) - min(parts) < 30


def test_causes_are_summed_up_over_all_images(tmp_path):
    x = mps.MPSNNImageNode(handle="x")
    nodes = [cls(source=x) for cls in (mps.MPSCNNNeuronTanHNode, mps.MPSCNNNeuronSigmoidNode, mps.MPSCNNNeuronGeLUNode)]
    for name, node in zip("abc", nodes, strict=True):
        node.result_image.handle = name
    source = np.linspace(-2, 2, 256, dtype=np.float16).reshape(1, 8, 8, 4)
    right = {name: mps.neuron.forward(node.descriptor, source) for name, node in zip("abc", nodes, strict=True)}
    wrote = {"x": source, "a": -right["a"], "b": -right["b"], "c": right["c"]}
    file = mps.GraphFile.from_results([node.result_image for node in nodes])

    report = verify(write_recording(tmp_path / "r", file, wrote, device="d"))

    (cause,) = [cause for cause in report.causes if cause.verdict == "beyond"]
    assert (cause.cause, cause.images) == ("the sign flipped", 2)
    assert cause.elements == sum(image.counts.beyond for image in report.images)
    lines = report.text().splitlines()
    assert lines[-5:-3] == ["by cause:", f"  the sign flipped: 2 images, {cause.elements} elements"]
    assert lines[-3].startswith("    a (image 0, y 0, x 0, channel 0) reads -2.0: got ")
    assert report.to_json()["causes"][0]["elements"] == cause.elements


@pytest.mark.parametrize(
    ("wrong", "verdict"),
    [
        (0, "PASS: 1 element of 1 image is within bounds"),
        (1, "FAIL: 1 of 1 element is beyond the bounds, in 1 of 1 image, first in y (MPSCNNNeuronAbsoluteNode)"),
    ],
)
def test_one_is_singular(tmp_path, wrong, verdict):
    n = mps.MPSCNNNeuronAbsoluteNode(source=mps.MPSNNImageNode(handle="x"))
    n.result_image.handle = "y"
    wrote = {"x": np.float16([-1]), "y": np.float16([1 + wrong])}

    report = verify(write_recording(tmp_path / "r", mps.GraphFile.from_results([n.result_image]), wrote, device="d"))

    assert report.verdict == verdict
    if wrong:
        assert "y: 1 element of 1 beyond the bounds" in report.text().splitlines()
