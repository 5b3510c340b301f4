"""Faults that are planted, by code of the tests' own, and what is said of them."""

from __future__ import annotations

import importlib
import pkgutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import mpsref as mps
import near_misses
import pairs
import plants
from builders import seldom
from mpsref.arrays import Elements
from mpsref.graph.schedule import inputs, schedule
from mpsref.operations import NeuronForward, NeuronGradient, Sum
from mpsref.storage import FORMATS, storage_format
from mpsref.verify import Recording, Tolerance, hypotheses, ulp_distance, verify, write_recording
from mpsref.verify.case import Case, around, within
from mpsref.verify.faults import HYPOTHESES, NO_FAULT, explain
from mpsref.verify.hypotheses import LAYERS, STATES, Candidate, Hypothesis
from mpsref.verify.regions import EVERYWHERE, Region
from mpsref.verify.search import Search, Trial, ranked

T, F = mps.MPSCNNNeuronType, mps.MPSImageFeatureChannelFormat
EXAMPLES = Path(__file__).parents[2] / "examples" / "gpu-run"
HALF, SINGLE = FORMATS[F.float16], FORMATS[F.float32]
SHAPE = (3, 9, 10, 14)


class Planted(NamedTuple):
    operation: Any
    sources: tuple
    want: np.ndarray
    got: np.ndarray
    ulp: int = 4
    noisy: bool = True


def neuron(name, *parameters, **data):
    return mps.MPSNNNeuronDescriptor(T[name], *parameters, **data)


def normal(seed, dtype=np.float32, shape=SHAPE, spread=2.0):
    return (np.random.default_rng(seed).normal(0, 1, shape) * spread).astype(dtype)


def case_of(planted, noise=0):
    """The case of a planted fault, if every second element besides is off by so many ULP."""
    got = planted.got
    storage = next(f for f in FORMATS.values() if f.dtype == planted.want.dtype)
    if noise:
        steps = np.random.default_rng(5).integers(-noise, noise + 1, got.shape).astype(f"i{got.itemsize}")
        with np.errstate(invalid="ignore"):
            special = ~np.isfinite(got) | (got == 0) | (np.abs(got) < np.finfo(got.dtype).tiny)
        got = (got.view(steps.dtype) + np.where(special, 0, steps)).view(got.dtype)
    is_close = within(storage, Tolerance(ulp=planted.ulp))
    formats = {f.dtype: f for f in FORMATS.values()}
    sources = tuple(Elements(source, formats[source.dtype]) for source in planted.sources)
    return Case(planted.operation, sources, storage, got, planted.want, ~is_close(None)(planted.want, got), is_close)


def forward_case(descriptor, x, got, ulp=4):
    return Planted(NeuronForward(descriptor), (x,), mps.neuron.forward(descriptor, x), np.ascontiguousarray(got), ulp)


def gradient_case(descriptor, x, dy, got, ulp=4):
    want = mps.neuron.gradient(descriptor, x, dy)
    return Planted(NeuronGradient(descriptor), (dy, x), want, np.ascontiguousarray(got).astype(want.dtype), ulp)


def moved(move, descriptor=None, dtype=np.float16, shape=SHAPE):
    """What a neuron gives, and what a program makes of its bytes."""
    descriptor = neuron("tanH", 1.5, 0.75) if descriptor is None else descriptor
    x = normal(1, dtype, shape)
    return forward_case(descriptor, x, move(mps.neuron.forward(descriptor, x)))


def no_nan():
    x = normal(1, np.float16)
    x[:, 2:5, 3] = np.nan
    d = neuron("geLU")
    return forward_case(d, x, np.nan_to_num(mps.neuron.forward(d, x)))


def a_corner_left_out():
    def leave(y):
        y = y.copy()
        y[:, 6:, 8:] = 0
        return y

    return moved(leave)


# ---- planted faults ----

DEFAULT = list(plants.KINDS)[::10]


WRONGLY_CLAIMED = ("both branches blended", "the literal formula overflows", "read through unorm8")
"""Near misses of which a part looks like the fault."""


def said(kind, seed):
    result, headline, _ = plants.verdict(plants.KINDS[kind], seed)
    return result, headline


@pytest.mark.parametrize("kind", DEFAULT)
def test_the_planted_fault_is_named_and_nothing_else_is(kind):
    result, headline = said(kind, len(kind))

    assert result in (("none",) if kind in plants.HARMLESS else ("named",)), headline


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_no_wrong_cause_is_named_and_most_are(seed):
    results = {kind: said(kind, seed) for kind in plants.KINDS}
    planted = [result for kind, (result, _) in results.items() if kind not in plants.HARMLESS]
    wrong = {kind: text for kind, (result, text) in results.items() if result == "wrong"}

    assert wrong == {}
    assert len(planted) >= 120
    assert planted.count("named") >= 0.85 * len(planted)


@pytest.mark.parametrize("name", [*list(near_misses.NEAR)[::10], *WRONGLY_CLAIMED])
def test_what_only_resembles_a_fault_is_not_given_its_name(name):
    assert near_misses.claims(name, 1) == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("name", near_misses.NEAR)
def test_nothing_that_resembles_a_fault_is_given_its_name(name, seed):
    assert near_misses.claims(name, seed) == []


