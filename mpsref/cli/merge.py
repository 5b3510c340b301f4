"""``mpsref merge``."""

from __future__ import annotations

import argparse
from pathlib import Path

from mpsref.cli.outputs import output_file, tell
from mpsref.cli.status import EPILOG, MISMATCH, PASSED
from mpsref.files import check_outputs
from mpsref.sweep import SweepReport, merge

__all__ = ["define", "run"]


def define(parser: argparse.ArgumentParser) -> None:
    parser.description = "Merge reports that mpsref sweep wrote for different inputs, in any order."
    parser.epilog = EPILOG
    parser.add_argument("reports", metavar="FILE", type=Path, nargs="+", help="report of a shard, or a checkpoint")
    parser.add_argument("--json", metavar="FILE", type=output_file, help="write the report as JSON")


def run(options: argparse.Namespace) -> int:
    check_outputs({"--json": options.json}, options.reports)
    report = merge([SweepReport.read(path) for path in options.reports])
    if options.json is not None:
        report.write(options.json)
    tell(report.text(), options.json)
    return PASSED if report.passed else MISMATCH
