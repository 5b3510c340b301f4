"""
For people's own tests: arrays compared in units in the last place; a pytest plugin comes with it.

Examples
--------
>>> import numpy as np
>>> from mpsref.testing import assert_close
>>> assert_close(np.float32([1.0000001, 2]), [1, 2], ulp=1)
"""

from mpsref.testing.comparison import Bounds, Comparison, Worst, assert_close, compare, resolved
from mpsref.testing.tolerances import Tolerances

__all__ = ["Bounds", "Comparison", "Tolerances", "Worst", "assert_close", "compare", "resolved"]
