"""Attacks on implementations: what is right withstands them, and a fault at one value is found at that value."""

from __future__ import annotations

import json
import pickle
import re
import subprocess
import sys
import traceback
from pathlib import Path

import hypothesis
import numpy as np
import pytest

import mpsref as mps
from builders import seldom
from mpsref.testing import ImplementationCheck, check_implementation, subject
from mpsref.testing import strategies as mpst
from mpsref.testing.attack import LONG_ARRAYS
from mpsref.verify import Bounds

T, F = mps.MPSCNNNeuronType, mps.MPSImageFeatureChannelFormat
ROOT = Path(__file__).parents[2]
OTHERS = 10
"""Arrays of a format besides those that are drawn: all halves, large ones, and views."""
SINGLE = {"formats": [F.float32], "max_examples": 20}


def neuron(name, **given):
    row = mps.NEURONS[T[name]]
    return mps.MPSNNNeuronDescriptor(T[name], data=[0.25] if row.per_channel else None, **given)


def right(d, x, upstream=None):
    rows = x.reshape(-1, 1 if d.data is None else len(d.data))
    if upstream is None:
        return mps.neuron.forward(d, rows).reshape(x.shape)
    return mps.neuron.gradient(d, rows, upstream.reshape(rows.shape)).reshape(x.shape)


def failures_of(function, d, **given):
    with pytest.raises(mps.VerificationError) as raised:
        check_implementation(function, d, **given)
    assert isinstance(raised.value.report, ImplementationCheck)
    found = {}
    for failure in raised.value.report.failures:
        found.setdefault((failure.format, failure.kind), failure)
    return found


# ---- what is right ----


@pytest.mark.parametrize("direction", ["forward", "gradient"])
@pytest.mark.parametrize("name", [t.name for t in mps.NEURONS])
def test_the_reference_withstands_the_attack_exactly(name, direction):
    d = neuron(name)

    report = check_implementation(
        lambda *arrays: right(d, *arrays), d, direction=direction, bounds="exact", max_examples=4
    )

    assert report.passed
    assert report.arrays == 2 * (4 + OTHERS)
    assert report.elements > 65_536


def test_parameters_vary_where_the_function_is_told_the_neuron():
    seen = set()

    def told(x, d):
        seen.add(d)
        return right(d, x)

    assert check_implementation(told, T.tanH, bounds="exact", **SINGLE).passed
    assert len(seen) > 10
    # tanH that forgets b: the other parameter is as documented.
    found = failures_of(lambda x, d: (d.a * np.tanh(x)).astype(x.dtype), T.tanH, rtol=1e-3, **SINGLE)
    assert found["float32", "far"].neuron.startswith("MPSNNNeuronDescriptor(MPSCNNNeuronType.tanH, a=1.0, b=")
    relus = mpst.descriptors([T.reLU], parameters=hypothesis.strategies.just(0.5))
    assert check_implementation(told, relus, bounds="exact", **SINGLE).passed


def test_bounds_of_a_model_pass_what_a_plain_formula_gives():
    d = neuron("softPlus")

    def plain(x):
        return mps.neuron.forward(d, x, mode="stepwise")

    assert check_implementation(plain, d, bounds=Bounds("metal-fast", allow=["overflow"]), **SINGLE).passed
    assert ("float32", "infinity") in failures_of(plain, d, bounds="metal-fast", **SINGLE)
    assert ("float32", "infinity") in failures_of(plain, d, ulp=16, **SINGLE)


# ---- planted faults ----

MAX32, SUBNORMAL32 = np.finfo(np.float32).max, np.finfo(np.float32).smallest_subnormal
VALUES = {
    "NaN": (np.isnan, 7.0, "nan"),
    "infinity": (lambda x: x == np.inf, np.nan, "inf"),
    "minus infinity": (lambda x: x == -np.inf, 1.0, "-inf"),
    "minus zero": (lambda x: (x == 0) & np.signbit(x), 1.0, "-0.0"),
    "zero": (lambda x: (x == 0) & ~np.signbit(x), 1.0, "0.0"),
    "smallest subnormal": (lambda x: x == SUBNORMAL32, 1.0, "1e-45"),
    "subnormals": (lambda x: (x != 0) & (np.abs(x) < np.finfo(np.float32).smallest_normal), 1.0, "1e-45"),
    "kink": (lambda x: x == 6, 5.0, "6.0"),
    "largest": (lambda x: x == MAX32, np.inf, "3.4028235e+38"),
    "smallest normal": (lambda x: x == np.finfo(np.float32).smallest_normal, 1.0, "1.1754944e-38"),
}


