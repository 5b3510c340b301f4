"""Images whose sources were overwritten after they were read: no right kernel is accused."""

import json
from pathlib import Path

import jsonschema
import numpy as np
import pytest

import mpsref as mps
from mpsref.arrays import Elements
from mpsref.graph.schedule import schedule
from mpsref.storage import FORMATS
from mpsref.verify import Tolerance, verify, write_recording
from mpsref.verify.aggregate import Aggregate
from mpsref.verify.html import page
from mpsref.verify.junit import junit

F = mps.MPSImageFeatureChannelFormat
NAME = "the source is not recorded as it was read"
SHAPE = (1, 9, 6, 5)
SCHEMA = Path(mps.__file__).parent / "schemas" / "report.schema.json"


def normal(seed, shape=SHAPE, dtype=np.float16):
    return np.random.default_rng(seed).normal(0, 1, shape).astype(dtype)


def off_by_one(stored, seed=3, share=0.3):
    """Off by 1 ULP here and there, as a device may be."""
    rng = np.random.default_rng(seed)
    by = np.where((rng.random(stored.shape) < share) & (np.abs(stored) > 1e-3), rng.choice([-1, 1], stored.shape), 0)
    bits = f"i{stored.itemsize}"
    return (stored.view(bits) + by.astype(bits)).view(stored.dtype)


class Device:
    """What a device makes of a graph; an image may be lost when others have read it, or be wrong from the start."""

    def __init__(self, results, sources, storage=F.float16):
        self.storage, self.nodes = storage, list(schedule(results))
        self.results, self.sources = (
            results,
            {image: Elements(value, FORMATS[storage]) for image, value in sources.items()},
        )

    def images(self, **wrong):
        images = dict(self.sources)
        for k, node in enumerate(self.nodes):
            made = node.operation.of_arrays([images[source] for source in node.sources], FORMATS[self.storage]).stored
            change = wrong.get(node.result_image.handle, lambda made: made)
            images[node.result_image] = Elements(change(off_by_one(made, k)), FORMATS[self.storage])
        return {image.handle: image_.stored for image, image_ in images.items()}

    def verified(self, folder, images, *missing, **options):
        file = mps.GraphFile.from_results(self.results, self.storage)
        kept = {
            name: mps.MPSImage.from_array(np.ascontiguousarray(value))
            for name, value in images.items()
            if name not in missing
        }
        return verify(write_recording(folder / "r", file, kept, "a device"), **options)


def neuron(name, source, handle, **parameters):
    node = getattr(mps, f"MPSCNNNeuron{name}Node")(source=source, **parameters)
    node.result_image.handle = handle
    return node


def chain(*names, storage=F.float16, shape=SHAPE):
    """Neurons one after another: of x are made a, b, c..."""
    x = image = mps.MPSNNImageNode(handle="x")
    for name, handle in zip(names, "abcdef", strict=False):
        image = neuron(name, image, handle).result_image
    return Device([image], {x: normal(1, shape, FORMATS[storage].dtype)}, storage)


def layer(kind, source, channels):
    if kind == "convolution":
        weights = normal(2, (4, 3, 3, channels), np.float32)
        d = mps.MPSCNNConvolutionDescriptor(
            kernel_width=3, kernel_height=3, input_feature_channels=channels, output_feature_channels=4
        )
        node = mps.MPSCNNConvolutionNode(source=source, weights=mps.ArrayDataSource(d, weights))
    else:
        node = getattr(mps, f"MPSCNNPooling{kind}Node")(source=source, filter_size=3, stride=2)
    node.result_image.handle = "y"
    return node


def said(report):
    return {image.name: [finding.name for finding in image.findings] for image in report.images}


def blamed(report):
    return {image.name: image.wrong_sources for image in report.images if image.wrong_sources}


def noise(made):
    return normal(99, made.shape, made.dtype)


def rows(made):
    wrong = made.copy()
    wrong[:, 3:6] = noise(wrong[:, 3:6])
    return wrong


