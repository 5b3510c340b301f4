"""One element followed through windows: `Trace.at`, and the page and the command that show it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import mpsref as mps
from mpsref import teach
from mpsref.cli import main
from mpsref.graph import GraphFile
from mpsref.operations import Maximum
from mpsref.record import write_recording

F = mps.MPSImageFeatureChannelFormat


def named(node, name):
    node.result_image.handle = name
    return node


def convolution(source, name, *, kernel=3, stride=1, inputs=2, outputs=2, groups=1, seed=0):
    d = mps.MPSCNNConvolutionDescriptor(
        kernel_width=kernel, kernel_height=kernel, input_feature_channels=inputs, output_feature_channels=outputs
    )
    d.stride_in_pixels_x = d.stride_in_pixels_y = stride
    d.groups = groups
    values = np.random.default_rng(seed).normal(size=(outputs, kernel, kernel, inputs // groups))
    weights = mps.ArrayDataSource(d, values.astype(np.float32))
    return named(mps.MPSCNNConvolutionNode(source=source, weights=weights), name)


@pytest.fixture(scope="module")
def whole():
    """Convolutions of both strides, both kinds of pooling, two paths, and all gradients; two images of 11x9."""
    x = mps.MPSNNImageNode(handle="x")
    relu = named(mps.MPSCNNNeuronReLUNode(source=convolution(x, "c1", outputs=4, groups=2).result_image), "relu")
    largest = named(mps.MPSCNNPoolingMaxNode(source=relu.result_image, filter_size=2, stride=2), "max")
    left = convolution(largest.result_image, "left", stride=2, inputs=4, seed=1)
    right = convolution(largest.result_image, "right", kernel=1, stride=2, inputs=4, seed=2)
    added = mps.MPSNNAdditionNode(left_source=left.result_image, right_source=right.result_image)
    mean = named(mps.MPSCNNPoolingAverageNode(source=named(added, "sum").result_image, filter_size=2), "mean")
    last = mean.training_graph(with_source_gradient=mps.MPSNNImageNode(handle="dy"))
    rng = np.random.default_rng(3)
    graph = mps.MPSNNGraph(result_images=[last[0].result_image, mean.result_image], format=F.float32)
    sources = {"x": rng.normal(size=(2, 11, 9, 2)).astype(np.float32)}
    made = mps.MPSNNGraph(result_image=mean.result_image).run(**sources)["mean"]
    sources["dy"] = rng.normal(size=made.shape).astype(np.float32)
    return teach.trace(graph, **sources)


@pytest.mark.parametrize("of", ["x", "c1", "max", "right", "sum", "mean", "dy", "dx"])
def test_every_number_is_that_of_its_place_and_feeds_what_it_leads_to(whole, of):
    shape = whole.images[of].shape if of in whole.images else whole[of].shape
    rng = np.random.default_rng(5)
    for _ in range(4):
        n, y, x, c = (int(rng.integers(size)) for size in shape)
        one = whole.at(y, x, c, n, of=of)
        assert one.places[of] == (n, y, x, c)
        assert {at[0] for at in one.places.values()} == {n}
        assert not set(one.places) & set(one.left_out)
        for step in one.steps:
            at = one.places[step.name]
            assert step.stored.item() == whole[step.name].stored[at]
            if step.operation.is_pointwise:
                assert {one.places[name] for name in step.reads} == {at}
                assert step.value.item() == pytest.approx(step.stored.item(), rel=1e-6)
            elif step.operation.makes_gradient:
                assert one.places[step.reads[1]] == at
            elif isinstance(step.operation, Maximum):
                # The largest of its window, unless one came from an element that is not.
                if of not in {"x", "c1", "dx"}:
                    assert one[step.reads[0]].stored.item() == step.stored.item()
                assert one.places[step.reads[0]] in step.places
            elif step.name not in {"left", "right"} or step.name == of:
                # Where two paths part, an element of one may read others only.
                assert one.places[step.reads[0]] in step.places
        parts = [one[name] for name in ("left", "right")]
        assert any(one.places["max"] in part.places for part in parts)


def test_an_element_that_no_window_reads_leaves_images_out_by_name():
    x = mps.MPSNNImageNode(handle="x")
    coarse = convolution(x, "coarse", kernel=1, stride=3)
    beside = named(mps.MPSCNNNeuronAbsoluteNode(source=x), "beside")
    after = named(mps.MPSCNNNeuronAbsoluteNode(source=coarse.result_image), "after")
    graph = mps.MPSNNGraph(result_images=[after.result_image, beside.result_image])
    trace = teach.trace(graph, x=np.ones((9, 9, 2), np.float16))
    read = {y for y in range(9) if "after" in trace.at(y, 0, 0).places or "after" in trace.at(y, 1, 0).places}
    missed = trace.at(min({*range(9)} - read), 0, 0)
    page = teach.explain(graph, x=np.ones((9, 9, 2), np.float16), at=missed.place[1:])

    assert len(read) == 3
    assert [step.name for step in missed.steps] == ["beside"]
    assert missed.left_out == ("coarse", "after")
    assert str(missed).splitlines()[0].endswith("; without coarse, after")
    assert "without coarse, after" in page
    assert "<td>MPSCNNConvolutionNode</td>" not in page
    alone = teach.trace(mps.MPSNNGraph(result_image=after.result_image), x=np.ones((9, 9, 2), np.float16))
    with pytest.raises(mps.ImageError, match=r"no step reads or makes image 0, y \d, x 0, channel 0 of x"):
        alone.at(missed.place[1], 0, 0)


@pytest.mark.parametrize("kind", ["max", "mean", "convolution"])
def test_an_incoming_gradient_leads_to_what_it_is_for(kind):
    x = mps.MPSNNImageNode(handle="x")
    node = {
        "max": lambda: mps.MPSCNNPoolingMaxNode(source=x, filter_size=3, stride=3),
        "mean": lambda: mps.MPSCNNPoolingAverageNode(source=x, filter_size=3, stride=3),
        "convolution": lambda: convolution(x, "y", stride=3, inputs=4, outputs=6, groups=2),
    }[kind]()
    named(node, "y")
    (last,) = node.training_graph(with_source_gradient=mps.MPSNNImageNode(handle="dy"))
    rng = np.random.default_rng(1)
    values = rng.normal(size=(2, 9, 9, 4)).astype(np.float32)
    size = mps.MPSNNGraph(result_image=node.result_image).run(x=values)["y"]
    graph = mps.MPSNNGraph(result_image=last.result_image, format=F.float32)
    trace = teach.trace(graph, x=values, dy=rng.normal(size=size.shape).astype(np.float32))
    for place in [(0, 1, 1, 0), (1, 2, 0, 3), (0, 0, 2, size.shape[3] - 1)]:
        one = trace.at(*place[1:], image=place[0], of="dy")

        assert one.places["dx"] == one.places["x"] != place
        assert place in one["dx"].places
        assert trace.at(*one.places["x"][1:], image=place[0]).places["dy"][:3] == place[:3]


def test_images_and_places_that_there_are_not(whole):
    with pytest.raises(mps.SourceError, match="no image is called 'z': there are 'dy', 'x', 'c1'"):
        whole.at(0, 0, 0, of="z")
    with pytest.raises(mps.ImageError, match=r"y is 7: it must lie in range\(\d\), for image 'max'"):
        whole.at(7, 0, 0, of="max")


def test_places_are_written_where_they_differ(whole):
    one = whole.at(1, 1, 0, of="mean")
    lines = str(one).splitlines()
    page = teach.explain(
        mps.MPSNNGraph(result_images=[step.plan_step.node.result_image for step in whole.steps], format=F.float32),
        at=(1, 1, 0),
        of="mean",
        **whole.images,
    )
    _, y, x, channel = one.places["x"]

    assert lines[0] == "image 0, y 1, x 1, channel 0 of mean"
    assert f"x (y {y}, x {x}, channel {channel})" in [line.split("  ")[0] for line in lines], str(one)
    assert any(line.startswith("mean  ") for line in lines)
    assert f"x (y {y}, x {x}, channel {channel})" in page
    assert "image 0, y 1, x 1, channel 0 of mean" in page


@pytest.mark.parametrize("number", [1e-3, 10.0])
def test_what_was_lost_before_a_gradient_of_a_window(number):
    x = mps.MPSNNImageNode(handle="x")
    small = named(mps.MPSCNNNeuronLinearNode(source=convolution(x, "c", stride=2).result_image, a=1e-6), "small")
    (last,) = small.training_graph(with_source_gradient=mps.MPSNNImageNode(handle="dy"))
    graph = mps.MPSNNGraph(result_image=last.result_image, format=F.float16)
    trace = teach.trace(graph, x=np.ones((6, 6, 2), np.float16), dy=np.full((3, 3, 2), number, np.float16))
    one = trace.at(2, 2, 0)

    assert set(one.lost) == ({"dc", "dx"} if number < 1 else set())
    assert all(text.here.shape == (1, 1, 1, 1) for text in one.lost.values())


def test_the_command_shows_the_worst_element_of_the_first_wrong_image(tmp_path, capsys):
    x = mps.MPSNNImageNode(handle="x")
    largest = named(mps.MPSCNNPoolingMaxNode(source=x, filter_size=2, stride=2), "max")
    last = named(mps.MPSCNNNeuronAbsoluteNode(source=largest.result_image), "last")
    file = GraphFile.from_results([last.result_image])
    values = np.random.default_rng(0).normal(size=(1, 8, 8, 2)).astype(np.float16)
    made = {name: image.to_array() for name, image in
            mps.MPSNNGraph(result_images=[largest.result_image, last.result_image]).run(x=values).items()}  # fmt: skip
    page, numbers = tmp_path / "page.html", itertools.count()

    def shown(images, *arguments):
        stored = {name: mps.MPSImage.from_array(array) for name, array in images.items()}
        path = write_recording(tmp_path / f"recording{next(numbers)}", file, stored, "device")
        assert main(["explain", str(path), "--html", str(page), *arguments]) == 0
        return page.read_text("utf-8")

    right = {"x": values, **made}
    for images in (right, {"x": values}):
        assert "for one element of each image: image 0, y 0, x 0, channel 0. Each" in shown(images)
    made["last"][0, 3, 2, 1] += 1
    made["last"][0, 1, 1, 0] += np.float16(0.1)
    assert "image 0, y 3, x 2, channel 1 of last" in shown(right)
    assert "image 0, y 2, x 0, channel 1 of max" in shown(right, "--of", "max", "--at", "2,0,1")
    assert "image 0, y 7, x 7, channel 1 of x" in shown(right, "--of", "x", "--at", "7,7,1")
    path = str(tmp_path / "recording0" / "recording.json")
    assert main(["explain", path, "--html", str(page), "--of", "nothing"]) == 2
    assert "no image is called 'nothing'" in capsys.readouterr().err
