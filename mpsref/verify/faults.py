"""
The likely causes of an image that is out of bounds.

A cause is made of a map of places, a function, a store and the region where it holds; the parts are those of
`mpsref.verify.hypotheses`. One yardstick:

- A cause *explains* an element out of bounds if it gives the device's bits, or if the device's value lies within the
  element's own bound around what it gives, and it differs from the ideal value there.
- An element *contradicts* it where the device's value lies outside the element's own bound around what it gives; unless
  it equals the ideal value there, or the element is within bounds and the cause would leave it there.

The search tries each part alone. Where no single part is enough it takes the best map of places, by how smooth the
device's result then is as a function of what was read, and tries every function and store under it; then the best
function, and every store. Of causes that explain as much, up to 2 %, the first is

1. one that holds in the whole image,
2. one that gives the device's very bits more often, by at least 10 %,
3. the first in `mpsref.verify.hypotheses`, where the simplest and most specific is first.

What a cause leaves over is searched again: an image has up to three causes, each with its place. A cause is named only
if it explains at least a twentieth of what is left, and if contradictions are few; with fewer than eight elements only
if it has no parameter or place to choose. Else it is said where the elements are and what they have in common; and if
they are all near, that accuracy alone is the matter.

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

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mpsref.arrays import Elements, Index, Mask, Stored, Wide
from mpsref.operations import Role
from mpsref.ulp import UNREACHABLE, ulp_distance
from mpsref.verify.case import Case, some
from mpsref.verify.hypotheses import HYPOTHESES, Candidate, Hypothesis
from mpsref.verify.hypotheses.base import MANY
from mpsref.verify.regions import AXES, EVERYWHERE, Region, listed, regions

__all__ = ["HYPOTHESES", "Case", "Example", "Finding", "explain"]

FIRST_LOOK, CLOSER_LOOK = 512, 4096
"""Elements on which a candidate is tried at first, and if it is promising."""

MOST_CAUSES, MOST_ALTERNATIVES = 3, 2

BLOCK = 262_144
"""Elements confirmed at once."""

EXAMINED = 262_144
"""The most elements whose own bounds are computed to confirm a cause; beyond that the sample counts."""

MENTIONED = 0.05
"""The share of the elements out of bounds that a cause must explain."""

BY_VALUE, MOVED = 0.5, 0.3
"""The same, where it is restricted to an interval of values; and where elements are moved in a part of the image."""

PURE = 0.95
"""The least share of explained among explained and contradicting elements."""

EVIDENCE = 16.0
"""How improbable it must be that a region fits by chance, as -ln of the probability."""

ENOUGH = 0.97
"""The share from which no pair of parts is tried."""

SAME, SAME_BITS = 0.02, 0.1
"""Differences up to which two shares of explained elements, and of equal bits, count as equal."""

NOISE = 64
"""The largest distance in ULP of what inaccurate arithmetic may leave."""

NO_FAULT = "no hypothesis fits"
ZEROS = "0 where another value belongs"


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
    """

    image: int
    y: int
    x: int
    channel: int
    sources: tuple[str, ...]
    got: str
    want: str
    explained: str

    def __str__(self) -> str:
        place = f"(image {self.image}, y {self.y}, x {self.x}, channel {self.channel})"
        reads = f" reads {', '.join(self.sources)}" if self.sources else ""
        gives = f", the hypothesis {self.explained}" if self.explained else ""
        return f"{place}{reads}: got {self.got}, want {self.want}{gives}"


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

    @property
    def fits(self) -> bool:
        """Whether it is a cause."""
        return self.name != NO_FAULT

    @property
    def headline(self) -> str:
        """Name, detail and numbers, in one line."""
        subject = ", ".join(filter(None, (self.name, self.detail, self.where)))
        before = {"rest": f"the other {self.of:,}: ", "alternative": "or: "}.get(self.rank, "")
        if self.name == NO_FAULT:
            return before + subject
        against = f", contradicted by {self.contradicted:,}" if self.contradicted else ""
        return f"{before}{subject}: explains {self.explained:,} of {self.of:,}{against}"

    def __str__(self) -> str:
        example = f" For example {self.example}." if self.example else ""
        return f"{self.headline}. {self.sentence}{example}"


