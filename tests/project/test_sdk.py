"""Names, arguments and values are those of Apple's SDK: `data/sdk.json` holds the facts, tables name each exception."""

import inspect
import json
from pathlib import Path

import numpy as np
import pytest

import mpsref as mps
from mpsref.attributes import NO_DEVICE, NO_MEMORY, left_out, snake
from mpsref.graph.neurons import NEURON_NODES

SDK = json.loads((Path(__file__).parents[1] / "data" / "sdk.json").read_text(encoding="utf-8"))
APPLE = SDK["classes"]
CLASSES = sorted(name for name in mps.__all__ if name in APPLE)
F16 = mps.MPSImageFeatureChannelFormat.float16

# ---- what of Apple's is left out: the classes say why ----

LEFT_OUT = {(cls, name) for cls in CLASSES for name in left_out(getattr(mps, cls))}
NOT_MIRRORED_PROPERTIES = {(cls, name) for cls, name in LEFT_OUT if name in APPLE[cls]["properties"]}
NOT_MIRRORED_METHODS = {
    (cls, f"{kind}{name}") for cls, name in LEFT_OUT for kind in "+-" if f"{kind}{name}" in APPLE[cls]["selectors"]
}
IMMUTABLE_VALUES = {"MPSNNNeuronDescriptor", "MPSImageDescriptor"}
DROPPED_LABELS = {("MPSImage", "device"): NO_DEVICE, ("MPSImageDescriptor", "usage"): NO_MEMORY}
RETURNED = {("MPSImage", "-readBytes", "read_bytes"): "the bytes are returned instead of written to a pointer"}

UNAVAILABLE_INITIALISERS = {
    ("MPSCNNNeuronPReLUNode", "+nodeWithSource:"),
    ("MPSCNNNeuronPReLUNode", "-initWithSource:"),
}
NO_PLAIN_INIT = {name for name in CLASSES if "-init" in APPLE[name]["selectors"]}

# ---- where Swift's spelling does not follow from splitting the first piece of the selector at "With" ----

SWIFT = {
    "paddingForTensorflowAveragePooling": ("for_tensorflow_average_pooling", []),
    "paddingForTensorflowAveragePoolingValidOnly": ("for_tensorflow_average_pooling_valid_only", []),
    "exportedNodeWithHandle:": ("exported_node", ["with_"]),
    "executeAsyncWithSourceImages:completionHandler:": ("execute_async", ["source_images", "completion_handler"]),
    "readCountForSourceImageAtIndex:": ("read_count_for_source_image", ["at"]),
    "encodeToCommandBuffer:sourceImages:": ("encode", ["to", "source_images"]),
    "encodeToCommandBuffer:sourceImages:sourceStates:intermediateImages:destinationStates:": (
        "encode",
        ["to", "source_images", "source_states", "intermediate_images", "destination_states"],
    ),
    "encodeBatchToCommandBuffer:sourceImages:sourceStates:": (
        "encode_batch",
        ["to", "source_images", "source_states"],
    ),
    "encodeBatchToCommandBuffer:sourceImages:sourceStates:intermediateImages:destinationStates:": (
        "encode_batch",
        ["to", "source_images", "source_states", "intermediate_images", "destination_states"],
    ),
    "cnnNeuronDescriptorWithType:": ("cnn_neuron_descriptor", ["with_"]),
    "cnnNeuronDescriptorWithType:a:": ("cnn_neuron_descriptor", ["with_", "a"]),
    "cnnNeuronDescriptorWithType:a:b:": ("cnn_neuron_descriptor", ["with_", "a", "b"]),
    "cnnNeuronDescriptorWithType:a:b:c:": ("cnn_neuron_descriptor", ["with_", "a", "b", "c"]),
    "cnnNeuronPReLUDescriptorWithData:noCopy:": (snake("cnnNeuronPReLUDescriptor"), ["with_", "no_copy"]),
}

# ---- what is public here and not Apple's, and why ----

