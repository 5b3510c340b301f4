"""
A graph, evaluated with every number in sight: what each step read, its slope, what came in, what was stored.

The stored numbers are those of the graph itself, bit for bit. Beside them stands what each step gives before storage:
the same operation with a float64 result, on the same stored sources.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from mpsref.arrays import meaning
from mpsref.columns import aligned, html_table, printable
from mpsref.enums import MPSImageFeatureChannelFormat
from mpsref.errors import ImageError, ParameterError, SourceError
from mpsref.executor import MPSNNGraph, slope_at
from mpsref.graph.arithmetic import MPSNNAdditionGradientNode, MPSNNAdditionNode, MPSNNInitialGradientNode
from mpsref.graph.file import GraphFile
from mpsref.graph.names import differentiated, image_names, short_kind
from mpsref.graph.neurons import MPSCNNNeuronGradientNode
from mpsref.graph.nodes import MPSNNFilterNode, MPSNNGradientFilterNode
from mpsref.image import MPSImage
from mpsref.neuron.descriptor import MPSNNNeuronDescriptor
from mpsref.neuron.stepwise import evaluation
from mpsref.storage import FLOAT64, StorageFormat, array_or_error

__all__ = ["Step", "Trace", "trace"]

Numbers: TypeAlias = npt.NDArray[np.float64]
Shape: TypeAlias = tuple[int, int, int, int]

FEW_PIXELS = 4
"""How many elements are printed one by one; of more there is a summary."""

MOST_PATHS, MOST_FACTORS = 8, 8
"""What a chain rule is written out with; where there is more, gradients in between are named instead."""

MOST_SLOPES = 4
"""How many of pReLU's slopes a formula shows."""

WIDEST = 110
"""Characters of a line that holds several terms."""

MOST_NAMES = 20
"""How many names an error lists."""


class _Window:
    """Which elements of each image are traced: all, or one."""

    def __init__(self, place: tuple[int, int, int, int] | None) -> None:
        self.place = place

    def image(self, image: MPSImage) -> MPSImage:
        """The image, or all channels of its pixel, which pReLU's slopes need."""
        if self.place is None:
            return image
        n, y, x, _ = self.place
        slices = image._slices[n : n + 1, :, y : y + 1, x : x + 1]
        return MPSImage._from_slices(np.ascontiguousarray(slices), image.storage, image.feature_channels)

    def array(self, image: MPSImage) -> Numbers:
        """What the elements of a cropped image mean."""
        values = meaning(image.to_array(), image.storage)
        return values if self.place is None else values[..., self.place[3] : self.place[3] + 1]


