"""Recordings as people have them: arrays of any rank, textures with their padding, and only some of the files."""

from __future__ import annotations

import json

import numpy as np
import pytest

import mpsref as mps
from mpsref.cli import main
from mpsref.record import request
from mpsref.verify import Recording, verify, write_recording

F = mps.MPSImageFeatureChannelFormat
WRONG = np.float16(9)


def absolute():
    n = mps.MPSCNNNeuronAbsoluteNode(source=mps.MPSNNImageNode(handle="x"))
    n.result_image.handle = "y"
    return mps.GraphFile.from_results([n.result_image])


def numbers(shape):
    """All different, and of both signs."""
    count = int(np.prod(shape))
    return (np.arange(1, count + 1) * (-1.0) ** np.arange(count)).astype(np.float16).reshape(shape)


def recorded(folder, files, entries):
    """A recording of raw files, with entries of one's own."""
    folder.mkdir()
    absolute().write(folder / "graph.json")
    for name, data in files.items():
        (folder / f"{name}.f16").write_bytes(data.tobytes())
    images = {name: {"file": f"{name}.f16", "channel_format": "float16", **entries[name]} for name in files}
    document = {"format": "mpsref-recording", "version": 1, "graph": "graph.json", "images": images}
    path = folder / "recording.json"
    path.write_text(json.dumps(document))
    return path


def sizes(n, h, w, c):
    return {"number_of_images": n, "height": h, "width": w, "feature_channels": c}


# ---- arrays of any rank ----

SHAPES = [(6,), (3, 2), (2, 3, 4), (2, 3, 4, 5), (2, 3, 2, 3, 4)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["npy", "raw", "shape"])
def test_an_array_of_any_rank_is_judged_and_its_elements_are_called_by_its_own_indices(tmp_path, shape, kind):
    x, y = numbers(shape), np.abs(numbers(shape))
    at = tuple(size - 1 for size in shape)
    y[at] = WRONG
    if kind == "shape":
        path = recorded(tmp_path / "r", {"x": x, "y": y}, {key: {"shape": list(shape)} for key in "xy"})
    else:
        path = write_recording(tmp_path / "r", absolute(), {"x": x, "y": y}, "a device", raw=kind == "raw")

    (image,) = verify(path).images

    assert image.counts.beyond == 1
    element = image.worst[0]
    assert (element.sources["x"], element.got) == (str(x[at]), "9.0")
    if kind == "shape" or len(shape) not in (3, 4):
        assert element.index == at
        assert str(element).startswith(f"{list(at)} x = ")
    else:
        assert element.index is None
        assert (element.y, element.x, element.channel) == at[-3:]


