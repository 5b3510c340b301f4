"""Sweeps of activations that are not Apple's, and of bfloat16."""

import numpy as np
import pytest

import mpsref as mps
from mpsref.activations import ACTIVATIONS, Activation
from mpsref.cli import main
from mpsref.storage import FORMATS
from mpsref.sweep import SweepReport, merge, sweep
from mpsref.testing import check_implementation
from mpsref.testing.subject import Subject
from mpsref.verify.compare import Tolerance

ml_dtypes = pytest.importorskip("ml_dtypes")


def squared(x):
    return np.square(np.maximum(x, 0))


def test_every_bfloat16_pattern_is_tried_and_a_report_is_read_again(tmp_path):
    report = sweep(lambda x: squared(x.astype(np.float32)).astype(x.dtype), "relu_squared", format="bfloat16")
    report.write(tmp_path / "report.json")

    assert report.verdict == "PASS: all 65,536 results are exact"
    assert SweepReport.read(tmp_path / "report.json") == report


def test_parts_are_merged_and_name_the_parameters():
    d = Activation("softshrink", lambd=0.25)
    parts = [sweep(lambda x: x, d, format="bfloat16", shard=(i, 2)) for i in (1, 2)]
    report = merge(parts)

    assert report.summary.elements == 65_536
    assert "softshrink, lambd = 0.25, forward, bfloat16" in report.text()


def test_the_command_takes_both(capsys):
    options = ["sweep", "--neuron", "hardswish", "--implementation", "implementations:right_hardswish"]
    options += ["--format", "bfloat16", "--stride", "64"]

    assert main(options) == 0
    assert "all 1,024 results are exact" in capsys.readouterr().out
    assert main([*options, "--parameter", "beta=2"]) == 2
    assert "beta is no parameter of hardswish: it has none" in capsys.readouterr().err


@pytest.mark.parametrize("library", ["torch", "jax", "mlx"])
def test_libraries_have_bfloat16(library):
    pytest.importorskip("mlx.core" if library == "mlx" else library)
    for direction in ("forward", "gradient"):
        report = sweep(f"{library}:silu", "silu", format="bfloat16", direction=direction, stride=16)
        assert 0 < report.summary.beyond < 2000


def test_rows_have_kinks_and_sides_alike():
    for activation, row in ACTIVATIONS.items():
        d = Activation(activation)
        assert len(row.kinks(d)) == len(row.sides(d)), activation


def test_an_attack_names_the_choice_at_a_kink():
    scale = np.float32(1.0507009873554805)
    half = FORMATS[mps.MPSImageFeatureChannelFormat.float16]

    def gradient(x, upstream):
        return np.where(x == 0, (scale * upstream).astype(x.dtype), mps.neuron.gradient("selu", x, upstream))

    subject = Subject(gradient, Activation("selu"), "gradient", Tolerance(ulp=4), half)
    trial = subject.trial(Activation("selu"), np.float16([[0], [1]]), np.float16([[2], [2]]))

    assert trial.beyond.tolist() == [0]
    assert trial.choice(0).startswith("the slope on the right of the kink")
    assert trial.choice(1) == ""


@pytest.mark.parametrize("formats", ["bfloat16", "float32"])
def test_an_attack_varies_parameters_of_an_activation(formats):
    def forward(x, descriptor):
        return mps.neuron.forward(descriptor, x)

    assert check_implementation(forward, "celu", formats=formats, max_examples=5, ulp=0).passed
