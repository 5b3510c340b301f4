"""MPSNNGraph: formats, orders, pruning, names, one rounding a node, memory, and errors."""

import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mpsref as mps
from builders import image as node

T = mps.MPSCNNNeuronType
F = mps.MPSImageFeatureChannelFormat
FORMATS = [F.unorm8, F.unorm16, F.float16, F.float32]
FLT_MAX = float(np.finfo(np.float32).max)
DTYPES = {F.unorm8: np.uint8, F.unorm16: np.uint16, F.float16: np.float16, F.float32: np.float32}


def tanh(source, **parameters):
    return mps.MPSCNNNeuronTanHNode(source=source, **parameters)


def linear(source, a=1.0, b=0.0):
    return mps.MPSCNNNeuronLinearNode(source=source, a=a, b=b)


def add(left, right, **numbers):
    made = mps.MPSNNAdditionNode(left_source=left, right_source=right)
    for name, value in numbers.items():
        setattr(made, name, value)
    return made


def graph_of(*filters, **arguments):
    return mps.MPSNNGraph(result_images=[f.result_image for f in filters], **arguments)


def pixels(values, channel_format=None):
    return mps.MPSImage.from_array(np.asarray(values), channel_format)


def row(*values, dtype=np.float16):
    """One row of pixels of one channel."""
    return np.array(values, dtype).reshape(1, -1, 1)


def noise(shape, dtype=np.float32, seed=0, low=-4, high=4):
    return np.random.default_rng(seed).uniform(low, high, shape).astype(dtype)


def same(left, right):
    left, right = np.asarray(left), np.asarray(right)
    return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()


def evaluate(graph, *sources):
    """All needed results and exports."""
    rest = []
    first = graph.encode(source_images=list(sources), intermediate_images=rest)
    return [first, *rest]


# ---- construction ----


def test_a_result_may_be_interior_and_nodes_that_it_does_not_need_are_ignored():
    x, y = node("x"), node("y")
    h = tanh(x)
    add(h.result_image, y)
    graph = mps.MPSNNGraph(result_image=h.result_image)
    assert graph.source_image_handles == ["x"]
    assert list(graph.run(x=row(1))) == ["result0"]


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"result_image": node("x"), "result_images": [node("x")]},
        {"result_images": []},
        {"result_images": [node("x")], "results_are_needed": []},
        {"result_images": [node("x")], "results_are_needed": [True, False]},
        {"result_image": node("x"), "results_are_needed": [True]},
    ],
)
def test_results_are_given_in_one_of_two_ways(arguments):
    with pytest.raises(mps.ParameterError, match="result"):
        mps.MPSNNGraph(**arguments)


def test_without_a_list_all_results_are_needed():
    x = node("x")
    one, two = tanh(x), linear(x)
    assert len(graph_of(one, two).run(x=row(1))) == 2


def test_a_graph_input_can_be_a_result():
    x = node("x")
    graph = mps.MPSNNGraph(result_images=[tanh(x).result_image, x])
    assert same(graph.run(x=row(1, 2))["x"].to_array()[0], row(1, 2))


# ---- properties and formats ----


def test_the_default_format_is_float16_and_can_be_set():
    graph = graph_of(tanh(node("x")))
    assert graph.format is F.float16
    for channel_format in FORMATS:
        graph.format = channel_format
        assert graph.format is channel_format
    for bad in (F.none, 7, "double"):
        with pytest.raises(mps.MPSRefError, match=r"^format is "):
            graph.format = bad
    with pytest.raises(mps.MPSRefError, match=r"^format is "):
        graph_of(tanh(node("x")), format=F.none)


def test_the_actual_format_of_the_sources_does_not_matter():
    # M4: float32 sources and untouched defaults gave a float16 result.
    graph = graph_of(tanh(node("x")))
    for channel_format in FORMATS:
        (result,) = evaluate(graph, pixels(np.full((1, 2, 3), 0.5), channel_format))
        assert result.feature_channel_format is F.float16


@pytest.mark.parametrize("own", [F.none, *FORMATS], ids=lambda f: f"own-{f.name}")
@pytest.mark.parametrize("first", [F.none, *FORMATS], ids=lambda f: f"first-{f.name}")
@pytest.mark.parametrize("graphs", [F.float16, F.float32], ids=lambda f: f"graph-{f.name}")
def test_own_format_precedes_the_first_sources_which_precedes_the_graphs(own, first, graphs):
    x, y = node("x", first), node("y", F.unorm16)
    both = add(x, y)
    if own:
        both.result_image.format = own
    (result,) = evaluate(
        graph_of(both, format=graphs),
        pixels(np.full((1, 1, 1), 0.5), first or F.float32),
        pixels(np.full((1, 1, 1), 0.25), F.unorm16),
    )
    assert result.feature_channel_format is (own or first or graphs)


def test_the_format_is_passed_on_along_a_chain_from_node_to_node():
    x = node("x", F.float32)
    first = tanh(x)
    second = tanh(first.result_image)
    first.result_image.export_from_graph = True
    results = evaluate(graph_of(second), pixels(row(1, dtype=np.float32)))
    assert [image.feature_channel_format for image in results] == [F.float32] * 2


def test_the_graphs_format_governs_results_and_intermediates():
    x = node("x")
    first = tanh(x)
    first.result_image.export_from_graph = True
    results = evaluate(graph_of(tanh(first.result_image), format=F.float32), pixels(row(1)))
    assert [image.feature_channel_format for image in results] == [F.float32] * 2


def test_properties_tell_what_was_given():
    x = node("x")
    h = tanh(x)
    h.result_image.handle = "h"
    graph = mps.MPSNNGraph(result_image=h.result_image, result_image_is_needed=False)
    assert graph.result_image_is_needed is False
    assert graph.result_handle == "h"
    assert graph.intermediate_image_handles == []
    for name in ("result_image_is_needed", "result_handle", "source_image_handles", "intermediate_image_handles"):
        with pytest.raises(AttributeError):
            setattr(graph, name, getattr(graph, name))


# ---- order of sources ----


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (add, [11, 22, 33, 44]),
        (lambda a, b: add(add(a, b).result_image, b), [21, 42, 63, 84]),
        (lambda a, b: add(add(a, b).result_image, b, secondary_scale=-1), [1, 2, 3, 4]),
    ],
    ids=["(a+b)", "((a+b)+b)", "((a+b)-b)"],
)
def test_the_order_of_sources_is_the_one_that_was_measured_on_an_m4(build, expected):
    graph = graph_of(build(node("a"), node("b")))
    assert graph.source_image_handles == ["a", "b"]
    (result,) = evaluate(graph, pixels(row(1, 2, 3, 4)), pixels(row(10, 20, 30, 40)))
    assert result.to_array().ravel().tolist() == expected


