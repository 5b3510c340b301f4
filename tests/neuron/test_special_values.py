"""Special values (N6), clean manners (N7), shapes, channels and the descriptor (N1)."""

import copy
import math
import pickle
import threading
import warnings

import numpy as np
import pytest

import mpsref as mps
from builders import SPECIAL, SPECIAL_CASES, Either, J, descriptor_of, judge_of, seldom
from mpsref.proof import judge
from mpsref.verify import verify, write_recording

T = mps.MPSCNNNeuronType
D = mps.MPSNNNeuronDescriptor
DTYPES = pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
NAN_BITS = {np.float16: 0x7E00, np.float32: 0x7FC00000, np.float64: 0x7FF8000000000000}
inf, nan = float("inf"), float("nan")
ONE_EACH = list({name: p for name, p, *_ in reversed(SPECIAL)}.items())
NEURONS = pytest.mark.parametrize(("name", "p"), ONE_EACH, ids=[name for name, _ in ONE_EACH])


def compute(d, x, derivative=False, upstream=None):
    """As if every element were a pixel of one feature channel."""
    x = np.asarray(x)
    if not derivative:
        return mps.neuron.forward(d, x[..., None])[..., 0]
    upstream = np.ones_like(x) if upstream is None else upstream
    return mps.neuron.gradient(d, x[..., None], upstream[..., None])[..., 0]


def bits_of(x):
    return x.view(f"u{x.itemsize}")


def assert_same(got, want):
    np.testing.assert_array_equal(bits_of(got), bits_of(want))


def assert_is(got, wanted, exactly):
    """Compare one element with what the table says; `exactly` gives the judge's answer where it says nothing."""
    if isinstance(wanted, Either):
        assert abs(got) == wanted.size
        return
    want = got.dtype.type(exactly() if wanted is J else wanted)
    if got.dtype == np.float64 and wanted is J:
        assert abs(got - want) <= 2 * np.spacing(abs(want))
    else:
        assert bits_of(got.reshape(1))[0] == bits_of(np.array([want]))[0], f"got {got!r}, want {want!r}"


# --- N6 --------------------


def test_n6_the_table_of_special_values_has_all_sixteen_neurons():
    assert {name for name, *_ in SPECIAL} == {t.name for t in T}


@DTYPES
@pytest.mark.parametrize(
    ("name", "p", "values", "slopes"), SPECIAL, ids=[f"{n}{list(p)}" for n, p, *_ in SPECIAL]
)  # fmt: skip
def test_n6_infinities_and_zeros_give_the_limit_with_its_sign(name, p, values, slopes, dtype):
    d, j = descriptor_of(name, p), judge_of(name, p)
    x = np.array([-inf, inf, -0.0, 0.0], dtype)
    for derivative, wanted in ((False, values), (True, slopes)):
        got = compute(d, x, derivative)
        assert got.dtype == dtype
        for i, at in enumerate((-1e4, 1e4, 0.0, 0.0)):
            if wanted[i] is J and name == "exponential" and d.c == 0:
                continue  # 0 to a negative power
            # An irrational value at an infinity stands for a constant.
            assert_is(got[i : i + 1], wanted[i], lambda at=at, k=derivative: float(j.accurate_ball(at, k)))


@pytest.mark.parametrize(
    ("name", "p", "values", "slopes"), SPECIAL, ids=[f"{n}{list(p)}" for n, p, *_ in SPECIAL]
)  # fmt: skip
def test_n6_the_table_by_hand_agrees_with_the_judge_far_out(name, p, values, slopes):
    """At arguments of about 2^1000 the judge has all but reached the limit."""
    j = judge_of(name, p)
    for derivative, wanted in ((False, values), (True, slopes)):
        for x, want in ((-1e300, wanted[0]), (1e300, wanted[1])):
            if want is J:
                continue
            limit = want.size if isinstance(want, Either) else want
            ball = j.accurate_ball(x, derivative)
            value = float(ball)
            if np.isnan(limit):
                assert ball.is_nan() or (name, j.p[2]) == ("exponential", -2)  # whose integers are real
            elif np.isinf(limit):
                assert value * np.sign(limit) > 600  # a logarithm grows no faster
            else:
                assert value == pytest.approx(limit, abs=1e-90)
                if limit == 0 and not isinstance(want, Either) and ball != 0:
                    assert (ball < 0) == np.signbit(want)


