"""Which precision a layer was computed in, where that is within its bounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from mpsref.arrays import Stored, meaning
from mpsref.storage import StorageFormat
from mpsref.verify.case import Case
from mpsref.verify.hypotheses import Hypothesis

__all__ = ["precision_note"]

FEWEST, NEARER = 16, 0.25
"""See `precision_note`."""


def precision_note(
    got: Stored, want: Stored, storage: StorageFormat, case: Callable[[], Case], hypotheses: Sequence[Hypothesis]
) -> str:
    """
    Which precision the device seems to have used, though it is within the bounds; empty for what was asked for.

    The bounds of long sums in any order are far wider than the errors that a device makes. So the distances of the
    whole image from the reference, each relative to its own bound, are compared with those from what another precision
    gives: it is named if its mean is less than a quarter, of at least `FEWEST` elements that are not exact.

    `case` is called only if there are so many: it computes the whole layer.
    """
    got, want = (meaning(array, storage) for array in (got, want))
    if np.count_nonzero(got != want) < max(FEWEST, got.size / 100):
        return ""
    layers, everywhere = case(), np.arange(got.size)
    with np.errstate(all="ignore"):
        for hypothesis in hypotheses:
            for candidate in hypothesis.candidates(layers):
                assert candidate.given is not None
                size = np.broadcast_to(np.asarray(candidate.given.layer.radius), got.shape)
                given = candidate.at(layers, everywhere)[0].reshape(got.shape)
                other, own = (np.abs(got - each) / size for each in (meaning(given, storage), want))
                candidate.release()
                usable = np.isfinite(other) & np.isfinite(own)
                if usable.any() and other[usable].mean() < NEARER * own[usable].mean():
                    name = ", ".join(filter(None, (hypothesis.name, candidate.detail)))
                    return f"{name}: nearer than the reference is"
    return ""
