"""Operations on one or two elements with a rational result, evaluated exactly and rounded once."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Protocol

import numpy as np

from mpsref.arrays import Elements, Stored, Wide, flat
from mpsref.neuron.rounding import canonical_nan
from mpsref.neuron.threads import over_blocks, thread
from mpsref.storage import StorageFormat

__all__ = ["Elementwise", "elementwise"]


class Elementwise(Protocol):
    """An operation on the elements of one source or two; see `mpsref.operations`."""

    def exact(self, *values: Decimal) -> Decimal:
        """The result for one element: the specification."""

    def odd(self, *values: Wide) -> Wide:
        """The results for float64 arrays, which it may overwrite: exact, or rounded to odd."""

    def stepwise(self, f: Any, *sources: Any) -> Any:
        """The documented formula, operation by operation, for numbers of any kind."""


def elementwise(
    operation: Elementwise, sources: Sequence[Elements], result: StorageFormat, *, workers: int = 1
) -> Stored:
    """The exact result for each element of one or two sources of one shape, rounded once."""
    flats, out = [flat(source.stored) for source in sources], np.empty(sources[0].stored.shape, result.dtype)
    flat_out = out.reshape(-1)

    def block(start: int, stop: int) -> None:
        buffers = thread.now.scratch[: stop - start], thread.now.upstream[: stop - start]
        values = [
            source.storage.decode(stored[start:stop], buffer)
            for source, stored, buffer in zip(sources, flats, buffers, strict=False)
        ]
        canonical_nan(result.encode(operation.odd(*values), flat_out[start:stop]))

    over_blocks(block, out.size, workers)
    return out
