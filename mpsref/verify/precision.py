"""Which precision a layer was computed in, where that is within its bounds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mpsref.arrays import meaning
from mpsref.verify.case import Case
from mpsref.verify.hypotheses import Hypothesis

__all__ = ["precision_note"]

FEWEST, NEARER = 16, 0.25
"""See `precision_note`."""


def precision_note(case: Case, hypotheses: Sequence[Hypothesis]) -> str:
    """
    Which precision the device seems to have used, though it is within the bounds; empty for what was asked for.

    The bounds of long sums in any order are far wider than the errors that a device makes. So the distances of the
    whole image from the reference, each relative to its own bound, are compared with those from what another precision
    gives: it is named if its mean is less than a quarter, of at least `FEWEST` elements that are not exact.
    """
    storage = case.result
    got, want = (meaning(array, storage) for array in (case.got, case.want))
    if np.count_nonzero(got != want) < max(FEWEST, got.size / 100):
        return ""
    everywhere = np.arange(got.size)
    with np.errstate(all="ignore"):
        for hypothesis in hypotheses:
            for candidate in hypothesis.candidates(case):
                assert candidate.given is not None
                size = np.broadcast_to(np.asarray(candidate.given.layer.radius()), got.shape)
                given = candidate.at(case, everywhere)[0].reshape(got.shape)
                other, own = (np.abs(got - each) / size for each in (meaning(given, storage), want))
                candidate.release()
                usable = np.isfinite(other) & np.isfinite(own)
                if usable.any() and other[usable].mean() < NEARER * own[usable].mean():
                    name = ", ".join(filter(None, (hypothesis.name, candidate.detail)))
                    return f"{name}: nearer than the reference is"
    return ""
