"""
The part of Metal and MPS that `examples/metal/record.swift` uses, as Swift that declares and does nothing.

``python tests/swift_stub.py FOLDER`` writes a package of it and of the program, made from `data/sdk.json`, for
``swiftc -typecheck`` on a machine without Apple's SDK.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

SDK = json.loads((Path(__file__).parent / "data" / "sdk.json").read_text(encoding="utf-8"))
APPLE = SDK["classes"]
PROGRAM = Path(__file__).parents[1] / "examples" / "metal" / "record.swift"
ENUMS = {"MPSCNNNeuronType": "Int32", "MPSDataLayout": "UInt", "MPSImageFeatureChannelFormat": "UInt"}
CAPITAL = {"HeightxWidthxFeatureChannels", "ELU"}
"""Cases that keep their capital in Swift."""

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
}
"""Methods that are used, by selector: Swift's importer leaves out words that the type says already."""

OTHERS = {
    "id<MTLTexture>", "id<MPSNNPadding>", "BOOL *", "NSCoder *", "NSZone *", "Class", "MTLPixelFormat",
    "MTLTextureType", "MTLTextureUsage", "MTLCPUCacheMode", "MTLStorageMode",
}  # fmt: skip
"""Types of properties that the program does not use."""

UNAVAILABLE = {
    ("MPSCNNNeuronPReLUNode", "nodeWithSource:"), ("MPSCNNNeuronPReLUNode", "initWithSource:"),
    ("MPSNNGraph", "initWithDevice:"),
}  # fmt: skip

METAL = """\
import Foundation

public protocol MTLCommandBuffer: NSObjectProtocol {
    var error: (any Error)? { get }
    func commit()
    func waitUntilCompleted()
}

public protocol MTLCommandQueue: NSObjectProtocol {
    func makeCommandBuffer() -> (any MTLCommandBuffer)?
}

public protocol MTLDevice: NSObjectProtocol {
    var name: String { get }
    func makeCommandQueue() -> (any MTLCommandQueue)?
}

public func MTLCreateSystemDefaultDevice() -> (any MTLDevice)? { fatalError() }
"""
"""Not of the SDK data, which has MPS only."""

PACKAGE = """\
// swift-tools-version:6.0
import PackageDescription

let package = Package(
    name: "record",
    targets: [
        .target(name: "Metal"),
        .target(name: "MetalPerformanceShaders", dependencies: ["Metal"]),
        .executableTarget(name: "record", dependencies: ["Metal", "MetalPerformanceShaders"]),
    ])
"""


def case_of(enum, name):
    """The Swift case of an enum's constant."""
    case = name.removeprefix(enum)
    return case if case in CAPITAL else case[0].lower() + case[1:]


def swift_type(kind):
    """A type of the SDK data in Swift."""
    if kind.endswith(" ?"):
        inner = swift_type(kind.removesuffix(" ?"))
        return f"({inner})?" if " " in inner else f"{inner}?"
    plain = kind.removeprefix("const ") if kind != "const void *" else kind
    kind = SDK["typedefs"].get(plain.removesuffix(" *"), plain)
    scalars = {
        "void": "Void", "float": "Float", "BOOL": "Bool", "_Bool": "Bool", "NSUInteger": "Int", "size_t": "Int",
        "NSString *": "String", "NSData *": "Data", "void *": "UnsafeMutableRawPointer",
        "const void *": "UnsafeRawPointer",
    }  # fmt: skip
    if kind in scalars or kind.startswith("NSMutableArray<"):
        return scalars.get(kind, "NSMutableArray")
    if array := re.fullmatch(r"NSArray<(.*)>(?: \*)?", kind):
        return f"[{swift_type(array[1])}]"
    if protocol := re.fullmatch(r"id<(\w+)>", kind):
        return f"any {protocol[1]}"
    if both := re.fullmatch(r"NSObject<(\w+)> \*", kind):
        return f"NSObject & {both[1]}"
    return kind.removesuffix(" *")


def chain_of(cls):
    """The class and its superclasses in the data."""
    while cls in APPLE:
        yield cls
        cls = APPLE[cls]["super"]


