"""The programs in `examples/metal`: every name in them is Apple's; the Python one runs with a stand-in."""

from __future__ import annotations

import ast
import json
import re
import runpy
import struct
import sys
import types
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest

import mpsref as mps
from mpsref.documents import schema
from mpsref.graph.schema import NODE_CLASSES
from mpsref.record import request
from mpsref.verify import Recording, verify

FOLDER = Path(__file__).parents[2] / "examples" / "metal"
SWIFT = (FOLDER / "record.swift").read_text(encoding="utf-8")
PYTHON = (FOLDER / "record.py").read_text(encoding="utf-8")
SDK = json.loads((Path(__file__).parents[1] / "data" / "sdk.json").read_text(encoding="utf-8"))
APPLE = SDK["classes"]
F = mps.MPSImageFeatureChannelFormat
# What the programs leave out: layers, and what only those need.
CLASSES = {name for name in NODE_CLASSES if getattr(mps, name).__module__ != "mpsref.graph.layers"}
ENUMS = set(SDK["enums"]) - {
    "MPSDataType", "MPSImageEdgeMode", "MPSNNConvolutionAccumulatorPrecisionOption", "MPSNNPaddingMethod",
    "MPSNNTrainingStyle",
}  # fmt: skip


def chain_of(cls):
    while cls in APPLE:
        yield cls
        cls = APPLE[cls]["super"]


def selectors(cls):
    return {selector for owner in chain_of(cls) for selector in APPLE[owner]["selectors"]}


EVERY_SELECTOR = {selector[1:] for cls in APPLE for selector in APPLE[cls]["selectors"]}
EVERY_PROPERTY = {name for cls in APPLE for name in APPLE[cls]["properties"]}

# ---- Swift ----

# Where Swift's importer leaves out words that the type says already, or the first label.
IMPORTED = {
    "cnnNeuronDescriptorWithType:a:b:c:": "cnnNeuronDescriptor(with:a:b:c:)",
    "cnnNeuronPReLUDescriptorWithData:noCopy:": "cnnNeuronPReLUDescriptor(with:noCopy:)",
    "encodeBatchToCommandBuffer:sourceImages:sourceStates:intermediateImages:destinationStates:": (
        "encodeBatch(to:sourceImages:sourceStates:intermediateImages:destinationStates:)"
    ),
    "synchronizeOnCommandBuffer:": "synchronize(on:)",
    "readBytes:dataLayout:imageIndex:": "readBytes(_:dataLayout:imageIndex:)",
    "writeBytes:dataLayout:imageIndex:": "writeBytes(_:dataLayout:imageIndex:)",
    "defaultAllocator": "defaultAllocator()",
    "label": "label()",
}
NOT_MPS = {
    "Metal": {"makeCommandQueue()", "makeCommandBuffer()", "commit()", "waitUntilCompleted()", "error", "name"},
    "Foundation": {
        "write(_:)", "write(to:options:)", "standardError", "data(using:)", "utf8", "appendingPathComponent(_:)",
        "encode(_:forKey:)", "decodeObject(forKey:)", "decode(_:from:)", "jsonObject(with:)", "prettyPrinted", "atomic",
        "data(withJSONObject:options:)", "processInfo", "operatingSystemVersionString",
    },
    "Swift": {
        "map", "filter", "allSatisfy", "compactMap", "contains(_:)", "isEmpty", "count", "self", "Type",
        "withUnsafeBufferPointer", "withUnsafeBytes", "withUnsafeMutableBytes", "baseAddress", "enumerated()", "keys",
        "key", "sorted()", "remove(_:)", "arguments",
    },
}  # fmt: skip


def code_only(text):
    """Swift without comments and the contents of strings."""
    return re.sub(r'"(?:\\.|[^"\\])*"|//[^\n]*', lambda m: '""' if m[0][0] == '"' else "", text)


CODE = code_only(SWIFT)


