"""MPSImage: its texture layout against cases worked by hand, and its byte transfers against a slow reference."""

from __future__ import annotations

import functools
import itertools
import math
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpsref import (
    ImageError,
    MPSDataLayout,
    MPSImage,
    MPSImageDescriptor,
    MPSImageFeatureChannelFormat,
    MPSImageReadWriteParams,
    MTLOrigin,
    MTLRegion,
    MTLSize,
    MTLTextureType,
    PropertyError,
    UnavailableError,
)
from mpsref.image_lanes import clear_unused_lanes, read_lanes, texel_of, write_lanes

U8, U16, F16, F32 = (MPSImageFeatureChannelFormat(value) for value in (1, 2, 3, 4))
HWC, CHW = MPSDataLayout.HeightxWidthxFeatureChannels, MPSDataLayout.featureChannelsxHeightxWidth
DTYPE = {U8: np.uint8, U16: np.uint16, F16: np.float16, F32: np.float32}

LAYOUTS = pytest.mark.parametrize("layout", [HWC, CHW], ids=["HWC", "CHW"])
FORMATS = pytest.mark.parametrize("channel_format", DTYPE, ids=lambda f: f.name)


def numbered(n, h, w, c):
    """An image whose element (i, y, x, c) is the number 1000 i + 100 c + 10 y + x."""
    i, y, x, k = np.ogrid[:n, :h, :w, :c]
    return MPSImage.from_array((1000 * i + 100 * k + 10 * y + x).astype(np.uint16))


def box(x, y, w, h, z=0, depth=1):
    return MTLRegion(MTLOrigin(x, y, z), MTLSize(w, h, depth))


def zeros(n, h, w, c, channel_format=U8):
    size = {"width": w, "height": h, "feature_channels": c, "number_of_images": n}
    return MPSImage(image_descriptor=MPSImageDescriptor(channel_format=channel_format, **size))


# ---- the texture ----


@pytest.mark.parametrize(
    ("texel", "value"),
    [
        ((0, 0, 0, 0), 0),
        ((0, 1, 2, 3), 312),
        ((1, 0, 1, 0), 401),
        ((1, 1, 0, 3), 710),
        ((2, 1, 2, 0), 812),
        ((3, 0, 0, 0), 1000),
        ((4, 1, 2, 3), 1712),
        ((5, 0, 1, 0), 1801),
    ],
)
def test_two_images_of_9_channels_lie_in_six_slices(texel, value):
    texture = numbered(2, 2, 3, 9).texture
    assert texture.shape == (6, 2, 3, 4)
    assert texture[texel] == value


@pytest.mark.parametrize(
    ("channels", "components", "slices", "texels"),
    [
        (1, 1, 1, [[1]]),
        (2, 2, 1, [[1, 2]]),
        (3, 4, 1, [[1, 2, 3, 0]]),
        (4, 4, 1, [[1, 2, 3, 4]]),
        (5, 4, 2, [[1, 2, 3, 4], [5, 0, 0, 0]]),
        (8, 4, 2, [[1, 2, 3, 4], [5, 6, 7, 8]]),
    ],
)
@pytest.mark.parametrize("images", [1, 2])
def test_components_and_slices_follow_from_the_number_of_channels(channels, components, slices, texels, images):
    pixel = np.arange(1, channels + 1, dtype=np.float16).reshape(1, 1, 1, channels)
    image = MPSImage.from_array(np.tile(pixel, (images, 1, 1, 1)))
    assert image.texture.shape == (images * slices, 1, 1, components)
    assert image.texture[:, 0, 0].tolist() == texels * images
    assert image.slices.shape == (images, slices, 1, 1, components)
    assert image.pixel_size == 2 * components
    one = slices == 1 and images == 1
    assert image.texture_type is (MTLTextureType.type2D if one else MTLTextureType.type2DArray)


@pytest.mark.parametrize(
    ("channel_format", "pixel_formats", "precision", "size"),
    [
        (U8, {1: (10, "r8Unorm"), 2: (30, "rg8Unorm"), 3: (70, "rgba8Unorm"), 9: (70, "rgba8Unorm")}, 8, 1),
        (U16, {1: (20, "r16Unorm"), 2: (60, "rg16Unorm"), 3: (110, "rgba16Unorm"), 9: (110, "rgba16Unorm")}, 16, 2),
        (F16, {1: (25, "r16Float"), 2: (65, "rg16Float"), 3: (115, "rgba16Float"), 9: (115, "rgba16Float")}, 11, 2),
        (F32, {1: (55, "r32Float"), 2: (105, "rg32Float"), 3: (125, "rgba32Float"), 9: (125, "rgba32Float")}, 24, 4),
    ],
)
def test_pixel_format_precision_and_size_follow_from_the_storage_format(channel_format, pixel_formats, precision, size):
    for channels, (value, name) in pixel_formats.items():
        image = zeros(1, 1, 1, channels, channel_format)
        assert (image.pixel_format, image.pixel_format.name) == (value, name)
        assert image.descriptor.pixel_format == value
        assert image.precision == image.storage.precision == precision
        assert image.pixel_size == size * (channels if channels < 3 else 4)
        assert image.feature_channel_format is channel_format


@FORMATS
def test_a_new_image_is_zero_and_as_large_as_its_descriptor_says(channel_format):
    d = MPSImageDescriptor(channel_format=channel_format, width=5, height=3, feature_channels=6, number_of_images=2)
    image = MPSImage(image_descriptor=d)
    assert (image.width, image.height, image.feature_channels, image.number_of_images) == (5, 3, 6, 2)
    assert image.texture.shape == (4, 3, 5, 4)
    assert image.texture.dtype == DTYPE[channel_format]
    assert not image.texture.any()
    assert image.descriptor == d
    assert image.parent is None
    assert image.label is None


def test_the_texture_is_a_live_view_that_cannot_be_written_to():
    image = zeros(1, 1, 1, 1)
    texture = image.texture
    with pytest.raises(ValueError, match="read-only"):
        texture[...] = 1
    with pytest.raises(AttributeError):
        image.texture = texture
    image.write_bytes(b"\x07", HWC)
    assert texture.item() == 7


def test_the_repr_shows_size_format_and_label():
    image = zeros(2, 3, 4, 5, F16)
    assert repr(image) == "<MPSImage 4x3x5 x2 float16>"
    image.label = "noise"
    assert repr(image) == "<MPSImage 4x3x5 x2 float16 'noise'>"
    assert repr(zeros(1, 3, 4, 5)) == "<MPSImage 4x3x5 unorm8>"


