"""The project as a whole: layers, import time, documents that are true."""

from __future__ import annotations

import ast
import contextlib
import inspect
import io
import json
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest

import mpsref as mps
from builders import seldom
from mpsref.cli import main, parser
from mpsref.documents import validate
from mpsref.neuron.kernels import KERNELS
from mpsref.storage import FORMATS
from mpsref.testing import assert_close, tolerances
from mpsref.verify import Recording
from mpsref.verify.tolerance import Tolerances

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "mpsref"
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")])

LAYERS = [
    ["mpsref", "mpsref.display", "mpsref.enums", "mpsref.errors", "mpsref.pages", "mpsref.symbolic"],
    [
        "mpsref.attributes",
        "mpsref.documents",
        "mpsref.environment",
        "mpsref.files",
        "mpsref.pictures",
        "mpsref.process",
        "mpsref.storage",
    ],
    ["mpsref.arguments", "mpsref.arrays", "mpsref.formats"],
    ["mpsref.image_lanes", "mpsref.npy", "mpsref.states", "mpsref.ulp"],
    ["mpsref.tensors"],
    ["mpsref.image_bytes"],
    ["mpsref.image"],
    ["mpsref.neuron.workspace", "mpsref.neuron.exact", "mpsref.neuron.slopes"],
    ["mpsref.neuron.tail", "mpsref.neuron.threads", "mpsref.neuron.specification"],
    ["mpsref.neuron.table", "mpsref.neuron.activation_values"],
    ["mpsref.neuron.rounding", "mpsref.neuron.halves", "mpsref.neuron.nodes"],
    ["mpsref.neuron.patterns", "mpsref.neuron.activations"],
    ["mpsref.neuron.descriptor", "mpsref.neuron.elementwise", "mpsref.neuron.kernels.base"],
    ["mpsref.neuron.reference"],
    [f"mpsref.neuron.kernels.{name}" for name in ("activations", "curves", "lines")],
    ["mpsref.neuron.kernels.powers"],
    ["mpsref.neuron.kernels"],
    ["mpsref.neuron.evaluate"],
    ["mpsref.neuron.stepwise"],
    ["mpsref.neuron"],
    ["mpsref.activations"],
    ["mpsref.sums.expansion", "mpsref.sums.window"],
    ["mpsref.sums.base"],
    ["mpsref.sums.products"],
    ["mpsref.sums.stepwise", "mpsref.sums.transposed"],
    ["mpsref.sums.convolution"],
    ["mpsref.sums.pooling"],
    ["mpsref.sums"],
    ["mpsref.operations.base", "mpsref.operations.padding", "mpsref.operations.weights"],
    ["mpsref.operations.window"],
    [f"mpsref.operations.{name}" for name in ("arithmetic", "convolution", "neuron", "pooling")],
    ["mpsref.operations"],
    ["mpsref.graph.fields", "mpsref.graph.handles", "mpsref.graph.schedule"],
    ["mpsref.graph.names", "mpsref.graph.training"],
    ["mpsref.graph.drawing"],
    ["mpsref.graph.nodes"],
    ["mpsref.graph.neurons", "mpsref.graph.arithmetic", "mpsref.graph.layers"],
    ["mpsref.graph.schema", "mpsref.graph.sources"],
    ["mpsref.graph.check"],
    ["mpsref.graph.file"],
    ["mpsref.graph"],
    ["mpsref.plan"],
    ["mpsref.executor"],
    ["mpsref.public"],
    ["mpsref.record.layout", "mpsref.record.samples", "mpsref.record.states"],
    ["mpsref.record.convert", "mpsref.record.recording"],
    ["mpsref.record.contents", "mpsref.record.request"],
    ["mpsref.record"],
    ["mpsref.verify.models", "mpsref.verify.ranges", "mpsref.verify.reasons", "mpsref.verify.differences"],
    ["mpsref.verify.running", "mpsref.verify.bias"],
    ["mpsref.verify.core", "mpsref.verify.forms", "mpsref.verify.stored"],
    ["mpsref.verify.bounds"],
    ["mpsref.verify.cells"],
    ["mpsref.verify.windows", "mpsref.verify.ties"],
    ["mpsref.verify.compare", "mpsref.verify.judge"],
    ["mpsref.verify.tolerance", "mpsref.verify.layer"],
    ["mpsref.verify.restored"],
    ["mpsref.verify.chain"],
    ["mpsref.verify.case", "mpsref.verify.aggregate"],
    ["mpsref.verify.hypotheses.base"],
    ["mpsref.verify.hypotheses.fitting"],
    [
        f"mpsref.verify.hypotheses.{name}"
        for name in ("formula", "places", "scales", "sources", "stores", "sums", "tables")
    ],
    ["mpsref.verify.hypotheses.parameters"],
    ["mpsref.verify.hypotheses.library"],
    ["mpsref.verify.hypotheses.layers"],
    ["mpsref.verify.hypotheses.noise"],
    ["mpsref.verify.hypotheses.precision"],
    ["mpsref.verify.hypotheses.states"],
    ["mpsref.verify.hypotheses"],
    ["mpsref.verify.regions", "mpsref.verify.samples"],
    ["mpsref.verify.search"],
    ["mpsref.verify.faults"],
    ["mpsref.verify.precision"],
    ["mpsref.verify.summary", "mpsref.verify.segments"],
    ["mpsref.verify.report"],
    ["mpsref.verify.states", "mpsref.verify.judged"],
    ["mpsref.verify.verification"],
    ["mpsref.verify"],
    ["mpsref.verify.html", "mpsref.verify.junit"],
    ["mpsref.blocks", "mpsref.origin", "mpsref.sweep.autodiff"],
    ["mpsref.sweep.libraries", "mpsref.sweep.summary"],
    ["mpsref.sweep.implementation"],
    ["mpsref.sweep.agreement"],
    ["mpsref.sweep.report"],
    ["mpsref.sweep.run"],
    ["mpsref.sweep"],
    ["mpsref.testing.differences", "mpsref.testing.reports", "mpsref.testing.views"],
    ["mpsref.testing.comparison"],
    ["mpsref.testing.question"],
    ["mpsref.testing.composition", "mpsref.testing.strategies.arguments", "mpsref.testing.tolerances"],
    ["mpsref.testing.gradient"],
    ["mpsref.testing.strategies.code", "mpsref.testing.strategies.neurons", "mpsref.testing.strategies.numbers"],
    ["mpsref.testing.strategies.images"],
    ["mpsref.testing.strategies.graphs", "mpsref.testing.strategies.layers"],
    ["mpsref.testing.strategies.recordings"],
    ["mpsref.testing.strategies"],
    ["mpsref.testing.subject"],
    ["mpsref.testing.attack"],
    ["mpsref.testing.implementation"],
    ["mpsref.testing"],
    ["mpsref.conftest", "mpsref.hypothesis_plugin", "mpsref.pytest_plugin"],
    ["mpsref.proof.judge"],
    ["mpsref.proof.sweep"],
    ["mpsref.proof.checks"],
    ["mpsref.proof.certificate"],
    ["mpsref.proof.run"],
    ["mpsref.proof"],
    ["mpsref.teach.exercises", "mpsref.teach.plots", "mpsref.teach.step", "mpsref.teach.trees"],
    ["mpsref.teach.formulas", "mpsref.teach.lost", "mpsref.teach.parameters", "mpsref.teach.places"],
    ["mpsref.teach.chain"],
    ["mpsref.teach.trace"],
    ["mpsref.teach.explain"],
    ["mpsref.teach.expression"],
    ["mpsref.teach.descent"],
    ["mpsref.teach"],
    ["mpsref.lab", "mpsref.lab.expressions", "mpsref.lab.msl"],
    ["mpsref.lab.cpu", "mpsref.lab.languages", "mpsref.lab.wgsl"],
    ["mpsref.lab.kernels"],
    ["mpsref.lab.work"],
    ["mpsref.lab.apple", "mpsref.lab.processor", "mpsref.lab.webgpu"],
    ["mpsref.lab.foreign"],
    ["mpsref.lab.recording"],
    ["mpsref.lab.vectors"],
    ["mpsref.lab.vector_text"],
    ["mpsref.cli.arguments", "mpsref.cli.outputs", "mpsref.cli.progress", "mpsref.cli.status", "mpsref.cli.streams"],
    ["mpsref.cli.sources"],
    [
        *(f"mpsref.cli.{name}" for name in ("run", "verify", "explain", "prove", "sweep", "merge")),
        *(f"mpsref.cli.{name}" for name in ("inputs", "convert", "inspect", "example", "kernels", "record", "vectors")),
    ],
    ["mpsref.cli"],
    ["mpsref.__main__"],
]
PARTS = ["proof", "record", "sweep", "teach", "testing", "verify"]
UPWARD: set[tuple[str, str]] = set()
"""Imports that point upwards: none. What only type checkers read is no import."""


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


