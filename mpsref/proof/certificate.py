"""The certificate of a proof: subject, counts, software and machine; and its comparison with a committed one."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from importlib import resources
from typing import Any

from mpsref.arguments import checked, checked_fields
from mpsref.blocks import BLOCK, neuron_json, part_of_patterns
from mpsref.display import aligned
from mpsref.enums import MPSImageFeatureChannelFormat
from mpsref.errors import ParameterError
from mpsref.neuron.descriptor import MPSNNNeuronDescriptor
from mpsref.origin import machine
from mpsref.origin import software as software_with
from mpsref.proof.sweep import Block, Tally
from mpsref.storage import ChannelFormat, storage_format

__all__ = ["DIRECTIONS", "Subject", "certificate", "committed_certificates", "passed", "report", "software"]

DIRECTIONS = "forward", "derivative"

STATEMENT = (
    "Every input was evaluated. sha256 is that of the SHA-256 digests, 32 bytes each, of the little-endian results of "
    "each block, in order of the inputs as unsigned integers. Judged by ball arithmetic that shares no code with the "
    "kernels: all results whose float64 value lies within 2^-40, relative, of a rounding boundary, whatever error "
    "bound the kernel states (near); all others that are not that value rounded (unlike: none, if the package is "
    "right); and a sample of the rest, which are right if the kernel is good to 2^-40. In a format of at most 16 bits "
    "all results are judged, and counted as the sample. NaN and infinite inputs (not_finite) are not judged."
)


@checked_fields
@dataclass(frozen=True)
class Subject:
    """
    What is to be proved.

    Parameters
    ----------
    descriptor : MPSNNNeuronDescriptor
        The neuron and its parameters. pReLU needs exactly one slope.
    channel_format : MPSImageFeatureChannelFormat
        Format of sources, incoming gradients (which are 1) and results.
    part : (int, int)
        (i, n): the i-th of n equal ranges of the inputs, counted from 1.
    sample : int
        How many results of each direction are judged besides those near a rounding boundary.
    seed : int
        Selects the sample.
    block : int
        Inputs in a block.

    Raises
    ------
    ParameterError
        A value is out of range.
    """

    descriptor: MPSNNNeuronDescriptor
    channel_format: ChannelFormat = MPSImageFeatureChannelFormat.float32
    part: tuple[int, int] = (1, 1)
    sample: int = 65_536
    seed: int = 1
    block: int = BLOCK

    def __post_init__(self) -> None:
        _ = self.inputs
        if self.descriptor.data is not None and self.descriptor.data.size != 1:
            raise ParameterError(f"data has {self.descriptor.data.size} slopes: give one")
        if not 0 <= self.sample <= 1 << 32:
            raise ParameterError(f"sample is {self.sample}: give 0 to 2^32")
        if not 0 <= self.seed < 1 << 53:
            raise ParameterError(f"seed is {self.seed}: give 0 to 2^53 - 1")
        if self.block < 1:
            raise ParameterError(f"block is {self.block}: give at least 1")

    @property
    def name(self) -> str:
        """Apple's name of the neuron type."""
        return self.descriptor.neuron_type.name

    @property
    def inputs(self) -> range:
        """The bit patterns of the inputs."""
        return part_of_patterns(self.part, storage_format(self.channel_format))

    def blocks(self) -> list[Block]:
        """The blocks of the sweep, both directions of a range next to each other."""
        starts = self.inputs[:: self.block]
        return [
            Block(
                descriptor=self.descriptor,
                channel_format=self.channel_format,
                derivative=derivative,
                start=start,
                size=min(self.block, self.inputs.stop - start),
                sample=self.sample * (i + 1) // len(starts) - self.sample * i // len(starts),
                seed=self.seed,
            )
            for i, start in enumerate(starts)
            for derivative in (False, True)
        ]

    def to_json(self) -> dict[str, Any]:
        """The subject as JSON; float32 parameters in C's hexadecimal notation."""
        return {
            **neuron_json(self.descriptor),
            "storage": self.channel_format.name,
            "part": "{}/{}".format(*self.part),
            "sample": self.sample,
            "seed": self.seed,
            "block": self.block,
        }


def software() -> dict[str, str]:
    """The software that computes and judges the results."""
    return software_with("python-flint")


