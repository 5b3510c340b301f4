"""The network of Apple's MNIST sample to its last fully connected layer, built in Apple's order of calls, exactly."""

import itertools

import numpy as np
import pytest

import layer_judge as judge
import mpsref as mps
from mpsref.testing import check_gradient

F = mps.MPSImageFeatureChannelFormat


class Network:
    """The sample's nodes for some sizes: kernel, channels, and units of the two fully connected layers."""

    def __init__(self, rng, size, kernel, channels, units, limit):
        self.layers = []
        self.x = mps.MPSNNImageNode(handle="x")
        self.rng, self.limit = rng, limit
        node = self.layer(mps.MPSCNNConvolutionNode, self.x, kernel, 1, channels[0])
        node = self.pooled(node)
        node = self.layer(mps.MPSCNNConvolutionNode, node.result_image, kernel, channels[0], channels[1])
        node = self.pooled(node)
        left = (size + 3) // 4
        node = self.layer(mps.MPSCNNFullyConnectedNode, node.result_image, left, channels[1], units[0])
        node = self.activated(node)
        self.last = self.layer(mps.MPSCNNFullyConnectedNode, node.result_image, 1, units[0], units[1])
        gradient = mps.MPSNNImageNode(handle="g")
        (first,) = self.last.training_graph(with_source_gradient=gradient, node_handler=self.keep)
        self.results = [self.last, *self.gradients.values()]
        assert self.results[-1] is first

    gradients: dict

    def keep(self, node, forward, source, gradient):
        self.gradients = {**getattr(self, "gradients", {}), forward: node}

    def layer(self, kind, source, kernel, read, made):
        d = mps.MPSCNNConvolutionDescriptor(
            kernel_width=kernel, kernel_height=kernel, input_feature_channels=read, output_feature_channels=made
        )
        weights = self.rng.integers(-self.limit, self.limit + 1, (made, kernel, kernel, read)).astype(np.float32)
        bias = self.rng.integers(-3, 4, made).astype(np.float32)
        node = kind(source=source, weights=mps.ArrayDataSource(d, weights, bias))
        node.convolution_gradient_state.export_from_graph = True
        self.layers.append(node)
        return node

    def activated(self, node):
        relu = mps.MPSCNNNeuronReLUNode(source=node.result_image, a=0)
        self.layers.append(relu)
        return relu

    def pooled(self, node):
        pool = mps.MPSCNNPoolingMaxNode(source=self.activated(node).result_image, filter_size=2, stride=2)
        pool.padding_policy = mps.MPSNNDefaultPadding.for_tensorflow_average_pooling()
        self.layers.append(pool)
        return pool

    def run(self, x, g, storage):
        """All forward results in order, all gradients by forward node, and the states in order of the layers."""
        for i, node in enumerate(self.layers):
            node.result_image.handle = f"y{i}"
        nodes = [*self.layers, *self.gradients.values()]
        graph = mps.MPSNNGraph(result_images=[node.result_image for node in nodes], format=storage)
        results = graph.run(x=x, g=g)
        arrays = [image.to_array() for image in results.values()]
        forward, backward = arrays[: len(self.layers)], arrays[len(self.layers) :]
        return forward, dict(zip(self.gradients, backward, strict=True)), results.states


def axes_of(node, size):
    """The axes of a layer as the judge takes them, and the size of the result."""
    operation = node.operation
    kernel, strides = operation.sliding.kernel, operation.sliding.strides
    axes, sizes = [], []
    for n, k, s in zip(size[1:3], kernel, strides, strict=True):
        style = -1 if isinstance(node, mps.MPSCNNFullyConnectedNode) else 0
        made, first = judge.policy(n, k, s, style, not isinstance(node, mps.MPSCNNPoolingMaxNode))
        axes.append((n, k, s, 1, first))
        sizes.append(made)
    return axes, tuple(sizes)


