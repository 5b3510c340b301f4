"""The command line: `main`, and the list of commands, each in a module of its name."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import NoReturn

import mpsref
from mpsref.cli.status import BAD_INPUT, INTERRUPTED
from mpsref.cli.streams import standard_streams
from mpsref.errors import MPSRefError, described
from mpsref.process import complain, ended_by, fault, working

__all__ = ["COMMANDS", "main", "parser"]

COMMANDS = (
    ("run", "evaluate a graph and write its results as a recording"),
    ("verify", "compare what a device wrote with the reference"),
    ("explain", "make a page that steps through a graph"),
    ("prove", "evaluate every input of a neuron, and judge the results independently"),
    ("sweep", "compare your implementation of a neuron with the reference, at every input"),
    ("merge", "merge the reports of several shards of a sweep"),
    ("example", "write something to try, and say the next command"),
    ("inputs", "write source images that test a graph well, and a request for a recording"),
    ("convert", "convert a recording to a file of arrays, or arrays to a recording"),
    ("inspect", "show what is in a file"),
    ("record", "run a graph here, with our kernels or one of yours, and write the recording"),
    ("vectors", "write test vectors of a neuron, for programs without Python"),
    ("kernels", "print kernels as shader text: of a neuron or a graph"),
)
"""
Name and summary of each command, in the order of the help.

The module of this name has ``define(parser)``, which adds the arguments, and ``run(options)``, which returns the exit
status.
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(complain(f"{message} (see {self.prog} --help)", BAD_INPUT, self.prog))


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
        The exit status, see `mpsref.cli.status`.
    """
    with standard_streams():
        try:
            status = _status(sys.argv[1:] if arguments is None else arguments)
            sys.stdout.flush()
        except KeyboardInterrupt:
            status = INTERRUPTED
        except MPSRefError as error:
            status = complain(str(error), BAD_INPUT)
        except MemoryError as error:
            status = complain(f"out of memory: {described(error)}", BAD_INPUT)
        except OSError as error:
            named = "" if error.filename is None else f"{error.filename}: "
            status = complain(f"{named}{error.strerror or described(error)}", BAD_INPUT)
        except BaseException as error:  # noqa: BLE001  none may pass for a verdict
            status = fault(error)
        ended = ended_by()
    return status if ended is None else 128 + ended


def _status(arguments: Sequence[str]) -> int:
    try:
        options = _options(arguments)
    except SystemExit as end:  # the parser has printed why
        return int(end.code or 0)
    with working():
        status: int = options.command(options)
    return status


def parser(name: str | None = None) -> argparse.ArgumentParser:
    """The parser of the command line; with a name, only that command's module is imported and its arguments known."""
    whole = _Parser(prog="mpsref", description="The golden reference of Apple's MPS neuron node graph.")
    whole.add_argument("--version", action="version", version=f"mpsref {mpsref.__version__}")
    commands = whole.add_subparsers(metavar="COMMAND", required=True, dest="name")
    for command, summary in COMMANDS:
        one = commands.add_parser(command, help=summary)
        if name in (None, command):
            # Here, so that a command does not wait for the imports of others.
            module = importlib.import_module(f"mpsref.cli.{command}")
            module.define(one)
            one.set_defaults(command=module.run)
    return whole


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    # No option before the command takes a value, so the first word is the command; without one, none is needed.
    words = (argument for argument in arguments if not argument.startswith("-"))
    whole = parser(next(words, ""))
    options, unknown = whole.parse_known_args(arguments)
    if unknown:
        # The command's help lists the arguments.
        whole.prog += f" {options.name}"
        whole.error(f"unrecognized arguments: {' '.join(unknown)}")
    return options