@pytest.mark.parametrize("shape", SHAPES)
def test_channels_may_be_on_any_axis(tmp_path, shape):
    for axis in range(-len(shape), len(shape)):
        folder = tmp_path / str(axis)
        slopes = np.linspace(-2, 2, shape[axis])
        n = mps.MPSCNNNeuronPReLUNode(source=mps.MPSNNImageNode(handle="x"), a_data=slopes)
        n.result_image.handle = "y"
        x = numbers(shape)
        along = [1] * len(shape)
        along[axis] = -1
        y = np.where(x >= 0, x, x * np.float32(slopes).reshape(along)).astype(np.float16)
        at = tuple(size // 2 for size in shape)
        y[at] += 32
        path = recorded(folder, {"x": x, "y": y}, {key: {"shape": list(shape), "channel_axis": axis} for key in "xy"})
        mps.GraphFile.from_results([n.result_image]).write(folder / "graph.json")

        (image,) = verify(path).images

        assert image.counts.beyond == 1
        assert image.worst[0].index == at


def test_an_array_file_may_have_its_channels_first_too(tmp_path):
    path = write_recording(tmp_path / "r", absolute(), {"x": numbers((2, 3, 4)), "y": np.abs(numbers((2, 3, 4)))}, "d")
    document = json.loads(path.read_text())
    for entry in document["images"].values():
        entry["channel_axis"] = 0
    path.write_text(json.dumps(document))

    assert Recording.read(path).images["y"].descriptor.feature_channels == 2
    assert verify(path).passed


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (
            {"shape": [6], "width": 6},
            ["width", "shape is there"],
        ),
        ({"shape": [6], "data_layout": "texture"}, ["data_layout", "shape is there"]),
        ({"shape": [6], "channel_axis": 1}, ["channel_axis is 1", "0 to 0"]),
        ({"shape": []}, ["images.x.shape", "has 0 items"]),
        ({"shape": [1] * 6}, ["images.x.shape", "has 6 items"]),
        ({"shape": [0]}, ["images.x.shape[0]"]),
        ({"shape": [7]}, ["12 bytes, not the axes of shape x size = 7 x 2 = 14"]),
        ({"shape": [12]}, ["that many fit unorm8: fix the format"]),
        ({"channel_axis": 0, **sizes(1, 1, 1, 6)}, ["channel_axis", "need shape too"]),
        ({"channel_axis": 0, "data_layout": "texture", **sizes(1, 1, 1, 6)}, ["channel_axis", "data_layout is there"]),
        ({}, ["width: missing", "or shape"]),
    ],
)
def test_a_wrong_shape_is_refused_by_field(tmp_path, entry, words):
    path = recorded(tmp_path / "r", {"x": numbers((6,)), "y": numbers((6,))}, {"x": entry, "y": {"shape": [6]}})

    with pytest.raises(mps.FileFormatError) as raised:
        verify(path)

    for word in ["images.x", *words] if "fit" not in words[0] and "bytes" not in words[0] else ["x.f16", *words]:
        assert word in str(raised.value)


def test_sources_of_any_rank_can_be_asked_for(tmp_path, capsys):
    absolute().write(tmp_path / "graph.json")
    for text, want in (("6", (1, 1, 1, 6)), ("3x2", (1, 1, 3, 2)), ("2x3x4x5x6", (6, 4, 5, 6))):
        out = tmp_path / text
        assert main(["inputs", str(tmp_path / "graph.json"), "--shape", text, "--out", str(out)]) == 0
        assert Recording.read(out / "recording.json", complete=False).images["x"].read().shape == want


# ---- textures ----


def slices_of(image, padding):
    """The bytes of an image's texture; what is in unused lanes is no element."""
    texture = image.texture.copy()
    unused = image.feature_channels % texture.shape[3]
    if unused:
        texture.reshape(image.number_of_images, -1, *texture.shape[1:])[:, -1, ..., unused:] = padding
    return texture


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 9])
@pytest.mark.parametrize("name", ["texture", "NC4HW4"])
@pytest.mark.parametrize("images", [1, 2])
def test_the_bytes_of_a_texture_are_read_without_its_padding(tmp_path, channels, name, images):
    shape = (images, 6, 5, channels)
    x = mps.MPSImage.from_array(numbers(shape))
    y = mps.MPSImage.from_array(np.abs(numbers(shape)))
    textures = {key: slices_of(image, np.nan) for key, image in (("x", x), ("y", y))}
    if name == "NC4HW4":  # always four lanes
        textures = {k: np.pad(t, [(0, 0)] * 3 + [(0, 4 - t.shape[3])]) for k, t in textures.items()}
    path = recorded(tmp_path / "r", textures, {key: {"data_layout": name, **sizes(*shape)} for key in "xy"})

    report = verify(path)

    assert report.images[0].counts.exact == np.prod(shape)
    assert Recording.read(path).images["y"].read().to_array().tobytes() == y.to_array().tobytes()


@pytest.mark.parametrize(("name", "status"), [("texture", 0), ("NC4HW4", 1)])
def test_only_a_texture_may_hold_zero_for_nan(tmp_path, name, status, capsys):
    x = numbers((1, 2, 2, 4))
    x[0, 0, 0] = np.nan
    images = {key: mps.MPSImage.from_array(array) for key, array in (("x", x), ("y", np.nan_to_num(np.abs(x))))}
    entry = {"data_layout": name, **sizes(1, 2, 2, 4)}
    path = recorded(tmp_path / "r", {k: image.texture for k, image in images.items()}, dict.fromkeys("xy", entry))

    assert main(["verify", str(path), "--bounds", "metal-precise"]) == status
    assert ("4 results where NaN is 0, as a texture may have it" in capsys.readouterr().out) == (status == 0)
    assert main(["verify", str(path), "--bounds", "metal-precise", "--strict"]) == 1


