"""MPS on a Mac: the backend run whole on a strict stand-in with mpsref behind it, which refuses wrong uses."""

from __future__ import annotations

import shutil
import sys
import types
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest

import mpsref as mps
from bridge import Bridge, NSObject, WrongUseError
from mpsref.cli import main
from mpsref.graph.schema import NODE_CLASSES
from mpsref.lab import apple
from mpsref.record.request import planned
from mpsref.verify import Recording

FOLDER = Path(__file__).parents[2] / "examples" / "metal"
CLASSES = {name for name in NODE_CLASSES if getattr(mps, name).__module__ != "mpsref.graph.layers"}
"""Those of layers have tests of their own."""


def every_class():
    """A graph in which every class occurs that the backend has, forward and back."""
    x = mps.MPSNNImageNode(handle="x")
    total, kinds = None, cycle([mps.MPSNNAdditionNode, mps.MPSNNSubtractionNode, mps.MPSNNMultiplicationNode])
    for t, row in mps.NEURONS.items():
        slopes = {"data": [0.1, 0.2, 0.3, 0.4, 0.5]} if row.per_channel else {}
        node = mps.MPSCNNNeuronNode(source=x, descriptor=mps.MPSNNNeuronDescriptor(t, **slopes))
        node.label = t.name
        if total is None:
            total = node.result_image
            continue
        addition = next(kinds)(left_source=total, right_source=node.result_image)
        addition.primary_scale, addition.secondary_scale, addition.bias = 0.75, 0.5, 0.125
        addition.minimum_value, addition.maximum_value = -300, 300
        total = addition.result_image
    total.handle = "y"
    total.format = mps.MPSImageFeatureChannelFormat.float32
    ones = mps.MPSNNInitialGradientNode(source=total)
    (last,) = ones.training_graph()
    last.result_image.handle = "dx"
    return mps.GraphFile.from_results([total, last.result_image])


def small():
    """Neurons, an addition and their gradients."""
    x = mps.MPSNNImageNode(handle="x")
    h = mps.MPSCNNNeuronTanHNode(source=x, a=1.5, b=0.75)
    p = mps.MPSCNNNeuronPReLUNode(source=h.result_image, a_data=[0.25, 0.5])
    y = mps.MPSNNAdditionNode(left_source=h.result_image, right_source=p.result_image)
    y.result_image.handle = "y"
    (last,) = mps.MPSNNInitialGradientNode(source=y.result_image).training_graph()
    last.result_image.handle = "dx"
    return mps.GraphFile.from_results([y.result_image, last.result_image])


@pytest.fixture
def bridge(monkeypatch):
    """Put a stand-in in place of PyObjC."""

    installed = []

    def install(**options):
        made = Bridge(**options)
        installed.append(made)
        for name, module in made.modules().items():
            monkeypatch.setitem(sys.modules, name, module)
        return made

    yield install
    for program in (program for made in installed for program in made.programs):
        program.__exit__(None, None, None)


def recorded(tmp_path, graph, *options):
    file = tmp_path / "graph.json"
    graph.write(file)
    return main(["record", str(file), "--backend", "metal", "--out", str(tmp_path / "r"), "--verify", *options])


@pytest.mark.parametrize(
    ("kind", "policy"),
    [
        (mps.MPSCNNPoolingMaxNode, mps.MPSNNDefaultPadding(28)),
        (mps.MPSCNNPoolingAverageNode, mps.MPSNNDefaultPadding.for_tensorflow_average_pooling()),
    ],
)
def test_pooling_passes_forward_and_back(tmp_path, bridge, capsys, kind, policy):
    bridge()
    pooled = kind(source=mps.MPSNNImageNode(handle="x"), filter_size=3, stride=2)
    pooled.padding_policy = policy
    y = mps.MPSCNNNeuronTanHNode(source=pooled.result_image)
    # The incoming gradient has the size of the pooled image.
    (last,) = y.training_graph(with_source_gradient=mps.MPSNNImageNode(handle="dy"))
    last.result_image.handle = "dx"

    file = mps.GraphFile.from_results([y.result_image, last.result_image])
    assert recorded(tmp_path, file, "--shape", "2x6x5x3") == 0, capsys.readouterr().err
    assert "PASS" in capsys.readouterr().out


