"""
The floating-point environment of a thread, which must keep subnormals and round to nearest.

A library linked with ``-ffast-math`` may change both when it is loaded, and so may ``torch.set_flush_denormal(True)``
or C's ``fesetround``. Each thread has its own environment, which can change at any time: every thread checks it
whenever it takes work.
"""

from __future__ import annotations

import math
import threading

import numpy as np

from mpsref.errors import FloatingPointModeError

__all__ = ["environment_or_error"]

# Names, not literals: Python would evaluate an expression of literals at compile time. And not computed, since the
# result might be flushed here already.
ONE, TINY, SUBNORMAL = 1.0, 2.0**-54, math.nextafter(0.0, 1.0)


class _Thread(threading.local):
    """Whether numpy's vector code has been checked in this thread."""

    probed = False


_thread = _Thread()


def environment_or_error() -> None:
    """
    Check that this thread computes with subnormals and rounds to nearest, as IEEE 754 requires.

    Each call checks three sums of Python floats, which suffices where scalars and vectors share an environment for
    single and double precision, as on x86-64 and 64-bit Arm. numpy's vector code may have an environment of its own, or
    always flush, like Neon on 32-bit Arm: sums of float32 arrays are checked too, but only once in each thread, since
    that costs as much as the evaluation of an element.

    Raises
    ------
    FloatingPointModeError
        Subnormal operands or results are flushed to zero, or sums are not rounded to nearest.
    """
    # Flushed operands or results give 0. Rounding upwards, the sum is above 1; downwards or towards zero, the
    # difference is below 1.
    if SUBNORMAL + SUBNORMAL == 0 or ONE + TINY != ONE - TINY:
        _refuse("this thread", flushes=SUBNORMAL + SUBNORMAL == 0)
    if not _thread.probed:
        _probe_vectors()
        _thread.probed = True


def _probe_vectors() -> None:
    """Check sums of float32 arrays, long enough for vector code to compute most of them."""
    subnormal = np.full(64, 1, np.uint32).view(np.float32)
    one, tiny = np.full(64, 1.0, np.float32), np.full(64, 2.0**-26, np.float32)
    with np.errstate(all="ignore"):
        flushes = bool(((subnormal + subnormal).view(np.uint32) != 2).any())
        if flushes or ((one + tiny).view(np.uint32) != (one - tiny).view(np.uint32)).any():
            _refuse("numpy's vector code", flushes=flushes)


def _refuse(where: str, *, flushes: bool) -> None:
    if flushes:
        raise FloatingPointModeError(
            f"{where} flushes subnormal numbers to zero, so that results would be wrong: switch it off, as with "
            "torch.set_flush_denormal(False), or do not load a library that was built with -ffast-math"
        )
    raise FloatingPointModeError(
        f"{where} does not round to nearest, so that results would be wrong: call fesetround(FE_TONEAREST)"
    )
