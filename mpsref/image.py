"""MPSImage: numbers in the texture layout that Metal gives them, and the byte buffers that go in and out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mpsref.enums import MPSDataLayout, MPSImageFeatureChannelFormat, MTLPixelFormat, MTLTextureType
from mpsref.errors import ImageError, UnavailableError
from mpsref.storage import StorageFormat, array_or_error, image_storage_of, storage_format

__all__ = [
    "MPSImage",
    "MPSImageDescriptor",
    "MPSImageReadWriteParams",
    "MTLOrigin",
    "MTLRegion",
    "MTLSize",
]

LANES = 4
"""Feature channels in one slice of a texture."""

LARGEST_IMAGE = 2**40
"""Bytes; what is larger is a mistake."""

Stored = npt.NDArray[Any]


class MTLOrigin(NamedTuple):
    """Position of a region: pixel (x, y), and z the first image counted from ``image_index``."""

    x: int = 0
    y: int = 0
    z: int = 0


class MTLSize(NamedTuple):
    """Extent of a region in pixels; ``depth`` counts images."""

    width: int
    height: int
    depth: int = 1


class MTLRegion(NamedTuple):
    """A block of pixels of one or several images."""

    origin: MTLOrigin
    size: MTLSize


class MPSImageReadWriteParams(NamedTuple):
    """
    Which feature channels to read or write. Source: ``MPSImage.h``.

    ``feature_channel_offset`` is a multiple of 4. ``number_of_feature_channels_to_read_write`` is above 0, and a
    multiple of 4 unless the offset is 0.
    """

    feature_channel_offset: int
    number_of_feature_channels_to_read_write: int


def _components(feature_channels: int) -> int:
    return feature_channels if feature_channels <= 2 else LANES


def _pixel_format(storage: StorageFormat, components: int) -> MTLPixelFormat:
    bits = 8 * storage.dtype.itemsize
    return MTLPixelFormat[f"{'rgba'[:components]}{bits}{'Unorm' if storage.unorm_max else 'Float'}"]


@dataclass(frozen=True, kw_only=True)
class MPSImageDescriptor:
    """
    Size and format of an `MPSImage`. A value: make a new one instead of changing it.

    Parameters
    ----------
    channel_format : MPSImageFeatureChannelFormat
        One of the four storage formats.
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

    channel_format: MPSImageFeatureChannelFormat
    width: int = 1
    height: int = 1
    feature_channels: int = 1
    number_of_images: int = 1

    def __post_init__(self) -> None:
        storage = storage_format(self.channel_format, "channel_format")
        object.__setattr__(self, "channel_format", storage.channel_format)
        for name in ("width", "height", "feature_channels", "number_of_images"):
            object.__setattr__(self, name, _whole(name, getattr(self, name), minimum=1))
        size = math.prod(_shape(self)) * storage.dtype.itemsize
        if size > LARGEST_IMAGE:
            raise ImageError(f"width x height x feature_channels x number_of_images need {size} bytes: give less")

    @property
    def pixel_format(self) -> MTLPixelFormat:
        """The pixel format of the texture: 1, 2 or 4 components by channel count."""
        return _pixel_format(storage_format(self.channel_format), _components(self.feature_channels))