@pytest.mark.parametrize("extra", ["result", "other"])
def test_an_image_more_than_handles_is_tolerated(tmp_path, bridge, capsys, extra):
    bridge(extra=extra)

    assert recorded(tmp_path, small(), "--shape", "3x2x2") == 0, capsys.readouterr().err


def test_every_class_passes(tmp_path, bridge, capsys):
    made = bridge()
    file = every_class()
    assert {type(node).__name__ for node in file.nodes} == CLASSES

    assert recorded(tmp_path, file, "--shape", "2x4x3x5") == 0, capsys.readouterr().err
    recording = Recording.read(tmp_path / "r" / "recording.json")
    assert recording.device.startswith("a stand-in, macOS ")
    assert set(recording.images) == set(file.images)
    assert "PASS: all" in capsys.readouterr().out
    # One graph for each result, which exports the rest.
    assert made.commits == 2


@pytest.mark.parametrize("storage", ["float16", "float32", "unorm8"])
def test_every_format_passes_forward_and_back(tmp_path, bridge, capsys, storage):
    bridge()
    file = mps.GraphFile.read(FOLDER / "tanh.json")
    document = file.to_json() | {"storage": storage}
    document["nodes"].append({"class": "MPSNNMultiplicationNode", "sources": ["h", "dy"], "result": "p"})
    document["results"].append("p")

    assert recorded(tmp_path, mps.GraphFile.from_json(document), "--shape", "3x5x4x6") == 0, capsys.readouterr().err
    assert "PASS: all 1,080 elements of 3 images" in capsys.readouterr().out


def test_a_kernel_takes_the_place_of_a_node_and_others_read_it(tmp_path, bridge, capsys):
    """What the stand-in compiles is run by this machine's compiler."""
    if not any(map(shutil.which, ("g++", "clang++", "c++"))):
        pytest.skip("no C++ compiler")
    bridge()
    document = mps.GraphFile.read(FOLDER / "tanh.json").to_json()
    document["nodes"].append({"class": "MPSCNNNeuronAbsoluteNode", "source": "h", "result": "size"})
    document["results"] = ["h", "dx", "size"]
    kernel = (FOLDER / "tanh.metal").read_text().replace("p.a * tanh(p.b * x)", "p.a * tanh(p.b * x) + half4(SHIFT)")
    file = tmp_path / "shifted.metal"
    file.write_text(kernel.replace("kernel void", "constant float SHIFT [[function_constant(0)]];\nkernel void", 1))
    options = ["--shape", "4x4x6", "--kernel", str(file), "--function", "tanh_forward", "--for", "h"]

    assert recorded(tmp_path, mps.GraphFile.from_json(document), *options, "--argument", "SHIFT=2") == 1
    captured = capsys.readouterr()
    assert "in 1 of 3 images, first in h (MPSCNNNeuronTanHNode)" in captured.out, captured
    shifted, size = (Recording.read(tmp_path / "r" / "recording.json").images[name].read() for name in ("h", "size"))
    assert np.array_equal(abs(shifted.to_array()), size.to_array(), equal_nan=True)
    shutil.rmtree(tmp_path / "r")
    assert recorded(tmp_path, mps.GraphFile.from_json(document), *options) == 2
    assert "float SHIFT has no value: give --argument SHIFT=VALUE" in capsys.readouterr().err


# ---- what cannot be done is one line ----


def test_without_pyobjc_or_a_device_that_is_said(tmp_path, bridge, monkeypatch, capsys):
    bridge(device=False)
    assert recorded(tmp_path, small(), "--shape", "2x2x2") == 2
    assert capsys.readouterr().err == "mpsref: --backend metal: this machine has no Metal device: run it on a Mac\n"

    monkeypatch.setitem(sys.modules, "Metal", None)
    assert recorded(tmp_path, small(), "--shape", "2x2x2") == 2
    assert "pip install pyobjc-framework-Metal pyobjc-framework-MetalPerformanceShaders" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


