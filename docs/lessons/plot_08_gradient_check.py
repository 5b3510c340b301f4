"""
Lesson 8: how to check a gradient
=================================

**What you will see.** A gradient can be wrong and look right. Moving the input a little finds out,
if the step is neither too long nor too short, and if no kink is in the way.
"""

# %%
# Finite differences
# ------------------
#
# The slope is how much the result moves, divided by how much the input moves, for a very short
# movement ``h``. There are two ways to measure it:
#
# - the *forward difference* ``(f(x + h) - f(x)) / h``,
# - the *central difference* ``(f(x + h) - f(x - h)) / (2 h)``.
#
# Try both on a tanH at 0.7, in float64, where mpsref can evaluate neurons as well.

import matplotlib.pyplot as plt
import numpy as np

import mpsref as mps
from mpsref.testing import check_gradient

T = mps.MPSCNNNeuronType
tanh = mps.MPSNNNeuronDescriptor(T.tanH)


def f(x):
    """A tanH."""
    return mps.neuron.forward(tanh, np.asarray(x))


def slope(x):
    """Its slope, from the formula."""
    return mps.neuron.gradient(tanh, np.asarray(x), upstream=np.ones_like(x))


x = np.array([0.7])
h = 0.01
forward_difference = (f(x + h) - f(x)) / h
central_difference = (f(x + h) - f(x - h)) / (2 * h)
print(f"formula            {slope(x)[0]:.8f}")
print(f"forward difference {forward_difference[0]:.8f}")
print(f"central difference {central_difference[0]:.8f}")

# sphinx_gallery_start_ignore
assert abs(central_difference - slope(x)) < abs(forward_difference - slope(x)) / 100
# sphinx_gallery_end_ignore

# %%
# The central difference is more than a hundred times better for the same ``h``. It costs one more
# evaluation.
#
# How long should the step be?
# ----------------------------
#
# Shorter should be better. Let us see: here is the error for steps from 1 down to 1e-15.

steps = np.geomspace(1, 1e-15, 181)


def errors(dtype):
    """The errors of both differences for all steps, in the arithmetic of a dtype."""
    at = np.full(steps.shape, 0.7, dtype)
    to_the_right, to_the_left = at + steps.astype(dtype), at - steps.astype(dtype)
    right, left = np.float64(f(to_the_right)), np.float64(f(to_the_left))
    truth = slope(np.float64(at))
    with np.errstate(invalid="ignore", divide="ignore"):
        # Divided by the step that was taken in the end, since x + h is rounded.
        one = (right - np.float64(f(at))) / (np.float64(to_the_right) - np.float64(at))
        two = (right - left) / (np.float64(to_the_right) - np.float64(to_the_left))
    return np.abs(one / truth - 1), np.abs(two / truth - 1)


one64, two64 = errors(np.float64)
one32, two32 = errors(np.float32)
fig, ax = plt.subplots(figsize=(8, 5), layout="constrained")
for error, style, label in (
    (one64, "-", "forward, float64"),
    (two64, "-", "central, float64"),
    (one32, ":", "forward, float32"),
    (two32, ":", "central, float32"),
):
    ax.loglog(steps, np.maximum(error, 1e-17), style, label=label)
ax.invert_xaxis()
ax.set_xlabel("step h, shorter to the right")
ax.set_ylabel("relative error of the slope")
ax.set_title("The error of differences, for steps of every length")
ax.legend()
plt.show()

# sphinx_gallery_start_ignore
best_one, best_two = steps[np.nanargmin(one64)], steps[np.nanargmin(two64)]
assert 1e-9 < best_one < 1e-7
assert 1e-7 < best_two < 1e-4
near = (steps > 1e-3) & (steps < 0.1)
assert abs(np.polyfit(np.log(steps[near]), np.log(one64[near]), 1)[0] - 1) < 0.1
assert abs(np.polyfit(np.log(steps[near]), np.log(two64[near]), 1)[0] - 2) < 0.1
best = [np.nanmin(error) for error in (one64, two64, one32, two32)]
assert best[0] < 1e-7
assert best[1] < 1e-9
assert np.nanmedian(two32[(steps < 1e-2) & (steps > 3e-3)]) < 1e-4
assert np.isnan(two32[-1])
assert best[3] > 100 * best[1]
epsilon = np.finfo(np.float64).eps
assert 1e-8 < epsilon**0.5 < 2e-8
assert 5e-6 < epsilon ** (1 / 3) < 1e-5
# sphinx_gallery_end_ignore

