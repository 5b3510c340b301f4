"""A format, a neuron, a node, an array: each taken in all its spellings, by everything that takes one."""

import copy

import numpy as np
import pytest
from hypothesis import find

import mpsref as mps
from builders import F, T, image, named
from mpsref import teach
from mpsref.graph.drawing import mermaid
from mpsref.storage import image_storage_of, storage_format
from mpsref.sweep import sweep
from mpsref.testing import check_gradient, check_implementation, compare
from mpsref.testing import strategies as mpst
from mpsref.verify.bounds import allowed


class Dtype:
    """What torch, MLX and TensorFlow have instead of numpy's dtypes: only its text says which it is."""

    def __init__(self, text):
        self.text = text

    def __str__(self):
        return self.text


SPELLINGS = {
    F.unorm8: [F.unorm8, 1, "unorm8", np.uint8, np.dtype("u1"), storage_format(F.unorm8), Dtype("torch.uint8")],
    F.unorm16: [F.unorm16, 2, "unorm16", np.uint16, np.dtype("uint16"), "MPSImageFeatureChannelFormatUnorm16"],
    F.float16: [
        F.float16, 3, "float16", np.float16, np.dtype("float16"), "half", "<f2", "MPSImageFeatureChannelFormatFloat16",
        Dtype("torch.float16"), Dtype("mlx.core.float16"), Dtype("<dtype: 'float16'>"),
    ],
    F.float32: [
        F.float32, 4, "float32", np.float32, np.dtype("float32"), "float", "single", "f4", Dtype("torch.float32"),
    ],
}  # fmt: skip


def of_image_node(value):
    node = image("x")
    node.format = value
    return node.format


def of_graph(value):
    return mps.MPSNNGraph(result_image=image("x"), format=value).format


def of_graphs_setter(value):
    made = mps.MPSNNGraph(result_image=image("x"))
    made.format = value
    return made.format


TAKE_A_FORMAT = {
    "storage_format": lambda value: storage_format(value).channel_format,
    "image descriptor": lambda value: mps.MPSImageDescriptor(channel_format=value).channel_format,
    "from_array": lambda value: mps.MPSImage.from_array(0.5, value).feature_channel_format,
    "image node": of_image_node,
    "graph": of_graph,
    "graph's setter": of_graphs_setter,
    "graph file": lambda value: mps.GraphFile.from_results([image("x")], value).storage,
    "bounds": lambda value: image_storage_of(
        allowed("tanH", np.float32([0.5]), result=value).lower.dtype, "lower").channel_format,
    "image strategy": lambda value: find(mpst.image_descriptors(value), lambda _: True).channel_format,
    "array strategy": lambda value: mps.MPSImage.from_array(
        find(mpst.sources(value, shape=(1, 1, 1)), lambda _: True)).feature_channel_format,
}  # fmt: skip


@pytest.mark.parametrize("take", TAKE_A_FORMAT)
@pytest.mark.parametrize("channel_format", SPELLINGS, ids=lambda f: f.name)
def test_a_format_is_taken_as_a_member_a_number_a_name_and_a_dtype(take, channel_format):
    for value in SPELLINGS[channel_format]:
        assert TAKE_A_FORMAT[take](value) is channel_format, value


@pytest.mark.parametrize("take", sorted(TAKE_A_FORMAT.keys() - {"array strategy"}))
@pytest.mark.parametrize(
    "value",
    [
        "double",
        "Float16",
        np.float64,
        "float64",
        np.int8,
        T.sigmoid,
        True,
        [],
        str,
        Dtype("torch.float64"),
        Dtype("torch.int8"),
    ],
)
def test_what_names_no_format_is_refused_with_the_choices(take, value):
    with pytest.raises(Exception, match=r"(is|=).*unorm8, unorm16, float16, float32"):
        TAKE_A_FORMAT[take](value)