def labels(code, start):
    """Labels of the call whose parenthesis opens at `start`."""
    depth, found, argument = 0, [], ""
    for char in code[start:]:
        depth += char in "([{"
        depth -= char in ")]}"
        if depth == 0 or (depth == 1 and char == ","):
            if argument.strip():
                label = re.match(r"\s*(\w+)\s*:(?!:)", argument)
                found.append(label[1] if label else "_")
            argument = ""
            if depth == 0:
                return "".join(f"{label}:" for label in found)
        elif depth > 1 or char != "(":
            argument += char
    raise AssertionError("a parenthesis is not closed")


def swift_initialisers(cls):
    found = set()
    for selector in selectors(cls):
        match = re.fullmatch(r"[-+](init|node|graph|imageDescriptor)With(\w+):(.*)", selector)
        if match:
            first = match[2][0].lower() + match[2][1:]
            found.add(f"{first}:{match[3]}")
    return found


def uses(code):
    """Every member that is used: (what stands before the dot, name, labels or None)."""
    for match in re.finditer(r"(?<!\.)\.(\w+)(\()?", code):
        before = re.search(r"(\w*)[?!]*$", code[max(match.start() - 80, 0) : match.start()])
        yield before[1], match[1], labels(code, match.end() - 1) if match[2] else None


def declared(code):
    """Properties that the program declares itself."""
    return set(re.findall(r"\b(?:let|var) `?(\w+)`?", code))


def test_swift_is_balanced_and_says_that_it_has_not_run():
    for pair in ("()", "[]", "{}"):
        assert CODE.count(pair[0]) == CODE.count(pair[1])
    for text in (SWIFT, PYTHON, (FOLDER / "README.md").read_text(encoding="utf-8")):
        assert "not run on a device" in text.lower()


def test_every_class_enum_and_protocol_in_swift_is_in_the_sdk():
    known = {*APPLE, *SDK["enums"], *SDK["protocols"]}

    assert set(re.findall(r"\bMPS\w+", CODE)) <= known
    assert set(re.findall(r"\bMTL\w+", CODE)) == {"MTLDevice", "MTLCreateSystemDefaultDevice"}


def test_every_enum_case_in_swift_is_in_the_sdk_and_none_is_left_out():
    used = {}
    for enum, case in re.findall(r"\b(MPS\w+)\.(\w+)\b(?!\()", CODE):
        if enum in SDK["enums"]:
            used.setdefault(enum, set()).add(case)

    assert set(used) == ENUMS
    for enum, cases in used.items():
        assert {name.lower() for name in cases} <= {name.removeprefix(enum).lower() for name in SDK["enums"][enum]}
        ours = {member.name for member in getattr(mps, enum)}
        assert cases <= ours
        # pReLU has a factory of its own; an image has no format "none".
        assert ours - cases <= {"MPSCNNNeuronType": {"pReLU"}, "MPSImageFeatureChannelFormat": {"none"}}.get(
            enum, set()
        )


def test_every_initialiser_in_swift_has_the_labels_of_a_selector():
    calls = {(m[1], labels(CODE, m.end() - 1)) for m in re.finditer(r"\b(MPS\w+)(\()", CODE)}

    for cls, found in calls:
        assert found in swift_initialisers(cls), (cls, found)
    assert {cls for cls, _ in calls} >= CLASSES


def test_every_member_in_swift_is_apples_or_known():
    imported = {IMPORTED[selector] for selector in IMPORTED if selector in EVERY_SELECTOR or selector == "label"}
    mine = declared(CODE)
    known = imported | EVERY_PROPERTY | set().union(*NOT_MPS.values())

    for before, name, found in uses(CODE):
        if before in SDK["enums"]:
            continue
        call = name if found is None else f"{name}({found})"
        assert call in known or name in mine, (before, call)


def test_no_name_for_swift_is_stale():
    calls = {name if found is None else f"{name}({found})" for _, name, found in uses(CODE)}

    assert set(IMPORTED) <= EVERY_SELECTOR | {"label"}
    assert set(IMPORTED.values()) <= calls | {"label()"}
    assert set().union(*NOT_MPS.values()) - calls == set()


def struct_fields(name):
    body = re.search(rf"struct {name}: Decodable {{\n(.*?)\n}}", SWIFT, re.DOTALL)[1]
    return set(re.findall(r"let `?(\w+)`?:", body))