MODULES = {name for name, _ in modules()}


@cache
def import_statements(path):
    """Those that run, not what only type checkers read."""
    tree = ast.parse(path.read_text())
    only_for_types = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for statement in node.body
        for inner in ast.walk(statement)
    }
    every = {node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)}
    return every - only_for_types


def imports(path, *, packages=False):
    for node in import_statements(path):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "mpsref":
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            yield from names & MODULES or {node.module}
            if packages:
                yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "mpsref")


def test_every_module_has_its_layer():
    assert sorted(name for layer in LAYERS for name in layer) == sorted(name for name, _ in modules())


def test_imports_point_downwards_only():
    height = {name: i for i, layer in enumerate(LAYERS) for name in layer}

    upward = {(name, other) for name, path in modules() for other in imports(path) if height[other] >= height[name]}

    assert upward == UPWARD


def circular(imported):
    """What remains of a graph of imports once the modules that import nothing of it are taken away, again and again."""
    imported = dict(imported)
    while free := [name for name, others in imported.items() if not others & imported.keys()]:
        for name in free:
            del imported[name]
    return sorted(imported)


def test_no_module_imports_in_a_circle():
    # `from package import module` runs the package's own `__init__` first.
    imported = {name: {*imports(path, packages=True)} - {name, "mpsref"} for name, path in modules()}

    assert circular(imported) == []
    assert circular({"a": {"b"}, "b": {"a", "c"}, "c": set()}) == ["a", "b"]