@pytest.mark.parametrize("storage", [F.float16, F.float32], ids=lambda storage: storage.name)
@pytest.mark.parametrize(
    "names", [("Absolute", "ELU", "ELU"), ("HardSigmoid", "Absolute"), ("TanH", "GeLU", "SoftSign", "Linear")]
)
def test_what_passes_with_all_images_passes_without_those_between(tmp_path, names, storage):
    device = chain(*names, storage=storage)
    images = device.images()
    between = "abc"[: len(names) - 1]

    assert device.verified(tmp_path / "all", images).passed
    assert device.verified(tmp_path / "ends", images, *between).passed
    last = "abcd"[len(names) - 1]
    wrong = (images[last] * 1.02).astype(images[last].dtype)
    assert not device.verified(tmp_path / "wrong", images | {last: wrong}, *between).passed


def test_nan_that_arises_later_does_not_refute_a_clamp_that_loses_it(tmp_path):
    device = chain("ReLUN", "Logarithm", storage=F.float32)
    images = device.images()
    x = images["x"]
    x[0, 0] = np.nan
    with np.errstate(all="ignore"):
        lost = np.where(np.isnan(x), np.float32(0), mps.neuron.forward("reLUN", x))
        end = mps.neuron.forward("logarithm", lost)
    assert np.isnan(end).any()

    # With the image between, that says where it was lost.
    for between in ([], ["a"]):
        report = device.verified(tmp_path / str(len(between)), {"x": x, "a": lost, "b": end}, *between)
        assert (report.passed, report.verdict.count("results of NaN inputs differ")) == (True, 1)
    kept = device.verified(tmp_path / "kept", {"x": x, "a": mps.neuron.forward("reLUN", x), "b": end})
    assert not kept.passed


@pytest.mark.parametrize("how", [noise, rows, lambda made: 0 * made], ids=["noise", "rows", "zeros"])
@pytest.mark.parametrize("storage", [F.float16, F.float32], ids=lambda storage: storage.name)
def test_what_follows_from_the_right_source_is_said_to_be_right(tmp_path, storage, how):
    # The exponential magnifies what its source is off by, as it may be.
    device = chain("TanH", "Exponential", "SoftPlus", storage=storage)
    images = device.images()

    report = device.verified(tmp_path, images | {"a": how(images["a"])})

    assert not report.passed
    assert (report.first_wrong.name, blamed(report)) == ("a", {"b": ("a",)})
    assert [NAME in names for names in said(report).values()] == [False, True, False]


def test_in_place_is_not_taken_for_a_node_that_was_left_out(tmp_path):
    device = chain("TanH", "Exponential")
    images = device.images()

    report = device.verified(tmp_path, images | {"a": images["b"]})

    assert said(report) == {"a": ["another image of the graph"], "b": [NAME]}


@pytest.mark.parametrize("kind", ["convolution", "Max", "Average"])
def test_layers_follow_from_the_right_source(tmp_path, kind):
    x = mps.MPSNNImageNode(handle="x")
    node = layer(kind, neuron("TanH", x, "a").result_image, SHAPE[3])
    device = Device([node.result_image], {x: normal(1)})
    images = device.images()

    assert blamed(device.verified(tmp_path, images | {"a": rows(images["a"])})) == {"y": ("a",)}


def test_several_sources_were_overwritten(tmp_path):
    x = mps.MPSNNImageNode(handle="x")
    a, b = neuron("TanH", x, "a").result_image, neuron("GeLU", x, "b").result_image
    node = mps.MPSNNAdditionNode(left_source=a, right_source=b)
    node.result_image.handle = "y"
    device = Device([node.result_image], {x: normal(1)})
    images = device.images()

    report = device.verified(tmp_path, images | {"a": noise(images["a"]), "b": 0 * images["b"]})

    assert blamed(report) == {"y": ("a", "b")}


@pytest.mark.parametrize(("missing", "sources"), [((), ("c",)), (("b",), ("a", "c"))])
def test_the_source_of_the_source_was_overwritten_too(tmp_path, missing, sources):
    device = chain("TanH", "GeLU", "SoftPlus", "Exponential")
    images = device.images()
    wrong = images | {"a": rows(images["a"]), "c": noise(images["c"])}

    report = device.verified(tmp_path, wrong, *missing, partial=True)

    assert blamed(report)["d"] == sources


