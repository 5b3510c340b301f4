"""
Lesson 6: half precision
========================

**What you will see.** MPS stores images in half precision unless it is told otherwise, and that
changes gradients: each is rounded where it is stored, and small ones become zero. Multiply them all
by one large number, and they survive.
"""

# %%
# What a half can hold
# --------------------
#
# A half has 16 bits. It has about three decimal digits, its largest number is 65504, and its
# smallest is 2^-24. Below 2^-14 it has fewer and fewer digits. Numbers between two halves are
# *rounded* to the nearer one.

import matplotlib.pyplot as plt
import numpy as np

import mpsref as mps
from mpsref import teach

F = mps.MPSImageFeatureChannelFormat
for number in (0.1, 1 / 3, 3e-6, 1e-7, 2e-8, 70000):
    with np.errstate(over="ignore"):
        stored = np.float64(np.float16(number))
    print(f"{number:12.6g} is stored as {stored:12.6g}")

# sphinx_gallery_start_ignore
halves = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float64)
assert halves.max() == 65504
assert halves[1] == 2.0**-24
with np.errstate(over="ignore"):
    assert np.float16(2e-8) == 0
    assert np.float16(70000) == np.inf
# sphinx_gallery_end_ignore

# %%
# How large is the error, compared to the number? Between 2^-14 and 65504 it is at most 2^-11, about
# 0.05 percent. Below, it grows, until nothing is left of the number:

numbers = np.geomspace(1e-9, 6e4, 4001)
error = np.abs(numbers.astype(np.float16).astype(np.float64) - numbers) / numbers
fig, ax = plt.subplots(figsize=(8, 4), layout="constrained")
ax.loglog(numbers, np.maximum(error, 1e-7), ".", markersize=2)
for power in (-24, -14):
    ax.axvline(2.0**power, color="black", linestyle=":")
    ax.text(2.0**power, 2e-7, f" 2^{power}")
ax.set_xlabel("number")
ax.set_ylabel("relative error when stored")
ax.set_title("What a half loses of a number")
plt.show()

# sphinx_gallery_start_ignore
assert error[numbers >= 2.0**-14].max() <= 2.0**-11
assert (error[numbers < 2.0**-25] == 1).all()
assert 0.0004 < 2.0**-11 < 0.0005
# sphinx_gallery_end_ignore

# %%
# Where a graph rounds
# --------------------
#
# A node of mpsref computes exactly, and rounds *once*, when its result is stored in an image. The
# next node reads the rounded number. So a graph rounds as often as it has nodes. Here are three
# neurons and their gradients, in half.


def three(format, wide=False):
    """Three neurons with their gradients; ``wide`` stores the gradients as float32."""
    source, upstream = mps.MPSNNImageNode(handle="x"), mps.MPSNNImageNode(handle="dy")
    h = mps.MPSCNNNeuronTanHNode(source=source)
    s = mps.MPSCNNNeuronSoftSignNode(source=h.result_image)
    y = mps.MPSCNNNeuronSigmoidNode(source=s.result_image)
    h.result_image.handle, s.result_image.handle, y.result_image.handle = "h", "s", "y"
    made = []
    (last,) = y.training_graph(
        with_source_gradient=upstream, node_handler=lambda new, *others: made.append(new)
    )
    last.result_image.handle = "dx"
    if wide:
        for node in made:
            node.result_image.format = F.float32
    return mps.MPSNNGraph(result_images=[y.result_image, last.result_image], format=format)


def pixel(value, dtype=np.float16):
    """An image of one pixel with one channel."""
    return np.full((1, 1, 1), value, dtype)


half = three(F.float16)
print(teach.trace(half, x=pixel(1.5), dy=pixel(1)))

# sphinx_gallery_start_ignore
steps = teach.trace(half, x=pixel(1.5), dy=pixel(1)).steps
assert len(steps) == 6
for step in steps:
    assert step.rounding.item() != 0
    assert abs(step.rounding.item()) <= np.spacing(np.float16(step.stored.item())) / 2
# sphinx_gallery_end_ignore

# %%
# The last column has the rounding, in *units in the last place* (ULP): the distance from one half
# to the next. It is never more than half a unit, since the nearer half is taken. All six steps
# round.

# %%
# Underflow
# ---------
#
# Now start with a small gradient. In the training of a network that is common: the gradient of a
# mean over a million numbers starts with one millionth.

small = teach.trace(half, x=pixel(4), dy=pixel(1e-6))
print(small)

# sphinx_gallery_start_ignore
assert small["dx"].stored.item() == 0
assert small["dx"].value.item() > 0
# sphinx_gallery_end_ignore

# %%
# The result is zero: the tanH is nearly flat at 4, and the product is below all halves. And ``dy``
# was inexact before anything was computed: 1e-6 is not a half.
#
# Loss scaling
# ------------
#
# Every gradient is a product with ``dy`` in it (lesson 2, exercise 4). So start with a ``dy`` that
# is larger by a factor ``S``: each gradient is larger by ``S``. At the end divide by ``S``, in
# float32. Multiplying the loss by ``S`` does the same, hence the name *loss scaling*. Multiplying
# and dividing by a power of two rounds nothing.

S = 2.0**20
scaled = teach.trace(half, x=pixel(4), dy=pixel(1e-6 * S))
print(scaled)
print("dx =", scaled["dx"].stored.item() / S)

# %%
# What is the right result? The same graph in float32 is close enough to tell:

exact = teach.trace(three(F.float32), x=pixel(4, np.float32), dy=pixel(1e-6, np.float32))[
    "dx"
].stored.item()
print("dx =", exact)

