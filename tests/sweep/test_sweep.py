"""Sweeps: what they find, that shards add up to the same in any order, and that nothing is lost by a kill."""

from __future__ import annotations

import json
import os
import random
import re
import runpy
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache, reduce
from itertools import pairwise
from operator import add
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mpsref as mps
from mpsref.cli import main, parser
from mpsref.documents import schema, validate
from mpsref.storage import FORMATS
from mpsref.sweep import Mismatch, Summary, SweepReport, merge, run, sweep
from mpsref.sweep.summary import SHOWN, gaps, summary_of
from processes import killed_at

ROOT = Path(__file__).parents[2]
T, Format = mps.MPSCNNNeuronType, mps.MPSImageFeatureChannelFormat
ABSOLUTE, RELU = mps.MPSNNNeuronDescriptor(T.absolute), mps.MPSNNNeuronDescriptor(T.reLU)
HALF = FORMATS[Format.float16]


@pytest.fixture(scope="module")
def modules_that_end(tmp_path_factory):
    folder = tmp_path_factory.mktemp("modules")
    (folder / "exits.py").write_text("import sys\nsys.exit(0)\n")
    (folder / "ends.py").write_text("import os\nos._exit(0)\n")
    (folder / "odd.py").write_text(
        "def __getattr__(name):\n    raise AttributeError if '__' in name else SystemExit(0)\n"
    )
    return folder


@pytest.fixture(autouse=True)
def importable(monkeypatch, modules_that_end):
    monkeypatch.syspath_prepend(str(modules_that_end))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "tests")]))


def with_bits(function, changes):
    """The same function, but for some inputs another result; all are bit patterns."""

    def changed(x):
        y, bits = function(x), x.view(f"u{x.itemsize}")
        for at, result in changes.items():
            y.view(bits.dtype)[bits == at] = result
        return y

    return changed


# ---- what is found ----


def test_every_pattern_is_tried_once_and_in_all_formats():
    for channel_format in (Format.unorm8, Format.unorm16, Format.float16):
        seen = []
        report = sweep(lambda x, seen=seen: seen.append(x.copy()) or x, mps.MPSNNNeuronDescriptor(T.none), format=channel_format)  # fmt: skip  # noqa: E501

        bits = np.concatenate(seen).view(FORMATS[channel_format].bits_dtype)
        assert np.array_equal(bits, np.arange(bits.size))
        assert report.summary.elements == bits.size == 1 << (8 * bits.itemsize)