def explain(case: Case, most: int = MOST_CAUSES + MOST_ALTERNATIVES) -> list[Finding]:
    """
    Find the likely causes of an image.

    Parameters
    ----------
    case : Case
        The image.
    most : int
        How many findings to return at most.

    Returns
    -------
    list of Finding
        Empty if nothing is out of bounds. First the causes, each of what those before leave over; then alternatives to
        the first. The first one `fits`, or else describes where the elements are.
    """
    if not case.bad_index.size:
        return []
    causes: list[Finding] = []
    alternatives: list[Finding] = []
    settled = np.zeros(case.bad.size, np.bool_)
    with np.errstate(all="ignore"):
        while len(causes) < MOST_CAUSES:
            left = replace(case, bad=case.bad & ~settled.reshape(case.shape))
            if causes and left.bad_index.size < MANY:
                break
            search = _Search(left, settled)
            ranked = _ranked(search.trials())
            if not ranked:
                if not causes:
                    causes.append(_zeros(left) or _pattern(left))
                elif (zeros := _zeros(left)) is not None:
                    causes.append(replace(zeros, rank="rest"))
                break
            explained, finding = search.finding(ranked[0])
            settled |= explained
            if not causes:
                others = list({t.names: t for t in reversed(ranked) if search.rivals(ranked[0], t)}.values())
                others = others[: -MOST_ALTERNATIVES - 1 : -1]
                alternatives = [replace(search.finding(t, confirm=False)[1], rank="alternative") for t in others]
            causes.append(replace(finding, rank="rest" if causes else "cause"))
            if not explained.any():
                break
    return [*causes, *alternatives][:most]


@dataclass(frozen=True, eq=False)
class _Trial:
    """A candidate and how much it explains of the elements on which it was tried."""

    order: int
    names: tuple[str, ...]
    candidate: Candidate
    region: Region
    explained: float
    same_bits: float
    against: float
    of: float

    @property
    def gain(self) -> float:
        return (self.explained - self.against) / self.of

    @property
    def bits(self) -> float:
        return self.same_bits / self.of

    @property
    def is_pure(self) -> bool:
        return self.explained >= PURE * (self.explained + self.against)


class _Sample:
    """Elements on which candidates are tried, with what is known of them."""

    def __init__(self, case: Case, index: Index, bad: Mask, weight: Wide) -> None:
        self.case, self.index, self.bad, self.weight = case, index, bad, weight
        self.got, self.want = case.got.reshape(-1)[index], case.want.reshape(-1)[index]
        self.is_close = case.bound(index)

    def judged(self, candidate: Candidate) -> tuple[Mask, Mask, Mask, Stored]:
        """Which elements it explains, which contradict it, which it gives bit for bit; and what it gives."""
        out, known = candidate.at(self.case, self.index)
        same = _same(out, self.got, self.case)
        fits = same | self.is_close(out, self.got)
        differs = ~_same(out, self.want, self.case)
        explained = self.bad & fits & differs
        against = ~fits & differs
        harmless = ~self.bad & against
        if harmless.any():
            against &= self.bad | ~self.is_close(out, self.want)
        if known is not None:
            explained &= known
            against &= known
        return explained, against, same, out


def _same(a: Stored, b: Stored, case: Case) -> Mask:
    """Which elements are equal; zeros of either sign are, and every NaN."""
    equal = a == b
    return equal if case.result.unorm_max else equal | ((a != a) & (b != b))  # noqa: PLR0124


