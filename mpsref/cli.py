"""The command line: one function for each of mpsref's commands."""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import mpsref
from mpsref.columns import printable
from mpsref.documents import write_atomically
from mpsref.enums import MPSCNNNeuronType, MPSImageFeatureChannelFormat
from mpsref.errors import FileFormatError, MPSRefError
from mpsref.executor import MPSNNGraph
from mpsref.graph import GraphFile
from mpsref.graph.schedule import inputs
from mpsref.image import MPSImage, MPSImageDescriptor
from mpsref.neuron import NEURONS, MPSNNNeuronDescriptor
from mpsref.verify import (
    Aggregate,
    Bounds,
    Limit,
    RecordedImage,
    Recording,
    Tolerance,
    Tolerances,
    read_npy,
    verify,
    write_recording,
)
from mpsref.verify.bounds import MODELS
from mpsref.verify.tolerance import limit_of

if TYPE_CHECKING:
    from mpsref.proof import Subject

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
        Exit status: 0 all within bounds, or nothing wrong; 1 a mismatch, or something wrong; 2 bad usage or bad input;
        130 interrupted.
    """
    options = _options(arguments)
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


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = _parser()
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        # Of the command, which has the help that tells what there is.
        parser.prog += f" {options.name}"
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    return options


def _complain(message: str) -> int:
    print(f"mpsref: {printable(' '.join(message.split()))}", file=sys.stderr)
    return BAD_INPUT


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="mpsref", description="The golden reference of Apple's MPS neuron node graph.")
    parser.add_argument("--version", action="version", version=f"mpsref {mpsref.__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, dest="name")

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

    _add_verify(commands)
    _add_explain(commands)

    prove = commands.add_parser(
        "prove",
        help="evaluate every input of a neuron, and judge the results independently",
        description="Evaluate every input of a neuron, forward and derivative, and judge with ball arithmetic all "
        "results near a rounding boundary and a sample of the others; compare the digest of all results with that of "
        "the certificate that comes with mpsref, if there is one. Needs the extra: pip install 'mpsref[proof]'.",
        epilog="exit status: 0 nothing wrong, 1 something wrong, 2 bad usage or bad input, 130 interrupted",
    )
    prove.add_argument("--neuron", metavar="TYPE", choices=[t.name for t in NEURONS],
                       help="Apple's name of the type (default: all sixteen in turn)")  # fmt: skip
    _add_subject(prove)
    prove.add_argument("--part", metavar="I/N", type=_part, default=(1, 1), help="only the I-th of N ranges of inputs")
    prove.add_argument("--sample", metavar="N", type=int, default=65_536,
                       help="how many float32 results of a direction to judge besides (default 65536)")  # fmt: skip
    prove.add_argument("--seed", metavar="N", type=int, default=1, help="of the sample (default 1)")
    prove.add_argument("--workers", metavar="N", type=int, default=os.cpu_count() or 1,
                       help="how many processes (default: one for each processor)")  # fmt: skip
    prove.add_argument("--out", metavar="FILE", type=Path,
                       help="write the certificate as JSON; without --neuron: a folder for sixteen")  # fmt: skip
    prove.add_argument("--checkpoint", metavar="FILE", type=Path,
                       help="keep what is done, to go on after an interruption (default: beside --out)")  # fmt: skip
    prove.set_defaults(command=_prove)

    sweep = commands.add_parser(
        "sweep",
        help="compare your implementation of a neuron with the reference, at every input",
        description="Call your implementation with every bit pattern of a format, and compare with the reference.",
        epilog="exit status: 0 all within bounds, 1 a mismatch, 2 bad usage or an implementation that cannot be "
        "called, 130 interrupted",
    )
    sweep.add_argument("--implementation", metavar="MODULE:FUNCTION", required=True,
                       help="takes an array, for a gradient the upstream gradients too, and returns one like it; the "
                       "module is looked for in this folder first")  # fmt: skip
    sweep.add_argument("--neuron", metavar="TYPE", choices=[t.name for t in NEURONS], required=True,
                       help="Apple's name of the type")  # fmt: skip
    _add_subject(sweep)
    sweep.add_argument("--direction", choices=["forward", "gradient"], default="forward",
                       help="gradient: for an upstream gradient of 1 (default forward)")  # fmt: skip
    sweep.add_argument("--ulp", metavar="N", type=int, default=0,
                       help="pass within N units in the last place of the format (default 0: exact)")  # fmt: skip
    sweep.add_argument("--shard", metavar="I/N", type=_part, default=(1, 1), help="only the I-th of N ranges of inputs")
    sweep.add_argument("--workers", metavar="N", type=int, default=1, help="how many processes (default 1)")
    sweep.add_argument("--package", metavar="NAME", action="append", default=[],
                       help="a package whose version belongs into the report")  # fmt: skip
    sweep.add_argument("--json", metavar="FILE", type=Path, help="write the report as JSON")
    sweep.add_argument("--checkpoint", metavar="FILE", type=Path,
                       help="keep what is done, to go on after an interruption (default: beside --json)")  # fmt: skip
    sweep.set_defaults(command=_sweep)

    merge = commands.add_parser(
        "merge",
        help="make one report of those of several shards of a sweep",
        description="Make one report of those that mpsref sweep wrote for different inputs; their order is free.",
        epilog=_EXIT_STATUS,
    )
    merge.add_argument("reports", metavar="FILE", type=Path, nargs="+", help="report of a shard, or a checkpoint")
    merge.add_argument("--json", metavar="FILE", type=Path, help="write the report as JSON")
    merge.set_defaults(command=_merge)
    _add_recording_commands(commands)
    return parser


def _add_verify(commands: argparse._SubParsersAction[_Parser]) -> None:
    check = commands.add_parser(
        "verify",
        help="compare what a device wrote with the reference",
        description="Evaluate a recording's graph on its sources and compare every image that it holds.",
        epilog=_EXIT_STATUS,
    )
    check.add_argument("recording", metavar="RECORDING", type=Path, help="recording file")
    check.add_argument("--bounds", metavar="PRESET", help="what passes: what a model of the device's arithmetic "
                       f"allows each formula ({', '.join(MODELS)}), exact, or ulp=N (default metal-fast)")  # fmt: skip
    check.add_argument("--tolerance", metavar="FILE", type=Path, help="a TOML file with other bounds for some images, "
                       "neurons, formats or directions")  # fmt: skip
    check.add_argument("--ulp", metavar="N", type=int, help="pass within N units in the last place of the storage "
                       "format (0 if --rtol or --atol is given)")  # fmt: skip
    check.add_argument("--rtol", metavar="R", type=float, default=0.0, help="pass within A + R |want|")
    check.add_argument("--atol", metavar="A", type=float, default=0.0, help="pass within A + R |want|")
    check.add_argument("--worst", metavar="N", type=int, default=5, help="elements to list for each image (default 5)")
    check.add_argument("--all", action="store_true", help="list the worst elements of images within bounds too")
    check.add_argument("--no-faults", action="store_true", help="do not look for what may be the fault of an image "
                       "beyond the bounds")  # fmt: skip
    check.add_argument("--json", metavar="FILE", type=Path, help="write the report as JSON")
    check.add_argument("--junit", metavar="FILE", type=Path, help="write the report as JUnit XML")
    check.add_argument("--html", metavar="FILE", type=Path, help="write the report as a page for a browser, with the "
                       "graph, plots and heat maps")  # fmt: skip
    check.set_defaults(command=_verify)


def _add_explain(commands: argparse._SubParsersAction[_Parser]) -> None:
    shown = commands.add_parser(
        "explain",
        help="make a page that steps through a graph",
        description="Make a page for a browser that steps through a graph file forward and backward, for one element "
        "of its images: values, slopes, products, rounding, and numbers to change.",
    )
    shown.add_argument("graph", metavar="GRAPH", type=Path, help="graph file")
    shown.add_argument("--html", metavar="FILE", type=Path, required=True, help="the page to write")
    shown.add_argument("--source", metavar="NAME=FILE", action="append", default=[], type=_named_file,
                       help="a source image: a .npy file, or raw elements with --shape and --channel-format (default: "
                       "0.5 everywhere, or 1 for an incoming gradient)")  # fmt: skip
    shown.add_argument("--at", metavar="[N,]Y,X,C", type=_element, default=(0, 0, 0, 0),
                       help="the element: image, y, x and channel (default 0,0,0)")  # fmt: skip
    shown.add_argument("--shape", metavar="[Nx]HxWxC", type=_shape, help="shape of raw source files")
    shown.add_argument("--channel-format", choices=[f.name for f in MPSImageFeatureChannelFormat if f],
                       help="format of raw source files")  # fmt: skip
    shown.set_defaults(command=_explain)


def _add_subject(parser: argparse.ArgumentParser) -> None:
    """What a proof and a sweep are about."""
    for name in "abc":
        parser.add_argument(f"--{name}", metavar="X", type=float, help=f"parameter {name} (default: as documented)")
    parser.add_argument("--data", metavar="X", type=float, help="the slope of pReLU (default 0.25)")
    parser.add_argument("--format", choices=[f.name for f in MPSImageFeatureChannelFormat if f], default="float32",
                        help="what sources and results are stored in (default float32)")  # fmt: skip


def _descriptor(neuron_type: MPSCNNNeuronType, options: argparse.Namespace) -> MPSNNNeuronDescriptor:
    given = {name: value for name in "abc" if (value := getattr(options, name)) is not None}
    slope = options.data
    if slope is None and NEURONS[neuron_type].per_channel:
        slope = 0.25
    return MPSNNNeuronDescriptor(neuron_type, **given, data=None if slope is None else [slope])


def _add_recording_commands(commands: argparse._SubParsersAction[_Parser]) -> None:
    asked = commands.add_parser(
        "inputs",
        help="write sources that test a graph well, and what a device is to write",
        description="Write source images that test a graph well, a recording file that names what a device is to "
        "write, and a README.txt for whoever runs the graph there.",
    )
    asked.add_argument("graph", metavar="GRAPH", type=Path, help="graph file")
    asked.add_argument("--shape", metavar="[Nx]HxWxC", type=_shape, required=True, help="shape of every image")
    asked.add_argument("--channel-format", choices=[f.name for f in MPSImageFeatureChannelFormat if f],
                       help="format of sources that have none in the graph (default: the graph's storage)")  # fmt: skip
    asked.add_argument("--out", metavar="DIR", type=Path, required=True, help="folder to write into")
    asked.add_argument("--seed", metavar="N", type=int, default=1, help="makes other images (default 1)")
    asked.set_defaults(command=_inputs)

    change = commands.add_parser(
        "convert",
        help="take a recording apart into one file, or make one of such a file",
        description="RECORDING to .npz, .safetensors or a folder; or, with --graph, files of arrays to a recording. "
        "Nothing is rounded: an array keeps its dtype (uint8 is unorm8, uint16 is unorm16).",
    )
    change.add_argument("inputs", metavar="INPUT", nargs="+",
                        help="a recording file; or .npz, .safetensors, NAME=FILE.npy, or NAME=FILE of raw elements "
                        "with --shape and --channel-format")  # fmt: skip
    change.add_argument("--graph", metavar="GRAPH", type=Path, help="make a recording of this graph")
    change.add_argument("--out", metavar="OUT", type=Path, required=True,
                        help="a file that ends with .npz or .safetensors; or a folder, for a recording")  # fmt: skip
    change.add_argument("--raw", action="store_true", help="in a folder: raw elements instead of .npy")
    change.add_argument("--device", metavar="TEXT", help="what wrote the images, for the recording file")
    change.add_argument("--shape", metavar="[Nx]HxWxC", type=_shape, help="shape of raw files")
    change.add_argument("--channel-format", choices=[f.name for f in MPSImageFeatureChannelFormat if f],
                        help="format of raw files")  # fmt: skip
    change.set_defaults(command=_convert)

    look = commands.add_parser(
        "inspect",
        help="tell what is in a file",
        description="Tell what is in a recording, a graph file, a .npy, .npz or .safetensors file.",
    )
    look.add_argument("file", metavar="FILE", type=Path)
    look.add_argument("--json", action="store_true", help="as JSON")
    look.set_defaults(command=_inspect)


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


def _element(text: str) -> tuple[int, ...]:
    if not re.fullmatch(r"\d{1,9}(,\d{1,9}){2,3}", text):
        raise argparse.ArgumentTypeError(f"{text!r}: give Y,X,C or N,Y,X,C, such as 0,3,2")
    place = tuple(map(int, text.split(",")))
    return (0,) * (4 - len(place)) + place


def _part(text: str) -> tuple[int, int]:
    if not re.fullmatch(r"\d{1,10}/\d{1,10}", text):
        raise argparse.ArgumentTypeError(f"{text!r}: give I/N, such as 1/16")
    i, n = map(int, text.split("/"))
    return i, n


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


def _explain(options: argparse.Namespace) -> int:
    # Here, because no other command needs it.
    from mpsref.teach.explain import explanation, write_explanation  # noqa: PLC0415

    file = GraphFile.read(options.graph)
    names = {image: name for name, image in file.images.items()}
    needed = [names[node] for node in inputs(file.result_images)]
    given = dict(options.source)
    if len(given) != len(options.source):
        raise FileFormatError("--source: a name is given twice")
    for name in given:
        if name not in needed:
            raise FileFormatError(f"--source {name}=...: {options.graph} reads only {', '.join(needed)}")
    for read in (options.graph, *given.values()):
        if options.html.resolve() == read.resolve():
            raise FileFormatError(f"--html {options.html}: is read: choose another file")
    sources = {name: _read_source(path, options) for name, path in given.items()}
    try:
        page = explanation(file, sources, options.at, options.graph.name)
    except MPSRefError as error:
        raise FileFormatError(f"{options.graph}: {error}") from None
    write_explanation(page, options.html)
    print(f"wrote {options.html}, {len(page.encode()):,} bytes: open it in a browser")
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
    limit = _limit(options)
    if options.worst < 0:
        raise FileFormatError(f"--worst is {options.worst}: give at least 0")
    recording = Recording.read(options.recording)
    tolerance = Tolerances(limit or Bounds())
    if options.tolerance is not None:
        tolerance = Tolerances.read(options.tolerance, limit)
    _check_outputs(options, recording)
    collected = None if options.html is None else Aggregate()
    with _Progress() as progress:
        report = verify(
            recording,
            tolerance,
            worst=options.worst,
            faults=not options.no_faults,
            progress=progress,
            collect=collected,
        )
    if options.json is not None:
        _write_json(options.json, report.to_json())
    # Here, because XML and a page are asked for more rarely than a verification.
    if options.junit is not None:
        from mpsref.verify.junit import write_junit  # noqa: PLC0415

        write_junit(report, options.junit)
    if options.html is not None:
        from mpsref.verify.html import write_page  # noqa: PLC0415

        write_page(report, recording.graph, collected, options.html)
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    print(report.text(every_image=options.all, colour=colour))
    return PASSED if report.passed else MISMATCH


def _check_outputs(options: argparse.Namespace, recording: Recording) -> None:
    """Before any work: no report may be written over the recording, or over another report."""
    taken = {file.resolve(): "belongs to the recording" for file in recording.files}
    for name in ("json", "junit", "html"):
        file: Path | None = getattr(options, name)
        if file is not None:
            used = taken.setdefault(file.resolve(), f"is the file of --{name} already")
            if used != f"is the file of --{name} already":
                raise FileFormatError(f"--{name} {file}: {used}: choose another file")


def _limit(options: argparse.Namespace) -> Limit | None:
    """What the options let pass; None if they say nothing."""
    if options.ulp is not None or options.rtol or options.atol:
        if options.bounds is not None:
            raise FileFormatError("--bounds: stands beside --ulp, --rtol or --atol: give one or the other")
        return Tolerance(options.ulp, options.rtol, options.atol)
    return None if options.bounds is None else limit_of(options.bounds)


def _prove(options: argparse.Namespace) -> int:
    # Here, because no other command needs processes.
    from mpsref.proof import committed_certificates, passed, prove, report, require_judge  # noqa: PLC0415

    require_judge()
    # Before any of them is written over.
    committed = committed_certificates()
    subjects = _subjects(options)
    places = _places(options, [subject.name for subject in subjects])
    certificates = []
    try:
        for subject, (out, checkpoint) in zip(subjects, places, strict=True):
            with _Bar(f"{subject.name} {options.format}") as progress:
                proof = prove(subject, workers=options.workers, checkpoint=checkpoint, progress=progress)
            if out is not None:
                _write_json(out, proof)
            certificates.append(proof)
    except KeyboardInterrupt:
        return _interrupted(places[0][1], "--out")
    for _, checkpoint in places:
        if checkpoint is not None:
            checkpoint.unlink(missing_ok=True)
    print(report(certificates, committed))
    return PASSED if passed(certificates, committed) else MISMATCH


def _inputs(options: argparse.Namespace) -> int:
    # Here as below, because no other command needs them.
    from mpsref.record import request  # noqa: PLC0415

    file = GraphFile.read(options.graph)
    name = options.channel_format or file.storage.name
    path = request(options.out, file, options.shape, MPSImageFeatureChannelFormat[name], seed=options.seed)
    found = Recording.read(path, complete=False)
    print(f"wrote {len(found.images)} sources, README.txt and {path}; a device is to write {len(found.missing)} images")
    return PASSED


def _convert(options: argparse.Namespace) -> int:
    from mpsref.record import write_images  # noqa: PLC0415

    to_file = options.out.suffix in {".npz", ".safetensors"}
    if options.graph is None:
        if len(options.inputs) > 1 or "=" in options.inputs[0] or not options.inputs[0].endswith(".json"):
            raise FileFormatError(f"{options.inputs[0]}: no recording file: give one, or --graph for arrays")
        recording = Recording.read(options.inputs[0], complete=False)
        file, device = recording.graph, options.device or recording.device
        images = {name: image.read() for name, image in recording.images.items()}
        left_out = len(recording.missing)
    else:
        if to_file:
            raise FileFormatError(f"--out {options.out}: with --graph a recording is made: name a folder")
        file, device, left_out = GraphFile.read(options.graph), options.device or "unknown device", 0
        images = _arrays(options)
        for name in images:
            if name not in file.images:
                raise FileFormatError(
                    f"{name}: {options.graph} has no image of this name, but {', '.join(file.images)}"
                )
    if not images:
        raise FileFormatError(f"{options.inputs[0]}: holds no images")
    if to_file:
        if options.raw or options.device:
            raise FileFormatError(f"--out {options.out}: --raw and --device are for a folder")
        write_images(options.out, images)
        wrote = f"wrote {len(images)} images into {options.out}"
    else:
        path = write_recording(options.out, file, images, device, raw=options.raw)
        wrote = f"wrote {len(images)} images and {path}"
    print(wrote + (f"; left out {left_out} whose files are not there" if left_out else ""))
    return PASSED


def _arrays(options: argparse.Namespace) -> dict[str, MPSImage]:
    from mpsref.record import read_images  # noqa: PLC0415

    images: dict[str, MPSImage] = {}
    for text in options.inputs:
        name, equals, path = text.partition("=")
        # A file whose name has an equals sign is meant as it is, if it is there.
        several = not equals or (text.endswith((".npz", ".safetensors")) and Path(text).exists())
        found = read_images(text) if several else {name: _read_source(Path(path), options)}
        for twice in images.keys() & found.keys():
            raise FileFormatError(f"{text}: {twice}: is given twice")
        images |= found
    return images


def _inspect(options: argparse.Namespace) -> int:
    from mpsref.record import contents, contents_text  # noqa: PLC0415

    found = contents(options.file)
    print(json.dumps(found, indent=1) if options.json else contents_text(found))
    return PASSED


def _interrupted(checkpoint: Path | None, option: str) -> int:
    kept = checkpoint is not None
    mend = "run the same command again to go on" if kept else f"nothing is kept without {option} or --checkpoint"
    print(f"mpsref: interrupted: {mend}", file=sys.stderr)
    return INTERRUPTED


def _sweep(options: argparse.Namespace) -> int:
    # Here, because no other command needs processes.
    from mpsref.sweep import sweep  # noqa: PLC0415

    descriptor = _descriptor(MPSCNNNeuronType[options.neuron], options)
    json_file: Path | None = options.json
    if json_file is not None and json_file.is_dir():
        raise FileFormatError(f"--json {json_file}: is a folder: name a file")
    beside = json_file.with_name(f"{json_file.name}.checkpoint") if json_file is not None else None
    checkpoint = options.checkpoint or beside
    # As python -m has it; a console script has its own folder there.
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        with _Bar(f"{options.neuron} {options.format}") as progress:
            report = sweep(
                options.implementation,
                descriptor,
                direction=options.direction,
                format=MPSImageFeatureChannelFormat[options.format],
                ulp=options.ulp,
                shard=options.shard,
                workers=options.workers,
                checkpoint=checkpoint,
                packages=options.package,
                progress=progress,
            )
    except KeyboardInterrupt:
        return _interrupted(checkpoint, "--json")
    if json_file is not None:
        report.write(json_file)
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    print(report.text())
    return PASSED if report.passed else MISMATCH


def _merge(options: argparse.Namespace) -> int:
    from mpsref.sweep import SweepReport, merge  # noqa: PLC0415

    reports = [SweepReport.read(path) for path in options.reports]
    report = merge(reports)
    if options.json is not None:
        report.write(options.json)
    print(report.text())
    return PASSED if report.passed else MISMATCH


def _subjects(options: argparse.Namespace) -> list[Subject]:
    from mpsref.proof import Subject  # noqa: PLC0415

    if options.workers < 1:
        raise FileFormatError(f"--workers is {options.workers}: give at least 1")
    given = any(getattr(options, name) is not None for name in ("a", "b", "c", "data", "checkpoint"))
    if options.neuron is None and given:
        raise FileFormatError("--a, --b, --c, --data, --checkpoint: only with --neuron, which they are for")
    subjects = []
    for neuron_type in NEURONS if options.neuron is None else [MPSCNNNeuronType[options.neuron]]:
        descriptor = _descriptor(neuron_type, options)
        channel_format = MPSImageFeatureChannelFormat[options.format]
        subjects.append(
            Subject(descriptor, channel_format, part=options.part, sample=options.sample, seed=options.seed)
        )
    return subjects


def _places(options: argparse.Namespace, names: list[str]) -> list[tuple[Path | None, Path | None]]:
    """Where the certificate and the checkpoint of each proof go."""
    if options.neuron is not None:
        out: Path | None = options.out
        if out is not None and out.is_dir():
            raise FileFormatError(f"--out {out}: is a folder: with --neuron, name a file")
        beside = out.with_name(f"{out.name}.checkpoint") if out is not None else None
        return [(out, options.checkpoint or beside)]
    if options.out is None:
        return [(None, None)] * len(names)
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileFormatError(f"--out {options.out}: {error.strerror}: without --neuron, name a folder") from None
    files = [options.out / f"{name}.{options.format}.json" for name in names]
    return [(file, file.with_name(f"{file.name}.checkpoint")) for file in files]


def _write_json(path: Path, document: Any) -> None:
    data = (json.dumps(document, indent=1) + "\n").encode()
    write_atomically(path, lambda out: out.write(data))


class _Progress:
    """A line on stderr that counts nodes, on a terminal only, and leaves nothing behind."""

    def __enter__(self) -> Callable[[int, int], None] | None:
        return self._show if sys.stderr.isatty() else None

    def __exit__(self, *_: object) -> None:
        if sys.stderr.isatty():
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def _show(self, done: int, of_all: int) -> None:
        if done == of_all or done % max(of_all // 100, 1) == 0:
            print(f"\r\x1b[Knode {done} of {of_all}", end="", file=sys.stderr, flush=True)


class _Bar(_Progress):
    """The same for a proof: what, how much is done, and how long it will take."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._began: tuple[float, int] | None = None

    def _show(self, done: int, of_all: int) -> None:
        now = time.monotonic()
        self._began = began, before = self._began or (now, done)
        left = ""
        if done > before:
            seconds = round((of_all - done) * (now - began) / (done - before))
            left = f"  {(done - before) / (now - began) / 1e6:,.0f} M/s  {seconds // 60}:{seconds % 60:02} left"
        bar = "#" * (24 * done // of_all)
        print(f"\r\x1b[K{self._title} [{bar:24}] {100 * done // of_all} %{left}", end="", file=sys.stderr, flush=True)
