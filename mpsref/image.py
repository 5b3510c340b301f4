"""MPSImage: numbers in Metal's texture layout."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from mpsref.arrays import Stored, meaning
from mpsref.attributes import NO_DEVICE, NO_MEMORY, Strict
from mpsref.enums import MPSDataLayout, MTLPixelFormat, MTLTextureType
from mpsref.environment import environment_or_error
from mpsref.errors import ImageError, UnavailableError
from mpsref.image_bytes import LARGEST_IMAGE, MPSImageReadWriteParams, MTLOrigin, MTLRegion, MTLSize, Transfer, whole
from mpsref.image_lanes import LANES, components, read_lanes, write_lanes
from mpsref.pictures import image_html
from mpsref.storage import (
    ArrayFormat,
    ChannelFormat,
    FormatLike,
    StorageFormat,
    array_or_error,
    channel_format_of,
    image_storage_of,
    storage_format,
    unmasked_or_error,
)

__all__ = ["MPSImage", "MPSImageDescriptor", "MPSImageReadWriteParams", "MTLOrigin", "MTLRegion", "MTLSize"]


MOST_PIXELS = 256
"""Elements of an image that is printed whole."""


def _pixel_format(storage: StorageFormat, count: int) -> MTLPixelFormat:
    bits = 8 * storage.dtype.itemsize
    return MTLPixelFormat[f"{'rgba'[:count]}{bits}{'Unorm' if storage.unorm_max else 'Float'}"]


@dataclass(frozen=True, kw_only=True)
class MPSImageDescriptor(Strict):
    """
    Size and format of an `MPSImage`: an immutable value.

    Parameters
    ----------
    channel_format : MPSImageFeatureChannelFormat, str or dtype
        One of the four storage formats: a member, its name, or the dtype of its elements.
    width, height : int
        In pixels, at least 1.
    feature_channels, number_of_images : int
        At least 1.

    Raises
    ------
    ImageError
        An extent is not a positive integer, or the format is ``none``.

    Notes
    -----
    Source: ``MPSImage.h``.

    Examples
    --------
    >>> from mpsref import MPSImageDescriptor, MPSImageFeatureChannelFormat
    >>> d = MPSImageDescriptor(
    ...     channel_format=MPSImageFeatureChannelFormat.float16, width=3, height=2, feature_channels=9
    ... )
    >>> d.pixel_format.name, d.number_of_images
    ('rgba16Float', 1)
    """

    _left_out: ClassVar = {
        "copyWithZone:": "a value needs no copy",
        "cpuCacheMode": NO_MEMORY,
        "storageMode": NO_MEMORY,
        "usage": NO_MEMORY,
    }
    _is_array: ClassVar[bool] = False

    channel_format: ChannelFormat
    width: int = 1
    height: int = 1
    feature_channels: int = 1
    number_of_images: int = 1

    def __post_init__(self) -> None:
        storage = storage_format(self.channel_format, "channel_format")
        chosen = storage.channel_format if self._is_array else storage.of_image("channel_format")
        object.__setattr__(self, "channel_format", chosen)
        for name in ("width", "height", "feature_channels", "number_of_images"):
            object.__setattr__(self, name, whole(name, getattr(self, name), minimum=1))
        size = math.prod(_shape(self)) * storage.dtype.itemsize
        if size > LARGEST_IMAGE:
            raise ImageError(f"width x height x feature_channels x number_of_images need {size} bytes: give less")

    @property
    def pixel_format(self) -> MTLPixelFormat:
        """The pixel format of the texture: 1, 2 or 4 components by channel count."""
        return _pixel_format(storage_format(self.channel_format), components(self.feature_channels))

    def _instead(self, name: str, value: object) -> str:
        return f": dataclasses.replace(descriptor, {name}={value!r}) makes another" if name in vars(self) else ""


# That of frozen dataclasses knows no reason and no other name.
del MPSImageDescriptor.__setattr__


class ArrayDescriptor(MPSImageDescriptor):
    """That of a recorded array in any format, also one that no image has."""

    _is_array = True


def descriptor_in(channel_format: ChannelFormat, **sizes: int) -> MPSImageDescriptor:
    """The descriptor of an image, or of an array in a format that no image has."""
    kind = ArrayDescriptor if isinstance(channel_format, ArrayFormat) else MPSImageDescriptor
    return kind(channel_format=channel_format, **sizes)


class MPSImage(Strict):
    """
    Images with any number of feature channels, in the texture layout of Metal.

    Channel ``c`` of image ``i`` is component ``c % 4`` of slice ``i * ceil(C / 4) + c // 4``. A texture has 1, 2 or 4
    components for 1, 2 or more channels; unused components of the last slice are zero, and no reader ever sees them.

    Parameters
    ----------
    image_descriptor : MPSImageDescriptor
        Size and format of a new image, filled with zeros.
    texture : ndarray, shape (slices, height, width, 1 or 2 or 4)
        An array of a storage dtype that the image aliases; needs `feature_channels`. Later writes to the array must
        leave unused components finite.
    feature_channels : int
        The number of channels per image in `texture`.

    Raises
    ------
    ImageError
        The texture's shape, dtype or unused components do not fit the number of channels.

    Notes
    -----
    Source: ``MPSImage.h``. A new image reads zeros.

    Examples
    --------
    >>> import numpy as np
    >>> from mpsref import MPSImage, MPSImageFeatureChannelFormat
    >>> image = MPSImage.from_array(np.ones((2, 3, 9)), MPSImageFeatureChannelFormat.float16)
    >>> image.texture.shape, image.to_array().shape
    ((3, 2, 3, 4), (1, 2, 3, 9))
    """

    # `_slices` is (images, slices of one image, height, width, components): a view of some images or some slices is a
    # plain NumPy view, which Metal's flat slice index would not allow.
    _left_out: ClassVar = {
        "defaultAllocator": NO_MEMORY,
        "device": NO_DEVICE,
        "initWithParentImage:sliceRange:featureChannels:": "sub_image and batch_representation are public",
        "resourceSize": NO_MEMORY,
        "setPurgeableState:": NO_MEMORY,
        "synchronizeOnCommandBuffer:": NO_DEVICE,
        "usage": NO_MEMORY,
    }

    __slots__ = ("_channels", "_parent", "_slices", "_storage", "label")

    _slices: Stored
    _storage: StorageFormat
    _channels: int
    _parent: MPSImage | None
    label: str | None

    def __init__(
        self,
        *,
        image_descriptor: MPSImageDescriptor | None = None,
        texture: Stored | None = None,
        feature_channels: int | None = None,
    ) -> None:
        if image_descriptor is not None and texture is None and feature_channels is None:
            d = image_descriptor
            if not isinstance(d, MPSImageDescriptor):
                raise ImageError(f"image_descriptor is a {type(d).__name__}: give an MPSImageDescriptor")
            storage = storage_format(d.channel_format, "channel_format")
            slices = np.zeros(_shape(d), storage.dtype)
            channels = d.feature_channels
        elif image_descriptor is None and texture is not None and feature_channels is not None:
            channels = whole("feature_channels", feature_channels, minimum=1)
            storage, slices = _adopt_texture(texture, channels)
        else:
            raise UnavailableError("MPSImage takes image_descriptor=..., or texture=... with feature_channels=...")
        self._init(slices, storage, channels, None)

    def _init(self, slices: Stored, storage: StorageFormat, channels: int, parent: MPSImage | None) -> None:
        put = object.__setattr__  # bypasses the checks of `Strict`, which would take longer than the rest
        put(self, "_slices", slices)
        put(self, "_storage", storage)
        put(self, "_channels", channels)
        put(self, "_parent", parent)
        put(self, "label", None)

    @classmethod
    def _from_slices(
        cls, slices: Stored, storage: StorageFormat, channels: int, parent: MPSImage | None = None
    ) -> MPSImage:
        image = cls.__new__(cls)
        image._init(slices, storage, channels, parent)
        return image

    @classmethod
    def from_array(cls, array: npt.ArrayLike, channel_format: FormatLike | None = None) -> MPSImage:
        """
        Pack an array, rounding each value once to the storage format.

        Parameters
        ----------
        array : array_like, shape (H, W, C) or (N, H, W, C), or any other of at most five axes, channels last
            Floating point values, or elements that already have the dtype of the storage format (codes 0 to 255 in
            uint8 for ``unorm8``, 0 to 65535 in uint16 for ``unorm16``), which are stored unchanged. Python integers
            are values. (C,) or () is one pixel, (W, C) one row; of five axes the first two are images.
        channel_format : MPSImageFeatureChannelFormat, str or dtype, optional
            A member, its name, or the dtype of its elements. Default: the format with the dtype of `array`.

        Raises
        ------
        ImageError
            The rank is wrong, an axis is empty, or the dtype does not fit the format.
        FloatingPointModeError
            Values must be rounded, but this thread flushes subnormals or does not round to nearest.
        """
        image = cls._of_recorded(array, channel_format)
        image._storage.of_image("array" if channel_format is None else "channel_format")
        return image

    @classmethod
    def _of_recorded(cls, array: npt.ArrayLike, channel_format: FormatLike | None = None) -> MPSImage:
        """What a recording holds: an image, or an array in a format that no image has, which only mpsref sees."""
        values = array_or_error(array, "array")
        if not values.dtype.isnative:
            values = values.astype(values.dtype.newbyteorder("="))
        shape = values.shape
        if values.dtype.kind == "i" and (values.ndim < 2 or not hasattr(array, "dtype")):
            values = values.astype(np.float64)
        if values.ndim > 5 or 0 in shape:
            raise ImageError(
                f"array has shape {shape}: give (H, W, C) or (N, H, W, C), or any of 1 to 5 axes, none empty"
            )
        *images, h, w, c = (1,) * (4 - values.ndim) + (shape or (1,))
        values = values.reshape(math.prod(images), h, w, c)
        if channel_format is None:
            channel_format = channel_format_of(values.dtype) or image_storage_of(values.dtype, "array")
        storage = storage_format(channel_format, "channel_format")
        if values.dtype != storage.dtype:
            if values.dtype.kind != "f" or values.dtype.itemsize > 8:
                raise ImageError(
                    f"array has dtype {values.dtype}: {storage.name} takes float16, float32, float64 or {storage.dtype}"
                )
            environment_or_error()
            rounded = np.empty(values.shape, storage.dtype)
            with np.errstate(all="ignore"):
                values = storage.encode(np.ascontiguousarray(values, np.float64), rounded)
        n, h, w, c = values.shape
        d = descriptor_in(storage.channel_format, width=w, height=h, feature_channels=c, number_of_images=n)
        image = cls(image_descriptor=d)
        write_lanes(image._slices, values)
        return image

    def to_array(self) -> Stored:
        """
        Unpack into a new array of shape (N, H, W, C), in the storage dtype (codes, for unorm).

        Examples
        --------
        >>> import numpy as np
        >>> from mpsref import MPSImage, MPSImageFeatureChannelFormat
        >>> MPSImage.from_array(np.full((1, 1, 2), 0.5), MPSImageFeatureChannelFormat.unorm8).to_array()
        array([[[[128, 128]]]], dtype=uint8)
        """
        n, _, h, w, _ = self._slices.shape
        array = np.empty((n, h, w, self._channels), self._storage.dtype)
        read_lanes(self._slices, array)
        return array

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> Stored:
        if copy is False:
            raise ValueError("an MPSImage is always unpacked into a new array: leave out copy=False")
        array = self.to_array()
        return array if dtype is None else array.astype(dtype)

    # ---- properties, mostly Apple's ----

    @property
    def width(self) -> int:
        """Pixels in a row."""
        return int(self._slices.shape[3])

    @property
    def height(self) -> int:
        """Rows of pixels."""
        return int(self._slices.shape[2])

    @property
    def feature_channels(self) -> int:
        """Channels per image."""
        return self._channels

    @property
    def number_of_images(self) -> int:
        """Images in this object."""
        return int(self._slices.shape[0])

    @property
    def feature_channel_format(self) -> ChannelFormat:
        """How a channel is stored."""
        return self._storage.channel_format

    @property
    def pixel_format(self) -> MTLPixelFormat:
        """Pixel format of the texture."""
        return _pixel_format(self._storage, self._slices.shape[-1])

    @property
    def texture_type(self) -> MTLTextureType:
        """2D for one image of at most four channels, else an array of 2D textures."""
        one = self._slices.shape[0] * self._slices.shape[1] == 1
        return MTLTextureType.type2D if one else MTLTextureType.type2DArray

    @property
    def precision(self) -> int:
        """Bits of numeric precision: 8, 16, 11 or 24."""
        return self._storage.precision

    @property
    def pixel_size(self) -> int:
        """Bytes from one texel of a slice to the next, unused components included."""
        return int(self._slices.shape[-1] * self._slices.itemsize)

    @property
    def texture(self) -> Stored:
        """
        The emulated texture, shape (slices, height, width, components), read-only.

        It aliases the image, except for a channel range of several images, whose slices are not contiguous.
        """
        flat = self._slices.reshape(-1, *self._slices.shape[2:])
        flat.flags.writeable = False
        return flat

    @property
    def parent(self) -> MPSImage | None:
        """The image that this is a view of."""
        return self._parent

    @property
    def storage(self) -> StorageFormat:
        """The storage format."""
        return self._storage

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """The shape of `to_array`: images, rows, pixels in a row, feature channels."""
        n, _, h, w, _ = self._slices.shape
        return n, h, w, self._channels

    @property
    def descriptor(self) -> MPSImageDescriptor:
        """Size and format, for a new image like this one."""
        return descriptor_in(
            self.feature_channel_format,
            width=self.width,
            height=self.height,
            feature_channels=self._channels,
            number_of_images=self.number_of_images,
        )

    @property
    def slices(self) -> Stored:
        """The texture as (images, slices of one image, height, width, components of a new image)."""
        return self._slices[..., : components(self._channels)]

    def __repr__(self) -> str:
        size = f"{self.width}x{self.height}x{self._channels}"
        several = f" x{self.number_of_images}" if self.number_of_images > 1 else ""
        return f"<MPSImage {size}{several} {self._storage.name}{f' {self.label!r}' if self.label else ''}>"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        # Code that makes it, so that a failing example of a test shows its pixels, and can be tried again.
        array = self.to_array()
        pixels = np.array2string(array, threshold=MOST_PIXELS, separator=", ", floatmode="unique")
        code = f"MPSImage.from_array(np.array({' '.join(pixels.split())}, np.{self._storage.dtype}))"
        printer.text(code if array.size <= MOST_PIXELS else f"{self!r}: {code}")

    def _repr_html_(self) -> str:
        return image_html(repr(self)[1:-1], self.to_array(), partial(meaning, storage=self._storage))

    # ---- views ----

    def batch_representation(self, *, with_sub_range: range | None = None) -> list[MPSImage]:
        """
        An aliasing image for each contained image, or for those in a range.

        Parameters
        ----------
        with_sub_range : range, optional
            Image indices, with step 1.

        Raises
        ------
        ImageError
            The range has another step, or reaches outside the images.
        """
        indices = range(self.number_of_images) if with_sub_range is None else _range("with_sub_range", with_sub_range)
        if indices.step != 1 or not 0 <= indices.start <= indices.stop <= self.number_of_images:
            raise ImageError(f"with_sub_range is {indices}: it must lie in range({self.number_of_images}), with step 1")
        return [self._from_slices(self._slices[i : i + 1], self._storage, self._channels, self) for i in indices]

    def sub_image(self, *, with_feature_channel_range: range) -> MPSImage:
        """
        An aliasing image over a range of feature channels.

        Parameters
        ----------
        with_feature_channel_range : range
            Start and length are multiples of 4; a range that is too long is truncated.

        Raises
        ------
        ImageError
            Start or length is not a multiple of 4, or the range is empty or starts outside.
        """
        r = _range("with_feature_channel_range", with_feature_channel_range)
        name = f"with_feature_channel_range is {r}"
        if r.step != 1 or r.start % LANES or len(r) % LANES or not len(r):
            raise ImageError(f"{name}: start and length must be multiples of 4, the step 1, the length not 0")
        if not 0 <= r.start < self._channels:
            raise ImageError(f"{name}: it must start within the {self._channels} feature channels")
        slices = self._slices[:, r.start // LANES : r.stop // LANES]
        return self._from_slices(slices, self._storage, min(len(r), self._channels - r.start), self)

    # ---- bytes ----

    def read_bytes(
        self,
        data_layout: MPSDataLayout | str,
        image_index: int = 0,
        *,
        bytes_per_row: int | None = None,
        bytes_per_image: int | None = None,
        region: MTLRegion | None = None,
        feature_channel_info: MPSImageReadWriteParams | None = None,
    ) -> bytes:
        """
        Copy pixels out, in storage format, as Apple's ``readBytes`` does.

        Parameters
        ----------
        data_layout : MPSDataLayout or str
            The order of the elements of an image; a member or its name.
        image_index : int
            The image; with a region, the one that ``origin.z`` counts from.
        bytes_per_row, bytes_per_image : int, optional
            Strides in the buffer. Default: dense.
        region : MTLRegion, optional
            Default: the whole image `image_index`.
        feature_channel_info : MPSImageReadWriteParams, optional
            Default: all channels.

        Returns
        -------
        bytes
            Up to the last element; gaps between strides are zero.

        Raises
        ------
        ImageError
            An argument is not as the header documents; the message names it.

        Examples
        --------
        >>> import numpy as np
        >>> from mpsref import MPSDataLayout, MPSImage
        >>> image = MPSImage.from_array(np.uint8([[[1, 2, 3], [4, 5, 6]]]))
        >>> image.read_bytes(MPSDataLayout.HeightxWidthxFeatureChannels).hex()
        '010203040506'
        >>> image.read_bytes(MPSDataLayout.featureChannelsxHeightxWidth).hex()
        '010402050306'
        """
        copy = Transfer(
            self._slices,
            self._storage,
            self._channels,
            data_layout,
            image_index,
            None,
            bytes_per_row,
            bytes_per_image,
            region,
            feature_channel_info,
        )
        buffer = bytearray(copy.nbytes)
        read_lanes(copy.pixels, copy.elements(buffer))
        return bytes(buffer)

    def write_bytes(
        self,
        data: bytes | bytearray | memoryview | Stored,
        data_layout: MPSDataLayout | str,
        image_index: int = 0,
        *,
        bytes_per_column: int | None = None,
        bytes_per_row: int | None = None,
        bytes_per_image: int | None = None,
        region: MTLRegion | None = None,
        feature_channel_info: MPSImageReadWriteParams | None = None,
    ) -> None:
        """
        Copy pixels in, as Apple's ``writeBytes`` does: nothing is converted.

        Parameters
        ----------
        data : bytes-like or ndarray
            Bytes, or a uint8 array, are elements of the storage dtype, little-endian as on Apple's devices. An array of
            that dtype may have any byte order. Without strides the length must be exact; with strides it must reach the
            last element.
        data_layout, image_index, bytes_per_row, bytes_per_image, region, feature_channel_info
            As for `read_bytes`.
        bytes_per_column : int, optional
            Stride from one pixel of a row to the next, in both layouts. Default: dense.

        Raises
        ------
        ImageError
            An argument is not as the header documents, or `data` has the wrong length or dtype.
        """
        copy = Transfer(
            self._slices,
            self._storage,
            self._channels,
            data_layout,
            image_index,
            bytes_per_column,
            bytes_per_row,
            bytes_per_image,
            region,
            feature_channel_info,
        )
        if not self._slices.flags.writeable:
            raise ImageError("the image aliases a read-only texture: make it from a writeable array")
        if isinstance(data, np.ndarray):
            unmasked_or_error(data, "data")
            if data.dtype.newbyteorder("=") not in (self._storage.dtype, np.uint8):
                raise ImageError(f"data has dtype {data.dtype}: the image stores {self._storage.dtype}, convert first")
            raw = np.ascontiguousarray(data, data.dtype.newbyteorder("<")).reshape(-1).view(np.uint8).data
        else:
            try:
                raw = memoryview(data).cast("B")
            except TypeError as error:
                raise ImageError(f"data: {error}: give bytes or an array without gaps") from None
        dense = bytes_per_column is None and bytes_per_row is None and bytes_per_image is None
        if raw.nbytes < copy.nbytes or (dense and raw.nbytes != copy.nbytes):
            raise ImageError(
                f"data has {raw.nbytes} bytes: {'exactly' if dense else 'at least'} {copy.nbytes} are needed"
            )
        write_lanes(copy.pixels, copy.elements(raw))


def _range(name: str, value: Any) -> range:
    if not isinstance(value, range):
        raise ImageError(f"{name} is a {type(value).__name__}: give a range(start, stop)")
    if max(abs(value.start), abs(value.stop)) > LARGEST_IMAGE:
        raise ImageError(f"{name} is {value}: no image has so many")
    return value


def _shape(d: MPSImageDescriptor) -> tuple[int, ...]:
    slices = -(-d.feature_channels // LANES)
    return d.number_of_images, slices, d.height, d.width, components(d.feature_channels)


def _adopt_texture(texture: Stored, channels: int) -> tuple[StorageFormat, Stored]:
    if not isinstance(texture, np.ndarray):
        raise ImageError(f"texture is a {type(texture).__name__}: give an ndarray, which the image will alias")
    storage = image_storage_of(texture.dtype, "texture")
    per_image = math.ceil(channels / LANES)
    if texture.ndim != 4 or 0 in texture.shape or texture.shape[0] % per_image:
        raise ImageError(
            f"texture has shape {texture.shape}: give (a multiple of {per_image} slices, H, W, components)"
        )
    if texture.shape[3] != components(channels):
        raise ImageError(f"texture has {texture.shape[3]} components: {channels} channels need {components(channels)}")
    slices = texture.reshape(-1, per_image, *texture.shape[1:])  # one axis is split: always a view
    unused = slices[:, -1, :, :, (channels - 1) % LANES + 1 :]
    if not storage.unorm_max and not np.isfinite(unused).all():
        raise ImageError("texture has NaN or infinity in unused components of its last slice: set them to 0")
    return storage, slices
