"""
A device that keeps a model's promises and no more: values, not ranges, with an error in every operation.

It evaluates the listed forms of the formulas in the arithmetic of `Device`: each operation is as far from the exact
result as its law allows, or anywhere in between; products are multiplied in any order and may be fused with sums;
subnormals are flushed never, always or sometimes.
"""

from __future__ import annotations

from types import SimpleNamespace

import ml_dtypes
import numpy as np
from scipy.special import erf

import mpsref as mps
from mpsref.verify.forms import ALTERNATIVES

T = mps.MPSCNNNeuronType
NEVER, SOMETIMES, ALWAYS = 0.0, 0.5, 1.0

EACH, CHANNELS = 4096, 16
"""Elements of a device, and how many of them a slope of pReLU has."""


def two_sum(a, b):
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


class Device:
    """The `Arithmetic` of the rows; `overflowed` is where finite operands gave an infinity or NaN, but for poles."""

    def __init__(self, model, rng, size, *, error="random", flush=SOMETIMES, times=None):
        self.model, self.rng, self.size, self.error = model, rng, size, error
        self.flush = flush if model.flushes else NEVER
        # With these, only the operations named here err: so many times as far as their law allows.
        self.times = times
        self.overflowed = np.zeros(size, bool)
        self.dtype = model.storage.dtype
        self.limits = ml_dtypes.finfo(self.dtype)
        self.smallest = float(self.limits.smallest_normal)

    # ---- numbers ----

    def number(self, value):
        if isinstance(value, Number):
            return value
        wide = np.asarray(value, np.float64)
        near = self.rounded(wide)
        self.overflowed |= np.isfinite(wide) & ~np.isfinite(near)
        return Number(self, np.broadcast_to(near, (self.size,)))

    def rounded(self, exact):
        return self.narrow(exact).astype(np.float64)

    def narrow(self, exact):
        """The nearest numbers of the format."""
        if self.dtype.kind != "V":
            return exact.astype(self.dtype)
        # bfloat16 is reached by way of float32, which is rounded to odd so that the second rounding is the only one.
        single = exact.astype(np.float32)
        single = np.where(np.abs(single) > np.abs(exact), np.nextafter(single, np.float32(0)), single)
        odd = (single != exact) & np.isfinite(exact)
        return (single.view(np.uint32) | odd).view(np.float32).astype(self.dtype)

    def stored(self, value, storage):
        """What an image keeps: the nearest number, or either neighbour."""
        near = storage.encode(value, np.empty(value.shape, storage.dtype))
        if not self.model.rounds_either_way or storage.dtype == self.dtype:
            return near
        towards = np.where(near < value, np.inf, -np.inf).astype(storage.dtype)
        other = (near != value) & (self.rng.random(value.shape) < 0.5)
        return np.where(other & np.isfinite(value), np.nextafter(near, towards), near)

    def flushed(self, value):
        if not self.flush:
            return value
        gone = (np.abs(value) < self.smallest) & (self.rng.random(value.shape) < self.flush)
        return np.where(gone, np.copysign(0.0, self.rng.random(value.shape) - 0.5), value)

    def finish(self, value, *operands, pole=False):
        """The result of an operation, and whether it overflowed."""
        finite = np.logical_and.reduce([np.isfinite(operand) for operand in operands])
        self.overflowed |= finite & ~np.isfinite(value) & ~np.asarray(pole)
        return self.flushed(value)

    def nearest(self, exact, rest):
        """Exact sums and products, as a float64 and what it lacks, rounded once to nearest."""
        # To odd first, so that the second rounding is that of the exact value.
        bits = exact.view(np.int64) if exact.flags.c_contiguous else np.ascontiguousarray(exact).view(np.int64)
        odd = (rest != 0) & np.isfinite(exact) & np.isfinite(rest) & (bits & 1 == 0)
        step = np.where((rest > 0) == (exact > 0), 1, -1)
        value = np.where(odd, bits + step, bits).view(np.float64)
        if self.times is not None and "arithmetic" in self.times:
            return self.off("arithmetic", value)
        half = self.rounded(value)
        if self.model.laws["arithmetic"].ulp == 0.5:
            return half
        away = np.nextafter(half.astype(self.dtype), np.where(half < value, np.inf, -np.inf).astype(self.dtype))
        either = (half != value) & (self.rng.random(half.shape) < 0.5)
        return np.where(either, away.astype(float), half)

    def off(self, name, exact, units=None):
        """An exact result with an error of at most the law's."""
        law = self.model.laws.get(name) or self.model.others[name]
        if law.absolute:
            return self.towards(exact, np.full(exact.shape, law.absolute * self.factor(name)))
        if (units is None and law.ulp == 0.5 and self.times is None) or self.is_exact(name):
            return self.rounded(exact)
        units = (law.ulp if units is None else units) * self.factor(name)
        precision = self.model.storage.precision
        mantissa, exponent = np.frexp(exact)
        exponent = np.where(np.abs(mantissa) == 0.5, exponent - 1, exponent)
        least = int(np.log2(float(self.limits.smallest_subnormal)))
        ulp = np.ldexp(1.0, np.maximum(exponent - precision, least))
        return self.towards(exact, units * ulp)

    def is_exact(self, name):
        return self.times is not None and name not in self.times

    def factor(self, name):
        return 1.0 if self.times is None else self.times.get(name, 0.0)

    def towards(self, exact, most):
        share = {
            "random": lambda: self.rng.uniform(-1, 1, exact.shape),
            "extreme": lambda: self.rng.choice([-1.0, 1.0], exact.shape),
            "high": lambda: np.ones(exact.shape),
            "low": lambda: -np.ones(exact.shape),
            "exact": lambda: np.zeros(exact.shape),
        }[self.error]()
        wanted = exact + share * most * (1 - 1e-9)
        near = self.narrow(wanted)
        # Not farther from the exact value than wanted.
        outside = np.abs(near.astype(float) - exact) > np.abs(wanted - exact)
        inner = np.nextafter(near, self.narrow(exact))
        value = np.where(outside & np.isfinite(near), inner, near).astype(float)
        value = np.where(np.isfinite(exact) & (exact != 0) & np.isfinite(wanted), value, exact)
        return np.where(np.abs(exact) > float(self.limits.max) * (1 + 2.0**-25), np.copysign(np.inf, exact), value)

    # ---- operations on plain numbers ----

    def times_(self, x, y):
        x, y = self.flushed(x), self.flushed(y)
        return self.finish(self.nearest(x * y, np.zeros_like(x)), x, y)

    def over(self, x, y, kind):
        x, y = self.flushed(x), self.flushed(y)
        law = self.model.laws[kind]
        quotient = x / y
        value = self.off(kind, quotient)
        if law.ulp != 0.5 and self.times is None:
            far = (np.abs(y) > 1 / self.smallest) & np.isfinite(y) & (self.rng.random(y.shape) < 0.5)
            value = np.where(far & np.isfinite(x), 0.0, value)
        return self.finish(value, x, y, pole=y == 0)

    def plus(self, x, y):
        """A sum; where one operand is a product not yet multiplied out, perhaps fused with it."""
        if self.rng.random() < 0.5:
            x, y = y, x
        if isinstance(x, Product) and not x.divisors and self.rng.random() < 0.5:
            a, b = x.pair()
            c = y.value
            a, b, c = self.flushed(a), self.flushed(b), self.flushed(c)
            value = self.nearest(*two_sum(a * b, c))
            return Number(self, self.finish(value, a, b, c))
        a, b = self.flushed(x.value), self.flushed(y.value)
        return Number(self, self.finish(self.nearest(*two_sum(a, b)), a, b))

    # ---- the functions of `Arithmetic` ----

    def fma(self, a, b, c):
        return self.number(a) * b + c

    def square(self, x):
        return Number(self, self.times_(x.value, x.value))

    def _function(self, name, x, function, units=None, pole=False):
        x = self.flushed(x)
        return self.finish(self.off(name, function(x), units), x, pole=pole)

    def _exponential(self, name, x, function):
        law = self.model.laws[name]
        x = self.flushed(x)
        growth = law.growth * np.fmin(np.abs(x), 1e6)
        units = law.ulp + (np.floor(growth) if law.whole else growth)
        exact = np.where(np.isfinite(x), np.maximum(function(x), 5e-324), function(x))
        return self.finish(np.maximum(self.off(name, exact, units), 0.0), x)

    def exp(self, x):
        return Number(self, self._exponential("exp", x.value, np.exp))

    def _logarithm(self, name, x, function):
        law = self.model.laws[name]
        x = self.flushed(x)
        exact = function(x)
        value = self.off(name, exact)
        if law.near_one and not self.is_exact(name):
            near = (x >= 0.5) & (x <= 2)
            value = np.where(near, self.towards(exact, np.full(x.shape, law.near_one * self.factor(name))), value)
        return self.finish(value, x, pole=x <= 0)

    def log(self, x):
        return Number(self, self._logarithm("log", self.number(x).value, np.log))

    def tanh(self, x):
        by_exp = "tanh" not in self.model.laws or self.model.others.get("tanh", 1) is None
        if by_exp and ("tanh" not in self.model.others or self.rng.random() < 0.5):
            if self.model.tanh_is_sinh_by_cosh:
                rising, falling = self.exp(x), self.exp(-x)
                return (rising - falling) * 0.5 / ((rising + falling) * 0.5)
            t = self.exp(2 * x)
            return (t - 1) / (t + 1)
        return Number(self, self._function("tanh", x.value, np.tanh))

    def erf(self, x):
        return Number(self, self._function("erf", x.value, erf))

    def expm1(self, x):
        return Number(self, self._function("expm1", x.value, np.expm1))

    def log1p(self, x):
        return Number(self, self._function("log1p", x.value, np.log1p))

    def pow(self, base, exponent):
        x, y = self.number(base).value, self.number(exponent).value
        x, y = self.flushed(x), self.flushed(y)
        choices = [self.model.laws.get("pow", 0)] + ([self.model.others["pow"]] if "pow" in self.model.others else [])
        law = choices[self.rng.integers(len(choices))]
        size = np.abs(x)
        if law:
            value = np.maximum(self.off("pow", np.power(size, y), law.ulp), 0.0)
            value = self.finish(value, size, y, pole=size == 0)
        else:
            self.overflowed |= (size == 0) & (y == 0)
            power = self.times_(y, self._logarithm("log2", size, np.log2))
            value = self._exponential("exp2", power, np.exp2)
        whole = np.floor(y) == y
        odd = whole & (np.mod(y, 2) == 1)
        value = np.where((x < 0) & odd, -value, value)
        return Number(self, np.where((x < 0) & ~whole, np.nan, value))

    def min(self, x, y):
        return Number(self, np.fmin(self.flushed(x.value), self.number(y).value))

    def max(self, x, y):
        return Number(self, np.fmax(self.flushed(x.value), self.number(y).value))

    def where(self, condition, x, y):
        return Number(self, np.where(condition, self.number(x).value, self.number(y).value))


