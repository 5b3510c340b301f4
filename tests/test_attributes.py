"""An attribute that an object does not have is an error that names the right one; everything else is as it was."""

import copy
import dataclasses
import inspect
import pickle
import re

import numpy as np
import pytest

import mpsref as mps
from mpsref.attributes import NO_STRIDES

F16 = mps.MPSImageFeatureChannelFormat.float16
T = mps.MPSCNNNeuronType


class Things:
    def __init__(self):
        self.x, self.y = mps.MPSNNImageNode(handle="x"), mps.MPSNNImageNode(handle="y")
        self.add = mps.MPSNNAdditionNode(left_source=self.x, right_source=self.y)
        self.tanh = mps.MPSCNNNeuronTanHNode(source=self.x, a=2)
        self.state = self.tanh.result_state
        self.neuron = self.tanh.descriptor
        self.graph = mps.MPSNNGraph(result_image=self.add.result_image)
        self.size = mps.MPSImageDescriptor(channel_format=F16, width=3)
        self.image = mps.MPSImage(image_descriptor=self.size)


@pytest.fixture
def things():
    return Things()


THINGS = sorted(vars(Things()))
UNKNOWN = [
    ("add", "primaryScale", "use primary_scale"),
    ("add", "primay_scale", "use primary_scale"),
    ("add", "setLabel_", "set label = ..."),
    ("add", "set_primary_scale", "set primary_scale = ..."),
    ("add", "gradientFiltersWithSource_", "use gradient_filters"),
    ("add", "padding_policy", "paddings"),
    ("add", "setPaddingPolicy_", "paddings"),
    ("add", "primary_stride_in_pixels_x", "strides"),
    ("add", "nothing_like_it", "help(mpsref.MPSNNAdditionNode)"),
    ("tanh", "resultImage", "use result_image"),
    ("x", "stopGradient", "use stop_gradient"),
    ("x", "imageAllocator", "memory"),
    ("state", "exportFromGraph", "use export_from_graph"),
    ("neuron", "neuronType", "use neuron_type"),
    ("neuron", "setA_", "set a = ..."),
    ("graph", "resultImageIsNeeded", "use result_image_is_needed"),
    ("graph", "encodeToCommandBuffer_sourceImages_", "use encode"),
    ("graph", "readCountForSourceImageAtIndex_", "use read_count_for_source_image"),
    ("size", "channelFormat", "use channel_format"),
    ("size", "storageMode", "memory"),
    ("image", "numberOfImages", "use number_of_images"),
    ("image", "synchronize", "device"),
]


@pytest.mark.parametrize(("thing", "name", "words"), UNKNOWN)
def test_an_unknown_attribute_is_an_error_that_names_the_right_one(things, thing, name, words):
    thing = getattr(things, thing)
    kind = type(thing).__name__
    with pytest.raises(mps.PropertyError, match=rf"^{kind} has no .*\b{name}: .*{re.escape(words)}"):
        getattr(thing, name)
    with pytest.raises(mps.PropertyError, match=rf"^{kind} has no .*\b{name}: .*{re.escape(words)}"):
        setattr(thing, name, 1)
    assert not hasattr(thing, name)


def test_it_is_an_error_of_ours_and_an_attribute_error():
    assert issubclass(mps.PropertyError, mps.MPSRefError)
    assert issubclass(mps.PropertyError, AttributeError)


READ_ONLY = [
    ("add", "result_image", ""),
    ("add", "gradient_filters", ""),
    ("add", "fields", ""),
    ("tanh", "neuron_type", ""),
    ("tanh", "a", ": give it to the initialiser"),
    ("x", "producer", ""),
    ("state", "producer", ""),
    ("graph", "mode", ": give it to the initialiser"),
    ("graph", "plan", ""),
    ("image", "width", ""),
    ("neuron", "a", ": MPSNNNeuronDescriptor(d.neuron_type, a=5, b=d.b) makes another"),
    ("neuron", "row", ""),
    ("size", "height", ": dataclasses.replace(descriptor, height=5) makes another"),
    ("size", "pixel_format", ""),
]


@pytest.mark.parametrize(("thing", "name", "words"), READ_ONLY)
def test_what_cannot_be_set_says_what_to_do_instead(things, thing, name, words):
    thing = getattr(things, thing)
    with pytest.raises(mps.PropertyError, match=rf"^{name} of {type(thing).__name__} cannot be set{re.escape(words)}$"):
        setattr(thing, name, 5)


