"""The comparison, the report, and what is said of the bytes of a real GPU."""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import mpsref as mps
from mpsref.documents import schema
from mpsref.storage import FORMATS
from mpsref.ulp import distances_by_power
from mpsref.verify import (
    UNREACHABLE,
    Bounds,
    Reason,
    Recording,
    Tolerance,
    Tolerances,
    compare,
    ulp_distance,
    verify,
    write_recording,
)
from mpsref.verify.compare import passes
from mpsref.verify.models import MODELS
from mpsref.verify.reasons import BEYOND, WITHIN

Format = mps.MPSImageFeatureChannelFormat
EXAMPLES = Path(__file__).parents[2] / "examples" / "gpu-run"
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

    found = compare(got, want, HALF, Tolerance(), 3)
    counts = found.counts

    assert (counts.elements, counts.exact, counts.within_1, counts.within_4, counts.within_64) == (8, 1, 2, 3, 5)
    assert (counts.largest, counts.nan_disagreements, counts.infinity_disagreements, counts.beyond) == (300, 1, 0, 5)
    assert (counts.within, counts.excused) == (3, {})
    assert found.worst.tolist() == [7, 6, 5]
    assert found.distances.tolist() == [UNREACHABLE, 300, 65]


def test_infinities_that_disagree_are_counted_apart_from_nan():
    got, want = np.float16([np.inf, 1, np.inf, np.nan]), np.float16([1, np.inf, -np.inf, np.inf])

    counts = compare(got, want, HALF, Tolerance(ulp=10**9), 5).counts

    assert (counts.infinity_disagreements, counts.nan_disagreements, counts.beyond, counts.largest) == (3, 1, 4, 0)


def test_exact_elements_are_never_among_the_worst():
    x = np.float16([1, 2, 3])

    found = compare(x, x.copy(), HALF, Tolerance(), 5)

    assert found.worst.size == 0
    assert found.counts.exact == found.counts.elements == 3


def test_elements_beyond_the_bounds_come_before_farther_ones_within():
    got, want = np.float16([1e-6, 3.0]), np.float16([1e-7, 2.9])

    found = compare(got, want, HALF, Tolerance(ulp=1, atol=1e-3), 1)

    assert found.counts.beyond == 1
    assert found.worst.tolist() == [1]
    assert found.classes.tolist() == [BEYOND]


def test_explained_elements_come_after_those_beyond_and_before_those_within():
    want = np.full(5, 1, np.float16)
    got = (want.view(np.uint16) + np.array([900, 2, 700, 1, 0], np.uint16)).view(np.float16)
    classes = {0: WITHIN, 1: BEYOND, 2: Reason.order}

    found = compare(got, want, HALF, lambda index, _: np.array([classes[i] for i in index.tolist()], np.uint16), 9)

    assert found.worst.tolist() == [1, 2, 0, 3]
    assert (found.counts.within, found.counts.excused, found.counts.beyond) == (3, {"order": 1}, 1)


@given(hnp.arrays(np.uint16, 50, elements=st.integers(0, 65535)), hnp.arrays(np.uint16, 50), st.integers(0, 60))
def test_the_worst_are_a_sorted_head_of_all_distances(got, want, count):
    got, want = got.view(np.float16), want.view(np.float16)
    everything = ulp_distance(got, want, HALF)

    found = compare(got, want, HALF, Tolerance(ulp=0), count)

    expected = sorted(((-d, i) for i, d in enumerate(everything.tolist()) if d), key=lambda pair: pair)[:count]
    assert list(zip((-found.distances).tolist(), found.worst.tolist(), strict=True)) == expected


EDGES = [0, 1, 2, 0x3C00, 0x7BFE, 0x7BFF, 0x7C00, 0x7C01, 0x7E00, 0x7FFF]