def test_every_hypothesis_has_a_near_miss():
    assert [h.name for h in HYPOTHESES if h.name not in near_misses.NEAR and h not in LAYERS] == []


@seldom("seed", [1012, 1013, 1017, 1018, 1022, 1029], lambda seed: seed <= 1013)
def test_two_faults_of_an_image_are_told_apart_with_their_places(seed):
    result, wanted, findings = pairs.said(seed)

    assert result == "both", (wanted, [finding.headline for finding in findings])


@pytest.mark.slow
def test_two_faults_drawn_at_random_are_told_apart_and_none_is_wrong():
    results = [pairs.said(seed)[0] for seed in range(60)]

    assert results.count("wrong") == 0
    assert results.count("both") >= 0.95 * len(results)


def test_different_causes_in_different_parts_are_told_apart():
    y = mps.neuron.forward(neuron("tanH", 1.5, 0.75), normal(1, np.float16))
    got = y.copy()
    got[..., 0:3] *= -1
    got[:, :, 7:, 3:] = 0

    first, second = explain(case_of(moved(lambda _: got)))

    assert (first.name, first.where) == ("never written", "only in columns 7 to 9, channels 3 to 13")
    assert second.headline == "the other 810: the sign flipped, only in channels 0 to 2: explains 810 of 810"
    assert first.explained + second.explained == first.of


def test_what_a_cause_leaves_over_is_told_with_its_place_though_it_has_none():
    y = mps.neuron.forward(neuron("tanH", 1.5, 0.75), normal(1, np.float16))
    got = -y
    got[:, 3:5] = normal(2, np.float16)[:, 3:5]

    first, second = explain(case_of(moved(lambda _: got)))

    assert (first.name, first.where) == ("the sign flipped", "only in rows 0 to 2 and 5 to 8")
    assert second.headline.startswith(f"the others: no hypothesis fits, {second.of:,} of 3,780 elements; ")
    assert "in rows 3 to 4 of 9" in second.detail
    assert (second.rank, second.fits, first.explained + second.of) == ("rest", False, first.of)


def test_a_cause_of_all_elements_has_no_variant_for_what_it_leaves_over(tmp_path):
    x = normal(1, shape=(40, 40, 8), spread=1.0)
    node = mps.MPSCNNNeuronGeLUNode(source=mps.MPSNNImageNode(handle="x"))
    node.result_image.handle = "y"
    z, one = np.abs(x) * np.float32(np.sqrt(0.5)), np.float32(1)
    t, total = one / (one + np.float32(0.3275911) * z), np.float32(0)
    for k in (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592):
        total = (total + np.float32(k)) * t
    y = x / 2 * (one + np.sign(x) * (one - total * np.exp(-z * z)))
    graph = mps.GraphFile.from_results([node.result_image], F.float32)

    (image,) = verify(write_recording(tmp_path / "r", graph, {"x": x, "y": y}, "a device")).images

    assert [finding.name for finding in image.findings if finding.fits] == ["erf by a polynomial"]


@seldom("ulp", [2, 3, 4], lambda ulp: ulp == 2)
@pytest.mark.parametrize("name", ["sigmoid", "tanH", "softPlus", "softSign", "ELU", "geLU"])
def test_small_errors_have_no_cause_but_accuracy(name, ulp):
    x = np.clip(normal(ulp, np.float16, (1, 16, 16, 4)), -3, 3)
    y = mps.neuron.forward(neuron(name), x)
    steps = np.random.default_rng(ulp).integers(-ulp, ulp + 1, y.shape).astype(np.int16)

    (finding,) = explain(case_of(forward_case(neuron(name), x, (y.view(np.int16) + steps).view(np.float16), 1)))

    assert not finding.fits
    assert finding.detail.startswith(f"accuracy alone, as noise of {ulp} ULP would leave")


def test_a_cause_that_a_third_of_the_elements_contradict_is_not_named():
    x = normal(1)
    y = mps.neuron.forward(neuron("softSign"), x)
    flipped = np.where(np.random.default_rng(1).random(y.shape) < 0.7, -y, y)

    (finding,) = explain(case_of(forward_case(neuron("softSign"), x, flipped)))

    assert not finding.fits


def test_two_zeros_far_apart_are_nothing_but_zeros():
    y = mps.neuron.forward(neuron("sigmoid"), normal(1))
    y[0, 1, 2, 3] = y[2, 8, 7, 1] = 0

    (finding,) = explain(case_of(forward_case(neuron("sigmoid"), normal(1), y)))

    assert finding.headline == (
        "0 where another value belongs, at (image 0, y 1, x 2, channel 3) and (image 2, y 8, x 7, channel 1): "
        "explains 2 of 2"
    )
    assert finding.sentence == "The device has 0 there; no pattern of the places was found."


