"""The specification: the fast kernels give its bits, and it is short enough to be read."""

import inspect
import math
import sys
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

import mpsref as mps
from builders import ALL, BOTH, TWO, F, T, cases, descriptor_of, float32_inputs, seeded
from mpsref.activations import ACTIVATIONS
from mpsref.arrays import Elements
from mpsref.neuron import descriptor as descriptors
from mpsref.neuron.kernels import KERNELS
from mpsref.neuron.slopes import ChannelSlopes
from mpsref.neuron.stepwise import MODES
from mpsref.neuron.table import Neuron
from mpsref.operations.arithmetic import Scaling, Sum
from mpsref.storage import FORMATS

D = mps.MPSNNNeuronDescriptor
HALVES = np.arange(65_536, dtype=np.uint16).view(np.float16)
SPECIAL = [0.0, -0.0, math.inf, -math.inf, math.nan, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5, 65504.0, -65504.0]

# Whose kinks, zeros and poles are met exactly, and whose zeros are negative.
MEETING = [
    ("hardSigmoid", (0.25, 0.5)), ("hardSigmoid", (-0.0, 0.5)), ("reLUN", (-2, 1)), ("reLUN", (-0.0, -1)),
    ("power", (1, -1, 0.5)), ("power", (2, -1, -3)), ("power", (1, -0.0, 1e-30)), ("exponential", (1, 0, -2)),
    ("exponential", (1, 0, -0.0)), ("logarithm", (-0.5, 1, 4)), ("linear", (-0.0, -0.0)), ("pReLU", (-0.0,)),
]  # fmt: skip


def same_bits(got, want, x, upstream=None):
    assert got.dtype == want.dtype
    bits = f"u{want.itemsize}"
    wrong = np.flatnonzero(got.view(bits) != want.view(bits))
    i = wrong[:5]
    assert not wrong.size, (
        f"{wrong.size} differ: x={x.ravel()[i]} upstream={None if upstream is None else upstream.ravel()[i]} "
        f"specified={want.ravel()[i]} got={got.ravel()[i]}"
    )


def compare(d, x, derivative):
    """Half of the incoming gradients are 1, the others anything."""
    x = x[:, None]
    if not derivative:
        same_bits(mps.neuron.forward(d, x), mps.neuron.specified(d, x), x)
        return
    rng = np.random.default_rng(x.size)
    with np.errstate(over="ignore"):
        other = rng.choice([*SPECIAL, 2.0**-149, *rng.normal(0, 3, 40)], x.size).astype(x.dtype)[:, None]
    upstream = np.where(rng.random(x.shape) < 0.5, x.dtype.type(1), other)
    same_bits(mps.neuron.gradient(d, x, upstream), mps.neuron.specified_gradient(d, x, upstream), x, upstream)


def hardest(d, x, derivative, count):
    """Those inputs whose float64 results lie nearest to a rounding boundary of their format."""
    wide = x.astype(np.float64)[:, None]
    y = mps.neuron.gradient(d, wide, np.ones_like(wide)) if derivative else mps.neuron.forward(d, wide)
    y = y[:, 0]
    with np.errstate(all="ignore"):
        rounded = y.astype(x.dtype)
        distance = np.abs(np.abs(y - rounded) / np.spacing(np.abs(rounded)) - 0.5)
    return x[np.argsort(np.where(np.isfinite(distance), distance, 9.0), kind="stable")[:count]]


