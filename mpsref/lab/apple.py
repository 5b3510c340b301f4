"""
MPS itself and kernels compiled by Metal, on a Mac, through PyObjC.

NOT RUN ON A DEVICE: no Apple GPU was at hand. Tests run all of this on a stand-in for PyObjC that is strict about every
selector, type and order that the SDK documents.
"""

from __future__ import annotations

import platform
import re
import struct
from collections.abc import Collection, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from mpsref.enums import MPSCNNNeuronType, MPSDataLayout
from mpsref.errors import DependencyError, FileFormatError, ImplementationError
from mpsref.graph import GraphFile
from mpsref.image import MPSImage, MPSImageDescriptor
from mpsref.lab import msl
from mpsref.lab.cpu import Limits, Work
from mpsref.neuron import NEURONS

__all__ = ["Metal", "MetalProgram"]

PACKAGES = "pyobjc-framework-Metal pyobjc-framework-MetalPerformanceShaders"
HWC = MPSDataLayout.HeightxWidthxFeatureChannels
NEURON = re.compile("MPSCNNNeuron([A-Za-z]+)Node")
POOLING = ("MPSCNNPoolingMaxNode", "MPSCNNPoolingAverageNode")
WINDOW = ("kernel_width", "kernel_height", "stride_in_pixels_x", "stride_in_pixels_y")
SETTABLE = {
    "primary_scale": "setPrimaryScale_",
    "secondary_scale": "setSecondaryScale_",
    "bias": "setBias_",
    "minimum_value": "setMinimumValue_",
    "maximum_value": "setMaximumValue_",
}
"""What a graph file says of arithmetic, and what sets it."""


