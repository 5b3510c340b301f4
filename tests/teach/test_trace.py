"""Traces: the numbers are the graph's own, the slopes the judge's, and the chain rule says what it multiplies."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from fractions import Fraction

import numpy as np
import pytest

import mpsref as mps
from builders import image, named
from mpsref import teach
from mpsref.proof.judge import Judge

F, T = mps.MPSImageFeatureChannelFormat, mps.MPSCNNNeuronType
FORMATS = [F.unorm8, F.unorm16, F.float16, F.float32]
MODES = ["ideal", "stepwise", "stepwise-fma"]
SPECIAL = [np.nan, np.inf, -np.inf, 0.0, -0.0, 6e-8, -1e-5, 0.3, -0.7, 1.0, 2.5, -6.5, 88.0, 300.0, -3e4]


def descriptor(neuron_type, channels=1):
    data = np.linspace(-0.5, 1.25, channels) if mps.NEURONS[neuron_type].per_channel else None
    return mps.MPSNNNeuronDescriptor(neuron_type, data=data)


def judge_of(d, channel=0):
    return Judge(
        d.neuron_type.name, *(d.data[channel : channel + 1].tolist() if d.data is not None else [d.a, d.b, d.c])
    )


def neuron_graph(d, format=F.float32, mode="ideal"):
    """A neuron after an absolute value, with gradients."""
    h = named(mps.MPSCNNNeuronAbsoluteNode(source=image("x")), "h")
    y = named(mps.MPSCNNNeuronNode(source=h.result_image, descriptor=d), "y")
    (last,) = y.training_graph(with_source_gradient=image("dy"))
    return mps.MPSNNGraph(result_images=[y.result_image, last.result_image], format=format, mode=mode)


def one(value, dtype=np.float32):
    return np.full((1, 1, 1), value, dtype)


def same(a, b):
    """The same bits, but for the payload of NaN."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    nan = np.isnan(a) & np.isnan(b)
    return a.shape == b.shape and np.array_equal(np.where(nan, 0, a).view(np.int64), np.where(nan, 0, b).view(np.int64))


def meaning(image):
    """What is stored, as float64."""
    codes = image.to_array()
    most = {F.unorm8: 255, F.unorm16: 65535}.get(image.feature_channel_format)
    return (codes.astype(np.float32) / np.float32(most) if most else codes).astype(np.float64)


# ---- stored is what the graph stores ----


@pytest.mark.parametrize("neuron_type", mps.NEURONS, ids=lambda t: t.name)
@pytest.mark.parametrize("format", FORMATS, ids=lambda f: f.name)
def test_stored_has_the_bits_of_the_graph(neuron_type, format):
    rng = np.random.default_rng(int(neuron_type))
    x = np.concatenate([SPECIAL, rng.normal(0, 3, 21)]).astype(np.float32).reshape(2, 3, 1, 6)
    dy = rng.normal(0, 2, x.shape).astype(np.float16)
    dy[0, 0, 0, :2] = np.inf, 0
    for mode in MODES:
        graph = neuron_graph(descriptor(neuron_type, 6), format, mode)
        images = graph.run(x=x, dy=dy)
        trace = teach.trace(graph, x=x, dy=dy)

        assert [step.name for step in trace.steps] == ["h", "y", "dh", "dx"]
        assert same(trace["y"].stored, meaning(images["y"]))
        assert same(trace["dx"].stored, meaning(images["x"]))
        assert {step.format for step in trace.steps} == {format}


def test_what_a_step_read_is_what_others_stored():
    trace = teach.trace(neuron_graph(descriptor(T.tanH)), x=one(-0.7), dy=one(0.3))

    assert trace["dx"].reads == ("dh", "x")
    for step in trace.steps:
        for name, read in zip(step.reads, step.sources, strict=True):
            assert same(read, trace[name].stored if name in ("h", "y", "dh") else trace.sources[name])
    assert same(trace["dh"].upstream, trace.sources["dy"])
    assert trace["h"].upstream is None


def test_a_graph_file_and_several_results_of_which_one_is_not_needed():
    x = image("x")
    first, second = (named(mps.MPSCNNNeuronTanHNode(source=x, b=b), name) for b, name in ((1, "p"), (2, "q")))
    graph = mps.MPSNNGraph(result_images=[first.result_image, second.result_image], results_are_needed=[False, True])
    file = mps.GraphFile.from_results([first.result_image, second.result_image], F.unorm8)

    assert [step.name for step in teach.trace(graph, x=one(1)).steps] == ["q"]
    trace = teach.trace(file, x=one(1))
    assert [step.name for step in trace.steps] == ["p", "q"]
    assert trace["q"].stored == np.float32(246) / np.float32(255)  # tanh(2) = 0.96403


# ---- value and slope, by the judge ----


