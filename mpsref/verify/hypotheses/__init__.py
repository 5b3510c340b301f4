"""
What may have gone wrong: a class for each fault, a module for each family of faults, and the list of all.

The order of the list matters: see `mpsref.verify.faults`.
"""

from mpsref.verify.hypotheses import formula, memory, parameters, precision, special
from mpsref.verify.hypotheses.base import Candidate, Hypothesis

__all__ = ["HYPOTHESES", "Candidate", "Hypothesis"]

HYPOTHESES: tuple[type[Hypothesis], ...] = (
    special.NaNToZero,
    special.NaNCompared,
    special.SlopeAtKink,
    special.Overflow,
    formula.FastTanh,
    special.SubnormalsFlushed,
    formula.LiteralC,
    formula.HardSigmoidTestsX,
    formula.ReLUNSlopeB,
    formula.GeLUDoubled,
    formula.ELUWithoutParentheses,
    formula.GeLUTanhForm,
    formula.UpstreamMissing,
    formula.UpstreamTwice,
    formula.NotApplied,
    formula.WrongDirection,
    formula.DerivativeAtOutput,
    formula.SlopeFromResult,
    formula.AppliedTwice,
    formula.Accumulated,
    formula.SignFlipped,
    memory.NeverWritten,
    parameters.ParametersSwapped,
    parameters.ParameterMissing,
    parameters.ParameterDefault,
    parameters.ParameterInHalf,
    parameters.SlopeOfAnotherChannel,
    precision.StoredThroughHalf,
    precision.ReadThroughHalf,
    precision.Truncated,
    memory.LanesPermuted,
    memory.ChannelMajor,
    memory.SlicesInARow,
    memory.PaddingCounted,
    memory.RowsAndColumns,
    memory.RowStride,
    memory.Offset,
    memory.AnotherImage,
    formula.AnotherNeuron,
    precision.ComputedInHalf,
    precision.Stepwise,
)
"""Each fault that is looked for, the most specific first."""
