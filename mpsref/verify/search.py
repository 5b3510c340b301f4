"""The search for a cause by its parts, see `mpsref.verify.faults`: trials on samples of an image, and their rank."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import groupby, islice

import numpy as np

from mpsref.arrays import Index, Mask, Stored, Wide, meaning, spread
from mpsref.operations import Role
from mpsref.ulp import ulp_distance
from mpsref.verify.case import SHORT, Case, most_noise
from mpsref.verify.compare import NEAR
from mpsref.verify.hypotheses import Candidate, Hypothesis
from mpsref.verify.hypotheses.base import MANY, median
from mpsref.verify.regions import EVERYWHERE, Region, regions
from mpsref.verify.samples import (
    Judged,
    Sample,
    between_ends,
    close_to,
    equal,
    evident,
    followed,
    has_ends,
    is_scattered,
    is_wide,
    lost,
    neighbours,
)

__all__ = ["PURE", "Search", "Trial", "ranked"]

CLOSER_LOOK, ROWS = 4096, 64
"""Elements on which a candidate is tried that is promising on fewer; and how many are tried at once on those."""

BLOCK = SHORT
"""Elements confirmed at once: as many as bounds are remembered for."""

SMALL = 1024
"""Elements of an image in which many moves are the same."""

MENTIONED = 0.05
"""The share of the elements out of bounds that a cause must explain."""

BY_VALUE, MOVED = 0.5, 0.3
"""
The same, where it is restricted to an interval of values or to every k-th element, about all of the arithmetic, or
another function of all elements; and where elements are moved in a part of the image.
"""

ZEROS = 0.65
"""The share of zeros among what a move explains above which it explains nothing else: as of rows that are padded."""

SURELY_LESS = 0.2
"""A share of some elements below which that of all is less than `MOVED`."""

EDGE = 64
"""Elements beside those out of bounds that tell where a place ends."""

PURE, PURE_EVERYWHERE = 0.95, 0.9
"""The least share of explained among explained and contradicting elements, in a region and in the whole image."""

FITTED = 0.995
"""The same for a hypothesis with a fitted number."""

CODES, SOME, COARSE = 0.9, 0.5, 11
"""What such a one must give to the bit of what it explains: of codes, and where the format has so few bits."""

NARROW = 0.12
"""And what an arithmetic must give so: noise of a few ULP comes as near, but seldom to the bit."""

MAJORITY = 0.75
"""What counts, for an arithmetic, an element nearer to the ideal value, relative to one nearer to what it gives."""

EVIDENCE = 16.0
"""How improbable it must be that a region fits by chance, as -ln of the probability."""

ALIKE = 0.8
"""Of codes, the share that another function must explain that holds for an interval of values."""

ENOUGH = 0.97
"""The share from which no pair of parts is tried."""

SAME, SAME_BITS = 0.02, 0.1
"""Differences up to which two shares of explained elements, and of equal bits, count as equal."""

SAME_REGION = 0.005
"""The difference up to which the simpler of two regions is preferred."""

ADDED = 0.2
"""What a second part that is about all of the arithmetic must add."""

LEFT, MOST_TERMS = 0.7, 5000
"""What a first fault of a layer must leave of the errors, at most; and the longest sums of layers with two faults."""

BEST, SMOOTH = 4, 0.4
"""How many parts are tried with others; and how rough, at most, the result is as a function of what was read."""


@dataclass(frozen=True, eq=False)
class Trial:
    """A candidate and how much it explains of the elements on which it was tried."""

    order: int
    names: tuple[str, ...]
    candidate: Candidate
    region: Region
    explained: float
    same_bits: float
    against: float
    of: float
    fitted: bool = False
    elsewhere: float = 1.0
    """The share of the elements within bounds that it gives bit for bit, in the whole image."""

    @property
    def gain(self) -> float:
        """Explained less contradicting elements, relative to all."""
        return (self.explained - self.against) / self.of

    @property
    def bits(self) -> float:
        """The share that it gives bit for bit."""
        return self.same_bits / self.of

    @property
    def is_pure(self) -> bool:
        """Whether few contradict."""
        least = PURE if self.region.name else PURE_EVERYWHERE
        return self.explained >= least * (self.explained + self.against)


def _typical_step(values: Wide) -> float:
    """The median difference of two neighbours."""
    return median(np.abs(values[1:] - values[:-1]))


@lru_cache(maxsize=4)
def _shuffled(size: int) -> Index:
    """Indices in a random order, always the same."""
    return np.random.default_rng(0).permutation(size)


def _constant(values: Stored) -> bool:
    """Whether all values are the same."""
    return bool((values == values[:1]).all() or (values.dtype.kind == "f" and np.isnan(values).all()))


@dataclass(frozen=True, eq=False)
class _Promise:
    """A candidate on the first look: the share that it explains or comes near to, and what it leaves of the errors."""

    order: int
    hypothesis: Hypothesis
    candidate: Candidate
    share: float
    near: float
    left: float = np.inf

    @property
    def best(self) -> float:
        return max(self.share, self.near)


class Search:
    """The samples of a case's elements, and trials on them."""

    def __init__(self, case: Case, settled: Mask, hypotheses: Sequence[Hypothesis]) -> None:
        self.case, self.settled, self.hypotheses = case, settled, hypotheses
        bad = case.bad_index[spread(case.bad_index.size, CLOSER_LOOK)]
        good = ~case.bad & ~settled.reshape(case.shape)
        # Half of the elements within bounds come from near the bad ones, where a fault of a small part shows.
        near = np.ones(case.shape, np.bool_)
        for k in range(4):
            near &= case.bad.any(axis=tuple(j for j in range(4) if j != k), keepdims=True)
        strata = [np.flatnonzero(good & near), np.flatnonzero(good & ~near)]
        chosen = [bad, *(stratum[spread(stratum.size, CLOSER_LOOK // 2)] for stratum in strata)]
        sizes = [case.bad_index.size, *(stratum.size for stratum in strata)]
        weight = np.concatenate([np.full(c.size, n / max(1, c.size)) for c, n in zip(chosen, sizes, strict=True)])
        index = np.concatenate(chosen)
        self.sample = Sample(case, index, np.arange(index.size) < bad.size, weight)
        first = case.bad_sample
        self.first = Sample(case, first, np.ones(first.size, np.bool_), np.ones(first.size))
        self.of = float(case.bad_index.size)
        self._moves: set[tuple[int | None, bytes]] = set()
        self._all = np.arange(min(SMALL, case.want.size))
        # What explains much less than something that gives every bit is not tried closer.
        self._surest = 0.0

    # ---- trying ----

    def trials(self) -> list[Trial]:
        """All that explain enough: single parts, and pairs where those are not enough."""
        firsts = sorted(((self._followed(trial), trial) for trial in self._firsts()), key=lambda each: -each[0])
        if firsts and firsts[0][0] >= PURE:
            # The node is right, whatever else its image may look like.
            return [firsts[0][1]]
        trials = [trial for _, trial in firsts]
        promising: list[_Promise] = []
        ordered = sorted(enumerate(self.hypotheses), key=lambda each: each[1].is_last)
        several = [each for each in ordered if each[1].fewest <= self.of and not each[1].is_first]
        # What was found so far matters to some of them.
        for is_free, group in groupby(several, lambda each: not (each[1].fitted or each[1].is_last)):
            for some in [list(group)] if is_free else [[each] for each in group]:
                (_, hypothesis), *_ = some
                if hypothesis.is_last and trials:
                    continue
                if hypothesis.fitted and any(min(t.gain, t.bits) >= ENOUGH for t in trials if not t.region.name):
                    # A number that was fitted says less than what gives every bit without.
                    continue
                for promise, found in self._first_looks(some):
                    promising.append(promise)
                    trials += found
                    sure = (t.gain for t in found if min(t.gain, t.bits) >= ENOUGH and not t.region.by_value)
                    self._surest = max(self._surest, *sure, 0.0)
        best = max((t.gain for t in trials if not t.region.by_value), default=0.0)
        if best < ENOUGH and self.of >= MANY:
            pairs = [*self._pairs(promising), *self._faults_of_layers(promising)]
            trials += [t for t in pairs if t.gain > best + SAME]
        return trials

    def _firsts(self) -> Iterator[Trial]:
        """Those of hypotheses by which the node is right."""
        for order, hypothesis in enumerate(self.hypotheses):
            if hypothesis.is_first:
                for candidate in hypothesis.candidates(self.case):
                    yield from self._trial(order, (hypothesis,), candidate)

    def _followed(self, trial: Trial) -> float:
        """The share of elements that it may leave out of bounds, less those that contradict it."""
        sample = self.sample
        _, _, consistent, _, against = followed(trial.candidate, self.case, sample.index, sample.bad)
        inside = sample.weight * trial.region.holds(sample.index)
        return float(inside.sum(where=consistent) - inside.sum(where=against)) / self.of

    def _is_known(self, candidate: Candidate) -> bool:
        """Whether a move takes all elements of a small image from where one before it does."""
        if candidate.move is None or self.case.want.size > SMALL:
            return False
        if candidate.function or candidate.store or candidate.reads or candidate.known:
            return False
        where = candidate.move(self.case.shape, self._all).tobytes()
        known = (candidate.source, where) in self._moves
        self._moves.add((candidate.source, where))
        return known

    def _first_looks(self, hypotheses: Sequence[tuple[int, Hypothesis]]) -> Iterator[tuple[_Promise, list[Trial]]]:
        candidates = (
            (order, hypothesis, candidate)
            for order, hypothesis in hypotheses
            for candidate in hypothesis.candidates(self.case)
            if not self._is_known(candidate)
        )
        for is_given, group in groupby(candidates, lambda each: each[2].given is not None):
            if is_given:
                # Each may take whole images, which are forgotten before the next.
                yield from (self._first_look_at_layer(*each) for each in group)
                continue
            while some := list(islice(group, ROWS)):
                outs, *masks = self.first.explained([candidate for *_, candidate in some])
                shares, against = (mask.mean(axis=1).tolist() for mask in masks)
                for k, near in enumerate(self._roughly(outs).tolist()):
                    promise = _Promise(*some[k], shares[k], near)
                    yield promise, self._tried(promise, against[k])

    def _first_look_at_layer(
        self, order: int, hypothesis: Hypothesis, candidate: Candidate
    ) -> tuple[_Promise, list[Trial]]:
        assert candidate.given is not None
        out, _ = candidate.at(self.case, self.first.index)
        promise = _Promise(order, hypothesis, candidate, 0.0, float(self._roughly(out)), self._left(out))
        trials: list[Trial] = []
        # The bounds of a layer take as long as what it gives.
        is_near = max(promise.near, float(equal(out, self.first.got, self.case).mean())) >= MENTIONED
        if is_near or candidate.given.is_wide:
            judged = self.first.judged(candidate)
            promise = replace(promise, share=float(judged.explained.mean()))
            trials = self._tried(promise, float(judged.against.mean()))
        candidate.release()
        return promise, trials

    def _tried(self, promise: _Promise, against: float) -> list[Trial]:
        """The trials of one part, if it explains enough of some elements, beside the share that contradicts it."""
        candidate = promise.candidate
        # An order that explains fewer than it must in a part of the image must be right in all of it.
        is_hopeless = _least_in_place(candidate) == MOVED and promise.share < SURELY_LESS and against > promise.share
        if promise.share < max(MENTIONED, self._surest - SAME_BITS) or is_hopeless:
            return []
        if candidate.is_arithmetic and candidate.function is None:
            # An arithmetic alone is hardly told from a store.
            return []
        return list(self._trial(promise.order, (promise.hypothesis,), candidate))

    def _left(self, out: Stored) -> float:
        """What a candidate leaves of the errors: their median size, relative to what it was."""
        (got, want), out = self.first.values, meaning(out, self.case.result)
        was = np.median(np.abs(got - want))
        return float(np.median(np.abs(got - out)) / was) if was else np.inf

    def _roughly(self, out: Stored) -> Wide:
        """The share of elements that are near what each candidate gives, and nearer than to the ideal."""
        (got, want), out = self.first.values, meaning(out, self.case.result)
        off = np.abs(got - out)
        near = (off <= 0.02 * np.abs(got) + 1e-4) & (off < 0.5 * np.abs(got - want))
        return np.asarray(near.mean(axis=-1))

    def _trial(self, order: int, hypotheses: tuple[Hypothesis, ...], candidate: Candidate) -> Iterator[Trial]:
        sample = self.sample
        judged = sample.judged(candidate)
        explained, against = judged.explained, judged.against
        fewest = max(h.fewest for h in hypotheses)
        of = float(sample.weight.sum(where=sample.bad & judged.known))
        if np.count_nonzero(explained) < fewest or of < MENTIONED * self.of:
            return
        if candidate.move is not None and (candidate.move(self.case.shape, sample.index[explained]) < 0).mean() > ZEROS:
            # Zeros, then, of memory that was not written, and hardly a move.
            return
        written = hypotheses[0].name == "never written"
        if not written and _constant(sample.got[explained]):
            # What leaves NaN, or 0, here and there, but not where else it is found, leaves it for another reason.
            one = sample.got[explained][:1]
            against = against | (sample.bad & judged.known & ~explained & equal(sample.got, one, self.case))
        overall = BY_VALUE if hypotheses[0].general and candidate.given is None else MENTIONED
        # Less than it explains anywhere it cannot gain in any region.
        if float(sample.weight.sum(where=explained)) / of < overall:
            return
        fitted = any(h.fitted for h in hypotheses)
        least = FITTED if fitted else 0.0
        bits, least_of_near = self._least_of_bits(candidate, fitted=fitted), self._least_of_near(explained)
        choices = [
            t for t in self._in_regions(order, hypotheses, candidate, judged, against, of)
            if t.is_pure and t.explained >= least * (t.explained + t.against)
            and t.gain >= max(_least(t), overall, self._least_of_codes(t)) and t.explained >= min(fewest, of)
            and (t.region.name or t.gain >= least_of_near)
            and t.same_bits >= bits * t.explained
            and (t.explained >= MANY or (t.gain >= 1 - SAME and not t.region.name))
        ]  # fmt: skip
        if choices:
            most = max(t.gain for t in choices)
            alike = [t for t in choices if t.gain >= most - (SAME_REGION if t.region.name else SAME)]
            yield next((t for t in alike[1:] if self._is_closer(t, alike[0])), alike[0])

    def _in_regions(
        self,
        order: int,
        hypotheses: tuple[Hypothesis, ...],
        candidate: Candidate,
        judged: Judged,
        against: Mask,
        of: float,
    ) -> Iterator[Trial]:
        """The trials of a candidate everywhere, and in regions that elements which contradict it suggest."""
        sample, explained = self.sample, judged.explained
        names = tuple(h.name for h in hypotheses)
        fitted, written = any(h.fitted for h in hypotheses), names[0] == "never written"
        # Of all that it would change, within bounds or not, most must be nearer to what it gives.
        votes = sample.votes(judged)
        votes *= np.where(votes < 0, MAJORITY if hypotheses[0].general else 1.0, 1.0)
        found: Iterator[Region] = iter((EVERYWHERE,))
        if self.of >= MANY and sample.weight.sum(where=explained) / of >= _least_in_place(candidate, names):
            outside = against | (votes < 0) if votes.sum() < 0 else against
            found = regions(self.case, sample.index[explained], sample.index[outside])
        # How likely the hypothesis is to fit an element by chance: a region is chosen among many.
        chance = (np.count_nonzero(explained) + 1) / (np.count_nonzero(explained | against) + 2)
        good = ~sample.bad & judged.known
        elsewhere = float(judged.same[good].mean()) if good.any() else 1.0
        for region in found:
            if region.by_value and fitted:
                continue
            if (region.by_value or region.by_stride) and candidate.restored is not None:
                # Memory is overwritten in places.
                continue
            inside = region.holds(sample.index)
            # Where all is one value, no more than that value is known.
            if region.by_value and _constant(judged.out[explained & inside]) != written:
                continue
            if region.name and np.count_nonzero(explained & inside) * -np.log(chance) < EVIDENCE:
                continue
            if votes.sum(where=inside) >= 0:
                masks = explained, explained & judged.same, against
                of_all, same, contrary = (float(sample.weight.sum(where=mask & inside)) for mask in masks)
                yield Trial(order, names, candidate, region, of_all, same, contrary, of, fitted, elsewhere)

    def _least_of_bits(self, candidate: Candidate, *, fitted: bool) -> float:
        """The share that it must give to the bit, of what it explains."""
        arithmetic = NARROW if candidate.is_arithmetic else 0.0
        if not fitted:
            return arithmetic
        # By a few codes nearly any curve can be fitted, but not to the bit.
        coarse = SOME if self.case.result.precision <= COARSE else 0.0
        return CODES if self.case.result.unorm_max else max(coarse, arithmetic)

    def _is_closer(self, trial: Trial, other: Trial) -> bool:
        """Whether all from one element on, or up to one, is what is out of bounds, and another region is not."""
        case, bad = self.case, self.case.bad_index
        if not trial.region.by_index or not other.region.name or not trial.region.holds(bad).all():
            return False
        if not other.region.holds(bad).all():
            return True
        ends = np.concatenate([bad[0] - 1 - np.arange(EDGE), bad[-1] + 1 + np.arange(EDGE)])
        beside = ends[(ends >= 0) & (ends < case.want.size)]
        beside = beside[other.region.holds(beside)]
        out, _ = trial.candidate.at(case, beside)
        return not bool(equal(out, case.got.reshape(-1)[beside], case).all())

    def _least_of_codes(self, trial: Trial) -> float:
        """The share that another function must explain in a part of an image of few codes, where many are alike."""
        if not self.case.result.unorm_max or not trial.region.name or trial.candidate.function is None:
            return 0.0
        return ALIKE if trial.region.by_value else MOVED

    def _least_of_near(self, explained: Mask) -> float:
        """The share that it must explain in the whole image if what it explains may be inaccuracy as well."""
        sample = self.sample
        distance = ulp_distance(sample.got[explained], sample.want[explained], self.case.result)
        return BY_VALUE if distance.size and np.median(distance) <= most_noise(self.case.result) else 0.0

    def _pairs(self, promising: list[_Promise]) -> Iterator[Trial]:
        """The best moves, each with every function and store; and the best functions, each with every store."""
        moves = [p for p in promising if p.candidate.move is not None]
        others = [p for p in promising if p.candidate.move is None and p.hypothesis.name != "never written"]
        stores = [p for p in others if p.candidate.store is not None and p.candidate.function is None]
        functions = [p for p in others if p.candidate.function is not None or p.candidate.given is not None]
        functions.sort(key=lambda p: -p.best)
        firsts = [(p, others) for p in self._best_moves(moves)]
        firsts += [(p, stores) for p in functions[:BEST] if p.best > MOVED]
        for one, seconds in firsts:
            tried = [one.candidate.with_part(other.candidate) for other in seconds]
            shares = np.concatenate(
                [self.first.explained(tried[k : k + ROWS])[1].mean(axis=1) for k in range(0, len(tried), ROWS)] or [[]]
            ).tolist()
            for other, both, share in zip(seconds, tried, shares, strict=True):
                more = ADDED if other.hypothesis.general and not other.candidate.cancels else SAME
                if share >= BY_VALUE and share > max(one.share, other.share) + more and self._is_as_scattered(both):
                    order = len(self.hypotheses) + one.order + other.order
                    found = self._trial(order, (one.hypothesis, other.hypothesis), both)
                    yield from (trial for trial in found if not trial.region.by_value)

    def _is_as_scattered(self, candidate: Candidate) -> bool:
        """Whether what it leaves is that of an arithmetic, and not of another function, if it is about one."""
        return not candidate.is_arithmetic or is_scattered(self.sample, candidate.at(self.case, self.sample.index)[0])

    def _faults_of_layers(self, promising: list[_Promise]) -> Iterator[Trial]:
        """Two faults of a layer: each on top of those that leave least."""
        firsts = sorted((p for p in promising if p.left < LEFT), key=lambda p: p.left)[:BEST]
        for one in firsts:
            assert one.candidate.given is not None
            layer = one.candidate.given.layer
            if layer.values is not None or int(layer.terms.max()) > MOST_TERMS:
                continue
            case = replace(self.case, layers=(layer,))
            for order, hypothesis in enumerate(self.hypotheses):
                if hypothesis is one.hypothesis or hypothesis.is_last or hypothesis.fitted:
                    continue
                for candidate in hypothesis.candidates(case):
                    if candidate.given is None:
                        break
                    both = one.candidate.with_part(candidate)
                    out, _ = both.at(self.case, self.first.index)
                    if self._left(out) < LEFT * one.left and self._roughly(out) >= BY_VALUE:
                        number = len(self.hypotheses) + one.order + order
                        found = self._trial(number, (one.hypothesis, hypothesis), both)
                        yield from (trial for trial in found if not trial.region.name)
                    both.release()

    def _best_moves(self, moves: list[_Promise]) -> list[_Promise]:
        """Those after which the device's result is the smoothest function of what was read."""
        rough = self._roughness(None)
        scored = sorted((self._roughness(p.candidate), k) for k, p in enumerate(moves))
        return [moves[k] for value, k in scored[:BEST] if value < SMOOTH * rough and value < SMOOTH]

    def _roughness(self, move: Candidate | None) -> float:
        """How much neighbours differ once elements are sorted by what was read, relative to any two elements."""
        case, index = self.case, self.first.index
        count = len(case.sources)
        if count > 2 or (count > 1 and (Role.GRADIENT not in case.operation.roles or case.descriptor is None)):
            return np.inf
        where, known = [index] * count, np.ones(index.shape, np.bool_)
        if move is not None and move.move is not None:
            moved = move.move(case.shape, index)
            where = [moved if move.source in (None, k) else index for k in range(count)]
            known = moved >= 0
        *upstream, x = (
            own if w is index else source.at(w).values()
            for source, own, w in zip(case.sources, self.first.read, where, strict=True)
        )
        got = self.first.values[0] / upstream[0] if upstream else self.first.values[0]
        keep = known & np.isfinite(got) & np.isfinite(x)
        got, x = got[keep], x[keep]
        if got.size < 4 * MANY:
            return np.inf
        ours, anyhow = (_typical_step(got[order]) for order in (np.argsort(x, kind="stable"), _shuffled(got.size)))
        return ours / anyhow if anyhow else np.inf

    def _is_general(self, trial: Trial) -> bool:
        """Whether it is about all of the arithmetic alone."""
        return trial.order < len(self.hypotheses) and self.hypotheses[trial.order].general

    def rivals(self, first: Trial, other: Trial) -> bool:
        """Whether another trial is a real alternative: it explains as much, with no more assumptions, otherwise."""
        moves = first.candidate.move, other.candidate.move
        if moves[0] is not None and moves[1] is not None and first.candidate.source == other.candidate.source:
            index = self.sample.index
            if np.array_equal(moves[0](self.case.shape, index), moves[1](self.case.shape, index)):
                return False
        return (
            other.names != first.names
            and not self._is_general(other)
            and not first.region.name
            and not other.region.name
            and len(other.names) <= len(first.names)
            and other.gain >= first.gain - SAME
            and other.bits >= first.bits - SAME_BITS
            and other.against <= first.against
        )

    # ---- confirming ----

    def confirmed(self, trial: Trial, explained: Mask) -> list[float]:
        """The counts of a trial on every element; marks those that it explains."""
        case, candidate = self.case, trial.candidate
        counts = np.zeros(4)
        bad, settled = case.bad.reshape(-1), self.settled
        for start in range(0, bad.size, BLOCK):
            index = np.arange(start, min(start + BLOCK, bad.size))
            index = index[trial.region.holds(index) & ~settled[index]]
            if not index.size:
                continue
            if candidate.restored is not None:
                # What is within its bounds needs no other cause, though it may be no evidence.
                _, same, ours, _, against = followed(candidate, case, index, bad[index])
                explained[index[ours]] = True
                counts += [np.count_nonzero(m) for m in (ours, ours & same, against & ~ours, bad[index])]
                continue
            out, known = candidate.at(case, index)
            got, want, is_bad = case.got.reshape(-1)[index], case.want.reshape(-1)[index], bad[index]
            same, differs = equal(out, got, case), ~equal(out, want, case) | is_wide(candidate)
            if known is not None:
                differs &= known
            fits, harmless, idle, too_near = self._fits(candidate, index, out, same, differs)
            consistent = is_bad & (fits | too_near) & differs
            ours = consistent & fits & ~idle
            against = differs & ~(fits | too_near) & ~(harmless & ~is_bad)
            # What it leaves within bounds needs no other cause, though it is no evidence of this one.
            explained[index[consistent]] = True
            if known is not None:
                # Of what was not recorded nothing can be said, by no other cause either.
                explained[index[~known]] = True
            certain = is_bad if known is None else is_bad & known
            counts += [np.count_nonzero(m) for m in (ours, ours & same, against, certain)]
        candidate.release()
        if trial.region.name:
            counts[3] = trial.of
        return [float(count) for count in counts]

    def _fits(self, candidate: Candidate, index: Index, out: Stored, same: Mask, differs: Mask) -> tuple[Mask, ...]:
        """
        Which elements at flat indices fit what a candidate gives.

        Then where that does no harm, where it would be within bounds, and where cancelling terms may leave the rest.
        """
        case = self.case
        got, want, is_bad = (image.reshape(-1)[index] for image in (case.got, case.want, case.bad))
        fits, harmless, idle, too_near = same.copy(), *np.zeros((3, index.size), np.bool_)
        # What is equal needs no bounds, nor what is as it should be; nor, within bounds, what is next to it.
        unsure = np.flatnonzero(~same & differs)
        if unsure.size and candidate.undo is None and not candidate.exact and not case.layers:
            fits[unsure] = ulp_distance(out[unsure], got[unsure], case.result) <= NEAR
            unsure = unsure[~fits[unsure] | is_bad[unsure]]
        if unsure.size:
            sure = evident(candidate, case, index[unsure], out[unsure])
            fits[unsure] |= sure
            unsure = unsure[~sure]
        if unsure.size and candidate.cancels:
            too_near[unsure], nearer = lost(candidate, case, index[unsure], out[unsure])
            fits[unsure] |= nearer
            # What is within bounds and does not contradict needs no bounds.
            unsure = unsure[is_bad[unsure] | ~too_near[unsure]]
        if unsure.size:
            chosen = index[unsure]
            is_close = between_ends(candidate, case, chosen) if has_ends(candidate, case) else case.bound(chosen)
            fits[unsure] |= close_to(candidate, is_close, out[unsure], got[unsure])
            harmless[unsure] = is_close(out[unsure], want[unsure])
            if not case.layers and is_bad[unsure].any():
                idle[unsure] = case.allowed(chosen)(out[unsure])
            if candidate.coarse and not case.layers:
                is_next = neighbours(candidate, case, chosen, got[unsure])
                fits[unsure] |= is_next
                idle[unsure] &= ~is_next
        return fits, harmless, idle, too_near


def _least(trial: Trial) -> float:
    """The share of the elements out of bounds that it must explain."""
    is_another = not trial.region.name and any(name in ("another neuron", "another function") for name in trial.names)
    if trial.region.by_value or trial.region.by_stride or is_another:
        return BY_VALUE
    return _least_in_place(trial.candidate, trial.names) if trial.region.name else MENTIONED


def _least_in_place(parts: Candidate, names: tuple[str, ...] = ()) -> float:
    """The same in a part of the image."""
    # Two orders agree in some places, and of many slopes some are alike.
    ordered = parts.move is not None or parts.given is not None or "the slope of another channel" in names
    return MOVED if ordered else MENTIONED


def ranked(trials: list[Trial]) -> list[Trial]:
    """In the order that the module's docstring states."""
    rest, ranked = sorted(trials, key=lambda trial: -trial.gain), []
    while rest:
        same = [trial for trial in rest if trial.gain >= rest[0].gain - SAME]
        whole = [trial for trial in same if not trial.region.name] or same
        # What says something of every element comes before what says it of some.
        known = max(trial.of for trial in whole)
        whole = [trial for trial in whole if trial.of >= (1 - SAME) * known]
        # What gives every bit and is contradicted nowhere is right, if anything is.
        whole = [trial for trial in whole if trial.same_bits >= trial.of and not trial.against] or whole
        # A number that was fitted has some bits right by that alone.
        most = max((t.bits for t in whole if not t.fitted or t.bits >= ENOUGH), default=0.0)
        # Where nearly every bit is right, what little is not says more.
        whole = [trial for trial in whole if trial.bits >= most - min(SAME_BITS, 2 * (1 - most) + 0.0005)]
        elsewhere = max(trial.elsewhere for trial in whole)
        first = min(
            (trial for trial in whole if trial.elsewhere >= elsewhere - SAME_BITS or trial.region.name),
            key=lambda trial: (trial.order, trial.fitted, -round(trial.gain, 2), -round(trial.bits, 2)),
        )
        ranked.append(first)
        rest.remove(first)
    return ranked
