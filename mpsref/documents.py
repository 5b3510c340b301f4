"""JSON documents: read as if hostile, and checked against a JSON Schema that ships with mpsref."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from mpsref.errors import FileFormatError

__all__ = ["parse", "read_document", "read_json", "regular_file", "schema", "validate"]

LARGEST_DOCUMENT = 64 * 2**20
"""Bytes; a graph of 100,000 nodes has about 20 MB."""

DEEPEST = 6
"""Levels of a document that fits a schema; what is deeper is refused as unknown, or by the parser's own limit."""


@cache
def schema(name: str) -> Any:
    """The shipped schema of a kind of document, such as ``graph`` or ``recording``."""
    return json.loads(resources.files("mpsref").joinpath("schemas", f"{name}.schema.json").read_text("utf-8"))


def parse(text: str) -> Any:
    """JSON without a key that stands twice in one object, ``NaN`` or ``Infinity``; raises `ValueError`."""
    try:
        return json.loads(text, object_pairs_hook=_unique_keys, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError(f"nested too deeply: at most {DEEPEST} levels are needed") from None


def read_json(path: Path) -> Any:
    """
    Read a JSON file of whatever kind.

    Raises
    ------
    FileFormatError
        The file cannot be read, is no JSON or too large, or has a key twice.
    """
    if regular_file(path).st_size > LARGEST_DOCUMENT:
        raise FileFormatError(f"{path}: larger than {LARGEST_DOCUMENT >> 20} MiB, which no graph or recording needs")
    try:
        return parse(path.read_bytes().decode("utf-8"))
    except (ValueError, OSError) as error:
        raise FileFormatError(f"{path}: no JSON in UTF-8: {error}: write the file again") from None


def read_document(path: Path, kind: str) -> Any:
    """
    Read a JSON file and check it against the schema of its kind.

    Raises
    ------
    FileFormatError
        The file cannot be read, is no JSON or too large, has a key twice, or does not fit the schema. The message
        names the file and the field.
    """
    document, rule = read_json(path), schema(kind)
    try:
        if isinstance(document, dict) and "format" in document:
            # First of all, because what another kind of file lacks is beside the point.
            validate(document["format"], rule["properties"]["format"], "format")
        validate(document, rule)
    except FileFormatError as error:
        raise FileFormatError(f"{path}: {error}") from None
    return document


def regular_file(path: Path) -> os.stat_result:
    """The status of a file that can be read to its end; raises `FileFormatError` for anything else."""
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        raise FileFormatError(f"{path}: {getattr(error, 'strerror', None) or error}: check the name") from None
    if path.is_dir():
        raise FileFormatError(f"{path}: is a folder: name a file in it")
    if not path.is_file():
        raise FileFormatError(f"{path}: not a regular file: give one that can be read to its end")
    return status


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} stands twice in one object")
    return found


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


_TYPES: dict[str, Callable[[Any], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "integer": lambda value: (
        (isinstance(value, int) or (isinstance(value, float) and value.is_integer())) and not isinstance(value, bool)
    ),
}


def validate(value: Any, rule: dict[str, Any], where: str = "", root: dict[str, Any] | None = None) -> None:
    """
    Check a document against the part of JSON Schema (2020-12) that the shipped schemas use.

    Raises
    ------
    FileFormatError
        Names the field and what it should be.
    """
    root = rule if root is None else root
    if "$ref" in rule:
        name = rule["$ref"].removeprefix("#/$defs/")
        validate(value, root["$defs"][name], where, root)
    _validate_value(value, rule, where)
    if isinstance(value, dict):
        _validate_object(value, rule, where, root)
    elif isinstance(value, list):
        _validate_array(value, rule, where, root)
    for part in rule.get("allOf", ()):
        validate(value, part, where, root)
    if "if" in rule:
        validate(value, rule.get("then" if _fits(value, rule["if"], root) else "else", {}), where, root)


def _validate_value(value: Any, rule: dict[str, Any], where: str) -> None:
    if "const" in rule and (value != rule["const"] or type(value) is not type(rule["const"])):
        raise _misfit(where, value, f"{rule['const']!r} is needed")
    if "enum" in rule and value not in rule["enum"]:
        raise _misfit(where, value, f"choose one of {', '.join(map(str, rule['enum']))}")
    if "type" in rule and not _TYPES[rule["type"]](value):
        raise _misfit(where, value, f"{'an' if rule['type'][0] in 'aio' else 'a'} {rule['type']} is needed")
    if isinstance(value, str):
        if not rule.get("minLength", 0) <= len(value) <= rule.get("maxLength", len(value)):
            raise _misfit(where, value, f"{rule.get('minLength', 0)} to {rule.get('maxLength')} characters are allowed")
        if "pattern" in rule and not re.search(rule["pattern"], value):
            raise _misfit(where, value, f"it must match {rule['pattern']}")
    elif isinstance(value, int | float) and not rule.get("minimum", value) <= value <= rule.get("maximum", value):
        raise _misfit(where, value, f"give {rule.get('minimum', 'any')} to {rule.get('maximum', 'any')}")


def _validate_array(value: list[Any], rule: dict[str, Any], where: str, root: dict[str, Any]) -> None:
    if not rule.get("minItems", 0) <= len(value) <= rule.get("maxItems", len(value)):
        bounds = f"{rule.get('minItems', 0)} to {rule.get('maxItems', 'any number')}"
        raise FileFormatError(f"{where or 'the document'}: has {len(value)} items: {bounds} are allowed")
    if "items" in rule:
        for i, item in enumerate(value):
            validate(item, rule["items"], f"{where}[{i}]", root)


def _validate_object(value: dict[str, Any], rule: dict[str, Any], where: str, root: dict[str, Any]) -> None:
    prefix = f"{where}." if where else ""
    known, others = rule.get("properties", {}), rule.get("additionalProperties")
    if others is False:
        # First of all, because what is misspelt is missing as well.
        for name in value:
            if name not in known:
                raise FileFormatError(f"{prefix}{_short(name)}: unknown here: known are {', '.join(known)}")
    for name in rule.get("required", ()):
        if name not in value:
            there = ", ".join(_short(other) for other in list(value)[:8])
            reason = rule.get("$comment", f"it is needed beside {there}" if there else "it is needed")
            raise FileFormatError(f"{prefix}{name}: missing: {reason}")
    if len(value) > rule.get("maxProperties", len(value)):
        raise FileFormatError(f"{where}: has {len(value)} entries: at most {rule['maxProperties']} are allowed")
    for name, item in value.items():
        part = known.get(name, others)
        if part is not None:
            validate(item, part, f"{prefix}{name}", root)


def _fits(value: Any, rule: dict[str, Any], root: dict[str, Any]) -> bool:
    # Most rules after "if" ask for one constant; to answer them without an exception makes large files fast.
    for name, part in rule.get("properties", {}).items():
        if "const" in part and isinstance(value, dict) and value.get(name, part["const"]) != part["const"]:
            return False
    try:
        validate(value, rule, "", root)
    except FileFormatError:
        return False
    return True


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _misfit(where: str, value: Any, mend: str) -> FileFormatError:
    return FileFormatError(f"{where or 'the document'}: is {_short(value)}: {mend}")
