"""
Hypothesis strategies for neurons, numbers, images, graphs and recordings.

What breaks implementations is drawn on purpose: kinks, edges, rounding boundaries, signed zeros, NaN.

Importing `mpsref.testing` does not bring them; they need the extra ``testing``.

Examples
--------
>>> from hypothesis import find
>>> import mpsref as mps
>>> from mpsref.testing import strategies as mpst
>>> find(mpst.descriptors(), lambda d: d.parameters)
MPSNNNeuronDescriptor(MPSCNNNeuronType.reLU, a=0.0)
"""

from mpsref.errors import DependencyError

try:
    import hypothesis  # noqa: F401
except ImportError:
    raise DependencyError("mpsref.testing.strategies needs hypothesis: pip install 'mpsref[testing]'") from None

from mpsref.testing.strategies.code import *
from mpsref.testing.strategies.code import __all__ as _code
from mpsref.testing.strategies.graphs import *
from mpsref.testing.strategies.graphs import __all__ as _graphs
from mpsref.testing.strategies.images import *
from mpsref.testing.strategies.images import __all__ as _images
from mpsref.testing.strategies.neurons import *
from mpsref.testing.strategies.neurons import __all__ as _neurons
from mpsref.testing.strategies.numbers import *
from mpsref.testing.strategies.numbers import __all__ as _numbers
from mpsref.testing.strategies.recordings import *
from mpsref.testing.strategies.recordings import __all__ as _recordings

__all__ = [*_code, *_graphs, *_images, *_neurons, *_numbers, *_recordings]
