"""Test vectors: they agree with the judge of verify, and with themselves in every language."""

from __future__ import annotations

import json
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jsonschema
import numpy as np
import pytest

import mpsref as mps
from builders import seldom
from mpsref.arrays import Elements
from mpsref.cli import main
from mpsref.documents import schema
from mpsref.lab import vectors as lab
from mpsref.lab.vector_text import vector_text
from mpsref.storage import FORMATS
from mpsref.verify.judge import neuron_judge
from mpsref.verify.models import MODELS

T, F = mps.MPSCNNNeuronType, mps.MPSImageFeatureChannelFormat
EXAMPLE = Path(__file__).parents[2] / "examples" / "vectors" / "gelu.c"
GCC, RUSTC, SWIFTC = map(shutil.which, ("gcc", "rustc", "swiftc"))


def descriptor(neuron_type, **parameters):
    return mps.MPSNNNeuronDescriptor(neuron_type, data=[0.25] if neuron_type is T.pReLU else None, **parameters)


NEURONS = [*map(descriptor, mps.NEURONS), descriptor(T.power, a=0.7, b=0.1, c=2.5), descriptor(T.exponential, c=0.3)]


def tried(v):
    """Results for every vector: special ones, some at random, and those at and beside all ends."""
    storage, rng = v.storage, np.random.default_rng(len(v))
    bits = storage.bits_dtype
    special = storage.patterns()[::4099] if storage.dtype.itemsize < 4 else np.float32([0, np.inf, -np.inf, 1, -1, 6])
    columns = [np.tile(special, (len(v), 1)), rng.integers(0, np.iinfo(bits).max, (len(v), 20)).astype(bits)]
    for ends in (v.ideal, v.low, v.high, v.also_low, v.also_high):
        beside = ends.astype(np.int64)[:, np.newaxis] + np.arange(-3, 4)
        columns.append((beside & np.iinfo(bits).max).astype(bits))
    return np.concatenate([column.view(storage.dtype) for column in columns], axis=1)


def judged(v, got):
    """What verify says of such results: an array of that shape."""
    storage, count = v.storage, got.shape[1]

    def column(bits):
        return Elements(np.repeat(bits.view(storage.dtype), count)[:, np.newaxis], storage)

    one = storage.encode(np.ones(got.size), np.empty(got.size, storage.dtype))[:, np.newaxis]
    judge = neuron_judge(
        v.descriptor,
        MODELS[v.model],
        Elements(got.reshape(-1, 1), storage),
        column(v.input),
        Elements(one, storage) if v.direction == "gradient" else None,
    )
    # The result itself is never judged.
    same = storage.ordinals(got) == storage.ordinals(v.ideal.view(storage.dtype))[:, np.newaxis]
    if not storage.unorm_max:
        nan, of_ideal = np.isnan(got), np.isnan(v.ideal.view(storage.dtype))[:, np.newaxis]
        same = np.where(nan | of_ideal, nan & of_ideal, same)
    return same | lab._passes(judge(np.arange(got.size))).reshape(got.shape)


@seldom("direction", ["forward", "gradient"], lambda direction: direction == "forward")
@pytest.mark.parametrize("d", NEURONS, ids=lambda d: d.neuron_type.name)
def test_what_passes_is_what_verify_lets_pass(d, direction):
    loose = "wgsl" if (direction == "gradient") == (d.neuron_type % 2 == 0) else "metal-fast"
    for model, storage, count in ((loose, "float16", 8), ("metal-precise", "float32", 4), (loose, "unorm8", 3)):
        v = lab.vectors(d, storage, direction=direction, model=model, count=count)
        got = tried(v)

        passed = np.stack([v.passes(column) for column in got.T], axis=1)
        np.testing.assert_array_equal(passed, judged(v, got))
        assert v.passes(v.ideal.view(v.storage.dtype)).all()


def test_the_ideal_value_is_the_reference_and_inputs_are_those_of_inputs():
    v = lab.vectors(descriptor(T.geLU), "float16", model="metal-half", count=None)

    x = v.input.view(np.float16)
    assert len(np.unique(v.input)) == len(v) == 65_536
    np.testing.assert_array_equal(v.ideal.view(np.float16), mps.neuron.forward("geLU", x))
    half = lab.vectors(descriptor(T.geLU), "float16", direction="gradient", count=100)
    assert {0.0, 1.0, np.inf} <= set(half.input.view(np.float16).tolist())
    x = half.input.view(np.float16)
    np.testing.assert_array_equal(half.ideal.view(np.float16), mps.neuron.gradient("geLU", x, np.ones_like(x)))