def test_the_choices_are_those_that_a_call_takes():
    d, x, kernels = mps.MPSNNNeuronDescriptor("none"), np.linspace(-1, 1, 5), "float16, float32, bfloat16"
    pair = (np.tanh, lambda x, upstream: upstream * (1 - np.tanh(x) ** 2))
    for message, call in {
        f"formats is 'unorm8': choose one of {kernels}, or": lambda: check_implementation(np.abs, d, formats="unorm8"),
        f"format is 'f': choose one of unorm8, unorm16, {kernels}, or": lambda: sweep(np.abs, d, format="f"),
        "dtype is 'half': choose one of float64, float32, or": lambda: check_gradient(pair, x, dtype="half"),
        "format=3.5 must be one of unorm8, unorm16, .*bfloat16, float64, or": lambda: find(mpst.floats(3.5), bool),
    }.items():
        with pytest.raises(mps.MPSRefError, match=message):
            call()
    for double in ("double", "float64", np.float64, Dtype("torch.float64")):
        assert check_gradient(pair, x, dtype=double).dtype == "float64"
    for single in ("float", "f4", Dtype("torch.float32"), F.float32):
        assert check_gradient(pair, x, dtype=single).dtype == "float32"


def test_formats_of_sweeps_plots_and_attacks():
    x = np.float16([1])
    assert sweep(lambda x: x, "none", format="float16", shard=(1, 64)).subject.channel_format is F.float16
    assert sweep(lambda x: x, T.none, format=np.float16, shard=(1, 64)).passed
    assert teach.plot_error("stepwise", "tanH", format="float16").get_ylabel() == "error in ULP of float16"
    assert teach.plot_neuron("tanH").get_title().startswith("tanH")
    assert check_implementation(lambda x: x, mps.MPSNNNeuronDescriptor("none"), formats=["float16"], max_examples=2)
    attacked = check_implementation(lambda x, d: mps.neuron.forward(d, x), "tanH", formats=[np.float16], max_examples=2)
    assert attacked.formats == ("float16",), "with a name, as with a type, the function is told the descriptor"
    assert compare(x, x, bounds="metal-fast", neuron="none", x=x).passed


def test_a_neuron_is_taken_by_its_name_and_its_type():
    x = np.float32([-5, 0, 3])
    for neuron in T:
        if neuron is T.pReLU:
            continue
        descriptor = mps.MPSNNNeuronDescriptor(neuron)
        for value in (neuron, neuron.name):
            assert mps.MPSNNNeuronDescriptor(value) == descriptor
            assert np.array_equal(mps.neuron.forward(value, x), mps.neuron.forward(descriptor, x), equal_nan=True)
            node = mps.MPSCNNNeuronNode(source=image("x"), descriptor=value)
            assert node.descriptor == descriptor
            assert type(node) is type(mps.MPSCNNNeuronNode(source=image("x"), descriptor=descriptor))
            gradient = mps.MPSCNNNeuronGradientNode(
                source_gradient=image("g"), source_image=image("x"), gradient_state=node.result_state, descriptor=value
            )
            assert gradient.descriptor == descriptor
    one, up = np.float16([0.5]), np.float16([2])
    descriptor = mps.MPSNNNeuronDescriptor("geLU")
    assert mps.neuron.gradient("geLU", one, up) == mps.neuron.gradient(descriptor, one, up)
    assert mps.neuron.specified("geLU", one) == mps.neuron.specified(descriptor, one)
    assert mps.neuron.specified_gradient("geLU", one, up) == mps.neuron.specified_gradient(descriptor, one, up)
    assert check_gradient("geLU", [0.5]).passed
    assert find(mpst.descriptors(["geLU"]), lambda _: True) == descriptor
    assert find(mpst.floats("float16", neuron="reLUN"), lambda x: x == 6) == 6


