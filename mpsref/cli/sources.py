"""Files of one image, and the options for reading them."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Sequence
from pathlib import Path

from mpsref.cli.arguments import format_name, named_file, shape
from mpsref.documents import read_json
from mpsref.enums import MPSImageFeatureChannelFormat
from mpsref.errors import FileFormatError
from mpsref.formats import IMAGES
from mpsref.image import MPSImage, MPSImageDescriptor
from mpsref.record import RecordedImage, read_npy
from mpsref.record.recording import is_npy

__all__ = ["add_raw", "add_sources", "is_recording", "read_image", "source_files"]


def add_sources(parser: argparse.ArgumentParser, default: str = "") -> None:
    """Add ``--source``, for a command with an argument ``graph``."""
    parser.add_argument("--source", metavar="NAME=FILE", action="append", default=[], type=named_file,
                        help="a source image: a .npy file, or raw elements with --shape and --channel-format"
                        + default)  # fmt: skip


def add_raw(parser: argparse.ArgumentParser, files: str = "raw source files") -> None:
    """Add the shape and format of files of raw elements."""
    parser.add_argument("--shape", metavar="[Nx]HxWxC", type=shape, help=f"shape of {files}")
    parser.add_argument("--channel-format", type=format_name, choices=IMAGES, help=f"format of {files}")


def is_recording(path: Path) -> bool:
    """Whether a file says that it is a recording; anything else is to be a graph."""
    document = read_json(path)
    return isinstance(document, dict) and document.get("format") == "mpsref-recording"


def source_files(
    options: argparse.Namespace, names: Sequence[str], others: Collection[str] | None = None
) -> dict[str, Path]:
    """
    The files of ``--source`` by name; those that are not in `others` must be there, unless it is None.

    Raises
    ------
    FileFormatError
        A name is given twice, is none of the graph's sources, or is missing.
    """
    files: dict[str, Path] = dict(options.source)
    if len(files) != len(options.source):
        raise FileFormatError("--source: a name is given twice")
    for name in names:
        if others is not None and name not in others and name not in files:
            raise FileFormatError(f"--source {name}=FILE: missing: {options.graph} reads {', '.join(names)}")
    for name in files:
        if name not in names:
            raise FileFormatError(f"--source {name}=...: {options.graph} reads only {', '.join(names)}")
    return files


def read_image(path: Path, options: argparse.Namespace) -> MPSImage:
    """Read a ``.npy`` file, or raw elements of the shape and format in the options."""
    if is_npy(path):
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
