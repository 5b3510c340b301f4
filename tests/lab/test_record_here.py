"""Graphs run on this machine, with kernels of somebody else: right ones pass, and verify names each planted fault."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest

import mpsref as mps
from builders import seldom
from machine import GRAPH, needs_adapter, needs_compiler, recorded
from mpsref.cli import main
from mpsref.lab import msl
from mpsref.lab.cpu import Limits, Program, Work
from mpsref.lab.foreign import ForeignKernel, Given
from mpsref.operations import NeuronForward, NeuronGradient
from mpsref.record import Recording
from mpsref.verify import verify

T, F = mps.MPSCNNNeuronType, mps.MPSImageFeatureChannelFormat
ROOT = Path(__file__).parents[2]
TANH = ROOT / "examples" / "metal" / "tanh.metal"


def kernel(tmp_path, text, *options, graph=GRAPH):
    """Record a graph with a kernel of this text, which computes h."""
    file = tmp_path / "kernel.metal"
    file.write_text("#include <metal_stdlib>\nusing namespace metal;\n" + text)
    return recorded(tmp_path, "--kernel", str(file), "--function", "k", "--for", "h", *options, graph=graph)


@pytest.fixture(scope="module")
def one_node(tmp_path_factory):
    """The forward node of the example alone."""
    file = mps.GraphFile.read(GRAPH)
    path = tmp_path_factory.mktemp("graph") / "graph.json"
    mps.GraphFile.from_results([file.images["h"]]).write(path)
    return path


# ---- whole ----


@needs_compiler
def test_the_example_kernels_pass(tmp_path, capsys):
    for name, node in (("tanh_forward", "h"), ("tanh_gradient", "dx")):
        status, path = recorded(
            tmp_path / node,
            "--kernel",
            str(TANH),
            "--function",
            name,
            "--for",
            node,
            "--verify",
            "--bounds",
            "metal-fast",
        )
        assert status == 0
        assert f"; {node} by tanh.metal:{name}" in Recording.read(path).device
        assert "PASS" in capsys.readouterr().out


@pytest.mark.parametrize(
    "options",
    [
        pytest.param([], marks=needs_compiler),
        pytest.param(["--memory", "textures"], marks=[needs_compiler, pytest.mark.slow]),
        pytest.param(["--backend", "wgpu"], marks=needs_adapter),
    ],
    ids=str,
)
def test_a_graph_runs_with_our_own_kernels(tmp_path, options):
    status, path = recorded(tmp_path, *options, graph=ROOT / "examples" / "teach" / "graph.json", shape="2x8x8x8")

    assert status == 0
    recording = Recording.read(path)
    assert set(recording.images) == set(recording.graph.images)
    assert "processor" in recording.device or "wgpu" in recording.device
    report = verify(recording)
    # Our softPlus is the formula as it stands, which overflows.
    failing = {image.name for image in report.images if image.counts.beyond}
    assert failing == {"s", "dx.2"}
    assert verify(recording, allow=["overflow"]).passed


# ---- faults that verify has to name ----

READ = "texture2d_array<half, access::read> {} [[texture({})]]"
HEAD = """struct Parameters {{ float a, b; }};
kernel void k(texture2d_array<half, access::read> source [[texture(0)]],
              texture2d_array<half, access::write> result [[texture(1)]],
              constant Parameters &p [[buffer(0)]], uint3 at [[thread_position_in_grid]]) {{
  {}
}}"""
RIGHT = "result.write(half4(p.a * tanh(p.b * float4(source.read(at.xy, at.z)))), at.xy, at.z);"


def changed(old, new):
    """The right kernel with other words."""
    assert old in RIGHT
    return HEAD.format(RIGHT.replace(old, new))


X = "float4(source.read(at.xy, at.z))"
FAULTS = {
    "b ignored": (changed("p.b *", ""), [], "b = 1"),
    "a in place of b": (changed("p.b", "p.a"), [], ""),
    "negative": (changed("p.a *", "-p.a *"), [], "sign"),
    "an edge that no thread covers": (HEAD.format(RIGHT), ["--grid", "16,16,3"], "16 to 23"),
    "slices in another order": (changed("at.xy, at.z);", "at.xy, 2 - at.z);"), [], "channels"),
    "lanes exchanged": (changed("at.z)))", "at.z).bgra))"), [], "2, 1, 0, 3"),
    "rows mirrored": (changed("read(at.xy", "read(uint2(at.x, 15 - at.y)"), [], "upside down"),
    "columns shifted": (changed("read(at.xy", "read(uint2((at.x + 1) % 24, at.y)"), [], "1 columns"),
    "another neuron": (changed(f"tanh(p.b * {X})", f"clamp({X}, -1, 1)"), [], ""),
    "a sigmoid": (changed(f"tanh(p.b * {X})", f"1 / (1 + exp(-{X}))"), [], ""),
}
"""Each with options, and a word that the cause has."""


@needs_compiler
@seldom("fault", FAULTS, lambda fault: fault in {"b ignored", "an edge that no thread covers", "lanes exchanged"})
def test_each_planted_fault_is_beyond_and_named(tmp_path, one_node, fault):
    text, options, word = FAULTS[fault]
    status, path = kernel(tmp_path, text, *options, graph=one_node)

    assert status == 0
    report = verify(path)
    assert not report.passed
    (bad,) = [image for image in report.images if image.counts.beyond]
    assert bad.name == "h"
    causes = " ".join(finding.sentence + " | " + finding.detail + " " + finding.where + ";" for finding in bad.findings)
    assert causes
    assert word in causes


@needs_compiler
def test_reading_another_image_is_named(tmp_path):
    given = ["--kernel", str(TANH), "--function", "tanh_gradient", "--for", "dx", "--argument", "h=texture0"]
    status, path = recorded(tmp_path, *given)

    assert status == 0
    (bad,) = [image for image in verify(path).images if image.counts.beyond]
    assert "h" in " ".join(
        finding.sentence + " | " + finding.detail + " " + finding.where + ";" for finding in bad.findings
    )


@needs_compiler
def test_the_kernel_of_the_documentation_gives_the_verdict_that_is_shown(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "verify.md").read_text()
    (code,) = re.findall(r"```cpp\n(.*?)```", page, re.DOTALL)
    (graph,) = [block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "graph.json" in block]
    (command,) = re.findall(r"^    mpsref (record .*)$", page, re.MULTILINE)
    shown = re.search(r"^by cause:\n  (.*):", page, re.MULTILINE)[1]
    Path("tanh.metal").write_text(code)
    exec(graph, {})  # noqa: S102

    assert main(shlex.split(command)) == 0
    report = verify("rec/recording.json")
    assert [cause.cause for cause in report.causes] == [shown]
    assert [image.name for image in report.images if not image.passed] == ["dx"]
    assert main(shlex.split(re.sub("--argument .*", "--out fixed", command))) == 0
    assert verify("fixed/recording.json").passed


# ---- what the header has to know ----


def run(tmp_path, text, name="k", *, constants=None, grid=(8, 1, 1), group=(8, 1, 1), **work):
    with Program(
        "#include <metal_stdlib>\nusing namespace metal;\n" + text, [name], "k.metal", constants=constants
    ) as p:
        w = Work(grid, group, **work)
        p.run(name, w)
    return w


@needs_compiler
def test_buffers_templates_constants_vectors_and_barriers(tmp_path):
    x = np.arange(8, dtype=np.float32)
    text = """