class Step:
    """
    One step of a graph: a node, with what it read and made.

    Attributes
    ----------
    name : str
        Name of the image that it makes.
    node : str
        The node's class.
    kind : str
        ``forward``, ``gradient``, ``sum`` (an addition), ``scale`` (the gradient of an addition) or ``ones``.
    reads : tuple of str
        Names of what it reads, in the order of Apple's arguments: a gradient reads the incoming gradient, then the
        forward source.
    format : MPSImageFeatureChannelFormat
        How the result is stored.
    descriptor : MPSNNNeuronDescriptor or None
        The neuron and its parameters.
    factors : tuple of float
        Of a sum or a scale: what its sources are multiplied by.
    bias : float
        Of a sum.
    bounds : tuple of two floats
        Of a sum: its clamps; infinite where there are none.
    is_backward : bool
        Whether the result is a gradient.
    """

    def __init__(
        self, name: str, reads: tuple[str, ...], made_by: Any, watched: tuple[Sequence[MPSImage], MPSImage],
        window: _Window, *, is_backward: bool,
    ) -> None:  # fmt: skip
        self.name = name
        self.reads = reads
        self.is_backward = is_backward
        self._step, self._window = made_by, window
        self._watched = watched
        self._differing = ""
        node, operation = made_by.node, made_by.operation
        self.node = type(node).__name__
        self.kind = _kind(node)
        self.storage = watched[1].storage
        self.format: MPSImageFeatureChannelFormat = self.storage.channel_format
        self.descriptor: MPSNNNeuronDescriptor | None = getattr(operation, "descriptor", None)
        self.factors: tuple[float, ...] = ()
        self.bias, self.bounds = 0.0, (-np.inf, np.inf)
        if isinstance(node, MPSNNAdditionNode):
            self.factors, self.bias, self.bounds = operation.scales, operation.bias, operation.bounds
        elif isinstance(node, MPSNNAdditionGradientNode):
            self.factors = (operation.factor,)

    def _at(self, window: _Window) -> Step:
        read, made = self._watched
        watched = [window.image(image) for image in read], window.image(made)
        step = Step(self.name, self.reads, self._step, watched, window, is_backward=self.is_backward)
        step._differing = self._differing
        return step

    @property
    def function(self) -> str:
        """The neuron, or what the node does, in a word: ``TanH``."""
        return short_kind(self._step.node)

    @property
    def symbol(self) -> str:
        """
        The neuron in formulas: with the parameters that tell it from others of its type, ``TanH[a=2]``.

        All steps of a graph in which no two differ have just the neuron: ``TanH``.
        """
        return self.function + self._differing

    @cached_property
    def sources(self) -> tuple[Numbers, ...]:
        """What it read, decoded: float64 arrays of shape (N, H, W, C)."""
        return tuple(self._window.array(image) for image in self._watched[0])

    @cached_property
    def slope(self) -> Numbers | None:
        """
        The slope at the forward source, in float64; the factor, for a scale; None for sums and ones.

        At a kink it is the one that the documented comparison chooses.
        """
        if self.kind == "scale":
            return np.full_like(self.sources[0], self.factors[0])
        if self.descriptor is None:
            return None
        x = self._watched[0][-1]
        return self._decoded(slope_at(self.descriptor, x))

    @property
    def upstream(self) -> Numbers | None:
        """The incoming gradient; None but for gradients and scales."""
        return self.sources[0] if self.kind in ("gradient", "scale") else None

    @cached_property
    def value(self) -> Numbers:
        """
        The result before storage, in float64: for a gradient the product `upstream` times `slope`.

        Whatever the mode of the graph is, this is the documented function.
        """
        read = self._watched[0]
        how = evaluation("ideal")
        return self._decoded(self._step.operation.run(*read, result=FLOAT64, how=how, workers=1))

    @cached_property
    def stored(self) -> Numbers:
        """What the image holds, in float64."""
        return self._window.array(self._watched[1])

    @cached_property
    def rounding(self) -> Numbers:
        """`stored` minus `value`; 0 where both are the same infinity or both NaN."""
        same = (self.stored == self.value) | (np.isnan(self.stored) & np.isnan(self.value))
        with np.errstate(all="ignore"):
            return np.where(same, 0.0, self.stored - self.value)

    @cached_property
    def rounding_ulp(self) -> Numbers:
        """`rounding` in units in the last place of the format, where `value` lies."""
        with np.errstate(all="ignore"):
            ulps: Numbers = self.rounding / _ulp(self.value, self.storage)
        return ulps

    def _decoded(self, slices: npt.NDArray[Any]) -> Numbers:
        return self._window.array(MPSImage._from_slices(slices, FLOAT64, self._watched[0][0].feature_channels))

    @property
    def rule(self) -> str:
        """What the step does, with names: ``dx = dh * TanH'(x)``."""
        return f"{self.name} = {self._expression(self.reads)}"

    def _expression(self, read: Sequence[str]) -> str:
        if self.kind == "gradient":
            return f"{read[0]} * {self.symbol}'({read[1]})"
        if self.kind == "forward":
            return f"{self.symbol}({read[0]})"
        if self.kind == "ones":
            return "1"
        terms = [_scaled(factor, name) for factor, name in zip(self.factors, read, strict=False)]
        text = _sum(terms + ([_number(self.bias)] if self.bias else []))
        return f"clamp({text}, {', '.join(map(_number, self.bounds))})" if self.is_clamped else text

    @property
    def is_clamped(self) -> bool:
        """Whether a sum is kept between bounds."""
        return self.bounds != (-np.inf, np.inf)

    def __repr__(self) -> str:
        return f"<Step {self.rule!r}>"


