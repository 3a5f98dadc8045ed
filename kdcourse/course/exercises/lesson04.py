"""The exercises of lesson 04: labels and teacher in one number, and the many ways to weigh them by accident."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812  (the name that everybody knows it by)
from torch import Generator, Tensor

from kdcourse.checks import IGNORED_LABEL
from kdcourse.course.exercises.exercise import Exercise, Inputs, Misconception
from kdcourse.course.exercises.logits import kl_per_row, one_hot, softened
from kdcourse.loss import distillation_loss

# ---------------------------------------------------------------------------------------------------------------------
# 04.which_end

Objective = Callable[[Tensor, Tensor, Tensor, float], Tensor]


def _weighs_labels(student: Tensor, teacher: Tensor, labels: Tensor, weight: float) -> Tensor:
    return distillation_loss(student, teacher, labels, alpha=weight, temperature=2.0).total


def _weighs_teacher(student: Tensor, teacher: Tensor, labels: Tensor, weight: float) -> Tensor:
    return distillation_loss(student, teacher, labels, alpha=1 - weight, temperature=2.0).total


def _adds_teacher(student: Tensor, teacher: Tensor, labels: Tensor, weight: float) -> Tensor:
    parts = distillation_loss(student, teacher, labels, alpha=0.5, temperature=2.0)
    return parts.hard + weight * parts.soft


def _weighs_labels_loud_teacher(student: Tensor, teacher: Tensor, labels: Tensor, weight: float) -> Tensor:
    parts = distillation_loss(student, teacher, labels, alpha=0.5, temperature=2.0)
    return weight * parts.hard + (1 - weight) * 100 * (parts.soft + 1)


LOSSES = (_weighs_labels, _weighs_teacher, _adds_teacher, _weighs_labels_loud_teacher)


def _random_loss(generator: Generator) -> Inputs:
    return (LOSSES[int(torch.randint(len(LOSSES), (), generator=generator))],)


STUDENT, TEACHER = torch.tensor([[1.0, -1.0]]), torch.tensor([[0.5, -0.5]])
"""What the reference and the wrong answers try a loss with."""


def _which_end(loss: Objective) -> str:
    labels, other_labels = torch.tensor([0]), torch.tensor([1])

    def hears(weight: float) -> tuple[bool, bool]:
        before = loss(STUDENT, TEACHER, labels, weight)
        by_labels = loss(STUDENT, TEACHER, other_labels, weight)
        by_teacher = loss(STUDENT, -2 * TEACHER, labels, weight)
        return not torch.isclose(before, by_labels), not torch.isclose(before, by_teacher)

    ends = (hears(0.0), hears(1.0))
    if ends == ((False, True), (True, False)):
        return "labels"
    if ends == ((True, False), (False, True)):
        return "teacher"
    return "neither"


def _which_end_one_end_only(loss: Objective) -> str:
    before, after = (loss(STUDENT, teacher, torch.tensor([0]), 0.0) for teacher in (TEACHER, -2 * TEACHER))
    return "teacher" if torch.isclose(before, after) else "labels"


def _which_end_compares_sizes(loss: Objective) -> str:
    at_0, at_1 = (loss(STUDENT, TEACHER, torch.tensor([1]), weight) for weight in (0.0, 1.0))
    return "labels" if at_1 > at_0 else "teacher"


WHICH_END = Exercise(
    id="04.which_end",
    title="What does the weight multiply?",
    difficulty=2,
    minutes=8,
    examples=[(loss,) for loss in LOSSES],
    random_inputs=_random_loss,
    reference=_which_end,
    misconceptions=[
        Misconception(
            "trusts-the-name",
            lambda loss: "labels",
            "Your answer is 'labels' for every one of our 4 losses, also for 1 − weight on the labels. A check at 0.5 "
            "passes for both conventions; only weight 0 and weight 1 tell.",
            "section 2, Break it",
        ),
        Misconception(
            "ends-exchanged",
            lambda loss: {"labels": "teacher", "teacher": "labels", "neither": "neither"}[_which_end(loss)],
            "'labels' and 'teacher' are exchanged. A weight of 1 that leaves only the cross-entropy multiplies the "
            "labels' term.",
            "section 2",
        ),
        Misconception(
            "one-end-only",
            _which_end_one_end_only,
            "For hard + weight · soft you say 'teacher'. At weight 0 its teacher is silent, but at weight 1 both are "
            "heard: it runs from one voice to two. Try both voices at both ends.",
            "section 2, the table",
        ),
        Misconception(
            "compares-sizes",
            _which_end_compares_sizes,
            "You go by the larger loss, so a teacher's term that is scaled by 100 makes you say 'teacher' where the "
            "weight is on the labels. Change an input, and see whether the number moves.",
            "section 2",
        ),
    ],
)


# ---------------------------------------------------------------------------------------------------------------------
# 04.pull

ONE = torch.tensor(1)


def _random_pull(generator: Generator) -> Inputs:
    student, teacher = 2 * torch.randn(2, 4, generator=generator)
    label = torch.randint(4, (), generator=generator)
    alpha = 0.1 + 0.3 * torch.rand((), generator=generator).item()
    return student, teacher, label, alpha, 3.0


def _hard(student: Tensor, label: Tensor) -> Tensor:
    return student.softmax(-1) - one_hot(label, student)


def _soft(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Without a power of T in front."""
    return softened(student, temperature) - softened(teacher, temperature)