@pytest.mark.parametrize(
    "take",
    [
        mps.MPSNNNeuronDescriptor,
        lambda value: mps.neuron.forward(value, np.float32([1])),
        lambda value: mps.neuron.specified(value, np.float32([1])),
        lambda value: mps.MPSCNNNeuronNode(source=image("x"), descriptor=value),
        lambda value: allowed(value, np.float32([1])),
        lambda value: sweep(lambda x: x, value),
        lambda value: check_implementation(lambda x: x, value),
        lambda value: check_gradient(value, [1]),
        teach.plot_neuron,
    ],
)
def test_a_name_of_no_neuron_is_refused_with_the_choices(take):
    with pytest.raises(mps.ParameterError, match=r"is 'GELU': choose one of none, .*geLU$"):
        take("GELU")


# ---- nodes ----


def test_a_node_stands_for_its_result_image():
    x, g = image("x"), image("g")
    h = mps.MPSCNNNeuronTanHNode(source=x)
    y = mps.MPSCNNNeuronReLUNode(source=h)
    total = mps.MPSNNAdditionNode(left_source=h, right_source=y)
    pair = mps.MPSNNAdditionNode(sources=[h, y])
    start = mps.MPSNNInitialGradientNode(source=total)
    forwards = [(y.sources[0], h), (total.sources[0], h), (total.sources[1], y), (pair.sources[1], y),
                (start.sources[0], total)]  # fmt: skip
    state = {"gradient_state": y.result_state, "descriptor": y.descriptor}
    by_hand = mps.MPSCNNNeuronGradientNode(source_gradient=h, source_image=h, **state)
    sums = mps.MPSNNAdditionGradientNode(gradient_images=[y, h], forward_filter=total, is_secondary_source_filter=False)
    made = [y.gradient_filter(with_source=total), y.gradient_filter(with_sources=[total]),
            *total.gradient_filters(with_source=y), by_hand, sums]  # fmt: skip
    gradients = zip(made, (total, total, y, y, h, y), strict=True)
    for got, node in [*forwards, *((one.sources[0], node) for one, node in gradients)]:
        assert got is node.result_image
    (last,) = y.training_graph(with_source_gradient=mps.MPSCNNNeuronNode(source=g, descriptor="none"))
    assert mps.MPSNNGraph(result_image=last).source_image_handles == ["g", "x"]
    assert len(mps.MPSNNGraph(result_images=[h, y.result_image]).plan.results) == 2
    assert mps.GraphFile.from_results([y]).to_json() == mps.GraphFile.from_results([y.result_image]).to_json()


def test_a_node_an_image_node_and_a_list_stand_for_a_graph():
    y = named(mps.MPSCNNNeuronTanHNode(source=image("x")), "y")
    want = mps.MPSNNGraph(result_image=y)
    for graph in (y, y.result_image, [y], (y.result_image,), mps.GraphFile.from_results([y]), want):
        assert teach.trace(graph, x=0.5)["y"].stored == want.run(x=0.5)["y"].to_array()
        assert "tanh(b x)" in teach.explain(graph)
        assert mermaid(graph) == mermaid(want)
        assert mps.check(graph) == []


# ---- arrays ----


def test_a_number_is_an_image_of_one_pixel_and_a_list_one_pixel_of_as_many_channels():
    y = named(mps.MPSCNNNeuronLinearNode(source=image("x"), a=2), "y")
    graph = mps.MPSNNGraph(result_image=y, format="float32")
    for value in (0.5, np.float16(0.5), np.float64(0.5), np.array(0.5), [0.5], (0.5,), np.array([0.5])):
        for images in (graph.run(x=value), {"y": teach.trace(graph, x=value)["y"].stored}):
            assert np.asarray(images["y"]).tolist() == [[[[1]]]]
    for value in (3, np.int64(3), [3]):
        assert graph.run(x=value)["y"].to_array().tolist() == [[[[6]]]]
    for value in ([1, 2, 3], np.arange(1, 4), [[[1, 2, 3]]]):
        assert graph.run(x=value)["y"].to_array().tolist() == [[[[2, 4, 6]]]]
        assert teach.trace(graph, x=value)["y"].stored.tolist() == [[[[2, 4, 6]]]]
    assert mps.MPSImage.from_array([1, 2], "float16").to_array().tolist() == [[[[1, 2]]]]
    assert mps.MPSImage.from_array(np.uint8(7)).to_array().tolist() == [[[[7]]]]
    assert mps.MPSImage.from_array(1, "unorm8").to_array().tolist() == [[[[255]]]]


