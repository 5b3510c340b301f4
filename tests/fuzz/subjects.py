"""What is fuzzed: files of every kind that mpsref reads, how each is changed, and the commands that read it."""

from __future__ import annotations

import io
import json
import os
import re
import zipfile

import numpy as np

import mpsref as mps
from mpsref.record import write_images
from mpsref.sweep import sweep
from mpsref.testing.tolerances import Tolerances
from mpsref.verify import write_recording
from tests.fuzz import trees

Format = mps.MPSImageFeatureChannelFormat

SWEPT = mps.MPSNNNeuronDescriptor(mps.MPSCNNNeuronType.hardSigmoid)

TOLERANCE = """\
bounds = "metal-precise"

[[override]]
neuron = "tanH"
direction = "forward"
atol = 1e-6

[[override]]
image = "y"
format = "float16"
bounds = "ulp=16"  # of y

[[override]]
ulp = 3
rtol = 0.25
"""

TOLERANCES = {
    "format": "mpsref-tolerances",
    "version": 1,
    "default": {"ulp": 4},
    "tests": {"test_[a-z]*": {"bounds": "metal-fast"}, "*": {"rtol": 1e-3, "atol": 1e-6}},
}


def write_valid(folder):
    """Valid files of every kind, small ones."""
    x, dy = mps.MPSNNImageNode(handle="x"), mps.MPSNNImageNode(handle="dy")
    h = mps.MPSCNNNeuronTanHNode(source=x, a=1.5)
    p = mps.MPSCNNNeuronPReLUNode(source=h.result_image, a_data=[0.25, 0.5])
    y = mps.MPSNNAdditionNode(left_source=p.result_image, right_source=x)
    y.primary_scale = 0.5
    h.result_image.handle, p.result_image.handle, y.result_image.handle = "h", "p", "y"
    y.label = "a sum"
    ends = y.training_graph(with_source_gradient=dy)
    results = [y.result_image, *(node.result_image for node in ends)]
    file = mps.GraphFile.from_results(results, Format.float16)
    graph = mps.MPSNNGraph(result_images=list(file.images.values()), format=file.storage)
    source = mps.MPSImage.from_array(np.linspace(-2, 2, 12).reshape(1, 2, 3, 2), Format.float16)
    rest = []
    first = graph.encode(source_images=[source, source], intermediate_images=rest)
    images = dict(zip(file.images, [first, *rest], strict=True)) | {"x": source, "dy": source}
    path = write_recording(folder, file, images, "a device")
    document = json.loads(path.read_text())
    stored = images["y"].to_array()
    stored.reshape(-1)[3] += 1
    stored.tofile(folder / "y.f16")
    document["images"]["y"] = {
        "file": "y.f16", "channel_format": "float16", "width": 3, "height": 2, "feature_channels": 2,
        "number_of_images": 1, "data_layout": "HeightxWidthxFeatureChannels",
    }  # fmt: skip
    path.write_text(json.dumps(document))
    write_images(folder / "a.npz", {"x": source, "y": images["y"]})
    write_images(folder / "a.safetensors", {"x": source, "y": images["y"]})
    (folder / "tolerance.toml").write_text(TOLERANCE)
    (folder / "tolerances.json").write_text(json.dumps(TOLERANCES))
    for i in (1, 2):
        one = sweep(np.abs, SWEPT, format=Format.unorm8,
                    shard=(i, 2), packages=["numpy"])  # fmt: skip
        one.write(folder / f"sweep{i}.json")


# ---- commands ----


def read_tolerances(path):
    """Read a file of tolerances as the plugin of pytest does; like a command, it ends with a status."""
    return lambda: Tolerances.read(path).of("test_a") and 0


def go_on_with_sweep(path):
    """Go on from a checkpoint as ``mpsref sweep`` does, but without a process of its own for the implementation."""
    return lambda: sweep(np.abs, SWEPT, format=Format.unorm8, checkpoint=path) and 0


SOURCES = ["--source", "x={0}/x.npy", "--source", "dy={0}/x.npy"]
VERIFY = ["verify", "{0}/recording.json"]
RUN = ["run", "{0}/graph.json", *SOURCES, "--out", "{0}/out"]

