"""Gradients checked against derivatives that are computed from forward values alone, in float64."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from mpsref.arguments import checked_but
from mpsref.arrays import Mask, Wide
from mpsref.enums import MPSCNNNeuronType
from mpsref.errors import ImageError, ImplementationError, ParameterError, raised, shown
from mpsref.executor import MPSNNGraph
from mpsref.formats import format_among
from mpsref.graph.file import GraphFile
from mpsref.graph.nodes import MPSNNFilterNode
from mpsref.neuron.descriptor import NeuronLike, descriptor_or_error
from mpsref.storage import FormatLike
from mpsref.sweep.implementation import name_of
from mpsref.testing.comparison import as_array
from mpsref.testing.composition import of_nodes
from mpsref.testing.differences import DOUBLE, SINGLE, Function, Precision, complex_slope, one_sided, slope
from mpsref.testing.question import Question, float64, incoming_gradient, one_shape
from mpsref.testing.reports import GradientCheck, Slope

__all__ = ["GradientCheck", "Slope", "check_gradient"]

Pair: TypeAlias = tuple[Callable[..., Any], Callable[..., Any]]
"""A user's forward and gradient."""

SHOWN = 5
"""Elements that are listed."""

PROBES = 8
"""Places beside each input at which the digits of a forward are looked at."""

SAFETY = 10.0
"""Factor on estimated errors, which are only estimates."""