@pytest.mark.parametrize(
    "value", [np.ones((1,) * 6), True, "0.5", None, 2**70, np.uint8(3), np.ones((1, 1, 1), int), []]
)
def test_what_is_no_number_and_no_image_is_refused_with_the_source(value):
    graph = mps.MPSNNGraph(result_image=mps.MPSCNNNeuronLinearNode(source=image("x")))
    for evaluate in (graph.run, lambda x: teach.trace(graph, x=x), lambda x: teach.explain(graph, x=x)):
        with pytest.raises(mps.ImageError, match="source 'x'"):
            evaluate(x=value)


# ---- names of results ----


def names(graph, **sources):
    """By run, by trace and by a drawing."""
    given = dict.fromkeys(graph.source_image_handles, 0.5) | sources
    run, steps = list(graph.run(**given)), [step.name for step in teach.trace(graph, **given).steps]
    assert set(run) <= set(steps)
    assert set(graph.structure().results) == set(run)
    return run


def test_run_trace_and_drawings_name_results_alike():
    x, g = image("x"), image("g")
    h = mps.MPSCNNNeuronTanHNode(source=x)
    y = mps.MPSCNNNeuronReLUNode(source=h)
    assert names(mps.MPSNNGraph(result_image=y)) == ["result0"]
    h.label = "hidden"
    assert names(mps.MPSNNGraph(result_images=[y, h])) == ["result0", "hidden"]
    h.result_image.handle, y.result_image.handle = "h", "y"
    (last,) = y.training_graph(with_source_gradient=g)
    graph = mps.MPSNNGraph(result_images=[y, last])
    assert names(graph) == ["y", "dx"], "its handle is x, which names the source"
    unnamed = y.gradient_filter(with_source=g)
    assert names(mps.MPSNNGraph(result_images=[unnamed, y])) == ["dh", "y"]
    of_h = last.sources[0]
    assert names(mps.MPSNNGraph(result_images=[of_h, y])) == ["dh", "y"], "its handle is h, the forward image's"
    last.result_image.handle = "gradient"
    assert names(mps.MPSNNGraph(result_images=[y, last])) == ["y", "gradient"]


def test_results_of_run_are_found_by_handle_label_and_number_too():
    x, g = image("x"), image("g")
    y = named(mps.MPSCNNNeuronTanHNode(source=x), "y")
    y.label = "label"
    (last,) = y.training_graph(with_source_gradient=g)
    results = mps.MPSNNGraph(result_images=[y, last]).run(x=0.5, g=1)
    assert list(results) == ["y", "dx"]
    assert results["y"] is results["label"] is results["result0"]
    assert results["dx"] is results["x"] is results["result1"]
    with pytest.raises(KeyError, match="result2"):
        results["result2"]
    assert copy.copy(results) == results


def test_a_result_has_the_first_claim_on_its_handle():
    x = image("x")
    first, second = (named(mps.MPSCNNNeuronLinearNode(source=x, a=a), "y") for a in (2, 3))
    total = mps.MPSNNAdditionNode(left_source=first, right_source=second)
    assert names(mps.MPSNNGraph(result_images=[total, second])) == ["result0", "y"]
    assert mps.MPSNNGraph(result_images=[total, second]).run(x=1)["y"].to_array().item() == 3
    assert list(mps.MPSNNGraph(result_images=[second, second]).run(x=1)) == ["y"]
