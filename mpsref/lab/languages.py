"""WGSL, MSL, CUDA C++ and GLSL: whole kernels on buffers or textures."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from mpsref.errors import ParameterError
from mpsref.lab.expressions import FLOAT16, FLOAT32, Dialect, Function

__all__ = ["GROUP", "LANGUAGES", "Kernel", "Language", "Style"]

GROUP, TILE = 64, 8
"""Threads of a group: of a kernel on buffers, and along both axes of one on textures."""

IMAGES = ("source", "gradient", "secondary")
"""What a kernel may read, in the order of its arguments."""

NUMBERS = {"source": "x", "gradient": "dy", "secondary": "y"}
"""The name of an element of each."""

LANES = "rgba"


@dataclass(frozen=True)
class Style:
    """
    How kernels are written.

    Attributes
    ----------
    memory : str
        ``buffers`` of elements in the order of a recording's files, or ``textures``, slices of four channels.
    storage : str
        Format of images: ``float16`` or ``float32``, textures ``unorm8`` or ``unorm16`` as well.
    arithmetic : str
        ``float32`` or ``float16``.
    components : int
        Of a texel of the result: 4, or the feature channels, if there are 1 or 2.
    """

    memory: str = "buffers"
    storage: str = FLOAT32
    arithmetic: str = FLOAT32
    components: int = 4

    @property
    def loads(self) -> str:
        """The kind of number that is read and written."""
        return FLOAT16 if self.storage == FLOAT16 else FLOAT32


@dataclass(frozen=True)
class Kernel:
    """
    A kernel: a function of elements.

    Attributes
    ----------
    name : str
        Of the kernel.
    function : Function
        The value of an element.
    images : tuple of str
        What it reads, of `IMAGES`, in that order.
    per_channel : bool
        Whether the function's last argument is the slope of the channel.
    """

    name: str
    function: Function
    images: tuple[str, ...]
    per_channel: bool


class Language(Dialect):
    """A language in which kernels are written."""

    def refuse(self, style: Style) -> None:
        """
        Refuse what the language has not.

        Raises
        ------
        ParameterError
            It names the option.
        """
        if style.memory == "buffers" and style.storage.startswith("unorm"):
            raise ParameterError(f"format {style.storage}: of textures only: give float16 or float32, or textures")

    @abstractmethod
    def preamble(self, style: Style, kernels: Sequence[Kernel]) -> list[str]:
        """What comes before helpers and functions."""

    @abstractmethod
    def buffers(self, kernel: Kernel, style: Style) -> str:
        """The kernel on buffers."""

    @abstractmethod
    def textures(self, kernel: Kernel, style: Style) -> str:
        """The kernel on textures."""

    def module(self, kernels: Sequence[Kernel], style: Style) -> str:
        """The text of several kernels."""
        functions = [kernel.function for kernel in kernels]
        write = self.buffers if style.memory == "buffers" else self.textures
        parts = [*self.preamble(style, kernels), *self.helpers(functions)]
        if style.memory == "textures" and any(kernel.per_channel for kernel in kernels):
            parts.append(self.lane())
        for kernel in kernels:
            parts += [self.function(kernel.function), self.entry(kernel, write(kernel, style), len(kernels))]
        return "\n".join(parts)

    def entry(self, kernel: Kernel, text: str, count: int) -> str:
        """The text of one of several kernels."""
        return text

    @abstractmethod
    def lane(self) -> str:
        """A helper: the feature channel of a component of a slice, at most the last."""

    # ---- shared ----

    def applied(self, kernel: Kernel, numbers: Sequence[str], slope: str) -> str:
        """A call of the function."""
        arguments = [*numbers, *([slope] if kernel.per_channel else [])]
        return f"{kernel.function.name}({', '.join([*arguments, *self.passed(kernel.function)])})"

    def passed(self, function: Function) -> list[str]:
        """What a call passes for the parameters."""
        return ["p"] if function.has_parameters else []

    def element(self, kernel: Kernel, style: Style) -> str:
        """The value at the flat index ``i`` of buffers, as it is stored."""
        numbers = [self.between(f"{image}[i]", style.loads, style.arithmetic) for image in kernel.images]
        slope = self.between("slopes[i % p.channels]", FLOAT32, style.arithmetic)
        return self.between(self.applied(kernel, numbers, slope), style.arithmetic, style.loads)

    def texel(self, kernel: Kernel, style: Style) -> list[str]:
        """The values of the four components of a texel."""
        texts = []
        for k, lane in enumerate(LANES):
            numbers = [self.between(f"{NUMBERS[image]}.{lane}", FLOAT32, style.arithmetic) for image in kernel.images]
            slope = self.between(f"slopes[lane_(at.z, {k}u, p.channels)]", FLOAT32, style.arithmetic)
            texts.append(self.between(self.applied(kernel, numbers, slope), style.arithmetic, FLOAT32))
        return texts

    def between(self, text: str, kind: str, wanted: str) -> str:
        """A number of one kind as another."""
        return text if kind == wanted else self.converted(text, wanted)


def _listed(lines: Sequence[str]) -> str:
    return ",\n".join(f"    {line}" for line in lines)


def _each(template: str, names: Sequence[str]) -> str:
    return "".join(template.format(name=name, number=NUMBERS[name]) for name in names)


def _sources(kernels: Sequence[Kernel]) -> list[str]:
    return [image for image in IMAGES if any(image in kernel.images for kernel in kernels)]


BINDINGS = {"source": 0, "gradient": 1, "secondary": 2, "slopes": 3, "result": 4, "parameters": 5}
"""Of WGSL and GLSL, the same for all kernels."""

TEXELS = {
    storage: {count: "rgba"[:count] + kind for count in (1, 2, 4)}
    for storage, kind in {
        "float16": "16float", "float32": "32float", "unorm8": "8unorm", "unorm16": "16unorm"
    }.items()
}  # fmt: skip
"""Texture formats of WebGPU, by the number of components."""

_FIELDS = """\
  float a, b, c;  // of the neuron
  uint channels;  // of an image
  uint size;      // elements of all images
