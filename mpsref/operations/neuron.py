"""Neurons and their gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mpsref.arrays import Elements, Stored, Wide
from mpsref.enums import MPSCNNNeuronType as T
from mpsref.image import MPSImage
from mpsref.neuron import forward
from mpsref.neuron.descriptor import MPSNNNeuronDescriptor, channels_or_error
from mpsref.neuron.stepwise import Evaluation, evaluation
from mpsref.operations.base import Operation, Role, Size, Spread, spread_by_lane
from mpsref.storage import FLOAT64, StorageFormat

__all__ = ["NeuronForward", "NeuronGradient", "NeuronOperation"]


@dataclass(frozen=True)
class NeuronOperation(Operation):
    """Base of a neuron and its gradient."""

    neuron: MPSNNNeuronDescriptor

    @property
    def descriptor(self) -> MPSNNNeuronDescriptor:
        return self.neuron

    def result_size(self, *sources: Size) -> Size:
        """The size of the source, whose channels must match the slopes of pReLU."""
        size = super().result_size(*sources)
        channels_or_error(self.neuron, size[3], "the source")
        return size

    def evaluate(
        self, sources: Sequence[Elements], result: StorageFormat, how: Evaluation, spread: Spread, workers: int = 1
    ) -> Stored:
        *incoming, x = sources
        slopes = None if self.neuron.data is None else spread(self.neuron.data)
        gradient = incoming[0] if incoming else None
        return how.neuron(self.neuron, x, result, slopes, gradient=gradient, workers=workers)

    def slope(self, *sources: MPSImage) -> npt.NDArray[np.float64]:
        """F' at the input, good to a few ULP of float64."""
        x = sources[-1]
        slope: npt.NDArray[np.float64] = self.evaluate(
            [Elements(np.ones(x.slices.shape), FLOAT64), Elements(x.slices, x.storage)],
            FLOAT64,
            evaluation("ideal"),
            spread_by_lane(x),
        )
        return slope

    def slope_text(self, names: Sequence[str], symbol: str) -> str:
        return f"{symbol}'({names[-1]})"

    def facts(self) -> dict[str, Any]:
        row = self.neuron.row
        return {
            "neuron": row.neuron_type.name,
            "formula": row.formula,
            "slope": row.slope,
            "domain": row.domain,
            "constant": row.slope_is_constant,
        }


@dataclass(frozen=True)
class NeuronForward(NeuronOperation):
    """f(x)."""

    kind = "forward"
    roles = (Role.INPUT,)

    @property
    def is_copy(self) -> bool:
        return self.neuron.neuron_type is T.none

    def gradients(self) -> tuple[Operation, ...]:
        return (NeuronGradient(self.neuron),)

    def stepwise(self, f: Any, *sources: Any, function: Callable[[Any], Any] | None = None) -> Any:
        assert function is not None
        return function(sources[0])

    def text(self, names: Sequence[str], symbol: str) -> str:
        return f"{symbol}({names[0]})"

    def kinks(self) -> tuple[float, ...]:
        return self.neuron.row.kinks(self.neuron)

    def at_argument(self, argument: Wide) -> Wide:
        return forward(self.neuron, argument)


@dataclass(frozen=True)
class NeuronGradient(NeuronOperation):
    """The incoming gradient times f'(x)."""

    kind = "gradient"
    roles = (Role.GRADIENT, Role.INPUT)
    makes_gradient = True

    @property
    def reads(self) -> tuple[bool, ...]:
        return True, not self.neuron.row.slope_is_constant

    @property
    def is_copy(self) -> bool:
        d = self.neuron
        return d.neuron_type is T.none or (d.neuron_type is T.linear and d.a == 1)

    def stepwise(self, f: Any, *sources: Any, function: Callable[[Any], Any] | None = None) -> Any:
        assert function is not None
        return function(sources[1]) * sources[0]

    def text(self, names: Sequence[str], symbol: str) -> str:
        return f"{names[0]} * {self.slope_text(names, symbol)}"
