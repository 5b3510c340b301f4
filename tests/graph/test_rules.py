"""The rules of nodes, one test each: handles, defaults, states, labels, descriptors, gradient nodes, and errors."""

import inspect

import numpy as np
import pytest

import mpsref as mps

T = mps.MPSCNNNeuronType
F = mps.MPSImageFeatureChannelFormat
FLT_MAX = float(np.finfo(np.float32).max)
NEURON_NODES = mps.MPSCNNNeuronNode.__subclasses__()

DEFAULTS = {
    "none": {},
    "reLU": {"a": 0.0},
    "linear": {"a": 1.0, "b": 0.0},
    "sigmoid": {},
    "hardSigmoid": {"a": 0.2, "b": 0.5},
    "tanH": {"a": 1.0, "b": 1.0},
    "absolute": {},
    "softPlus": {"a": 1.0, "b": 1.0},
    "softSign": {},
    "ELU": {"a": 1.0},
    "pReLU": {},
    "reLUN": {"a": 1.0, "b": 6.0},
    "power": {"a": 1.0, "b": 0.0, "c": 1.0},
    "exponential": {"a": 1.0, "b": 0.0, "c": -1.0},
    "logarithm": {"a": 1.0, "b": 0.0, "c": -1.0},
    "geLU": {},
}
"""The documented table, written by hand and once."""


class Tag:
    """A handle that is not a string."""

    def __init__(self, text):
        self.text = text

    def label(self):
        return self.text


def image(handle="x", channel_format=F.none):
    node = mps.MPSNNImageNode(handle=handle)
    node.format = channel_format
    return node


def make(cls, source=None, **parameters):
    if cls is mps.MPSCNNNeuronPReLUNode:
        parameters.setdefault("a_data", [0.5])
    return cls(source=source or image(), **parameters)


def addition():
    return mps.MPSNNAdditionNode(left_source=image("x"), right_source=image("y"))


def f32(value):
    return float(np.float32(value))


by_class = pytest.mark.parametrize("cls", NEURON_NODES, ids=lambda cls: cls.__name__)


# ---- handles ----


@pytest.mark.parametrize("handle", ["x", "", None, Tag("x"), Tag(None)])
def test_a_handle_is_a_string_or_has_a_label_or_is_none(handle):
    node = mps.MPSNNImageNode(handle=handle)
    assert node.handle is handle
    node.handle = None
    assert node.handle is None
    node.handle = handle
    assert node.handle is handle
    assert isinstance(repr(node), str)


@pytest.mark.parametrize("handle", [0, 1.5, b"x", ["x"], object(), ("x",)])
def test_anything_else_is_refused_as_a_handle(handle):
    with pytest.raises(mps.ParameterError, match=r"^handle is a "):
        mps.MPSNNImageNode(handle=handle)
    node = image()
    with pytest.raises(mps.ParameterError, match=r"^handle is a "):
        node.handle = handle
    assert node.handle == "x"


@pytest.mark.parametrize("label", [None, "first layer"])
def test_a_node_is_refused_as_a_handle(label):
    # It has a label that is a text: easily given by mistake.
    thing = make(mps.MPSCNNNeuronTanHNode)
    thing.label = label
    with pytest.raises(mps.ParameterError, match=r"^handle is a "):
        mps.MPSNNImageNode(handle=thing)


def test_a_handle_is_never_looked_into_when_nodes_are_made():
    class Secret(Tag):
        def label(self):
            raise AssertionError("looked inside")

    secret = Secret("x")
    node = mps.MPSCNNNeuronTanHNode(source=mps.MPSNNImageNode(handle=secret))
    node.training_graph(with_source_gradient=mps.MPSNNImageNode(handle=secret))


def test_equal_handles_do_not_make_equal_nodes():
    assert image("x") != image("x")
    assert len({image("x"), image("x")}) == 2


# ---- image nodes ----


def test_an_image_node_starts_with_the_documented_defaults():
    node = mps.MPSNNImageNode(handle=None)
    assert node.handle is None
    assert node.format is F.none
    assert node.export_from_graph is False
    assert node.stop_gradient is False
    assert node.synchronize_resource is False
    assert node.producer is None


