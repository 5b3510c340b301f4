"""
Activations that are not Apple's, of the same kind as the neurons: exact, rounded once, with kinks and limits stated.

Examples
--------
>>> import numpy as np
>>> import mpsref as mps
>>> from mpsref.activations import Activation
>>> mps.neuron.forward("mish", np.float32([-1, 1]))
array([-0.30340147,  0.8650984 ], dtype=float32)
>>> mps.neuron.gradient(Activation("celu", alpha=2), np.float16([-1, 1]), np.float16([3, 3]))
array([1.819, 3.   ], dtype=float16)
"""

from mpsref.enums import ActivationType
from mpsref.neuron.activations import ACTIVATIONS
from mpsref.neuron.descriptor import Activation

__all__ = ["ACTIVATIONS", "Activation", "ActivationType"]
