"""
Lesson 7: gradient descent on an input
======================================

**What you will see.** A gradient says which way is up, so a small step the other way goes down. Do
it often enough, and an input that meant nothing becomes one that gives the picture you want.
"""

# %%
# The task
# --------
#
# A sigmoid computes an image ``y`` from an image ``x``. We want ``y`` to look like a *target*, and
# search for the right ``x``. Here is the target, a soft disc of 24 x 24 pixels:

# sphinx_gallery_thumbnail_number = 2
import matplotlib.pyplot as plt
import numpy as np

import mpsref as mps
from mpsref import teach

SIZE = 24
F = mps.MPSImageFeatureChannelFormat
rows, columns = np.mgrid[-1 : 1 : SIZE * 1j, -1 : 1 : SIZE * 1j]
target = np.float32(0.02 + 0.96 * np.clip(1.5 - 2 * np.hypot(rows, columns), 0, 1))[..., np.newaxis]
print(f"from {target.min():.2f} to {target.max():.2f}")

# sphinx_gallery_start_ignore
assert np.isclose(target.min(), 0.02)
assert np.isclose(target.max(), 0.98)
# sphinx_gallery_end_ignore

# %%
# How wrong is it?
# ----------------
#
# We need one number that says how far ``y`` is from the target, the *loss*. Take the square of the
# difference in each pixel, and add them all up. The square comes from a power neuron with ``c =
# 2``; the difference is an addition with ``secondary_scale = -1``. The target is fixed and needs no
# gradient, so it has ``stop_gradient``. An initial gradient node at the end starts the way back
# with ones.


def descent_graph(make):
    """The squared difference of a neuron and a target, with its gradient."""
    x, t = mps.MPSNNImageNode(handle="x"), mps.MPSNNImageNode(handle="t")
    t.stop_gradient = True
    neuron = make(x)
    difference = mps.MPSNNAdditionNode(left_source=neuron.result_image, right_source=t)
    difference.secondary_scale = -1
    square = mps.MPSCNNNeuronPowerNode(source=difference.result_image, a=1, b=0, c=2)
    ones = mps.MPSNNInitialGradientNode(source=square.result_image)
    made = []
    ones.training_graph(node_handler=lambda new, *others: made.append(new))
    for node, name in ((neuron, "y"), (difference, "d"), (square, "loss"), (made[-1], "dx")):
        node.result_image.handle = name
    return mps.MPSNNGraph(
        result_images=[neuron.result_image, square.result_image, made[-1].result_image],
        format=F.float32,
    )


graph = descent_graph(lambda x: mps.MPSCNNNeuronSigmoidNode(source=x))

# %%
# First for one pixel: ``x`` is 0, and ``y`` should be 0.9. The trace shows every step.


def pixel(value):
    """An image of one pixel with one channel."""
    return np.full((1, 1, 1), value, np.float32)


trace = teach.trace(graph, x=pixel(0), t=pixel(0.9))
print(trace)

# sphinx_gallery_start_ignore
assert np.isclose(trace["dx"].stored.item(), -0.2)
# sphinx_gallery_end_ignore

# %%
# The gradient is -0.2. It is negative: the loss goes *down* when ``x`` goes up. So we should make
# ``x`` larger.
#
# One pixel goes downhill
# -----------------------
#
# The rule is *x becomes x - rate times dx*. The rate is ours to choose; take 4. In the picture the
# grey curve is the loss for every ``x``, and the dots are the steps. They are long where it is
# steep and short where it is flat.


def descend(graph, x, t, rate, steps):
    """Every x on the way, and the loss of each."""
    path, losses = [x], []
    for _ in range(steps):
        images = graph.run(x=path[-1], t=t)
        losses.append(float(images["loss"].to_array().sum()))
        path.append(path[-1] - np.float32(rate) * images["dx"].to_array()[0])
    return path, losses


