"""What an image would hold if some of its recorded sources were what they should be: another look at its node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np

from mpsref.arrays import Elements, Index, Mask, Stored
from mpsref.graph.nodes import MPSNNFilterNode, MPSNNImageNode
from mpsref.storage import StorageFormat
from mpsref.ulp import ulp_distance
from mpsref.verify.compare import NEAR, Tolerance, passes
from mpsref.verify.judge import Segment
from mpsref.verify.models import MODELS, Model
from mpsref.verify.reasons import BEYOND, LATITUDES, WITHIN
from mpsref.verify.tolerance import Bounds, Limit

__all__ = ["Restored"]

AROUND, MANY_OF = 16, 0.25
"""So many elements before and after one in memory; and the share of them that it was hardly left out of."""


class Restored:
    """
    An image whose wrong sources are what they should be.

    Parameters
    ----------
    names : tuple of str
        The sources.
    nodes : sequence of MPSNNFilterNode
        Those that make the sources and then the image, in the order of evaluation.
    inputs : Mapping of MPSNNImageNode to Elements
        What none of them makes.
    formats : Mapping of MPSNNImageNode to StorageFormat
        Of their results.
    wrong : Mapping of MPSNNImageNode to tuple of Elements and ndarray of bool
        The sources as recorded, and where they are out of bounds.
    limit : Limit
        What passes.
    """

    def __init__(
        self,
        names: tuple[str, ...],
        nodes: Sequence[MPSNNFilterNode],
        inputs: Mapping[MPSNNImageNode, Elements],
        formats: Mapping[MPSNNImageNode, StorageFormat],
        wrong: Mapping[MPSNNImageNode, tuple[Elements, Mask]],
        limit: Limit,
    ) -> None:
        self.names = names
        self._nodes, self._inputs, self._formats, self._wrong, self._limit = nodes, inputs, formats, wrong, limit
        self._storage = formats[nodes[-1].result_image]

    @cached_property
    def want(self) -> Stored:
        """What the image should hold, flat."""
        own, restored = dict(self._inputs), dict(self._inputs)
        for node in self._nodes:
            result, storage = node.result_image, self._formats[node.result_image]
            read, recorded = ([images[source] for source in node.sources] for images in (restored, own))
            made = node.operation.of_arrays(read, storage)
            is_same = all(new is old for new, old in zip(read, recorded, strict=True))
            before = made if is_same else node.operation.of_arrays(recorded, storage)
            own[result], restored[result] = before, made
            if result in self._wrong:
                own[result], is_wrong = self._wrong[result]
                bits = storage.bits_dtype
                differs = _overwritten(is_wrong) | (made.stored.view(bits) != before.stored.view(bits))
                restored[result] = Elements(np.where(differs, made.stored, own[result].stored), storage)
        return np.ascontiguousarray(restored[self._nodes[-1].result_image].stored).reshape(-1)

    @cached_property
    def _segment(self) -> Segment:
        return Segment(self._nodes, self._inputs, self._formats)

    def judged(self, got: Stored, index: Index) -> tuple[Mask, Mask]:
        """Which elements at flat indices are within the bounds, whatever the device made of the sources; or excused."""
        want, storage, limit = self.want[index], self._storage, self._limit
        distance = ulp_distance(got, want, storage)
        within = distance <= NEAR
        if isinstance(limit, Tolerance):
            within |= passes(got, want, distance, storage, limit)
        # A tolerance says nothing of what is between the images.
        model = MODELS[(limit if isinstance(limit, Bounds) else Bounds()).model]
        open_, is_excused = np.flatnonzero(~within), np.zeros(index.size, np.bool_)
        if open_.size:
            classes = self._classes(got[open_], index[open_], model)
            within[open_] = np.isin(classes, [WITHIN, *LATITUDES])
            is_excused[open_] = ~within[open_] & (classes != BEYOND)
        return within, is_excused

    def _classes(self, got: Stored, index: Index, model: Model) -> Stored:
        return self._segment.classify(got, index, model)


def _overwritten(is_wrong: Mask) -> Mask:
    """Which elements may not have been read as recorded: out of bounds, or amid many that are."""
    count = np.cumsum(np.pad(is_wrong.reshape(-1), (AROUND + 1, AROUND)), dtype=np.int64)
    share = (count[2 * AROUND + 1 :] - count[: -2 * AROUND - 1]) / (2 * AROUND + 1)
    return is_wrong | (share >= MANY_OF).reshape(is_wrong.shape)
