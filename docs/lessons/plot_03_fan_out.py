"""
Lesson 3: fan-out, and why gradients add
========================================

**What you will see.** One number that two neurons read, and what becomes of its gradient: each
reader sends one back, and they are added. Leave one out and the gradient is wrong, although every
neuron is right.
"""

# %%
# One number, two readers
# -----------------------
#
# In the last lesson each result had one reader. Now ``x`` has two: a softSign, which computes
# ``s``, and a softPlus, which computes ``p``. An addition computes ``y = s + p``.

import matplotlib.pyplot as plt
import numpy as np

import mpsref as mps
from mpsref import teach

F = mps.MPSImageFeatureChannelFormat
softsign = mps.MPSNNNeuronDescriptor(mps.MPSCNNNeuronType.softSign)
softplus = mps.MPSNNNeuronDescriptor(mps.MPSCNNNeuronType.softPlus)


def both(x):
    """What y is, for an array of float64."""
    return mps.neuron.forward(softsign, x) + mps.neuron.forward(softplus, x)


# %%
# Move x, and watch
# -----------------
#
# Start at ``x = 1`` and move it by 0.001. Both results move, and the sum moves by as much as both
# together. There is no more to it: *gradients add because movements add*.

start, moved = np.array([1.0]), np.array([1.001])
by_s = (mps.neuron.forward(softsign, moved) - mps.neuron.forward(softsign, start))[0]
by_p = (mps.neuron.forward(softplus, moved) - mps.neuron.forward(softplus, start))[0]
by_y = (both(moved) - both(start))[0]
print(f"s moved by {by_s:.6f}")
print(f"p moved by {by_p:.6f}")
print(f"y moved by {by_y:.6f}")

# sphinx_gallery_start_ignore
assert abs(by_s + by_p - by_y) < 1e-12
# sphinx_gallery_end_ignore

# %%
# Divide by 0.001 to get slopes: 0.25 for the softSign, 0.73 for the softPlus, 0.98 together.

print(f"{by_s / 0.001:.2f} + {by_p / 0.001:.2f} = {by_y / 0.001:.2f}")

# sphinx_gallery_start_ignore
assert [round(float(v) / 0.001, 2) for v in (by_s, by_p, by_y)] == [0.25, 0.73, 0.98]
# sphinx_gallery_end_ignore

# %%
# The graph that does it
# ----------------------
#
# ``training_graph`` makes a gradient node for each reader. Each of these computes a gradient of
# ``x``, so it also makes an addition by itself. A trace calls the two gradients ``dx.1`` and
# ``dx.2``, and their sum ``dx``.

source, upstream = mps.MPSNNImageNode(handle="x"), mps.MPSNNImageNode(handle="dy")
left = mps.MPSCNNNeuronSoftSignNode(source=source)
right = mps.MPSCNNNeuronSoftPlusNode(source=source)
total = mps.MPSNNAdditionNode(left_source=left.result_image, right_source=right.result_image)
left.result_image.handle, right.result_image.handle, total.result_image.handle = "s", "p", "y"

(last,) = total.training_graph(with_source_gradient=upstream)
print("the last node is", last)
graph = mps.MPSNNGraph(result_images=[total.result_image, last.result_image], format=F.float32)


trace = teach.trace(graph, x=1, dy=1)
print(trace)

# sphinx_gallery_start_ignore
assert isinstance(last, mps.MPSNNAdditionNode)
assert str(trace).count("gradient of Addition") == 2
assert teach.svg(graph).count("gradient of Addition<") == 2
assert abs(trace["dx.1"].stored.item() - 0.25) < 1e-7
assert round(trace["dx.2"].stored.item(), 2) == 0.73
assert round(trace["dx"].stored.item(), 2) == 0.98
# sphinx_gallery_end_ignore

# %%
# Read it from the top. The forward addition passes its gradient on to both of its sources
# unchanged. Then each neuron multiplies by its slope at ``x``. The last row adds. Here is the chain
# rule, with one term for each way back to ``x``:

print(trace.chain_rule("dx"))

# %%
# Here is the whole graph, drawn by ``teach.svg``. Two lines leave ``x`` on the way forward, so two
# lines meet at ``dx`` on the way back. An addition turns into a fan-out, and a fan-out into an
# addition.

teach.svg(graph)

# %%
# What if one is forgotten?
# -------------------------
#
# Let us look at every ``x`` from -4 to 4. The dots are measured: ``x`` moved by a little, divided
# by that little. Only the sum goes through them. With one reader left out, the curve is plausible
# and wrong.

many = np.linspace(-4, 4, 201, dtype=np.float32).reshape(1, -1, 1)
along = teach.trace(graph, x=many, dy=np.ones_like(many))
line = many.ravel()
dots = np.linspace(-4, 4, 21)
measured = (both(dots + 1e-5) - both(dots - 1e-5)) / 2e-5
fig, ax = plt.subplots(figsize=(8, 4.5), layout="constrained")
ax.plot(line, along["dx.1"].stored.ravel(), "--", label="by softSign alone")
ax.plot(line, along["dx.2"].stored.ravel(), "--", label="by softPlus alone")
ax.plot(line, along["dx"].stored.ravel(), color="black", label="added: dx")
ax.plot(dots, measured, "o", color="black", markersize=4, label="measured")
ax.set_xlabel("x")
ax.set_ylabel("gradient")
ax.set_title("The gradients of both readers, their sum, and what is measured")
ax.legend()
plt.show()

