"""
Errors of plain formulas
========================

A shader evaluates the formula of a neuron one operation after the other, in float32, and each
operation rounds. Here is how far that is from the correctly rounded result, over the whole number
line, in units of the last place (ULP). Where a formula cancels it is off by millions of them, and
where it overflows it is infinite or NaN.
"""

import matplotlib.pyplot as plt
import numpy as np

import mpsref as mps
from mpsref import teach

T = mps.MPSCNNNeuronType
NAMES = ("sigmoid", "softPlus", "ELU", "geLU", "softSign", "tanH")

# %%
# Forward
# -------
#
# The formulas are those of :doc:`/stepwise`. ``softPlus`` is ``log(1 + exp(x))`` there: for a large
# ``x`` the exponential overflows, and for a very negative one it is lost beside the 1. ``ELU`` is
# ``exp(x) - 1`` on the left, which cancels near 0. The tanH is exact because ``tanh`` itself is
# taken to be: a device's is not.

fig, axes = plt.subplots(3, 2, figsize=(10, 10), layout="constrained")
for ax, name in zip(axes.flat, NAMES, strict=True):
    teach.plot_error("stepwise", mps.MPSNNNeuronDescriptor(T[name]), ax=ax)
plt.show()

# sphinx_gallery_start_ignore
softplus = mps.MPSNNNeuronDescriptor(T.softPlus)
assert mps.neuron.forward(softplus, np.float32([-20, 100]), mode="stepwise").tolist() == [0, np.inf]
elu = mps.MPSNNNeuronDescriptor(T.ELU)
tiny = np.float32([-1e-9])
assert mps.neuron.forward(elu, tiny, mode="stepwise") == 0 != mps.neuron.forward(elu, tiny)
# sphinx_gallery_end_ignore

# %%
# Derivatives
# -----------
#
# The derivative of the sigmoid is written ``exp(x) / square(exp(x) + 1)``. The square overflows
# first, and the quotient is 0 when it should be small. Then the exponential overflows too, and
# infinity divided by infinity is NaN. The derivative of the tanH, ``1 - tanh(x)^2``, cancels where
# the tanh is near 1.

fig, axes = plt.subplots(3, 2, figsize=(10, 10), layout="constrained")
for ax, name in zip(axes.flat, NAMES, strict=True):
    teach.plot_error("stepwise", mps.MPSNNNeuronDescriptor(T[name]), direction="gradient", ax=ax)
plt.show()

# sphinx_gallery_start_ignore
one = np.float32([1])
sigmoid, tanh = (mps.MPSNNNeuronDescriptor(T[name]) for name in ("sigmoid", "tanH"))
for neuron, at in ((sigmoid, 50), (tanh, 12)):
    x = np.float32([at])
    assert (
        mps.neuron.gradient(neuron, x, one, mode="stepwise")
        == 0
        < mps.neuron.gradient(neuron, x, one)
    )
assert np.isnan(mps.neuron.gradient(sigmoid, np.float32([100]), one, mode="stepwise"))
# sphinx_gallery_end_ignore

# %%
# A better way to write it
# ------------------------
#
# ``plot_error`` also takes a function. With ``log1p`` in place of what cancels, and nothing that
# overflows, the softPlus is good everywhere.


def careful_softplus(x):
    """Two terms that neither cancel nor overflow."""
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


fig, axes = plt.subplots(1, 2, figsize=(10, 3.5), layout="constrained")
teach.plot_error("stepwise", softplus, ax=axes[0])
teach.plot_error(careful_softplus, softplus, ax=axes[1])
axes[0].set_title("log(1 + exp(x))")
axes[1].set_title("max(x, 0) + log1p(exp(-|x|))")
plt.show()

# sphinx_gallery_start_ignore
many = np.concatenate([np.linspace(-80, 80, 4001), np.geomspace(1e-30, 1e30, 501)]).astype(
    np.float32
)
ulp = np.abs(
    careful_softplus(many).view(np.int32) - mps.neuron.forward(softplus, many).view(np.int32)
)
assert ulp.max() <= 4
# sphinx_gallery_end_ignore
