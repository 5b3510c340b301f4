"""Every use of every node class: a class that a use does not know fails here."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest

import mpsref as mps
from mpsref import teach
from mpsref.arrays import Elements
from mpsref.graph.drawing import dot, mermaid, svg
from mpsref.graph.fields import (
    DescriptorField,
    ImageField,
    ImagesField,
    PaddingField,
    SlopesField,
    StateField,
    WeightsField,
    WholeField,
)
from mpsref.graph.names import image_names
from mpsref.graph.schedule import inputs, schedule
from mpsref.graph.schema import NODE_CLASSES
from mpsref.operations import Operation, Role
from mpsref.storage import FORMATS
from mpsref.testing import check_gradient
from mpsref.testing import strategies as mpst
from mpsref.verify import verify, write_recording
from mpsref.verify.judge import Segment
from mpsref.verify.models import MODELS
from mpsref.verify.ranges import Range
from mpsref.verify.reasons import WITHIN

CLASSES = list(NODE_CLASSES)
"""Of all nodes that can be made."""

F = mps.MPSImageFeatureChannelFormat
SLOPES = [0.5, -0.25, 1.5, 0.125, -2.0]
SHAPE = (1, 4, 3, len(SLOPES))
WHOLE = {"kernel_width": 3, "kernel_height": 2, "stride_in_pixels_x": 2, "stride_in_pixels_y": 1}
NUMBERS = {"primary_scale": 2.0, "secondary_scale": -0.5, "bias": 0.25, "maximum_value": 64.0}


def forward_node(name: str) -> mps.MPSNNFilterNode:
    """A node of a class, of what its fields say, on sources with handles."""
    arguments = {}
    for field in NODE_CLASSES[name].fields:
        match field:
            case ImageField():
                arguments[field.name] = mps.MPSNNImageNode(handle=field.name)
            case ImagesField():
                arguments[field.name] = [mps.MPSNNImageNode(handle=f"{field.name}{i}") for i in range(2)]
            case DescriptorField():
                arguments[field.name] = mps.MPSNNNeuronDescriptor(mps.MPSCNNNeuronType.none)
            case SlopesField():
                arguments[field.name] = SLOPES
            case WholeField():
                arguments[field.name] = WHOLE[field.name]
            case WeightsField():
                arguments[field.name] = weights_of(name)
    node = NODE_CLASSES[name](**arguments)
    for field in NODE_CLASSES[name].fields:
        if field.is_property:
            default = getattr(node, field.name) if isinstance(field, PaddingField) else field.default
            setattr(node, field.name, NUMBERS.get(field.name, default))
    return node


def weights_of(name):
    """Weights of both signs; a fully connected layer's cover the source."""
    whole = "FullyConnected" in name
    d = mps.MPSCNNConvolutionDescriptor(
        kernel_width=SHAPE[2] if whole else 3,
        kernel_height=SHAPE[1] if whole else 2,
        input_feature_channels=SHAPE[3],
        output_feature_channels=4,
    )
    d.stride_in_pixels_x = 1 if whole else 2
    rng = np.random.default_rng(3)
    return mps.ArrayDataSource(d, rng.normal(size=d.weights_shape), rng.normal(size=4), label="layer")


def is_gradient(name: str) -> bool:
    return any(isinstance(field, StateField) for field in NODE_CLASSES[name].fields)


def node_of(name: str) -> mps.MPSNNFilterNode:
    """A node of a class: a forward node, or one that differentiates one."""
    if not is_gradient(name):
        return forward_node(name)
    gradient = mps.MPSNNImageNode(handle="incoming")
    for forward in CLASSES:
        if not is_gradient(forward) and not forward_node(forward).operation.makes_gradient:
            for node in forward_node(forward).gradient_filters(with_source=gradient):
                if type(node).__name__ == name:
                    return node
    raise AssertionError(f"no node is differentiated by a {name}")


def graph_of(name: str, **arguments: object) -> mps.MPSNNGraph:
    return mps.MPSNNGraph(result_image=node_of(name).result_image, format=F.float32, **arguments)


def sources_of(graph: mps.MPSNNGraph) -> dict[str, np.ndarray]:
    """Numbers at which every neuron is smooth and real, and incoming gradients of both signs; the same in each call."""
    rng = np.random.default_rng(7)
    sources = {source.label: rng.uniform(0.5, 3, size_of(graph, i)).astype(np.float32)
               for i, source in enumerate(graph.plan.inputs)}  # fmt: skip
    return {label: -array if label == "incoming" else array for label, array in sources.items()}


