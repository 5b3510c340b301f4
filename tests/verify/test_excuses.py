"""What is within, excused and beyond; what refutes an excuse; and stores that do not round to nearest."""

from __future__ import annotations

import json

import jsonschema
import numpy as np
import pytest

import mpsref as mps
from device import NEVER, Device, evaluated
from mpsref.arrays import Elements
from mpsref.cli import main
from mpsref.documents import schema
from mpsref.storage import FORMATS
from mpsref.verify import Bounds, Recording, Tolerance, Tolerances, verify, write_recording
from mpsref.verify.bias import signed_errors
from mpsref.verify.compare import compare
from mpsref.verify.html import page
from mpsref.verify.judge import neuron_judge
from mpsref.verify.models import MODELS
from mpsref.verify.reasons import BEYOND, EXCUSES, WITHIN, Reason

T = mps.MPSCNNNeuronType
Format = mps.MPSImageFeatureChannelFormat
HALF, SINGLE = FORMATS[Format.float16], FORMATS[Format.float32]
inf, nan = np.inf, np.nan


def recorded(folder, d, x, got, dy=None):
    """A recording of one node."""
    source, upstream = mps.MPSNNImageNode(handle="x"), mps.MPSNNImageNode(handle="dy")
    node = mps.MPSCNNNeuronNode(source=source, descriptor=d)
    if dy is not None:
        node = mps.MPSCNNNeuronGradientNode(
            source_gradient=upstream, source_image=source, gradient_state=node.result_state, descriptor=d
        )
    node.result_image.handle = "y"
    storage = Format.float16 if got.dtype == np.float16 else Format.float32
    arrays = {"x": x, "y": got} | ({} if dy is None else {"dy": dy})
    images = {name: mps.MPSImage.from_array(array.reshape(1, -1, 1)) for name, array in arrays.items()}
    return write_recording(folder, mps.GraphFile.from_results([node.result_image], storage), images, "made by hand")


def classes(d, x, got, model="metal-precise", dy=None, **options):
    """The reasons of all elements, in their order."""
    x, got = np.float32(x), np.float32(got)
    dy = None if dy is None else np.broadcast_to(np.float32(dy), x.shape).copy()
    want = mps.neuron.forward(d, x) if dy is None else mps.neuron.gradient(d, x, dy)
    read = None if dy is None else Elements(dy, SINGLE)
    judge = neuron_judge(d, MODELS[model], Elements(got, SINGLE), Elements(x, SINGLE), read)
    found = compare(got, want, SINGLE, judge, got.size, **options)
    out = np.zeros(got.size, int)
    out[found.worst] = found.reasons
    return out.tolist()


def neuron(name, *parameters):
    return mps.MPSNNNeuronDescriptor(T[name], *parameters)


# ---- kinds ----


