"""Comparisons in people's own tests, and the pytest plugin as its users run it."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path

import jsonschema
import numpy as np
import pytest

import mpsref as mps
from mpsref.documents import schema
from mpsref.testing import Comparison, Tolerances, assert_close, compare, resolved
from mpsref.verify import Bounds, Tolerance

ROOT = Path(__file__).parents[2]
pytest_plugins = ["pytester"]


def up(array, steps):
    """The number so many ULP further; the bits are those of an array of positive numbers."""
    return (array.view(f"u{array.itemsize}") + np.asarray(steps, f"u{array.itemsize}")).view(array.dtype)


# ---- what passes ----


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_the_default_is_four_ulp(dtype):
    x = np.array([1.0, 2.0, 3.0], dtype)

    assert_close(up(x, [0, 4, 1]), x)
    with pytest.raises(mps.VerificationError) as raised:
        assert_close(up(x, [0, 5, 1]), x)
    assert raised.value.report.counts.beyond == 1


@pytest.mark.parametrize(
    ("bounds", "steps", "passes"),
    [
        ({"bounds": "exact"}, 0, True),
        ({"bounds": "exact"}, 1, False),
        ({"bounds": "ulp=2"}, 2, True),
        ({"bounds": "ulp=2"}, 3, False),
        ({"bounds": Tolerance(7)}, 7, True),
        ({"bounds": Tolerance(7)}, 8, False),
        ({"ulp": 3}, 3, True),
        ({"ulp": 3}, 4, False),
        ({"rtol": 1e-3}, 8192, True),
        ({"rtol": 1e-3}, 8400, False),
        ({"atol": 1e-3}, 8192, True),
        ({"ulp": 1, "atol": 1e-9}, 2, False),
    ],
)
def test_the_bounds_decide(bounds, steps, passes):
    one = np.ones(3, np.float32)

    assert compare(up(one, [0, steps, 0]), one, **bounds).passed is passes


@pytest.mark.parametrize("bounds", ["", "ulp", "ulp=", "ulp=-1", "ulp=1.5", "metal", 4, ["exact"]])
def test_unknown_bounds_are_refused(bounds):
    with pytest.raises(mps.ParameterError, match=r"choose one of metal-.*, exact, ulp=N|give a Tolerance, or the name"):
        resolved(bounds)


def test_bounds_are_given_once():
    for numbers in ({"ulp": 0}, {"rtol": 0.1}, {"atol": 0.0}):
        with pytest.raises(mps.ParameterError, match="give one or the other"):
            compare([1.0], [1.0], bounds="exact", **numbers)
    with pytest.raises(mps.ParameterError, match="max_mismatches is -1"):
        compare([1.0], [1.0], max_mismatches=-1)


# ---- what a model of a device's arithmetic allows ----


def literal_softplus(x):
    with np.errstate(over="ignore"):
        return np.log(np.float32(1) + np.exp(x))


def test_a_model_judges_a_neuron_by_what_it_read():
    d = mps.MPSNNNeuronDescriptor(mps.MPSCNNNeuronType.softPlus)
    x = np.linspace(-20, 95, 461, dtype=np.float32)
    y, ideal = literal_softplus(x), mps.neuron.forward(d, x)
    assert not compare(y, ideal, ulp=1000).passed

    assert not compare(y, ideal, bounds="metal-fast", neuron=d, x=x).passed

    found = compare(y, ideal, bounds=Bounds("metal-fast", allow=("overflow",)), neuron=d, x=x)

    assert found.passed
    assert found.counts.excused == {"overflow": int(np.count_nonzero(np.isinf(y)))}
    assert "26 excused: an intermediate of the formula overflows" in found.text()
    assert "bounds: what metal-fast arithmetic allows each formula; excused: overflow; float32[461]" in found.text()
    jsonschema.Draft202012Validator(schema("comparison")).validate(json.loads(json.dumps(found.to_json())))
    y[230] *= np.float32(1.00001)
    with pytest.raises(mps.VerificationError, match="1 of 461 elements"):
        assert_close(y, ideal, bounds=Bounds("metal-precise", allow=["overflow"]), neuron=d, x=x)


def test_a_model_judges_a_gradient_by_both_that_it_read():
    d = mps.MPSNNNeuronDescriptor(mps.MPSCNNNeuronType.pReLU, data=[0.1, 0.7, -0.3])
    rng = np.random.default_rng(1)
    x, dy = rng.normal(size=(2, 4, 5, 3)).astype(np.float16)
    ideal = mps.neuron.gradient(d, x, dy)
    # One ULP passes anywhere; what is farther is judged by the slope of its channel and the gradient that came in.
    sure = {"bounds": "metal-precise", "neuron": d}

    assert compare(ideal, ideal + np.float16(1), **sure, x=x, upstream=dy).passed
    assert not compare(ideal, ideal + np.float16(1), **sure, x=x, upstream=dy[::-1].copy()).passed
    assert not compare(ideal, ideal + np.float16(1), **sure, x=x[..., ::-1].copy(), upstream=dy).passed
    assert not compare(ideal, ideal + np.float16(1), **sure, x=x).passed


def test_a_model_without_a_neuron_is_refused():
    x, d = np.ones(3, np.float32), mps.MPSNNNeuronDescriptor(mps.MPSCNNNeuronType.pReLU, data=[1.0, 2.0])
    tanh = mps.MPSNNNeuronDescriptor(mps.MPSCNNNeuronType.tanH)

    for given in ({}, {"neuron": tanh}, {"x": x}):
        with pytest.raises(mps.ParameterError, match="'metal-half', which are of a neuron: give neuron=descriptor"):
            assert_close(x, x, bounds="metal-half", **given)
    with pytest.raises(mps.ParameterError, match="actual is float64"):
        compare(np.ones(3), np.ones(3), bounds="metal-half", neuron=tanh, x=np.ones(3))
    with pytest.raises(mps.ImageError, match=r"upstream is of shape \[2\]: it must be that of actual, \[3\]"):
        compare(x, x, bounds="metal-half", neuron=tanh, x=x, upstream=x[:2])
    with pytest.raises(mps.ParameterError, match="2 slopes"):
        compare(x, x, bounds="metal-half", neuron=d, x=x)
    with pytest.raises(mps.ParameterError, match="neuron is 'tanHH'"):
        compare(x, x, bounds="metal-half", neuron="tanHH", x=x)


def test_some_mismatches_may_be_allowed():
    x = np.ones(10, np.float16)
    y = up(x, [9, 9, *[0] * 8])

    with pytest.raises(AssertionError, match=r"2 of 10 elements \(20 %\) are beyond the bounds; 1 may be"):
        assert_close(y, x, max_mismatches=1)
    found = compare(y, x, max_mismatches=2)
    assert found.passed
    assert found.verdict == "PASS: 2 of 10 elements (20 %) are beyond the bounds; 2 may be"


def test_nan_equals_nan_and_infinities_only_themselves():
    special = np.float32([np.nan, np.inf, -np.inf, 0.0])

    assert_close(special, np.float32([np.nan, np.inf, -np.inf, -0.0]), bounds="exact")
    found = compare(special, np.float32([1, 3e38, np.inf, np.nan]), rtol=1e30)
    assert (found.counts.nan_disagreements, found.counts.infinity_disagreements, found.counts.beyond) == (2, 2, 4)
    assert found.histogram == {}


# ---- what is said ----


def test_the_message_says_how_many_where_and_how_far():
    want = np.ones((2, 3), np.float32)
    got = want.copy()
    got[1, 2], got[0, 1], got[0, 0] = 1.5, np.nan, np.nextafter(np.float32(1), np.float32(2))

    with pytest.raises(mps.VerificationError) as raised:
        assert_close(got, want, name="softPlus", ulp=1)

    assert str(raised.value).splitlines() == [
        "softPlus: FAIL: 2 of 6 elements (33.3 %) are beyond the bounds",
        "bounds: 1 ULP; float32[2, 3]",
        "the worst:",
        "  [0, 1]: got nan, want 1.0, not comparable",
        "  [1, 2]: got 1.5, want 1.0, 4,194,304 ULP",
        "ULP           elements      share",
        "0                    3  50.0000 %",
        "1                    1  66.6667 %",
        "<= 4,194,304         1  83.3333 %",
        "NaN                  1",
    ]
    report = raised.value.report
    assert isinstance(report, Comparison)
    assert report.worst[2].ulp == 1
    assert not report.worst[2].beyond
    again = pickle.loads(pickle.dumps(raised.value))  # noqa: S301  as xdist sends it
    assert again.report == report
    jsonschema.Draft202012Validator(schema("comparison")).validate(json.loads(json.dumps(report.to_json())))


def test_the_worst_elements_show_what_was_read():
    x, dy = np.float32([[1, 2], [3, 4]]), np.float16([[5, 6], [7, 8]])
    wrong = x + np.float32([[0, 0], [0, 1]])

    assert "  [1, 1] x = 4.0: got 5.0, want 4.0, " in compare(wrong, x, x=x).text()
    report = compare(wrong, x, x=x, upstream=dy)
    assert "  [1, 1] upstream = 8.0, x = 4.0: got 5.0" in report.text()
    assert (report.worst[0].x, report.worst[0].upstream) == ("4.0", "8.0")
    jsonschema.Draft202012Validator(schema("comparison")).validate(report.to_json())
    assert ">4.0<" in report._repr_html_()
    with pytest.raises(mps.ImageError, match=r"x is of shape \[2\]"):
        compare(wrong, x, x=[1, 2])


def test_a_name_cannot_pass_for_another_line():
    assert compare([1.0], [2.0], name="x\nPASS: all").text().startswith("x\\nPASS: all: FAIL")


# ---- what can be compared ----


class DLPackOnly:
    def __init__(self, array):
        self._array = array

    def __dlpack__(self, **options):
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self._array.__dlpack_device__()


class Tensor:
    """Like one of torch: numpy gets it only without its gradient, and from the processor's memory."""

    dtype = "tensor's own"

    def __init__(self, array, ready=()):
        self._array, self._ready = array, ready

    def detach(self):
        return Tensor(self._array, (*self._ready, "detach"))

    def cpu(self):
        return Tensor(self._array, (*self._ready, "cpu"))

    def __array__(self, dtype=None, copy=None):
        if self._ready != ("detach", "cpu"):
            raise RuntimeError("not yet")
        return self._array


