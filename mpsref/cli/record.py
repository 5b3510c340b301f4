"""``mpsref record``."""

from __future__ import annotations

import argparse
import contextlib
import re
from functools import partial
from pathlib import Path

from mpsref.cli.arguments import FORMATS, integer, shape
from mpsref.cli.progress import Progress
from mpsref.cli.status import EPILOG, MISMATCH, PASSED
from mpsref.display import printable
from mpsref.enums import MPSImageFeatureChannelFormat
from mpsref.errors import FileFormatError
from mpsref.graph import GraphFile
from mpsref.graph.schedule import schedule
from mpsref.lab.apple import Metal, MetalProgram
from mpsref.lab.cpu import Limits, Program
from mpsref.lab.foreign import ForeignKernel, Given
from mpsref.lab.processor import Processor
from mpsref.lab.recording import Backend, record
from mpsref.lab.webgpu import WebGPU
from mpsref.verify import Bounds, Recording, Tolerances, verify
from mpsref.verify.tolerance import limit_of

__all__ = ["define", "run"]


def define(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Make source images, run every node of a graph on this machine, and write all images as a recording. Our own "
        "kernels run on the processor or through wgpu, or MPS runs the graph; a kernel of a .metal file can take the "
        "place of one of its nodes."
    )
    parser.epilog = EPILOG
    parser.add_argument("graph", metavar="GRAPH", type=Path, help="graph file")
    parser.add_argument("--shape", metavar="[Nx]HxWxC", type=shape, required=True, help="shape of every source")
    parser.add_argument("--channel-format", choices=FORMATS, help="format of sources that have none in the graph "
                        "(default: the graph's storage)")  # fmt: skip
    parser.add_argument("--backend", choices=["cpu", "wgpu", "metal"], default="cpu", help="what runs the "
                        "kernels: this machine's processor, or a GPU by the package wgpu; or MPS itself, on a Mac, by "
                        "PyObjC (default cpu)")  # fmt: skip
    parser.add_argument("--adapter", metavar="TEXT", help="of wgpu: part of an adapter's name (default: the first)")
    parser.add_argument("--memory", choices=["buffers", "textures"], help="what our own kernels read and write "
                        "(default: buffers, where the formats allow it)")  # fmt: skip
    parser.add_argument("--kernel", metavar="FILE", type=Path, help="a .metal file, of --backend cpu or metal")
    parser.add_argument("--function", metavar="NAME", help="the kernel in it")
    parser.add_argument(
        "--for", metavar="NODE", dest="node", help="the node that it computes, by the name of its result"
    )
    parser.add_argument("--argument", metavar="WHAT=PLACE", action="append", default=[],
                        help="what is bound where, such as source=texture0, result=buffer2; or NAME=NUMBER for an "
                        "argument, a field or a function constant (default: by their names)")  # fmt: skip
    parser.add_argument("--grid", metavar="X,Y,Z", type=_three, help="its threads (default: one for each texel, or "
                        "element of buffers)")  # fmt: skip
    parser.add_argument("--threadgroup", metavar="X,Y,Z", type=_three, help="threads of a group")
    parser.add_argument("--seconds", metavar="N", type=integer, default=60, help="what it may take (default 60)")
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="folder to write into")
    parser.add_argument("--seed", metavar="N", type=integer, default=1, help="selects other images (default 1)")
    parser.add_argument("--verify", action="store_true", help="verify the recording at once")
    parser.add_argument("--bounds", metavar="PRESET", help="of --verify, see mpsref verify (default metal-fast)")
    parser.add_argument("--allow", metavar="REASON,...", default="", help="of --verify, see mpsref verify")


def run(options: argparse.Namespace) -> int:
    _check(options)
    tolerances = Tolerances(Bounds() if options.bounds is None else limit_of(options.bounds))
    tolerances = tolerances.with_excuses(filter(None, options.allow.split(",")))
    file = GraphFile.read(options.graph)
    channel_format = MPSImageFeatureChannelFormat[options.channel_format or file.storage.name]
    with contextlib.ExitStack() as opened:
        kernel, metal = None, Metal() if options.backend == "metal" else None
        if options.kernel is not None:
            kernel = opened.enter_context(
                ForeignKernel(
                    options.kernel,
                    options.function,
                    Given.parsed(options.argument),
                    grid=options.grid,
                    group=options.threadgroup,
                    limits=Limits(options.seconds),
                    program=Program if metal is None else partial(MetalProgram, metal),
                )
            )
        backend: Backend | Metal
        if metal is not None:
            backend = metal
        elif options.backend == "wgpu":
            backend = WebGPU(options.adapter or "", options.memory)
        else:
            operations = [node.operation for node in schedule(file.result_images)]
            backend = opened.enter_context(Processor(operations, options.memory))
        recorded = record(
            file, options.shape, channel_format, backend, options.out,
            seed=options.seed, kernel=kernel, node=options.node,
        )  # fmt: skip
    print(f"wrote {printable(str(recorded.path))} with {recorded.images} images by {backend.device}")
    for note in recorded.notes:
        print(f"note: {note}")
    if not options.verify:
        print(f"now: mpsref verify {printable(str(recorded.path))}")
        return PASSED
    with Progress() as progress:
        report = verify(Recording.read(recorded.path), tolerances, progress=progress)
    print(report.text())
    return PASSED if report.passed else MISMATCH


def _check(options: argparse.Namespace) -> None:
    """Refuse what does not go together, before any work."""
    if options.memory is not None and options.backend == "metal":
        raise FileFormatError("--memory: of our own kernels: --backend metal has images of MPS, leave it out")
    if options.kernel is None:
        for name in ("function", "node", "grid", "threadgroup"):
            if getattr(options, name) is not None:
                raise FileFormatError(f"--{'for' if name == 'node' else name}: of a kernel: give --kernel FILE too")
        if options.argument:
            raise FileFormatError("--argument: of a kernel: give --kernel FILE too")
        return
    if options.backend == "wgpu" or options.kernel.suffix != ".metal":
        raise FileFormatError(f"--kernel {options.kernel}: give a .metal file, and --backend cpu or metal")
    if options.function is None:
        raise FileFormatError("--function: missing: name the kernel of the file")
    if not 1 <= options.seconds <= 86_400:
        raise FileFormatError(f"--seconds is {options.seconds}: give 1 to 86400")


def _three(text: str) -> tuple[int, int, int]:
    """``X,Y,Z``, the last ones 1 if left out."""
    if not re.fullmatch("[1-9][0-9]{0,8}(,[1-9][0-9]{0,8}){0,2}", text):
        raise argparse.ArgumentTypeError(f"{text!r}: give X,Y,Z, such as 64,64,4")
    x, y, z = (*map(int, text.split(",")), 1, 1)[:3]
    return x, y, z
