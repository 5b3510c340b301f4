"""
A strict stand-in for PyObjC, Metal and MPS, with mpsref behind it.

Every selector, the number and types of arguments, blocks and nil are held to `data/sdk.json`, and to `METAL` below for
what is not of MPS. What Metal's validation would stop, or would go unnoticed on one machine and not on another, is an
error: `WrongUseError`.
"""

from __future__ import annotations

import inspect
import json
import re
import types
from pathlib import Path

import numpy as np

import mpsref as mps
from mpsref.attributes import snake
from mpsref.lab import msl
from mpsref.lab.cpu import Program, Work

SDK = json.loads((Path(__file__).parent / "data" / "sdk.json").read_text(encoding="utf-8"))
PROTOCOLS = {"MPSHandle": ["label", "supportsSecureCoding", "encodeWithCoder_", "initWithCoder_"]}
"""What must be there of a protocol and those that it takes over, as selectors in Python."""

CONFORMS = {"MPSNNDefaultPadding": "MPSNNPadding"}
"""Protocols of classes of MPS."""

METAL = {
    "NSMutableArray": {"+array": ["instancetype"]},
    "NSData": {"+dataWithBytes:length:": ["instancetype", "const void *", "NSUInteger"]},
    "MTLDevice": {
        "-name": ["NSString *"],
        "-hasUnifiedMemory": ["BOOL"],
        "-newCommandQueue": ["id<MTLCommandQueue> ?"],
        "-newLibraryWithSource:options:error:": [
            "id<MTLLibrary> ?", "NSString *", "MTLCompileOptions * ?", "NSError **"
        ],
        "-newComputePipelineStateWithFunction:error:": [
            "id<MTLComputePipelineState> ?", "id<MTLFunction>", "NSError **"
        ],
        "-newBufferWithBytes:length:options:": ["id<MTLBuffer> ?", "const void *", "NSUInteger", "NSUInteger"],
        "-newTextureWithDescriptor:": ["id<MTLTexture> ?", "MTLTextureDescriptor *"],
    },
    "MTLCommandQueue": {"-commandBuffer": ["id<MTLCommandBuffer> ?"]},
    "MTLCommandBuffer": {
        "-commit": ["void"],
        "-waitUntilCompleted": ["void"],
        "-error": ["NSError * ?"],
        "-computeCommandEncoder": ["id<MTLComputeCommandEncoder> ?"],
    },
    "MTLLibrary": {"-newFunctionWithName:": ["id<MTLFunction> ?", "NSString *"]},
    "MTLFunction": {},
    "MTLComputePipelineState": {},
    "MTLComputeCommandEncoder": {
        "-setComputePipelineState:": ["void", "id<MTLComputePipelineState>"],
        "-setBuffer:offset:atIndex:": ["void", "id<MTLBuffer> ?", "NSUInteger", "NSUInteger"],
        "-setTexture:atIndex:": ["void", "id<MTLTexture> ?", "NSUInteger"],
        "-setThreadgroupMemoryLength:atIndex:": ["void", "NSUInteger", "NSUInteger"],
        "-dispatchThreads:threadsPerThreadgroup:": ["void", "MTLSize", "MTLSize"],
        "-endEncoding": ["void"],
    },
    "MTLBuffer": {"-contents": ["void *"]},
    "MTLTexture": {
        "-replaceRegion:mipmapLevel:slice:withBytes:bytesPerRow:bytesPerImage:": [
            "void", "MTLRegion", "NSUInteger", "NSUInteger", "const void *", "NSUInteger", "NSUInteger"
        ],
        "-getBytes:bytesPerRow:bytesPerImage:fromRegion:mipmapLevel:slice:": [
            "void", "void *", "NSUInteger", "NSUInteger", "MTLRegion", "NSUInteger", "NSUInteger"
        ],
    },
    "MTLTextureDescriptor": {
        f"-set{name}:": ["void", "NSUInteger"]
        for name in ("TextureType", "PixelFormat", "Width", "Height", "ArrayLength", "StorageMode", "Usage")
    },
}  # fmt: skip
"""What of Metal and Foundation is used, in the form of the SDK data."""


class WrongUseError(AssertionError):
    """What the SDK does not allow."""


def require(condition, message):
    if not condition:
        raise WrongUseError(message)


def chain_of(name):
    while name in SDK["classes"]:
        yield name
        name = SDK["classes"][name]["super"]