OURS = {
    ("MPSNNImageNode", "producer"): "the graph can be walked",
    ("MPSNNStateNode", "producer"): "the graph can be walked",
    ("MPSNNImageNode", "structure"): "what a drawing shows",
    ("MPSNNStateNode", "structure"): "what a drawing shows",
    ("MPSNNFilterNode", "sources"): "the graph can be walked",
    ("MPSNNFilterNode", "structure"): "what a drawing shows",
    ("MPSNNFilterNode", "forward_node"): "the graph can be walked",
    ("MPSNNFilterNode", "operation"): "what the node does, as a value",
    ("MPSNNFilterNode", "fields"): "what a graph file says of the node",
    ("MPSNNFilterNode", "data_source"): "where the weights of a layer come from",
    ("MPSNNFilterNode", "reload"): "reads the weights again",
    ("MPSNNFilterNode", "exports_state"): "whether the graph returns the gradients of weights",
    ("MPSCNNConvolutionNode", "weights_read"): "what was read of the data source",
    ("MPSCNNConvolutionGradientNode", "weights_read"): "what was read of the data source",
    ("MPSCNNConvolutionGradientNode", "convolution_gradient_state"): "the graph can be walked",
    ("MPSCNNConvolutionGradientNode", "training_style"): "of Apple's MPSNNTrainableNode protocol",
    ("MPSCNNConvolutionDescriptor", "weights_shape"): "the shape of the weights that it asks for",
    ("MPSCNNConvolutionDescriptor", "is_depthwise"): "tells its two kinds apart",
    ("MPSCNNConvolutionDescriptor", "check"): "whether its numbers fit together",
    ("MPSCNNConvolutionGradientState", "name"): "the name of the forward result",
    ("MPSCNNPoolingNode", "edge_mode"): "Apple's nodes take it from a padding object",
    ("MPSCNNPoolingGradientNode", "gradient_state"): "the graph can be walked",
    ("MPSNNDefaultPadding", "method"): "the bits",
    ("MPSNNDefaultPadding", "name"): "that of one of TensorFlow's policies",
    ("MPSNNDefaultPadding", "padding_method"): "of Apple's MPSNNPadding protocol",
    ("MPSNNGradientFilterNode", "differentiated_source"): "whose gradient the result is",
    ("MPSNNGradientFilterNode", "place"): "the graph can be walked",
    ("MPSNNGradientFilterNode", "expected_operation"): "what the forward node's gradient is",
    ("MPSNNGraph", "with_operations"): "the same graph with other parameters",
    ("MPSCNNNeuronNode", "descriptor"): "type and parameters as one value",
    ("MPSCNNNeuronNode", "neuron_type"): "names the row",
    ("MPSCNNNeuronGradientNode", "gradient_state"): "the graph can be walked",
    ("MPSNNArithmeticGradientNode", "gradient_state"): "the graph can be walked",
    ("MPSNNNeuronDescriptor", "row"): "all that is known of the neuron",
    ("MPSNNNeuronDescriptor", "parameters"): "those of a, b, c that the neuron has",
    ("MPSNNGraph", "run"): "encode by name and with arrays",
    ("MPSNNGraph", "mode"): "ideal, or as a plain shader computes",
    ("MPSNNGraph", "plan"): "the steps, frozen",
    ("MPSNNGraph", "manner"): "how the steps are evaluated",
    ("MPSNNGraph", "images_by_handle"): "the order of encode, from the names of run",
    ("MPSNNGraph", "structure"): "what a drawing shows",
    ("MPSImage", "from_array"): "numpy in",
    ("MPSImage", "to_array"): "numpy out",
    ("MPSImage", "storage"): "conversions and distances of the format",
    ("MPSImage", "descriptor"): "size and format as one value",
    ("MPSImage", "shape"): "that of the array",
    ("MPSImage", "slices"): "the texture by image",
}
OUR_CLASSES = {
    "GraphFile": "a graph as JSON",
    "MTLOrigin": "Metal, not in this SDK extract",
    "MTLPixelFormat": "Metal, not in this SDK extract",
    "MTLRegion": "Metal, not in this SDK extract",
    "MTLSize": "Metal, not in this SDK extract",
    "MTLTextureType": "Metal, not in this SDK extract",
}

