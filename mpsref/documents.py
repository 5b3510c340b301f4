"""JSON documents: read as if hostile, checked against a JSON Schema that ships with mpsref."""

from __future__ import annotations

import json
import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib import resources
from pathlib import Path
from typing import IO, Any

import numpy as np

from mpsref.errors import FileFormatError, naming, shown

__all__ = [
    "encoded",
    "exactly",
    "opened",
    "parse",
    "read_bytes",
    "read_document",
    "read_json",
    "schema",
    "validate",
]

LARGEST_DOCUMENT = 64 * 2**20
"""Bytes; a graph of 100,000 nodes has about 20 MB."""

MOST_VALUES = 4_000_000
"""Commas, lists and objects in a document: an empty list takes 3 bytes of a file, and 30 times as much memory."""

BLOCK = 2**20
"""Bytes scanned at once."""

LONGEST_VALUE = 60
"""Characters of a value in a message."""

DEEPEST = 6
"""Levels of a document that fits a schema; deeper ones are refused as unknown, or by the parser's own limit."""


@cache
def schema(name: str) -> Any:
    """The shipped schema of a kind of document, such as ``graph`` or ``recording``."""
    return json.loads(resources.files("mpsref").joinpath("schemas", f"{name}.schema.json").read_text("utf-8"))


def parse(data: bytes) -> Any:
    """
    Parse JSON in UTF-8, without duplicate keys, ``NaN`` or ``Infinity``.

    Raises
    ------
    ValueError
        It is invalid, or has more than `MOST_VALUES` commas, lists and objects.
    """
    if _has_too_many_values(data):
        raise ValueError(f"more than {MOST_VALUES:,} commas, lists and objects, which no graph or recording needs")
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=_unique_keys, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError(f"nested too deeply: at most {DEEPEST} levels are needed") from None


def encoded(text: str) -> bytes:
    """Encode JSON for a file; raises `FileFormatError` if it is too large to be read again."""
    data = text.encode()
    if len(data) > LARGEST_DOCUMENT or _has_too_many_values(data):
        raise FileFormatError(
            f"has {len(data):,} bytes: no more than {LARGEST_DOCUMENT >> 20} MiB, "
            f"and {MOST_VALUES:,} commas, lists and objects, are read"
        )
    return data


def read_json(path: Path) -> Any:
    """Read a JSON file of any kind; raises `FileFormatError` if it is unreadable, invalid or too large."""
    data = read_bytes(path, LARGEST_DOCUMENT, "graph or recording")
    try:
        return parse(data)
    except ValueError as error:
        raise FileFormatError(f"{path}: not JSON in UTF-8: {error}: write the file again") from None


def read_document(path: Path, kind: str) -> Any:
    """
    Read a JSON file and check it against the schema of its kind; where that requires an integer, 1.0 becomes 1.

    Raises
    ------
    FileFormatError
        The file is unreadable, invalid or too large, or does not fit the schema; the message names the file and field.
    """
    document, rule = read_json(path), schema(kind)
    with naming(path, FileFormatError):
        if isinstance(document, dict) and "format" in document:
            # First, because fields that another kind of file lacks are beside the point.
            validate(document["format"], rule["properties"]["format"], "format")
        return validate(document, rule)


@contextmanager
def opened(path: Path, folder: Path | None = None) -> Iterator[tuple[IO[bytes], int]]:
    """
    Open a regular file, and get its size; all checks are made on the open file, so that nothing can change in between.

    Parameters
    ----------
    path : Path
        The file.
    folder : Path, optional
        The folder that must contain it, directly or below, links resolved.

    Raises
    ------
    FileFormatError
        It cannot be opened, lies elsewhere, or is a folder, pipe or device, none of which is waited for.
    """
    try:
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)
        descriptor = os.open(path, flags)
    except (OSError, ValueError) as error:
        # Some systems do not open folders at all.
        if os.path.isdir(path):  # noqa: PTH112  raises no error for any name
            raise FileFormatError(f"{path}: is a folder: name a file in it") from None
        raise FileFormatError(f"{path}: {getattr(error, 'strerror', None) or error}: check the name") from None
    try:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise FileFormatError(f"{path}: is a folder: name a file in it")
        if not stat.S_ISREG(status.st_mode):
            raise FileFormatError(f"{path}: not a regular file: give one that can be read to its end")
        if folder is not None and not _lies_below(path, status, folder):
            raise FileFormatError(f"{path}: lies outside {folder}: copy it there")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            yield file, status.st_size
    finally:
        os.close(descriptor)


