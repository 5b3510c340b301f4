"""
Lesson 4: kinks
===============

**What you will see.** At a corner a curve has two slopes, one on each side, and a program has to
answer with one number. Apple's header, PyTorch and JAX do not give the same answer, and none of
them is wrong.
"""

# %%
# Two slopes at one point
# -----------------------
#
# The absolute value goes down to 0 with slope -1, and up again with slope 1. At 0 there is a
# *kink*: no single line is the tangent.

# sphinx_gallery_thumbnail_number = 2
import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import mpsref as mps
from mpsref import teach

T = mps.MPSCNNNeuronType
absolute = mps.MPSNNNeuronDescriptor(T.absolute)
x = np.float32([-0.001, 0, 0.001])
print(mps.neuron.gradient(absolute, x, upstream=np.ones_like(x)))

# %%
# mpsref answers 0 at the kink, between the two. For the other neurons it follows the comparison
# that Apple's header prints. For reLU that is ``1 if x >= 0 else a``, so that 0 belongs to the
# right side, and the slope there is 1.

relu = mps.MPSNNNeuronDescriptor(T.reLU)
print(mps.NEURONS[relu.neuron_type].slope)
print(mps.neuron.gradient(relu, x, upstream=np.ones_like(x)))

# %%
# In a plot the slopes of the two sides end in open circles, and the answer at the kink is a filled
# one.

fig, axes = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
for ax, descriptor in zip(axes, (absolute, relu), strict=True):
    teach.plot_neuron(descriptor, ax=ax, limits=(-2, 2))
plt.show()

# sphinx_gallery_start_ignore
ones = np.ones_like(x)
assert mps.neuron.gradient(absolute, x, upstream=ones).tolist() == [-1, 0, 1]
assert mps.neuron.gradient(relu, x, upstream=ones).tolist() == [0, 1, 1]
# sphinx_gallery_end_ignore

# %%
# What is a right answer?
# -----------------------
#
# Any number between the slopes of the two sides is a fair answer. A line with such a slope through
# the corner of the absolute value stays below the curve. There such a number is called a
# *subgradient*. For gradient descent it seldom matters which one is taken.
#
# It matters when you compare two programs. Exact zeros are common: a reLU makes many of them.
#
# What the libraries answer
# -------------------------
#
# We asked PyTorch and JAX for the gradients of their functions at the kinks. ONNX Runtime was asked
# for the values only: it refuses a model with ONNX's ``Gradient`` operator. The answers are in
# ``measured/kinks.json``, which ``measured/kinks.py`` wrote. Only those of mpsref are computed now.
# (To run this page yourself, put :download:`kinks.json </lessons/measured/kinks.json>` in a
# folder ``measured`` beside it.)

folder = Path(__file__).parent if "__file__" in globals() else Path()
answers = json.loads((folder / "measured" / "kinks.json").read_text())
print(", ".join(f"{name} {version}" for name, version in answers["versions"].items()))


def slopes(kink):
    """The slope of mpsref just left of a kink, at it, and just right of it."""
    descriptor = mps.MPSNNNeuronDescriptor(T[kink["neuron"]], **kink["parameters"])
    at = np.float32(kink["x"])
    points = np.array([np.nextafter(at, np.float32(-9)), at, np.nextafter(at, np.float32(9))])
    return [
        float(slope)
        for slope in mps.neuron.gradient(descriptor, points, upstream=np.ones_like(points))
    ]


def title(kink):
    """A neuron with its parameters, and the place of the kink."""
    numbers = "".join(f" {name} = {value:.3g}," for name, value in kink["parameters"].items())
    return f"{kink['neuron']}{numbers} at {float(kink['x']):g}"


# All answers at -0 are the same as at 0, so they are not shown.
shown = [kink for kink in answers["kinks"] if kink["x"] != "-0.0"]
for kink in shown:
    left, here, right = slopes(kink)
    print(f"{title(kink)}: {left:.3g} on the left, {right:.3g} on the right")
    for name, value in {"mpsref": here, **kink["torch"], **kink["jax"]}.items():
        print(f"    {value:<6.3g} {name}")

