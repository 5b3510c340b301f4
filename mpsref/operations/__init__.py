"""What nodes do, one file per kind of operation: sizes, values, formula, gradient and texts."""

from mpsref.operations.arithmetic import (
    Arithmetic,
    Difference,
    Ones,
    Product,
    ProductGradient,
    Scaling,
    Sum,
    SumOfProducts,
)
from mpsref.operations.base import Operation, Role, Size, size_of, size_text
from mpsref.operations.neuron import NeuronForward, NeuronGradient, NeuronOperation

__all__ = [
    "Arithmetic",
    "Difference",
    "NeuronForward",
    "NeuronGradient",
    "NeuronOperation",
    "Ones",
    "Operation",
    "Product",
    "ProductGradient",
    "Role",
    "Scaling",
    "Size",
    "Sum",
    "SumOfProducts",
    "size_of",
    "size_text",
]
