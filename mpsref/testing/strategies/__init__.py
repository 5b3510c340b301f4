"""
Hypothesis strategies for neurons, numbers, images, graphs and recordings.

They favour what breaks implementations: kinks, edges, rounding boundaries, signed zeros, NaN.

Importing `mpsref.testing` does not import them; they need the extra ``testing``.

Examples
--------
>>> from hypothesis import find
>>> import mpsref as mps
>>> from mpsref.testing import strategies as mpst
>>> find(mpst.descriptors(), lambda d: d.parameters)
MPSNNNeuronDescriptor(MPSCNNNeuronType.reLU, a=0.0)
"""

from typing import TYPE_CHECKING

from mpsref.errors import DependencyError

try:
    import hypothesis  # noqa: F401
except ImportError:
    raise DependencyError("mpsref.testing.strategies needs hypothesis: pip install 'mpsref[testing]'") from None

from mpsref.testing.strategies import code as _code
from mpsref.testing.strategies import graphs as _graphs
from mpsref.testing.strategies import images as _images
from mpsref.testing.strategies import layers as _layers
from mpsref.testing.strategies import neurons as _neurons
from mpsref.testing.strategies import numbers as _numbers
from mpsref.testing.strategies import recordings as _recordings
from mpsref.testing.strategies.code import *
from mpsref.testing.strategies.graphs import *
from mpsref.testing.strategies.images import *
from mpsref.testing.strategies.layers import *
from mpsref.testing.strategies.neurons import *
from mpsref.testing.strategies.numbers import *
from mpsref.testing.strategies.recordings import *

if not TYPE_CHECKING:  # which reads lists of literals only; without a list it takes every name
    __all__ = [
        *_code.__all__,
        *_graphs.__all__,
        *_images.__all__,
        *_layers.__all__,
        *_neurons.__all__,
        *_numbers.__all__,
        *_recordings.__all__,
    ]
