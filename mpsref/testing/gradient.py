"""Gradients against derivatives that are computed from the forward values alone, in float64."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from mpsref.arguments import checked
from mpsref.enums import MPSCNNNeuronType
from mpsref.errors import ImageError, ImplementationError, ParameterError, shown
from mpsref.executor import MPSNNGraph
from mpsref.graph.file import GraphFile
from mpsref.graph.nodes import MPSNNFilterNode
from mpsref.neuron.descriptor import NeuronLike, descriptor_or_error
from mpsref.sweep.implementation import name_of
from mpsref.testing.comparison import as_array
from mpsref.testing.composition import of_nodes
from mpsref.testing.differences import Function, complex_slope, one_sided
from mpsref.testing.gradient_report import GradientCheck, Slope
from mpsref.testing.question import Array, Mask, Question, float64, incoming_gradient, one_shape

__all__ = ["GradientCheck", "Slope", "check_gradient"]

Pair: TypeAlias = tuple[Callable[..., Any], Callable[..., Any]]
"""Somebody's forward and gradient."""

SHOWN = 5
"""How many elements are listed."""

SAFETY = 10.0
"""Estimates of errors are estimates."""

DECIDES = 1e-3
"""A difference that is less good than this, relative, decides nothing but what is far off."""


@checked
def check_gradient(
    subject: NeuronLike | MPSNNFilterNode | GraphFile | MPSNNGraph | Pair,
    inputs: Any,
    *,
    upstream: Any = None,
    gradients: Mapping[str, str] | None = None,
    rtol: float = 1e-6,
    complex_step: bool = False,
    name: str | None = None,
) -> GradientCheck:
    """
    Fail unless a gradient is the derivative of its forward, as far as differences of forward values can tell.

    Parameters
    ----------
    subject : MPSNNNeuronDescriptor, MPSNNFilterNode, GraphFile, MPSNNGraph, or (forward, gradient)
        A neuron, or its type or name; the last node of a forward graph, whose `training_graph` is made; a graph file or
        graph that has gradient nodes; or two functions of your own, ``forward(*inputs)`` and
        ``gradient(*inputs, upstream)``, which work on float64 element by element. The second returns the gradient of
        each input, a tuple of them if there are several.
    inputs : array_like, tuple of array_like, or Mapping of str to array_like
        For a neuron an array, for functions an array or a tuple of them, for graphs the sources by handle. Whatever the
        dtype, all is computed in float64, and nothing is rounded between nodes.
    upstream : array_like, or Mapping of str to str, optional
        The incoming gradient; by default numbers of both signs between 1/2 and 2. For an `MPSNNGraph`: for each result
        the name of the source, or result, that is its incoming gradient.
    gradients : Mapping of str to str, optional
        For an `MPSNNGraph`, which does not know it: for each result that is a gradient the name of the source, or
        result, that it is the gradient of.
    rtol : float
        What may be between the gradient and the difference, relative, beside ten times the error that is estimated of
        the difference.
    complex_step : bool
        For functions of your own whose forward takes complex numbers and is analytic on each side of what it compares:
        the derivative is that along the imaginary axis, good to rounding errors, and no kink is near.
    name : str, optional
        How the report calls it.

    Returns
    -------
    GradientCheck
        If nothing is wrong. What could not be decided is counted there.

    Raises
    ------
    VerificationError
        Something is wrong. An `AssertionError`, with the `GradientCheck` as its ``report``.
    ParameterError, ImageError, SourceError
        The arguments do not go together.
    ImplementationError
        A function of your own raises an error, returns something else than float64 arrays like its input, or is not
        elementwise.

    Notes
    -----
    The difference is taken on the side of a kink on which the element is, be it the kink of the neuron or of an inner
    node that the element has come to; values beyond the kink are not used. At the kink itself the documented comparison
    decides. Functions of your own may have any slope there, and within 1e-8 of it, that is between those of both sides;
    their values are taken to be good to 4 ULP.

    An `MPSNNGraph` is evaluated in the ideal mode, whatever its own is.

    Examples
    --------
    >>> import numpy as np
    >>> import mpsref as mps
    >>> from mpsref.testing import check_gradient
    >>> x = np.linspace(-3, 3, 7)
    >>> check_gradient(mps.MPSNNNeuronDescriptor(mps.MPSCNNNeuronType.ELU), x).verdict
    'PASS: 7 of 7 gradients agree with differences'
    >>> check_gradient((np.tanh, lambda x, upstream: upstream * (1 - np.tanh(x) ** 2)), x).passed
    True
    """
    __tracebackhide__ = True
    if not _is_share(rtol):
        raise ParameterError(f"rtol is {shown(rtol)}: give a number of at least 0 and below 1")
    if isinstance(subject, MPSCNNNeuronType | str):
        subject = descriptor_or_error(subject, "subject")
    if isinstance(subject, tuple):
        functions: tuple[Any, ...] = subject
        if len(functions) != 2 or not all(map(callable, functions)):
            raise ParameterError("subject is a tuple: give two functions, (forward, gradient)")
        if gradients is not None:
            raise ParameterError("gradients is for an MPSNNGraph: leave it out")
        questions = _of_functions(subject, inputs, upstream, complex_step=complex_step)
        said = name_of(subject[0])
    else:
        if complex_step:
            raise ParameterError("complex_step is for functions of your own: leave it out")
        questions, said = of_nodes(subject, inputs, upstream, gradients)
    report = _report(name or said, questions, float(rtol))
    report.check()
    return report


