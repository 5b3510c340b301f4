"""What a file is judged by, what it may cost, and that whatever is written can be read."""

from __future__ import annotations

import itertools
import json
import os
import random
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import mpsref as mps
from mpsref import documents
from mpsref.cli import main
from mpsref.record import Recording, read_images, read_npy, request, write_images, write_recording
from mpsref.record.recording import recording_entries
from mpsref.sweep import SweepReport, sweep
from mpsref.verify import Aggregate, Override, Tolerance, Tolerances, aggregate, verify

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.fuzz.subjects import write_valid

Format = mps.MPSImageFeatureChannelFormat
ONE = mps.MPSImage.from_array(np.float16([[[0.5, 2]]]))


@pytest.fixture
def valid(tmp_path):
    write_valid(tmp_path / "valid")
    return tmp_path / "valid"


def edit(path, change):
    document = json.loads(path.read_text("utf-8"))
    change(document)
    path.write_text(json.dumps(document), "utf-8")


def graph_of(handle="y", label=None):
    node = mps.MPSCNNNeuronAbsoluteNode(source=mps.MPSNNImageNode(handle="x"))
    node.result_image.handle, node.label = handle, label
    return mps.GraphFile.from_results([node.result_image])


# ---- names ----


@pytest.mark.parametrize("name", [".npy", "a.npy", "\udcff.npy", "x.f16.npy"])
def test_a_name_that_ends_with_npy_is_an_array_wherever_a_link_leads(valid, name):
    (valid / "x.npy").rename(valid / "stored.f16")
    (valid / name).symlink_to("stored.f16")
    edit(valid / "recording.json", lambda d: d["images"]["x"].update(file=name))

    assert "y" in Recording.read(valid / "recording.json").images
    assert len(verify(valid / "recording.json").images) > 5


@pytest.mark.parametrize("name", ["y.npy\n", "y.NPY", "npy", "link"])
def test_another_name_is_raw_elements_wherever_a_link_leads(valid, name):
    (valid / "y.f16").rename(valid / "y.npy")
    (valid / name).symlink_to("y.npy")
    edit(valid / "recording.json", lambda d: d["images"]["y"].update(file=name))
    assert not verify(valid / "recording.json").passed

    edit(valid / "recording.json", lambda d: d["images"]["y"].pop("width"))

    with pytest.raises(mps.FileFormatError, match=r"images\.y\.width: missing"):
        Recording.read(valid / "recording.json")


@pytest.mark.parametrize("name", ["x.npy", "y.f16"])
@pytest.mark.parametrize("what", ["outside", "loop", "pipe", "folder"])
def test_what_is_put_in_the_place_of_a_file_after_the_check_is_judged_again(valid, name, what):
    entry = Recording.read(valid / "recording.json").images[name[0]]
    path = valid / name
    path.rename(valid.parent / "elsewhere")
    if what == "outside":
        path.symlink_to(valid.parent / "elsewhere")
    elif what == "loop":
        path.symlink_to(name)
    elif what == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()

    reasons = {"outside": "outside", "loop": "Too many levels", "pipe": "not a regular file", "folder": "is a folder"}
    with pytest.raises(mps.FileFormatError, match=reasons[what]):
        entry.read()


