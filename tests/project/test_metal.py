"""`examples/metal/record.swift`: its syntax, and every call, label, type and optional held to the SDK's data."""

from __future__ import annotations

import re

import pytest

import mpsref as mps
import swift_stub
from mpsref.documents import schema
from mpsref.graph.schema import NODE_CLASSES
from swift_stub import APPLE, ENUMS, IMPORTED, PROGRAM, SDK, case_of, chain_of, initialisers

tree_sitter = pytest.importorskip("tree_sitter", reason="tree-sitter reads Swift: install mpsref[test]")
tree_sitter_swift = pytest.importorskip("tree_sitter_swift", reason="its grammar: install mpsref[test]")

SWIFT = PROGRAM.read_text(encoding="utf-8")
# What the program leaves out: layers.
CLASSES = {name for name in NODE_CLASSES if getattr(mps, name).__module__ != "mpsref.graph.layers"}
SELECTORS = [(s[1:], types) for cls in APPLE for s, types in APPLE[cls]["selectors"].items()]
METHODS = {IMPORTED[selector]: types for selector, types in SELECTORS if selector in IMPORTED}
NAMES = {name for cls in APPLE for name in APPLE[cls]["properties"]}
PROPERTIES = {selector: types for selector, types in SELECTORS if selector in NAMES}
OTHERS = {
    "Metal": {"makeCommandQueue()", "makeCommandBuffer()", "commit()", "waitUntilCompleted()", "error", "name"},
    "MPSHandle": {"label()"},
    "Foundation": {
        "write(_:)", "write(to:options:)", "standardError", "appendingPathComponent(_:)", "encode(_:forKey:)",
        "decodeObject(forKey:)", "decode(_:from:)", "jsonObject(with:)", "utf8",
        "data(withJSONObject:options:)", "processInfo", "operatingSystemVersionString", "arguments", "path",
        "lastPathComponent", "default", "fileExists(atPath:)", "append(contentsOf:)",
    },
    "Swift": {
        "map(_:)", "filter(_:)", "allSatisfy(_:)", "compactMap(_:)", "contains(_:)", "isEmpty", "count", "self",
        "withUnsafeBytes(_:)", "withUnsafeMutableBytes(_:)", "baseAddress", "enumerated()", "keys", "sorted()",
        "remove(_:)", "remove(at:)", "append(_:)", "first", "firstIndex(where:)", "elementsEqual(_:by:)", "dropFirst()",
        "split(separator:)", "hasPrefix(_:)", "bitPattern", "init()",
    },
}  # fmt: skip
"""Members that are not of MPS, by whose they are."""

NULLABLE = {"makeCommandQueue()", "makeCommandBuffer()", "error", "label()", "baseAddress"}
"""Those of them that may be nil."""

OURS = {"node", "entry", "d", "self"}
"""What is not of MPS, though its fields have names of MPS."""

TAKES_OPTIONALS = "needed"
"""The function of the program that ends it where a value is nil."""


def parsed(text):
    parser = tree_sitter.Parser(tree_sitter.Language(tree_sitter_swift.language()))
    return parser.parse(text.encode()).root_node


def walk(node):
    yield node
    for child in node.children:
        yield from walk(child)


TREE = parsed(SWIFT)


def text_of(node):
    return node.text.decode()


def called(call):
    """What a call calls, with its labels, such as ``MPSImage(device:imageDescriptor:)``, and its arguments."""
    (suffix,) = (child for child in call.children if child.type == "call_suffix")
    arguments = [a for part in suffix.children if part.type == "value_arguments" for a in part.named_children]
    labels = []
    for argument in arguments:
        label = next((child for child in argument.children if child.type == "value_argument_label"), None)
        labels.append("_" if label is None else text_of(label))
    closures = ["_" for child in suffix.children if child.type == "lambda_literal"]
    target = call.children[0]
    if target.type == "navigation_expression":
        target = target.children[-1].children[-1]
    return f"{text_of(target)}({''.join(f'{label}:' for label in [*labels, *closures])})", arguments


CALLS = [(node, *called(node)) for node in walk(TREE) if node.type == "call_expression"]
INITIALISERS = {
    f"{cls}({''.join(f'{label}:' for label in labels)})": (types, may_fail)
    for cls in APPLE
    for owner in list(chain_of(cls))[::-1]
    for labels, (types, may_fail) in initialisers(owner).items()
}


