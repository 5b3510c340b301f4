"""
The rows' formulas with another library or arithmetic: each function computed in another way, in any floating format.

A `Library` is the `Arithmetic` of the rows' formulas. Replacing one of its functions makes a fault of every formula
that calls it: so tanh by two exponentials is a fault of tanH and of geLU's approximation alike.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from mpsref.arrays import Elements, Mask, Wide
from mpsref.storage import FLOAT64
from mpsref.verify.case import Case, Function, Reads, Step
from mpsref.verify.hypotheses.base import (
    CANCELLED,
    HALF,
    MANY,
    ROUNDINGS,
    SINGLE,
    Candidate,
    T,
    descriptor_of,
    erf,
    function_hypothesis,
    hypothesis,
    of_steps,
    reads_gradient,
)
from mpsref.verify.hypotheses.stores import bfloat16, narrowed, to_half

Floats: TypeAlias = npt.NDArray[Any]
Formula: TypeAlias = Callable[[Any, Any, "Library"], Any]
"""A row's formula or another form of it, of inputs, parameters and the library."""


@dataclass(frozen=True)
class Library:
    """
    The `Arithmetic` of the rows in numpy.

    Attributes
    ----------
    dtype : numpy type
        The format of each operation.
    other : Mapping of str to callable
        Functions that are computed in another way, called with the library and the operands.
    """

    dtype: Any = np.float64
    other: Mapping[str, Callable[..., Any]] = field(default_factory=dict)

    def _call(self, name: str, function: Callable[..., Any], *operands: Any) -> Any:
        if name in self.other:
            return np.asarray(self.other[name](self, *operands), self.dtype)
        return np.asarray(function(*(np.asarray(x, np.float64) for x in operands)), self.dtype)

    def fma(self, a: Any, b: Any, c: Any) -> Any:  # noqa: D102
        return np.asarray(np.multiply(a, b) + c, self.dtype)

    def square(self, x: Floats) -> Any:  # noqa: D102
        return np.square(x)

    def exp(self, x: Any) -> Any:  # noqa: D102
        return self._call("exp", np.exp, x)

    def log(self, x: Any) -> Any:  # noqa: D102
        return self._call("log", np.log, x)

    def tanh(self, x: Any) -> Any:  # noqa: D102
        return self._call("tanh", np.tanh, x)

    def erf(self, x: Any) -> Any:  # noqa: D102
        return self._call("erf", erf, x)

    def pow(self, base: Any, exponent: Any) -> Any:  # noqa: D102
        return self._call("pow", np.power, base, exponent)

    def min(self, x: Floats, y: Any) -> Any:  # noqa: D102
        return np.asarray(x if "min" in self.other else np.fmin(x, self.dtype(y)))

    def max(self, x: Floats, y: Any) -> Any:  # noqa: D102
        return np.asarray(x if "max" in self.other else np.fmax(x, self.dtype(y)))

    def where(self, condition: Mask, x: Any, y: Any) -> Any:  # noqa: D102
        if "where" in self.other:
            return np.asarray(self.other["where"](self, condition, x, y), self.dtype)
        return np.where(condition, np.asarray(x, self.dtype), np.asarray(y, self.dtype))


@dataclass(frozen=True)
class _Parameters:
    a: Any
    b: Any
    c: Any
    data: Any


def in_library(step: Step, library: Library, formula: Formula | None = None) -> Function:
    """What a neuron's formula gives in a library; default: the row's own."""
    p, dtype = descriptor_of(step), library.dtype
    row: Any = p.row
    own = row.stepwise_derivative if reads_gradient(step) else row.stepwise_forward

    def evaluated(reads: Reads, f: Library) -> Wide:
        data = np.zeros(1) if p.data is None else p.data[reads.index % reads.channels]
        parameters = _Parameters(dtype(p.a), dtype(p.b), dtype(p.c), data.astype(dtype))
        x = reads.x.astype(dtype)
        y = np.asarray((formula or own)(x, parameters, f), dtype)
        y = y * reads.upstream.astype(dtype) if reads_gradient(step) else y
        return np.broadcast_to(y.astype(np.float64), x.shape)

    def function(reads: Reads) -> Wide:
        values = evaluated(reads, library)
        if not library.other:
            return values
        # A function is blamed only for what it changes, not for what the formula does with any.
        plain = evaluated(reads, Library(dtype))
        return np.where((values == plain) | (np.isnan(values) & np.isnan(plain)), reads.ideal(), values)

    return function


