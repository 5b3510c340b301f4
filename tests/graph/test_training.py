"""Automatic differentiation: its rules one by one, and the gradients against numerical differentiation."""

import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st

import mpsref as mps
from builders import image

T = mps.MPSCNNNeuronType
F = mps.MPSImageFeatureChannelFormat


def tanh(source, handle=None, **parameters):
    node = mps.MPSCNNNeuronTanHNode(source=source, **parameters)
    node.result_image.handle = handle
    return node


def add(left, right, handle=None):
    node = mps.MPSNNAdditionNode(left_source=left, right_source=right)
    node.result_image.handle = handle
    return node


class Recorder:
    """A node handler that remembers its calls, and may act in them."""

    def __init__(self, act=None):
        self.calls = []
        self.act = act

    def __call__(self, gradient_node, inference_node, inference_source, gradient_source):
        self.calls.append((gradient_node, inference_node, inference_source, gradient_source))
        if self.act is not None:
            self.act(gradient_node, inference_node, inference_source, gradient_source)

    @property
    def made(self):
        return [call[0] for call in self.calls]

    @property
    def mirrored(self):
        return [call[1] for call in self.calls]

    @property
    def additions(self):
        return [node for node in self.made if isinstance(node, mps.MPSNNAdditionNode)]


def unread(made):
    """The nodes that make what no other of them reads."""
    read = {source for node in made for source in node.sources}
    return [node for node in made if node.result_image not in read]


# ---- a chain of gradients ----


def test_without_a_gradient_the_receivers_result_image_is_the_gradient():
    x, dy = image("x"), image("dy")
    n = tanh(x)
    (without,) = n.training_graph()
    (with_,) = n.training_graph(with_source_gradient=dy)
    assert without.sources == (n.result_image, x)
    assert with_.sources == (dy, x)


def test_new_nodes_have_default_properties():
    x, dy = image("x"), image("dy")
    n = add(tanh(x).result_image, x)
    handler = Recorder()
    n.training_graph(with_source_gradient=dy, node_handler=handler)
    for node in handler.made:
        r = node.result_image
        assert (node.label, r.handle, r.format, r.export_from_graph, r.stop_gradient) == (
            None, None, F.none, False, False,
        )  # fmt: skip


def test_the_handler_can_change_a_node_before_the_next_is_made():
    x = image("x")
    first = tanh(x)

    def widen(node, *_):
        node.result_image.format = F.float32

    handler = Recorder(widen)
    tanh(first.result_image).training_graph(with_source_gradient=image("dy"), node_handler=handler)
    assert [node.result_image.format for node in handler.made] == [F.float32, F.float32]


def test_the_handler_is_called_once_for_each_new_node_with_its_four_arguments():
    x, dy = image("x"), image("dy")
    first = tanh(x)
    second = tanh(first.result_image)
    handler = Recorder()
    termini = second.training_graph(with_source_gradient=dy, node_handler=handler)
    (g2, *rest2), (g1, *rest1) = handler.calls
    assert rest2 == [second, first.result_image, dy]
    assert rest1 == [first, x, g2.result_image]
    assert g2.sources == (dy, first.result_image)
    assert g1.sources == (g2.result_image, x)
    assert (g2.gradient_state, g1.gradient_state) == (second.result_state, first.result_state)
    assert termini == [g1]


def test_an_addition_calls_the_handler_for_each_of_its_two_gradient_nodes():
    x, y, dy = image("x"), image("y"), image("dy")
    both = add(x, y)
    handler = Recorder()
    both.training_graph(with_source_gradient=dy, node_handler=handler)
    assert [(i, s, g) for _, i, s, g in handler.calls] == [(both, x, dy), (both, y, dy)]
    assert [node.is_secondary_source_filter for node in handler.made] == [False, True]


def test_the_handlers_value_is_ignored():
    x = image("x")
    (terminus,) = tanh(x).training_graph(node_handler=lambda *_: "anything")
    assert terminus.result_image.handle is None