"""


class WGSL(Language):
    """Of WebGPU."""

    name, suffix = "wgsl", ".wgsl"
    scalars = MappingProxyType({FLOAT32: "f32", FLOAT16: "f16"})
    literals = MappingProxyType({FLOAT32: "{}", FLOAT16: "{}h"})
    functions = MappingProxyType(dict.fromkeys((FLOAT32, FLOAT16), MappingProxyType(
        {"smaller": "min", "larger": "max", "erf": "erf_", "pow": "power_", "pow_of_size": "pow"}
    )))  # fmt: skip
    local = "let {name} = {value};"

    def refuse(self, style: Style) -> None:
        super().refuse(style)
        if self.math:
            raise ParameterError(f"math {self.math}: WGSL has one kind of functions: leave it out")

    def head(self, function: Function) -> str:
        t = self.scalars[function.kind]
        return f"fn {function.name}({', '.join(f'{name}: {t}' for name in function.arguments)}) -> {t}"

    def nan(self, x: str) -> str:
        # A constant NaN does not compile.
        return f"bitcast<f32>(0x7fc00000u | (bitcast<u32>({x}) & 1u))"

    def choice(self, condition: str, yes: str, no: str) -> str:
        return f"select({no}, {yes}, {condition})"

    def passed(self, function: Function) -> list[str]:
        return []

    def preamble(self, style: Style, kernels: Sequence[Kernel]) -> list[str]:
        lines = []
        half_buffers = style.memory == "buffers" and style.storage == FLOAT16
        if half_buffers or style.arithmetic == FLOAT16:
            lines += ["enable f16;", ""]
        lines += [
            "struct Parameters {",
            "  a: f32, b: f32, c: f32,  // of the neuron",
            "  channels: u32,           // of an image",
            "  size: u32,               // elements of all images",
            "}",
            "",
        ]
        stored = self.scalars[style.loads]
        for name in _sources(kernels):
            kind = "texture_2d_array<f32>" if style.memory == "textures" else f"array<{stored}>"
            space = "" if style.memory == "textures" else "<storage, read>"
            lines.append(f"@group(0) @binding({BINDINGS[name]}) var{space} {name}: {kind};")
        if any(kernel.per_channel for kernel in kernels):
            lines.append(f"@group(0) @binding({BINDINGS['slopes']}) var<storage, read> slopes: array<f32>;")
        if style.memory == "textures":
            texel = TEXELS[style.storage][style.components]
            kind, space = f"texture_storage_2d_array<{texel}, write>", ""
        else:
            kind, space = f"array<{stored}>", "<storage, read_write>"
        lines += [
            f"@group(0) @binding({BINDINGS['result']}) var{space} result: {kind};",
            f"@group(0) @binding({BINDINGS['parameters']}) var<uniform> p: Parameters;",
            "",
        ]
        return ["\n".join(lines)]

    def lane(self) -> str:
        return """\