# ---- functions in other ways ----


def _by_exp_2x(f: Library, x: Floats) -> Any:
    t = f.exp(x + x)
    return (t - 1) / (t + 1)


def _by_exp_2x_flushed(f: Library, x: Floats) -> Any:
    t = f.exp(x + x)
    return np.where((t > 2.0**126) & np.isfinite(t), f.dtype(0), (t - 1) / (t + 1))


def _by_two_exponentials(f: Library, x: Floats) -> Any:
    e, d = f.exp(x), f.exp(-x)
    return (e - d) / (e + d)


TANH = {
    "as (t - 1) / (t + 1), t = e^2x": _by_exp_2x,
    "as (t - 1) / (t + 1), t = e^2x, and the quotient is 0 where the denominator is above 2^126": _by_exp_2x_flushed,
    "as (e^x - e^-x) / (e^x + e^-x)": _by_two_exponentials,
    "as 1 - 2 / (e^2x + 1)": lambda f, x: 1 - 2 / (f.exp(x + x) + 1),
    "as 2 / (1 + e^-2x) - 1": lambda f, x: 2 / (1 + f.exp(-x - x)) - 1,
    "as (1 - t) / (1 + t), t = e^-2x": lambda f, x: (1 - f.exp(-x - x)) / (1 + f.exp(-x - x)),
}


def _polynomial(scale: float, *coefficients: float) -> Callable[[Library, Floats], Any]:
    def function(f: Library, x: Floats) -> Any:
        size = abs(x)
        t = f.dtype(1) / (f.dtype(1) + f.dtype(scale) * size)
        total = f.dtype(0) * t
        for c in reversed(coefficients):
            total = (total + f.dtype(c)) * t
        return np.copysign(f.dtype(1), x) * (1 - total * f.exp(-size * size))

    return function


ERF = {
    "Abramowitz and Stegun 7.1.26, absolute error 1.5e-7": _polynomial(
        0.3275911, 0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429
    ),
    "Abramowitz and Stegun 7.1.25, absolute error 2.5e-5": _polynomial(0.47047, 0.3480242, -0.0958798, 0.7478556),
    "Abramowitz and Stegun 7.1.27, absolute error 5e-4": lambda f, x: np.copysign(f.dtype(1), x)
    * (1 - 1 / (1 + 0.278393 * abs(x) + 0.230389 * x**2 + 0.000972 * abs(x) ** 3 + 0.078108 * x**4) ** 4),
    "Abramowitz and Stegun 7.1.28, absolute error 3e-7": lambda f, x: np.copysign(f.dtype(1), x)
    * (1 - 1 / (1 + 0.0705230784 * abs(x) + 0.0422820123 * x**2 + 0.0092705272 * abs(x) ** 3 + 0.0001520143 * x**4
                + 0.0002765672 * abs(x) ** 5 + 0.0000430638 * x**6) ** 16),
}  # fmt: skip
FORMATS = {"float32": np.float32, "exact arithmetic": np.float64, "half": np.float16}

SHARE_ASTRAY = 0.01
"""Of the elements out of bounds, those that must overflow for the formula's accuracy to be laid to that as well."""

Variants: TypeAlias = Iterator[tuple[str, Function]]


def _each(step: Step, name: str, ways: Mapping[str, Callable[..., Any]]) -> Variants:
    for detail, way in ways.items():
        for text, dtype in FORMATS.items():
            yield f"{detail}, in {text}", in_library(step, Library(dtype, {name: way}))


@function_hypothesis("tanh by exponentials", "tanh is computed from exponentials, which overflow, cancel near 0, or "
                     "divide by too much.", T.tanH)  # fmt: skip
def tanh_by_exponentials(step: Step) -> Variants:
    yield from _each(step, "tanh", TANH)


# ---- forms that cancel, with functions that are not exact ----

MOST_OFF, TOGETHER = range(-3, 4), 4
OFF = sorted(
    (off for off in itertools.product(MOST_OFF, MOST_OFF) if abs(off[0]) + abs(off[1]) <= TOGETHER),
    key=lambda off: abs(off[0]) + abs(off[1]),
)
"""By how many ULP functions of devices are off, of positive arguments and of others."""

FEWEST_CANCELLED, NEAR = 4, 2.0**-22
"""The fewest elements that tell it, and relative errors of which nothing is said."""


