"""A block of a sweep: every bit pattern in a range is evaluated and digested, and some are judged."""

from __future__ import annotations

import hashlib
import time
from dataclasses import asdict, dataclass, field

import numpy as np

from mpsref.arrays import Index, Mask, Stored, Wide
from mpsref.blocks import chunks, evaluated, ones
from mpsref.errors import DependencyError
from mpsref.neuron import evaluate
from mpsref.neuron.descriptor import MPSNNNeuronDescriptor
from mpsref.storage import FLOAT64, ChannelFormat, StorageFormat, storage_named

__all__ = ["EXAMPLES", "Block", "Tally", "require_judge", "sweep"]

EXAMPLES = 8
"""How many wrong results are shown."""

BAND = 2.0**-40
"""
The relative distance from a rounding boundary within which every float64 value is judged.

It is the same for all rows, and far wider than most of their error bounds, which are to be checked. One in 2^15 results
of a curved function lies within; of halved subnormals every other one is a tie.
"""


def require_judge() -> None:
    """Raise `DependencyError` if python-flint is not installed."""
    try:
        import flint  # noqa: F401, PLC0415
    except ImportError:
        raise DependencyError("the judge needs python-flint: pip install 'mpsref[proof]'") from None


@dataclass(frozen=True)
class Block:
    """
    A range of bit patterns, in one direction of a neuron.

    Attributes
    ----------
    derivative : bool
        Whether to evaluate the gradient for an incoming gradient of 1 instead of the forward.
    sample : int
        How many results are judged besides those that always are. In a format of at most 16 bits all are.
    seed : int
        Selects the sample, with the direction and the start.
    """

    descriptor: MPSNNNeuronDescriptor
    channel_format: ChannelFormat
    derivative: bool
    start: int
    size: int
    sample: int
    seed: int


@dataclass
class Tally:
    """
    The counts of a block, or of several.

    Attributes
    ----------
    inputs : int
        Evaluated bit patterns.
    not_finite : int
        NaN and infinities among them, which are not judged.
    nan_results : int
        Results that are NaN.
    open_by_digits, open_by_rule : int
        Results that Ziv's test with the row's own error bound left open, by how they were decided; not counted where
        all are judged. They select nothing.
    judged_near : int
        Results whose float64 value lies in the `BAND` about a rounding boundary, all of which are judged.
    judged_unlike : int
        Results elsewhere that are not their float64 value rounded, all of which are judged: none, if mpsref is right.
    judged_sample : int
        Judged results among all others.
    wrong : int
        Results that differ from the judge's.
    examples : list
        The first of them: input, result and the judge's result, as bit patterns.
    cpu_seconds : float
        Processor time.
    digests : list of str
        SHA-256 of the results of each block, in order.
    """

    inputs: int = 0
    not_finite: int = 0
    nan_results: int = 0
    open_by_digits: int = 0
    open_by_rule: int = 0
    judged_near: int = 0
    judged_unlike: int = 0
    judged_sample: int = 0
    wrong: int = 0
    examples: list[dict[str, str]] = field(default_factory=list)
    cpu_seconds: float = 0.0
    digests: list[str] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        """Add the next block in order."""
        for name, value in asdict(other).items():
            setattr(self, name, getattr(self, name) + value)
        del self.examples[EXAMPLES:]


def sweep(block: Block) -> Tally:
    """Evaluate and judge a block."""
    began = time.process_time()
    storage = storage_named(block.channel_format)
    tally, digest = Tally(inputs=block.size), hashlib.sha256()
    random = np.random.default_rng([block.seed, block.derivative, block.start])
    in_sample = np.zeros(block.size, np.bool_)
    in_sample[random.choice(block.size, min(block.sample, block.size), replace=False)] = True
    for offset, x in chunks(block.start, block.size, storage):
        decisions = evaluate.Decisions()
        upstream = ones(x.size, storage) if block.derivative else None
        y = evaluated(block.descriptor, x, upstream, storage, decisions)
        digest.update(y.view(storage.bits_dtype).astype(f"<u{y.itemsize}", copy=False).view(np.uint8).data)
        finite = np.isfinite(x)
        tally.not_finite += x.size - int(np.count_nonzero(finite))
        tally.nan_results += int(np.count_nonzero(np.isnan(y)))
        if storage.dtype.itemsize <= 2:
            near, unlike = np.zeros_like(finite), np.zeros_like(finite)
            sample = finite
        else:
            tally.open_by_digits += decisions.by_digits
            tally.open_by_rule += decisions.by_rule
            near, unlike = _suspects(y, evaluated(block.descriptor, x, upstream, storage, result=FLOAT64))
            near &= finite
            unlike &= finite
            sample = in_sample[offset : offset + x.size] & finite & ~near & ~unlike
        tally.judged_near += int(np.count_nonzero(near))
        tally.judged_unlike += int(np.count_nonzero(unlike))
        tally.judged_sample += int(np.count_nonzero(sample))
        _judge(block, storage, x, y, np.flatnonzero(near | unlike | sample), tally)
    tally.digests.append(digest.hexdigest())
    tally.cpu_seconds = time.process_time() - began
    return tally


def _suspects(y: Stored, values: Wide) -> tuple[Mask, Mask]:
    """Which `values` lie near a rounding boundary, and which results elsewhere are not the value rounded."""
    high, low = np.empty_like(y), np.empty_like(y)
    with np.errstate(all="ignore"):
        np.multiply(values, 1 + BAND, out=high, casting="same_kind")
        np.multiply(values, 1 - BAND, out=low, casting="same_kind")
    # As bits, so that a NaN that should be one is no suspect.
    got, high, low = (stored.view(f"u{y.itemsize}") for stored in (y, high, low))
    near = high != low
    return near, (got != high) & ~near


def _judge(block: Block, storage: StorageFormat, x: Stored, y: Stored, chosen: Index, tally: Tally) -> None:
    """Judge the chosen results, and count wrong ones."""
    if not chosen.size:
        return
    # Here, because only proofs need flint.
    from mpsref.proof.judge import Judge, differs, unorm_values  # noqa: PLC0415

    d, sources, got = block.descriptor, x[chosen], y[chosen]
    judge = Judge(d.neuron_type.name, *((d.a, d.b, d.c) if d.data is None else d.data.tolist()))
    with np.errstate(all="ignore"):
        wide = unorm_values(sources, storage.unorm_max) if storage.unorm_max else sources.astype(np.float64)
        near = judge.float64s(wide, block.derivative)
        if storage.unorm_max:
            want = judge.codes(wide, near, storage.unorm_max, block.derivative)
            wrong = got != want
        else:
            want = judge.rounded(wide, near, storage.dtype, block.derivative)
            wrong = differs(got, want, near)
    tally.wrong += int(np.count_nonzero(wrong))
    first = np.flatnonzero(wrong)[: EXAMPLES - len(tally.examples)]
    bits = [array[first].view(storage.bits_dtype).tolist() for array in (sources, got, want)]
    width = 2 + 2 * storage.dtype.itemsize
    for row in zip(*bits, strict=True):
        tally.examples.append(dict(zip(("x", "got", "want"), (f"{v:#0{width}x}" for v in row), strict=True)))