def _lies_below(path: Path, status: os.stat_result, folder: Path) -> bool:
    """Whether the path still leads to the file with this status, in the folder or below."""
    real = Path(os.path.realpath(path))
    try:
        return real.is_relative_to(folder) and os.path.samestat(status, real.stat())
    except OSError:
        return False


def read_bytes(path: Path, most: int, needed_by: str) -> bytes:
    """Read a whole file; raises `FileFormatError` if it is unreadable, or larger than its kind, `needed_by`, needs."""
    try:
        with opened(path) as (file, size):
            # The file may have grown since.
            data = b"" if size > most else file.read(most + 1)
    except OSError as error:
        raise FileFormatError(f"{path}: cannot be read: {error.strerror}: copy it elsewhere") from None
    if max(size, len(data)) > most:
        raise FileFormatError(f"{path}: larger than {most >> 20} MiB, which no {needed_by} needs")
    return data


def exactly(file: IO[bytes], count: int) -> bytes:
    """Read `count` bytes; raises `ValueError` if the file ends before."""
    data = file.read(count)
    if len(data) != count:
        raise ValueError(f"cut short: {count} bytes are needed, {len(data)} are there")
    return data


def _has_too_many_values(data: bytes) -> bool:
    """Whether there are more than `MOST_VALUES` commas, lists and objects, which bound the number of values."""
    if sum(map(data.count, (b",", b"[", b"{"))) <= MOST_VALUES:
        return False
    # Strings may contain such characters, and are left out only now.
    plain = np.frombuffer(data.replace(rb"\\", b"").replace(rb"\"", b""), np.uint8)
    values, inside = 0, np.uint8(0)
    for start in range(0, plain.size, BLOCK):
        part = plain[start : start + BLOCK]
        quotes = np.cumsum(part == ord('"'), dtype=np.uint8) + inside
        marks = (part == ord(",")) | (part == ord("[")) | (part == ord("{"))
        values += int(np.count_nonzero(marks & (quotes % 2 == 0)))
        inside = quotes[-1] % 2
    return values > MOST_VALUES


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        duplicate = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"the key {_short(duplicate)} stands twice in one object")
    return fields


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


_TYPES: dict[str, Callable[[Any], bool]] = {
    "object": lambda value: type(value) is dict,
    "array": lambda value: type(value) is list,
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "integer": lambda value: (
        (isinstance(value, int) or (isinstance(value, float) and value.is_integer())) and not isinstance(value, bool)
    ),
}


def validate(value: Any, rule: dict[str, Any], where: str = "", root: dict[str, Any] | None = None) -> Any:
    """
    Check a document against the part of JSON Schema (2020-12) that the shipped schemas use.

    Returns
    -------
    The document, changed in place: where the schema requires integers, floats with integer values become integers.

    Raises
    ------
    FileFormatError
        Names the field and the fix.
    """
    root = rule if root is None else root
    if "$ref" in rule:
        name = rule["$ref"].removeprefix("#/$defs/")
        value = validate(value, root["$defs"][name], where, root)
    _validate_value(value, rule, where)
    if isinstance(value, dict):
        _validate_object(value, rule, where, root)
    elif isinstance(value, list):
        _validate_array(value, rule, where, root)
    for part in rule.get("allOf", ()):
        # Most parts are only an "if" that does not apply.
        (_validate_chosen if part.keys() == {"if", "then"} else validate)(value, part, where, root)
    _validate_chosen(value, rule, where, root)
    return int(value) if isinstance(value, float) and rule.get("type") == "integer" else value