class MPSImage:
    """
    Images with any number of feature channels, in the texture layout of Metal.

    Channel ``c`` of image ``i`` is component ``c % 4`` of slice ``i * ceil(C / 4) + c // 4``. A texture has 1, 2 or 4
    components for 1, 2 or more channels; components of the last slice that no channel uses are zero, and nothing
    that reads an image ever sees them.

    Parameters
    ----------
    image_descriptor : MPSImageDescriptor
        Makes an image filled with zeros.
    texture : ndarray, shape (slices, height, width, 1 or 2 or 4)
        Makes an image that aliases this array of a storage dtype; goes with `feature_channels`. Whoever writes to the
        array later must leave unused components finite.
    feature_channels : int
        How many channels the `texture` holds in each image.

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

    # One image a row, one slice a column: (images, slices of one image, height, width, components). A view of some
    # images or some slices stays a plain numpy view, which Metal's flat slice index would not allow.
    __slots__ = ("_channels", "_parent", "_slices", "_storage", "label")

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
            channels = _whole("feature_channels", feature_channels, minimum=1)
            storage, slices = _adopt_texture(texture, channels)
        else:
            raise UnavailableError("MPSImage takes image_descriptor=..., or texture=... with feature_channels=...")
        self._init(slices, storage, channels, None)

    def _init(self, slices: Stored, storage: StorageFormat, channels: int, parent: MPSImage | None) -> None:
        self._slices = slices
        self._storage = storage
        self._channels = channels
        self._parent = parent
        self.label: str | None = None

    @classmethod
    def _from_slices(
        cls, slices: Stored, storage: StorageFormat, channels: int, parent: MPSImage | None = None
    ) -> MPSImage:
        image = cls.__new__(cls)
        image._init(slices, storage, channels, parent)
        return image

    @classmethod
    def from_array(cls, array: npt.ArrayLike, channel_format: MPSImageFeatureChannelFormat | None = None) -> MPSImage:
        """
        Pack an array, rounding each value once to the storage format.

        Parameters
        ----------
        array : array_like, shape (H, W, C) or (N, H, W, C)
            Floating point values, or elements that already have the dtype of the storage format (codes 0 to 255 in
            uint8 for ``unorm8``, 0 to 65535 in uint16 for ``unorm16``), which are taken as they are.
        channel_format : MPSImageFeatureChannelFormat, optional
            Default: the format that has the dtype of `array`.

        Raises
        ------
        ImageError
            The shape has another rank or an empty axis, or the dtype does not go with the format.
        """
        values = array_or_error(array, "array")
        if not values.dtype.isnative:
            values = values.astype(values.dtype.newbyteorder("="))
        if values.ndim == 3:
            values = values[np.newaxis]
        if values.ndim != 4 or 0 in values.shape:
            raise ImageError(f"array has shape {np.shape(array)}: give (H, W, C) or (N, H, W, C), no axis empty")
        if channel_format is None:
            storage = image_storage_of(values.dtype, "array")
        else:
            storage = storage_format(channel_format, "channel_format")
        if values.dtype != storage.dtype:
            if values.dtype.kind != "f" or values.dtype.itemsize > 8:
                raise ImageError(
                    f"array has dtype {values.dtype}: {storage.name} is made from float16, float32, float64 "
                    f"or {storage.dtype}"
                )
            rounded = np.empty(values.shape, storage.dtype)
            with np.errstate(all="ignore"):
                values = storage.encode(np.ascontiguousarray(values, np.float64), rounded)
        n, h, w, c = values.shape
        image = cls(
            image_descriptor=MPSImageDescriptor(
                channel_format=storage.channel_format, width=w, height=h, feature_channels=c, number_of_images=n
            )
        )
        _write_lanes(image._slices, values)
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
        _read_lanes(self._slices, array)
        return array

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> Stored:
        if copy is False:
            raise ValueError("an MPSImage is unpacked into a new array: copy=False cannot be had")
        array = self.to_array()
        return array if dtype is None else array.astype(dtype)

    # ---- properties, as Apple has them ----

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
        """Channels of each image."""
        return self._channels

    @property
    def number_of_images(self) -> int:
        """Images in this object."""
        return int(self._slices.shape[0])

    @property
    def feature_channel_format(self) -> MPSImageFeatureChannelFormat:
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

        It aliases the image, except for the channel range of several images, whose slices do not lie in one run.
        """
        flat = self._slices.reshape(-1, *self._slices.shape[2:])
        flat.flags.writeable = False
        return flat

    @property
    def parent(self) -> MPSImage | None:
        """The image that this one is a view of."""
        return self._parent

    @property
    def storage(self) -> StorageFormat:
        """The storage format: conversions and distances."""
        return self._storage

    @property
    def descriptor(self) -> MPSImageDescriptor:
        """Size and format as one value: what makes a fresh image like this one."""
        return MPSImageDescriptor(
            channel_format=self.feature_channel_format,
            width=self.width,
            height=self.height,
            feature_channels=self._channels,
            number_of_images=self.number_of_images,
        )

    @property
    def slices(self) -> Stored:
        """The texture as (images, slices of one image, height, width, components), as a fresh image has them."""
        return self._slices[..., : _components(self._channels)]

    def __repr__(self) -> str:
        size = f"{self.width}x{self.height}x{self._channels}"
        several = f" x{self.number_of_images}" if self.number_of_images > 1 else ""
        return f"<MPSImage {size}{several} {self._storage.name}{f' {self.label!r}' if self.label else ''}>"

    def _repr_html_(self) -> str:
        # Only a notebook needs it.
        from mpsref.pictures import image_html  # noqa: PLC0415

        return image_html(repr(self)[1:-1], self.to_array(), partial(meaning, storage=self._storage))

    # ---- views ----

    def batch_representation(self, *, with_sub_range: range | None = None) -> list[MPSImage]:
        """
        One aliasing image for each contained image, or for those in a range.

        Parameters
        ----------
        with_sub_range : range, optional
            Image indices, with step 1.

        Raises
        ------
        ImageError
            The range has another step or reaches outside.
        """
        chosen = range(self.number_of_images) if with_sub_range is None else _range("with_sub_range", with_sub_range)
        if chosen.step != 1 or not 0 <= chosen.start <= chosen.stop <= self.number_of_images:
            raise ImageError(f"with_sub_range is {chosen}: it must lie in range({self.number_of_images}), with step 1")
        return [self._from_slices(self._slices[i : i + 1], self._storage, self._channels, self) for i in chosen]

    def sub_image(self, *, with_feature_channel_range: range) -> MPSImage:
        """
        An aliasing image over a range of feature channels.

        Parameters
        ----------
        with_feature_channel_range : range
            Start and length are multiples of 4; a length that is too long is cut to fit.

        Raises
        ------
        ImageError
            Start or length is no multiple of 4, or the range is empty or starts outside.
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
        data_layout: MPSDataLayout,
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
        data_layout : MPSDataLayout
            Order of the elements of one image.
        image_index : int
            Which image; with a region, the one that ``origin.z`` counts from.
        bytes_per_row, bytes_per_image : int, optional
            Strides in the buffer. Default: dense.
        region : MTLRegion, optional
            Default: the whole image `image_index`.
        feature_channel_info : MPSImageReadWriteParams, optional
            Default: all channels.

        Returns
        -------
        bytes
            Up to the last element; gaps that the strides leave are zero.

        Raises
        ------
        ImageError
            An argument is outside what the header documents; the message names it.

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
        copy = _Transfer(self, data_layout, image_index, None, bytes_per_row, bytes_per_image, region,
                         feature_channel_info)  # fmt: skip
        buffer = bytearray(copy.nbytes)
        _read_lanes(copy.pixels, copy.elements(buffer))
        return bytes(buffer)

    def write_bytes(
        self,
        data: bytes | bytearray | memoryview | Stored,
        data_layout: MPSDataLayout,
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
            Bytes, or an array of uint8, hold elements of the storage dtype, little-endian as on every Apple device. An
            array of that dtype may be in any byte order. Without strides the length must be exact; with them it must
            reach the last element.
        data_layout, image_index, bytes_per_row, bytes_per_image, region, feature_channel_info
            As for `read_bytes`.
        bytes_per_column : int, optional
            Stride from one pixel of a row to the next, in both layouts. Default: dense.

        Raises
        ------
        ImageError
            An argument is outside what the header documents, or `data` has another length or dtype.
        """
        copy = _Transfer(self, data_layout, image_index, bytes_per_column, bytes_per_row, bytes_per_image, region,
                         feature_channel_info)  # fmt: skip
        if not self._slices.flags.writeable:
            raise ImageError("the image aliases a read-only texture: make it from a writeable array")
        if isinstance(data, np.ndarray):
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
        _write_lanes(copy.pixels, copy.elements(raw))


