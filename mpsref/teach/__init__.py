"""Backpropagation that can be seen: every value, slope and product of a graph, in tables, pictures and pages."""

from typing import TYPE_CHECKING

from mpsref.graph.drawing import dot as dot
from mpsref.graph.drawing import mermaid as mermaid
from mpsref.graph.drawing import svg as svg
from mpsref.teach import descent as _descent
from mpsref.teach import exercises as _exercises
from mpsref.teach import expression as _expression
from mpsref.teach import plots as _plots
from mpsref.teach import trace as _trace
from mpsref.teach.descent import *
from mpsref.teach.exercises import *
from mpsref.teach.explain import explain as explain
from mpsref.teach.expression import *
from mpsref.teach.parameters import parameters as parameters
from mpsref.teach.parameters import with_parameters as with_parameters
from mpsref.teach.plots import *
from mpsref.teach.trace import *

if TYPE_CHECKING:
    from collections.abc import Callable

    def __getattr__(neuron: str) -> Callable[..., Expression]:
        """The functions of the neurons, which are made of their rows."""
else:  # what type checkers read are lists of literals only; without a list they take every name
    from mpsref.teach.expression import SPELLINGS

    globals().update({spelling: getattr(_expression, spelling) for spelling in SPELLINGS})
    __all__ = ["dot", "explain", "mermaid", "parameters", "svg", "with_parameters"]
    __all__ += [
        *_descent.__all__,
        *_exercises.__all__,
        *_expression.__all__,
        *_plots.__all__,
        *_trace.__all__,
        *SPELLINGS,
    ]
