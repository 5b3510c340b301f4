"""Plots of neurons and of errors with matplotlib, which the extra ``teach`` installs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np

from mpsref import neuron
from mpsref.arguments import checked, checked_but
from mpsref.arrays import Stored, Wide
from mpsref.enums import MPSImageFeatureChannelFormat
from mpsref.errors import DependencyError, ParameterError, shown
from mpsref.formats import COMPUTED, format_among
from mpsref.neuron.descriptor import MPSNNNeuronDescriptor, NeuronLike, descriptor_or_error
from mpsref.neuron.stepwise import MODES
from mpsref.neuron.table import NEURONS
from mpsref.storage import FormatLike, StorageFormat
from mpsref.sweep.implementation import call, name_of

__all__ = ["plot_error", "plot_gallery", "plot_neuron"]

Axes: TypeAlias = Any
"""matplotlib's ``Axes``."""

Figure: TypeAlias = Any
"""matplotlib's ``Figure``."""

Limits: TypeAlias = tuple[float, float]

# Okabe and Ito's palette, safe for the colour-blind; line styles and markers differ as well.
_VALUE, _SLOPE, _NAN, _INFINITE, _POINT = "#0072B2", "#D55E00", "#CC79A7", "#E69F00", "#0072B2"
_GREY, _SHADE = "#808080", "#d9d9d9"

POINTS = 2000
"""Points of a curve."""

SAMPLES = 1 << 16
"""Numbers of a format that are tried, at most."""

MOST_SLOPES = 4
"""Slopes of pReLU that are drawn, at most."""

BESIDE = 1e-7
"""Relative distance from a kink or pole at which one-sided slopes are taken."""

LARGEST_LINEAR = 16
"""Errors up to this many ULP are drawn on a linear scale."""

LARGEST = 1e300
"""Larger numbers are not drawn, since their differences overflow."""

FARTHEST = 1e6
"""Kinks farther out are not shown unless the limits include them."""


def _pyplot() -> Any:
    try:
        import matplotlib.pyplot as plt  # noqa: PLC0415
    except ImportError:
        raise DependencyError("matplotlib is missing, which draws plots: pip install 'mpsref[teach]'") from None
    return plt


def _axes(ax: Axes | None, size: tuple[float, float]) -> Axes:
    plt = _pyplot()
    if ax is not None and not isinstance(ax, plt.Axes):
        raise ParameterError(f"ax is {shown(ax)}: give matplotlib's Axes")
    return plt.subplots(figsize=size, layout="constrained")[1] if ax is None else ax


def _limits_or_error(limits: Limits | None) -> Limits | None:
    if limits is None:
        return None
    try:
        low, high = (float(limit) for limit in limits)
    except Exception:  # noqa: BLE001  somebody's object may raise anything
        raise ParameterError(f"limits are {shown(limits)}: give two numbers") from None
    if not (low < high and math.isfinite(high - low)):
        raise ParameterError(f"limits are {shown(limits)}: give two finite numbers, the smaller first")
    return low, high


def _one_slope_each(descriptor: MPSNNNeuronDescriptor) -> list[MPSNNNeuronDescriptor]:
    """The descriptor, or one for each of the first distinct slopes of pReLU."""
    if descriptor.data is None:
        return [descriptor]
    slopes = list(dict.fromkeys(descriptor.data.tolist()))[:MOST_SLOPES]
    return [MPSNNNeuronDescriptor(descriptor.neuron_type, data=[slope]) for slope in slopes]


def _title(descriptor: MPSNNNeuronDescriptor) -> str:
    facts = [f"{name} = {np.float32(value):g}" for name, value in descriptor.parameters.items()]
    if descriptor.data is not None:
        facts.append(f"data = {', '.join(f'{slope:g}' for slope in descriptor.data[:MOST_SLOPES])}")
        facts[-1] += ", ..." if len(descriptor.data) > MOST_SLOPES else ""
    return ", ".join([descriptor.neuron_type.name, *facts])