def test_sources_are_met_depth_first_and_left_to_right():
    a, b, c, d, e = (node(name) for name in "abcde")
    left = add(tanh(tanh(c).result_image).result_image, b)
    right = add(a, add(c, d).result_image)
    last = add(left.result_image, right.result_image)
    assert graph_of(last).source_image_handles == ["c", "b", "a", "d"]
    assert graph_of(tanh(e), last).source_image_handles == ["e", "c", "b", "a", "d"]
    assert graph_of(last, tanh(e)).source_image_handles == ["c", "b", "a", "d", "e"]


def test_a_direct_source_on_the_left_precedes_a_deep_one_on_the_right():
    # The order of first use in execution would give [b, a]: the right branch must be made before the sum.
    a, b = node("a"), node("b")
    graph = graph_of(add(a, tanh(b).result_image))
    assert graph.source_image_handles == ["a", "b"]


def test_two_nodes_with_one_handle_are_two_inputs():
    graph = graph_of(add(node("a"), node("a"), secondary_scale=-1))
    assert graph.source_image_handles == ["a", "a"]
    (result,) = evaluate(graph, pixels(row(5)), pixels(row(3)))
    assert result.to_array().item() == 2


def test_one_node_that_is_read_twice_is_one_input():
    x = node("x")
    graph = graph_of(add(x, tanh(x).result_image))
    assert graph.source_image_handles == ["x"]
    assert graph.read_count_for_source_image(at=0) == 2


def test_nil_handles_are_none_entries():
    graph = graph_of(add(node(None), node("b")))
    assert graph.source_image_handles == [None, "b"]


# ---- what is needed ----


def three_branches():
    """Needed, not needed, not needed but exported within."""
    x, y, z = node("x"), node("y"), node("z")
    needed, idle, exported = tanh(x), tanh(y), tanh(z)
    exported.result_image.export_from_graph = True
    exported.result_image.handle = "e"
    return needed, tanh(idle.result_image), tanh(exported.result_image)


def test_a_result_that_is_not_needed_is_none():
    n = tanh(node("x"))
    graph = mps.MPSNNGraph(result_image=n.result_image, result_image_is_needed=False)
    assert graph.encode(source_images=[pixels(row(1))]) is None
    assert graph.encode_batch(source_images=[[pixels(row(1))]]) is None
    assert graph.run(x=row(1)) == {}


def test_what_only_unneeded_results_depend_on_is_not_evaluated():
    graph = graph_of(*three_branches(), results_are_needed=[True, False, False])
    assert graph.source_image_handles == ["x", "y", "z"]
    assert [graph.read_count_for_source_image(at=i) for i in range(3)] == [1, 0, 1]
    steps = []
    rest = []
    images = [pixels(row(i)) for i in range(3)]
    first = graph.encode(source_images=images, intermediate_images=rest, progress=lambda *done: steps.append(done))
    assert steps == [(1, 2), (2, 2)]
    assert len(rest) == 1
    assert graph.intermediate_image_handles == ["e"]
    assert same(first, graph_of(three_branches()[0]).encode(source_images=images[:1]))


def test_an_unneeded_first_result_is_none_and_the_others_come():
    x = node("x")
    one, two = tanh(x), linear(x, 2)
    graph = graph_of(one, two, results_are_needed=[False, True])
    assert not graph.result_image_is_needed
    first, second = evaluate(graph, pixels(row(1)))
    assert first is None
    assert second.to_array().item() == 2
    assert list(graph.run(x=row(1))) == ["result1"]


def test_read_counts_are_reads_of_the_evaluated_graph():
    a, b = node("a"), node("b")
    graph = graph_of(add(add(a, b).result_image, b), tanh(b), linear(a), results_are_needed=[True, True, False])
    assert [graph.read_count_for_source_image(at=i) for i in range(2)] == [1, 3]
    for at in (-1, 2):
        with pytest.raises(mps.SourceError, match=f"at is {at}"):
            graph.read_count_for_source_image(at=at)


# ---- results and exports ----


def test_further_results_come_before_the_exported_images():
    x = node("x")
    e1, e2 = linear(x, 2), linear(x, 3)
    one, two, three = (linear(e1.result_image, a) for a in (5, 7, 11))
    two_again = add(two.result_image, e2.result_image)
    for handle, exported in (("e1", e1), ("e2", e2)):
        exported.result_image.handle = handle
        exported.result_image.export_from_graph = True
    graph = graph_of(one, two_again, three, results_are_needed=[True, True, True])
    values = [image.to_array().item() for image in evaluate(graph, pixels(row(1)))]
    assert values[:3] == [10, 17, 22]
    assert dict(zip(graph.intermediate_image_handles, values[3:], strict=True)) == {"e1": 2, "e2": 3}


def test_an_exported_result_is_listed_too():
    n = tanh(node("x"))
    n.result_image.export_from_graph = True
    n.result_image.handle = "y"
    graph = graph_of(n)
    assert graph.intermediate_image_handles == ["y"]
    first, again = evaluate(graph, pixels(row(1)))
    assert same(first, again)


def test_lists_are_appended_to_and_may_be_left_out():
    n = tanh(node("x"))
    n.result_image.export_from_graph = True
    kept = pixels(row(9))
    out = [kept]
    graph = graph_of(n)
    graph.encode(source_images=[pixels(row(1))], intermediate_images=out)
    assert out[0] is kept
    assert len(out) == 2
    assert graph.encode(source_images=[pixels(row(1))]) is not None


def sample_graph():
    """Two sources, a gradient, an addition, pReLU, two results, one export."""
    x, y = node("x"), node("y")
    h = tanh(x, a=1.5, b=0.75)
    p = mps.MPSCNNNeuronPReLUNode(source=y, a_data=[0.1, -0.2, 0.3, 0.4, 0.5])
    total = add(h.result_image, p.result_image, primary_scale=0.3, bias=0.1)
    g = h.gradient_filter(with_source=total.result_image)
    for handle, f in (("h", h), ("total", total), ("dx", g)):
        f.result_image.handle = handle
    h.result_image.export_from_graph = True
    return graph_of(total, g)


def test_encode_and_encode_batch_and_run_give_the_same_bits():
    graph = sample_graph()
    x, y = noise((3, 4, 6, 5), np.float16, 1), noise((3, 4, 6, 5), np.float16, 2)
    total, dx, h = evaluate(graph, pixels(x), pixels(y))
    by_name = graph.run(x=x, y=pixels(y))
    assert list(by_name) == ["total", "dx"]
    assert same(by_name["total"], total)
    assert same(by_name["dx"], dx)
    rest = []
    batch = graph.encode_batch(source_images=[[pixels(i) for i in x], [pixels(i) for i in y]], intermediate_images=rest)
    assert [len(batch), *map(len, rest)] == [3, 3, 3]
    for whole, parts in zip((total, dx, h), (batch, *rest), strict=True):
        assert same(whole, np.concatenate([part.to_array() for part in parts]))
        assert all(part.number_of_images == 1 for part in parts)


