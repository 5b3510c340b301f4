"""``mpsref verify``."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from mpsref.cli.arguments import integer, number
from mpsref.cli.outputs import output_file, tell
from mpsref.cli.progress import Progress
from mpsref.cli.status import EPILOG, MISMATCH, PASSED
from mpsref.errors import FileFormatError
from mpsref.files import check_outputs, write_json
from mpsref.verify import Aggregate, Bounds, Limit, Recording, Tolerance, Tolerances, verify
from mpsref.verify.models import MODELS
from mpsref.verify.tolerance import limit_of

__all__ = ["define", "run"]


def define(parser: argparse.ArgumentParser) -> None:
    parser.description = "Evaluate a recording's graph on its sources and compare every recorded image."
    parser.epilog = EPILOG
    parser.add_argument("recording", metavar="RECORDING", type=Path, help="recording file")
    parser.add_argument("--bounds", metavar="PRESET", help="what passes: the results that a model of the device's "
                        f"arithmetic allows ({', '.join(MODELS)}), exact, or ulp=N (default metal-fast)")  # fmt: skip
    parser.add_argument("--tolerance", metavar="FILE", type=Path, help="a TOML file with other bounds for some images, "
                        "neurons, formats or directions")  # fmt: skip
    parser.add_argument("--ulp", metavar="N", type=integer, help="pass within N units in the last place of the storage "
                        "format (0 if --rtol or --atol is given)")  # fmt: skip
    parser.add_argument("--allow", metavar="REASON,...", default="", help="also excuse these reasons, such as "
                        "overflow: an intermediate of the formula overflows")  # fmt: skip
    parser.add_argument("--strict", action="store_true", help="excuse nothing but what --allow names, and fail where "
                        "results are rounded in one direction")  # fmt: skip
    parser.add_argument("--rtol", metavar="R", type=number, default=0.0, help="pass within A + R |want|")
    parser.add_argument("--atol", metavar="A", type=number, default=0.0, help="pass within A + R |want|")
    parser.add_argument(
        "--worst", metavar="N", type=integer, default=5, help="elements to list for each image (default 5)"
    )
    parser.add_argument("--all", action="store_true", help="list the worst elements of images within bounds too")
    parser.add_argument("--partial", action="store_true", help="judge the images whose files are there, and list those "
                        "that are missing")  # fmt: skip
    parser.add_argument("--device", metavar="TEXT", help="what wrote the images (default: as the recording says)")
    parser.add_argument("--no-faults", action="store_true", help="do not look for the likely faults of images "
                        "beyond the bounds")  # fmt: skip
    parser.add_argument("--json", metavar="FILE", type=output_file, help="write the report as JSON")
    parser.add_argument("--junit", metavar="FILE", type=output_file, help="write the report as JUnit XML")
    parser.add_argument("--html", metavar="FILE", type=output_file, help="write the report as a page for a browser, "
                        "with the graph, plots and heat maps")  # fmt: skip


def run(options: argparse.Namespace) -> int:
    limit = _limit(options)
    if options.worst < 0:
        raise FileFormatError(f"--worst is {options.worst}: give at least 0")
    recording = Recording.read(options.recording, complete=not options.partial)
    tolerance = Tolerances(limit or Bounds())
    if options.tolerance is not None:
        tolerance = Tolerances.read(options.tolerance, limit)
    allow = [name.strip() for name in options.allow.split(",") if name.strip()]
    if (allow or options.strict) and options.tolerance is None and isinstance(limit, Tolerance):
        raise FileFormatError(f"--{'allow' if allow else 'strict'}: is for bounds of a model: give one as --bounds")
    tolerance = tolerance.with_excuses(allow, strict=options.strict)
    outputs = {f"--{name}": getattr(options, name) for name in ("json", "junit", "html")}
    check_outputs(outputs, [*recording.files, *filter(None, [options.tolerance])])
    collected = None if options.html is None else Aggregate()
    with Progress() as progress:
        report = verify(
            recording,
            tolerance,
            worst=options.worst,
            faults=not options.no_faults,
            partial=options.partial,
            device=options.device,
            progress=progress,
            collect=collected,
        )
    if options.json is not None:
        write_json(options.json, report.to_json())
    # Here, because most verifications need neither XML nor a page.
    if options.junit is not None:
        from mpsref.verify.junit import write_junit  # noqa: PLC0415

        write_junit(report, options.junit)
    if options.html is not None:
        from mpsref.verify.html import write_page  # noqa: PLC0415

        write_page(report, recording.graph, collected, options.html)
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    tell(report.text(every_image=options.all, colour=colour), *outputs.values())
    return PASSED if report.passed else MISMATCH


def _limit(options: argparse.Namespace) -> Limit | None:
    """The limit of the options; None if they have none."""
    if options.ulp is not None or options.rtol or options.atol:
        if options.bounds is not None:
            raise FileFormatError("--bounds: conflicts with --ulp, --rtol and --atol: give one or the other")
        return Tolerance(options.ulp, options.rtol, options.atol)
    return None if options.bounds is None else limit_of(options.bounds)
