"""Candidates that differ in a few numbers, and the numbers that fit the elements out of bounds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np

from mpsref.arrays import Elements, Wide, spread
from mpsref.neuron import gradient
from mpsref.operations import Role
from mpsref.verify.case import Case, Step, within
from mpsref.verify.hypotheses.base import MANY, Candidate, decimals, median

__all__ = ["LEAST_FIT", "NEGLIGIBLE", "Family", "Fit"]

SOME, MOST_STEPS, LEAST_FIT = 128, 4, 0.3
"""Elements to which numbers are fitted; nodes among which; and what share a fitted candidate must explain."""

BEST_STARTS, MOST_ITERATIONS = 4, 16
"""Sets of numbers from which a better one is looked for, and how often."""

NEGLIGIBLE = 2.0**-20
"""A relative change of a number that only the arithmetic of the device explains."""

SAME_BITS = 0.02
"""The difference up to which shares of equal results count as equal."""

CURVE, SURE, PIECES, SHORT = 3, 0.97, 3, 0.25
"""
The degree of polynomials that any smooth function is like on few inputs, and the share that one must explain; the
slopes of what has only straight pieces, and the length of inputs, relative to the largest, on which these tell little.
"""

GRID = np.concatenate([sign * 2.0 ** np.arange(-10, 10.5, 0.5) for sign in (1, -1)])
"""Values between which a better one is looked for."""


Family: TypeAlias = Callable[[Sequence[float]], Candidate | None]
"""Candidates that differ in a few numbers: from these to the candidate, or None if there is none."""


class Fit:
    """
    Some elements out of bounds, which one of a family of candidates should give.

    Attributes
    ----------
    case : Case
        The image.
    index : ndarray of int
        Flat indices of the elements.
    got, ideal : ndarray of float64
        What the device gave there, and what it should have.
    """

    def __init__(self, case: Case) -> None:
        index = case.bad_sample[spread(case.bad_sample.size, SOME)]
        elements = Elements(case.got.reshape(-1)[index], case.result)
        fitting = np.flatnonzero(np.isfinite(elements.values()))
        self.case, self.index = case, index[fitting]
        self._stored = elements.stored[fitting]
        self.got, self.ideal = elements.values()[fitting], case.exact(0, self.index)
        # The bounds of a layer are those of what it gives, which each candidate would have to compute.
        self._is_close = (within(case.result) if case.layers else case.bound)(self.index)
        # Far smaller results than most have relative errors that tell nothing.
        self._least = float(np.median(np.abs(self.got))) / 64 if self.index.size else 0.0

    @property
    def weights(self) -> Wide:
        """By which errors become relative ones, but of results far smaller than most."""
        sizes = np.abs(self.got) + self._least
        return 1 / np.where(sizes > 0, sizes, 1.0)

    @property
    def is_possible(self) -> bool:
        """Whether there are enough elements, of enough different inputs."""
        sources = self.case.sources
        roles = self.case.operation.roles
        inputs = [source for source, role in zip(sources, roles, strict=False) if role is not Role.GRADIENT] or sources
        return any(np.unique(source.at(self.index).values()).size >= MANY for source in inputs)

    def steps(self) -> Iterator[tuple[int, Step]]:
        """The neurons of which parameters may be fitted, and their numbers."""
        if self.is_possible and len(self.case.steps) <= MOST_STEPS:
            for k, step in enumerate(self.case.steps):
                if step.operation.descriptor is not None:
                    yield k, step

    def errors(self, family: Family, values: Sequence[float]) -> Wide:
        """The relative error of each element, with its sign, at most 1."""
        candidate = family(values)
        if candidate is None:
            return np.ones(self.got.shape)
        made = candidate.values(self.case, self.index)
        off = (made - self.got) / (np.abs(made) + np.abs(self.got) + self._least)
        return np.where(made == self.got, 0.0, np.where(np.isnan(off), 1.0, off))

    def shares(self, family: Family, values: Sequence[float]) -> tuple[float, float]:
        """Of how many elements the result is within bounds, and of how many the same."""
        candidate = family(values)
        return (0.0, 0.0) if candidate is None else self.share_of(candidate)

    def share_of(self, candidate: Candidate) -> tuple[float, float]:
        """The same of one candidate."""
        made, _ = candidate.at(self.case, self.index)
        return float(self._is_close(made, self._stored).mean()), float((made == self._stored).mean())

    def value(self, family: Family) -> float:
        """Of a family of one number: where the typical error is least, as far as a grid and a search in it tell."""

        def distance(value: float) -> float:
            return median(np.abs(self.errors(family, [value])))

        best: float = min((distance(value), value) for value in GRID.tolist())[1]
        low, high = best / math.sqrt(2), best * math.sqrt(2)
        golden = (math.sqrt(5) - 1) / 2
        inner = [high - golden * (high - low), low + golden * (high - low)]
        found = [distance(value) for value in inner]
        for _ in range(40):
            if found[0] <= found[1]:
                high, inner[1], found[1] = inner[1], inner[0], found[0]
                inner[0] = high - golden * (high - low)
                found[0] = distance(inner[0])
            else:
                low, inner[0], found[0] = inner[0], inner[1], found[1]
                inner[1] = low + golden * (high - low)
                found[1] = distance(inner[1])
        return inner[1] if found[1] < found[0] else inner[0]

    def together(self, family: Family, starts: Sequence[tuple[float, ...]]) -> list[float]:
        """Of several numbers: where the errors are small, by steps of Gauss and Newton from some starts."""

        def errors(at: Any) -> Wide:
            return self.errors(family, at)

        # Of those that do as well, that which gives more of the bits: the very numbers, if they are among them.
        return max(_descended(errors, starts), key=lambda values: sum(self.shares(family, values)))

    def shortest(self, family: Family, values: Sequence[float], best: float) -> list[float]:
        """The shortest numbers that do as well."""
        rounded = [list(each) for each in zip(*(decimals(value, 8) for value in values), strict=True)]
        found = [(each, bits) for each in rounded for share, bits in [self.shares(family, each)] if share >= best]
        most = max((bits for _, bits in found), default=0.0)
        return next((each for each, bits in found if bits >= most - SAME_BITS), list(values))

    @cached_property
    def extent(self) -> str:
        """What to add where the inputs are so close together that many a curve fits as well; empty elsewhere."""
        p = self.case.descriptor
        if len(self.case.steps) > 1 or p is None or p.data is not None or self.case.layers:
            return ""
        *upstream, x = (source.at(self.index).values() for source in self.case.sources)
        factor = upstream[0] if upstream else np.ones(x.shape)
        known = np.isfinite(x * factor * self.weights) & np.isfinite(self.got * self.weights)
        if np.count_nonzero(known) < MANY:
            return ""
        low, high = x[known].min(), x[known].max()
        slopes = gradient(p, x[known], np.ones(np.count_nonzero(known)))
        if np.unique(slopes).size <= PIECES:
            # A straight piece is like any other curve only where it is short.
            is_short = high - low < SHORT * max(abs(low), abs(high))
        else:
            scale = np.abs(x[known]).max(initial=1e-300)
            powers = (factor * self.weights)[:, np.newaxis] * np.vander(np.where(known, x, 0) / scale, CURVE + 1)
            found, *_ = np.linalg.lstsq(powers[known], (self.got * self.weights)[known], rcond=None)
            close = self._is_close(self.case.stored(np.asarray(powers @ found) / self.weights), self._stored)
            is_short = close.mean() >= SURE
        return f"as far as inputs from {low:.3g} to {high:.3g} tell" if is_short else ""


def _descended(errors: Callable[[Any], Wide], starts: Sequence[tuple[float, ...]]) -> list[list[float]]:
    """The best of the starts, and where steps of Gauss and Newton lead from them."""

    def slopes_at(at: Wide, off: Wide) -> Wide:
        steps = 1e-5 * np.maximum(np.abs(at), 1e-3)
        return np.stack([(errors(at + step) - off) / step.max() for step in np.diag(steps)], axis=1)

    found: list[list[float]] = []
    ranked = sorted((float(np.mean(np.abs(errors(start)))), start) for start in starts)
    for _, start in ranked[:BEST_STARTS]:
        at, off, damping = np.array(start), errors(start), 1e-3
        error, slopes = float(off @ off), slopes_at(at, off)
        for _ in range(MOST_ITERATIONS):
            normal = slopes.T @ slopes
            damped = normal + damping * np.diag(np.diag(normal)) + 1e-12 * np.eye(at.size)
            move = np.linalg.solve(damped, -slopes.T @ off)
            there = errors(at + move)
            if (after := float(there @ there)) < error:
                at, off, error, damping = at + move, there, after, damping / 8
                slopes = slopes_at(at, off)
            else:
                damping *= 8
            if np.abs(move).max() < 1e-8 * np.abs(at).max():
                break
        found += [list(start), at.tolist()]
    return found
