"""Write the pages that are generated from code, measurements and certificates: ``python docs/generate.py``."""

from __future__ import annotations

import argparse
import ast
import contextlib
import inspect
import io
import json
import math
import re
import runpy
import textwrap
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import mpsref as mps
from mpsref import cli
from mpsref.activations import ACTIVATIONS as ACTIVATIONS_BY_TYPE
from mpsref.activations import Activation
from mpsref.attributes import left_out
from mpsref.cli.status import STATUSES
from mpsref.neuron.kernels import KERNELS
from mpsref.sweep import libraries
from mpsref.ulp import percent
from mpsref.verify import Reason, Recording, faults
from mpsref.verify.bounds import allowed
from mpsref.verify.forms import ALTERNATIVES
from mpsref.verify.hypotheses import HYPOTHESES, LAYERS, STATES
from mpsref.verify.models import MODELS
from mpsref.verify.reasons import EXCUSES, LATITUDES


def neurons_page() -> str:
    """The sixteen neurons, one row each."""
    lines = [
        "# The sixteen neurons",
        "",
        "The neurons of MPS, in the order of Apple's enumeration `MPSCNNNeuronType`. The page of each type has its",
        "plot, special values, errata and error bounds.",
        "",
        "| value | type | parameters and defaults | forward | derivative | where the forward is real |",
        "|---:|---|---|---|---|---|",
    ]
    for neuron_type, row in mps.NEURONS.items():
        link = f"[{neuron_type.name}](neurons/{neuron_type.name}.md)"
        cells = (f"`{row.formula}`", f"`{row.slope}`", row.domain)
        lines.append(f"| {neuron_type.value} | {link} | {_defaults(row)} | {' | '.join(_escape(c) for c in cells)} |")
    toctree = ["```{toctree}", ":hidden:", "", *(f"neurons/{t.name}" for t in mps.NEURONS), "```"]
    source = "Generated from the table `mpsref.NEURONS` by `python docs/generate.py`."
    return "\n".join([*lines, "", source, "", *toctree, ""])


def _defaults(row: type[mps.neuron.Neuron]) -> str:
    defaults = ", ".join(f"{name} = {np.float32(value):g}" for name, value in row.parameters.items())
    return defaults or ("data, one slope per feature channel" if row.per_channel else "none")


def neuron_page(neuron_type: mps.MPSCNNNeuronType) -> str:
    """The page of one neuron."""
    name, row = neuron_type.name, mps.NEURONS[neuron_type]
    d = _default(neuron_type)
    at_defaults = "with slope 0.25" if row.per_channel else "at its defaults" if row.parameters else ""
    classes = {own.neuron_type: own.__name__ for own in mps.MPSCNNNeuronNode.__subclasses__()}
    facts = {
        "Forward": f"`{row.formula}`",
        "Derivative": f"`{row.slope}`",
        "Parameters and defaults": _defaults(row),
        "The forward is real for": row.domain,
        "Kinks": _kinks(d),
        "Type": f"`MPSCNNNeuronType.{name}`, {neuron_type.value}",
        "Node": f"`{classes[neuron_type]}`" if neuron_type in classes else "`MPSCNNNeuronNode`, with a descriptor",
        "Header": f"{row.source}",
        "Errata of the header": "[below](#erratum-of-the-header)" if row.errata else "none known",
    }
    lines = [
        f"# {name}",
        "",
        f"The neuron {name} of MPS, one of [the sixteen](../neurons.md): its formula, its special values, and why the",
        "results of mpsref are right.",
        "",
        f"| | {name} |",
        "|---|---|",
        *(f"| {what} | {_escape(fact)} |" for what, fact in facts.items()),
        "",
        "## In numbers",
        "",
        "```python",
        *(code := _example(neuron_type)),
        "```",
        "",
        "```text",
        *_printed(code),
        "```",
        "",
        "## Special values",
        "",
        " ".join(f"In float32, {at_defaults}".split()).rstrip(",") + ":",
        "",
        "| x | forward | derivative |",
        "|---|---:|---:|",
        *(f"| {' | '.join(map(str, each))} |" for each in zip(SPECIAL, *_special_values(neuron_type), strict=True)),
        "",
    ]
    for erratum in row.errata:
        lines += [
            "## Erratum of the header",
            "",
            f"- Printed: `{erratum.printed}`",
            f"- Where: {erratum.where}",
            f"- Here: {erratum.why}",
            "",
        ]
    certified = certificate_rows(CERTIFICATES, name)
    titles, cells = ([cell.strip() for cell in row.strip("|").split("|")] for row in (certified[0], certified[-1]))
    return "\n".join(
        [
            *lines,
            "## As a plain shader computes it",
            "",
            "Operation by operation, in float32, see [stepwise.md](../stepwise.md).",
            "",
            f"- forward: `{_statements(row.stepwise_forward)}`",
            f"- derivative: `{_statements(row.stepwise_derivative)}`",
            "",
            "## Why the result is right",
            "",
            "Bounds of the relative error in float64, at the defaults, before the result is rounded once;",
            "[accuracy.md](../accuracy.md) has the reasons.",
            "",
            f"- forward: {_bound(KERNELS[type(row)].error_bound(d))}",
            f"- derivative: {_bound(KERNELS[type(row)].slope_error_bound(d))}",
            "",
            "[The proof](../proof.md) covers every float32, and explains these counts:",
            "",
            f"| {titles[0]} | {cells[0]} |",
            "|---|---|",
            *(f"| {title} | {cell} |" for title, cell in zip(titles[1:], cells[1:], strict=True)),
            "",
            "How far off a *device* may be is in [bounds.md](../bounds.md#how-tight-they-are), for each neuron.",
            "",
        ]
    )