@pytest.mark.parametrize(
    ("d", "x", "got", "model", "dy", "expected"),
    [
        # A comparison of the documented formula loses NaN in every model, a clamp only where NaN is undefined.
        (neuron("reLU", 0.1), nan, 0.2, "metal-precise", 2, Reason.nan),
        (neuron("reLU", 0.1), nan, 2, "metal-precise", 2, Reason.nan),
        (neuron("reLU", 0.1), nan, 7, "metal-precise", 2, BEYOND),
        (neuron("hardSigmoid"), nan, 0, "metal-precise", None, BEYOND),
        (neuron("hardSigmoid"), nan, 0, "metal-fast", None, Reason.nan),
        (neuron("reLU"), nan, 0, "metal-precise", None, BEYOND),
        (neuron("reLU"), nan, 0, "metal-fast", None, Reason.nan),
        # Infinite inputs: inf / inf, and 0 inf.
        (neuron("softSign"), inf, nan, "metal-precise", None, Reason.plus_inf),
        (neuron("softSign"), -inf, nan, "metal-precise", None, Reason.minus_inf),
        (neuron("softSign"), inf, 0.5, "metal-fast", None, BEYOND),
        (neuron("tanH"), -inf, nan, "metal-fast", None, Reason.minus_inf),
        (neuron("tanH"), inf, nan, "metal-precise", None, BEYOND),
        # exp2(0 log2(x)), where the logarithm is infinite.
        (neuron("power", 1, 0, 0), inf, nan, "metal-fast", None, Reason.plus_inf),
        (neuron("power", 1, 0, 0), 0, nan, "metal-fast", None, Reason.pole),
        (neuron("power", 1, 0, 0), 2, nan, "metal-fast", None, BEYOND),
        # Outside the domain.
        (neuron("logarithm"), -2, 0, "metal-fast", None, Reason.domain),
        (neuron("logarithm"), -2, 0, "metal-precise", None, BEYOND),
        (neuron("power", 1, 0, 0.5), -4, 2, "metal-fast", None, Reason.domain),
        # A pole has no sign for a device that ignores that of zeros.
        (neuron("logarithm"), 0, -inf, "metal-precise", 1, Reason.pole),
        # The formula is wrong, not the device; whoever reads it has a wrong number.
        (neuron("softPlus"), 100, inf, "metal-precise", None, Reason.overflow),
        (neuron("softPlus"), 100, nan, "metal-precise", 1, Reason.overflow),
        (neuron("softPlus"), 80, inf, "metal-precise", None, BEYOND),
        (neuron("tanH"), 60, nan, "metal-fast", None, Reason.overflow),
        (neuron("tanH"), -60, nan, "metal-fast", None, Reason.overflow),
        # Where the exact value nearly overflows, so may the result.
        (neuron("exponential"), np.float32(88.72283), inf, "metal-fast", None, Reason.store),
        # Flushed, and what comes of it.
        (neuron("exponential"), -90, 0, "metal-precise", None, Reason.flush),
        (neuron("absolute"), -1e-40, -1e-40, "metal-precise", None, Reason.flush),
        (neuron("absolute"), -1e-37, -1e-37, "metal-precise", None, BEYOND),
        (neuron("logarithm"), 1e-40, -inf, "metal-precise", None, Reason.flush),
        # A negative subnormal may become a zero of either sign; and 1 / x overflows.
        (neuron("logarithm"), -(2.0**-128), -inf, "metal-precise", 0.5, Reason.flush),
        (neuron("logarithm"), -(2.0**-128), inf, "metal-precise", 0.5, Reason.flush),
        (neuron("logarithm"), -(2.0**-128), nan, "metal-precise", 0, Reason.zero),
        (neuron("logarithm"), -(2.0**-128), nan, "metal-precise", 0.5, BEYOND),
        # From -inf to inf, times 0: NaN only at the ends.
        (neuron("power", -0.008660668, 2.6826282, 1e-9), 309.74857, -0.0, "metal-half", 0, Reason.zero),
    ],
)
def test_each_kind_has_its_class(d, x, got, model, dy, expected):
    assert classes(d, [x], [got], model, dy) == [expected]


@pytest.mark.parametrize("neuron_type", [t for t in mps.NEURONS if t is not T.none and not mps.NEURONS[t].per_channel])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_no_number_passes_where_nan_belongs(tmp_path, neuron_type, dtype):
    """For NaN in either source, and in both, next to numbers of every size; where the model defines NaN."""
    limits = np.finfo(dtype)
    numbers = dtype([1, -1, 0, 3, -20, 95, 1e-3, limits.smallest_subnormal, -limits.smallest_normal, 6e4, inf, -inf])
    values = np.repeat(dtype([0.0, -0.0, 1.0, -1.0, inf, -inf, limits.max]), numbers.size + 1)
    read, others = np.full_like(values, nan), np.resize(np.append(numbers, dtype(nan)), values.size)
    d = neuron("power", 1, 0, 2) if neuron_type is T.power else neuron(neuron_type.name)  # for NaN ^ 0 is 1
    for k, (x, dy) in enumerate([(read, None), (read, others), (others, read)]):
        want = mps.neuron.forward(d, x) if dy is None else mps.neuron.gradient(d, x, dy)
        path = recorded(tmp_path / str(k), d, x, np.where(np.isnan(want), values, want), dy)

        report = verify(path, "metal-precise", strict=True, faults=False)

        assert report.images[0].counts.beyond == np.count_nonzero(np.isnan(want))


