"""What passes: presets, and TOML files with other limits for some images."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, TypeAlias

from mpsref.arguments import checked, checked_fields
from mpsref.documents import read_bytes, schema, validate
from mpsref.errors import FileFormatError, ParameterError, naming, shown
from mpsref.verify.compare import Tolerance
from mpsref.verify.models import MODELS
from mpsref.verify.reasons import EXCUSES, Reason, reasons_of

__all__ = [
    "Bounds",
    "Limit",
    "Override",
    "Tolerances",
    "excused_by",
    "limit_json",
    "limit_of",
    "limit_of_fields",
    "tolerances_of",
]

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
        One of `mpsref.verify.models.MODELS`.
    allow : sequence of str
        What is excused besides what a model excuses anyway, such as ``overflow``; see `mpsref.verify.reasons.Reason`.
    strict : bool
        Whether nothing else is excused.

    Raises
    ------
    ParameterError
        The model or the excuse does not exist.
    """

    model: str = "metal-fast"
    allow: tuple[str, ...] = ()
    strict: bool = False

    def __post_init__(self) -> None:
        if self.model not in MODELS:
            raise ParameterError(f"bounds are {shown(self.model)}: choose one of {_CHOICES}")
        object.__setattr__(self, "allow", tuple(reason.name for reason in sorted(reasons_of(self.allow))))

    def __str__(self) -> str:
        allowed = f"; excused: {', '.join(self.allow) or 'nothing'}" if self.strict or self.allow else ""
        return f"what {self.model} arithmetic allows each formula{allowed}"

    @property
    def excused(self) -> frozenset[Reason]:
        """The reasons that excuse."""
        return reasons_of(self.allow) | (frozenset() if self.strict else EXCUSES)


Limit: TypeAlias = Tolerance | Bounds

_CHOICES = f"{', '.join(MODELS)}, exact, ulp=N"


def limit_of(text: str) -> Limit:
    """The limit that a preset stands for; raises `ParameterError` if it does not exist."""
    if text == "exact":
        return Tolerance(ulp=0)
    if match := re.fullmatch("ulp=([0-9]{1,20})", text):
        return Tolerance(ulp=int(match[1]))
    return Bounds(text)


def excused_by(limit: Limit) -> frozenset[Reason]:
    """The reasons that excuse under a limit."""
    return limit.excused if isinstance(limit, Bounds) else EXCUSES


def limit_json(limit: Limit) -> dict[str, Any]:
    """The limit as JSON."""
    if isinstance(limit, Bounds):
        return {"bounds": limit.model, "allow": list(limit.allow), "strict": limit.strict}
    return asdict(limit)


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
    def with_excuses(self, allow: str | Iterable[str] = (), *, strict: bool = False) -> Tolerances:
        """
        The same with more excuses, or with none but these, for all bounds of models.

        Raises
        ------
        ParameterError
            An excuse does not exist.
        """
        names = tuple(reason.name for reason in reasons_of(allow))

        def changed(limit: Limit) -> Limit:
            if isinstance(limit, Tolerance):
                return limit
            return replace(limit, allow=(*limit.allow, *names), strict=limit.strict or strict)

        overrides = tuple(replace(override, limit=changed(override.limit)) for override in self.overrides)
        return Tolerances(changed(self.default), overrides)

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
            own = limit_of_fields(document, "", default)
            overrides = [
                Override(
                    limit_of_fields(fields, f"override[{i}].", own or default) or _needed(i),
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


def limit_of_fields(fields: Mapping[str, Any], where: str, default: Limit | None) -> Limit | None:
    """
    What some fields of a file say; `default` has the model of those that only say what is excused.

    Raises `FileFormatError` if they contradict each other, or name no preset or excuse.
    """
    numbers = {name: fields[name] for name in ("ulp", "rtol", "atol") if name in fields}
    excuses = {name: fields[name] for name in ("allow", "strict") if name in fields}
    bounds = next((name for name in ("bounds", *excuses) if name in fields), None)
    if bounds and numbers:
        raise FileFormatError(f"{where}{bounds}: stands beside {', '.join(numbers)}: give one or the other")
    try:
        if bounds:
            limit = limit_of(fields["bounds"]) if "bounds" in fields else default or Bounds()
            if excuses and isinstance(limit, Tolerance):
                raise FileFormatError(f"{where}{next(iter(excuses))}: is for bounds of a model: give one as bounds")
            return replace(limit, **excuses) if excuses else limit
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