# Cases that are left out: sentinels and masks, types that weights cannot have, edges that no layer takes.
SENTINELS = {
    "MPSDataType": {
        "alternateEncodingBit",
        "bFloat16",
        "bool",
        "complexBFloat16",
        "complexBit",
        "complexFloat16",
        "complexFloat32",
        "floatBit",
        "int16",
        "int2",
        "int32",
        "int4",
        "int64",
        "int8",
        "intBit",
        "invalid",
        "normalizedBit",
        "signedBit",
        "uInt16",
        "uInt2",
        "uInt32",
        "uInt4",
        "uInt64",
        "unorm1",
        "unorm8",
    },
    "MPSImageEdgeMode": {"constant", "mirror", "mirrorWithEdge"},
    "MPSNNConvolutionAccumulatorPrecisionOption": set(),
    "MPSNNPaddingMethod": {
        "addRemainderToMask",
        "alignMask",
        "align_reserved",
        "customWhitelistForNodeFusion",
        "sizeMask",
        "size_reserved",
    },
    "MPSNNTrainingStyle": set(),
    "MPSCNNNeuronType": {"count"},
    "MPSDataLayout": set(),
    "MPSImageFeatureChannelFormat": {"_reserved0", "count"},
}
SWIFT_CASES_THAT_KEEP_THEIR_CAPITAL = {"ELU", "HeightxWidthxFeatureChannels"}

METAL_PIXEL_FORMATS = {
    "r8Unorm": 10, "r16Unorm": 20, "r16Float": 25, "rg8Unorm": 30, "r32Float": 55, "rg16Unorm": 60, "rg16Float": 65,
    "rgba8Unorm": 70, "rg32Float": 105, "rgba16Unorm": 110, "rgba16Float": 115, "rgba32Float": 125,
}  # fmt: skip


def is_accessor(cls, selector):
    name = selector[1:].removesuffix(":")
    names = {p.lower() for p in APPLE[cls]["properties"]}
    return name.lower() in names or (name.startswith("set") and name[3:].lower() in names)


def swift(selector):
    """Base name and labels in snake case: ``-gradientFilterWithSource:`` is ("gradient_filter", ["with_source"])."""
    text = selector[1:]
    if text in SWIFT:
        return SWIFT[text]
    first, *rest = text.removesuffix(":").split(":")
    if ":" not in text:
        return snake(first), []
    base, with_, label = first.partition("With")
    initialises = base in {"init", "node", "graph", "imageDescriptor", "cnnConvolutionDescriptor", "padding"}
    if not with_:  # readBytes: the first argument has no label
        return snake(base), [None, *map(snake, rest)]
    first_label = snake(label) if initialises else f"with_{snake(label)}"
    return "init" if initialises else snake(base), [first_label, *map(snake, rest)]


INITIALISERS = [
    (cls, selector)
    for cls in CLASSES
    for selector in APPLE[cls]["selectors"]
    if swift(selector)[0] == "init" and selector != "-init" and (cls, selector) not in NOT_MIRRORED_METHODS
]
METHODS = [
    (cls, selector)
    for cls in CLASSES
    for selector in APPLE[cls]["selectors"]
    if not is_accessor(cls, selector) and swift(selector)[0] != "init" and (cls, selector) not in NOT_MIRRORED_METHODS
]

# ---- one object of each class ----


