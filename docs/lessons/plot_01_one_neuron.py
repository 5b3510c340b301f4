"""
Lesson 1: one neuron
====================

**What you will see.** A neuron takes a number and gives a number. Its slope says how much the
result moves when the number moves, and all of backpropagation is built from such slopes.
"""

# %%
# A neuron is a function of one number
# ------------------------------------
#
# A neuron is here what Apple calls one: an *activation*, a function that is applied to every number
# of an image. It has no weights. It has a type and, mostly, some parameters. A *descriptor* holds
# both. This one is the hyperbolic tangent with ``a = 1.5`` and ``b = 0.75``. The table
# ``mpsref.NEURONS`` has its formula.

import matplotlib.pyplot as plt
import numpy as np

import mpsref as mps
from mpsref import teach

tanh = mps.MPSNNNeuronDescriptor(mps.MPSCNNNeuronType.tanH, a=1.5, b=0.75)
row = mps.NEURONS[tanh.neuron_type]
print("formula:", row.formula)
print("slope:  ", row.slope)

# %%
# ``mpsref.neuron.forward`` computes it for each number of an array.

x = np.float32([-3, -1, 0, 1, 3])
y = mps.neuron.forward(tanh, x)
for source, result in zip(x, y, strict=True):
    print(f"f({source:4.1f}) = {result:8.5f}")

# sphinx_gallery_start_ignore
far = mps.neuron.forward(tanh, np.float32([-100, 100]))
assert far.tolist() == [-1.5, 1.5]
assert (np.abs(y) < 1.5).all()
assert y[2] == 0
# sphinx_gallery_end_ignore

# %%
# The results stay between -1.5 and 1.5, however large the number is. At 0 the result is 0.

# %%
# The slope
# ---------
#
# Move the number a little, by ``h``. The result moves too. How much the result moves, divided by
# ``h``, is about the slope. Try it at 1:

h = np.float32(0.001)
before, after = mps.neuron.forward(tanh, np.float32([1, 1 + h]))
print(f"the result moved by {after - before:.7f}")
print(f"divided by h:       {(after - before) / h:.4f}")

# %%
# ``mpsref.neuron.gradient`` computes the slope from the formula, with no ``h``. It takes one more
# argument, the *upstream* gradient; pass 1 for now.

slope = mps.neuron.gradient(tanh, x, upstream=np.ones_like(x))
for source, value in zip(x, slope, strict=True):
    print(f"f'({source:4.1f}) = {value:.5f}")

# sphinx_gallery_start_ignore
assert abs((after - before) / h - slope[3]) < 1e-3
assert slope[2] == 1.125
assert slope.argmax() == 2
# sphinx_gallery_end_ignore

# %%
# The two agree to about three digits. Lesson 8 is about how well they can agree.
#
# A picture of both
# -----------------
#
# ``plot_neuron`` draws the neuron and its slope. We add the tangent at three points. A tangent is
# the straight line through the point with the slope at that point. Near the point you cannot tell
# it from the curve.

fig, ax = plt.subplots(figsize=(8, 4.5), layout="constrained")
teach.plot_neuron(tanh, ax=ax, limits=(-4, 4))
for at in (-2.0, 0.0, 1.0):
    point = np.float32([at])
    height = mps.neuron.forward(tanh, point)[0]
    steepness = mps.neuron.gradient(tanh, point, upstream=np.float32([1]))[0]
    run = np.array([-0.8, 0.8])
    ax.plot(at + run, height + steepness * run, color="black", linewidth=1)
    ax.plot(at, height, "o", color="black")
ax.set_title("tanH with a = 1.5, b = 0.75, and three tangents")
plt.show()

# %%
# The curve is steepest at 0, where the slope is 1.125. Far away it is flat, and the slope is nearly
# 0: however you change the number there, the result hardly moves. Lesson 5 is about the trouble
# this causes.
#
# What upstream means
# -------------------
#
# A neuron is seldom alone. Say that something is computed from its result ``y``, for example a
# score ``L``, and that ``L`` moves 4 times as much as ``y`` does. That 4 is the upstream gradient.
# How much does ``L`` move when ``x`` moves? First ``x`` moves ``y`` by the slope, then ``y`` moves
# ``L`` by 4. So it is the product:
#
# *gradient = upstream times slope*.

four = np.full_like(x, 4)
print(mps.neuron.gradient(tanh, x, upstream=four))
print(4 * slope)

# sphinx_gallery_start_ignore
assert np.array_equal(mps.neuron.gradient(tanh, x, upstream=four), 4 * slope)
# sphinx_gallery_end_ignore

# %%
# A neuron as a graph
# -------------------
#
# In MPS a neuron is a *node*: it reads an image and makes an image, pixel by pixel. The smallest
# image has one pixel with one number. ``training_graph`` adds the node that computes the gradient.

