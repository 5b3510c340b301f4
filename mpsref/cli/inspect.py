"""``mpsref inspect``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from mpsref.cli.status import PASSED
from mpsref.record import contents, contents_text

__all__ = ["define", "run"]


def define(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Show what is in a recording, a graph file, a .npy, .npz or .safetensors file; of a graph also what is "
        "suspicious, as mpsref.check does."
    )
    parser.add_argument("file", metavar="FILE", type=Path)
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(options: argparse.Namespace) -> int:
    facts = contents(options.file)
    print(json.dumps(facts, indent=1) if options.json else contents_text(facts))
    return PASSED
