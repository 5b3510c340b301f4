"""Write the pages that are made from the neuron table, measurements and certificates: ``python docs/generate.py``."""

from __future__ import annotations

import ast
import inspect
import json
import re
import runpy
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import mpsref as mps
from mpsref.histogram import percent


def neurons_page() -> str:
    """The sixteen neurons, one row each."""
    lines = [
        "# The sixteen neurons",
        "",
        "Made from the table `mpsref.NEURONS` by `python docs/generate.py`.",
        "",
        "| value | type | parameters and defaults | forward | derivative | where the forward is real |",
        "|---:|---|---|---|---|---|",
    ]
    for neuron_type, row in mps.NEURONS.items():
        defaults = ", ".join(f"{name} = {np.float32(value):g}" for name, value in row.parameters.items())
        defaults = defaults or ("data, one slope for each feature channel" if row.per_channel else "none")
        cells = (f"`{row.formula}`", f"`{row.slope}`", row.domain)
        lines.append(
            f"| {neuron_type.value} | {neuron_type.name} | {defaults} | {' | '.join(_escape(c) for c in cells)} |"
        )
    return "\n".join([*lines, ""])


def errata_page() -> str:
    """What Apple's headers print wrongly."""
    lines = [
        "# Errata of Apple's headers",
        "",
        "Made from the table `mpsref.NEURONS` by `python docs/generate.py`. Here what the header prints is not the",
        "derivative of the forward, or not the forward that runs; mpsref computes the derivative.",
    ]
    for neuron_type, row in mps.NEURONS.items():
        for erratum in row.errata:
            lines += [
                "",
                f"## {neuron_type.name}",
                "",
                f"- Printed: `{erratum.printed}`",
                f"- Where: {erratum.where}",
                f"- Here: `{row.formula}`, with derivative `{row.slope}`. {erratum.why}",
            ]
    return "\n".join([*lines, ""])


def special_values_page() -> str:
    """What every neuron gives where formulas are silent or fail."""
    special = {
        "+0": 0.0,
        "-0": -0.0,
        "+infinity": np.inf,
        "-infinity": -np.inf,
        "NaN": np.nan,
        "2^-149": 2.0**-149,
        "-2^-149": -(2.0**-149),
        "largest": np.finfo(np.float32).max,
        "-largest": np.finfo(np.float32).min,
    }
    x = np.array(list(special.values()), np.float32)
    lines = [
        "# Special values",
        "",
        "Made by `python docs/generate.py`: every neuron at its defaults (pReLU with slope 0.25), in float32.",
        "Zeros have signs; at an infinity the result is the limit; NaN gives NaN, unless a slope does not depend on x.",
    ]
    for title, gradient in (("Forward", False), ("Derivative", True)):
        lines += ["", f"## {title}", "", f"| x | {' | '.join(special)} |", f"|---|{'---:|' * len(special)}"]
        for neuron_type, row in mps.NEURONS.items():
            d = mps.MPSNNNeuronDescriptor(neuron_type, data=np.full(x.size, 0.25) if row.per_channel else None)
            y = mps.neuron.gradient(d, x, np.ones_like(x)) if gradient else mps.neuron.forward(d, x)
            lines.append(f"| {neuron_type.name} | {' | '.join(str(value) for value in y)} |")
    return "\n".join([*lines, ""])


def stepwise_page() -> str:
    """What the stepwise modes compute for every neuron."""
    lines = [
        "# The stepwise modes",
        "",
        "Made from the table `mpsref.NEURONS` by `python docs/generate.py`.",
        "",
        'With `mode="stepwise"` each formula is evaluated as it stands below, in float32, every operation rounded to',
        'nearest even, as a plain shader does it. With `mode="stepwise-fma"` each `fma(a, b, c)`, that is `a b + c`,',
        "is rounded once; else the product is rounded as well. This explains what a device gives, and never judges it:",
        "where a formula overflows, cancels or loses a NaN, so does the result.",
        "",
        "- Sources are loaded as float32, results rounded once more to the format of their image. NaN becomes the",
        "  canonical one, and 0 in a unorm format. There is no stepwise float64.",
        "- A gradient is the slope, rounded, times the incoming gradient.",
        "- An addition is `fma(primary_scale, x, secondary_scale y) + bias`. Where both terms are products, the left",
        "  one is fused, as Clang does it.",
        "- `exp`, `log`, `tanh`, `erf` and `pow` are correctly rounded, the last with the special values of IEEE 754.",
        "  A device's are a few ULP off, each its own way.",
        "- `min` and `max` return the number where the other is NaN; `where(t, x, y)` is `x` if `t` else `y`.",
        "- Subnormals are kept; a device may flush them.",
        "",
        "| type | forward | derivative |",
        "|---|---|---|",
    ]
    for neuron_type, row in mps.NEURONS.items():
        cells = (_statements(row.stepwise_forward), _statements(row.stepwise_derivative))
        lines.append(f"| {neuron_type.name} | {' | '.join(f'`{_escape(c)}`' for c in cells)} |")
    return "\n".join([*lines, ""])