@pytest.mark.parametrize("wrap", [DLPackOnly, Tensor, np.array, lambda x: x[::1]])
def test_all_that_is_an_array_can_be_compared(wrap):
    x = np.float32([1, 2, 3])

    assert_close(wrap(x), x, bounds="exact")
    assert not compare(x, wrap(x + 1), bounds="exact").passed


def test_images_and_codes_can_be_compared():
    image = mps.MPSImage.from_array(np.arange(6).reshape(1, 2, 3) / 6, mps.MPSImageFeatureChannelFormat.unorm8)
    codes = image.to_array()
    assert compare(image, codes, bounds="exact").storage == "unorm8"

    found = compare(codes + np.uint8([0, 0, 3]), image, ulp=2)
    assert (found.counts.beyond, found.counts.largest) == (2, 3)
    assert found.worst[0].place == (0, 0, 0, 2)


def test_torch_tensors_can_be_compared():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    x = torch.tensor([1.0, 2.0], requires_grad=True)

    assert_close(x, np.float32([1, 2]), bounds="exact")
    assert compare(x.bfloat16(), x.bfloat16() * 1, bounds="exact").storage == "bfloat16"
    with pytest.raises(mps.ImageError, match="actual is a Tensor, of which numpy makes no array"):
        compare(x.to_sparse(), [1.0, 2.0])


