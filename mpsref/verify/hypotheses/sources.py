"""Sources that are recorded otherwise than they were read."""

from __future__ import annotations

from collections.abc import Iterator

from mpsref.verify.case import Case
from mpsref.verify.hypotheses.base import Candidate, hypothesis


@hypothesis(
    "the source is not recorded as it was read",
    "The image follows from what its source should be, not from what was recorded of it: the source was overwritten "
    "after it was read, or recorded at another time.",
    is_first=True,
)
def source_overwritten(case: Case) -> Iterator[Candidate]:
    for restored in case.restored:
        yield Candidate(" and ".join(restored.names), restored=restored)
