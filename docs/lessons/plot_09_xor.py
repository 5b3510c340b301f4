"""
Lesson 9: five neurons learn XOR
================================

**What you will see.** Weights are inputs like any others, so the gradients of all weights come from
the same backward pass. One step is done by hand. Then 200 more, and a network knows something that
nobody told it.
"""

# %%
# The task
# --------
#
# XOR asks whether two signs differ. These are all four cases, with -1 for no and 1 for yes. No
# straight line separates the yes from the no, so one neuron is not enough.

import matplotlib.pyplot as plt
import numpy as np

from mpsref import teach

p = np.array([-1, -1, 1, 1])
q = np.array([-1, 1, -1, 1])
target = np.array([-1, 1, 1, -1])
print(np.array([p, q, target]).T)

# sphinx_gallery_start_ignore
assert np.array_equal(target, -p * q)
# sphinx_gallery_end_ignore

# %%
# One neuron
# ----------
#
# What Apple calls a neuron is an activation, such as tanH. In a network it comes with *weights*: it
# reads a weighted sum of its sources and a constant, the *bias*. We write that as an expression. A
# weight is an input like any other; its name is that of the neuron and of the source.


def neuron(name, first, second):
    """A tanH of two sources with their weights, and a bias."""
    weights = (teach.input(name + part) for part in "12b")
    w1, w2, b = weights
    return teach.tanh(w1 * first + w2 * second + b).named(name)


# %%
# Five of them make a network: two read the task, two read these, and one reads those. The loss
# is the square of what is wrong, added up over the four cases.

P, Q, T = (teach.input(name) for name in ("p", "q", "t"))
h, k = neuron("h", P, Q), neuron("k", P, Q)
m, n = neuron("m", h, k), neuron("n", h, k)
o = neuron("o", m, n)
error = o - T
loss = error * error

random = np.random.default_rng(5)
start = {name + part: random.normal() for name in "hkmno" for part in "12b"}
print(len(start), "weights and biases, at first by chance")

# sphinx_gallery_start_ignore
assert len(start) == 15
# sphinx_gallery_end_ignore

# %%
# By hand, once
# -------------
#
# ``backprop`` evaluates the network, and all its gradients. Each of the four cases is an element of
# the images; a weight is one number for all of them, so its gradient is the sum over the cases.

t = teach.backprop(loss, p=p, q=q, t=target, **start)
print("loss:", t.y.sum().round(3))
print("says:", t.o.round(2), "should say:", target)

# %%
# Now the same with numpy, from the last neuron to the first. ``back`` is one neuron: the gradient
# of its sum, and from that those of its weights, its bias and its sources.

gradients = {}


def back(name, value, first, second, incoming):
    """Gradients of a neuron's weights and bias; returns those of its two sources."""
    of_sum = incoming * (1 - value**2)  # the slope of tanH
    gradients[name + "1"] = (of_sum * first).sum()
    gradients[name + "2"] = (of_sum * second).sum()
    gradients[name + "b"] = of_sum.sum()
    return of_sum * start[name + "1"], of_sum * start[name + "2"]


dm, dn = back("o", t.o, t.m, t.n, 2 * (t.o - target))
dh_of_m, dk_of_m = back("m", t.m, t.h, t.k, dm)
dh_of_n, dk_of_n = back("n", t.n, t.h, t.k, dn)
back("h", t.h, p, q, dh_of_m + dh_of_n)  # h has two readers: their gradients are added
back("k", t.k, p, q, dk_of_m + dk_of_n)
for name in ("h1", "m2", "ob"):
    print(f"d{name}: {gradients[name]:.5f} by hand, {t.gradients[name]:.5f} by backprop")

# sphinx_gallery_start_ignore
for name in start:
    assert np.isclose(gradients[name], t.gradients[name], rtol=1e-4, atol=1e-6)
assert len(gradients) == 15
# sphinx_gallery_end_ignore

# %%
# All fifteen agree. In the drawing each box has a number and its gradient, here for the last neuron
# and one case:

one = {
    "m": t.m[0],
    "n": t.n[0],
    "t": target[0],
    **{f"o{part}": start[f"o{part}"] for part in "12b"},
}
M, N = teach.input("m"), teach.input("n")
last = neuron("o", M, N) - T
teach.backprop(last * last, **one)

# %%
# A step downhill
# ---------------
#
# Each weight moves against its gradient, all at once. The loss must fall, if the step is small
# enough.

rate = 0.1
moved = {name: value - rate * gradients[name] for name, value in start.items()}
after = teach.backprop(loss, p=p, q=q, t=target, **moved)
print(f"loss: {t.y.sum():.3f}, then {after.y.sum():.3f}")

# sphinx_gallery_start_ignore
assert after.y.sum() < t.y.sum()
# sphinx_gallery_end_ignore

# %%
# Two hundred steps
# -----------------
#
# ``descend`` does just that, and keeps a log.

log = teach.descend(loss, start, rate=rate, steps=200, p=p, q=q, t=target)
print(log)
log.plot()
plt.show()

# sphinx_gallery_start_ignore
assert np.isclose(log.losses[1], after.y.sum(), rtol=1e-5)
assert log.losses[-1] < 0.01
# sphinx_gallery_end_ignore

# %%
# What does it say now?

print("says:", log.trace.o.round(2), "should say:", target)

# sphinx_gallery_start_ignore
assert np.abs(log.trace.o - target).max() < 0.1
# sphinx_gallery_end_ignore

# %%
# What it says between the four cases nobody asked. In the picture each point of the square is a
# pair of inputs, and the colour is the output: the weights are numbers, the inputs are arrays.

line = np.linspace(-1.5, 1.5, 61)
grid_p, grid_q = np.meshgrid(line, line)
picture = teach.backprop(o, p=grid_p, q=grid_q, **log.values).o
fig, ax = plt.subplots(figsize=(5.5, 4.5), layout="constrained")
colours = ax.pcolormesh(line, line, picture, cmap="PuOr", vmin=-1, vmax=1)
ax.scatter(p, q, c=target, cmap="PuOr", vmin=-1, vmax=1, edgecolor="black", s=90)
fig.colorbar(colours, label="output")
ax.set_title("What the network says of every pair")
plt.show()

# sphinx_gallery_start_ignore
assert picture[0, 0] < 0 < picture[0, -1]
# sphinx_gallery_end_ignore

# %%
# Exercises
# ---------
#
# **1.** All weights start by chance. What happens if all of them start at 0.5?
#
# .. raw:: html
#
#    <details class="answer"><summary>Answer</summary>
#
# Both neurons of a pair compute the same, have the same gradients and stay twins for ever: the
# network has only three different neurons, and does not learn XOR.

twins = teach.descend(loss, dict.fromkeys(start, 0.5), rate=rate, steps=60, p=p, q=q, t=target)
print(twins, twins.values["h1"] == twins.values["k1"])
assert twins.losses[-1] > 2
assert twins.values["h1"] == twins.values["k1"]

# %%
# .. raw:: html
#
#    </details>
#
# **2.** And if all of them start at 0?
#
# .. raw:: html
#
#    <details class="answer"><summary>Answer</summary>
#
# Every gradient of a weight is 0, since it is a product with another weight, or with a value that
# is 0. The gradient of the last bias is a sum of four errors, two up and two down: 0 too. Nothing
# moves.

flat = teach.backprop(loss, p=p, q=q, t=target, **dict.fromkeys(start, 0))
print({name: flat.gradients[name] for name in start})
assert not any(flat.gradients[name] for name in start)

# %%
# .. raw:: html
#
#    </details>
#
# **3.** Try a rate of 3.
#
# .. raw:: html
#
#    <details class="answer"><summary>Answer</summary>
#
# The first step throws the sums so far out that every tanH is flat there. The slopes are next to
# nothing, as in lesson 5, and the loss stays where it is.

wild = teach.descend(loss, start, rate=3, steps=30, p=p, q=q, t=target)
print(wild)
assert wild.losses[-1] > 1

# %%
# .. raw:: html
#
#    </details>
#
# **Next:** :doc:`plot_10_two_moons`, on more neurons and more points.