@pytest.mark.parametrize(("shape", "name"), [
    ((40,), "0 where another value belongs, every 7th element in memory order, from element 3 on: explains 6 of 6"),
    ((7, 9), "never written, zeros, only every 7th element in memory order, from element 3 on: explains 9 of 9"),
    ((5, 131), "never written, zeros, only every 21st element in memory order, from element 3 on: explains 32 of 32"),
])  # fmt: skip
def test_zeros_at_equal_distances_are_told(tmp_path, shape, name):
    step = 21 if shape[0] == 5 else 7
    x = normal(1, np.float16, shape)
    node = mps.MPSCNNNeuronTanHNode(source=mps.MPSNNImageNode(handle="x"), a=1.5, b=0.75)
    node.result_image.handle = "y"
    y = (1.5 * np.tanh(0.75 * x.astype(np.float32))).astype(np.float16)
    y.reshape(-1)[3::step] = 0

    graph = mps.GraphFile.from_results([node.result_image])
    (image,) = verify(write_recording(tmp_path / "r", graph, {"x": x, "y": y}, "a device")).images

    assert image.findings[0].headline.startswith(name)
    # Called by the indices of the array, as the worst are.
    first = tuple(int(place) for place in np.unravel_index(3, shape))
    assert image.findings[0].example.index == first
    assert str(image.findings[0].example).startswith(f"{list(first)} reads")


@pytest.mark.parametrize(("shape", "chosen", "where"), [
    ((90,), np.s_[31:60], "only in indices 31 to 59 of axis 0"),
    ((30, 20), np.s_[3:6], "only in indices 3 to 5 of axis 0"),
    ((30, 20), np.s_[:, 7], "only in index 7 of axis 1"),
    ((30, 20), np.s_[12:15, 8:], "only in indices 12 to 14 of axis 0, indices 8 to 19 of axis 1"),
    ((9, 10, 7), np.s_[3:6], "only in rows 3 to 5"),
])  # fmt: skip
def test_places_of_an_array_that_is_no_image_are_called_by_its_axes(tmp_path, shape, chosen, where):
    x = normal(1, np.float16, shape)
    node = mps.MPSCNNNeuronTanHNode(source=mps.MPSNNImageNode(handle="x"), a=1.5, b=0.75)
    node.result_image.handle = "y"
    y = mps.neuron.forward(node.descriptor, x)
    y[chosen] *= -1
    graph = mps.GraphFile.from_results([node.result_image])

    (image,) = verify(write_recording(tmp_path / "r", graph, {"x": x, "y": y}, "a device")).images

    assert (image.findings[0].name, image.findings[0].where) == ("the sign flipped", where)


def test_what_has_no_cause_says_at_which_distance_it_is():
    x = normal(1)
    got = mps.neuron.forward(neuron("tanH"), x)
    got.reshape(-1)[5::11] = np.random.default_rng(2).random(got.reshape(-1)[5::11].size)

    (finding,) = explain(case_of(forward_case(neuron("tanH"), x, got)))

    assert not finding.fits
    assert "; every 11th element in memory order, from element 5 on" in finding.detail


def test_what_equals_the_ideal_value_explains_nothing():
    x = normal(1, np.float16)
    y = mps.neuron.forward(neuron("absolute"), x)
    tight = case_of(forward_case(neuron("absolute"), x, (y.view(np.int16) + np.int16(7)).view(np.float16)))
    # Bounds that hold the ideal value as well.
    loose = replace(tight, bound=within(HALF, Tolerance(ulp=64)))

    judged = Search(loose, np.zeros(y.size, bool), HYPOTHESES).sample.judged(Candidate())

    assert not judged.explained.any()
    assert not judged.against.any()


@pytest.mark.parametrize("seed", [0, 2])
def test_memory_that_was_never_written_and_what_is_clamped_hold_the_very_bits(tmp_path, seed):
    rng = np.random.default_rng(seed)
    x = (-np.abs(rng.standard_normal((1, 8, 32, 4))) * 1e-7).astype(np.float32)
    # The sign is lost near 0, where e^x - 1 is a multiple of 2^-24: of the elements beyond most have the same value.
    y = np.float32(1) - np.exp(x.astype(float)).astype(np.float32)
    node = mps.MPSCNNNeuronELUNode(source=mps.MPSNNImageNode(handle="x"))
    node.result_image.handle = "y"
    graph = mps.GraphFile.from_results([node.result_image], F.float32)

    (image,) = verify(write_recording(tmp_path / "r", graph, {"x": x, "y": y}, "a device")).images

    assert image.findings[0].headline == f"the sign flipped: explains {image.counts.beyond} of {image.counts.beyond}"


@pytest.mark.parametrize("seed", [0, 1])
def test_what_would_itself_be_within_bounds_explains_only_the_very_bits(tmp_path, seed):
    x = normal(seed, shape=(64, 64, 4), spread=4.0)
    one = np.float32(1)
    # One operation more than what was asked for.
    y = x * (one / (one + np.abs(x)))
    node = mps.MPSCNNNeuronSoftSignNode(source=mps.MPSNNImageNode(handle="x"))
    node.result_image.handle = "y"
    graph = mps.GraphFile.from_results([node.result_image], F.float32)

    (image,) = verify(write_recording(tmp_path / "r", graph, {"x": x, "y": y}, "a device"), "metal-precise").images

    assert image.counts.beyond > 8
    assert image.findings[0].name == NO_FAULT
    assert image.findings[0].detail.startswith("accuracy alone")