def test_encoding_again_gives_the_same_bits_and_leaves_the_sources_alone():
    graph = sample_graph()
    x, y = noise((4, 6, 5), np.float16, 1), noise((4, 6, 5), np.float16, 2)
    images = [pixels(x), pixels(y)]
    first, second = evaluate(graph, *images), evaluate(graph, *images)
    assert all(same(a, b) for a, b in zip(first, second, strict=True))
    assert same(images[0].to_array()[0], x)
    assert same(images[1].to_array()[0], y)


def test_results_do_not_alias_sources_or_each_other():
    x = node("x")
    identity = mps.MPSCNNNeuronNode(source=x, descriptor=mps.MPSNNNeuronDescriptor(T.none))
    again = mps.MPSCNNNeuronNode(source=identity.result_image, descriptor=identity.descriptor)
    given_image = pixels(row(1, 2))
    one, two = evaluate(graph_of(identity, again), given_image)
    assert not np.shares_memory(one.texture, given_image.texture)
    assert not np.shares_memory(one.texture, two.texture)


# ---- names of results ----


class Tag:
    def __init__(self, text):
        self.text = text

    def label(self):
        return self.text


def test_run_names_results_by_handle_else_by_label_else_by_number():
    x = node("x")
    filters = [tanh(x) for _ in range(5)]
    filters[0].result_image.handle, filters[0].label = "h", "ignored"
    filters[1].result_image.handle = Tag("tag")
    filters[2].label = "label"
    filters[3].result_image.handle, filters[3].label = Tag(None), "other"
    assert list(graph_of(*filters).run(x=row(1))) == ["h", "tag", "label", "other", "result4"]


def test_run_gives_a_taken_name_to_the_first_that_wants_it():
    x = node("x")
    filters = [linear(x, i) for i in range(4)]
    for f in filters:
        f.result_image.handle = "y"
    filters[1].label = "label"
    filters[2].label = "label"
    results = graph_of(*filters).run(x=row(1))
    assert list(results) == ["y", "label", "result2", "result3"]
    assert [image.to_array().item() for image in results.values()] == [0, 1, 2, 3]


@pytest.mark.parametrize("taken", ["result1", "result0", "result2"])
def test_run_finds_a_name_even_if_the_number_is_taken_by_a_handle(taken):
    x = node("x")
    filters = [linear(x, i) for i in range(3)]
    filters[0].result_image.handle = taken
    results = graph_of(*filters).run(x=row(1))
    assert len(results) == 3
    assert results[taken].to_array().item() == 0
    assert [image.to_array().item() for image in results.values()] == [0, 1, 2]


def test_run_takes_sources_by_the_label_of_their_handle():
    assert graph_of(linear(node(Tag("in")), 2)).run(**{"in": row(2)})["result0"].to_array().item() == 4


def test_run_stores_arrays_as_they_are_and_float64_as_float32():
    graph = graph_of(mps.MPSCNNNeuronNode(source=node("x"), descriptor=mps.MPSNNNeuronDescriptor(T.none)))
    graph.format = F.float32
    for dtype in (np.float16, np.float32, np.float64):
        values = np.array([[[1 / 3]]], dtype)
        assert graph.run(x=values)["result0"].to_array().item() == float(np.float32(values.item()))


def test_run_rounds_arrays_to_the_format_of_their_node():
    n = mps.MPSCNNNeuronNode(source=node("x", F.unorm8), descriptor=mps.MPSNNNeuronDescriptor(T.none))
    assert graph_of(n).run(x=np.array([[[0.5, 2.0, -1.0]]]))["result0"].to_array().ravel().tolist() == [128, 255, 0]


# ---- a snapshot ----


def test_changing_nodes_after_construction_changes_nothing():
    x, y = node("x"), node("y")
    h = tanh(x)
    total = add(h.result_image, y)
    g = total.gradient_filters(with_source=y)[1]
    total.result_image.handle = "total"
    graph = graph_of(total, g)
    sources = [pixels(noise((2, 2, 3), np.float16, i)) for i in (1, 2)]
    before = evaluate(graph, *sources)

    x.handle, y.handle, h.label, total.label = "X", "Y", "H", "TOTAL"
    x.format = h.result_image.format = total.result_image.format = F.float32
    h.result_image.export_from_graph = y.stop_gradient = h.result_image.stop_gradient = True
    total.result_image.handle = "T"
    total.primary_scale = total.secondary_scale = g.primary_scale = g.secondary_scale = 7
    total.bias, total.minimum_value, total.maximum_value = 3, -0.5, 0.5

    after = evaluate(graph, *sources)
    assert len(after) == len(before)
    assert all(same(a, b) for a, b in zip(before, after, strict=True))
    assert graph.source_image_handles == ["x", "y"]
    assert list(graph.run(x=sources[0], y=sources[1])) == ["total", "dy"]
    assert graph.intermediate_image_handles == []


def test_lists_that_a_graph_hands_out_are_copies():
    graph = sample_graph()
    graph.source_image_handles.clear()
    graph.intermediate_image_handles.clear()
    assert graph.source_image_handles == ["x", "y"]
    assert graph.intermediate_image_handles == ["h"]


# ---- memory ----


def peak_of(graph, *sources):
    graph.encode(source_images=list(sources))
    tracemalloc.start()
    try:
        graph.encode(source_images=list(sources))
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_images_are_freed_after_their_last_reader():
    source = pixels(noise((256, 256, 4), np.float32))
    size = source.texture.nbytes
    peaks = []
    for length in (4, 40):
        x = node("x")
        n = linear(x, 0.5)
        for _ in range(length - 1):
            n = linear(n.result_image, 0.5)
        peaks.append(peak_of(graph_of(n, format=F.float32), source))
    assert peaks[0] < 4 * size
    assert peaks[1] < peaks[0] + size / 2


def test_an_image_with_a_late_reader_is_kept_and_the_others_are_not():
    source = pixels(noise((256, 256, 4), np.float32))
    peaks = []
    for length in (3, 30):
        kept = linear(node("x"), 0.5)
        n = kept
        for _ in range(length):
            n = linear(n.result_image, 0.5)
        graph = graph_of(add(kept.result_image, n.result_image), format=F.float32)
        peaks.append(peak_of(graph, source))
        expected = source.to_array() * np.float32(0.5)
        assert same(graph.encode(source_images=[source]), expected + expected * np.float32(2.0**-length))
    assert peaks[1] < peaks[0] + source.texture.nbytes / 2


# ---- one rounding a node ----