def _statements(method: Callable[..., Any]) -> str:
    """The body of a row's method in one line, without the names of its arguments."""
    function = ast.parse(textwrap.dedent(inspect.getsource(method))).body[0]
    body = "; ".join(ast.unparse(statement) for statement in getattr(function, "body", []))
    return re.sub(r"\b[fp]\.|return ", "", body)


def speed_page() -> str:
    """What benchmarks/run.py measured."""
    here = Path(__file__).parent
    make = runpy.run_path(str(here.parent / "benchmarks" / "page.py"))["page"]
    text: str = make(json.loads((here / "speed.json").read_text(encoding="utf-8")))
    return text


BEGIN, SWEEPS, END = "<!-- certificates -->\n", "<!-- sweeps -->\n", "<!-- end -->\n"
OURS = {"mpsref", "sources", "python", "numpy", "scipy"}


def proof_page() -> str:
    """The page on proofs as it stands, with the table of the committed certificates made anew."""
    folder = Path(__file__).parent
    before, _, rest = (folder / "proof.md").read_text("utf-8").partition(BEGIN)
    rows = certificate_rows(folder / "certificates")
    return before + BEGIN + "\n".join(["", *rows, "", ""]) + END + rest.partition(END)[2]


def certificate_rows(folder: Path) -> list[str]:
    """One row of Markdown for each certificate in a folder, in the order of the neurons."""
    proofs = [json.loads(path.read_text("utf-8")) for path in folder.glob("*.json")]
    formats, types = ["float32", "float16", "unorm16", "unorm8"], [t.name for t in mps.NEURONS]
    proofs.sort(key=lambda proof: (formats.index(proof["storage"]), types.index(proof["neuron"])))
    lines = [
        "| neuron | parameters | format | inputs | by digits | by rule | judged | wrong | seconds | results |",
        "|---|---|---|---:|---:|---:|---:|---:|---:|---|",
    ]
    for proof in proofs:
        both = [proof["forward"], proof["derivative"]]
        parameters = [f"{name} = {np.float32(float.fromhex(v)):g}" for name, v in proof["parameters"].items()]
        digits, rule, wrong = (sum(t[name] for t in both) for name in ("open_by_digits", "open_by_rule", "wrong"))
        judged = sum(t[f"judged_{name}"] for t in both for name in ("by_digits", "by_rule", "sample"))
        digests = " ".join(f"`{t['sha256'][:8]}`" for t in both)
        counts = " | ".join(f"{n:,}" for n in (digits, rule, judged, wrong))
        subject = f"{proof['neuron']} | {', '.join(parameters) or 'none'} | {proof['storage']}"
        lines.append(f"| {subject} | 2 x {both[0]['inputs']:,} | {counts} | {proof['wall_seconds']:,} | {digests} |")
    return lines


def sweep_page() -> str:
    """The page on sweeps as it stands, with the table of the committed reports made anew."""
    folder = Path(__file__).parent
    before, _, rest = (folder / "sweep.md").read_text("utf-8").partition(SWEEPS)
    head = ["| implementation | neuron | direction | format | exact | within 1 ULP | largest | NaN | infinity |"]
    rows = [*head, "|---|---|---|---|---:|---:|---:|---:|---:|", *sweep_rows(folder / "sweeps")]
    return before + SWEEPS + "\n".join(["", *rows, "", ""]) + END + rest.partition(END)[2]


def sweep_rows(folder: Path) -> list[str]:
    """One row of Markdown for each report of a sweep in a folder; float32 first, in the order of the neurons."""
    reports = [json.loads(path.read_text("utf-8")) for path in sorted(folder.glob("*.json"))]
    formats, types = ["float32", "float16", "unorm16", "unorm8"], [t.name for t in mps.NEURONS]
    reports.sort(key=lambda r: (formats.index(r["storage"]), types.index(r["neuron"]), r["direction"]))
    lines = []
    for report in reports:
        (maker,) = report["made_by"]
        packages = [f"{name} {text}" for name, text in maker["software"].items() if name not in OURS]
        near = report["exact"] + report["histogram"].get("1", 0)
        subject = " | ".join(report[name] for name in ("neuron", "direction", "storage"))
        shares = " | ".join(percent(n, report["elements"]) for n in (report["exact"], near))
        counts = " | ".join(f"{report[name]:,}" for name in ("largest", "nan_disagreements", "infinity_disagreements"))
        lines.append(f"| {', '.join(packages)} | {subject} | {shares} | {counts} |")
    return lines


def _escape(text: str) -> str:
    return text.replace("|", "\\|")


PAGES = {
    "neurons.md": neurons_page,
    "errata.md": errata_page,
    "special-values.md": special_values_page,
    "stepwise.md": stepwise_page,
    "speed.md": speed_page,
    "proof.md": proof_page,
    "sweep.md": sweep_page,
}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (Path(__file__).parent / name).write_text(page(), encoding="utf-8")
