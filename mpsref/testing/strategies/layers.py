"""Graphs of one layer."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import note
from hypothesis import strategies as st

from mpsref.enums import MPSImageEdgeMode, MPSNNConvolutionAccumulatorPrecisionOption, MPSNNPaddingMethod
from mpsref.graph.file import GraphFile
from mpsref.graph.layers import (
    MPSCNNConvolutionNode,
    MPSCNNFullyConnectedNode,
    MPSCNNPoolingAverageNode,
    MPSCNNPoolingMaxNode,
    MPSCNNPoolingNode,
)
from mpsref.graph.nodes import MPSNNImageNode
from mpsref.operations import ArrayDataSource, MPSNNDefaultPadding
from mpsref.operations.weights import MPSCNNConvolutionDescriptor, MPSCNNDepthWiseConvolutionDescriptor
from mpsref.testing.strategies.arguments import count, flag
from mpsref.testing.strategies.code import graph_code
from mpsref.testing.strategies.neurons import descriptors
from mpsref.testing.strategies.numbers import floats, formats

__all__ = ["layers"]

M = MPSNNPaddingMethod
METHODS = [int(size | rest) for size in (M.sizeSame, M.sizeValidOnly, M.sizeFull)
           for rest in (0, M.addRemainderToBottomRight, M.alignTopLeft, M.alignBottomRight)]  # fmt: skip
KINDS = [MPSCNNConvolutionNode, MPSCNNFullyConnectedNode, MPSCNNPoolingMaxNode, MPSCNNPoolingAverageNode]


@st.composite
def layers(draw: st.DrawFn, *, training: bool | None = None, max_kernel: int = 3, max_channels: int = 4) -> GraphFile:
    """
    A strategy for graphs of one layer, as `GraphFile`: convolutions, fully connected layers and pooling.

    Parameters
    ----------
    training : bool, optional
        Whether its gradient is there too, from an incoming gradient ``dy``, with the state of a convolution. Default:
        either.
    max_kernel, max_channels : int
        Largest height and width of the window, and number of channels in a group.

    Notes
    -----
    The source is ``x``, the result ``y``, the gradient ``dx``; `graph_sources` draws images that fit. Weights are a few
    numbers, repeated. When a test fails, Hypothesis prints the Python code of its graph.

    Examples
    --------
    >>> from hypothesis import find
    >>> from mpsref.testing import strategies as mpst
    >>> find(mpst.layers(training=False), lambda graph: not graph.data_sources).nodes[0].kernel_width
    1
    """
    flag(training, "training", is_optional=True)
    sides = st.integers(1, count(max_kernel, "max_kernel"))
    count(max_channels, "max_channels")
    is_training = draw(st.booleans()) if training is None else training
    kind: type[MPSCNNConvolutionNode | MPSCNNPoolingNode] = draw(st.sampled_from(KINDS))
    kernel, strides = [draw(sides) for _ in range(2)], [draw(st.integers(1, 3)) for _ in range(2)]
    x = MPSNNImageNode(handle="x")
    node: MPSCNNConvolutionNode | MPSCNNPoolingNode
    if issubclass(kind, MPSCNNConvolutionNode):
        is_connected = kind is MPSCNNFullyConnectedNode
        weights = _weights(draw, kernel, [1, 1] if is_connected else strides, max_channels, is_connected, is_training)
        node = kind(source=x, weights=weights)
        node.accumulator_precision = draw(st.sampled_from(MPSNNConvolutionAccumulatorPrecisionOption))
        node.convolution_gradient_state.export_from_graph = is_training
    else:
        node = kind(source=x, kernel_width=kernel[1], kernel_height=kernel[0], stride_in_pixels_x=strides[1],
                    stride_in_pixels_y=strides[0])  # fmt: skip
        node.edge_mode = draw(st.sampled_from([MPSImageEdgeMode.clamp, MPSImageEdgeMode.zero]))
    if not isinstance(node, MPSCNNFullyConnectedNode):
        node.padding_policy = MPSNNDefaultPadding(draw(st.sampled_from(METHODS)))
    node.result_image.handle = "y"
    results = [node.result_image]
    if is_training:
        (gradient,) = node.gradient_filters(with_source=MPSNNImageNode(handle="dy"))
        gradient.result_image.handle = "dx"
        results.append(gradient.result_image)
    file = GraphFile.from_results(results, draw(formats()))
    note(graph_code(file))
    return file


def _weights(
    draw: st.DrawFn, kernel: list[int], strides: list[int], max_channels: int, is_connected: bool, is_training: bool
) -> ArrayDataSource:
    read, made = (draw(st.integers(1, max_channels)) for _ in range(2))
    groups = 1 if is_connected else draw(st.integers(1, 3))
    is_depthwise = not is_connected and draw(st.booleans())
    inputs, outputs = (read, read * made) if is_depthwise else (read * groups, made * groups)
    d = (MPSCNNDepthWiseConvolutionDescriptor if is_depthwise else MPSCNNConvolutionDescriptor)(
        kernel_width=kernel[1], kernel_height=kernel[0], input_feature_channels=inputs, output_feature_channels=outputs
    )
    d.stride_in_pixels_y, d.stride_in_pixels_x = strides
    if not is_depthwise:
        d.groups = groups
    if not is_connected:
        d.dilation_rate_y, d.dilation_rate_x = (draw(st.integers(1, 2)) for _ in range(2))
    if not is_training and draw(st.booleans()):
        d.fused_neuron_descriptor = draw(descriptors(channels=outputs).filter(lambda each: each.data is None))
    bias = _repeated(draw, "float32", (outputs,)) if draw(st.booleans()) else None
    return ArrayDataSource(d, _repeated(draw, draw(st.sampled_from(["float32", "float16"])), d.weights_shape), bias)


def _repeated(draw: st.DrawFn, dtype: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    numbers = floats(dtype, allow_nan=False, allow_infinity=False)
    return np.resize(np.array(draw(st.lists(numbers, min_size=1, max_size=5)), dtype), shape)
