"""Makes Hypothesis deterministic in the examples of docstrings, and lets it explain nothing, which takes long."""

from collections.abc import Iterator

import hypothesis
import pytest

PHASES = [phase for phase in hypothesis.settings().phases if phase is not hypothesis.Phase.explain]
hypothesis.settings.register_profile("examples", derandomize=True, database=None, phases=PHASES)


@pytest.fixture(autouse=True)
def _same_examples(request: pytest.FixtureRequest) -> Iterator[None]:
    if not isinstance(request.node, pytest.DoctestItem):
        yield
        return
    before = hypothesis.settings()
    hypothesis.settings.load_profile("examples")
    yield
    hypothesis.settings.register_profile("before", before)
    hypothesis.settings.load_profile("before")