@pytest.mark.parametrize("name", VALUES)
def test_a_fault_at_one_value_is_found_there_alone(name):
    d = neuron("reLUN")
    where, wrong, value = VALUES[name]

    def faulty(x):
        return np.where(where(x), np.float32(wrong), right(d, x))

    found = failures_of(faulty, d, **SINGLE)

    assert len(found) == 1
    (failure,) = found.values()
    assert (failure.x[0], failure.shape, failure.place) == (value, (1,), (0,))
    assert failure.got[0] == str(np.float32(wrong))
    assert failure.array == ""


@pytest.mark.parametrize("direction", ["forward", "gradient"])
@seldom("bits", [0x5555, 0x03FF, 0xB1C7, 0x4248, 0x7BFE], lambda bits: bits in (0x03FF, 0xB1C7), hex)
def test_a_fault_at_any_one_half_is_found_there(bits, direction):
    d = neuron("sigmoid")

    def faulty(x, *upstream):
        return np.where(x.view(np.uint16) == bits, np.float16(7), right(d, x, *upstream))

    failure = failures_of(faulty, d, direction=direction, formats=[F.float16], max_examples=3)["float16", "far"]

    assert (failure.x[2], failure.shape, failure.got[0]) == (f"0x{bits:04x}", (1,), "7.0")


@pytest.mark.parametrize("beside", [SUBNORMAL32, np.nextafter(np.finfo(np.float32).smallest_normal, np.float32(0))])
def test_the_ends_of_the_subnormal_numbers_are_tried_at_once(beside):
    d = neuron("sigmoid")

    found = failures_of(lambda x: np.where(x == beside, np.float32(7), right(d, x)), d, **SINGLE | {"max_examples": 5})

    assert found["float32", "far"].x[0] == str(beside)


def test_an_implementation_that_depends_on_chance_is_told_so():
    rng, d = np.random.default_rng(5), neuron("absolute")
    calls = iter(range(10**6))
    for function in (
        lambda x: (right(d, x) + (rng.random() < 0.2)).astype(x.dtype),
        lambda x: (right(d, x) + (next(calls) == 7)).astype(x.dtype),
    ):
        for failure in failures_of(function, d, **SINGLE).values():
            assert failure.why == "called again with the same array, the implementation gives something else"


def test_a_fault_midway_between_two_halves_is_found():
    d = neuron("absolute")

    def midway(x):
        return (x.view(np.uint32) & 0x1FFF) == 0x1000

    found = failures_of(lambda x: np.where(midway(x), np.float32(-1), np.abs(x)), d, **SINGLE)

    failure = found["float32", "far"]
    assert midway(np.array([np.float32(failure.x[0])])).all()
    assert len(failure.x[0]) <= len("1.00048828125")
    assert failure.shape == (1,)


def test_the_slope_at_a_kink_is_found_and_explained():
    d = neuron("reLU")

    def literal(x, upstream):
        return np.where(np.isnan(x), x, np.where(x > 0, upstream, upstream * 0))

    found = failures_of(literal, d, direction="gradient", formats=[F.float16])

    failure = found["float16", "vanished"]
    assert (failure.x[0], failure.upstream[0], failure.want[0]) == ("0.0", "1.0", "1.0")
    assert failure.why.startswith("another slope at the kink")


def test_a_fault_that_needs_an_upstream_gradient_says_which():
    d = neuron("absolute")

    def forgets(x, upstream):
        return np.where(np.abs(upstream) > 100, np.float32(3), right(d, x, upstream))

    for failure in failures_of(forgets, d, direction="gradient", **SINGLE).values():
        assert abs(float(failure.upstream[0])) > 100
        assert len(failure.upstream[0]) <= 7 or failure.kind == "NaN lost"


def test_several_ways_of_failing_are_told_apart():
    def literal(x):
        return np.log(1 + np.exp(x))

    found = failures_of(literal, neuron("softPlus"), formats=[F.float32])

    assert [kind for _, kind in found] == ["infinity", "flushed", "vanished", "far"]
    infinity = found["float32", "infinity"]
    assert (infinity.x, infinity.got[0], infinity.want[0]) == (("89.0", "0x1.64p+6", "0x42b20000"), "inf", "89.0")
    assert infinity.why == "an intermediate of the formula overflows, as metal-precise arithmetic may"
    assert found["float32", "vanished"].x[0] == "-17.0"
    assert found["float32", "far"].why == "within what metal-precise arithmetic allows the formula"