// The feature channel of component k of slice z.
fn lane_(z: u32, k: u32, channels: u32) -> u32 {
  return min(z % ((channels + 3u) / 4u) * 4u + k, channels - 1u);
}
"""

    def buffers(self, kernel: Kernel, style: Style) -> str:
        return f"""\
@compute @workgroup_size({GROUP})
fn {kernel.name}(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {{
  let i = id.x + id.y * groups.x * {GROUP}u;
  if (i >= p.size) {{ return; }}
  result[i] = {self.element(kernel, style)};
}}
"""

    def textures(self, kernel: Kernel, style: Style) -> str:
        loads = _each("  let {number} = textureLoad({name}, at.xy, at.z, 0);\n", kernel.images)
        values = ",\n    ".join(self.texel(kernel, style))
        return f"""\
@compute @workgroup_size({TILE}, {TILE})
fn {kernel.name}(@builtin(global_invocation_id) at: vec3u) {{
  if (any(at.xy >= textureDimensions(result)) || at.z >= textureNumLayers(result)) {{ return; }}
{loads}  textureStore(result, at.xy, at.z, vec4f(
    {values}));
}}
"""


class MSL(Language):
    """The Metal Shading Language."""

    name, suffix = "msl", ".metal"
    scalars = MappingProxyType({FLOAT32: "float", FLOAT16: "half"})
    literals = MappingProxyType({FLOAT32: "{}f", FLOAT16: "{}h"})
    functions = MappingProxyType(dict.fromkeys((FLOAT32, FLOAT16), MappingProxyType(
        {"smaller": "min", "larger": "max", "abs": "fabs", "erf": "erf_", "pow": "power_", "pow_of_size": "pow"}
    )))  # fmt: skip

    def refuse(self, style: Style) -> None:
        super().refuse(style)
        if self.math and style.arithmetic == FLOAT16:
            raise ParameterError(f"math {self.math}: half has one kind of functions: leave it out, or compute in float")

    def call(self, operation: str, kind: str) -> str:
        if operation == "pow" and self.math == "precise":
            return "precise::pow"  # with the special values of IEEE 754
        name = super().call(operation, kind)
        varies = operation in {"exp", "log", "tanh", "pow_of_size"}
        return f"{self.math}::{name}" if self.math and varies else name

    def head(self, function: Function) -> str:
        t = self.scalars[function.kind]
        arguments = [f"{t} {name}" for name in function.arguments]
        arguments += ["constant Parameters &p"] if function.has_parameters else []
        return f"static inline {t} {function.name}({', '.join(arguments)})"

    def nan(self, x: str) -> str:
        return "as_type<float>(0x7fc00000u)"

    def preamble(self, style: Style, kernels: Sequence[Kernel]) -> list[str]:
        return [f"#include <metal_stdlib>\nusing namespace metal;\n\nstruct Parameters {{\n{_FIELDS}}};\n"]

    def lane(self) -> str:
        return """\
// The feature channel of component k of slice z.
static inline uint lane_(uint z, uint k, uint channels) {
  return min(z % ((channels + 3) / 4) * 4 + k, channels - 1);
}
"""

    def buffers(self, kernel: Kernel, style: Style) -> str:
        t = self.scalars[style.loads]
        items = [f"device const {t} *{image}" for image in kernel.images]
        items += ["device const float *slopes"] if kernel.per_channel else []
        items += [f"device {t} *result", "constant Parameters &p"]
        arguments = [f"{item} [[buffer({i})]]" for i, item in enumerate(items)]
        return f"""\
kernel void {kernel.name}(
{_listed([*arguments, "uint i [[thread_position_in_grid]]"])}) {{
  if (i >= p.size) return;
  result[i] = {self.element(kernel, style)};
}}
"""

    def textures(self, kernel: Kernel, style: Style) -> str:
        t = self.scalars[style.loads]
        items = [f"texture2d_array<{t}, access::read> {image}" for image in kernel.images]
        items += [f"texture2d_array<{t}, access::write> result"]
        arguments = [f"{item} [[texture({i})]]" for i, item in enumerate(items)]
        arguments += ["constant Parameters &p [[buffer(0)]]"]
        arguments += ["device const float *slopes [[buffer(1)]]"] if kernel.per_channel else []
        loads = _each("  const float4 {number} = float4({name}.read(at.xy, at.z));\n", kernel.images)
        values = ",\n    ".join(self.texel(kernel, style))
        stored = f"float4(\n    {values})"
        stored = f"half4({stored})" if t == "half" else stored
        return f"""\
kernel void {kernel.name}(
{_listed([*arguments, "uint3 at [[thread_position_in_grid]]"])}) {{
  if (at.x >= result.get_width() || at.y >= result.get_height() || at.z >= result.get_array_size()) return;
{loads}  result.write({stored}, at.xy, at.z);
}}
"""


class CUDA(Language):
    """CUDA C++, on buffers only."""

    name, suffix = "cuda", ".cu"
    scalars = MappingProxyType({FLOAT32: "float", FLOAT16: "__half"})
    literals = MappingProxyType({FLOAT32: "{}f", FLOAT16: "__half({}f)"})
    functions = MappingProxyType(
        {
            FLOAT32: {
                "exp": "expf", "log": "logf", "tanh": "tanhf", "abs": "fabsf", "smaller": "fminf", "larger": "fmaxf",
                "erf": "erff", "pow": "power_", "pow_of_size": "powf", "floor": "floorf",
            },
            FLOAT16: {
                "exp": "hexp", "log": "hlog", "tanh": "tanhf", "abs": "__habs", "smaller": "__hmin",
                "larger": "__hmax", "erf": "erff", "pow": "power_",
            },
        }
    )  # fmt: skip

    def refuse(self, style: Style) -> None:
        super().refuse(style)
        if style.memory == "textures":
            raise ParameterError("memory textures: the text for CUDA is on buffers: give buffers")
        if self.math and style.arithmetic == FLOAT16:
            raise ParameterError(f"math {self.math}: half has one kind of functions: leave it out, or compute in float")

    def call(self, operation: str, kind: str) -> str:
        if operation == "pow" and self.math == "precise":
            return "powf"  # without -use_fast_math it has the special values of IEEE 754
        if self.math == "fast" and operation in {"exp", "log", "pow_of_size"}:
            return f"__{operation.removesuffix('_of_size')}f"
        return super().call(operation, kind)

    def head(self, function: Function) -> str:
        t = self.scalars[function.kind]
        arguments = [f"{t} {name}" for name in function.arguments]
        arguments += ["const Parameters &p"] if function.has_parameters else []
        return f"__device__ inline {t} {function.name}({', '.join(arguments)})"

    def nan(self, x: str) -> str:
        return 'nanf("")'

    def preamble(self, style: Style, kernels: Sequence[Kernel]) -> list[str]:
        half = "#include <cuda_fp16.h>\n\n" if FLOAT16 in (style.loads, style.arithmetic) else ""
        return [f"{half}struct Parameters {{\n{_FIELDS.replace('uint ', 'unsigned ')}}};\n"]

    def lane(self) -> str:
        raise NotImplementedError

    def buffers(self, kernel: Kernel, style: Style) -> str:
        t = self.scalars[style.loads]
        arguments = [f"const {t} *{image}" for image in kernel.images]
        arguments += ["const float *slopes"] if kernel.per_channel else []
        arguments += [f"{t} *result", "Parameters p"]
        return f"""\
extern "C" __global__ void {kernel.name}(
{_listed(arguments)}) {{
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= p.size) return;
  result[i] = {self.element(kernel, style)};
}}
"""

    def textures(self, kernel: Kernel, style: Style) -> str:
        raise NotImplementedError


class GLSL(Language):
    """GLSL 4.5 for Vulkan; where there are several kernels, a macro of its name chooses the one to compile."""

    name, suffix = "glsl", ".comp"
    scalars = MappingProxyType({FLOAT32: "float", FLOAT16: "float16_t"})
    literals = MappingProxyType({FLOAT32: "{}", FLOAT16: "{}hf"})
    functions = WGSL.functions

    @property
    def local(self) -> str:  # type: ignore[override]
        """A local variable; ``precise`` forbids contraction."""
        return ("precise " if self.math == "precise" else "const ") + "{type} {name} = {value};"

    def refuse(self, style: Style) -> None:
        super().refuse(style)
        if self.math == "fast":
            raise ParameterError("math fast: GLSL has no such functions: leave it out, or give precise")

    def head(self, function: Function) -> str:
        t = self.scalars[function.kind]
        return f"{t} {function.name}({', '.join(f'{t} {name}' for name in function.arguments)})"

    def nan(self, x: str) -> str:
        return "uintBitsToFloat(0x7fc00000u)"

    def passed(self, function: Function) -> list[str]:
        return []

    def preamble(self, style: Style, kernels: Sequence[Kernel]) -> list[str]:
        lines = ["#version 450"]
        if style.arithmetic == FLOAT16 or (style.memory == "buffers" and style.storage == FLOAT16):
            lines += [
                "#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require",
                "#extension GL_EXT_shader_16bit_storage : require",
            ]
        size = (
            f"local_size_x = {TILE}, local_size_y = {TILE}" if style.memory == "textures" else f"local_size_x = {GROUP}"
        )
        lines += ["", f"layout({size}) in;", ""]
        stored = self.scalars[style.loads]
        texel = {FLOAT16: "rgba16f", FLOAT32: "rgba32f", "unorm8": "rgba8", "unorm16": "rgba16"}[style.storage]
        images = [*((name, "readonly") for name in _sources(kernels)), ("result", "writeonly")]
        for name, access in images:
            if style.memory == "textures":
                lines.append(f"layout(binding = {BINDINGS[name]}, {texel}) {access} uniform image2DArray {name};")
            else:
                block = name.capitalize()
                lines.append(f"layout(binding = {BINDINGS[name]}) {access} buffer {block} {{ {stored} {name}[]; }};")
        if any(kernel.per_channel for kernel in kernels):
            lines.append(f"layout(binding = {BINDINGS['slopes']}) readonly buffer Slopes {{ float slopes[]; }};")
        lines += [f"layout(binding = {BINDINGS['parameters']}) uniform Parameters {{\n{_FIELDS}}} p;", ""]
        return ["\n".join(lines)]

    def lane(self) -> str:
        return """\