def sample(name, p, dtype, derivative, count):
    """Half of them near rounding boundaries; special values, kinks and what surrounds them; the rest anywhere."""
    d, rng = descriptor_of(name, p), seeded(name, p, "specified")
    anywhere = float32_inputs(name, p, max(20_000, 2 * count))
    with np.errstate(over="ignore"):
        anywhere = HALVES if dtype == np.float16 else anywhere[np.isfinite(anywhere)]
        kinks = d.row.kinks(d)
        beside = [kink * (1 + s * 2.0**-10) for kink in kinks for s in (-1, 1)]
        places = np.array([*SPECIAL, *kinks, *beside]).astype(np.float32).astype(dtype)
        places = np.concatenate([places, *(np.nextafter(places, dtype(end)) for end in (-np.inf, np.inf))])
    tiny = np.array([1, 2, 3, 0x3FF, 0x400], f"u{places.itemsize}").view(dtype)
    few = [places, tiny, -tiny, hardest(d, anywhere, derivative, count // 2)]
    left = count - sum(map(len, few))
    return np.concatenate([*few, rng.choice(anywhere, left)])


@BOTH
@cases(ALL + MEETING, often=TWO + MEETING)
def test_kernels_give_the_bits_of_the_specification(name, p, derivative):
    d = descriptor_of(name, p)
    # Every half of some parameter sets is judged elsewhere, and slow rows have many digits.
    compare(d, sample(name, p, np.float16, derivative, 512 if (name, p) in TWO + MEETING else 2048), derivative)
    compare(d, sample(name, p, np.float32, derivative, 500), derivative)


@pytest.mark.exhaustive
@BOTH
@cases(ALL)
def test_kernels_give_the_bits_of_the_specification_everywhere(name, p, derivative):
    d = descriptor_of(name, p)
    compare(d, HALVES, derivative)
    compare(d, sample(name, p, np.float32, derivative, 100_000), derivative)
    for channel_format in (F.unorm8, F.unorm16):
        storage = FORMATS[channel_format]
        got, want = (evaluated(d, mode, storage, derivative) for mode in ("ideal", "specified"))
        same_bits(got, want, storage.patterns())


def evaluated(d, mode, storage, derivative):
    codes = storage.patterns()
    slopes = None if d.data is None else ChannelSlopes(d.data.astype(np.float64)[np.newaxis], 1)
    source = Elements(codes, storage)
    if derivative:
        gradient = Elements(codes[::-1].copy(), storage)
        return MODES[mode].neuron(d, source, storage, slopes, gradient=gradient)
    return MODES[mode].neuron(d, source, storage, slopes)


# ---- bits that float64 got wrong ----


@pytest.mark.parametrize(
    ("d", "x", "want"),
    [
        # c - 1 is no float64: the limit is infinite, and not infinity by infinity.
        (D(T.power, 1, 0, 2.0**53), [math.inf, -math.inf], [math.inf, -math.inf]),
        (D(T.power, 1, 0, -(2.0**53)), [math.inf, -math.inf, 0.0], [-0.0, 0.0, -math.inf]),
        # The sign of -0.0 is no comparison's.
        (D(T.hardSigmoid, -0.0, 0.5), [0.0, 9.0], [-0.0, -0.0]),
        (D(T.hardSigmoid, -1, 0.5), [0.25, 9.0], [-1.0, 0.0]),
        (D(T.reLUN, -0.0, -(2.0**-35)), [-1.0, 1.0], [0.0, 0.0]),
        (D(T.reLUN, -0.0, 1), [-1.0, 0.5, 1.0], [-0.0, 1.0, 0.0]),
        (D(T.reLUN, -2, 1), [-0.25, -1.0], [-2.0, 0.0]),
        # c - 1 is rounded to -1, whose power of -0 is negative.
        (D(T.power, 1, -0.0, 1e-30), [-0.0], [math.inf]),
    ],
    ids=str,
)
def test_slopes_at_infinities_and_their_signs_of_zero(d, x, want):
    x, want = np.float32(x), np.float32(want)
    same_bits(mps.neuron.gradient(d, x, np.ones_like(x)), want, x)
    same_bits(mps.neuron.specified_gradient(d, x, np.ones_like(x)), want, x)


@pytest.mark.parametrize(
    ("d", "x", "want"),
    [
        (D(T.power, 1, -0.0, 0.5), [-0.0, 0.0], [0.0, 0.0]),
        (D(T.exponential, 1, 0, -0.0), [1.0, 2.0, 0.5, 0.0], [-0.0, 0.0, 0.0, 1.0]),
        (D(T.exponential, 2.0**-60, 3, -0.0), [1.0], [0.0]),  # no odd integer, though float64 says 3
    ],
    ids=str,
)
def test_signs_of_zero_of_powers(d, x, want):
    x, want = np.float32(x), np.float32(want)
    same_bits(mps.neuron.forward(d, x), want, x)
    same_bits(mps.neuron.specified(d, x), want, x)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("bias", "negative"), [(0.0, False), (-0.0, True)])
def test_a_sum_of_negative_zeros_has_the_sign_of_the_formula(mode, bias, negative):
    zero = Elements(np.float32([-0.0]), FORMATS[F.float32])

    (got,) = MODES[mode].elementwise(Sum(bias=bias), [zero, zero], FORMATS[F.float32])

    assert got == 0
    assert np.signbit(got) == negative


# ---- images ----


def graph_of(mode, storage):
    """A neuron, its gradient, an addition and its gradients, on images."""
    x, z, dy = (mps.MPSNNImageNode(handle=handle) for handle in ("x", "z", "dy"))
    h = mps.MPSCNNNeuronPReLUNode(source=x, a_data=[0.1, -0.7, 0.0, 1.3, -0.0])
    y = mps.MPSCNNNeuronGeLUNode(source=h.result_image)
    total = mps.MPSNNAdditionNode(left_source=y.result_image, right_source=z)
    total.primary_scale, total.secondary_scale, total.bias, total.maximum_value = 1.3, -0.7, 0.1, 0.8
    gradients = [*total.gradient_filters(with_source=dy), y.gradient_filter(with_source=dy)]
    nodes = [h, y, total, *gradients]
    return mps.MPSNNGraph(result_images=[node.result_image for node in nodes], format=storage, mode=mode)


@pytest.mark.parametrize("storage", [F.unorm8, F.unorm16, F.float16, F.float32], ids=lambda f: f.name)
def test_a_graph_runs_as_specified(storage):
    rng, dtype = np.random.default_rng(3), FORMATS[storage].dtype

    def image():
        drawn = rng.normal(0.5, 0.5, (3, 4, 5)) * (FORMATS[storage].unorm_max or 4)
        codes = np.clip(drawn, 0, FORMATS[storage].unorm_max) if FORMATS[storage].unorm_max else drawn
        return mps.MPSImage.from_array(codes.astype(dtype), storage)

    sources = {handle: image() for handle in ("x", "z", "dy")}

    specified, ideal = (graph_of(mode, storage).run(**sources) for mode in ("specified", "ideal"))

    for name, want in specified.items():
        same_bits(ideal[name].to_array(), want.to_array(), sources["x"].to_array())
    assert len({want.to_array().tobytes() for want in specified.values()}) == len(specified) >= 5


def test_sums_are_specified_for_what_is_awkward():
    rng = np.random.default_rng(4)
    values = np.float32([0.0, -0.0, 1, -1, 0.1, 2.0**-149, 3.4e38, -3.4e38, np.inf, -np.inf, np.nan, 1 + 2.0**-12])
    finite = values[np.isfinite(values)].tolist()
    for _ in range(60):
        storages = [FORMATS[F(code)] for code in rng.choice([1, 2, 3, 4], 3)]
        with np.errstate(over="ignore"):
            left, right = (
                Elements(rng.choice(range(250) if storage.unorm_max else values, 40).astype(storage.dtype), storage)
                for storage in storages[:2]
            )
        scales, bias = tuple(rng.choice(finite, 2).tolist()), float(rng.choice(finite))
        bounds = (-np.inf, np.inf) if rng.random() < 0.5 else (-0.5, 2.0)
        for operation, sources in ((Sum(scales, bias, bounds), [left, right]), (Scaling(scales[0]), [left])):
            want, got = (MODES[m].elementwise(operation, sources, storages[2]) for m in ("specified", "ideal"))
            same_bits(got, want, left.stored, right.stored)


# ---- arguments ----


def test_channels_have_their_slopes():
    d = D(T.pReLU, data=[0.5, -0.25])
    x = np.float16([[-1, -2, 3], [-4, -0.0, 8]])

    assert mps.neuron.specified(d, x, channel_axis=0).tolist() == [[-0.5, -1, 3], [1, 0, 8]]
    assert mps.neuron.specified(d, x.T).tolist() == [[-0.5, 1], [-1, 0], [3, 8]]
    assert mps.neuron.specified_gradient(d, x.T, 2 * np.ones_like(x.T)).tolist() == [[1, -0.5], [1, 2], [2, 2]]
    assert mps.neuron.specified(D(T.reLU), np.float32(-1.0)).shape == ()
    assert mps.neuron.specified(d, x[:, :0].T).shape == (0, 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mps.neuron.specified(D(T.tanH), np.ones(3)), "float64.*give float16 or float32"),
        (lambda: mps.neuron.specified(D(T.tanH), [1, 2]), "int64.*give float16 or float32"),
        (lambda: mps.neuron.specified_gradient(D(T.tanH), np.ones(3, "f4"), np.ones(2, "f4")), "upstream is float32.2"),
        (lambda: mps.neuron.specified(D(T.pReLU, data=[1, 2]), np.ones(3, "f4")), "2 slopes, but axis 0 of x has 3"),
        (lambda: mps.neuron.specified(D(T.pReLU, data=[1, 2]), np.ones(2, "f4"), channel_axis=1), "x has 1 axes"),
        (lambda: mps.neuron.specified(D(T.tanH), np.ones(2, "f4"), channel_axis="c"), "give the number of an axis"),
        (lambda: mps.neuron.specified(3, np.ones(2, "f4")), "give an MPSNNNeuronDescriptor"),
        (lambda: mps.neuron.forward(D(T.tanH), np.ones(2), mode="specified"), "float64.*mode 'ideal'"),
    ],
)  # fmt: skip
def test_other_arguments_are_refused(call, message):
    with pytest.raises(mps.MPSRefError, match=message):
        call()


