"""
Lesson 10: two moons
====================

**What you will see.** A hundred points in two moons, a network of nine neurons with 33 weights, and
the line that it learns to draw between them.
"""

# %%
# The points
# ----------
#
# Two half circles, one upside down, each with a bit of noise. A point of the first moon has the
# label 1, one of the second -1.

# sphinx_gallery_thumbnail_number = 3
import matplotlib.pyplot as plt
import numpy as np

from mpsref import teach

random = np.random.default_rng(7)
angle = np.pi * random.random(50)
upper = np.stack([np.cos(angle), np.sin(angle)])
lower = np.stack([1 - np.cos(angle), 0.5 - np.sin(angle)])
x1, x2 = np.hstack([upper, lower]) + random.normal(0, 0.1, (2, 100))
label = np.repeat([1, -1], 50)

fig, ax = plt.subplots(figsize=(6, 3.6), layout="constrained")
ax.scatter(x1, x2, c=label, cmap="PuOr", vmin=-1.5, vmax=1.5, edgecolor="black")
ax.set_title("Two moons")
plt.show()

# %%
# The network
# -----------
#
# Eight tanH read the two coordinates, each with its weights and its bias, as in lesson 9. One more
# weighted sum adds them up to a *score*. Its sign is the answer: above 0 for the first moon.

HIDDEN = 8
inputs = teach.input("x1"), teach.input("x2")
score = teach.input("b")
for i in range(HIDDEN):
    a, b, c, w = (teach.input(f"{name}{i}") for name in "abcw")
    score = w * teach.tanh(a * inputs[0] + b * inputs[1] + c) + score
score = score.named("score")

start = {f"{name}{i}": random.normal() for i in range(HIDDEN) for name in "abcw"} | {"b": 0.0}
print(len(start), "weights and biases")

# sphinx_gallery_start_ignore
assert len(start) == 33
# sphinx_gallery_end_ignore

# %%
# The loss should be large where the sign is wrong, and small, but not quite 0, where it is right.
# A softPlus of *minus label times score* is just that: about 0 for a large score of the right sign,
# and about as large as the score where the sign is wrong. We take the mean of all points.

margin = teach.input("label") * score
loss = teach.softplus(-margin) * (1 / len(label))
fig, ax = plt.subplots(figsize=(6, 3), layout="constrained")
teach.plot_neuron("softPlus", ax=ax, limits=(-4, 4))
ax.set_title("The loss of a point, by minus label times score")
plt.show()

# %%
# Downhill
# --------
#
# The data are two arrays of a hundred numbers; every weight is one number for all of them.

data = {"x1": x1, "x2": x2, "label": label}
log = teach.descend(loss, start, rate=2, steps=250, **data)
right = np.mean(np.sign(log.trace.score) == label)
print(log)
print(f"{100 * right:.0f} of 100 points on the right side")

# sphinx_gallery_start_ignore
assert right >= 0.97
assert log.losses[-1] < 0.1 < log.losses[0]
# sphinx_gallery_end_ignore

# %%
# The line
# --------
#
# The score of every point of the plane, with the same weights. The line where it is 0 is the
# *decision boundary*:

columns, rows = np.meshgrid(np.linspace(-1.6, 2.6, 85), np.linspace(-1.2, 1.7, 59))
plane = teach.backprop(score, x1=columns, x2=rows, **log.values).score
fig, ax = plt.subplots(figsize=(7, 4.4), layout="constrained")
colours = ax.contourf(columns, rows, np.tanh(plane), levels=21, cmap="PuOr", vmin=-1.2, vmax=1.2)
ax.contour(columns, rows, plane, levels=[0], colors="black")
ax.scatter(x1, x2, c=label, cmap="PuOr", vmin=-1.5, vmax=1.5, edgecolor="black")
ax.set_title("The line between the moons")
plt.show()

# sphinx_gallery_start_ignore
assert (plane > 0).any()
assert (plane < 0).any()
# sphinx_gallery_end_ignore

# %%
# The line is bent: each of the eight tanH is a straight edge, and their sum is round the corners.
#
# How it went
# -----------
#

log.plot()
plt.show()

# %%
# And the weights themselves. Some go far, some hardly move: those of a tanH whose edge lies where
# there are no points have no slope to go down.

fig, ax = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
for name, path in log.parameters.items():
    ax.plot(path, color="#0072B2" if name[0] == "w" else "#808080", linewidth=0.9)
ax.set_xlabel("step")
ax.set_ylabel("weight")
ax.set_title("All weights; blue, those of the last sum")
plt.show()

# %%
# Exercises
# ---------
#
# **1.** Can one tanH do it, with its two weights?
#
# .. raw:: html
#
#    <details class="answer"><summary>Answer</summary>
#
# Its edge is a straight line, and no straight line separates the moons. It gets most of the points.

a, b, c, w = (teach.input(name) for name in "abcw")
alone = w * teach.tanh(a * inputs[0] + b * inputs[1] + c)
poor = teach.descend(
    teach.softplus(-teach.input("label") * alone.named("score")) * 0.01,
    {"a": 0.1, "b": 0.1, "c": 0, "w": 1},
    rate=1.5,
    steps=100,
    **data,
)
share = np.mean(np.sign(poor.trace.score) == label)
print(f"{100 * share:.0f} of 100 points")
assert 0.75 <= share < right

# %%
# .. raw:: html
#
#    </details>
#
# **2.** Which single point costs the trained network most? Find it in the picture.
#
# .. raw:: html
#
#    <details class="answer"><summary>Answer</summary>
#
# The one with the largest loss. It is one that the noise has moved towards the other moon.

cost = log.trace.y
worst = int(np.argmax(cost))
print(f"({x1[worst]:.2f}, {x2[worst]:.2f}), score {log.trace.score[worst]:.2f}")
assert cost[worst] > 3 * np.median(cost)

# %%
# .. raw:: html
#
#    </details>
#
# **3.** What is the gradient of the loss with respect to that point? What does it say?
#
# .. raw:: html
#
#    <details class="answer"><summary>Answer</summary>
#
# A step against it lowers the loss of the point: that is the way to its own moon, straight across
# the line.

d1, d2 = log.trace.gradients["x1"][worst], log.trace.gradients["x2"][worst]
print(f"({d1:.4f}, {d2:.4f})")
nearer = dict(data, x1=x1 - 5 * d1 * (cost == cost[worst]), x2=x2 - 5 * d2 * (cost == cost[worst]))
assert teach.backprop(loss, **nearer, **log.values).y[worst] < cost[worst]

# %%
# .. raw:: html
#
#    </details>
#
# **The end.** You can now read a graph forward and backward, you know when to distrust a gradient,
# and you have seen gradients do what they are for. The :doc:`pictures <pictures/index>` show all
# sixteen neurons, and the errors that plain formulas make.