constant bool wanted [[function_constant(0)]];
template <typename T, int N> kernel void scaled(device const T *x, device T *y, constant float &s,
                                                uint i [[thread_position_in_grid]]) {
  y[i] = wanted ? T(x[i] * s + N) : T(0);
}
template [[host_name("scaled_3")]] kernel void scaled<float, 3>(device const float *, device float *,
                                                                constant float &, uint);
kernel void sums(device const float4 *x [[buffer(0)]], device float *y [[buffer(1)]],
                 uint i [[thread_position_in_grid]], uint l [[thread_index_in_threadgroup]],
                 ushort2 n [[threads_per_threadgroup]]) {
  threadgroup float part[2];
  const float2 pair = x[i].xz + x[i].yw;
  part[l] = 0.5 * (pair.x + pair.y) * 2;
  threadgroup_barrier(mem_flags::mem_threadgroup);
  y[i] = part[n.x - 1 - l] + (1 / 3) + 1.0 / 4;
}
"""
    y, s = np.zeros(8, np.float32), np.float32([0.5])
    w = run(tmp_path, text, "scaled_3", constants={"wanted": "true"}, buffers={0: x, 1: y, 2: s})
    np.testing.assert_array_equal(w.buffers[1], x / 2 + 3)

    w = run(
        tmp_path,
        text,
        "sums",
        constants={"wanted": "1"},
        grid=(2, 1, 1),
        group=(2, 1, 1),
        buffers={0: x, 1: y[:2].copy()},
    )
    np.testing.assert_array_equal(w.buffers[1], np.float32([22.25, 6.25]))


@needs_compiler
@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("y[i] = x[i]", "does not compile: k.metal:3:"),
        ("y[i + 4096] = x[i];", "behind buffer.1., which has 32 bytes"),
        ("y[i] = x[1 << 28];", "nothing is bound to|behind buffer"),
        ("while (true) y[i] += 1;", "it takes more than 1 s"),
        ("y[i] = metal::simd_sum(x[i]);", "it calls simd_sum, which is not run here"),
        ("y[i] = float(int(i) / int(x[0]));", "divides an integer by zero"),
    ],
)
def test_a_kernel_that_cannot_run_is_one_clear_error(body, message):
    text = f"""#include <metal_stdlib>