@pytest.mark.parametrize("storage", [F.float16, F.float32])
def test_the_small_network_equals_exact_rational_arithmetic_layer_by_layer(storage):
    rng = np.random.default_rng(1)
    network = Network(rng, 7, 3, (4, 8), (12, 5), 2)
    dtype = np.float16 if storage is F.float16 else np.float32
    x = rng.integers(-3, 4, (2, 7, 7, 1)).astype(dtype)
    g = rng.integers(-3, 4, (2, 1, 1, 5)).astype(dtype)
    forward, backward, states = network.run(x, g, storage)
    read = x
    for i, (node, made) in enumerate(zip(network.layers, forward, strict=True)):
        incoming = g if node is network.last else backward[network.layers[i + 1]]
        if isinstance(node, mps.MPSCNNNeuronReLUNode):
            np.testing.assert_array_equal(made, np.maximum(read, 0))
            np.testing.assert_array_equal(backward[node], np.where(read >= 0, incoming, 0))
        else:
            axes, sizes = axes_of(node, read.shape)
            if isinstance(node, mps.MPSCNNPoolingMaxNode):
                want, gradient = (
                    judge.largest(read, axes, sizes, False),
                    judge.largest_gradient(incoming, read, axes, False),
                )
            else:
                w = node.weights_read
                want = judge.convolved(read, w.values, w.bias, axes, sizes, 1)
                gradient, dw, db = judge.convolution_gradients(incoming, read, w.values, axes, 1)
                state = states[f"y{i}"]
                np.testing.assert_array_equal(state.gradient_for_weights, judge.as_stored(dw, np.float32))
                np.testing.assert_array_equal(state.gradient_for_biases, judge.as_stored(db, np.float32))
            np.testing.assert_array_equal(made, judge.as_stored(want, dtype))
            np.testing.assert_array_equal(backward[node], judge.as_stored(gradient, dtype))
        read = made


def convolved(x, w, bias, pad):
    """In 64-bit integers, tap by tap."""
    padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    h, width = padded.shape[1] - w.shape[1] + 1, padded.shape[2] - w.shape[2] + 1
    total = np.zeros((len(x), h, width, len(w)), np.int64) + bias
    for ky, kx in itertools.product(range(w.shape[1]), range(w.shape[2])):
        total += np.einsum("nhwi,oi->nhwo", padded[:, ky : ky + h, kx : kx + width], w[:, ky, kx], optimize=True)
    return total


def test_the_whole_network_equals_integers_forward_and_backward():
    rng = np.random.default_rng(2)
    network = Network(rng, 28, 5, (32, 64), (1024, 10), 1)
    x = rng.integers(-1, 2, (1, 28, 28, 1)).astype(np.float32)
    g = rng.integers(-2, 3, (1, 1, 1, 10)).astype(np.float32)
    forward, backward, states = network.run(x, g, F.float32)
    read = x
    for i, (node, made) in enumerate(zip(network.layers, forward, strict=True)):
        incoming = g if node is network.last else backward[network.layers[i + 1]]
        integers, e = read.astype(np.int64), incoming.astype(np.int64)
        assert np.abs(integers).max() < 2**40
        if isinstance(node, mps.MPSCNNPoolingMaxNode):
            n, h, w, c = integers.shape
            expected = integers.reshape(n, h // 2, 2, w // 2, 2, c).max(axis=(2, 4))
        elif isinstance(node, mps.MPSCNNNeuronReLUNode):
            expected = np.maximum(integers, 0)
        else:
            weights, bias = (array.astype(np.int64) for array in (node.weights_read.values, node.weights_read.bias))
            pad = 2 if weights.shape[1] == 5 else 0
            expected = convolved(integers, weights, bias, pad)
            back = weights[:, ::-1, ::-1].transpose(3, 1, 2, 0)
            gradient = convolved(e, back, 0, weights.shape[1] - 1 - pad)
            np.testing.assert_array_equal(backward[node], gradient.astype(np.float32))
            np.testing.assert_array_equal(states[f"y{i}"].gradient_for_biases, e.sum(axis=(0, 1, 2)).astype(np.float32))
            if pad == 0:
                dw = e.reshape(-1, 1, 1, 1) * integers
                np.testing.assert_array_equal(states[f"y{i}"].gradient_for_weights, dw.astype(np.float32))
        np.testing.assert_array_equal(made, expected.astype(np.float32))
        read = made


def test_the_small_networks_gradient_agrees_with_differences():
    rng = np.random.default_rng(3)
    network = Network(rng, 5, 3, (2, 3), (4, 3), 2)
    x = rng.normal(size=(1, 5, 5, 1))
    report = check_gradient(network.last, {"x": x})
    # Images, weights and biases; a pool that is at a kink between steps leaves some undecided.
    assert report.agree > 0.9 * report.elements


def test_a_wrong_gradient_of_weights_is_found(monkeypatch):
    rng = np.random.default_rng(3)
    network = Network(rng, 5, 3, (1, 2), (3, 2), 2)
    kind = type(network.last.operation.gradients()[0])
    right = kind.correlated
    monkeypatch.setattr(kind, "correlated", lambda self, gradient, x: right(self, gradient, x) / 2)
    with pytest.raises(mps.VerificationError, match="weights"):
        check_gradient(network.last, {"x": rng.normal(size=(1, 5, 5, 1))})
