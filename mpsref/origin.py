"""The software and the machine that made a result."""

from __future__ import annotations

import ast
import hashlib
import platform
import sys
from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

import mpsref

__all__ = ["digest_of_sources", "machine", "software"]


@cache
def software(*packages: str) -> dict[str, str]:
    """Versions, those of other `packages` too, and the digest of the sources that decide results."""
    package = Path(__file__).parent
    sources = sorted([*package.glob("neuron/**/*.py"), package / "storage.py"])
    return {
        **{name: _version(name) for name in packages},
        "mpsref": mpsref.__version__,
        "sources": digest_of_sources(path.read_text("utf-8") for path in sources),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scipy": _version("scipy"),
    }


def digest_of_sources(sources: Iterable[str]) -> str:
    """
    The SHA-256 of what Python sources do: of their syntax trees without comments, docstrings and messages.

    A message is what is raised with an error, and any text with a space. The same for every version of Python.
    """
    digest = hashlib.sha256()
    for source in sources:
        digest.update(hashlib.sha256(repr(_doing(ast.parse(source))).encode()).digest())
    return digest.hexdigest()


def _doing(node: Any) -> Any:
    """A syntax tree as tuples, without text for people or empty fields, which differ between versions of Python."""
    match node:
        case ast.Raise(exc=ast.Call(func=error)):
            return "Raise", _doing(error)
        case ast.Constant(value=str(text)) if " " in text:
            return "Text"
        case ast.AST():
            fields = ((name, _doing(value)) for name, value in ast.iter_fields(node))
            return type(node).__name__, *(field for field in fields if field[1] not in (None, ()))
        case list():
            texts = [isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant) for n in node]
            return tuple(_doing(n) for n, is_text in zip(node, texts, strict=True) if not is_text)
        case _:
            return node


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
    # numpy has no public function that returns them.
    core = sys.modules.get("numpy._core._multiarray_umath")
    features = getattr(core, "__cpu_features__", {})
    used = [*getattr(core, "__cpu_baseline__", ()), *getattr(core, "__cpu_dispatch__", ())]
    return {
        "cpu": model or platform.processor() or platform.machine() or "unknown",
        "simd": [name for name in used if features.get(name)],
    }
