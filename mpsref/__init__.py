"""
The golden reference of the neuron node graph of Apple's Metal Performance Shaders, in numpy and scipy.

It computes what a neuron graph *should* give, correctly rounded, to check what a device did give, to teach how
gradients flow through a graph, and to test other implementations. It is not a fast runtime, trains no networks, and
talks to no GPU.

Classes and enums have Apple's names; methods and arguments are the snake_case of the Swift labels.

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

from types import ModuleType
from typing import TYPE_CHECKING

from mpsref import neuron
from mpsref.enums import *
from mpsref.enums import __all__ as _enums
from mpsref.errors import *
from mpsref.errors import __all__ as _errors
from mpsref.executor import MPSNNGraph
from mpsref.graph import *
from mpsref.graph import __all__ as _graph
from mpsref.image import *
from mpsref.image import __all__ as _image
from mpsref.neuron.descriptor import MPSNNNeuronDescriptor
from mpsref.neuron.table import NEURONS

__version__ = "0.1.0"

__all__ = ["NEURONS", "MPSNNGraph", "MPSNNNeuronDescriptor", "neuron", *_enums, *_errors, *_graph, *_image]

if not TYPE_CHECKING:  # where a name that there is not has to stay an error

    def __getattr__(name: str) -> ModuleType:
        """The parts that are imported when they are used, such as ``mpsref.verify``."""
        if name not in ("proof", "record", "sweep", "teach", "testing", "verify"):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module  # noqa: PLC0415

        return import_module(f"{__name__}.{name}")
