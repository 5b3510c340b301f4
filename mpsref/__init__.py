"""mpsref."""
from mpsref.enums import *
from mpsref.errors import *
from mpsref.image import *
from mpsref import neuron
from mpsref.neuron.descriptor import MPSNNNeuronDescriptor
