"""Graph files and recordings: exact round trips, and nothing that a hostile file can do."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import zipfile
from functools import cache
from itertools import cycle

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mpsref as mps
from builders import names_in
from mpsref.documents import LARGEST_DOCUMENT, schema, validate
from mpsref.files import write_atomically
from mpsref.graph.fields import shortest
from mpsref.graph.schema import MOST_NODES, NODE_CLASSES, graph_schema
from mpsref.teach import trace
from mpsref.tensors import write_safetensors
from mpsref.verify import Recording, verify, write_recording

Format = mps.MPSImageFeatureChannelFormat

GRAPH = {
    "format": "mpsref-graph",
    "version": 1,
    "storage": "float16",
    "nodes": [
        {"class": "MPSCNNNeuronTanHNode", "source": "x", "a": 1.5, "b": 0.75, "result": "h1"},
        {"class": "MPSCNNNeuronPReLUNode", "source": "h1", "a_data": [0.1, 0.2], "label": "two", "result": "h2"},
        {
            "class": "MPSCNNNeuronGradientNode",
            "source_gradient": "dy",
            "source_image": "x",
            "gradient_state": "h1",
            "descriptor": {"neuron_type": "tanH", "a": 1.5, "b": 0.75},
            "result": "dx",
        },
    ],
    "results": ["h2", "dx"],
}


def every_class() -> mps.GraphFile:
    """A graph in which every class that a file can hold occurs, with awkward numbers."""
    x = mps.MPSNNImageNode(handle="x")
    x.format = Format.float32
    images, awkward = [], [0.1, -1e-45, 3.4028235e38]
    for t, row in mps.NEURONS.items():
        given = {"data": [0.1, -1e-45, 1 / 3]} if row.per_channel else dict(zip(row.parameters, awkward, strict=False))
        node = mps.MPSCNNNeuronNode(source=x, descriptor=mps.MPSNNNeuronDescriptor(t, **given))
        node.label = f"label of {t.name}"
        images.append(node.result_image)
    for layer in layers(x):
        total = mps.MPSNNAdditionNode(left_source=images.pop(), right_source=layer.result_image)
        images.append(total.result_image)
    total = images[0]
    kinds = cycle([mps.MPSNNAdditionNode, mps.MPSNNSubtractionNode, mps.MPSNNMultiplicationNode])
    for kind, image in zip(kinds, images[1:], strict=False):
        node = kind(left_source=total, right_source=image)
        node.primary_scale, node.bias, node.maximum_value = 0.1, -1e-40, 7
        total = node.result_image
    total.export_from_graph = images[3].stop_gradient = True
    ones = mps.MPSNNInitialGradientNode(source=total)
    termini = ones.training_graph()
    return mps.GraphFile.from_results([total, *(node.result_image for node in termini)], Format.unorm16)


def layers(x):
    """A layer of each class on an image of 3 channels, with the options of its class; the results have one size."""
    d = mps.MPSCNNDepthWiseConvolutionDescriptor(
        kernel_width=3, kernel_height=2, input_feature_channels=3, output_feature_channels=3
    )
    d.dilation_rate_x = 2
    narrow = mps.MPSCNNConvolutionNode(source=x, weights=mps.ArrayDataSource(d, np.full((3, 2, 3), 0.1), layout="OHW"))
    narrow.accumulator_precision = "half"
    narrow.padding_policy = mps.FixedPadding(width=4, height=3, offset_x=-1, offset_y=2)
    narrow.convolution_gradient_state.export_from_graph = True
    d = mps.MPSCNNConvolutionDescriptor(
        kernel_width=4, kernel_height=9, input_feature_channels=3, output_feature_channels=3
    )
    halves = np.arange(324).astype(np.float16).reshape(3, 9, 4, 3)
    wide = mps.MPSCNNFullyConnectedNode(source=x, weights=mps.ArrayDataSource(d, halves, [0.1, -1e-45, 3e38]))
    most = mps.MPSCNNPoolingMaxNode(source=x, filter_size=3, stride=1)
    most.padding_policy = mps.MPSNNDefaultPadding.for_tensorflow_average_pooling()
    mean = mps.MPSCNNPoolingAverageNode(
        source=x, kernel_width=2, kernel_height=3, stride_in_pixels_x=1, stride_in_pixels_y=2
    )
    mean.edge_mode, mean.padding_policy = "zero", mps.MPSNNDefaultPadding(32 | 9 | 32768)
    return narrow, wide, most, mean


def refused(document, *words):
    with pytest.raises(mps.FileFormatError) as error:
        mps.GraphFile.from_json(document)
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


def changed(path, value, document=GRAPH):
    """A copy of a document with one field set, or removed (value None)."""
    document = copy.deepcopy(document)
    *parents, last = path
    place = document
    for key in parents:
        place = place[key]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return document


# ---- graph files ----


def test_a_written_graph_reads_back_equal_with_every_class_and_setting(tmp_path):
    file = every_class()
    file.write(tmp_path / "graph.json")

    again = mps.GraphFile.read(tmp_path / "graph.json")

    assert {type(node).__name__ for node in file.nodes} == set(NODE_CLASSES)
    assert again.to_json() == file.to_json()
    assert [repr(node) for node in again.nodes] == [repr(node) for node in file.nodes]
    for name, image in file.images.items():
        other = again.images[name]
        assert (image.format, image.export_from_graph, image.stop_gradient) == (
            other.format, other.export_from_graph, other.stop_gradient)  # fmt: skip
    assert again.result_states == file.result_states
    assert names_in(tmp_path) == ["graph.fullyConnected.weights.npy", "graph.json"]


def test_weights_come_from_files_of_other_programs_and_nowhere_else(tmp_path):
    weights = np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2)
    np.save(tmp_path / "w.npy", weights)
    write_safetensors(tmp_path / "all.safetensors", {"conv.w": weights.astype(np.float16), "b": np.float32([1, 2])})
    document = {
        "format": "mpsref-graph",
        "version": 1,
        "nodes": [{"class": "MPSCNNConvolutionNode", "source": "x", "weights": "one", "result": "y"}],
        "results": ["y"],
        "data_sources": {
            "one": {
                "descriptor": {"class": "MPSCNNConvolutionDescriptor", "kernel_width": 2, "kernel_height": 2,
                               "input_feature_channels": 3, "output_feature_channels": 2},
                "weights": {"file": "w.npy", "layout": "OIHW"},
                "bias_terms": {"file": "all.safetensors", "tensor": "b"},
            }
        },
    }  # fmt: skip

    def read(**changes):
        entry = document["data_sources"]["one"]
        changed = document | {"data_sources": {"one": entry | changes}}
        (tmp_path / "graph.json").write_text(json.dumps(changed))
        return mps.GraphFile.read(tmp_path / "graph.json").nodes[0].weights_read

    digest = hashlib.sha256((tmp_path / "w.npy").read_bytes()).hexdigest()
    for entry in ({"file": "w.npy", "layout": "OIHW", "sha256": digest},
                  {"file": "all.safetensors", "tensor": "conv.w", "layout": "OIHW"}):  # fmt: skip
        found = read(weights=entry)
        np.testing.assert_array_equal(found.values, weights.transpose(0, 2, 3, 1))
        np.testing.assert_array_equal(found.bias, [1, 2])
    assert found.values.dtype == np.float16
    (tmp_path / "other").mkdir()
    np.save(tmp_path.parent / "outside.npy", weights)
    (tmp_path / "link.npy").symlink_to(tmp_path.parent / "outside.npy")
    for entry, *words in (
        ({"file": "../outside.npy"}, "one.weights", "outside"),
        ({"file": "link.npy"}, "one.weights", "outside"),
        ({"file": "none.npy"}, "one.weights", "none.npy"),
        ({"file": "other"}, "one.weights", "folder"),
        ({"file": "w.npy", "layout": "OIHW", "sha256": "0" * 64}, "one.weights", "sha256"),
        ({"file": "w.npy"}, "one.weights", "(2, 2, 2, 3)", "OHWI"),
        ({"file": "all.safetensors", "tensor": "c"}, "one.weights", "'c'", "conv.w"),
        ({"file": "graph.json"}, "one.weights", "graph.json"),
        ({"values": [1, 2]}, "one.weights", "values", "2 numbers"),
        ({"layout": "OIHW"}, "weights.file", "missing"),
    ):
        with pytest.raises(mps.FileFormatError) as error:
            read(weights=entry)
        for word in words:
            assert word in str(error.value), error.value


def test_the_graph_of_the_design_reads_and_runs():
    file = mps.GraphFile.from_json(GRAPH)
    graph = mps.MPSNNGraph(result_images=file.result_images, format=file.storage)

    images = graph.run(x=np.float16([[[-1, 1]]]), dy=np.float16([[[1, 1]]]))

    assert list(images) == ["h2", "dx"]
    assert file.nodes[1].label == "two"
    assert graph.source_image_handles == ["x", "dy"]


def test_nodes_may_stand_in_any_order():
    document = changed(["nodes"], GRAPH["nodes"][::-1])

    file = mps.GraphFile.from_json(document)

    assert [type(node).__name__ for node in file.nodes][-1] == "MPSCNNNeuronTanHNode"
    assert file.to_json()["nodes"] == document["nodes"]


def test_omitted_parameters_take_the_documented_default():
    document = changed(["nodes", 0], {"class": "MPSCNNNeuronReLUNNode", "source": "x", "result": "h1"})
    document["nodes"][2]["descriptor"] = {"neuron_type": "reLUN"}

    file = mps.GraphFile.from_json(document)

    assert (file.nodes[0].a, file.nodes[0].b) == (1, 6)
    assert file.nodes[2].descriptor == file.nodes[0].descriptor


def test_images_without_a_handle_or_with_one_that_is_taken_get_names_of_their_own():
    a, b, c = (mps.MPSNNImageNode(handle=h) for h in ("x", "x", None))
    first = mps.MPSNNAdditionNode(left_source=a, right_source=b)
    second = mps.MPSNNAdditionNode(left_source=first.result_image, right_source=c)

    file = mps.GraphFile.from_results([second.result_image])

    assert len(file.images) == len(set(file.images)) == 5
    assert file.images["x"] is a
    assert mps.GraphFile.from_json(file.to_json()).to_json() == file.to_json()


def test_images_without_a_name_get_those_that_a_trace_has():
    x, dy = mps.MPSNNImageNode(handle="x"), mps.MPSNNImageNode(handle="dy")
    h = mps.MPSCNNNeuronTanHNode(source=x)
    y = mps.MPSCNNNeuronGeLUNode(source=h.result_image)
    y.label = "y"
    (last,) = y.training_graph(with_source_gradient=dy)
    results = [y.result_image, last.result_image]

    file = mps.GraphFile.from_results(results)

    assert list(file.images) == ["x", "tanH", "y", "dy", "dtanH", "dx"]
    steps = trace(mps.MPSNNGraph(result_images=results), x=1, dy=1).steps
    assert [step.name for step in steps] == ["tanH", "y", "dtanH", "dx"]


def test_results_that_are_no_list_of_images_are_refused():
    node = mps.MPSCNNNeuronTanHNode(source=mps.MPSNNImageNode(handle="x"))

    with pytest.raises(mps.ParameterError, match="result_images is a MPSNNGradientStateNode: give an MPSNNImageNode"):
        mps.GraphFile.from_results([node.result_state])
    with pytest.raises(mps.ParameterError, match="result_images is a MPSNNImageNode: give a list"):
        mps.GraphFile.from_results(node.result_image)
    with pytest.raises(mps.ImageError, match="storage is 'double': choose one of unorm8, unorm16"):
        mps.GraphFile.from_results([node.result_image], "double")


def test_the_forward_node_of_a_state_is_written_though_no_result_depends_on_it():
    x, dy = mps.MPSNNImageNode(handle="x"), mps.MPSNNImageNode(handle="dy")
    n = mps.MPSCNNNeuronSigmoidNode(source=x)
    g = n.gradient_filter(with_source=dy)

    file = mps.GraphFile.from_results([g.result_image])

    assert set(file.nodes) == {n, g}


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_the_shortest_decimal_gives_the_float32_back(value):
    text = json.dumps(shortest(value))

    assert np.float32(json.loads(text)).tobytes() == np.float32(value).tobytes()
    assert len(text) <= len(repr(value))


def test_a_chain_of_five_thousand_nodes_is_read(tmp_path):
    nodes = [{"class": "MPSCNNNeuronReLUNode", "source": f"h{i}", "result": f"h{i + 1}"} for i in range(5_000)]
    (tmp_path / "g.json").write_text(json.dumps(changed(["nodes"], nodes) | {"results": ["h5000"]}))

    assert len(mps.GraphFile.read(tmp_path / "g.json").nodes) == 5_000


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (["format"], "onnx", ["format", "mpsref-graph"]),
        (["version"], 2, ["version", "1"]),
        (["version"], True, ["version"]),
        (["storage"], "float64", ["storage", "float16"]),
        (["nodes"], {}, ["nodes", "array"]),
        (["nodes"], None, ["nodes", "missing"]),
        (["results"], [], ["results"]),
        (["results"], ["nowhere"], ["results[0]", "nowhere"]),
        (["surprise"], 1, ["surprise", "unknown"]),
        (["nodes", 0, "class"], "MPSCNNSoftMaxNode", ["nodes[0].class", "MPSCNNNeuronTanHNode"]),
        (["nodes", 0, "class"], "MPSNNFilterNode", ["nodes[0].class"]),
        (["nodes", 0, "class"], ["list"], ["nodes[0].class"]),
        (["nodes", 0, "a"], "1.5", ["nodes[0].a", "number"]),
        (["nodes", 0, "a"], True, ["nodes[0].a", "number"]),
        (["nodes", 0, "a"], 1e39, ["nodes[0].a"]),
        (["nodes", 0, "a"], 10**400, ["nodes[0].a"]),
        (["nodes", 0, "c"], 1, ["nodes[0].", "c", "unknown"]),
        (["nodes", 0, "source"], None, ["nodes[0].source", "missing"]),
        (["nodes", 0], {"class": "MPSCNNNeuronTanHNode", "sourse": "x", "result": "h1"}, ['[0]."sourse"', "source, a"]),
        (["nodes", 2, "descriptor"], {"type": "tanH"}, ["nodes[2].descriptor.neuron_type", 'beside "type"']),
        (["nodes", 0, "source"], "", ["nodes[0].source"]),
        (["nodes", 0, "result"], "n" * 2000, ["nodes[0].result"]),
        (["nodes", 1, "a_data"], [], ["nodes[1].a_data"]),
        (["nodes", 1, "a_data"], None, ["nodes[1].a_data", "missing"]),
        (["nodes", 1, "a_data"], [0.1, None], ["nodes[1].a_data[1]"]),
        (["nodes", 1, "result"], "h1", ["nodes[1].result", "h1", "nodes[0]"]),
        (["nodes", 1, "source"], "h2", ["nodes[1]", "cycle"]),
        (["nodes", 0, "source"], "h2", ["nodes[", "cycle"]),
        (["nodes", 2, "gradient_state"], "x", ["nodes[2].gradient_state", "x"]),
        (["nodes", 2, "gradient_state"], "dx", ["nodes[2]", "cycle"]),
        (["nodes", 2, "descriptor"], {"neuron_type": "geLU"}, ["nodes[2].descriptor", "geLU", "h1", "TanH"]),
        (["nodes", 2, "source_image"], "h2", ["nodes[2].source_image", "h2"]),
        (["nodes", 2, "descriptor"], {"neuron_type": "softMax"}, ["nodes[2].descriptor.neuron_type"]),
        (["nodes", 2, "descriptor"], {"neuron_type": "pReLU"}, ["nodes[2].descriptor.data", "missing"]),
        (["nodes", 2, "descriptor"], {"neuron_type": "reLU", "b": 1}, ["nodes[2].descriptor", "b", "unknown"]),
        (["images"], {"nobody": {}}, ["images.nobody"]),
        (["images"], {"x": {"format": "float64"}}, ["images.x.format"]),
        (["images"], {"x": {"stop_gradient": 1}}, ["images.x.stop_gradient"]),
    ],
)
def test_a_wrong_field_is_named(path, value, words):
    refused(changed(path, value), *words)


def test_a_state_of_the_wrong_kind_is_named():
    document = copy.deepcopy(GRAPH)
    document["nodes"] += [
        {"class": "MPSNNAdditionNode", "sources": ["x", "x"], "result": "s"},
        {"class": "MPSCNNNeuronGradientNode", "source_gradient": "dy", "source_image": "x", "gradient_state": "s",
         "descriptor": {"neuron_type": "reLU"}, "result": "g"},
    ]  # fmt: skip

    refused(document, "nodes[4].gradient_state", "MPSNNGradientStateNode")


def test_a_gradient_node_has_no_state_to_give():
    document = copy.deepcopy(GRAPH)
    document["nodes"].append(dict(GRAPH["nodes"][2], gradient_state="dx", result="d2"))

    refused(document, "nodes[3].gradient_state")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ["not JSON"]),
        (json.dumps(GRAPH).encode()[:-20], ["not JSON"]),
        (b"\xff\xfe\x00", ["not JSON"]),
        (b"[" * 100_000, ["nested too deeply"]),
        (b'{"a":' * 100_000, ["nested too deeply"]),
        (b"[]", ["object"]),
        (b"null", ["object"]),
        (b"\xef\xbb\xbf" + json.dumps(GRAPH).encode(), ["BOM"]),
        (json.dumps(GRAPH).encode("utf-16"), ["UTF-8"]),
        (b'{"format": "mpsref-graph", "format": "mpsref-graph"}', ["format", "twice"]),
        (json.dumps(GRAPH).replace("1.5", "NaN").encode(), ["NaN"]),
        (json.dumps(GRAPH).replace("1.5", "-Infinity").encode(), ["Infinity"]),
        (json.dumps(GRAPH).replace("1.5", "9" * 5000).encode(), ["not JSON"]),
        (json.dumps(GRAPH).replace("1.5", "1e999").encode(), ["nodes[0].a"]),
    ],
)
def test_a_hostile_file_is_refused_by_name(tmp_path, content, words):
    path = tmp_path / "graph.json"
    path.write_bytes(content)

    with pytest.raises(mps.FileFormatError) as error:
        mps.GraphFile.read(path)

    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 1000
    for word in words:
        assert word in str(error.value)


def test_a_million_nodes_are_refused_before_any_is_made(tmp_path):
    node = json.dumps({"class": "MPSCNNNeuronReLUNode", "source": "source", "result": "result"})
    head = json.dumps(GRAPH | {"nodes": []})
    path = tmp_path / "graph.json"
    path.write_text(head.replace('"nodes": []', f'"nodes": [{",".join([node] * 1_000_000)}]'))
    with pytest.raises(mps.FileFormatError, match="larger than 64 MiB"):
        mps.GraphFile.read(path)

    path.write_text(head.replace('"nodes": []', f'"nodes": [{",".join(["1"] * 1_000_000)}]'))
    with pytest.raises(mps.FileFormatError, match=rf"nodes: has 1000000 items: 0 to {MOST_NODES}"):
        mps.GraphFile.read(path)


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    path = tmp_path / "graph.json"
    with path.open("wb") as file:
        file.truncate(LARGEST_DOCUMENT + 1)

    with pytest.raises(mps.FileFormatError, match="64 MiB"):
        mps.GraphFile.read(path)


@pytest.mark.parametrize("name", ["missing.json", ".", "a\0b"])
def test_what_is_no_file_is_refused(tmp_path, name):
    with pytest.raises(mps.FileFormatError):
        mps.GraphFile.read(tmp_path / name)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "graph.json")

    with pytest.raises(mps.FileFormatError, match="not a regular file"):
        mps.GraphFile.read(tmp_path / "graph.json")


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"old")

    def fail(file):
        file.write(b"new")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, fail)

    assert path.read_bytes() == b"old"
    assert names_in(tmp_path) == ["f"]


# ---- schemas ----


def test_the_shipped_graph_schema_is_the_one_that_the_node_classes_make():
    assert schema("graph") == graph_schema(), "run: python -m mpsref.graph.schema > mpsref/schemas/graph.schema.json"


@pytest.mark.parametrize("kind", ["graph", "recording", "certificate", "checkpoint", "tolerance", "report", "vectors"])
def test_the_schemas_are_json_schemas(kind):
    jsonschema.Draft202012Validator.check_schema(schema(kind))


RECORDING = {
    "format": "mpsref-recording",
    "version": 1,
    "device": "a device",
    "graph": "graph.json",
    "images": {
        "x": {"file": "x.f16", "channel_format": "float16", "width": 4, "height": 2, "feature_channels": 3},
        "y": {"file": "y.npy"},
    },
}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 10**6) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


def places_in(document):
    """The objects and arrays of a document that have something in them."""
    if isinstance(document, dict | list) and document:
        yield document
        for inner in document.values() if isinstance(document, dict) else document:
            yield from places_in(inner)


@st.composite
def mutated(draw, document):
    """A document with up to three fields replaced, removed or added, anywhere."""
    document = copy.deepcopy(document)
    names = ["x", "h1", "a", "b", "c", "data", "MPSNNInitialGradientNode", "MPSCNNNeuronNode", "pReLU", "z.npy"]
    for _ in range(draw(st.integers(1, 3))):
        if not (places := list(places_in(document))):
            break
        place = places[draw(st.integers(0, len(places) - 1))]
        key = draw(st.sampled_from(list(place) if isinstance(place, dict) else range(len(place))))
        action = draw(st.sampled_from(["replace", "name", "remove", "add"]))
        if action == "replace":
            place[key] = draw(json_values)
        elif action == "name":
            place[key] = draw(st.sampled_from(names))
        elif action == "remove":
            del place[key]
        elif isinstance(place, dict):
            place[draw(st.sampled_from(names))] = draw(json_values)
        else:
            place.append(draw(json_values))
    return document


@cache
def document_of_every_class():
    return every_class().to_json()


@cache
def well_kept_validator(kind):
    return jsonschema.Draft202012Validator(schema(kind))


def assert_validators_agree(kind, value):
    try:
        validate(value, schema(kind))
        ours = True
    except mps.FileFormatError:
        ours = False

    assert ours == well_kept_validator(kind).is_valid(value)


@pytest.mark.parametrize(("kind", "document"), [("graph", GRAPH), ("recording", RECORDING)])
@settings(deadline=None, max_examples=100)
@given(data=st.data())
def test_our_validator_agrees_with_a_well_kept_one(kind, document, data):
    assert_validators_agree(kind, data.draw(mutated(document)))


@settings(deadline=None, max_examples=20)
@given(data=st.data())
def test_our_validator_agrees_with_a_well_kept_one_about_every_class(data):
    assert_validators_agree("graph", data.draw(mutated(document_of_every_class())))


@settings(deadline=None, max_examples=150)
@given(mutated(GRAPH))
def test_a_mutated_graph_is_read_or_refused_with_one_line(document):
    refusal, file = "", None
    try:
        file = mps.GraphFile.from_json(document)
    except mps.FileFormatError as error:
        refusal = str(error)

    assert "\n" not in refusal
    if file is not None:
        assert mps.GraphFile.from_json(file.to_json()).to_json() == file.to_json()


# ---- recordings ----


def small(folder, *, raw=False, channel_format=Format.float16):
    x = mps.MPSNNImageNode(handle="x")
    n = mps.MPSCNNNeuronSigmoidNode(source=x)
    n.result_image.handle = "y"
    n.result_image.format = channel_format
    source = mps.MPSImage.from_array(np.linspace(0, 1, 2 * 2 * 3 * 5).reshape(2, 2, 3, 5), channel_format)
    graph = mps.MPSNNGraph(result_image=n.result_image)
    images = {"x": source, "y": graph.encode(source_images=[source])}
    return write_recording(folder, mps.GraphFile.from_results([n.result_image]), images, "mpsref", raw=raw), images


def edit(path, change):
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def header(text):
    """A .npy file with this header and some zeros."""
    padded = text.encode() + b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + padded + bytes(64)


def refused_recording(path, *words):
    with pytest.raises(mps.FileFormatError) as error:
        verify(path)
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("channel_format", [f for f in Format if f])
def test_a_written_recording_reads_back_bit_for_bit(tmp_path, raw, channel_format):
    path, images = small(tmp_path / "r", raw=raw, channel_format=channel_format)

    recording = Recording.read(path)

    for name, image in images.items():
        assert recording.images[name].read().to_array().tobytes() == image.to_array().tobytes()
        assert recording.images[name].descriptor == image.descriptor
    assert verify(recording).passed


@pytest.mark.parametrize("suffix", ["f16", "npy"])
def test_channel_major_files_are_read_as_such(tmp_path, suffix):
    path, images = small(tmp_path / "r", raw=suffix == "f16")
    planes = np.ascontiguousarray(np.moveaxis(images["y"].to_array(), -1, 1))
    file = tmp_path / "r" / f"y.{suffix}"
    if suffix == "npy":
        np.save(file, planes)
    else:
        file.write_bytes(planes.tobytes())
    assert not verify(path).passed if suffix == "f16" else True

    edit(path, lambda d: d["images"]["y"].update(data_layout="featureChannelsxHeightxWidth"))

    assert verify(path).passed


def test_an_array_of_three_axes_is_one_image(tmp_path):
    path, images = small(tmp_path / "r")
    for name in images:
        np.save(tmp_path / "r" / f"{name}.npy", images[name].to_array()[0])

    assert Recording.read(path).images["x"].descriptor.number_of_images == 1
    assert verify(path).passed


def test_a_recording_is_not_written_into_a_folder_that_holds_something(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")

    with pytest.raises(mps.FileFormatError, match="not empty"):
        small(tmp_path)

    assert names_in(tmp_path) == ["mine.txt"]


def test_a_recording_is_not_written_where_a_file_is(tmp_path):
    (tmp_path / "f").write_text("mine")

    with pytest.raises(mps.FileFormatError, match="choose another folder"):
        small(tmp_path / "f")


def test_image_names_that_are_no_file_names_are_written_and_read(tmp_path):
    handles = ["../x", "a/b", "A_B", "a_b", ".", "x" * 300, "graph", "con\0"]
    total = mps.MPSNNImageNode(handle="start")
    start = mps.MPSImage.from_array(np.float16([[[1]]]))
    images = {"start": start}
    for handle in handles:
        node = mps.MPSCNNNeuronAbsoluteNode(source=total)
        total = node.result_image
        total.handle = handle
        images[handle] = start

    path = write_recording(tmp_path / "r", mps.GraphFile.from_results([total]), images, "none", raw=True)

    assert verify(path).passed
    assert len(names_in(tmp_path / "r")) == len(images) + 2
    assert names_in(tmp_path) == ["r"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d.pop("graph"), ["graph", "missing"]),
        (lambda d: d.update(graph="nowhere.json"), ["nowhere.json"]),
        (lambda d: d.update(graph="/etc/hostname"), ["graph", "outside"]),
        (lambda d: d.update(graph="../graph.json"), ["graph", "outside"]),
        (lambda d: d.update(graph="y.f16"), ["y.f16", "not JSON"]),
        (lambda d: d["images"]["x"].update(file="../x.f16"), ["images.x.file", "outside"]),
        (lambda d: d["images"]["x"].update(file="/dev/zero"), ["images.x.file", "outside"]),
        (lambda d: d["images"]["x"].update(file="link"), ["images.x.file", "outside"]),
        (lambda d: d["images"]["x"].update(file="a\0b"), ["images.x.file"]),
        (lambda d: d["images"]["x"].update(file="."), ["is a folder: name a file in it"]),
        (lambda d: d["images"]["x"].update(file="x.npz"), ["images.x.file", "No such file", "fix its name"]),
        (lambda d: d["images"]["x"].update(file="x" * 400), ["xxx", "File name too long"]),
        (lambda d: d["images"].update({n: dict(d["images"][n], file="no") for n in "xy"}), ["x.file", "1 more"]),
        (lambda d: d["images"]["x"].update(wdth=d["images"]["x"].pop("width")), ["images.x", '"wdth"', "known are"]),
        (lambda d: d["images"].update(x={"file": "x.npz"}), ["images.x.channel_format", "raw", "convert"]),
        (
            lambda d: d["images"]["x"].update(channel_format="float32"),
            ["120 bytes", "1 of the 2 images of the batch or unorm16"],
        ),
        (lambda d: d["images"]["x"].update(width=4), ["x.f16", "120 bytes", "2 x 2 x 4 x 5 x 2 = 160: fix the size"]),
        (lambda d: d["images"]["x"].update(width=16_000_000, height=16_000_000), ["images.x", "width", "bytes"]),
        (lambda d: d["images"]["x"].update(width=2**70), ["images.x.width"]),
        (lambda d: d["images"]["x"].update(width=0), ["images.x.width"]),
        (lambda d: d["images"]["x"].update(width=1.5), ["images.x.width"]),
        (lambda d: d["images"]["x"].update(channel_format="float8"), ["images.x.channel_format"]),
        (lambda d: d["images"]["x"].update(data_layout="NCHW"), ["images.x.data_layout"]),
        (lambda d: d["images"]["x"].pop("height"), ["images.x.height: missing", "or shape"]),
        (lambda d: d["images"].update(z=d["images"]["x"]), ["images.z", "graph.json"]),
        (lambda d: d["images"].pop("x"), ["images.x", "missing"]),
        (lambda d: d["images"].pop("y"), ["images", "only sources"]),
        (lambda d: d["images"]["y"].update(width=2, height=3), ["images.y.height", "as large as the sources"]),
        (lambda d: d["images"]["y"].update(channel_format="unorm16"), ["images.y.channel_format", "float16"]),
    ],
)
def test_a_wrong_recording_is_refused_by_field(tmp_path, change, words):
    path, _ = small(tmp_path / "r", raw=True)
    (tmp_path / "x.f16").write_bytes(bytes(120))
    (tmp_path / "r" / "link").symlink_to(tmp_path / "x.f16")
    edit(path, change)

    refused_recording(path, *words)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ["not a .npy array"]),
        (b"\x93NUMPY", ["not a .npy array"]),
        (header("{'descr': '<f2', 'fortran_order': False, 'shape': (True, 1, 1), }"), ["not a .npy array"]),
        (header("[(1," * 300 + ")" * 300), ["not a .npy array"]),
        (header("{" * 5000), ["not a .npy array"]),
        (b"not an array at all", ["not a .npy array"]),
        (b"\x80\x04\x95\x00\x00\x00.", ["not a .npy array"]),
        (None, ["not a .npy array"]),
        (np.zeros((1,) * 6, np.float16), ["shape", "1 to 5 axes"]),
        (np.float16(1), ["shape", "1 to 5 axes"]),
        (np.zeros((2, 0, 2), np.float16), ["shape"]),
        (np.zeros((2, 2, 2)), ["dtype", "float64"]),
        (np.zeros((2, 2, 2), ">f4"), ["dtype"]),
        (np.zeros((2, 2, 2), "S3"), ["dtype"]),
        (np.array([[[None]]]), ["not a .npy array"]),
    ],
)
def test_a_wrong_array_file_is_refused(tmp_path, content, words):
    path, _ = small(tmp_path / "r")
    file = tmp_path / "r" / "x.npy"
    if content is None:
        file.write_bytes(file.read_bytes()[:-1])
    elif isinstance(content, bytes):
        file.write_bytes(content)
    else:
        np.save(file, content, allow_pickle=True)

    refused_recording(path, "x.npy", *words)


def test_an_array_header_that_promises_too_much_allocates_nothing(tmp_path):
    path, _ = small(tmp_path / "r")
    file = tmp_path / "r" / "x.npy"
    file.write_bytes(header("{'descr': '<f2', 'fortran_order': False, 'shape': (10**6, 10**6, 10**6), }"))
    refused_recording(path, "x.npy")
    file.write_bytes(header("{'descr': '<f2', 'fortran_order': False, 'shape': (1000000, 1000000, 1000000), }"))

    refused_recording(path, "x.npy")


def test_an_archive_that_calls_itself_an_array_is_refused(tmp_path):
    path, _ = small(tmp_path / "r")
    with zipfile.ZipFile(tmp_path / "r" / "x.npy", "w") as archive:
        archive.writestr("x.npy", b"")

    refused_recording(path, "x.npy", "archive")


def test_fields_that_contradict_an_array_are_refused(tmp_path):
    path, _ = small(tmp_path / "r")
    edit(path, lambda d: d["images"]["x"].update(width=7))

    refused_recording(path, "images.x", "width", "7", "3")


def test_a_file_that_shrinks_after_the_check_is_refused(tmp_path):
    path, _ = small(tmp_path / "r", raw=True)
    recording = Recording.read(path)
    (tmp_path / "r" / "x.f16").write_bytes(b"")

    with pytest.raises(mps.FileFormatError, match=r"x\.f16"):
        verify(recording)


def test_sources_that_differ_in_size_are_refused_with_their_names(tmp_path):
    x, dy = mps.MPSNNImageNode(handle="x"), mps.MPSNNImageNode(handle="dy")
    g = mps.MPSCNNNeuronSigmoidNode(source=x).gradient_filter(with_source=dy)
    g.result_image.handle = "dx"
    images = {"x": np.zeros((1, 2, 3)), "dy": np.zeros((1, 2, 4)), "dx": np.zeros((1, 2, 3))}
    images = {name: mps.MPSImage.from_array(array, Format.float16) for name, array in images.items()}
    path = write_recording(tmp_path / "r", mps.GraphFile.from_results([g.result_image]), images, "made by hand")

    refused_recording(path, "recording.json", "dx", "'x' (2x1x3)", "'dy' (2x1x4)")


@pytest.mark.parametrize("data", [[1, 2], "text", None])
def test_what_is_no_buffer_cannot_be_written(data):
    image = mps.MPSImage.from_array(np.zeros((1, 1, 2), np.uint8))

    with pytest.raises(mps.ImageError, match="data"):
        image.write_bytes(data, mps.MPSDataLayout.HeightxWidthxFeatureChannels)


def test_a_texture_must_be_an_array():
    with pytest.raises(mps.ImageError, match="texture is a list"):
        mps.MPSImage(texture=[[[[1]]]], feature_channels=1)


def test_a_training_graph_of_a_long_chain_is_written_and_read(tmp_path):
    image = mps.MPSNNImageNode(handle="x")
    for _ in range(2_000):
        image = mps.MPSCNNNeuronAbsoluteNode(source=image).result_image
    (last,) = image.producer.training_graph()

    file = mps.GraphFile.from_results([last.result_image])
    file.write(tmp_path / "graph.json")

    assert len(mps.GraphFile.read(tmp_path / "graph.json").nodes) == 4_000


def test_what_a_file_says_cannot_pass_for_another_line_of_the_report(tmp_path):
    path, _ = small(tmp_path / "r")
    edit(path, lambda d: d.update(device="a\n\nPASS: all is well\u001b[8m\ud800"))

    report = verify(path)

    assert report.text().splitlines()[1] == r"device     a\n\nPASS: all is well\x1b[8m\ud800"
    assert report.text().encode()
    assert json.dumps(report.to_json())


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("size", [2, 30])
def test_a_file_that_changes_after_the_check_is_refused(tmp_path, raw, size):
    path, _ = small(tmp_path / "r", raw=raw)
    entry = Recording.read(path).images["x"]
    other = np.zeros((1, 1, size), np.float16)
    other.tofile(entry.path) if raw else np.save(entry.path, other)

    for read in (entry.read, entry.elements):
        with pytest.raises(mps.FileFormatError, match="has changed meanwhile"):
            read()