CHAIN = [
    mps.MPSNNNeuronDescriptor(T.linear, a=1.3, b=-0.2),
    mps.MPSNNNeuronDescriptor(T.tanH, a=1.7, b=0.6),
    mps.MPSNNNeuronDescriptor(T.geLU),
    mps.MPSNNNeuronDescriptor(T.softPlus, a=1.5, b=0.75),
    mps.MPSNNNeuronDescriptor(T.pReLU, data=[0.1, -0.2, 0.3, 0.4, 0.5]),
    mps.MPSNNNeuronDescriptor(T.logarithm, a=0.5, b=1.25, c=2),
    mps.MPSNNNeuronDescriptor(T.ELU, a=0.7),
    mps.MPSNNNeuronDescriptor(T.exponential, a=0.5, c=3),
    mps.MPSNNNeuronDescriptor(T.softSign),
]


@pytest.mark.parametrize("channel_format", [F.float16, F.float32], ids=lambda f: f.name)
def test_a_chain_is_rounded_once_at_each_node_and_nowhere_else(channel_format):
    values = noise((2, 7, 9, 5), DTYPES[channel_format])
    image = node("x")
    expected = values
    filters, wanted = [], []
    for d in CHAIN:
        made = mps.MPSCNNNeuronNode(source=image, descriptor=d)
        image = made.result_image
        expected = mps.neuron.forward(d, expected)
        filters.append(made)
        wanted.append(expected)
    results = evaluate(graph_of(*filters, format=channel_format), pixels(values))
    assert all(same(result, want) for result, want in zip(results, wanted, strict=True))


@pytest.mark.parametrize("channel_format", [F.float16, F.float32], ids=lambda f: f.name)
def test_a_training_graph_is_rounded_once_at_each_node(channel_format):
    dtype = DTYPES[channel_format]
    x, dy = noise((2, 7, 9, 5), dtype, 1), noise((2, 7, 9, 5), dtype, 2)
    first = mps.MPSCNNNeuronNode(source=node("x"), descriptor=CHAIN[1])
    second = mps.MPSCNNNeuronNode(source=first.result_image, descriptor=CHAIN[4])
    termini = second.training_graph(with_source_gradient=node("dy"))
    result = graph_of(*termini, format=channel_format).run(x=x, dy=dy)["x"]
    h = mps.neuron.forward(CHAIN[1], x)
    assert same(result, mps.neuron.gradient(CHAIN[1], x, mps.neuron.gradient(CHAIN[4], h, dy)))


def test_float16_sources_give_float32_results_as_exactly_as_float32_sources():
    values = noise((5, 6, 5), np.float16)
    for d in CHAIN:
        made = mps.MPSCNNNeuronNode(source=node("x"), descriptor=d)
        (result,) = evaluate(graph_of(made, format=F.float32), pixels(values))
        assert same(result.to_array()[0], mps.neuron.forward(d, values.astype(np.float32)))


def test_float32_sources_are_rounded_to_float16_once_and_not_twice():
    d = CHAIN[1]
    values = noise((200, 200, 5), np.float32)
    made = mps.MPSCNNNeuronNode(source=node("x"), descriptor=d)
    (result,) = evaluate(graph_of(made, format=F.float16), pixels(values))
    once = mps.neuron.forward(d, values.astype(np.float64)).astype(np.float16)
    twice = mps.neuron.forward(d, values).astype(np.float16)
    assert same(result.to_array()[0], once)
    assert not same(once, twice), "the values must be able to tell the difference"


def test_a_gradient_reads_each_source_in_its_own_format():
    d = CHAIN[1]
    x, dy = noise((40, 40, 5), np.float32, 1), noise((40, 40, 5), np.float16, 2)
    forward = mps.MPSCNNNeuronNode(source=node("x"), descriptor=d)
    g = forward.gradient_filter(with_source=node("dy"))
    result = graph_of(g).run(x=x, dy=dy)["result0"]
    exact = mps.neuron.gradient(d, x.astype(np.float64), dy.astype(np.float64))
    assert same(result.to_array()[0], exact.astype(np.float16))


@pytest.mark.parametrize("of_source", FORMATS, ids=lambda f: f"source-{f.name}")
@pytest.mark.parametrize("of_gradient", FORMATS, ids=lambda f: f"gradient-{f.name}")
def test_a_gradient_decodes_its_source_and_its_gradient_each_by_its_own_format(of_source, of_gradient):
    d = CHAIN[1]
    images = {"x": (of_source, 1), "dy": (of_gradient, 2)}
    sources = {name: pixels(noise((6, 7, 5), seed=seed, low=0, high=1), f) for name, (f, seed) in images.items()}
    meant = {}
    for name, image in sources.items():
        stored = image.to_array()[0]
        meant[name] = stored.astype(np.float32)
        if stored.dtype.kind == "u":
            meant[name] /= np.float32(np.iinfo(stored.dtype).max)
    g = mps.MPSCNNNeuronNode(source=node("x"), descriptor=d).gradient_filter(with_source=node("dy"))
    result = graph_of(g, format=F.float32).run(**sources)["result0"]
    assert same(result.to_array()[0], mps.neuron.gradient(d, meant["x"], meant["dy"]))


@pytest.mark.parametrize("channel_format", [F.unorm8, F.unorm16], ids=lambda f: f.name)
def test_unorm_sources_mean_the_float32_nearest_to_their_fraction(channel_format):
    largest = np.iinfo(DTYPES[channel_format]).max
    codes = np.arange(largest + 1, dtype=DTYPES[channel_format]).reshape(16, -1, 1)
    meant = codes.astype(np.float32) / np.float32(largest)
    for d in (CHAIN[1], mps.MPSNNNeuronDescriptor(T.none), mps.MPSNNNeuronDescriptor(T.sigmoid)):
        made = mps.MPSCNNNeuronNode(source=node("x", channel_format), descriptor=d)
        made.result_image.format = F.float32
        (result,) = evaluate(graph_of(made), pixels(codes, channel_format))
        assert same(result.to_array()[0], mps.neuron.forward(d, meant))


@pytest.mark.parametrize("channel_format", [F.unorm8, F.unorm16], ids=lambda f: f.name)
def test_unorm_results_are_clamped_and_rounded_once(channel_format):
    largest = np.iinfo(DTYPES[channel_format]).max
    values = noise((30, 30, 3), np.float32, low=-0.25, high=1.25)
    values.flat[:5] = [np.nan, np.inf, -np.inf, 1.0, 0.0]
    made = linear(node("x"), 0.75, 0.125)
    made.result_image.format = channel_format
    result = graph_of(made).run(x=values)["result0"].to_array()[0]
    for stored, value in zip(result.ravel().tolist(), values.ravel().tolist(), strict=True):
        if np.isnan(value) or value == -np.inf:
            assert stored == 0
        elif value == np.inf:
            assert stored == largest
        else:
            exact = min(max(Fraction(value) * Fraction(3, 4) + Fraction(1, 8), Fraction(0)), Fraction(1))
            assert stored == round(exact * largest)