def test_the_program_and_the_stubs_are_swift():
    for text in (SWIFT, swift_stub.mps(), swift_stub.METAL, swift_stub.PACKAGE):
        assert [text_of(node) for node in walk(parsed(text)) if node.type == "ERROR" or node.is_missing] == []
    for broken in (SWIFT.replace("else {", "els {", 1), SWIFT.replace("func run(", "func run", 1)):
        assert parsed(broken).has_error


def test_it_is_said_that_it_has_not_run():
    for text in (SWIFT, (PROGRAM.parent / "README.md").read_text(encoding="utf-8")):
        assert "no apple gpu was at hand" in text.lower().replace("\n", " ")


def test_every_class_enum_and_protocol_is_in_the_sdk():
    names = {text_of(node) for node in walk(TREE) if node.type in ("type_identifier", "simple_identifier")}

    assert {name for name in names if name.startswith("MPS")} <= {*APPLE, *SDK["enums"], *SDK["protocols"]}
    metal = {"MTLDevice", "MTLCommandQueue", "MTLCreateSystemDefaultDevice"}
    assert {name for name in names if name.startswith("MTL")} == metal


def test_every_enum_case_is_in_the_sdk_and_none_is_left_out():
    used = {}
    for enum, case in re.findall(r"\b(MPS\w+)\.(\w+)\b(?!\()", SWIFT):
        if enum in SDK["enums"]:
            used.setdefault(enum, set()).add(case)

    assert set(used) == set(ENUMS)
    for enum, cases in used.items():
        assert cases <= {case_of(enum, name) for name in SDK["enums"][enum]}
        # pReLU has a factory of its own; an image has no format "none".
        left_out = {"MPSCNNNeuronType": {"pReLU"}, "MPSImageFeatureChannelFormat": {"none"}}.get(enum, set())
        assert {member.name for member in getattr(mps, enum)} - cases == left_out


def test_every_initialiser_is_one_of_its_class():
    calls = {name for _, name, _ in CALLS if name.startswith("MPS")}

    assert calls <= set(INITIALISERS)
    assert {name.partition("(")[0] for name in calls} >= CLASSES


def test_every_member_is_of_the_sdk_or_known():
    own = set(re.findall(r"\b(?:let|var|func) `?(\w+)`?", SWIFT))
    names = {name for node, name, _ in CALLS if node.children[0].type == "navigation_expression"}
    reads = {
        text_of(node.children[-1].children[-1])
        for node in walk(TREE)
        if node.type == "navigation_expression" and node.parent.type != "call_expression"
    }
    others = set().union(*OTHERS.values())
    cases = {case_of(enum, name) for enum in ENUMS for name in SDK["enums"][enum]}

    assert {name for name in names - {*METHODS} - others if name.partition("(")[0] not in own} == set()
    # In `a + b.c()` the grammar takes the sum for what is called.
    in_sums = {name.partition("(")[0] for name in others}
    assert reads - {*PROPERTIES} - others - own - cases - in_sums == set()
    assert others - names - reads - {f"{name}()" for name in reads} == set()
    assert set(METHODS) <= names


def test_literals_are_of_the_types_of_their_parameters():
    seen = set()
    for _, name, arguments in CALLS:
        types = INITIALISERS[name][0] if name in INITIALISERS else METHODS.get(name, [None])[1:]
        for argument, kind in zip(arguments, types, strict=bool(types)):
            value = argument.named_children[-1]
            seen.add(value.type)
            assert value.type != "nil_literal" or kind.endswith(" ?"), (name, kind)
            assert value.type != "boolean_literal" or kind in ("BOOL", "_Bool"), (name, kind)
            assert value.type != "integer_literal" or kind == "NSUInteger", (name, kind)
    assert seen >= {"nil_literal", "boolean_literal", "integer_literal"}


def may_be_nil(node):
    """Whether an expression has a value of MPS or Metal that may be nil; None if it is of neither."""
    if node.type == "call_expression":
        name, _ = called(node)
        if name in INITIALISERS:
            return INITIALISERS[name][1]
        if name in {"MTLCreateSystemDefaultDevice()", *NULLABLE}:
            return True
        return METHODS[name][0].endswith(" ?") if name in METHODS else None
    if node.type == "navigation_expression" and node.parent.type != "call_expression":
        name = text_of(node.children[-1].children[-1])
        if name in NULLABLE and text_of(node.children[0]) in ("commandBuffer", "buffer"):
            return True
        is_written = node.parent.type == "directly_assignable_expression" or text_of(node.children[0]) in OURS
        return PROPERTIES[name][0].endswith(" ?") if name in PROPERTIES and not is_written else None
    return None