def test_what_has_no_dtype_takes_that_of_actual():
    assert compare(np.float16([0.1]), [0.1], bounds="exact").passed
    assert compare(np.float16(0.1), 0.1, bounds="exact").passed


def test_strides_and_nothing_at_all_can_be_compared():
    x = np.arange(12, dtype=np.float32).reshape(3, 4)

    assert_close(x.T[::2], x.copy().T[::2], bounds="exact")
    assert compare(np.empty((0, 3), np.float32), np.empty((0, 3), np.float32)).verdict == (
        "PASS: all 0 elements are within bounds"
    )


@pytest.mark.parametrize(
    ("actual", "expected", "words"),
    [
        (np.ones(3, np.float32), np.ones(4, np.float32), r"float32[3], but float32[4] is expected"),
        (np.ones(3, np.float32), np.ones((3, 1), np.float32), r"float32[3], but float32[3, 1] is expected"),
        (np.ones(3, np.float32), np.ones(3), r"float32[3], but float64[3] is expected"),
        (np.ones(3, np.int32), np.ones(3, np.int32), "dtype int32"),
        (np.ones(3, np.uint32), np.ones(3, np.uint32), "dtype uint32"),
        (np.ones(3, ">f4"), np.ones(3, ">f4"), "native byte order"),
    ],
)
def test_what_cannot_be_compared_fails_the_assertion(actual, expected, words):
    with pytest.raises(mps.ImageError, match=re.escape(words)):
        compare(actual, expected)
    with pytest.raises(mps.VerificationError, match=re.escape(words)) as raised:
        assert_close(actual, expected)
    assert raised.value.report is None