def trained():
    x, dy = mps.MPSNNImageNode(handle="x"), mps.MPSNNImageNode(handle="dy")
    a = neuron("TanH", x, "a")
    b = neuron("SoftPlus", a.result_image, "b")
    (last,) = b.training_graph(with_source_gradient=dy)
    device = Device([b.result_image, last.result_image], {x: normal(1), dy: normal(2)})
    for node, handle in zip(device.nodes[2:], ("da", "dx"), strict=True):
        node.result_image.handle = handle
    return device


def test_a_gradient_follows_from_the_right_forward_image(tmp_path):
    device = trained()
    before = device.images()
    # Overwritten after the forward pass and before the backward one, or after both.
    between = device.images(a=noise)
    backward = {name: between[name] for name in ("a", "da", "dx")}

    assert blamed(device.verified(tmp_path / "1", before | backward)) == {"b": ("a",)}
    assert blamed(device.verified(tmp_path / "2", before | {"a": between["a"]})) == {"b": ("a",), "da": ("a",)}


def test_an_image_that_is_right_is_not_blamed_for_what_was_read_instead(tmp_path):
    device = trained()
    before, between = device.images(), device.images(a=noise)

    report = device.verified(tmp_path, before | {name: between[name] for name in ("da", "dx")})

    assert {name: NAME in names for name, names in said(report).items() if names} == {"da": False}


@pytest.mark.parametrize("wrong", [
    {"a": noise},
    {"a": noise, "b": lambda made: made * np.float16(1.25)},
    {"b": lambda made: made * np.float16(1.25)},
    {"a": lambda made: off_by_one(off_by_one(off_by_one(made, 5, 1), 6, 1), 7, 1),
     "b": lambda made: off_by_one(off_by_one(off_by_one(made, 8, 1), 9, 1), 10, 1)},
], ids=["followed", "both", "the second", "both inaccurate"])  # fmt: skip
def test_what_follows_from_what_is_recorded_is_judged_by_it(tmp_path, wrong):
    device = chain("TanH", "Exponential", "SoftPlus")

    report = device.verified(tmp_path, device.images(**wrong))

    assert {image.name for image in report.images if not image.passed} == {*wrong}
    assert not any(NAME in names for names in said(report).values())


def test_what_is_within_bounds_by_chance_amid_overwritten_memory_was_overwritten(tmp_path):
    x = mps.MPSNNImageNode(handle="x")
    node = neuron("Exponential", neuron("TanH", x, "a").result_image, "b", a=8.0)
    device = Device([node.result_image], {x: normal(1)})
    images = device.images()
    recorded = noise(images["a"])
    ideal = mps.neuron.forward("tanH", images["x"]).reshape(-1)[::10]
    recorded.reshape(-1)[::10] = np.nextafter(ideal, np.float16(2))

    assert blamed(device.verified(tmp_path, images | {"a": recorded})) == {"b": ("a",)}


@pytest.mark.parametrize("seed", range(3))
def test_bounds_that_are_wide_because_of_many_sources_explain_no_noise(tmp_path, seed):
    x = mps.MPSNNImageNode(handle="x")
    node = layer("convolution", neuron("TanH", x, "a").result_image, SHAPE[3])
    device = Device([node.result_image], {x: normal(1)})
    rng = np.random.default_rng(seed)

    def inaccurate(made, ulp, share):
        by = np.where(rng.random(made.shape) < share, rng.choice([-ulp, ulp], made.shape), 0).astype(np.int16)
        return (made.view(np.int16) + by).view(np.float16)

    images = device.images(a=lambda made: inaccurate(made, 6, 0.05), y=lambda made: inaccurate(made, 3, 1))

    assert NAME not in said(device.verified(tmp_path, images))["y"]


def test_a_kernel_that_is_wrong_besides_is_not_said_to_be_right(tmp_path):
    device = chain("TanH", "Exponential")
    images = device.images()
    images["b"][:, :3] *= np.float16(1.25)

    report = device.verified(tmp_path, images | {"a": noise(images["a"])})

    assert blamed(report) == {}