def _kind(node: MPSNNFilterNode) -> str:
    if isinstance(node, MPSCNNNeuronGradientNode):
        return "gradient"
    if isinstance(node, MPSNNGradientFilterNode):
        return "scale"
    if isinstance(node, MPSNNAdditionNode):
        return "sum"
    return "ones" if isinstance(node, MPSNNInitialGradientNode) else "forward"


def _tell_apart(steps: Iterable[Step]) -> None:
    """Let neurons of one type have their symbols of their own, if their parameters differ."""
    by_function: dict[str, list[tuple[Step, dict[str, str]]]] = {}
    for step in steps:
        if (d := step.descriptor) is not None:
            facts = {name: _number(value) for name, value in d.parameters.items()}
            if d.data is not None:
                more = ", ..." if len(d.data) > MOST_SLOPES else ""
                facts["data"] = ", ".join(map(_number, d.data[:MOST_SLOPES].tolist())) + more
            by_function.setdefault(step.function, []).append((step, facts))
    for group in by_function.values():
        names = [name for name in group[0][1] if len({facts[name] for _, facts in group}) > 1]
        for step, facts in group:
            step._differing = f"[{', '.join(f'{name}={facts[name]}' for name in names)}]" if names else ""


def _ulp(values: Numbers, storage: StorageFormat) -> Numbers:
    """The distance of neighbours in the format, where the values lie."""
    if storage.unorm_max:
        return np.full_like(values, 1.0 / storage.unorm_max)
    facts = np.finfo(storage.dtype)
    size = np.clip(np.nan_to_num(np.abs(values), nan=1.0), float(facts.smallest_normal), float(facts.max))
    ulps: Numbers = np.ldexp(1.0, np.frexp(size)[1] - 1 - int(facts.nmant))
    return ulps


