"""Reports of sweeps, for people and for programs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mpsref.arguments import checked, checked_fields
from mpsref.blocks import neuron_json, part_of_patterns
from mpsref.display import counted, printable, table
from mpsref.documents import read_document
from mpsref.enums import MPSImageFeatureChannelFormat
from mpsref.errors import FileFormatError, MPSRefError, ParameterError, VerificationError, shown
from mpsref.files import write_json
from mpsref.formats import format_among
from mpsref.neuron.descriptor import MPSNNNeuronDescriptor, neuron_of
from mpsref.storage import ChannelFormat, storage_format
from mpsref.sweep.agreement import check_summary
from mpsref.sweep.summary import Mismatch, Summary
from mpsref.ulp import histogram_rows
from mpsref.verify.compare import MOST_ULP

__all__ = ["DIRECTIONS", "Subject", "SweepReport", "merge"]

DIRECTIONS = "forward", "gradient"

LONGEST_NAME = 1000
"""Characters of an implementation's name, as the schema has it."""


@checked_fields
@dataclass(frozen=True)
class Subject:
    """
    The implementation that is compared with the reference, and how.

    Parameters
    ----------
    implementation : str
        Its name.
    descriptor : MPSNNNeuronDescriptor
        The neuron and its parameters. pReLU needs exactly one slope.
    direction : str
        ``forward``, or ``gradient`` for an incoming gradient of 1.
    channel_format : MPSImageFeatureChannelFormat
        How inputs, incoming gradients and results are stored.
    ulp : int
        Units in the last place of that format that are within bounds.
    stride : int
        Of so many successive bit patterns one is an input.

    Raises
    ------
    ParameterError
        One of them is invalid.
    ImageError
        There is no such format.
    """

    implementation: str
    descriptor: MPSNNNeuronDescriptor
    direction: str = "forward"
    channel_format: ChannelFormat = MPSImageFeatureChannelFormat.float32
    ulp: int = 0
    stride: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "channel_format", format_among(self.channel_format, "channel_format").channel_format)
        if not 0 < len(self.implementation) <= LONGEST_NAME:
            raise ParameterError(
                f"implementation has a name of {len(self.implementation)} characters: give 1 to {LONGEST_NAME}"
            )
        if self.direction not in DIRECTIONS:
            raise ParameterError(f"direction is {shown(self.direction)}: choose forward or gradient")
        if self.descriptor.data is not None and self.descriptor.data.size != 1:
            raise ParameterError(f"data has {self.descriptor.data.size} slopes: a sweep is for one")
        if not 0 <= self.ulp <= MOST_ULP:
            raise ParameterError(f"ulp is {self.ulp}: give 0 to {MOST_ULP}")
        patterns = part_of_patterns((1, 1), storage_format(self.channel_format)).stop
        if not 1 <= self.stride <= patterns:
            raise ParameterError(f"stride is {self.stride}: give 1 to {patterns}")

    def to_json(self) -> dict[str, Any]:
        """All of it; parameters in C's hexadecimal notation."""
        return {
            "implementation": self.implementation,
            **neuron_json(self.descriptor),
            "direction": self.direction,
            "storage": self.channel_format.name,
            "ulp": self.ulp,
            **({"stride": self.stride} if self.stride > 1 else {}),
        }

    @property
    def inputs(self) -> int:
        """How many there are."""
        return part_of_patterns((1, 1), storage_format(self.channel_format)).stop // self.stride

    @checked
    def differences(self, other: Subject) -> list[str]:
        """The JSON fields in which two differ."""
        ours, theirs = self.to_json(), other.to_json()
        return [name for name in (ours | theirs) if ours.get(name) != theirs.get(name)]