class Samples:
    """Arguments by label."""

    def __init__(self):
        self.x, self.y = mps.MPSNNImageNode(handle="x"), mps.MPSNNImageNode(handle="y")
        self.tanh = mps.MPSCNNNeuronTanHNode(source=self.x)
        self.addition = mps.MPSNNAdditionNode(left_source=self.x, right_source=self.y)
        d = mps.MPSCNNConvolutionDescriptor(
            kernel_width=1, kernel_height=1, input_feature_channels=1, output_feature_channels=1
        )
        self.weights = mps.ArrayDataSource(d, np.ones((1, 1, 1, 1)))
        self.convolution = mps.MPSCNNConvolutionNode(source=self.x, weights=self.weights)
        self.layers = {
            "MPSCNNFullyConnected": mps.MPSCNNFullyConnectedNode(source=self.x, weights=self.weights),
            "MPSCNNPoolingMax": mps.MPSCNNPoolingMaxNode(source=self.x, filter_size=2),
            "MPSCNNPoolingAverage": mps.MPSCNNPoolingAverageNode(source=self.x, filter_size=2),
        }
        self.image_descriptor = mps.MPSImageDescriptor(channel_format=F16, width=2, height=3, feature_channels=4)

    def arguments(self, cls, labels):
        arithmetic = issubclass(getattr(mps, cls), (mps.MPSNNBinaryArithmeticNode, mps.MPSNNArithmeticGradientNode))
        forward = self.layers.get(cls.removesuffix("GradientNode"), self.tanh)
        values = {
            "device": None,
            "handle": "x",
            "source": self.x,
            "sources": [self.x, self.y],
            "left_source": self.x,
            "right_source": self.y,
            "a": 0.5,
            "b": 0.25,
            "c": 2.0,
            "a_data": [0.5, 0.25],
            "descriptor": self.tanh.descriptor,
            "source_gradient": self.y,
            "source_image": self.x,
            "gradient_state": (self.addition if arithmetic else forward).result_state,
            "convolution_gradient_state": (self.convolution if forward is self.tanh else forward).result_state,
            "weights": self.weights,
            "filter_size": 2,
            "stride": 1,
            **dict.fromkeys(("kernel_width", "kernel_height", "stride_in_pixels_x", "stride_in_pixels_y"), 2),
            **dict.fromkeys(("input_feature_channels", "output_feature_channels"), 1),
            "padding_policy": mps.MPSNNDefaultPadding(16),
            "method": 16,
            "is_secondary_source_filter": False,
            "gradient_images": [self.y, self.x],
            "forward_filter": self.addition,
            "result_image": self.tanh.result_image,
            "result_image_is_needed": True,
            "result_images": [self.tanh.result_image],
            "results_are_needed": [True],
            "image_descriptor": self.image_descriptor,
            "texture": np.zeros((1, 2, 3, 4), np.float16),
            "feature_channels": 4,
            "channel_format": F16,
            "width": 3,
            "height": 2,
            "number_of_images": 1,
        }
        return {label: values[label] for label in labels}


CONCRETE = {
    "MPSNNBinaryArithmeticNode": "MPSNNAdditionNode",
    "MPSNNArithmeticGradientNode": "MPSNNAdditionGradientNode",
    "MPSNNFilterNode": "MPSCNNNeuronTanHNode",
    "MPSNNGradientFilterNode": "MPSCNNNeuronGradientNode",
    "MPSCNNPoolingNode": "MPSCNNPoolingMaxNode",
    "MPSCNNPoolingGradientNode": "MPSCNNPoolingMaxGradientNode",
}
"""Classes that nobody can make one of, and a subclass that stands for them."""


def sample(cls):
    """An object of the class, or of the concrete class that stands for it."""
    s = Samples()
    states = {"MPSNNGradientStateNode": s.tanh, "MPSNNBinaryGradientStateNode": s.addition,
              "MPSNNArithmeticGradientStateNode": s.addition, "MPSNNStateNode": s.tanh,
              "MPSCNNConvolutionGradientStateNode": s.convolution}  # fmt: skip
    if cls in states:
        return states[cls].result_state
    if cls == "MPSCNNConvolutionGradientState":
        return mps.MPSCNNConvolutionGradientState("y", np.ones((1, 1, 1, 1), np.float32), np.ones(1, np.float32))
    if cls == "MPSNNNeuronDescriptor":
        return s.tanh.descriptor
    concrete = CONCRETE.get(cls, cls)
    for owner in [cls, *apple_chain(concrete)]:
        for selector in APPLE[owner]["selectors"]:
            base, labels = swift(selector)
            usable = (owner, selector) not in NOT_MIRRORED_METHODS and (owner, selector) not in UNAVAILABLE_INITIALISERS
            if base == "init" and selector != "-init" and usable:
                taken = [label for label in labels if (owner, label) not in DROPPED_LABELS]
                return getattr(mps, concrete)(**s.arguments(concrete, taken))
    raise AssertionError(f"no initialiser known for {cls}")


