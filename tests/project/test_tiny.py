"""The tour: what mpsref does, in one file that can be read in five minutes."""

from __future__ import annotations

import numpy as np

import mpsref as mps
from mpsref.verify import verify, write_recording

Format = mps.MPSImageFeatureChannelFormat


def test_a_neuron_is_correctly_rounded():
    d = mps.MPSNNNeuronDescriptor(mps.MPSCNNNeuronType.softPlus)

    # ln 2 and ln(1 + e), rounded to float32.
    values = mps.neuron.forward(d, np.float32([0, 1]))
    assert values.tolist() == np.float32([0.6931471805599453, 1.3132616875182228]).tolist()
    assert mps.neuron.gradient(d, np.float32([0]), np.float32([3])).tolist() == [1.5]


def test_an_image_is_stored_in_slices_of_four_channels():
    image = mps.MPSImage.from_array(np.arange(6.0).reshape(1, 1, 6), Format.float16)

    assert image.texture.tolist() == [[[[0, 1, 2, 3]]], [[[4, 5, 0, 0]]]]
    assert image.to_array().tolist() == [[[[0, 1, 2, 3, 4, 5]]]]


def test_a_graph_is_built_differentiated_and_run():
    x, dy = mps.MPSNNImageNode(handle="x"), mps.MPSNNImageNode(handle="dy")
    n = mps.MPSCNNNeuronReLUNode(source=x, a=0.5)
    m = mps.MPSCNNNeuronLinearNode(source=n.result_image, a=2, b=1)
    (last,) = m.training_graph(with_source_gradient=dy)
    m.result_image.handle, last.result_image.handle = "y", "dx"
    graph = mps.MPSNNGraph(result_images=[m.result_image, last.result_image])

    images = graph.run(x=np.float16([[[-4, 3]]]), dy=np.float16([[[1, 10]]]))

    assert images["y"].to_array().tolist() == [[[[-3, 7]]]]
    assert images["dx"].to_array().tolist() == [[[[1, 20]]]]


def test_an_image_with_several_readers_gets_the_sum_of_their_gradients():
    x = mps.MPSNNImageNode(handle="x")
    square = mps.MPSCNNNeuronPowerNode(source=x, c=2)
    total = mps.MPSNNAdditionNode(left_source=square.result_image, right_source=x)
    ones = mps.MPSNNInitialGradientNode(source=total.result_image)
    (last,) = ones.training_graph()
    graph = mps.MPSNNGraph(result_image=last.result_image)

    # x^2 + x has the derivative 2 x + 1; the gradient has the handle of what it is the gradient of.
    assert graph.run(x=np.float16([[[3]]]))["x"].to_array().item() == 7
    assert isinstance(last, mps.MPSNNAdditionNode)


def test_what_a_device_wrote_gets_a_verdict(tmp_path):
    x = mps.MPSNNImageNode(handle="x")
    n = mps.MPSCNNNeuronSigmoidNode(source=x)
    n.result_image.handle = "y"
    values = np.zeros((2, 2, 4), np.float16)
    written = np.full((2, 2, 4), 0.5, np.float16)
    written[1, 0, 2] = 0.75
    images = {"x": mps.MPSImage.from_array(values), "y": mps.MPSImage.from_array(written)}
    path = write_recording(tmp_path / "run", mps.GraphFile.from_results([n.result_image]), images, device="a device")

    report = verify(path)

    (element,) = report.images[0].worst
    assert not report.passed
    assert (element.y, element.x, element.channel, element.got, element.want) == (1, 0, 2, "0.75", "0.5")
