"""The JSON Schema of graph files, from the node classes; ``python -m mpsref.graph.schema`` prints it."""

from __future__ import annotations

import json
import sys
from typing import Any

from mpsref.enums import MPSImageFeatureChannelFormat
from mpsref.graph.arithmetic import (
    MPSNNAdditionGradientNode,
    MPSNNAdditionNode,
    MPSNNInitialGradientNode,
    MPSNNMultiplicationGradientNode,
    MPSNNMultiplicationNode,
    MPSNNSubtractionGradientNode,
    MPSNNSubtractionNode,
)
from mpsref.graph.fields import FIXED, FLOAT32, NAME, POLICIES, SLOPES, Field
from mpsref.graph.layers import (
    MPSCNNConvolutionGradientNode,
    MPSCNNConvolutionNode,
    MPSCNNFullyConnectedGradientNode,
    MPSCNNFullyConnectedNode,
    MPSCNNPoolingAverageGradientNode,
    MPSCNNPoolingAverageNode,
    MPSCNNPoolingMaxGradientNode,
    MPSCNNPoolingMaxNode,
)
from mpsref.graph.neurons import NEURON_NODES, MPSCNNNeuronGradientNode, MPSCNNNeuronNode
from mpsref.graph.nodes import MPSNNFilterNode
from mpsref.neuron.table import NEURONS, Neuron
from mpsref.operations.weights import DESCRIPTORS, LAYOUTS, OPTIONS, SIZES
from mpsref.storage import ArrayFormat

__all__ = ["NODE_CLASSES", "graph_schema"]

_CLASSES: tuple[type[MPSNNFilterNode], ...] = (
    *NEURON_NODES,
    MPSCNNNeuronNode,
    MPSCNNNeuronGradientNode,
    MPSNNAdditionNode,
    MPSNNAdditionGradientNode,
    MPSNNSubtractionNode,
    MPSNNSubtractionGradientNode,
    MPSNNMultiplicationNode,
    MPSNNMultiplicationGradientNode,
    MPSNNInitialGradientNode,
    MPSCNNConvolutionNode,
    MPSCNNConvolutionGradientNode,
    MPSCNNFullyConnectedNode,
    MPSCNNFullyConnectedGradientNode,
    MPSCNNPoolingMaxNode,
    MPSCNNPoolingMaxGradientNode,
    MPSCNNPoolingAverageNode,
    MPSCNNPoolingAverageGradientNode,
)

NODE_CLASSES = {node.__name__: node for node in _CLASSES}
"""The node classes that a graph file can hold: all that can be instantiated."""

MOST_NODES = 100_000


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
            "storage": {"enum": [*formats, *ArrayFormat.__members__]},
            "nodes": {"type": "array", "maxItems": MOST_NODES, "items": {"$ref": "#/$defs/node"}},
            "results": {"type": "array", "minItems": 1, "maxItems": MOST_NODES, "items": NAME},
            "result_states": {"type": "array", "maxItems": MOST_NODES, "items": NAME},
            "data_sources": {
                "type": "object",
                "maxProperties": MOST_NODES,
                "additionalProperties": {
                    "type": "object",
                    "required": ["descriptor", "weights"],
                    "additionalProperties": False,
                    "properties": {
                        "descriptor": {"$ref": "#/$defs/convolution"},
                        "weights": {"$ref": "#/$defs/array"},
                        "bias_terms": {"$ref": "#/$defs/array"},
                    },
                },
            },
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
                        "then": _descriptor(row),
                    }
                    for t, row in NEURONS.items()
                ],
            },
            "convolution": {
                "type": "object",
                "required": ["class", *SIZES],
                "additionalProperties": False,
                "properties": {"class": {"enum": list(DESCRIPTORS)}}
                | {name: {"type": "integer", "minimum": 1, "maximum": 65536} for name in (*SIZES, *OPTIONS)}
                | {
                    "fused_neuron_descriptor": {
                        "if": {"type": "object"},
                        "then": {"$ref": "#/$defs/descriptor"},
                        "else": {"enum": [None]},
                    }
                },
            },
            "array": {
                "type": "object",
                "additionalProperties": False,
                "properties": {
                    "file": {"type": "string", "minLength": 1, "maxLength": 1000},
                    "tensor": {"type": "string", "minLength": 1, "maxLength": 1000},
                    "layout": {"enum": list(LAYOUTS)},
                    "sha256": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
                    "values": {"type": "array", "items": FLOAT32, "minItems": 1, "maxItems": 65536},
                    "data_type": {"enum": ["float16", "float32"]},
                },
                "if": {"required": ["values"]},
                "else": {"required": ["file"]},
            },
            "padding": {
                "type": "object",
                "additionalProperties": False,
                "properties": {
                    "method": {"type": "integer", "minimum": 0, "maximum": 65535},
                    "policy": {"enum": list(POLICIES)},
                }
                | {
                    name: {"type": "integer", "minimum": -(2**24) if "offset" in name else 1, "maximum": 2**24}
                    for name in FIXED
                },
                "if": {"required": ["method"]},
                "then": {"properties": {"method": {}}, "additionalProperties": False},
                "else": {
                    "if": {"required": ["policy"]},
                    "then": {"properties": {"policy": {}}, "additionalProperties": False},
                    "else": {"required": list(FIXED)},
                },
            },
            "node": {
                "type": "object",
                "required": ["class", "result"],
                "properties": {"class": {"enum": list(NODE_CLASSES)}},
                "allOf": [
                    {"if": {"properties": {"class": {"const": name}}}, "then": _node(node.fields)}
                    for name, node in NODE_CLASSES.items()
                ],
            },
        },
    }


def _descriptor(row: Neuron) -> dict[str, Any]:
    parameters = {"data": SLOPES} if row.per_channel else dict.fromkeys(row.parameters, FLOAT32)
    return _closed({"neuron_type": {"type": "string"}, **parameters}, ["data"] if row.per_channel else [])


def _node(fields: tuple[Field, ...]) -> dict[str, Any]:
    common = {"class": {"type": "string"}, "label": {"type": "string", "maxLength": 10_000}, "result": NAME}
    own = {field.name: field.schema() for field in fields}
    return _closed(common | own, [field.name for field in fields if field.is_required])


def _closed(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    return {"properties": properties, "required": required, "additionalProperties": False}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(graph_schema(), indent=1) + "\n")