kernel void k(device const float *x [[buffer(0)]], device float *y [[buffer(1)]],
              uint i [[thread_position_in_grid]]) {{ {body} }}
"""

    def run():
        with Program(text, ["k"], "k.metal") as program:
            x = np.zeros(8, np.float32)
            program.run("k", Work((8, 1, 1), (8, 1, 1), {0: x, 1: x.copy()}), Limits(1))

    with pytest.raises(mps.ImplementationError, match=message):
        run()


NEURON = """struct Parameters { float a, b, c; uint channels; uint size; };
kernel void k(device const half *in [[buffer(0)]], device half *out [[buffer(1)]], constant Parameters &p [[buffer(2)]],
              uint i [[thread_position_in_grid]]) { if (i < p.size) out[i] = half(p.b + float(in[i]) * p.a); }
"""


@needs_compiler
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--argument", "source=buffer7"], "--argument source=buffer7: it has buffer0, buffer1"),
        (["--argument", "gradient=buffer0"], "--argument gradient=...: the node has"),
        (["--argument", "nonsense"], "--argument nonsense: give WHAT=PLACE"),
        (["--function", "other"], "it has no kernel 'other', but k"),
        (["--for", "q"], "--for q: name one node by its result: h, dx"),
        (["--backend", "wgpu"], "give a .metal file and --backend cpu or a .wgsl file"),
    ],
)
def test_bad_options_are_one_line(tmp_path, capsys, options, message):
    status, path = kernel(tmp_path, NEURON, *options)

    assert status == 2
    assert message in capsys.readouterr().err
    assert not path.exists()


@needs_compiler
def test_arguments_are_known_by_name_or_said(tmp_path, capsys):
    text = NEURON.replace("uint channels; uint size", "uint size; float extra").replace("p.b +", "p.extra +")
    status, _ = kernel(tmp_path, text)
    assert status == 2
    assert "what is extra of buffer2, Parameters p? Give --argument extra=NUMBER" in capsys.readouterr().err

    # half(0.25 + x a), of which the first linear element is judged.
    graph = tmp_path / "graph.json"
    x = mps.MPSNNImageNode(handle="x")
    mps.GraphFile.from_results([mps.MPSCNNNeuronLinearNode(source=x, a=2, b=0.25).result_image]).write(graph)
    options = ["--kernel", str(tmp_path / "kernel.metal"), "--function", "k", "--argument", "extra=0.25", "--verify"]
    assert recorded(tmp_path, *options, graph=graph)[0] == 0


def test_what_is_missing_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert recorded(tmp_path)[0] == 2
    assert "no-such-compiler: no C++ compiler with _Float16" in capsys.readouterr().err

    monkeypatch.setitem(sys.modules, "wgpu", None)
    assert recorded(tmp_path, "--backend", "wgpu")[0] == 2
    assert "install mpsref[gpu]" in capsys.readouterr().err


@needs_adapter
def test_an_adapter_that_there_is_not_is_named(tmp_path, capsys):
    assert recorded(tmp_path, "--backend", "wgpu", "--adapter", "no such")[0] == 2
    assert "adapter 'no such': none of " in capsys.readouterr().err


OTHERS = {
    "by groups, bytes, long sizes": (
        """namespace ops {
struct Tanh { float a, b; template <typename T> T operator()(T x) const { return T(a * metal::tanh(b * float(x))); } };
}
struct Args { int64_t ne; float a; float b; };
[[kernel]] void k(device const char *src0 [[buffer(1)]], device char *dst [[buffer(2)]],
                  constant Args &args [[buffer(0)]], uint3 tgpig[[threadgroup_position_in_grid]],
                  ushort3 tpitg[[thread_position_in_threadgroup]], ushort3 ntg[[threads_per_threadgroup]]) {
  const int64_t i = int64_t(tgpig.x) * ntg.x + tpitg.x;
  if (i < args.ne) ((device half *)dst)[i] = ops::Tanh{args.a, args.b}(((device const half *)src0)[i]);
}""",
        [],
    ),
    "samplers, packed vectors": (
        """constexpr sampler smp(coord::pixel, filter::nearest, address::clamp_to_zero);