@DTYPES
@SPECIAL_CASES
def test_n6_nan_in_gives_the_canonical_nan_whatever_its_payload_and_sign(name, p, dtype):
    d = descriptor_of(name, p)
    quiet = NAN_BITS[dtype]
    width = np.dtype(dtype).itemsize * 8
    sign, lowest_quiet = 1 << (width - 1), quiet & -quiet
    patterns = [
        quiet,
        quiet | sign,
        quiet | 1,
        quiet | sign | 7,
        quiet - lowest_quiet + 1,
        (quiet - lowest_quiet + 1) | sign,
    ]
    x = np.array(patterns, f"u{width // 8}").view(dtype)
    assert np.isnan(x).all()
    canonical = np.full(x.size, quiet, f"u{width // 8}")
    np.testing.assert_array_equal(bits_of(compute(d, x)), canonical)
    # As the upstream gradient, at ordinary sources.
    one = np.ones_like(x)
    np.testing.assert_array_equal(bits_of(compute(d, one, True, x)), canonical)
    slope = compute(d, x, True, one)
    if name in ("none", "linear"):
        np.testing.assert_array_equal(slope, np.full(x.size, 1.0 if name == "none" else d.a, dtype))
        np.testing.assert_array_equal(bits_of(compute(d, x, True, x)), canonical)
    else:
        np.testing.assert_array_equal(bits_of(slope), canonical)


@DTYPES
@SPECIAL_CASES
def test_n6_a_result_outside_the_real_domain_is_the_canonical_nan(name, p, dtype):
    d = descriptor_of(name, p)
    x = np.concatenate([np.linspace(-9, 9, 73), [-inf, inf]]).astype(dtype)
    upstream = np.resize(np.array([1, -1, 0, inf, -inf], dtype), x.size)
    for y in (compute(d, x), compute(d, x, True), compute(d, x, True, upstream)):
        assert (bits_of(y[np.isnan(y)]) == NAN_BITS[dtype]).all()


def test_n6_power_and_logarithm_are_nan_where_they_are_not_real():
    x = np.array([-4, -1e-30, -inf], np.float32)
    assert np.isnan(compute(D(T.power, 1, 0, 0.5), x)).all()
    assert np.isnan(compute(D(T.power, 1, 0, 0.5), x, True)).all()
    assert np.isnan(compute(D(T.power, 1, 0, -1.7), x)).all()
    assert not np.isnan(compute(D(T.power, 1, 0, 3), x)).any()
    assert np.isnan(compute(D(T.logarithm), x)).all()
    np.testing.assert_array_equal(compute(D(T.logarithm), x[:1], True), [-0.25])


def test_n6_a_negative_base_is_real_at_integers_only():
    x = np.array([3, 2, -1, 0.5, 1 + 2.0**-20], np.float32)
    got = compute(D(T.exponential, 1, 0, -2), x)
    np.testing.assert_array_equal(got, np.array([-8, 4, -0.5, nan, nan], np.float32))


@SPECIAL_CASES
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("derivative", [False, True])
def test_n6_subnormals_and_the_largest_finite_are_correctly_rounded(name, p, dtype, derivative):
    d, j, info = descriptor_of(name, p), judge_of(name, p), np.finfo(dtype)
    smallest, largest = float(info.smallest_subnormal), float(info.max)
    sizes = [smallest * k for k in (1, 2, 3, 5, 1001)] + [float(info.tiny), float(info.tiny) - smallest]
    sizes += [largest, largest * (1 - float(info.eps) / 2), largest / 2, largest / 3]
    x = np.array([s * v for v in sizes for s in (1, -1)]).astype(dtype)
    wide = x.astype(np.float64)
    near = j.float64s(wide, derivative)
    want = j.rounded(wide, near, dtype, derivative)
    got = compute(d, x, derivative)
    wrong = judge.differs(got, want, near)
    if name == "exponential" and d.c == 0:
        wrong &= wide + d.b >= 0  # 0 to a negative power
    assert not wrong.any(), [(float(x[i]), got[i], want[i]) for i in np.flatnonzero(wrong)[:5]]


