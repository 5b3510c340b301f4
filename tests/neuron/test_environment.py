"""Nothing is wrong in silence where a thread flushes subnormals or does not round to nearest."""

from __future__ import annotations

import json
import mmap
import platform
import subprocess
import sys

import pytest

import mpsref as mps

pytestmark = pytest.mark.skipif(
    platform.machine().lower() not in ("x86_64", "amd64") or not hasattr(mmap, "PROT_EXEC"),
    reason="the environment is set by machine code for x86-64 on a system with executable memory maps",
)

MODES = {"DAZ": 0x0040, "FTZ": 0x8000, "FTZ and DAZ": 0x8040, "down": 0x2000, "up": 0x4000, "towards zero": 0x6000}
FLUSHING = "DAZ", "FTZ", "FTZ and DAZ"

START = """
import ctypes, json, mmap, sys, threading
import numpy as np
code = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
code.write(bytes.fromhex("0fae17 c3"))  # ldmxcsr [rdi]; ret
load = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(ctypes.addressof(ctypes.c_char.from_buffer(code)))

def environment(bits=0):
    word = ctypes.c_uint32(0x1F80 | bits)
    load(ctypes.addressof(word))

"""

EVALUATIONS = """
import mpsref as mps
from mpsref.neuron import patterns, threads
from mpsref.proof import Subject, prove
from mpsref.testing import check_gradient

def descriptor(neuron_type):
    return mps.MPSNNNeuronDescriptor(neuron_type, **({"data": [0.25]} if mps.NEURONS[neuron_type].per_channel else {}))

def graph(node):
    return mps.MPSNNGraph(result_image=node.result_image)

f, g = mps.neuron.forward, mps.neuron.gradient
x, y = (mps.MPSNNImageNode(handle=name) for name in "xy")
evaluations = {}
for t in mps.NEURONS:
    d = descriptor(t)
    for dtype in (np.float16, np.float32, np.float64):
        one = np.ones((1, 1), dtype)
        evaluations[f"forward {t.name} {one.dtype}"] = lambda d=d, one=one: f(d, one)
        evaluations[f"gradient {t.name} {one.dtype}"] = lambda d=d, one=one: g(d, one, one)
relu, tanh = descriptor(mps.MPSCNNNeuronType.reLU), descriptor(mps.MPSCNNNeuronType.tanH)
halves, image = np.ones(patterns.WORTH_A_TABLE, np.float16), mps.MPSImage.from_array(np.ones((1, 1, 1), np.float32))
node = mps.MPSCNNNeuronTanHNode(source=x)
addition = mps.MPSNNAdditionNode(left_source=x, right_source=y)
unorm8 = mps.MPSImageFeatureChannelFormat.unorm8
evaluations |= {
    "stepwise": lambda: f(tanh, np.float32([1]), mode="stepwise"),
    "stepwise-fma": lambda: g(tanh, np.float32([1]), np.float32([1]), mode="stepwise-fma"),
    "a table": lambda: f(tanh, halves),
    "a table of slopes": lambda: g(tanh, halves, halves),
    "a graph": lambda: graph(node).run(x=image),
    "a graph that adds": lambda: graph(addition).run(x=image, y=image),
    "the specification": lambda: mps.neuron.specified(tanh, np.float32([1])),
    "a parameter": lambda: mps.MPSNNNeuronDescriptor(mps.MPSCNNNeuronType.reLU, a=0.1),
    "slopes of channels": lambda: mps.MPSNNNeuronDescriptor(mps.MPSCNNNeuronType.pReLU, data=[0.1]),
    "a scale": lambda: setattr(addition, "primary_scale", 0.1),
    "an image": lambda: mps.MPSImage.from_array(np.ones((1, 1, 1)), unorm8),
    "a proof": lambda: prove(Subject(relu, unorm8)),
    "a check of gradients": lambda: check_gradient(tanh, np.ones((1, 1))),
}
"""


