"""Expressions: graphs of Apple's nodes written as formulas, and their gradients in one call."""

from __future__ import annotations

import keyword
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from mpsref.arguments import checked
from mpsref.arrays import Wide
from mpsref.enums import MPSCNNNeuronType, MPSImageFeatureChannelFormat
from mpsref.errors import ImageError, ParameterError, SourceError, shown
from mpsref.executor import MPSNNGraph, source_image
from mpsref.graph.arithmetic import (
    MPSNNAdditionNode,
    MPSNNBinaryArithmeticNode,
    MPSNNMultiplicationNode,
    MPSNNSubtractionNode,
)
from mpsref.graph.drawing import svg
from mpsref.graph.names import image_tags
from mpsref.graph.neurons import MPSCNNNeuronNode
from mpsref.graph.nodes import ImageLike, MPSNNImageNode, node_or_error
from mpsref.graph.schedule import inputs, schedule
from mpsref.image import MPSImage
from mpsref.neuron.descriptor import MPSNNNeuronDescriptor
from mpsref.neuron.table import NEURONS
from mpsref.storage import FormatLike, array_or_error
from mpsref.teach.explain import Page, explanation
from mpsref.teach.trace import Trace, trace

__all__ = ["SPELLINGS", "Backprop", "Expression", "backprop", "input"]

SPELLINGS = {neuron_type.name.lower(): neuron_type for neuron_type in NEURONS}
"""Each neuron by the name of its function in `mpsref.teach`: Apple's name in lower case, ``tanh`` for ``tanH``."""

LONGEST = 60
"""Characters of an expression as text; beyond it the parts are only named."""

FEW_STEPS = 30
"""Steps of a table that is shown at a prompt."""

MOST_AXES = 4

NO_QUOTIENT = "Apple's graph has no node of a quotient here: write x * (1 / 3), or x * teach.power(w, c=-1) for x / w"

RESERVED = ("format", "rate", "steps")
"""Arguments of `backprop` and of `mpsref.teach.descend` that are no inputs."""

Shape: TypeAlias = tuple[int, ...]

ATOM = 3
"""The precedence of a formula that never needs parentheses."""