@pytest.mark.parametrize(("spread", "bounds"), [(2.0, None), (6.0, None), (2.0, "ulp=4")])
@pytest.mark.parametrize(
    ("node", "function", "name", "detail"),
    [
        ("GeLU", lambda x: x / 2 * (1 + np.tanh(x.dtype.type(0.7978846) * (x + x.dtype.type(0.044715) * x * x * x))),
         "an approximation of geLU", "x/2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))"),
        ("GeLU", lambda x: x / (1 + np.exp(-x)), "an approximation of geLU", "x sigmoid(x), which is SiLU"),
        ("ELU", lambda x: x / (1 + np.exp(-x)), "another neuron", "silu with beta = 1.0"),
        ("Sigmoid", np.tanh, "another neuron", "tanH with a = 1.0, b = 1.0"),
    ],
)  # fmt: skip
def test_what_terms_leave_that_cancel_refutes_no_other_function(tmp_path, node, function, name, detail, spread, bounds):
    x = normal(3, shape=(20, 20, 4), spread=spread).astype(np.float32)
    with np.errstate(all="ignore"):
        y = function(x).astype(np.float32)
    node = getattr(mps, f"MPSCNNNeuron{node}Node")(source=mps.MPSNNImageNode(handle="x"))
    node.result_image.handle = "y"
    graph = mps.GraphFile.from_results([node.result_image], F.float32)

    (image,) = verify(write_recording(tmp_path / "r", graph, {"x": x, "y": y}, "a device"), bounds).images

    first, *others = image.findings
    assert (first.name, first.detail, first.contradicted) == (name, detail, 0)
    assert first.explained >= 0.99 * first.of
    assert not [other for other in others if other.rank == "rest"]


@pytest.mark.parametrize(("name", "narrow"), [("tanh", plants.half), ("silu", plants.bfloat16)])
def test_what_rounding_does_not_leave_is_no_arithmetic(tmp_path, name, narrow):
    x, dy = (narrow(normal(seed, shape=(16, 16, 8))) for seed in (3, 4))
    node = mps.MPSCNNNeuronSoftPlusNode(source=mps.MPSNNImageNode(handle="x"))
    (gradient,) = node.training_graph(with_source_gradient=mps.MPSNNImageNode(handle="dy"))
    gradient.result_image.handle = "dx"
    graph = mps.GraphFile.from_results([gradient.result_image], F.float32)
    slope = plants.NARROW_SLOPES[name](x, narrow)

    found = [
        verify(write_recording(tmp_path / str(k), graph, {"x": x, "dy": dy, "dx": dx}, "a device"))
        for k, dx in enumerate((narrow(dy * slope), narrow(dy * np.float32(0.98) * slope)))
    ]

    names = [report.images[-1].findings[0].name for report in found]
    assert names[0] == f"another neuron and computed in {narrow.__name__}"
    assert "computed in" not in names[1]


@pytest.mark.parametrize("seed", range(3))
def test_another_function_and_noise_of_a_few_ulp_is_no_arithmetic(tmp_path, seed):
    x, dy = (normal(k, np.float16, shape=(16, 16, 8)) for k in (seed, seed + 10))
    node = mps.MPSCNNNeuronAbsoluteNode(source=mps.MPSNNImageNode(handle="x"))
    (gradient,) = node.training_graph(with_source_gradient=mps.MPSNNImageNode(handle="dy"))
    gradient.result_image.handle = "dx"
    graph = mps.GraphFile.from_results([gradient.result_image], F.float16)
    right = (dy * plants.FORMULAS["GeLU"][1](x.astype(float), None)).astype(np.float16)
    noise = np.random.default_rng(seed).integers(-8, 9, x.shape).astype(np.float16)
    dx = right + noise * np.spacing(right)

    report = verify(write_recording(tmp_path / "r", graph, {"x": x, "dy": dy, "dx": dx}, "a device"))

    assert not [found.name for found in report.images[-1].findings if "computed in" in found.name]


def test_two_images_of_a_batch_that_change_places_are_no_row_stride(tmp_path):
    x = normal(4, np.float16, shape=(3, 8, 19, 4))
    node = mps.MPSCNNNeuronTanHNode(source=mps.MPSNNImageNode(handle="x"))
    node.result_image.handle = "y"
    graph = mps.GraphFile.from_results([node.result_image], F.float16)
    y = mps.neuron.forward(node.descriptor, x)[[0, 2, 1]]

    (image,) = verify(write_recording(tmp_path / "r", graph, {"x": x, "y": y}, "a device")).images

    (found,) = image.findings
    assert (found.name, found.detail) == ("another image of the batch", "in the order 0, 2, 1")
    assert found.explained == found.of == image.counts.beyond


def test_what_elements_within_bounds_hold_tells_a_detour_from_a_clamp(tmp_path):
    x = normal(1, np.float16)
    node = mps.MPSCNNNeuronSigmoidNode(source=mps.MPSNNImageNode(handle="x"))
    node.result_image.handle = "y"
    read = np.rint(np.clip(x.astype(float), 0, 1) * 255) / 255
    y = mps.neuron.forward(node.descriptor, read.astype(np.float16))
    graph = mps.GraphFile.from_results([node.result_image], F.float16)

    (image,) = verify(write_recording(tmp_path / "r", graph, {"x": x, "y": y}, "a device")).images

    assert image.findings[0].name == "read through unorm8"


