"""
An image in half and in unorm8
==============================

``unorm8`` stores a number from 0 to 1 in eight bits: 256 numbers at equal distances. ``float16``,
half precision, stores it in sixteen, and its numbers lie closer together near 0. In the dark parts
of an image one can see that.
"""

# sphinx_gallery_thumbnail_number = 2
import matplotlib.pyplot as plt
import numpy as np

import mpsref as mps

F = mps.MPSImageFeatureChannelFormat

# %%
# How dense the numbers are
# -------------------------
#
# Here are all the numbers of both formats between 0 and 0.05. unorm8 has 13 of them, half has
# 10,855, so many that the picture shows a bar.

codes = mps.MPSImage.from_array(np.arange(256, dtype=np.uint8).reshape(1, 256, 1), F.unorm8)
unorm8 = codes.to_array().ravel() / 255
half = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float64)
fig, ax = plt.subplots(figsize=(9, 1.8), layout="constrained")
for height, (name, numbers) in enumerate((("half", half), ("unorm8", unorm8))):
    some = numbers[numbers <= 0.05]
    ax.plot(some, np.full_like(some, height), "|", markersize=18, label=name)
    print(f"{name}: {some.size:,} numbers")
ax.set_yticks([0, 1], ["half", "unorm8"])
ax.set_ylim(-0.6, 1.6)
ax.set_title("All numbers of both formats between 0 and 0.05")
plt.show()

# sphinx_gallery_start_ignore
assert (unorm8 <= 0.05).sum() == 13
assert (half <= 0.05).sum() == 10_855
# sphinx_gallery_end_ignore

# %%
# A dark image, brightened
# ------------------------
#
# A light behind a wall: most of the image is darker than 0.05. It is stored in each of the formats,
# read by a power neuron with ``c = 1 / 2.2``, which brightens it as a screen does, and the result
# is stored as float32. So all that is lost, is lost in the source.

rows, columns = np.mgrid[0:1:160j, 0:1:240j]
light = 0.0006 + 0.05 * np.exp(-((columns - 0.75) ** 2 + (rows - 0.35) ** 2) / 0.06)
light = np.where(columns + 0.3 * np.sin(5 * rows) < 0.45, light / 6, light)[..., np.newaxis]

source = mps.MPSNNImageNode(handle="x")
brighter = mps.MPSCNNNeuronPowerNode(source=source, a=1, b=0, c=1 / 2.2)
brighter.result_image.handle = "y"
graph = mps.MPSNNGraph(result_image=brighter.result_image, format=F.float32)


def stored(channel_format):
    """The brightened image, from a source that is stored in a format."""
    if channel_format is F.unorm8:
        image = mps.MPSImage.from_array(np.rint(light * 255).astype(np.uint8), F.unorm8)
    else:
        image = mps.MPSImage.from_array(light.astype(np.float16), F.float16)
    return graph.run(x=image)["y"].to_array()[0, ..., 0]


truth = light[..., 0] ** (1 / 2.2)
fig, axes = plt.subplots(2, 2, figsize=(9, 6.2), layout="constrained")
for column, channel_format in enumerate((F.unorm8, F.float16)):
    y = stored(channel_format)
    axes[0, column].imshow(y, cmap="gray", vmin=0, vmax=0.28)
    axes[0, column].set_title(channel_format.name)
    error = axes[1, column].imshow(np.abs(y - truth), cmap="Reds", vmin=0, vmax=0.04)
    axes[1, column].set_title(f"error, at most {np.abs(y - truth).max():.1g}")
for ax in axes.flat:
    ax.axis("off")
fig.colorbar(error, ax=axes[1, :])
plt.show()

# sphinx_gallery_start_ignore
assert np.median(light) < 0.05
assert np.unique(stored(F.unorm8)).size <= 14
assert np.abs(stored(F.float16) - truth).max() < 1e-4
assert np.abs(stored(F.unorm8) - truth).max() > 0.03
# sphinx_gallery_end_ignore

# %%
# In unorm8 a few grey levels are left, and the steps between them show as rings. In half nothing is
# to be seen.
#
# unorm8 is no place for gradients: it has no negative numbers, and nothing above 1.

gradient = np.float32([[[-0.5, 0.25, 1.5]]])
node = mps.MPSCNNNeuronLinearNode(source=source, a=1, b=0)
node.result_image.handle = "y"
for channel_format in (F.unorm8, F.float16):
    run = mps.MPSNNGraph(result_image=node.result_image, format=channel_format).run(x=gradient)
    print(f"{channel_format.name:8}", run["y"].to_array().ravel())

# sphinx_gallery_start_ignore
cut = (
    mps.MPSNNGraph(result_image=node.result_image, format=F.unorm8)
    .run(x=gradient)["y"]
    .to_array()
    .ravel()
)
assert cut.tolist() == [0, 64, 255]
# sphinx_gallery_end_ignore

# %%
# (The codes of unorm8 are printed: 255 means 1.)