def apple_chain(cls):
    """The class and its superclasses, as far as mpsref mirrors them."""
    chain = []
    while cls in APPLE:
        if cls in CLASSES:
            chain.append(cls)
        cls = APPLE[cls]["super"]
    return chain


def public_attributes(cls):
    kind, thing = getattr(mps, cls), sample(cls)
    return {name for name in {*dir(kind), *getattr(thing, "__dict__", {})} if not name.startswith("_")}


def settable(thing, name):
    try:
        setattr(thing, name, getattr(thing, name))
    except (AttributeError, TypeError):
        return False
    return True


def test_the_extract_knows_every_mirrored_class_and_no_other():
    assert sorted(APPLE) == CLASSES
    public = {name for name in mps.__all__ if name.startswith(("MPS", "MTL", "GraphFile"))}
    known = {*APPLE, *SDK["enums"], *SDK["structs"], *SDK["protocols"], *OUR_CLASSES}
    assert public - {"MPSRefError"} == known


def test_every_name_of_the_package_is_said_once_and_exists():
    assert len(mps.__all__) == len(set(mps.__all__))
    assert all(hasattr(mps, name) for name in mps.__all__)


@pytest.mark.parametrize("cls", CLASSES)
def test_superclasses_are_those_of_apple(cls):
    ours = [base.__name__ for base in getattr(mps, cls).__mro__ if base.__name__ in APPLE]
    assert ours == apple_chain(cls)


@pytest.mark.parametrize("cls", CLASSES)
def test_every_property_is_an_attribute_and_settable_exactly_if_apples_is(cls):
    for name, access in APPLE[cls]["properties"].items():
        if (cls, name) in NOT_MIRRORED_PROPERTIES:
            continue
        thing = sample(cls)
        assert hasattr(thing, snake(name)), name
        expected = access == "readwrite" and cls not in IMMUTABLE_VALUES
        assert settable(thing, snake(name)) == expected, (name, access)


@pytest.mark.parametrize("cls", CLASSES)
def test_every_public_attribute_is_apples_or_is_listed_as_ours(cls):
    allowed = set()
    for owner in apple_chain(cls):
        allowed |= {snake(name) for name in APPLE[owner]["properties"]}
        allowed |= {swift(selector)[0] for selector in APPLE[owner]["selectors"]} - {"init"}
        allowed |= {name for listed, name in OURS if listed == owner}
    assert public_attributes(cls) - allowed == set()


@pytest.mark.parametrize(("cls", "selector"), INITIALISERS)
def test_every_initialiser_is_accepted_with_its_labels(cls, selector):
    concrete = getattr(mps, CONCRETE.get(cls, cls))
    labels = [label for label in swift(selector)[1] if (cls, label) not in DROPPED_LABELS]
    arguments = Samples().arguments(CONCRETE.get(cls, cls), labels)
    if (cls, selector) in UNAVAILABLE_INITIALISERS:
        with pytest.raises(mps.UnavailableError):
            concrete(**arguments)
    else:
        assert isinstance(concrete(**arguments), getattr(mps, cls))


@pytest.mark.parametrize("cls", sorted(NO_PLAIN_INIT))
def test_the_unavailable_plain_init_is_a_type_error(cls):
    with pytest.raises(TypeError):
        getattr(mps, cls)()


@pytest.mark.parametrize("cls", [cls for cls in CLASSES if "init" in {swift(s)[0] for s in APPLE[cls]["selectors"]}])
def test_constructors_take_no_argument_that_is_not_a_label_of_apples(cls):
    ours = {
        "MPSNNGraph": {"format", "mode"},  # a settable property of Apple's that can be given at once, and ours
        "MPSNNNeuronDescriptor": {"neuron_type", "a", "b", "c", "data"},  # the factories are Apple's way
    }
    labels = {label for c in apple_chain(cls)[:1] for s in APPLE[c]["selectors"] if swift(s)[0] == "init"
              for label in swift(s)[1]}  # fmt: skip
    parameters = inspect.signature(getattr(mps, cls).__init__).parameters
    accepted = {name for name, p in parameters.items() if p.kind is not p.VAR_KEYWORD} - {"self"}
    assert accepted - labels == ours.get(cls, set())


