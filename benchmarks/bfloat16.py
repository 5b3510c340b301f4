"""What torch, JAX, MLX and TensorFlow make of every bfloat16, and of kinks: ``python benchmarks/bfloat16.py``."""

import json
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np

import mpsref as mps
from mpsref.errors import DependencyError, ImplementationError
from mpsref.neuron.descriptor import neuron_of
from mpsref.sweep import sweep
from mpsref.sweep.libraries import ACTIVATIONS, DERIVING, adapter

PAGE = Path(__file__).parents[1] / "docs" / "bfloat16.json"
DIRECTIONS = "forward", "gradient"

MEETING = {"celu": (0.0,)}
"""Where branches meet without a kink."""


def count(name, descriptor, direction):
    """All 65,536 patterns: not exact, more than 1 ULP off, the largest distance, and NaN or infinity for a number."""
    try:
        report = sweep(name, descriptor, format="bfloat16", direction=direction)
    except (DependencyError, ImplementationError) as error:
        print(name, direction, error, file=sys.stderr)
        return None
    summary = report.summary
    near = summary.histogram.get(0, 0) + summary.histogram.get(1, 0)
    apart = summary.nan_disagreements + summary.infinity_disagreements
    return [summary.beyond, summary.elements - near - apart, summary.largest, apart]


def slopes(name, descriptor, at):
    """The slopes at some inputs, in float32; the right ones without a name."""
    kinks = np.float32(at)
    one = np.ones_like(kinks)
    try:
        made = mps.neuron.gradient(descriptor, kinks, one) if name is None else adapter(name).function()(kinks, one)
    except (DependencyError, ImplementationError):
        return None
    return np.asarray(made).tolist()


def main():
    rows, kinks = {}, {}
    for activation, row in ACTIVATIONS.items():
        d = neuron_of(row.neuron, row.parameters)
        names = {library: f"{library}:{activation}" for library in DERIVING if library in row.calls}
        for direction in DIRECTIONS:
            rows[f"{activation} {direction}"] = {
                library: found for library, name in names.items() if (found := count(name, d, direction)) is not None
            }
            print(activation, direction, rows[f"{activation} {direction}"], flush=True)
        if at := MEETING.get(activation, d.row.kinks(d)):
            own = {library: slopes(name, d, at) for library, name in names.items()}
            kinks[activation] = {"at": list(at), "mpsref": slopes(None, d, at), **own}
    versions = {library: version(library if library != "tensorflow" else "tensorflow_cpu") for library in DERIVING}
    document = {"versions": versions, "python": sys.version.split()[0], "sweeps": rows, "kinks": kinks}
    PAGE.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
