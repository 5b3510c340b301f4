"""
The modes of evaluation, and the stepwise ones: the documented formula in float32, every operation rounded.

That is what a plain shader does. It explains a device's results but never judges them, since it has the formula's
faults. The rows list the operations in order; this module rounds them. Elementary functions, in which devices differ,
are correctly rounded here, the same on every machine. Subnormals are kept, though devices may flush them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType
from typing import Protocol

import numpy as np

from mpsref.arrays import Elements, Floats, Mask, Stored, Wide, flat
from mpsref.enums import MPSCNNNeuronType, MPSImageFeatureChannelFormat
from mpsref.environment import environment_or_error
from mpsref.errors import ImageError, ParameterError, shown
from mpsref.neuron.descriptor import MPSNNNeuronDescriptor
from mpsref.neuron.elementwise import Elementwise, elementwise
from mpsref.neuron.evaluate import evaluate
from mpsref.neuron.exact import Digits, decide, number, settle
from mpsref.neuron.kernels import KERNELS
from mpsref.neuron.reference import specified_elements
from mpsref.neuron.slopes import ChannelSlopes
from mpsref.neuron.table import Float32Parameters, Scalar
from mpsref.neuron.threads import over_blocks
from mpsref.neuron.workspace import two_sum
from mpsref.storage import FLOAT64, FORMATS, StorageFormat, round_to_odd

__all__ = ["MODES", "Evaluation", "evaluation"]

FLOAT32 = FORMATS[MPSImageFeatureChannelFormat.float32]
ERF_ERROR = 2.0**-44
"""Far more than the relative error of any library's error function in float64."""

_exponential = MPSNNNeuronDescriptor(MPSCNNNeuronType.exponential)
_logarithm = MPSNNNeuronDescriptor(MPSCNNNeuronType.logarithm)
_tanh = MPSNNNeuronDescriptor(MPSCNNNeuronType.tanH)


class Evaluation(Protocol):
    """What a mode provides."""

    def neuron(
        self,
        descriptor: MPSNNNeuronDescriptor,
        source: Elements,
        result: StorageFormat,
        slopes: ChannelSlopes | None = None,
        *,
        gradient: Elements | None = None,
        workers: int = 1,
    ) -> Stored:
        """See `mpsref.neuron.evaluate.evaluate`."""

    def elementwise(
        self, operation: Elementwise, sources: Sequence[Elements], result: StorageFormat, *, workers: int = 1
    ) -> Stored:
        """The operation's result for every element."""


@dataclass(frozen=True)
class _Arithmetic:
    """The `Arithmetic` of the rows: like NumPy's float32 operators, every method rounds once."""

    fused: bool

    def fma(self, a: Floats | Scalar, b: Floats | Scalar, c: Floats | Scalar) -> Floats:
        if not self.fused:
            return np.asarray(np.multiply(a, b) + c, np.float32)
        # The product of two float32 is a float64; the sum is rounded to odd, so that only one rounding shows.
        product, addend = np.broadcast_arrays(np.multiply(a, b, dtype=np.float64), np.asarray(c, np.float64))
        return round_to_odd(*two_sum(product, addend)).astype(np.float32)

    def square(self, x: Floats) -> Floats:
        return np.square(x)

    def exp(self, x: Floats) -> Floats:
        return evaluate(_exponential, Elements(x, FLOAT32), FLOAT32)

    def log(self, x: Floats | Scalar) -> Floats:
        return evaluate(_logarithm, Elements(np.asarray(x, np.float32), FLOAT32), FLOAT32)

    def tanh(self, x: Floats) -> Floats:
        return evaluate(_tanh, Elements(x, FLOAT32), FLOAT32)

    def erf(self, x: Floats) -> Floats:
        # Imported here: importing mpsref must not import scipy.special.
        from scipy.special import erf  # noqa: PLC0415

        wide = x.astype(np.float64)
        return _rounded(erf(wide), ERF_ERROR, lambda open_: settle(_exact_erf, wide[open_], None, FLOAT32))

    def pow(self, base: Floats | Scalar, exponent: Floats | Scalar) -> Floats:
        bases, exponents = np.broadcast_arrays(base, exponent)
        # What float64 leaves open is finite and not 0, where the neurons agree with IEEE's pow.
        neuron, x = (
            (MPSNNNeuronDescriptor(MPSCNNNeuronType.power, c=float(exponent)), bases)
            if np.ndim(exponent) == 0
            else (MPSNNNeuronDescriptor(MPSCNNNeuronType.exponential, c=float(base)), exponents)
        )
        return _rounded(
            np.power(bases, exponents, dtype=np.float64),
            KERNELS[type(neuron.row)].error_bound(neuron),
            lambda open_: evaluate(neuron, Elements(x[open_].astype(np.float32), FLOAT32), FLOAT32),
        )

    def min(self, x: Floats, y: Scalar) -> Floats:
        return np.where((x < y) | ((x == y) & np.signbit(x)), x, np.float32(y))

    def max(self, x: Floats, y: Scalar) -> Floats:
        return -self.min(-x, -y)

    def where(self, condition: Mask, x: Floats | Scalar, y: Floats | Scalar) -> Floats:
        return np.where(condition, np.asarray(x, np.float32), np.asarray(y, np.float32))


