"""The files and messages that a command writes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from mpsref.files import STDOUT, is_stdout, write_atomically

__all__ = ["checkpoint_beside", "interrupted", "output_file", "tell", "write_json"]


def output_file(text: str) -> Path:
    """An output file; ``-`` and all names of standard output are `STDOUT`."""
    return STDOUT if text == "-" or is_stdout(Path(text)) else Path(text)


def write_json(path: Path, document: Any) -> None:
    """Write a document, whole or not at all."""
    data = (json.dumps(document, indent=1) + "\n").encode()
    write_atomically(path, lambda out: out.write(data))


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
