"""Nodes in float64, each on the smooth piece on which its source lies, and the gradients of them that are checked."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, pairwise
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from mpsref.arguments import mapping_or_error
from mpsref.arrays import Mask, Wide
from mpsref.errors import ImageError, ParameterError, SourceError
from mpsref.executor import MPSNNGraph
from mpsref.graph.file import GraphFile
from mpsref.graph.handles import handle_label
from mpsref.graph.neurons import MPSCNNNeuronNode
from mpsref.graph.nodes import MPSNNFilterNode, MPSNNGradientFilterNode, MPSNNImageNode
from mpsref.graph.schedule import schedule
from mpsref.neuron import forward, gradient
from mpsref.neuron.descriptor import MPSNNNeuronDescriptor
from mpsref.operations import Convolution, ConvolutionGradient, Operation
from mpsref.testing.differences import NOISE, Function, continued, pieces, slope
from mpsref.testing.question import Question, float64, incoming_gradient, one_shape

__all__ = ["of_nodes"]

BESIDE = 4
"""Within this many ULP of a kink that float64 cannot hold, the side is unknown."""

NARROW = 2.0**22
"""ULP between two kinks below which differences do not see the slope there."""

NUDGE = 2.0**-30
"""Relative change of a value, to see what depends on it."""

LEFT, RIGHT = np.int8(-1), np.int8(1)


BATCH = 2**20
"""Elements of the copies of an image that are evaluated at once."""


MOST_WEIGHTS = 64
"""Weights of a layer whose gradients are checked, chosen at random but always the same."""


@dataclass(frozen=True, eq=False)
class Weights:
    """Some weights or biases: their values, the gradients that are claimed, and by what each moves the result."""

    point: Wide
    claimed: Wide
    patterns: Wide


@dataclass(frozen=True, eq=False)
class Claim:
    """
    Images whose sum is claimed to be the gradient of a source, by their slots.

    `results` are the results that it is the gradient of, each with its incoming gradient. For `weights` the source is
    the result of their layer.
    """

    name: str
    gradients: tuple[int, ...]
    source: int
    results: tuple[tuple[int, int], ...]
    weights: Weights | None = None


def of_nodes(
    subject: Any, inputs: Any, upstream: Any, gradients: Mapping[str, str] | None
) -> tuple[list[Question], str]:
    """The gradients of a neuron, a node or a graph, and its name."""
    if isinstance(subject, MPSNNGraph):
        if not all(isinstance(names, Mapping) and names for names in (gradients, upstream)):
            raise ParameterError(
                "an MPSNNGraph does not know what its results are: give gradients={'dx': 'x'} and upstream={'y': 'dy'},"
                " or a GraphFile"
            )
        assert gradients is not None
        claims, stops, name = _named_claims(subject, gradients, upstream), set[int](), "graph"
        graph, upstream = subject, None
    else:
        if gradients is not None:
            raise ParameterError("gradients is for an MPSNNGraph: leave it out")
        graph, claims, stops, name = _claims(subject)
    sources = _sources(graph, inputs, upstream, {dy: y for claim in claims for y, dy in claim.results})
    composition = _Composition(graph, sources, stops)
    pairs = tuple(dict.fromkeys(pair for claim in claims for pair in claim.results))
    claims = [*claims, *composition.claims_of_weights(pairs)]
    return [composition.question(claim) for claim in claims], name


def _sources(graph: MPSNNGraph, inputs: Any, upstream: Any, incoming: Mapping[int, int]) -> list[Wide]:
    """The sources of the graph, in its order; incoming gradients have a default."""
    labels = [handle_label(handle) for handle in graph.source_image_handles]
    own = [i for i in range(len(labels)) if i not in incoming]
    if not isinstance(inputs, Mapping):
        if len(own) != 1:
            raise SourceError(f"inputs is no mapping: give the sources {', '.join(map(repr, labels))} by name")
        values: dict[int, Any] = {own[0]: inputs}
    else:
        inputs = mapping_or_error("inputs", inputs)
        if None in labels or len(set(labels)) < len(labels):
            raise SourceError(f"source handles are {labels}: give each its own")
        if not {labels[i] for i in own} <= set(inputs) <= set(labels):
            have, want = (", ".join(sorted(map(repr, each))) for each in (inputs, {labels[i] for i in own}))
            raise SourceError(f"inputs are {have}: the sources are {want}")
        values = {i: inputs[label] for i, label in enumerate(labels) if label in inputs}
    xs = {i: float64(value, str(labels[i] or "input")) for i, value in values.items()}
    shape: tuple[int, ...] = ()
    if not _has_windows(graph):
        shape = one_shape({str(labels[i] or "input"): x for i, x in xs.items()})
    else:
        xs = {i: x.reshape((1,) * (4 - x.ndim) + x.shape) for i, x in xs.items()}
    for i in set(range(len(labels))) - xs.keys():
        needed = _sizes(graph, xs)[incoming[i]] if _has_windows(graph) else shape
        given = incoming_gradient(needed) if upstream is None else float64(upstream, "upstream")
        if given.size != math.prod(needed):
            raise ImageError(f"upstream has shape {list(given.shape)}: give that of the result, {list(needed)}")
        xs[i] = given.reshape(needed)
    return [xs[i] for i in range(len(labels))]


def _has_windows(graph: MPSNNGraph) -> bool:
    return not all(step.operation.is_pointwise for step in graph.plan.steps)


def _sizes(graph: MPSNNGraph, xs: Mapping[int, Wide]) -> dict[int, tuple[int, ...]]:
    """The sizes of all images that follow from those of some sources."""
    sizes: dict[int, Any] = {i: x.shape for i, x in xs.items()}
    for step in graph.plan.steps:
        if all(source in sizes for source in step.sources):
            sizes[step.result] = step.operation.result_size(*(sizes[source] for source in step.sources))
    return sizes


def _claims(subject: Any) -> tuple[MPSNNGraph, list[Claim], set[int], str]:
    """The graph of a subject, the gradients in it, the images at which gradients stop, and a name."""
    if isinstance(subject, MPSNNNeuronDescriptor):
        node = MPSCNNNeuronNode(source=MPSNNImageNode(handle="input"), descriptor=subject)
        parts, name = _trained(node), subject.neuron_type.name
    elif isinstance(subject, GraphFile):
        parts, name = _backward_results(subject.result_images), "graph"
    elif isinstance(subject, MPSNNFilterNode) and not isinstance(subject, MPSNNGradientFilterNode):
        parts, name = _trained(subject), subject.label or type(subject).__name__
    else:
        raise ParameterError(
            f"subject is a {type(subject).__name__}: give a descriptor, a forward node, a GraphFile, an MPSNNGraph or "
            "two functions"
        )
    if not parts:
        raise ParameterError("there is no gradient to be checked: no result is one")
    images = [image for source, gradients, pairs in parts for image in (source, *gradients, *chain(*pairs))]
    if isinstance(subject, GraphFile):
        # So that all its sources may be given, also those that no gradient depends on.
        images += subject.result_images
    stopped = [node.result_image for node in schedule(dict.fromkeys(images)) if node.result_image.stop_gradient]
    images = list(dict.fromkeys([*images, *stopped]))
    graph = MPSNNGraph(result_images=images)
    slot = {image: index for image, index in zip(images, graph.plan.results, strict=True) if index is not None}
    claims = [
        Claim(
            handle_label(source.handle) or "input",
            tuple(slot[gradient] for gradient in gradients),
            slot[source],
            tuple((slot[y], slot[dy]) for y, dy in pairs),
        )
        for source, gradients, pairs in parts
    ]
    return graph, claims, {slot[image] for image in stopped}, name


_Pairs: TypeAlias = list[tuple[MPSNNImageNode, MPSNNImageNode]]
"""Results, each with its incoming gradient."""

_Parts: TypeAlias = list[tuple[MPSNNImageNode, list[MPSNNImageNode], _Pairs]]
"""Images, each with the parts of its gradient, and the results that it is the gradient of."""


def _trained(last: MPSNNFilterNode) -> _Parts:
    """The gradients of all sources of a graph, from a training graph."""
    is_initial = last.operation.is_initial_gradient
    if is_initial:
        result, incoming = last.sources[0], last.result_image
    else:
        result, incoming = last.result_image, MPSNNImageNode(handle="upstream gradient")
    gradients: dict[MPSNNImageNode, MPSNNImageNode] = {}

    def keep(node: MPSNNFilterNode, _: object, source: MPSNNImageNode, __: object) -> None:
        gradients[source] = node.result_image

    last.training_graph(with_source_gradient=None if is_initial else incoming, node_handler=keep)
    return [
        (image, [gradient], [(result, incoming)])
        for image, gradient in gradients.items()
        if image.producer is None and not image.stop_gradient
    ]


def _backward_results(results: Sequence[MPSNNImageNode]) -> _Parts:
    """The gradients among the results of a graph, by the states of the nodes that make them."""
    targets: dict[MPSNNImageNode, list[MPSNNImageNode]] = {}
    for image in results:
        target = _target(image)
        if target is not None:
            targets.setdefault(target, []).append(image)
    parts: _Parts = []
    for target, images in targets.items():
        # Where gradients of one image are not added up, such as where they stop, each is a part.
        whole = [image for image in images if not _feeds(image, images)]
        parts.append((target, whole, list(dict.fromkeys(pair for image in whole for pair in _roots(image)))))
    return parts


def _feeds(image: MPSNNImageNode, others: Sequence[MPSNNImageNode]) -> bool:
    """Whether other images depend on this one."""
    return any(image in node.sources for other in others if other is not image for node in schedule([other]))


def _roots(image: MPSNNImageNode) -> _Pairs:
    """The results at which a gradient begins, each with its incoming gradient."""
    walk, pairs = [image], dict[tuple[MPSNNImageNode, MPSNNImageNode], None]()
    while walk:
        node = walk.pop().producer
        if isinstance(node, MPSNNGradientFilterNode):
            incoming = node.sources[0]
            # A gradient, or a sum of them, is followed; anything else is an incoming gradient.
            if _target(incoming) is None:
                pairs[node.forward_node.result_image, incoming] = None
            else:
                walk.append(incoming)
        elif node is not None:
            walk += node.sources
    return list(pairs)


def _target(image: MPSNNImageNode) -> MPSNNImageNode | None:
    """The image that this one is the gradient of, if it is a gradient or a sum of them."""
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
        for gradient, source in gradients.items()
        if (index := results.get(gradient)) is not None
    ]


_Place: TypeAlias = tuple[Wide, npt.NDArray[np.int8]]
"""A node's source, and its side where it is a kink."""