class Metal:
    """
    The default Metal device, and `MPSNNGraph` on it.

    Attributes
    ----------
    device : str
        What a recording calls it.

    Raises
    ------
    DependencyError
        PyObjC's bindings of Metal are missing, or the machine has no Metal device.
    """

    def __init__(self) -> None:
        self.objc, self.foundation, self.metal, self.mps = map(
            _imported, ("objc", "Foundation", "Metal", "MetalPerformanceShaders")
        )
        self.gpu = self.metal.MTLCreateSystemDefaultDevice()
        self.queue: Any = None if self.gpu is None else self.gpu.newCommandQueue()
        if self.queue is None:
            raise DependencyError("--backend metal: this machine has no Metal device: run it on a Mac")
        self.device = f"{self.gpu.name()}, macOS {platform.mac_ver()[0]}, MPSNNGraph"

    def graph(
        self,
        file: GraphFile,
        sources: Mapping[str, MPSImage],
        awaited: Mapping[str, MPSImageDescriptor],
        replaced: Collection[str] = (),
    ) -> dict[str, MPSImage]:
        """
        All images of a graph that MPS computes.

        Parameters
        ----------
        file : GraphFile
            The graph.
        sources : Mapping of str to MPSImage
            Its sources, and the images that are replaced.
        awaited : Mapping of str to MPSImageDescriptor
            Size and format of every other image.
        replaced : collection of str
            Images that are not what their node computes, but given.

        Raises
        ------
        FileFormatError
            A node is of a class that is not supported here.
        ImplementationError
            MPS makes no graph of it, or other images than expected.
        """
        nodes = _Nodes(self, file, sources, awaited, replaced)
        wanted = [name for name in [*file.results, *awaited] if name in awaited and name not in replaced]
        for name in wanted:
            nodes.export(name)
        images: dict[str, MPSImage] = {}
        # A graph for each result: what it returns is that image, and what it exports has a handle. The SDK does not say
        # in which order several results come among the exported images.
        for name in wanted:
            if name not in images:
                with self.objc.autorelease_pool():
                    made = self._run(nodes, name, sources)
                    images |= {
                        other: self._downloaded(other, batch, awaited[other])
                        for other, batch in made.items()
                        if other in wanted and other not in images
                    }
        return images

    def _run(self, nodes: _Nodes, result: str, sources: Mapping[str, MPSImage]) -> dict[str, list[Any]]:
        """What one graph returns and exports, by name."""
        # A result that is exported too may come without a handle.
        nodes.images[result].setExportFromGraph_(False)
        graph = self.mps.MPSNNGraph.alloc().initWithDevice_resultImage_resultImageIsNeeded_(
            self.gpu, nodes.images[result], True
        )
        if graph is None:
            raise ImplementationError(f"{result}: MPS makes no graph of it")
        graph.setFormat_(int(nodes.storage))
        batches = [self._uploaded(sources[handle.label()]) for handle in graph.sourceImageHandles()]
        buffer, exported = self.command_buffer(), self.foundation.NSMutableArray.array()
        batch = graph.encodeBatchToCommandBuffer_sourceImages_sourceStates_intermediateImages_destinationStates_(
            buffer, batches, None, exported, None
        )
        if batch is None:
            raise ImplementationError(f"{result}: MPS returned no image")
        returned, others = list(batch), [list(images) for images in exported]
        # The CPU sees nothing of managed memory that was not synchronized before the commit.
        for images in (returned, *others):
            for image in images:
                image.synchronizeOnCommandBuffer_(buffer)
        self.finish(buffer, result)
        nodes.images[result].setExportFromGraph_(True)
        labels = [handle.label() for handle in graph.intermediateImageHandles() or []]
        if len(others) == len(labels) + 1:
            # The result itself, or, where none is that, what comes without a handle comes first.
            others.pop(others.index(returned) if returned in others else 0)
        if len(others) != len(labels):
            raise ImplementationError(f"{result}: MPS exported {len(others)} images for {len(labels)} handles")
        return {**dict(zip(labels, others, strict=True)), result: returned}

    def command_buffer(self) -> Any:
        """A new command buffer."""
        buffer = self.queue.commandBuffer()
        if buffer is None:
            raise ImplementationError("Metal makes no command buffer")
        return buffer

    @staticmethod
    def finish(buffer: Any, what: str) -> None:
        """Run a command buffer to its end."""
        buffer.commit()
        buffer.waitUntilCompleted()
        if buffer.error() is not None:
            raise ImplementationError(f"{what}: {buffer.error()}")

    def _uploaded(self, source: MPSImage) -> list[Any]:
        """One image of Metal for each image of a batch."""
        d = source.descriptor
        descriptor = self.mps.MPSImageDescriptor.imageDescriptorWithChannelFormat_width_height_featureChannels_(
            int(d.channel_format), d.width, d.height, d.feature_channels
        )
        images = []
        for i in range(d.number_of_images):
            image = self.mps.MPSImage.alloc().initWithDevice_imageDescriptor_(self.gpu, descriptor)
            image.writeBytes_dataLayout_imageIndex_(source.read_bytes(HWC, i), int(HWC), 0)
            images.append(image)
        return images

    @staticmethod
    def _downloaded(name: str, batch: Sequence[Any], d: MPSImageDescriptor) -> MPSImage:
        if len(batch) != d.number_of_images:
            raise ImplementationError(f"{name}: MPS made {len(batch)} images, not {d.number_of_images}")
        result = MPSImage(image_descriptor=d)
        wanted = (d.width, d.height, d.feature_channels, int(d.channel_format))
        for i, image in enumerate(batch):
            seen = (image.width(), image.height(), image.featureChannels(), image.featureChannelFormat())
            if seen != wanted:
                raise ImplementationError(
                    f"{name}: MPS made an image of width, height, channels and format {seen}, not {wanted}"
                )
            data = bytearray(len(result.read_bytes(HWC, i)))
            image.readBytes_dataLayout_imageIndex_(data, int(HWC), 0)
            result.write_bytes(bytes(data), HWC, i)
        return result