@checked_but("subject", "gradients")
def check_gradient(
    subject: NeuronLike | MPSNNFilterNode | GraphFile | MPSNNGraph | Pair,
    inputs: Any,
    *,
    upstream: Any = None,
    gradients: Mapping[str, str] | None = None,
    rtol: float | None = None,
    dtype: FormatLike | None = None,
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
        ``gradient(*inputs, upstream)``, which work element by element. The second returns the gradient of its input, or
        a tuple of gradients if there are several inputs.
    inputs : array_like, tuple of array_like, or Mapping of str to array_like
        For a neuron an array, for functions an array or a tuple of them, for graphs the sources by handle. Neurons and
        graphs are computed in float64, whatever the dtype, and nothing is rounded between nodes.
    upstream : array_like, or Mapping of str to str, optional
        The incoming gradient; by default numbers of both signs between 1/2 and 2. For an `MPSNNGraph`: the name of the
        source or result that is the incoming gradient of each result.
    gradients : Mapping of str to str, optional
        For an `MPSNNGraph`, which does not know it: for each result that is a gradient, the name of the source or
        result that it is the gradient of.
    rtol : float, optional
        Relative difference that is allowed between the gradient and the derivative, besides ten times the estimated
        error of the derivative. Default: 1e-6, or 1e-5 in float32.
    dtype : dtype, optional
        For functions of your own, float64 or float32: of the arrays that they get, and the arithmetic in which they are
        taken to be accurate to 4 ULP. By default they get float64; if one of them returns float32, or float64 with the
        digits of float32, they are taken for float32.
    complex_step : bool
        For functions of your own whose forward takes complex numbers and is analytic on each side of its comparisons:
        differentiate along the imaginary axis, exactly but for rounding errors; kinks do not interfere.
    name : str, optional
        What the report calls the subject.

    Returns
    -------
    GradientCheck
        If something agrees, and nothing is wrong. It counts elements that could not be decided.

    Raises
    ------
    VerificationError
        Something is wrong, or nothing could be decided. An `AssertionError`, with the `GradientCheck` as its
        ``report``.
    ParameterError, ImageError, SourceError
        The arguments do not fit together.
    ImplementationError
        A function of your own raises an error, returns anything but arrays like its input, or is not elementwise.

    Notes
    -----
    Differences stay on the element's side of a kink, also of a kink of an inner node; values beyond it are not used. At
    the kink itself the documented comparison decides. Functions of your own may have any slope there, and within 1e-8
    of it, between those of both sides; their values are assumed to be accurate to 4 ULP, which in float32 is a noise of
    5e-7 that differences multiply: gradients in tails may remain undecided.

    An `MPSNNGraph` is evaluated in the ideal mode, whatever its own mode.

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
    number: Any = rtol
    if rtol is not None and not (isinstance(number, float | int | np.floating) and 0 <= number < 1):
        raise ParameterError(f"rtol is {shown(rtol)}: give a number of at least 0 and below 1")
    if isinstance(subject, MPSCNNNeuronType | str):
        subject = descriptor_or_error(subject, "subject")
    if isinstance(subject, tuple):
        functions: tuple[Any, ...] = subject
        if len(functions) != 2 or not all(map(callable, functions)):
            raise ParameterError("subject is a tuple: give two functions, (forward, gradient)")
        if gradients is not None:
            raise ParameterError("gradients is for an MPSNNGraph: leave it out")
        if complex_step and dtype is not None:
            raise ParameterError("dtype and complex_step: give one or the other")
        questions = _of_functions(subject, inputs, upstream, _precision(dtype), complex_step=complex_step)
        default_name = name_of(subject[0])
    else:
        if complex_step:
            raise ParameterError("complex_step is for functions of your own: leave it out")
        if dtype is not None:
            raise ParameterError("dtype is for functions of your own: leave it out")
        questions, default_name = of_nodes(subject, inputs, upstream, gradients)
    report = _report(name or default_name, questions, None if rtol is None else float(rtol))
    report.check()
    return report


# ---- the verdict ----


def _precision(dtype: FormatLike | None) -> Precision | None:
    if dtype is None:
        return None
    storage = format_among(dtype, "dtype", [each.dtype.name for each in (DOUBLE, SINGLE)])
    return next(each for each in (DOUBLE, SINGLE) if each.dtype == storage.dtype)


def _report(name: str, questions: Sequence[Question], rtol: float | None) -> GradientCheck:
    precision = questions[0].precision
    rtol = precision.rtol if rtol is None else rtol
    counts = dict.fromkeys(("agree", "wrong", "undecided", "skipped"), 0)
    slopes: dict[str, list[tuple[float, Slope]]] = {"wrong": [], "undecided": []}
    for question in questions:
        numerical, error, kinds = _judged(question, rtol)
        for kind in counts:
            counts[kind] += int(np.count_nonzero(kinds == kind))
        with np.errstate(all="ignore"):
            excess = np.abs(question.claimed - numerical) / (rtol * np.abs(numerical) + SAFETY * error)
        excess = np.nan_to_num(excess, nan=np.inf)
        for kind, worst in slopes.items():
            for flat in np.argsort(np.where(kinds == kind, -excess, 1.0), axis=None, kind="stable")[:SHOWN].tolist():
                place = tuple(int(i) for i in np.unravel_index(flat, excess.shape))
                if kinds[place] == kind:
                    worst.append((float(excess[place]), _slope(question, place, numerical, error)))
    ranked = sorted(slopes["wrong"] or slopes["undecided"], key=lambda pair: -pair[0])[:SHOWN]
    elements = sum(question.x.size for question in questions)
    shown = tuple(slope for _, slope in ranked)
    return GradientCheck(name, rtol, elements, **counts, worst=shown, dtype=str(precision.dtype), noise=precision.noise)


def _slope(question: Question, place: tuple[int, ...], numerical: Wide, error: Wide) -> Slope:
    x, claimed, derivative, off = (float(array[place]) for array in (question.x, question.claimed, numerical, error))
    note = "; ".join(note for note, where in question.notes.items() if where[place])
    upstream = None if question.upstream is None else float(question.upstream[place])
    return Slope(question.name, place, x, claimed, derivative, off, note, upstream)


def _judged(question: Question, rtol: float) -> tuple[Wide, Wide, npt.NDArray[np.str_]]:
    """The derivative, its error, and the verdict on each element of the gradient."""
    claimed = question.claimed
    numerical, error = question.differentiate(question.value, question.x)
    with np.errstate(all="ignore"):
        decides = question.precision.decides
        far = _is_far(claimed, numerical, error, rtol, decides)
        if np.any(far & question.open):
            (left, left_error), (right, right_error) = question.sides()
            both = np.maximum(left_error, right_error)
            # Anything between the slopes of both sides is right; the two are equal where there is no kink.
            between = np.clip(claimed, np.fmin(left, right), np.fmax(left, right))
            is_kink = np.abs(left - right) > 2 * SAFETY * both
            use = far & question.open & is_kink
            numerical, error = np.where(use, between, numerical), np.where(use, both, error)
            far = _is_far(claimed, numerical, error, rtol, decides)
        size = np.fmax(np.abs(claimed), np.abs(numerical))
        known = (error * SAFETY <= question.precision.decides * size) | (claimed == numerical)
        is_finite = np.isfinite(question.x) & np.isfinite(question.value(question.x))
    kinds = np.where(far, "wrong", np.where(known, "agree", "undecided"))
    return numerical, error, np.where(is_finite, kinds, "skipped")


def _is_far(claimed: Wide, numerical: Wide, error: Wide, rtol: float, decides: float) -> Mask:
    allowed = rtol * np.maximum(np.abs(claimed), np.abs(numerical)) + SAFETY * error
    finite = np.isfinite(claimed)
    known = SAFETY * error <= decides * np.abs(numerical)
    far: Mask = np.where(finite, np.abs(claimed - numerical) > allowed, known)
    return far


# ---- a user's functions ----


def _of_functions(
    subject: Pair, inputs: Any, upstream: Any, precision: Precision | None, *, complex_step: bool
) -> list[Question]:
    forward, gradient = subject
    dtype = np.dtype(np.float64) if precision is None else precision.dtype
    arrays = inputs if isinstance(inputs, tuple) else (inputs,)
    names = ["input"] if len(arrays) == 1 else [f"input {i}" for i in range(len(arrays))]
    xs = [float64(array, name) for array, name in zip(arrays, names, strict=True)]
    shape = one_shape(dict(zip(names, xs, strict=True)))
    incoming = incoming_gradient(shape) if upstream is None else float64(upstream, "upstream")
    one_shape({"input": xs[0], "upstream": incoming})
    if precision is None and complex_step:
        precision = DOUBLE
    if precision is None:
        is_single = _is_single(forward, xs, shape)
        for each in _gradients(gradient, [*xs, incoming], dtype):
            _like(gradient, each, shape)
            is_single |= _dtype_of(each) == np.float32
        precision = SINGLE if is_single else DOUBLE
    xs, incoming = [precision.rounded(x) for x in xs], precision.rounded(incoming)
    y = _like(forward, _called(forward, xs, dtype), shape)
    gradients = _gradients(gradient, [*xs, incoming], dtype)

    def question(i: int) -> Question:
        def weighted(x: Wide) -> Wide:
            result = _called(forward, [*xs[:i], x, *xs[i + 1 :]], x.dtype if complex_step else dtype)
            return incoming * _like(forward, result, shape, x.dtype)

        if not complex_step:
            _elementwise_or_error(forward, weighted, xs[i], y * incoming)
        return Question(
            names[i],
            xs[i],
            _like(gradient, gradients[i], shape),
            weighted,
            np.full(shape, not complex_step),
            lambda: one_sided(weighted, xs[i], precision),
            differentiate=cast("Any", complex_slope) if complex_step else lambda f, z: slope(f, z, None, precision),
            upstream=incoming,
            precision=precision,
        )

    return [question(i) for i in range(len(xs))]


def _gradients(gradient: Callable[..., Any], arguments: list[Wide], dtype: np.dtype[Any]) -> tuple[Any, ...]:
    """What a gradient returns, for each input before the incoming gradient."""
    result = _called(gradient, arguments, dtype)
    gradients = result if isinstance(result, tuple) else (result,)
    if len(gradients) != len(arguments) - 1:
        inputs = len(arguments) - 1
        raise ImplementationError(f"{name_of(gradient)}: returned {len(gradients)} gradients of {inputs} inputs")
    return gradients


def _dtype_of(value: Any) -> np.dtype[Any]:
    return as_array(value, "what it returned").dtype


def _elementwise_or_error(function: Callable[..., Any], weighted: Function, x: Wide, y: Wide) -> None:
    moved = (np.arange(x.size) % 2 == 0).reshape(x.shape)
    with np.errstate(all="ignore"):
        result = weighted(np.where(moved, x + 0.125, x))
    if not np.array_equal(result[~moved], y[~moved], equal_nan=True):
        raise ImplementationError(
            f"{name_of(function)}: a result depends on other elements than its own, or changes from call to call: "
            "only elementwise functions can be checked"
        )


def _is_single(forward: Callable[..., Any], xs: list[Wide], shape: tuple[int, ...]) -> bool:
    """
    Whether a function that gets float64 computes in float32.

    What it returns is float32; or float64 of which no number has more digits than that, and some have as many. Numbers
    of fewer, such as those of a clamp, tell nothing.
    """
    is_full = False
    for k in range(1, PROBES + 1):
        # Beside the inputs, which may be numbers of few digits themselves.
        with np.errstate(all="ignore"):
            beside = [x + k / 77 * np.fmax(np.abs(x), 1) for x in xs]
        result = _called(forward, beside, np.dtype(np.float64))
        y = _like(forward, result, shape)
        if _dtype_of(result) == np.float32:
            return True
        with np.errstate(all="ignore"):
            single = y.astype(np.float32)
        if not np.array_equal(single, y, equal_nan=True):
            return False
        is_full |= bool(np.any(np.isfinite(single) & (single.view(np.uint32) & 7 != 0)))
    return is_full


def _called(function: Callable[..., Any], arguments: list[Wide], dtype: np.dtype[Any]) -> Any:
    """The result of a function, which gets copies of its dtype, since it may write to its arguments."""
    try:
        with np.errstate(all="ignore"):
            return function(*(argument.astype(dtype) for argument in arguments))
    except Exception as error:
        raise ImplementationError(f"{name_of(function)}: raised {raised(error)}") from error


def _like(function: Callable[..., Any], result: Any, shape: tuple[int, ...], dtype: Any = np.float64) -> Wide:
    try:
        array = as_array(result, "what it returned")
    except ImageError as error:
        raise ImplementationError(f"{name_of(function)}: {error}") from None
    if array.dtype not in (dtype, SINGLE.dtype) or array.shape != shape:
        raise ImplementationError(
            f"{name_of(function)}: returned {array.dtype}{list(array.shape)} for {np.dtype(dtype)}{list(shape)}: "
            "it must be like its input"
        )
    return array.astype(dtype, copy=False)
