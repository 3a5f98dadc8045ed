"""The exercises of lesson 03: softening, the soft term and its gradient, the whole objective, and two teachers."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812  (the name that everybody knows it by)
from torch import Tensor

from kdcourse.course.exercises.exercise import Exercise, Misconception


def _tensor(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


STUDENT = _tensor([2.0, 0.0, 1.0], [0.0, 1.0, 0.0])
TEACHER = _tensor([6.0, 2.0, 0.0], [1.0, 0.0, 3.0])
LABELS = torch.tensor([0, 2])


def _random_logits(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    student, teacher = 3 * torch.randn(2, 4, 5, generator=generator, dtype=torch.float64)
    return student, teacher


def _random_temperature(generator: torch.Generator) -> float:
    return 1.5 + 4 * torch.rand(1, generator=generator).item()


def _random_alpha(generator: torch.Generator) -> float:
    return 0.1 + 0.8 * torch.rand(1, generator=generator).item()


def _softened(logits: Tensor, temperature: float) -> Tensor:
    return (logits / temperature).softmax(dim=-1)


SOFTEN = Exercise(
    id="03.soften",
    title="Soften",
    reference=_softened,
    examples=[
        (_tensor([6.0, 2.0, 0.0]), 4.0),
        (_tensor([4.0, 1.0, 0.0], [0.0, 3.0, 0.0]), 2.0),
    ],
    random_inputs=lambda generator: (_random_logits(generator)[0], _random_temperature(generator)),
    difficulty=1,
    minutes=3,
    hints=[
        "The temperature acts on the logits, before the softmax.",
        "A high T brings the logits closer together, so it divides them.",
        "`(logits / temperature).softmax(dim=-1)`",
    ],
    misconceptions=[
        Misconception(
            "multiplied",
            lambda logits, temperature: (logits * temperature).softmax(dim=-1),
            "Yours gives the top class of (6, 2, 0) practically 1 at T = 4, where ours gives 0.63: multiplied logits "
            "are sharper, not softer.",
            "section 2",
        ),
        Misconception(
            "divided-after-softmax",
            lambda logits, temperature: logits.softmax(dim=-1) / temperature,
            "Your rows add up to 1/T: 0.25 at T = 4. Probabilities that are divided are no distribution; divide the "
            "logits.",
            "section 2",
        ),
        Misconception(
            "power-without-normalising",
            lambda logits, temperature: logits.softmax(dim=-1) ** (1 / temperature),
            "Yours adds up to 1.58 for (6, 2, 0) at T = 4, where ours adds up to 1: p to the power 1/T has the right "
            "proportions, but must be divided by its sum.",
            "section 2",
        ),
        Misconception(
            "softmax-of-softmax",
            lambda logits, temperature: (logits.softmax(dim=-1) / temperature).softmax(dim=-1),
            "Yours gives (6, 2, 0) a top probability of 0.39 at T = 4, near 1/3 for whatever you put in: the "
            "probabilities went through a second softmax.",
            "section 2",
        ),
        Misconception(
            "over-the-batch",
            lambda logits, temperature: (logits / temperature).softmax(dim=0),
            "Yours is 1 everywhere for a single row: dim=0 is the batch. The classes are the last dimension.",
            "section 2",
        ),
    ],
)


def _kl(student: Tensor, teacher: Tensor, student_temperature: float, temperature: float) -> Tensor:
    """KL(teacher ‖ student) per row."""
    student_log_probs = (student / student_temperature).log_softmax(dim=-1)
    return F.kl_div(student_log_probs, _softened(teacher, temperature), reduction="none").sum(dim=-1)


def _soft_term(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    return temperature**2 * _kl(student, teacher, temperature, temperature).mean()


def _value_only(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """The right value with the gradient of the KL alone."""
    soft = _kl(student, teacher, temperature, temperature).mean()
    return soft + (temperature**2 - 1) * soft.detach()


SOFT_TERM = Exercise(
    id="03.soft_term",
    title="The soft term",
    reference=_soft_term,
    examples=[(STUDENT, TEACHER, 2.0), (STUDENT, TEACHER, 4.0)],
    random_inputs=lambda generator: (*_random_logits(generator), _random_temperature(generator)),
    difficulty=2,
    minutes=8,
    hints=[
        "Soften both with the same T. `F.kl_div` wants log-probabilities of the student, probabilities of the teacher.",
        'A mean over rows is `reduction="batchmean"`.',
        "Multiply by T² while the loss is still part of the graph.",
    ],
    gradient=True,
    misconceptions=[
        Misconception(
            "t-squared-missing",
            lambda s, t, temperature: _kl(s, t, temperature, temperature).mean(),
            "Yours is a quarter of ours at T = 2 and a sixteenth at T = 4, in value and gradient: T² is missing.",
            "section 4",
        ),
        Misconception(
            "t-once",
            lambda s, t, temperature: temperature * _kl(s, t, temperature, temperature).mean(),
            "Yours is half of ours at T = 2 and a quarter at T = 4: you multiplied by T. One 1/T is the chain rule, "
            "the other is that the softened distributions come closer; it takes both.",
            "section 3",
        ),
        Misconception(
            "t-squared-divides",
            lambda s, t, temperature: _kl(s, t, temperature, temperature).mean() / temperature**2,
            "Yours is a 16th of ours at T = 2 and a 256th at T = 4: you divided by T², and the gradient, which falls "
            "like 1/T² already, now falls like 1/T⁴.",
            "section 4",
        ),
        Misconception(
            "value-only",
            _value_only,
            "Your value is right, and your gradient is a quarter of ours at T = 2, a sixteenth at T = 4: the factor "
            "was put on a number that no longer has a gradient (.item(), .detach()).",
            "section 6",
        ),
        Misconception(
            "student-not-softened",
            lambda s, t, temperature: temperature**2 * _kl(s, t, 1.0, temperature).mean(),
            "Yours is 1.3180 where ours is 1.2190 at T = 2: only the teacher was divided by T. Then the student ends "
            "as unsure, at T = 1, as the softened teacher.",
            "section 7",
        ),
        Misconception(
            "mean-over-classes",
            lambda s, t, temperature: _soft_term(s, t, temperature) / s.shape[-1],
            "Yours is a third of ours for 3 classes and a fifth for 5: reduction='mean' divides by the number of "
            "classes as well; take 'batchmean'.",
            "section 3 (and lesson 02)",
        ),
    ],
)


def _objective(student: Tensor, teacher: Tensor, labels: Tensor, alpha: float, temperature: float) -> Tensor:
    soft = _soft_term(student, teacher, temperature)
    return alpha * F.cross_entropy(student, labels) + (1 - alpha) * soft


def _random_objective(generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, float, float]:
    student, teacher = _random_logits(generator)
    labels = torch.randint(5, (4,), generator=generator)
    return student, teacher, labels, _random_alpha(generator), _random_temperature(generator)


OBJECTIVE = Exercise(
    id="03.objective",
    title="Labels and teacher in one loss",
    reference=_objective,
    examples=[
        (STUDENT, TEACHER, LABELS, 0.25, 4.0),
        (STUDENT, TEACHER, LABELS, 0.0, 4.0),
        (STUDENT, TEACHER, LABELS, 1.0, 4.0),
    ],
    random_inputs=_random_objective,
    difficulty=2,
    minutes=6,
    hints=[
        "The labels are matched at temperature 1: `F.cross_entropy(student_logits, labels)`.",
        "alpha belongs to the labels, 1 − alpha to the teacher. T² belongs to one of the two terms.",
        "`alpha * hard + (1 - alpha) * temperature**2 * kl`",
    ],
    gradient=True,
    misconceptions=[
        Misconception(
            "t-squared-missing",
            lambda s, t, y, alpha, temperature: (
                alpha * F.cross_entropy(s, y) + (1 - alpha) * _kl(s, t, temperature, temperature).mean()
            ),
            "At alpha = 0 yours is a sixteenth of ours at T = 4; at alpha = 1 it is right: T² is missing from the soft "
            "term.",
            "section 4",
        ),
        Misconception(
            "t-squared-on-both",
            lambda s, t, y, alpha, temperature: (
                alpha * temperature**2 * F.cross_entropy(s, y) + (1 - alpha) * _soft_term(s, t, temperature)
            ),
            "At alpha = 1 yours is 16 times ours at T = 4; at alpha = 0 it is right: the hard term is taken at T = 1, "
            "and has no T² to make up for.",
            "section 6",
        ),
        Misconception(
            "labels-softened",
            lambda s, t, y, alpha, temperature: (
                alpha * F.cross_entropy(s / temperature, y) + (1 - alpha) * _soft_term(s, t, temperature)
            ),
            "At alpha = 1 yours is 1.0292 where ours is 0.9795 at T = 4; at alpha = 0 it is right: the student's "
            "logits were divided by T in the hard term, too.",
            "section 6",
        ),
        Misconception(
            "alpha-turned-round",
            lambda s, t, y, alpha, temperature: _objective(s, t, y, 1 - alpha, temperature),
            "Yours at alpha = 0.25 is ours at 0.75, and at alpha = 0 it is the cross-entropy alone: here alpha weights "
            "the labels. Other libraries mean the opposite.",
            "section 6",
        ),
        Misconception(
            "switch-at-alpha-0",
            lambda s, t, y, alpha, temperature: (
                _objective(s, t, y, alpha, temperature) if alpha > 0 else _kl(s, t, temperature, temperature).mean()
            ),
            "Right at every alpha but 0, where yours is a sixteenth of ours at T = 4: T² belongs to the soft term also "
            "when it is the only one.",
            "section 6",
        ),
    ],
)


def _difference(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """p_T − q_T, the mean over rows included."""
    return (_softened(student, temperature) - _softened(teacher, temperature)) / len(student)


SOFT_GRADIENT = Exercise(
    id="03.soft_gradient",
    title="The gradient of the soft term, by hand",
    reference=lambda s, t, temperature: temperature * _difference(s, t, temperature),
    examples=[(STUDENT, TEACHER, 2.0), (STUDENT, TEACHER, 4.0)],
    random_inputs=lambda generator: (*_random_logits(generator), _random_temperature(generator)),
    difficulty=2,
    minutes=6,
    hints=[
        "Section 3 has the gradient of the KL of one row, without T².",
        "T² times the chain rule's 1/T is T. The second 1/T needs no factor: it is inside p_T − q_T.",
        "The mean over N rows divides the gradient of each row by N.",
    ],
    misconceptions=[
        Misconception(
            "t-squared-missing",
            lambda s, t, temperature: _difference(s, t, temperature) / temperature,
            "Yours is a quarter of ours at T = 2 and a sixteenth at T = 4: that is the gradient of the KL alone, and "
            "the soft term has T² in front.",
            "section 4",
        ),
        Misconception(
            "chain-rule-missing",
            lambda s, t, temperature: temperature**2 * _difference(s, t, temperature),
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
            lambda s, t, temperature: _difference(s, t, 1.0),
            "Yours is the same at T = 2 and at T = 4: that is p − q at T = 1, and the temperature was not used.",
            "section 3",
        ),
        Misconception(
            "student-not-softened",
            lambda s, t, temperature: temperature * (_softened(s, 1.0) - _softened(t, temperature)) / len(s),
            "For equal logits of student and teacher ours is 0, and yours is not: only the teacher was divided by T.",
            "section 7",
        ),
        Misconception(
            "uphill",
            lambda s, t, temperature: -temperature * _difference(s, t, temperature),
            "Yours is ours times −1: the student's answer comes first, p_T − q_T, so that a logit with too much falls.",
            "section 3 (and lesson 01)",
        ),
        Misconception(
            "sum-over-rows",
            lambda s, t, temperature: len(s) * temperature * _difference(s, t, temperature),
            "Yours is twice ours for 2 rows and four times for 4: that is the gradient of the sum over rows, and the "
            "soft term is their mean.",
            "section 4",
        ),
    ],
)


def _mean_target(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    return (_softened(first, temperature) + _softened(second, temperature)) / 2


def _power(probabilities: Tensor, exponent: float) -> Tensor:
    """p to a power, made to add up to 1 again."""
    raised = probabilities**exponent
    return raised / raised.sum(dim=-1, keepdim=True)


TWO_TEACHERS = Exercise(
    id="03.two_teachers",
    title="One target from two teachers",
    reference=_mean_target,
    examples=[
        (_tensor([6.0, 0.0, 0.0]), _tensor([0.0, 3.0, 0.0]), 1.0),
        (_tensor([6.0, 0.0, 0.0]), _tensor([0.0, 3.0, 0.0]), 2.0),
    ],
    random_inputs=lambda generator: (*_random_logits(generator), _random_temperature(generator)),
    difficulty=2,
    minutes=5,
    hints=[
        "Write down the gradient of KL(q₁ ‖ p) + KL(q₂ ‖ p), halved, with the formula of section 3.",
        "(p − q₁)/2 + (p − q₂)/2 = p − (q₁ + q₂)/2, all at temperature T.",
    ],
    misconceptions=[
        Misconception(
            "mean-logits",
            lambda first, second, temperature: _softened((first + second) / 2, temperature),
            "Yours gives (0.79, 0.18, 0.04) for (6, 0, 0) and (0, 3, 0) at T = 1, ours (0.52, 0.46, 0.02): the mean of "
            "logits is the geometric mean of the probabilities, and listens to the louder teacher.",
            "section 8",
        ),
        Misconception(
            "softened-after-mean",
            lambda first, second, temperature: _power(_mean_target(first, second, 1.0), 1 / temperature),
            "Right at T = 1, but (0.465, 0.435, 0.100) at T = 2, where ours is (0.532, 0.368, 0.100): each teacher is "
            "softened first, then they are averaged.",
            "section 8",
        ),
        Misconception(
            "not-softened",
            lambda first, second, temperature: _mean_target(first, second, 1.0),
            "Right at T = 1, and the same (0.52, 0.46, 0.02) at T = 2: the temperature was not used.",
            "section 8",
        ),
        Misconception(
            "sum-not-mean",
            lambda first, second, temperature: 2 * _mean_target(first, second, temperature),
            "Your rows add up to 2: a target is a distribution, so take the mean.",
            "section 8",
        ),
    ],
)

EXERCISES = [SOFTEN, SOFT_TERM, SOFT_GRADIENT, OBJECTIVE, TWO_TEACHERS]
