"""Planted faults of layers of random shapes are named; what is wrong in another way is not called so."""

import itertools
import shutil
from dataclasses import replace

import numpy as np
import pytest

import mpsref as mps
from mpsref.verify import verify, write_recording
from mpsref.verify.hypotheses import HYPOTHESES, LAYERS, STATES
from tests import layer_plants as plants
from tests.builders import seldom

F = mps.MPSImageFeatureChannelFormat


def judged(folder, it, device, direction):
    """The first image out of bounds, or None; for one layer and what a device makes of it."""
    node, x = it.node, it.x
    storage = F.float16 if x.dtype == np.float16 else F.float32
    images, states = {"x": x}, None
    if direction != "forward":
        rng = np.random.default_rng(x.size)
        g = plants.normal(rng, *node.operation.result_size(x.shape))
        images["g"] = g
        (node,) = node.gradient_filters(with_source=mps.MPSNNImageNode(handle="g"))
        node.result_image.handle = "dx"
    if direction == "states":
        arrays = dict(zip(("gradient_for_weights", "gradient_for_biases"), device(it, g), strict=True))
        states = {"y": {name: np.ascontiguousarray(array, np.float32) for name, array in arrays.items()}}
        images["dx"] = it.data_gradient(g)
    else:
        made = device(it) if direction == "forward" else device(it, g)
        images[node.result_image.handle] = made.astype(x.dtype)
    shutil.rmtree(folder, ignore_errors=True)
    file = mps.GraphFile.from_results([node.result_image], storage)
    made = {name: mps.MPSImage.from_array(array) for name, array in images.items()}
    with np.errstate(all="ignore"):
        report = verify(write_recording(folder, file, made, "a test", states=states))
    return next((image for image in report.images if not image.passed), None)


def drawn(folder, table, direction, seed, tries=8):
    """Name, number, and the judged image of each plant of a table whose fault shows."""
    for name, number, maker, device in plants.cases(table):
        rng = np.random.default_rng([seed, number, *name.encode()])
        for _ in range(tries):
            with np.errstate(all="ignore"):
                image = judged(folder, maker(rng), device, direction)
            if image is not None and image.counts.beyond >= 8:
                yield name, number, image
                break
        else:
            raise AssertionError(f"{name} {number} never shows")


TABLES = {
    "forward": [plants.FORWARD, plants.POOLS],
    "gradient": [plants.DATA_GRADIENTS, plants.POOL_GRADIENTS],
    "states": [plants.STATES],
}
NEAR = {
    "forward": [plants.NEAR_MISSES, plants.POOL_NEAR_MISSES],
    "gradient": [plants.POOL_GRADIENT_NEAR_MISSES],
    "states": [plants.STATE_NEAR_MISSES],
}


def part_of(table, part):
    return dict(itertools.islice(table.items(), part, None, 6))


def test_every_hypothesis_has_a_plant_and_a_near_miss():
    for tables, near, hypotheses in (
        ([*TABLES["forward"], *TABLES["gradient"]], [*NEAR["forward"], *NEAR["gradient"]], LAYERS),
        (TABLES["states"], NEAR["states"], [each for each in STATES if each not in HYPOTHESES]),
    ):
        names = {each.name for each in hypotheses}
        assert names - set().union(*tables) == set()
        assert names - set().union(*near) == set()


@seldom("part", range(6), lambda part: part == 0)
@pytest.mark.parametrize("direction", TABLES)
def test_planted_faults_with_random_shapes_are_named(direction, part, tmp_path):
    tables = [part_of(table, part) for table in TABLES[direction]]
    found = itertools.chain.from_iterable(drawn(tmp_path / "r", table, direction, 1) for table in tables)
    wrong = [(name, number, image.findings[0].headline) for name, number, image in found
             if image.findings[0].name != name]  # fmt: skip
    assert not wrong


@pytest.mark.parametrize(
    ("bits", "name"), [(23, ""), (10, "inputs rounded to TF32"), (7, "inputs rounded to bfloat16")]
)
def test_another_precision_within_wide_bounds_is_a_note(bits, name, tmp_path):
    rng = np.random.default_rng(5)
    it = plants.layer(rng, (3, 3), reads=(2, 3), makes=(3, 4), strides=(1, 1), method=16)
    it = replace(it, x=plants.normal(rng, 2, 40, 40, it.x.shape[3]), first=None)
    g = plants.normal(rng, *it.node.operation.result_size(it.x.shape))
    node = it.node
    (gradient,) = node.gradient_filters(with_source=mps.MPSNNImageNode(handle="g"))
    gradient.result_image.handle = "dx"
    weights, _ = replace(it, x=plants.short(it.x, bits)).states(plants.short(g, bits))
    made = {
        key: mps.MPSImage.from_array(array) for key, array in {"x": it.x, "g": g, "dx": it.data_gradient(g)}.items()
    }
    file = mps.GraphFile.from_results([gradient.result_image], F.float32)
    states = {"y": {"gradient_for_weights": weights}}
    report = verify(write_recording(tmp_path / "r", file, made, "a test", states=states))
    assert report.passed
    image = next(image for image in report.images if image.name == "y.gradient_for_weights")
    assert image.note.startswith(name)
    assert bool(image.note) == bool(name)


@pytest.mark.parametrize("neuron", [None, "tanH"])
@pytest.mark.parametrize(
    ("factor", "added", "name", "numbers"),
    [
        (0.7, 0.5, "multiplied by a number, and another added", "by 0.7, and 0.5 added"),
        (1.0, 0.25, "a number added", "0.25"),
        (-0.6, 0.0, "multiplied by a number", "by -0.6"),
    ],
)
def test_numbers_of_float32_are_found_although_sums_are_off(neuron, factor, added, name, numbers, tmp_path):
    rng = np.random.default_rng(3)
    x, w = (rng.normal(0, 1, shape).astype(np.float32) for shape in ((1, 20, 20, 40), (5, 1, 1, 40)))
    d = mps.MPSCNNConvolutionDescriptor(
        kernel_width=1, kernel_height=1, input_feature_channels=40, output_feature_channels=5
    )
    if neuron:
        d.fused_neuron_descriptor = mps.MPSNNNeuronDescriptor(mps.MPSCNNNeuronType[neuron])
    node = mps.MPSCNNConvolutionNode(source=mps.MPSNNImageNode(handle="x"), weights=mps.ArrayDataSource(d, 0.1 * w))
    node.result_image.handle = "y"
    # Added one after another, which is not how the reference adds.
    y = np.add.accumulate(x[..., np.newaxis, :] * (0.1 * w)[:, 0, 0], axis=4, dtype=np.float32)[..., -1]
    y = np.float32(factor) * (np.tanh(y) if neuron else y) + np.float32(added)
    images = {"x": mps.MPSImage.from_array(x), "y": mps.MPSImage.from_array(y)}
    file = mps.GraphFile.from_results([node.result_image], F.float32)

    (image,) = verify(write_recording(tmp_path / "r", file, images, "a test")).images

    # A factor of tanH is its own.
    accepted = {(name, numbers), ("another value of a parameter", f"a = {factor} instead of 1.0")}
    assert {(found.name, found.detail) for found in image.findings} <= accepted
    assert image.findings[0].explained == image.counts.beyond


@seldom("part", range(6), lambda part: part == 0)
@pytest.mark.parametrize("direction", NEAR)
def test_what_is_near_a_fault_is_not_called_so(direction, part, tmp_path):
    for table in NEAR[direction]:
        for name, _, image in drawn(tmp_path / "r", part_of(table, part), direction, 1):
            assert name not in [finding.name for finding in image.findings], image.findings[0].headline
