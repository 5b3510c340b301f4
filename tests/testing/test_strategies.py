"""The Hypothesis strategies: what they draw, what they refuse, what they shrink to."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis import strategies as st
from hypothesis.errors import InvalidArgument, NoSuchExample
from hypothesis.vendor.pretty import pretty

import mpsref as mps
from mpsref import hypothesis_plugin
from mpsref.storage import FLOAT64, FORMATS
from mpsref.testing import strategies as mpst
from mpsref.verify import verify

T = mps.MPSCNNNeuronType
F = mps.MPSImageFeatureChannelFormat
ROOT = Path(__file__).parents[2]

STORAGES = {storage.name: storage for storage in (*FORMATS.values(), FLOAT64)}
GRAPH = mps.GraphFile.from_results([mps.MPSCNNNeuronAbsoluteNode(source=mps.MPSNNImageNode(handle="x")).result_image])
RELUN = mps.MPSNNNeuronDescriptor(T.reLUN, a=0.5, b=0.1)
few = settings(max_examples=50, deadline=None, database=None, suppress_health_check=list(HealthCheck))
hard = settings(
    max_examples=20_000, database=None, deadline=None, derandomize=True, phases=[Phase.generate, Phase.shrink]
)
unshrunk = settings(hard, phases=[Phase.generate])


def drawn(strategy, condition, how=unshrunk):
    """An example, as it is drawn or, with `hard`, shrunk."""
    try:
        return find(strategy, condition, settings=how)
    except NoSuchExample:
        pytest.fail("never drawn")


def bits(number):
    return int(number.view(f"u{number.itemsize}"))


# ---- numbers ----


@pytest.mark.parametrize("name", STORAGES)
def test_numbers_are_scalars_of_the_stored_dtype_and_shrink_to_zero(name):
    least = find(mpst.floats(name), lambda x: True)

    assert type(least) is STORAGES[name].dtype.type
    assert bits(least) == 0


@pytest.mark.parametrize("spelling", [F.float16, "float16", np.float16, np.dtype("float16")])
def test_a_format_has_several_names(spelling):
    assert find(mpst.floats(spelling), lambda x: True).dtype == np.float16


FLOATING = ["float16", "float32", "float64"]
SPECIAL = {
    "a kink": lambda x: x == x.dtype.type(RELUN.b),
    "beside a kink": lambda x: x == np.nextafter(x.dtype.type(RELUN.b), x.dtype.type(0)),
    "-0": lambda x: x == 0 and np.signbit(x),
    "largest": lambda x: x == np.finfo(x.dtype).max,
    "smallest normal": lambda x: x == -np.finfo(x.dtype).smallest_normal,
    "largest subnormal": lambda x: x == np.nextafter(np.finfo(x.dtype).smallest_normal, x.dtype.type(0)),
    "smallest": lambda x: x == np.finfo(x.dtype).smallest_subnormal,
    "-inf": lambda x: x == -np.inf,
    "negative NaN": lambda x: np.isnan(x) and np.signbit(x),
    "payload": lambda x: np.isnan(x) and bits(x) & 0xFF == 1,
    "an integer": lambda x: 100 < x < 2000 and x == int(x),
    "beside 1": lambda x: x == np.nextafter(x.dtype.type(1), x.dtype.type(2)),
}


@pytest.mark.parametrize("name", FLOATING)
@pytest.mark.parametrize("kind", SPECIAL)
def test_what_breaks_implementations_is_drawn(name, kind):
    drawn(mpst.floats(name, neuron=RELUN), SPECIAL[kind])


def test_edges_of_the_neuron_are_drawn():
    tanh = mps.MPSNNNeuronDescriptor(T.tanH)
    saturated = mps.neuron.forward(tanh, np.float32([9.0, 9.1]))
    assert saturated[0] < saturated[1] == 1

    def first_one(x):
        below = np.nextafter(x, np.float32(0))
        y = mps.neuron.forward(tanh, np.stack([below, x]))
        return y[0] < y[1] == 1

    with np.errstate(all="ignore"):
        drawn(mpst.floats("float32", neuron=tanh), first_one)


@pytest.mark.parametrize("step", [0, 1, pytest.param(-1, marks=pytest.mark.slow)])
def test_numbers_midway_between_two_halves_are_drawn_and_their_neighbours(step):
    def is_near_midway(x):
        with np.errstate(all="ignore"):
            middle = x if not step else np.nextafter(x, np.float32(step) * np.float32(np.inf))
            if not 0 < abs(middle) < 60_000:
                return False
            low = middle.astype(np.float16)
            other = np.nextafter(low, np.float16(np.inf) if low < middle else np.float16(-np.inf))
            return float(low) + float(other) == 2 * float(middle)

    drawn(mpst.floats("float32"), is_near_midway)
    overflow = np.float32(65520)
    drawn(
        mpst.floats("float32"),
        lambda x: x == np.nextafter(overflow, np.float32(step * np.inf)) if step else x == overflow,
    )


@pytest.mark.parametrize("name", ["unorm8", "unorm16"])
def test_codes_beside_a_kink_are_drawn(name):
    most = STORAGES[name].unorm_max
    kink = round(0.1 * most)
    for code in (kink - 1, kink, kink + 1, 0, most):
        drawn(mpst.floats(name, neuron=RELUN), lambda x, code=code: x == code)
    with pytest.raises(InvalidArgument, match="has no NaN"):
        find(mpst.floats(name, allow_nan=True), lambda x: True)


BOUNDS = st.sampled_from([(0, 1), (1, 1.5), (-3, -2), (0, 0), (-1, 2**-14), (None, -0.5), (0.25, None)])


@few
@given(name=st.sampled_from(FLOATING), bounds=BOUNDS, data=st.data())
def test_bounds_hold(name, bounds, data):
    low, high = bounds
    numbers = mpst.floats(name, neuron=RELUN, min_value=low, max_value=high)
    for x in data.draw(st.lists(numbers, min_size=5, max_size=5)):
        assert low is None or x >= low
        assert high is None or x <= high


@few
@given(name=st.sampled_from(FLOATING), data=st.data())
def test_nan_infinity_and_subnormal_numbers_can_be_left_out(name, data):
    numbers = mpst.floats(name, neuron=RELUN, allow_nan=False, allow_infinity=False, allow_subnormal=False)
    for x in data.draw(st.lists(numbers, min_size=10, max_size=10)):
        assert np.isfinite(x)
        assert x == 0 or abs(x) >= np.finfo(x.dtype).smallest_normal


@few
@given(x=mpst.sources("unorm16", min_value=7, max_value=900))
def test_bounds_of_codes_hold(x):
    assert x.dtype == np.uint16
    assert ((x >= 7) & (x <= 900)).all()


@pytest.mark.parametrize(
    ("strategy", "words"),
    [
        (
            lambda: mpst.floats("float8"),
            "must be one of unorm8, unorm16, float16, float32, bfloat16, float64, or the dtype",
        ),
        (lambda: mpst.floats(F.none), "must be one of"),
        (lambda: mpst.floats(np.int32), "must be one of"),
        (lambda: mpst.floats(None), "format=None must be one of"),
        (lambda: mpst.floats("float16", min_value="0"), "min_value='0' must be a number"),
        (lambda: mpst.floats("float16", max_value=[1]), r"max_value=\[1\] must be a number"),
        (lambda: mpst.floats("unorm8", min_value=float("nan")), "min_value=nan must be a number"),
        (lambda: mpst.floats("unorm8", max_value=float("inf")), "must be codes of unorm8"),
        (lambda: mpst.floats("float16", allow_nan="no"), "allow_nan='no' must be True or False, or None"),
        (lambda: mpst.floats("float16", allow_subnormal=None), "allow_subnormal=None must be True or False"),
        (
            lambda: mpst.floats("float16", min_value=2.0**-24, max_value=2.0**-15, allow_subnormal=False),
            "all are subnormal: leave out allow_subnormal",
        ),
        (lambda: mpst.sources(neuron=3), "neuron=.* must be an MPSNNNeuronDescriptor"),
        (lambda: mpst.sources(shape=(2, -1)), r"shape=\(2, -1\) must have no negative number"),
        (lambda: mpst.formats(floating="yes"), "floating='yes' must be True or False"),
        (lambda: mpst.floats("float16", min_value=0.1), "0.1"),
        (lambda: mpst.floats("float16", min_value=2, max_value=1), "min_value"),
        (lambda: mpst.floats("unorm8", max_value=256), "must be codes of unorm8"),
        (lambda: mpst.floats(neuron="relu"), "must be an MPSNNNeuronDescriptor"),
        (lambda: mpst.neuron_types([]), "types is empty"),
        (lambda: mpst.neuron_types([99]), "must be a list of MPSCNNNeuronType members"),
        (lambda: mpst.descriptors(T.tanH), "neuron_types=.* must be a list of MPSCNNNeuronType members"),
        (lambda: mpst.descriptors(st.just(3)), "neuron_types has drawn 3: it must be a strategy of MPSCNNNeuronType"),
        (lambda: mpst.descriptors([T.pReLU], channels=0), "channels=0 must be at least 1"),
        (lambda: mpst.descriptors([T.pReLU], channels=st.just(0)), "channels=0 must be at least 1"),
        (lambda: mpst.descriptors([T.tanH], channels="3"), "channels='3' must be an integer"),
        (lambda: mpst.descriptors([T.tanH], parameters=3), "parameters=3 must be a strategy, of float"),
        (
            lambda: mpst.image_descriptors("float64"),
            "format='float64' must be one of unorm8, unorm16",
        ),
        (lambda: mpst.image_descriptors(F.none), "must be one of unorm8, unorm16, float16, float32"),
        (lambda: mpst.image_descriptors(max_side=0), "max_side=0 must be at least 1"),
        (lambda: mpst.image_descriptors(channels=1.5), "channels=1.5 must be an integer"),
        (lambda: mpst.image_descriptors(max_images=True), "max_images=True must be an integer"),
        (lambda: mpst.images(3), "descriptor=3 must be an MPSImageDescriptor"),
        (lambda: mpst.images(st.just(3)), "descriptor has drawn 3: it must be a strategy of MPSImageDescriptor"),
        (lambda: mpst.images(max_values=0), "max_values=0 must be at least 1"),
        (lambda: mpst.graphs(max_nodes=0), "max_nodes=0 must be at least 1"),
        (lambda: mpst.graphs(channels="1"), "channels='1' must be an integer"),
        (lambda: mpst.graphs(neurons=RELUN), "neurons=.* must be a strategy, of MPSNNNeuronDescriptor"),
        (lambda: mpst.graphs(neurons=mpst.neuron_types(), additions=False), "neurons has drawn"),
        (lambda: mpst.graphs(training="yes"), "training='yes' must be True or False, or None"),
        (lambda: mpst.graphs(settings=1), "settings=1 must be True or False"),
        (lambda: mpst.graph_sources(3), "graph=3 must be a GraphFile"),
        (lambda: mpst.graph_sources(GRAPH, descriptor=3), "must be an MPSImageDescriptor"),
        (lambda: mpst.recordings(3), "graphs=3 must be a strategy, of GraphFile"),
        (lambda: mpst.recordings(st.just(3)), "graphs has drawn 3"),
    ],
)
def test_what_makes_no_sense_is_refused_when_it_is_drawn(strategy, words):
    lazy = strategy()
    with pytest.raises(InvalidArgument, match=words):
        find(lazy, lambda x: True)


def test_a_default_of_parameters_must_be_a_float32_and_code_is_made_of_a_graph():
    for default in (float("nan"), 1e39, "1"):
        with pytest.raises(InvalidArgument, match=r"default=.* must be a number that is finite as a float32"):
            mpst.parameters(default)
    with pytest.raises(mps.ParameterError, match="graph is a int: give a GraphFile"):
        mpst.graph_code(3)


@pytest.mark.parametrize("name", ["float16", "float32", "float64"])
def test_each_kind_of_number_is_drawn_in_a_test_of_usual_length(name):
    kinds = {
        "infinity": np.isinf,
        "NaN": np.isnan,
        "-0": lambda x: x == 0 and np.signbit(x),
        "subnormal": lambda x: np.finfo(x.dtype).smallest_subnormal < abs(x) < np.finfo(x.dtype).smallest_normal,
    }
    drawn_by = dict.fromkeys(kinds, 0)

    @settings(max_examples=100, deadline=None, database=None, derandomize=True, phases=[Phase.generate])
    @given(x=st.lists(mpst.floats(name), min_size=10, max_size=10))
    def count(x):
        for kind, is_it in kinds.items():
            drawn_by[kind] += sum(map(bool, map(is_it, x)))

    count()
    assert min(drawn_by.values()) >= 5, drawn_by


def test_infinity_may_be_a_bound():
    assert find(mpst.floats("float16", min_value=float("inf")), lambda x: True) == np.inf
    assert find(mpst.floats("float32", max_value=float("-inf")), lambda x: True) == -np.inf


def test_strategies_say_what_they_are():
    assert repr(mpst.floats("float16", allow_nan=False)) == "floats(format='float16', allow_nan=False)"
    assert repr(mpst.graphs(channels=3)) == "graphs(channels=3)"


def test_arrays_have_a_channel_for_each_slope():
    d = mps.MPSNNNeuronDescriptor(T.pReLU, data=[0.5, 2, 3])
    assert find(mpst.sources("float16", neuron=d), lambda x: True).shape == (1, 3)


def test_nan_payloads_reach_the_array():
    x = find(mpst.sources("float16", shape=(2,)), lambda x: bool((x.view(np.uint16) == 0x7E01).any()))
    assert np.isnan(x).any()


# ---- neurons ----


def test_types_come_in_the_order_of_the_enumeration():
    assert find(mpst.neuron_types(), lambda t: True) is T.none
    assert find(mpst.neuron_types([T.tanH, T.linear]), lambda t: True) is T.linear
    for t in mps.NEURONS:
        assert drawn(mpst.neuron_types(), lambda other, t=t: other is t) is t


@pytest.mark.parametrize("t", [t for t in T if t is not T.pReLU], ids=lambda t: t.name)
def test_descriptors_shrink_to_the_documented_defaults(t):
    assert find(mpst.descriptors([t]), lambda d: True) == mps.MPSNNNeuronDescriptor(t)


LARGEST = float(np.finfo(np.float32).max)


@pytest.mark.parametrize(
    "condition",
    [
        lambda a: str(a) == "-0.0",
        lambda a: str(a) == "0.0",
        lambda a: 0 < abs(a) < 1e-40,
        lambda a: a == LARGEST,
        lambda a: a < 0 and a == int(a) and abs(a) > 2,
        lambda a: len(str(np.float32(a))) > 8,
        lambda a: len(str(np.float32(a))) == 3 and a not in (0.5, 1, 0),
    ],
)
def test_parameters_of_every_kind_are_drawn(condition):
    drawn(mpst.descriptors([T.tanH]), lambda d: condition(d.b))
    drawn(mpst.descriptors([T.pReLU], channels=2), lambda d: condition(float(d.data[1])))


def test_slopes_are_as_many_as_channels_which_may_be_drawn():
    assert len(find(mpst.descriptors([T.pReLU], channels=st.just(5)), lambda d: True).data) == 5
    assert drawn(mpst.descriptors(channels=3), lambda d: d.data is not None, hard).data.tolist() == [0.25] * 3
    assert find(mpst.descriptors(st.just(T.ELU)), lambda d: True).neuron_type is T.ELU
    assert find(mpst.descriptors([T.ELU], parameters=st.just(3.0)), lambda d: True).a == 3


# ---- images ----


def test_images_have_every_form_and_shrink_to_one_zero():
    least = find(mpst.images(), lambda image: True)
    assert (least.to_array().shape, least.to_array().sum()) == ((1, 1, 1, 1), 0)
    for condition in (
        lambda image: image.feature_channels == 9 and image.number_of_images == 2,
        lambda image: image.width == 3 and image.height == 2,
        *(lambda image, f=f: image.feature_channel_format == f for f in FORMATS),
    ):
        drawn(mpst.images(), condition)


@few
@given(descriptor=mpst.image_descriptors(F.float16, channels=5, max_side=2, max_images=1), data=st.data())
def test_an_image_is_as_it_was_asked_for(descriptor, data):
    image = data.draw(mpst.images(descriptor, max_value=3, min_value=2))
    assert image.descriptor == descriptor
    assert (image.feature_channels, image.number_of_images, image.feature_channel_format) == (5, 1, F.float16)
    assert max(image.width, image.height) <= 2
    assert ((image.to_array() >= 2) & (image.to_array() <= 3)).all()


# ---- graphs ----


def kinds(graph):
    return [type(node).__name__.removeprefix("MPS") for node in graph.nodes]


def readers(graph):
    return [[node for node in graph.nodes if image in node.sources] for image in graph.images.values()]


def fans_out(graph, *, source):
    """Whether several forward nodes read a source, or else a result."""
    forward = [node for node in graph.nodes if not isinstance(node, mps.MPSNNGradientFilterNode)]
    images = [image for image in graph.images.values() if (image.producer is None) == source]
    return any(sum(image in node.sources for node in forward) > 1 for image in images)


def sets(name, value=True):
    return lambda graph: any(getattr(image, name) == value for image in graph.images.values())


NEURON, ADDITION, GRADIENT = "CNNNeuronNode", "NNAdditionNode", "CNNNeuronGradientNode"
DRAWN = {
    "fan-out": lambda graph: any(len(found) > 1 for found in readers(graph)),
    "two sources": lambda graph: "x1" in graph.images,
    "gradients that are added": lambda graph: "dx_2" in graph.images,
    "a label": lambda graph: any(node.label for node in graph.nodes),
    "an export": sets("export_from_graph"),
    "a stop": sets("stop_gradient"),
    "a source at which the gradient stops": lambda graph: any(
        image.stop_gradient and not image.producer for image in graph.images.values()
    ),
    "a result with several readers, and gradients": lambda graph: (
        GRADIENT in kinds(graph) and fans_out(graph, source=False)
    ),
    "no format": lambda graph: any(
        image.producer and not image.format and image.producer.sources[0].format for image in graph.images.values()
    ),
    "a scale": lambda graph: any(getattr(node, "bias", 0) for node in graph.nodes),
    "four nodes": lambda graph: "h3" in graph.images,
}
SMALLEST = {
    "anything": (mpst.graphs(), lambda graph: True, [NEURON]),
    "a gradient": (mpst.graphs(), lambda graph: GRADIENT in kinds(graph), [NEURON, GRADIENT]),
    "a chain": (mpst.graphs(training=False), lambda graph: len(graph.nodes) == 3, [NEURON] * 3),
    "an addition": (mpst.graphs(training=False), lambda graph: ADDITION in kinds(graph), [ADDITION]),
    "ones": (mpst.graphs(), lambda graph: "ones" in graph.images, [NEURON, "NNInitialGradientNode", GRADIENT]),
    "a format": (mpst.graphs(training=False, additions=False), sets("format", F.unorm8), [NEURON]),
    "a source with two readers": (
        mpst.graphs(training=False, additions=False),
        lambda graph: fans_out(graph, source=True),
        [NEURON] * 2,
    ),
    "a storage": (mpst.graphs(training=False), lambda graph: graph.storage == F.unorm16, [NEURON]),
}


@pytest.mark.parametrize("what", DRAWN)
def test_graphs_of_each_kind_are_drawn(what):
    drawn(mpst.graphs(), DRAWN[what])


OFTEN = {
    "sums of gradients": lambda graph: any(name.startswith("d") and "_2" in name for name in graph.images),
    "stops": lambda graph: GRADIENT in kinds(graph) and sets("stop_gradient")(graph),
    "results with several readers": lambda graph: fans_out(graph, source=False),
    "exports": sets("export_from_graph"),
}


def test_what_is_promised_is_drawn_in_a_test_of_usual_length():
    found = []

    @settings(
        max_examples=300,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(graph=mpst.graphs(training=True))
    def count(graph):
        found.append({what for what, is_there in OFTEN.items() if is_there(graph)})

    count()
    assert not {what for what in OFTEN if sum(what in each for each in found) < 0.04 * len(found)}


@pytest.mark.parametrize("what", SMALLEST)
def test_graphs_shrink_to_the_smallest_of_their_kind(what):
    strategy, condition, smallest = SMALLEST[what]
    graph = drawn(strategy, condition, hard)
    assert kinds(graph) == smallest
    assert {node.descriptor.neuron_type for node in graph.nodes if hasattr(node, "descriptor")} <= {T.none}


@few
@given(graph=mpst.graphs(channels=3, training=False, additions=False, settings=False, max_nodes=2))
def test_what_is_not_asked_for_is_not_drawn(graph):
    assert len(graph.nodes) <= 2
    assert set(kinds(graph)) <= {T.__name__[3:] for T in mps.MPSCNNNeuronNode.__subclasses__()} | {"CNNNeuronNode"}
    assert "images" not in graph.to_json()


@few
@given(graph=mpst.graphs(training=True, settings=False))
def test_training_graphs_have_gradients_of_what_the_last_node_reads(graph):
    assert any(kind.endswith("GradientNode") for kind in kinds(graph))


@settings(max_examples=60, deadline=None)
@given(graph=st.sampled_from([1, 3]).flatmap(lambda channels: mpst.graphs(channels=channels)), shuffle=st.randoms())
def test_the_code_of_a_graph_runs_and_builds_it_again(graph, shuffle):
    document = graph.to_json()
    nodes = list(document["nodes"])
    shuffle.shuffle(nodes)
    for file in (graph, mps.GraphFile.from_json(document | {"nodes": nodes})):
        names: dict = {}
        exec(mpst.graph_code(file), names)  # noqa: S102
        assert names["graph"].to_json() == file.to_json()


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_layers_have_code_and_sources_that_fit_and_are_as_they_are_specified(data):
    graph = data.draw(mpst.layers())
    sources, names = data.draw(mpst.graph_sources(graph)), {}
    exec(mpst.graph_code(graph), names)  # noqa: S102
    assert names["graph"].to_json() == graph.to_json()
    ideal, specified = (
        mps.MPSNNGraph(result_images=graph.result_images, format=graph.storage, mode=mode).run(**sources)
        for mode in ("ideal", "specified")
    )
    for name, image in ideal.items():
        assert image.to_array().tobytes() == specified[name].to_array().tobytes()


LAYERS = {
    "stride": lambda d: d.stride_in_pixels_x > 1,
    "groups": lambda d: d.groups > 1,
    "dilation": lambda d: d.dilation_rate_y > 1,
    "depthwise": lambda d: isinstance(d, mps.MPSCNNDepthWiseConvolutionDescriptor),
    "neuron": lambda d: d.fused_neuron_descriptor is not None,
}


def test_layers_of_each_kind_are_drawn():
    seen = set()

    @settings(max_examples=100, phases=[Phase.generate], database=None, deadline=None, derandomize=True)
    @given(mpst.layers())
    def look(graph):
        sources = graph.data_sources.values()
        seen.update(what for what, is_so in LAYERS.items() for source in sources if is_so(source.descriptor()))

    look()
    assert seen == set(LAYERS)


def test_code_copes_with_any_name():
    document = {
        "format": "mpsref-graph", "version": 1, "storage": "float32",
        "nodes": [
            {"class": "MPSCNNNeuronAbsoluteNode", "source": "mps", "result": "class"},
            {"class": "MPSCNNNeuronPReLUNode", "source": "class", "a_data": [0.1, 2.0], "result": "a b"},
            {"class": "MPSCNNNeuronAbsoluteNode", "source": "a b", "label": "it's", "result": "_0"},
            {"class": "MPSCNNNeuronAbsoluteNode", "source": "graph", "result": "not needed"},
        ],
        "results": ["_0"],
    }  # fmt: skip
    names: dict = {}
    exec(mpst.graph_code(mps.GraphFile.from_json(document)), names)  # noqa: S102
    assert names["graph"].to_json() == document


def test_a_failing_example_prints_code_that_runs():
    @settings(database=None)
    @given(graph=mpst.graphs())
    def nothing_has_a_gradient(graph):
        assert len(graph.nodes) == 1

    with pytest.raises(AssertionError) as failure:
        nothing_has_a_gradient()

    notes = [note for note in failure.value.__notes__ if note.startswith("import mpsref")]
    names: dict = {}
    exec(notes[0], names)  # noqa: S102
    assert len(names["graph"].nodes) == 2


# ---- sources and recordings ----


def test_sources_have_one_size_the_format_of_their_node_and_a_channel_for_each_slope():
    x, y = mps.MPSNNImageNode(handle="x"), mps.MPSNNImageNode(handle="y")
    y.format = F.unorm8
    slopes = mps.MPSCNNNeuronPReLUNode(source=x, a_data=[1, 2, 3])
    both = mps.MPSNNAdditionNode(left_source=slopes.result_image, right_source=y)
    graph = mps.GraphFile.from_results([both.result_image])

    found = drawn(mpst.graph_sources(graph), lambda images: images["x"].feature_channel_format == F.float16, hard)

    assert {name: image.to_array().shape for name, image in found.items()} == {"x": (1, 1, 1, 3), "y": (1, 1, 1, 3)}
    assert found["y"].feature_channel_format == F.unorm8
    other = mps.MPSCNNNeuronPReLUNode(source=x, a_data=[1, 2])
    with pytest.raises(mps.ImageError, match=r"channels: no image fits all"):
        find(mpst.graph_sources(mps.GraphFile.from_results([slopes.result_image, other.result_image])), lambda _: True)


def test_recordings_are_correct_and_may_lack_images(tmp_path):
    chains = mpst.graphs(max_nodes=2, training=False, additions=False)
    recording = drawn(mpst.recordings(chains), lambda r: "h1" in r.images and "h0" not in r.images)
    assert set(recording.images) >= {"x", "h1"}
    assert verify(recording.write(tmp_path / "r"), tolerance="exact").passed


def test_recordings_are_written_in_either_way(tmp_path):
    for raw in (False, True):
        recording = drawn(mpst.recordings(), lambda r, raw=raw: r.raw is raw)
        folder = recording.write(tmp_path / str(raw)).parent
        assert {path.suffix == ".npy" for path in folder.iterdir() if path.suffix != ".json"} == {not raw}


# ---- the extra and the entry point ----


def test_without_hypothesis_an_attack_says_what_to_install():
    code = "import sys; sys.modules['hypothesis'] = None\nfrom mpsref.testing import compare, check_implementation"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert run.stderr.splitlines()[-1] == (
        "mpsref.errors.DependencyError: mpsref.testing.check_implementation needs hypothesis: "
        "pip install 'mpsref[testing]'"
    )


def test_without_hypothesis_one_sentence_says_what_to_install():
    code = "import sys; sys.modules['hypothesis'] = None; import mpsref.testing\nimport mpsref.testing.strategies"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)

    last = run.stderr.splitlines()[-1]
    assert last == (
        "mpsref.errors.DependencyError: mpsref.testing.strategies needs hypothesis: pip install 'mpsref[testing]'"
    )
    assert "The above exception" not in run.stderr


def test_the_parts_that_need_no_hypothesis_do_not_import_it():
    code = "import sys, mpsref.testing, mpsref.hypothesis_plugin; print('hypothesis' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert run.stdout == "False\n"


def test_importing_hypothesis_imports_nothing_but_the_hook():
    code = "import sys, hypothesis; print({name for name in sys.modules if name.startswith(('mpsref', 'numpy'))})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert ast.literal_eval(run.stdout) == {"mpsref", "mpsref.hypothesis_plugin"}


@pytest.mark.parametrize("first", ["import hypothesis", "import mpsref as mps; mps.MPSImage", "import mpsref.image"])
def test_the_hook_registers_every_type_and_imports_the_strategies_only_when_asked(first):
    code = (
        f"{first}\n"
        """