class Trace:
    """
    All steps of an evaluated graph.

    Attributes
    ----------
    steps : tuple of Step
        In the order of evaluation.
    sources : dict of str to ndarray
        The source images by name, decoded.
    place : tuple of four int or None
        Image, y, x and channel, if this is the trace of one element.
    """

    def __init__(
        self, steps: Iterable[Step], sources: Mapping[str, MPSImage], place: tuple[int, int, int, int] | None = None
    ) -> None:
        self.steps = tuple(steps)
        self.place = place
        self._images = dict(sources)
        self._by_name = {step.name: step for step in self.steps}

    @cached_property
    def sources(self) -> dict[str, Numbers]:
        """The source images by name, decoded."""
        window = _Window(self.place)
        return {name: window.array(image) for name, image in self._images.items()}

    def __getitem__(self, name: str) -> Step:
        try:
            return self._by_name[name]
        except (KeyError, TypeError):
            names = [*map(repr, self._by_name)]
            more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
            raise SourceError(
                f"no step makes {name!r}: the steps make {printable(', '.join(names[:MOST_NAMES]))}{more}"
            ) from None

    def __len__(self) -> int:
        return len(self.steps)

    @cached_property
    def _shapes(self) -> dict[Shape, None]:
        """Those of the sources, each once: parts of a graph that share no image may differ."""
        return dict.fromkeys((i.number_of_images, i.height, i.width, i.feature_channels) for i in self._images.values())

    @property
    def shape(self) -> Shape:
        """Images, height, width and channels that all images have."""
        n, height, width, channels = (min(sizes) for sizes in zip(*self._shapes, strict=True))
        return (n, height, width, channels) if self.place is None else (1, 1, 1, 1)

    def at(self, y: int, x: int, channel: int, image: int = 0) -> Trace:
        """
        The trace of one element.

        Raises
        ------
        ImageError
            There is no such element.
        """
        place = []
        for name, value, most in zip(("image", "y", "x", "channel"), (image, y, x, channel), self.shape, strict=True):
            try:
                index = operator.index(value)
            except TypeError:
                raise ImageError(f"{name} is {value!r}: give an integer") from None
            if not 0 <= index < most:
                of = ", which all images have" if len(self._shapes) > 1 else ""
                raise ImageError(f"{name} is {index}: it must lie in range({most}){of}")
            place.append(index)
        if self.place is not None:
            return self
        window = _Window((place[0], place[1], place[2], place[3]))
        images = {name: window.image(each) for name, each in self._images.items()}
        return Trace((step._at(window) for step in self.steps), images, window.place)

    # ---- the table ----

    def _rows(self) -> list[list[str]]:
        """A row for each source and step of one element, below the names of the columns."""
        rows = [["step", "node", "reads", "slope", "upstream", "value", "stored", "rounding"]]
        rows += [[name, "source", "", "", "", "", _number(_one(of)), ""] for name, of in self.sources.items()]
        for step in self.steps:
            read = ", ".join(f"{name} = {_number(_one(of))}" for name, of in zip(step.reads, step.sources, strict=True))
            slope, upstream = (
                "" if numbers is None else _number(_one(numbers)) for numbers in (step.slope, step.upstream)
            )
            rows.append(
                [step.name, _title(step), read, slope, upstream, _number(_one(step.value)), _stored(step), _ulps(step)]
            )
        return rows

    def _summary(self) -> list[list[str]]:
        """The same for many elements: from the smallest to the largest."""
        rows = [["step", "node", "reads", "slope", "upstream", "value", "stored", "largest rounding"]]
        rows += [[name, "source", "", "", "", "", _range(of), ""] for name, of in self.sources.items()]
        for step in self.steps:
            slope, upstream = ("" if each is None else _range(each) for each in (step.slope, step.upstream))
            ulps = np.abs(step.rounding_ulp)
            inside = (step.value >= 0) & (step.value <= 1) | (not step.storage.unorm_max) | (ulps == 0)
            largest = float(np.max(ulps, where=~np.isnan(ulps) & inside, initial=0.0))
            rounding = _ulp_text(largest) + ("" if inside.all() else ", clamped")
            rows.append(
                [step.name, _title(step), ", ".join(step.reads), slope, upstream, _range(step.value),
                 _range(step.stored), rounding]
            )  # fmt: skip
        return rows

    def _tables(self) -> list[tuple[str, list[list[str]]]]:
        """Captions and rows: an element each where there are few, else one for all."""
        if self.place is not None:
            return [(_place_text(self.place), self._rows())]
        if len(self._shapes) == 1 and math.prod(self.shape) <= FEW_PIXELS:
            places = np.ndindex(*self.shape)
            return [table for i, y, x, c in places for table in self.at(y, x, c, i)._tables()]
        sizes = " and ".join(
            f"{width}x{height}x{channels}" + (f" x{n} images" if n > 1 else "")
            for n, height, width, channels in self._shapes
        )
        return [(f"all elements of {sizes}, from the smallest to the largest", self._summary())]

    def __str__(self) -> str:
        return "\n\n".join("\n".join([caption, *aligned(rows, 3)]) for caption, rows in self._tables())

    def __repr__(self) -> str:
        where = "" if self.place is None else f" at {_place_text(self.place)}"
        return f"<Trace of {len(self.steps)} steps{where}>"

    def _repr_html_(self) -> str:
        return "".join(html_table(caption, rows) for caption, rows in self._tables())

    # ---- the chain rule ----

    @property
    def gradients(self) -> tuple[str, ...]:
        """Names of the gradients that the steps make, in order."""
        return tuple(step.name for step in self.steps if step.is_backward and step.kind != "ones")

    def chain_rule(self, name: str | None = None) -> str:
        """
        The chain rule for one gradient of one element, with the numbers in it.

        Parameters
        ----------
        name : str, optional
            The gradient's name. Default: the last one.

        Returns
        -------
        str
            First the gradient as a sum over all paths, each a product of slopes that nothing has rounded; then every
            gradient on the way, with what was stored of it. Where there are more than 8 paths, or 8 factors in one,
            gradients in between stand for themselves, with what was stored of them.

        Raises
        ------
        ImageError
            This is the trace of several elements.
        SourceError
            There is no such gradient.

        Examples
        --------
        >>> import numpy as np
        >>> import mpsref as mps
        >>> from mpsref import teach
        >>> x, g = mps.MPSNNImageNode(handle="x"), mps.MPSNNImageNode(handle="dy")
        >>> h = mps.MPSCNNNeuronLinearNode(source=x, a=3)
        >>> y = mps.MPSCNNNeuronSigmoidNode(source=h.result_image)
        >>> h.result_image.handle = "h"
        >>> (last,) = y.training_graph(with_source_gradient=g)
        >>> graph = mps.MPSNNGraph(result_image=last.result_image)
        >>> one = np.ones((1, 1, 1), np.float16)
        >>> print(teach.trace(graph, x=one, dy=one).chain_rule())
        dx = dy * Sigmoid'(h) * Linear'(x)
           = 1 * 0.0451767 * 3
           = 0.13553    stored as float16: 0.135498 (-3.2e-05, 0.26 ULP)
        <BLANKLINE>
        Each gradient is rounded where it is stored:
          dh = dy * Sigmoid'(h)  = 1 * 0.0451767  = 0.0451767  stored as float16: 0.045166 (-1.1e-05, 0.35 ULP)
          dx = dh * Linear'(x)   = 0.045166 * 3   = 0.135498   stored as float16: 0.135498 (exact)
        """
        if self.shape != (1, 1, 1, 1):
            raise ImageError(f"the chain rule is that of one element, not of {list(self.shape)}: use at(y, x, channel)")
        gradients = self.gradients
        if name is None and gradients:
            name = gradients[-1]
        if name not in gradients:
            names = ", ".join(map(repr, gradients[:MOST_NAMES])) or "none"
            raise SourceError(f"{name!r} is no gradient that a step makes: those are {printable(names)}")
        steps = self._towards(name)
        terms, is_cut = self._terms(name)
        lines = _equation(self._by_name[name], terms)
        if is_cut:
            lines += ["", "There are too many paths or factors to write them all out: gradients in between are named."]
        if len(steps) > 1:
            lines += ["", "Each gradient is rounded where it is stored:", *_stored_lines(steps)]
        return "\n".join(lines)

    def _towards(self, name: str) -> list[Step]:
        """The steps that make the gradients on which one depends, and it."""
        waiting, met = [name], {name}
        while waiting:
            for read in _gradients_read(self._by_name[waiting.pop()]):
                step = self._by_name.get(read)
                if step is not None and step.is_backward and step.kind != "ones" and read not in met:
                    met.add(read)
                    waiting.append(read)
        return [step for step in self.steps if step.name in met]

    def _terms(self, name: str) -> tuple[list[Term], bool]:
        """The terms of a gradient, one a path, each with its factors; and whether some were cut short."""
        order = {step.name: i for i, step in enumerate(self.steps) if step.is_backward and step.kind != "ones"}
        terms: list[tuple[str | None, Term]] = [(name, [])]
        kept: set[str] = set()
        is_cut = False
        # Always the gradient that was made last: no other depends on it any more.
        while open_ones := {leaf for leaf, _ in terms if leaf is not None and leaf in order} - kept:
            leaf = max(open_ones, key=order.__getitem__)
            expanded = [part for term in terms for part in (self._expanded(term) if term[0] == leaf else [term])]
            if leaf == name:
                terms = expanded
            elif self._by_name[leaf].is_clamped:
                kept.add(leaf)
            elif len(expanded) > MOST_PATHS or any(len(factors) >= MOST_FACTORS for _, factors in expanded):
                kept.add(leaf)
                is_cut = True
            else:
                terms = expanded
        return [[*([(leaf, self._value_of(leaf))] if leaf else []), *factors] for leaf, factors in terms], is_cut

    def _expanded(self, term: tuple[str | None, Term]) -> list[tuple[str | None, Term]]:
        """A term that begins with a gradient, by what that was made of."""
        name, factors = term
        assert name is not None
        step = self._by_name[name]
        if step.is_clamped:
            return [(None, [(step._expression(step.reads), _one(step.value))])]
        found: list[tuple[str | None, Term]] = [
            (read, [*_own_factors(step, i), *factors]) for i, read in enumerate(_gradients_read(step))
        ]
        return [*found, (None, [(_number(step.bias), step.bias), *factors])] if step.bias else found

    def _value_of(self, name: str) -> float:
        return _one(self._by_name[name].stored if name in self._by_name else self.sources[name])