def test_an_automatic_addition_has_no_inference_node():
    x, dy = image("x"), image("dy")
    handler = Recorder()
    termini = add(tanh(x).result_image, x).training_graph(with_source_gradient=dy, node_handler=handler)
    (addition,) = handler.additions
    (call,) = [call for call in handler.calls if call[0] is addition]
    assert call[1] is None
    assert call[2] is x
    assert call[3] in addition.sources
    assert all(i is not None for node, i, *_ in handler.calls if node is not addition)
    assert termini == [addition]


def test_the_default_handler_copies_the_handles_of_the_sources():
    tag = object.__new__(type("Tag", (), {"label": lambda _: "x"}))
    x, y = image(tag), image("y")
    h = tanh(x, "h")
    termini = add(h.result_image, y).training_graph(with_source_gradient=image("dy"))
    assert [node.result_image.handle for node in termini] == ["y", tag]
    (of_x,) = [node for node in termini if node.result_image.handle is tag]
    assert of_x.sources[0].handle == "h", "the gradient of h, between the two"


def test_the_default_handler_gives_an_automatic_addition_the_handle_too():
    x = image("x")
    (addition,) = add(x, x).training_graph(with_source_gradient=image("dy"))
    assert isinstance(addition, mps.MPSNNAdditionNode)
    assert addition.result_image.handle == "x"


def test_a_custom_handler_replaces_the_copying():
    (terminus,) = tanh(image("x")).training_graph(with_source_gradient=image("dy"), node_handler=Recorder())
    assert terminus.result_image.handle is None


def test_stop_gradient_set_on_the_source_in_the_handler_ends_the_branch():
    x, y, dy = image("x"), image("y"), image("dy")
    left, right = tanh(x), tanh(y)

    def prune(node, inference, source, gradient):
        if source is left.result_image:
            source.stop_gradient = True

    handler = Recorder(prune)
    termini = add(left.result_image, right.result_image).training_graph(with_source_gradient=dy, node_handler=handler)
    assert left not in handler.mirrored
    assert right in handler.mirrored
    assert termini == unread(handler.made)
    assert len(termini) == 2


def test_stop_gradient_set_on_the_new_result_in_the_handler_ends_the_branch():
    x, y, dy = image("x"), image("y"), image("dy")
    left, right = tanh(x), tanh(y)

    def prune(node, inference, source, gradient):
        if source is left.result_image:
            node.result_image.stop_gradient = True

    handler = Recorder(prune)
    termini = add(left.result_image, right.result_image).training_graph(with_source_gradient=dy, node_handler=handler)
    assert left not in handler.mirrored
    assert right in handler.mirrored
    assert termini == unread(handler.made)
    assert len(termini) == 2
    assert not left.result_image.stop_gradient


def test_pruning_one_of_two_readers_leaves_the_gradient_of_the_other_without_addition():
    x = image("x")
    h = tanh(x)
    kept, pruned = tanh(h.result_image), tanh(h.result_image)

    def prune(node, inference, source, gradient):
        if inference is pruned:
            node.result_image.stop_gradient = True

    handler = Recorder(prune)
    last = add(kept.result_image, pruned.result_image)
    termini = last.training_graph(with_source_gradient=image("dy"), node_handler=handler)
    assert handler.additions == []
    (of_h,) = [call for call in handler.calls if call[1] is h]
    (of_kept,) = [call for call in handler.calls if call[1] is kept]
    assert of_h[3] is of_kept[0].result_image
    assert len(termini) == 2


def test_a_stop_on_an_automatic_addition_ends_the_branch():
    # stop_gradient on the new node's result image ends the branch, whichever node it is.
    x = image("x")
    h = tanh(x)

    def prune(node, inference, source, gradient):
        if inference is None:
            node.result_image.stop_gradient = True

    handler = Recorder(prune)
    termini = add(h.result_image, h.result_image).training_graph(with_source_gradient=image("dy"), node_handler=handler)
    assert len(handler.additions) == 1
    assert h not in handler.mirrored
    assert termini == handler.additions


def test_a_stop_on_the_source_when_its_gradients_are_summed_ends_the_branch():
    x = image("x")
    h = tanh(x)

    def prune(node, inference, source, gradient):
        if inference is None:
            source.stop_gradient = True

    handler = Recorder(prune)
    termini = add(h.result_image, h.result_image).training_graph(with_source_gradient=image("dy"), node_handler=handler)
    assert h.result_image.stop_gradient
    assert h not in handler.mirrored
    assert termini == handler.additions


