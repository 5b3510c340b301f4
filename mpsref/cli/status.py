"""What exit statuses mean."""

from mpsref.process import FAULT

__all__ = ["BAD_INPUT", "EPILOG", "INTERRUPTED", "MISMATCH", "PASSED", "STATUSES"]

PASSED, MISMATCH, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130

EPILOG = (
    "exit status: 0 all within bounds, 1 a mismatch, 2 bad usage or bad input, 3 a fault of mpsref, 130 interrupted"
)

STATUSES = {
    PASSED: (
        "nothing wrong",
        "all was done that was asked for: every element or input was compared, every file written whole",
    ),
    MISMATCH: (
        "a verdict against what was checked",
        "all was done as well: results beyond the bounds, or a proof with wrong results; nothing else ends so",
    ),
    BAD_INPUT: (
        "bad usage or input",
        "one line on stderr names the option, file or implementation, and how to fix it; there is no verdict",
    ),
    FAULT: (
        "a fault of mpsref",
        "one line on stderr; with `MPSREF_DEBUG=1` in the environment, the traceback; there is no verdict",
    ),
    INTERRUPTED: (
        "interrupted (Ctrl-C, SIGINT)",
        "no file is half written; a checkpoint, if there is one, has what was done, and the same command goes on",
    ),
    143: ("terminated (SIGTERM)", "as if interrupted; a hang-up (SIGHUP) ends so too, with 129"),
}
"""What each status says, and what it promises."""
