"""The figures of the course: one style, safe for colour-blind readers, each with its alt text; a module per lesson."""

from kdcourse.labs.figures.lesson00 import (
    Doubts,
    doubts_of_teacher_and_people,
    label_and_teacher,
    pairs_of_seeds,
    teacher_and_student,
    two_by_two,
)
from kdcourse.labs.figures.lesson01 import covering_and_seeking, divergence_terms, logarithm_and_tangent
from kdcourse.labs.figures.lesson02 import divergences_in_training, log_softmax_cliff, losses_in_training
from kdcourse.labs.figures.lesson03 import (
    answers_by_class,
    gradient_against_temperature,
    image_and_answer,
    missing_digit,
    picture_of_a_digit,
    rescaled_gradient,
    softened_distributions,
)
from kdcourse.labs.figures.lesson04 import (
    Losses,
    Voices,
    alpha_by_temperature,
    alpha_sweep,
    logs_of_runs,
    losses_of_runs,
    two_voices,
)
from kdcourse.labs.figures.lesson05 import accumulation, columns_at_stops
from kdcourse.labs.figures.lesson06 import (
    Curve,
    Cut,
    TokenGrid,
    cuts_of_a_sentence,
    learning_curves,
    supervised_positions,
)
from kdcourse.labs.figures.lesson07 import (
    NATS,
    POINTS,
    accuracy_by_steps,
    forest_of_comparisons,
    inside_and_outside,
    transfer_curve,
)
from kdcourse.labs.figures.lesson08 import (
    bytes_and_error,
    change_by_layer,
    loss_by_steps,
    memory_of_steps,
    perplexity_by_domain,
    reliability,
)
from kdcourse.labs.figures.lesson09 import differences_in_nats, divergence_by_position, score_against_cost
from kdcourse.labs.figures.lesson10 import Bill, Holding, bills, held_at_once
from kdcourse.labs.figures.lesson11 import (
    answers_by_temperature,
    errors_by_shift,
    errors_by_temperature,
    misread_pictures,
)
from kdcourse.labs.figures.lesson12 import accuracy_by_labels, detectable_by_seeds, family_of_comparisons
from kdcourse.labs.figures.lesson13 import between_the_ends, distance_by_step, memory_over_a_step
from kdcourse.labs.figures.picture import Picture
from kdcourse.labs.figures.style import BLUE, GREEN, GREY, ORANGE, STYLE

__all__ = [
    "BLUE",
    "GREEN",
    "GREY",
    "NATS",
    "ORANGE",
    "POINTS",
    "STYLE",
    "Bill",
    "Curve",
    "Cut",
    "Doubts",
    "Holding",
    "Losses",
    "Picture",
    "TokenGrid",
    "Voices",
    "accumulation",
    "accuracy_by_labels",
    "accuracy_by_steps",
    "alpha_by_temperature",
    "alpha_sweep",
    "answers_by_class",
    "answers_by_temperature",
    "between_the_ends",
    "bills",
    "bytes_and_error",
    "change_by_layer",
    "columns_at_stops",
    "covering_and_seeking",
    "cuts_of_a_sentence",
    "detectable_by_seeds",
    "differences_in_nats",
    "distance_by_step",
    "divergence_by_position",
    "divergence_terms",
    "divergences_in_training",
    "doubts_of_teacher_and_people",
    "errors_by_shift",
    "errors_by_temperature",
    "family_of_comparisons",
    "forest_of_comparisons",
    "gradient_against_temperature",
    "held_at_once",
    "image_and_answer",
    "inside_and_outside",
    "label_and_teacher",
    "learning_curves",
    "log_softmax_cliff",
    "logarithm_and_tangent",
    "logs_of_runs",
    "loss_by_steps",
    "losses_in_training",
    "losses_of_runs",
    "memory_of_steps",
    "memory_over_a_step",
    "misread_pictures",
    "missing_digit",
    "pairs_of_seeds",
    "perplexity_by_domain",
    "picture_of_a_digit",
    "reliability",
    "rescaled_gradient",
    "score_against_cost",
    "softened_distributions",
    "supervised_positions",
    "teacher_and_student",
    "transfer_curve",
    "two_by_two",
    "two_voices",
]