class _Composition:
    """
    A graph in float64 without rounding between nodes, each node on the smooth piece on which its source lies.

    `stops` are images at which gradients stop: they are constants.
    """

    def __init__(self, graph: MPSNNGraph, sources: Sequence[Wide], stops: set[int]) -> None:
        self._steps = graph.plan.steps
        self._stops = stops
        self._has_windows = _has_windows(graph)
        self._values = dict(enumerate(sources))
        for step in self._steps:
            read = [self._values[i] for i in step.sources]
            shapes = [((1,) * 4 + x.shape)[-4:] for x in read]
            step.operation.result_size(*((n, h, w, c) for n, h, w, c in shapes))
            self._values[step.result] = step.operation.value(*read)

    def question(self, claim: Claim) -> Question:
        """The gradient that a claim is about."""
        x = self._values[claim.source] if claim.weights is None else claim.weights.point
        path = self._between(claim.source, {y for y, _ in claim.results})
        is_open, clamped, hidden = (np.zeros(x.shape, np.bool_) for _ in range(3))
        sides: dict[int, npt.NDArray[np.int8]] = {}
        unsure: dict[int, Mask] = {}
        bases: dict[int, Wide] = {}
        for i in path:
            operation, read = self._steps[i].operation, [self._values[s] for s in self._steps[i].sources]
            if operation.descriptor is not None:
                bases[i], sides[i], unsure[i] = _side(operation.descriptor, read[0])
                is_open |= self._felt(unsure[i])
                hidden |= self._felt(_between_kinks(operation.descriptor, read[0]))
            elif operation.is_clamped:
                bases[i] = total = operation.argument(read)
                low, high = operation.bounds
                sides[i] = np.where(total == low, 1, -1).astype(np.int8)
                clamped |= self._felt((total < low) | (total > high) | (low == high))

        def at(unsure_side: np.int8 | None = None) -> Function:
            places = {i: (bases[i], side) for i, side in sides.items()}
            if unsure_side is not None:
                places |= {i: (bases[i], np.where(unsure[i], unsure_side, sides[i])) for i in unsure}
            return lambda z: self._at(claim, z, path, places)

        rounding = self._rounding(claim, x, path, {i: (bases[i], side) for i, side in sides.items()})
        if claim.weights is not None:
            # The layer's own result is rounded too.
            sizes = (np.abs(self._values[y] * self._values[dy]).sum() for y, dy in claim.results)
            rounding = rounding + NOISE * sum(sizes)
        rounding = np.where(hidden, np.inf, rounding)
        note = "a clamp holds here, which the gradient filter ignores, as MPS documents"
        return Question(
            claim.name,
            x,
            sum((self._values[gradient] for gradient in claim.gradients), np.zeros(x.shape))
            if claim.weights is None
            else claim.weights.claimed,
            at(),
            is_open,
            lambda: (slope(at(LEFT), x, rounding), slope(at(RIGHT), x, rounding)),
            {note: clamped},
            lambda f, z: slope(f, z, rounding),
            self._values[claim.results[0][1]] if len(claim.results) == 1 and not self._has_windows else None,
        )

    def claims_of_weights(self, pairs: tuple[tuple[int, int], ...]) -> Iterator[Claim]:
        """The gradients of weights and biases, of the layers between which and a result there is a path."""
        results = {step.node: step.result for step in self._steps}
        for step in self._steps:
            operation, forward = step.operation, step.node.forward_node
            if not isinstance(operation, ConvolutionGradient) or forward not in results:
                continue
            slot = results[forward]
            reached = tuple((y, dy) for y, dy in pairs if y == slot or self._between(slot, {y}))
            name = handle_label(forward.result_image.handle) or forward.label or type(forward).__name__
            gradient, x = (self._values[source] for source in step.sources)
            for kind, weights in _weights_of(operation, gradient, x).items():
                if reached:
                    yield Claim(f"{name}.{kind}", (), slot, reached, weights)

    def _felt(self, where: Mask) -> Mask:
        """Where a property of a step's elements may matter: with windows between them anywhere."""
        return np.asarray(where.any()) if self._has_windows else where

    def _between(self, source: int, results: set[int]) -> list[int]:
        """The steps that lead from an image to some results, in order."""
        changes, path = {source}, []
        for i, step in enumerate(self._steps):
            if step.result != source and step.result not in self._stops and changes.intersection(step.sources):
                changes.add(step.result)
                path.append(i)
        needed = set(results)
        for i in reversed(path):
            if self._steps[i].result in needed:
                needed.update(self._steps[i].sources)
        return [i for i in path if self._steps[i].result in needed]

    def _rounding(self, claim: Claim, x: Wide, path: list[int], sides: dict[int, _Place]) -> Wide:
        """The effect of rounding errors of inner values on the result, from a small change of each."""
        total = np.zeros(x.shape)
        with np.errstate(all="ignore"):
            base = self._at(claim, x, path, sides)
            for i in path:
                nudged = self._at(claim, x, path, sides, i)
                total = total + np.nan_to_num(np.abs(nudged - base), nan=0.0) * (NOISE / NUDGE)
        return total

    def _at(self, claim: Claim, x: Wide, path: list[int], sides: dict[int, _Place], nudged: int | None = None) -> Wide:
        if self._has_windows:
            return self._each_at(claim, x, path, sides, nudged)
        values = {claim.source: x}
        for i in path:
            step = self._steps[i]
            read = [values.get(s, self._values[s]) for s in step.sources]
            values[step.result] = _on_piece(step.operation, read, sides.get(i))
            if i == nudged:
                values[step.result] = values[step.result] * (1 + NUDGE)
        weighted = (self._values[dy] * values.get(y, self._values[y]) for y, dy in claim.results)
        return sum(weighted, np.zeros(x.shape))

    def _each_at(self, claim: Claim, x: Wide, path: list[int], sides: dict[int, _Place], nudged: int | None) -> Wide:
        """By how much each element alone, at another value, changes the sum over all results."""
        base, total = self._values[claim.source], np.zeros(x.size)
        size = max(1, BATCH // base.size)
        for start in range(0, x.size, size):
            index = np.arange(start, min(start + size, x.size))
            # A copy of the images for each of these elements, one after the other along the first axis.
            copies = np.tile(base.reshape(1, -1), (len(index), 1))
            if claim.weights is None:
                copies[np.arange(len(index)), index] = x.reshape(-1)[index]
            else:
                moved = (x - claim.weights.point)[index, np.newaxis]
                copies += moved * claim.weights.patterns[index].reshape(len(index), -1)

            def of_all(array: Any, count: int = len(index)) -> Any:
                return np.tile(array, (count, 1, 1, 1))

            values = {claim.source: copies.reshape(-1, *base.shape[1:])}
            for i in path:
                step = self._steps[i]
                read = [values[s] if s in values else of_all(self._values[s]) for s in step.sources]
                place = (of_all(sides[i][0]), of_all(sides[i][1])) if i in sides else None
                values[step.result] = _on_piece(step.operation, read, place)
                if i == nudged:
                    values[step.result] = values[step.result] * (1 + NUDGE)
            for y, dy in claim.results:
                if y in values:
                    change = (values[y] - of_all(self._values[y])) * of_all(self._values[dy])
                    total[index] += change.reshape(len(index), -1).sum(axis=1)
        return total.reshape(x.shape)


def _weights_of(operation: ConvolutionGradient, gradient: Wide, x: Wide) -> dict[str, Weights]:
    """Some weights of a layer and all its biases."""
    w, forward = operation.weights, Convolution(operation.weights, operation.padding, operation.is_fully_connected)
    count = min(MOST_WEIGHTS, w.values.size)
    chosen = np.sort(np.random.default_rng(w.values.size).choice(w.values.size, count, replace=False, shuffle=False))
    patterns = []
    for flat in chosen:
        unit = np.zeros(w.values.shape)
        unit.reshape(-1)[flat] = 1
        patterns.append(forward.linear(x, unit))
    claimed = operation.correlated(gradient, x).reshape(-1)[chosen]
    made = {"weights": Weights(w.values.astype(np.float64).reshape(-1)[chosen], claimed, np.stack(patterns))}
    if w.bias is not None:
        channels = np.eye(w.outputs)[:, np.newaxis, np.newaxis, np.newaxis]
        each = np.broadcast_to(channels, (w.outputs, *gradient.shape))
        made["biases"] = Weights(w.bias.astype(np.float64), gradient.sum(axis=(0, 1, 2)), each)
    return made


def _on_piece(operation: Operation, read: list[Wide], place: _Place | None) -> Wide:
    ends = operation.bounds if operation.is_clamped else operation.kinks()
    if place is None or not ends:
        return operation.value(*read)
    return continued(operation.at_argument, operation.argument(read), *pieces(place[0], ends, place[1]))


def _side(descriptor: MPSNNNeuronDescriptor, x: Wide) -> tuple[Wide, npt.NDArray[np.int8], Mask]:
    """
    The source, its side at a kink, by the slope of the documented formula there; and where the side is unknown.

    A rounded kink is not quite where float64 has it: its neighbours count as the kink, and may be on either side.
    """
    kinks = descriptor.row.kinks(descriptor)
    base, at, unsure = x.copy(), np.isin(x, kinks), np.zeros(x.shape, np.bool_)
    for kink in kinks:
        if not _is_exact(descriptor, kink):
            beside = np.abs(x - kink) <= BESIDE * np.spacing(abs(kink))
            unsure |= beside
            base[beside] = kink
    side = np.zeros(x.shape, np.int8)
    if at.any():
        kink_at = np.where(at, x, 0.0)
        away = 2.0**-20 * np.maximum(np.abs(kink_at), 1)
        for kink in kinks:
            away = np.where(kink_at == kink, away, np.minimum(away, np.abs(kink_at - kink) / 2))
        y, before, after = (forward(descriptor, kink_at + step) for step in (0.0, -away, away))
        left, right = (y - before) / away, (after - y) / away
        with np.errstate(over="ignore"):
            single = kink_at.astype(np.float32)
        here = gradient(descriptor, single, np.ones_like(single), mode="stepwise-fma").astype(np.float64)
        from_left, from_right = np.abs(here - left), np.abs(here - right)
        side = (np.sign(from_left - from_right) * at).astype(np.int8)
    return base, side, unsure


def _is_exact(descriptor: MPSNNNeuronDescriptor, kink: float) -> bool:
    """Whether float32 arithmetic has the kink in the same place: no quotient of parameters was rounded."""
    with np.errstate(over="ignore"):
        if float(np.float32(kink)) != kink:
            return False
    a, b = Fraction(descriptor.a), Fraction(descriptor.b)
    return kink in (0.0, descriptor.b) or a * Fraction(kink) in (b, -b, 1 - b)


def _between_kinks(descriptor: MPSNNNeuronDescriptor, x: Wide) -> Mask:
    """Where two kinks are so close that float64 has too few numbers between them to see a slope."""
    hidden = np.zeros(x.shape, np.bool_)
    kinks = sorted(descriptor.row.kinks(descriptor))
    for low, high in pairwise(kinks):
        ulp = np.spacing(max(abs(low), abs(high)))
        if high - low <= NARROW * ulp:
            hidden |= (x >= low - BESIDE * ulp) & (x <= high + BESIDE * ulp)
    return hidden