@checked_fields
@dataclass(frozen=True)
class SweepReport:
    """
    The result of a sweep over all inputs or some.

    Attributes
    ----------
    subject : Subject
        What was compared.
    summary : Summary
        The results.
    """

    subject: Subject
    summary: Summary

    @property
    def passed(self) -> bool:
        """Whether every result is within the bounds."""
        return self.summary.beyond == 0

    @property
    def verdict(self) -> str:
        """One line."""
        summary, ulp = self.summary, self.subject.ulp
        bounds = f"within {ulp} ULP" if ulp else "exact"
        is_whole = summary.elements == self._inputs
        tail = "" if is_whole else f"; there are {self._inputs:,} inputs"
        if self.subject.stride > 1:
            tail += f"; one of every {self.subject.stride:,} bit patterns"
        if self.passed:
            are = "is" if summary.elements == 1 else "are"
            every = "all " if is_whole and summary.elements > 1 else ""
            return f"PASS: {every}{counted(summary.elements, 'result')} {are} {bounds}{tail}"
        are = "is" if summary.beyond == 1 else "are"
        return f"FAIL: {summary.beyond:,} of {counted(summary.elements, 'result')} {are} not {bounds}{tail}"

    @property
    def _plural(self) -> str:
        """The verdict as earlier versions had it, with the plural for one result, too."""
        return self.verdict.replace(" is ", " are ")

    @property
    def _inputs(self) -> int:
        return self.subject.inputs

    def check(self) -> None:
        """Raise `VerificationError`, which carries this report, unless it passed."""
        if not self.passed:
            raise VerificationError(f"{self.subject.implementation}: {self.verdict}", self)

    def text(self) -> str:
        """For people: a histogram, the worst inputs, the verdict last."""
        return "\n".join(printable(line) for line in self._lines())

    def to_json(self) -> dict[str, Any]:
        """For programs: everything, as `json` can write it."""
        return {
            "format": "mpsref-sweep",
            "version": 1,
            **self.subject.to_json(),
            "passed": self.passed,
            "verdict": self.verdict,
            **self.summary.to_json(),
        }

    @checked
    def write(self, path: str | Path) -> None:
        """Write the report as JSON, whole or not at all."""
        write_json(Path(path), self.to_json())

    @staticmethod
    @checked
    def read(path: str | Path) -> SweepReport:
        """
        Read a report.

        Raises
        ------
        FileFormatError
            It is not one, or contradicts itself.
        """
        document = read_document(Path(path), "sweep")
        try:
            subject = _subject(document)
            report = SweepReport(subject, Summary.from_json(document))
            check_summary(report.summary, storage_format(subject.channel_format), subject.ulp, subject.stride)
            derived = report.to_json()
            for name in ("elements", "exact", "passed", "verdict"):
                if document[name] != derived[name] and (name, document[name]) != ("verdict", report._plural):
                    raise ParameterError(f"{name}: contradicts the counts, which say {derived[name]}")
            if report.summary.ranges and report.summary.ranges[-1][1] > report._inputs:
                raise ParameterError(f"ranges: {subject.channel_format.name} has only {report._inputs} inputs")
        except (MPSRefError, ValueError) as error:
            raise FileFormatError(f"{path}: {error}") from None
        return report

    def _lines(self) -> Iterator[str]:
        subject, summary = self.subject, self.summary
        parameters = "".join(
            f", {name} = {np.float32(float.fromhex(value))!s}"
            for name, value in neuron_json(subject.descriptor)["parameters"].items()
        )
        name = subject.channel_format.name
        yield f"implementation  {subject.implementation}"
        yield f"neuron          {subject.descriptor.neuron_type.name}{parameters}, {subject.direction}, {name}"
        every = f", one of every {subject.stride:,} bit patterns" if subject.stride > 1 else ""
        yield f"inputs          {summary.elements:,} of {self._inputs:,}{every}"
        yield f"bounds          {subject.ulp} ULP"
        yield ""
        if summary.elements:
            others = {"NaN": summary.nan_disagreements, "infinity": summary.infinity_disagreements}
            yield from table(histogram_rows(summary.histogram, summary.elements, others), left=1)
            yield ""
        if summary.zero_signs:
            yield f"{summary.zero_signs:,} zeros have the wrong sign, which is within bounds"
            yield ""
        beyond = [m for m in summary.worst if (m.ulp or 0) > subject.ulp]
        first = [m for m in summary.first if m not in beyond and m not in summary.not_comparable]
        yield from self._listed("the worst:", beyond)
        yield from self._listed("NaN and infinities that disagree, the first:", summary.not_comparable)
        yield from self._listed("the first beyond the bounds:", first)
        yield self.verdict

    def _listed(self, title: str, mismatches: Iterable[Mismatch]) -> Iterator[str]:
        rows = [
            [*(cell for value in m[:3] for cell in self._shown(value)), "" if m.ulp is None else f"{m.ulp:,} ULP"]
            for m in mismatches
        ]
        if rows:
            yield title
            yield from table([["x", "", "got", "", "want", "", ""], *rows], left=6, indent="  ")
            yield ""

    def _shown(self, bits: int) -> tuple[str, str]:
        storage = storage_format(self.subject.channel_format)
        value = np.array([bits], storage.bits_dtype).view(storage.dtype)[0]
        return f"{bits:#0{2 + 2 * storage.dtype.itemsize}x}", str(value)


def _subject(document: dict[str, Any]) -> Subject:
    values = {}
    for name, value in document["parameters"].items():
        try:
            values[name] = float.fromhex(value)
        except OverflowError:
            raise ParameterError(f"parameters.{name}: is {value}: give a float32") from None
    data = values.pop("data", None)
    descriptor = neuron_of(document["neuron"], values, data)
    channel_format = storage_format(document["storage"]).channel_format
    ulp, stride = document["ulp"], document.get("stride", 1)
    return Subject(document["implementation"], descriptor, document["direction"], channel_format, ulp, stride)


@checked
def merge(reports: Iterable[SweepReport]) -> SweepReport:
    """
    Merge reports that have no input in common; their order does not matter.

    Raises
    ------
    ParameterError
        There are none, they are of different subjects or of no inputs, or two have an input in common.

    Examples
    --------
    >>> import numpy as np
    >>> import mpsref as mps
    >>> from mpsref.sweep import merge, sweep
    >>> d = mps.MPSNNNeuronDescriptor(mps.MPSCNNNeuronType.absolute)
    >>> half = mps.MPSImageFeatureChannelFormat.float16
    >>> shards = [sweep(np.abs, d, format=half, shard=(i, 3)) for i in (3, 1, 2)]
    >>> merge(shards) == sweep(np.abs, d, format=half)
    True
    """
    reports = list(reports)
    if not reports:
        raise ParameterError("there is no report to merge")
    subject = reports[0].subject
    for report in reports:
        if report.subject != subject:
            name = subject.differences(report.subject)[0]
            ours, theirs = (each.to_json().get(name, 1) for each in (subject, report.subject))
            raise ParameterError(f"reports of different sweeps: {name} is {ours} and {theirs}")
    summary = sum((report.summary for report in reports), Summary())
    if not summary.elements:
        raise ParameterError("the reports are of no inputs: give those of shards that are done")
    return SweepReport(subject, summary)