@pytest.mark.parametrize("c", [0.5, 1.7])
def test_a_power_of_the_magnitude_in_float32_is_named(tmp_path, c):
    x = normal(4, shape=(20, 20, 4)).astype(np.float32)
    node = mps.MPSCNNNeuronPowerNode(source=mps.MPSNNImageNode(handle="x"), a=1.1, b=0.3, c=c)
    node.result_image.handle = "y"
    y = np.abs(np.float32(1.1) * x + np.float32(0.3)) ** np.float32(c)
    graph = mps.GraphFile.from_results([node.result_image], F.float32)

    (image,) = verify(write_recording(tmp_path / "r", graph, {"x": x, "y": y}, "a device"), "metal-precise").images

    assert image.findings[0].name == "pow of the magnitude"
    assert image.findings[0].explained >= 0.98 * image.counts.beyond


def test_places_are_exact_in_images_of_which_some_elements_are_searched(tmp_path):
    x = normal(8, shape=(150, 160, 16), spread=2.0).astype(np.float16)
    node = mps.MPSCNNNeuronSoftPlusNode(source=mps.MPSNNImageNode(handle="x"), a=0.7, b=1.2)
    node.result_image.handle = "y"
    graph = mps.GraphFile.from_results([node.result_image], F.float16)
    y = mps.neuron.forward(node.descriptor, x)
    tail, interval = y.copy(), y.copy()
    tail.reshape(-1)[123_457:] = 0
    chosen = (x > -0.2613) & (x < 0.5657)
    interval[chosen] *= -1
    low, high = x[chosen].min().item(), x[chosen].max().item()

    found = [
        verify(write_recording(tmp_path / name, graph, {"x": x, "y": wrong}, "a device")).images[0].findings
        for name, wrong in {"tail": tail, "interval": interval}.items()
    ]

    assert [len(findings) for findings in found] == [1, 1]
    assert [findings[0].where for findings in found] == [
        "only from element 123,457 on",
        f"only where {low:.6g} <= x <= {high:.6g}",
    ]
    assert all(findings[0].explained == findings[0].of for findings in found)


def test_a_sample_and_all_elements_are_judged_alike():
    x = normal(1)
    case = case_of(forward_case(neuron("linear", 2.0), x, np.float32(2.004) * x, ulp=12_000), noise=3000)
    assert np.count_nonzero(case.bad) > 1000
    # Both are near the device's values, but one is within the bounds of what is right, too.
    for factor, explains in ((1.002, True), (1.0007, False)):
        candidate = Candidate(store=lambda case, index, values, k=factor: case.stored(k * values(index)))
        search = Search(case, np.zeros(x.size, bool), HYPOTHESES)
        settled = np.zeros(x.size, bool)
        counts = search.confirmed(Trial(0, ("",), candidate, EVERYWHERE, 0, 0, 0, 1), settled)
        judged = search.sample.judged(candidate)
        _, first, _ = search.first.explained([candidate])

        assert search.sample.index.size == x.size
        masks = judged.explained, judged.same & judged.explained, judged.against
        assert counts[:3] == [np.count_nonzero(mask) for mask in masks]
        assert (first.any(), judged.explained.any()) == (explains, explains)
        # Neither needs another cause.
        assert settled.any()


def test_bounds_move_to_what_a_hypothesis_gives_and_are_no_wider_than_they_were():
    want = np.float32([1, 1, 1e-3, 0])
    ends = (want - np.float32([1e-4, 1e-4, 1e-3, 1e-9])).astype(float), (want + 1e-4).astype(float)
    is_close = around(SINGLE, want, lambda index: tuple(end[index] for end in ends))(np.arange(4))

    # Relative where the width is small beside the value, else absolute; never more, and an infinity has none.
    assert is_close(np.float32([10, 10, 10, np.inf]), np.float32([10.0009, 10.0011, 10.002, 0])).tolist() == [
        True,
        False,
        False,
        False,
    ]


def test_every_hypothesis_is_planted():
    text = Path(plants.__file__).read_text()
    built = {f"{how} through {name}" for how in ("stored", "read") for name in ("half", "bfloat16", "tf32")}
    built |= {"computed in bfloat16"}

    others = [h for h in HYPOTHESES if h not in LAYERS]
    assert [h.name for h in others if f'"{h.name}"' not in text and h.name not in built] == []


# ---- which comes first ----


def trial(order, explained, *, where="", same_bits=0, contradicted=0.0, elsewhere=1.0):
    region = Region(where, EVERYWHERE.holds)
    return Trial(order, ("",), Candidate(), region, explained, same_bits, 100 * contradicted, 100, elsewhere=elsewhere)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (trial(5, 100), trial(0, 97)),
        (trial(0, 99), trial(5, 100)),
        (trial(5, 98, contradicted=0.02), trial(0, 99, contradicted=0.1)),
        (trial(5, 99), trial(0, 100, where="in row 3")),
        (trial(5, 100, where="in row 3"), trial(0, 90)),
        (trial(5, 99, same_bits=80), trial(0, 100, same_bits=60)),
        (trial(0, 99, same_bits=70), trial(5, 100, same_bits=75)),
        (trial(5, 99), trial(0, 100, where="in row 3", same_bits=90)),
        (trial(5, 100, elsewhere=0.9), trial(0, 100, elsewhere=0.7)),
        (trial(0, 100, elsewhere=0.85), trial(5, 100, elsewhere=0.9)),
    ],
)
def test_the_rules_of_rank(first, second):
    assert ranked([first, second]) == ranked([second, first]) == [first, second]