@SPECIAL_CASES
@pytest.mark.parametrize("derivative", [False, True])
def test_n6_float64_subnormals_and_the_largest_finite_give_what_is_due(name, p, derivative):
    """Where the result is a normal number, to 4 ULP; beyond, the right infinity or a tiny number of the right sign."""
    d, j = descriptor_of(name, p), judge_of(name, p)
    x = np.array([s * v for v in (5e-324, 1e-310, 2.0**-1022, 1.7976931348623157e308, 1e200) for s in (1, -1)])
    got = compute(d, x, derivative)
    for value, result in zip(x.tolist(), got.tolist(), strict=True):
        exact = j.accurate_ball(value, derivative)
        if name == "exponential" and d.c in (0, -2):
            continue
        if exact.is_nan():
            assert np.isnan(result), value
        elif abs(exact) > 1.7976931348623157e308 or not exact.is_finite():
            assert abs(result) >= 1.797e308, value
            assert (result < 0) == (exact < 0), value
        elif abs(exact) < 2.3e-308:
            assert abs(result) <= 2.4e-308, value
            assert exact == 0 or np.signbit(result) == (exact < 0), value
        else:
            assert abs(result - float(exact)) <= (8 if name == "geLU" else 4) * math.ulp(float(exact)), value


@DTYPES
@pytest.mark.parametrize("name", ["reLU", "pReLU", "reLUN", "ELU"])
def test_n6_a_zero_slope_gives_the_same_zero_at_minus_infinity_as_far_out(name, dtype):
    d = descriptor_of(name, (0,))
    got = compute(d, np.array([-inf, -60_000], dtype))
    assert bits_of(got)[0] == bits_of(got)[1]


# --- N7 --------------------

EVERYTHING = np.array(
    [nan, inf, -inf, 0.0, -0.0, 6e-8, -6e-8, 65504, -65504, 1, -1, 0.5, -0.5, 3, -3, 100, -100, 1e-4, -1e-4], np.float16
)


@DTYPES
@SPECIAL_CASES
def test_n7_no_warning_leaks_and_errstate_and_inputs_stay_as_they_are(name, p, dtype):
    d = descriptor_of(name, p)
    x = np.concatenate([EVERYTHING.astype(dtype), np.array([np.finfo(dtype).max, np.finfo(dtype).tiny], dtype)])
    x, upstream = np.repeat(x, x.size), np.tile(x, x.size)
    copies = x.copy(), upstream.copy()
    x.flags.writeable = upstream.flags.writeable = False
    with warnings.catch_warnings(), np.errstate(all="raise"):
        warnings.simplefilter("error")
        before = np.geterr()
        y = compute(d, x)
        g = compute(d, x, True, upstream)
        assert np.geterr() == before
    assert_same(x, copies[0])
    assert_same(upstream, copies[1])
    assert not np.shares_memory(y, x)
    assert not np.shares_memory(g, x)
    assert not np.shares_memory(g, upstream)
    assert y.flags.writeable


@DTYPES
@NEURONS
def test_n7_a_result_is_never_shared_with_a_later_one(name, p, dtype):
    d = descriptor_of(name, p)
    x = np.linspace(-3, 3, 50).astype(dtype)
    y, g = compute(d, x), compute(d, x, True)
    kept = y.copy(), g.copy()
    y2, g2 = compute(d, -x), compute(d, -x, True)
    assert_same(y, kept[0])
    assert_same(g, kept[1])
    y2.fill(7)
    g2.fill(7)
    assert_same(compute(d, x), kept[0])
    assert_same(compute(d, x, True), kept[1])


# --- shapes, blocks, threads --------------------