@pytest.mark.parametrize("neuron_type", mps.NEURONS, ids=lambda t: t.name)
@pytest.mark.parametrize("format", [F.unorm8, F.float16, F.float32], ids=lambda f: f.name)
def test_value_slope_and_product_are_the_real_ones(neuron_type, format):
    d = descriptor(neuron_type)
    x = np.random.default_rng(2).normal(0, 3, 40).astype(np.float32).reshape(1, 40, 1)
    dy = np.full(x.shape, 1 / 3, np.float32)
    trace = teach.trace(neuron_graph(d, format, "stepwise"), x=x, dy=dy)
    read = trace["h"].stored.ravel()
    judge = judge_of(d)

    for step, derivative, upstream in ((trace["y"], False, None), (trace["dh"], True, trace["dh"].upstream.ravel())):
        want = judge.float64s(read, derivative, upstream)
        np.testing.assert_allclose(step.value.ravel(), want, rtol=3e-15, atol=0)
        np.testing.assert_allclose(step.slope.ravel(), judge.float64s(read, True), rtol=3e-15, atol=0)
    product = [
        Fraction(g) * Fraction(s) for g, s in zip(trace["dh"].upstream.flat, trace["dh"].slope.flat, strict=True)
    ]
    for value, exact in zip(trace["dh"].value.flat, product, strict=True):
        assert abs(Fraction(value) - exact) <= abs(exact) * Fraction(1, 1 << 49)


def test_sums_have_scales_a_bias_and_clamps():
    x, y = image("x"), image("y")
    total = named(mps.MPSNNAdditionNode(left_source=x, right_source=y), "s")
    total.primary_scale, total.secondary_scale, total.bias = -2, 0.5, 3
    total.maximum_value = 4
    total.label = "not its name"
    gradients = total.gradient_filters(with_source=image("g"))
    results = [total.result_image, *(node.result_image for node in gradients)]
    trace = teach.trace(mps.MPSNNGraph(result_images=results), x=one(1), y=one(0.1), g=one(3))
    exact = -2 * Fraction(1) + Fraction(float(np.float32(0.1))) / 2 + 3

    assert [(step.name, step.kind) for step in trace.steps] == [("s", "sum"), ("dx", "scale"), ("dy", "scale")]
    assert Fraction(float(trace["s"].value.item())) == exact
    assert trace["s"].rounding == float(np.float16(float(exact))) - float(exact)
    assert trace["s"].rule == "s = clamp(-2 * x + 0.5 * y + 3, -inf, 4)"
    assert (trace["dx"].value, trace["dy"].value) == (-6, 1.5)
    assert (trace["dx"].slope, trace["dx"].upstream) == (-2, 3)
    assert teach.trace(mps.MPSNNGraph(result_images=results), x=one(-9), y=one(0), g=one(3))["s"].value == 4


@pytest.mark.parametrize("format", FORMATS, ids=lambda f: f.name)
def test_an_ideal_step_is_off_by_at_most_half_a_unit(format):
    x = np.random.default_rng(3).random((1, 500, 1)).astype(np.float32)
    trace = teach.trace(neuron_graph(descriptor(T.sigmoid), format), x=x, dy=x)

    for name in ("y", "dh"):
        # A code of unorm means a float32, which is not just a multiple of the distance of two codes.
        assert 0.4 < np.abs(trace[name].rounding_ulp).max() <= 0.5 + (2e-3 if "unorm" in format.name else 1e-9)


def test_what_is_beyond_the_format_overflows_and_nan_is_no_rounding():
    graph = neuron_graph(descriptor(T.linear), F.float16)
    step = teach.trace(graph, x=np.float32([[[1e6, np.inf, np.nan]]]), dy=np.ones((1, 1, 3), np.float32))["h"]

    assert step.rounding.ravel().tolist() == [np.inf, 0, 0]
    assert "  overflow\n" in str(teach.trace(graph, x=one(1e6), dy=one(1)))


def test_what_a_format_cannot_hold_is_clamped_not_rounded():
    def rounding(x, format):
        trace = teach.trace(neuron_graph(descriptor(T.softPlus), format), x=one(x), dy=one(-3))
        table = {line.split()[0]: line.rsplit("  ", 1)[1].strip() for line in str(trace.at(0, 0, 0)).splitlines()[4:]}
        return table["y"], table["dh"], trace.chain_rule("dh").splitlines()[-1].split("stored as ")[1]

    assert rounding(1, F.unorm8) == ("clamped", "clamped", "unorm8: 0 (clamped)")
    assert rounding(0.2, F.unorm16)[0].endswith(" ULP")
    assert "clamped" not in str(rounding(1, F.float16))
    step = teach.trace(neuron_graph(descriptor(T.linear), F.unorm16), x=one(np.nan), dy=one(np.nan))
    assert str(step).splitlines()[-1].endswith("nan becomes 0")
    assert "0 (nan becomes 0)" in step.chain_rule(rounding=True)
    many = np.linspace(-1, 2, 50).reshape(1, 50, 1)
    lines = str(teach.trace(neuron_graph(descriptor(T.none), F.unorm8), x=many, dy=many)).splitlines()
    for line in (line for line in lines if line.startswith(("h ", "dh "))):
        assert float(re.search(r"(\S+) ULP, clamped$", line)[1]) <= 0.5


