"""Layers as nodes: data sources, descriptors, states, snapshots, errors that name the argument."""

import numpy as np
import pytest

import mpsref as mps

F = mps.MPSImageFeatureChannelFormat
X = np.arange(12, dtype=np.float32).reshape(3, 4, 1)


def descriptor(**changes):
    d = mps.MPSCNNConvolutionDescriptor(
        kernel_width=2, kernel_height=1, input_feature_channels=1, output_feature_channels=3
    )
    for name, value in changes.items():
        setattr(d, name, value)
    return d


class Source:
    """A data source of one's own, which writes down its calls."""

    def __init__(self, **answers):
        self.calls = []
        self.answers = {
            "load": True,
            "data_type": "float32",
            "descriptor": descriptor(),
            "weights": np.arange(6, dtype=np.float32).reshape(3, 1, 2, 1),
            "bias_terms": np.float32([1, 2, 3]),
            "label": "mine",
            "purge": None,
        } | answers

    def __getattr__(self, name):
        if name not in self.answers:
            raise AttributeError(name)

        def call():
            self.calls.append(name)
            answer = self.answers[name]
            if isinstance(answer, Exception):
                raise answer
            return answer

        return call


def node_of(source, kind=mps.MPSCNNConvolutionNode):
    node = kind(source=mps.MPSNNImageNode(handle="x"), weights=source)
    node.result_image.handle = "y"
    return node


def gradient_of(node):
    (made,) = node.gradient_filters(with_source=mps.MPSNNImageNode(handle="g"))
    return made


def test_a_data_source_is_loaded_before_all_else_and_purged_after():
    source = Source()
    node_of(source)

    assert source.calls[0] == "load"
    assert source.calls[-1] == "purge"
    assert source.calls.count("load") == source.calls.count("purge") == 1
    assert set(source.calls) == {"load", "data_type", "descriptor", "weights", "bias_terms", "purge"}


def test_a_data_source_that_does_not_load_makes_no_node_and_is_not_purged():
    source = Source(load=False)
    with pytest.raises(mps.ParameterError, match="load of weights returned False"):
        node_of(source)
    assert source.calls == ["load"]


def test_a_data_source_whose_weights_fail_is_purged():
    source = Source(weights=OSError("no file"))
    with pytest.raises(OSError, match="no file"):
        node_of(source)
    assert source.calls[-1] == "purge"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data_type": mps.MPSDataType.uInt8}, "uInt8"),
        ({"data_type": np.uint8}, "quantised"),
        ({"data_type": "float64"}, "float16 or float32"),
        ({"data_type": "float16"}, "data_type is float16"),
        ({"weights": np.zeros((3, 2, 1, 1), np.float32)}, "OHWI"),
        ({"weights": np.zeros(5, np.float32)}, "asks for"),
        ({"bias_terms": np.zeros(2)}, "bias_terms"),
        ({"descriptor": None}, "descriptor"),
        ({"descriptor": descriptor(groups=2)}, "groups"),
    ],
)
def test_what_a_data_source_may_not_give_is_named(changes, words):
    with pytest.raises(mps.ParameterError, match=words):
        node_of(Source(**changes))


def test_what_is_no_data_source_is_told_which_methods_it_lacks():
    with pytest.raises(mps.ParameterError, match="without data_type, descriptor"):
        node_of(np.zeros((1, 1, 1, 1)))


@pytest.mark.parametrize("name", ["kernel_width", "stride_in_pixels_x", "groups", "dilation_rate_y"])
@pytest.mark.parametrize("value", [0, -1, 1.5, "2", True, 2**17])
def test_numbers_of_a_descriptor_are_whole_and_at_least_one(name, value):
    with pytest.raises(mps.ParameterError, match=name):
        setattr(descriptor(), name, value)


def test_prelu_cannot_be_fused_and_none_is_nothing():
    d = descriptor()
    with pytest.raises(mps.ParameterError, match="pReLU"):
        d.fused_neuron_descriptor = mps.MPSNNNeuronDescriptor(mps.MPSCNNNeuronType.pReLU, data=[1.0])
    d.fused_neuron_descriptor = None
    assert d.fused_neuron_descriptor.neuron_type is mps.MPSCNNNeuronType.none