@dataclass(frozen=True)
class _Inexact(Library):
    """Exponentials and tanh that are off by so many ULP."""

    off: tuple[int, int] = (0, 0)

    def exp(self, x: Any) -> Any:
        return self._moved(x, super().exp(x))

    def tanh(self, x: Any) -> Any:
        return super().tanh(x) if "tanh" in self.other else self._moved(x, super().tanh(x))

    def _moved(self, x: Any, values: Floats) -> Any:
        bits = values.view(f"i{values.itemsize}")
        moved = (bits + np.where(x > 0, self.off[0], self.off[1]).astype(bits.dtype)).view(self.dtype)
        return np.where(np.isfinite(values) & (values != 0), moved, values)


def _cancelling(
    case: Case,
    cancels: Callable[[Wide], Mask],
    other: Mapping[str, Callable[..., Any]],
    formula: Formula | None = None,
) -> Candidate:
    """
    A form in float32 for inputs where it cancels.

    Its functions are off by as many ULP as bring it nearest to what the device has.
    """
    ways = [in_library(case.steps[0], _Inexact(np.float32, other, off), formula) for off in OFF]

    def function(reads: Reads) -> Wide:
        got, best = Elements(case.got.reshape(-1)[reads.index], case.result).values(), np.array(reads.ideal())
        left = np.flatnonzero(cancels(reads.x) & (np.abs(best - got) > NEAR * np.abs(best)))
        best[left] = np.inf
        for way in ways:
            elements = [each.at(left) for each in reads.elements]
            values = way(Reads(reads.operation, elements, reads.index[left], reads.channels))
            nearer = np.abs(values - got[left]) < np.abs(best[left] - got[left])
            best[left[nearer]] = values[nearer]
            left = left[best[left] != got[left]]
            if not left.size:
                break
        return best

    return Candidate(function=function, step=0, exact=formula is None)


def _is_one(case: Case, neuron: T) -> bool:
    """Whether the case is a single neuron of that type."""
    p = case.descriptor
    return len(case.steps) == 1 and not case.layers and p is not None and p.neuron_type is neuron


@hypothesis(
    "tanh by exponentials, which cancel near 0",
    "The difference of exponentials has a few digits near 0, where each has an error of its own, so that tanh has too.",
    FEWEST_CANCELLED,
)
def tanh_cancels(case: Case) -> Iterator[Candidate]:
    if _is_one(case, T.tanH):
        b = descriptor_of(case.steps[0]).b
        for detail, way in TANH.items():
            yield _cancelling(case, lambda x: np.abs(b * x) < 0.5, {"tanh": way}).named(f"{detail}, in float32")


def _one_minus(x: Any, p: Any, f: Library) -> Any:
    """1 - s(-x)."""
    return 1 - 1 / (1 + f.exp(x))


SIGMOID: Mapping[str, Formula] = {
    "1 - 1 / (1 + e^x)": _one_minus,
    "(1 + tanh(x / 2)) / 2": lambda x, _, f: (1 + f.tanh(x / 2)) / 2,
}
OF_SLOPE: Mapping[str, Formula] = {"1 / (1 + e^-x)": lambda x, _, f: 1 / (1 + f.exp(-x)), **SIGMOID}


@hypothesis(
    "sigmoid by a form that cancels",
    "The sigmoid, or 1 - s in its slope s (1 - s), is a difference of numbers near 1 and has a few digits only.",
    FEWEST_CANCELLED,
    fitted=True,
)
def sigmoid_cancels(case: Case) -> Iterator[Candidate]:
    def slope(x: Any, p: Any, f: Library, form: Formula) -> Any:
        s = form(x, p, f)
        return s * (1 - s)

    if _is_one(case, T.sigmoid):
        for detail, form in (OF_SLOPE if case.reads_gradient else SIGMOID).items():
            formula, text = (partial(slope, form=form), "s (1 - s), s = ") if case.reads_gradient else (form, "")
            yield _cancelling(case, lambda x: np.abs(x) > 1, {}, formula).named(f"{text}{detail}, in float32")


@function_hypothesis(
    "erf by a polynomial",
    "The error function is a polynomial of low order, with an absolute error.",
    T.geLU,
    general=True,
    cancels=CANCELLED,
)
def erf_by_polynomial(step: Step) -> Variants:
    yield from _each(step, "erf", ERF)


