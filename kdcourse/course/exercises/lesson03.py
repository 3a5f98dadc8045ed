"""The exercises of lesson 03: softening, the soft term and its gradient, the whole objective, and two teachers."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812  (the name that everybody knows it by)
from torch import Generator, Tensor

from kdcourse.course.exercises.exercise import Exercise, Inputs, Misconception
from kdcourse.course.exercises.logits import float64, kl_per_row, soft_term, softened

STUDENT = float64([[2.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
TEACHER = float64([[6.0, 2.0, 0.0], [1.0, 0.0, 3.0]])


def _random_logits(generator: Generator) -> Inputs:
    student, teacher = 3 * torch.randn(2, 4, 5, generator=generator, dtype=torch.float64)
    return student, teacher


def _random_temperature(generator: Generator) -> float:
    return 1.5 + 4 * torch.rand(1, generator=generator).item()


def _random_at_a_temperature(generator: Generator) -> Inputs:
    return *_random_logits(generator), _random_temperature(generator)


# ---------------------------------------------------------------------------------------------------------------------
# 03.soften


def _random_teacher(generator: Generator) -> Inputs:
    return _random_logits(generator)[0], _random_temperature(generator)


SOFTEN = Exercise(
    id="03.soften",
    title="Soften",
    difficulty=1,
    minutes=3,
    examples=[(float64([[6.0, 2.0, 0.0]]), 4.0), (float64([[4.0, 1.0, 0.0], [0.0, 3.0, 0.0]]), 2.0)],
    random_inputs=_random_teacher,
    reference=softened,
    misconceptions=[
        Misconception(
            "multiplied",
            lambda logits, temperature: (logits * temperature).softmax(-1),
            "Yours gives the top class of (6, 2, 0) practically 1 at T = 4, where ours gives 0.63: multiplied logits "
            "are sharper, not softer.",
            "section 2",
        ),
        Misconception(
            "divided-after-softmax",
            lambda logits, temperature: logits.softmax(-1) / temperature,
            "Your rows add up to 1/T: 0.25 at T = 4. Probabilities that are divided are no distribution; divide the "
            "logits.",
            "section 2",
        ),
        Misconception(
            "power-without-normalising",
            lambda logits, temperature: logits.softmax(-1) ** (1 / temperature),
            "Yours adds up to 1.58 for (6, 2, 0) at T = 4, where ours adds up to 1: p to the power 1/T has the right "
            "proportions, but must be divided by its sum.",
            "section 2",
        ),
        Misconception(
            "softmax-of-softmax",
            lambda logits, temperature: (logits.softmax(-1) / temperature).softmax(-1),
            "Yours gives (6, 2, 0) a top probability of 0.39 at T = 4, near 1/3 for whatever you put in: the "
            "probabilities went through a second softmax.",
            "section 2",
        ),
        Misconception(
            "over-the-batch",
            lambda logits, temperature: (logits / temperature).softmax(0),
            "Yours is 1 everywhere for a single row: dim=0 is the batch. The classes are the last dimension.",
            "section 2",
        ),
    ],
)


# ---------------------------------------------------------------------------------------------------------------------
# 03.soft_term


def _soft_term_value_only(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """The right value, with the gradient of the KL alone."""
    kl = soft_term(student, teacher, temperature) / temperature**2
    return kl + (temperature**2 - 1) * kl.detach()


SOFT_TERM = Exercise(
    id="03.soft_term",
    title="The soft term",
    difficulty=2,
    minutes=8,
    examples=[(STUDENT, TEACHER, 2.0), (STUDENT, TEACHER, 4.0)],
    random_inputs=_random_at_a_temperature,
    reference=soft_term,
    gradient=True,
    misconceptions=[
        Misconception(
            "t-squared-missing",
            lambda student, teacher, temperature: soft_term(student, teacher, temperature) / temperature**2,
            "Yours is a quarter of ours at T = 2 and a sixteenth at T = 4, in value and gradient: T² is missing.",
            "section 4",
        ),
        Misconception(
            "t-once",
            lambda student, teacher, temperature: soft_term(student, teacher, temperature) / temperature,
            "Yours is half of ours at T = 2 and a quarter at T = 4: you multiplied by T. One 1/T is the chain rule, "
            "the other is that the softened distributions come closer; it takes both.",
            "section 3",
        ),
        Misconception(
            "t-squared-divides",
            lambda student, teacher, temperature: soft_term(student, teacher, temperature) / temperature**4,
            "Yours is a 16th of ours at T = 2 and a 256th at T = 4: you divided by T², and the gradient, which falls "
            "like 1/T² already, now falls like 1/T⁴.",
            "section 4",
        ),
        Misconception(
            "value-only",
            _soft_term_value_only,
            "Your value is right, and your gradient is a quarter of ours at T = 2, a sixteenth at T = 4: the factor "
            "was put on a number that no longer has a gradient (.item(), .detach()).",
            "section 6",
        ),
        Misconception(
            "student-not-softened",
            lambda student, teacher, temperature: temperature**2 * kl_per_row(student, teacher / temperature).mean(),
            "Yours is 1.3180 where ours is 1.2190 at T = 2: only the teacher was divided by T. Then the student ends "
            "as unsure, at T = 1, as the softened teacher.",
            "section 7",
        ),
        Misconception(
            "mean-over-classes",
            lambda student, teacher, temperature: soft_term(student, teacher, temperature) / student.shape[-1],
            "Yours is a third of ours for 3 classes and a fifth for 5: reduction='mean' divides by the number of "
            "classes as well; take 'batchmean'.",
            "section 3 (and lesson 02)",
        ),
    ],
)


# ---------------------------------------------------------------------------------------------------------------------
# 03.soft_gradient


def _difference(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """p_T − q_T, the mean over rows included."""
    return (softened(student, temperature) - softened(teacher, temperature)) / len(student)


def _soft_gradient(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    return temperature * _difference(student, teacher, temperature)


def _soft_gradient_student_not_softened(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    return temperature * (student.softmax(-1) - softened(teacher, temperature)) / len(student)


SOFT_GRADIENT = Exercise(
    id="03.soft_gradient",
    title="The gradient of the soft term, by hand",
    difficulty=2,
    minutes=6,
    examples=[(STUDENT, TEACHER, 2.0), (STUDENT, TEACHER, 4.0)],
    random_inputs=_random_at_a_temperature,
    reference=_soft_gradient,
    misconceptions=[
        Misconception(
            "t-squared-missing",
            lambda student, teacher, temperature: _difference(student, teacher, temperature) / temperature,
            "Yours is a quarter of ours at T = 2 and a sixteenth at T = 4: that is the gradient of the KL alone, and "
            "the soft term has T² in front.",
            "section 4",
        ),
        Misconception(
            "chain-rule-missing",
            lambda student, teacher, temperature: temperature**2 * _difference(student, teacher, temperature),
            "Yours is twice ours at T = 2 and four times at T = 4: the logits are divided by T inside the softmax, and "
            "the chain rule brings a factor 1/T that turns T² into T.",
            "section 3",
        ),
        Misconception(
            "no-power-left",
            _difference,
            "Yours is half of ours at T = 2 and a quarter at T = 4: T² meets one 1/T only, that of the chain rule. The "
            "other is inside p_T − q_T already, so a factor T is left.",
            "section 3",
        ),
        Misconception(
            "not-softened",
            lambda student, teacher, temperature: _difference(student, teacher, 1.0),
            "Yours is the same at T = 2 and at T = 4: that is p − q at T = 1, and the temperature was not used.",
            "section 3",
        ),
        Misconception(
            "student-not-softened",
            _soft_gradient_student_not_softened,
            "For equal logits of student and teacher ours is 0, and yours is not: only the teacher was divided by T.",
            "section 7",
        ),
        Misconception(
            "uphill",
            lambda student, teacher, temperature: -_soft_gradient(student, teacher, temperature),
            "Yours is ours times −1: the student's answer comes first, p_T − q_T, so that a logit with too much falls.",
            "section 3 (and lesson 01)",
        ),
        Misconception(
            "sum-over-rows",
            lambda student, teacher, temperature: len(student) * _soft_gradient(student, teacher, temperature),
            "Yours is twice ours for 2 rows and four times for 4: that is the gradient of the sum over rows, and the "
            "soft term is their mean.",
            "section 4",
        ),
    ],
)


# ---------------------------------------------------------------------------------------------------------------------
# 03.objective

LABELS = torch.tensor([0, 2])


def _random_objective(generator: Generator) -> Inputs:
    student, teacher = _random_logits(generator)
    labels = torch.randint(5, (4,), generator=generator)
    alpha = 0.1 + 0.8 * torch.rand(1, generator=generator).item()
    return student, teacher, labels, alpha, _random_temperature(generator)


def _objective(student: Tensor, teacher: Tensor, labels: Tensor, alpha: float, temperature: float) -> Tensor:
    return alpha * F.cross_entropy(student, labels) + (1 - alpha) * soft_term(student, teacher, temperature)


def _objective_t_squared_missing(
    student: Tensor, teacher: Tensor, labels: Tensor, alpha: float, temperature: float
) -> Tensor:
    soft = soft_term(student, teacher, temperature) / temperature**2
    return alpha * F.cross_entropy(student, labels) + (1 - alpha) * soft


def _objective_t_squared_on_both(
    student: Tensor, teacher: Tensor, labels: Tensor, alpha: float, temperature: float
) -> Tensor:
    hard = temperature**2 * F.cross_entropy(student, labels)
    return alpha * hard + (1 - alpha) * soft_term(student, teacher, temperature)


def _objective_labels_softened(
    student: Tensor, teacher: Tensor, labels: Tensor, alpha: float, temperature: float
) -> Tensor:
    hard = F.cross_entropy(student / temperature, labels)
    return alpha * hard + (1 - alpha) * soft_term(student, teacher, temperature)


def _objective_alpha_turned_round(
    student: Tensor, teacher: Tensor, labels: Tensor, alpha: float, temperature: float
) -> Tensor:
    return _objective(student, teacher, labels, 1 - alpha, temperature)


def _objective_switch_at_alpha_0(
    student: Tensor, teacher: Tensor, labels: Tensor, alpha: float, temperature: float
) -> Tensor:
    if alpha == 0:
        return soft_term(student, teacher, temperature) / temperature**2
    return _objective(student, teacher, labels, alpha, temperature)


OBJECTIVE = Exercise(
    id="03.objective",
    title="Labels and teacher in one loss",
    difficulty=2,
    minutes=6,
    examples=[
        (STUDENT, TEACHER, LABELS, 0.25, 4.0),
        (STUDENT, TEACHER, LABELS, 0.0, 4.0),
        (STUDENT, TEACHER, LABELS, 1.0, 4.0),
    ],
    random_inputs=_random_objective,
    reference=_objective,
    gradient=True,
    misconceptions=[
        Misconception(
            "t-squared-missing",
            _objective_t_squared_missing,
            "At alpha = 0 yours is a sixteenth of ours at T = 4; at alpha = 1 it is right: T² is missing from the soft "
            "term.",
            "section 4",
        ),
        Misconception(
            "t-squared-on-both",
            _objective_t_squared_on_both,
            "At alpha = 1 yours is 16 times ours at T = 4; at alpha = 0 it is right: the hard term is taken at T = 1, "
            "and has no T² to make up for.",
            "section 6",
        ),
        Misconception(
            "labels-softened",
            _objective_labels_softened,
            "At alpha = 1 yours is 1.0292 where ours is 0.9795 at T = 4; at alpha = 0 it is right: the student's "
            "logits were divided by T in the hard term, too.",
            "section 6",
        ),
        Misconception(
            "alpha-turned-round",
            _objective_alpha_turned_round,
            "Yours at alpha = 0.25 is ours at 0.75, and at alpha = 0 it is the cross-entropy alone: here alpha weights "
            "the labels. Other libraries mean the opposite.",
            "section 6",
        ),
        Misconception(
            "switch-at-alpha-0",
            _objective_switch_at_alpha_0,
            "Right at every alpha but 0, where yours is a sixteenth of ours at T = 4: T² belongs to the soft term also "
            "when it is the only one.",
            "section 6",
        ),
    ],
)


# ---------------------------------------------------------------------------------------------------------------------
# 03.two_teachers


def _two_teachers(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    return (softened(first, temperature) + softened(second, temperature)) / 2


def _two_teachers_softened_after_mean(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    raised = _two_teachers(first, second, 1.0) ** (1 / temperature)
    return raised / raised.sum(-1, keepdim=True)


TWO_TEACHERS = Exercise(
    id="03.two_teachers",
    title="One target from two teachers",
    difficulty=2,
    minutes=5,
    examples=[(float64([[6.0, 0.0, 0.0]]), float64([[0.0, 3.0, 0.0]]), temperature) for temperature in (1.0, 2.0)],
    random_inputs=_random_at_a_temperature,
    reference=_two_teachers,
    misconceptions=[
        Misconception(
            "mean-logits",
            lambda first, second, temperature: softened((first + second) / 2, temperature),
            "Yours gives (0.79, 0.18, 0.04) for (6, 0, 0) and (0, 3, 0) at T = 1, ours (0.52, 0.46, 0.02): the mean of "
            "logits is the geometric mean of the probabilities, and listens to the louder teacher.",
            "section 8",
        ),
        Misconception(
            "softened-after-mean",
            _two_teachers_softened_after_mean,
            "Right at T = 1, but (0.465, 0.435, 0.100) at T = 2, where ours is (0.532, 0.368, 0.100): each teacher is "
            "softened first, then they are averaged.",
            "section 8",
        ),
        Misconception(
            "not-softened",
            lambda first, second, temperature: _two_teachers(first, second, 1.0),
            "Right at T = 1, and the same (0.52, 0.46, 0.02) at T = 2: the temperature was not used.",
            "section 8",
        ),
        Misconception(
            "sum-not-mean",
            lambda first, second, temperature: 2 * _two_teachers(first, second, temperature),
            "Your rows add up to 2: a target is a distribution, so take the mean.",
            "section 8",
        ),
    ],
)


EXERCISES = [SOFTEN, SOFT_TERM, SOFT_GRADIENT, OBJECTIVE, TWO_TEACHERS]
