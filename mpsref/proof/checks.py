"""Checks of the tallies that a checkpoint has for blocks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from mpsref.errors import ParameterError
from mpsref.origin import digest_of_sources
from mpsref.proof.sweep import EXAMPLES, Block, Tally
from mpsref.storage import StorageFormat, storage_named

__all__ = ["check_tally", "judge_sources", "seal"]


def seal(of: Mapping[str, Any], direction: str, start: int, tally: Mapping[str, Any]) -> str:
    """The SHA-256 of a tally together with its block, proof, software and machine."""
    return hashlib.sha256(json.dumps([of, direction, start, tally], sort_keys=True).encode()).hexdigest()


@cache
def judge_sources() -> str:
    """The digest of the sources that select and judge results."""
    package = Path(__file__).parents[1]
    paths = (package / name for name in ("blocks.py", "proof/judge.py", "proof/sweep.py"))
    return digest_of_sources(path.read_text("utf-8") for path in paths)


def check_tally(tally: Tally, block: Block) -> None:
    """Check that a tally is possible for a block; raises `ParameterError` that names the first impossible count."""
    storage = storage_named(block.channel_format)
    not_finite = _not_finite(block, storage)
    judged = sum(count for name, count in asdict(tally).items() if name.startswith("judged_"))
    finite = block.size - not_finite
    # Of a wide format the whole sample is judged, except for inputs that are not finite.
    least = finite if storage.dtype.itemsize <= 2 else min(block.sample, block.size) - not_finite
    for holds, name in (
        (tally.inputs == block.size, "inputs"),
        (tally.not_finite == not_finite, "not_finite"),
        (tally.nan_results <= block.size, "nan_results"),
        (least <= judged <= finite, "judged"),
        (tally.wrong <= judged, "wrong"),
        (len(tally.examples) == min(tally.wrong, EXAMPLES), "examples"),
        (len(tally.digests) == 1, "digests"),
    ):
        if not holds:
            raise ParameterError(f"{name} cannot be of {block.size} inputs from {block.start:#x} on")


def _not_finite(block: Block, storage: StorageFormat) -> int:
    """How many inputs of a block are NaN or infinite."""
    if storage.unorm_max:
        return 0
    sign = 1 << (8 * storage.dtype.itemsize - 1)
    infinity = int(np.array(np.inf, storage.dtype).view(storage.bits_dtype))
    stop = block.start + block.size
    return sum(max(0, min(stop, s + sign) - max(block.start, s + infinity)) for s in (0, sign))