# %%
# There are two errors, and they pull in opposite directions.
#
# - On the left the step is too long, since a curve is not a straight line. A step ten times shorter
#   makes the error of the forward difference ten times smaller, and that of the central one a
#   hundred times.
# - On the right it is too short. The two results are almost the same number, and each was rounded.
#   Their difference is mostly rounding, and it is divided by something tiny.
#
# In between there is a best step. For the forward difference in float64 it is about 1e-8, the
# square root of the precision. For the central one it is about 1e-5, the cube root. In float32
# nothing comes near to that. So check gradients in float64, with the central difference and ``h =
# 1e-5``.

# %%
# The complex step
# ----------------
#
# There is a trick without any difference. Go a short way in the *imaginary* direction and look at
# the imaginary part of the result: ``f(x + i h)`` has the imaginary part ``h f'(x)``, nearly.
# Nothing is subtracted, so ``h`` may be as short as you like. It needs a formula that works with
# complex numbers, such as numpy's ``tanh``:

tiny = 1e-20
by_complex_step = np.tanh(x + 1j * tiny).imag / tiny
print(f"error: {abs(by_complex_step / slope(x) - 1)[0]:.1e}")

# sphinx_gallery_start_ignore
assert abs(by_complex_step / slope(x) - 1)[0] < 1e-15
# sphinx_gallery_end_ignore

# %%
# That is as good as float64 can be. It only works for smooth formulas: ``abs`` of a complex number
# is its length, and has no imaginary part.

print(np.abs(-2 + 1j * tiny), np.abs(-2 + 1j * tiny).imag / tiny)

# sphinx_gallery_start_ignore
assert np.abs(-2 + 1j * tiny).imag / tiny == 0
# sphinx_gallery_end_ignore

# %%
# Kinks
# -----
#
# A difference across a kink is an average of two slopes, and says "wrong" where nothing is. Here is
# a reLUN with ``a = 0`` and ``b = 6``, checked with the rather long step 0.25:

relu6 = mps.MPSNNNeuronDescriptor(T.reLUN, a=0, b=6)
line = np.linspace(-2, 8, 401)
long = 0.25
difference = (mps.neuron.forward(relu6, line + long) - mps.neuron.forward(relu6, line - long)) / (
    2 * long
)
given = mps.neuron.gradient(relu6, line, upstream=np.ones_like(line))
fig, ax = plt.subplots(figsize=(8, 4), layout="constrained")
ax.plot(line, given, label="gradient")
ax.plot(line, difference, "--", label="central difference, h = 0.25")
ax.set_title("A difference that reaches over the kinks at 0 and 6")
ax.set_xlabel("x")
ax.legend()
plt.show()

# sphinx_gallery_start_ignore
off = np.abs(given - difference) > 1e-6
assert off.any()
assert (np.minimum(np.abs(line[off]), np.abs(line[off] - 6)) <= long + 1e-9).all()
# sphinx_gallery_end_ignore

# %%
# With a short step few points are that close to a kink, but an image with a million pixels has
# some. A good check stays on its own side of the kink.
#
# A check that knows all this
# ---------------------------
#
# ``mpsref.testing.check_gradient`` takes differences on the side of a kink where the input is,
# chooses its steps, estimates its own error, and compares. It takes a neuron, a graph, or two
# functions of your own: a forward, and a gradient that also gets the upstream gradient.

print(check_gradient(relu6, line).text())

# %%
# Now a gradient with a mistake. This one takes the slope at the result instead of at the source, as
# in lesson 2:


def mistaken(x, upstream):
    """The gradient of tanh, almost."""
    return upstream * (1 - np.tanh(np.tanh(x)) ** 2)


try:
    check_gradient((np.tanh, mistaken), np.linspace(-2, 2, 9), name="mistaken")
except mps.VerificationError as error:
    report = error.report
    print(report.verdict)
    print("the worst:", report.worst[0])

# sphinx_gallery_start_ignore
assert report.wrong == 8
assert report.agree == 1
# sphinx_gallery_end_ignore

