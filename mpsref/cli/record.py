"""``mpsref record``."""

from __future__ import annotations

import argparse
import contextlib
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from mpsref.cli.arguments import format_name, integer, shape
from mpsref.cli.progress import Progress
from mpsref.cli.status import EPILOG, MISMATCH, PASSED
from mpsref.display import printable
from mpsref.errors import FileFormatError
from mpsref.formats import IMAGES
from mpsref.graph import GraphFile
from mpsref.graph.schedule import schedule
from mpsref.lab.apple import Metal, MetalProgram
from mpsref.lab.cpu import Limits, Program
from mpsref.lab.foreign import Compiled, ForeignKernel, Given
from mpsref.lab.processor import Processor
from mpsref.lab.recording import Backend, record
from mpsref.lab.webgpu import WebGPU, adapters, described_adapter
from mpsref.storage import storage_format
from mpsref.verify import Bounds, Recording, Tolerances, verify
from mpsref.verify.models import MODELS
from mpsref.verify.tolerance import Override, limit_of

__all__ = ["define", "run"]

MODELS_OF = {"wgpu": "wgsl"}
"""What a backend promises, by the name of its model; others what Metal does."""

KERNELS = (("cpu", ".metal"), ("wgpu", ".wgsl"), ("metal", ".metal"))
"""What runs which kernels of somebody else."""


def define(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Make source images, run every node of a graph on this machine, and write all images as a recording. Our own "
        "kernels run on the processor or through wgpu, or MPS runs the graph; a kernel of a .metal or .wgsl file can "
        "take the place of one of its nodes."
    )
    parser.epilog = EPILOG
    parser.add_argument("graph", metavar="GRAPH", type=Path, help="graph file")
    parser.add_argument("--shape", metavar="[Nx]HxWxC", type=shape, required=True, help="shape of every source")
    parser.add_argument("--channel-format", type=format_name, choices=IMAGES,
                        help="format of sources that have none in the graph "
                        "(default: the graph's storage)")  # fmt: skip
    parser.add_argument("--backend", choices=["cpu", "wgpu", "metal"], default="cpu", help="what runs the "
                        "kernels: this machine's processor, or a GPU by the package wgpu; or MPS itself, on a Mac, by "
                        "PyObjC (default cpu)")  # fmt: skip
    parser.add_argument("--adapter", metavar="TEXT", action=_Adapter, help="of wgpu: part of an adapter's name, or "
                        "list, to see them (default: the first)")  # fmt: skip
    parser.add_argument("--memory", choices=["buffers", "textures"], help="what our own kernels read and write "
                        "(default: buffers, where the formats allow it)")  # fmt: skip
    parser.add_argument("--kernel", metavar="FILE", type=Path, help="a .metal file, of --backend cpu or metal, or a "
                        ".wgsl file, of --backend wgpu")  # fmt: skip
    parser.add_argument("--function", metavar="NAME", help="the kernel in it")
    parser.add_argument(
        "--for", metavar="NODE", dest="node", help="the node that it computes, by the name of its result"
    )
    parser.add_argument("--argument", metavar="WHAT=PLACE", action="append", default=[],
                        help="what is bound where, such as source=texture0, result=buffer2; or NAME=NUMBER for an "
                        "argument, a field or a function constant (default: by their names)")  # fmt: skip
    parser.add_argument("--grid", metavar="X,Y,Z", type=_three, help="its threads (default: one for each texel, or "
                        "element of buffers)")  # fmt: skip
    parser.add_argument("--threadgroup", metavar="X,Y,Z", type=_three, help="threads of a group, of a .metal file")
    parser.add_argument("--seconds", metavar="N", type=integer, default=60, help="what it may take, of a .metal file "
                        "(default 60)")  # fmt: skip
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="folder to write into")
    parser.add_argument("--seed", metavar="N", type=integer, default=1, help="selects other images (default 1)")
    parser.add_argument("--verify", action="store_true", help="verify the recording at once")
    parser.add_argument("--bounds", metavar="PRESET", help="of --verify, see mpsref verify (default: wgsl for wgpu, "
                        "else metal-fast)")  # fmt: skip
    parser.add_argument("--allow", metavar="REASON,...", help="of --verify, see mpsref verify (default: overflow where "
                        "kernels of our own run, which are the formulas as they stand)")  # fmt: skip


