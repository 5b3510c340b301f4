"""
Lesson 5: saturation and vanishing gradients
============================================

**What you will see.** Where a neuron is flat, its slope is almost 0, and a gradient that goes
through it almost vanishes. A chain of such neurons loses it altogether.
"""

# %%
# Flat means no gradient
# ----------------------
#
# The sigmoid squeezes every number into the range from 0 to 1. Far from 0 it is nearly flat: it is
# *saturated*. Its slope is 1/4 at best, at 0.

import matplotlib.pyplot as plt
import numpy as np

import mpsref as mps
from mpsref import teach

T = mps.MPSCNNNeuronType
F = mps.MPSImageFeatureChannelFormat
sigmoid = mps.MPSNNNeuronDescriptor(T.sigmoid)
x = np.float32([0, 2, 5, 10, 20])
slope = mps.neuron.gradient(sigmoid, x, upstream=np.ones_like(x))
for source, result, value in zip(x, mps.neuron.forward(sigmoid, x), slope, strict=True):
    print(f"x = {source:4.0f}   sigmoid {result:.8f}   slope {value:.2e}")

# sphinx_gallery_start_ignore
assert slope[0] == 0.25 == slope.max()
assert 4e-5 < slope[3] < 5e-5
# sphinx_gallery_end_ignore

# %%
# At 10 the slope is about 0.00005. To move the result by a little, you would have to move ``x`` by
# 20,000 times as much. Some neurons saturate on one side, some on both, some never. A logarithmic
# scale shows how fast the slope falls:

line = np.linspace(-10, 10, 401, dtype=np.float32)
fig, ax = plt.subplots(figsize=(8, 4.5), layout="constrained")
for name in ("sigmoid", "tanH", "softSign", "softPlus", "ELU"):
    neuron = mps.MPSNNNeuronDescriptor(T[name])
    ax.semilogy(line, mps.neuron.gradient(neuron, line, upstream=np.ones_like(line)), label=name)
ax.set_xlabel("x")
ax.set_ylabel("slope")
ax.set_title("The slopes of five neurons")
ax.legend()
plt.show()

# sphinx_gallery_start_ignore
ends = np.float32([-10, 10])
at_ends = {
    name: mps.neuron.gradient(mps.MPSNNNeuronDescriptor(T[name]), ends, upstream=np.ones_like(ends))
    for name in ("sigmoid", "tanH", "softSign", "softPlus", "ELU")
}
assert at_ends["tanH"].max() == min(slopes.max() for slopes in at_ends.values())
assert (at_ends["tanH"] < at_ends["sigmoid"]).all()
assert at_ends["softSign"].min() > 1e-3
assert at_ends["softPlus"][1] > 0.9999
assert at_ends["ELU"][1] == 1
# sphinx_gallery_end_ignore

# %%
# tanH falls fastest. softSign falls too, but slowly: it still has a slope of more than 0.001 at 10.
# softPlus and ELU are flat on the left side only.
#
# A chain of sigmoids
# -------------------
#
# Each sigmoid multiplies the gradient by its slope, which is at most 1/4. After five of them at
# most 1/1024 is left. The initial gradient is called ``g`` here.


def chain(length, make, format=F.float32):
    """So many neurons in a row, with the gradient; ``make`` makes each of the image it reads."""
    image = mps.MPSNNImageNode(handle="x")
    for i in range(length):
        node = make(image)
        image = node.result_image
        image.handle = f"h{i + 1}"
    (last,) = node.training_graph(with_source_gradient=mps.MPSNNImageNode(handle="g"))
    last.result_image.handle = "dx"
    return mps.MPSNNGraph(result_images=[image, last.result_image], format=format)


def pixel(value):
    """An image of one pixel with one channel."""
    return np.full((1, 1, 1), value, np.float32)


five = teach.trace(
    chain(5, lambda image: mps.MPSCNNNeuronSigmoidNode(source=image)), x=pixel(0), g=pixel(1)
)
print(five)
print(five.chain_rule("dx").splitlines()[1])

# sphinx_gallery_start_ignore
assert 0 < five["dx"].stored.item() <= 1 / 1024
# sphinx_gallery_end_ignore

# %%
# Longer chains
# -------------
#
# How much of a gradient is left after 1, 2, ... 24 neurons? We start at ``x = 1`` with a gradient
# of 1.


def remaining(make, lengths):
    """The gradient of x, for chains of these lengths."""
    graphs = [chain(length, make) for length in lengths]
    return [graph.run(x=pixel(1), g=pixel(1))["dx"].to_array().item() for graph in graphs]


kinds = {
    "sigmoid": lambda image: mps.MPSCNNNeuronSigmoidNode(source=image),
    "geLU": lambda image: mps.MPSCNNNeuronGeLUNode(source=image),
    "softSign": lambda image: mps.MPSCNNNeuronSoftSignNode(source=image),
    "tanH": lambda image: mps.MPSCNNNeuronTanHNode(source=image),
    "reLU": lambda image: mps.MPSCNNNeuronReLUNode(source=image, a=0),
}
lengths = range(1, 25)
left = {name: remaining(make, lengths) for name, make in kinds.items()}
fig, ax = plt.subplots(figsize=(8, 4.5), layout="constrained")
for name, gradients in left.items():
    ax.semilogy(lengths, gradients, marker=".", label=name)