def random_values(count, dtype, seed=1):
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 4, count).astype(dtype)
    x[:: max(1, count // 40)] = np.resize(EVERYTHING.astype(dtype), x[:: max(1, count // 40)].size)
    return x


@DTYPES
@NEURONS
def test_results_do_not_depend_on_where_a_block_ends(name, p, dtype):
    d = descriptor_of(name, p)
    x, upstream = random_values(200_001, dtype), random_values(200_001, dtype, 2)
    whole = compute(d, x), compute(d, x, True, upstream)
    for start, count in ((0, 65_535), (0, 65_536), (0, 65_537), (65_535, 3), (131_071, 2), (777, 65_537), (200_000, 1)):
        part = slice(start, start + count)
        assert_same(compute(d, x[part]), whole[0][part])
        assert_same(compute(d, x[part], True, upstream[part]), whole[1][part])


@DTYPES
@NEURONS
def test_results_are_the_same_one_element_at_a_time(name, p, dtype):
    d = descriptor_of(name, p)
    x, upstream = random_values(80, dtype), random_values(80, dtype, 2)
    whole = compute(d, x), compute(d, x, True, upstream)
    single = [compute(d, x[i : i + 1]) for i in range(x.size)]
    assert_same(np.concatenate(single), whole[0])
    single = [compute(d, x[i : i + 1], True, upstream[i : i + 1]) for i in range(x.size)]
    assert_same(np.concatenate(single), whole[1])


@DTYPES
@NEURONS
def test_any_shape_and_any_strides_give_the_same_elements(name, p, dtype):
    d = descriptor_of(name, p)
    x, upstream = random_values(720, dtype), random_values(720, dtype, 2)
    y, g = compute(d, x), compute(d, x, True, upstream)
    for shape in ((720,), (6, 120), (2, 3, 4, 5, 6), (1, 720, 1)):
        assert_same(compute(d, x.reshape(shape)), y.reshape(shape))
        assert_same(compute(d, x.reshape(shape), True, upstream.reshape(shape)), g.reshape(shape))
    for view in (
        lambda a: a[::-3],
        lambda a: a.reshape(24, 30).T,
        lambda a: a.reshape(2, 3, 4, 5, 6)[:, ::2, :, 1:4, ::-1],
    ):
        assert_same(np.ascontiguousarray(compute(d, view(x))), np.ascontiguousarray(view(y)))
        got = compute(d, view(x), True, view(upstream))
        assert_same(np.ascontiguousarray(got), np.ascontiguousarray(view(g)))
    fortran = np.asfortranarray(x.reshape(24, 30))
    assert_same(np.ascontiguousarray(compute(d, fortran)), y.reshape(24, 30))
    for empty in ((0,), (3, 0), (0, 2, 0)):
        got = compute(d, np.empty(empty, dtype)), compute(d, np.empty(empty, dtype), True)
        assert all(r.shape == empty and r.dtype == dtype for r in got)


@DTYPES
@pytest.mark.parametrize(("name", "p"), [pair for pair in ONE_EACH if pair[0] != "pReLU"])
def test_a_0d_array_gives_a_0d_array(name, p, dtype):
    d, x = descriptor_of(name, p), np.array(1.5, dtype)
    y, g = mps.neuron.forward(d, x), mps.neuron.gradient(d, x, np.array(2.0, dtype))
    assert isinstance(y, np.ndarray)
    assert (y.shape, y.dtype, g.shape, g.dtype) == ((), x.dtype, (), x.dtype)
    assert_same(y.reshape(1), mps.neuron.forward(d, x.reshape(1)))
    assert_same(g.reshape(1), mps.neuron.gradient(d, x.reshape(1), np.array([2.0], dtype)))


def test_results_do_not_depend_on_the_thread():
    work = [(descriptor_of(name, p), dtype) for name, p in ONE_EACH for dtype in (np.float16, np.float32, np.float64)]
    x = {dtype: random_values(70_000, dtype) for dtype in (np.float16, np.float32, np.float64)}
    alone = [(compute(d, x[t]), compute(d, x[t], True, x[t][::-1])) for d, t in work]
    start, found = threading.Barrier(4), {}

    def run(number):
        # Each thread in another order, so that different neurons run at the same time.
        order = np.random.default_rng(number).permutation(len(work))
        start.wait()
        found[number] = {}
        for i in order.tolist():
            d, t = work[i]
            found[number][i] = compute(d, x[t]), compute(d, x[t], True, x[t][::-1])

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(4):
        for i, pair in enumerate(alone):
            for got, want in zip(found[number][i], pair, strict=True):
                assert_same(got, want)


@pytest.mark.parametrize(
    "bad", [np.arange(3), np.array([True]), np.zeros(2, complex), np.zeros(2, ">f4"), [1, 2], ["a"]]
)
def test_other_dtypes_are_refused(bad):
    with pytest.raises(mps.ImageError, match="dtype"):
        mps.neuron.forward(D(T.reLU), bad)
    with pytest.raises(mps.ImageError, match="dtype"):
        mps.neuron.gradient(D(T.reLU), bad, bad)


@pytest.mark.parametrize("bad", [np.zeros(2, np.float32), np.zeros((3, 1), np.float32), np.zeros(3), np.float32(1)])
def test_an_upstream_gradient_unlike_the_source_is_refused(bad):
    with pytest.raises(mps.ImageError, match="upstream"):
        mps.neuron.gradient(D(T.reLU), np.zeros(3, np.float32), bad)


@pytest.mark.parametrize("bad", [None, "relu", 1, D])
def test_what_is_no_descriptor_is_refused(bad):
    with pytest.raises(mps.ParameterError, match="descriptor is"):
        mps.neuron.forward(bad, np.zeros(1))
    with pytest.raises(mps.ParameterError, match="descriptor is"):
        mps.neuron.gradient(bad, np.zeros(1), np.zeros(1))


# --- pReLU --------------------


@DTYPES
@pytest.mark.parametrize("axis", [0, 1, 2, 3, -1, -2, -3, -4])
def test_prelu_takes_the_slope_of_the_channel_on_any_axis(axis, dtype):
    shape = (5, 7, 3, 6)
    slopes = np.linspace(-1.3, 2.1, shape[axis]).astype(np.float32)
    d = D(T.pReLU, data=slopes)
    x = random_values(int(np.prod(shape)), dtype).reshape(shape)
    upstream = random_values(x.size, dtype, 2).reshape(shape)
    y = mps.neuron.forward(d, x, channel_axis=axis)
    g = mps.neuron.gradient(d, x, upstream, channel_axis=axis)
    for channel, slope in enumerate(slopes):
        leaky = D(T.reLU, slope)
        piece = [np.ascontiguousarray(np.take(a, channel, axis)) for a in (x, upstream, y, g)]
        assert_same(piece[2], mps.neuron.forward(leaky, piece[0]))
        assert_same(piece[3], mps.neuron.gradient(leaky, piece[0], piece[1]))


@pytest.mark.parametrize("shape", [(70_000, 3), (3, 70_000), (1, 65_537), (65_537, 1), (2, 65_536, 2)])
@pytest.mark.parametrize("axis", [0, -1])
def test_prelu_keeps_its_channels_across_blocks(shape, axis):
    slopes = np.random.default_rng(3).normal(size=shape[axis]).astype(np.float32)
    x = np.full(shape, -1, np.float32)
    wide = np.moveaxis(np.broadcast_to(slopes, np.moveaxis(x, axis, -1).shape), -1, axis)
    d = D(T.pReLU, data=slopes)
    np.testing.assert_array_equal(mps.neuron.forward(d, x, channel_axis=axis), -wide)
    np.testing.assert_array_equal(mps.neuron.gradient(d, x, x, channel_axis=axis), -wide)


@pytest.mark.parametrize("axis", [2, -3, 7])
def test_prelu_refuses_an_axis_that_is_not_there(axis):
    with pytest.raises(mps.ImageError, match="channel_axis"):
        mps.neuron.forward(D(T.pReLU, data=[1, 2]), np.zeros((2, 2), np.float32), channel_axis=axis)


def test_prelu_refuses_a_0d_source():
    with pytest.raises(mps.ImageError, match="channel_axis"):
        mps.neuron.forward(D(T.pReLU, data=[1]), np.float32(1))


@pytest.mark.parametrize("shape", [(2, 4), (2, 2), (3, 1)])
def test_prelu_checks_that_there_is_one_slope_for_each_channel(shape):
    d, x = D(T.pReLU, data=[1, 2, 3]), np.zeros(shape, np.float32)
    with pytest.raises(mps.ParameterError, match=f"3 slopes.*{shape[-1]} channels"):
        mps.neuron.forward(d, x)
    with pytest.raises(mps.ParameterError, match=f"3 slopes.*{shape[-1]} channels"):
        mps.neuron.gradient(d, x, x)


def test_the_channel_axis_does_not_matter_to_other_neurons():
    x = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)
    assert_same(mps.neuron.forward(D(T.tanH), x, channel_axis=0), mps.neuron.forward(D(T.tanH), x, channel_axis=-1))


# --- the descriptor --------------------


def test_n1_parameters_are_rounded_once_to_float32():
    d = D(T.power, 0.1, np.float64(1) / 3, 1 + 2.0**-24 + 2.0**-52)
    assert (d.a, d.b, d.c) == (float(np.float32(0.1)), float(np.float32(1 / 3)), 1 + 2.0**-23)
    assert D(T.reLU, 1 + 2.0**-24).a == 1
    assert D(T.reLU, 1e-46).a == 0
    assert D(T.reLU, 2**24 + 1).a == 2**24
    assert D(T.reLU, np.float16(0.1)).a == float(np.float16(0.1))
    np.testing.assert_array_equal(D(T.pReLU, data=[0.1, 1 + 2.0**-24]).data, np.array([0.1, 1], np.float32))


def test_n1_parameters_that_round_to_the_same_float32_give_equal_descriptors():
    assert D(T.tanH, 0.1, 0.2) == D(T.tanH, float(np.float32(0.1)), float(np.float32(0.2)))


def test_omitted_parameters_take_the_documented_defaults():
    documented = {
        T.reLU: (0,), T.linear: (1, 0), T.hardSigmoid: (float(np.float32(0.2)), 0.5), T.tanH: (1, 1),
        T.softPlus: (1, 1), T.ELU: (1,), T.reLUN: (1, 6), T.power: (1, 0, 1), T.exponential: (1, 0, -1),
        T.logarithm: (1, 0, -1),
    }  # fmt: skip
    for neuron_type in T:
        if neuron_type != T.pReLU:
            wanted = documented.get(neuron_type, ())
            assert D(neuron_type).parameters == dict(zip("abc", wanted, strict=False))
            assert D(neuron_type) == D(neuron_type, *wanted)


@pytest.mark.parametrize(
    "value", [nan, inf, -inf, 1e39, -3.5e38, 10**400, "1", None.__class__, 1j, True, [1], np.zeros(1)]
)
@pytest.mark.parametrize("name", ["a", "b", "c"])
def test_a_parameter_that_is_no_finite_float32_is_refused_by_name(name, value):
    with pytest.raises(mps.ParameterError, match=f"^{name} is .*finite as a float32"):
        D(T.power, **{name: value})


def test_the_largest_float32_is_a_parameter():
    assert D(T.reLU, 3.4028234e38).a == float(np.finfo(np.float32).max)
    assert D(T.reLU, -3.4028235e38).a == -float(np.finfo(np.float32).max)


def recorded(folder, d, wrong):
    """A graph file, and what the verdict says of wrong results."""
    x, dy = mps.MPSNNImageNode(handle="x"), mps.MPSNNImageNode(handle="dy")
    node = mps.MPSCNNNeuronNode(source=x, descriptor=d)
    slope = node.gradient_filter(with_source=dy)
    node.result_image.handle, slope.result_image.handle = "y", "dx"
    file = mps.GraphFile.from_results([node.result_image, slope.result_image], mps.MPSImageFeatureChannelFormat.float32)
    images = {name: mps.MPSImage.from_array(array) for name, array in wrong.items()}
    report = verify(write_recording(folder, file, images, "wrong"))
    return (folder / "graph.json").read_text(), report.to_json()["images"]


FEWER_PARAMETERS = [t for t in T if len(mps.NEURONS[t].parameters) < 3]
MORE = {"a": 3e38, "b": -7, "c": 2}


def with_more(neuron_type):
    """A neuron, the same with parameters that it does not have, a source and an upstream gradient."""
    data = {"data": [0.5, -0.25, 2]} if neuron_type == T.pReLU else {}
    more = {name: value for name, value in MORE.items() if name not in mps.NEURONS[neuron_type].parameters}
    x = np.float32([[[-3, 0.5, 2], [np.inf, -0.0, 0.25], [1e-30, -40, 7]]])
    return D(neuron_type, **data), D(neuron_type, **more, **data), x, np.float32([[[1, 2, -3]] * 3])


@pytest.mark.parametrize("neuron_type", FEWER_PARAMETERS)
def test_parameters_that_the_neuron_does_not_have_are_kept_and_count_for_nothing(neuron_type):
    plain, d, x, dy = with_more(neuron_type)
    more = {name: value for name, value in MORE.items() if name not in mps.NEURONS[neuron_type].parameters}

    for same in (d, copy.copy(d), pickle.loads(pickle.dumps(d))):  # noqa: S301
        assert {name: getattr(same, name) for name in more} == {n: float(np.float32(v)) for n, v in more.items()}
        assert same == plain
        assert hash(same) == hash(plain)
        assert same.parameters == plain.parameters
    assert all(f"{name}={np.float32(value)!s}" in repr(d) for name, value in more.items())

    for mode in ("ideal", "specified", "stepwise", "stepwise-fma"):
        want, got = (mps.neuron.forward(each, x, mode=mode) for each in (plain, d))
        assert got.tobytes() == want.tobytes()
        want, got = (mps.neuron.gradient(each, x, dy, mode=mode) for each in (plain, d))
        assert got.tobytes() == want.tobytes()


@seldom("neuron_type", FEWER_PARAMETERS, lambda t: t in (T.none, T.tanH, T.pReLU), lambda t: t.name)
def test_a_verdict_does_not_depend_on_parameters_that_the_neuron_does_not_have(neuron_type, tmp_path):
    plain, d, x, dy = with_more(neuron_type)
    wrong = {"x": x, "dy": dy, "y": np.arange(9, dtype=np.float32).reshape(x.shape), "dx": dy * 3}
    assert recorded(tmp_path / "more", d, wrong) == recorded(tmp_path / "plain", plain, wrong)


def test_a_parameter_in_a_graph_file_that_the_neuron_does_not_have_is_refused():
    x = mps.MPSNNImageNode(handle="x")
    document = mps.GraphFile.from_results([mps.MPSCNNNeuronNode(source=x, descriptor=D(T.none)).result_image]).to_json()
    document["nodes"][0]["descriptor"]["a"] = 1
    with pytest.raises(mps.FileFormatError, match="unknown here"):
        mps.GraphFile.from_json(document)


def test_apples_factories_have_no_defaults():
    make = D.cnn_neuron_descriptor
    assert make(with_=T.reLUN) == D(T.reLUN, a=0, b=0) != D(T.reLUN)
    assert make(with_=T.power, a=2, b=3, c=4) == D(T.power, 2, 3, 4)
    assert make(with_=T.sigmoid, a=2).a == 2
    with pytest.raises(mps.ParameterError, match="pReLU needs data"):
        make(with_=T.pReLU)
    slopes = np.float32([0.5, 2])
    for data in (slopes, slopes.tobytes()):
        d = D.cnn_neuron_p_re_lu_descriptor(with_=data, no_copy=True)
        assert d == D(T.pReLU, data=slopes)
    slopes[0] = 7
    assert d.data[0] == 0.5


@pytest.mark.parametrize("neuron_type", list(T))
def test_data_is_for_prelu_only_and_needed_there(neuron_type):
    if neuron_type == T.pReLU:
        with pytest.raises(mps.ParameterError, match="needs data"):
            D(neuron_type)
    else:
        with pytest.raises(mps.ParameterError, match="data is only for pReLU"):
            D(neuron_type, data=[1])


@pytest.mark.parametrize(
    "data",
    [[], [[1, 2]], 1.0, [nan], [1, inf], [1e39], ["a"], [1j], [None], b"", b"123", b"12345", [[1], [1, 2]], np.inf],
)
def test_bad_slopes_are_refused(data):
    with pytest.raises(mps.ParameterError, match="data"):
        D(T.pReLU, data=data)


def test_slopes_are_copied_and_read_only():
    slopes = np.array([1, 2], np.float32)
    d = D(T.pReLU, data=slopes)
    slopes[0] = 9
    np.testing.assert_array_equal(d.data, [1, 2])
    with pytest.raises(ValueError, match="read-only"):
        d.data[0] = 3
    assert D(T.pReLU, data=np.array([1, 2], "<f4").tobytes()) == d
    assert D(T.pReLU, data=bytearray(np.array([1, 2], "<f4").tobytes())) == d


@pytest.mark.parametrize("neuron_type", [16, -1, "relu", None, 1.5])
def test_what_is_no_neuron_type_is_refused(neuron_type):
    with pytest.raises(mps.ParameterError, match="neuron_type"):
        D(neuron_type)


def test_equal_descriptors_are_equal_and_hash_alike():
    assert D(T.tanH, 1.5, 0.75) == D(T.tanH, a=1.5, b=0.75)
    assert hash(D(T.tanH, 1.5, 0.75)) == hash(D(T.tanH, a=1.5, b=0.75))
    assert D(T.pReLU, data=[1, 2]) == D(T.pReLU, data=np.float32([1, 2]))
    assert hash(D(T.pReLU, data=[1, 2])) == hash(D(T.pReLU, data=np.float32([1, 2])))
    different = [
        D(T.reLU), D(T.ELU, 0), D(T.reLU, 1), D(T.linear, 1, 0), D(T.pReLU, data=[1, 2]), D(T.pReLU, data=[2, 1]),
        D(T.pReLU, data=[1]), D(T.sigmoid), D(T.none),
    ]  # fmt: skip
    assert len(set(different)) == len(different)
    assert D(T.reLU) != "reLU"


def test_minus_zero_is_another_parameter_than_zero():
    """Their results differ in the sign of zero, so that a table of one must not serve the other."""
    assert D(T.reLU, -0.0) != D(T.reLU, 0.0)
    assert D(T.pReLU, data=[-0.0]) != D(T.pReLU, data=[0.0])
    x = np.array([-1], np.float16)
    assert not np.signbit(mps.neuron.forward(D(T.reLU, -0.0), x))[0]
    assert np.signbit(mps.neuron.forward(D(T.reLU, 0.0), x))[0]


def test_a_descriptor_cannot_be_changed():
    d = D(T.reLU, 0.5)
    for name in ("a", "b", "c", "data", "neuron_type", "other"):
        with pytest.raises(AttributeError):
            setattr(d, name, 1)


def test_arguments_that_are_no_arrays_are_refused_by_name():
    d, p = mps.MPSNNNeuronDescriptor(T.tanH), mps.MPSNNNeuronDescriptor(T.pReLU, data=[1, 2])
    with pytest.raises(mps.ImageError, match=r"^x: "):
        mps.neuron.forward(d, [[1.0], [2.0, 3.0]])
    with pytest.raises(mps.ImageError, match=r"^upstream: "):
        mps.neuron.gradient(d, np.float32([1]), [[1.0], [2.0, 3.0]])
    for axis in ("a", 0.5):
        with pytest.raises(mps.ImageError, match="channel_axis"):
            mps.neuron.forward(d, np.float32([1]), channel_axis=axis)
    empty = np.zeros((2, 0), np.float32)
    assert mps.neuron.forward(p, empty, channel_axis=0).shape == (2, 0)
    assert mps.neuron.gradient(p, empty, empty, channel_axis=0).shape == (2, 0)


def test_a_bound_of_zero_leaves_the_sign_of_a_product_that_vanishes_when_it_is_rounded():
    d = mps.MPSNNNeuronDescriptor(T.reLUN, a=7.8e-26, b=0)
    got = mps.neuron.forward(d, np.float32([-3.77e-28, -0.0, 0.0, 1.0]))
    np.testing.assert_array_equal(np.signbit(got), [True, False, False, False])
    np.testing.assert_array_equal(got, 0)


@pytest.mark.parametrize("a", [-3.4686002e-12, 4e-34])
def test_a_product_that_vanishes_when_it_is_rounded_keeps_its_sign_though_0_is_added(a):
    d = mps.MPSNNNeuronDescriptor(T.linear, a=a, b=0)
    tiny = np.float32(math.copysign(1e-38, -a))
    got = mps.neuron.forward(d, np.float32([tiny, -tiny, 0.0, -0.0]))
    np.testing.assert_array_equal(np.signbit(got), [True, False, False, False])


@pytest.mark.parametrize("b", [65520.0, 1e30])
def test_a_bound_beyond_float16_warns_of_nothing(b):
    d = mps.MPSNNNeuronDescriptor(T.reLUN, a=0.0, b=b)
    got = mps.neuron.forward(d, np.float16([-1, -0.0, 7, 65504, inf, nan]))
    assert_same(got, np.float16([-0.0, -0.0, 7, 65504, inf, nan]))


# The product of the parameter and the input is half a unit of 0.5 and a rest, which is beyond float64 beside 0.5.
BESIDE_A_MIDPOINT = [(1 - s * 2.0**-23, 2.0**-25 * (1 + s * 2.0**-23)) for s in (1, 90)] + [
    (205.0, 5_237_765 * 2.0**-55)
]


@pytest.mark.parametrize("name", ["linear", "hardSigmoid"])
@pytest.mark.parametrize(("a", "near"), BESIDE_A_MIDPOINT)
def test_a_sum_that_float64_rounds_to_a_midpoint_of_float32_is_rounded_like_the_exact_one(name, a, near):
    x = np.float32([near, -near / 2, 0, 3])
    for d in (mps.MPSNNNeuronDescriptor(T[name], a=sign * a, b=0.5 + (sign < 0) * 2.0**-24) for sign in (1, -1)):
        assert_same(mps.neuron.forward(d, x), mps.neuron.specified(d, x))
