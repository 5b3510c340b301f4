"""``mpsref prove``."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from mpsref.cli.arguments import ALL_TYPES, NEURON_TYPES, add_subject, descriptor, integer, part
from mpsref.cli.outputs import checkpoint_beside, interrupted, output_file, tell
from mpsref.cli.progress import Bar
from mpsref.cli.status import MISMATCH, PASSED
from mpsref.errors import FileFormatError
from mpsref.files import STDOUT, check_outputs, write_json
from mpsref.proof import Subject, committed_certificates, passed, prove, report, require_judge
from mpsref.storage import storage_format

__all__ = ["define", "run"]


def define(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Evaluate every input of a neuron, forward and derivative, and judge all results near a rounding boundary and "
        "a sample of the others with ball arithmetic; compare the digest of all results with that of the certificate "
        "that comes with mpsref, if there is one. Needs an extra: pip install 'mpsref[proof]'."
    )
    parser.epilog = (
        "exit status: 0 nothing wrong, 1 something wrong, 2 bad usage or bad input, 3 a fault of mpsref, "
        "130 interrupted"
    )
    parser.add_argument("--neuron", metavar="TYPE", choices=ALL_TYPES,
                        help="Apple's name of the type, or another activation's (default: all sixteen)")  # fmt: skip
    add_subject(parser)
    parser.add_argument("--part", metavar="I/N", type=part, default=(1, 1), help="only the I-th of N ranges of inputs")
    parser.add_argument("--sample", metavar="N", type=integer, default=65_536,
                        help="how many other float32 results to judge in each direction (default 65536)")  # fmt: skip
    parser.add_argument("--seed", metavar="N", type=integer, default=1, help="of the sample (default 1)")
    parser.add_argument("--workers", metavar="N", type=integer, default=os.cpu_count() or 1,
                        help="number of processes (default: one for each processor)")  # fmt: skip
    parser.add_argument("--out", metavar="FILE", type=output_file,
                        help="write the certificate as JSON; without --neuron: a folder for all sixteen")  # fmt: skip
    parser.add_argument("--checkpoint", metavar="FILE", type=Path,
                        help="save progress, to go on after an interruption (default: beside --out)")  # fmt: skip


def run(options: argparse.Namespace) -> int:
    require_judge()
    # Before any of them is overwritten.
    committed = committed_certificates()
    subjects = _subjects(options)
    places = _places(options, [subject.name for subject in subjects])
    certificates = []
    try:
        for subject, (out, checkpoint) in zip(subjects, places, strict=True):
            with Bar(f"{subject.name} {options.format}") as progress:
                proof = prove(subject, workers=options.workers, checkpoint=checkpoint, progress=progress)
            if out is not None:
                write_json(out, proof)
            certificates.append(proof)
    except KeyboardInterrupt:
        interrupted(places[0][1], "--out")
        raise
    tell(report(certificates, committed), options.out)
    for _, checkpoint in places:
        if checkpoint is not None:
            checkpoint.unlink(missing_ok=True)
    return PASSED if passed(certificates, committed) else MISMATCH


def _subjects(options: argparse.Namespace) -> list[Subject]:
    if options.workers < 1:
        raise FileFormatError(f"--workers is {options.workers}: give at least 1")
    specific = any(getattr(options, name) is not None for name in ("a", "b", "c", "data", "checkpoint"))
    if options.neuron is None and specific:
        raise FileFormatError("--a, --b, --c, --data, --checkpoint: only with --neuron")
    return [
        Subject(
            descriptor(name, options),
            storage_format(options.format).channel_format,
            part=options.part,
            sample=options.sample,
            seed=options.seed,
        )
        for name in (NEURON_TYPES if options.neuron is None else [options.neuron])
    ]


def _places(options: argparse.Namespace, names: list[str]) -> list[tuple[Path | None, Path | None]]:
    """The files of each proof: certificate and checkpoint."""
    out: Path | None = options.out
    if options.neuron is not None:
        checkpoint = options.checkpoint or checkpoint_beside(out)
        check_outputs({"--out": out, "--checkpoint": checkpoint})
        return [(out, checkpoint)]
    if out == STDOUT:
        raise FileFormatError("--out: without --neuron, name a folder")
    if out is None:
        return [(None, None)] * len(names)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileFormatError(f"--out {out}: {error.strerror}: without --neuron, name a folder") from None
    files = [out / f"{name}.{options.format}.json" for name in names]
    places: list[tuple[Path | None, Path | None]] = [(file, checkpoint_beside(file)) for file in files]
    check_outputs({str(path): path for place in places for path in place})
    return places