# ---- a neuron ----


@checked_but("descriptor", "limits")
def plot_neuron(descriptor: NeuronLike, *, ax: Axes | None = None, limits: Limits | None = None) -> Axes:
    """
    Draw a neuron and its derivative.

    Parameters
    ----------
    descriptor : MPSNNNeuronDescriptor, MPSCNNNeuronType or str
        The neuron. The first four distinct slopes of pReLU are drawn.
    ax : matplotlib.axes.Axes, optional
        Where to draw. Default: a new figure.
    limits : tuple of two floats, optional
        The range of inputs. Default: one that includes the kinks and the edge of the domain.

    Returns
    -------
    matplotlib.axes.Axes
        With the curve and its derivative. At a kink a filled dot is the slope that the documented comparison chooses,
        an open one the limit of the slope on one side. The background is grey where the function is not a real number.

    Raises
    ------
    DependencyError
        matplotlib is not installed.
    ParameterError
        The limits are not two numbers, the smaller first.

    Examples
    --------
    >>> import mpsref as mps
    >>> from mpsref import teach
    >>> ax = teach.plot_neuron(mps.MPSNNNeuronDescriptor(mps.MPSCNNNeuronType.ELU, a=0.5))
    >>> ax.get_title()
    'ELU, a = 0.5'
    """
    descriptor = descriptor_or_error(descriptor)
    limits = _limits_or_error(limits)
    ax = _axes(ax, (6.4, 4.2))
    _draw(ax, descriptor, limits)
    ax.set_xlabel("source x")
    ax.set_ylabel("value and slope")
    ax.legend(loc="best", fontsize="small")
    return ax


def _draw(ax: Axes, descriptor: MPSNNNeuronDescriptor, limits: Limits | None) -> None:
    row = descriptor.row
    singles = _one_slope_each(descriptor)
    edges = _edges(descriptor)
    low, high = _around(edges) if limits is None else limits
    inside = [edge for edge in edges if low < edge < high]
    shown: list[Wide] = []
    ax.axhline(0, color=_GREY, linewidth=0.6, zorder=0)
    ax.axvline(0, color=_GREY, linewidth=0.6, zorder=0)
    for i, single in enumerate(singles):
        x = _between(low, high, inside)
        value, slope = _values(single, x), _slopes(single, x)
        ax.plot(x, _broken(value), color=_VALUE, label=None if i else f"f = {row.formula}")
        ax.plot(x, _broken(slope), color=_SLOPE, linestyle="--", label=None if i else f"f' = {row.slope}")
        shown += [value, slope]
        if not i:
            _shade(ax, x, value)
        if np.isnan(value).all():
            shown.append(_draw_points(ax, single, low, high))
        for kink in row.kinks(single):
            if low < kink < high:
                _mark_kink(ax, single, kink)
    for edge in inside:
        if edge not in row.kinks(singles[0]):
            ax.axvline(edge, color=_GREY, linestyle=":", linewidth=1.2).set_gid("edge")
    ax.set_xlim(low, high)
    ax.set_ylim(*_heights(np.concatenate(shown)))
    ax.set_title(_title(descriptor))


def _values(descriptor: MPSNNNeuronDescriptor, x: Wide) -> Wide:
    return np.asarray(neuron.forward(descriptor, x[:, np.newaxis])[:, 0], np.float64)


def _slopes(descriptor: MPSNNNeuronDescriptor, x: Wide) -> Wide:
    x = x[:, np.newaxis]
    return np.asarray(neuron.gradient(descriptor, x, np.ones_like(x))[:, 0], np.float64)