# ---- faults of place and length ----


@pytest.mark.parametrize("length", [1, 3, 9])
def test_the_tail_of_a_vector_is_shrunk_to_the_shortest_array(length):
    def tail(x):
        y = np.abs(x)
        if len(x) >= length and len(x) % 4 == length % 4:
            y[-1] = -2
        return y

    failure = failures_of(tail, neuron("absolute"), **SINGLE)["float32", "far"]

    assert (failure.shape, failure.place, failure.x[0]) == ((length,), (length - 1,), "1.0")


def test_a_fault_that_needs_any_company_says_so():
    def pairs(x):
        return np.where((x > 100) & (len(x) > 1), np.float32(-1), np.abs(x))

    failure = failures_of(pairs, neuron("absolute"), **SINGLE)["float32", "far"]

    assert (failure.x[0], failure.shape, failure.array) == ("101.0", (2,), "[101., 101.]")
    assert any("and in no single element: [101., 101.]" in line for line in failure.lines())


def test_a_fault_that_needs_its_neighbours_keeps_them():
    def mixes(x):
        y = np.abs(x)
        if np.any(x > 0) and np.any(x < 0):
            y[np.argmax(x > 0)] = 9
        return y

    failure = failures_of(mixes, neuron("absolute"), **SINGLE)["float32", "far"]

    assert failure.shape == (2,)
    assert failure.array in {"[-1., 1.]", "[ 1., -1.]"}


def test_a_slope_for_each_channel():
    d = mps.MPSNNNeuronDescriptor(T.pReLU, data=[0.5, 0.25, -1.0])

    assert check_implementation(lambda x: right(d, x), d, bounds="exact", **SINGLE).passed
    slopes = np.float32([0.5, 0.25, 0.25])
    failure = failures_of(lambda x: np.where(x >= 0, x, slopes * x), d, **SINGLE)["float32", "far"]
    assert (failure.shape, failure.place) == ((1, 3), (0, 2))


@pytest.mark.parametrize("limit", [2**16, 2**17])
def test_an_index_that_wraps_is_found_in_large_arrays(limit):
    d = neuron("absolute")

    found = failures_of(lambda x: right(d, x)[np.arange(len(x)) % limit], d, formats="float32", max_examples=5)

    assert min(failure.place[0] for failure in found.values()) >= limit
    assert all(f"of [{failure.place[0] + 1}]" in "".join(failure.lines()) for failure in found.values())
    assert {failure.why for failure in found.values()} == {LONG_ARRAYS}


def test_a_few_lengths_are_tried():
    lengths = set()
    check_implementation(lambda x: lengths.add(x.shape) or np.abs(x), neuron("absolute"), max_examples=60)

    assert len(lengths) <= 13
    assert {length % 4 for (length, *_) in lengths} == {0, 1, 2, 3}
    assert max(lengths)[0] > 2**17


# ---- views ----


def dense(x):
    """What a kernel reads that takes the first element and the shape of an array, and nothing else."""
    steps = [x.itemsize * int(np.prod(x.shape[k + 1 :])) for k in range(x.ndim)]
    return np.ascontiguousarray(np.lib.stride_tricks.as_strided(x, x.shape, steps))


@pytest.mark.parametrize("direction", ["forward", "gradient"])
def test_a_kernel_that_ignores_strides_is_found(direction):
    d = neuron("geLU")

    found = failures_of(lambda *arrays: right(d, *map(dense, arrays)), d, direction=direction, **SINGLE)

    assert list(found) == [("float32", "view")]
    failure = found["float32", "view"]
    assert failure.why.startswith("sliced, reversed, broadcast and transposed arrays: right for a copy of the view")
    assert failure.shape == (2,)
    assert failure.array.startswith("sliced [")


def test_a_kernel_that_ignores_where_a_view_begins_is_found():
    d = neuron("softSign")

    def from_the_base(x):
        base = x if x.base is None else x.base
        return right(d, base.reshape(-1)[: x.size].reshape(x.shape) if base.size > 2 * x.size else x)

    assert "offset" in failures_of(from_the_base, d, **SINGLE)["float32", "view"].why


