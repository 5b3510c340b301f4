"""
What may have gone wrong: a hypothesis for each fault, a module for each family, and the list of all.

The order of the list matters: see `mpsref.verify.faults`.
"""

from mpsref.verify.hypotheses import formula, memory, parameters, precision, special
from mpsref.verify.hypotheses.base import Candidate, Hypothesis

__all__ = ["HYPOTHESES", "Candidate", "Hypothesis"]

HYPOTHESES: tuple[Hypothesis, ...] = (
    special.nan_to_zero,
    special.nan_compared,
    special.slope_at_kink,
    special.overflow,
    formula.fast_tanh,
    special.subnormals_flushed,
    formula.literal_c,
    formula.hard_sigmoid_tests_x,
    formula.relun_slope_b,
    formula.gelu_doubled,
    formula.elu_without_parentheses,
    formula.gelu_approximated,
    formula.gradient_missing,
    formula.gradient_twice,
    formula.not_applied,
    formula.wrong_direction,
    formula.derivative_at_output,
    formula.slope_from_result,
    formula.applied_twice,
    formula.accumulated,
    formula.sign_flipped,
    memory.never_written,
    parameters.parameters_swapped,
    parameters.parameter_missing,
    parameters.parameter_default,
    parameters.parameter_in_half,
    parameters.slope_of_another_channel,
    precision.stored_through_half,
    precision.read_through_half,
    precision.truncated,
    memory.lanes_permuted,
    memory.channel_major,
    memory.slices_in_arow,
    memory.padding_counted,
    memory.rows_and_columns,
    memory.row_stride,
    memory.offset,
    memory.another_image,
    formula.another_neuron,
    precision.computed_in_half,
    precision.stepwise,
)
"""Every fault that is tried, the most specific first."""