ax.axhline(2.0**-24, color="black", linestyle=":", label="smallest number of half precision")
ax.set_xlabel("neurons in the chain")
ax.set_ylabel("gradient of x")
ax.set_title("What is left of a gradient after a chain of neurons")
ax.legend()
plt.show()

# sphinx_gallery_start_ignore
assert left["reLU"] == [1] * 24
assert left["sigmoid"][-1] < 1e-14
assert left["sigmoid"][-1] < left["geLU"][-1] < left["softSign"][-1] < left["tanH"][-1] < 0.1
# sphinx_gallery_end_ignore

# %%
# The reLU keeps all of it, since a positive number has slope 1 every time. The sigmoids are the
# worst: less than 1e-14 is left of 1. softSign and tanH lose it slowly here, because their
# results move towards 0, where they are steep.
#
# In half precision it is worse still. A number below the dotted line is stored as zero, or as that
# smallest number:

half = chain(16, kinds["sigmoid"], F.float16)
trace = teach.trace(half, x=np.ones((1, 1, 1), np.float16), g=np.ones((1, 1, 1), np.float16))
for name in ("dh6", "dh5", "dh4", "dh3", "dx"):
    print(f"{name}: {trace[name].value.item():.3e} is stored as {trace[name].stored.item():.3e}")
print("dx is", trace.lost["dx"].text)

# sphinx_gallery_start_ignore
assert trace["dx"].stored.item() == 0
# sphinx_gallery_end_ignore

# %%
# Once it is zero it stays zero, and nothing before that neuron can learn. Lesson 6 is about half
# precision, and about what helps.
#
# Exercises
# ---------
#
# **1.** A reLU with ``a = 0`` has slope 0 for negative numbers. What happens to the gradient in a
# chain with ``x = -1``? And with ``a = 0.01``, in a chain of three?
#
# .. raw:: html
#
#    <details class="answer"><summary>Answer</summary>
#
# With ``a = 0`` it is 0 at once: such a neuron is called *dead* as long as its source is negative.
# The first leaky reLU gives -0.01, which the second reads, and so on: three slopes of 0.01 make
# 0.000001.

for a in (0, 0.01):
    graph = chain(3, lambda image, a=a: mps.MPSCNNNeuronReLUNode(source=image, a=a))
    gradient = graph.run(x=pixel(-1), g=pixel(1))["dx"].to_array().item()
    print(f"a = {a}: {gradient:.1e}")
    assert np.isclose(gradient, a**3, atol=0, rtol=1e-6)

# %%
# .. raw:: html
#
#    </details>
#
# **2.** Take ``tanH`` with ``a = 2``, so that its slope at 0 is 2. What happens to a gradient in a
# chain of 20, at ``x = 0``? And at ``x = 1``?
#
# .. raw:: html
#
#    <details class="answer"><summary>Answer</summary>
#
# At 0 it doubles each time: after 20 neurons it is 1,048,576, more than half precision can hold.
# Gradients can *explode* too. At 1 the numbers go to the flat part instead, and the gradient
# vanishes.

doubling = chain(20, lambda image: mps.MPSCNNNeuronTanHNode(source=image, a=2, b=1))
for start in (0, 1):
    print(start, doubling.run(x=pixel(start), g=pixel(1))["dx"].to_array().item())

assert doubling.run(x=pixel(0), g=pixel(1))["dx"].to_array().item() == 2**20 == 1_048_576
assert doubling.run(x=pixel(1), g=pixel(1))["dx"].to_array().item() < 1e-4

# %%
# .. raw:: html
#
#    </details>
#
# **3.** Around each sigmoid of a chain of 24 put a residual connection, as in lesson 3: ``h +
# sigmoid(h)``. How much of the gradient is left now?
#
# .. raw:: html
#
#    <details class="answer"><summary>Answer</summary>
#
# Each step multiplies by more than 1, so nothing vanishes. The gradient even grows a little, to
# about 1.5.


def residual(image):
    """An image plus its sigmoid."""
    inner = mps.MPSCNNNeuronSigmoidNode(source=image)
    return mps.MPSNNAdditionNode(left_source=image, right_source=inner.result_image)


kept = chain(24, residual).run(x=pixel(1), g=pixel(1))["dx"].to_array().item()
print(kept)

# sphinx_gallery_start_ignore
assert round(kept, 1) == 1.5
# sphinx_gallery_end_ignore

# %%
# .. raw:: html
#
#    </details>
#
# **4.** How long may a chain of sigmoids be before its gradient is zero in half precision? Start at
# ``x = 1`` with a gradient of 1. Guess with the help of the figure, then try.
#
# .. raw:: html
#
#    <details class="answer"><summary>Answer</summary>
#
# The curve meets the dotted line at about 11, and that is the last one: with 12 it is zero. The
# smallest number is 2^-24, a power of 1/4: if every slope were 1/4, then twelve neurons would just
# reach it.

for length in range(9, 14):
    graph = chain(length, kinds["sigmoid"], F.float16)
    one = np.ones((1, 1, 1), np.float16)
    print(length, graph.run(x=one, g=one)["dx"].to_array().item())

# sphinx_gallery_start_ignore
alive = [
    length
    for length in range(1, 25)
    if chain(length, kinds["sigmoid"], F.float16).run(x=one, g=one)["dx"].to_array().item()
]
assert alive == list(range(1, 12))
assert 0.25**12 == 2.0**-24
# sphinx_gallery_end_ignore

# %%
# .. raw:: html
#
#    </details>
#
# **Next:** :doc:`plot_06_half_precision`, where small gradients are saved.