def run(code):
    done = subprocess.run([sys.executable, "-c", START + code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_all_that_rounds_refuses_to_flush_and_to_round_otherwise():
    found = run(
        EVALUATIONS + f"modes = { {'right': 0} | MODES }\n"
        "def refused(evaluation, bits):\n"
        "    environment(bits)\n"
        "    try:\n"
        "        evaluation()\n"
        "    except mps.FloatingPointModeError as error:\n"
        "        return str(error)\n"
        "    finally:\n"
        "        environment()\n"
        "pairs = [(mode, name) for mode in modes for name in evaluations]\n"
        "print(json.dumps([[mode, name, refused(evaluations[name], modes[mode])] for mode, name in pairs]))"
    )

    assert len(found) == 7 * (2 * 3 * len(mps.NEURONS) + 13)
    for mode, name, message in found:
        words = "flushes subnormal" if mode in FLUSHING else "does not round to nearest"
        assert message is None if mode == "right" else message and words in message, (mode, name)


def test_every_thread_looks_at_its_own_environment():
    found = run(
        EVALUATIONS + f"modes = {MODES}\n"
        "x = np.full(3 * threads.BLOCK, -1e-40, np.float32)\n"
        "half = mps.MPSNNNeuronDescriptor(mps.MPSCNNNeuronType.reLU, a=0.5)\n"
        "want = f(half, x)\n"
        "assert (f(half, x, workers=2) == want).all()\n"
        # The pool's only thread is kept, and with it its environment.
        "def worker(bits):\n"
        "    threads._pool(1).submit(environment, bits).result()\n"
        "def refused(workers):\n"
        "    try:\n"
        "        return bool((f(half, x, workers=workers) != want).any())\n"
        "    except mps.FloatingPointModeError:\n"
        "        return True\n"
        "found = []\n"
        "for bits in modes.values():\n"
        "    for setting in (environment, worker):\n"
        "        setting(bits)\n"
        "        found.append([refused(1), refused(2)])\n"
        "        setting(0)\n"
        "        found.append([refused(1), refused(2)])\n"
        "print(json.dumps(found))"
    )

    main, worker, right = [True, True], [False, True], [False, False]
    assert found == [main, right, worker, right] * len(MODES)


def test_numpys_vectors_are_looked_at_where_scalars_tell_nothing():
    found = run(
        f"modes = {MODES | {'right': 0}}\n"
        "import mpsref as mps\n"
        "from mpsref import environment as module\n"
        # Sums of these are right in every environment.
        "module.SUBNORMAL, module.TINY = 1.0, 0.0\n"
        "def refused(bits):\n"
        "    environment(bits)\n"
        "    try:\n"
        "        module.environment_or_error()\n"
        "    except mps.FloatingPointModeError as error:\n"
        "        return str(error)\n"
        "    finally:\n"
        "        environment()\n"
        # The last is right: from then on this thread does not look again, but another one does.
        "found = [refused(bits) for bits in [*modes.values(), 0x8040]]\n"
        "thread = threading.Thread(target=lambda: found.append(refused(0x8040)))\n"
        "thread.start(), thread.join()\n"
        "print(json.dumps(found))"
    )

    flushes, rounds = "numpy's vector code flushes", "numpy's vector code does not round"
    assert [message and message[: len(flushes)] for message in found[:3]] == [flushes] * 3
    assert [message and message[: len(rounds)] for message in found[3:6]] == [rounds] * 3
    assert found[6:8] == [None, None]
    assert found[8][: len(flushes)] == flushes


def test_results_are_right_after_an_import_that_flushed():
    # A slope that is too small for float64: it counts as the smallest, so that its product with infinity is infinite.
    code = (
        "import warnings\n"
        "warnings.simplefilter('error')\n"
        "environment(0x8040)\n"
        "import mpsref as mps\n"
        "mps.neuron, mps.MPSNNGraph\n"
        "environment()\n"
        "d = mps.MPSNNNeuronDescriptor(mps.MPSCNNNeuronType.tanH)\n"
        "print(json.dumps(float(mps.neuron.gradient(d, np.float32([500]), np.float32([np.inf]))[0])))"
    )
    assert run(code) == float("inf")


def test_the_error_is_the_builtin_kind():
    assert issubclass(mps.FloatingPointModeError, FloatingPointError)
