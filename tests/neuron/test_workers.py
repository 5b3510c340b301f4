"""Threads that share the blocks of an evaluation."""

from __future__ import annotations

import contextvars
import gc
import os
import signal
import subprocess
import sys
import threading
import weakref

import numpy as np
import pytest

import mpsref as mps
from mpsref.neuron import evaluate
from mpsref.neuron.kernels import KERNELS
from mpsref.neuron.patterns import WORTH_A_TABLE, Tables
from mpsref.neuron.threads import BLOCK

T = mps.MPSCNNNeuronType
SIZE = 5 * BLOCK + 7
MODES = ["ideal", "stepwise"]


def descriptor(neuron_type, channels):
    if mps.NEURONS[neuron_type].per_channel:
        return mps.MPSNNNeuronDescriptor(neuron_type, data=np.linspace(-1, 2, channels))
    return mps.MPSNNNeuronDescriptor(neuron_type)


def elements(dtype, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 3, SIZE).astype(dtype)
    x[::1001] = np.nan
    x[5::1001] = -np.inf
    return x


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("neuron_type", list(T), ids=lambda t: t.name)
def test_any_number_of_workers_gives_the_same_bits(neuron_type, dtype, mode):
    d, x, g = descriptor(neuron_type, SIZE), elements(dtype), elements(dtype, 1)
    one = mps.neuron.forward(d, x, mode=mode), mps.neuron.gradient(d, x, g, mode=mode)

    for workers in (2, 3, -1):
        y = mps.neuron.forward(d, x, mode=mode, workers=workers)
        dx = mps.neuron.gradient(d, x, g, mode=mode, workers=workers)
        assert (y.tobytes(), dx.tobytes()) == (one[0].tobytes(), one[1].tobytes())


@pytest.mark.parametrize("workers", [0, -2, 1.5, "two", None, True])
def test_a_number_of_workers_that_is_none_is_refused(workers):
    d, x = mps.MPSNNNeuronDescriptor(T.tanH), np.zeros((1, 1, 1), np.float32)
    source = mps.MPSNNImageNode(handle="x")
    graph = mps.MPSNNGraph(result_image=mps.MPSCNNNeuronTanHNode(source=source).result_image)

    for call in (
        lambda: mps.neuron.forward(d, x, workers=workers),
        lambda: mps.neuron.gradient(d, x, x, workers=workers),
        lambda: graph.run(x=x, workers=workers),
    ):
        with pytest.raises(mps.ParameterError, match=r"workers is .*give a number of threads, or -1"):
            call()


def test_a_graph_gives_the_same_images_with_several_workers():
    x, dy = mps.MPSNNImageNode(handle="x"), mps.MPSNNImageNode(handle="dy")
    h = mps.MPSCNNNeuronGeLUNode(source=x)
    y = mps.MPSNNAdditionNode(left_source=h.result_image, right_source=x)
    (last,) = y.training_graph(with_source_gradient=dy)
    graph = mps.MPSNNGraph(result_images=[y.result_image, last.result_image])
    sources = {"x": elements(np.float16)[: SIZE - 7].reshape(64, -1, 4), "dy": elements(np.float16, 1)[: SIZE - 7]}
    sources["dy"] = sources["dy"].reshape(sources["x"].shape)
    images = [mps.MPSImage.from_array(sources[handle]) for handle in graph.source_image_handles]

    one, two = graph.run(**sources), graph.run(workers=2, **sources)
    rest: list = []
    first = graph.encode(source_images=images, intermediate_images=rest, workers=2)
    (batch,) = graph.encode_batch(source_images=[[image] for image in images], workers=2)

    assert {name: image.texture.tobytes() for name, image in one.items()} == {
        name: image.texture.tobytes() for name, image in two.items()
    }
    assert [image.texture.tobytes() for image in one.values()] == [i.texture.tobytes() for i in (first, *rest)]
    assert batch.texture.tobytes() == first.texture.tobytes()