@pytest.mark.parametrize("worst", [0, 3, 100])
@pytest.mark.parametrize("channel_format", [Format.float16, Format.float32, Format.unorm8, Format.unorm16])
def test_the_short_ways_count_what_the_distances_say(channel_format, worst):
    storage = FORMATS[channel_format]
    rng = np.random.default_rng(worst)
    bits = storage.bits_dtype
    shift = {np.dtype(np.uint32): 16}.get(bits, 0) - (8 if bits == np.uint8 else 0)
    edges = np.array([(e | sign) << shift if shift >= 0 else e >> 8 for e in EDGES for sign in (0, 0x8000)], bits)
    # Across the borders of blocks; every edge beside every other one, and most elements equal or neighbours.
    want = np.concatenate([np.repeat(edges, edges.size), rng.integers(0, np.iinfo(bits).max, 140_000, bits)])
    got = np.concatenate([np.tile(edges, edges.size), want[edges.size**2 :]])
    got[edges.size :: 7] += bits.type(1)
    got[edges.size :: 11] -= bits.type(1)
    got[edges.size :: 1009] += bits.type(5)
    got, want = got.view(storage.dtype), want.view(storage.dtype)
    everything = ulp_distance(got, want, storage)

    for limit in (Tolerance(0), Tolerance(1), Tolerance(4), Tolerance(0, 0.01, 0.001)):
        found = compare(got, want, storage, limit, worst)

        beyond = ~passes(got, want, everything, storage, limit)
        counts = found.counts
        assert found.beyond.tolist() == np.flatnonzero(beyond).tolist()
        assert (counts.within, counts.beyond) == (got.size - beyond.sum(), beyond.sum())
        assert counts.exact == np.count_nonzero(everything == 0)
        assert [counts.within_1, counts.within_4] == [np.count_nonzero(everything <= most) for most in (1, 4)]
        assert counts.largest == everything[everything != UNREACHABLE].max()
        assert found.histogram == distances_by_power(everything)
        rank = sorted(np.flatnonzero(everything).tolist(), key=lambda i: (not beyond[i], -everything[i], i))
        assert found.worst.tolist() == rank[:worst]
        assert found.distances.tolist() == everything[rank[:worst]].tolist()
        assert not found.identical
    assert compare(got, got.copy(), storage, Tolerance(0), worst).identical


@pytest.mark.parametrize("worst", [0, 1, 4, 9])
def test_of_neighbours_the_first_are_reported_among_the_rest(worst):
    want = np.full(200_000, 3, np.float32)
    got = want.copy()
    want[2], got[2] = 0, 2.0**-149  # a neighbour as well, but on a longer way
    got[[7, 8, 130_000, 130_001, 199_999]] = np.nextafter(got[0], np.float32(9))
    got[50] = np.nextafter(np.nextafter(got[0], np.float32(9)), np.float32(9))

    found = compare(got, want, SINGLE, Tolerance(1), worst)

    assert found.worst.tolist() == [50, 2, 7, 8, 130_000, 130_001, 199_999][:worst]
    assert found.distances.tolist() == [2, 1, 1, 1, 1, 1, 1][:worst]
    assert found.classes.tolist() == [BEYOND, *[WITHIN] * 6][:worst]
    assert found.histogram == {0: 199_993, 1: 6, 2: 1}


def test_distances_are_taken_only_of_what_is_neither_equal_nor_next_to_it(monkeypatch):
    sizes = []

    def counted(got, *rest):
        sizes.append(got.size)
        return ulp_distance(got, *rest)

    monkeypatch.setattr(sys.modules["mpsref.verify.compare"], "ulp_distance", counted)
    want = np.linspace(1, 9, 300_000, dtype=np.float32)
    got = want.copy()
    got[::10] = np.nextafter(want[::10], np.float32(0))
    got[5] = 7

    assert compare(want, want.copy(), SINGLE, Tolerance(), 5).counts.exact == want.size
    assert sizes == []
    assert compare(got, want, SINGLE, Tolerance(), 5).counts.within_1 == want.size - 1
    assert sizes == [1]


def test_the_same_bits_are_not_the_same_as_equal():
    assert not compare(np.float16([0.0]), np.float16([-0.0]), HALF, Tolerance(0)).identical


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

    counts = compare(got, want, SINGLE, Tolerance(rtol=0.01, atol=0.5), 0).counts

    assert counts.beyond == 2 - 1 + 1  # 102 and 0.6; 101 lies within 0.5 + 1, and 0.5 on the edge


def test_tolerances_are_of_values_also_where_codes_are_stored():
    got, want = np.array([10], np.uint8), np.array([20], np.uint8)

    assert compare(got, want, FORMATS[Format.unorm8], Tolerance(atol=0.04)).counts.beyond == 0
    assert compare(got, want, FORMATS[Format.unorm8], Tolerance(atol=0.039)).counts.beyond == 1


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
    assert (h.passed, s.passed, y.passed) == (True, False, False)
    # y was made of the right s, so it is not what softSign makes of the s that was recorded.
    assert (s.counts.beyond, y.counts.beyond) == (1, 1)
    assert report.first_wrong is s
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
        "image", "y", "x", "channel", "slice", "lane", "sources", "got", "want", "ulp", "beyond",
        "reason", "index"}  # fmt: skip
    jsonschema.Draft202012Validator(schema("report")).validate(document)