path, losses = descend(graph, pixel(-4), pixel(0.9), rate=4, steps=150)
line = np.linspace(-5, 5, 401, dtype=np.float32).reshape(1, -1, 1)
curve = graph.run(x=line, t=np.full_like(line, 0.9))["loss"].to_array().ravel()
fig, ax = plt.subplots(figsize=(8, 4.5), layout="constrained")
ax.plot(line.ravel(), curve, color="grey")
places = [x.item() for x in path[:-1]]
ax.scatter(places, losses, c=range(len(losses)), cmap="viridis", zorder=2)
for i in (0, 5, 10, 12, len(losses) - 1):
    ax.annotate(f"{i}", (places[i], losses[i]), textcoords="offset points", xytext=(5, 7))
ax.set_xlabel("x")
ax.set_ylabel("loss")
ax.set_title("One pixel goes downhill")
plt.show()
print("x =", places[-1], "loss =", losses[-1])

# sphinx_gallery_start_ignore
goal = np.log(0.9 / 0.1)
assert abs(places[-1] - goal) < 0.001
assert losses[:20] == sorted(losses[:20], reverse=True)
lengths = np.abs(np.diff(places))
assert lengths[:5].max() < lengths.max() / 3
assert round(goal, 3) == 2.197
# sphinx_gallery_end_ignore

# %%
# The first steps are short because the sigmoid is saturated at -4, as in lesson 5, the last ones
# because hardly any error is left. Where ``x`` ends can be computed: the sigmoid is
# 0.9 at ``ln(0.9 / 0.1)``, which is 2.197.

# %%
# All pixels at once
# ------------------
#
# For an image the code is the same. Each pixel goes downhill on its own curve.

path, losses = descend(graph, np.zeros_like(target), target, rate=4, steps=400)
shown = (0, 1, 5, 20, 399)
fig, axes = plt.subplots(2, len(shown) + 1, figsize=(10, 4), layout="constrained")
for column, i in enumerate(shown):
    y = graph.run(x=path[i], t=target)["y"].to_array()[0]
    axes[0, column].imshow(y[..., 0], cmap="gray", vmin=0, vmax=1)
    axes[0, column].set_title(f"y, step {i}")
    axes[1, column].imshow(np.abs(y - target)[..., 0], cmap="Reds", vmin=0, vmax=0.2)
    axes[1, column].set_title("error")
axes[0, -1].imshow(target[..., 0], cmap="gray", vmin=0, vmax=1)
axes[0, -1].set_title("target")
for ax in axes.ravel():
    ax.axis("off")
plt.show()

# %%
# The loss of all pixels together goes down with every step:

fig, ax = plt.subplots(figsize=(8, 3.5), layout="constrained")
ax.loglog(range(1, len(losses) + 1), losses)
ax.set_xlabel("steps")
ax.set_ylabel("loss, all pixels")
ax.set_title("The loss, step by step")
plt.show()

# sphinx_gallery_start_ignore
assert losses == sorted(losses, reverse=True)
assert losses[-1] < losses[0] / 1000
error = np.abs(graph.run(x=path[20], t=target)["y"].to_array()[0] - target)
extreme = (target < 0.05) | (target > 0.95)
middle = (target > 0.3) & (target < 0.7)
assert error[extreme].min() > error[middle].max()
# sphinx_gallery_end_ignore

# %%
# After 20 steps the grey pixels are right, but black and white are not quite there: for a sigmoid
# of 0.02 or 0.98, ``x`` has to go where it is flat, and there the steps become shorter and shorter.
#
# Exercises
# ---------
#
# **1.** Take the neuron ``none``, which computes ``y = x``. The loss is then ``(x - t)^2``, and its
# gradient ``2 (x - t)``. Which rate reaches the target in one step? From which rate on does it get
# worse with every step?
#
# .. raw:: html
#
#    <details class="answer"><summary>Answer</summary>
#
# A step multiplies the distance to the target by ``1 - 2 rate``. With a rate of 1/2 that is 0: one
# step is enough. With a rate of 1 it is -1: ``x`` jumps from one side to the other and comes no
# nearer. Beyond 1 the distance grows.