def test_of_what_was_overwritten_while_it_was_read_a_part_is_explained(tmp_path):
    device = chain("TanH", "Exponential")
    before, after = device.images(), device.images(a=noise)
    after["b"][:, :4] = before["b"][:, :4]

    first, *_ = device.verified(tmp_path, after).images[1].findings

    assert (first.name, first.where) == (NAME, "only in rows 0 to 3")
    assert first.explained == first.of


def test_a_tolerance_allows_what_its_sources_make_of_rounding(tmp_path):
    device = chain("TanH", "Exponential")
    images = device.images()

    report = device.verified(tmp_path, images | {"a": noise(images["a"])}, tolerance=Tolerance(ulp=2))

    assert blamed(report) == {"b": ("a",)}


def test_reports_say_which_image_is_to_be_looked_at(tmp_path):
    device = chain("TanH", "Exponential", "SoftPlus")
    images = device.images()
    collected = Aggregate()

    report = device.verified(tmp_path, images | {"a": 0 * images["a"]}, collect=collected)
    line = "b is right but for what is recorded of a"
    document = json.loads(json.dumps(report.to_json()))

    assert report.verdict.endswith("first in a (MPSCNNNeuronTanHNode)")
    assert line in report.text().splitlines()
    assert [cause.cause for cause in report.causes] == ["never written", NAME]
    jsonschema.validate(document, json.loads(SCHEMA.read_text()))
    assert document["images"]["b"]["faults"][0]["wrong_sources"] == ["a"]
    graph = mps.GraphFile.from_results(device.results, F.float16)
    assert line in page(report, graph, collected)
    assert f"{NAME}, a: explains" in junit(report).decode()


def test_nodes_that_are_judged_together_may_read_many_images(tmp_path):
    sources = {mps.MPSNNImageNode(handle=name): normal(k) for k, name in enumerate("pqrst")}
    total, *others = sources
    for image in others:
        total = mps.MPSNNAdditionNode(left_source=total, right_source=image).result_image
    total.handle = "y"
    device = Device([total], sources)
    images = device.images(y=lambda made: made * np.float16(1.5))
    kept = {name: images[name] for name in (*"pqrst", "y")}

    (image,) = device.verified(tmp_path, kept, partial=True).images

    assert image.findings


# ---- what a device may have done between recorded images ----


def judged(folder, results, images, model, storage=F.float32):
    """The only recorded result of a graph."""
    file = mps.GraphFile.from_results(results, storage)
    made = {name: mps.MPSImage.from_array(np.ascontiguousarray(image)) for name, image in images.items()}
    return verify(write_recording(folder / "r", file, made, "a device"), model, faults=False).images[-1]


def image(handle):
    return mps.MPSNNImageNode(handle=handle)


def test_each_node_between_has_a_form_of_its_own(tmp_path):
    # The first slope is computed without the overflow of e^x, the second neuron as documented, and not by expm1.
    slope = mps.MPSCNNNeuronSoftPlusNode(source=image("x")).gradient_filter(with_source=image("g"))
    end = neuron("ELU", slope.result_image, "y")
    x, g = np.full(SHAPE, 1000, np.float32), -(np.random.default_rng(1).uniform(1, 9, SHAPE) * 1e-6).astype(np.float32)
    wrote = np.exp(g) - np.float32(1)

    right = judged(tmp_path / "right", [end.result_image], {"x": x, "g": g, "y": wrote}, "metal-precise")
    wrong = judged(tmp_path / "wrong", [end.result_image], {"x": x, "g": g, "y": 2 * wrote}, "metal-precise")

    assert right.counts.exact < g.size / 10
    assert (right.counts.beyond, wrong.counts.beyond) == (0, g.size)