def test_progress_is_reported_node_by_node(tmp_path):
    seen = []

    verify(recorded(tmp_path / "r"), progress=lambda done, of_all: seen.append((done, of_all)))

    assert seen == [(1, 3), (2, 3), (3, 3)]


# ---- which node ----


def test_a_node_that_read_something_wrong_is_not_blamed_for_it(tmp_path):
    report = verify(recorded(tmp_path / "r", lambda arrays: arrays["h"].fill(7)))

    h, s, y = report.images
    # s was made of the right h, so it is wrong for the h that was recorded; y is right for its s.
    assert (h.counts.beyond, s.passed, y.passed) == (144, False, True)
    assert report.first_wrong is h
    assert "first wrong: h (MPSCNNNeuronSigmoidNode)" in report.text()


def faulty_from_the_first_node_on(arrays):
    """The first image wrong, the others as its readers should make them of that."""
    arrays["h"] += np.float16(0.5)
    arrays["s"] = (arrays["x"].astype(np.float32) + arrays["h"]).astype(np.float16)
    d = mps.MPSNNNeuronDescriptor(mps.MPSCNNNeuronType.softSign)
    arrays["y"] = mps.neuron.forward(d, arrays["s"])


def test_the_counts_do_not_depend_on_the_search_for_faults(tmp_path):
    path = recorded(tmp_path / "r", lambda arrays: arrays["h"].fill(7))

    with_faults, without_faults = verify(path), verify(path, faults=False)

    assert [image.counts for image in without_faults.images] == [image.counts for image in with_faults.images]
    assert [len(image.findings) > 0 for image in with_faults.images] == [True, True, False]


def test_what_follows_a_wrong_node_is_right_for_what_it_read(tmp_path):
    report = verify(recorded(tmp_path / "r", faulty_from_the_first_node_on))

    h, s, y = report.images
    assert [image.counts.exact for image in (h, s, y)] == [0, 144, 144]
    assert h.end_to_end is None
    assert s.end_to_end.exact < 20
    assert y.end_to_end.exact < 20
    assert "from the graph's sources on" in report.text()


def without(path, *names):
    document = json.loads(path.read_text())
    for name in names:
        del document["images"][name]
    path.write_text(json.dumps(document))
    return path


def test_nodes_whose_images_are_not_recorded_are_judged_together(tmp_path):
    report = verify(without(recorded(tmp_path / "r", faulty_from_the_first_node_on), "h", "s"))

    (y,) = report.images
    assert not y.passed
    assert y.unrecorded == ("h", "s")
    assert "makes h, s, not recorded: set export_from_graph" in report.text()


def test_the_errors_of_nodes_that_are_not_recorded_add_up(tmp_path):
    def one_ulp_more(arrays):
        """In h: a neighbour, which passes where it is recorded, and no single rounding afterwards."""
        h = np.nextafter(arrays["h"], np.float16(9))
        total = (arrays["x"].astype(np.float32) + h).astype(np.float16)
        arrays["y"] = mps.neuron.forward(mps.MPSNNNeuronDescriptor(mps.MPSCNNNeuronType.softSign), total)

    path = without(recorded(tmp_path / "r", one_ulp_more), "h", "s")

    assert not verify(path, "ulp=1").passed
    assert verify(path, "metal-half").passed


# ---- presets and tolerance files ----


@pytest.mark.parametrize("preset", [*MODELS, "exact", "ulp=0", "ulp=7"])
def test_what_the_reference_wrote_passes_with_every_preset(tmp_path, preset):
    assert verify(recorded(tmp_path / "r"), preset).passed


@pytest.mark.parametrize("wrong", ["metal", "", "ulp=", "ulp=-1", "ulp=" + "9" * 30, 4])
def test_a_preset_that_does_not_exist_is_refused(tmp_path, wrong):
    with pytest.raises(mps.ParameterError, match=r"choose one of|at most|give a"):
        verify(recorded(tmp_path / "r"), wrong)