@pytest.mark.parametrize("channel_format", [F.unorm8, F.unorm16], ids=lambda f: f.name)
def test_every_unorm_code_goes_through_an_identity_unchanged(channel_format):
    codes = np.arange(np.iinfo(DTYPES[channel_format]).max + 1, dtype=DTYPES[channel_format]).reshape(16, -1, 1)
    x = node("x", channel_format)
    identity = mps.MPSCNNNeuronNode(source=x, descriptor=mps.MPSNNNeuronDescriptor(T.none))
    (result,) = evaluate(graph_of(linear(identity.result_image)), pixels(codes, channel_format))
    assert same(result.to_array()[0], codes)


# ---- the texture ----


def test_a_logarithm_does_not_see_the_zeros_in_unused_lanes():
    source = pixels(np.ones((1, 1, 3), np.float32))
    assert source.texture[0, 0, 0].tolist() == [1, 1, 1, 0]
    log = mps.MPSCNNNeuronLogarithmNode(source=node("x"))
    after = mps.MPSCNNNeuronExponentialNode(source=log.result_image, b=1)
    one, two = evaluate(graph_of(log, after, format=F.float32), source)
    assert one.texture[0, 0, 0].tolist() == [0, 0, 0, 0]
    assert two.texture[0, 0, 0, 3] == 0


@pytest.mark.parametrize("channels", [3, 5, 6, 7])
@pytest.mark.parametrize("channel_format", FORMATS, ids=lambda f: f.name)
@pytest.mark.parametrize("images", [1, 3])
def test_unused_lanes_of_results_are_zero(channels, channel_format, images):
    x = node("x")
    filters = [
        mps.MPSCNNNeuronLogarithmNode(source=x),
        mps.MPSCNNNeuronExponentialNode(source=x),
        mps.MPSNNInitialGradientNode(source=x),
        add(x, x, bias=1.0),
        mps.MPSCNNNeuronSigmoidNode(source=x).gradient_filter(with_source=x),
    ]
    source = pixels(noise((images, 2, 3, channels), low=0.1, high=0.9), channel_format)
    slices = -(-channels // 4)
    for result in evaluate(graph_of(*filters, format=channel_format), source):
        lanes = result.texture[slices - 1 :: slices, ..., (channels - 1) % 4 + 1 :]
        assert lanes.size
        assert not lanes.any()


def test_several_images_in_one_have_the_slopes_of_prelu_by_channel():
    slopes = noise(7, np.float32, 3)
    values = noise((3, 4, 5, 7), np.float32, 1)
    dy = noise((3, 4, 5, 7), np.float32, 2)
    n = mps.MPSCNNNeuronPReLUNode(source=node("x"), a_data=slopes)
    g = n.gradient_filter(with_source=node("dy"))
    results = graph_of(n, g, format=F.float32).run(x=values, dy=dy)
    d = n.descriptor
    assert same(results["result0"], mps.neuron.forward(d, values))
    assert same(results["result1"], mps.neuron.gradient(d, values, dy))
    plain = np.where(values >= 0, values, (values.astype(np.float64) * slopes).astype(np.float32))
    assert same(results["result0"], plain)


@pytest.mark.parametrize("channels", [5, 8, 9, 10, 11, 12])
@pytest.mark.parametrize("start", [0, 4, 8])
@pytest.mark.parametrize("images", [1, 2])
def test_a_channel_range_is_a_source_like_any_other(channels, start, images):
    if start >= channels:
        start = 0
    values = noise((images, 3, 4, channels), np.float16)
    part = pixels(values).sub_image(with_feature_channel_range=range(start, start + 4))
    expected = np.ascontiguousarray(values[..., start : start + 4])
    slopes = noise(expected.shape[-1], np.float32, 5)
    x = node("x")
    filters = [
        tanh(x),
        mps.MPSCNNNeuronPReLUNode(source=x, a_data=slopes),
        add(x, x, bias=0.5),
        mps.MPSNNInitialGradientNode(source=x),
    ]
    by_part, by_copy = (evaluate(graph_of(*filters), source) for source in (part, pixels(expected)))
    assert same(by_part[0], mps.neuron.forward(filters[0].descriptor, expected))
    for one, two in zip(by_part, by_copy, strict=True):
        assert same(one, two)
        assert same(one.texture, two.texture)


def test_one_image_of_several_is_a_source_like_any_other():
    values = noise((3, 4, 5, 6), np.float16)
    graph = graph_of(add(node("x"), node("y")))
    whole = pixels(values)
    for i, image in enumerate(whole.batch_representation()):
        (result,) = evaluate(graph, image, pixels(values[i]))
        assert same(result.to_array()[0], values[i] + values[i])


# ---- additions, exactly ----

SMALLEST = {F.float16: (11, -24), F.float32: (24, -149)}
LARGEST = {F.float16: 65504, F.float32: int(FLT_MAX)}


def rounded(exact, channel_format):
    """A fraction rounded once, to nearest even; an integer code for unorm, else a float."""
    if channel_format in (F.unorm8, F.unorm16):
        return round(min(max(exact, Fraction(0)), Fraction(1)) * np.iinfo(DTYPES[channel_format]).max)
    precision, smallest = SMALLEST[channel_format]
    if exact == 0:
        return 0.0
    size = abs(exact)
    exponent = size.numerator.bit_length() - size.denominator.bit_length()
    if Fraction(2) ** exponent > size:
        exponent -= 1
    unit = Fraction(2) ** max(exponent - precision + 1, smallest)
    result = round(size / unit) * unit
    value = float("inf") if result > LARGEST[channel_format] else float(result)
    return -value if exact < 0 else value


FLOAT32 = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False, width=32),
    st.floats(-4, 4, width=32),
    st.sampled_from([0.0, -0.0, 2.0**-149, -(2.0**-149), FLT_MAX, -FLT_MAX, 1 + 2.0**-23, 2049.0, 2.0**-24, 65520.0]),
)
FLOAT16 = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False, width=16),
    st.sampled_from([65504.0, -65504.0, 2.0**-24, -(2.0**-24), 2048.0, 1.0, -1.0, 0.0, -0.0]),
)
NUMBER = st.one_of(st.sampled_from([1.0, -1.0, 0.0, 0.5, 2.0**-24, 2.0**-12]), st.floats(-8, 8, width=32), FLOAT32)


def meaning(stored, channel_format):
    if channel_format in (F.unorm8, F.unorm16):
        return Fraction(float(np.float32(stored) / np.float32(np.iinfo(DTYPES[channel_format]).max)))
    return Fraction(float(stored))


@st.composite
def operands(draw):
    channel_format = draw(st.sampled_from(FORMATS))
    item = {
        F.unorm8: st.integers(0, 255),
        F.unorm16: st.integers(0, 65535),
        F.float16: FLOAT16,
        F.float32: FLOAT32,
    }[channel_format]
    return channel_format, draw(st.lists(item, min_size=4, max_size=4))


