"""
Kernels of a ``.metal`` file: their arguments, and the text as C++ for this machine.

Macros and includes are expanded by the compiler; what is left of the Metal Shading Language is C++ with attributes,
which the header ``metal/metal_stdlib`` completes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from mpsref.errors import ImplementationError

__all__ = [
    "HEADERS",
    "Argument",
    "Field",
    "Kernel",
    "adapted",
    "closing",
    "fields_of",
    "function_constants",
    "kernel_names",
    "laid_out",
    "read",
    "size_of",
    "split",
]

HEADERS = (
    "metal_stdlib", "metal_math", "metal_common", "metal_integer", "metal_geometric", "metal_relational",
    "metal_texture", "metal_matrix", "metal_compute", "metal_limits", "metal_types", "metal_atomic",
    "metal_simdgroup", "metal_graphics", "metal_pack",
)  # fmt: skip
"""Metal's own headers, all in one here."""

PLACES = {
    "thread_position_in_grid": "place",
    "threads_per_grid": "grid",
    "threadgroup_position_in_grid": "group_place",
    "threadgroups_per_grid": "groups",
    "thread_position_in_threadgroup": "local",
    "threads_per_threadgroup": "group",
    "dispatch_threads_per_threadgroup": "whole_group",
    "thread_index_in_threadgroup": "local_index",
    "thread_index_in_simdgroup": "lane",
    "simdgroup_index_in_threadgroup": "simdgroup",
    "threads_per_simdgroup": "simd_width",
    "thread_execution_width": "simd_width",
    "simdgroups_per_threadgroup": "simdgroups",
}
"""Attributes of an argument that say which thread it is, and the names in ``runtime.h``."""

MOST = {"buffer": 31, "texture": 32, "threadgroup": 8}
"""How many there are of each kind."""

SCALARS = {
    "float": ("f", 4), "half": ("e", 2), "int": ("i", 4), "uint": ("I", 4), "short": ("h", 2), "ushort": ("H", 2),
    "char": ("b", 1), "uchar": ("B", 1), "bool": ("?", 1), "long": ("q", 8), "ulong": ("Q", 8), "size_t": ("Q", 8),
    "int32_t": ("i", 4), "uint32_t": ("I", 4), "int64_t": ("q", 8), "uint64_t": ("Q", 8), "int16_t": ("h", 2),
    "uint16_t": ("H", 2), "int8_t": ("b", 1), "uint8_t": ("B", 1), "unsigned": ("I", 4),
}  # fmt: skip
"""Code for `struct` and size of each scalar type."""


@dataclass(frozen=True)
class Argument:
    """
    An argument of a kernel.

    Attributes
    ----------
    kind : str
        ``pointer`` or ``reference`` to a buffer, ``texture``, ``sampler``, ``threadgroup`` (a pointer), or ``thread``:
        which it is.
    index : int
        Of its buffer or texture.
    name, type : str
        As declared, the type without address space.
    attribute : str
        For ``thread``: the member of `thread_` in ``runtime.h``.
    at : str
        What its place is called, if not ``buffer0`` or ``texture0``.
    """

    kind: str
    index: int
    name: str
    type: str
    attribute: str = ""
    at: str = ""

    @property
    def place(self) -> str:
        """Where it is bound: ``buffer0``, ``texture0``, ``binding0``."""
        return self.at or f"{'texture' if self.kind == 'texture' else 'buffer'}{self.index}"

    def __str__(self) -> str:
        return f"{self.type} {self.name}".strip()


@dataclass(frozen=True)
class Kernel:
    """
    A kernel.

    Attributes
    ----------
    name, call : str
        By which it is asked for, and by which C++ calls it.
    arguments : tuple of Argument
        In order.
    """

    name: str
    call: str
    arguments: tuple[Argument, ...]


@dataclass(frozen=True)
class Field:
    """A field of a struct: its scalar type and its offset in bytes."""

    name: str
    type: str
    offset: int


def function_constants(text: str) -> list[tuple[str, str]]:
    """Type and name of each function constant."""
    return [(found["type"], found["name"]) for found in _CONSTANT.finditer(text)]


_CONSTANT = re.compile(
    r"\bconstant\s+(?P<type>[\w:]+)\s+(?P<name>\w+)\s*\[\[\s*function_constant\([\w\s+()]+\)\s*\]\]\s*;"
)


