"""Two arrays compared element by element: what is within bounds, how far the rest is, and the worst elements."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np

from mpsref.arguments import checked
from mpsref.arrays import Elements, Stored
from mpsref.display import counted, html_table, html_text, table
from mpsref.errors import CONVERSION_ERRORS, ImageError, MPSRefError, ParameterError, VerificationError, shown
from mpsref.image import MPSImage
from mpsref.neuron.descriptor import NeuronLike, channels_or_error, descriptor_or_error
from mpsref.storage import FLOAT64, StorageFormat, as_numpy, image_storage_of, storage_of, unmasked_or_error
from mpsref.testing.reports import CheckReport
from mpsref.ulp import UNREACHABLE, histogram_rows
from mpsref.verify import tolerance as presets
from mpsref.verify.compare import Counts, Judge, Tolerance
from mpsref.verify.compare import compare as counts_of
from mpsref.verify.judge import neuron_judge
from mpsref.verify.models import MODELS
from mpsref.verify.reasons import BEYOND, Reason

__all__ = ["Bounds", "Comparison", "Worst", "assert_close", "compare", "resolved"]

Bounds: TypeAlias = presets.Limit | str
"""What passes: a `Tolerance`, ``exact``, ``ulp=N``; or, of a neuron's results, one of `mpsref.verify.bounds.MODELS`."""

SHOWN = 5
"""Elements that are listed."""


@dataclass(frozen=True)
class Worst:
    """
    One element that is not what was expected.

    Attributes
    ----------
    place : tuple of int
        Its index.
    actual, expected : str
        Shortest decimal of the value; the code, for unorm.
    ulp : int or None
        The distance; None if one is NaN, or one infinite.
    beyond : bool
        Whether it is outside the bounds.
    x, upstream : str or None
        What the neuron read there, if `compare` knows it.
    """

    place: tuple[int, ...]
    actual: str
    expected: str
    ulp: int | None
    beyond: bool
    x: str | None = None
    upstream: str | None = None

    def __str__(self) -> str:
        distance = "not comparable" if self.ulp is None else f"{self.ulp:,} ULP"
        read = [
            f"{name} = {value}" for name, value in (("upstream", self.upstream), ("x", self.x)) if value is not None
        ]
        where = " ".join([str(list(self.place)), ", ".join(read)]).rstrip()
        return f"{where}: got {self.actual}, want {self.expected}, {distance}"


