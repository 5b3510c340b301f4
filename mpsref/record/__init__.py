"""
Recordings: their files, source images for tests, other file formats, and the contents of files.

Examples
--------
>>> import tempfile
>>> import mpsref as mps
>>> from mpsref.record import request
>>> x = mps.MPSNNImageNode(handle="x")
>>> n = mps.MPSCNNNeuronTanHNode(source=x)
>>> n.result_image.handle = "y"
>>> file = mps.GraphFile.from_results([n.result_image])
>>> with tempfile.TemporaryDirectory() as folder:
...     path = request(folder, file, (1, 64, 64, 16), mps.MPSImageFeatureChannelFormat.float16, seed=1)
...     sorted(entry.name for entry in path.parent.iterdir())
['README.txt', 'graph.json', 'recording.json', 'x.f16']
"""

from mpsref.record.contents import contents, contents_text
from mpsref.record.convert import read_images, write_images
from mpsref.record.recording import RecordedImage, Recording, read_npy, write_recording
from mpsref.record.request import request
from mpsref.record.samples import edges, sample_image

__all__ = [
    "RecordedImage",
    "Recording",
    "contents",
    "contents_text",
    "edges",
    "read_images",
    "read_npy",
    "request",
    "sample_image",
    "write_images",
    "write_recording",
]