def test_many_names_that_give_one_file_name_are_told_apart_in_linear_time():
    names = ["\u00e9" * 20 + chr(0x4E00 + i // 200) + chr(0x4E00 + i % 200) for i in range(40_000)]
    began = time.process_time()

    entries = recording_entries(dict.fromkeys(names, ONE), {}, raw=False)

    assert time.process_time() - began < 2
    assert len({entry["file"].lower() for entry in entries.values()}) == len(names)
    few = recording_entries(dict.fromkeys(["A_B", "a?b", "a_b-2", "a*b", "\u00e9", "\u00e8"], ONE), {}, raw=False)
    assert [e["file"] for e in few.values()] == [
        "A_B.npy", "a_b-2.npy", "a_b-2-2.npy", "a_b-3.npy", "_.npy", "_-2.npy"]  # fmt: skip


# ---- numbers ----


@pytest.mark.parametrize("text", ["3.0", "3e0", "30e-1"])
def test_an_integer_may_be_spelled_as_a_float(valid, text):
    path = valid / "recording.json"
    path.write_text(path.read_text("utf-8").replace('"width": 3', f'"width": {text}'), "utf-8")

    assert type(Recording.read(path).images["y"].descriptor.width) is int
    assert verify(path).images


def test_counts_that_are_spelled_as_floats_are_counts(valid):
    path = valid / "sweep1.json"
    plain = SweepReport.read(path)
    edit(path, lambda d: d.update(ulp=0.0, largest=float(d["largest"]), ranges=[[0.0, 128.0]]))

    assert SweepReport.read(path) == plain
    assert SweepReport.read(path).text() == plain.text()


@pytest.mark.parametrize(
    ("parameters", "word"),
    [
        ({"a": "0x1p+99999"}, "parameters.a"),
        ({"format": "0x1p+0"}, "format"),
        ({"a": "0x1p+0\n"}, "parameters.a"),
        ({"a": "0x1p+\u0663"}, "parameters.a"),
        ({"data": "0x1p+0"}, "data"),
    ],
)
def test_parameters_of_a_sweep_that_no_neuron_has_are_refused(valid, parameters, word):
    edit(valid / "sweep1.json", lambda d: d.update(parameters=parameters))

    with pytest.raises(mps.FileFormatError, match=word):
        SweepReport.read(valid / "sweep1.json")


def test_a_package_needs_a_name_that_a_report_can_hold():
    d = mps.MPSNNNeuronDescriptor(mps.MPSCNNNeuronType.absolute)

    for packages in ([""], ["x" * 1000], ["numpy"] * 100):
        with pytest.raises(mps.ParameterError, match="packages: give"):
            sweep(np.abs, d, format=Format.unorm8, packages=packages)
    report = sweep(np.abs, d, format=Format.unorm8, packages=["sources", "no such package"])
    (made_by,) = report.summary.made_by
    assert len(json.loads(made_by)["software"]["sources"]) == 64


@pytest.mark.parametrize("text", ["\u0663", "1_0", "\uff11", "1" * 30])
def test_digits_of_other_scripts_are_no_numbers(valid, capsys, text):
    for options in (["--ulp", text], ["--worst", text], ["--bounds", f"ulp={text}"]):
        try:
            status = main(["verify", str(valid / "recording.json"), *options])
        except SystemExit as end:
            status = end.code
        assert status == 2
        assert capsys.readouterr().err.count("\n") == 1


# ---- arrays ----


def npy(header):
    return b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header.encode("latin-1") + bytes(12)


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f2', 'fortran_order': False, 'shape': (1, 2, 3), }\n",
        "{'descr': '<f2', 'fortran_order': False, 'shape': (1L, 2L, 3L), }\n",
        '{"shape": (1,2,3), "fortran_order": False, "descr": "<f2"}',
        "  { 'fortran_order' : True , 'descr':'<f2','shape':(1,2,3,) }  ",
    ],
)
def test_headers_of_other_programs_are_read_without_a_warning(tmp_path, header):
    (tmp_path / "a.npy").write_bytes(npy(header))

    assert read_npy(tmp_path / "a.npy").to_array().shape == (1, 1, 2, 3)


@pytest.mark.parametrize(
    "change",
    [
        ("'<f2'", "'a3'"), ("'<f2'", "'|O'"), ("'<f2'", "'<f3'"), ("'<f2'", "[('x', '<f2')]"), ("'<f2'", "'<M8[ns]'"),
        ("'<f2'", "'\\x66\\x32'"), ("False", "0"), ("False", "not True"), ("(1, 2, 3)", "(1, 2, 3)[:]"),
        ("(1, 2, 3)", "(1, 2, 0x3)"), ("(1, 2, 3)", "(1, 2, -3)"), ("(1, 2, 3)", "(1, 2, \xb3)"), ("}", ""),
        ("}", "} + {}"), ("(1, 2, 3)", "(1, 2, 3)," * 100), ("'shape'", "'shape', 'descr'"), ("{", "[{"),
    ],
)  # fmt: skip
def test_headers_that_are_more_than_a_description_are_refused_without_a_warning(tmp_path, change):
    (tmp_path / "a.npy").write_bytes(
        npy("{'descr': '<f2', 'fortran_order': False, 'shape': (1, 2, 3), }".replace(*change))
    )

    with pytest.raises(mps.FileFormatError, match=r"a\.npy: no \.npy array of numbers"):
        read_npy(tmp_path / "a.npy")


def test_an_error_that_quotes_much_is_cut():
    error = mps.FileFormatError("first " + "x" * 10**6 + " last")

    assert len(str(error)) <= 2000
    assert str(error).startswith("first x")
    assert str(error).endswith("x last")
    assert str(type(error)(str(error))) == str(error)


# ---- what is written ----


@pytest.mark.parametrize(
    ("graph", "word"),
    [
        (lambda: graph_of(handle="n" * 1001), r"nodes\[0\]\.result"),
        (lambda: graph_of(label="n" * 10_001), r"nodes\[0\]\.label"),
        (lambda: graph_of(label=7), r"nodes\[0\]\.label"),
        (lambda: mps.GraphFile.from_results([]), "results"),
    ],
)
def test_a_graph_that_could_not_be_read_is_not_written(tmp_path, graph, word):
    try:
        file = graph()
    except mps.MPSRefError:
        return  # which is earlier still

    with pytest.raises(mps.FileFormatError, match=rf"graph\.json: {word}"):
        file.write(tmp_path / "graph.json")
    with pytest.raises(mps.FileFormatError, match=rf"graph\.json: {word}"):
        write_recording(tmp_path / "r", file, {}, "none")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("limit", ["LARGEST_DOCUMENT", "MOST_VALUES"])
