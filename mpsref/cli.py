"""The command line: ``mpsref run`` and ``mpsref verify``."""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import mpsref
from mpsref.documents import write_atomically
from mpsref.enums import MPSImageFeatureChannelFormat
from mpsref.errors import FileFormatError, MPSRefError
from mpsref.executor import MPSNNGraph
from mpsref.graph import GraphFile
from mpsref.graph.schedule import inputs
from mpsref.image import MPSImage, MPSImageDescriptor
from mpsref.verify import RecordedImage, Recording, Tolerance, read_npy, verify, write_recording
from mpsref.verify.report import printable

__all__ = ["main"]

PASSED, MISMATCH, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130

_EXIT_STATUS = "exit status: 0 all within bounds, 1 a mismatch, 2 bad usage or bad input"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(BAD_INPUT, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run the command line.

    Parameters
    ----------
    arguments : sequence of str, optional
        Default: those of the process.

    Returns
    -------
    int
        Exit status: 0 all within bounds, 1 a mismatch, 2 bad usage or bad input.
    """
    options = _parser().parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        status: int = options.command(options)
        sys.stdout.flush()
    except MPSRefError as error:
        return _complain(str(error))
    except BrokenPipeError:
        # Whoever read our output has seen enough; nothing is left to say, not even at interpreter exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BAD_INPUT
    except (OSError, MemoryError) as error:
        return _complain(f"{getattr(error, 'filename', None) or ''}: {getattr(error, 'strerror', None) or error!r}")
    except KeyboardInterrupt:
        return INTERRUPTED
    return status


def _complain(message: str) -> int:
    print(f"mpsref: {printable(' '.join(message.split()))}", file=sys.stderr)
    return BAD_INPUT


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="mpsref", description="The golden reference of Apple's MPS neuron node graph.")
    parser.add_argument("--version", action="version", version=f"mpsref {mpsref.__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    run = commands.add_parser(
        "run",
        help="evaluate a graph and write its results as a recording",
        description="Evaluate a graph file and write sources and results into a folder, as a recording.",
    )
    run.add_argument("graph", metavar="GRAPH", type=Path, help="graph file")
    run.add_argument("--source", metavar="NAME=FILE", action="append", default=[], type=_named_file,
                     help="a source image: a .npy file, or raw elements with --shape and --channel-format")  # fmt: skip
    run.add_argument("--shape", metavar="[Nx]HxWxC", type=_shape, help="shape of raw source files")
    run.add_argument("--channel-format", choices=[f.name for f in MPSImageFeatureChannelFormat if f],
                     help="format of raw source files")  # fmt: skip
    run.add_argument("--out", metavar="DIR", type=Path, required=True, help="folder to write into")
    run.add_argument("--all", action="store_true", help="write the intermediate images too")
    run.add_argument("--raw", action="store_true", help="write raw elements instead of .npy")
    run.set_defaults(command=_run)

    check = commands.add_parser(
        "verify",
        help="compare what a device wrote with the reference",
        description="Evaluate a recording's graph on its sources and compare every image that it holds.",
        epilog=_EXIT_STATUS,
    )
    check.add_argument("recording", metavar="RECORDING", type=Path, help="recording file")
    check.add_argument("--ulp", metavar="N", type=int, help="pass within N units in the last place of the storage "
                       "format (default 4; 0 if --rtol or --atol is given)")  # fmt: skip
    check.add_argument("--rtol", metavar="R", type=float, default=0.0, help="pass within A + R |want|")
    check.add_argument("--atol", metavar="A", type=float, default=0.0, help="pass within A + R |want|")
    check.add_argument("--worst", metavar="N", type=int, default=5, help="elements to list for each image (default 5)")
    check.add_argument("--all", action="store_true", help="list the worst elements of images within bounds too")
    check.add_argument("--json", metavar="FILE", type=Path, help="write the report as JSON")
    check.set_defaults(command=_verify)
    return parser


def _named_file(text: str) -> tuple[str, Path]:
    name, equals, file = text.partition("=")
    if not (name and equals and file):
        raise argparse.ArgumentTypeError(f"{text!r}: give NAME=FILE")
    return name, Path(file)


def _shape(text: str) -> tuple[int, ...]:
    if not re.fullmatch(r"[1-9]\d{0,8}(x[1-9]\d{0,8}){2,3}", text):
        raise argparse.ArgumentTypeError(f"{text!r}: give HxWxC or NxHxWxC")
    sizes = tuple(map(int, text.split("x")))
    return (1,) * (4 - len(sizes)) + sizes


def _run(options: argparse.Namespace) -> int:
    file = GraphFile.read(options.graph)
    wanted = list(file.images.values()) if options.all else file.result_images
    nodes = inputs(wanted)
    names = {image: name for name, image in file.images.items()}
    given = dict(options.source)
    needed = [names[node] for node in nodes]
    if len(given) != len(options.source):
        raise FileFormatError("--source: a name is given twice")
    for name in needed:
        if name not in given:
            raise FileFormatError(f"--source {name}=FILE: missing: {options.graph} reads {', '.join(needed)}")
    for name in given:
        if name not in needed:
            raise FileFormatError(f"--source {name}=...: {options.graph} reads only {', '.join(needed)}")
    sources = [_read_source(given[name], options) for name in needed]
    graph = MPSNNGraph(result_images=wanted, format=file.storage)
    rest: list[MPSImage] = []
    try:
        with _Progress() as progress:
            first = graph.encode(source_images=sources, intermediate_images=rest, progress=progress)
    except MPSRefError as error:
        raise FileFormatError(f"{options.graph}: {error}") from None
    assert first is not None
    results = dict(zip((names[image] for image in wanted), [first, *rest], strict=False))
    images = dict(zip(needed, sources, strict=True)) | results
    path = write_recording(options.out, file, images, f"mpsref {mpsref.__version__}", raw=options.raw)
    print(f"wrote {len(images)} images and {path}")
    return PASSED


def _read_source(path: Path, options: argparse.Namespace) -> MPSImage:
    if path.suffix == ".npy":
        return read_npy(path)
    if options.shape is None or options.channel_format is None:
        raise FileFormatError(f"{path}: raw elements: give --shape and --channel-format, or a .npy file")
    n, h, w, c = options.shape
    descriptor = MPSImageDescriptor(
        channel_format=MPSImageFeatureChannelFormat[options.channel_format],
        width=w,
        height=h,
        feature_channels=c,
        number_of_images=n,
    )
    return RecordedImage.of_raw_file(path, descriptor).read()


def _verify(options: argparse.Namespace) -> int:
    tolerance = Tolerance(options.ulp, options.rtol, options.atol)
    if options.worst < 0:
        raise FileFormatError(f"--worst is {options.worst}: give at least 0")
    recording = Recording.read(options.recording)
    if options.json is not None and options.json.resolve() in {file.resolve() for file in recording.files}:
        raise FileFormatError(f"--json {options.json}: belongs to the recording: choose another file")
    with _Progress() as progress:
        report = verify(recording, tolerance, worst=options.worst, progress=progress)
    if options.json is not None:
        text = json.dumps(report.to_json(), indent=1) + "\n"
        write_atomically(options.json, lambda out: out.write(text.encode()))
    print(report.text(every_image=options.all))
    return PASSED if report.passed else MISMATCH


class _Progress:
    """A line on stderr that counts nodes, on a terminal only, and leaves nothing behind."""

    def __enter__(self) -> Callable[[int, int], None] | None:
        return self._show if sys.stderr.isatty() else None

    def __exit__(self, *_: object) -> None:
        if sys.stderr.isatty():
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    @staticmethod
    def _show(done: int, of_all: int) -> None:
        if done == of_all or done % max(of_all // 100, 1) == 0:
            print(f"\r\x1b[Knode {done} of {of_all}", end="", file=sys.stderr, flush=True)
