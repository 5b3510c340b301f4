"""Arrays as a caller may hand them out: views of memory that holds other numbers too."""

from __future__ import annotations

import numpy as np

from mpsref.arrays import Stored

__all__ = ["VIEWS", "viewed"]

VIEWS = ("sliced", "reversed", "offset", "broadcast", "transposed")
"""Every second row; the last row first; from the second row on; one row again and again; columns taken for rows."""


def viewed(kind: str, values: Stored) -> Stored:
    """
    A view of one of `VIEWS` with these values; of the first row alone, if it is broadcast.

    Parameters
    ----------
    kind : str
        One of `VIEWS`.
    values : ndarray
        Of one or two axes.

    Notes
    -----
    The view lies amid other numbers. So a kernel that ignores strides, or where a view begins, reads these, and not
    what lies outside of the array.

    Examples
    --------
    >>> import numpy as np
    >>> x = viewed("reversed", np.float32([1, 2, 3]))
    >>> x, x.strides
    (array([1., 2., 3.], dtype=float32), (-4,))
    """
    n, *channels = values.shape
    others = np.random.default_rng(n).normal(0, 4, (6 * n + 2, *channels)).astype(values.dtype)
    middle = 3 * n
    if kind == "sliced":
        view = others[middle : middle + 2 * n : 2]
    elif kind == "reversed":
        view = others[middle : middle + n][::-1]
    elif kind == "offset":
        view = others[middle + 1 : middle + 1 + n]
    elif kind == "broadcast":
        others[middle] = values[0]
        return np.broadcast_to(others[middle], values.shape)
    else:
        view = others[middle : middle + n].reshape(values.shape[::-1]).T
    view[...] = values
    return view
