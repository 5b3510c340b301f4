"""Verdicts on layers: bounds of sums, ties, states, readings, a GPU's bytes; their causes: `test_layer_faults`."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import mpsref as mps
from mpsref.arrays import Elements
from mpsref.record import Recording
from mpsref.storage import FORMATS
from mpsref.verify import verify, write_recording
from mpsref.verify.case import Case
from mpsref.verify.hypotheses import HYPOTHESES, STATES
from mpsref.verify.hypotheses.precision import bias_after_half_store
from mpsref.verify.layer import Layer

EXAMPLE = Path(__file__).parents[2] / "examples" / "gpu-net"
F = mps.MPSImageFeatureChannelFormat
M = mps.MPSNNPaddingMethod
RNG = np.random.default_rng(11)

# ---- a real GPU's bytes ----


def test_half_on_a_gpu_is_exact_but_for_its_convolutions_and_what_torch_defines_otherwise():
    report = verify(EXAMPLE / "half.json")
    causes = {image.name: image.findings[0] for image in report.images if not image.passed}

    stored = "bias added after the sum was stored in half"
    assert {name: finding.name for name, finding in causes.items()} == {
        **dict.fromkeys(("y.conv1", "y.conv2", "y.conv3", "y.conv4"), stored),
        "d.sum": "another slope at the kink",
        "d.elu": "each quotient stored in half",
    }
    assert all(finding.score > 0.95 for finding in causes.values())
    for name in (
        "y.relu",
        "y.pool1",
        "y.elu",
        "y.pool2",
        "y.sum",
        "y.prelu",
        "d.conv1",
        "d.conv2",
        "d.relu",
        "d.pool2",
    ):
        (image,) = [image for image in report.images if image.name == name]
        assert image.counts.exact == image.counts.elements, name
    assert not any(image.note for image in report.images)


def test_the_bias_after_a_half_store_gives_the_gpus_very_bits():
    recording = Recording.read(EXAMPLE / "half.json")
    for node in recording.graph.nodes:
        if type(node) is mps.MPSCNNConvolutionNode:
            image, read = (recording.images[each.handle].read() for each in (node.result_image, node.sources[0]))
            values = Elements(read.to_array(), read.storage).values()
            got = image.to_array()
            layer = Layer.of(node.operation, (values,))
            case = Case.of_layers([layer], image.storage, got, got, np.zeros(got.shape, bool))
            (candidate,) = bias_after_half_store.candidates(case)
            given, _ = candidate.at(case, np.arange(got.size))
            assert np.mean(given == got.reshape(-1)) > 0.9996, node.result_image.handle


def test_float32_on_a_gpu_passes_and_tf32_is_named():
    report = verify(EXAMPLE / "float32.json")
    assert report.passed
    assert not any(image.note for image in report.images)
    report = verify(EXAMPLE / "tf32.json")
    wrong = {image.name: image.findings[0].headline for image in report.images if not image.passed}
    assert set(wrong) == {"y.conv3", "d.prelu"}
    assert all(headline.startswith("inputs rounded to TF32, to nearest") for headline in wrong.values())
    beyond = {image.name: image.counts.beyond for image in report.images}
    assert beyond == {"y.conv3": 5737, "y.fc": 0, "d.prelu": 6250}


# ---- nodes ----


def convolution(weights=None, bias=None, handle="y", neuron=None, **options):
    """A node on source ``x``; options are those of its descriptor, and its padding policy."""
    weights = np.asarray(weights)
    o, h, w, i = weights.shape
    d = mps.MPSCNNConvolutionDescriptor(
        kernel_width=w, kernel_height=h, input_feature_channels=i * options.get("groups", 1), output_feature_channels=o
    )
    policy = options.pop("padding_policy", None)
    kind = options.pop("kind", mps.MPSCNNConvolutionNode)
    for name, value in options.items():
        setattr(d, name, value)
    if neuron is not None:
        d.fused_neuron_descriptor = mps.MPSNNNeuronDescriptor(neuron)
    node = kind(source=mps.MPSNNImageNode(handle="x"), weights=mps.ArrayDataSource(d, weights, bias))
    node.result_image.handle = handle
    if policy is not None:
        node.padding_policy = policy
    return node


def pooling(kind, size=3, stride=2, edge_mode="clamp", method=M.sizeSame):
    node = kind(source=mps.MPSNNImageNode(handle="x"), filter_size=size, stride=stride)
    node.edge_mode, node.padding_policy = edge_mode, mps.MPSNNDefaultPadding(method)
    node.result_image.handle = "y"
    return node


def run(node, storage=F.float32, **sources):
    return next(iter(mps.MPSNNGraph(result_image=node, format=storage).run(**sources).values())).to_array()


def report_of(folder, node, device, storage=F.float32, states=None, options=None, **sources):
    """The verdict on what a device gives for a node."""
    shutil.rmtree(folder, ignore_errors=True)
    file = mps.GraphFile.from_results([node.result_image], storage)
    images = {name: mps.MPSImage.from_array(np.asarray(array)) for name, array in sources.items()}
    images[file.results[0]] = mps.MPSImage.from_array(device)
    return verify(write_recording(folder, file, images, "a test", states=states), **options or {})


X = RNG.normal(size=(2, 9, 8, 8)).astype(np.float32)
W = RNG.normal(size=(8, 3, 3, 8)).astype(np.float32)
B = RNG.normal(size=8).astype(np.float32)
SAME = mps.MPSNNDefaultPadding(M.sizeSame)
OTHER = mps.MPSNNDefaultPadding(M.sizeSame | M.addRemainderToBottomRight)


def right(**options):
    return convolution(**{"weights": W, "bias": B} | options)


SIGMOID = mps.MPSCNNNeuronType.sigmoid


def test_the_bias_after_a_store_in_half_is_named_and_one_store_passes(tmp_path):
    x, w = X.astype(np.float16), W.astype(np.float16)
    node = right(weights=w)
    plain = run(right(weights=w, bias=None), F.float16, x=x)
    device = (plain.astype(np.float32) + B).astype(np.float16)
    report = report_of(tmp_path / "r", node, device, F.float16, x=x)
    assert report.images[0].findings[0].name == "bias added after the sum was stored in half"
    assert report_of(tmp_path / "r", node, run(node, F.float16, x=x), F.float16, x=x).passed


@pytest.mark.parametrize("storage", [F.float16, F.float32])
def test_float32_sums_in_any_order_pass(storage, tmp_path):
    node = right()
    rng = np.random.default_rng(2)
    for _ in range(3):
        order = rng.permutation(72)
        windows = np.lib.stride_tricks.sliding_window_view(
            np.pad(X, ((0, 0), (1, 1), (1, 1), (0, 0))), (3, 3), axis=(1, 2)
        )
        flat = windows.transpose(0, 1, 2, 4, 5, 3).reshape(2, 9, 8, 72)[..., order]
        total = np.zeros((2, 9, 8, 8), np.float32)
        for k, weight in enumerate(W.reshape(8, 72)[:, order].T):
            total += flat[..., k, None] * weight
        device = (total + B).astype(FORMATS[storage].dtype)
        report = report_of(tmp_path / "r", node, device, storage, x=X)
        assert report.passed, report.text()
        assert not report.images[0].note


def test_half_accumulation_passes_only_where_the_node_allows_it(tmp_path):
    windows = np.lib.stride_tricks.sliding_window_view(
        np.pad(X, ((0, 0), (1, 1), (1, 1), (0, 0))).astype(np.float16), (3, 3), axis=(1, 2)
    ).transpose(0, 1, 2, 4, 5, 3).reshape(2, 9, 8, 72)  # fmt: skip
    total = np.zeros((2, 9, 8, 8), np.float16)
    for k, weight in enumerate(W.astype(np.float16).reshape(8, 72).T):
        total += windows[..., k, None] * weight
    x, node = X.astype(np.float16), right(weights=W.astype(np.float16), bias=None)
    report = report_of(tmp_path / "r", node, total, F.float16, x=x)
    assert not report.passed
    assert report.images[0].findings[0].name == "accumulated in half"
    assert report.images[0].others == ("metal-half", "wgsl-half")
    node.accumulator_precision = "half"
    for device, precision in ((total, "half"), (run(node, F.float16, x=x), "float32")):
        report = report_of(tmp_path / "r", node, device, F.float16, x=x)
        assert report.passed
        assert report.images[0].reading == f"accumulated in {precision}"


FAR_FROM_ROUNDING = {
    "bias": lambda x, w, b: (x, w, b + 0.01),
    "bias in steps": lambda x, w, b: (x, w, np.round(b * 64) / 64),
    "x in steps": lambda x, w, b: (np.round(x * 32) / 32, w, b),
    "x": lambda x, w, b: (x + np.random.default_rng(4).normal(0, 0.004, x.shape), w, b),
    "weights": lambda x, w, b: (x, w + np.random.default_rng(4).normal(0, 0.001, w.shape), b),
}


def in_half(x, w, b, order):
    """What a device gives that rounds every partial sum of a 3x3 convolution to half."""
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), (3, 3), axis=(1, 2))
    flat = windows.transpose(0, 1, 2, 4, 5, 3).reshape(*x.shape[:3], -1)
    total = np.zeros((*x.shape[:3], len(w)), np.float16)
    for k in order:
        total += flat[..., k, None] * w.reshape(len(w), -1)[:, k]
    return (total + b.astype(np.float32)).astype(np.float16)


@pytest.mark.parametrize("what", [*FAR_FROM_ROUNDING, "nothing but rounding"])
def test_what_depends_on_the_inputs_was_not_accumulated_in_half(what, tmp_path):
    rng = np.random.default_rng(5)
    x, w = rng.normal(size=(2, 14, 18, 6)).astype(np.float16), rng.normal(0, 0.3, (8, 3, 3, 6)).astype(np.float16)
    b = rng.normal(size=8).astype(np.float32)
    node = right(weights=w, bias=b)
    if what in FAR_FROM_ROUNDING:
        other = [array.astype(np.float32) for array in FAR_FROM_ROUNDING[what](x.astype(np.float64), w, b)]
        device = run(right(weights=other[1], bias=other[2]), F.float32, x=other[0]).astype(np.float16)
    else:
        device = in_half(x, w, b, rng.permutation(54))
    (image,) = report_of(tmp_path / "r", node, device, F.float16, x=x).images
    found = [finding.headline for finding in image.findings if finding.name == "accumulated in half"]
    assert not image.passed
    if what in FAR_FROM_ROUNDING:
        assert not found
    else:
        assert found[0].startswith("accumulated in half, as far as the size of the errors tells: explains")


def added_in_half(x, w):
    """1x1 convolution, channel after channel."""
    total = np.zeros((*x.shape[:3], len(w)), np.float16)
    with np.errstate(over="ignore", invalid="ignore"):
        for i in range(x.shape[3]):
            total += x[..., i, None] * w[:, 0, 0, i].astype(np.float16)
    return total


@pytest.mark.parametrize("is_half", [True, False])
def test_an_overflowing_partial_sum_is_beyond_unless_it_is_allowed(is_half, tmp_path):
    x = np.minimum(np.abs(X.astype(np.float16)), np.float16(2))
    x[0, :2] *= 25000
    w = np.ones((8, 1, 1, 8), np.float16)
    w[..., 4:] = -1
    # Half of the channels overflow to minus infinity.
    w[1::2] *= -1
    node, device = right(weights=w, bias=None), added_in_half(x, w)
    wrong = np.count_nonzero(~np.isfinite(device))
    assert wrong > 50
    assert np.isfinite(run(node, F.float16, x=x)).all()
    node.accumulator_precision = "half" if is_half else "float"
    report = report_of(tmp_path / "r", node, device, F.float16, x=x)
    (image,) = report.images
    if is_half:
        # The rest is so near to the largest number that half sums may reach it.
        wrong, most = image.counts.beyond, wrong
        assert most - 8 <= wrong <= most
        assert image.counts.refused == {"overflow": wrong}
        assert image.findings[0].name == "a partial sum overflows"
        assert f"{wrong} because an intermediate overflows (--allow overflow" in report.verdict
        allowed = report_of(tmp_path / "r", node, device, F.float16, options={"allow": "overflow"}, x=x)
        assert allowed.passed
        assert allowed.images[0].counts.excused == {"overflow": wrong}
        # An overflow leaves no finite number.
        device[~np.isfinite(device)] = 123
        assert not report_of(tmp_path / "r", node, device, F.float16, options={"allow": "overflow"}, x=x).passed
    else:
        assert image.findings[0].name == "accumulated in half"
        assert not image.counts.refused
        assert image.counts.beyond > wrong


def test_an_average_of_large_numbers_may_overflow_before_the_division(tmp_path):
    x = np.full((1, 4, 4, 1), 2.0**127, np.float32)
    node = pooling(mps.MPSCNNPoolingAverageNode, 2, 2)
    device = np.full((1, 2, 2, 1), np.inf, np.float32)
    report = report_of(tmp_path / "r", node, device, x=x)
    assert report.images[0].findings[0].name == "a partial sum overflows"
    assert report.images[0].counts.refused == {"overflow": 4}
    assert report_of(tmp_path / "r", node, device, options={"allow": "overflow"}, x=x).passed


# ---- gradients ----

G = RNG.normal(size=(2, 9, 8, 8)).astype(np.float32)


def gradient_of(node, handle="dx"):
    (made,) = node.gradient_filters(with_source=mps.MPSNNImageNode(handle="g"))
    made.result_image.handle = handle
    return made


def spread_to_all(x, g, size, stride):
    out = np.zeros_like(x)
    for n, y, z, c in np.ndindex(g.shape):
        window = x[n, y * stride : y * stride + size, z * stride : z * stride + size, c]
        out[n, y * stride : y * stride + size, z * stride : z * stride + size, c] += (window == window.max()) * g[
            n, y, z, c
        ]
    return out


def test_an_infinity_in_a_window_leaves_its_sum_open_in_a_model_of_finite_numbers(tmp_path):
    # The weight is 0 in half, and 0 times infinity is NaN.
    node = right(weights=np.full_like(W, 1e-12))
    x = X.astype(np.float16)
    x[0, 4, 4, 0] = np.inf
    want = run(node, F.float16, x=x)
    read = np.isinf(want)

    def counts(where, bounds):
        device = np.where(where, np.float16(np.nan), want)
        report = report_of(tmp_path / "r", node, device, F.float16, options={"tolerance": bounds, "faults": False}, x=x)
        return report.images[0].counts

    assert 0 < np.count_nonzero(read) < read.size / 2
    assert counts(read, "wgsl-half").excused == {"indeterminate": np.count_nonzero(read)}
    assert counts(~read, "wgsl-half").beyond == np.count_nonzero(~read)


# ---- ties ----


def choices(x, g, size, stride, pick):
    """The gradient where of several largest elements of a window one is picked."""
    out = np.zeros_like(x)
    for n, y, z, c in np.ndindex(g.shape):
        window = x[n, y * stride : y * stride + size, z * stride : z * stride + size, c]
        places = np.argwhere(window == window.max())
        dy, dx = places[pick(len(places))]
        out[n, y * stride + dy, z * stride + dx, c] += g[n, y, z, c]
    return out


@pytest.mark.parametrize(("size", "stride"), [(2, 2), (3, 3), (3, 2), (2, 1)])
def test_any_largest_element_may_have_the_gradient_but_only_one(size, stride, tmp_path):
    rng = np.random.default_rng(3)
    x = rng.integers(0, 3, (1, 9, 9, 2)).astype(np.float32)
    node = pooling(mps.MPSCNNPoolingMaxNode, size, stride, method=M.sizeValidOnly)
    shape = node.operation.result_size(x.shape)
    g = rng.normal(size=shape).astype(np.float32)
    for pick in (lambda n: 0, lambda n: n - 1, rng.integers):
        report = report_of(tmp_path / "r", gradient_of(node), choices(x, g, size, stride, pick), x=x, g=g)
        assert report.passed, report.text()
    everywhere = spread_to_all(x, g, size, stride)
    count = spread_to_all(x, np.ones_like(g), size, stride)
    for device in (everywhere, everywhere / np.maximum(count, 1), np.zeros_like(x)):
        assert not report_of(tmp_path / "r", gradient_of(node), device, x=x, g=g).passed


@pytest.mark.parametrize(("size", "stride"), [(2, 2), (2, 1)])
def test_the_neighbour_of_a_code_passes_at_ties_where_a_model_allows_it(size, stride, tmp_path):
    rng = np.random.default_rng(5)
    x = rng.integers(0, 3, (1, 9, 9, 2)).astype(np.uint8)
    node = pooling(mps.MPSCNNPoolingMaxNode, size, stride, method=M.sizeValidOnly)
    g = rng.integers(0, 60, node.operation.result_size(x.shape)).astype(np.uint8)
    made = choices(x, g, size, stride, rng.integers)
    by = (made > 3) * rng.choice([-1, 0, 1], made.shape)

    def passes(factor, bounds):
        wrote = (made + factor * by).astype(np.uint8)
        options = {"tolerance": bounds, "faults": False}
        return report_of(tmp_path / "r", gradient_of(node), wrote, F.unorm8, options=options, x=x, g=g).passed

    assert [passes(1, "wgsl"), passes(3, "wgsl"), passes(0, "metal-fast"), passes(3, "metal-fast")] == [
        True, False, True, False,
    ]  # fmt: skip


@pytest.mark.parametrize(("size", "stride"), [(2, 2), (3, 2)])
def test_nan_in_the_gradient_of_the_only_maximum_must_arrive(size, stride, tmp_path):
    rng = np.random.default_rng(4)
    x = rng.permutation(9 * 9 * 2).reshape(1, 9, 9, 2).astype(np.float32)
    node = pooling(mps.MPSCNNPoolingMaxNode, size, stride, method=M.sizeValidOnly)
    g = rng.normal(size=node.operation.result_size(x.shape)).astype(np.float32)
    g.reshape(-1)[::3] = np.nan
    want = choices(x, g, size, stride, lambda n: 0)
    lost = np.isnan(want)
    assert report_of(tmp_path / "r", gradient_of(node), want, x=x, g=g).images[0].counts.exact == want.size
    for value in (0, 7, np.inf, 6e4):
        got = np.where(lost, np.float32(value), want)
        report = report_of(tmp_path / "r", gradient_of(node), got, x=x, g=g)
        # The model leaves NaN undefined.
        assert report.images[0].counts.excused == {"nan": np.count_nonzero(lost)}, value

    # Where several are largest, NaN belongs to one of them.
    x[:] = 1
    for pick in (lambda n: 0, lambda n: n - 1):
        assert report_of(tmp_path / "r", gradient_of(node), choices(x, g, size, stride, pick), x=x, g=g).passed


# ---- states ----


def state_of(node, **sources):
    node.convolution_gradient_state.export_from_graph = True
    made = gradient_of(node)
    return mps.MPSNNGraph(result_image=made, format=F.float32).run(**sources).states["y"]


def arrays_of(state):
    return state.gradient_for_weights, state.gradient_for_biases


def test_a_wrong_state_is_named_by_its_indices(tmp_path):
    node = right()
    state = state_of(node, x=X, g=G)
    made = gradient_of(node)
    dx = run(made, x=X, g=G)

    def report(w, b):
        states = {"y": {"gradient_for_weights": w, "gradient_for_biases": b}}
        return report_of(tmp_path / "r", made, dx, states=states, x=X, g=G)

    w, b = state.gradient_for_weights, state.gradient_for_biases
    assert report(w, b).passed
    image = next(image for image in report(w / 2, b).images if not image.passed)
    assert str(image.worst[0]).startswith("y.gradient_for_weights[")


def test_a_state_is_judged_by_what_unrecorded_images_may_have_been(tmp_path):
    layer = right(weights=W.astype(np.float16), handle="h")
    layer.convolution_gradient_state.export_from_graph = True
    neuron = mps.MPSCNNNeuronTanHNode(source=layer.result_image)
    named = {}

    def name(node, _, source, __):
        node.result_image.handle = named.setdefault(source, f"d{len(named)}")

    (dx,) = neuron.training_graph(with_source_gradient=mps.MPSNNImageNode(handle="g"), node_handler=name)
    x, g = X.astype(np.float16), G.astype(np.float16)
    results = mps.MPSNNGraph(result_image=dx.result_image, format=F.float16).run(x=x, g=g)
    w, b = arrays_of(results.states["h"])
    device = results[dx.result_image.handle].to_array()
    # The device's own rounding of what was not recorded.
    for factor, passes in ((1, True), (1 + 2.0**-12, True), (1.01, False), (2, False)):
        states = {"h": {"gradient_for_weights": w * np.float32(factor), "gradient_for_biases": b}}
        report = report_of(tmp_path / "r", dx, device, F.float16, states=states, x=x, g=g)
        assert report.passed == passes, (factor, report.text())
        assert report.images[-2].unrecorded == ("d0",)
    assert report.images[-2].findings[0].name == "accumulated over steps"


def test_a_state_comes_in_other_layouts_and_is_refused_where_it_does_not_fit(tmp_path):
    node = right()
    state, made = state_of(node, x=X, g=G), gradient_of(node)
    path = tmp_path / "r"
    arrays = {"gradient_for_weights": state.gradient_for_weights}
    report_of(path, made, run(made, x=X, g=G), states={"y": arrays}, x=X, g=G)
    document = json.loads((path / "recording.json").read_text())
    state.gradient_for_weights.transpose(0, 3, 1, 2).astype("<f4").tofile(path / "g.f32")
    entry = {"file": "g.f32", "data_type": "float32", "shape": [8, 8, 3, 3], "layout": "OIHW"}

    def verdict(changes, name="y"):
        document["states"] = {name: {"gradient_for_weights": entry | changes}}
        (path / "recording.json").write_text(json.dumps(document))
        return verify(path / "recording.json")

    assert verdict({}).passed
    for changes, name, *words in (
        ({"shape": [8, 3, 3, 8]}, "y", "gradient", "OIHW"),
        ({"shape": [8, 8, 3, 2]}, "y", "bytes"),
        ({"file": "../g.f32"}, "y", "states.y.gradient_for_weights.file", "outside"),
        ({"file": "none.f32"}, "y", "none.f32"),
        ({}, "z", "states.z", "no layer"),
    ):
        with pytest.raises(mps.FileFormatError) as error:
            verdict(changes, name)
        for word in words:
            assert word in str(error.value), error.value


# ---- readings ----


@pytest.mark.parametrize("is_fused", [False, True])
def test_a_neuron_may_be_fused_where_the_convolution_is_not_recorded(is_fused, tmp_path):
    x = X.astype(np.float16)
    layer = right(weights=W.astype(np.float16), handle="h")
    neuron = mps.MPSCNNNeuronSigmoidNode(source=layer.result_image)
    neuron.result_image.handle = "y"
    other = right(weights=W.astype(np.float16), neuron=SIGMOID)
    device = run(other if is_fused else neuron, F.float16, x=x)
    report = report_of(tmp_path / "r", neuron, device, F.float16, x=x)
    assert report.passed
    assert report.images[0].reading == (
        "h is not rounded: the neuron is fused into its convolution" if is_fused else "h is rounded before the neuron"
    )
    assert report.images[0].counts.exact == device.size


def test_every_hypothesis_has_another_name():
    for hypotheses in (HYPOTHESES, STATES):
        assert len({hypothesis.name for hypothesis in hypotheses}) == len(hypotheses)


def test_many_weights_are_written_and_read(tmp_path):
    w = RNG.normal(size=(300, 1, 1, 300)).astype(np.float32)
    node = right(weights=w, bias=None)
    mps.GraphFile.from_results([node.result_image]).write(tmp_path / "g.json")
    (source,) = mps.GraphFile.read(tmp_path / "g.json").data_sources.values()
    np.testing.assert_array_equal(source.weights(), w)


def test_weights_that_are_not_finite_are_written_and_judged(tmp_path):
    w = W[:, :1, :1].copy()
    w[0, 0, 0, 0], w[1, 0, 0, 0] = np.nan, np.inf
    node = right(weights=w)
    device = run(node, x=X)
    assert np.isnan(device[..., 0]).all()
    assert report_of(tmp_path / "r", node, device, x=X).passed
    device[..., 1] = 3
    assert report_of(tmp_path / "r", node, device, x=X).images[0].counts.beyond == device[..., 1].size


def test_a_device_that_flushes_subnormal_products_passes(tmp_path):
    node = right(bias=None)
    x = (X * np.float32(2.0**-125)).astype(np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(
        np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), (3, 3), axis=(1, 2)
    ).transpose(0, 1, 2, 4, 5, 3).reshape(2, 9, 8, 72)  # fmt: skip

    def flushed(values):
        return np.where(np.abs(values) < 2.0**-126, np.float32(0), values)

    total = np.zeros((2, 9, 8, 8), np.float32)
    for k, weight in enumerate(W.reshape(8, 72).T):
        total = flushed(total + flushed(flushed(windows[..., k, None]) * weight))
    assert np.count_nonzero(total != run(node, x=x)) > total.size / 2
    assert report_of(tmp_path / "r", node, total, x=x).passed


# ---- what is as good as zero, and NaN ----

TINY = (np.random.default_rng(6).normal(0, 1, (1, 8, 8, 2)) * 2.0**-128).astype(np.float32)


def test_any_subnormal_of_a_window_may_be_its_largest_where_they_compare_as_equal(tmp_path):
    node = pooling(mps.MPSCNNPoolingMaxNode, 2, 2)
    windows = TINY.reshape(1, 4, 2, 4, 2, 2)
    first = windows[:, :, 0, :, 0]
    assert np.count_nonzero(first != windows.max(axis=(2, 4))) > first.size / 2

    def beyond(y, model="metal-fast", x=TINY):
        return report_of(tmp_path / "r", node, y, options={"tolerance": model}, x=x).images[0].counts.beyond

    assert beyond(first) == 0
    assert beyond(0 * first) == 0
    assert beyond(np.minimum(windows.min(axis=(2, 4)), 0) * np.float32(1.5)) > first.size / 2
    # Normal numbers are compared as they are.
    assert beyond(first * np.float32(2.0**30), x=TINY * np.float32(2.0**30)) > first.size / 2


@pytest.mark.parametrize("stride", [1, 2])
def test_the_gradient_of_subnormals_goes_to_any_and_may_be_flushed(tmp_path, stride):
    made = gradient_of(pooling(mps.MPSCNNPoolingMaxNode, 2, stride, method=M.sizeValidOnly))
    g = np.random.default_rng(7).normal(0, 1, (1, *[8 // stride - (stride == 1)] * 2, 2)).astype(np.float32)

    def beyond(y, g=g, x=TINY):
        return report_of(tmp_path / "r", made, y, x=x, g=g).images[0].counts.beyond

    last = choices(np.zeros_like(TINY), g, 2, stride, lambda n: n - 1)
    small = g * np.float32(2.0**-128)
    assert beyond(last) == 0
    assert beyond(last, x=TINY * np.float32(2.0**30)) > g.size / 2
    assert beyond(0 * last, g=small) == 0
    assert beyond(0 * last) > g.size / 4


def test_sums_of_a_device_that_flushes_half(tmp_path):
    # Each product is subnormal, their sum is not.
    x = (np.clip(np.abs(X), 0.5, 1.5) * np.float32(2.0**-8)).astype(np.float16)
    w = np.full((8, 1, 1, 8), 0.01, np.float16)
    node = right(weights=w, bias=None)
    products = x[..., np.newaxis, :] * w[:, 0, 0]
    flushed = np.where(np.abs(products) < 2.0**-14, np.float16(0), products).sum(axis=-1, dtype=np.float16)
    assert np.count_nonzero(flushed != run(node, F.float16, x=x)) > flushed.size / 2

    def beyond(y, model):
        return report_of(tmp_path / "r", node, y, F.float16, options={"tolerance": model}, x=x).images[0].counts.beyond

    assert beyond(flushed, "wgsl-half") == 0
    # Metal keeps what is subnormal in half.
    assert beyond(flushed, "metal-half") > flushed.size / 2
    assert beyond(flushed + np.float16(0.01), "wgsl-half") == flushed.size
    assert (run(node, F.float16, x=x) > 2.0**-14).all()


@pytest.mark.parametrize("kind", [mps.MPSCNNPoolingAverageNode, mps.MPSCNNConvolutionNode])
def test_a_window_reads_nan_that_was_lost_or_kept_before_it(tmp_path, kind):
    # A clamp whose image is not recorded may lose NaN.
    clamped = mps.MPSCNNNeuronReLUNNode(source=mps.MPSNNImageNode(handle="x"))
    if kind is mps.MPSCNNPoolingAverageNode:
        node = kind(source=clamped.result_image, filter_size=2)
    else:
        d = mps.MPSCNNConvolutionDescriptor(
            kernel_width=2, kernel_height=2, input_feature_channels=2, output_feature_channels=2
        )
        weights = mps.ArrayDataSource(d, np.ones((2, 2, 2, 2), np.float32))
        node = kind(source=clamped.result_image, weights=weights)
    node.result_image.handle = "y"
    x = np.abs(TINY) * np.float32(2.0**120)
    x[0, 3, 3] = np.nan
    lost = run(node, x=np.where(np.isnan(x), np.float32(6), x))
    kept = run(node, x=x)
    count = np.count_nonzero(np.isnan(kept))
    assert count

    def counts(y):
        return report_of(tmp_path / "r", node, y, options={"tolerance": "metal-fast"}, x=x).images[0].counts

    assert (counts(lost).beyond, counts(lost).excused) == (0, {"nan": count})
    assert (counts(kept).beyond, counts(kept).excused) == (0, {})


def test_flushed_weights_and_products_leave_a_sum_of_some_products(tmp_path):
    x = np.full((1, 4, 4, 2), 2.0**20, np.float32)
    w = np.float32([1.5 * 2.0**-127, 2.0**-120]).reshape(1, 1, 1, 2)
    node = right(weights=w, bias=None)

    def beyond(y, x=x):
        y = np.full((1, 4, 4, 1), y, np.float32)
        return report_of(tmp_path / "r", node, y, x=x).images[0].counts.beyond

    # A subnormal weight may be flushed, whatever it is multiplied with.
    assert (beyond(2.0**-100), beyond(2.0**-100 + 1.5 * 2.0**-107)) == (0, 0)
    assert (beyond(1.1 * 2.0**-100), beyond(0.9 * 2.0**-100)) == (16, 16)
    # No flushing makes a sum of positive products larger, or negative.
    tiny = np.full_like(x, 2.0**-8)
    most = 2.0**-128 + 1.5 * 2.0**-135
    assert (beyond(most, tiny), beyond(0, tiny), beyond(1.1 * most, tiny), beyond(-0.1 * most, tiny)) == (0, 0, 16, 16)


def test_a_power_of_minus_infinity_before_a_window_may_be_nan(tmp_path):
    power = mps.MPSCNNNeuronPowerNode(source=mps.MPSNNImageNode(handle="x"), a=1, b=0, c=0.5)
    node = mps.MPSCNNPoolingMaxNode(source=power.result_image, filter_size=2, stride=2)
    node.result_image.handle = "y"
    x = np.full((1, 4, 4, 1), 4, np.float32)
    x[0, 0, 0] = -np.inf

    # A maximum that loses NaN.
    report = report_of(tmp_path / "r", node, np.full((1, 2, 2, 1), 2, np.float32), x=x)

    assert report.images[0].counts.beyond == 0
