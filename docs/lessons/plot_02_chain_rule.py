"""
Lesson 2: the chain rule by hand
================================

**What you will see.** A gradient that goes back through three neurons, first with pencil and paper,
then by a graph. It is one multiplication for each neuron, and each slope is taken where the forward
was.
"""

# %%
# Three neurons in a row
# ----------------------
#
# A number ``x`` goes through a tanH, its result through a softPlus, and that through a sigmoid:
#
# *h = tanh(x)*, then *p = ln(1 + e^h)*, then *y = 1 / (1 + e^-p)*.
#
# We start at ``x = 0.5`` and go forward with Python's ``math``, keeping each number:

import math

import matplotlib.pyplot as plt
import numpy as np

import mpsref as mps
from mpsref import teach

x = 0.5
h = math.tanh(x)
p = math.log(1 + math.exp(h))
y = 1 / (1 + math.exp(-p))
print(f"x = {x:.4f}   h = {h:.4f}   p = {p:.4f}   y = {y:.4f}")

# %%
# Going back
# ----------
#
# How much does ``y`` move when ``x`` moves? Ask it one neuron at a time, from the end. Each neuron
# has a slope at the number that *it* reads: the sigmoid reads ``p``, the softPlus ``h``, the tanH
# ``x``.

slope_y = math.exp(p) / (math.exp(p) + 1) ** 2  # of the sigmoid, at p
slope_p = math.exp(h) / (math.exp(h) + 1)  # of the softPlus, at h
slope_h = 1 - math.tanh(x) ** 2  # of the tanH, at x
print(f"slopes: {slope_h:.4f} of tanH, {slope_p:.4f} of softPlus, {slope_y:.4f} of sigmoid")

# %%
# Now multiply. We begin with 1, since ``y`` moves exactly as much as ``y`` does. ``dp`` is short
# for "how much the end moves when ``p`` moves", and likewise for the others.

dy = 1.0
dp = dy * slope_y
dh = dp * slope_p
dx = dh * slope_h
print(f"dy = {dy:.4f}   dp = {dp:.4f}   dh = {dh:.4f}   dx = {dx:.4f}")

# %%
# This is backpropagation. If ``x`` moves by 0.01, then ``y`` moves by about 0.01 times ``dx``. Let
# us try:


def whole(x):
    """All three neurons."""
    return 1 / (1 + math.exp(-math.log(1 + math.exp(math.tanh(x)))))


print(f"moved by {whole(x + 0.01) - whole(x):.6f}, expected {0.01 * dx:.6f}")

# sphinx_gallery_start_ignore
assert whole(x) == y
assert abs((whole(x + 0.01) - whole(x)) / (0.01 * dx) - 1) < 0.01
# sphinx_gallery_end_ignore

# %%
# The same as a graph
# -------------------
#
# Each neuron is a node that reads the image of the one before. ``training_graph`` walks from the
# last node to the first and makes one gradient node for each neuron.

source = mps.MPSNNImageNode(handle="x")
first = mps.MPSCNNNeuronTanHNode(source=source)
first.result_image.handle = "h"
second = mps.MPSCNNNeuronSoftPlusNode(source=first.result_image)
second.result_image.handle = "p"
third = mps.MPSCNNNeuronSigmoidNode(source=second.result_image)
third.result_image.handle = "y"
(last,) = third.training_graph(with_source_gradient=mps.MPSNNImageNode(handle="dy"))
graph = mps.MPSNNGraph(
    result_images=[third.result_image, last.result_image],
    format=mps.MPSImageFeatureChannelFormat.float32,
)

# %%
# Trace it for one pixel, starting with a gradient of 1. In a trace the gradient of ``h`` is called
# ``dh``. Compare each number with the one that we computed by hand.


trace = teach.trace(graph, x=0.5, dy=1)
print(trace)

by_hand = {"h": h, "p": p, "y": y, "dp": dp, "dh": dh, "dx": dx}
for name, number in by_hand.items():
    assert math.isclose(trace[name].stored.item(), number, rel_tol=1e-6)

# %%
# Everything agrees to six digits or more. Here is the chain rule with its numbers:

print(trace.chain_rule("dx"))

# %%
# A picture
# ---------
#
# The three neurons together make one curve. The gradient ``dx`` is the slope of its tangent. Below
# it are the slopes of the three neurons along the way, and their product: at each ``x`` the black
# line is the other three multiplied.

many = np.linspace(-4, 4, 401, dtype=np.float32).reshape(1, -1, 1)
along = teach.trace(graph, x=many, dy=np.ones_like(many))
line = many.ravel()
fig, (above, below) = plt.subplots(2, 1, figsize=(8, 6), sharex=True, layout="constrained")
above.plot(line, along["y"].stored.ravel(), label="y")
run = np.array([-1.5, 1.5])
above.plot(
    0.5 + run, y + dx * run, color="black", linewidth=1, label=f"tangent at 0.5, slope {dx:.4f}"
)
above.plot(0.5, y, "o", color="black")
above.set_title("Three neurons in a row, and the tangent at 0.5")
above.legend()
for name, label in (("dh", "softPlus at h"), ("dp", "sigmoid at p"), ("dx", "tanH at x")):
    below.plot(line, along[name].slope.ravel(), label=label)