def test_a_few_equal_elements_are_not_taken_for_memory_that_was_never_written():
    x = normal(1, shape=(1, 1, 1, 4))
    d = neuron("sigmoid")

    assert explain(case_of(forward_case(d, x, np.full_like(x, 7.25))))[0].name == NO_FAULT


def test_a_few_elements_have_no_region_of_their_own():
    x = normal(1)
    y = mps.neuron.forward(neuron("tanH"), x)
    y[0, 3, 4, :3] *= -1

    assert explain(case_of(forward_case(neuron("tanH"), x, y)))[0].name == NO_FAULT


def test_an_element_that_a_hypothesis_leaves_within_bounds_does_not_contradict_it():
    rng = np.random.default_rng(1)
    x = np.where(rng.random(SHAPE) < 0.1, rng.uniform(0, 9, SHAPE), rng.uniform(4096, 8192, SHAPE)).astype(np.float16)
    d = neuron("linear", 1.5, 2.0)
    want = mps.neuron.forward(d, x)
    # Far from 0, where b hardly shows, as far from what is wanted as the bounds allow.
    noise = np.where(x > 10, rng.choice([-4, 4], SHAPE), 0).astype(np.int16)
    got = np.where(x > 10, (want.view(np.int16) + noise).view(np.float16), np.float16(1.5) * x)

    first = explain(case_of(forward_case(d, x, got)))[0]

    assert (first.name, first.detail, first.contradicted) == ("a parameter left out", "b = 0", 0)


def test_zeros_are_not_taken_for_elements_that_were_moved_there():
    names = [finding.name for finding in explain(case_of(a_corner_left_out()), most=20)]

    assert names[0] == "never written"
    assert "wrong row stride" not in names


# ---- on the bytes of a device ----


def recorded(path, ulp=4):
    """The case of each image of a recording, by name."""
    recording = Recording.read(EXAMPLES / path)
    entries = {recording.graph.images[name]: entry for name, entry in recording.images.items()}
    names = {image: name for name, image in recording.graph.images.items()}
    nodes = [node for node in schedule(entries) if node.result_image in entries]
    wanted = list(dict.fromkeys(image for node in nodes for image in (*node.sources, node.result_image)))
    graph, rest = mps.MPSNNGraph(result_images=wanted, format=recording.graph.storage), []
    first = graph.encode(source_images=[entries[image].read() for image in inputs(wanted)], intermediate_images=rest)
    values = dict(zip(wanted, [first, *rest], strict=True))
    for node in nodes:
        yield (
            names[node.result_image],
            node,
            [values[s] for s in node.sources],
            values[node.result_image],
            entries[node.result_image].read(),
        )


def case_with(node, sources, want, got):
    got = mps.MPSImage.from_array(got, want.feature_channel_format)
    distance = ulp_distance(got.to_array(), want.to_array(), storage_format(want.feature_channel_format))
    return Case.of_node(node, sources, got, want, distance > 4)


CHAIN = {name: rest for name, *rest in recorded("precise/recording.json")}

EXCHANGES = {
    "lanes permuted": lambda y: y.reshape(1, 64, 64, 4, 4)[..., [2, 1, 0, 3]].reshape(y.shape),
    "pixel-major and channel-major confused": lambda y: y[0].transpose(2, 0, 1).reshape(y.shape),
    "rows and columns swapped": lambda y: y.transpose(0, 2, 1, 3),
    "wrong offset": lambda y: np.concatenate([y.reshape(-1)[500:], np.zeros(500, y.dtype)]).reshape(y.shape),
    "never written": lambda y: np.where(np.arange(64)[:, None, None] < 40, y, np.float16(0)),
}


@pytest.mark.parametrize("image", CHAIN)
def test_nothing_is_said_of_an_image_within_bounds(image):
    node, sources, want, got = CHAIN[image]

    assert explain(case_with(node, sources, want, got.to_array())) == []


@pytest.mark.parametrize("fault", EXCHANGES)
@seldom("image", CHAIN, lambda image: image in (min(CHAIN), max(CHAIN)))
def test_an_exchange_of_a_devices_bytes_is_named_first(image, fault):
    node, sources, want, got = CHAIN[image]
    case = case_with(node, sources, want, np.ascontiguousarray(EXCHANGES[fault](got.to_array())))

    first = explain(case)[0]

    # A few elements say nothing of an order.
    assert first.name == (fault if case.bad_index.size > 8 else NO_FAULT), first.headline


@seldom("image", CHAIN, lambda image: image in (min(CHAIN), max(CHAIN)))
def test_no_fault_is_claimed_where_one_percent_of_a_devices_bytes_is_random(image):
    node, sources, want, got = CHAIN[image]
    rng = np.random.default_rng(3)
    random = rng.integers(0, 0x7C00, want.to_array().shape).astype(np.uint16).view(np.float16)
    case = case_with(node, sources, want, np.where(rng.random(random.shape) < 0.01, random, got.to_array()))

    first = explain(case)[0]

    assert (first.name, first.fits) == (NO_FAULT, False)
    assert first.detail.startswith(f"{case.bad_index.size:,} of 65,536 elements; in all 64 rows; in all 64 columns")
    assert "; x from " in first.detail