@dataclass(frozen=True)
class Comparison(CheckReport):
    """
    The result of comparing two arrays.

    Attributes
    ----------
    name : str
        What was compared.
    storage : str
        The storage format of both.
    shape : tuple of int
        Of both.
    tolerance : Tolerance or mpsref.verify.Bounds
        What is within bounds.
    max_mismatches : int
        How many elements may be outside.
    counts : Counts
        How many elements are how near.
    histogram : dict of int to int
        Distances by powers of two, of all that are comparable.
    worst : tuple of Worst
        The elements that are farthest away, farthest first.
    """

    name: str
    storage: str
    shape: tuple[int, ...]
    tolerance: presets.Limit
    max_mismatches: int
    counts: Counts
    histogram: dict[int, int]
    worst: tuple[Worst, ...]

    @property
    def passed(self) -> bool:
        """Whether at most `max_mismatches` elements are outside the bounds."""
        return self.counts.beyond <= self.max_mismatches

    @property
    def verdict(self) -> str:
        """One line."""
        beyond, elements = self.counts.beyond, self.counts.elements
        allowed = f"; {self.max_mismatches:,} may be" if self.max_mismatches else ""
        if not beyond:
            all_of_them = f"all {elements:,} elements are" if elements != 1 else "1 element is"
            return f"PASS: {all_of_them} within bounds"
        share = f"{beyond:,} of {counted(elements, 'element')} ({100 * beyond / elements:.3g} %)"
        mismatches = f"{share} {'is' if beyond == 1 else 'are'} beyond the bounds"
        return f"{'PASS' if self.passed else 'FAIL'}: {mismatches}{allowed}"

    def _repr_html_(self) -> str:
        verdict = f"<p><strong>{html_text(f'{self.name}: {self.verdict}', 1000)}</strong></p>"
        rows: list[list[object]] = [["element", "x", "actual", "expected", "ULP", "verdict"]]
        for element in self.worst:
            distance = "not comparable" if element.ulp is None else f"{element.ulp:,}"
            verdict_there = "beyond" if element.beyond else "within"
            rows.append(
                [list(element.place), element.x or "", element.actual, element.expected, distance, verdict_there]
            )
        histogram = html_table("distances", self._histogram_rows()) if self.counts.elements else ""
        return verdict + html_table(self._facts(), rows) + histogram

    def to_json(self) -> dict[str, Any]:
        """For programs: everything, as `json` can write it."""
        return {
            "format": "mpsref-comparison",
            "version": 1,
            "name": self.name,
            "storage": self.storage,
            "shape": list(self.shape),
            "tolerance": presets.limit_json(self.tolerance),
            "max_mismatches": self.max_mismatches,
            "passed": self.passed,
            "verdict": self.verdict,
            **asdict(self.counts),
            "histogram": {str(limit): count for limit, count in self.histogram.items()},
            "worst": [asdict(element) | {"place": list(element.place)} for element in self.worst],
        }

    def _facts(self) -> str:
        return f"bounds: {bounds_text(self.tolerance)}; {self.storage}{list(self.shape)}"

    def _histogram_rows(self) -> list[list[str]]:
        others = {"NaN": self.counts.nan_disagreements, "infinity": self.counts.infinity_disagreements}
        return histogram_rows(self.histogram, self.counts.elements, others)

    def _lines(self) -> Iterator[str]:
        yield f"{self.name}: {self.verdict}"
        yield self._facts()
        shown = [element for element in self.worst if element.beyond]
        if shown:
            yield "the worst:"
            yield from (f"  {element}" for element in shown)
        for reason, count in self.counts.excused.items():
            yield f"{count:,} excused: {Reason[reason].text}"
        for reason, count in self.counts.refused.items():
            yield f"{count:,} beyond: {Reason[reason].text}"
        if self.counts.elements:
            yield from table(self._histogram_rows(), left=1)


def bounds_text(tolerance: presets.Limit) -> str:
    """The text of a limit, for one array instead of images."""
    return str(tolerance).replace(" of each image's format", "")


def resolved(
    bounds: Bounds | None = None, ulp: int | None = None, rtol: float | None = None, atol: float | None = None
) -> presets.Limit:
    """
    The one limit that the arguments mean; by default 4 ULP.

    Raises
    ------
    ParameterError
        `bounds` is unknown, or stands beside numbers.

    Examples
    --------
    >>> from mpsref.testing import resolved
    >>> resolved("ulp=2")
    Tolerance(ulp=2, rtol=0.0, atol=0.0)
    """
    numbers = (ulp, rtol, atol)
    if bounds is None:
        return Tolerance(ulp, 0.0 if rtol is None else rtol, 0.0 if atol is None else atol)
    if any(number is not None for number in numbers):
        raise ParameterError("bounds and ulp, rtol or atol: give one or the other")
    if isinstance(bounds, Tolerance | presets.Bounds):
        return bounds
    if not isinstance(bounds, str):
        raise ParameterError(f"bounds is {shown(bounds)}: give a Tolerance, or the name of a preset")
    return presets.limit_of(bounds)