def _by_bits(f: Library, x: Floats) -> Any:
    """e^x as the float whose bits grow with x, by N. N. Schraudolph."""
    code = 12102203.0 * np.clip(np.asarray(x, np.float64), -86, 88) + 1064866805
    return code.astype(np.int32).view(np.float32)


def _quotient(over: tuple[float, ...], under: tuple[float, ...]) -> Callable[[Library, Floats], Any]:
    """``x over(x^2) / under(x^2)``, within -1 and 1; the coefficients rise."""

    def function(_: Library, x: Floats) -> Any:
        square = np.asarray(x, np.float64) ** 2
        return np.clip(x * np.polyval(over[::-1], square) / np.polyval(under[::-1], square), -1, 1)

    return function


ROUGH: Mapping[str, dict[str, Callable[..., Any]]] = {
    "tanh": {
        "x (27 + x^2) / (27 + 9 x^2)": _quotient((27, 1), (27, 9)),
        "x (15 + x^2) / (15 + 6 x^2)": _quotient((15, 1), (15, 6)),
        "x (135135 + 17325 x^2 + 378 x^4 + x^6) / (135135 + 62370 x^2 + 3150 x^4 + 28 x^6)": _quotient(
            (135135, 17325, 378, 1), (135135, 62370, 3150, 28)
        ),
    },
    "exp": {
        "of the bits of a float": _by_bits,
        "(1 + x / 256)^256": lambda _, x: (1 + np.asarray(x, np.float64) / 256) ** 256,
        "(1 + x / 1024)^1024": lambda _, x: (1 + np.asarray(x, np.float64) / 1024) ** 1024,
    },
}


@function_hypothesis(
    "a rough approximation",
    "A function is computed by a short formula that is near it for some of its arguments.",
    fewest=MANY,
    fitted=True,
)
def rough(step: Step) -> Variants:
    for name, ways in ROUGH.items():
        for detail, way in ways.items():
            yield f"{name} as {detail}", in_library(step, Library(np.float64, {name: way}))
    if descriptor_of(step).neuron_type is T.sigmoid and not reads_gradient(step):
        yield "sigmoid as (1 + x / (1 + abs(x))) / 2", lambda reads: (1 + reads.x / (1 + np.abs(reads.x))) / 2


@dataclass
class _Branches:
    """A formula's comparisons, of which one is something else."""

    chosen: int
    other: Callable[[Any], Any]
    count: int
    seen: int = 0

    def __call__(self, f: Library, condition: Mask, x: Any, y: Any) -> Any:
        # A formula makes them in the same order each time.
        is_chosen = self.seen % self.count == self.chosen
        self.seen += 1
        return np.where(self.other(condition) if is_chosen else condition, x, y)


COMPARED: Mapping[str, Callable[[Any], Any]] = {
    "always true": np.ones_like,
    "always false": np.zeros_like,
    "the other way round": np.logical_not,
}


@function_hypothesis(
    "a comparison or a clamp is missing",
    "A comparison of the formula has always the same outcome, or the other one, or the result is not clamped.",
)
def comparison_missing(step: Step) -> Variants:
    for name, detail in {"min": "no upper limit", "max": "no lower limit"}.items():
        yield detail, in_library(step, Library(np.float64, {name: _unused}))
    counted = _Branches(-1, np.logical_not, 1)
    in_library(step, Library(np.float64, {"where": counted}))(_probe(step))
    for k in range(counted.seen):
        for detail, other in COMPARED.items():
            text = f"comparison {k + 1} of the formula is {detail}" if counted.seen > 1 else f"it is {detail}"
            yield text, in_library(step, Library(np.float64, {"where": _Branches(k, other, counted.seen)}))


def _unused(f: Library, *operands: Any) -> Any:
    raise NotImplementedError  # A minimum or maximum that is missing is not called.


def _probe(step: Step) -> Reads:
    one = Elements(np.ones(1), FLOAT64)
    return Reads(step.operation, [one] * len(step.operation.roles), np.zeros(1, np.intp), 1)


def _power_of(f: Library, p: Any, x: Any) -> Any:
    return f.exp(x) if p.c == -1 else f.pow(p.c, x)


def _log_of(f: Library, p: Any, x: Any) -> Any:
    return f.log(x) if p.c == -1 else f.log(x) / f.log(p.c)