def test_stop_gradient_on_an_intermediate_keeps_its_producer_out_and_its_reader_in():
    x = image("x")
    first = tanh(x, "h1")
    second = tanh(first.result_image, "h2")
    third = tanh(second.result_image)
    second.result_image.stop_gradient = True
    handler = Recorder()
    termini = third.training_graph(with_source_gradient=image("dy"), node_handler=handler)
    assert handler.mirrored == [third]
    assert termini == handler.made


def test_stop_gradient_on_the_last_result_leaves_nothing():
    n = tanh(image("x"))
    n.result_image.stop_gradient = True
    handler = Recorder()
    assert n.training_graph(with_source_gradient=image("dy"), node_handler=handler) is None
    assert handler.calls == []


def test_stop_gradient_on_a_graph_input_keeps_its_readers_and_makes_no_addition():
    x = image("x")
    left, right = tanh(x), tanh(x)
    x.stop_gradient = True
    handler = Recorder()
    last = add(left.result_image, right.result_image)
    termini = last.training_graph(with_source_gradient=image("dy"), node_handler=handler)
    assert handler.additions == []
    assert {left, right} <= set(handler.mirrored)
    assert termini == [node for node, inference, *_ in handler.calls if inference in {left, right}]


def test_stop_gradient_on_one_path_leaves_the_other_open():
    x = image("x")
    blocked, opened = tanh(x), tanh(x)
    blocked.result_image.stop_gradient = True
    handler = Recorder()
    last = add(blocked.result_image, opened.result_image)
    last.training_graph(with_source_gradient=image("dy"), node_handler=handler)
    assert set(handler.mirrored) == {last, opened}


def test_only_termini_are_returned_in_the_order_in_which_they_were_made():
    images = [image(f"x{i}") for i in range(4)]
    last = tanh(images[0])
    for x in images[1:]:
        last = add(last.result_image, tanh(x).result_image)
    handler = Recorder()
    termini = last.training_graph(with_source_gradient=image("dy"), node_handler=handler)
    assert termini == unread(handler.made)
    assert {node.sources[1] for node in termini} == set(images)
    assert len(termini) == 4


def test_two_inputs_give_two_termini_left_first():
    x, y = image("x"), image("y")
    termini = add(tanh(x).result_image, tanh(y).result_image).training_graph(with_source_gradient=image("dy"))
    assert [node.result_image.handle for node in termini] == ["x", "y"]


def test_nothing_is_returned_if_nothing_was_made():
    x = image("x")
    assert mps.MPSNNInitialGradientNode(source=x).training_graph() is None
    n = tanh(x)
    n.result_image.stop_gradient = True
    assert n.training_graph() is None
    assert mps.MPSNNInitialGradientNode(source=n.result_image).training_graph() is None


def test_the_inference_graph_is_left_as_it_was():
    x = image("x")
    h = tanh(x, "h")
    last = add(h.result_image, x, "y")
    before = [(n, n.sources, n.result_image, n.result_image.handle, n.label) for n in (h, last)]
    last.training_graph(with_source_gradient=image("dy"))
    assert [(n, n.sources, n.result_image, n.result_image.handle, n.label) for n in (h, last)] == before


def test_only_what_the_receiver_depends_on_is_differentiated():
    x = image("x")
    h = tanh(x)
    after = tanh(h.result_image)
    beside = tanh(x)
    handler = Recorder()
    h.training_graph(with_source_gradient=image("dy"), node_handler=handler)
    assert handler.mirrored == [h]
    assert after not in handler.mirrored
    assert beside not in handler.mirrored


# ---- fan-out ----


