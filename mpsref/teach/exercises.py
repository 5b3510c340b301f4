"""Answers to the exercises of the lessons: `check` compares one with the reference, and gives hints before it tells."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from mpsref.arguments import checked
from mpsref.errors import ParameterError, shown
from mpsref.neuron import forward, gradient
from mpsref.neuron.descriptor import MPSNNNeuronDescriptor, NeuronLike, descriptor_or_error
from mpsref.neuron.table import NEURONS

__all__ = ["EXERCISES", "Exercise", "check"]

BESIDE = 1e-6
"""Distance from a kink at which a slope is taken."""


@dataclass(frozen=True)
class Exercise:
    """
    An exercise of a lesson.

    Attributes
    ----------
    asks : str
        What its answer is.
    answer : callable
        Makes the right answer: numbers, names, True or False.
    hints : tuple of str
        In the order in which they are given.
    tolerance : float
        Relative, of numbers; what is smaller than it is 0.
    """

    asks: str
    answer: Callable[[], Any]
    hints: tuple[str, ...]
    tolerance: float = 0.01


def _slope(neuron: NeuronLike, x: float, **parameters: Any) -> float:
    """The slope of a neuron."""
    d = MPSNNNeuronDescriptor(neuron, **parameters) if isinstance(neuron, str) else descriptor_or_error(neuron)
    return float(gradient(d, np.array([x], np.float64), np.ones(1))[0])


def _value(neuron: str, x: float, **parameters: Any) -> float:
    return float(forward(MPSNNNeuronDescriptor(neuron, **parameters), np.array([x], np.float64))[0])


def _by_default() -> list[MPSNNNeuronDescriptor]:
    return [MPSNNNeuronDescriptor(t, data=[0.25] if row.per_channel else None) for t, row in NEURONS.items()]


def _chain(neuron: str, count: int, x: float, **parameters: Any) -> float:
    """What is left of a gradient of 1 after some neurons of a kind, without rounding."""
    left = 1.0
    for _ in range(count):
        left *= _slope(neuron, x, **parameters)
        x = _value(neuron, x, **parameters)
    return left


def _residual(count: int, x: float) -> float:
    left = 1.0
    for _ in range(count):
        left *= 1 + _slope("sigmoid", x)
        x += _value("sigmoid", x)
    return left


def _longest_in_half() -> int:
    """The longest chain of sigmoids whose gradient is not 0 in half precision, from 1."""
    x, left, count = np.float16(1), np.float16(1), 0
    d = MPSNNNeuronDescriptor("sigmoid")
    while left:
        left = gradient(d, np.array([x]), np.array([left]))[0]
        x = forward(d, np.array([x]))[0]
        count += bool(left)
    return count


def _wrong_source() -> float:
    """By how many percent the gradient of lesson 2 is too large, with a slope at the result."""
    return 100 * (_slope("tanH", _value("tanH", 0.5)) / _slope("tanH", 0.5) - 1)


def _printed_gelu() -> float:
    """The largest error of the slope that Apple's header prints: half of its second term."""
    x = np.linspace(-4, 4, 801)
    return float(np.abs(x * np.exp(-x * x / 2)).max() / np.sqrt(2 * np.pi))


