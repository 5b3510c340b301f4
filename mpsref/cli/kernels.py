"""``mpsref kernels``."""

from __future__ import annotations

import argparse
from pathlib import Path

from mpsref.cli.arguments import NEURON_TYPES, format_name
from mpsref.cli.outputs import output_file, tell
from mpsref.cli.status import PASSED
from mpsref.display import printable
from mpsref.errors import FileFormatError, ParameterError, naming
from mpsref.files import check_outputs, write_atomically
from mpsref.formats import IMAGES
from mpsref.graph import GraphFile
from mpsref.lab.kernels import graph_text, neuron_text
from mpsref.lab.languages import LANGUAGES, Style

__all__ = ["define", "run"]

DIRECTIONS = ("forward", "gradient")


def define(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Print kernels as shader text, written from the documented formulas: of a neuron, of all nodes of a graph, or "
        "of all neurons."
    )
    parser.add_argument("graph", metavar="GRAPH", type=Path, nargs="?", help="graph file (default: all neurons)")
    parser.add_argument("--neuron", metavar="TYPE", choices=NEURON_TYPES, help="Apple's name of a type")
    parser.add_argument("--language", choices=LANGUAGES, required=True, help="the language")
    parser.add_argument("--direction", choices=DIRECTIONS, help="only the forward or the gradient of neurons "
                        "(default: both)")  # fmt: skip
    parser.add_argument("--memory", choices=["buffers", "textures"], default="buffers",
                        help="buffers of elements, or textures of four channels (default buffers)")  # fmt: skip
    parser.add_argument("--format", type=format_name, choices=IMAGES,
                        help="format of the images; unorm8 and unorm16 of textures only "
                        "(default: the graph's storage, or float32)")  # fmt: skip
    parser.add_argument("--arithmetic", choices=["float32", "float16"], default="float32",
                        help="the numbers that are computed with (default float32)")  # fmt: skip
    parser.add_argument("--math", choices=["fast", "precise"], help="write fast or precise functions, where the "
                        "language has both (default: left to the compiler's options)")  # fmt: skip
    parser.add_argument("--out", metavar="FILE", type=output_file,
                        help="the file to write (default: standard output)")  # fmt: skip


def run(options: argparse.Namespace) -> int:
    if options.graph is not None and (options.neuron or options.direction):
        raise FileFormatError("--neuron, --direction: conflict with a graph: give one or the other")
    check_outputs({"--out": options.out}, filter(None, [options.graph]))
    text = _text(options)
    if options.out is None:
        print(text, end="")
        return PASSED
    write_atomically(options.out, lambda out: out.write(text.encode()))
    tell(f"wrote {printable(str(options.out))}", options.out)
    return PASSED


def _text(options: argparse.Namespace) -> str:
    file = None if options.graph is None else GraphFile.read(options.graph)
    storage = options.format or ("float32" if file is None else file.storage.name)
    style = Style(options.memory, storage, options.arithmetic)
    if file is not None:
        with naming(options.graph, ParameterError):
            return graph_text(file, options.language, style=style, math=options.math)
    return neuron_text(
        options.neuron,
        options.language,
        directions=[options.direction] if options.direction else DIRECTIONS,
        style=style,
        math=options.math,
    )
