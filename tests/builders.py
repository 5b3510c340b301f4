"""What tests of several parts share: nodes, neurons with parameters, judges, inputs, special values, and folders."""

import json
import math
import zlib
from functools import lru_cache

import numpy as np
import pytest

import mpsref as mps
from mpsref.activations import ACTIVATIONS, Activation, ActivationType
from mpsref.proof import judge

T = mps.MPSCNNNeuronType
F = mps.MPSImageFeatureChannelFormat
f32 = np.float32
inf, nan = float("inf"), float("nan")

# --- nodes --------------------


def image(handle=None, channel_format=F.none):
    node = mps.MPSNNImageNode(handle=handle)
    node.format = channel_format
    return node


def named(node, name):
    node.result_image.handle = name
    return node


# --- files --------------------


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


# --- neurons, judged --------------------

# By name of the neuron: parameters by position. The first set is the default.
CASES = {
    "none": [()],
    "reLU": [(), (0.1,), (-0.5,), (1e30,), (-1e-30,), (1.5,)],
    "linear": [(), (0.3, 7.1), (-1.5, 0.25), (1e-30, 1.00048828125), (1e30, -1e25), (0, -0.1)],
    "sigmoid": [()],
    "hardSigmoid": [(), (-0.7, 0.1), (0, 0.3), (1e-30, 1), (1e30, 0.5), (1 / 6, 0.5)],
    "tanH": [(), (1.7159, 0.6667), (-2.5, 0.3), (1.00146484375, 1), (1e-30, 1e30), (1.5, -1), (3, 0)],
    "absolute": [()],
    "softPlus": [(), (3, -0.7), (0.5, 2), (1, 1.00048828125), (-1e30, 1e-30), (1.5, 0), (1e-30, -1e30)],
    "softSign": [()],
    "ELU": [(), (0.1,), (-1.67,), (1.00146484375,), (1e30,), (0,)],
    "reLUN": [(), (0, 6), (0.1, -2), (-0.5, 20), (-1.5, -0.25), (1e30, 0.1), (2, 0)],
    "power": [
        (), (1, 0, 2), (1.5, 0.5, 1.7), (1, 0, -0.5), (1, 0.3, -2), (-0.3, 1, 0.5), (2, -1, 3), (1e-30, 1, 1.5),
        (1, 1e-30, 1.5), (0.1, 7.3, 0), (1, 0, -1), (1, 0, -2), (0, 2, 1.7), (1, 0, 2000), (-1, 1e-3, 1e-30),
    ],
    "exponential": [
        (), (0.5, 0.1, 2), (1, 0, 2), (1, -1, 10), (-2, 0.3, 0.3), (1e-30, 1, 1.00146484375), (0.5, 0, 9),
        (1, 0, 0.25), (1e30, -1, 2), (0, 3, 2), (1, 0, 1), (1, 0, 10),
    ],
    "logarithm": [
        (), (1, 1, 2), (0.3, 0.01, 10), (-1, 2, 0.3), (1e30, 1e-30, 2), (1, 1, -1), (1, 0, 8), (1e-30, 1, -1),
        (1, 1e-30, 0.5),
    ],
    "geLU": [()],
    "pReLU": [(0.1,), (-0.5,), (1e30,), (0,), (1.5,), (-1e-30,)],
}  # fmt: skip
# The same for the activations that are not Apple's.
OTHERS = {
    "silu": [(), (1.702,), (-0.7,), (0,), (1e30,), (1e-30,)],
    "quick_gelu": [(), (1,), (-1.702,), (0.3,), (1e30,), (1e-40,)],
    "gelu_tanh": [()],
    "mish": [()],
    "hardswish": [()],
    "hardsigmoid": [()],
    "selu": [(), (1.67326, 1.0507), (1.5, 1), (-0.3, 2.1), (0, 1.3), (1e30, -1e-30)],
    "celu": [(), (1.3,), (0.1,), (1.00390625,), (1e30,), (1e-30,)],
    "logsigmoid": [()],
    "softplus": [(), (3, 20), (1, 5), (0.3, -2), (1e30, 20), (1e-30, 1e-20)],
    "relu_squared": [()],
    "tanhshrink": [()],
    "softshrink": [(), (0,), (0.1,), (1e30,), (1e-30,), (2,)],
    "hardshrink": [(), (0,), (0.1,), (1e30,), (1e-30,), (2,)],
}
AWKWARD = {
    "reLU": (0.1,), "linear": (0.3, 7.1), "hardSigmoid": (-0.7, 0.1), "tanH": (1.7159, 0.6667), "softPlus": (3, -0.7),
    "ELU": (-1.67,), "reLUN": (-0.5, 20), "power": (1.5, 0.5, 1.7), "exponential": (-2, 0.3, 0.3),
    "logarithm": (0.3, 0.01, 10), "pReLU": (0.1,),
}  # fmt: skip
ALL = [(name, p) for name, sets in CASES.items() for p in sets]
TWO = [(name, p) for name, sets in CASES.items() for p in dict.fromkeys((sets[0], AWKWARD.get(name, sets[0])))]
DEFAULT = [(name, sets[0]) for name, sets in CASES.items()]
FORMS = ["forward", "derivative"]
BOTH = pytest.mark.parametrize("derivative", [False, True], ids=FORMS)


