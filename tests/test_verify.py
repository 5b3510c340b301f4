"""The comparison, the report, and what is said of the bytes of a real GPU."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import mpsref as mps
from mpsref.storage import FORMATS
from mpsref.verify import UNREACHABLE, Recording, Tolerance, compare, ulp_distance, verify, write_recording

Format = mps.MPSImageFeatureChannelFormat
EXAMPLES = Path(__file__).parents[1] / "examples" / "gpu-run"
HALF, SINGLE = FORMATS[Format.float16], FORMATS[Format.float32]


def distance(got, want, storage=HALF):
    return ulp_distance(np.array([got], storage.dtype), np.array([want], storage.dtype), storage).item()


# ---- ULP distance ----


@pytest.mark.parametrize(
    ("got", "want", "expected"),
    [
        (1.0, 1.0, 0),
        (1.0, 1.0009766, 1),
        (0.0, -0.0, 0),
        (2.0**-24, -(2.0**-24), 2),
        (0.0, 2.0**-24, 1),
        (65504, 65504, 0),
        (np.nan, np.nan, 0),
        (np.nan, -np.nan, 0),
        (np.nan, 1.0, UNREACHABLE),
        (1.0, np.nan, UNREACHABLE),
        (np.inf, np.inf, 0),
        (-np.inf, -np.inf, 0),
        (np.inf, 65504, UNREACHABLE),
        (65504, np.inf, UNREACHABLE),
        (np.inf, -np.inf, UNREACHABLE),
        (np.inf, np.nan, UNREACHABLE),
        (-65504, 65504, 2 * 0x7BFF),
    ],
)
def test_the_distance_of_two_halves(got, want, expected):
    assert distance(got, want) == expected


def test_any_nan_equals_any_nan():
    patterns = np.array([0x7E00, 0xFE00, 0x7C01, 0xFFFF], np.uint16).view(np.float16)

    assert not ulp_distance(patterns, patterns[::-1].copy(), HALF).any()


def test_codes_are_counted():
    codes = np.array([0, 255, 7], np.uint8)

    assert ulp_distance(codes, np.array([255, 0, 8], np.uint8), FORMATS[Format.unorm8]).tolist() == [255, 255, 1]


def test_the_distance_of_float32_counts_the_steps_of_nextafter():
    x = np.float32(1.9999999)
    y = x
    for _ in range(5):
        y = np.nextafter(y, np.float32(np.inf))

    assert distance(x, y, SINGLE) == distance(y, x, SINGLE) == 5
    assert distance(-3.4028235e38, 3.4028235e38, SINGLE) == 2 * 0x7F7FFFFF


# ---- counts and the worst elements ----


def test_elements_are_counted_by_distance():
    want = np.full(8, 1, np.float16)
    got = (want.view(np.uint16) + np.array([0, 1, 4, 5, 64, 65, 300, 0], np.uint16)).view(np.float16)
    got[7] = np.nan

    counts, worst, distances, _ = compare(got, want, HALF, Tolerance(), 3)

    assert (counts.elements, counts.exact, counts.within_1, counts.within_4, counts.within_64) == (8, 1, 2, 3, 5)
    assert (counts.largest, counts.nan_disagreements, counts.infinity_disagreements, counts.beyond) == (300, 1, 0, 5)
    assert worst.tolist() == [7, 6, 5]
    assert distances.tolist() == [UNREACHABLE, 300, 65]


def test_infinities_that_disagree_are_counted_apart_from_nan():
    got, want = np.float16([np.inf, 1, np.inf, np.nan]), np.float16([1, np.inf, -np.inf, np.inf])

    counts, *_ = compare(got, want, HALF, Tolerance(ulp=10**9), 5)

    assert (counts.infinity_disagreements, counts.nan_disagreements, counts.beyond, counts.largest) == (3, 1, 4, 0)


def test_exact_elements_are_never_among_the_worst():
    x = np.float16([1, 2, 3])

    counts, worst, *_ = compare(x, x.copy(), HALF, Tolerance(), 5)

    assert worst.size == 0
    assert counts.exact == counts.elements == 3


def test_elements_beyond_the_bounds_come_before_farther_ones_within():
    got, want = np.float16([1e-6, 3.0]), np.float16([1e-7, 2.9])

    counts, worst, _, passes = compare(got, want, HALF, Tolerance(ulp=1, atol=1e-3), 1)

    assert counts.beyond == 1
    assert worst.tolist() == [1]
    assert not passes.any()


@given(hnp.arrays(np.uint16, 50, elements=st.integers(0, 65535)), hnp.arrays(np.uint16, 50), st.integers(0, 60))
def test_the_worst_are_a_sorted_head_of_all_distances(got, want, count):
    got, want = got.view(np.float16), want.view(np.float16)
    everything = ulp_distance(got, want, HALF)

    _, worst, distances, _ = compare(got, want, HALF, Tolerance(ulp=0), count)

    expected = sorted(((-d, i) for i, d in enumerate(everything.tolist()) if d), key=lambda pair: pair)[:count]
    assert list(zip((-distances).tolist(), worst.tolist(), strict=True)) == expected


# ---- tolerance ----


@pytest.mark.parametrize(
    ("tolerance", "ulp"),
    [(Tolerance(), 4), (Tolerance(ulp=0), 0), (Tolerance(rtol=0.1), 0), (Tolerance(atol=1), 0), (Tolerance(7, 0.1), 7)],
)
def test_four_ulp_are_the_default_unless_another_kind_is_asked_for(tolerance, ulp):
    assert tolerance.ulp == ulp


@pytest.mark.parametrize("wrong", [{"ulp": -1}, {"rtol": -1}, {"atol": np.nan}, {"rtol": np.inf}])
def test_a_wrong_tolerance_is_refused_by_name(wrong):
    with pytest.raises(mps.ParameterError, match=next(iter(wrong))):
        Tolerance(**wrong)


def test_relative_and_absolute_tolerance_are_of_what_was_wanted():
    want = np.float32([100, 100, 0, 0])
    got = np.float32([101, 102, 0.5, 0.6])

    counts, *_ = compare(got, want, SINGLE, Tolerance(rtol=0.01, atol=0.5), 0)

    assert counts.beyond == 2 - 1 + 1  # 102 and 0.6; 101 lies within 0.5 + 1, and 0.5 on the edge


def test_tolerances_are_of_values_also_where_codes_are_stored():
    got, want = np.array([10], np.uint8), np.array([20], np.uint8)

    assert compare(got, want, FORMATS[Format.unorm8], Tolerance(atol=0.04), 0)[0].beyond == 0
    assert compare(got, want, FORMATS[Format.unorm8], Tolerance(atol=0.039), 0)[0].beyond == 1


# ---- whole recordings ----


def recorded(folder, mutate=None):
    """Two neurons and an addition on two images of six channels, recorded with every intermediate."""
    x = mps.MPSNNImageNode(handle="x")
    h = mps.MPSCNNNeuronSigmoidNode(source=x)
    s = mps.MPSNNAdditionNode(left_source=x, right_source=h.result_image)
    y = mps.MPSCNNNeuronSoftSignNode(source=s.result_image)
    for node, name in ((h, "h"), (s, "s"), (y, "y")):
        node.result_image.handle = name
    graph = mps.MPSNNGraph(result_images=[h.result_image, s.result_image, y.result_image])
    source = mps.MPSImage.from_array(np.linspace(-3, 3, 2 * 3 * 4 * 6, dtype=np.float16).reshape(2, 3, 4, 6))
    arrays = {name: np.array(image) for name, image in graph.run(x=source).items()} | {"x": source.to_array()}
    if mutate is not None:
        mutate(arrays)
    images = {name: mps.MPSImage.from_array(array) for name, array in arrays.items()}
    return write_recording(folder, mps.GraphFile.from_results([y.result_image]), images, "made by hand")


def test_what_the_reference_wrote_passes_exactly(tmp_path):
    report = verify(recorded(tmp_path / "r"), Tolerance(ulp=0))

    assert report.passed
    assert [image.name for image in report.images] == ["h", "s", "y"]
    assert all(image.counts.exact == image.counts.elements for image in report.images)
    report.check()


def test_a_planted_fault_is_found_by_name_and_place(tmp_path):
    def plant(arrays):
        arrays["s"][1, 2, 3, 5] = 100

    report = verify(recorded(tmp_path / "r", plant))

    h, s, y = report.images
    assert (h.passed, s.passed, y.passed) == (True, False, True)
    (element,) = s.worst
    assert (element.image, element.y, element.x, element.channel) == (1, 2, 3, 5)
    assert (element.slice, element.lane) == (3, 1)  # image 1 starts at slice 2; channel 5 is lane 1 of its second
    assert element.sources == {"x": "3.0", "h": "0.9526"}
    assert (element.got, element.want) == ("100.0", "3.953")
    assert "first in s" in report.verdict


def test_the_error_carries_the_report_and_survives_pickling(tmp_path):
    report = verify(recorded(tmp_path / "r", lambda arrays: arrays["y"].fill(np.nan)))

    with pytest.raises(mps.VerificationError) as caught:
        report.check()

    again = pickle.loads(pickle.dumps(caught.value))  # noqa: S301
    assert isinstance(caught.value, AssertionError)
    assert again.report == report == caught.value.report
    assert report.images[2].worst[0].ulp is None


def test_a_fault_in_an_intermediate_that_is_not_recorded_shows_where_it_arrives(tmp_path):
    path = recorded(tmp_path / "r", lambda arrays: arrays["y"].fill(0.25))
    document = json.loads(path.read_text())
    del document["images"]["s"], document["images"]["h"]
    path.write_text(json.dumps(document))

    report = verify(path, worst=1)

    assert [image.name for image in report.images] == ["y"]
    assert list(report.images[0].worst[0].sources) == ["s"]


def test_the_json_report_says_what_the_text_says(tmp_path):
    report = verify(recorded(tmp_path / "r", lambda arrays: arrays["h"].fill(7)), worst=2)

    document = json.loads(json.dumps(report.to_json()))

    assert document["passed"] is False
    assert document["images"]["h"]["beyond"] == 144
    assert len(document["images"]["h"]["worst"]) == 2
    assert document["verdict"] == report.text().splitlines()[-1]
    assert set(document["images"]["h"]["worst"][0]) == {
        "image", "y", "x", "channel", "slice", "lane", "sources", "got", "want", "ulp", "beyond"}  # fmt: skip


def test_progress_is_reported_node_by_node(tmp_path):
    seen = []

    verify(recorded(tmp_path / "r"), progress=lambda done, of_all: seen.append((done, of_all)))

    assert seen == [(1, 3), (2, 3), (3, 3)]


# ---- the recordings of a real GPU ----


def report_of(compiler, name):
    return verify(EXAMPLES / compiler / f"{name}.json")


def counts_by_image(report):
    return {image.name: image.counts for image in report.images}


def test_the_half_chain_of_the_precise_compiler_passes():
    report = report_of("precise", "recording")

    assert report.passed
    assert len(report.images) == 8
    assert all(image.counts.elements == 65_536 and image.counts.largest <= 2 for image in report.images)


def test_its_sources_are_every_half_in_order():
    x = Recording.read(EXAMPLES / "precise" / "recording.json").images["x"].read().to_array()

    assert np.array_equal(x.view(np.uint16).reshape(-1), np.arange(65_536))


@pytest.mark.parametrize("compiler", ["precise", "fast"])
def test_the_report_shows_where_literal_formulas_overflow(compiler):
    images = {image.name: image for image in report_of(compiler, "neurons").images}

    # ln(1 + e^(0.75 x)) in float32 is infinite from 0.75 x = 88.7 on; its slope is infinity over infinity.
    forward = images["softPlus.y"]
    assert forward.counts.infinity_disagreements > 500
    assert all(float(e.sources["x"]) * 0.75 > 88.7 and e.got == "inf" for e in forward.worst)
    assert images["softPlus.dx"].counts.nan_disagreements > 500
    assert images["softSign.y"].counts.beyond == 2


@pytest.mark.parametrize("compiler", ["precise", "fast"])
def test_the_report_shows_where_comparisons_lose_a_nan(compiler):
    counts = counts_by_image(report_of(compiler, "neurons"))

    # 126 of the 4,096 elements of x are NaN.
    for name in ("reLU.dx", "hardSigmoid.y", "hardSigmoid.dx", "absolute.dx", "pReLU.dx", "reLUN.y", "reLUN.dx"):
        assert counts[name].nan_disagreements == counts[name].beyond == 126
    for name in ("none.y", "none.dx", "linear.y", "linear.dx", "tanH.y", "exponential.dx", "logarithm.y"):
        assert counts[name].beyond == 0


@pytest.mark.parametrize("compiler", ["precise", "fast"])
def test_the_report_shows_where_the_gradient_of_tanh_cancels(compiler):
    counts = counts_by_image(report_of(compiler, "chain-float32"))

    # 1 - tanh^2 in float32 loses every digit near saturation; the exact slope is tiny and not zero.
    assert counts["dx"].beyond > 600
    assert counts["dx"].largest > 10**8


def test_fast_math_errs_more_than_ieee_arithmetic():
    fast, precise = (counts_by_image(report_of(compiler, "chain-float32")) for compiler in ("fast", "precise"))

    assert all(fast[name].exact < precise[name].exact for name in fast)
    assert fast["y1"].largest == 80_282  # a subnormal that is flushed to zero
    assert all(precise[name].beyond == 0 for name in precise if name != "dx")
