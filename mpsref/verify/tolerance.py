"""What passes: presets, and a TOML file that says otherwise for some images."""

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
from mpsref.errors import FileFormatError, ParameterError, shown
from mpsref.verify.bounds import MODELS
from mpsref.verify.compare import Tolerance

__all__ = ["Bounds", "Limit", "Override", "Tolerances", "limit_json", "limit_of", "tolerances_of"]

LARGEST_FILE = 2**20
"""Bytes; 10,000 overrides have about 700 KB."""

MOST_TABLES, MOST_DOTS = 50_000, 8
"""
Brackets, braces and dots outside of texts, and dots in one key: a byte of these can take a KiB of memory, and a key
with n dots n^2 times as much.
"""

_TEXT = re.compile(
    r'''"""(?:[^\\]|\\.)*?(?:"{3,5}|\Z)|\'{3}.*?(?:\'{3,5}|\Z)|"(?:[^"\\\n]|\\.)*"?|'[^'\n]*'?|#[^\n]*''',
    re.DOTALL,
)
"""A text of TOML, or a comment; one that has no end goes on to where it must end."""


@checked_fields
@dataclass(frozen=True)
class Bounds:
    """
    What passes: whatever a device may give that keeps a model's promises, see `mpsref.verify.bounds`.

    Parameters
    ----------
    model : str
        One of `mpsref.verify.bounds.MODELS`.

    Raises
    ------
    ParameterError
        There is no such model.
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
    """
    What a preset's name means.

    Raises
    ------
    ParameterError
        There is no such preset.
    """
    if text == "exact":
        return Tolerance(ulp=0)
    if match := re.fullmatch("ulp=([0-9]{1,20})", text):
        return Tolerance(ulp=int(match[1]))
    return Bounds(text)


def limit_json(limit: Limit) -> dict[str, Any]:
    """As `json` can write it."""
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
        What the image must be: its name; the neuron type; the storage format; ``forward`` or ``gradient``. None: any.
    """

    limit: Limit
    image: str | None = None
    neuron: str | None = None
    format: str | None = None
    direction: str | None = None

    def fits(self, **facts: str | None) -> bool:
        """Whether it is for an image of these facts."""
        return all(getattr(self, name) in (None, fact) for name, fact in facts.items())


@checked_fields
@dataclass(frozen=True)
class Tolerances:
    """
    What passes, image by image.

    Attributes
    ----------
    default : Tolerance or Bounds
        For images that no override fits.
    overrides : tuple of Override
        The last that fits decides.
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
        """The last override of those that ask for the same: an image looks up 16 of them, however many there are."""
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
            For images that no override fits, where the file has no default of its own.

        Raises
        ------
        FileFormatError
            It cannot be read, is no TOML, or does not fit the schema; the message names the field and the mend.
        """
        path = Path(path)
        data = read_bytes(path, LARGEST_FILE, "tolerance")
        try:
            document = _parse(data.decode("utf-8"))
        except (ValueError, RecursionError) as error:
            raise FileFormatError(f"{path}: no TOML in UTF-8: {error}: write the file again") from None
        try:
            validate(document, schema("tolerance"))
            own = _limit(document, "")
            overrides = [
                Override(
                    _limit(fields, f"override[{i}].") or _needed(i),
                    **{name: fields[name] for name in ("image", "neuron", "format", "direction") if name in fields},
                )
                for i, fields in enumerate(document.get("override", ()))
            ]
        except (FileFormatError, ParameterError) as error:
            raise FileFormatError(f"{path}: {error}") from None
        return cls(own or default or Bounds(), tuple(overrides))


def _parse(text: str) -> dict[str, Any]:
    """TOML; raises `ValueError` if it is none, or would take much memory."""
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
    """
    Whatever a caller gives, as tolerances.

    Raises
    ------
    ParameterError
        It is no tolerance.
    """
    if value is None:
        return Tolerances()
    if isinstance(value, Tolerances):
        return value
    if isinstance(value, Tolerance | Bounds):
        return Tolerances(value)
    if isinstance(value, str):
        return Tolerances(limit_of(value))
    raise ParameterError(f"tolerance is a {type(value).__name__}: give a Tolerance, Bounds, Tolerances or a preset")