def _imported(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise DependencyError(
            f"--backend metal: {name} cannot be imported ({error}): on a Mac, pip install {PACKAGES}"
        ) from None


def _handle_class(metal: Metal) -> Any:
    """How a graph says which source or exported image is which; the runtime has a class only once."""
    objc, foundation = metal.objc, metal.foundation
    try:
        return objc.lookUpClass("MPSRefHandle")
    except objc.nosuchclass_error:
        pass

    class MPSRefHandle(foundation.NSObject, protocols=[objc.protocolNamed("MPSHandle")]):  # type: ignore[misc, call-arg, name-defined]
        @objc.python_method  # type: ignore[untyped-decorator]
        def named(self, name: str) -> Any:
            self.name = name
            return self

        def label(self) -> str:
            return self.name

        @classmethod
        def supportsSecureCoding(cls) -> bool:
            return True

        def encodeWithCoder_(self, coder: Any) -> None:
            coder.encodeObject_forKey_(self.name, "name")

        def initWithCoder_(self, coder: Any) -> Any:
            made = objc.super(MPSRefHandle, self).init()
            return made.named(coder.decodeObjectForKey_("name"))

    return MPSRefHandle


class _Nodes:
    """The nodes of a graph file, as objects of MPS: images and their makers, by name."""

    def __init__(
        self,
        metal: Metal,
        file: GraphFile,
        sources: Mapping[str, MPSImage],
        awaited: Mapping[str, MPSImageDescriptor],
        replaced: Collection[str],
    ) -> None:
        self._mps, self._data, self._handle = metal.mps, metal.foundation.NSData, _handle_class(metal)
        self.storage = file.storage
        self._formats = {name: d.channel_format for name, d in awaited.items()}
        self._formats |= {name: image.feature_channel_format for name, image in sources.items()}
        self._settings = file.to_json().get("images", {})
        self.images: dict[str, Any] = {}
        self._makers: dict[str, Any] = {}
        for name in sources:
            self._named(name, self._mps.MPSNNImageNode.nodeWithHandle_(None))
        for entry in file.to_json()["nodes"]:
            made = self._made(entry)
            if "label" in entry:
                made.setLabel_(entry["label"])
            name = entry["result"]
            self._makers[name] = made
            if name not in replaced:
                self._named(name, made.resultImage())

    def export(self, name: str) -> None:
        """Have an image kept, in memory that the CPU can read; it is never fused away then."""
        self.images[name].setExportFromGraph_(True)
        self.images[name].setSynchronizeResource_(True)
        self.images[name].setImageAllocator_(self._mps.MPSImage.defaultAllocator())

    def _named(self, name: str, image: Any) -> None:
        image.setHandle_(self._handle.alloc().init().named(name))
        # A result takes over the format of its first source unless it has one.
        image.setFormat_(int(self._formats[name]))
        image.setStopGradient_(bool(self._settings.get(name, {}).get("stop_gradient", False)))
        self.images[name] = image

    def _made(self, entry: Mapping[str, Any]) -> Any:
        """The filter node of an entry of a graph file."""
        kind = entry["class"]
        neuron = NEURON.fullmatch(kind)
        if "gradient_state" in entry:
            made = self._gradient(entry)
        elif kind in POOLING:
            if entry.get("edge_mode", "clamp") != "clamp":
                raise FileFormatError(f"node {entry['result']}: edge_mode: the nodes of MPS clamp: leave it out")
            made = (
                getattr(self._mps, kind)
                .alloc()
                .initWithSource_kernelWidth_kernelHeight_strideInPixelsX_strideInPixelsY_(
                    self.images[entry["source"]], *(entry[name] for name in WINDOW)
                )
            )
            made.setPaddingPolicy_(self._padding(entry))
        elif "sources" in entry:
            left, right = (self.images[name] for name in entry["sources"])
            made = getattr(self._mps, kind).nodeWithLeftSource_rightSource_(left, right)
        elif kind == "MPSCNNNeuronNode":
            source = self.images[entry["source"]]
            made = self._mps.MPSCNNNeuronNode.nodeWithSource_descriptor_(source, self._neuron(entry["descriptor"]))
        elif neuron or kind == "MPSNNInitialGradientNode":
            given = [self._float32(entry["a_data"])] if "a_data" in entry else [entry[p] for p in "abc" if p in entry]
            selector = "nodeWithSource_" + ("aData_" if "a_data" in entry else "a_b_c_"[: 2 * len(given)])
            made = getattr(getattr(self._mps, kind), selector)(self.images[entry["source"]], *given)
        else:
            raise FileFormatError(
                f"node {entry['result']}: --backend metal has neurons, arithmetic and pooling, but no {kind}: leave it "
                "out, or give its image to mpsref convert"
            )
        for field, selector in SETTABLE.items():
            if field in entry:
                getattr(made, selector)(entry[field])
        return made

    def _gradient(self, entry: Mapping[str, Any]) -> Any:
        incoming, image = self.images[entry["source_gradient"]], self.images[entry["source_image"]]
        state = self._makers[entry["gradient_state"]].resultState()
        if "descriptor" in entry:
            return self._mps.MPSCNNNeuronGradientNode.nodeWithSourceGradient_sourceImage_gradientState_descriptor_(
                incoming, image, state, self._neuron(entry["descriptor"])
            )
        kind = getattr(self._mps, entry["class"])
        if "kernel_width" in entry:
            return kind.nodeWithSourceGradient_sourceImage_gradientState_kernelWidth_kernelHeight_strideInPixelsX_strideInPixelsY_paddingPolicy_(  # noqa: E501 - one selector
                incoming, image, state, *(entry[name] for name in WINDOW), self._padding(entry)
            )
        return kind.nodeWithSourceGradient_sourceImage_gradientState_isSecondarySourceFilter_(
            incoming, image, state, entry["is_secondary_source_filter"]
        )

    def _padding(self, entry: Mapping[str, Any]) -> Any:
        fields, kind = entry["padding_policy"], self._mps.MPSNNDefaultPadding
        if "policy" in fields:
            return getattr(kind, f"padding{fields['policy'][0].upper()}{fields['policy'][1:]}")()
        if "method" not in fields:
            raise FileFormatError(
                f"node {entry['result']}: padding_policy: --backend metal has those of MPSNNDefaultPadding only"
            )
        return kind.paddingWithMethod_(fields["method"])

    def _neuron(self, fields: Mapping[str, Any]) -> Any:
        kind = MPSCNNNeuronType[fields["neuron_type"]]
        if NEURONS[kind].per_channel:
            data = self._float32(fields["data"])
            return self._mps.MPSNNNeuronDescriptor.cnnNeuronPReLUDescriptorWithData_noCopy_(data, False)
        return self._mps.MPSNNNeuronDescriptor.cnnNeuronDescriptorWithType_a_b_c_(
            int(kind), *(fields.get(name, 0.0) for name in "abc")
        )

    def _float32(self, values: Sequence[float]) -> Any:
        data = struct.pack(f"<{len(values)}f", *values)
        return self._data.dataWithBytes_length_(data, len(data))


# ---- kernels compiled by Metal ----


class MetalProgram:
    """
    Kernels of a ``.metal`` file, compiled by Metal when the program runs; as `mpsref.lab.cpu.Program` is used.

    Parameters
    ----------
    metal : Metal
        The device.
    text, names, where, folder, constants
        See `mpsref.lab.cpu.Program`. Files of the user cannot be included.

    Raises
    ------
    DependencyError
        The device has memory of its own, apart from the processor's.
    ImplementationError
        It does not compile, or a kernel is missing; the message is Metal's.
    """

    def __init__(
        self,
        metal: Metal,
        text: str,
        names: Sequence[str],
        where: str,
        *,
        folder: Path | None = None,
        constants: Mapping[str, str] | None = None,
    ) -> None:
        del folder
        if not metal.gpu.hasUnifiedMemory():
            raise DependencyError("--kernel: of --backend metal needs a Mac whose GPU shares the processor's memory")
        self._metal, self._where = metal, where
        self.expanded = re.sub(r"//[^\n]*|/\*.*?\*/", " ", text, flags=re.DOTALL)
        try:
            self.kernels = {name: msl.read(self.expanded, name) for name in names}
        except ImplementationError as error:
            raise ImplementationError(f"{where}: {error}") from None
        for kind, name in msl.function_constants(self.expanded):
            if name not in (constants or {}):
                raise ImplementationError(f"{where}: {kind} {name} has no value: give --argument {name}=VALUE")
            declared = rf"(constant\s+{re.escape(kind)}\s+{name})\s*\[\[[^\]]*\]\]"
            text = re.sub(declared, rf"\1 = {(constants or {})[name]}", text)
        library, problem = metal.gpu.newLibraryWithSource_options_error_(text, None, None)
        if library is None:
            raise ImplementationError(f"{where}: does not compile: {problem}")
        self._pipelines = {}
        for name in names:
            function = library.newFunctionWithName_(name)
            if function is None:
                raise ImplementationError(f"{where}: Metal finds no function {name}")
            self._pipelines[name], problem = metal.gpu.newComputePipelineStateWithFunction_error_(function, None)
            if self._pipelines[name] is None:
                raise ImplementationError(f"{where}: {name}: {problem}")

    def close(self) -> None:
        """Nothing is left on disk."""

    def fields_of(self, name: str) -> tuple[tuple[msl.Field, ...], int]:
        """The fields and the size of a parameter, see `mpsref.lab.msl.fields_of`."""
        return msl.fields_of(self.expanded, name)

    def run(self, name: str, work: Work, limits: Limits | None = None) -> None:
        """Run a kernel; the arrays of `work` then hold what it has left. Metal has limits of its own."""
        del limits
        metal, gpu = self._metal.metal, self._metal.gpu
        buffers = {
            index: gpu.newBufferWithBytes_length_options_(array.tobytes(), array.nbytes, 0)
            for index, array in work.buffers.items()
        }
        textures = {index: self._texture(array) for index, array in work.textures.items()}
        if None in (*buffers.values(), *textures.values()):
            raise ImplementationError(f"{self._where}: {name}: Metal has no memory for its images")
        command_buffer = self._metal.command_buffer()
        encoder = command_buffer.computeCommandEncoder()
        encoder.setComputePipelineState_(self._pipelines[name])
        for index, buffer in buffers.items():
            encoder.setBuffer_offset_atIndex_(buffer, 0, index)
        for index, texture in textures.items():
            encoder.setTexture_atIndex_(texture, index)
        for index in work.shared:
            # A threadgroup has 32 KiB in all; lengths are multiples of 16.
            encoder.setThreadgroupMemoryLength_atIndex_(32_768 // len(work.shared) // 16 * 16, index)
        encoder.dispatchThreads_threadsPerThreadgroup_(metal.MTLSizeMake(*work.grid), metal.MTLSizeMake(*work.group))
        encoder.endEncoding()
        self._metal.finish(command_buffer, f"{self._where}: {name}")
        for index, array in work.buffers.items():
            data = bytes(buffers[index].contents().as_buffer(array.nbytes))
            work.buffers[index] = np.frombuffer(data, array.dtype).reshape(array.shape).copy()
        for index, array in work.textures.items():
            work.textures[index] = self._read(textures[index], array)

    def _texture(self, array: Any) -> Any:
        """A texture array in memory that both can use, filled."""
        metal = self._metal.metal
        slices, height, width, count = array.shape
        descriptor = metal.MTLTextureDescriptor.alloc().init()
        descriptor.setTextureType_(metal.MTLTextureType2DArray)
        descriptor.setPixelFormat_(int(MPSImage(texture=array, feature_channels=count).pixel_format))
        descriptor.setWidth_(width)
        descriptor.setHeight_(height)
        descriptor.setArrayLength_(slices)
        descriptor.setStorageMode_(metal.MTLStorageModeShared)
        descriptor.setUsage_(metal.MTLTextureUsageShaderRead | metal.MTLTextureUsageShaderWrite)
        texture = self._metal.gpu.newTextureWithDescriptor_(descriptor)
        region = metal.MTLRegionMake2D(0, 0, width, height)
        for i in range(0 if texture is None else slices):
            texture.replaceRegion_mipmapLevel_slice_withBytes_bytesPerRow_bytesPerImage_(
                region, 0, i, array[i].tobytes(), array[i, 0].nbytes, array[i].nbytes
            )
        return texture

    def _read(self, texture: Any, array: Any) -> Any:
        slices, height, width, _ = array.shape
        region, read = self._metal.metal.MTLRegionMake2D(0, 0, width, height), []
        for i in range(slices):
            data = bytearray(array[i].nbytes)
            texture.getBytes_bytesPerRow_bytesPerImage_fromRegion_mipmapLevel_slice_(
                data, array[i, 0].nbytes, array[i].nbytes, region, 0, i
            )
            read.append(np.frombuffer(bytes(data), array.dtype).reshape(array[i].shape))
        return np.stack(read)