# ---- tolerance files ----


def test_the_first_pattern_that_fits_decides(tmp_path):
    path = tmp_path / "t.json"
    tests = {"soft*": {"ulp": 2}, "*test_b*": {"rtol": 0.5}, "softPlus": {"bounds": "exact"}}
    tests["ELU"] = {"bounds": "metal-half", "allow": ["order"], "strict": True}
    document = {"format": "mpsref-tolerances", "version": 1, "default": {"bounds": "ulp=9"}, "tests": tests}
    path.write_text(json.dumps(document))
    jsonschema.Draft202012Validator(schema("tolerances")).validate(document)
    found = Tolerances.read(path)

    assert found.of("softPlus", "t.py::test_b") == Tolerance(2)
    assert found.of("tanH", "t.py::test_b[1]") == Tolerance(rtol=0.5)
    assert found.of("tanH", "t.py::test_a") == Tolerance(9)
    assert found.of("ELU", "") == Bounds("metal-half", ("order",), strict=True)
    assert Tolerances().of("softPlus") is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tests": {"x": {"ulp": 1, "bounds": "exact"}}}, "x: bounds: stands beside ulp"),
        ({"default": {"bounds": "close"}}, "default: bounds are 'close'"),
        ({"default": {"ulps": 1}}, "ulps"),
        ({"default": {"bounds": "metal-fast", "allow": ["flush"]}}, "default: allow has 'flush'"),
        ({"tests": {"x": {"ulp": -1}}}, "tests.x.ulp"),
        ({"version": 2}, "version"),
    ],
)
def test_a_bad_tolerance_file_is_named(tmp_path, change, words):
    path = tmp_path / "t.json"
    path.write_text(json.dumps({"format": "mpsref-tolerances", "version": 1} | change))

    with pytest.raises(mps.FileFormatError, match=re.escape(words)) as raised:
        Tolerances.read(path)
    assert str(raised.value).startswith(f"{path}: ")


# ---- the plugin ----

TESTS = """
import numpy as np
import pytest

ONE = np.ones(4, np.float32)


def test_right(mpsref_compare):
    assert mpsref_compare(ONE, ONE, bounds="exact").passed


@pytest.mark.parametrize("name", ["a/b", "a:b"])
def test_wrong(mpsref_compare, name):
    mpsref_compare(ONE, ONE, name="before")
    mpsref_compare(ONE, ONE + np.float32([0, 0, 1e-6, 0]), name=name, max_mismatches=0)


def test_shape(mpsref_compare):
    mpsref_compare(ONE, ONE[:2])
"""


