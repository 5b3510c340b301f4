"""``mpsref convert``."""

from __future__ import annotations

import argparse
from pathlib import Path

from mpsref.cli.sources import add_raw, read_image
from mpsref.cli.status import PASSED
from mpsref.display import printable
from mpsref.errors import FileFormatError
from mpsref.files import check_outputs
from mpsref.graph import GraphFile
from mpsref.image import MPSImage
from mpsref.record import Recording, read_images, write_images, write_recording

__all__ = ["define", "run"]


def define(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Convert a recording to .npz, .safetensors or a folder; or, with --graph, files of arrays to a recording. "
        "Nothing is rounded: an array keeps its dtype (uint8 is unorm8, uint16 is unorm16)."
    )
    parser.add_argument("inputs", metavar="INPUT", nargs="+",
                        help="a recording file; or .npz, .safetensors, NAME=FILE.npy, or NAME=FILE of raw elements "
                        "with --shape and --channel-format")  # fmt: skip
    parser.add_argument("--graph", metavar="GRAPH", type=Path, help="make a recording of this graph")
    parser.add_argument("--out", metavar="OUT", type=Path, required=True,
                        help="a file that ends with .npz or .safetensors; or a folder, for a recording")  # fmt: skip
    parser.add_argument("--raw", action="store_true", help="in a folder: raw elements instead of .npy")
    parser.add_argument("--device", metavar="TEXT", help="what wrote the images, for the recording file")
    add_raw(parser, "raw files")


def run(options: argparse.Namespace) -> int:
    to_file = options.out.name.endswith((".npz", ".safetensors"))
    if options.graph is None:
        if len(options.inputs) > 1 or "=" in options.inputs[0] or not options.inputs[0].endswith(".json"):
            raise FileFormatError(f"{options.inputs[0]}: not a recording file: give one, or --graph for arrays")
        recording = Recording.read(options.inputs[0], complete=False)
        if to_file:
            check_outputs({"--out": options.out}, recording.files)
        file, device = recording.graph, options.device or recording.device
        images = {name: image.read() for name, image in recording.images.items()}
        left_out = len(recording.missing)
    else:
        if to_file:
            raise FileFormatError(f"--out {options.out}: --graph makes a recording: name a folder")
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
    print(printable(wrote) + (f"; left out {left_out} whose files are missing" if left_out else ""))
    return PASSED


def _arrays(options: argparse.Namespace) -> dict[str, MPSImage]:
    images: dict[str, MPSImage] = {}
    for text in options.inputs:
        name, equals, path = text.partition("=")
        # The name of an existing file may have an equals sign.
        is_archive = not equals or (text.endswith((".npz", ".safetensors")) and Path(text).exists())
        more = read_images(text) if is_archive else {name: read_image(Path(path), options)}
        for duplicate in images.keys() & more.keys():
            raise FileFormatError(f"{text}: {duplicate}: is given twice")
        images |= more
    return images