def test_no_fault_is_claimed_that_the_elements_within_bounds_contradict():
    node, sources, want, got = CHAIN["y1"]
    some = np.random.default_rng(3).random(got.to_array().shape) < 0.01
    case = case_with(node, sources, want, np.where(some, -got.to_array(), got.to_array()))

    findings = explain(case, most=20)

    assert findings[0].name == NO_FAULT
    assert not any(finding.fits for finding in findings)


def test_a_fault_of_one_channel_is_named_with_the_channel():
    node, sources, want, got = CHAIN["y1"]
    array = got.to_array()
    array[..., 5] *= -1

    first = explain(case_with(node, sources, want, array))[0]

    assert (first.name, first.where, first.contradicted) == ("the sign flipped", "only in channel 5", 0)


NAMED = {
    "reLU.dx": "NaN lost in a comparison",
    "hardSigmoid.y": "NaN turned to 0",
    "pReLU.dx": "NaN lost in a comparison",
    "reLUN.y": "NaN lost in a comparison",
    "softPlus.y": "the literal formula overflows",
    "softPlus.dx": "the literal formula overflows",
    "softSign.y": "the literal formula overflows",
    "geLU.dx": "the literal formula overflows",
}


@pytest.mark.parametrize("compiler", ["precise", "fast"])
def test_what_a_real_gpu_does_is_named(compiler):
    found = {}
    for name, node, sources, want, got in recorded(f"{compiler}/neurons.json"):
        case = case_with(node, sources, want, got.to_array())
        if name in NAMED:
            first = explain(case)[0]
            found[name] = first.name
            assert first.explained == first.of == case.bad_index.size

    assert found == NAMED


def test_the_gradient_that_cancels_in_float32_is_laid_to_the_formula():
    *_, (name, node, sources, want, got) = recorded("precise/chain-float32.json")

    first = explain(case_with(node, sources, want, got.to_array()))[0]

    assert (name, first.name, first.detail) == ("dx", "the formula in float32", "mode stepwise-fma")
    assert first.explained > 0.9 * first.of


# ---- cases ----


def test_a_case_of_every_node_computes_what_the_graph_does():
    x, y, dy = (mps.MPSNNImageNode(handle=handle) for handle in ("x", "y", "dy"))
    scaled = mps.MPSNNAdditionNode(left_source=x, right_source=y)
    scaled.primary_scale, scaled.secondary_scale, scaled.bias, scaled.maximum_value = 0.3, -2.0, 0.125, 1.0
    slopes = mps.MPSCNNNeuronPReLUNode(source=scaled.result_image, a_data=np.linspace(-0.7, 0.9, 14))
    backwards = mps.MPSNNInitialGradientNode(source=slopes.result_image)
    ends = backwards.training_graph(with_source_gradient=None)
    nodes = list(schedule([slopes.result_image, *(end.result_image for end in ends)]))
    images = [image.result_image for image in nodes]
    arrays = {"x": normal(1), "y": normal(2, np.float16), "dy": normal(3)}
    for image in images:
        image.format = F.float32
    graph, rest = mps.MPSNNGraph(result_images=images), []
    handles = [image.handle for image in inputs(images)]
    first = graph.encode(
        source_images=[mps.MPSImage.from_array(arrays[handle]) for handle in handles], intermediate_images=rest
    )
    values = dict(zip(images, [first, *rest], strict=True))
    values |= {image: mps.MPSImage.from_array(arrays[image.handle]) for image in inputs(images)}
    del dy

    assert len({type(node) for node in nodes}) == 5
    for node in nodes:
        want = values[node.result_image]
        sources = [values[source] for source in node.sources]
        case = Case.of_node(node, sources, want, want, np.zeros(want.to_array().shape, bool))
        index = np.arange(7, want.to_array().size, 5)

        np.testing.assert_array_equal(case.stored(case.values(index)), want.to_array().reshape(-1)[index])


def test_arrays_that_do_not_fit_together_are_refused():
    x = normal(1)

    with pytest.raises(mps.ImageError, match="source 0 has shape"):
        Case(Sum(), (Elements(x[:1], SINGLE), Elements(x, SINGLE)), SINGLE, x, x, np.zeros(SHAPE, bool), np.equal)


def test_what_is_close_is_for_the_caller_to_say():
    planted = moved(lambda y: y[:, ::-1])
    case = case_of(planted)

    def nothing(index):
        return lambda a, b: np.zeros(a.shape, bool)

    never = Case(case.operation, case.sources, case.result, case.got, case.want, case.bad, nothing)

    assert explain(case)[0].name == "rows and columns swapped"
    # Equal bits are what was got all the same.
    assert explain(never)[0].name == "rows and columns swapped"
    device = Case(
        case.operation,
        case.sources,
        case.result,
        np.nextafter(case.got, np.float16(9)),
        case.want,
        case.bad,
        nothing,
    )
    assert explain(device)[0].name == NO_FAULT


