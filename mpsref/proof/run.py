"""The sweep of a whole subject: blocks, workers, and a checkpoint that survives a kill."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mpsref.arguments import checked
from mpsref.blocks import in_blocks
from mpsref.documents import read_document
from mpsref.errors import FileFormatError, ParameterError
from mpsref.files import write_atomically
from mpsref.origin import machine
from mpsref.proof.certificate import DIRECTIONS, Subject, certificate, software
from mpsref.proof.checks import check_tally, judge_sources, seal
from mpsref.proof.sweep import Block, Tally, require_judge, sweep

__all__ = ["prove"]

SECONDS = 1.0
"""At least so long a checkpoint is as it is."""


@checked
def prove(
    subject: Subject,
    *,
    workers: int = 1,
    checkpoint: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """
    Evaluate every input of a subject, in both directions; judge all results near rounding boundaries, and a sample.

    Parameters
    ----------
    subject : Subject
        What to prove.
    workers : int
        How many processes; with 1 it is this one.
    checkpoint : Path, optional
        A file that keeps the blocks that are done. If it is there, the proof goes on from it. It is not deleted.
    progress : callable, optional
        Called with the number of results that are done, and of all.

    Returns
    -------
    dict
        The certificate, as JSON.

    Raises
    ------
    DependencyError
        python-flint is not installed.
    FileFormatError
        The checkpoint cannot be read or written, or is one of something else.

    Examples
    --------
    >>> import mpsref as mps
    >>> from mpsref.proof import Subject, prove
    >>> geLU = mps.MPSNNNeuronDescriptor(mps.MPSCNNNeuronType.geLU)
    >>> prove(Subject(geLU, mps.MPSImageFeatureChannelFormat.unorm8))["wrong"]
    0
    """
    require_judge()
    kept = _Checkpoint(checkpoint, subject)
    blocks = subject.blocks()
    to_do = [block for block in blocks if _key(block) not in kept.tallies]
    of_all = sum(block.size for block in blocks)
    done = of_all - sum(block.size for block in to_do)
    if progress is not None:
        progress(done, of_all)
    kept.write()
    try:
        for block, tally in in_blocks(sweep, to_do, workers):
            kept.keep(block, tally)
            done += block.size
            if progress is not None:
                progress(done, of_all)
    finally:
        kept.write()
    found = {direction: Tally() for direction in DIRECTIONS}
    for block in blocks:
        found[DIRECTIONS[block.derivative]].add(kept.tallies[_key(block)])
    return certificate(subject, found, workers, kept.seconds())


def _key(block: Block) -> tuple[str, int]:
    return DIRECTIONS[block.derivative], block.start


class _Checkpoint:
    """The blocks that are done, in memory and in a file that is always whole."""

    def __init__(self, path: Path | None, subject: Subject) -> None:
        self.tallies: dict[tuple[str, int], Tally] = {}
        self._path = path
        # What a block depends on; how many workers there are is free to change.
        self._of = subject.to_json() | {"software": software(), "judge": judge_sources(), "machine": machine()}
        self._before, self._began, self._written = 0.0, time.monotonic(), 0.0
        if path is not None and path.exists():
            self._read(path, {_key(block): block for block in subject.blocks()})

    def _read(self, path: Path, blocks: dict[tuple[str, int], Block]) -> None:
        document = read_document(path, "checkpoint")
        for name, value in self._of.items():
            if document["of"].get(name) != value:
                raise FileFormatError(
                    f"{path}: the checkpoint of another proof ({name} differs): delete it, or name another --checkpoint"
                )
        self._before = document["wall_seconds"]
        for i, entry in enumerate(document["blocks"]):
            try:
                self._keep_entry(entry, blocks)
            except ParameterError as error:
                raise FileFormatError(f"{path}: blocks[{i}]: {error}: delete the checkpoint") from None

    def _keep_entry(self, entry: dict[str, Any], blocks: dict[tuple[str, int], Block]) -> None:
        key, tally = (entry["direction"], entry["start"]), Tally(**entry["tally"])
        if key not in blocks:
            raise ParameterError("is none of this proof")
        if key in self.tallies:
            raise ParameterError("is there twice")
        check_tally(tally, blocks[key])
        if entry["sha256"] != seal(self._of, *key, entry["tally"]):
            raise ParameterError("sha256 is not that of its tally in this proof")
        self.tallies[key] = tally

    def seconds(self) -> float:
        """How long it took, with what was done before."""
        return self._before + time.monotonic() - self._began

    def keep(self, block: Block, tally: Tally) -> None:
        """Keep what was found in a block."""
        self.tallies[_key(block)] = tally
        if time.monotonic() - self._written > SECONDS:
            self.write()

    def write(self) -> None:
        """Write the file, if there is one."""
        if self._path is None:
            return
        document = {
            "format": "mpsref-checkpoint",
            "version": 2,
            "of": self._of,
            "wall_seconds": self.seconds(),
            "blocks": [
                {
                    "direction": direction,
                    "start": start,
                    "tally": asdict(tally),
                    "sha256": seal(self._of, direction, start, asdict(tally)),
                }
                for (direction, start), tally in self.tallies.items()
            ],
        }
        text = json.dumps(document) + "\n"
        write_atomically(self._path, lambda file: file.write(text.encode()))
        self._written = time.monotonic()