source = mps.MPSNNImageNode(handle="x")
upstream = mps.MPSNNImageNode(handle="dy")
node = mps.MPSCNNNeuronTanHNode(source=source, a=1.5, b=0.75)
node.result_image.handle = "y"
(backward,) = node.training_graph(with_source_gradient=upstream)
backward.result_image.handle = "dx"
graph = mps.MPSNNGraph(
    result_images=[node.result_image, backward.result_image],
    format=mps.MPSImageFeatureChannelFormat.float32,
)

# %%
# ``teach.trace`` runs the graph and records every step, one in each row; ``value`` is its result.
# When it is stored in the image it is rounded. Where that cannot be seen in the digits, as here,
# the table does not speak of it; in lesson 6 it does.

trace = teach.trace(
    graph, x=np.full((1, 1, 1), 1, np.float32), dy=np.full((1, 1, 1), 4, np.float32)
)
print(trace)

# %%
# And ``chain_rule`` writes out how the gradient is computed, with its numbers:

print(trace.chain_rule("dx"))

# %%
# The same in three lines, with an expression instead of nodes:

x_of_graph = teach.input("x")
t = teach.backprop(teach.tanh(x_of_graph, a=1.5, b=0.75), x=1, dy=4)
print(t.y, t.dx)

# sphinx_gallery_start_ignore
assert (t.y, t.dx) == (trace["y"].stored.item(), trace["dx"].stored.item())
assert trace["y"].stored.item() == y[3]
assert trace["dx"].stored.item() == 4 * slope[3]
# sphinx_gallery_end_ignore

# %%
# Alive: two neurons, of which the first is this tanH. Move ``x``, ``a`` and ``b``, and see the
# tangents turn.
#
# .. live:: chain
#
# Exercises
# ---------
#
# **1.** A leaky reLU is ``x if x >= 0 else a x``. Take ``a = 0.1``. What is its value at -2, and
# its gradient there if the upstream gradient is 3? Find both in your head, then look.
#
# .. raw:: html
#
#    <details class="answer"><summary>Answer</summary>
#
# Below zero the value is ``0.1 x``, that is -0.2. The slope is 0.1, so the gradient is 3 times 0.1,
# that is 0.3.

leaky = mps.MPSNNNeuronDescriptor(mps.MPSCNNNeuronType.reLU, a=0.1)
at = np.float32([-2])
print(mps.neuron.forward(leaky, at), mps.neuron.gradient(leaky, at, upstream=np.float32([3])))

assert mps.neuron.forward(leaky, at) == np.float32(-0.2)
assert mps.neuron.gradient(leaky, at, upstream=np.float32([3])) == np.float32(0.3)

# %%
# .. raw:: html
#
#    </details>
#
# **2.** Make ``b`` of our tanH twice as large. Does the slope at 0 grow or shrink? And the slope at
# 3?
#
# .. raw:: html
#
#    <details class="answer"><summary>Answer</summary>
#
# The slope at 0 is ``a b``, so it is twice as large: 2.25. At 3 the curve is already flat, and the
# slope shrinks.

steeper = mps.MPSNNNeuronDescriptor(mps.MPSCNNNeuronType.tanH, a=1.5, b=1.5)
places = np.float32([0, 3])
print("b = 0.75:", mps.neuron.gradient(tanh, places, upstream=np.ones_like(places)))
print("b = 1.5: ", mps.neuron.gradient(steeper, places, upstream=np.ones_like(places)))

new, old = (mps.neuron.gradient(d, places, upstream=np.ones_like(places)) for d in (steeper, tanh))
assert new[0] == 2.25 == 2 * old[0]
assert new[1] < old[1]

# %%
# .. raw:: html
#
#    </details>
#
# **3.** Which of the sixteen neurons have slope exactly 1 at 0, with their default parameters?
# (Only pReLU has no default: give it ``data=[0.25]``.)
#
# .. raw:: html
#
#    <details class="answer"><summary>Answer</summary>
#
# Iterate over ``mpsref.NEURONS``. These neurons pass on a small number, and a gradient, unchanged.
# sigmoid, softPlus, geLU and hardSigmoid make a gradient smaller there, and absolute makes it 0.

unchanged = []
zero, one = np.float32([0]), np.float32([1])
for neuron_type, facts in mps.NEURONS.items():
    descriptor = mps.MPSNNNeuronDescriptor(neuron_type, data=[0.25] if facts.per_channel else None)
    if mps.neuron.gradient(descriptor, zero, upstream=one) == 1:
        unchanged.append(neuron_type.name)
print(", ".join(unchanged))

# sphinx_gallery_start_ignore
others = {t.name for t in mps.NEURONS} - set(unchanged)
assert others == {"sigmoid", "softPlus", "geLU", "hardSigmoid", "absolute", "logarithm"}
# sphinx_gallery_end_ignore

# %%
# The logarithm is missing for another reason: at 0 it is minus infinity, and its slope is infinite.
#
# .. raw:: html
#
#    </details>
#
# **Next:** :doc:`plot_02_chain_rule`, where a gradient goes through more than one neuron.