class _Transfer:
    """The arguments of readBytes and writeBytes, checked, as a view of the image and the strides of the buffer."""

    def __init__(
        self,
        image: MPSImage,
        data_layout: MPSDataLayout,
        image_index: int,
        bytes_per_column: int | None,
        bytes_per_row: int | None,
        bytes_per_image: int | None,
        region: MTLRegion | None,
        feature_channel_info: MPSImageReadWriteParams | None,
    ) -> None:
        try:
            layout = MPSDataLayout(data_layout)
        except ValueError:
            choices = " or ".join(m.name for m in MPSDataLayout)
            raise ImageError(f"data_layout is {data_layout!r}: give {choices}") from None
        index = _whole("image_index", image_index)
        x, y, z, w, h, depth = _region(region, image)
        x, w = _interval("region", "x", x, w, image.width)
        y, h = _interval("region", "y", y, h, image.height)
        first = index + _whole("region origin z", z)
        first, depth = _interval("image_index + region", "z", first, depth, image.number_of_images)
        offset, count = _channels(feature_channel_info, image.feature_channels)

        size = image._storage.dtype.itemsize
        planar = layout is MPSDataLayout.featureChannelsxHeightxWidth
        texel = size if planar else count * size
        column = _stride("bytes_per_column", bytes_per_column, texel, texel)
        used = (w - 1) * column + texel
        row = _stride("bytes_per_row", bytes_per_row, w * column, used)
        rows = h * (count if planar else 1)
        per_image = _stride("bytes_per_image", bytes_per_image, row * rows, row * (rows - 1) + used)

        self.pixels = image._slices[
            first : first + depth, offset // LANES : math.ceil((offset + count) / LANES), y : y + h, x : x + w
        ]
        self._dtype = image._storage.dtype.newbyteorder("<")
        self._shape = (depth, h, w, count)
        self._strides = (per_image, row, column, row * h if planar else size)
        self.nbytes = sum((n - 1) * s for n, s in zip(self._shape, self._strides, strict=True)) + size
        if self.nbytes > LARGEST_IMAGE:
            raise ImageError(f"bytes_per_row or bytes_per_image ask for a buffer of {self.nbytes} bytes: give less")

    def elements(self, buffer: bytearray | memoryview) -> Stored:
        """The buffer's elements as (images, height, width, channels)."""
        return np.ndarray(self._shape, self._dtype, buffer, strides=self._strides)


