"""Images."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from mpsref.image import MPSImage, MPSImageDescriptor
from mpsref.neuron.descriptor import NeuronLike
from mpsref.storage import storage_format
from mpsref.testing.strategies.arguments import count, drawn, instance, neuron_or_invalid
from mpsref.testing.strategies.numbers import Format, floats, formats, storage_or_invalid

__all__ = ["image_descriptors", "images"]


@st.composite
def image_descriptors(
    draw: st.DrawFn,
    format: Format | None = None,
    *,
    max_side: int = 3,
    channels: int | None = None,
    max_channels: int = 9,
    max_images: int = 2,
) -> MPSImageDescriptor:
    """
    A strategy for `MPSImageDescriptor`.

    Parameters
    ----------
    format : MPSImageFeatureChannelFormat, str or dtype, optional
        Default: any of the four.
    max_side : int
        Largest width and height.
    channels : int, optional
        Number of feature channels. Default: 1 to `max_channels`; 9 need three slices of a texture.
    max_channels, max_images : int
        Largest numbers of feature channels and of images.

    Examples
    --------
    >>> from hypothesis import find
    >>> from mpsref.testing import strategies as mpst
    >>> d = find(mpst.image_descriptors(), lambda d: d.feature_channels > 4)
    >>> d.width, d.height, d.feature_channels, d.number_of_images
    (1, 1, 5, 1)
    """
    own = None if format is None else storage_or_invalid(format, of_images=True).channel_format
    limits = {"max_side": max_side, "max_channels": max_channels, "max_images": max_images}
    for name, value in (limits if channels is None else {"channels": channels, **limits}).items():
        count(value, name)
    return MPSImageDescriptor(
        channel_format=draw(formats()) if own is None else own,
        width=draw(st.integers(1, max_side)),
        height=draw(st.integers(1, max_side)),
        feature_channels=draw(st.integers(1, max_channels)) if channels is None else channels,
        number_of_images=draw(st.integers(1, max_images)),
    )


@st.composite
def images(
    draw: st.DrawFn,
    descriptor: MPSImageDescriptor | st.SearchStrategy[MPSImageDescriptor] | None = None,
    /,
    *,
    neuron: NeuronLike | None = None,
    max_values: int = 7,
    **options: Any,
) -> MPSImage:
    """
    A strategy for `MPSImage`.

    Parameters
    ----------
    descriptor : MPSImageDescriptor or strategy, optional
        Size and format. Default: `image_descriptors`.
    neuron : MPSNNNeuronDescriptor, MPSCNNNeuronType or str, optional
        The neuron that reads the image: its kinks and edges are drawn too.
    max_values : int
        Largest number of distinct values.
    **options
        Other arguments of `floats`.

    Notes
    -----
    A few values are drawn and repeated over the image, so that it shrinks to these. Do not use it where all elements
    must differ.

    Examples
    --------
    >>> from hypothesis import find
    >>> from mpsref.testing import strategies as mpst
    >>> find(mpst.images(), lambda image: image.feature_channels > 4).to_array()
    array([[[[0., 0., 0., 0., 0.]]]], dtype=float32)
    """
    d = image_descriptors() if descriptor is None else descriptor
    d = drawn(draw(d), MPSImageDescriptor, "descriptor") if isinstance(d, st.SearchStrategy) else d
    instance(d, MPSImageDescriptor, "descriptor")
    neuron = neuron_or_invalid(neuron)
    storage = storage_format(d.channel_format)
    shape = (d.number_of_images, d.height, d.width, d.feature_channels)
    numbers = floats(storage.name, neuron=neuron, **options)
    values = draw(st.lists(numbers, min_size=1, max_size=min(count(max_values, "max_values"), int(np.prod(shape)))))
    return MPSImage.from_array(np.resize(np.array(values, storage.dtype), shape))
