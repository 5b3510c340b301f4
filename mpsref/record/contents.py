"""The contents of a file: a recording, a graph, or arrays."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mpsref.arguments import checked
from mpsref.arrays import meaning
from mpsref.display import printable, table
from mpsref.documents import read_json
from mpsref.errors import FileFormatError
from mpsref.graph import GraphFile, check
from mpsref.image import MPSImage
from mpsref.record.convert import ENDINGS, read_images
from mpsref.record.recording import Recording, is_npy, read_npy

__all__ = ["contents", "contents_text"]

_COUNTS = ("NaN", "+inf", "-inf", "+0", "-0", "subnormal", "distinct")


@checked
def contents(path: str | Path) -> dict[str, Any]:
    """
    Describe a recording, a graph file, a ``.npy``, ``.npz`` or ``.safetensors`` file, as JSON.

    Raises
    ------
    FileFormatError
        The file is none of these, or damaged.
    """
    path = Path(path)
    if is_npy(path):
        return {"kind": "array", "images": {path.stem: _statistics(read_npy(path))}}
    if path.name.endswith(ENDINGS):
        return {"kind": "arrays", "images": {name: _statistics(image) for name, image in read_images(path).items()}}
    document = read_json(path)
    kind = document.get("format") if isinstance(document, dict) else None
    if kind == "mpsref-graph":
        return {"kind": "graph", **_graph(GraphFile.read(path))}
    if kind == "mpsref-recording":
        recording = Recording.read(path, complete=False)
        graph, images = recording.graph, {}
        for name in graph.images:
            if name in recording.images:
                role = "source" if graph.images[name].producer is None else "written"
                images[name] = {"role": role, **_statistics(recording.images[name].read())}
        missing = {name: file.name for name, file in recording.missing.items()}
        return {"kind": "recording", "device": recording.device, "images": images, "missing": missing, **_graph(graph)}
    raise FileFormatError(
        f"{path}: no recording, graph, .npy, {', '.join(ENDINGS)}: raw elements say nothing of themselves"
    )


def _statistics(image: MPSImage) -> dict[str, Any]:
    """Size, format, and counts of the values of one image."""
    stored, storage, d = image.to_array(), image.storage, image.descriptor
    elements, number = np.unique(stored.view(storage.bits_dtype), return_counts=True)
    kinds = elements.view(storage.dtype)
    values = meaning(kinds, storage)
    finite = np.isfinite(values)
    size = np.abs(values)

    def count(where: Any) -> int:
        return int(number[where].sum())

    zero = size == 0
    subnormal = np.zeros_like(zero) if storage.unorm_max else ~zero & (size < storage.limits.smallest_normal)
    numbers = values[finite]
    # Exact products, summed exactly: the same mean on every machine.
    total = math.fsum((numbers * number[finite]).tolist())
    return {
        "format": storage.name,
        "number_of_images": d.number_of_images,
        "height": d.height,
        "width": d.width,
        "feature_channels": d.feature_channels,
        "min": float(numbers.min()) if numbers.size else None,
        "max": float(numbers.max()) if numbers.size else None,
        "mean": total / count(finite) if numbers.size else None,
        "NaN": count(np.isnan(values)),
        "+inf": count(values == np.inf),
        "-inf": count(values == -np.inf),
        "+0": count(zero & ~np.signbit(values)),
        "-0": count(zero & np.signbit(values)),
        "subnormal": count(subnormal),
        "distinct": int((~np.isnan(values)).sum()) + bool(np.isnan(values).any()),
    }


def _graph(file: GraphFile) -> dict[str, Any]:
    document = file.to_json({})
    sources = [name for name, image in file.images.items() if image.producer is None]
    findings = [{"image": each.name, "field": each.field, "text": each.text} for each in check(file)]
    return {"storage": document["storage"], "sources": sources, "results": document["results"],
            "nodes": document["nodes"], "settings": document.get("images", {}), "findings": findings}  # fmt: skip


# ---- as text ----


@checked
def contents_text(facts: Mapping[str, Any]) -> str:
    """What `contents` returned, as text for people."""
    blocks = []
    if "device" in facts:
        blocks.append([f"device   {facts['device']}"])
    if "images" in facts:
        blocks.append(_images_text(facts["images"]))
    if facts.get("missing"):
        blocks.append([f"missing  {name}: {file}" for name, file in facts["missing"].items()])
    if "nodes" in facts:
        blocks.append([f"{title:9}{', '.join(facts[title]) if title != 'storage' else facts[title]}"
                       for title in ("storage", "sources", "results")])  # fmt: skip
        blocks.append(_nodes_text(facts["nodes"]))
        if facts["settings"]:
            blocks.append([f"{name}: {_pairs(setting)}" for name, setting in facts["settings"].items()])
        if facts["findings"]:
            blocks.append(["suspicious:", *("  {image}: {field} {text}".format(**each) for each in facts["findings"])])
    return "\n\n".join("\n".join(map(printable, lines)) for lines in blocks)


def _images_text(images: Mapping[str, Mapping[str, Any]]) -> list[str]:
    rows: list[list[str]] = [["image", "format", "N x H x W x C", "min", "max", "mean", *_COUNTS]]
    for name, facts in images.items():
        size = " x ".join(str(facts[f]) for f in ("number_of_images", "height", "width", "feature_channels"))
        numbers = ["none" if facts[f] is None else f"{facts[f]:.6g}" for f in ("min", "max", "mean")]
        rows.append([name, facts["format"], size, *numbers, *(f"{facts[c]:,}" for c in _COUNTS)])
    return table(rows, left=2)


STATES = ("gradient_state", "convolution_gradient_state")


def _nodes_text(nodes: Sequence[Mapping[str, Any]]) -> list[str]:
    rows = [["node", "class", "reads", "makes", "parameters"]]
    for i, node in enumerate(nodes):
        parameters = dict(node.get("descriptor", {}))
        parameters |= {f: v for f, v in node.items()
                       if f not in ("class", "result", "descriptor", "sources", *STATES)
                       and not f.startswith("source")}  # fmt: skip
        reads = [
            *(v for f, v in node.items() if f.startswith("source") and isinstance(v, str)),
            *node.get("sources", ()),
        ]
        state = "".join(f" (state of {node[field]})" for field in STATES if field in node)
        rows.append([str(i), node["class"], ", ".join(reads) + state, node["result"], _pairs(parameters)])
    return table(rows, left=5)


def _pairs(fields: Mapping[str, Any]) -> str:
    def text(value: Any) -> str:
        if isinstance(value, list) and len(value) > 4:
            return f"{len(value)} values, {min(value)} to {max(value)}"
        return value if isinstance(value, str) else json.dumps(value)

    return ", ".join(f"{name} = {text(value)}" for name, value in fields.items())
