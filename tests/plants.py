"""
Faults planted by code of the tests' own, in plain numpy: parameters, shapes and places are drawn by a seed.

``python tests/plants.py`` prints a table of what `mpsref.verify` says of each kind.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.special import erf, expit

import mpsref as mps
from mpsref.verify import verify, write_recording

F32, F16 = np.float32, np.float16


def sign(x):
    return np.where(np.signbit(x), -1.0, 1.0)


def power(u, c):
    return np.power(u, c)


FORMULAS: dict[str, tuple[Callable, Callable]] = {
    "ReLU": (lambda x, p: np.where(x >= 0, x, p.a * x), lambda x, p: np.where(x >= 0, 1.0, p.a)),
    "Linear": (lambda x, p: p.a * x + p.b, lambda x, p: p.a + 0 * x),
    "Sigmoid": (lambda x, p: expit(x), lambda x, p: expit(x) * expit(-x)),
    "HardSigmoid": (
        lambda x, p: np.clip(p.a * x + p.b, 0, 1),
        lambda x, p: np.where((p.a * x + p.b >= 0) & (p.a * x + p.b <= 1), p.a, 0.0),
    ),
    "TanH": (lambda x, p: p.a * np.tanh(p.b * x), lambda x, p: p.a * p.b / np.cosh(p.b * x) ** 2),
    "Absolute": (lambda x, p: np.abs(x), lambda x, p: np.sign(x)),
    "SoftPlus": (lambda x, p: p.a * np.logaddexp(0, p.b * x), lambda x, p: p.a * p.b * expit(p.b * x)),
    "SoftSign": (lambda x, p: x / (1 + np.abs(x)), lambda x, p: 1 / (1 + np.abs(x)) ** 2),
    "ELU": (
        lambda x, p: np.where(x >= 0, x, p.a * np.expm1(np.minimum(x, 0))),
        lambda x, p: np.where(x >= 0, 1, p.a * np.exp(np.minimum(x, 0))),
    ),
    "PReLU": (lambda x, p: np.where(x >= 0, x, p.data * x), lambda x, p: np.where(x >= 0, 1.0, p.data + 0 * x)),
    "ReLUN": (
        lambda x, p: np.minimum(np.where(x >= 0, x, p.a * x), p.b),
        lambda x, p: np.where(np.where(x >= 0, x, p.a * x) >= p.b, 0, np.where(x >= 0, 1.0, p.a)),
    ),
    "Power": (lambda x, p: power(p.a * x + p.b, p.c), lambda x, p: p.a * p.c * power(p.a * x + p.b, p.c - 1)),
    "Exponential": (
        lambda x, p: power(math.e if p.c == -1 else p.c, p.a * x + p.b),
        lambda x, p: p.a * (1 if p.c == -1 else math.log(p.c)) * power(math.e if p.c == -1 else p.c, p.a * x + p.b),
    ),
    "Logarithm": (
        lambda x, p: np.log(p.a * x + p.b) / (1 if p.c == -1 else math.log(p.c)),
        lambda x, p: p.a / ((1 if p.c == -1 else math.log(p.c)) * (p.a * x + p.b)),
    ),
    "GeLU": (
        lambda x, p: x / 2 * (1 + erf(x / math.sqrt(2))),
        lambda x, p: (1 + erf(x / math.sqrt(2))) / 2 + x * np.exp(-x * x / 2) / math.sqrt(2 * math.pi),
    ),
}
SMOOTH = ("Sigmoid", "TanH", "SoftPlus", "SoftSign", "ELU", "GeLU")
WITH_AB = ("TanH", "SoftPlus")


@dataclass
class Parameters:
    """A neuron's parameters, float32 values."""

    a: float = 0.0
    b: float = 0.0
    c: float = 0.0
    data: Any = None

    def but(self, **changes):
        return Parameters(**{**vars(self), **changes})


@dataclass
class Plant:
    """A recording in which one image is wrong, and the names that its cause may be given."""

    nodes: list[tuple[str, Parameters]]
    gradient: bool
    arrays: dict[str, np.ndarray]
    accepted: tuple[str, ...] | None
    bounds: str | None = None
    hidden: tuple[str, ...] = ()
    where: str = ""
    image: str = ""
    """The image whose cause it is; default: the first that has one."""


@dataclass
class Draw:
    """A neuron, sources and the right results, drawn at random."""

    seed: int
    dtype: Any = None
    rng: np.random.Generator = field(init=False)

    def __post_init__(self):
        self.rng = np.random.default_rng(self.seed)
        self.dtype = self.dtype or self.rng.choice([F32, F16])

    def shape(self, smallest=1, channels=None):
        n, h, w = self.rng.integers([1, 5, 5], [3, 25, 25])
        c = channels or int(self.rng.integers(max(smallest, 2), 20))
        return int(n), int(h), int(w), c

    def number(self, low=0.4, high=2.5, apart=(1.0, 2.0, 0.5)):
        while True:
            value = float(F32(round(self.rng.uniform(low, high), 3)))
            if all(abs(value / other - 1) > 0.08 for other in apart):
                return value

    def neuron(self, *kinds):
        name = str(self.rng.choice(kinds or SMOOTH))
        p = Parameters()
        if name in ("TanH", "SoftPlus", "ELU", "Linear"):
            p.a = self.number()
        if name in ("TanH", "SoftPlus"):
            p.b = self.number(apart=(1.0, p.a, 2.0, 0.5))
        if name == "Linear":
            p.b = self.number(0.2, 0.9)
        if name == "ReLU":
            p.a = self.number(0.05, 0.4)
        if name == "HardSigmoid":
            p.a, p.b = self.number(0.15, 0.35, apart=(0.2,)), self.number(0.3, 0.7)
        if name == "ReLUN":
            p.a, p.b = self.number(0.05, 0.4), self.number(1.2, 2.5)
        if name == "PReLU":
            pass
        if name == "Power":
            p.a, p.b, p.c = self.number(), self.number(0.3, 0.9), self.number(1.2, 3.0, apart=(2.0,))
        if name in ("Exponential", "Logarithm"):
            p.a, p.b, p.c = self.number(), self.number(0.3, 0.9), self.number(1.3, 3.5, apart=(math.e, 2.0))
        return name, p

    def x(self, shape, name="", spread=2.0):
        x = self.rng.normal(0, 1, shape) * spread
        if name in ("Power", "Logarithm"):
            x = np.abs(x)
        return x.astype(self.dtype)

    def store(self, values):
        """Rounded to the format; by a device that is as inaccurate as it may be, where the seed is odd."""
        with np.errstate(all="ignore"):
            if self.seed % 2 and values.dtype == np.float64:
                values = values * (1 + self.rng.uniform(-0.4, 0.4, values.shape) * np.finfo(self.dtype).eps)
            return np.ascontiguousarray(values).astype(self.dtype)

    def value(self, neuron, x, p=None):
        name, own = neuron
        with np.errstate(all="ignore"):
            return FORMULAS[name][0](x.astype(np.float64), p or own)

    def slope(self, neuron, x, p=None):
        name, own = neuron
        with np.errstate(all="ignore"):
            return FORMULAS[name][1](x.astype(np.float64), p or own)

    def forward(self, *kinds, spread=2.0, shape=None):
        neuron = self.neuron(*kinds)
        shape = shape or self.shape()
        if neuron[0] == "PReLU":
            neuron[1].data = np.round(self.rng.uniform(-0.9, 0.9, shape[3]), 3).astype(F32).astype(np.float64)
        x = self.x(shape, neuron[0], spread)
        return neuron, x, self.value(neuron, x)

    def gradient(self, *kinds, spread=1.5, shape=None):
        neuron, x, _ = self.forward(*kinds, spread=spread, shape=shape)
        dy = self.rng.normal(0, 1, x.shape).astype(self.dtype)
        return neuron, x, dy, dy.astype(np.float64) * self.slope(neuron, x)

    def plant(self, neuron, x, y, *accepted, **more):
        return Plant([neuron], False, {"x": x, "y": self.store(y)}, accepted or None, **more)

    def plant_gradient(self, neuron, x, dy, dx, *accepted, **more):
        arrays = {"x": x, "y": self.store(self.value(neuron, x)), "dy": dy, "dx": self.store(dx)}
        return Plant([neuron], True, arrays, accepted or None, **more)

    def either(self, *kinds, **options):
        """Forward or gradient: a function from a wrong result to a plant, and the right result."""
        if self.rng.random() < 0.5:
            neuron, x, y = self.forward(*kinds, **options)
            return self.store(y), lambda wrong, *names: self.plant(neuron, x, wrong, *names)
        neuron, x, dy, dx = self.gradient(*kinds, **options)
        return self.store(dx), lambda wrong, *names: self.plant_gradient(neuron, x, dy, wrong, *names)


KINDS: dict[str, Callable[[Draw], Plant]] = {}
HARMLESS: set[str] = set()
"""Kinds of which no cause may be named."""


def kind(make):
    KINDS[make.__name__] = make
    return make


def near_miss(make):
    HARMLESS.add(make.__name__)
    return kind(make)


def each(*values, harmless=False):
    """Register a kind for each of several values."""

    def register(make):
        for value in values:
            name = f"{make.__name__} {getattr(value, '__name__', value)}"
            KINDS[name] = lambda r, value=value: make(r, value)
            if harmless:
                HARMLESS.add(name)
        return make

    return register


# ---- places ----


@kind
def lanes_permuted(r):
    y, plant = r.either(shape=r.shape(channels=4 * int(r.rng.integers(1, 5))))
    order = r.rng.permutation(4)
    order = order if (order != range(4)).any() else np.array([2, 1, 0, 3])
    return plant(
        y.reshape(*y.shape[:3], -1, 4)[..., order].reshape(y.shape), "lanes permuted", "channels mapped otherwise"
    )


@kind
def channel_major(r):
    y, plant = r.either()
    return plant(np.stack([i.transpose(2, 0, 1).reshape(i.shape) for i in y]), "pixel-major and channel-major confused")