def test_other_code_for_a_view_is_not_said_to_ignore_strides():
    d = neuron("tanH")

    def two_paths(x):
        return right(d, x) * np.float32(1 if x.flags.c_contiguous else 1 + 1e-6)

    failure = failures_of(two_paths, d, **SINGLE)["float32", "view"]

    assert failure.why.startswith("sliced, reversed, broadcast and transposed arrays: a copy of the view gives nearly")
    assert failure.is_allowed


def test_one_slope_for_each_channel_is_attacked_with_views_too():
    d = mps.MPSNNNeuronDescriptor(T.pReLU, data=[0.5, 0.25, -1.0])

    failure = failures_of(lambda x: right(d, dense(x)), d, **SINGLE)["float32", "view"]

    assert failure.shape[1] == 3


def test_views_that_are_refused_are_named_and_no_failure():
    d = neuron("absolute")

    def picky(x):
        if x.ndim > 1 or x.strides[0] < 0:
            raise ValueError("only what I like")
        return np.abs(x)

    report = check_implementation(picky, d, **SINGLE)

    assert report.passed
    assert report.refused == dict.fromkeys(("reversed", "transposed"), "ValueError: only what I like")
    assert "reversed arrays are refused: ValueError: only what I like" in report.text()
    # One that flattens what it gets takes no arrays of two dimensions.
    assert list(check_implementation(lambda x: np.abs(x).ravel(), d, **SINGLE).refused) == ["transposed"]


# ---- what arithmetic allows, and what it does not ----


def test_gross_failures_come_first_and_apart():
    d = neuron("softPlus")

    def literal(x):
        return np.log(1 + np.exp(x))

    def one_too(x):
        return np.where((x > -30) & (x < -20), np.float32(1), literal(x))

    benign = failures_of(literal, d, **SINGLE)
    with pytest.raises(mps.VerificationError) as raised:
        check_implementation(one_too, d, **SINGLE)

    assert all(failure.is_allowed for failure in benign.values())
    first, *others = raised.value.report.failures
    assert (first.kind, first.is_allowed, first.got[0]) == ("far", False, "1.0")
    assert -30 < float(first.x[0]) < -20
    assert all(failure.is_allowed for failure in others)
    assert len(others) == len(benign)
    assert "of which arithmetic allows 4" in raised.value.report.verdict


@pytest.mark.parametrize(("low", "high"), [(0.44, 0.45), (-3.03, -3.0), (1e-4, 1.02e-4)])
def test_an_error_of_one_percent_on_a_narrow_interval_is_found(low, high):
    d = neuron("sigmoid")

    def faulty(x):
        y = right(d, x)
        return np.where((x > low) & (x < high), y * np.float32(1.01), y)

    found = failures_of(faulty, d, formats="float32", max_examples=5)

    assert low < float(found["float32", "far"].x[0]) < high


@seldom("format", ["float32", "float16"], lambda name: name == "float32")
def test_one_hypothesis_is_named_over_all_kinds(format):
    d = neuron("softSign")

    def from_result(x, upstream):
        y = right(d, x)
        return (upstream * (1 - np.abs(y)) ** 2).astype(x.dtype)

    found = failures_of(from_result, d, direction="gradient", formats=format, max_examples=20)

    gross = [failure for failure in found.values() if not failure.is_allowed]
    assert gross
    assert {failure.why for failure in gross} == {gross[0].why}
    said = re.match(r"the slope from the stored result, which explains (\d[\d,]*) of (\d[\d,]*): ", gross[0].why)
    assert said
    explained, of = (int(number.replace(",", "")) for number in said.groups())
    # Noise of half may leave an element.
    assert explained >= of - 1


def half_gelu(x):
    return x / 2 * (1 + np.tanh(np.float32(0.7978845608) * (x + np.float32(0.044715) * x**3)))