REARRANGED: Mapping[T, dict[str, Formula]] = {
    T.power: {
        "(a x)^c + b": lambda x, p, f: f.pow(p.a * x, p.c) + p.b,
        "a x^c + b": lambda x, p, f: p.a * f.pow(x, p.c) + p.b,
        "a (x + b)^c": lambda x, p, f: p.a * f.pow(x + p.b, p.c),
    },
    T.exponential: {
        "a c^x + b": lambda x, p, f: p.a * _power_of(f, p, x) + p.b,
        "a c^(x + b)": lambda x, p, f: p.a * _power_of(f, p, x + p.b),
        "c^(a x) + b": lambda x, p, f: _power_of(f, p, p.a * x) + p.b,
    },
    T.logarithm: {
        "a log_c(x) + b": lambda x, p, f: p.a * _log_of(f, p, x) + p.b,
        "a log_c(x + b)": lambda x, p, f: p.a * _log_of(f, p, x + p.b),
        "log_c(a x) + b": lambda x, p, f: _log_of(f, p, p.a * x) + p.b,
    },
}


@function_hypothesis(
    "parameters in other places of the formula",
    "Scale and offset are applied to the result instead of the argument, or one of them is.",
    *REARRANGED,
    fewest=MANY,
)
def rearranged(step: Step) -> Variants:
    if not reads_gradient(step):
        for detail, form in REARRANGED[descriptor_of(step).neuron_type].items():
            yield detail, in_library(step, Library(np.float64), form)


@function_hypothesis(
    "pow of a negative base", "The power is 2^(c log2 u), which is NaN for a negative base.", T.power, T.exponential
)
def pow_by_logarithm(step: Step) -> Variants:
    yield from _each(step, "pow", {"2^(c log2 u)": lambda _, u, c: np.exp2(c * np.log2(u))})


@function_hypothesis("pow of the magnitude", "The power is that of the base without its sign.", T.power, T.exponential,
                     cancels=CANCELLED)  # fmt: skip
def pow_of_magnitude(step: Step) -> Variants:
    yield "", in_library(step, Library(np.float64, {"pow": lambda _, u, c: np.power(np.abs(u), c)}))


@function_hypothesis("both branches blended", "Both branches are computed and blended by products, so that 0 times an "
                     "infinity of the branch not taken is NaN.")  # fmt: skip
def blended(step: Step) -> Variants:
    def blend(f: Library, condition: Mask, x: Any, y: Any) -> Any:
        m = np.asarray(condition, f.dtype)
        return m * np.asarray(x, f.dtype) + (1 - m) * np.asarray(y, f.dtype)

    def function(reads: Reads, blended: Function, plain: Function) -> Wide:
        return np.where(np.isnan(blended(reads)) & ~np.isnan(plain(reads)), np.nan, reads.ideal())

    for text, dtype in {"float32": np.float32, "half": np.float16}.items():
        ways = in_library(step, Library(dtype, {"where": blend})), in_library(step, Library(dtype))
        yield f"in {text}", partial(function, blended=ways[0], plain=ways[1])


@function_hypothesis("base 2 instead of e", "Powers or logarithms are those of 2, as exp2 and log2 are.")
def base_two(step: Step) -> Variants:
    exp2 = {"exp": lambda _, x: np.exp2(x), "tanh": lambda _, x: np.tanh(math.log(2) * x)}
    log2 = {"log": lambda _, x: np.log2(x)}
    p = descriptor_of(step)
    if p.neuron_type in (T.exponential, T.logarithm) and p.c != -1:
        return
    for detail, other in {"exp2": exp2, "log2": log2, "exp2 and log2": exp2 | log2}.items():
        yield detail, in_library(step, Library(np.float64, other))


# ---- other forms ----


def _soft_plus_max(x: Any, p: Any, f: Library) -> Any:
    z = p.b * x
    return p.a * (np.fmax(z, f.dtype(0)) + np.fmax(f.log(1 + f.exp(-abs(z))), f.dtype(0)))