def _kinks(d: mps.MPSNNNeuronDescriptor) -> str:
    """Where the slope jumps, and where it would with other parameters, as reLUN's at 0 for an ``a`` that is not 1."""
    row = mps.NEURONS[d.neuron_type]
    places: dict[bool, list[str]] = {True: [], False: []}
    for kink in row.kinks(d):
        beside = np.array([[kink - 1e-6], [kink + 1e-6]])
        left, right = mps.neuron.gradient(d, beside, np.ones_like(beside)).ravel()
        places[abs(right - left) > 1e-3].append(f"{float(np.float32(kink)):g}")
    jumps, others = (", ".join(places[jumps]) for jumps in (True, False))
    text = f"x = {jumps}" if jumps else "none"
    text += " at the defaults" if row.parameters and (jumps or others) else ""
    return text + (f"; {'also ' if jumps else ''}x = {others} with other parameters" if others else "")


def _default(neuron_type: mps.MPSCNNNeuronType, channels: int = 1) -> mps.MPSNNNeuronDescriptor:
    slopes = np.full(channels, 0.25) if mps.NEURONS[neuron_type].per_channel else None
    return mps.MPSNNNeuronDescriptor(neuron_type, data=slopes)


def _example(neuron_type: mps.MPSCNNNeuronType) -> list[str]:
    data = ", data=[0.25]" if mps.NEURONS[neuron_type].per_channel else ""
    return [
        "import numpy as np",
        "import mpsref as mps",
        "",
        f"d = mps.MPSNNNeuronDescriptor(mps.MPSCNNNeuronType.{neuron_type.name}{data})",
        "x = np.float32([[-3], [-0.5], [0], [0.5], [3]])",
        "print(mps.neuron.forward(d, x).ravel())",
        "print(mps.neuron.gradient(d, x, upstream=np.ones_like(x)).ravel())",
    ]


def _printed(code: list[str]) -> list[str]:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec("\n".join(code), {})  # noqa: S102
    return printed.getvalue().splitlines()


def _bound(bound: float) -> str:
    return f"2^{math.log2(bound):g}" if bound else "0, its rounding is never open"


