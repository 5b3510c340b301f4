"""Reading and writing of files that hold several images by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mpsref.arguments import checked
from mpsref.errors import FileFormatError, ImageError, naming
from mpsref.image import MPSImage
from mpsref.tensors import read_npz, read_safetensors, write_npz, write_safetensors

__all__ = ["ENDINGS", "read_images", "write_images"]

_READERS = {".npz": read_npz, ".safetensors": read_safetensors}
_WRITERS = {".npz": write_npz, ".safetensors": write_safetensors}

ENDINGS = tuple(_READERS)
"""Of files that hold several images."""


@checked
def read_images(path: str | Path) -> dict[str, MPSImage]:
    """
    Read the images of a ``.npz`` or ``.safetensors`` file, by name.

    Raises
    ------
    FileFormatError
        The file has another ending or is damaged, or an array is not an image.
    """
    path = Path(path)
    images = {}
    for name, array in _READERS[_ending(path)](path).items():
        with naming(f"{path}: {name}", ImageError):
            images[name] = MPSImage.from_array(array)
    return images


@checked
def write_images(path: str | Path, images: Mapping[str, MPSImage]) -> None:
    """
    Write images into a ``.npz`` or ``.safetensors`` file, each of shape (N, H, W, C), whole or not at all.

    Raises
    ------
    FileFormatError
        The file has another ending or cannot be written, or the format does not allow a name.
    """
    path = Path(path)
    _WRITERS[_ending(path)](path, {name: image.to_array() for name, image in images.items()})


def _ending(path: Path) -> str:
    ending = next((ending for ending in ENDINGS if path.name.endswith(ending)), None)
    if ending is None:
        raise FileFormatError(f"{path}: ends with {path.suffix!r}: name a file that ends with {' or '.join(ENDINGS)}")
    return ending