def test_nan_of_another_source_between_does_not_refute_a_clamp_that_loses_it(tmp_path):
    clamped = neuron("ReLUN", image("x"), "h")
    product = mps.MPSNNMultiplicationNode(left_source=clamped.result_image, right_source=image("s"))
    end = neuron("Linear", product.result_image, "y", a=2.0)
    x, s = normal(1, dtype=np.float32), normal(2, dtype=np.float32)
    x[0, 0], s[0, 4] = np.nan, np.nan
    # A minimum of NaN and the bound is the bound.
    wrote = 2 * s * np.where(np.isnan(x), np.float32(6), mps.neuron.forward("reLUN", x))
    far = np.where(np.isnan(x), 2 * wrote, wrote)

    found = [
        judged(tmp_path / f"{model}{k}", [end.result_image], {"x": x, "s": s, "y": y}, model)
        for model in ("metal-fast", "metal-precise")
        for k, y in enumerate((wrote, far))
    ]

    count = np.count_nonzero(np.isnan(x))
    assert [each.counts.beyond for each in found] == [0, count, count, count]
    assert found[0].counts.excused == {"nan": count}


def test_what_overflows_in_one_branch_of_an_open_comparison_need_not_in_another(tmp_path):
    # The square is 0 or rounded to it, so the slope of ELU is 1 or nearly a; the sigmoid's at 1e32 or -2e32 is 0.
    square = mps.MPSNNMultiplicationNode(left_source=(source := image("x")), right_source=source)
    elu = mps.MPSCNNNeuronELUNode(source=square.result_image, a=-2.5).gradient_filter(with_source=image("s"))
    end = mps.MPSCNNNeuronSigmoidNode(source=elu.result_image).gradient_filter(with_source=image("g"))
    end.result_image.handle = "y"
    x, s = np.full(SHAPE, 1e-30, np.float32), np.random.default_rng(1).uniform(1e32, 9e32, SHAPE).astype(np.float32)
    g = np.where(s > 4e32, np.float32(np.inf), np.float32(-np.inf))

    def counts(name, wrote):
        wrote = np.full(SHAPE, wrote, np.float32)
        images = {"x": x, "s": s, "g": g, "y": wrote}
        return judged(tmp_path / name, [end.result_image], images, "metal-precise").counts

    # 0 times infinity.
    right, wrong = counts("right", np.nan), counts("wrong", 1.0)
    assert (right.beyond, wrong.beyond) == (0, x.size)
    assert right.excused == {"plus_inf": np.sum(g > 0), "minus_inf": np.sum(g < 0)}


def test_a_bound_that_numbers_give_too_loses_no_nan(tmp_path):
    # 1 to the power of NaN is 1, so the slope of 1^x is 0; and the smaller of 0 and -2.5 is -2.5.
    slope = mps.MPSCNNNeuronExponentialNode(source=image("x"), a=2.0, b=-2.0, c=1.0)
    clamped = neuron("ReLUN", slope.gradient_filter(with_source=image("g")).result_image, "y", a=1.0, b=-2.5)
    x, g = np.full(SHAPE, np.nan, np.float32), normal(1, dtype=np.float32)

    def beyond(wrote):
        images = {"x": x, "g": g, "y": np.full(SHAPE, wrote, np.float32)}
        return judged(tmp_path / str(wrote), [clamped.result_image], images, "metal-precise").counts.beyond

    assert [beyond(wrote) for wrote in (-2.5, 2.5)] == [0, x.size]


def test_a_comparison_between_loses_nan_that_a_clamp_before_it_keeps(tmp_path):
    clamped = neuron("HardSigmoid", image("x"), "h")
    slope = mps.MPSCNNNeuronReLUNode(source=clamped.result_image, a=0.5).gradient_filter(with_source=image("g"))
    end = neuron("Linear", slope.result_image, "y", a=2.0)
    x, g = np.full(SHAPE, np.nan, np.float32), normal(2, dtype=np.float32)

    right, wrong = (
        judged(tmp_path / str(factor), [end.result_image], {"x": x, "g": g, "y": factor * g}, "metal-precise")
        for factor in (1, 3)
    )

    assert (right.counts.excused, right.counts.beyond) == ({"nan": g.size}, 0)
    assert wrong.counts.beyond == g.size