# sphinx_gallery_start_ignore
by_name = {(k["neuron"], str(k["parameters"].get("a")), float(k["x"])): k for k in shown}
plain = by_name["reLU", "None", 0.0]
assert (plain["torch"]["torch.relu"], plain["jax"]["jax.nn.relu"], slopes(plain)[1]) == (0, 0, 1)
assert plain["torch"]["torch.maximum(x, 0)"] == plain["jax"]["jnp.maximum(x, 0)"] == 0.5
assert plain["torch"]["x.clamp(min=0)"] == plain["jax"]["jnp.where(x >= 0, x, 0)"] == 1
leaky = by_name["reLU", "0.25", 0.0]
assert (leaky["torch"]["leaky_relu"], leaky["jax"]["jax.nn.leaky_relu"], slopes(leaky)[1]) == (
    0.25,
    1,
    1,
)
for at in (0.0, 6.0):
    clipped = by_name["reLUN", "0.0", at]
    assert (clipped["torch"]["relu6"], clipped["jax"]["jax.nn.relu6"]) == (0, 0)
corner = by_name["absolute", "None", 0.0]
assert (corner["torch"]["torch.abs"], corner["jax"]["jnp.abs"], slopes(corner)[1]) == (0, 1, 0)
for kink in answers["kinks"]:
    low, high = sorted(slopes(kink)[::2])
    given = [*kink["torch"].values(), *kink["jax"].values(), slopes(kink)[1]]
    assert all(low - 1e-6 <= value <= high + 1e-6 for value in given)
    descriptor = mps.MPSNNNeuronDescriptor(T[kink["neuron"]], **kink["parameters"])
    (value,) = mps.neuron.forward(descriptor, np.float32([kink["x"]]))
    assert list(kink["onnxruntime_forward"].values()) == [value]
assert answers["onnxruntime_on_gradient"]
for kink in answers["kinks"]:
    if kink["x"] == "-0.0":
        same = by_name[kink["neuron"], str(kink["parameters"].get("a")), 0.0]
        assert (kink["torch"], kink["jax"], slopes(kink)) == (
            same["torch"],
            same["jax"],
            slopes(same),
        )
sixth, quarter = (mps.MPSNNNeuronDescriptor(T.hardSigmoid, a=a, b=0.5) for a in (1 / 6, 0.25))
assert sixth.a * 3 + 0.5 > 1
assert sixth.a * -3 + 0.5 < 0
ends = np.float32([-2, 2])
assert mps.neuron.gradient(quarter, ends, upstream=np.ones_like(ends)).tolist() == [0.25, 0.25]
# sphinx_gallery_end_ignore

# %%
# Some observations:
#
# - At 0 the reLU of mpsref has slope 1, and those of PyTorch and JAX have slope 0.
# - One function has three answers in one library. ``maximum`` gives half of the gradient to
#   each of two equal numbers, so it answers 1/2. ``clamp`` of PyTorch passes all of it, and so does
#   a ``where`` with ``>=``.
# - The leaky reLU of PyTorch takes the left side, that of JAX the right one.
# - ``relu6`` of both is flat at both of its kinks.
# - The absolute value of JAX has slope 1 at 0, and those of PyTorch and mpsref have 0.
# - The hard sigmoid has its kinks where ``a x + b`` is 0 and 1. Apple's comparison counts them in:
#   with ``a = 0.25`` and ``b = 0.5`` the slope at -2 and 2 is 0.25. Here it is 0, because 1/6 is no
#   float: ``a`` is a little larger, so the sum is a little more than 1 at 3, and less than 0 at -3.
#   These kinks lie between two floats.
# - Every answer lies between the two sides.
# - All agree on the *value* at a kink, and ONNX Runtime does too. A kink is not a jump.
#
# The picture shows it. The grey bar goes from the slope of the left side to that of the right side.

