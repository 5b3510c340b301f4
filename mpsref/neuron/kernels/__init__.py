"""
Fast kernels of the rows of the table; without one, `evaluate` is slow.

A kernel is called as ``kernel(x, p, w)`` with a block of float64 inputs, the descriptor and a `Workspace`, and returns
a buffer with the result to within its relative `error_bound`. It knows nothing of formats or of NaN: `evaluate` makes
NaN of NaN and drops the payload (N6).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import mpsref.neuron.activations as others
import mpsref.neuron.table as rows
from mpsref.neuron.kernels import activations, curves, lines, powers
from mpsref.neuron.kernels.base import Kernel

__all__ = ["KERNELS", "Kernel"]

KERNELS: Mapping[type[rows.Neuron], Kernel] = MappingProxyType(
    {
        rows.None_: lines.None_(),
        rows.ReLU: lines.ReLU(),
        rows.Linear: lines.Linear(),
        rows.Sigmoid: curves.Sigmoid(),
        rows.HardSigmoid: lines.HardSigmoid(),
        rows.TanH: curves.TanH(),
        rows.Absolute: lines.Absolute(),
        rows.SoftPlus: curves.SoftPlus(),
        rows.SoftSign: curves.SoftSign(),
        rows.ELU: curves.ELU(),
        rows.PReLU: lines.PReLU(),
        rows.ReLUN: lines.ReLUN(),
        rows.Power: powers.Power(),
        rows.Exponential: powers.Exponential(),
        rows.Logarithm: powers.Logarithm(),
        rows.GeLU: curves.GeLU(),
        others.SiLU: activations.SiLU(),
        others.QuickGELU: activations.SiLU(),
        others.GELUTanh: activations.GELUTanh(),
        others.Mish: activations.Mish(),
        others.HardSwish: activations.HardSwish(),
        others.HardSigmoid: activations.HardSigmoid(),
        others.SELU: activations.SELU(),
        others.CELU: activations.CELU(),
        others.LogSigmoid: activations.LogSigmoid(),
        others.SoftPlus: activations.SoftPlus(),
        others.ReLUSquared: activations.ReLUSquared(),
        others.TanhShrink: activations.TanhShrink(),
        others.SoftShrink: activations.SoftShrink(),
        others.HardShrink: activations.HardShrink(),
    }
)
"""The kernel of each row."""
