"""``mpsref sweep``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mpsref.cli.arguments import ALL_TYPES, add_subject, descriptor, integer, part
from mpsref.cli.outputs import checkpoint_beside, interrupted, output_file, tell
from mpsref.cli.progress import Bar
from mpsref.cli.status import MISMATCH, PASSED
from mpsref.errors import ParameterError
from mpsref.files import check_outputs
from mpsref.neuron import MPSNNNeuronDescriptor
from mpsref.sweep import sweep
from mpsref.sweep.implementation import sources_of
from mpsref.sweep.libraries import adapter, names_of

__all__ = ["define", "run"]


def define(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Call your implementation with every bit pattern of a format, or a fair part of them, and compare with the "
        "reference."
    )
    parser.epilog = (
        "exit status: 0 all within bounds, 1 a mismatch, 2 bad usage or an implementation that cannot be called or "
        "ends its process, 3 a fault of mpsref, 130 interrupted"
    )
    parser.add_argument("--implementation", metavar="MODULE:FUNCTION", required=True,
                        help="takes an array, for a gradient the incoming gradients too, and returns one like it; the "
                        "module is looked for in the current folder first; or an activation of a library, such as "
                        "torch:gelu or torch@mps:gelu")  # fmt: skip
    parser.add_argument("--neuron", metavar="TYPE", choices=ALL_TYPES,
                        help="Apple's name of the type, or the name of an activation that is not Apple's (default: "
                        "that of the library's activation)")  # fmt: skip
    add_subject(parser)
    parser.add_argument("--direction", choices=["forward", "gradient"], default="forward",
                        help="gradient: for an incoming gradient of 1 (default forward)")  # fmt: skip
    parser.add_argument("--ulp", metavar="N", type=integer, default=0,
                        help="pass within N units in the last place of the format (default 0: exact)")  # fmt: skip
    parser.add_argument("--stride", metavar="N", type=integer, default=1,
                        help="try one of N successive bit patterns, a fair part (default 1: all)")  # fmt: skip
    parser.add_argument("--shard", metavar="I/N", type=part, default=(1, 1), help="only the I-th of N ranges of inputs")
    parser.add_argument("--workers", metavar="N", type=integer, default=1, help="number of processes (default 1)")
    parser.add_argument("--package", metavar="NAME", action="append", default=[],
                        help="a package whose version the report should have")  # fmt: skip
    parser.add_argument("--json", metavar="FILE", type=output_file, help="write the report as JSON")
    parser.add_argument("--checkpoint", metavar="FILE", type=Path,
                        help="save progress, to go on after an interruption (default: beside --json)")  # fmt: skip


def run(options: argparse.Namespace) -> int:
    neuron = _neuron(options)
    json_file: Path | None = options.json
    checkpoint = options.checkpoint or checkpoint_beside(json_file)
    named = adapter(options.implementation)
    packages = options.package or ([] if named is None else named.packages)
    # As python -m has it; a console script has its own folder there.
    if "" not in sys.path:
        sys.path.insert(0, "")
    check_outputs({"--json": json_file, "--checkpoint": checkpoint}, sources_of(options.implementation))
    try:
        with Bar(f"{neuron.neuron_type.name} {options.format}") as progress:
            report = sweep(
                options.implementation,
                neuron,
                direction=options.direction,
                format=options.format,
                ulp=options.ulp,
                stride=options.stride,
                shard=options.shard,
                workers=options.workers,
                checkpoint=checkpoint,
                packages=packages,
                progress=progress,
                isolated=True,
            )
    except KeyboardInterrupt:
        interrupted(checkpoint, "--json")
        raise
    if json_file is not None:
        report.write(json_file)
    tell(report.text(), json_file)
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    return PASSED if report.passed else MISMATCH


def _neuron(options: argparse.Namespace) -> MPSNNNeuronDescriptor:
    """What the implementation should compute: as given, or what the library's activation is."""
    if options.neuron is not None:
        return descriptor(options.neuron, options)
    named = adapter(options.implementation)
    if named is None:
        library = options.implementation.partition(":")[0]
        raise ParameterError(f"--neuron: missing: say what {options.implementation} computes{names_of(library)}")
    for name in ("a", "b", "c", "data", "parameter"):
        if getattr(options, name) not in (None, []):
            raise ParameterError(f"--{name}: {options.implementation} has its parameters: give --neuron too")
    return named.descriptor
