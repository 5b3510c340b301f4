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
from mpsref.operations.base import Operation, Role, Size, size_text
from mpsref.operations.convolution import Convolution, ConvolutionGradient, ConvolutionOperation
from mpsref.operations.neuron import NeuronForward, NeuronGradient, NeuronOperation
from mpsref.operations.padding import (
    FixedPadding,
    MPSNNDefaultPadding,
    MPSNNPadding,
    MPSOffset,
    PaddedKernel,
    policy_or_error,
)
from mpsref.operations.pooling import Average, AverageGradient, Maximum, MaximumGradient
from mpsref.operations.weights import (
    ArrayDataSource,
    MPSCNNConvolutionDataSource,
    MPSCNNConvolutionDescriptor,
    MPSCNNDepthWiseConvolutionDescriptor,
    Weights,
    weights_of,
)
from mpsref.operations.window import Sliding, Windowed, WindowSum

__all__ = [
    "Arithmetic",
    "ArrayDataSource",
    "Average",
    "AverageGradient",
    "Convolution",
    "ConvolutionGradient",
    "ConvolutionOperation",
    "Difference",
    "FixedPadding",
    "MPSCNNConvolutionDataSource",
    "MPSCNNConvolutionDescriptor",
    "MPSCNNDepthWiseConvolutionDescriptor",
    "MPSNNDefaultPadding",
    "MPSNNPadding",
    "MPSOffset",
    "Maximum",
    "MaximumGradient",
    "NeuronForward",
    "NeuronGradient",
    "NeuronOperation",
    "Ones",
    "Operation",
    "PaddedKernel",
    "Product",
    "ProductGradient",
    "Role",
    "Scaling",
    "Size",
    "Sliding",
    "Sum",
    "SumOfProducts",
    "Weights",
    "WindowSum",
    "Windowed",
    "policy_or_error",
    "size_text",
    "weights_of",
]
