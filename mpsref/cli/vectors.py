"""``mpsref vectors``."""

from __future__ import annotations

import argparse

from mpsref.cli.arguments import NEURON_TYPES, add_subject, descriptor, integer
from mpsref.cli.outputs import output_file, tell
from mpsref.cli.status import PASSED
from mpsref.display import printable
from mpsref.errors import FileFormatError
from mpsref.files import check_outputs, write_atomically
from mpsref.lab.vector_text import LANGUAGES, vector_text
from mpsref.lab.vectors import vectors
from mpsref.verify.models import MODELS

__all__ = ["define", "run"]


def define(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Write test vectors of a neuron for programs without Python: inputs, correctly rounded results, and what a "
        "model of a device's arithmetic allows, with a function that compares."
    )
    parser.add_argument("--neuron", metavar="TYPE", choices=NEURON_TYPES, required=True,
                        help="Apple's name of the type")  # fmt: skip
    add_subject(parser)
    parser.add_argument("--direction", choices=["forward", "gradient"], default="forward",
                        help="gradient: for an incoming gradient of 1 (default forward)")  # fmt: skip
    parser.add_argument("--bounds", metavar="MODEL", choices=MODELS, default="metal-fast",
                        help=f"what is allowed: {', '.join(MODELS)} (default metal-fast)")  # fmt: skip
    parser.add_argument("--count", metavar="N", type=integer, help="number of inputs (default 4096)")
    parser.add_argument("--all", action="store_true", help="every input of a format of at most 16 bits")
    parser.add_argument("--seed", metavar="N", type=integer, default=1, help="selects other inputs (default 1)")
    parser.add_argument("--language", choices=LANGUAGES, required=True, help="the language of the file")
    parser.add_argument("--out", metavar="FILE", type=output_file, required=True, help="the file to write")


def run(options: argparse.Namespace) -> int:
    if options.all and options.count is not None:
        raise FileFormatError("--count: conflicts with --all: give one or the other")
    if options.seed < 0:
        raise FileFormatError(f"--seed is {options.seed}: give 0 or more")
    check_outputs({"--out": options.out})
    made = vectors(
        descriptor(options.neuron, options),
        options.format,
        direction=options.direction,
        model=options.bounds,
        count=None if options.all else 4096 if options.count is None else options.count,
        seed=options.seed,
    )
    write_atomically(
        options.out, lambda out: out.writelines(part.encode() for part in vector_text(made, options.language))
    )
    tell(f"wrote {len(made):,} vectors to {printable(str(options.out))}", options.out)
    return PASSED