@checked
def compare(
    actual: Any,
    expected: Any,
    *,
    bounds: Bounds | None = None,
    ulp: int | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    max_mismatches: int = 0,
    name: str = "actual",
    neuron: NeuronLike | None = None,
    x: Any = None,
    upstream: Any = None,
) -> Comparison:
    """
    Compare two arrays element by element.

    Parameters
    ----------
    actual, expected : array_like
        numpy arrays, images, tensors, or anything else with ``__array__`` or DLPack, of the same shape and dtype:
        float16, float32, float64, or uint8 and uint16 for unorm codes. An `expected` without a dtype, such as a list,
        gets that of `actual`.
    bounds : Tolerance or str, optional
        What is within bounds: a `Tolerance`, ``exact``, or ``ulp=N``; or what a device's arithmetic allows each
        formula: one of `mpsref.verify.bounds.MODELS`, such as ``metal-fast``, or `mpsref.verify.Bounds`, which need
        `neuron` and `x`. Default: 4 ULP.
    ulp : int, optional
        Units in the last place of the dtype.
    rtol, atol : float, optional
        Within ``atol + rtol |expected|``.
    max_mismatches : int
        How many elements may be outside the bounds.
    name : str
        How the report calls it.
    neuron : MPSNNNeuronDescriptor, MPSCNNNeuronType or str, optional
        For the bounds of a model, the neuron whose results or gradients are compared; channels are on the last axis.
    x, upstream : array_like, optional
        Its inputs and, for a gradient, the incoming gradients, of the shape of `actual`. The report shows them beside
        the worst elements, also for bounds that do not need them.

    Returns
    -------
    Comparison
        Its `check` raises an error unless it passed.

    Raises
    ------
    ImageError
        The two differ in shape or dtype, or one cannot be compared.
    ParameterError
        The bounds are invalid.

    Notes
    -----
    Zeros are equal, NaN equals NaN, and an infinity equals only itself.

    Examples
    --------
    >>> import numpy as np
    >>> from mpsref.testing import compare
    >>> print(compare(np.float16([1, 2.004, 4]), [1, 2, 3], ulp=2).text())
    actual: FAIL: 1 of 3 elements (33.3 %) is beyond the bounds
    bounds: 2 ULP; float16[3]
    the worst:
      [2]: got 4.0, want 3.0, 512 ULP
    ULP     elements       share
    0              1   33.3333 %
    <= 2           1   66.6667 %
    <= 512         1  100.0000 %
    """
    limit = resolved(bounds, ulp, rtol, atol)
    if max_mismatches < 0:
        raise ParameterError(f"max_mismatches is {max_mismatches}: give at least 0")
    got = as_array(actual, "actual")
    want = as_array(expected, "expected", got.dtype)
    if got.dtype != want.dtype or got.shape != want.shape:
        raise ImageError(
            f"{name} is {got.dtype}{list(got.shape)}, but {want.dtype}{list(want.shape)} is expected: make both alike"
        )
    storage = _storage(got, name)
    judge = limit if isinstance(limit, Tolerance) else judge_of(limit, Elements(got, storage), neuron, x, upstream)
    read = {"x": x, "upstream": upstream}
    shown = {key: _of_shape(value, key, got.shape) for key, value in read.items() if value is not None}
    sources = [Elements(each, storage) for each in shown.values()]
    result = counts_of(got, want, storage, judge, SHOWN, presets.excused_by(limit), sources=sources)
    is_beyond = (result.classes == BEYOND).tolist()
    worst = []
    for flat, distance, beyond in zip(result.worst.tolist(), result.distances.tolist(), is_beyond, strict=True):
        place = tuple(int(i) for i in np.unravel_index(flat, got.shape))
        ulp = None if distance == UNREACHABLE else distance
        there = {key: str(array[place]) for key, array in shown.items()}
        worst.append(Worst(place, str(got[place]), str(want[place]), ulp, beyond, **there))
    shape, counts = got.shape, result.counts
    return Comparison(name, storage.name, shape, limit, max_mismatches, counts, result.histogram, tuple(worst))


def judge_of(
    bounds: presets.Bounds,
    got: Elements,
    neuron: NeuronLike | None,
    x: Any,
    upstream: Any,
) -> Judge:
    """The verdict of a model's bounds on a neuron's results."""
    if neuron is None or x is None:
        raise ParameterError(
            f"bounds are {bounds.model!r}, which are of a neuron: give neuron=descriptor and x=, what it read, and for "
            "a gradient upstream="
        )
    neuron = descriptor_or_error(neuron, "neuron")
    if got.storage is FLOAT64:
        raise ParameterError(f"bounds are {bounds.model!r}, but actual is float64, in which no device stores images")
    source = _like(x, "x", got.stored)
    incoming = None if upstream is None else _like(upstream, "upstream", got.stored)
    if neuron.data is not None:
        channels_or_error(neuron, got.stored.shape[-1] if got.stored.ndim else 1, "the last axis of x")
    return neuron_judge(neuron, MODELS[bounds.model], got, source, incoming)


