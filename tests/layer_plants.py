"""Layers drawn at random, devices with planted faults in plain float32 loops, and others that are wrong."""

from dataclasses import dataclass, replace

import numpy as np

import mpsref as mps

F = mps.MPSImageFeatureChannelFormat
M = mps.MPSNNPaddingMethod
CLAMP, ZERO = mps.MPSImageEdgeMode.clamp, mps.MPSImageEdgeMode.zero


@dataclass
class Layer:
    """A convolution, or a fully connected layer."""

    x: np.ndarray
    w: np.ndarray
    b: np.ndarray | None
    strides: tuple = (1, 1)
    dilations: tuple = (1, 1)
    groups: int = 1
    method: int = 16
    neuron: object = None
    connected: bool = False
    half_accumulator: bool = False
    first: tuple | None = None
    size: tuple | None = None
    edge: str = "none"
    accumulator: type = np.float32

    def __post_init__(self):
        if self.first is None:
            self.size, self.first = self.node.operation.sliding.placed(self.x.shape)[:2]

    @property
    def node(self):
        o, h, w, i = self.w.shape
        d = mps.MPSCNNConvolutionDescriptor(
            kernel_width=w, kernel_height=h, input_feature_channels=i * self.groups, output_feature_channels=o
        )
        d.groups, (d.stride_in_pixels_y, d.stride_in_pixels_x) = self.groups, self.strides
        d.dilation_rate_y, d.dilation_rate_x = self.dilations
        if self.neuron is not None:
            d.fused_neuron_descriptor = mps.MPSNNNeuronDescriptor(self.neuron)
        kind = mps.MPSCNNFullyConnectedNode if self.connected else mps.MPSCNNConvolutionNode
        node = kind(source=mps.MPSNNImageNode(handle="x"), weights=mps.ArrayDataSource(d, self.w, self.b))
        if not self.connected:
            node.padding_policy = mps.MPSNNDefaultPadding(self.method)
        node.accumulator_precision = "half" if self.half_accumulator else "float"
        node.result_image.handle = "y"
        return node

    def taps(self):
        """Kernel row and column; rows and columns that they read, by result; and which of these are inside."""
        for ky, kx in np.ndindex(self.w.shape[1:3]):
            at = [
                f + s * np.arange(n) + d * k
                for f, s, n, d, k in zip(self.first, self.strides, self.size, self.dilations, (ky, kx), strict=True)
            ]
            ok = [(i >= 0) & (i < n) for i, n in zip(at, self.x.shape[1:3], strict=True)]
            yield ky, kx, *at, *ok

    def forward(self, **changes):
        if changes:
            return replace(self, **changes).forward()
        g, dtype = self.groups, self.accumulator
        x = self.x.astype(dtype).reshape(*self.x.shape[:3], g, -1)
        w = self.w.astype(dtype).reshape(g, -1, *self.w.shape[1:])
        total = np.zeros((len(x), *self.size, g, w.shape[1]), dtype)
        for ky, kx, rows, columns, ok_rows, ok_columns in self.taps():
            at_rows, at_columns = (
                np.clip(at, 0, n - 1) if self.edge != "mirror" else np.abs(n - 1 - np.abs(n - 1 - at)) % n
                for at, n in zip((rows, columns), x.shape[1:3], strict=True)
            )
            read = x[:, at_rows[:, None], at_columns]
            if self.edge == "none":
                read = read * (ok_rows[:, None] & ok_columns)[..., None, None].astype(dtype)
            for i in range(x.shape[4]):
                total += read[..., i, None] * w[:, :, ky, kx, i]
        total = total.reshape(*total.shape[:3], -1)
        if self.b is not None:
            total = total + self.b.astype(dtype)
        return self.activated(total)

    def activated(self, total):
        if self.neuron is None:
            return total
        return mps.neuron.forward(mps.MPSNNNeuronDescriptor(self.neuron), total)

    def data_gradient(self, g, **changes):
        if changes:
            return replace(self, **changes).data_gradient(g)
        by_group = g.reshape(*g.shape[:3], self.groups, -1)
        w = self.w.reshape(self.groups, -1, *self.w.shape[1:])
        out = np.zeros((*self.x.shape[:3], self.groups, self.w.shape[3]), np.float32)
        for ky, kx, rows, columns, ok_rows, ok_columns in self.taps():
            part = by_group[:, ok_rows][:, :, ok_columns]
            for o in range(w.shape[1]):
                out[:, rows[ok_rows][:, None], columns[ok_columns]] += part[..., o, None] * w[:, o, ky, kx]
        return out.reshape(self.x.shape)

    def states(self, g, **changes):
        if changes:
            return replace(self, **changes).states(g)
        by_group = g.reshape(*g.shape[:3], self.groups, -1)
        x = self.x.reshape(*self.x.shape[:3], self.groups, -1)
        out = np.zeros((self.groups, self.w.shape[0] // self.groups, *self.w.shape[1:]), np.float32)
        for ky, kx, rows, columns, ok_rows, ok_columns in self.taps():
            part, read = by_group[:, ok_rows][:, :, ok_columns], x[:, rows[ok_rows][:, None], columns[ok_columns]]
            out[:, :, ky, kx] = np.einsum("nhwgo,nhwgi->goi", part, read)
        return out.reshape(self.w.shape), g.sum(axis=(0, 1, 2))


def normal(rng, *shape):
    return rng.normal(size=shape).astype(np.float32)


def layer(rng, kernel=None, **options):
    """A convolution with random shapes."""
    groups = options.get("groups", 1)
    kernel = tuple(rng.integers(1, 5, 2)) if kernel is None else kernel
    read, made = (int(rng.integers(*options.pop(name, (2, 7)))) for name in ("reads", "makes"))
    x = normal(rng, int(rng.integers(1, 3)), *(int(n) for n in rng.integers(5, 9, 2)), read * groups)
    o = made * groups
    draw = {
        "strides": tuple(int(s) for s in rng.integers(1, 3, 2)),
        "method": int(rng.choice([16, 16, 16 | 4, 16 | 8, 0, 32])),
        "b": normal(rng, o),
    }
    return Layer(x, normal(rng, o, *kernel, read), **draw | options)


def short(array, bits):
    """To nearest, ties to even, with so many bits behind the point."""
    code = np.float32(array).view(np.uint32).astype(np.int64)
    drop = 23 - bits
    code += (1 << drop >> 1) - (drop > 0) + (code >> drop & (drop > 0))
    return (code >> drop << drop).astype(np.uint32).view(np.float32)


def square(rng, **options):
    k = int(rng.integers(2, 5))
    return layer(rng, (k, k), **options)


def wide(rng, **options):
    return layer(rng, tuple(int(k) for k in rng.integers(2, 5, 2)), **options)


def even(rng, **options):
    return layer(rng, (2 * int(rng.integers(1, 3)), int(rng.integers(1, 5))), method=16, **options)


def dilated(rng, **options):
    return layer(rng, tuple(int(k) for k in rng.integers(2, 4, 2)), dilations=(2, int(rng.integers(1, 3))), **options)


def grouped(rng, **options):
    return layer(rng, **{"groups": int(rng.integers(2, 5)), "reads": (1, 5), "makes": (1, 5)} | options)


def in_half(rng, **options):
    it = wide(rng, **options)
    it.x, it.w = it.x.astype(np.float16), it.w.astype(np.float16)
    return it


def overflowing(rng, size=8000.0):
    it = wide(rng, reads=(3, 9), half_accumulator=True)
    return replace(it, x=(np.abs(it.x) * size).astype(np.float16), w=it.w.astype(np.float16), b=None)


def same_channels(rng):
    n = int(rng.integers(2, 7))
    return wide(rng, reads=(n, n + 1), makes=(n, n + 1))


def batched(rng):
    it = wide(rng)
    return replace(it, x=normal(rng, 3, *it.x.shape[1:]))


def connected(rng):
    shape = tuple(int(k) for k in rng.integers(2, 6, 2))
    x, o = normal(rng, 2, *shape, int(rng.integers(2, 9))), int(rng.integers(2, 9))
    return Layer(x, normal(rng, o, *x.shape[1:]), normal(rng, o), connected=True)


def begun(it, dy, dx):
    """The window begins elsewhere."""
    return {"first": (it.first[0] + dy, it.first[1] + dx)}


def undilated(it):
    """Taps next to each other, around the same centre."""
    axes = zip(it.first, it.w.shape[1:3], it.dilations, strict=True)
    return {"dilations": (1, 1), "first": tuple(f + (k - 1) * (d - 1) // 2 for f, k, d in axes)}


def regrouped(it, order):
    x = it.x.reshape(*it.x.shape[:3], it.groups, -1)
    return {"x": x[..., order(it.groups), :].reshape(it.x.shape)}


def reshaped(w, order):
    """Weights whose axes were stored in another order, read as if they were not."""
    return w.transpose(order).reshape(w.shape)


def misread(w, order):
    """Weights that are read as if they were stored in another order."""
    back = np.argsort(order)
    return w.reshape([w.shape[k] for k in order]).transpose(back)


def without(w, axis, at):
    kept = w.copy()
    kept[(slice(None),) * axis + (at,)] = 0
    return kept


def in_bfloat16(it):
    """Each product added to a sum in bfloat16."""
    total = np.zeros((), np.float32)
    for ky, kx, i in np.ndindex(it.w.shape[1:]):
        one = np.zeros_like(it.w)
        one[:, ky, kx, i] = it.w[:, ky, kx, i]
        total = short(total + it.forward(w=one), 7)
    return total


def shuffled(array):
    return np.random.default_rng(array.size).permutation(array.reshape(-1)).reshape(array.shape)


OIHW, HWIO = (0, 3, 1, 2), (1, 2, 3, 0)
SIGMOID, RELU = mps.MPSCNNNeuronType.sigmoid, mps.MPSCNNNeuronType.tanH

LAST = {"reads": (5, 13)}

# Name of the cause: pairs of a maker of a layer, and what a device with the fault gives for it.
FORWARD = {
    "kernel flipped": (wide, lambda it: it.forward(w=it.w[:, ::-1, ::-1])),
    "weights in another layout": [
        (wide, lambda it: it.forward(w=reshaped(it.w, OIHW))),
        (wide, lambda it: it.forward(w=reshaped(it.w, HWIO))),
        (wide, lambda it: it.forward(w=misread(it.w, OIHW))),
        (wide, lambda it: it.forward(w=misread(it.w, HWIO))),
        (connected, lambda it: it.forward(w=misread(it.w, OIHW))),
        (connected, lambda it: it.forward(w=reshaped(it.w, OIHW))),
    ],
    "x and y taps exchanged": (square, lambda it: it.forward(w=it.w.swapaxes(1, 2))),
    "window in another place": [
        (wide, lambda it: it.forward(**begun(it, 1, 0))),
        (even, lambda it: it.forward(**begun(it, 1, 0))),
        (even, lambda it: it.forward(**begun(it, -1, 0))),
        (lambda rng: wide(rng, strides=(2, 2)), lambda it: it.forward(**begun(it, 1, 1))),
        (lambda rng: wide(rng, strides=(3, 3)), lambda it: it.forward(**begun(it, -1, 1))),
    ],
    "dilation ignored": [
        (dilated, lambda it: it.forward(**undilated(it))),
        (dilated, lambda it: it.forward(**begun(it, *((k - 1) * (d - 1) // 2 for k, d in zip(
            it.w.shape[1:3], it.dilations, strict=True))))),
    ],
    "bias forgotten": (wide, lambda it: it.forward(b=None)),
    "bias added twice": (layer, lambda it: it.forward(b=it.b * 2)),
    "bias added after the neuron": (
        lambda rng: wide(rng, neuron=rng.choice([SIGMOID, RELU])), lambda it: it.forward(b=None) + it.b),
    "neuron forgotten": (lambda rng: wide(rng, neuron=SIGMOID), lambda it: it.forward(neuron=None)),
    "bias added after the sum was stored in half": (
        in_half, lambda it: (it.forward(b=None).astype(np.float16).astype(np.float32) + it.b).astype(np.float16)),
    "kernel mirrored": [
        (square, lambda it: it.forward(w=it.w[:, ::-1])),
        (square, lambda it: it.forward(w=it.w[:, :, ::-1])),
        (square, lambda it: it.forward(w=np.rot90(it.w, 1, (1, 2)))),
    ],
    "another bias": [
        (wide, lambda it: it.forward(b=-it.b)),
        (lambda rng: layer(rng, makes=(3, 9)), lambda it: it.forward(b=np.roll(it.b, -1))),
        (lambda rng: layer(rng, makes=(3, 9)), lambda it: it.forward(b=np.full_like(it.b, it.b[0]))),
        (wide, lambda it: it.forward(b=it.b.astype(np.float16).astype(np.float32))),
    ],
    "taps left out": [
        (lambda rng: layer(rng, reads=(3, 5)), lambda it: it.forward(w=without(it.w, 3, -1))),
        (lambda rng: layer(rng, reads=(3, 9)), lambda it: it.forward(w=without(it.w, 3, 0))),
        (wide, lambda it: it.forward(w=without(it.w, 1, -1))),
        (wide, lambda it: it.forward(w=without(it.w, 2, -1))),
    ],
    "another channel's weights": (lambda rng: wide(rng, reads=(3, 9)), lambda it: it.forward(w=np.roll(it.w, 1, 3))),
    "weights multiplied": (wide, lambda it: it.forward(w=it.w * np.float32(0.37))),
    "multiplied by a number": (lambda rng: wide(rng, b=None), lambda it: it.forward() * np.float32(-0.01)),
    "mirrored or wrapped edge": (lambda rng: wide(rng, method=16), lambda it: it.forward(edge="mirror")),
    "another stride or dilation": [
        (lambda rng: wide(rng, strides=(1, 1), method=16), lambda it: it.forward(strides=(2, 2))),
        (lambda rng: wide(rng, dilations=(2, 1)), lambda it: it.forward(dilations=(1, 2))),
        (dilated, lambda it: it.forward(dilations=tuple(d + 1 for d in it.dilations))),
    ],
    "a source in another order": [
        (square, lambda it: it.forward(x=np.ascontiguousarray(it.x[:, ::-1]))),
        (batched, lambda it: it.forward(x=np.roll(it.x, 1, 0))),
    ],
    "weights in 8 bits": (
        wide, lambda it: it.forward(w=(np.rint(it.w / np.abs(it.w).max() * 127) * np.float32(
            np.abs(it.w).max() / 127)).astype(np.float32))),
    "sum stored in half before the neuron": (
        lambda rng: wide(rng, neuron=SIGMOID),
        lambda it: it.activated(it.forward(neuron=None).astype(np.float16).astype(np.float32))),
    "accumulated in bfloat16": (
        lambda rng: wide(rng, reads=(20, 30), b=None), in_bfloat16),
    "groups ignored or rotated": [
        (grouped, lambda it: it.forward(**regrouped(it, lambda g: np.roll(np.arange(g), 1)))),
        (grouped, lambda it: it.forward(**regrouped(it, lambda g: np.roll(np.arange(g), -1)))),
        (grouped, lambda it: it.forward(**regrouped(it, lambda g: np.zeros(g, int)))),
    ],
    "clamped edge": (lambda rng: wide(rng, method=16), lambda it: it.forward(edge="clamp")),
    "last slice of channels dropped": (
        lambda rng: layer(rng, **LAST),
        lambda it: it.forward(w=it.w * (np.arange(it.w.shape[3]) < (it.w.shape[3] - 1) // 4 * 4))),
    "channels reversed": (lambda rng: layer(rng, reads=(3, 9)), lambda it: it.forward(w=it.w[..., ::-1])),
    "accumulated in half": (
        lambda rng: in_half(rng, reads=(8, 13)),
        lambda it: it.forward(accumulator=np.float16, b=it.b.astype(np.float16))),
    "a partial sum overflows": (
        overflowing, lambda it: it.forward(accumulator=np.float16)),
    "inputs rounded to TF32": (wide, lambda it: it.forward(x=short(it.x, 10), w=short(it.w, 10))),
    "inputs rounded to bfloat16": (wide, lambda it: it.forward(x=short(it.x, 7), w=short(it.w, 7))),
    "inputs rounded to half": (
        lambda rng: replace(it := wide(rng), x=it.x * np.float32(1e-5), b=None),
        lambda it: it.forward(x=it.x.astype(np.float16), w=it.w.astype(np.float16))),
}  # fmt: skip


DATA_GRADIENTS = {
    "kernel flipped": (wide, lambda it, g: it.data_gradient(g, w=it.w[:, ::-1, ::-1])),
    "channels not exchanged": (
        same_channels, lambda it, g: it.data_gradient(g, w=it.w.transpose(3, 1, 2, 0))),
    "window in another place": [
        (even, lambda it, g: it.data_gradient(g, **begun(it, 1, 0))),
        (even, lambda it, g: it.data_gradient(g, **begun(it, -1, 0))),
        (lambda rng: wide(rng, strides=(2, 2)), lambda it, g: it.data_gradient(g, **begun(it, 0, 1))),
    ],
    "dilation ignored": (dilated, lambda it, g: it.data_gradient(g, **undilated(it))),
    "groups ignored or rotated": (
        grouped,
        lambda it, g: it.data_gradient(np.roll(g.reshape(*g.shape[:3], it.groups, -1), 1, 3).reshape(g.shape))),
    "weights in another layout": (wide, lambda it, g: it.data_gradient(g, w=reshaped(it.w, OIHW))),
    "inputs rounded to TF32": (wide, lambda it, g: it.data_gradient(short(g, 10), w=short(it.w, 10))),
    "inputs rounded to bfloat16": (wide, lambda it, g: it.data_gradient(short(g, 7), w=short(it.w, 7))),
}  # fmt: skip


STATES = {
    "mean over the batch": (batched, lambda it, g: [array / 3 for array in it.states(g)]),
    "one image only": (batched, lambda it, g: replace(it, x=it.x[-1:]).states(g[-1:])),
    "an image counted twice": (
        batched, lambda it, g: [a + b for a, b in zip(it.states(g), replace(it, x=it.x[-1:]).states(g[-1:]),
                                                      strict=True)]),
    "multiplied by a number": [
        (wide, lambda it, g: [np.float32(1024) * array for array in it.states(g)]),
        (batched, lambda it, g: [np.float32(-0.4) * array for array in it.states(g)]),
    ],
    "accumulated over steps": [
        (wide, lambda it, g: [2 * array for array in it.states(g)]),
        (wide, lambda it, g: [3 * array for array in it.states(g)]),
    ],
    "the sign flipped": (wide, lambda it, g: [-array for array in it.states(g)]),
    "gradient of weights flipped": (wide, lambda it, g: (it.states(g)[0][:, ::-1, ::-1], it.states(g)[1])),
    "gradient of weights in another layout": [
        (wide, lambda it, g: (reshaped(it.states(g)[0], OIHW), it.states(g)[1])),
        (wide, lambda it, g: (reshaped(it.states(g)[0], HWIO), it.states(g)[1])),
    ],
    "mean over the pixels": (batched, lambda it, g: [a / np.float32(g[0, ..., 0].size) for a in it.states(g)]),
    "window in another place": (wide, lambda it, g: it.states(g, **begun(it, 0, 1))),
    "terms left out": [
        (batched, lambda it, g: replace(it, x=it.x[:-1]).states(g[:-1])),
        (wide, lambda it, g: it.states(without(g, 1, -1))),
    ],
    "another image's source": (batched, lambda it, g: replace(it, x=np.roll(it.x, 1, 0)).states(g)),
    "weights in the gradient": [
        (wide, lambda it, g: (it.states(g)[0] + np.float32(1e-3) * it.w, it.states(g)[1])),
        (wide, lambda it, g: (it.w - np.float32(0.1) * it.states(g)[0], it.states(g)[1])),
    ],
    "inputs rounded to TF32": (wide, lambda it, g: it.states(short(g, 10), x=short(it.x, 10))),
    "inputs rounded to bfloat16": (wide, lambda it, g: it.states(short(g, 7), x=short(it.x, 7))),
}  # fmt: skip


# ---- pooling ----


@dataclass
class Pool:
    """A pooling node."""

    x: np.ndarray
    kernel: tuple
    strides: tuple
    average: bool
    edge: int = CLAMP
    method: int = 16

    @property
    def node(self):
        kind = mps.MPSCNNPoolingAverageNode if self.average else mps.MPSCNNPoolingMaxNode
        (h, w), (sy, sx) = self.kernel, self.strides
        node = kind(source=mps.MPSNNImageNode(handle="x"), kernel_width=w, kernel_height=h, stride_in_pixels_x=sx,
                    stride_in_pixels_y=sy)  # fmt: skip
        node.edge_mode, node.padding_policy = self.edge, mps.MPSNNDefaultPadding(self.method)
        node.result_image.handle = "y"
        return node

    def windows(self, moved=(0, 0)):
        """Result row and column, and the slices of the source that they read."""
        placed = self.node.operation.sliding.placed(self.x.shape)
        for y, x in np.ndindex(placed.size):
            starts = [f + m + s * i for f, m, s, i in zip(placed.first, moved, self.strides, (y, x), strict=True)]
            yield y, x, *(slice(max(a, 0), max(a + k, 0)) for a, k in zip(starts, self.kernel, strict=True))

    def forward(self, full=None, moved=(0, 0), border=False, divided=True):
        placed, taps = self.node.operation.sliding.placed(self.x.shape), self.kernel[0] * self.kernel[1]
        out = np.zeros((len(self.x), *placed.size, self.x.shape[3]), np.float32)
        for y, x, rows, columns in self.windows(moved):
            window = self.x[:, rows, columns]
            inside = window.shape[1] * window.shape[2]
            if not inside:
                continue
            if self.average:
                count = taps if full else inside
                out[:, y, x] = window.sum(axis=(1, 2)) / np.float32(count if divided else 1)
            else:
                out[:, y, x] = window.max(axis=(1, 2), initial=0 if border and inside < taps else -np.inf)
        return out

    def gradient(self, g, full=False, moved=(0, 0), border=False, to="first", overwrite=False):
        taps, out = self.kernel[0] * self.kernel[1], np.zeros_like(self.x)
        for y, x, rows, columns in self.windows(moved):
            window = self.x[:, rows, columns]
            inside = window.shape[1] * window.shape[2]
            if not inside:
                continue
            e = g[:, y, x][:, None, None]
            if self.average:
                part, takes = np.broadcast_to(e / np.float32(taps if full else inside), window.shape), True
            else:
                most = window.max(axis=(1, 2), keepdims=True)
                takes = window == most
                if to == "first":
                    flat = takes.reshape(len(window), inside, -1)
                    takes = ((flat.cumsum(axis=1) == 1) & flat).reshape(takes.shape)
                share = takes.sum(axis=(1, 2), keepdims=True) if to == "shared" else 1
                if border and inside < taps:
                    takes = takes & (most > 0)
                part = np.where(takes, e / np.float32(share), np.float32(0))
            if overwrite:
                out[:, rows, columns] = np.where(takes, part, out[:, rows, columns])
            else:
                out[:, rows, columns] += part
        return out


def pool(rng, average, *, overlaps=None, ties=False, **options):
    kernel = tuple(int(k) for k in rng.integers(2, 4, 2))
    strides = tuple(int(s) for s in rng.integers(1, 4, 2))
    if overlaps is not None:
        strides = tuple(k - 1 if overlaps else k for k in kernel)
    x = normal(rng, 2, *(int(n) for n in rng.integers(5, 10, 2)), int(rng.integers(1, 7)))
    return Pool(np.round(x) if ties else x - np.float32(0.5), kernel, strides, average, **options)


def spread(it, g):
    """The gradient of each window to all of its elements."""
    out = np.zeros_like(it.x)
    for y, x, rows, columns in it.windows():
        out[:, rows, columns] += g[:, y, x][:, None, None]
    return out


def quotients_in_half(it, g):
    out = np.zeros(it.x.shape, np.float32)
    for y, x, rows, columns in it.windows():
        inside = it.x[0, rows, columns, 0].size
        share = (g[:, y, x] / np.float32(inside)).astype(np.float16)
        out[:, rows, columns] += share[:, None, None]
    return out


def averages(**options):
    return lambda rng: pool(rng, True, **options)


def largest(**options):
    return lambda rng: pool(rng, False, **options)


POOLS = {
    "average over the full window": (averages(), lambda it: it.forward(full=True)),
    "average over the count": (averages(edge=ZERO), lambda it: it.forward()),
    "sum instead of average": (averages(), lambda it: it.forward(divided=False)),
    "border of 0": (largest(), lambda it: it.forward(border=True)),
    "another kind of pooling": [
        (largest(), lambda it: -replace(it, x=-it.x).forward()),
        (largest(), lambda it: replace(it, average=True).forward()),
        (averages(), lambda it: replace(it, average=False).forward()),
        (largest(), lambda it: replace(it, x=np.abs(it.x)).forward()),
    ],
    "another window size": (
        lambda rng: replace(pool(rng, True), kernel=(3, 2), strides=(2, 2), method=16),
        lambda it: replace(it, kernel=(2, 2)).forward(),
    ),
    "window in another place": [
        (averages(), lambda it: it.forward(moved=(1, 0))),
        (largest(), lambda it: it.forward(moved=(0, 1))),
    ],
}

POOL_GRADIENTS = {
    "sum instead of average": (averages(overlaps=True), spread),
    "another kind of pooling": [
        (largest(), spread),
        (largest(), lambda it, g: replace(it, x=-it.x).gradient(g)),
    ],
    "each quotient stored in half": (
        lambda rng: replace(it := pool(rng, True, overlaps=True), x=it.x.astype(np.float16), kernel=(3, 3)),
        quotients_in_half,
    ),
    "average over the full window": (averages(), lambda it, g: it.gradient(g, full=True)),
    "average over the count": (averages(edge=ZERO), lambda it, g: it.gradient(g)),
    "border of 0": (largest(), lambda it, g: it.gradient(g, border=True)),
    "gradient to every maximum": [
        (largest(ties=True), lambda it, g: it.gradient(g, to="all")),
        (largest(ties=True), lambda it, g: it.gradient(g, to="shared")),
    ],
    "overlaps overwritten": [
        (averages(overlaps=True), lambda it, g: it.gradient(g, overwrite=True)),
        (largest(overlaps=True), lambda it, g: it.gradient(g, overwrite=True)),
    ],
    "window in another place": [
        (averages(), lambda it, g: it.gradient(g, moved=(1, 0))),
        (largest(), lambda it, g: it.gradient(g, moved=(0, 1))),
    ],
}

# ---- wrong in other ways: the names of causes that these must not have ----

NEAR_MISSES = {
    "kernel mirrored": (square, lambda it: it.forward(w=shuffled(it.w))),
    "another bias": (lambda rng: layer(rng, makes=(4, 9)), lambda it: it.forward(b=shuffled(it.b) * 2)),
    "taps left out": (lambda rng: layer(rng, reads=(3, 9)), lambda it: it.forward(w=it.w * np.float32(0.9))),
    "another channel's weights": (wide, lambda it: it.forward(w=shuffled(it.w))),
    "weights multiplied": (wide, lambda it: it.forward(w=it.w * np.linspace(1.5, 2, it.w.size, dtype=np.float32)
                                                       .reshape(it.w.shape))),
    "multiplied by a number": (wide, lambda it: it.forward() * np.linspace(1.5, 2, it.forward().size, dtype=np.float32)
                   .reshape(it.forward().shape)),
    "mirrored or wrapped edge": (
        lambda rng: wide(rng, method=16), lambda it: it.forward(edge="mirror") + it.forward(edge="clamp")),
    "another stride or dilation": (lambda rng: wide(rng, strides=(1, 1)), lambda it: it.forward(x=shuffled(it.x))),
    "a source in another order": (square, lambda it: it.forward(x=shuffled(it.x))),
    "weights in 8 bits": (wide, lambda it: it.forward(w=np.rint(it.w * 9) / np.float32(9))),
    "sum stored in half before the neuron": (
        lambda rng: wide(rng, neuron=SIGMOID),
        lambda it: it.activated(it.forward(neuron=None) * np.float32(1.01))),
    "accumulated in bfloat16": (lambda rng: wide(rng, b=None), lambda it: it.forward() * np.float32(1.01)),
    "neuron forgotten": (
        lambda rng: wide(rng, neuron=SIGMOID), lambda it: it.forward(neuron=None) * np.float32(0.5)),
    "inputs rounded to half": (
        lambda rng: replace(it := wide(rng), x=it.x * np.float32(1e-5), b=None),
        lambda it: it.forward(x=short(it.x, 5), w=short(it.w, 5))),
    "kernel flipped": (wide, lambda it: it.forward(w=it.w[:, ::-1])),
    "weights in another layout": (wide, lambda it: it.forward(w=np.roll(it.w, 1).reshape(it.w.shape))),
    "x and y taps exchanged": (square, lambda it: it.forward(w=np.rot90(it.w, 1, (1, 2)))),
    "window in another place": (lambda rng: wide(rng, strides=(1, 1)), lambda it: it.forward(**begun(it, 3, -3))),
    "dilation ignored": (dilated, lambda it: it.forward(dilations=(3, 3))),
    "bias forgotten": (wide, lambda it: it.forward(b=it.b / 4)),
    "bias added twice": (wide, lambda it: it.forward(b=it.b * np.float32(1.75))),
    "bias added after the neuron": (
        lambda rng: wide(rng, neuron=SIGMOID), lambda it: it.forward(b=None) + it.b / 2),
    "bias added after the sum was stored in half": (
        in_half, lambda it: (it.forward(b=None).astype(np.float16).astype(np.float32) * np.float32(1.01) + it.b)
        .astype(np.float16)),
    "groups ignored or rotated": (
        lambda rng: grouped(rng, reads=(2, 5)), lambda it: it.forward(w=it.w[..., ::-1])),
    "clamped edge": (
        lambda rng: wide(rng, method=16), lambda it: it.forward(edge="mirror") + it.forward(edge="clamp")),
    "last slice of channels dropped": (
        lambda rng: layer(rng, **LAST), lambda it: it.forward(w=it.w * (np.arange(it.w.shape[3]) >= 2))),
    "channels reversed": (lambda rng: layer(rng, reads=(4, 9)), lambda it: it.forward(w=np.roll(it.w, 1, 3))),
    "accumulated in half": (in_half, lambda it: (it.forward() * np.float32(1.25)).astype(np.float16)),
    "inputs rounded to TF32": (wide, lambda it: it.forward(x=short(it.x, 8), w=short(it.w, 8))),
    "inputs rounded to bfloat16": (wide, lambda it: it.forward(x=short(it.x, 5), w=short(it.w, 5))),
    "a partial sum overflows": (
        lambda rng: overflowing(rng, 1.0), lambda it: np.where(it.forward() > 0, np.inf, it.forward())),
}  # fmt: skip


STATE_NEAR_MISSES = {
    "mean over the pixels": (batched, lambda it, g: [a / np.float32(g[0, ..., 0].size - 0.5) for a in it.states(g)]),
    "terms left out": (batched, lambda it, g: replace(it, x=shuffled(it.x)).states(g)),
    "another image's source": (batched, lambda it, g: replace(it, x=shuffled(it.x)).states(g)),
    "weights in the gradient": (wide, lambda it, g: (it.states(g)[0] + np.float32(1e-3) * shuffled(it.w),
                                                     it.states(g)[1])),
    "the sign flipped": (wide, lambda it, g: (-it.states(g)[0] * np.float32(1.5), it.states(g)[1])),
    "window in another place": (wide, lambda it, g: (shuffled(it.states(g)[0]), it.states(g)[1])),
    "inputs rounded to TF32": (wide, lambda it, g: it.states(short(g, 8), x=short(it.x, 8))),
    "inputs rounded to bfloat16": (wide, lambda it, g: it.states(short(g, 5), x=short(it.x, 5))),
    "mean over the batch": (batched, lambda it, g: [array / np.float32(2.5) for array in it.states(g)]),
    "one image only": (batched, lambda it, g: replace(it, x=it.x[:2]).states(g[:2])),
    "an image counted twice": (
        batched, lambda it, g: [a + b for a, b in zip(it.states(g), replace(it, x=it.x[-1:]).states(-g[-1:] / 2),
                                                      strict=True)]),
    "multiplied by a number": (
        wide, lambda it, g: [a * np.linspace(0.3, 3.5, a.size).reshape(a.shape) for a in it.states(g)]),
    "accumulated over steps": (wide, lambda it, g: [a + b for a, b in zip(it.states(g), it.states(g[::-1] + 1),
                                                                         strict=True)]),
    "gradient of weights flipped": (wide, lambda it, g: (it.states(g)[0][:, ::-1], it.states(g)[1])),
    "gradient of weights in another layout": (
        wide, lambda it, g: (shuffled(it.states(g)[0]), it.states(g)[1])),
}  # fmt: skip

POOL_NEAR_MISSES = {
    "another kind of pooling": (averages(), lambda it: it.forward() + replace(it, average=False).forward()),
    "another window size": (averages(), lambda it: it.forward() * 2 + it.forward(moved=(1, 1))),
    "average over the count": (averages(edge=ZERO), lambda it: it.forward() * np.float32(0.8)),
    "average over the full window": (averages(), lambda it: it.forward() * np.float32(0.75)),
    "border of 0": (largest(), lambda it: np.maximum(it.forward(), -0.5)),
    "sum instead of average": (averages(), lambda it: it.forward(divided=False) / 2),
}

POOL_GRADIENT_NEAR_MISSES = {
    "each quotient stored in half": (
        lambda rng: replace(it := pool(rng, True, overlaps=True), x=it.x.astype(np.float16), kernel=(3, 3)),
        lambda it, g: quotients_in_half(it, g * np.float32(1.05)),
    ),
    "channels not exchanged": (averages(), lambda it, g: it.gradient(g)[..., ::-1] * 3),
    "gradient to every maximum": (largest(ties=True), lambda it, g: it.gradient(g, to="shared") / 2),
    "overlaps overwritten": (averages(overlaps=True), lambda it, g: it.gradient(g) / 2),
}


def cases(table):
    """Name, number, maker and device of each plant."""
    for name, plants in table.items():
        for number, plant in enumerate(plants if isinstance(plants, list) else [plants]):
            yield name, number, *plant