def test_swift_reads_every_field_that_the_files_can_have():
    graph, recording = schema("graph"), schema("recording")
    rules = [rule for rule in graph["$defs"]["node"]["allOf"] if rule["if"]["properties"]["class"]["const"] in CLASSES]
    nodes = [rule["then"]["properties"] for rule in rules]
    descriptors = [rule["then"]["properties"] for rule in graph["$defs"]["descriptor"]["allOf"]]

    assert struct_fields("Node") == set().union(*nodes)
    assert struct_fields("Descriptor") == set().union(*descriptors)
    assert struct_fields("Settings") == set(graph["properties"]["images"]["additionalProperties"]["properties"])
    assert struct_fields("GraphFile") == set(graph["properties"]) - {
        "format",
        "version",
        "result_states",
        "data_sources",
    }
    assert struct_fields("RecordedImage") == set(
        recording["properties"]["images"]["additionalProperties"]["properties"]
    )
    assert struct_fields("Recording") == {"graph", "images"}


def test_swift_makes_each_neuron_with_the_parameters_of_its_row():
    for cls in mps.MPSCNNNeuronNode.__subclasses__():
        row = mps.NEURONS[cls.neuron_type]
        (call,) = re.finditer(rf"\b{cls.__name__}(\()", CODE)
        wanted = "aData:" if row.per_channel else "".join(f"{name}:" for name in row.parameters)
        assert labels(CODE, call.end() - 1) == f"source:{wanted}"
        assert f'case "{cls.__name__}":' in SWIFT


# ---- Python ----

TREE = ast.parse(PYTHON)
OTHER_SELECTORS = {
    "newCommandQueue", "commandBuffer", "commit", "waitUntilCompleted", "error", "name", "alloc", "init", "array",
    "dataWithBytes_length_", "encodeObject_forKey_", "decodeObjectForKey_",
}  # fmt: skip


def test_every_constant_and_class_in_python_is_in_the_sdk():
    used = {n.attr for n in ast.walk(TREE) if isinstance(n, ast.Attribute) and getattr(n.value, "id", "") == "MPS"}
    constants = {name for enum in SDK["enums"].values() for name in enum}

    assert used <= constants | set(APPLE)
    assert used >= CLASSES
    assert {name for name in constants if name.startswith("MPSCNNNeuronType")} - used == {
        "MPSCNNNeuronTypePReLU", "MPSCNNNeuronTypeCount"}  # fmt: skip


def test_every_selector_in_python_is_in_the_sdk_with_as_many_arguments():
    for node in ast.walk(TREE):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            name = node.func.attr
            if name.endswith("_") and not name.startswith("_") and name not in OTHER_SELECTORS:
                assert name.replace("_", ":") in EVERY_SELECTOR, name
                assert len(node.args) == name.count("_"), name
                if isinstance(node.func.value, ast.Attribute) and node.func.value.attr in APPLE:
                    assert f"+{name.replace('_', ':')}" in selectors(node.func.value.attr), name


def test_python_names_every_node_class_with_its_parameters():
    for cls in mps.MPSCNNNeuronNode.__subclasses__():
        parameters = list(mps.NEURONS[cls.neuron_type].parameters)
        selector = "+nodeWithSource:" + "".join(f"{name}:" for name in parameters)
        if not mps.NEURONS[cls.neuron_type].per_channel:
            assert selector in selectors(cls.__name__)
            table = {0: "NO_PARAMETERS", 1: "ONE_PARAMETER", 2: "TWO_PARAMETERS", 3: "THREE_PARAMETERS"}[
                len(parameters)
            ]
            (assigned,) = (n for n in TREE.body if isinstance(n, ast.Assign) and n.targets[0].id == table)
            assert cls.__name__ in {key.value for key in assigned.value.keys}


# ---- the Python program with a stand-in for MPS, made of mpsref ----


class Device:
    """A Metal device, its queue and its command buffer at once."""

    def newCommandQueue(self):
        return self

    def commandBuffer(self):
        return self

    def name(self):
        return "a stand-in"

    def commit(self):
        pass

    def waitUntilCompleted(self):
        pass

    def error(self):
        return None