def test_convolution_is_refused_in_words_and_nothing_is_overwritten(tmp_path, bridge, capsys):
    bridge()
    x = mps.MPSNNImageNode(handle="x")
    descriptor = mps.MPSCNNConvolutionDescriptor(
        kernel_width=1, kernel_height=1, input_feature_channels=4, output_feature_channels=2
    )
    weights = mps.ArrayDataSource(descriptor, np.ones(descriptor.weights_shape))
    layer = mps.MPSCNNConvolutionNode(source=x, weights=weights)

    assert recorded(tmp_path, mps.GraphFile.from_results([layer.result_image]), "--shape", "4x4x4") == 2
    assert "--backend metal has neurons, arithmetic and pooling, but no MPSCNNConvo" in capsys.readouterr().err
    pooling = mps.MPSCNNPoolingMaxNode(source=x, filter_size=2)
    pooling.edge_mode = mps.MPSImageEdgeMode.zero
    assert recorded(tmp_path, mps.GraphFile.from_results([pooling.result_image]), "--shape", "4x4x4") == 2
    assert "edge_mode: the nodes of MPS clamp" in capsys.readouterr().err
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "mine").write_text("kept")
    assert recorded(tmp_path, small(), "--shape", "2x2x2") == 2
    assert [path.name for path in (tmp_path / "r").iterdir()] == ["mine"]


@pytest.mark.parametrize(
    ("selector", "value", "words"),
    [
        ("MPSImage_width", lambda *_: 9, "MPS made an image of width, height, channels and format"),
        ("MTLCommandBuffer_error", lambda *_: Problem(), "y: the GPU hangs"),
        (
            "MPSNNGraph_initWithDevice_resultImage_resultImageIsNeeded",
            lambda *_: None,
            "y: MPS makes no graph of it",
        ),
        ("MPSNNGraph_intermediateImageHandles", lambda *_: None, "images for 0 handles"),
        ("MTLCommandQueue_commandBuffer", lambda *_: None, "Metal makes no command buffer"),
    ],
)
def test_what_fails_on_the_device_is_one_line(tmp_path, bridge, capsys, selector, value, words):
    setattr(bridge(), selector, value)

    assert recorded(tmp_path, small(), "--shape", "2x2x2") == 2
    assert words in capsys.readouterr().err


class Problem:
    kind = "NSError"

    def __str__(self):
        return "the GPU hangs"


# ---- wrong uses, planted in the backend ----

SYNCHRONIZED = """\
        for images in (returned, *others):
            for image in images:
                image.synchronizeOnCommandBuffer_(buffer)
"""
FINISHED = "        self.finish(buffer, result)\n"
RUN = "        buffer.commit()\n        buffer.waitUntilCompleted()\n"
GRAPH = ".alloc().initWithDevice_resultImage_resultImageIsNeeded_("
SECONDARY = 'entry["is_secondary_source_filter"]\n'