def _rounded(wide: Wide, error: float, decide: Callable[[Mask], Floats]) -> Floats:
    """float64 results as float32; `decide` returns those whose rounding a relative `error` leaves open."""
    result = (wide * (1.0 + error)).astype(np.float32)
    open_ = (result != (wide * (1.0 - error)).astype(np.float32)) & ~np.isnan(wide)
    if open_.any():
        result[open_] = decide(open_)
    return result


def _exact_erf(x: Decimal, m: Digits) -> Decimal:
    return m.erf(x)


class _Ideal:
    """The exact value, rounded once."""

    neuron = staticmethod(evaluate)
    elementwise = staticmethod(elementwise)


class _Specified:
    """The specification itself: slow, in one thread."""

    def neuron(
        self,
        descriptor: MPSNNNeuronDescriptor,
        source: Elements,
        result: StorageFormat,
        slopes: ChannelSlopes | None = None,
        *,
        gradient: Elements | None = None,
        workers: int = 1,
    ) -> Stored:
        environment_or_error()
        _not_wide([source] if gradient is None else [gradient, source], "nothing is specified for that")
        return specified_elements(descriptor, source, result, slopes, gradient)

    def elementwise(
        self, operation: Elementwise, sources: Sequence[Elements], result: StorageFormat, *, workers: int = 1
    ) -> Stored:
        environment_or_error()
        _not_wide(sources, "nothing is specified for that")

        def rounded(*values: float) -> float | int:
            return decide(lambda _: operation.exact(*map(number, values)), result)

        results = list(map(rounded, *(flat(source.values()).tolist() for source in sources)))
        return np.array(results, result.dtype).reshape(sources[0].stored.shape)


def _not_wide(sources: Iterable[Elements], reason: str) -> None:
    if any(source.storage is FLOAT64 for source in sources):
        raise ImageError(f"the sources are float64, but {reason}: convert them, or use mode 'ideal'")


@dataclass(frozen=True)
class _Stepwise:
    """Every formula in float32, operation by operation."""

    f: _Arithmetic

    def neuron(
        self,
        descriptor: MPSNNNeuronDescriptor,
        source: Elements,
        result: StorageFormat,
        slopes: ChannelSlopes | None = None,
        *,
        gradient: Elements | None = None,
        workers: int = 1,
    ) -> Stored:
        row = descriptor.row

        def forward(start: int, x: Floats) -> Floats:
            return row.stepwise_forward(x, _parameters(descriptor, slopes, start, x.size), self.f)

        def derivative(start: int, x: Floats, incoming: Floats) -> Floats:
            return row.stepwise_derivative(x, _parameters(descriptor, slopes, start, x.size), self.f) * incoming

        if gradient is None:
            return _by_blocks(forward, [source], result, workers)
        return _by_blocks(derivative, [source, gradient], result, workers)

    def elementwise(
        self, operation: Elementwise, sources: Sequence[Elements], result: StorageFormat, *, workers: int = 1
    ) -> Stored:
        def block(start: int, *values: Floats) -> Floats:
            return np.asarray(operation.stepwise(self.f, *values), np.float32)

        return _by_blocks(block, sources, result, workers)


def _parameters(
    descriptor: MPSNNNeuronDescriptor, slopes: ChannelSlopes | None, start: int, size: int
) -> Float32Parameters:
    window = np.empty(0) if slopes is None else slopes.window(start, size)
    a, b, c = (np.float32(value) for value in (descriptor.a, descriptor.b, descriptor.c))
    return Float32Parameters(a, b, c, window.astype(np.float32))


def _by_blocks(
    block: Callable[..., Floats], sources: Sequence[Elements], result: StorageFormat, workers: int
) -> Stored:
    """Load as float32, compute, store: ``block(start, *loaded)`` for each block of the flattened sources."""
    _not_wide(sources, "a stepwise mode computes in float32")
    out = np.empty(sources[0].stored.shape, result.dtype)
    flat_out, flats = out.reshape(-1), [Elements(flat(source.stored), source.storage) for source in sources]

    def store(start: int, stop: int) -> None:
        loaded = [
            source.storage.decode(source.stored[start:stop], np.empty(stop - start)).astype(np.float32)
            for source in flats
        ]
        values = block(start, *loaded).astype(np.float64)
        np.copyto(values, np.nan, where=np.isnan(values))
        result.encode(values, flat_out[start:stop])

    over_blocks(store, out.size, workers)
    return out


MODES: Mapping[str, Evaluation] = MappingProxyType(
    {
        "ideal": _Ideal(),
        "specified": _Specified(),
        "stepwise": _Stepwise(_Arithmetic(fused=False)),
        "stepwise-fma": _Stepwise(_Arithmetic(fused=True)),
    }
)
"""Each mode by name: the exact value rounded once, fast or as specified; the formula in float32, contracted or not."""


def evaluation(mode: object) -> Evaluation:
    """
    The evaluation of a mode.

    Raises
    ------
    ParameterError
        `mode` is unknown.
    """
    if not isinstance(mode, str) or str.__str__(mode) not in MODES:
        raise ParameterError(f"mode is {shown(mode)}: choose one of {', '.join(MODES)}")
    return MODES[str.__str__(mode)]