def test_an_exported_node_differs_in_one_setting_only():
    node = mps.MPSNNImageNode.exported_node(with_="e")
    assert type(node) is mps.MPSNNImageNode
    assert node.handle == "e"
    assert node.export_from_graph is True
    assert (node.format, node.stop_gradient, node.synchronize_resource) == (F.none, False, False)
    assert mps.MPSNNImageNode.exported_node(with_=None).handle is None


@pytest.mark.parametrize("channel_format", list(F))
def test_the_format_can_be_set_to_each_member_and_its_raw_value(channel_format):
    node = image()
    node.format = channel_format
    assert node.format is channel_format
    node.format = int(channel_format)
    assert node.format is channel_format


@pytest.mark.parametrize("value", [5, 6, -1, "halves", "float64", np.float64, np.dtype("i4"), True, T.sigmoid, None])
def test_another_format_is_refused(value):
    node = image(channel_format=F.float32)
    with pytest.raises(mps.ParameterError, match=r"^format is .*: choose one of MPSImageFeatureChannelFormat: none, "):
        node.format = value
    assert node.format is F.float32


def test_an_image_node_stores_no_size():
    node = image()
    assert not any(hasattr(node, name) for name in ("width", "height", "feature_channels", "number_of_images"))


def test_settings_can_be_changed_after_construction():
    node = image()
    node.export_from_graph = node.stop_gradient = node.synchronize_resource = True
    assert (node.export_from_graph, node.stop_gradient, node.synchronize_resource) == (True, True, True)


# ---- state nodes ----

STATES = [
    mps.MPSNNStateNode,
    mps.MPSNNGradientStateNode,
    mps.MPSNNBinaryGradientStateNode,
    mps.MPSNNArithmeticGradientStateNode,
]


@pytest.mark.parametrize("cls", STATES, ids=lambda cls: cls.__name__)
def test_a_state_node_cannot_be_constructed(cls):
    with pytest.raises(mps.UnavailableError, match=cls.__name__):
        cls()


def test_a_state_node_starts_with_the_documented_defaults_and_can_be_tagged():
    state = make(mps.MPSCNNNeuronTanHNode).result_state
    assert (state.handle, state.export_from_graph, state.synchronize_resource) == (None, False, False)
    state.handle = tag = Tag("s")
    state.export_from_graph = True
    assert state.handle is tag
    with pytest.raises(mps.ParameterError, match=r"^handle is a "):
        state.handle = 3


def test_the_binary_state_is_a_sibling_of_the_gradient_state():
    assert not issubclass(mps.MPSNNBinaryGradientStateNode, mps.MPSNNGradientStateNode)
    assert issubclass(mps.MPSNNArithmeticGradientStateNode, mps.MPSNNBinaryGradientStateNode)
    assert type(addition().result_state) is mps.MPSNNArithmeticGradientStateNode


@by_class
def test_every_neuron_node_owns_a_gradient_state_that_knows_its_producer(cls):
    node = make(cls)
    assert type(node.result_state) is mps.MPSNNGradientStateNode
    assert node.result_state.producer is node


# ---- filter nodes ----


@pytest.mark.parametrize("channel_format", list(F))
def test_result_format_starts_as_a_copy_of_the_first_sources_format(channel_format):
    x, y = image(channel_format=channel_format), image("y", F.unorm8)
    node = mps.MPSCNNNeuronTanHNode(source=x)
    both = mps.MPSNNAdditionNode(left_source=x, right_source=y)
    ones = mps.MPSNNInitialGradientNode(source=x)
    backward = node.gradient_filter(with_source=x)
    of_y = node.gradient_filter(with_source=y)
    assert [n.result_image.format for n in (node, both, ones, backward)] == [channel_format] * 4
    assert of_y.result_image.format is F.unorm8, "the first source of a gradient filter is the gradient"
    x.format = F.unorm16
    assert node.result_image.format is channel_format, "a copy, not a reference"


def test_the_result_image_has_no_handle_and_knows_its_producer():
    node = make(mps.MPSCNNNeuronTanHNode)
    assert node.result_image.handle is None
    assert node.result_image.producer is node
    assert node.result_image is node.result_image
    assert (node.result_image.stop_gradient, node.result_image.export_from_graph) == (False, False)


@pytest.mark.parametrize("make_node", [lambda: make(mps.MPSCNNNeuronTanHNode), addition], ids=["neuron", "addition"])
def test_the_result_state_is_made_once_and_is_the_first_of_the_result_states(make_node):
    node = make_node()
    state = node.result_state
    assert node.result_state is state
    assert len(node.result_states) == 1
    assert node.result_states[0] is state
    assert make_node().result_state is not state