import sys
from hypothesis import Phase, find, settings
from hypothesis import strategies as st
import mpsref as mps

mps.MPSImage
print("mpsref.testing" in sys.modules)
once = settings(phases=[Phase.generate], database=None)
neuron = ["MPSCNNNeuronType", "MPSNNNeuronDescriptor"]
for name in [*neuron, "MPSImageFeatureChannelFormat", "MPSImageDescriptor", "MPSImage", "GraphFile"]:
    assert isinstance(find(st.from_type(getattr(mps, name)), lambda value: True, settings=once), getattr(mps, name))
"""
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert (run.stdout, run.stderr) == ("False\n", "")


def test_types_are_resolved_with_what_their_strategies_promise():
    hypothesis_plugin.register()

    @few
    @given(f=st.from_type(F), d=st.from_type(mps.MPSNNNeuronDescriptor))
    def promised(f, d):
        assert f is not F.none
        assert d.data is None or 1 <= len(d.data) <= 9

    promised()


def test_the_entry_point_is_there():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    module, _, name = project["project"]["entry-points"]["hypothesis"]["mpsref"].partition(":")

    assert callable(getattr(importlib.import_module(module), name))


def test_a_failing_image_prints_its_pixels_as_code():
    @settings(database=None, deadline=None)
    @given(mpst.images(mpst.image_descriptors("float16", channels=3)))
    def small(image):
        assert image.to_array().size < 3

    with pytest.raises(AssertionError) as raised:
        small()

    (code,) = re.findall(r"image=(MPSImage\.from_array\(.*?\)\)),", "".join(raised.value.__notes__))
    image = eval(code, {"MPSImage": mps.MPSImage, "np": np, "nan": np.nan, "inf": np.inf})  # noqa: S307
    assert image.to_array().tolist() == [[[[0, 0, 0]]]]
    assert image.storage.name == "float16"
    large = pretty(mps.MPSImage.from_array(np.zeros((1, 20, 20, 4), np.float16)))
    assert large.startswith("<MPSImage 20x20x4 float16>: MPSImage.from_array(np.array([[[[0.")
    assert len(large) < 1000
