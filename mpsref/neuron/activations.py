"""
The activations that are not Apple's: rows of the same kind as the sixteen neurons, in a table of their own.

A row's parameters have names of their own, and reach its functions in order as a, b and c. At a kink the slope is the
one that torch takes; `sides` has both one-sided ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import mpsref.neuron.activation_values as spec
from mpsref.arrays import Floats
from mpsref.enums import ActivationType
from mpsref.neuron.table import Arithmetic, Float32Parameters, Neuron, Parameters, Scalar

__all__ = ["ACTIVATIONS"]

RATE = 0.7978845608028654
"""The square root of 2 / pi."""

CUBIC = 0.044715
SUBNORMAL = 2.0**-149
"""The least parameter above 0."""

A = ActivationType


def _sigmoid(z: Floats, f: Arithmetic) -> Floats:
    return 1.0 / (1 + f.exp(-z))


class SiLU(Neuron):
    neuron_type = A.silu
    parameters = MappingProxyType({"beta": 1.0})
    formula = "x / (1 + e^(-beta x))"
    slope = "s (1 + beta x (1 - s)), s = 1 / (1 + e^(-beta x))"
    source = "Hendrycks and Gimpel 2016, arXiv 1606.08415; with beta (swish): Ramachandran et al. 2017, 1710.05941"
    exact = spec.silu, spec.silu_slope

    @staticmethod
    def stepwise_forward(x: Floats, p: Float32Parameters, f: Arithmetic) -> Floats:
        return x / (1 + f.exp(-(p.a * x)))

    @staticmethod
    def stepwise_derivative(x: Floats, p: Float32Parameters, f: Arithmetic) -> Floats:
        z = p.a * x
        s = _sigmoid(z, f)
        return s * f.fma(z, 1 - s, 1.0)


class QuickGELU(SiLU):
    neuron_type = A.quick_gelu
    parameters = MappingProxyType({"alpha": 1.702})
    formula = "x / (1 + e^(-alpha x))"
    slope = "s (1 + alpha x (1 - s)), s = 1 / (1 + e^(-alpha x))"
    source = "Hendrycks and Gimpel 2016, section 2; alpha as in ONNX Runtime's QuickGelu"


class GELUTanh(Neuron):
    neuron_type = A.gelu_tanh
    formula = "x/2 (1 + tanh(u)), u = sqrt(2 / pi) (x + 0.044715 x^3)"
    slope = "1/2 (1 + t) + x/2 (1 - t^2) sqrt(2 / pi) (1 + 0.134145 x^2), t = tanh(u)"
    source = "Hendrycks and Gimpel 2016, section 2"
    exact = spec.gelu_tanh, spec.gelu_tanh_slope

    @staticmethod
    def stepwise_forward(x: Floats, p: Float32Parameters, f: Arithmetic) -> Floats:
        return 0.5 * x * (1 + f.tanh(RATE * f.fma(CUBIC, x * x * x, x)))

    @staticmethod
    def stepwise_derivative(x: Floats, p: Float32Parameters, f: Arithmetic) -> Floats:
        t = f.tanh(RATE * f.fma(CUBIC, x * x * x, x))
        rest = 0.5 * x * f.fma(-t, t, 1.0) * RATE * f.fma(3 * CUBIC, x * x, 1.0)
        return f.fma(0.5, 1 + t, rest)


class Mish(Neuron):
    neuron_type = A.mish
    formula = "x tanh(ln(1 + e^x))"
    slope = "t + x (1 - t^2) / (1 + e^-x), t = tanh(ln(1 + e^x))"
    source = "Misra 2019, arXiv 1908.08681"
    exact = spec.mish, spec.mish_slope

    @staticmethod
    def stepwise_forward(x: Floats, p: Float32Parameters, f: Arithmetic) -> Floats:
        return x * f.tanh(f.log(1 + f.exp(x)))

    @staticmethod
    def stepwise_derivative(x: Floats, p: Float32Parameters, f: Arithmetic) -> Floats:
        t = f.tanh(f.log(1 + f.exp(x)))
        return f.fma(x * _sigmoid(x, f), f.fma(-t, t, 1.0), t)


class HardSwish(Neuron):
    neuron_type = A.hardswish
    formula = "x min(max(x + 3, 0), 6) / 6"
    slope = "0 if x <= -3, 1 if x >= 3, else (2 x + 3) / 6"
    source = "Howard et al. 2019, arXiv 1905.02244; -0 for x <= -3, as torch, jax, mlx and tensorflow give"
    exact = spec.hard_swish, spec.hard_swish_slope

    @staticmethod
    def kinks(p: Parameters) -> tuple[float, ...]:
        return -3.0, 3.0

    @staticmethod
    def sides(p: Parameters) -> tuple[tuple[float, float], ...]:
        return (0.0, -0.5), (1.5, 1.0)

    @staticmethod
    def stepwise_forward(x: Floats, p: Float32Parameters, f: Arithmetic) -> Floats:
        return x * f.min(f.max(x + 3, 0.0), 6.0) / 6.0

    @staticmethod
    def stepwise_derivative(x: Floats, p: Float32Parameters, f: Arithmetic) -> Floats:
        return f.where(x <= -3, 0.0, f.where(x >= 3, 1.0, f.fma(2.0, x, 3.0) / 6.0))


class HardSigmoid(Neuron):
    neuron_type = A.hardsigmoid
    formula = "min(max(x + 3, 0), 6) / 6"
    slope = "1/6 if -3 < x < 3, else 0"
    source = "Howard et al. 2019, arXiv 1905.02244; Apple's hardSigmoid has slope and offset as parameters"
    exact = spec.hard_sigmoid, spec.hard_sigmoid_slope

    @staticmethod
    def kinks(p: Parameters) -> tuple[float, ...]:
        return -3.0, 3.0

    @staticmethod
    def sides(p: Parameters) -> tuple[tuple[float, float], ...]:
        return (0.0, 1 / 6), (1 / 6, 0.0)

    @staticmethod
    def stepwise_forward(x: Floats, p: Float32Parameters, f: Arithmetic) -> Floats:
        return f.min(f.max(x + 3, 0.0), 6.0) / 6.0

    @staticmethod
    def stepwise_derivative(x: Floats, p: Float32Parameters, f: Arithmetic) -> Floats:
        return f.where((x > -3) & (x < 3), 1 / 6, 0.0)


class SELU(Neuron):
    neuron_type = A.selu
    parameters = MappingProxyType({"alpha": 1.6732632423543772, "scale": 1.0507009873554805})
    formula = "scale (x if x > 0 else alpha (e^x - 1))"
    slope = "scale if x > 0 else scale alpha e^x"
    source = "Klambauer et al. 2017, arXiv 1706.02515; the constants as float32, as in ONNX"
    exact = spec.selu, spec.selu_slope

    @staticmethod
    def kinks(p: Parameters) -> tuple[float, ...]:
        return (0.0,)

    @staticmethod
    def sides(p: Parameters) -> tuple[tuple[float, float], ...]:
        return ((p.a * p.b, p.b),)

    @staticmethod
    def stepwise_forward(x: Floats, p: Float32Parameters, f: Arithmetic) -> Floats:
        return p.b * f.where(x > 0, x, p.a * (f.exp(x) - 1))

    @staticmethod
    def stepwise_derivative(x: Floats, p: Float32Parameters, f: Arithmetic) -> Floats:
        return f.where(x > 0, p.b, p.b * p.a * f.exp(x))


class CELU(Neuron):
    neuron_type = A.celu
    parameters = MappingProxyType({"alpha": 1.0})
    least = MappingProxyType({"alpha": SUBNORMAL})
    formula = "x if x > 0 else alpha (e^(x / alpha) - 1)"
    slope = "1 if x > 0 else e^(x / alpha)"
    source = "Barron 2017, arXiv 1704.07483"
    exact = spec.celu, spec.celu_slope

    @staticmethod
    def stepwise_forward(x: Floats, p: Float32Parameters, f: Arithmetic) -> Floats:
        return f.where(x > 0, x, p.a * (f.exp(x / p.a) - 1))

    @staticmethod
    def stepwise_derivative(x: Floats, p: Float32Parameters, f: Arithmetic) -> Floats:
        return f.where(x > 0, 1.0, f.exp(x / p.a))


class LogSigmoid(Neuron):
    neuron_type = A.logsigmoid
    formula = "-ln(1 + e^-x)"
    slope = "1 / (1 + e^x)"
    source = "torch.nn.LogSigmoid"
    exact = spec.log_sigmoid, spec.log_sigmoid_slope

    @staticmethod
    def stepwise_forward(x: Floats, p: Float32Parameters, f: Arithmetic) -> Floats:
        return -f.log(1 + f.exp(-x))

    @staticmethod
    def stepwise_derivative(x: Floats, p: Float32Parameters, f: Arithmetic) -> Floats:
        return 1.0 / (1 + f.exp(x))


class SoftPlus(Neuron):
    neuron_type = A.softplus
    parameters = MappingProxyType({"beta": 1.0, "threshold": 20.0})
    least = MappingProxyType({"beta": SUBNORMAL})
    formula = "x if beta x > threshold else ln(1 + e^(beta x)) / beta"
    slope = "1 if beta x > threshold else 1 / (1 + e^(-beta x))"
    source = "torch.nn.Softplus; Dugas et al. 2000"
    exact = spec.softplus, spec.softplus_slope

    @staticmethod
    def stepwise_forward(x: Floats, p: Float32Parameters, f: Arithmetic) -> Floats:
        z = p.a * x
        return f.where(z > p.b, x, f.log(1 + f.exp(z)) / p.a)

    @staticmethod
    def stepwise_derivative(x: Floats, p: Float32Parameters, f: Arithmetic) -> Floats:
        z = p.a * x
        return f.where(z > p.b, 1.0, _sigmoid(z, f))


class ReLUSquared(Neuron):
    neuron_type = A.relu_squared
    formula = "max(x, 0)^2"
    slope = "2 max(x, 0)"
    source = "So et al. 2021, arXiv 2109.08668"
    exact = spec.relu_squared, spec.relu_squared_slope

    @staticmethod
    def stepwise_forward(x: Floats, p: Float32Parameters, f: Arithmetic) -> Floats:
        return f.square(f.max(x, 0.0))

    @staticmethod
    def stepwise_derivative(x: Floats, p: Float32Parameters, f: Arithmetic) -> Floats:
        return 2 * f.max(x, 0.0)


class TanhShrink(Neuron):
    neuron_type = A.tanhshrink
    formula = "x - tanh(x)"
    slope = "tanh(x)^2"
    source = "torch.nn.Tanhshrink"
    exact = spec.tanhshrink, spec.tanhshrink_slope

    @staticmethod
    def stepwise_forward(x: Floats, p: Float32Parameters, f: Arithmetic) -> Floats:
        return x - f.tanh(x)

    @staticmethod
    def stepwise_derivative(x: Floats, p: Float32Parameters, f: Arithmetic) -> Floats:
        return f.square(f.tanh(x))


class HardShrink(Neuron):
    neuron_type = A.hardshrink
    parameters = MappingProxyType({"lambd": 0.5})
    least = MappingProxyType({"lambd": 0.0})
    formula = "x if |x| > lambd else 0"
    slope = "1 if |x| > lambd else 0"
    source = "torch.nn.Hardshrink; Donoho and Johnstone 1994"
    exact = spec.hardshrink, spec.shrink_slope

    @staticmethod
    def kinks(p: Parameters) -> tuple[float, ...]:
        return (-p.a, p.a) if p.a else (0.0,)

    @staticmethod
    def sides(p: Parameters) -> tuple[tuple[float, float], ...]:
        return ((1.0, 0.0), (0.0, 1.0)) if p.a else ((1.0, 1.0),)

    @staticmethod
    def stepwise_forward(x: Floats, p: Float32Parameters, f: Arithmetic) -> Floats:
        return f.where(abs(x) > p.a, x, 0.0)

    @staticmethod
    def stepwise_derivative(x: Floats, p: Float32Parameters, f: Arithmetic) -> Floats | Scalar:
        return f.where(abs(x) > p.a, 1.0, 0.0)


class SoftShrink(HardShrink):
    neuron_type = A.softshrink
    formula = "x - lambd if x > lambd, x + lambd if x < -lambd, else 0"
    source = "torch.nn.Softshrink; Donoho and Johnstone 1994"
    exact = spec.softshrink, spec.shrink_slope

    @staticmethod
    def stepwise_forward(x: Floats, p: Float32Parameters, f: Arithmetic) -> Floats:
        return f.where(x > p.a, x - p.a, f.where(x < -p.a, x + p.a, 0.0))


ACTIVATIONS: Mapping[ActivationType, Neuron] = MappingProxyType(
    {
        row.neuron_type: row()
        for row in (
            SiLU,
            QuickGELU,
            GELUTanh,
            Mish,
            HardSwish,
            HardSigmoid,
            SELU,
            CELU,
            LogSigmoid,
            SoftPlus,
            ReLUSquared,
            TanhShrink,
            SoftShrink,
            HardShrink,
        )
    }
)
"""The row of each activation."""