BECAUSE = {
    "approximation": (half_gelu, neuron("geLU"), "an approximation of geLU, x/2 (1 + tanh"),
    "parameter": (
        lambda x: right(neuron("ELU", a=1.5), x), neuron("ELU", a=1.0), "another value of a parameter, a = 1.5",
    ),
    "default": (lambda x: right(neuron("tanH"), x), neuron("tanH", b=0.5), "a parameter at its default, b = 1.0"),
    "interval": (
        lambda x: right(neuron("sigmoid"), x) * np.where((x > 0.44) & (x < 0.45), np.float32(1.01), np.float32(1)),
        neuron("sigmoid"), "multiplied by a number, by 1.01",
    ),
    "constant": (
        lambda x: np.where((x > -30) & (x < -20), np.float32(1), right(neuron("softPlus"), x)),
        neuron("softPlus"), "1.0 where another value belongs, only where -29",
    ),
    "another": (lambda x: np.maximum(x, 0), neuron("reLUN"), "another neuron, reLU"),
}  # fmt: skip


@pytest.mark.parametrize("name", BECAUSE)
def test_what_explains_the_simplest_input_is_named(name):
    function, d, cause = BECAUSE[name]

    found = failures_of(function, d, formats="float32", max_examples=10)

    gross = [failure for failure in found.values() if not failure.is_allowed]
    assert gross
    assert all(failure.why.startswith(cause) for failure in gross)


NO_CAUSE = {
    "noise": (lambda y, x: y * (1 + np.float32(1e-3) * np.sin(x.view(np.uint32) % 1000).astype(np.float32)), "sigmoid"),
    "here and there": (lambda y, x: np.where(x.view(np.uint32) % 97 == 0, np.float32(0.7) * y, y), "sigmoid"),
    "alike where x is tiny": (lambda y, x: y + np.exp(-np.square(x - 1)) * np.float32(0.01), "softPlus"),
    "one value": (lambda y, x: np.where(x == 2.5, np.float32(9), y), "geLU"),
}


@pytest.mark.parametrize("name", NO_CAUSE)
def test_nothing_is_named_that_is_not_there(name):
    wrong, neuron_type = NO_CAUSE[name]
    d = neuron(neuron_type)

    found = failures_of(lambda x: wrong(right(d, x), x), d, formats="float32", max_examples=20)

    assert {failure.why for failure in found.values() if not failure.is_allowed} == {""}


def test_models_are_asked_of_few_of_the_elements_that_fail(monkeypatch):
    asked, judge = [], subject.neuron_judge
    monkeypatch.setattr(
        subject, "neuron_judge", lambda *given: lambda index: asked.append(index.size) or judge(*given)(index)
    )

    found = failures_of(lambda x, u: right(neuron("tanH"), u, x), neuron("tanH"), direction="gradient", **SINGLE)

    assert sum(failure.count for failure in found.values()) > 300_000
    assert sum(asked) < 60_000
    assert len(asked) < 300


def test_no_arrangement_of_a_texture_is_named_for_arrays():
    d = neuron("absolute")

    def swapped(x):
        y = right(d, x).copy()
        n = len(y) // 4 * 4
        y[:n] = y[:n].reshape(-1, 4)[:, [2, 1, 0, 3]].reshape(y[:n].shape)
        return y

    for failure in failures_of(swapped, d, formats="float32", max_examples=5).values():
        assert "lanes" not in failure.why
        assert "texture" not in failure.why


def test_an_error_of_the_users_own_function_keeps_its_traceback():
    def inner(x):
        raise ZeroDivisionError("mine")

    with pytest.raises(mps.ImplementationError, match="raised ZeroDivisionError: mine") as raised:
        check_implementation(lambda x: inner(x) + 1, neuron("absolute"), **SINGLE)

    cause = raised.value.__cause__
    assert isinstance(cause, ZeroDivisionError)
    assert traceback.extract_tb(cause.__traceback__)[-1].name == "inner"


@pytest.mark.parametrize("formats", ["float16", np.float16, np.dtype("f2"), F.float16, ["float16"], [np.float16]])
def test_formats_may_be_names_or_dtypes(formats):
    assert check_implementation(np.abs, neuron("absolute"), formats=formats, max_examples=2).formats == ("float16",)


# ---- runs ----


def test_the_same_attack_is_made_again_and_a_seed_makes_another():
    def seen(**given):
        arrays = []
        check_implementation(lambda x: arrays.append(x.tobytes()) or np.abs(x), neuron("absolute"), **SINGLE, **given)
        return arrays

    assert seen() == seen()
    assert seen(seed=1) == seen(seed=1)
    assert seen(seed=1) != seen(seed=2)