def test_a_rounding_that_is_hardly_one_has_no_sign():
    trace = teach.trace(neuron_graph(descriptor(T.tanH), F.float32), x=one(1e-9), dy=one(1))

    text = trace.table(rounding=True)
    assert text.count("  below 0.001 ULP") >= 1
    assert "+below" not in text
    assert "-below" not in text


def test_a_sum_may_overflow():
    x = total = image("x")
    total = mps.MPSCNNNeuronExponentialNode(source=x).result_image
    for _ in range(3):
        other = mps.MPSCNNNeuronExponentialNode(source=x).result_image
        total = mps.MPSNNAdditionNode(left_source=total, right_source=other).result_image
    (last,) = total.producer.training_graph(with_source_gradient=image("dy"))
    trace = teach.trace(mps.MPSNNGraph(result_image=last.result_image, format=F.float32), x=709.0, dy=1.0)

    assert "= inf    stored as float32: inf (exact)" in trace.chain_rule(rounding=True)


@pytest.mark.parametrize("shapes", [((2, 2, 1), (1, 1, 1)), ((1, 1, 1), (3, 1, 1, 2)), ((3, 3, 3), (1, 2, 3))])
def test_parts_of_a_graph_may_differ_in_size(shapes):
    nodes = [named(mps.MPSCNNNeuronTanHNode(source=image(name)), f"t{name}") for name in "pq"]
    graph = mps.MPSNNGraph(result_images=[node.result_image for node in nodes])
    sources = dict(zip("pq", (np.ones(shape, np.float16) for shape in shapes), strict=True))
    trace = teach.trace(graph, **sources)

    assert str(trace).startswith("all elements of ")
    assert len(str(trace).splitlines()) == 2 + 4
    assert [trace["tp"].stored.size, trace["tq"].stored.size] == [np.prod(shape) for shape in shapes]
    assert len(str(trace.at(0, 0, 0)).splitlines()) == 2 + 4
    assert "step by step" in teach.explain(graph, **sources)
    larger, smaller = ("q", "p") if shapes[0] == (1, 1, 1) else ("p", "q")
    place = {"y": 0, "x": 0, "channel": 1, "image": 2} if larger == "q" else {"y": 1, "x": 1, "channel": 0}
    assert trace.at(**place, of=larger).left_out == (smaller, f"t{smaller}")
    with pytest.raises(mps.ImageError, match=rf"it must lie in range\(1\), for image '{smaller}'"):
        trace.at(**place, of=smaller)


# ---- one element ----


@pytest.mark.parametrize("channels", [8, 9])
def test_one_element_is_that_of_all(channels):
    shape = (2, 3, 4, channels)
    x = np.random.default_rng(4).normal(size=shape).astype(np.float16)
    trace = teach.trace(neuron_graph(descriptor(T.pReLU, channels), F.float16), x=-x, dy=x)
    place = (1, 2, 3, 7)
    small = trace.at(2, 3, 7, image=1)

    for all_of, one_of in zip(trace.steps, small.steps, strict=True):
        for name in ("stored", "value", "rounding", "slope", "upstream"):
            whole, part = getattr(all_of, name), getattr(one_of, name)
            assert (whole is None and part is None) or (part.shape == (1, 1, 1, 1) and part.item() == whole[place])
        assert [read.item() for read in one_of.sources] == [read[place] for read in all_of.sources]
    assert small.sources["x"].item() == -x[place]
    assert small.at(0, 0, 0) is small
    y = image("h")
    node = named(mps.MPSCNNNeuronPReLUNode(source=y, a_data=np.linspace(-0.5, 1.25, 9)), "y")
    slopes = teach.trace(mps.MPSNNGraph(result_image=node.result_image), h=-np.ones((1, 1, 9), np.float16))["y"].slope
    assert slopes.ravel().tolist() == np.float32(np.linspace(-0.5, 1.25, 9)).tolist()
    with pytest.raises(mps.ImageError, match=rf"channel is {channels}: it must lie in range\({channels}\)"):
        trace.at(0, 0, channels)
    with pytest.raises(mps.ParameterError, match="y is 1\\.5"):
        trace.at(1.5, 0, 0)


def test_what_cannot_be_traced():
    trace = teach.trace(neuron_graph(descriptor(T.tanH)), x=np.ones((2, 1, 1), np.float32), dy=np.ones((2, 1, 1), "f4"))
    forward = mps.MPSNNGraph(result_image=mps.MPSCNNNeuronTanHNode(source=image("x")).result_image)

    with pytest.raises(mps.ParameterError, match="graph is a dict"):
        teach.trace({})
    with pytest.raises(mps.SourceError, match="missing 'dy'"):
        teach.trace(neuron_graph(descriptor(T.tanH)), x=one(1))
    with pytest.raises(mps.SourceError, match="no step makes 'z': the steps make 'h', 'y', 'dh', 'dx'"):
        trace["z"]
    with pytest.raises(mps.ImageError, match="for one element"):
        trace.chain_rule(rounding=True)
    with pytest.raises(mps.SourceError, match="'h' is not a gradient that a step makes: these are 'dh', 'dx'"):
        trace.at(0, 0, 0).chain_rule("h")
    with pytest.raises(mps.SourceError, match=r"None is not a gradient .* none"):
        teach.trace(forward, x=one(1)).chain_rule(rounding=True)


