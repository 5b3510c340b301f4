"""
What resembles a fault and is something else: for each hypothesis a plant that must not be given its name.

``python tests/near_misses.py`` prints what `mpsref.verify` says of each.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import plants
from plants import F16, F32, FORMULAS, SMOOTH, WITH_AB, Draw, Plant, bfloat16, half, slices


class Near(NamedTuple):
    """A plant: of which neurons, in which format, and what the device has instead of y, or of dx."""

    wrong: Callable[[Seen], Any]
    kinds: tuple[str, ...] = SMOOTH
    gradient: bool = False
    dtype: Any = None
    spread: float = 2.0
    shape: tuple[int, int, int, int] | None = None
    bounds: str | None = None
    whole: bool = False
    """Whether x is rounded to integers."""
    codes: bool = False
    """Whether images have unorm8 codes."""
    parameters: dict[str, float] = {}


class Seen(NamedTuple):
    """What a wrong result is made of: in float64, but for y, which is stored."""

    r: Draw
    name: str
    p: Any
    x: np.ndarray
    dy: Any
    y: np.ndarray

    def value(self, x: Any = None, **changed: float) -> Any:
        return FORMULAS[self.name][0](self.x if x is None else x, self.p.but(**changed))

    def slope(self, x: Any = None, **changed: float) -> Any:
        return FORMULAS[self.name][1](self.x if x is None else x, self.p.but(**changed))

    def shuffled(self) -> np.ndarray:
        """The result in a random order."""
        return self.r.rng.permutation(self.y.reshape(-1)).reshape(self.y.shape)

    def lane(self, k: int = 4) -> np.ndarray:
        """The result by slices of lanes."""
        return self.y.reshape(*self.y.shape[:3], -1, k)


def built(near: Near | Callable[[Draw], Plant], seed: int) -> Plant:
    """The plant."""
    if not isinstance(near, Near):
        return near(Draw(seed))
    r = Draw(seed, near.dtype)
    make = r.gradient if near.gradient else r.forward
    neuron, x, *_ = make(*near.kinds, spread=near.spread, shape=near.shape)
    for name, value in near.parameters.items():
        setattr(neuron[1], name, value)
    x = np.round(x) if near.whole else x
    if near.codes:
        codes = r.rng.integers(0, 256, x.shape).astype(np.uint8)
        y = r.value(neuron, codes / 255)
        y = np.clip(near.wrong(Seen(r, *neuron, codes / 255, None, y)), 0, 1)
        return Plant([neuron], False, {"x": codes, "y": np.rint(255 * y).astype(np.uint8)}, None)
    dy = r.rng.normal(0, 1, x.shape).astype(r.dtype)
    with np.errstate(all="ignore"):
        right = r.value(neuron, x) if not near.gradient else dy * r.slope(neuron, x)
        wide = x.astype(np.float64)
        wrong = near.wrong(Seen(r, *neuron, wide, dy.astype(np.float64), right.astype(r.dtype)))
        if near.gradient:
            return r.plant_gradient(neuron, x, dy, wrong, bounds=near.bounds)
        return r.plant(neuron, x, wrong, bounds=near.bounds)


def each_pixel(s: Seen, k: int = 4) -> np.ndarray:
    """Lanes in an order that differs from pixel to pixel."""
    return s.r.rng.permuted(s.lane(k), axis=-1).reshape(s.y.shape)


def with_nan(s: Seen, other: float) -> np.ndarray:
    """Not what the formula gives where the source is largest, as if NaN had been there."""
    return np.where(s.x > np.quantile(s.x, 0.9), other, s.y)


def noisy(values: Any, s: Seen, by: float = 0.05) -> np.ndarray:
    return values * (1 + s.r.rng.normal(0, by, s.y.shape))


def mantissa(values: Any, bits: int) -> np.ndarray:
    """Rounded to so many bits after the first."""
    m, e = np.frexp(np.asarray(values, np.float64))
    return np.ldexp(np.rint(m * 2.0 ** (bits + 1)) / 2.0 ** (bits + 1), e)


def between(s: Seen, axis: int) -> np.ndarray:
    """Half way between two neighbours."""
    return (s.y + np.roll(s.y, 1, axis)) / 2


def gelu_tanh(x: Any, k: float) -> Any:
    return x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + k * x**3)))


EIGHT, CHANNELS = (1, 12, 12, 8), (1, 16, 24, 12)
SLOPED = ("PReLU",)
NEAR: dict[str, Near | Callable[[Draw], Plant]] = {
    "the source is not recorded as it was read": plants.KINDS["overwritten_and_the_next_wrong_too noise"],
    # ---- memory and special values ----
    "never written": Near(lambda s: s.r.rng.normal(0, 1e-3, s.y.shape)),
    "NaN turned to 0": Near(
        lambda s: np.where(np.isnan(s.y), 1, s.y), ("Logarithm",), bounds="ulp=4", parameters={"b": -0.9}
    ),
    "the sign flipped": Near(lambda s: -s.y * 1.3),
    "the sign lost": Near(lambda s: np.where(s.r.rng.random(s.y.shape) < 0.5, -s.y, s.y), ("TanH", "SoftSign")),
    "infinity turned to NaN or a number": Near(
        lambda s: np.where(np.isinf(s.y), 1000, s.y), ("Exponential",), dtype=F16, spread=15.0, bounds="ulp=4"
    ),
    "subnormals flushed": Near(lambda s: np.where(np.abs(s.y) < 0.01, 0, s.y), ("Sigmoid",), spread=5.0),
    "NaN lost in a comparison": Near(lambda s: with_nan(s, 0), ("ReLU", "SoftPlus")),
    # ---- formulas ----
    "another slope at the kink": Near(
        lambda s: np.where(np.abs(s.x) <= 1, 0.7, s.slope()) * s.dy, ("ReLU",), gradient=True, whole=True
    ),
    "an approximation of geLU": Near(lambda s: gelu_tanh(s.x, 0.06), ("GeLU",)),
    "tanh by exponentials": Near(
        lambda s: np.where(np.abs(s.x) > 20, np.nan, s.y), ("TanH",), dtype=F32, spread=40.0, bounds="ulp=4"
    ),
    "tanh by exponentials, which cancel near 0": Near(
        lambda s: s.y + s.r.rng.normal(0, 5e-8, s.y.shape), ("TanH",), dtype=F32, shape=(1, 30, 30, 9)
    ),
    "sigmoid by a form that cancels": Near(
        lambda s: s.y + s.r.rng.normal(0, 5e-8, s.y.shape), ("Sigmoid",), dtype=F32, spread=4.0
    ),
    "pow of a negative base": Near(
        lambda s: np.where(s.p.a * s.x + s.p.b < 1.5, np.nan, s.y), ("Power",), dtype=F32, bounds="ulp=4"
    ),
    "pow of the magnitude": Near(
        lambda s: np.abs(np.abs(s.p.a * s.x + s.p.b) ** 3 - 0.5), ("Power",), whole=True, parameters={"c": 3.0}
    ),
    "both branches blended": Near(
        lambda s: np.where(s.x > 5, np.nan, s.y), ("ELU",), gradient=True, spread=5.0, bounds="ulp=4"
    ),
    "sigmoid as 1 - s(-x)": Near(lambda s: np.where(s.x < -2, 0, s.y), ("Sigmoid",), dtype=F16, spread=4.0),
    "softSign's slope as a difference": Near(
        lambda s: s.dy * np.where(np.abs(s.x) > 20, 0, s.slope()), ("SoftSign",), dtype=F16, spread=15.0, gradient=True
    ),
    "the literal formula overflows": Near(
        lambda s: np.where(s.x > 20, np.inf, s.y), ("SoftPlus",), dtype=F32, spread=12.0, parameters={"b": 0.5}
    ),
    "lost beside 1 in half": Near(lambda s: np.where(s.x < -6.5, 0, s.y), ("Sigmoid",), dtype=F16, spread=5.0),
    "computed in half": Near(
        lambda s: np.where(s.x < -5, 0, s.y), ("SoftPlus",), dtype=F16, spread=5.0, bounds="ulp=4"
    ),
    "computed in bfloat16": Near(lambda s: bfloat16(0.98 * np.arctan(s.x)), ("GeLU", "ELU", "SoftPlus"), dtype=F32),
    "c = -1 taken literally": Near(
        lambda s: np.where(s.x % 2 == 0, 1, -2), ("Exponential",), whole=True, parameters={"a": 1, "b": 0, "c": -1}
    ),
    "hardSigmoid's gradient tests x": Near(
        lambda s: np.where((s.x >= -0.5) & (s.x <= 1.5), s.dy * s.p.a, 0), ("HardSigmoid",), gradient=True
    ),
    "reLUN's slope is b": Near(
        lambda s: np.where(s.x >= s.p.b, s.dy * s.p.b * 1.1, s.y), ("ReLUN",), gradient=True, spread=3.0
    ),
    "geLU's second gradient term doubled": Near(
        lambda s: s.dy * (s.slope() + s.x * np.exp(-s.x * s.x / 2) / 2), ("GeLU",), gradient=True
    ),
    "a term of the slope is missing": Near(lambda s: s.dy * np.where(s.x < 0, 0, 1), ("GeLU",), gradient=True),
    "ELU without parentheses": Near(lambda s: np.where(s.x < 0, s.p.a * np.exp(s.x) - 0.8, s.x), ("ELU",)),
    "the exponent is not lowered": Near(
        lambda s: s.dy * s.p.a * s.p.c * (s.p.a * s.x + s.p.b) ** (s.p.c - 0.5), ("Power",), gradient=True
    ),
    "base 2 instead of e": Near(lambda s: s.value(c=2.2), ("Exponential", "Logarithm"), parameters={"c": -1.0}),
    "base e instead of 2": Near(lambda s: s.value(c=2.5), ("Exponential", "Logarithm"), parameters={"c": 2.0}),
    "erf by a polynomial": Near(lambda s: s.y + 2e-5 * np.sin(9 * s.x), ("GeLU",), dtype=F32, shape=(1, 20, 20, 12)),
    "the formula in float32": Near(lambda s: noisy(s.y, s, 1e-5), dtype=F32),
    # ---- gradients ----
    "the incoming gradient is missing": Near(lambda s: s.slope() * np.abs(s.dy), gradient=True),
    "the incoming gradient applied twice": Near(lambda s: s.slope() * s.dy**3, gradient=True),
    "the gradient's sources exchanged": Near(lambda s: s.slope(s.dy) * s.dy, gradient=True),
    "forward instead of gradient": Near(lambda s: noisy(s.value(), s), gradient=True),
    "the derivative taken at the output": Near(
        lambda s: s.slope(s.value() / 2) * s.dy, ("TanH", "SoftPlus"), gradient=True
    ),
    "the slope from the stored result": Near(
        lambda s: s.dy * (q := mantissa(s.value(), 6)) * (1 - q), ("Sigmoid",), gradient=True, dtype=F16, spread=4.0
    ),
    "a comparison or a clamp is missing": Near(
        lambda s: np.where(s.r.rng.random(s.x.shape) < 0.5, s.y, s.p.a * s.x), ("ReLU",)
    ),
    "parameters in other places of the formula": Near(
        lambda s: (s.p.a * s.x) ** s.p.c + 0.7 * s.p.b, ("Power",), parameters={"a": 0.8}
    ),
    "a rough approximation": Near(
        lambda s: s.p.a * np.clip((z := s.p.b * s.x) * (27 + z * z) / (27 + 8 * z * z), -1, 1), ("TanH",)
    ),
    "the limit instead of the function": Near(
        lambda s: np.where(s.p.b * s.x > 1.5, 1.05 * s.p.a * s.p.b * s.x, s.y), ("SoftPlus",)
    ),
    "a look-up table": Near(
        lambda s: np.interp(s.x, n := np.sort(s.r.rng.uniform(-9, 9, 60)), s.value(n)), ("Sigmoid", "TanH", "SoftPlus")
    ),
    # ---- what was run ----
    "the node was left out": Near(lambda s: noisy(s.x, s)),
    "applied twice": Near(lambda s: s.value(s.value(s.value())), ("Sigmoid", "TanH", "SoftPlus")),
    "accumulated twice": Near(lambda s: s.y + 1.3 * s.x),
    "another neuron": Near(lambda s: s.x / (1 + 0.8 * np.abs(s.x)), ("SoftSign", "TanH")),
    "a constant factor": Near(lambda s: s.y * 0.773),
    "the source scaled": Near(lambda s: s.value(1.7 * s.x), ("Sigmoid", "SoftPlus", "ELU")),
    "a source multiplied by a number": Near(lambda s: s.value(np.where(s.x > 0, 1.7, 1.3) * s.x), ("Sigmoid", "GeLU")),
    "a number added to a source": Near(lambda s: s.value(s.x + 0.3 * np.sin(5 * s.x)), ("Sigmoid", "GeLU")),
    "multiplied by a number": Near(lambda s: s.y * (1.3 + 0.1 * np.sin(s.x))),
    "a number added": Near(lambda s: s.y + 0.2 + 0.1 * np.sin(3 * s.x)),
    "multiplied by a number, and another added": Near(lambda s: 0.7 * s.y + 0.3 + 0.05 * np.sin(3 * s.x)),
    "another function": Near(lambda s: np.arcsinh(s.x)),
    "another image of the graph": Near(lambda s: noisy(s.value(), s), gradient=True),
    "another image of the graph is read": Near(lambda s: s.slope(noisy(s.value(), s, 0.2)) * s.dy, gradient=True),
    "signs or scales of the addition": Near(lambda s: s.y + 0.5 * s.x),
    # ---- parameters ----
    "parameters swapped": Near(lambda s: s.value(a=s.p.b, b=s.p.a * 1.2), WITH_AB),
    "parameters of another node": Near(lambda s: s.value(a=s.p.a * 1.2, b=s.p.b * 0.7), WITH_AB),
    "a parameter left out": Near(lambda s: s.value(b=s.p.b * 0.6), ("Linear",)),
    "a parameter at its default": Near(lambda s: s.value(b=1.25), WITH_AB, parameters={"b": 0.8}),
    "the sign of a parameter lost": Near(lambda s: s.value(a=-s.p.a * 1.5), ("ReLU",)),
    "parameters rounded to half": Near(
        lambda s: s.value(b=float(mantissa(s.p.b, 8))), WITH_AB, dtype=F32, parameters={"b": 0.7135}
    ),
    "parameters rounded to bfloat16": Near(
        lambda s: s.value(b=float(mantissa(s.p.b, 5))), WITH_AB, dtype=F32, parameters={"b": 0.7135}
    ),
    "the slope of another channel": Near(
        lambda s: s.value(data=s.r.rng.uniform(-0.9, 0.9, s.p.data.shape)), SLOPED, shape=EIGHT
    ),
    "slopes along another axis": Near(
        lambda s: s.value(data=s.r.rng.choice(s.p.data, s.x.shape)), SLOPED, shape=(1, 8, 8, 8)
    ),
    "half slopes read as float": Near(
        lambda s: s.value(data=s.r.rng.normal(0, 2, s.p.data.shape)), SLOPED, shape=EIGHT
    ),
    # ---- precision and formats ----
    "stored through half": Near(lambda s: mantissa(s.y, 9), dtype=F32),
    "stored through tf32": Near(lambda s: mantissa(s.y, 9), dtype=F32),
    "stored through bfloat16": Near(lambda s: mantissa(s.y, 6), dtype=F32),
    "stored through unorm8": Near(lambda s: np.rint(np.clip(s.y, 0, 1) * 127) / 127),
    "read through half": Near(lambda s: s.value(mantissa(s.x, 9)), ("SoftPlus", "TanH"), dtype=F32),
    "read through tf32": Near(lambda s: s.value(mantissa(s.x, 8)), ("SoftPlus", "TanH"), dtype=F32),
    "read through bfloat16": Near(lambda s: s.value(mantissa(s.x, 6)), ("SoftPlus", "TanH"), dtype=F32),
    "read through unorm8": Near(lambda s: s.value(np.rint(np.clip(s.x, 0, 1) * 127) / 127), ("SoftPlus", "TanH")),
    "a source clamped": Near(lambda s: s.value(2 * np.tanh(s.x / 2)), ("SoftPlus", "Sigmoid"), spread=4.0),
    "clamped": Near(lambda s: np.tanh(s.y), ("GeLU", "SoftPlus"), spread=4.0),
    "sRGB instead of linear": Near(lambda s: np.clip(s.y, 0, 1) ** (1 / 1.8), ("Sigmoid",)),
    "another value of a parameter": Near(
        lambda s: np.where(s.x > 0, s.value(b=1.3 * s.p.b), s.value(b=0.7 * s.p.b)), WITH_AB
    ),
    "other values of two parameters": Near(
        lambda s: s.value(a=1.3 * s.p.a, b=0.7 * s.p.b) * (1 + 0.02 * np.sin(7 * s.x)), WITH_AB
    ),
    "the result in steps": Near(lambda s: np.rint(s.y * 16 + s.r.rng.uniform(-2, 2, s.y.shape)) / 16),
    "another code of the value": Near(lambda s: s.y ** (1 / 2), ("Sigmoid", "SoftSign"), codes=True),
    "rounded to 8 bits": Near(lambda s: mantissa(s.y, 4), ("Sigmoid", "SoftPlus", "ELU")),
    "clamped to 0 and 1": Near(lambda s: np.clip(s.y, -0.1, 0.9), ("GeLU", "TanH", "SoftPlus"), spread=4.0),
    "clamped to 65504": Near(lambda s: np.clip(s.y, -60000, 60000), ("Linear",), dtype=F32, spread=60_000.0),
    "off by the same number of ULP": Near(
        lambda s: (s.y.view(f"i{s.y.itemsize}") + s.r.rng.integers(3, 7, s.y.shape, f"i{s.y.itemsize}")).view(s.y.dtype)
    ),
    "truncated instead of rounded": Near(
        lambda s: np.trunc(s.y.astype(np.float64) * 256) / 256, dtype=F16, bounds="exact"
    ),
    "the bytes in the other order": Near(
        lambda s: s.y.view(np.uint16).reshape(-1, 2)[:, ::-1].copy().view(s.y.dtype).reshape(s.y.shape), dtype=F32
    ),
    "float32 taken for half": Near(
        lambda s: s.shuffled().astype(F32).view(F16).reshape(-1)[: s.y.size].reshape(s.y.shape), dtype=F16
    ),
    "bfloat16 taken for half": Near(
        lambda s: (bfloat16(s.shuffled()).view(np.uint32) >> 16).astype(np.uint16).view(F16), dtype=F16
    ),
    "half taken for float32": Near(
        lambda s: np.resize(half(s.shuffled()).astype(F16).view(F32), s.y.shape), dtype=F32, shape=EIGHT
    ),
    "colours multiplied by alpha": Near(lambda s: s.y * s.y[..., ::-1], shape=EIGHT),
    # ---- places ----
    "lanes permuted": Near(each_pixel, shape=EIGHT),
    "pixel-major and channel-major confused": Near(lambda s: s.r.rng.permuted(s.y, axis=-1), shape=CHANNELS),
    "texture slices taken for pixels": Near(
        lambda s: s.lane(2).transpose(0, 3, 1, 2, 4).reshape(s.y.shape), shape=EIGHT
    ),
    "channel-major and texture slices confused": Near(
        lambda s: slices(s.shuffled()).reshape(s.y.shape), shape=EIGHT
    ),
    "padding lanes counted as channels": Near(
        lambda s: np.pad(s.y, [(0, 0)] * 3 + [(0, 1)]).reshape(1, -1)[:, : s.y.size].reshape(s.y.shape),
        shape=(1, 9, 11, 6),
    ),
    "rows and columns swapped": Near(lambda s: s.y[:, (5 * np.arange(16) + 3) % 16], shape=CHANNELS),
    "tiles transposed": Near(
        lambda s: s.r.rng.permuted(s.y.reshape(1, 2, 8, 3, 8, 12), axis=2).reshape(s.y.shape), shape=CHANNELS
    ),
    "channels mapped otherwise": Near(lambda s: s.r.rng.permuted(s.y, axis=-1), shape=CHANNELS),
    "another image of the batch": Near(lambda s: np.broadcast_to(s.y.mean(axis=0), s.y.shape), shape=(3, 8, 7, 5)),
    "axes in another order": Near(lambda s: s.shuffled(), shape=(3, 8, 6, 5)),
    "one pixel for several": Near(lambda s: s.y[:, np.arange(16) // 3 * 3], shape=CHANNELS),
    "neighbouring pixels exchanged": Near(lambda s: s.y[:, :, np.arange(24) ^ 3], shape=CHANNELS),
    "neighbouring pixels averaged": Near(lambda s: 0.7 * s.y + 0.3 * np.roll(s.y, 1, 2), shape=CHANNELS),
    "summed over an axis": Near(lambda s: np.broadcast_to(1.1 * s.y.sum(0), s.y.shape), shape=(3, 8, 7, 5)),
    "shifted": Near(lambda s: between(s, 2), shape=CHANNELS),
    "wrong row stride": Near(lambda s: s.y[:, (5 * np.arange(16) + 3) % 16], shape=CHANNELS),
    "wrong offset": Near(lambda s: between(s, 3), shape=CHANNELS),
    "an index of 16 bits": Near(
        lambda s: s.y.reshape(-1)[np.arange(s.y.size) % 60_000].reshape(s.y.shape), shape=(1, 72, 80, 12)
    ),
}  # fmt: skip


def said(name: str, seed: int) -> list[Any]:
    """What is said of the near miss of a hypothesis: the findings of its failing images."""
    report = plants.reported(built(NEAR[name], seed))
    return [finding for image in report.images for finding in image.findings]


def claims(name: str, seed: int) -> list[str]:
    """The findings that give it the name of the hypothesis, alone or with another."""
    return [f.headline for f in said(name, seed) if f" and {name} and " in f" and {f.name} and "]


def main() -> None:
    for name in NEAR:
        for seed in map(int, sys.argv[1:] or ["1"]):
            findings = said(name, seed)
            mark = "CLAIMED" if claims(name, seed) else ""
            print(f"{mark:8}{name:42} {'; '.join(f.headline for f in findings) or 'passes'}"[:260], flush=True)


if __name__ == "__main__":
    main()
