"""The kernels' error bounds, on which Ziv's test rests: what they lose in float64 stays far below."""

from __future__ import annotations

import numpy as np

from builders import ALL, BOTH, OTHERS, cases, descriptor_of, float32_inputs, judge_of, seeded
from mpsref.neuron import evaluate
from mpsref.neuron.kernels import KERNELS
from mpsref.neuron.slopes import ChannelSlopes
from mpsref.neuron.threads import over_blocks
from mpsref.storage import FLOAT64, FORMATS

FLOAT32 = next(storage for storage in FORMATS.values() if storage.dtype == np.float32)
COUNT = 4096
MARGIN = 4


def computed(d, x, derivative):
    """What the row's kernel makes of float32 sources in float64, before anything is rounded."""
    slopes = None if d.data is None else ChannelSlopes(d.data.astype(np.float64)[np.newaxis], 1)
    kernel = KERNELS[type(d.row)]
    task = evaluate._Task(d, kernel, x, FLOAT32, np.empty(x.size), FLOAT64, slopes, None)
    function = kernel.derivative if derivative else kernel.forward
    found = []
    over_blocks(lambda start, stop: found.append(task.computed(function, start, stop).copy()), x.size)
    return np.concatenate(found)


@BOTH
@cases([*ALL, *((name, p) for name, sets in OTHERS.items() for p in sets)])
def test_a_kernel_loses_less_than_a_quarter_of_its_bound(name, p, derivative):
    d, j, rng = descriptor_of(name, p), judge_of(name, p), seeded(name, p, "bounds")
    x = float32_inputs(name, p, 4 * COUNT)
    x = x[rng.permutation(x.size)[:COUNT]]
    kernel = KERNELS[type(d.row)]
    bound = kernel.slope_error_bound(d) if derivative else kernel.error_bound(d)
    for chosen in (x, x[np.abs(x) < 100]):  # with and without sources that need the careful path
        want = j.float64s(chosen.astype(np.float64), derivative)
        got = computed(d, chosen, derivative)
        # What float64 cannot hold is nothing, or infinite, to every storage format.
        normal = np.isfinite(want) & (np.abs(want) > 1e-290) & (np.abs(want) < 1e290) & np.isfinite(got)
        error = np.abs(got[normal] - want[normal]) / np.abs(want[normal])
        # 2^-52 is what the judge's float64 and an exact kernel's rounding to odd may differ by.
        assert error.max(initial=0) <= bound / MARGIN + 2.0**-52, f"{j} at {chosen[normal][error.argmax()]!r}"
