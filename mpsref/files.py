"""Files written whole or not at all, and folders filled completely or left as before."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import re
import secrets
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Self

from mpsref.errors import FileFormatError

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["STDOUT", "NewFolder", "check_outputs", "file_names", "is_stdout", "write_atomically", "write_json"]

STDOUT = Path("/dev/stdout")
"""Standard output as a target, on every system."""

TEMPORARY = ".mpsref-"
"""The prefix of temporary files: short, because a target's name may have the greatest length."""

UNFINISHED = ".mpsref-unfinished"
"""A list of the files in a folder that is being filled: the next call removes what a kill left there."""

OPEN_FILES = re.compile(r"/proc/\d+(/task/\d+)?/fd|/dev/fd")
"""Folders whose entries are open files."""

MOST_LINKS = 40

KINDS = (
    (stat.S_ISDIR, "is a folder: name a file"),
    (stat.S_ISCHR, "is a device: name a file"),
    (stat.S_ISBLK, "is a device: name a file"),
    (stat.S_ISFIFO, "is a pipe: name a file, or - for standard output"),
    (stat.S_ISSOCK, "is a socket: name a file"),
)


def write_atomically(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """
    Let `write` fill a temporary binary file beside `path`, and rename it when it is complete.

    A link to a file is followed. A replaced file passes on its mode and owner; else the umask decides. `STDOUT`, by any
    name, is written all at once.

    Raises
    ------
    FileFormatError
        `path` is a folder, device, pipe, socket or open file, or cannot be written.
    """
    with _errors_of(f"{path}"):
        target = _target(path)
        if target == STDOUT:
            memory = io.BytesIO()
            write(memory)
            _write_to_stdout(memory.getvalue())
            return
        replaced = _replaceable(target)
        # Named before it exists, so that it is removed whenever the writing ends.
        temporary = target.with_name(f"{TEMPORARY}{secrets.token_hex(8)}")
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
            # "w+b", because numpy wraps write-only files in a buffer of its own, which loses errors.
            with os.fdopen(os.open(temporary, flags, 0o666 if replaced is None else 0o600), "w+b") as file:
                write(file)
                if replaced is not None:
                    _hand_on(replaced, file.fileno())
            temporary.replace(target)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise


def write_json(path: Path, document: Any) -> None:
    """Write a document, whole or not at all."""
    data = (json.dumps(document, indent=1) + "\n").encode()
    write_atomically(path, lambda out: out.write(data))


def check_outputs(outputs: Mapping[str, Path | None], inputs: Iterable[Path] = ()) -> None:
    """
    Refuse, before any work, outputs that `write_atomically` would refuse, or that are inputs or each other.

    Parameters
    ----------
    outputs : mapping of str to Path or None
        By their names in messages.
    inputs : iterable of Path
        Files that are read.

    Raises
    ------
    FileFormatError
        An output cannot be written, or is the same file as an input or another output, under any name.
    """
    taken = {key: "is read" for file in inputs for key in _identities(file)}
    for name, file in outputs.items():
        if file is None:
            continue
        with _errors_of(f"{name} {file}"):
            target = _target(file)
            if target == STDOUT:
                _require_stdout()
            else:
                _replaceable(target)
            keys = _identities(target)
            for key in keys & taken.keys():
                raise _RefusedError(f"{taken[key]}: choose another file")
        taken |= dict.fromkeys(keys, f"is the file of {name} already")


def is_stdout(path: Path) -> bool:
    """Whether a path is a name of standard output."""
    try:
        return _target(path) == STDOUT
    except (OSError, _RefusedError):
        return False


class NewFolder:
    """
    A folder to fill: created if it does not exist, and restored on any error.

    Files that a killed process left in it are removed first.

    Parameters
    ----------
    path : str or Path
        Must be empty, or not exist.

    Raises
    ------
    FileFormatError
        The folder is not empty, is being filled by another process, or cannot be created or written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._created: list[Path] = []
        self._names: IO[str] | None = None

    def __enter__(self) -> Self:
        try:
            with _errors_of(f"{self.path}", "folder"):
                self._create()
                self._lock()
        except BaseException:
            self._remove_folders()
            raise
        return self

    def file(self, name: str) -> Path:
        """The path of a file that is to be written into the folder."""
        assert self._names is not None
        with _errors_of(f"{self.path}", "folder"):
            self._names.write(f"{name}\n")
            self._names.flush()
        return self.path / name

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        assert self._names is not None
        with contextlib.closing(self._names):
            if kind is None:
                with _errors_of(f"{self.path}", "folder"):
                    (self.path / UNFINISHED).unlink()
                return
            with contextlib.suppress(OSError):
                self._remove()
        self._remove_folders()

    def _create(self) -> None:
        missing = [folder for folder in (self.path, *self.path.parents) if not os.path.lexists(folder)]
        for folder in reversed(missing):
            self._created.append(folder)
            folder.mkdir(exist_ok=True)

    def _lock(self) -> None:
        """Lock the folder, or refuse one that is not empty."""
        if not (self.path / UNFINISHED).exists():
            self._require_nothing_but()
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
        descriptor = os.open(self.path / UNFINISHED, flags, 0o666)
        self._names = os.fdopen(descriptor, "r+", encoding="utf-8", errors="surrogateescape")
        try:
            if fcntl is not None:
                fcntl.flock(self._names, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._remove(keep=UNFINISHED)
            self._require_nothing_but(UNFINISHED)
            self._names.seek(0)
            self._names.truncate()
        except BlockingIOError:
            self._names.close()
            raise _RefusedError("another process is writing into it: choose another folder") from None
        except BaseException:
            (self.path / UNFINISHED).unlink()
            self._names.close()
            raise

    def _require_nothing_but(self, name: str = "") -> None:
        if any(path.name != name for path in self.path.iterdir()):
            raise _RefusedError("not empty: choose another folder, so that nothing is overwritten")

    def _remove(self, keep: str = "") -> None:
        """Remove listed and temporary files."""
        assert self._names is not None
        self._names.seek(0)
        listed = {name for name in self._names.read().splitlines() if Path(name).name == name}
        for path in list(self.path.iterdir()):
            ours = path.name in listed or path.name.startswith(TEMPORARY)
            if ours and path.name != keep and (path.is_symlink() or not path.is_dir()):
                path.unlink()

    def _remove_folders(self) -> None:
        for folder in reversed(self._created):
            with contextlib.suppress(OSError):
                folder.rmdir()


class _RefusedError(Exception):
    """Why a file is not written, without its name, which `_errors_of` adds."""


@contextlib.contextmanager
def _errors_of(name: str, place: str = "place") -> Iterator[None]:
    """In this context errors of the system become `FileFormatError` that name the file."""
    try:
        yield
    except _RefusedError as error:
        raise FileFormatError(f"{name}: {error}") from None
    except OSError as error:
        reason = error.strerror or error
        raise FileFormatError(f"{name}: cannot be written: {reason}: choose another {place}") from None


def _target(path: Path) -> Path:
    """The file that a path leads to, all links followed; `STDOUT` for every name of standard output."""
    if "\0" in str(path):
        raise _RefusedError("names of files have no zero bytes")
    at = path
    for _ in range(MOST_LINKS):
        if at == STDOUT:
            return STDOUT
        parent = os.path.realpath(at.parent)
        if OPEN_FILES.fullmatch(parent):
            if at.name == "1" and parent in {"/dev/fd", f"/proc/{os.getpid()}/fd"}:
                return STDOUT
            raise _RefusedError("is an open file: name a file, or - for standard output")
        if not at.is_symlink():
            return Path(parent, at.name) if at.name not in {"", ".."} else Path(os.path.realpath(at))
        at = at.parent / at.readlink()
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))


def _replaceable(target: Path) -> os.stat_result | None:
    """The status of a file that may be replaced, or None if it does not exist."""
    try:
        status = target.stat()
    except FileNotFoundError:
        if not target.parent.is_dir():
            raise
        return None
    for is_kind, message in KINDS:
        if is_kind(status.st_mode):
            raise _RefusedError(message)
    if not os.access(target, os.W_OK):
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))
    return status


def _hand_on(replaced: os.stat_result, descriptor: int) -> None:
    """Give a file the owner and mode of the one that it replaces."""
    if not hasattr(os, "fchown"):
        return
    status = os.fstat(descriptor)
    if (status.st_uid, status.st_gid) != (replaced.st_uid, replaced.st_gid):
        os.fchown(descriptor, replaced.st_uid, replaced.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(replaced.st_mode))


def _require_stdout() -> None:
    if sys.stdout is None or sys.__stdout__ is None:
        raise _RefusedError("standard output is closed: name a file")


def _write_to_stdout(data: bytes) -> None:
    _require_stdout()
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.flush()


def _identities(path: Path) -> set[object]:
    """Keys that all names of a file share."""
    if path == STDOUT:
        return {STDOUT}
    keys: set[object] = {os.path.realpath(path)}
    with contextlib.suppress(OSError, ValueError):
        status = path.stat()
        keys.add((status.st_dev, status.st_ino))
    return keys


def file_names(names: Iterable[str]) -> Iterator[str]:
    """File names without endings, safe and distinct on every file system."""
    used: set[str] = set()
    numbers: dict[str, int] = {}
    for name in names:
        stem = base = re.sub(r"[^A-Za-z0-9_.-]", "_", name).strip(".")[:100] or "image"
        while stem.lower() in used:
            numbers[base.lower()] = number = numbers.get(base.lower(), 1) + 1
            stem = f"{base}-{number}"
        used.add(stem.lower())
        yield stem