PLANTED = {
    "no synchronization": ("image.synchronizeOnCommandBuffer_(buffer)", "pass", "not synchronized"),
    "synchronized after the commit": (SYNCHRONIZED + FINISHED, FINISHED + SYNCHRONIZED, "after the commit"),
    "used before the commit": (RUN, "", "committed and done"),
    "not waited for": ("        buffer.waitUntilCompleted()\n", "", "committed and done"),
    "committed twice": ("        buffer.commit()\n", "        buffer.commit()\n        buffer.commit()\n", "twice"),
    "exported as a temporary image": (
        "        self.images[name].setImageAllocator_(self._mps.MPSImage.defaultAllocator())\n",
        "",
        "cannot be synchronized|too few reads",
    ),
    "no format": ("image.setFormat_(int(self._formats[name]))", "pass", "no format is set"),
    "a format as an enum of ours": ("setFormat_(int(nodes.storage))", "setFormat_(nodes.storage)", "MPSImageFeature"),
    "no handle": ("image.setHandle_(self._handle.alloc().init().named(name))", "pass", "no handle with a label"),
    "a source too few": ("            buffer, batches, None", "            buffer, batches[1:], None", "beyond bounds"),
    "a source not written": (
        "            image.writeBytes_dataLayout_imageIndex_(source.read_bytes(HWC, i), int(HWC), 0)\n",
        "",
        "never written",
    ),
    "a batch that is not in an array": ("buffer, batches, None", "buffer, batches[0], None", "for MPSImageBatch"),
    "an array that cannot grow": ("self.foundation.NSMutableArray.array()", "[]", "not a mutable array"),
    "read into too little": ("bytearray(len(", "bytearray(-1 + len(", "bytes for an image of"),
    "read into what cannot be written": ("data = bytearray(len(", "data = bytes(len(", "cannot be written to"),
    "nil for a state": (".resultState()\n", ".resultState() and None\n", "nil where"),
    "a neuron's state for arithmetic": (
        'self._makers[entry["gradient_state"]].resultState()',
        "next(iter(self._makers.values())).resultState()",
        "GradientStateNode",
    ),
    "a number for yes or no": (SECONDARY, "1.0 * " + SECONDARY, "BOOL"),
    "bytes for data": ("self._data.dataWithBytes_length_(data, len(data))", "data", "for NSData"),
    "a text for a number": ('entry[p] for p in "abc"', 'str(entry[p]) for p in "abc"', "for float"),
    "not initialized": (GRAPH, ".alloc().setFormat_(125) or (", "before init"),
}  # fmt: skip


def mutated(old, new):
    source = Path(apple.__file__).read_text()
    assert source.count(old) == 1, old
    module = types.ModuleType("mutated")
    module.__dict__["__file__"] = apple.__file__
    sys.modules["mutated"] = module
    exec(compile(source.replace(old, new), "mutated", "exec"), module.__dict__)  # noqa: S102 - our own text
    return module.Metal()


def images(metal):
    file = small()
    sources, awaited = planned(file, (2, 1, 1, 2), "float16")
    return metal.graph(file, sources, awaited)


@pytest.mark.parametrize(("old", "new", "words"), PLANTED.values(), ids=PLANTED)
def test_a_wrong_use_in_the_backend_is_refused(bridge, old, new, words):
    bridge()

    with pytest.raises(WrongUseError, match=words):
        images(mutated(old, new))


def test_the_backend_as_it_is_has_no_wrong_use(bridge):
    bridge()

    assert {"y", "dx"} <= set(images(mutated("NOT RUN", "NOT RUN")))


# ---- wrong uses of what the backend does not use today ----


def shaders(bridge):
    bridge()
    return sys.modules["MetalPerformanceShaders"]


def test_an_unknown_selector_an_argument_too_few_and_a_missing_init_are_refused(bridge):
    shader = shaders(bridge)
    node = shader.MPSNNImageNode.nodeWithHandle_(None)

    for wrong in (
        lambda: shader.MPSCNNNeuronTanHNode.nodeWithSource_b_(node, 1.0),
        lambda: shader.MPSCNNNeuronTanHNode.initWithSource_(node),
        lambda: shader.MPSNNGraph.alloc().init(),
        lambda: node.setHeight_(3),
    ):
        with pytest.raises(AttributeError, match="has no selector"):
            wrong()
    with pytest.raises(WrongUseError, match="1 arguments for 3"):
        shader.MPSCNNNeuronTanHNode.nodeWithSource_a_b_(node)


def test_a_block_of_other_arguments_is_refused(bridge):
    shader = shaders(bridge)
    tanh = shader.MPSCNNNeuronTanHNode.nodeWithSource_(shader.MPSNNImageNode.nodeWithHandle_(None))

    with pytest.raises(WrongUseError, match="a function of 2 arguments for a block of 4"):
        tanh.trainingGraphWithSourceGradient_nodeHandler_(None, lambda node, source: None)
    with pytest.raises(WrongUseError, match="int for a block"):
        tanh.trainingGraphWithSourceGradient_nodeHandler_(None, 4)


def test_a_handle_without_a_label_is_refused():
    with pytest.raises(TypeError, match="does not fully implement protocol: no label"):

        class Handle(NSObject, protocols=["MPSHandle"]):
            def supportsSecureCoding(self):
                """Present, unlike the label."""
