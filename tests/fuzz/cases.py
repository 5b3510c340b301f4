"""Cases: a changed file, a command that reads it, and the rules that whatever comes of it must keep."""

from __future__ import annotations

import contextlib
import io
import os
import random as randoms
import shutil
import subprocess
import sys
import time
import traceback
import warnings
import zipfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from mpsref.cli import main
from mpsref.errors import MPSRefError
from tests.fuzz.subjects import COMMANDS, change, change_file, write_valid

SECONDS, SECONDS_PER_BYTE = 1.0, 10e-6
"""Of processor time: what a small file and each further byte may take; ``docs/files.md`` states it."""

BYTES, BYTES_PER_BYTE = 64 * 2**20, 40
"""The same of memory, beyond what the process had before."""

START_SECONDS, START_BYTES = 10.0, 256 * 2**20
"""What the start of a process may take."""

LONGEST_LINE = 2500

STATUSES = 0, 1, 2


@dataclass
class Outcome:
    """What came of a case."""

    status: int | None
    errors: str
    seconds: float
    memory: int | None
    size: int
    """Bytes of the file that was changed."""
    broken: list[str] = field(default_factory=list)

    @property
    def is_slow(self):
        """Whether it took longer than it may."""
        return self.seconds > SECONDS + SECONDS_PER_BYTE * self.size

    def __post_init__(self):
        if self.status not in STATUSES:
            self.broken.append(f"status {self.status}: {self.errors[-2000:]}")
        elif self.status == 2 and (self.errors.count("\n") != 1 or len(self.errors) > LONGEST_LINE):
            self.broken.append(f"no single line of at most {LONGEST_LINE} characters: {self.errors[:2000]!r}")
        elif self.status != 2 and self.errors:
            self.broken.append(f"said on standard error: {self.errors[:2000]!r}")
        if self.is_slow:
            self.broken.append(f"{self.seconds:.1f} s for {self.size:,} bytes")
        if self.memory is not None and self.memory > BYTES + BYTES_PER_BYTE * self.size:
            self.broken.append(f"{self.memory / 2**20:.0f} MiB for {self.size:,} bytes")


class Fuzzer:
    """Runs cases by their numbers: seed and number decide everything."""

    def __init__(self, folder, seed):
        self.folder, self.seed = Path(folder), seed
        self.valid = self.folder / "valid"
        write_valid(self.valid)
        self._warm_up()

    def _warm_up(self):
        """Run every command on valid files, so that no case pays for what is imported or made once."""
        for name, commands in COMMANDS.items():
            for i, command in enumerate(commands):
                folder = self.folder / f"{name}-{i}"
                shutil.copytree(self.valid, folder)
                outcome = outcome_here(*of_folder(command, folder, name))
                assert outcome.status in {0, 1}, (command, outcome.errors)
                shutil.rmtree(folder)

    def case(self, number):
        """Write the files of a case; gives its folder, the file that is changed, and the command."""
        random = randoms.Random(f"{self.seed} {number}")
        folder = self.folder / str(number)
        shutil.copytree(self.valid, folder)
        name = random.choice(list(COMMANDS))
        path = folder / name
        if random.random() < 0.05:
            change_file(random, path)
        else:
            path.write_bytes(change(random, name, path.read_bytes()))
        command, path = of_folder(random.choice(COMMANDS[name]), folder, name)
        return folder, path, command

    def here(self, number):
        """Run a case in this process; twice if it takes too long, since the second run finds what is made once."""
        outcome = self._here(number)
        if outcome.is_slow:
            outcome = min(outcome, self._here(number), key=lambda each: each.seconds)
        return outcome

    def _here(self, number):
        folder, path, command = self.case(number)
        try:
            outcome = outcome_here(command, path)
            if outcome.status in {0, 1} and not callable(command):
                outcome.broken += unreadable(command, folder)
            return outcome
        finally:
            shutil.rmtree(folder)

    def apart(self, number):
        """Run a case in a process of its own."""
        folder, path, command = self.case(number)
        try:
            if callable(command):
                return outcome_here(command, path)
            return outcome_apart(command, path)
        finally:
            shutil.rmtree(folder)


def of_folder(command, folder, name):
    """A command for the files of a folder, and the file that is changed there."""
    path = folder / name
    return command(path) if callable(command) else [word.format(folder) for word in command], path