def test_the_layers_in_the_guide_name_every_module():
    (text,) = [code for language, code in blocks(ROOT / "CONTRIBUTING.md") if language == "text"]
    unnamed = {name for name in MODULES if name.split(".")[-1] not in re.findall(r"\w+", text)}
    families = ("mpsref.__main__", "mpsref.testing.strategies.", "mpsref.verify.hypotheses.")

    assert sorted(name for name in unnamed if not name.startswith(families)) == []


def test_importing_brings_nothing_that_is_not_needed_yet():
    code = "import sys, numpy; old = {*sys.modules}; from mpsref import MPSImage; print(*({*sys.modules} - old))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    brought = {
        name
        for name in run.stdout.split()
        if not re.match(r"mpsref(\.(neuron|graph|operations|sums)\b|\.\w+$|$)", name)
    }
    assert not {
        name for name in run.stdout.split() if re.match(r"mpsref\.(cli|proof|record|sweep|teach|testing|verify)", name)
    }
    assert {name.partition(".")[0] for name in brought} <= {*sys.stdlib_module_names, "numpy"}
    assert "argparse" not in brought


@seldom("part", PARTS, lambda part: part == "verify")
def test_a_part_is_there_when_it_is_used(part):
    code = f"import mpsref, sys; assert 'mpsref.{part}' not in sys.modules; print(mpsref.{part}.__name__)"

    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() == [
        f"mpsref.{part}"
    ]


@pytest.mark.parametrize(
    "use", ["{0}.{1}", "from {0} import *; {1}", "pickle.loads(pickle.dumps({0}.{1}))", "dir({0}).index('{1}')"]
)
@seldom("name", ["MPSCNNNeuronType", "MPSNNGraph"], lambda name: name == "MPSNNGraph")
def test_public_names_come_with_their_first_use(use, name):
    code = "import sys, pickle, mpsref; assert 'numpy' not in sys.modules; " + use.format("mpsref", name)

    assert not subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr


@pytest.mark.slow
def test_type_checkers_know_every_public_name(tmp_path):
    mypy = pytest.importorskip("mypy.api")
    file = tmp_path / "use.py"
    names = [f"{part}.{name}" for part in PARTS for name in getattr(mps, part).__all__]
    file.write_text(
        "import mpsref\n" + "".join(f"mpsref.{name}\n" for name in [*mps.__all__, *names]) + "mpsref.nothing\n"
    )
    out, err, status = mypy.run(["--strict", f"--cache-dir={tmp_path}", str(file)])

    assert re.findall("error: (.*)", out) == ['Module has no attribute "nothing"  [attr-defined]']
    assert (err, status) == ("", 1)


