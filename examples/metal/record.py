"""
Fill the recording that ``mpsref inputs`` made: the same as ``record.swift``, with PyObjC.

    python -m pip install pyobjc-framework-Metal pyobjc-framework-MetalPerformanceShaders
    python record.py FOLDER

NOT RUN ON A DEVICE: no Mac was at hand. Tests hold every class, selector and constant in here to the SDK's names.
Needs macOS 10.15 or later. It does not need mpsref.
"""

from __future__ import annotations

import json
import platform
import struct
import sys
from pathlib import Path
from typing import Any, NoReturn

import Metal
import MetalPerformanceShaders as MPS
import objc
from Foundation import NSData, NSMutableArray, NSObject

FORMATS = {
    "unorm8": MPS.MPSImageFeatureChannelFormatUnorm8,
    "unorm16": MPS.MPSImageFeatureChannelFormatUnorm16,
    "float16": MPS.MPSImageFeatureChannelFormatFloat16,
    "float32": MPS.MPSImageFeatureChannelFormatFloat32,
}
SIZES = {"unorm8": 1, "unorm16": 2, "float16": 2, "float32": 4}
LAYOUTS = {
    "HeightxWidthxFeatureChannels": MPS.MPSDataLayoutHeightxWidthxFeatureChannels,
    "featureChannelsxHeightxWidth": MPS.MPSDataLayoutFeatureChannelsxHeightxWidth,
}
NEURON_TYPES = {
    "none": MPS.MPSCNNNeuronTypeNone,
    "reLU": MPS.MPSCNNNeuronTypeReLU,
    "linear": MPS.MPSCNNNeuronTypeLinear,
    "sigmoid": MPS.MPSCNNNeuronTypeSigmoid,
    "hardSigmoid": MPS.MPSCNNNeuronTypeHardSigmoid,
    "tanH": MPS.MPSCNNNeuronTypeTanH,
    "absolute": MPS.MPSCNNNeuronTypeAbsolute,
    "softPlus": MPS.MPSCNNNeuronTypeSoftPlus,
    "softSign": MPS.MPSCNNNeuronTypeSoftSign,
    "ELU": MPS.MPSCNNNeuronTypeELU,
    "reLUN": MPS.MPSCNNNeuronTypeReLUN,
    "power": MPS.MPSCNNNeuronTypePower,
    "exponential": MPS.MPSCNNNeuronTypeExponential,
    "logarithm": MPS.MPSCNNNeuronTypeLogarithm,
    "geLU": MPS.MPSCNNNeuronTypeGeLU,
}
NO_PARAMETERS = {
    "MPSCNNNeuronAbsoluteNode": MPS.MPSCNNNeuronAbsoluteNode,
    "MPSCNNNeuronSigmoidNode": MPS.MPSCNNNeuronSigmoidNode,
    "MPSCNNNeuronSoftSignNode": MPS.MPSCNNNeuronSoftSignNode,
    "MPSCNNNeuronGeLUNode": MPS.MPSCNNNeuronGeLUNode,
    "MPSNNInitialGradientNode": MPS.MPSNNInitialGradientNode,
}
ONE_PARAMETER = {
    "MPSCNNNeuronELUNode": MPS.MPSCNNNeuronELUNode,
    "MPSCNNNeuronReLUNode": MPS.MPSCNNNeuronReLUNode,
}
TWO_PARAMETERS = {
    "MPSCNNNeuronReLUNNode": MPS.MPSCNNNeuronReLUNNode,
    "MPSCNNNeuronLinearNode": MPS.MPSCNNNeuronLinearNode,
    "MPSCNNNeuronHardSigmoidNode": MPS.MPSCNNNeuronHardSigmoidNode,
    "MPSCNNNeuronSoftPlusNode": MPS.MPSCNNNeuronSoftPlusNode,
    "MPSCNNNeuronTanHNode": MPS.MPSCNNNeuronTanHNode,
}
THREE_PARAMETERS = {
    "MPSCNNNeuronPowerNode": MPS.MPSCNNNeuronPowerNode,
    "MPSCNNNeuronExponentialNode": MPS.MPSCNNNeuronExponentialNode,
    "MPSCNNNeuronLogarithmNode": MPS.MPSCNNNeuronLogarithmNode,
}
ARITHMETIC = {
    "MPSNNAdditionNode": MPS.MPSNNAdditionNode,
    "MPSNNSubtractionNode": MPS.MPSNNSubtractionNode,
    "MPSNNMultiplicationNode": MPS.MPSNNMultiplicationNode,
}
ARITHMETIC_GRADIENTS = {
    "MPSNNAdditionGradientNode": MPS.MPSNNAdditionGradientNode,
    "MPSNNSubtractionGradientNode": MPS.MPSNNSubtractionGradientNode,
    "MPSNNMultiplicationGradientNode": MPS.MPSNNMultiplicationGradientNode,
}


