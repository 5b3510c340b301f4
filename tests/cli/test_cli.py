"""The command line, as a user meets it."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import mpsref as mps
from builders import seldom
from mpsref.cli import COMMANDS, main

ROOT = Path(__file__).parents[2]
PRECISE = ROOT / "examples" / "gpu-run" / "precise"
PIPES = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}


@pytest.fixture
def graph(tmp_path):
    path = tmp_path / "graph.json"
    x = mps.MPSNNImageNode(handle="x")
    h = mps.MPSCNNNeuronTanHNode(source=x)
    y = mps.MPSCNNNeuronReLUNode(source=h.result_image)
    h.result_image.handle, y.result_image.handle = "h", "y"
    mps.GraphFile.from_results([y.result_image]).write(path)
    np.save(tmp_path / "x.npy", np.linspace(-1, 1, 24, dtype=np.float16).reshape(2, 3, 4))
    return path


def refused(capsys, *words):
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("mpsref")
    for word in words:
        assert word in captured.err


def test_verify_ends_with_0_where_all_is_within_bounds(capsys):
    assert main(["verify", str(PRECISE / "recording.json")]) == 0
    assert capsys.readouterr().out.endswith("PASS: all 524,288 elements of 8 images are within bounds\n")


def test_verify_ends_with_1_at_a_mismatch_and_lists_the_worst(capsys):
    assert main(["verify", str(PRECISE / "neurons.json"), "--ulp", "4", "--worst", "2", "--no-faults"]) == 1
    out = capsys.readouterr().out
    assert "softSign.y: 2 elements of 4,096 beyond the bounds\n" in out
    assert "  the worst:\n    (image 0, y 31, x 0, channel 0; slice 0 lane 0) x = inf" in out
    assert out.count("\n    (image 0") == sum(
        min(2, n) for n in (126, 126, 126, 126, 576, 593, 2, 126, 126, 126, 1, 1, 1, 2)
    )


def test_verify_explains_what_a_literal_formula_cannot_do(capsys):
    arguments = ["verify", str(PRECISE / "neurons.json"), "--no-faults"]
    assert main(arguments) == 1
    out = capsys.readouterr().out
    assert re.search(r"an intermediate of the formula overflows: 2 images, 1,168 elements\n +softPlus.y \(image 0", out)
    assert main([*arguments, "--allow", "overflow"]) == 0
    assert "\nPASS: of 131,072 elements of 32 images 129,014 are within bounds; 882 " in capsys.readouterr().out
    assert main([*arguments, "--strict", "--allow", "overflow,nan"]) == 1
    assert "\nFAIL: 8 of 131,072 elements are beyond the bounds, in 6 of 32" in capsys.readouterr().out
    assert main([*arguments, "--allow", "overflows"]) == 2
    assert "allow has 'overflows': choose from order, nan," in capsys.readouterr().err
    assert main([*arguments, "--bounds", "ulp=1", "--strict"]) == 2
    assert "--strict: is for bounds of a model" in capsys.readouterr().err


def test_a_tolerance_file_decides_for_some_images(tmp_path, capsys):
    (tmp_path / "t.toml").write_text("[[override]]\nimage = 'y4'\nbounds = 'metal-fast'\n")
    arguments = ["verify", str(PRECISE / "recording.json"), "--tolerance", str(tmp_path / "t.toml"), "--no-faults"]

    assert main(arguments) == 0
    assert main([*arguments, "--bounds", "exact"]) == 1
    out = capsys.readouterr().out
    assert "bounds     0 ULP of each image's format, with 1 override" in out
    assert "in 7 of 8 images" in out


def test_the_bounds_decide(capsys):
    command = ["verify", str(PRECISE / "recording.json"), "--no-faults"]

    assert main([*command, "--ulp", "1"]) == 1
    assert main([*command, "--ulp", "2"]) == 0
    assert main([*command, "--rtol", "1e-4"]) == 1
    assert main([*command, "--rtol", "2e-3", "--atol", "2e-7"]) == 0
    assert main([*command, "--bounds", "exact"]) == 1
    assert main([*command, "--bounds", "ulp=2"]) == 0
    assert "bounds     2e-07 + 0.002 |want|" in capsys.readouterr().out


def test_all_lists_the_worst_elements_within_bounds_too(capsys):
    main(["verify", str(PRECISE / "recording.json"), "--all", "--worst", "1"])

    assert "y1: within the bounds, the worst:\n  (image" in capsys.readouterr().out


def test_the_report_is_written_as_json(tmp_path, capsys):
    assert main(["verify", str(PRECISE / "recording.json"), "--json", str(tmp_path / "r.json")]) == 0

    report = json.loads((tmp_path / "r.json").read_text())
    assert report["passed"]
    assert report["images"]["y1"]["exact"] == 65_070


def test_a_report_that_cannot_be_written_is_named(tmp_path, capsys):
    assert main(["verify", str(PRECISE / "recording.json"), "--json", str(tmp_path / "no" / "r.json")]) == 2
    refused(capsys, "no")


def test_run_writes_a_recording_that_verify_accepts(tmp_path, graph, capsys):
    out = tmp_path / "out"

    assert main(["run", str(graph), "--source", f"x={tmp_path / 'x.npy'}", "--out", str(out), "--all"]) == 0
    assert main(["verify", str(out / "recording.json"), "--ulp", "0"]) == 0
    assert sorted(p.name for p in out.iterdir()) == ["graph.json", "h.npy", "recording.json", "x.npy", "y.npy"]
    assert np.array_equal(np.load(out / "x.npy")[0], np.load(tmp_path / "x.npy"))


def test_run_takes_and_writes_raw_elements(tmp_path, graph, capsys):
    (tmp_path / "x.raw").write_bytes(np.load(tmp_path / "x.npy").tobytes())
    out = tmp_path / "out"
    source = ["--source", f"x={tmp_path / 'x.raw'}", "--shape", "2x3x4", "--channel-format", "float16"]

    assert main(["run", str(graph), *source, "--out", str(out), "--raw"]) == 0
    assert (out / "x.f16").read_bytes() == (tmp_path / "x.raw").read_bytes()
    assert not (out / "h.f16").exists()
    assert main(["verify", str(out / "recording.json"), "--ulp", "0"]) == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["COMMAND"]),
        (["verify"], ["RECORDING"]),
        (["verify", "nowhere.json"], ["nowhere.json"]),
        (["verify", "r.json", "--ulp", "x"], ["--ulp"]),
        (["verify", "r.json", "--ulp", "-1"], ["ulp", "-1"]),
        (["verify", "r.json", "--worst", "-1"], ["--worst", "-1"]),
        (["verify", "r.json", "--bounds", "cuda"], ["bounds", "metal-fast", "exact"]),
        (["verify", "r.json", "--bounds", "exact", "--ulp", "3"], ["--bounds", "--ulp"]),
        (["verify", str(PRECISE / "recording.json"), "--tolerance", "{graph}"], ["graph.json", "TOML"]),
        (["verify", str(PRECISE / "recording.json"), "--tolerance", "nowhere.toml"], ["nowhere.toml"]),
        (["verify", "r.json", "--nonsense"], ["--nonsense", "see mpsref verify --help"]),
        (["dance"], ["dance"]),
        (["run", "{graph}"], ["--out"]),
        (["run", "{graph}", "--out", "{out}"], ["--source x=FILE", "missing"]),
        (["run", "{graph}", "--out", "{out}", "--source", "x"], ["--source", "NAME=FILE"]),
        (["run", "{graph}", "--out", "{out}", "--source", "x={x}", "--source", "x={x}"], ["twice"]),
        (["run", "{graph}", "--out", "{out}", "--source", "x={x}", "--source", "z={x}"], ["z", "reads only x"]),
        (["run", "{graph}", "--out", "{out}", "--source", "x=nowhere.npy"], ["nowhere.npy"]),
        (["run", "{graph}", "--out", "{out}", "--source", "x={graph}"], ["graph.json", "--shape"]),
        (["run", "{graph}", "--out", "{out}", "--source", "x={graph}", "--shape", "1x1"], ["--shape"]),
        (
            ["run", "{graph}", "--out", "{out}", "--source", "x={graph}", "--shape", "999999999x9x9",
             "--channel-format", "unorm8"],
            ["graph.json", "bytes"],
        ),
    ],
)  # fmt: skip
def test_bad_usage_or_input_ends_with_2_and_one_line(tmp_path, graph, capsys, arguments, words):
    names = {"graph": graph, "out": tmp_path / "out", "x": tmp_path / "x.npy"}

    assert main([argument.format(**names) for argument in arguments]) == 2
    refused(capsys, *words)
    assert not (tmp_path / "out").exists()


def test_run_does_not_write_into_a_folder_that_holds_something(tmp_path, graph, capsys):
    before = graph.read_bytes()

    assert main(["run", str(graph), "--source", f"x={tmp_path / 'x.npy'}", "--out", str(tmp_path)]) == 2
    refused(capsys, "not empty")
    assert graph.read_bytes() == before


def test_the_version_is_told(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"mpsref {mps.__version__}\n"


def test_python_dash_m_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "mpsref", "verify", str(PRECISE / "chain-float32.json"), "--ulp", "4"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 1
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1].startswith("FAIL: 701 of 8,192")


# ---- streams ----

SHORT = f"{sys.executable} -m mpsref verify {PRECISE / 'chain-float32.json'} --no-faults --ulp"
LONG = f"{sys.executable} -m mpsref verify {PRECISE / 'chain-float32.json'} --no-faults --all --worst 1024"


def test_odd_streams_change_neither_status_nor_what_is_said():
    """All at once, because each is a process that begins."""
    expected = {
        f"{SHORT} 4 >&-": (1, "", ""),
        f"{SHORT} 9999999999 2>&-": (2, "", ""),
        f"{SHORT} 4294967296 >&- 2>&- <&-": (0, "", ""),
        f"{SHORT} 4294967296 >/dev/full": (2, "", "mpsref: standard output: No space left on device\n"),
        f"{SHORT} -1 2>/dev/full": (2, "", ""),
        f"{LONG} --ulp 4 | head -1; exit ${{PIPESTATUS[0]}}": (1, "recording", ""),
        f"{LONG} --bounds metal-precise --json - | true; exit ${{PIPESTATUS[0]}}": (0, "", "recording"),
        f"{SHORT} 4 --json - >&-": (2, "", "mpsref: --json /dev/stdout: standard output is closed: name a file\n"),
        f"{sys.executable} -m mpsref --help >/dev/full": (2, "", "No space left"),
    }  # fmt: skip
    running = {
        command: subprocess.Popen(
            ["/bin/bash", "-c", command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for command in expected
    }
    for command, process in running.items():
        out, err = process.communicate(timeout=60)
        status, begins, said = expected[command]
        assert process.returncode == status, (command, err)
        assert out.startswith(begins), command
        assert (said in err) if said else err == "", (command, err)
        assert "Traceback" not in err, command
        assert "mpsref: " not in out, command


@pytest.mark.parametrize(
    "arguments", [["\x1b[31mred"], ["verify", "r", "--\x1b[0m"], ["verify", "r", "--ulp", "\x1b\r1"]]
)
def test_terminal_escapes_in_arguments_are_escaped(arguments, capsys):
    assert main(arguments) == 2
    refused(capsys, "\\x1b")


def test_terminal_escapes_in_names_of_files_that_are_written_are_escaped(tmp_path, graph, capsys):
    odd = str(tmp_path / "\x1b[31m\r")

    assert main(["run", str(graph), "--source", f"x={tmp_path / 'x.npy'}", "--out", odd]) == 0
    assert main(["convert", f"{odd}/recording.json", "--out", f"{odd}.npz"]) == 0
    assert main(["inputs", str(graph), "--shape", "1x1x1", "--out", f"{odd}2"]) == 0
    assert main(["explain", str(graph), "--html", f"{odd}.html"]) == 0
    out = capsys.readouterr().out
    assert out.count("\\x1b[31m\\r") == 4
    assert not {"\x1b", "\r"} & set(out)


def test_a_message_has_an_end(capsys):
    assert main(["verify", "n" * 100_000]) == 2
    assert len(capsys.readouterr().err) < 3_000


# ---- faults and signals ----


class UnsayableError(Exception):
    def __str__(self):
        raise SystemExit(0)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ZeroDivisionError("by\nzero \x1b"), "ZeroDivisionError: by zero \\x1b: a fault of mpsref: set MPSREF_DEBUG=1"),
        (UnsayableError(), "UnsayableError: its message cannot be shown"),
        (SystemExit(0), "SystemExit: 0"),
        (SystemExit(), "SystemExit: a fault"),
        (GeneratorExit(), "GeneratorExit"),
        (BaseException("odd"), "BaseException: odd"),
        (RecursionError("deep"), "RecursionError: deep"),
    ],
)
def test_a_fault_of_ours_ends_with_3_and_one_line(monkeypatch, capsys, error, words):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("mpsref.cli.verify.verify", fail)

    assert main(["verify", str(PRECISE / "recording.json")]) == 3
    refused(capsys, words)
    monkeypatch.setenv("MPSREF_DEBUG", "1")
    assert main(["verify", str(PRECISE / "recording.json")]) == 3
    err = capsys.readouterr().err
    assert err.startswith("Traceback (most recent call last):\n")
    assert "MPSREF_DEBUG" not in err.splitlines()[-1]


def test_a_fault_before_a_command_is_known_ends_with_3(monkeypatch, capsys):
    monkeypatch.setattr("mpsref.cli.importlib.import_module", lambda _: 1 / 0)

    assert main(["verify"]) == 3
    refused(capsys, "ZeroDivisionError")


def test_an_installation_that_is_broken_is_a_fault(tmp_path):
    (tmp_path / "argparse.py").write_text("raise ImportError('no such luck')\n")
    code = f"import sys; from mpsref.__main__ import main; sys.path.insert(0, {str(tmp_path)!r}); sys.exit(main())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("mpsref: ImportError: no such luck: a fault of mpsref")


def test_signals_are_handled_before_numpy_is_imported():
    code = "import sys, mpsref.__main__; print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "False\n"


def test_too_little_memory_is_bad_input(monkeypatch, capsys):
    def fail(*_, **__):
        raise MemoryError

    monkeypatch.setattr("mpsref.cli.verify.verify", fail)

    assert main(["verify", str(PRECISE / "recording.json")]) == 2
    refused(capsys, "out of memory")


def test_an_interruption_is_quiet(monkeypatch, capsys):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("mpsref.cli.verify.verify", interrupt)

    assert main(["verify", str(PRECISE / "recording.json")]) == 130
    assert capsys.readouterr().err == ""


# What a process does at each of these moments, with a signal that it sends to itself.
IMPORT = "import builtins; load = builtins.__import__\ndef meet(name, *rest):\n    {} if 'argparse' in name else None; return load(name, *rest)\nbuiltins.__import__ = meet\n"  # fmt: skip  # noqa: E501
LAZY = "import mpsref.cli; mpsref.cli.importlib.import_module = lambda name: {}\n"
WORK = "import mpsref.cli.inspect as command\ndef meet(path): {}\ncommand.contents = meet\n"
SWALLOWED = "import mpsref.cli.inspect as command\ndef meet(path):\n    try: {}\n    except BaseException: raise ValueError\ncommand.contents = meet\n"  # fmt: skip  # noqa: E501
FINISHED = "import atexit; atexit.register(lambda: {})\n"


@seldom(
    "moment",
    [IMPORT, LAZY, WORK, SWALLOWED, FINISHED],
    lambda moment: moment in (IMPORT, WORK),
    lambda moment: moment[-40:],
)
def test_signals_end_with_their_status_at_any_moment(moment):
    statuses = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129}
    running = {}
    for name in statuses:
        # Whatever runs the tests may have it ignored.
        begin = f"import os, signal, sys; signal.signal(signal.{name}, signal.SIG_DFL)\n"
        meet = moment.format(f"os.kill(os.getpid(), signal.{name})")
        code = f"{begin}from mpsref.__main__ import main\n{meet}sys.exit(main())\n"
        command = [sys.executable, "-c", code, "inspect", str(PRECISE / "chain-float32.json")]
        running[name] = subprocess.Popen(command, **PIPES)
    for name, process in running.items():
        _, err = process.communicate(timeout=60)
        assert process.returncode == statuses[name]
        assert "Traceback" not in err


def test_what_is_ignored_stays_ignored():
    code = (
        "import os, signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "from mpsref.process import handle_signals; handle_signals(); os.kill(os.getpid(), signal.SIGHUP)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_page_lists_every_exit_status():
    page = (ROOT / "docs" / "command-line.md").read_text()

    assert re.findall(r"^\| (\d+) \|", page, re.MULTILINE) == ["0", "1", "2", "3", "130", "143"]


# ---- what a terminal shows ----


def test_progress_shows_on_a_terminal_only_and_leaves_nothing_behind():
    command = [sys.executable, "-m", "mpsref", "verify", str(PRECISE / "chain-float32.json")]
    controller, terminal = pty.openpty()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=terminal) as process:
        assert process.stdout is not None
        assert b"node" in process.stdout.read()
    os.close(terminal)
    shown = os.read(controller, 10_000)
    os.close(controller)

    assert b"node 8 of 8" in shown
    assert shown.endswith(b"\r\x1b[K")


@pytest.mark.parametrize(("no_colour", "coloured"), [("", True), ("1", False)])
def test_the_verdict_is_coloured_on_a_terminal_unless_declined(no_colour, coloured):
    command = [sys.executable, "-m", "mpsref", "verify", str(PRECISE / "chain-float32.json")]
    controller, terminal = pty.openpty()
    environment = {**os.environ, "NO_COLOR": no_colour}
    with subprocess.Popen(command, stdout=terminal, stderr=subprocess.PIPE, env=environment) as process:
        os.close(terminal)
        shown = b""
        with contextlib.suppress(OSError):  # the other end is closed
            while part := os.read(controller, 10_000):
                shown += part
        assert process.wait() == 0
    os.close(controller)

    assert (b"\x1b[1;32mPASS\x1b[0m: all 8,192" in shown) is coloured
    assert (b"\x1b" in shown) is coloured


def test_faults_are_named_unless_declined(capsys):
    arguments = ["verify", str(PRECISE / "neurons.json"), "--ulp", "4"]

    assert main(arguments) == 1
    assert "  fault: the literal formula overflows: explains 576 of 576\n" in capsys.readouterr().out
    assert main([*arguments, "--no-faults"]) == 1
    assert "fault:" not in capsys.readouterr().out


def test_the_report_does_not_overwrite_the_recording(tmp_path, graph, capsys):
    out = tmp_path / "out"
    main(["run", str(graph), "--source", f"x={tmp_path / 'x.npy'}", "--out", str(out)])
    capsys.readouterr()

    for name in ("recording.json", "graph.json", "x.npy"):
        before = (out / name).read_bytes()
        assert main(["verify", str(out / "recording.json"), "--json", str(out / ".." / "out" / name)]) == 2
        refused(capsys, "--json", name, "another file")
        assert (out / name).read_bytes() == before


def test_a_report_cannot_be_a_folder(tmp_path, capsys):
    assert main(["verify", str(PRECISE / "chain-float32.json"), "--json", str(tmp_path)]) == 2
    refused(capsys, str(tmp_path), "folder")


def test_a_bound_beyond_all_distances_is_refused(capsys):
    assert main(["verify", str(PRECISE / "recording.json"), "--ulp", "9999999999"]) == 2
    refused(capsys, "ulp", "at most")


def test_a_source_of_the_wrong_format_names_file_and_fix(tmp_path, capsys):
    x = mps.MPSNNImageNode(handle="x")
    x.format = mps.MPSImageFeatureChannelFormat.float32
    y = mps.MPSCNNNeuronTanHNode(source=x)
    mps.GraphFile.from_results([y.result_image]).write(tmp_path / "graph.json")
    np.save(tmp_path / "x.npy", np.zeros((1, 1, 1), np.float16))
    source = f"x={tmp_path / 'x.npy'}"

    assert main(["run", str(tmp_path / "graph.json"), "--source", source, "--out", str(tmp_path / "out")]) == 2
    refused(capsys, "graph.json", "source 'x'", "float32", "convert")


def test_output_that_the_terminal_cannot_show_is_escaped(tmp_path):
    x = mps.MPSNNImageNode(handle="x")
    y = mps.MPSCNNNeuronTanHNode(source=x)
    y.result_image.handle = "é"
    mps.GraphFile.from_results([y.result_image]).write(tmp_path / "graph.json")
    np.save(tmp_path / "x.npy", np.zeros((1, 1, 1), np.float16))
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "mpsref"]
    run = [*command, "run", "graph.json", "--source", "x=x.npy", "--out", "out"]
    check = [*command, "verify", "out/recording.json"]

    subprocess.run(run, cwd=tmp_path, env=environment, check=True, capture_output=True)
    done = subprocess.run(check, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True)

    assert "\\xe9 " in done.stdout


def test_every_module_with_a_command_is_listed_once():
    files = {path.stem for path in (ROOT / "mpsref" / "cli").glob("*.py") if "def define(" in path.read_text()}

    assert sorted(name for name, _ in COMMANDS) == sorted(files)


@pytest.mark.parametrize(
    ("command", "others"),
    [
        (["run", "{graph}", "--source", "x={x}", "--out", "{out}"], r"verify|teach|testing|sweep|proof"),
        (["inspect", "{graph}"], r"verify|teach|testing|sweep|proof"),
        (["verify", str(PRECISE / "chain-float32.json"), "--ulp", "9999"], r"teach|testing|sweep|proof"),
        (["--help"], r"verify|record|teach|testing|sweep|proof|cli\.(?!st)"),
    ],
)
def test_a_command_imports_nothing_that_only_others_need(tmp_path, graph, command, others):
    names = {"graph": graph, "out": tmp_path / "out", "x": tmp_path / "x.npy"}
    code = (
        "import atexit, sys; atexit.register(lambda: print(*sys.modules, file=sys.stderr)); "
        "from mpsref.cli import main; sys.exit(main())"
    )
    run = [sys.executable, "-c", code, *(argument.format(**names) for argument in command)]
    done = subprocess.run(run, capture_output=True, text=True, check=False)

    assert done.returncode in (0, 1)
    assert "mpsref.cli.status" in done.stderr
    assert not [name for name in done.stderr.split() if re.match(rf"mpsref\.({others})", name)]