@settings(max_examples=150, deadline=None)
@given(
    operands(),
    operands(),
    st.sampled_from(FORMATS),
    st.tuples(NUMBER, NUMBER),
    st.one_of(st.just(0.0), NUMBER),
    st.one_of(st.none(), st.tuples(NUMBER, NUMBER).map(sorted)),
)
def test_additions_are_the_exact_value_rounded_once(left, right, result_format, scales, bias, bounds):
    both = add(node("x"), node("y"), primary_scale=scales[0], secondary_scale=scales[1], bias=bias)
    if bounds:
        both.minimum_value, both.maximum_value = bounds
    both.result_image.format = result_format
    images = [pixels(np.array(v, DTYPES[f]).reshape(1, 1, 4), f) for f, v in (left, right)]
    (result,) = evaluate(graph_of(both), *images)
    for x, y, stored in zip(left[1], right[1], result.to_array().ravel().tolist(), strict=True):
        exact = Fraction(scales[0]) * meaning(x, left[0]) + Fraction(scales[1]) * meaning(y, right[0]) + Fraction(bias)
        if bounds:
            low, high = (float(b) for b in bounds)
            # The default bounds stand for none.
            exact = max(exact, Fraction(low)) if low > -FLT_MAX else exact
            exact = min(exact, Fraction(high)) if high < FLT_MAX else exact
        expected = rounded(exact, result_format)
        assert stored == expected
        if exact and result_format in SMALLEST:
            assert np.signbit(stored) == (exact < 0), "a sum that underflows keeps its sign"


TINY = 2.0**-80
BESIDE = [(TINY, True), (-TINY, False), (0.0, False)]


@pytest.mark.parametrize(("tiny", "is_up"), BESIDE)
@pytest.mark.parametrize("as_bias", [True, False], ids=["bias", "source"])
def test_a_sum_just_beside_a_tie_of_float16_is_decided_by_its_smallest_part(tiny, is_up, as_bias):
    # 1 + 2^-11 is a tie; 2^-80 more or less decides, though float64 cannot hold the sum.
    left, right, bias = (1, 2**-11, tiny) if as_bias else (1 + 2**-11, tiny, 0)
    graph = graph_of(add(node("x"), node("y"), bias=bias))
    (result,) = evaluate(graph, *(pixels(row(value, dtype=np.float32)) for value in (left, right)))
    assert result.to_array().item() == (1 + 2**-10 if is_up else 1)


@pytest.mark.parametrize(("tiny", "is_up"), BESIDE)
@pytest.mark.parametrize("as_bias", [True, False], ids=["bias", "source"])
def test_a_sum_just_beside_a_tie_of_float32_is_decided_by_its_smallest_part(tiny, is_up, as_bias):
    # The square of 1 + 2^-12 is 1 + 2^-11 + 2^-24, a tie.
    graph = graph_of(
        add(node("x"), node("y"), primary_scale=1 + 2**-12, bias=tiny if as_bias else 0),
        format=F.float32,
    )
    sources = (1 + 2**-12, 0 if as_bias else tiny)
    (result,) = evaluate(graph, *(pixels(row(value, dtype=np.float32)) for value in sources))
    assert result.to_array().item() == 1 + 2**-11 + (2**-23 if is_up else 0)


INF, NAN = float("inf"), float("nan")
PLAIN = {}


@pytest.mark.parametrize(
    ("x", "y", "numbers", "expected"),
    [
        (INF, 1, PLAIN, INF),
        (-INF, 1, PLAIN, -INF),
        (INF, INF, PLAIN, INF),
        (INF, -INF, PLAIN, NAN),
        (NAN, 1, PLAIN, NAN),
        (1, NAN, {"maximum_value": 0.5}, NAN),
        (INF, 1, {"secondary_scale": -1}, INF),
        (1, INF, {"secondary_scale": -1}, -INF),
        (INF, INF, {"secondary_scale": -1}, NAN),
        (INF, 1, {"primary_scale": 0}, NAN),
        (INF, 1, {"bias": -1}, INF),
        (1, -INF, {"bias": FLT_MAX}, -INF),
        (INF, 1, {"maximum_value": 100}, 100),
        (-INF, 1, {"minimum_value": -2}, -2),
        (INF, 1, {"minimum_value": -2}, INF),
        (3, 4, {"maximum_value": 5}, 5),
        (-3, -4, {"minimum_value": -5}, -5),
        (3, 4, {"minimum_value": 8, "maximum_value": 9}, 8),
    ],
)
@pytest.mark.parametrize("channel_format", [F.float16, F.float32], ids=lambda f: f.name)
def test_additions_of_infinities_and_clamps(x, y, numbers, expected, channel_format):
    both = add(node("x"), node("y"), **numbers)
    dtype = DTYPES[channel_format]
    sources = [pixels(row(value, dtype=dtype)) for value in (x, y)]
    (result,) = evaluate(graph_of(both, format=channel_format), *sources)
    assert np.array_equal(result.to_array().ravel(), np.array([expected], dtype), equal_nan=True)


@pytest.mark.parametrize(("channel_format", "largest"), [(F.float16, 65504.0), (F.float32, FLT_MAX)])
def test_an_addition_beyond_the_largest_number_is_infinite(channel_format, largest):
    dtype = DTYPES[channel_format]
    x = node("x")
    both = add(x, x)
    for sign in (1, -1):
        (result,) = evaluate(graph_of(both, format=channel_format), pixels(row(sign * largest, dtype=dtype)))
        assert result.to_array().item() == sign * INF


@pytest.mark.parametrize(
    ("x", "y", "scales", "bias", "negative"),
    [
        (0.0, 0.0, (1, 1), 0.0, False),
        (-0.0, 0.0, (1, 1), 0.0, False),
        (-0.0, -0.0, (1, 1), 0.0, False),  # the bias is a third zero
        (-0.0, -0.0, (1, 1), -0.0, True),
        (-0.0, 0.0, (1, 1), -0.0, False),
        (1.0, -1.0, (1, 1), 0.0, False),
        (1.0, -1.0, (1, 1), -0.0, False),
        (1.0, 1.0, (1, -1), 0.0, False),
        (0.0, 0.0, (-1, -1), 0.0, False),
        (0.0, 0.0, (-1, -1), -0.0, True),
        (0.0, 0.0, (1, -1), -0.0, False),
        (-0.0, 0.0, (1, -1), -0.0, True),
        (-1.0, 0.0, (0, -1), -0.0, True),
        (-1.0, 0.0, (0, -1), 0.0, False),
    ],
)
@pytest.mark.parametrize("mode", ["ideal", "stepwise", "stepwise-fma"])
def test_additions_of_zeros_have_the_sign_of_ieee_754(x, y, scales, bias, negative, mode):
    both = add(node("x"), node("y"), primary_scale=scales[0], secondary_scale=scales[1], bias=bias)
    (result,) = evaluate(graph_of(both, mode=mode), pixels(row(x)), pixels(row(y)))
    assert result.to_array().item() == 0
    assert np.signbit(result.to_array().item()) == negative


