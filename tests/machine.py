"""What this machine has: marks for tests that need a C++ compiler, or an adapter of wgpu; and recordings made on it."""

from pathlib import Path

import pytest

from mpsref.cli import main
from mpsref.errors import DependencyError
from mpsref.lab.cpu import compiler
from mpsref.lab.webgpu import adapters


def _has(find):
    try:
        return bool(find())
    except DependencyError:
        return False


needs_compiler = pytest.mark.skipif(not _has(compiler), reason="no C++ compiler with _Float16")
needs_adapter = pytest.mark.skipif(not _has(adapters), reason="no wgpu, or no adapter (mesa-vulkan-drivers has one)")

GRAPH = Path(__file__).parents[1] / "examples" / "metal" / "tanh.json"


def recorded(tmp_path, *options, graph=GRAPH, shape="16x24x9"):
    """The exit status of ``mpsref record``, and where the recording is."""
    out = tmp_path / "rec"
    status = main(["record", str(graph), "--shape", shape, "--out", str(out), *options])
    return status, out / "recording.json"