# ---- descriptors ----


def test_a_descriptor_describes_one_pixel_unless_told_otherwise():
    d = MPSImageDescriptor(channel_format=F16)
    assert (d.width, d.height, d.feature_channels, d.number_of_images) == (1, 1, 1, 1)


def test_a_descriptor_is_a_value():
    first, second = (MPSImageDescriptor(channel_format=F16, width=np.int32(3)) for _ in range(2))
    assert first == second
    assert hash(first) == hash(second)
    assert type(first.width) is int
    with pytest.raises(PropertyError, match=r"dataclasses\.replace\(descriptor, width=4\)"):
        first.width = 4


@pytest.mark.parametrize("name", ["width", "height", "feature_channels", "number_of_images"])
@pytest.mark.parametrize("value", [0, -1, 1.0, "1", None, True])
def test_an_extent_must_be_a_positive_integer(name, value):
    with pytest.raises(ImageError, match=f"^{name} is"):
        MPSImageDescriptor(channel_format=F16, **{name: value})


@pytest.mark.parametrize("value", [MPSImageFeatureChannelFormat.none, 5, "double", np.float64, None])
def test_a_descriptor_needs_a_storage_format(value):
    with pytest.raises(ImageError, match=r"^channel_format is"):
        MPSImageDescriptor(channel_format=value)


@pytest.mark.parametrize("given_names", [(), ("texture",), ("feature_channels",), ("image_descriptor", "texture"),
                                         ("image_descriptor", "feature_channels"),
                                         ("image_descriptor", "texture", "feature_channels")])  # fmt: skip
def test_an_image_is_made_from_a_descriptor_or_from_a_texture_with_its_channels(given_names):
    arguments = {
        "image_descriptor": MPSImageDescriptor(channel_format=U8),
        "texture": np.zeros((1, 1, 1, 1), np.uint8),
        "feature_channels": 1,
    }
    with pytest.raises(UnavailableError, match=r"image_descriptor=.*texture=.*feature_channels="):
        MPSImage(**{name: arguments[name] for name in given_names})


# ---- arrays ----


@FORMATS
def test_elements_of_the_storage_dtype_are_taken_as_they_are(channel_format):
    pattern = np.arange(0, 65536, 17).astype(np.uint16)
    array = np.resize(pattern.view(np.uint8), 2 * 3 * 5 * 7 * 4).view(DTYPE[channel_format])[: 2 * 3 * 5 * 7]
    array = array.reshape(2, 3, 5, 7)
    for image in (MPSImage.from_array(array), MPSImage.from_array(array, channel_format)):
        assert image.feature_channel_format is channel_format
        assert image.to_array().dtype == array.dtype
        assert image.to_array().tobytes() == array.tobytes()
    assert not np.shares_memory(image.texture, array)


def test_an_array_of_rank_3_is_one_image():
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    assert np.array_equal(MPSImage.from_array(array).to_array(), array[np.newaxis])


@pytest.mark.parametrize(
    ("channel_format", "value", "expected"),
    [
        (U8, 0.5, 128),
        (U8, 1.5 / 255, 1),  # this float64 lies below the middle, although its product with 255 rounds to 1.5
        (U8, math.nextafter(1.5 / 255, 1), 2),
        (U8, -1.0, 0),
        (U8, math.nan, 0),
        (U8, math.inf, 255),
        (U16, 0.5, 32768),
        (U16, 2.0, 65535),
        (F16, 1 + 2**-11, 1.0),
        (F16, 1 + 2**-11 + 2**-40, 1 + 2**-10),
        (F16, 65519.99, 65504.0),
        (F16, 65520.0, math.inf),
        (F16, 2**-24, 2**-24),
        (F32, 0.1, 13421773 / 2**27),
        (F32, 1e300, math.inf),
    ],
)
def test_floats_are_rounded_once_to_the_storage_format(channel_format, value, expected):
    assert MPSImage.from_array([[[value]]], channel_format).to_array().tolist() == [[[[expected]]]]


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f2", ">f4", ">f8"])
@FORMATS
def test_every_float_dtype_can_be_rounded_to_every_format(channel_format, dtype):
    values = np.array([[[0.25, 1.0, 0.0]]], dtype)[:, :, ::-1]
    image = MPSImage.from_array(values, channel_format)
    one = {U8: 255, U16: 65535}.get(channel_format, 1)
    assert image.to_array().tolist() == [[[[0, one, {255: 64, 65535: 16384}.get(one, 0.25)]]]]


@pytest.mark.parametrize(
    "shape", [(0,), (2, 0), (1, 1, 1, 1, 1, 1), (1, 0, 1, 1, 1), (0, 1, 1), (1, 0, 1), (1, 1, 0), (0, 1, 1, 1)]
)
def test_an_array_of_another_rank_or_with_an_empty_axis_is_refused(shape):
    with pytest.raises(ImageError, match=r"^array has shape"):
        MPSImage.from_array(np.zeros(shape), F16)


@pytest.mark.parametrize("dtype", ["f8", "i1", "i4", "u4", "?", "c8", "S1", "O"])
def test_an_array_of_no_storage_dtype_needs_a_format(dtype):
    with pytest.raises(ImageError, match=r"^array has dtype"):
        MPSImage.from_array(np.zeros((1, 1, 1), dtype))


@pytest.mark.parametrize(
    ("channel_format", "dtype"),
    [
        (channel_format, dtype)
        for channel_format, own in DTYPE.items()
        for dtype in ["u1", "u2", "i1", "i2", "i8", "u8", "?", "c8", "c16", "S1", "O"]
        if np.dtype(dtype) != own
    ],
)
def test_what_is_neither_float_nor_a_code_of_the_format_is_refused(channel_format, dtype):
    with pytest.raises(ImageError, match=r"^array has dtype"):
        MPSImage.from_array(np.zeros((1, 1, 1), dtype), channel_format)


def test_an_array_may_have_any_byte_order():
    values = np.arange(6).reshape(1, 2, 3)
    for dtype in ("f2", "f4", "u2"):
        image = MPSImage.from_array(values.astype(f">{dtype}"))
        assert np.array_equal(image.to_array()[0], values)
        assert image.to_array().dtype == np.dtype(dtype)


def test_from_array_refuses_the_format_none():
    with pytest.raises(ImageError, match=r"^channel_format is"):
        MPSImage.from_array(np.zeros((1, 1, 1)), MPSImageFeatureChannelFormat.none)


