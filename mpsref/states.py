"""The contents of a state: what a gradient filter leaves there besides its image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from mpsref.attributes import NO_DEVICE, Strict

__all__ = ["MPSCNNConvolutionGradientState"]


@dataclass(frozen=True, eq=False)
class MPSCNNConvolutionGradientState(Strict):
    """
    The gradients of a convolution's weights and biases.

    Attributes
    ----------
    name : str
        The name of the forward result, or of its node. Not Apple's.
    gradient_for_weights : ndarray of float32, shape (O, kH, kW, I / groups)
        The sum over all images, rounded once.
    gradient_for_biases : ndarray of float32, shape (O,)
        Likewise.

    Notes
    -----
    Source: ``MPSCNNConvolution.h``.
    """

    _left_out: ClassVar = {"convolution": NO_DEVICE, "gradientForWeightsLayout": "it is always OHWI"}

    name: str
    gradient_for_weights: npt.NDArray[np.float32]
    gradient_for_biases: npt.NDArray[np.float32]