def test_the_gradient_filter_is_tied_to_the_same_state():
    node = make(mps.MPSCNNNeuronTanHNode)
    first, second = node.gradient_filter(with_source=image("g")), node.gradient_filter(with_source=image("g"))
    assert first.gradient_state is second.gradient_state is node.result_state


def test_the_label_is_free_text_and_starts_as_none():
    node = make(mps.MPSCNNNeuronTanHNode)
    assert node.label is None
    node.label = "first layer"
    assert node.label == "first layer"
    assert "first layer" in repr(node)


@by_class
def test_four_forms_make_the_same_gradient_filter(cls):
    x, g = image("x"), image("g")
    node = make(cls, x)
    filters = [
        node.gradient_filter(with_source=g),
        node.gradient_filter(with_sources=[g]),
        *node.gradient_filters(with_source=g),
        *node.gradient_filters(with_sources=(g,)),
    ]
    assert len(filters) == 4
    for made in filters:
        assert type(made) is mps.MPSCNNNeuronGradientNode
        assert made.sources == (g, x)
        assert made.descriptor == node.descriptor
        assert made.gradient_state is node.result_state
    assert len({made.result_image for made in filters}) == 4


@pytest.mark.parametrize("method", ["gradient_filter", "gradient_filters"])
def test_the_gradient_methods_need_exactly_one_gradient(method):
    node, g = make(mps.MPSCNNNeuronTanHNode), image("g")
    for arguments in ({}, {"with_source": g, "with_sources": [g]}, {"with_sources": []}, {"with_sources": [g, g]}):
        with pytest.raises(mps.ParameterError, match="with_source"):
            getattr(node, method)(**arguments)


def test_the_sources_are_in_the_order_of_apples_arguments():
    x, y, g = image("x"), image("y"), image("g")
    both = mps.MPSNNAdditionNode(right_source=y, left_source=x)
    assert both.sources == (x, y)
    left, right = both.gradient_filters(with_source=g)
    assert (left.sources, right.sources) == ((g, x), (g, y))


def test_the_plural_form_gives_primary_then_secondary():
    filters = addition().gradient_filters(with_source=image("g"))
    assert [type(made) for made in filters] == [mps.MPSNNAdditionGradientNode] * 2
    assert [made.is_secondary_source_filter for made in filters] == [False, True]


def test_the_singular_form_of_an_arithmetic_node_is_unavailable():
    for arguments in ({"with_source": image("g")}, {"with_sources": [image("g")]}):
        with pytest.raises(mps.UnavailableError, match="gradient_filters"):
            addition().gradient_filter(**arguments)


ABSTRACT = [
    (mps.MPSNNFilterNode, {}),
    (mps.MPSNNGradientFilterNode, {}),
    (mps.MPSNNBinaryArithmeticNode, {"left_source": image(), "right_source": image()}),
    (mps.MPSNNArithmeticGradientNode, {"gradient_images": [image(), image()], "is_secondary_source_filter": False}),
]


@pytest.mark.parametrize(("cls", "arguments"), ABSTRACT, ids=lambda value: getattr(value, "__name__", ""))
def test_abstract_classes_cannot_be_constructed(cls, arguments):
    with pytest.raises(mps.UnavailableError, match=cls.__name__):
        cls(**arguments)


@by_class
def test_what_apple_has_read_only_is_read_only(cls):
    node = make(cls)
    for name in ("a", "b", "c", "sources", "result_image", "result_state", "result_states", "descriptor"):
        with pytest.raises(AttributeError):
            setattr(node, name, getattr(node, name))
    with pytest.raises(AttributeError):
        node.result_image.producer = None


# ---- gradient filter nodes ----


def gradient_nodes():
    ones = make(mps.MPSCNNNeuronTanHNode).gradient_filter(with_source=image("g"))
    return [ones, *addition().gradient_filters(with_source=image("g"))]


@pytest.mark.parametrize("which", range(3))
def test_a_gradient_filter_has_no_state(which):
    node = gradient_nodes()[which]
    assert node.result_state is None
    assert node.result_states is None