@kind
def pixel_major(r):
    y, plant = r.either()
    n, h, w, c = y.shape
    return plant(y.reshape(n, c, h, w).transpose(0, 2, 3, 1), "pixel-major and channel-major confused")


def slices(y):
    """Slice after slice, four lanes a pixel."""
    n, h, w, c = y.shape
    padded = np.zeros((n, h, w, -(-c // 4) * 4), y.dtype)
    padded[..., :c] = y
    return padded.reshape(n, h, w, -1, 4).transpose(0, 3, 1, 2, 4)


@kind
def texture_dump(r):
    y, plant = r.either(shape=r.shape(channels=4 * int(r.rng.integers(2, 5))))
    return plant(slices(y).reshape(y.shape), "texture slices taken for pixels")


@each("snyxl", "yxsnl")
def texture_dump_of_a_batch(r, order):
    n, h, w, _ = r.shape()
    y, plant = r.either(shape=(n + 1, h, w, int(r.rng.choice([8, 11, 12]))))
    n, _, _, c = y.shape
    lanes = np.pad(y, [(0, 0)] * 3 + [(0, -c % 4)]).reshape(n, h, w, -1, 4)
    there = lanes.transpose(["nyxsl".index(axis) for axis in order])
    if r.rng.random() < 0.5 or c % 4:
        return plant(there.reshape(-1)[: y.size].reshape(y.shape), "texture slices taken for pixels")
    back = y.reshape(there.shape).transpose([order.index(axis) for axis in "nyxsl"])
    return plant(back.reshape(y.shape), "texture slices taken for pixels")


@kind
def texture_dump_for_channel_major(r):
    y, plant = r.either(shape=r.shape(channels=4 * int(r.rng.integers(2, 5))))
    n, h, w, c = y.shape
    return plant(
        slices(y).reshape(n, c, h, w).transpose(0, 2, 3, 1),
        "texture slices taken for pixels",
        "pixel-major and channel-major confused",
        "channel-major and texture slices confused",
    )


@kind
def transposed(r):
    y, plant = r.either()
    return plant(y.transpose(0, 2, 1, 3).reshape(y.shape), "rows and columns swapped")


@kind
def mirrored(r):
    y, plant = r.either()
    axis = int(r.rng.integers(1, 3))
    return plant(np.flip(y, axis), "rows and columns swapped")


@kind
def padded_rows(r):
    y, plant = r.either()
    n, h, w, c = y.shape
    extra = int(r.rng.integers(1, 5))
    wide = np.zeros((n, h, w + extra, c), y.dtype)
    wide[:, :, :w] = y
    return plant(wide.reshape(n, -1)[:, : h * w * c].reshape(y.shape), "wrong row stride")


@each(8, 16, 64)
def rows_padded_to_a_multiple(r, block):
    w = int(r.rng.integers(block // 2 + 1, block))
    shape = int(r.rng.integers(1, 4)), int(r.rng.integers(8, 20)), w, int(r.rng.choice([3, 4, 8]))
    neuron, x, y = r.forward(shape=shape)
    y = r.store(y)
    wide = np.zeros((*shape[:2], block, shape[3]), y.dtype)
    wide[:, :, :w] = y
    return r.plant(neuron, x, wide.reshape(-1)[: y.size].reshape(shape), "wrong row stride")


@kind
def chunked_rows(r):
    neuron = r.neuron()
    c, factor = int(r.rng.integers(6, 40)), int(r.rng.integers(2, 5))
    rows = int(r.rng.integers(30, 80))
    whole = r.x((rows, factor * c), neuron[0])
    x = whole[:, :c]
    y = r.value(neuron, whole.reshape(-1)[: rows * c].reshape(rows, c))
    shape = [(1, 1, rows, c), (1, rows, c, 1), (rows, 1, 1, c)][int(r.rng.integers(3))]
    return r.plant(neuron, np.ascontiguousarray(x).reshape(shape), y.reshape(shape), "wrong row stride")


@kind
def offset(r):
    y, plant = r.either()
    by = int(r.rng.integers(1, y.size // 8))
    flat, zeros = y.reshape(-1), np.zeros(by, y.dtype)
    moved = np.concatenate([zeros, flat[:-by]]) if r.rng.random() < 0.5 else np.concatenate([flat[by:], zeros])
    return plant(
        moved.reshape(y.shape), "wrong offset", "shifted", *(["another image of the batch"] if y.shape[0] > 1 else [])
    )


@kind
def padding_lanes(r):
    y, plant = r.either(shape=r.shape(channels=int(r.rng.choice([5, 6, 7, 9, 10, 11, 13, 14]))))
    n, h, w, c = y.shape
    wide = np.zeros((n, h, w, -(-c // 4) * 4), y.dtype)
    wide[..., :c] = y
    return plant(wide.reshape(n, -1)[:, : h * w * c].reshape(y.shape), "padding lanes counted as channels")


@kind
def batch_rolled(r):
    _n, h, w, c = r.shape()
    y, plant = r.either(shape=(int(r.rng.integers(3, 6)), h, w, c))
    return plant(np.roll(y, 1, axis=0), "another image of the batch")


@kind
def batch_in_another_order(r):
    _n, h, w, c = r.shape()
    y, plant = r.either(shape=(int(r.rng.integers(3, 6)), h, w, c))
    order = np.arange(len(y))
    k = int(r.rng.integers(len(y) - 1))
    order[[k, k + 1]] = order[[k + 1, k]]
    return plant(y[order], "another image of the batch")


@kind
def shifted_with_clamped_edge(r):
    neuron, x, _ = r.forward(shape=r.shape())
    by = [(0, 1), (1, 0), (1, 1), (-1, 0), (0, -2), (2, 1)][int(r.rng.integers(6))]
    rows = np.clip(np.arange(x.shape[1]) + by[0], 0, x.shape[1] - 1)
    columns = np.clip(np.arange(x.shape[2]) + by[1], 0, x.shape[2] - 1)
    return r.plant(neuron, x, r.value(neuron, x[:, rows][:, :, columns]), "shifted")


@kind
def slice_0_always(r):
    y, plant = r.either(shape=r.shape(channels=4 * int(r.rng.integers(2, 5))))
    return plant(np.tile(y[..., :4], y.shape[3] // 4), "channels mapped otherwise")


@kind
def slices_reversed(r):
    y, plant = r.either(shape=r.shape(channels=4 * int(r.rng.integers(2, 5))))
    return plant(y.reshape(*y.shape[:3], -1, 4)[..., ::-1, :].reshape(y.shape), "channels mapped otherwise")


@kind
def channels_reversed(r):
    y, plant = r.either(shape=r.shape(smallest=5))
    return plant(y[..., ::-1], "channels mapped otherwise")


@kind
def tiles_transposed(r):
    h, w, c = 8 * int(r.rng.integers(1, 4)), 8 * int(r.rng.integers(2, 4)), int(r.rng.integers(2, 9))
    y, plant = r.either(shape=(1, h, w, c))
    tiles = y.reshape(1, h // 8, 8, w // 8, 8, c).transpose(0, 1, 4, 3, 2, 5)
    return plant(tiles.reshape(y.shape), "tiles transposed")


@kind
def index_wraps(r):
    c = int(r.rng.integers(12, 20))
    y, plant = r.either(shape=(1, 72, 80, c))
    flat = y.reshape(-1)
    return plant(flat[np.arange(y.size) % 65536].reshape(y.shape), "an index of 16 bits")


@kind
def one_source_with_lanes_exchanged(r):
    neuron, x, dy, _ = r.gradient(shape=r.shape(channels=4 * int(r.rng.integers(1, 5))))
    moved = dy.reshape(*dy.shape[:3], -1, 4)[..., [2, 1, 0, 3]].reshape(dy.shape)
    return r.plant_gradient(neuron, x, dy, moved * r.slope(neuron, x), "lanes permuted", "channels mapped otherwise")


# ---- memory ----


@kind
def zeros(r):
    y, plant = r.either()
    return plant(np.zeros_like(y), "never written")


@kind
def a_constant(r):
    y, plant = r.either()
    return plant(np.full_like(y, r.rng.normal() * 3), "never written")


@kind
def stopped_early(r):
    y, plant = r.either()
    y = y.copy()
    y.reshape(-1)[int(y.size * r.rng.uniform(0.3, 0.9)) :] = 0
    return plant(y, "never written")


@kind
def edge_of_a_threadgroup(r):
    c = int(r.rng.integers(2, 9))
    y, plant = r.either(shape=(1, 20 + int(r.rng.integers(8)), 33 + int(r.rng.integers(6)), c))
    y = y.copy()
    y[:, :, 32:] = 0
    if r.rng.random() < 0.5:
        y[:, 16:] = 0
    return plant(y, "never written")


@kind
def one_channel_never_written(r):
    y, plant = r.either()
    y = y.copy()
    y[..., int(r.rng.integers(y.shape[3]))] = 0
    return plant(y, "never written")


@kind
def two_zeros(r):
    y, plant = r.either()
    y = y.copy()
    y.reshape(-1)[r.rng.choice(np.flatnonzero(np.abs(y.reshape(-1)) > 0.01), 2)] = 0
    return plant(y, "0 where another value belongs", "never written")


@kind
def six_zeros(r):
    neuron = r.neuron("SoftPlus", "Sigmoid")
    x = np.linspace(-1, 1, 6).reshape(1, 1, 3, 2).astype(r.dtype)
    return r.plant(neuron, x, np.zeros_like(x), "never written")


@kind
def one_value_here_and_there(r):
    y, plant = r.either(shape=(2, 9, 11, 8))
    y = y.copy()
    value = y.dtype.type(r.rng.uniform(2, 9))
    y[r.rng.random(y.shape) < 0.05] = value
    return plant(y, f"{value!s} where another value belongs")


@kind
def source_left_here_and_there(r):
    y, plant = r.either(*SMOOTH[:4])
    built = plant(y)
    result, source = ("dx", "dy") if built.gradient else ("y", "x")
    built.arrays[result] = np.where(r.rng.random(y.shape) < 0.05, built.arrays[source], built.arrays[result])
    built.accepted = ("another image of the graph",)
    return built


@kind
def source_left(r):
    y, plant = r.either(*SMOOTH[:4])
    built = plant(y)
    built.arrays["dx" if built.gradient else "y"] = built.arrays["dy" if built.gradient else "x"].copy()
    built.accepted = ("the node was left out",)
    return built


@kind
def another_image_of_the_graph(r):
    neuron, x, dy, _ = r.gradient("Sigmoid", "SoftPlus", "GeLU")
    return r.plant_gradient(
        neuron, x, dy, r.value(neuron, x), "another image of the graph", "forward instead of gradient"
    )


@kind
def stale_image_of_the_graph(r):
    first, x, h = r.forward("TanH", "SoftPlus")
    second = r.neuron("Sigmoid", "GeLU")
    h = r.store(h)
    return Plant(
        [first, second],
        False,
        {"x": x, "h": h, "y": r.store(r.value(second, x))},
        ("another image of the graph is read",),
    )


def after_overwriting(r, how, wrong=lambda y: y):
    """Two neurons; the image between them was overwritten once the second had read it."""
    first, x, h = r.forward("TanH", "SoftPlus")
    second = r.neuron("Sigmoid", "GeLU", "Exponential")
    h = r.store(h)
    y, recorded = r.store(wrong(r.value(second, h))), h.copy()
    if how == "rows":
        recorded[:, 2:4] = r.rng.normal(0, 1, recorded[:, 2:4].shape)
    else:
        recorded = {
            "zeros": 0 * h,
            "result": y.copy(),
            "source": x.copy(),
            "noise": r.store(r.rng.normal(0, 1, h.shape)),
        }[how]
    arrays = {"x": x, "h": recorded, "y": y}
    return Plant([first, second], False, arrays, ("the source is not recorded as it was read",), image="y")


@each("zeros", "noise", "rows", "result", "source")
def overwritten_after_it_was_read(r, how):
    return after_overwriting(r, how)


@each("zeros", "noise", "rows", harmless=True)
def overwritten_and_the_next_wrong_too(r, how):
    return after_overwriting(r, how, lambda y: y * (1 + r.rng.normal(0, 0.05, y.shape)))


# ---- parameters ----


@kind
def a_and_b_swapped(r):
    neuron, x, _ = r.forward(*WITH_AB)
    p = neuron[1]
    return r.plant(neuron, x, r.value(neuron, x, p.but(a=p.b, b=p.a)), "parameters swapped")


@kind
def parameter_at_default(r):
    neuron, x, _ = r.forward(*WITH_AB)
    name = str(r.rng.choice(["a", "b"]))
    return r.plant(
        neuron,
        x,
        r.value(neuron, x, neuron[1].but(**{name: 1.0})),
        "a parameter at its default",
        "a constant factor",
        "a parameter left out",
    )


@kind
def parameter_left_out(r):
    neuron, x, _ = r.forward("Linear")
    return r.plant(
        neuron, x, r.value(neuron, x, neuron[1].but(b=0.0)), "a parameter left out", "a parameter at its default"
    )


@kind
def parameter_in_half(r):
    r.dtype = F32
    neuron, x, _ = r.forward(*WITH_AB)
    p = neuron[1]
    return r.plant(
        neuron, x, r.value(neuron, x, p.but(a=float(F16(p.a)), b=float(F16(p.b)))), "parameters rounded to half"
    )


@each("a and b", "slopes")
def parameter_in_bfloat16(r, which):
    neuron, x, _ = r.forward(*(WITH_AB if which == "a and b" else ["PReLU"]))
    p, names = neuron[1], ("a", "b") if which == "a and b" else ("data",)
    short = {name: bfloat16(np.float32(getattr(p, name))).astype(np.float64) for name in names}
    return r.plant(neuron, x, r.value(neuron, x, p.but(**short)), "parameters rounded to bfloat16")


@kind
def slopes_of_other_channels(r):
    neuron, x, _ = r.forward("PReLU")
    data = neuron[1].data
    other = [np.roll(data, 1), data[::-1], np.full_like(data, data[0])][int(r.rng.integers(3))]
    return r.plant(neuron, x, r.value(neuron, x, neuron[1].but(data=other)), "the slope of another channel")


@kind
def slopes_along_another_axis(r):
    shape = r.shape()
    shape = (shape[0], shape[1], shape[3], shape[3])
    neuron, x, _ = r.forward("PReLU", shape=shape)
    other = neuron[1].data[:, None]
    return r.plant(neuron, x, r.value(neuron, x, neuron[1].but(data=other)), "slopes along another axis")


@kind
def half_slopes_read_as_float(r):
    neuron, x, _ = r.forward("PReLU", shape=r.shape(channels=2 * int(r.rng.integers(2, 8))))
    halves = neuron[1].data.astype(F16)
    read = np.resize(halves.view(F32), halves.size).astype(np.float64)
    read[halves.size // 2 :] = 0
    return r.plant(neuron, x, r.value(neuron, x, neuron[1].but(data=read)), "half slopes read as float")


@kind
def parameters_of_another_node(r):
    r.dtype = F32
    first, x, h = r.forward("TanH")
    second = r.neuron("TanH")
    h = r.store(h)
    y = r.value(second, h, first[1])
    return Plant([first, second], False, {"x": x, "h": h, "y": r.store(y)}, ("parameters of another node",))


@kind
def another_nodes_whole_neuron(r):
    first, x, h = r.forward("TanH", "SoftPlus")
    second = r.neuron("ELU", "GeLU", "Sigmoid")
    h = r.store(h)
    return Plant(
        [first, second],
        False,
        {"x": x, "h": h, "y": r.store(r.value(first, h))},
        ("parameters of another node", "applied twice", "another neuron"),
    )


@kind
def base_2_for_e(r):
    neuron, x, _ = r.forward("Exponential", "Logarithm", "TanH")
    p = neuron[1]
    if neuron[0] == "TanH":
        return r.plant(neuron, x, r.value(neuron, x, p.but(b=p.b * math.log(2))), "base 2 instead of e")
    p.c = -1.0
    return r.plant(neuron, x, r.value(neuron, x, p.but(c=2.0)), "base 2 instead of e", "a constant factor")


@kind
def base_e_for_2(r):
    neuron, x, _ = r.forward("Exponential", "Logarithm")
    p = neuron[1]
    p.c = 2.0
    return r.plant(
        neuron,
        x,
        r.value(neuron, x, p.but(c=-1.0)),
        "base e instead of 2",
        "a constant factor",
        "a parameter at its default",
    )


@kind
def slope_without_a(r):
    neuron, x, dy, dx = r.gradient("TanH", "SoftPlus")
    return r.plant_gradient(neuron, x, dy, dx / neuron[1].a, "a constant factor", "a parameter at its default")


@kind
def slope_without_b(r):
    neuron, x, dy, dx = r.gradient("TanH", "SoftPlus")
    return r.plant_gradient(neuron, x, dy, dx / neuron[1].b, "a constant factor")


@kind
def slope_without_ln_c(r):
    neuron, x, dy, dx = r.gradient("Exponential", "Logarithm")
    factor = math.log(neuron[1].c)
    dx = dx / factor if neuron[0] == "Exponential" else dx * factor
    names = ["a parameter at its default"] if neuron[0] == "Logarithm" else []
    return r.plant_gradient(neuron, x, dy, dx, "a constant factor", *names)


@kind
def exponent_not_lowered(r):
    neuron, x, dy, _ = r.gradient("Power")
    p = neuron[1]
    u = p.a * x.astype(np.float64) + p.b
    return r.plant_gradient(neuron, x, dy, dy * (p.a * p.c * u**p.c), "the exponent is not lowered")


@each("half", "double", "1/N", "1/(H W)")
def factor(r, which):
    y, plant = r.either(shape=None if which != "1/N" else (3, 6, 7, 5))
    value = {"half": 0.5, "double": 2.0, "1/N": 1 / y.shape[0], "1/(H W)": 1 / (y.shape[1] * y.shape[2])}[which]
    return plant(y * y.dtype.type(value), "a constant factor", "accumulated twice")


@each(-1, 2, 0.5, 1 / 255)
def source_scaled(r, value):
    neuron, x, _ = r.forward("Sigmoid", "SoftPlus", "ELU")
    return r.plant(neuron, x, r.value(neuron, value * x.astype(np.float64)), "the source scaled")


@each("before", "after")
def scaled(r, rounding):
    if rounding == "before":
        neuron, x, _ = r.forward("Sigmoid", "SoftSign", "GeLU")
        return r.plant(neuron, x, r.number(1.1, 3.0) * r.value(neuron, x), "multiplied by a number")
    y, plant = r.either()
    return plant(y * y.dtype.type(r.number(1.1, 3.0)), "multiplied by a number", "another value of a parameter")


@each("before", "after")
def moved(r, rounding):
    added = r.number(0.02, 0.9)
    if rounding == "before":
        neuron, x, _ = r.forward("Sigmoid", "TanH", "ReLU")
        return r.plant(neuron, x, r.value(neuron, x) + added, "a number added")
    y, plant = r.either()
    return plant(y - y.dtype.type(added), "a number added")


@each(0.5, -2.5)
def scaled_and_moved(r, factor):
    y, plant = r.either()
    return plant(factor * y.astype(np.float64) + r.number(0.2, 0.9), "multiplied by a number, and another added")


@kind
def source_scaled_otherwise(r):
    neuron, x, _ = r.forward("Sigmoid", "GeLU", "ELU")
    y = r.value(neuron, r.number(0.3, 1.9) * x.astype(np.float64))
    return r.plant(neuron, x, y, "a source multiplied by a number")


@kind
def source_moved(r):
    neuron, x, _ = r.forward("Sigmoid", "GeLU", "ELU", "TanH")
    return r.plant(neuron, x, r.value(neuron, x.astype(np.float64) + r.number(0.1, 1.5)), "a number added to a source")


# ---- the function ----


@each("sin", "cos", "arctan", "square")
def another_function(r, name):
    neuron, x, _ = r.forward("GeLU", "SoftSign", "Sigmoid", "TanH")
    return r.plant(neuron, x, getattr(np, name)(x.astype(np.float64)), "another function")


@kind
def another_neuron(r):
    neuron, x, _ = r.forward("GeLU", "SoftSign", "Sigmoid")
    other = str(r.rng.choice([n for n in ("Sigmoid", "SoftSign", "GeLU", "Absolute") if n != neuron[0]]))
    return r.plant(neuron, x, r.value((other, Parameters()), x), "another neuron")


@kind
def forward_for_gradient(r):
    neuron, x, dy, _ = r.gradient()
    return r.plant_gradient(
        neuron, x, dy, r.value(neuron, x), "forward instead of gradient", "another image of the graph"
    )


@kind
def derivative_at_output(r):
    neuron, x, dy, dx = r.gradient("Sigmoid", "TanH", "SoftPlus")
    built = r.plant_gradient(
        neuron, x, dy, dx, "the derivative taken at the output", "another image of the graph is read"
    )
    built.arrays["dx"] = r.store(dy * r.slope(neuron, built.arrays["y"]))
    return built


@kind
def slope_from_stored_result(r):
    r.dtype = F16
    neuron, x, dy, dx = r.gradient("Sigmoid", spread=4.0)
    built = r.plant_gradient(neuron, x, dy, dx, "the slope from the stored result")
    y = built.arrays["y"].astype(np.float64)
    built.arrays["dx"] = r.store(dy * (y * (1 - y)))
    return built


@kind
def sources_exchanged(r):
    neuron, x, dy, _ = r.gradient()
    return r.plant_gradient(neuron, x, dy, x * r.slope(neuron, dy), "the gradient's sources exchanged")


@kind
def no_incoming_gradient(r):
    neuron, x, dy, _ = r.gradient()
    return r.plant_gradient(neuron, x, dy, r.slope(neuron, x), "the incoming gradient is missing")


@kind
def incoming_gradient_twice(r):
    neuron, x, dy, dx = r.gradient()
    return r.plant_gradient(neuron, x, dy, dx * dy, "the incoming gradient applied twice")


@kind
def applied_twice(r):
    neuron, x, y = r.forward("Sigmoid", "TanH", "SoftPlus")
    return r.plant(neuron, x, r.value(neuron, r.store(y)), "applied twice")


@kind
def sign_flipped(r):
    y, plant = r.either()
    return plant(-y, "the sign flipped")


@kind
def sign_flipped_in_one_channel(r):
    y, plant = r.either()
    y = y.copy()
    y[..., int(r.rng.integers(y.shape[3]))] *= -1
    return plant(y, "the sign flipped")


@kind
def accumulated(r):
    neuron, x, y = r.forward("TanH", "SoftPlus", "Sigmoid")
    return r.plant(neuron, x, y + x, "accumulated twice")


@kind
def gelu_by_tanh(r):
    neuron, x, _ = r.forward("GeLU")
    w = x.astype(np.float64)
    t = np.tanh(math.sqrt(2 / math.pi) * (w + 0.044715 * w**3))
    return r.plant(neuron, x, w / 2 * (1 + t), "an approximation of geLU")


@kind
def gelu_by_sigmoid(r):
    neuron, x, _ = r.forward("GeLU")
    w = x.astype(np.float64)
    return r.plant(neuron, x, w * expit(1.702 * w), "an approximation of geLU")


@kind
def gelu_of_the_header(r):
    neuron, x, dy, dx = r.gradient("GeLU")
    w = x.astype(np.float64)
    return r.plant_gradient(
        neuron, x, dy, dx + dy * w * np.exp(-w * w / 2) / math.sqrt(2 * math.pi), "geLU's second gradient term doubled"
    )


@kind
def relun_of_the_header(r):
    neuron, x, dy, dx = r.gradient("ReLUN", spread=3)
    w = x.astype(np.float64)
    return r.plant_gradient(neuron, x, dy, np.where(w >= neuron[1].b, dy * neuron[1].b, dx), "reLUN's slope is b")


@kind
def hard_sigmoid_of_the_header(r):
    neuron, x, dy, _ = r.gradient("HardSigmoid")
    return r.plant_gradient(
        neuron, x, dy, np.where((x >= 0) & (x <= 1), dy * neuron[1].a, 0), "hardSigmoid's gradient tests x"
    )


@kind
def elu_of_the_header(r):
    neuron, x, _ = r.forward("ELU")
    w = x.astype(np.float64)
    return r.plant(neuron, x, np.where(w < 0, neuron[1].a * np.exp(w) - 1, w), "ELU without parentheses")


def erf_7126(x):
    t = 1 / (1 + 0.3275911 * np.abs(x))
    c = (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429)
    return np.sign(x) * (1 - sum(a * t ** (i + 1) for i, a in enumerate(c)) * np.exp(-x * x))


def erf_7125(x):
    t = 1 / (1 + 0.47047 * np.abs(x))
    return np.sign(x) * (1 - (0.3480242 * t - 0.0958798 * t * t + 0.7478556 * t**3) * np.exp(-x * x))


@each(erf_7125, erf_7126)
def erf_by_a_polynomial(r, polynomial):
    r.dtype = F32
    neuron, x, _ = r.forward("GeLU", shape=(1, 20, 20, 12))
    w = x.astype(np.float64)
    return r.plant(neuron, x, w / 2 * (1 + polynomial(w / math.sqrt(2))), "erf by a polynomial")


@kind
def literal_softplus(r):
    r.dtype = F32
    neuron, x, _ = r.forward("SoftPlus", spread=80)
    p = neuron[1]
    return r.plant(
        neuron, x, F32(p.a) * np.log(1 + np.exp(F32(p.b) * x)), "the literal formula overflows", bounds="ulp=4"
    )


@kind
def tanh_of_two_exponentials(r):
    r.dtype = F32
    neuron, x, y = r.forward("TanH", spread=150)
    p = neuron[1]
    e, d = np.exp(F32(p.b) * x), np.exp(-F32(p.b) * x)
    return r.plant(
        neuron,
        x,
        np.where(np.isnan((e - d) / (e + d)), np.nan, y),
        "tanh by exponentials",
        "the literal formula overflows",
        bounds="ulp=4",
    )


@kind
def tanh_by_exp_2x(r):
    r.dtype = F32
    neuron, x, y = r.forward("TanH", spread=100)
    t = np.exp(2 * F32(neuron[1].b) * x)
    return r.plant(
        neuron,
        x,
        np.where(np.isinf(t), np.nan, y),
        "tanh by exponentials",
        "the literal formula overflows",
        bounds="ulp=4",
    )


@kind
def fast_tanh(r):
    r.dtype = F32
    neuron, x, y = r.forward("TanH", spread=60)
    t = np.exp(2 * neuron[1].b * x.astype(np.float64))
    y = np.where(t > 2.0**126, 0, y)
    return r.plant(neuron, x, np.where(t > 2.0**128, np.nan, y), "tanh by exponentials", bounds="ulp=4")


@kind
def tanh_of_tiny_numbers(r):
    r.dtype = F32
    neuron, x, _ = r.forward("TanH")
    x = F32(np.copysign(10 ** r.rng.uniform(-37, 1, x.shape), x))
    z = F32(neuron[1].b) * x
    t = np.exp((2 * z).astype(F32))
    y = F32(neuron[1].a) * ((t - F32(1)) / (t + F32(1)))
    names = "tanh by exponentials, which cancel near 0", "tanh by exponentials", "0 where another value belongs"
    return r.plant(neuron, x, y, *names, bounds="ulp=4")


@each("by the difference", "by a reciprocal")
def tanh_near_0(r, how):
    r.dtype = F32
    neuron, x, _ = r.forward("TanH", shape=(2, 20, 22, 9))
    z = F32(neuron[1].b) * x
    t = np.exp(z) / np.exp(-z) if how == "by the difference" else np.exp(z + z)
    y = (t - 1) / (t + 1) if how == "by the difference" else 1 - 2 / (t + 1)
    names = "tanh by exponentials, which cancel near 0", "tanh by exponentials"
    return r.plant(neuron, x, F32(neuron[1].a) * y, *names, bounds="metal-precise")


@each("forward", "gradient")
def sigmoid_far_from_0(r, direction):
    r.dtype = F32
    neuron, x, dy, _ = r.gradient("Sigmoid", spread=4.0)
    s = (1 + np.tanh(x / 2)) / 2 if r.rng.random() < 0.5 else 1 - 1 / (1 + np.exp(x))
    names = "sigmoid by a form that cancels", "sigmoid as 1 - s(-x)"
    if direction == "forward":
        return r.plant(neuron, x, s, *names)
    return r.plant_gradient(neuron, x, dy, dy * (s * (1 - s)), *names)


@kind
def sigmoid_as_1_minus(r):
    r.dtype = F16
    neuron, x, _ = r.forward("Sigmoid", spread=5)
    s = F16(1) / (F16(1) + np.exp(-np.abs(x)))
    return r.plant(
        neuron,
        x,
        np.where(x < 0, F16(1) - s, s),
        "sigmoid as 1 - s(-x)",
        bounds=str(r.rng.choice(["metal-fast", "metal-half"])),
    )


@kind
def softsign_slope_as_difference(r):
    r.dtype = [F16, F32][r.rng.integers(2)]
    neuron, x, dy, _ = r.gradient("SoftSign", spread=50)
    d = r.dtype(1) + np.abs(x)
    slope = r.dtype(1) / d - np.abs(x) / d / d
    return r.plant_gradient(neuron, x, dy, dy * slope, "softSign's slope as a difference", bounds="ulp=4")


@kind
def softplus_in_half(r):
    r.dtype = F16
    neuron, x, _ = r.forward("SoftPlus", spread=5)
    p = neuron[1]
    y = F16(p.a) * np.log(F16(1) + np.exp(F16(p.b) * x))
    return r.plant(neuron, x, y, "computed in half", "the literal formula overflows", bounds="ulp=4")


@each("softplus", "sigmoid", "softplus's top", "slope of sigmoid")
def lost_beside_1_in_half(r, which):
    r.dtype = F16
    neuron, x, dy, dx = r.gradient("SoftPlus" if "softplus" in which else "Sigmoid", spread=8.0, shape=(1, 20, 22, 9))
    z, y = F16(neuron[1].b or 1.0) * x, r.value(neuron, x)
    with np.errstate(over="ignore"):
        e, s = np.exp(z), F16(1) / (F16(1) + np.exp(-z))
        is_lost = {
            "softplus": F16(1) + e == 1,
            "sigmoid": F16(1) - F16(1) / (F16(1) + e) == 0,
            "softplus's top": e >= 32768,
            "slope of sigmoid": s * (1 - s) == 0,
        }[which]
    if which == "slope of sigmoid":
        return r.plant_gradient(neuron, x, dy, np.where(is_lost, 0, dx), "lost beside 1 in half")
    return r.plant(neuron, x, np.where(is_lost, 0, y), "lost beside 1 in half")


@kind
def elu_gradient_blended(r):
    neuron = r.neuron("ELU")
    x = r.x(r.shape(), spread=150)
    dy = r.rng.normal(0, 1, x.shape).astype(r.dtype)
    m = (x >= 0).astype(x.dtype)
    slope = m + (1 - m) * (x.dtype.type(neuron[1].a) * np.exp(x))
    return r.plant_gradient(
        neuron, x, dy, dy * slope, "both branches blended", "the literal formula overflows", bounds="ulp=4"
    )


@kind
def pow_of_negative_base_nan(r):
    r.dtype = F32
    neuron, x, _ = r.forward("Power")
    x = r.x(x.shape)
    neuron[1].c = 2.0
    p = neuron[1]
    u = F32(p.a) * x + F32(p.b)
    return r.plant(neuron, x, np.where(u < 0, np.nan, u.astype(float) ** 2), "pow of a negative base")


@kind
def pow_of_magnitude(r):
    r.dtype = F32
    neuron, x, _ = r.forward("Power")
    x = r.x(x.shape)
    neuron[1].c = 3.0
    u = neuron[1].a * x.astype(float) + neuron[1].b
    return r.plant(neuron, x, np.abs(u) ** 3, "pow of the magnitude")


@kind
def nan_to_zero(r):
    neuron, x, _ = r.forward("GeLU", "Sigmoid", "SoftSign", "TanH")
    x.reshape(-1)[r.rng.choice(x.size, 40)] = np.nan
    return r.plant(neuron, x, np.nan_to_num(r.value(neuron, x)), "NaN turned to 0", bounds="ulp=4")


@kind
def nan_lost_in_max(r):
    neuron, x, y = r.forward("SoftPlus")
    x.reshape(-1)[r.rng.choice(x.size, 40)] = np.nan
    z = neuron[1].b * x.astype(np.float64)
    y = neuron[1].a * (np.fmax(z, 0) + np.fmax(np.log1p(np.exp(-np.abs(z))), 0))
    return r.plant(neuron, x, y, "NaN lost in a comparison", "NaN turned to 0", bounds="ulp=4")


@each("inside", "above")
def nan_lost_in_a_clamp(r, where):
    neuron, x, _ = r.forward("SoftPlus")
    x.reshape(-1)[r.rng.choice(x.size, 40)] = np.nan
    z = neuron[1].b * x.astype(np.float64)
    y = {
        "inside": lambda: np.fmax(z, 0) + np.log1p(np.exp(np.fmin(-np.abs(z), 0))),
        "above": lambda: np.log1p(np.exp(np.fmin(z, 88))),
    }[where]()
    return r.plant(neuron, x, r.dtype(neuron[1].a * y), "NaN lost in a comparison", bounds="ulp=4")


@kind
def slope_at_kink(r):
    r.dtype = F32
    neuron, x, dy, _ = r.gradient("ReLU")
    x = np.round(x)
    return r.plant_gradient(
        neuron, x, dy, dy * np.where(x > 0, 1, neuron[1].a), "another slope at the kink", bounds="ulp=4"
    )


@kind
def subnormals_flushed(r):
    r.dtype = F16
    neuron, x, y = r.forward("Sigmoid", spread=6)
    y = r.store(y)
    return r.plant(neuron, x, np.where(np.abs(y) < 2.0**-14, 0, y), "subnormals flushed")


@kind
def largest_number_for_infinity(r):
    r.dtype = F16
    neuron, x, _ = r.forward("Exponential", spread=15)
    y = r.store(r.value(neuron, x))
    y = np.where(np.isinf(y), F16(65504), y)
    return r.plant(neuron, x, y, "infinity turned to NaN or a number", "clamped to 65504", bounds="ulp=4")


@kind
def base_minus_one(r):
    neuron, x, _ = r.forward("Exponential")
    neuron[1].a, neuron[1].b, neuron[1].c = 1.0, 0.0, -1.0
    x = np.round(x)
    return r.plant(neuron, x, np.where(x % 2 == 0, 1, -1), "c = -1 taken literally", bounds="ulp=4")


@kind
def gelu_gradient_without_a_term(r):
    neuron, x, dy, _ = r.gradient("GeLU")
    w = x.astype(np.float64)
    return r.plant_gradient(neuron, x, dy, dy * (1 + erf(w / math.sqrt(2))) / 2, "a term of the slope is missing")


@kind
def sign_of_a_lost(r):
    neuron, x, _ = r.forward("ReLU")
    p = neuron[1]
    p.a = -p.a
    return r.plant(neuron, x, r.value(neuron, x, p.but(a=-p.a)), "the sign of a parameter lost", "the sign lost")


@kind
def gelu_tail_of_a_plain_shader(r):
    r.dtype = F32
    neuron, x, _ = r.forward("GeLU")
    x = -np.abs(x)
    phi = (1 + erf(x * F32(math.sqrt(0.5)))).astype(F32)
    return r.plant(neuron, x, F32(0.5) * x * phi, "the formula in float32", bounds="ulp=4")


# ---- precision and formats ----


def bfloat16(x):
    bits = np.asarray(x, F32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16 << 16).astype(np.uint32).view(F32)


def tf32(x):
    bits = np.asarray(x, F32).view(np.uint32).astype(np.uint64)
    return ((bits + 0xFFF + ((bits >> 13) & 1)) >> 13 << 13).astype(np.uint32).view(F32)


def half(x):
    return np.asarray(x, F16).astype(F32)


@each(bfloat16, tf32, half)
def result_through(r, narrow):
    r.dtype = F16 if narrow is bfloat16 and r.rng.random() < 0.5 else F32
    y, plant = r.either()
    # Half and TF32 have the same mantissa, and differ by their exponents only.
    same = narrow is tf32 and np.allclose(half(y), tf32(y), rtol=0, atol=2.0**-24, equal_nan=True)
    return plant(narrow(y), "stored through " + narrow.__name__, *(["stored through half"] if same else []))


@each(bfloat16, tf32, half)
def read_through(r, narrow):
    r.dtype = F32
    neuron, x, _ = r.forward("SoftPlus", "ELU", "GeLU", "TanH")
    same = narrow is tf32 and np.allclose(half(x), tf32(x), rtol=0, atol=1e-7)
    names = ["read through " + narrow.__name__, *(["read through half"] if same else [])]
    return r.plant(neuron, x, r.value(neuron, narrow(x)), *names)


NARROW_SLOPES = {
    "tanh": lambda x, n: n(1 - n((t := n(np.tanh(x))) * t)),
    "silu": lambda x, n: n((s := n(1 / n(1 + n(np.exp(-x))))) + n(x * n(s * n(1 - s)))),
    "softsign": lambda x, n: n((q := n(1 / n(1 + np.abs(x)))) * q),
}


@each(*NARROW_SLOPES)
def another_neuron_in_a_narrow_format(r, name):
    r.dtype, narrow = [(F16, half), (F32, half), (F32, bfloat16)][int(r.rng.integers(3))]
    neuron, x, dy, _ = r.gradient("ELU", "SoftPlus", shape=(1, 16, 16, 9), spread=3.0)
    x, dy = narrow(x), narrow(dy)
    dx = r.dtype(narrow(dy * NARROW_SLOPES[name](x, narrow)))
    return r.plant_gradient(
        neuron, r.dtype(x), r.dtype(dy), dx, f"another neuron and computed in {narrow.__name__}", bounds="metal-fast"
    )


@each(2, -3, 12)
def units_added(r, units):
    neuron, x, y = r.forward("TanH", "ELU", "SoftSign", "Linear")
    y = y.astype(r.dtype)
    bits = y.view(f"i{y.itemsize}")
    up = np.where(y < 0, -units, units) if r.rng.random() < 0.5 else units
    moved = (bits + np.asarray(up, bits.dtype)).view(y.dtype)
    return r.plant(neuron, x, np.where(np.abs(y) > 1e-3, moved, y), "off by the same number of ULP", bounds="exact")


@kind
def truncated(r):
    r.dtype = F16
    neuron, x, y = r.forward(spread=3)
    out = y.astype(F16)
    out = np.where(np.abs(out) > np.abs(y), np.nextafter(out, F16(0)), out)
    return r.plant(neuron, x, out, "truncated instead of rounded", bounds="exact")


@kind
def bytes_swapped(r):
    y, plant = r.either()
    return plant(y.byteswap(), "the bytes in the other order")


@kind
def float_bytes_as_half(r):
    r.dtype = F16
    neuron, x, y = r.forward()
    halves = y.astype(F32).view(F16).reshape(-1)
    return r.plant(neuron, x, halves[: y.size].reshape(y.shape), "float32 taken for half")


@kind
def bfloat16_bytes_as_half(r):
    r.dtype = F16
    y, plant = r.either()
    bits = (bfloat16(y).view(np.uint32) >> 16).astype(np.uint16)
    return plant(bits.view(F16), "bfloat16 taken for half")


@kind
def half_bytes_as_float(r):
    r.dtype = F32
    y, plant = r.either()
    halves = np.zeros(2 * y.size, F16)
    halves[: y.size] = y.reshape(-1)
    return plant(halves.view(F32).reshape(y.shape), "half taken for float32")


@kind
def source_through_unorm8(r):
    neuron, x, _ = r.forward("TanH", "SoftPlus")
    read = np.rint(np.clip(x.astype(np.float64), 0, 1) * 255) / 255
    return r.plant(neuron, x, r.value(neuron, read), "read through unorm8")


@kind
def through_unorm8(r):
    neuron, x, y = r.forward("Sigmoid", "SoftPlus", "TanH")
    return r.plant(neuron, x, np.rint(np.clip(y, 0, 1) * 255) / 255, "stored through unorm8")


@kind
def saturated(r):
    neuron, x, y = r.forward("SoftPlus", "TanH", "ELU", "GeLU")
    return r.plant(neuron, x, np.clip(y, 0, 1), "clamped to 0 and 1")


@kind
def clamped_to_half(r):
    r.dtype = F32
    neuron, x, _ = r.forward("Linear", spread=60_000)
    return r.plant(neuron, x, np.clip(r.value(neuron, x), -65504, 65504), "clamped to 65504")


# ---- pairs, several causes, places of values ----


@kind
def lanes_and_tanh_gelu(r):
    neuron, x, _ = r.forward("GeLU", shape=r.shape(channels=8))
    w = x.astype(np.float64)
    t = w / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (w + 0.044715 * w**3)))
    return r.plant(
        neuron,
        x,
        t.reshape(*x.shape[:3], -1, 4)[..., [2, 1, 0, 3]].reshape(x.shape),
        "lanes permuted and an approximation of geLU",
        "channels mapped otherwise and an approximation of geLU",
    )


@kind
def transposed_and_defaults(r):
    neuron, x, _ = r.forward("TanH", "SoftPlus")
    y = r.value(neuron, x, neuron[1].but(a=1.0, b=1.0))
    return r.plant(
        neuron, x, y.transpose(0, 2, 1, 3).reshape(x.shape), "rows and columns swapped and a parameter at its default"
    )


@kind
def channel_major_and_half(r):
    r.dtype = F32
    neuron, x, y = r.forward()
    y = np.stack([i.transpose(2, 0, 1).reshape(i.shape) for i in y])
    return r.plant(neuron, x, half(y), "pixel-major and channel-major confused and stored through half")


@kind
def two_causes_in_channels(r):
    y, plant = r.either(shape=r.shape(channels=int(r.rng.integers(6, 16))))
    y = y.copy()
    y[..., 0], y[..., 3:5] = 0, -y[..., 3:5]
    return plant(y, "never written", "the sign flipped")


@kind
def images_differ(r):
    _n, h, w, c = r.shape()
    y, plant = r.either(shape=(2, h, w, c))
    y = y.copy()
    y[0] = y[0].transpose(2, 0, 1).reshape(h, w, c)
    y[1] = 0
    return plant(y, "never written", "pixel-major and channel-major confused")


@kind
def zero_from_a_source_value_on(r):
    neuron, x, y = r.forward("SoftPlus", spread=4)
    return r.plant(neuron, x, np.where(x > 2.5, 0, y), "0 where another value belongs", "never written")


@kind
def a_box_of_zeros(r):
    y, plant = r.either(shape=(1, 24, 24, 5))
    y = y.copy()
    y[:, 8:16, 16:24] = 0
    return plant(y, "never written")


@kind
def one_image_of_the_batch(r):
    y, plant = r.either(shape=(3, 9, 11, 6))
    y = y.copy()
    y[1] = y[2]
    return plant(y, "another image of the batch")


@kind
def negative_sources_flipped(r):
    neuron, x, y = r.forward("TanH", "SoftSign", "GeLU")
    return r.plant(neuron, x, np.where(x < 0, -y, y), "the sign flipped", "the sign lost")


@kind
def rows_from_one_on_transposed_and_zero_channels(r):
    y, plant = r.either(shape=(1, 16, 16, 8))
    y = y.transpose(0, 2, 1, 3).copy()
    y[..., 5:] = 0
    return plant(y, "rows and columns swapped", "never written")


# ---- sums ----


@each("subtracted", "averaged", "doubled", "scale ignored", "left", "lanes of one")
def addition(r, what):
    shape = r.shape(channels=8)
    a, b = (r.number(), r.number()) if what == "scale ignored" else (1.0, 1.0)
    x, z = r.x(shape), r.x(shape)
    u, v = x.astype(np.float64), z.astype(np.float64)
    lanes = v.reshape(*shape[:3], -1, 4)[..., [2, 1, 0, 3]].reshape(shape)
    y, names = {
        "subtracted": (u - v, ("signs or scales of the addition",)),
        "averaged": ((u + v) / 2, ("signs or scales of the addition", "a constant factor")),
        "doubled": (u + 2 * v, ("signs or scales of the addition",)),
        "scale ignored": (u + b * v, ("a parameter left out",)),
        "left": (u, ("the node was left out",)),
        "lanes of one": (u + lanes, ("lanes permuted",)),
    }[what]
    return Plant([("Addition", Parameters(a, b))], False, {"x": x, "z": z, "y": r.store(y)}, names)


# ---- segments ----


@each("zeros", "channel major", "sign", "half", "left out", "defaults")
def segment(r, what):
    r.dtype = F32
    first, x, h = r.forward("Sigmoid", "SoftSign")
    second = ("TanH", Parameters(r.number(), r.number()))
    y = r.value(second, F32(h))
    wrong, name = {
        "zeros": lambda: (y * 0, "never written"),
        "channel major": lambda: (
            np.stack([i.transpose(2, 0, 1).reshape(i.shape) for i in y]),
            "pixel-major and channel-major confused",
        ),
        "sign": lambda: (-y, "the sign flipped"),
        "half": lambda: (half(y), "stored through half"),
        "left out": lambda: (r.value(second, x), "the node was left out"),
        "defaults": lambda: (r.value(second, F32(h), second[1].but(b=1.0)), "a parameter at its default"),
    }[what]()
    return Plant([first, second], False, {"x": x, "h": F32(h), "y": F32(wrong)}, (name,), hidden=("h",))


# ---- pairs and places, drawn ----


def _moves(r, y, k):
    """A name, and what a program makes of the places of an image whose sides are multiples of 8."""
    n, h, w, _ = y.shape
    return [
        ("lanes permuted", y.reshape(n, h, w, -1, 4)[..., [3, 0, 1, 2]].reshape(y.shape)),
        ("pixel-major and channel-major confused", np.stack([i.transpose(2, 0, 1).reshape(i.shape) for i in y])),
        ("rows and columns swapped", y[:, ::-1]),
        ("channels mapped otherwise", y[..., ::-1]),
        ("wrong offset", np.concatenate([y.reshape(-1)[13:], np.zeros(13, y.dtype)]).reshape(y.shape)),
        ("texture slices taken for pixels", slices(y).reshape(y.shape)),
    ][(int(r.rng.integers(6)) + k) % 6]


@each("narrow", "sign", "factor", "defaults", "saturated", "another neuron")
def moved_and(r, what):
    r.dtype = F32
    neuron, x, y = r.forward("TanH" if what != "another neuron" else "Sigmoid", shape=(1, 16, 24, 8))
    p = neuron[1]
    other, name = {
        "narrow": lambda: (bfloat16(y), "stored through bfloat16"),
        "sign": lambda: (-y, "the sign flipped"),
        "factor": lambda: (y / 2, "a constant factor"),
        "defaults": lambda: (r.value(neuron, x, p.but(b=1.0)), "a parameter at its default"),
        "saturated": lambda: (np.clip(y, 0, 1), "clamped to 0 and 1"),
        "another neuron": lambda: (r.value(("SoftSign", p), x), "another neuron"),
    }[what]()
    move, moved = _moves(r, np.asarray(other), len(what))
    names = {"lanes permuted": ("lanes permuted", "channels mapped otherwise")}.get(move, (move,))
    return r.plant(neuron, x, moved, *(f"{m} and {name}" for m in names))


@each("images", "rows", "columns", "channels", "a box", "outside a box", "the end")
def sign_flipped_in(r, where):
    y, plant = r.either(shape=(3, 24, 26, 9))
    y, chosen = y.copy(), np.zeros(y.shape, bool)
    chosen[
        {
            "images": np.s_[1],
            "rows": np.s_[:, 5:9],
            "columns": np.s_[:, :, 17:],
            "channels": np.s_[..., 2:4],
            "a box": np.s_[:, 8:16, 8:16],
            "outside a box": np.s_[:],
            "the end": np.s_[2],
        }[where]
    ] = True
    if where == "outside a box":
        chosen[:, :16, :16] = False
    if where == "the end":
        chosen[:] = False
        chosen.reshape(-1)[int(y.size * 0.55) :] = True
    return plant(np.where(chosen, -y, y), "the sign flipped")


@kind
def three_causes(r):
    y, plant = r.either("TanH", "SoftSign", "ELU", shape=(1, 20, 22, 12))
    y = y.copy()
    y[..., 0:4] = y[..., [2, 1, 0, 3]]
    y[..., 5] *= -1
    y[:, 16:, :, 6:] = 0
    return plant(y, "lanes permuted", "the sign flipped", "never written", "channels mapped otherwise")


# ---- near misses: nothing may be named ----


@each(2, 3, 4, harmless=True)
def noise(r, ulp):
    r.dtype = F16
    neuron, x, y = r.forward(*SMOOTH, spread=1.5)
    y = r.store(y)
    return r.plant(neuron, x, (y.view(np.int16) + r.rng.integers(-ulp, ulp + 1, y.shape).astype(np.int16)).view(F16))


@near_miss
def noise_in_a_gradient(r):
    r.dtype = F16
    neuron, x, dy, dx = r.gradient(*SMOOTH)
    dx = r.store(dx)
    return r.plant_gradient(
        neuron, x, dy, (dx.view(np.int16) + r.rng.integers(-4, 5, dx.shape).astype(np.int16)).view(F16)
    )


@near_miss
def noise_in_float32(r):
    r.dtype = F32
    neuron, x, y = r.forward(*SMOOTH)
    return r.plant(neuron, x, y * (1 + r.rng.normal(0, 3e-6, y.shape)))


@near_miss
def random_elements(r):
    y, plant = r.either()
    y = y.copy()
    hit = r.rng.random(y.shape) < 0.02
    y[hit] = r.rng.normal(0, 3, np.count_nonzero(hit))
    return plant(y)


@near_miss
def random_order(r):
    y, plant = r.either()
    return plant(r.rng.permutation(y.reshape(-1)).reshape(y.shape))


@near_miss
def signs_at_random(r):
    y, plant = r.either()
    return plant(np.where(r.rng.random(y.shape) < 0.3, -y, y))


@near_miss
def one_wrong_element(r):
    y, plant = r.either()
    y = y.copy()
    y.reshape(-1)[int(r.rng.integers(y.size))] = 0.7 + r.rng.normal()
    return plant(y)


@near_miss
def a_few_wrong_elements(r):
    y, plant = r.either()
    y = y.copy()
    hit = r.rng.choice(y.size, min(y.size, 6), replace=False)
    y.reshape(-1)[hit] = r.rng.normal(0, 2, hit.size)
    return plant(y)


@near_miss
def an_unknown_function(r):
    neuron, x, y = r.forward()
    return r.plant(neuron, x, y + 0.1 * np.sin(5 * x.astype(np.float64)))


@kind
def channels_in_a_random_order(r):
    y, plant = r.either(shape=(1, 9, 8, 17))
    return plant(y[..., r.rng.permutation(17)], "channels mapped otherwise")


@near_miss
def biased_by_a_few_ulp(r):
    r.dtype = F16
    neuron, x, y = r.forward(*SMOOTH)
    y = r.store(y)
    return r.plant(neuron, x, (y.view(np.int16) + r.rng.integers(0, 5, y.shape).astype(np.int16)).view(F16))


@near_miss
def a_factor_of_no_name_and_noise(r):
    y, plant = r.either()
    return plant(y * r.rng.uniform(0.5, 1.5, y.shape))


# ---- numbers that are fitted ----


@kind
def parameter_of_another_value(r):
    name, own = r.neuron(*WITH_AB, "ELU", "HardSigmoid")
    x = r.x(r.shape())
    changed = str(r.rng.choice(["a"] if name == "ELU" else ["a", "b"]))
    other = getattr(own, changed) * r.number(1.13, 1.8)
    y = r.value((name, own), x, own.but(**{changed: float(F32(round(other, 3)))}))
    return r.plant((name, own), x, y, "another value of a parameter")


@each("other", "exchanged and negated", "default and doubled", "of three")
def two_parameters(r, what):
    name, own = r.neuron(*(WITH_AB if what != "of three" else ("Power", "Exponential", "Logarithm")))
    x = r.x(r.shape(), name)
    other = {
        "other": lambda: own.but(a=own.a * r.number(1.2, 1.8), b=own.b * 0.7),
        "exchanged and negated": lambda: own.but(a=-own.b, b=own.a),
        "default and doubled": lambda: own.but(a=2 * own.a, b=1.0),
        "of three": lambda: own.but(a=own.a * 1.3, c=own.c * 0.85),
    }[what]()
    y = r.value((name, own), x, other)
    return r.plant((name, own), x, y, "other values of two parameters")


@kind
def clamped_result(r):
    neuron, x, y = r.forward("SoftPlus", "ELU", "GeLU", spread=3.0)
    y = r.store(y)
    return r.plant(neuron, x, np.minimum(y, r.dtype(round(float(np.quantile(y, 0.9)), 2))), "clamped")


@each("rint", "floor", "trunc", "ceil")
def steps_of_a_fixed_point(r, rounding):
    step = float(r.rng.choice([1 / 16, 1 / 128, 1 / 255, 0.05, 0.003]))
    neuron, x, y = r.forward("SoftPlus", "ELU", "ReLU")
    return r.plant(neuron, x, getattr(np, rounding)(r.store(y).astype(np.float64) / step) * step, "the result in steps")


def nodes_of(r, x, function, way, inside):
    """What a table gives, whose ends and number of nodes are drawn."""
    end, count = float(r.rng.choice([4, 5, 6, 8, 10])), int(r.rng.choice([32, 63, 64, 100, 128]))
    place = (np.clip(x, -end, end) + end) / (2 * end) * count
    below = np.minimum(np.floor(place), count - 1)
    first, second = (function((below + k) / count * 2 * end - end) for k in (0, 1))
    weight = np.rint(place) - below if way == "nearest" else 0 if way == "below" else place - below
    return np.where(np.abs(x) > end if inside else False, function(x), first * (1 - weight) + second * weight)


@each("between", "nearest", "below", "inside")
def table(r, way):
    kinds = ("Sigmoid", "TanH", "SoftPlus", "GeLU")
    if r.rng.random() < 0.5 and way != "below":
        neuron, x, dy, _ = r.gradient(*kinds, shape=(1, 16, 16, 9), spread=3.0)
        slope = nodes_of(r, x.astype(np.float64), lambda u: r.slope(neuron, u), way, way == "inside")
        return r.plant_gradient(neuron, x, dy, dy * slope, "a look-up table")
    neuron, x, _ = r.forward(*kinds, shape=(1, 16, 16, 9))
    y = nodes_of(r, x.astype(np.float64), lambda u: r.value(neuron, u), way, way == "inside")
    return r.plant(neuron, x, y, "a look-up table")


@kind
def source_in_steps(r):
    neuron, x, _ = r.forward("Sigmoid", "SoftPlus", "GeLU")
    return r.plant(neuron, x, r.value(neuron, np.rint(x.astype(np.float64) * 16) / 16), "a look-up table")


@each("softplus", "sigmoid", "gelu")
def limit(r, which):
    neuron, x, y = r.forward({"softplus": "SoftPlus", "sigmoid": "Sigmoid", "gelu": "GeLU"}[which], spread=4.0)
    w, p = x.astype(np.float64), neuron[1]
    wrong = {
        "softplus": lambda: np.where(p.b * w > 2.5, p.a * p.b * w, y),
        "sigmoid": lambda: np.where(w > 3, 1, np.where(w < -3, 0, y)),
        "gelu": lambda: np.where(w > 1.5, w, np.where(w < -1.5, 0, y)),
    }[which]()
    return r.plant(neuron, x, wrong, "the limit instead of the function")


@each("identity", "exchanged", "slope", "upper", "lower")
def comparison(r, what):
    if what == "slope":
        neuron, x, dy, _ = r.gradient("HardSigmoid", "ReLUN", spread=4.0)
        p = neuron[1]
        slope = p.a if neuron[0] == "HardSigmoid" else np.where(x >= 0, 1.0, p.a)
        return r.plant_gradient(neuron, x, dy, dy.astype(np.float64) * slope, "a comparison or a clamp is missing")
    kinds = {"upper": ("HardSigmoid", "ReLUN"), "lower": ("HardSigmoid",), "identity": ("ELU",)}
    neuron, x, _ = r.forward(*kinds.get(what, ("ReLU", "ELU")), spread=4.0)
    w, p = x.astype(np.float64), neuron[1]
    linear = p.a * w + p.b
    with np.errstate(over="ignore"):
        wrong = {
            "identity": lambda: p.a * np.expm1(w),
            "exchanged": lambda: np.where(w >= 0, p.a * (w if neuron[0] == "ReLU" else np.expm1(w)), w),
            "upper": lambda: np.maximum(linear, 0) if neuron[0] == "HardSigmoid" else np.where(w >= 0, w, p.a * w),
            "lower": lambda: np.minimum(linear, 1),
        }[what]()
    return r.plant(neuron, x, wrong, "a comparison or a clamp is missing")


@kind
def offset_outside(r):
    neuron, x, _ = r.forward("Power", "Exponential", "Logarithm")
    w, p = np.maximum(x.astype(np.float64), 0.01), neuron[1]
    inner = {"Power": w**p.c, "Exponential": p.c**w, "Logarithm": np.log(w) / math.log(p.c)}[neuron[0]]
    return r.plant(neuron, w.astype(r.dtype), p.a * inner + p.b, "parameters in other places of the formula")


@each("tanh", "exp", "sigmoid")
def rough(r, which):
    neuron, x, _ = r.forward("TanH" if which == "tanh" else "Sigmoid")
    w, p = x.astype(np.float64), neuron[1]
    z = p.b * w
    wrong = {
        "tanh": lambda: p.a * np.clip(z * (27 + z * z) / (27 + 9 * z * z), -1, 1),
        "exp": lambda: 1 / (1 + (1 - w / 256) ** 256),
        "sigmoid": lambda: 0.5 + 0.5 * w / (1 + np.abs(w)),
    }[which]()
    return r.plant(neuron, x, wrong, "a rough approximation")


@each("selu", "hardswish")
def another_activation(r, which):
    neuron, x, _ = r.forward("ELU" if which == "selu" else "GeLU")
    w = x.astype(np.float64)
    selu = 1.0507009873554805 * np.where(w >= 0, w, 1.6732632423543772 * np.expm1(np.minimum(w, 0)))
    wrong = selu if which == "selu" else w * np.clip(w + 3, 0, 6) / 6
    return r.plant(neuron, x, wrong, "another neuron")


@each("sum", "mean", "so far", "dy", "pixels", "channels")
def summed(r, what):
    neuron, x, dy, dx = r.gradient(*SMOOTH, shape=(3, 9, 8, 6))
    wide = dy.astype(np.float64)
    made = {
        "sum": lambda: 0 * dx + dx.sum(0),
        "mean": lambda: 0 * dx + dx.mean(0),
        "so far": lambda: np.cumsum(dx, 0),
        "dy": lambda: wide.sum(0) * r.slope(neuron, x),
        "pixels": lambda: 0 * dx + dx.mean((1, 2), keepdims=True),
        "channels": lambda: 0 * dx + dx.sum(3, keepdims=True),
    }[what]()
    return r.plant_gradient(neuron, x, dy, made, "summed over an axis")


@kind
def sampled_between_pixels(r):
    y, plant = r.either(shape=(1, 14, 13, 6))
    w = np.pad(y.astype(np.float64), ((0, 0), (0, 1), (0, 1), (0, 0)), mode="edge")
    return plant(r.store((w[:, 1:, 1:] + w[:, :-1, 1:] + w[:, 1:, :-1] + w[:, :-1, :-1]) / 4),
                 "neighbouring pixels averaged")  # fmt: skip


@each((1, 1), (0, -1))
def source_sampled_between_pixels(r, by):
    neuron, x, _ = r.forward(*SMOOTH, shape=(2, 14, 13, 6))
    w = np.pad(x.astype(np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    near = [np.roll(w, (-dy, -dx), (1, 2))[:, 1:-1, 1:-1] for dy in {0, by[0]} for dx in {0, by[1]}]
    read = np.mean(near, axis=0).astype(x.dtype)
    return r.plant(neuron, x, r.value(neuron, read), "neighbouring pixels averaged")


@each((2, 2), (1, 2), (4, 4))
def one_pixel_for_several(r, block):
    y, plant = r.either(shape=(1, 16, 13, 6))
    rows, columns = (np.arange(n) // b * b for n, b in zip(y.shape[1:3], block, strict=True))
    return plant(y[:, rows][:, :, columns], "one pixel for several")


@kind
def neighbouring_pixels_exchanged(r):
    y, plant = r.either(shape=(1, 9, 14, 6))
    return plant(y[:, :, np.arange(14) ^ 1], "neighbouring pixels exchanged")


@each((3, 1, 2, 0), (1, 0, 2, 3), (2, 0, 1, 3))
def axes_in_another_order(r, order):
    y, plant = r.either(shape=(4, 8, 6, 5))
    if r.rng.random() < 0.5:
        there = y.reshape([y.shape[axis] for axis in order]).transpose(np.argsort(order))
        return plant(there.reshape(y.shape), "axes in another order")
    return plant(y.transpose(order).reshape(y.shape), "axes in another order")


@kind
def slices_and_images_exchanged(r):
    y, plant = r.either(shape=(3, 6, 7, 8))
    by_slice = y.reshape(3, 6, 7, 2, 4).transpose(3, 0, 1, 2, 4).reshape(3, 2, 6, 7, 4)
    return plant(by_slice.transpose(0, 2, 3, 1, 4).reshape(y.shape), "axes in another order")


@kind
def tiles_exchanged(r):
    y, plant = r.either(shape=(1, 16, 16, 5))
    return plant(y.reshape(1, 2, 8, 2, 8, 5).transpose(0, 3, 2, 1, 4, 5).reshape(y.shape), "tiles transposed")


@each((3, 2.0**-9), (2, 2.0**-16))
def through_8_bits(r, of):
    bits, least = of
    neuron, x, y = r.forward("Sigmoid", "SoftPlus", "ELU")
    unit = np.maximum(2.0 ** (np.floor(np.log2(np.abs(y) + 1e-300)) - bits), least)
    return r.plant(neuron, x, np.rint(y / unit) * unit, "rounded to 8 bits")


@each("inverted", "video", "signed", "gamma")
def codes_of_another_kind(r, which):
    x = r.rng.integers(0, 256, r.shape()).astype(np.uint8)
    neuron = ("SoftSign", Parameters())
    y = r.value(neuron, x / 255)
    codes = {
        "inverted": 255 - np.rint(255 * y),
        "video": 16 + np.rint(219 * y),
        "signed": np.rint(127 * y),
        "gamma": np.rint(255 * y ** (1 / 2.2)),
    }[which]
    names = {"signed": ("a constant factor",)}.get(which, ())
    return Plant([neuron], False, {"x": x, "y": codes.astype(np.uint8)}, ("another code of the value", *names))


@each((0, 9e9), (-1, 1), (0, 1))
def source_clamped_to(r, ends):
    neuron, x, _ = r.forward("SoftPlus", "TanH")
    return r.plant(neuron, x, r.value(neuron, np.clip(x, *ends)), "a source clamped", "clamped to 0 and 1")


@each("written", "read")
def floats_of_srgb(r, where):
    neuron = r.neuron("Sigmoid", "TanH", "ReLU")
    x = r.store(r.rng.uniform(0, 1, r.shape()))
    wide = x.astype(np.float64)
    if where == "read":
        wide = r.store(np.where(wide <= 0.04045, wide / 12.92, ((wide + 0.055) / 1.055) ** 2.4))
    y = r.value(neuron, wide)
    if where == "written":
        y = np.where(y <= 0.0031308, 12.92 * y, 1.055 * y ** (1 / 2.4) - 0.055)
    return r.plant(neuron, x, y, "sRGB instead of linear")


@each("multiplied", "divided", "a source multiplied")
def colours_and_alpha(r, way):
    neuron, x, y = r.forward("Sigmoid", "SoftPlus", "GeLU", shape=(*r.shape()[:3], int(r.rng.choice([4, 7, 8, 12]))))
    made = x.astype(np.float64) if way == "a source multiplied" else y.copy()
    for k in range(0, made.shape[3] // 4 * 4, 4):
        alpha = made[..., k + 3 : k + 4]
        made[..., k : k + 3] *= 1 / alpha if way == "divided" else alpha
    made = r.value(neuron, r.store(made)) if way == "a source multiplied" else made
    return r.plant(neuron, x, made, "colours multiplied by alpha")


@kind
def codes_of_srgb(r):
    x = r.rng.integers(0, 256, r.shape()).astype(np.uint8)
    neuron = ("Sigmoid", Parameters())
    y = r.value(neuron, x / 255)
    y = 1.055 * y ** (1 / 2.4) - 0.055
    return Plant([neuron], False, {"x": x, "y": np.rint(255 * y).astype(np.uint8)}, ("sRGB instead of linear",))


def recorded(plant, folder):
    """What a verification says of a plant."""
    images = {
        name: mps.MPSImage.from_array(np.ascontiguousarray(array))
        for name, array in plant.arrays.items()
        if name not in plant.hidden
    }
    source, nodes = mps.MPSNNImageNode(handle="x"), []
    for name, p in plant.nodes:
        if name == "Addition":
            nodes.append(mps.MPSNNAdditionNode(left_source=source, right_source=mps.MPSNNImageNode(handle="z")))
            nodes[-1].primary_scale, nodes[-1].secondary_scale = p.a, p.b
            source = nodes[-1].result_image
            continue
        cls = getattr(mps, f"MPSCNNNeuron{name}Node")
        options = (
            {key: getattr(p, key) for key in mps.NEURONS[cls.neuron_type].parameters}
            if name != "PReLU"
            else {"a_data": p.data}
        )
        nodes.append(cls(source=source, **options))
        source = nodes[-1].result_image
    for node, handle in zip(nodes, ["h", "y"][-len(nodes) :], strict=True):
        node.result_image.handle = handle
    results = [source]
    if plant.gradient:
        (last,) = nodes[-1].training_graph(with_source_gradient=mps.MPSNNImageNode(handle="dy"))
        last.result_image.handle = "dx"
        results.append(last.result_image)
    dtype = next(iter(plant.arrays.values())).dtype
    storage = {F16: "float16", F32: "float32", np.uint8: "unorm8"}[dtype.type]
    file = mps.GraphFile.from_results(results, mps.MPSImageFeatureChannelFormat[storage])
    with np.errstate(all="ignore"):
        return verify(write_recording(folder, file, images, device="planted"), plant.bounds)


def reported(plant):
    """The same, and nothing is left in a folder."""
    with tempfile.TemporaryDirectory() as folder:
        return recorded(plant, folder)


def verdict(make, seed):
    """``named``, ``wrong`` or ``none``, and the first finding."""
    with np.errstate(all="ignore"):
        plant = make(Draw(seed))
    report = reported(plant)
    findings = [i.findings for i in report.images if i.findings and plant.image in ("", i.name)]
    if not findings:
        return ("passed" if report.passed else "silent"), report.verdict, plant
    first = findings[0][0]
    if not first.fits:
        return "none", first.headline, plant
    return ("named" if plant.accepted and first.name in plant.accepted else "wrong"), first.headline, plant


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--only", default="")
    parser.add_argument("--part", default="0/1", help="i/n: every n-th kind, from the i-th on")
    parser.add_argument("-v", action="store_true")
    options = parser.parse_args()
    total: dict[str, int] = {}
    part, parts = map(int, options.part.split("/"))
    for name in list(KINDS)[part::parts]:
        make = KINDS[name]
        if options.only not in name:
            continue
        counts: dict[str, int] = {}
        for seed in range(options.first, options.first + options.seeds):
            start = time.perf_counter()
            result, text, _ = verdict(make, seed)
            spent = time.perf_counter() - start
            key = {"none": "right", "silent": "right"}.get(result, result) if name in HARMLESS else result
            counts[key] = counts.get(key, 0) + 1
            total[key] = total.get(key, 0) + 1
            if options.v or key not in ("named", "right"):
                print(f"    {name} [{seed}] {key} {spent:.1f}s: {text[:230]}", flush=True)
        print(f"{name:36} {counts}", flush=True)
    print(total, len(KINDS), "kinds")


if __name__ == "__main__":
    main()
