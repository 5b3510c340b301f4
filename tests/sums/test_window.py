"""Windows: which source element feeds which element of the result."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpsref.errors import ParameterError
from mpsref.sums import Window
from mpsref.sums.window import regions
from sums_judge import reads

pairs = st.tuples(st.integers(1, 4), st.integers(1, 4))
windows = st.builds(
    Window,
    kernel=pairs,
    strides=pairs,
    dilations=pairs,
    first=st.tuples(st.integers(-6, 6), st.integers(-6, 6)),
    result=st.tuples(st.integers(0, 5), st.integers(0, 5)),
)


@given(windows, st.integers(1, 7), st.integers(1, 7))
def test_tables_taps_and_counts_are_those_of_the_definition(window, height, width):
    read = {*reads(window, height, width)}
    rows, columns = window.table(0, height), window.table(1, width)
    by_row, by_column = window.transposed(0, height), window.transposed(1, width)
    of_rows, of_columns = window.counts(height, width)

    for oy, ox in np.ndindex(window.result):
        taps = [(ky, kx, y, x) for a, b, ky, kx, y, x in sorted(read) if (a, b) == (oy, ox)]
        assert window.taps(oy, ox, height, width) == taps
        assert of_rows[oy] * of_columns[ox] == len(taps)
    assert {
        (oy, ox, ky, kx, int(rows[oy, ky]), int(columns[ox, kx]))
        for oy, ox in np.ndindex(window.result)
        for ky, kx in np.ndindex(window.kernel)
        if rows[oy, ky] >= 0 and columns[ox, kx] >= 0
    } == read
    assert {
        (int(by_row[y, ky]), int(by_column[x, kx]), ky, kx, y, x)
        for y, x in np.ndindex(height, width)
        for ky, kx in np.ndindex(window.kernel)
        if by_row[y, ky] >= 0 and by_column[x, kx] >= 0
    } == read


@given(windows, st.integers(1, 7), st.integers(1, 7))
def test_phases_read_the_same_backwards_and_no_element_twice(window, height, width):
    read, met = [], np.zeros((height, width), int)
    for rows, columns, phase in window.phases((height, width)):
        met[rows.elements, columns.elements] += 1
        ys, xs = range(height)[rows.elements], range(width)[columns.elements]
        kys, kxs = range(window.kernel[0])[rows.taps], range(window.kernel[1])[columns.taps]
        read += [(oy, ox, kys[a], kxs[b], ys[j], xs[i]) for j, i, a, b, oy, ox in reads(phase, *window.result)]

    assert met.max() <= 1
    assert sorted(read) == sorted(reads(window, height, width))


@given(st.tuples(st.integers(0, 3), st.integers(0, 9), st.integers(0, 9)), st.integers(0, 40))
def test_regions_have_every_pixel_once_and_few(shape, target):
    met = np.zeros(shape, int)
    for region in regions(shape, target):
        met[region] += 1
        assert met[region].size <= max(target, 1)

    assert (met == 1).all()


def test_a_frame_of_zeros_counts_taps_in_it():
    window = Window((3, 3), first=(-1, -1), result=(3, 3))

    assert [counts.tolist() for counts in window.counts(3, 3)] == [[2, 3, 2]] * 2
    assert [counts.tolist() for counts in window.counts(3, 3, frame=(1, 1))] == [[3, 3, 3]] * 2


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kernel": (0, 1)}, "kernel is (0, 1): give integers from 1 to"),
        ({"kernel": 3}, "kernel is 3: give two integers, for rows and columns"),
        ({"kernel": (1, 1), "strides": (1, 0)}, "strides is (1, 0): give integers from 1"),
        ({"kernel": (1, 1), "first": (0, 2**31)}, "first is (0, 2147483648): give integers from -2,147,483,647"),
        ({"kernel": (1, 1), "result": (-1, 1)}, "result is (-1, 1): give integers from 0"),
        ({"kernel": (1.5, 1)}, "kernel is (1.5, 1): give two integers"),
    ],
)
def test_a_wrong_field_is_named(fields, message):
    with pytest.raises(ParameterError, match="^" + re.escape(message)):
        Window(**fields)
