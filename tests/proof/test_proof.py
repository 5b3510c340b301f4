"""Proofs over every input: what they count, what they find, and that nothing is lost when they are interrupted."""

from __future__ import annotations

import ast
import hashlib
import json
import re
import runpy
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import jsonschema
import numpy as np
import pytest

import mpsref as mps
from mpsref.cli import main, parser
from mpsref.documents import schema, validate
from mpsref.neuron import evaluate
from mpsref.proof import Subject, judge, prove, run
from mpsref.proof.checks import check_tally
from mpsref.storage import FORMATS
from processes import killed_at

ROOT = Path(__file__).parents[2]
T = mps.MPSCNNNeuronType
Format = mps.MPSImageFeatureChannelFormat
TIMES = "wall_seconds", "cpu_seconds", "workers"


def descriptor(neuron_type, *parameters):
    return mps.MPSNNNeuronDescriptor(neuron_type, *parameters)


def without_times(certificate):
    return {name: value for name, value in certificate.items() if name not in TIMES}


def part_at(bits, size):
    """The --part that begins at a bit pattern and has a power of two of them."""
    return f"{bits // size + 1}/{(1 << 32) // size}"


def compared(equal=0, different=0, none=0):
    return (
        f"digests of all results: {equal} equal to those of the committed certificates, {different} different, "
        f"{none} with none to compare\n"
    )


def proved(tmp_path, *arguments, status=0):
    out = tmp_path / "certificate.json"
    assert main(["prove", *arguments, "--out", str(out), "--workers", "1"]) == status
    return json.loads(out.read_text())


# ---- the judge ----


def test_the_judge_shares_no_code_with_the_package():
    tree = ast.parse(Path(judge.__file__).read_text())
    names = {a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names}
    names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}

    others = {"__future__", "collections.abc", "fractions", "functools", "math", "typing"}
    assert names == {"flint", "numpy", "numpy.typing"} | others


