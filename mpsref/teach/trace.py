"""
A graph evaluated with every number in sight: what each step reads, its slope, the incoming gradient, what it stores.

The stored numbers are those of the graph itself, bit for bit. Beside them stands each step's result before storage: the
same operation with a float64 result, on the same stored sources.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property
from itertools import islice
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from mpsref.arguments import checked
from mpsref.arrays import Wide
from mpsref.display import aligned, html_table, printable
from mpsref.errors import ImageError, SourceError, shown
from mpsref.executor import MPSNNGraph, graph_or_error
from mpsref.graph.file import GraphFile
from mpsref.graph.names import differentiated
from mpsref.graph.nodes import ImageLike
from mpsref.image import MPSImage
from mpsref.operations.base import number_text
from mpsref.plan import Step as PlanStep
from mpsref.teach.chain import Term, bias_of, equation, gradients_read, stored_lines
from mpsref.teach.step import (
    Step,
    Window,
    largest_ulps_text,
    place_text,
    range_text,
    single,
    tell_apart,
    title,
    ulps_text,
)

__all__ = ["Step", "Trace", "trace"]

Shape: TypeAlias = tuple[int, int, int, int]

FEW_PIXELS = 4
"""Up to this many elements are printed one by one; more are summarized."""

MOST_PATHS, MOST_FACTORS = 8, 8
"""Limits of a chain rule that is written out; beyond them, intermediate gradients are named instead."""

MOST_NAMES = 20
"""Names that an error lists."""


class Trace:
    """
    All steps of an evaluated graph.

    Attributes
    ----------
    steps : tuple of Step
        In the order of evaluation.
    sources : dict of str to ndarray
        The source images by name, decoded.
    place : tuple of four int or None
        Image, y, x and channel, if this is the trace of one element.
    images : dict of str to MPSImage
        The source images by name.
    """

    @checked
    def __init__(
        self, steps: Iterable[Step], sources: Mapping[str, MPSImage], place: tuple[int, int, int, int] | None = None
    ) -> None:
        self.steps = tuple(steps)
        self.place = place
        self.images = dict(sources)
        self._by_name = {step.name: step for step in self.steps}

    @cached_property
    def sources(self) -> dict[str, Wide]:
        """The source images by name, decoded."""
        window = Window(self.place)
        return {name: window.array(image) for name, image in self.images.items()}

    def __getitem__(self, name: str) -> Step:
        try:
            return self._by_name[name]
        except Exception:  # noqa: BLE001  somebody's object may raise anything
            raise SourceError(f"no step makes {shown(name)}: the steps make {_listed(self._by_name)}") from None

    def __len__(self) -> int:
        return len(self.steps)

    @cached_property
    def _shapes(self) -> dict[Shape, None]:
        """The distinct shapes of the sources: parts of a graph that share no image may differ."""
        return dict.fromkeys(image.shape for image in self.images.values())

    @property
    def shape(self) -> Shape:
        """Images, height, width and channels that all images have."""
        shapes = [*self._shapes, *(step.shape for step in self.steps)]
        n, height, width, channels = (min(sizes) for sizes in zip(*shapes, strict=True))
        return (n, height, width, channels) if self.place is None else (1, 1, 1, 1)

    def at(self, y: int, x: int, channel: int, image: int = 0) -> Trace:
        """
        The trace of one element.

        Raises
        ------
        ImageError
            There is no such element.
        """
        place = []
        for name, value, most in zip(("image", "y", "x", "channel"), (image, y, x, channel), self.shape, strict=True):
            try:
                index = operator.index(value)
            except Exception:  # noqa: BLE001  somebody's object may raise anything
                raise ImageError(f"{name} is {shown(value)}: give an integer") from None
            if not 0 <= index < most:
                of = ", which all images have" if len(self._shapes) > 1 else ""
                raise ImageError(f"{name} is {index}: it must lie in range({most}){of}")
            place.append(index)
        if self.place is not None:
            return self
        window = Window((place[0], place[1], place[2], place[3]))
        images = {name: window.image(each) for name, each in self.images.items()}
        return Trace((step.within(window) for step in self.steps), images, window.place)

    # ---- the table ----

    def _rows(self) -> list[list[str]]:
        """A row for each source and step, below the names of the columns; many elements as smallest to largest."""
        is_single = self.place is not None
        heading = "rounding" if is_single else "largest rounding"
        rows = [["step", "node", "reads", "slope", "upstream", "value", "stored", heading]]
        rows += [[name, "source", "", "", "", "", range_text(values), ""] for name, values in self.sources.items()]
        for step in self.steps:
            reads = [f"{name} = {range_text(values)}" for name, values in zip(step.reads, step.sources, strict=True)]
            slope, upstream = ("" if each is None else range_text(each) for each in (step.slope, step.upstream))
            value, stored = range_text(step.value), range_text(step.stored)
            rounding = ulps_text(step) if is_single else largest_ulps_text(step)
            read = ", ".join(reads if is_single else step.reads)
            rows.append([step.name, title(step), read, slope, upstream, value, stored, rounding])
        return rows

    def _tables(self) -> list[tuple[str, list[list[str]]]]:
        """Captions and rows: a table for each element where there are few, else one for all."""
        if self.place is not None:
            return [(place_text(self.place), self._rows())]
        if len(self._shapes) == 1 and math.prod(self.shape) <= FEW_PIXELS:
            places = np.ndindex(*self.shape)
            return [table for i, y, x, c in places for table in self.at(y, x, c, i)._tables()]
        sizes = " and ".join(
            f"{width}x{height}x{channels}" + (f" x{n} images" if n > 1 else "")
            for n, height, width, channels in self._shapes
        )
        return [(f"all elements of {sizes}, from the smallest to the largest", self._rows())]

    def __str__(self) -> str:
        return "\n\n".join("\n".join([caption, *aligned(rows, 3)]) for caption, rows in self._tables())

    def __repr__(self) -> str:
        where = "" if self.place is None else f" at {place_text(self.place)}"
        return f"<Trace of {len(self.steps)} steps{where}>"

    def _repr_html_(self) -> str:
        return "".join(html_table(caption, rows) for caption, rows in self._tables())

    # ---- the chain rule ----

    @property
    def gradients(self) -> tuple[str, ...]:
        """Names of the gradients that the steps make, in order."""
        return tuple(step.name for step in self.steps if step.is_backward and step.kind != "ones")

    @checked
    def chain_rule(self, name: str | None = None) -> str:
        """
        The chain rule for one gradient of one element, with the numbers in it.

        Parameters
        ----------
        name : str, optional
            The gradient's name. Default: the last one.

        Returns
        -------
        str
            First the gradient as a sum over all paths, each a product of unrounded slopes; then every gradient on the
            way, as it was stored. Beyond 8 paths, or 8 factors in one, intermediate gradients are not expanded, and
            their stored numbers are used.

        Raises
        ------
        ImageError
            This is the trace of several elements.
        SourceError
            There is no such gradient.

        Examples
        --------
        >>> import numpy as np
        >>> import mpsref as mps
        >>> from mpsref import teach
        >>> x, g = mps.MPSNNImageNode(handle="x"), mps.MPSNNImageNode(handle="dy")
        >>> h = mps.MPSCNNNeuronLinearNode(source=x, a=3)
        >>> y = mps.MPSCNNNeuronSigmoidNode(source=h.result_image)
        >>> h.result_image.handle = "h"
        >>> (last,) = y.training_graph(with_source_gradient=g)
        >>> graph = mps.MPSNNGraph(result_image=last.result_image)
        >>> one = np.ones((1, 1, 1), np.float16)
        >>> print(teach.trace(graph, x=one, dy=one).chain_rule())
        dx = dy * Sigmoid'(h) * Linear'(x)
           = 1 * 0.0451767 * 3
           = 0.13553    stored as float16: 0.135498 (-3.2e-05, 0.26 ULP)
        <BLANKLINE>
        Each gradient is rounded where it is stored:
          dh = dy * Sigmoid'(h)  = 1 * 0.0451767  = 0.0451767  stored as float16: 0.045166 (-1.1e-05, 0.35 ULP)
          dx = dh * Linear'(x)   = 0.045166 * 3   = 0.135498   stored as float16: 0.135498 (exact)
        """
        if self.shape != (1, 1, 1, 1):
            raise ImageError(f"the chain rule is for one element, not {list(self.shape)}: use at(y, x, channel)")
        gradients = self.gradients
        if name is None and gradients:
            name = gradients[-1]
        if name not in gradients:
            raise SourceError(f"{name!r} is not a gradient that a step makes: these are {_listed(gradients)}")
        steps = self._contributors(name)
        terms, is_cut = self._terms(name)
        lines = equation(self._by_name[name], terms)
        if is_cut:
            lines += ["", "There are too many paths or factors to write out: intermediate gradients are named."]
        if len(steps) > 1:
            lines += ["", "Each gradient is rounded where it is stored:", *stored_lines(steps)]
        return "\n".join(lines)

    def _contributors(self, name: str) -> list[Step]:
        """The steps that make a gradient and those on which it depends."""
        gradients, contributors = set(self.gradients), {name}
        for step in reversed(self.steps):
            if step.name in contributors:
                contributors.update(gradients.intersection(read for read, _ in gradients_read(step)))
        return [step for step in self.steps if step.name in contributors]

    def _terms(self, name: str) -> tuple[list[Term], bool]:
        """The terms of a gradient, one for each path, each with its factors; and whether some were cut short."""
        order = {gradient: i for i, gradient in enumerate(self.gradients)}
        terms: list[tuple[str | None, Term]] = [(name, [])]
        unexpanded: set[str] = set()
        is_cut = False
        # Always the gradient that was made last: no other depends on it any more.
        while leaves := {leaf for leaf, _ in terms if leaf in order} - unexpanded:
            leaf = max(leaves, key=lambda gradient: order[str(gradient)])
            expanded = [
                part for term in terms for part in (self._expanded(leaf, term[1]) if term[0] == leaf else [term])
            ]
            is_long = len(expanded) > MOST_PATHS or any(len(factors) >= MOST_FACTORS for _, factors in expanded)
            if leaf != name and (is_long or self._by_name[leaf].is_whole):
                is_cut = is_cut or not self._by_name[leaf].is_whole
                unexpanded.add(leaf)
            else:
                terms = expanded
        return [[*([(leaf, self._value_of(leaf))] if leaf else []), *factors] for leaf, factors in terms], is_cut

    def _expanded(self, name: str, factors: Term) -> list[tuple[str | None, Term]]:
        """The terms that a gradient, times some factors, is the sum of."""
        step = self._by_name[name]
        if step.is_whole:
            return [(None, [(step.expression(step.reads), single(step.value))])]
        terms: list[tuple[str | None, Term]] = [(read, [*own, *factors]) for read, own in gradients_read(step)]
        bias = bias_of(step)
        return [*terms, (None, [(number_text(bias), bias), *factors])] if bias else terms

    def _value_of(self, name: str) -> float:
        return single(self._by_name[name].stored if name in self._by_name else self.sources[name])


def _listed(names: Collection[str]) -> str:
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return (printable(", ".join(map(repr, islice(names, MOST_NAMES)))) or "none") + more


def trace(
    graph: MPSNNGraph | GraphFile | ImageLike | Sequence[ImageLike], /, **sources: npt.ArrayLike | MPSImage
) -> Trace:
    """
    Evaluate a graph and keep every intermediate number.

    Parameters
    ----------
    graph : MPSNNGraph, GraphFile, node, image node or list of nodes
        What to evaluate; a graph in its mode.
    **sources : float, or array_like of shape (C,), (H, W, C) or (N, H, W, C), or MPSImage
        As for `MPSNNGraph.run`.

    Returns
    -------
    Trace
        The steps; printed, a table.

    Raises
    ------
    ParameterError
        `graph` is none of these.
    SourceError, ImageError
        As for `MPSNNGraph.run`.

    Notes
    -----
    A step is named by the handle of the image that it makes, else by the node's label; a result without a name is
    ``result0``, ..., as in `MPSNNGraph.run`. Where the name is taken or there is none, the gradient of ``x`` is ``dx``,
    and the gradients that are summed to it are ``dx.1`` and ``dx.2``.

    Examples
    --------
    >>> import mpsref as mps
    >>> from mpsref import teach
    >>> n = mps.MPSCNNNeuronAbsoluteNode(source=mps.MPSNNImageNode(handle="x"))
    >>> n.result_image.handle = "y"
    >>> t = teach.trace(mps.MPSNNGraph(result_image=n.result_image), x=-3)
    >>> t["y"].rule, t["y"].stored.item(), t["y"].slope.item()
    ('y = Absolute(x)', 3.0, -1.0)
    """
    graph = graph_or_error(graph)
    images, plan = graph.images_by_handle(sources), graph.plan
    names = plan.names
    gradients = differentiated(step.node for step in plan.steps)
    window = Window(None)
    steps: list[Step] = []

    def watch(step: PlanStep, inputs: Sequence[MPSImage], result: MPSImage) -> None:
        is_backward = step.node.result_image in gradients or step.operation.is_initial_gradient
        reads = tuple(names[i] for i in step.sources)
        steps.append(Step(names[step.result], reads, step, (inputs, result), window, is_backward=is_backward))

    plan.walk(images, graph.manner(), watch=watch)
    tell_apart(steps)
    return Trace(steps, dict(zip(names, images, strict=False)))