def _validate_value(value: Any, rule: dict[str, Any], where: str) -> None:
    if "const" in rule and (type(value) is not type(rule["const"]) or value != rule["const"]):
        raise _misfit(where, value, f"{rule['const']!r} is needed")
    if "enum" in rule and value not in rule["enum"]:
        raise _misfit(where, value, f"choose one of {', '.join(map(str, rule['enum']))}")
    if "type" in rule and not _TYPES[rule["type"]](value):
        raise _misfit(where, value, f"{'an' if rule['type'][0] in 'aio' else 'a'} {rule['type']} is needed")
    if isinstance(value, str):
        if not rule.get("minLength", 0) <= len(value) <= rule.get("maxLength", len(value)):
            raise _misfit(where, value, f"{rule.get('minLength', 0)} to {rule.get('maxLength')} characters are allowed")
        if "pattern" in rule and not _pattern(rule["pattern"]).search(value):
            raise _misfit(where, value, f"it must match {rule['pattern']}")
    elif isinstance(value, int | float) and not rule.get("minimum", value) <= value <= rule.get("maximum", value):
        raise _misfit(where, value, f"give {rule.get('minimum', 'any')} to {rule.get('maximum', 'any')}")


def _validate_array(value: list[Any], rule: dict[str, Any], where: str, root: dict[str, Any]) -> None:
    if not rule.get("minItems", 0) <= len(value) <= rule.get("maxItems", len(value)):
        bounds = f"{rule.get('minItems', 0)} to {rule.get('maxItems', 'any number')}"
        raise FileFormatError(f"{where or 'the document'}: has {len(value)} items: {bounds} are allowed")
    if "items" in rule:
        for i, item in enumerate(value):
            value[i] = validate(item, rule["items"], f"{where}[{i}]", root)


def _validate_object(value: dict[str, Any], rule: dict[str, Any], where: str, root: dict[str, Any]) -> None:
    prefix = f"{where}." if where else ""
    known, others = rule.get("properties", {}), rule.get("additionalProperties")
    if others is False:
        # First, because a misspelt field is also missing.
        for name in value:
            if name not in known:
                raise FileFormatError(f"{prefix}{_short(name)}: unknown here: known are {', '.join(known)}")
    for name in rule.get("required", ()):
        if name not in value:
            present = ", ".join(_short(other) for other in list(value)[:8])
            reason = rule.get("$comment", f"it is needed beside {present}" if present else "it is needed")
            raise FileFormatError(f"{prefix}{name}: missing: {reason}")
    if len(value) > rule.get("maxProperties", len(value)):
        raise FileFormatError(f"{where}: has {len(value)} entries: at most {rule['maxProperties']} are allowed")
    for name, item in value.items():
        if "propertyNames" in rule:
            validate(name, rule["propertyNames"], f"{prefix}{_short(name)}", root)
        part = known.get(name, others)
        if part is not None:
            value[name] = validate(item, part, f"{prefix}{name}", root)


def _validate_chosen(value: Any, rule: dict[str, Any], where: str, root: dict[str, Any]) -> None:
    if "if" in rule:
        chosen = rule.get("then" if _fits(value, rule["if"], root) else "else")
        if chosen is not None:
            validate(value, chosen, where, root)


def _fits(value: Any, rule: dict[str, Any], root: dict[str, Any]) -> bool:
    # Most conditions compare a constant; checking them without an exception makes large files fast.
    for name, part in rule.get("properties", {}).items():
        if "const" in part and isinstance(value, dict) and value.get(name, part["const"]) != part["const"]:
            return False
    try:
        validate(value, rule, "", root)
    except FileFormatError:
        return False
    return True


@cache
def _pattern(text: str) -> re.Pattern[str]:
    # As in ECMA-262, and so in JSON Schema: a dollar sign matches only the very end, not before a final line feed.
    return re.compile(re.sub(r"(?<!\\)\$", r"\\Z", text), re.ASCII)


def _short(value: Any) -> str:
    """The beginning of a value as JSON, without encoding more of a long or deep one than is shown."""
    if isinstance(value, str) and len(value) > LONGEST_VALUE:
        return f"{json.dumps(value[:LONGEST_VALUE])[: LONGEST_VALUE - 3]}..."
    text = ""
    try:
        for part in json.JSONEncoder(default=str).iterencode(value):
            text += part
            if len(text) > LONGEST_VALUE:
                return f"{text[: LONGEST_VALUE - 3]}..."
    except ValueError:
        return "an integer of thousands of digits"
    except Exception:  # noqa: BLE001  somebody's object, not read from a file, may raise anything
        return shown(value)
    return text


def _misfit(where: str, value: Any, fix: str) -> FileFormatError:
    return FileFormatError(f"{where or 'the document'}: is {_short(value)}: {fix}")