FORMS: Mapping[tuple[T, str], dict[str, Formula]] = {
    (T.sigmoid, "forward"): {
        "e^x / (1 + e^x)": lambda x, _, f: f.exp(x) / (1 + f.exp(x)),
        "(1 + tanh(x / 2)) / 2": lambda x, _, f: (f.tanh(x / 2) + 1) / 2,
    },
    (T.sigmoid, "gradient"): {
        "e^-x / (1 + e^-x)^2": lambda x, _, f: f.exp(-x) / f.square(1 + f.exp(-x)),
        "s (1 - s)": lambda x, _, f: (1 / (1 + f.exp(-x))) * (1 - 1 / (1 + f.exp(-x))),
    },
    (T.softPlus, "forward"): {
        "max(b x, 0) + ln(1 + e^-|b x|)": _soft_plus_max,
        "-ln(1 - s), s = 1 / (1 + e^-x)": lambda x, p, f: -p.a * f.log(1 - 1 / (1 + f.exp(-p.b * x))),
        "-ln(1 / (1 + e^x))": lambda x, p, f: -p.a * f.log(1 / (1 + f.exp(p.b * x))),
    },
    (T.softPlus, "gradient"): {
        "1 - 1 / (1 + e^x)": lambda x, p, f: p.a * p.b * (1 - 1 / (1 + f.exp(p.b * x))),
        "1 / (1 + e^-x)": lambda x, p, f: p.a * p.b * (1 / (1 + f.exp(-p.b * x))),
    },
    (T.ELU, "gradient"): {"y + a": lambda x, p, f: np.where(x >= 0, f.dtype(1), p.a * (f.exp(x) - 1) + p.a)},
}


def _forms(step: Step, of: Mapping[tuple[T, str], dict[str, Formula]] = FORMS) -> dict[str, Formula]:
    direction = "gradient" if reads_gradient(step) else "forward"
    return of.get((descriptor_of(step).neuron_type, direction), {})


@function_hypothesis("sigmoid as 1 - s(-x)", "Below 0 the sigmoid is computed as 1 - s(-x), which cancels.", T.sigmoid)
def one_minus_sigmoid(step: Step) -> Variants:
    def form(x: Any, p: Any, f: Library) -> Any:
        s = 1 / (1 + f.exp(-abs(x)))
        return np.where(x < 0, 1 - s, s)

    if not reads_gradient(step):
        for text, dtype in {"float32": np.float32, "half": np.float16}.items():
            yield f"in {text}", in_library(step, Library(dtype), form)
            yield f"everywhere, in {text}", in_library(step, Library(dtype), _one_minus)


@function_hypothesis(
    "softSign's slope as a difference",
    "The slope is computed as 1 / d - |x| / d / d, with d = 1 + |x|, as the derivative of a quotient is; this cancels.",
    T.softSign,
)
def slope_as_difference(step: Step) -> Variants:
    def form(x: Any, p: Any, f: Library) -> Any:
        d = 1 + abs(x)
        return 1 / d - abs(x) / d / d

    if reads_gradient(step):
        dtypes = {"float32": np.float32, "half": np.float16}
        if step.storage.name == "bfloat16":
            dtypes["bfloat16"] = step.storage.dtype.type
        for text, dtype in dtypes.items():
            yield f"in {text}", in_library(step, Library(dtype), form)


@hypothesis(
    "NaN lost in a comparison",
    "A comparison with NaN is false, so the formula takes its other branch, or a clamp its bound.",
)
def nan_compared(case: Case) -> Iterator[Candidate]:
    def variants(step: Step) -> Variants:
        for form in (None, *_forms(step).values()):
            yield "", partial(_where_nan, function=in_library(step, Library(np.float32), form))

    yield from of_steps(case, variants)
    yield from _nan_to_a_number(case)


def _nan_to_a_number(case: Case) -> Iterator[Candidate]:
    """The one number that stands where NaN was read, as of an argument that was clamped."""
    index = case.bad_sample
    nan = np.isnan([source.at(index).values() for source in case.sources]).any(axis=0)
    values = Elements(case.got.reshape(-1)[index], case.result).values()[nan]
    if len(case.sources) > 1 or case.layers or case.result.unorm_max or values.size < MANY:
        return
    if np.isfinite(values[0]) and values[0] and (values == values[0]).all():
        number = partial(np.full_like, fill_value=values[0])
        function = partial(_where_nan, function=lambda reads: number(reads.x))
        yield Candidate(f"to {case.got.reshape(-1)[index][nan][0]!s}", function=function)


def _where_nan(reads: Reads, function: Function) -> Wide:
    nan = np.logical_or.reduce([np.isnan(source.values()) for source in reads.elements])
    ideal = reads.ideal()
    return np.where(nan, function(reads), ideal) if nan.any() else ideal