def test_a_tolerance_file_overrides_by_image_neuron_format_and_direction(tmp_path):
    (tmp_path / "t.toml").write_text(
        """
        bounds = "exact"
        [[override]]
        image = "h"
        ulp = 3
        [[override]]
        neuron = "softSign"
        format = "float16"
        direction = "forward"
        rtol = 0.5
        atol = 0.25
        """
    )
    tolerances = Tolerances.read(tmp_path / "t.toml")
    soft_sign = {"neuron": "softSign", "format": "float16", "direction": "forward"}

    assert tolerances.of(image="h", neuron=None, format="float32", direction="forward") == Tolerance(3)
    assert tolerances.of(image="y", **soft_sign) == Tolerance(0, 0.5, 0.25)
    for fact in ({"neuron": "ELU"}, {"format": "float32"}, {"direction": "gradient"}):
        assert tolerances.of(image="y", **(soft_sign | fact)) == Tolerance(0)
    assert Tolerances.read(tmp_path / "t.toml", Bounds()).default == Tolerance(0)
    report = verify(recorded(tmp_path / "r"), tolerances)
    assert [image.limit for image in report.images][1] == str(Tolerance(0))
    jsonschema.Draft202012Validator(schema("report")).validate(report.to_json())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bound = 'exact'", "bound.*unknown here: known are bounds"),
        ("bounds = 'nonsense'", "bounds are 'nonsense': choose one of metal-precise"),
        ("bounds = 'exact'\nulp = 3", "bounds: stands beside ulp: give one or the other"),
        ("ulp = -1", "ulp: is -1: give 0 to"),
        ("rtol = nan", "rtol"),
        ("rtol = inf", "rtol"),
        ("ulp = 2000-01-01", "ulp: is .2000-01-01.: an integer is needed"),
        ("[[override]]\nimage = 'y'", r"override\[0\].bounds: missing: give it, or ulp"),
        ("[[override]]\nneuron = 'relu'\nulp = 1", r"override\[0\].neuron: is .relu.: choose one of"),
        ("[[override]]\nimage = 'y'\nbounds = 'ulp=x'", r"override\[0\].bounds are 'ulp=x'"),
        ("override = 1", "override: is 1: an array is needed"),
        ("a = ", "not TOML"),
        ("ulp = 1\nulp = 2", "not TOML"),
        ("a" + ".a" * 20_000 + " = 1", "unknown here|not TOML"),
        ("a = " + "[" * 100_000, "not TOML"),
    ],
)
def test_a_tolerance_file_that_does_not_fit_is_refused_by_field(tmp_path, text, message):
    (tmp_path / "t.toml").write_text(text)

    with pytest.raises(mps.FileFormatError, match=message):
        Tolerances.read(tmp_path / "t.toml")


def test_an_override_for_an_image_that_is_not_there_is_refused(tmp_path):
    (tmp_path / "t.toml").write_text("[[override]]\nimage = 'q'\nulp = 1")

    with pytest.raises(
        mps.FileFormatError, match=r"override.image: is 'q', which .*graph.json does not have: fix the name"
    ):
        verify(recorded(tmp_path / "r"), Tolerances.read(tmp_path / "t.toml"))


# ---- the recordings of a real GPU ----

FITTING = {"precise": "metal-precise", "fast": "cuda-fast"}


def report_of(compiler, name, **options):
    return verify(EXAMPLES / compiler / f"{name}.json", FITTING[compiler], **options)


def counts_by_image(report):
    return {image.name: image.counts for image in report.images}


@pytest.mark.parametrize("name", ["recording", "chain-float32", "neurons"])
@pytest.mark.parametrize("compiler", ["precise", "fast"])
def test_every_element_of_the_recordings_is_within_the_fitting_model_or_excused(compiler, name):
    report = report_of(compiler, name, allow=["overflow"])

    # The clamps lose NaN, where these models define it.
    lost = {"hardSigmoid.y": 126, "reLUN.y": 126} if name == "neurons" else {}
    assert {image.name: image.counts.beyond for image in report.images if not image.passed} == lost
    for counts in counts_by_image(report).values():
        assert counts.within + sum(counts.excused.values()) + counts.beyond == counts.elements


def test_ieee_arithmetic_is_within_what_fast_math_allows_too():
    for name in ("recording", "chain-float32", "neurons"):
        verify(EXAMPLES / "precise" / f"{name}.json", allow=["overflow"]).check()


