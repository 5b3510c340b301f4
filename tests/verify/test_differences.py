"""Images are compared block by block, and only what differs is kept."""

from __future__ import annotations

import numpy as np
import pytest

import mpsref as mps
from mpsref.arrays import Elements
from mpsref.operations import NeuronForward, NeuronGradient
from mpsref.record import RecordedImage
from mpsref.storage import storage_of
from mpsref.verify import verify, write_recording
from mpsref.verify.differences import BLOCK, Deferred, Differences, evaluated

HALF = storage_of(np.zeros(1, np.float16), "x")


def test_differences_are_found_in_every_block_and_give_the_reference_back():
    each = BLOCK // 2
    got = (np.arange(3 * each + 5) % 1000).astype(np.float16).reshape(1, 1, 1, -1)
    want, changed = got.copy(), np.array([0, each - 1, each, 3 * each + 4])
    want.reshape(-1)[changed] += 1024
    asked = np.array([each - 2, each - 1, 2 * each])

    found = Differences.between(got, want, HALF, asked)

    assert (found.size, found.index.tolist()) == (got.size, changed.tolist())
    assert [part.tolist() for part in found.sample] == [image.reshape(-1)[asked].tolist() for image in (got, want)]
    given = Deferred.of(Elements(got, HALF))
    assert found.wanted(given).elements().stored.tolist() == want.tolist()
    assert Differences.between(got, got, HALF).wanted(given) is given
    assert found.only(changed[1:3]).got.tolist() == got.reshape(-1)[changed[1:3]].tolist()


def test_what_was_got_and_wanted_at_some_elements_that_differ():
    got = np.arange(100, dtype=np.float16).reshape(1, 1, 1, -1)
    found = Differences.between(got, got * 2, HALF).only(np.arange(3, 90, 3))

    assert [part.tolist() for part in found.at(np.array([60, 3, 87]))] == [[60, 3, 87], [120, 6, 174]]


@pytest.mark.parametrize(("got", "want", "keeps"), [
    ([np.nan, 1], [np.nan, 2], True), ([np.nan, 1], [1, 1], False), ([1, 1], [np.nan, 1], False),
])  # fmt: skip
def test_nan_is_kept_where_both_hold_it(got, want, keeps):
    assert Differences.between(np.float16(got), np.float16(want), HALF).keeps_nan(np.array([0])).tolist() == [keeps]


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("name", ["float32", "float16"])
def test_an_image_that_is_right_is_never_held_as_a_whole(tmp_path, name, raw, monkeypatch):
    """Nor one of which many elements are neighbours of the reference."""
    storage = mps.MPSImageFeatureChannelFormat[name]
    x = np.random.default_rng(0).normal(size=(1, 64, 64, 160)).astype(name)
    node = mps.MPSCNNNeuronReLUNode(source=mps.MPSNNImageNode(handle="x"))
    node.result_image.format, node.result_image.handle = storage, "y"
    y = mps.neuron.forward(node.descriptor, x)
    y[0, 63, 1, 1] = np.nextafter(y.max(), y.dtype.type(9))
    y[..., 2::4] = np.nextafter(y[..., 2::4], y.dtype.type(9), where=y[..., 2::4] > 0, out=y[..., 2::4].copy())
    path = write_recording(
        tmp_path / "r", mps.GraphFile.from_results([node.result_image]), {"x": x, "y": y}, "", raw=raw
    )
    y[0, 63, 1, 1] = max(x[0, 63, 1, 1], 0)
    right = write_recording(
        tmp_path / "s", mps.GraphFile.from_results([node.result_image]), {"x": x, "y": y}, "", raw=raw
    )
    wrong = verify(path)
    assert [(each.y, each.x, each.channel, each.sources["x"]) for each in wrong.images[0].worst[:1]] == [
        (63, 1, 1, str(x[0, 63, 1, 1]))
    ]

    monkeypatch.setattr("mpsref.record.recording.RecordedImage.elements", lambda self: pytest.fail("read as a whole"))

    assert verify(right).verdict.startswith("PASS")


