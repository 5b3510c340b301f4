"""
Attack the neurons of libraries, and write what fails: ``python examples/property/attack.py FOLDER LIBRARY...``.

A library is one whose activations mpsref knows by name, such as torch, or a module of examples/sweep without its
``_neurons``, such as scipy. Each has one file in the folder, from which ``python docs/generate.py`` makes
docs/implementations.md, if the folder is docs/findings.
"""

from __future__ import annotations

import importlib
import json
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mpsref as mps
from mpsref.files import write_atomically
from mpsref.origin import software
from mpsref.sweep.libraries import ACTIVATIONS, DERIVING, LIBRARIES, Adapter
from mpsref.testing import check_implementation

MODULES = {"coremltools": ["coremltools"], "numpy": [], "onnxruntime": ["onnxruntime"], "scipy": []}
"""Libraries with a module in examples/sweep, and whose versions matter besides numpy's and scipy's."""

VARIANTS = ("", "_with_erf", "_gradient")
FORMATS = [mps.MPSImageFeatureChannelFormat.float32, mps.MPSImageFeatureChannelFormat.float16]


def attacked(library: str) -> dict[str, Any]:
    """What a library gives, neuron by neuron."""
    packages = MODULES.get(library, Adapter(library, "").packages)
    found = []
    for name, function, descriptor in functions_of(library):
        print(library, name, file=sys.stderr)
        found += [attack(function, descriptor, name, one) for one in FORMATS]
    return {"library": library, "software": {**software(*packages)}, "attacks": found}


def functions_of(library: str) -> Iterator[tuple[str, Any, mps.MPSNNNeuronDescriptor]]:
    """The functions of a library, each with its name and what it should compute."""
    if library in LIBRARIES:
        for name, row in ACTIVATIONS.items():
            if library in row.calls:
                adapter = Adapter(library, name)
                yield name, adapter.function(), adapter.descriptor
                if library in DERIVING:
                    yield f"{name}_gradient", adapter.function(), adapter.descriptor
        return
    module = importlib.import_module(f"{library}_neurons")
    parameters = getattr(module, "PARAMETERS", {})
    for neuron_type, row in mps.NEURONS.items():
        given = {"data": [0.25]} if row.per_channel else parameters.get(neuron_type.name, {})
        descriptor = mps.MPSNNNeuronDescriptor(neuron_type, **given)
        for variant in VARIANTS:
            function = getattr(module, neuron_type.name + variant, None)
            if function is not None:
                yield neuron_type.name + variant, function, descriptor


def attack(function: Any, descriptor: Any, name: str, format: mps.MPSImageFeatureChannelFormat) -> dict[str, Any]:
    """What one function gives in one format."""
    direction = "gradient" if name.endswith("_gradient") else "forward"
    facts = {"function": name, "neuron": repr(descriptor), "direction": direction, "format": format.name}
    try:
        report = check_implementation(function, descriptor, direction=direction, formats=[format])
    except mps.VerificationError as error:
        report = error.report
    except mps.ImplementationError as error:
        return {**facts, "error": str(error)}
    return {**facts, **{key: value for key, value in report.to_json().items() if key in KEPT}}


KEPT = {"bounds", "arrays", "elements", "failures"}


def main(folder: str, *libraries: str) -> None:
    """Write a file for each library."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "sweep"))
    warnings.simplefilter("ignore")
    for library in libraries or (*LIBRARIES, *MODULES):
        found = attacked(library)
        for one in found["attacks"]:
            for failure in one.get("failures", []):
                del failure["comparison"]
        text = json.dumps(found, indent=1, allow_nan=False)
        write_atomically(Path(folder) / f"{library}.json", lambda file, text=text: file.write(f"{text}\n".encode()))


if __name__ == "__main__":
    main(*sys.argv[1:])
