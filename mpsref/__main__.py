"""The process of the command line, ``mpsref`` or ``python -m mpsref``: signals first, then the slow imports."""

import sys

from mpsref.process import fault, handle_signals


def main() -> int:
    """
    Run the command line with the arguments of the process.

    Returns
    -------
    int
        The exit status: see `mpsref.cli.main`.
    """
    handle_signals()
    try:
        # Here, because this imports numpy: signals are handled by then, and a broken installation is a fault.
        from mpsref.cli import main as command_line  # noqa: PLC0415
    except Exception as error:  # noqa: BLE001  whatever an import raises
        return fault(error)
    return command_line()


if __name__ == "__main__":
    sys.exit(main())