class Expression:
    """
    An input, or what nodes compute from inputs. Made by `input`, the neurons and ``+``, ``-``, ``*``, ``**``.

    Each operation is one of Apple's nodes: ``+``, ``-`` and ``*`` of two expressions are arithmetic nodes; with a
    number they are a linear neuron, ``a x + b``. ``x ** 2`` is a power neuron, ``2 ** x`` an exponential one. There is
    no node of a quotient.

    Parameters
    ----------
    node : MPSNNFilterNode or MPSNNImageNode
        The node that computes it, or the image of an input.
    text : str
        The formula.
    precedence : int
        0 if the formula is a sum or negated, 1 for a product, 2 for a power, 3 for anything else.

    Attributes
    ----------
    node : MPSNNFilterNode or MPSNNImageNode
        As given.

    Examples
    --------
    >>> from mpsref import teach
    >>> x = teach.input("x")
    >>> y = 2 * teach.tanh(x, b=0.75) - x
    >>> y, y.node
    (2 * tanh(x, b=0.75) - x, <MPSNNSubtractionNode>)
    """

    # NumPy's arrays must not take it for a number.
    __array_ufunc__ = None

    @checked
    def __init__(self, node: ImageLike, text: str, precedence: int = ATOM) -> None:
        self.node = node
        is_short = len(text) <= LONGEST
        self._text = text if is_short else f"<{type(node).__name__}>"
        self.precedence = precedence if is_short else ATOM

    @property
    def image(self) -> MPSNNImageNode:
        """The image of its values."""
        return node_or_error("node", self.node, MPSNNImageNode)

    @checked
    def named(self, name: str) -> Expression:
        """
        Give it a name in tables and drawings; without one, results are called ``y`` and what they read ``h1``, ``h2``.

        Parameters
        ----------
        name : str
            The handle of its image.

        Returns
        -------
        Expression
            Itself.
        """
        self.image.handle = name
        return self

    def graph(self, format: FormatLike = MPSImageFeatureChannelFormat.float32) -> MPSNNGraph:
        """
        The graph that computes it.

        Parameters
        ----------
        format : MPSImageFeatureChannelFormat, str or dtype
            How values are stored.

        Examples
        --------
        >>> from mpsref import teach
        >>> y = teach.relu(teach.input("x"), a=0.5)
        >>> y.graph().run(x=-3)["y"].to_array().item()
        -1.5
        """
        with _named(self.image):
            return MPSNNGraph(result_image=self.image, format=format)

    # ---- arithmetic ----

    def __add__(self, other: Expression | float) -> Expression:
        return _combined(self, "+", other, MPSNNAdditionNode, 1, other)

    def __radd__(self, other: float) -> Expression:
        # With an integer 0 `sum` begins.
        return self if type(other) is int and other == 0 else _combined(other, "+", self, MPSNNAdditionNode, 1, other)

    def __sub__(self, other: Expression | float) -> Expression:
        return _combined(self, "-", other, MPSNNSubtractionNode, 1, other, -1)

    def __rsub__(self, other: float) -> Expression:
        return _combined(other, "-", self, MPSNNSubtractionNode, -1, other)

    def __mul__(self, other: Expression | float) -> Expression:
        return _combined(self, "*", other, MPSNNMultiplicationNode, other, 0)

    def __rmul__(self, other: float) -> Expression:
        return _combined(other, "*", self, MPSNNMultiplicationNode, other, 0)

    def __pow__(self, other: float) -> Expression:
        return _powered(self, self, other, MPSCNNNeuronType.power)

    def __rpow__(self, other: float) -> Expression:
        return _powered(self, other, self, MPSCNNNeuronType.exponential)

    def __truediv__(self, other: Expression | float) -> Expression:
        raise ParameterError(NO_QUOTIENT)

    def __rtruediv__(self, other: float) -> Expression:
        raise ParameterError(NO_QUOTIENT)

    def __neg__(self) -> Expression:
        return Expression(_linear(self, -1, 0), f"-{_text(self, 1)}", 0)

    def __repr__(self) -> str:
        return self._text

    def _repr_svg_(self) -> str:
        return svg(self.graph())


def _combined(
    left: Any, symbol: str, right: Any, node: type[MPSNNBinaryArithmeticNode], a: Any, b: Any, sign: float = 1
) -> Expression:
    """Two expressions combined by a node; or of an expression and a number ``a x + sign b``, a linear neuron."""
    product = symbol == "*"
    if not all(map(_is_part, (left, right))):
        return NotImplemented  # type: ignore[no-any-return]
    text = f"{_text(left, product)} {symbol} {_text(right, 1 if symbol == '-' else product)}"
    if isinstance(left, Expression) and isinstance(right, Expression):
        return Expression(node(left_source=left.image, right_source=right.image), text, int(product))
    x = left if isinstance(left, Expression) else right
    return Expression(_linear(x, a, sign * b), text, int(product))


def _powered(x: Expression, left: Any, right: Any, neuron_type: MPSCNNNeuronType) -> Expression:
    """A power whose base or exponent is a number."""
    if not all(map(_is_part, (left, right))):
        return NotImplemented  # type: ignore[no-any-return]
    number = right if left is x else left
    if isinstance(number, Expression):
        raise ParameterError("the base and the exponent are expressions: Apple's neurons have a number as one of them")
    if right is x and not number > 0:
        raise ParameterError(f"the base is {shown(number)}: give a number above 0")
    node = MPSCNNNeuronNode(source=x.image, descriptor=MPSNNNeuronDescriptor(neuron_type, c=number))
    return Expression(node, f"{_text(left, ATOM)} ** {_text(right, 2)}", 2)


