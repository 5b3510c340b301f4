"""Files changed at random: an answer with an exit status, in time and memory that the file's size bounds."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from builders import seldom
from tests.fuzz.cases import BYTES, BYTES_PER_BYTE, SECONDS, SECONDS_PER_BYTE, Fuzzer, Outcome, Summary, outcome_here

COUNT, APART, ALL = 400, 4, 2000
"""Cases that are tried here, in processes of their own, and altogether by slow tests."""


@pytest.fixture(scope="module")
def fuzzer(tmp_path_factory):
    return Fuzzer(tmp_path_factory.mktemp("fuzz"), seed=1)


@seldom("numbers", [range(COUNT), range(COUNT, ALL)], lambda numbers: numbers[0] == 0)
def test_changed_files_end_with_a_status_and_one_line_within_the_budget(fuzzer, numbers):
    summary = Summary()
    for number in numbers:
        summary.add(number, fuzzer.here(number))

    assert not summary.broken, summary.text()
    assert set(summary.statuses) == {0, 1, 2}, "the cases are too much alike"
    assert min(summary.statuses.values()) > len(numbers) / 50, "the cases are too much alike"


@seldom("numbers", [range(ALL, ALL + APART), range(ALL + APART, ALL + 20)], lambda numbers: numbers[0] == ALL)
def test_the_same_in_processes_of_their_own(fuzzer, numbers):
    summary = Summary()
    for number in numbers:
        summary.add(number, fuzzer.apart(number))

    assert not summary.broken, summary.text()


def test_a_case_depends_on_seed_and_number_only(fuzzer, tmp_path):
    again = Fuzzer(tmp_path, seed=1)
    for number in (0, 2, 3, 4, 5):
        (folder, path, command), (its_folder, its_path, its_command) = fuzzer.case(number), again.case(number)

        assert path.read_bytes() == its_path.read_bytes()
        if isinstance(command, list):
            assert [word.replace(str(folder), "") for word in command] == [
                word.replace(str(its_folder), "") for word in its_command]  # fmt: skip


@pytest.mark.parametrize(
    ("outcome", "word"),
    [
        (Outcome(3, "mpsref: TypeError\n", 0, 0, 0), "status 3"),
        (Outcome(None, "Traceback", 0, 0, 0), "status None"),
        (Outcome(2, "", 0, 0, 0), "no single line"),
        (Outcome(2, "one\ntwo\n", 0, 0, 0), "no single line"),
        (Outcome(2, "x" * 10_000 + "\n", 0, 0, 0), "no single line"),
        (Outcome(0, "a warning\n", 0, 0, 0), "standard error"),
        (Outcome(0, "", 1.5, 0, 1000), "1.5 s"),
        (Outcome(0, "", 0, 100 * 2**20, 1000), "100 MiB"),
    ],
)
def test_every_rule_can_be_broken(outcome, word):
    (broken,) = outcome.broken
    assert word in broken


def object_of(keys):
    return "{" + ",".join(f"{key}:0" for key in keys) + "}"


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("a.json", lambda: object_of(f'"{i:06}"' for i in (*range(40_000), 39_999))),
        ("a.json", lambda: object_of(['"a"'] * 100_000)),
        ("a.json", lambda: "[" + "[]," * 500_000 + "[]]"),
        ("a.json", lambda: "[" + "[]," * 20_000_000 + "[]]"),
        ("a.json", lambda: "[" + "{}," * 500_000 + "[]]"),
        ("a.json", lambda: "[" + '{"a":0},' * 300_000 + "[]]"),
        ("a.json", lambda: "[" + '"ab",' * 1_000_000 + "[]]"),
        ("a.json", lambda: "[" + '"\u20ac",' * 700_000 + "[]]"),
        ("a.json", lambda: "[" + "9" * 4000 + ("," + "9" * 4000) * 700 + "]"),
        ("a.json", lambda: '"' + "\\" * 5_000_000 + '"'),
        ("a.json", lambda: '["' + "[" * 5_000_000 + '"]'),
        ("a.json", lambda: "0." + "3" * 1_000_000),
        ("a.json", lambda: "[" * 1_000_000),
        ("a.json", lambda: '{"format": "' + "x" * 5_000_000 + '"}'),
        ("a.json", lambda: '{"format": "mpsref-graph", "' + "x" * 5_000_000 + '": 0}'),
        ("a.toml", lambda: "a." * 15_000 + "b = 1"),
        ("a.toml", lambda: "'a'." * 15_000 + "b = 1"),
        ("a.toml", lambda: "[" + "a." * 15_000 + "b]"),
        ("a.toml", lambda: "\n".join(f"[a{i}]" for i in range(100_000))),
        ("a.toml", lambda: "\n".join(f"a{i}.b.c.d = 1" for i in range(50_000))),
        ("a.toml", lambda: "bounds = '''" + "'" * 500_000),
        ("a.toml", lambda: 'bounds = """' + '\\"' * 250_000),
        ("a.toml", lambda: "bounds = " + '\\"' * 250_000),
        ("a.toml", lambda: "bounds = " + "[" * 500_000),
        ("a.toml", lambda: "ulp = 0x" + "f" * 500_000),
        ("a.toml", lambda: "ulp = " + "9" * 500_000),
        ("a.toml", lambda: "# " + "a." * 250_000),
    ],
)
def test_small_hostile_documents_cost_little(fuzzer, tmp_path, name, make):
    path, text = tmp_path / name, make()
    status = 1 if text.startswith("# a.") else 2
    path.write_text(text, "utf-8")
    del text
    command = ["inspect", str(path)]
    if name == "a.toml":
        command = ["verify", str(fuzzer.valid / "recording.json"), "--tolerance", str(path)]

    outcome = outcome_here(command, path)

    assert not outcome.broken
    assert outcome.status == status


def test_the_documentation_states_the_budget():
    text = " ".join((Path(__file__).parents[2] / "docs" / "files.md").read_text("utf-8").split())

    assert f"{SECONDS:.0f} s of processor time and {1e6 * SECONDS_PER_BYTE:.0f} µs more for each byte" in text
    assert f"{BYTES >> 20} MiB of memory and {BYTES_PER_BYTE} bytes more for each byte" in text
