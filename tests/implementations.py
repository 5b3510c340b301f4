"""Implementations of neurons, right and wrong in known places, that sweeps in the tests are about."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

import mpsref as mps

NO_FUNCTION = 3


def absolute(x):
    return np.abs(x)


def right_hardswish(x):
    return mps.neuron.forward("hardswish", x)


def in_place(x):
    """Right, and writes over its argument."""
    return np.abs(x, out=x)


def relu_gradient(x, upstream):
    return np.where(np.isnan(x), x, upstream * (x >= 0)).astype(x.dtype)


def slow(x):
    """Right, and says which process works."""
    time.sleep(0.05)
    with Path(os.environ["MPSREF_TEST_LOG"]).open("a") as file:
        file.write(f"{os.getpid()} {x.view(f'u{x.itemsize}')[0]}\n")
    return np.abs(x)


def raises(x):
    raise RuntimeError("no\nway")


def widens(x):
    return x.astype(np.float64)


def flattens(x):
    return x[:, np.newaxis]


def says_nothing(x):
    return None


def exits(x):
    sys.exit(0)


def killed(x):
    os.kill(os.getpid(), signal.SIGKILL)


def interrupts(x):
    raise KeyboardInterrupt


class UnsayableError(Exception):
    def __str__(self):
        raise SystemExit(0)


def raises_what_it_cannot_say(x):
    raise UnsayableError


def prints(x):
    print("look")
    return np.abs(x)