def size_of(graph, i):
    """The size of a source: an incoming gradient has that of a forward result."""
    for step in graph.plan.steps:
        if step.operation.roles[step.sources.index(i)] is Role.GRADIENT if i in step.sources else False:
            return step.node.forward_node.operation.result_size(*[SHAPE] * len(step.node.forward_node.sources))
    return SHAPE


def sizes_of(node):
    """The sizes of its sources."""
    forward = node.forward_node
    made = SHAPE if forward is None else forward.operation.result_size(*[SHAPE] * len(forward.sources))
    return [made if role is Role.GRADIENT else SHAPE for role in node.operation.roles]


def result_of(name: str, mode: str = "ideal") -> np.ndarray:
    graph = graph_of(name, mode=mode)
    (result,) = graph.run(**sources_of(graph)).values()
    return result.to_array()


@pytest.mark.parametrize("name", CLASSES)
def test_it_runs_as_it_is_specified(name):
    assert result_of(name).tobytes() == result_of(name, "specified").tobytes()


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("mode", ["stepwise", "stepwise-fma"])
def test_its_formula_step_by_step_is_nearly_that(name, mode):
    np.testing.assert_allclose(result_of(name, mode), result_of(name), rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("name", CLASSES)
def test_its_operation_states_what_each_source_is_for_and_what_size_results(name):
    node = node_of(name)
    sizes = sizes_of(node)

    assert len(node.operation.roles) == len(node.sources)
    assert node.operation.result_size(*sizes) == result_of(name).shape
    assert (Role.GRADIENT in node.operation.roles) == is_gradient(name)
    if len(sizes) > 1:
        with pytest.raises(mps.ImageError, match=r"differ in size|it must be"):
            node.operation.result_size((1, 1, 1, 1), *sizes[1:])


@pytest.mark.parametrize("name", CLASSES)
def test_its_gradient_nodes_do_what_the_operation_takes_for_its_gradients(name):
    node = node_of(name)
    if node.operation.makes_gradient:
        with pytest.raises(mps.UnavailableError):
            node.gradient_filters(with_source=mps.MPSNNImageNode(handle="g"))
        return
    made = node.gradient_filters(with_source=mps.MPSNNImageNode(handle="g"))
    assert tuple(gradient.operation for gradient in made) == node.operation.gradients()
    assert tuple(gradient.differentiated_source for gradient in made) == node.sources
    assert all(gradient.operation == gradient.expected_operation for gradient in made)


@pytest.mark.parametrize("name", CLASSES)
def test_its_images_have_names_without_handles(name):
    node = node_of(name)
    images = [*inputs([node.result_image]), node.result_image]
    for image in images:
        image.handle = None

    names = image_names(images)

    assert len(set(names.values())) == len(images)
    if is_gradient(name):
        assert names[node.result_image] == f"d{names[node.sources[1]]}"


@pytest.mark.parametrize("name", CLASSES)
def test_it_is_drawn(name):
    node = node_of(name)
    for draw in (svg, dot, mermaid):
        text = str(draw(node))
        assert all(source.handle in text for source in node.sources)
    shape = node.structure()
    assert shape.kind(next(reversed(shape.producers))) == ("gradient" if node.operation.makes_gradient else "forward")


@pytest.mark.parametrize("name", CLASSES)
def test_it_is_traced(name):
    graph = graph_of(name)
    sources = sources_of(graph)
    trace = teach.trace(graph, **sources)
    (step,) = [step for step in trace.steps if step.node == name]

    assert step.stored.astype(np.float32).tobytes() == result_of(name).tobytes()
    np.testing.assert_allclose(step.value, step.stored, rtol=2.0**-23, atol=1e-45)
    assert all(read in step.rule for read in step.operation.values_of(step.reads))
    if step.upstream is not None and step.slope is not None:
        np.testing.assert_allclose(step.upstream * step.slope, step.value, rtol=1e-12)
    assert str(trace.at(0, 0, 0))


@pytest.mark.parametrize("name", CLASSES)
def test_the_chain_rule_is_written_out(name):
    graph = graph_of(name)
    traced = teach.trace(graph, **sources_of(graph))
    trace = traced.at(*np.minimum((1, 2, 0), np.subtract(traced.shape[1:], 1)))
    if not is_gradient(name):
        with pytest.raises(mps.SourceError):
            trace.chain_rule()
        return
    (step,) = trace.steps
    first, numbers, *_ = trace.chain_rule().splitlines()
    assert sorted(first.split(" ")) == sorted(step.rule.split(" "))
    if not step.operation.is_pointwise:
        assert (
            sum(x * factor for _, x, factor in step.products) == pytest.approx(step.value.item()) or not step.products
        )
        return
    product = math.prod(map(float, numbers.strip(" =").split(" * ")))
    assert product == pytest.approx(step.value.item(), rel=1e-5)


@pytest.mark.parametrize("name", CLASSES)
def test_it_is_explained(name):
    graph = graph_of(name)
    at = np.minimum((1, 2, 0), np.subtract(teach.trace(graph, **sources_of(graph)).shape[1:], 1)).tolist()
    page = teach.explain(graph, at=at, **sources_of(graph))
    assert name in page


@pytest.mark.parametrize("name", [name for name in CLASSES if not is_gradient(name)])
def test_its_gradients_are_checked(name):
    node = node_of(name)
    if node.operation.makes_gradient:  # it needs something to be the gradient of
        forward = mps.MPSCNNNeuronSigmoidNode(source=mps.MPSNNImageNode(handle="source"))
        node = mps.MPSNNInitialGradientNode(source=forward.result_image)
    graph = mps.MPSNNGraph(result_image=node.result_image)
    report = check_gradient(node, sources_of(graph))
    assert (report.wrong, report.agree) == (0, report.elements)


@pytest.mark.parametrize("name", CLASSES)
def test_a_wrong_gradient_of_it_is_found(name, monkeypatch):
    if not is_gradient(name):
        return
    node = node_of(name)
    result = node.forward_node.result_image
    result.handle, node.result_image.handle = "y", "wrong"
    kind = type(node.operation)
    right = kind.evaluate
    monkeypatch.setattr(kind, "evaluate", lambda *arguments: right(*arguments) * 1.25)
    graph = mps.MPSNNGraph(result_images=[result, node.result_image])
    claim = {"gradients": {"wrong": node.differentiated_source.handle}, "upstream": {"y": "incoming"}}
    with pytest.raises(mps.VerificationError):
        check_gradient(graph, sources_of(graph), **claim)
    monkeypatch.setattr(kind, "evaluate", right)
    assert check_gradient(mps.MPSNNGraph(result_images=[result, node.result_image]), sources_of(graph), **claim).agree


@pytest.mark.parametrize("name", CLASSES)
def test_its_graph_file_holds_it(name):
    file = mps.GraphFile.from_results([node_of(name).result_image])
    again = mps.GraphFile.from_json(file.to_json())

    (node,) = [node for node in again.nodes if type(node).__name__ == name][:1]
    assert again.to_json() == file.to_json()
    assert node.operation == next(node for node in file.nodes if type(node).__name__ == name).operation


@pytest.mark.parametrize("name", CLASSES)
def test_python_that_is_written_of_it_makes_it_again(name):
    file = mps.GraphFile.from_results([node_of(name).result_image], F.float16)
    names: dict[str, object] = {}
    exec(mpst.graph_code(file), names)  # noqa: S102
    assert names["graph"].to_json() == file.to_json()


def recording_of(folder, name, spoil=False):
    """All images that the graph of a node has, as the reference stores them; a few of its own spoilt."""
    file = mps.GraphFile.from_results([node_of(name).result_image], F.float32)
    made = [node.result_image for node in schedule(file.result_images)]
    graph = mps.MPSNNGraph(result_images=made, format=F.float32)
    sources = sources_of(graph)
    names = {image: text for text, image in file.images.items()}
    images = {text: mps.MPSImage.from_array(array) for text, array in sources.items()}
    for image, result in zip(made, graph.run(**sources).values(), strict=True):
        array = result.to_array().copy()
        if spoil and image in file.result_images:
            array[0, -1, -1] = array[0, -1, -1] * 1.5 + 1
        images[names[image]] = mps.MPSImage.from_array(array)
    return write_recording(folder, file, images, device="none, by a test")


@pytest.mark.parametrize("name", CLASSES)
def test_a_right_recording_of_it_passes(name, tmp_path):
    report = verify(recording_of(tmp_path, name))
    assert report.passed
    assert report.images[-1].node == name
    assert report.images[-1].direction == ("gradient" if node_of(name).operation.makes_gradient else "forward")


@pytest.mark.parametrize("name", CLASSES)
def test_a_wrong_recording_of_it_fails(name, tmp_path):
    report = verify(recording_of(tmp_path, name, spoil=True))
    assert not report.passed
    assert report.images[-1].counts.beyond == result_of(name).shape[3]
    assert report.images[-1].findings


@pytest.mark.parametrize("model", ["metal-precise", "metal-fast", "cuda-fast"])
@pytest.mark.parametrize("name", CLASSES)
def test_a_device_that_computes_its_formula_step_by_step_passes(name, model, tmp_path):
    file = mps.GraphFile.from_results([node_of(name).result_image], F.float32)
    graph = mps.MPSNNGraph(result_images=file.result_images, format=F.float32, mode="stepwise")
    sources = sources_of(graph)
    images = {text: mps.MPSImage.from_array(array) for text, array in sources.items()}
    (images[file.results[0]],) = graph.run(**sources).values()

    assert verify(write_recording(tmp_path, file, images, device="none, by a test"), model).passed


def test_every_format_is_a_result_of_every_class():
    for name in CLASSES:
        for channel_format in FORMATS:
            node = node_of(name)
            node.result_image.format = channel_format
            graph = mps.MPSNNGraph(result_image=node.result_image)
            (image,) = graph.run(**sources_of(graph)).values()
            exact = mps.MPSNNGraph(result_image=node.result_image, mode="specified")
            (specified,) = exact.run(**sources_of(exact)).values()
            assert image.to_array().tobytes() == specified.to_array().tobytes(), (name, channel_format)


# ---- an operation that is not pointwise, and whose result has another size ----


@dataclass(frozen=True)
class PairSum(Operation):
    """The sum of two pixels beside each other: half as wide as the source."""

    kind = "sum"
    roles = (Role.INPUT,)
    is_pointwise = False

    def result_size(self, *sources):
        ((n, h, w, c),) = sources
        return n, h, w // 2, c

    def feeding(self, index, *sources):
        n, y, x, c = np.unravel_index(index, self.result_size(*sources))
        return (np.stack([np.ravel_multi_index((n, y, 2 * x + k, c), sources[0]) for k in (0, 1)], axis=1),)

    def evaluate(self, sources, result, how, spread, workers=1):
        raise NotImplementedError

    def run(self, *sources, result, how, workers=1):
        pixels = sources[0].to_array().astype(np.float64)
        total = pixels[:, :, 0::2] + pixels[:, :, 1::2]
        return mps.MPSImage.from_array(total.astype(result.dtype)).slices.copy()

    def stepwise(self, f, *sources, function=None):
        (x,) = sources
        first, second = (Range(x.low[:, k], x.high[:, k], x.nan[:, k], x.reason[:, k], f) for k in (0, 1))
        return first + second

    def text(self, names, symbol):
        return f"pairs({names[0]})"


class PairSumNode(mps.MPSNNFilterNode):
    def __init__(self, source):
        self._connect(source=source)

    @property
    def operation(self):
        return PairSum()


def test_a_result_may_have_another_size_and_be_fed_by_other_places():
    x = mps.MPSNNImageNode(handle="x")
    tanh = mps.MPSCNNNeuronTanHNode(source=x)
    pairs = PairSumNode(tanh.result_image)
    relu = mps.MPSCNNNeuronReLUNode(source=pairs.result_image)
    nodes = [tanh, pairs, relu]
    graph = mps.MPSNNGraph(result_images=[node.result_image for node in nodes], format=F.float32)
    values = np.random.default_rng(1).normal(size=(1, 2, 6, 5)).astype(np.float32)
    inner, summed, result = (image.to_array() for image in graph.run(x=values).values())

    assert (inner.shape, result.shape) == ((1, 2, 6, 5), (1, 2, 3, 5))
    np.testing.assert_array_equal(result, np.maximum(summed, 0))

    # The verdict follows each element of the last image back to the two pixels that feed it.
    formats = {node.result_image: FORMATS[F.float32] for node in nodes}
    segment = Segment(nodes, {x: Elements(values, FORMATS[F.float32])}, formats)
    model, index = MODELS["metal-precise"], np.arange(result.size)
    assert (segment.classify(result.reshape(-1), index, model) == WITHIN).all()
    another = np.roll(result, 1, axis=2).reshape(-1)
    assert np.count_nonzero(segment.classify(another, index, model) != WITHIN) > result.size // 2
