"""
What storing lost: numbers that became 0, infinite or NaN, where that happened, and what became so because of it.

Beside the stored numbers the graph is evaluated once more without storing any: where only the stored number is 0,
infinite or NaN, it was lost, here if the step's own result before storage was not, else by something that it reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from mpsref.arrays import Wide
from mpsref.image import MPSImage
from mpsref.neuron.stepwise import evaluation
from mpsref.operations import Role
from mpsref.storage import FLOAT64
from mpsref.teach.step import Step

__all__ = ["Lost", "lost_at", "lost_by_name"]

NAMES = ("", "0", "infinite", "nan")
HERE = ("", "underflow", "overflow", "the formula lost it")
"""By the kind of a number, see `_kind`."""


@dataclass
class Lost:
    """
    The elements of a step that were lost.

    Attributes
    ----------
    here : ndarray of int
        The kind of those that were lost by this step, else 0: 1 for 0, 2 for an infinity, 3 for NaN.
    before : ndarray of int
        The same for those that were lost before.
    text : str
        For one element: ``underflow``, or ``0 because dh1 was lost``; else how many there are of each.
    reason : str
        For one element, what those that read it say: ``dh1 was lost``, ``h1 overflowed``.
    """

    here: npt.NDArray[np.int64]
    before: npt.NDArray[np.int64]
    text: str = field(init=False, default="")
    reason: str = field(init=False, default="")


def _kind(values: Wide) -> npt.NDArray[np.int64]:
    return np.where(np.isnan(values), 3, np.where(np.isinf(values), 2, np.where(values == 0, 1, 0)))


def lost_by_name(steps: Sequence[Step]) -> dict[str, Lost]:
    """What each step lost, of those that lost or miss something."""
    here = {step.name: np.where(_is_clamped(step), 0, _lost(step.value, step.stored)) for step in steps}
    if not any(kinds.any() for kinds in here.values()):
        return {}
    exact: dict[str, MPSImage] = {}
    found: dict[str, Lost] = {}
    for step in steps:
        inputs = [exact.get(name, image) for name, image in zip(step.reads, step.images, strict=True)]
        slices = step.operation.run(*inputs, result=FLOAT64, how=evaluation("ideal"))
        exact[step.name] = step.wide(slices)
        reads = [found[name] for name, role in zip(step.reads, step.operation.roles, strict=True)
                 if name in found and role is not Role.SIZE]  # fmt: skip
        if reads or here[step.name].any():
            lost = Lost(here[step.name], _before(step, step.array(exact[step.name]), found))
            if lost.here.any() or lost.before.any():
                _describe(lost, step, reads)
                found[step.name] = lost
    return found


def lost_at(
    whole: Mapping[str, Lost], steps: Sequence[Step], places: Mapping[str, tuple[int, int, int, int]]
) -> dict[str, Lost]:
    """The same for one element, whose steps and places these are, from that of all: a window reads others, too."""
    found: dict[str, Lost] = {}
    for step in steps:
        if step.name in whole:
            at = tuple(slice(i, i + 1) for i in places[step.name])
            lost = Lost(whole[step.name].here[at], whole[step.name].before[at])
            if lost.here.any() or lost.before.any():
                _describe(lost, step, [found[name] for name in step.reads if name in found])
                found[step.name] = lost
    return found


def _lost(value: Wide, stored: Wide) -> npt.NDArray[np.int64]:
    kind = _kind(stored)
    return np.where(_kind(value) == 0, kind, 0)


def _is_clamped(step: Step) -> npt.NDArray[np.bool_]:
    """Where a number lies outside the range of a unorm format."""
    return (step.storage.unorm_max > 0) & ~((step.value >= 0) & (step.value <= 1))


def _before(step: Step, exact: Wide, found: dict[str, Lost]) -> npt.NDArray[np.int64]:
    kind = _kind(step.stored)
    before = np.where(_kind(exact) != kind, kind, 0)
    if step.upstream is not None and step.slope is not None:
        # A long product may be 0 in float64 too; it is lost all the same if what comes in was, and the slope is not 0.
        lost = found.get(step.reads[step.operation.roles.index(Role.GRADIENT)])
        if lost is not None:
            before = np.where((lost.here + lost.before > 0) & (step.slope != 0), kind, before)
    return np.where(_lost(step.value, step.stored) > 0, 0, before)


def _describe(lost: Lost, step: Step, reads: Sequence[Lost]) -> None:
    if step.stored.size == 1:
        here, before = lost.here.item(), lost.before.item()
        if here:
            lost.text = HERE[here]
            lost.reason = f"{step.name} {'overflowed' if here == 2 else 'was lost'}"
        else:
            lost.reason = reads[0].reason if reads else "others were lost"
            lost.text = f"{NAMES[before]} because {lost.reason}"
        return
    counts = [(HERE[kind], lost.here == kind) for kind in (1, 2, 3)] + [("lost before", lost.before > 0)]
    lost.text = ", ".join(f"{int(np.count_nonzero(mask)):,} {what}" for what, mask in counts if mask.any())