# sphinx_gallery_start_ignore
assert 0 < abs(scaled["dx"].stored.item() / S / exact - 1) < 0.01
# sphinx_gallery_end_ignore

# %%
# Less than one percent off, where it was zero. How large should ``S`` be? Let us try all powers of
# two, for many ``dy``. Pale is good. At the lower left gradients vanish, at the upper right they
# overflow to infinity.

exponents = np.arange(0, 41)
magnitudes = np.geomspace(1e-9, 1, 91)
dy = np.float32(magnitudes).reshape(1, -1, 1)
truth = three(F.float32).run(x=np.full_like(dy, 1.5), dy=dy)["dx"].to_array().ravel()
with np.errstate(over="ignore"):
    starts = np.float16(magnitudes * 2.0 ** exponents[:, np.newaxis])[..., np.newaxis]
got = (
    half.run(x=np.full_like(starts, 1.5), dy=starts)["dx"].to_array()[0, ..., 0].astype(np.float64)
)
off = np.abs(got / 2.0 ** exponents[:, np.newaxis] / truth - 1)
fig, ax = plt.subplots(figsize=(8, 4.5), layout="constrained")
mesh = ax.pcolormesh(
    magnitudes, exponents, np.log10(np.clip(off, 1e-4, 1)), cmap="Reds", shading="nearest"
)
ax.set_xscale("log")
ax.set_xlabel("dy")
ax.set_ylabel("S as a power of two")
ax.set_title("How wrong the gradient is, for many scales S")
fig.colorbar(mesh, label="relative error of dx, as a power of ten")
plt.show()

# sphinx_gallery_start_ignore
good = off < 0.01
assert not good[0, magnitudes < 1e-6].any()
assert good[10:16, (magnitudes > 1e-2) & (magnitudes < 0.9)].all()
assert not good[-1].any() or magnitudes[good[-1]].max() < 1e-6
assert np.isinf(off[-1, -1])
widths = good.sum(axis=0)
assert widths[10:-20].min() >= 20
# sphinx_gallery_end_ignore

# %%
# The pale band is more than twenty powers of two wide, so ``S`` need not be chosen with care:
# training programs take a large ``S``, and halve it whenever they meet an infinity.
#
# Exercises
# ---------
#
# **1.** A gradient is 1e-9. What is the smallest power of two for ``S`` so that the scaled gradient
# is not zero? And so that it is at least 2^-14, where halves have all their digits?
#
# .. raw:: html
#
#    <details class="answer"><summary>Answer</summary>
#
# 2^-24 is about 6e-8, so a factor of 60 would reach it. But rounding is to the nearest, so half of
# that is enough: 32 works. To reach 2^-14 takes 65,536.

powers = 2.0 ** np.arange(40)
print(powers[np.float16(1e-9 * powers) > 0][0], powers[1e-9 * powers >= 2.0**-14][0])

assert powers[np.float16(1e-9 * powers) > 0][0] == 32
assert powers[1e-9 * powers >= 2.0**-14][0] == 65_536

# %%
# .. raw:: html
#
#    </details>
#
# **2.** With ``x = 1.5`` and ``dy = 1e-6``, what is the largest power of two for ``S`` with which
# no gradient of our graph is infinite?
#
# .. raw:: html
#
#    <details class="answer"><summary>Answer</summary>
#
# All slopes are below 1, so the gradients only shrink, and the start decides: ``1e-6 S`` must not
# round to more than 65504. That gives 2^35.

fine = []
for exponent in range(45):
    with np.errstate(over="ignore"):
        start = pixel(1e-6 * 2.0**exponent)
    if np.isfinite(start) and np.isfinite(teach.trace(half, x=pixel(1.5), dy=start)["dx"].stored):
        fine.append(exponent)
print(fine[-1])

assert fine == list(range(36))

# %%
# .. raw:: html
#
#    </details>
#
# **3.** A network has a million gradients, of sizes from 1e-12 to 1. Can one ``S`` save them all?
#
# .. raw:: html
#
#    <details class="answer"><summary>Answer</summary>
#
# Hardly. The largest must stay below 65504, the smallest above 2^-25. The ratio of these is about
# 2e12, so it looks just possible. But near the lower end no digits are left. With all digits the
# range is from 2^-14 to 65504, a ratio of about 1e9.

print(f"{65504 / 2.0**-25:.1e} {65504 / 2.0**-14:.1e}")

assert 2e12 < 65504 / 2.0**-25 < 2.3e12
assert 1e9 < 65504 / 2.0**-14 < 1.1e9

# %%
# .. raw:: html
#
#    </details>
#
# **4.** Keep the images in half and store the gradients as float32: set ``result_image.format`` of
# each gradient node, as ``three(..., wide=True)`` does. Does the gradient with ``x = 4`` and ``dy =
# 1e-6`` survive without scaling? Why is it not quite that of the float32 graph?
#
# .. raw:: html
#
#    <details class="answer"><summary>Answer</summary>
#
# It survives. The images ``h`` and ``s`` are still halves, and slopes are taken at these rounded
# numbers.

wide = three(F.float16, wide=True)
answer = teach.trace(wide, x=pixel(4), dy=pixel(1e-6, np.float32))
print(answer)
print("in float32:", exact)

assert 0 < abs(answer["dx"].stored.item() / exact - 1) < 0.001

# %%
# .. raw:: html
#
#    </details>
#
# **Next:** :doc:`plot_07_descent`, where gradients are put to use.
