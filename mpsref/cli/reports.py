"""Reports as JSON, and the checkpoints beside them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from mpsref.cli.status import INTERRUPTED
from mpsref.documents import write_atomically

__all__ = ["checkpoint_beside", "interrupted", "write_json"]


def write_json(path: Path, document: Any) -> None:
    """Write a document, whole or not at all."""
    data = (json.dumps(document, indent=1) + "\n").encode()
    write_atomically(path, lambda out: out.write(data))


def checkpoint_beside(file: Path) -> Path:
    """Where the checkpoint of a report goes by default."""
    return file.with_name(f"{file.name}.checkpoint")


def interrupted(checkpoint: Path | None, option: str) -> int:
    """Say what to do next; option is the one that would have kept a checkpoint."""
    kept = checkpoint is not None
    advice = "run the same command again to go on" if kept else f"nothing is kept without {option} or --checkpoint"
    print(f"mpsref: interrupted: {advice}", file=sys.stderr)
    return INTERRUPTED