kernel void k(texture2d_array<half, access::sample> inTexture [[texture(0)]],
              texture2d_array<half, access::write> outTexture [[texture(1)]],
              constant packed_float2 &ab [[buffer(0)]], ushort3 gid [[thread_position_in_grid]]) {
  const half4 v = inTexture.sample(smp, float2(gid.xy) + 0.5f, gid.z);
  const packed_float2 scaled = ab * 1.0f;
  outTexture.write(half4(scaled.x * tanh(ab[1] * float4(v))), gid.xy, gid.z);
}""",
        [],
    ),
    "threadgroup memory, numbers in a row": (
        """kernel void k(device const half *x, device half *y, constant float *ab, constant uint &numElements,
                threadgroup float *tile [[threadgroup(0)]], uint i [[thread_position_in_grid]],
                uint lid [[thread_index_in_threadgroup]]) {
  tile[lid] = float(x[i]);
  threadgroup_barrier(mem_flags::mem_threadgroup);
  if (i < numElements) y[i] = half(ab[0] * tanh(ab[1] * tile[lid]));
}""",
        ["--argument", "parameters=ab"],
    ),
    "half vectors": (
        """kernel void k(device const half2 *in [[buffer(0)]], device half2 *out [[buffer(1)]],
                constant float2 *p [[buffer(2)]], uint i [[thread_position_in_grid]]) {
  bool2 big = abs(in[i]) > 100.0h;
  float2 t = precise::tanh(p->y * float2(in[i]));
  out[i] = half2(p->x * select(t, sign(float2(in[i])), big && isfinite(in[i])));
}""",
        [],
    ),
}


@needs_compiler
@pytest.mark.parametrize("name", OTHERS)
def test_kernels_as_others_write_them(tmp_path, one_node, name):
    text, options = OTHERS[name]
    status, path = kernel(tmp_path, text, *options, graph=one_node)

    assert status == 0
    assert verify(path).passed


@needs_compiler
@pytest.mark.parametrize("word", ["texture3d", "atomic_uint", "simdgroup_half8x8"])
def test_what_the_header_leaves_out_is_named(tmp_path, capsys, one_node, word):
    text = f"kernel void k(device half *x [[buffer(0)]], uint i [[thread_position_in_grid]]) {{ {word}<half> y; }}"
    assert kernel(tmp_path, text, graph=one_node)[0] == 2
    assert f"kernel.metal: it uses {word}, which is not run here" in capsys.readouterr().err


@needs_compiler
def test_macros_make_instances_of_templates_as_in_public_libraries(tmp_path):
    x = np.float16([1, -2, 3, 4, 5, 6, 7])
    text = """
