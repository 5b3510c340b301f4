"""Plots: their lines are the numbers, their marks where the rows have kinks."""

from __future__ import annotations

import sys

import numpy as np
import pytest

import mpsref as mps
from mpsref import teach
from mpsref.proof.judge import Judge

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402  after the choice of a backend that needs no screen

F, T, D = mps.MPSImageFeatureChannelFormat, mps.MPSCNNNeuronType, mps.MPSNNNeuronDescriptor


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


def descriptor(neuron_type):
    return D(neuron_type, data=[0.25] if mps.NEURONS[neuron_type].per_channel else None)


def judge_of(d):
    return Judge(d.neuron_type.name, *(d.data.tolist() if d.data is not None else [d.a, d.b, d.c]))


def marked(ax, gid):
    return [line for line in ax.get_lines() if line.get_gid() == gid]


def places(ax, gid):
    return sorted(float(line.get_xdata()[0]) for line in marked(ax, gid))


def curves(ax):
    """The value and the slope as they are drawn."""
    return [next(line for line in ax.get_lines() if line.get_label().startswith(start)) for start in ("f = ", "f' = ")]


# ---- a neuron ----


@pytest.mark.parametrize("neuron_type", mps.NEURONS, ids=lambda t: t.name)
def test_the_curve_is_the_neuron(neuron_type):
    d = descriptor(neuron_type)
    ax = teach.plot_neuron(d)
    value, slope = curves(ax)
    judge = judge_of(d)

    x = value.get_xdata()
    for line, derivative in ((value, False), (slope, True)):
        y = line.get_ydata()
        shown = np.isfinite(y)
        assert shown.sum() > 800
        np.testing.assert_allclose(y[shown][::50], judge.float64s(x[shown][::50], derivative), rtol=1e-12)
    assert places(ax, "kink") == sorted(d.row.kinks(d))
    assert ax.get_xlabel()
    assert ax.get_ylabel()
    assert ax.get_legend() is not None
    ax.figure.canvas.draw()


@pytest.mark.parametrize(
    ("d", "beside", "chosen"),
    [
        (D(T.reLU, a=0.5), [(0, 0.5)], [(0, 1)]),
        (D(T.absolute), [(0, -1), (0, 1)], [(0, 0)]),
        (D(T.hardSigmoid, a=0.25, b=0.5), [(-2, 0), (2, 0)], [(-2, 0.25), (2, 0.25)]),
        (D(T.reLUN, a=-0.5, b=3), [(-6, -0.5), (0, -0.5), (3, 1)], [(-6, 0), (0, 1), (3, 0)]),
        (D(T.ELU, a=1), [], [(0, 1)]),
        (D(T.pReLU, data=[0.25, 0.5, 0.25]), [(0, 0.25), (0, 0.5)], [(0, 1), (0, 1)]),
        (D(T.tanH), [], []),
    ],
    ids=lambda each: each.neuron_type.name if isinstance(each, D) else "",
)
def test_open_and_filled_dots_are_the_slopes_at_kinks(d, beside, chosen):
    ax = teach.plot_neuron(d)

    for gid, want, filled in (("slope beside", beside, False), ("slope", chosen, True)):
        dots = marked(ax, gid)
        found = sorted((float(dot.get_xdata()[0]), round(float(dot.get_ydata()[0]), 6)) for dot in dots)
        assert found == sorted(want)
        assert all((dot.get_markerfacecolor() != "white") == filled for dot in dots)


def test_no_line_leads_over_a_kink_or_a_pole():
    for d, at in ((D(T.absolute), 0), (D(T.power, c=-1), 0), (D(T.logarithm, a=2, b=1), -0.5)):
        for line in curves(teach.plot_neuron(d)):
            x, y = line.get_xdata(), line.get_ydata()
            joined = np.isfinite(y[:-1]) & np.isfinite(y[1:])
            assert not (joined & (x[:-1] < at) & (x[1:] > at)).any()


def test_the_ground_is_grey_where_the_function_is_not_real():
    def spans(d, **more):
        ax = teach.plot_neuron(d, **more)
        boxes = [patch.get_extents().transformed(ax.transData.inverted()) for patch in ax.patches]
        return [(round(box.x0, 3), round(box.x1, 3)) for box in boxes], places(ax, "edge")

    assert spans(D(T.logarithm)) == ([(-4.0, 0.0)], [0.0])
    assert spans(D(T.power, a=-2, b=1, c=0.5)) == ([(0.5, 4.0)], [0.5])
    assert spans(D(T.power, c=-1)) == ([], [0.0])
    assert spans(D(T.tanH)) == ([], [])
    assert spans(D(T.logarithm), limits=(1, 2)) == ([], [])
    ax = teach.plot_neuron(D(T.exponential, c=-2), limits=(-2.5, 2.5))
    (points,) = marked(ax, "points")
    assert points.get_xdata().tolist() == [-2, -1, 0, 1, 2]
    assert points.get_ydata().tolist() == [0.25, -0.5, 1, -2, 4]


def test_a_pole_does_not_take_all_the_room():
    low, high = teach.plot_neuron(D(T.power, c=-1)).get_ylim()

    assert -100 < low < -1
    assert 1 < high < 100


@pytest.mark.parametrize(
    "d", [D(T.exponential, a=-5.5e25, b=2, c=3.85), D(T.power, a=2, b=-4.3, c=3.3e35)], ids=lambda d: d.neuron_type.name
)
def test_what_is_nearly_infinite_is_not_drawn(d):
    # Warnings are errors.
    ax = teach.plot_neuron(d)
    ax.figure.canvas.draw()

    assert max(map(abs, ax.get_ylim())) < 1e301
    for line in curves(ax):
        assert np.nanmax(np.abs(line.get_ydata()), initial=0) < 1e301


