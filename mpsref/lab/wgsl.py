"""Kernels of a ``.wgsl`` file: what they are bound to, as the arguments of a kernel."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mpsref.errors import ImplementationError
from mpsref.lab import msl
from mpsref.lab.msl import Argument, Field, Kernel, closing, split

__all__ = ["Module"]

SPELLED = {"f32": "float", "f16": "half", "i32": "int", "u32": "uint"}
"""Scalar types, as they are called elsewhere here."""

_VARIABLE = re.compile(
    r"(?P<attributes>(?:@\w+\s*\([^)]*\)\s*)+)var\s*(?:<(?P<space>[^>]*)>)?\s*(?P<name>\w+)\s*:\s*(?P<type>[^;=]+);"
)
_FUNCTION = re.compile(r"(?P<attributes>(?:@\w+\s*(?:\([^)]*\))?\s*)*)\bfn\s+(?P<name>\w+)\s*(?P<open>\()")


@dataclass(frozen=True)
class _Function:
    attributes: str
    name: str
    words: frozenset[str]


class Module:
    """
    The text of a module.

    Parameters
    ----------
    text : str
        Of the file.

    Attributes
    ----------
    text : str
        Without comments and aliases.
    overrides : dict of str to str
        By the name of a constant that a pipeline sets: the key under which it does.
    """

    def __init__(self, text: str) -> None:
        # Comments of several lines may be nested, which next to nobody does.
        text = re.sub(r"//[^\n]*|/\*.*?\*/", " ", text, flags=re.DOTALL)
        for name, spelled in re.findall(r"\balias\s+(\w+)\s*=\s*([^;]+);", text):
            text = re.sub(rf"\b{name}\b", spelled.strip(), text)
        self.text = text
        self.overrides = {
            name: number or name for number, name in re.findall(r"(?:@id\((\d+)\)\s*)?\boverride\s+(\w+)", text)
        }
        self._functions = {one.name: one for one in self._functions_of(text)}

    def constants(self, numbers: Mapping[str, float]) -> dict[str, float]:
        """
        What a pipeline is told of overrides.

        Raises
        ------
        ImplementationError
            One has no value.
        """
        for name in re.findall(r"\boverride\s+(\w+)[^=;]*;", self.text):
            if name not in numbers:
                raise ImplementationError(f"the override {name} has no value: give --argument {name}=NUMBER")
        return {key: numbers[name] for name, key in self.overrides.items() if name in numbers}

    def kernel(self, name: str) -> Kernel:
        """
        A kernel, with the variables that it uses as its arguments.

        Raises
        ------
        ImplementationError
            It is not there, or uses something that cannot be bound.
        """
        kernels = [one.name for one in self._functions.values() if "@compute" in one.attributes]
        if name not in kernels:
            names = ", ".join(kernels[:20]) or "no kernel at all"
            raise ImplementationError(f"it has no kernel {name!r}, but {names}: name one of them with --function")
        words, waiting, seen = set[str](), [name], set[str]()
        while waiting:
            function = self._functions[waiting.pop()]
            seen.add(function.name)
            words |= function.words
            waiting += [each for each in function.words & self._functions.keys() if each not in seen]
        return Kernel(name, name, tuple(one for one, _ in self._variables() if one.name in words))

    def layouts(self, kernel: Kernel) -> dict[int, dict[str, Any]]:
        """What `wgpu` is told of each binding of a kernel."""
        return {one.index: layout for one, layout in self._variables() if one in kernel.arguments}

    def group(self, kernel: Kernel) -> tuple[int, int, int]:
        """The threads of a workgroup."""
        found = re.search(r"@workgroup_size\s*\(([^)]*)\)", self._functions[kernel.name].attributes)
        sizes = [self._whole(each, kernel) for each in split(found[1])] if found else []
        x, y, z = (*sizes, 1, 1, 1)[:3]
        return x, y, z

    def fields_of(self, name: str) -> tuple[tuple[Field, ...], int]:
        """The fields and the size of a struct, a vector or a scalar, as `mpsref.lab.msl.fields_of` has them."""
        if struct := self._struct(name):
            return msl.laid_out([f"{spelled} {each}" for each, spelled in struct], name, three=3)
        return msl.fields_of("", name)

    def _whole(self, text: str, kernel: Kernel) -> int:
        digits = re.fullmatch(r"(\d+)[iu]?", text.strip())
        if digits is None:
            name = re.escape(text.strip())
            digits = re.search(rf"\b(?:const|override)\s+{name}\b[^=;]*=\s*(\d+)[iu]?\s*;", self.text)
        if digits is None:
            raise ImplementationError(f"{kernel.name}: @workgroup_size has {text.strip()!r}: give numbers or constants")
        return int(digits[1])

    def _struct(self, name: str) -> list[tuple[str, str]]:
        """Name and type of each field; none if there is no such struct."""
        found = re.search(rf"\bstruct\s+{re.escape(name)}\s*\{{(.*?)\}}", self.text, re.DOTALL)
        fields = []
        for each in split(found[1]) if found else []:
            field = re.fullmatch(r"(\w+)\s*:\s*(.*)", each, re.DOTALL)
            if field is None:
                raise ImplementationError(
                    f"the struct {name}: {each!r} is not supported: give NAME: TYPE, pad with fields"
                )
            fields.append((field[1], _spelled(field[2])))
        return fields

    def _functions_of(self, text: str) -> Iterator[_Function]:
        for found in _FUNCTION.finditer(text):
            start = text.find("{", closing(text, found.start("open")))
            if start >= 0:
                body = text[start : closing(text, start, "{}")]
                yield _Function(found["attributes"], found["name"], frozenset(re.findall(r"\w+", body)))

    def _variables(self) -> Iterator[tuple[Argument, dict[str, Any]]]:
        for found in _VARIABLE.finditer(self.text):
            numbers = dict(re.findall(r"@(\w+)\s*\(\s*(\d+)[iu]?\s*\)", found["attributes"]))
            name, spelled = found["name"], " ".join(found["type"].split())
            if numbers.get("group") != "0" or "binding" not in numbers:
                raise ImplementationError(f"{name}: bindings of @group(0) are supported, with numbers: bind it there")
            kind, element, layout = self._bound(name, spelled, found["space"] or "")
            index = int(numbers["binding"])
            yield Argument(kind, index, name, element, at=f"binding{index}"), layout

    def _bound(self, name: str, spelled: str, space: str) -> tuple[str, str, dict[str, Any]]:
        """The kind of an argument, the type of its elements, and the layout of its binding."""
        if spelled == "sampler":
            return "sampler", "sampler", {"sampler": {"type": "non-filtering"}}
        if found := re.fullmatch(r"texture_(2d|2d_array)\s*<\s*f32\s*>", spelled):
            dimension = found[1].replace("_", "-")
            return "texture", spelled, {"texture": {"sample_type": "unfilterable-float", "view_dimension": dimension}}
        storage = r"texture_storage_(2d|2d_array)\s*<\s*(\w+)\s*,\s*(read|write|read_write)\s*>"
        if found := re.fullmatch(storage, spelled):
            access = {"read": "read-only", "write": "write-only", "read_write": "read-write"}[found[3]]
            dimension = found[1].replace("_", "-")
            layout = {"access": access, "format": found[2], "view_dimension": dimension}
            return "texture", spelled, {"storage_texture": layout}
        where, _, access = (part.strip() for part in space.partition(","))
        if where not in ("storage", "uniform"):
            raise ImplementationError(f"{name}: {spelled} is not supported: give buffers or two-dimensional textures")
        writes = where == "storage" and access == "read_write"
        layout = {"buffer": {"type": "uniform" if where == "uniform" else "storage" if writes else "read-only-storage"}}
        only = self._struct_of_one_array(spelled)
        found = re.fullmatch(r"array\s*<\s*(.*?)\s*(?:,\s*\w+\s*)?>", only or spelled)
        return ("pointer", _spelled(found[1]), layout) if found else ("reference", _spelled(spelled), layout)

    def _struct_of_one_array(self, name: str) -> str:
        """The array of a struct that holds nothing else, as older texts have it."""
        found = re.search(rf"\bstruct\s+{re.escape(name)}\s*\{{\s*\w+\s*:\s*(array\s*<[^}}]*>)\s*,?\s*\}}", self.text)
        return found[1] if found else ""


def _spelled(name: str) -> str:
    """A type under the name that it has in Metal: float4 for ``vec4<f32>`` and ``vec4f``."""
    name = name.strip()
    if found := re.fullmatch(r"vec([234])\s*<\s*(\w+)\s*>", name):
        return SPELLED.get(found[2], found[2]) + found[1]
    if found := re.fullmatch(r"vec([234])([fhiu])", name):
        return {"f": "float", "h": "half", "i": "int", "u": "uint"}[found[2]] + found[1]
    return SPELLED.get(name, name)
