"""Nodes, and what can be done with them without knowing a single number: differentiate, order, read and write."""

from mpsref.graph.arithmetic import *
from mpsref.graph.arithmetic import __all__ as _arithmetic
from mpsref.graph.file import GraphFile
from mpsref.graph.neurons import *
from mpsref.graph.neurons import __all__ as _neurons
from mpsref.graph.nodes import *
from mpsref.graph.nodes import __all__ as _nodes

__all__ = ["GraphFile", *_arithmetic, *_neurons, *_nodes]
