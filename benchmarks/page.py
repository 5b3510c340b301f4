"""The page of results: goals and tables, from what measure.py wrote and nothing else."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

MEBIBYTE = 2**20
Row = tuple[str, str, str, bool | None]
"""Work, goal, what was measured, whether that reaches the goal; None where it was not measured."""


def page(results: Mapping[str, Any]) -> str:
    """Markdown."""
    parts = [_head(results), _goals(results)]
    for name in ("float32", "float16"):
        if name in results:
            parts += [_neurons(results, name, kind) for kind in ("forward", "gradient")]
    parts += [_small(results), *_windows(results), _workers(results), _peers(results)]
    return "\n".join(line for part in parts if part for line in part)


# ---- goals ----


def goals(results: Mapping[str, Any]) -> list[Row]:
    """All goals, in the order of the page."""
    eager = _ratios(results, ("float32", "forward"), "torch")
    numpy = _ratios(results, ("float32", "forward"), "numpy float64")
    backward = _ratios(results, ("float32", "gradient"), "torch")
    copy = _ratios(results, ("float16", "forward"), "memcpy")
    half = _ratios(results, ("float16", "forward"), "torch")
    onnx = _ratios(results, ("float16", "forward"), "onnx.reference")
    half_numpy = _ratios(results, ("float16", "gradient"), "numpy float16")
    size = math.prod(results["about"]["shape"])
    return [
        _mean("float32 forward", "torch eager", 2.0, eager),
        _each("float32 forward", "torch eager", 6, eager, {"geLU": 10}),
        _each("float32 forward", "the numpy one-liner in float64", 1, numpy, wording="every neuron faster than"),
        _mean("float32 forward", "the numpy one-liner in float64", 0.5, numpy),
        _mean("float32 gradient", "torch's backward operations", 3, backward),
        _each("float16 forward", "memcpy", 8, copy),
        _mean("float16 forward", "torch", 1.5, half),
        _mean("float16 forward", "onnx.reference", 0.15, onnx),
        _mean("float16 gradient", "the numpy one-liner in float16", 0.4, half_numpy),
        _two_workers(f"2 workers, {size:,} elements, float32 forward", results.get("workers", {})),
        *(
            _each(f"1,024 elements, {name} forward, one call", "torch eager", 3, ratios)
            for name in ("float32", "float16")
            for ratios in [_ratios(results, ("small", name), "torch")]
        ),
        *(_chain(name, results.get("chain", {}).get(name)) for name in ("float32", "float16")),
        _memory(results),
        *(_window_goals(results["windows"]) if "windows" in results else ()),
    ]


def _mean(work: str, peer: str, limit: float, ratios: Mapping[str, float] | None) -> Row:
    goal = f"geometric mean at most {limit:g}x {peer}"
    if ratios is None:
        return work, goal, "-", None
    mean = geometric_mean(ratios.values())
    return work, goal, f"{mean:.2f}x", mean <= limit


def _each(
    work: str,
    peer: str,
    limit: float,
    ratios: Mapping[str, float] | None,
    others: Mapping[str, float] | None = None,
    wording: str = "",
) -> Row:
    """For every neuron; `others` have their own limits."""
    others = others or {}
    goal = f"{wording or f'every neuron at most {limit:g}x'} {peer}"
    goal += "".join(f", {name} {own:g}x" for name, own in others.items())
    if ratios is None:
        return work, goal, "-", None
    beyond = {name: ratio for name, ratio in ratios.items() if ratio > others.get(name, limit)}
    worst = max(ratios, key=lambda name: ratios[name] / others.get(name, limit))
    measured = f"{worst} {ratios[worst]:.2f}x"
    if beyond:
        measured += f"; {len(beyond)} of {len(ratios)} beyond"
    return work, goal, measured, not beyond


def _two_workers(work: str, measured: Mapping[str, Any]) -> Row:
    goal = "geometric mean at least 1.6x as fast as 1"
    if "forward" not in measured:
        return work, goal, measured.get("missing", "-"), None
    faster = {name: seconds["1"] / seconds["2"] for name, seconds in measured["forward"].items()}
    mean, least = geometric_mean(faster.values()), min(faster, key=lambda name: faster[name])
    return work, goal, f"{mean:.2f}x; least {least} {faster[least]:.2f}x", mean >= 1.6


def _chain(name: str, seconds: Mapping[str, float] | None) -> Row:
    work, goal = f"a chain of 1,000 nodes on 8x8x16, {name}", "at most 1.3x as many plain forward calls"
    if seconds is None:
        return work, goal, "-", None
    ratio = seconds["graph"] / seconds["calls"]
    return work, goal, f"{ratio:.2f}x", ratio <= 1.3


def _memory(results: Mapping[str, Any]) -> Row:
    work, goal = "peak memory of a graph run", "sources + live images + 16 MiB"
    found = {
        name: (results[section]["peak"] - results[section]["live"]) / MEBIBYTE
        for section, name in (("resident", "resident set"), ("memory", "tracemalloc"))
        if "peak" in results.get(section, {})
    }
    if not found:
        return work, goal, "-", None
    measured = ", ".join(f"+ {extra:.1f} MiB ({name})" for name, extra in found.items())
    return work, goal, measured, max(found.values()) <= 16


def _window_goals(measured: Mapping[str, Any]) -> Iterable[Row]:
    """Of the shapes of convolutions and pooling."""
    for name, works in measured.items():
        for work, shapes in works.items():
            limit = 4.0 if "pooling" in work else 6.0 if "gradient" in work else 5.0 if name == "float32" else 0.4
            reached = all("torch" in seconds for seconds in shapes.values())
            ratios = (
                {shape: seconds["mpsref"] / seconds["torch"] for shape, seconds in shapes.items()} if reached else None
            )
            yield _mean(f"{work}, {name}", "torch", limit, ratios)


def _ratios(results: Mapping[str, Any], where: tuple[str, str], peer: str) -> dict[str, float] | None:
    """mpsref's time over the peer's by neuron, if the peer has all of them."""
    rows = results.get(where[0], {}).get(where[1], {})
    if not rows or any(peer not in seconds for seconds in rows.values()):
        return None
    return {name: seconds["mpsref"] / seconds[peer] for name, seconds in rows.items()}


def geometric_mean(values: Iterable[float]) -> float:
    """Of positive numbers."""
    logarithms = [math.log(value) for value in values]
    return math.exp(sum(logarithms) / len(logarithms))


# ---- text ----


def _head(results: Mapping[str, Any]) -> list[str]:
    about = results["about"]
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    method = f"""
        Made by `python docs/generate.py` from `docs/speed.json`, which `benchmarks/run.py` measured. All candidates of
        a row take turns in one process on the same arrays; a time is the median of the rounds, here {about["rounds"]},
        after a warm-up. One thread, pinned to one core, unless a row says otherwise; torch, onnxruntime and OpenMP are
        set to one thread, without spinning. With glibc, freed memory stays with the process, so that no candidate pays
        for another's fresh pages. Compare within a row: only ratios carry over to other machines, and not all of them.
    """
    simd = f"AVX-512: {'yes' if about['avx512'] else 'no'} (numpy found {', '.join(about['simd']) or 'nothing'})"
    shape = " x ".join(map(str, about["shape"]))
    return [
        "# Speed",
        "",
        *_paragraph(method),
        "",
        f"- Machine: {about['processor']}, {about['cores']} cores, {about['system']}; {simd}",
        f"- Versions: {versions}",
        *(f"- Missing: {name} ({reason})" for name, reason in about["missing"].items()),
        f"- Arrays: {shape}, {math.prod(about['shape']):,} elements",
        "- x from N(0, 2), for power and logarithm |x| + 0.5; g from N(0, 1); a gradient is g times the slope at x",
    ]


def _goals(results: Mapping[str, Any]) -> list[str]:
    words = {True: "yes", False: "**no**", None: "-"}
    text = """
        mpsref's time over the peer's. Where every neuron has to reach a goal, the one nearest to it or furthest beyond
        is shown. The memory is that of a chain of 8 nodes on one image of all the elements, of which two are live at a
        time beyond the source; the resident set counts what allocators and modules loaded on the way keep, tracemalloc
        only arrays and objects, and the larger one counts.
    """
    rows = [(work, goal, measured, words[reached]) for work, goal, measured, reached in goals(results)]
    return [
        "",
        "## Goals",
        "",
        *_paragraph(text),
        "",
        *_table(("work", "goal", "measured", "reached"), rows, "---|---|---|---"),
    ]


def _neurons(results: Mapping[str, Any], section: str, kind: str) -> list[str]:
    """Nanoseconds an element, and what mpsref's are in terms of the peer's."""
    size = math.prod(results["about"]["shape"])
    text = "Nanoseconds an element; in brackets mpsref's time over the peer's."
    if kind == "gradient":
        text += " torch's operation may read the saved forward result; torch from x does not."
    first = None
    if section == "float16" and kind == "forward":
        text += " First call: milliseconds of the one that makes the table of all 65,536 values, once per descriptor."
        first = results[section]["first call"]
    rows = _cells(results[section][kind], 1e9 / size)
    if first is not None:
        rows[0].append("first call")
        for row in rows[1:-1]:
            row.append(f"{first[row[0]] * 1e3:.2f}")
        rows[-1].append("")
    return ["", f"## {section} {kind}", "", *_paragraph(text), "", *_table(rows[0], rows[1:])]


def _small(results: Mapping[str, Any]) -> list[str]:
    lines = []
    for name, measured in results.get("small", {}).items():
        rows = _cells(measured, 1e6)
        lines += ["", f"## 1,024 elements, {name} forward", "", "Microseconds a call.", "", *_table(rows[0], rows[1:])]
    return lines


def _windows(results: Mapping[str, Any]) -> Iterable[list[str]]:
    text = """
        Milliseconds a call; in brackets mpsref's time over the peer's. N(0, 1) everywhere, weights over the square root
        of their number. numpy float64 gathers the windows and multiplies once, without a bound. torch's gradient of max
        pooling reads where the forward pass found the largest numbers; torch from x looks for them, as mpsref does.
    """
    for name, works in results.get("windows", {}).items():
        for work, shapes in works.items():
            rows = _cells(shapes, 1e3)
            rows[0][0] = "shape"
            yield ["", f"## {work}, {name}", "", *_paragraph(text), "", *_table(rows[0], rows[1:])]


def _workers(results: Mapping[str, Any]) -> list[str]:
    measured = results.get("workers", {}).get("forward")
    if measured is None:
        return []
    per_element = 1e9 / math.prod(results["about"]["shape"])
    rows = [
        (name, *(f"{seconds[n] * per_element:.2f}" for n in "12"), f"{seconds['1'] / seconds['2']:.2f}x")
        for name, seconds in measured.items()
    ]
    lines = _table(("neuron", "1 worker", "2 workers", "faster"), rows)
    return ["", "## Two workers, float32 forward", "", "Nanoseconds an element, not pinned.", "", *lines]


def _cells(measured: Mapping[str, Mapping[str, float]], scale: float) -> list[list[str]]:
    """A heading, a row for each neuron, and one of geometric means, over the neurons that the peer has."""
    names = list(dict.fromkeys(name for seconds in measured.values() for name in seconds))
    rows = [["neuron", *names]]
    for neuron, seconds in measured.items():
        row = [neuron]
        for name in names:
            cell = "-" if name not in seconds else f"{seconds[name] * scale:.2f}"
            if name != "mpsref" and name in seconds:
                cell += f" ({seconds['mpsref'] / seconds[name]:.2f}x)"
            row.append(cell)
        rows.append(row)
    means = ["geometric mean"]
    for name in names:
        both = [(seconds["mpsref"], seconds[name]) for seconds in measured.values() if name in seconds]
        cell = f"{geometric_mean(own for _, own in both) * scale:.2f}"
        means.append(cell if name == "mpsref" else f"{cell} ({geometric_mean(own / its for own, its in both):.2f}x)")
    return [*rows, means]


def _peers(results: Mapping[str, Any]) -> list[str]:
    """What ran."""
    text = """
        numpy float64 is the numpy one-liner on `x.astype(np.float64)`, cast back. Methods that end in an underscore
        work in place. torch is eager: single operations, or a few in a row where it has no single one. torch's backward
        operation of pReLU makes the gradient of the slopes as well. onnxruntime, in float32 only, ran the same model as
        onnx.reference; neither has gradients. Parameters that are not given are the defaults; pReLU has one slope a
        channel, from 0.05 to 0.3. `y` is the saved forward result, `F` is `torch.nn.functional`, `aten` is
        `torch.ops.aten`, `erf` is scipy's.
    """
    lines = [
        "",
        "## What ran",
        "",
        *_paragraph(text),
    ]
    for title, keys in (
        ("Forward", ("parameters", "torch", "onnx", "numpy")),
        ("Gradient", ("torch gradient", "torch from x", "numpy gradient")),
    ):
        rows = [
            (name, *(f"`{shown[key]}`".replace("|", "\\|") if shown[key] else "" for key in keys))
            for name, shown in results["about"]["candidates"].items()
        ]
        lines += ["", f"### {title}", "", *_table(("neuron", *keys), rows, "---|" * len(keys) + "---")]
    return [*lines, ""]


def _paragraph(text: str) -> list[str]:
    return textwrap.wrap(" ".join(text.split()), 118, break_on_hyphens=False, break_long_words=False)


def _table(head: Iterable[str], rows: Iterable[Iterable[str]], rule: str = "") -> list[str]:
    head = list(head)
    rule = rule or "|".join(["---", *["---:"] * (len(head) - 1)])
    return [f"| {' | '.join(head)} |", f"|{rule}|", *(f"| {' | '.join(row)} |" for row in rows)]
