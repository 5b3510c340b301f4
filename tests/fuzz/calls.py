# ruff: noqa: E501  tables
"""Every public name called with wrong arguments: what the calls are, and what must come of them."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import random
import signal
import traceback
import types
from collections import UserString
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import EnumMeta
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import Phase, find, settings
from hypothesis import strategies as st

import mpsref as mps
from mpsref import arguments, proof, record, sweep, teach, testing, verify
from mpsref.attributes import Setting
from mpsref.errors import MPSRefError
from mpsref.operations.padding import PaddedKernel
from mpsref.storage import FORMATS
from mpsref.teach.step import Window
from mpsref.testing import strategies

MODULES = ("", ".neuron", ".verify", ".record", ".testing", ".testing.strategies", ".teach", ".sweep", ".proof")
F, T = mps.MPSImageFeatureChannelFormat, mps.MPSCNNNeuronType
PATIENCE = 20


class Boom(Exception):  # noqa: N818  no error of ours, and of no builtin kind that ours have
    """Raised by an object that was handed over."""


def _boom(*_args: Any, **_arguments: Any) -> Any:
    raise Boom


class Explosive:
    """Raises whatever is asked of it."""

    __len__ = __getitem__ = __iter__ = __eq__ = __str__ = __repr__ = __bool__ = __index__ = __float__ = _boom
    __int__ = __array__ = __fspath__ = __call__ = __lt__ = __contains__ = __format__ = label = _boom
    __hash__ = _boom


class Unequal:
    """No two are comparable, and it cannot be shown."""

    __eq__ = __str__ = __repr__ = _boom
    __hash__ = object.__hash__


class UnequalText(str):
    """A text that cannot be compared or shown."""

    __slots__ = ()
    __eq__ = __str__ = __repr__ = __format__ = _boom
    __hash__ = str.__hash__


class ShortList(list):
    """A list whose length cannot be told."""

    __len__ = __iter__ = __getitem__ = _boom


class BadMapping(dict):
    """A mapping that cannot be read."""

    __getitem__ = __iter__ = items = keys = values = __len__ = _boom


class BadPath:
    """No path, though it says so."""

    def __fspath__(self) -> Any:
        return 7


class BadHandle:
    """A handle whose label cannot be told."""

    label = _boom


class NotAnArray:
    """Promises an array, and returns none."""

    def __array__(self, *_args: Any, **_arguments: Any) -> Any:
        return "no array"


def wrong_values() -> dict[str, Any]:
    """By name; new ones each time, for those that can be changed."""
    loop: list[Any] = []
    loop.append(loop)
    return {
        "None": None, "True": True, "ellipsis": ..., "text": "no such thing", "empty text": "", "NUL": "a\0b",
        "surrogate": "\ud800", "bytes": b"\xff\x00\x01", "bytearray": bytearray(b"abc"), "zero": 0, "minus one": -1,
        "huge": 10**30, "minus huge": -(10**30), "astronomic": 10**400, "2**63": 2**63, "half": 0.5, "nan": float("nan"), "inf": float("inf"),
        "1e300": 1e300, "complex": 1j, "fraction": Fraction(1, 3), "np.int64": np.int64(3), "np.float32 nan": np.float32("nan"),
        "datetime64": np.datetime64("NaT"), "empty list": [], "empty tuple": (), "empty dict": {}, "empty set": set(),
        "list of None": [None], "list of text": ["a", "b"], "list of objects": [object()], "ragged": [[1], [2, 3]],
        "endless": loop, "dict": {"x": 1}, "dict of odd keys": {None: None, 3: []}, "dict of images": {"x": object()},
        "tuple of huge": (10**30, 10**30), "tuple of text": ("a", "b"), "range": range(3), "huge range": range(10**30), "generator": (i for i in "ab"),
        "empty array": np.zeros(0, np.float32), "scalar array": np.float32(1)[()], "0-d array": np.array(1.0), "object array": np.array([None, "a"], object),
        "complex array": np.ones((1, 2, 3), np.complex64), "text array": np.array(["a", "b"]), "bool array": np.ones((2, 2), bool),
        "int array": np.ones((1, 2, 3), np.int64), "uint8 array": np.ones((1, 2, 3), np.uint8), "structured": np.zeros(2, [("a", "f4")]),
        "datetimes": np.zeros(2, "M8[s]"), "longdouble": np.ones((1, 2, 3), np.longdouble), "swapped": np.ones((1, 2, 3), ">f4"),
        "many axes": np.ones((1,) * 7, np.float32),
        "masked": np.ma.masked_array(np.ones((1, 1, 3), np.float32), [[[True, False, False]]]),
        "masked list": [np.ma.masked], "list of masked": [[[np.ma.masked_array([1.0, 2.0, 3.0], [1, 0, 0])]]],
        "class": int, "own class": mps.MPSImage, "node class": mps.MPSCNNNeuronReLUNode, "module": np, "function": len, "lambda": lambda: None,
        "object": object(), "dtype": np.dtype("V3"), "exception": ValueError("x"), "path": Path("no/such/file"),
        "folder": Path(), "explosive": Explosive(), "unequal": Unequal(), "unequal text": UnequalText("reLU"), "short list": ShortList([1]),
        "bad mapping": BadMapping(a=1), "bad path": BadPath(), "bad handle": BadHandle(), "not an array": NotAnArray(), "user text": UserString("reLU"),
        "image": mps.MPSImage.from_array(np.ones((1, 2, 3), np.float32)), "node": mps.MPSNNImageNode(handle="other"),
        "neuron type": T.pReLU, "format": F.none, "other enum": mps.MTLTextureType.type2D, "descriptor": mps.MPSNNNeuronDescriptor("tanH"),
    }  # fmt: skip


# --- what there is to call --------------------


def absolute(x: Any) -> Any:
    """An implementation."""
    return np.abs(x)


def absolute_of(x: Any, _descriptor: Any) -> Any:
    """An implementation of all neurons."""
    return np.abs(x)


class Right:
    """Instances of every public class, and right arguments of every function and method that needs some."""

    def __init__(self, folder: Path) -> None:
        mpl.use("Agg")
        importlib.import_module("matplotlib.pyplot")  # not within the time of a call
        array = np.float32([[[-1, 2, 3]]])
        batch = array[np.newaxis]
        x, g = mps.MPSNNImageNode(handle="x"), mps.MPSNNImageNode(handle="g")
        node = mps.MPSCNNNeuronReLUNode(source=x, a=0.5)
        neuron = mps.MPSNNNeuronDescriptor("reLU", a=0.5)
        image = mps.MPSImage.from_array(array)
        result = mps.MPSImage.from_array(mps.neuron.forward(neuron, array))
        images = {"x": image, "reLU": result}
        file = mps.GraphFile.from_results([node.result_image], F.float32)
        graph = mps.MPSNNGraph(result_image=node, format=F.float32)
        storage, exact = FORMATS[F.float32], verify.Tolerance(ulp=0)
        folder.mkdir(exist_ok=True)
        path = record.write_recording(folder / "recording", file, {**images, "reLU": image}, "none")
        checked = verify.verify(path)
        recording = record.Recording.read(path)
        record.write_images(folder / "images.safetensors", images)
        file.write(folder / "graph.json")
        (folder / "tolerances.toml").write_text('bounds = "ieee"\n')
        (folder / "presets.json").write_text('{"x": "exact"}')
        (folder / "raw.bin").write_bytes(bytes(12))
        swept = sweep.sweep(absolute, "absolute", format="float16", shard=(1, 1024))
        swept.write(folder / "sweep.json")
        traced = teach.trace(graph, x=array)
        with pytest.raises(mps.VerificationError) as caught:
            testing.check_implementation(absolute_of, "sigmoid", max_examples=5, seed=1)
        failing = caught.value.report
        slopes = testing.check_gradient("reLU", np.float64([1, 2]))
        subject = proof.Subject(neuron, F.float16, (1, 1024), 16, 1, 4096)
        region = mps.MTLRegion(mps.MTLOrigin(), mps.MTLSize(1, 1))
        aggregate = verify.Aggregate()
        comparison = verify.compare(array, array, storage, exact)
        unequal = testing.compare(array, array + 1)
        report = checked.images[0]
        step = next(iter(traced.steps))

        tanh = teach.tanh(teach.input("x"))
        back, moved = teach.backprop(tanh, x=0.5), teach.descend(tanh, {"x": 0.5}, rate=0.1, steps=1)

        layers, of_layers = layers_of(x, g)
        self.instances: list[Any] = [
            *layers,
            graph, neuron, file, x, node, node.result_state, image, recording, recording.images["x"], checked, report,
            comparison, report.counts, report.worst[0], verify.EndToEnd.of(report.counts), report.findings[0] if report.findings else None,
            verify.Bounds(), verify.Override(exact), verify.Tolerances(), exact, aggregate, image_descriptor(),
            mps.MPSImageReadWriteParams(0, 1), mps.MTLOrigin(), region, mps.MTLSize(1, 1),
            mps.MPSNNAdditionNode(left_source=x, right_source=g), unequal, unequal.worst[0], failing, failing.failures[0],
            slopes, slopes.worst[0] if slopes.worst else None, testing.Tolerances(), swept, swept.subject, swept.summary,
            sweep.Mismatch(0, 0, 0), traced, step, subject, tanh, back, moved, teach.Exercise("what", absolute, ("hint",)), strategies.DrawnRecording(file, images, False),
            node.gradient_filter(with_source=g), mps.neuron.NEURONS[T.reLU], mps.neuron.Erratum("a", "b", "c"),
            mps.MPSNNInitialGradientNode(source=node),
            *(c(left_source=x, right_source=g) for c in (mps.MPSNNSubtractionNode, mps.MPSNNMultiplicationNode)),
            *(c(left_source=x, right_source=g).gradient_filters(with_source=g)[0]
              for c in (mps.MPSNNAdditionNode, mps.MPSNNSubtractionNode, mps.MPSNNMultiplicationNode)),
        ]  # fmt: skip
        add = mps.MPSNNAdditionNode(left_source=x, right_source=g)
        arithmetic = {
            "source_gradient": g,
            "source_image": x,
            "gradient_state": add.result_state,
            "is_secondary_source_filter": False,
        }
        plain = {"source": x}
        one = {"descriptor": neuron, "x": array}
        both = {**one, "upstream": array}
        pair = {
            "actual": array,
            "expected": array,
            "neuron": neuron,
            "x": array,
            "upstream": array,
            "bounds": "metal-fast",
        }
        self.arguments: dict[str, dict[str, Any]] = {
            **of_layers,
            "MPSNNGraph": {"result_image": node},
            "MPSNNGraph.read_count_for_source_image": {"at": 0},
            "MPSNNGraph.encode": {"source_images": [image]},
            "MPSNNGraph.encode_batch": {"source_images": [[image]]},
            "MPSNNGraph.execute_async": {"source_images": [image]},
            "MPSNNGraph.run": {"x": array},
            "MPSNNGraph.images_by_handle": {"sources": {"x": array}},
            "MPSNNNeuronDescriptor": {"neuron_type": T.reLU, "a": 0.5},
            "MPSNNNeuronDescriptor.cnn_neuron_descriptor": {"with_": T.reLU, "a": 0.5},
            "MPSNNNeuronDescriptor.cnn_neuron_p_re_lu_descriptor": {"with_": [0.5]},
            "Erratum": {"printed": "a", "where": "b", "why": "c"},
            "FileFormatError": {"message": "text"}, "VerificationError": {"message": "text", "report": None},
            "GraphFile.read": {"path": folder / "graph.json"}, "GraphFile.from_json": {"document": file.to_json()},
            "GraphFile.from_results": {"result_images": [node.result_image]},
            "GraphFile.write": {"path": folder / "written.json"}, "GraphFile.encoded": {"path": folder / "written.json"},
            "MPSNNAdditionNode": {"left_source": x, "right_source": g},
            "MPSNNSubtractionNode": {"left_source": x, "right_source": g},
            "MPSNNMultiplicationNode": {"left_source": x, "right_source": g},
            "MPSNNAdditionGradientNode": arithmetic, "MPSNNSubtractionGradientNode": arithmetic, "MPSNNMultiplicationGradientNode": arithmetic,
            "MPSNNBinaryArithmeticNode": {}, "MPSNNArithmeticGradientNode": {"is_secondary_source_filter": False},
            "MPSNNInitialGradientNode": {"source": node},
            "MPSNNBinaryArithmeticNode.gradient_filter": {"with_source": g},
            "MPSNNFilterNode.gradient_filter": {"with_source": g}, "MPSNNFilterNode.gradient_filters": {"with_source": g},
            "MPSCNNNeuronGradientNode": {"source_gradient": g, "source_image": x, "gradient_state": node.result_state, "descriptor": neuron},
            "MPSNNImageNode": {"handle": "x"}, "MPSNNImageNode.exported_node": {"with_": "x"},
            "MPSImage": {"image_descriptor": image_descriptor()},
            "MPSImage.from_array": {"array": array}, "MPSImage.sub_image": {"with_feature_channel_range": range(1)},
            "MPSImage.read_bytes": {"data_layout": "HeightxWidthxFeatureChannels", "region": region},
            "MPSImage.write_bytes": {"data": array.tobytes(), "data_layout": "HeightxWidthxFeatureChannels"},
            "MPSCNNNeuronNode": {"source": x, "descriptor": neuron}, "MPSCNNNeuronPReLUNode": {"source": x, "a_data": [0.5]},
            **{f"MPSCNNNeuron{kind}Node": plain for kind in ("Absolute", "GeLU", "Sigmoid", "SoftSign")},
            **{f"MPSCNNNeuron{kind}Node": {**plain, "a": 1.0} for kind in ("ELU", "ReLU")},
            **{f"MPSCNNNeuron{kind}Node": {**plain, "a": 1.0, "b": 2.0} for kind in ("HardSigmoid", "Linear", "ReLUN", "SoftPlus", "TanH")},
            **{f"MPSCNNNeuron{kind}Node": {**plain, "a": 1.0, "b": 2.0, "c": 2.0} for kind in ("Exponential", "Logarithm", "Power")},
            "forward": one, "specified": one, "gradient": both, "specified_gradient": both,
            "Aggregate.add": {"name": "x", "storage": storage, "got": batch, "want": batch, "comparison": verify.compare(batch, batch, storage, exact), "sources": {}},
            "EndToEnd.of": {"counts": report.counts}, "Override.fits": {"image": "x"},
            "RecordedImage.of_raw_file": {"path": folder / "raw.bin", "descriptor": image_descriptor()},
            "Recording.read": {"path": path},
            "verify.Tolerances.of": {"image": "x", "neuron": "reLU", "format": "float32", "direction": "forward"},
            "verify.Tolerances.read": {"path": folder / "tolerances.toml"},
            "verify.compare": {"got": array, "want": array, "storage": storage, "limit": exact},
            "read_npy": {"path": folder / "recording" / "x.npy"}, "ulp_distance": {"got": array, "want": array, "storage": storage},
            "verify": {"recording": path, "worst": 1, "faults": False}, "write_recording": {"folder": folder / "new", "graph": file, "images": images, "device": "none"},
            "contents": {"path": path}, "contents_text": {"facts": record.contents(path)}, "edges": {"neuron": neuron},
            "read_images": {"path": folder / "images.safetensors"}, "write_images": {"path": folder / "written.safetensors", "images": images},
            "request": {"folder": folder / "request", "graph": file, "shape": (1, 1, 1, 3), "channel_format": F.float32},
            "sample_image": {"d": image_descriptor(), "neurons": [neuron], "seed": (1,)},
            "testing.Tolerances.read": {"path": folder / "presets.json"}, "testing.Tolerances.of": {},
            "assert_close": pair, "testing.compare": pair, "check_gradient": {"subject": "reLU", "inputs": np.float64([1, 2])},
            "check_implementation": {"function": absolute_of, "neuron": "absolute", "max_examples": 2, "seed": 1, "formats": ["float16"]},
            "resolved": {"ulp": 1}, "graph_code": {"graph": file}, "graph_sources": {"graph": file}, "images": {"descriptor": image_descriptor()},
            "dot": {"graph": graph}, "mermaid": {"graph": graph}, "svg": {"graph": graph}, "explain": {"graph": graph, "x": array},
            "plot_error": {"implementation": absolute, "descriptor": "absolute", "format": "float16"}, "plot_neuron": {"descriptor": neuron},
            "parameters": {"graph": graph}, "with_parameters": {"graph": graph, "values": {}}, "teach.input": {"name": "x"},
            **{f"teach.{name}": {"x": tanh} for name in teach.SPELLINGS},
            "Backprop.numbers": {"name": "x"}, "Expression.named": {"name": "y"}, "Trace.numbers": {"name": "x"},
            "MPSNNGraph.with_operations": {"operations": {}}, "mpsref.check": {"graph": graph},
            "trace": {"graph": graph, "x": array}, "Step": {"name": "x", "reads": ("x",), "plan_step": step.plan_step, "images": ([image], result), "window": Window(None), "is_backward": False},
            "Step.within": {"window": Window(None)}, "Step.expression": {"read": ["x"]},
            "Trace": {"steps": traced.steps, "sources": {"x": image}}, "Trace.at": {"y": 0, "x": 0, "channel": 0},
            "Summary.from_json": {"document": swept.summary.to_json()}, "SweepReport.write": {"path": folder / "again.json"},
            "SweepReport.read": {"path": folder / "sweep.json"}, "merge": {"reports": [swept]},
            "sweep": {"function": absolute, "descriptor": "absolute", "format": "float16", "shard": (1, 1024)},
            "passed": {"certificates": []}, "report": {"certificates": []}, "prove": {"subject": subject},
            "DrawnRecording.write": {"folder": folder / "drawn"},
        }  # fmt: skip
        self.folder = folder


def layers_of(x: Any, g: Any) -> tuple[list[Any], dict[str, dict[str, Any]]]:
    """Instances of the classes of layers, and right arguments of them."""
    sizes = {"kernel_width": 1, "kernel_height": 1}
    channels = {"input_feature_channels": 3, "output_feature_channels": 3}
    d = mps.MPSCNNConvolutionDescriptor(**sizes, **channels)
    depthwise = mps.MPSCNNDepthWiseConvolutionDescriptor(**sizes, **channels)
    weights = np.ones((3, 1, 1, 3), np.float32)
    source = mps.ArrayDataSource(d, weights)
    window = {**sizes, "stride_in_pixels_x": 1, "stride_in_pixels_y": 1}
    convolutions = [
        kind(source=x, weights=source) for kind in (mps.MPSCNNConvolutionNode, mps.MPSCNNFullyConnectedNode)
    ]
    pools = [kind(source=x, **window) for kind in (mps.MPSCNNPoolingMaxNode, mps.MPSCNNPoolingAverageNode)]
    read = {"source_gradient": g, "source_image": x}
    fixed = {"width": 1, "height": 1, "offset_x": 0, "offset_y": 0}
    state = {"name": "y", "gradient_for_weights": weights, "gradient_for_biases": np.ones(3, np.float32)}
    instances = [
        d, depthwise, source, mps.MPSNNDefaultPadding(16), mps.FixedPadding(**fixed), mps.MPSOffset(0, 0),
        mps.MPSCNNConvolutionGradientState(**state), convolutions[0].result_state, *convolutions, *pools,
        *(node.gradient_filter(with_source=g) for node in (*convolutions, *pools)),
    ]  # fmt: skip
    arguments: dict[str, dict[str, Any]] = {
        "MPSCNNConvolutionDescriptor": {**sizes, **channels},
        "MPSCNNDepthWiseConvolutionDescriptor": {**sizes, **channels},
        "ArrayDataSource": {"descriptor": d, "weights": weights},
        "MPSNNDefaultPadding": {"method": 16},
        "FixedPadding": fixed,
        "MPSOffset": {"x": 0, "y": 0},
        "MPSCNNConvolutionGradientState": state,
        "FixedPadding.destination_image_descriptor": {
            "for_kernel": PaddedKernel(1, 1, 1, 1, 1, 1, mps.MPSOffset(0, 0), mps.MPSImageEdgeMode.zero),
            "suggested_descriptor": image_descriptor(),
        },
        "MPSCNNPoolingNode": {"source": x, "filter_size": 1},
        "MPSCNNPoolingGradientNode": {**read, "gradient_state": pools[0].result_state, **window},
    }
    for node in (*convolutions, *pools):
        name, of_state = type(node).__name__.removesuffix("Node"), "gradient_state"
        if node in convolutions:
            of_state = "convolution_gradient_state"
            arguments[f"{name}Node"] = {"source": x, "weights": source}
            arguments[f"{name}GradientNode"] = {**read, of_state: node.result_state}
        else:
            arguments[f"{name}Node"] = {"source": x, **window}
            arguments[f"{name}GradientNode"] = {**read, of_state: node.result_state, **window}
    return instances, arguments


def image_descriptor() -> mps.MPSImageDescriptor:
    """Of the image in `Right`."""
    return mps.MPSImageDescriptor(channel_format=F.float32, width=1, height=1, feature_channels=3)


INTERNAL = {
    "Neuron.stepwise_forward",
    "Neuron.stepwise_derivative",
    "Neuron.kinks",
    "MPSCNNConvolutionDataSource",
    "MPSHandle",
    "MPSNNPadding",
    "MPSHandle.label",
    "Neuron",
}
"""Not called by users: rows of the table, and a protocol."""


@dataclass(frozen=True)
class Subject:
    """Something to call."""

    name: str
    call: Callable[..., Any]
    right: dict[str, Any]
    parameters: tuple[str, ...]


def subjects(right: Right) -> Iterator[Subject]:
    """Every public function, initialiser and public method, once."""
    met: set[Any] = set()
    by_class = {type(each): each for each in reversed(right.instances) if each is not None}
    for module in MODULES:
        namespace = importlib.import_module(f"mpsref{module}")
        for name in namespace.__all__:
            thing = getattr(namespace, name)
            if (
                not callable(thing)
                or isinstance(thing, EnumMeta | types.GenericAlias | types.UnionType)
                or thing in met
            ):
                continue
            if not hasattr(thing, "__module__") or not thing.__module__.startswith("mpsref"):
                continue
            met.add(thing)
            yield from _subjects_of(right, module, name, thing, by_class)


def _subjects_of(right: Right, module: str, name: str, thing: Any, by_class: dict[type, Any]) -> Iterator[Subject]:
    qualified = f"{module[1:]}.{name}"
    known = right.arguments
    if name in INTERNAL:
        return
    if not isinstance(thing, type) or not issubclass(thing, BaseException) or name in known:
        arguments = known.get(qualified, known.get(name))
        instance = by_class.get(thing) if isinstance(thing, type) else None
        if (
            arguments is None
            and instance is not None
            and (hasattr(thing, "__dataclass_fields__") or hasattr(thing, "_fields"))
        ):
            fields = getattr(thing, "_fields", None) or [f.name for f in dataclasses.fields(thing) if f.init]
            arguments = {field: getattr(instance, field) for field in fields}
        yield _subject(name if isinstance(thing, type) else qualified.lstrip("."), thing, arguments or {})
    if not isinstance(thing, type):
        return
    for method, function in list(vars(thing).items()):
        instance = by_class.get(thing) or next((each for each in right.instances if isinstance(each, thing)), None)
        if isinstance(function, Setting) or (isinstance(function, property) and function.fset):
            yield Subject(f"{name}.{method} =", partial(_set_for_now, instance, method), {}, ("value",))
        if method.startswith("_") and method != "__getitem__":
            continue
        if not isinstance(function, types.FunctionType | classmethod | staticmethod):
            continue
        owner = thing if isinstance(function, classmethod | staticmethod) or instance is None else instance
        of = known.get(f"{qualified}.{method}", known.get(f"{name}.{method}", {}))
        if f"{name}.{method}" not in INTERNAL:
            yield _subject(f"{name}.{method}", getattr(owner, method), of)


def _set_for_now(instance: Any, name: str, value: Any) -> None:
    before = getattr(instance, name)
    setattr(instance, name, value)
    try:
        repr(instance)
    finally:
        setattr(instance, name, before)


def _subject(name: str, call: Callable[..., Any], right: dict[str, Any]) -> Subject:
    parameters = inspect.signature(call).parameters.values()
    named = [p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    return Subject(name, call, right, tuple(dict.fromkeys([*named, *right])))


# --- what comes of a call --------------------

UNSHOWABLE = {"explosive", "unequal", "unequal text", "short list", "bad mapping", "bad handle"}
CALLED = {"progress", "node_handler", "completion_handler"}
KEEPING = {
    "Override.fits",
    "MPSNNNeuronDescriptor.cnn_neuron_p_re_lu_descriptor",
    "Erratum",
    "FileFormatError",
    "VerificationError",
}
OPAQUE = {"device", "to", "handle"}
UNBOUNDED = {
    "max_examples",
    "worst",
    "max_values",
    "max_nodes",
    "max_mismatches",
    "max_side",
    "max_channels",
    "max_images",
}


@contextmanager
def in_time(seconds: int = PATIENCE) -> Iterator[None]:
    """Nothing may hang."""

    def end(*_: Any) -> None:
        raise TimeoutError(f"{seconds} s of computing have passed")

    before = signal.signal(signal.SIGPROF, end)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def called(subject: Subject, arguments: dict[str, Any]) -> BaseException | None:
    """The error that the call raises; by position what can only be given so."""
    parameters = inspect.signature(subject.call).parameters
    positional = [name for name, p in parameters.items() if p.kind is p.POSITIONAL_ONLY and name in arguments]
    by_name = {name: value for name, value in arguments.items() if name not in positional}
    try:
        with in_time():
            result = subject.call(*(arguments[name] for name in positional), **by_name)
            if inspect.isgenerator(result):
                list(result)
            elif isinstance(result, st.SearchStrategy):
                result.validate()
                find(result, lambda _: True, settings=settings(max_examples=1, database=None, phases=[Phase.generate]))
    except BaseException as error:  # noqa: BLE001  whatever it is, it is the answer
        return error
    return None


def is_fitting(error: BaseException | None) -> bool:
    """Whether an error is of ours, or Python's own for a call that does not fit the signature."""
    if error is None or isinstance(error, MPSRefError):
        return error is None or _is_shown(error)
    if isinstance(error, Boom):  # the caller's own, as one of a signal handler would be
        return True
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename in (__file__, arguments.__file__):
        trace = trace.tb_next
    return isinstance(error, TypeError) and trace is None


