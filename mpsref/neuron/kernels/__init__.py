"""
Fast kernels, one for each row of the table that has one; `evaluate` does without, only slowly.

A kernel is called as ``kernel(x, p, w)`` with a block of float64 sources, the descriptor and a `Workspace`, and returns
a buffer with the result to within its `error_bound`, relative. It knows nothing of formats. What `evaluate` does for
all neurons alike is not repeated in it: NaN stays NaN, and its payload is dropped (N6).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from mpsref.neuron import table
from mpsref.neuron.kernels import curves, lines, powers
from mpsref.neuron.kernels.base import Kernel

__all__ = ["KERNELS", "Kernel"]

KERNELS: Mapping[type[table.Neuron], Kernel] = MappingProxyType(
    {
        table.None_: lines.None_(),
        table.ReLU: lines.ReLU(),
        table.Linear: lines.Linear(),
        table.Sigmoid: curves.Sigmoid(),
        table.HardSigmoid: lines.HardSigmoid(),
        table.TanH: curves.TanH(),
        table.Absolute: lines.Absolute(),
        table.SoftPlus: curves.SoftPlus(),
        table.SoftSign: curves.SoftSign(),
        table.ELU: curves.ELU(),
        table.PReLU: lines.PReLU(),
        table.ReLUN: lines.ReLUN(),
        table.Power: powers.Power(),
        table.Exponential: powers.Exponential(),
        table.Logarithm: powers.Logarithm(),
        table.GeLU: curves.GeLU(),
    }
)
"""The kernel of each row."""