def stop(message: str) -> NoReturn:
    """End with one line."""
    sys.exit(f"record: {message}")


class Handle(NSObject, protocols=[objc.protocolNamed("MPSHandle")]):
    """How the graph says which source or exported image is which."""

    @objc.python_method
    def named(self, name: str) -> Handle:
        """Give it its name."""
        self.name = name
        return self

    def label(self) -> str:
        """Return the name, as the protocol asks for."""
        return self.name

    @classmethod
    def supportsSecureCoding(cls) -> bool:
        """Return whether it can be archived, as the protocol asks for."""
        return True

    def encodeWithCoder_(self, coder: Any) -> None:
        """Archive, as the protocol asks for."""
        coder.encodeObject_forKey_(self.name, "name")

    def initWithCoder_(self, coder: Any) -> Handle:
        """Unarchive, as the protocol asks for."""
        made = objc.super(Handle, self).init()
        return made.named(coder.decodeObjectForKey_("name"))


def handle(name: str) -> Handle:
    """A handle of this name."""
    return Handle.alloc().init().named(name)


def float32(values: list[float]) -> Any:
    """Little-endian float32 as NSData."""
    data = struct.pack(f"<{len(values)}f", *values)
    return NSData.dataWithBytes_length_(data, len(data))


class Builder:
    """The nodes of a graph file."""

    def __init__(self, file: dict[str, Any]) -> None:
        self.file = file
        self.images: dict[str, Any] = {}
        self.makers: dict[str, Any] = {}
        waiting = list(file["nodes"])
        made = {node["result"] for node in waiting}
        for node in waiting:
            for name in self.reads(node):
                if name not in made and name not in self.images:
                    self.images[name] = MPS.MPSNNImageNode.nodeWithHandle_(handle(name))
                    self.apply(name)
        # Nodes may stand in any order; each is made when what it reads is there.
        while waiting:
            ready = [node for node in waiting if self.is_ready(node)]
            if not ready:
                stop("the nodes of the graph depend on each other in a circle")
            for node in ready:
                made_node = self.make(node)
                name = node["result"]
                made_node.setLabel_(node.get("label"))
                self.makers[name], self.images[name] = made_node, made_node.resultImage()
                self.images[name].setHandle_(handle(name))
                self.apply(name)
            waiting = [node for node in waiting if node["result"] not in self.makers]

    @staticmethod
    def reads(node: dict[str, Any]) -> list[str]:
        """Names of the images that a node reads."""
        single = [node[field] for field in ("source", "source_gradient", "source_image") if field in node]
        return single + node.get("sources", [])

    def is_ready(self, node: dict[str, Any]) -> bool:
        """Whether all that a node needs is there."""
        state = node.get("gradient_state")
        return all(name in self.images for name in self.reads(node)) and (state is None or state in self.makers)

    def apply(self, name: str) -> None:
        """Formats go on to the images that are made from this one, so they are set before the next node is."""
        settings = self.file.get("images", {}).get(name, {})
        if "format" in settings:
            self.images[name].setFormat_(FORMATS[settings["format"]])
        self.images[name].setStopGradient_(settings.get("stop_gradient", False))

    @staticmethod
    def neuron(fields: dict[str, Any]) -> Any:
        """The descriptor of a neuron."""
        if fields["neuron_type"] == "pReLU":
            return MPS.MPSNNNeuronDescriptor.cnnNeuronPReLUDescriptorWithData_noCopy_(float32(fields["data"]), False)
        return MPS.MPSNNNeuronDescriptor.cnnNeuronDescriptorWithType_a_b_c_(
            NEURON_TYPES[fields["neuron_type"]], fields.get("a", 0.0), fields.get("b", 0.0), fields.get("c", 0.0)
        )

    def make(self, node: dict[str, Any]) -> Any:
        """The filter node that an entry describes."""
        if "source_gradient" in node:
            return self.gradient(node)
        if "sources" in node:
            return self.arithmetic(node)
        name, source = node["class"], self.images[node["source"]]
        if name == "MPSCNNNeuronNode":
            made = MPS.MPSCNNNeuronNode.nodeWithSource_descriptor_(source, self.neuron(node["descriptor"]))
        elif name == "MPSCNNNeuronPReLUNode":
            made = MPS.MPSCNNNeuronPReLUNode.nodeWithSource_aData_(source, float32(node["a_data"]))
        elif name in NO_PARAMETERS:
            made = NO_PARAMETERS[name].nodeWithSource_(source)
        elif name in ONE_PARAMETER:
            made = ONE_PARAMETER[name].nodeWithSource_a_(source, node["a"])
        elif name in TWO_PARAMETERS:
            made = TWO_PARAMETERS[name].nodeWithSource_a_b_(source, node["a"], node["b"])
        elif name in THREE_PARAMETERS:
            made = THREE_PARAMETERS[name].nodeWithSource_a_b_c_(source, node["a"], node["b"], node["c"])
        else:
            stop(f"no node class {name}")
        return made

    def arithmetic(self, node: dict[str, Any]) -> Any:
        """An addition, subtraction or multiplication with its scales, bias and bounds."""
        left, right = (self.images[name] for name in node["sources"])
        made = ARITHMETIC[node["class"]].nodeWithLeftSource_rightSource_(left, right)
        self.scale(made, node)
        if "bias" in node:
            made.setBias_(node["bias"])
        if "minimum_value" in node:
            made.setMinimumValue_(node["minimum_value"])
        if "maximum_value" in node:
            made.setMaximumValue_(node["maximum_value"])
        return made

    @staticmethod
    def scale(made: Any, node: dict[str, Any]) -> None:
        """Set the scales that an entry gives."""
        if "primary_scale" in node:
            made.setPrimaryScale_(node["primary_scale"])
        if "secondary_scale" in node:
            made.setSecondaryScale_(node["secondary_scale"])

    def gradient(self, node: dict[str, Any]) -> Any:
        """The gradient of a neuron or of arithmetic."""
        incoming, image = self.images[node["source_gradient"]], self.images[node["source_image"]]
        state = self.makers[node["gradient_state"]].resultState()
        if node["class"] == "MPSCNNNeuronGradientNode":
            return MPS.MPSCNNNeuronGradientNode.nodeWithSourceGradient_sourceImage_gradientState_descriptor_(
                incoming, image, state, self.neuron(node["descriptor"])
            )
        kind = ARITHMETIC_GRADIENTS[node["class"]]
        made = kind.nodeWithSourceGradient_sourceImage_gradientState_isSecondarySourceFilter_(
            incoming, image, state, node["is_secondary_source_filter"]
        )
        self.scale(made, node)
        return made