def test_a_name_that_there_is_not_is_an_error_with_a_suggestion():
    code = "import mpsref; mpsref.MPSCNNNeuronTanhNode"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert run.stderr.endswith("no attribute 'MPSCNNNeuronTanhNode'. Did you mean: 'MPSCNNNeuronTanHNode'?\n")


def test_examples_and_test_data_stay_small():
    files = [path for folder in ("examples", "tests") for path in (ROOT / folder).rglob("*") if path.is_file()]
    data = [path for path in files if path.suffix not in (".py", ".pyc", ".md")]

    assert sum(path.stat().st_size for path in data) < 5_000_000
    assert sum(path.stat().st_size for path in (ROOT / "examples" / "gpu-run").rglob("*") if path.is_file()) < 2_500_000


@pytest.mark.parametrize(
    "path", sorted((ROOT / "examples").rglob("*.json")), ids=lambda path: str(path.relative_to(ROOT))
)
def test_every_example_file_reads_and_writes_back(path):
    if json.loads(path.read_text())["format"] == "mpsref-graph":
        assert mps.GraphFile.read(path).to_json({}, path.stem) == json.loads(path.read_text())
    else:
        recording = Recording.read(path)
        # Of the two gradients that torch added up to d.elu it kept none.
        assert {*recording.graph.images} - {*recording.images} <= {"dy.elu.1", "dy.elu.2"}


def test_every_neuron_is_in_the_example_recordings():
    for compiler in ("precise", "fast"):
        images = Recording.read(ROOT / "examples" / "gpu-run" / compiler / "neurons.json").images
        assert {f"{t.name}.{kind}" for t in mps.NEURONS for kind in ("y", "dx")} <= set(images)


# ---- documents ----


def blocks(path):
    return re.findall(r"^```([\w{}-]*)(?: .*)?\n(.*?)^```$", path.read_text(), re.DOTALL | re.MULTILINE)


LONGEST = ROOT / "docs" / "verify.md", ROOT / "docs" / "testing.md"


@seldom("path", DOCUMENTS, lambda path: path not in LONGEST, lambda path: str(path.relative_to(ROOT)))
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
            elif language == "console":
                for command in commands(code):
                    if command[0] == "mpsref" and (following == "text" or command[1] not in LONG):
                        assert main(command[1:]) in (0, 1)
        is_shown = following == "text" and language in ("python", "console")
        if is_shown and not re.fullmatch(printed_as(text), printed.getvalue(), re.DOTALL):
            assert printed.getvalue() == text


def printed_as(text):
    """A pattern of what may be printed where this is shown; a line of dots stands for lines that are left out."""
    return "\n(?:.*\n)?".join(map(re.escape, text.split("\n...\n")))


LONG = {"prove", "sweep", "merge"}
"""Commands that try every input: run only where their output is shown; else a test reads their arguments."""


def commands(console):
    """The commands of a console block, without their comments, each as a list."""
    lines = [line.removeprefix("$ ") for line in console.splitlines() if line.startswith("$ ")]
    return [shlex.split(part, comments=True) for line in lines for part in line.split(" && ")]


def test_the_readme_begins_with_two_commands():
    """What the first one prints is compared above."""
    (language, code), (following, shown) = blocks(ROOT / "README.md")[:2]
    first, second = [line.removeprefix("$ ") for line in code.splitlines()]

    assert first.startswith("python -m pip install . && mpsref verify examples/")
    assert second == "python -m pip install '.[test]' && python -m pytest"
    assert (language, following) == ("console", "text")
    assert shown.splitlines()[-1].startswith("PASS: ")


def test_lines_that_are_left_out_are_whole_and_the_others_are_compared():
    shown = "a\n...\nd\n"

    assert re.fullmatch(printed_as(shown), "a\nb\nc\nd\n", re.DOTALL)
    for printed in ("a\nb\nc\n", "A\nb\nd\n", "a\nb d\n", "a\nb\nd\ne\n"):
        assert not re.fullmatch(printed_as(shown), printed, re.DOTALL)