@pytest.mark.parametrize(
    ("weights", "layout"),
    [
        (np.arange(24).reshape(2, 3, 2, 2), "OIHW"),
        (np.arange(24).reshape(2, 2, 3, 2), "HWIO"),
    ],
)
def test_arrays_in_other_layouts_become_apples(weights, layout):
    d = mps.MPSCNNConvolutionDescriptor(
        kernel_width=2, kernel_height=2, input_feature_channels=3, output_feature_channels=2
    )
    made = mps.ArrayDataSource(d, weights, layout=layout).weights()
    for o, ky, kx, i in np.ndindex(made.shape):
        place = {"O": o, "H": ky, "W": kx, "I": i}
        assert made[o, ky, kx, i] == weights[tuple(place[axis] for axis in layout)]


def test_a_graph_is_a_snapshot_until_its_data_sources_are_reloaded():
    source = Source(bias_terms=None)
    node = node_of(source)
    graph = mps.MPSNNGraph(result_image=node, format=F.float32)
    before = graph.run(x=X)["y"].to_array()
    node.padding_policy = mps.MPSNNDefaultPadding(0)
    source.answers["weights"] = source.answers["weights"] * 2

    np.testing.assert_array_equal(graph.run(x=X)["y"].to_array(), before)
    graph.reload_from_data_sources()
    np.testing.assert_array_equal(graph.run(x=X)["y"].to_array(), 2 * before)


def test_a_batch_has_one_state_the_sum_of_those_of_its_images():
    node = node_of(Source())
    node.convolution_gradient_state.export_from_graph = True
    node.convolution_gradient_state.handle = "gradients"
    graph = mps.MPSNNGraph(result_image=gradient_of(node), format=F.float32)
    images = {"x": np.stack([X, X + 1]), "g": np.random.default_rng(0).integers(-9, 9, (2, 3, 4, 3)).astype(np.float32)}
    batches = [[mps.MPSImage.from_array(images[h][i]) for i in range(2)] for h in graph.source_image_handles]
    states, whole = [], []
    graph.encode_batch(source_images=batches, destination_states=states)
    graph.encode(
        source_images=[mps.MPSImage.from_array(images[h]) for h in graph.source_image_handles],
        destination_states=whole,
    )
    single = [graph.run(**{h: image[i] for h, image in images.items()}).states["y"] for i in range(2)]

    assert graph.result_state_handles == ["gradients"]
    assert len(states) == len(whole) == 1
    for name in ("gradient_for_weights", "gradient_for_biases"):
        np.testing.assert_array_equal(getattr(states[0], name), getattr(whole[0], name))
        np.testing.assert_array_equal(getattr(states[0], name), sum(getattr(state, name) for state in single))
    with pytest.raises(mps.ParameterError, match="destination_states"):
        graph.encode(source_images=[], destination_states=object())


def test_a_state_that_is_not_exported_is_not_returned():
    graph = mps.MPSNNGraph(result_image=gradient_of(node_of(Source())))
    assert graph.result_state_handles == []
    assert graph.run(x=X, g=np.ones((3, 4, 3), np.float32)).states == {}


def test_gradient_nodes_take_the_state_of_their_own_kind():
    x, g = mps.MPSNNImageNode(handle="x"), mps.MPSNNImageNode(handle="g")
    pool = mps.MPSCNNPoolingMaxNode(source=x, filter_size=2)
    layer = node_of(Source())
    sizes = {"kernel_width": 2, "kernel_height": 2, "stride_in_pixels_x": 2, "stride_in_pixels_y": 2}
    with pytest.raises(mps.ParameterError, match="MPSCNNPoolingAverageGradientNode takes that of a"):
        mps.MPSCNNPoolingAverageGradientNode(
            source_gradient=g, source_image=x, gradient_state=pool.result_state, **sizes
        )
    with pytest.raises(mps.ParameterError, match="MPSCNNFullyConnectedNode"):
        mps.MPSCNNFullyConnectedGradientNode(
            source_gradient=g, source_image=x, convolution_gradient_state=layer.result_state
        )


