"""Kernels in WGSL on a GPU, or on a driver that computes on the processor, through ``wgpu``: the extra ``gpu``."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mpsref.arrays import Stored
from mpsref.errors import DependencyError, ImplementationError, ParameterError
from mpsref.image import MPSImage, MPSImageDescriptor
from mpsref.lab.cpu import Work
from mpsref.lab.kernels import kernel_of, text
from mpsref.lab.languages import BINDINGS, GROUP, TEXELS, Kernel, Style
from mpsref.lab.msl import Argument, Field
from mpsref.lab.wgsl import Module
from mpsref.lab.work import elements_of, empty_image, image_of, parameters_of, read_by_name, slopes_of, uniform_style
from mpsref.operations import Operation

__all__ = ["WebGPU", "WebProgram", "adapters", "described_adapter"]

BACKENDS = ("Metal", "Vulkan", "D3D12")
"""Not OpenGL, whose adapters have no half type."""

MOST_GROUPS = 65_535
"""Of one dimension, on every adapter."""

LONGEST_ERROR = 600

LIMITS = (
    "max-storage-buffer-binding-size", "max-buffer-size", "max-texture-array-layers", "max-texture-dimension-2d",
)  # fmt: skip
CORE = {"rgba8unorm", "rgba16float", "r32float", "rg32float", "rgba32float"}
"""The formats that every adapter can store to."""

IMAGES_OF = {"float16": "float16", "float32": "float32", "uint8": "unorm8", "uint16": "unorm16"}
"""The storage format of images, by the dtype of their components."""


def _wgpu() -> Any:
    if sys.platform == "linux" and "XDG_RUNTIME_DIR" not in os.environ:
        # Without it Mesa complains each time.
        os.environ["XDG_RUNTIME_DIR"] = tempfile.gettempdir()
    try:
        # Here, because the package is an extra.
        import wgpu  # noqa: PLC0415
    except ImportError as error:
        raise DependencyError(f"wgpu cannot be imported ({error}): install mpsref[gpu]") from None
    return wgpu


def adapters() -> list[Any]:
    """
    The adapters that can be used, in their own order.

    Raises
    ------
    DependencyError
        The package ``wgpu`` is missing.
    """
    return [one for one in _wgpu().gpu.enumerate_adapters_sync() if one.info["backend_type"] in BACKENDS]


def described_adapter(adapter: Any) -> str:
    """Name, driver and interface of an adapter."""
    info = adapter.info
    return ", ".join(filter(None, (info["device"], info["description"], info["backend_type"])))


class WebGPU:
    """
    Runs our own kernels, and those of a file.

    Parameters
    ----------
    adapter : str
        Part of the description of an adapter; default: the first.
    memory : str or None
        ``buffers`` or ``textures``; default: buffers, where all images of a node have one floating-point format.

    Attributes
    ----------
    device : str
        What runs the kernels.
    wgpu, gpu : object
        The package, and its device.

    Raises
    ------
    DependencyError
        The package or an adapter is missing.
    ParameterError
        No adapter has such a description.
    """

    def __init__(self, adapter: str = "", memory: str | None = None) -> None:
        self.wgpu, self._memory = _wgpu(), memory
        known = adapters()
        if not known:
            raise DependencyError("no adapter of Vulkan, Metal or Direct3D 12: on Linux install mesa-vulkan-drivers")
        matching = [one for one in known if adapter.lower() in described_adapter(one).lower()]
        if not matching:
            raise ParameterError(f"adapter {adapter!r}: none of {'; '.join(map(described_adapter, known))}")
        chosen = matching[0]
        wanted = ("shader-f16", "texture-format16bit-norm", "texture-adapter-specific-format-features")
        features = [feature for feature in wanted if feature in chosen.features]
        limits = {name: chosen.limits[name] for name in LIMITS}
        self.gpu = chosen.request_device_sync(required_features=features, required_limits=limits)
        self.device = f"{described_adapter(chosen)}, wgpu {self.wgpu.__version__}"
        self._programs: dict[tuple[Kernel, Style], WebProgram] = {}

    def run(self, operation: Operation, sources: Sequence[MPSImage], result: MPSImageDescriptor) -> MPSImage:
        """
        The result of an operation.

        Raises
        ------
        ImplementationError
            The adapter lacks what is needed, or its limits are too low.
        """
        images = read_by_name(operation, sources)
        style = uniform_style(images, result, self._memory)
        kernel = kernel_of(operation, style)
        if (kernel, style) not in self._programs:
            self._programs[kernel, style] = self.program(text([kernel], "wgsl", style), [kernel.name], self.device)
        out = empty_image(result)
        work, place = Work(_grid(style, out), (1, 1, 1)), BINDINGS["result"]
        bound = {BINDINGS[name]: image for name, image in (*images.items(), ("result", out))}
        if style.memory == "textures":
            work.textures = {index: image.texture for index, image in bound.items()}
        else:
            work.buffers = {index: elements_of(image) for index, image in bound.items()}
        work.buffers[BINDINGS["parameters"]] = np.frombuffer(parameters_of(operation, result), np.uint8)
        if kernel.per_channel:
            work.buffers[BINDINGS["slopes"]] = slopes_of(operation)
        self._programs[kernel, style].run(kernel.name, work)
        return image_of((work.textures if style.memory == "textures" else work.buffers)[place], result, style)

    def program(
        self,
        text: str,
        names: Sequence[str],
        where: str,
        *,
        folder: Path | None = None,
        constants: Mapping[str, str] | None = None,
    ) -> WebProgram:
        """Kernels of a text, compiled, as by `mpsref.lab.cpu.Program`; `constants` are values of its overrides."""
        del folder  # WGSL includes nothing
        needed = {"shader-f16"} if re.search(r"\benable\s+f16\b", text) else set[str]()
        for texel in re.findall(r"texture_storage_\w+\s*<\s*(\w+)", text):
            needed |= features_of(texel, stores=True)
        self.require(needed, where)
        numbers = {name: float(value) for name, value in (constants or {}).items()}
        return WebProgram(self, text, names, where, numbers)

    def require(self, features: Iterable[str], where: str) -> None:
        """Refuse what the adapter cannot do, in one line."""
        if missing := sorted(set(features) - {*self.gpu.features}):
            fix = "use textures" if missing == ["shader-f16"] else "use buffers, or another format"
            raise ImplementationError(f"{where}: {self.device} has no {', '.join(missing)}: {fix}")

    @contextlib.contextmanager
    def errors(self, where: str, fix: str) -> Iterator[None]:
        """Errors of the adapter in one line."""
        try:
            yield
        except (self.wgpu.GPUError, ValueError) as error:
            said = re.sub(r"^Validation Error Caused by: In \w+ ", "", " ".join(str(error).split()))
            raise ImplementationError(f"{where}: {said[:LONGEST_ERROR]}{fix}") from None


class WebProgram:
    """
    Kernels in WGSL, compiled.

    Parameters
    ----------
    device : WebGPU
        What runs them.
    text : str
        Of a file.
    names : sequence of str
        The kernels.
    where : str
        The file's name for errors.
    numbers : Mapping of str to float
        Values of the text's overrides, and others.

    Attributes
    ----------
    kernels : dict of str to Kernel
        By name.

    Raises
    ------
    ImplementationError
        It does not compile, a kernel is missing, or uses what is not supported.
    """

    def __init__(
        self, device: WebGPU, text: str, names: Sequence[str], where: str, numbers: Mapping[str, float]
    ) -> None:
        self._device, self._where = device, where
        try:
            self._module = Module(text)
            self.kernels = {name: self._module.kernel(name) for name in names}
            constants = self._module.constants(numbers)
        except ImplementationError as error:
            raise ImplementationError(f"{where}: {error}") from None
        self._layouts = {name: self._module.layouts(kernel) for name, kernel in self.kernels.items()}
        gpu, visible = device.gpu, device.wgpu.ShaderStage.COMPUTE
        self._pipelines: dict[str, tuple[Any, Any]] = {}
        with device.errors(f"{where}: does not compile", ""):
            module = gpu.create_shader_module(code=text)
            for name, bound in self._layouts.items():
                entries = [{"binding": index, "visibility": visible, **kind} for index, kind in bound.items()]
                layout = gpu.create_bind_group_layout(entries=entries)
                compute = {"module": module, "entry_point": name, "constants": constants}
                whole = gpu.create_pipeline_layout(bind_group_layouts=[layout])
                self._pipelines[name] = gpu.create_compute_pipeline(layout=whole, compute=compute), layout

    def close(self) -> None:
        """Nothing is left on disk."""

    def fields_of(self, name: str) -> tuple[tuple[Field, ...], int]:
        """The fields and the size of a parameter."""
        return self._module.fields_of(name)

    def run(self, name: str, work: Work, limits: object = None) -> None:
        """
        Run a kernel; the arrays of `work` then hold what it has left. The size of a workgroup is that of the text.

        Raises
        ------
        ImplementationError
            An image does not fit its texture, or what is needed is beyond the limits of the adapter.
        """
        gpu, kernel, where = self._device.gpu, self.kernels[name], f"{self._where}: {name}"
        groups = [-(-threads // each) for threads, each in zip(work.grid, self._module.group(kernel), strict=True)]
        if max(groups) > MOST_GROUPS:
            raise ImplementationError(
                f"{where}: needs {max(groups):,} workgroups in one direction, of which there are {MOST_GROUPS:,}: give "
                "a smaller shape, or --grid X,Y,Z as its callers do"
            )
        with self._device.errors(where, ": try a smaller shape, or another format"):
            kinds = self._layouts[name]
            made = {one.index: self._resource(one, kinds[one.index], work, where) for one in kernel.arguments}
            pipeline, layout = self._pipelines[name]
            entries = [{"binding": index, "resource": resource} for index, (resource, _) in made.items()]
            encoder = gpu.create_command_encoder()
            commands = encoder.begin_compute_pass()
            commands.set_pipeline(pipeline)
            commands.set_bind_group(0, gpu.create_bind_group(layout=layout, entries=entries))
            commands.dispatch_workgroups(*groups)
            commands.end()
            gpu.queue.submit([encoder.finish()])
            for index, (_, source) in made.items():
                kind = kinds[index]
                if kind.get("buffer", {}).get("type") == "storage":
                    like = work.buffers[index]
                    stored = np.frombuffer(gpu.queue.read_buffer(source), np.uint8)[: like.nbytes]
                    work.buffers[index] = stored.copy().view(like.dtype)
                elif "storage_texture" in kind and kind["storage_texture"]["access"] != "read-only":
                    work.textures[index] = self._texels(source, work.textures[index])

    # ---- memory ----

    def _resource(self, argument: Argument, kind: Mapping[str, Any], work: Work, where: str) -> tuple[Any, Any]:
        """What is bound for an argument, and the buffer or texture of it."""
        gpu, use = self._device.gpu, self._device.wgpu.BufferUsage
        if argument.kind == "sampler":
            sampler = gpu.create_sampler()
            return sampler, sampler
        bound = work.textures if argument.kind == "texture" else work.buffers
        if argument.index not in bound:
            raise ImplementationError(f"{where}: nothing is bound to {argument.place}, {argument}")
        if argument.kind == "texture":
            return self._texture(work.textures[argument.index], kind, f"{where}: {argument.place}, {argument}")
        raw = work.buffers[argument.index].tobytes()
        usage = use.UNIFORM if kind["buffer"]["type"] == "uniform" else use.STORAGE | use.COPY_SRC
        buffer = gpu.create_buffer_with_data(data=raw + bytes(-len(raw) % 16), usage=usage)
        return {"buffer": buffer}, buffer

    def _texture(self, stored: Stored, kind: Mapping[str, Any], where: str) -> tuple[Any, Any]:
        """A view of a texture array, filled."""
        use, (slices, height, width, components) = self._device.wgpu.TextureUsage, stored.shape
        texel = TEXELS[IMAGES_OF[stored.dtype.name]][components]
        layout = kind.get("storage_texture") or kind["texture"]
        if layout.get("format", texel) != texel:
            raise ImplementationError(f"{where}: the image is {texel}: declare it so, or set its format in the graph")
        if layout["view_dimension"] == "2d" and slices > 1:
            raise ImplementationError(
                f"{where}: the image has {slices} slices of four channels: give texture_2d_array, or fewer channels"
            )
        self._device.require(features_of(texel, stores="format" in layout), where)
        bound = use.STORAGE_BINDING if "format" in layout else use.TEXTURE_BINDING
        texture = self._device.gpu.create_texture(
            size=(width, height, slices), format=texel, usage=bound | use.COPY_SRC | use.COPY_DST
        )
        where_, how = _copy(texture, stored)
        self._device.gpu.queue.write_texture(where_, np.ascontiguousarray(stored), how, (width, height, slices))
        return texture.create_view(dimension=layout["view_dimension"]), texture

    def _texels(self, texture: Any, like: Stored) -> Stored:
        slices, height, width, _ = like.shape
        data = self._device.gpu.queue.read_texture(*_copy(texture, like), (width, height, slices))
        return np.frombuffer(data, like.dtype).reshape(like.shape).copy()


def features_of(texel: str, *, stores: bool) -> set[str]:
    """The features that a texture format needs."""
    needed = {"texture-format16bit-norm"} if texel.endswith("16unorm") else set[str]()
    return needed | ({"texture-adapter-specific-format-features"} if stores and texel not in CORE else set())


def _copy(texture: Any, stored: Stored) -> tuple[dict[str, Any], dict[str, Any]]:
    """The whole of a texture, and its layout in memory."""
    _, height, width, components = stored.shape
    layout = {"offset": 0, "bytes_per_row": width * components * stored.itemsize, "rows_per_image": height}
    return {"texture": texture, "mip_level": 0, "origin": (0, 0, 0)}, layout


def _grid(style: Style, out: MPSImage) -> tuple[int, int, int]:
    if style.memory == "textures":
        slices, height, width, _ = out.texture.shape
        return width, height, slices
    groups = -(-elements_of(out).size // GROUP)
    wide = min(groups, MOST_GROUPS)
    return wide * GROUP, -(-groups // wide), 1
