"""
The Hypothesis entry point of mpsref: `hypothesis.strategies.from_type` knows its types.

A module of its own, like the pytest plugin: Hypothesis runs the hook in every process that imports it. The strategies
themselves are imported when the first of them is asked for.
"""

from __future__ import annotations

from typing import Any

__all__ = ["_hypothesis_setup_hook"]


def _hypothesis_setup_hook() -> None:
    """Register a strategy for each type that has one."""
    from hypothesis import strategies as st  # noqa: PLC0415

    import mpsref  # noqa: PLC0415

    def later(name: str, **options: Any) -> Any:
        def strategy(_: type) -> st.SearchStrategy[Any]:
            from mpsref.testing import strategies  # noqa: PLC0415

            found: st.SearchStrategy[Any] = getattr(strategies, name)(**options)
            return found

        return strategy

    st.register_type_strategy(mpsref.MPSCNNNeuronType, later("neuron_types"))
    st.register_type_strategy(mpsref.MPSNNNeuronDescriptor, later("descriptors", channels=st.integers(1, 9)))
    st.register_type_strategy(mpsref.MPSImageFeatureChannelFormat, later("formats"))
    st.register_type_strategy(mpsref.MPSImageDescriptor, later("image_descriptors"))
    st.register_type_strategy(mpsref.MPSImage, later("images"))
    st.register_type_strategy(mpsref.GraphFile, later("graphs"))