# ---- names ----


def test_no_two_steps_have_one_name():
    x = image("x")
    a, b = mps.MPSCNNNeuronTanHNode(source=x), mps.MPSCNNNeuronTanHNode(source=x)
    b.label = "x"
    c = mps.MPSNNAdditionNode(left_source=a.result_image, right_source=b.result_image)
    ones = mps.MPSNNInitialGradientNode(source=c.result_image)
    (last,) = ones.training_graph()
    trace = teach.trace(mps.MPSNNGraph(result_image=last.result_image), x=one(0.5))

    assert [step.name for step in trace.steps] == [
        "tanH", "tanH.2", "addition", "ones", "dtanH", "dx.1", "dtanH.2", "dx.2", "dx",
    ]  # fmt: skip
    assert trace["ones"].kind == "ones"
    assert trace["dx"].is_backward
    assert not trace["addition"].is_backward


def test_names_are_those_when_the_graph_was_made():
    graph = neuron_graph(descriptor(T.tanH))
    before = str(teach.trace(graph, x=one(1), dy=one(1)))
    for image_node in graph.plan.images:
        image_node.handle = "other"

    assert str(teach.trace(graph, x=one(1), dy=one(1))) == before


# ---- the chain rule ----


def lines_of(text):
    """The equation's lines by name, and the equations of the gradients below."""
    equation, _, rest = text.partition("\n\n")
    first, *others = re.sub(r"\n +([-+]) ", r" \1 ", equation).split("\n")
    return [first.partition(" = ")[2], *(line.partition("= ")[2] for line in others)], rest


def value_of(expression):
    assert re.fullmatch(r"[-+*() .\de]+", expression), expression
    return eval(expression)  # noqa: S307


def test_the_chain_rule_of_a_chain():
    graph = neuron_graph(descriptor(T.tanH), F.float16)
    trace = teach.trace(graph, x=one(-0.7), dy=one(0.3))
    (names, numbers, result), rest = lines_of(trace.chain_rule(rounding=True))
    value, stored, off, ulps = re.fullmatch(
        r"(\S+)    stored as float16: (\S+) \((\S+), (\S+) ULP\)", result
    ).groups()  # fmt: skip
    exact = -float(np.float32(0.3)) * judge_of(descriptor(T.tanH)).float64s(trace["h"].stored.ravel(), True).item()

    assert names == "dy * TanH'(h) * Absolute'(x)"
    assert value_of(numbers) == pytest.approx(exact, rel=1e-5)
    assert float(value) == pytest.approx(exact, rel=1e-5)
    assert float(stored) == pytest.approx(float(trace["dx"].stored.item()), rel=1e-5)
    assert float(off) == pytest.approx(trace["dx"].stored.item() - exact, rel=0.1)
    assert float(ulps) == pytest.approx(abs(float(off)) / 2**-13, rel=0.1)
    assert rest.count("stored as float16") == 2
    for line in rest.splitlines()[1:]:
        products, value = re.fullmatch(r"  d. = .*?  = (.*?) += (\S+) +stored as.*", line).groups()
        assert value_of(products) == pytest.approx(float(value), rel=1e-5)


def layered(depth):
    """Layers in each of which two neurons read what the layer before has summed: 2^depth paths."""
    x = at = image("x")
    for i in range(depth):
        p, q = mps.MPSCNNNeuronLinearNode(source=at, a=0.5, b=1), mps.MPSCNNNeuronReLUNode(source=at, a=-2)
        total = named(mps.MPSNNAdditionNode(left_source=p.result_image, right_source=q.result_image), f"s{i}")
        total.secondary_scale = -3
        at = total.result_image
    (last,) = at.producer.training_graph(with_source_gradient=image("dy"))
    return mps.MPSNNGraph(result_image=last.result_image, format=F.float32), x


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 6])
def test_fan_out_is_a_sum_of_products(depth):
    graph, _ = layered(depth)
    trace = teach.trace(graph, x=one(0.75), dy=one(1))
    exact, at = Fraction(1), Fraction(3, 4)
    for _ in range(depth):  # the slope of x/2 + 1 - 3 relu(x), whose numbers are all exact
        exact *= Fraction(1, 2) - 3 * (1 if at >= 0 else -2)
        at = at / 2 + 1 - 3 * (at if at >= 0 else -2 * at)
    lines, rest = lines_of(trace.chain_rule("dx", rounding=True))

    for numbers in lines[1:-1]:
        assert value_of(numbers) == pytest.approx(float(exact), rel=1e-4)
    assert float(lines[-1].split()[0]) == pytest.approx(float(exact), rel=1e-5)
    assert trace["dx"].stored == exact
    assert lines[-1].endswith("(exact)")
    assert lines[1].count("*") <= 8 * 7
    assert ("too many paths or factors" in rest) == (depth > 3 or "dy" not in lines[0])
    assert lines[0].count("dy") == (2**depth if depth <= 2 else lines[0].count("dy"))
    for step in trace.steps:
        assert not step.is_backward or f"  {step.rule} " in rest