@pytest.mark.parametrize("kept", ["dy", "x", "number"])
def test_nan_of_one_source_says_nothing_of_another(tmp_path, kept):
    """A tanh that clamps what it reads loses NaN, and the product with the incoming gradient keeps the NaN of that."""
    x = np.float16([nan, nan, 1, 1, nan, 0.5])
    dy = np.float16([1, 2, nan, 1, 3, 4])
    got = mps.neuron.gradient(neuron("tanH"), x, dy)
    got[[0, 1]] = 0
    if kept != "x":
        got[4] = 0
    if kept == "number":
        got[2], got[3] = 0, nan
    path = recorded(tmp_path / "r", neuron("tanH"), x, got, dy)

    counts = verify(path, "metal-fast", faults=False).images[0].counts

    # NaN where a number belongs is beyond, and is no NaN that the device kept.
    assert (counts.beyond, counts.excused) == {"dy": (0, {"nan": 3}), "x": (2, {}), "number": (1, {"nan": 4})}[kept]


def test_a_power_of_a_negative_base_keeps_its_sign_and_a_few_ulp():
    d = neuron("exponential", 1, 0, -2)

    assert classes(d, [3] * 4, [-7.9999986, 8, nan, -7.99]) == [WITHIN, BEYOND, BEYOND, BEYOND]
    # The exponent 1e-9 - 1 rounds to the integer -1.
    assert classes(neuron("power", 1, 0, 1e-9), [-2], [-5e-10], dy=1) == [Reason.zero]


def test_a_product_may_overflow_in_one_order_but_not_by_itself():
    d = neuron("tanH", 1.5, 0.75)

    # dy a b overflows, and times 1 - t t is infinite, or NaN where that is 0.
    assert classes(d, [-4.8, 1713], [inf, nan], dy=[3.4e38, 3.4e38]) == [Reason.order, Reason.order]
    assert classes(d, [-4.8, -4.8], [inf, 1e38], dy=[1e36, 3.4e38]) == [BEYOND, BEYOND]


def test_three_terms_may_be_added_in_any_order(tmp_path):
    x, y = mps.MPSNNImageNode(handle="x"), mps.MPSNNImageNode(handle="y")
    node = mps.MPSNNAdditionNode(left_source=x, right_source=y)
    node.bias, node.result_image.handle = 1.0, "s"
    arrays = {"x": np.float32([1e8, 1e8]), "y": np.float32([-1e8, -1e8]), "s": np.float32([0, 30])}
    images = {name: mps.MPSImage.from_array(array.reshape(1, 1, 2)) for name, array in arrays.items()}
    file = mps.GraphFile.from_results([node.result_image], Format.float32)

    (image,) = verify(write_recording(tmp_path / "r", file, images, "made by hand"), faults=False).images

    # 1e8 + (-1e8 + 1) is 0 in float32.
    assert (image.counts.exact, image.counts.within, image.counts.beyond) == (0, 1, 1)


def test_no_excuse_survives_a_nan_elsewhere_in_the_image():
    d = neuron("logarithm")
    zeros, keeps = ([0, 0, 0, 0.6931472], [0, nan, 0, 0.6931472])
    x = [-1, nan, -3, 2]

    assert classes(d, x, zeros, "metal-fast") == [Reason.domain, Reason.nan, Reason.domain, 0]
    assert classes(d, x, keeps, "metal-fast") == [BEYOND, 0, BEYOND, 0]
    assert classes(neuron("hardSigmoid"), [nan, nan], [0, nan], "metal-fast") == [BEYOND, 0]
    # A comparison loses NaN also where an incoming NaN is kept.
    assert classes(neuron("reLU", 0.5), [nan, 1], [0.5, nan], "metal-fast", [1, nan]) == [Reason.nan, 0]


def test_only_a_texture_may_store_nan_as_0():
    d = neuron("tanH")

    assert classes(d, [nan], [0]) == [BEYOND]
    assert classes(d, [nan], [0], is_texture=True) == [Reason.texture]
    assert classes(d, [nan, nan], [0, nan], is_texture=True) == [BEYOND, 0]


