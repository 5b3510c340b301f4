"""Why an element may be wrong: what a model of arithmetic allows, or a fault that explains all."""

from __future__ import annotations

import numpy as np

from mpsref.arrays import Elements
from mpsref.operations import NeuronForward, NeuronGradient
from mpsref.storage import StorageFormat
from mpsref.testing.subject import Tried
from mpsref.verify.bounds import BEYOND, MODELS, WITHIN
from mpsref.verify.case import Case, within
from mpsref.verify.compare import Tolerance
from mpsref.verify.faults import explain
from mpsref.verify.judge import neuron_judge
from mpsref.verify.running import Reason

__all__ = ["why"]

MENTIONED = 12
"""So many of the faults that explain most are looked at."""

EXPLAINING = {"float32": ("metal-precise", "metal-fast"), "float16": ("metal-precise", "metal-fast", "metal-half")}
"""The models that are asked why, the strictest first."""


def why(tried: Tried, index: int, evidence: Tried, kind: str, storage: StorageFormat) -> str:
    """What a model says of the element, or else a hypothesis of all elements that fail like it."""
    given = None if tried.upstream is None else Elements(tried.upstream, storage)
    got, x = Elements(tried.got, storage), Elements(tried.x, storage)
    for model in EXPLAINING[storage.name]:
        judge = neuron_judge(tried.descriptor, MODELS[model], got, x, given)
        (found,) = judge(np.array([index], np.intp)).tolist()
        if found == WITHIN:
            return f"within what {model} arithmetic allows the formula"
        if found != BEYOND and Reason(found) is not Reason.NAN_UNDEFINED:
            return f"{Reason(found).text}, as {model} arithmetic may"
    of_all = explain(_case(evidence, kind, storage), MENTIONED)
    # Of a fault that a single element shows, no arrangement of elements is to blame.
    alone = explain(_case(tried, kind, storage), MENTIONED) if tried.x.size == 1 else of_all
    names = {finding.name for finding in alone if finding.fits}
    for finding in of_all:
        if finding.fits and finding.name in names and not finding.where and finding.explained == finding.of:
            return f"{', '.join(filter(None, (finding.name, finding.detail)))}: {finding.sentence}"
    return ""


def _case(tried: Tried, kind: str, storage: StorageFormat) -> Case:
    """A call as an image of one row, in which what fails in this way is bad."""
    bad = np.zeros(tried.x.size, np.bool_)
    bad[tried.of(kind)] = True
    shape = (1, 1, *tried.x.shape)
    return Case(
        NeuronForward(tried.descriptor) if tried.upstream is None else NeuronGradient(tried.descriptor),
        tuple(Elements(one.reshape(shape), storage) for one in (tried.upstream, tried.x) if one is not None),
        storage,
        tried.got.reshape(shape),
        tried.want.reshape(shape),
        bad.reshape(shape),
        within(storage, Tolerance()),
    )
