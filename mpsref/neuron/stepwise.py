"""
The modes of evaluation, and the stepwise ones: the documented formula in float32, every operation rounded.

That is what a plain shader does. It explains what a device gives; it never judges, since its faults are the formula's.
Which operations there are, and in which order, the rows say; here is how each of them rounds. In the elementary
functions devices differ: here they are correctly rounded, the same on every machine.

Subnormals are kept, though devices may flush them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType
from typing import Protocol

import numpy as np

from mpsref.arrays import Elements, Floats, Mask, Stored, Wide
from mpsref.enums import MPSCNNNeuronType, MPSImageFeatureChannelFormat
from mpsref.errors import ImageError, ParameterError, shown
from mpsref.neuron.descriptor import MPSNNNeuronDescriptor
from mpsref.neuron.elementwise import Elementwise, elementwise
from mpsref.neuron.evaluate import forward, gradient
from mpsref.neuron.exact import Digits, settle
from mpsref.neuron.kernels import KERNELS
from mpsref.neuron.reference import Specified
from mpsref.neuron.slopes import ChannelSlopes
from mpsref.neuron.table import Scalar
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
    """What a mode does; `mpsref.neuron.evaluate` documents the arguments."""

    def forward(
        self,
        descriptor: MPSNNNeuronDescriptor,
        source: Elements,
        result: StorageFormat,
        slopes: ChannelSlopes | None = None,
        *,
        workers: int = 1,
    ) -> Stored:
        """The neuron's value at every element."""

    def gradient(
        self,
        descriptor: MPSNNNeuronDescriptor,
        gradient: Elements,
        source: Elements,
        result: StorageFormat,
        slopes: ChannelSlopes | None = None,
        *,
        workers: int = 1,
    ) -> Stored:
        """`gradient`, the incoming one, times the neuron's slope at every element of `source`."""

    def elementwise(
        self, operation: Elementwise, sources: Sequence[Elements], result: StorageFormat, *, workers: int = 1
    ) -> Stored:
        """The operation's result for every element."""


@dataclass(frozen=True)
class _Parameters:
    """A descriptor's parameters as float32, and the slopes of a block."""

    a: np.float32
    b: np.float32
    c: np.float32
    data: Floats


@dataclass(frozen=True)
class _Arithmetic:
    """The `Arithmetic` of the rows: numpy's float32 operators round once, and so does all that is here."""

    fused: bool

    def fma(self, a: Floats | Scalar, b: Floats | Scalar, c: Floats | Scalar) -> Floats:
        if not self.fused:
            return np.asarray(np.multiply(a, b) + c, np.float32)
        # The product of two float32 is a float64; the sum with another one is rounded to odd, and then only once.
        product, addend = np.broadcast_arrays(np.multiply(a, b, dtype=np.float64), np.asarray(c, np.float64))
        return round_to_odd(*two_sum(product, addend)).astype(np.float32)

    def square(self, x: Floats) -> Floats:
        return np.square(x)

    def exp(self, x: Floats) -> Floats:
        return forward(_exponential, Elements(x, FLOAT32), FLOAT32)

    def log(self, x: Floats | Scalar) -> Floats:
        return forward(_logarithm, Elements(np.asarray(x, np.float32), FLOAT32), FLOAT32)

    def tanh(self, x: Floats) -> Floats:
        return forward(_tanh, Elements(x, FLOAT32), FLOAT32)

    def erf(self, x: Floats) -> Floats:
        # Here, because importing mpsref must not import scipy.special.
        from scipy.special import erf  # noqa: PLC0415

        wide = x.astype(np.float64)
        return _rounded(erf(wide), ERF_ERROR, lambda open_: settle(_exact_erf, wide[open_], None, FLOAT32))

    def pow(self, base: Floats | Scalar, exponent: Floats | Scalar) -> Floats:
        bases, exponents = np.broadcast_arrays(base, exponent)
        # What float64 leaves open is finite and not 0, and the neurons differ from IEEE's pow at no such value.
        neuron, x = (
            (MPSNNNeuronDescriptor(MPSCNNNeuronType.power, c=float(exponent)), bases)
            if np.ndim(exponent) == 0
            else (MPSNNNeuronDescriptor(MPSCNNNeuronType.exponential, c=float(base)), exponents)
        )
        return _rounded(
            np.power(bases, exponents, dtype=np.float64),
            KERNELS[type(neuron.row)].error_bound(neuron),
            lambda open_: forward(neuron, Elements(x[open_].astype(np.float32), FLOAT32), FLOAT32),
        )

    def min(self, x: Floats, y: Scalar) -> Floats:
        return np.where((x < y) | ((x == y) & np.signbit(x)), x, np.float32(y))

    def max(self, x: Floats, y: Scalar) -> Floats:
        return -self.min(-x, -y)

    def where(self, condition: Mask, x: Floats | Scalar, y: Floats | Scalar) -> Floats:
        return np.where(condition, np.asarray(x, np.float32), np.asarray(y, np.float32))