class _Search:
    """The samples of a case's elements, and trials on them."""

    def __init__(self, case: Case, settled: Mask) -> None:
        self.case, self.settled = case, settled
        bad = some(case.bad_index, CLOSER_LOOK)
        good = ~case.bad & ~settled.reshape(case.shape)
        # Half of the elements within bounds come from near the bad ones, where a fault of a small part shows.
        near = np.ones(case.shape, np.bool_)
        for k in range(4):
            near &= case.bad.any(axis=tuple(j for j in range(4) if j != k), keepdims=True)
        strata = [np.flatnonzero(good & near), np.flatnonzero(good & ~near)]
        chosen = [bad, *(some(stratum, CLOSER_LOOK // 2) for stratum in strata)]
        sizes = [case.bad_index.size, *(stratum.size for stratum in strata)]
        weight = np.concatenate([np.full(c.size, n / max(1, c.size)) for c, n in zip(chosen, sizes, strict=True)])
        index = np.concatenate(chosen)
        self.sample = _Sample(case, index, np.arange(index.size) < bad.size, weight)
        first = some(bad, FIRST_LOOK)
        self.first = _Sample(case, first, np.ones(first.size, np.bool_), np.ones(first.size))
        self.of = float(case.bad_index.size)

    # ---- trying ----

    def trials(self) -> list[_Trial]:
        """All that explain enough: single parts, and pairs where those are not enough."""
        trials, promising = [], []
        for order, hypothesis in enumerate(HYPOTHESES):
            for candidate in hypothesis.candidates(self.case):
                explained, _, _, out = self.first.judged(candidate)
                promising.append((order, hypothesis, candidate, float(explained.mean()), self._roughly(out)))
                if explained.mean() >= MENTIONED:
                    trials += self._trial(order, (hypothesis,), candidate)
        best = max((t.gain for t in trials if not t.region.by_value), default=0.0)
        if best < ENOUGH and self.of >= MANY:
            trials += [t for t in self._pairs(promising) if t.gain > best + SAME]
        return trials

    def _roughly(self, out: Stored) -> float:
        """The share of elements that are near what a candidate gives, and nearer than to the ideal."""
        got, want, out = (Elements(a, self.case.result).values() for a in (self.first.got, self.first.want, out))
        off = np.abs(got - out)
        return float(np.mean((off <= 0.02 * np.abs(got) + 1e-4) & (off < 0.5 * np.abs(got - want))))

    def _trial(self, order: int, hypotheses: tuple[Hypothesis, ...], candidate: Candidate) -> Iterator[_Trial]:
        sample = self.sample
        explained, against, same, _ = sample.judged(candidate)
        fewest = max(h.fewest for h in hypotheses)
        if np.count_nonzero(explained) < fewest:
            return
        of = self.of
        choices: list[_Trial] = []
        names = tuple(h.name for h in hypotheses)
        enough = of >= MANY
        found = regions(self.case, sample.index[explained], sample.index[against]) if enough else iter((EVERYWHERE,))
        # How likely the hypothesis is to fit an element by chance: a region is chosen among many.
        chance = (np.count_nonzero(explained) + 1) / (np.count_nonzero(explained | against) + 2)
        written = candidate.store is not None and hypotheses[0].name == "never written"
        for region in found:
            if region.by_value and written and candidate.detail != "zeros":
                continue
            inside = region.holds(sample.index)
            if region.name and np.count_nonzero(explained & inside) * -np.log(chance) < EVIDENCE:
                continue
            sums = [float(sample.weight.sum(where=m & inside)) for m in (explained, explained & same, against)]
            choices.append(_Trial(order, names, candidate, region, sums[0], sums[1], sums[2], of))
        choices = [
            t for t in choices
            if t.is_pure and t.gain >= _least(t) and t.explained >= min(fewest, of)
            and (t.explained >= MANY or (t.gain >= 1 - SAME and not t.region.name))
        ]  # fmt: skip
        if choices:
            most = max(t.gain for t in choices)
            yield next(t for t in choices if t.gain >= most - SAME)

    def _pairs(self, promising: list[Any]) -> Iterator[_Trial]:
        """The best moves, each with every function and store; and the best functions, each with every store."""
        moves = [p for p in promising if p[2].move is not None]
        others = [p for p in promising if p[2].move is None and p[0] > 0]
        stores = [p for p in others if p[2].store is not None]
        functions = [p for p in others if p[2].function is not None]
        firsts = [(p, others) for p in self._best_moves(moves)]
        firsts += [(p, stores) for p in sorted(functions, key=lambda p: -max(p[3], p[4]))[:4] if max(p[3], p[4]) > 0.3]
        for (order, hypothesis, candidate, one, _), seconds in firsts:
            for second_order, second, part, other, _ in seconds:
                both = candidate.with_part(part)
                share = float(self.first.judged(both)[0].mean())
                if share >= BY_VALUE and share > max(one, other) + SAME:
                    found = self._trial(1000 + order + second_order, (hypothesis, second), both)
                    yield from (trial for trial in found if not trial.region.by_value)

    def _best_moves(self, moves: list[Any]) -> list[Any]:
        """Those after which the device's result is the smoothest function of what was read."""
        rough = self._roughness(None)
        scored = sorted(((self._roughness(p[2]), k) for k, p in enumerate(moves)))
        return [moves[k] for value, k in scored[:4] if value < 0.5 * rough and value < 0.3]

    def _roughness(self, move: Candidate | None) -> float:
        """How much neighbours differ once elements are sorted by what was read, relative to any two elements."""
        case, index = self.case, self.first.index
        where = [index] * len(case.sources)
        if move is not None:
            moved = move.move(case.shape, index) if move.move is not None else index
            where = [moved if move.source in (None, k) else index for k in range(len(where))]
        known = np.logical_and.reduce([w >= 0 for w in where])
        if np.count_nonzero(known) < 4 * MANY:
            return np.inf
        got = Elements(self.first.got, case.result).values()[known]
        read = [source.at(w[known]).values() for source, w in zip(case.sources, where, strict=True)]
        if len(read) > 1:
            if len(read) > 2 or Role.GRADIENT not in case.operation.roles or case.descriptor is None:
                return np.inf
            got = got / read[0]
        keep = np.isfinite(got) & np.isfinite(read[-1])
        got, x = got[keep], read[-1][keep]
        if got.size < 4 * MANY:
            return np.inf
        order = np.argsort(x, kind="stable")
        ours = np.median(np.abs(np.diff(got[order])))
        anyhow = np.median(np.abs(np.diff(got[np.random.default_rng(0).permutation(got.size)])))
        return float(ours / anyhow) if anyhow else np.inf

    def rivals(self, first: _Trial, other: _Trial) -> bool:
        """Whether another trial is a real alternative: it explains as much, with no more assumptions, otherwise."""
        moves = first.candidate.move, other.candidate.move
        if moves[0] is not None and moves[1] is not None and first.candidate.source == other.candidate.source:
            index = self.sample.index
            if np.array_equal(*(move(self.case.shape, index) for move in moves if move is not None)):
                return False
        return (
            other.names != first.names
            and not first.region.name
            and not other.region.name
            and len(other.names) <= len(first.names)
            and other.gain >= first.gain - SAME
            and other.bits >= first.bits - SAME_BITS
            and other.against <= first.against
        )

    # ---- confirming ----

    def finding(self, trial: _Trial, *, confirm: bool = True) -> tuple[Mask, Finding]:
        """Which elements it explains, of all; and the finding."""
        explained = np.zeros(self.case.bad.size, np.bool_)
        counts = [trial.explained, trial.same_bits, trial.against]
        if confirm:
            counts = self._confirmed(trial, explained)
        hypotheses = [h for name in trial.names for h in HYPOTHESES if h.name == name]
        sample = self.sample
        ours, _, _, out = sample.judged(trial.candidate)
        at = np.flatnonzero(ours & trial.region.holds(sample.index))
        example = _example(self.case, int(sample.index[at[0]]), out[at[0]]) if at.size else None
        of = int(self.of)
        name, sentence, detail = " and ".join(trial.names), " ".join(h.sentence for h in hypotheses), trial.candidate.detail
        if trial.region.by_value and detail == "zeros":
            name, sentence, detail = ZEROS, "The device has 0 for these values of what it reads.", ""
        return explained, Finding(
            name,
            sentence,
            detail,
            trial.region.name and f"only {trial.region.name}",
            min(of, round(counts[0])),
            of,
            min(of, round(counts[1])),
            round(counts[2]),
            (counts[0] - counts[2]) / of,
            example,
        )

    def _confirmed(self, trial: _Trial, explained: Mask) -> list[float]:
        """The counts of a trial on every element; marks those that it explains."""
        case, budget = self.case, EXAMINED
        counts = np.zeros(3)
        bad, settled = case.bad.reshape(-1), self.settled
        for start in range(0, bad.size, BLOCK):
            index = np.arange(start, min(start + BLOCK, bad.size))
            index = index[trial.region.holds(index) & ~settled[index]]
            if not index.size:
                continue
            out, known = trial.candidate.at(case, index)
            got, want, is_bad = case.got.reshape(-1)[index], case.want.reshape(-1)[index], bad[index]
            same, differs = _same(out, got, case), ~_same(out, want, case)
            if known is not None:
                differs &= known
            # What is equal needs no bounds, nor what is as it should be.
            unsure = np.flatnonzero(~same & differs)
            fits = same.copy()
            harmless = np.zeros(index.size, np.bool_)
            examined, rest = unsure[:budget], unsure[budget:]
            budget -= examined.size
            if examined.size:
                is_close = case.bound(index[examined])
                fits[examined] = is_close(out[examined], got[examined])
                harmless[examined] = is_close(out[examined], want[examined])
            ours = is_bad & fits & differs
            against = differs & ~fits & ~(harmless & ~is_bad)
            against[rest] = False
            if rest.size:
                ours[rest] |= is_bad[rest]
            explained[index[ours]] = True
            counts += [np.count_nonzero(ours), np.count_nonzero(ours & same), np.count_nonzero(against)]
        return [float(count) for count in counts]


def _least(trial: _Trial) -> float:
    """The share of the elements out of bounds that it must explain."""
    if trial.region.by_value:
        return BY_VALUE
    # Two orders agree in some places.
    return MOVED if trial.region.name and trial.candidate.move is not None else MENTIONED


def _ranked(trials: list[_Trial]) -> list[_Trial]:
    """In the order that the module's docstring states."""
    rest, ranked = sorted(trials, key=lambda trial: -trial.gain), []
    while rest:
        same = [trial for trial in rest if trial.gain >= rest[0].gain - SAME]
        whole = [trial for trial in same if not trial.region.name] or same
        # What gives every bit and is contradicted nowhere is right, if anything is.
        whole = [trial for trial in whole if trial.same_bits >= trial.of and not trial.against] or whole
        most = max(trial.bits for trial in whole)
        first = min(
            (trial for trial in whole if trial.bits >= most - SAME_BITS),
            key=lambda trial: (trial.order, -round(trial.gain, 2), -round(trial.bits, 2)),
        )
        ranked.append(first)
        rest.remove(first)
    return ranked


def _example(case: Case, index: int, explained: Any = None) -> Example:
    image, y, x, channel = (int(place) for place in np.unravel_index(index, case.shape))
    return Example(
        image,
        y,
        x,
        channel,
        tuple(str(source.stored.reshape(-1)[index]) for source in case.sources),
        str(case.got.reshape(-1)[index]),
        str(case.want.reshape(-1)[index]),
        "" if explained is None else str(explained),
    )


def _zeros(case: Case) -> Finding | None:
    """Zeros at places that have nothing in common."""
    got = case.got.reshape(-1)[case.bad_index]
    count, of = int(np.count_nonzero(got == 0)), case.bad_index.size
    if count < PURE * of:
        return None
    example = _example(case, int(case.bad_index[np.flatnonzero(got == 0)[0]]), 0)
    sentence = "The device has 0 there, and the places have nothing in common."
    return Finding(ZEROS, sentence, "", _where(case) if of < MANY else "", count, of, count, 0, count / of, example)


def _where(case: Case) -> str:
    places = zip(*np.unravel_index(case.bad_index, case.shape), strict=True)
    return "at " + " and ".join(f"(image {n}, y {y}, x {x}, channel {c})" for n, y, x, c in places)


def _pattern(case: Case) -> Finding:
    """Where the bad elements are, and what they have in common, for want of a cause."""
    parts = [f"{case.bad_index.size:,} of {case.bad.size:,} elements"]
    got, want = (array.reshape(-1)[case.bad_index] for array in (case.got, case.want))
    distance = ulp_distance(got, want, case.result)
    sentence = "None of the faults that are looked for explains these elements."
    if int(distance.max()) != UNREACHABLE and np.quantile(distance, 0.99) <= NOISE:
        typical = int(np.quantile(distance, 0.99))
        parts.insert(0, f"accuracy alone, as noise of {typical} ULP would leave")
        sentence = "The results are near the right ones, but less accurate than the bounds allow; no fault was found."
    for axis, name in enumerate(AXES):
        bad = np.asarray(case.bad.any(axis=tuple(k for k in range(4) if k != axis)))
        if bad.size > 1:
            parts.append(f"in all {bad.size} {name}" if bad.all() else f"in {listed(name, bad)} of {bad.size}")
    x = case.sources[-1].at(case.bad_index).values() if case.sources else np.empty(0)
    missing = np.isnan(x)
    numbers = x[~missing] if missing.any() else x
    if numbers.size:
        parts.append(f"x from {numbers.min():.6g} to {numbers.max():.6g}")
    if numbers.size < x.size:
        parts.append(f"x is NaN at {x.size - numbers.size:,}")
    for text, mask in (("NaN", np.isnan(got)), ("0", got == 0), ("infinite", np.isinf(got))):
        if mask.any():
            parts.append(f"{np.count_nonzero(mask):,} of them {text}")
    of = case.bad_index.size
    return Finding(NO_FAULT, sentence, "; ".join(parts), "", 0, of, 0, 0, 0.0, _example(case, int(case.bad_index[0])))