def test_a_chain_of_a_thousand_nodes():
    at, nodes = image("x"), []
    for i in range(1000):
        nodes.append(named(mps.MPSCNNNeuronLinearNode(source=at, a=1 if i % 2 else -1), f"h{i}"))
        at = nodes[-1].result_image
    (last,) = nodes[-1].training_graph(with_source_gradient=image("dy"))
    graph = mps.MPSNNGraph(result_images=[at, last.result_image])
    trace = teach.trace(graph, x=one(0.25), dy=one(3))
    text = trace.chain_rule(rounding=True)

    assert len(trace.steps) == 2000
    assert trace["dx"].value == 3
    assert len(str(trace).splitlines()) == 2004
    assert text.splitlines()[0].count("*") == 7
    assert text.count("stored as") == 1001


def test_a_clamped_sum_of_gradients_stands_for_itself():
    x = image("x")
    a, b = mps.MPSCNNNeuronLinearNode(source=x, a=3), mps.MPSCNNNeuronLinearNode(source=x, a=5)
    g = image("g")
    results = [node.gradient_filter(with_source=g).result_image for node in (a, b)]
    total = mps.MPSNNAdditionNode(sources=results)
    total.maximum_value, total.bias = 6, 0.5
    text = teach.trace(mps.MPSNNGraph(result_image=total.result_image), x=one(1), g=one(1)).chain_rule(rounding=True)

    assert text.startswith("dx = clamp(dx.1 + dx.2 + 0.5, -inf, 6)\n   = 6    stored as float16: 6 (exact)")
    total.maximum_value = 60
    total.maximum_value = float(np.finfo(np.float32).max)
    text = teach.trace(mps.MPSNNGraph(result_image=total.result_image), x=one(1), g=one(1)).chain_rule(rounding=True)
    assert text.splitlines()[:4] == [
        "dx = g * Linear[a=3]'(x) + g * Linear[a=5]'(x) + 0.5",
        "   = 1 * 3 + 1 * 5 + 0.5",
        "   = 3 + 5 + 0.5",
        "   = 8.5    stored as float16: 8.5 (exact)",
    ]


def test_neurons_that_differ_are_told_apart():
    x, g = image("x"), image("g")
    nodes = [mps.MPSCNNNeuronTanHNode(source=x, a=a, b=3) for a in (1, 2)]
    nodes += [mps.MPSCNNNeuronPReLUNode(source=x, a_data=data) for data in ([0.5], [0.25])]
    nodes += [mps.MPSCNNNeuronSoftPlusNode(source=x, a=7) for _ in range(2)]
    results = [node.gradient_filter(with_source=g).result_image for node in nodes]
    results += [node.result_image for node in nodes]
    trace = teach.trace(mps.MPSNNGraph(result_images=results), x=one(1), g=one(1)).at(0, 0, 0)

    symbols = ["TanH[a=1]", "TanH[a=2]", "PReLU[data=0.5]", "PReLU[data=0.25]", "SoftPlus", "SoftPlus"]
    assert [step.symbol for step in trace.steps if step.kind == "gradient"] == symbols
    assert [step.symbol for step in trace.steps if step.kind == "forward"] == symbols
    for step, symbol in zip(trace.steps[6:], symbols, strict=True):
        assert trace.chain_rule(step.name, rounding=True).startswith(f"{step.name} = g * {symbol}'(x)\n")


def test_what_follows_a_clamped_sum_names_it():
    x, g = image("x"), image("g")
    first = mps.MPSCNNNeuronLinearNode(source=x, a=7)
    second, third = (mps.MPSCNNNeuronLinearNode(source=first.result_image, a=a) for a in (3, 5))
    total = mps.MPSNNAdditionNode(sources=[n.gradient_filter(with_source=g).result_image for n in (second, third)])
    total.maximum_value = 6
    total.result_image.handle = "clamped"
    last = first.gradient_filter(with_source=total.result_image)
    text = teach.trace(mps.MPSNNGraph(result_image=last.result_image), x=one(1), g=one(1)).chain_rule(rounding=True)

    assert text.splitlines()[:3] == [
        "dx = clamped * Linear[a=7]'(x)",
        "   = 6 * 7",
        "   = 42    stored as float16: 42 (exact)",
    ]
    assert "too many" not in text


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 0.0, -1.0])
def test_infinities_and_nan_can_be_printed(value):
    graph = neuron_graph(descriptor(T.logarithm), F.float16)
    trace = teach.trace(graph, x=one(value), dy=one(-value))

    assert "stored as float16" in trace.chain_rule(rounding=True)
    assert str(trace).startswith("image 0, y 0, x 0, channel 0\n")