def _is_shown(error: Exception) -> bool:
    return 0 < len(str(error)) < 5000


def wrong_calls(right: Right) -> Iterator[tuple[Subject, dict[str, str]]]:
    """Every subject with every argument in turn and the name of every wrong value."""
    names = list(wrong_values())
    for subject in subjects(right):
        for parameter in subject.parameters:
            for name in names:
                yield subject, {parameter: name}


def sample(right: Right, count: int, seed: int) -> list[tuple[Subject, dict[str, str]]]:
    """So many calls with one wrong argument, and as many with several."""
    draw, names = random.Random(seed), list(wrong_values())
    single = draw.sample(list(wrong_calls(right)), count)
    several = [subject for subject in subjects(right) if len(subject.parameters) > 1]
    return single + [
        (
            subject,
            {
                parameter: draw.choice(names)
                for parameter in draw.sample(subject.parameters, min(draw.randint(2, 3), len(subject.parameters)))
            },
        )
        for subject in draw.choices(several, k=count)
    ]


def outcome(subject: Subject, wrong: dict[str, str]) -> str | None:
    """What is wrong with the answer to a wrong call; None if it is as it should be."""
    if any(_is_right(subject, parameter, name) for parameter, name in wrong.items()):
        return None
    values = wrong_values()
    error = called(subject, subject.right | {parameter: values[name] for parameter, name in wrong.items()})
    where = f"{subject.name}({', '.join(f'{parameter}=<{name}>' for parameter, name in wrong.items())})"
    if not is_fitting(error):
        frames = traceback.extract_tb(error.__traceback__)
        inner = [frame for frame in frames if Path(mps.__file__).parent in Path(frame.filename).parents] or frames
        return f"{where}: {type(error).__name__} at {Path(inner[-1].filename).name}:{inner[-1].lineno}"
    if error is None and not _keeps(subject) and any(n == "masked" and p not in OPAQUE for p, n in wrong.items()):
        return f"{where}: the mask is dropped"
    return None


def _is_right(subject: Subject, parameter: str, name: str) -> bool:
    """Whether such a call is none of those that are looked for here."""
    if subject.name.startswith("testing.strategies.") and name in UNSHOWABLE:
        return True  # Hypothesis itself shows arguments
    if parameter in UNBOUNDED:
        return name in {"huge", "astronomic", "2**63"}
    if parameter == "isolated":  # starts a process
        return name in {"True", "zero", "minus one", "huge", "minus huge", "astronomic", "2**63"}
    return parameter in CALLED and callable(wrong_values()[name])


def _keeps(subject: Subject) -> bool:
    """Whether the call keeps whatever it is handed."""
    return subject.name in KEEPING or dataclasses.is_dataclass(subject.call) or hasattr(subject.call, "_fields")
