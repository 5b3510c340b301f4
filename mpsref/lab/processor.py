"""Our own kernels, in the Metal Shading Language, on this machine's processor."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Iterable, Sequence
from typing import Self

import numpy as np

from mpsref.image import MPSImage, MPSImageDescriptor
from mpsref.lab.cpu import Limits, Program, Work, compiler, compiler_version
from mpsref.lab.kernels import kernels_of, text
from mpsref.lab.languages import GROUP, TILE, Kernel, Style
from mpsref.lab.work import elements_of, empty_image, image_of, parameters_of, read_by_name, slopes_of, uniform_style
from mpsref.operations import Operation

__all__ = ["Processor", "default_group", "processor_name"]


def processor_name() -> str:
    """What a recording calls the processor."""
    return f"{platform.machine()} processor, {compiler_version(compiler())}, kernels in MSL, IEEE arithmetic"


class Processor:
    """
    Runs our own kernels. A context: what was compiled is removed at the end.

    Parameters
    ----------
    operations : iterable of Operation
        What it will run: all are compiled at once.
    memory : str or None
        ``buffers`` or ``textures``; default: buffers, where all images of a node have one floating-point format.
    limits : Limits, optional
        What a kernel may take.

    Attributes
    ----------
    device : str
        What runs the kernels.
    """

    def __init__(
        self, operations: Iterable[Operation], memory: str | None = None, limits: Limits | None = None
    ) -> None:
        self._operations, self._memory, self._limits = list(operations), memory, limits
        self.device = processor_name()
        self._programs: dict[Style, tuple[dict[Operation, Kernel], Program]] = {}
        self._open = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    def run(self, operation: Operation, sources: Sequence[MPSImage], result: MPSImageDescriptor) -> MPSImage:
        """The result of an operation."""
        images = read_by_name(operation, sources)
        style = uniform_style(images, result, self._memory)
        if style.memory == "textures":
            style = Style("textures")  # as float, whatever the format
        kernels, program = self._compiled(style)
        kernel = kernels[operation]
        out, parameters = empty_image(result), np.frombuffer(parameters_of(operation, result), np.uint8)
        bound = [images[name] for name in kernel.images]
        slopes = [slopes_of(operation)] if kernel.per_channel else []
        if style.memory == "textures":
            slices, height, width, _ = out.texture.shape
            work = Work((width, height, slices), (TILE, TILE, 1))
            work.buffers = dict(enumerate([parameters, *slopes]))
            work.textures = dict(enumerate(image.texture for image in (*bound, out)))
        else:
            elements = [elements_of(image) for image in (*bound, out)]
            work = Work((elements[-1].size, 1, 1), (GROUP, 1, 1))
            work.buffers = dict(enumerate([*elements[:-1], *slopes, elements[-1], parameters]))
        program.run(kernel.name, work, self._limits)
        last = len(bound)
        stored = work.textures[last] if style.memory == "textures" else work.buffers[last + len(slopes)]
        return image_of(stored, result, style)

    def _compiled(self, style: Style) -> tuple[dict[Operation, Kernel], Program]:
        if style not in self._programs:
            kernels = kernels_of(self._operations, style)
            names = list(dict.fromkeys(kernel.name for kernel in kernels.values()))
            program = Program(text(kernels.values(), "msl", style), names, "our own kernels")
            self._programs[style] = kernels, self._open.enter_context(program)
        return self._programs[style]


def default_group(grid: tuple[int, int, int]) -> tuple[int, int, int]:
    """The threads of a group, for a grid of textures or of elements."""
    return (GROUP, 1, 1) if grid[1:] == (1, 1) else (TILE, TILE, 1)