def test_an_error_in_one_worker_ends_the_call_and_the_next_call_works(monkeypatch):
    d, x = mps.MPSNNNeuronDescriptor(T.sigmoid), elements(np.float32)
    want = mps.neuron.forward(d, x)
    kernel = KERNELS[type(d.row)]
    calls, real = [], kernel.forward

    def failing(x, p, w):
        calls.append(threading.current_thread().name)
        if len(calls) > 2:
            raise MemoryError("no more")
        return real(x, p, w)

    monkeypatch.setattr(type(kernel), "forward", staticmethod(failing))
    with pytest.raises(MemoryError, match="no more"):
        mps.neuron.forward(d, x, workers=2)
    assert len(calls) <= 4
    monkeypatch.undo()

    assert mps.neuron.forward(d, x, workers=2).tobytes() == want.tobytes()


def test_several_threads_of_the_caller_may_evaluate_at_once():
    descriptors = [mps.MPSNNNeuronDescriptor(t) for t in (T.tanH, T.geLU, T.reLU, T.softPlus)]
    x = elements(np.float32)
    want = [mps.neuron.forward(d, x).tobytes() for d in descriptors]
    got: dict[int, set[bytes]] = {i: set() for i in range(4)}

    def work(i):
        for workers in (1, 2, 3):
            got[i].add(mps.neuron.forward(descriptors[i], x, workers=workers).tobytes())

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert got == {i: {bits} for i, bits in enumerate(want)}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_does_not_wait_for_its_parents_threads():
    code = (
        "import os, sys, numpy as np, mpsref as mps\n"
        "d, x = mps.MPSNNNeuronDescriptor(mps.MPSCNNNeuronType.tanH), np.ones(1 << 19, np.float32)\n"
        "mps.neuron.forward(d, x, workers=3)\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    os._exit(7 if mps.neuron.forward(d, x, workers=3)[0] == np.float32(0.7615942) else 1)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))"
    )
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], timeout=60, check=False).returncode == 7


