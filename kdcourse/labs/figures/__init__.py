"""The figures of the course: one style, safe for colour-blind readers, each with its alt text; a module per lesson."""

from kdcourse.labs.figures.lesson00 import Measured, accuracy_against_cost, describe_accuracy_against_cost
from kdcourse.labs.figures.lesson01 import (
    between_the_ends,
    covering_and_seeking,
    describe_between_the_ends,
    describe_covering_and_seeking,
    describe_divergence_terms,
    divergence_terms,
)
from kdcourse.labs.figures.lesson02 import (
    describe_log_softmax_cliff,
    describe_losses_in_training,
    log_softmax_cliff,
    losses_in_training,
)
from kdcourse.labs.figures.lesson03 import (
    answers_by_class,
    describe_answers_by_class,
    describe_gradient_against_temperature,
    describe_image_and_answer,
    describe_softened_distributions,
    gradient_against_temperature,
    image_and_answer,
    softened_distributions,
)
from kdcourse.labs.figures.lesson04 import (
    Voices,
    alpha_by_temperature,
    alpha_sweep,
    describe_alpha_by_temperature,
    describe_alpha_sweep,
    describe_two_voices,
    two_voices,
)
from kdcourse.labs.figures.lesson05 import columns_at_stops, describe_columns_at_stops
from kdcourse.labs.figures.lesson06 import TokenGrid, describe_supervised_positions, supervised_positions
from kdcourse.labs.figures.lesson07 import (
    accuracy_by_steps,
    describe_accuracy_by_steps,
    describe_inside_and_outside,
    describe_seeds_of_arms,
    describe_transfer_curve,
    inside_and_outside,
    seeds_of_arms,
    transfer_curve,
)
from kdcourse.labs.figures.style import BLUE, GREEN, GREY, ORANGE, STYLE, show

__all__ = [
    "BLUE",
    "GREEN",
    "GREY",
    "ORANGE",
    "STYLE",
    "Measured",
    "TokenGrid",
    "Voices",
    "accuracy_against_cost",
    "accuracy_by_steps",
    "alpha_by_temperature",
    "alpha_sweep",
    "answers_by_class",
    "between_the_ends",
    "columns_at_stops",
    "covering_and_seeking",
    "describe_accuracy_against_cost",
    "describe_accuracy_by_steps",
    "describe_alpha_by_temperature",
    "describe_alpha_sweep",
    "describe_answers_by_class",
    "describe_between_the_ends",
    "describe_columns_at_stops",
    "describe_covering_and_seeking",
    "describe_divergence_terms",
    "describe_gradient_against_temperature",
    "describe_image_and_answer",
    "describe_inside_and_outside",
    "describe_log_softmax_cliff",
    "describe_losses_in_training",
    "describe_seeds_of_arms",
    "describe_softened_distributions",
    "describe_supervised_positions",
    "describe_transfer_curve",
    "describe_two_voices",
    "divergence_terms",
    "gradient_against_temperature",
    "image_and_answer",
    "inside_and_outside",
    "log_softmax_cliff",
    "losses_in_training",
    "seeds_of_arms",
    "show",
    "softened_distributions",
    "supervised_positions",
    "transfer_curve",
    "two_voices",
]