def test_unorm_is_judged_by_its_code():
    unorm, d = FORMATS[Format.unorm8], neuron("tanH")
    x = np.float32([nan, inf, -inf, nan, inf])
    got, want = np.uint8([0, 255, 0, 9, 253]), np.uint8([0, 255, 0, 0, 255])
    judge = neuron_judge(d, MODELS["metal-precise"], Elements(got, unorm), Elements(x, SINGLE))

    assert compare(got, want, unorm, judge).beyond.tolist() == [3, 4]


@pytest.mark.parametrize("model", ["metal-precise", "metal-fast"])
@pytest.mark.parametrize("direction", ["forward", "gradient"])
@pytest.mark.parametrize("neuron_type", list(mps.NEURONS), ids=lambda t: t.name)
def test_a_value_that_is_wrong_by_a_third_is_beyond_at_any_input(neuron_type, direction, model):
    """Where the formula does not cancel: no range is wider because a number in it is large, or tiny."""
    data = np.linspace(0.3, 0.8, 16) if mps.NEURONS[neuron_type].per_channel else None
    d = mps.MPSNNNeuronDescriptor(neuron_type, data=data) if data is not None else neuron(neuron_type.name)
    rng = np.random.default_rng(1)
    x = (10.0 ** rng.uniform(-30, 30, 4096) * rng.choice([-1, 1], 4096)).astype(np.float32).reshape(-1, 16)
    dy = (10.0 ** rng.uniform(-6, 6, 4096)).astype(np.float32).reshape(-1, 16)
    forward = direction == "forward"
    want = mps.neuron.forward(d, x) if forward else mps.neuron.gradient(d, x, dy)
    got = (want * np.float32(1.3)).astype(np.float32)
    # Beside what a few ULP of the terms may leave of it.
    terms = np.maximum(1, np.abs(x)) if forward else dy
    plain = np.isfinite(got) & (np.abs(want) > 1e-3 * terms) & (np.abs(want) > 1e-30)
    judge = neuron_judge(
        d, MODELS[model], Elements(got, SINGLE), Elements(x, SINGLE), None if forward else Elements(dy, SINGLE)
    )

    beyond = np.zeros(x.size, bool)
    beyond[compare(got, want, SINGLE, judge).beyond] = True

    assert plain.sum() > 100
    assert beyond.reshape(x.shape)[plain].all()


# ---- what is excused ----


def test_what_is_allowed_and_what_is_strict(tmp_path):
    d, x = neuron("softPlus"), np.float32([100, nan, 1, 2])
    path = recorded(tmp_path / "r", d, x, np.float32([inf, 0, 1.3132616, 2.126928]))
    (tmp_path / "t.toml").write_text("allow = ['overflow']\n[[override]]\nimage = 'y'\nstrict = true\n")

    def counts(**options):
        (image,) = verify(path, **options).images
        return image.counts.excused, image.counts.refused, image.counts.beyond

    assert counts() == ({"nan": 1}, {"overflow": 1}, 1)
    assert counts(allow=["overflow"]) == ({"nan": 1, "overflow": 1}, {}, 0)
    assert counts(tolerance=Bounds(allow=("overflow",))) == ({"nan": 1, "overflow": 1}, {}, 0)
    assert counts(strict=True) == ({}, {"nan": 1, "overflow": 1}, 2)
    assert counts(strict=True, allow=["nan"]) == ({"nan": 1}, {"overflow": 1}, 1)
    assert counts(tolerance=Tolerances.read(tmp_path / "t.toml")) == ({"overflow": 1}, {"nan": 1}, 1)
    with pytest.raises(mps.ParameterError, match=r"allow has 'flush': choose from order, nan, .*, overflow"):
        verify(path, allow=["flush"])
    report = verify(path, allow=["overflow"])
    assert report.verdict == (
        "PASS: of 4 elements of 1 image 2 are within bounds; 1 result of NaN inputs differs, which fast math allows "
        "(--strict fails it); 1 result of overflowing intermediates differs, which is allowed here"
    )
    # What is allowed by name stays so under a strict verdict.
    assert verify(path, allow=["overflow", "nan"], strict=True).verdict == (
        "PASS: of 4 elements of 1 image 2 are within bounds; 1 result of NaN inputs differs, which fast math allows; "
        "1 result of overflowing intermediates differs, which is allowed here"
    )
    jsonschema.Draft202012Validator(schema("report")).validate(json.loads(json.dumps(report.to_json())))


