"""
The golden reference of the neuron node graph of Apple's Metal Performance Shaders, in NumPy and SciPy.

It computes the correctly rounded results of a neuron graph, to check what a device returned, to teach how gradients
flow through a graph, and to test other implementations. It is not a fast runtime, does not train networks, and does not
use a GPU.

Classes and enums have Apple's names; methods and arguments are the Swift labels in snake_case.

Importing it costs nothing: NumPy and the rest are imported with the first name that is used, since Hypothesis and
pytest import the plug-ins of this package in every process.

Examples
--------
>>> import numpy as np
>>> import mpsref as mps
>>> x = mps.MPSNNImageNode(handle="x")
>>> n = mps.MPSCNNNeuronTanHNode(source=x, a=1.5, b=0.75)
>>> graph = mps.MPSNNGraph(result_image=n.result_image)
>>> graph.run(x=np.float16([[[0, 1]]]))["result0"].to_array()
array([[[[0.    , 0.9526]]]], dtype=float16)
"""

import sys
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from mpsref import activations as activations
    from mpsref import proof as proof
    from mpsref import record as record
    from mpsref import sweep as sweep
    from mpsref import teach as teach
    from mpsref import testing as testing
    from mpsref import verify as verify
    from mpsref.public import *
else:  # hidden from type checkers, which must report unknown names

    def __getattr__(name: str) -> Any:
        if name == "__all__":
            return import_module(f"{__name__}.public").__all__
        if not name.startswith("_"):
            try:
                return import_module(f"{__name__}.{name}")
            except ModuleNotFoundError as error:
                if error.name != f"{__name__}.{name}":
                    raise
            public = import_module(f"{__name__}.public")
            globals().update({each: getattr(public, each) for each in public.__all__})
            if sys.modules.get("hypothesis"):  # imported before the types that its hook registers
                import_module(f"{__name__}.hypothesis_plugin").register()
            if name in globals():
                return globals()[name]
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        parts = (module.name for module in iter_modules(__path__) if module.ispkg)
        return sorted({"__version__", *__getattr__("__all__"), *parts})