@pytest.mark.parametrize("maximum", [255, 65535])
def test_the_judge_rounds_codes_like_rational_arithmetic(maximum):
    # As near to the boundaries as float64 comes, and one that is exact: 1/2.
    boundary = (np.arange(maximum // 2 % 16, maximum, maximum // 255 // 16 or 1) + 0.5) / maximum
    xs = np.concatenate([boundary, np.nextafter(boundary, 0), np.nextafter(boundary, 1), [-1, 0, 1, 2, 1e300, np.nan]])
    j = judge.Judge("linear", 1, 0)

    codes = j.codes(xs, j.float64s(xs), maximum)

    clamped = [min(max(Fraction(x), Fraction(0)), Fraction(1)) for x in xs[:-1].tolist()]
    assert codes.tolist() == [*(round(x * maximum) for x in clamped), 0]
    assert 0.5 in boundary


@pytest.mark.parametrize("channel_format", [Format.unorm8, Format.unorm16])
def test_the_judge_reads_codes_as_shaders_do(channel_format):
    storage = FORMATS[channel_format]
    codes = storage.patterns()

    np.testing.assert_array_equal(
        judge.unorm_values(codes, storage.unorm_max), storage.decode(codes, np.empty(codes.size))
    )


# ---- what is counted ----


def test_all_sixteen_neurons_are_right_in_unorm8_and_have_certificates(tmp_path, capsys):
    assert main(["prove", "--format", "unorm8", "--out", str(tmp_path / "new" / "folder")]) == 0

    files = sorted((tmp_path / "new" / "folder").iterdir())
    assert [file.name for file in files] == sorted(f"{t.name}.unorm8.json" for t in mps.NEURONS)
    for file in files:
        proof = json.loads(file.read_text())
        jsonschema.Draft202012Validator(schema("certificate")).validate(proof)
        validate(proof, schema("certificate"))
        assert [proof[d][name] for d in ("forward", "derivative") for name in ("inputs", "judged_sample")] == [256] * 4
    captured = capsys.readouterr()
    assert captured.err == ""
    assert captured.out.endswith("\n\n" + compared(none=32) + "PASS: no result that was judged is wrong\n")
    assert len(captured.out.splitlines()) == 1 + 2 * 16 + 3


@pytest.mark.parametrize(("name", "nan"), [("logarithm", 2046 + 0x7C00), ("sigmoid", 2046)])
def test_every_finite_half_is_judged(tmp_path, name, nan):
    forward = proved(tmp_path, "--neuron", name, "--format", "float16")["forward"]

    assert (forward["inputs"], forward["not_finite"], forward["judged_sample"]) == (65_536, 2048, 63_488)
    assert (forward["nan_results"], forward["wrong"]) == (nan, 0)


def test_a_certificate_says_of_what_it_is(tmp_path):
    proof = proved(tmp_path, "--neuron", "tanH", "--a", "0.1", "--format", "unorm16", "--seed", "5")

    assert {name: float.fromhex(value) for name, value in proof["parameters"].items()} == {"a": np.float32(0.1), "b": 1}
    assert [proof[name] for name in ("format", "version", "neuron", "storage", "part", "seed", "wrong")] == [
        "mpsref-certificate", 2, "tanH", "unorm16", "1/1", 5, 0]  # fmt: skip
    assert proof["software"]["numpy"] == np.__version__
    assert proof["software"]["mpsref"] == mps.__version__
    assert proof["machine"]["cpu"]


def test_the_digest_is_that_of_all_results(tmp_path):
    proof = proved(tmp_path, "--neuron", "pReLU", "--data", "0.3", "--part", part_at(0xC0000000, 1 << 16))
    x = np.arange(0xC0000000, 0xC0010000, dtype=np.uint32).view(np.float32)[:, None]
    d = mps.MPSNNNeuronDescriptor(T.pReLU, data=[0.3])

    for direction, y in (
        ("forward", mps.neuron.forward(d, x)),
        ("derivative", mps.neuron.gradient(d, x, np.ones_like(x))),
    ):
        inner = hashlib.sha256(y.astype("<f4").tobytes()).digest()
        assert proof[direction]["sha256"] == hashlib.sha256(inner).hexdigest()


def test_all_near_a_boundary_is_judged_and_a_sample_of_the_rest(tmp_path):
    options = ["--neuron", "logarithm", "--part", part_at(0x3E000000, 1 << 22), "--sample", "100"]
    forward = proved(tmp_path, *options)["forward"]

    # The logarithm of 1/8 to 1/4 fills the band of 2^-40 about a boundary evenly: 2^-15 or 2^-16 of all results.
    assert (1 << 22 >> 16) / 2 < forward["judged_near"] < (1 << 22 >> 15) * 2
    assert forward["judged_near"] >= forward["open_by_digits"] > 0
    assert (forward["judged_unlike"], forward["judged_sample"], forward["wrong"]) == (0, 100, 0)


def test_every_tie_is_judged_whatever_decided_it(tmp_path):
    # Every odd subnormal: half of it is a tie, which the next term of the series breaks.
    forward = proved(tmp_path, "--neuron", "geLU", "--part", part_at(0, 1 << 14), "--sample", "400")["forward"]

    assert (forward["open_by_rule"], forward["judged_near"], forward["wrong"]) == (1 << 13, 1 << 13, 0)


def test_infinities_and_nan_are_counted_and_not_judged(tmp_path):
    part = part_at(0x7F800000, 1 << 16)
    forward = proved(tmp_path, "--neuron", "exponential", "--part", part, "--sample", "65536")["forward"]

    assert (forward["inputs"], forward["not_finite"], forward["nan_results"]) == (65_536, 65_536, 65_535)
    assert forward["judged_sample"] == 0


# ---- what is found ----


def one_ulp_off(choose):
    """An evaluation whose results at the chosen elements are one unit in the last place off."""
    right = evaluate.evaluate

    def evaluated(d, source, *rest, gradient, decisions):
        y = right(d, source, *rest, gradient=gradient, decisions=decisions)
        if gradient is None:
            y.view(f"u{y.itemsize}")[choose(source.stored)] += 1
        return y

    return evaluated


def test_one_wrong_result_is_found_among_all(tmp_path, capsys, monkeypatch):
    at = np.uint32(0x3F801234)
    monkeypatch.setattr(evaluate, "evaluate", one_ulp_off(lambda x: np.flatnonzero(x.view(np.uint32) == at)))

    options = ["--neuron", "softSign", "--part", part_at(0x3F800000, 1 << 16), "--sample", "65536"]
    proof = proved(tmp_path, *options, status=1)

    want = evaluate_one(T.softSign, at)
    example = {"x": f"{at:#010x}", "got": f"{want + 1:#010x}", "want": f"{want:#010x}"}
    assert (proof["wrong"], proof["derivative"]["wrong"]) == (1, 0)
    assert proof["forward"]["examples"] == [example]
    out = capsys.readouterr().out
    assert "softSign forward: x = 0x3f801234: got {got}, want {want}".format(**example) in out
    assert out.endswith("FAIL: 1 results are wrong\n")
    jsonschema.Draft202012Validator(schema("certificate")).validate(proof)


def evaluate_one(neuron_type, bits):
    x = np.array([bits], np.uint32).view(np.float32)
    j = judge.Judge(neuron_type.name)
    return int(j.rounded(x.astype(float), j.float64s(x.astype(float)), np.float32).view(np.uint32)[0])


def test_no_more_examples_are_kept_than_shown(monkeypatch):
    monkeypatch.setattr(evaluate, "evaluate", one_ulp_off(lambda x: slice(None)))

    forward = prove(Subject(descriptor(T.sigmoid), Format.float16, block=1 << 12))["forward"]

    assert forward["wrong"] == 63_488
    assert [e["x"] for e in forward["examples"]] == [f"{i:#06x}" for i in range(8)]


def test_the_sample_depends_on_the_seed_and_on_nothing_else(monkeypatch):
    seen = []
    right = judge.Judge.float64s
    monkeypatch.setattr(judge.Judge, "float64s", lambda self, x, *rest: seen.append(x) or right(self, x, *rest))

    def sampled(seed):
        seen.clear()
        prove(Subject(descriptor(T.linear), part=(1 << 13, 1 << 15), sample=50, seed=seed, block=1 << 16))
        return np.concatenate(seen).tolist()

    assert sampled(1) == sampled(1) != sampled(2)
    assert len(set(sampled(1))) >= 95


# ---- interruptions ----

SMALL = {"part": (249, 1024), "sample": 40, "block": 1 << 18}  # 2^22 inputs from 0x3e000000 on: 32 blocks


def test_a_proof_goes_on_where_it_was_interrupted(tmp_path, monkeypatch):
    subject, checkpoint = Subject(descriptor(T.logarithm), **SMALL), tmp_path / "checkpoint"
    monkeypatch.setattr(run, "SECONDS", 0.0)
    whole = prove(subject)

    def interrupt(done, _of_all):
        if done >= 5 << 18:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prove(subject, checkpoint=checkpoint, progress=interrupt)
    swept = []
    right = run.sweep
    monkeypatch.setattr(run, "sweep", lambda block: swept.append(block) or right(block))
    shown = []
    resumed = prove(subject, checkpoint=checkpoint, progress=lambda *numbers: shown.append(numbers))

    assert len(swept) == 32 - 5
    assert (shown[0], shown[-1]) == ((5 << 18, 1 << 23), (1 << 23, 1 << 23))
    assert without_times(resumed) == without_times(whole)
    jsonschema.Draft202012Validator(schema("checkpoint")).validate(json.loads(checkpoint.read_text()))


def test_ctrl_c_ends_with_130_and_the_same_command_goes_on(tmp_path, capsys, monkeypatch):
    arguments = ["prove", "--neuron", "reLU", "--part", "1/256", "--workers", "1"]
    out, checkpoint = tmp_path / "relu.json", tmp_path / "relu.json.checkpoint"
    right = run.sweep

    def interrupted(block):
        if block.derivative:
            raise KeyboardInterrupt
        return right(block)

    monkeypatch.setattr(run, "sweep", interrupted)
    assert main([*arguments, "--out", str(out)]) == 130
    assert capsys.readouterr().err == "mpsref: interrupted: run the same command again to go on\n"
    assert not out.exists()
    assert [b["direction"] for b in json.loads(checkpoint.read_text())["blocks"]] == ["forward"]

    monkeypatch.setattr(run, "sweep", lambda block: right(block) if block.derivative else pytest.fail("done again"))
    assert main([*arguments, "--out", str(out)]) == 0
    assert out.exists()
    assert not checkpoint.exists()

    monkeypatch.setattr(run, "sweep", interrupted)
    assert main(arguments) == 130
    assert "nothing is kept without --out or --checkpoint" in capsys.readouterr().err


def test_a_killed_proof_goes_on_and_its_workers_are_gone(tmp_path):
    code = (
        "import sys; from pathlib import Path; import mpsref as mps; from mpsref.proof import Subject, prove, run\n"
        "run.SECONDS = 0\n"
        f"subject = Subject(mps.MPSNNNeuronDescriptor(mps.MPSCNNNeuronType.tanH), **{SMALL!r})\n"
        "prove(subject, workers=2, checkpoint=Path(sys.argv[1]), progress=lambda *n: print(*n, flush=True))"
    )
    checkpoint = tmp_path / "checkpoint"
    killed_at(3 << 18, code, checkpoint)

    kept = len(json.loads(checkpoint.read_text())["blocks"])
    subject = Subject(descriptor(T.tanH), **SMALL)
    assert 2 <= kept <= 32
    assert without_times(prove(subject, checkpoint=checkpoint)) == without_times(prove(subject))


def test_two_workers_find_what_one_finds():
    subject = Subject(descriptor(T.logarithm), **SMALL)

    assert without_times(prove(subject, workers=2)) == without_times(prove(subject))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not JSON"),
        ('{"format": "mpsref-checkpoint", "version": 2, "of": {}, "wall_seconds": 0, "blocks": [1]}', "blocks[0]"),
        (
            '{"format": "mpsref-checkpoint", "version": 2, "of": {}, "wall_seconds": 0, "blocks": []}',
            "the checkpoint of another proof (neuron differs): delete it, or name another --checkpoint",
        ),
    ],
)
def test_a_checkpoint_of_something_else_is_refused(tmp_path, capsys, text, words):
    checkpoint = tmp_path / "checkpoint"
    checkpoint.write_text(text)

    assert main(["prove", "--neuron", "tanH", "--format", "unorm8", "--checkpoint", str(checkpoint)]) == 2
    err = capsys.readouterr().err
    assert words in err
    assert err.startswith(f"mpsref: {checkpoint}")
    assert checkpoint.read_text() == text


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A subject and the checkpoint of its four blocks."""
    subject = Subject(descriptor(T.reLU), part=(1, 1 << 14), sample=40, block=1 << 17)
    prove(subject, checkpoint=tmp_path_factory.mktemp("finished") / "checkpoint")
    return subject, tmp_path_factory.getbasetemp() / "finished0" / "checkpoint"


def nothing_judged(tally):
    tally.update({name: 0 for name in tally if name.startswith("judged_")})


def swap(blocks):
    blocks[0]["start"], blocks[2]["start"] = blocks[2]["start"], blocks[0]["start"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d["blocks"][0]["tally"].update(inputs=0), "inputs cannot be of 131072 inputs from 0x0 on"),
        (lambda d: d["blocks"][0]["tally"].update(not_finite=1), "not_finite"),
        (lambda d: d["blocks"][0]["tally"].update(nan_results=1 << 20), "nan_results"),
        (
            lambda d: nothing_judged(d["blocks"][0]["tally"]),
            "judged",
        ),
        (lambda d: d["blocks"][0]["tally"].update(judged_sample=1 << 20), "judged"),
        (lambda d: d["blocks"][0]["tally"].update(wrong=1 << 20), "wrong"),
        (lambda d: d["blocks"][0]["tally"].update(wrong=1), "examples"),
        (lambda d: d["blocks"][0]["tally"].update(digests=["0" * 64]), "sha256 is not that of its tally"),
        (lambda d: d["blocks"][0]["tally"].update(nan_results=3), "sha256 is not that of its tally"),
        (lambda d: swap(d["blocks"]), "sha256 is not that of its tally"),
        (lambda d: d["blocks"][0].update(start=1), "blocks[0]: does not belong to this proof"),
        (lambda d: d["blocks"].append(d["blocks"][0]), "is a duplicate"),
        (lambda d: d["of"]["software"].update(sources="0" * 64), "another proof (software differs)"),
        (lambda d: d["of"].update(judge="0" * 64), "another proof (judge differs)"),
    ],
)
def test_a_checkpoint_is_held_to_its_blocks(tmp_path, finished, change, words):
    subject, right = finished
    document = json.loads(right.read_text())
    change(document)
    checkpoint = tmp_path / "checkpoint"
    checkpoint.write_text(json.dumps(document))

    with pytest.raises(mps.FileFormatError, match=re.escape(words)) as raised:
        prove(subject, checkpoint=checkpoint)
    assert str(raised.value).startswith(str(checkpoint))
    assert prove(subject, checkpoint=right)["wrong"] == 0


@pytest.mark.parametrize("channel_format", ["unorm8", "float16", "float32"])
def test_the_tally_of_a_block_is_held_possible(channel_format):
    # Where infinities and NaN are, and where none are.
    stored = FORMATS[mps.MPSImageFeatureChannelFormat[channel_format]]
    bits = 8 * stored.dtype.itemsize
    parts = [1] if bits == 8 else [1, 1 << 7, 1 << 8]
    for i in parts:
        part = (i, 1 if bits == 8 else 1 << 8)
        subject = Subject(descriptor(T.none), stored.channel_format, part=part, sample=99, block=1 << max(8, bits - 12))
        for block in subject.blocks()[:4] + subject.blocks()[-4:]:
            check_tally(run.sweep(block), block)


# ---- bad usage, and flint ----


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--neuron", "tanh"], "invalid choice: 'tanh'"),
        (["--neuron", "tanH", "--c", "1"], "c is no parameter of tanH"),
        (["--neuron", "tanH", "--a", "1e39"], "a is 1e+39: give a number that is finite as a float32"),
        (["--neuron", "tanH", "--data", "1"], "data is only for pReLU"),
        (["--a", "1"], "only with --neuron"),
        (["--neuron", "tanH", "--part", "1"], "give I/N, such as 1/16"),
        (["--neuron", "tanH", "--part", "3/2"], "part is 3/2"),
        (["--neuron", "tanH", "--part", "0/2"], "part is 0/2"),
        (["--neuron", "tanH", "--part", "1/257", "--format", "unorm8"], "part is 1/257"),
        (["--neuron", "tanH", "--sample", "-1"], "sample is -1"),
        (["--neuron", "tanH", "--seed", "-1"], "seed is -1"),
        (["--neuron", "tanH", "--workers", "0"], "--workers is 0"),
        (["--neuron", "tanH", "--out", "."], "--out .: is a folder"),
        (["--out", __file__], "without --neuron, name a folder"),
        (["--neuron", "tanH", "--out", "no/such/folder/c.json"], "cannot be written"),
    ],
)
def test_bad_usage_ends_with_2_before_anything_is_proved(capsys, monkeypatch, arguments, words):
    monkeypatch.setattr(run, "sweep", lambda _: pytest.fail("it began"))
    assert main(["prove", "--workers", "1", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert words in captured.err
    assert captured.err.count("\n") == 1


def test_without_flint_one_error_says_what_to_install(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "flint", None)

    assert main(["prove", "--neuron", "tanH", "--format", "unorm8"]) == 2
    assert capsys.readouterr().err == ("mpsref: the judge needs python-flint: pip install 'mpsref[proof]'\n")
    with pytest.raises(ImportError):
        prove(Subject(descriptor(T.tanH), Format.unorm8))


def test_flint_is_not_imported_before_something_is_judged():
    code = "import sys, mpsref.cli, mpsref.proof; print('flint' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"False\n"


# ---- the page ----


def test_the_commands_of_the_page_are_understood():
    text = (ROOT / "docs" / "proof.md").read_text()
    commands = re.findall(r"^(?:\$ )?mpsref (prove .*)$", text, re.MULTILINE)

    assert len(commands) >= 3
    for command in commands:
        assert parser().parse_args(command.split()).command


def test_the_page_has_a_row_for_each_certificate(tmp_path):
    rows = runpy.run_path(str(ROOT / "docs" / "generate.py"))["certificate_rows"]
    proved(tmp_path, "--neuron", "tanH", "--a", "0.1", "--format", "unorm8")

    (row,) = rows(tmp_path)[2:]
    assert row.startswith("| tanH | a = 0.1, b = 1 | unorm8 | 2 x 256 | 0 | 0 | 512 | 0 | ")
