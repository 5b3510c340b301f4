"""The proof of a whole subject: blocks, workers, and a checkpoint that survives a kill."""

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
"""The least time between two writes of a checkpoint."""


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
        Number of processes; 1 is this process.
    checkpoint : Path, optional
        A file for the finished blocks. If it exists, the proof goes on from it. It is not deleted.
    progress : callable, optional
        Called with the numbers of finished results and of all results.

    Returns
    -------
    dict
        The certificate, as JSON.

    Raises
    ------
    DependencyError
        python-flint is not installed.
    FileFormatError
        The checkpoint cannot be read or written, or is that of another proof.

    Examples
    --------
    >>> import mpsref as mps
    >>> from mpsref.proof import Subject, prove
    >>> geLU = mps.MPSNNNeuronDescriptor(mps.MPSCNNNeuronType.geLU)
    >>> prove(Subject(geLU, mps.MPSImageFeatureChannelFormat.unorm8))["wrong"]
    0
    """
    require_judge()
    finished = _Checkpoint(checkpoint, subject)
    blocks = subject.blocks()
    rest = [block for block in blocks if _key(block) not in finished.tallies]
    total = sum(block.size for block in blocks)
    done = total - sum(block.size for block in rest)
    if progress is not None:
        progress(done, total)
    finished.write()
    try:
        for block, tally in in_blocks(sweep, rest, workers):
            finished.add(block, tally)
            done += block.size
            if progress is not None:
                progress(done, total)
    finally:
        finished.write()
    tallies = {direction: Tally() for direction in DIRECTIONS}
    for block in blocks:
        tallies[DIRECTIONS[block.derivative]].add(finished.tallies[_key(block)])
    return certificate(subject, tallies, workers, finished.seconds())


def _key(block: Block) -> tuple[str, int]:
    return DIRECTIONS[block.derivative], block.start


class _Checkpoint:
    """The finished blocks, in memory and in a file that is always whole."""

    def __init__(self, path: Path | None, subject: Subject) -> None:
        self.tallies: dict[tuple[str, int], Tally] = {}
        self._path = path
        # Everything that a tally depends on; the number of workers may change.
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
                self._add_entry(entry, blocks)
            except ParameterError as error:
                raise FileFormatError(f"{path}: blocks[{i}]: {error}: delete the checkpoint") from None

    def _add_entry(self, entry: dict[str, Any], blocks: dict[tuple[str, int], Block]) -> None:
        key, tally = (entry["direction"], entry["start"]), Tally(**entry["tally"])
        if key not in blocks:
            raise ParameterError("does not belong to this proof")
        if key in self.tallies:
            raise ParameterError("is a duplicate")
        check_tally(tally, blocks[key])
        if entry["sha256"] != seal(self._of, *key, entry["tally"]):
            raise ParameterError("sha256 is not that of its tally in this proof")
        self.tallies[key] = tally

    def seconds(self) -> float:
        """The wall time, including that before an interruption."""
        return self._before + time.monotonic() - self._began

    def add(self, block: Block, tally: Tally) -> None:
        """Add a finished block, and from time to time write the file."""
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