def _whole(name: str, value: Any, minimum: int = 0) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < minimum:
        raise ImageError(f"{name} is {value!r}: give an integer of at least {minimum}")
    return int(value)


def _range(name: str, value: Any) -> range:
    if not isinstance(value, range):
        raise ImageError(f"{name} is a {type(value).__name__}: give a range(start, stop)")
    return value


def _region(region: MTLRegion | None, image: MPSImage) -> tuple[Any, ...]:
    """x, y, z, width, height, depth."""
    if region is None:
        return 0, 0, 0, image.width, image.height, 1
    try:
        (x, y, z), (w, h, depth) = region
    except (TypeError, ValueError):
        raise ImageError(f"region is {region!r}: give MTLRegion(MTLOrigin(x, y, z), MTLSize(w, h, depth))") from None
    return x, y, z, w, h, depth


def _interval(owner: str, axis: str, start: Any, length: Any, limit: int) -> tuple[int, int]:
    """Start and length, if they lie within the limit."""
    start = _whole(f"{owner} origin {axis}", start)
    length = _whole(f"{owner} size along {axis}", length, minimum=1)
    if start + length > limit:
        raise ImageError(f"{owner} covers {start} to {start + length} along {axis}: the image ends at {limit}")
    return start, length


def _channels(info: MPSImageReadWriteParams | None, channels: int) -> tuple[int, int]:
    """Offset and number of the feature channels to transfer, if the header allows them."""
    if info is None:
        return 0, channels
    name = "feature_channel_info"
    try:
        offset, count = info
    except (TypeError, ValueError):
        raise ImageError(f"{name} is {info!r}: give MPSImageReadWriteParams(offset, number)") from None
    offset = _whole(f"{name}.feature_channel_offset", offset)
    count = _whole(f"{name}.number_of_feature_channels_to_read_write", count, minimum=1)
    if offset % LANES:
        raise ImageError(f"{name}.feature_channel_offset is {offset}: it must be a multiple of 4")
    if offset and count % LANES:
        raise ImageError(
            f"{name}.number_of_feature_channels_to_read_write is {count}: "
            "it must be a multiple of 4 unless the offset is 0"
        )
    if offset + count > channels:
        raise ImageError(f"{name} reaches channel {offset + count}: the image has {channels}")
    return offset, count