def cases(pairs, often=None):
    """Neurons and their parameters; those that are not among `often` are tried by slow tests."""
    return seldom(
        ("name", "p"), pairs, lambda pair: often is None or pair in often, lambda pair: f"{pair[0]}{list(pair[1])}"
    )


def seldom(names, values, is_often, name=str):
    """Parameters of a test, of which only some are tried by default."""
    slow = pytest.mark.slow
    parameters = [
        pytest.param(
            *(value if isinstance(names, tuple) else (value,)), marks=() if is_often(value) else slow, id=name(value)
        )
        for value in values
    ]
    return pytest.mark.parametrize(names, parameters)


def descriptor_of(name, p):
    if name == "pReLU":
        return mps.MPSNNNeuronDescriptor(T.pReLU, data=np.array(p, f32))
    if name in OTHERS:
        names = ACTIVATIONS[ActivationType[name]].parameters
        return Activation(name, **dict(zip(names, p, strict=False)))
    return mps.MPSNNNeuronDescriptor(T[name], *p)


@lru_cache
def judge_of(name, p):
    d = descriptor_of(name, p)
    return judge.Judge(name, *d.data.tolist()) if name == "pReLU" else judge.Judge(name, d.a, d.b, d.c)


def compute(name, p, x, derivative=False, upstream=None):
    d, shaped = descriptor_of(name, p), x[:, None]
    if upstream is None:
        upstream = np.ones_like(x)
    y = mps.neuron.gradient(d, shaped, upstream[:, None]) if derivative else mps.neuron.forward(d, shaped)
    return y[:, 0]


def seeded(*what):
    return np.random.default_rng(zlib.crc32(repr(what).encode()))


def report(j, x, got, want, wrong, upstream=None):
    """Where the first few are wrong."""
    shown = [
        f"x={float(x[i])!r}"
        + ("" if upstream is None else f" upstream={float(upstream[i])!r}")
        + f" got={got[i]!r} want={want[i]!r}"
        for i in np.flatnonzero(wrong)[:6]
    ]
    return f"{j}: {np.count_nonzero(wrong)} of {x.size} wrong: " + "; ".join(shown)


def assert_correctly_rounded(name, p, x, derivative, upstream=None):
    j, wide = judge_of(name, p), x.astype(np.float64)
    factor = None if upstream is None else upstream.astype(np.float64)
    near = j.float64s(wide, derivative, factor)
    want = j.rounded(wide, near, x.dtype, derivative, factor)
    got = compute(name, p, x, derivative, upstream)
    wrong = judge.differs(got, want, near)
    assert not wrong.any(), report(j, x, got, want, wrong, upstream)


HALF = np.arange(65_536, dtype=np.uint16).view(np.float16)
FINITE_HALF = HALF[np.isfinite(HALF)]


