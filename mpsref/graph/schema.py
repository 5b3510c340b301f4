"""The JSON Schema of a graph file, made from the node classes: ``python -m mpsref.graph.schema`` prints it."""

from __future__ import annotations

import json
import sys
from typing import Any

from mpsref.enums import MPSImageFeatureChannelFormat
from mpsref.graph import arithmetic, neurons
from mpsref.graph.nodes import MPSNNFilterNode
from mpsref.neuron.table import NEURONS, Neuron

__all__ = ["NODE_CLASSES", "graph_schema"]

NODE_CLASSES: dict[str, type[MPSNNFilterNode]] = {
    node.__name__: node for node in neurons.MPSCNNNeuronNode.__subclasses__()
}
for _node_class in (
    neurons.MPSCNNNeuronNode,
    neurons.MPSCNNNeuronGradientNode,
    arithmetic.MPSNNAdditionNode,
    arithmetic.MPSNNAdditionGradientNode,
    arithmetic.MPSNNInitialGradientNode,
):
    NODE_CLASSES[_node_class.__name__] = _node_class
"""The node classes that a graph file can hold."""

MOST_NODES = 100_000

_NAME = {"$ref": "#/$defs/name"}
_FLOAT = {"$ref": "#/$defs/float32"}
_SLOPES = {"type": "array", "items": _FLOAT, "minItems": 1, "maxItems": 1_000_000}


def graph_schema() -> dict[str, Any]:
    """A JSON Schema (2020-12) for graph files of version 1."""
    formats = [f.name for f in MPSImageFeatureChannelFormat if f]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "mpsref graph",
        "type": "object",
        "required": ["format", "version", "nodes", "results"],
        "additionalProperties": False,
        "properties": {
            "format": {"const": "mpsref-graph"},
            "version": {"const": 1},
            "storage": {"enum": formats},
            "nodes": {"type": "array", "maxItems": MOST_NODES, "items": {"$ref": "#/$defs/node"}},
            "results": {"type": "array", "minItems": 1, "maxItems": MOST_NODES, "items": _NAME},
            "images": {
                "type": "object",
                "maxProperties": 3 * MOST_NODES,
                "additionalProperties": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {
                        "format": {"enum": ["none", *formats]},
                        "export_from_graph": {"type": "boolean"},
                        "stop_gradient": {"type": "boolean"},
                    },
                },
            },
        },
        "$defs": {
            "name": {"type": "string", "minLength": 1, "maxLength": 1000},
            "float32": {"type": "number", "minimum": -3.4028235e38, "maximum": 3.4028235e38},
            "descriptor": {
                "type": "object",
                "required": ["neuron_type"],
                "properties": {"neuron_type": {"enum": [t.name for t in NEURONS]}},
                "allOf": [
                    {
                        "if": {"properties": {"neuron_type": {"const": t.name}}},
                        "then": _closed({"neuron_type": {"type": "string"}, **_parameters(row, "data")}, row, "data"),
                    }
                    for t, row in NEURONS.items()
                ],
            },
            "node": {
                "type": "object",
                "required": ["class", "result"],
                "properties": {"class": {"enum": list(NODE_CLASSES)}},
                "allOf": [
                    {"if": {"properties": {"class": {"const": name}}}, "then": _node(node)}
                    for name, node in NODE_CLASSES.items()
                ],
            },
        },
    }


def _parameters(row: Neuron, slopes: str) -> dict[str, Any]:
    return {slopes: _SLOPES} if row.per_channel else dict.fromkeys(row.parameters, _FLOAT)


def _closed(properties: dict[str, Any], row: Neuron, slopes: str, *required: str) -> dict[str, Any]:
    return {
        "properties": properties,
        "required": [*required, *([slopes] if row.per_channel else [])],
        "additionalProperties": False,
    }


def _node(node: type) -> dict[str, Any]:
    common = {"class": {"type": "string"}, "label": {"type": "string", "maxLength": 10_000}, "result": _NAME}
    gradient = {"source_gradient": _NAME, "source_image": _NAME, "gradient_state": _NAME}
    descriptor = {"descriptor": {"$ref": "#/$defs/descriptor"}}
    scales = {name: _FLOAT for name in arithmetic.NUMBERS if name.endswith("scale")}
    if issubclass(node, neurons.MPSCNNNeuronNode) and node.neuron_type is not None:
        row = NEURONS[node.neuron_type]
        return _closed({**common, "source": _NAME, **_parameters(row, "a_data")}, row, "a_data", "source")
    needed: dict[str, Any]
    optional: dict[str, Any] = {}
    if node is neurons.MPSCNNNeuronNode:
        needed = {"source": _NAME, **descriptor}
    elif node is neurons.MPSCNNNeuronGradientNode:
        needed = {**gradient, **descriptor}
    elif node is arithmetic.MPSNNAdditionNode:
        needed = {"sources": {"type": "array", "items": _NAME, "minItems": 2, "maxItems": 2}}
        optional = dict.fromkeys(arithmetic.NUMBERS, _FLOAT)
    elif node is arithmetic.MPSNNAdditionGradientNode:
        needed = {**gradient, "is_secondary_source_filter": {"type": "boolean"}}
        optional = scales
    else:
        needed = {"source": _NAME}
    return {
        "properties": {**common, **needed, **optional},
        "required": list(needed),
        "additionalProperties": False,
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(graph_schema(), indent=1) + "\n")