def adapted(text: str, constants: Mapping[str, str]) -> str:
    """
    What no macro can say: literals are float, `threadgroup` variables are shared, function constants have values.

    Parameters
    ----------
    text : str
        Without directives.
    constants : Mapping of str to str
        The value of each function constant, as a literal.
    """
    text = _CONSTANT.sub(lambda found: f"static {found['type']} {found['name']} = {constants[found['name']]};", text)
    text = re.sub(r"(?<![\w.])((?:\d+\.\d*|\.\d+)(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+)(?![\w.])", r"\1f", text)
    text = re.sub(r"\b(constant\s+const|const\s+constant)\b", "constant", text)
    text = re.sub(r"\bconstexpr\s+constant\b|\bconstant\s+constexpr\b", "constexpr", text)
    # A method for objects of one address space: all are alike here.
    text = re.sub(r"\)(\s*(?:const\s+)?)(?:thread|threadgroup|device|constant)\b(?=\s*[;{:])", r")\1", text)
    text = re.sub(r"\bthreadgroup\s+((?:[\w:]+|<[^<>;(){}]*>|\s)+[*&])", r"\1", text)
    return re.sub(r"(?<!\[)\bthreadgroup\b(?!\s*[(_])", "static", text)


def without_instances(text: str) -> str:
    """The text without explicit instances of templates: only what is called has to compile."""
    return re.sub(r"template\s*\[\[\s*host_name\([^;]*;", "", text)


# ---- kernels ----

_KERNEL = re.compile(
    r"(?:\[\[\s*kernel\s*\]\]|\bkernel\b)\s+(?:\[\[[^\]]*\]\]\s*)?(?:static\s+)?void\s+(?P<name>[\w:]+)\s*(?P<open>\()"
)
_INSTANCE = re.compile(r"template\s*\[\[\s*host_name\(\s*(?P<names>(?:\"[^\"]*\"\s*)+)\)\s*\]\]\s*(?P<rest>[^;]*);")


def kernel_names(text: str) -> list[str]:
    """The names of all kernels that can be run: plain ones, and host names of instances of templates."""
    signatures = list(_signatures(text))
    templates = {name for name, _, is_template in signatures if is_template}
    plain = [name for name, _, is_template in signatures if not is_template]
    return plain + [host for host, call in _instances(text) if call.partition("<")[0].split("::")[-1] in templates]


def read(text: str, name: str) -> Kernel:
    """
    A kernel of an expanded text.

    Raises
    ------
    ImplementationError
        It is not there, or has an argument that is not supported.
    """
    signatures = {found: (signature, is_template) for found, signature, is_template in _signatures(text)}
    if name in signatures and not signatures[name][1]:
        return Kernel(name, name, _arguments(signatures[name][0]))
    for host, call in _instances(text):
        template = call.partition("<")[0].split("::")[-1]
        if host == name and template in signatures:
            return Kernel(name, call, _arguments(signatures[template][0]))
    names = ", ".join(kernel_names(text)[:20]) or "no kernel at all"
    raise ImplementationError(f"it has no kernel {name!r}, but {names}: name one of them with --function")


def _signatures(text: str) -> Iterator[tuple[str, str, bool]]:
    """Name, arguments, and whether it is a template, of each kernel that is defined."""
    for found in _KERNEL.finditer(text):
        end = closing(text, found.start("open"))
        if re.match(r"\s*\{", text[end + 1 :]):
            before = text[max(0, found.start() - 600) : found.start()]
            is_template = re.search(r"template\s*<[^;{}]*>\s*$", before) is not None
            yield found["name"], text[found.start("open") + 1 : end], is_template


def _instances(text: str) -> Iterator[tuple[str, str]]:
    """Host name and call, such as ``unary<float>``, of each explicit instance."""
    for found in _INSTANCE.finditer(text):
        rest = re.sub(r"^\s*(\[\[\s*kernel\s*\]\]|kernel)\s*", "", found["rest"])
        # The last `name<...>` before the arguments is what is instantiated.
        places = list(re.finditer(r"(?:::)?(?:\w+\s*::\s*)*(?P<name>\w+)\s*<", rest))
        for place in reversed(places):
            if any(place["name"] == name for name, _, is_template in _signatures(text) if is_template):
                end = closing(rest, place.end() - 1, "<>")
                call = re.sub(r"\s+", " ", rest[place.start() : end + 1])
                yield "".join(re.findall(r"\"([^\"]*)\"", found["names"])), call
                break


def _arguments(signature: str) -> tuple[Argument, ...]:
    """By their attributes; buffers and textures without one are numbered in order, as Metal does."""
    arguments: list[Argument] = []
    taken: dict[str, set[int]] = {kind: set() for kind in MOST}
    for declaration in split(signature):
        attribute = " ".join(re.findall(r"\[\[(.*?)\]\]", declaration)).strip()
        plain = re.sub(r"\[\[.*?\]\]", "", declaration)
        name, spelled = _name_and_type(plain)
        if attribute in PLACES:
            arguments.append(Argument("thread", 0, name, spelled, PLACES[attribute]))
            continue
        bound = re.fullmatch(r"(buffer|texture|threadgroup|sampler)\s*\(\s*(\d+)\s*\)", attribute)
        if attribute and (bound is None or bound[1] == "sampler" or int(bound[2]) >= MOST[bound[1]]):
            raise ImplementationError(f"the attribute [[{attribute}]] of {name!r} is not supported")
        kind = bound[1] if bound else "texture" if re.search(r"\btexture\w+\s*<", plain) else "buffer"
        form = kind if kind != "buffer" else "reference" if "&" in plain else "pointer"
        index = int(bound[2]) if bound else -1
        taken[kind].add(index)
        arguments.append(Argument(form, index, name, spelled))
    for i, argument in enumerate(arguments):
        if argument.index < 0:
            used = taken["texture" if argument.kind == "texture" else "buffer"]
            index = next(number for number in range(64) if number not in used)
            used.add(index)
            arguments[i] = replace(argument, index=index)
    return tuple(arguments)


