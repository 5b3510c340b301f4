"""
Kernels of the Metal Shading Language on this machine's processor, each run in a process of its own.

They compute with the machine's IEEE arithmetic and its library's functions: formula, layout, indexing and edges are
those of the kernel; what a GPU makes of ``exp``, of fast mathematics and of races does not show.
"""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from mpsref.errors import DependencyError, ImplementationError
from mpsref.lab import msl

__all__ = ["Limits", "Program", "Work", "compiler", "compiler_version"]

Array = npt.NDArray[Any]
FORMATS = {"float16": 0, "float32": 1, "uint8": 2, "uint16": 3}
"""Codes of texture formats, by the dtype of their components; integers are unorm."""

CANDIDATES = ("c++", "g++", "clang++", "g++-14", "g++-13", "g++-12", "clang++-18", "clang++-17", "clang++-16")
LONGEST_ERROR = 600

UNSUPPORTED = re.compile(
    r"\b(texture(1d|3d|cube|_buffer)\w*|depth2d\w*|atomic_\w+|(metal_)?simdgroup_(matrix|half|float|bfloat)\w*|imageblock)\b"
)
"""Parts of the language that the header leaves out."""


@dataclass(frozen=True)
class Limits:
    """What a run of a kernel may take: seconds, and MiB of memory besides the images."""

    seconds: int = 60
    memory: int = 1024


@dataclass
class Work:
    """
    What a kernel is called with.

    Attributes
    ----------
    grid, group : tuple of int
        Threads in all, and in a threadgroup.
    buffers, textures : dict of int to ndarray
        By index; textures of shape (slices, height, width, components). After the run they hold what is there then.
    shared : dict of int to int
        Bytes of threadgroup memory.
    outside : dict of int to int
        After the run: for each texture, how often it was accessed outside its edges.
    """

    grid: tuple[int, int, int]
    group: tuple[int, int, int]
    buffers: dict[int, Array] = field(default_factory=dict)
    textures: dict[int, Array] = field(default_factory=dict)
    shared: dict[int, int] = field(default_factory=dict)
    outside: dict[int, int] = field(default_factory=dict)


def compiler() -> str:
    """
    A C++ compiler of this machine with a half type: that of the variable CXX, else one of the usual names.

    Raises
    ------
    DependencyError
        There is none.
    """
    own = os.environ.get("CXX")
    for name in [own] if own else CANDIDATES:
        path = shutil.which(name)
        if path and _compiles(path, "#include <ucontext.h>\n_Float16 half(float x) { return _Float16(x); }\n"):
            return path
    names = own or "g++ 12 or clang++ 15"
    raise DependencyError(f"{names}: no C++ compiler with _Float16: install g++ 12 or later, or name one with CXX")


def compiler_version(path: str) -> str:
    """What a compiler says of itself, in one line."""
    done = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
    return done.stdout.partition("\n")[0]


@cache
def _compiles(path: str, text: str) -> bool:
    command = [path, "-std=gnu++17", "-fsyntax-only", "-x", "c++", "-"]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False).returncode == 0