@pytest.mark.parametrize("readers", range(1, 7))
@pytest.mark.parametrize("is_input", [True, False], ids=["input", "intermediate"])
def test_n_readers_of_an_image_make_n_minus_one_additions(readers, is_input):
    x = image("x")
    shared = x if is_input else tanh(x, "h").result_image
    branches = [tanh(shared, b=0.5 + i) for i in range(readers)]
    last = branches[0]
    for branch in branches[1:]:
        last = add(last.result_image, branch.result_image)
    handler = Recorder()
    termini = last.training_graph(with_source_gradient=image("dy"), node_handler=handler)
    assert len(handler.additions) == readers - 1
    assert all(source is shared for _, inference, source, _ in handler.calls if inference is None)
    gradients = [node.result_image for node, inference, *_ in handler.calls if inference in branches]
    summed = {source for node in handler.additions for source in node.sources}
    assert readers == 1 or set(gradients) <= summed
    assert len(termini) == 1
    if not is_input:
        assert handler.mirrored.count(shared.producer) == 1, "differentiated once, after the sum"


def test_a_filter_is_differentiated_only_after_all_its_readers():
    x = image("x")
    h = tanh(x)
    deep = h
    for _ in range(5):
        deep = tanh(deep.result_image)
    for sources in ((h.result_image, deep.result_image), (deep.result_image, h.result_image)):
        handler = Recorder()
        add(*sources).training_graph(with_source_gradient=image("dy"), node_handler=handler)
        assert handler.mirrored[-1] is h
        assert handler.mirrored[-2] is None, "the sum, just before"
        assert handler.mirrored.count(h) == 1


def test_the_sum_of_an_image_with_itself_has_two_gradients_and_one_addition():
    x, dy = image("x"), image("dy")
    both = add(x, x)
    handler = Recorder()
    termini = both.training_graph(with_source_gradient=dy, node_handler=handler)
    assert handler.mirrored == [both, both, None]
    left, right, addition = handler.made
    assert addition.sources == (left.result_image, right.result_image)
    assert termini == [addition]


def test_a_diamond_ends_in_one_gradient():
    x = image("x")
    top = tanh(x)
    left, right = tanh(top.result_image, b=0.5), tanh(top.result_image, b=2)
    bottom = add(left.result_image, right.result_image)
    handler = Recorder()
    termini = bottom.training_graph(with_source_gradient=image("dy"), node_handler=handler)
    assert handler.mirrored == [bottom, bottom, left, right, None, top]
    assert termini == [handler.made[-1]]
    assert termini[0].sources == (handler.additions[0].result_image, x)


def test_an_input_that_several_filters_read_at_different_depths_has_one_terminus():
    x, y = image("x"), image("y")
    first = add(tanh(x).result_image, y)
    last = add(first.result_image, x)
    termini = last.training_graph(with_source_gradient=image("dy"))
    assert sorted(node.result_image.handle for node in termini) == ["x", "y"]


# ---- initial gradients ----


def test_an_initial_gradient_node_passes_its_ones_through():
    x = image("x")
    n = tanh(x)
    ones = mps.MPSNNInitialGradientNode(source=n.result_image)
    handler = Recorder()
    termini = ones.training_graph(node_handler=handler)
    assert handler.mirrored == [n]
    assert termini[0].sources == (ones.result_image, x)
    (same,) = ones.training_graph(with_source_gradient=ones.result_image)
    assert same.sources == (ones.result_image, x)


def test_the_ones_of_an_initial_gradient_node_give_the_slopes():
    x = image("x")
    n = tanh(x, a=1.5, b=0.5)
    (terminus,) = mps.MPSNNInitialGradientNode(source=n.result_image).training_graph()
    values = np.linspace(-3, 3, 12, dtype=np.float32).reshape(1, 4, 3)
    graph = mps.MPSNNGraph(result_image=terminus.result_image, format=F.float32)
    assert graph.source_image_handles == ["x"]
    result = graph.run(x=values)["x"].to_array()[0]
    assert np.array_equal(result, mps.neuron.gradient(n.descriptor, values, np.ones_like(values)))


def test_a_training_graph_through_an_initial_gradient_node_ends_there():
    # Ones do not depend on what they are the gradient of.
    x = image("x")
    ones = mps.MPSNNInitialGradientNode(source=tanh(x).result_image)
    scaled = tanh(ones.result_image)
    handler = Recorder()
    scaled.training_graph(with_source_gradient=image("dy"), node_handler=handler)
    assert handler.mirrored == [scaled]


def test_a_gradient_filter_on_the_way_is_an_error():
    n = tanh(image("x"))
    g = n.gradient_filter(with_source=image("dy"))
    with pytest.raises(mps.UnavailableError):
        tanh(g.result_image).training_graph(with_source_gradient=image("ddy"))


