"""The exercises of lesson 03: softening, the gradient of the soft term, and the whole objective."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812  (the name that everybody knows it by)
from torch import Generator, Tensor

from kdcourse.course.exercises.exercise import Exercise, Inputs, Misconception
from kdcourse.course.exercises.logits import float64, soft_term, softened

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


def _random_probabilities(generator: Generator) -> Inputs:
    return _random_logits(generator)[0].softmax(-1), _random_temperature(generator)


def _soften_probabilities(probabilities: Tensor, temperature: float) -> Tensor:
    return softened(probabilities.log(), temperature)


SOFTEN = Exercise(
    id="03.soften",
    title="Soften what is a probability already",
    difficulty=1,
    minutes=4,
    examples=[(float64([[0.9, 0.09, 0.01]]), 2.0), (float64([[1.0, 0.0, 0.0], [0.5, 0.25, 0.25]]), 4.0)],
    random_inputs=_random_probabilities,
    reference=_soften_probabilities,
    misconceptions=[
        Misconception(
            "divided",
            lambda probabilities, temperature: probabilities / temperature,
            "Your rows add up to 1/T: a half at T = 2. It is the logits that are divided; which logits have these "
            "probabilities?",
            "section 2",
        ),
        Misconception(
            "divided-and-normalised",
            lambda probabilities, temperature: (
                (probabilities / temperature) / (probabilities / temperature).sum(-1, keepdim=True)
            ),
            "Yours gives back what went in: T cancels when probabilities are divided by T and then by their sum. It is "
            "the logits that are divided.",
            "section 2",
        ),
        Misconception(
            "power-without-normalising",
            lambda probabilities, temperature: probabilities ** (1 / temperature),
            "Yours adds up to 1.35 for (0.9, 0.09, 0.01) at T = 2, where ours adds up to 1: the proportions are right, "
            "and must still be divided by their sum.",
            "section 2",
        ),
        Misconception(
            "probabilities-as-logits",
            lambda probabilities, temperature: (probabilities / temperature).softmax(-1),
            "Yours gives (0.9, 0.09, 0.01) a top probability of 0.43 at T = 2, near 1/3 for whatever you put in: the "
            "probabilities went through a softmax as if they were logits.",
            "section 2",
        ),
        Misconception(
            "sharpened",
            lambda probabilities, temperature: softened(probabilities.log(), 1 / temperature),
            "Yours makes 0.99 of the 0.9 at T = 2, where ours makes 0.70 of it: multiplied logits, or the power T, are "
            "sharper, not softer.",
            "section 2",
        ),
        Misconception(
            "over-the-batch",
            lambda probabilities, temperature: (probabilities.log() / temperature).softmax(0),
            "Yours is 1 everywhere for a single row: dim=0 is the batch. The classes are the last dimension.",
            "section 2",
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
    minutes=5,
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
            "section 5",
        ),
        Misconception(
            "labels-softened",
            _objective_labels_softened,
            "At alpha = 1 yours is 1.0292 where ours is 0.9795 at T = 4; at alpha = 0 it is right: the student's "
            "logits were divided by T in the hard term, too.",
            "section 5",
        ),
        Misconception(
            "alpha-turned-round",
            _objective_alpha_turned_round,
            "Yours at alpha = 0.25 is ours at 0.75, and at alpha = 0 it is the cross-entropy alone: here alpha weights "
            "the labels. Other libraries mean the opposite.",
            "section 5",
        ),
        Misconception(
            "switch-at-alpha-0",
            _objective_switch_at_alpha_0,
            "Right at every alpha but 0, where yours is a sixteenth of ours at T = 4: T² belongs to the soft term also "
            "when it is the only one.",
            "section 5",
        ),
    ],
)


EXERCISES = [SOFTEN, SOFT_GRADIENT, OBJECTIVE]