@pytest.mark.parametrize("which", range(3))
@pytest.mark.parametrize("method", ["gradient_filter", "gradient_filters"])
@pytest.mark.parametrize("form", ["with_source", "with_sources"])
def test_a_gradient_filter_refuses_to_be_differentiated(which, method, form):
    g = image("g")
    with pytest.raises(mps.UnavailableError, match="cannot be differentiated"):
        getattr(gradient_nodes()[which], method)(**{form: g if form == "with_source" else [g]})


@pytest.mark.parametrize("which", range(3))
def test_a_gradient_filter_makes_no_training_graph(which):
    with pytest.raises(mps.UnavailableError):
        gradient_nodes()[which].training_graph(with_source_gradient=image("g"))


# ---- neuron nodes ----


@pytest.mark.parametrize("neuron_type", list(T), ids=lambda t: t.name)
def test_a_node_with_a_descriptor_is_of_the_matching_class_and_of_the_base_for_none(neuron_type):
    descriptor = mps.MPSNNNeuronDescriptor(neuron_type, data=[0.5] if neuron_type is T.pReLU else None)
    x = image()
    node = mps.MPSCNNNeuronNode(source=x, descriptor=descriptor)
    own = {cls.neuron_type: cls for cls in NEURON_NODES}.get(neuron_type, mps.MPSCNNNeuronNode)
    assert type(node) is own
    assert node.descriptor is descriptor
    assert node.sources == (x,)
    assert (node.a, node.b, node.c) == (descriptor.a, descriptor.b, descriptor.c)
    assert node.result_image.producer is node


@by_class
def test_a_subclass_does_not_take_a_descriptor(cls):
    with pytest.raises(TypeError, match="descriptor"):
        cls(source=image(), descriptor=mps.MPSNNNeuronDescriptor(T.sigmoid))


@by_class
def test_a_node_made_by_parameters_equals_one_made_by_its_descriptor(cls):
    node = make(cls)
    again = mps.MPSCNNNeuronNode(source=image(), descriptor=node.descriptor)
    assert type(again) is cls
    assert again.descriptor == node.descriptor


def test_the_base_cannot_be_made_without_a_descriptor():
    with pytest.raises(TypeError, match="descriptor"):
        mps.MPSCNNNeuronNode(source=image())


# ---- initialisers and defaults ----


@pytest.mark.parametrize("neuron_type", list(T), ids=lambda t: t.name)
def test_defaults_are_those_of_the_documented_table(neuron_type):
    expected = {name: f32(value) for name, value in DEFAULTS[neuron_type.name].items()}
    data = [0.5] if neuron_type is T.pReLU else None
    descriptor = mps.MPSNNNeuronDescriptor(neuron_type, data=data)
    assert descriptor.parameters == expected
    assert {name: getattr(descriptor, name) for name in "abc"} == dict.fromkeys("abc", 0.0) | expected


@by_class
def test_a_node_without_parameters_has_the_documented_defaults(cls):
    node = make(cls)
    expected = dict.fromkeys("abc", 0.0) | DEFAULTS[cls.neuron_type.name]
    assert {name: getattr(node, name) for name in "abc"} == {name: f32(value) for name, value in expected.items()}


def parameters_of(cls):
    return [name for name in list(inspect.signature(cls.__init__).parameters)[2:] if name != "a_data"]


@by_class
def test_parameters_that_are_left_out_keep_their_defaults(cls):
    for given in parameters_of(cls):
        node = make(cls, **{given: 1.75})
        expected = DEFAULTS[cls.neuron_type.name] | {given: 1.75}
        assert {name: getattr(node, name) for name in expected} == {n: f32(v) for n, v in expected.items()}


@by_class
def test_parameters_are_rounded_once_to_float32(cls):
    for given in parameters_of(cls):
        for value in (
            0.1,
            np.float64(1 / 3),
            1 + 2**-24 + 2**-40,
            2**-149 * 0.75,
            np.float32(0.3),
            np.int8(3),
            16777217,
        ):
            assert getattr(make(cls, **{given: value}), given) == float(np.float32(value))


@by_class
def test_a_parameter_that_is_not_finite_in_float32_or_no_number_is_refused_by_name(cls):
    for given in parameters_of(cls):
        for value in (float("inf"), float("-inf"), float("nan"), 3.5e38, 10**400, "1", [1.0], True, 1j):
            with pytest.raises(mps.ParameterError, match=rf"^{given} is "):
                make(cls, **{given: value})


