"""A kernel of somebody else: what each of its arguments is bound to, and its result for a node of a graph."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from mpsref.arrays import Stored
from mpsref.errors import FileFormatError, ImplementationError
from mpsref.image import MPSImage, MPSImageDescriptor
from mpsref.lab.cpu import Limits, Program, Work
from mpsref.lab.kernels import images_read
from mpsref.lab.languages import Style
from mpsref.lab.msl import SCALARS, Argument, Field, Kernel, size_of
from mpsref.lab.processor import default_group
from mpsref.lab.work import elements_of, empty_image, image_of, numbers_of, read_by_name, slopes_of
from mpsref.operations import Operation

__all__ = ["Compiled", "ForeignKernel", "Given"]

Array = npt.NDArray[Any]

IMAGE_NAMES = {
    "source": ("source", "x", "src", "input", "in", "inp"),
    "gradient": ("gradient", "dy", "incoming", "upstream", "grad", "gradout", "gradoutput", "dout", "sourcegradient"),
    "secondary": ("secondary", "other", "second"),
    "slopes": ("slopes", "weights"),
    "result": ("result", "y", "dx", "dst", "destination", "output", "out", "gradin", "gradinput"),
}
"""Names by which an argument is taken for an image, or the slopes of pReLU, as `_plain` makes them."""

PARAMETER_NAMES = ("p", "params", "parameters", "args", "arguments", "uniforms", "constants")
"""Likewise for parameters behind a pointer."""

NUMBER_NAMES = {
    "a": ("a", "alpha"),
    "b": ("b", "beta"),
    "c": ("c",),
    "size": ("size", "n", "count", "length", "len", "elements", "numelements", "numel", "total", "dim", "ne"),
    "channels": ("channels", "featurechannels"),
    "width": ("width", "w"),
    "height": ("height", "h"),
    "slices": ("slices",),
    "images": ("images", "numberofimages", "batch"),
}
"""Likewise for a number: of a field or argument."""

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


@dataclass
class Given:
    """
    What is said about the arguments of a kernel.

    Attributes
    ----------
    places : dict of str to list of str
        For a place, such as ``buffer0``, or an argument's name: what is bound there.
    numbers : dict of str to float
        Values of arguments, fields of structs, and function constants, by name.
    """

    places: dict[str, list[str]] = field(default_factory=dict)
    numbers: dict[str, float] = field(default_factory=dict)

    @classmethod
    def parsed(cls, texts: Sequence[str]) -> Given:
        """
        Of ``source=texture0`` and ``scale=0.5``.

        Raises
        ------
        FileFormatError
            A text is neither.

        Examples
        --------
        >>> Given.parsed(["source=texture0", "count=4096"])
        Given(places={'texture0': ['source']}, numbers={'count': 4096.0})
        """
        given = cls()
        for text in texts:
            name, equals, value = text.partition("=")
            if not (name and equals and value):
                raise FileFormatError(f"--argument {text}: give WHAT=PLACE, such as source=texture0, or NAME=NUMBER")
            if value in ("true", "false") or NUMBER.fullmatch(value):
                given.numbers[name] = float({"true": "1", "false": "0"}.get(value, value))
            else:
                given.places.setdefault(value, []).append(name)
        return given


class Compiled(Protocol):
    """A file with a kernel, ready to run."""

    @property
    def kernels(self) -> Mapping[str, Kernel]:
        """By name."""

    def fields_of(self, name: str) -> tuple[tuple[Field, ...], int]:
        """The fields and the size of a parameter."""

    def run(self, name: str, work: Work, limits: Limits | None = None) -> None:
        """Run a kernel; the arrays of `work` then hold what it has left."""

    def close(self) -> None:
        """Remove what was compiled."""


class ForeignKernel:
    """
    A kernel of a ``.metal`` file, compiled for this machine or its GPU, or of a ``.wgsl`` file. A context.

    Parameters
    ----------
    path : Path
        The file.
    function : str
        The kernel's name; of an instance of a template, its host name.
    given : Given, optional
        What its arguments are; the rest is known by their names.
    grid, group : tuple of three int, optional
        Threads in all, and of a group. Default: one for each texel of the result; where it has no texture, one for each
        element.
    limits : Limits, optional
        What it may take, on this machine's processor.
    program : callable, optional
        What compiles and runs it, with the arguments of `Program`, of this machine's processor.

    Attributes
    ----------
    notes : list of str
        What was seen when it ran.

    Raises
    ------
    FileFormatError
        The file cannot be read.
    DependencyError, ImplementationError
        See `mpsref.lab.cpu.Program` and `mpsref.lab.webgpu.WebProgram`.
    """

    def __init__(
        self,
        path: Path,
        function: str,
        given: Given | None = None,
        *,
        grid: tuple[int, int, int] | None = None,
        group: tuple[int, int, int] | None = None,
        limits: Limits | None = None,
        program: Callable[..., Compiled] = Program,
    ) -> None:
        self._path, self._function, self._given = path, function, given or Given()
        self._grid, self._group, self._limits = grid, group, limits
        self.notes: list[str] = []
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise FileFormatError(f"{path}: cannot be read: {error}: give a .metal or .wgsl file") from None
        constants = {name: _literal(value) for name, value in self._given.numbers.items()}
        self._program = program(text, [function], str(path), folder=path.parent, constants=constants)
        self._kernel = self._program.kernels[function]

    @property
    def name(self) -> str:
        """File and kernel."""
        return f"{self._path.name}:{self._function}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._program.close()

    def run(
        self,
        operation: Operation,
        sources: Sequence[MPSImage],
        result: MPSImageDescriptor,
        others: Mapping[str, MPSImage] | None = None,
    ) -> MPSImage:
        """
        The result for an operation.

        Parameters
        ----------
        operation : Operation
            What the kernel is to compute.
        sources : sequence of MPSImage
            What the node reads.
        result : MPSImageDescriptor
            Size and format of the result.
        others : Mapping of str to MPSImage, optional
            Further images that may be bound, by name.

        Raises
        ------
        ImplementationError
            An argument is not known, or the kernel crashes or takes too long.
        """
        binding = _Binding(self._kernel, self._given, operation, result, str(self._path), self._program)
        images = {**(others or {}), **read_by_name(operation, sources)}
        out = empty_image(result)
        work, place = binding.work(images, out)
        has_textures = any(argument.kind == "texture" for argument in self._kernel.arguments)
        slices, height, width, _ = out.texture.shape
        each = max(size_of(place.type), out.storage.dtype.itemsize)
        grid = (width, height, slices) if has_textures else (-(-elements_of(out).nbytes // each), 1, 1)
        work.grid = self._grid or grid
        work.group = self._group or default_group(work.grid)
        if self._grid is None and not any(argument.attribute == "place" for argument in self._kernel.arguments):
            # Who counts by groups has whole ones.
            x, y, z = (-(-n // each) * each for n, each in zip(work.grid, work.group, strict=True))
            work.grid = x, y, z
        self._program.run(self._function, work, self._limits)
        self.notes = [
            f"texture{index} is read or written outside its edges {count:,} times"
            for index, count in work.outside.items()
            if count
        ]
        if place.kind == "texture":
            return image_of(work.textures[place.index], result, Style("textures"))
        stored = work.buffers[place.index].view(out.storage.dtype)
        return image_of(stored, result, Style("buffers"))


class _Binding:
    """What each argument of a kernel is, for one operation."""

    def __init__(
        self,
        kernel: Kernel,
        given: Given,
        operation: Operation,
        result: MPSImageDescriptor,
        path: str,
        program: Compiled,
    ) -> None:
        self._kernel, self._given, self._operation, self._program = kernel, given, operation, program
        self._where = f"{path}: {kernel.name}"
        self._numbers = numbers_of(operation, result)
        self._bound: set[str] = set()
        self._result: Argument | None = None

    def work(self, images: Mapping[str, MPSImage], out: MPSImage) -> tuple[Work, Argument]:
        """The work, without a grid, and the argument of the result."""
        work = Work((1, 1, 1), (1, 1, 1))
        self._check_places()
        for argument in self._kernel.arguments:
            if argument.kind in ("thread", "sampler"):
                continue
            if argument.kind == "threadgroup":
                work.shared[argument.index] = 32_768
                continue
            names = self._names(argument)
            image_names = [name for name in names if name != "result"]
            if "result" in names:
                self._result = argument
            if names == ["slopes"]:
                work.buffers[argument.index] = self._slopes(argument)
            elif names:
                chosen = out if not image_names else self._image(images, image_names[0])
                self._bound |= {*names}
                if argument.kind == "texture":
                    work.textures[argument.index] = chosen.texture
                else:
                    work.buffers[argument.index] = self._elements(argument, chosen)
            else:
                work.buffers[argument.index] = self._parameters(argument)
        # What another image of the graph is bound for, on purpose, is missing.
        needed = [] if self._bound - {*IMAGE_NAMES} else read_names(self._operation)
        for name in [*needed, "result"]:
            if name not in self._bound:
                raise self._error(f"{name} is bound to nothing: give --argument {name}=PLACE, one of {self._places()}")
        assert self._result is not None
        return work, self._result

    def _check_places(self) -> None:
        known = self._places().split(", ")
        for place, names in self._given.places.items():
            if place not in known:
                raise self._error(f"--argument {names[0]}={place}: it has {self._places()}")

    def _places(self) -> str:
        bound = [one for one in self._kernel.arguments if one.kind not in ("thread", "threadgroup", "sampler")]
        return ", ".join(sorted({*(one.place for one in bound), *(one.name for one in bound)}))

    def _names(self, argument: Argument) -> list[str]:
        """What an image argument is: by what was given, else by its own name; none for numbers."""
        given = self._given.places
        if names := [*given.get(argument.place, ()), *given.get(argument.name, ())]:
            return [] if names == ["parameters"] else names
        if argument.kind == "reference" or _plain(argument.name) in PARAMETER_NAMES:
            return []
        for name, spelled in IMAGE_NAMES.items():
            taken = any(name in names for names in given.values())
            if _plain(argument.name) in spelled and not taken:
                return [name]
        if argument.kind == "texture" or _component(argument.type):
            if argument.name in self._given.numbers or _role(argument.name) in self._numbers:
                return []
            raise self._error(
                f"what is {argument.place}, {argument}? Give --argument WHAT={argument.place}, WHAT being source, "
                "gradient, secondary, slopes, result, parameters, or an image of the graph"
            )
        return []

    def _image(self, images: Mapping[str, MPSImage], name: str) -> MPSImage:
        if name not in images:
            raise self._error(f"--argument {name}=...: the node has {', '.join(images)}, result")
        return images[name]

    def _elements(self, argument: Argument, image: MPSImage) -> Stored:
        kind = _component(argument.type)
        wanted = {"half": "float16", "float": "float32", "uchar": "uint8", "ushort": "uint16"}
        if kind in wanted and wanted[kind] != image.storage.dtype.name:
            raise self._error(
                f"{argument.place}, {argument}, holds {kind}, but the image is {image.storage.name}: set its format in "
                "the graph, or that of all with --channel-format and the graph's storage"
            )
        return elements_of(image)

    def _slopes(self, argument: Argument) -> Array:
        if self._operation.descriptor is None or self._operation.descriptor.data is None:
            raise self._error(
                f"{argument.place}, {argument}: only pReLU has slopes: give --argument WHAT={argument.place}"
            )
        self._bound.add("slopes")
        dtype = np.float16 if _component(argument.type) == "half" else np.float32
        return slopes_of(self._operation).astype(dtype)

    # ---- numbers ----

    def _parameters(self, argument: Argument) -> Array:
        """A struct, a vector or a scalar of numbers."""
        try:
            # Numbers in a row are a, b and c, as the components of a vector are.
            is_row = argument.kind == "pointer" and argument.type in SCALARS
            fields, size = self._program.fields_of(f"{argument.type}{3 if is_row else ''}")
        except ImplementationError as error:
            raise self._error(f"{argument.place}, {argument}: {error}") from None
        data = bytearray(size)
        for one in fields:
            is_scalar = argument.type in SCALARS and argument.kind == "reference"
            value = self._number(argument.name if is_scalar else one.name, argument)
            self._put(data, one, value)
        return np.frombuffer(bytes(data), np.uint8)

    def _put(self, data: bytearray, one: Field, value: float) -> None:
        code = SCALARS[one.type][0]
        try:
            struct.pack_into(f"<{code}", data, one.offset, value if code in "fe" else int(value))
        except (struct.error, OverflowError, ValueError) as error:
            raise self._error(f"{one.name}: {value:g} is no {one.type}: {error}") from None

    def _number(self, name: str, argument: Argument) -> float:
        if name in self._given.numbers:
            return self._given.numbers[name]
        role = _role(name)
        if role in self._numbers:
            return self._numbers[role]
        if name.lower().strip("_").startswith("pad"):
            return 0.0
        raise self._error(f"what is {name} of {argument.place}, {argument}? Give --argument {name}=NUMBER")

    def _error(self, message: str) -> ImplementationError:
        return ImplementationError(f"{self._where}: {message}")


def read_names(operation: Operation) -> list[str]:
    """What a kernel for the operation has to read: images, and the slopes of pReLU."""
    has_slopes = operation.descriptor is not None and operation.descriptor.data is not None
    return [*images_read(operation), *(["slopes"] if has_slopes else [])]


def _role(name: str) -> str:
    return next((role for role, names in NUMBER_NAMES.items() if _plain(name) in names), name)


def _plain(name: str) -> str:
    """A name without what says only what kind of memory it is: ``src`` for src0, ``in`` for inTexture."""
    name = name.lower().replace("_", "").removesuffix("0")
    return re.sub(r"(?<=.)(texture|image|tensor|buffer|array|data|ptr|buf|tex)$", "", name)


def _component(spelled: str) -> str:
    """The scalar type of elements, such as half for half4; empty for a struct."""
    scalar = spelled.rstrip("234")
    return scalar if scalar in SCALARS else ""


def _literal(value: float) -> str:
    return repr(int(value)) if float(value).is_integer() else repr(value)
