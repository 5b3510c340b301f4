"""A kernel attacked by Hypothesis, and the simplest inputs at which it fails."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from mpsref.arguments import checked_but
from mpsref.enums import ActivationType, MPSImageFeatureChannelFormat
from mpsref.errors import CONVERSION_ERRORS, ParameterError, shown
from mpsref.formats import COMPUTED, format_among
from mpsref.neuron.descriptor import neuron_type_or_error
from mpsref.storage import FormatLike, StorageFormat
from mpsref.sweep.implementation import Implementation, load, name_of
from mpsref.testing.attack import Attack
from mpsref.testing.comparison import Bounds, bounds_text, resolved
from mpsref.testing.reports import Failure, ImplementationCheck
from mpsref.testing.subject import Neurons, Subject

__all__ = ["Failure", "ImplementationCheck", "check_implementation"]

F = MPSImageFeatureChannelFormat


@checked_but("formats")
def check_implementation(
    function: Implementation,
    neuron: Neurons | str,
    *,
    direction: str = "forward",
    bounds: Bounds | None = None,
    ulp: int | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    formats: FormatLike | Sequence[FormatLike] = (F.float32, F.float16),
    max_examples: int | None = None,
    seed: int | None = None,
    name: str | None = None,
) -> ImplementationCheck:
    """
    Fail unless an implementation of a neuron withstands an attack; report the simplest inputs at which it fails.

    Parameters
    ----------
    function : callable or str
        The implementation, or ``module:function``: ``function(x)``, or for a gradient ``function(x, upstream)``, with
        one-dimensional arrays of a format's dtype; it returns an array of the same shape and dtype. For a pReLU with
        several slopes there are two dimensions, the last being the feature channels. It is called a few hundred times,
        with arrays of about a dozen lengths.
    neuron : MPSNNNeuronDescriptor, MPSCNNNeuronType, str or strategy of MPSNNNeuronDescriptor
        What it should compute. With a type, its name or a strategy, parameters vary, and the descriptor is the
        function's last argument.
    direction : str
        ``forward`` or ``gradient``.
    bounds, ulp, rtol, atol
        What passes, as for `mpsref.testing.compare`; by default 4 ULP.
    formats : MPSImageFeatureChannelFormat, str or dtype, or sequence of them
        Among float32, float16 and bfloat16, of which arrays have the dtype of ``ml_dtypes``. As wherever a format is
        taken, Metal's ``half`` and ``float``, and dtypes of numpy, torch, JAX, MLX and TensorFlow, will do.
    max_examples : int, optional
        Arrays for each format, besides those that have all halves. Default: that of the Hypothesis profile, 100
        unless you change it.
    seed : int, optional
        Selects another attack; without it the same program always makes the same attack.
    name : str, optional
        What the report calls the implementation.

    Returns
    -------
    ImplementationCheck
        If nothing fails.

    Raises
    ------
    VerificationError
        Something is beyond the bounds. An `AssertionError`, with the `ImplementationCheck` as its ``report``.
    ImplementationError
        The implementation cannot be imported, raises an error, or returns something else.
    ParameterError
        An argument is invalid.

    Notes
    -----
    Each array has values that Hypothesis draws, with `mpsref.testing.strategies.floats`, at both ends, and some hundred
    others in between: simple, special and arbitrary ones. All halves are tried too, as float32 as well, and numbers of
    every magnitude in arrays of up to 131,075 elements, gradients with an incoming gradient of 1. Then come views:
    sliced, reversed, with an offset, broadcast and transposed, the last with two dimensions; an error that only a view
    raises is no failure, but reported. Failures are sorted into kinds, apart if a model of arithmetic allows such
    results, and each is reduced to the simplest input, alone if it fails alone, else in the shortest array; the
    report says if another call with it gives another result. No database of examples is written.

    Examples
    --------
    >>> import numpy as np
    >>> import mpsref as mps
    >>> from mpsref.testing import check_implementation
    >>> d = mps.MPSNNNeuronDescriptor(mps.MPSCNNNeuronType.softSign)
    >>> try:
    ...     check_implementation(lambda x: x / (1 + np.abs(x)), d, max_examples=20)
    ... except mps.VerificationError as error:
    ...     for failure in error.report.failures:
    ...         print(failure.format, failure.kind, failure.x, failure.want)
    float32 NaN ('inf', 'inf', '0x7f800000') ('1.0', '0x1.0p+0', '0x3f800000')
    float16 NaN ('inf', 'inf', '0x7c00') ('1.0', '0x1.0p+0', '0x3c00')
    """
    __tracebackhide__ = True
    limit = resolved(bounds, ulp, rtol, atol)
    if direction not in ("forward", "gradient"):
        raise ParameterError(f"direction is {shown(direction)}: choose one of forward, gradient")
    _integer_or_error(max_examples, "max_examples", 1)
    _integer_or_error(seed, "seed", 0)
    storages = _storages(formats)
    if isinstance(neuron, str):
        neuron = ActivationType.__members__.get(neuron) or neuron_type_or_error(neuron, "neuron")
    load(function)
    attacks = [Attack(Subject(function, neuron, direction, limit, storage)) for storage in storages]
    for attack in attacks:
        attack.run(max_examples, seed)
    report = ImplementationCheck(
        name or name_of(function),
        direction,
        bounds_text(limit),
        tuple(storage.name for storage in storages),
        sum(attack.arrays for attack in attacks),
        sum(attack.elements for attack in attacks),
        tuple(sorted((f for attack in attacks for f in attack.failures()), key=lambda failure: failure.is_allowed)),
        {view: error for attack in attacks for view, error in attack.refused.items()},
    )
    report.check()
    return report


def _integer_or_error(value: Any, name: str, least: int) -> None:
    if value is not None and (not isinstance(value, int | np.integer) or isinstance(value, bool) or value < least):
        raise ParameterError(f"{name} is {shown(value)}: give an integer of at least {least}")


def _storages(formats: Any) -> list[StorageFormat]:
    try:
        several = list(formats) if isinstance(formats, Iterable) and not isinstance(formats, str | type) else [formats]
    except CONVERSION_ERRORS:
        raise ParameterError(f"formats is {shown(formats)}: give a list of formats") from None
    storages = list(dict.fromkeys(format_among(one, "formats", COMPUTED) for one in several))
    if not storages:
        raise ParameterError("formats is empty: give at least one")
    return storages
