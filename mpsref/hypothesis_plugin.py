"""
The Hypothesis entry point of mpsref: `hypothesis.strategies.from_type` knows its types.

Hypothesis runs the hook in every process that imports it, so the hook imports nothing. Where `mpsref` loads its names
later, it calls `register` itself. The strategies are imported when the first of them is used.
"""

from __future__ import annotations

from typing import Any

import mpsref

__all__ = ["register"]


def register() -> None:
    """Register a strategy for each type that has one, once the types are imported."""
    if "MPSImage" not in vars(mpsref):
        return
    from hypothesis import strategies as st  # noqa: PLC0415  # optional

    def later(name: str, **options: Any) -> Any:
        def strategy(_: type) -> st.SearchStrategy[Any]:
            from mpsref.testing import strategies  # noqa: PLC0415  # slow

            registered: st.SearchStrategy[Any] = getattr(strategies, name)(**options)
            return registered

        return strategy

    st.register_type_strategy(mpsref.MPSCNNNeuronType, later("neuron_types"))
    st.register_type_strategy(mpsref.MPSNNNeuronDescriptor, later("descriptors", channels=st.integers(1, 9)))
    st.register_type_strategy(mpsref.MPSImageFeatureChannelFormat, later("formats"))
    st.register_type_strategy(mpsref.MPSImageDescriptor, later("image_descriptors"))
    st.register_type_strategy(mpsref.MPSImage, later("images"))
    st.register_type_strategy(mpsref.GraphFile, later("graphs"))