below.plot(line, along["dx"].stored.ravel(), color="black", label="product: dx")
below.set_xlabel("x")
below.set_ylabel("slope")
below.set_title("The slopes along the way, and their product")
below.legend()
plt.show()

# sphinx_gallery_start_ignore
product = along["dh"].slope * along["dp"].slope * along["dx"].slope
assert np.allclose(product, along["dx"].stored, rtol=1e-6)
assert (
    along["dx"].stored
    <= np.minimum(np.minimum(along["dh"].slope, along["dp"].slope), along["dx"].slope)
).all()
# sphinx_gallery_end_ignore

# %%
# The product is never larger than the smallest of the three. Each neuron here has a slope of at
# most 1, so each makes the gradient smaller. That is the subject of lesson 5.

# %%
# Alive: thirteen sigmoids, in half precision. Thirteen slopes, none above 1/4, are multiplied; find
# the step where nothing is left.
#
# .. live:: vanishing
#
# Exercises
# ---------
#
# **1.** Take ``tanh`` and then ``sigmoid``, at ``x = 0``. Find the gradient without a computer.
#
# .. raw:: html
#
#    <details class="answer"><summary>Answer</summary>
#
# The tanh of 0 is 0, and its slope there is 1. The sigmoid reads that 0 and has slope 1/4 there. So
# the gradient is 1/4.

tanh = mps.MPSNNNeuronDescriptor(mps.MPSCNNNeuronType.tanH)
sigmoid = mps.MPSNNNeuronDescriptor(mps.MPSCNNNeuronType.sigmoid)
zero, one = np.float32([0]), np.float32([1])
middle = mps.neuron.forward(tanh, zero)
back = mps.neuron.gradient(sigmoid, middle, upstream=one)
print(mps.neuron.gradient(tanh, zero, upstream=back))

assert mps.neuron.gradient(tanh, zero, upstream=back) == 0.25

# %%
# .. raw:: html
#
#    </details>
#
# **2.** Now the other way round: ``sigmoid`` first and then ``tanh``, at ``x = 0``. Is it 1/4
# again?
#
# .. raw:: html
#
#    <details class="answer"><summary>Answer</summary>
#
# No. The sigmoid of 0 is 1/2, with slope 1/4. But the tanh reads 1/2, not 0, and is less steep
# there: 0.7864. The gradient is 0.1966.

middle = mps.neuron.forward(sigmoid, zero)
back = mps.neuron.gradient(tanh, middle, upstream=one)
print(back, mps.neuron.gradient(sigmoid, zero, upstream=back))

assert round(float(back[0]), 4) == 0.7864
assert round(float(mps.neuron.gradient(sigmoid, zero, upstream=back)[0]), 4) == 0.1966

# %%
# .. raw:: html
#
#    </details>
#
# **3.** A common mistake is to take a slope at a neuron's *result* instead of its *source*. Make it
# for the tanH in our chain of three: how wrong is ``dx`` then?
#
# .. raw:: html
#
#    <details class="answer"><summary>Answer</summary>
#
# The slope of tanh at ``h`` is too large, since ``h`` is nearer to 0 than ``x`` is. The gradient is
# 3 percent too large at this ``x``: small enough to go unnoticed without a check.

wrong = dh * (1 - math.tanh(h) ** 2)
print(f"right {dx:.5f}, wrong {wrong:.5f}, {100 * (wrong / dx - 1):.1f} % too large")

# sphinx_gallery_start_ignore
assert round(100 * (wrong / dx - 1)) == 3
# sphinx_gallery_end_ignore

# %%
# .. raw:: html
#
#    </details>
#
# **4.** Start with ``dy = 3`` instead of 1. What happens to all the other gradients? Why?
#
# .. raw:: html
#
#    <details class="answer"><summary>Answer</summary>
#
# Each is three times as large, since each is a product with ``dy`` in it. The forward values stay
# as they are. Lesson 6 makes use of this.

tripled = teach.trace(graph, x=0.5, dy=3)
for name in ("dp", "dh", "dx"):
    print(name, tripled[name].stored.item() / trace[name].stored.item())
    assert math.isclose(tripled[name].stored.item(), 3 * trace[name].stored.item(), rel_tol=1e-6)
assert tripled["y"].stored == trace["y"].stored

# %%
# .. raw:: html
#
#    </details>
#
# **Next:** :doc:`plot_03_fan_out`, where one number is read by two neurons.
