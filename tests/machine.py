"""What this machine has: marks for tests that need a C++ compiler, or an adapter of wgpu."""

import pytest

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