@by_class
def test_a_parameter_that_apple_does_not_have_is_refused(cls):
    for name in {"a", "b", "c"} - set(parameters_of(cls)):
        with pytest.raises(TypeError, match=name):
            make(cls, **{name: 1.0})


def test_prelu_without_its_data_is_unavailable():
    with pytest.raises(mps.UnavailableError, match="a_data"):
        mps.MPSCNNNeuronPReLUNode(source=image())
    with pytest.raises(mps.ParameterError, match="data"):
        mps.MPSNNNeuronDescriptor(T.pReLU)


@pytest.mark.parametrize("data", [[], [[0.5]], 0.5, [np.nan], [1e39], ["a"], b"123", b"", [1j]])
def test_prelu_refuses_data_that_are_not_finite_slopes(data):
    with pytest.raises(mps.ParameterError, match="data"):
        mps.MPSCNNNeuronPReLUNode(source=image(), a_data=data)


def test_prelu_takes_arrays_and_apples_bytes_alike_rounded_to_float32():
    slopes = np.float32([0.1, -0.25, 3])
    by_array = mps.MPSCNNNeuronPReLUNode(source=image(), a_data=[0.1, -0.25, 3])
    by_bytes = mps.MPSCNNNeuronPReLUNode(source=image(), a_data=slopes.astype("<f4").tobytes())
    assert by_array.descriptor == by_bytes.descriptor
    assert by_array.descriptor.data.dtype == np.float32
    assert np.array_equal(by_array.descriptor.data, slopes)


def test_prelu_keeps_its_own_copy_of_the_data():
    slopes = np.float32([0.5, 0.25])
    node = mps.MPSCNNNeuronPReLUNode(source=image(), a_data=slopes)
    slopes[:] = 9
    assert node.descriptor.data.tolist() == [0.5, 0.25]
    with pytest.raises(ValueError, match="read-only"):
        node.descriptor.data[0] = 9


# ---- the gradient node ----


@pytest.mark.parametrize("neuron_type", list(T), ids=lambda t: t.name)
def test_one_gradient_class_serves_all_types(neuron_type):
    descriptor = mps.MPSNNNeuronDescriptor(neuron_type, data=[0.5] if neuron_type is T.pReLU else None)
    x, g = image("x"), image("g")
    state = mps.MPSCNNNeuronNode(source=x, descriptor=descriptor).result_state
    node = mps.MPSCNNNeuronGradientNode(source_gradient=g, source_image=x, gradient_state=state, descriptor=descriptor)
    assert node.sources == (g, x)
    assert node.descriptor is descriptor
    assert node.gradient_state is state
    for name in ("descriptor", "gradient_state", "sources", "result_image"):
        with pytest.raises(AttributeError):
            setattr(node, name, getattr(node, name))


def test_the_gradient_node_takes_no_binary_state():
    with pytest.raises(mps.ParameterError, match="gradient_state"):
        mps.MPSCNNNeuronGradientNode(
            source_gradient=image(),
            source_image=image(),
            gradient_state=addition().result_state,
            descriptor=mps.MPSNNNeuronDescriptor(T.tanH),
        )


# ---- the descriptor ----


def test_a_descriptor_is_a_value():
    one, same = mps.MPSNNNeuronDescriptor(T.tanH, a=0.1), mps.MPSNNNeuronDescriptor(T.tanH, a=np.float32(0.1), b=1)
    assert one == same
    assert hash(one) == hash(same)
    assert one != mps.MPSNNNeuronDescriptor(T.tanH)
    assert one != mps.MPSNNNeuronDescriptor(T.softPlus, a=0.1)
    for name in ("neuron_type", "a", "b", "c", "data"):
        with pytest.raises(AttributeError):
            setattr(one, name, getattr(one, name))


def test_a_descriptor_takes_slopes_only_for_prelu():
    for neuron_type in T:
        if neuron_type is not T.pReLU:
            with pytest.raises(mps.ParameterError, match=r"^data is only for pReLU"):
                mps.MPSNNNeuronDescriptor(neuron_type, data=[0.5])


@pytest.mark.parametrize("value", [16, -1, "tanh", "count", True, F.float16, None])
def test_the_sentinel_and_strangers_are_no_neuron_types(value):
    with pytest.raises(mps.ParameterError, match=r"^neuron_type is "):
        mps.MPSNNNeuronDescriptor(value)