@settings(max_examples=50, deadline=None)
@given(operands(), st.sampled_from(FORMATS), NUMBER, NUMBER, st.booleans())
def test_gradients_of_additions_are_the_scaled_gradient_rounded_once(g, result_format, primary, secondary, which):
    both = add(node("x"), node("y"), primary_scale=primary, secondary_scale=secondary, bias=3, maximum_value=0.125)
    made = both.gradient_filters(with_source=node("g"))[which]
    made.bias, made.maximum_value = 5, 0.5
    made.result_image.format = result_format
    images = [pixels(np.array(g[1], DTYPES[g[0]]).reshape(1, 1, 4), g[0]), pixels(np.ones((1, 1, 4), np.float16))]
    (result,) = evaluate(graph_of(made), *images)
    factor = Fraction(secondary if which else primary)
    expected = [rounded(factor * meaning(v, g[0]), result_format) for v in g[1]]
    assert result.to_array().ravel().tolist() == expected


@pytest.mark.parametrize("channel_format", FORMATS, ids=lambda f: f.name)
def test_the_initial_gradient_is_ones_of_the_size_of_its_source(channel_format):
    source = pixels(np.full((2, 3, 4, 5), np.nan, np.float32))
    (result,) = evaluate(graph_of(mps.MPSNNInitialGradientNode(source=node("x")), format=channel_format), source)
    one = np.iinfo(DTYPES[channel_format]).max if channel_format in (F.unorm8, F.unorm16) else 1
    assert same(result, np.full((2, 3, 4, 5), one, DTYPES[channel_format]))


# ---- errors ----


def two_sources():
    return graph_of(add(tanh(node("left one")).result_image, node("right one")))


ONE = pixels(np.ones((2, 3, 4), np.float16))


def message(error):
    text = str(error.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_wrong_number_of_sources_is_a_source_error_that_names_them(count):
    for call in (
        lambda: two_sources().encode(source_images=[ONE] * count),
        lambda: two_sources().encode_batch(source_images=[[ONE]] * count),
    ):
        with pytest.raises(mps.SourceError) as error:
            call()
        assert all(name in message(error) for name in ("'left one'", "'right one'", str(count), "2"))


@pytest.mark.parametrize(
    "shape", [(2, 3, 5), (2, 4, 4), (3, 3, 4), (2, 2, 3, 4)], ids=["channels", "width", "height", "images"]
)
def test_sources_of_different_size_are_an_image_error_that_names_them(shape):
    other = pixels(np.ones(shape, np.float16))
    for images in ([ONE, other], [other, ONE]):
        with pytest.raises(mps.ImageError) as error:
            two_sources().encode(source_images=images)
        assert all(name in message(error) for name in ("'left one'", "'right one'", "3x2x4"))


def test_a_size_error_names_only_the_sources_that_matter():
    a, b, c = node("a-source"), node("b-source"), node("c-source")
    graph = graph_of(add(a, b), tanh(c))
    with pytest.raises(mps.ImageError) as error:
        graph.encode(source_images=[ONE, pixels(np.ones((1, 1, 4), np.float16)), ONE])
    assert "'a-source'" in message(error)
    assert "'b-source'" in message(error)
    assert "c-source" not in message(error)


def test_sources_of_separate_branches_may_differ_in_size():
    graph = graph_of(tanh(node("a")), tanh(node("b")))
    results = graph.run(a=np.ones((1, 2, 3), np.float16), b=np.ones((4, 5, 6), np.float16))
    assert [image.to_array().shape for image in results.values()] == [(1, 1, 2, 3), (1, 4, 5, 6)]


def test_a_gradient_of_another_size_than_the_source_is_an_image_error():
    n = tanh(node("x"))
    graph = graph_of(n.gradient_filter(with_source=node("dy")))
    with pytest.raises(mps.ImageError) as error:
        graph.run(x=np.ones((2, 2, 2), np.float16), dy=np.ones((2, 2, 3), np.float16))
    assert "'x'" in message(error)
    assert "'dy'" in message(error)


def test_a_wrong_format_is_an_image_error_that_names_the_source_and_both_formats():
    graph = graph_of(tanh(node("x", F.float32)))
    with pytest.raises(mps.ImageError) as error:
        graph.encode(source_images=[ONE])
    assert all(name in message(error) for name in ("'x'", "float16", "float32"))


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["left one"], ["missing 'right one'"]),
        ([], ["missing", "'left one'", "'right one'"]),
        (["left one", "right one", "stranger"], ["unknown 'stranger'"]),
        (["left one", "stranger"], ["missing 'right one'", "unknown 'stranger'"]),
    ],
)
def test_missing_and_unknown_names_are_source_errors_that_name_them(names, words):
    with pytest.raises(mps.SourceError) as error:
        two_sources().run(**dict.fromkeys(names, ONE))
    assert all(word in message(error) for word in words)


@pytest.mark.parametrize("handles", [("x", "x"), (None, "x"), (Tag("x"), "x"), (Tag(None), "x")])
def test_run_needs_a_name_of_its_own_for_each_source(handles):
    graph = graph_of(add(*(node(handle) for handle in handles)))
    with pytest.raises(mps.SourceError, match="handle") as error:
        graph.run(x=ONE)
    assert message(error)
    assert graph.encode(source_images=[ONE, ONE]) is not None


@pytest.mark.parametrize("slopes", [3, 5, 1])
def test_slopes_that_are_not_as_many_as_the_channels_are_an_error_that_names_the_source(slopes):
    n = mps.MPSCNNNeuronPReLUNode(source=tanh(node("x")).result_image, a_data=[0.5] * slopes)
    n.label = "activation"
    g = n.gradient_filter(with_source=node("dy"))
    for graph, sources in ((graph_of(n), [ONE]), (graph_of(g), [ONE, ONE])):
        with pytest.raises((mps.ImageError, mps.ParameterError)) as error:
            graph.encode(source_images=sources)
        assert all(name in message(error) for name in ("'x'", f"{slopes} slopes", "4 channels"))


@pytest.mark.parametrize("wrong", [3, None, "x", np.ones((2, 3, 4), np.float16)], ids=lambda w: type(w).__name__)
def test_a_source_that_is_no_image_is_an_image_error_that_names_it(wrong):
    with pytest.raises(mps.ImageError, match="'left one'") as error:
        two_sources().encode(source_images=[wrong, ONE])
    assert message(error)