def test_what_an_operation_does_not_read_changes_nothing_and_a_copy_is_the_first_source():
    halves = np.arange(65_536, dtype=np.uint16).view(np.float16).reshape(1, 1, -1, 4)
    canonical, copies, unread = np.where(np.isnan(halves), np.float16(np.nan), halves), set(), set()
    for neuron_type, row in mps.NEURONS.items():
        for a in (1.0, 0.5):
            data = [a] * 4 if row.per_channel else None
            neuron = mps.MPSNNNeuronDescriptor(neuron_type, None if row.per_channel else a, data=data)
            for operation in (NeuronForward(neuron), NeuronGradient(neuron)):
                name = f"{operation.direction} of {neuron_type.name}, a = {a}"
                sources = [Elements(halves, HALF)] * len(operation.roles)
                if operation.is_copy:
                    copies.add(name)
                    made = operation.of_arrays(sources, HALF).stored
                    assert made.view(np.uint16).tolist() == canonical.view(np.uint16).tolist(), name
                if not all(operation.reads):
                    unread.add(name)
                    others = [sources[0], Elements(np.roll(halves, 777), HALF)]
                    made, same = (operation.of_arrays(each, HALF).stored for each in (sources, others))
                    assert made.view(np.uint16).tolist() == same.view(np.uint16).tolist(), name
    slopes = {f"gradient of {name}, a = {a}" for name in ("none", "linear") for a in (1.0, 0.5)}
    assert unread == slopes
    assert copies == slopes - {"gradient of linear, a = 0.5"} | {"forward of none, a = 1.0", "forward of none, a = 0.5"}


@pytest.mark.parametrize("name", ["float32", "float16"])
def test_nan_with_another_payload_is_a_difference_where_a_node_copies(name):
    x = np.ones((1, 1, 1, 9), name)
    x[..., 2], x[..., 5] = np.nan, np.nan
    x.view(f"u{x.itemsize}")[..., 5] += 1
    image = Deferred.of(Elements(x, storage_of(x, "x")))

    found = evaluated(NeuronForward(mps.MPSNNNeuronDescriptor("none")), [image], image.storage, image)

    assert found.index.tolist() == [5]


@pytest.mark.parametrize(("node", "ulp", "most"), [
    (mps.MPSCNNNeuronLinearNode, 0, 0), (mps.MPSCNNNeuronLinearNode, 1, 1), (mps.MPSCNNNeuronTanHNode, 0, 1),
])  # fmt: skip
def test_a_source_that_no_result_depends_on_is_read_only_for_evidence_of_a_store(
    tmp_path, monkeypatch, node, ulp, most
):
    x, dy = np.random.default_rng(0).normal(size=(2, 1, 96, 64, 160)).astype(np.float16)
    source, incoming = (mps.MPSNNImageNode(handle=handle) for handle in ("x", "dy"))
    forward = node(source=source)
    result = forward.gradient_filter(with_source=incoming).result_image
    result.handle = "dx"
    dx = mps.neuron.gradient(forward.descriptor, x, dy)
    dx.view(np.uint16)[..., ::9] += (np.abs(dx[..., ::9]) > 0.1).astype(np.uint16) * np.uint16(ulp)
    images = {"x": x, "dy": dy, "dx": dx}
    path = write_recording(tmp_path / "r", mps.GraphFile.from_results([result]), images, "", raw=True)
    read, filled = [], RecordedImage._filled

    def counted(self, bits, file):
        # Elements that are shown are read one by one.
        read.append(bits.nbytes * (self.path.name == "x.f16" and bits.size > 1))
        return filled(self, bits, file)

    monkeypatch.setattr(RecordedImage, "_filled", counted)

    report = verify(path)

    assert report.verdict.startswith("PASS")
    assert (report.images[0].directed is not None) == bool(ulp)
    assert most * x.nbytes <= sum(read) <= most * x.nbytes + BLOCK
