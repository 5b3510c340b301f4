"""Backpropagation that can be seen: every value, slope and product of a graph, in tables, pictures and pages."""

from typing import TYPE_CHECKING

from mpsref.graph.drawing import dot as dot
from mpsref.graph.drawing import mermaid as mermaid
from mpsref.graph.drawing import svg as svg
from mpsref.teach import plots as _plots
from mpsref.teach import trace as _trace
from mpsref.teach.explain import explain as explain
from mpsref.teach.plots import *
from mpsref.teach.trace import *

if not TYPE_CHECKING:  # which reads lists of literals only; without a list it takes every name
    __all__ = ["dot", "explain", "mermaid", "svg", *_plots.__all__, *_trace.__all__]