def _pull(student: Tensor, teacher: Tensor, label: Tensor, alpha: float, temperature: float) -> Tensor:
    return alpha * _hard(student, label) + (1 - alpha) * temperature * _soft(student, teacher, temperature)


def _pull_t_squared_missing(
    student: Tensor, teacher: Tensor, label: Tensor, alpha: float, temperature: float
) -> Tensor:
    return alpha * _hard(student, label) + (1 - alpha) * _soft(student, teacher, temperature) / temperature


def _pull_chain_rule_forgotten(
    student: Tensor, teacher: Tensor, label: Tensor, alpha: float, temperature: float
) -> Tensor:
    return alpha * _hard(student, label) + (1 - alpha) * temperature**2 * _soft(student, teacher, temperature)


def _pull_hard_term_softened(
    student: Tensor, teacher: Tensor, label: Tensor, alpha: float, temperature: float
) -> Tensor:
    hard = _hard(student / temperature, label)
    return alpha * hard + (1 - alpha) * temperature * _soft(student, teacher, temperature)


PULL = Exercise(
    id="04.pull",
    title="The pull of two voices",
    difficulty=2,
    minutes=8,
    examples=[
        (torch.tensor([0.5, -0.5]), torch.tensor([2.0, -2.0]), ONE, 0.25, 2.0),
        (torch.tensor([0.0, 0.0]), torch.tensor([1.0, -1.0]), ONE, 1.0, 4.0),
        (torch.tensor([1.0, 0.0, -1.0]), torch.tensor([0.0, 3.0, 0.0]), ONE, 0.0, 1.0),
    ],
    random_inputs=_random_pull,
    reference=_pull,
    misconceptions=[
        Misconception(
            "t-squared-missing",
            _pull_t_squared_missing,
            "T² is missing: your soft part is a quarter of ours at T = 2 and a ninth at T = 3, and right at T = 1.",
            "section 4, Break it",
        ),
        Misconception(
            "chain-rule-forgotten",
            _pull_chain_rule_forgotten,
            "Your soft part is T times ours: twice at T = 2. T² is there; s/T has the derivative 1/T, so T is left.",
            "section 1",
        ),
        Misconception(
            "alpha-swapped",
            lambda student, teacher, label, alpha, temperature: _pull(student, teacher, label, 1 - alpha, temperature),
            "At alpha = 1 your answer follows the teacher and not the label: alpha and 1 − alpha are swapped. At "
            "alpha = 0.5 nobody would notice.",
            "section 2",
        ),
        Misconception(
            "temperature-ignored",
            lambda student, teacher, label, alpha, temperature: _pull(student, teacher, label, alpha, 1.0),
            "Your answer is the same at T = 2 and at T = 1: both softmaxes of the soft term need logits / T.",
            "section 1",
        ),
        Misconception(
            "hard-term-softened",
            _pull_hard_term_softened,
            "At alpha = 1 your answer depends on T: at T = 4 a student that is 98% sure of one class of two counts as "
            "73% sure. The hard term stays at temperature 1.",
            "section 1",
        ),
        Misconception(
            "sign-reversed",
            lambda student, teacher, label, alpha, temperature: -_pull(student, teacher, label, alpha, temperature),
            "Yours is −1 times ours: where the student moves to. The gradient is prediction minus target.",
            "section 1",
        ),
    ],
)