class Program:
    """
    Kernels of a ``.metal`` file, compiled. A context: its files are removed at the end.

    Parameters
    ----------
    text : str
        Of the file.
    names : sequence of str
        The kernels.
    where : str
        The file's name for errors.
    folder : Path, optional
        Where its includes are.
    constants : Mapping of str to str
        Values of function constants, as literals.

    Attributes
    ----------
    kernels : dict of str to Kernel
        By name.
    expanded : str
        The text without directives.

    Raises
    ------
    DependencyError
        There is no C++ compiler.
    ImplementationError
        It does not compile, or a kernel is missing; the message has the compiler's first errors.
    """

    def __init__(
        self,
        text: str,
        names: Sequence[str],
        where: str,
        *,
        folder: Path | None = None,
        constants: Mapping[str, str] | None = None,
    ) -> None:
        self._where, self._compiler = where, compiler()
        self._folder = tempfile.TemporaryDirectory(prefix="mpsref-")
        try:
            self.expanded = self._expand(text, folder)
            self.kernels = {name: self._read(name) for name in names}
            self._missing(constants or {})
            self._compile(msl.adapted(msl.without_instances(self.expanded), constants or {}))
        except BaseException:
            self._folder.cleanup()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove what was compiled."""
        self._folder.cleanup()

    # ---- compiling ----

    def _path(self, name: str) -> Path:
        return Path(self._folder.name, name)

    def _expand(self, text: str, folder: Path | None) -> str:
        """One text without directives: Metal's own headers are empty here, those of the user are included."""
        stubs = self._path("stubs")
        stubs.mkdir()
        for name in msl.HEADERS:
            (stubs / name).touch()
        command = ["-E", "-x", "c++", "-std=gnu++17", "-undef", "-D__METAL__=1", "-D__METAL_VERSION__=310"]
        command += [f"-I{stubs}", *([f"-I{folder}"] if folder else [])]
        source = self._path("kernel.metal")
        # Errors name the user's file.
        source.write_text(f'#line 1 "{self._where}"\n{text}', encoding="utf-8")
        return self._run_compiler([*command, str(source)])

    def _read(self, name: str) -> msl.Kernel:
        try:
            return msl.read(self.expanded, name)
        except ImplementationError as error:
            raise ImplementationError(f"{self._where}: {error}") from None

    def _missing(self, constants: Mapping[str, str]) -> None:
        for spelled, name in msl.function_constants(self.expanded):
            if name not in constants:
                raise ImplementationError(
                    f"{self._where}: the function constant {spelled} {name} has no value: give --argument {name}=VALUE"
                )

    def _compile(self, text: str) -> None:
        has_barriers = re.search(r"\b(threadgroup|simdgroup)_barrier\s*\(", text) is not None
        parts = ["#include <metal_stdlib>", text, '#include "runtime.h"']
        for number, kernel in enumerate(self.kernels.values()):
            arguments = ", ".join(map(_passed, kernel.arguments))
            parts.append(
                f"static void entry_{number}(const launch_ &l, const thread_ &t) {{ {kernel.call}({arguments}); }}"
            )
        entries = ", ".join(f"entry_{number}" for number in range(len(self.kernels)))
        parts += [
            f"static const entry_ entries[] = {{{entries}}};",
            f"static void launched(const launch_ &l) {{ lab::run(l, entries[l.kernel_number], {int(has_barriers)}); }}",
            "int main(int count, char **names) { return lab::main(count, names, launched); }",
        ]
        source = self._path("kernel.cpp")
        source.write_text("\n".join(parts), encoding="utf-8")
        with resources.as_file(resources.files("mpsref.lab") / "metal") as headers:
            command = ["-std=gnu++17", "-O1", "-w", "-fno-strict-aliasing", "-ffp-contract=off", f"-I{headers}"]
            # Excess precision of half is a fault; clang has none, and no such option.
            command += ["-fexcess-precision=16"] if "clang" not in compiler_version(self._compiler) else []
            self._run_compiler([*command, str(source), "-o", str(self._path("kernel")), "-lm"])

    def _run_compiler(self, arguments: list[str]) -> str:
        done = subprocess.run(
            [self._compiler, *arguments], capture_output=True, text=True, check=False, errors="replace"
        )
        if done.returncode:
            if found := UNSUPPORTED.search(done.stderr):
                raise ImplementationError(f"{self._where}: it uses {found[0]}, which is not run here")
            errors = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines()[-3:]
            text = " | ".join(errors)[:LONGEST_ERROR].replace(f"{self._folder.name}/", "")
            raise ImplementationError(f"{self._where}: does not compile: {text}")
        return done.stdout

    def fields_of(self, name: str) -> tuple[tuple[msl.Field, ...], int]:
        """The fields and the size of a parameter, see `mpsref.lab.msl.fields_of`."""
        return msl.fields_of(self.expanded, name)

    # ---- running ----

    def run(self, name: str, work: Work, limits: Limits | None = None) -> None:
        """
        Run a kernel in a process of its own; the arrays of `work` then hold what it has left.

        Raises
        ------
        ImplementationError
            Something is not bound, or the kernel leaves its memory, crashes, or takes too long.
        """
        limits = limits or Limits()
        kernel, number = self.kernels[name], list(self.kernels).index(name)
        for argument in kernel.arguments:
            bound = work.textures if argument.kind == "texture" else work.buffers
            if argument.kind in ("pointer", "reference", "texture") and argument.index not in bound:
                raise ImplementationError(f"{self._where}: {name}: nothing is bound to {argument.place}, {argument}")
        size = sum(array.nbytes for array in (*work.buffers.values(), *work.textures.values()))
        job, result = self._path("job"), self._path("result")
        with job.open("wb") as file:
            # Guard pages and copies of the file's buffers take memory too.
            words = [limits.seconds, limits.memory + size // 2**19, number, *work.grid, *work.group]
            file.write(struct.pack("<9I", *words))
            file.write(struct.pack("<I", len(work.buffers)))
            for index, array in work.buffers.items():
                file.write(struct.pack("<2I", index, array.nbytes) + array.tobytes())
            file.write(struct.pack("<I", len(work.textures)))
            for index, array in work.textures.items():
                slices, height, width, components = array.shape
                code = FORMATS[array.dtype.name]
                head = struct.pack("<7I", index, width, height, slices, components, code, array.nbytes)
                file.write(head + array.tobytes())
            file.write(struct.pack("<I", len(work.shared)))
            for index, count in work.shared.items():
                file.write(struct.pack("<2I", index, count))
        self._execute(name, [str(self._path("kernel")), str(job), str(result)], limits)
        data = memoryview(result.read_bytes())
        for arrays in (work.buffers, work.textures):
            for index, array in arrays.items():
                arrays[index] = np.frombuffer(data[: array.nbytes], array.dtype).reshape(array.shape).copy()
                data = data[array.nbytes :]
        counts = struct.unpack("<32Q", data)
        work.outside = {index: counts[index] for index in work.textures}

    def _execute(self, name: str, command: list[str], limits: Limits) -> None:
        where = f"{self._where}: {name}"
        try:
            done = subprocess.run(command, capture_output=True, timeout=2 * limits.seconds + 10, check=False)
        except subprocess.TimeoutExpired:
            raise ImplementationError(f"{where}: not done after {2 * limits.seconds + 10} s: end its loops") from None
        if done.returncode:
            said = done.stderr.decode("utf-8", "replace").strip()[:LONGEST_ERROR]
            if not said:
                said = (
                    f"it takes more than {limits.seconds} s" if -done.returncode == 24 else f"signal {-done.returncode}"
                )
            raise ImplementationError(f"{where}: {said}")


def _passed(argument: msl.Argument) -> str:
    """What C++ passes for an argument: it converts to the declared type."""
    return {
        "pointer": f"metal::bound_pointer_{{l.buffers[{argument.index}]}}",
        "reference": f"metal::bound_reference_{{l.buffers[{argument.index}]}}",
        "texture": f"metal::bound_texture_{{l.textures[{argument.index}]}}",
        "threadgroup": f"metal::bound_pointer_{{l.shared[{argument.index}]}}",
        "thread": f"t.{argument.attribute}",
    }[argument.kind]
