"""
The floating-point environment of a thread: results have the right bits only where subnormals count and sums round to
nearest.

A library that was linked with ``-ffast-math`` may change both when it is loaded, and so may
``torch.set_flush_denormal(True)`` or C's ``fesetround``. The environment is a thread's own, and nobody is told when it
changes: every thread looks whenever it takes work.
"""

from __future__ import annotations

import math
import threading

import numpy as np

from mpsref.errors import FloatingPointModeError

__all__ = ["environment_or_error"]

# Names, not literals: Python would compute an expression of literals once, when it compiles it. And not by arithmetic,
# which might be flushed here already.
ONE, TINY, SUBNORMAL = 1.0, 2.0**-54, math.nextafter(0.0, 1.0)


class _Thread(threading.local):
    """Whether numpy's vector code has been looked at in this thread."""

    probed = False


_thread = _Thread()


def environment_or_error() -> None:
    """
    Make sure that this thread computes as IEEE 754 says, with subnormals and to nearest.

    Three sums of Python floats are taken each time. They see everything that an environment can do where scalars and
    vectors share it, as on x86-64 and 64-bit Arm, in single precision as in double. Where numpy's vector code has an
    environment of its own, or always flushes, as Neon on 32-bit Arm, scalars do not tell: numpy's sums of float32 are
    looked at too, once in each thread, since that costs as much as the evaluation of an element.

    Raises
    ------
    FloatingPointModeError
        Subnormal operands or results are flushed to zero, or sums are not rounded to nearest.
    """
    # An operand or a result that is flushed gives 0. Upwards the sum is above 1; downwards and towards zero the
    # difference is below.
    if SUBNORMAL + SUBNORMAL == 0 or ONE + TINY != ONE - TINY:
        _refuse("this thread", flushes=SUBNORMAL + SUBNORMAL == 0)
    if not _thread.probed:
        _probe_vectors()
        _thread.probed = True


def _probe_vectors() -> None:
    """Look at sums of float32, so many that vector code makes most of them."""
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