COMMANDS = {
    "graph.json": [
        ["inspect", "{0}/graph.json"],
        ["inspect", "{0}/graph.json", "--json"],
        [*RUN, "--all"],
        ["inputs", "{0}/graph.json", "--shape", "2x2x2", "--out", "{0}/out"],
        ["explain", "{0}/graph.json", "--html", "{0}/out.html"],
        VERIFY,
    ],
    "recording.json": [
        VERIFY,
        [*VERIFY, "--no-faults", "--html", "{0}/out.html", "--json", "{0}/out.json", "--junit", "{0}/out.xml"],
        ["inspect", "{0}/recording.json"],
        ["convert", "{0}/recording.json", "--out", "{0}/out.npz"],
        ["convert", "{0}/recording.json", "--out", "{0}/out"],
    ],
    "x.npy": [VERIFY, RUN, ["inspect", "{0}/x.npy"]],
    "y.f16": [VERIFY, ["inspect", "{0}/recording.json"]],
    "a.npz": [["inspect", "{0}/a.npz"], ["convert", "{0}/a.npz", "--graph", "{0}/graph.json", "--out", "{0}/out"]],
    "a.safetensors": [
        ["inspect", "{0}/a.safetensors"],
        ["convert", "{0}/a.safetensors", "--graph", "{0}/graph.json", "--out", "{0}/out"],
    ],
    "tolerance.toml": [[*VERIFY, "--tolerance", "{0}/tolerance.toml"]],
    "tolerances.json": [read_tolerances],
    "sweep1.json": [
        ["merge", "{0}/sweep1.json", "{0}/sweep2.json"],
        go_on_with_sweep,
    ],
}
"""By the file that is changed."""


# ---- changes ----


def change(random, name, data):
    """Change the content of a file, by what it is and as bytes."""
    if random.random() < 0.2:
        return changed_bytes(random, data)
    kind = name.rpartition(".")[2]
    if kind in {"f16", "npy"} and random.random() < 0.3:
        at = random.randrange(len(data) - 24, len(data) - 1)
        return data[:at] + random.randbytes(2) + data[at + 2 :]
    data = {"json": _json, "toml": _toml, "npy": _npy, "npz": _npz, "safetensors": _safetensors}.get(
        kind, changed_bytes
    )(random, data)
    return changed_bytes(random, data) if random.random() < 0.1 else data


def changed_bytes(random, data):
    """Change bytes."""
    for _ in range(random.choice([1, 1, 2, 5])):
        at, to = sorted(random.randrange(len(data) + 1) for _ in range(2))
        to = min(to, at + random.choice([1, 4, 100]))
        action = random.randrange(9)
        if action == 0:
            data = data[:at]
        elif action == 1:
            data = data[:at] + random.randbytes(to - at) + data[to:]
        elif action == 2:
            data = data[:at] + data[to:]
        elif action == 3:
            data = data[:to] + data[at:to] * random.choice([1, 2, 1000]) + data[to:]
        elif action == 4:
            data = data[:at] + random.choice([b"\0", b"\xff", b"\n", b"\r", b'"', b"[", b"{", b",", b"\\"]) + data[at:]
        elif action == 5:
            digits = [match.span() for match in re.finditer(rb"[0-9]+", data)]
            if digits:
                at, to = random.choice(digits)
                new = ["\u0663", "1.0", "1e3", "-1", "99999999999999999999", "1_0", "0", "\uff11"]
                data = data[:at] + random.choice(new).encode() + data[to:]
        elif action == 6:
            data = random.choice([b"\xef\xbb\xbf" + data, data.replace(b"\n", b"\r\n"), data.upper(), b"", data * 2])
        elif action == 7:
            data = data[:at] + bytes([data[at] ^ 1 << random.randrange(8)]) + data[at + 1 :] if at < len(data) else data
        else:
            data = data[:at] + random.choice([b'"', b"[", b"(", b"{", b"a."]) * random.choice([10, 5000]) + data[at:]
    return data


def _json(random, data):
    node = trees.tree(json.loads(data))
    for _ in range(random.choice([1, 1, 1, 2, 3])):
        node = trees.changed(random, node)
    return trees.text(node).encode("utf-8", "surrogatepass")


def _toml(random, data):
    lines = data.decode().splitlines()
    size = random.choice([1, 10, 1000, 15_000])
    for _ in range(random.choice([1, 1, 2, 4])):
        new = random.choice(
            ["[[override]]", "[override]", "[a.b]", "[[a]]", "ulp = 1.0", "ulp = 4e0", "ulp = 0x" + "f" * size,
             "ulp = " + "9" * size, "rtol = nan", "atol = inf", "rtol = -0.0", "atol = 1e308", "atol = \u0663",
             "bounds = 'ulp=\u0663'", "bounds = 'ulp=99999999999999999999'", "image = 1979-05-27T07:32:00Z",
             "image = '''" + "'" * size, 'image = """' + '\\"' * size, "x = " + "[" * size + "]" * size,
             "x = " + "{a=" * size, "a." * size + "b = 1", "'a'." * size + "b = 1", '"a" . ' * size + "b = 1",
             "image = 'y'", "neuron = 'tanH'", "format = 'bfloat16'", "[" + "a." * size + "a]", "# " + "a." * size,
             "\n".join(f"[a{i}]" for i in range(size)), "[[override]]\nulp = 1\n" * size,
             "override = [" + "{ulp = 1}," * size + "]", "bounds = '" + "x" * size + "'"]
        )  # fmt: skip
        at = random.randrange(len(lines) + 1)
        lines[at : at + random.choice([0, 1])] = [new]
    return "\n".join(lines).encode()