# ---- a neuron without a kernel ----


class Saturated(Neuron):
    """``x^2 / (1 + x^2)``."""

    neuron_type = T.softSign
    formula, slope = "x^2 / (1 + x^2)", "2 x / (1 + x^2)^2"
    exact = (
        lambda x, p, m: x * x / (1 + x * x) if x.is_finite() else Decimal(1),
        lambda x, p, m: 2 * x / (1 + x * x) ** 2 if x.is_finite() else Decimal(0),
    )

    @staticmethod
    def stepwise_forward(x, p, f):
        return x * x / (1 + x * x)

    @staticmethod
    def stepwise_derivative(x, p, f):
        return 2.0 * x / f.square(1 + x * x)


def test_a_neuron_without_a_kernel_is_right(monkeypatch):
    monkeypatch.setattr(descriptors, "NEURONS", {**mps.NEURONS, T.softSign: Saturated()})
    x = np.float32([0.1, 1, -1e-20, 3, 1e30, np.inf, np.nan])
    want = [Fraction(v) ** 2 / (1 + Fraction(v) ** 2) for v in x[:5].tolist()]
    source = mps.MPSNNImageNode(handle="x")
    node = mps.MPSCNNNeuronSoftSignNode(source=source)
    graph = mps.MPSNNGraph(result_image=node.result_image, format=F.float32)

    y = mps.neuron.forward(node.descriptor, x)
    slope = mps.neuron.gradient(node.descriptor, x, 3 * np.ones_like(x))

    # A quotient of Python's integers is correctly rounded to float64, and none of these is near a float32 tie.
    assert y[:5].tolist() == [float(np.float32(v.numerator / v.denominator)) for v in want]
    assert y[5] == 1
    assert np.isnan(y[6])
    assert np.isnan(slope[6])
    assert slope[1] == 1.5
    assert slope[5] == 0
    same_bits(graph.run(x=x.reshape(1, -1, 1))["result0"].to_array().ravel(), y, x)