@pytest.fixture
def session(pytester, monkeypatch):
    """Run pytest as somebody else does who has installed mpsref, with warnings as errors."""
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    pytester.makepyfile(test_theirs=TESTS)
    pytester.makeini("[pytest]\nfilterwarnings = error\naddopts = --strict-config --strict-markers")

    def run(*arguments):
        return pytester.runpytest_subprocess("-p", "no:cacheprovider", *arguments)

    return run


def test_the_test_file_that_the_page_shows_passes(pytester, session):
    page = (ROOT / "docs" / "test.md").read_text()
    (code,) = re.findall(r"^```py\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    file = pytester.makepyfile(test_sigmoid=code)

    session("-p", "no:xdist", str(file)).assert_outcomes(passed=4)


def test_a_failure_has_a_section_with_all_comparisons(session):
    result = session()

    result.assert_outcomes(passed=1, failed=3)
    text = result.stdout.str()
    assert text.count("- Captured mpsref call -") == 4  # two of each test that failed
    assert text.count("before: PASS: all 4 elements are within bounds") == 2
    result.stdout.fnmatch_lines(
        [
            "E  *VerificationError: a/b: FAIL: 1 of 4 elements (25 %) is beyond the bounds",
            "*Captured mpsref call*",
            "a/b: FAIL: 1 of 4 elements (25 %) is beyond the bounds",
            "bounds: 4 ULP; float32[[]4]",
            "  [[]2]: got 1.0, want 1.000001, 8 ULP",
            "<= 8 * 1 *100.0000 %",
            "E  *VerificationError: actual is float32[[]4], but float32[[]2] is expected: make both alike",
        ]
    )


def test_a_tolerance_file_serves_where_the_test_gives_no_bounds(session, pytester):
    file = pytester.path / "t.json"
    entries = {"*test_wrong*": {"ulp": 8}}
    file.write_text(json.dumps({"format": "mpsref-tolerances", "version": 1, "tests": entries}))
    session("--mpsref-tolerance-file", str(file)).assert_outcomes(passed=3, failed=1)

    file.write_text(json.dumps({"format": "mpsref-tolerances", "version": 1, "tests": {"a:*": {"ulp": 8}}}))
    session("--mpsref-tolerance-file", str(file)).assert_outcomes(passed=2, failed=2)

    file.write_text("{}")
    result = session("--mpsref-tolerance-file", str(file), "-k", "right")
    result.assert_outcomes(errors=1)
    assert "t.json: format: missing" in result.stdout.str()


def test_reports_are_written_for_every_comparison(session, pytester):
    session("--mpsref-reports", "new/folder").assert_outcomes(passed=1, failed=3)

    reports = [json.loads(path.read_text()) for path in (pytester.path / "new" / "folder").iterdir()]
    assert sorted((r["name"], r["passed"]) for r in reports) == [
        ("a/b", False), ("a:b", False), ("actual", True), ("before", True), ("before", True)]  # fmt: skip
    for report in reports:
        jsonschema.Draft202012Validator(schema("comparison")).validate(report)


def test_pytest_starts_without_what_the_plugin_needs_later(pytester, session):
    pytester.makepyfile(
        test_theirs="""
import sys
def test():
    large = {name for name in sys.modules if name.startswith(("mpsref", "numpy"))}
    assert large == {"mpsref", "mpsref.pytest_plugin"}
"""
    )

    session("-p", "no:hypothesispytest").assert_outcomes(passed=1)


def test_the_plugin_can_be_left_out(session):
    result = session("-p", "no:pytest_mpsref", "--mpsref-reports", "folder")

    assert "unrecognized arguments: --mpsref-reports" in result.stderr.str()