def test_names_of_excuses_may_have_spaces_between_them(tmp_path, capsys):
    path = recorded(tmp_path / "r", neuron("softPlus"), np.float32([100]), np.float32([inf]))

    assert main(["verify", str(path), "--allow", "nan, overflow"]) == 0
    assert "of 1 image none are within bounds; 1 result of overflowing" in capsys.readouterr().out
    assert main(["verify", str(path)]) == 1
    assert "(--allow overflow excuses it)" in capsys.readouterr().out


def test_on_the_page_what_overflows_is_among_the_worst_unless_it_is_excused(tmp_path):
    path = recorded(tmp_path / "r", neuron("softPlus"), np.float32([100]), np.float32([inf]))

    def rows(**options):
        report = verify(path, **options)
        text = page(report, Recording.read(path).graph)
        return text.count('<td class="number">100.0</td>')

    assert (rows(), rows(allow=["overflow"])) == (2, 0)  # its input, and what is wanted


@pytest.mark.parametrize(("x", "said"), [(2.5, "x is 2.5"), (nan, "x is NaN")])
def test_one_element_without_a_cause_is_told_in_the_singular(tmp_path, x, said):
    got = np.abs(x := np.float32([1, -2, x]))
    got[-1] = 3.7

    (finding,) = verify(recorded(tmp_path / "r", neuron("absolute"), x, got), tolerance=Tolerance(0)).images[0].findings

    assert said in finding.detail.split("; ")
    assert finding.sentence.endswith(" this element.")


@pytest.mark.parametrize(("model", "beyond"), [("metal-fast", 0), ("metal-precise", 3)])
def test_an_infinity_outside_the_domain_is_excused_as_numbers_there_are(tmp_path, model, beyond):
    d, x = neuron("logarithm"), np.float32([-inf, -3, nan, 1])
    lost = np.float32([0, 0, 0, 0])

    (image,) = verify(recorded(tmp_path / "r", d, x, lost), model, faults=False).images
    assert image.counts.beyond == beyond
    assert beyond or image.counts.excused == {"domain": 1, "minus_inf": 1, "nan": 1}
    # Where NaN is kept in one place, it is not unknown.
    kept = np.float32([0, nan, nan, 0])
    assert verify(recorded(tmp_path / "k", d, x, kept), model, faults=False).images[0].counts.beyond == 1


def test_nan_that_nothing_reads_excuses_nothing(tmp_path):
    d, x, dy = neuron("linear", 2, 1), np.float32([nan, nan, 1, 2]), np.float32([1, 2, 3, 4])
    wrong = np.float32([2, 5, 6, 8])

    assert classes(d, x[:2], wrong[:2], "metal-fast", dy[:2]) == [WITHIN, BEYOND]
    (image,) = verify(recorded(tmp_path / "r", d, x, wrong, dy), faults=False).images
    assert (image.counts.excused, image.counts.beyond) == ({}, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("allow = ['overflow']\nulp = 1", r"allow: stands beside ulp"),
        ("bounds = 'exact'\nstrict = true", r"strict: is for bounds of a model"),
        ("[[override]]\nallow = ['x']", r"override\[0\].allow has 'x': choose from order"),
        ("allow = 'overflow'", r"allow"),
    ],
)
def test_excuses_of_a_tolerance_file_are_checked(tmp_path, text, message):
    (tmp_path / "t.toml").write_text(text)

    with pytest.raises(mps.FileFormatError, match=message):
        Tolerances.read(tmp_path / "t.toml")


