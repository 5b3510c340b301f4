"""Kernels as text: MSL runs on the processor, WGSL through wgpu, GLSL is compiled; golden texts for one neuron."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import mpsref as mps
from machine import needs_adapter, needs_compiler
from mpsref.arrays import Elements
from mpsref.cli import main
from mpsref.lab.cpu import compiler
from mpsref.lab.foreign import ForeignKernel
from mpsref.lab.kernels import kernels_of, neuron_text, text
from mpsref.lab.languages import LANGUAGES, Style
from mpsref.lab.processor import Processor
from mpsref.lab.webgpu import WebGPU
from mpsref.neuron.slopes import ChannelSlopes
from mpsref.neuron.stepwise import evaluation
from mpsref.operations import Difference, NeuronForward, NeuronGradient, Ones, Product, ProductGradient, Scaling, Sum
from mpsref.record import sample_image
from mpsref.verify.judge import neuron_judge
from mpsref.verify.models import MODELS
from mpsref.verify.reasons import BEYOND

T, F = mps.MPSCNNNeuronType, mps.MPSImageFeatureChannelFormat
TEACH = Path(__file__).parents[2] / "examples" / "teach" / "graph.json"
GLSLANG, NVCC = shutil.which("glslangValidator"), shutil.which("nvcc")


CHANNELS = 6
PARAMETERS = [
    *((neuron_type, {}) for neuron_type in mps.NEURONS),
    (T.linear, {"a": -1.5, "b": 0.3}), (T.power, {"a": 0.7, "b": 0.1, "c": 3.0}), (T.power, {"c": 2.5}),
    (T.exponential, {"a": 0.5, "b": 0.1, "c": 2.0}), (T.logarithm, {"b": 1.0, "c": 10.0}),
]  # fmt: skip
SLOPES = np.float32([0.25, -1, 0.01, 2, 0, 0.5])
OPERATIONS = [
    kind(mps.MPSNNNeuronDescriptor(t, **p, data=SLOPES if t is T.pReLU else None))
    for t, p in PARAMETERS
    for kind in (NeuronForward, NeuronGradient)
]


def size(channel_format, channels=CHANNELS):
    return mps.MPSImageDescriptor(
        channel_format=channel_format, width=13, height=11, feature_channels=channels, number_of_images=2
    )


def images(operation, channel_format, channels=CHANNELS):
    d = size(channel_format, channels)
    neurons = [] if operation.descriptor is None else [operation.descriptor]
    x = sample_image(d, neurons, (1,))
    return [sample_image(d, [], (2,), is_gradient=True), x] if len(operation.roles) == 2 else [x]


def beyond(operation, sources, got, model, store=0):
    """How many results no device may give: those that the judge of verify calls so, but for `store` ULP."""
    *incoming, x = [Elements(image.to_array(), image.storage) for image in sources]
    stored, storage = got.to_array(), got.storage
    ideal = operation.evaluate([*incoming, x], storage, *spread(operation))
    index = np.flatnonzero(np.abs(storage.ordinals(stored) - storage.ordinals(ideal)) > store)
    if not storage.unorm_max:
        # What a kernel makes of NaN, its text says: min and max of Metal lose it.
        index = index[~np.isnan(x.stored.reshape(-1)[index])]
        nan = np.isnan(stored.reshape(-1)[index]) & np.isnan(ideal.reshape(-1)[index])
        index = index[~nan]
    if not index.size:
        return 0
    judge = neuron_judge(operation.descriptor, MODELS[model], Elements(stored, storage), x, *incoming)
    return int((judge(index) == BEYOND).sum())


def spread(operation):
    return evaluation("ideal"), lambda data: ChannelSlopes(data.astype(np.float64)[np.newaxis], 1)


# ---- run ----


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize("memory", ["buffers", "textures"])
def test_msl_of_every_neuron_is_within_the_bounds_of_precise_mathematics(memory):
    channel_format = F.float32 if memory == "buffers" else F.float16
    with Processor(OPERATIONS, memory) as processor:
        for operation in OPERATIONS:
            sources = images(operation, channel_format)
            got = processor.run(operation, sources, size(channel_format))
            # 1 / 2^-128, of the logarithm's slope, overflows on its way to a finite product.
            is_slope = operation.direction == "gradient" and operation.descriptor.neuron_type is T.logarithm
            assert beyond(operation, sources, got, "metal-precise") <= (1 if is_slope else 0), operation


@pytest.mark.slow
@needs_adapter
@pytest.mark.parametrize("channel_format", [F.float32, F.float16], ids=lambda f: f.name)
@pytest.mark.parametrize("memory", ["buffers", "textures"])
def test_wgsl_of_every_neuron_is_within_what_wgsl_allows(memory, channel_format):
    device = WebGPU("", memory)
    for operation in OPERATIONS:
        sources = images(operation, channel_format)
        assert beyond(operation, sources, device.run(operation, sources, size(channel_format)), "wgsl") == 0, operation


@pytest.mark.slow
@needs_adapter
def test_wgsl_in_half_arithmetic_is_within_what_wgsl_allows_f16(tmp_path):
    device, style, others = WebGPU(), Style("buffers", "float16", "float16"), 0
    for operation in OPERATIONS:
        (kernel,) = kernels_of([operation], style).values()
        file = tmp_path / "kernel.wgsl"
        file.write_text(text([kernel], "wgsl", style))
        sources = images(operation, F.float16)
        with ForeignKernel(file, kernel.name, device=device) as foreign:
            got = foreign.run(operation, sources, size(F.float16))
        assert beyond(operation, sources, got, "wgsl-half") == 0, operation
        others += beyond(operation, sources, got, "wgsl")
    assert others > 1000


@needs_adapter
@pytest.mark.parametrize(
    ("neuron_type", "memory", "model", "least"),
    [
        (T.tanH, "textures", "metal-fast", 18_001),  # truncated, of 63,488 halves
        (T.tanH, "buffers", "metal-precise", 1000),  # a fast one
        (T.logarithm, "buffers", "metal-fast", 1),  # of a subnormal number
    ],
)
def test_what_lavapipe_does_otherwise_than_metal_is_within_what_wgsl_allows(neuron_type, memory, model, least):
    device = WebGPU("", memory)
    if "llvmpipe" not in device.device:
        pytest.skip("not lavapipe, whose faults are known")
    operation = NeuronForward(mps.MPSNNNeuronDescriptor(neuron_type))
    x = np.arange(65_536, dtype=np.uint16).view(np.float16)
    x = x[np.isfinite(x)].reshape(248, 256, 1)
    if memory == "buffers":
        d = mps.MPSImageDescriptor(channel_format=F.float32, width=256, height=64, feature_channels=1)
        x = sample_image(d, [], (1,)).to_array()[0]
    source = mps.MPSImage.from_array(x)
    got = device.run(operation, [source], source.descriptor)

    assert beyond(operation, [source], got, "wgsl") == 0
    count = beyond(operation, [source], got, model)
    assert count >= least


@needs_adapter
def test_unorm_codes_are_read_as_wgsl_allows():
    codes = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    source = mps.MPSImage.from_array(codes)
    single = mps.MPSImageDescriptor(channel_format=F.float32, width=16, height=16, feature_channels=1)
    operation = NeuronForward(mps.MPSNNNeuronDescriptor(T.linear, a=3.0, b=0.7))
    got = WebGPU("", "textures").run(operation, [source], single)

    assert beyond(operation, [source], got, "wgsl") == 0


@needs_adapter
def test_lavapipe_stores_nan_as_the_largest_code():
    x = mps.MPSImage.from_array(np.float32([[[np.nan], [0.5]]]))
    unorm = mps.MPSImageDescriptor(channel_format=F.unorm8, width=2, height=1, feature_channels=1)
    device = WebGPU("", "textures")

    codes = device.run(NeuronForward(mps.MPSNNNeuronDescriptor(T.none)), [x], unorm).to_array().reshape(-1)
    assert codes[1] in (127, 128)
    assert codes[0] == 255 or "llvmpipe" not in device.device


ARITHMETIC = [
    Sum((2.0, 0.5), 0.25, (-3.0, 3.0)), Difference(), Product((1.0, 0.5), -1.0), Scaling(-0.5), Ones(),
    ProductGradient((2.0, 0.5)),
]  # fmt: skip


def on(name, operations, memory=None):
    """A context with what runs kernels."""
    return Processor(operations, memory) if name == "cpu" else contextlib.nullcontext(WebGPU("", memory))


BACKENDS = [pytest.param("cpu", marks=needs_compiler), pytest.param("wgpu", marks=needs_adapter)]


@pytest.mark.parametrize("name", BACKENDS)
def test_arithmetic_is_exact_where_nothing_rounds(name):
    values = np.float32([[[0.5, -1, 2]], [[4, 0, -0.25]]])
    images = [mps.MPSImage.from_array(values * factor) for factor in (1, -2, 4)]
    with on(name, ARITHMETIC) as device:
        for operation in ARITHMETIC:
            sources = images[: len(operation.roles)]
            got = device.run(operation, sources, images[0].descriptor).to_array()
            want = operation.value(*(image.to_array().astype(float) for image in sources))
            np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("channel_format", [F.unorm8, F.unorm16, F.float16])
def test_textures_of_all_widths_and_formats_keep_their_elements_apart(name, channel_format):
    widths = (1, 2, 3, 9)
    neurons = [mps.MPSNNNeuronDescriptor(T.pReLU, data=np.linspace(-1, 1.1, channels)) for channels in widths]
    with on(name, map(NeuronForward, neurons), "textures") as device:
        for channels, d in zip(widths, neurons, strict=True):
            operation = NeuronForward(d)
            sources = images(operation, channel_format, channels)
            got = device.run(operation, sources, size(channel_format, channels))

            read = Elements(sources[0].to_array(), sources[0].storage)
            want = operation.evaluate([read], got.storage, *spread(operation))
            distance = np.abs(got.storage.ordinals(got.to_array()) - got.storage.ordinals(want))
            # Stores may truncate, and a sample may hold NaN.
            assert distance[~np.isnan(want.astype(float))].max() <= 1, channels


# ---- text ----

GOLDEN = {
    "wgsl": "  let e = exp(p.b * x);\n  return p.a * p.b * e / (e + 1.0) * dy;\n",
    "msl": "  const float e = exp(p.b * x);\n  return p.a * p.b * e / (e + 1.0f) * dy;\n",
    "cuda": "  const float e = expf(p.b * x);\n  return p.a * p.b * e / (e + 1.0f) * dy;\n",
    "glsl": "  const float e = exp(p.b * x);\n  return p.a * p.b * e / (e + 1.0) * dy;\n",
}


@pytest.mark.parametrize("language", LANGUAGES)
def test_text_has_the_formula_as_comment_and_as_code(language):
    printed = neuron_text("softPlus", language, directions=["gradient"])

    assert f"// softPlus, gradient: dy times ({mps.NEURONS[T.softPlus].slope})\n" in printed
    assert GOLDEN[language] in printed
    assert max(map(len, printed.splitlines())) <= 120


@pytest.mark.parametrize(
    ("language", "math", "call"),
    [
        ("msl", "fast", "fast::exp(p.b"), ("msl", "precise", "precise::exp(p.b"), ("msl", None, " exp(p.b"),
        ("cuda", "fast", "__expf(p.b"), ("cuda", "precise", " expf(p.b"), ("glsl", "precise", "precise float e"),
    ],
)  # fmt: skip
def test_functions_are_fast_or_precise_where_the_language_has_both(language, math, call):
    assert call in neuron_text("softPlus", language, math=math)


@pytest.mark.parametrize("language", LANGUAGES)
def test_powers_of_negative_numbers_do_not_hang_on_the_compilers_options(language):
    assert "power_(p.a * x + p.b, p.c)" in neuron_text("power", language)


@pytest.mark.parametrize(
    ("language", "style", "math", "message"),
    [
        ("wgsl", Style(), "fast", "math fast: WGSL has one kind of functions"),
        ("glsl", Style(), "fast", "math fast: GLSL has no such functions"),
        ("msl", Style(arithmetic="float16"), "precise", "half has one kind of functions"),
        ("cuda", Style("textures"), None, "memory textures: the text for CUDA is on buffers"),
        ("msl", Style(storage="unorm8"), None, "format unorm8: of textures only"),
        ("hlsl", Style(), None, "language is 'hlsl': choose one of wgsl, msl, cuda, glsl"),
    ],
)
def test_what_a_language_has_not_is_one_clear_error(language, style, math, message):
    with pytest.raises(mps.ParameterError, match=message):
        neuron_text("tanH", language, style=style, math=math)


STYLES = [Style("buffers"), Style("buffers", "float16", "float16"), Style("textures", "float16")]


@pytest.mark.slow
@pytest.mark.skipif(not GLSLANG, reason="no glslangValidator")
@pytest.mark.parametrize("style", STYLES, ids=str)
def test_glsl_compiles(style, tmp_path):
    for math in (None, "precise"):
        for neuron_type in (T.geLU, T.power, T.pReLU):
            file = tmp_path / "kernel.comp"
            file.write_text(neuron_text(neuron_type, "glsl", style=style, math=math))
            name = f"{neuron_type.name}_gradient"
            command = [GLSLANG, "-V", "--target-env", "vulkan1.2", f"-D{name}", "-o", str(tmp_path / "spv"), str(file)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout


@pytest.mark.slow
@pytest.mark.skipif(not NVCC, reason="no nvcc")
@pytest.mark.parametrize("style", STYLES[:2], ids=str)
def test_cuda_compiles(style, tmp_path):
    file = tmp_path / "kernel.cu"
    for math in (None, "fast"):
        if style.arithmetic == "float32" or math is None:
            file.write_text(neuron_text(None, "cuda", style=style, math=math))
            command = [NVCC, "-arch=sm_90", "-ptx", "-o", str(tmp_path / "ptx"), str(file)]
            subprocess.run(command, check=True)


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize("math", ["fast", "precise"])
def test_msl_compiles_in_every_style(math, tmp_path):
    for style in (Style("textures", "unorm8"), Style("buffers", "float16")):
        file = tmp_path / "kernels.metal"
        file.write_text(neuron_text(None, "msl", style=style, math=math))
        header = Path(mps.__file__).parent / "lab" / "metal"
        subprocess.run(
            [compiler(), "-fsyntax-only", "-w", "-std=gnu++17", f"-I{header}", "-x", "c++", str(file)], check=True
        )


def test_operations_that_differ_have_kernels_of_their_own():
    sums = [Sum(), Sum((2.0, 1.0)), Sum()]
    names = [kernel.name for kernel in kernels_of(sums).values()]
    assert names == ["sum", "sum_2"]
    assert text(kernels_of(sums).values(), "wgsl").count("@compute") == 2


# ---- command ----


def test_the_command_prints_the_kernels_of_a_graph(capsys, tmp_path):
    assert main(["kernels", str(TEACH), "--language", "msl"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("// h: tanH_forward(x), a = 1.5, b = 0.75\n")
    assert "// dx: sum(dx.1, dx.2)\n" in printed
    assert printed.count("kernel void ") == 8
    assert "half *result" in printed

    out = tmp_path / "k.wgsl"
    assert main(["kernels", "--neuron", "none", "--language", "wgsl", "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"wrote {out}\n"
    assert "fn identity_gradient(" in out.read_text()


def test_names_of_images_stay_in_their_comment(capsys, tmp_path):
    x = mps.MPSNNImageNode(handle="x\n} evil(); \\")
    file = mps.GraphFile.from_results([mps.MPSCNNNeuronTanHNode(source=x).result_image])
    file.write(tmp_path / "graph.json")

    assert main(["kernels", str(tmp_path / "graph.json"), "--language", "glsl"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "evil" in line]
    assert line.startswith("// ")
    assert not line.endswith("\\")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--neuron tanH --language wgsl --math fast", "math fast: WGSL"),
        (f"{TEACH} --neuron tanH --language wgsl", "conflict with a graph"),
        (f"{TEACH} --language cuda --memory textures", "graph.json: memory textures"),
        ("--neuron tanH --language hlsl", "invalid choice"),
    ],
)
def test_bad_options_are_one_line(options, message, capsys):
    assert main(f"kernels {options}".split()) == 2
    assert message in capsys.readouterr().err
