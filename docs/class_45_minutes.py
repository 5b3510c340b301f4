"""
Backpropagation in 45 minutes
=============================

A notebook for a class. Before each cell that says *predict*, everybody writes down an answer.
"""

# %%
# One neuron (7 minutes)
# ----------------------
#
# A *neuron* is here what Apple calls one: an activation function. Its slope says how much the
# result moves when the source moves. *Predict* the slope of a tanh at 0, and whether that at 2 is
# larger or smaller.

import matplotlib.pyplot as plt
import numpy as np

from mpsref import teach

x = teach.input("x")
for at in (0, 2):
    print(at, teach.backprop(teach.tanh(x), x=at).dx)
teach.plot_neuron("tanH")
plt.show()

# %%
# The chain rule (10 minutes)
# ---------------------------
#
# Now a sigmoid reads the tanh. Each neuron has its slope at the number that *it* reads. *Predict*
# the gradient at 0: the slope of a sigmoid at 0 is 1/4.

t = teach.backprop(teach.sigmoid(teach.tanh(x)), x=0)
t.chain_rule()

# %%
# Every number and its gradient:

t

# %%
# The same page, alive. Where is the gradient largest? Drag the point on the curve.

t.explain(title="A sigmoid of a tanh")

# %%
# Two readers (6 minutes)
# -----------------------
#
# ``x`` is read twice: by the tanh, and by the sum. *Predict* the gradient at 0. Then at 3, where
# the tanh is flat.

y = teach.tanh(x) + x
for at in (0, 3):
    print(teach.backprop(y, x=at).chain_rule(), "\n")

# %%
# What gets lost (8 minutes)
# --------------------------
#
# The slope of a sigmoid is at most 1/4. *Predict*: of how many sigmoids in a row is there a
# gradient left, in half precision, whose smallest number is 2^-24?

for count in range(9, 15):
    y = x
    for _ in range(count):
        y = teach.sigmoid(y)
    t = teach.backprop(y, format="float16", x=0.5)
    print(count, t.dx, t.lost["dx"].text if "dx" in t.lost else "")

# %%
# A network that learns (10 minutes)
# ----------------------------------
#
# Five neurons with weights learn whether two signs differ. Weights are inputs, so they have
# gradients like any others. *Predict* the loss before the first step: four answers by chance, each
# between -1 and 1, where -1 or 1 is right.


def neuron(name, first, second):
    """A tanh of two sources with weights, and a bias."""
    w1, w2, b = (teach.input(name + part) for part in "12b")
    return teach.tanh(w1 * first + w2 * second + b).named(name)


p, q, right = teach.input("p"), teach.input("q"), teach.input("right")
h, k = neuron("h", p, q), neuron("k", p, q)
m, n = neuron("m", h, k), neuron("n", h, k)
o = neuron("o", m, n)
data = {"p": [-1, -1, 1, 1], "q": [-1, 1, -1, 1], "right": [-1, 1, 1, -1]}
random = np.random.default_rng(5)
start = {name + part: random.normal() for name in "hkmno" for part in "12b"}
error = o - right
loss = error * error
log = teach.descend(loss, start, rate=0.1, steps=150, **data)
print(log)
log.plot()
plt.show()

# %%
print("it says", log.trace.o.round(2), "and should say", data["right"])

# sphinx_gallery_start_ignore
assert np.abs(log.trace.o - data["right"]).max() < 0.1
# sphinx_gallery_end_ignore

# %%
# All weights the same (4 minutes)
# --------------------------------
#
# *Predict* what happens if every weight starts at 0.5.

twins = teach.descend(loss, dict.fromkeys(start, 0.5), rate=0.1, steps=50, **data)
print(twins, twins.values["h1"], twins.values["k1"])