def test_axes_and_limits_are_those_that_are_given():
    _, mine = plt.subplots()

    assert teach.plot_neuron(D(T.reLU), ax=mine, limits=(3, 5)) is mine
    assert mine.get_xlim() == (3, 5)
    assert places(mine, "kink") == []
    assert mine.get_title() == "reLU, a = 0"
    assert len(plt.get_fignums()) == 1


def test_the_gallery_has_all_sixteen():
    figure = teach.plot_gallery()

    assert [ax.get_title().partition(",")[0] for ax in figure.axes] == [t.name for t in mps.NEURONS]
    assert len(teach.plot_gallery(columns=3).axes) == 18
    for wrong in (0, 17, "4"):
        with pytest.raises(mps.ParameterError, match="columns is"):
            teach.plot_gallery(columns=wrong)


# ---- errors ----


def wrong_tanh(x):
    """The right value, but 3 units above beyond 1, NaN at some, infinite at others."""
    y = mps.neuron.forward(D(T.tanH), x)
    bits = y.view(f"i{x.dtype.itemsize}")
    bits[x > 1] += 3
    y[(x > 4) & (x < 8)] = np.nan
    y[x < -1000] = -np.inf
    return y


@pytest.mark.parametrize(("format", "dtype"), [(F.float16, np.float16), (F.float32, np.float32)])
def test_errors_are_drawn_where_they_are(format, dtype):
    ax = teach.plot_error(wrong_tanh, D(T.tanH), format=format)
    (line,) = marked(ax, "errors")
    (nan,), (infinite,) = marked(ax, "NaN on one side only"), marked(ax, "infinite on one side only")

    def source(line):
        """What the ordinals on the axis stand for."""
        ordinals = np.asarray(line.get_xdata(), np.int64)
        bits = np.abs(ordinals).astype(f"u{dtype().itemsize}").view(dtype)
        return np.where(ordinals < 0, -bits, bits).astype(np.float64)

    x = source(line)
    assert set(line.get_ydata()) == {0, 3}
    assert np.array_equal(line.get_ydata() == 3, x > 1)
    assert ((source(nan) > 4) & (source(nan) < 8)).all()
    assert (source(infinite) < -1000).all()
    assert len(x) + len(source(nan)) + len(source(infinite)) > 60_000
    assert len(source(nan)) > 100
    assert np.abs(x).max() > 6e4
    assert np.unique(np.sign(x)).tolist() == [-1, 0, 1]
    assert f"ULP of {format.name}" in ax.get_ylabel()
    assert "largest error 3 ULP" in ax.get_title()
    assert "wrong_tanh: tanH, a = 1, b = 1" in ax.get_title()
    ticks = [tick.get_text() for tick in ax.get_xticklabels()]
    assert {"0", "1", "-1"} <= set(ticks)
    assert len(ticks) <= 11
    ax.figure.canvas.draw()


def test_the_modes_of_evaluation_can_be_drawn():
    ax = teach.plot_error("stepwise", D(T.softPlus))
    x = np.float32([1e-3, 100])
    far = int(mps.neuron.forward(D(T.softPlus), x, mode="stepwise").view(np.int32)[0]) - int(
        mps.neuron.forward(D(T.softPlus), x).view(np.int32)[0]
    )
    (line,) = marked(ax, "errors")
    near = np.argmin(np.abs(line.get_xdata() - int(x[:1].view(np.int32)[0])))

    assert abs(line.get_ydata()[near] - far) <= 2
    assert marked(ax, "infinite on one side only")
    assert "all exact" in teach.plot_error("ideal", D(T.softPlus), format=F.float16).get_title()
    for direction in ("forward", "gradient"):
        ax = teach.plot_error("stepwise-fma", D(T.reLU, a=0.1), direction=direction, format=F.float16, limits=(-2, 2))
        assert places(ax, "kink") == [0]
        ax = teach.plot_error("stepwise", D(T.reLU), direction=direction, format=F.float16, limits=(1, 2))
        assert places(ax, "kink") == []
        assert len(marked(ax, "errors")[0].get_xdata()) == 1025
    assert "gradient" in ax.get_title()


def test_gradients_get_an_upstream_of_ones():
    def gradient(x, upstream):
        assert (upstream == 1).all()
        assert upstream.dtype == x.dtype
        return np.where(x >= 0, upstream, 0 * upstream)

    assert "all exact" in teach.plot_error(gradient, D(T.reLU), direction="gradient", format=F.float16).get_title()
    with pytest.raises(mps.ImplementationError, match="raised TypeError"):
        teach.plot_error(gradient, D(T.reLU))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"implementation": "precise"}, "implementation is 'precise': choose stepwise or stepwise-fma"),
        ({"direction": "backward"}, "direction is 'backward'"),
        ({"format": F.unorm8}, "format is .*unorm8.*: choose one of float16, float32"),
        ({"limits": (2, 1)}, "the smaller first"),
        ({"limits": (2, float("nan"))}, "the smaller first"),
        ({"limits": (0, float("inf"))}, "give two finite numbers"),
        ({"limits": 3}, "give two numbers"),
        ({"descriptor": 3}, "descriptor is a"),
    ],
)
def test_bad_arguments_get_one_clear_error(arguments, message):
    with pytest.raises(mps.MPSRefError, match=message):
        teach.plot_error(**({"implementation": "stepwise", "descriptor": D(T.tanH)} | arguments))
    assert plt.get_fignums() == []


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)

    for plot in (
        lambda: teach.plot_neuron(D(T.tanH)),
        lambda: teach.plot_error("stepwise", D(T.tanH), format=F.float16),
        teach.plot_gallery,
    ):
        with pytest.raises(mps.DependencyError, match=r"pip install 'mpsref\[teach\]'"):
            plot()