EXERCISES = {
    "1.1": Exercise(
        "the value and the gradient, two numbers",
        lambda: (_value("reLU", -2, a=0.1), 3 * _slope("reLU", -2, a=0.1)),
        ("Below zero the value is a x.", "The slope there is a; the gradient is the upstream gradient times it."),
    ),
    "1.2": Exercise(
        "the slopes at 0 and at 3, two numbers",
        lambda: (_slope("tanH", 0, a=1.5, b=1.5), _slope("tanH", 3, a=1.5, b=1.5)),
        ("mps.neuron.gradient with an upstream gradient of 1 is the slope.", "At 0 the slope is a b."),
    ),
    "1.3": Exercise(
        "a set of Apple's names",
        lambda: {d.neuron_type.name for d in _by_default() if _slope(d, 0) == 1},
        ("Go through mps.NEURONS and ask mps.neuron.gradient at 0.", "At a kink the documented comparison decides."),
    ),
    "2.1": Exercise(
        "the gradient", lambda: _slope("tanH", 0) * _slope("sigmoid", 0),
        ("tanh(0) is 0, and its slope there is 1.", "The sigmoid reads 0: what is its slope there?"),
    ),
    "2.2": Exercise(
        "the gradient", lambda: _slope("sigmoid", 0) * _slope("tanH", _value("sigmoid", 0)),
        ("The tanh reads the sigmoid of 0, which is 1/2.", "The slope of tanh at 1/2 is 0.786."),
    ),
    "2.3": Exercise(
        "the percentage by which dx is too large", _wrong_source,
        ("Only the slope of the tanH is another.", "Divide its slope at h by its slope at x."), 0.1,
    ),
    "2.4": Exercise("the factor of every gradient", lambda: 3, ("Each gradient is a product with dy in it.",)),
    "3.1": Exercise(
        "dx and the number of additions that are made, two numbers", lambda: (2 * _slope("softSign", 1), 1),
        ("Both sources of the addition are s, so ds is a sum of two.", "The slope of softSign at 1 is 1/4."),
    ),
    "3.2": Exercise(
        "dx", lambda: 1 + _slope("tanH", 3), ("Two paths lead from y to x.", "One of them has slope 1."),
    ),
    "3.3": Exercise("the number for five readers", lambda: 4, ("Two readers need one addition.",)),
    "3.4": Exercise(
        "dx at 0", lambda: _slope("tanH", 0) - 1, ("One reader sends back 1.", "The other is subtracted."),
    ),
    "4.1": Exercise(
        "the slopes just left and just right of 0 for a = 2, two numbers",
        lambda: (_slope("ELU", -BESIDE, a=2), _slope("ELU", BESIDE, a=2)),
        ("Left of 0 the slope is a e^x.",),
    ),
    "4.2": Exercise(
        "what the chain rule gives for slopes of 1, of 0 and of 1/2, three numbers", lambda: (2, 0, 1),
        ("With a slope k at the kink, the first term sends back k.", "The second changes its sign twice."),
    ),
    "4.3": Exercise(
        "a set of Apple's names",
        lambda: {
            d.neuron_type.name
            for d in _by_default()
            if any(abs(_slope(d, k + BESIDE) - _slope(d, k - BESIDE)) > 0.01 for k in d.row.kinks(d))
        },
        ("kinks(d) says where the slope may jump.", "Compare the slopes a bit left and right of each place."),
    ),
    "4.4": Exercise("the slope that you measure", lambda: 0.5, ("(f(x + h) - f(x - h)) / (2 h), with h = 0.001.",)),
    "5.1": Exercise(
        "what is left with a = 0, and with a = 0.01 after three, two numbers",
        lambda: (_chain("reLU", 1, -1, a=0), _chain("reLU", 3, -1, a=0.01)),
        ("The slope of a negative number is a.", "0.01 is multiplied three times."),
    ),
    "5.2": Exercise(
        "the gradient after 20 neurons at x = 0", lambda: _chain("tanH", 20, 0, a=2),
        ("tanH of 0 is 0, so each neuron has the same slope.", "2 is multiplied 20 times."),
    ),
    "5.3": Exercise(
        "the gradient that is left, from x = 1", lambda: _residual(24, 1),
        ("h + sigmoid(h) has the slope 1 plus that of the sigmoid.", "Go on with h + sigmoid(h), 24 times."), 0.15,
    ),
    "5.4": Exercise(
        "the largest number of sigmoids", _longest_in_half,
        ("The smallest half above 0 is 2^-24.", "teach.backprop(..., format='float16') says where it is lost."), 0.0,
    ),
    "6.1": Exercise(
        "the two powers of two",
        lambda: (next(2.0**k for k in range(60) if np.float16(1e-9 * 2.0**k)),
                 next(2.0**k for k in range(60) if 1e-9 * 2.0**k >= 2.0**-14)),
        ("The smallest half above 0 is 2^-24.", "Half of that is enough, since rounding is to the nearest."),
    ),
    "6.2": Exercise(
        "the power of two", lambda: max(2.0**k for k in range(60) if 1e-6 * 2.0**k < 65520),
        ("All slopes are below 1: the start decides.", "The largest half is 65504."),
    ),
    "6.3": Exercise(
        "True or False", lambda: False, ("The largest must stay below 65504.", "How many digits has the smallest?"),
    ),
    "6.4": Exercise("True or False: does it survive?", lambda: True, ("Only the gradients are stored in float32.",)),
    "7.1": Exercise(
        "the two rates", lambda: (0.5, 1), ("A step multiplies the distance by 1 - 2 rate.", "When is that 0? And -1?"),
    ),
    "7.2": Exercise(
        "the number that the loss goes to", lambda: (1.2 - 1) ** 2, ("y goes to 1.", "The loss is (y - 1.2)^2."),
    ),
    "7.3": Exercise("the gradient with a = 0", lambda: 0, ("What is the slope of the reLU at -1?",)),
    "7.4": Exercise(
        "the largest step that is lost, in distances to the next half", lambda: 0.5,
        ("A sum is rounded to the nearest half.",),
    ),
    "8.1": Exercise(
        "the step", lambda: 2.0 ** (-23 / 3),
        ("It is near the cube root of the precision.", "float32 has a precision of 2^-23."), 0.5,
    ),
    "8.2": Exercise(
        "the largest error", _printed_gelu,
        ("The second term is twice what it should be.", "So the error is x e^(-x^2 / 2) / sqrt(2 pi)."),
    ),
    "8.3": Exercise("the slope", lambda: _slope("softPlus", 1), ("It is the sigmoid of 1.",)),
    "8.4": Exercise(
        "the gradients at -1, at 0 and at 1, three numbers",
        lambda: tuple(_slope("tanH", x) + _slope("absolute", x) for x in (-1, 0, 1)),
        ("It is the sum of two slopes.", "The slope of the absolute value at 0 is 0."),
    ),
    "9.1": Exercise(
        "the number of different neurons that are left", lambda: 3,
        ("Print two weights of h and of k after some steps.", "h and k are twins, and so are m and n."),
    ),
    "9.2": Exercise("the largest gradient of all", lambda: 0, ("Ask teach.backprop.",)),
    "9.3": Exercise("the loss after 30 steps", lambda: 8, ("teach.descend(..., rate=3, steps=30).",), 0.1),
    "10.1": Exercise("True or False", lambda: False, ("What line is the edge of one tanH?",)),
}  # fmt: skip
"""By the number of the lesson and of the exercise."""