# ---- any graph ----


def any_graph(rng):
    """Some neurons and additions in any order and format, with handles that are taken, and their gradients."""
    channels = int(rng.choice([1, 3, 4, 8]))
    images = [image(f"x{i}") for i in range(rng.integers(1, 4))]
    for _ in range(rng.integers(1, 10)):
        if rng.random() < 0.3:
            node = mps.MPSNNAdditionNode(sources=[images[i] for i in rng.integers(0, len(images), 2)])
            node.primary_scale, node.bias = float(rng.choice([1, 1, -2, 0.5])), float(rng.choice([0, 0, 1]))
        else:
            d = descriptor(T(rng.choice(list(mps.NEURONS))), channels)
            node = mps.MPSCNNNeuronNode(source=images[rng.integers(max(0, len(images) - 3), len(images))], descriptor=d)
        node.result_image.format = rng.choice(F, p=[0.6, *[0.1] * 4])
        node.result_image.handle, node.label = (
            None if n == "" else str(n) for n in rng.choice(["", "h", "dx0", "x1"], 2)
        )
        images.append(node.result_image)
    last = images[-1].producer
    if rng.random() < 0.5:
        last = mps.MPSNNInitialGradientNode(source=last.result_image)
    gradients = last.training_graph(with_source_gradient=None) or []
    results = [node.result_image for node in gradients] + [images[-1]]
    mode, storage = rng.choice(MODES), FORMATS[rng.integers(4)]
    return mps.MPSNNGraph(result_images=results, format=storage, mode=str(mode)), results, channels


@pytest.mark.parametrize("seed", range(25))
def test_any_graph_can_be_traced_and_drawn(seed):
    rng = np.random.default_rng(seed)
    graph, results, channels = any_graph(rng)
    shape = (2, 1, 2, channels)
    sources = {name: rng.normal(0, 3, shape).astype(rng.choice(["f2", "f4"])) for name in graph.source_image_handles}
    next(iter(sources.values())).flat[0] = rng.choice(SPECIAL)
    trace, images = teach.trace(graph, **sources), list(graph.run(**sources).values())
    by_image = dict(zip((step.plan_step.node.result_image for step in trace.steps), trace.steps, strict=True))
    pixel = trace.at(0, 1, channels - 1, image=1)

    assert len({*trace.sources, *(step.name for step in trace.steps)}) == len(trace.sources) + len(trace.steps)
    for result, stored in zip(results, images, strict=True):
        assert same(by_image[result].stored, meaning(stored))
    for step, one_of in zip(trace.steps, pixel.steps, strict=True):
        assert one_of.stored == step.stored[1, 0, 1, -1] or np.isnan(one_of.stored)
        np.testing.assert_allclose(one_of.value.item(), step.value[1, 0, 1, -1], rtol=1e-14)
        if graph.mode == "ideal" and "unorm" not in step.format.name:
            assert np.nanmax(np.where(np.isinf(step.rounding), 0, np.abs(step.rounding_ulp))) <= 0.5 + 1e-6
    for name in pixel.gradients:
        assert pixel.chain_rule(name).startswith(f"{name} = ")
    assert len(str(pixel).splitlines()) == 2 + len(trace.sources) + len(trace.steps)
    assert str(trace)
    ET.fromstring(graph._repr_svg_())  # noqa: S314


# ---- tables ----


def test_tables_have_a_row_a_step_and_no_row_of_somebody_elses():
    d = descriptor(T.tanH)
    hostile = "x\n\x1b[31m</td><script>\u202e"
    h = mps.MPSCNNNeuronNode(source=image("x"), descriptor=d)
    h.result_image.handle = hostile
    graph = mps.MPSNNGraph(result_image=h.result_image)
    few = teach.trace(graph, x=np.ones((1, 2, 2), np.float32))
    many = teach.trace(graph, x=np.linspace(-1, 1, 400, dtype=np.float32).reshape(2, 10, 10, 2))

    assert len([line for line in str(few).splitlines() if line.startswith("x")]) == 8  # two rows in each of four tables
    assert str(few).isprintable() or not [c for c in str(few) if not c.isprintable() and c != "\n"]
    lines = str(many).splitlines()
    assert lines[0] == "all elements of 10x10x2 x2 images, from the smallest to the largest"
    assert len(lines) == 4
    assert "-1 to 1" in lines[2]
    for trace, tables in ((few, 4), (many, 1)):
        parsed = ET.fromstring(f"<div>{trace._repr_html_()}</div>")  # noqa: S314
        assert len(parsed.findall("table")) == tables
        assert len(parsed.findall("table/tbody/tr")) == 2 * tables
        assert not list(parsed.iter("script"))
    assert repr(few) == "<Trace of 1 steps>"
    assert repr(few.at(0, 1, 0)) == "<Trace of 1 steps at image 0, y 0, x 1, channel 0>"