Term: TypeAlias = list[tuple[str, float]]
"""The factors of a product: what each is called, and its number."""


def _gradients_read(step: Step) -> tuple[str, ...]:
    return step.reads if step.kind == "sum" else step.reads[:1]


def _own_factors(step: Step, i: int) -> Term:
    """What a step multiplies a gradient with."""
    if step.kind == "gradient":
        assert step.slope is not None
        return [(f"{step.symbol}'({step.reads[1]})", _one(step.slope))]
    factor = step.factors[i]
    return [] if factor == 1 else [(_number(factor), factor)]


def _equation(step: Step, terms: Sequence[Term]) -> list[str]:
    """The sum of products by name, then in numbers, then what it is."""
    # Python's floats, which multiply infinity by 0 without a warning.
    products = [math.prod(number for _, number in term) for term in terms]
    try:
        total = math.fsum(products)
    except (OverflowError, ValueError):
        # The sum of infinities, or of what is nearly infinite.
        total = sum(products)
    head = printable(f"{step.name} = ")
    indent = " " * (len(head) - 2)
    texts = [
        _sum((" * ".join(name for name, _ in term) for term in terms), indent),
        _sum((" * ".join(_number(number) for _, number in term) for term in terms), indent),
        *([_sum(map(_number, products))] if len(terms) > 1 and any(len(term) > 1 for term in terms) else []),
    ]
    if texts[-1] == _number(total):
        del texts[-1]
    result = f"{_number(total)}    stored as {step.format.name}: {_stored(step)} ({_off(step, total)})"
    first, *others = [*dict.fromkeys(texts), result]
    return [f"{head}{first}", *(f"{indent}= {text}" for text in others)]


