"""What passes: presets, and TOML files with other limits for some images."""

from __future__ import annotations

import re
import tomllib
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, TypeAlias

from mpsref.arguments import checked, checked_fields
from mpsref.documents import read_bytes, schema, validate
from mpsref.errors import FileFormatError, ParameterError, naming, shown
from mpsref.verify.bounds import MODELS
from mpsref.verify.compare import Tolerance

__all__ = ["Bounds", "Limit", "Override", "Tolerances", "limit_json", "limit_of", "tolerances_of"]

LARGEST_FILE = 2**20
"""Bytes; 10,000 overrides have about 700 KB."""

MOST_TABLES, MOST_DOTS = 50_000, 8
"""
Brackets, braces and dots outside of strings, and dots in one key: each such byte can take a KiB of memory, and a key
with n dots n^2 times as much.
"""

_TEXT = re.compile(
    r'''"""(?:[^\\]|\\.)*?(?:"{3,5}|\Z)|\'{3}.*?(?:\'{3,5}|\Z)|"(?:[^"\\\n]|\\.)*"?|'[^'\n]*'?|#[^\n]*''',
    re.DOTALL,
)
"""A string or a comment of TOML; an unterminated one extends to where it has to end."""


@checked_fields
@dataclass(frozen=True)
class Bounds:
    """
    What passes: every result of a device that keeps a model's promises, see `mpsref.verify.bounds`.

    Parameters
    ----------
    model : str
        One of `mpsref.verify.bounds.MODELS`.

    Raises
    ------
    ParameterError
        The model does not exist.
    """

    model: str = "metal-fast"

    def __post_init__(self) -> None:
        if self.model not in MODELS:
            raise ParameterError(f"bounds are {shown(self.model)}: choose one of {_CHOICES}")

    def __str__(self) -> str:
        return f"what {self.model} arithmetic allows each formula"


Limit: TypeAlias = Tolerance | Bounds

_CHOICES = f"{', '.join(MODELS)}, exact, ulp=N"


def limit_of(text: str) -> Limit:
    """The limit that a preset stands for; raises `ParameterError` if it does not exist."""
    if text == "exact":
        return Tolerance(ulp=0)
    if match := re.fullmatch("ulp=([0-9]{1,20})", text):
        return Tolerance(ulp=int(match[1]))
    return Bounds(text)


def limit_json(limit: Limit) -> dict[str, Any]:
    """The limit as JSON."""
    return {"bounds": limit.model} if isinstance(limit, Bounds) else asdict(limit)


@checked_fields
@dataclass(frozen=True)
class Override:
    """
    Another limit for some images.

    Attributes
    ----------
    limit : Tolerance or Bounds
        What passes there.
    image, neuron, format, direction : str, optional
        The image's name, neuron type, storage format, and ``forward`` or ``gradient``; None matches any.
    """

    limit: Limit
    image: str | None = None
    neuron: str | None = None
    format: str | None = None
    direction: str | None = None

    def fits(self, **facts: str | None) -> bool:
        """Whether it applies to an image with these facts."""
        return all(getattr(self, name) in (None, fact) for name, fact in facts.items())


@checked_fields
@dataclass(frozen=True)
class Tolerances:
    """
    What passes, image by image.

    Attributes
    ----------
    default : Tolerance or Bounds
        For images that no override matches.
    overrides : tuple of Override
        The last match decides.
    """

    default: Limit = Bounds()
    overrides: tuple[Override, ...] = ()

    def __str__(self) -> str:
        n = len(self.overrides)
        return str(self.default) + (f", with {n} override{'s' if n > 1 else ''}" if n else "")

    @checked
    def of(self, *, image: str, neuron: str | None, format: str, direction: str | None) -> Limit:
        """The limit of one image."""
        choices = product(*((None, fact) for fact in (image, neuron, format, direction)))
        chosen = max(self._places.get(facts, -1) for facts in choices)
        return self.overrides[chosen].limit if chosen >= 0 else self.default

    @cached_property
    def _places(self) -> dict[tuple[str | None, ...], int]:
        """The last override for each condition: an image looks up 16 of them, however many there are."""
        return {(o.image, o.neuron, o.format, o.direction): i for i, o in enumerate(self.overrides)}

    @classmethod
    @checked
    def read(cls, path: str | Path, default: Limit | None = None) -> Tolerances:
        """
        Read a TOML file.

        Parameters
        ----------
        path : path
            The file.
        default : Tolerance or Bounds, optional
            For images that no override matches, where the file has no default of its own.

        Raises
        ------
        FileFormatError
            It cannot be read, is not TOML, or does not fit the schema; the message names the field and the fix.
        """
        path = Path(path)
        data = read_bytes(path, LARGEST_FILE, "tolerance")
        try:
            document = _parse(data.decode("utf-8"))
        except (ValueError, RecursionError) as error:
            raise FileFormatError(f"{path}: not TOML in UTF-8: {error}: write the file again") from None
        with naming(path):
            validate(document, schema("tolerance"))
            own = _limit(document, "")
            overrides = [
                Override(
                    _limit(fields, f"override[{i}].") or _needed(i),
                    **{name: fields[name] for name in ("image", "neuron", "format", "direction") if name in fields},
                )
                for i, fields in enumerate(document.get("override", ()))
            ]
        return cls(own or default or Bounds(), tuple(overrides))


def _parse(text: str) -> dict[str, Any]:
    """Parse TOML; raises `ValueError` if it is invalid, or would take much memory."""
    rest = _TEXT.sub("", text)
    parts = re.split(r"[\[\]{},=\n]", rest)
    if sum(map(rest.count, "[{.")) > MOST_TABLES or max(part.count(".") for part in parts) > MOST_DOTS:
        raise ValueError("more tables or dots than any tolerance needs")
    return tomllib.loads(text)


def _limit(fields: dict[str, Any], where: str) -> Limit | None:
    numbers = {name: fields[name] for name in ("ulp", "rtol", "atol") if name in fields}
    if "bounds" in fields and numbers:
        raise FileFormatError(f"{where}bounds: stands beside {', '.join(numbers)}: give one or the other")
    try:
        if "bounds" in fields:
            return limit_of(fields["bounds"])
        return Tolerance(**numbers) if numbers else None
    except ParameterError as error:
        raise FileFormatError(f"{where}{error}") from None


def _needed(number: int) -> Limit:
    raise FileFormatError(f"override[{number}].bounds: missing: give it, or ulp, rtol and atol")


def tolerances_of(value: Tolerances | Limit | str | None) -> Tolerances:
    """The tolerances that an argument stands for; raises `ParameterError` if it is none."""
    if value is None:
        return Tolerances()
    if isinstance(value, Tolerances):
        return value
    if isinstance(value, Tolerance | Bounds):
        return Tolerances(value)
    if isinstance(value, str):
        return Tolerances(limit_of(value))
    raise ParameterError(f"tolerance is a {type(value).__name__}: give a Tolerance, Bounds, Tolerances or a preset")