def test_an_image_is_shown_as_numbers_or_as_pictures():
    numbers = mps.MPSImage.from_array(np.float16([[[1, 2, np.nan]]]))
    array = np.zeros((2, 100, 70, 9), np.float32)
    array[..., 3] = np.linspace(-1, 1, 70)
    array[0, 0, 0, :2] = np.nan, np.inf
    pictures = mps.MPSImage.from_array(array)
    pictures.label = "<b>"

    assert [cell.text for cell in ET.fromstring(numbers._repr_html_()).iter("td")] == ["1", "2", "nan"]  # noqa: S314
    text = pictures._repr_html_()
    assert text.count("<img") == 12
    assert "<b>" not in text
    for fact in ("black -1, white 0.971014", "pink NaN, orange infinite", "every 2 pixels", "6 more channels"):
        assert fact in text
    assert len(text) < 20_000


def test_a_picture_is_a_png_of_the_numbers():
    import base64  # noqa: PLC0415
    from io import BytesIO  # noqa: PLC0415

    from matplotlib.image import imread  # noqa: PLC0415

    array = np.linspace(-1, 3, 16 * 8, dtype=np.float32).reshape(16, 8, 1)
    array[0, 1], array[2, 3] = np.nan, -np.inf
    html = mps.MPSImage.from_array(array)._repr_html_()
    picture = imread(BytesIO(base64.b64decode(re.search('base64,([^"]*)', html)[1])))

    assert picture.shape == (16, 8, 3)
    finite = np.isfinite(array[..., 0])
    assert np.abs(4 * picture - 1 - array)[finite].max() < 4 * 0.5 / 255 + 1e-5
    assert np.rint(255 * picture[0, 1]).tolist() == [204, 121, 167]
    assert np.rint(255 * picture[2, 3]).tolist() == [230, 159, 0]


def test_importing_teach_brings_no_matplotlib():
    import subprocess  # noqa: PLC0415
    import sys  # noqa: PLC0415

    code = "import sys, mpsref.teach; print('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


@pytest.mark.parametrize(
    ("given", "held"), [(-3, [-3.0]), (np.float16(0.1), [float(np.float16(0.1))]), ([1, -2.5], [1.0, -2.5])]
)
def test_a_number_or_one_for_each_channel_is_an_image_of_one_pixel(given, held):
    n = mps.MPSCNNNeuronAbsoluteNode(source=mps.MPSNNImageNode(handle="x"))
    traced = teach.trace(mps.MPSNNGraph(result_image=n.result_image), x=given)

    assert traced.sources["x"].tolist() == [[[held]]]


# ---- what was lost ----


def sigmoids(count, format=F.float16, x=0.5):
    at = image("x")
    for i in range(count):
        at = named(mps.MPSCNNNeuronSigmoidNode(source=at), f"h{i + 1}").result_image
    (last,) = at.producer.training_graph(with_source_gradient=image("dy"))
    return teach.trace(mps.MPSNNGraph(result_images=[at, last.result_image], format=format), x=x, dy=1.0)


def test_a_gradient_that_vanishes_in_half_is_lost_where_it_does_and_0_because_of_that():
    trace = sigmoids(13)
    table = str(trace).splitlines()

    assert [step.name for step in trace.steps if step.stored == 0] == ["dh1", "dx"]
    assert trace["dh1"].value != 0
    assert table[-2].endswith("underflow")
    assert table[-1].endswith("0 because dh1 was lost")
    assert "(0 because dh1 was lost)" in trace.chain_rule().splitlines()[2]
    assert trace.chain_rule().splitlines()[-2].endswith("0 (underflow)")
    assert "exact" not in trace.chain_rule().splitlines()[-1]
    assert "subnormal" in table[-3]


def test_what_a_long_product_would_lose_in_float64_too_is_lost():
    trace = sigmoids(600)

    assert trace.lost["dx"].text.startswith("0 because dh")
    assert next(iter(trace.lost)) == trace.lost["dx"].reason.split()[0]


def test_zeros_that_are_none_of_storage_are_not_lost():
    h = named(mps.MPSCNNNeuronReLUNode(source=image("x"), a=0), "h")
    (last,) = h.training_graph(with_source_gradient=image("dy"))
    graph = mps.MPSNNGraph(result_images=[h.result_image, last.result_image])

    assert teach.trace(graph, x=-1.0, dy=1.0).lost == {}
    assert teach.trace(graph, x=np.inf, dy=1.0).lost == {}
    assert teach.trace(graph, x=np.float16([[[-1, np.nan]]]), dy=1e-9 * np.ones((1, 1, 2))).lost == {}


