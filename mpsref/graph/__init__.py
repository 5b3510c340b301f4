"""Nodes, and what can be done with them without knowing a single number: differentiate, order, read and write."""

from typing import TYPE_CHECKING

from mpsref.graph import arithmetic, file, layers, neurons, nodes
from mpsref.graph.arithmetic import *
from mpsref.graph.check import Finding as Finding
from mpsref.graph.check import check as check
from mpsref.graph.file import *
from mpsref.graph.layers import *
from mpsref.graph.neurons import *
from mpsref.graph.nodes import *

if not TYPE_CHECKING:  # which reads lists of literals only; without a list it takes every name
    __all__ = [
        "Finding",
        "check",
        *file.__all__,
        *arithmetic.__all__,
        *layers.__all__,
        *neurons.__all__,
        *nodes.__all__,
    ]