def _is_part(part: Any) -> bool:
    """Whether it is an expression or a number."""
    if isinstance(part, np.ndarray):
        raise ParameterError("an array cannot be part of an expression: use teach.input(...), and give it the array")
    return not isinstance(part, bool) and isinstance(part, Expression | float | int | np.floating | np.integer)


def _linear(x: Expression, a: float, b: float) -> MPSCNNNeuronNode:
    descriptor = MPSNNNeuronDescriptor(MPSCNNNeuronType.linear, a=a, b=b)
    node: MPSCNNNeuronNode = MPSCNNNeuronNode(source=x.image, descriptor=descriptor)
    return node


def _text(part: Any, least: int) -> str:
    """A part of a formula, in parentheses if its precedence is below `least`."""
    precedence = part.precedence if isinstance(part, Expression) else ATOM * (part >= 0)
    return f"({part})" if precedence < least else str(part)


# ---- inputs and neurons ----


@checked
def input(name: str) -> Expression:  # noqa: A001  what it is called in every class
    """
    An input of an expression, whose numbers `backprop` is given by name.

    Parameters
    ----------
    name : str
        A valid name for an argument, such as ``x``.

    Raises
    ------
    ParameterError
        It is none.

    Examples
    --------
    >>> from mpsref import teach
    >>> teach.input("x")
    x
    """
    if not name.isidentifier() or keyword.iskeyword(name) or name in RESERVED:
        raise ParameterError(f"name is {shown(name)}: give one that can name an argument, such as 'x'")
    return Expression(MPSNNImageNode(handle=name), name)


def _neuron(spelling: str, neuron_type: MPSCNNNeuronType) -> Callable[..., Expression]:
    row = NEURONS[neuron_type]
    arguments = {name: 0.25 for name in ("data",) if row.per_channel} | dict(row.parameters)

    def function(x: Expression, **parameters: Any) -> Expression:
        if not isinstance(x, Expression):
            raise ParameterError(f"x is {shown(x)}: give an expression, such as teach.input('x')")
        if unknown := [name for name in parameters if name not in arguments]:
            raise ParameterError(f"{spelling} takes no {unknown[0]!r}: it takes {', '.join(arguments) or 'only x'}")
        given = dict(parameters)
        if isinstance(given.get("data"), float | int | np.number):
            given["data"] = [given["data"]]
        descriptor = MPSNNNeuronDescriptor(neuron_type, **given)
        facts = "".join(f", {name}={value}" for name, value in parameters.items())
        return Expression(MPSCNNNeuronNode(source=x.image, descriptor=descriptor), f"{spelling}({x}{facts})")

    function.__name__ = function.__qualname__ = spelling
    call = f"teach.{spelling}(teach.input('x'){', data=0.25' if row.per_channel else ''})"
    listed = "\n".join(
        f"{name} : float or list of float\n    One slope, or one for each channel." if name == "data"
        else f"{name} : float, optional\n    Default {default:g}."
        for name, default in arguments.items()
    )  # fmt: skip
    function.__doc__ = (
        f"The neuron {neuron_type.name} of Apple: ``{row.formula}``.\n\nParameters\n----------\nx : Expression\n"
        f"    What it reads.\n{listed}\n\nReturns\n-------\nExpression\n\nExamples\n--------\n"
        f">>> from mpsref import teach\n>>> {call}\n{spelling}(x{', data=0.25' if row.per_channel else ''})\n"
    )
    return function


globals().update({spelling: _neuron(spelling, neuron_type) for spelling, neuron_type in SPELLINGS.items()})


# ---- gradients ----


@contextmanager
def _named(result: MPSNNImageNode) -> Iterator[None]:
    """Name the images that have none, for as long as a graph is made of them."""
    images = [node.result_image for node in schedule([result])]
    taken = {tag for image in [*inputs([result]), *images] for tag in image_tags(image)}
    unnamed = [image for image in images if not image_tags(image)]
    free = (name for i in range(1, len(taken) + len(images) + 1) if (name := f"h{i}") not in taken)
    try:
        for image in unnamed:
            image.handle = "y" if image is result and "y" not in taken else next(free)
        yield
    finally:
        for image in unnamed:
            image._handle = None