def test_another_model_that_would_pass_is_named(tmp_path):
    d, x = neuron("sigmoid"), np.linspace(-12, 12, 4096, dtype=np.float32)
    device = Device(MODELS["metal-fast"], np.random.default_rng(1), x.size, error="extreme", flush=NEVER)
    path = recorded(tmp_path / "r", d, x, evaluated(device, d, x).astype(np.float32))

    report = verify(path, "metal-precise", faults=False)

    assert not report.passed
    assert "metal-fast" in report.other_models
    assert "\nthe images that fail would pass under " in report.text()
    assert "would pass" not in verify(path, "metal-fast").text()


# ---- stores that do not round to nearest ----


def stored(values, way):
    """Halves by directed rounding."""
    with np.errstate(over="ignore"):
        near = values.astype(np.float16)
    wide = near.astype(float)
    lower = np.where(wide > values, np.nextafter(near, np.float16(-inf)), near)
    upper = np.where(wide < values, np.nextafter(near, np.float16(inf)), near)
    toward_zero = np.where(values > 0, lower, upper)
    return {"nearest": near, "down": lower, "up": upper, "toward zero": toward_zero}[way]


@pytest.mark.parametrize("name", ["softPlus", "tanH", "softSign", "sigmoid"])
@pytest.mark.parametrize("way", ["toward zero", "up", "down", "nearest"])
def test_a_directed_store_is_a_note_and_fails_under_strict(tmp_path, name, way):
    d, rng = neuron(name), np.random.default_rng(1)
    x = rng.uniform(-8, 8, 8192).astype(np.float16)
    device = Device(MODELS["metal-precise"], rng, x.size, flush=NEVER)
    path = recorded(tmp_path / "r", d, x, stored(evaluated(device, d, x), way))

    plain, strict = (verify(path, "metal-precise", strict=strict, faults=False) for strict in (False, True))

    assert plain.passed
    (image,) = plain.images
    if way == "nearest":
        assert image.directed is None
        assert strict.passed
        return
    # Rounding down positive values is truncation, which is said first.
    assert image.directed.way == way or (way == "down" and name in ("softPlus", "sigmoid"))
    if name == "softPlus":
        assert (min(image.signed_errors.values()) >= 0) == (way == "up")
    assert image.directed.held == image.directed.decisive > 1000
    assert f"y: note: {image.directed}" in plain.text()
    assert "1 image not rounded to nearest" in strict.verdict
    assert not strict.passed


@pytest.mark.parametrize(
    ("name", "model", "error", "way"),
    [
        # Where ln(1 + e^x) and 1 + erf(x) lose digits the bounds are several ULP wide.
        ("softPlus", "cuda-fast", "high", "up"),
        ("softPlus", "cuda-fast", "low", "toward zero"),
        ("geLU", "metal-precise", "extreme", "down"),
        # 65504 for what overflows.
        ("exponential", "metal-precise", "random", "toward zero"),
    ],
)
def test_a_directed_store_goes_a_step_beyond_the_ends_of_bounds(tmp_path, name, model, error, way):
    d, x = neuron(name), np.linspace(-14, 14, 8192).astype(np.float16)
    value = evaluated(Device(MODELS[model], np.random.default_rng(1), x.size, error=error, flush=NEVER), d, x)
    wrote = stored(value, way)
    far = np.where(np.abs(value) < 1e-4, stored(value * 1.5, way), wrote)

    right, wrong = (
        verify(recorded(tmp_path / part, d, x, got), model, faults=False)
        for part, got in (("right", wrote), ("wrong", far))
    )
    nearest = verify(recorded(tmp_path / "nearest", d, x, np.where(x < 8, stored(value, "nearest"), wrote)), model)

    assert right.passed
    assert right.images[0].directed is not None
    assert not wrong.passed
    # Without a reason in the rest of the image 65504 is a clamp.
    assert nearest.passed == (name != "exponential")


