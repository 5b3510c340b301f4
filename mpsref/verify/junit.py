"""
A report as JUnit XML, for continuous integration: a test suite with a test case for each image.

Examples
--------
>>> from mpsref.verify.report import Report
>>> from mpsref.verify.tolerance import Tolerances
>>> print(junit(Report("recording.json", "none", Tolerances(), ())).decode()[:85])
<?xml version='1.0' encoding='utf-8'?>
<testsuites name="mpsref verify" tests="0" fai
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree as ET  # only written, never parsed

import mpsref
from mpsref.display import printable
from mpsref.files import write_atomically
from mpsref.verify.reasons import Reason
from mpsref.verify.report import ImageReport, Report

__all__ = ["junit", "write_junit"]


def junit(report: Report) -> bytes:
    """The document in UTF-8; what XML cannot hold, or what could deceive a reader, is escaped as in Python."""
    failures = sum(not image.passed for image in report.images)
    totals = {"tests": str(len(report.images)), "failures": str(failures), "errors": "0", "skipped": "0"}
    suites = ET.Element("testsuites", {"name": "mpsref verify"} | totals)
    suite = ET.SubElement(suites, "testsuite", {"name": printable(report.recording)} | totals)
    facts = {"device": report.device, "bounds": report.tolerance}
    _properties(suite, facts | {"mpsref": mpsref.__version__, "verdict": report.verdict})
    for image in report.images:
        _case(suite, image)
    ET.indent(suites, " ")
    document: bytes = ET.tostring(suites, encoding="utf-8", xml_declaration=True)
    return document + b"\n"


def write_junit(report: Report, path: Path) -> None:
    """Write the document, whole or not at all; raises `FileFormatError` if it cannot be written."""
    data = junit(report)
    write_atomically(path, lambda file: file.write(data))


def _case(suite: ET.Element, image: ImageReport) -> None:
    case = ET.SubElement(suite, "testcase", {"classname": printable(image.node), "name": printable(image.name)})
    counts = image.counts
    facts: dict[str, object] = {
        "channel_format": image.channel_format,
        "neuron": image.neuron or "",
        "direction": image.direction,
        "limit": image.limit,
        "elements": counts.elements,
        "exact": counts.exact,
        "largest_ulp": counts.largest,
        "within": counts.within,
        "excused": image.excused,
        "beyond": counts.beyond,
    }
    _properties(case, facts)
    findings = [str(finding) for finding in image.findings]
    if not image.passed:
        message = image.failure
        # What a list of failures shows is the message alone.
        message += f"; {image.findings[0].headline}" if image.findings else ""
        failure = ET.SubElement(case, "failure", {"type": "beyond", "message": printable(message)})
        worst = [str(element) for element in image.worst if element.beyond]
        faults = ["the likely fault:", *findings] if findings else []
        elements = ["the worst:", *worst] if worst else []
        failure.text = _lines([message, f"bounds: {image.limit}", *faults, *elements])
    told = [f"{n:,} excused: {Reason[name].text}" for name, n in counts.excused.items()] + list(image.remarks)
    if told:
        ET.SubElement(case, "system-out").text = _lines(told)


def _properties(parent: ET.Element, facts: Mapping[str, object]) -> None:
    properties = ET.SubElement(parent, "properties")
    for name, value in facts.items():
        ET.SubElement(properties, "property", {"name": name, "value": printable(str(value))})


def _lines(lines: list[str]) -> str:
    return "\n".join(printable(line) for line in lines)