def signature_of(name, sign, spelled):
    """Selector and types of a method by its name in Python, such as ``nodeWithSource_a_``."""
    selector = sign + spelled.replace("_", ":")
    for owner in chain_of(name):
        if selector in SDK["classes"][owner]["selectors"]:
            return SDK["classes"][owner]["selectors"][selector]
    if selector in METAL.get(name, {}):
        return METAL[name][selector]
    if selector in ("+alloc", "-init") and name not in PLAIN_INIT_UNAVAILABLE:
        return ["instancetype"]
    # As Python says it of an attribute: PyObjC knows no such selector.
    raise AttributeError(f"{name} has no selector {selector}")


PLAIN_INIT_UNAVAILABLE = {"MPSNNGraph", "MPSNNImageNode", "MPSNNFilterNode", "MPSNNStateNode"}


class Thing:
    """An object of Objective-C: its class, and what it is here."""

    def __init__(self, bridge, kind, thing=None, **values):
        self.__dict__.update(bridge=bridge, kind=kind, thing=thing, is_ready=True, **values)

    def __getattr__(self, name):
        if name == "alloc" or name.startswith("__"):
            raise AttributeError(name)
        types_ = signature_of(self.kind, "-", name)
        require(self.is_ready or name.startswith("init"), f"{self.kind} is used before init")
        return Method(self.bridge, self, name, types_)


class Class:
    """A class of Objective-C."""

    def __init__(self, bridge, kind):
        self.bridge, self.kind = bridge, kind

    def __getattr__(self, name):
        if name == "alloc":
            made = Thing(self.bridge, self.kind)
            made.__dict__["is_ready"] = False
            return lambda: made
        return Method(self.bridge, self, name, signature_of(self.kind, "+", name))


class Method:
    """A selector of an object or class, which checks arguments and what it returns."""

    def __init__(self, bridge, receiver, name, types_):
        self.bridge, self.receiver, self.name, self.types = bridge, receiver, name, types_

    def __call__(self, *values):
        where = f"{self.receiver.kind} {self.name}"
        require(len(values) == self.name.count("_"), f"{where}: {len(values)} arguments for {self.name.count('_')}")
        require(len(self.types) == len(values) + 1, f"{where}: the data has another number of types")
        for number, (kind, value) in enumerate(zip(self.types[1:], values, strict=True), 1):
            accept(kind, value, f"{where}: argument {number}")
        result = self.bridge.perform(self.receiver, self.name, values)
        if self.types[0].removesuffix(" ?") not in ("void", "instancetype", "void *") and not self.name.endswith(
            "error_"
        ):
            accept(self.types[0], result, f"{where}: result")
        return result


def accept(kind, value, where):
    """Fail unless a value is of a type of the SDK."""
    if kind.endswith(" ?"):
        if value is None:
            return
        kind = kind.removesuffix(" ?")
    kind = kind.removeprefix("const ")
    if kind == "NSError **":
        require(value is None, f"{where}: give None for what comes back")
        return
    require(value is not None, f"{where}: nil where {kind} may not be nil")
    inner = re.fullmatch(r"(NSArray|NSMutableArray)<(.*?)>(?: \*)?", SDK["typedefs"].get(kind.removesuffix(" *"), kind))
    if inner:
        require(inner[1] == "NSArray" or isinstance(value, MutableArray), f"{where}: not a mutable array")
        require(isinstance(value, list | tuple), f"{where}: {type(value).__name__} for {kind}")
        for i, one in enumerate(value):
            accept(inner[2], one, f"{where}[{i}]")
    elif kind in SDK["enums"]:
        require(type(value) is int, f"{where}: {type(value).__name__} for {kind}")
        bits = sum(SDK["enums"][kind].values()) if kind == "MPSNNPaddingMethod" else 0
        require(value in SDK["enums"][kind].values() or value & ~bits == 0, f"{where}: {value} is no {kind}")
    elif kind in SDK["typedefs"]:
        wanted = SDK["typedefs"][kind].partition("(^)")[2].count(",") + 1
        require(callable(value), f"{where}: {type(value).__name__} for a block")
        count = len(inspect.signature(value).parameters)
        require(count == wanted, f"{where}: a function of {count} arguments for a block of {wanted}")
    elif kind in SCALARS:
        require(SCALARS[kind](value), f"{where}: {value!r} for {kind}")
    else:
        names = re.findall(r"\w+", kind)
        mine = {getattr(value, "kind", None), *getattr(value, "protocols", ())}
        mine |= {name for one in list(mine) for name in (*chain_of(one), CONFORMS.get(one))}
        require(names[-1] in mine, f"{where}: {getattr(value, 'kind', type(value).__name__)} for {kind}")