def test_a_texture_of_one_channel_may_have_four_lanes(tmp_path):
    x = np.pad(numbers((2, 3, 4, 1)), [(0, 0)] * 3 + [(0, 3)])
    path = recorded(
        tmp_path / "r", {"x": x, "y": np.abs(x)}, {key: {"data_layout": "texture", **sizes(2, 3, 4, 1)} for key in "xy"}
    )

    assert verify(path).images[0].counts.exact == 24


def test_a_texture_taken_for_an_array_is_named_and_the_other_way_round(tmp_path):
    texture = slices_of(mps.MPSImage.from_array(numbers((1, 6, 5, 3))), 0)
    assert texture.nbytes == 240
    for name, data, word in (
        ("HeightxWidthxFeatureChannels", texture, 'fit data_layout "texture": fix data_layout'),
        ("texture", numbers((1, 6, 5, 3)), 'fit data_layout "HeightxWidthxFeatureChannels"'),
    ):
        entry = {"data_layout": name, **sizes(1, 6, 5, 3)}
        path = recorded(tmp_path / name, {"x": data, "y": data}, {"x": entry, "y": entry})
        with pytest.raises(mps.FileFormatError, match=word):
            verify(path)


# ---- some of the files ----


@pytest.fixture
def chain(tmp_path):
    """A chain of two neurons, forward and back, of which only dx was written, rightly."""
    x, dy = mps.MPSNNImageNode(handle="x"), mps.MPSNNImageNode(handle="dy")
    h = mps.MPSCNNNeuronReLUNode(source=x, a=0.5)
    y = mps.MPSCNNNeuronAbsoluteNode(source=h.result_image)
    h.result_image.handle, y.result_image.handle = "h", "y"
    (last,) = y.training_graph(with_source_gradient=dy)
    file = mps.GraphFile.from_results([y.result_image, last.result_image])
    path = request(tmp_path / "rec", file, (2, 4, 4, 4), F.float16)
    sources = {name: image.read() for name, image in Recording.read(path, complete=False).images.items()}
    write(path, "dx", mps.MPSNNGraph(result_image=last.result_image).run(**sources))
    return path, file


def write(path, name, results):
    image = results[name] if isinstance(results, dict) else results
    (path.parent / f"{name}.f16").write_bytes(image.to_array().tobytes())


def test_what_is_there_is_judged_and_what_is_not_is_listed(chain, capsys):
    path, _ = chain
    assert main(["verify", str(path)]) == 2
    assert "judge the images that are there (--partial)" in capsys.readouterr().err

    assert main(["verify", str(path), "--partial", "--device", "a phone"]) == 0

    out = capsys.readouterr().out
    assert "device     a phone\n" in out
    assert out.splitlines()[-1] == "PASS: all 128 elements of 1 image are within bounds; 3 other images not judged"
    for name in ("h", "y", "dh"):
        assert f"  {name}  {' ' * (2 - len(name))}{name}.f16 is not there\n" in out
    report = verify(path, partial=True)
    assert report.to_json()["missing"] == {name: f"{name}.f16 is not there" for name in ("h", "y", "dh")}
    data = bytearray((path.parent / "dx.f16").read_bytes())
    data[1] ^= 0xFF
    (path.parent / "dx.f16").write_bytes(data)
    assert main(["verify", str(path), "--partial"]) == 1


def test_an_image_whose_source_is_missing_is_not_judged(chain, capsys):
    path, _ = chain
    (path.parent / "dy.f16").rename(path.parent / "elsewhere")

    assert main(["verify", str(path), "--partial"]) == 2
    assert "dx: not judged, because dy is not there" in capsys.readouterr().err
    recording = Recording.read(path, complete=False)
    write(path, "h", mps.MPSNNGraph(result_image=recording.graph.images["h"]).run(x=recording.images["x"].read()))
    report = verify(path, partial=True)
    assert [image.name for image in report.images] == ["h"]
    assert report.missing["dx"] == "not judged, because dy is not there"