plain = descent_graph(lambda x: mps.MPSCNNNeuronLinearNode(source=x, a=1, b=0))
for rate in (0.1, 0.5, 1, 1.1):
    path, _ = descend(plain, pixel(3), pixel(2), rate, steps=4)
    print(rate, [round(x.item(), 3) for x in path])

# sphinx_gallery_start_ignore
ends = {rate: descend(plain, pixel(3), pixel(2), rate, steps=4)[0] for rate in (0.5, 1, 1.1)}
assert ends[0.5][1] == 2
assert [x.item() for x in ends[1]] == [3, 1, 3, 1, 3]
assert abs(ends[1.1][-1].item() - 2) > 2
# sphinx_gallery_end_ignore

# %%
# (There is no node for the neuron ``none`` in MPS. A linear one with ``a = 1`` and ``b = 0`` does
# the same.)
#
# .. raw:: html
#
#    </details>
#
# **2.** Ask the sigmoid for 1.2, which it can never give. What does ``x`` do? And the loss?
#
# .. raw:: html
#
#    <details class="answer"><summary>Answer</summary>
#
# ``x`` grows without end, slower and slower, and ``y`` goes to 1. The loss goes to 0.2 squared,
# 0.04, from above.

path, losses = descend(graph, pixel(0), pixel(1.2), rate=4, steps=1000)
for i in (1, 10, 100, 999):
    print(f"step {i:3}: x = {path[i].item():.2f}, loss = {losses[i]:.5f}")

assert path[10] < path[100] < path[999]
assert 0.04 < losses[999] < 0.041

# %%
# .. raw:: html
#
#    </details>
#
# **3.** Use a reLU with ``a = 0`` as the neuron, start at ``x = -1``, and ask for 0.5. What
# happens? Fix it.
#
# .. raw:: html
#
#    <details class="answer"><summary>Answer</summary>
#
# Nothing happens: the slope is 0, so the gradient is 0, and ``x`` stays where it is. With a leaky
# reLU it gets out.

for a in (0, 0.1):
    graph_of_relu = descent_graph(lambda x, a=a: mps.MPSCNNNeuronReLUNode(source=x, a=a))
    path, losses = descend(graph_of_relu, pixel(-1), pixel(0.5), rate=0.4, steps=50)
    print(f"a = {a}: x = {path[-1].item():.4f}, loss = {losses[-1]:.2e}")
    assert path[-1].item() == -1 if a == 0 else abs(path[-1].item() - 0.5) < 1e-3

# %%
# .. raw:: html
#
#    </details>
#
# **4.** Keep ``x`` in half precision: round it to half after each step, with a rate of 0.25. Where
# does a pixel get stuck, if it starts at 1 and should give 0.9? How do training programs avoid it?
#
# .. raw:: html
#
#    <details class="answer"><summary>Answer</summary>
#
# It never moves on once a step is less than half the distance to the next half: the sum is rounded
# back to where it was. It stops before the target. Training programs keep a copy of the weights in
# float32, add the small steps to that, and round only what the network reads.

halves, floats = np.float16([[[1]]]), pixel(1)
for _ in range(2000):
    halves = np.float16(
        halves - 0.25 * graph.run(x=np.float32(halves), t=pixel(0.9))["dx"].to_array()[0]
    )
    floats = floats - np.float32(0.25) * graph.run(x=floats, t=pixel(0.9))["dx"].to_array()[0]
print(f"half: {halves.item():.4f}   float32: {floats.item():.4f}   target: {goal:.4f}")

# sphinx_gallery_start_ignore
assert goal - halves.item() > 0.01
assert abs(floats.item() - goal) < 1e-3
# sphinx_gallery_end_ignore

# %%
# .. raw:: html
#
#    </details>
#
# **Next:** :doc:`plot_08_gradient_check`, on how to find out whether a gradient is right.
