"""Which software made a result, and on which machine."""

from __future__ import annotations

import hashlib
import platform
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

import mpsref

__all__ = ["machine", "software"]


@cache
def software(*packages: str) -> dict[str, str]:
    """Versions, those of other `packages` too, and the SHA-256 of the sources that decide results."""
    package = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted([*package.glob("neuron/*.py"), package / "storage.py"]):
        digest.update(hashlib.sha256(path.read_text("utf-8").encode()).digest())
    return {
        **{name: _version(name) for name in packages},
        "mpsref": mpsref.__version__,
        "sources": digest.hexdigest(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scipy": _version("scipy"),
    }


def _version(package: str) -> str:
    try:
        return version(package) or "unknown"
    except (PackageNotFoundError, ValueError):  # the second for what can be no package's name
        return "unknown"


@cache
def machine() -> dict[str, Any]:
    """The processor, and which of its SIMD features numpy uses."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    except OSError:
        model = ""
    # numpy says it in no other way but print it.
    core = sys.modules.get("numpy._core._multiarray_umath")
    features = getattr(core, "__cpu_features__", {})
    used = [*getattr(core, "__cpu_baseline__", ()), *getattr(core, "__cpu_dispatch__", ())]
    return {
        "cpu": model or platform.processor() or platform.machine() or "unknown",
        "simd": [name for name in used if features.get(name)],
    }
