"""Public names called with wrong arguments: an error of mpsref that can be shown, or an answer; never an inner one."""

from __future__ import annotations

import contextlib
import copy
import pickle
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

import mpsref as mps
from tests.fuzz.calls import Right, called, is_fitting, outcome, sample, subjects, wrong_calls

COUNT = 2000


@pytest.fixture(scope="module")
def right(tmp_path_factory):
    with contextlib.chdir(tmp_path_factory.mktemp("calls")):  # some write where they are told to
        yield Right(Path("right").absolute())


def test_right_calls_end_with_an_answer_or_an_error_of_mpsref(right):
    answers = {subject.name: called(subject, subject.right) for subject in subjects(right)}

    assert not {name: error for name, error in answers.items() if not is_fitting(error)}
    assert sum(error is None for error in answers.values()) > len(answers) * 0.8, "most calls here must be right"


def test_wrong_calls_give_errors_of_mpsref(right):
    assert not [bad for call in sample(right, COUNT, seed=1) if (bad := outcome(*call))]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_all_wrong_calls_give_errors_of_mpsref(right):
    assert not [bad for call in wrong_calls(right) if (bad := outcome(*call))]


def test_graphs_and_nodes_refuse_to_be_pickled_in_words():
    node = mps.MPSCNNNeuronReLUNode(source=mps.MPSNNImageNode(handle="x"))
    graph = mps.MPSNNGraph(result_image=node)

    for thing in (graph, node, node.result_image, node.result_state):
        with pytest.raises(mps.UnavailableError, match="cannot be pickled or copied: GraphFile"):
            pickle.dumps(thing)
    for thing in (node, node.result_image, node.result_state):
        with pytest.raises(mps.UnavailableError, match="cannot be pickled or copied"):
            copy.deepcopy(thing)
    assert copy.copy(graph).plan is copy.deepcopy(graph).plan is graph.plan


def test_the_error_of_a_label_is_told():
    class Handle:
        def label(self):
            raise RuntimeError("no label today")

    with pytest.raises(mps.ParameterError, match="label of a Handle raised RuntimeError: no label today"):
        repr(mps.MPSNNImageNode(handle=Handle()))