fig, ax = plt.subplots(figsize=(9, 5), layout="constrained")
for height, kink in enumerate(shown):
    left, here, right = slopes(kink)
    ax.plot(
        [left, right],
        [height, height],
        color="lightgrey",
        linewidth=12,
        solid_capstyle="butt",
        zorder=1,
    )
    for name, marker, color, shift in (
        ("torch", "^", "tab:orange", -0.22),
        ("jax", "s", "tab:green", 0.22),
    ):
        values = list(kink[name].values())
        ax.plot(
            values,
            [height + shift] * len(values),
            marker,
            color=color,
            label=name if height == 0 else None,
        )
    ax.plot(here, height, "o", color="tab:blue", label="mpsref" if height == 0 else None)
ax.set_yticks(range(len(shown)), [title(kink) for kink in shown])
ax.invert_yaxis()
ax.set_xlabel("slope answered at the kink")
ax.set_title("What PyTorch, JAX and mpsref answer at kinks")
ax.legend()
plt.show()

# %%
# Where Apple's header is mistaken
# --------------------------------
#
# A choice at a kink is one thing, an error another. In some places the header prints a slope that
# is not the derivative. The table of neurons keeps these *errata*. Two of them are about neurons
# with kinks:

for name in ("hardSigmoid", "reLUN"):
    for erratum in mps.NEURONS[T[name]].errata:
        print(f"{name}, {erratum.where}\n    prints: {erratum.printed}")

# %%
# Take reLUN with ``a = 0`` and ``b = 6`` at 7, where it is constant, and the hard sigmoid at 2,
# where it is not. Compare the printed slope, the answer of mpsref, and differences:

cases = (
    (mps.MPSNNNeuronDescriptor(T.reLUN, a=0, b=6), 7.0, lambda d, x: d.b if x >= d.b else 1.0),
    (mps.MPSNNNeuronDescriptor(T.hardSigmoid), 2.0, lambda d, x: d.a if 0 <= x <= 1 else 0.0),
)
for descriptor, place, printed in cases:
    at = np.array([place])
    moved = mps.neuron.forward(descriptor, np.array([place - 0.01, place + 0.01]))
    ours = mps.neuron.gradient(descriptor, at, upstream=np.ones_like(at))[0]
    print(
        f"{descriptor.neuron_type.name:11} at {place:g}: printed {printed(descriptor, place):g}, "
        f"mpsref {ours:.3g}, differences {(moved[1] - moved[0]) / 0.02:.3g}"
    )
    assert abs(ours - (moved[1] - moved[0]) / 0.02) < 1e-9 < abs(ours - printed(descriptor, place))

# %%
# Exercises
# ---------
#
# **1.** The ELU with ``a = 2`` has a kink at 0. With ``a = 1``, its default, it has none. Why?
#
# .. raw:: html
#
#    <details class="answer"><summary>Answer</summary>
#
# Left of 0 the slope is ``a e^x``, which comes to ``a`` at 0. On the right it is 1. With ``a = 1``
# both are the same, and the curve has a tangent.

for a in (1, 2):
    elu = mps.MPSNNNeuronDescriptor(T.ELU, a=a)
    sides = np.float32([-1e-6, 1e-6])
    print(f"a = {a}:", mps.neuron.gradient(elu, sides, upstream=np.ones_like(sides)))

# sphinx_gallery_start_ignore
tested = [mps.MPSNNNeuronDescriptor(T.ELU, a=a) for a in (1, 2)]
assert [
    np.round(mps.neuron.gradient(d, sides, upstream=np.ones_like(sides)), 5).tolist()
    for d in tested
] == [
    [1, 1],
    [2, 1],
]
# sphinx_gallery_end_ignore

# %%
# .. raw:: html
#
#    </details>
#
# **2.** ``x = reLU(x) - reLU(-x)`` holds for every ``x``, and the slope of ``x`` is 1. What does
# the chain rule give for the right side at 0, with slope 1 at the kink? With slope 0? With 1/2?
#
# .. raw:: html
#
#    <details class="answer"><summary>Answer</summary>
#
# With a slope ``k`` at the kink, the first term sends back ``k``. The second changes its sign
# twice, and sends back ``k`` too. That makes ``2 k``: 2 with Apple's choice, 0 with that of
# ``torch.relu``, and only with 1/2 the true slope. So the chain rule may fail at kinks, even if
# each slope is a good answer by itself.