COUNT = 100_000


def around(values, steps):
    """float32 neighbours of some numbers, that many to each side and at growing distances."""
    found = []
    for value in values:
        if not math.isfinite(value) or abs(value) > 3e38:
            continue
        centre = np.int64(np.array(f32(abs(value))).view(np.int32))
        offsets = np.concatenate([np.arange(-steps, steps + 1), 2 ** np.arange(8, 29), -(2 ** np.arange(8, 29))])
        bits = np.clip(centre + offsets, 0, 0x7F7FFFFF).astype(np.int32)
        found.append(np.copysign(bits.view(f32), f32(value)))
    return np.concatenate(found)


def float32_inputs(name, p, count):
    """Random bit patterns, N(0, 3), and where something happens: kinks, ends of the domain, overflow, subnormals."""
    rng, d = seeded(name, p), descriptor_of(name, p)
    bits = rng.integers(0, 1 << 32, 3 * count // 10, dtype=np.uint32).view(f32)
    interesting = [0.0, 1.0, -1.0, 88.72, -87.33, -103.97, 104.0, 18.0, -18.0, 8.3, -0.7517915, 13.2, -13.2, 2.0**64]
    interesting += [-v for v in interesting] + list(d.row.kinks(d))
    if d.a and name in ("linear", "hardSigmoid", "power", "exponential", "logarithm"):
        # Where a x + b is 0, 1, and where the exponential overflows or vanishes.
        scale = 1.0 if d.c in (-1.0, 0.0) or d.c < 0 or name != "exponential" else math.log(d.c)
        interesting += [(u - d.b) / d.a for u in (0.0, 1.0, 88.72284 / (scale or 1), -103.97208 / (scale or 1))]
    if d.b and name in ("tanH", "softPlus"):
        interesting += [z / d.b for z in (88.72, -103.97, 9.01, -9.01, 17.3, -17.3, 37.4, -37.4)]
    subnormal = rng.integers(0, 1 << 23, count // 20, dtype=np.int32).view(f32)
    parts = [
        bits[np.isfinite(bits)],
        np.copysign(subnormal, rng.normal(size=subnormal.size).astype(f32)),
        around(interesting, 60),
        np.copysign(np.exp(rng.uniform(-60, 10, count // 10)), rng.normal(size=count // 10)).astype(f32),
    ]
    parts.append(rng.normal(0, 3, max(0, count - sum(map(len, parts)))).astype(f32))
    return np.concatenate(parts)[:count]


# --- special values --------------------


class Either:
    """A zero or an infinity whose sign the contract leaves open: the formula has limits of both signs there."""

    def __init__(self, size):
        self.size = size


Z, I = Either(0.0), Either(inf)  # noqa: E741
# What only the judge knows, being irrational.
J = None

# By hand: neuron, parameters, then the forward at -inf, inf, -0 and 0, then the slope there.
SPECIAL = [
    ("none", (), (-inf, inf, -0.0, 0.0), (1, 1, 1, 1)),
    ("reLU", (), (Z, inf, -0.0, 0.0), (Z, 1, 1, 1)),
    ("reLU", (0.5,), (-inf, inf, -0.0, 0.0), (0.5, 1, 1, 1)),
    ("reLU", (-0.5,), (inf, inf, -0.0, 0.0), (-0.5, 1, 1, 1)),
    ("pReLU", (0,), (Z, inf, -0.0, 0.0), (Z, 1, 1, 1)),
    ("pReLU", (-0.25,), (inf, inf, -0.0, 0.0), (-0.25, 1, 1, 1)),
    ("pReLU", (0.25,), (-inf, inf, -0.0, 0.0), (0.25, 1, 1, 1)),
    ("linear", (), (-inf, inf, Z, 0.0), (1, 1, 1, 1)),
    ("linear", (0, 2), (2, 2, 2, 2), (Z, Z, Z, Z)),
    ("linear", (-1.5, 0.5), (inf, -inf, 0.5, 0.5), (-1.5, -1.5, -1.5, -1.5)),
    ("sigmoid", (), (0.0, 1, 0.5, 0.5), (0.0, 0.0, 0.25, 0.25)),
    ("hardSigmoid", (), (0.0, 1, 0.5, 0.5), (Z, Z, J, J)),
    ("hardSigmoid", (-0.5, 0.25), (1, 0.0, 0.25, 0.25), (Z, Z, -0.5, -0.5)),
    ("hardSigmoid", (0, 0.75), (0.75, 0.75, 0.75, 0.75), (Z, Z, Z, Z)),
    ("hardSigmoid", (0, 2), (1, 1, 1, 1), (Z, Z, Z, Z)),
    ("hardSigmoid", (0, -2), (0.0, 0.0, 0.0, 0.0), (Z, Z, Z, Z)),
    ("hardSigmoid", (1, 0), (0.0, 1, 0.0, 0.0), (Z, Z, 1, 1)),
    ("tanH", (), (-1, 1, -0.0, 0.0), (0.0, 0.0, 1, 1)),
    ("tanH", (-2.5, 0.5), (2.5, -2.5, 0.0, -0.0), (-0.0, -0.0, -1.25, -1.25)),
    ("tanH", (-2.5, -0.5), (-2.5, 2.5, -0.0, 0.0), (0.0, 0.0, 1.25, 1.25)),
    ("tanH", (0, 3), (Z, Z, Z, Z), (Z, Z, Z, Z)),
    ("tanH", (3, 0), (Z, Z, Z, Z), (Z, Z, Z, Z)),
    ("absolute", (), (inf, inf, 0.0, 0.0), (-1, 1, Z, Z)),
    ("softPlus", (), (0.0, inf, J, J), (0.0, 1, 0.5, 0.5)),
    ("softPlus", (3, -0.5), (inf, 0.0, J, J), (-1.5, -0.0, -0.75, -0.75)),
    ("softPlus", (-1, 1), (-0.0, -inf, J, J), (-0.0, -1, -0.5, -0.5)),
    ("softPlus", (0, 1), (Z, Z, Z, Z), (Z, Z, Z, Z)),
    ("softPlus", (1, 0), (J, J, J, J), (Z, Z, Z, Z)),
    ("softSign", (), (-1, 1, -0.0, 0.0), (0.0, 0.0, 1, 1)),
    ("ELU", (), (-1, inf, -0.0, 0.0), (0.0, 1, 1, 1)),
    ("ELU", (-1.5,), (1.5, inf, -0.0, 0.0), (-0.0, 1, 1, 1)),
    ("ELU", (0,), (Z, inf, -0.0, 0.0), (Z, 1, 1, 1)),
    ("reLUN", (), (-inf, 6, -0.0, 0.0), (1, Z, 1, 1)),
    ("reLUN", (0, 6), (Z, 6, -0.0, 0.0), (Z, Z, 1, 1)),
    ("reLUN", (-0.5, 20), (20, 20, -0.0, 0.0), (Z, Z, 1, 1)),
    ("reLUN", (0.125, -2), (-inf, -2, -2, -2), (0.125, Z, Z, Z)),
    ("reLUN", (0, -2), (-2, -2, -2, -2), (Z, Z, Z, Z)),
    ("reLUN", (1, 0), (-inf, Z, Z, Z), (1, Z, Z, Z)),
    ("power", (), (-inf, inf, Z, 0.0), (1, 1, 1, 1)),
    ("power", (1, 0, 2), (inf, inf, 0.0, 0.0), (-inf, inf, Z, 0.0)),
    ("power", (1, 0, 3), (-inf, inf, Z, 0.0), (inf, inf, 0.0, 0.0)),
    ("power", (1, 0, -2), (0.0, 0.0, inf, inf), (0.0, -0.0, I, -inf)),
    ("power", (1, 0, -1), (-0.0, 0.0, I, inf), (-0.0, -0.0, -inf, -inf)),
    ("power", (1, 0, 0.5), (nan, inf, Z, 0.0), (nan, 0.0, I, inf)),
    ("power", (1, 0, -0.5), (nan, 0.0, I, inf), (nan, -0.0, I, -inf)),
    ("power", (-1, 0, 1.5), (inf, nan, Z, Z), (-inf, nan, Z, Z)),
    ("power", (1, 0, 0), (1, 1, 1, 1), (Z, Z, Z, Z)),
    ("power", (0, 2, 3), (8, 8, 8, 8), (Z, Z, Z, Z)),
    ("power", (0, -2, 0.5), (nan, nan, nan, nan), (nan, nan, nan, nan)),
    ("power", (1, 4, 0.5), (nan, inf, 2, 2), (nan, 0.0, 0.25, 0.25)),
    ("exponential", (), (0.0, inf, 1, 1), (0.0, inf, 1, 1)),
    ("exponential", (-1, 0, -1), (inf, 0.0, 1, 1), (-inf, -0.0, -1, -1)),
    ("exponential", (1, 0, 2), (0.0, inf, 1, 1), (0.0, inf, J, J)),
    ("exponential", (1, 0, 0.5), (inf, 0.0, 1, 1), (-inf, -0.0, J, J)),
    ("exponential", (0, 3, 2), (8, 8, 8, 8), (Z, Z, Z, Z)),
    ("exponential", (1, 0, 1), (1, 1, 1, 1), (Z, Z, Z, Z)),
    ("exponential", (1, 3, -2), (nan, nan, -8, -8), (nan, nan, nan, nan)),
    ("exponential", (1, 2, 0), (J, 0.0, 0.0, 0.0), (nan, Z, Z, Z)),
    ("logarithm", (), (nan, inf, -inf, -inf), (-0.0, 0.0, I, inf)),
    ("logarithm", (1, 1, 2), (nan, inf, Z, Z), (-0.0, 0.0, J, J)),
    ("logarithm", (1, 0, 0.5), (nan, -inf, inf, inf), (0.0, -0.0, I, -inf)),
    ("logarithm", (-1, 4, 2), (inf, nan, 2, 2), (-0.0, 0.0, J, J)),
    ("logarithm", (1, 2, 1), (nan, nan, nan, nan), (nan, nan, nan, nan)),
    ("logarithm", (1, 2, 0), (nan, nan, nan, nan), (nan, nan, nan, nan)),
    ("logarithm", (1, 2, -2), (nan, nan, nan, nan), (nan, nan, nan, nan)),
    ("geLU", (), (-0.0, inf, -0.0, 0.0), (-0.0, 1, 0.5, 0.5)),
]
SPECIAL_CASES = pytest.mark.parametrize(
    ("name", "p"), [row[:2] for row in SPECIAL], ids=[f"{n}{list(p)}" for n, p, *_ in SPECIAL]
)


# ---- pages in a browser ----


def texts(browser, selector):
    """The texts of some elements."""
    return browser.js(f"Array.from(document.querySelectorAll({json.dumps(selector)}), (e) => e.textContent)")


def enter(browser, field, text):
    browser.js(
        f"(() => {{ const f = document.getElementById({json.dumps(field)}); f.value = {json.dumps(text)}; "
        "f.dispatchEvent(new Event('input')); })()"
    )


def field_of(browser, label):
    """The id of the first number field with this label."""
    return browser.js(
        f"Array.from(document.querySelectorAll('label')).find((l) => l.textContent === {json.dumps(label)}).htmlFor"
    )


def parameter_sets(row):
    if row.per_channel:
        return [{"data": [slope]} for slope in (0.25, -0.7, 0.0, 3.0)]
    sets = [(1.5, 0.75, 2.0), (-0.7, 0.3, 0.5), (0.0, -1.25, 3.0), (2.5, 0.0, -2.0), (0.1, 10.0, 0.0), (1.0, 1.0, 1.0)]
    own = [{n: v for n, v in zip("abc", values, strict=True) if n in row.parameters} for values in sets]
    return [{}, *own] if row.parameters else [{}]