def test_to_array_gives_a_new_array_each_time():
    image = zeros(1, 1, 1, 3)
    image.to_array()[...] = 1
    assert not image.to_array().any()


def test_numpy_sees_an_image_as_its_array():
    image = numbered(2, 2, 3, 5)
    assert np.array_equal(np.asarray(image), image.to_array())
    assert np.asarray(image).dtype == np.uint16
    assert np.asarray(image, np.float32).dtype == np.float32
    assert np.array(image, np.int64).max() == 1412
    assert (np.asarray(image) + 1).sum() == image.to_array().sum() + 60
    with pytest.raises(ValueError, match="copy"):
        np.asarray(image, copy=False)


# ---- adopted textures ----


@pytest.mark.parametrize(
    ("shape", "channels", "images"),
    [((1, 2, 3, 1), 1, 1), ((5, 2, 3, 2), 2, 5), ((2, 2, 3, 4), 3, 2), ((2, 2, 3, 4), 5, 1), ((6, 2, 3, 4), 9, 2)],
)
def test_an_adopted_texture_is_aliased_in_both_directions(shape, channels, images):
    texture = np.zeros(shape, np.uint8)
    image = MPSImage(texture=texture, feature_channels=channels)
    assert (image.number_of_images, image.feature_channels) == (images, channels)
    assert (image.height, image.width) == (2, 3)
    last = (channels - 1) // 4, (channels - 1) % 4
    texture[last[0], 1, 2, last[1]] = 7
    assert image.to_array()[0, 1, 2, -1] == 7
    image.write_bytes(bytes(range(1, 6 * channels + 1)), HWC, images - 1)
    assert texture[-1, 0, 0, last[1]] == channels
    assert np.shares_memory(image.texture, texture)


def test_a_strided_texture_is_aliased_too():
    base = np.zeros((4, 2, 6, 4), np.float16)
    image = MPSImage(texture=base[::2, ::-1, 1::2], feature_channels=7)
    assert image.number_of_images == 1
    image.write_bytes(np.arange(1, 43, dtype=np.float16), HWC)
    assert base[2, 1, 1].tolist() == [5, 6, 7, 0]
    assert base[0, 0, 5].tolist() == [36, 37, 38, 39]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(("slices", "channels"), [(1, 3), (2, 5), (6, 11)])
def test_nan_and_infinity_in_unused_lanes_are_refused(slices, channels, bad):
    texture = np.zeros((slices, 1, 2, 4), np.float16)
    texture[-1, 0, 1, 3] = bad
    with pytest.raises(ImageError, match=r"^texture has NaN or infinity"):
        MPSImage(texture=texture, feature_channels=channels)


def test_nan_in_a_used_lane_and_a_number_in_an_unused_one_are_fine():
    texture = np.array([math.nan, 1, 2, 3], np.float32).reshape(1, 1, 1, 4)
    values = MPSImage(texture=texture, feature_channels=3).to_array()
    assert np.array_equal(values, [[[[math.nan, 1, 2]]]], equal_nan=True)


@pytest.mark.parametrize(
    ("shape", "channels", "message"),
    [
        ((1, 1, 4), 4, "^texture has shape"),
        ((1, 1, 1, 1, 4), 4, "^texture has shape"),
        ((0, 1, 1, 4), 4, "^texture has shape"),
        ((1, 1, 0, 4), 4, "^texture has shape"),
        ((3, 1, 1, 4), 5, "^texture has shape.*multiple of 2"),
        ((1, 1, 1, 4), 1, "^texture has 4 components"),
        ((1, 1, 1, 4), 2, "^texture has 4 components"),
        ((1, 1, 1, 3), 3, "^texture has 3 components"),
        ((1, 1, 1, 2), 1, "^texture has 2 components"),
        ((1, 1, 1, 4), 0, "^feature_channels is"),
        ((1, 1, 1, 4), 4.0, "^feature_channels is"),
        ((1, 1, 1, 1), True, "^feature_channels is"),
    ],
)
def test_a_texture_of_another_shape_is_refused(shape, channels, message):
    with pytest.raises(ImageError, match=message):
        MPSImage(texture=np.zeros(shape, np.float16), feature_channels=channels)


@pytest.mark.parametrize("dtype", ["f8", "i1", "i2", ">f2", ">u2", "?"])
def test_a_texture_of_no_storage_dtype_is_refused(dtype):
    with pytest.raises(ImageError, match=r"^texture has dtype"):
        MPSImage(texture=np.zeros((1, 1, 1, 1), dtype), feature_channels=1)


# ---- bytes: cases worked by hand ----

RGB = np.uint8([[[0, 1, 2], [10, 11, 12]], [[100, 101, 102], [110, 111, 112]]])
"""Element (y, x, c) is 100 y + 10 x + c."""


class Case(NamedTuple):
    layout: MPSDataLayout
    arguments: dict
    expected: list


