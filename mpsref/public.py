"""The public names of `mpsref`, imported when the first of them is used."""

from typing import TYPE_CHECKING

from mpsref import enums, errors, graph, image
from mpsref import neuron as neuron
from mpsref.enums import *
from mpsref.errors import *
from mpsref.executor import MPSNNGraph as MPSNNGraph
from mpsref.graph import *
from mpsref.image import *
from mpsref.neuron.descriptor import MPSNNNeuronDescriptor as MPSNNNeuronDescriptor
from mpsref.neuron.table import NEURONS as NEURONS
from mpsref.operations import ArrayDataSource as ArrayDataSource
from mpsref.operations import FixedPadding as FixedPadding
from mpsref.operations import MPSCNNConvolutionDataSource as MPSCNNConvolutionDataSource
from mpsref.operations import MPSCNNConvolutionDescriptor as MPSCNNConvolutionDescriptor
from mpsref.operations import MPSCNNDepthWiseConvolutionDescriptor as MPSCNNDepthWiseConvolutionDescriptor
from mpsref.operations import MPSNNDefaultPadding as MPSNNDefaultPadding
from mpsref.operations import MPSNNPadding as MPSNNPadding
from mpsref.operations import MPSOffset as MPSOffset
from mpsref.states import MPSCNNConvolutionGradientState as MPSCNNConvolutionGradientState

if not TYPE_CHECKING:  # type checkers read only literal lists, and without a list take every name
    __all__ = [
        "NEURONS",
        "ArrayDataSource",
        "FixedPadding",
        "MPSCNNConvolutionDataSource",
        "MPSCNNConvolutionDescriptor",
        "MPSCNNConvolutionGradientState",
        "MPSCNNDepthWiseConvolutionDescriptor",
        "MPSNNDefaultPadding",
        "MPSNNGraph",
        "MPSNNNeuronDescriptor",
        "MPSNNPadding",
        "MPSOffset",
        "neuron",
        *enums.__all__,
        *errors.__all__,
        *graph.__all__,
        *image.__all__,
    ]
