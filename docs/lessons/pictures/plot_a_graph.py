"""
A graph, forward and backward
=============================

``training_graph`` makes a node for the way back of each node of the way forward, and an addition
where an image has two readers. ``teach.svg`` draws all of it, ``teach.mermaid`` and ``teach.dot``
write it for other programs.
"""

import matplotlib.pyplot as plt
import numpy as np

import mpsref as mps
from mpsref import teach

x, dy = mps.MPSNNImageNode(handle="x"), mps.MPSNNImageNode(handle="dy")
h = mps.MPSCNNNeuronTanHNode(source=x, a=1.5, b=0.75)
p = mps.MPSCNNNeuronSoftPlusNode(source=h.result_image)
g = mps.MPSCNNNeuronGeLUNode(source=h.result_image)
y = mps.MPSNNAdditionNode(left_source=p.result_image, right_source=g.result_image)
for node, name in ((h, "h"), (p, "p"), (g, "g"), (y, "y")):
    node.result_image.handle = name

# %%
# Forward
# -------

teach.svg(y)

# %%
# Forward and backward
# --------------------
#
# Gradients go back along each line, and states, dashed, tie each gradient node to its forward node.
# ``h`` has two readers, so two gradients of ``h`` are added.

(last,) = y.training_graph(with_source_gradient=dy)
last.result_image.handle = "dx"
graph = mps.MPSNNGraph(
    result_images=[y.result_image, last.result_image],
    format=mps.MPSImageFeatureChannelFormat.float32,
)
teach.svg(graph)

# %%
# With numbers
# ------------
#
# ``teach.trace`` has the numbers of each step, for one pixel here:

trace = teach.trace(graph, x=np.full((1, 1, 1), 0.5, np.float32), dy=np.ones((1, 1, 1), np.float32))
trace

# %%
print(trace.chain_rule("dx"))

# sphinx_gallery_start_ignore
assert trace["dx"].stored.shape == (1, 1, 1, 1)
# sphinx_gallery_end_ignore

# %%
# For many pixels
# ---------------
#
# A trace keeps every image of the graph. Here are four of them and their gradients, for sources
# from -4 to 4.

line = np.linspace(-4, 4, 401, dtype=np.float32).reshape(1, -1, 1)
along = teach.trace(graph, x=line, dy=np.ones_like(line))
fig, (forward, backward) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
for name in ("h", "p", "g", "y"):
    forward.plot(line.ravel(), along[name].stored.ravel(), label=name)
for name in ("dh.1", "dh.2", "dh", "dx"):
    backward.plot(line.ravel(), along[name].stored.ravel(), label=name)
forward.set_title("images")
backward.set_title("gradients")
for ax in (forward, backward):
    ax.set_xlabel("x")
    ax.legend()
plt.show()

# %%
# As text
# -------
#
# Mermaid is drawn by GitHub and many editors:

print(teach.mermaid(graph))
