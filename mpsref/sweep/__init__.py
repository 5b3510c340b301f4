"""
Sweeps: an implementation of a neuron compared at every input of a format; ``mpsref sweep`` on the command line.

Examples
--------
>>> import numpy as np
>>> import mpsref as mps
>>> from mpsref.sweep import sweep
>>> d = mps.MPSNNNeuronDescriptor(mps.MPSCNNNeuronType.absolute)
>>> sweep(np.abs, d, format=mps.MPSImageFeatureChannelFormat.float16).verdict
'PASS: all 65,536 results are exact'
"""

from mpsref.sweep.implementation import Implementation
from mpsref.sweep.report import Subject, SweepReport, merge
from mpsref.sweep.run import sweep
from mpsref.sweep.summary import Mismatch, Summary

__all__ = ["Implementation", "Mismatch", "Subject", "Summary", "SweepReport", "merge", "sweep"]