def _like(value: Any, name: str, actual: Stored) -> Elements:
    """What a neuron read, of the shape of its results."""
    array = _of_shape(value, name, actual.shape, actual.dtype)
    return Elements(array, _storage(array, name))


def _of_shape(value: Any, name: str, shape: tuple[int, ...], dtype: np.dtype[Any] | None = None) -> Stored:
    array = as_array(value, name, dtype)
    if array.shape != shape:
        raise ImageError(f"{name} is of shape {list(array.shape)}: it must be that of actual, {list(shape)}")
    return array


@checked
def assert_close(
    actual: Any,
    expected: Any,
    *,
    bounds: Bounds | None = None,
    ulp: int | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    max_mismatches: int = 0,
    name: str = "actual",
    neuron: NeuronLike | None = None,
    x: Any = None,
    upstream: Any = None,
) -> None:
    """
    Fail a test unless two arrays are close: `compare`, and its `check`.

    Parameters
    ----------
    actual, expected, bounds, ulp, rtol, atol, max_mismatches, name, neuron, x, upstream
        As for `compare`.

    Raises
    ------
    VerificationError
        They are not, or differ in shape or dtype. An `AssertionError`, with the `Comparison` as its ``report``, or
        None where shape or dtype differ.
    ParameterError
        The bounds are invalid.

    Examples
    --------
    >>> import numpy as np
    >>> import mpsref as mps
    >>> from mpsref.testing import assert_close
    >>> x = np.linspace(-3, 3, 1000, dtype=np.float32)
    >>> d = mps.MPSNNNeuronDescriptor(mps.MPSCNNNeuronType.tanH)
    >>> assert_close(np.tanh(x), mps.neuron.forward(d, x), ulp=2)
    >>> assert_close(np.tanh(x), mps.neuron.forward(d, x), bounds="metal-precise", neuron=d, x=x)
    """
    __tracebackhide__ = True
    try:
        comparison = compare(
            actual,
            expected,
            bounds=bounds,
            ulp=ulp,
            rtol=rtol,
            atol=atol,
            max_mismatches=max_mismatches,
            name=name,
            neuron=neuron,
            x=x,
            upstream=upstream,
        )
    except ImageError as error:
        raise VerificationError(str(error), None) from None
    comparison.check()


def as_array(value: Any, name: str, dtype: np.dtype[Any] | None = None) -> Stored:
    """
    `value` as an array; one without a dtype, such as a list, gets `dtype`.

    Raises
    ------
    ImageError
        numpy cannot convert it; the message calls it `name`.
    """
    if isinstance(value, MPSImage):
        return value.to_array()
    if value is None:  # of which numpy would make NaN
        raise ImageError(f"{name} is None: give an array")
    try:
        unmasked_or_error(value, name)
        if hasattr(value, "detach"):  # a tensor that has a gradient, or is on a device
            value = value.detach().cpu()
        if hasattr(value, "__array__") or not hasattr(value, "__dlpack__"):
            with np.errstate(over="ignore"):  # numbers that the dtype does not have are infinite in it
                return as_numpy(value) if hasattr(value, "dtype") else np.asarray(value, dtype)
        return as_numpy(value) if "bfloat16" in str(getattr(value, "dtype", "")) else np.from_dlpack(value)
    except MPSRefError:
        raise
    except (*CONVERSION_ERRORS, BufferError, RuntimeError) as error:
        raise ImageError(f"{name} is a {type(value).__name__}, of which numpy makes no array: {error}") from None


def _storage(array: Stored, name: str) -> StorageFormat:
    return image_storage_of(array.dtype, name) if array.dtype.kind == "u" else storage_of(array, name)
