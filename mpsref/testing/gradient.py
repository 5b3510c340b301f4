"""Gradients against derivatives that are computed from the forward values alone, in float64."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from itertools import pairwise
from typing import Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from mpsref.arrays import Elements, Mask
from mpsref.columns import printable
from mpsref.errors import ImageError, ImplementationError, ParameterError, SourceError, VerificationError
from mpsref.executor import MPSNNGraph, Operation, _Addition, _AdditionGradient, _Neuron, _NeuronGradient
from mpsref.graph.arithmetic import MPSNNAdditionNode, MPSNNArithmeticGradientNode, MPSNNInitialGradientNode
from mpsref.graph.file import GraphFile
from mpsref.graph.neurons import MPSCNNNeuronGradientNode, MPSCNNNeuronNode
from mpsref.graph.nodes import MPSNNFilterNode, MPSNNGradientFilterNode, MPSNNImageNode, handle_label
from mpsref.graph.schedule import schedule
from mpsref.neuron import forward, gradient, sums
from mpsref.neuron.descriptor import MPSNNNeuronDescriptor
from mpsref.storage import FLOAT64
from mpsref.sweep.implementation import name_of
from mpsref.testing.comparison import as_array
from mpsref.testing.differences import NOISE, Function, complex_slope, continued, one_sided, pieces, slope

__all__ = ["GradientCheck", "Slope", "check_gradient"]

Array: TypeAlias = npt.NDArray[np.float64]
Pair: TypeAlias = tuple[Callable[..., Any], Callable[..., Any]]
"""Somebody's forward and gradient."""

SHOWN = 5
"""How many elements are listed."""

SAFETY = 10.0
"""Estimates of errors are estimates."""

DECIDES = 1e-3
"""A difference that is less good than this, relative, decides nothing but what is far off."""

BESIDE = 4
"""So many ULP from a kink that float64 cannot hold, nothing says on which side it is."""

NARROW = 2.0**22
"""So many ULP must be between two kinks for differences to see the slope there."""

NUDGE = 2.0**-30
"""How far a value is moved, relative, to see what depends on it."""

LEFT, RIGHT = np.int8(-1), np.int8(1)


@dataclass(frozen=True)
class Slope:
    """
    One element of a gradient.

    Attributes
    ----------
    input : str
        What the gradient is taken with respect to.
    place : tuple of int
        The index of the element.
    value : float
        The input there.
    gradient : float
        What was given for its gradient.
    numerical : float
        What the forward says.
    error : float
        How far that may be off.
    note : str
        What there is to say of the place.
    upstream : float or None
        The incoming gradient there, if there is just one.
    """

    input: str
    place: tuple[int, ...]
    value: float
    gradient: float
    numerical: float
    error: float
    note: str = ""
    upstream: float | None = None

    def __str__(self) -> str:
        note = f"; {self.note}" if self.note else ""
        got = f"gradient {self.gradient:.10g}, differences give {self.numerical:.10g} +- {self.error:.1g}"
        upstream = "" if self.upstream is None else f", upstream {self.upstream!r}"
        return f"{self.input}{list(self.place)} = {self.value!r}{upstream}: {got}{note}"


