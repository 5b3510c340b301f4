"""Recordings of a device that computes the same as the reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hypothesis import strategies as st

from mpsref.arguments import checked
from mpsref.executor import MPSNNGraph
from mpsref.graph.file import GraphFile
from mpsref.graph.schedule import inputs
from mpsref.image import MPSImage
from mpsref.record.recording import write_recording
from mpsref.testing.strategies.arguments import drawn, strategy
from mpsref.testing.strategies.graphs import graph_sources, graphs

__all__ = ["DrawnRecording", "recordings"]


@dataclass(frozen=True)
class DrawnRecording:
    """
    A recording that is not written yet.

    Attributes
    ----------
    graph : GraphFile
        The graph.
    images : Mapping of str to MPSImage
        Its recorded images, by name.
    raw : bool
        Whether the images are written as raw elements, not as ``.npy``.
    """

    graph: GraphFile
    images: Mapping[str, MPSImage]
    raw: bool

    @checked
    def write(self, folder: str | Path) -> Path:
        """
        Write it into a folder, which must be empty or new.

        Returns
        -------
        Path
            Of ``recording.json``.
        """
        return write_recording(folder, self.graph, self.images, "mpsref", raw=self.raw)


@st.composite
def recordings(draw: st.DrawFn, graphs: st.SearchStrategy[GraphFile] | None = None) -> DrawnRecording:
    """
    A strategy for recordings whose images are all right.

    Parameters
    ----------
    graphs : strategy of GraphFile, optional
        Default: `graphs`.

    Notes
    -----
    All sources are recorded, and at least one other image. `mpsref.verify.verify` passes each with any bounds; to see
    it find a fault, change an image first.

    Examples
    --------
    >>> import tempfile
    >>> from hypothesis import find
    >>> from mpsref.testing import strategies as mpst
    >>> from mpsref.verify import verify
    >>> recording = find(mpst.recordings(), lambda r: len(r.images) > 2)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     print(verify(recording.write(folder), tolerance="exact").passed)
    True
    """
    strategy(graphs, GraphFile, "graphs")
    graph = drawn(draw(_graphs() if graphs is None else graphs), GraphFile, "graphs")
    sources = draw(graph_sources(graph))
    results = {name: node for name, node in graph.images.items() if node.producer is not None}
    omitted = draw(st.lists(st.sampled_from(list(results)), unique=True, max_size=len(results) - 1))
    recorded = {name: node for name, node in results.items() if name not in omitted}
    names = {node: name for name, node in graph.images.items()}
    own_graph = MPSNNGraph(result_images=list(recorded.values()), format=graph.storage)
    source_images = [sources[names[node]] for node in inputs(recorded.values())]
    others: list[MPSImage] = []
    first = own_graph.encode(source_images=source_images, intermediate_images=others)
    assert first is not None
    computed = dict(zip(recorded, [first, *others], strict=False))
    return DrawnRecording(graph, sources | computed, draw(st.booleans()))


_graphs = graphs