def _npy(random, data):
    length = int.from_bytes(data[8:10], "little")
    header, rest = data[10 : 10 + length].decode("latin-1"), data[10 + length :]
    size = random.choice([1, 40, 3000])
    for _ in range(random.choice([1, 1, 2])):
        pattern, new = random.choice(
            [(r"'<f2'", ["'>f2'", "'<f4'", "'<f8'", "'|u1'", "'<u2'", "'|O'", "'<U3'", "'|V8'", "'a3'", "'<f3'", "'f2'",
                         "'<M8[ns]'", "[('x', '<f2')]", "'<f2 '", "None", '"<f2"', "'='"]),
             (r"\(.*\)", ["(2, 3, 2)", "(2L, 3L, 2L)", "()", "(12,)", "(12)", "(-1, 3, 2)", "(1, 1e3, 1)",
                          "(1, 2, 3, 2" + ", 1" * size + ")", "(True, 3, 2)", "(0, 3, 2)", "(99999999999, 99999999999)",
                          "(2, 3, 2, )",
                          "(" + "9" * size + ", 1, 1)", "(\uff12, 3, 2)", "(0x2, 3, 2)", "(2 3 2)", "(" * size]),
             ("False", ["True", "0", "None", "False, 'more': 1", "false"]),
             ("descr", ["dtype", "shape", "d\\x65scr", ""]),
             (r"\}", ["", ", }", "} ", "}#", "} + 1", " " * size + "}"])]
        )  # fmt: skip
        header = re.sub(pattern, lambda _, new=new: random.choice(new), header, count=1)
    encoded = header.encode("utf-8")
    length = random.choice([len(encoded)] * 8 + [0, max(len(encoded) - 1, 0), 65_535])
    magic = random.choice([b"\x93NUMPY"] * 9 + [b"PK\3\4xx"])
    version = random.choice([b"\1\0"] * 6 + [b"\2\0", b"\3\0", b"\4\0", b"\1\1"])
    width = 2 if version[:1] == b"\1" else 4
    return magic + version + length.to_bytes(width, "little") + encoded + random.choice([rest] * 6 + [rest[:-1], b""])


def _npz(random, data):
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    for _ in range(random.choice([1, 1, 2])):
        i = random.randrange(len(members))
        name, content = members[i]
        action = random.randrange(4)
        if action == 0:
            members[i] = name, _npy(random, content)
        elif action == 1:
            names = [".npy", "x", "../x.npy", "/x.npy", "\u00e9.npy", "a" * 3000 + ".npy", "x.npy.npy", "x\ny.npy"]
            members[i] = random.choice(names), content
        elif action == 2:
            members.append((random.choice(["z.npy", "z2.npy"]), content + bytes(random.choice([0, 1, 10**6]))))
        else:
            members += [(f"{k}.npy", content) for k in range(random.choice([1, 300]))]
    method = random.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, content in dict(members).items():
            archive.writestr(zipfile.ZipInfo(name), content, method)  # without the time of day
    return out.getvalue()


def _safetensors(random, data):
    length = int.from_bytes(data[:8], "little")
    header, rest = _json(random, data[8 : 8 + length]), data[8 + length :]
    length = random.choice([len(header)] * 8 + [0, max(len(header) - 1, 0), len(header) + 1, 2**63, 2**40])
    return length.to_bytes(8, "little") + header + random.choice([rest] * 6 + [rest[:-1], rest + b"\0"])


def change_file(random, path):
    """Put something else in place of a file."""
    other = path.with_name("elsewhere")
    path.rename(other)
    action = random.randrange(9)
    if action == 0:
        path.symlink_to(path.name)
    elif action == 1:
        path.symlink_to(other.name)
    elif action == 2:
        path.symlink_to("/etc/hostname")
    elif action == 3:
        path.symlink_to("/dev/zero")
    elif action == 4:
        path.mkdir()
    elif action == 5:
        os.mkfifo(path)
    elif action == 6:
        path.write_bytes(b"")
    elif action == 7:
        with path.open("wb") as file:
            file.truncate(random.choice([1, 10**6, 2**26 + 1, 2**33]))
    # else it is missing
