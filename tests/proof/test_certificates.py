"""The certificates that come with the package: they are of what it is now, and a proof says whether it agrees."""

from __future__ import annotations

import json
from importlib import resources

import pytest

import mpsref as mps
from mpsref import origin
from mpsref.cli import main
from mpsref.cli import prove as cli_prove
from mpsref.documents import schema, validate
from mpsref.proof import Subject, committed_certificates, passed, prove, report

COMMAND = "mpsref prove --workers 2 --out mpsref/proof/certificates; python docs/generate.py"
SMALL = mps.MPSImageFeatureChannelFormat.unorm8
FOLDER = resources.files("mpsref.proof").joinpath("certificates")


def test_there_is_one_for_each_neuron_and_none_is_stale():
    files = {file.name: json.loads(file.read_text("utf-8")) for file in FOLDER.iterdir()}

    assert set(files) == {f"{t.name}.float32.json" for t in mps.NEURONS}
    for name, proof in files.items():
        again = f"{name} is stale, remake all: {COMMAND}"
        assert proof["software"]["sources"] == origin.software()["sources"], again
        validate(proof, schema("certificate"))
        assert name == f"{proof['neuron']}.{proof['storage']}.json"
        assert (proof["part"], proof["wrong"]) == ("1/1", 0)


@pytest.mark.exhaustive
@pytest.mark.parametrize("neuron_type", mps.NEURONS, ids=lambda t: t.name)
def test_every_float32_input_is_right_and_gives_what_is_certified(tmp_path, capsys, neuron_type):
    data = ["--data", "0.25"] if mps.NEURONS[neuron_type].per_channel else []

    assert main(["prove", "--neuron", neuron_type.name, *data]) == 0
    assert "digests of all results: 2 equal" in capsys.readouterr().out


# ---- what results depend on ----


@pytest.mark.parametrize(
    "other",
    [
        "def f(x):  # half\n    if x < 0:\n        raise ValueError('below 0')\n    return (x * 0.5)",
        'def f(x):\n    """Half."""\n    if x < 0:\n        raise ValueError(f"{x}: too small")\n    return x * 0.5',
    ],
)
def test_comments_docstrings_and_messages_do_not_matter(other):
    assert origin.digest_of_sources([SOURCE]) == origin.digest_of_sources([other])


SOURCE = "def f(x):\n    if x < 0:\n        raise ValueError('x is negative')\n    return x * 0.5"


@pytest.mark.parametrize(
    ("here", "there"), [("0.5", "0.25"), ("<", "<="), ("x * 0.5", "0.5 * x"), ("'x is negative'", "'x', x")]
)
def test_what_is_computed_matters(here, there):
    same = here.startswith("'")

    assert (origin.digest_of_sources([SOURCE.replace(here, there)]) == origin.digest_of_sources([SOURCE])) is same


# ---- the comparison ----


def test_a_proof_says_whether_its_digests_are_those_of_a_committed_certificate():
    tanh = prove(Subject(mps.MPSNNNeuronDescriptor(mps.MPSCNNNeuronType.tanH), SMALL))
    other = tanh | {"derivative": tanh["derivative"] | {"sha256": 64 * "0"}}
    elsewhere = [other | changes for changes in ({"neuron": "sigmoid"}, {"parameters": {}}, {"storage": "unorm16"},
                                                 {"part": "1/2"}, {"block": 3})]  # fmt: skip
    for committed, words, verdict in (
        ([tanh], "2 equal to those of the committed certificates, 0 different, 0 with none", "PASS"),
        ([other], "1 equal to those of the committed certificates, 1 different, 0 with none", "FAIL"),
        (elsewhere, "0 equal to those of the committed certificates, 0 different, 2 with none", "PASS"),
    ):
        text = report([tanh], committed)
        assert words in text
        assert text.splitlines()[-1].startswith(verdict)
        assert passed([tanh], committed) == (verdict == "PASS")


def test_a_digest_that_differs_fails_the_command(capsys, monkeypatch):
    (sigmoid,) = (proof for proof in committed_certificates() if proof["neuron"] == "sigmoid")
    subject = Subject(mps.MPSNNNeuronDescriptor(mps.MPSCNNNeuronType.sigmoid), SMALL)
    monkeypatch.setattr(cli_prove, "committed_certificates", lambda: [sigmoid | subject.to_json()])

    assert main(["prove", "--neuron", "sigmoid", "--format", "unorm8"]) == 1
    assert capsys.readouterr().out.endswith("FAIL: 2 digests differ from the committed ones\n")