class Image:
    def alloc(self):
        return Image()

    def defaultAllocator(self):
        return None

    def initWithDevice_imageDescriptor_(self, device, descriptor):
        self.image = mps.MPSImage(image_descriptor=descriptor)
        return self

    def writeBytes_dataLayout_imageIndex_(self, data, layout, index):
        self.image.write_bytes(data, mps.MPSDataLayout(layout), index)

    def readBytes_dataLayout_imageIndex_(self, buffer, layout, index):
        buffer[:] = self.image.read_bytes(mps.MPSDataLayout(layout), index)

    def synchronizeOnCommandBuffer_(self, buffer):
        pass

    def width(self):
        return self.image.width

    def height(self):
        return self.image.height

    def featureChannels(self):
        return self.image.feature_channels

    def featureChannelFormat(self):
        return int(self.image.feature_channel_format)


class Tag:
    """A handle, as `NSObject` and the program's own class make one."""

    def __init_subclass__(cls, protocols=()):
        assert protocols == ["MPSHandle"]

    @classmethod
    def alloc(cls):
        return cls()

    def init(self):
        return self


def snake(text):
    return re.sub(r"(?<=[a-z])([A-Z])", lambda m: "_" + m[1].lower(), text)


class Wrapped:
    """An object of mpsref with Apple's accessors."""

    def __init__(self, thing):
        self.thing = thing

    def __getattr__(self, name):
        if name.startswith("set"):
            return lambda value: self.set(snake(name[3].lower() + name[4:-1]), value)
        return lambda: Wrapped(getattr(self.thing, snake(name)))

    def set(self, name, value):
        if name in ("image_allocator", "synchronize_resource"):
            return
        setattr(self.thing, name, value)


def unwrap(value):
    if isinstance(value, Wrapped):
        return value.thing
    return np.frombuffer(value, "<f4") if isinstance(value, bytes) else value


class Class:
    """A class whose factory methods take what mpsref's constructor takes."""

    def __init__(self, name):
        self.kind = getattr(mps, name)

    def __getattr__(self, selector):
        first, *rest = selector.removesuffix("_").split("_")
        label = first.partition("With")[2]
        names = [snake(text) for text in (label[0].lower() + label[1:], *rest)]
        return lambda *values: Wrapped(self.kind(**dict(zip(names, map(unwrap, values), strict=True))))


class Descriptors:
    def cnnNeuronDescriptorWithType_a_b_c_(self, kind, a, b, c):
        row = mps.NEURONS[mps.MPSCNNNeuronType(kind)]
        given = dict(zip("abc", (a, b, c), strict=True))
        return Wrapped(mps.MPSNNNeuronDescriptor(row.neuron_type, **{name: given[name] for name in row.parameters}))

    def cnnNeuronPReLUDescriptorWithData_noCopy_(self, data, no_copy):
        return Wrapped(mps.MPSNNNeuronDescriptor(mps.MPSCNNNeuronType.pReLU, data=np.frombuffer(data, "<f4")))


class Graph:
    """Hands out exported images in an order of its own, which only handles tell."""

    def alloc(self):
        return Graph()

    def initWithDevice_resultImage_resultImageIsNeeded_(self, device, image, is_needed):
        self.graph = mps.MPSNNGraph(result_image=image.thing)
        return self

    def setFormat_(self, value):
        self.graph.format = mps.MPSImageFeatureChannelFormat(value)

    def sourceImageHandles(self):
        return self.graph.source_image_handles

    def intermediateImageHandles(self):
        return self.graph.intermediate_image_handles[::-1] or None

    def encodeBatchToCommandBuffer_sourceImages_sourceStates_intermediateImages_destinationStates_(
        self, buffer, batches, states, exported, destinations
    ):
        rest = []
        given = [[image.image for image in batch] for batch in batches]
        results = self.graph.encode_batch(source_images=given, intermediate_images=rest)
        exported += [[self.wrap(image) for image in batch] for batch in rest[::-1]]
        return [self.wrap(image) for image in results]

    def wrap(self, image):
        made = Image()
        made.image = image
        return made


class ImageDescriptors:
    def imageDescriptorWithChannelFormat_width_height_featureChannels_(self, channel_format, width, height, channels):
        return mps.MPSImageDescriptor(
            channel_format=mps.MPSImageFeatureChannelFormat(channel_format),
            width=width, height=height, feature_channels=channels,
        )  # fmt: skip