def _sum(terms: Iterable[str], indent: str = "") -> str:
    """The terms added up, one a line if they are too long for one."""
    terms = [printable(term) for term in terms]
    text = " + ".join(terms)
    if len(indent) + len(text) > WIDEST:
        return f"\n{indent}+ ".join(terms).replace(f"\n{indent}+ -", f"\n{indent}- ")
    return text.replace(" + -", " - ")


def _stored_lines(steps: Iterable[Step]) -> list[str]:
    rows = []
    for step in steps:
        numbers = [_number(_one(of)) for of in step.sources]
        if step.kind == "gradient":
            assert step.slope is not None
            text = f"{numbers[0]} * {_number(_one(step.slope))}"
        else:
            text = step._expression(numbers)
        rows.append(
            [f"  {step.rule}", f"= {text}", f"= {_number(_one(step.value))}",
             f"stored as {step.format.name}: {_stored(step)} ({_off(step, _one(step.value))})"]
        )  # fmt: skip
    return aligned(rows, 4)


# ---- numbers as texts ----


def _one(numbers: Numbers) -> float:
    return float(numbers.reshape(-1)[0])


def _number(value: float) -> str:
    return f"{value:.6g}"


def _scaled(factor: float, name: str) -> str:
    return name if factor == 1 else f"{_number(factor)} * {name}"


def _stored(step: Step) -> str:
    return _number(_one(step.stored))


def _off(step: Step, value: float) -> str:
    """How far the stored number is from a value."""
    stored = _one(step.stored)
    if stored == value or (np.isnan(stored) and np.isnan(value)):
        return "exact"
    if (clamped := _clamped(step, value)) is not None:
        return clamped
    # Python's floats subtract without a warning.
    difference = stored - value
    ulps = abs(difference) / _one(_ulp(np.array([value]), step.storage))
    return f"{difference:+.2g}, {_ulp_text(ulps)}"


def _clamped(step: Step, value: float) -> str | None:
    """What is to be said where a number is not rounded, but outside of what the format can tell."""
    if not step.storage.unorm_max or 0 <= value <= 1:
        return None
    return "nan becomes 0" if np.isnan(value) else "clamped"


def _ulps(step: Step) -> str:
    ulps = _one(step.rounding_ulp)
    if ulps == 0:
        return "exact"
    if (clamped := _clamped(step, _one(step.value))) is not None:
        return clamped
    text = _ulp_text(abs(ulps))
    return text if text.startswith("below") else ("-" if ulps < 0 else "+") + text