# ---- long chains, determinism ----

LENGTH = 5_000


def test_a_chain_of_5000_nodes_builds_trains_and_runs_without_recursion():
    limit = sys.getrecursionlimit()
    x = image("x")
    node = None
    for _ in range(LENGTH):
        node = mps.MPSCNNNeuronLinearNode(source=x if node is None else node.result_image, a=-1)
    calls = []
    termini = node.training_graph(
        with_source_gradient=image("dy"), node_handler=lambda *arguments: calls.append(arguments[1])
    )
    assert len(calls) == LENGTH
    assert calls[0] is node
    assert len(termini) == 1
    graph = mps.MPSNNGraph(result_images=[node.result_image, termini[0].result_image])
    ones = np.ones((1, 1, 1), np.float16)
    done = []
    results = []
    dx = graph.encode(
        source_images=[mps.MPSImage.from_array(v) for v in (ones, 3 * ones)],
        intermediate_images=results,
        progress=lambda i, n: done.append((i, n)),
    )
    assert (dx.to_array(), results[0].to_array()) == (1, 3)
    assert done[-1] == (2 * LENGTH, 2 * LENGTH)
    assert sys.getrecursionlimit() == limit


def structure(last, dy):
    """What was built, with nodes and images numbered in the order of the handler's calls."""
    handler = Recorder()
    termini = last.training_graph(with_source_gradient=dy, node_handler=handler)
    numbers = {}
    return [
        (type(node).__name__, [numbers.setdefault(each, len(numbers)) for each in (*node.sources, node.result_image)])
        for node in handler.made
    ], [handler.made.index(node) for node in termini or ()]


def test_the_same_graph_built_twice_gives_the_same_structure():
    def build(seed):
        rng = np.random.default_rng(seed)
        pool = [image(f"x{i}") for i in range(4)]
        for _ in range(60):
            left, right = (pool[i] for i in rng.integers(len(pool), size=2))
            node = add(left, right) if rng.random() < 0.5 else tanh(left)
            pool.append(node.result_image)
        last = pool[-1].producer
        for each in pool[4:]:
            last = add(last.result_image, each)
        return structure(last, image("dy"))

    for seed in range(5):
        assert build(seed) == build(seed)


# ---- numbers: random graphs against numerical differentiation ----

MODERATE = st.sampled_from([0.25, 0.5, 0.75, 1.0, 1.5, -0.5, -1.0])
POSITIVE = st.sampled_from([0.5, 0.75, 1.0, 1.5])
CHANNELS = 3


def descriptor(name, **parameters):
    return st.builds(lambda values: mps.MPSNNNeuronDescriptor(T[name], **values), st.fixed_dictionaries(parameters))


DESCRIPTORS = st.one_of(
    descriptor("none"),
    descriptor("reLU", a=MODERATE),
    descriptor("linear", a=MODERATE, b=MODERATE),
    descriptor("sigmoid"),
    descriptor("hardSigmoid", a=MODERATE, b=POSITIVE),
    descriptor("tanH", a=MODERATE, b=MODERATE),
    descriptor("absolute"),
    descriptor("softPlus", a=MODERATE, b=MODERATE),
    descriptor("softSign"),
    descriptor("ELU", a=MODERATE),
    descriptor("pReLU", data=st.lists(MODERATE, min_size=CHANNELS, max_size=CHANNELS)),
    descriptor("reLUN", a=MODERATE, b=POSITIVE),
    descriptor("power", a=MODERATE, b=MODERATE, c=st.sampled_from([1.0, 2.0, 3.0])),
    descriptor("exponential", a=st.sampled_from([0.25, -0.5]), b=MODERATE, c=st.sampled_from([-1.0, 2.0])),
    descriptor("logarithm", a=st.sampled_from([0.25, 0.5]), b=st.just(3.0), c=st.sampled_from([-1.0, 2.0, 10.0])),
    descriptor("geLU"),
)


