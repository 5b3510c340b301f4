"""Why an element may be wrong: a model of arithmetic allows it, or a fault explains all failures of its kind."""

from __future__ import annotations

import numpy as np

from mpsref.arrays import Elements
from mpsref.operations import NeuronForward, NeuronGradient
from mpsref.storage import StorageFormat
from mpsref.testing.subject import Trial
from mpsref.verify.bounds import BEYOND, MODELS, WITHIN
from mpsref.verify.case import Case, within
from mpsref.verify.compare import Tolerance
from mpsref.verify.faults import explain
from mpsref.verify.judge import neuron_judge
from mpsref.verify.running import Reason

__all__ = ["why"]

MENTIONED = 12
"""Faults that are considered, those that explain most."""

EXPLAINING = {"float32": ("metal-precise", "metal-fast"), "float16": ("metal-precise", "metal-fast", "metal-half")}
"""Models that may allow a result, the strictest first."""


def why(trial: Trial, index: int, evidence: Trial, kind: str, storage: StorageFormat) -> str:
    """The reason that a model gives for the element, or else the fault that explains all elements that fail like it."""
    incoming = None if trial.upstream is None else Elements(trial.upstream, storage)
    got, x = Elements(trial.got, storage), Elements(trial.x, storage)
    for model in EXPLAINING[storage.name]:
        judge = neuron_judge(trial.descriptor, MODELS[model], got, x, incoming)
        (verdict,) = judge(np.array([index], np.intp)).tolist()
        if verdict == WITHIN:
            return f"within what {model} arithmetic allows the formula"
        if verdict != BEYOND and Reason(verdict) is not Reason.NAN_UNDEFINED:
            return f"{Reason(verdict).text}, as {model} arithmetic may"
    of_all = explain(_case(evidence, kind, storage), MENTIONED)
    # Where a single element shows the fault, the arrangement of elements is not to blame.
    alone = explain(_case(trial, kind, storage), MENTIONED) if trial.x.size == 1 else of_all
    names = {finding.name for finding in alone if finding.fits}
    for finding in of_all:
        if finding.fits and finding.name in names and not finding.where and finding.explained == finding.of:
            return f"{', '.join(filter(None, (finding.name, finding.detail)))}: {finding.sentence}"
    return ""


def _case(trial: Trial, kind: str, storage: StorageFormat) -> Case:
    """A trial as an image of one row, in which the elements that fail in this way are bad."""
    bad = np.zeros(trial.x.size, np.bool_)
    bad[trial.failing(kind)] = True
    shape = (1, 1, *trial.x.shape)
    return Case(
        NeuronForward(trial.descriptor) if trial.upstream is None else NeuronGradient(trial.descriptor),
        tuple(Elements(each.reshape(shape), storage) for each in (trial.upstream, trial.x) if each is not None),
        storage,
        trial.got.reshape(shape),
        trial.want.reshape(shape),
        bad.reshape(shape),
        within(storage, Tolerance()),
    )