class Number:
    """Numbers of the format, one per element, as float64."""

    __array_ufunc__ = None

    def __init__(self, device, value):
        self.device, self._value = device, value

    @property
    def value(self):
        return self._value

    @property
    def factors(self):
        return [self._value], []

    def __neg__(self):
        return Number(self.device, -self.value)

    def __abs__(self):
        x = self.value
        if self.device.rng.random() < 0.5:
            return Number(self.device, np.abs(x))
        return Number(self.device, np.where(self.device.flushed(x) < 0, -x, x))

    def __add__(self, other):
        return self.device.plus(self, self.device.number(other))

    __radd__ = __add__

    def __sub__(self, other):
        other = self.device.number(other)
        return self + (other.negative() if isinstance(other, Product) else -other)

    def __rsub__(self, other):
        return self.device.number(other) - self

    def __mul__(self, other):
        mine, theirs = self.factors, self.device.number(other).factors
        return Product(self.device, mine[0] + theirs[0], mine[1] + theirs[1])

    __rmul__ = __mul__

    def __truediv__(self, other, kind="division"):
        numerators, divisors = self.factors
        return Product(self.device, numerators, [*divisors, (self.device.number(other).value, kind)])

    def __rtruediv__(self, other):
        return self.device.number(other).__truediv__(self, "reciprocal" if other == 1 else "division")

    def _compared(self, other, operation):
        return operation(self.device.flushed(self.value), self.device.flushed(self.device.number(other).value))

    def __lt__(self, other):
        return self._compared(other, np.less)

    def __le__(self, other):
        return self._compared(other, np.less_equal)

    def __gt__(self, other):
        return self._compared(other, np.greater)

    def __ge__(self, other):
        return self._compared(other, np.greater_equal)

    def __eq__(self, other):
        return bool((self.value == other).all())

    __hash__ = None