def test_the_readme_is_short():
    text = (ROOT / "README.md").read_text()

    assert len(text.split()) <= 700
    assert text.count("\n### ") == text.count("](docs/drawings/") == 3


def test_the_verdict_shows_what_its_commands_print(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    *_, causes, worst = [code for language, code in blocks(ROOT / "docs" / "verdict.md") if language == "text"]
    command = ["verify", "examples/gpu-run/precise/neurons.json", "--worst", "1"]

    main(command)
    assert causes in capsys.readouterr().out
    main([*command, "--ulp", "4"])
    assert worst in capsys.readouterr().out


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_blocks_that_are_not_run_are_of_a_known_kind_and_read(path, tmp_path):
    for language, code in blocks(path):
        file = tmp_path / "file"
        file.write_text(code)
        if language == "py":  # needs what a reader has and we have not
            ast.parse(code)
        elif language == "toml":
            Tolerances.read(file)
        elif language == "json" and json.loads(code)["format"] == "mpsref-tolerances":
            tolerances.Tolerances.read(file)
        elif language == "json" and json.loads(code)["format"] == "mpsref-recording":
            validate(json.loads(code), schema("recording"))
        elif language == "json":
            assert mps.GraphFile.from_json(json.loads(code)).nodes
        else:
            known = {"python", "console", "text", "cpp", "swift", "objective-c"}
            assert language in known | {"{toctree}", "{include}", "{literalinclude}"}


def tables(path):
    """The rows of each table of a document, as lists of cells, without its head."""
    for table in re.findall(r"(?:^\|.*\n)+", path.read_text(), re.MULTILINE):
        yield [[cell.strip() for cell in re.split(r"(?<!\\)\|", row.strip("|\n"))] for row in table.splitlines()[2:]]


def words(*cells):
    return set(re.findall(r"`([^` ]+)`", " ".join(cells)))


def schema(kind):
    return json.loads((PACKAGE / "schemas" / f"{kind}.schema.json").read_text())


def test_tables_of_file_formats_have_every_field_of_the_schemas():
    graph, node_classes, recording, image = tables(ROOT / "docs" / "files.md")

    assert words(*(row[0] for row in graph)) == set(schema("graph")["properties"])
    assert words(*(row[0] for row in recording)) == set(schema("recording")["properties"])
    assert words(*(row[0] for row in image)) == set(
        schema("recording")["properties"]["images"]["additionalProperties"]["properties"]
    )
    fields = {
        rule["if"]["properties"]["class"]["const"]: set(rule["then"]["properties"]) - {"class", "result", "label"}
        for rule in schema("graph")["$defs"]["node"]["allOf"]
    }
    neurons = {name: fields.pop(name) for name in list(fields) if re.fullmatch(r"MPSCNNNeuron(?!Gradient).+Node", name)}
    for row in node_classes:
        if "..." in row[0]:
            assert set().union(*neurons.values()) == words(row[1])
        else:
            for name in words(row[0]):
                assert fields.pop(name) == words(row[1]) - {"none"}, name
    assert not fields


def test_the_table_of_certificates_has_every_field_of_the_schema():
    _, fields, _ = tables(ROOT / "docs" / "proof.md")

    assert set(schema("certificate")["properties"]) - {"format", "version"} <= words(*map(" ".join, fields))


def test_the_table_of_example_recordings_names_those_that_there_are():
    (rows,) = tables(ROOT / "examples" / "gpu-run" / "README.md")

    for compiler in ("precise", "fast"):
        folder = ROOT / "examples" / "gpu-run" / compiler
        for recording, graph, _ in rows:
            assert json.loads((folder / recording.strip("`")).read_text())["graph"] == graph.strip("`")
        assert {path.name for path in folder.glob("*.json")} == words(*(" ".join(row[:2]) for row in rows))


def test_the_table_of_reports_names_options_of_the_command():
    (rows,) = tables(ROOT / "docs" / "report.md")

    options = words(*(row[0] for row in rows))
    assert options == {"--json", "--junit", "--html"}
    for option in options:
        assert parser().parse_args(["verify", "recording.json", option, "file"])


def test_the_table_of_bounds_names_arguments_that_comparisons_take():
    (rows,) = tables(ROOT / "docs" / "testing.md")

    named = {name for row in rows for name in re.findall(r"(\w+)=", row[0])}
    assert len(named) >= 7
    assert named <= set(inspect.signature(assert_close).parameters)


def test_the_table_of_formats_says_how_arrays_are_stored():
    (rows,) = tables(ROOT / "docs" / "images.md")

    assert {row[0].strip("`"): row[1] for row in rows} == {
        form.name: storage.dtype.name
        for form, storage in FORMATS.items()
        if form is not mps.MPSImageFeatureChannelFormat.none
    }


def test_the_table_of_error_bounds_has_those_of_the_kernels_and_the_margin_that_its_text_states():
    """Each row's bound is that of its neuron; all but two rows, which the text names, are 4 times what is lost."""
    (rows,) = tables(ROOT / "docs" / "accuracy.md")
    exact = {t.name for t, row in mps.NEURONS.items() if KERNELS[type(row)].is_exact}
    parameters = {
        "linear, hardSigmoid": {"a": 0.3},
        r"power, \|c\| <= 64": {"c": 3.0},
        "power, larger c": {"c": 2e12},
        "exponential": {"b": 1.0},
    }
    seen, narrow = set(exact), set()
    for subject, _, forward, _, slope, text in rows:
        bounds = [2.0 ** int(power) for power in re.findall(r"2\^(-\d+)(?=$|,)", text)]
        lost = max(2.0 ** float(one.removeprefix("2^")) for one in (forward, slope) if one != "0")
        names = [name for name in mps.MPSCNNNeuronType.__members__ if re.search(rf"\b{name}\b", subject)]
        for name in names:
            d = mps.MPSNNNeuronDescriptor(mps.MPSCNNNeuronType[name], **parameters.get(subject, {}))
            assert KERNELS[type(d.row)].error_bound(d) == bounds[-1], (subject, name)
        seen |= set(names)
        narrow |= {subject} if min(bounds) < 4 * lost else set()

    assert seen == set(mps.MPSCNNNeuronType.__members__)
    assert narrow == {"linear, hardSigmoid", "exponential"}


def test_the_graph_of_the_formats_fits_its_recording_and_the_commands(tmp_path, monkeypatch, capsys):
    graph, recording = [code for language, code in blocks(ROOT / "docs" / "files.md") if language == "json"][:2]
    (tmp_path / "graph.json").write_text(graph)
    (tmp_path / "recording.json").write_text(recording)
    monkeypatch.chdir(tmp_path)

    assert {*mps.GraphFile.read("graph.json").images} == {*json.loads(recording)["images"]}
    with pytest.raises(mps.FileFormatError, match=r"x\.f16: No such file"):
        Recording.read("recording.json")
    for command in (
        "inputs graph.json --shape 64x64x4 --out rec",
        "inspect rec/recording.json",
        "explain graph.json --html graph.html",
    ):
        assert main(command.split()) == 0, capsys.readouterr().err


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
    ("python", "benchmarks/graphs.py"),
    ("python", "benchmarks/run.py"),
    ("python", "benchmarks/verdicts.py"),
    ("python", "examples/property/attack.py"),
    ("python", "tests/proof/test_digests.py"),
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
                parser().parse_args(own[1:])
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


def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_small_extras_are_part_of_that_for_tests():
    extras = project()["project"]["optional-dependencies"]

    for name in ("proof", "teach", "testing"):
        assert set(extras[name]) <= set(extras["test"])


def test_hooks_before_a_commit_have_the_packages_of_the_project():
    hooks = (ROOT / ".pre-commit-config.yaml").read_text()
    table = project()
    known = {*table["project"]["dependencies"], *table["project"]["optional-dependencies"]["test"]}
    known |= {*table["dependency-groups"]["lint"]}

    packages = re.findall(r'"([^"]+)"', hooks)
    assert len(packages) >= 5
    assert set(packages) <= known
    assert hooks.count("- repo:") == hooks.count("- repo: local")


def test_citation_and_changelog_have_the_newest_release():
    citation = (ROOT / "CITATION.cff").read_text()
    version, date = re.search(r"^## (\S+) - (\S+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE).groups()

    assert version == mps.__version__
    assert f"\nversion: {version}\ndate-released: {date}\n" in citation
    assert f"license: {project()['project']['license']}\n" in citation