def test_codes_have_faults_too():
    x = np.random.default_rng(1).integers(0, 256, (2, 6, 7, 8), np.uint8)
    unorm = FORMATS[F.unorm8]
    source, d = Elements(x, unorm), neuron("sigmoid")
    want = np.rint(255 / (1 + np.exp(x / -255.0))).astype(np.uint8)
    got = np.floor(255 / (1 + np.exp(x / -255.0))).astype(np.uint8)
    is_close = within(unorm, Tolerance(ulp=0, atol=0))

    def first(got):
        return explain(Case(NeuronForward(d), (source,), unorm, got, want, got != want, is_close))[0].name

    assert first(got) == "truncated instead of rounded"
    assert first(np.ascontiguousarray(want[:, ::-1])) == "rows and columns swapped"
    assert first(np.zeros_like(want)) == "never written"


@seldom("storage", [F.float16, F.float32, F.unorm8], lambda f: f == F.float16, lambda f: f.name)
@pytest.mark.parametrize("neuron_type", mps.NEURONS, ids=lambda t: t.name)
def test_whatever_the_bytes_something_is_said_and_no_warning_given(neuron_type, storage):
    row, rng = mps.NEURONS[neuron_type], np.random.default_rng(int(neuron_type))
    for shape in ((1, 1, 1, 1), (2, 3, 1, 5)):
        d = mps.MPSNNNeuronDescriptor(neuron_type, data=np.linspace(0, 1, shape[3]) if row.per_channel else None)
        size = int(np.prod(shape)) * FORMATS[storage].dtype.itemsize
        x, dy, got = (
            rng.integers(0, 256, size, np.uint8).view(FORMATS[storage].dtype).reshape(shape) for _ in range(3)
        )
        for operation, arrays in ((NeuronForward(d), (x,)), (NeuronGradient(d), (dy, x)), (Sum(bias=2.0), (dy, x))):
            sources = tuple(Elements(array, FORMATS[storage]) for array in arrays)
            want = np.zeros_like(x)
            case = Case(operation, sources, FORMATS[storage], got, want, want == 0, within(FORMATS[storage]))
            findings = explain(case)

            assert findings
            assert findings[0].fits or findings[0].name == NO_FAULT
            assert all(str(finding) for finding in findings)


def test_a_large_image_takes_seconds():
    x, dy = normal(1, shape=(2, 100, 100, 64)), normal(2, shape=(2, 100, 100, 64))
    d = neuron("geLU")
    want = mps.neuron.gradient(d, x, dy)
    got = want.reshape(2, 100, 100, 16, 4)[..., [3, 0, 1, 2]].reshape(x.shape)
    case = case_of(gradient_case(d, x, dy, got))

    start = time.process_time()
    first = explain(case)[0]

    assert first.name == "lanes permuted"
    assert time.process_time() - start < 5


def test_a_finding_says_where_it_is_seen():
    planted = no_nan()

    first = explain(case_of(planted))[0]
    e = first.example

    assert (e.image, e.y, e.x, e.channel, e.sources, e.got, e.want) == (0, 2, 3, 0, ("nan",), "0.0", "nan")
    assert str(first) == (
        "NaN turned to 0: explains 126 of 126. Where NaN belongs there is 0, as a texture or a fast min and max may "
        "leave it. For example (image 0, y 2, x 3, channel 0) reads nan: got 0.0, want nan, the hypothesis 0.0."
    )


def test_every_hypothesis_is_listed_once():
    defined = [
        value
        for module in pkgutil.iter_modules(hypotheses.__path__, f"{hypotheses.__name__}.")
        for value in vars(importlib.import_module(module.name)).values()
        if isinstance(value, Hypothesis)
    ]

    assert len(HYPOTHESES) == len(set(HYPOTHESES))
    assert {*HYPOTHESES, *STATES} == set(defined)


def test_hypotheses_have_names_of_their_own_and_say_one_sentence():
    assert len({hypothesis.name for hypothesis in HYPOTHESES}) == len(HYPOTHESES)
    for hypothesis in HYPOTHESES:
        assert hypothesis.sentence.endswith(".")
        assert ". " not in hypothesis.sentence


@pytest.mark.parametrize(("name", "parameters", "chosen", "where"), [
    ("absolute", (), lambda x: x > 0, "where 0 < x"),
    ("linear", (2.0, 1.0), lambda x: x < 0, "where x < 0"),
    ("reLUN", (0.5, 2.5), lambda x: (x > 0) & (x < 2.5), "where 0 < x < 2.5"),
    ("linear", (1.0, 0.0), lambda x: x > 1.234, None),
])  # fmt: skip
def test_an_interval_of_values_ends_where_the_formula_changes(name, parameters, chosen, where):
    """Of the elements at its end few are looked at, and all are right or wrong."""
    x = normal(3, shape=(1, 100, 100, 40))
    d = neuron(name, *parameters)
    want = mps.neuron.forward(d, x)
    got = np.where(chosen(x), -want, want)

    (first, *rest) = explain(case_of(Planted(NeuronForward(d), (x,), want, got)))

    assert first.name == "the sign flipped"
    if where is not None:
        assert (first.where, first.explained, rest) == (f"only {where}", np.count_nonzero(want != got), [])
    else:
        low = float(first.where.split()[2])
        assert 1.234 < low < 1.24