F = mps.MPSImageFeatureChannelFormat
source = mps.MPSNNImageNode(handle="x")
mirrored = mps.MPSCNNNeuronLinearNode(source=source, a=-1, b=0)
right_part = mps.MPSCNNNeuronReLUNode(source=source, a=0)
left_part = mps.MPSCNNNeuronReLUNode(source=mirrored.result_image, a=0)
same = mps.MPSNNAdditionNode(
    left_source=right_part.result_image, right_source=left_part.result_image
)
same.secondary_scale = -1
same.result_image.handle = "y"
(last,) = same.training_graph(with_source_gradient=mps.MPSNNImageNode(handle="dy"))
last.result_image.handle = "dx"
graph = mps.MPSNNGraph(result_images=[same.result_image, last.result_image], format=F.float32)
three = np.float32([[[-2, 0, 2]]])
images = graph.run(x=three, dy=np.ones_like(three))
print("y: ", images["y"].to_array().ravel())
print("dx:", images["dx"].to_array().ravel())

assert images["y"].to_array().ravel().tolist() == [-2, 0, 2]
assert images["dx"].to_array().ravel().tolist() == [1, 2, 1]

# %%
# .. raw:: html
#
#    </details>
#
# **3.** Which of the sixteen neurons have a kink, with their default parameters? Each row of
# ``mpsref.NEURONS`` has a function ``kinks`` that takes a descriptor. It returns where the slope
# *may* jump: check whether it does.
#
# .. raw:: html
#
#    <details class="answer"><summary>Answer</summary>
#
# Six may have one, and the ELU has none after all, as in exercise 1. reLUN has one at 6 only, since
# its default ``a`` is 1.

for neuron_type, facts in mps.NEURONS.items():
    descriptor = mps.MPSNNNeuronDescriptor(neuron_type, data=[0.25] if facts.per_channel else None)
    for at in facts.kinks(descriptor):
        sides = np.array([[at - 1e-6], [at + 1e-6]])
        lower, upper = mps.neuron.gradient(descriptor, sides, upstream=np.ones_like(sides)).ravel()
        print(f"{neuron_type.name:12} at {at:5.2f}: {lower:5.2f} and {upper:5.2f}")

# sphinx_gallery_start_ignore
found = {}
for neuron_type, facts in mps.NEURONS.items():
    descriptor = mps.MPSNNNeuronDescriptor(neuron_type, data=[0.25] if facts.per_channel else None)
    for at in facts.kinks(descriptor):
        sides = np.array([[at - 1e-6], [at + 1e-6]])
        lower, upper = mps.neuron.gradient(descriptor, sides, upstream=np.ones_like(sides)).ravel()
        found.setdefault(neuron_type.name, []).append((round(at, 3), abs(upper - lower) > 1e-3))
assert len(found) == 6
assert found["ELU"] == [(0, False)]
assert [at for at, jumps in found["reLUN"] if jumps] == [6]
assert all(any(jumps for _, jumps in places) for name, places in found.items() if name != "ELU")
# sphinx_gallery_end_ignore

# %%
# .. raw:: html
#
#    </details>
#
# **4.** Measure the slope of the reLU at 0 by moving ``x`` by 0.001 to both sides. Which of the
# answers do you get?
#
# .. raw:: html
#
#    <details class="answer"><summary>Answer</summary>
#
# Half of the way goes along the left side, with slope 0, and half along the right one, with slope
# 1. The average is 1/2. A measured slope at a kink does not tell whether a program's answer is
# right.

sides = np.array([-0.001, 0.001])
low, high = mps.neuron.forward(relu, sides)
print((high - low) / 0.002)

assert (high - low) / 0.002 == 0.5

# %%
# .. raw:: html
#
#    </details>
#
# **Next:** :doc:`plot_05_saturation`, where the slope is known very well, and is almost nothing.