def _name_and_type(declaration: str) -> tuple[str, str]:
    words = re.sub(
        r"\b(device|constant|const|threadgroup|thread|volatile|restrict|metal::)\b|metal::", " ", declaration
    )
    words = re.sub(r"\s*\[\s*\w*\s*\]\s*$", "", words)
    found = re.fullmatch(r"\s*(?P<type>.*?)[\s*&]*\b(?P<name>\w+)\s*", words, re.DOTALL)
    if found is None:
        raise ImplementationError(f"the argument {' '.join(declaration.split())!r} has no name")
    return found["name"], " ".join(found["type"].split())


def closing(text: str, start: int, pair: str = "()") -> int:
    """Where the parenthesis that opens at `start` is closed."""
    depth = 0
    for i in range(start, len(text)):
        depth += (text[i] == pair[0]) - (text[i] == pair[1])
        if depth == 0:
            return i
    raise ImplementationError(f"no {pair[1]!r} closes what is opened at {text[start : start + 40]!r}")


def split(text: str) -> list[str]:
    """What commas separate, but for those in parentheses."""
    parts, depth, last = [], 0, 0
    for i, character in enumerate(text):
        depth += (character in "(<[{") - (character in ")>]}")
        if character == "," and depth == 0:
            parts.append(text[last:i])
            last = i + 1
    return [part.strip() for part in (*parts, text[last:]) if part.strip()]


# ---- structs ----


def fields_of(text: str, name: str) -> tuple[tuple[Field, ...], int]:
    """
    The fields and the size of a parameter: a struct of the text, a vector, whose fields are a, b, c and d, or a scalar.

    Raises
    ------
    ImplementationError
        There is no such struct, or one of its fields is not of a scalar or vector type.
    """
    if layout := _vector(name):
        scalar, count = layout
        return tuple(Field("abcd"[i], scalar, i * SCALARS[scalar][1]) for i in range(count)), size_of(name)
    # Comments and directives are gone; a typedef has its name behind the body.
    found = re.search(rf"\bstruct\s+{re.escape(name)}\s*\{{(.*?)\}}", text, re.DOTALL)
    found = found or re.search(rf"\bstruct\s*\w*\s*\{{([^{{}}]*)\}}\s*{re.escape(name)}\s*;", text, re.DOTALL)
    if found is None:
        raise ImplementationError(f"the struct {name} is not defined in the file: give each of its fields as arguments")
    return laid_out([line for line in found[1].split(";") if line.strip()], name)


def laid_out(declarations: Sequence[str], name: str, three: int = 4) -> tuple[tuple[Field, ...], int]:
    """The fields of declarations such as ``float a, b``, placed as C++ does, and the size; a vec3 has `three` parts."""
    fields: list[Field] = []
    offset, widest = 0, 1
    for declaration in declarations:
        found = re.fullmatch(r"\s*(?:const\s+)?(?P<type>\w+)\s+(?P<names>[\w\s,]+)", declaration)
        layout = _vector(found["type"]) if found else None
        if found is None or layout is None:
            raise ImplementationError(
                f"the field {' '.join(declaration.split())!r} of {name} is not a number or vector"
            )
        scalar, count = layout
        size = size_of(found["type"])
        step = SCALARS[scalar][1] if found["type"].startswith("packed_") else size
        for each in re.findall(r"\w+", found["names"]):
            offset = -(-offset // step) * step
            names = [each] if count == 1 else [f"{each}.{'xyzw'[i]}" for i in range(count)]
            fields += [Field(one, scalar, offset + i * SCALARS[scalar][1]) for i, one in enumerate(names)]
            offset += size // 4 * three if count == 3 and step == size else size
            widest = max(widest, step)
    return tuple(fields), -(-offset // widest) * widest


def _vector(name: str) -> tuple[str, int] | None:
    """The scalar type and the number of components of a scalar or vector type."""
    name = name.removeprefix("packed_")
    if name in SCALARS:
        return name, 1
    if name[:-1] in SCALARS and name[-1:] in "234":
        return name[:-1], int(name[-1])
    return None


def size_of(name: str) -> int:
    """The size of a scalar or vector type; 0 of others."""
    scalar, count = _vector(name) or ("", 0)
    if not count:
        return 0
    return SCALARS[scalar][1] * (4 if count == 3 and not name.startswith("packed_") else count)
