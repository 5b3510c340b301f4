"""Kernels of somebody else in WGSL: right ones pass, verify names planted faults, and what cannot run is one line."""

from __future__ import annotations

from pathlib import Path

import pytest

import mpsref as mps
from machine import GRAPH, needs_adapter, recorded
from mpsref.cli import main
from mpsref.lab import msl
from mpsref.lab.wgsl import Module
from mpsref.record import Recording
from mpsref.verify import verify

TANH = Path(__file__).parents[2] / "examples" / "wgsl" / "tanh.wgsl"
T, F = mps.MPSCNNNeuronType, mps.MPSImageFeatureChannelFormat

HALF_VECTORS = """enable f16;
struct P { n: u32, alpha: f32, beta: f32 }
@binding(0) @group(0) var<storage, read> input: array<vec4<f16>>;
@binding(1) @group(0) var<storage, read_write> output: array<vec4<f16>>;
@binding(2) @group(0) var<storage, read> params: P;
@compute @workgroup_size(16, 1, 1) fn k(@builtin(global_invocation_id) gid: vec3<u32>) {
  if (gid.x * 4u >= params.n) { return; }
  output[gid.x] = vec4<f16>(params.alpha * tanh(params.beta * vec4<f32>(input[gid.x])));
}
"""
PACKED = """/* Without f16. */
struct Words { data: array<u32> }
@group(0) @binding(0) var<storage, read> src: Words;
@group(0) @binding(1) var<storage, read_write> dst: Words;
@group(0) @binding(1) var<uniform> other: vec3f;  // of another kernel
override a: f32 = 1.0;
@id(7) override b: f32;
const WG: u32 = 32;
var<workgroup> tile: array<vec2f, WG>;
fn tanh_of(v: vec2f) -> vec2f { return a * tanh(b * v); }
@compute @workgroup_size(1) fn unused() { let x = other; }
@compute @workgroup_size(WG)
fn k(@builtin(global_invocation_id) gid: vec3u, @builtin(local_invocation_index) l: u32) {
  let i = gid.x;
  let inside = i < arrayLength(&src.data);
  if (inside) { tile[l] = unpack2x16float(src.data[i]); }
  workgroupBarrier();
  if (inside) { dst.data[i] = pack2x16float(tanh_of(tile[l])); }
}
"""
SAMPLED = """
alias Vec = vec2<f32>;
@group(0) @binding(0) var t: texture_2d<f32>;
@group(0) @binding(1) var s: sampler;
@group(0) @binding(2) var o: texture_storage_2d<rgba16float, write>;
@group(0) @binding(3) var<uniform> scale: Vec;
@compute @workgroup_size(4, 4) fn k(@builtin(global_invocation_id) g: vec3u) {
  let d = textureDimensions(t);
  if (g.x >= d.x || g.y >= d.y) { return; }
  let uv = (Vec(g.xy) + 0.5) / Vec(d);
  textureStore(o, g.xy, scale.x * tanh(scale.y * textureSampleLevel(t, s, uv, 0.0)));
}
"""


def kernel(tmp_path, text, *options, shape="5x7x4", graph=GRAPH):
    """Record a graph with a kernel of this text, which computes h."""
    file = tmp_path / "kernel.wgsl"
    file.write_text(text)
    given = ["--backend", "wgpu", "--kernel", str(file), "--function", "k", "--for", "h", *options]
    return recorded(tmp_path, *given, graph=graph, shape=shape)


@needs_adapter
def test_the_example_kernels_pass(tmp_path, capsys):
    for name, node in (("tanh_forward", "h"), ("tanh_gradient", "dx")):
        given = ["--kernel", str(TANH), "--function", name, "--for", node]
        status, path = recorded(tmp_path / node, "--backend", "wgpu", *given, "--verify", shape="2x13x24x9")
        assert status == 0
        assert f"; {node} by tanh.wgsl:{name}" in Recording.read(path).device
        printed = capsys.readouterr().out
        assert "what wgsl arithmetic allows" in printed
        assert "PASS: all 11,232 elements" in printed


@needs_adapter
@pytest.mark.parametrize(
    ("text", "options"),
    [
        (HALF_VECTORS, []),
        (PACKED, ["a=1.5", "b=0.75"]),
        (SAMPLED, ["source=t", "result=binding2"]),
    ],
    ids=["half vectors", "packed, overrides, barriers", "sampled"],
)
def test_kernels_as_others_write_them(tmp_path, text, options):
    status, path = kernel(tmp_path, text, *(word for each in options for word in ("--argument", each)))

    assert status == 0
    assert verify(path, "wgsl").passed


