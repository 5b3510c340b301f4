"""Errors that are planted in the package, and that a proof must not miss."""

from __future__ import annotations

import numpy as np

import mpsref as mps
from mpsref.neuron import evaluate
from mpsref.neuron.kernels import KERNELS
from mpsref.proof import Subject, passed, prove, report

T = mps.MPSCNNNeuronType


def subject(neuron_type, first, size, sample=0):
    """The inputs from a bit pattern on, a power of two of them, and no sample."""
    part = first // size + 1, (1 << 32) // size
    return Subject(mps.MPSNNNeuronDescriptor(neuron_type), part=part, sample=sample)


def test_one_decision_of_multi_precision_that_is_one_ulp_off(monkeypatch):
    right, planted = evaluate.settle, []

    def settle(value, x, upstream, result):
        decided = right(value, x, upstream, result)
        if not planted and upstream is None:
            planted.append(x[0])
            decided.view(np.uint32)[x == x[0]] += 1
        return decided

    monkeypatch.setattr(evaluate, "settle", settle)

    forward = prove(subject(T.softPlus, 0x3E000000, 1 << 22))["forward"]

    assert forward["wrong"] == len(planted) == 1
    assert forward["examples"][0]["x"] == f"{np.float32(planted[0]).view(np.uint32):#010x}"


def test_a_result_that_is_not_its_float64_value_rounded(monkeypatch):
    right, at = evaluate.evaluate, np.uint32(0x3F801234)

    def evaluated(d, x, result, *rest, gradient, **options):
        y = right(d, x, result, *rest, gradient=gradient, **options)
        if result.dtype == np.float32 and gradient is None:
            y.view(np.uint32)[x.stored.view(np.uint32) == at] += 1
        return y

    monkeypatch.setattr(evaluate, "evaluate", evaluated)

    found = prove(subject(T.softSign, 0x3F800000, 1 << 16))["forward"]

    assert (found["wrong"], found["judged_unlike"]) == (1, 1)


def test_a_kernel_that_is_wrong_at_one_input_differs_from_the_certificate(monkeypatch):
    kernel, at = KERNELS[type(mps.NEURONS[T.softSign])], np.uint32(0x3F801234).view(np.float32)
    inputs = subject(T.softSign, 0x3F800000, 1 << 16)
    certified = prove(inputs)
    right = kernel.forward

    def forward(x, p, w):
        y = right(x, p, w)
        y[x == at] *= 1 + 2.0**-22
        return y

    monkeypatch.setattr(kernel, "forward", forward)

    proof = prove(inputs)

    assert proof["wrong"] == 0, "the sample was to be empty, and the wrong value far from every boundary"
    assert passed([certified], [certified])
    assert not passed([proof], [certified])
    assert report([proof], [certified]).endswith("FAIL: 1 digests differ from the committed ones")
    # A sample that is the whole part finds it.
    everything = subject(T.softSign, 0x3F800000, 1 << 16, sample=1 << 16)
    assert prove(everything)["wrong"] == 1


def test_an_error_bound_that_is_too_small(monkeypatch):
    # The logarithm of 0x3c413d3a is so near a boundary that float64 takes the wrong side.
    inputs = subject(T.logarithm, 0x3C410000, 1 << 16)
    assert prove(inputs)["wrong"] == 0

    monkeypatch.setattr(KERNELS[type(mps.NEURONS[T.logarithm])], "error_bound", lambda p: 2.0**-60)
    forward = prove(inputs)["forward"]

    assert [example["x"] for example in forward["examples"]] == ["0x3c413d3a"]
    assert forward["open_by_digits"] == 0