# sphinx_gallery_start_ignore
analytic = teach.trace(
    graph, x=np.float32(dots).reshape(1, -1, 1), dy=np.ones((1, 21, 1), np.float32)
)
assert np.allclose(measured, analytic["dx"].stored.ravel(), atol=1e-5)
assert not np.allclose(measured, analytic["dx.2"].stored.ravel(), atol=0.03)
# sphinx_gallery_end_ignore

# %%
# Alive: a source with two readers. Go to the last step, which adds up what comes back.
#
# .. live:: fan-out
#
# Exercises
# ---------
#
# **1.** Let an addition read one image twice: ``y = s + s`` with ``s = softSign(x)``. What is
# ``dx`` at ``x = 1``? How many additions does ``training_graph`` make?
#
# .. raw:: html
#
#    <details class="answer"><summary>Answer</summary>
#
# The addition is two readers of ``s``, so ``ds`` is 1 + 1 = 2, and ``dx`` is 2 times 0.25. One
# addition is made.

source = mps.MPSNNImageNode(handle="x")
once = mps.MPSCNNNeuronSoftSignNode(source=source)
twice = mps.MPSNNAdditionNode(left_source=once.result_image, right_source=once.result_image)
made = []
(last,) = twice.training_graph(
    with_source_gradient=mps.MPSNNImageNode(handle="dy"),
    node_handler=lambda new, *others: made.append(new),
)
last.result_image.handle = "dx"
answer = teach.trace(mps.MPSNNGraph(result_image=last.result_image, format=F.float32), x=1, dy=1)
print(answer["dx"].stored.item(), sum(isinstance(node, mps.MPSNNAdditionNode) for node in made))

assert answer["dx"].stored.item() == 0.5
assert sum(isinstance(node, mps.MPSNNAdditionNode) for node in made) == 1

# %%
# .. raw:: html
#
#    </details>
#
# **2.** A *residual connection* adds a neuron's source to its result: ``y = x + tanh(x)``. What is
# ``dx`` at ``x = 3``, where the tanh alone is almost flat?
#
# .. raw:: html
#
#    <details class="answer"><summary>Answer</summary>
#
# The tanh sends back 0.0099, and the direct path sends back 1. Together they are 1.0099. The direct
# path keeps the gradient alive whatever the neuron does. That is why deep networks have such
# connections.

source = mps.MPSNNImageNode(handle="x")
neuron = mps.MPSCNNNeuronTanHNode(source=source)
residual = mps.MPSNNAdditionNode(left_source=source, right_source=neuron.result_image)
(last,) = residual.training_graph(with_source_gradient=mps.MPSNNImageNode(handle="dy"))
last.result_image.handle = "dx"
answer = teach.trace(mps.MPSNNGraph(result_image=last.result_image, format=F.float32), x=3, dy=1)
print(answer)

assert round(answer["dx"].stored.item(), 4) == 1.0099

# %%
# .. raw:: html
#
#    </details>
#
# **3.** One image with five readers: how many additions does its gradient need? Say it for *n*
# readers, then count.
#
# .. raw:: html
#
#    <details class="answer"><summary>Answer</summary>
#
# Adding *n* numbers takes *n* - 1 additions: 4 for five readers.


def additions(readers):
    """How many additions training_graph makes for so many readers of one image."""
    x, made = mps.MPSNNImageNode(handle="x"), []
    total = mps.MPSCNNNeuronSoftSignNode(source=x).result_image
    for _ in range(readers - 1):
        reader = mps.MPSCNNNeuronSoftSignNode(source=x)
        total = mps.MPSNNAdditionNode(
            left_source=total, right_source=reader.result_image
        ).result_image
    total.producer.training_graph(node_handler=lambda new, *others: made.append(new))
    return sum(isinstance(node, mps.MPSNNAdditionNode) for node in made)


print([(readers, additions(readers)) for readers in range(1, 6)])
assert [additions(readers) for readers in range(1, 6)] == [0, 1, 2, 3, 4]

# %%
# .. raw:: html
#
#    </details>
#
# **4.** Can two readers cancel each other? Build ``y = tanh(x) - x`` and look at ``dx`` at ``x =
# 0``. What does it tell you about the curve there?
#
# .. raw:: html
#
#    <details class="answer"><summary>Answer</summary>
#
# Yes: one sends back 1, the other -1, and the sum is 0. The curve is flat at 0, although neither of
# its parts is. ``secondary_scale = -1`` turns the addition into a difference.

source = mps.MPSNNImageNode(handle="x")
neuron = mps.MPSCNNNeuronTanHNode(source=source)
difference = mps.MPSNNAdditionNode(left_source=neuron.result_image, right_source=source)
difference.secondary_scale = -1
(last,) = difference.training_graph(with_source_gradient=mps.MPSNNImageNode(handle="dy"))
last.result_image.handle = "dx"
answer = teach.trace(mps.MPSNNGraph(result_image=last.result_image, format=F.float32), x=0, dy=1)
print(answer)

assert answer["dx"].stored.item() == 0

# %%
# .. raw:: html
#
#    </details>
#
# **Next:** :doc:`plot_04_kinks`, where a curve has a corner, and nobody can say what its slope is.