def _edges(descriptor: MPSNNNeuronDescriptor) -> list[float]:
    """Kinks, and the zero of ``a x + b`` if the domain ends there."""
    edges = {edge for single in _one_slope_each(descriptor) for edge in descriptor.row.kinks(single)}
    if "a x + b" in descriptor.row.domain and descriptor.a:
        edge = -descriptor.b / descriptor.a
        beside = BESIDE * max(abs(edge), 1.0)
        x = np.array([edge - beside, edge, edge + beside])
        if not np.isfinite([_values(descriptor, x), _slopes(descriptor, x)]).all():
            edges.add(edge)
    return sorted(edge for edge in edges if math.isfinite(edge))


def _around(edges: Sequence[float]) -> Limits:
    near = [edge for edge in edges if abs(edge) <= FARTHEST] or [0.0]
    margin = max(2.0, (max(near) - min(near)) / 4)
    return min(min(near) - margin, -4.0), max(max(near) + margin, 4.0)


def _between(low: float, high: float, edges: Sequence[float]) -> Wide:
    """Inputs in order, close to both sides of each edge, but not on it."""
    parts = []
    for start, stop in pairwise([low, *edges, high]):
        room = BESIDE * max(abs(start), abs(stop), 1.0)
        count = max(50, round(POINTS * (stop - start) / (high - low)))
        # NaN breaks the line at an edge.
        parts += [np.linspace(start + room, stop - room, count), np.array([np.nan])]
    return np.concatenate(parts)


def _broken(values: Wide) -> Wide:
    """Values with NaN for infinities and huge numbers, which break the line."""
    return np.where(np.abs(values) < LARGEST, values, np.nan)


def _heights(values: Wide) -> Limits:
    """Limits that show everything, unless a pole would take all the room."""
    finite = values[np.abs(values) < LARGEST]
    if not finite.size:
        return -1.0, 1.0
    low, high = float(finite.min()), float(finite.max())
    bottom, top = np.quantile(finite, (0.04, 0.96)).tolist()
    spread = max(top - bottom, 1.0)
    if high - low > 6 * spread:
        low, high = max(low, bottom - spread / 2), min(high, top + spread / 2)
    margin = 0.06 * max(high - low, 0.5)
    return low - margin, high + margin


def _shade(ax: Axes, x: Wide, value: Wide) -> None:
    """Grey where the function is not a real number."""
    known = ~np.isnan(x)
    x, is_nan = x[known], np.isnan(value[known])
    changes = np.flatnonzero(np.diff(np.concatenate([[False], is_nan, [False]]).astype(int)))
    for i, (start, stop) in enumerate(changes.reshape(-1, 2)):
        span = ax.axvspan(x[start], x[stop - 1], facecolor=_SHADE, edgecolor="none", zorder=-1)
        span.set_label(None if i else "f is not a real number")
        span.set_gid("outside")


def _draw_points(ax: Axes, descriptor: MPSNNNeuronDescriptor, low: float, high: float) -> Wide:
    """The values of a function that is real only where ``a x + b`` is an integer."""
    a, b = descriptor.a or 1.0, descriptor.b
    first, last = sorted((a * low + b, a * high + b))
    integers = np.arange(math.ceil(first), math.floor(min(last, first + POINTS)) + 1)
    x = np.asarray((integers - b) / a, np.float64)
    value = _values(descriptor, x)
    ax.plot(x, value, marker=".", linestyle="none", color=_VALUE, gid="points")
    return value


def _mark_kink(ax: Axes, descriptor: MPSNNNeuronDescriptor, kink: float) -> None:
    beside = BESIDE * max(abs(kink), 1.0)
    left, here, right = _slopes(descriptor, np.array([kink - beside, kink, kink + beside])).tolist()
    line = ax.axvline(kink, color=_GREY, linestyle=":", linewidth=1.2, zorder=0.5)
    line.set_gid("kink")
    style = {"marker": "o", "markersize": 6, "linestyle": "none", "color": _SLOPE, "zorder": 3, "clip_on": True}
    for side in (left, right):
        if not math.isclose(side, here, rel_tol=1e-5, abs_tol=1e-6):
            ax.plot([kink], [side], markerfacecolor="white", gid="slope beside", **style)
    ax.plot([kink], [here], gid="slope", **style)
    value = _values(descriptor, np.array([kink]))[0]
    ax.plot([kink], [value], marker="o", markersize=4, linestyle="none", color=_VALUE, gid="value", zorder=2.5)