def test_half_a_batch_is_called_so(chain):
    path, _ = chain
    file = path.parent / "dx.f16"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])

    with pytest.raises(mps.FileFormatError, match="fit 1 of the 2 images of the batch or unorm8"):
        Recording.read(path)
    report = verify(path, partial=True)
    assert report.passed
    assert report.images[0].counts.elements == 64
    assert report.missing["dx, from image 1 on"] == "its file holds 1 of the 2 images of the batch"
    assert report.verdict.endswith("; 3 other images and 1 part of an image not judged")
    assert "\n3 images and 1 part of an image not judged:\n" in report.text()
    file.write_bytes(file.read_bytes()[:-2])
    with pytest.raises(mps.FileFormatError, match="126 bytes"):
        verify(path, partial=True)


def test_what_depends_on_half_a_batch_is_judged_as_far(chain):
    path, _ = chain
    recording = Recording.read(path, complete=False)
    sources = {name: image.read() for name, image in recording.images.items() if name != "dx"}
    images = [recording.graph.images[name] for name in ("h", "y")]
    write(path, "h", (results := mps.MPSNNGraph(result_images=images).run(x=sources["x"])))
    write(path, "y", results)
    half = path.parent / "h.f16"
    half.write_bytes(half.read_bytes()[:128])
    recorded = verify(path, partial=True)
    assert {image.name: image.counts.elements for image in recorded.images} == {"h": 64, "y": 64, "dx": 64}
    assert recorded.passed
    assert recorded.missing["y, from image 1 on"] == "a source has 1 of the 2 images of the batch"
    # Of a source all that reads it.
    source = path.parent / "x.f16"
    source.write_bytes(source.read_bytes()[:128])
    recorded = verify(path, partial=True)
    assert {image.name: image.counts.elements for image in recorded.images} == {"h": 64, "y": 64, "dx": 64}
    assert recorded.passed
    assert "x, from image 1 on" in recorded.missing


def test_half_a_batch_in_an_array_file_is_called_so(tmp_path):
    path = write_recording(
        tmp_path / "r", absolute(), {"x": numbers((4, 2, 2, 3)), "y": np.abs(numbers((2, 2, 2, 3)))}, "d"
    )

    with pytest.raises(mps.FileFormatError, match="holds 2 of the 4 images of the batch"):
        verify(path)
    assert verify(path, partial=True).images[0].counts.elements == 24


def test_a_request_is_written_again_and_what_the_device_wrote_stays(chain, tmp_path, capsys):
    path, file = chain
    file.write(tmp_path / "graph.json")
    before = (path.parent / "dx.f16").read_bytes()
    command = ["inputs", str(tmp_path / "graph.json"), "--out", str(path.parent), "--shape", "2x4x4x4"]
    assert main(command) == 2
    assert "not empty" in capsys.readouterr().err

    assert main([*command, "--force", "--device", "a phone"]) == 0

    assert "a device is to write 3 images, and has written 1" in capsys.readouterr().out
    assert Recording.read(path, complete=False).device == "a phone"
    assert (path.parent / "dx.f16").read_bytes() == before
    assert verify(path, partial=True).passed
    assert main([*command, "--force"]) == 0
    assert Recording.read(path, complete=False).device == "a phone"


@pytest.mark.parametrize("change", [["--seed", "2"], ["--shape", "4x4x4"], ["--channel-format", "float32"]])
def test_sources_that_a_device_has_read_do_not_change(chain, tmp_path, capsys, change):
    path, file = chain
    file.write(tmp_path / "graph.json")
    before = {each.name: each.read_bytes() for each in path.parent.iterdir()}
    command = ["inputs", str(tmp_path / "graph.json"), "--out", str(path.parent), "--shape", "2x4x4x4", "--force"]

    assert main([*command, *change]) == 2

    assert "a device has written dx.f16 from it" in capsys.readouterr().err
    assert {each.name: each.read_bytes() for each in path.parent.iterdir()} == before
    (path.parent / "dx.f16").unlink()
    assert main([*command, *change]) == 0