def unwraps(node):
    """Whether what stands around an expression takes care of nil."""
    parent = node.parent
    if parent.type in ("guard_statement", "if_statement"):
        before = [child.type for child in parent.children if child.end_byte <= node.start_byte]
        return before[-1] == "=" and "value_binding_pattern" in before
    if parent.type == "value_argument":
        return called(parent.parent.parent.parent)[0].partition("(")[0] == TAKES_OPTIONALS
    return parent.type == "nil_coalescing_expression" or any(child.type == "as?" for child in walk(parent))


def optionals(tree):
    """What may be nil and is not unwrapped, and what is unwrapped though it may not be nil."""
    for node in walk(tree):
        answer = may_be_nil(node)
        if answer is True and not unwraps(node):
            yield f"not unwrapped: {text_of(node)}"
        if answer is False and node.parent.type in ("guard_statement", "if_statement") and unwraps(node):
            yield f"never nil: {text_of(node)}"
        if node.type == "bang" and node.parent.type == "postfix_expression":
            yield f"forced: {text_of(node.parent)}"


def test_what_may_be_nil_is_unwrapped_and_nothing_by_force():
    assert list(optionals(TREE)) == []


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("queue.makeCommandBuffer() else", "queue.makeCommandBuffer()! else", "forced"),
        ("guard let graph = MPSNNGraph(", "let graph = MPSNNGraph(", "not unwrapped: MPSNNGraph"),
        ("graph.intermediateImageHandles ?? []", "graph.intermediateImageHandles", "not unwrapped"),
        ("imageDescriptor: descriptor)\n", "imageDescriptor: descriptor) else { continue }\n", "never nil: MPSImage"),
        ('needed(handle.label(), "the handle of a source")', "handle.label()", "not unwrapped: handle.label()"),
        (
            "if let error = commandBuffer.error {",
            "let error = commandBuffer.error; do {",
            "not unwrapped: commandBuffer",
        ),
    ],
)
def test_a_wrong_optional_is_found(old, new, words):
    assert SWIFT.count(old) == 1
    changed = SWIFT.replace(old, new)
    if words.startswith("never"):
        changed = changed.replace("let image = MPSImage(", "guard let image = MPSImage(")

    assert any(found.startswith(words) for found in optionals(parsed(changed)))


def test_every_image_is_synchronized_before_the_commit_and_given_a_format():
    wanted = ["encodeBatch", "synchronize", "commit", "waitUntilCompleted"]
    names = [name.partition("(")[0] for _, name, _ in CALLS]

    assert [name for name in names if name in wanted] == wanted
    assert names.count("MPSNNImageNode") + SWIFT.count(".resultImage") == names.count("apply") == 2


def struct_fields(name):
    body = re.search(rf"struct {name}: Decodable {{\n(.*?)\n}}", SWIFT, re.DOTALL)[1]
    return set(re.findall(r"let `?(\w+)`?:", body))


def test_it_reads_every_field_that_the_files_can_have():
    graph, recording = schema("graph"), schema("recording")
    rules = [rule for rule in graph["$defs"]["node"]["allOf"] if rule["if"]["properties"]["class"]["const"] in CLASSES]
    nodes = [rule["then"]["properties"] for rule in rules]
    descriptors = [rule["then"]["properties"] for rule in graph["$defs"]["descriptor"]["allOf"]]
    not_read = {"format", "version", "result_states", "data_sources"}

    assert struct_fields("Node") == set().union(*nodes)
    assert struct_fields("Descriptor") == set().union(*descriptors)
    assert struct_fields("Settings") == set(graph["properties"]["images"]["additionalProperties"]["properties"])
    assert struct_fields("GraphFile") == set(graph["properties"]) - not_read
    assert struct_fields("RecordedImage") == set(
        recording["properties"]["images"]["additionalProperties"]["properties"]
    )
    assert struct_fields("Recording") == {"graph", "images"}


def test_each_neuron_has_the_parameters_of_its_row():
    calls = {name for _, name, _ in CALLS}
    for cls in mps.MPSCNNNeuronNode.__subclasses__():
        row = mps.NEURONS[cls.neuron_type]
        wanted = "aData:" if row.per_channel else "".join(f"{name}:" for name in row.parameters)
        assert f"{cls.__name__}(source:{wanted})" in calls
        assert f'case "{cls.__name__}":' in SWIFT