_wrong: Counter[str] = Counter()
"""How often each was answered wrongly."""


@checked
def check(exercise: str, answer: Any) -> bool:
    """
    Say whether an answer to an exercise is right; if not, print a hint, and after the last one the answer.

    Parameters
    ----------
    exercise : str
        Lesson and number, ``"1.3"``.
    answer
        What `EXERCISES` says: numbers, names, True or False.

    Returns
    -------
    bool
        Whether it is right.

    Raises
    ------
    ParameterError
        There is no such exercise.

    Examples
    --------
    >>> from mpsref import teach
    >>> teach.check("2.1", 1 / 4)
    2.1: right.
    True
    >>> teach.check("2.1", 1)
    2.1: not yet; the answer is the gradient. Hint: tanh(0) is 0, and its slope there is 1.
    False
    """
    one = next((each for name, each in EXERCISES.items() if name == exercise), None)
    if one is None:
        raise ParameterError(f"exercise is {shown(exercise)}: there are {', '.join(EXERCISES)}")
    right = one.answer()
    if _agrees(answer, right, one.tolerance):
        _wrong.pop(exercise, None)
        print(f"{exercise}: right.")  # noqa: T201  it talks to a learner
        return True
    hints = _wrong[exercise]
    _wrong[exercise] += 1
    tell = f"Hint: {one.hints[hints]}" if hints < len(one.hints) else f"It is {_text(right)}."
    print(f"{exercise}: not yet; the answer is {one.asks}. {tell}")  # noqa: T201
    return False


def _agrees(answer: Any, right: Any, tolerance: float) -> bool:
    if isinstance(right, set):
        is_named = isinstance(answer, set | frozenset | list | tuple)
        return is_named and {getattr(each, "name", each) for each in answer} == right
    if isinstance(right, bool):
        return isinstance(answer, bool | np.bool_) and bool(answer) == right
    try:
        got, want = np.asarray(answer, np.float64).ravel(), np.asarray(right, np.float64).ravel()
    except Exception:  # noqa: BLE001  somebody's object may raise anything
        return False
    return got.shape == want.shape and bool(np.allclose(got, want, rtol=tolerance, atol=min(tolerance, 1e-9)))


def _text(right: Any) -> str:
    if isinstance(right, set):
        return ", ".join(sorted(right))
    if isinstance(right, bool):
        return str(right)
    return ", ".join(f"{number:.5g}" for number in np.ravel(right))
