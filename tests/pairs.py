"""
Two faults at two places of one image: each must be named, with its place, and nothing else.

``python tests/pairs.py`` prints what `mpsref.verify` says of each.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

import plants
from plants import F32, Draw, Plant, bfloat16, half

SHAPE = (2, 16, 20, 24)

FAULTS: dict[str, Callable[[Any, Any, Any, Any], Any]] = {
    "the sign flipped": lambda r, n, x, y: -y,
    "never written": lambda r, n, x, y: 0 * y,
    "lanes permuted": lambda r, n, x, y: y.reshape(*SHAPE[:3], -1, 4)[..., [3, 0, 1, 2]].reshape(SHAPE),
    "a constant factor": lambda r, n, x, y: y / 2,
    "rows and columns swapped": lambda r, n, x, y: y[:, ::-1],
    "stored through bfloat16": lambda r, n, x, y: bfloat16(y),
    "stored through half": lambda r, n, x, y: half(y),
    "another neuron": lambda r, n, x, y: r.value(("SoftSign", n[1]), x),
    "a parameter at its default": lambda r, n, x, y: r.value(n, x, n[1].but(b=1.0)),
    "the node was left out": lambda r, n, x, y: x,
    "pixel-major and channel-major confused": lambda r, n, x, y: np.stack(
        [i.transpose(2, 0, 1).reshape(i.shape) for i in y]
    ),
    "shifted": lambda r, n, x, y: np.roll(y, 1, axis=2),
}
PLACES: dict[str, tuple[Any, str, Any, str]] = {
    "channels": (np.s_[..., 4:8], "channels 4 to 7", np.s_[..., 12:20], "channels 12 to 19"),
    "images": (np.s_[0], "image 0", np.s_[1], "image 1"),
    "rows": (np.s_[:, 2:5], "rows 2 to 4", np.s_[:, 9:], "rows 9 to 15"),
    "box": (np.s_[:, :, 16:], "columns 16 to 19", np.s_[:, :7, :9], "rows 0 to 6, columns 0 to 8"),
    "lanes": (np.s_[..., 1::4], "lane 1 of every slice", np.s_[..., 2::4], "lane 2 of every slice"),
}
NAMES = {
    "lanes permuted": ("lanes permuted", "channels mapped otherwise"),
    "shifted": ("shifted", "wrong offset"),
}


def drawn(seed: int) -> tuple[Plant, dict[str, str]]:
    """A plant and the place of each of its faults."""
    r = Draw(seed, F32)
    one, two = r.rng.permutation(list(FAULTS))[:2].tolist()
    kind = str(r.rng.choice(list(PLACES)))
    first, first_name, second, second_name = PLACES[kind]
    neuron, x, y = r.forward("TanH", "SoftPlus", shape=SHAPE)
    y = r.store(y)
    out = y.copy()
    for fault, place in ((one, first), (two, second)):
        out[place] = FAULTS[fault](r, neuron, x, y)[place]
    return r.plant(neuron, x, out), {one: first_name, two: second_name}


def said(seed: int) -> tuple[str, dict[str, str], list[Any]]:
    """``both``, or what is not right; what was planted; and the findings."""
    plant, wanted = drawn(seed)
    (image,) = plants.reported(plant).images
    causes = [finding for finding in image.findings if finding.fits and finding.rank != "alternative"]
    named = [next((f for f in wanted if c.name in NAMES.get(f, (f,))), None) for c in causes]
    if None in named:
        return "wrong", wanted, list(image.findings)
    told = [wanted[fault] in cause.where for fault, cause in zip(named, causes, strict=True)]
    result = "both" if set(named) == set(wanted) and all(told) else "misplaced" if named else "none"
    return result, wanted, list(image.findings)


def main() -> None:
    first, last = map(int, sys.argv[1:])
    for seed in range(first, last):
        result, wanted, findings = said(seed)
        print(seed, result, wanted)
        for finding in findings:
            print("      ", finding.headline[:200], flush=True)


if __name__ == "__main__":
    main()