@checked
def plot_gallery(*, columns: int = 4) -> Figure:
    """
    Draw all sixteen neurons with their default parameters, each with its derivative.

    Parameters
    ----------
    columns : int
        Number of columns.

    Returns
    -------
    matplotlib.figure.Figure
        A new figure.

    Raises
    ------
    DependencyError
        matplotlib is not installed.
    """
    plt = _pyplot()
    if columns not in range(1, len(NEURONS) + 1):
        raise ParameterError(f"columns is {shown(columns)}: give an integer from 1 to {len(NEURONS)}")
    rows = -(-len(NEURONS) // columns)
    figure, grid = plt.subplots(rows, columns, figsize=(3.0 * columns, 2.5 * rows), layout="constrained", squeeze=False)
    for ax, (neuron_type, row) in zip(grid.flat, NEURONS.items(), strict=False):
        _draw(ax, MPSNNNeuronDescriptor(neuron_type, data=[0.25] if row.per_channel else None), None)
        ax.title.set_fontsize("small")
        ax.tick_params(labelsize="x-small")
    for ax in grid.flat[len(NEURONS) :]:
        ax.set_visible(False)
    value, slope = grid.flat[0].get_lines()[2:4]
    figure.legend([value, slope], ["f", "f'"], loc="outside lower center", ncols=2)
    return figure


def plot_losses(losses: Wide, *, ax: Axes | None = None) -> Axes:
    """Draw a loss after each step; see `mpsref.teach.Descent.plot`."""
    ax = _axes(ax, (6.4, 3.4))
    ax.plot(np.arange(len(losses)), losses, color=_VALUE)
    if (losses > 0).all():
        ax.set_yscale("log")
    ax.set_xlabel("step")
    ax.set_ylabel("loss")
    ax.set_title("The loss, step by step")
    return ax


# ---- errors ----


@checked_but("descriptor", "limits")
def plot_error(
    implementation: str | Callable[..., Any],
    descriptor: NeuronLike,
    *,
    direction: str = "forward",
    format: FormatLike = MPSImageFeatureChannelFormat.float32,
    ax: Axes | None = None,
    limits: Limits | None = None,
) -> Axes:
    """
    Draw how far an implementation is from the correctly rounded result, over the number line.

    Parameters
    ----------
    implementation : str or callable
        ``stepwise`` or ``stepwise-fma``; or a function, or ``module:function``, that takes an array of inputs, and for
        the gradient one of ones as well, as for `mpsref.sweep.sweep`.
    descriptor : MPSNNNeuronDescriptor, MPSCNNNeuronType or str
        The neuron; of pReLU's slopes the first one.
    direction : str
        ``forward`` or ``gradient``.
    format : MPSImageFeatureChannelFormat, str or dtype
        float16, of which every number is tried, or float32, of which 65,536 are, evenly over all magnitudes.
    ax : matplotlib.axes.Axes, optional
        Where to draw. Default: a new figure.
    limits : tuple of two floats, optional
        The range of inputs. Default: all finite ones.

    Returns
    -------
    matplotlib.axes.Axes
        Inputs are equally spaced in the order of the format's numbers, so that each magnitude has its room; errors are
        in units in the last place, linear near 0 and logarithmic beyond. NaN and infinities on one side only are marked
        at the top.

    Raises
    ------
    DependencyError
        matplotlib is not installed.
    ParameterError
        An argument is none of these.
    ImplementationError
        The function raises an error, or returns anything but an array like its argument.

    Examples
    --------
    >>> import mpsref as mps
    >>> from mpsref import teach
    >>> d = mps.MPSNNNeuronDescriptor(mps.MPSCNNNeuronType.softPlus)
    >>> ax = teach.plot_error("stepwise", d, format=mps.MPSImageFeatureChannelFormat.float16)
    >>> ax.get_ylabel()
    'error in ULP of float16'
    """
    descriptor = descriptor_or_error(descriptor)
    if direction not in ("forward", "gradient"):
        raise ParameterError(f"direction is {shown(direction)}: choose forward or gradient")
    storage = format_among(format, among=COMPUTED)
    limits = _limits_or_error(limits)
    single = _one_slope_each(descriptor)[0]
    x = _number_line(storage, limits)
    got, want = _results(implementation, single, x, direction)
    ax = _axes(ax, (7.2, 4.2))
    summary = _draw_errors(ax, storage, x, got, want)
    for kink in single.row.kinks(single):
        at = int(storage.ordinals(np.array([kink]).astype(storage.dtype))[0])
        if storage.ordinals(x)[0] <= at <= storage.ordinals(x)[-1]:
            ax.axvline(at, color=_GREY, linestyle=":", linewidth=1, zorder=0).set_gid("kink")
    _name_numbers(ax, storage, x)
    name = implementation if isinstance(implementation, str) else name_of(implementation).rpartition(":")[2]
    ax.set_title(
        f"{name}: {_title(single)}{', gradient' if direction == 'gradient' else ''}\n{summary}", fontsize="medium"
    )
    ax.set_xlabel("source x, in the order of the numbers of its format")
    ax.set_ylabel(f"error in ULP of {storage.name}")
    return ax


def _number_line(storage: StorageFormat, limits: Limits | None) -> Stored:
    """Finite numbers of a format in order, evenly spaced among all its numbers."""
    largest = float(storage.limits.max)
    low, high = (-largest, largest) if limits is None else limits
    ends = np.clip(np.array([low, high]), -largest, largest).astype(storage.dtype)
    first, last = storage.ordinals(ends).tolist()
    count = min(SAMPLES, last - first + 1)
    # Always include -1, 0 and 1, where formulas have special cases.
    special = storage.ordinals(np.array([-1, 0, 1], storage.dtype))
    spread = np.rint(np.linspace(first, last, count)).astype(np.int64)
    ordinals = np.unique(np.concatenate([spread, special[(first <= special) & (special <= last)]]))
    bits = np.where(ordinals < 0, -ordinals | (1 << (8 * storage.dtype.itemsize - 1)), ordinals)
    return bits.astype(storage.bits_dtype).view(storage.dtype)


def _results(
    implementation: str | Callable[..., Any], descriptor: MPSNNNeuronDescriptor, x: Stored, direction: str
) -> tuple[Stored, Stored]:
    """The results of the implementation, and the right ones."""
    upstream = np.ones_like(x) if direction == "gradient" else None

    def reference(mode: str) -> Stored:
        pixels = x[:, np.newaxis]
        if upstream is None:
            return neuron.forward(descriptor, pixels, mode=mode)[:, 0]
        return neuron.gradient(descriptor, pixels, upstream[:, np.newaxis], mode=mode)[:, 0]

    if isinstance(implementation, str) and implementation in MODES:
        return reference(implementation), reference("ideal")
    if isinstance(implementation, str) and ":" not in implementation:
        raise ParameterError(
            f"implementation is {shown(implementation)}: choose {' or '.join(list(MODES)[2:])}, or give a "
            "function or MODULE:FUNCTION"
        )
    got = call(implementation, x.copy(), None if upstream is None else upstream.copy())
    return got, reference("ideal")


def _draw_errors(ax: Axes, storage: StorageFormat, x: Stored, got: Stored, want: Stored) -> str:
    """Draw the errors, and return a summary of them."""
    place = storage.ordinals(x)
    is_nan = np.isnan(got) != np.isnan(want)
    both = np.isnan(got) & np.isnan(want)
    is_infinite = ~is_nan & ~both & (got != want) & (np.isinf(got) | np.isinf(want))
    plain = ~(is_nan | is_infinite | both)
    error = (storage.ordinals(got) - storage.ordinals(want)).astype(np.float64)
    largest = float(np.abs(error[plain]).max(initial=0.0))
    exact = int(np.count_nonzero(plain & (error == 0))) + int(np.count_nonzero(both))
    ax.axhline(0, color=_GREY, linewidth=0.8, zorder=0)
    ax.plot(
        place[plain], error[plain], linestyle="none", marker=".", markersize=2, color=_POINT, rasterized=True,
        gid="errors",
    )  # fmt: skip
    for mask, height, marker, colour, label in (
        (is_nan, 0.93, "x", _NAN, "NaN on one side only"),
        (is_infinite, 0.97, "^", _INFINITE, "infinite on one side only"),
    ):
        count = int(np.count_nonzero(mask))
        if count:
            ax.plot(
                place[mask], np.full(count, height), linestyle="none", marker=marker, markersize=4,
                color=colour, rasterized=True, label=f"{label}: {count:,}", gid=label,
                transform=ax.get_xaxis_transform(),
            )  # fmt: skip
    if is_nan.any() or is_infinite.any():
        ax.legend(loc="upper left", bbox_to_anchor=(0.01, 0.91), fontsize="small")
    _scale_errors(ax, largest)
    fraction = "all" if exact == len(x) else f"{min(100 * exact / len(x), 99.99):.4g} %"
    return f"{fraction} exact, largest error {largest:,.0f} ULP"


def _scale_errors(ax: Axes, largest: float) -> None:
    """Linear where errors are small; else linear to 1, and logarithmic beyond."""
    if largest <= LARGEST_LINEAR:
        top = max(2.0, largest)
        ax.set_ylim(-1.3 * top, 1.5 * top)
        ax.yaxis.get_major_locator().set_params(integer=True)
        return
    ax.set_yscale("symlog", linthresh=1, base=10)
    most = math.ceil(math.log10(largest))
    powers = range(0, most + 1, max(1, math.ceil(most / 4)))
    ticks = [0.0, *(sign * 10.0**n for n in powers for sign in (1, -1))]
    ax.set_yticks(ticks, [_short(tick) for tick in ticks], minor=False)
    ax.set_yticks([], minor=True)
    ax.set_ylim(-(10.0 ** (most + 0.5)), 10.0 ** (most + 1.5))


def _short(number: float) -> str:
    return f"{number:g}".replace("e+0", "e").replace("e+", "e").replace("e-0", "e-")


def _name_numbers(ax: Axes, storage: StorageFormat, x: Stored) -> None:
    """Ticks at powers of ten, as many as fit."""
    places = storage.ordinals(x)
    first, last = int(places[0]), int(places[-1])
    facts = storage.limits
    powers = [10.0**n for n in range(-45, 39) if float(facts.smallest_subnormal) <= 10.0**n <= float(facts.max)]
    numbers = sorted([-p for p in powers] + [0.0] + powers)
    ticks = [(int(storage.ordinals(np.array([n]).astype(storage.dtype))[0]), n) for n in numbers]
    ticks = [(at, n) for at, n in ticks if first <= at <= last]
    room = (last - first) / 9
    chosen: list[tuple[int, float]] = []
    # 0 and 1 first, then whatever is far enough from the others.
    for at, n in sorted(ticks, key=lambda tick: (tick[1] != 0, abs(abs(tick[1]) - 1) > 0, -abs(tick[0]))):
        if all(abs(at - other) >= room for other, _ in chosen):
            chosen.append((at, n))
    ax.set_xticks([at for at, _ in chosen], [_short(n) for _, n in chosen])
    ax.set_xlim(first - room / 8, last + room / 8)