def test_tables_are_made_only_when_enough_elements_have_asked(monkeypatch):
    """A single small image is evaluated directly, a long series of them by table; the bits are the same."""
    made = []
    monkeypatch.setattr(evaluate, "forward_tables", Tables(2))
    real = evaluate._forward_table
    monkeypatch.setattr(evaluate, "_forward_table", lambda *a: made.append(a[0]) or real(*a))
    d, x = mps.MPSNNNeuronDescriptor(T.sigmoid), elements(np.float16)[:4096]

    results = {mps.neuron.forward(d, x).tobytes() for _ in range(WORTH_A_TABLE // 4096 - 1)}
    assert made == []
    results |= {mps.neuron.forward(d, x).tobytes() for _ in range(5)}
    assert made == [d]
    assert len(results) == 1

    # The two that were used last are kept.
    large = np.resize(x, WORTH_A_TABLE)
    others = [mps.MPSNNNeuronDescriptor(T.tanH, a=a) for a in (1, 2)]
    for other in (others[0], d, others[1], d, others[0]):
        mps.neuron.forward(other, large)
    assert made == [d, others[0], others[1], others[0]]


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("neuron_type", [T.none, T.reLU, T.sigmoid, T.pReLU], ids=lambda t: t.name)
def test_no_array_of_the_caller_is_kept(neuron_type, dtype):
    d, x = descriptor(neuron_type, SIZE), elements(dtype)
    y = mps.neuron.forward(d, x, workers=2)
    dx = mps.neuron.gradient(d, x, y)
    kept = [weakref.ref(array) for array in (x, y, dx)]

    del x, y, dx

    assert [array() for array in kept] == [None, None, None]


def run(code):
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=100, check=False
    )


START = (
    "import decimal, os, signal, sys, threading; import numpy as np; import mpsref as mps\n"
    "T, f = mps.MPSCNNNeuronType, mps.neuron.forward\n"
)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no interval timer")
def test_interrupts_leave_nothing_behind_that_shows_later():
    done = run(
        START + "class Stop(Exception): pass\n"
        "def stop(*_): raise Stop\n"
        "signal.signal(signal.SIGALRM, stop)\n"
        "g = np.ones(65536, np.float32)\n"
        "d = [mps.MPSNNNeuronDescriptor(T.linear, a=a) for a in (3, 5)]\n"
        "for i in range(1000):\n"
        "    try:\n"
        "        signal.setitimer(signal.ITIMER_REAL, 2e-5 + i * 6e-8)\n"
        "        for _ in range(100): mps.neuron.gradient(d[i % 2], g, g)\n"
        "    except Stop: pass\n"
        "    signal.setitimer(signal.ITIMER_REAL, 0)\n"
        "    for k in (0, 1):\n"
        "        assert (mps.neuron.gradient(d[k], g, g) == (3, 5)[k]).all()\n"
        "with np.errstate(all='raise'):\n"
        "    f(mps.MPSNNNeuronDescriptor(T.logarithm), np.float32([-1, 0]))\n"
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no interval timer")
def test_a_signal_handler_may_evaluate_in_the_middle_of_an_evaluation():
    done = run(
        START + "d, e = mps.MPSNNNeuronDescriptor(T.geLU), mps.MPSNNNeuronDescriptor(T.tanH)\n"
        "x = np.linspace(-9, 9, 1 << 19, dtype=np.float32)\n"
        "want, other, calls = f(d, x), f(e, x[:99999]), []\n"
        "def handler(*_):\n"
        "    calls.append((f(e, x[:99999]) == other).all())\n"
        "    signal.setitimer(signal.ITIMER_REAL, 2e-3)\n"
        "signal.signal(signal.SIGALRM, handler)\n"
        "signal.setitimer(signal.ITIMER_REAL, 1e-3)\n"
        "results = [f(d, x) for _ in range(15)]\n"
        "signal.signal(signal.SIGALRM, signal.SIG_IGN)\n"
        "assert all((y == want).all() for y in results)\n"
        "assert len(calls) > 3 and all(calls)\n"
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_child_does_not_wait_for_a_lock_that_another_thread_held():
    done = run(
        "import warnings; warnings.simplefilter('ignore', DeprecationWarning)\n"
        + START
        + "from mpsref.neuron import patterns\n"
        "patterns.forward_tables._lock.acquire()\n"
        "t = threading.Thread(target=lambda: None); t.start(); t.join()\n"
        "def fork():\n"
        "    global child\n"
        "    child = os.fork()\n"
        "    if not child:\n"
        "        signal.alarm(20)\n"
        "        f(mps.MPSNNNeuronDescriptor(T.geLU), np.ones(9, np.float16))\n"
        "        os._exit(7)\n"
        "t = threading.Thread(target=fork); t.start(); t.join()\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    assert done.returncode == 7, done.stderr


def test_the_callers_decimal_context_does_not_matter():
    done = run(
        START + "c = decimal.getcontext()\n"
        "c.prec, c.Emin, c.Emax, c.traps[decimal.FloatOperation], c.traps[decimal.Inexact] = 3, -5, 5, True, True\n"
        "y = f(mps.MPSNNNeuronDescriptor(T.geLU), np.float32([1, -1]))\n"
        "assert y.tolist() == np.float32([0.84134474606, -0.15865525393]).tolist(), y\n"
    )
    assert done.returncode == 0, done.stderr


def test_variables_of_the_callers_context_are_not_kept():
    class Thing:
        pass

    kept = []

    def work():
        variable: contextvars.ContextVar = contextvars.ContextVar("variable")
        thing = Thing()
        token = variable.set(thing)
        mps.neuron.forward(mps.MPSNNNeuronDescriptor(T.tanH), np.ones(3, np.float32))
        variable.reset(token)
        kept.append(weakref.ref(thing))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    gc.collect()

    assert kept[0]() is None


def test_workers_at_the_end_of_the_interpreter_are_done_without():
    done = run(
        "import atexit\n" + START + "x = np.ones(1 << 18, np.float32)\n"
        "def last():\n"
        "    print(f(mps.MPSNNNeuronDescriptor(T.reLU), x, workers=2).sum())\n"
        "atexit.register(last)\n"
    )
    assert (done.stdout, done.returncode) == ("262144.0\n", 0), done.stderr


def test_slopes_that_differ_in_the_sign_of_zero_have_tables_of_their_own():
    plus, minus = (mps.MPSNNNeuronDescriptor(T.pReLU, data=[slope]) for slope in (0.0, -0.0))
    both = mps.MPSNNNeuronDescriptor(T.pReLU, data=[0.0, -0.0, 0.5])
    large = np.full((4 * WORTH_A_TABLE, 1), -1, np.float16)

    for d, sign in ((plus, True), (minus, False), (plus, True)):
        assert np.signbit(mps.neuron.forward(d, large)).all() == sign
        assert np.signbit(mps.neuron.forward(d, large[:2])).all() == sign
    assert np.signbit(mps.neuron.forward(both, np.repeat(large, 3, axis=1))).all(axis=0).tolist() == [True, False, True]