# ---- arithmetic nodes ----

NUMBERS = {"primary_scale": 1.0, "secondary_scale": 1.0, "bias": 0.0, "minimum_value": -FLT_MAX,
           "maximum_value": FLT_MAX}  # fmt: skip


def arithmetic_nodes():
    node = addition()
    return [node, *node.gradient_filters(with_source=image("g"))]


@pytest.mark.parametrize("which", range(3))
def test_arithmetic_nodes_start_with_the_documented_numbers(which):
    node = arithmetic_nodes()[which]
    assert {name: getattr(node, name) for name in NUMBERS} == NUMBERS


@pytest.mark.parametrize("which", range(3))
@pytest.mark.parametrize("name", sorted(NUMBERS))
def test_each_number_can_be_set_and_is_rounded_to_float32(which, name):
    node = arithmetic_nodes()[which]
    setattr(node, name, 0.1)
    assert getattr(node, name) == f32(0.1)
    assert {n: getattr(node, n) for n in NUMBERS if n != name} == {n: v for n, v in NUMBERS.items() if n != name}
    for bad in (float("nan"), float("inf"), 1e39, "1", None):
        with pytest.raises(mps.ParameterError, match=rf"^{name} is "):
            setattr(node, name, bad)
    assert getattr(node, name) == f32(0.1)


def test_two_sources_can_be_given_in_a_list():
    x, y = image("x"), image("y")
    assert mps.MPSNNAdditionNode(sources=[x, y]).sources == (x, y)


@pytest.mark.parametrize(
    "arguments",
    [
        {"sources": []},
        {"sources": [image()]},
        {"sources": [image()] * 3},
        {"sources": [image()] * 2, "left_source": image()},
        {"sources": [image()] * 2, "right_source": image()},
        {"left_source": image()},
        {"right_source": image()},
        {},
    ],
)
def test_an_arithmetic_node_needs_exactly_two_sources(arguments):
    with pytest.raises(mps.ParameterError, match="source"):
        mps.MPSNNAdditionNode(**arguments)


def test_the_gradient_class_is_told():
    assert addition().gradient_class() is mps.MPSNNAdditionGradientNode


def test_both_initialisers_of_the_gradient_node_make_the_same():
    node, g = addition(), image("g")
    for secondary, source in enumerate(node.sources):
        by_state = mps.MPSNNAdditionGradientNode(
            source_gradient=g,
            source_image=source,
            gradient_state=node.result_state,
            is_secondary_source_filter=bool(secondary),
        )
        by_filter = mps.MPSNNAdditionGradientNode(
            gradient_images=[g, source], forward_filter=node, is_secondary_source_filter=bool(secondary)
        )
        for made in (by_state, by_filter):
            assert made.sources == (g, source)
            assert made.gradient_state is node.result_state
            assert made.is_secondary_source_filter is bool(secondary)


def test_which_source_a_gradient_node_is_for_is_read_only():
    made = addition().gradient_filters(with_source=image("g"))[0]
    with pytest.raises(AttributeError):
        made.is_secondary_source_filter = True


def test_the_gradient_nodes_start_with_the_scales_of_the_forward_node():
    node = addition()
    node.primary_scale, node.secondary_scale, node.bias, node.maximum_value = 2.0, -0.5, 3.0, 7.0
    for made in node.gradient_filters(with_source=image("g")):
        assert (made.primary_scale, made.secondary_scale) == (2.0, -0.5)
        assert (made.bias, made.minimum_value, made.maximum_value) == (0.0, -FLT_MAX, FLT_MAX)


def test_the_gradient_node_takes_no_state_of_a_neuron():
    with pytest.raises(mps.ParameterError, match="gradient_state"):
        mps.MPSNNAdditionGradientNode(
            source_gradient=image(),
            source_image=image(),
            gradient_state=make(mps.MPSCNNNeuronTanHNode).result_state,
            is_secondary_source_filter=False,
        )


# ---- the initial gradient ----


def test_the_initial_gradient_node_is_a_filter_without_state_or_gradient():
    x = image()
    node = mps.MPSNNInitialGradientNode(source=x)
    assert isinstance(node, mps.MPSNNFilterNode)
    assert not isinstance(node, mps.MPSNNGradientFilterNode)
    assert node.sources == (x,)
    assert node.result_state is None
    assert node.result_states is None
    for method in (node.gradient_filter, node.gradient_filters):
        with pytest.raises(mps.UnavailableError, match="MPSNNInitialGradientNode"):
            method(with_source=image("g"))