class Product(Number):
    """A product of numerators and divisors, multiplied when it is needed, in any order."""

    def __init__(self, device, numerators, divisors):
        self.device, self.numerators, self.divisors = device, numerators, divisors
        self._known = None

    @property
    def factors(self):
        return list(self.numerators), list(self.divisors)

    def negative(self):
        return Product(self.device, [-self.numerators[0], *self.numerators[1:]], self.divisors)

    def _reduced(self, until):
        d, numerators, divisors = self.device, list(self.numerators), list(self.divisors)
        while divisors or len(numerators) > until:
            i = d.rng.integers(len(numerators))
            first = numerators.pop(i)
            if divisors and (not numerators or d.rng.random() < 0.5):
                divisor, kind = divisors.pop(d.rng.integers(len(divisors)))
                is_one = bool((np.abs(first) == 1).all())
                numerators.append(d.over(first, divisor, kind if is_one else "division"))
            elif numerators:
                numerators.append(d.times_(first, numerators.pop(d.rng.integers(len(numerators)))))
            else:
                numerators.append(first)
        return numerators

    @property
    def value(self):
        if self._known is None:
            (self._known,) = self._reduced(1)
        return self._known

    def pair(self):
        return self._reduced(2)


def forms_of(descriptor, direction):
    """The row's own form, and those listed."""
    row = descriptor.row
    own = row.stepwise_forward if direction == "forward" else row.stepwise_derivative
    return [own, *(other.formula for other in ALTERNATIVES.get((descriptor.neuron_type, direction), ()))]


