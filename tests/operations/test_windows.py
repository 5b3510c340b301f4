"""Sizes, places and values of windowed layers against a judge of fractions and the tables of Apple's arithmetic."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import layer_judge as judge
import mpsref as mps
from builders import seldom

M = mps.MPSNNPaddingMethod
F = mps.MPSImageFeatureChannelFormat
TL, BR = M.addRemainderToTopLeft, M.addRemainderToBottomRight
SAME, VALID, FULL = M.sizeSame, M.sizeValidOnly, M.sizeFull

FIRST_TAPS = {
    # (n, k, size, remainder): the first tap of each result, with stride 2
    (4, 3, SAME, TL): [-1, 1], (4, 3, SAME, BR): [0, 2], (4, 2, SAME, TL): [0, 2], (4, 2, SAME, BR): [0, 2],
    (4, 3, VALID, TL): [0], (4, 2, VALID, TL): [0, 2], (4, 3, FULL, TL): [-2, 0, 2], (4, 3, FULL, BR): [-1, 1, 3],
    (5, 3, SAME, TL): [-1, 1, 3], (5, 3, SAME, BR): [-1, 1, 3], (5, 2, SAME, TL): [-1, 1, 3],
    (5, 2, SAME, BR): [0, 2, 4], (5, 3, VALID, TL): [0, 2], (5, 2, VALID, TL): [0, 2],
    (5, 3, FULL, TL): [-2, 0, 2, 4], (5, 3, FULL, BR): [-2, 0, 2, 4],
    (6, 3, SAME, TL): [-1, 1, 3], (6, 3, SAME, BR): [0, 2, 4], (6, 2, SAME, TL): [0, 2, 4], (6, 2, SAME, BR): [0, 2, 4],
    (6, 3, VALID, TL): [0, 2], (6, 3, VALID, BR): [0, 2], (6, 2, VALID, TL): [0, 2, 4],
    (6, 3, FULL, TL): [-2, 0, 2, 4], (6, 3, FULL, BR): [-1, 1, 3, 5],
    (7, 3, SAME, TL): [-1, 1, 3, 5], (7, 3, SAME, BR): [-1, 1, 3, 5], (7, 2, SAME, TL): [-1, 1, 3, 5],
    (7, 2, SAME, BR): [0, 2, 4, 6], (7, 3, VALID, TL): [0, 2, 4], (7, 2, VALID, TL): [0, 2, 4],
    (7, 2, VALID, BR): [0, 2, 4], (7, 3, FULL, TL): [-2, 0, 2, 4, 6], (7, 3, FULL, BR): [-2, 0, 2, 4, 6],
}  # fmt: skip


def pooled(x, **arguments):
    edge_mode = arguments.pop("edge_mode", "clamp")
    node = arguments.pop("kind", mps.MPSCNNPoolingMaxNode)(source=mps.MPSNNImageNode(handle="x"), **arguments)
    node.edge_mode = edge_mode
    return node


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("case", FIRST_TAPS, ids=str)
def test_windows_lie_where_apples_table_puts_them(case, axis):
    n, k, size, remainder = case
    shape = (n, 1) if axis == 0 else (1, n)
    kernel = {"kernel_height": k, "kernel_width": 1} if axis == 0 else {"kernel_height": 1, "kernel_width": k}
    node = pooled(None, **kernel, stride_in_pixels_x=2, stride_in_pixels_y=2)
    node.padding_policy = mps.MPSNNDefaultPadding(size | remainder)
    placed = node.operation.sliding.placed((1, *shape, 1))

    assert placed.size[axis] == len(FIRST_TAPS[case])
    assert [placed.first[axis] + 2 * i for i in range(placed.size[axis])] == FIRST_TAPS[case]


@pytest.mark.parametrize("align", ["centred", "top-left", "bottom-right"])
def test_sizes_and_places_follow_apples_text(align):
    bits = {"centred": 0, "top-left": 1, "bottom-right": 2}[align]
    for n, k, s, style, low in itertools.product(range(1, 9), range(1, 5), range(1, 4), (-1, 0, 1), (True, False)):
        expected = judge.policy(n, k, s, style, low, align)
        node = pooled(None, kernel_height=1, kernel_width=k, stride_in_pixels_x=s, stride_in_pixels_y=1)
        size = {-1: VALID, 0: SAME, 1: FULL}[style]
        node.padding_policy = mps.MPSNNDefaultPadding(bits | size | (TL if low else BR))
        if expected[0] < 1:
            with pytest.raises(mps.ImageError, match="larger source"):
                node.operation.result_size((1, 1, n, 1))
            continue
        placed = node.operation.sliding.placed((1, 1, n, 1))
        assert (placed.size[1], placed.first[1]) == expected, (n, k, s, style, low)


def test_the_sides_of_a_remainder_are_chosen_for_each_axis():
    for method, first in ((0, (-1, -1)), (4, (-1, 0)), (8, (0, -1)), (12, (0, 0))):
        node = pooled(None, filter_size=2, stride=1)
        node.padding_policy = mps.MPSNNDefaultPadding(SAME | method)
        assert node.operation.sliding.placed((1, 5, 5, 1)).first == first


def test_a_padding_object_of_ones_own_sees_a_suggestion_and_decides():
    class Padding:
        seen = None

        def padding_method(self):
            return int(M.custom | SAME)

        def destination_image_descriptor(self, *, for_source_images, for_kernel, suggested_descriptor, source_states):
            d, pad = suggested_descriptor, 2
            Padding.seen = for_source_images[0].width, d.width, for_kernel.offset.x
            x = for_kernel.kernel_width // 2 - pad
            for_kernel.offset = for_kernel.offset._replace(x=x)
            return mps.MPSImageDescriptor(
                channel_format=d.channel_format, width=d.width + 2, height=d.height, feature_channels=d.feature_channels
            )

    node = pooled(None, kernel_width=3, kernel_height=1, stride_in_pixels_x=1, stride_in_pixels_y=1)
    node.padding_policy = Padding()
    x = np.float32([[[1], [2], [3], [4]]])
    result = mps.MPSNNGraph(result_image=node, format=F.float32).run(x=x)["result0"].to_array()

    assert Padding.seen == (4, 4, 0)
    assert result.ravel().tolist() == [1, 2, 3, 4, 4, 4]
    with pytest.raises(mps.ParameterError, match="FixedPadding"):
        mps.GraphFile.from_results([node.result_image])
    node.padding_policy = mps.FixedPadding(width=6, height=1, offset_x=-1, offset_y=0)
    np.testing.assert_array_equal(
        mps.MPSNNGraph(result_image=node, format=F.float32).run(x=x)["result0"].to_array(), result
    )


@pytest.mark.parametrize("value", [3, "same", None, object()])
def test_what_is_no_policy_is_refused(value):
    with pytest.raises(mps.ParameterError, match="padding_policy"):
        pooled(None, filter_size=2).padding_policy = value


@pytest.mark.parametrize("method", [3, 48, 1 << 14, 1 << 16, -1, 1.0, True])
def test_bits_that_mean_nothing_are_refused(method):
    with pytest.raises(mps.ParameterError, match="method"):
        mps.MPSNNDefaultPadding(method)


# ---- values ----


def layer_of(w, bias, axes, groups, shape, *, whole=False, half=False):
    (_, ky, sy, dy, _), (_, kx, sx, dx, _) = axes
    d = mps.MPSCNNConvolutionDescriptor(
        kernel_width=kx, kernel_height=ky, input_feature_channels=shape[3], output_feature_channels=len(w)
    )
    d.stride_in_pixels_x, d.stride_in_pixels_y, d.dilation_rate_x, d.dilation_rate_y, d.groups = sx, sy, dx, dy, groups
    kind = mps.MPSCNNFullyConnectedNode if whole else mps.MPSCNNConvolutionNode
    node = kind(source=mps.MPSNNImageNode(handle="x"), weights=mps.ArrayDataSource(d, w, bias))
    node.result_image.handle = "y"
    return node


def results_of(node, x, g, storage):
    """Forward, data gradient and state of a layer."""
    (last,) = node.training_graph(with_source_gradient=mps.MPSNNImageNode(handle="g"))
    if "Pooling" not in type(node).__name__:
        node.result_state.export_from_graph = True
    graph = mps.MPSNNGraph(result_images=[node.result_image, last.result_image], format=storage)
    results = graph.run(x=x, g=g)
    return *(image.to_array() for image in results.values()), results.states.get("y")


def check_layer(rng, axes, sizes, groups=1, channels=(2, 3), policy=None, dtype=np.float16, scale=8):
    """A layer of random numbers with few digits, which meet ties and cancel, against the judge."""
    storage = F.float16 if dtype == np.float16 else F.float32
    read, made = channels[0] * groups, channels[1] * groups
    shape = (2, axes[0][0], axes[1][0], read)

    def numbers(*size):
        return (rng.integers(-64, 65, size) / scale * 2.0 ** rng.integers(-3, 4, size)).astype(dtype)

    x, g = numbers(*shape), numbers(2, *sizes, made)
    w, bias = numbers(made, axes[0][1], axes[1][1], channels[0]), numbers(made).astype(np.float32)
    node = layer_of(w, bias, axes, groups, shape)
    node.padding_policy = policy
    y, dx, state = results_of(node, x, g, storage)
    np.testing.assert_array_equal(y, judge.as_stored(judge.convolved(x, w, bias, axes, sizes, groups), dtype))
    expected = judge.convolution_gradients(g, x, w, axes, groups)
    np.testing.assert_array_equal(dx, judge.as_stored(expected[0], dtype))
    np.testing.assert_array_equal(state.gradient_for_weights, judge.as_stored(expected[1], np.float32))
    np.testing.assert_array_equal(state.gradient_for_biases, judge.as_stored(expected[2], np.float32))


SIZES = list(itertools.product(range(1, 7), range(1, 5), range(1, 4), (-1, 0, 1), (True, False)))
OF_SEVEN = seldom("every", [7, 1], lambda every: every == 7)
"""Of the sizes: one of seven, which has each number of each axis, and slowly all."""


@OF_SEVEN
@pytest.mark.parametrize("dilation", [1, 2])
def test_convolutions_of_one_axis_are_exact_for_every_size_policy_and_dilation(dilation, every):
    rng, d = np.random.default_rng(dilation), dilation
    for n, k, s, style, low in SIZES[dilation::every] if every > 1 else SIZES:
        length = (k - 1) * d + 1
        size, first = judge.policy(n, length, s, style, low)
        if size < 1:
            continue
        method = {-1: VALID, 0: SAME, 1: FULL}[style] | (TL if low else BR)
        axes = (n, k, s, d, first), (1, 1, 1, 1, 0)
        check_layer(rng, axes, (size, 1), channels=(1, 2), policy=mps.MPSNNDefaultPadding(method))


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_convolutions_of_two_axes_are_exact(groups, dtype):
    rng = np.random.default_rng(groups)
    for _ in range(4 // groups + 1):
        axes, sizes = [], []
        for _ in range(2):
            n, k, s, d = rng.integers(3, 7), rng.integers(1, 4), rng.integers(1, 4), rng.integers(1, 3)
            size, first = judge.policy(int(n), int((k - 1) * d + 1), int(s), 0, True)
            axes.append((int(n), int(k), int(s), int(d), first))
            sizes.append(size)
        check_layer(rng, axes, tuple(sizes), groups, policy=mps.MPSNNDefaultPadding(SAME), dtype=dtype)


def test_a_depthwise_convolution_reads_one_channel_for_each_result():
    rng = np.random.default_rng(0)
    x = rng.integers(-4, 5, (1, 4, 3, 5)).astype(np.float16)
    w = rng.integers(-4, 5, (5, 2, 3)).astype(np.float16)
    d = mps.MPSCNNDepthWiseConvolutionDescriptor(
        kernel_width=3, kernel_height=2, input_feature_channels=5, output_feature_channels=5
    )
    node = mps.MPSCNNConvolutionNode(
        source=mps.MPSNNImageNode(handle="x"), weights=mps.ArrayDataSource(d, w, layout="OHW")
    )
    y = mps.MPSNNGraph(result_image=node).run(x=x)["result0"].to_array()
    axes = [(n, k, 1, 1, judge.policy(n, k, 1, 0, True)[1]) for n, k in ((4, 2), (3, 3))]
    np.testing.assert_array_equal(y, judge.as_stored(judge.convolved(x, w[..., None], None, axes, (4, 3), 5), y.dtype))
    assert d.channel_multiplier == 1


def test_a_fully_connected_layer_is_a_convolution_as_large_as_its_source():
    x, w = np.float16([[[1, 2], [3, 4]]]), np.float16([[1, 0, 2, 0], [0, 1, 0, -1]]).reshape(2, 1, 2, 2)
    axes = (1, 1, 1, 1, 0), (2, 2, 1, 1, 0)
    node = layer_of(w, [0.5, -0.5], axes, 1, (1, 1, 2, 2), whole=True)
    y, dx, state = results_of(node, x, np.float16([[[1, 2]]]), F.float32)
    assert y.ravel().tolist() == [7.5, -2.5]
    assert dx.ravel().tolist() == [1, 2, 2, -2]
    assert state.gradient_for_weights.ravel().tolist() == [1, 2, 3, 4, 2, 4, 6, 8]
    assert state.gradient_for_biases.tolist() == [1, 2]
    with pytest.raises(mps.ImageError, match="fully connected"):
        mps.MPSNNGraph(result_image=node).run(x=np.ones((1, 3, 2), np.float16))


@pytest.mark.parametrize("edge_mode", ["clamp", "zero"])
@pytest.mark.parametrize("kind", ["max", "average"])
@OF_SEVEN
def test_pooling_and_its_gradient_are_exact_for_every_size(every, kind, edge_mode):
    rng = np.random.default_rng(5)
    zero = edge_mode == "zero"
    for n, k, s, style, low in SIZES[::every]:
        size, first = judge.policy(n, k, s, style, low)
        if size < 1:
            continue
        axes, sizes = ((n, k, s, 1, first), (2, 2, 1, 1, -1)), (size, 2)
        x = rng.integers(-3, 4, (1, n, 2, 1)).astype(np.float16)
        g = rng.integers(-30, 31, (1, *sizes, 1)).astype(np.float16)
        node = (mps.MPSCNNPoolingMaxNode if kind == "max" else mps.MPSCNNPoolingAverageNode)(
            source=mps.MPSNNImageNode(handle="x"),
            kernel_height=k, kernel_width=2, stride_in_pixels_y=s, stride_in_pixels_x=1,
        )  # fmt: skip
        node.edge_mode = edge_mode
        offset = first + k // 2
        node.padding_policy = mps.FixedPadding(width=2, height=size, offset_x=0, offset_y=offset)
        y, dx, _ = results_of(node, x, g, F.float16)
        if kind == "max":
            expected = judge.largest(x, axes, sizes, zero), judge.largest_gradient(g, x, axes, zero)
        else:
            expected = judge.averaged(x, axes, sizes, zero), judge.average_gradient(g, x, axes, zero)
        for got, want in zip((y, dx), expected, strict=True):
            np.testing.assert_array_equal(got, judge.as_stored(want, np.float16), f"{(n, k, s, style, low)}")


MEASURED = {
    ("average", "zero", 3): np.array([12, 21, 16, 27, 45, 33, 24, 39, 28]) / 9,
    ("average", "clamp", 3): [3, 3.5, 4, 4.5, 5, 5.5, 6, 6.5, 7],
    ("max", "zero", 3): [5, 6, 6, 8, 9, 9, 8, 9, 9],
    ("average", "zero", 2): [0.25, 0.75, 1.25, 1.25, 3, 4, 2.75, 6, 7],
}


@pytest.mark.parametrize("case", MEASURED, ids=str)
def test_pooling_gives_what_was_measured_on_a_device(case):
    kind, edge_mode, size = case
    node = (mps.MPSCNNPoolingMaxNode if kind == "max" else mps.MPSCNNPoolingAverageNode)(
        source=mps.MPSNNImageNode(handle="x"), filter_size=size, stride=1
    )
    node.edge_mode = edge_mode
    x = np.arange(1, 10, dtype=np.float32).reshape(3, 3, 1)
    result = mps.MPSNNGraph(result_image=node, format=F.float32).run(x=x)["result0"].to_array()
    np.testing.assert_array_equal(result.ravel(), np.float32(MEASURED[case]))


def test_excluded_edges_count_in_a_mean():
    node = mps.MPSCNNPoolingAverageNode(source=mps.MPSNNImageNode(handle="x"), filter_size=3, stride=1)
    node.padding_policy = mps.MPSNNDefaultPadding(SAME | M.excludeEdges)
    result = mps.MPSNNGraph(result_image=node, format=F.float32).run(x=np.ones((3, 3, 1), np.float32))["result0"]
    assert result.to_array()[0, 0, 0, 0] == np.float32(4 / 9)


# ---- special values ----


def one_window(values, weights, storage=F.float32, bias=None):
    """A convolution of one result, whose first tap lies outside of the source."""
    w = np.float32(weights).reshape(1, 1, -1, 1)
    d = mps.MPSCNNConvolutionDescriptor(
        kernel_width=w.size, kernel_height=1, input_feature_channels=1, output_feature_channels=1
    )
    node = mps.MPSCNNConvolutionNode(source=mps.MPSNNImageNode(handle="x"), weights=mps.ArrayDataSource(d, w, bias))
    node.padding_policy = mps.FixedPadding(width=1, height=1, offset_x=w.size // 2 - 1, offset_y=0)
    x = np.float32(values).reshape(1, -1, 1)
    return mps.MPSNNGraph(result_image=node, format=storage).run(x=x)["result0"].to_array().item()


@pytest.mark.parametrize(
    ("values", "weights", "expected"),
    [
        ([1, 2], [np.inf, 1, 1], 3),  # nothing outside is multiplied
        ([np.inf, 2], [5, 0, 1], np.nan),
        ([np.inf, -np.inf], [5, 1, 1], np.nan),
        ([np.inf, 2], [5, 1, -3], np.inf),
        ([np.nan, 2], [5, 1, 1], np.nan),
        ([3e38, 3e38, -3e38], [9, 1, 1, 1], 3e38),  # only the exact sum overflows
        ([3e38, 3e38], [9, 1, 1], np.inf),
    ],
)
def test_sums_of_special_values(values, weights, expected):
    np.testing.assert_equal(np.float32(one_window(values, weights)), np.float32(expected))


def test_a_sum_that_vanishes_is_plus_zero_and_one_that_underflows_keeps_its_sign():
    assert np.signbit(one_window([1, 1], [0, 1, -1])) == np.signbit(0.0)
    assert np.signbit(one_window([-0.0, -0.0], [0, 1, 1])) == np.signbit(0.0)
    assert np.signbit(one_window([-1e-30, 0], [0, 1e-30, 1]))


def test_max_pooling_of_special_values():
    node = mps.MPSCNNPoolingMaxNode(source=mps.MPSNNImageNode(handle="x"), filter_size=2)

    def largest(*values):
        x = np.float32(values).reshape(2, 2, 1)
        return mps.MPSNNGraph(result_image=node, format=F.float32).run(x=x)["result0"].to_array().item()

    assert np.isnan(largest(1, np.nan, 3, np.inf))
    assert not np.signbit(largest(-0.0, 0.0, -0.0, -1))
    assert np.signbit(largest(-0.0, -0.0, -0.0, -1))
    assert largest(-np.inf, -np.inf, -np.inf, -np.inf) == -np.inf


@pytest.mark.parametrize("neuron", [t for t in mps.MPSCNNNeuronType if t.name not in ("none", "pReLU")])
def test_a_fused_neuron_reads_the_sum_unrounded(neuron):
    rng = np.random.default_rng(1)
    x, w = rng.normal(size=(4, 5, 3)).astype(np.float16), rng.normal(size=(4, 3, 3, 3)).astype(np.float32)
    d = mps.MPSCNNConvolutionDescriptor(
        kernel_width=3, kernel_height=3, input_feature_channels=3, output_feature_channels=4
    )
    d.fused_neuron_descriptor = mps.MPSNNNeuronDescriptor(neuron)
    node = mps.MPSCNNConvolutionNode(
        source=mps.MPSNNImageNode(handle="x"), weights=mps.ArrayDataSource(d, w, np.float32([1, 0.5, 0, -1]))
    )
    for storage in (F.float16, F.float32, F.unorm8):
        node.result_image.format = storage
        results = [
            mps.MPSNNGraph(result_image=node, mode=mode).run(x=x)["result0"].to_array()
            for mode in ("ideal", "specified")
        ]
        assert results[0].tobytes() == results[1].tobytes()
    with pytest.raises(mps.UnavailableError, match="neuron node"):
        node.training_graph()


@pytest.mark.exhaustive
def test_convolutions_of_two_axes_are_exact_for_every_pair_of_sizes_and_policies():
    rng = np.random.default_rng(0)
    cases = list(itertools.product((1, 4, 5), range(1, 4), range(1, 4), (-1, 0, 1), (True, False), (1, 2)))
    for (n, k, s, style, low, d), (m, taps, t, _, _, e) in itertools.product(cases, cases[::5]):
        lengths = (k - 1) * d + 1, (taps - 1) * e + 1
        (size, first), (width, begin) = (
            judge.policy(pixels, length, stride, style, low)
            for pixels, length, stride in zip((n, m), lengths, (s, t), strict=True)
        )
        if size < 1 or width < 1:
            continue
        method = {-1: VALID, 0: SAME, 1: FULL}[style] | (TL if low else BR)
        axes = (n, k, s, d, first), (m, taps, t, e, begin)
        check_layer(rng, axes, (size, width), channels=(1, 1), policy=mps.MPSNNDefaultPadding(method))


SPECIAL = [(), (np.inf,), (np.nan,), (np.inf, -np.inf, np.nan)]


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_layers_of_any_numbers_are_as_they_are_specified(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    pool = np.array(
        [0, -0.0, 1, -1, 2.0**-24, -(2.0**-14), 65504, -65504, 0.1, -3, *data.draw(st.sampled_from(SPECIAL))],
        np.float16,
    )
    kernel = data.draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    groups = data.draw(st.sampled_from([1, 2]))
    w = rng.choice(pool[:10], (2 * groups, *kernel, 1))
    d = mps.MPSCNNConvolutionDescriptor(
        kernel_width=kernel[1],
        kernel_height=kernel[0],
        input_feature_channels=groups,
        output_feature_channels=2 * groups,
    )
    d.groups, d.stride_in_pixels_x = groups, data.draw(st.integers(1, 2))
    x = rng.choice(pool, (1, 3, 4, groups))
    source = mps.MPSNNImageNode(handle="x")
    node = data.draw(
        st.sampled_from(
            [
                mps.MPSCNNConvolutionNode(source=source, weights=mps.ArrayDataSource(d, w, np.ones(2 * groups))),
                mps.MPSCNNPoolingMaxNode(source=source, filter_size=2, stride=1),
                mps.MPSCNNPoolingAverageNode(source=source, filter_size=3, stride=2),
            ]
        )
    )
    node.result_image.handle = "y"
    if "Pooling" in type(node).__name__:
        node.edge_mode = data.draw(st.sampled_from(["clamp", "zero"]))
    (last,) = node.training_graph(with_source_gradient=mps.MPSNNImageNode(handle="g"))
    shape = node.operation.result_size(x.shape)
    g = rng.choice(pool, shape)
    storage = data.draw(st.sampled_from([F.float16, F.float32, F.unorm8]))
    for result in (node.result_image, last.result_image):
        sources = {"x": x} if result is node.result_image else {"x": x, "g": g}
        fast, exact = (
            mps.MPSNNGraph(result_image=result, format=storage, mode=mode).run(**sources)
            for mode in ("ideal", "specified")
        )
        ours, theirs = (next(iter(images.values())).to_array() for images in (fast, exact))
        np.testing.assert_array_equal(ours, theirs)
        np.testing.assert_array_equal(np.signbit(ours[ours == 0]), np.signbit(theirs[theirs == 0]))