def size(entry: dict[str, Any]) -> int:
    """Bytes of one image."""
    return entry["height"] * entry["width"] * entry["feature_channels"] * SIZES[entry["channel_format"]]


def layout(entry: dict[str, Any]) -> int:
    """Order of the elements of one image."""
    return LAYOUTS[entry.get("data_layout", "HeightxWidthxFeatureChannels")]


def read(folder: Path, entry: dict[str, Any], device: Any) -> list[Any]:
    """One MPSImage for each image of a source, filled from its file."""
    data, count = (folder / entry["file"]).read_bytes(), entry.get("number_of_images", 1)
    if len(data) != count * size(entry):
        stop(f"{entry['file']} has not the size that recording.json says")
    descriptor = MPS.MPSImageDescriptor.imageDescriptorWithChannelFormat_width_height_featureChannels_(
        FORMATS[entry["channel_format"]], entry["width"], entry["height"], entry["feature_channels"]
    )
    images = []
    for i in range(count):
        image = MPS.MPSImage.alloc().initWithDevice_imageDescriptor_(device, descriptor)
        image.writeBytes_dataLayout_imageIndex_(data[i * size(entry) : (i + 1) * size(entry)], layout(entry), 0)
        images.append(image)
    return images


def write(folder: Path, name: str, entry: dict[str, Any], batch: list[Any]) -> None:
    """Write what the graph made of one image."""
    if len(batch) != entry.get("number_of_images", 1):
        stop(f"{name}: the graph made a batch of another length")
    data = b""
    for image in batch:
        found = (image.width(), image.height(), image.featureChannels(), image.featureChannelFormat())
        if found != (entry["width"], entry["height"], entry["feature_channels"], FORMATS[entry["channel_format"]]):
            stop(f"{name}: the graph made an image of another size or format than recording.json says")
        buffer = bytearray(size(entry))
        image.readBytes_dataLayout_imageIndex_(buffer, layout(entry), 0)
        data += bytes(buffer)
    # Whole or not at all: what has its name is complete.
    part = folder / f"{entry['file']}.part"
    part.write_bytes(data)
    part.replace(folder / entry["file"])
    print(f"wrote {entry['file']}")