@pytest.mark.parametrize("storage", [F.float16, F.float32], ids=lambda storage: storage.name)
def test_both_sources_of_a_node_are_the_same_image(tmp_path, storage):
    h = neuron("TanH", image("x"), "h").result_image
    x = normal(3, dtype=FORMATS[storage].dtype)
    a = off_by_one(mps.neuron.forward("tanH", x))
    step = np.spacing(a)

    def beyond(kind, y, **attributes):
        node = getattr(mps, f"MPSNN{kind}Node")(left_source=h, right_source=h)
        node.result_image.handle = "y"
        for name, value in attributes.items():
            setattr(node, name, value)
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        return judged(folder, [node.result_image], {"x": x, "y": y}, "metal-precise", storage).counts.beyond

    assert beyond("Subtraction", a - a) == 0
    assert beyond("Subtraction", step) == x.size
    assert beyond("Subtraction", a - a + 1, bias=1.0) == 0
    assert beyond("Addition", 2 * a) == 0
    assert beyond("Addition", 2 * a + 40 * step) == x.size
    assert beyond("Multiplication", a * a) == 0
    # An image that may be on either side of zero has no negative square.
    assert beyond("Multiplication", -np.abs(a * a)) == x.size
    # Scales that are no powers of two are rounded each.
    scaled = (a * a.dtype.type(0.3) - a.astype(float) * np.float32(0.3)).astype(a.dtype)
    assert beyond("Subtraction", scaled, primary_scale=0.3, secondary_scale=0.3) == 0


def states_of(rng):
    """A convolution between two neurons, both ways: a graph, all images, and the gradients of its weights."""
    h = neuron("TanH", mps.MPSNNImageNode(handle="x"), "h")
    weights, bias = rng.normal(size=(6, 3, 3, 5)).astype(np.float32), rng.normal(size=6).astype(np.float32)
    d = mps.MPSCNNConvolutionDescriptor(
        kernel_width=3, kernel_height=3, input_feature_channels=5, output_feature_channels=6
    )
    layer = mps.MPSCNNConvolutionNode(source=h.result_image, weights=mps.ArrayDataSource(d, weights, bias))
    layer.result_image.handle = "y"
    layer.convolution_gradient_state.export_from_graph = True
    z = neuron("TanH", layer.result_image, "z")
    handles = iter(["dy", "dh", "dx"])

    def name(made, *_):
        made.result_image.handle = next(handles)

    (dx,) = z.training_graph(with_source_gradient=mps.MPSNNImageNode(handle="g"), node_handler=name)
    file = mps.GraphFile.from_results([z.result_image, dx.result_image], F.float32)
    sources = {"x": rng.normal(size=(2, 7, 8, 5)), "g": rng.normal(size=(2, 7, 8, 6))}
    sources = {handle: array.astype(np.float32) for handle, array in sources.items()}
    made = [image for image in file.images.values() if image.handle not in sources]
    results = mps.MPSNNGraph(result_images=made, format=F.float32).run(**sources)
    state = results.states["y"]
    arrays = {"gradient_for_weights": state.gradient_for_weights, "gradient_for_biases": state.gradient_for_biases}
    return file, sources | {image.handle: results[image.handle].to_array() for image in made}, arrays


@pytest.mark.parametrize("rows", [slice(None), slice(2, 4)])
@pytest.mark.parametrize(
    ("lost", "wrong"), [("h", ["gradient_for_weights"]), ("dy", ["gradient_for_weights", "gradient_for_biases"])]
)
def test_gradients_of_weights_whose_source_was_overwritten_are_right(tmp_path, lost, wrong, rows):
    file, images, arrays = states_of(np.random.default_rng(4))
    images[lost] = images[lost].copy()
    images[lost][:, rows] = 0

    def states(name, factor=1.0):
        made = {"y": {kind: np.float32(factor) * array for kind, array in arrays.items()}}
        report = verify(write_recording(tmp_path / name, file, images, "a device", states=made))
        return {i.name: i for i in report.images if i.name.startswith("y.") and i.findings}

    right, others = states("right"), states("wrong", 1.01)

    assert list(right) == [f"y.{kind}" for kind in wrong]
    for image in right.values():
        (finding,) = image.findings
        assert (finding.name, finding.detail, finding.contradicted) == (NAME, lost, 0)
        assert finding.explained >= 0.9 * finding.of
        assert image.wrong_sources == (lost,)
    # Not if they do not follow from what the source should be, either.
    assert all(image.findings[0].name != NAME for image in others.values())