def test_what_overflows_is_told_from_what_is_infinite_because_of_it():
    x = image("x")
    e = named(mps.MPSCNNNeuronExponentialNode(source=x), "e")
    r = named(mps.MPSCNNNeuronReLUNode(source=e.result_image), "r")
    s = named(mps.MPSCNNNeuronSoftSignNode(source=e.result_image), "s")
    (last,) = s.training_graph(with_source_gradient=image("dy"))
    graph = mps.MPSNNGraph(result_images=[r.result_image, s.result_image, last.result_image])
    one_of, many = teach.trace(graph, x=12.0, dy=1.0), teach.trace(graph, x=np.linspace(0, 13, 40), dy=np.ones(40))

    assert {name: lost.text for name, lost in one_of.lost.items()} == {
        "e": "overflow",
        "r": "infinite because e overflowed",
        "de": "0 because e overflowed",
        "dx": "0 because e overflowed",
    }
    count = int((np.exp(np.linspace(0, 13, 40).astype("f4")) >= 65520).sum())
    assert many.lost["e"].text == f"{count} overflow"
    assert many.lost["r"].text == f"{count} lost before"
    assert f"ULP, {count} overflow" in str(many)


def test_what_becomes_nan_because_of_an_overflow():
    e = named(mps.MPSCNNNeuronExponentialNode(source=image("x")), "e")
    d = named(mps.MPSNNSubtractionNode(left_source=e.result_image, right_source=e.result_image), "d")
    trace = teach.trace(mps.MPSNNGraph(result_image=d.result_image), x=20.0)

    assert {name: lost.text for name, lost in trace.lost.items()} == {"e": "overflow", "d": "nan because e overflowed"}


def test_forward_steps_come_first_whatever_the_results_are():
    graph = neuron_graph(descriptor(T.tanH))
    nodes = [graph.plan.images[i] for i in graph.plan.results]
    reversed_graph = mps.MPSNNGraph(result_images=nodes[::-1])

    assert [step.name for step in teach.trace(reversed_graph, x=one(1), dy=one(1)).steps] == ["h", "y", "dh", "dx"]


# ---- rounding where it can be seen ----


def test_rounding_is_shown_only_where_it_can_be_seen_or_is_asked_for():
    fine = teach.trace(neuron_graph(descriptor(T.sigmoid)), x=one(0.3), dy=one(1))
    coarse = teach.trace(neuron_graph(descriptor(T.sigmoid), F.float16), x=one(0.3), dy=one(1))
    words = ("rounding", "stored", "ULP")

    for text in (str(fine), fine.chain_rule(), coarse.table(rounding=False), coarse.chain_rule(rounding=False)):
        assert not any(word in text for word in words)
        assert "dx" in text
    for text in (str(coarse), coarse.chain_rule(), fine.table(rounding=True), fine.chain_rule(rounding=True)):
        assert "stored" in text
        assert "ULP" in text


def test_a_chain_rule_is_an_equation_in_a_notebook():
    rule = teach.trace(neuron_graph(descriptor(T.sigmoid), F.float16), x=one(0.3), dy=one(1)).chain_rule()
    parsed = ET.fromstring(f"<div>{rule._repr_html_()}</div>".replace("<br>", "<br/>"))  # noqa: S314
    rows = [[cell.text or "" for cell in row] for row in parsed.findall("table/tbody/tr")]

    assert rows[0] == [
        "dx",
        "=",
        "dy \N{MULTIPLICATION SIGN} Sigmoid\N{PRIME}(h) \N{MULTIPLICATION SIGN} Absolute\N{PRIME}(x)",
    ]
    assert [row[1] for row in rows] == ["=", "=", "="]
    assert "stored as float16" in "".join(parsed.find("p").itertext()) + "".join(parsed.findall("p")[-1].itertext())


# ---- numbers and the drawing ----


def test_numbers_by_name_and_the_gradient_of_an_image():
    trace = sigmoids(2, F.float32)

    assert trace.h2 == trace["h2"].stored.item()
    assert (trace.x, trace.dy) == (0.5, 1)
    assert trace.gradients["x"] == trace.dx == trace["dx"].stored.item()
    assert trace.gradients["h2"] == 1
    assert trace.gradients == ("dh1", "dx")
    with pytest.raises(AttributeError, match="no step makes 'dz'"):
        trace.dz  # noqa: B018
    with pytest.raises(mps.SourceError, match="no step makes the gradient of 'dx'"):
        trace.gradients["dx"]


def test_the_drawing_of_a_trace_has_each_number_and_its_gradient():
    trace = sigmoids(2, F.float32)
    drawing = ET.fromstring(teach.svg(trace))  # noqa: S314
    boxes = ["".join(box.itertext()) for box in drawing.iter("{http://www.w3.org/2000/svg}g") if box.get("class")]

    assert len(boxes) == 3  # gradients have no boxes of their own
    for name, box in zip(("x", "h1", "h2"), boxes, strict=True):
        assert box.endswith(f"{getattr(trace, name):.4g} | {trace.gradients[name]:.4g}")
    many = teach.trace(neuron_graph(descriptor(T.absolute)), x=np.float32([[[-2, 1]]]), dy=np.ones((1, 1, 2)))
    assert "-2 to 1 | -1 to 1" in teach.svg(many)
    assert teach.svg(trace) in trace._repr_html_()
