"""What exit statuses mean."""

__all__ = ["BAD_INPUT", "EPILOG", "INTERRUPTED", "MISMATCH", "PASSED"]

PASSED, MISMATCH, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130

EPILOG = "exit status: 0 all within bounds, 1 a mismatch, 2 bad usage or bad input"