def test_a_profile_says_how_many_arrays_and_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = hypothesis.settings().max_examples
    hypothesis.settings.register_profile("theirs", max_examples=7, phases=[hypothesis.Phase.explicit])
    hypothesis.settings.load_profile("theirs")
    try:
        report = check_implementation(np.abs, neuron("absolute"), formats=[F.float16])
    finally:
        hypothesis.settings.load_profile("default")

    assert report.arrays == 7 + OTHERS
    assert hypothesis.settings().max_examples == before
    assert not list(tmp_path.iterdir())


@hypothesis.given(hypothesis.strategies.sampled_from([0.25, 0.5]))
@hypothesis.settings(max_examples=2, deadline=None, suppress_health_check=list(hypothesis.HealthCheck))
def test_it_works_within_a_test_of_hypothesis(a):
    d = neuron("reLU", a=a)

    assert check_implementation(lambda x: right(d, x), d, max_examples=3).passed


def test_the_report_says_all_of_it():
    d = neuron("softSign")

    with pytest.raises(AssertionError) as raised:
        check_implementation(lambda x: x / (1 + np.abs(x)), d, formats=[F.float16], max_examples=30, name="mine")

    lines = str(raised.value).splitlines()
    assert lines[0].startswith("mine: FAIL: in 1 way, of ")
    assert lines[1] == "forward; bounds: 4 ULP"
    assert lines[3].startswith("float16: NaN where a number is right, ")
    assert lines[4:9] == [
        "  x     inf  inf       0x7c00",
        "  got   nan  nan       0xfe00",
        "  want  1.0  0x1.0p+0  0x3c00",
        "  not comparable; MPSNNNeuronDescriptor(MPSCNNNeuronType.softSign)",
        "  why: an infinite input makes an operation invalid, as metal-precise arithmetic may",
    ]
    assert lines[9:11] == ["", "first found in:"]
    assert lines[11].startswith("  float16, array [")
    report = raised.value.report
    assert pickle.loads(pickle.dumps(raised.value)).report == report  # noqa: S301  as xdist sends it
    assert json.loads(json.dumps(report.to_json()))["failures"][0]["kind"] == "NaN"


def test_an_array_that_shows_several_failures_is_reported_once():
    def naive(x):
        with np.errstate(all="ignore"):
            e = np.exp(2 * x)
            return (e - 1) / (e + 1)

    with pytest.raises(AssertionError) as raised:
        check_implementation(naive, neuron("tanH"), **SINGLE)

    arrays = {failure.comparison for failure in raised.value.report.failures}
    assert len(raised.value.report.failures) > len(arrays)
    assert str(raised.value).count("first found in:") == len(arrays)


def test_an_implementation_may_write_to_its_arguments_and_be_given_by_name():
    assert check_implementation("implementations:in_place", neuron("absolute"), bounds="exact", **SINGLE).passed
    for name, message in (("raises", "no way"), ("widens", "it must be like x"), ("missing", "is not in")):
        with pytest.raises(mps.ImplementationError, match=message):
            check_implementation(f"implementations:{name}", neuron("absolute"), **SINGLE)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"direction": "backward"}, "direction is 'backward'"),
        ({"formats": []}, "formats is empty"),
        ({"formats": None}, "formats is None: choose one of"),
        ({"formats": "float17"}, "formats is 'float17': choose one of"),
        ({"formats": "unorm8"}, "formats is 'unorm8': choose one of float16, float32, bfloat16"),
        ({"formats": [F.unorm8]}, "formats is .*unorm8"),
        ({"max_examples": 0}, "max_examples is 0"),
        ({"max_examples": 1.5}, "max_examples is 1.5: give an integer"),
        ({"max_examples": "3"}, "max_examples is '3'"),
        ({"seed": "x"}, "seed is 'x'"),
        ({"seed": [1]}, r"seed is \[1\]"),
        ({"neuron": hypothesis.strategies.just(7)}, "what the strategy gives as neuron is a int"),
        ({"bounds": "exact", "ulp": 1}, "give one or the other"),
        ({"neuron": "tanHH"}, "neuron is 'tanHH': choose one of"),
    ],
)
def test_bad_arguments_are_refused(given, message):
    with pytest.raises(mps.MPSRefError, match=message):
        check_implementation(np.abs, **{"neuron": neuron("absolute"), **given})


def test_importing_the_comparisons_does_not_bring_hypothesis():
    code = "import sys, mpsref.testing; print('hypothesis' in sys.modules, 'mpsref.testing.gradient' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)

    assert done.stdout == "False False\n"