def training_graph(y: Expression | ImageLike, format: FormatLike) -> MPSNNGraph:
    """The graph of a result and of its gradients with respect to every input."""
    result = y.image if isinstance(y, Expression) else node_or_error("y", y, MPSNNImageNode)
    node = result.producer
    if node is None:
        raise ParameterError("y is an input, whose gradient is 1: give an expression of inputs")
    counts = Counter(tag for image in inputs([result]) for tag in image_tags(image)[:1])
    for twice, count in counts.items():
        if count > 1:
            raise ParameterError(f"{count} inputs are called {twice!r}: make an input once, and use it again")
    with _named(result):
        name = f"d{image_tags(result)[0]}"
        if name in counts:
            raise ParameterError(f"an input is called {name!r}, as the gradient of the result is: call it otherwise")
        last = node.training_graph(with_source_gradient=MPSNNImageNode(handle=name)) or []
        return MPSNNGraph(result_images=[result, *last], format=format)


class Backprop(Trace):
    """
    A trace of an expression and of all its gradients; its numbers are attributes, ``t.y`` and ``t.dx``.

    Numbers have the shape in which their input was given: an input that was one number beside arrays has as its
    gradient the sum over their elements. In a graph with layers they have the shape of their image, (N, H, W, C), and
    nothing is broadcast.

    Attributes
    ----------
    graph : MPSNNGraph
        What was evaluated.
    """

    @checked
    def __init__(
        self,
        traced: Trace,
        graph: MPSNNGraph,
        shapes: Mapping[str, Shape] = MappingProxyType({}),
        shape: Shape | None = None,
    ) -> None:
        super().__init__(traced.steps, traced.images)
        self.graph = graph
        self._input_shapes, self._full = dict(shapes), shape

    @checked
    def numbers(self, name: str) -> float | Wide:
        """The stored numbers of an image by name; a float for one number."""
        image = next((image for image, gradient in self.gradient_names.items() if gradient == name), name)
        values = super().numbers(name)
        if self._full is None:
            return values
        array = np.asarray(values).reshape(self._full)
        target = self._input_shapes.get(image, self._full)
        if target != self._full:
            # The transpose of broadcasting.
            padded = (1,) * (len(self._full) - len(target)) + target
            axes = tuple(i for i, size in enumerate(padded) if size == 1)
            reduce = np.sum if name != image else np.max
            array = reduce(array, axis=axes, keepdims=True).reshape(target)
        return float(array) if array.ndim == 0 else array

    def __repr__(self) -> str:
        # At a prompt, the table, if it fits on a screen.
        return str(self) if len(self.steps) <= FEW_STEPS else super().__repr__()

    @checked
    def explain(self, *, at: Sequence[int] = (0, 0, 0), title: str = "expression") -> Page:
        """
        The page of `mpsref.teach.explain` for these numbers, which a notebook shows.

        Parameters
        ----------
        at, title
            As for `mpsref.teach.explain`.

        Examples
        --------
        >>> from mpsref import teach
        >>> page = teach.backprop(teach.sigmoid(teach.input("x")), x=0.5).explain()
        >>> page[:15]
        '<!DOCTYPE html>'
        """
        return explanation(self.graph, self.images, at, title)