# ---------------------------------------------------------------------------------------------------------------------
# 04.alpha_of


def _random_weights(generator: Generator) -> Inputs:
    return tuple((0.5 + 4 * torch.rand(2, generator=generator)).tolist())


def _alpha_of(hard_weight: float, soft_weight: float) -> tuple[float, float]:
    scale = hard_weight + soft_weight
    return hard_weight / scale, scale


ALPHA_OF = Exercise(
    id="04.alpha_of",
    title="Free weights, told as an alpha",
    difficulty=1,
    minutes=4,
    examples=[(2.0, 5.0), (0.3, 0.7), (1.0, 1.0)],
    random_inputs=_random_weights,
    reference=_alpha_of,
    misconceptions=[
        Misconception(
            "not-normalised",
            lambda hard_weight, soft_weight: (hard_weight, 1.0),
            "For the weights 2 and 5 your alpha is 2, which is no share of anything; it must be 2/7.",
            "section 2, the table",
        ),
        Misconception(
            "ratio",
            lambda hard_weight, soft_weight: (hard_weight / soft_weight, soft_weight),
            "For the weights 2 and 5 your alpha is 0.4 = 2/5. The share of the labels is 2/(2 + 5); for equal weights "
            "yours is 1, labels alone.",
            "section 2, the table",
        ),
        Misconception(
            "teacher-share",
            lambda hard_weight, soft_weight: _alpha_of(soft_weight, hard_weight),
            "For the weights 2 and 5 your alpha is 5/7: that is the teacher's share. Here alpha weights the labels.",
            "section 2",
        ),
        Misconception(
            "scale-lost",
            lambda hard_weight, soft_weight: (hard_weight / (hard_weight + soft_weight), 1.0),
            "alpha is right, but your scale is always 1. The weights 2 and 5 give a loss 7 times as large, which SGD "
            "takes for a learning rate 7 times as large.",
            "section 8",
        ),
    ],
)


# ---------------------------------------------------------------------------------------------------------------------
# 04.alpha_to_write


def _random_mix(generator: Generator) -> Inputs:
    alpha, more = torch.rand(2, generator=generator).tolist()
    return 0.05 + 0.9 * alpha, 1.5 + 4 * more


def _alpha_to_write(alpha: float, temperature: float) -> float:
    hard, soft = alpha, (1 - alpha) * temperature**2
    return hard / (hard + soft)


ALPHA_TO_WRITE = Exercise(
    id="04.alpha_to_write",
    title="The alpha to write where T² is missing",
    difficulty=2,
    minutes=5,
    examples=[(0.5, 4.0), (0.5, 1.0), (0.2, 2.0), (0.0, 3.0)],
    random_inputs=_random_mix,
    reference=_alpha_to_write,
    misconceptions=[
        Misconception(
            "unchanged",
            lambda alpha, temperature: alpha,
            "You give alpha back as it was. With 0.5 in the script, at T = 4 the labels weigh 16 times as much as the "
            "teacher.",
            "section 4, Break it",
        ),
        Misconception(
            "one-power",
            lambda alpha, temperature: alpha / (alpha + (1 - alpha) * temperature),
            "At alpha = 0.5, T = 4 you have 0.20, and it is 0.06: a missing T² divides the soft term by T², not by T.",
            "section 4, Break it",
        ),
        Misconception(
            "other-way",
            lambda alpha, temperature: alpha / (alpha + (1 - alpha) / temperature**2),
            "At alpha = 0.5, T = 4 you have 0.94: what 0.5 turns into without T². Asked was what to write so that it "
            "turns into 0.5, and that is 0.06.",
            "section 4, Break it",
        ),
        Misconception(
            "not-renormalised",
            lambda alpha, temperature: alpha / temperature**2,
            "At alpha = 0.5, T = 4 you have 0.03, which is alpha / T². The script takes 1 minus yours for the teacher, "
            "so divide both weights by their sum: 0.06.",
            "section 4, Break it",
        ),
    ],
)


# ---------------------------------------------------------------------------------------------------------------------
# 04.semi


