"""Making recordings: sources that test well, conversions that change no bit, and files that are hostile."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
import zipfile
import zlib
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

import mpsref as mps
from mpsref.cli import main
from mpsref.record import contents, contents_text, edges, read_images, request, sample_image, write_images
from mpsref.record.samples import _coprime, _places
from mpsref.storage import FORMATS
from mpsref.tensors import MOST_INFLATED, read_npz, read_safetensors, write_npz, write_safetensors
from mpsref.verify import Recording, verify, write_recording

F = mps.MPSImageFeatureChannelFormat
T = mps.MPSCNNNeuronType
FORMAT_NAMES = [f.name for f in FORMATS]


def neurons():
    return [mps.MPSNNNeuronDescriptor(t, data=[0.25] if row.per_channel else None) for t, row in mps.NEURONS.items()]


def size(shape, channel_format=F.float16):
    n, h, w, c = shape
    return mps.MPSImageDescriptor(
        channel_format=channel_format, width=w, height=h, feature_channels=c, number_of_images=n
    )


def bits(array):
    return array.view(f"u{array.itemsize}")


def chain(storage=F.float16):
    """A chain forward and back, with an addition, exported images and one that has a format of its own."""
    x, dy = mps.MPSNNImageNode(handle="x"), mps.MPSNNImageNode(handle="dy")
    h = mps.MPSCNNNeuronReLUNNode(source=x, a=0.1, b=2.5)
    p = mps.MPSCNNNeuronPReLUNode(source=x, a_data=[0.1, 0.2, 0.3, 0.4])
    y = mps.MPSNNAdditionNode(left_source=h.result_image, right_source=p.result_image)
    h.result_image.handle, p.result_image.handle, y.result_image.handle = "h", "p", "y"
    h.result_image.export_from_graph = True
    (last,) = y.training_graph(with_source_gradient=dy)
    last.result_image.handle = "dx"
    last.result_image.format = F.float32
    return mps.GraphFile.from_results([y.result_image, last.result_image], storage)


@pytest.fixture
def graph(tmp_path):
    chain().write(tmp_path / "graph.json")
    return tmp_path / "graph.json"


def play_the_device(path, change=lambda name, array: array):
    """Write every image that a recording waits for, as the reference computes it."""
    recording = Recording.read(path, complete=False)
    file = recording.graph
    names = {image: name for name, image in file.images.items()}
    made = [file.images[name] for name in recording.missing]
    engine = mps.MPSNNGraph(result_images=made, format=file.storage)
    rest = []
    first = engine.encode(
        source_images=[recording.images[handle].read() for handle in engine.source_image_handles],
        intermediate_images=rest,
    )
    entries = json.loads(path.read_text())["images"]
    for node, image in zip(made, [first, *rest], strict=False):
        name = names[node]
        array = change(name, image.to_array())
        entry = entries[name]
        assert entry["channel_format"] == image.feature_channel_format.name
        (path.parent / entry["file"]).write_bytes(array.astype(array.dtype.newbyteorder("<")).tobytes())


# ---- images that test well ----


@pytest.mark.parametrize("shape", [(1, 64, 64, 16), (1, 1, 65_536, 1), (4, 64, 64, 5), (1, 256, 256, 3)])
def test_half_elements_hold_every_pattern(shape):
    array = sample_image(size(shape), neurons(), (1,)).to_array()

    assert len(np.unique(bits(array))) == 65_536
    if np.prod(shape[:3]) >= 65_536:
        assert all(len(np.unique(bits(array)[..., channel])) == 65_536 for channel in range(shape[3]))


@pytest.mark.parametrize("shape", [(1, 64, 64, 16), (1, 128, 128, 5)])
def test_float32_elements_hold_every_half_value_and_others(shape):
    array = sample_image(size(shape, F.float32), neurons(), (1,)).to_array()

    halves = np.arange(65_536, dtype=np.uint16).view(np.float16).astype(np.float32)
    assert np.isin(bits(halves[~np.isnan(halves)]), bits(array)).all()
    assert np.isnan(array).any()
    with np.errstate(over="ignore"):
        assert np.sum(array.astype(np.float16).astype(np.float32) != array) > 1500
    assert len(np.unique(bits(array))) == array.size


@pytest.mark.parametrize(("channel_format", "patterns"), [(F.unorm8, 256), (F.unorm16, 65_536)])
def test_unorm_images_hold_every_code(channel_format, patterns):
    array = sample_image(size((1, 64, 64, 16), channel_format), neurons(), (1,)).to_array()

    assert len(np.unique(array)) == patterns


@pytest.mark.parametrize("channel_format", FORMATS, ids=FORMAT_NAMES)
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (1, 1, 1, 3), (2, 5, 7, 9), (3, 31, 17, 6)])
@pytest.mark.parametrize("is_gradient", [False, True])
def test_small_images_repeat_nothing_that_they_need_not(channel_format, shape, is_gradient):
    array = sample_image(size(shape, channel_format), neurons(), (1,), is_gradient=is_gradient).to_array()

    assert array.shape == shape
    assert len(np.unique(bits(array))) == min(array.size, 256 if channel_format is F.unorm8 else array.size)


@pytest.mark.parametrize("channel_format", FORMATS, ids=FORMAT_NAMES)
def test_no_exchange_of_channels_rows_columns_or_images_goes_unseen(channel_format):
    array = sample_image(size((3, 40, 40, 8), channel_format), neurons(), (1,)).to_array()

    for axis in range(4):
        for one, other in pairwise(np.moveaxis(bits(array), axis, 0)):
            assert np.mean(one == other) < 0.02
    assert np.mean(bits(array) == bits(np.swapaxes(array, 1, 2).copy())) < 0.05


@pytest.mark.parametrize("shape", [(3, 16, 16, 4), (3, 8, 8, 4)])
def test_images_of_a_batch_that_hold_every_code_differ(shape):
    one, two, three = sample_image(size(shape, F.unorm8), neurons(), (1,)).to_array()

    assert np.mean(one == two) < 0.05
    assert np.mean(two == three) < 0.05
    assert np.mean(one == three) < 0.05


@given(st.integers(1, 300), st.integers(1, 40), st.integers(1, 600))
def test_every_value_has_a_place_before_one_has_two(pixels, channels, count):
    places = _places(pixels, channels, count, (1,))

    used, times = np.unique(places, return_counts=True)
    assert len(used) == min(places.size, count)
    if pixels < count:
        assert times.max() == -(-places.size // count)
    else:
        assert all(len(set(row)) == min(channels, count) for row in places.tolist())
    assert np.gcd(_coprime(count), count) == 1


@pytest.mark.parametrize("neuron", neurons(), ids=lambda d: d.neuron_type.name)
@pytest.mark.parametrize("channel_format", [F.float16, F.float32], ids=lambda f: f.name)
def test_kinks_and_their_neighbours_and_special_values_are_in_a_small_image(neuron, channel_format):
    array = sample_image(size((1, 16, 16, 4), channel_format), [neuron], (1,)).to_array()
    limits = np.finfo(array.dtype)

    for kink in mps.NEURONS[neuron.neuron_type].kinks(neuron):
        at = array.dtype.type(kink)
        for value in (at, np.nextafter(at, array.dtype.type(np.inf)), np.nextafter(at, array.dtype.type(-np.inf))):
            assert value in array
    for value in (1, np.inf, limits.max, limits.smallest_subnormal, limits.smallest_normal):
        assert value in array
        assert -value in array
    assert np.isnan(array).any()
    assert {bool(sign) for sign in np.signbit(array[array == 0])} == {False, True}


@pytest.mark.parametrize(
    ("neuron_type", "parameters", "wanted"),
    [
        (T.exponential, {}, [88.72283, 88.72284, 11.09011, -103.97208]),  # overflow of float32 and float16, underflow
        (T.logarithm, {"a": 2, "b": -3}, [1.5]),  # the end of the domain
        (T.power, {"a": 1, "b": 5, "c": 0.5}, [-5.0]),
        (T.hardSigmoid, {}, [-2.5, 2.5]),
        (T.reLUN, {"a": 0.5, "b": 3}, [3.0]),
        (T.tanH, {"a": 1, "b": 1}, [-9.010913, 9.010913]),  # from here on the result is 1
    ],
)
def test_edges_are_where_the_neuron_changes_its_ways(neuron_type, parameters, wanted):
    found = edges(mps.MPSNNNeuronDescriptor(neuron_type, **parameters))

    for value in wanted:
        assert np.abs(found[np.isfinite(found)] - np.float32(value)).min() <= 2e-6 * abs(value)


@pytest.mark.parametrize("channel_format", [F.float16, F.float32], ids=lambda f: f.name)
def test_incoming_gradients_are_moderate_with_a_few_special_values(channel_format):
    array = sample_image(size((1, 64, 64, 16), channel_format), neurons(), (1,), is_gradient=True).to_array()

    moderate = (np.abs(array) >= 2.0**-8) & (np.abs(array) < 2.0**8)
    assert np.mean(moderate) > 0.99
    assert abs(np.mean(np.signbit(array)) - 0.5) < 0.01
    assert np.isnan(array).any()
    assert np.isinf(array).any()
    assert (array == 0).any()


def test_a_hundred_awkward_neurons_leave_room_for_every_half_value():
    many = [mps.MPSNNNeuronDescriptor(T.tanH, a=1 + k / 7, b=1 + k / 11) for k in range(100)]

    array = sample_image(size((1, 64, 64, 16), F.float32), many, (1,)).to_array()

    halves = np.arange(65_536, dtype=np.uint16).view(np.float16).astype(np.float32)
    assert np.isin(bits(halves[~np.isnan(halves)]), bits(array)).all()


def test_the_seed_decides_and_nothing_else():
    d, same = (
        size((1, 32, 32, 8)),
        [sample_image(size((1, 32, 32, 8)), neurons(), (7,)).to_array().tobytes() for _ in "ab"],
    )

    assert same[0] == same[1]
    assert sample_image(d, neurons(), (8,)).to_array().tobytes() != same[0]


@pytest.mark.parametrize(
    ("channel_format", "checksum"),
    [(F.unorm8, 927723061), (F.unorm16, 2127923085), (F.float16, 1914185890), (F.float32, 3340207499)],
    ids=FORMAT_NAMES,
)
def test_the_bytes_are_the_same_on_every_machine(channel_format, checksum):
    array = sample_image(size((2, 9, 10, 7), channel_format), neurons(), (1, 2)).to_array()

    assert zlib.crc32(array.astype(array.dtype.newbyteorder("<")).tobytes()) == checksum


# ---- a request ----


@pytest.mark.parametrize("storage", FORMATS, ids=FORMAT_NAMES)
def test_what_a_perfect_device_writes_passes(tmp_path, storage, capsys):
    chain(storage).write(tmp_path / "graph.json")
    out = tmp_path / "out"

    assert main(["inputs", str(tmp_path / "graph.json"), "--shape", "2x16x16x4", "--out", str(out)]) == 0
    assert capsys.readouterr().out.startswith("wrote 2 sources, README.txt and ")
    assert main(["verify", str(out / "recording.json")]) == 2
    assert "No such file" in capsys.readouterr().err
    play_the_device(out / "recording.json")
    assert main(["verify", str(out / "recording.json"), "--ulp", "0"]) == 0
    report = verify(out / "recording.json")
    assert {image.name for image in report.images} >= {"h", "p", "y", "dx"}


@pytest.mark.parametrize("axis", [0, 1, 2, 3])
def test_a_device_that_exchanges_an_axis_is_found_out(tmp_path, axis):
    path = request(tmp_path / "out", chain(), (2, 16, 16, 4), F.float16)
    play_the_device(path, lambda name, array: np.roll(array, 1, axis) if name == "y" else array)

    report = verify(path)

    assert not report.passed
    assert next(image for image in report.images if image.name == "y").counts.beyond > 1000


def test_the_request_names_everything_and_tells_what_to_do(tmp_path):
    path = request(tmp_path / "my folder", chain(), (2, 4, 8, 4), F.float32, seed=3)

    entries = json.loads(path.read_text())["images"]
    readme = (tmp_path / "my folder" / "README.txt").read_text()
    assert entries["x"]["channel_format"] == "float32"
    assert entries["y"]["channel_format"] == "float16"
    assert entries["dx"] == {
        "file": "dx.f32", "channel_format": "float32", "width": 8, "height": 4, "feature_channels": 4,
        "number_of_images": 2, "data_layout": "HeightxWidthxFeatureChannels",
    }  # fmt: skip
    for name, entry in entries.items():
        (line,) = [line for line in readme.splitlines() if line.startswith(f'"{name}" ')]
        assert entry["file"] in line
        assert ("to be written" in line) == (name not in {"x", "dy"})
    for word in (
        "little-endian",
        "HeightxWidthxFeatureChannels",
        "swiftc",
        "mpsref verify",
        "- 2 images, one after",
    ):
        assert word in readme
    assert sorted(p.name for p in path.parent.iterdir()) == [
        "README.txt",
        "dy.f32",
        "graph.json",
        "recording.json",
        "x.f32",
    ]
    assert "seed 3" in Recording.read(path, complete=False).device


def test_the_forward_image_of_a_state_is_asked_for_and_what_no_result_needs_is_not(tmp_path):
    file = chain()
    document = file.to_json()
    document["nodes"].append({"class": "MPSCNNNeuronGeLUNode", "source": "z", "result": "unused"})
    document["results"] = ["dx"]

    path = request(tmp_path / "out", mps.GraphFile.from_json(document), (1, 4, 4, 4), F.float16)

    entries = json.loads(path.read_text())["images"]
    assert {"h", "p", "x", "dy"} <= set(entries)
    assert not {"unused", "z"} & set(entries)


def test_a_source_that_is_both_gradient_and_image_is_an_image(tmp_path):
    x = mps.MPSNNImageNode(handle="x")
    n = mps.MPSCNNNeuronTanHNode(source=x)
    g = n.gradient_filter(with_source=x)

    path = request(tmp_path / "out", mps.GraphFile.from_results([g.result_image]), (1, 64, 64, 16), F.float16)

    assert len(np.unique(np.fromfile(path.parent / "x.f16", "<u2"))) == 65_536


def test_a_source_that_only_comes_in_as_gradient_is_moderate(tmp_path):
    path = request(tmp_path / "out", chain(), (1, 64, 64, 4), F.float16)

    assert np.mean(np.abs(np.fromfile(path.parent / "dy.f16", "<f2")) >= 2**-8) > 0.98
    assert np.mean(np.abs(np.fromfile(path.parent / "x.f16", "<f2")) >= 2**-8) < 0.9


def test_names_that_differ_give_images_that_differ(tmp_path):
    x, z = mps.MPSNNImageNode(handle="x"), mps.MPSNNImageNode(handle="z")
    n = mps.MPSNNAdditionNode(left_source=x, right_source=z)

    path = request(tmp_path / "out", mps.GraphFile.from_results([n.result_image]), (1, 8, 8, 4), F.float16)

    assert np.mean(np.fromfile(path.parent / "x.f16", "<u2") == np.fromfile(path.parent / "z.f16", "<u2")) < 0.1


# ---- conversions ----

ARRAYS = st.dictionaries(
    st.text(st.characters(codec="utf-8", exclude_characters="\0\\"), min_size=1, max_size=12).filter(
        lambda name: name != "__metadata__" and not name.startswith("/") and ".." not in name
    ),
    st.sampled_from([s.dtype for s in FORMATS.values()]).flatmap(
        lambda dtype: npst.arrays(dtype, npst.array_shapes(min_dims=4, max_dims=4, max_side=4))
    ),
    min_size=1, max_size=4,
)  # fmt: skip


def same(one, other):
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype
        and one[name].shape == other[name].shape
        and one[name].tobytes() == other[name].tobytes()
        for name in one
    )


@pytest.mark.parametrize("ending", [".npz", ".safetensors"])
@settings(deadline=None, max_examples=40)
@given(arrays=ARRAYS)
def test_arrays_come_back_bit_for_bit(tmp_path_factory, ending, arrays):
    path = tmp_path_factory.mktemp("a") / f"f{ending}"

    write_images(path, {name: mps.MPSImage.from_array(array) for name, array in arrays.items()})

    assert same({name: image.to_array() for name, image in read_images(path).items()}, arrays)


@settings(deadline=None, max_examples=40)
@given(arrays=ARRAYS)
def test_numpy_reads_what_is_written_and_the_other_way_round(tmp_path_factory, arrays):
    folder = tmp_path_factory.mktemp("a")
    write_npz(folder / "ours.npz", arrays)
    with np.load(folder / "ours.npz", allow_pickle=False) as theirs:
        assert same({name: theirs[name] for name in theirs.files}, arrays)

    plain = {f"n{i}": array for i, array in enumerate(arrays.values())}
    for save in (np.savez, np.savez_compressed):
        save(folder / "theirs.npz", **plain)
        assert same(read_npz(folder / "theirs.npz"), plain)


@settings(deadline=None, max_examples=40)
@given(arrays=ARRAYS)
def test_the_safetensors_library_reads_what_is_written_and_the_other_way_round(tmp_path_factory, arrays):
    library = pytest.importorskip("safetensors.numpy")
    folder = tmp_path_factory.mktemp("a")
    write_safetensors(folder / "ours.safetensors", arrays)
    assert same(library.load_file(folder / "ours.safetensors"), arrays)

    library.save_file(arrays, folder / "theirs.safetensors", metadata={"made": "by the library"})
    assert same(read_safetensors(folder / "theirs.safetensors"), arrays)


def test_other_byte_orders_and_fortran_order_are_understood(tmp_path):
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    np.savez(tmp_path / "a.npz", big=array.astype(">f4"), fortran=np.asfortranarray(array))

    assert all(np.array_equal(found, array) for found in read_npz(tmp_path / "a.npz").values())
    assert all(found.dtype == np.float32 for found in read_npz(tmp_path / "a.npz").values())


@pytest.mark.parametrize("storage", FORMATS, ids=FORMAT_NAMES)
@pytest.mark.parametrize("raw", [[], ["--raw"]])
@pytest.mark.parametrize("ending", [".npz", ".safetensors"])
def test_a_recording_goes_through_every_kind_of_file(tmp_path, storage, raw, ending, capsys):
    path = request(tmp_path / "first", chain(storage), (2, 3, 5, 4), storage)
    play_the_device(path)
    file, second, third = tmp_path / f"all{ending}", tmp_path / "second", tmp_path / "third"

    assert main(["convert", str(path), "--out", str(file)]) == 0
    graph = ["--graph", str(tmp_path / "first" / "graph.json")]
    assert main(["convert", str(file), *graph, "--device", "a device", "--out", str(second), *raw]) == 0
    assert main(["convert", str(second / "recording.json"), "--out", str(third), "--raw"]) == 0
    assert main(["verify", str(third / "recording.json"), "--ulp", "0"]) == 0
    assert Recording.read(third / "recording.json").device == "a device"
    for image in path.parent.glob("*.[fu]*"):
        assert (third / image.name).read_bytes() == image.read_bytes()


def test_npy_and_raw_files_become_a_recording(tmp_path, graph, capsys):
    array = np.arange(60, dtype=np.float16).reshape(3, 5, 4)
    np.save(tmp_path / "x.npy", array)
    (tmp_path / "y.raw").write_bytes(array.tobytes())
    out = tmp_path / "out"
    shape = ["--shape", "3x5x4", "--channel-format", "float16"]

    status = main(
        [
            "convert",
            f"x={tmp_path / 'x.npy'}",
            f"y={tmp_path / 'y.raw'}",
            "--graph",
            str(graph),
            *shape,
            "--out",
            str(out),
        ]
    )

    assert status == 0
    assert np.array_equal(np.load(out / "x.npy")[0], array)
    assert np.array_equal(np.load(out / "y.npy")[0], array)


def test_what_is_not_there_yet_is_left_out_and_counted(tmp_path, capsys):
    path = request(tmp_path / "out", chain(), (1, 2, 2, 4), F.float16)

    assert main(["convert", str(path), "--out", str(tmp_path / "a.npz")]) == 0
    assert "wrote 2 images" in (said := capsys.readouterr().out)
    assert f"left out {len(Recording.read(path, complete=False).missing)} " in said
    assert set(read_npz(tmp_path / "a.npz")) == {"x", "dy"}


# ---- hostile files ----


def tensors(header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(dtype="F16", shape=(1, 1, 1, 2), offsets=(0, 4)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"", "cut short"),
        (b"\x01\x00", "cut short"),
        (tensors({"a": entry()}, bytes(4), length=2**63), "cut short"),
        (tensors({"a": entry()}, bytes(4), length=5), "Expecting"),
        (tensors({"a": entry()}, bytes(3)), "the file has 3"),
        (tensors({"a": entry()}, bytes(5)), "the file has 5"),
        (tensors({"a": entry(), "b": entry()}, bytes(4)), "begins at 0, not at 4"),
        (tensors({"a": entry(), "b": entry(offsets=(2, 6))}, bytes(6)), "begins at 2, not at 4"),
        (tensors({"a": entry(), "b": entry(offsets=(6, 10))}, bytes(10)), "begins at 6, not at 4"),
        (tensors({"a": entry(offsets=(4, 8))}, bytes(8)), "begins at 4, not at 0"),
        (tensors({"a": entry(offsets=(4, 0))}, bytes(4)), "data_offsets"),
        (tensors({"a": entry(shape=(1, 1, 1, 10**18), offsets=(0, 2 * 10**18))}), "the file has 0"),
        (tensors({"a": entry(shape=(2**32, 2**32, 1, 1))}, bytes(4)), "data_offsets"),
        (tensors({"a": entry(shape=(1, 1, 1, -2))}, bytes(4)), "shape"),
        (tensors({"a": entry(shape=(1, 1, 1, 2.0))}, bytes(4)), "shape"),
        (tensors({"a": entry(shape=(1, 1, True, 2))}, bytes(4)), "shape"),
        (tensors({"a": entry(shape=[1] * 9 + [2])}, bytes(4)), "shape"),
        (tensors({"a": entry(offsets=(0,))}, bytes(4)), "data_offsets"),
        (tensors({"a": entry(dtype="F64")}, bytes(4)), "dtype"),
        (tensors({"a": entry(dtype=["F16"])}, bytes(4)), "dtype"),
        (tensors({"a": entry() | {"more": 1}}, bytes(4)), "no more"),
        (tensors({"a": [1]}, bytes(4)), "dtype"),
        (tensors([1]), "object"),
        (tensors(b"not json"), "Expecting"),
        (tensors(b'{"a": {}, "a": {}}'), "twice"),
        (tensors(b'{"a": NaN}'), "NaN"),
        (tensors(b"[" * 100_000), "nested"),
        (tensors(b"\xff\xfe"), "utf-8"),
    ],
)
def test_a_hostile_safetensors_file_is_refused(tmp_path, data, word):
    (tmp_path / "a.safetensors").write_bytes(data)

    with pytest.raises(mps.FileFormatError, match=r"a\.safetensors: ") as error:
        read_safetensors(tmp_path / "a.safetensors")
    assert word in str(error.value)


def npy(array=None, header=None, data=b"", version=1):
    if header is None:
        out = io.BytesIO()
        np.save(out, np.zeros((1, 2, 2), np.float16) if array is None else array)
        return out.getvalue()
    length = struct.pack("<H" if version == 1 else "<I", len(header))
    return b"\x93NUMPY" + bytes([version, 0]) + length + header + data


def archive(path, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, data in members:
            file.writestr(name, data)
    return path


HEADER = b"{'descr': '<f2', 'fortran_order': False, 'shape': (%s), }\n"


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.txt", npy()),
        ("a.npy", b""),
        ("a.npy", b"\x93NUMPY"),
        ("a.npy", b"\x93NUMPY\x09\x00" + bytes(20)),
        ("a.npy", npy()[:-1]),
        ("a.npy", npy() + b"\0"),
        ("a.npy", npy(np.zeros((1, 1, 1)))),
        ("a.npy", npy(np.zeros((1, 1, 1), "U3"))),
        ("a.npy", npy(np.zeros((1, 1, 1), [("x", "f2")]))),
        ("a.npy", npy(header=HEADER % b"10**9,")),
        ("a.npy", npy(header=HEADER % b"1, 1, 1000000000000000000")),
        ("a.npy", npy(header=HEADER % b"4294967296, 4294967296, 1")),
        ("a.npy", npy(header=HEADER % b"-1, -1, 1", data=bytes(2))),
        ("a.npy", npy(header=b"x" * 20)),
        ("a.npy", npy(header=b"{" * 9000)),
        ("a.npy", npy(header=b" " * 20_000)),
        ("a.npy", b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + bytes(20)),
    ],
)
def test_a_hostile_member_of_an_npz_file_is_refused(tmp_path, name, data):
    path = archive(tmp_path / "a.npz", [(name, data)])

    with pytest.raises(mps.FileFormatError, match=r"a\.npz: ") as error:
        read_npz(path)
    assert "\n" not in str(error.value) or len(str(error.value)) < 1000


def test_a_pickle_is_never_read(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (tmp_path.joinpath("exploded").touch, ())

    array = np.empty((1, 1, 1), object)
    array[0, 0, 0] = Bomb()
    np.savez(tmp_path / "a.npz", a=array, allow_pickle=True)
    np.save(tmp_path / "a.npy", array, allow_pickle=True)

    for file in ("a.npz", "a.npy"):
        with pytest.raises(mps.FileFormatError):
            contents(tmp_path / file)
    assert not (tmp_path / "exploded").exists()


def test_a_zip_bomb_is_refused_before_anything_is_unpacked(tmp_path, monkeypatch):
    zeros = np.zeros((1, 1, MOST_INFLATED), np.uint8)
    np.savez_compressed(tmp_path / "a.npz", a=zeros, b=zeros)
    monkeypatch.setattr(zipfile.ZipFile, "open", None)

    assert (tmp_path / "a.npz").stat().st_size < 1_000_000
    with pytest.raises(mps.FileFormatError, match="unpack to"):
        read_npz(tmp_path / "a.npz")


def test_a_member_that_unpacks_to_more_than_it_says_is_cut_off(tmp_path):
    path = archive(tmp_path / "a.npz", [("a.npy", npy(np.zeros((1, 100, 100), np.uint8)))], zipfile.ZIP_DEFLATED)
    data = bytearray(path.read_bytes())
    directory = data.rindex(b"PK\x01\x02")
    small = npy(np.zeros((1, 10, 10), np.uint8))
    for place in (22, directory + 24):
        data[place : place + 4] = struct.pack("<I", len(small))
    path.write_bytes(data)

    with pytest.raises(mps.FileFormatError):
        read_npz(path)


def test_a_damaged_member_is_refused_by_its_checksum(tmp_path):
    path = archive(tmp_path / "a.npz", [("a.npy", npy(np.ones((1, 10, 10), np.uint8)))])
    data = bytearray(path.read_bytes())
    data[data.rindex(b"\x01\x01\x01\x01")] ^= 0xFF
    path.write_bytes(data)

    with pytest.raises(mps.FileFormatError, match="CRC"):
        read_npz(path)


def test_a_checksum_that_is_wrong_is_noticed_at_the_end_of_a_compressed_member(tmp_path):
    noise = sample_image(size((1, 64, 64, 16)), [], (1,)).to_array()
    path = archive(tmp_path / "a.npz", [("a.npy", npy(noise))], zipfile.ZIP_DEFLATED)
    data = bytearray(path.read_bytes())
    for place in (14, data.rindex(b"PK\x01\x02") + 16):
        data[place] ^= 1
    path.write_bytes(data)

    with pytest.raises(mps.FileFormatError, match="CRC"):
        read_npz(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_arrays_of_one_name_are_refused(tmp_path):
    with pytest.raises(mps.FileFormatError, match="one name"):
        read_npz(archive(tmp_path / "a.npz", [("a.npy", npy()), ("a.npy", npy())]))


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_no_damage_gives_anything_but_an_image_or_the_one_error(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("d")
    ending = data.draw(st.sampled_from([".npz", ".safetensors"]))
    path = folder / f"a{ending}"
    write_images(path, {"x": mps.MPSImage.from_array(np.ones((2, 3, 4), np.float16))})
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content)

    said = None
    try:
        read_images(path)
    except mps.FileFormatError as error:
        said = str(error)
    assert said is None or said.startswith(str(path))


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", "a\\x", "x\0"])
def test_names_that_would_lead_out_of_a_folder_are_not_written_into_an_archive(tmp_path, name):
    with pytest.raises(mps.FileFormatError, match="no name"):
        write_npz(tmp_path / "a.npz", {name: np.zeros((1, 1, 1, 1), np.float16)})
    assert list(tmp_path.iterdir()) == []


def test_the_reserved_name_of_safetensors_is_not_written(tmp_path):
    with pytest.raises(mps.FileFormatError, match="__metadata__"):
        write_safetensors(tmp_path / "a.safetensors", {"__metadata__": np.zeros((1, 1, 1, 1), np.float16)})


# ---- a look inside ----


def test_inspect_counts_every_kind_of_value(tmp_path):
    values = [np.nan, np.nan, np.inf, -np.inf, -np.inf, -np.inf, 0.0, 0.0, -0.0, 6e-8, -6e-8, 1.0, 2.0, 2.0, -4.0]
    array = np.array(values, np.float16).reshape(1, 3, 5)
    np.save(tmp_path / "a.npy", array)

    (facts,) = contents(tmp_path / "a.npy")["images"].values()

    assert facts == {
        "format": "float16", "number_of_images": 1, "height": 1, "width": 3, "feature_channels": 5, "min": -4.0,
        "max": 2.0, "mean": 1 / 9, "NaN": 2, "+inf": 1, "-inf": 3, "+0": 2, "-0": 1, "subnormal": 2, "distinct": 10,
    }  # fmt: skip


def test_inspect_of_codes_tells_what_they_mean(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[[0, 255, 255]]], np.uint8))

    (facts,) = contents(tmp_path / "a.npy")["images"].values()

    assert (facts["format"], facts["min"], facts["max"], facts["mean"]) == ("unorm8", 0, 1, 2 / 3)
    assert (facts["+0"], facts["distinct"], facts["subnormal"]) == (1, 2, 0)


def test_inspect_of_nothing_but_nan_has_no_mean(tmp_path, capsys):
    np.save(tmp_path / "a.npy", np.full((1, 1, 2), np.nan, np.float32))

    assert main(["inspect", str(tmp_path / "a.npy")]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[-10:-7] == ["none"] * 3
    assert main(["inspect", str(tmp_path / "a.npy"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["images"]["a"]["mean"] is None


def test_inspect_shows_a_recording_with_what_is_missing_and_the_graph(tmp_path, capsys):
    path = request(tmp_path / "out", chain(), (1, 2, 2, 4), F.float16)

    assert main(["inspect", str(path)]) == 0
    text = capsys.readouterr().out
    lines = [line.split() for line in text.splitlines()]
    assert ["missing", "y:", "y.f16"] in lines
    assert ["0", "MPSCNNNeuronReLUNNode", "x", "h"] in [line[:4] for line in lines]
    assert "a = 0.1, b = 2.5" in text
    assert max(map(len, text.splitlines())) <= 100
    assert "a_data = [0.1, 0.2, 0.3, 0.4]" in text
    assert "h: export_from_graph = true" in text
    assert sorted(line[0] for line in lines if line[1:2] == ["float16"] and line[0] != "storage") == ["dy", "x"]
    assert main(["inspect", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["images"]["x"]["role"] == "source"
    assert set(found["missing"]) | set(found["images"]) == set(chain().images)
    assert found["nodes"] == chain().to_json()["nodes"]


def test_inspect_of_a_graph_shows_every_node_with_class_parameters_and_names(graph, capsys):
    assert main(["inspect", str(graph)]) == 0
    text = capsys.readouterr().out

    for node in chain().nodes:
        assert type(node).__name__ in text
    assert "sources  x, dy" in text
    assert "(state of h)" in text
    assert "neuron_type = reLUN, a = 0.1, b = 2.5" in text


def test_columns_are_aligned_and_nothing_escapes(tmp_path):
    one = mps.MPSImage.from_array(np.zeros((1, 1, 1), np.float16))
    write_images(tmp_path / "a.npz", {"x\x1b[2J": one, "long name": one})

    lines = contents_text(contents(tmp_path / "a.npz")).splitlines()

    assert len({line.index("float16") for line in lines[1:]}) == 1
    assert len({len(line) for line in lines}) == 1
    assert "\\x1b[2J" in lines[1]
    assert all(line.isprintable() for line in lines)


# ---- exit statuses ----


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["inputs", "{graph}", "--out", "{out}"], ["--shape"]),
        (["inputs", "{graph}", "--shape", "4x4x4x4x4x4", "--out", "{out}"], ["--shape"]),
        (["inputs", "{graph}", "--shape", "4x4x3", "--out", "{out}"], ["3", "4", "graph"]),
        (["inputs", "{graph}", "--shape", "4x4x4", "--seed", "-1", "--out", "{out}"], ["seed"]),
        (["inputs", "{graph}", "--shape", "999999999x999999999x4", "--out", "{out}"], ["shape", "16777216"]),
        (["inputs", "{graph}", "--shape", "16777216x16777216x4", "--out", "{out}"], ["bytes"]),
        (["inputs", "{x}", "--shape", "4x4x4", "--out", "{out}"], ["x.npy"]),
        (["convert", "{x}", "--out", "{out}"], ["x.npy", "--graph"]),
        (["convert", "{graph}", "--out", "{out}.npz"], ["graph.json", "mpsref-recording"]),
        (["convert", "x={x}", "--graph", "{graph}", "--out", "{out}.npz"], ["--out", "folder"]),
        (["convert", "z={x}", "--graph", "{graph}", "--out", "{out}"], ["z", "no image of this name"]),
        (["convert", "x={x}", "x={x}", "--graph", "{graph}", "--out", "{out}"], ["x", "twice"]),
        (["convert", "{x}", "--graph", "{graph}", "--out", "{out}"], ["x.npy", ".safetensors"]),
        (["convert", "x={graph}", "--graph", "{graph}", "--out", "{out}"], ["--channel-format"]),
        (["convert", "nowhere.npz", "--graph", "{graph}", "--out", "{out}"], ["nowhere.npz"]),
        (["inspect", "nowhere.json"], ["nowhere.json"]),
        (["inspect", "{text}"], ["notes.txt", "JSON"]),
        (["inspect", "{other}"], ["other.json", "no recording"]),
    ],
)
def test_bad_usage_or_input_ends_with_2_and_one_line(tmp_path, graph, capsys, arguments, words):
    np.save(tmp_path / "x.npy", np.zeros((1, 1, 4), np.float16))
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "other.json").write_text("[1]")
    names = {"graph": graph, "out": tmp_path / "out", "x": tmp_path / "x.npy", "text": tmp_path / "notes.txt",
             "other": tmp_path / "other.json"}  # fmt: skip

    try:
        status = main([argument.format(**names) for argument in arguments])
    except SystemExit as stopped:
        status = stopped.code

    captured = capsys.readouterr()
    assert status == 2
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    for word in words:
        assert word in captured.err
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize("command", ["inputs", "convert"])
def test_nothing_is_written_into_a_folder_that_holds_something(tmp_path, graph, capsys, command):
    np.save(tmp_path / "x.npy", np.zeros((1, 1, 4), np.float16))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    rest = {"inputs": [str(graph), "--shape", "1x1x4"], "convert": [f"x={tmp_path / 'x.npy'}", "--graph", str(graph)]}

    assert main([command, *rest[command], "--out", str(tmp_path)]) == 2
    assert "not empty" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_other_commands_do_not_import_this_one():
    code = "import sys, mpsref.cli; print(*(m for m in sys.modules if m.startswith(('mpsref.record', 'safetensors'))))"

    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"


def test_an_awaited_image_only_gets_an_entry(tmp_path):
    x = mps.MPSImage.from_array(np.zeros((1, 1, 4), np.float16))
    path = write_recording(tmp_path / "r", chain(), {"x": x}, "none", awaited={"y": x.descriptor})

    assert json.loads(path.read_text())["images"]["x"] == {"file": "x.npy"}
    assert Recording.read(path, complete=False).missing == {"y": tmp_path / "r" / "y.f16"}
    with pytest.raises(mps.FileFormatError, match=r"y\.f16: No such file"):
        Recording.read(path)


def test_images_behind_layers_have_sizes_of_their_own(tmp_path):
    pooled = mps.MPSCNNPoolingMaxNode(source=mps.MPSNNImageNode(handle="x"), filter_size=2)
    pooled.result_image.handle, pooled.padding_policy = "y", mps.MPSNNDefaultPadding(0)
    (last,) = pooled.training_graph(with_source_gradient=mps.MPSNNImageNode(handle="dy"))
    last.result_image.handle = "dx"
    file = mps.GraphFile.from_results([pooled.result_image, last.result_image])

    entries = json.loads(request(tmp_path / "r", file, (1, 6, 4, 3), "float16").read_text())["images"]

    sizes = {name: (entry["height"], entry["width"], entry["feature_channels"]) for name, entry in entries.items()}
    assert sizes == {"x": (6, 4, 3), "dy": (3, 2, 3), "y": (3, 2, 3), "dx": (6, 4, 3)}
