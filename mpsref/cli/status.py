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
        "the command is complete: every element or input was compared, every file written whole",
    ),
    MISMATCH: (
        "a negative verdict",
        "the command is complete; results are beyond the bounds, or a proof has wrong results; nothing else ends so",
    ),
    BAD_INPUT: (
        "bad usage or input",
        "one line on stderr names the option, file or implementation, and the fix; there is no verdict",
    ),
    FAULT: (
        "a fault of mpsref",
        "one line on stderr; with `MPSREF_DEBUG=1` in the environment, the traceback; there is no verdict",
    ),
    INTERRUPTED: (
        "interrupted (Ctrl-C, SIGINT)",
        "no file is half written; the same command goes on from the checkpoint, if there is one",
    ),
    143: ("terminated (SIGTERM)", "as if interrupted; so is a hang-up (SIGHUP), with 129"),
}
"""The meaning of each status, and what it promises."""