CASES = {
    "A HWC": Case(HWC, {}, [0, 1, 2, 10, 11, 12, 100, 101, 102, 110, 111, 112]),
    "A CHW": Case(CHW, {}, [0, 10, 100, 110, 1, 11, 101, 111, 2, 12, 102, 112]),
    "B HWC": Case(HWC, {"bytes_per_row": 8}, [0, 1, 2, 10, 11, 12, 0, 0, 100, 101, 102, 110, 111, 112]),
    "B CHW": Case(CHW, {"bytes_per_row": 3}, [0, 10, 0, 100, 110, 0, 1, 11, 0, 101, 111, 0, 2, 12, 0, 102, 112]),
    "B HWC, a column of pixels": Case(HWC, {"bytes_per_row": 4, "region": box(1, 0, 1, 2)},
                                      [10, 11, 12, 0, 110, 111, 112]),
    "B CHW, a row of pixels": Case(CHW, {"bytes_per_row": 2, "region": box(0, 1, 2, 1)},
                                   [100, 110, 101, 111, 102, 112]),
    "B HWC, two channels": Case(HWC, {"bytes_per_row": 5, "feature_channel_info": MPSImageReadWriteParams(0, 2)},
                                [0, 1, 10, 11, 0, 100, 101, 110, 111]),
    "B CHW, one channel": Case(CHW, {"bytes_per_row": 2, "feature_channel_info": MPSImageReadWriteParams(0, 1)},
                               [0, 10, 100, 110]),
    "C HWC, one pixel": Case(HWC, {"bytes_per_row": 3, "bytes_per_image": 9, "region": box(1, 1, 1, 1)},
                             [110, 111, 112]),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_bytes_are_read_where_the_strides_put_them(case):
    image = MPSImage.from_array(RGB)
    assert list(image.read_bytes(case.layout, **case.arguments)) == case.expected


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_bytes_are_written_from_where_the_strides_put_them(case):
    """Every element that the case reads arrives, and every other stays 200."""
    image = MPSImage.from_array(np.full_like(RGB, 200))
    image.write_bytes(bytes(case.expected), case.layout, **case.arguments)
    (got,) = image.to_array()
    x0, y0, w, h = 0, 0, 2, 2
    if "region" in case.arguments:
        (x0, y0, _), (w, h, _) = case.arguments["region"]
    _, n = case.arguments.get("feature_channel_info", (0, 3))
    y, x, c = np.ogrid[:2, :2, :3]
    inside = (y0 <= y) & (y < y0 + h) & (x0 <= x) & (x < x0 + w) & (c < n)
    assert np.array_equal(got, np.where(inside, RGB, 200))


def test_a_column_stride_leaves_gaps_between_the_pixels_of_both_layouts():
    arguments = {"bytes_per_column": 4, "bytes_per_row": 9, "bytes_per_image": 20}
    image = zeros(1, 2, 2, 3)
    image.write_bytes(bytes(range(16)), HWC, **arguments)
    assert image.to_array().tolist() == [[[[0, 1, 2], [4, 5, 6]], [[9, 10, 11], [13, 14, 15]]]]
    arguments["bytes_per_image"] = 54
    image.write_bytes(bytes(range(50)), CHW, **arguments)
    assert image.to_array().tolist() == [[[[0, 18, 36], [4, 22, 40]], [[9, 27, 45], [13, 31, 49]]]]


def test_images_follow_each_other_at_the_image_stride():
    image = MPSImage.from_array(np.uint8([1, 2, 3]).reshape(3, 1, 1, 1))
    assert list(image.read_bytes(HWC, 1)) == [2]
    assert list(image.read_bytes(HWC, bytes_per_image=3, region=box(0, 0, 1, 1, depth=3))) == [1, 0, 0, 2, 0, 0, 3]
    assert list(image.read_bytes(CHW, 1, region=box(0, 0, 1, 1, z=1))) == [3]
    image.write_bytes(b"\x08\x00\x09", CHW, 1, bytes_per_image=2, region=box(0, 0, 1, 1, depth=2))
    assert image.to_array().ravel().tolist() == [1, 8, 9]


@pytest.mark.parametrize(("layout", "stride"), [(HWC, 2 * 12), (CHW, 2 * 4 * 3)], ids=["HWC", "CHW"])
def test_without_an_image_stride_images_are_as_far_apart_as_the_row_stride_makes_them(layout, stride):
    row = {HWC: 12, CHW: 4}[layout]
    data = numbered(2, 2, 2, 3).to_array().astype(np.uint8)
    image = MPSImage.from_array(data)
    both = image.read_bytes(layout, bytes_per_row=row, region=box(0, 0, 2, 2, depth=2))
    for i in range(2):
        alone = image.read_bytes(layout, i, bytes_per_row=row)
        assert both[i * stride : i * stride + len(alone)] == alone


@pytest.mark.parametrize(
    ("channel_format", "expected"), [(U16, "0102fffe"), (F16, "003c00c0"), (F32, "0000803f000000c0")]
)
def test_bytes_are_little_endian_elements_of_the_storage_dtype(channel_format, expected):
    values = {U16: [0x0201, 0xFEFF]}.get(channel_format, [1.0, -2.0])
    image = MPSImage.from_array(np.array([[values]], DTYPE[channel_format]))
    assert image.read_bytes(HWC).hex() == expected
    again = zeros(1, 1, 2, 1, channel_format)
    again.write_bytes(bytes.fromhex(expected), HWC)
    assert again.to_array().ravel().tolist() == values


BUFFERS = {
    "bytes": bytes,
    "bytearray": bytearray,
    "memoryview": memoryview,
    "halves": lambda b: np.frombuffer(b, np.float16),
    "octets": lambda b: np.frombuffer(b, np.uint8),
    "strided": lambda b: np.repeat(np.frombuffer(b, np.float16), 2)[::2],
    "shaped": lambda b: np.frombuffer(b, np.float16).reshape(1, 3, 2),
    "typed view": lambda b: memoryview(np.frombuffer(b, np.float16)),
}


@pytest.mark.parametrize("kind", BUFFERS.values(), ids=BUFFERS)
def test_data_may_be_any_buffer_of_the_right_length(kind):
    values = np.arange(6, dtype=np.float16)
    image = zeros(1, 1, 3, 2, F16)
    image.write_bytes(kind(values.tobytes()), HWC)
    assert image.to_array().ravel().tolist() == values.tolist()


@pytest.mark.parametrize("order", ["<", ">"])
def test_an_array_of_elements_may_be_in_any_byte_order_and_bytes_are_little_endian(order):
    values = np.uint16([1, 0x0102, 0xFFFE])
    elements, raw = (zeros(1, 1, 3, 1, U16) for _ in range(2))

    elements.write_bytes(values.astype(f"{order}u2"), HWC)
    raw.write_bytes(np.frombuffer(bytes.fromhex("0100 0201 feff"), np.uint8), HWC)

    assert elements.to_array().ravel().tolist() == raw.to_array().ravel().tolist() == values.tolist()


def test_data_is_copied():
    data = np.arange(4, dtype=np.uint8)
    image = zeros(1, 1, 1, 4)
    image.write_bytes(data, HWC)
    data[...] = 9
    assert image.to_array().ravel().tolist() == [0, 1, 2, 3]


# ---- bytes: any legal transfer, against a reference that moves one element at a time ----


class Transfer(NamedTuple):
    """What to move: `index` with a region from (x, y, z) of size (w, h, depth), n channels from `offset`."""

    layout: MPSDataLayout
    index: int
    origin: tuple
    size: tuple
    offset: int
    n: int
    strides: dict

    @property
    def arguments(self):
        return {
            "image_index": self.index,
            "region": MTLRegion(MTLOrigin(*self.origin), MTLSize(*self.size)),
            "feature_channel_info": MPSImageReadWriteParams(self.offset, self.n),
            **self.strides,
        }

    def addresses(self, image):
        """Of each element: (byte address in the texture, byte address in the buffer)."""
        H, W, C, K = image.height, image.width, image.feature_channels, image.texture.shape[-1]
        e = image.texture.itemsize
        S = (C + 3) // 4
        w, h, depth = self.size
        column = self.strides.get("bytes_per_column", e if self.layout == CHW else self.n * e)
        row = self.strides.get("bytes_per_row", w * column)
        plane = row * h
        per_image = self.strides.get("bytes_per_image", plane * (self.n if self.layout == CHW else 1))
        for i, y, x, k in itertools.product(range(depth), range(h), range(w), range(self.n)):
            c = self.offset + k
            slice_ = (self.index + self.origin[2] + i) * S + c // 4
            texel = (slice_ * H + self.origin[1] + y) * W + self.origin[0] + x
            channel = k * (plane if self.layout == CHW else e)
            yield (texel * K + c % 4) * e, i * per_image + y * row + x * column + channel


@st.composite
def images(draw):
    """An image of random bits, padding lanes included, which are finite."""
    channel_format = draw(st.sampled_from(list(DTYPE)))
    n, h, w = (draw(st.integers(1, 3)) for _ in range(3))
    c = draw(st.integers(1, 13))
    S, K = (c + 3) // 4, (c if c < 3 else 4)
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    size = n * S * h * w * K * np.dtype(DTYPE[channel_format]).itemsize
    texture = np.frombuffer(rng.bytes(size), DTYPE[channel_format]).reshape(n, S, h, w, K).copy()
    texture[:, -1, ..., (c - 1) % 4 + 1 :] = 77
    texture = texture.reshape(n * S, h, w, K)
    return MPSImage(texture=texture, feature_channels=c), texture


@st.composite
def transfers(draw, image):
    """Any legal transfer, in one of Apple's forms A to D; D only for writing, so its column stride comes apart."""
    C = image.feature_channels
    layout = draw(st.sampled_from([HWC, CHW]))
    first = draw(st.integers(0, image.number_of_images - 1))
    index = draw(st.integers(0, first))
    x, y = draw(st.integers(0, image.width - 1)), draw(st.integers(0, image.height - 1))
    w, h = draw(st.integers(1, image.width - x)), draw(st.integers(1, image.height - y))
    depth = draw(st.integers(1, image.number_of_images - first))
    offset = 4 * draw(st.integers(0, C // 4 - 1)) if C >= 4 and draw(st.booleans()) else 0
    n = 4 * draw(st.integers(1, (C - offset) // 4)) if offset else draw(st.integers(1, C))
    form = draw(st.sampled_from("ABCD"))
    gap = st.integers(0, 5)
    e = image.texture.itemsize
    texel = e if layout == CHW else n * e
    strides = {}
    column = texel
    if form == "D":
        strides["bytes_per_column"] = column = texel + draw(gap)
    row = w * column
    if form != "A":
        strides["bytes_per_row"] = row = (w - 1) * column + texel + draw(gap)
    if form in "CD":
        rows = h * n if layout == CHW else h
        strides["bytes_per_image"] = (rows - 1) * row + (w - 1) * column + texel + draw(gap)
    return Transfer(layout, index, (x, y, first - index), (w, h, depth), offset, n, strides)


@settings(deadline=None, max_examples=100)
@given(data=st.data())
def test_any_legal_write_moves_each_element_to_its_place_and_touches_no_other(data):
    image, texture = data.draw(images())
    move = data.draw(transfers(image))
    e = texture.itemsize
    expected = bytearray(texture.tobytes())
    addresses = list(move.addresses(image))
    length = max(buffer for _, buffer in addresses) + e
    slack = data.draw(st.integers(0, 9)) if move.strides else 0
    raw = np.random.default_rng(length).bytes(length + slack)
    for there, here in addresses:
        expected[there : there + e] = raw[here : here + e]
    image.write_bytes(raw, move.layout, **move.arguments)
    assert texture.tobytes() == expected
    assert image.texture.tobytes() == expected


@settings(deadline=None, max_examples=100)
@given(data=st.data())
def test_any_legal_read_finds_each_element_in_its_place_and_zeros_between(data):
    image, texture = data.draw(images())
    move = data.draw(transfers(image).filter(lambda t: "bytes_per_column" not in t.strides))
    e = texture.itemsize
    raw = texture.tobytes()
    addresses = list(move.addresses(image))
    expected = bytearray(max(buffer for _, buffer in addresses) + e)
    for there, here in addresses:
        expected[here : here + e] = raw[there : there + e]
    assert image.read_bytes(move.layout, **move.arguments) == expected
    assert texture.tobytes() == raw


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_what_was_written_with_one_set_of_strides_is_read_back_with_another(data):
    image, texture = data.draw(images())
    write = data.draw(transfers(image))
    read = data.draw(transfers(image).filter(lambda t: "bytes_per_column" not in t.strides))
    buffer = [here for _, here in write.addresses(image)]
    raw = np.random.default_rng(len(buffer)).bytes(max(buffer) + texture.itemsize)
    image.write_bytes(raw, write.layout, **write.arguments)
    got = image.read_bytes(read.layout, **read.arguments)
    written, e = dict(write.addresses(image)), texture.itemsize
    for there, here in read.addresses(image):
        if there in written:
            assert got[here : here + e] == raw[written[there] : written[there] + e]


@settings(deadline=None, max_examples=50)
@given(data=st.data())
def test_bytes_and_arrays_agree(data):
    image, _ = data.draw(images())
    array = image.to_array()
    for i in range(image.number_of_images):
        assert image.read_bytes(HWC, i) == array[i].tobytes()
        assert image.read_bytes(CHW, i) == np.moveaxis(array[i], -1, 0).tobytes()


# ---- bytes: what is refused ----

INFO = MPSImageReadWriteParams
REFUSED = {
    "offset 2": ({"feature_channel_info": INFO(2, 4)}, r"feature_channel_offset is 2: .*multiple of 4"),
    "offset -4": ({"feature_channel_info": INFO(-4, 4)}, r"feature_channel_offset is -4"),
    "offset 4.0": ({"feature_channel_info": INFO(4.0, 4)}, r"feature_channel_offset is 4\.0"),
    "offset False": ({"feature_channel_info": INFO(False, 4)}, r"feature_channel_offset is False"),
    "n 0": ({"feature_channel_info": INFO(0, 0)}, r"number_of_feature_channels_to_read_write is 0"),
    "n -1": ({"feature_channel_info": INFO(0, -1)}, r"number_of_feature_channels_to_read_write is -1"),
    "n 2.0": ({"feature_channel_info": INFO(0, 2.0)}, r"number_of_feature_channels_to_read_write is 2\.0"),
    "n True": ({"feature_channel_info": INFO(0, True)}, r"number_of_feature_channels_to_read_write is True"),
    "n 5 from 4": ({"feature_channel_info": INFO(4, 5)}, r"number_of_feature_channels_to_read_write is 5: .*multiple"),
    "n 10": ({"feature_channel_info": INFO(0, 10)}, r"feature_channel_info reaches channel 10: .* 9"),
    "n 8 from 4": ({"feature_channel_info": INFO(4, 8)}, r"feature_channel_info reaches channel 12"),
    "offset 12": ({"feature_channel_info": INFO(12, 4)}, r"feature_channel_info reaches channel 16"),
    "x 4": ({"region": box(4, 0, 1, 1)}, r"region .*along x"),
    "y 3": ({"region": box(0, 3, 1, 1)}, r"region .*along y"),
    "w 5": ({"region": box(0, 0, 5, 3)}, r"region .*along x"),
    "h 4": ({"region": box(0, 0, 4, 4)}, r"region .*along y"),
    "w past the edge": ({"region": box(2, 0, 3, 1)}, r"region .*along x"),
    "w 0": ({"region": box(0, 0, 0, 1)}, r"region size along x is 0"),
    "h 0": ({"region": box(0, 0, 1, 0)}, r"region size along y is 0"),
    "depth 0": ({"region": box(0, 0, 1, 1, depth=0)}, r"region size along z is 0"),
    "x -1": ({"region": box(-1, 0, 1, 1)}, r"region origin x is -1"),
    "y -1": ({"region": box(0, -1, 1, 1)}, r"region origin y is -1"),
    "z -1": ({"region": box(0, 0, 1, 1, z=-1)}, r"region origin z is -1"),
    "z -1 from image 1": ({"region": box(0, 0, 1, 1, z=-1), "image_index": 1}, r"region origin z"),
    "z 2": ({"region": box(0, 0, 1, 1, z=2)}, r"region .*along z"),
    "z 1 from image 1": ({"region": box(0, 0, 1, 1, z=1), "image_index": 1}, r"image_index .*region .*along z"),
    "depth 3": ({"region": box(0, 0, 1, 1, depth=3)}, r"region .*along z"),
    "depth 2 from image 1": ({"region": box(0, 0, 1, 1, depth=2), "image_index": 1}, r"image_index .*along z"),
    "image 2": ({"image_index": 2}, r"image_index"),
    "image -1": ({"image_index": -1}, r"image_index is -1"),
    "image 0.0": ({"image_index": 0.0}, r"image_index is 0\.0"),
    "image '0'": ({"image_index": "0"}, r"image_index is '0'"),
    "image True": ({"image_index": True}, r"image_index is True"),
    "image None": ({"image_index": None}, r"image_index is None"),
    "row -36": ({"bytes_per_row": -36}, r"bytes_per_row is -36"),
    "row 36.0": ({"bytes_per_row": 36.0}, r"bytes_per_row is 36\.0"),
    "row True": ({"bytes_per_row": True, "region": box(0, 0, 1, 1), "feature_channel_info": INFO(0, 1)},
                 r"bytes_per_row is True"),
    "image stride 108.0": ({"bytes_per_image": 108.0}, r"bytes_per_image is 108\.0"),
    "image stride '108'": ({"bytes_per_image": "108"}, r"bytes_per_image is '108'"),
}  # fmt: skip


@pytest.mark.parametrize("write", [False, True], ids=["read", "write"])
@LAYOUTS
@pytest.mark.parametrize(("arguments", "message"), REFUSED.values(), ids=REFUSED)
def test_a_transfer_outside_what_the_header_documents_is_refused_by_name(arguments, message, layout, write):
    image = zeros(2, 3, 4, 9)
    transfer = functools.partial(image.write_bytes, b"\x01" * 1000) if write else image.read_bytes
    with pytest.raises(ImageError, match=message):
        transfer(layout, **arguments)
    assert not image.texture.any()


@pytest.mark.parametrize("axis", ["x", "y", "z", "w", "h", "depth"])
@pytest.mark.parametrize("value", [1.0, 0.5, "1", None, True])
def test_a_region_is_made_of_integers(axis, value):
    image = zeros(2, 3, 4, 9)
    extents = {"x": 0, "y": 0, "w": 1, "h": 1, "z": 0, "depth": 1} | {axis: value}
    with pytest.raises(ImageError, match="region"):
        image.read_bytes(HWC, region=box(**extents))


@pytest.mark.parametrize(
    ("layout", "good", "name"),
    [
        (HWC, {"bytes_per_row": 72}, "bytes_per_row"),
        (CHW, {"bytes_per_row": 8}, "bytes_per_row"),
        (HWC, {"bytes_per_image": 216}, "bytes_per_image"),
        (CHW, {"bytes_per_image": 216}, "bytes_per_image"),
        (HWC, {"bytes_per_row": 80, "bytes_per_image": 2 * 80 + 72}, "bytes_per_image"),
        (CHW, {"bytes_per_row": 11, "bytes_per_image": 26 * 11 + 8}, "bytes_per_image"),
        (HWC, {"bytes_per_row": 20, "region": box(1, 1, 1, 2), "bytes_per_image": 38}, "bytes_per_image"),
        (HWC, {"bytes_per_row": 24, "feature_channel_info": INFO(4, 4), "region": box(1, 1, 3, 1)}, "bytes_per_row"),
    ],
)
def test_a_stride_may_be_as_short_as_the_elements_allow_and_no_shorter(layout, good, name):
    image = MPSImage.from_array(np.arange(216, dtype=np.float16).reshape(2, 3, 4, 9))
    image.read_bytes(layout, **good)
    with pytest.raises(ImageError, match=f"^{name} is {good[name] - 1}: .* {good[name]} are needed"):
        image.read_bytes(layout, **good | {name: good[name] - 1})
    with pytest.raises(ImageError, match=f"^{name} is {good[name] - 1}: .* {good[name]} are needed"):
        image.write_bytes(bytes(1000), layout, **good | {name: good[name] - 1})


@pytest.mark.parametrize(
    ("layout", "good", "name"),
    [
        (HWC, {"bytes_per_column": 18}, "bytes_per_column"),
        (CHW, {"bytes_per_column": 2}, "bytes_per_column"),
        (HWC, {"bytes_per_column": 20, "bytes_per_row": 78}, "bytes_per_row"),
        (CHW, {"bytes_per_column": 5, "bytes_per_row": 17}, "bytes_per_row"),
        (CHW, {"bytes_per_column": 5, "bytes_per_row": 20, "bytes_per_image": 537}, "bytes_per_image"),
    ],
)
def test_the_strides_of_a_write_with_columns_have_minima_too(layout, good, name):
    image = zeros(1, 3, 4, 9, F16)
    image.write_bytes(bytes(1000), layout, **good)
    with pytest.raises(ImageError, match=f"^{name} is {good[name] - 1}: .* {good[name]} are needed"):
        image.write_bytes(bytes(1000), layout, **good | {name: good[name] - 1})


@pytest.mark.parametrize("value", [-2, 2.0, "2", True])
def test_a_column_stride_is_an_integer(value):
    image = zeros(1, 1, 2, 1)
    with pytest.raises(ImageError, match=r"^bytes_per_column is"):
        image.write_bytes(bytes(10), HWC, bytes_per_column=value)


@pytest.mark.parametrize("layout", [2, -1, "HWC", None])
def test_another_layout_is_refused(layout):
    image = zeros(1, 1, 1, 1)
    with pytest.raises(ImageError, match=r"^data_layout is"):
        image.read_bytes(layout)
    with pytest.raises(ImageError, match=r"^data_layout is"):
        image.write_bytes(b"1", layout)


@LAYOUTS
@pytest.mark.parametrize("length", [0, 1, 35, 37, 48])
def test_dense_data_must_have_exactly_the_length_of_the_elements(layout, length):
    image = zeros(1, 2, 3, 3, F16)
    with pytest.raises(ImageError, match=f"^data has {length} bytes: exactly 36 are needed"):
        image.write_bytes(bytes(length), layout)


@pytest.mark.parametrize(("layout", "needed"), [(HWC, 24 + 18), (CHW, 5 * 24 + 6)], ids=["HWC", "CHW"])
def test_data_with_strides_must_reach_the_last_element(layout, needed):
    image = zeros(1, 2, 3, 3, F16)
    image.write_bytes(bytes(needed), layout, bytes_per_row=24)
    image.write_bytes(bytes(needed + 1), layout, bytes_per_row=24)
    with pytest.raises(ImageError, match=f"^data has {needed - 1} bytes: at least {needed} are needed"):
        image.write_bytes(bytes(needed - 1), layout, bytes_per_row=24)


@pytest.mark.parametrize("dtype", ["f4", "f8", "i1", "i2", "u2", ">f4", "?"])
def test_an_array_of_another_dtype_is_not_converted(dtype):
    image = zeros(1, 1, 2, 1, F16)
    with pytest.raises(ImageError, match=r"^data has dtype .* float16"):
        image.write_bytes(np.zeros(4 // np.dtype(dtype).itemsize or 1, dtype), HWC)


@LAYOUTS
def test_arguments_may_be_small_numpy_integers(layout):
    array = np.arange(256 * 256, dtype=np.uint16).reshape(1, 1, 256, 256)
    image = MPSImage.from_array(array)
    region = box(np.uint8(200), np.uint8(0), np.uint8(56), np.uint8(1))
    info = INFO(np.uint8(252), np.uint8(4))
    part = array[0, :, 200:, 252:]
    expected = part if layout == HWC else np.moveaxis(part, -1, 0)
    assert image.read_bytes(layout, np.uint8(0), region=region, feature_channel_info=info) == expected.tobytes()


# ---- views ----


def test_each_image_of_a_batch_aliases_its_parent_in_both_directions():
    image = numbered(3, 2, 2, 5)
    batch = image.batch_representation()
    assert [np.asarray(b).shape for b in batch] == [(1, 2, 2, 5)] * 3
    assert np.array_equal(np.concatenate([b.to_array() for b in batch]), image.to_array())
    assert all(b.parent is image for b in batch)
    batch[1].write_bytes(np.full(20, 7, np.uint16), HWC)
    assert (image.to_array() == 7).all(axis=(1, 2, 3)).tolist() == [False, True, False]
    image.write_bytes(np.full(20, 9, np.uint16), HWC, 2)
    assert (batch[2].to_array() == 9).all()
    assert np.shares_memory(batch[0].texture, image.texture)


@pytest.mark.parametrize(
    ("chosen", "first"), [(range(3), [0, 1000, 2000]), (range(1, 3), [1000, 2000]), (range(2, 3), [2000])]
)
def test_a_batch_may_cover_a_range_of_images(chosen, first):
    batch = numbered(3, 1, 1, 1).batch_representation(with_sub_range=chosen)
    assert [b.to_array().item() for b in batch] == first


@pytest.mark.parametrize("chosen", [range(4), range(-1, 2), range(0, 3, 2), range(2, -1, -1), range(3, 5)])
def test_a_range_of_images_that_reaches_outside_or_steps_is_refused(chosen):
    with pytest.raises(ImageError, match=r"^with_sub_range is"):
        numbered(3, 1, 1, 1).batch_representation(with_sub_range=chosen)


@pytest.mark.parametrize("images_", [1, 3])
@pytest.mark.parametrize(
    ("channels", "chosen", "expected"),
    [
        (9, range(4), (0, 4)),
        (9, range(4, 8), (4, 8)),
        (9, range(8), (0, 8)),
        (8, range(8), (0, 8)),
        (9, range(8, 12), (8, 9)),
        (9, range(4, 12), (4, 9)),
        (9, range(4, 400), (4, 9)),
        (6, range(4, 8), (4, 6)),
        (7, range(4, 8), (4, 7)),
        (2, range(4), (0, 2)),
        (1, range(4), (0, 1)),
    ],
)
def test_a_length_that_is_too_long_is_cut_to_fit(channels, chosen, expected, images_):
    image = numbered(images_, 2, 3, channels)
    view = image.sub_image(with_feature_channel_range=chosen)
    start, stop = expected
    assert view.feature_channels == stop - start
    assert view.descriptor.feature_channels == stop - start
    assert view.parent is image
    part = image.to_array()[..., start:stop]
    assert np.array_equal(view.to_array(), part)
    for i in range(images_):
        assert view.read_bytes(HWC, i) == part[i].tobytes()
        assert view.read_bytes(CHW, i) == np.moveaxis(part[i], -1, 0).tobytes()
    assert view.texture.shape[0] == images_ * ((stop - start + 3) // 4)
    assert view.slices.shape[-1] == (stop - start if stop - start < 3 else 4)


@LAYOUTS
@pytest.mark.parametrize("chosen", [range(4, 8), range(8, 12), range(8)])
def test_a_channel_range_aliases_its_parent_in_both_directions(chosen, layout):
    image = numbered(2, 2, 3, 9)
    before = image.to_array()
    view = image.sub_image(with_feature_channel_range=chosen)
    stop = min(chosen.stop, 9)
    elements = 6 * (stop - chosen.start)
    view.write_bytes(np.full(elements, 5, np.uint16), layout, 1)
    expected = before.copy()
    expected[1, ..., chosen.start : stop] = 5
    assert np.array_equal(image.to_array(), expected)
    assert not image.texture[[2, 5], ..., 1:].any(), "a write reached the padding of the parent"
    image.write_bytes(np.full(54, 6, np.uint16), layout, 0)
    assert (view.to_array()[0] == 6).all()
    assert (view.to_array()[1] == 5).all()


def test_views_of_views_reach_the_first_image():
    image = numbered(3, 2, 2, 13)
    middle = image.batch_representation()[1]
    upper = middle.sub_image(with_feature_channel_range=range(4, 13 + 3))
    last = upper.sub_image(with_feature_channel_range=range(8, 12))
    (again,) = last.batch_representation()
    assert [upper.feature_channels, last.feature_channels, again.feature_channels] == [9, 1, 1]
    assert (again.parent, last.parent, upper.parent, middle.parent) == (last, upper, middle, image)
    assert again.to_array().ravel().tolist() == [2200, 2201, 2210, 2211]
    again.write_bytes(np.uint16([1, 2, 3, 4]), HWC)
    assert image.to_array()[1, ..., 12].ravel().tolist() == [1, 2, 3, 4]
    image.write_bytes(np.full(4 * 13, 8, np.uint16), CHW, 1)
    assert (again.to_array() == 8).all()


def test_the_texture_of_a_channel_range_of_several_images_holds_their_slices():
    view = numbered(2, 1, 1, 9).sub_image(with_feature_channel_range=range(4, 8))
    assert view.texture[:, 0, 0].tolist() == [[400, 500, 600, 700], [1400, 1500, 1600, 1700]]
    with pytest.raises(ValueError, match="read-only"):
        view.texture[...] = 1


def test_a_view_of_an_adopted_texture_writes_through_to_it():
    texture = np.zeros((4, 1, 1, 4), np.uint8)
    image = MPSImage(texture=texture, feature_channels=6)
    second = image.batch_representation()[1].sub_image(with_feature_channel_range=range(4, 8))
    second.write_bytes(b"\x01\x02", HWC)
    assert texture[:, 0, 0].tolist() == [[0] * 4, [0] * 4, [0] * 4, [1, 2, 0, 0]]


@pytest.mark.parametrize(
    ("start", "stop", "step"),
    [
        *[(1, 5, 1), (4, 7, 1), (0, 3, 1), (0, 0, 1), (4, 4, 1), (8, 4, 1)],
        *[(12, 16, 1), (-4, 4, 1), (-4, 0, 1), (0, 16, 2), (8, 0, -1)],
    ],
)
def test_a_channel_range_that_is_misaligned_empty_or_outside_is_refused(start, stop, step):
    with pytest.raises(ImageError, match=r"^with_feature_channel_range is"):
        numbered(1, 1, 1, 9).sub_image(with_feature_channel_range=range(start, stop, step))


# ---- what the rest of the package asks of the layout ----


@pytest.mark.parametrize(
    ("channel", "index", "channels", "texel"),
    [(0, 0, 1, (0, 0)), (3, 0, 9, (0, 3)), (8, 0, 9, (2, 0)), (7, 1, 9, (4, 3)), (1, 3, 2, (3, 1))],
)
def test_texel_of_names_slice_and_component(channel, index, channels, texel):
    assert texel_of(channel, index, channels) == texel


@pytest.mark.parametrize(("channels", "cleared"), [(1, 3), (3, 1), (4, 0), (6, 2)])
def test_clearing_unused_lanes_clears_those_of_the_last_slice_only(channels, cleared):
    slices = np.ones((2, (channels + 3) // 4, 2, 3, 4), np.float16)
    clear_unused_lanes(slices, channels)
    assert (slices == 0).sum() == 2 * 2 * 3 * cleared
    assert not slices[:, -1, :, :, 4 - cleared :].any() or not cleared


@pytest.mark.parametrize(
    "call",
    [
        lambda image: image.read_bytes(HWC, region=5),
        lambda image: image.read_bytes(HWC, region=()),
        lambda image: image.read_bytes(HWC, region=((0, 0), (1, 1))),
        lambda image: image.read_bytes(HWC, feature_channel_info=(1,)),
        lambda image: image.read_bytes(HWC, feature_channel_info=4),
        lambda image: image.read_bytes(HWC, bytes_per_row=2**70),
        lambda image: image.batch_representation(with_sub_range=(0, 1)),
        lambda image: image.sub_image(with_feature_channel_range=None),
        lambda image: MPSImage(image_descriptor=3),
        lambda image: MPSImageDescriptor(channel_format=F16, width=10**30),
        lambda image: MPSImage.from_array([[[1.0]], [[2.0, 3.0]]]),
        lambda image: MPSImage(texture=np.broadcast_to(np.uint8(0), (1, 2, 2, 1)), feature_channels=1).write_bytes(
            bytes(4), HWC
        ),
    ],
)
def test_arguments_of_the_wrong_kind_are_refused_as_image_errors(call):
    with pytest.raises(ImageError):
        call(zeros(1, 2, 2, 3))


@pytest.mark.parametrize("channels", [4, 8, 6])
@pytest.mark.parametrize("order", ["<", ">"])
def test_lanes_are_packed_by_value_whatever_the_byte_order_and_the_strides(order, channels):
    wide = np.arange(2 * 3 * 5 * 2 * channels).reshape(2, 3, 5, -1).astype(f"{order}f2")
    for array in (
        np.ascontiguousarray(wide[..., :channels]),
        wide[..., :channels],
        wide[..., ::2],
        wide[:, ::-1, :, ::-2],
    ):
        slices = np.zeros((2, -(-channels // 4), 3, 5, 4), np.float16)
        write_lanes(slices, array)
        for c in range(channels):
            assert np.array_equal(slices[:, c // 4, :, :, c % 4], array[..., c])
        again = np.zeros_like(array)
        read_lanes(slices, again)
        assert np.array_equal(again, array)