def _random_batch(generator: Generator) -> Inputs:
    student, teacher = torch.randn(2, 8, 3, generator=generator)
    labels = torch.randint(3, (8,), generator=generator)
    labels[torch.randperm(8, generator=generator)[:3]] = IGNORED_LABEL
    return student, teacher, labels, 0.4


def _labelled(labels: Tensor) -> int:
    """How many rows have a label; 1 if none has, so that their mean is 0."""
    return max(int((labels != IGNORED_LABEL).sum()), 1)


def _semi(student: Tensor, teacher: Tensor, labels: Tensor, alpha: float) -> Tensor:
    hard = F.cross_entropy(student, labels, reduction="sum") / _labelled(labels)
    return alpha * hard + (1 - alpha) * kl_per_row(student, teacher).mean()


def _semi_both_by_batch(student: Tensor, teacher: Tensor, labels: Tensor, alpha: float) -> Tensor:
    hard = F.cross_entropy(student, labels, reduction="sum") / len(labels)
    return alpha * hard + (1 - alpha) * kl_per_row(student, teacher).mean()


def _semi_both_by_labelled(student: Tensor, teacher: Tensor, labels: Tensor, alpha: float) -> Tensor:
    hard = F.cross_entropy(student, labels, reduction="sum") / _labelled(labels)
    return alpha * hard + (1 - alpha) * kl_per_row(student, teacher).sum() / _labelled(labels)


def _semi_unlabelled_dropped(student: Tensor, teacher: Tensor, labels: Tensor, alpha: float) -> Tensor:
    hard = F.cross_entropy(student, labels, reduction="sum") / _labelled(labels)
    soft = kl_per_row(student, teacher)[labels != IGNORED_LABEL].sum() / _labelled(labels)
    return alpha * hard + (1 - alpha) * soft


def _semi_label_zero(student: Tensor, teacher: Tensor, labels: Tensor, alpha: float) -> Tensor:
    hard = F.cross_entropy(student, labels.clamp(min=0))
    return alpha * hard + (1 - alpha) * kl_per_row(student, teacher).mean()


def _semi_nan(student: Tensor, teacher: Tensor, labels: Tensor, alpha: float) -> Tensor:
    return alpha * F.cross_entropy(student, labels) + (1 - alpha) * kl_per_row(student, teacher).mean()


SEMI = Exercise(
    id="04.semi",
    title="A batch in which some labels are missing",
    difficulty=3,
    minutes=10,
    examples=[
        (
            torch.tensor([[1.0, -1.0], [0.0, 1.0], [0.5, 0.0], [0.0, 0.0]]),
            torch.tensor([[2.0, -2.0], [-1.0, 1.0], [1.0, 0.0], [0.5, -0.5]]),
            torch.tensor([1, -100, -100, -100]),
            0.5,
        ),
        (torch.tensor([[1.0, -1.0]]), torch.tensor([[0.0, 0.0]]), torch.tensor([-100]), 0.5),
    ],
    random_inputs=_random_batch,
    reference=_semi,
    gradient=True,
    misconceptions=[
        Misconception(
            "both-by-batch",
            _semi_both_by_batch,
            "Your hard term is divided by all rows: with 1 label in 4 rows it is a quarter of ours, as if alpha were "
            "0.2 instead of 0.5.",
            "section 5",
        ),
        Misconception(
            "both-by-labelled",
            _semi_both_by_labelled,
            "Your soft term adds up all rows and is divided by the labelled ones: with 1 label in 4 rows it is four "
            "times ours.",
            "section 5",
        ),
        Misconception(
            "unlabelled-dropped",
            _semi_unlabelled_dropped,
            "Your soft term leaves out the rows without a label, in our first example 3 of 4. They are what a teacher "
            "is for.",
            "section 5",
        ),
        Misconception(
            "label-zero",
            _semi_label_zero,
            "Rows without a label are trained towards class 0: clamping turns −100 into a label, in our first example "
            "for 3 of 4 rows.",
            "section 5",
        ),
        Misconception(
            "nan",
            _semi_nan,
            "Right, until a batch has 0 labelled rows: the mean over nothing is NaN, and after one step so is the "
            "student.",
            "section 5",
        ),
    ],
)


EXERCISES = [WHICH_END, PULL, ALPHA_OF, ALPHA_TO_WRITE, SEMI]