def outcome_here(command, path):
    """What comes of a command in this process: a list of words, or a function."""
    errors, output = (io.TextIOWrapper(io.BytesIO(), "utf-8", "backslashreplace", write_through=True) for _ in range(2))
    before, began = reset_peak(), time.process_time()
    with warnings.catch_warnings(), contextlib.redirect_stderr(errors), contextlib.redirect_stdout(output):
        warnings.simplefilter("error")
        try:
            status = command() if callable(command) else main(command)
        except MPSRefError as error:
            if not callable(command):
                traceback.print_exc()
            status = 2 if callable(command) else None
            print(str(error), file=sys.stderr)
        except SystemExit as end:
            status = end.code
        except BaseException as error:
            status = None
            traceback.print_exc()
            if isinstance(error, KeyboardInterrupt):
                raise
    seconds, peak = time.process_time() - began, peak_memory()
    said = errors.buffer.getvalue().decode()
    return Outcome(status, said, seconds, None if before is None else max(peak - before, 0), size_of(path))


# A process begins with its parent's peak of memory as its own: a small one stands between, and waits for it.
MEASURED = """
import os, subprocess, sys
process = subprocess.Popen([sys.executable, "-m", "mpsref", *sys.argv[1:]], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
print(os.waitstatus_to_exitcode(status), usage.ru_maxrss, usage.ru_utime + usage.ru_stime)
"""


def outcome_apart(command, path):
    """What comes of a command in a process of its own."""
    process = subprocess.run([sys.executable, "-c", MEASURED, *command], capture_output=True, check=True)
    status, memory, seconds = process.stdout.split()
    memory = int(memory) * (1 if sys.platform == "darwin" else 1024)
    errors = process.stderr.decode(errors="surrogateescape")
    seconds = max(float(seconds) - START_SECONDS, 0)
    return Outcome(int(status), errors, seconds, max(memory - START_BYTES, 0), size_of(path))


def unreadable(command, folder):
    """What a command has written and cannot be read."""
    written = [path for path in (folder / "out.npz", folder / "out" / "recording.json") if path.exists()]
    outcomes = [(path, outcome_here(["inspect", str(path)], path)) for path in written]
    return [f"{command} wrote {path.name}: {o.errors or o.broken}" for path, o in outcomes if o.status or o.broken]


def size_of(path):
    """The bytes of a file; of an archive, what it unpacks to."""
    if not os.path.isfile(path):  # noqa: PTH113  which raises nothing
        return 0
    size = path.stat().st_size
    if path.suffix == ".npz":
        with contextlib.suppress(Exception), zipfile.ZipFile(path) as archive:
            return max(size, sum(member.file_size for member in archive.infolist()))
    return size


def _memory(name):
    try:
        lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(name)), None)


def reset_peak():
    """Forget the largest memory that this process has had; how much it has now, or None where nobody tells."""
    try:
        Path("/proc/self/clear_refs").write_text("5", "utf-8")
    except OSError:
        return None
    return _memory("VmRSS:")


def peak_memory():
    return _memory("VmHWM:")


class Summary:
    """What came of many cases."""

    def __init__(self):
        self.statuses, self.broken = Counter(), []
        self.slowest = self.largest = (0.0, 0, 0)

    def add(self, number, outcome):
        self.statuses[outcome.status] += 1
        self.broken += [f"case {number}: {text}" for text in outcome.broken]
        # What small files take does not depend on their size.
        kib = max(outcome.size, 65_536) / 1024
        self.slowest = max(self.slowest, (outcome.seconds / kib, number, outcome.size))
        self.largest = max(self.largest, ((outcome.memory or 0) / kib, number, outcome.size))

    def text(self):
        seconds, slow, slow_size = self.slowest
        memory, large, large_size = self.largest
        statuses = ", ".join(f"{n:,} ended with {status}" for status, n in sorted(self.statuses.items(), key=str))
        return "\n".join(
            [
                f"{self.statuses.total():,} cases: {statuses}; {len(self.broken)} broke a rule",
                f"worst time:   {1000 * seconds:.2f} ms per KiB, of 64 at least (case {slow}, {slow_size:,} bytes)",
                f"worst memory: {memory / 1024:.1f} KiB per KiB, of 64 at least (case {large}, {large_size:,} bytes)",
                *self.broken,
            ]
        )
