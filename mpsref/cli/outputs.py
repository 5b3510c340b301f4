"""The files and messages that a command writes."""

from __future__ import annotations

import sys
from pathlib import Path

from mpsref.files import STDOUT, is_stdout

__all__ = ["checkpoint_beside", "interrupted", "output_file", "tell"]


def output_file(text: str) -> Path:
    """An output file; ``-`` and all names of standard output are `STDOUT`."""
    return STDOUT if text == "-" or is_stdout(Path(text)) else Path(text)


def tell(text: str, *outputs: Path | None) -> None:
    """Print text for people: on stdout, or on stderr if one of the outputs goes to stdout."""
    print(text, file=sys.stderr if STDOUT in outputs else sys.stdout, flush=True)


def checkpoint_beside(file: Path | None) -> Path | None:
    """Where the checkpoint of a report goes by default."""
    return None if file in (None, STDOUT) else file.parent / f"{file.name}.checkpoint"


def interrupted(checkpoint: Path | None, option: str) -> None:
    """Say how to go on; `option` is the one that would have kept a checkpoint."""
    kept = checkpoint is not None
    advice = "run the same command again to go on" if kept else f"nothing is kept without {option} or --checkpoint"
    print(f"mpsref: interrupted: {advice}", file=sys.stderr)
