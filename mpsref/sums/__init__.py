"""Exact sums of products over windows, rounded once: convolution, pooling and their gradients, of plain arrays."""

from __future__ import annotations

from mpsref.sums.convolution import BiasGradient, Convolution, DataGradient, WeightGradient
from mpsref.sums.pooling import AveragePooling, AveragePoolingGradient, MaxPooling, MaxPoolingGradient
from mpsref.sums.stepwise import stepwise
from mpsref.sums.window import Window

__all__ = [
    "AveragePooling",
    "AveragePoolingGradient",
    "BiasGradient",
    "Convolution",
    "DataGradient",
    "MaxPooling",
    "MaxPoolingGradient",
    "WeightGradient",
    "Window",
    "stepwise",
]