@pytest.mark.parametrize("stride", [1, 2, 7, 64, 1000])
def test_a_stride_takes_one_of_so_many_patterns_and_no_digit_always(stride):
    seen = []
    report = sweep(lambda x: seen.append(x.copy()) or np.abs(x), ABSOLUTE, format="float16", stride=stride)

    bits = np.concatenate(seen).view(np.uint16).astype(int)
    assert report.passed
    assert report.summary.elements == bits.size == 65_536 // stride
    assert np.array_equal(bits // stride, np.arange(bits.size))
    assert len(np.unique(bits % stride)) > min(stride, bits.size) / 2
    if stride > 1:
        assert report.verdict.endswith(f"results are exact; one of every {stride:,} bit patterns")


@pytest.mark.parametrize(
    ("function", "verdict"),
    [(np.abs, "PASS: 1 result is exact;"), (lambda x: x + 1, "FAIL: 1 of 1 result is not exact;")],
)
def test_one_result_is_counted_in_the_singular(function, verdict):
    assert sweep(function, ABSOLUTE, format="float16", stride=65_536).verdict.startswith(verdict)


def test_parts_of_a_sweep_with_a_stride_add_up_and_are_no_others(tmp_path):
    def negative(x):
        return -np.abs(x)

    def part(i, n, **given):
        return sweep(negative, ABSOLUTE, format="float16", shard=(i, n), **{"stride": 16} | given)

    whole = part(1, 1)
    assert merge([part(i, 3) for i in (2, 3, 1)]) == whole
    whole.write(tmp_path / "r.json")
    assert SweepReport.read(tmp_path / "r.json") == whole
    assert all(m.x // 16 < 4096 and m.x % 16 in range(16) for m in whole.summary.first)
    with pytest.raises(mps.ParameterError, match="reports of different sweeps: stride is 16 and 1"):
        merge([part(1, 2), part(2, 2, stride=1)])
    document = json.loads((tmp_path / "r.json").read_text())
    document["first"][0]["x"] = hex(int(document["first"][0]["x"], 16) ^ 1)
    (tmp_path / "r.json").write_text(json.dumps(document))
    with pytest.raises(mps.FileFormatError, match="first: has inputs outside ranges"):
        SweepReport.read(tmp_path / "r.json")


def test_a_fair_part_of_a_gradient_on_the_command_line(capsys):
    command = [
        "sweep",
        "--neuron",
        "reLU",
        "--implementation",
        "implementations:relu_gradient",
        "--direction",
        "gradient",
    ]

    assert main([*command, "--stride", "65536"]) == 0
    out = capsys.readouterr().out
    assert "inputs          65,536 of 65,536, one of every 65,536 bit patterns\n" in out
    assert main([*command, "--stride", "0"]) == 2
    assert "stride is 0: give 1 to 4294967296" in capsys.readouterr().err


def test_an_implementation_may_keep_its_arguments():
    seen = []
    sweep(lambda x: seen.append(x) or np.abs(x), ABSOLUTE, shard=(100, 4096), block=1 << 19)

    start = 99 << 20
    assert len(seen) > 2
    assert np.array_equal(np.concatenate(seen).view(np.uint32), np.arange(start, start + (1 << 20)))


def test_what_is_wrong_is_counted_by_distance_and_listed():
    one, inf, nan, zero = 0x3C00, 0x7C00, 0x7E00, 0
    changes = {
        one: one + 1,  # 1 ULP
        one + 1: one + 4,  # 3
        one + 2: one + 66,  # 64
        one + 3: one + 68,  # 65
        one + 4: nan,
        nan: one,
        one + 5: inf,
        inf: inf | 0x8000,
        zero: 0x8000,
    }
    report = sweep(with_bits(np.abs, changes), ABSOLUTE, format=Format.float16)
    found = report.summary

    assert found.histogram == {0: 65_536 - 8, 1: 1, 4: 1, 64: 1, 128: 1}
    assert (found.nan_disagreements, found.infinity_disagreements) == (2, 2)
    assert (found.zero_signs, found.largest, found.beyond, found.exact) == (1, 65, 8, 65_528)
    assert found.worst == (
        Mismatch(one + 3, one + 68, one + 3, 65),
        Mismatch(one + 2, one + 66, one + 2, 64),
        Mismatch(one + 1, one + 4, one + 1, 3),
        Mismatch(one, one + 1, one, 1),
    )
    assert found.not_comparable == (
        Mismatch(one + 4, nan, one + 4),
        Mismatch(one + 5, inf, one + 5),
        Mismatch(inf, inf | 0x8000, inf),
        Mismatch(nan, one, nan),
    )
    assert [m.x for m in found.first] == [*range(one, one + 6), inf, nan]
    assert report.verdict == "FAIL: 8 of 65,536 results are not exact"
    with pytest.raises(mps.VerificationError, match="8 of 65,536") as raised:
        report.check()
    assert raised.value.report is report


def test_the_bounds_decide_what_passes():
    changed = with_bits(np.abs, {0x3C00: 0x3C02})

    assert not sweep(changed, ABSOLUTE, format=Format.float16, ulp=1).passed
    report = sweep(changed, ABSOLUTE, format=Format.float16, ulp=2)
    report.check()
    assert report.verdict == "PASS: all 65,536 results are within 2 ULP"
    assert "3c00" not in report.text()
    assert report.summary.worst == (Mismatch(0x3C00, 0x3C02, 0x3C00, 2),)


def test_any_nan_is_as_good_as_another():
    report = sweep(with_bits(np.abs, {0x7E00: 0xFFFF}), ABSOLUTE, format=Format.float16)

    assert report.passed


def test_unorm_codes_have_neither_nan_nor_infinity_nor_a_negative_zero():
    report = sweep(lambda x: np.where(x < 2, 255 - x, x), ABSOLUTE, format=Format.unorm8)

    assert report.summary.histogram == {0: 254, 256: 2}
    assert report.summary.largest == 255


def test_a_gradient_is_asked_for_with_an_upstream_of_one():
    from implementations import relu_gradient  # noqa: PLC0415

    report = sweep(relu_gradient, RELU, direction="gradient", format=Format.float16)

    assert report.passed
    assert report.subject.direction == "gradient"
    assert not sweep(lambda x, upstream: x * 0 + 1, RELU, direction="gradient", format=Format.float16).passed


def test_parameters_reach_the_reference_and_the_report(tmp_path):
    d = mps.MPSNNNeuronDescriptor(T.pReLU, data=[0.1])
    report = sweep(lambda x: np.where(x >= 0, x, np.float32(0.1) * x), d, shard=(192, 256))

    report.write(tmp_path / "r.json")
    assert json.loads((tmp_path / "r.json").read_text())["parameters"] == {"data": float(np.float32(0.1)).hex()}
    assert "pReLU, data = 0.1, forward, float32" in report.text()
    assert report.passed
    assert SweepReport.read(tmp_path / "r.json") == report


def test_an_implementation_may_write_over_its_argument():
    assert sweep("implementations:in_place", ABSOLUTE, shard=(3, 4096)).passed


def test_what_has_an_array_interface_may_be_returned():
    class Box:
        def __init__(self, array):
            self._array = array

        def __array__(self, dtype=None, copy=None):
            return self._array

    assert sweep(lambda x: Box(np.abs(x)), ABSOLUTE, format=Format.float16).passed


# ---- shards add up ----


@cache
def noisy():
    """Halves, and results that are wrong in all ways."""
    rng = np.random.default_rng(4)
    x = HALF.patterns()
    want = np.abs(x)
    got = want.copy()
    some = rng.choice(x.size, 20_000, replace=False)
    got.view(np.uint16)[some] += rng.choice([1, 1, 1, 2, 3, 30, 0x8000], some.size).astype(np.uint16)
    got[some[:300]], got[some[300:600]], got[some[600:900]] = np.nan, np.inf, -0.0
    return x, got, want


def part(start, stop, ulp=1):
    x, got, want = (array[start:stop] for array in noisy())
    return summary_of(x, got, want, start, HALF, ulp)


def tied(start, stop):
    """Far more that are one ULP off than are listed, and no two parts made by the same."""
    want = np.abs(HALF.patterns())[start:stop]
    bits = want.view(np.uint16)
    found = summary_of(want, (bits + (bits % 3 == 0)).astype(np.uint16).view(np.float16), want, start, HALF, 0)
    return replace(found, made_by=frozenset([str(start)]))


@pytest.mark.parametrize("make", [part, tied])
@given(st.lists(st.integers(1, 65_535), unique=True, max_size=12), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_summaries_add_up_to_the_whole_in_any_order_and_grouping(make, cuts, chance: random.Random):
    edges = [0, *sorted(cuts), 65_536]
    parts = [make(*edge) for edge in pairwise(edges)]
    whole = make(0, 65_536)
    if make is tied:
        assert [m.ulp for m in whole.worst] == [1] * SHOWN
        whole = replace(whole, made_by=frozenset(map(str, edges[:-1])))

    chance.shuffle(parts)
    assert reduce(add, parts) == whole
    while len(parts) > 1:
        i = chance.randrange(len(parts) - 1)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    assert parts[0] == whole == whole + Summary() == Summary() + whole


def test_the_whole_is_what_plain_counting_finds():
    _, got, want = noisy()
    found = part(0, 65_536, ulp=2)
    nan, inf = np.isnan(got) != np.isnan(want), ~np.isnan(got) & ~np.isnan(want) & (np.isinf(got) != np.isinf(want))
    ordered = [int(v) if v < 0x8000 else 0x8000 - int(v) for array in (got, want) for v in array.view(np.uint16)]
    distances = [
        abs(a - b)
        for a, b, skip in zip(ordered[:65_536], ordered[65_536:], np.isnan(got) | np.isnan(want) | inf, strict=True)
        if not skip
    ]

    assert found.nan_disagreements == np.count_nonzero(nan) > 0
    assert found.infinity_disagreements == np.count_nonzero(inf) > 0
    both_nan = np.count_nonzero(np.isnan(got) & np.isnan(want))
    assert found.exact == distances.count(0) + both_nan
    for limit, count in found.histogram.items():
        if limit:
            assert count == sum(limit // 2 < d <= limit for d in distances)
    assert found.largest == max(distances)
    assert found.beyond == sum(d > 2 for d in distances) + np.count_nonzero(nan | inf)
    assert [m.ulp for m in found.worst] == sorted(distances, reverse=True)[:SHOWN]
    assert sum(found.histogram.values()) + np.count_nonzero(nan | inf) == 65_536


def test_what_is_there_twice_is_refused():
    with pytest.raises(mps.ParameterError, match=r"0x64 to 0xc7 are there twice"):
        part(0, 200) + part(100, 300)


@pytest.mark.parametrize(
    ("ranges", "left"),
    [
        ((), [(4, 20)]),
        (((4, 20),), []),
        (((4, 6), (10, 12)), [(6, 10), (12, 20)]),
        (((5, 20),), [(4, 5)]),
    ],
)
def test_gaps_are_what_is_left(ranges, left):
    assert gaps(range(4, 20), ranges) == left


def test_shards_merge_to_the_report_of_all_on_the_command_line(tmp_path, capsys):
    command = ["sweep", "--neuron", "softSign", "--implementation", "implementations:absolute", "--format", "float16"]
    whole, merged = tmp_path / "whole.json", tmp_path / "merged.json"
    files = [str(tmp_path / f"{i}.json") for i in (1, 2)]
    assert main([*command, "--json", str(whole)]) == 1
    out = capsys.readouterr().out
    for i, file in enumerate(files):
        assert main([*command, "--shard", f"{i + 1}/2", "--json", file]) == 1
    capsys.readouterr()

    assert main(["merge", files[1], files[0], "--json", str(merged)]) == 1
    assert capsys.readouterr().out == out
    assert merged.read_bytes() == whole.read_bytes()
    jsonschema.Draft202012Validator(schema("sweep")).validate(json.loads(whole.read_text()))

    assert main(["merge", files[0], str(merged)]) == 2
    assert capsys.readouterr().err == "mpsref: the inputs 0x0 to 0x7fff are there twice\n"
    sweep("implementations:absolute", mps.MPSNNNeuronDescriptor(T.softSign), format=Format.unorm8).write(files[0])
    assert main(["merge", *files]) == 2
    assert "reports of different sweeps: storage is unorm8 and float16" in capsys.readouterr().err


def test_a_report_that_does_not_agree_with_itself_is_refused(tmp_path):
    path = tmp_path / "r.json"
    sweep(np.abs, ABSOLUTE, format=Format.float16).write(path)
    document = json.loads(path.read_text())

    for change, words in (
        ({"histogram": {"0": 65_535}}, "does not add up"),
        ({"ranges": [[0, 10], [5, 20]]}, "there twice"),
        ({"ranges": [[10, 10]]}, "has no inputs"),
        ({"ranges": [[65_536, 131_072]]}, "has only 65536 inputs"),
        ({"parameters": {"a": "0x1p+0"}}, "a is no parameter of absolute"),
        ({"beyond": -1}, "beyond"),
    ):
        path.write_text(json.dumps(document | change))
        with pytest.raises(mps.FileFormatError, match=words):
            SweepReport.read(path)


@pytest.fixture(scope="module")
def wrong_in_all_ways():
    """A report with something in every field."""
    one, nan = 0x3C00, 0x7E00
    changes = {one + i: one + i + 2**i for i in range(9)} | {one + 20: nan, 0x7C00: 0xFC00, 0: 0x8000}
    return sweep(with_bits(np.abs, changes), ABSOLUTE, format=Format.float16, ulp=4).to_json()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d.update(elements=65_535), "elements"),
        (lambda d: d.update(exact=1), "exact"),
        (lambda d: d.update(passed=True), "passed"),
        (lambda d: d.update(verdict="PASS: all 65,536 results are within 4 ULP"), "verdict"),
        (lambda d: d.update(beyond=0, passed=True), "beyond"),
        (lambda d: d.update(beyond=7), "beyond"),
        (lambda d: d.update(beyond=9), "beyond"),
        (lambda d: d.update(ulp=3), "beyond"),
        (lambda d: d.update(ulp=256), "beyond"),
        (lambda d: d.update(largest=4), "largest"),
        (lambda d: d.update(largest=0), "largest"),
        (lambda d: d.update(largest=257), "largest"),
        (lambda d: d.update(nan_disagreements=0, infinity_disagreements=1), "add up"),
        (lambda d: d.update(zero_signs=65_536), "zero_signs"),
        (lambda d: d["histogram"].update({"3": 0}), "histogram"),
        (lambda d: d["histogram"].update({"512": 0}), "histogram"),
        (lambda d: d.update(made_by=[]), "made_by"),
        (lambda d: d["worst"].pop(), "worst"),
        (lambda d: d["worst"].reverse(), "worst"),
        (lambda d: d["worst"][0].update(got="0x7e00"), "worst"),
        (lambda d: d["not_comparable"].pop(), "not_comparable"),
        (lambda d: d["not_comparable"][0].update(got="0x0"), "not_comparable"),
        (lambda d: d["first"].pop(), "first"),
        (lambda d: d["first"].reverse(), "first"),
        (lambda d: d["first"].__setitem__(0, d["worst"][-1]), "first"),
        (lambda d: d["first"][0].update(x="0xffffffff"), "first"),
        (lambda d: d.update(storage="unorm16"), "none"),
    ],
)
def test_a_report_that_contradicts_itself_is_refused(tmp_path, capsys, wrong_in_all_ways, change, words):
    path, document = tmp_path / "r.json", json.loads(json.dumps(wrong_in_all_ways))
    path.write_text(json.dumps(document))
    assert SweepReport.read(path).to_json() == document

    change(document)
    path.write_text(json.dumps(document))
    assert main(["merge", str(path)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert words in captured.err


def test_reports_of_no_inputs_have_no_verdict():
    with pytest.raises(mps.ParameterError, match="of no inputs"):
        merge([SweepReport(sweep(np.abs, ABSOLUTE, format=Format.unorm8).subject, Summary())])


def test_a_merged_report_replaces_none_of_its_parts(tmp_path, capsys):
    path = tmp_path / "r.json"
    sweep(np.abs, ABSOLUTE, format=Format.float16).write(path)
    before = path.read_bytes()

    assert main(["merge", str(path), "--json", str(tmp_path / "." / "r.json")]) == 2
    assert "is read: choose another file" in capsys.readouterr().err
    assert path.read_bytes() == before


def test_the_text_is_aligned_and_says_what_is_missing():
    report = sweep(with_bits(np.abs, {0x3C00: 0x3C01, 0x3C01: 0x7E00}), ABSOLUTE, format=Format.float16, shard=(1, 2))

    assert report.text().splitlines()[1:] == [
        "neuron          absolute, forward, float16",
        "inputs          32,768 of 65,536",
        "bounds          0 ULP",
        "",
        "ULP  elements      share",
        "0      32,766  99.9939 %",
        "1           1  99.9969 %",
        "NaN         1",
        "",
        "the worst:",
        "  x            got            want",
        "  0x3c00  1.0  0x3c01  1.001  0x3c00  1.0  1 ULP",
        "",
        "NaN and infinities that disagree, the first:",
        "  x              got          want",
        "  0x3c01  1.001  0x7e00  nan  0x3c01  1.001",
        "",
        "FAIL: 2 of 32,768 results are not exact; there are 65,536 inputs",
    ]


# ---- who works ----

PIECES = {"shard": (100, 1024), "block": 1 << 19}  # 2^22 inputs in 8 blocks


def test_two_workers_and_any_executor_find_what_one_process_finds():
    alone = sweep("implementations:absolute", ABSOLUTE, **PIECES)

    assert sweep("implementations:absolute", ABSOLUTE, workers=2, **PIECES) == alone
    with ThreadPoolExecutor(2) as executor:
        assert sweep("implementations:absolute", ABSOLUTE, executor=executor, **PIECES) == alone
        assert executor.submit(int).result() == 0  # it is not shut down


def test_workers_work(tmp_path, monkeypatch):
    monkeypatch.setenv("MPSREF_TEST_LOG", str(tmp_path / "log"))

    sweep("implementations:slow", ABSOLUTE, workers=2, **PIECES)

    lines = (tmp_path / "log").read_text().splitlines()
    assert str(os.getpid()) not in {line.split()[0] for line in lines}
    assert len({line.split()[1] for line in lines}) == len(lines) == 16


def test_dask_works_too():
    distributed = pytest.importorskip("distributed", reason="dask and distributed are not installed")
    code = (
        "import sys, dask, mpsref as mps\n"
        "from distributed import Client, LocalCluster\n"
        "from mpsref.sweep import sweep\n"
        "if __name__ == '__main__':\n"
        "    d = mps.MPSNNNeuronDescriptor(mps.MPSCNNNeuronType.absolute)\n"
        "    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, "
        "Client(cluster) as client, client.get_executor() as executor:\n"
        "        for f in ('implementations:absolute', lambda x: abs(x)):\n"
        f"            report = sweep(f, d, executor=executor, **{PIECES!r})\n"
        "            print(report.verdict)\n"
        "        try:\n"
        f"            sweep('implementations:raises', d, executor=executor, **{PIECES!r})\n"
        "        except mps.ImplementationError as error:\n"
        "            print(error)\n"
    )
    assert distributed.__version__

    # In a process of its own: its threads and sockets are not for a test run in which a warning is an error.
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)

    right = "PASS: 4,194,304 results are exact; there are 4,294,967,296 inputs"
    assert done.stdout.splitlines() == [right, right, "implementations:raises: raised RuntimeError: no way"]


# ---- interruptions ----


def interrupting(count):
    def progress(done, _of_all):
        if done >= count:
            raise KeyboardInterrupt

    return progress


def test_a_sweep_goes_on_where_it_was_interrupted(tmp_path, monkeypatch):
    checkpoint = tmp_path / "checkpoint"
    monkeypatch.setattr(run, "SECONDS", 0.0)
    tried = []
    function = with_bits(np.abs, {0x19000000 + 5: 0})  # in the first block

    def noting(x):
        tried.append(x.size)
        return function(x)

    with pytest.raises(KeyboardInterrupt):
        sweep(noting, ABSOLUTE, checkpoint=checkpoint, progress=interrupting(3 << 19), **PIECES)
    assert sum(tried) == SweepReport.read(checkpoint).summary.elements == 3 << 19
    tried.clear()
    resumed = sweep(noting, ABSOLUTE, checkpoint=checkpoint, **PIECES)

    assert sum(tried) == 5 << 19
    assert resumed == sweep(noting, ABSOLUTE, **PIECES) == SweepReport.read(checkpoint)


def test_ctrl_c_ends_with_130_and_the_same_command_goes_on(tmp_path, capsys, monkeypatch):
    command = ["sweep", "--neuron", "absolute", "--implementation", "implementations:absolute", "--shard", "7/1024"]
    out = tmp_path / "r.json"
    right = run.in_blocks

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "in_blocks", interrupted)
    assert main([*command, "--json", str(out)]) == 130
    assert capsys.readouterr().err == "mpsref: interrupted: run the same command again to go on\n"
    assert list(tmp_path.iterdir()) == []
    assert main(command) == 130
    assert "nothing is kept without --json or --checkpoint" in capsys.readouterr().err

    monkeypatch.setattr(run, "in_blocks", right)
    assert main([*command, "--json", str(out)]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["r.json"]


def test_a_signal_while_a_worker_begins_is_quiet():
    code = (
        "import os, signal, sys; from multiprocessing import util; from mpsref.__main__ import main\n"
        "spawn = util.spawnv_passfds\n"
        "def spawn_and_meet(*rest):\n"
        "    process = spawn(*rest)\n"
        "    if 'spawn_main' in str(rest): os.kill(os.getpid(), signal.SIGTERM)\n"
        "    return process\n"
        "util.spawnv_passfds = spawn_and_meet\n"
        "sys.exit(main())"
    )
    command = ["sweep", "--neuron", "absolute", "--implementation", "implementations:absolute", "--format", "unorm8"]
    done = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (143, "")
    assert done.stderr == "mpsref: interrupted: nothing is kept without --json or --checkpoint\n"


def test_a_killed_sweep_goes_on(tmp_path, monkeypatch):
    monkeypatch.setenv("MPSREF_TEST_LOG", str(tmp_path / "log"))
    checkpoint = tmp_path / "checkpoint"
    code = (
        "import sys, mpsref as mps; from mpsref.sweep import run, sweep\n"
        "run.SECONDS = 0\n"
        "d = mps.MPSNNNeuronDescriptor(mps.MPSCNNNeuronType.absolute)\n"
        f"sweep('implementations:slow', d, workers=2, checkpoint=sys.argv[1], **{PIECES!r}, "
        "progress=lambda *n: print(*n, flush=True))"
    )
    killed_at(2 << 19, code, checkpoint)

    assert SweepReport.read(checkpoint).summary.elements >= 2 << 19
    resumed = sweep("implementations:slow", ABSOLUTE, checkpoint=checkpoint, **PIECES)
    assert resumed == sweep("implementations:slow", ABSOLUTE, **PIECES)


def test_the_checkpoint_of_another_sweep_is_refused(tmp_path):
    checkpoint = tmp_path / "checkpoint"
    sweep("implementations:absolute", ABSOLUTE, format=Format.float16, shard=(2, 4), checkpoint=checkpoint)
    before = checkpoint.read_bytes()
    other = {"format": Format.float16, "checkpoint": checkpoint}

    for name, call in (
        ("implementation", lambda: sweep(np.abs, ABSOLUTE, shard=(2, 4), **other)),
        ("neuron", lambda: sweep("implementations:absolute", RELU, shard=(2, 4), **other)),
        ("ulp", lambda: sweep("implementations:absolute", ABSOLUTE, shard=(2, 4), ulp=1, **other)),
        ("shard", lambda: sweep("implementations:absolute", ABSOLUTE, shard=(3, 4), **other)),
        ("shard", lambda: sweep("implementations:absolute", ABSOLUTE, shard=(2, 8), **other)),
    ):
        with pytest.raises(mps.FileFormatError, match=rf"another sweep \({name} differs\)"):
            call()
    assert checkpoint.read_bytes() == before

    document = json.loads(before)
    document["made_by"][0]["software"]["sources"] = "0" * 64
    checkpoint.write_text(json.dumps(document))
    with pytest.raises(mps.FileFormatError, match=r"another sweep \(sources differs\)"):
        sweep("implementations:absolute", ABSOLUTE, shard=(2, 4), **other)
    checkpoint.write_bytes(before)
    assert sweep("implementations:absolute", ABSOLUTE, **other).summary.elements == 65_536  # more is no other


# ---- bad usage ----


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--implementation", "implementations:raises"], "implementations:raises: raised RuntimeError: no way"),
        (["--implementation", "exits:f"], "exits:f: exits cannot be imported: SystemExit: 0"),
        (["--implementation", "ends:f"], "ends:f: the process that ran it ended with exit status 0"),
        (["--implementation", "implementations:absolute", "--ulp", "-1"], "ulp is -1: give 0 to"),
        (["--implementation", "implementations:absolute", "--shard", "3/2"], "shard is 3/2"),
        (["--implementation", "implementations:absolute", "--workers", "0"], "workers is 0"),
        (["--implementation", "implementations:absolute", "--a", "1"], "a is no parameter of absolute"),
        (["--implementation", "implementations:absolute", "--json", "."], "--json .: is a folder"),
        (["--implementation", "implementations:absolute", "--json", "no/such/r.json"], "cannot be written"),
        ([], "--implementation"),
    ],
)
def test_bad_usage_ends_with_2_and_one_line(tmp_path, capsys, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    assert main(["sweep", "--neuron", "absolute", "--format", "float16", "--checkpoint", "kept", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert words in captured.err
    assert captured.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("implementation", "words"),
    [
        ("implementations", "give MODULE:FUNCTION"),
        ("no.such:f", "no.such:f: no.such cannot be imported: ModuleNotFoundError: No module"),
        ("exits:f", "exits:f: exits cannot be imported: SystemExit: 0"),
        ("implementations:f", "f is not in implementations"),
        ("odd:f", "odd:f: f cannot be read: SystemExit: 0"),
        ("implementations:NO_FUNCTION", "not a function, but of type int"),
        ("implementations:raises", "implementations:raises: raised RuntimeError: no way"),
        ("implementations:raises_what_it_cannot_say", "raised UnsayableError: its message cannot be shown"),
        ("implementations:exits", "implementations:exits: raised SystemExit: 0"),
        ("implementations:widens", r"returned float64[65536] for float16[65536]: it must be like"),
        ("implementations:flattens", "returned float16[65536, 1] for float16[65536]"),
        ("implementations:says_nothing", "returned None for float16"),
        ("implementations:relu_gradient", "raised TypeError"),
    ],
)
def test_a_bad_implementation_is_an_error_that_names_it(implementation, words):
    with pytest.raises(mps.ImplementationError, match=re.escape(words)):
        sweep(implementation, ABSOLUTE, format=Format.float16)


@pytest.mark.parametrize(
    ("implementation", "words"),
    [
        ("implementations:killed", "the process that ran it was ended by SIGKILL"),
        ("implementations:interrupts", "raised KeyboardInterrupt"),
    ],
)
def test_an_isolated_implementation_ends_only_its_own_process(tmp_path, implementation, words):
    with pytest.raises(mps.ImplementationError, match=words):
        sweep(implementation, ABSOLUTE, format=Format.float16, isolated=True, checkpoint=tmp_path / "kept")
    assert list(tmp_path.iterdir()) == []


def test_a_report_is_not_written_over_the_implementation(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "package").mkdir()
    files = [tmp_path / "package" / "__init__.py", tmp_path / "package" / "inner.py"]
    for file in files:
        file.write_text("raise SystemExit")
    (tmp_path / "link").symlink_to(files[1])

    for output in ("package/inner.py", "package/__init__.py", "link"):
        for option in ("--json", "--checkpoint"):
            command = ["sweep", "--neuron", "absolute", "--implementation", "package.inner:f", option, output]
            assert main(command) == 2
            assert capsys.readouterr().err == f"mpsref: {option} {output}: is read: choose another file\n"
    assert [file.read_text() for file in files] == ["raise SystemExit"] * 2

    # Folders without an __init__, one in the other.
    (tmp_path / "outer" / "middle").mkdir(parents=True)
    (tmp_path / "outer" / "middle" / "inner.py").write_text("raise SystemExit")
    command = ["sweep", "--neuron", "absolute", "--implementation", "outer.middle.inner:f"]
    assert main([*command, "--json", "outer/middle/inner.py"]) == 2
    assert capsys.readouterr().err.endswith("inner.py: is read: choose another file\n")


def test_what_an_implementation_prints_is_not_in_the_report():
    command = ["sweep", "--neuron", "absolute", "--implementation", "implementations:prints", "--format", "unorm8"]
    done = subprocess.run(
        [sys.executable, "-m", "mpsref", *command, "--json", "-"], capture_output=True, text=True, check=True
    )

    assert json.loads(done.stdout)["passed"]
    assert done.stderr.startswith("look\nimplementation  implementations:prints\n")


def test_a_worker_says_the_same_of_a_bad_implementation(capsys):
    shard = ["--shard", "1/1024", "--workers", "2"]

    # One block is done here, two are not: 2^22 inputs are one block only.
    assert main(["sweep", "--neuron", "absolute", "--implementation", "implementations:raises", *shard]) == 2
    said = capsys.readouterr().err
    assert said.startswith("mpsref: implementations:raises: raised RuntimeError: no way (in /")
    assert re.search(r"implementations\.py, line \d+, raises: raise RuntimeError\(.*\)\)\n$", said)
    with pytest.raises(mps.ImplementationError, match="raised RuntimeError: no way"):
        sweep("implementations:raises", ABSOLUTE, workers=2, **PIECES)


def test_what_cannot_be_sent_to_a_worker_is_named():
    with pytest.raises(mps.ImplementationError, match=r"<lambda>: cannot be sent to another process"):
        sweep(lambda x: x, ABSOLUTE, workers=2)
    for bad, words in ((3, "give a function"), (None, "give a function")):
        with pytest.raises(mps.ImplementationError, match=words):
            sweep(bad, ABSOLUTE)
    with pytest.raises(mps.ParameterError, match="direction is 'backward'"):
        sweep(np.abs, ABSOLUTE, direction="backward")
    with pytest.raises(mps.ParameterError, match="2 slopes: a sweep is for one"):
        sweep(np.abs, mps.MPSNNNeuronDescriptor(T.pReLU, data=[1, 2]))
    with pytest.raises(mps.ParameterError, match="no report"):
        merge([])


# ---- the page ----


def test_the_commands_of_the_page_are_understood():
    text = (ROOT / "docs" / "sweep.md").read_text()
    commands = re.findall(r"^(?:\$ )?mpsref ((?:sweep|merge) .*)$", text, re.MULTILINE)

    assert len(commands) >= 4
    for command in commands:
        assert parser().parse_args(command.split()).command


def test_committed_reports_are_of_all_inputs_and_have_rows():
    rows = runpy.run_path(str(ROOT / "docs" / "generate.py"))["sweep_rows"](ROOT / "docs" / "sweeps")
    files = sorted((ROOT / "docs" / "sweeps").glob("*.json"))

    assert len(rows) == len(files) > 0
    for path in files:
        validate(json.loads(path.read_text()), schema("sweep"))
        report = SweepReport.read(path)
        assert report.summary.elements == 1 << (8 * FORMATS[report.subject.channel_format].dtype.itemsize)
        assert path.stat().st_size < 10_000
