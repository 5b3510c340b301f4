"""Arguments that several commands take, and the types of their values."""

from __future__ import annotations

import argparse
import math
import re
from pathlib import Path

from mpsref.enums import MPSCNNNeuronType
from mpsref.formats import ARRAYS
from mpsref.neuron import NEURONS, MPSNNNeuronDescriptor
from mpsref.neuron.activations import ACTIVATIONS
from mpsref.neuron.descriptor import neuron_of
from mpsref.storage import channel_format_of

__all__ = [
    "ALL_TYPES",
    "NEURON_TYPES",
    "add_subject",
    "descriptor",
    "element",
    "format_name",
    "integer",
    "named_file",
    "number",
    "part",
    "shape",
]

NEURON_TYPES = [neuron_type.name for neuron_type in NEURONS]
ALL_TYPES = [*NEURON_TYPES, *(activation.name for activation in ACTIVATIONS)]


def add_subject(parser: argparse.ArgumentParser) -> None:
    """Add the options for a neuron's parameters and the format."""
    for name in "abc":
        parser.add_argument(f"--{name}", metavar="X", type=number, help=f"parameter {name} (default: as documented)")
    parser.add_argument("--data", metavar="X", type=number, help="the slope of pReLU (default 0.25)")
    parser.add_argument("--parameter", metavar="NAME=X", type=named_number, action="append", default=[],
                        help="a parameter by its name, for activations that are not Apple's")  # fmt: skip
    parser.add_argument("--format", type=format_name, choices=ARRAYS, default="float32",
                        help="format of sources and results (default float32)")  # fmt: skip


def descriptor(name: str, options: argparse.Namespace) -> MPSNNNeuronDescriptor:
    """The neuron that the options of `add_subject` describe."""
    parameters = {name: value for name in "abc" if (value := getattr(options, name)) is not None}
    is_per_channel = name == MPSCNNNeuronType.pReLU.name
    slope = 0.25 if options.data is None and is_per_channel else options.data
    return neuron_of(name, parameters | dict(options.parameter), slope)


def format_name(text: str) -> str:
    """The name of the format that is meant; what means none is left to the parser."""
    channel_format = channel_format_of(text)
    return channel_format.name if channel_format else text


def integer(text: str) -> int:
    """A decimal integer; unlike `int`, only in ASCII digits without separators."""
    if not re.fullmatch("[+-]?[0-9]{1,20}", text):
        raise argparse.ArgumentTypeError(f"{text[:60]!r}: give an integer, such as 16")
    return int(text)


def number(text: str) -> float:
    """A decimal number; unlike `float`, only in ASCII digits without separators."""
    if not re.fullmatch(r"[+-]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|inf|infinity|nan)", text.lower()):
        raise argparse.ArgumentTypeError(f"{text[:60]!r}: give a number, such as 1e-3")
    return float(text)


def named_number(text: str) -> tuple[str, float]:
    """``NAME=X``."""
    name, _, value = text.partition("=")
    return name, number(value)


def named_file(text: str) -> tuple[str, Path]:
    """``NAME=FILE``."""
    name, equals, file = text.partition("=")
    if not (name and equals and file):
        raise argparse.ArgumentTypeError(f"{text!r}: give NAME=FILE")
    return name, Path(file)


def shape(text: str) -> tuple[int, ...]:
    """``HxWxC`` or ``NxHxWxC``, or the one to five axes of an array, as (N, H, W, C)."""
    if not re.fullmatch("[1-9][0-9]{0,8}(x[1-9][0-9]{0,8}){0,4}", text):
        raise argparse.ArgumentTypeError(f"{text!r}: give HxWxC or NxHxWxC, or any one to five sizes, channels last")
    *images, h, w, c = (1, 1, 1, *map(int, text.split("x")))
    return math.prod(images), h, w, c


def element(text: str) -> tuple[int, ...]:
    """``Y,X,C`` or ``N,Y,X,C``, as (image, y, x, channel)."""
    if not re.fullmatch("[0-9]{1,9}(,[0-9]{1,9}){2,3}", text):
        raise argparse.ArgumentTypeError(f"{text!r}: give Y,X,C or N,Y,X,C, such as 0,3,2")
    place = tuple(map(int, text.split(",")))
    return (0,) * (4 - len(place)) + place


def part(text: str) -> tuple[int, int]:
    """``I/N``."""
    if not re.fullmatch("[0-9]{1,10}/[0-9]{1,10}", text):
        raise argparse.ArgumentTypeError(f"{text!r}: give I/N, such as 1/16")
    i, n = map(int, text.split("/"))
    return i, n