def _stride(name: str, given: Any, dense: int, minimum: int) -> int:
    if given is None:
        return dense
    stride = _whole(name, given)
    if stride < minimum:
        raise ImageError(f"{name} is {stride}: elements would overlap, at least {minimum} are needed")
    return stride


def _shape(d: MPSImageDescriptor) -> tuple[int, ...]:
    slices = math.ceil(d.feature_channels / LANES)
    return d.number_of_images, slices, d.height, d.width, _components(d.feature_channels)


def _adopt_texture(texture: Stored, channels: int) -> tuple[StorageFormat, Stored]:
    if not isinstance(texture, np.ndarray):
        raise ImageError(f"texture is a {type(texture).__name__}: give an ndarray, which the image will alias")
    storage = image_storage_of(texture.dtype, "texture")
    per_image = math.ceil(channels / LANES)
    if texture.ndim != 4 or 0 in texture.shape or texture.shape[0] % per_image:
        raise ImageError(
            f"texture has shape {texture.shape}: give (a multiple of {per_image} slices, H, W, components)"
        )
    if texture.shape[3] != _components(channels):
        raise ImageError(f"texture has {texture.shape[3]} components: {channels} channels need {_components(channels)}")
    slices = texture.reshape(-1, per_image, *texture.shape[1:])  # one axis is split: always a view
    unused = slices[:, -1, :, :, (channels - 1) % LANES + 1 :]
    if not storage.unorm_max and not np.isfinite(unused).all():
        raise ImageError("texture has NaN or infinity in unused components of its last slice: set them to 0")
    return storage, slices


def _write_lanes(slices: Stored, array: Stored) -> None:
    """(N, H, W, C) into (N, S, H, W, K), lane by lane: four strided copies are faster than one transposition."""
    if texels := _texels(slices, array):
        texels[0][...] = np.moveaxis(texels[1], -1, 1)
        return
    for lane in range(slices.shape[-1]):
        channels = array[..., lane::LANES]
        slices[:, : channels.shape[-1], ..., lane] = np.moveaxis(channels, -1, 1)


def _read_lanes(slices: Stored, array: Stored) -> None:
    if texels := _texels(slices, array):
        texels[1][...] = np.moveaxis(texels[0], 1, -1)
        return
    for lane in range(min(slices.shape[-1], array.shape[-1])):
        channels = array[..., lane::LANES]
        channels[...] = np.moveaxis(slices[:, : channels.shape[-1], ..., lane], 1, -1)


def _texels(slices: Stored, array: Stored) -> tuple[Stored, Stored] | None:
    """Both with four lanes as one element, (N, S, H, W) and (N, H, W, S), where four lanes lie together in each."""
    together = all(stored.strides[-1] == stored.dtype.itemsize for stored in (slices, array))
    if not together or slices.dtype != array.dtype or slices.shape[-1] != LANES or array.shape[-1] % LANES:
        return None
    # A type that numpy copies and does not look into.
    texel = {4: np.uint32, 8: np.uint64, 16: np.complex128}.get(LANES * slices.dtype.itemsize)
    if texel is None:
        return None
    return slices.view(texel)[:, : array.shape[-1] // LANES, ..., 0], array.view(texel)


def clear_unused_lanes(slices: Stored, channels: int) -> None:
    """Set to zero the components of (N, S, H, W, K) that no channel uses, so that none is ever NaN or infinite."""
    used = (channels - 1) % LANES + 1
    if used < slices.shape[-1]:
        slices[:, -1, :, :, used:] = 0


def meaning(stored: Stored, storage: StorageFormat) -> npt.NDArray[np.float64]:
    """What stored elements mean, as a new array; signalling NaNs raise no warning."""
    with np.errstate(invalid="ignore"):
        return storage.decode(stored, np.empty(stored.shape))


def by_lane(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """One value a channel as (slices of one image, components)."""
    channels = len(values)
    lanes = np.zeros((math.ceil(channels / LANES), _components(channels)), values.dtype)
    lanes.reshape(-1)[:channels] = values
    return lanes


def texel_of(channel: int, image_index: int, channels: int) -> tuple[int, int]:
    """Texture slice and component (lane) of a channel."""
    return image_index * math.ceil(channels / LANES) + channel // LANES, channel % LANES
