"""Backpropagation that can be seen: every value, slope and product of a graph, in tables, pictures and pages."""

from mpsref.graph.drawing import dot, mermaid, svg
from mpsref.teach.plots import *
from mpsref.teach.plots import __all__ as _plots
from mpsref.teach.trace import *
from mpsref.teach.trace import __all__ as _trace

__all__ = ["dot", "mermaid", "svg", *_plots, *_trace]