def backprop(
    y: Expression | ImageLike,
    /,
    *,
    format: FormatLike = MPSImageFeatureChannelFormat.float32,
    **numbers: npt.ArrayLike | MPSImage,
) -> Backprop:
    """
    Evaluate an expression and its gradients with respect to everything in it.

    Parameters
    ----------
    y : Expression, or node or image node of a graph
        What to differentiate.
    format : MPSImageFeatureChannelFormat, str or dtype
        How every number is stored.
    **numbers : float or array_like of at most four axes, or MPSImage
        Each input by name; they are broadcast against each other, and the last axis is that of feature channels. The
        incoming gradient, ``dy``, is 1 unless it is given.

    Returns
    -------
    Backprop
        The trace: printed, a table; in a notebook also a drawing with each number and its gradient.

    Raises
    ------
    ParameterError
        `y` is an input, or no expression.
    SourceError
        An input is missing, or there is none of that name.
    ImageError
        The shapes cannot be broadcast, or an array is no array of numbers.

    Examples
    --------
    >>> from mpsref import teach
    >>> x = teach.input("x")
    >>> y = teach.sigmoid(teach.tanh(x, b=0.75) + x)
    >>> t = teach.backprop(y, x=0.5)
    >>> round(t.y, 4), round(t.dx, 4), round(t.gradients["x"], 4)
    (0.7023, 0.3457, 0.3457)
    >>> print(t.chain_rule(rounding=False))
    dx = dy * Sigmoid'(h2) + dy * Sigmoid'(h2) * TanH'(x)
       = 1 * 0.209068 + 1 * 0.209068 * 0.653685
       = 0.209068 + 0.136664
       = 0.345732
    """
    graph = training_graph(y, format)
    return evaluated(graph, numbers)


def evaluated(graph: MPSNNGraph, numbers: Mapping[str, npt.ArrayLike | MPSImage]) -> Backprop:
    """The trace of a training graph; its incoming gradient is 1 by default."""
    incoming = graph.plan.result_handles[0]
    given: dict[str, Any] = {f"d{incoming}": 1.0} | dict(numbers)
    named = {str(source.label): source for source in graph.plan.inputs}
    for name in [*named, *given]:
        if (name in named) != (name in given):
            listed = ", ".join(map(repr, named))
            raise SourceError(f"{'missing' if name in named else 'unknown'} {name!r}: the inputs are {listed}")
    arrays = {name: _array(value, name) for name, value in given.items()}
    if any(not step.operation.is_pointwise for step in graph.plan.steps):
        images = {
            name: source_image(named[name], value if isinstance(value, MPSImage) else arrays[name], graph.format)
            for name, value in numbers.items()
        }
        if f"d{incoming}" not in numbers:
            images[f"d{incoming}"] = _ones(graph, images)
        return Backprop(trace(graph, **images), graph)
    shapes = {name: array.shape for name, array in arrays.items()}
    try:
        shape = np.broadcast_shapes(*shapes.values())
    except ValueError:
        raise ImageError(f"the shapes do not fit together: {shapes}") from None
    if len(shape) > MOST_AXES:
        raise ImageError(f"an input has {len(shape)} axes: give at most {MOST_AXES}")
    size = (1,) * (MOST_AXES - len(shape)) + shape
    images = {
        name: value if isinstance(value := given[name], MPSImage)
        else source_image(source, np.broadcast_to(arrays[name], shape).reshape(size), graph.format)
        for name, source in named.items()
    }  # fmt: skip
    return Backprop(trace(graph, **images), graph, shapes, shape)


def _ones(graph: MPSNNGraph, images: Mapping[str, MPSImage]) -> MPSImage:
    """The incoming gradient of a graph with layers, of the size of its result."""
    plan = graph.plan
    sizes = {i: images[label].shape for i, source in enumerate(plan.inputs) if (label := str(source.label)) in images}
    for step in plan.steps:
        if all(source in sizes for source in step.sources):
            sizes[step.result] = step.operation.result_size(*(sizes[source] for source in step.sources))
    return MPSImage.from_array(np.ones(sizes[plan.results[0] or 0], np.float32), graph.format)


def _array(value: npt.ArrayLike | MPSImage, name: str) -> npt.NDArray[Any]:
    array = value.to_array() if isinstance(value, MPSImage) else array_or_error(value, name)
    # Unsigned integers may be meant as codes.
    return array.astype(np.float64) if array.dtype.kind == "i" else array