def _rounded(wide: Wide, error: float, decide: Callable[[Mask], Floats]) -> Floats:
    """float64 results as float32; `decide` gives those of which a relative `error` leaves the rounding open."""
    result = (wide * (1.0 + error)).astype(np.float32)
    open_ = (result != (wide * (1.0 - error)).astype(np.float32)) & ~np.isnan(wide)
    if open_.any():
        result[open_] = decide(open_)
    return result


def _exact_erf(x: Decimal, m: Digits) -> Decimal:
    return m.erf(x)


class _Ideal:
    """The exact value, rounded once."""

    forward = staticmethod(forward)
    gradient = staticmethod(gradient)
    elementwise = staticmethod(elementwise)


@dataclass(frozen=True)
class _Stepwise:
    """Every formula in float32, operation by operation."""

    f: _Arithmetic

    def forward(
        self,
        descriptor: MPSNNNeuronDescriptor,
        source: Elements,
        result: StorageFormat,
        slopes: ChannelSlopes | None = None,
        *,
        workers: int = 1,
    ) -> Stored:
        def block(start: int, x: Floats) -> Floats:
            return descriptor.row.stepwise_forward(x, _parameters(descriptor, slopes, start, x.size), self.f)

        return _by_blocks(block, [source], result, workers)

    def gradient(
        self,
        descriptor: MPSNNNeuronDescriptor,
        gradient: Elements,
        source: Elements,
        result: StorageFormat,
        slopes: ChannelSlopes | None = None,
        *,
        workers: int = 1,
    ) -> Stored:
        def block(start: int, incoming: Floats, x: Floats) -> Floats:
            slope = descriptor.row.stepwise_derivative(x, _parameters(descriptor, slopes, start, x.size), self.f)
            return slope * incoming

        return _by_blocks(block, [gradient, source], result, workers)

    def elementwise(
        self, operation: Elementwise, sources: Sequence[Elements], result: StorageFormat, *, workers: int = 1
    ) -> Stored:
        def block(start: int, *values: Floats) -> Floats:
            return np.asarray(operation.stepwise(self.f, *values), np.float32)

        return _by_blocks(block, sources, result, workers)


def _parameters(descriptor: MPSNNNeuronDescriptor, slopes: ChannelSlopes | None, start: int, size: int) -> _Parameters:
    window = np.empty(0) if slopes is None else slopes.window(start, size)
    a, b, c = (np.float32(value) for value in (descriptor.a, descriptor.b, descriptor.c))
    return _Parameters(a, b, c, window.astype(np.float32))


def _by_blocks(
    block: Callable[..., Floats], sources: Sequence[Elements], result: StorageFormat, workers: int
) -> Stored:
    """Load as float32, compute, store: ``block(start, *loaded)`` on blocks of the flattened sources."""
    for source in sources:
        if source.storage is FLOAT64:
            raise ImageError(
                "the sources are float64, but a stepwise mode computes in float32: convert them, or use mode 'ideal'"
            )
    out = np.empty(sources[0].stored.shape, result.dtype)
    flat = out.reshape(-1)
    flats = [Elements(np.ascontiguousarray(source.stored).reshape(-1), source.storage) for source in sources]

    def store(start: int, stop: int) -> None:
        loaded = [
            source.storage.decode(source.stored[start:stop], np.empty(stop - start)).astype(np.float32)
            for source in flats
        ]
        values = block(start, *loaded).astype(np.float64)
        np.copyto(values, np.nan, where=np.isnan(values))
        result.encode(values, flat[start:stop])

    over_blocks(store, out.size, workers)
    return out


MODES: Mapping[str, Evaluation] = MappingProxyType(
    {
        "ideal": _Ideal(),
        "specified": Specified(),
        "stepwise": _Stepwise(_Arithmetic(fused=False)),
        "stepwise-fma": _Stepwise(_Arithmetic(fused=True)),
    }
)
"""Each mode by name: the exact value rounded once, fast or as specified; the formula in float32, contracted or not."""


def evaluation(mode: object) -> Evaluation:
    """
    What evaluates in a mode.

    Raises
    ------
    ParameterError
        There is no such mode.
    """
    if not isinstance(mode, str) or str.__str__(mode) not in MODES:
        raise ParameterError(f"mode is {shown(mode)}: choose one of {', '.join(MODES)}")
    return MODES[str.__str__(mode)]