def _ulp_text(ulps: float) -> str:
    if ulps == 0:
        return "exact"
    return f"{ulps:.2g} ULP" if ulps >= 0.001 or np.isnan(ulps) else "below 0.001 ULP"


def _range(numbers: Numbers) -> str:
    known = numbers[~np.isnan(numbers)]
    if not known.size:
        return "nan"
    low, high = float(known.min()), float(known.max())
    text = _number(low) if low == high else f"{_number(low)} to {_number(high)}"
    return text if known.size == numbers.size else f"{text}, nan"


def _title(step: Step) -> str:
    """What the node does, in a word or two."""
    is_gradient = step.kind in ("gradient", "scale")
    return f"gradient of {step.function.removesuffix('Gradient')}" if is_gradient else step.function


def _place_text(place: tuple[int, int, int, int]) -> str:
    image, y, x, channel = place
    return f"image {image}, y {y}, x {x}, channel {channel}"


def pixels(sources: Mapping[str, npt.ArrayLike | MPSImage]) -> dict[str, npt.ArrayLike | MPSImage]:
    """The sources, numbers and lists of numbers made images of one pixel."""
    made: dict[str, npt.ArrayLike | MPSImage] = {}
    for name, value in sources.items():
        made[name] = value
        if not isinstance(value, MPSImage):
            array = array_or_error(value, f"source {name!r}")
            if array.ndim < 2:
                made[name] = array.reshape(1, 1, -1).astype(float if array.dtype.kind in "iu" else array.dtype)
    return made


def trace(graph: MPSNNGraph | GraphFile, /, **sources: npt.ArrayLike | MPSImage) -> Trace:
    """
    Evaluate a graph, and keep everything on the way.

    Parameters
    ----------
    graph : MPSNNGraph or GraphFile
        What to evaluate; a graph in its mode.
    **sources : float, or array_like of shape (C,), (H, W, C) or (N, H, W, C), or MPSImage
        As for `MPSNNGraph.run`; and a number, or one for each feature channel, is an image of one pixel.

    Returns
    -------
    Trace
        The steps; printed, a table.

    Raises
    ------
    ParameterError
        `graph` is neither.
    SourceError, ImageError
        As for `MPSNNGraph.run`.

    Notes
    -----
    A step is named by the handle of the image that it makes, else by the node's label. Where that is taken or there is
    none, the gradient of ``x`` is ``dx``, and the gradients that are summed to it are ``dx.1`` and ``dx.2``.

    Examples
    --------
    >>> import mpsref as mps
    >>> from mpsref import teach
    >>> n = mps.MPSCNNNeuronAbsoluteNode(source=mps.MPSNNImageNode(handle="x"))
    >>> n.result_image.handle = "y"
    >>> t = teach.trace(mps.MPSNNGraph(result_image=n.result_image), x=-3)
    >>> t["y"].rule, t["y"].stored.item(), t["y"].slope.item()
    ('y = Absolute(x)', 3.0, -1.0)
    """
    if isinstance(graph, GraphFile):
        graph = MPSNNGraph(result_images=graph.result_images, format=graph.storage)
    if not isinstance(graph, MPSNNGraph):
        raise ParameterError(f"graph is a {type(graph).__name__}: give an MPSNNGraph or a GraphFile")
    given = graph._given(pixels(sources))
    images = graph._slots
    named = image_names(images, dict(zip(images, graph._tags, strict=True)))
    names = [named[image] for image in images]
    gradients = differentiated(image.producer for image in images if image.producer is not None)
    window = _Window(None)
    steps: list[Step] = []

    def watch(step: Any, read: Sequence[MPSImage], made: MPSImage) -> None:
        is_backward = step.node.result_image in gradients or isinstance(step.node, MPSNNInitialGradientNode)
        reads = tuple(names[i] for i in step.sources)
        steps.append(Step(names[step.result], reads, step, (read, made), window, is_backward=is_backward))

    graph._evaluate(given, 1, watch=watch)
    _tell_apart(steps)
    return Trace(steps, dict(zip(names, given, strict=False)))
