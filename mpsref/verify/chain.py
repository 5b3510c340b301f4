"""The nodes of a recording, with the images of theirs that were recorded, and those found out of bounds so far."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from mpsref.arrays import Elements, Index, Mask, Stored
from mpsref.graph.nodes import MPSNNFilterNode, MPSNNImageNode
from mpsref.graph.schedule import schedule
from mpsref.operations import Operation, Size
from mpsref.record.recording import RecordedImage
from mpsref.storage import StorageFormat
from mpsref.verify.differences import Deferred
from mpsref.verify.judge import Segment
from mpsref.verify.ranges import Range
from mpsref.verify.restored import Restored
from mpsref.verify.running import Running
from mpsref.verify.stored import read as ranges_of
from mpsref.verify.tolerance import Limit

__all__ = ["Chain"]

MOST_RESTORED = 8
"""How many choices of wrong sources are tried."""


class Chain:
    """
    The nodes that make some images.

    Parameters
    ----------
    names : Mapping of MPSNNImageNode to str
        What images are called.
    recorded : Mapping of MPSNNImageNode to RecordedImage
        Those that have a file.
    wanted : sequence of MPSNNImageNode
        Those that are made.

    Attributes
    ----------
    producers : dict of MPSNNImageNode to MPSNNFilterNode
        The nodes by their results, in the order of evaluation.
    formats : dict of MPSNNImageNode to StorageFormat
        Of the results of nodes that were evaluated.
    """

    def __init__(
        self,
        names: Mapping[MPSNNImageNode, str],
        recorded: Mapping[MPSNNImageNode, RecordedImage],
        wanted: Sequence[MPSNNImageNode],
    ) -> None:
        self.names, self.recorded = names, recorded
        self.producers = {node.result_image: node for node in schedule(wanted)}
        self.formats: dict[MPSNNImageNode, StorageFormat] = {}
        self._order = {node: i for i, node in enumerate(self.producers.values())}
        # Where images are out of bounds, eight elements a byte.
        self._beyond: dict[MPSNNImageNode, npt.NDArray[np.uint8]] = {}

    @property
    def operations(self) -> dict[str, Operation]:
        """What makes each image."""
        return {self.names[image]: node.operation for image, node in self.producers.items()}

    def segment(self, last: MPSNNFilterNode, but: Sequence[MPSNNImageNode] = ()) -> list[MPSNNFilterNode]:
        """The nodes between recorded images, but for some, and the last node's result, in the order of evaluation."""
        segment, waiting = {last}, [last]
        while waiting:
            for source in waiting.pop().sources:
                is_given = source in self.recorded and source not in but
                if not is_given and self.producers[source] not in segment:
                    segment.add(self.producers[source])
                    waiting.append(self.producers[source])
        return sorted(segment, key=self._order.__getitem__)

    def inputs(self, nodes: list[MPSNNFilterNode], read: Sequence[Deferred]) -> dict[MPSNNImageNode, Deferred]:
        """What a segment reads; `read` is what its last node does."""
        if len(nodes) == 1:
            return dict(zip(nodes[0].sources, read, strict=True))
        count = read[0].size[0]
        return {image: Deferred.read(self.recorded[image]).first(count) for image in _read_by(nodes, self.recorded)}

    def others(self, result: MPSNNImageNode, size: Size) -> dict[str, Elements]:
        """Other recorded images of the same size."""
        return {
            self.names[image]: entry.elements()
            for image, entry in self.recorded.items()
            if image is not result and entry.size == size
        }

    def unrecorded(self, nodes: Sequence[MPSNNFilterNode]) -> tuple[str, ...]:
        """The images that no file has of those between the nodes, and of those that the last one reads."""
        images = [*(node.result_image for node in nodes[:-1]), *nodes[-1].sources]
        return tuple(dict.fromkeys(self.names[image] for image in images if image not in self.recorded))

    def ranges(self, image: MPSNNImageNode, value: Deferred) -> Callable[[Running], Range]:
        """The ranges of an image that a node reads: as it was recorded, or what the nodes before may have made."""
        if image in self.recorded:
            return lambda f: ranges_of(f, value.elements())
        return Segment(*self._made_of(image), self.formats).read

    def _made_of(self, image: MPSNNImageNode) -> tuple[list[MPSNNFilterNode], dict[MPSNNImageNode, Elements]]:
        """The nodes between recorded images and one that a node makes, and what they read."""
        nodes = self.segment(self.producers[image])
        return nodes, {source: self.recorded[source].elements() for source in _read_by(nodes, self.recorded)}

    # ---- sources that are out of bounds ----

    def blame(self, image: MPSNNImageNode, index: Index, size: int) -> None:
        """Remember where an image is out of bounds."""
        mask = np.zeros(size, np.bool_)
        mask[index] = True
        self._beyond[image] = np.packbits(mask)

    def _is_beyond(self, image: MPSNNImageNode, like: Stored) -> Mask:
        """Where the first images of a batch are out of bounds."""
        return np.unpackbits(self._beyond[image], count=like.size).view(np.bool_).reshape(like.shape)

    def restored(self, nodes: list[MPSNNFilterNode], count: int, limit: Limit) -> tuple[Restored, ...]:
        """What the last node makes if sources that are out of bounds are what they should be: each of them, or all."""
        wrong = _read_by(nodes, self._beyond)
        waiting = _each_and_all(wrong)
        found: list[Restored] = []
        while waiting and len(found) < MOST_RESTORED:
            chosen = waiting.pop(0)
            made = self.segment(nodes[-1], chosen)
            entries = {
                image: Deferred.read(self.recorded[image]).first(count).elements()
                for image in (*_read_by(made, self.recorded), *chosen)
            }
            inputs = {image: value for image, value in entries.items() if image not in chosen}
            sources = {image: (entries[image], self._is_beyond(image, entries[image].stored)) for image in chosen}
            names = tuple(self.names[image] for image in chosen)
            found.append(Restored(names, made, inputs, self.formats, sources, limit))
            # What those were made of may have been overwritten as well.
            if more := [image for image in _read_by(made, self._beyond) if image in inputs and image not in wrong]:
                waiting.append([*more, *chosen])
        return tuple(found)

    def restored_sources(
        self, node: MPSNNFilterNode, limit: Limit
    ) -> Iterator[tuple[tuple[str, ...], dict[MPSNNImageNode, tuple[Elements, Callable[[Running], Range]]]]]:
        """Sources of a node that are out of bounds, each of them and all, as they should be, with their ranges."""
        wrong = _read_by([node], self._beyond)
        for chosen in _each_and_all(wrong):
            right: dict[MPSNNImageNode, tuple[Elements, Callable[[Running], Range]]] = {}
            for image in chosen:
                (nodes, inputs), entry = self._made_of(image), self.recorded[image].elements()
                at = {image: (entry, self._is_beyond(image, entry.stored))}
                made = Restored((self.names[image],), nodes, inputs, self.formats, at, limit).want
                elements = Elements(made.reshape(entry.stored.shape), entry.storage)
                right[image] = elements, Segment(nodes, inputs, self.formats).read
            yield tuple(self.names[image] for image in chosen), right


def _each_and_all(images: list[MPSNNImageNode]) -> list[list[MPSNNImageNode]]:
    """Each image alone, and all together."""
    return [[image] for image in images] + ([images] if len(images) > 1 else [])


def _read_by(nodes: Iterable[MPSNNFilterNode], images: Iterable[MPSNNImageNode]) -> list[MPSNNImageNode]:
    """Which of some images the nodes read, each once."""
    some = set(images)
    return list(dict.fromkeys(source for node in nodes for source in node.sources if source in some))