@pytest.mark.parametrize(("cls", "selector"), METHODS)
def test_every_method_is_there_with_its_labels(cls, selector):
    base, labels = swift(selector)
    if base == "init":
        return
    method = getattr(getattr(mps, cls), base)
    parameters = inspect.signature(method).parameters
    given = [label for label in labels if (cls, label) not in DROPPED_LABELS]
    if (cls, selector.split(":")[0], base) in RETURNED:
        given = given[1:]
    assert {label for label in given if label} <= set(parameters)
    if given and given[0] is None:
        assert list(parameters)[1] not in given, "the first argument has no label"


UNAVAILABLE_METHODS = [
    ("MPSNNBinaryArithmeticNode", "-gradientFilterWithSources:"),
    ("MPSNNInitialGradientNode", "-gradientFilterWithSources:"),
    ("MPSNNGradientFilterNode", "-gradientFilterWithSource:"),
    ("MPSNNGradientFilterNode", "-gradientFilterWithSources:"),
    ("MPSNNGradientFilterNode", "-gradientFiltersWithSource:"),
    ("MPSNNGradientFilterNode", "-gradientFiltersWithSources:"),
]


@pytest.mark.parametrize(("cls", "selector"), UNAVAILABLE_METHODS)
def test_methods_that_apple_marks_unavailable_say_so(cls, selector):
    assert selector in APPLE[cls]["selectors"]
    base, (label,) = swift(selector)
    image = mps.MPSNNImageNode(handle="g")
    with pytest.raises(mps.UnavailableError):
        getattr(sample(cls), base)(**{label: [image] if label.endswith("s") else image})


@pytest.mark.parametrize("enum", sorted(SDK["enums"]))
def test_enum_members_have_apples_names_and_raw_values(enum):
    cases = {}
    for name, value in SDK["enums"][enum].items():
        case = name.removeprefix(enum)
        if case not in SWIFT_CASES_THAT_KEEP_THEIR_CAPITAL:
            case = case[0].lower() + case[1:]
        cases[case] = value
    assert set(cases) >= SENTINELS[enum], "a sentinel is stale"
    expected = {case: value for case, value in cases.items() if case not in SENTINELS[enum]}
    assert {name: member.value for name, member in getattr(mps, enum).__members__.items()} == expected


def test_metals_enums_have_their_raw_values():
    assert {f.name: f.value for f in mps.MTLPixelFormat} == METAL_PIXEL_FORMATS
    assert {t.name: t.value for t in mps.MTLTextureType} == {"type2D": 2, "type2DArray": 3}


@pytest.mark.parametrize("struct", sorted(SDK["structs"]))
def test_structs_have_apples_fields_in_order(struct):
    assert list(getattr(mps, struct)._fields) == [snake(field) for field in SDK["structs"][struct]]


def test_metals_structs_have_their_fields_in_order():
    assert mps.MTLOrigin._fields == ("x", "y", "z")
    assert mps.MTLSize._fields == ("width", "height", "depth")
    assert mps.MTLRegion._fields == ("origin", "size")


def test_the_protocol_of_handles_requires_a_label():
    assert SDK["protocols"]["MPSHandle"] == ["label"]
    for protocol in (mps.MPSCNNConvolutionDataSource, mps.MPSNNPadding):
        theirs = {snake(name.partition(":")[0]) for name in SDK["protocols"][protocol.__name__]}
        assert {name for name in vars(protocol) if not name.startswith("_")} <= theirs
    assert [name for name in vars(mps.MPSHandle) if not name.startswith("_")] == ["label"]


def test_a_node_handler_has_as_many_arguments_as_apples_block():
    x = mps.MPSNNImageNode(handle="x")
    calls = []
    mps.MPSCNNNeuronTanHNode(source=x).training_graph(node_handler=lambda *a: calls.append(len(a)))
    assert calls == [SDK["typedefs"]["MPSGradientNodeBlock"].count(",") + 1]


