"""
For your own tests: compare arrays in units in the last place, check gradients and kernels, use a pytest plugin.

Examples
--------
>>> import numpy as np
>>> from mpsref.testing import assert_close
>>> assert_close(np.float32([1.0000001, 2]), [1, 2], ulp=1)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mpsref.errors import DependencyError
from mpsref.testing.comparison import Bounds, Comparison, Worst, assert_close, compare, resolved
from mpsref.testing.tolerances import Tolerances

if TYPE_CHECKING:
    from mpsref.sweep.autodiff import gradient_of
    from mpsref.testing.gradient import GradientCheck, Slope, check_gradient
    from mpsref.testing.implementation import Failure, ImplementationCheck, check_implementation

__all__ = [
    "Bounds",
    "Comparison",
    "Failure",
    "GradientCheck",
    "ImplementationCheck",
    "Slope",
    "Tolerances",
    "Worst",
    "assert_close",
    "check_gradient",
    "check_implementation",
    "compare",
    "gradient_of",
    "resolved",
]

LATER = {
    "gradient_of": "mpsref.sweep.autodiff",
    **dict.fromkeys(("GradientCheck", "Slope", "check_gradient"), "mpsref.testing.gradient"),
    **dict.fromkeys(("Failure", "ImplementationCheck", "check_implementation"), "mpsref.testing.implementation"),
}
"""What is imported on first use, since it costs more than a comparison should, and from where."""


def __getattr__(name: str) -> Any:
    if name not in LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(LATER[name]), name)
    except ModuleNotFoundError as error:
        if error.name != "hypothesis":
            raise
        raise DependencyError(f"mpsref.testing.{name} needs hypothesis: pip install 'mpsref[testing]'") from None