def evaluated(device, descriptor, x, upstream=None, form=None):
    """What the device computes for some elements, before it stores them: by one of the forms."""
    forms = forms_of(descriptor, "forward" if upstream is None else "gradient")
    form = form or forms[device.rng.integers(len(forms))]
    data = None if descriptor.data is None else device.number(descriptor.data[np.arange(x.size) % descriptor.data.size])
    p = SimpleNamespace(**{name: device.number(getattr(descriptor, name)) for name in "abc"}, data=data)
    with np.errstate(all="ignore"):
        value = device.number(form(device.number(x.astype(float)), p, device))
        if upstream is not None:
            value = value * device.number(upstream.astype(float))
        return value.value


def random_descriptor(neuron_type, rng):
    """Parameters of ordinary and of extreme size, and those at which a formula is special."""

    def number():
        value = rng.uniform(-3, 3) if rng.random() < 0.6 else 10 ** rng.uniform(-3, 3) * rng.choice([-1, 1])
        return float(np.float32(value))

    if mps.NEURONS[neuron_type].per_channel:
        return mps.MPSNNNeuronDescriptor(neuron_type, data=rng.uniform(-2, 2, CHANNELS))
    parameters = {name: number() for name in mps.NEURONS[neuron_type].parameters}
    if neuron_type is T.power:
        parameters["c"] = float(rng.choice([-3, -2, -1, -0.5, 0, 0.5, 1, 2, 3, 1 + 2.0**-23, 1e-9, rng.uniform(-3, 3)]))
    if neuron_type is T.exponential:
        parameters["b"] = float(rng.integers(-3, 3)) if rng.random() < 0.3 else parameters["b"]
        parameters["c"] = float(rng.choice([-1, 2, 10, 0.3, -2, -0.5, 1, rng.uniform(0.1, 12)]))
    if neuron_type is T.logarithm:
        parameters["c"] = float(rng.choice([-1, 2, 10, 0.3, rng.uniform(0.1, 12)]))
    return mps.MPSNNNeuronDescriptor(neuron_type, **parameters)


def random_inputs(d, rng, dtype):
    """Ordinary, huge and subnormal numbers, small integers, and the neighbours of kinks, poles and limits of e^x."""
    kind = rng.integers(0, 6, EACH)
    extremes = 10.0 ** (rng.uniform(-45, 38.5, EACH) if dtype == np.float32 else rng.uniform(-7.5, 4.8, EACH))
    special = [0.0, *d.row.kinks(d), *((-d.b / d.a, (1 - d.b) / d.a) if d.a else ())]
    special += [limit / d.b for limit in (88, -88, 44, 11)] if d.b else []
    special = [x for x in special if abs(x) < 1e38]
    near = np.array(special)[rng.integers(0, len(special), EACH)]
    epsilon = float(np.finfo(dtype).eps)
    with np.errstate(over="ignore"):
        x = np.select(
            [kind == 0, kind == 1, kind == 2, kind == 3],
            [
                extremes * rng.choice([-1, 1], EACH),
                rng.uniform(-100, 100, EACH),
                near * (1 + rng.integers(-4, 5, EACH) * epsilon),
                rng.integers(-8, 9, EACH) / 2,
            ],
            rng.uniform(-8, 8, EACH),
        ).astype(dtype)
    return np.where(np.isfinite(x), x, dtype.type(1))