def test_rows_enum_and_node_classes_are_complete_and_agree():
    assert list(mps.NEURONS) == list(mps.MPSCNNNeuronType)
    assert all(row.neuron_type is key for key, row in mps.NEURONS.items())
    assert len(NEURON_NODES) == 15
    types = {cls.neuron_type for cls in NEURON_NODES}
    assert types | {mps.MPSCNNNeuronType.none} == set(mps.NEURONS)
    assert mps.MPSCNNNeuronType.none not in types
    for cls in NEURON_NODES:
        stem = cls.__name__.removeprefix("MPSCNNNeuron").removesuffix("Node")
        assert cls.neuron_type.name.lower() == stem.lower()


@pytest.mark.parametrize("cls", NEURON_NODES, ids=lambda cls: cls.__name__)
def test_a_nodes_constructor_takes_exactly_the_parameters_of_its_row(cls):
    row = mps.NEURONS[cls.neuron_type]
    names = list(inspect.signature(cls.__init__).parameters)[2:]
    assert names == (["a_data"] if row.per_channel else list(row.parameters))
    assert all(p.default is None for p in list(inspect.signature(cls.__init__).parameters.values())[2:])


# ---- no table may be stale ----


def test_what_the_classes_leave_out_is_in_the_sdk():
    listed = NOT_MIRRORED_PROPERTIES | {(cls, selector[1:]) for cls, selector in NOT_MIRRORED_METHODS}
    assert listed == LEFT_OUT
    bases = {base for cls in CLASSES for base in getattr(mps, cls).__mro__ if base.__name__ not in CLASSES}
    assert not any(map(left_out, bases))


@pytest.mark.parametrize(("cls", "name"), sorted(NOT_MIRRORED_PROPERTIES))
def test_properties_listed_as_not_mirrored_exist_in_the_sdk_and_not_here(cls, name):
    assert name in APPLE[cls]["properties"]
    assert not hasattr(sample(cls), snake(name))


@pytest.mark.parametrize(("cls", "selector"), sorted(NOT_MIRRORED_METHODS))
def test_methods_listed_as_not_mirrored_exist_in_the_sdk_and_not_here(cls, selector):
    assert selector in APPLE[cls]["selectors"]
    base = swift(selector)[0]
    assert base == "init" or not hasattr(getattr(mps, cls), base)


@pytest.mark.parametrize(("cls", "name"), sorted(OURS))
def test_attributes_listed_as_ours_exist_here_and_not_in_the_sdk(cls, name):
    assert name in public_attributes(cls)
    for owner in apple_chain(cls):
        assert name not in {snake(p) for p in APPLE[owner]["properties"]}
        assert name not in {swift(s)[0] for s in APPLE[owner]["selectors"]}


def test_classes_listed_as_ours_exist_here_and_not_in_the_sdk():
    assert set(OUR_CLASSES) <= set(mps.__all__)
    assert not set(OUR_CLASSES) & set(APPLE)


def test_no_other_table_has_a_stale_entry():
    selectors = {s[1:] for cls in CLASSES for s in APPLE[cls]["selectors"]}
    assert set(SWIFT) <= selectors
    labels = {(cls, label) for cls, s in (*INITIALISERS, *METHODS) for label in swift(s)[1]}
    assert set(DROPPED_LABELS) <= labels
    assert set(INITIALISERS) >= UNAVAILABLE_INITIALISERS
    assert set(CLASSES) >= IMMUTABLE_VALUES
    assert {(cls, s.split(":")[0], swift(s)[0]) for cls, s in METHODS} >= set(RETURNED)
    for cls, concrete in CONCRETE.items():
        assert issubclass(getattr(mps, concrete), getattr(mps, cls))
        labels = {*inspect.signature(getattr(mps, cls).__init__).parameters} - {"self", "refused"}
        arguments = dict.fromkeys(labels) if "Pooling" in cls else {}
        with pytest.raises(mps.UnavailableError):
            getattr(mps, cls)(**({"is_secondary_source_filter": True} if "ArithmeticGradient" in cls else arguments))
    cases = {name.removeprefix(enum) for enum in SDK["enums"] for name in SDK["enums"][enum]}
    assert cases >= SWIFT_CASES_THAT_KEEP_THEIR_CAPITAL
    assert set(SENTINELS) == set(SDK["enums"])