@pytest.mark.parametrize("wrong", [ONE, 3, None], ids=lambda w: type(w).__name__)
def test_something_else_than_a_list_of_sources_is_an_error_of_ours(wrong):
    graph = graph_of(tanh(node("x")))
    for call in (graph.encode, graph.encode_batch):
        with pytest.raises(mps.MPSRefError, match="source_images"):
            call(source_images=wrong)


@pytest.mark.parametrize("wrong", [ONE, 3], ids=lambda w: type(w).__name__)
def test_something_else_than_a_list_in_a_batch_is_an_error_of_ours(wrong):
    with pytest.raises(mps.MPSRefError, match=r"source_images|'x'"):
        graph_of(tanh(node("x"))).encode_batch(source_images=[wrong])


@pytest.mark.parametrize(
    "wrong",
    [
        np.ones((1, 1, 2, 3, 1, 1), np.float16),
        np.ones((2, 3, 4), np.int32),
        np.ones((2, 0, 4), np.float16),
        "text",
        [[[1, "a"]]],
    ],
    ids=["rank", "dtype", "empty", "text", "mixed"],
)
def test_an_array_that_is_no_image_is_an_image_error_that_names_the_source(wrong):
    with pytest.raises(mps.ImageError, match="'x'") as error:
        graph_of(tanh(node("x"))).run(x=wrong)
    assert message(error)


def test_batches_of_different_lengths_or_of_several_images_are_image_errors():
    with pytest.raises(mps.ImageError, match="length") as error:
        two_sources().encode_batch(source_images=[[ONE], [ONE, ONE]])
    assert message(error)
    several = pixels(np.ones((2, 2, 3, 4), np.float16))
    with pytest.raises(mps.ImageError, match="'right one'") as error:
        two_sources().encode_batch(source_images=[[ONE], [several]])
    assert message(error)


def test_errors_come_before_any_work():
    steps = []
    graph = graph_of(tanh(node("x")), mps.MPSCNNNeuronPReLUNode(source=node("y"), a_data=[1.0]))
    with pytest.raises(mps.MPSRefError):
        graph.encode(source_images=[ONE, ONE], progress=lambda *done: steps.append(done))
    assert steps == []


# ---- progress ----


def test_progress_is_told_after_each_step():
    n = tanh(node("x"))
    for _ in range(4):
        n = tanh(n.result_image)
    steps = []
    graph_of(n).encode(source_images=[ONE], progress=lambda done, total: steps.append((done, total)))
    assert steps == [(i, 5) for i in range(1, 6)]


def test_an_error_in_progress_ends_the_evaluation():
    def stop(done, total):
        if done == 2:
            raise KeyboardInterrupt

    n = tanh(tanh(tanh(node("x")).result_image).result_image)
    graph = graph_of(n)
    with pytest.raises(KeyboardInterrupt):
        graph.encode(source_images=[ONE], progress=stop)
    assert graph.encode(source_images=[ONE]) is not None


def test_a_filter_that_nobody_can_evaluate_is_refused_when_the_graph_is_made():
    class Unknown(mps.MPSNNFilterNode):
        def __init__(self, source):
            self._connect(source=source)

    node = Unknown(mps.MPSNNImageNode(handle="x"))

    with pytest.raises(mps.UnavailableError, match="Unknown"):
        mps.MPSNNGraph(result_image=node.result_image)
    with pytest.raises(mps.UnavailableError, match="Unknown"):
        node.gradient_filters(with_source=node.result_image)
    with pytest.raises(mps.UnavailableError, match="Unknown"):
        mps.GraphFile.from_results([node.result_image])


def test_needed_flags_of_the_other_form_are_refused():
    image = mps.MPSCNNNeuronSigmoidNode(source=mps.MPSNNImageNode(handle="x")).result_image

    with pytest.raises(mps.ParameterError, match="results_are_needed"):
        mps.MPSNNGraph(result_image=image, results_are_needed=[True])
    with pytest.raises(mps.ParameterError, match="result_image_is_needed"):
        mps.MPSNNGraph(result_images=[image], result_image_is_needed=False)


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        (lambda g, i: g.encode(source_images=[i], intermediate_images=()), mps.ParameterError, "intermediate_images"),
        (lambda g, i: g.encode_batch(source_images=[[i]], intermediate_images=()), mps.ParameterError, "intermediate"),
        (lambda g, i: g.encode_batch(source_images=[None]), mps.ImageError, "a batch of source_images"),
        (lambda g, i: g.run(x=[[1.0], [2.0, 3.0]]), mps.ImageError, "'x'"),
        (lambda g, i: g.read_count_for_source_image(at="a"), mps.SourceError, "at is 'a'"),
        (lambda g, i: mps.MPSNNGraph(result_image="a"), mps.ParameterError, "result_image is a str"),
        (lambda g, i: mps.MPSNNGraph(result_images=[]), mps.ParameterError, "result_images is empty"),
    ],
)
def test_arguments_of_the_wrong_kind_are_named(call, kind, words):
    node = mps.MPSCNNNeuronSigmoidNode(source=mps.MPSNNImageNode(handle="x"))
    graph = mps.MPSNNGraph(result_image=node.result_image)
    image = mps.MPSImage.from_array(np.float16([[[1]]]))

    with pytest.raises(kind, match=words):
        call(graph, image)


def test_a_label_and_what_a_handle_says_are_text():
    class Wrong:
        def label(self):
            return 3

    node = mps.MPSCNNNeuronSigmoidNode(source=mps.MPSNNImageNode(handle=Wrong()))

    with pytest.raises(mps.ParameterError, match="label is a int"):
        node.label = 5
    with pytest.raises(mps.ParameterError, match="label"):
        mps.MPSNNGraph(result_image=node.result_image).run(x=np.float16([[[1]]]))


def test_bounds_that_exclude_everything_are_refused():
    x = mps.MPSNNImageNode(handle="x")
    total = mps.MPSNNAdditionNode(left_source=x, right_source=x)
    total.minimum_value, total.maximum_value = 2, 1

    with pytest.raises(mps.ParameterError, match="minimum_value"):
        mps.MPSNNGraph(result_image=total.result_image)


def test_a_sum_of_thousands_of_sources_is_checked_in_no_time():
    images = [mps.MPSNNImageNode(handle=f"x{i}") for i in range(3_000)]
    total = images[0]
    for image in images[1:]:
        total = mps.MPSNNAdditionNode(left_source=total, right_source=image).result_image
    graph = mps.MPSNNGraph(result_image=total)
    one = mps.MPSImage.from_array(np.float16([[[1]]]))
    wide = mps.MPSImage.from_array(np.float16([[[1], [1]]]))

    tracemalloc.start()
    graph.encode(source_images=[one] * 3_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 20 * 2**20
    with pytest.raises(mps.ImageError, match=r"'x2999' \(2x1x1\)"):
        graph.encode(source_images=[one] * 2_999 + [wide])