def test_a_folder_of_something_else_is_refused_with_force_too(chain, tmp_path, capsys):
    _, file = chain
    file.write(tmp_path / "graph.json")
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine.txt").write_text("mine")

    assert main(["inputs", str(tmp_path / "graph.json"), "--out", str(other), "--shape", "4x4x4", "--force"]) == 2
    assert "not empty" in capsys.readouterr().err


def test_a_recording_of_other_files_is_not_written_over(chain, tmp_path, capsys):
    path, file = chain
    file.write(tmp_path / "graph.json")
    recording = Recording.read(path, complete=False)
    images = {name: image.read() for name, image in recording.images.items()}
    made = write_recording(tmp_path / "made", file, images, "made by hand")
    before = {each.name: each.read_bytes() for each in made.parent.iterdir()}
    command = ["inputs", str(tmp_path / "graph.json"), "--out", str(made.parent), "--shape", "2x4x4x4", "--force"]

    assert main([*command, "--device", "a phone"]) == 2

    assert "lists dx.npy, which the new recording would not: choose another folder" in capsys.readouterr().err
    assert {each.name: each.read_bytes() for each in made.parent.iterdir()} == before


def test_images_are_made_of_arrays_of_any_rank():
    for shape, want in (
        ((), (1, 1, 1, 1)),
        ((6,), (1, 1, 1, 6)),
        ((3, 2), (1, 1, 3, 2)),
        ((1, 2, 3, 4, 5), (2, 3, 4, 5)),
    ):
        array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
        assert mps.MPSImage.from_array(array).to_array().tobytes() == array.tobytes()
        assert mps.MPSImage.from_array(array).shape == want
    with pytest.raises(mps.ImageError, match="1 to 5 axes"):
        mps.MPSImage.from_array(np.ones((1,) * 6, np.float32))


# ---- a part at a time ----


@pytest.mark.parametrize("kind", ["npy", "fortran", "raw", "channels first", "texture"])
def test_blocks_and_single_elements_are_those_of_the_whole(tmp_path, kind):
    x = numbers((2, 3, 4, 5))
    stored = {
        "fortran": np.asfortranarray(x),
        "channels first": np.ascontiguousarray(np.moveaxis(x, -1, 1)),
        "texture": slices_of(mps.MPSImage.from_array(x), np.nan),
    }.get(kind, x)
    entry = {"texture": {"data_layout": "texture"}, "channels first": {"data_layout": "featureChannelsxHeightxWidth"}}
    path = recorded(tmp_path / "r", {"x": stored}, {"x": {**entry.get(kind, {}), **sizes(*x.shape)}})
    if kind in ("npy", "fortran"):
        np.save(tmp_path / "r" / "x.npy", stored)
        document = json.loads(path.read_text()) | {"images": {"x": {"file": "x.npy"}}}
        path.write_text(json.dumps(document))
    image = Recording.read(path).images["x"]

    for each in (1, 7, 119, 120, 500):
        blocks = [block.copy() for block in image._blocks(each)]
        assert [block.size for block in blocks[:-1]] == [each] * (len(blocks) - 1)
        assert np.concatenate(blocks).tolist() == x.reshape(-1).tolist()
    chosen = np.array([119, 0, 64, 64])
    assert image._at(chosen).tolist() == x.reshape(-1)[chosen].tolist()


def test_a_file_that_shrinks_while_it_is_read_is_refused(tmp_path):
    path = recorded(tmp_path / "r", {"x": numbers((1, 8, 256, 16))}, {"x": sizes(1, 8, 256, 16)})
    image = Recording.read(path).images["x"]
    blocks = image._blocks(16_384)
    next(blocks)
    with image.path.open("r+b") as file:
        file.truncate(40_000)

    with pytest.raises(mps.FileFormatError, match=r"has changed meanwhile .*cut short"):
        list(blocks)
