"""Tolerance files: what passes, for tests by name."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from mpsref.arguments import checked, checked_fields
from mpsref.documents import read_document
from mpsref.errors import naming
from mpsref.verify.compare import Tolerance
from mpsref.verify.tolerance import Limit, limit_of_fields

__all__ = ["Tolerances"]


@checked_fields
@dataclass(frozen=True)
class Tolerances:
    """
    What passes, for comparisons whose test does not say.

    Attributes
    ----------
    default : Tolerance, Bounds or None
        Where no pattern fits.
    patterns : tuple of (str, Tolerance or Bounds)
        Shell patterns; the first that fits the name of a comparison, or the id of its test, decides.
    """

    default: Limit | None = None
    patterns: tuple[tuple[str, Limit], ...] = ()

    @staticmethod
    @checked
    def read(path: str | Path) -> Tolerances:
        """
        Read a tolerance file.

        Raises
        ------
        FileFormatError
            It is not one.
        """
        document = read_document(Path(path), "tolerances")
        with naming(path):
            default = _tolerance("default", document["default"]) if "default" in document else None
            patterns = document.get("tests", {}).items()
            limits = [(pattern, _tolerance(pattern, entry, default)) for pattern, entry in patterns]
            return Tolerances(default, tuple(limits))

    @checked
    def of(self, *names: str) -> Limit | None:
        """The limit of a comparison with these names."""
        for pattern, tolerance in self.patterns:
            if any(fnmatchcase(name, pattern) for name in names):
                return tolerance
        return self.default


def _tolerance(where: str, entry: dict[str, Any], default: Limit | None = None) -> Limit:
    with naming(where):
        return limit_of_fields(entry, "", default) or Tolerance()