SCALARS = {
    "float": lambda v: type(v) in (float, int),
    "BOOL": lambda v: type(v) is bool,
    "_Bool": lambda v: type(v) is bool,
    "NSUInteger": lambda v: type(v) is int and 0 <= v < 2**64,
    "NSString *": lambda v: type(v) is str,
    "void *": lambda v: isinstance(v, bytes | bytearray),
    "MTLSize": lambda v: isinstance(v, tuple) and len(v) == 3 and all(type(n) is int and n > 0 for n in v),
    "MTLRegion": lambda v: isinstance(v, tuple) and [len(part) for part in v] == [3, 3],
}


class MutableArray(list):
    """An NSMutableArray."""

    kind = "NSMutableArray"


class Data(Thing):
    """An NSData."""


class NSObject:
    """What classes of Python inherit from."""

    kind, protocols = "NSObject", ()

    def __init_subclass__(cls, protocols=()):
        cls.protocols = protocols
        for name in (name for protocol in protocols for name in PROTOCOLS[protocol]):
            if not hasattr(cls, name):
                raise TypeError(f"{cls.__name__} does not fully implement protocol: no {name}")

    @classmethod
    def alloc(cls):
        return cls()

    def init(self):
        return self


class Bridge:
    """
    The modules, and what runs behind them.

    Parameters
    ----------
    extra : str, optional
        What a graph exports without a handle: ``result``, last, or ``other``, first.
    device : bool
        Whether there is one.
    """

    def __init__(self, extra=None, *, device=True):
        self.extra, self.things, self.classes = extra, {}, {}
        self.gpu = Thing(self, "MTLDevice") if device else None
        self.commits, self.programs = 0, []

    def modules(self):
        """By name, as they stand in `sys.modules`."""
        made = {name: types.ModuleType(name) for name in ("objc", "Foundation", "Metal", "MetalPerformanceShaders")}
        objc, foundation, metal, shaders = (vars(module) for module in made.values())
        for enum in SDK["enums"].values():
            shaders.update(enum)
        shaders.update({name: Class(self, name) for name in SDK["classes"]})
        foundation.update({name: Class(self, name) for name in ("NSData", "NSMutableArray")}, NSObject=NSObject)
        metal.update(
            MTLCreateSystemDefaultDevice=lambda: self.gpu,
            MTLTextureDescriptor=Class(self, "MTLTextureDescriptor"),
            MTLTextureType2DArray=3, MTLStorageModeShared=0, MTLTextureUsageShaderRead=1, MTLTextureUsageShaderWrite=2,
            MTLSizeMake=lambda *size: size, MTLRegionMake2D=lambda x, y, w, h: ((x, y, 0), (w, h, 1)),
        )  # fmt: skip
        objc.update(
            protocolNamed=lambda name: PROTOCOLS[name] and name, python_method=lambda method: method, super=super,
            nosuchclass_error=LookupError, lookUpClass=self._class, autorelease_pool=_Pool,
        )  # fmt: skip
        return made

    def _class(self, name):
        raise LookupError(name)

    def wrapped(self, thing):
        """The object that stands for one of mpsref's: the same each time."""
        if thing is None or isinstance(thing, NSObject | int | float | str):
            return thing
        if id(thing) not in self.things:
            self.things[id(thing)] = Thing(self, type(thing).__name__, thing)
        return self.things[id(thing)]

    def perform(self, receiver, name, values):
        """What a selector does, once its arguments are known to fit."""
        special = getattr(self, f"{receiver.kind}_{name}".rstrip("_"), None)
        if special is not None:
            return special(receiver, *values)
        if isinstance(receiver, Class) or name.startswith("initWith"):
            return self._made(receiver, name, values)
        if name.startswith("set") and name.endswith("_"):
            return self._set(receiver, name, values[0])
        if name == "init":
            receiver.__dict__["is_ready"] = True
            return receiver
        return self._got(receiver, name)

    # ---- nodes ----

    def _made(self, receiver, name, values):
        """An object whose constructor takes the selector's labels."""
        if name == "paddingForTensorflowAveragePooling":
            return self.wrapped(mps.MPSNNDefaultPadding.for_tensorflow_average_pooling())
        first, *rest = name.removesuffix("_").split("_")
        label = first.partition("With")[2]
        names = [snake(text) for text in (label[0].lower() + label[1:], *rest)]
        values = [np.frombuffer(v.thing, "<f4") if isinstance(v, Data) else getattr(v, "thing", v) for v in values]
        return self.wrapped(getattr(mps, receiver.kind)(**dict(zip(names, values, strict=True))))

    def _set(self, receiver, name, value):
        field = snake(name[3].lower() + name[4:-1])
        receiver.__dict__[field] = value
        if field == "format":
            value = mps.MPSImageFeatureChannelFormat(value)
        value = getattr(value, "thing", value)
        if hasattr(receiver.thing, field) and field != "image_allocator":
            setattr(receiver.thing, field, value)

    def _got(self, receiver, name):
        return self.wrapped(getattr(receiver.thing, snake(name)))

    def MPSNNNeuronDescriptor_cnnNeuronDescriptorWithType_a_b_c(self, _, kind, a, b, c):
        row = mps.NEURONS[mps.MPSCNNNeuronType(kind)]
        require(not row.per_channel, "pReLU has a factory of its own")
        given = dict(zip("abc", (a, b, c), strict=True))
        return self.wrapped(mps.MPSNNNeuronDescriptor(row.neuron_type, **{p: given[p] for p in row.parameters}))

    def MPSNNNeuronDescriptor_cnnNeuronPReLUDescriptorWithData_noCopy(self, _, data, no_copy):
        return self.wrapped(mps.MPSNNNeuronDescriptor("pReLU", data=np.frombuffer(data.thing, "<f4")))

    def NSData_dataWithBytes_length(self, _, data, length):
        require(len(data) == length, f"NSData of {length} bytes from {len(data)}")
        return Data(self, "NSData", bytes(data))

    def NSMutableArray_array(self, _):
        return MutableArray()

    # ---- images ----

    def MPSImage_defaultAllocator(self, _):
        return Thing(self, "MPSImageAllocator")

    def MPSImageDescriptor_imageDescriptorWithChannelFormat_width_height_featureChannels(self, _, kind, w, h, c):
        descriptor = mps.MPSImageDescriptor(
            channel_format=mps.MPSImageFeatureChannelFormat(kind), width=w, height=h, feature_channels=c
        )
        return Thing(self, "MPSImageDescriptor", descriptor)

    def MPSImage_initWithDevice_imageDescriptor(self, image, device, descriptor):
        image.__dict__.update(is_ready=True, thing=mps.MPSImage(image_descriptor=descriptor.thing), buffer=None)
        image.__dict__.update(is_written=False, is_temporary=False, is_synchronized=False, reads=0)
        return image

    def _result(self, thing, buffer, *, is_temporary):
        made = Thing(self, "MPSImage", thing, buffer=buffer, is_written=True, is_temporary=is_temporary)
        made.__dict__.update(is_synchronized=False, reads=int(is_temporary))
        buffer.images.append(made)
        return made

    def MPSImage_writeBytes_dataLayout_imageIndex(self, image, data, layout, index):
        require(image.buffer is None, "an image that the GPU writes is written by the CPU")
        image.thing.write_bytes(bytes(data), mps.MPSDataLayout(layout), index)
        image.__dict__["is_written"] = True

    def MPSImage_readBytes_dataLayout_imageIndex(self, image, data, layout, index):
        require(isinstance(data, bytearray), "what is read into cannot be written to")
        require(not image.is_temporary, "a temporary image is in memory that the CPU cannot read")
        if image.buffer is not None:
            require(
                image.buffer.state == "completed", "an image is used before its command buffer is committed and done"
            )
            require(image.is_synchronized, "an image is read that was not synchronized before the commit")
        wanted = image.thing.read_bytes(mps.MPSDataLayout(layout), index)
        require(len(data) == len(wanted), f"{len(data)} bytes for an image of {len(wanted)}")
        data[:] = wanted

    def MPSImage_synchronizeOnCommandBuffer(self, image, buffer):
        require(buffer.state == "open", "an image is synchronized after the commit")
        require(not image.is_temporary, "a temporary image cannot be synchronized")
        image.__dict__["is_synchronized"] = buffer is image.buffer

    def MPSImage_featureChannelFormat(self, image):
        return int(image.thing.feature_channel_format)

    # ---- graphs ----

    def MPSNNGraph_initWithDevice_resultImage_resultImageIsNeeded(self, graph, device, image, is_needed):
        made = mps.MPSNNGraph(result_image=image.thing)
        for node in [image, *map(self.wrapped, reached(image.thing))]:
            require("format" in node.__dict__, f"{node.thing.handle}: no format is set: MPS would choose one")
        for handle in made.source_image_handles:
            require(handle is not None and isinstance(handle.label(), str), "a source has no handle with a label")
        exported = [self.wrapped(node) for node in reached(image.thing) if node.export_from_graph]
        graph.__dict__.update(is_ready=True, thing=made, result=image, exported=exported)
        return graph

    def MPSNNGraph_setFormat(self, graph, value):
        graph.thing.format = mps.MPSImageFeatureChannelFormat(value)

    def MPSNNGraph_sourceImageHandles(self, graph):
        return tuple(graph.thing.source_image_handles)

    def MPSNNGraph_intermediateImageHandles(self, graph):
        return tuple(self._handles(graph)) or None

    def _handles(self, graph):
        """In an order of its own, which only handles tell; without that of the result."""
        return [h for h in graph.thing.intermediate_image_handles[::-1] if h is not graph.result.thing.handle]

    def MPSNNGraph_encodeBatchToCommandBuffer_sourceImages_sourceStates_intermediateImages_destinationStates(
        self, graph, buffer, batches, states, exported, destinations
    ):
        require(buffer.state == "open", "a graph is encoded after the commit")
        wanted = len(graph.thing.source_image_handles)
        require(len(batches) == wanted, f"index {len(batches)} beyond bounds: {wanted} sources")
        for batch in batches:
            for image in batch:
                require(image.is_written, "a source was never written")
        rest = []
        made = graph.thing.encode_batch(
            source_images=[[image.thing for image in batch] for batch in batches], intermediate_images=rest
        )
        by_handle = dict(zip(map(id, graph.thing.intermediate_image_handles), rest, strict=True))
        nodes = {id(node.thing.handle): node for node in graph.exported}
        result = [self._result(image, buffer, is_temporary=False) for image in made]
        if self.extra == "other":
            exported.append([self._result(image, buffer, is_temporary=False) for image in made])
        for handle in self._handles(graph):
            # Where nobody else made them, images that are exported are temporary, and somebody has to read them.
            is_temporary = "image_allocator" not in nodes[id(handle)].__dict__
            exported.append([self._result(i, buffer, is_temporary=is_temporary) for i in by_handle[id(handle)]])
        if self.extra == "result" or graph.result.thing.export_from_graph:
            exported.append(result)
        return result

    # ---- command buffers ----

    def MTLDevice_name(self, device):
        return "a stand-in"

    def MTLDevice_hasUnifiedMemory(self, device):
        return True

    def MTLDevice_newCommandQueue(self, device):
        return Thing(self, "MTLCommandQueue")

    def MTLCommandQueue_commandBuffer(self, queue):
        return Thing(self, "MTLCommandBuffer", state="open", images=[], encoder=None, work=[])

    def MTLCommandBuffer_commit(self, buffer):
        require(buffer.state == "open", "a command buffer is committed twice")
        require(buffer.encoder is None, "a command buffer is committed before endEncoding")
        unread = [image for image in buffer.images if image.reads]
        require(not unread, f"{len(unread)} temporary images have too few reads: their readCount is not 0")
        for work in buffer.work:
            work()
        buffer.__dict__["state"] = "committed"
        self.commits += 1

    def MTLCommandBuffer_waitUntilCompleted(self, buffer):
        require(buffer.state == "committed", "waiting for a command buffer that is not committed")
        buffer.__dict__["state"] = "completed"

    def MTLCommandBuffer_error(self, buffer):
        return None

    # ---- kernels ----

    def MTLDevice_newLibraryWithSource_options_error(self, device, text, options, error):
        try:
            names = msl.kernel_names(text)
            self.programs.append(Program(text, names, "kernel.metal"))
            return Thing(self, "MTLLibrary", self.programs[-1], names=names), None
        except mps.ImplementationError as problem:
            return None, str(problem)

    def MTLLibrary_newFunctionWithName(self, library, name):
        return Thing(self, "MTLFunction", library.thing, name=name) if name in library.names else None

    def MTLDevice_newComputePipelineStateWithFunction_error(self, device, function, error):
        return Thing(self, "MTLComputePipelineState", function.thing, name=function.name), None

    def MTLDevice_newBufferWithBytes_length_options(self, device, data, length, options):
        require(len(data) == length > 0, f"a buffer of {length} bytes from {len(data)}")
        return Thing(self, "MTLBuffer", np.frombuffer(bytes(data), np.uint8))

    def MTLBuffer_contents(self, buffer):
        return types.SimpleNamespace(as_buffer=lambda count: memoryview(buffer.thing.tobytes()[:count]))

    def MTLDevice_newTextureWithDescriptor(self, device, d):
        require(d.texture_type == 3 and d.storage_mode == 0 and d.usage == 3, "not a shared array to read and write")
        channels, bits, kind = re.fullmatch(r"(r|rg|rgba)(\d+)(\w+)", mps.MTLPixelFormat(d.pixel_format).name).groups()
        dtype = f"{'u' if kind == 'Unorm' else 'f'}{int(bits) // 8}"
        shape = (d.array_length, d.height, d.width, len(channels))
        return Thing(self, "MTLTexture", np.zeros(shape, dtype))

    def MTLTexture_replaceRegion_mipmapLevel_slice_withBytes_bytesPerRow_bytesPerImage(
        self, texture, region, level, index, data, row, image
    ):
        require(len(data) == texture.thing[index].nbytes == image, "a slice of another size")
        require(row * texture.thing.shape[1] == image, "rows of another size")
        texture.thing[index] = np.frombuffer(data, texture.thing.dtype).reshape(texture.thing[index].shape)

    def MTLTexture_getBytes_bytesPerRow_bytesPerImage_fromRegion_mipmapLevel_slice(
        self, texture, data, row, image, region, level, index
    ):
        require(isinstance(data, bytearray), "what is read into cannot be written to")
        require(len(data) == image == row * texture.thing.shape[1], "a slice of another size")
        data[:] = texture.thing[index].tobytes()

    def MTLTextureDescriptor_init(self, descriptor):
        descriptor.__dict__["is_ready"] = True
        return descriptor

    def MTLCommandBuffer_computeCommandEncoder(self, buffer):
        require(buffer.state == "open" and buffer.encoder is None, "an encoder is open, or the buffer is committed")
        buffer.__dict__["encoder"] = Thing(
            self, "MTLComputeCommandEncoder", buffer, pipeline=None, buffers={}, textures={}, shared={}
        )
        return buffer.encoder

    def MTLComputeCommandEncoder_setComputePipelineState(self, encoder, pipeline):
        encoder.__dict__["pipeline"] = pipeline

    def MTLComputeCommandEncoder_setBuffer_offset_atIndex(self, encoder, buffer, offset, index):
        encoder.buffers[index] = buffer

    def MTLComputeCommandEncoder_setTexture_atIndex(self, encoder, texture, index):
        encoder.textures[index] = texture

    def MTLComputeCommandEncoder_setThreadgroupMemoryLength_atIndex(self, encoder, length, index):
        encoder.shared[index] = length

    def MTLComputeCommandEncoder_dispatchThreads_threadsPerThreadgroup(self, encoder, grid, group):
        require(encoder.pipeline is not None, "dispatch without a pipeline")
        program, name = encoder.pipeline.thing, encoder.pipeline.name
        bound = {"texture": encoder.textures, "pointer": encoder.buffers, "reference": encoder.buffers}
        for argument in program.kernels[name].arguments:
            places = bound.get(argument.kind)
            require(places is None or argument.index in places, f"nothing is bound to {argument.place}")

        def run():
            work = Work(
                grid, group, *({i: t.thing for i, t in each.items()} for each in (encoder.buffers, encoder.textures))
            )
            work.shared = dict(encoder.shared)
            program.run(name, work)
            for things, arrays in ((encoder.buffers, work.buffers), (encoder.textures, work.textures)):
                for index, thing in things.items():
                    thing.__dict__["thing"] = arrays[index]

        encoder.thing.work.append(run)

    def MTLComputeCommandEncoder_endEncoding(self, encoder):
        encoder.thing.__dict__["encoder"] = None


class _Pool:
    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None


def reached(image):
    """Every image node that a result depends on, and itself."""
    seen, waiting = [], [image]
    while waiting:
        node = waiting.pop()
        if all(node is not other for other in seen):
            seen.append(node)
            waiting += node.producer.sources if node.producer is not None else ()
    return seen