@cases([("tanH", (1.7159, 0.6667)), ("pReLU", (0.1,))])
def test_without_its_kernel_a_neuron_gives_the_same(name, p, monkeypatch):
    d, x = descriptor_of(name, p), sample(name, p, np.float16, False, 300)[:, None]
    want = mps.neuron.forward(d, x), mps.neuron.gradient(d, x, x)
    monkeypatch.setattr("mpsref.neuron.evaluate.KERNELS", {})

    same_bits(mps.neuron.forward(d, x), want[0], x)
    same_bits(mps.neuron.gradient(d, x, x), want[1], x)


def test_every_row_has_its_kernel():
    assert set(KERNELS) == {type(row) for row in [*mps.NEURONS.values(), *ACTIVATIONS.values()]}


# ---- what a sceptic reads ----


def entered(call):
    """The lines of the functions of the package that a call enters, by file."""
    codes = set()

    def profile(frame, event, _):
        if event == "call":
            codes.add(frame.f_code)

    sys.setprofile(profile)
    try:
        call()
    finally:
        sys.setprofile(None)
    lines: dict[str, set[int]] = {}
    for code in codes:
        if Path(code.co_filename).is_relative_to(Path(mps.__file__).parent):
            source, first = inspect.getsourcelines(code)
            lines.setdefault(code.co_filename, set()).update(range(first, first + len(source)))
    return lines


@pytest.mark.parametrize("neuron_type", T, ids=lambda t: t.name)
def test_the_specification_is_short(neuron_type):
    d = D(neuron_type, data=[0.25]) if neuron_type is T.pReLU else D(neuron_type)
    x = np.float32([[-1.7], [2.3], [np.inf], [-0.0]])
    for call in (lambda: mps.neuron.specified(d, x), lambda: mps.neuron.specified_gradient(d, x, x)):
        call()

        lines = entered(call)

        assert len(lines) <= 4, sorted(lines)
        assert 90 < sum(map(len, lines.values())) <= 200, {Path(name).name: len(own) for name, own in lines.items()}