def test_reasons_are_given_where_more_than_rounding_passes():
    v = lab.vectors(descriptor(T.logarithm), "float32", count=200)
    entries = list(v.entries())

    assert any(entry["reason"] for entry in entries)
    (at_one,) = [entry for entry in entries if entry["input"] == "0x3f800000"]
    assert (at_one["ideal"], at_one["nan"], at_one["infinity"], at_one["reason"]) == ("0x00000000", False, False, "")
    assert at_one["low"] != at_one["high"]


# ---- languages ----


def written(v, language, folder):
    path = folder / {"json": "v.json", "c": "gelu.h", "rust": "vectors.rs", "swift": "vectors.swift"}[language]
    path.write_text("".join(vector_text(v, language)))
    return path


def test_json_keeps_to_its_schema_and_has_all(tmp_path):
    v = lab.vectors(descriptor(T.logarithm), "float16", direction="gradient", count=300)
    document = json.loads(written(v, "json", tmp_path).read_text())

    jsonschema.validate(document, schema("vectors"))
    assert document["parameters"] == {"a": 1.0, "b": 0.0, "c": -1.0}
    assert document["vectors"] == list(v.entries())
    assert [int(entry["ideal"], 16) for entry in document["vectors"]] == v.ideal.tolist()
    assert {entry["nan"] for entry in document["vectors"]} == {True, False}


C_MAIN = """
#include <stdio.h>
#include "gelu.h"
int main(void) {
  for (int i = 0; i < mpsref_count; ++i)
    for (uint64_t got = 0; got <= LAST; got += STEP) putchar('0' + mpsref_passes(&mpsref_vectors[i], got));
  return 0;
}
"""
RUST_MAIN = """
mod vectors;
fn main() {
    let text: String = vectors::VECTORS.iter().flat_map(|v| (0..=LASTu64).step_by(STEP).map(move |got| {
        if v.passes(got as TYPE) { '1' } else { '0' } })).collect();
    print!("{text}");
}
"""
SWIFT_MAIN = """
var text = ""
for v in mpsrefVectors {
    for got in stride(from: UInt64(0), through: LAST, by: STEP) { text += v.passes(TYPE(got)) ? "1" : "0" }
}
print(text, terminator: "")
"""


COMPILERS = {"c": GCC, "rust": RUSTC, "swift": SWIFTC}
LANGUAGES = [(language, one) for language in COMPILERS for one in ("float16", "float32", "unorm8")]


