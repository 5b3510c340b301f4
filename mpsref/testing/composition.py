"""Nodes in float64, each on the smooth piece on which its source is: the questions that their gradients pose."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from mpsref.arguments import mapping_or_error
from mpsref.errors import ParameterError, SourceError
from mpsref.executor import MPSNNGraph
from mpsref.graph.file import GraphFile
from mpsref.graph.handles import handle_label
from mpsref.graph.neurons import MPSCNNNeuronNode
from mpsref.graph.nodes import MPSNNFilterNode, MPSNNGradientFilterNode, MPSNNImageNode
from mpsref.graph.schedule import schedule
from mpsref.neuron import forward, gradient
from mpsref.neuron.descriptor import MPSNNNeuronDescriptor
from mpsref.operations import Operation
from mpsref.testing.differences import NOISE, Function, continued, pieces, slope
from mpsref.testing.question import Array, Mask, Question, float64, incoming_gradient, one_shape

__all__ = ["of_nodes"]

BESIDE = 4
"""So many ULP from a kink that float64 cannot hold, nothing says on which side it is."""

NARROW = 2.0**22
"""So many ULP must be between two kinks for differences to see the slope there."""

NUDGE = 2.0**-30
"""How far a value is moved, relative, to see what depends on it."""

LEFT, RIGHT = np.int8(-1), np.int8(1)


@dataclass(frozen=True)
class Claim:
    """Images whose sum is said to be the gradient of another one, where results have these incoming gradients."""

    name: str
    gradients: tuple[int, ...]
    source: int
    results: tuple[tuple[int, int], ...]


def of_nodes(
    subject: Any, inputs: Any, upstream: Any, gradients: Mapping[str, str] | None
) -> tuple[list[Question], str]:
    """The questions that a neuron, a node or a graph poses, and its name."""
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
        inputs = mapping_or_error("inputs", inputs)
        if None in labels or len(set(labels)) < len(labels):
            raise SourceError(f"source handles are {labels}: give each its own")
        unknown = set(inputs) - set(labels)
        missing = {labels[i] for i in own} - set(inputs)
        if unknown or missing:
            have, want = (", ".join(sorted(map(repr, each))) for each in (inputs, {labels[i] for i in own}))
            raise SourceError(f"inputs are {have}: the sources are {want}")
        given = {i: inputs[label] for i, label in enumerate(labels) if label in inputs}
    xs = {i: float64(value, str(labels[i] or "input")) for i, value in given.items()}
    shape = one_shape({str(labels[i] or "input"): x for i, x in xs.items()})
    for i in set(range(len(labels))) - set(xs):
        xs[i] = incoming_gradient(shape) if upstream is None else float64(upstream, "upstream")
        one_shape({"inputs": next(iter(xs.values())), "upstream": xs[i]})
    return [xs[i] for i in range(len(labels))]


def _claims(subject: Any) -> tuple[MPSNNGraph, list[Claim], set[int], str]:
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
    slot = {image: index for image, index in zip(images, graph.plan.results, strict=True) if index is not None}
    claims = [
        Claim(
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
    is_initial = last.operation.is_initial_gradient
    if is_initial:
        result, incoming = last.sources[0], last.result_image
    else:
        result, incoming = last.result_image, MPSNNImageNode(handle="upstream gradient")
    gradients: dict[MPSNNImageNode, MPSNNImageNode] = {}

    def keep(node: MPSNNFilterNode, _: object, source: MPSNNImageNode, __: object) -> None:
        gradients[source] = node.result_image

    last.training_graph(with_source_gradient=None if is_initial else incoming, node_handler=keep)
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
        if isinstance(node, MPSNNGradientFilterNode):
            incoming = node.sources[0]
            # From a sum of gradients, or a gradient, it goes on; all else comes in from outside.
            if _target(incoming) is None:
                pairs[node.forward_node.result_image, incoming] = None
            else:
                walk.append(incoming)
        elif node is not None:
            walk += node.sources
    return list(pairs)


def _target(image: MPSNNImageNode) -> MPSNNImageNode | None:
    """What an image is the gradient of, if it is one: sums of gradients are gradients."""
    node = image.producer
    while node is not None and node.operation.accumulates:
        node = node.sources[0].producer
    return node.differentiated_source if isinstance(node, MPSNNGradientFilterNode) else None


def _named_claims(graph: MPSNNGraph, gradients: Mapping[str, str], upstream: Mapping[str, str]) -> list[Claim]:
    # A handle that a gradient has from its source names both.
    results = graph.plan.results_by_name
    slots = dict(results) | {str(source.label): i for i, source in enumerate(graph.plan.inputs)}
    for name in (*gradients, *gradients.values(), *upstream, *upstream.values()):
        if name not in slots:
            raise SourceError(f"{name!r} is no source and no needed result: they are {', '.join(map(repr, slots))}")
    pairs = tuple((slots[y], slots[dy]) for y, dy in upstream.items())
    return [
        Claim(source, (index,), slots[source], pairs)
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
        self._steps = graph.plan.steps
        self._stops = stops
        self._values = dict(enumerate(sources))
        for step in self._steps:
            read = [self._values[i] for i in step.sources]
            n, h, w, c = ((1,) * 4 + read[0].shape)[-4:]
            step.operation.result_size(*[(n, h, w, c)] * len(read))
            self._values[step.result] = step.operation.value(*read)

    def question(self, claim: Claim) -> Question:
        x = self._values[claim.source]
        path = self._between(claim.source, {y for y, _ in claim.results})
        open_, clamped, hidden = (np.zeros(x.shape, np.bool_) for _ in range(3))
        sides: dict[int, npt.NDArray[np.int8]] = {}
        unsure: dict[int, Mask] = {}
        bases: dict[int, Array] = {}
        for i in path:
            operation, read = self._steps[i].operation, [self._values[s] for s in self._steps[i].sources]
            if operation.descriptor is not None:
                bases[i], sides[i], unsure[i] = _side(operation.descriptor, read[0])
                open_ |= unsure[i]
                hidden |= _between_kinks(operation.descriptor, read[0])
            elif operation.is_clamped:
                bases[i] = total = operation.argument(read)
                low, high = operation.bounds
                sides[i] = np.where(total == low, 1, -1).astype(np.int8)
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
        note = "a clamp holds here, which the gradient filter ignores, as MPS documents"
        upstream = self._values[claim.results[0][1]] if len(claim.results) == 1 else None
        return Question(
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

    def _rounding(self, claim: Claim, x: Array, path: list[int], sides: dict[int, _Place]) -> Array:
        """What rounding errors of inner values may make of the result: each is moved a little to see."""
        total = np.zeros(x.shape)
        with np.errstate(all="ignore"):
            base = self._at(claim, x, path, sides)
            for i in path:
                moved = self._at(claim, x, path, sides, i)
                total = total + np.nan_to_num(np.abs(moved - base), nan=0.0) * (NOISE / NUDGE)
        return total

    def _at(
        self, claim: Claim, x: Array, path: list[int], sides: dict[int, _Place], nudged: int | None = None
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
    ends = operation.bounds if operation.is_clamped else operation.kinks()
    if place is None or not ends:
        return operation.value(*read)
    return continued(operation.at_argument, operation.argument(read), *pieces(place[0], ends, place[1]))


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
