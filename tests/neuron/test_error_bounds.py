"""The kernels' error bounds, on which Ziv's test rests: what they lose in float64 stays far below."""

from __future__ import annotations

import numpy as np
import pytest

import mpsref as mps
from builders import ALL, BOTH, OTHERS, cases, descriptor_of, float32_inputs, judge_of, seeded, seldom
from mpsref.neuron import evaluate
from mpsref.neuron.kernels import KERNELS, powers
from mpsref.neuron.nodes import BOUND, FIRST, LAST
from mpsref.neuron.patterns import WORTH_NODES
from mpsref.neuron.slopes import ChannelSlopes
from mpsref.neuron.threads import BLOCK, over_blocks, thread
from mpsref.storage import FLOAT64, FORMATS

FLOAT32 = next(storage for storage in FORMATS.values() if storage.dtype == np.float32)
COUNT, FEW = 4096, 512
"""Sources of each neuron, in slow tests and by default."""
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


@seldom("count", [FEW, COUNT], lambda count: count == FEW)
@BOTH
@cases([*ALL, *((name, p) for name, sets in OTHERS.items() for p in sets)])
def test_a_kernel_loses_less_than_a_quarter_of_its_bound(name, p, derivative, count):
    d, j, rng = descriptor_of(name, p), judge_of(name, p), seeded(name, p, "bounds")
    x = float32_inputs(name, p, 4 * COUNT)
    x = x[rng.permutation(x.size)[:count]]
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


@BOTH
@pytest.mark.parametrize("p", [(1, 0, 1.7), (0.3, 0.1, -2.2), (1.1, 0, 4), (1, 0.7, 63.7), (0.9, 0, -0.3)])
def test_powers_near_1_lose_less_than_a_quarter_of_their_bound(p, derivative):
    a, b, c = p
    largest = powers.LARGEST_LOGARITHM / abs(c - derivative)
    d, j, rng = descriptor_of("power", p), judge_of("power", p), seeded("power", p)
    u = np.exp(np.concatenate([rng.uniform(-largest, largest, COUNT), [0.999 * largest, -0.999 * largest]]))
    x = ((u - b) / a).astype(np.float32)
    x = x[x > 0] if b == 0 else x
    assert powers._is_near_one(np.float64(a) * x + b, c - derivative)
    want = j.float64s(x.astype(np.float64), derivative)
    error = np.abs(computed(d, x, derivative) / want - 1).max()
    assert error <= KERNELS[type(d.row)].error_bound(d) / MARGIN


@BOTH
def test_nodes_lose_less_than_half_of_their_bound(derivative):
    d, j, rng = descriptor_of("geLU", ()), judge_of("geLU", ()), seeded("nodes", derivative)
    kernel = KERNELS[type(d.row)]
    nodes = evaluate._nodes(d, kernel.derivative if derivative else kernel.forward, kernel.roots[derivative])
    root = kernel.ROOT[0] + rng.normal(size=256) * 2.0 ** -rng.uniform(1, 24, 256)
    x = np.concatenate([rng.uniform(FIRST, LAST, COUNT), rng.uniform(FIRST, FIRST + 0.1, COUNT), root, [FIRST, LAST]])
    x = x.astype(np.float32)
    got = nodes.product(x, np.ones_like(x) if derivative else None, thread.now)
    want = j.float64s(x.astype(np.float64), derivative)
    assert (np.abs(got - want) / np.abs(want)).max() <= BOUND / 2


@BOTH
def test_nodes_change_no_bit(derivative):
    rng = seeded("nodes", "bits", derivative)
    x, g = (rng.normal(0, 2, WORTH_NODES).astype(np.float32) for _ in range(2))
    special = np.concatenate([float32_inputs("geLU", (), 4096), np.float32([0, -0.0, np.inf, -np.inf])])
    special = special[~np.isnan(special)]
    x[: special.size] = special
    g[BLOCK : BLOCK + special.size] = special
    x[2 * BLOCK], g[BLOCK - 1], x[3 * BLOCK : 3 * BLOCK + BLOCK // 4] = np.nan, np.nan, -7

    def call(some):
        return mps.neuron.gradient("geLU", x[some], g[some]) if derivative else mps.neuron.forward("geLU", x[some])

    few = evaluate.WORTH_A_LOOK - 1
    want = np.concatenate([call(slice(start, start + few)) for start in range(0, x.size, few)])
    np.testing.assert_array_equal(call(slice(None)).view(np.uint32), want.view(np.uint32))