def main(folder: Path) -> None:
    """Run the graph of a recording and write every image that it waits for."""
    recording = json.loads((folder / "recording.json").read_text(encoding="utf-8"))
    file = json.loads((folder / recording["graph"]).read_text(encoding="utf-8"))
    device = Metal.MTLCreateSystemDefaultDevice()
    if device is None:
        stop("no Metal device")
    queue = device.newCommandQueue()
    builder, entries = Builder(file), recording["images"]
    wanted = {name: None for name in [*file["results"], *entries] if name in entries and name in builder.makers}
    for name in wanted:
        # Exported, in memory that the CPU can read. An image that is exported is never fused away.
        builder.images[name].setExportFromGraph_(True)
        builder.images[name].setSynchronizeResource_(True)
        builder.images[name].setImageAllocator_(MPS.MPSImage.defaultAllocator())
    # One graph for each result: what it returns is that image, and what it exports has a handle. Where a graph has
    # several results, the SDK does not say in which order they come among the exported images.
    for result in list(wanted):
        if result not in wanted:
            continue
        graph = MPS.MPSNNGraph.alloc().initWithDevice_resultImage_resultImageIsNeeded_(
            device, builder.images[result], True
        )
        if graph is None:
            stop(f"{result}: MPS makes no graph of it")
        graph.setFormat_(FORMATS[file.get("storage", "float16")])
        batches = [read(folder, entries[source.label()], device) for source in graph.sourceImageHandles()]
        command_buffer, exported = queue.commandBuffer(), NSMutableArray.array()
        batch = graph.encodeBatchToCommandBuffer_sourceImages_sourceStates_intermediateImages_destinationStates_(
            command_buffer, batches, None, exported, None
        )
        for image in batch:
            image.synchronizeOnCommandBuffer_(command_buffer)
        command_buffer.commit()
        command_buffer.waitUntilCompleted()
        if command_buffer.error() is not None:
            stop(f"{result}: {command_buffer.error()}")
        write(folder, result, entries[result], list(batch))
        del wanted[result]
        handles = list(graph.intermediateImageHandles() or [])
        if len(handles) != len(exported):
            stop(f"{result}: {len(exported)} images for {len(handles)} handles")
        for tag, images in zip(handles, exported, strict=True):
            if tag.label() in wanted:
                write(folder, tag.label(), entries[tag.label()], list(images))
                del wanted[tag.label()]
    # Say in the recording which device it was.
    recording["device"] = f"{device.name()}, macOS {platform.mac_ver()[0]}, MPSNNGraph, record.py"
    part = folder / "recording.json.part"
    part.write_text(json.dumps(recording, indent=1) + "\n", encoding="utf-8")
    part.replace(folder / "recording.json")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        stop("give the folder that mpsref inputs made")
    main(Path(sys.argv[1]))
