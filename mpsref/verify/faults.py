"""
The likely causes of an image that is out of bounds.

A cause is made of a map of places, a function, a store and the region where it holds; the parts are those of
`mpsref.verify.hypotheses`. One yardstick:

- A cause *explains* an element out of bounds if it gives the device's bits, or if the device's value lies within the
  element's own bound around what it gives, and it differs from the ideal value there.
- Only by the very bits does it explain an element that it would leave within the element's own bound around the ideal
  value, except of layers; and any element, if it is that memory was never written, or that it holds one fitted value.
- An element *contradicts* it where the device's value lies outside the element's own bound around what it gives; unless
  it equals the ideal value there, or the element is within bounds and the cause would leave it there.
- What is left where terms as large as the input, times the gradient, cancel does not contradict another function, by up
  to eight roundings of float32: it explains the element if it is four times as near as the ideal value, or that is NaN.
  So of another arithmetic, by eight roundings of that, if what is left has other signs from one input to the next.
- Where a store is coarser than the format, as bfloat16 is, the value before it may be one ULP off.
- If sources are out of bounds themselves, what follows from the right ones has the bounds that it would have if they
  were not recorded. It explains what is within these, and nearer to it than to what follows from the sources as
  recorded. Where it explains nearly all, the node is right, and nothing else is tried.

The search tries each part alone. Where no single part is enough it takes the best map of places, by how smooth the
device's result then is as a function of what was read, and tries every function and store under it; then the best
function, and every store. Of causes that explain as much, up to 2 %, the first is

1. one that holds in the whole image,
2. one that gives the device's very bits more often, by at least 10 %,
3. one that gives more of the bits of elements within bounds, by at least 10 %,
4. the first in `mpsref.verify.hypotheses`, where the simplest and most specific is first.

An element of a layer depends on a window, so its cause has one part more, what the layer gives with a fault: other
weights, another window, other sources. Its own bound is that of the fault's sums in any order. The other parts hold for
what the layer gives, as for what a neuron reads.

What a cause leaves over is searched again: an image has up to three causes, each with its place. A cause is named only
if it explains at least a twentieth of what is left, and if contradictions are few; with fewer than eight elements only
if it has no parameter or place to choose. One that is about all of the arithmetic, another function of all elements, or
changes all of them by no more than noise must explain half; one with numbers that were fitted may be contradicted by
one element of two hundred, and in formats of few bits must give the very bits. Of the elements that are out of bounds,
or would be if it were the cause, most must be nearer to what it gives than to the ideal value.

Else it is said what nearly all of the elements hold, if that is 0, another value, or what another image holds; or where
they are and what they have in common; and if they are all near, that accuracy alone is the matter.

Examples
--------
>>> import numpy as np
>>> import mpsref as mps
>>> from mpsref.verify.faults import Case, explain
>>> x = np.linspace(-2, 2, 64, dtype=np.float16).reshape(1, 4, 4, 4)
>>> node = mps.MPSCNNNeuronTanHNode(source=mps.MPSNNImageNode(handle="x"), a=1.5, b=0.75)
>>> want = mps.neuron.forward(node.descriptor, x)
>>> got = np.ascontiguousarray(want[..., [2, 1, 0, 3]])  # BGRA taken for RGBA
>>> bad = np.abs(got - want) > 0.01
>>> images = (mps.MPSImage.from_array(array) for array in (got, want))
>>> print(explain(Case.of_node(node, [mps.MPSImage.from_array(x)], *images, bad))[0].headline)
lanes permuted, in the order (2, 1, 0, 3): explains 32 of 32
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mpsref.arrays import Mask
from mpsref.display import enumerated
from mpsref.verify.case import Case
from mpsref.verify.hypotheses import HYPOTHESES, Hypothesis
from mpsref.verify.hypotheses.base import MANY
from mpsref.verify.regions import listed, place_of, stride
from mpsref.verify.search import PURE, Search, Trial, ranked

__all__ = ["ELSEWHERE", "HYPOTHESES", "Case", "Example", "Finding", "explain", "findings_of"]

MOST_CAUSES, MOST_ALTERNATIVES = 3, 2

NO_FAULT, ACCURACY = "no hypothesis fits", "accuracy alone"
ELSEWHERE = " where another value belongs"
NO_PATTERN = "; no pattern of the places was found."
STALE = "another image of the graph"


@dataclass(frozen=True)
class Example:
    """
    An element that a finding explains.

    Attributes
    ----------
    image, y, x, channel : int
        Its place.
    sources : tuple of str
        What the node read there.
    got, want, explained : str
        The device's result, the reference's and the hypothesis's.
    index : tuple of int or None
        Its place in the recorded array, if that is no image; it is then called by that.
    """

    image: int
    y: int
    x: int
    channel: int
    sources: tuple[str, ...]
    got: str
    want: str
    explained: str
    index: tuple[int, ...] | None = None

    @property
    def place(self) -> str:
        """Where it is, for people."""
        if self.index is not None:
            return str(list(self.index))
        return f"(image {self.image}, y {self.y}, x {self.x}, channel {self.channel})"

    def __str__(self) -> str:
        reads = f" reads {', '.join(self.sources)}" if self.sources else ""
        gives = f", the hypothesis {self.explained}" if self.explained else ""
        return f"{self.place}{reads}: got {self.got}, want {self.want}{gives}"


@dataclass(frozen=True)
class Finding:
    """
    A cause of an image out of bounds, or the statement that none was found.

    Attributes
    ----------
    name, sentence : str
        Of the hypothesis, or of two that go together; or that none fits.
    detail : str
        The variant of the fault, or where the unexplained elements are.
    where : str
        The part of the image to which the cause had to be restricted; empty if it holds for all of it.
    explained, of : int
        How many of the elements out of bounds it explains, and how many there were: all, or those that the findings
        before it leave over.
    same_bits : int
        How many of them it gives bit for bit.
    contradicted : int
        Elements that contradict it.
    score : float
        Explained less contradicted elements, relative to `of`: 1 if all are explained and none contradicts.
    example : Example or None
        An element that it explains.
    rank : str
        ``cause``, ``rest`` for a cause of what the ones before leave over, or ``alternative`` to the first cause.
    wrong_sources : tuple of str
        The images that are to blame instead of this one's node; empty for most causes.
    """

    name: str
    sentence: str
    detail: str
    where: str
    explained: int
    of: int
    same_bits: int
    contradicted: int
    score: float
    example: Example | None
    rank: str = "cause"
    wrong_sources: tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        """Whether it is a cause."""
        return self.name != NO_FAULT

    @property
    def subject(self) -> str:
        """Name and detail; first, of what it is a cause."""
        # Where no hypothesis fits, the detail has their number.
        others = f"the other {self.of:,}" if self.fits else "the others" if self.of > 1 else "the other one"
        before = {"rest": f"{others}: ", "alternative": "or: "}.get(self.rank, "")
        return before + ", ".join(filter(None, (self.name, self.detail)))

    @property
    def headline(self) -> str:
        """Name, detail, place and numbers, in one line."""
        subject = ", ".join(filter(None, (self.subject, self.where)))
        if self.name == NO_FAULT:
            return subject
        against = f", contradicted by {self.contradicted:,}" if self.contradicted else ""
        return f"{subject}: explains {self.explained:,} of {self.of:,}{against}"

    def __str__(self) -> str:
        example = f" For example {self.example}." if self.example else ""
        return f"{self.headline}. {self.sentence}{example}"


def explain(
    case: Case, most: int = MOST_CAUSES + MOST_ALTERNATIVES, *, hypotheses: Sequence[Hypothesis] = HYPOTHESES
) -> list[Finding]:
    """
    Find the likely causes of an image.

    Parameters
    ----------
    case : Case
        The image.
    most : int
        How many findings to return at most.
    hypotheses : sequence of Hypothesis
        What is tried.

    Returns
    -------
    list of Finding
        Empty if nothing is out of bounds. First the causes, each of what those before leave over; then alternatives to
        the first. The first one `fits`, or else describes where the elements are.
    """
    return [finding for finding, _ in findings_of(case, hypotheses=hypotheses)][:most]


def findings_of(case: Case, *, hypotheses: Sequence[Hypothesis] = HYPOTHESES) -> list[tuple[Finding, Mask]]:
    """All findings, each with the elements that need no other cause, flat; alternatives have none."""
    if not case.bad_index.size:
        return []
    causes: list[Finding] = []
    masks: list[Mask] = []
    alternatives: list[Finding] = []
    settled = np.zeros(case.bad.size, np.bool_)
    with np.errstate(all="ignore"):
        while len(causes) < MOST_CAUSES:
            left = replace(case, bad=case.bad & ~settled.reshape(case.shape))
            if causes and left.bad_index.size < MANY:
                break
            search = Search(left, settled, hypotheses)
            trials = ranked(search.trials())
            if not trials:
                rest = _one_value(left) or _stale(left) or _pattern(left)
                # That what is left over is only less accurate says nothing.
                if not (causes and rest.detail.startswith(ACCURACY)):
                    causes.append(replace(rest, rank="rest" if causes else "cause"))
                break
            explained, finding, trials = _confirmed(search, trials)
            if any(finding.name == cause.name and not cause.where for cause in causes):
                # That was said of all elements, in another variant.
                break
            settled |= explained
            if not causes:
                others = list({t.names: t for t in reversed(trials) if search.rivals(trials[0], t)}.values())
                others = others[: -MOST_ALTERNATIVES - 1 : -1]
                alternatives = [replace(_finding(search, t, confirm=False)[1], rank="alternative") for t in others]
            if causes:
                # Nothing else is left to restrict it, so that it does not say where it is.
                where = finding.where or place_of(case, np.flatnonzero(explained & left.bad.reshape(-1)))
                finding = replace(finding, where=where, rank="rest")
            causes.append(finding)
            masks.append(explained)
            if not explained.any():
                break
    findings = [*causes, *alternatives]
    masks += [np.zeros(case.bad.size, np.bool_)] * (len(findings) - len(masks))
    return list(zip(findings, masks, strict=True))


def _confirmed(search: Search, trials: list[Trial]) -> tuple[Mask, Finding, list[Trial]]:
    """The first trial on every element; or the next that explains as much, if fewer elements contradict that."""
    first, *others = trials
    explained, finding = _finding(search, first)
    for other in others[:MOST_ALTERNATIVES] if finding.contradicted else ():
        if (other.region.name, len(other.names)) == (first.region.name, len(first.names)):
            theirs, better = _finding(search, other)
            if better.contradicted < finding.contradicted and better.same_bits >= finding.same_bits:
                return theirs, better, [other, *(trial for trial in trials if trial is not other)]
    return explained, finding, trials


def _finding(search: Search, trial: Trial, *, confirm: bool = True) -> tuple[Mask, Finding]:
    """Which elements it explains, of all; and the finding."""
    explained = np.zeros(search.case.bad.size, np.bool_)
    counts = [trial.explained, trial.same_bits, trial.against, trial.of]
    if confirm:
        counts = search.confirmed(trial, explained)
    # Two parts may be of one hypothesis.
    names = list(dict.fromkeys(trial.names))
    hypotheses = [h for name in names for h in search.hypotheses if h.name == name]
    sample = search.sample
    judged = sample.judged(trial.candidate)
    trial.candidate.release()
    at = np.flatnonzero(judged.explained & trial.region.holds(sample.index))
    example = _example(search.case, int(sample.index[at[0]]), judged.out[at[0]]) if at.size else None
    of = int(search.of)
    unknown = 0 if judged.known.all() else of - round(counts[3])
    name, detail = " and ".join(names), trial.candidate.detail
    sentence = " ".join(h.sentence for h in hypotheses)
    if name == "never written" and (trial.region.by_value or detail == "NaN"):
        value = {"zeros": "0", "NaN": "NaN"}.get(detail, example.got if example else "")
        name, sentence, detail = f"{value}{ELSEWHERE}", f"The device has {value} in all of these elements.", ""
    return explained, Finding(
        name,
        sentence,
        (detail + f" ({unknown:,} elements were read from where nothing is recorded)" * (unknown > 0)).strip(),
        trial.region.name and f"only {trial.region.name}",
        min(of, round(counts[0])),
        of - unknown,
        min(of, round(counts[1])),
        round(counts[2]),
        (counts[0] - counts[2]) / max(1, of - unknown),
        example,
        wrong_sources=() if trial.candidate.restored is None else trial.candidate.restored.names,
    )


def _example(case: Case, index: int, explained: Any = None) -> Example:
    image, y, x, channel = (int(place) for place in np.unravel_index(index, case.shape))
    return Example(
        image,
        y,
        x,
        channel,
        () if case.layers else tuple(str(source.stored.reshape(-1)[index]) for source in case.sources),
        str(case.got.reshape(-1)[index]),
        str(case.want.reshape(-1)[index]),
        "" if explained is None else str(explained),
        case.place(index),
    )


def _one_value(case: Case) -> Finding | None:
    """Zeros, or another value that many hold, at places that no region tells."""
    got, of = case.got.reshape(-1)[case.bad_index], case.bad_index.size
    same = got == 0
    if same.sum() < PURE * of:
        bits = got.view(case.result.bits_dtype)
        values, counts = np.unique(bits, return_counts=True)
        same = bits == values[np.argmax(counts)]
        if of < MANY or same.sum() < PURE * of:
            return None
    count, at = int(same.sum()), int(np.argmax(same))
    value = "0" if got[at] == 0 else "NaN" if got[at] != got[at] else str(got[at])
    example = _example(case, int(case.bad_index[at]), got[at])
    sentence = f"The device has {value} there{NO_PATTERN}"
    where = _where(case) if of < MANY else ""
    if (each := stride(case, case.bad_index)) is not None:
        sentence, where = f"The device has {value} there.", each.name
    return Finding(f"{value}{ELSEWHERE}", sentence, "", where, count, of, count, 0, count / of, example)


def _stale(case: Case) -> Finding | None:
    """What another image holds, at places that no region tells."""
    got, of = case.got.reshape(-1)[case.bad_index].view(case.result.bits_dtype), case.bad_index.size
    for name, image in case.images.items() if of >= MANY else ():
        if image.storage is case.result:
            same = got == image.at(case.bad_index).stored.view(case.result.bits_dtype)
            if (count := int(np.count_nonzero(same))) >= PURE * of:
                at = int(case.bad_index[np.argmax(same)])
                example = _example(case, at, case.got.reshape(-1)[at])
                sentence = f"The device has what {name} holds there, which is stale or shares the memory{NO_PATTERN}"
                return Finding(STALE, sentence, name, "here and there", count, of, count, 0, count / of, example)
    return None


def _where(case: Case) -> str:
    return f"at {enumerated([_example(case, index).place for index in case.bad_index.tolist()])}"


def _pattern(case: Case) -> Finding:
    """Where the bad elements are, and what they have in common, for want of a cause."""
    parts = [f"{case.bad_index.size:,} of {case.bad.size:,} element{'s' * (case.bad.size != 1)}"]
    got = case.got.reshape(-1)[case.bad_index]
    these = "these elements" if case.bad_index.size > 1 else "this element"
    sentence = f"None of the faults that are looked for explains {these}."
    if case.noise is not None:
        parts.insert(0, f"{ACCURACY}, as noise of {case.noise} ULP would leave")
        sentence = "The results are near the right ones, but less accurate than the bounds allow; no fault was found."
    for axis, name in enumerate(case.axes):
        bad = np.asarray(case.bad.any(axis=tuple(k for k in range(4) if k != axis)))
        if bad.size > 1:
            parts.append(f"in all {bad.size} {name}" if bad.all() else f"in {listed(name, bad)} of {bad.size}")
    x = np.empty(0) if case.layers else case.sources[-1].at(case.bad_index).values()
    missing = np.isnan(x)
    numbers = x[~missing] if missing.any() else x
    if numbers.size:
        least, largest = f"{numbers.min():.6g}", f"{numbers.max():.6g}"
        parts.append(f"x from {least} to {largest}" if least != largest else f"x is {least}")
    if numbers.size < x.size:
        parts.append(f"x is NaN at {x.size - numbers.size:,}" if x.size > 1 else "x is NaN")
    if (each := stride(case, case.bad_index)) is not None:
        parts.append(each.name)
    for text, mask in (("NaN", np.isnan(got)), ("0", got == 0), ("infinite", np.isinf(got))):
        if mask.any():
            parts.append(f"{np.count_nonzero(mask):,} of them {text}")
    of = case.bad_index.size
    return Finding(NO_FAULT, sentence, "; ".join(parts), "", 0, of, 0, 0, 0.0, _example(case, int(case.bad_index[0])))
