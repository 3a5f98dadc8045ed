"""The exercises of lesson 04: labels and teacher in one number, and the many ways to weigh them by accident."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812  (the name that everybody knows it by)
from torch import Generator, Tensor

from kdcourse.checks import IGNORED_LABEL
from kdcourse.course.exercises.exercise import Exercise, Inputs, Misconception
from kdcourse.course.exercises.logits import kl_per_row
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
    minutes=8,
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
            "section 6",
        ),
        Misconception(
            "both-by-labelled",
            _semi_both_by_labelled,
            "Your soft term adds up all rows and is divided by the labelled ones: with 1 label in 4 rows it is four "
            "times ours.",
            "section 6",
        ),
        Misconception(
            "unlabelled-dropped",
            _semi_unlabelled_dropped,
            "Your soft term leaves out the rows without a label, in our first example 3 of 4. They are what a teacher "
            "is for.",
            "section 6",
        ),
        Misconception(
            "label-zero",
            _semi_label_zero,
            "Rows without a label are trained towards class 0: clamping turns −100 into a label, in our first example "
            "for 3 of 4 rows.",
            "section 6",
        ),
        Misconception(
            "nan",
            _semi_nan,
            "Right, until a batch has 0 labelled rows: the mean over nothing is NaN, and after one step so is the "
            "student.",
            "section 6",
        ),
    ],
)


EXERCISES = [WHICH_END, SEMI]