RIGHT = TANH.read_text().replace("tanh_forward", "k")
FAULTS = {
    "b ignored": ("tanh(p.b * x));", "tanh(x));", [], "b = 1"),
    "an edge that no thread covers": ("", "", ["--grid", "16,16,3"], "16 to 23"),
    "lanes exchanged": ("tanh(p.b * x));", "tanh(p.b * x.bgra));", [], "2, 1, 0, 3"),
    "columns shifted": (
        "textureLoad(source, at.xy",
        "textureLoad(source, vec2u((at.x + 1) % 24, at.y)",
        [],
        "1 columns",
    ),
}
"""What is replaced by what, options, and a word that the cause has."""


@needs_adapter
@pytest.mark.parametrize("fault", FAULTS)
def test_planted_faults_are_beyond_and_named(tmp_path, fault):
    old, new, options, word = FAULTS[fault]
    assert old in RIGHT
    status, path = kernel(tmp_path, RIGHT.replace(old, new), *options, shape="16x24x9")

    assert status == 0
    (bad,) = [image for image in verify(path, "wgsl").images if image.counts.beyond]
    assert bad.name == "h"
    causes = " ".join(f"{finding.sentence} | {finding.detail} {finding.where};" for finding in bad.findings)
    assert causes
    assert word in causes


@needs_adapter
@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (PACKED, [], "kernel.wgsl: the override b has no value: give --argument b=NUMBER"),
        (SAMPLED, [], "k: what is binding0, texture_2d<f32> t? Give --argument WHAT=binding0"),
        (SAMPLED, ["--argument", "source=binding9"], "it has binding0, binding2, binding3, o, scale, t"),
        (RIGHT.replace("rgba16float", "rgba32float"), [], "the image is rgba16float: declare it so, or set its format"),
        (
            RIGHT.replace("tanh(p.b * x)", "tanh(p.b * x"),
            [],
            "kernel.wgsl: does not compile: Shader '' parsing error: ",
        ),
        (RIGHT.replace("fn k(", "fn other("), [], "it has no kernel 'k', but other, tanh_gradient"),
        (RIGHT.replace("@group(0) @binding(0)", "@group(1) @binding(0)"), [], "source: bindings of @group(0) are"),
        (
            RIGHT.replace("write>", "writes>"),
            [],
            "result: texture_storage_2d_array<rgba16float, writes> is not supported",
        ),
        (RIGHT, ["--threadgroup", "8"], "--threadgroup: of WGSL it stands in the text"),
        (RIGHT, ["--grid", "900000000"], "needs 112,500,000 workgroups in one direction"),
        (RIGHT, ["--backend", "cpu"], "give a .metal file and --backend cpu or a .wgsl file"),
    ],
)
def test_what_cannot_run_is_one_clear_line(tmp_path, capsys, text, options, message):
    status, path = kernel(tmp_path, text, *options)

    assert status == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert not path.exists()


@needs_adapter
def test_too_many_slices_for_a_flat_texture_are_named(tmp_path, capsys):
    assert kernel(tmp_path, SAMPLED, "--argument", "source=t", "--argument", "result=o", shape="5x7x9")[0] == 2
    assert "the image has 3 slices of four channels: give texture_2d_array" in capsys.readouterr().err


@needs_adapter
def test_adapters_are_listed_without_a_graph(capsys):
    assert main(["record", "--adapter", "list"]) == 0
    assert "Vulkan" in capsys.readouterr().out or "Metal" in capsys.readouterr().out


def test_structs_are_laid_out_as_in_wgsl():
    module = Module("struct P { a: f32, v: vec3<f32>, n: u32, m: vec2u, h: f16, }  struct Q { @size(16) a: f32 }")
    fields, size = module.fields_of("P")

    places = [(field.name, field.type, field.offset) for field in fields]
    assert places[::3] == [("a", "float", 0), ("v.z", "float", 24), ("m.y", "uint", 36)]
    assert (places[4], places[-1], size) == (("n", "uint", 28), ("h", "half", 40), 48)
    assert module.fields_of("float2") == msl.fields_of("", "float2")
    with pytest.raises(mps.ImplementationError, match=r"the struct Q: '@size\(16\) a: f32' is not supported"):
        module.fields_of("Q")


def test_a_kernel_has_the_variables_that_it_reaches():
    module = Module(PACKED)

    kernel = module.kernel("k")
    assert [(one.name, one.type, one.place) for one in kernel.arguments] == [
        ("src", "uint", "binding0"), ("dst", "uint", "binding1")
    ]  # fmt: skip
    assert module.group(kernel) == (32, 1, 1)
    assert module.layouts(module.kernel("unused")) == {1: {"buffer": {"type": "uniform"}}}