def test_the_changed_copies_that_errors_show_are_made_so(things):
    d, slopes = things.neuron, mps.MPSNNNeuronDescriptor(T.pReLU, data=[1, 2])
    for d, name, value in ((d, "a", 5.0), (d, "neuron_type", T.linear), (slopes, "data", [3.0])):  # noqa: B020
        with pytest.raises(mps.PropertyError) as error:
            setattr(d, name, value)
        code = str(error.value).partition(": ")[2].removesuffix(" makes another")
        other = eval(code, vars(mps) | {"d": d, "MPSCNNNeuronType": T, "MPSNNNeuronDescriptor": type(d)})  # noqa: S307
        assert np.array_equal(getattr(other, name), value)
        assert other != d
    assert dataclasses.replace(things.size, width=4).width == 4


@pytest.mark.parametrize("thing", THINGS)
def test_protocols_that_ask_for_attributes_get_their_usual_answer(things, thing):
    thing = getattr(things, thing)
    for name in ("_repr_png_", "__array_interface__", "_ipython_display_", "__len__"):
        with pytest.raises(AttributeError) as error:
            getattr(thing, name)
        assert type(error.value) is AttributeError
    assert {name for name, _ in inspect.getmembers(thing)} >= {"__class__"}
    remakes = [copy.copy, copy.deepcopy, lambda thing: pickle.loads(pickle.dumps(thing))]  # noqa: S301
    is_node = isinstance(thing, (mps.MPSNNFilterNode, mps.MPSNNImageNode, mps.MPSNNStateNode))
    for remake in remakes[: 2 if thing is things.graph else 3]:
        if is_node:
            with pytest.raises(mps.UnavailableError, match=r"GraphFile\.write keeps a graph"):
                remake(thing)
        else:
            assert type(remake(thing)) is type(thing)


def test_copies_and_pickles_keep_what_was_set(things):
    things.image.label = "photo"
    for remake in (copy.copy, copy.deepcopy, lambda thing: pickle.loads(pickle.dumps(thing))):  # noqa: S301
        assert remake(things.image).label == "photo"
        assert remake(things.size) == things.size


def test_a_subclass_may_declare_attributes_of_its_own(things):
    class Noted(mps.MPSCNNNeuronTanHNode):
        __slots__ = ("also",)
        note = None

        @property
        def louder(self):
            return self._loud

        @louder.setter
        def louder(self, value):
            self._loud = value

        @property
        def broken(self):
            return self.there_is_no_such

    node = Noted(source=things.x)
    node.note, node.louder, node.also = "mine", 2, 3
    assert (node.note, node.louder, node.also) == ("mine", 2, 3)
    with pytest.raises(mps.PropertyError, match=r"use note; or declare it in the body of Noted, with a value$"):
        node.noet = 1
    with pytest.raises(mps.PropertyError, match=r"^neuron_type of Noted cannot be set"):
        node.neuron_type = T.reLU
    with pytest.raises(mps.PropertyError, match="there_is_no_such"):
        _ = node.broken


def test_a_subclass_changes_nothing_else(things):
    class _Mine(mps.MPSCNNNeuronTanHNode):
        neuron_type = T.tanH

    assert type(mps.MPSCNNNeuronNode(source=things.x, descriptor=things.neuron)) is mps.MPSCNNNeuronTanHNode


@pytest.mark.parametrize("kind", [mps.MPSNNAdditionNode, mps.MPSNNSubtractionNode, mps.MPSNNMultiplicationNode])
def test_strides_are_refused_in_words_as_arguments_too(things, kind):
    sources = {"left_source": things.x, "right_source": things.y}
    for name in ("primary_stride_in_pixels_x", "secondaryStrideInFeatureChannels"):
        with pytest.raises(mps.UnavailableError, match=rf"^{kind.__name__} takes no {name}: {NO_STRIDES}$"):
            kind(**sources, **{name: 0})
    with pytest.raises(TypeError, match=f"^{kind.__name__} takes no scale$"):
        kind(**sources, scale=2)
    gradient = kind(**sources).gradient_filters(with_source=things.x)[0]
    with pytest.raises(mps.PropertyError, match=NO_STRIDES):
        gradient.secondary_stride_in_pixels_y = 0
    with pytest.raises(mps.UnavailableError, match=NO_STRIDES):
        type(gradient)(is_secondary_source_filter=False, secondary_stride_in_pixels_y=0)
