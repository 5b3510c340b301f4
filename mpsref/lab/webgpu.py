"""Our own kernels on a GPU, or on a driver that computes on the processor, through ``wgpu``: the extra ``gpu``."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mpsref.arrays import Stored
from mpsref.errors import DependencyError, ImplementationError, ParameterError
from mpsref.image import MPSImage, MPSImageDescriptor
from mpsref.lab.kernels import kernel_of, text
from mpsref.lab.languages import BINDINGS, GROUP, TEXELS, TILE, Kernel, Style
from mpsref.lab.work import elements_of, empty_image, image_of, parameters_of, read_by_name, slopes_of, uniform_style
from mpsref.operations import Operation

__all__ = ["WebGPU", "adapters"]

BACKENDS = ("Metal", "Vulkan", "D3D12")
"""Not OpenGL, whose adapters have no half type."""

MOST_GROUPS = 32_768
"""Of one dimension: any adapter has 65,535."""

LIMITS = (
    "max-storage-buffer-binding-size", "max-buffer-size", "max-texture-array-layers", "max-texture-dimension-2d",
)  # fmt: skip
CORE = {"rgba8unorm", "rgba16float", "r32float", "rg32float", "rgba32float"}
"""The formats that every adapter can store to."""


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
    Runs our own kernels.

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

    Raises
    ------
    DependencyError
        The package or an adapter is missing.
    ParameterError
        No adapter has such a description.
    """

    def __init__(self, adapter: str = "", memory: str | None = None) -> None:
        self._wgpu, self._memory = _wgpu(), memory
        known = adapters()
        if not known:
            raise DependencyError("no adapter of Vulkan, Metal or Direct3D 12: on Linux install mesa-vulkan-drivers")
        matching = [one for one in known if adapter.lower() in described_adapter(one).lower()]
        if not matching:
            raise ParameterError(f"adapter {adapter!r}: none of {'; '.join(map(described_adapter, known))}")
        self._adapter = matching[0]
        wanted = ("shader-f16", "texture-format16bit-norm", "texture-adapter-specific-format-features")
        self._features = [feature for feature in wanted if feature in self._adapter.features]
        limits = {name: self._adapter.limits[name] for name in LIMITS}
        self._device = self._adapter.request_device_sync(required_features=self._features, required_limits=limits)
        self.device = f"{described_adapter(self._adapter)}, wgpu {self._wgpu.__version__}"
        self._pipelines: dict[tuple[Kernel, Style], tuple[Any, Any]] = {}

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
        with self._errors(kernel.name):
            return self._run(kernel, style, images, result, operation)

    @contextlib.contextmanager
    def _errors(self, name: str) -> Iterator[None]:
        try:
            yield
        except self._wgpu.GPUError as error:
            said = " ".join(str(error).split())[:400]
            raise ImplementationError(f"{self.device}: {name}: {said}: try a smaller shape, or other memory") from None

    def _run(
        self,
        kernel: Kernel,
        style: Style,
        images: Mapping[str, MPSImage],
        result: MPSImageDescriptor,
        operation: Operation,
    ) -> MPSImage:
        device, use = self._device, self._wgpu.BufferUsage
        pipeline, layout = self._pipeline(kernel, style)
        out = empty_image(result)
        resources: dict[str, Any] = {}
        keep: list[Any] = []
        for name, image in images.items():
            made = self._texture(image) if style.memory == "textures" else self._buffer(elements_of(image))
            resources[name], one = made
            keep.append(one)
        if style.memory == "textures":
            resources["result"], target = self._texture(out)
        else:
            resources["result"], target = self._buffer(elements_of(out))
        if kernel.per_channel:
            resources["slopes"], slopes = self._buffer(slopes_of(operation))
            keep.append(slopes)
        uniform = device.create_buffer_with_data(data=parameters_of(operation, result), usage=use.UNIFORM)
        resources["parameters"] = {"buffer": uniform}
        entries = [{"binding": BINDINGS[name], "resource": each} for name, each in resources.items()]
        group = device.create_bind_group(layout=layout, entries=entries)
        encoder = device.create_command_encoder()
        work = encoder.begin_compute_pass()
        work.set_pipeline(pipeline)
        work.set_bind_group(0, group)
        work.dispatch_workgroups(*_groups(style, out))
        work.end()
        device.queue.submit([encoder.finish()])
        if style.memory == "textures":
            return image_of(self._texels(target, out.texture), result, style)
        stored = elements_of(out)
        data = device.queue.read_buffer(target)
        return image_of(np.frombuffer(data, stored.dtype)[: stored.size].copy(), result, style)

    def _pipeline(self, kernel: Kernel, style: Style) -> tuple[Any, Any]:
        key = kernel, style
        if key not in self._pipelines:
            self._require(style)
            device = self._device
            layout = device.create_bind_group_layout(entries=self._bindings(kernel, style))
            self._pipelines[key] = (
                device.create_compute_pipeline(
                    layout=device.create_pipeline_layout(bind_group_layouts=[layout]),
                    compute={
                        "module": device.create_shader_module(code=text([kernel], "wgsl", style)),
                        "entry_point": kernel.name,
                    },
                ),
                layout,
            )
        return self._pipelines[key]

    def _require(self, style: Style) -> None:
        """Refuse what the adapter cannot do, in one line."""
        needed = set()
        if style.memory == "buffers" and style.storage == "float16":
            needed.add("shader-f16")
        if style.memory == "textures" and style.storage == "unorm16":
            needed.add("texture-format16bit-norm")
        if style.memory == "textures" and TEXELS[style.storage][style.components] not in CORE:
            needed.add("texture-adapter-specific-format-features")
        if missing := sorted(needed - {*self._features}):
            other = "textures" if style.memory == "buffers" else "buffers, or another format"
            raise ImplementationError(f"{self.device}: has no {', '.join(missing)}: use {other}")

    def _bindings(self, kernel: Kernel, style: Style) -> list[dict[str, Any]]:
        visible = self._wgpu.ShaderStage.COMPUTE
        image: dict[str, Any] = {"buffer": {"type": "read-only-storage"}}
        result: dict[str, Any] = {"buffer": {"type": "storage"}}
        if style.memory == "textures":
            image = {"texture": {"sample_type": "unfilterable-float", "view_dimension": "2d-array"}}
            texel = TEXELS[style.storage][style.components]
            result = {"storage_texture": {"access": "write-only", "format": texel, "view_dimension": "2d-array"}}
        kinds = dict.fromkeys(kernel.images, image)
        kinds |= {"slopes": {"buffer": {"type": "read-only-storage"}}} if kernel.per_channel else {}
        kinds |= {"result": result, "parameters": {"buffer": {"type": "uniform"}}}
        return [{"binding": BINDINGS[name], "visibility": visible, **kind} for name, kind in kinds.items()]

    # ---- memory ----

    def _buffer(self, elements: Stored) -> tuple[Any, Any]:
        """A resource and its buffer, with a size that is a multiple of 4."""
        use, raw = self._wgpu.BufferUsage, elements.tobytes()
        data = raw + bytes(-len(raw) % 4)
        buffer = self._device.create_buffer_with_data(data=data, usage=use.STORAGE | use.COPY_SRC)
        return {"buffer": buffer}, buffer

    def _texture(self, image: MPSImage) -> tuple[Any, Any]:
        """A view and its texture array, filled."""
        stored, use = image.texture, self._wgpu.TextureUsage
        slices, height, width, components = stored.shape
        texture = self._device.create_texture(
            size=(width, height, slices),
            format=TEXELS[image.storage.name][components],
            usage=use.STORAGE_BINDING | use.TEXTURE_BINDING | use.COPY_SRC | use.COPY_DST,
        )
        self._device.queue.write_texture(
            {"texture": texture, "mip_level": 0, "origin": (0, 0, 0)},
            np.ascontiguousarray(stored),
            {"offset": 0, "bytes_per_row": width * components * stored.itemsize, "rows_per_image": height},
            (width, height, slices),
        )
        return texture.create_view(dimension="2d-array"), texture

    def _texels(self, texture: Any, like: Stored) -> Stored:
        slices, height, width, components = like.shape
        data = self._device.queue.read_texture(
            {"texture": texture, "mip_level": 0, "origin": (0, 0, 0)},
            {"offset": 0, "bytes_per_row": width * components * like.itemsize, "rows_per_image": height},
            (width, height, slices),
        )
        return np.frombuffer(data, like.dtype).reshape(like.shape).copy()


def _groups(style: Style, out: MPSImage) -> tuple[int, int, int]:
    if style.memory == "textures":
        slices, height, width, _ = out.texture.shape
        return -(-width // TILE), -(-height // TILE), slices
    groups = -(-elements_of(out).size // GROUP)
    wide = min(groups, MOST_GROUPS)
    return wide, -(-groups // wide), 1