@dataclass(frozen=True)
class GradientCheck:
    """
    What was found when a gradient was checked.

    Attributes
    ----------
    name : str
        What was checked.
    rtol : float
        What may be between gradient and difference, relative, beside the error of the difference.
    elements : int
        Elements of all inputs.
    agree, wrong, undecided, skipped : int
        Where gradient and differences agree; where they do not; where differences are too inexact to tell; and where
        the forward is not finite, or an input is not.
    worst : tuple of Slope
        The elements that are wrong, the worst first; else those that are undecided.
    """

    name: str
    rtol: float
    elements: int
    agree: int
    wrong: int
    undecided: int
    skipped: int
    worst: tuple[Slope, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong."""
        return not self.wrong

    @property
    def verdict(self) -> str:
        """One line."""
        counts = {"cannot be decided": self.undecided, "have no finite value": self.skipped}
        rest = "".join(f"; {n:,} {text}" for text, n in counts.items() if n)
        if self.wrong:
            return f"FAIL: {self.wrong:,} of {self.elements:,} gradients are wrong{rest}"
        return f"PASS: {self.agree:,} of {self.elements:,} gradients agree with differences{rest}"

    def check(self) -> None:
        """Raise `VerificationError`, which carries this report and says all of it, unless it passed."""
        __tracebackhide__ = True
        if not self.passed:
            raise VerificationError(self.text(), self)

    def text(self) -> str:
        """For people: the verdict first, then the worst elements."""
        lines = [f"{self.name}: {self.verdict}", *(f"  {one}" for one in self.worst)]
        return "\n".join(printable(line) for line in lines)

    def to_json(self) -> dict[str, Any]:
        """For programs: everything, as `json` can write it."""
        return asdict(self) | {
            "passed": self.passed,
            "verdict": self.verdict,
            "worst": [asdict(one) | {"place": list(one.place)} for one in self.worst],
        }


@dataclass(frozen=True, eq=False)
class _Question:
    """
    One input, and the gradient that is claimed for it.

    Attributes
    ----------
    name, x, claimed
        The input and its gradient.
    value : callable
        The sum of results times upstream gradients at each element, for other values of the input: on the smooth piece
        that the documented comparisons choose.
    open : ndarray of bool
        Where either side of a kink may be meant; all else is on one of them.
    sides : callables
        The same on the left and on the right pieces there.
    notes : dict of str to ndarray of bool
        What there is to say of places.
    differentiate : callable
        How derivatives and their errors are computed.
    upstream : ndarray or None
        The incoming gradient, if there is just one.
    """

    name: str
    x: Array
    claimed: Array
    value: Function
    open: Mask
    sides: Callable[[], tuple[tuple[Array, Array], tuple[Array, Array]]]
    notes: dict[str, Mask] = field(default_factory=dict)
    differentiate: Callable[[Function, Array], tuple[Array, Array]] = slope
    upstream: Array | None = None


def check_gradient(
    subject: MPSNNNeuronDescriptor | MPSNNFilterNode | GraphFile | MPSNNGraph | Pair,
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
        A neuron; the last node of a forward graph, whose `training_graph` is made; a graph file or graph that has
        gradient nodes; or two functions of your own, ``forward(*inputs)`` and ``gradient(*inputs, upstream)``, which
        work on float64 element by element. The second returns the gradient of each input, a tuple of them if there are
        several.
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
        raise ParameterError(f"rtol is {rtol!r}: give a number of at least 0 and below 1")
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
        questions, said = _of_nodes(subject, inputs, upstream, gradients)
    report = _report(name or said, questions, float(rtol))
    report.check()
    return report


# ---- the verdict ----


def _report(name: str, questions: Sequence[_Question], rtol: float) -> GradientCheck:
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


def _slope(question: _Question, place: tuple[int, ...], numerical: Array, error: Array) -> Slope:
    x, claimed, found, off = (float(each[place]) for each in (question.x, question.claimed, numerical, error))
    note = "; ".join(note for note, at in question.notes.items() if at[place])
    upstream = None if question.upstream is None else float(question.upstream[place])
    return Slope(question.name, place, x, claimed, found, off, note, upstream)


def _judged(question: _Question, rtol: float) -> tuple[Array, Array, npt.NDArray[np.str_]]:
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


def _of_functions(subject: Pair, inputs: Any, upstream: Any, *, complex_step: bool) -> list[_Question]:
    value, slopes = subject
    given = inputs if isinstance(inputs, tuple) else (inputs,)
    names = ["input"] if len(given) == 1 else [f"input {i}" for i in range(len(given))]
    xs = [_float64(one, name) for one, name in zip(given, names, strict=True)]
    shape = _one_shape(dict(zip(names, xs, strict=True)))
    base = _called(value, [x.copy() for x in xs], shape, np.float64)
    incoming = _incoming(shape) if upstream is None else _float64(upstream, "upstream")
    _one_shape({"input": xs[0], "upstream": incoming})
    claimed = _claimed(slopes, [x.copy() for x in xs], incoming.copy())

    def of(i: int) -> _Question:
        def weighted(x: Array) -> Array:
            arguments = [one.copy() for one in xs]
            arguments[i] = x.copy()
            return incoming * _called(value, arguments, shape, x.dtype)

        if complex_step:
            nowhere, along = np.zeros(shape, np.bool_), cast("Any", complex_slope)
            return _Question(names[i], xs[i], claimed[i], weighted, nowhere, _none, {}, along, incoming)
        _elementwise_or_error(value, weighted, xs[i], base * incoming)
        sides = lambda: one_sided(weighted, xs[i])  # noqa: E731
        return _Question(names[i], xs[i], claimed[i], weighted, np.ones(shape, np.bool_), sides, upstream=incoming)

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


# ---- nodes ----


@dataclass(frozen=True)
class _Claim:
    """Images whose sum is said to be the gradient of another one, where results have these incoming gradients."""

    name: str
    gradients: tuple[int, ...]
    source: int
    results: tuple[tuple[int, int], ...]


def _of_nodes(
    subject: Any, inputs: Any, upstream: Any, gradients: Mapping[str, str] | None
) -> tuple[list[_Question], str]:
    if isinstance(subject, MPSNNGraph):
        if not all(isinstance(given, Mapping) and given for given in (gradients, upstream)):
            raise ParameterError(
                "an MPSNNGraph does not know what its results are: give gradients={'dx': 'x'} and upstream={'y': 'dy'},"
                " or a GraphFile"
            )
        assert gradients is not None
        claims, stops, said = _named_claims(subject, gradients, upstream), set[int](), "graph"
        graph, upstream = subject, None
    else:
        if gradients is not None:
            raise ParameterError("gradients is for an MPSNNGraph: leave it out")
        graph, claims, stops, said = _claims(subject)
    sources = _sources(graph, inputs, upstream, {g for claim in claims for _, g in claim.results})
    composition = _Composition(graph, sources, stops)
    return [composition.question(claim) for claim in claims], said


def _sources(graph: MPSNNGraph, inputs: Any, upstream: Any, incoming: Collection[int]) -> list[Array]:
    """What the graph reads, in its order; incoming gradients have a default."""
    labels = [handle_label(handle) for handle in graph.source_image_handles]
    own = [i for i in range(len(labels)) if i not in incoming]
    if not isinstance(inputs, Mapping):
        if len(own) != 1:
            raise SourceError(f"inputs is no mapping: give the sources {', '.join(map(repr, labels))} by name")
        given: dict[int, Any] = {own[0]: inputs}
    else:
        if None in labels or len(set(labels)) < len(labels):
            raise SourceError(f"source handles are {labels}: give each its own")
        unknown = set(inputs) - set(labels)
        missing = {labels[i] for i in own} - set(inputs)
        if unknown or missing:
            have, want = (", ".join(sorted(map(repr, each))) for each in (inputs, {labels[i] for i in own}))
            raise SourceError(f"inputs are {have}: the sources are {want}")
        given = {i: inputs[label] for i, label in enumerate(labels) if label in inputs}
    xs = {i: _float64(value, str(labels[i] or "input")) for i, value in given.items()}
    shape = _one_shape({str(labels[i] or "input"): x for i, x in xs.items()})
    for i in set(range(len(labels))) - set(xs):
        xs[i] = _incoming(shape) if upstream is None else _float64(upstream, "upstream")
        _one_shape({"inputs": next(iter(xs.values())), "upstream": xs[i]})
    return [xs[i] for i in range(len(labels))]


def _claims(subject: Any) -> tuple[MPSNNGraph, list[_Claim], set[int], str]:
    """What nodes say of themselves."""
    if isinstance(subject, MPSNNNeuronDescriptor):
        node = MPSCNNNeuronNode(source=MPSNNImageNode(handle="input"), descriptor=subject)
        found, said = _trained(node), subject.neuron_type.name
    elif isinstance(subject, GraphFile):
        found, said = _backward_results(subject.result_images), "graph"
    elif isinstance(subject, MPSNNFilterNode) and not isinstance(subject, MPSNNGradientFilterNode):
        found, said = _trained(subject), subject.label or type(subject).__name__
    else:
        raise ParameterError(
            f"subject is a {type(subject).__name__}: give a descriptor, a forward node, a GraphFile, an MPSNNGraph or "
            "two functions"
        )
    if not found:
        raise ParameterError("there is no gradient to be checked: no result is one")
    images = dict.fromkeys(
        image for s, gs, pairs in found for image in (s, *gs, *(one for pair in pairs for one in pair))
    )
    if isinstance(subject, GraphFile):
        # So that all its sources may be given, also those that no gradient depends on.
        images |= dict.fromkeys(subject.result_images)
    nodes = list(schedule(images))
    stopped = [node.result_image for node in nodes if node.result_image.stop_gradient]
    images |= dict.fromkeys(stopped)
    graph = MPSNNGraph(result_images=list(images))
    slot = {image: index for image, index in zip(images, graph._results, strict=True) if index is not None}
    claims = [
        _Claim(
            handle_label(s.handle) or "input",
            tuple(slot[g] for g in gs),
            slot[s],
            tuple((slot[y], slot[dy]) for y, dy in pairs),
        )
        for s, gs, pairs in found
    ]
    return graph, claims, {slot[image] for image in stopped}, said


_Pairs: TypeAlias = list[tuple[MPSNNImageNode, MPSNNImageNode]]
_Found: TypeAlias = list[tuple[MPSNNImageNode, list[MPSNNImageNode], _Pairs]]
"""Images, what adds up to their gradients, and pairs of results and incoming gradients."""


def _trained(last: MPSNNFilterNode) -> _Found:
    """The gradients of all sources of a graph, from nodes that are made here."""
    if isinstance(last, MPSNNInitialGradientNode):
        result, incoming = last.sources[0], last.result_image
    else:
        result, incoming = last.result_image, MPSNNImageNode(handle="upstream gradient")
    gradients: dict[MPSNNImageNode, MPSNNImageNode] = {}

    def keep(node: MPSNNFilterNode, _: object, source: MPSNNImageNode, __: object) -> None:
        gradients[source] = node.result_image

    last.training_graph(
        with_source_gradient=None if isinstance(last, MPSNNInitialGradientNode) else incoming, node_handler=keep
    )
    found = {image: made for image, made in gradients.items() if image.producer is None and not image.stop_gradient}
    return [(image, [made], [(result, incoming)]) for image, made in found.items()]


def _backward_results(results: Sequence[MPSNNImageNode]) -> _Found:
    """What the results of a graph are the gradients of, by the states of the nodes that make them."""
    targets: dict[MPSNNImageNode, list[MPSNNImageNode]] = {}
    for image in results:
        target = _target(image)
        if target is not None:
            targets.setdefault(target, []).append(image)
    found: _Found = []
    for target, images in targets.items():
        # Where gradients of one image are not added up, as where they are told to stop, each is a part.
        whole = [image for image in images if not _feeds(image, images)]
        found.append((target, whole, list(dict.fromkeys(pair for image in whole for pair in _roots(image)))))
    return found


def _feeds(image: MPSNNImageNode, others: Sequence[MPSNNImageNode]) -> bool:
    """Whether some of these images depend on one."""
    return any(image in node.sources for other in others if other is not image for node in schedule([other]))


def _roots(image: MPSNNImageNode) -> _Pairs:
    """The results that a gradient begins at, each with its own incoming gradient."""
    walk, pairs = [image], dict[tuple[MPSNNImageNode, MPSNNImageNode], None]()
    while walk:
        node = walk.pop().producer
        if isinstance(node, MPSCNNNeuronGradientNode | MPSNNArithmeticGradientNode):
            incoming = node.sources[0]
            # From a sum of gradients, or a gradient, it goes on; all else comes in from outside.
            if _target(incoming) is None:
                pairs[node.gradient_state.producer.result_image, incoming] = None
            else:
                walk.append(incoming)
        elif node is not None:
            walk += node.sources
    return list(pairs)


def _target(image: MPSNNImageNode) -> MPSNNImageNode | None:
    """What an image is the gradient of, if it is one: sums of gradients are gradients."""
    node = image.producer
    while isinstance(node, MPSNNAdditionNode):
        node = node.sources[0].producer
    if isinstance(node, MPSCNNNeuronGradientNode):
        return node.gradient_state.producer.sources[0]
    if isinstance(node, MPSNNArithmeticGradientNode):
        return node.gradient_state.producer.sources[node.is_secondary_source_filter]
    return None


def _named_claims(graph: MPSNNGraph, gradients: Mapping[str, str], upstream: Mapping[str, str]) -> list[_Claim]:
    slots = {
        name: index for name, index in zip(graph._result_names, graph._results, strict=True) if index is not None
    } | {str(handle_label(handle)): i for i, handle in enumerate(graph.source_image_handles)}
    for name in (*gradients, *gradients.values(), *upstream, *upstream.values()):
        if name not in slots:
            raise SourceError(f"{name!r} is no source and no needed result: they are {', '.join(map(repr, slots))}")
    # A handle that a gradient has from its source names both.
    results = dict(zip(graph._result_names, graph._results, strict=True))
    pairs = tuple((slots[y], slots[dy]) for y, dy in upstream.items())
    return [
        _Claim(source, (index,), slots[source], pairs)
        for made, source in gradients.items()
        if (index := results.get(made)) is not None
    ]


_Place: TypeAlias = tuple[Array, npt.NDArray[np.int8]]
"""Where a node's source is, and on which side if that is a kink."""


class _Composition:
    """
    A graph in float64 without rounding between nodes, each node on the smooth piece on which its source is.

    Parameters
    ----------
    graph : MPSNNGraph
        The graph.
    sources : sequence of ndarray
        What it reads.
    stops : set of int
        Images that gradients do not go through: they stay as they are.
    """

    def __init__(self, graph: MPSNNGraph, sources: Sequence[Array], stops: set[int]) -> None:
        self._steps = graph._steps
        self._stops = stops
        self._values = dict(enumerate(sources))
        for step in self._steps:
            if isinstance(step.operation, _Neuron | _NeuronGradient) and step.operation.descriptor.data is not None:
                n, h, w, c = ((1,) * 4 + self._values[step.sources[0]].shape)[-4:]
                step.operation.check(*[(n, h, w, c)] * len(step.sources))
            self._values[step.result] = _value(step.operation, [self._values[i] for i in step.sources])

    def question(self, claim: _Claim) -> _Question:
        x = self._values[claim.source]
        path = self._between(claim.source, {y for y, _ in claim.results})
        open_, clamped, hidden = (np.zeros(x.shape, np.bool_) for _ in range(3))
        sides: dict[int, npt.NDArray[np.int8]] = {}
        unsure: dict[int, Mask] = {}
        bases: dict[int, Array] = {}
        for i in path:
            operation, read = self._steps[i].operation, [self._values[s] for s in self._steps[i].sources]
            if isinstance(operation, _Neuron):
                bases[i], sides[i], unsure[i] = _side(operation.descriptor, read[0])
                open_ |= unsure[i]
                hidden |= _between_kinks(operation.descriptor, read[0])
            elif isinstance(operation, _Addition):
                bases[i] = total = _value(_unclamped(operation), read)
                sides[i] = np.where(total == operation.bounds[0], 1, -1).astype(np.int8)
                low, high = operation.bounds
                clamped |= (total < low) | (total > high) | (low == high)

        def at(chosen: dict[int, npt.NDArray[np.int8]]) -> Function:
            return lambda z: self._at(claim, z, path, {i: (bases[i], side) for i, side in chosen.items()})

        def both() -> Any:
            found = []
            for one in (LEFT, RIGHT):
                chosen = {i: np.where(unsure[i], one, side) if i in unsure else side for i, side in sides.items()}
                found.append(slope(at(chosen), x, rounding))
            return tuple(found)

        rounding = self._rounding(claim, x, path, {i: (bases[i], side) for i, side in sides.items()})
        rounding = np.where(hidden, np.inf, rounding)
        claimed = np.zeros(x.shape)
        for g in claim.gradients:
            claimed = claimed + self._values[g]
        note = "a clamp of an addition holds here, which its gradient filter ignores, as MPS documents"
        upstream = self._values[claim.results[0][1]] if len(claim.results) == 1 else None
        return _Question(
            claim.name,
            x,
            claimed,
            at(sides),
            open_,
            both,
            {note: clamped},
            lambda f, z: slope(f, z, rounding),
            upstream,
        )

    def _between(self, source: int, results: set[int]) -> list[int]:
        """The steps that lead from an image to some results, in order."""
        changes, path = {source}, []
        for i, step in enumerate(self._steps):
            if step.result != source and step.result not in self._stops and changes.intersection(step.sources):
                changes.add(step.result)
                path.append(i)
        needed, kept = set(results), []
        for i in reversed(path):
            if self._steps[i].result in needed:
                needed.update(self._steps[i].sources)
                kept.append(i)
        return kept[::-1]

    def _rounding(self, claim: _Claim, x: Array, path: list[int], sides: dict[int, _Place]) -> Array:
        """What rounding errors of inner values may make of the result: each is moved a little to see."""
        total = np.zeros(x.shape)
        with np.errstate(all="ignore"):
            base = self._at(claim, x, path, sides)
            for i in path:
                moved = self._at(claim, x, path, sides, i)
                total = total + np.nan_to_num(np.abs(moved - base), nan=0.0) * (NOISE / NUDGE)
        return total

    def _at(
        self, claim: _Claim, x: Array, path: list[int], sides: dict[int, _Place], nudged: int | None = None
    ) -> Array:
        values = {claim.source: x}
        for i in path:
            step = self._steps[i]
            read = [values.get(s, self._values[s]) for s in step.sources]
            values[step.result] = _on_piece(step.operation, read, sides.get(i))
            if i == nudged:
                values[step.result] = values[step.result] * (1 + NUDGE)
        total = np.zeros(x.shape)
        for y, dy in claim.results:
            total = total + self._values[dy] * values.get(y, self._values[y])
        return total


def _on_piece(operation: Operation, read: list[Array], place: _Place | None) -> Array:
    if isinstance(operation, _Neuron) and place is not None:
        descriptor = operation.descriptor
        kinks = descriptor.row.kinks(descriptor)
        if kinks:
            return continued(lambda z: forward(descriptor, z), read[0], *pieces(place[0], kinks, place[1]))
    if isinstance(operation, _Addition) and place is not None and np.isfinite(operation.bounds).any():
        low, high = operation.bounds
        ends = pieces(place[0], operation.bounds, place[1])
        return continued(lambda z: np.clip(z, low, high), _value(_unclamped(operation), read), *ends)
    return _value(operation, read)


def _unclamped(addition: _Addition) -> _Addition:
    return _Addition(addition.scales, addition.bias, (-np.inf, np.inf))


def _value(operation: Operation, read: list[Array]) -> Array:
    """What an operation gives in float64."""
    if isinstance(operation, _Neuron):
        return forward(operation.descriptor, read[0])
    if isinstance(operation, _NeuronGradient):
        return gradient(operation.descriptor, read[1], read[0])
    if isinstance(operation, _Addition):
        left, right = (Elements(each, FLOAT64) for each in read)
        return sums.add(left, right, FLOAT64, operation.scales, operation.bias, operation.bounds)
    if isinstance(operation, _AdditionGradient):
        return sums.scale(Elements(read[0], FLOAT64), operation.factor, FLOAT64)
    return np.ones_like(read[0])


def _side(descriptor: MPSNNNeuronDescriptor, x: Array) -> tuple[Array, npt.NDArray[np.int8], Mask]:
    """
    At a kink, the side whose slope the documented formula has there; and where that cannot be asked.

    A kink that is rounded is not quite where float64 has it: what is beside it is taken for it, and may be on either
    side.
    """
    kinks = descriptor.row.kinks(descriptor)
    base, at, unsure = x.copy(), np.isin(x, kinks), np.zeros(x.shape, np.bool_)
    for kink in kinks:
        if not _is_exact(descriptor, kink):
            unsure |= np.abs(x - kink) <= BESIDE * np.spacing(abs(kink))
            base[np.abs(x - kink) <= BESIDE * np.spacing(abs(kink))] = kink
    side = np.zeros(x.shape, np.int8)
    if at.any():
        there = np.where(at, x, 0.0)
        away = 2.0**-20 * np.maximum(np.abs(there), 1)
        for kink in kinks:
            away = np.where(there == kink, away, np.minimum(away, np.abs(there - kink) / 2))
        y, before, after = (forward(descriptor, there + step) for step in (0.0, -away, away))
        left, right = (y - before) / away, (after - y) / away
        with np.errstate(over="ignore"):
            single = there.astype(np.float32)
        here = gradient(descriptor, single, np.ones_like(single), mode="stepwise-fma").astype(np.float64)
        from_left, from_right = np.abs(here - left), np.abs(here - right)
        side = (np.sign(from_left - from_right) * at).astype(np.int8)
    return base, side, unsure


def _is_exact(descriptor: MPSNNNeuronDescriptor, kink: float) -> bool:
    """Whether a kink is where float32 arithmetic finds it too: where a quotient of parameters was not rounded."""
    with np.errstate(over="ignore"):
        if float(np.float32(kink)) != kink:
            return False
    a, b = Fraction(descriptor.a), Fraction(descriptor.b)
    return kink in (0.0, descriptor.b) or a * Fraction(kink) in (b, -b, 1 - b)


def _between_kinks(descriptor: MPSNNNeuronDescriptor, x: Array) -> Mask:
    """Where two kinks are so near that float64 has hardly anything between them, of which to see a slope."""
    hidden = np.zeros(x.shape, np.bool_)
    kinks = sorted(descriptor.row.kinks(descriptor))
    for low, high in pairwise(kinks):
        ulp = np.spacing(max(abs(low), abs(high)))
        if high - low <= NARROW * ulp:
            hidden |= (x >= low - BESIDE * ulp) & (x <= high + BESIDE * ulp)
    return hidden


# ---- arguments ----


def _is_share(value: Any) -> bool:
    return isinstance(value, float | int | np.floating) and bool(0 <= value < 1)


def _float64(value: Any, name: str) -> Array:
    array = as_array(value, name, np.dtype(np.float64))
    if array.dtype.kind != "f":
        raise ImageError(f"{name} has dtype {array.dtype}: give floating point values")
    return np.array(array, np.float64)


def _one_shape(arrays: Mapping[str, Array]) -> tuple[int, ...]:
    shapes = {array.shape for array in arrays.values()}
    if not sum(array.size for array in arrays.values()):
        raise ImageError("inputs are empty: give at least one element")
    if len(shapes) != 1:
        raise ImageError(f"{', '.join(f'{n} is {list(a.shape)}' for n, a in arrays.items())}: give one shape")
    return shapes.pop()


def _incoming(shape: tuple[int, ...]) -> Array:
    """Numbers of both signs between 1/2 and 2, which are short in binary."""
    k = np.arange(int(np.prod(shape)))
    size = (k * 59 % 96 + 32) / 64
    return np.asarray(np.where(k % 3 == 1, -size, size).reshape(shape))
