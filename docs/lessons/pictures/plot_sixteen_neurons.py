"""
The sixteen neurons
===================

Each with its derivative, at its default parameters; pReLU has no default, and gets a slope of 0.25.
Kinks are marked, and so is where a neuron is not a real number. At their defaults linear and power
change nothing, and reLUN only cuts at 6, as Apple documents them: parameters make them what they
are for.
"""

# sphinx_gallery_thumbnail_number = 2
import matplotlib.pyplot as plt
import numpy as np

import mpsref as mps
from mpsref import teach

teach.plot_gallery(columns=2)
plt.show()

# sphinx_gallery_start_ignore
some = np.float32([-7, -1, 0, 2, 6, 9])
for name, result in (("linear", some), ("power", some), ("reLUN", np.minimum(some, 6))):
    neuron = mps.MPSNNNeuronDescriptor(mps.MPSCNNNeuronType[name])
    assert np.array_equal(mps.neuron.forward(neuron, some), result)
# sphinx_gallery_end_ignore

# %%
# The formulas are in :doc:`/neurons`.
#
# With other parameters
# ---------------------
#
# A clipped reLU, a square root, a power of two, and a logarithm to base 2:

T = mps.MPSCNNNeuronType
fig, axes = plt.subplots(2, 2, figsize=(9, 6.5), layout="constrained")
for ax, neuron in zip(
    axes.flat,
    (
        mps.MPSNNNeuronDescriptor(T.reLUN, a=0, b=6),
        mps.MPSNNNeuronDescriptor(T.power, a=1, b=0, c=0.5),
        mps.MPSNNNeuronDescriptor(T.exponential, a=1, b=0, c=2),
        mps.MPSNNNeuronDescriptor(T.logarithm, a=1, b=0, c=2),
    ),
    strict=True,
):
    teach.plot_neuron(neuron, ax=ax)
plt.show()
