"""What is said of an error that somebody else's code raised."""

import sys

import numpy as np
import pytest

import mpsref as mps
from mpsref.sweep import sweep
from mpsref.testing import check_gradient, check_implementation

USERS = """
import numpy as np

def reshapes(x, *upstream):
    return np.broadcast_to(x, 7)

def leaves(x):
    raise SystemExit(3)
"""
CALLS = {
    "check_implementation": lambda function: check_implementation(function, mps.MPSNNNeuronDescriptor("none")),
    "sweep": lambda function: sweep(function, "none", format="half"),
    "forward": lambda function: check_gradient((function, np.abs), np.ones(3)),
    "gradient": lambda function: check_gradient((np.tanh, function), np.ones(3)),
}


@pytest.fixture
def users(tmp_path, monkeypatch):
    """A module of a user's own, by its name."""
    (tmp_path / "users_own.py").write_text(USERS)
    monkeypatch.syspath_prepend(tmp_path)
    yield __import__("users_own")
    del sys.modules["users_own"]


@pytest.mark.parametrize("call", CALLS)
def test_the_line_of_the_users_own_code_is_said_wherever_it_is_called(call, users):
    place = f"(in {users.__file__}, line 5, reshapes: return np.broadcast_to("

    with pytest.raises(mps.ImplementationError) as raised:
        CALLS[call](users.reshapes)

    assert place in str(raised.value)
    assert isinstance(raised.value.__cause__, ValueError)


def test_the_line_is_said_of_what_ends_the_process_and_of_an_import(users, tmp_path):
    with pytest.raises(mps.ImplementationError, match=r"SystemExit: 3 \(in .*users_own\.py, line 8, leaves: raise"):
        sweep(users.leaves, "none")
    (tmp_path / "broken_own.py").write_text("x = 1\ny = x / 0\n")
    with pytest.raises(mps.ImplementationError, match=r"broken_own\.py, line 2, <module>: y = x / 0\)"):
        sweep("broken_own:f", "none")
    with pytest.raises(mps.ImplementationError, match=r"No module named 'no_module_of_this_name'$"):
        sweep("no_module_of_this_name:f", "none")


def test_a_library_is_named_where_no_code_of_the_user_is_involved():
    with pytest.raises(mps.ImplementationError, match=r"raised LinAlgError: .*\(in .*numpy"):
        sweep(np.linalg.inv, "none")