def command_line_page() -> str:
    """Every command with its options, from the parser itself."""
    parser = cli.parser()
    (commands,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    lines = [
        "# Command line",
        "",
        "Every command of `mpsref`, with its arguments and options; `mpsref COMMAND --help` says the same. Made from",
        "the parsers of `mpsref/cli` by `python docs/generate.py`.",
        "",
        "| command | what it does |",
        "|---|---|",
        *(f"| [`mpsref {one.dest}`](#mpsref-{one.dest}) | {one.help} |" for one in commands._choices_actions),
        "",
        "## Exit status",
        "",
        "| status | what it says | what it promises |",
        "|---|---|---|",
        *(f"| {status} | {says} | {promises} |" for status, (says, promises) in STATUSES.items()),
        "",
        "This holds for all standard streams: closed, a pipe that nobody reads, no terminal, ASCII. Errors go to",
        "stderr. If the disk is full under stdout, the status is 2.",
        "",
        "An output file may be `-` or `/dev/stdout`; the report for people then goes to stderr. Files are written",
        "whole or not at all: under a temporary name, then renamed. Links are followed, and a replaced file passes on",
        "its mode and owner. Devices, pipes, sockets and folders are refused, and so is any file that is an input or",
        "another output of the command.",
    ]
    for name, command in commands.choices.items():
        lines += [
            "",
            f"## mpsref {name}",
            "",
            _escape(command.description or ""),
            "",
            "| argument | meaning |",
            "|---|---|",
        ]
        for action in command._actions:
            if not isinstance(action, argparse._HelpAction):
                lines.append(f"| {_argument(action)} | {_meaning(action)} |")
        if command.epilog:
            lines += ["", f"{command.epilog[0].upper()}{command.epilog[1:]}."]
    return "\n".join([*lines, ""])


def _argument(action: argparse.Action) -> str:
    metavar = action.metavar if isinstance(action.metavar, str) else None
    takes = "" if action.nargs == 0 else metavar or f"{{{','.join(map(str, action.choices or ()))}}}"
    if not action.option_strings:
        return f"`{takes}{' ...' if action.nargs == '+' else ''}`"
    return _escape(f"`{' '.join([', '.join(action.option_strings), takes]).strip()}`")


def _meaning(action: argparse.Action) -> str:
    notes = ["needed"] if action.required and action.option_strings else []
    notes += ["may be repeated"] if isinstance(action, argparse._AppendAction) else []
    return _options(_escape("; ".join([action.help or "", *notes]).strip("; ")))


def _options(text: str) -> str:
    return re.sub(r"--[a-z][a-z-]*", r"`\g<0>`", text)


def errata_page() -> str:
    """The errata of Apple's headers."""
    lines = [
        "# Errata of Apple's headers",
        "",
        "Where Apple's headers print a wrong derivative, or a forward that is not the one that runs. mpsref computes",
        "the derivative. Made from the table `mpsref.NEURONS` by `python docs/generate.py`.",
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


SPECIAL = {
    "+0": 0.0,
    "-0": -0.0,
    "+inf": np.inf,
    "-inf": -np.inf,
    "NaN": np.nan,
    "2^-149": 2.0**-149,
    "-2^-149": -(2.0**-149),
    "largest": np.finfo(np.float32).max,
    "-largest": np.finfo(np.float32).min,
}


def special_values_page() -> str:
    """The results of every neuron for special values."""
    lines = [
        "# Special values",
        "",
        "The results of every neuron for zeros, infinities, NaN, and the smallest and largest numbers, at its defaults",
        "(pReLU with slope 0.25), in float32. Zeros have signs; at an infinity the result is the limit; NaN gives NaN,",
        "unless a slope does not depend on x. Generated by `python docs/generate.py`.",
    ]
    for direction, title in enumerate(("Forward", "Derivative")):
        lines += ["", f"## {title}", "", f"| x | {' | '.join(SPECIAL)} |", f"|---|{'---:|' * len(SPECIAL)}"]
        for neuron_type in mps.NEURONS:
            values = _special_values(neuron_type)[direction]
            lines.append(f"| {neuron_type.name} | {' | '.join(map(str, values))} |")
    return "\n".join([*lines, ""])


def _special_values(neuron_type: mps.MPSCNNNeuronType) -> tuple[Any, Any]:
    x = np.array(list(SPECIAL.values()), np.float32)
    d = _default(neuron_type, x.size)
    return mps.neuron.forward(d, x), mps.neuron.gradient(d, x, np.ones_like(x))


def stepwise_page() -> str:
    """What the stepwise modes compute for every neuron."""
    lines = [
        "# The stepwise modes",
        "",
        'With `mode="stepwise"` each formula is evaluated as it stands below, in float32, every operation rounded to',
        'nearest even, as in a plain shader. With `mode="stepwise-fma"` each `fma(a, b, c)`, that is `a b + c`, is',
        "rounded once; else the product is rounded as well. These modes explain a device's results, but never judge",
        "them: where a formula overflows, cancels or loses a NaN, so does the result.",
        "",
        "- Sources are loaded as float32, results rounded once more to the format of their image. NaN becomes the",
        "  canonical one, and 0 in a unorm format. There is no stepwise float64.",
        "- A gradient is the slope, rounded, times the incoming gradient.",
        "- An addition is `fma(primary_scale, x, secondary_scale y) + bias`. Where both terms are products, the left",
        "  one is fused, as Clang does it.",
        "- `exp`, `log`, `tanh`, `erf` and `pow` are correctly rounded, the last with the special values of IEEE 754.",
        "  Those of devices are a few ULP off, and differ.",
        "- `min` and `max` return the number if the other is NaN; `where(t, x, y)` is `x` if `t` else `y`.",
        "- Subnormals are kept; a device may flush them.",
        "",
        "| type | forward | derivative |",
        "|---|---|---|",
    ]
    for neuron_type, row in mps.NEURONS.items():
        cells = (_statements(row.stepwise_forward), _statements(row.stepwise_derivative))
        lines.append(f"| {neuron_type.name} | {' | '.join(f'`{_escape(c)}`' for c in cells)} |")
    return "\n".join([*lines, "", "Made from the table `mpsref.NEURONS` by `python docs/generate.py`.", ""])


def _statements(method: Callable[..., Any]) -> str:
    """The body of a row's method in one line, without the names of its arguments."""
    function = ast.parse(textwrap.dedent(inspect.getsource(method))).body[0]
    body = "; ".join(ast.unparse(statement) for statement in getattr(function, "body", []))
    return re.sub(r"\b[fp]\.|return ", "", body)


def faults_page() -> str:
    """What the faults are that a verification looks for."""
    ranking = inspect.getdoc(faults) or ""
    lines = [
        "# Faults that are looked for",
        "",
        "The faults that `mpsref verify` tries on an image beyond its bounds, to say what may be wrong. Each is a",
        "hypothesis, applied to the node's inputs. Made from `mpsref.verify.hypotheses`, in its order, by",
        "`python docs/generate.py`.",
        "",
        "| fault | what it says |",
        "|---|---|",
        *(f"| {_escape(one.name)} | {_escape(one.sentence)} |" for one in HYPOTHESES if one not in LAYERS),
        "",
        "## Layers",
        "",
        "Of convolutions, fully connected layers, pooling and their gradients; whole images are computed at once. From",
        "`mpsref.verify.hypotheses`, as all of them; those above hold for layers too.",
        "",
        "| fault | what it says |",
        "|---|---|",
        *(f"| {_escape(one.name)} | {_escape(one.sentence)} |" for one in LAYERS),
        "",
        "Of the gradients of weights and biases:",
        "",
        "| fault | what it says |",
        "|---|---|",
        *(f"| {_escape(one.name)} | {_escape(one.sentence)} |" for one in STATES),
        "",
        "## How they are ranked",
        "",
        *ranking.partition("Examples\n")[0].strip().splitlines()[2:],
    ]
    return "\n".join([*lines, ""])


def speed_page() -> str:
    """What benchmarks/run.py measured."""
    here = Path(__file__).parent
    make = runpy.run_path(str(here.parent / "benchmarks" / "page.py"))["page"]
    text: str = make(json.loads((here / "speed.json").read_text(encoding="utf-8")))
    return text


BEGIN, SWEEPS, ACTIVATIONS, TIMES, FINDINGS, LEFT_OUT, MEASURED, END = (
    f"<!-- {name} -->\n"
    for name in ("certificates", "sweeps", "activations", "times", "findings", "left out", "measured", "end")
)
LIBRARIES = [*libraries.LIBRARIES, "onnxruntime", "coremltools", "scipy", "numpy"]
"""In the order of the page; each has a file of findings."""

CERTIFICATES = Path(mps.__file__).parent / "proof" / "certificates"
OURS = {"mpsref", "sources", "python", "numpy", "scipy"}


def _filled(name: str, mark: str, rows: list[str], text: str | None = None) -> str:
    """A page, or its text so far, with the lines after a mark made anew."""
    text = (Path(__file__).parent / name).read_text("utf-8") if text is None else text
    before, _, rest = text.partition(mark)
    return before + mark + "\n".join(["", *rows, "", ""]) + END + rest.partition(END)[2]


def proof_page() -> str:
    """The page on proofs as it stands, with the table of the committed certificates made anew."""
    return _filled("proof.md", BEGIN, certificate_rows(CERTIFICATES))


def swift_page() -> str:
    """The page on Swift as it stands, with the table of what the classes leave out made anew."""
    rows = ["| class | Apple's name | why |", "|---|---|---|"]
    for kind in (getattr(mps, name) for name in mps.__all__):
        names: dict[str, list[str]] = {}  # by reason
        for apple, why in left_out(kind).items() if isinstance(kind, type) else ():
            names.setdefault(why, []).append(f"`{apple}`")
        rows += [f"| `{kind.__name__}` | {', '.join(apple)} | {why} |" for why, apple in names.items()]
    return _filled("swift.md", LEFT_OUT, rows)


def certificate_rows(folder: Path, neuron: str | None = None) -> list[str]:
    """One row of Markdown for each certificate in a folder, of one neuron or of all, in their order."""
    proofs = [json.loads(path.read_text("utf-8")) for path in folder.glob("*.json")]
    proofs = [proof for proof in proofs if neuron in (None, proof["neuron"])]
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
        judged = sum(count for t in both for name, count in t.items() if name.startswith("judged_"))
        digests = " ".join(f"`{t['sha256'][:8]}`" for t in both)
        counts = " | ".join(f"{n:,}" for n in (digits, rule, judged, wrong))
        subject = f"{proof['neuron']} | {', '.join(parameters) or 'none'} | {proof['storage']}"
        lines.append(f"| {subject} | 2 x {both[0]['inputs']:,} | {counts} | {proof['wall_seconds']:,} | {digests} |")
    return lines


def bounds_page() -> str:
    """How the bounds of a correct device are derived, and how tight they are."""
    names = ["arithmetic", "reciprocal", "division", "exp", "exp2", "log", "log2", "erf", "expm1", "log1p",
             "tanh", "pow"]  # fmt: skip
    other = {"tanh": "`(t - 1) / (t + 1)`, `t = exp(2 x)`", "pow": "`exp2(y log2(x))`"}
    lines = [
        "# Bounds",
        "",
        "For each element `mpsref verify` asks whether a device that keeps its promises may store it. The answer is",
        "derived, for each neuron and direction, from the formula in its row (see [stepwise.md](stepwise.md)) and",
        "from the error that a model allows each operation; no neuron has bounds of its own. This page is made by",
        "`python docs/generate.py` from the modules `bounds`, `models` and `reasons` of `mpsref.verify`, and the table",
        "`mpsref.NEURONS`.",
        "",
        "## How errors propagate",
        "",
        "- The formula is evaluated in float64 on ranges of all values that a correct device may have at each",
        "  step. A stored source is a range of one number, and so is a parameter, so that products of parameters",
        "  are rounded.",
        "- An operation maps its operands' ranges to the range of its exact results, widened by its error in the",
        "  table. `k ULP` are k times the distance of the two numbers of the format between which the exact",
        "  result lies. A correctly rounded result is rounded to nearest, or not at all: where a product is fused",
        "  with a sum, or a compiler keeps more digits. An exact result that the format has stays exact.",
        "- A product of three and more factors, of which some may be divisors, has the range of all orders, with",
        "  what is lost where a product on the way is subnormal. A gradient is such a product: of the factors of",
        "  the slope and the incoming gradient.",
        "- Exponents are not limited: what lies beyond the largest number stays as it is. Overflow is looked at",
        "  apart, see below. Storing rounds both ends once more, to infinity if that is how they round.",
        "- If the ranges leave a comparison open, both branches are taken, and nothing between them: the slope of",
        "  hardSigmoid at a kink is `a` or 0, not half of `a`. Several open comparisons of an element are taken in",
        "  every way, up to six. Only where a window adds up many such elements may the result be between.",
        "- A comparison may take subnormals for zero: a branch, an absolute value, a minimum and a maximum may then",
        "  give either operand, with the sign that it has, and a window any subnormal as its largest element.",
        "- Where an operand is flushed, what is left of a sum is the other one, and nothing between that and the sum;",
        "  of the sum of a window it is a sum of some products.",
        "- If a source is not recorded, the next node reads the ranges of the node that computes it, and their",
        "  neighbours. Each of these nodes has a form of its own. A difference of such an image with itself is 0.",
        "- Elements at most 1 ULP of their storage format from the ideal value are within, and not analysed.",
        "",
        "So cancellation (`1 - t t`, `1 + erf`) gives an absolute error, and saturation none.",
        "",
        "## The errors of operations",
        "",
        f"| operation | {' | '.join(MODELS)} |",
        f"|---|{'---|' * len(MODELS)}",
    ]
    for name in names:
        cells = []
        for m in MODELS.values():
            instead = "`sinh(x) / cosh(x)`" if name == "tanh" and m.tanh_is_sinh_by_cosh else other.get(name, "")
            laws = [m.laws.get(name), *([m.others[name]] if name in m.others else [])]
            cells.append("; or ".join(instead if law is None else str(law) for law in laws))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += [
        f"| computes in | {' | '.join(m.channel_format.name for m in MODELS.values())} |",
        f"| subnormals | {' | '.join('may be flushed' if m.flushes else 'kept' for m in MODELS.values())} |",
        f"| NaN | {' | '.join('defined' if m.nan_is_defined else 'undefined' for m in MODELS.values())} |",
        f"| stores | {' | '.join('either way' if m.rounds_either_way else 'to nearest' for m in MODELS.values())} |",
        f"| overflow, domain | {' | '.join('open' if m.is_finite else 'as IEEE 754 says' for m in MODELS.values())} |",
        "",
        *(f"- **{m.name}**: {m.source}." for m in MODELS.values()),
        "",
        "WGSL has no rounding mode: a sum, a product or a store may give either neighbour of the exact result, and",
        "other errors are rounded outwards to the next float32, as the tests of WebGPU do for operands; Mesa's exp",
        "needs it (0.25 ULP beyond its row at a few arguments in 100,000). A shader may be compiled as if no number",
        "were infinite or NaN: where one is, or an operand is outside its domain, the result is open, and passes as",
        "`indeterminate`, which nothing in the image refutes. Subnormal halves may be stored as 0. What a unorm code",
        "stands for is a quotient, with the error of one.",
        "",
        "expm1 and log1p are in no library of Metal's or WGSL's: kernels that need them bring their own, which",
        "are held to what the table says.",
        "",
        "`metal-fast` is the default, as in Metal's compiler. A device may also use one of these forms:",
        "",
        "| type | direction | form | source |",
        "|---|---|---|---|",
    ]
    for (neuron_type, direction), others in ALTERNATIVES.items():
        lines += [f"| {neuron_type.name} | {direction} | `{o.text}` | {o.source} |" for o in others]
    lines += [
        "",
        "Not among them are forms that lose what the documented one keeps: the sigmoid, or the slope of softPlus, by",
        "tanh or as `1 - s(-x)`, the slope of ELU as `y + a`, that of softSign as `(1 - abs(y))^2`, that of tanH as",
        "`1 / cosh^2`, an exponential as `exp2(x log2(e))`, and all that overflow earlier.",
        "",
        "## Within, excused, beyond",
        "",
        "An element that no form of the formula allows as it is may still have a reason, by which it is counted;",
        "of several that fit the first one counts. A *latitude* of the language is within the bounds. An *excuse*",
        "passes and is counted in the verdict line; with `--strict` nothing is excused. `overflow` excuses only",
        'where it is allowed: `--allow overflow`, `allow = ["overflow"]` in a tolerance file, `allow=` in Python.',
        "All else is *beyond*.",
        "",
        "| name | is | reason |",
        "|---|---|---|",
        *(f"| `{reason.name}` | {_kind(reason)} | {reason.text} |" for reason in Reason),
        "",
        "- An element is beyond, by the name of `overflow`, if its inputs and its ideal value are finite, and",
        "  only an infinity on the way explains it: `ln(1 + e^x)` at 100 is infinite because the formula is wrong",
        "  there, not the device, and whoever reads the result has a wrong number all the same. That goes for the",
        "  literal softPlus of the recordings in `examples/gpu-run`. `order` is the exception: one order of the",
        "  same product does not overflow.",
        "- `nan`: in every model where a comparison that the formula documents loses NaN, as in reLU's slope.",
        "  Where a minimum, maximum or clamp loses it, or anything else does, only in models that leave NaN",
        "  undefined; and `domain` only in these.",
        "- `plus_inf`, `minus_inf`: in every model where the formula has no value at the infinity, such as inf /",
        "  inf, there or at the opposite one. A minimum or maximum of that NaN is NaN or the other operand.",
        "- `indeterminate`: in models of finite numbers only, in place of `overflow` and `domain`, and where NaN or an",
        "  infinity is read.",
        "- The excuses of other models that leave NaN undefined are refuted by the image itself: if one of its",
        "  elements is NaN where NaN is ideal, the device knows NaN. Only NaN of another source says nothing: a tanh",
        "  may clamp what it reads and lose its NaN, and the product with the incoming gradient keep that one's. Nor",
        "  does NaN that arises behind a node whose image is not recorded: that node may have lost others. What",
        "  follows from NaN that a clamp has lost whose result is not recorded is refuted by nothing.",
        "- A neighbour of what the bounds allow passes where an image between was not recorded, as neighbours of the",
        "  ideal value do wherever they may be: each image alone would pass. bfloat16 has no such neighbours.",
        "- `texture`: only in images whose bytes are those of a texture.",
        "- An image of unorm codes has no NaN: its ideal code is 0, and that of an infinity the end of the range.",
        "",
        "## Stores that do not round to nearest",
        "",
        "Truncation instead of rounding leaves every element within 1 ULP. An element is *decisive* where all",
        "values that the bounds allow before the store round to the same number, and truncated, or rounded up or",
        "down, to another. If an image has at least 32 decisive elements of distinct inputs, and 99 % of them",
        "hold the directed value, the report has a note, and `--strict` fails the image. A device that keeps the",
        "model cannot cause it, unless the model allows either neighbour, as WGSL does: then it is a note only.",
        "Such a store may also end a step beyond bounds that are wide, or at the largest number instead of an",
        "infinity: where the image has that note, both are within. Where bounds are so wide that fewer elements are",
        "decisive, as those of a tanh with an error of half an ULP of half, their ends tell: an element that rounding",
        "to nearest gives of no value within the bounds, and the directed store of some, counts as one that holds it,",
        "and 99 % of what is out of bounds must be of that kind.",
        "",
        "A unorm code beside the right one passes too. There the same is said of stores that are one code too high",
        "or too low, and of 256 times the value, truncated or rounded, for 255 times. In every format there is also a",
        "note if at least 5 % of the elements whose code or number is certain hold a neighbour of it: so one sees a",
        "source that is divided by 256, or a store that rounds at random. Where a model allows either neighbour the",
        "latter is silent; and all of it where every value is beyond the last code, since then nothing is wrong.",
        "",
        "## How tight they are",
        "",
        "Bound / error, under `metal-precise`: the smallest ratio of an element's bound to its error, both measured",
        "from the exact value. It is 1 where the bound is reached. The first column is for the stepwise modes at",
        "4,097 float32 in [-8, 8] (their functions are correctly rounded, so a real device errs more), the second for",
        "the neurons of the recording `examples/gpu-run/precise/chain-float32.json`. The largest bound is in ULP of",
        "the float32 value: large where the formula cancels.",
        "",
        "| type | direction | largest bound | bound / error, stepwise | bound / error, H200 |",
        "|---|---|---:|---:|---:|",
    ]
    for neuron_type in mps.NEURONS:
        lines += [_tightness(neuron_type, direction) for direction in ("forward", "gradient")]
    return "\n".join([*lines, ""])


def _kind(reason: Reason) -> str:
    return "latitude" if reason in LATITUDES else "excuse" if reason in EXCUSES else "excuse if allowed, else beyond"


def _tightness(neuron_type: mps.MPSCNNNeuronType, direction: str) -> str:
    """One row: what the largest error is of the bound."""
    per_channel = mps.NEURONS[neuron_type].per_channel
    d = mps.MPSNNNeuronDescriptor(neuron_type, data=[0.3] if per_channel else None)
    x = np.linspace(-8, 8, 4097, dtype=np.float32)[:, np.newaxis]
    ones = np.ones_like(x)
    bounds = allowed(d, x, "metal-precise", upstream=None if direction == "forward" else ones)
    forward, wide = direction == "forward", x.astype(float)
    ideal = mps.neuron.forward(d, wide) if forward else mps.neuron.gradient(d, wide, ones.astype(float))
    real = (bounds.reason == 0) & np.isfinite(ideal)
    lower, upper, ideal = (each[real].astype(float) for each in (bounds.lower, bounds.upper, ideal))
    bound = np.maximum(upper - ideal, ideal - lower)
    error = np.zeros_like(bound)
    for mode in ("stepwise", "stepwise-fma"):
        y = mps.neuron.forward(d, x, mode=mode) if forward else mps.neuron.gradient(d, x, ones, mode=mode)
        error = np.maximum(error, np.abs(y[real].astype(float) - ideal))
    largest = float(np.max(bound / np.spacing(np.abs(ideal).astype(np.float32))))
    seen = _ratio_of_the_recording(neuron_type, forward=forward)
    return f"| {neuron_type.name} | {direction} | {largest:.2g} | {_ratio(bound, error)} | {seen} |"


def _ratio(bound: Any, error: Any) -> str:
    share = np.max(error[bound > 0] / bound[bound > 0], initial=0.0)
    return f"{1 / share:.2g}" if share else "no error"


def _ratio_of_the_recording(neuron_type: mps.MPSCNNNeuronType, *, forward: bool) -> str:
    """The same of the recording of a real GPU in float32, each node at what it has read."""
    folder = Path(__file__).parents[1] / "examples" / "gpu-run" / "precise"
    recording = Recording.read(folder / "chain-float32.json")
    names = {image: name for name, image in recording.graph.images.items()}
    kind = mps.MPSCNNNeuronNode if forward else mps.MPSCNNNeuronGradientNode
    for node in recording.graph.nodes:
        if not isinstance(node, kind) or node.descriptor.neuron_type is not neuron_type:
            continue
        d = node.descriptor
        images = [recording.images[names[image]].read().to_array() for image in (*node.sources, node.result_image)]
        upstream, x, got = images if not forward else (None, *images)
        bounds = allowed(d, x, "metal-precise", upstream=upstream)
        wide = x.astype(float)
        ideal = (
            mps.neuron.forward(d, wide) if upstream is None else mps.neuron.gradient(d, wide, upstream.astype(float))
        )
        real = (bounds.reason == 0) & np.isfinite(ideal) & (np.abs(ideal) < np.finfo(np.float32).max) & np.isfinite(got)
        lower, upper, seen, ideal = (each[real].astype(float) for each in (bounds.lower, bounds.upper, got, ideal))
        return _ratio(np.maximum(upper - ideal, ideal - lower), np.abs(seen - ideal))
    return ""


def sweep_page() -> str:
    """The page on sweeps, with its table of the committed reports generated anew."""
    head = ["| implementation | neuron | direction | format | exact | within 1 ULP | largest | NaN | infinity |"]
    rows = [*head, "|---|---|---|---|---:|---:|---:|---:|---:|", *sweep_rows(Path(__file__).parent / "sweeps")]
    return _filled("sweep.md", SWEEPS, rows, _filled("sweep.md", ACTIVATIONS, activation_rows()))


def activation_rows() -> list[str]:
    """The activations that libraries have by name, as rows of Markdown."""
    head = ["activation", "neuron", *libraries.LIBRARIES]
    lines = [f"| {' | '.join(head)} |", "|---|---|" + ":-:|" * len(libraries.LIBRARIES)]
    for name, row in libraries.ACTIVATIONS.items():
        parameters = "".join(f", {key} = {value:.4g}" for key, value in row.parameters.items())
        known = ["yes" if library in row.calls else "" for library in libraries.LIBRARIES]
        lines.append(f"| `{name}` | {' | '.join([row.neuron + parameters, *known])} |")
    return lines


def activations_page() -> str:
    """The page on bfloat16 and other activations, with the rows and what libraries gave."""
    lines = ["| name | parameters | value | slope | kinks: left, right, here | source |", "|---|---|---|---|---|---|"]
    for activation, row in ACTIVATIONS_BY_TYPE.items():
        d = Activation(activation)
        parameters = ", ".join(f"{name} = {np.float32(value)!s}" for name, value in d.parameters.items())
        at = np.float32(row.kinks(d))
        here = mps.neuron.gradient(d, at, np.ones_like(at)).tolist()
        kinks = "; ".join(
            f"{x:g}: {left:.4g}, {right:.4g}, {slope:.4g}"
            for x, (left, right), slope in zip(at.tolist(), row.sides(d), here, strict=True)
        )
        formulas = [f"`{text.replace('|', chr(92) + '|')}`" for text in (row.formula, row.slope)]
        cells = [f"`{activation.name}`", parameters or "none", *formulas, kinks or "none", row.source]
        lines.append(f"| {' | '.join(cells)} |")
    measured = measured_rows(json.loads((Path(__file__).parent / "bfloat16.json").read_text("utf-8")))
    return _filled("activations.md", MEASURED, measured, _filled("activations.md", ACTIVATIONS, lines))


def measured_rows(measured: dict[str, Any]) -> list[str]:
    """What libraries gave for every bfloat16, and their slopes at kinks, as lines of Markdown."""
    names = list(measured["versions"])
    head = [f"{name} {version}" for name, version in measured["versions"].items()]
    lines = [f"| activation | {' | '.join(head)} |", "|---|" + "---:|" * len(head)]
    for subject, cells in measured["sweeps"].items():
        found = [" / ".join(f"{cells[name][i]:,}" for i in (0, 1, 3)) if name in cells else "" for name in names]
        lines.append(f"| {subject} | {' | '.join(found)} |")
    lines += ["", "Slopes at kinks, in float32:", "", f"| activation | x | mpsref | {' | '.join(names)} |"]
    lines.append("|---|---:|" + "---:|" * (1 + len(names)))
    for activation, slopes in measured["kinks"].items():
        for i, x in enumerate(slopes["at"]):
            cells = [f"{slopes[name][i]:.5g}" if slopes.get(name) else "" for name in ("mpsref", *names)]
            lines.append(f"| {activation} | {x:g} | {' | '.join(cells)} |")
    return lines


def comparison_page() -> str:
    """The page that compares with others as it stands, with the table of times made anew."""
    return _filled("comparison.md", TIMES, time_rows(Path(__file__).parent / "speed.json"))


def time_rows(measured: Path) -> list[str]:
    """How long mpsref takes beside peers that people may choose instead, as rows of Markdown."""
    results = json.loads(measured.read_text("utf-8"))
    mean = runpy.run_path(str(measured.parents[1] / "benchmarks" / "page.py"))["geometric_mean"]
    versions = results["about"]["versions"]
    lines = [f"| work | onnx.reference {versions['onnx']} | torch {versions['torch']} |", "|---|---:|---:|"]
    for storage, direction in (("float32", "forward"), ("float32", "gradient"), ("float16", "forward")):
        rows = results[storage][direction].values()
        cells = [storage + " " + direction]
        for peer in ("onnx.reference", "torch"):
            ratios = [seconds["mpsref"] / seconds[peer] for seconds in rows if peer in seconds]
            cells.append(f"{mean(ratios):.2f}x" if ratios else "none")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


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


def implementations_page() -> str:
    """The page on attacks, with its table generated anew."""
    head = "| library | attacked: functions and formats | without a failure | kinds of failures |"
    return _filled("implementations.md", FINDINGS, [head, "|---|---:|---:|---:|", *map(_findings_row, _findings())])


def _findings() -> list[Path]:
    return sorted((Path(__file__).parent / "findings").glob("*.json"), key=lambda path: LIBRARIES.index(path.stem))


def _findings_row(path: Path) -> str:
    attacks = json.loads(path.read_text("utf-8"))["attacks"]
    failures = [bool(attack.get("error")) + len(attack.get("failures", ())) for attack in attacks]
    return f"| [{path.stem}](findings/{path.stem}.md) | {len(attacks)} | {failures.count(0)} | {sum(failures)} |"


def findings_page(path: Path) -> str:
    """The findings of attacks on one library."""
    findings = json.loads(path.read_text("utf-8"))
    used = {k: v for k, v in findings["software"].items() if k not in OURS or k in ("numpy", "scipy")}
    versions = ", ".join(f"{k} {v}" for k, v in used.items())
    text = f"[Findings](../implementations.md) says how it was attacked, and what the columns are. {versions}."
    lines = [f"# Findings in {findings['library']}", "", *textwrap.wrap(text, 120), ""]
    passed: dict[str, list[str]] = {}
    rows = []
    for attack in findings["attacks"]:
        name = attack["function"].replace("_gradient", "' ").replace("_", " ").strip()
        if attack.get("error"):
            rows.append(f"| {name} | {attack['format']} | {_escape(attack['error'])} | | | | |")
        elif not attack["failures"]:
            passed.setdefault(name, []).append(attack["format"])
        for failure in attack.get("failures", ()):
            x, got, right = (f"`{failure[each][0]}`" for each in ("x", "got", "want"))
            if failure["upstream"] and failure["upstream"][0] != "1.0":
                x += f", upstream `{failure['upstream'][0]}`"
            if failure["array"]:
                x += f" in `{failure['array']}`"
            ulp = "" if failure["ulp"] is None else f"{failure['ulp']:,}"
            row = [name, attack["format"], x, got, right, ulp, _escape(_reason(failure["why"]))]
            rows.append(f"| {' | '.join(row)} |")
    if rows:
        head = ["neuron", "format", "x", "got", "right", "ULP", "why"]
        lines += [f"| {' | '.join(head)} |", "|---|---|---|---|---|---:|---|", *rows, ""]
    if passed:
        clean = [f"{name} ({' and '.join(formats)})" for name, formats in passed.items()]
        lines += [f"No failures: {', '.join(clean)}.", ""]
    return "\n".join(lines)


def _reason(why: str) -> str:
    """The explanation of a failure, short enough for a table."""
    short = re.sub(r" arithmetic may$", " allows", why.partition(":")[0])
    return re.sub(r"^within what (\S+) arithmetic allows the formula$", r"rounding, as \1 allows", short)


def _escape(text: str) -> str:
    return text.replace("|", "\\|")


def api_page() -> str:
    """The public modules; what is in them, each build of the site writes."""
    return "\n".join(
        [
            "# API",
            "",
            "The public modules. Every public name has a docstring with an example that runs. Python shows it,",
            "`help(mpsref.MPSNNGraph)`, and so does [the site](../CONTRIBUTING.md#documents), where each class has",
            "a page.",
            "",
            "| module | what is in it |",
            "|---|---|",
            *_beside("api.py")["summaries"](),
            "",
            "```{toctree}",
            ":hidden:",
            ":glob:",
            "",
            "api/*",
            "```",
            "",
        ]
    )


def _beside(name: str) -> dict[str, Any]:
    return runpy.run_path(str(Path(__file__).parent / name))


PAGES = {
    "neurons.md": neurons_page,
    "errata.md": errata_page,
    "special-values.md": special_values_page,
    "stepwise.md": stepwise_page,
    "bounds.md": bounds_page,
    "faults.md": faults_page,
    "speed.md": speed_page,
    "proof.md": proof_page,
    "swift.md": swift_page,
    "sweep.md": sweep_page,
    "activations.md": activations_page,
    "api.md": api_page,
    "comparison.md": comparison_page,
    "command-line.md": command_line_page,
    **{f"drawings/{name}": draw for name, draw in _beside("drawings.py")["DRAWINGS"].items()},
    **{f"neurons/{neuron_type.name}.md": partial(neuron_page, neuron_type) for neuron_type in mps.NEURONS},
    "implementations.md": implementations_page,
    **{f"findings/{path.stem}.md": partial(findings_page, path) for path in _findings()},
}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (Path(__file__).parent / name).write_text(page(), encoding="utf-8")