# %%
# Only at 0 does it happen to be right: there ``tanh(x)`` is ``x``. One test point is not a test.
#
# Exercises
# ---------
#
# **1.** What is the best step of the central difference in float32, and how good is it? Read it off
# the figure, then compare it with the cube root of the precision of float32.
#
# .. raw:: html
#
#    <details class="answer"><summary>Answer</summary>
#
# The cube root is about 0.005. With a step near it five or six digits are right, of the seven that
# float32 has.

print(f"cube root {np.finfo(np.float32).eps ** (1 / 3):.4f}")
typical = np.median(two32[(steps > 0.003) & (steps < 0.01)])
print(f"typical error there {typical:.1e}")

# sphinx_gallery_start_ignore
assert round(float(np.finfo(np.float32).eps) ** (1 / 3), 3) == 0.005
assert 1e-6 < typical < 1e-5
# sphinx_gallery_end_ignore

# %%
# .. raw:: html
#
#    </details>
#
# **2.** Apple's header prints this derivative of the GeLU: ``1/2 (1 + erf(x sqrt(1/2))) + sqrt(1/2)
# (2 / sqrt pi) e^(-x^2 / 2) x``. Is it right? Where is it farthest off?
#
# .. raw:: html
#
#    <details class="answer"><summary>Answer</summary>
#
# No: the second term is twice what it should be. It is farthest off at -1 and 1, by 0.24, and right
# at 0.
# According to measurements by others, hardware computes the true derivative.

from scipy.special import erf


def printed(x, upstream):
    """What the header prints, times the upstream gradient."""
    second = np.sqrt(1 / 2) * (2 / np.sqrt(np.pi)) * np.exp(-(x**2) / 2) * x
    return upstream * (0.5 * (1 + erf(x * np.sqrt(1 / 2))) + second)


def gelu(x):
    """The GeLU itself."""
    return x / 2 * (1 + erf(x / np.sqrt(2)))


places = np.linspace(-3, 3, 13)
try:
    check_gradient((gelu, printed), places, name="as printed")
except mps.VerificationError as error:
    print(error.report.verdict)

true = mps.neuron.gradient(mps.MPSNNNeuronDescriptor(T.geLU), places, upstream=np.ones_like(places))
wrong_by = np.abs(printed(places, 1.0) - true)
print(places[np.isclose(wrong_by, wrong_by.max())], wrong_by.max())

# sphinx_gallery_start_ignore
assert np.abs(places[np.isclose(wrong_by, wrong_by.max())]).tolist() == [1, 1]
assert round(wrong_by.max(), 2) == 0.24
assert wrong_by[6] == 0
# sphinx_gallery_end_ignore

# %%
# .. raw:: html
#
#    </details>
#
# **3.** Compute the slope of the softPlus, ``ln(1 + e^x)``, at ``x = 1`` by a complex step. Compare
# it with the sigmoid of 1. Why are they the same?
#
# .. raw:: html
#
#    <details class="answer"><summary>Answer</summary>
#
# By the chain rule the slope is ``e^x / (1 + e^x)``, and that is the sigmoid.

by_step = np.log(1 + np.exp(1 + 1j * tiny)).imag / tiny
sigmoid_of_one = mps.neuron.forward(mps.MPSNNNeuronDescriptor(T.sigmoid), np.array([1.0]))[0]
print(by_step, sigmoid_of_one)

assert abs(by_step - sigmoid_of_one) < 1e-15

# %%
# .. raw:: html
#
#    </details>
#
# **4.** Check the gradient of a graph: the sum of a tanH and an absolute value of the same image,
# as in lesson 3. Give ``check_gradient`` the last node, and ``{"x": ...}``.
#
# .. raw:: html
#
#    <details class="answer"><summary>Answer</summary>
#
# It makes the training graph itself, and the gradient passes, even at the kink at 0.

image = mps.MPSNNImageNode(handle="x")
left = mps.MPSCNNNeuronTanHNode(source=image)
right = mps.MPSCNNNeuronAbsoluteNode(source=image)
total = mps.MPSNNAdditionNode(left_source=left.result_image, right_source=right.result_image)
checked = check_gradient(
    total, {"x": np.linspace(-2, 2, 9).reshape(1, 9, 1)}, name="tanH + absolute"
)
print(checked.text())

# sphinx_gallery_start_ignore
assert checked.agree == 9
# sphinx_gallery_end_ignore

# %%
# .. raw:: html
#
#    </details>
#
# **Next:** :doc:`plot_09_xor`, on five neurons that learn.
