"""
A graph evaluated with every number in sight: what each step reads, its slope, the incoming gradient, what it stores.

The stored numbers are those of the graph itself, bit for bit. Beside them stands each step's result before storage: the
same operation with a float64 result, on the same stored sources.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import islice
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from mpsref.arguments import checked
from mpsref.arrays import Wide
from mpsref.display import aligned, html_table, printable
from mpsref.errors import ImageError, SourceError, shown
from mpsref.executor import MPSNNGraph, graph_or_error
from mpsref.graph.drawing import Structure, svg
from mpsref.graph.file import GraphFile
from mpsref.graph.names import differentiated
from mpsref.graph.nodes import ImageLike, MPSNNImageNode
from mpsref.image import MPSImage
from mpsref.neuron.stepwise import evaluation
from mpsref.operations import Convolution, Role
from mpsref.operations.base import number_text
from mpsref.plan import Step as PlanStep
from mpsref.teach.chain import ChainRule, Term, bias_of, equation, gradients_read, product_sum, stored_lines
from mpsref.teach.lost import Lost, lost_at, lost_by_name
from mpsref.teach.parameters import parameters_of, slopes_by_parameter, total
from mpsref.teach.places import followed, place_or_error
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

MOST_DRAWN = 200
"""Steps of a trace that a notebook draws."""

MOST_NAMES = 20
"""Names that an error lists."""


class Trace:
    """
    All steps of an evaluated graph.

    Attributes
    ----------
    steps : tuple of Step
        In an order of evaluation: first all that do not depend on a gradient.
    sources : dict of str to ndarray
        The source images by name, decoded.
    place : tuple of four int or None
        Image, y, x and channel, if this is the trace of one element.
    places : dict of str to tuple of four int
        Where that element is in each image.
    left_out : tuple of str
        The images in which it is nowhere.
    images : dict of str to MPSImage
        The source images by name.
    """

    @checked
    def __init__(
        self,
        steps: Iterable[Step],
        sources: Mapping[str, MPSImage],
        place: tuple[int, int, int, int] | None = None,
        places: Mapping[str, tuple[int, int, int, int]] | None = None,
        left_out: Iterable[str] = (),
    ) -> None:
        self.steps = tuple(steps)
        self.place = place
        self.places = dict(places or {})
        self.left_out = tuple(left_out)
        self.images = dict(sources)
        self._by_name = {step.name: step for step in self.steps}
        self._whole: Trace | None = None

    @cached_property
    def sources(self) -> dict[str, Wide]:
        """The source images by name, decoded."""
        return {name: Window(self.places.get(name, self.place)).array(image) for name, image in self.images.items()}

    def __getitem__(self, name: str) -> Step:
        try:
            return self._by_name[name]
        except Exception:  # noqa: BLE001  somebody's object may raise anything
            raise SourceError(f"no step makes {shown(name)}: the steps make {_listed(self._by_name)}") from None

    def __getattr__(self, name: str) -> float | Wide:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return self.numbers(name)
        except SourceError as error:
            raise AttributeError(str(error)) from None

    @checked
    def numbers(self, name: str) -> float | Wide:
        """
        The stored numbers of an image by name; a float for one number. Also an attribute: ``t.dx``.

        Raises
        ------
        SourceError
            No step makes it, and it is no source.
        """
        values = self._stored(name)
        return float(values.item()) if values.size == 1 else values

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

    @checked
    def where(self, name: str) -> str:
        """The place of the element in an image, in brackets, if it is another than the trace's."""
        place = self.places.get(name, self.place)
        return "" if place is None or place == self.place else f" (y {place[1]}, x {place[2]}, channel {place[3]})"

    @property
    def caption(self) -> str:
        """Which element it is of which image, and the images that are left out."""
        if self.place is None:
            return ""
        of = f" of {next(iter(self.places))}" if any(map(self.where, self.places)) else ""
        return place_text(self.place) + of + (f"; without {', '.join(self.left_out)}" if self.left_out else "")

    @checked
    def at(self, y: int, x: int, channel: int, image: int = 0, *, of: str | None = None) -> Trace:
        """
        The trace of one element.

        In other images it is followed: pointwise steps have it at the same place, a window at the element that it
        reads or makes and that counts most. Images in which it is nowhere are left out.

        Parameters
        ----------
        y, x, channel, image : int
            The element.
        of : str, optional
            The image whose element it is. Default: the first source that is no incoming gradient.

        Raises
        ------
        ImageError
            There is no such element, or no step has to do with it.
        SourceError
            There is no such image.

        Examples
        --------
        >>> import numpy as np
        >>> import mpsref as mps
        >>> from mpsref import teach
        >>> pool = mps.MPSCNNPoolingMaxNode(source=mps.MPSNNImageNode(handle="x"), filter_size=2)
        >>> pool.result_image.handle = "y"
        >>> t = teach.trace(mps.MPSNNGraph(result_image=pool.result_image), x=np.arange(16.0).reshape(4, 4, 1))
        >>> t.at(1, 1, 0, of="y").places
        {'y': (0, 1, 1, 0), 'x': (0, 3, 3, 0)}
        """
        shapes = {name: each.shape for name, each in self.images.items()} | {s.name: s.shape for s in self.steps}
        if of is None:
            reads = [read for step in self.steps for read in zip(step.reads, step.operation.roles, strict=True)]
            incoming = {name for name, role in reads if role is Role.GRADIENT}
            of = next((name for name in shapes if name not in incoming), next(iter(shapes), ""))
        if of not in shapes:
            raise SourceError(f"no image is called {shown(of)}: there are {_listed(shapes)}")
        place = place_or_error((image, y, x, channel), (1, 1, 1, 1) if self.place else shapes[of], of)
        if self.place is not None:
            return self
        found = followed(self.steps, shapes, self.gradient_names, of, place)
        images = {name: Window(found[name]).image(each) for name, each in self.images.items() if name in found}
        known, steps = set(images), []
        for step in self.steps:
            read = {found.get(name) for name in step.reads}
            if (
                known.issuperset(step.reads)
                and step.name in found
                and (not step.operation.is_pointwise or read <= {found[step.name]})
            ):
                known.add(step.name)
                steps.append(step.within(Window(found[step.name])))
        if of not in known or not steps:
            raise ImageError(f"no step reads or makes {place_text(place)} of {printable(of)}")
        places = {name: at for name, at in found.items() if name in known}
        one = Trace(steps, images, found[of], places, (name for name in shapes if name not in known))
        one._whole = None if all(step.operation.is_pointwise for step in steps) else self
        return one

    @cached_property
    def parameter_gradients(self) -> dict[str, float | Wide]:
        """
        The gradients with respect to the nodes' parameters, by the names of `mpsref.teach.parameters`, in float64.

        Each is the sum, over all elements, of the incoming gradient of the node's result, as it is stored, times how
        much the result changes with the parameter; that of pReLU's slopes is an array, with a sum for each channel.
        Clamps of arithmetic nodes are ignored, as their gradient nodes do. Those of a layer's weights and biases are
        those of its gradient state, rounded to float32, of all elements; the trace of one element has none.

        Examples
        --------
        >>> from mpsref import teach
        >>> y = teach.linear(teach.input("x"), a=3, b=1)
        >>> teach.backprop(y, x=[1, 2, 4]).parameter_gradients
        {'y.a': 7.0, 'y.b': 3.0}
        """
        found: dict[str, float | Wide] = {}
        for step in self.steps:
            if step.is_backward or step.name not in self.gradient_names:
                continue
            upstream = self._stored(self.gradient_names[step.name])
            for name, slope in slopes_by_parameter(step).items():
                with np.errstate(all="ignore"):
                    parts = upstream * slope
                by_channel = np.array([total(parts[..., i]) for i in range(parts.shape[-1])])
                found[f"{step.name}.{name}"] = by_channel if name == "data" else total(parts)
        layers = {step.plan_step.node: step for step in self.steps if isinstance(step.operation, Convolution)}
        for step in self.steps if self.place is None else ():
            forward = step.plan_step.node.forward_node
            if forward is None or forward not in layers:
                continue
            layer = layers[forward]
            states = step.operation.states(step.images, evaluation("ideal"))
            for own in parameters_of(layer.operation):
                gradient = states[f"gradient_for_{own}"].astype(np.float64)
                found[f"{layer.name}.{own}"] = found.get(f"{layer.name}.{own}", 0.0) + gradient
        return found

    # ---- the drawing ----

    def structure(self) -> Structure:
        """
        The forward images, each with its number and its gradient, for drawings; of several elements the extremes.

        Where there are only gradients, those.
        """
        gradients = self.gradient_names
        hidden = {*gradients.values(), *(step.name for step in self.steps if step.is_backward)}
        shown = [step for step in self.steps if step.name not in hidden] or list(self.steps)
        names: dict[MPSNNImageNode, str] = {}
        for step in shown:
            names |= zip(step.plan_step.node.sources, step.reads, strict=True)
        sources = {image: name for image, name in names.items() if name in self.sources}
        names = sources | {step.plan_step.node.result_image: step.name for step in shown}
        read = {image for step in shown for image in step.plan_step.node.sources}
        shape = Structure.of(names, [image for image in names if image not in read])
        numbers = {name: _short_text(self._stored(name)) for name in names.values()}
        for name in numbers:
            if name in gradients:
                numbers[name] += f" | {_short_text(self._stored(gradients[name]))}"
        return replace(shape, numbers=numbers)

    def _stored(self, name: str) -> Wide:
        return self.sources[name] if name in self.sources else self[name].stored

    # ---- the table ----

    def _rows(self, rounding: bool | None) -> list[list[str]]:
        """A row for each source and step, below the names of the columns; many elements as smallest to largest."""
        is_single = self.place is not None
        if rounding is None:
            rounding = self._rounding_matters(self.steps)
        heading = "rounding" if is_single else "largest rounding"
        rows = [["step", "node", "reads", "slope", "upstream", "value", *(["stored", heading] if rounding else [])]]
        for name, values in self.sources.items():
            number = ["", range_text(values), ""] if rounding else [range_text(values)]
            rows.append([name + self.where(name), "source", "", "", "", *number])
        for step in self.steps:
            reads = [f"{name} = {range_text(values)}" for name, values in zip(step.reads, step.sources, strict=True)]
            slope, upstream = ("" if each is None else range_text(each) for each in (step.slope, step.upstream))
            read = ", ".join(reads if is_single else step.reads)
            row = [step.name + self.where(step.name), title(step), read, slope, upstream, range_text(step.value)]
            if rounding:
                off = (ulps_text if is_single else largest_ulps_text)(step, self._lost_text(step))
                row += [range_text(step.stored), off]
            rows.append(row)
        return rows

    @cached_property
    def lost(self) -> dict[str, Lost]:
        """What storing lost, by step: numbers that became 0 or infinite, and what became so because of them."""
        if self._whole is not None:
            return lost_at(self._whole.lost, self.steps, self.places)
        return lost_by_name(self.steps)

    def _lost_text(self, step: Step) -> str:
        return self.lost[step.name].text if step.name in self.lost else ""

    def _rounding_matters(self, steps: Iterable[Step]) -> bool:
        """Whether something was lost, or a stored number differs in the digits that are printed."""
        return any(step.name in self.lost or step.rounding_is_visible for step in steps)

    @checked
    def table(self, *, rounding: bool | None = None) -> str:
        """
        The table that is printed.

        Parameters
        ----------
        rounding : bool, optional
            Whether it has the stored numbers and how far storing moved each. Default: if that can be seen in the
            digits that are printed, or something was lost.

        Examples
        --------
        >>> from mpsref import teach
        >>> print(teach.backprop(teach.tanh(teach.input("x")), x=0.5).table(rounding=True))
        image 0, y 0, x 0, channel 0
        step  node              reads               slope  upstream     value    stored   rounding
        x     source                                                                0.5
        dy    source                                                                  1
        y     TanH              x = 0.5          0.786448            0.462117  0.462117  +0.27 ULP
        dx    gradient of TanH  dy = 1, x = 0.5  0.786448         1  0.786448  0.786448  -0.49 ULP
        """
        return "\n\n".join("\n".join([caption, *aligned(rows, 3)]) for caption, rows in self._tables(rounding))

    def _tables(self, rounding: bool | None) -> list[tuple[str, list[list[str]]]]:
        """Captions and rows: a table for each element where there are few, else one for all."""
        if self.place is not None:
            return [(self.caption, self._rows(rounding))]
        if len(self._shapes) == 1 and math.prod(self.shape) <= FEW_PIXELS:
            places = np.ndindex(*self.shape)
            return [table for i, y, x, c in places for table in self.at(y, x, c, i)._tables(rounding)]
        sizes = " and ".join(
            f"{width}x{height}x{channels}" + (f" x{n} images" if n > 1 else "")
            for n, height, width, channels in self._shapes
        )
        return [(f"all elements of {sizes}, from the smallest to the largest", self._rows(rounding))]

    def __str__(self) -> str:
        return self.table()

    def __repr__(self) -> str:
        where = "" if self.place is None else f" at {place_text(self.place)}"
        return f"<Trace of {len(self.steps)} steps{where}>"

    def _repr_html_(self) -> str:
        drawing = svg(self) if len(self.steps) <= MOST_DRAWN else ""
        return drawing + "".join(html_table(caption, rows) for caption, rows in self._tables(None))

    # ---- the chain rule ----

    @cached_property
    def gradients(self) -> Gradients:
        """Names of the gradients that the steps make, in order; ``gradients["x"]`` has the numbers of that of ``x``."""
        return Gradients.of(self)

    @cached_property
    def gradient_names(self) -> dict[str, str]:
        """The name of the gradient of each image; of one with several readers, of their sum."""
        nodes = [step.plan_step.node for step in self.steps]
        names = {image: name for step in self.steps for image, name in
                 zip(step.plan_step.node.sources, step.reads, strict=True)}  # fmt: skip
        names |= {node.result_image: step.name for node, step in zip(nodes, self.steps, strict=True)}
        found: dict[str, str] = {}
        for node, step in zip(nodes, self.steps, strict=True):
            if node.forward_node is not None and (result := names.get(node.forward_node.result_image)) is not None:
                found.setdefault(result, step.reads[step.operation.roles.index(Role.GRADIENT)])
        return found | {names[image]: names[gradient] for gradient, image in differentiated(nodes).items()}

    @checked
    def chain_rule(self, name: str | None = None, *, rounding: bool | None = None) -> ChainRule:
        """
        The chain rule for one gradient of one element, with the numbers in it.

        Parameters
        ----------
        name : str, optional
            The gradient's name. Default: the last one.
        rounding : bool, optional
            Whether it says how each gradient was stored. Default: if that can be seen in the digits that are printed,
            or something was lost.

        Returns
        -------
        str
            First the gradient as a sum over all paths, each a product of unrounded slopes; then, with `rounding`, every
            gradient on the way, as it was stored. A notebook shows an equation. Beyond 8 paths, or 8 factors in one,
            intermediate gradients are not expanded, and their stored numbers are used.

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
        name = gradients[-1] if name is None and gradients else name
        if name is None or name not in gradients:
            raise SourceError(f"{name!r} is not a gradient that a step makes: these are {_listed(gradients)}")
        steps = self._contributors(name)
        terms, is_cut = self._terms(name)
        last = self._by_name[name]
        if rounding is None:
            differs = number_text(product_sum(terms)) != number_text(single(last.stored))
            rounding = differs or self._rounding_matters(steps)
        lines = equation(last, terms, self._lost_text(last) if rounding else None)
        if is_cut:
            lines += ["", "There are too many paths or factors to write out: intermediate gradients are named."]
        if rounding and len(steps) > 1:
            lines += ["", "Each gradient is rounded where it is stored:", *stored_lines(steps, self.lost)]
        return ChainRule("\n".join(lines))

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


class Gradients(tuple[str, ...]):  # noqa: SLOT001  a tuple has no room for slots
    """The names of the gradients of a trace; with the name of an image as index, the numbers of its gradient."""

    _trace: Trace

    @classmethod
    def of(cls, traced: Trace) -> Gradients:
        """The gradients that the steps of a trace make."""
        gradients = cls(step.name for step in traced.steps if step.is_backward and step.kind != "ones")
        gradients._trace = traced
        return gradients

    def __getitem__(self, key: Any) -> Any:
        if not isinstance(key, str):
            return super().__getitem__(key)
        names = self._trace.gradient_names
        if key not in names:
            raise SourceError(f"no step makes the gradient of {key!r}: there are those of {_listed(names)}")
        return self._trace.numbers(names[key])


def _short_text(numbers: Wide) -> str:
    """A number in four digits; of several the smallest and the largest, if they differ."""
    known = numbers[~np.isnan(numbers)]
    ends = dict.fromkeys(f"{value:.4g}" for value in (known.min(), known.max())) if known.size else ["nan"]
    return " to ".join(ends)


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
    backward: set[str] = set()
    for each in steps:
        if each.is_backward or not backward.isdisjoint(each.reads):
            backward.add(each.name)
    steps.sort(key=lambda step: step.name in backward)
    return Trace(steps, dict(zip(names, images, strict=False)))