// The feature channel of component k of slice z.
uint lane_(uint z, uint k, uint channels) {
  return min(z % ((channels + 3u) / 4u) * 4u + k, channels - 1u);
}
"""

    def entry(self, kernel: Kernel, text: str, count: int) -> str:
        return text if count == 1 else f"#ifdef {kernel.name}\n{text}#endif\n"

    def buffers(self, kernel: Kernel, style: Style) -> str:
        return f"""\
void main() {{
  const uint i = gl_GlobalInvocationID.x + gl_GlobalInvocationID.y * gl_NumWorkGroups.x * {GROUP}u;
  if (i >= p.size) return;
  result[i] = {self.element(kernel, style)};
}}
"""

    def textures(self, kernel: Kernel, style: Style) -> str:
        loads = _each("  const vec4 {number} = imageLoad({name}, at);\n", kernel.images)
        values = ",\n    ".join(self.texel(kernel, style))
        return f"""\
void main() {{
  const ivec3 at = ivec3(gl_GlobalInvocationID);
  if (any(greaterThanEqual(at, imageSize(result)))) return;
{loads}  imageStore(result, at, vec4(
    {values}));
}}
"""


LANGUAGES: Mapping[str, type[Language]] = MappingProxyType({kind.name: kind for kind in (WGSL, MSL, CUDA, GLSL)})
"""By name."""
