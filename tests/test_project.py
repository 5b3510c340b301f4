"""The project as a whole: layers, import time, documents that are true."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import re
import runpy
import shlex
import statistics
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import mpsref as mps
from mpsref.cli import _parser, main
from mpsref.verify import Recording

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "mpsref"
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")])

LAYERS = [
    ["mpsref.columns", "mpsref.enums", "mpsref.errors", "mpsref.histogram", "mpsref.pages"],
    ["mpsref.documents", "mpsref.pictures", "mpsref.storage"],
    ["mpsref.image"],
    ["mpsref.neuron.workspace", "mpsref.neuron.exact", "mpsref.neuron.slopes"],
    ["mpsref.neuron.tail"],
    ["mpsref.neuron.table"],
    ["mpsref.neuron.descriptor"],
    ["mpsref.neuron.evaluate"],
    ["mpsref.neuron.stepwise"],
    ["mpsref.neuron"],
    ["mpsref.graph.nodes"],
    ["mpsref.graph.neurons", "mpsref.graph.arithmetic", "mpsref.graph.schedule"],
    ["mpsref.graph.training", "mpsref.graph.schema", "mpsref.graph.names"],
    ["mpsref.graph.drawing"],
    ["mpsref.graph.file"],
    ["mpsref.graph"],
    ["mpsref.executor"],
    ["mpsref.verify.running", "mpsref.verify.recording"],
    ["mpsref.verify.bounds"],
    ["mpsref.verify.compare", "mpsref.verify.judge"],
    ["mpsref.verify.tolerance"],
    ["mpsref.verify.case", "mpsref.verify.aggregate"],
    ["mpsref.verify.hypotheses"],
    ["mpsref.verify.faults"],
    ["mpsref.verify.report"],
    ["mpsref.verify"],
    ["mpsref"],
    ["mpsref.verify.html", "mpsref.verify.junit"],
    ["mpsref.record.samples", "mpsref.record.tensors"],
    ["mpsref.record.convert", "mpsref.record.request"],
    ["mpsref.record.contents"],
    ["mpsref.record"],
    ["mpsref.blocks", "mpsref.origin"],
    ["mpsref.sweep.implementation", "mpsref.sweep.summary"],
    ["mpsref.sweep.report"],
    ["mpsref.sweep.run"],
    ["mpsref.sweep"],
    ["mpsref.testing.comparison", "mpsref.testing.differences"],
    ["mpsref.testing.gradient", "mpsref.testing.strategies.arguments", "mpsref.testing.tolerances"],
    ["mpsref.testing.strategies.code", "mpsref.testing.strategies.neurons", "mpsref.testing.strategies.numbers"],
    ["mpsref.testing.strategies.images"],
    ["mpsref.testing.strategies.graphs"],
    ["mpsref.testing.strategies.recordings"],
    ["mpsref.testing.strategies"],
    ["mpsref.testing.implementation"],
    ["mpsref.testing"],
    ["mpsref.proof.judge"],
    ["mpsref.proof.sweep"],
    ["mpsref.proof.certificate"],
    ["mpsref.proof.run"],
    ["mpsref.proof"],
    ["mpsref.teach.formulas", "mpsref.teach.plots", "mpsref.teach.trace"],
    ["mpsref.teach.explain"],
    ["mpsref.teach"],
    ["mpsref.cli"],
    ["mpsref.__main__"],
]
UPWARD = {
    ("mpsref.graph.nodes", "mpsref.graph.training"): "a method of the base class makes nodes, at call time",
    ("mpsref.graph.nodes", "mpsref.graph.drawing"): "a node draws itself where a notebook shows it, at call time",
}


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "mpsref":
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found = names & {name for name, _ in modules()}
            yield from found or {node.module}
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "mpsref")


def test_every_module_has_its_layer():
    assert sorted(name for layer in LAYERS for name in layer) == sorted(name for name, _ in modules())


def test_imports_point_downwards_only():
    height = {name: i for i, layer in enumerate(LAYERS) for name in layer}

    upward = {(name, other) for name, path in modules() for other in imports(path) if height[other] >= height[name]}

    assert upward == set(UPWARD)


def test_importing_is_cheap_and_brings_nothing_that_is_not_needed_yet():
    code = (
        "import sys, time; import numpy; start = time.process_time(); import mpsref; "
        "print(time.process_time() - start, *(m in sys.modules for m in "
        "('scipy.special', 'scipy', 'hypothesis', 'matplotlib', 'mpsref.verify', 'argparse', "
        "'mpsref.sweep', 'mpsref.testing', 'mpsref.teach')))"
    )
    runs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
        for _ in range(5)
    ]

    assert all(run[1:] == ["False"] * 9 for run in runs)
    assert statistics.median(float(run[0]) for run in runs) < 0.15


def test_examples_and_test_data_stay_small():
    files = [path for folder in ("examples", "tests") for path in (ROOT / folder).rglob("*") if path.is_file()]
    data = [path for path in files if path.suffix not in (".py", ".pyc", ".md")]

    assert sum(path.stat().st_size for path in data) < 3_000_000
    assert sum(path.stat().st_size for path in (ROOT / "examples" / "gpu-run").rglob("*") if path.is_file()) < 2_500_000


@pytest.mark.parametrize(
    "path", sorted((ROOT / "examples").rglob("*.json")), ids=lambda path: str(path.relative_to(ROOT))
)
def test_every_example_file_reads_and_writes_back(path):
    if path.name.startswith("graph"):
        assert mps.GraphFile.read(path).to_json() == json.loads(path.read_text())
    else:
        recording = Recording.read(path)
        assert set(recording.images) == set(recording.graph.images)


def test_every_neuron_is_in_the_example_recordings():
    for compiler in ("precise", "fast"):
        images = Recording.read(ROOT / "examples" / "gpu-run" / compiler / "neurons.json").images
        assert {f"{t.name}.{kind}" for t in mps.NEURONS for kind in ("y", "dx")} <= set(images)


# ---- documents ----


def blocks(path):
    return re.findall(r"^```([\w{}-]*)(?: .*)?\n(.*?)^```$", path.read_text(), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_blocks_run_and_print_what_is_shown(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    names: dict = {}
    shown = blocks(path)
    for number, ((language, code), (following, text)) in enumerate(zip(shown, [*shown, ("", "")][1:], strict=True)):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            if language == "python":
                # A file of its own, as a reader would have it: Hypothesis looks at the source of a test.
                file = tmp_path / f"block{number}.py"
                file.write_text(code)
                exec(compile(code, str(file), "exec"), names)  # noqa: S102
            elif language == "console" and following == "text":
                for command in commands(code):
                    if command[0] == "mpsref":
                        main(command[1:])
        if following == "text" and language in ("python", "console"):
            assert printed.getvalue() == text


def commands(console):
    """The commands of a console block, without their comments, each as a list."""
    lines = [line.removeprefix("$ ") for line in console.splitlines() if line.startswith("$ ")]
    return [shlex.split(part, comments=True) for line in lines for part in line.split(" && ")]


def test_the_readme_shows_what_its_first_command_prints(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    readme = blocks(ROOT / "README.md")
    commands = [line.removeprefix("$ ") for line in readme[0][1].splitlines()]
    install, _, verify = commands[0].partition(" && ")

    assert install == "python -m pip install ."
    assert commands[1] == "python -m pip install '.[test]' && python -m pytest"
    assert main(verify.split()[1:]) == 0
    assert ("text", capsys.readouterr().out) in readme

    main(["verify", "examples/gpu-run/precise/neurons.json", "--worst", "1"])
    assert readme[2][1] in capsys.readouterr().out
    main(["verify", "examples/gpu-run/precise/neurons.json", "--worst", "1", "--ulp", "4"])
    assert readme[3][1] in capsys.readouterr().out


def test_the_json_of_the_readme_is_a_graph_and_a_recording(tmp_path):
    graph, recording = (json.loads(code) for language, code in blocks(ROOT / "README.md") if language == "json")
    (tmp_path / "graph.json").write_text(json.dumps(graph))
    (tmp_path / "recording.json").write_text(json.dumps(recording))

    assert len(mps.GraphFile.from_json(graph).nodes) == 3
    with pytest.raises(mps.FileFormatError, match=r"x\.f16: No such file"):
        Recording.read(tmp_path / "recording.json")


def test_the_commands_that_documents_show_are_understood(tmp_path, monkeypatch, capsys):
    lines = [line.strip() for path in DOCUMENTS for line in path.read_text().splitlines()]
    commands = [
        line.split("   ")[0].split()[1:]
        for line in lines
        if re.match(r"mpsref (run|verify|explain|inputs|convert|inspect) [^|]*\.json", line)
    ]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")

    assert len(commands) >= 14
    for command in commands:
        assert main(command) in (0, 1, 2)
        err = capsys.readouterr().err
        assert not err or re.match(r"mpsref: (rec/)?(recording|graph)\.json: No such file", err)


TOOLS = {
    ("python", "-m", "pip"),
    ("pip", "install"),
    ("python", "-m", "pytest"),
    ("python", "-m", "mpsref.graph.schema"),
    ("python", "docs/generate.py"),
    ("python", "benchmarks/run.py"),
    ("python", "examples/property/attack.py"),
    ("python", "tests/test_digests.py"),
    ("ruff", "check"),
    ("ruff", "format"),
    ("mypy",),
    (".ci/run",),
    ("sphinx-build", "-W", "docs", "site"),
    ("MPSREF_SITE=site", "python", "-m", "pytest"),
}


def test_every_command_that_is_shown_is_one_that_there_is():
    seen = 0
    for path in DOCUMENTS:
        indented = [
            f"$ {line.strip().split('   ')[0]}" for line in path.read_text().splitlines() if line[:4] == " " * 4
        ]
        consoles = [code for language, code in blocks(path) if language == "console"]
        consoles += [line for line in indented if re.match(r"\$ (python -m )?mpsref ", line)]
        for command in (command for console in consoles for command in commands(console)):
            own = command[2:] if command[:3] == ["python", "-m", "mpsref"] else command
            if own[0] == "mpsref":
                _parser().parse_args(own[1:])
                seen += 1
            else:
                assert any(tuple(command[: len(tool)]) == tool for tool in TOOLS), (path.name, command)
                for word in command[1:]:
                    assert not word.endswith(".py") or (ROOT / word).exists()

    assert seen >= 25


def test_made_pages_are_up_to_date():
    pages = runpy.run_path(str(ROOT / "docs" / "generate.py"))["PAGES"]

    for name, page in pages.items():
        assert (ROOT / "docs" / name).read_text() == page(), "run: python docs/generate.py"


def test_links_between_documents_lead_somewhere():
    for path in DOCUMENTS:
        for target in re.findall(r"\]\(([^)]+)\)", path.read_text()):
            if target.startswith("https://"):
                continue
            file, _, anchor = target.partition("#")
            there = (path.parent / file).resolve() if file else path
            assert there.exists(), (path.name, target)
            assert not anchor or anchor in headings(there), (path.name, target)


def headings(path):
    found = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in found}


def test_the_extra_and_the_group_for_tests_agree():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())

    extras = project["project"]["optional-dependencies"]
    assert extras["test"] == project["dependency-groups"]["test"]
    for name in ("proof", "teach", "testing"):
        assert set(extras[name]) <= set(extras["test"])