def test_a_document_that_is_too_large_to_be_read_is_not_written(tmp_path, monkeypatch, limit):
    file = graph_of()
    monkeypatch.setattr(documents, limit, 5)

    with pytest.raises(mps.FileFormatError, match=r"graph\.json: has .* bytes"):
        file.write(tmp_path / "graph.json")
    with pytest.raises(mps.FileFormatError, match=r"a\.safetensors: the header has .* bytes"):
        write_images(tmp_path / "a.safetensors", {"x": ONE, "y": ONE})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("images", "device", "word"),
    [
        ({"x": ONE}, "d" * 10_001, "device"),
        ({"x": ONE, "z": ONE}, "d", r"images\.z: the graph has no image"),
        ({"x": mps.MPSImage.from_array(np.zeros((1, 2**24 + 1, 1), np.uint8))}, "d", r"images\.x\.width"),
    ],
)
def test_a_recording_that_could_not_be_read_is_not_begun(tmp_path, images, device, word):
    with pytest.raises(mps.FileFormatError, match=word):
        write_recording(tmp_path / "r", graph_of(), images, device, raw=True)

    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ending", ["npz", "safetensors"])
@pytest.mark.parametrize("name", ["\ud800", "n" * 1001])
def test_names_that_no_file_of_arrays_gives_back_are_refused(tmp_path, ending, name):
    with pytest.raises(mps.FileFormatError, match="give a name of at most 1000"):
        write_images(tmp_path / f"a.{ending}", {name: ONE})

    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ending", ["npz", "safetensors"])
def test_names_of_all_kinds_come_back(tmp_path, ending):
    names = ["", ".npy", "a.npy", "a", "a/b", "\u00e9", "\u4e00" * 1000, "a\nb", " ", "C:", "a,[{"]
    write_images(tmp_path / f"a.{ending}", dict.fromkeys(names, ONE))

    assert sorted(read_images(tmp_path / f"a.{ending}")) == sorted(names)


def test_a_request_for_more_than_a_recording_can_say_writes_nothing(tmp_path):
    with pytest.raises(mps.FileFormatError, match="shape: is 16777217: give 1 to 16777216"):
        request(tmp_path / "r", graph_of(), (1, 1, 2**24 + 1, 1), Format.unorm8)

    assert not list(tmp_path.iterdir())


def test_a_folder_whose_name_is_not_utf8_gets_a_recording(tmp_path, capsys):
    folder = tmp_path / "\udcff"
    path = request(folder, graph_of(), (1, 2, 2, 2), Format.float16)

    assert b"recording.json      what is there" in (folder / "README.txt").read_bytes()
    assert main(["inspect", str(path)]) == 0
    assert capsys.readouterr().err == ""


def test_names_that_are_made_can_be_read(tmp_path):
    images = [mps.MPSNNImageNode(handle="x"), mps.MPSNNImageNode(handle="n" * 1000)]
    for image in images:
        for _ in range(1200):
            node = mps.MPSCNNNeuronTanHNode(source=image)
            image = node.gradient_filter(with_source=images[0]).result_image  # noqa: PLW2901
        file = mps.GraphFile.from_results([image])
        file.write(tmp_path / "graph.json")

        assert list(mps.GraphFile.read(tmp_path / "graph.json").results) == list(file.results)


# ---- many ----


def test_of_many_overrides_the_last_that_fits_decides():
    rng = random.Random(1)
    choices = {"image": ["x", "y", None], "neuron": ["tanH", None], "format": ["float16", "float32", None],
               "direction": ["forward", None]}  # fmt: skip
    for count in range(40):
        overrides = tuple(
            Override(Tolerance(ulp=i), **{name: rng.choice(values) for name, values in choices.items()})
            for i in range(count)
        )
        for facts in itertools.product(["x", "z"], ["tanH", None], ["float16", "unorm8"], ["forward", "gradient"]):
            named = dict(zip(choices, facts, strict=True))
            fitting = [o.limit for o in overrides if o.fits(**named)]

            assert Tolerances(Tolerance(ulp=99), overrides).of(**named) == (fitting or [Tolerance(ulp=99)])[-1]


def test_a_page_keeps_pictures_of_what_is_worst_within_its_memory(tmp_path, monkeypatch):
    image, images = mps.MPSNNImageNode(handle="h0"), {"h0": ONE}
    for i in range(1, 30):
        image = mps.MPSCNNNeuronAbsoluteNode(source=image).result_image
        image.handle = f"h{i}"
        images[image.handle] = ONE
    for name in ("h4", "h12", "h15"):
        images[name] = mps.MPSImage.from_array(np.float16([[[0.5, 3]]]))
    path = write_recording(tmp_path / "r", mps.GraphFile.from_results([image]), images, "none")
    whole, small = Aggregate(), Aggregate()
    report = verify(path, collect=whole)
    wrong = [image.name for image in report.images if not image.passed]
    monkeypatch.setattr(aggregate, "MOST_BYTES", 8 * whole.pictures["h1"].nbytes)

    verify(path, collect=small)

    assert len(whole.pictures) == 29
    assert wrong == ["h4", "h5", "h12", "h13", "h15", "h16"]
    assert {"h1", *wrong} <= set(small.pictures)
    assert len(small.pictures) <= 9
    assert sum(picture.nbytes for picture in small.pictures.values()) <= 1.2 * aggregate.MOST_BYTES