@seldom(("language", "format"), LANGUAGES, lambda case: case[0] == "c" or case[1] == "float16", "-".join)
def test_each_language_compares_alike(tmp_path, language, format):
    compiler = COMPILERS[language]
    if not compiler:
        pytest.skip(f"no compiler of {language}")
    d = descriptor(T.logarithm)
    v = lab.vectors(d, format, direction="gradient", model="metal-precise", count=40)
    width = 8 * v.storage.dtype.itemsize
    last, step = (1 << width) - 1, max(1, (1 << width) // 1009)
    values = {
        "LAST": str(last),
        "STEP": str(step),
        "TYPE": {"rust": f"u{width}", "swift": f"UInt{width}"}.get(language, ""),
    }
    file = written(v, language, tmp_path)
    text = {"c": C_MAIN, "rust": RUST_MAIN, "swift": SWIFT_MAIN}[language]
    for name, value in values.items():
        text = text.replace(name, value)
    source = tmp_path / {"c": "main.c", "rust": "main.rs", "swift": "main.swift"}[language]
    source.write_text(text)
    options = {"c": ["-Wall", "-Wextra", "-Werror"], "rust": ["-D", "warnings"], "swift": [str(file)]}[language]

    subprocess.run([compiler, *options, str(source), "-o", str(tmp_path / "main")], check=True, cwd=tmp_path)
    printed = subprocess.run([str(tmp_path / "main")], check=True, capture_output=True, text=True).stdout

    got = np.arange(0, last + 1, step).astype(v.storage.bits_dtype).view(v.storage.dtype)
    want = np.stack([v.passes(np.full(len(v), value)) for value in got], axis=1)
    assert printed == "".join("01"[passes] for passes in want.reshape(-1).tolist())
    assert want.any()
    assert not want.all()


DUMP = """
#define main example
#include "gelu.c"
#undef main
int main(int count, char **names) {
  FILE *file = fopen(names[count - 1], "wb");
  const float x[] = {-3, 1, 4, -0.1f, 0.5f, 2.7f, -1.8f, -0.28f, 1.8f, 2.8f,
                     0.5447f, 0.9809f, 0.4114f, 0.1398f, 0.8045f, 0.4103f, 0.2388f, 0.5262f, 0.6677f, 0.6737f,
                     1.15286231f, -0.81037411f, 0.35816911f, 0.77484438f, 0.66276414f};
  for (int i = 0; i < 65536; ++i) { const uint16_t y = kernel((uint16_t)i); fwrite(&y, 2, 1, file); }
  for (int i = 0; i < 25; ++i) { const float y = gelu(x[i]); fwrite(&y, 4, 1, file); }
  return fclose(file) ? 2 : example();
}
"""
CANDLE = [-0.004, 0.8413, 3.9999, -0.046, 0.3457, 2.6906, -0.0647, -0.1091, 1.7353, 2.7928]
BURN = [0.3851, 0.8207, 0.2714, 0.0777, 0.6351, 0.2704, 0.1419, 0.3687, 0.4993, 0.5051]
MLX = [1.0093501, -0.16925684, 0.22918941, 0.60498625, 0.49459383]
"""What tests of three libraries expect of a geLU."""


def halves(low, high, count):
    return np.linspace(low, high, count).astype(np.float16)


@pytest.mark.skipif(not GCC, reason="no gcc")
@seldom("faults", [range(1, 3), range(3, 9)], lambda faults: faults[0] == 1)
def test_the_c_example_passes_and_its_faults_fail_here_and_pass_the_rules_that_the_page_says(tmp_path, faults):
    v = lab.vectors(descriptor(T.geLU), "float16", model="metal-fast", count=None)
    written(lab.vectors(descriptor(T.geLU), "float16", model="metal-fast", count=4096), "c", tmp_path)
    (tmp_path / "dump.c").write_text(DUMP)

    def run(fault):
        flags = ["-Wall", "-Werror", "-O1", f"-DFAULT={fault}", f"-I{tmp_path}", f"-I{EXAMPLE.parent}"]
        program, data = tmp_path / f"dump{fault}", tmp_path / f"data{fault}"
        subprocess.run([GCC, *flags, str(tmp_path / "dump.c"), "-o", str(program), "-lm"], check=True)
        status = subprocess.run([str(program), str(data)], check=False, capture_output=True).returncode
        return status, data.read_bytes()

    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(run, [0, *faults]))
    assert [status for status, _ in results] == [0] + [1] * len(faults)

    rows = []
    for _, data in results[1:]:
        got = np.frombuffer(data[: 2 * 65_536], np.float16)
        few = np.frombuffer(data[2 * 65_536 :], np.float32)
        wrong = int((~v.passes(got)).sum())
        x = halves(-9, 9, 4096)
        want, here = mps.neuron.forward("geLU", x).astype(float), got[x.view(np.uint16)].astype(float)
        torch = bool((np.abs(here - want) <= 1e-5 + 1e-3 * np.abs(want)).all())
        x = halves(-150, 150, 1024)
        want, here = mps.neuron.forward("geLU", x).astype(float), got[x.view(np.uint16)].astype(float)
        ggml = bool(np.square(here - want).sum() / np.square(want).sum() <= 1e-7)
        candle = np.round(few[:10].astype(float), 4).tolist() == CANDLE
        burn = bool((np.abs(few[10:20] - BURN) <= 1e-2).all())
        mlx = np.allclose(few[20:], MLX)
        rows.append([f"{wrong:,}", *("passes" if passed else "fails" for passed in (torch, ggml, candle, burn, mlx))])

    page = (EXAMPLE.parents[2] / "docs" / "vectors.md").read_text()
    shown = [[cell.strip() for cell in line.split("|")[2:8]] for line in page.splitlines() if line.startswith("| ")]
    of_faults = [row for row in shown if row[-1] in ("passes", "fails")]
    assert len(of_faults) == 8
    assert of_faults[faults[0] - 1 : faults[-1]] == rows


# ---- bad calls ----


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--format float32 --all", "all inputs of float32 are 2^32: give a count"),
        ("--count 0", "count is 0: give 1 to 1048576"),
        ("--count 9 --all", "--count: conflicts with --all"),
        ("--seed -1", "--seed is -1: give 0 or more"),
        ("--b 3", "b"),
    ],
)
def test_bad_options_are_one_line(options, message, tmp_path, capsys):
    command = f"vectors --neuron softSign --language json --out {tmp_path / 'v.json'} {options}"

    assert main(command.split()) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "v.json").exists()


def test_half_has_all_patterns_of_its_format():
    assert FORMATS[F.float16].patterns().size == 65_536
    with pytest.raises(mps.ParameterError, match="bounds mine: choose one of metal-precise"):
        lab.vectors(descriptor(T.tanH), model="mine")