@pytest.mark.parametrize("error", ["extreme", "random"])
def test_where_bounds_are_too_wide_their_ends_tell_a_directed_store(tmp_path, error):
    # A tanh that may be off by half an ULP of half leaves hardly an element of which the nearest number is certain.
    d, x = mps.MPSNNNeuronDescriptor(T.tanH, a=1.3, b=0.7), np.random.default_rng(2).normal(0, 2, 4096)
    x = x.astype(np.float16)
    value = evaluated(Device(MODELS["cuda-fast"], np.random.default_rng(1), x.size, error=error, flush=NEVER), d, x)
    wrote = {way: stored(value, way) for way in ("down", "up", "nearest")}
    wrote["beside"] = stored(value * (1 + 2.0**-10), "nearest")

    images = {
        name: verify(recorded(tmp_path / name, d, x, got), "cuda-fast", faults=False).images[0]
        for name, got in wrote.items()
    }

    assert {name: image.passed for name, image in images.items()} == {
        "down": True, "up": True, "nearest": True, "beside": False,
    }  # fmt: skip
    assert {name: image.directed and image.directed.way for name, image in images.items()} == {
        "down": "down", "up": "up", "nearest": None, "beside": None,
    }  # fmt: skip


CODES = {
    "toward zero": lambda y: np.floor(255 * y),
    "up": lambda y: np.ceil(255 * y),
    "one more": lambda y: np.rint(255 * y) + 1,
    "one less": lambda y: np.rint(255 * np.minimum(y, 1)) - 1,
    "by 256": lambda y: np.rint(256 * y),
    "by 256, down": lambda y: np.floor(256 * y),
    "neighbour": None,
    "nearest": lambda y: np.rint(255 * y),
}


@pytest.mark.parametrize("way", CODES)
@pytest.mark.parametrize("a", [1.0, 1.5])
def test_codes_that_are_one_off_are_a_note(tmp_path, way, a):
    x = np.random.default_rng(1).integers(0, 256, (1, 16, 32, 4)).astype(np.uint8)
    node = mps.MPSCNNNeuronTanHNode(source=mps.MPSNNImageNode(handle="x"), a=a)
    node.result_image.handle = "y"
    # With a = 1.5 some values are beyond the last code.
    store = CODES[way] or CODES["nearest"]
    codes = np.clip(store(a * np.tanh(x / (256 if way == "neighbour" else 255))), 0, 255).astype(np.uint8)
    images = {name: mps.MPSImage.from_array(array) for name, array in {"x": x, "y": codes}.items()}
    file = mps.GraphFile.from_results([node.result_image], mps.MPSImageFeatureChannelFormat.unorm8)

    report = verify(write_recording(tmp_path / "r", file, images, device="test"), faults=False)

    assert report.passed
    found = report.images[0].directed
    assert (found and found.way) == (None if way == "nearest" else way)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_errors_with_their_sign_are_told_by_size(dtype):
    want = dtype([1, 1.5, 15.9, 16, 0.0625, 0.06, 0, nan, inf])
    got = want.copy()
    got[:3] = np.nextafter(got[:3], dtype([inf, inf, 0]))
    got[5:7] = np.nextafter(got[5:7], dtype(-inf))

    found = signed_errors(got, want, HALF if dtype == np.float16 else SINGLE)

    assert found == {"1": 1 / 3, "0.00390625": -1, "0": -1}


def test_a_legal_device_does_not_raise_the_note(tmp_path):
    for number, neuron_type in enumerate(t for t in mps.NEURONS if not mps.NEURONS[t].per_channel):
        d, rng = neuron(neuron_type.name), np.random.default_rng(number)
        x = rng.uniform(-8, 8, 4096).astype(np.float16)
        for error in ("high", "low"):
            device = Device(MODELS["metal-fast"], rng, x.size, error=error, flush=NEVER)
            with np.errstate(all="ignore"):
                got = evaluated(device, d, x).astype(np.float16)
            report = verify(recorded(tmp_path / f"{number}{error}", d, x, got), "metal-fast", faults=False)
            assert report.images[0].directed is None, neuron_type


def test_all_excuses_have_a_clause_and_a_text():
    from mpsref.verify.summary import _CLAUSES  # noqa: PLC0415

    assert _CLAUSES.keys() == (EXCUSES | {Reason.overflow}) - {Reason.minus_inf}
    assert all(reason.text for reason in Reason)