@hypothesis(
    "the literal formula overflows",
    "In float32 or half a power or exponential within the formula overflows, and leaves infinity, NaN or 0.",
)
def overflow(case: Case) -> Iterator[Candidate]:
    def function(reads: Reads, literal: Function, zeros: bool) -> Wide:
        ideal, other = reads.ideal(), literal(reads)
        lost = ~np.isfinite(other) | (zeros & (other == 0) & (np.abs(ideal) > 2.0**-126))
        return np.where(np.isfinite(ideal) & lost, other, ideal)

    index = case.bad_sample
    ideal = case.values(index)
    for k, step in enumerate(case.steps):
        if step.operation.descriptor is None:
            continue
        for name, dtype in {"float32": np.float32, "half": np.float16}.items():
            for detail, form in {"": None, **_forms(step)}.items():
                literal = in_library(step, Library(dtype), form)
                text = ", ".join(filter(None, (detail, "in half" if name == "half" else "")))
                # How well it rounds elsewhere is another question, but in float32 may come with it.
                yield Candidate(text, function=partial(function, literal=literal, zeros=False), step=k)
                astray = ~np.isfinite(case.values(index, {k: literal})) & np.isfinite(ideal)
                if name != "half" and astray.mean() > SHARE_ASTRAY:
                    yield Candidate(text, function=partial(function, literal=literal, zeros=True), step=k)
                    yield Candidate(text, function=literal, step=k)


COLLAPSES: Mapping[tuple[T, str], dict[str, Formula]] = {
    (T.sigmoid, "forward"): {"1 - s(-x)": _one_minus},
    (T.softPlus, "forward"): {
        "e^x above 2^15": lambda x, p, f: np.where(f.exp(p.b * x) >= HALF_SCALE, f.dtype(0), f.dtype(1))
    },
}
"""Further forms that are 0 in half from some input on."""

HALF_SCALE = 2.0**15
"""Above this, twice a number is infinite in half, and its reciprocal is subnormal."""


@function_hypothesis(
    "lost beside 1 in half",
    "In half precision 1 + e^x is 1, or 1 - s is 0, so that the result is 0 from some input on.",
    fewest=MANY,
)
def collapsed(step: Step) -> Variants:
    def function(reads: Reads, form: Function) -> Wide:
        ideal = reads.ideal()
        return np.where((form(reads) == 0) & np.isfinite(ideal), 0.0, ideal)

    for detail, form in {"": None, **_forms(step), **_forms(step, COLLAPSES)}.items():
        yield detail, partial(function, form=in_library(step, Library(np.float16), form))


@hypothesis("computed in half", "Every operation of the formula is rounded to half precision.", MANY, general=True)
def computed_in_half(case: Case) -> Iterator[Candidate]:
    def variants(step: Step) -> Variants:
        for detail, form in {"": None, **_forms(step)}.items():
            yield detail, in_library(step, Library(np.float16), form)

    yield from of_steps(case, variants)
    # Numbers of fewer digits, as bfloat16's, are numbers of half, too.
    if case.result.precision >= HALF.precision:
        yield from _narrow(case, to_half, ROUNDINGS * 2.0**-11)


@hypothesis("computed in bfloat16", "Every operation of the formula is rounded to bfloat16.", MANY, general=True)
def computed_in_bfloat16(case: Case) -> Iterator[Candidate]:
    yield from _narrow(case, bfloat16, ROUNDINGS * 2.0**-8)


def _narrow(case: Case, rounding: Callable[[Wide], Wide], left: float) -> Iterator[Candidate]:
    """The arithmetic of a narrow format, whatever is computed, if the results are numbers of that."""
    got = Elements(case.got.reshape(-1)[case.bad_sample], case.result).values()
    if not case.layers and not case.result.unorm_max and ((rounding(got) == got) | np.isnan(got)).all():
        yield Candidate("", store=partial(narrowed, narrow=rounding), cancels=left)


@function_hypothesis(
    "the formula in float32",
    "The documented formula, each operation rounded to float32, is that far from its exact value.",
    general=True,
)
def stepwise(step: Step) -> Variants:
    def function(reads: Reads, mode: str) -> Wide:
        if any(source.storage is FLOAT64 for source in reads.elements):
            # The sums of a layer, which no mode takes.
            return reads.ideal()
        return reads.ideal(mode=mode, result=SINGLE).astype(np.float64)

    for mode in ("stepwise", "stepwise-fma"):
        yield f"mode {mode}", partial(function, mode=mode)
    for detail, form in _forms(step).items():
        yield detail, in_library(step, Library(np.float32), form)
