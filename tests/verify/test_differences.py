"""Images are compared block by block, and only what differs is kept."""

from __future__ import annotations

import numpy as np
import pytest

import mpsref as mps
from mpsref.arrays import Elements
from mpsref.storage import storage_of
from mpsref.verify import verify, write_recording
from mpsref.verify.differences import BLOCK, Deferred, Differences

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
