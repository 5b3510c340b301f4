"""
The pytest plugin of mpsref: the fixture ``mpsref_compare`` and its options.

It imports only the lazy package until a test uses the fixture: pytest imports the plugin in every run, also in those
that have nothing to do with mpsref.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from mpsref.testing import Comparison, Tolerances

TOLERANCES, REPORTS = "--mpsref-tolerance-file", "--mpsref-reports"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of mpsref."""
    group = parser.getgroup("mpsref", "comparisons with mpsref")
    group.addoption(TOLERANCES, metavar="FILE", help="JSON file of what passes, for tests by name")
    group.addoption(REPORTS, metavar="DIR", help="write the report of each comparison into this folder, as JSON")


@pytest.fixture
def mpsref_compare(request: pytest.FixtureRequest) -> Callable[..., Comparison]:
    """
    Compare two arrays as `mpsref.testing.compare` does, and fail the test unless they are close.

    The report of a failed test has a section with all its comparisons. A test that gives no bounds gets those of the
    tolerance file.
    """
    from mpsref.errors import ImageError, VerificationError  # noqa: PLC0415
    from mpsref.testing import compare  # noqa: PLC0415

    tolerances = _tolerances(request.config.getoption(TOLERANCES))
    folder = request.config.getoption(REPORTS)
    compared = 0

    def compare_and_check(actual: Any, expected: Any, *, name: str = "actual", **options: Any) -> Comparison:
        __tracebackhide__ = True
        nonlocal compared
        if tolerances is not None and not {"bounds", "ulp", "rtol", "atol"} & options.keys():
            options["bounds"] = tolerances.of(name, request.node.nodeid)
        try:
            comparison = compare(actual, expected, name=name, **options)
        except ImageError as error:
            raise VerificationError(str(error), None) from None
        compared += 1
        request.node.add_report_section("call", "mpsref", f"{comparison.text()}\n")
        if folder is not None:
            _write(Path(folder), f"{request.node.nodeid}-{compared}", comparison)
        if not comparison.passed:
            raise VerificationError(f"{name}: {comparison.verdict}", comparison)
        return comparison

    return compare_and_check


@cache
def _tolerances(path: str | None) -> Tolerances | None:
    from mpsref.errors import FileFormatError  # noqa: PLC0415
    from mpsref.testing import Tolerances  # noqa: PLC0415

    try:
        return None if path is None else Tolerances.read(path)
    except FileFormatError as error:
        raise pytest.UsageError(f"{TOLERANCES}: {error}") from None


def _write(folder: Path, name: str, comparison: Comparison) -> None:
    from mpsref.files import write_atomically  # noqa: PLC0415

    # Names of tests may differ only in characters that file names cannot have.
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    folder.mkdir(parents=True, exist_ok=True)
    data = (json.dumps(comparison.to_json(), indent=1) + "\n").encode()
    file = folder / f"{re.sub(r'[^A-Za-z0-9.-]+', '_', name)[-150:]}.{digest}.json"
    write_atomically(file, lambda out: out.write(data))