# ---- the verdict ----


def _report(name: str, questions: Sequence[Question], rtol: float) -> GradientCheck:
    counts = dict.fromkeys(("agree", "wrong", "undecided", "skipped"), 0)
    found: dict[str, list[tuple[float, Slope]]] = {"wrong": [], "undecided": []}
    for question in questions:
        numerical, error, kinds = _judged(question, rtol)
        for kind in counts:
            counts[kind] += int(np.count_nonzero(kinds == kind))
        for kind, listed in found.items():
            with np.errstate(all="ignore"):
                excess = np.abs(question.claimed - numerical) / (rtol * np.abs(numerical) + SAFETY * error)
            excess = np.where(kinds == kind, np.nan_to_num(excess, nan=np.inf), -1.0)
            for flat in np.argsort(-excess, axis=None, kind="stable")[:SHOWN].tolist():
                place = tuple(int(i) for i in np.unravel_index(flat, excess.shape))
                if excess[place] >= 0:
                    listed.append((float(excess[place]), _slope(question, place, numerical, error)))
    worst = sorted(found["wrong"] or found["undecided"], key=lambda one: -one[0])[:SHOWN]
    elements = sum(question.x.size for question in questions)
    return GradientCheck(name, rtol, elements, **counts, worst=tuple(one for _, one in worst))


def _slope(question: Question, place: tuple[int, ...], numerical: Array, error: Array) -> Slope:
    x, claimed, found, off = (float(each[place]) for each in (question.x, question.claimed, numerical, error))
    note = "; ".join(note for note, at in question.notes.items() if at[place])
    upstream = None if question.upstream is None else float(question.upstream[place])
    return Slope(question.name, place, x, claimed, found, off, note, upstream)


def _judged(question: Question, rtol: float) -> tuple[Array, Array, npt.NDArray[np.str_]]:
    """The derivative, its error, and what that makes of each element of the gradient."""
    claimed = question.claimed
    numerical, error = question.differentiate(question.value, question.x)
    with np.errstate(all="ignore"):
        far = _is_far(claimed, numerical, error, rtol)
        if np.any(far & question.open):
            (left, left_error), (right, right_error) = question.sides()
            both = np.maximum(left_error, right_error)
            # Whatever is between the slopes of both sides will do; the two are one where there is no kink.
            between = np.clip(claimed, np.fmin(left, right), np.fmax(left, right))
            is_kink = np.abs(left - right) > 2 * SAFETY * both
            use = far & question.open & is_kink
            numerical, error = np.where(use, between, numerical), np.where(use, both, error)
            far = _is_far(claimed, numerical, error, rtol)
        size = np.fmax(np.abs(claimed), np.abs(numerical))
        known = (error * SAFETY <= DECIDES * size) | (claimed == numerical)
        there = np.isfinite(question.x) & np.isfinite(question.value(question.x))
    kinds = np.where(far, "wrong", np.where(known, "agree", "undecided"))
    return numerical, error, np.where(there, kinds, "skipped")


