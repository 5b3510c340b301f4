"""Write the pages that are made from the neuron table: ``python docs/generate.py``."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import mpsref as mps


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


def _escape(text: str) -> str:
    return text.replace("|", "\\|")


PAGES = {"neurons.md": neurons_page, "errata.md": errata_page}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (Path(__file__).parent / name).write_text(page(), encoding="utf-8")