@pytest.fixture
def stand_in(monkeypatch):
    shader = types.ModuleType("MetalPerformanceShaders")
    for enum in SDK["enums"].values():
        vars(shader).update(enum)
    vars(shader).update({name: Class(name) for name in (*CLASSES, "MPSNNImageNode")})
    vars(shader).update(
        MPSImage=Image(), MPSNNGraph=Graph(), MPSNNNeuronDescriptor=Descriptors(), MPSImageDescriptor=ImageDescriptors()
    )
    metal, objc, foundation = (types.ModuleType(name) for name in ("Metal", "objc", "Foundation"))
    metal.MTLCreateSystemDefaultDevice = Device
    objc.protocolNamed, objc.python_method = str, lambda method: method
    foundation.NSObject = Tag
    foundation.NSData = types.SimpleNamespace(dataWithBytes_length_=lambda data, length: data[:length])
    foundation.NSMutableArray = types.SimpleNamespace(array=list)
    for module in (shader, metal, objc, foundation):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return runpy.run_path(str(FOLDER / "record.py"))["main"]


def every_class():
    """A graph in which every class that a file can hold occurs, forward and back."""
    x = mps.MPSNNImageNode(handle="x")
    total, kinds = None, cycle([mps.MPSNNAdditionNode, mps.MPSNNSubtractionNode, mps.MPSNNMultiplicationNode])
    for t, row in mps.NEURONS.items():
        slopes = {"data": [0.1, 0.2, 0.3, 0.4, 0.5]} if row.per_channel else {}
        node = mps.MPSCNNNeuronNode(source=x, descriptor=mps.MPSNNNeuronDescriptor(t, **slopes))
        node.label = t.name
        if total is None:
            total = node.result_image
            continue
        addition = next(kinds)(left_source=total, right_source=node.result_image)
        addition.primary_scale, addition.secondary_scale, addition.bias = 0.75, 0.5, 0.125
        addition.minimum_value, addition.maximum_value = -300, 300
        total = addition.result_image
    total.handle = "y"
    total.format = F.float32
    ones = mps.MPSNNInitialGradientNode(source=total)
    (last,) = ones.training_graph()
    last.result_image.handle = "dx"
    return mps.GraphFile.from_results([total, last.result_image])


def test_the_python_program_fills_a_recording_that_passes(tmp_path, stand_in, capsys):
    file = every_class()
    assert {type(node).__name__ for node in file.nodes} == CLASSES
    document = file.to_json()
    document["nodes"].reverse()
    path = request(tmp_path / "r", mps.GraphFile.from_json(document), (2, 4, 3, 5), F.float16)

    stand_in(path.parent)

    recording = Recording.read(path)
    assert recording.device.startswith("a stand-in, macOS ")
    assert set(recording.images) == set(file.images)
    assert not list(path.parent.glob("*.part"))
    report = verify(path)
    assert report.passed, report.verdict
    assert sum(image.counts.elements for image in report.images) == 120 * (len(file.images) - 1)
    assert capsys.readouterr().out.count("wrote ") == len(file.images) - 1


@pytest.mark.parametrize("field", ["height", "channel_format"])
def test_the_python_program_ends_where_the_recording_does_not_fit(tmp_path, stand_in, field):
    path = request(tmp_path / "r", every_class(), (1, 4, 4, 5), F.float16)
    document = json.loads(path.read_text())
    document["images"]["y"] |= {"height": 8, "width": 2} if field == "height" else {"channel_format": "float16"}
    path.write_text(json.dumps(document))

    with pytest.raises(SystemExit, match="record: y: the graph made an image of another size or format"):
        stand_in(path.parent)


def test_the_python_program_ends_at_a_source_that_is_cut_short(tmp_path, stand_in):
    path = request(tmp_path / "r", every_class(), (1, 4, 4, 5), F.float16)
    (path.parent / "x.f16").write_bytes(struct.pack("<e", 1))

    with pytest.raises(SystemExit, match=r"record: x\.f16 has not the size"):
        stand_in(path.parent)