def certificate(subject: Subject, tallies: Mapping[str, Tally], workers: int, wall_seconds: float) -> dict[str, Any]:
    """The certificate as JSON of the shipped schema, from the sums of all tallies by direction."""
    directions = {}
    for direction in DIRECTIONS:
        tally = asdict(tallies[direction])
        digests, _ = tally.pop("digests"), tally.pop("cpu_seconds")
        directions[direction] = tally | {"sha256": hashlib.sha256(bytes.fromhex("".join(digests))).hexdigest()}
    return {
        "format": "mpsref-certificate",
        "version": 2,
        **subject.to_json(),
        **directions,
        "wrong": sum(tally.wrong for tally in tallies.values()),
        "workers": workers,
        "wall_seconds": round(wall_seconds, 1),
        "cpu_seconds": round(sum(tally.cpu_seconds for tally in tallies.values()), 1),
        "software": software(),
        "machine": machine(),
        "statement": STATEMENT,
    }


def committed_certificates() -> list[dict[str, Any]]:
    """The certificates that come with the package: of all sixteen neurons at their defaults, in float32."""
    folder = resources.files("mpsref.proof").joinpath("certificates")
    return [json.loads(file.read_text("utf-8")) for file in folder.iterdir() if file.name.endswith(".json")]


SUBJECT = "neuron", "parameters", "storage", "part", "block"
"""The fields of a certificate that its digests depend on."""

EQUAL, DIFFERS, NONE = "equal", "differs", "none"


def _digest_is(proof: Mapping[str, Any], direction: str, committed: Iterable[Mapping[str, Any]]) -> str:
    """How a digest compares with that of the committed certificate of the same subject, if there is one."""
    for other in committed:
        if all(other[name] == proof[name] for name in SUBJECT):
            return EQUAL if other[direction]["sha256"] == proof[direction]["sha256"] else DIFFERS
    return NONE


@checked
def passed(certificates: Iterable[Mapping[str, Any]], committed: Iterable[Mapping[str, Any]] = ()) -> bool:
    """Whether nothing is wrong, and no digest differs from that of a committed certificate of the same subject."""
    return not any(
        proof["wrong"] or DIFFERS in (_digest_is(proof, direction, committed) for direction in DIRECTIONS)
        for proof in certificates
    )


@checked
def report(certificates: Iterable[Mapping[str, Any]], committed: Iterable[Mapping[str, Any]] = ()) -> str:
    """
    Certificates as a table, wrong results, and a verdict.

    Parameters
    ----------
    certificates : iterable of dict
        From `prove`.
    committed : iterable of dict
        Certificates whose digests are compared, where neuron, parameters, format and part are the same.
    """
    certificates, committed = list(certificates), list(committed)
    wrong = sum(proof["wrong"] for proof in certificates)
    examples = [
        f"{proof['neuron']} {direction}: x = {example['x']}: got {example['got']}, want {example['want']}"
        for proof in certificates
        for direction in DIRECTIONS
        for example in proof[direction]["examples"]
    ]
    digests = Counter(_digest_is(proof, direction, committed) for proof in certificates for direction in DIRECTIONS)
    compared = (
        f"digests of all results: {digests[EQUAL]} equal to those of the committed certificates, {digests[DIFFERS]} "
        f"different, {digests[NONE]} with none to compare"
    )
    failures = [f"{wrong:,} results are wrong"] * bool(wrong)
    failures += [f"{digests[DIFFERS]} digests differ from the committed ones"] * bool(digests[DIFFERS])
    verdict = f"FAIL: {', '.join(failures)}" if failures else "PASS: no result that was judged is wrong"
    return "\n".join([_table(certificates, committed), "", *examples, compared, verdict])


HEADINGS = "neuron", "", "inputs", "NaN", "near", "judged", "wrong", "digest", "seconds"


def _table(certificates: Iterable[Mapping[str, Any]], committed: Iterable[Mapping[str, Any]]) -> str:
    rows: list[tuple[str, ...]] = [HEADINGS]
    for proof in certificates:
        for direction in DIRECTIONS:
            t = proof[direction]
            judged = t["judged_near"] + t["judged_unlike"] + t["judged_sample"]
            numbers = t["inputs"], t["nan_results"], t["judged_near"], judged, t["wrong"]
            first = direction == DIRECTIONS[0]
            cells = [proof["neuron"] if first else "", direction, *(f"{n:,}" for n in numbers)]
            digest = _digest_is(proof, direction, committed)
            rows.append((*cells, digest, f"{proof['wall_seconds']:,}" if first else ""))
    return "\n".join(aligned(rows, left=2))
