"""
For people's own tests: arrays compared in units in the last place; gradients and kernels checked; a pytest plugin.

Examples
--------
>>> import numpy as np
>>> from mpsref.testing import assert_close
>>> assert_close(np.float32([1.0000001, 2]), [1, 2], ulp=1)
"""

from typing import TYPE_CHECKING, Any

from mpsref.errors import DependencyError
from mpsref.testing.comparison import Bounds, Comparison, Worst, assert_close, compare, resolved
from mpsref.testing.tolerances import Tolerances

if TYPE_CHECKING:
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
    "resolved",
]

LATER = {
    "Failure": "mpsref.testing.implementation",
    "GradientCheck": "mpsref.testing.gradient",
    "ImplementationCheck": "mpsref.testing.implementation",
    "Slope": "mpsref.testing.gradient",
    "check_gradient": "mpsref.testing.gradient",
    "check_implementation": "mpsref.testing.implementation",
}
"""What is imported when it is used, and from where."""


def __getattr__(name: str) -> Any:
    if name not in LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # Here, since it costs more than a comparison should.
    from importlib import import_module  # noqa: PLC0415

    try:
        return getattr(import_module(LATER[name]), name)
    except ModuleNotFoundError as error:
        if error.name != "hypothesis":
            raise
        raise DependencyError(f"mpsref.testing.{name} needs hypothesis: pip install 'mpsref[testing]'") from None