template <typename T> constexpr int work() { return 8 / sizeof(T); }
struct Twice { template <typename T> METAL_FUNC T operator()(T x) thread { return static_cast<T>(2.0 * x); } };
template <typename T, typename U, typename F, int W = work<T>()>
[[kernel]] void unary(constant size_t &dim, device const T* input, device U* output,
                      uint tid [[thread_position_in_grid]]) {
  for (uint i = tid * W; i < min(size_t(tid * W + W), dim); ++i) output[i] = F()(input[i]);
}
#define instance(name, func, ...) \\
  template [[host_name(name)]] [[kernel]] decltype(func<__VA_ARGS__>) func<__VA_ARGS__>;
#define both(op, f) instance(#op "_" "f16", unary, half, half, f) instance(#op "_" "f32", unary, float, float, f)
both(twice, Twice)
"""
    w = run(tmp_path, text, "twice_f16", grid=(2, 1, 1), buffers={0: np.uint64([7]), 1: x, 2: np.zeros_like(x)})

    np.testing.assert_array_equal(w.buffers[2], 2 * x)


def test_structs_are_laid_out_as_in_c_plus_plus():
    text = "struct P { half a; float b; uint2 size; uchar d; }; "
    fields, size = msl.fields_of(text, "P")

    assert [(f.name, f.type, f.offset) for f in fields] == [
        ("a", "half", 0), ("b", "float", 4), ("size.x", "uint", 8), ("size.y", "uint", 12), ("d", "uchar", 16)
    ]  # fmt: skip
    assert size == 24
    assert msl.fields_of("", "float3")[1] == 16
    packed, size = msl.fields_of("struct P { half a; packed_float3 b; uchar c; }; ", "P")
    assert [f.offset for f in packed] == [0, 4, 8, 12, 16]
    assert size == 20
    with pytest.raises(mps.ImplementationError, match="the struct Q is not defined"):
        msl.fields_of(text, "Q")


@needs_compiler
def test_a_kernel_in_place_and_slopes(tmp_path):
    file = tmp_path / "kernel.metal"
    file.write_text("""#include <metal_stdlib>
using namespace metal;
kernel void prelu(device half *x [[buffer(0)]], constant float *slopes [[buffer(1)]],
                  constant uint &channels [[buffer(2)]], uint i [[thread_position_in_grid]]) {
  if (x[i] < 0) x[i] = half(float(x[i]) * slopes[i % channels]);
}
""")
    slopes = np.float32([0.5, -2, 0.25])
    operation = NeuronForward(mps.MPSNNNeuronDescriptor(T.pReLU, data=slopes))
    x = np.float16([[[-1, -1, -1], [2, -4, -8]]])
    given = Given.parsed(["source=x", "result=x"])
    with ForeignKernel(file, "prelu", given) as k:
        image = mps.MPSImage.from_array(x)
        got = k.run(operation, [image], image.descriptor).to_array()

    np.testing.assert_array_equal(got[0], mps.neuron.forward(operation.neuron, x))
    assert json.dumps(k.notes) == "[]"
    assert NeuronGradient(operation.neuron).direction == "gradient"
