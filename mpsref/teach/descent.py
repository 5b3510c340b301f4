"""Gradient descent: parameters that move against their gradients, and a log of how they did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mpsref.arguments import checked
from mpsref.arrays import Wide
from mpsref.enums import MPSImageFeatureChannelFormat
from mpsref.errors import ParameterError, SourceError, shown
from mpsref.graph.nodes import ImageLike
from mpsref.storage import FormatLike, array_or_error
from mpsref.teach.expression import Backprop, Expression, evaluated, training_graph
from mpsref.teach.parameters import parameters as parameters_of
from mpsref.teach.parameters import total, with_parameters
from mpsref.teach.plots import Axes, plot_losses

__all__ = ["Descent", "descend"]


@dataclass(frozen=True, repr=False)
class Descent:
    """
    The log of `descend`.

    Attributes
    ----------
    losses : ndarray of float64, shape (steps + 1,)
        The loss before the first step and after each.
    parameters : dict of str to ndarray of float64, shape (steps + 1, ...)
        Every value of each parameter.
    gradients : dict of str to ndarray of float64, shape (steps + 1, ...)
        Its gradient there.
    trace : Backprop
        The graph at the end, with every number.
    """

    losses: Wide
    parameters: Mapping[str, Wide]
    gradients: Mapping[str, Wide]
    trace: Backprop

    @property
    def values(self) -> dict[str, float | Wide]:
        """The parameters at the end: numbers for `backprop`, and for another `descend`."""
        return {name: float(path[-1]) if path.ndim == 1 else path[-1] for name, path in self.parameters.items()}

    def plot(self, *, ax: Axes | None = None) -> Axes:
        """
        Draw the loss after each step, on a logarithmic scale if it is always positive.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw. Default: a new figure.

        Returns
        -------
        matplotlib.axes.Axes

        Raises
        ------
        DependencyError
            matplotlib is not installed.
        """
        return plot_losses(self.losses, ax=ax)

    def __repr__(self) -> str:
        steps = len(self.losses) - 1
        return f"<Descent of {steps} steps: loss {self.losses[0]:.4g} to {self.losses[-1]:.4g}>"


@checked
def descend(
    loss: Expression | ImageLike,
    start: Mapping[str, npt.ArrayLike],
    /,
    *,
    rate: float,
    steps: int,
    format: FormatLike = MPSImageFeatureChannelFormat.float32,
    **numbers: npt.ArrayLike,
) -> Descent:
    """
    Move parameters against their gradients: each step subtracts `rate` times the gradient.

    Parameters
    ----------
    loss : Expression, or node or image node of a graph
        What is to become small: the sum of all its elements.
    start : mapping of str to float or array_like
        The parameters and where they start: inputs of the expression, such as ``w``; and parameters of its nodes by the
        names of `mpsref.teach.parameters`, such as ``h1.b``.
    rate : float
        The learning rate.
    steps : int
        The number of steps; it ends early where a parameter is no longer finite.
    format : MPSImageFeatureChannelFormat, str or dtype
        How every number of the graph is stored. The parameters themselves are kept in float64 between the steps.
    **numbers : float or array_like
        The other inputs, as for `backprop`.

    Returns
    -------
    Descent
        Losses, parameters and gradients of every step.

    Raises
    ------
    ParameterError
        `steps` or `rate` is none, or there is nothing to move.
    SourceError
        An input is missing, given twice, or there is no input or parameter of that name.

    Examples
    --------
    >>> from mpsref import teach
    >>> x = teach.input("x")
    >>> log = teach.descend((x - 3) * (x - 3), {"x": 0}, rate=0.25, steps=3)
    >>> log.parameters["x"].tolist(), log.losses.tolist()
    ([0.0, 1.5, 2.25, 2.625], [9.0, 2.25, 0.5625, 0.140625])
    """
    count, size = _number(steps), _number(rate)
    if count is None or count < 0 or not count.is_integer():
        raise ParameterError(f"steps is {shown(steps)}: give a number of steps")
    if size is None:
        raise ParameterError(f"rate is {shown(rate)}: give a finite number")
    if not start:
        raise ParameterError("start is empty: give the parameters and where they start, such as {'w': 0.5}")
    graph = training_graph(loss, format)
    of_nodes = parameters_of(graph)
    inputs = {str(source.label) for source in graph.plan.inputs}
    for name in start:
        if name in numbers:
            raise SourceError(f"{name!r} is given twice, as a parameter and as a number: leave one out")
        if name not in inputs and name not in of_nodes:
            known = ", ".join(map(repr, [*sorted(inputs), *of_nodes]))
            raise SourceError(f"start has {name!r}: the inputs and the parameters of nodes are {known}")
    now = {name: np.array(array_or_error(value, name), np.float64) for name, value in start.items()}
    result = str(graph.plan.result_handles[0])
    values: dict[str, list[Wide]] = {name: [] for name in start}
    gradients: dict[str, list[Wide]] = {name: [] for name in start}
    losses: list[float] = []
    while True:
        own = {name: value for name, value in now.items() if name not in inputs}
        sources: dict[str, Any] = {name: value for name, value in now.items() if name in inputs}
        trace = evaluated(with_parameters(graph, own) if own else graph, sources | numbers)
        losses.append(total(trace[result].stored))
        every = trace.parameter_gradients if own else {}
        for name, value in now.items():
            gradient = trace.gradients[name] if name in inputs else every[name]
            values[name].append(value)
            gradients[name].append(np.array(gradient))
        after = {name: value - size * gradients[name][-1] for name, value in now.items()}
        if len(losses) > count or not all(np.isfinite(value).all() for value in after.values()):
            break
        now = after
    return Descent(
        np.array(losses),
        {name: np.array(path) for name, path in values.items()},
        {name: np.array(path) for name, path in gradients.items()},
        trace,
    )


def _number(value: Any) -> float | None:
    """A finite number, or None."""
    is_number = isinstance(value, float | int | np.floating | np.integer) and not isinstance(value, bool)
    return float(value) if is_number and np.isfinite(value) else None