def test_an_overflowing_formula_fails_unless_that_is_allowed():
    path = EXAMPLES / "precise" / "neurons.json"
    plain, allowed, strict = verify(path), verify(path, allow="overflow"), verify(path, strict=True, faults=False)

    assert {image.name: image.counts.beyond for image in plain.images if not image.passed} == {
        "softPlus.y": 576, "softPlus.dx": 592,
    }  # fmt: skip
    assert "; 1,168 because an intermediate overflows (--allow overflow excuses them)" in plain.verdict
    assert plain.causes[0].cause == "an intermediate of the formula overflows"
    assert (plain.causes[0].images, plain.causes[0].elements, plain.causes[0].verdict) == (2, 1168, "beyond")
    assert "129,014 are within bounds; 882 results of NaN inputs differ, which fast math allows;" in allowed.verdict
    assert "(--strict fails them); 1,168 results of overflowing intermediates differ, which" in allowed.verdict
    assert sum(image.counts.beyond for image in strict.images) == 131_072 - 129_014


def test_the_tanh_of_cuda_is_not_as_near_as_metal_promises():
    report = verify(EXAMPLES / "fast" / "chain-float32.json", "metal-fast")

    assert report.first_wrong.name == "y1"
    assert [image.name for image in report.images if not image.passed] == ["y1", "dx"]


def test_the_half_chain_of_the_precise_compiler_passes():
    report = report_of("precise", "recording")

    assert len(report.images) == 8
    assert all(image.counts.elements == 65_536 and image.counts.largest <= 2 for image in report.images)


def test_its_sources_are_every_half_in_order():
    x = Recording.read(EXAMPLES / "precise" / "recording.json").images["x"].read().to_array()

    assert np.array_equal(x.view(np.uint16).reshape(-1), np.arange(65_536))


@pytest.mark.parametrize("compiler", ["precise", "fast"])
def test_the_report_explains_where_literal_formulas_overflow(compiler):
    images = {image.name: image for image in report_of(compiler, "neurons", allow=["overflow"]).images}

    # ln(1 + e^(0.75 x)) in float32 is infinite from 0.75 x = 88.7 on; its slope is infinity over infinity.
    forward = images["softPlus.y"]
    assert forward.counts.excused == {"overflow": forward.counts.infinity_disagreements}
    assert forward.counts.excused["overflow"] > 500
    overflows = [e for e in forward.worst if e.reason == "overflow"]
    assert overflows
    assert all(float(e.sources["x"]) * 0.75 > 88.7 and e.got == "inf" for e in overflows)
    assert images["softPlus.dx"].counts.excused["overflow"] > 500
    assert images["softSign.y"].counts.excused == {"plus_inf": 1, "minus_inf": 1}


@pytest.mark.parametrize("compiler", ["precise", "fast"])
def test_the_report_explains_where_comparisons_lose_a_nan(compiler):
    counts = counts_by_image(report_of(compiler, "neurons"))

    # 126 of the 4,096 elements of x are NaN.
    for name in ("reLU.dx", "hardSigmoid.dx", "absolute.dx", "pReLU.dx", "reLUN.dx"):
        assert counts[name].excused == {"nan": 126}
        assert counts[name].nan_disagreements == 126
    for name in ("none.y", "none.dx", "linear.y", "linear.dx", "tanH.y", "exponential.dx", "logarithm.y"):
        assert counts[name].excused == {}


@pytest.mark.parametrize("compiler", ["precise", "fast"])
def test_the_gradient_of_tanh_may_cancel(compiler):
    dx = counts_by_image(report_of(compiler, "chain-float32"))["dx"]

    # 1 - tanh^2 in float32 loses every digit near saturation; the exact slope is tiny and not zero.
    assert (dx.beyond, dx.largest > 10**8) == (0, True)
    assert counts_by_image(verify(EXAMPLES / compiler / "chain-float32.json", Tolerance()))["dx"].beyond > 600


def test_fast_math_errs_more_than_ieee_arithmetic():
    fast, precise = (counts_by_image(report_of(compiler, "chain-float32")) for compiler in ("fast", "precise"))

    assert sum(fast[name].exact for name in fast) < sum(precise[name].exact for name in fast)
    assert fast["y1"].exact < precise["y1"].exact
    assert (fast["y1"].excused, fast["y1"].latitude) == ({}, {"flush": 1})  # a subnormal that is flushed to zero
