"""Processes that tests kill."""

import os
import signal
import subprocess
import sys


def killed_at(elements, code, *arguments):
    """Run code that prints, before anything else on a line, how many elements are done; kill it when so many are."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line.split()[0]) >= elements:
                process.kill()
                break
        try:
            # Workers hold the other end of this pipe: it ends when the last of them does.
            process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
