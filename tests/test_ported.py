"""Apple's arguments and methods of a graph that a host can only take note of; copies; images as handles."""

import copy
from fractions import Fraction

import numpy as np
import pytest

import mpsref as mps
from builders import F, image, named


class Opaque:
    """What stands for a device, a command buffer, an allocator."""


def graph():
    return mps.MPSNNGraph(result_image=named(mps.MPSCNNNeuronReLUNode(source=image("x"), a=0.5), "y"))


ONE = mps.MPSImage.from_array([1, -1], "float16")
NONSENSE = [0, 1.5, True, Fraction(1), "MTLDevice", b"x", [], [ONE], (), {}, set(), np.zeros(1), np.float32(1), ONE,
            image("x"), graph(), F.float16, mps.MPSNNNeuronDescriptor("tanH"), ONE.descriptor]  # fmt: skip


def same(a, b):
    return a.feature_channel_format is b.feature_channel_format and np.array_equal(a.to_array(), b.to_array())


@pytest.mark.parametrize("stands_for", [None, Opaque(), object()])
def test_what_stands_for_a_device_or_command_buffer_is_left_alone(stands_for):
    made = mps.MPSNNGraph(
        device=stands_for, result_image=mps.MPSCNNNeuronReLUNode(source=image("x"), a=0.5), result_image_is_needed=True
    )
    more = {"source_states": stands_for, "destination_states": None}
    want = graph().encode(source_images=[ONE])
    assert same(made.encode(to=stands_for, source_images=[ONE]), want)
    assert same(made.encode(to=stands_for, source_images=[ONE], intermediate_images=[], **more), want)
    (batch,) = made.encode_batch(to=stands_for, source_images=[[ONE]], intermediate_images=[], **more)
    assert same(batch, want)
    made.destination_image_allocator = stands_for
    assert made.destination_image_allocator is stands_for


@pytest.mark.parametrize("value", NONSENSE, ids=lambda value: type(value).__name__)
def test_anything_else_is_refused_in_words(value):
    with pytest.raises(mps.ParameterError, match=r"^device is a .*: mpsref talks to no device, leave device out"):
        mps.MPSNNGraph(device=value, result_image=image("x"))
    for encode, images in ((graph().encode, [ONE]), (graph().encode_batch, [[ONE]])):
        with pytest.raises(mps.ParameterError, match=r"^to is a .*command buffer, and images are source_images"):
            encode(to=value, source_images=images)
        if value not in ([], ()) if isinstance(value, list | tuple) else True:
            with pytest.raises(mps.ParameterError, match=r"^source_states is a .*states carry nothing"):
                encode(source_images=images, source_states=value)
        if not isinstance(value, list):
            with pytest.raises(mps.ParameterError, match=r"^destination_states is a .*give a list to extend"):
                encode(source_images=images, destination_states=value)
    made = graph()
    with pytest.raises(mps.ParameterError, match=r"^destination_image_allocator is a "):
        made.destination_image_allocator = value
    assert made.destination_image_allocator is None


def test_a_class_of_the_callers_that_is_one_of_ours_is_no_device():
    class Mine(mps.MPSCNNNeuronTanHNode):
        pass

    with pytest.raises(mps.ParameterError, match="device is a Mine"):
        mps.MPSNNGraph(device=Mine(source=image("x")), result_image=image("x"))


def test_lists_of_states_stay_empty():
    states = []
    graph().encode(source_images=[ONE], source_states=[], destination_states=states)
    assert states == graph().source_state_handles == graph().result_state_handles == []


def test_execute_async_returns_the_image_that_its_handler_has_got():
    calls = []
    result = graph().execute_async(source_images=[ONE], completion_handler=lambda *given: calls.append(given))
    ((got, error),) = calls
    assert got is result
    assert error is None
    assert same(result, graph().encode(source_images=[ONE]))
    assert same(graph().execute_async(source_images=[ONE]), result)
    unneeded = mps.MPSNNGraph(result_image=image("x"), result_image_is_needed=False)
    assert unneeded.execute_async(source_images=[ONE], completion_handler=lambda *given: calls.append(given)) is None
    assert calls[1:] == [(None, None)]


def test_mistakes_are_raised_by_execute_async_and_not_given_to_its_handler():
    with pytest.raises(mps.SourceError, match="has 0 images"):
        graph().execute_async(source_images=[], completion_handler=lambda *_: pytest.fail("called"))
    with pytest.raises(mps.ParameterError, match="completion_handler is a int: give a function"):
        graph().execute_async(source_images=[ONE], completion_handler=3)


def test_settings_of_memory_are_kept_and_nothing_is_to_be_reloaded():
    made = graph()
    assert made.output_state_is_temporary is False
    made.output_state_is_temporary = 1
    assert made.output_state_is_temporary is True
    assert made.reload_from_data_sources() is None
    assert same(made.encode(source_images=[ONE]), graph().encode(source_images=[ONE]))


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy], ids=["copy", "deepcopy"])
def test_a_copy_shares_nodes_and_plan_and_has_settings_of_its_own(copied):
    node = named(mps.MPSCNNNeuronReLUNode(source=image("x"), a=0.5), "y")
    first = mps.MPSNNGraph(result_image=node, mode="stepwise")
    second = copied(first)
    assert (type(second), second.plan, second.mode) == (mps.MPSNNGraph, first.plan, "stepwise")
    assert second is not first
    second.format = "float32"
    node.result_image.handle = "z"
    assert first.format is F.float16
    assert second.run(x=0.1)["y"].feature_channel_format is F.float32
    (within,) = copy.deepcopy([first])
    assert within.plan is first.plan


def test_an_image_is_a_handle_that_is_known_by_its_label():
    pixels, other = mps.MPSImage.from_array(0.5, "float16"), mps.MPSImage.from_array(0, "float16")
    pixels.label = "x"
    total = mps.MPSNNAdditionNode(left_source=image(pixels), right_source=image(other))
    made = mps.MPSNNGraph(result_image=total)
    assert made.source_image_handles[0] is pixels
    assert made.source_image_handles[1] is other
    assert made.encode(source_images=made.source_image_handles).to_array().item() == 0.5
    with pytest.raises(mps.SourceError, match=r"source handles are \['x', None\]"):
        made.run(x=1)
    other.label = "y"
    assert made.run(x=1, y=2)["result0"].to_array().item() == 3
    assert list(mps.GraphFile.from_results([total]).images) == ["x", "y", "addition"]
    other.label = 3
    with pytest.raises(mps.ParameterError, match="label of a handle gave a int"):
        made.run(x=1, y=2)