def test_a_gradient_node_may_have_weights_of_its_own():
    layer, other = node_of(Source()), Source(weights=np.ones((3, 1, 2, 1), np.float32))
    made = mps.MPSCNNConvolutionGradientNode(
        source_gradient=mps.MPSNNImageNode(handle="g"),
        source_image=layer.sources[0],
        convolution_gradient_state=layer.convolution_gradient_state,
        weights=other,
    )
    dx = mps.MPSNNGraph(result_image=made, format=F.float32).run(x=X, g=np.ones((3, 4, 3), np.float32))
    assert next(iter(dx.values())).to_array()[0, 0].ravel().tolist() == [6, 6, 6, 3]
    file = mps.GraphFile.from_results([made.result_image])
    assert len(file.data_sources) == 2
    assert mps.GraphFile.from_json(file.to_json()).to_json() == file.to_json()


@pytest.mark.parametrize("arguments", [{}, {"stride": 2}, {"filter_size": 2, "kernel_width": 2}, {"filter_size": 0},
                                       {"filter_size": 2.0}, {"filter_size": 2, "stride": 0}])  # fmt: skip
def test_pooling_needs_sizes_that_make_sense(arguments):
    with pytest.raises(mps.ParameterError, match=r"filter_size|stride"):
        mps.MPSCNNPoolingMaxNode(source=mps.MPSNNImageNode(handle="x"), **arguments)


@pytest.mark.parametrize(("name", "value"), [("edge_mode", "mirror"), ("edge_mode", 3)])
def test_an_edge_mode_is_clamp_or_zero(name, value):
    node = mps.MPSCNNPoolingMaxNode(source=mps.MPSNNImageNode(handle="x"), filter_size=2)
    with pytest.raises(mps.ParameterError, match="edge_mode"):
        setattr(node, name, value)


def test_channels_that_do_not_fit_name_the_layer_and_its_sources():
    graph = mps.MPSNNGraph(result_image=node_of(Source()))
    with pytest.raises(mps.ImageError, match="y: the source has 2 channels: the weights read 1; it depends on"):
        graph.run(x=np.ones((3, 4, 2), np.float32))


def test_training_style_is_handed_on():
    node = node_of(Source())
    node.training_style = "updateDeviceNone"
    assert gradient_of(node).training_style is mps.MPSNNTrainingStyle.updateDeviceNone


def test_gradient_nodes_that_contradict_their_layer_are_listed_and_refused_in_files():
    x, g = mps.MPSNNImageNode(handle="x"), mps.MPSNNImageNode(handle="g")
    layer = node_of(Source())
    pool = mps.MPSCNNPoolingMaxNode(source=layer, filter_size=2)
    pool.result_image.handle = "z"
    sizes = {"kernel_width": 2, "kernel_height": 2, "stride_in_pixels_x": 2, "stride_in_pixels_y": 2}
    state = pool.result_state

    def pooled(source, **changes):
        return mps.MPSCNNPoolingMaxGradientNode(
            source_gradient=g, source_image=source, gradient_state=state, **(sizes | changes)
        )

    convolved = mps.MPSCNNConvolutionGradientNode(
        source_gradient=g, source_image=layer.result_image, convolution_gradient_state=layer.convolution_gradient_state
    )
    policy = mps.MPSNNDefaultPadding(0)
    for node, name in (
        (pooled(layer.result_image, kernel_width=3), "kernel_width"),
        (pooled(layer.result_image, padding_policy=policy), "padding_policy"),
        (pooled(x), "source_image"),
        (convolved, "source_image"),
    ):
        assert [finding.field for finding in mps.check(node)] == [name]
        with pytest.raises(mps.ParameterError, match=name):
            mps.GraphFile.from_results([node.result_image])
    assert mps.check(pooled(layer.result_image)) == []