@st.composite
def graphs(draw):
    """The inputs and the last node of a random graph; every node made is used."""
    inputs = [image(f"x{i}") for i in range(draw(st.integers(1, 3)))]
    pool, unused = list(inputs), list(inputs)

    def pick():
        return draw(st.sampled_from(pool))

    for _ in range(draw(st.integers(1, 9))):
        if draw(st.booleans()):
            node = mps.MPSCNNNeuronNode(source=pick(), descriptor=draw(DESCRIPTORS))
        else:
            node = mps.MPSNNAdditionNode(left_source=pick(), right_source=pick())
            node.primary_scale, node.secondary_scale, node.bias = draw(MODERATE), draw(MODERATE), draw(MODERATE)
        unused = [each for each in unused if each not in node.sources]
        pool.append(node.result_image)
        unused.append(node.result_image)
    last = pool[-1].producer
    for each in unused[:-1]:
        last = mps.MPSNNAdditionNode(left_source=last.result_image, right_source=each)
    for each in pool:
        each.stop_gradient = draw(st.integers(0, 9)) == 0
    return inputs, last


def neuron_inputs(node):
    return [(node.descriptor, node.sources[0])] if isinstance(node, mps.MPSCNNNeuronNode) else []


def evaluate(image_node, values):
    """The value of an image in float64; `values` holds what is known, and is added to."""
    if image_node not in values:
        node = image_node.producer
        sources = [evaluate(source, values) for source in node.sources]
        if isinstance(node, mps.MPSCNNNeuronNode):
            value = mps.neuron.forward(node.descriptor, sources[0])
        elif isinstance(node, mps.MPSCNNNeuronGradientNode):
            value = mps.neuron.gradient(node.descriptor, sources[1], sources[0])
        elif isinstance(node, mps.MPSNNAdditionNode):
            value = node.primary_scale * sources[0] + node.secondary_scale * sources[1] + node.bias
        elif isinstance(node, mps.MPSNNAdditionGradientNode):
            value = sources[0] * (node.secondary_scale if node.is_secondary_source_filter else node.primary_scale)
        else:
            raise AssertionError(node)
        values[image_node] = value
    return values[image_node]


def pieces(values):
    """Between which kinks each source of each neuron lies: an array for each neuron."""
    found = []
    for node in {image_node.producer: None for image_node in values if image_node.producer}:
        for d, source in neuron_inputs(node):
            found.append(np.searchsorted(np.sort(d.row.kinks(d)), values[source]))
    return found


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(graphs(), st.integers(0, 2**32 - 1))
def test_training_graphs_agree_with_numerical_differentiation(graph, seed):
    inputs, last = graph
    rng = np.random.default_rng(seed)
    shape = (8, CHANNELS)
    start = {x: rng.uniform(-2, 2, shape) for x in inputs}
    upstream = rng.uniform(0.5, 2, shape) * rng.choice([-1, 1], shape)
    base = dict(start)
    evaluate(last.result_image, base)
    usable = np.all([np.isfinite(v) & (np.abs(v) < 30) for v in base.values()], axis=0)
    assume(usable.any())

    dy = image("dy")
    termini = last.training_graph(with_source_gradient=dy)
    stopped = {i: v for i, v in base.items() if i.stop_gradient}
    event(f"{len(stopped) > 0=}")
    for x in inputs:
        if x.stop_gradient:
            continue
        found = [node for node in termini or () if node.result_image.handle == x.handle]
        assert len(found) <= 1
        analytic = np.zeros(shape)
        if found:
            analytic = evaluate(found[0].result_image, base | {dy: upstream})

        def shifted(step, x=x):
            values = {**start, **stopped, x: start[x] + step}
            return evaluate(last.result_image, values), pieces(base | values)

        here = pieces(base)
        slopes = []
        smooth = usable.copy()
        for h in (4e-4, 2e-4):
            (above, up), (below, down) = shifted(h), shifted(-h)
            slopes.append(upstream * (above - below) / (2 * h))
            for left, middle, right in zip(up, here, down, strict=True):
                smooth &= (left == middle) & (middle == right)
        numeric = (4 * slopes[1] - slopes[0]) / 3
        event(f"smooth points: {bool(smooth.any())}, gradient: {bool(found)}")
        scale = np.maximum(np.abs(numeric), 1e-3)
        error = np.abs(analytic - numeric)[smooth] / scale[smooth]
        assert error.max(initial=0) < 1e-5
