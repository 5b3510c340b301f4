"""Files that are written: whole or not at all, and over nothing that they may not replace."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import mpsref as mps
from mpsref.cli import main
from mpsref.files import STDOUT, UNFINISHED, NewFolder, check_outputs, write_atomically
from mpsref.record import request, write_recording

ROOT = Path(__file__).parents[2]
RECORDING = ROOT / "examples" / "gpu-run" / "precise" / "chain-float32.json"
unix = pytest.mark.skipif(os.name != "posix", reason="needs modes, links and devices")


def write(path, data=b"new"):
    write_atomically(path, lambda file: file.write(data))


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


# ---- what may be replaced ----


@unix
def test_a_new_file_has_the_mode_of_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        write(tmp_path / "f")
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o640


@unix
@pytest.mark.parametrize("mode", [0o600, 0o755, 0o666])
def test_a_file_that_replaces_another_has_its_mode(tmp_path, mode):
    (tmp_path / "f").write_bytes(b"old")
    (tmp_path / "f").chmod(mode)

    write(tmp_path / "f")

    assert (tmp_path / "f").read_bytes() == b"new"
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == mode


@unix
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root gives files away")
def test_a_file_that_replaces_another_has_its_owner(tmp_path):
    (tmp_path / "f").write_bytes(b"old")
    os.chown(tmp_path / "f", 12, 34)

    write(tmp_path / "f")

    assert ((tmp_path / "f").stat().st_uid, (tmp_path / "f").stat().st_gid) == (12, 34)


@unix
@pytest.mark.parametrize("there", [True, False])
def test_a_link_stays_and_what_it_leads_to_is_replaced(tmp_path, there):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    if there:
        (tmp_path / "b" / "f").write_bytes(b"old")
    (tmp_path / "a" / "second").symlink_to("../b/f")
    (tmp_path / "first").symlink_to("a/second")

    write(tmp_path / "first")

    assert (tmp_path / "first").is_symlink()
    assert (tmp_path / "a" / "second").is_symlink()
    assert (tmp_path / "b" / "f").read_bytes() == b"new"
    assert names_in(tmp_path / "a") == ["second"]
    assert names_in(tmp_path / "b") == ["f"]


def odd_targets(folder):
    """Paths by a word that the error must have."""
    os.mkfifo(folder / "fifo")
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(folder / "socket"))
    server.close()
    (folder / "to-device").symlink_to("/dev/null")
    (folder / "loop").symlink_to("loop")
    (folder / "to-folder").symlink_to(".")
    return {
        "is a device": [Path("/dev/null"), Path("/dev/full"), folder / "to-device"],
        "is a pipe": [folder / "fifo"],
        "is a socket": [folder / "socket"],
        "is a folder": [folder, folder / "to-folder", Path("/"), folder / ".."],
        "is an open file": [Path("/dev/stderr"), Path("/dev/fd/2"), Path("/proc/self/fd/2")],
        os.strerror(errno.ELOOP): [folder / "loop"],
        os.strerror(errno.ENOENT): [folder / "no" / "file"],
        os.strerror(errno.ENOTDIR): [Path(__file__) / "file"],
        os.strerror(errno.ENAMETOOLONG): [folder / ("n" * 300)],
        "zero byte": [folder / "n\0"],
    }


@unix
def test_what_is_no_file_is_refused_in_one_line_and_left_as_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    null = Path("/dev/null").stat()
    targets = odd_targets(tmp_path)
    names = names_in(tmp_path)

    for words, paths in targets.items():
        for path in paths:
            for refuse in (lambda: write(path), lambda: check_outputs({"--json": path})):  # noqa: B023  called at once
                with pytest.raises(mps.FileFormatError) as raised:
                    refuse()
                assert words in str(raised.value)
                assert str(path) in str(raised.value)
    assert names_in(tmp_path) == names
    assert (Path("/dev/null").stat().st_rdev, Path("/dev/null").stat().st_mode) == (null.st_rdev, null.st_mode)


@unix
def test_verify_leaves_a_device_alone_and_ends_with_2(capsys):
    assert main(["verify", str(RECORDING), "--json", "/dev/null"]) == 2
    assert capsys.readouterr() == ("", "mpsref: --json /dev/null: is a device: name a file\n")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


def test_a_name_may_be_as_long_as_a_name_can_be(tmp_path):
    write(tmp_path / ("n" * 255))

    assert names_in(tmp_path) == ["n" * 255]


@unix
def test_two_names_of_one_file_are_one(tmp_path):
    (tmp_path / "f").write_bytes(b"")
    (tmp_path / "hard").hardlink_to(tmp_path / "f")
    (tmp_path / "soft").symlink_to("f")
    (tmp_path / "folder").symlink_to(".")
    others = [tmp_path / name for name in ("f", "hard", "soft", "folder/f", "./f")]

    for other in others:
        with pytest.raises(mps.FileFormatError, match=r"--out .*: is read: choose another file"):
            check_outputs({"--out": other}, [tmp_path / "f"])
        with pytest.raises(mps.FileFormatError, match=r"--out .*: is the file of --json already"):
            check_outputs({"--json": tmp_path / "f", "--out": other})
    with pytest.raises(mps.FileFormatError, match="is the file of --json already"):
        check_outputs({"--json": tmp_path / "new", "--out": tmp_path / "folder" / "new"})
    with pytest.raises(mps.FileFormatError, match="is the file of --json already"):
        check_outputs({"--json": STDOUT, "--html": Path("/dev/stdout")})
    check_outputs({"--json": tmp_path / "new", "--html": None, "--out": tmp_path / "other"}, [tmp_path / "f"])


@pytest.fixture
def files(tmp_path):
    """A graph file, its source, a recording and a tolerance file, by the names in commands."""
    x = mps.MPSNNImageNode(handle="x")
    y = mps.MPSCNNNeuronReLUNode(source=x)
    y.result_image.handle = "y"
    graph = mps.GraphFile.from_results([y.result_image])
    graph.write(tmp_path / "graph.json")
    image = mps.MPSImage.from_array(np.float16([[[1, 2]]]))
    np.save(tmp_path / "x.npy", np.float16([[[1, 2]]]))
    write_recording(tmp_path / "r", graph, {"x": image, "y": image}, "none")
    (tmp_path / "t.toml").write_text("[[override]]\nimage = 'y'\nulp = 1\n")
    names = {"graph": tmp_path / "graph.json", "x": tmp_path / "x.npy", "t": tmp_path / "t.toml"}
    return names | {"r": tmp_path / "r" / "recording.json", "y": tmp_path / "r" / "y.npy", "new": tmp_path / "new.json"}


@pytest.mark.parametrize(
    "command",
    [
        "verify {r} --tolerance {t} --json {t}",
        "verify {r} --html {r}",
        "verify {r} --junit {y}",
        "verify {r} --json {new} --junit {new}",
        "explain {graph} --html {graph}",
        "explain {graph} --source x={x} --html {x}",
        "sweep --neuron absolute --implementation a:b --json {new} --checkpoint {new}",
        "prove --neuron reLU --format unorm8 --out {new} --checkpoint {new}",
    ],
)
def test_no_command_writes_over_what_it_reads_or_writes_as_well(tmp_path, files, capsys, command):
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    assert main(command.format(**files).split()) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.endswith(("is read: choose another file\n", "already: choose another file\n"))
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_convert_does_not_write_over_a_file_of_the_recording(tmp_path, files, capsys):
    archive = tmp_path / "r" / "graph.npz"
    (tmp_path / "r" / "graph.json").rename(archive)
    document = json.loads(files["r"].read_text())
    files["r"].write_text(json.dumps(document | {"graph": "graph.npz"}))
    before = archive.read_bytes()

    assert main(["convert", str(files["r"]), "--out", str(archive)]) == 2
    assert "is read" in capsys.readouterr().err
    assert archive.read_bytes() == before


# ---- what goes wrong ----


def failing(number):
    def fail(file):
        file.write(b"some")
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO])
def test_an_error_of_the_disk_names_the_file_and_leaves_no_rest(tmp_path, number):
    (tmp_path / "f").write_bytes(b"old")

    for name in ("f", "new"):
        with pytest.raises(mps.FileFormatError) as raised:
            write_atomically(tmp_path / name, failing(number))
        assert str(raised.value) == (
            f"{tmp_path / name}: cannot be written: {os.strerror(number)}: choose another place"
        )
    assert names_in(tmp_path) == ["f"]
    assert (tmp_path / "f").read_bytes() == b"old"


@unix
@pytest.mark.parametrize("raw", [[], ["--raw"]])
def test_a_limit_of_the_file_size_names_the_file_and_leaves_nothing(tmp_path, files, raw):
    np.save(files["x"], np.zeros((1, 64, 1024), np.float16))
    arguments = [str(files["graph"]), "--source", f"x={files['x']}", "--out", "new/folder", "--all", *raw]
    command = 'ulimit -f 8; exec "$@"'
    done = subprocess.run(
        ["/bin/bash", "-c", command, "bash", sys.executable, "-m", "mpsref", "run", *arguments],
        cwd=tmp_path, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"mpsref: new/folder/x.{'f16' if raw else 'npy'}: cannot be written: File too large")
    assert not (tmp_path / "new").exists()


@unix
def test_in_a_folder_that_is_gone_the_file_is_named(tmp_path, monkeypatch, capsys):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()

    assert main(["verify", str(RECORDING), "--json", "r.json"]) == 2
    assert capsys.readouterr().err.startswith("mpsref: --json r.json: cannot be written: No such file")
    assert main(["verify", str(RECORDING), "--json", str(tmp_path / "r.json")]) == 0


@unix
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everything")
def test_a_read_only_file_is_not_replaced(tmp_path):
    (tmp_path / "f").write_bytes(b"old")
    (tmp_path / "f").chmod(0o444)

    with pytest.raises(mps.FileFormatError, match="f: cannot be written: Permission denied"):
        write(tmp_path / "f")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_a_file_is_written_leaves_no_rest(tmp_path, number):
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        f"signal.signal({int(number)}, signal.SIG_DFL)\n"
        "from mpsref.process import handle_signals, working\n"
        "from mpsref.files import write_atomically\n"
        "handle_signals()\n"
        "with working():\n"
        f"    write_atomically(Path('f'), lambda file: os.kill(os.getpid(), {int(number)}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)

    assert done.stderr.endswith("KeyboardInterrupt\n")
    assert names_in(tmp_path) == []


# ---- folders ----


def test_a_folder_that_fails_to_fill_is_as_it_was_before(tmp_path):
    (tmp_path / "there").mkdir()

    for folder in (tmp_path / "there", tmp_path / "a" / "b"):
        with pytest.raises(KeyboardInterrupt), NewFolder(folder) as new:  # noqa: PT012
            write(new.file("one"))
            write(new.file("two"))
            raise KeyboardInterrupt
    assert names_in(tmp_path) == ["there"]
    assert names_in(tmp_path / "there") == []


def test_a_folder_that_a_kill_left_part_filled_is_filled_again(tmp_path, files, capsys):
    out = tmp_path / "out"
    command = ["run", str(files["graph"]), "--source", f"x={files['x']}", "--out", str(out)]
    out.mkdir()
    for name in ("old.npy", "x.npy", ".mpsref-0123"):
        (out / name).write_bytes(b"half")
    (out / UNFINISHED).write_text("old.npy\nx.npy\n../graph.json\n..\n")

    assert main(command) == 0
    assert names_in(out) == ["graph.json", "recording.json", "x.npy", "y.npy"]
    assert files["graph"].exists()
    assert main(["verify", str(out / "recording.json")]) == 0


def test_a_part_filled_folder_with_somebody_elses_file_is_refused_and_keeps_it(tmp_path):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / UNFINISHED).write_text("old\n")
    (tmp_path / "old").write_text("")

    with pytest.raises(mps.FileFormatError, match="not empty"):
        NewFolder(tmp_path).__enter__()
    assert names_in(tmp_path) == ["mine"]


@unix
def test_two_do_not_fill_one_folder(tmp_path):
    with NewFolder(tmp_path / "f") as new:
        write(new.file("one"))
        with pytest.raises(mps.FileFormatError, match="another process is writing into it"):
            NewFolder(tmp_path / "f").__enter__()
        write(new.file("two"))

    assert names_in(tmp_path / "f") == ["one", "two"]


def test_a_request_leaves_no_list_of_unfinished_files(tmp_path, files):
    graph = mps.GraphFile.read(files["graph"])

    path = request(tmp_path / "out", graph, (1, 2, 2, 1), graph.storage)

    assert UNFINISHED not in names_in(path.parent)
    assert "README.txt" in names_in(path.parent)


# ---- standard output as a file ----


def test_dash_is_standard_output_and_the_text_goes_to_stderr(capsys, tmp_path):
    for name in ("-", "/dev/stdout"):
        assert main(["verify", str(RECORDING), "--json", name]) == 0
        captured = capsys.readouterr()
        assert json.loads(captured.out)["passed"]
        assert captured.err.endswith("PASS: all 8,192 elements of 8 images are within bounds\n")