def initialisers(cls):
    """Labels of each initialiser that a class declares itself: types, and whether it may fail."""
    made = {}
    for selector, (returns, *types) in APPLE[cls]["selectors"].items():
        match = re.fullmatch(r"[-+](?:init|node|graph|imageDescriptor|padding)With(\w+):(.*)", selector)
        if match and returns.startswith("instancetype") and (cls, selector[1:]) not in UNAVAILABLE:
            labels = (match[1][0].lower() + match[1][1:], *filter(None, match[2].split(":")))
            made[labels] = types, returns.endswith("?")
    return made


def methods(cls):
    """What is used of a class's own methods: name and labels in Swift, types, whether it is a class's."""
    for selector, types in APPLE[cls]["selectors"].items():
        if selector[1:] in IMPORTED:
            name, _, labels = IMPORTED[selector[1:]].partition("(")
            yield name, labels.removesuffix(")").split(":")[:-1], types, selector[0] == "+"


def known(kind):
    """Whether a type is declared here."""
    plain = kind.removesuffix(" ?").removeprefix("const ")
    if plain in OTHERS or ("State" in plain and "Node" not in plain and "Batch" not in plain):
        return False
    names = re.findall(r"MPS\w+", plain)
    return all(
        name in {*APPLE, *ENUMS, *SDK["typedefs"], "MPSHandle", "MPSImageAllocator", "MPSState"} for name in names
    )


def declaration(cls):
    """A class."""
    lines = [f"open class {cls}: {APPLE[cls]['super']} {{"]
    above = [labels for parent in list(chain_of(cls))[1:] for labels in initialisers(parent)]
    for labels, (types, may_fail) in initialisers(cls).items():
        if all(map(known, types)):
            arguments = ", ".join(f"{label}: {swift_type(kind)}" for label, kind in zip(labels, types, strict=True))
            head = "public override" if labels in above else "public"
            lines.append(f"    {head} init{'?' * may_fail}({arguments}) {{ fatalError() }}")
    for name, labels, (returns, *types), is_static in methods(cls):
        pairs = zip(labels, types, strict=True)
        arguments = ", ".join(f"{label} a{i}: {swift_type(kind)}" for i, (label, kind) in enumerate(pairs))
        head = "open class" if is_static else "open"
        lines.append(f"    {head} func {name}({arguments}) -> {swift_type(returns)} {{ fatalError() }}")
    for name, access in APPLE[cls]["properties"].items():
        kind = APPLE[cls]["selectors"][f"-{name}"][0]
        if known(kind):
            body = "{ get { fatalError() } set {} }" if access == "readwrite" else "{ fatalError() }"
            lines.append(f"    open var {name}: {swift_type(kind)} {body}")
    return "\n".join([*lines, "}"])


def mps():
    """The module of MPS."""
    parts = ["import Foundation", "import Metal", ""]
    for enum, raw in ENUMS.items():
        cases = "\n".join(f"    case {case_of(enum, name)} = {value}" for name, value in SDK["enums"][enum].items())
        parts.append(f"public enum {enum}: {raw}, Sendable {{\n{cases}\n}}")
    parts += [
        "public protocol MPSHandle: NSSecureCoding, NSObjectProtocol {\n    func label() -> String?\n}",
        "public protocol MPSImageAllocator: NSSecureCoding, NSObjectProtocol {}",
        "open class MPSKernel: NSObject {}\nopen class MPSState: NSObject {}",
    ]
    used = {name for name in re.findall(r"\bMPS\w+", PROGRAM.read_text(encoding="utf-8")) if name in APPLE}
    classes = [cls for cls in APPLE if any(cls in chain_of(one) for one in used)]
    return "\n\n".join([*parts, *map(declaration, classes)]) + "\n"


def write(folder):
    """A Swift package: the two modules, and the program."""
    sources = {
        "Package.swift": PACKAGE,
        "Sources/Metal/Metal.swift": METAL,
        "Sources/MetalPerformanceShaders/MetalPerformanceShaders.swift": mps(),
        "Sources/record/main.swift": PROGRAM.read_text(encoding="utf-8"),
    }
    for name, text in sources.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
