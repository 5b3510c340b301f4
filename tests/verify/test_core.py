"""The core of the bounds lies inside them, and holds what plain kernels give."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

import mpsref as mps
from device import CHANNELS, random_descriptor, random_inputs
from mpsref.arrays import Elements
from mpsref.storage import FORMATS
from mpsref.verify.core import CoreArithmetic
from mpsref.verify.forms import data_of, neuron_forms
from mpsref.verify.models import MODELS
from mpsref.verify.ranges import NOTES, Mark
from mpsref.verify.running import Running
from mpsref.verify.stored import read

T = mps.MPSCNNNeuronType
Format = mps.MPSImageFeatureChannelFormat


def both(d, direction, model, storage, rng):
    """By form: the core, the range, and the sources."""
    x = random_inputs(d, rng, storage.dtype)
    x[::97] = rng.choice([np.nan, np.inf, -np.inf])
    dy = np.where(rng.random(x.size) < 0.3, random_inputs(d, rng, storage.dtype), rng.uniform(-2, 2, x.size))
    data = np.empty(0) if d.data is None else data_of(d, np.arange(x.size), CHANNELS)
    for formula in neuron_forms(d, direction):
        found = []
        for f in (CoreArithmetic(model), Running(model)):
            value = formula(read(f, Elements(x, storage)), data, f)
            if direction == "gradient":
                value = value * read(f, Elements(dy.astype(storage.dtype), storage))
            found.append(value.like(x))
        yield (*found, x, dy)


@pytest.mark.parametrize("neuron_type", list(mps.NEURONS), ids=lambda t: t.name)
@pytest.mark.parametrize("direction", ["forward", "gradient"])
def test_the_core_lies_inside_the_bounds(neuron_type, direction):
    shares = []
    for number, (model, storage) in enumerate(
        product(MODELS.values(), (FORMATS[Format.float32], FORMATS[Format.float16]))
    ):
        for variant in model.variants:
            rng = np.random.default_rng([number, int(neuron_type)])
            d = random_descriptor(neuron_type, rng)
            with np.errstate(all="ignore"):
                for core, bounds, x, dy in both(d, direction, variant, storage, rng):
                    known = ~(np.isnan(core.low) | np.isnan(core.high))
                    inside = (bounds.low <= core.low) & (core.low <= core.high) & (core.high <= bounds.high)
                    # Of the sides of a pole the plain bounds have one.
                    known &= bounds.reason & np.uint16(Mark.POLE) == 0
                    is_read = np.isfinite(x) | (direction == "gradient" and d.row.slope_is_constant)
                    wrong = np.flatnonzero(known & ~(inside & is_read))
                    assert not wrong.size, (
                        f"{d}, {variant.name}, {storage.name}, x = {x[wrong[0]]}, dy = {dy[wrong[0]]}: "
                        f"{core.low[wrong[0]]} to {core.high[wrong[0]]} in {bounds.low[wrong[0]]} to "
                        f"{bounds.high[wrong[0]]}, {Mark(int(bounds.reason[wrong[0]]))}"
                    )
                    ordinary = (bounds.reason & ~np.uint16(NOTES) == 0) & np.isfinite(bounds.low)
                    if model.storage is storage:
                        shares.append(np.mean(known[ordinary]) if ordinary.any() else 1.0)
    # Most elements have a core.
    assert np.median(shares) > 0.8