def run(options: argparse.Namespace) -> int:
    _check(options)
    limit = limit_of(options.bounds or MODELS_OF.get(options.backend, "metal-fast"))
    tolerances = Tolerances(limit).with_excuses(filter(None, (options.allow or "").split(",")))
    file = GraphFile.read(options.graph)
    channel_format = storage_format(options.channel_format or file.storage).of_image("--channel-format")
    with contextlib.ExitStack() as opened:
        backend: Backend | Metal
        program: Callable[..., Compiled]
        if options.backend == "metal":
            backend = metal = Metal()
            program = partial(MetalProgram, metal)
        elif options.backend == "wgpu":
            backend = device = WebGPU(options.adapter or "", options.memory)
            program = device.program
        else:
            operations = [node.operation for node in schedule(file.result_images)]
            backend, program = opened.enter_context(Processor(operations, options.memory)), Program
        kernel = None
        if options.kernel is not None:
            kernel = opened.enter_context(
                ForeignKernel(
                    options.kernel,
                    options.function,
                    Given.parsed(options.argument),
                    grid=options.grid,
                    group=options.threadgroup,
                    limits=Limits(options.seconds),
                    program=program,
                )
            )
        recorded = record(
            file, options.shape, channel_format, backend, options.out,
            seed=options.seed, kernel=kernel, node=options.node,
        )  # fmt: skip
    print(f"wrote {printable(str(recorded.path))} with {recorded.images} images by {backend.device}")
    for note in recorded.notes:
        print(f"note: {note}")
    # Formulas as they stand overflow, of softPlus for one; WGSL leaves that open anyway.
    finite = not isinstance(limit, Bounds) or MODELS[limit.model].is_finite
    literal = bool(recorded.own) and options.allow is None and not finite
    if not options.verify:
        bounds = "" if limit == Bounds() else f" --bounds {options.bounds or MODELS_OF[options.backend]}"
        print(f"now: mpsref verify {printable(str(recorded.path))}{bounds}{' --allow overflow' if literal else ''}")
        if literal:
            print("(kernels of our own are the formulas as they stand, of which some overflow: it allows that)")
        return PASSED
    if literal and isinstance(limit, Bounds):
        own = tuple(Override(replace(limit, allow=("overflow",)), image=name) for name in recorded.own)
        tolerances = replace(tolerances, overrides=own)
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
    if (options.backend, options.kernel.suffix) not in KERNELS:
        choices = " or ".join(f"a {suffix} file and --backend {backend}" for backend, suffix in KERNELS)
        raise FileFormatError(f"--kernel {options.kernel}: give {choices}")
    if options.backend == "wgpu" and options.threadgroup is not None:
        raise FileFormatError("--threadgroup: of WGSL it stands in the text: change its @workgroup_size")
    if options.function is None:
        raise FileFormatError("--function: missing: name the kernel of the file")
    if not 1 <= options.seconds <= 86_400:
        raise FileFormatError(f"--seconds is {options.seconds}: give 1 to 86400")


class _Adapter(argparse.Action):
    """Part of a name; or ``list``, which needs nothing else."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        if values == "list":
            print("\n".join(map(described_adapter, adapters())) or "no adapter")
            parser.exit()
        namespace.adapter = values


def _three(text: str) -> tuple[int, int, int]:
    """``X,Y,Z``, the last ones 1 if left out."""
    if not re.fullmatch("[1-9][0-9]{0,8}(,[1-9][0-9]{0,8}){0,2}", text):
        raise argparse.ArgumentTypeError(f"{text!r}: give X,Y,Z, such as 64,64,4")
    x, y, z = (*map(int, text.split(",")), 1, 1)[:3]
    return x, y, z