def _is_far(claimed: Array, numerical: Array, error: Array, rtol: float) -> Mask:
    allowed = rtol * np.maximum(np.abs(claimed), np.abs(numerical)) + SAFETY * error
    finite = np.isfinite(claimed)
    known = SAFETY * error <= DECIDES * np.abs(numerical)
    far: Mask = np.where(finite, np.abs(claimed - numerical) > allowed, known)
    return far


# ---- functions of somebody's own ----


def _of_functions(subject: Pair, inputs: Any, upstream: Any, *, complex_step: bool) -> list[Question]:
    value, slopes = subject
    given = inputs if isinstance(inputs, tuple) else (inputs,)
    names = ["input"] if len(given) == 1 else [f"input {i}" for i in range(len(given))]
    xs = [float64(one, name) for one, name in zip(given, names, strict=True)]
    shape = one_shape(dict(zip(names, xs, strict=True)))
    base = _called(value, [x.copy() for x in xs], shape, np.float64)
    incoming = incoming_gradient(shape) if upstream is None else float64(upstream, "upstream")
    one_shape({"input": xs[0], "upstream": incoming})
    claimed = _claimed(slopes, [x.copy() for x in xs], incoming.copy())

    def of(i: int) -> Question:
        def weighted(x: Array) -> Array:
            arguments = [one.copy() for one in xs]
            arguments[i] = x.copy()
            return incoming * _called(value, arguments, shape, x.dtype)

        if complex_step:
            nowhere, along = np.zeros(shape, np.bool_), cast("Any", complex_slope)
            return Question(names[i], xs[i], claimed[i], weighted, nowhere, _none, {}, along, incoming)
        _elementwise_or_error(value, weighted, xs[i], base * incoming)
        sides = lambda: one_sided(weighted, xs[i])  # noqa: E731
        return Question(names[i], xs[i], claimed[i], weighted, np.ones(shape, np.bool_), sides, upstream=incoming)

    return [of(i) for i in range(len(xs))]


def _none() -> Any:
    raise NotImplementedError


def _elementwise_or_error(function: Callable[..., Any], weighted: Function, x: Array, base: Array) -> None:
    some = (np.arange(x.size) % 2 == 0).reshape(x.shape)
    with np.errstate(all="ignore"):
        moved = weighted(np.where(some, x + 0.125, x))
    if not np.array_equal(moved[~some], base[~some], equal_nan=True):
        raise ImplementationError(
            f"{name_of(function)}: a result depends on other elements than its own, or changes from call to call: "
            "only elementwise functions can be checked"
        )


def _called(function: Callable[..., Any], arguments: list[Array], shape: tuple[int, ...], dtype: Any) -> Array:
    try:
        with np.errstate(all="ignore"):
            result = function(*arguments)
    except Exception as error:
        raise ImplementationError(f"{name_of(function)}: raised {type(error).__name__}: {error}") from error
    return _like(function, result, shape, np.dtype(dtype))


def _claimed(function: Callable[..., Any], xs: list[Array], incoming: Array) -> list[Array]:
    try:
        with np.errstate(all="ignore"):
            result = function(*xs, incoming)
    except Exception as error:
        raise ImplementationError(f"{name_of(function)}: raised {type(error).__name__}: {error}") from error
    results = result if isinstance(result, tuple) else (result,)
    if len(results) != len(xs):
        raise ImplementationError(f"{name_of(function)}: returned {len(results)} gradients of {len(xs)} inputs")
    return [_like(function, one, xs[0].shape, np.dtype(np.float64)) for one in results]


def _like(function: Callable[..., Any], result: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    try:
        array = as_array(result, "what it returned")
    except ImageError as error:
        raise ImplementationError(f"{name_of(function)}: {error}") from None
    if array.dtype != dtype or array.shape != shape:
        raise ImplementationError(
            f"{name_of(function)}: returned {array.dtype}{list(array.shape)} for {dtype}{list(shape)}: "
            "it must be like its input"
        )
    return array


# ---- arguments ----


def _is_share(value: Any) -> bool:
    return isinstance(value, float | int | np.floating) and bool(0 <= value < 1)