# ---- arguments of the wrong type ----


def wrong_arguments():
    x, tanh, both = image(), make(mps.MPSCNNNeuronTanHNode), addition()
    d = tanh.descriptor
    neuron_gradient = {"source_gradient": x, "source_image": x, "gradient_state": tanh.result_state, "descriptor": d}
    by_state = {"source_gradient": x, "source_image": x, "gradient_state": both.result_state,
                "is_secondary_source_filter": False}  # fmt: skip
    by_filter = {"gradient_images": [x, x], "forward_filter": both, "is_secondary_source_filter": False}
    graph = {"result_images": [tanh.result_image], "results_are_needed": [True]}
    yield from ((cls, {"source": x} | ({"a_data": [1.0]} if "PReLU" in cls.__name__ else {}), "source")
                for cls in NEURON_NODES)  # fmt: skip
    yield mps.MPSCNNNeuronNode, {"source": x, "descriptor": d}, "source"
    yield mps.MPSCNNNeuronNode, {"source": x, "descriptor": d}, "descriptor"
    yield from ((mps.MPSCNNNeuronGradientNode, neuron_gradient, name) for name in neuron_gradient)
    two = {"left_source": x, "right_source": x}
    yield from ((mps.MPSNNAdditionNode, two, name) for name in two)
    yield mps.MPSNNAdditionNode, {"sources": [x, x]}, "sources"
    yield from ((mps.MPSNNAdditionGradientNode, by_state, name) for name in list(by_state)[:3])
    yield from ((mps.MPSNNAdditionGradientNode, by_filter, name) for name in list(by_filter)[:2])
    yield mps.MPSNNInitialGradientNode, {"source": x}, "source"
    yield from ((method, {form: x if form == "with_source" else [x]}, form)
                for method in (tanh.gradient_filter, tanh.gradient_filters, both.gradient_filters)
                for form in ("with_source", "with_sources"))  # fmt: skip
    yield tanh.training_graph, {"with_source_gradient": x}, "with_source_gradient"
    yield tanh.training_graph, {"node_handler": print}, "node_handler"
    yield mps.MPSNNGraph, {"result_image": tanh.result_image}, "result_image"
    yield from ((mps.MPSNNGraph, graph, name) for name in graph)
    yield mps.MPSNNGraph, {"result_image": tanh.result_image, "format": F.float16}, "format"


@pytest.mark.parametrize("wrong", [3, "x", object()], ids=["int", "str", "object"])
@pytest.mark.parametrize(
    ("callee", "arguments", "name"),
    [pytest.param(*row, id=f"{row[0].__qualname__}-{row[2]}") for row in wrong_arguments()],
)
def test_a_wrong_argument_type_is_an_error_of_ours_that_names_the_argument(callee, arguments, name, wrong):
    if name == "forward_filter" and not isinstance(wrong, int | str):
        wrong = image()
    if name == "format" and wrong == 3:
        wrong = 3.5  # 3 is float16's raw value
    if name == "results_are_needed" and wrong == "x":
        wrong = "one word too many"  # a string of one character is as good as a list of one true value
    # A string is a sequence: what is wrong is its item, which is called by the singular.
    pattern = name.removesuffix("s") if isinstance(wrong, str) else name
    with pytest.raises(mps.MPSRefError, match=pattern) as caught:
        callee(**(arguments | {name: wrong}))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("callee", "arguments", "name"),
    [
        (mps.MPSNNAdditionNode, {"sources": [image(), 3]}, "right_source"),
        (mps.MPSNNAdditionNode, {"sources": [3, image()]}, "left_source"),
        (make(mps.MPSCNNNeuronTanHNode).gradient_filter, {"with_sources": [3]}, "with_source"),
        (mps.MPSNNGraph, {"result_images": [3]}, "result_images"),
        (mps.MPSNNGraph, {"result_images": []}, "result_images"),
    ],
)
def test_a_wrong_item_of_a_list_is_an_error_of_ours_that_names_the_argument(callee, arguments, name):
    with pytest.raises(mps.MPSRefError, match=name):
        callee(**arguments)
